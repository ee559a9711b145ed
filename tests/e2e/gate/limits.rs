//! The largest and the deepest objects that an API server stores.

use anyhow::{Result, ensure};
use driftguard::core::canonical::hash_object;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use serde_json::json;

use crate::installation::Installation;

/// The API server takes requests of 3 MiB; metadata needs some of it.
const LARGE: usize = (3 << 20) - 64_000;
const DEPTH: usize = 5_000;

pub(super) fn case_46_objects_of_nearly_3_mib_and_of_depth_5000_are_guarded(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    // Escaped characters grow in a review: `<` takes six bytes there.
    let large = |end: &str| format!(r#"{{"text":"{}{end}"}}"#, "<ä x".repeat(LARGE / 5));
    let deep = |leaf: &str| format!("{}{leaf}{}", r#"{"a":"#.repeat(DEPTH), "}".repeat(DEPTH));
    for (name, approved, other) in [("large", large("1"), large("2")), ("deep", deep("1"), deep("2"))] {
        let text = |parameters: &str| {
            format!(
                r#"{{"apiVersion":"terrafusion.ai/v1","kind":"GAMAConfig","metadata":{{"name":"{name}","namespace":"{ns}"}},"spec":{{"parameters":{parameters}}}}}"#
            )
        };
        let scope = Scope::new("terrafusion.ai", "GAMAConfig", PathFilter::everything());
        let hash = hash_object(text(&approved).as_bytes(), &scope)?.to_string();
        // Without a last-applied annotation: kubectl's would not fit beside the object.
        on.admin.kubectl_with(&["create", "-f", "-"], text(&approved))?.success()?;
        let target = format!("gamaconfig/{name}");
        on.pin(ns, &target, &hash, &json!({}))?;
        let version = || {
            let path = "-o=jsonpath={.metadata.resourceVersion}";
            on.admin.kubectl(&["get", &target, "-n", ns, path])?.success()
        };
        let before = version()?;
        let said = on.admin.kubectl_with(&["replace", "-f", "-"], text(&other))?.failure()?;
        ensure!(said.contains("DriftGuard "), "{name}: {}", said.get(..2_000).unwrap_or(&said));
        ensure!(before == version()?, "{name}: refused, yet written");
        on.admin.kubectl_with(&["replace", "-f", "-"], text(&approved))?.success()?;
    }
    Ok(())
}
