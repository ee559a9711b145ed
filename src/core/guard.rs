//! A guard as the decision sees it: parsed, resolved, impossible to misread.
//!
//! The API type is turned into this once, where it is watched. What cannot be turned is not
//! dropped but kept as [`GuardState::Invalid`], because a skipped guard is a hole.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use super::few::Few;
use super::hash::ContentHash;
use super::pause::{self, Pause};
use super::scope::Scope;
use super::text::Text;

/// Namespace and name of a `DriftGuard`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GuardId {
    /// Namespace of the guard itself, not of its target.
    pub namespace: Text,
    /// Name of the guard.
    pub name: Text,
}

impl fmt::Display for GuardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The object that a guard pins, in the one version that is hashed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// API group, empty for core.
    pub group: Text,
    /// The version in which the object is hashed: `targetApiVersion` or discovery's preferred one.
    pub version: Text,
    /// Kind as discovery spells it.
    pub kind: Text,
    /// Plural resource name as it stands in URLs and webhook rules.
    pub resource: Text,
    /// Namespace; `None` for a cluster-scoped kind.
    pub namespace: Option<Text>,
    /// Object name.
    pub name: Text,
}

impl Target {
    /// `group/version`, or `version` alone for core.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.as_str().to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// Where an API server has it: the path of its URL.
    #[must_use]
    pub fn url_path(&self) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let place = self.namespace.as_deref().map(|name| format!("/namespaces/{}", url_segment(name)));
        let (place, name) = (place.unwrap_or_default(), url_segment(&self.name));
        format!("{root}/{}{place}/{}/{name}", self.api_version(), self.resource)
    }
}

/// A name as one segment of a URL's path: those of RBAC objects may hold anything but `/` and `%`.
#[must_use]
pub fn url_segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

impl fmt::Display for Target {
    /// `Kind/namespace/name`, or `Kind/name` for cluster-scoped kinds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{}/{}", self.kind, namespace, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

/// What admission does with a write that is not approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Enforcement {
    /// Refuse it.
    Deny,
    /// Put the approved content back where that is safe, refuse otherwise.
    Rewrite,
    /// Let it through with a warning, and record it.
    Warn,
    /// Let it through and record it.
    Audit,
}

impl Enforcement {
    /// As the API spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "Deny",
            Self::Rewrite => "Rewrite",
            Self::Warn => "Warn",
            Self::Audit => "Audit",
        }
    }

    /// Whether a guard of this enforcement may stop a write.
    #[must_use]
    pub fn blocks(self) -> bool {
        matches!(self, Self::Deny | Self::Rewrite)
    }
}

/// What the API server does while DriftGuard cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailurePolicy {
    /// Refuse the write.
    Fail,
    /// Let the write through; the gap is audited.
    Ignore,
}

/// Whether the target may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeletionPolicy {
    /// Deletion passes, with a warning, and counts as drift.
    Allow,
    /// Deletion is refused.
    Deny,
}

/// The tool that owns a guard's manifest: a command would be undone by it, so the next step is in Git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ManagedBy {
    /// Argo CD.
    ArgoCd,
    /// Flux (kustomize-controller or helm-controller).
    Flux,
    /// Helm.
    Helm,
}

impl ManagedBy {
    /// The name people know the tool by.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ArgoCd => "Argo CD",
            Self::Flux => "Flux",
            Self::Helm => "Helm",
        }
    }
}

/// A further hash that passes admission and is no drift.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlsoApproved {
    /// The hash.
    pub hash: ContentHash,
    /// When it stops being approved; `None` for never.
    pub until: Option<Timestamp>,
    /// Why it was approved.
    pub reason: Option<String>,
}

/// Who approved what a guard says, as its signed annotation tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Authorship {
    /// The signature is valid for exactly this guard and spec.
    Signed(Arc<Author>),
    /// There is no valid signature: the guard is enforced as it stands, but nothing is fetched or
    /// written for it across objects until somebody adopts it.
    Unknown,
}

/// The author of a guard: whoever made it, or changed its spec last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Who it is. Few people approve many guards, so that guards share it.
    pub signer: Arc<Signer>,
    /// When the spec was signed.
    pub at: Timestamp,
}

/// Who signs, as the API server authenticated them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signer {
    /// User name.
    pub user: String,
    /// Groups, in the order in which the API server sent them.
    pub groups: Vec<String>,
}

/// What is served of the target's resource beside the version that is hashed, as far as writes through
/// it do not come by the rules of that one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// Whether the hashed version itself is served no longer: the API server then knows no other
    /// version as an equivalent of it, and calls nobody for writes through them.
    pub is_gone: bool,
    /// Other versions: all when the hashed one is gone, else those with the subresource `scale`.
    pub others: Few<OtherVersion>,
}

/// One other version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherVersion {
    /// API version, without the group.
    pub version: Text,
    /// Where its count stands, as keys from the object's root; `None` without the subresource `scale`.
    pub replicas_path: Option<Arc<[String]>>,
}

/// What a Scale through one version writes of what a guard pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count<'a> {
    /// Nothing.
    Free,
    /// The count under these keys of the hashed version.
    At(&'a [String]),
    /// A count of which the hashed version does not tell where it stands.
    Elsewhere,
}

/// A valid guard with its target resolved and its paths compiled.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Which guard.
    pub id: GuardId,
    /// `metadata.uid` of the guard.
    pub uid: Text,
    /// `metadata.generation` of the guard.
    pub generation: i64,
    /// What it pins.
    pub target: Target,
    /// Which part of the target is pinned, compiled once.
    pub scope: Scope,
    /// The approved hash.
    pub expected: ContentHash,
    /// Further approved hashes.
    pub also_approved: Few<AlsoApproved>,
    /// Hashes as which the API server now reads the expected content, by our own signature.
    pub equivalents: Few<ContentHash>,
    /// Effective enforcement: the spec's, or the default of this installation.
    pub enforcement: Enforcement,
    /// Effective failure policy.
    pub failure_policy: FailurePolicy,
    /// What deletion of the target means.
    pub deletion_policy: DeletionPolicy,
    /// Why writes may pass for a while: `spec.suspend`, and exceptions that name this guard.
    pub pauses: Few<Pause>,
    /// Who approved what the guard says.
    pub authorship: Authorship,
    /// Where the count stands that the `scale` subresource of the target changes, as keys from the
    /// object's root; `None` when the kind has no such subresource or the count is not pinned.
    pub replicas_path: Option<Arc<[String]>>,
    /// Versions beside the target's in which writes to it may come.
    pub versions: Versions,
    /// The tool that manages the guard, if one is recognised.
    pub managed_by: Option<ManagedBy>,
    /// Annotation `driftguard.terrafusion.ai/contact`.
    pub contact: Option<Text>,
    /// Annotation `driftguard.terrafusion.ai/runbook`.
    pub runbook: Option<Text>,
}

impl Guard {
    /// The pause in force at `now` that lasts longest; `None` when the guard is enforced.
    #[must_use]
    pub fn paused(&self, now: Timestamp) -> Option<&Pause> {
        pause::in_force(&self.pauses, now)
    }

    /// The versions by which writes of the whole target must be matched.
    pub(crate) fn written_in(&self) -> impl Iterator<Item = &str> {
        let others = if self.versions.is_gone { &*self.versions.others } else { &[] };
        let others = others.iter().map(|other| other.version.as_str());
        std::iter::once(self.target.version.as_str()).chain(others)
    }

    /// The version by which writes of the target's count must be matched, if that is pinned. One is
    /// enough: what is written through another version with the subresource comes as its equivalent.
    pub(crate) fn scaled_in(&self) -> Option<&str> {
        if self.replicas_path.is_some() {
            return Some(&self.target.version);
        }
        let pins = |path: &Arc<[String]>| self.pins(path);
        let others = &mut self.versions.others.iter();
        others
            .find(|other| other.replicas_path.as_ref().is_some_and(pins))
            .map(|other| other.version.as_str())
    }

    /// What a Scale through `version` writes of what is pinned.
    pub(crate) fn count_in(&self, version: &str) -> Count<'_> {
        let own = self.replicas_path.as_deref();
        if version == self.target.version {
            return own.map_or(Count::Free, Count::At);
        }
        let other = self.versions.others.iter().find(|other| other.version == version);
        match (own, other.and_then(|other| other.replicas_path.as_deref())) {
            (Some(own), Some(path)) if own == path => Count::At(own),
            (None, Some(path)) if !self.pins(path) => Count::Free,
            // Of a version that discovery has not told of yet nothing is known.
            _ if self.scaled_in().is_some() => Count::Elsewhere,
            _ => Count::Free,
        }
    }

    fn pins(&self, path: &[String]) -> bool {
        self.scope.covers(&path.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Whether `hash` is approved at `now`: the expected one, or an unexpired further one.
    ///
    /// An `until` is exclusive: at that very moment the approval has ended.
    #[must_use]
    pub fn approves(&self, hash: ContentHash, now: Timestamp) -> bool {
        hash == self.expected
            || self.equivalents.contains(&hash)
            || self
                .also_approved
                .iter()
                .any(|also| also.hash == hash && also.until.is_none_or(|until| now < until))
    }
}

/// A guard as it stands in the cluster, usable or not.
#[derive(Debug, Clone)]
pub enum GuardState {
    /// It can be enforced.
    Valid(Arc<Guard>),
    /// It cannot be enforced as written.
    Invalid(Arc<InvalidGuard>),
}

/// A guard that cannot be enforced as written, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidGuard {
    /// Which guard.
    pub id: GuardId,
    /// `metadata.uid` of the guard.
    pub uid: Text,
    /// `metadata.generation` of the guard.
    pub generation: i64,
    /// What it would pin, where that much is known.
    pub target: Option<Target>,
    /// Why writes to the target may pass for a while, although nothing tells what is approved.
    pub pauses: Few<Pause>,
    /// Who approved what the guard says.
    pub authorship: Authorship,
    /// A stable word for conditions and metrics, such as `TargetAmbiguous`.
    pub reason: &'static str,
    /// One sentence: what is wrong and how to mend it.
    pub message: String,
}

impl GuardState {
    /// Which guard this is about.
    #[must_use]
    pub fn id(&self) -> &GuardId {
        match self {
            Self::Valid(guard) => &guard.id,
            Self::Invalid(invalid) => &invalid.id,
        }
    }

    /// `metadata.uid` of the guard.
    #[must_use]
    pub fn uid(&self) -> &Text {
        match self {
            Self::Valid(guard) => &guard.uid,
            Self::Invalid(invalid) => &invalid.uid,
        }
    }

    /// Whether this is the very state that `other` is, and not one that was made anew.
    #[must_use]
    pub(crate) fn is_identical(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Valid(one), Self::Valid(other)) => Arc::ptr_eq(one, other),
            (Self::Invalid(one), Self::Invalid(other)) => Arc::ptr_eq(one, other),
            (Self::Valid(_), Self::Invalid(_)) | (Self::Invalid(_), Self::Valid(_)) => false,
        }
    }

    /// `metadata.generation` of the guard.
    #[must_use]
    pub fn generation(&self) -> i64 {
        match self {
            Self::Valid(guard) => guard.generation,
            Self::Invalid(invalid) => invalid.generation,
        }
    }

    /// Who approved what the guard says.
    #[must_use]
    pub fn authorship(&self) -> &Authorship {
        match self {
            Self::Valid(guard) => &guard.authorship,
            Self::Invalid(invalid) => &invalid.authorship,
        }
    }

    /// Its author, as long as nobody else holds this state.
    pub fn author_mut(&mut self) -> Option<&mut Author> {
        let authorship = match self {
            Self::Valid(guard) => &mut Arc::get_mut(guard)?.authorship,
            Self::Invalid(invalid) => &mut Arc::get_mut(invalid)?.authorship,
        };
        match authorship {
            Authorship::Signed(author) => Arc::get_mut(author),
            Authorship::Unknown => None,
        }
    }

    /// Why writes to the target may pass for a while.
    #[must_use]
    pub fn pauses(&self) -> &[Pause] {
        match self {
            Self::Valid(guard) => &guard.pauses,
            Self::Invalid(invalid) => &invalid.pauses,
        }
    }

    /// The pause in force at `now` that lasts longest; `None` when the guard stands in the way of writes.
    #[must_use]
    pub fn paused(&self, now: Timestamp) -> Option<&Pause> {
        pause::in_force(self.pauses(), now)
    }

    /// Adds a pause. A guard that pins nothing lets every write pass as it is.
    pub fn pause(&mut self, pause: Pause) {
        match self {
            Self::Valid(guard) => Arc::make_mut(guard).pauses.push(pause),
            Self::Invalid(invalid) if invalid.target.is_some() => Arc::make_mut(invalid).pauses.push(pause),
            Self::Invalid(_) => {}
        }
    }

    /// What it pins, where that is known.
    #[must_use]
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Valid(guard) => Some(&guard.target),
            Self::Invalid(invalid) => invalid.target.as_ref(),
        }
    }
}
