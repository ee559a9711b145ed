//! A DriftGuard of manifests, as far as stamping goes.

use std::fmt;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::Input;
use crate::core::paths::PathFilter;
use crate::document::Document;
use crate::store::convert;

/// A DriftGuard of the manifests.
pub(super) struct Guard {
    /// Which of the inputs holds it, which document of that, and where in the document.
    pub(super) input: usize,
    pub(super) number: usize,
    pub(super) pointer: String,
    line: usize,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) target_kind: String,
    pub(super) target_version: Option<String>,
    pub(super) target_namespace: String,
    /// Whether its manifest says the namespace of the target, or its own.
    pub(super) names_namespace: bool,
    pub(super) target_name: String,
    /// As it is written; empty when it is no text, such as unquoted zeros.
    pub(super) expected: String,
    pub(super) filter: PathFilter,
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
    pub(super) fn read(input: usize, document: &Document, namespace: &str) -> anyhow::Result<Self> {
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
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let target_namespace = given(spec.target_namespace);
        let names_namespace = target_namespace.is_some() || document.namespace.is_some();
        let namespace = document.namespace.clone().unwrap_or_else(|| namespace.to_owned());
        Ok(Self {
            input,
            number: document.origin.number,
            pointer: document.pointer.clone(),
            line: document.origin.line,
            target_namespace: target_namespace.unwrap_or_else(|| namespace.clone()),
            names_namespace,
            namespace,
            name: document.name.clone(),
            target_kind: spec.target_kind,
            target_version: given(spec.target_api_version),
            target_name: spec.target_name,
            expected: spec.expected_hash.as_str().unwrap_or_default().to_owned(),
            filter,
        })
    }

    /// Where it stands, for messages.
    pub(super) fn place(&self, inputs: &[Input]) -> String {
        format!("{}:{}", inputs[self.input].name, self.line)
    }
}
