//! No value of a Secret, and no unkeyed hash of one, in anything that anybody can read: planted values are
//! looked for in every output of the whole system.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use driftguard_control_plane::until;
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, driftguard, hash_of};

/// Values that stand nowhere else. The second one is what a refused write would have stored.
const APPROVED: &str = "canary-approved-2f9a41d7c3";
const TRIED: &str = "canary-tried-8e13b60f5a";
const NAMESPACE: &str = "canary";

fn secret(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {"password": STANDARD.encode(value)},
    })
}

/// Everything that was said, with who said it.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn note(&mut self, by: &str, text: impl Into<String>) {
        self.0.push((by.to_owned(), text.into()));
    }

    /// Fails when any of `forbidden` stands in anything that was said.
    fn holds_none_of(&self, forbidden: &[(&str, String)]) -> Result<()> {
        for (by, text) in &self.0 {
            for (what, canary) in forbidden {
                let at = text.find(canary.as_str());
                let around = at.map(|at| text.get(at.saturating_sub(200)..at).unwrap_or_default());
                ensure!(at.is_none(), "{by} shows {what}; before it: {around:?}");
            }
        }
        Ok(())
    }
}

/// One way to change a Secret: a name for it, kubectl's arguments, and its input.
type Way = (&'static str, Vec<&'static str>, String);

fn ways(name: &str) -> Vec<Way> {
    let changed = secret(name, TRIED);
    let mut as_text = changed.clone();
    as_text.as_object_mut().map(|object| object.remove("data"));
    as_text["stringData"] = json!({"password": TRIED});
    let json = changed.to_string();
    vec![
        ("replace", vec!["replace", "-f", "-"], json.clone()),
        ("apply", vec!["apply", "-f", "-"], json.clone()),
        ("stringData", vec!["replace", "-f", "-"], as_text.to_string()),
        ("server-side apply", vec!["apply", "--server-side", "--force-conflicts", "-f", "-"], json.clone()),
        ("dry run", vec!["replace", "--dry-run=server", "-f", "-"], json.clone()),
        ("replace --force", vec!["replace", "--force", "-f", "-"], json),
    ]
}

/// What the API server passed on. `kubectl apply` itself repeats the patch that its user gave it.
fn answer_of(stderr: &str) -> String {
    let warnings = stderr.lines().filter(|line| line.starts_with("Warning")).collect::<Vec<_>>().join("\n");
    let refusal = stderr.split_once("admission webhook").map_or("", |(_, refusal)| refusal);
    format!("{warnings}\n{refusal}")
}

/// What the cluster shows to whoever may read everything but Secrets.
fn read_the_cluster(on: &Installation, said: &mut Said) -> Result<()> {
    for (what, arguments) in [
        ("guards", vec!["get", "driftguards", "-A", "-o", "yaml"]),
        ("a description of guards", vec!["describe", "driftguards", "-n", NAMESPACE]),
        ("Events", vec!["get", "events.events.k8s.io", "-A", "-o", "yaml"]),
        (
            "webhook configurations",
            vec!["get", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "-o", "yaml"],
        ),
        ("Leases", vec!["get", "leases", "-A", "-o", "yaml"]),
        ("ConfigMaps", vec!["get", "configmaps", "-A", "-o", "yaml"]),
    ] {
        let output = on.admin.kubectl(&arguments)?;
        said.note(what, format!("{}{}", output.success()?, ""));
    }
    said.note("metrics", on.health("/metrics")?);
    said.note("readiness", on.health("/readyz?verbose")?);
    said.note("records and logs", on.serve.log());
    Ok(())
}

fn guards(expected: &str) -> Vec<(&'static str, Value)> {
    let spec = |more: Value| {
        let mut spec = json!({"targetKind": "Secret", "expectedHash": expected});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        spec
    };
    vec![
        ("denied", spec(json!({"enforcement": "Deny"}))),
        ("rewritten", spec(json!({"enforcement": "Rewrite"}))),
        ("warned", spec(json!({"enforcement": "Warn"}))),
        ("audited", spec(json!({"enforcement": "Audit"}))),
        ("broken", spec(json!({"ignorePaths": ["/data/[x=]"]}))),
        ("undeletable", spec(json!({"deletionPolicy": "Deny"}))),
    ]
}

#[test]
fn no_value_and_no_hash_of_a_secret_stands_in_any_output() -> Result<()> {
    let on = &Installation::start_logging(Via::Url, "trace")?;
    on.namespace(NAMESPACE)?;
    let mut said = Said::default();
    let approved = hash_of(&secret("x", APPROVED))?;
    for (name, mut spec) in guards(&approved) {
        on.apply(&secret(name, APPROVED))?.success()?;
        spec["targetName"] = json!(name);
        let made = on.apply(&json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
        }))?;
        said.note("making a guard", format!("{}{}", made.stdout, made.stderr));
        if made.succeeded() && name != "broken" {
            until(&format!("the guard {name} is registered"), LIMIT, || {
                let guard = on.get(NAMESPACE, &format!("dg/{name}"))?;
                let conditions = guard["status"]["conditions"].as_array().context("no conditions")?;
                let enforcing = conditions.iter().find(|condition| condition["type"] == "Enforcing");
                let reason = enforcing.map(|condition| condition["reason"].clone()).unwrap_or_default();
                ensure!(reason != "RegistrationPending" && reason != Value::Null, "{guard}");
                Ok(())
            })?;
        }
        for (way, arguments, input) in ways(name) {
            let output = on.admin.kubectl_with(&arguments, input)?;
            said.note(&format!("{way} of {name}"), answer_of(&output.stderr));
        }
        let deleted = on.admin.kubectl(&["delete", "secret", name, "-n", NAMESPACE, "--ignore-not-found"])?;
        said.note(&format!("deletion of {name}"), format!("{}{}", deleted.stdout, deleted.stderr));
    }
    on.apply(&secret("denied", APPROVED))?.success()?;
    let folder = on.plane.folder().join("canary");
    std::fs::create_dir_all(&folder)?;
    let broken = folder.join("broken.yaml");
    std::fs::write(&broken, format!("apiVersion: v1\nkind: Secret\ndata:\n  a: {TRIED}\n b: [{TRIED}\n"))?;
    let twice = folder.join("twice.yaml");
    let text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\nstringData:\n  {TRIED}: {TRIED}\n  x: {{y: {TRIED}}}\n"
    );
    std::fs::write(&twice, text)?;
    for file in [&broken, &twice] {
        for command in ["hash", "guard"] {
            let output = driftguard(&on.admin, &[command, "-f", &file.display().to_string()])?;
            // A key of a map is a name, which may be shown; only values are planted in the first file.
            let shown = format!("{}{}", output.stdout, output.stderr);
            said.note(&format!("{command} of a broken file"), shown.replace(&format!("/{TRIED}"), ""));
        }
    }
    for arguments in
        [&["guard", "secret", "denied", "-n", NAMESPACE][..], &["hash", "secret", "denied", "-n", NAMESPACE]]
    {
        let output = driftguard(&on.admin, arguments)?;
        said.note("the messages of a command for one Secret", output.stderr.clone());
        // Its hash was asked for; its value never is.
        let without = output.success()?.replace(&approved, "");
        said.note("the output of a command for one Secret", without);
    }
    read_the_cluster(on, &mut said)?;
    let tried = hash_of(&secret("x", TRIED))?;
    // What was approved stands in `spec.expectedHash`, where its author put it, and in the annotations in
    // which kubectl keeps that spec; nobody computed it.
    said.holds_none_of(&[
        ("an approved value", APPROVED.to_owned()),
        ("an approved value in base64", STANDARD.encode(APPROVED)),
        ("a refused value", TRIED.to_owned()),
        ("a refused value in base64", STANDARD.encode(TRIED)),
        ("the hash of a refused value", tried),
    ])?;
    let outside: Vec<_> = said.0.into_iter().filter(|(by, _)| !by.contains("guards")).collect();
    Said(outside).holds_none_of(&[("the approved hash", approved)])
}
