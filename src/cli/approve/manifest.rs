//! Approving where a guard comes from: `expectedHash` of its manifest is replaced in place, so that comments
//! and layout stay.

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::api::names;
use crate::cli::cluster::ClusterArgs;
use crate::cli::guards::Found;
use crate::cli::output;
use crate::core::hash::ContentHash;
use crate::document::{self, Document};

/// The field that is replaced.
const FIELD: &str = "expectedHash";
/// Hexadecimal digits of a hash.
const DIGITS: usize = 64;

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
    let old = spec_hash(&documents[*at]).with_context(|| format!("{file}: its DriftGuard has no {FIELD}"))?;
    if old.parse::<ContentHash>().is_ok_and(|old| old == hash) {
        return Ok(false);
    }
    // Of several guards in a file, each is tried: only one edit leaves all else as it was.
    for place in places(&before) {
        let mut after = before.clone();
        after.replace_range(place.clone(), &hash.to_string());
        if is_edit_of(&documents, *at, &after, file, hash) {
            if !is_dry_run {
                output::file(file.as_ref(), after.as_bytes())?;
            }
            return Ok(true);
        }
    }
    bail!(
        "{file}: {FIELD} does not stand there as 64 hexadecimal digits; edit it by hand to the hash that `driftguard hash` prints"
    )
}

fn read(file: &str) -> anyhow::Result<Vec<Document>> {
    Ok(document::read(&[file], &mut std::io::empty())?)
}

fn spec_hash(document: &Document) -> Option<String> {
    let value: Value = serde_json::from_slice(&document.json).ok()?;
    Some(value["spec"][FIELD].as_str()?.to_owned())
}

/// Where hexadecimal digits of hashes stand behind the name of the field.
fn places(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(FIELD) {
        let rest = &text[at + FIELD.len()..];
        let syntax = rest.len() - rest.trim_start_matches(['"', '\'', ':', ' ', '\t', '\n', '\r']).len();
        let rest = &rest[syntax..];
        let prefix =
            if rest.get(..7).is_some_and(|text| text.eq_ignore_ascii_case("sha256:")) { 7 } else { 0 };
        let digits = rest[prefix..].bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits == DIGITS {
            let from = at + FIELD.len() + syntax + prefix;
            found.push(from..from + DIGITS);
        }
    }
    found
}

/// Whether the new text holds the same documents, but for the hash of one.
fn is_edit_of(before: &[Document], at: usize, after: &str, file: &str, hash: ContentHash) -> bool {
    let Ok(texts) = document::contents(file, after.as_bytes()) else { return false };
    let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).ok();
    before.len() == texts.len()
        && before.iter().zip(&texts).enumerate().all(|(index, (old, new))| {
            let (Some(mut old), Some(mut new)) = (parse(&old.json), parse(new)) else { return false };
            if index == at {
                let is_new = new["spec"][FIELD].as_str().and_then(|text| text.parse().ok()) == Some(hash);
                old["spec"][FIELD].take();
                new["spec"][FIELD].take();
                return is_new && old == new;
            }
            old == new
        })
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
    fn what_is_no_plain_hash_is_left_alone() {
        let text = format!(
            "apiVersion: terrafusion.ai/v1\nkind: DriftGuard\nmetadata: {{name: a}}\nspec:\n  targetKind: ConfigMap\n  targetName: a\n  expectedHash: >-\n    {OTHER}\n"
        );
        let error = edited(&text, "a").unwrap_err().to_string();
        assert!(error.contains("edit it by hand"), "{error}");
        let error = edited(&text, "b").unwrap_err().to_string();
        assert!(error.contains("holds DriftGuard n/b 0 times"), "{error}");
    }
}
