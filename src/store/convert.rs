//! From a stored `DriftGuard` to a guard of the core: parsed once, here, and nowhere else.
//!
//! Pure: what discovery serves comes in as a catalog. A guard that cannot be used is not dropped: it
//! becomes [`GuardState::Invalid`] with a reason, and keeps its target wherever that is known and
//! the guard would block, so that what it pins cannot change until the guard is mended.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use crate::api::status::EnforceAfterClean;
use crate::api::{self, DriftGuardSpec, names, reasons};
use crate::core::audit::equivalent;
use crate::core::author::{self, Approved};
use crate::core::few::Few;
use crate::core::guard::{
    AlsoApproved, Authorship, DeletionPolicy, Enforcement, FailurePolicy, Guard, GuardState, InvalidGuard,
    ManagedBy, OtherVersion, Target, Versions,
};
use crate::core::hash::ContentHash;
use crate::core::kinds::{Catalog, KindEntry};
use crate::core::paths::PathFilter;
use crate::core::pause::{self, Pause, PausedBy};
use crate::core::promotion::{self, Promotion};
use crate::core::registration::KUBE_SYSTEM;
use crate::core::scope::Scope;
use crate::core::signature::SigningKey;
use crate::core::text::Text;

use super::refused::refusal;
use super::stored::Stored;

/// What conversion depends on besides the guard and discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Enforcement of guards that name none.
    pub default_enforcement: Enforcement,
    /// Namespace of this installation.
    pub own_namespace: String,
    /// How long a pause may last (`--max-exception`).
    pub longest_pause: SignedDuration,
}

/// Converts one guard.
#[must_use]
pub fn convert(
    stored: &Stored,
    catalog: &Catalog,
    settings: &Settings,
    key: Option<&SigningKey>,
) -> GuardState {
    convert_as(stored, None, catalog, settings, key)
}

/// [`convert`] of a guard whose kind means what was `found`, whatever the catalog says.
pub(super) fn convert_as(
    stored: &Stored,
    found: Option<&KindEntry>,
    catalog: &Catalog,
    settings: &Settings,
    key: Option<&SigningKey>,
) -> GuardState {
    let spec = stored.spec();
    let aim = serde_json::from_str(&spec);
    match (Conversion { stored, spec, found, catalog, settings, key, aim }).finish() {
        Ok(guard) => GuardState::Valid(Arc::new(guard)),
        Err(invalid) => GuardState::Invalid(invalid.into()),
    }
}

/// The fields that say what is pinned and whether writes are refused, read leniently.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Aim {
    target_kind: String,
    target_name: String,
    target_namespace: Option<String>,
    target_api_version: Option<String>,
    enforcement: Option<String>,
}

impl Aim {
    /// Whether the guard asks not to block.
    fn lets_pass(&self, default: Enforcement) -> bool {
        match self.enforcement.as_deref() {
            None => !default.blocks(),
            Some(word) => word == Enforcement::Warn.as_str() || word == Enforcement::Audit.as_str(),
        }
    }
}

/// The pause that a spec asks for, whatever else of it cannot be read.
#[derive(Deserialize)]
struct Asked {
    suspend: Option<api::Suspend>,
}

struct Conversion<'a> {
    stored: &'a Stored,
    spec: String,
    found: Option<&'a KindEntry>,
    catalog: &'a Catalog,
    settings: &'a Settings,
    key: Option<&'a SigningKey>,
    aim: Result<Aim, serde_json::Error>,
}

impl Conversion<'_> {
    fn finish(&self) -> Result<Guard, Box<InvalidGuard>> {
        let target = self.target()?;
        let held = |message: String| {
            let blocks = self.aim.as_ref().is_ok_and(|aim| !aim.lets_pass(self.settings.default_enforcement));
            self.invalid(reasons::INVALID_SPEC, message, blocks.then(|| target.clone()))
        };
        let spec: DriftGuardSpec =
            serde_json::from_str(&self.spec).map_err(|error| held(unreadable(&error)))?;
        let Approvals { expected, also_approved, filter } = Approvals::of(&spec).map_err(held)?;
        let scope = Scope::new(&target.group, &target.kind, filter);
        let (replicas_path, versions) = self.versions(&target);
        Ok(Guard {
            id: self.stored.id().clone(),
            uid: self.stored.uid().clone(),
            generation: self.stored.generation(),
            equivalents: Self::equivalents(self.stored, self.key, expected),
            expected,
            also_approved,
            enforcement: self.enforcement(&spec),
            failure_policy: failure_policy(&spec, &target),
            deletion_policy: match spec.deletion_policy {
                api::DeletionPolicy::Allow => DeletionPolicy::Allow,
                api::DeletionPolicy::Deny => DeletionPolicy::Deny,
            },
            pauses: self.suspension(spec.suspend.as_ref()).into_iter().collect(),
            authorship: self.authorship(),
            replicas_path: replicas_path.filter(|path| covers(&scope, path)),
            versions,
            managed_by: managed_by(self.stored),
            contact: annotation(self.stored, names::ANNOTATION_CONTACT),
            runbook: annotation(self.stored, names::ANNOTATION_RUNBOOK),
            target,
            scope,
        })
    }

    /// Who signed exactly this guard. Without a key nobody can be told from a forger.
    fn authorship(&self) -> Authorship {
        let id = self.stored.id();
        let approved = Approved { namespace: &id.namespace, name: &id.name, spec: self.spec.as_bytes() };
        self.key
            .zip(self.stored.author())
            .and_then(|(key, annotation)| author::verify(key, approved, &annotation))
            .map_or(Authorship::Unknown, |author| Authorship::Signed(Arc::new(author)))
    }

    /// What the spec or the installation says, unless the guard has become one of `Deny`.
    fn enforcement(&self, spec: &DriftGuardSpec) -> Enforcement {
        let given = spec.enforcement.map_or(self.settings.default_enforcement, enforcement);
        // While the key is not known, the stricter reading counts: a guard that denies must not let writes
        // pass until the Secret can be read.
        let is_promoted = || noted(self.stored, self.key).is_some_and(|noted| noted.promoted_at.is_some());
        let may_be = given == Enforcement::Audit && spec.enforce_after_clean.is_some();
        if may_be && is_promoted() { Enforcement::Deny } else { given }
    }

    /// The target.
    fn target(&self) -> Result<Target, Box<InvalidGuard>> {
        let aim = self
            .aim
            .as_ref()
            .map_err(|error| self.invalid(reasons::INVALID_SPEC, unreadable(error), None))?;
        let api_version = aim.target_api_version.as_deref().filter(|text| !text.is_empty());
        let resolve = || self.catalog.resolve(&aim.target_kind, api_version);
        // Without a version of its own, a guard goes by the one that is preferred now.
        let followed = |found| match api_version {
            Some(_) => found,
            None => self.catalog.preferred_of(found).unwrap_or(found),
        };
        let found = self
            .found
            .map_or_else(resolve, |found| Ok(followed(found)))
            .map_err(|error| self.invalid(error.reason(), error.to_string(), None))?;
        let id = self.stored.id();
        let given = aim.target_namespace.as_deref().filter(|text| !text.is_empty());
        // What is written twice is held once.
        let shared = |text: &str, known: &Text| if text == known { known.clone() } else { text.into() };
        let target = Target {
            group: found.group.clone(),
            version: found.version.clone(),
            kind: found.kind.clone(),
            resource: found.plural.clone(),
            namespace: found
                .namespaced
                .then(|| given.map_or_else(|| id.namespace.clone(), |text| shared(text, &id.namespace))),
            name: shared(&aim.target_name, &id.name),
        };
        if !is_object_name(&target.name) {
            let message = format!("no object can be named {:?}; mend spec.targetName", target.name);
            return Err(self.invalid(reasons::INVALID_SPEC, message, None));
        }
        match refusal(&target, &self.settings.own_namespace) {
            Some(why) => Err(self.invalid(
                reasons::TARGET_NOT_ALLOWED,
                format!("{why}; delete this guard or name another target"),
                None,
            )),
            None => Ok(target),
        }
    }

    /// Where the count stands in the version that is hashed, if it can be scaled, and what there is
    /// beside that version.
    fn versions(&self, target: &Target) -> (Option<Arc<[String]>>, Versions) {
        let served = || self.catalog.versions_of(&target.group, &target.resource);
        let path = |entry| self.catalog.replicas_path(entry).cloned();
        let own = served().find(|entry| entry.version == target.version);
        let is_gone = own.is_none();
        let others = served()
            .filter(|entry| entry.version != target.version)
            .map(|entry| OtherVersion { version: entry.version.clone(), replicas_path: path(entry) })
            .filter(|other| is_gone || other.replicas_path.is_some());
        (own.and_then(path), Versions { is_gone, others: others.collect() })
    }

    /// The hashes that DriftGuard noted as equivalents of the expected one, for exactly this spec of exactly this
    /// guard.
    #[must_use]
    fn equivalents(stored: &Stored, key: Option<&SigningKey>, expected: ContentHash) -> Few<ContentHash> {
        let Some(key) = key else { return Few::default() };
        let noted = stored.status().equivalents().iter().filter_map(|noted| {
            let hash = noted.hash.parse().ok()?;
            equivalent::verifies(key, stored.uid(), stored.generation(), expected, hash, &noted.signature)
                .then_some(hash)
        });
        noted.collect()
    }

    /// The pause that `spec.suspend` asks for: counted from when the spec was signed, and where nobody
    /// signed it from when the guard was made, so that it cannot be renewed without anybody's name.
    fn suspension(&self, suspend: Option<&api::Suspend>) -> Option<Pause> {
        let suspend = suspend?;
        let since = match self.authorship() {
            Authorship::Signed(author) => author.at,
            Authorship::Unknown => self.stored.created().unwrap_or(Timestamp::MIN),
        };
        Some(Pause {
            by: PausedBy::Suspend,
            reason: suspend.reason.clone(),
            until: pause::end(suspend.until.0, since, self.settings.longest_pause),
        })
    }

    fn invalid(&self, reason: &'static str, message: String, target: Option<Target>) -> Box<InvalidGuard> {
        // What pins nothing needs no way through.
        let asked = target.as_ref().and_then(|_| serde_json::from_str::<Asked>(&self.spec).ok());
        let suspend = asked.and_then(|asked| asked.suspend);
        Box::new(InvalidGuard {
            id: self.stored.id().clone(),
            uid: self.stored.uid().clone(),
            generation: self.stored.generation(),
            target,
            pauses: self.suspension(suspend.as_ref()).into_iter().collect(),
            authorship: self.authorship(),
            reason,
            message,
        })
    }
}

fn covers(scope: &Scope, path: &[String]) -> bool {
    scope.covers(&path.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What is noted about the promotion of a guard, where DriftGuard has written exactly that about exactly
/// this spec of exactly this guard. What goes furthest counts: neither who erases a status nor who puts
/// an older one there takes anything back.
#[must_use]
pub fn promotion(stored: &Stored, key: &SigningKey) -> Option<Promotion> {
    noted(stored, Some(key)).map(|noted| read(&noted))
}

/// What [`promotion`] reads, as it was written. Without a key whatever says most is taken.
#[must_use]
pub(super) fn noted(stored: &Stored, key: Option<&SigningKey>) -> Option<EnforceAfterClean> {
    let is_ours = |noted: &EnforceAfterClean| {
        key.is_none_or(|key| {
            promotion::verifies(key, stored.uid(), stored.generation(), &read(noted), &noted.signature)
        })
    };
    let furthest = |noted: &EnforceAfterClean| (noted.promoted_at.is_some(), noted.clean_since.0);
    stored.noted().filter(|noted| is_ours(noted)).max_by_key(|noted| furthest(noted)).cloned()
}

fn read(noted: &EnforceAfterClean) -> Promotion {
    Promotion { clean_since: noted.clean_since.0, promoted_at: noted.promoted_at.as_ref().map(|at| at.0) }
}

/// The API server's rule for a segment of a path, which every object's name is.
fn is_object_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '%'])
}

fn unreadable(error: &serde_json::Error) -> String {
    format!("the spec cannot be read: {error}; compare it with `kubectl explain driftguard.spec`")
}

fn hash(field: &str, text: &str) -> Result<ContentHash, String> {
    text.parse().map_err(|error| format!("{field} is {error}"))
}

/// What a spec approves, whatever its target is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approvals {
    /// `expectedHash`.
    pub expected: ContentHash,
    /// `alsoApproved`.
    pub also_approved: Few<AlsoApproved>,
    /// `ignorePaths` or `onlyPaths`.
    pub filter: PathFilter,
}

impl Approvals {
    /// Reads them.
    ///
    /// # Errors
    /// In words that name the field, when one of them cannot be used.
    pub fn of(spec: &DriftGuardSpec) -> Result<Self, String> {
        Ok(Self {
            expected: hash("spec.expectedHash", &spec.expected_hash)?,
            also_approved: also_approved(spec)?,
            filter: filter(&spec.ignore_paths, &spec.only_paths)?,
        })
    }

    /// Whether content of this hash is approved at `now`.
    #[must_use]
    pub fn approve(&self, hash: ContentHash, now: Timestamp) -> bool {
        let is_also = |also: &AlsoApproved| also.hash == hash && also.until.is_none_or(|until| now < until);
        hash == self.expected || self.also_approved.iter().any(is_also)
    }
}

fn also_approved(spec: &DriftGuardSpec) -> Result<Few<AlsoApproved>, String> {
    spec.also_approved
        .iter()
        .enumerate()
        .map(|(position, also)| {
            Ok(AlsoApproved {
                hash: hash(&format!("spec.alsoApproved[{position}].hash"), &also.hash)?,
                until: also.until.as_ref().map(|until| until.0),
                reason: also.reason.clone(),
            })
        })
        .collect()
}

/// The filter of `ignorePaths` and `onlyPaths`.
///
/// # Errors
/// In words that name the field.
pub fn filter(ignored: &[String], only: &[String]) -> Result<PathFilter, String> {
    match (ignored.is_empty(), only.is_empty()) {
        (true, true) => Ok(PathFilter::everything()),
        (false, true) => PathFilter::ignoring(ignored).map_err(|error| format!("spec.ignorePaths: {error}")),
        (true, false) => PathFilter::only(only).map_err(|error| format!("spec.onlyPaths: {error}")),
        (false, false) => {
            Err("spec.ignorePaths and spec.onlyPaths exclude each other: keep one of them".to_owned())
        }
    }
}

/// What is wrong with fields that mean the same whatever the target is; for guards whose kind is not
/// known yet.
pub(super) fn check_fields(spec: &DriftGuardSpec) -> Result<(), String> {
    Approvals::of(spec).map(drop)
}

fn enforcement(given: api::Enforcement) -> Enforcement {
    match given {
        api::Enforcement::Deny => Enforcement::Deny,
        api::Enforcement::Rewrite => Enforcement::Rewrite,
        api::Enforcement::Warn => Enforcement::Warn,
        api::Enforcement::Audit => Enforcement::Audit,
    }
}

fn failure_policy(spec: &DriftGuardSpec, target: &Target) -> FailurePolicy {
    match spec.failure_policy {
        Some(api::FailurePolicy::Fail) => FailurePolicy::Fail,
        Some(api::FailurePolicy::Ignore) => FailurePolicy::Ignore,
        // Components there must come up before DriftGuard can.
        None if target.namespace.as_deref() == Some(KUBE_SYSTEM) => FailurePolicy::Ignore,
        None => FailurePolicy::Fail,
    }
}

/// Which tool applies the guard, by the marks that the tools leave. Argo CD and Flux go first: what
/// they render from a chart bears Helm's label as well.
#[must_use]
pub fn managed_by(stored: &Stored) -> Option<ManagedBy> {
    let argo = stored.annotation("argocd.argoproj.io/tracking-id").is_some()
        || stored.label("argocd.argoproj.io/instance").is_some();
    let flux = stored.label("kustomize.toolkit.fluxcd.io/name").is_some()
        || stored.label("helm.toolkit.fluxcd.io/name").is_some();
    let helm = stored.label(names::LABEL_MANAGED_BY) == Some("Helm")
        || stored.annotation("meta.helm.sh/release-name").is_some();
    if argo {
        Some(ManagedBy::ArgoCd)
    } else if flux {
        Some(ManagedBy::Flux)
    } else {
        helm.then_some(ManagedBy::Helm)
    }
}

fn annotation(stored: &Stored, key: &str) -> Option<Text> {
    stored.annotation(key).map(str::trim).filter(|text| !text.is_empty()).map(Text::from)
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
