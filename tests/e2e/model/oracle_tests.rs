//! The judge itself: histories made up by hand, in which it must find what is wrong and nothing else.

use anyhow::Result;
use driftguard_control_plane::Change;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::oracle::{Known, Offence, Refusal, Watched, judge};
use crate::installation::{config_map, hash_of};

const OBJECT: &str = "/registry/configmaps/n/settings";
const GUARD: &str = "/registry/terrafusion.ai/driftguards/n/settings";
const EXCEPTION: &str = "/registry/terrafusion.ai/driftguardexceptions/n/incident";

/// A history under way. Revision 1,000 was the newest in second 1, and so on.
struct Made {
    history: Vec<Change>,
    known: Known,
    generation: i64,
}

impl Made {
    fn new() -> Self {
        let clock = (0..100).map(|second| (at(second), second * 1_000)).collect();
        Self { history: Vec::new(), known: Known { clock, ..Known::default() }, generation: 0 }
    }

    fn put(mut self, revision: i64, key: &str, value: Option<Value>) -> Self {
        let value = value.map(|value| value.to_string().into_bytes());
        self.history.push(Change { revision, key: key.to_owned(), value });
        self
    }

    /// The object gets this content, by a write that was begun at the revision before.
    fn write(mut self, revision: i64, content: &str) -> Self {
        self.known.begun.insert(revision, revision - 1);
        self.put(revision, OBJECT, Some(object(content)))
    }

    /// The guard gets another spec, and is not called enforced yet.
    fn approve(mut self, revision: i64, content: &str, more: &Value) -> Result<Self> {
        self.generation += 1;
        let guard = guard(content, self.generation, more, "False")?;
        Ok(self.put(revision, GUARD, Some(guard)))
    }

    /// The same spec is called enforced.
    fn enforce(self, revision: i64, content: &str, more: &Value) -> Result<Self> {
        let guard = guard(content, self.generation, more, "True")?;
        Ok(self.put(revision, GUARD, Some(guard)))
    }

    fn found(&self) -> Result<Vec<i64>> {
        Ok(self.offences()?.iter().map(|offence| offence.revision).collect())
    }

    fn offences(&self) -> Result<Vec<Offence>> {
        Ok(judge(&self.history, &[watched(false)], &self.known)?.offences)
    }

    /// Content `1`, guarded and enforced from revision 3,000 on.
    fn guarded(more: &Value) -> Result<Self> {
        Self::new().write(1_000, "1").approve(2_000, "1", more)?.enforce(3_000, "1", more)
    }
}

fn watched(is_secret: bool) -> Watched {
    let (namespace, guard) = ("n".to_owned(), "settings".to_owned());
    Watched { object: OBJECT.to_owned(), namespace, guard, is_secret }
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(second)
}

fn object(content: &str) -> Value {
    let mut object = config_map("n", "settings", &json!({"a": content}));
    object["metadata"]["managedFields"] =
        json!([{"manager": "mallory", "operation": "Update", "time": "1970-01-01T00:00:01Z"}]);
    object
}

fn guard(content: &str, generation: i64, more: &Value, enforcing: &str) -> Result<Value> {
    let mut spec = json!({"targetKind": "ConfigMap", "targetName": "settings", "expectedHash": hash_of(&object(content))?});
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    Ok(json!({
        "metadata": {"name": "settings", "namespace": "n", "uid": "u", "generation": generation},
        "spec": spec,
        "status": {"conditions": [{"type": "Enforcing", "status": enforcing, "observedGeneration": generation}]},
    }))
}

#[test]
fn a_revision_that_no_guard_approved_is_found_with_who_wrote_it() -> Result<()> {
    let made = Made::guarded(&json!({}))?.write(4_000, "1").write(5_000, "2");
    assert_eq!(made.found()?, [5_000]);
    let said = made.offences()?[0].to_string();
    for part in
        ["revision 5000", OBJECT, "mallory (Update)", &hash_of(&object("1"))?, &hash_of(&object("2"))?]
    {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    Ok(())
}

#[test]
fn a_secret_is_found_without_its_hash() -> Result<()> {
    let made = Made::guarded(&json!({}))?.write(5_000, "2");
    let found = judge(&made.history, &[watched(true)], &made.known)?.offences;
    assert_eq!(found.len(), 1);
    assert!(!found[0].to_string().contains(&hash_of(&object("2"))?), "{}", found[0]);
    Ok(())
}

#[test]
fn what_is_written_straight_into_etcd_is_no_offence_and_what_leaves_it_so_is_none() -> Result<()> {
    let mut made = Made::guarded(&json!({}))?.put(4_000, OBJECT, Some(object("2"))).write(5_000, "2");
    made.known.straight.insert(4_000);
    let mut made = made.write(6_000, "3");
    assert_eq!(made.found()?, [6_000]);
    // Nobody knows whether it was stored; and there it is.
    let bytes = made.history.last().and_then(|change| change.value.clone());
    made.known.maybe_straight.push((OBJECT.to_owned(), bytes));
    assert!(made.found()?.is_empty());
    Ok(())
}

#[test]
fn what_is_made_anew_must_be_approved() -> Result<()> {
    let made = Made::guarded(&json!({}))?.put(4_000, OBJECT, None).write(5_000, "2");
    assert_eq!(made.found()?, [5_000]);
    Ok(())
}

#[test]
fn a_deletion_that_the_guard_refuses_is_found() -> Result<()> {
    let made = Made::guarded(&json!({"deletionPolicy": "Deny"}))?.put(20_000, OBJECT, None);
    assert_eq!(made.found()?, [20_000]);
    Ok(())
}

#[test]
fn a_new_hash_counts_at_once_and_the_old_one_until_the_new_one_is_enforced() -> Result<()> {
    let nothing = json!({});
    let made = Made::guarded(&nothing)?.approve(4_000, "2", &nothing)?;
    let made = made.write(4_100, "2").write(4_200, "1").enforce(4_300, "2", &nothing)?;
    assert_eq!(made.write(4_301, "2").write(4_400, "1").found()?, [4_400]);
    Ok(())
}

#[test]
fn a_write_that_was_begun_before_is_judged_by_what_was_approved_then() -> Result<()> {
    let nothing = json!({});
    let made = Made::guarded(&nothing)?.write(3_900, "1").approve(4_000, "2", &nothing)?;
    let mut made = made.enforce(4_300, "2", &nothing)?.write(4_301, "2").write(4_400, "1");
    made.known.begun.insert(4_400, 4_299);
    assert!(made.found()?.is_empty());
    made.known.begun.insert(4_400, 4_300);
    assert_eq!(made.found()?, [4_400]);
    // One whose answer was lost may have begun whenever such a write began.
    made.known.begun.remove(&4_400);
    made.known.clock.retain(|(when, _)| *when != at(4));
    made.known.unsure.push((OBJECT.to_owned(), 4_299, 4_500));
    assert!(made.found()?.is_empty());
    Ok(())
}

#[test]
fn a_guard_that_is_gone_or_does_not_block_lets_pass_and_one_that_is_back_does_not() -> Result<()> {
    let nothing = json!({});
    for mode in ["Warn", "Audit"] {
        let made = Made::guarded(&json!({"enforcement": mode}))?.write(4_000, "2");
        assert!(made.found()?.is_empty(), "{mode}");
    }
    let made = Made::guarded(&nothing)?.put(4_000, GUARD, None).write(4_100, "2");
    let made = made.approve(5_000, "1", &nothing)?.write(5_100, "3").enforce(6_000, "1", &nothing)?;
    assert_eq!(made.write(6_100, "4").found()?, [6_100]);
    Ok(())
}

#[test]
fn an_exception_counts_until_every_replica_has_heard_that_it_is_gone() -> Result<()> {
    let nothing = json!({});
    let exception = json!({"spec": {"guards": {"names": ["settings"]}, "until": at(50)}});
    let suspended = |says: &str, revision: i64, made: Made| -> Result<Made> {
        let mut guard = guard("1", made.generation, &nothing, "True")?;
        let said = json!({"type": "Suspended", "status": says, "observedGeneration": made.generation});
        guard["status"]["conditions"].as_array_mut().into_iter().for_each(|all| all.push(said.clone()));
        Ok(made.put(revision, GUARD, Some(guard)))
    };
    let made = Made::guarded(&nothing)?.put(4_000, EXCEPTION, Some(exception.clone())).write(4_100, "2");
    let made = suspended("True", 4_200, made)?.put(5_000, EXCEPTION, None).write(5_100, "3");
    let made = suspended("False", 6_000, made)?.write(6_100, "4");
    assert_eq!(made.found()?, [6_100]);
    // Never told: a replica that has not heard for so long does not go by what it knows.
    let made =
        Made::guarded(&nothing)?.put(4_000, EXCEPTION, Some(exception.clone())).put(4_200, EXCEPTION, None);
    assert_eq!(made.write(15_000, "2").write(30_000, "3").found()?, [30_000]);
    // It ends by itself.
    let made = Made::guarded(&nothing)?.put(4_000, EXCEPTION, Some(exception));
    assert_eq!(made.write(49_000, "2").write(55_000, "3").found()?, [55_000]);
    Ok(())
}

#[test]
fn a_suspension_ends_by_itself() -> Result<()> {
    let made = Made::guarded(&json!({"suspend": {"until": at(50), "reason": "page 7"}}))?;
    assert_eq!(made.write(49_000, "2").write(55_000, "3").found()?, [55_000]);
    Ok(())
}

#[test]
fn a_refusal_of_what_has_long_been_approved_is_wrong_and_one_soon_after_the_approval_is_not() -> Result<()> {
    let nothing = json!({});
    let mut made = Made::guarded(&nothing)?.approve(40_000, "2", &nothing)?.enforce(41_000, "2", &nothing)?;
    let refusal = |from: i64, to: i64, content: &str| -> Result<Refusal> {
        Ok(Refusal { key: OBJECT.to_owned(), during: (from, to), hash: hash_of(&object(content))? })
    };
    for (from, to, content) in [(30_000, 31_000, "2"), (50_000, 51_000, "2"), (60_000, 61_000, "1")] {
        made.known.refusals.push(refusal(from, to, content)?);
    }
    let watched = [watched(false)];
    assert!(judge(&made.history, &watched, &made.known)?.wrongs.is_empty());
    let wrong = [refusal(30_000, 31_000, "1")?, refusal(70_000, 71_000, "2")?];
    made.known.refusals.extend(wrong.clone());
    assert_eq!(judge(&made.history, &watched, &made.known)?.wrongs, wrong);
    Ok(())
}

#[test]
fn an_alarm_is_false_unless_something_was_written_straight_into_etcd() -> Result<()> {
    let nothing = json!({});
    let alarmed = |revision: i64, made: Made| -> Result<Made> {
        let mut guard = guard("1", made.generation, &nothing, "True")?;
        let said = json!({"type": "Drifted", "status": "True", "reason": "BypassedAdmission"});
        guard["status"]["conditions"].as_array_mut().into_iter().for_each(|all| all.push(said.clone()));
        Ok(made.put(revision, GUARD, Some(guard)))
    };
    let alarms = |made: &Made| Ok(judge(&made.history, &[watched(false)], &made.known)?.false_alarms);
    let mut made = alarmed(50_000, Made::guarded(&nothing)?.put(49_000, OBJECT, Some(object("2"))))?;
    let found: Result<_> = alarms(&made);
    assert_eq!(found?, [("settings".to_owned(), 50_000)]);
    made.known.straight.insert(49_000);
    assert!(alarms(&made)?.is_empty());
    Ok(())
}
