//! What reads otherwise although nobody has written it.

use super::*;

#[test]
fn another_version_of_the_api_server_changes_a_representation_and_no_content() {
    let mut room = Room::in_sync();
    room.server = "v1.38.0";
    let steps = room.shows("good, read otherwise", Look::Initial);
    assert_eq!(reason(&steps), (Truth::False, Reason::RepresentationChanged));
    assert!(!restores(&steps) && alerts(&steps).is_empty());
    assert_eq!(kinds(&steps), [RecordKind::RepresentationChanged]);
    let said = steps.iter().find_map(|step| match step {
        Step::Equivalent { hash, announcement } => Some((*hash, announcement.clone())),
        _ => None,
    });
    let (equivalent, announcement) = said.unwrap();
    assert_eq!(equivalent, hash("good, read otherwise"));
    let announcement = announcement.unwrap();
    assert!(announcement.contains("v1.38.0") && announcement.contains("v1.37.2"), "{announcement}");
    room.server = "v1.37.2";
    assert_eq!(reason(&room.shows("good", Look::Watch)), (Truth::False, Reason::InSync), "they take turns");
    room.server = "v1.38.0";
    let steps = room.shows("good, read otherwise", Look::Watch);
    assert_eq!(reason(&steps).1, Reason::RepresentationChanged);
    assert!(!steps.iter().any(|step| matches!(step, Step::Equivalent { .. })), "it is known");
}

/// One whose target reads otherwise since the API server was replaced, as its guard knows by now.
fn represented() -> Room {
    let mut room = Room::in_sync();
    room.server = "v1.38.0";
    room.shows("otherwise", Look::Initial);
    let before = room.guard.clone();
    room.guard.equivalents = vec![hash("otherwise")].into();
    assert_eq!(room.book.guard_changed(&before, Some(&room.guard), room.now), []);
    assert_eq!(room.book.open(), 0, "the guard itself knows it");
    room
}

#[test]
fn an_equivalent_outlives_an_edit_that_approves_nothing_else_and_is_signed_anew() {
    let mut room = represented();
    let steps = room.edit(|guard| {
        guard.enforcement = Enforcement::Warn;
        guard.equivalents = Default::default();
    });
    assert_eq!(steps, [Step::Look]);
    let steps = room.shows("otherwise", Look::Live);
    assert_eq!(reason(&steps), (Truth::False, Reason::RepresentationChanged));
    let signed = Step::Equivalent { hash: hash("otherwise"), announcement: None };
    assert!(steps.contains(&signed), "{steps:?}");
    assert!(!room.shows("otherwise", Look::Live).contains(&signed), "once");
}

#[test]
fn an_equivalent_of_what_was_approved_before_awaits_the_apply_as_that_does() {
    let mut room = represented();
    room.edit(|guard| {
        guard.expected = hash("next");
        guard.equivalents = Default::default();
    });
    assert_eq!(reason(&room.shows("otherwise", Look::Live)), (Truth::False, Reason::AwaitingApply));
    room.wait_until_due();
    assert_eq!(reason(&room.shows("otherwise", Look::Live)), (Truth::True, Reason::NotApplied));
}

/// What was known of the version of the object that is shown next.
pub(super) fn read_before(content: &str, server: &str) -> Option<ReadBefore> {
    Some(ReadBefore { hash: hash(content), server: server.to_owned() })
}

#[test]
fn writes_that_leave_the_content_alone_do_not_hide_that_the_api_server_reads_it_otherwise() {
    let mut room = Room::in_sync();
    // Labels were written, which nobody told; then the API server was replaced.
    room.revision += 5;
    room.read_before = read_before("good", "v1.37.2");
    room.server = "v1.38.0";
    let steps = room.shows("otherwise", Look::Watch);
    assert_eq!(reason(&steps), (Truth::False, Reason::RepresentationChanged));
    // By the same server it is no other reading.
    let mut room = Room::in_sync();
    room.revision += 5;
    room.read_before = read_before("good", "v1.37.2");
    assert_eq!(reason(&room.shows("otherwise", Look::Watch)), (Truth::True, Reason::ContentDiffers));
    // Nor is what was not approved before either.
    let mut room = Room::in_sync();
    room.read_before = read_before("bad", "v1.37.2");
    room.server = "v1.38.0";
    assert_eq!(reason(&room.shows("worse", Look::Watch)).0, Truth::True);
}

#[test]
fn writes_that_leave_the_content_alone_do_not_hide_that_a_definition_was_edited() {
    let mut room = Room::in_sync();
    room.built_in = false;
    room.enforcing_since = Some(at(START - 60));
    room.revision += 5;
    room.read_before = read_before("good", "v1.37.2");
    let steps = room.shows("otherwise", Look::Watch);
    assert_eq!(reason(&steps), (Truth::True, Reason::DefinitionChanged));
    assert!(!restores(&steps));
}

#[test]
fn what_matched_is_said_of_kinds_that_may_read_otherwise_and_its_version_alone_is_no_news() {
    let mut room = Room::new();
    let steps = room.write("good");
    let matched = report(&steps).matched.clone().unwrap();
    assert_eq!((matched.uid.as_str(), matched.resource_version.as_str()), ("object", "2"));
    assert_eq!(matched.hash, hash("good"));
    assert_eq!(room.write("good"), [], "written, and the same content");
    assert_eq!(report(&room.write("bad")).matched, None);
    let mut room = Room::new();
    room.guard.scope = Scope::new("", "Secret", PathFilter::everything());
    assert_eq!(report(&room.write("good")).matched, None);
}

#[test]
fn a_change_of_representation_is_announced_once_for_the_cluster() {
    let mut room = Room::new();
    let mut announced = 0;
    for name in ["a", "b", "c"] {
        room.guard = guard("ns", name);
        room.server = "v1.37.2";
        room.shows("good", Look::Initial);
        room.server = "v1.38.0";
        let steps = room.shows("otherwise", Look::Initial);
        announced += steps
            .iter()
            .filter(|step| matches!(step, Step::Equivalent { announcement: Some(_), .. }))
            .count();
    }
    assert_eq!(announced, 1);
}

#[test]
fn an_object_that_was_written_has_changed_whatever_server_shows_it() {
    let mut room = Room::in_sync();
    room.server = "v1.38.0";
    assert_eq!(reason(&room.write("bad")).1, Reason::ContentDiffers);
    for server in ["v1.37.2", ""] {
        let mut room = Room::in_sync();
        room.server = server;
        let steps = room.shows("read otherwise by the same server, or nobody knows which", Look::Watch);
        assert_eq!(reason(&steps).1, Reason::ContentDiffers);
    }
}

#[test]
fn what_is_read_otherwise_after_the_guard_was_changed_tells_nothing_of_the_server() {
    let mut room = Room::in_sync();
    room.edit(|guard| {
        guard.expected = hash("next");
        guard.also_approved = Default::default();
    });
    room.server = "v1.38.0";
    let steps = room.shows("otherwise", Look::Live);
    assert_eq!(reason(&steps), (Truth::True, Reason::ContentDiffers));
}

#[test]
fn an_edited_definition_is_alerted_and_nothing_is_written_or_approved_for_it() {
    let mut room = Room::in_sync();
    room.built_in = false;
    room.server = "v1.38.0";
    let steps = room.shows("read otherwise", Look::Watch);
    assert_eq!(reason(&steps), (Truth::True, Reason::DefinitionChanged));
    assert_eq!(alerts(&steps), [DefinitionChanged]);
    assert!(!restores(&steps));
    assert!(!steps.iter().any(|step| matches!(step, Step::Equivalent { .. })));
    room.wait(INTERVAL);
    let steps = room.shows("read otherwise", Look::Sweep);
    assert_eq!(reason(&steps), (Truth::True, Reason::DefinitionChanged));
    assert!(!restores(&steps) && alerts(&steps).is_empty());
    assert_eq!(reason(&room.shows("good", Look::Watch)).0, Truth::False, "the edit is undone");
}
