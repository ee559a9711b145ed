//! No value of a Secret, and no unkeyed hash of one, in anything that anybody can read: planted values are
//! looked for in every output of the whole system.

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use driftguard::core::canonical::hash_object;
use driftguard::core::hash::ContentHash;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::{ControlPlane, Output, free_port, until};
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, config_map, driftguard, hash_of};

/// Values that stand nowhere else. The second one is what a refused write would have stored.
pub(crate) const APPROVED: &str = "canary-approved-2f9a41d7c3";
const TRIED: &str = "canary-tried-8e13b60f5a";
/// A value of a ConfigMap: what may be shown, and is, so that what looks for the others would find them.
const SHOWN: &str = "canary-shown-77d0c4a19b";
pub(crate) const NAMESPACE: &str = "canary";
/// The guard whose hash leaves out the bytes that are no text.
const PARTIAL: &str = "partial";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const OPERATOR: &str = "system:serviceaccount:terrafusion-system:driftguard-operator";

/// A value among bytes that are no text.
pub(crate) fn raw(value: &str) -> Vec<u8> {
    [b"\xff\xfe", value.as_bytes(), b"\x80"].concat()
}

pub(crate) fn secret(name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {"password": STANDARD.encode(value), "raw": STANDARD.encode(raw(value))},
    })
}

/// The hash of what a guard of this name pins of a Secret.
pub(crate) fn pinned(guard: &str, value: &str) -> Result<ContentHash> {
    let mut object = secret("x", value);
    if guard == PARTIAL {
        object["data"].as_object_mut().map(|data| data.remove("raw"));
    }
    let scope = Scope::new("", "Secret", PathFilter::everything());
    Ok(hash_object(&serde_json::to_vec(&object)?, &scope)?)
}

/// A text that must stand nowhere, and what it is.
pub(crate) type Canary = (String, String);

/// The digits by which base64 encodes these bytes, whatever stands before and after them.
fn in_base64(bytes: &[u8]) -> Vec<String> {
    let with_before = |before: usize| {
        let text = STANDARD_NO_PAD.encode([&vec![0; before][..], bytes].concat());
        // A digit holds six bits: the first ones and the last one may hold bits of what is around.
        let end = text.len() - usize::from(!(before + bytes.len()).is_multiple_of(3));
        text[[0, 2, 3][before]..end].to_owned()
    };
    (0..3).map(with_before).collect()
}

/// The forms in which bytes could be written down.
pub(crate) fn forms(what: &str, bytes: &[u8]) -> Vec<Canary> {
    let mut forms: Vec<String> = String::from_utf8(bytes.to_vec()).into_iter().collect();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    forms.extend([hex.to_uppercase(), hex]);
    for digits in in_base64(bytes) {
        forms.push(digits.replace('+', "-").replace('/', "_"));
        // As in a patch, which is base64 around JSON with base64 in it.
        forms.extend(in_base64(digits.as_bytes()));
        forms.push(digits);
    }
    forms.into_iter().map(|form| (what.to_owned(), form)).collect()
}

pub(crate) fn forms_of_hash(what: &str, hash: ContentHash) -> Result<Vec<Canary>> {
    let hex = hash.to_string();
    let bytes: Vec<u8> =
        (0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16)).collect::<Result<_, _>>()?;
    let mut forms = forms(what, &bytes);
    forms.push((what.to_owned(), hex));
    Ok(forms)
}

fn in_an_hour() -> String {
    let then = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    then.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What must stand in no output at all.
pub(crate) fn canaries(on: &Installation) -> Result<Vec<Canary>> {
    let mut all = Vec::new();
    for (which, value) in [("an approved value", APPROVED), ("a refused value", TRIED)] {
        all.extend(forms(which, value.as_bytes()));
        all.extend(forms(which, &raw(value)));
        for bytes in [value.as_bytes(), STANDARD.encode(value).as_bytes(), &raw(value)] {
            all.extend(forms_of_hash(&format!("the hash of {which}"), ContentHash::of(bytes))?);
        }
    }
    for guard in ["", PARTIAL] {
        all.extend(forms_of_hash("the hash of refused content", pinned(guard, TRIED)?)?);
    }
    // Our own secrets, too.
    for (name, key) in [("driftguard-ca", "tls.key"), ("driftguard-signing", "key")] {
        let ours = on.get("terrafusion-system", &format!("secret/{name}"))?;
        let value =
            STANDARD.decode(ours["data"][key].as_str().with_context(|| format!("{name} has no {key}"))?)?;
        // Of a PEM the first line of digits; what is random may hold any byte.
        let is_pem = value.starts_with(b"-----");
        let lines = value.split(|byte| *byte == b'\n').filter(|_| is_pem);
        let line = lines.into_iter().find(|line| !line.is_empty() && !line.starts_with(b"-----"));
        all.extend(forms(&format!("{key} of {name}"), line.unwrap_or(&value)));
    }
    let token = on.token()?;
    all.push(("the token of serve".to_owned(), token.rsplit('.').next().unwrap_or(&token).to_owned()));
    Ok(all)
}

/// What was approved stands in `spec.expectedHash`, where its author put it, and in the annotation in which
/// kubectl keeps that spec; nobody computed it. It must stand nowhere else.
pub(crate) fn approved_hashes() -> Result<Vec<Canary>> {
    let of = |guard| forms_of_hash("the approved hash", pinned(guard, APPROVED)?);
    Ok([of("")?, of(PARTIAL)?].concat())
}

/// Everything that was said, with who said it.
#[derive(Default)]
pub(crate) struct Said(pub(crate) Vec<(String, String)>);

impl Said {
    pub(crate) fn note(&mut self, by: &str, text: impl Into<String>) {
        self.0.push((by.to_owned(), text.into()));
    }

    fn note_output(&mut self, by: &str, output: &Output) {
        self.note(by, format!("{}{}", output.stdout, output.stderr));
    }

    /// Fails when any of `forbidden` stands in anything that was said.
    pub(crate) fn holds_none_of(&self, forbidden: &[Canary]) -> Result<()> {
        for (by, text) in &self.0 {
            for (what, canary) in forbidden {
                let at = text.find(canary.as_str());
                let around = at.map(|at| text.get(at.saturating_sub(200)..at).unwrap_or_default());
                ensure!(at.is_none(), "{by} shows {what} as {canary}; before it: {around:?}");
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
    as_text["data"].as_object_mut().map(|data| data.remove("password"));
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
pub(crate) fn read_the_cluster(on: &Installation, said: &mut Said) -> Result<()> {
    for (what, arguments) in [
        ("specs of guards", vec!["get", "driftguards", "-A", "-o", "yaml"]),
        ("a description of guards", vec!["describe", "driftguards", "-n", NAMESPACE]),
        ("a table", vec!["get", "driftguards", "-A", "-o", "wide"]),
        ("exceptions", vec!["get", "driftguardexceptions", "-A", "-o", "yaml"]),
        ("Events", vec!["get", "events.events.k8s.io", "-A", "-o", "yaml"]),
        (
            "webhook configurations",
            vec!["get", "validatingwebhookconfigurations,mutatingwebhookconfigurations", "-o", "yaml"],
        ),
        ("Leases", vec!["get", "leases", "-A", "-o", "yaml"]),
        ("ConfigMaps", vec!["get", "configmaps", "-A", "-o", "yaml"]),
        ("rights", vec!["get", "roles,rolebindings,clusterroles,clusterrolebindings", "-A", "-o", "yaml"]),
        ("definitions", vec!["get", "crds", "-o", "yaml"]),
    ] {
        said.note(what, on.admin.kubectl(&arguments)?.success()?);
    }
    let guards = on.admin.kubectl(&["get", "driftguards", "-A", "-o", "json"])?.json()?;
    for guard in guards["items"].as_array().context("no list")? {
        said.note("a status", guard["status"].to_string());
        for (key, value) in guard["metadata"]["annotations"].as_object().into_iter().flatten() {
            if key != LAST_APPLIED {
                said.note(key, value.to_string());
            }
        }
    }
    said.note("metrics", on.health("/metrics")?);
    said.note("readiness", on.health("/readyz?verbose")?);
    said.note("records and logs", on.serve.log());
    Ok(())
}

fn guards() -> Vec<(&'static str, Value)> {
    vec![
        ("denied", json!({"enforcement": "Deny"})),
        ("rewritten", json!({"enforcement": "Rewrite"})),
        ("warned", json!({"enforcement": "Warn"})),
        ("audited", json!({"enforcement": "Audit"})),
        ("broken", json!({"ignorePaths": ["/data/[x=]"]})),
        ("undeletable", json!({"deletionPolicy": "Deny"})),
        ("paused", json!({"suspend": {"until": in_an_hour(), "reason": "a migration"}})),
        (PARTIAL, json!({"ignorePaths": ["/data/raw"]})),
    ]
}

pub(crate) fn guard_of(name: &str, of: &str, more: &Value) -> Result<Value> {
    let mut spec = json!({
        "targetKind": "Secret", "targetName": of, "expectedHash": pinned(name, APPROVED)?.to_string(),
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    Ok(json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec,
    }))
}

/// Tries every way to change a Secret.
fn attack(on: &Installation, name: &str, while_: &str, said: &mut Said) -> Result<()> {
    for (way, arguments, input) in ways(name) {
        let output = on.admin.kubectl_with(&arguments, input)?;
        said.note(&format!("{way} of {name} {while_}"), answer_of(&output.stderr));
    }
    Ok(())
}

/// Guards of every kind, and writes against each.
fn under_every_guard(on: &Installation, said: &mut Said) -> Result<()> {
    for (name, spec) in guards() {
        on.apply(&secret(name, APPROVED))?.success()?;
        let made = on.apply(&guard_of(name, name, &spec)?)?;
        said.note_output("making a guard", &made);
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
        attack(on, name, "under its guard", said)?;
        let deleted = on.admin.kubectl(&["delete", "secret", name, "-n", NAMESPACE, "--ignore-not-found"])?;
        said.note_output(&format!("deletion of {name}"), &deleted);
    }
    let second = guard_of("second", "denied", &json!({"expectedHash": "a".repeat(64)}))?;
    let refused = on.apply(&second)?;
    ensure!(refused.stderr.contains("already"), "{refused}");
    said.note_output("a second guard of one Secret", &refused);
    on.apply(&secret("denied", APPROVED))?.success()?;
    Ok(())
}

fn wait_until_suspended(on: &Installation, status: &str) -> Result<()> {
    let condition = format!("--for=condition=Suspended={status}");
    on.admin
        .kubectl(&["wait", &condition, "--timeout=60s", "-n", NAMESPACE, "dg/denied"])?
        .success()
        .map(drop)
}

/// An exception, broken glass, and a guard whose author is unknown.
fn on_the_ways_through(on: &Installation, said: &mut Said) -> Result<()> {
    let exception = json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuardException",
        "metadata": {"name": "night", "namespace": NAMESPACE},
        "spec": {"guards": {"all": true}, "until": in_an_hour(), "reason": "incident 7"},
    });
    let made = on.apply(&exception)?;
    said.note_output("an exception", &made);
    made.success()?;
    wait_until_suspended(on, "True")?;
    attack(on, "denied", "under an exception", said)?;
    on.admin.kubectl(&["delete", "dge/night", "-n", NAMESPACE])?.success()?;
    wait_until_suspended(on, "False")?;

    on.apply(&secret("denied", APPROVED))?.success()?;
    let glass = driftguard(&on.admin, &["breakglass", "--for", "10m", "--reason", "incident 8"])?;
    said.note_output("breakglass", &glass);
    glass.success()?;
    until_passes(on)?;
    attack(on, "denied", "behind broken glass", said)?;
    let mended = driftguard(&on.admin, &["breakglass", "--end"])?;
    said.note_output("the end of breakglass", &mended);
    mended.success()?;

    let key = json!({"data": {"key": STANDARD.encode([b'k'; 32])}}).to_string();
    let patch =
        ["patch", "secret/driftguard-signing", "-n", "terrafusion-system", "--type=merge", "-p", &key];
    on.admin.kubectl(&patch)?.success()?;
    until("the author is unknown", LIMIT, || {
        let conditions = on.get(NAMESPACE, "dg/denied")?["status"]["conditions"].to_string();
        ensure!(conditions.contains("NoValidSignature"), "{conditions}");
        Ok(())
    })?;
    let adopted = driftguard(&on.admin, &["adopt", "--all", "-n", NAMESPACE])?;
    ensure!(adopted.stdout.contains("adopted: Secret denied"), "{adopted}");
    // Whoever adopts vouches for the hash in the spec, and is shown it.
    let hash = |guard| pinned(guard, APPROVED).map(|hash| hash.to_string());
    said.note("adopt", adopted.stdout.replace(&hash("")?, "").replace(&hash(PARTIAL)?, ""));
    said.note("the messages of adopt", adopted.stderr);
    Ok(())
}

/// Waits until the glass is known to be broken.
fn until_passes(on: &Installation) -> Result<()> {
    until("a write passes the broken glass", LIMIT, || {
        let output = on.apply(&secret("denied", TRIED))?;
        ensure!(output.succeeded(), "not yet");
        Ok(())
    })
}

/// Commands that read files or a Secret of the cluster.
fn by_commands(on: &Installation, said: &mut Said) -> Result<()> {
    let folder = on.plane.folder().join("canary");
    std::fs::create_dir_all(&folder)?;
    let write = |name: &str, text: String| -> Result<String> {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let broken =
        write("broken.yaml", format!("apiVersion: v1\nkind: Secret\ndata:\n  a: {TRIED}\n b: [{TRIED}\n"))?;
    let twice = write(
        "twice.yaml",
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\nstringData:\n  {TRIED}: {TRIED}\n  x: {{y: {TRIED}}}\n"
        ),
    )?;
    let no_base64 = write(
        "no-base64.yaml",
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\ndata: {{x: '{TRIED}!'}}\n"),
    )?;
    for file in [&broken, &twice, &no_base64] {
        for command in ["hash", "guard"] {
            let output = driftguard(&on.admin, &[command, "-f", file])?;
            // A key of a map is a name, which may be shown; only values are planted in the first file.
            let shown = format!("{}{}", output.stdout, output.stderr);
            said.note(&format!("{command} of a broken file"), shown.replace(&format!("/{TRIED}"), ""));
        }
    }
    on.apply(&secret("denied", APPROVED))?.success()?;
    let [tried, as_approved] = [TRIED, APPROVED].map(|value| secret("denied", value).to_string());
    let (tried, as_approved) = (write("tried.json", tried)?, write("approved.json", as_approved)?);
    for arguments in [
        &["guard", "secret", "denied", "-n", NAMESPACE][..],
        &["hash", "secret", "denied", "-n", NAMESPACE],
        &["hash", "secret", "denied", "-n", NAMESPACE, "-o", "json"],
        &["hash", "secret", "denied", "-n", NAMESPACE, "--canonical"],
        &["hash", "-f", &as_approved],
        &["hash", "-f", &tried, "--server"],
        &["hash", "-f", &tried, "--canonical"],
        &["guard", "-f", &tried],
    ] {
        let output = driftguard(&on.admin, arguments)?;
        said.note("the messages of a command for one Secret", output.stderr);
        // Its hash was asked for; its value never is.
        let [approved, tried] = [pinned("", APPROVED)?.to_string(), pinned("", TRIED)?.to_string()];
        said.note(
            "the output of a command for one Secret",
            output.stdout.replace(&approved, "").replace(&tried, ""),
        );
    }
    Ok(())
}

/// Installs anew over what is there, takes everything away, and asks each command what it does.
fn by_installing(on: &Installation, said: &mut Said, url: &str) -> Result<()> {
    // What is let pass may hold something else than is approved, and is listed.
    on.apply(&secret("warned", TRIED))?.success()?;
    let again = driftguard(&on.admin, &["install", "--dev", "--adopt", url])?;
    ensure!(again.stderr.contains("Secret warned holds something else"), "{again}");
    said.note_output("install --adopt", &again);
    read_the_cluster(on, said)?;
    for arguments in
        [&["manifests"][..], &["manifests", "rbac", "--for", "Secret", "--in", NAMESPACE], &["version"]]
    {
        said.note_output(&arguments.join(" "), &driftguard(&on.admin, arguments)?);
    }
    on.serve.signal(Signal::Terminate)?;
    on.serve.wait(LIMIT)?;
    said.note("the last records and logs", on.serve.log());
    let uninstalled = driftguard(&on.admin, &["uninstall"])?;
    said.note_output("uninstall", &uninstalled);
    uninstalled.success()?;
    for command in driftguard::cli::command().get_subcommands() {
        let help = driftguard(&on.admin, &[command.get_name(), "--help"])?;
        said.note(&format!("{} --help", command.get_name()), help.success()?);
    }
    Ok(())
}

/// What the API server notes of us, in a log that whole teams may read: what its webhooks changed, what they
/// answered, and what we asked for. What other people sent is theirs. How many patches of a ConfigMap it shows.
pub(crate) fn in_the_audit_log(on: &Installation, said: &mut Said) -> Result<usize> {
    let mut patches = 0;
    for mut entry in on.plane.audit_log()? {
        let by_us = entry["user"]["username"] == OPERATOR;
        // The Secrets of the installation are sent by us.
        if !by_us || entry["objectRef"]["resource"] == "secrets" {
            entry.as_object_mut().map(|entry| entry.remove("requestObject"));
        }
        let text = entry.to_string();
        patches += usize::from(text.contains("patch.webhook.admission.k8s.io") && text.contains(SHOWN));
        said.note("the API server's audit log", text);
    }
    Ok(patches)
}

/// A rewrite of what is no Secret: its patch stands in the API server's audit log.
fn rewrite_a_config_map(on: &Installation) -> Result<()> {
    let object = config_map(NAMESPACE, "shown", &json!({"price": SHOWN}));
    on.apply(&object)?.success()?;
    on.pin(NAMESPACE, "configmap/shown", &hash_of(&object)?, &json!({"enforcement": "Rewrite"}))?;
    let patch = r#"{"data":{"price":"other"}}"#;
    let written = on.admin.kubectl(&["patch", "cm/shown", "-n", NAMESPACE, "--type=merge", "-p", patch])?;
    ensure!(written.stderr.contains("Warning"), "{written}");
    ensure!(on.get(NAMESPACE, "cm/shown")?["data"]["price"] == SHOWN, "it was not put back");
    Ok(())
}

#[test]
fn no_value_and_no_hash_of_a_secret_stands_in_any_output() -> Result<()> {
    let plane = ControlPlane::builder().audited_with_requests().start()?;
    let port = free_port()?;
    let flags = ["--log-level=trace".to_owned()];
    let on = &Installation::start_on(plane, port, Via::Url, &flags)?;
    on.namespace(NAMESPACE)?;
    let mut canaries = canaries(on)?;
    let mut said = Said::default();
    under_every_guard(on, &mut said)?;
    on_the_ways_through(on, &mut said)?;
    by_commands(on, &mut said)?;
    rewrite_a_config_map(on)?;
    by_installing(on, &mut said, &format!("--url=https://127.0.0.1:{port}"))?;
    let patches = in_the_audit_log(on, &mut said)?;
    ensure!(patches > 0, "no patch of a ConfigMap was noted, so that none of a Secret would be");
    canaries.retain(|(_, form)| form.len() >= 8);
    said.holds_none_of(&canaries)?;
    let outside: Vec<_> = said.0.into_iter().filter(|(by, _)| !by.contains("guards")).collect();
    Said(outside).holds_none_of(&approved_hashes()?)
}

#[test]
fn what_looks_for_values_finds_them_wherever_they_stand() -> Result<()> {
    let canaries = forms("a value", APPROVED.as_bytes());
    for before in ["", "a", "ab", "abc"] {
        for after in ["", "z", "yz"] {
            let plain = format!("{before}{APPROVED}{after}");
            let encoded = STANDARD.encode(&plain);
            // A JSON patch in an answer: base64 around what is base64 already.
            let patch =
                STANDARD.encode(format!(r#"[{{"op":"replace","path":"/data/x","value":"{encoded}"}}]"#));
            for text in [plain, encoded, patch] {
                let mut said = Said::default();
                said.note("somebody", text.clone());
                let found = said.holds_none_of(&canaries).err().map(|error| error.to_string());
                found.ok_or_else(|| anyhow!("not found in {text}"))?;
            }
        }
    }
    Ok(())
}
