//! `driftguard breakglass`: lets writes pass while nobody can judge them.
//!
//! It needs nothing but the Kubernetes API, because it is for the hour in which every replica is dead:
//! it sets the failure policy of our webhook entries to `Ignore`, and notes until when and why.

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
use crate::api::names;
use crate::core::registration::NAME_PREFIX;

/// How often a configuration is written when somebody else writes it at the same time.
const TRIES: usize = 8;
/// Field manager of what the command writes, so that it can be told from `serve`.
const FIELD_MANAGER: &str = "driftguard-breakglass";

/// Arguments of `driftguard breakglass`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  driftguard breakglass --for 1h --reason 'every replica is down, incident 7'\n  \
                  driftguard breakglass --end"
)]
pub struct BreakglassArgs {
    /// How long writes may pass, such as 30m or 2h
    #[arg(long = "for", value_name = "DURATION", required_unless_present = "end", value_parser = parse_duration)]
    duration: Option<SignedDuration>,
    /// Why; it is kept with the configurations
    #[arg(long, value_name = "TEXT", required_unless_present = "end", value_parser = parse_reason)]
    reason: Option<String>,
    /// End it now
    #[arg(long, conflicts_with_all = ["duration", "reason"])]
    end: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

fn parse_duration(text: &str) -> Result<SignedDuration, String> {
    let duration: SignedDuration =
        text.parse().map_err(|_| "want a duration such as 30m or 2h".to_owned())?;
    if duration.is_positive() { Ok(duration) } else { Err("must be longer than nothing".to_owned()) }
}

fn parse_reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("say why".to_owned()) } else { Ok(text.to_owned()) }
}

/// What is written to both configurations.
enum Change {
    Break { until: String, reason: String, by: String },
    End,
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
        _ => Change::End,
    };
    // Both are tried, so that trouble with one does not keep the other shut.
    let gate = write::<ValidatingWebhookConfiguration>(&cluster, &change).await;
    let convenience = write::<MutatingWebhookConfiguration>(&cluster, &change).await;
    let (gate, convenience) = (gate?, convenience?);
    if !gate && !convenience {
        bail!(
            "there is no webhook configuration {}: nothing refuses writes, so there is nothing to break",
            names::WEBHOOK_CONFIGURATION
        );
    }
    output::message(&match &change {
        Change::Break { until, .. } => format!(
            "\nWrites that DriftGuard does not answer pass until {until}, or until the installation's \
             --max-exception after a replica first sees this.\nEnd it earlier with: driftguard breakglass --end\n\
             While no replica of DriftGuard lives, nothing ends it by itself."
        ),
        Change::End => {
            "\nA living replica of DriftGuard makes its rules strict again within seconds. While none \
                        lives, unapproved writes go on passing."
                .to_owned()
        }
    });
    Ok(Exit::Clean)
}

/// Who asks, as the API server knows them; it must not fail for not knowing.
async fn user(cluster: &Cluster) -> String {
    let api: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    review.ok().and_then(|review| review.status?.user_info?.username).unwrap_or_else(|| "unknown".to_owned())
}

/// Writes one configuration. Tells whether there is one.
async fn write<K>(cluster: &Cluster, change: &Change) -> anyhow::Result<bool>
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
            return Ok(false);
        };
        let request = http::Request::patch(&path)
            .header(http::header::CONTENT_TYPE, "application/json-patch+json")
            .body(serde_json::to_vec(&patch(&found, change)?).context("writing the patch")?)
            .context("making the request")?;
        match cluster.client.request::<Value>(request).await {
            Ok(_) => {
                let did = if matches!(change, Change::End) { "closed again" } else { "opened" };
                output::data(format!("{title} {did}\n").as_bytes())?;
                return Ok(true);
            }
            // A test of the resource version that fails is 422, a lost race 409.
            Err(kube::Error::Api(status)) if matches!(status.code, 409 | 422) && attempt < TRIES => {}
            Err(error) => return Err(cluster.explain(format!("writing {title}"), &error))?,
        }
    }
    bail!("{title} is written all the time by somebody else; try again")
}

/// The operations that open or close a configuration as it was read.
fn patch<K: Resource + serde::Serialize>(found: &K, change: &Change) -> anyhow::Result<Value> {
    let version = found.meta().resource_version.as_deref();
    let mut operations = vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
    let mut annotations = found.annotations().clone();
    for key in [
        names::ANNOTATION_BREAKGLASS_UNTIL,
        names::ANNOTATION_BREAKGLASS_REASON,
        names::ANNOTATION_BREAKGLASS_BY,
        names::ANNOTATION_BREAKGLASS_SEEN,
    ] {
        annotations.remove(key);
    }
    if let Change::Break { until, reason, by } = change {
        annotations.insert(names::ANNOTATION_BREAKGLASS_UNTIL.to_owned(), until.clone());
        annotations.insert(names::ANNOTATION_BREAKGLASS_REASON.to_owned(), reason.clone());
        annotations.insert(names::ANNOTATION_BREAKGLASS_BY.to_owned(), by.clone());
        let object = serde_json::to_value(found).context("reading the entries")?;
        let entries = object["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
        for (position, entry) in entries.iter().enumerate() {
            let ours = entry["name"].as_str().is_some_and(|name| name.starts_with(NAME_PREFIX));
            if ours && entry["failurePolicy"] != "Ignore" {
                let path = format!("/webhooks/{position}/failurePolicy");
                operations.push(json!({"op": "add", "path": path, "value": "Ignore"}));
            }
        }
    }
    operations.push(json!({"op": "add", "path": "/metadata/annotations", "value": annotations}));
    Ok(Value::Array(operations))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn configuration() -> ValidatingWebhookConfiguration {
        serde_json::from_value(json!({
            "metadata": {"name": "driftguard", "resourceVersion": "7", "annotations": {"other": "stays"}},
            "webhooks": [
                {"name": "theirs.example.com", "failurePolicy": "Fail", "clientConfig": {}, "sideEffects": "None", "admissionReviewVersions": ["v1"]},
                {"name": format!("{NAME_PREFIX}.write-fail.x.terrafusion.ai"), "failurePolicy": "Fail", "clientConfig": {}, "sideEffects": "None", "admissionReviewVersions": ["v1"]},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn our_entries_alone_are_opened_and_only_as_they_were_read() {
        let change = Change::Break { until: "then".into(), reason: "why".into(), by: "me".into() };
        let patch = patch(&configuration(), &change).unwrap();
        assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/resourceVersion", "value": "7"}));
        assert_eq!(patch[1]["path"], "/webhooks/1/failurePolicy");
        assert_eq!(patch[2]["value"]["other"], "stays");
        assert_eq!(patch[2]["value"][names::ANNOTATION_BREAKGLASS_REASON], "why");
        assert_eq!(patch.as_array().unwrap().len(), 3);
    }

    #[test]
    fn its_end_takes_the_annotations_away_and_leaves_the_rules_to_serve() {
        let patch = patch(&configuration(), &Change::End).unwrap();
        assert_eq!(patch[1]["value"], json!({"other": "stays"}));
        assert_eq!(patch.as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_duration_is_positive_and_a_reason_says_something() {
        assert_eq!(parse_duration("1h30m"), Ok(SignedDuration::from_mins(90)));
        assert!(
            parse_duration("-1h").is_err()
                && parse_duration("0s").is_err()
                && parse_duration("soon").is_err()
        );
        assert!(parse_reason("  ").is_err());
    }
}
