//! The files that are stamped. Patches of kustomize look like objects and are parts of some, so that they are no
//! targets; what kustomize makes of them is stamped in the stream that it prints.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use super::Input;
use crate::cli::output;
use crate::document;

/// Names of the files that say what kustomize does, of those that have our extensions.
const KUSTOMIZATIONS: [&str; 2] = ["kustomization.yaml", "kustomization.yml"];

/// Reads files, and those of folders. Of a folder, what is no YAML is passed over, such as templates of charts; it is
/// an error when `strict`.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn files(names: &[PathBuf], strict: bool) -> anyhow::Result<Vec<Input>> {
    let mut inputs = Vec::new();
    let mut seen = HashSet::new();
    let mut patches = HashSet::new();
    for name in names {
        for path in document::find(name)? {
            let shown = path.display().to_string();
            if !seen.insert(std::fs::canonicalize(&path).unwrap_or_else(|_| path.clone())) {
                continue;
            }
            let bytes = std::fs::read(&path).with_context(|| format!("{shown} cannot be read"))?;
            if path.file_name().is_some_and(|name| KUSTOMIZATIONS.iter().any(|known| name == *known)) {
                patches.extend(patches_of(&path, &bytes));
                continue;
            }
            let is_named = path == *name;
            match Input::read(&shown, Some(path), bytes) {
                Ok(input) => inputs.push(input),
                Err(error) if strict || is_named => return Err(error),
                Err(error) => output::message(&format!("note: passed over: {error}")),
            }
        }
    }
    for input in &mut inputs {
        let real = input.path.as_ref().and_then(|path| std::fs::canonicalize(path).ok());
        if real.is_some_and(|path| patches.contains(&path)) {
            input.documents.clear();
        }
    }
    Ok(inputs)
}

/// The files that a kustomization names as patches.
fn patches_of(path: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let read = || -> Option<Value> {
        serde_json::from_slice(&document::first(std::str::from_utf8(bytes).ok()?)?).ok()
    };
    let Some(kustomization) = read() else { return Vec::new() };
    let list = |key: &str| kustomization[key].as_array().cloned().unwrap_or_default();
    let named = list("patches")
        .into_iter()
        .map(|patch| patch["path"].clone())
        .chain(list("patchesStrategicMerge"))
        .chain(list("patchesJson6902").into_iter().map(|patch| patch["path"].clone()));
    let folder = path.parent().unwrap_or(Path::new(""));
    named.filter_map(|name| std::fs::canonicalize(folder.join(name.as_str()?)).ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn patches_are_no_targets_and_templates_of_a_folder_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let named = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
        write(
            "kustomization.yaml",
            "patches:\n- path: patch.yaml\n- patch: 'x: 1'\npatchesStrategicMerge: [old.yaml]\n",
        );
        write("patch.yaml", &named("patch"));
        write("old.yaml", &named("old"));
        write("plain.yaml", &named("plain"));
        write("chart.yaml", "{{- if .Values.x }}\na: b: c\n");
        write("values.yaml", "replicas: 1\n");
        let read = files(&[folder.path().to_owned(), folder.path().join("plain.yaml")], false).unwrap();
        let found: Vec<&str> =
            read.iter().flat_map(|input| &input.documents).map(|found| found.name.as_str()).collect();
        assert_eq!(found, ["plain"]);
        assert!(files(&[folder.path().to_owned()], true).is_err());
        assert!(files(&[folder.path().join("chart.yaml")], false).is_err(), "it was named outright");
    }
}
