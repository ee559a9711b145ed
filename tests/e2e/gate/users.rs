//! Who writes makes no difference, and who writes something else is not our business.

use anyhow::{Result, ensure};
use driftguard_control_plane::User;
use serde_json::json;

use crate::installation::{Installation, config_map};

pub(super) fn everybody_is_refused_alike(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&config_map(ns, "shared", &json!({"a": "1"})))?.success()?;
    // The guard lies in another namespace, where alice may do nothing.
    let guards = on.namespace(&format!("{}-guards", ns.get(..30).unwrap_or(ns)))?;
    let hash = crate::installation::hash_of(&on.get(ns, "configmap/shared")?)?;
    on.pin(&guards, "configmap/shared", &hash, &json!({"targetNamespace": ns}))?;
    let alice = on.plane.user("alice", &["developers"])?;
    let robot = on.plane.service_account(ns, "robot")?;
    // Roles such as `edit` are put together by a controller that does not run here.
    on.admin
        .kubectl(&["create", "role", "writer", "--verb=get,patch,update", "--resource=configmaps", "-n", ns])?
        .success()?;
    let account = format!("--serviceaccount={ns}:robot");
    let binding = ["create", "rolebinding", "writers", "--role=writer", "--user=alice", &account, "-n", ns];
    on.admin.kubectl(&binding)?.success()?;
    let refused = |user: &User| {
        on.refused(ns, "configmap/shared", || {
            user.kubectl(&[
                "patch",
                "configmap/shared",
                "-n",
                ns,
                "--type=merge",
                "-p",
                r#"{"data":{"a":"2"}}"#,
            ])
        })
    };
    let (by_alice, by_robot, by_admin) = (refused(&alice)?, refused(&robot)?, refused(&on.admin)?);
    ensure!(by_alice == by_robot && by_alice == by_admin, "{by_alice}\n{by_robot}\n{by_admin}");
    Ok(())
}

pub(super) fn a_write_that_no_guard_covers_makes_no_call(on: &Installation, ns: &str) -> Result<()> {
    on.apply(&config_map(ns, "guarded", &json!({"a": "1"})))?.success()?;
    let guard = on.pin_live(ns, "configmap/guarded")?;
    let other = on.namespace(&format!("{}-other", ns.get(..30).unwrap_or(ns)))?;
    // Other tests write guarded objects meanwhile, so what is counted is records of calls that would
    // name these objects: a live read is logged by name, and the count of misses must not move.
    let misses = || -> Result<u64> {
        let metrics = on.health("/metrics")?;
        let lines = metrics.lines().filter(|line| line.starts_with("driftguard_live_reads_total"));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum())
    };
    let before = misses()?;
    for namespace in [ns, other.as_str()] {
        for number in 0..3 {
            let name = format!("free-{number}");
            on.apply(&config_map(namespace, &name, &json!({"a": "1"})))?.success()?;
            on.apply(&config_map(namespace, &name, &json!({"a": "2"})))?.success()?;
            on.admin.kubectl(&["delete", "configmap", &name, "-n", namespace])?.success()?;
        }
    }
    // The same name in another namespace is another object.
    on.apply(&config_map(&other, "guarded", &json!({"a": "2"})))?.success()?;
    on.admin
        .kubectl_with(
            &["create", "-f", "-"],
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "guarded", "namespace": ns}})
                .to_string(),
        )?
        .success()?;
    ensure!(misses()? == before, "a write that no guard covers reached us");
    ensure!(on.reviews()? > 0, "the proof of {guard} must have been counted");
    Ok(())
}

pub(super) fn after_the_wait_the_very_next_edit_is_refused(on: &Installation, ns: &str) -> Result<()> {
    let patch = r#"{"data":{"a":"2"}}"#;
    for number in 0..8 {
        let name = format!("loop-{number}");
        on.apply(&config_map(ns, &name, &json!({"a": "1"})))?.success()?;
        let target = format!("configmap/{name}");
        // What it was is known, so that nothing comes between the wait and the edit.
        let before = on.get(ns, &target)?;
        on.pin_live(ns, &target)?;
        let said = on.admin.kubectl(&["patch", &target, "-n", ns, "--type=merge", "-p", patch])?.failure()?;
        ensure!(said.contains("DriftGuard "), "{said}");
        ensure!(on.get(ns, &target)? == before, "refused, yet changed");
    }
    Ok(())
}
