//! What statuses are to say of targets that are as approved, beside what is told of drift: that they were seen so
//! since writes are refused, and as which version.

use std::sync::Arc;

use jiff::Timestamp;

use crate::audit::last_match;
use crate::audit::watch::Settled;
use crate::core::audit::book::Matched;
use crate::core::audit::sight::Present;
use crate::core::guard::Guard;

use super::guards::is_unchecked;
use super::looks::present;
use super::{Ended, Leading, RETRY, valid};

/// How often it is tried to check a target that is to be noted as checked.
const CHECKS: usize = 3;

impl Leading<'_> {
    /// Has the status say in which version the target stands as approved, when it says another one.
    pub(super) fn settled(&mut self, settled: &Settled) {
        let now = Timestamp::now();
        let Some(seen) = self.observation.guard(&settled.guard.id) else { return };
        let Some(guard) = valid(&seen.state).filter(|guard| guard.uid == settled.guard.uid) else { return };
        let is_pinned = guard.target == settled.guard.target && guard.scope == settled.guard.scope;
        let is_approved = guard.approves(settled.hash, now) || guard.equivalents.contains(&settled.hash);
        let noted = seen.stored.status().audited().map_or(0, |said| said.matched);
        let is_said = settled.resource_version.parse() == Ok(noted);
        let Some(key) = self.auditor.keys.borrow().clone() else { return };
        if !is_pinned || !is_approved || is_said || settled.server.is_empty() {
            return;
        }
        let matched = Matched {
            uid: settled.uid.clone(),
            resource_version: settled.resource_version.clone(),
            hash: settled.hash,
        };
        let noted = last_match::noted(&key, guard, &matched, &settled.server);
        if !self.saying.hold(&guard.uid) {
            return;
        }
        let (guard, statuses) = (Arc::clone(guard), self.statuses.clone());
        self.tasks.begin(Ended::Noted(guard.uid.clone()), async move {
            let noted = Some(noted);
            let written = statuses.note(&guard.id, &guard.uid, guard.generation, noted, false, now).await;
            if let Err(error) = written {
                // Until it is written anew, another reading of this object would be taken for drift.
                tracing::debug!(namespace = %guard.id.namespace, name = %guard.id.name, error, "the version of a target could not be noted");
            }
            Ended::Noted(guard.uid.clone())
        });
    }

    /// Looks at a target that is not known to have been as approved since writes of it are refused, and notes
    /// that. By it a leader that comes after a gap knows that what changed in it passed admission by.
    pub(super) fn check(&mut self, guard: &Arc<Guard>) {
        let now = self.now(guard).filter(|(seen, now)| is_unchecked(seen, now));
        let Some((_, guard)) = now else {
            // It was noted, or went, while it waited.
            self.checking.done(&guard.uid);
            return;
        };
        let (guard, statuses, remediation) =
            (Arc::clone(guard), self.statuses.clone(), Arc::clone(&self.remediation));
        let (questions, version) = (Arc::clone(&self.questions), self.version.0.clone());
        let key = self.auditor.keys.borrow().clone();
        self.tasks.begin(Ended::Checked(guard.uid.clone()), async move {
            // Few at a time: news come first.
            let _turn = questions.acquire().await;
            for _ in 0..CHECKS {
                let now = Timestamp::now();
                if let Ok(read) = remediation.read(&guard.target.url_path()).await {
                    let seen = read.and_then(|object| present(&guard, &object).ok());
                    // Whatever else it shows the watch tells.
                    let is_approved = |seen: &Present| {
                        guard.approves(seen.hash, now) || guard.equivalents.contains(&seen.hash)
                    };
                    let Some(seen) = seen.filter(is_approved) else { break };
                    let (uid, resource_version, hash) = (seen.uid, seen.resource_version, seen.hash);
                    let matched = Matched { uid, resource_version, hash };
                    let is_kept = guard.scope.has_server_defaults() && !version.is_empty();
                    let noted = key.as_ref().filter(|_| is_kept);
                    let noted = noted.map(|key| last_match::noted(key, &guard, &matched, &version));
                    let written = statuses.note(&guard.id, &guard.uid, guard.generation, noted, true, now);
                    if written.await.is_ok() {
                        break;
                    }
                }
                tokio::time::sleep(RETRY).await;
            }
            Ended::Checked(guard.uid.clone())
        });
    }
}
