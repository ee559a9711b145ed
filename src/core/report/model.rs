//! What a report holds. Published as JSON, so that fields are added and never change their meaning.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::few::Few;
use crate::core::text::Text;

use super::moment::Moment;
use super::state::State;

/// The version of this model.
pub const API_VERSION: &str = "report.driftguard.terrafusion.ai/v1";
/// What a report is called.
pub const KIND: &str = "AuditReport";

/// What an audit found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Version of this format: report.driftguard.terrafusion.ai/v1.
    pub api_version: String,
    /// AuditReport.
    pub kind: String,
    /// When the audit began.
    pub generated_at: Moment,
    /// What was looked at.
    pub origin: Origin,
    /// How many guards are in which state.
    pub summary: Summary,
    /// What became of the findings of an earlier report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Comparison>,
    /// The guards, by namespace and name.
    pub guards: Vec<Entry>,
}

impl Report {
    /// A report of these entries, in order.
    #[must_use]
    pub fn new(mut guards: Vec<Entry>, origin: Origin, generated_at: Moment) -> Self {
        guards.sort_by(|left, right| left.guard.cmp(&right.guard));
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            generated_at,
            origin,
            summary: Summary::of(&guards),
            compared: None,
            guards,
        }
    }

    /// The same with other entries, counted anew.
    #[must_use]
    pub fn with_guards(self, guards: Vec<Entry>) -> Self {
        Self { summary: Summary::of(&guards), guards, ..self }
    }

    /// The guards with the worst state first, within a state by namespace and name. Nothing is held for it: they are
    /// passed once for each state.
    pub fn worst_first(&self) -> impl Iterator<Item = &Entry> {
        State::ALL.into_iter().flat_map(|state| self.guards.iter().filter(move |entry| entry.state == state))
    }
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    /// Address of the API server; absent when only files were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Namespace of the guards; absent for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Files that were read instead of a cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
    /// Label selector of the guards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Names of the guards, where some were named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Kinds of targets, where some were named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Only states that began at this moment or later are in the report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Moment>,
}

/// How many guards are in which state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Guards in the report.
    pub guards: u64,
    /// Guards in each state, each guard counted once, under its `state`.
    pub states: BTreeMap<State, u64>,
    /// Guards of which each state holds, `also` included.
    pub holding: BTreeMap<State, u64>,
}

impl Summary {
    /// Counts entries.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        let mut summary = Self { guards: entries.len() as u64, ..Self::default() };
        for entry in entries {
            *summary.states.entry(entry.state).or_default() += 1;
            for state in entry.states() {
                *summary.holding.entry(state).or_default() += 1;
            }
        }
        summary
    }

    /// How many guards are in a state.
    #[must_use]
    pub fn count(&self, state: State) -> u64 {
        self.states.get(&state).copied().unwrap_or_default()
    }
}

/// One guard. There may be a hundred thousand of them, most of them in sync: what few of them have takes one word.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The guard.
    pub guard: Name,
    /// What it pins.
    pub target: TargetName,
    /// The worst state that holds.
    pub state: State,
    /// Further states that hold.
    #[serde(default, skip_serializing_if = "Few::is_empty")]
    pub also: Few<State>,
    /// Why, in one stable word.
    pub reason: Cow<'static, str>,
    /// What that means, in one sentence.
    pub message: Text,
    /// What admission does with unapproved writes: Deny, Rewrite, Warn or Audit; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Cow<'static, str>>,
    /// Whether that is said to be done: True, False or Unknown.
    pub enforcing: Cow<'static, str>,
    /// The approved hash; never of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_hash: Option<Text>,
    /// The hash of the content that was found; never of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_hash: Option<Text>,
    /// JSON Pointers to what changed, where that is known; names only, no values.
    #[serde(default, skip_serializing_if = "Few::is_empty")]
    pub changed_paths: Few<String>,
    /// Since when the content has been so, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
    /// Who changed it, of content that is not approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Box<Actor>>,
    /// Whether a source of truth stands ready.
    pub source: Source,
    /// The last attempt to put the approved content back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_remediation: Option<Box<Remediation>>,
    /// Transaction id under which the drift is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<Text>,
    /// Where a file holds the guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard_file: Option<Box<Place>>,
    /// Where a file holds the target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_file: Option<Box<Place>>,
    /// How it stands to an earlier report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
}

impl Entry {
    /// All states that hold, worst first.
    pub fn states(&self) -> impl Iterator<Item = State> + '_ {
        std::iter::once(self.state).chain(self.also.iter().copied())
    }

    /// Whether a state holds.
    #[must_use]
    pub fn holds(&self, state: State) -> bool {
        self.states().any(|one| one == state)
    }
}

/// Namespace and name of a guard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Name {
    /// Namespace.
    pub namespace: Text,
    /// Name.
    pub name: Text,
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The object that a guard pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetName {
    /// Group and version; absent where it is not known which resource is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<Text>,
    /// Kind.
    pub kind: Text,
    /// Namespace; absent for kinds without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Text>,
    /// Name.
    pub name: Text,
}

impl std::fmt::Display for TargetName {
    /// `Kind/namespace/name`, or `Kind/name`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

/// Since when a state has lasted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Since {
    /// The moment.
    pub time: Moment,
    /// How it is known.
    pub known_by: SinceKnownBy,
}

/// How it is known since when a state has lasted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SinceKnownBy {
    /// The status of the guard says so.
    Status,
    /// An earlier report shows it so; it may have begun before.
    EarlierReport,
}

/// Who changed the content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// The user or field manager; absent where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How it is known.
    pub known_by: ActorKnownBy,
    /// More about it, or why it is not known.
    pub detail: String,
}

/// How it is known who changed the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ActorKnownBy {
    /// The admission webhook saw the write.
    Admission,
    /// The managedFields of the object name it, which any writer can forge.
    ManagedFields,
    /// It is not known.
    Unknown,
}

/// Whether a source of truth stands ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// In one word.
    pub state: SourceState,
    /// What the status of the guard says about it.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub message: Text,
    /// What each source said when it was last asked.
    #[serde(default, skip_serializing_if = "Few::is_empty")]
    pub answers: Few<SourceAnswer>,
}

/// Whether a source of truth has the approved content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SourceState {
    /// One had it when it was last asked.
    Verified,
    /// None had it when they were last asked.
    Down,
    /// None was asked, or it could not be told.
    Unknown,
    /// The guard names no source, and none was asked.
    NotNamed,
}

impl SourceState {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "Verified",
            Self::Down => "Down",
            Self::Unknown => "Unknown",
            Self::NotNamed => "NotNamed",
        }
    }
}

/// What a source said when it was last asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SourceAnswer {
    /// Which one.
    pub source: String,
    /// Matched, Mismatch, Unavailable, Forbidden or Invalid.
    pub result: String,
    /// What it said; no values.
    pub message: String,
    /// When it was asked.
    pub time: Moment,
}

/// An attempt to put the approved content back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Remediation {
    /// When it was made.
    pub time: Moment,
    /// How it ended, as in the status of the guard.
    pub result: String,
    /// Where the content came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Transaction id under which it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction_id: Option<String>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The file as it was named.
    pub file: String,
    /// The line on which the object begins, from 1.
    pub line: u64,
}

/// How a guard stands to an earlier report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Change {
    /// It was in sync, or not there.
    New,
    /// It was in another state, none of them in sync.
    Changed,
    /// It was in the same state.
    Unchanged,
    /// It was not in sync, and is now.
    Resolved,
}

impl Change {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "New",
            Self::Changed => "Changed",
            Self::Unchanged => "Unchanged",
            Self::Resolved => "Resolved",
        }
    }
}

/// What became of the findings of an earlier report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// When the earlier report was made.
    pub earlier: Moment,
    /// Guards that were in sync or not there, and now are something else.
    pub new: u64,
    /// Guards that are in another state, neither of them in sync.
    pub changed: u64,
    /// Guards that are as they were, and not in sync.
    pub unchanged: u64,
    /// Guards that were not in sync and are now.
    pub resolved: u64,
    /// Guards that were in the earlier report and are not in this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<Gone>,
}

/// A guard that was in the earlier report and is not in this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gone {
    /// The guard.
    pub guard: Name,
    /// The state in which it was.
    pub state: State,
}
