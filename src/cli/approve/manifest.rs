//! Approving where a guard comes from: `expectedHash` of its manifest is replaced in place, so that comments
//! and layout stay.

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::api::names;
use crate::cli::cluster::ClusterArgs;
use crate::cli::guards::Found;
use crate::cli::output;
use crate::core::hash::ContentHash;
use crate::document::{self, Document, Edit};

/// The field that is replaced.
const FIELD: &str = "expectedHash";

/// Replaces the hash of a guard in a file; false when it stands there already.
///
/// # Errors
/// When the file does not hold exactly this guard with a hash as plain text.
pub(super) fn edit(
    file: &str,
    guard: &Found,
    cluster: &ClusterArgs,
    hash: ContentHash,
    is_dry_run: bool,
) -> anyhow::Result<bool> {
    let before = std::fs::read_to_string(file).with_context(|| format!("{file} cannot be read"))?;
    let is_it = |document: &Document| -> anyhow::Result<bool> {
        let namespace = match &document.namespace {
            Some(namespace) => namespace.clone(),
            // Kustomize and the like say the namespace elsewhere.
            None if cluster.namespace.is_none() => guard.namespace().to_owned(),
            None => cluster.default_namespace()?,
        };
        Ok(document.group() == names::GROUP
            && document.kind == "DriftGuard"
            && document.name == guard.name()
            && namespace == guard.namespace())
    };
    let documents = read(file)?;
    let mut found = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        if is_it(document)? {
            found.push(at);
        }
    }
    let [at] = found.as_slice() else {
        bail!(
            "{file} holds DriftGuard {}/{} {} times; want once",
            guard.namespace(),
            guard.name(),
            found.len()
        );
    };
    let found = &documents[*at];
    let old = spec_hash(found).with_context(|| format!("{file}: its DriftGuard has no {FIELD}"))?;
    if old.parse::<ContentHash>().is_ok_and(|old| old == hash) {
        return Ok(false);
    }
    let edit = Edit {
        document: found.origin.number,
        pointer: format!("{}/spec/{FIELD}", found.pointer),
        value: hash.respelt(&old),
    };
    let after = document::edited(file, &before, &[edit])?;
    if !is_dry_run {
        output::file(file.as_ref(), after.text.as_bytes())?;
    }
    Ok(true)
}

fn read(file: &str) -> anyhow::Result<Vec<Document>> {
    Ok(document::read(&[file], &mut std::io::empty())?)
}

fn spec_hash(document: &Document) -> Option<String> {
    let value: Value = serde_json::from_slice(&document.json).ok()?;
    Some(value["spec"][FIELD].as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    const OLD: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const OTHER: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    fn guard(name: &str) -> Found {
        let json = serde_json::json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": name, "namespace": "n", "uid": "u"},
            "spec": {"targetKind": "ConfigMap", "targetName": "a", "expectedHash": OLD},
        });
        Found::parse(&json.to_string()).unwrap()
    }

    fn edited(text: &str, name: &str) -> anyhow::Result<(bool, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("guards.yaml");
        std::fs::write(&path, text).unwrap();
        let new = "c".repeat(64).parse().unwrap();
        let is_edited = edit(path.to_str().unwrap(), &guard(name), &ClusterArgs::default(), new, false)?;
        Ok((is_edited, std::fs::read_to_string(&path).unwrap()))
    }

    #[test]
    fn the_hash_of_one_guard_is_replaced_and_all_else_stays() {
        let text = format!(
            "# guards of the market\napiVersion: terrafusion.ai/v1\nkind: DriftGuard\nmetadata: {{name: x, namespace: \"n\"}}\nspec:\n  targetKind: ConfigMap\n  targetName: x\n  expectedHash: {OLD} # of x\n---\n{{apiVersion: terrafusion.ai/v1, kind: DriftGuard, metadata: {{name: a}}, spec: {{targetKind: ConfigMap, targetName: a, expectedHash: \"sha256:{OLD}\"}}}} # of a\n"
        );
        let (is_edited, after) = edited(&text, "a").unwrap();
        assert!(is_edited);
        assert_eq!(after, text.replace(&format!("sha256:{OLD}"), &format!("sha256:{}", "c".repeat(64))));
        let (is_edited, after) = edited(&text, "x").unwrap();
        assert!(is_edited);
        assert_eq!(after, text.replace(&format!("{OLD} # of x"), &format!("{} # of x", "c".repeat(64))));
    }

    #[test]
    fn what_stands_elsewhere_too_is_left_alone() {
        let text = format!(
            "apiVersion: terrafusion.ai/v1\nkind: DriftGuard\nmetadata: {{name: a, annotations: {{x: &h {OTHER}}}}}\nspec:\n  targetKind: ConfigMap\n  targetName: a\n  expectedHash: *h\n"
        );
        let error = edited(&text, "a").unwrap_err().to_string();
        assert!(error.contains("expectedHash does not stand there in one piece"), "{error}");
        let error = edited(&text, "b").unwrap_err().to_string();
        assert!(error.contains("holds DriftGuard n/b 0 times"), "{error}");
    }
}
