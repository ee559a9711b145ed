//! Guards and objects of manifests, and which object a guard means.

use std::collections::HashMap;
use std::fmt;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::Input;
use crate::api::names;
use crate::cli::subject::builtin;
use crate::core::paths::PathFilter;
use crate::core::scope::ScopeKind;
use crate::document::Document;
use crate::store::convert;

/// Length and letters of the hash that kustomize adds to names: hexadecimal digits, of which some are spelt as
/// other letters so that no words come up (`sigs.k8s.io/kustomize/api/hasher`).
const SUFFIX_LENGTH: usize = 10;
const SUFFIX_LETTERS: &str = "2456789bcdfghkmt";

/// An object that a guard may mean.
pub(super) struct Object<'a> {
    pub(super) input: usize,
    pub(super) document: &'a Document,
    /// `None` for kinds without namespaces.
    pub(super) namespace: Option<String>,
}

/// A DriftGuard of the manifests.
pub(super) struct Guard {
    /// Which of the inputs holds it, which document of that, and where in the document.
    pub(super) input: usize,
    pub(super) number: usize,
    pub(super) pointer: String,
    line: usize,
    pub(super) namespace: String,
    pub(super) name: String,
    target_kind: String,
    target_version: Option<String>,
    target_namespace: String,
    pub(super) target_name: String,
    /// As it is written; empty when it is no text, such as unquoted zeros.
    pub(super) expected: String,
    pub(super) filter: PathFilter,
    pub(super) has_only_paths: bool,
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DriftGuard {}/{}", self.namespace, self.name)
    }
}

/// What of a spec counts here. The rest may be of a later version.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    target_kind: String,
    target_name: String,
    #[serde(default)]
    target_namespace: Option<String>,
    #[serde(default)]
    target_api_version: Option<String>,
    #[serde(default)]
    expected_hash: Value,
    #[serde(default)]
    ignore_paths: Option<Vec<String>>,
    #[serde(default)]
    only_paths: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct WithSpec {
    spec: Spec,
}

impl Guard {
    fn read(input: usize, document: &Document, namespace: &str) -> anyhow::Result<Self> {
        let place = || document.origin.to_string();
        let WithSpec { spec } = serde_json::from_slice(&document.json).with_context(|| {
            format!(
                "{}: this DriftGuard cannot be read; compare it with `kubectl explain driftguard.spec`",
                place()
            )
        })?;
        let ignored = spec.ignore_paths.unwrap_or_default();
        let only = spec.only_paths.unwrap_or_default();
        let filter = convert::filter(&ignored, &only).map_err(anyhow::Error::msg).with_context(place)?;
        let namespace = document.namespace.clone().unwrap_or_else(|| namespace.to_owned());
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        Ok(Self {
            input,
            number: document.origin.number,
            pointer: document.pointer.clone(),
            line: document.origin.line,
            target_namespace: given(spec.target_namespace).unwrap_or_else(|| namespace.clone()),
            namespace,
            name: document.name.clone(),
            target_kind: spec.target_kind,
            target_version: given(spec.target_api_version),
            target_name: spec.target_name,
            expected: spec.expected_hash.as_str().unwrap_or_default().to_owned(),
            filter,
            has_only_paths: !only.is_empty(),
        })
    }

    /// Where it stands, for messages.
    pub(super) fn place(&self, inputs: &[Input]) -> String {
        format!("{}:{}", inputs[self.input].name, self.line)
    }

    /// Whether its kind, version and namespace are this object's.
    fn fits(&self, object: &Object<'_>) -> bool {
        let document = object.document;
        let is_version = match &self.target_version {
            Some(version) => *version == document.api_version,
            // `ConfigMap` alone never means a custom resource of that name.
            None => {
                let kinds = ["", names::GROUP].map(|group| ScopeKind::of(group, &self.target_kind));
                kinds.iter().all(|kind| *kind == ScopeKind::Other)
                    || kinds.contains(&ScopeKind::of(document.group(), &document.kind))
                        && ScopeKind::of(document.group(), &document.kind) != ScopeKind::Other
            }
        };
        is_version
            && document.kind.eq_ignore_ascii_case(&self.target_kind)
            && object.namespace.as_ref().is_none_or(|namespace| *namespace == self.target_namespace)
    }
}

/// The object that a guard means.
pub(super) struct Aim<'a> {
    pub(super) object: &'a Object<'a>,
    /// Whether its name is the guard's target name with a hash behind it.
    pub(super) is_renamed: bool,
}

/// All manifests at once.
pub(super) struct Stream<'a> {
    inputs: &'a [Input],
    objects: Vec<Object<'a>>,
    guards: Vec<Guard>,
    /// Objects by name.
    named: HashMap<&'a str, Vec<usize>>,
    /// Objects by name without the hash that kustomize added.
    suffixed: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Stream<'a> {
    /// Sorts the documents of all inputs; `namespace` is that of objects that name none.
    ///
    /// # Errors
    /// When a guard cannot be read.
    pub(super) fn of(inputs: &'a [Input], namespace: &str) -> anyhow::Result<Self> {
        let mut stream = Self {
            inputs,
            objects: Vec::new(),
            guards: Vec::new(),
            named: HashMap::new(),
            suffixed: HashMap::new(),
        };
        for (input, text) in inputs.iter().enumerate() {
            for document in &text.documents {
                if document.group() == names::GROUP && document.kind == "DriftGuard" {
                    stream.guards.push(Guard::read(input, document, namespace)?);
                    continue;
                }
                let at = stream.objects.len();
                stream.named.entry(&document.name).or_default().push(at);
                if let Some(stem) = without_suffix(&document.name) {
                    stream.suffixed.entry(stem).or_default().push(at);
                }
                let is_namespaced = builtin::is_namespaced(document.group(), &document.kind);
                let own = || document.namespace.clone().unwrap_or_else(|| namespace.to_owned());
                let object = Object { input, document, namespace: is_namespaced.then(own) };
                stream.objects.push(object);
            }
        }
        Ok(stream)
    }

    pub(super) fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// Which object a guard means, or why that cannot be told.
    pub(super) fn aim(&self, guard: &Guard) -> Result<Aim<'_>, String> {
        let target = format!("{}/{}/{}", guard.target_kind, guard.target_namespace, guard.target_name);
        let fitting = |by: &HashMap<&str, Vec<usize>>| -> Vec<&Object<'_>> {
            let found = by.get(guard.target_name.as_str()).into_iter().flatten();
            found.map(|at| &self.objects[*at]).filter(|object| guard.fits(object)).collect()
        };
        let named = fitting(&self.named);
        if !named.is_empty() {
            let object = self.nearest(guard, &named).ok_or_else(|| {
                let places: Vec<String> =
                    named.iter().take(3).map(|object| object.document.origin.to_string()).collect();
                format!("there are {} objects {target}, equally near: {}", named.len(), places.join("; "))
            })?;
            return Ok(Aim { object, is_renamed: false });
        }
        let suffixed = fitting(&self.suffixed);
        match suffixed.as_slice() {
            [] => Err(format!("its target {target} is not among the manifests")),
            [object] => Ok(Aim { object, is_renamed: true }),
            several => Err(format!(
                "there is no {target}, but {} objects of that name with a hash behind it",
                several.len()
            )),
        }
    }

    /// Of several objects of the same name, as for several environments, the one in the guard's file, else in its
    /// folder, else anywhere; `None` when there are several as near.
    fn nearest<'o>(&self, guard: &Guard, found: &[&'o Object<'a>]) -> Option<&'o Object<'a>> {
        let folder = |input: usize| self.inputs[input].path.as_deref().and_then(|path| path.parent());
        let is_beside = |object: &Object<'_>| folder(object.input) == folder(guard.input);
        let nearness: [&dyn Fn(&Object<'_>) -> bool; 3] =
            [&|object| object.input == guard.input, &is_beside, &|_| true];
        let near = nearness.iter().map(|is_near| -> Vec<&'o Object<'a>> {
            found.iter().copied().filter(|object| is_near(object)).collect()
        });
        match near.into_iter().find(|near| !near.is_empty())?.as_slice() {
            [object] => Some(*object),
            _ => None,
        }
    }
}

/// A name without the hash that kustomize added; `None` when it does not end in one.
fn without_suffix(name: &str) -> Option<&str> {
    let (stem, suffix) = name.rsplit_once('-')?;
    let is_suffix =
        suffix.len() == SUFFIX_LENGTH && suffix.chars().all(|letter| SUFFIX_LETTERS.contains(letter));
    (is_suffix && !stem.is_empty()).then_some(stem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn input(path: &str, text: &str) -> Input {
        let path = std::path::PathBuf::from(path);
        Input::read(path.to_str().unwrap(), Some(path.clone()), text.into()).unwrap()
    }

    fn guard(name: &str, kind: &str) -> String {
        format!(
            "---\napiVersion: terrafusion.ai/v1\nkind: DriftGuard\nmetadata: {{name: g}}\nspec: {{targetKind: {kind}, targetName: {name}, expectedHash: ''}}\n"
        )
    }

    fn object(name: &str, kind: &str, namespace: &str) -> String {
        format!("---\napiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n")
    }

    /// File and name of what the first guard means.
    fn meant(inputs: &[Input]) -> Result<(String, String), String> {
        let stream = Stream::of(inputs, "ns").unwrap();
        let aim = stream.aim(&stream.guards()[0])?;
        Ok((aim.object.document.origin.file.clone(), aim.object.document.name.clone()))
    }

    #[test]
    fn a_hash_of_kustomize_behind_the_name_is_known_by_length_and_letters() {
        assert_eq!(without_suffix("settings-5h2k9f7g8h"), Some("settings"));
        assert_eq!(without_suffix("a-b-mmtbfcgdhk"), Some("a-b"));
        for other in
            ["settings", "settings-5h2k9f7g8", "settings-5h2k9f7g8a", "settings-5h2k9f7g83", "-5h2k9f7g8h"]
        {
            assert_eq!(without_suffix(other), None, "{other}");
        }
    }

    #[test]
    fn the_plain_name_wins_over_one_with_a_hash_behind_it() {
        let (plain, hashed) = (object("s", "ConfigMap", "ns"), object("s-5h2k9f7g8h", "ConfigMap", "ns"));
        let text = |parts: &[&str]| [input("f.yaml", &parts.concat())];
        let guard = guard("s", "configmap");
        assert_eq!(meant(&text(&[&guard, &hashed, &plain])).unwrap().1, "s");
        assert_eq!(meant(&text(&[&guard, &hashed])).unwrap().1, "s-5h2k9f7g8h");
        let other = object("s-mmtbfcgdhk", "ConfigMap", "ns");
        assert!(meant(&text(&[&guard, &hashed, &other])).unwrap_err().contains("2 objects of that name"));
    }

    #[test]
    fn other_kinds_namespaces_and_groups_are_other_objects() {
        let text = object("s", "Secret", "ns") + &object("s", "ConfigMap", "other");
        let custom = "---\napiVersion: x.io/v1\nkind: ConfigMap\nmetadata: {name: s, namespace: ns}\n";
        let inputs = [input("f.yaml", &(guard("s", "ConfigMap") + &text + custom))];
        assert_eq!(meant(&inputs).unwrap_err(), "its target ConfigMap/ns/s is not among the manifests");
    }

    #[test]
    fn of_several_environments_the_one_beside_the_guard_is_meant() {
        let settings = object("s", "ConfigMap", "ns");
        let guard = guard("s", "ConfigMap");
        let beside =
            [input("prod/g.yaml", &guard), input("dev/s.yaml", &settings), input("prod/s.yaml", &settings)];
        assert_eq!(meant(&beside).unwrap().0, "prod/s.yaml");
        let far = [input("g.yaml", &guard), input("dev/s.yaml", &settings), input("prod/s.yaml", &settings)];
        assert!(meant(&far).unwrap_err().contains("equally near: dev/s.yaml: document 1"));
    }
}
