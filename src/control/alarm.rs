//! What is told when somebody altered or deleted our webhook configuration: a record and an Event,
//! besides the log and the metric. Until it was put back, writes may have passed unseen. And a record when
//! the key was replaced by which authors are signed.

use jiff::Timestamp;
use tokio::sync::watch;

use super::registrar::Altered;
use crate::api::names;
use crate::cert::signing::REPLACED;
use crate::core::guard::{GuardState, Target};
use crate::core::signature::SigningKey;
use crate::core::verdict::{Attempt, Operation, Reason, User};
use crate::store::Observation;
use crate::telemetry::events::EventSink;
use crate::telemetry::notices::NoticeSink;
use crate::trail::record::{Attribution, Circumstances, Record};
use crate::trail::sink::RecordSink;

/// Where it is told, and as whom.
#[derive(Debug, Clone)]
pub struct Alarm {
    /// Name of this replica.
    pub replica: String,
    /// Where records go.
    pub records: RecordSink,
    /// Where Events of attempts go.
    pub events: EventSink,
    /// Where Events that concern a guard itself go.
    pub notices: NoticeSink,
}

impl Alarm {
    /// Tells that a configuration was altered, and put back. Regarding the first guard, since an Event
    /// must regard an object in a namespace, and all guards were uncovered alike.
    pub(super) fn registration_altered(&self, altered: &Altered, observation: &Observation) {
        let Some(first) = observation.index.guards().first() else { return };
        let attempt = attempt(altered, first);
        let message = format!(
            "{} {} was {} by {}; it is put back, but until then writes to guarded objects may have passed unseen",
            altered.kind,
            names::WEBHOOK_CONFIGURATION,
            if altered.deleted { "deleted" } else { "altered" },
            altered.by
        );
        self.events.offer(&attempt, false);
        self.records.put(&Record::found(&attempt, self.found(&message, Timestamp::now())));
    }

    /// Tells whenever another signing key has taken the place of one that this replica held; runs for ever.
    /// Whoever put it there can sign as anybody, and nobody's former signature is valid any more.
    pub async fn watch_key(self, mut keys: watch::Receiver<Option<SigningKey>>) {
        let mut held = keys.borrow_and_update().clone();
        while keys.changed().await.is_ok() {
            let now = keys.borrow_and_update().clone();
            if held.is_some() && now != held {
                let message = format!(
                    "the Secret {} holds another signing key: guards signed by the former one are of an unknown author until `driftguard adopt`",
                    names::SIGNING_SECRET
                );
                self.records.put(&Record {
                    attribution: Attribution::Itself,
                    ..Record::unjudged(REPLACED, None, self.found(&message, Timestamp::now()))
                });
            }
            held = now;
        }
        std::future::pending::<()>().await;
    }

    /// The circumstances of what was found rather than reviewed: nobody can have forged it.
    pub(super) fn found<'a>(&'a self, message: &'a str, time: Timestamp) -> Circumstances<'a> {
        Circumstances {
            transaction_id: uuid::Uuid::now_v7().to_string(),
            time,
            denied: false,
            review_uid: "",
            replica: &self.replica,
            authenticated: true,
            message,
        }
    }
}

fn attempt(altered: &Altered, guard: &GuardState) -> Attempt {
    Attempt {
        guard: guard.id().clone(),
        guard_uid: guard.uid().as_str().to_owned(),
        guard_generation: guard.generation(),
        target: Target {
            group: "admissionregistration.k8s.io".into(),
            version: "v1".into(),
            kind: altered.kind.into(),
            resource: format!("{}s", altered.kind.to_ascii_lowercase()).into(),
            namespace: None,
            name: names::WEBHOOK_CONFIGURATION.into(),
        },
        target_uid: String::new(),
        operation: if altered.deleted { Operation::Delete } else { Operation::Update },
        sub_resource: String::new(),
        dry_run: false,
        // Known by the field manager alone; the Event names that.
        user: User { name: altered.by.clone(), ..User::default() },
        field_manager: if altered.deleted { String::new() } else { altered.by.clone() },
        image_hash: None,
        paths: Vec::new(),
        enforcement: None,
        reason: Reason::RegistrationAltered,
    }
}
