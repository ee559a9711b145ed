//! How often failed checks are counted and told, attempts repeated, and rivals named.

use super::*;

#[test]
fn failed_checks_are_counted_alerted_once_and_resolved_once() {
    let mut room = Room::in_sync();
    room.terms.auto_remediate = false;
    let mut told = Vec::new();
    room.write("bad");
    for expected in 2..=6 {
        room.wait(INTERVAL);
        let steps = room.shows("bad", Look::Sweep);
        assert_eq!(report(&steps).consecutive_failures, expected);
        told.extend(alerts(&steps).into_iter().map(|reason| (expected, reason)));
    }
    assert_eq!(told, [(3, Drifted)]);
    let steps = room.write("good");
    assert_eq!((resolved(&steps), report(&steps).consecutive_failures), (0, 6));
    room.wait(INTERVAL - 1);
    let steps = room.shows("good", Look::Sweep);
    assert_eq!(resolved(&steps), 0, "not before a whole interval");
    room.wait(1);
    let steps = room.shows("good", Look::Sweep);
    assert_eq!((resolved(&steps), report(&steps).consecutive_failures), (1, 0));
}

#[test]
fn drift_that_is_left_alone_is_looked_at_each_interval_for_no_watch_tells_of_it_again() {
    let mut room = Room::in_sync();
    room.terms.auto_remediate = false;
    room.write("bad");
    let mut told = Vec::new();
    for expected in 2..=4 {
        assert_eq!(room.wait_until_due(), INTERVAL);
        let steps = room.shows("bad", Look::Live);
        assert_eq!(report(&steps).consecutive_failures, expected);
        told.extend(alerts(&steps).into_iter().map(|reason| (expected, reason)));
    }
    assert_eq!(told, [(3, Drifted)]);
}

#[test]
fn ten_thousand_changes_are_one_alert_and_few_records() {
    let mut room = Room::in_sync();
    room.enforcing_since = Some(at(START - 60));
    let (mut told, mut records, mut over) = (0, 0, 0);
    for nth in 0..10_000 {
        let steps = room.write(if nth % 2 == 0 { "bad" } else { "good" });
        told += alerts(&steps).len();
        records += kinds(&steps).len();
        over += resolved(&steps);
        if restores(&steps) {
            room.restored(&Outcome::NothingToDo);
        }
        if nth % 10 == 0 {
            room.wait(1);
        }
    }
    assert_eq!((told, over), (1, 0));
    assert!(records <= 20 + 2 * 1_000 / 60, "{records}");
}

#[test]
fn attempts_that_are_undone_are_made_ever_more_rarely_and_become_a_fight() {
    let mut room = Room::in_sync();
    room.by = Some("argocd-controller");
    assert!(restores(&room.write("bad")));
    let mut pauses = Vec::new();
    let mut told = Vec::new();
    for _ in 0..10 {
        room.restore();
        let steps = room.write("bad");
        assert!(!restores(&steps), "not at once again");
        told.extend(alerts(&steps));
        pauses.push(room.wait_until_due());
        assert!(restores(&room.shows("bad", Look::Live)));
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
    assert_eq!(told.len(), 1, "{told:?}");
    let steps = room.restore();
    let Some(Step::Report(report)) = steps.last() else { unreachable!("{steps:?}") };
    assert!(report.fighting.as_ref().unwrap().contains("argocd-controller"), "{report:?}");
    room.wait_until_due();
    let steps = room.shows("good", Look::Live);
    assert_eq!((super::report(&steps).fighting.clone(), resolved(&steps)), (None, 1), "it is over");
}

#[test]
fn a_slow_rival_is_a_fight_as_well_and_does_not_flood_anybody() {
    let mut room = Room::in_sync();
    room.terms.max_failures_before_alert = 1;
    let mut told = 0;
    for _ in 0..100 {
        told += alerts(&room.write("bad")).len();
        if let Some(due) = room.book.next_due() {
            room.now = room.now.max(due);
            room.book.tick(room.now);
            room.shows("bad", Look::Live);
        }
        room.restore();
        room.wait(180);
    }
    assert_eq!(told, 1);
}

#[test]
fn when_no_source_has_the_approved_content_somebody_is_told_and_it_is_tried_again() {
    let mut room = Room::in_sync();
    room.write("bad");
    let nowhere = Outcome::NoVerifiedSource { message: "git team/repo: unavailable".into() };
    let steps = room.restored(&nowhere);
    assert_eq!(alerts(&steps), [NoVerifiedSource]);
    assert_eq!(kinds(&steps), [RecordKind::Remediation]);
    assert!(report(&steps).message.contains("git team/repo: unavailable"), "{:?}", report(&steps).message);
    assert_eq!(report(&steps).last_remediation.as_ref().unwrap().result, RemediationResult::NoVerifiedSource);
    assert_eq!(room.wait_until_due(), 1);
    assert!(restores(&room.shows("bad", Look::Live)));
    assert_eq!(alerts(&room.restored(&nowhere)), [], "once");
    assert_eq!(room.wait_until_due(), 2);
}

#[test]
fn writes_that_fail_count_as_failed_checks() {
    let mut room = Room::in_sync();
    room.write("bad");
    let failed = Outcome::Failed { source: None, message: "403".into() };
    assert_eq!(alerts(&room.restored(&failed)), []);
    room.wait_until_due();
    room.shows("bad", Look::Live);
    assert_eq!(alerts(&room.restored(&failed)), [Drifted]);
}
