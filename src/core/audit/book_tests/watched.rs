//! What is said of targets that no watch tells of, or that a watch has not told of.

use super::*;

/// A sweep finds what the watch should have told.
fn sweep_finds(room: &mut Room, content: &str) -> Vec<Step> {
    room.revision += 1;
    room.missed = true;
    let steps = room.shows(content, Look::Sweep);
    room.missed = false;
    steps
}

fn why(steps: &[Step]) -> Option<&'static str> {
    report(steps).unwatched.as_ref().map(|unwatched| unwatched.reason)
}

#[test]
fn what_a_watch_has_missed_is_said_until_two_intervals_have_passed_without_more() {
    let mut room = Room::in_sync();
    let steps = sweep_finds(&mut room, "bad");
    assert_eq!(why(&steps), Some(WATCH_MISSED_CHANGE));
    assert_eq!(reason(&steps), (Truth::True, Reason::ContentDiffers));
    // That this one was told shows nothing of others.
    let steps = room.restore();
    assert_eq!(why(&steps), Some(WATCH_MISSED_CHANGE));
    room.wait_until_due();
    assert_eq!(why(&room.shows("good", Look::Live)), Some(WATCH_MISSED_CHANGE), "the episode alone is over");
    room.wait_until_due();
    let steps = room.shows("good", Look::Live);
    assert_eq!((why(&steps), room.now), (None, at(START + 2 * INTERVAL)));
    assert_eq!((room.book.open(), room.book.next_due()), (0, None));
}

#[test]
fn a_watch_that_misses_again_and_again_is_said_once() {
    let mut room = Room::in_sync();
    room.terms.auto_remediate = false;
    let first = report(&sweep_finds(&mut room, "bad")).clone();
    for _ in 0..5 {
        room.wait(INTERVAL);
        let steps = sweep_finds(&mut room, "bad");
        assert_eq!(report(&steps).unwatched, first.unwatched);
    }
    room.write("good");
    room.wait(2 * INTERVAL - 1);
    assert_eq!(why(&room.shows("good", Look::Live)), Some(WATCH_MISSED_CHANGE));
    room.wait(1);
    assert_eq!(why(&room.shows("good", Look::Live)), None);
}

#[test]
fn a_change_that_is_approved_counts_as_missed_as_well() {
    let mut room = Room::new();
    room.guard.also_approved = vec![AlsoApproved { hash: hash("other"), until: None, reason: None }].into();
    room.write("other");
    let steps = sweep_finds(&mut room, "good");
    assert_eq!((reason(&steps), why(&steps)), ((Truth::False, Reason::InSync), Some(WATCH_MISSED_CHANGE)));
    room.wait_until_due();
    assert_eq!(why(&room.shows("good", Look::Live)), None);
}

#[test]
fn a_new_leader_ends_what_the_one_before_it_has_said_of_a_watch() {
    let mut room = Room::in_sync();
    let mut steps = sweep_finds(&mut room, "bad");
    steps.extend(room.restore());
    super::leaders::take_over(&mut room, &steps);
    assert_eq!(why(&room.shows("good", Look::Initial)), Some(WATCH_MISSED_CHANGE));
    room.wait(2 * INTERVAL);
    assert_eq!(why(&room.shows("good", Look::Live)), None);
    let steps = sweep_finds(&mut room, "bad");
    super::leaders::take_over(&mut room, &steps);
    room.wait(2 * INTERVAL);
    room.revision += 1;
    assert_eq!(why(&room.shows("good", Look::Initial)), None, "it was long ago");
}

#[test]
fn a_target_that_can_be_read_and_not_be_watched_says_so() {
    let mut room = Room::in_sync();
    let steps = room.look(&Sight::Unreadable("DriftGuard may not watch it".into()), Look::Watch);
    assert_eq!((reason(&steps).1, why(&steps)), (Reason::Unreadable, None), "the look itself says more");
    room.wait_until_due();
    let steps = room.shows("good", Look::Live);
    assert_eq!((reason(&steps).1, why(&steps)), (Reason::InSync, Some(NOT_WATCHED)));
    assert_eq!(why(&room.write("good")), None);
}
