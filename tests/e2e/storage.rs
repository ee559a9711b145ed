//! What two API servers, or none, make of the same bytes in etcd: representations that differ by version, and an
//! object that cannot be decoded.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::{ControlPlane, Version, free_port, until};
use serde_json::{Value, json};

use crate::installation::{Installation, LIMIT, Via, config_map, deployment, gama_config, hash_of};

#[test]
fn case_62_a_second_version_of_the_api_server_denies_nothing_that_changes_nothing() -> Result<()> {
    let plane = ControlPlane::builder().and_api_server_of(Version::Older).start()?;
    let endpoints: Vec<String> = plane
        .api_servers()
        .iter()
        .map(|server| format!("--api-server-endpoint={}", server.address()))
        .collect();
    let older = plane.user_at(&plane.api_servers()[1], "older", &["system:masters"])?;
    let on = Installation::start_on(plane, free_port()?, Via::Url, &endpoints)?;
    let ns = on.namespace("case-62")?;
    let mut stateful = deployment(&ns, "stateful");
    stateful["kind"] = json!("StatefulSet");
    stateful["spec"]["serviceName"] = json!("stateful");
    for (object, manifest) in [
        ("deployment/web", deployment(&ns, "web")),
        ("statefulset/stateful", stateful),
        ("configmap/settings", config_map(&ns, "settings", &json!({"a": "1"}))),
    ] {
        on.apply(&manifest)?.success()?;
        on.pin_live(&ns, object)?;
        for (user, word) in [(&older, "older"), (&on.admin, "newer")] {
            user.kubectl(&["label", "--overwrite", object, "-n", &ns, &format!("seen={word}")])?.success()?;
            // What each of them reads, written back: with its own defaults, and without those it does not know.
            let read = user.kubectl(&["get", object, "-n", &ns, "-o", "json"])?.success()?;
            user.kubectl_with(&["replace", "-f", "-"], read)?.success()?;
        }
        // A change is refused through either.
        let patch = if object.starts_with("configmap") {
            r#"{"data":{"a":"2"}}"#
        } else {
            r#"{"spec":{"template":{"metadata":{"labels":{"evil":"yes"}}}}}"#
        };
        for user in [&older, &on.admin] {
            on.refused(&ns, object, || {
                user.kubectl(&["patch", object, "-n", &ns, "--type=merge", "-p", patch])
            })?;
        }
    }
    Ok(())
}

#[test]
fn case_46_an_object_that_cannot_be_decoded_frees_no_other() -> Result<()> {
    let on = Installation::start(Via::Url, Version::Newest)?;
    let ns = on.namespace("case-46-broken")?;
    for name in ["broken", "whole"] {
        on.apply(&gama_config(&ns, name, &json!({"limit": 1})))?.success()?;
        on.pin_live(&ns, &format!("gamaconfig/{name}"))?;
    }
    let key = format!("/registry/terrafusion.ai/gamaconfigs/{ns}/broken");
    let stored = on.plane.etcd().get(&key)?.context("it is not where it was thought to be")?;
    on.plane.etcd().put(&key, br#"{"apiVersion":"terrafusion.ai/v1","kind":"GAMAC"#)?;
    let write = |name: &str| {
        on.admin.kubectl(&[
            "patch",
            &format!("gamaconfig/{name}"),
            "-n",
            &ns,
            "--type=merge",
            "-p",
            r#"{"spec":{"parameters":{"limit":2}}}"#,
        ])
    };
    write("broken")?.failure()?;
    on.refused(&ns, "gamaconfig/whole", || write("whole"))?;
    // Guards made now are enforced, too: nothing waits for a list of the kind.
    on.apply(&gama_config(&ns, "later", &json!({"limit": 1})))?.success()?;
    on.pin(&ns, "gamaconfig/later", &hash_of(&gama_config(&ns, "later", &json!({"limit": 1})))?, &json!({}))?;
    on.refused(&ns, "gamaconfig/later", || write("later"))?;
    on.plane.etcd().put(&key, &stored)?;
    until("it can be read again", LIMIT, || {
        let read: Value = on.get(&ns, "gamaconfig/broken")?;
        ensure!(read["spec"]["parameters"]["limit"] == 1, "{read}");
        Ok(())
    })?;
    on.refused(&ns, "gamaconfig/broken", || write("broken"))?;
    Ok(())
}
