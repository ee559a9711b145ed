//! What facts of a guard mean, in sentences. Each paragraph is one thing, its last sentence the next step.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::Value;

use crate::api::reasons::{self, ConditionType};
use crate::api::{ActorSource, DriftGuardStatus, Enforcement, RemediationResult, names};
use crate::cli::guards::{self, Found};
use crate::cli::table::one_line;
use crate::cli::terms::moment;

/// What is known.
pub(super) struct Facts<'a> {
    pub(super) guard: &'a Found,
    pub(super) status: DriftGuardStatus,
    /// `Kind/namespace/name`, where the API server serves the kind.
    pub(super) target: Option<String>,
    /// Whether the target exists; `None` when that could not be read.
    pub(super) is_live: Option<bool>,
    /// Who wrote the target last.
    pub(super) writers: Vec<String>,
    /// Events about the guard.
    pub(super) events: Vec<String>,
}

/// Paragraphs, in the order in which a person asks.
pub(super) fn tell(facts: &Facts<'_>) -> Vec<String> {
    let parts = [
        Some(subject(facts)),
        Some(author(facts)),
        Some(enforced(facts)),
        paused(facts),
        conflict(facts),
        Some(content(facts)),
        put_back(facts),
        sources(facts),
    ];
    let mut told: Vec<String> = parts.into_iter().flatten().collect();
    told.extend(list(
        "Who wrote the target last, by managedFields, which any writer can forge:",
        &facts.writers,
    ));
    told.extend(list("What Events say of the guard:", &facts.events));
    told
}

fn list(heading: &str, lines: &[String]) -> Option<String> {
    (!lines.is_empty()).then(|| format!("{heading}\n  {}", lines.join("\n  ")))
}

fn says<'a>(facts: &'a Facts<'_>, of_type: ConditionType) -> Option<&'a Condition> {
    guards::condition(&facts.status, of_type)
}

/// `NAME -n NAMESPACE`, as commands take it.
fn named(facts: &Facts<'_>) -> String {
    format!("{} -n {}", facts.guard.name(), facts.guard.namespace())
}

fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

fn subject(facts: &Facts<'_>) -> String {
    let spec = &facts.guard.object.spec;
    let target = facts.target.clone().unwrap_or_else(|| format!("{} {}", spec.target_kind, spec.target_name));
    let part = match (spec.only_paths.as_slice(), spec.ignore_paths.as_slice()) {
        ([], []) => String::new(),
        ([], ignored) => format!(", but for {}", ignored.join(", ")),
        (only, _) => format!(", of it only {}", only.join(", ")),
    };
    let id = format!("{}/{}", facts.guard.namespace(), facts.guard.name());
    let missing = if facts.is_live == Some(false) { " There is no such object now." } else { "" };
    format!("DriftGuard {id} pins {target}{part}.{missing}")
}

fn author(facts: &Facts<'_>) -> String {
    if let Some(said) = says(facts, ConditionType::AuthorUnknown).filter(|said| said.status == "True") {
        return format!(
            "Nobody is known to have approved it: {} Look at it, then vouch for it: driftguard adopt {}",
            sentence(&said.message),
            named(facts)
        );
    }
    let annotations = facts.guard.object.metadata.annotations.as_ref();
    let annotation = |name: &str| annotations.and_then(|all| all.get(name));
    let because = annotation(names::ANNOTATION_APPROVED_BECAUSE).map_or_else(String::new, |why| {
        format!(" The last approval by command says: {}", sentence(&one_line(why)))
    });
    let signed = annotation(names::ANNOTATION_AUTHOR)
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
        .and_then(|value| Some((value["user"].as_str()?.to_owned(), value["at"].as_str()?.to_owned())));
    let managed = facts.guard.managed_by().map_or_else(String::new, |tool| {
        format!(" {} applies it, so that changes belong where it comes from.", tool.as_str())
    });
    match signed {
        Some((user, at)) => format!("It was approved by {user} at {at}.{because}{managed}"),
        None => format!("No author is noted in it.{because}{managed}"),
    }
}

fn enforced(facts: &Facts<'_>) -> String {
    let mode = facts.status.enforcement.or(facts.guard.object.spec.enforcement);
    let what = match mode {
        Some(Enforcement::Deny) => "Writes that change what it pins are refused",
        Some(Enforcement::Rewrite) => "In writes that change what it pins the approved content is put back",
        Some(Enforcement::Warn) => "Writes that change what it pins pass with a warning",
        Some(Enforcement::Audit) => "Writes that change what it pins pass, and are recorded",
        None => "What becomes of writes that change what it pins is up to the installation",
    };
    let Some(said) = says(facts, ConditionType::Enforcing) else {
        return format!(
            "{what}, once DriftGuard has seen it: nothing has yet. See whether a replica leads: kubectl get lease {} -n {}",
            names::LEASE,
            names::NAMESPACE
        );
    };
    if said.status == "True" {
        return format!("{what}; that is proved ({}).", said.reason);
    }
    if said.reason == reasons::DETECT_ONLY {
        return format!("{what}. To have them refused, set spec.enforcement to Deny.");
    }
    format!("{what}, but that is not so now: {}", sentence(&said.message))
}

fn paused(facts: &Facts<'_>) -> Option<String> {
    let said = says(facts, ConditionType::Suspended).filter(|said| said.status == "True")?;
    let next = if said.reason == reasons::EXCEPTED {
        format!("driftguard exception list -n {}", facts.guard.namespace())
    } else {
        format!("driftguard resume {}", named(facts))
    };
    Some(format!("It is paused: {} To end that: {next}", sentence(&said.message)))
}

fn conflict(facts: &Facts<'_>) -> Option<String> {
    let said = says(facts, ConditionType::Conflict).filter(|said| said.status == "True")?;
    Some(format!("Another guard pins the same object otherwise: {}", sentence(&said.message)))
}

fn content(facts: &Facts<'_>) -> String {
    let Some(said) = says(facts, ConditionType::Drifted) else {
        return "Whether the content is approved is not known: no auditor has looked yet.".to_owned();
    };
    let since = moment(said.last_transition_time.0);
    match said.status.as_str() {
        "False" => format!("The content is approved since {since}: {}", sentence(&said.message)),
        "True" => {
            let by = drifted_by(facts);
            let next = format!(
                "See it by: driftguard diff {0}\nThen approve it (driftguard approve {0} --live) or have the approved \
                 content put back (driftguard restore {0}).",
                named(facts)
            );
            format!(
                "The content is not approved since {since} ({}): {}{by} {next}",
                said.reason,
                sentence(&said.message)
            )
        }
        _ => format!(
            "Whether the content is approved cannot be told since {since}: {}",
            sentence(&said.message)
        ),
    }
}

/// Who is known to have changed it, and how.
fn drifted_by(facts: &Facts<'_>) -> String {
    let Some(last) = &facts.status.last_drift else { return String::new() };
    let paths = match last.paths.as_slice() {
        [] => String::new(),
        some => format!(" What changed: {}.", some.join(", ")),
    };
    let by = match (&last.actor, last.actor_source) {
        (Some(actor), Some(ActorSource::Admission)) => {
            format!(" It was written by {actor}, as seen at admission.")
        }
        (Some(actor), _) => {
            format!(" It was written by {actor}, by managedFields, which any writer can forge.")
        }
        (None, _) => " Who wrote it is not known.".to_owned(),
    };
    format!("{paths}{by}")
}

fn put_back(facts: &Facts<'_>) -> Option<String> {
    let last = facts.status.last_remediation.as_ref()?;
    let at = moment(last.time.0);
    let from = last.source.as_ref().map_or_else(String::new, |source| format!(", from {source}"));
    let how = match last.result {
        RemediationResult::Restored => format!("Approved content was put back last at {at}{from}"),
        RemediationResult::NoVerifiedSource => {
            format!("At {at} it was tried to put approved content back: no source had it")
        }
        RemediationResult::Failed => format!("At {at} putting approved content back failed{from}"),
        RemediationResult::GivenUp => {
            format!(
                "At {at} putting approved content back was given up, since the guard was changed or paused"
            )
        }
        RemediationResult::NotAllowed => {
            format!(
                "At {at} approved content was not put back: a right is missing, or objects of the kind are never written"
            )
        }
    };
    let fighting = says(facts, ConditionType::Fighting)
        .filter(|said| said.status == "True")
        .map_or_else(String::new, |said| format!(" It does not last: {}", sentence(&said.message)));
    Some(format!("{how}.{fighting}"))
}

fn sources(facts: &Facts<'_>) -> Option<String> {
    let lines: Vec<String> =
        facts.status.sources.iter().map(|source| format!("{}: {}", source.source, source.message)).collect();
    list("What sources of truth said when they were asked last:", &lines)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use serde_json::json;

    fn told(status: &Value, more: &Value) -> String {
        let mut spec = json!({"targetKind": "ConfigMap", "targetName": "a", "expectedHash": "ab".repeat(32)});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let guard = json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": "g", "namespace": "n", "uid": "u"}, "spec": spec, "status": status,
        });
        let guard = Found::parse(&guard.to_string()).unwrap();
        let facts = Facts {
            guard: &guard,
            status: guard.status(),
            target: Some("ConfigMap/n/a".into()),
            is_live: Some(true),
            writers: vec!["kubectl-edit at 2026-11-27T00:00:00Z (by update)".into()],
            events: Vec::new(),
        };
        tell(&facts).join("\n\n")
    }

    fn condition(of_type: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": of_type, "status": status, "reason": reason, "message": message,
               "lastTransitionTime": "2026-11-27T00:00:00Z"})
    }

    #[test]
    fn a_guard_that_nobody_looked_at_says_so_and_where_to_look() {
        let text = told(&Value::Null, &json!({}));
        assert!(text.starts_with("DriftGuard n/g pins ConfigMap/n/a."), "{text}");
        assert!(text.contains("nothing has yet. See whether a replica leads: kubectl get lease"), "{text}");
        assert!(text.contains("no auditor has looked yet"), "{text}");
    }

    #[test]
    fn drift_names_paths_writer_and_the_next_steps_and_never_a_hash() {
        let text = told(
            &json!({
                "enforcement": "Deny",
                "conditions": [
                    condition("Enforcing", "True", "Proved", ""),
                    condition("Drifted", "True", "ContentDiffers", "it is not as approved"),
                ],
                "lastDrift": {"time": "2026-11-27T00:00:00Z", "paths": ["/data/x"], "actor": "eve", "actorSource": "Admission"},
            }),
            &json!({"onlyPaths": ["/data/x"]}),
        );
        for part in [
            "of it only /data/x.",
            "are refused; that is proved (Proved).",
            "What changed: /data/x.",
            "written by eve, as seen at admission",
            "driftguard diff g -n n",
            "driftguard restore g -n n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains(&"ab".repeat(32)), "{text}");
    }

    #[test]
    fn a_pause_and_an_unknown_author_have_their_commands() {
        let text = told(
            &json!({"conditions": [
                condition("Suspended", "True", "SuspendedBySpec", "writes pass until noon"),
                condition("AuthorUnknown", "True", "NoValidSignature", "nobody signed it"),
            ]}),
            &json!({}),
        );
        assert!(text.contains("To end that: driftguard resume g -n n"), "{text}");
        assert!(text.contains("driftguard adopt g -n n"), "{text}");
    }
}
