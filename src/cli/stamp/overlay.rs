//! The files that are stamped. What kustomize reads itself is no target: patches look like objects and are parts of
//! some. What kustomize makes of them is stamped in the stream that it prints.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use super::{Input, Manifests};
use crate::cli::output;
use crate::document::{self, Document, Kustomization};

/// Which objects a patch of kustomize changes; `None` stands for any.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Patch {
    /// The kustomization that names it.
    pub(super) by: PathBuf,
    kind: Option<String>,
    name: Option<String>,
}

impl Patch {
    /// Whether it may change an object.
    pub(super) fn meets(&self, object: &Document) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|one| one == value);
        is(&self.kind, &object.kind) && is(&self.name, &object.name)
    }
}

/// Reads files, and those of folders. Of a folder, what is no YAML is passed over, such as templates of charts; it is
/// an error when `strict`. Of files that kustomize reads itself, those that were named outright are told: whoever names
/// one expects something of it.
///
/// # Errors
/// When a file cannot be read.
pub(super) fn files(names: &[PathBuf], strict: bool) -> anyhow::Result<Manifests> {
    let mut manifests = Manifests::default();
    let (mut files, mut seen) = (Vec::new(), HashSet::new());
    let (mut kustomizations, mut parts) = (HashSet::new(), HashMap::new());
    let named: HashSet<PathBuf> = names.iter().map(|name| real(name)).collect();
    for name in names {
        let found = document::find(name)?;
        files.extend(found.files.into_iter().filter(|path| seen.insert(real(path))));
        for path in found.kustomizations {
            if !kustomizations.insert(real(&path)) {
                continue;
            }
            match Kustomization::read(&path) {
                Ok(kustomization) => {
                    parts.extend(kustomization.parts().into_iter().map(|part| (part, path.clone())));
                    manifests.patches.extend(patches(&kustomization));
                }
                Err(error) if strict => return Err(error.into()),
                Err(error) => manifests.pass_over(path, &error.into()),
            }
        }
    }
    for path in files {
        let shown = path.display().to_string();
        let is_named = named.contains(&real(&path));
        if let Some(by) = parts.get(&real(&path)) {
            if is_named {
                output::message(&format!(
                    "note: passed over: {shown}: {} takes it as a part of objects, such as a patch",
                    by.display()
                ));
            }
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("{shown} cannot be read"))?;
        match Input::read(&shown, Some(path.clone()), bytes) {
            Ok(input) => manifests.inputs.push(input),
            Err(error) if strict || is_named => return Err(error),
            Err(error) => manifests.pass_over(path, &error),
        }
    }
    Ok(manifests)
}

impl Manifests {
    fn pass_over(&mut self, path: PathBuf, error: &anyhow::Error) {
        output::message(&format!("note: passed over: {error}"));
        self.passed_over.push(path);
    }
}

fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// What the patches of a kustomization change.
fn patches(kustomization: &Kustomization) -> Vec<Patch> {
    let value = &kustomization.value;
    let list = |key: &str| value[key].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let patch = |kind, name| Patch { by: kustomization.path.clone(), kind, name };
    let mut found = Vec::new();
    for given in list("patches").chain(list("patchesJson6902")) {
        let target = &given["target"];
        if target.is_object() {
            // Names of targets are regular expressions.
            let is_plain = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            found.push(patch(text(&target["kind"]), text(&target["name"]).filter(is_plain)));
            continue;
        }
        let inline = text(&given["patch"]);
        let at = given["path"].as_str().and_then(|path| kustomization.file(path));
        let content = inline.or_else(|| fs::read_to_string(at?).ok());
        found.extend(content.iter().flat_map(|content| meant(content)).map(|(kind, name)| patch(kind, name)));
    }
    for given in list("patchesStrategicMerge").filter_map(Value::as_str) {
        let content = match kustomization.file(given) {
            Some(path) => fs::read_to_string(path).unwrap_or_default(),
            None => given.to_owned(),
        };
        found.extend(meant(&content).into_iter().map(|(kind, name)| patch(kind, name)));
    }
    found
}

/// Kind and name of the objects that a patch without a target holds parts of.
fn meant(patch: &str) -> Vec<(Option<String>, Option<String>)> {
    let objects = document::objects("", patch, |_, _| false).unwrap_or_default();
    objects.into_iter().map(|object| (Some(object.kind), Some(object.name))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn named(name: &str) -> String {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")
    }

    fn names(manifests: &Manifests) -> Vec<&str> {
        manifests.inputs.iter().flat_map(|input| &input.documents).map(|found| found.name.as_str()).collect()
    }

    #[test]
    fn patches_are_no_targets_and_templates_of_a_folder_are_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
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
        assert_eq!(names(&read), ["plain"]);
        assert_eq!(read.passed_over, [folder.path().join("chart.yaml")]);
        assert!(files(&[folder.path().to_owned()], true).is_err());
        assert!(files(&[folder.path().join("chart.yaml")], false).is_err(), "it was named outright");
    }

    #[test]
    fn a_patch_is_known_when_it_is_named_outright_and_by_a_kustomization_above() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("patches")).unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write(
            "Kustomization",
            "patches:\n- {path: patches/p.yaml}\n- {path: list.yaml, target: {kind: X}}\n",
        );
        write("patches/p.yaml", &named("p"));
        write("list.yaml", "- {op: remove, path: /data/x}\n");
        assert_eq!(names(&files(&[folder.path().join("patches/p.yaml")], true).unwrap()), [""; 0]);
        assert_eq!(names(&files(&[folder.path().join("patches")], true).unwrap()), [""; 0]);
        assert!(files(&[folder.path().to_owned()], true).is_ok(), "a patch of operations is no manifest");
    }

    #[test]
    fn it_is_known_which_objects_patches_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kustomization.yaml");
        fs::write(folder.path().join("p.yaml"), named("of-file")).unwrap();
        fs::write(
            &path,
            "patches:\n- path: p.yaml\n- {patch: 'x', target: {kind: Secret, name: db}}\n- {patch: x, target: {kind: Job, name: a.*}}\npatchesStrategicMerge:\n- |\n  apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: inline}\n",
        )
        .unwrap();
        let found = patches(&Kustomization::read(&path).unwrap());
        let found: Vec<_> = found.iter().map(|one| (one.kind.as_deref(), one.name.as_deref())).collect();
        let map = Some("ConfigMap");
        let want = [
            (map, Some("of-file")),
            (Some("Secret"), Some("db")),
            (Some("Job"), None),
            (map, Some("inline")),
        ];
        assert_eq!(found, want);
    }
}
