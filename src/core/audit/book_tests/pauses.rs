//! Exceptions and suspensions: what changes under them, and what becomes of it.

use super::*;

#[test]
fn what_changes_under_an_exception_is_recorded_and_left_alone() {
    let mut room = Room::in_sync();
    room.enforcing_since = Some(at(START - 60));
    room.pause(3_600);
    let steps = room.write("bad");
    assert_eq!(reason(&steps), (Truth::True, Reason::Excepted));
    assert_eq!(kinds(&steps), [RecordKind::Drift]);
    assert!(!restores(&steps) && alerts(&steps).is_empty());
    assert_eq!(report(&steps).consecutive_failures, 0, "nobody failed to do anything");
}

#[test]
fn at_the_end_of_an_exception_what_changed_is_not_restored_until_a_person_says_so() {
    let mut room = Room::in_sync();
    room.pause(3_600);
    room.write("bad");
    assert_eq!(room.wait_until_due(), 3_600);
    let steps = room.shows("bad", Look::Live);
    assert_eq!(reason(&steps), (Truth::True, Reason::ExceptionEnded));
    assert!(!restores(&steps));
    for _ in 0..3 {
        room.wait(INTERVAL);
        assert!(!restores(&room.shows("bad", Look::Sweep)));
    }
    assert_eq!(room.ask("1"), [Step::Look]);
    let steps = room.shows("bad", Look::Live);
    assert!(restores(&steps));
    assert_eq!(report(&steps).heeded_restore.as_deref(), Some("1"));
}

#[test]
fn what_a_person_asks_for_is_done_once_and_holds_for_no_later_drift() {
    let mut room = Room::in_sync();
    room.ask("1");
    let steps = room.shows("good", Look::Live);
    assert_eq!(
        report(&steps).heeded_restore.as_deref(),
        Some("1"),
        "said, so that no other leader heeds it later"
    );
    room.pause(60);
    room.write("bad");
    room.wait(60);
    assert!(!restores(&room.shows("bad", Look::Live)));
    room.ask("2");
    assert!(restores(&room.shows("bad", Look::Live)));
    room.restore();
    room.pause(60);
    room.write("bad");
    room.wait(60);
    assert!(!restores(&room.shows("bad", Look::Live)));
}

#[test]
fn what_came_with_a_guard_is_done_with_although_its_target_cannot_be_read_at_first() {
    let mut room = Room::new();
    room.terms.auto_remediate = false;
    room.ask("of a backup");
    let steps = room.look(&Sight::Unreadable("may not watch".into()), Look::Initial);
    assert_eq!(report(&steps).heeded_restore.as_deref(), Some("of a backup"));
    assert!(!restores(&room.shows("bad", Look::Live)));
}

#[test]
fn what_a_person_asked_for_before_another_approval_is_asked_for_no_longer() {
    let mut room = Room::in_sync();
    room.terms.auto_remediate = false;
    room.write("bad");
    room.ask("1");
    assert!(restores(&room.shows("bad", Look::Live)));
    room.restored(&Outcome::Failed { source: None, message: "no".into() });
    room.edit(|guard| guard.expected = hash("better"));
    assert!(!restores(&room.shows("bad", Look::Live)), "it was asked for other content");
}

#[test]
fn a_person_may_have_put_back_what_the_guard_leaves_alone_or_awaits() {
    let mut room = Room::in_sync();
    room.terms.auto_remediate = false;
    let steps = room.write("bad");
    assert!(!restores(&steps));
    assert!(report(&steps).message.contains("driftguard restore -n "), "{steps:?}");
    room.ask("1");
    assert!(restores(&room.shows("bad", Look::Live)));
    room.restored(&Outcome::Failed { source: None, message: "no".into() });
    room.wait_until_due();
    assert!(restores(&room.shows("bad", Look::Live)), "until it has succeeded");
    room.restore();
    assert!(!restores(&room.write("bad")));

    let mut room = Room::in_sync();
    room.edit(|guard| guard.expected = hash("better"));
    assert_eq!(reason(&room.shows("good", Look::Live)), (Truth::False, Reason::AwaitingApply));
    room.ask("1");
    let steps = room.shows("good", Look::Live);
    assert_eq!(reason(&steps), (Truth::True, Reason::NotApplied));
    assert!(restores(&steps));
}

#[test]
fn a_request_that_comes_with_its_guard_is_from_a_backup_and_asks_for_nothing() {
    let mut room = Room::new();
    room.terms.auto_remediate = false;
    room.ask("of last year");
    let steps = room.shows("bad", Look::Initial);
    assert!(!restores(&steps));
    assert_eq!(report(&steps).heeded_restore.as_deref(), Some("of last year"));
    room.ask("now");
    assert!(restores(&room.shows("bad", Look::Live)));
}

#[test]
fn a_new_leader_heeds_what_was_asked_for_while_nobody_led() {
    let mut room = Room::in_sync();
    room.pause(60);
    let steps = room.write("bad");
    room.remembered = Some(leaders::remembers(&steps, room.guard.generation));
    room.book = Book::new(Settings { remediation: true, limits: Limits::default() });
    room.guard.pauses.clear();
    room.wait(3_600);
    room.ask("1");
    // A look that shows nothing heeds nothing.
    let unreadable = Sight::Unreadable("no answer".into());
    assert!(report(&room.look(&unreadable, Look::Live)).heeded_restore.is_none());
    let steps = room.shows("bad", Look::Initial);
    assert!(restores(&steps));
    assert_eq!(report(&steps).heeded_restore.as_deref(), Some("1"));
}

#[test]
fn a_new_leader_goes_on_with_what_a_person_asked_for_until_it_has_succeeded() {
    let asked_and_failed = || {
        let mut room = Room::in_sync();
        room.terms.auto_remediate = false;
        room.write("bad");
        room.ask("1");
        assert!(restores(&room.shows("bad", Look::Live)));
        let steps = room.restored(&Outcome::Failed { source: None, message: "no".into() });
        leaders::take_over(&mut room, &steps);
        room
    };
    let mut room = asked_and_failed();
    assert!(restores(&room.shows("bad", Look::Initial)));
    let steps = room.restore();
    assert!(!report(&steps).restore_pending);
    leaders::take_over(&mut room, &steps);
    assert!(!restores(&room.write("bad")), "it was asked for once");
    let mut room = asked_and_failed();
    room.revision += 1;
    assert!(!restores(&room.shows("worse", Look::Initial)), "it was asked for other content");
    let mut room = asked_and_failed();
    room.guard.generation += 1;
    room.guard.expected = hash("better");
    assert!(!restores(&room.shows("bad", Look::Initial)), "it was asked for what was approved then");
}

#[test]
fn a_new_leader_cannot_tell_whether_a_secret_is_what_a_person_asked_about() {
    let mut room = Room::new();
    room.guard.scope = Scope::new("", "Secret", PathFilter::everything());
    room.guard.target.kind = "Secret".into();
    room.terms.auto_remediate = false;
    room.write("good");
    room.write("bad");
    room.ask("1");
    assert!(restores(&room.shows("bad", Look::Live)));
    let steps = room.restored(&Outcome::Failed { source: None, message: "no".into() });
    assert!(report(&steps).restore_pending);
    leaders::take_over(&mut room, &steps);
    room.revision += 1;
    assert!(!restores(&room.shows("worse", Look::Initial)), "it may have been asked for other content");
    room.ask("2");
    assert!(restores(&room.shows("worse", Look::Live)));
}

#[test]
fn an_exception_that_is_deleted_ends_as_one_that_runs_out() {
    let mut room = Room::in_sync();
    room.pause(3_600);
    room.write("bad");
    let before = room.guard.clone();
    room.guard.pauses.clear();
    assert_eq!(room.book.guard_changed(&before, Some(&room.guard), room.now), [Step::Look]);
    let steps = room.shows("bad", Look::Live);
    assert_eq!(reason(&steps).1, Reason::ExceptionEnded);
    assert!(!restores(&steps));
}

#[test]
fn a_person_who_approves_what_changed_under_an_exception_ends_the_matter() {
    let mut room = Room::in_sync();
    room.pause(60);
    room.write("hotfix");
    room.wait(60);
    room.shows("hotfix", Look::Live);
    assert_eq!(room.edit(|guard| guard.expected = hash("hotfix")), [Step::Look]);
    assert_eq!(reason(&room.shows("hotfix", Look::Live)).0, Truth::False);
    let mut room = Room::in_sync();
    room.pause(60);
    room.write("hotfix");
    room.wait(60);
    room.shows("hotfix", Look::Live);
    room.edit(|guard| guard.expected = hash("something else"));
    assert!(restores(&room.shows("hotfix", Look::Live)), "approving other content decides, too");
}

#[test]
fn prolonging_a_suspension_decides_nothing_about_what_changed_under_it() {
    let mut room = Room::in_sync();
    room.pause(60);
    room.write("bad");
    room.wait(60);
    room.edit(|guard| guard.pauses.clear());
    assert_eq!(reason(&room.shows("bad", Look::Live)).1, Reason::ExceptionEnded);
}

#[test]
fn drift_of_the_moment_before_a_pause_may_have_passed_under_it() {
    // Another replica hears of the pause first, and lets the write pass.
    let mut room = Room::in_sync();
    room.write("hotfix");
    room.pause(60);
    assert_eq!(reason(&room.shows("hotfix", Look::Live)), (Truth::True, Reason::Excepted));
    room.wait_until_due();
    let steps = room.shows("hotfix", Look::Live);
    assert_eq!(reason(&steps), (Truth::True, Reason::ExceptionEnded));
    assert!(!restores(&steps));
}

#[test]
fn drift_from_before_a_pause_is_put_back_after_it() {
    let mut room = Room::in_sync();
    room.write("bad");
    room.wait(5);
    assert_eq!(room.pause(60), [Step::GiveUp { transaction_id: "tx-1".into() }, Step::Look]);
    assert!(!room.book.may_restore(&room.guard, "tx-1", room.now));
    let steps = room.shows("bad", Look::Live);
    assert_eq!(reason(&steps), (Truth::True, Reason::ContentDiffers));
    assert!(!restores(&steps));
    room.wait_until_due();
    assert!(restores(&room.shows("bad", Look::Live)));
}

#[test]
fn what_a_list_shows_just_after_a_pause_may_have_changed_under_it() {
    let mut room = Room::in_sync();
    room.pause_ended = Some(after(room.now, Duration::from_secs(10)));
    room.wait(INTERVAL);
    room.revision += 1;
    let steps = room.shows("bad", Look::Initial);
    assert_eq!(reason(&steps).1, Reason::ExceptionEnded);
    assert!(!restores(&steps));
    let mut room = Room::in_sync();
    room.pause_ended = Some(after(room.now, Duration::from_secs(10)));
    room.wait(20);
    assert_eq!(reason(&room.write("bad")).1, Reason::ContentDiffers, "a watch would have told in time");
}
