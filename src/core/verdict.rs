//! What judging a review comes to: the answer, and the facts a record keeps of it.

use super::guard::{Enforcement, FailurePolicy, GuardId, Target};
use super::hash::ContentHash;

/// The outcome for one admission review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// `request.uid`, to be given back in the response: a wrong one is a 500 for the user.
    pub uid: String,
    /// The answer.
    pub verdict: Verdict,
    /// What is answered to a dry run that asks which replica and generation answers (field manager
    /// `driftguard-proof-NONCE`); the server says so in warnings, whatever the verdict.
    pub proof: Option<Proof>,
}

/// The answer to a dry run that asks for proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The nonce that the dry run came with.
    pub nonce: String,
    /// What guards of the object say of the content that it shows, where another API server may read it otherwise.
    pub statements: Vec<Statement>,
}

/// What one guard, as the replica knows it, says of the content that a dry run shows. It says so of content, and so
/// whether that is what is stored is for those to compare who ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// `metadata.uid` of the guard.
    pub guard_uid: String,
    /// `metadata.generation` of the guard.
    pub guard_generation: i64,
    /// What the content is to it.
    pub held: Held,
}

/// What content is to a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// The guard's own spec approves it.
    Approved,
    /// Content of this hash is another reading of the expected content, by our own signature for just this spec; the
    /// spec itself does not name it, not even for a while.
    Equivalent(ContentHash),
    /// Neither.
    NotApproved,
}

/// The answer to one review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Allowed, with nothing to say.
    Allow,
    /// Allowed, with warnings for the user, and a record when `attempt` is there.
    AllowWith {
        /// At most 256 characters each, no control characters.
        warnings: Vec<String>,
        /// What to record: one for each guard that has something to say; none for a warning alone.
        attempts: Vec<Attempt>,
    },
    /// Refused with 403.
    Deny {
        /// The whole message; its first line stands alone.
        message: String,
        /// What to record.
        attempt: Box<Attempt>,
    },
    /// No guard in the index pins this object, although a webhook rule matched it: the index may
    /// lag behind, so one live read decides.
    NotGuarded(Unguarded),
    /// The review does not hold what decides: it must be read, once, and the review judged again with
    /// the answer.
    Ask(Question),
}

/// What a review leaves open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// How the object stands: its subresource shows only a part of it.
    Target(Target),
    /// How the namespace of this name stands: deletion is refused unless it is going away itself.
    Namespace(String),
}

/// The answer to a [`Question`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact<'a> {
    /// The object, as the API server wrote it.
    Object(&'a [u8]),
    /// There is no such object.
    Absent,
    /// It could not be read. The policy of the entry that called decides.
    Unread(FailurePolicy),
}

/// The object of a review that no guard in the index pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unguarded {
    /// API group, empty for core.
    pub group: String,
    /// Plural resource name.
    pub resource: String,
    /// Namespace, `None` for a cluster-scoped object.
    pub namespace: Option<String>,
    /// Object name.
    pub name: String,
}

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The object is made.
    Create,
    /// The object is changed.
    Update,
    /// The object is deleted.
    Delete,
    /// A connection to the object (`exec`, `proxy`): never a change of it.
    Connect,
}

impl Operation {
    /// As the admission API spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// Why a verdict was not a plain allow: stable words for records, metrics and conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The content would not be what is approved.
    HashMismatch,
    /// The guard itself cannot be evaluated, so nothing may change.
    GuardInvalid,
    /// The object arrived in a version that the guard does not hash.
    OtherVersion,
    /// Content would move between `spec` and the top level, so that the hash does not say what is pinned.
    ContentMoved,
    /// The object could not be read.
    Undecodable,
    /// The content stays as it is, but it is not what is approved.
    AlreadyDrifted,
    /// The target is being deleted.
    TargetDeleted,
    /// The content would not be what is approved, and passes because the guard is paused.
    Paused,
    /// It would have been refused, and passes because the glass is broken.
    BrokenGlass,
    /// What decides could not be read in time.
    TargetUnread,
    /// The definition of a guarded kind is being deleted, and all its objects with it.
    DefinitionDeleted,
    /// The definition of a guarded kind changes, so that stored objects may read otherwise.
    DefinitionChanged,
    /// Somebody altered or deleted our webhook configuration; it was put back.
    RegistrationAltered,
}

impl Reason {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HashMismatch => "HashMismatch",
            Self::GuardInvalid => "GuardInvalid",
            Self::OtherVersion => "OtherVersion",
            Self::ContentMoved => "ContentMoved",
            Self::Undecodable => "Undecodable",
            Self::AlreadyDrifted => "AlreadyDrifted",
            Self::TargetDeleted => "TargetDeleted",
            Self::Paused => "Paused",
            Self::BrokenGlass => "BrokenGlass",
            Self::TargetUnread => "TargetUnread",
            Self::DefinitionDeleted => "DefinitionDeleted",
            Self::DefinitionChanged => "DefinitionChanged",
            Self::RegistrationAltered => "RegistrationAltered",
        }
    }

    /// Whether it says that a guard does not approve what would be stored, whatever became of it.
    #[must_use]
    pub fn is_disapproval(self) -> bool {
        match self {
            Self::HashMismatch
            | Self::GuardInvalid
            | Self::OtherVersion
            | Self::ContentMoved
            | Self::Undecodable
            | Self::Paused
            | Self::BrokenGlass => true,
            Self::AlreadyDrifted
            | Self::TargetDeleted
            | Self::TargetUnread
            | Self::DefinitionDeleted
            | Self::DefinitionChanged
            | Self::RegistrationAltered => false,
        }
    }
}

/// Who made the write, as the API server says; impersonation hides the impersonator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// `request.userInfo.username`.
    pub name: String,
    /// `request.userInfo.uid`, empty when the API server sent none.
    pub uid: String,
    /// `request.userInfo.groups`.
    pub groups: Vec<String>,
}

impl User {
    /// Most groups kept in a record: a forged review must not make it large.
    pub const MAX_GROUPS: usize = 32;
}

/// One attempt to write a guarded object. An attempt, not a write: the API server retries with a
/// fresh uid, and an allowed one can still fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The guard whose rule decided.
    pub guard: GuardId,
    /// `metadata.uid` of that guard, empty where unknown.
    pub guard_uid: String,
    /// `metadata.generation` of that guard.
    pub guard_generation: i64,
    /// The object.
    pub target: Target,
    /// `metadata.uid` of the object, empty on CREATE.
    pub target_uid: String,
    /// What was attempted.
    pub operation: Operation,
    /// Subresource, empty for the object itself.
    pub sub_resource: String,
    /// Whether nothing would have been stored.
    pub dry_run: bool,
    /// Who.
    pub user: User,
    /// `options.fieldManager`, empty when absent.
    pub field_manager: String,
    /// Hash of the content that was refused or let through; never of a Secret.
    pub image_hash: Option<ContentHash>,
    /// Paths that differ from the old object, the first few; key names only.
    pub paths: Vec<String>,
    /// Effective enforcement of the guard; `None` when the guard is invalid.
    pub enforcement: Option<Enforcement>,
    /// Why.
    pub reason: Reason,
}

/// A body that is no admission review that could be judged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the admission review: {message}")]
pub struct ReviewError {
    /// `request.uid`, where that much could be read.
    pub uid: Option<String>,
    /// What is wrong and at which byte.
    pub message: String,
}
