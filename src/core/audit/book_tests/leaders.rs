//! What a new leader knows, and what it says.

use super::*;

/// What a status says after these steps.
pub(super) fn remembers(steps: &[Step], generation: i64) -> Remembered {
    let report = steps.iter().rev().find_map(|step| match step {
        Step::Report(report) => Some(report),
        _ => None,
    });
    let report = report.unwrap();
    Remembered {
        generation,
        drifted: Some((report.drifted, report.reason, report.checked_at)),
        hash_match: report.hash_match,
        current_hash: report.current_hash,
        consecutive_failures: report.consecutive_failures,
        last_checked: Some(report.checked_at),
        last_drift: report.last_drift.as_ref().map(|last| (last.time, Some(last.transaction_id.clone()))),
        episode: report.episode.clone(),
        alerted: report.alerted,
        fighting: report.fighting.is_some(),
        restore_pending: report.restore_pending,
        incident: report.incident.clone(),
        unwatched: report.unwatched.is_some(),
        missed_at: report
            .unwatched
            .as_ref()
            .filter(|why| why.reason == WATCH_MISSED_CHANGE)
            .map(|_| report.checked_at),
    }
}

/// Another process leads from now on.
pub(super) fn take_over(room: &mut Room, steps: &[Step]) {
    room.remembered = Some(remembers(steps, room.guard.generation));
    room.book = Book::new(room.book.settings);
}

#[test]
fn a_new_leader_says_nothing_about_guards_that_are_calm() {
    let mut room = Room::new();
    let steps = room.write("good");
    take_over(&mut room, &steps);
    assert_eq!(room.shows("good", Look::Initial), []);
    assert_eq!(room.book.open(), 0);
}

#[test]
fn a_new_leader_waits_as_long_for_a_target_that_was_never_there() {
    let mut room = Room::new();
    let steps = room.look(&Sight::Absent, Look::Initial);
    assert!(alerts(&steps).is_empty());
    take_over(&mut room, &steps);
    assert!(alerts(&room.look(&Sight::Absent, Look::Initial)).is_empty());
    room.wait(GRACE);
    assert_eq!(alerts(&room.look(&Sight::Absent, Look::Live)), [AlertReason::Missing]);
}

#[test]
fn a_new_leader_tells_another_reading_of_what_matched_from_drift() {
    let mut room = Room::new();
    room.enforcing_since = Some(at(START - 60));
    let steps = room.write("good");
    take_over(&mut room, &steps);
    // As the status says it.
    room.read_before = super::representation::read_before("good", "v1.37.2");
    room.server = "v1.38.0";
    let steps = room.shows("otherwise", Look::Initial);
    assert_eq!(reason(&steps), (Truth::False, Reason::RepresentationChanged));
    assert!(!restores(&steps) && alerts(&steps).is_empty());
    assert!(steps.iter().any(|step| matches!(step, Step::Equivalent { announcement: Some(_), .. })));
}

#[test]
fn a_new_leader_goes_on_with_an_open_episode_and_tells_nothing_twice() {
    let mut room = Room::in_sync();
    room.enforcing_since = Some(at(START - 60));
    let steps = room.write("bad");
    take_over(&mut room, &steps);
    let steps = room.shows("bad", Look::Initial);
    assert_eq!(reason(&steps).1, Reason::BypassedAdmission);
    assert_eq!((alerts(&steps), kinds(&steps)), (vec![], vec![]));
    assert!(steps.contains(&Step::Restore { transaction_id: "tx-1".into() }), "under the same id");
    let steps = room.restore();
    take_over(&mut room, &steps);
    room.wait(INTERVAL);
    let steps = room.shows("good", Look::Initial);
    assert_eq!((resolved(&steps), report(&steps).consecutive_failures), (1, 0));
}

#[test]
fn a_new_leader_finds_what_drifted_while_nobody_led() {
    let mut room = Room::in_sync();
    room.wait(100);
    let steps = room.write("good enough");
    assert_eq!(reason(&steps).0, Truth::True);
    let mut room = Room::new();
    let steps = room.write("good");
    take_over(&mut room, &steps);
    room.enforcing_since = Some(at(START - 60));
    room.wait(100);
    room.revision += 1;
    let steps = room.shows("bad", Look::Initial);
    assert_eq!(
        reason(&steps).1,
        Reason::BypassedAdmission,
        "it was approved, and enforced, when last checked"
    );
    assert!(restores(&steps));
}

#[test]
fn a_new_leader_leaves_alone_what_changed_under_an_exception() {
    let mut room = Room::in_sync();
    room.pause(60);
    let steps = room.write("bad");
    take_over(&mut room, &steps);
    room.wait(60);
    let steps = room.shows("bad", Look::Initial);
    assert_eq!(reason(&steps).1, Reason::ExceptionEnded);
    assert!(!restores(&steps));
    take_over(&mut room, &steps);
    room.guard.pauses.clear();
    assert!(!restores(&room.shows("bad", Look::Initial)));
}

#[test]
fn a_new_leader_goes_on_waiting_for_an_apply() {
    let mut room = Room::in_sync();
    room.edit(|guard| guard.expected = hash("next"));
    let steps = room.shows("good", Look::Live);
    take_over(&mut room, &steps);
    room.wait(60);
    assert_eq!(reason(&room.shows("good", Look::Initial)).1, Reason::AwaitingApply);
    assert_eq!(room.wait_until_due(), GRACE - 60, "from when it began");
}

#[test]
fn an_approval_that_came_while_nobody_led_awaits_its_apply() {
    let mut room = Room::new();
    let steps = room.write("good");
    take_over(&mut room, &steps);
    room.guard.generation += 1;
    room.guard.expected = hash("next");
    assert_eq!(reason(&room.shows("good", Look::Initial)).1, Reason::AwaitingApply);
}
