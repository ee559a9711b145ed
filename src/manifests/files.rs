//! The generated files of the repository: written by `make generate`, checked by a test.

use serde_json::Value;

use super::{ManifestError, Settings, monitoring, yaml};
use crate::core::report::Report;

/// The command that writes the files anew.
pub const REFRESH: &str = "make generate";

/// The kustomize base. Its webhook configurations are made by `serve`.
const BASE: &str = "\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- ../crds
- deployment.yaml
";

/// Files with one CRD each, in the order of [`super::crds`].
const CRDS: [&str; 3] = ["crds/driftguard.yaml", "crds/gamaconfig.yaml", "crds/driftguardexception.yaml"];

/// A component of the base, for those who let DriftGuard write targets.
const REMEDIATION: &str = "\
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources:
- remediation.yaml
";

/// A component of the base, for those who read reports of openreports.io.
const OPENREPORTS: &str = "\
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources:
- openreports.yaml
patches:
- target:
    kind: Deployment
    name: driftguard-operator
  patch: |-
    - op: add
      path: /spec/template/spec/containers/0/args/-
      value: --openreports
";

/// A component of the base, for those who run the Prometheus Operator and Grafana with its sidecar, which
/// reads ConfigMaps of this label.
const MONITORING: &str = "\
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
resources:
- prometheusrule.yaml
- podmonitor.yaml
configMapGenerator:
- name: driftguard-dashboard
  namespace: terrafusion-system
  files:
  - driftguard.json=dashboard.json
  options:
    disableNameSuffixHash: true
    labels:
      grafana_dashboard: \"1\"
";

/// Where the schema of reports is published.
const REPORT_SCHEMA: &str = "docs/reference/audit-report-v1.schema.json";

/// One generated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Path from the root of the repository.
    pub path: &'static str,
    /// What it must hold.
    pub content: String,
}

/// All generated files.
///
/// # Errors
/// [`ManifestError`] when one of them cannot be made.
pub fn all() -> Result<Vec<GeneratedFile>, ManifestError> {
    let settings = Settings::default();
    let crds = super::crds()?;
    let webhook = super::webhook()?;
    let mut files = Vec::new();
    for (path, manifest) in CRDS.into_iter().zip(&crds) {
        files.push(file(path, &manifest.yaml()?));
    }
    let paths = ["webhook-config/validating.yaml", "webhook-config/mutating.yaml"];
    for (path, manifest) in paths.into_iter().zip(&webhook) {
        files.push(file(path, &manifest.yaml()?));
    }
    files.push(file("deploy/deployment.yaml", &super::stream(&super::deployment(&settings)?)?));
    files.push(file("deploy/kustomization.yaml", BASE));
    files.push(file("crds/kustomization.yaml", &kustomization(CRDS)));
    files.push(file("deploy/remediation/kustomization.yaml", REMEDIATION));
    files.push(file("deploy/remediation/remediation.yaml", &super::stream(&super::remediation(&settings)?)?));
    files.push(file("deploy/openreports/kustomization.yaml", OPENREPORTS));
    files.push(file("deploy/openreports/openreports.yaml", &super::stream(&super::openreports(&settings)?)?));
    files.push(file("deploy/monitoring/kustomization.yaml", MONITORING));
    let document = |what: &str, value: &Value| yaml::document(what, value);
    let rules = document("prometheusrule", &monitoring::prometheus_rule(&settings))?;
    files.push(file("deploy/monitoring/prometheusrule.yaml", &rules));
    let scraped = document("podmonitor", &monitoring::pod_monitor(&settings))?;
    files.push(file("deploy/monitoring/podmonitor.yaml", &scraped));
    // JSON has no comments: that it is generated stands in the kustomization beside it.
    let dashboard = format!("{:#}\n", monitoring::dashboard());
    files.push(GeneratedFile { path: "deploy/monitoring/dashboard.json", content: dashboard });
    // It says so itself.
    files.push(GeneratedFile { path: REPORT_SCHEMA, content: format!("{:#}\n", report_schema()) });
    Ok(files)
}

/// The JSON Schema of what `driftguard audit -o json` writes.
fn report_schema() -> Value {
    let mut schema = schemars::schema_for!(Report);
    let comment = format!("Generated from the code by `{REFRESH}`; do not edit.");
    schema.insert("$comment".to_owned(), comment.into());
    schema.to_value()
}

/// A kustomization of files beside it.
fn kustomization<const N: usize>(paths: [&str; N]) -> String {
    let mut text =
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n".to_owned();
    for path in paths {
        let name = path.rsplit_once('/').map_or(path, |(_, name)| name);
        text.push_str(&format!("- {name}\n"));
    }
    text
}

fn file(path: &'static str, yaml: &str) -> GeneratedFile {
    let content = format!("# Generated from the code by `{REFRESH}`; do not edit.\n{yaml}");
    GeneratedFile { path, content }
}
