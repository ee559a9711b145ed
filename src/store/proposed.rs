//! A guard that somebody wants to make: what it would come to, by the very conversion that stored
//! guards go through, and which rights its author needs.

use crate::api::{DriftGuardSpec, SourceKind, SourceRef, reasons};
use crate::core::author_access::{Access, Aim, Reads, SourceObject, needed};
use crate::core::guard::{GuardId, GuardState, InvalidGuard};
use crate::core::guard_spec::{SourceFields, source};

use super::convert::{check_fields, convert};
use super::{Store, Stored};

/// A guard under review.
#[derive(Debug, Clone)]
pub struct Proposed {
    /// As it would be enforced.
    pub state: GuardState,
    /// Its spec, where that can be read.
    pub spec: Option<DriftGuardSpec>,
}

impl Store {
    /// What a guard would come to; `None` while it is not known which kinds the API server serves.
    #[must_use]
    pub fn propose(&self, stored: &Stored) -> Option<Proposed> {
        let catalog = self.shared.catalog.borrow().clone()?;
        let key = self.shared.keys.borrow().clone();
        let state = convert(stored, &catalog, &self.shared.settings, key.as_ref());
        Some(Proposed { state, spec: serde_json::from_str(&stored.spec()).ok() })
    }
}

impl Proposed {
    /// Why no such guard may be made, whatever its author may do. A kind that is not served, or not by
    /// one group alone, is no reason: a guard may come before its CRD.
    #[must_use]
    pub fn objection(&self) -> Option<(&'static str, String)> {
        if let GuardState::Invalid(invalid) = &self.state
            && !is_unresolved(invalid)
        {
            return Some((invalid.reason, invalid.message.clone()));
        }
        if let GuardState::Valid(guard) = &self.state
            && !guard.scope.may_pin()
        {
            let message = format!(
                "spec.onlyPaths or spec.ignorePaths leave nothing of a {} to pin: name what a guard of that \
                 kind hashes, such as /data/KEY or /spec/FIELD",
                guard.target.kind
            );
            return Some((reasons::INVALID_SPEC, message));
        }
        // The rights that it takes are read from the spec: without it none would be asked for.
        let Some(spec) = &self.spec else {
            let why =
                "the spec cannot be read by this version; compare it with `kubectl explain driftguard.spec`";
            return Some((reasons::INVALID_SPEC, why.to_owned()));
        };
        let wrong = check_fields(spec).and_then(|()| {
            sources(spec).try_for_each(|(field, of)| {
                source(&SourceFields {
                    field: &field,
                    git: of.kind == SourceKind::Git,
                    service: of.kind == SourceKind::Service,
                    path: of.path.as_deref(),
                })
            })
        });
        wrong.err().map(|why| (reasons::INVALID_SPEC, why))
    }

    /// What stands in the way of enforcing it for now.
    #[must_use]
    pub fn unresolved(&self) -> Option<&InvalidGuard> {
        match &self.state {
            GuardState::Invalid(invalid) if is_unresolved(invalid) => Some(invalid),
            _ => None,
        }
    }

    /// The rights that the author needs: the one list for target, source and fallback sources.
    #[must_use]
    pub fn rights(&self) -> Vec<Access> {
        let Some(spec) = &self.spec else { return Vec::new() };
        rights(self.state.id(), &self.state, spec)
    }
}

/// The rights that the author of a guard needs.
#[must_use]
pub fn rights(id: &GuardId, state: &GuardState, spec: &DriftGuardSpec) -> Vec<Access> {
    let aim = match state.target() {
        Some(target) => Aim::Known(target.clone()),
        None => {
            let group = spec.target_api_version.as_deref().filter(|text| !text.is_empty());
            let group = group.map_or("*", |text| text.rsplit_once('/').map_or("", |(group, _)| group));
            Aim::Unknown { group: group.to_owned() }
        }
    };
    let objects: Vec<SourceObject> = sources(spec).map(|(_, of)| source_object(id, of)).collect();
    needed(&aim, spec.auto_remediate, &objects)
}

/// The object that a source of a guard is read from.
#[must_use]
pub fn source_object(id: &GuardId, of: &SourceRef) -> SourceObject {
    SourceObject {
        reads: match of.kind {
            SourceKind::Configmap => Reads::ConfigMap,
            SourceKind::Secret | SourceKind::Git => Reads::Secret,
            SourceKind::Service => Reads::Service,
        },
        namespace: of.namespace.clone().unwrap_or_else(|| id.namespace.as_str().to_owned()),
        name: of.name.clone(),
    }
}

fn is_unresolved(invalid: &InvalidGuard) -> bool {
    matches!(invalid.reason, reasons::TARGET_UNKNOWN | reasons::TARGET_AMBIGUOUS)
}

/// Every source with the field that names it.
fn sources(spec: &DriftGuardSpec) -> impl Iterator<Item = (String, &SourceRef)> {
    let first = spec.source_of_truth_ref.iter().map(|of| ("spec.sourceOfTruthRef".to_owned(), of));
    let further = spec.fallback_source_refs.iter().enumerate();
    first.chain(further.map(|(number, of)| (format!("spec.fallbackSourceRefs[{number}]"), of)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_spec_that_cannot_be_read_is_refused_even_while_its_kind_is_not_served() {
        let id = GuardId { namespace: "team".into(), name: "g".into() };
        let state = GuardState::Invalid(Arc::new(InvalidGuard {
            id,
            generation: 1,
            uid: "".into(),
            pauses: Default::default(),
            authorship: crate::core::guard::Authorship::Unknown,
            target: None,
            reason: reasons::TARGET_UNKNOWN,
            message: String::new(),
        }));
        let proposed = Proposed { state, spec: None };
        assert_eq!(proposed.objection().map(|(reason, _)| reason), Some(reasons::INVALID_SPEC));
    }
}
