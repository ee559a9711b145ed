use super::super::test_support::{approved, guard, index};
use super::*;

const UID: &str = "00000000-0000-4000-8000-000000000001";
const OTHER_UID: &str = "00000000-0000-4000-8000-000000000002";

fn other() -> ContentHash {
    ContentHash::of(b"other")
}

fn present(revision: &str, hash: ContentHash) -> Seen<'static> {
    Seen::Present { uid: UID, revision: Revision::of(revision), hash, terminating: false }
}

fn listed(pass: u32) -> Source {
    Source { look: Look::Watch, list: Some(pass), since: None, missed: false }
}

fn read(since: Revision) -> Source {
    Source { look: Look::Sweep, list: None, since: Some(since), missed: false }
}

/// What is known of one guard, `a` of `n/x`.
fn one() -> (KnownTargets, Guard) {
    let guard = guard("a", Some("n"), "x");
    let mut known = KnownTargets::default();
    let fresh = known.follow(&Arc::new(index(vec![guard.clone()])), &HashSet::new());
    assert_eq!(fresh.len(), 1);
    (known, guard)
}

fn place(known: &KnownTargets) -> Place {
    known.plan().keys().next().cloned().unwrap_or_else(|| unreachable!())
}

fn names(guards: &[Arc<Guard>]) -> Vec<&str> {
    guards.iter().map(|guard| guard.id.name.as_str()).collect()
}

#[test]
fn what_is_kept_of_a_target_as_approved_is_small() {
    assert!(size_of::<Known>() <= 56, "{}", size_of::<Known>());
}

#[test]
fn another_reading_of_the_same_version_is_told_from_a_write() {
    let (mut known, guard) = one();
    let see = |known: &mut KnownTargets, seen| {
        let before = known.read_before(&guard, &seen);
        known.see(&guard, &seen, Source::EVENT, true);
        before
    };
    assert_eq!(see(&mut known, present("5", approved())), None, "nothing was known");
    known.server_is("v1.33.0");
    assert_eq!(see(&mut known, present("6", approved())), None, "labels only, and no news");
    known.server_is("v1.37.0");
    let before = ReadBefore { hash: approved(), server: "v1.33.0".into() };
    assert_eq!(see(&mut known, present("6", other())), Some(before));
    let back = ReadBefore { hash: other(), server: "v1.37.0".into() };
    assert_eq!(see(&mut known, present("6", approved())), Some(back));
    assert_eq!(see(&mut known, present("7", other())), None, "it was written");
    let another =
        Seen::Present { uid: OTHER_UID, revision: Revision::of("7"), hash: approved(), terminating: false };
    assert_eq!(see(&mut known, another), None, "it is another object");
}

#[test]
fn a_target_is_told_once_and_then_only_what_is_new_about_it() {
    let (mut known, guard) = one();
    let mut see = |seen| known.see(&guard, &seen, Source::EVENT, true);
    assert_eq!(see(present("5", approved())), Outcome::News(Look::Initial));
    assert_eq!(see(present("6", approved())), Outcome::Known, "labels only");
    assert_eq!(see(present("7", other())), Outcome::News(Look::Watch));
    assert_eq!(see(present("8", other())), Outcome::Known);
    let again =
        Seen::Present { uid: OTHER_UID, revision: Revision::of("9"), hash: other(), terminating: false };
    assert_eq!(see(again), Outcome::News(Look::Watch), "another object of that name");
    let going =
        Seen::Present { uid: OTHER_UID, revision: Revision::of("10"), hash: other(), terminating: true };
    assert_eq!(see(going), Outcome::News(Look::Watch));
    assert_eq!(see(Seen::Absent(Some(Revision::of("11")))), Outcome::News(Look::Watch));
    assert_eq!(see(Seen::Absent(Some(Revision::of("12")))), Outcome::Known);
    assert_eq!(see(Seen::Unreadable("why")), Outcome::News(Look::Watch));
    assert_eq!(see(Seen::Unreadable("why")), Outcome::Known);
    assert_eq!(see(Seen::Unreadable("why not")), Outcome::News(Look::Watch));
    assert_eq!(see(present("13", approved())), Outcome::News(Look::Watch), "readable again");
}

#[test]
fn a_look_that_is_older_than_what_is_known_says_nothing() {
    let (mut known, guard) = one();
    known.see(&guard, &present("10", approved()), Source::EVENT, true);
    for old in [present("9", other()), Seen::Absent(Some(Revision::of("9")))] {
        assert_eq!(known.see(&guard, &old, Source::EVENT, true), Outcome::Known);
    }
    known.see(&guard, &Seen::Absent(Some(Revision::of("100"))), Source::EVENT, true);
    assert_eq!(known.see(&guard, &present("99", approved()), Source::EVENT, true), Outcome::Known);
    // The same content under the same version that reads otherwise is news all the same.
    known.see(&guard, &present("101", approved()), Source::EVENT, true);
    assert_eq!(known.see(&guard, &present("101", other()), Source::EVENT, true), Outcome::News(Look::Watch));
}

#[test]
fn an_older_answer_to_a_read_of_the_newest_state_means_that_history_went_back() {
    let (mut known, guard) = one();
    known.see(&guard, &present("100", approved()), Source::EVENT, true);
    let since = Revision::of("100");
    assert_eq!(known.see(&guard, &present("50", other()), read(since), true), Outcome::News(Look::Sweep));
    assert_eq!(known.revision(&guard), Some(Revision::of("50")));
    // Unless something was learned while it was under way.
    known.see(&guard, &present("60", approved()), Source::EVENT, true);
    assert_eq!(known.see(&guard, &present("55", other()), read(Revision::of("50")), true), Outcome::Known);
    assert_eq!(known.see(&guard, &Seen::Absent(None), read(Revision::of("50")), true), Outcome::Known);
    assert_eq!(
        known.see(&guard, &Seen::Absent(None), read(Revision::of("60")), true),
        Outcome::News(Look::Sweep)
    );
}

#[test]
fn news_that_nobody_was_told_are_news_again() {
    let (mut known, guard) = one();
    for _ in 0..2 {
        let seen = known.see(&guard, &present("5", other()), Source::EVENT, false);
        assert_eq!(seen, Outcome::News(Look::Initial));
    }
    assert!(known.is_untold(&guard));
}

#[test]
fn only_a_list_that_began_after_a_guard_was_made_can_miss_its_target() {
    let (mut known, first) = one();
    let pass = known.begin();
    let second = guard("b", Some("n"), "x");
    known.follow(&Arc::new(index(vec![first.clone(), second])), &HashSet::new());
    let place = place(&known);
    assert_eq!(names(&known.unlisted(&place, pass)), ["a"]);
    known.see(&first, &present("5", approved()), listed(pass), true);
    assert!(known.unlisted(&place, pass).is_empty());
    let next = known.begin();
    assert_eq!(names(&known.unlisted(&place, next)), ["a", "b"]);
    // An object without a hash is there, too.
    known.see(&first, &Seen::Unreadable("why"), listed(next), true);
    assert_eq!(names(&known.unlisted(&place, next)), ["b"]);
}

#[test]
fn a_sweep_knows_what_watches_told_and_nothing_else() {
    let (mut known, guard) = one();
    let pass = known.begin();
    let place = place(&known);
    assert!(known.unswept(&place, pass).is_empty(), "nobody has looked yet");
    known.see(&guard, &present("10", approved()), Source::EVENT, true);
    assert_eq!(names(&known.unswept(&place, pass)), ["a"]);
    let mut compare = |uid, revision| known.compare(&guard, uid, Revision::of(revision), pass);
    assert!(compare(UID, "10"));
    assert!(compare(UID, "9"), "a watch may be ahead of a sweep");
    assert!(!compare(UID, "11"));
    assert!(!compare(OTHER_UID, "10"));
    assert!(known.unswept(&place, pass).is_empty());
    known.see(&guard, &Seen::Absent(Some(Revision::of("12"))), Source::EVENT, true);
    assert!(known.compare(&guard, UID, Revision::of("11"), pass));
    assert!(!known.compare(&guard, UID, Revision::of("13"), pass));
    let next = known.begin();
    assert!(known.unswept(&place, next).is_empty(), "what is known to be absent is not missed");
}

#[test]
fn another_index_leaves_what_is_known_of_guards_that_pin_the_same() {
    let (mut known, first) = one();
    known.see(&first, &present("10", other()), Source::EVENT, true);
    let mut edited = Guard { generation: 2, contact: Some("me".into()), ..first.clone() };
    let second = guard("0", Some("n"), "y");
    let fresh = known.follow(&Arc::new(index(vec![second.clone(), edited.clone()])), &HashSet::new());
    assert_eq!(fresh.iter().map(|(_, guard)| guard.id.name.as_str()).collect::<Vec<_>>(), ["0"]);
    assert_eq!(known.see(&edited, &present("10", other()), Source::EVENT, true), Outcome::Known);
    // Another approved hash: what the target is must be told anew.
    edited.expected = other();
    let fresh = known.follow(&Arc::new(index(vec![second, edited.clone()])), &HashSet::new());
    assert_eq!(fresh.len(), 1);
    assert_eq!(
        known.see(&first, &present("11", other()), Source::EVENT, true),
        Outcome::Known,
        "it is no more"
    );
    assert_eq!(known.see(&edited, &present("9", other()), Source::EVENT, true), Outcome::Known, "older");
    assert_eq!(
        known.see(&edited, &present("10", other()), Source::EVENT, true),
        Outcome::News(Look::Initial)
    );
}

#[test]
fn a_history_that_went_back_is_taken_as_it_is() {
    let (mut known, guard) = one();
    let place = place(&known);
    known.see(&guard, &present("100", approved()), Source::EVENT, true);
    assert_eq!(known.newest(&place), Revision::of("100"));
    known.forget_revisions(&place);
    assert_eq!(known.see(&guard, &present("50", other()), Source::EVENT, true), Outcome::News(Look::Watch));
}

#[test]
fn versions_that_are_no_numbers_can_only_be_told_apart() {
    let (one, two) = (Revision::of("abc"), Revision::of("abd"));
    assert_ne!(one, two);
    assert_eq!(one, Revision::of("abc"));
    assert!(!one.is_older_than(two) && !two.is_older_than(one) && !Revision::of("1").is_older_than(one));
    assert!(Revision::of("9").is_older_than(Revision::of("10")));
}
