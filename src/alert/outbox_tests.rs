#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::super::event::Kind;
use super::*;

const LIMITS: Limits = Limits { events: 1000, bytes: 10_000_000 };
const ALERTS: Destination = Destination::Alerts;

fn event(id: &str, transaction: &str) -> Event {
    let body = format!(r#"{{"id":"{id}"}}"#);
    Event { id: id.into(), transaction_id: transaction.into(), kind: Kind::Alert, body }
}

/// A receiver that answers from a script, and then always that it has got what was sent.
#[derive(Debug, Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    answers: VecDeque<Answer>,
    got: Vec<(String, Instant)>,
}

impl Scripted {
    fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        let script = Script { answers: answers.into_iter().collect(), got: Vec::new() };
        Self(Arc::new(Mutex::new(script)))
    }

    fn ids(&self) -> Vec<String> {
        self.0.lock().unwrap().got.iter().map(|(id, _)| id.clone()).collect()
    }
}

impl Post for Scripted {
    async fn post(&self, event: &Event) -> Answer {
        let mut script = self.0.lock().unwrap();
        script.got.push((event.id.clone(), Instant::now()));
        script.answers.pop_front().unwrap_or(Answer::Delivered)
    }
}

fn down() -> Answer {
    Answer::Failed { fault: Fault::Receiver, asked: None, why: "it is down".into() }
}

fn in_memory(metrics: &Arc<Metrics>) -> (Outbox, Courier) {
    open(ALERTS, None, LIMITS, Arc::clone(metrics)).unwrap()
}

/// Waits until the queue is as `so` says.
async fn until(outbox: &Outbox, so: impl Fn(&Queue) -> bool) {
    let mut changed = outbox.shared.changed.subscribe();
    changed.wait_for(|()| so(&outbox.shared.queue())).await.unwrap();
}

/// As [`Outbox::settled`], where time stands still: the writer is a thread, for which no clock waits.
async fn settled_meanwhile(outbox: &Outbox) {
    tokio::time::resume();
    assert!(outbox.settled().await);
    tokio::time::pause();
}

fn is_empty(queue: &Queue) -> bool {
    queue.depth().0 == 0
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_with_growing_pauses_until_it_arrives() {
    let metrics = Arc::new(Metrics::default());
    let (outbox, courier) = in_memory(&metrics);
    let receiver = Scripted::answering(std::iter::repeat_with(down).take(12));
    let task = tokio::spawn(courier.run(receiver.clone()));
    outbox.put(event("a", "a"));
    settled_meanwhile(&outbox).await;
    until(&outbox, is_empty).await;
    let times: Vec<Instant> = receiver.0.lock().unwrap().got.iter().map(|(_, at)| *at).collect();
    assert_eq!(times.len(), 13);
    let pauses: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (failures, pause) in (1..).zip(&pauses) {
        let backoff = Backoff::default();
        // The clock of tokio ticks in milliseconds.
        let (least, most) = (backoff.pause(failures, 0.0), backoff.pause(failures, 1.0));
        let tick = Duration::from_millis(2);
        assert!(*pause + tick >= least && *pause <= most + tick, "{failures}: {pause:?}");
    }
    let page = metrics.encode().unwrap();
    for line in [
        r#"delivery_attempts_total{destination="alerts",result="failed"} 12"#,
        r#"delivery_attempts_total{destination="alerts",result="delivered"} 1"#,
        r#"spool_events{destination="alerts"} 0"#,
        r#"delivery_failing{destination="alerts"} 0"#,
    ] {
        assert!(page.contains(line), "{line} not in\n{page}");
    }
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn what_its_receiver_refuses_for_good_is_dropped_and_the_rest_goes_on() {
    let metrics = Arc::new(Metrics::default());
    let (outbox, courier) = in_memory(&metrics);
    let receiver = Scripted::answering([Answer::Refused { why: "it answers 400".into() }]);
    let task = tokio::spawn(courier.run(receiver.clone()));
    outbox.put(event("a", "a"));
    outbox.put(event("b", "b"));
    settled_meanwhile(&outbox).await;
    until(&outbox, is_empty).await;
    assert_eq!(receiver.ids(), ["a", "b"]);
    let page = metrics.encode().unwrap();
    assert!(page.contains(r#"delivery_dropped_total{destination="alerts",reason="refused"} 1"#), "{page}");
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn one_id_is_delivered_once_however_often_it_is_put() {
    let (outbox, courier) = in_memory(&Arc::default());
    let receiver = Scripted::default();
    let task = tokio::spawn(courier.run(receiver.clone()));
    for _ in 0..3 {
        outbox.put(event("a", "a"));
        settled_meanwhile(&outbox).await;
        until(&outbox, is_empty).await;
    }
    assert_eq!(receiver.ids(), ["a"]);
    task.abort();
}

#[tokio::test]
async fn draining_gives_up_on_a_receiver_that_is_down() {
    let (outbox, courier) = in_memory(&Arc::default());
    let task = tokio::spawn(courier.run(Scripted::answering(std::iter::repeat_with(down).take(100))));
    outbox.put(event("a", "a"));
    let began = Instant::now();
    assert!(!outbox.drained(Duration::from_secs(3600)).await);
    assert!(began.elapsed() < Duration::from_secs(60));
    task.abort();
}

#[tokio::test]
async fn what_was_not_delivered_is_delivered_after_a_restart_in_order() {
    let place = tempfile::tempdir().unwrap();
    let open = || open(ALERTS, Some(place.path()), LIMITS, Arc::default());
    let (outbox, courier) = open().unwrap();
    for id in ["a", "b", "c"] {
        outbox.put(event(id, id));
    }
    assert!(outbox.settled().await);
    drop((outbox, courier));
    // The writer's thread lets go of the folder once it has seen that nobody puts anything any more.
    let (outbox, courier) = again(open).await;
    outbox.put(event("d", "d"));
    outbox.put(event("a", "a"));
    assert!(outbox.settled().await);
    let receiver = Scripted::default();
    let task = tokio::spawn(courier.run(receiver.clone()));
    until(&outbox, is_empty).await;
    assert_eq!(receiver.ids(), ["a", "b", "c", "d"]);
    task.abort();
    let files = std::fs::read_dir(place.path()).unwrap().count();
    assert_eq!(files, 1, "only the lock is left");
}

/// Opens a folder that is about to be let go.
async fn again<T>(open: impl Fn() -> Result<T, OutboxError>) -> T {
    let opened = async {
        loop {
            match open() {
                Err(OutboxError::Folder(FolderError::InUse { .. })) => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), opened).await.unwrap()
}

#[tokio::test]
async fn a_full_spool_drops_the_oldest_and_says_so() {
    let place = tempfile::tempdir().unwrap();
    let metrics = Arc::new(Metrics::default());
    let limits = Limits { events: 3, bytes: 10_000_000 };
    let (outbox, _courier) = open(ALERTS, Some(place.path()), limits, Arc::clone(&metrics)).unwrap();
    for id in ["a", "b", "c", "d", "e"] {
        outbox.put(event(id, id));
    }
    assert!(outbox.settled().await);
    let page = metrics.encode().unwrap();
    for line in [
        r#"delivery_dropped_total{destination="alerts",reason="full"} 2"#,
        r#"spool_events{destination="alerts"} 3"#,
        r#"spool_fill_ratio{destination="alerts"} 1.0"#,
    ] {
        assert!(page.contains(line), "{line} not in\n{page}");
    }
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 4, "three messages and the lock");
}

#[tokio::test]
async fn a_burst_of_as_many_messages_as_may_wait_loses_none() {
    let limits = Limits { events: 3 * LEAST_CHANNEL, bytes: u64::MAX };
    let metrics = Arc::new(Metrics::default());
    let (outbox, _courier) = open(ALERTS, None, limits, Arc::clone(&metrics)).unwrap();
    // The writer needs this lock, so that all of them wait for it.
    let queue = outbox.shared.queue();
    for number in 0..limits.events {
        outbox.put(event(&number.to_string(), "t"));
    }
    drop(queue);
    assert!(outbox.settled().await);
    assert_eq!(outbox.shared.queue().depth().0, limits.events);
}

#[tokio::test]
async fn who_waits_for_a_disk_that_hangs_is_told_so_and_goes_on() {
    let (outbox, _courier) = in_memory(&Arc::default());
    assert!(outbox.settled().await);
    tokio::time::pause();
    let shared = Arc::clone(&outbox.shared);
    let (held, is_held) = std::sync::mpsc::channel();
    let (let_go, going) = std::sync::mpsc::channel::<()>();
    // The writer needs this lock.
    let holder = thread::spawn(move || {
        let queue = shared.queue();
        held.send(()).unwrap();
        let _ = going.recv();
        drop(queue);
    });
    is_held.recv().unwrap();
    outbox.put(event("a", "a"));
    assert!(!outbox.settled().await);
    let_go.send(()).unwrap();
    holder.join().unwrap();
}

#[tokio::test]
async fn a_message_that_disk_does_not_take_waits_in_memory() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("spool");
    let metrics = Arc::new(Metrics::default());
    let (outbox, courier) = open(ALERTS, Some(&folder), LIMITS, Arc::clone(&metrics)).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    outbox.put(event("a", "a"));
    assert!(outbox.settled().await);
    let receiver = Scripted::default();
    let task = tokio::spawn(courier.run(receiver.clone()));
    until(&outbox, is_empty).await;
    assert_eq!(receiver.ids(), ["a"]);
    let page = metrics.encode().unwrap();
    assert!(!page.contains(r#"spool_write_errors_total{destination="alerts"} 0"#), "{page}");
    task.abort();
}

#[tokio::test]
async fn a_message_that_cannot_be_read_for_a_while_is_delivered_afterwards() {
    let place = tempfile::tempdir().unwrap();
    let open = || open(ALERTS, Some(place.path()), LIMITS, Arc::default());
    let (outbox, courier) = open().unwrap();
    outbox.put(event("a", "a"));
    assert!(outbox.settled().await);
    drop((outbox, courier));
    let (folder, found) = again(|| Ok(Folder::open(place.path())?)).await;
    let path = folder.path_of(found.events[0].0, &key("a"));
    drop(folder);
    let aside = place.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let (outbox, courier) = open().unwrap();
    let receiver = Scripted::default();
    let task = tokio::spawn(courier.run(receiver.clone()));
    until(&outbox, Queue::is_failing).await;
    outbox.put(event("b", "b"));
    // It has not been taken away, and the others pass it.
    until(&outbox, |queue| queue.depth().0 == 1 && receiver.ids() == ["b"]).await;
    std::fs::rename(&aside, &path).unwrap();
    until(&outbox, is_empty).await;
    assert_eq!(receiver.ids(), ["b", "a"]);
    task.abort();
}

/// Names the folder to the child process below.
const FOLDER: &str = "DRIFTGUARD_TEST_SPOOL";
/// What the child says before the number of a message that is on disk.
const SAID: &str = "settled ";

/// Not a test: what [`a_process_killed_at_any_moment_loses_nothing_that_it_had_settled`] kills.
#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn a_process_that_spools_until_it_is_killed() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let limits = Limits { events: 100_000, bytes: u64::MAX };
    let (outbox, _courier) = open(ALERTS, Some(Path::new(&folder)), limits, Arc::default()).unwrap();
    let first = outbox.shared.queue().depth().0;
    // The test runner may have begun a line.
    println!();
    for number in first.. {
        outbox.put(event(&number.to_string(), "t"));
        assert!(outbox.settled().await);
        let mut out = std::io::stdout().lock();
        writeln!(out, "{SAID}{number}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn a_process_killed_at_any_moment_loses_nothing_that_it_had_settled() {
    let place = tempfile::tempdir().unwrap();
    let mut settled = 0;
    for round in 1..=8_usize {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["a_process_that_spools_until_it_is_killed", "--ignored", "--nocapture"])
            .env(FOLDER, place.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines
            .by_ref()
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix(SAID)?.parse::<usize>().ok());
        // At another moment each time, with a write under way.
        settled = numbers.take(7 * round).last().unwrap() + 1;
        child.kill().unwrap();
        // What it had said before it died counts as well.
        let more = lines.map_while(Result::ok).filter(|line| line.starts_with(SAID)).count();
        settled += more;
        child.wait().unwrap();
        let (_folder, found) = Folder::open(place.path()).unwrap();
        assert_eq!(found.torn, 0, "round {round}");
        let ids: Vec<usize> = found.events.iter().map(|(_, _, event)| event.id.parse().unwrap()).collect();
        assert!(ids.len() >= settled, "round {round}: {} of {settled} are left", ids.len());
        assert_eq!(ids, (0..ids.len()).collect::<Vec<_>>(), "round {round}: each once, in order");
    }
    assert!(settled > 100);
}
