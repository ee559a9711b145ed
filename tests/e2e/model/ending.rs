//! The end of a run: all faults are over, and each object is as approved or its guard says that it is not.

use anyhow::{Result, bail, ensure};
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::until;
use serde_json::Value;

use super::oracle::{Watched, expected};
use super::play::Play;
use super::rule::Rule;
use super::world::{SPOTS, Spot, settled};
use super::{SINCE, people};
use crate::fleet::condition;
use crate::installation::LIMIT;

/// Lets everything run again, and waits until every guard is enforced.
pub(crate) fn mend(play: &Play) -> Result<()> {
    let fleet = &play.fleet;
    for (replica, process) in fleet.running.iter().enumerate() {
        process.signal(Signal::Continue)?;
        if process.exit_code().is_some() {
            fleet.start_only(replica)?;
        }
    }
    fleet.wait_ready(2)?;
    until("every guard is there and unsuspended", LIMIT, || {
        people::end_pauses(play)?;
        settled_specs(play)
    })?;
    settled(fleet)
}

fn settled_specs(play: &Play) -> Result<()> {
    let found = play.fleet.admin.kubectl(&["get", "dg,driftguardexceptions", "-A", "-o", "json"])?.json()?;
    let items = found["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(items.len() == SPOTS.len(), "{} guards and exceptions", items.len());
    ensure!(!items.iter().any(|item| item["spec"]["suspend"].is_object()), "one is suspended");
    Ok(())
}

/// Waits until every guard tells the truth of its object, and what is to be put back is. Gives what they say.
pub(crate) fn right(play: &Play) -> Result<Vec<String>> {
    for spot in &SPOTS {
        until(&format!("{} is right", spot.object()), LIMIT * 2, || look(play, spot))
            .map_err(|error| play.fleet.with_logs(&error))?;
    }
    // All at once, now that nothing changes any more.
    SPOTS.iter().map(|spot| look(play, spot)).collect()
}

/// Whether a guard tells the truth of its object; the reason that it gives.
fn look(play: &Play, spot: &Spot) -> Result<String> {
    let etcd = play.fleet.plane.etcd();
    let watched = spot.watched();
    let guard_key = format!("/registry/terrafusion.ai/driftguards/{}/{}", watched.namespace, watched.guard);
    let Some(stored) = etcd.get(&guard_key)? else { bail!("there is no guard") };
    let guard: Value = serde_json::from_slice(&stored)?;
    let live = etcd.get(&watched.object)?;
    let rule = Rule::of(&guard)?;
    let hash = live.as_deref().map(|live| rule.hash(live)).transpose()?;
    let now = jiff::Timestamp::now();
    let is_approved = |hash: &String| {
        rule.hashes.iter().any(|(approved, until)| approved == hash && until.is_none_or(|until| now < until))
    };
    let drifted = condition(&guard, "Drifted").cloned().unwrap_or_default();
    let said = (drifted["status"].as_str().unwrap_or(""), drifted["reason"].as_str().unwrap_or(""));
    let seen = if watched.is_secret { "content" } else { hash.as_deref().unwrap_or("nothing") };
    let wrong = format!("it holds {seen}, and its guard says {drifted}");
    let approved = hash.as_ref().is_some_and(is_approved);
    match said {
        ("False", "InSync") if approved => {}
        ("False", "AwaitingApply") if !approved => {
            ensure!(hash.is_some_and(|hash| was_expected(play, &watched, &hash)), "never expected: {wrong}");
        }
        ("True", reason) if !approved => {
            ensure!(!is_owed(spot, &guard, reason), "it is not put back: {wrong} {}", guard["status"]);
        }
        _ => bail!("{wrong}"),
    }
    Ok(said.1.to_owned())
}

fn was_expected(play: &Play, watched: &Watched, hash: &String) -> bool {
    let history = play.fleet.plane.etcd().history(SINCE);
    history.and_then(|history| expected(&history, watched)).is_ok_and(|all| all.contains(hash))
}

/// Whether what has drifted is to be put back: its guard asks for it and has a source with what is approved. Not
/// what a person is to decide, nor what was undone so often that it is put back ever more rarely.
fn is_owed(spot: &Spot, guard: &Value, reason: &str) -> bool {
    let by_itself =
        matches!(reason, "BypassedAdmission" | "ContentDiffers" | "Missing" | "NotApplied" | "ApprovalEnded");
    let fights = condition(guard, "Fighting").is_some_and(|said| said["status"] == "True");
    let message = condition(guard, "Drifted").map(|said| said["message"].to_string()).unwrap_or_default();
    spot.restored && spot.sourced && by_itself && !fights && !message.contains("is put back again after")
}
