//! What was read of a cluster, before anybody says what it means. Never a value of a Secret, nor a hash.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

use crate::api::RemediationResult;
use crate::control::proof::Answer;
use crate::core::guard::{Enforcement, GuardState};
use crate::manifests::targets::TargetKind;

/// What was read, or why it could not be.
pub(super) type Told<T> = Result<T, String>;

/// Why guards could not be read, and what mends that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) why: String,
    pub(super) mend: &'static str,
}

/// All of it.
pub(super) struct Facts {
    /// Now, by the clock of the API server where that is known.
    pub(super) now: Timestamp,
    /// Namespace of the installation.
    pub(super) namespace: String,
    pub(super) server: Server,
    /// Who asks, as the API server knows them.
    pub(super) caller: Told<String>,
    /// By how much our clock is ahead of the API server's.
    pub(super) ahead: Told<SignedDuration>,
    /// The CRDs of this version, each with what stands in the cluster.
    pub(super) definitions: Vec<(CustomResourceDefinition, Told<Option<CustomResourceDefinition>>)>,
    pub(super) workload: Told<Option<Workload>>,
    /// Leases by which replicas say that they live.
    pub(super) replicas: Told<Vec<Beat>>,
    /// The Lease of whoever leads.
    pub(super) leader: Told<Option<Beat>>,
    /// Names of Secrets, and whether they are there.
    pub(super) secrets: Vec<(&'static str, Told<bool>)>,
    /// Rights of its own that the operator lacks.
    pub(super) lacking: Told<Vec<String>>,
    /// Rights on what is guarded; nothing is guarded while guards cannot be read.
    pub(super) kinds: Told<Vec<KindRights>>,
    pub(super) validating: Told<Option<ValidatingWebhookConfiguration>>,
    pub(super) mutating: Told<Option<MutatingWebhookConfiguration>>,
    /// What guards without an enforcement of their own do here.
    pub(super) enforcement: Told<Enforcement>,
    pub(super) guards: Result<Vec<Guarded>, Unread>,
    pub(super) reach: Reach,
}

pub(super) struct Server {
    pub(super) address: String,
    pub(super) major: String,
    pub(super) minor: String,
    /// Such as `v1.37.0`.
    pub(super) version: String,
}

/// The Deployment of the operator.
#[derive(Debug, Clone, Default)]
pub(super) struct Workload {
    pub(super) wanted: i32,
    pub(super) ready: i32,
    pub(super) image: String,
    /// What the operator is started with.
    pub(super) arguments: Vec<String>,
    /// Why pods do not run, as the kubelet or the scheduler says, each once; none when pods may not be read.
    pub(super) trouble: Vec<String>,
}

impl Workload {
    /// The value of a flag, written as `--flag=value` or `--flag value`.
    pub(super) fn flag(&self, name: &str) -> Option<&str> {
        let mut words = self.arguments.iter();
        while let Some(word) = words.next() {
            match word.strip_prefix(name) {
                Some("") => return words.next().map(String::as_str),
                Some(rest) if rest.starts_with('=') => return rest.strip_prefix('='),
                _ => {}
            }
        }
        None
    }
}

/// A Lease.
#[derive(Debug, Clone)]
pub(super) struct Beat {
    /// Who holds it; empty when it was let go.
    pub(super) holder: String,
    /// When it was renewed, by the clock of whoever renewed it.
    pub(super) renewed: Option<Timestamp>,
}

/// What the operator lacks on one guarded kind.
#[derive(Debug, Clone)]
pub(super) struct KindRights {
    pub(super) kind: TargetKind,
    /// Namespaces with what it lacks there; `None` for a cluster-scoped kind.
    pub(super) lacking: Vec<(Option<String>, Vec<&'static str>)>,
    /// Namespaces of guards that ask for remediation, where it may not write.
    pub(super) unwritable: Vec<Option<String>>,
    /// How many further namespaces with guards were not asked about, since there are too many.
    pub(super) unasked: usize,
    /// In how many of those a guard asks for remediation.
    pub(super) unasked_writes: usize,
}

/// A guard.
#[derive(Debug, Clone)]
pub(super) struct Guarded {
    /// As a replica would judge by it.
    pub(super) state: GuardState,
    pub(super) conditions: Vec<Said>,
    /// Whether the status is about the spec as it stands.
    pub(super) is_seen: bool,
    /// Whether its spec says what becomes of unapproved writes.
    pub(super) names_enforcement: bool,
    pub(super) remediates: bool,
    pub(super) last_remediation: Option<RemediationResult>,
}

/// A condition of a guard.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// Its type.
    pub(super) of: String,
    pub(super) status: String,
    pub(super) reason: String,
    /// Whether it is about the spec as it stands.
    pub(super) is_current: bool,
}

/// What dry runs showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// They were not wanted.
    LeftOut,
    /// There is nothing guarded that exists and may be patched by the caller.
    NoTarget { guards: usize },
    /// One was answered by our webhook.
    Answered { target: String, answer: Answer },
    /// One went through without reaching us.
    Passed { target: String },
    /// One failed, and none was answered.
    Failed { target: String, how: String },
    /// It could not be asked.
    Untold(String),
    /// Of which objects is not known, for want of the guards.
    Unread,
}
