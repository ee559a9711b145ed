//! Who writes in a run: users, who write contents good and bad in every way there is, and an approver, who changes
//! what is good.

use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::play::{Outcome, Person, Play};
use super::world::{Kind, NAMESPACES, SPOTS, Spot, VARIANTS};

const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Writes until the run is over.
pub(crate) fn user(play: &Play, name: &str) -> Result<()> {
    let mut person = Person::new(play, name)?;
    let mut round = 0;
    while play.goes_on(person.dice.millis(0, 150)) {
        round += 1;
        let spot = &SPOTS[person.dice.below(SPOTS.len())];
        // One more than there are: content that no guard ever approves.
        let variant = person.dice.below(VARIANTS + 1);
        write(&mut person, spot, variant, round);
    }
    Ok(())
}

fn write(person: &mut Person<'_>, spot: &Spot, variant: usize, round: usize) {
    let (key, path) = (spot.watched().object, spot.path());
    let what = |verb: &str| format!("{verb} {} {variant}", spot.object());
    let is_custom = spot.kind == Kind::GamaConfig;
    match person.dice.below(15) {
        0..=2 => {
            person.write(what("merge"), Some(&key), ("PATCH", &path), Some((MERGE, &spot.patch(variant))));
        }
        3 | 4 => {
            let patch = spot.json_patch(variant);
            person.write(what("json patch"), Some(&key), ("PATCH", &path), Some((JSON_PATCH, &patch)));
        }
        5 if !is_custom => {
            let patch = spot.patch(variant);
            person.write(what("strategic"), Some(&key), ("PATCH", &path), Some((STRATEGIC, &patch)));
        }
        5..=7 => {
            let forced = format!("{path}?force=true");
            let object = spot.manifest(variant);
            person.write(what("apply"), Some(&key), ("PATCH", &forced), Some((APPLY, &object)));
        }
        8 | 9 => replace(person, spot, variant),
        10 => {
            let label = json!({"metadata": {"labels": {"round": round.to_string()}}});
            person.write(what("label, not"), Some(&key), ("PATCH", &path), Some((MERGE, &label)));
        }
        11 => {
            // DELETECOLLECTION comes without a name.
            let of_name = format!("{}?fieldSelector=metadata.name%3D{}", spot.collection(), spot.name);
            let from = if person.dice.often(5) { &of_name } else { &path };
            person.write(what("delete, before"), Some(&key), ("DELETE", from), None);
            if person.dice.often(8) {
                create(person, spot, variant);
            }
        }
        12 => create(person, spot, variant),
        13 if spot.kind == Kind::Deployment => {
            let scale = json!({"spec": {"replicas": 1 + round % 3}});
            let path = format!("{path}/scale");
            person.write(what("scale, not"), Some(&key), ("PATCH", &path), Some((MERGE, &scale)));
        }
        13 if round.is_multiple_of(3) => {
            let verb = if person.dice.often(5) { "apply" } else { "replace" };
            let by_kubectl = || {
                let object = spot.manifest(variant).to_string();
                match person.user.kubectl_with(&[verb, "-f", "-"], object) {
                    // Which of its requests was stored, and as what, it does not say.
                    Ok(output) => Outcome::Unsure(output.stderr + &output.stdout),
                    Err(error) => Outcome::Unsure(error.to_string()),
                }
            };
            let name = person.user.name();
            person.play.does(name, what(&format!("kubectl {verb}")), Some(&key), by_kubectl);
        }
        _ => {
            // A dry run is judged the same, and stores nothing.
            let dry = format!("{path}?dryRun=All");
            person.write(what("dry merge"), None, ("PATCH", &dry), Some((MERGE, &spot.patch(variant))));
        }
    }
}

fn create(person: &Person<'_>, spot: &Spot, variant: usize) {
    let what = format!("create {} {variant}", spot.object());
    let (key, collection, object) = (spot.watched().object, spot.collection(), spot.manifest(variant));
    person.write(what, Some(&key), ("POST", &collection), Some((JSON, &object)));
}

/// Reads the object and puts it back with another content, as an editor does.
fn replace(person: &Person<'_>, spot: &Spot, variant: usize) {
    let Ok(mut read) = person.send("GET", &spot.path(), None) else { return };
    let object = spot.manifest(variant);
    for field in ["data", "binaryData", "spec"] {
        match object.get(field) {
            Some(value) => read[field] = value.clone(),
            None => drop(read.as_object_mut().and_then(|read| read.remove(field))),
        }
    }
    let what = format!("replace {} {variant}", spot.object());
    person.write(what, Some(&spot.watched().object), ("PUT", &spot.path()), Some((JSON, &read)));
}

/// Changes guards until the run is over.
pub(crate) fn approver(play: &Play) -> Result<()> {
    let mut person = Person::new(play, "approver")?;
    let mut round = 0;
    while play.goes_on(person.dice.millis(100, 900)) {
        round += 1;
        let number = person.dice.below(SPOTS.len());
        let variant = person.dice.below(VARIANTS);
        change(&mut person, number, variant, round)?;
    }
    Ok(())
}

fn change(person: &mut Person<'_>, number: usize, variant: usize, round: usize) -> Result<()> {
    let (play, spot) = (person.play, &SPOTS[number]);
    let path = spot.guard_path();
    let patch = |person: &Person<'_>, what: &str, spec: &Value| {
        let what = format!("{what} of dg/{}", spot.name);
        person.write(what, None, ("PATCH", &path), Some((MERGE, &json!({"spec": spec}))));
    };
    // Mostly approvals: what lets everything pass is soon over, since nothing can be learned meanwhile.
    match person.dice.below(20) {
        0..=9 => {
            let approval = spot.approval(play.hash(number, variant), variant);
            patch(person, &format!("approval {variant}"), &approval);
            if person.dice.often(7) {
                // Made anew where it is gone: a run in which everything is gone shows nothing.
                let (key, object) = (spot.watched().object, spot.manifest(variant));
                let forced = format!("{}?force=true", spot.path());
                let what = format!("apply {} {variant}, approved", spot.object());
                person.write(what, Some(&key), ("PATCH", &forced), Some((APPLY, &object)));
            }
        }
        10 | 11 => {
            let also = json!([{"hash": play.hash(number, variant)}]);
            patch(person, &format!("also {variant}"), &json!({"alsoApproved": also}));
        }
        12 => patch(person, "nothing also", &json!({"alsoApproved": null})),
        13 => {
            let until = Timestamp::now() + SignedDuration::from_secs(2);
            let also = json!([{"hash": play.hash(number, variant), "until": until.to_string()}]);
            patch(person, &format!("also {variant} for 2 s"), &json!({"alsoApproved": also}));
        }
        14 => {
            person.write(format!("delete dg/{}", spot.name), None, ("DELETE", &path), None);
            play.goes_on(person.dice.millis(0, 1_000));
            make_guard(person, number, variant)?;
        }
        15 => {
            let until = (Timestamp::now() + SignedDuration::from_secs(2)).to_string();
            let suspend = json!({"suspend": {"until": until, "reason": "model"}});
            patch(person, "suspension for 2 s", &suspend);
            if person.dice.often(5) {
                play.goes_on(person.dice.millis(0, 1_000));
                patch(person, "end of suspension", &json!({"suspend": null}));
            }
        }
        16 | 17 => {
            let mode = *person.dice.one_of(&["Warn", "Audit"]);
            patch(person, &format!("enforcement {mode}"), &json!({"enforcement": mode}));
            play.goes_on(person.dice.millis(0, 1_000));
            let mode = *person.dice.one_of(&["Deny", "Rewrite"]);
            patch(person, &format!("enforcement {mode}"), &json!({"enforcement": mode}));
        }
        18 => {
            let policy = *person.dice.one_of(&["Allow", "Deny"]);
            patch(person, &format!("deletionPolicy {policy}"), &json!({"deletionPolicy": policy}));
        }
        _ => except(person, spot, round),
    }
    Ok(())
}

/// Makes a guard again, for as long as the API server does not say that it is there.
pub(crate) fn make_guard(person: &Person<'_>, number: usize, variant: usize) -> Result<()> {
    let spot = &SPOTS[number];
    let guard = spot.guard(person.play.hash(number, variant), variant)?;
    let collection = format!("/apis/terrafusion.ai/v1/namespaces/{}/driftguards", spot.namespace);
    for _ in 0..5 {
        let what = format!("create dg/{} {variant}", spot.name);
        let made = person.write(what, None, ("POST", &collection), Some((JSON, &guard)));
        if matches!(made, Outcome::Stored(_)) || !person.play.goes_on(Duration::from_millis(500)) {
            break;
        }
    }
    Ok(())
}

/// Makes an exception, and deletes it before its end or not.
fn except(person: &mut Person<'_>, spot: &Spot, round: usize) {
    let seconds = 2 + person.dice.below(3) as i64;
    let until = (Timestamp::now() + SignedDuration::from_secs(seconds)).to_string();
    let guards = if person.dice.often(8) { json!({"names": [spot.name]}) } else { json!({"all": true}) };
    let name = format!("exception-{round}");
    let exception = json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuardException",
        "metadata": {"name": name, "namespace": spot.namespace},
        "spec": {"guards": guards, "until": until, "reason": "model"},
    });
    let collection = format!("/apis/terrafusion.ai/v1/namespaces/{}/driftguardexceptions", spot.namespace);
    let what = format!("create {name} of {guards} for {seconds} s");
    person.write(what, None, ("POST", &collection), Some((JSON, &exception)));
    if person.dice.often(6) {
        person.play.goes_on(person.dice.millis(0, 1_500));
        person.write(format!("delete {name}"), None, ("DELETE", &format!("{collection}/{name}")), None);
    }
}

/// Ends everything that lets writes pass for a while, and makes guards again that are gone.
pub(crate) fn end_pauses(play: &Play) -> Result<()> {
    let person = Person::new(play, "closer")?;
    for namespace in NAMESPACES {
        let exceptions = format!("/apis/terrafusion.ai/v1/namespaces/{namespace}/driftguardexceptions");
        person.write("delete exceptions", None, ("DELETE", &exceptions), None);
    }
    for (number, spot) in SPOTS.iter().enumerate() {
        match person.send("GET", &spot.guard_path(), None) {
            Ok(guard) if guard["spec"]["suspend"].is_object() => {
                let nothing = json!({"spec": {"suspend": null}});
                let what = format!("end of suspension of dg/{}", spot.name);
                person.write(what, None, ("PATCH", &spot.guard_path()), Some((MERGE, &nothing)));
            }
            Ok(_) => {}
            Err(_) => make_guard(&person, number, 0)?,
        }
    }
    Ok(())
}
