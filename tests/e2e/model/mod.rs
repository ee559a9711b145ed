//! The model test: several people, an approver, faults and straight writes into etcd at once over a few guards, by
//! chance from a seed. Afterwards etcd's own history is read: no revision that came through an API server may hold
//! what no guard approved when it was written, and in the end every guard tells the truth.
//!
//! `DRIFTGUARD_MODEL_SEED` plays a seed again (each takes the same steps; how they interleave is up to the machine),
//! `DRIFTGUARD_MODEL_SECONDS` says for how long. `make soak` plays one seed after the other.

mod ending;
mod faults;
mod oracle;
mod oracle_tests;
mod people;
mod play;
mod rule;
mod world;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use driftguard_control_plane::ControlPlane;

use crate::fleet::Fleet;
use crate::installation::Via;
use play::Play;
use world::SPOTS;

/// The revision from which on the history is read: all of it.
const SINCE: i64 = 1;
/// How long a run lasts when nothing else is said; it begins and ends in about as much again.
const SECONDS: u64 = 15;
/// Who writes.
const USERS: [&str; 3] = ["alice", "bob", "erin"];

fn number(variable: &str) -> Result<Option<u64>> {
    let told = std::env::var(variable).ok();
    told.map(|told| told.parse().with_context(|| format!("{variable} is no number: {told}"))).transpose()
}

fn fresh_seed() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_microsecond()).unwrap_or_default()
}

/// Plays one seed.
fn play(seed: u64, time: Duration) -> Result<()> {
    println!("model: seed {seed}, {time:?}");
    let plane = ControlPlane::builder()
        // So that the judge can read everything, and all of it.
        .api_server_flag("--storage-media-type=application/json")
        .api_server_flag("--etcd-compaction-interval=0")
        // With the second one, which follows changes by itself, only sometimes: it is slow to start.
        .api_servers(if seed.is_multiple_of(3) { 2 } else { 1 })
        .start()?;
    let via = if seed.is_multiple_of(2) { Via::Url } else { Via::Service };
    let mut flags: Vec<String> = plane
        .api_servers()
        .iter()
        .map(|server| format!("--api-server-endpoint={}", server.address()))
        .collect();
    // So short that what is approved and not applied is put back within a run.
    flags.push("--apply-grace=3s".to_owned());
    let fleet = Fleet::with_flags(plane, via, &flags)?;
    let hashes = world::make(&fleet)?;
    let play = Play::new(fleet, hashes, seed)?;
    play.look();
    run(&play, time).map_err(|error| {
        let folder = play.fleet.plane.folder();
        if std::env::var_os("DRIFTGUARD_MODEL_KEEP").is_some() {
            play.fleet.plane.guardian().keep_folder();
        }
        anyhow!("{}\n{error:#}\n{}", play.told(), folder.display())
    })
}

fn run(play: &Play, time: Duration) -> Result<()> {
    let (ended, mended) = std::thread::scope(|scope| {
        let clock = scope.spawn(|| play.keep_clock());
        let people = USERS.map(|name| scope.spawn(move || people::user(play, name)));
        let others: [fn(&Play) -> Result<()>; 4] =
            [people::approver, faults::replicas, faults::servers, faults::straight];
        let others = others.map(|act| scope.spawn(move || act(play)));
        let until = Instant::now() + time;
        let failed = || people.iter().chain(&others).any(std::thread::ScopedJoinHandle::is_finished);
        while Instant::now() < until && !failed() {
            std::thread::park_timeout(Duration::from_millis(100));
        }
        play.end();
        let end = |handle: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            handle.join().map_err(|_| anyhow!("somebody panicked"))?
        };
        let ended = people.into_iter().chain(others).map(end).collect::<Result<Vec<()>>>();
        // Whatever happened, what is in etcd can be judged.
        let mended = ending::mend(play).and_then(|()| ending::right(play));
        play.close();
        drop(clock.join());
        (ended, mended)
    });
    let history = play.fleet.plane.etcd().history(SINCE)?;
    let watched: Vec<_> = SPOTS.iter().map(world::Spot::watched).collect();
    let known = play.known();
    let oracle::Judgement { offences, weighed, wrongs, false_alarms } =
        oracle::judge(&history, &watched, &known)?;
    let revisions = history.iter().filter(|change| watched.iter().any(|of| of.object == change.key)).count();
    let [stored, refused, unsure] = play.counts();
    println!(
        "model: seed {}: {stored} operations stored, {refused} refused, {unsure} unsure; {revisions} revisions, {weighed} by what they hold; {} refusals",
        play.seed,
        known.refusals.len()
    );
    if !offences.is_empty() {
        let found: Vec<String> = offences.iter().map(ToString::to_string).collect();
        bail!("not approved:\n{}", found.join("\n"));
    }
    ensure!(wrongs.is_empty(), "refused, although approved: {wrongs:?}");
    ensure!(false_alarms.is_empty(), "nothing bypassed admission: {false_alarms:?}");
    ended?;
    println!("model: seed {}: in the end {}", play.seed, mended?.join(", "));
    ensure!(weighed > 0, "nothing was judged by what it holds");
    Ok(())
}

#[test]
fn nothing_unapproved_passes_admission_whatever_fails_and_every_guard_tells_the_truth_in_the_end()
-> Result<()> {
    let seed = number("DRIFTGUARD_MODEL_SEED")?.unwrap_or_else(fresh_seed);
    let seconds = number("DRIFTGUARD_MODEL_SECONDS")?.unwrap_or(SECONDS);
    play(seed, Duration::from_secs(seconds))
}

#[test]
#[ignore = "runs for as long as it is told; `make soak`"]
fn soak() -> Result<()> {
    let time = Duration::from_secs(number("DRIFTGUARD_SOAK_SECONDS")?.unwrap_or(600));
    let each = Duration::from_secs(number("DRIFTGUARD_MODEL_SECONDS")?.unwrap_or(2 * SECONDS));
    let since = Instant::now();
    while since.elapsed() < time {
        play(fresh_seed(), each)?;
    }
    Ok(())
}
