//! What a replica says of itself in a Lease of its own: how new its view is, and what it has seen.
//!
//! The Lease proves that the replica lives; one annotation, JSON, holds the rest. It is bounded, so
//! that no number of guards makes the Lease too large to be written.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde::{Deserialize, Serialize};

use crate::api::names;
use crate::core::hash::ContentHash;

use super::crowd::Crowd;

/// After so long without a change a replica counts as dead. It stops trusting its own index earlier.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// Guards that one replica names as not settled; further ones are told as a [`Crowd`].
const MOST_UNSETTLED: usize = 64;
/// Longest part of a replica's name that goes into that of its Lease.
const NAME_PART: usize = 40;

/// What a replica says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Said {
    /// Its name, for messages.
    pub(super) replica: String,
    /// The newest resourceVersion of any guard in its index.
    pub(super) revision: u64,
    /// The exceptions that its index holds pauses of, as one value. A replica of a former version says none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exceptions: Option<String>,
    /// Uids of guards that it cannot judge yet although it has read them: their kind is not
    /// discovered, or the key is not read by which a promotion is verified.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unsettled: Vec<String>,
    /// Those that it does not name, where there are many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) more_unsettled: Option<Crowd>,
    /// Up to when it has told every write that a guard of enforcement `Audit` would have refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) told_until: Option<Timestamp>,
    /// The last such write, by uid of the guard.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) would_deny: BTreeMap<String, Timestamp>,
    /// The last such write of any guard that found no room above: it counts for every guard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) would_deny_others: Option<Timestamp>,
}

impl Said {
    /// Reads a Lease. One that cannot be read says nothing, and so holds back everything until it
    /// runs out.
    pub(super) fn read(lease: &Lease) -> Self {
        let annotations = lease.metadata.annotations.as_ref();
        let text = annotations.and_then(|all| all.get(names::ANNOTATION_REPLICA));
        let said: Option<Self> = text.and_then(|text| serde_json::from_str(text).ok());
        said.unwrap_or_else(|| Self {
            replica: lease.metadata.name.clone().unwrap_or_default(),
            ..Self::default()
        })
    }

    /// The Lease that says this.
    pub(super) fn lease(&self, name: &str, identity: &str, acquired: Timestamp, now: Timestamp) -> Lease {
        // Nothing in it can fail to serialise; an empty text would be read as saying nothing.
        let text = serde_json::to_string(self).unwrap_or_default();
        Lease {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some([(names::LABEL_REPLICA.to_owned(), "true".to_owned())].into()),
                annotations: Some([(names::ANNOTATION_REPLICA.to_owned(), text)].into()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(identity.to_owned()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: Some(MicroTime(acquired)),
                renew_time: Some(MicroTime(now)),
                ..LeaseSpec::default()
            }),
        }
    }

    /// Whether it has not applied a guard that stands as it is since `needed`.
    pub(super) fn is_behind(&self, uid: &str, needed: u64) -> bool {
        self.revision < needed
            || self.unsettled.iter().any(|other| other == uid)
            || self.more_unsettled.as_ref().is_some_and(|more| more.may_hold(uid))
    }

    /// Whether it lets other writes pass than these exceptions do.
    pub(super) fn differs(&self, exceptions: ContentHash) -> bool {
        self.exceptions.as_deref().and_then(|text| text.parse().ok()) != Some(exceptions)
    }

    /// Says which guards cannot be judged yet.
    pub(super) fn set_unsettled<'a>(&mut self, mut uids: impl Iterator<Item = &'a str>) {
        self.unsettled = uids.by_ref().take(MOST_UNSETTLED).map(str::to_owned).collect();
        let mut more = uids.peekable();
        self.more_unsettled = more.peek().is_some().then(|| Crowd::of(more));
    }
}

/// The name of the Lease of a process. Of the process, not of its replica: one that was replaced may
/// still answer under the same name, with an older view.
pub(super) fn lease_name(replica: &str, identity: &str) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() { char.to_ascii_lowercase() } else { '-' };
    let part: String = replica.chars().map(plain).take(NAME_PART).collect();
    let hash = ContentHash::of(identity.as_bytes()).to_string();
    format!("{}-replica-{}-{}", names::LEASE, part.trim_matches('-'), &hash[..12])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn what_is_said_reads_back_from_the_lease() {
        let said = Said {
            replica: "a".into(),
            revision: u64::MAX,
            exceptions: Some(ContentHash::of(b"").to_string()),
            unsettled: vec!["u".into()],
            told_until: Some(Timestamp::UNIX_EPOCH),
            would_deny: [("v".to_owned(), Timestamp::UNIX_EPOCH)].into(),
            ..Said::default()
        };
        let lease = said.lease("x", "a_1", Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        assert_eq!(Said::read(&lease), said);
    }

    #[test]
    fn a_lease_that_cannot_be_read_is_behind_in_everything() {
        let mut lease = Said::default().lease("x", "a_1", Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        lease.metadata.annotations = Some([(names::ANNOTATION_REPLICA.to_owned(), "?".to_owned())].into());
        let said = Said::read(&lease);
        assert!(said.is_behind("any", 1));
        assert_eq!(said.replica, "x");
    }

    #[test]
    fn a_replica_is_behind_until_it_has_the_version_and_can_judge_it() {
        let said = |revision, unsettled: &[&str]| Said {
            revision,
            unsettled: unsettled.iter().map(|&uid| uid.to_owned()).collect(),
            ..Said::default()
        };
        assert!(said(6, &[]).is_behind("u", 7));
        assert!(!said(7, &[]).is_behind("u", 7));
        assert!(!said(8, &["v"]).is_behind("u", 7));
        assert!(said(8, &["u"]).is_behind("u", 7));
    }

    #[test]
    fn guards_that_nobody_can_judge_hold_back_no_other_one_however_many_they_are() {
        let unknown: Vec<String> = (0..1000).map(|number| format!("unknown-{number}")).collect();
        let mut said = Said { revision: 8, ..Said::default() };
        said.set_unsettled(unknown.iter().map(String::as_str));
        let lease = said.lease("x", "a_1", Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let read = Said::read(&lease);
        assert_eq!(read, said);
        assert!(unknown.iter().all(|uid| read.is_behind(uid, 7)));
        assert!(!read.is_behind("settled", 7));
    }

    #[test]
    fn two_processes_of_one_name_have_two_leases_and_any_name_makes_a_valid_one() {
        assert_ne!(lease_name("a", "a_1"), lease_name("a", "a_2"));
        for replica in ["", "UPPER_case.example", &"x".repeat(300), "-\u{e9}-"] {
            let name = lease_name(replica, "identity");
            assert!(name.len() <= 80, "{name}");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{name}"
            );
        }
    }
}
