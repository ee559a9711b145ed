//! Many guards that drift at once.

use super::*;

/// Many guards of one namespace, each in a room of its own that shares the book.
fn many(namespace: &str, count: usize) -> Vec<Guard> {
    (0..count).map(|nth| guard(namespace, &format!("g{nth}"))).collect()
}

impl Room {
    fn of(&mut self, guard: &Guard) -> &mut Self {
        self.guard = guard.clone();
        self
    }

    fn with(guards: &[Guard]) -> Self {
        let mut room = Self::new();
        let mut counts: BTreeMap<Text, usize> = BTreeMap::new();
        for guard in guards {
            *counts.entry(guard.id.namespace.clone()).or_default() += 1;
        }
        room.book.census(counts);
        for guard in guards {
            room.of(guard).shows("good", Look::Watch);
        }
        room
    }
}

#[test]
fn many_guards_that_drift_at_once_stop_remediation_with_one_alert() {
    let guards = many("ns", 8);
    let mut room = Room::with(&guards);
    room.enforcing_since = Some(at(START - 60));
    let steps: Vec<Vec<Step>> = guards.iter().map(|guard| room.of(guard).write("bad")).collect();
    let restored: Vec<bool> = steps.iter().map(|steps| restores(steps)).collect();
    assert_eq!(restored, [true, true, true, true, true, false, false, false]);
    let told: Vec<AlertReason> = steps.iter().flat_map(|steps| alerts(steps)).collect();
    assert_eq!(told[..5], [BypassedAdmission; 5]);
    assert_eq!(told[5..], [RemediationStopped], "it speaks for the others");
    let stopped = steps[5].iter().filter(|step| matches!(step, Step::GiveUp { .. })).count();
    assert_eq!(stopped, 5, "what is under way stops as well");
    let id = room.book.incidents().next().unwrap().to_owned();
    let held = report(&steps[7]);
    assert_eq!(held.incident.as_ref(), Some(&id));
    let command = format!(
        "kubectl annotate driftguards.terrafusion.ai -n ns g7 driftguard.terrafusion.ai/acknowledge={id} --overwrite"
    );
    assert!(held.message.contains(&command), "{}", held.message);
    assert!(!room.book.may_restore(&guards[0], "tx-1", room.now));
}

#[test]
fn an_acknowledgement_lets_remediation_go_on() {
    let guards = many("ns", 8);
    let mut room = Room::with(&guards);
    for guard in &guards {
        room.of(guard).write("bad");
        room.restored(&Outcome::GivenUp);
    }
    assert_eq!(room.book.acknowledge("namespace-other", &"ns".into(), room.now), []);
    let id = room.book.incidents().next().unwrap().to_owned();
    let steps = room.book.acknowledge(&id, &"ns".into(), room.now);
    let asked: BTreeSet<&Text> =
        steps.iter().filter(|(_, step)| *step == Step::Look).map(|(uid, _)| uid).collect();
    assert_eq!(asked.len(), 8);
    let steps: Vec<Step> = steps.iter().map(|(_, step)| step.clone()).collect();
    assert_eq!((resolved(&steps), kinds(&steps)), (1, vec![RecordKind::IncidentClosed]));
    room.wait(10);
    for guard in &guards {
        assert!(restores(&room.of(guard).shows("bad", Look::Live)), "{}", guard.id);
    }
}

#[test]
fn an_incident_is_over_when_its_guards_are_as_approved() {
    let guards = many("ns", 8);
    let mut room = Room::with(&guards);
    for guard in &guards {
        room.of(guard).write("bad");
    }
    let mut over = 0;
    for guard in &guards {
        over += resolved(&room.of(guard).write("good"));
    }
    assert_eq!((over, room.book.incidents().count()), (1, 0));
}

#[test]
fn edits_grace_exceptions_and_representations_open_no_incident() {
    let guards = many("ns", 30);
    let mut room = Room::with(&guards);
    room.server = "v1.38.0";
    for guard in &guards[..10] {
        room.of(guard).shows("otherwise", Look::Initial);
    }
    room.server = "v1.37.2";
    for guard in &guards[10..20] {
        room.of(guard).pause(60);
        room.write("bad");
    }
    for guard in &guards[20..] {
        room.of(guard).edit(|guard| guard.also_approved = Default::default());
        room.edit(|guard| guard.expected = hash("next"));
        room.shows("good", Look::Live);
    }
    room.wait(GRACE);
    for guard in &guards[20..] {
        let edited = Guard { generation: 3, expected: hash("next"), ..guard.clone() };
        assert_eq!(reason(&room.of(&edited).shows("good", Look::Live)).1, Reason::NotApplied);
    }
    assert_eq!(room.book.incidents().count(), 0);
}

#[test]
fn what_goes_with_its_namespace_is_no_incident_until_the_namespace_is_gone() {
    let guards = many("ns", 30);
    let mut room = Room::with(&guards);
    room.namespace_terminating = true;
    let told: Vec<AlertReason> = guards.iter().flat_map(|guard| alerts(&room.of(guard).delete())).collect();
    assert_eq!((told, room.book.incidents().count()), (vec![], 0));
    // Whoever guards what was in it from elsewhere is told, by few alerts.
    room.namespace_terminating = false;
    room.wait(INTERVAL);
    let absent = Sight::Absent;
    let told: Vec<AlertReason> =
        guards.iter().flat_map(|guard| alerts(&room.of(guard).look(&absent, Look::Live))).collect();
    assert_eq!(told[..6], [Missing, Missing, Missing, Missing, Missing, Missing]);
    assert_eq!(told[6..], [RemediationStopped]);
}

#[test]
fn a_new_leader_goes_on_with_an_incident() {
    let guards = many("ns", 8);
    let mut room = Room::with(&guards);
    let said: Vec<Vec<Step>> = guards.iter().map(|guard| room.of(guard).write("bad")).collect();
    let id = room.book.incidents().next().unwrap().to_owned();
    room.book = Book::new(room.book.settings);
    room.remembered = Some(super::leaders::remembers(&said[7], 1));
    let steps = room.of(&guards[7]).shows("bad", Look::Initial);
    assert!(!restores(&steps) && alerts(&steps).is_empty());
    assert_eq!(room.book.incidents().next(), Some(id.as_str()));
}

#[test]
fn all_guards_of_an_incident_say_so_within_a_moment_so_that_a_new_leader_does_not_end_it_early() {
    let guards = many("ns", 6);
    let mut room = Room::with(&guards);
    // None has an attempt that would be given up.
    room.terms.auto_remediate = false;
    let mut said: BTreeMap<Text, Vec<Step>> = BTreeMap::new();
    for guard in &guards {
        let steps = room.of(guard).write("bad");
        said.insert(guard.uid.clone(), steps);
        room.wait(1);
    }
    let id = room.book.incidents().next().unwrap().to_owned();
    for (uid, step) in room.book.tick(room.now) {
        assert_eq!(step, Step::Look);
        let guard = guards.iter().find(|guard| guard.uid == uid).unwrap();
        let steps = room.of(guard).shows("bad", Look::Live);
        said.insert(uid, steps);
    }
    let said = guards.iter().map(|guard| super::leaders::remembers(&said[&guard.uid], 1));
    let said: Vec<Remembered> = said.collect();
    room.book = Book::new(room.book.settings);
    for (guard, said) in guards.iter().zip(&said) {
        if let Some(incident) = &said.incident {
            room.book.incident_said(guard, incident, room.now);
        }
    }
    let mut over = Vec::new();
    for (guard, said) in guards.iter().zip(said) {
        assert_eq!(room.book.incidents().next(), Some(id.as_str()));
        room.remembered = Some(said);
        room.revision += 1;
        over.push(resolved(&room.of(guard).shows("good", Look::Initial)));
    }
    assert_eq!(over, [0, 0, 0, 0, 0, 1]);
}

/// An incident of all guards, and a new leader that has read what their statuses say of it and has yet to look.
fn taken_over(guards: &[Guard]) -> (Room, String, Vec<Remembered>) {
    let mut room = Room::with(guards);
    for guard in guards {
        room.of(guard).write("bad");
    }
    let id = room.book.incidents().next().unwrap().to_owned();
    // The statuses of those before it began say so with the looks that follow it.
    room.wait(1);
    let said = guards.iter().map(|guard| super::leaders::remembers(&room.of(guard).write("worse"), 1));
    let said: Vec<Remembered> = said.collect();
    assert!(said.iter().all(|said| said.incident.as_ref() == Some(&id)), "{said:?}");
    room.book = Book::new(room.book.settings);
    for (guard, said) in guards.iter().zip(&said) {
        room.book.incident_said(guard, said.incident.as_ref().unwrap(), room.now);
    }
    (room, id, said)
}

#[test]
fn a_new_leader_ends_an_incident_with_the_last_of_its_guards_not_with_the_first() {
    let guards = many("ns", 8);
    let (mut room, id, said) = taken_over(&guards);
    let mut over = Vec::new();
    for (guard, said) in guards.iter().zip(said) {
        room.remembered = Some(said);
        room.revision += 1;
        assert_eq!(room.book.incidents().next(), Some(id.as_str()));
        over.push(resolved(&room.of(guard).shows("good", Look::Initial)));
    }
    assert_eq!(over, [0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn an_incident_stays_in_the_status_of_a_target_that_a_new_leader_cannot_read() {
    let guards = many("ns", 8);
    let (mut room, id, said) = taken_over(&guards);
    let unreadable = Sight::Unreadable("no answer".into());
    room.remembered = Some(said[0].clone());
    let steps = room.of(&guards[0]).look(&unreadable, Look::Initial);
    assert_eq!(report(&steps).incident.as_ref(), Some(&id));
    // And goes on from there with the one after that.
    room.remembered = Some(super::leaders::remembers(&steps, 1));
    room.book = Book::new(room.book.settings);
    assert!(!restores(&room.shows("worse", Look::Initial)));
    assert_eq!(room.book.incidents().next(), Some(id.as_str()));
}

#[test]
fn an_incident_that_was_over_when_its_statuses_were_read_again_is_over() {
    let guards = many("ns", 8);
    let (mut room, _, said) = taken_over(&guards);
    let mut over = 0;
    for (guard, said) in guards.iter().zip(said) {
        room.remembered = Some(Remembered { incident: None, ..said });
        over += resolved(&room.of(guard).shows("worse", Look::Initial));
    }
    assert_eq!((over, room.book.incidents().count()), (1, 0));
}
