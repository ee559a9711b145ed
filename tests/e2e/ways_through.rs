//! Ways through a guard: exceptions and `suspend`, which end by themselves.

use anyhow::{Result, ensure};
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::{Output, Version, until};
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, config_map, driftguard, unchanged};

const TARGET: &str = "configmap/limits";

/// A moment so many seconds ahead, as RFC 3339.
fn ahead(seconds: i64) -> String {
    let now = jiff::Timestamp::now();
    (now + jiff::SignedDuration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn exception(namespace: &str, name: &str, guards: &Value, until: &str) -> Value {
    json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuardException",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"guards": guards, "until": until, "reason": "incident 7"},
    })
}

fn edit(on: &Installation, namespace: &str, value: &str) -> Result<Output> {
    let patch = json!({"data": {"maximum": value}}).to_string();
    on.admin.kubectl(&["patch", TARGET, "-n", namespace, "--type=merge", "-p", &patch])
}

/// A guarded ConfigMap in a namespace of its own.
fn guarded(on: &Installation, namespace: &str) -> Result<String> {
    on.namespace(namespace)?;
    on.apply(&config_map(namespace, "limits", &json!({"maximum": "10"})))?.success()?;
    on.pin_live(namespace, TARGET)
}

/// Waits until the guard says that it is (`True`) or no longer is (`False`) suspended.
fn suspended(on: &Installation, namespace: &str, guard: &str, status: &str) -> Result<()> {
    let condition = format!("--for=condition=Suspended={status}");
    let object = format!("dg/{guard}");
    on.admin.kubectl(&["wait", &condition, "--timeout=60s", "-n", namespace, &object])?.success().map(drop)
}

#[test]
fn an_exception_lets_writes_pass_with_a_warning_and_ends_by_itself() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let selector = json!({"selector": {"matchLabels": {"team": "risk"}}});
    let forms = [
        ("names", json!({"names": ["limits-guard"]})),
        ("selector", selector),
        ("all", json!({"all": true})),
    ];
    for (form, guards) in forms {
        let ns = format!("excepted-{form}");
        let guard = guarded(on, &ns)?;
        on.admin.kubectl(&["label", &format!("dg/{guard}"), "-n", &ns, "team=risk"])?.success()?;
        on.refused(&ns, TARGET, || edit(on, &ns, "11"))?;
        on.apply(&exception(&ns, "incident", &guards, &ahead(15)))?.success()?;
        suspended(on, &ns, &guard, "True")?;
        let passed = edit(on, &ns, "12")?;
        ensure!(
            passed.stderr.contains("Warning") && passed.stderr.contains("exception incident"),
            "{passed}"
        );
        passed.success()?;
        suspended(on, &ns, &guard, "False")?;
        on.refused(&ns, TARGET, || edit(on, &ns, "13"))?;
        let began = told(on, "pause", "PauseBegan", &ns, 1)?;
        ensure!(began[0]["guard"]["name"] == guard.as_str(), "{began:?}");
        let pause = &began[0]["pause"];
        ensure!(pause["exception"] == "incident" && pause["reason"] == "incident 7", "{pause}");
        let ended = told(on, "pause", "PauseEnded", &ns, 1)?;
        ensure!(ended[0]["pause"]["exception"] == "incident", "{ended:?}");
        for reason in ["PauseBegan", "PauseEnded"] {
            let event = event(on, &ns, reason)?;
            ensure!(event["regarding"]["name"] == guard.as_str(), "{event}");
            let related = &event["related"];
            ensure!(related["kind"] == "DriftGuardException" && related["name"] == "incident", "{event}");
        }
        let status = on.get(&ns, "dge/incident")?["status"].clone();
        ensure!(status["guards"] == json!([guard]), "what it paused stays: {status}");
        ensure!(active(on, &ns, "incident", "False")?["reason"] == "Ended", "{status}");
    }
    Ok(())
}

/// Records of this kind and reason in a namespace, once there are so many; no more may come.
fn told(on: &Installation, kind: &str, reason: &str, namespace: &str, count: usize) -> Result<Vec<Value>> {
    until(&format!("{reason} is recorded"), LIMIT, || {
        let found: Vec<Value> = on
            .serve
            .log()
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["kind"] == kind && line["reason"] == reason)
            .filter(|line| line["target"]["namespace"] == namespace || namespace.is_empty())
            .collect();
        ensure!(found.len() == count, "{found:?}");
        Ok(found)
    })
}

/// The Event of this reason, which must be a single one.
fn event(on: &Installation, namespace: &str, reason: &str) -> Result<Value> {
    until(&format!("an Event says {reason}"), LIMIT, || {
        let selector = format!("--field-selector=reason={reason}");
        let events = ["get", "events.events.k8s.io", "-n", namespace, &selector, "-o", "json"];
        let found = on.admin.kubectl(&events)?.json()?["items"].as_array().cloned().unwrap_or_default();
        ensure!(found.len() == 1, "{found:?}");
        Ok(found[0].clone())
    })
}

/// The condition `Active` of an exception, once it has this status.
fn active(on: &Installation, namespace: &str, name: &str, status: &str) -> Result<Value> {
    until(&format!("{name} is Active={status}"), LIMIT, || {
        let found = on.get(namespace, &format!("dge/{name}"))?["status"]["conditions"][0].clone();
        ensure!(found["type"] == "Active" && found["status"] == status, "{found}");
        Ok(found)
    })
}

#[test]
fn an_exception_that_asks_for_too_much_is_refused_and_who_asked_is_recorded() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = "exception-reviewed";
    let guard = guarded(on, ns)?;
    let make = |name: &str, guards: Value, until: &str, reason: &str| {
        let mut manifest = exception(ns, name, &guards, until);
        manifest["spec"]["reason"] = json!(reason);
        on.admin.kubectl_with(&["create", "-f", "-"], manifest.to_string())
    };
    let all = || json!({"all": true});
    for (name, until, reason, said) in [
        ("long", ahead(9 * 3600), "why", "too far ahead: 8h at most (--max-exception)"),
        ("past", ahead(-60), "why", "has passed already"),
        ("mute", ahead(60), "   ", "spec.reason is blank"),
    ] {
        let refused = on.not_made(ns, &format!("dge/{name}"), || make(name, all(), &until, reason))?;
        let first = format!("DriftGuardException {ns}/{name} is refused: ");
        ensure!(refused.contains(&first) && refused.contains(said), "{refused}");
    }
    let refused = told(on, "denial", "InvalidException", ns, 3)?;
    ensure!(refused.iter().all(|record| record["user"]["name"] == "administrator"), "{refused:?}");
    // A guard may come later, so that its absence is no reason to refuse.
    let made = make("some", json!({"names": [guard, "missing-guard"]}), &ahead(3600), "release 12")?;
    ensure!(made.stderr.contains("has no guard missing-guard"), "{made}");
    made.success()?;
    let record = told(on, "exceptionChange", "ExceptionCreated", ns, 1)?.remove(0);
    ensure!(record["user"]["name"] == "administrator" && record["operation"] == "CREATE", "{record}");
    ensure!(record["target"]["kind"] == "DriftGuardException" && record["target"]["name"] == "some");
    ensure!(record["pause"]["reason"] == "release 12", "{record}");
    ensure!(active(on, ns, "some", "True")?["reason"] == "InForce");
    let shown = on.admin.kubectl(&["get", "dge", "-n", ns])?.success()?;
    for column in ["UNTIL", "ACTIVE", "REASON", "AGE", "True", "release 12"] {
        ensure!(shown.contains(column), "{shown}");
    }
    // Labels change nothing, and are not even sent to us.
    on.admin.kubectl(&["label", "dge/some", "-n", ns, "a=b"])?.success()?;
    on.admin.kubectl(&["delete", "dge/some", "-n", ns])?.success()?;
    told(on, "exceptionChange", "ExceptionDeleted", ns, 1)?;
    told(on, "pause", "PauseEnded", ns, 1)?;
    Ok(())
}

#[test]
fn the_role_for_exceptions_gives_the_right_to_make_and_end_them_and_no_other() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = "exception-role";
    let guard = guarded(on, ns)?;
    let role = on.admin.kubectl(&["get", "clusterrole", "driftguard-exceptions", "-o", "json"])?.json()?;
    let labels = role["metadata"]["labels"].to_string();
    ensure!(!labels.contains("aggregate-to") && role["aggregationRule"].is_null(), "{role}");
    let binding = ["create", "rolebinding", "night", "--clusterrole=driftguard-exceptions", "--user=dora"];
    on.admin.kubectl(&[&binding[..], &["-n", ns]].concat())?.success()?;
    let dora = on.plane.user("dora", &["on-call"])?;
    let may = |verb: &str, resource: &str, namespace: &str| {
        dora.kubectl(&["auth", "can-i", verb, resource, "-n", namespace]).map(|said| said.succeeded())
    };
    let exceptions = "driftguardexceptions.terrafusion.ai";
    until("the right is there", LIMIT, || {
        ensure!(may("create", exceptions, ns)?, "not yet");
        Ok(())
    })?;
    for verb in ["get", "list", "watch", "delete"] {
        ensure!(may(verb, exceptions, ns)?, "{verb}");
    }
    for (verb, resource, namespace) in [
        ("update", exceptions, ns),
        ("patch", exceptions, ns),
        ("deletecollection", exceptions, ns),
        ("patch", "driftguardexceptions.terrafusion.ai/status", ns),
        ("create", exceptions, "default"),
        ("update", "driftguards.terrafusion.ai", ns),
        ("get", "driftguards.terrafusion.ai", ns),
        ("patch", "configmaps", ns),
    ] {
        ensure!(!may(verb, resource, namespace)?, "{verb} {resource} in {namespace}");
    }
    let manifest = exception(ns, "night", &json!({"all": true}), &ahead(3600)).to_string();
    dora.kubectl_with(&["apply", "-f", "-"], manifest)?.success()?;
    let record = told(on, "exceptionChange", "ExceptionCreated", ns, 1)?.remove(0);
    ensure!(record["user"]["name"] == "dora", "{record}");
    suspended(on, ns, &guard, "True")?;
    dora.kubectl(&["delete", "dge/night", "-n", ns])?.success()?;
    suspended(on, ns, &guard, "False")
}

#[test]
fn a_suspended_guard_lets_writes_pass_until_it_ends_by_itself() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = "suspended";
    let guard = guarded(on, ns)?;
    let suspend = json!({"spec": {"suspend": {"until": ahead(15), "reason": "migration"}}}).to_string();
    on.admin
        .kubectl(&["patch", &format!("dg/{guard}"), "-n", ns, "--type=merge", "-p", &suspend])?
        .success()?;
    suspended(on, ns, &guard, "True")?;
    edit(on, ns, "11")?.success()?;
    suspended(on, ns, &guard, "False")?;
    on.refused(ns, TARGET, || edit(on, ns, "12"))?;
    let began = told(on, "pause", "PauseBegan", ns, 1)?;
    let pause = &began[0]["pause"];
    ensure!(pause["by"] == "administrator" && pause["reason"] == "migration", "{began:?}");
    ensure!(pause["exception"].is_null(), "{began:?}");
    told(on, "pause", "PauseEnded", ns, 1)?;
    for reason in ["PauseBegan", "PauseEnded"] {
        let event = event(on, ns, reason)?;
        ensure!(event["regarding"]["name"] == guard.as_str() && event["related"].is_null(), "{event}");
    }
    Ok(())
}

#[test]
fn an_exception_pauses_nothing_elsewhere_and_deleting_it_ends_it() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let (ns, other) = ("excepted-here", "excepted-elsewhere");
    let guard = guarded(on, ns)?;
    guarded(on, other)?;
    on.apply(&exception(ns, "incident", &json!({"all": true}), &ahead(3600)))?.success()?;
    suspended(on, ns, &guard, "True")?;
    on.refused(other, TARGET, || edit(on, other, "11"))?;
    // Whoever deletes it ends it, although a finalizer keeps the object.
    let finalizers = |list: &Value| {
        let patch = json!({"metadata": {"finalizers": list}}).to_string();
        on.admin.kubectl(&["patch", "dge/incident", "-n", ns, "--type=merge", "-p", &patch])?.success()
    };
    finalizers(&json!(["example.com/keep"]))?;
    on.admin.kubectl(&["delete", "dge/incident", "-n", ns, "--wait=false"])?.success()?;
    suspended(on, ns, &guard, "False")?;
    on.refused(ns, TARGET, || edit(on, ns, "12"))?;
    finalizers(&json!([]))?;
    Ok(())
}

#[test]
fn an_exception_says_exactly_which_guards_and_cannot_be_changed() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = on.namespace("exception-schema")?;
    let two = json!({"all": true, "names": ["a"]});
    for guards in [json!({}), json!({"all": false}), two, json!({"selector": {}}), json!({"names": []})] {
        on.apply(&exception(&ns, "wrong", &guards, &ahead(60)))?.failure()?;
    }
    on.apply(&exception(&ns, "incident", &json!({"all": true}), &ahead(60)))?.success()?;
    let longer = json!({"spec": {"until": ahead(7200)}}).to_string();
    let patch = ["patch", "dge/incident", "-n", &ns, "--type=merge", "-p", &longer];
    let spec = || Ok::<_, anyhow::Error>(on.get(&ns, "dge/incident")?["spec"].clone());
    let before = spec()?;
    let said = on.admin.kubectl(&patch)?.failure()?;
    ensure!(said.contains("an exception cannot be changed"), "{said}");
    ensure!(spec()? == before, "refused, yet changed");
    Ok(())
}

#[test]
fn the_right_to_change_guards_is_no_right_to_make_exceptions() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = on.namespace("exception-rights")?;
    let role = ["create", "role", "guards", "--verb=*", "--resource=driftguards.terrafusion.ai", "-n", &ns];
    on.admin.kubectl(&role)?.success()?;
    on.admin
        .kubectl(&["create", "rolebinding", "guards", "--role=guards", "--user=carol", "-n", &ns])?
        .success()?;
    let carol = on.plane.user("carol", &["developers"])?;
    // Only once the role has arrived does a refusal say that the role is not enough.
    until("carol may change guards", LIMIT, || {
        let may = ["auth", "can-i", "create", "driftguards.terrafusion.ai", "-n", &ns];
        carol.kubectl(&may)?.success().map(drop)
    })?;
    let manifest = exception(&ns, "incident", &json!({"all": true}), &ahead(60)).to_string();
    let said = carol.kubectl_with(&["create", "-f", "-"], manifest.clone())?.failure()?;
    ensure!(said.contains("cannot create resource \"driftguardexceptions\""), "{said}");
    let made = ["get", "dge", "-n", &ns, "-o", "name"];
    ensure!(on.admin.kubectl(&made)?.success()?.is_empty(), "refused, yet made");
    // What is missing is that right alone.
    let grant = ["create", "rolebinding", "incidents", "--clusterrole=driftguard-exceptions", "--user=carol"];
    on.admin.kubectl(&[&grant[..], &["-n", &ns]].concat())?.success()?;
    until("carol may make exceptions", LIMIT, || {
        carol.kubectl_with(&["create", "-f", "-"], manifest.clone())?.success().map(drop)
    })
}

#[test]
fn labels_that_bring_a_guard_under_an_exception_take_the_right_to_make_one_and_are_told() -> Result<()> {
    let on = Installation::shared(Via::Url)?;
    let ns = "relabelled";
    let guard = guarded(on, ns)?;
    let role = ["create", "role", "guards", "--verb=*", "--resource=driftguards.terrafusion.ai", "-n", ns];
    on.admin.kubectl(&role)?.success()?;
    let binding = ["create", "rolebinding", "guards", "--role=guards", "--user=carla", "-n", ns];
    on.admin.kubectl(&binding)?.success()?;
    let carla = on.plane.user("carla", &["developers"])?;
    let object = format!("dg/{guard}");
    let label = |by: &driftguard_control_plane::User, label: &str| {
        by.kubectl(&["label", "--overwrite", &object, "-n", ns, label])
    };
    until("carla may label guards", LIMIT, || label(&carla, "a=b")?.success().map(drop))?;
    let risk = json!({"selector": {"matchLabels": {"team": "risk"}}});
    on.apply(&exception(ns, "incident", &risk, &ahead(3600)))?.success()?;
    active(on, ns, "incident", "True")?;
    let said = label(&carla, "team=risk")?.failure()?;
    let right = "create driftguardexceptions.terrafusion.ai in namespace relabelled";
    ensure!(said.contains("under exception incident") && said.contains(right), "{said}");
    label(&carla, "team=desk")?.success()?;
    on.refused(ns, TARGET, || edit(on, ns, "11"))?;

    let by_admin = label(&on.admin, "team=risk")?;
    ensure!(by_admin.stderr.contains("comes under exception incident"), "{by_admin}");
    by_admin.success()?;
    suspended(on, ns, &guard, "True")?;
    edit(on, ns, "11")?.success()?;
    let records: Vec<Value> = until("it is recorded", LIMIT, || {
        let lines = on.serve.log();
        let all = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let found: Vec<Value> = all
            .filter(|line| line["guard"]["namespace"] == ns)
            .filter(|line| ["GuardExcepted", "ExceptedByLabels"].iter().any(|word| line["reason"] == *word))
            .collect();
        ensure!(found.len() == 2, "{found:?}");
        Ok(found)
    })?;
    let users = [&records[0]["user"]["name"], &records[1]["user"]["name"]];
    ensure!(users == ["carla", "administrator"], "{records:?}");
    let told = event(on, ns, "GuardExcepted")?;
    ensure!(told["regarding"]["name"] == guard.as_str(), "{told}");
    Ok(())
}

/// A guarded ConfigMap, and the glass before it.
struct Glass {
    on: Installation,
    guard: String,
}

const GLASS: &str = "glass";

impl Glass {
    fn whole() -> Result<Self> {
        let on = Installation::start(Via::Url, Version::Newest)?;
        let guard = guarded(&on, GLASS)?;
        on.refused(GLASS, TARGET, || edit(&on, GLASS, "11"))?;
        Ok(Self { on, guard })
    }

    fn breakglass(&self, args: &[&str]) -> Result<Output> {
        driftguard(&self.on.admin, &[&["breakglass"], args].concat())
    }

    fn break_for(&self, time: &str) -> Result<Output> {
        let output = self.breakglass(&["--for", time, "--reason", "incident 8"])?;
        ensure!(output.stdout.contains("validatingwebhookconfigurations/driftguard opened"), "{output}");
        ensure!(output.stderr.contains("driftguard breakglass --end"), "{output}");
        ensure!(output.succeeded(), "{output}");
        Ok(output)
    }

    /// An edit to another value each time: one that changes nothing would pass.
    fn edit(&self) -> Result<Output> {
        edit(&self.on, GLASS, &jiff::Timestamp::now().as_nanosecond().to_string())
    }

    fn passes(&self) -> Result<String> {
        until("the edit passes", LIMIT, || {
            let passed = self.edit()?;
            ensure!(passed.succeeded(), "{passed}");
            Ok(passed.stderr)
        })
    }

    fn refuses(&self) -> Result<String> {
        until("the edit is refused", LIMIT, || {
            unchanged(&self.on.admin, GLASS, TARGET, || self.edit()?.failure())
        })
    }

    /// Waits until the guard says that the glass is broken, and gives how it says so.
    fn said_by_the_guard(&self) -> Result<String> {
        until("the guard says so", LIMIT, || {
            let guard = self.on.get(GLASS, &format!("dg/{}", self.guard))?;
            let conditions = guard["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let found = conditions.iter().find(|one| one["type"] == "Enforcing");
            let Some(found) = found.filter(|one| one["reason"] == "BrokenGlass") else {
                anyhow::bail!("{conditions:?}")
            };
            ensure!(found["status"] == "False", "{found}");
            Ok(found["message"].as_str().unwrap_or_default().to_owned())
        })
    }

    fn registered(&self) -> Result<Value> {
        let get = ["get", "validatingwebhookconfiguration", "driftguard", "-o", "json"];
        self.on.admin.kubectl(&get)?.json()
    }

    fn noted(&self, what: &str) -> Result<Value> {
        let key = format!("driftguard.terrafusion.ai/breakglass-{what}");
        Ok(self.registered()?["metadata"]["annotations"][key].clone())
    }
}

#[test]
fn while_a_replica_lives_what_passes_broken_glass_is_told_with_its_beginning_and_end() -> Result<()> {
    let glass = Glass::whole()?;
    glass.break_for("10m")?;
    let told_to_the_user = glass.passes()?;
    ensure!(told_to_the_user.contains("glass is broken"), "{told_to_the_user}");
    let said = glass.said_by_the_guard()?;
    ensure!(said.contains("administrator broke the glass (incident 8)"), "{said}");
    let on = &glass.on;
    let passed = told(on, "observation", "BrokenGlass", GLASS, 1)?.remove(0);
    ensure!(passed["guard"]["name"] == glass.guard.as_str(), "{passed}");
    ensure!(passed["user"]["name"] == "administrator" && passed["paths"] == json!(["/data/maximum"]));
    let began = told(on, "glass", "GlassBroken", "", 1)?.remove(0);
    let pause = &began["pause"];
    ensure!(pause["by"] == "administrator" && pause["reason"] == "incident 8", "{began}");
    ensure!(event(on, GLASS, "GlassBroken")?["regarding"]["name"] == glass.guard.as_str());
    // Approving goes on: an author without rights is refused as ever, and a new guard is taken.
    on.apply(&config_map(GLASS, "other", &json!({"a": "1"})))?.success()?;
    let hash = crate::installation::hash_of(&on.get(GLASS, "configmap/other")?)?;
    on.apply(&json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": "other", "namespace": GLASS},
        "spec": {"targetKind": "ConfigMap", "targetName": "other", "expectedHash": hash}}))?
        .success()?;
    ensure!(glass.registered()?.to_string().matches("/ignore/broken").count() > 1);

    let ended = glass.breakglass(&["--end"])?;
    ensure!(ended.stderr.contains("refused again"), "{ended}");
    ended.success()?;
    glass.refuses()?;
    on.wait_enforcing(GLASS, &glass.guard)?;
    on.wait_enforcing(GLASS, "other")?;
    let mended = told(on, "glass", "GlassMended", "", 1)?.remove(0);
    let message = mended["message"].as_str().unwrap_or_default();
    ensure!(message.contains("administrator ended it") && message.contains("incident 8"), "{mended}");
    event(on, GLASS, "GlassMended")?;
    ensure!(!glass.registered()?.to_string().contains("breakglass-"), "nothing is left of it");
    let whole = glass.breakglass(&["--end"])?;
    ensure!(whole.stderr.contains("the glass is not broken: nothing was changed"), "{whole}");
    whole.success()?;
    let repaired = told(on, "observation", "RegistrationAltered", "", 0)?;
    ensure!(repaired.is_empty(), "{repaired:?}");
    Ok(())
}

#[test]
fn broken_glass_ends_by_itself_and_a_replica_that_starts_counts_on_where_another_began() -> Result<()> {
    let mut glass = Glass::whole()?;
    glass.break_for("3s")?;
    glass.passes()?;
    glass.refuses()?;
    ensure!(!glass.registered()?.to_string().contains("breakglass-"), "nothing is left of it");
    let mended = told(&glass.on, "glass", "GlassMended", "", 1)?.remove(0);
    ensure!(mended["message"].as_str().is_some_and(|text| text.contains("its time is over")), "{mended}");

    glass.break_for("10m")?;
    glass.said_by_the_guard()?;
    let seen = glass.noted("seen")?;
    ensure!(seen.is_string(), "{seen}");
    glass.on.restart(&[])?;
    let passed = glass.passes()?;
    ensure!(passed.contains("glass is broken"), "{passed}");
    until("the new process holds the lease", LIMIT, || {
        let metrics = glass.on.health("/metrics")?;
        ensure!(metrics.contains("driftguard_broken_glass 1"), "{metrics}");
        Ok(())
    })?;
    ensure!(glass.noted("seen")? == seen, "it does not count anew");
    told(&glass.on, "glass", "GlassBroken", "", 2)?;
    // What is allowed at most has passed since then, whatever it asked for.
    glass.on.restart(&["--max-exception=1s"])?;
    glass.refuses()?;
    glass.on.wait_enforcing(GLASS, &glass.guard)?;
    let mended = told(&glass.on, "glass", "GlassMended", "", 2)?.remove(1);
    ensure!(mended["pause"]["by"] == "administrator", "{mended}");
    Ok(())
}

#[test]
fn with_every_replica_dead_the_glass_can_be_broken_and_closed_and_an_exception_made() -> Result<()> {
    let mut glass = Glass::whole()?;
    glass.on.serve.signal(Signal::Kill)?;
    glass.on.serve.wait(LIMIT)?;
    let called = unchanged(&glass.on.admin, GLASS, TARGET, || glass.edit()?.failure())?;
    ensure!(called.contains("failed calling webhook"), "{called}");
    // It is the way through at night; what ends it is computed at every use.
    glass.on.apply(&exception(GLASS, "night", &json!({"all": true}), &ahead(1)))?.success()?;
    glass.break_for("10m")?;
    glass.passes()?;
    let ended = glass.breakglass(&["--end"])?;
    ensure!(ended.stdout.contains("validatingwebhookconfigurations/driftguard closed again"), "{ended}");
    ended.success()?;
    let called = glass.refuses()?;
    ensure!(called.contains("failed calling webhook"), "{called}");
    // Whoever lives next tells of it, although nobody saw it.
    glass.on.restart(&[])?;
    glass.on.wait_enforcing(GLASS, &glass.guard)?;
    told(&glass.on, "glass", "GlassBroken", "", 1)?;
    let mended = told(&glass.on, "glass", "GlassMended", "", 1)?.remove(0);
    ensure!(mended["message"].as_str().is_some_and(|text| text.contains("administrator ended it")));
    glass.refuses()?;
    active(&glass.on, GLASS, "night", "False").map(drop)
}

#[test]
fn who_may_not_break_the_glass_is_told_which_right_is_missing() -> Result<()> {
    let glass = Glass::whole()?;
    let admin = &glass.on.admin;
    let before = glass.registered()?;
    let frank = glass.on.plane.user("frank", &["developers"])?;
    let try_it = || driftguard(&frank, &["breakglass", "--for", "10m", "--reason", "incident 9"]);
    let said = try_it()?;
    ensure!(said.code == Some(2) && said.stdout.is_empty(), "{said}");
    ensure!(said.stderr.contains("reading validatingwebhookconfigurations/driftguard"), "{said}");
    ensure!(
        said.stderr.contains("cannot get resource") && said.stderr.contains("ask for that right"),
        "{said}"
    );
    ensure!(said.stderr.trim().lines().count() == 1, "{said}");
    // Rights on the gate alone open it, and say that the rest is as it was.
    let kind = "--resource=validatingwebhookconfigurations.admissionregistration.k8s.io";
    let verbs = ["--verb=get,patch", "--resource-name=driftguard"];
    admin.kubectl(&[&["create", "clusterrole", "glass", kind], &verbs[..]].concat())?.success()?;
    admin
        .kubectl(&["create", "clusterrolebinding", "glass", "--clusterrole=glass", "--user=frank"])?
        .success()?;
    let said = until("the right is there", LIMIT, || {
        let said = try_it()?;
        ensure!(!said.stdout.is_empty(), "{said}");
        Ok(said)
    })?;
    ensure!(said.code == Some(2) && said.stdout.contains("opened"), "{said}");
    ensure!(said.stderr.contains("the gate itself was changed, but reading mutating"), "{said}");
    glass.passes()?;
    ensure!(glass.noted("by")? == "frank" || glass.noted("by")?.is_null());
    glass.breakglass(&["--end"])?.success()?;
    glass.refuses()?;
    ensure!(
        before["webhooks"].as_array().map(Vec::len)
            == glass.registered()?["webhooks"].as_array().map(Vec::len)
    );
    for kind in ["validatingwebhookconfiguration", "mutatingwebhookconfiguration"] {
        glass.on.serve.signal(Signal::Kill)?;
        admin.kubectl(&["delete", kind, "driftguard"])?.success()?;
    }
    let said = glass.breakglass(&["--for", "10m", "--reason", "incident 9"])?;
    ensure!(said.code == Some(2) && said.stderr.contains("DriftGuard refuses no writes here"), "{said}");
    Ok(())
}
