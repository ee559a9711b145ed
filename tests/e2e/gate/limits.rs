//! The largest and the deepest objects that an API server stores.

use anyhow::{Result, ensure};
use driftguard::core::canonical::hash_object;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use serde_json::json;

use crate::installation::Installation;

/// The API server takes requests of 3 MiB, and stores 2 MiB; metadata needs some of it.
const REQUEST: usize = (3 << 20) - 64_000;
const STORED: usize = (2 << 20) - 64_000;
/// One more than many readers of JSON go, and one that only few do.
const DEPTHS: [usize; 2] = [129, 5_000];

pub(super) fn case_46_objects_of_3_mib_and_of_depth_5000_are_guarded(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    // `<` takes six bytes in requests and reviews, so that what is sent is longer than what is meant.
    let piece = "<ä abcdefghijklmno\\n";
    let text =
        |bytes: usize, end: &str| format!(r#"{{"text":"{}{end}"}}"#, piece.repeat(bytes / (piece.len() + 5)));
    let large = |end: &str| text(STORED, end);
    let deep = |depth: usize, leaf: &str| format!("{}{leaf}{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    for (name, approved, other) in [
        ("large", large("1"), large("2")),
        ("deep", deep(DEPTHS[0], "1"), deep(DEPTHS[0], "2")),
        ("deepest", deep(DEPTHS[1], "1"), deep(DEPTHS[1], "2")),
    ] {
        let object = |parameters: &str| {
            format!(
                r#"{{"apiVersion":"terrafusion.ai/v1","kind":"GAMAConfig","metadata":{{"name":"{name}","namespace":"{ns}"}},"spec":{{"parameters":{parameters}}}}}"#
            )
        };
        let scope = Scope::new("terrafusion.ai", "GAMAConfig", PathFilter::everything());
        let hash = hash_object(object(&approved).as_bytes(), &scope)?.to_string();
        // Without a last-applied annotation: kubectl's would not fit beside the object.
        on.admin.kubectl_with(&["create", "-f", "-"], object(&approved))?.success()?;
        let target = format!("gamaconfig/{name}");
        on.pin(ns, &target, &hash, &json!({}))?;
        let version = || {
            let path = "-o=jsonpath={.metadata.resourceVersion}";
            on.admin.kubectl(&["get", &target, "-n", ns, path])?.success()
        };
        let before = version()?;
        let said = on.admin.kubectl_with(&["replace", "-f", "-"], object(&other))?.failure()?;
        ensure!(said.contains("DriftGuard "), "{name}: {}", said.get(..2_000).unwrap_or(&said));
        ensure!(before == version()?, "{name}: refused, yet written");
        on.admin.kubectl_with(&["replace", "-f", "-"], object(&approved))?.success()?;
    }
    // The largest request is judged before the API server finds that it cannot store it.
    on.pin(ns, "gamaconfig/missing", &"a".repeat(64), &json!({}))?;
    let largest = format!(
        r#"{{"apiVersion":"terrafusion.ai/v1","kind":"GAMAConfig","metadata":{{"name":"missing","namespace":"{ns}"}},"spec":{{"parameters":{}}}}}"#,
        text(REQUEST, "")
    );
    on.not_made(ns, "gamaconfig/missing", || on.admin.kubectl_with(&["create", "-f", "-"], largest)).map(drop)
}
