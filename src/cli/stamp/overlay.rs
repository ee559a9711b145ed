//! The files that are stamped. What kustomize reads itself is no target: patches look like objects and are parts of
//! some. What kustomize makes of them is stamped in the stream that it prints.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Context as _;
use serde_json::Value;

use super::{Input, Manifests};
use crate::cli::output;
use crate::document::{self, Document, Kustomization};

/// Fields of a kustomization that may change whatever objects it takes in.
const CHANGING_ALL: [&str; 5] = ["transformers", "generators", "components", "namePrefix", "nameSuffix"];
/// Kinds whose replicas a kustomization counts.
/// <https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/replicas/>
const COUNTED: [&str; 4] = ["Deployment", "ReplicaSet", "ReplicationController", "StatefulSet"];
/// Kinds in whose templates a kustomization sets annotations.
const ANNOTATED: [&str; 7] =
    ["CronJob", "DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"];
/// Kinds whose selectors it sets with the labels, beside those that have templates.
const SELECTING: [&str; 3] = ["NetworkPolicy", "PodDisruptionBudget", "Service"];
/// Kinds whose content names the namespace of another object, which moves with the rest.
const NAMING_NAMESPACES: [&str; 6] = [
    "APIService",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "MutatingWebhookConfiguration",
    "RoleBinding",
    "ValidatingWebhookConfiguration",
];

/// Which objects a kustomization changes, by a patch or otherwise; `None` stands for any.
#[derive(Debug)]
pub(super) struct Patch {
    /// The kustomization that names it.
    pub(super) by: PathBuf,
    kind: Option<String>,
    name: Option<String>,
    /// The image that they run, without tag and digest.
    image: Option<String>,
    /// What stands in one of their texts.
    holding: Option<String>,
    /// The real paths of their files. Where a name is known it is not asked for: it may be a file's that is taken in by
    /// ways that are not seen here.
    among: Option<Rc<HashSet<PathBuf>>>,
}

impl Patch {
    /// Whether it may change an object of a file.
    pub(super) fn meets(&self, object: &Document, path: Option<&Path>) -> bool {
        let is = |wanted: &Option<String>, value: &str| wanted.as_deref().is_none_or(|one| one == value);
        is(&self.kind, &object.kind)
            && is(&self.name, &object.name)
            && self.image.as_deref().is_none_or(|image| runs(object, image))
            && self.holding.as_deref().is_none_or(|part| holds(object, part))
            && self.among.as_ref().zip(path).is_none_or(|(among, path)| among.contains(&real(path)))
    }
}

/// Whether an object names an image, of whatever tag or digest.
fn runs(object: &Document, image: &str) -> bool {
    let value: Value = serde_json::from_slice(&object.json).unwrap_or_default();
    let is_meant = |text: &str| {
        text.strip_prefix(image).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '@']))
    };
    let mut waiting = vec![&value];
    while let Some(value) = waiting.pop() {
        match value {
            Value::Object(members) if members.get("image").and_then(Value::as_str).is_some_and(is_meant) => {
                return true;
            }
            Value::Object(members) => waiting.extend(members.values()),
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    false
}

/// Whether a part stands in one of an object's texts.
fn holds(object: &Document, part: &str) -> bool {
    let value: Value = serde_json::from_slice(&object.json).unwrap_or_default();
    let mut waiting = vec![&value];
    while let Some(value) = waiting.pop() {
        match value {
            Value::String(text) if text.contains(part) => return true,
            Value::Object(members) => waiting.extend(members.values()),
            Value::Array(items) => waiting.extend(items),
            _ => {}
        }
    }
    false
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

/// What a kustomization changes.
fn patches(kustomization: &Kustomization) -> Vec<Patch> {
    let value = &kustomization.value;
    // A component changes what those take in that name it.
    let is_component = value["kind"] == "Component";
    let among = (!is_component).then(|| Rc::new(kustomization.objects()));
    let patch = |What { kind, name, image, holding }| {
        // Whoever takes in what declares a variable may use it too.
        let among = if name.is_none() && holding.is_none() { among.clone() } else { None };
        Patch { by: kustomization.path.clone(), kind, name, image, holding, among }
    };
    let what = [
        patched(kustomization),
        replaced(kustomization),
        generated(value),
        counted(value),
        labelled(value),
        moved(value),
        named_by_variables(value),
    ];
    what.into_iter().flatten().map(patch).collect()
}

/// The objects that are changed, by what is known of them; by default all.
#[derive(Default)]
struct What {
    kind: Option<String>,
    name: Option<String>,
    image: Option<String>,
    holding: Option<String>,
}

impl What {
    fn of_kind(kind: &str) -> Self {
        Self { kind: Some(kind.to_owned()), ..Self::default() }
    }
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[field].as_array().into_iter().flatten()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// What a selector means. Its values are regular expressions: what may stand for others is taken for any.
fn selected(selector: &Value) -> What {
    let is_plain = |text: &String| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let (kind, name) = (text(&selector["kind"]).filter(is_plain), text(&selector["name"]).filter(is_plain));
    What { kind, name, ..What::default() }
}

/// What the patches change.
fn patched(kustomization: &Kustomization) -> Vec<What> {
    let value = &kustomization.value;
    let mut found = Vec::new();
    for given in list(value, "patches").chain(list(value, "patchesJson6902")) {
        if given["target"].is_object() {
            found.push(selected(&given["target"]));
            continue;
        }
        let inline = text(&given["patch"]);
        let at = given["path"].as_str().and_then(|path| kustomization.file(path));
        let content = inline.or_else(|| fs::read_to_string(at?).ok());
        found.extend(content.iter().flat_map(|content| meant(content)));
    }
    for given in list(value, "patchesStrategicMerge").filter_map(Value::as_str) {
        let content = match kustomization.file(given) {
            Some(path) => fs::read_to_string(path).unwrap_or_default(),
            None => given.to_owned(),
        };
        found.extend(meant(&content));
    }
    found
}

/// What replacements change: one in the kustomization, or one or a list of them in a file.
fn replaced(kustomization: &Kustomization) -> Vec<What> {
    let mut found = Vec::new();
    for given in list(&kustomization.value, "replacements") {
        let Some(path) = given["path"].as_str() else {
            found.extend(list(given, "targets").map(|target| selected(&target["select"])));
            continue;
        };
        let content = kustomization.file(path).and_then(|path| fs::read_to_string(path).ok());
        match content.as_deref().and_then(replacements) {
            Some(ones) => found.extend(
                ones.iter().flat_map(|one| list(one, "targets")).map(|target| selected(&target["select"])),
            ),
            // What cannot be read may be of any.
            None => found.push(What::default()),
        }
    }
    found
}

/// The replacements of a file; `None` when it cannot be read.
fn replacements(content: &str) -> Option<Vec<Value>> {
    // Documents are mappings, so that a list is read as a member of one.
    let listed = format!("list:\n{}", content.trim_start().trim_start_matches("---"));
    let read = |text: &str| serde_json::from_slice::<Value>(document::values(text).first()?).ok();
    match read(content) {
        Some(one) => Some(vec![one]),
        None => read(&listed)?["list"].as_array().cloned(),
    }
}

/// What generators change: those that make nothing new, but merge into what there is, or replace it.
fn generated(value: &Value) -> Vec<What> {
    let of = |field, kind: &'static str| {
        let ours =
            list(value, field).filter(|one| one["behavior"] == "merge" || one["behavior"] == "replace");
        ours.map(move |one| What { name: text(&one["name"]), ..What::of_kind(kind) })
    };
    of("configMapGenerator", "ConfigMap").chain(of("secretGenerator", "Secret")).collect()
}

/// What images, replicas and all that changes any object change.
fn counted(value: &Value) -> Vec<What> {
    let mut found = Vec::new();
    // These say where images stand in other kinds.
    let is_known = list(value, "configurations").next().is_none();
    // Names of images are regular expressions too, but for their dots.
    let is_plain = |text: &String| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:".contains(c));
    let images = list(value, "images").map(|one| text(&one["name"]).filter(is_plain).filter(|_| is_known));
    found.extend(images.map(|image| What { image, ..What::default() }));
    for name in list(value, "replicas").map(|one| text(&one["name"])) {
        found.extend(COUNTED.map(|kind| What { name: name.clone(), ..What::of_kind(kind) }));
    }
    let is_given = |field: &str| match &value[field] {
        Value::Array(items) => !items.is_empty(),
        other => text(other).is_some(),
    };
    if CHANGING_ALL.iter().any(|field| is_given(field)) {
        found.push(What::default());
    }
    found
}

/// What labels and annotations change beside metadata, which no hash covers: templates, and with labels selectors.
fn labelled(value: &Value) -> Vec<What> {
    let is_given = |value: &Value| value.as_object().is_some_and(|pairs| !pairs.is_empty());
    let is_true = |one: &Value, field: &str| one[field] == true;
    let (labels, annotations) = (is_given(&value["commonLabels"]), is_given(&value["commonAnnotations"]));
    let mut found = Vec::new();
    if (labels || annotations)
        && ["configurations", "crds"].iter().any(|says| list(value, says).next().is_some())
    {
        // These say where they stand in other kinds.
        found.push(What::default());
    }
    let own: Vec<&Value> = list(value, "labels").filter(|one| is_given(&one["pairs"])).collect();
    if own.iter().any(|one| list(one, "fields").next().is_some()) {
        found.push(What::default());
    }
    let selects = labels || own.iter().any(|one| is_true(one, "includeSelectors"));
    if selects || annotations || own.iter().any(|one| is_true(one, "includeTemplates")) {
        found.extend(ANNOTATED.map(What::of_kind));
    }
    if selects {
        found.extend(SELECTING.map(What::of_kind));
    }
    found
}

/// What another namespace changes beside metadata.
fn moved(value: &Value) -> Vec<What> {
    match text(&value["namespace"]) {
        Some(_) if list(value, "configurations").next().is_some() => vec![What::default()],
        Some(_) => NAMING_NAMESPACES.map(What::of_kind).into(),
        None => Vec::new(),
    }
}

/// What variables change: whatever names them.
fn named_by_variables(value: &Value) -> Vec<What> {
    let names = list(value, "vars").filter_map(|one| text(&one["name"]));
    names.map(|name| What { holding: Some(format!("$({name})")), ..What::default() }).collect()
}

/// Kind and name of the objects that a patch without a target holds parts of.
fn meant(patch: &str) -> Vec<What> {
    let objects = document::objects("", patch, |_, _| false).unwrap_or_default();
    let named = |object: Document| What { name: Some(object.name), ..What::of_kind(&object.kind) };
    objects.into_iter().map(named).collect()
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
