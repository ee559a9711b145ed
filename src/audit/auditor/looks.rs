//! Looks at targets: where each waits for what statuses say, what goes with it to the book, and those that are
//! asked for.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use crate::api::DriftGuardStatus;
use crate::audit::remediation::{Outcome, Prepared, Remediation};
use crate::audit::watch::Sighting;
use crate::audit::{facts, last_match};
use crate::core::audit::attribution::{Evidence, attribute};
use crate::core::audit::book::{self, Context, Details, Remembered, Terms};
use crate::core::audit::finding::{Reason, Truth};
use crate::core::audit::sight::{Look, Present, ReadBefore, Sight};
use crate::core::canonical::hash_object;
use crate::core::diff::changed_paths;
use crate::core::guard::{Guard, GuardState, Target};
use crate::core::guard_spec::rival;
use crate::store::{Seen, Store};
use crate::telemetry::traces;

use super::steps::Beside;
use super::{Ended, Leading, RETRY, new_id, spec, valid};

/// Longest one read of an object or a namespace may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest it may take to tell beside a status whether a target may be put back.
const RIGHTS_TIMEOUT: Duration = Duration::from_millis(500);
/// Most changed paths that are told.
const MAX_PATHS: usize = 16;
/// How long what the API server said of its version counts.
const VERSION_FOR: SignedDuration = SignedDuration::from_secs(60);
/// How long it may take to say so, and how often it is asked where that decides.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
const VERSION_TRIES: u32 = 3;

/// What was read beside a look.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The guard as it was when this was read; `None` when nothing was.
    of: Option<Arc<Guard>>,
    pub(super) status: DriftGuardStatus,
    /// Whether the namespace of the target is being deleted; `None` when that could not be told.
    pub(super) namespace_terminating: Option<bool>,
    /// Whether the target may be put back, where it was likely to be needed and so was asked, too.
    pub(super) rights: Option<Result<(), Outcome>>,
    /// Which version the API server has, where that was asked, too.
    pub(super) version: Option<String>,
    pub(super) asked_at: Timestamp,
}

impl Known {
    /// Whether the namespace of the guard's target is being deleted, if that is what was asked.
    fn namespace_of(&self, guard: &Guard) -> Option<bool> {
        let is_same = |of: &Arc<Guard>| of.target.namespace == guard.target.namespace;
        self.namespace_terminating.filter(|_| self.of.as_ref().is_some_and(is_same))
    }
}

impl Leading<'_> {
    /// The guard that a look is about, as it stands now.
    pub(super) fn guard(&self, sighting: &Sighting) -> Option<(Arc<Guard>, Terms)> {
        let seen = self.observation.guard(&sighting.guard)?;
        let guard = valid(&seen.state).filter(|guard| guard.uid == sighting.guard_uid)?;
        Some((Arc::clone(guard), spec(seen)?.1))
    }

    /// A guard that could be used, as it stands now; `None` when it is gone, or no longer can be.
    pub(super) fn now(&self, guard: &Guard) -> Option<(&Seen, &Arc<Guard>)> {
        let seen = self.observation.guard(&guard.id)?;
        Some((seen, valid(&seen.state).filter(|now| now.uid == guard.uid)?))
    }

    /// The guard that a look is about, where the look was made at what it pins now.
    fn guard_of_pinned(&self, sighting: &Sighting) -> Option<(Arc<Guard>, Terms)> {
        self.guard(sighting).filter(|(now, _)| sighting.is_of(now))
    }

    pub(super) async fn sighted(&mut self, sighting: Sighting) {
        let now = Timestamp::now();
        let mut found = self.guard_of_pinned(&sighting);
        // What it was made for may be newer than what was followed, or older. The watch of a new guard's target
        // tells of it once, and has followed that guard by itself.
        if found.is_none() && self.observations.has_changed().unwrap_or_default() {
            self.follow();
            found = self.guard_of_pinned(&sighting);
        }
        let Some((guard, terms)) = found else { return };
        let approved = matches!(&sighting.sight, Sight::Present(seen) if guard.approves(seen.hash, now));
        if approved {
            self.keep(&guard, &sighting);
        }
        let uid = sighting.guard_uid.clone();
        let audited = self.observation.guard(&guard.id).and_then(|seen| seen.stored.status().audited());
        let is_said = audited.is_some_and(|said| said.is_calm && said.generation == guard.generation);
        if approved
            && !self.waiting.contains_key(&uid)
            && (self.book.knows(&uid) || is_said || audited.is_none())
        {
            let remembered = is_said.then(|| calm(&guard));
            if audited.is_none_or(|said| said.generation != guard.generation) && !self.book.knows(&uid) {
                self.have_sources_asked(&guard);
            }
            self.see(&guard, terms, &sighting, Known::default(), remembered).await;
            return;
        }
        let restores = self.is_likely_restored(&guard, terms, &sighting);
        match self.waiting.entry(uid) {
            // That nobody may watch it is told by the watch alone, and once.
            Entry::Occupied(waiting) if sighting.how == Look::Live && is_unwatched(waiting.get()) => {}
            Entry::Occupied(mut waiting) => {
                let sighting = sighting.instead_of(waiting.get());
                waiting.insert(sighting);
            }
            Entry::Vacant(none) => {
                none.insert(sighting);
                self.read(&guard, restores);
            }
        }
    }

    /// Whether what was seen is mostly put back at once.
    fn is_likely_restored(&self, guard: &Guard, terms: Terms, sighting: &Sighting) -> bool {
        self.auditor.settings.remediation
            && terms.auto_remediate
            && sighting.how == Look::Watch
            && sighting.object.is_some()
            && guard.paused(Timestamp::now()).is_none()
            && self.book.incidents().next().is_none()
    }

    /// Reads beside the loop what the status of a guard says, and whether its target's namespace goes; when its
    /// target is likely to be put back next, also whether it may be.
    pub(super) fn read(&mut self, guard: &Arc<Guard>, restores: bool) {
        let (guard, statuses) = (Arc::clone(guard), self.statuses.clone());
        let remediation = restores.then(|| Arc::clone(&self.remediation));
        let (store, reads) = (self.auditor.store.clone(), Arc::clone(&self.reads));
        let client = self.is_version_due().then(|| self.auditor.client.clone());
        self.tasks.begin(Ended::Unread(guard.uid.clone()), async move {
            let turn = reads.acquire().await;
            let asked_at = Timestamp::now();
            // At once: drift lasts for as long as this takes.
            let (status, namespace_terminating, rights, version) = tokio::join!(
                statuses.read(&guard.id, &guard.uid),
                is_terminating(&store, &guard.target),
                rights(remediation, &guard),
                version(client),
            );
            drop(turn);
            match status {
                Ok(status) => {
                    let uid = guard.uid.clone();
                    let of = Some(guard);
                    let known = |status| {
                        Box::new(Known { of, status, namespace_terminating, rights, version, asked_at })
                    };
                    Ended::Read(uid, status.map(known))
                }
                Err(error) => {
                    tracing::warn!(namespace = %guard.id.namespace, name = %guard.id.name, error, "the status of a guard could not be read");
                    tokio::time::sleep(RETRY).await;
                    Ended::Unread(guard.uid.clone())
                }
            }
        });
    }

    /// Has the book see it, and does what follows.
    pub(super) async fn see(
        &mut self,
        guard: &Arc<Guard>,
        terms: Terms,
        sighting: &Sighting,
        known: Known,
        remembered: Option<Remembered>,
    ) {
        let read_before = self.read_before(guard, sighting, &known);
        let built_in = facts::is_built_in(&guard.target.group);
        let decides = read_before.is_some() && built_in && guard.scope.has_server_defaults();
        self.learn_version(sighting, decides).await;
        let now = Timestamp::now();
        let details =
            self.book.wants_details(guard, &sighting.sight, now).then(|| self.details(guard, sighting));
        let index = &self.observation.index;
        let context = Context {
            enforcing_since: facts::enforcing_since(&known.status),
            built_in,
            server_version: &self.version.0,
            audit_interval: self.auditor.settings.watch.audit_interval,
            apply_grace: self.auditor.settings.apply_grace,
            pause_ended: facts::pause_ended(&known.status),
            conflict: rival(&GuardState::Valid(Arc::clone(guard)), index.guards_of(&guard.target)).is_some(),
            namespace_terminating: known.namespace_of(guard).unwrap_or_default(),
            being_replaced: self
                .attempts
                .values()
                .any(|attempt| attempt.guard_uid == guard.uid && attempt.state.is_replacing()),
            missed: sighting.missed,
            read_before,
            remembered,
        };
        let seen = book::Seen {
            sight: &sighting.sight,
            look: sighting.how,
            details: details.as_ref(),
            terms,
            context: &context,
        };
        let span = traces::audit(&guard.id, sighting.how.as_str());
        let steps = span.in_scope(|| self.book.see(guard, &seen, now, &mut new_id));
        self.take(guard, steps, Beside { prepared: prepared(guard, sighting, known), ..Beside::default() });
    }

    /// As what exactly the version of the target that was seen was read before: by this process, or by
    /// whoever led before it.
    fn read_before(&self, guard: &Guard, sighting: &Sighting, known: &Known) -> Option<ReadBefore> {
        let Sight::Present(present) = &sighting.sight else { return None };
        let noted = || {
            let key = self.auditor.keys.borrow();
            last_match::read_before(key.as_ref(), guard, known.status.last_match.as_ref(), present)
        };
        sighting.read_before.clone().or_else(noted)
    }

    /// What changed, and who did it.
    fn details(&self, guard: &Guard, sighting: &Sighting) -> Details {
        let object = sighting.object.as_deref();
        let before = self.auditor.sources.last_good().get(&guard.uid, guard.expected);
        let changes = before
            .as_ref()
            .zip(object)
            .and_then(|(before, object)| changed_paths(before, object, &guard.scope, MAX_PATHS).ok());
        let changes = changes.unwrap_or_default();
        let observed = self.auditor.observed.of(&guard.target);
        let hash = match &sighting.sight {
            Sight::Present(seen) if !guard.scope.is_secret() => Some(seen.hash),
            _ => None,
        };
        let evidence = Evidence {
            object,
            paths: &changes.paths,
            more: changes.more,
            hash,
            observed: &observed,
            last_clean: self.book.last_clean(&guard.uid),
        };
        Details { attribution: attribute(&evidence), paths: changes.paths }
    }

    /// Keeps approved content by which a target could be put back.
    fn keep(&self, guard: &Guard, sighting: &Sighting) {
        if let (Sight::Present(seen), Some(object)) = (&sighting.sight, &sighting.object)
            && seen.hash == guard.expected
        {
            self.auditor.sources.last_good().put(&guard.uid, &guard.scope, seen.hash, object);
        }
    }

    /// Which version the API server has, asked again when lists came anew: it may have been replaced. Where that
    /// `decides` what another reading means, only an answer given since the look will do.
    async fn learn_version(&mut self, sighting: &Sighting, decides: bool) {
        let is_fresh = self.version.1.is_some_and(|at| at >= sighting.seen_at);
        let is_due = self.is_version_due() && (sighting.how != Look::Live || self.version.1.is_none());
        // Without an answer what reads otherwise would be drift, and be put back.
        let tries = match (decides && !is_fresh, is_due) {
            (true, _) => VERSION_TRIES,
            (false, is_due) => u32::from(is_due),
        };
        for _ in 0..tries {
            let asked_at = Timestamp::now();
            if let Some(learned) = version(Some(self.auditor.client.clone())).await {
                return self.learned(Some(learned), asked_at);
            }
        }
    }

    fn is_version_due(&self) -> bool {
        let age = |at: Timestamp| Timestamp::now().duration_since(at);
        self.version.1.is_none_or(|at| age(at) > VERSION_FOR || age(at).is_negative())
    }

    pub(super) fn learned(&mut self, version: Option<String>, asked_at: Timestamp) {
        if let Some(version) = version {
            self.version = (version, Some(asked_at));
        }
    }

    /// Reads a target alone, beside the loop.
    pub(super) fn look(&mut self, guard: &Arc<Guard>) {
        let begun = self.flights.begin(&guard.uid);
        let (guard, remediation, reads) =
            (Arc::clone(guard), Arc::clone(&self.remediation), Arc::clone(&self.reads));
        self.tasks.begin(Ended::Looked(guard.uid.clone(), begun, None), async move {
            let uid = guard.uid.clone();
            let _turn = reads.acquire().await;
            let read = remediation.read(&guard.target.url_path()).await;
            let (sight, object) = match read {
                Ok(None) => (Sight::Absent, None),
                Ok(Some(object)) => match present(&guard, &object) {
                    Ok(present) => (Sight::Present(present), Some(Bytes::from(object))),
                    Err(why) => (Sight::Unreadable(why), None),
                },
                // Nothing is known; the book asks again.
                Err(_) => return Ended::Looked(uid, begun, None),
            };
            let sighting = Sighting {
                guard: guard.id.clone(),
                guard_uid: guard.uid.clone(),
                of: guard,
                sight,
                how: Look::Live,
                missed: false,
                read_before: None,
                object,
                seen_at: Timestamp::now(),
            };
            Ended::Looked(uid, begun, Some(Box::new(sighting)))
        });
    }
}

/// Whether a watch tells that it cannot read a target.
fn is_unwatched(sighting: &Sighting) -> bool {
    sighting.how != Look::Live && matches!(sighting.sight, Sight::Unreadable(_))
}

/// What an attempt to restore need not ask again that follows at once.
fn prepared(guard: &Guard, sighting: &Sighting, known: Known) -> Option<Prepared> {
    let live = sighting.object.clone().filter(|_| known.namespace_of(guard) == Some(false))?;
    Some(Prepared { of: known.of?, rights: known.rights?, live, at: known.asked_at })
}

/// Whether a target may be put back, if somebody is to find out. An answer that is long in coming would not count
/// any more, and what was seen must not wait for it.
async fn rights(remediation: Option<Arc<Remediation>>, guard: &Guard) -> Option<Result<(), Outcome>> {
    tokio::time::timeout(RIGHTS_TIMEOUT, remediation?.rights_to(guard)).await.ok()
}

/// What a status that says "in sync" of exactly this guard would have said.
fn calm(guard: &Guard) -> Remembered {
    Remembered {
        generation: guard.generation,
        drifted: Some((Truth::False, Reason::InSync, Timestamp::UNIX_EPOCH)),
        hash_match: Some(true),
        current_hash: (!guard.scope.is_secret()).then_some(guard.expected),
        ..Remembered::default()
    }
}

pub(super) fn present(guard: &Guard, object: &[u8]) -> Result<Present, String> {
    let identity = crate::core::audit::restore::identity(object).map_err(|error| error.to_string())?;
    let hash = hash_object(object, &guard.scope).map_err(|error| error.to_string())?;
    Ok(Present {
        uid: identity.uid,
        resource_version: identity.resource_version,
        hash,
        terminating: identity.is_terminating,
    })
}

/// Which version the API server has, if somebody is to ask it and it answers in time.
pub(super) async fn version(client: Option<kube::Client>) -> Option<String> {
    let client = client?;
    let asked = tokio::time::timeout(VERSION_TIMEOUT, client.apiserver_version()).await;
    Some(asked.ok()?.ok()?.git_version)
}

/// Whether the namespace of a target is being deleted; `None` when that cannot be told. Where it is gone
/// altogether, so is the target, which somebody should know of.
async fn is_terminating(store: &Store, target: &Target) -> Option<bool> {
    let Some(namespace) = &target.namespace else { return Some(false) };
    match within(store.read_namespace(namespace)).await {
        Some(Ok(Some(found))) => crate::core::audit::restore::is_terminating(&found).ok(),
        Some(Ok(None) | Err(_)) | None => None,
    }
}

/// An answer, when it comes in time.
async fn within<T>(answer: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(READ_TIMEOUT, answer).await.ok()
}

#[cfg(test)]
#[path = "looks_tests.rs"]
mod tests;
