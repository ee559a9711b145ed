//! The manifest of a guard: nothing but what was asked for, since defaults say themselves.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use super::Approved;
use crate::api::names;
use crate::manifests::yaml;

/// Longest name of an object.
const MAX_NAME: usize = 253;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Format {
    Yaml,
    Json,
}

/// The values of `spec.enforcement`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[value(rename_all = "PascalCase")]
pub(in crate::cli) enum Mode {
    /// Refuse it
    Deny,
    /// Put the approved content back where that is safe, refuse otherwise
    Rewrite,
    /// Let it pass with a warning
    Warn,
    /// Let it pass and record it
    Audit,
}

/// `NAME-guard`; objects of one name in one namespace get their kind put in.
pub(in crate::cli) fn guard_names(approved: &[Approved]) -> Vec<String> {
    let plain = |one: &Approved| (one.subject.namespace.clone(), guard_name(&one.subject.name, "guard"));
    let mut counts = HashMap::new();
    for one in approved {
        *counts.entry(plain(one)).or_insert(0) += 1;
    }
    let named = |one: &Approved| match counts.get(&plain(one)) {
        Some(1) => plain(one).1,
        _ => guard_name(&one.subject.name, &format!("{}-guard", one.subject.kind.to_ascii_lowercase())),
    };
    approved.iter().map(named).collect()
}

/// A valid name made of an object's, which may hold more characters (`system:node`).
pub(super) fn guard_name(name: &str, suffix: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c.to_ascii_lowercase() } else { '-' };
    let safe: String = name.chars().map(safe).take(MAX_NAME - suffix.len() - 1).collect();
    let safe = safe.trim_matches(['-', '.']);
    if safe.is_empty() { suffix.to_owned() } else { format!("{safe}-{suffix}") }
}

/// A DriftGuard with nothing but what was asked for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Manifest {
    api_version: String,
    kind: &'static str,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Serialize)]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    target_kind: String,
    target_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_api_version: Option<String>,
    expected_hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    enforcement: Option<Mode>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    auto_remediate: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ignore_paths: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    only_paths: Vec<String>,
}

/// What a guard is to be like, beside what it pins.
#[derive(Default)]
pub(in crate::cli) struct Wishes<'a> {
    /// Its namespace; the object's unless given.
    pub(in crate::cli) namespace: Option<&'a str>,
    /// The namespace of a guard of a cluster-scoped object, where none is given; that of the product otherwise.
    pub(in crate::cli) fallback: Option<&'a str>,
    pub(in crate::cli) enforcement: Option<Mode>,
    pub(in crate::cli) auto_remediate: bool,
    pub(in crate::cli) ignore_paths: &'a [String],
    pub(in crate::cli) only_paths: &'a [String],
    pub(in crate::cli) contact: Option<&'a str>,
    pub(in crate::cli) runbook: Option<&'a str>,
}

/// Several manifests in one JSON text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    api_version: &'static str,
    kind: &'static str,
    items: &'a [Manifest],
}

impl Manifest {
    /// The guard of one object.
    pub(in crate::cli) fn new(approved: &Approved, name: String, wishes: &Wishes<'_>) -> Self {
        let Approved { subject, hash, api_version } = approved;
        let default_namespace =
            subject.namespace.as_deref().unwrap_or_else(|| wishes.fallback.unwrap_or(names::NAMESPACE));
        let namespace = wishes.namespace.unwrap_or(default_namespace).to_owned();
        let annotations =
            [(names::ANNOTATION_CONTACT, wishes.contact), (names::ANNOTATION_RUNBOOK, wishes.runbook)];
        Self {
            api_version: format!("{}/{}", names::GROUP, names::VERSION),
            kind: "DriftGuard",
            spec: Spec {
                target_kind: subject.kind.clone(),
                target_name: subject.name.clone(),
                target_namespace: subject.namespace.clone().filter(|own| *own != namespace),
                target_api_version: api_version.clone(),
                expected_hash: hash.to_string(),
                enforcement: wishes.enforcement,
                auto_remediate: wishes.auto_remediate,
                ignore_paths: wishes.ignore_paths.to_vec(),
                only_paths: wishes.only_paths.to_vec(),
            },
            metadata: Metadata {
                name,
                namespace,
                annotations: annotations
                    .into_iter()
                    .filter_map(|(key, value)| value.map(|value| (key, value.to_owned())))
                    .collect(),
            },
        }
    }
}

/// The guards as one text.
pub(super) fn render(manifests: &[Manifest], format: Format) -> anyhow::Result<String> {
    if format == Format::Yaml {
        let documents = manifests
            .iter()
            .map(|manifest| yaml::document("the guard", manifest))
            .collect::<Result<Vec<_>, _>>()?;
        return Ok(documents.join("---\n"));
    }
    let text = match manifests {
        [only] => serde_json::to_string_pretty(only)?,
        many => serde_json::to_string_pretty(&List { api_version: "v1", kind: "List", items: many })?,
    };
    Ok(text + "\n")
}
