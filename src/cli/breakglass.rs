//! `driftguard breakglass`: lets writes pass while nobody can judge them.
//!
//! It needs nothing but the Kubernetes API, because it is for the hour in which every replica is dead:
//! it sets the failure policy of our webhook entries to `Ignore`, tells by their paths that nothing may be
//! refused, and notes until when and why. Ending it puts both back, as the names of the entries tell.

use std::fmt::Debug;

use anyhow::{Context as _, bail};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::PostParams;
use kube::core::ClusterResourceScope;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::output;
use super::terms::{parse_duration, parse_reason};
use crate::api::names;
use crate::core::guard::FailurePolicy;
use crate::core::registration::{NAME_PREFIX, glass};

/// How often a configuration is written when somebody else writes it at the same time.
const TRIES: usize = 8;
/// Field manager of what the command writes, so that it can be told from `serve`.
const FIELD_MANAGER: &str = "driftguard-breakglass";

/// Arguments of `driftguard breakglass`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Nothing but the API server is needed, with the rights to get and patch the validating and the mutating \
                  webhook configuration named driftguard. Replicas that live let every write to a guarded object pass \
                  with a warning, and record it. It ends by itself once a replica lives: after --for, at the latest \
                  when serve's --max-exception has passed since a replica first saw it. --end ends it at once; while \
                  no replica lives, writes to guarded objects are then refused again.\n\n\
                  Examples:\n  driftguard breakglass --for 1h --reason 'every replica is down, incident 7'\n  \
                  driftguard breakglass --end"
)]
pub struct BreakglassArgs {
    /// How long writes may pass, such as 30m or 2h
    #[arg(long = "for", value_name = "DURATION", required_unless_present = "end", value_parser = parse_duration)]
    duration: Option<SignedDuration>,
    /// Why; it is kept with the configurations, recorded, and shown by the guards
    #[arg(long, value_name = "TEXT", required_unless_present = "end", value_parser = parse_reason)]
    reason: Option<String>,
    /// End it at once
    #[arg(long, conflicts_with_all = ["duration", "reason"])]
    end: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What is written to both configurations.
enum Change {
    Break { until: String, reason: String, by: String },
    End { by: String },
}

/// What became of one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// It was changed.
    Changed,
    /// Its glass is whole.
    Whole,
    /// There is none.
    Missing,
}

/// Breaks the glass, or ends that.
///
/// # Errors
/// When the cluster cannot be reached, nothing is registered, or the configurations may not be written.
pub async fn run(args: BreakglassArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let change = match (args.duration, args.reason) {
        (Some(duration), Some(reason)) => {
            let until = Timestamp::now().checked_add(duration).context("--for is too long")?;
            Change::Break { until: format!("{until:.0}"), reason, by: user(&cluster).await }
        }
        _ => Change::End { by: user(&cluster).await },
    };
    // Both are tried, so that trouble with one does not keep the other shut.
    let gate = write::<ValidatingWebhookConfiguration>(&cluster, &change).await;
    let convenience = write::<MutatingWebhookConfiguration>(&cluster, &change).await;
    let (gate, convenience) = match (gate, convenience) {
        (Ok(gate), Ok(convenience)) => (gate, convenience),
        // The gate alone refuses anything.
        (Ok(Written::Changed), Err(error)) => bail!("the gate itself was changed, but {error:#}"),
        (Err(error), _) | (_, Err(error)) => return Err(error),
    };
    let both = [gate, convenience];
    if both == [Written::Missing; 2] {
        bail!(
            "there is no webhook configuration {}: DriftGuard refuses no writes here",
            names::WEBHOOK_CONFIGURATION
        );
    }
    output::message(match &change {
        Change::Break { until, .. } => format!(
            "\nWrites to guarded objects pass until {until}, at the latest until serve's --max-exception has passed \
             since a replica of DriftGuard first saw this.\nReplicas that live record what they let pass. While none \
             lives, nothing ends it by itself.\nEnd it earlier with: driftguard breakglass --end"
        ),
        Change::End { .. } if both.contains(&Written::Changed) => {
            "\nUnapproved writes to guarded objects are refused again. While no replica of DriftGuard lives, the API \
             server refuses every write that changes what they pin."
                .to_owned()
        }
        Change::End { .. } => "the glass is not broken: nothing was changed".to_owned(),
    }.as_str());
    Ok(Exit::Clean)
}

/// Who asks, as the API server knows them; it must not fail for not knowing.
async fn user(cluster: &Cluster) -> String {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    review.ok().and_then(|review| review.status?.user_info?.username).unwrap_or_else(|| "unknown".to_owned())
}

/// Writes one configuration.
async fn write<K>(cluster: &Cluster, change: &Change) -> anyhow::Result<Written>
where
    K: Resource<DynamicType = (), Scope = ClusterResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + serde::Serialize,
{
    let api: Api<K> = Api::all(cluster.client.clone());
    let title = format!("{}/{}", K::plural(&()), names::WEBHOOK_CONFIGURATION);
    let path =
        format!("{}/{}?fieldManager={FIELD_MANAGER}", K::url_path(&(), None), names::WEBHOOK_CONFIGURATION);
    for attempt in 1..=TRIES {
        let found = api
            .get_opt(names::WEBHOOK_CONFIGURATION)
            .await
            .map_err(|error| cluster.explain(format!("reading {title}"), &error))?;
        let Some(found) = found else {
            output::message(&format!("{title} does not exist"));
            return Ok(Written::Missing);
        };
        let Some(patch) = patch(&found, change)? else { return Ok(Written::Whole) };
        let request = http::Request::patch(&path)
            .header(http::header::CONTENT_TYPE, "application/json-patch+json")
            .body(serde_json::to_vec(&patch).context("writing the patch")?)
            .context("making the request")?;
        match cluster.client.request::<Value>(request).await {
            Ok(_) => {
                let did = if matches!(change, Change::End { .. }) { "closed again" } else { "opened" };
                output::data(format!("{title} {did}\n").as_bytes())?;
                return Ok(Written::Changed);
            }
            // A test of the resource version that fails is 422, a lost race 409.
            Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) && attempt < TRIES => {}
            Err(error) => return Err(cluster.explain(format!("writing {title}"), &error))?,
        }
    }
    bail!("{title} is written all the time by somebody else; try again")
}

/// The operations that open or close a configuration as it was read; `None` when there is nothing to close.
fn patch<K: Resource + serde::Serialize>(found: &K, change: &Change) -> anyhow::Result<Option<Value>> {
    let version = found.meta().resource_version.as_deref();
    let mut operations = vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
    let mut annotations = found.annotations().clone();
    let mut note = |key: &str, value: &str| drop(annotations.insert(key.to_owned(), value.to_owned()));
    match change {
        Change::Break { until, reason, by } => {
            note(names::ANNOTATION_BREAKGLASS_UNTIL, until);
            note(names::ANNOTATION_BREAKGLASS_REASON, reason);
            note(names::ANNOTATION_BREAKGLASS_BY, by);
            // Asked anew: whatever was noted about the last time is over.
            annotations.remove(names::ANNOTATION_BREAKGLASS_SEEN);
            annotations.remove(names::ANNOTATION_BREAKGLASS_ENDED_BY);
        }
        // The rest stays for the replica that tells of the end.
        Change::End { by } => {
            if annotations.remove(names::ANNOTATION_BREAKGLASS_UNTIL).is_none() {
                return Ok(None);
            }
            annotations.insert(names::ANNOTATION_BREAKGLASS_ENDED_BY.to_owned(), by.clone());
        }
    }
    let object = serde_json::to_value(found).context("reading the entries")?;
    let entries = object["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (position, entry) in entries.iter().enumerate() {
        let name = entry["name"].as_str().unwrap_or_default();
        if !name.starts_with(NAME_PREFIX) {
            continue;
        }
        let closing = match change {
            Change::Break { .. } => None,
            // What an entry of ours was before, its name tells.
            Change::End { .. } => match glass::policy_of(name) {
                Some(policy) => Some(policy),
                None => continue,
            },
        };
        let policy = match closing {
            None | Some(FailurePolicy::Ignore) => "Ignore",
            Some(FailurePolicy::Fail) => "Fail",
        };
        if entry["failurePolicy"] != policy {
            let place = format!("/webhooks/{position}/failurePolicy");
            operations.push(json!({"op": "add", "path": place, "value": policy}));
        }
        let repath = |path: &str| match closing {
            None => glass::opened_path(path),
            Some(policy) => glass::closed_path(path, policy),
        };
        if let Some((place, value)) = repathed(&entry["clientConfig"], repath) {
            let place = format!("/webhooks/{position}/clientConfig/{place}");
            operations.push(json!({"op": "replace", "path": place, "value": value}));
        }
    }
    operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": annotations}));
    Ok(Some(Value::Array(operations)))
}

/// Where the path of an entry stands, and what `change` makes of it; `None` when that is nothing else.
fn repathed(client: &Value, change: impl Fn(&str) -> Option<String>) -> Option<(&'static str, String)> {
    if let Some(path) = client["service"]["path"].as_str() {
        return Some(("service/path", change(path)?));
    }
    let url = client["url"].as_str()?;
    let host = url.find("://")? + 3;
    let (origin, path) = url.split_at(host + url[host..].find('/')?);
    Some(("url", format!("{origin}{}", change(path)?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn entry(name: &str, policy: &str, client: &Value) -> Value {
        json!({"name": name, "failurePolicy": policy, "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"]})
    }

    fn configuration() -> ValidatingWebhookConfiguration {
        let at_url = json!({"url": "https://127.0.0.1:8443/validate/g17/fail"});
        let at_service =
            json!({"service": {"namespace": "n", "name": "s", "path": "/validate/g17/fail/driftguards"}});
        serde_json::from_value(json!({
            "metadata": {"name": "driftguard", "resourceVersion": "7", "annotations": {"other": "stays"}},
            "webhooks": [
                entry("theirs.example.com", "Fail", &json!({"url": "https://x/validate/g17/fail"})),
                entry(&format!("{NAME_PREFIX}.write-fail.x.terrafusion.ai"), "Fail", &at_url),
                entry(&format!("{NAME_PREFIX}.approve-fail.y.terrafusion.ai"), "Fail", &at_service),
            ],
        }))
        .unwrap()
    }

    /// The configuration with these operations applied, as far as they go.
    fn patched(found: &ValidatingWebhookConfiguration, patch: &Value) -> ValidatingWebhookConfiguration {
        let mut object = serde_json::to_value(found).unwrap();
        for operation in patch.as_array().unwrap().iter().filter(|one| one["op"] != "test") {
            let (parent, key) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[key] = operation["value"].clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn broken() -> Change {
        Change::Break { until: "then".into(), reason: "why".into(), by: "me".into() }
    }

    #[test]
    fn our_entries_alone_are_opened_and_only_as_they_were_read() {
        let patch = patch(&configuration(), &broken()).unwrap().unwrap();
        assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}));
        let open = json!(patched(&configuration(), &patch));
        assert_eq!(open["webhooks"][0], json!(configuration())["webhooks"][0]);
        assert_eq!(open["webhooks"][1]["failurePolicy"], "Ignore");
        assert_eq!(
            open["webhooks"][1]["clientConfig"]["url"],
            "https://127.0.0.1:8443/validate/g17/ignore/broken"
        );
        let path = &open["webhooks"][2]["clientConfig"]["service"]["path"];
        assert_eq!(path, "/validate/g17/ignore/driftguards");
        let annotations = &open["metadata"]["annotations"];
        assert_eq!(
            (&annotations["other"], &annotations[names::ANNOTATION_BREAKGLASS_REASON]),
            (&json!("stays"), &json!("why"))
        );
    }

    #[test]
    fn its_end_puts_back_what_was_and_keeps_who_and_why_for_the_record() {
        let open = patched(&configuration(), &patch(&configuration(), &broken()).unwrap().unwrap());
        let end = Change::End { by: "you".into() };
        let closed = patched(&open, &patch(&open, &end).unwrap().unwrap());
        assert_eq!(closed.webhooks, configuration().webhooks);
        let annotations = closed.annotations();
        assert!(!annotations.contains_key(names::ANNOTATION_BREAKGLASS_UNTIL));
        assert_eq!(annotations[names::ANNOTATION_BREAKGLASS_BY], "me");
        assert_eq!(annotations[names::ANNOTATION_BREAKGLASS_ENDED_BY], "you");
    }

    #[test]
    fn what_is_whole_is_left_alone() {
        assert_eq!(patch(&configuration(), &Change::End { by: "you".into() }).unwrap(), None);
    }

    #[test]
    fn breaking_it_again_counts_anew() {
        let mut open = patched(&configuration(), &patch(&configuration(), &broken()).unwrap().unwrap());
        let seen = names::ANNOTATION_BREAKGLASS_SEEN.to_owned();
        open.annotations_mut().insert(seen.clone(), "then".into());
        let again = patch(&open, &broken()).unwrap().unwrap();
        assert_eq!(again.as_array().unwrap().len(), 2, "the entries are open already: {again}");
        assert!(!patched(&open, &again).annotations().contains_key(&seen));
    }
}
