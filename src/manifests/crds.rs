//! The CRDs, made from the API types and tidied for what the API server does with them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt as _;

use crate::api::{DriftGuard, DriftGuardException, GAMAConfig};

use super::labels;

/// The CRD of `DriftGuard`.
#[must_use]
pub fn driftguard() -> CustomResourceDefinition {
    tidied(DriftGuard::crd())
}

/// The CRD of `DriftGuardException`.
#[must_use]
pub fn exception() -> CustomResourceDefinition {
    tidied(DriftGuardException::crd())
}

/// The CRD of `GAMAConfig`.
#[must_use]
pub fn gamaconfig() -> CustomResourceDefinition {
    tidied(GAMAConfig::crd())
}

fn tidied(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.metadata.labels = Some(labels::common("api"));
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|validation| validation.open_api_v3_schema.as_mut());
        if let Some(schema) = schema {
            tidy(schema);
        }
    }
    crd
}

/// Mends what comes out of the derive, in this schema and all below it.
///
/// - Optional fields are `nullable: true`, which makes the API server store an explicit null.
///   Without it, null means absent: it is pruned, or replaced by the default.
/// - Descriptions keep the line breaks of the source; `kubectl explain` breaks lines itself.
fn tidy(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.title = None;
    schema.description = schema.description.take().map(|text| flowing(&text));
    for property in schema.properties.iter_mut().flat_map(|all| all.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

/// Joins the lines of each paragraph.
fn flowing(text: &str) -> String {
    let paragraphs: Vec<String> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
    paragraphs.join("\n\n")
}
