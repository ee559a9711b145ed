//! The watch of exceptions. One that cannot be read pauses nothing, and is reported.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::Deserialize;

use crate::api::DriftGuardException;
use crate::core::exceptions::{self, Exception, Terms};
use crate::core::guard::{GuardId, GuardState};
use crate::core::hash::ContentHash;
use crate::core::text::Text;

use super::Shared;
use super::stored::{Received, Stored};

/// How long the first answer is waited for: guards must be enforced also while exceptions cannot be read.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// All exceptions that can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions {
    by_id: BTreeMap<GuardId, Exception>,
}

impl Exceptions {
    /// The exceptions, by namespace and name.
    pub fn all(&self) -> impl Iterator<Item = &Exception> {
        self.by_id.values()
    }

    /// The guard with the pause that exceptions ask for, beside its own: of several the one that ends last,
    /// since each begins when it is made. Else a namespace with many exceptions and many guards would cost
    /// their product in memory.
    #[must_use]
    pub fn apply(&self, state: GuardState, stored: &Stored, longest: SignedDuration) -> GuardState {
        let mut state = state;
        let id = stored.id();
        let label = |key: &str| stored.label(key);
        let last = self
            .of_namespace(&id.namespace)
            .filter_map(|exception| exception.pause_of(&id.namespace, &id.name, label, longest))
            .max_by_key(|pause| pause.until);
        if let Some(pause) = last {
            state.pause(pause);
        }
        state
    }

    /// The exceptions in force at `now` that mean a guard by its `new` labels and did not by its `old` ones.
    pub fn reached_by_labels<'a>(
        &'a self,
        old: &'a Stored,
        new: &'a Stored,
        now: Timestamp,
        longest: SignedDuration,
    ) -> impl Iterator<Item = &'a Exception> {
        let means = |one: &Exception, guard: &Stored| one.terms.covers(guard.name(), |key| guard.label(key));
        self.of_namespace(new.namespace())
            .filter(move |one| now < one.end(longest) && means(one, new) && !means(one, old))
    }

    /// What they let pass, in one value.
    #[must_use]
    pub fn digest(&self, longest: SignedDuration) -> ContentHash {
        exceptions::digest(self.all(), longest)
    }

    /// The exceptions that only one of two sets holds as they are.
    pub(super) fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Exception> {
        let only = |one: &'a Self, other: &'a Self| {
            let differs = |(id, exception): &(&GuardId, &Exception)| other.by_id.get(*id) != Some(*exception);
            one.by_id.iter().filter(differs).map(|(_, exception)| exception)
        };
        only(self, other).chain(only(other, self))
    }

    #[cfg(test)]
    pub(super) fn of(exceptions: Vec<Exception>) -> Self {
        let id = |exception: &Exception| GuardId {
            namespace: exception.namespace.as_str().into(),
            name: exception.name.as_str().into(),
        };
        Self { by_id: exceptions.into_iter().map(|exception| (id(&exception), exception)).collect() }
    }

    fn of_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Exception> {
        let first = GuardId { namespace: namespace.into(), name: Text::default() };
        let rest = self.by_id.range(first..);
        rest.map(|(_, exception)| exception).take_while(move |exception| exception.namespace == namespace)
    }
}

/// One exception as it stands in the cluster, usable or not.
#[derive(Debug, Clone)]
pub struct SeenException {
    /// As the API server sent it.
    pub(crate) stored: Received,
    /// What it says, or why it pauses nothing.
    pub read: Result<Exception, String>,
}

impl SeenException {
    fn new(raw: Raw) -> Self {
        let read = raw.read();
        if let Err(problem) = &read {
            let GuardId { namespace, name } = raw.0.id();
            tracing::warn!(%namespace, %name, problem, "an exception pauses nothing: it cannot be used");
        }
        Self { stored: raw.0, read }
    }
}

/// All exceptions by namespace and name.
#[derive(Debug, Clone, Default)]
struct Known(BTreeMap<GuardId, Arc<SeenException>>);

impl Known {
    fn put(&mut self, raw: Raw) {
        self.0.insert(raw.0.id(), Arc::new(SeenException::new(raw)));
    }

    /// Those that pause something.
    fn usable(&self) -> Exceptions {
        let read = |(id, seen): (&GuardId, &Arc<SeenException>)| {
            seen.read.as_ref().ok().map(|exception| (id.clone(), exception.clone()))
        };
        Exceptions { by_id: self.0.iter().filter_map(read).collect() }
    }
}

/// An exception as the API server sent it, the spec still text: one that makes no sense must not stop
/// the watch of all others.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
struct Raw(Received);

impl Raw {
    fn read(&self) -> Result<Exception, String> {
        let GuardId { namespace, name } = self.0.id();
        // Whoever deletes one ends it, whatever finalizers keep the object.
        if self.0.is_terminating() {
            return Err("it is being deleted".to_owned());
        }
        let since = self.0.created().ok_or_else(|| "it does not say when it was made".to_owned())?;
        Ok(Exception {
            uid: self.0.uid().to_owned(),
            namespace: namespace.into(),
            name: name.into(),
            since,
            terms: Terms::parse(self.0.spec())?,
        })
    }
}

impl Resource for Raw {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind(dt: &()) -> Cow<'_, str> {
        DriftGuardException::kind(dt)
    }
    fn group(dt: &()) -> Cow<'_, str> {
        DriftGuardException::group(dt)
    }
    fn version(dt: &()) -> Cow<'_, str> {
        DriftGuardException::version(dt)
    }
    fn plural(dt: &()) -> Cow<'_, str> {
        DriftGuardException::plural(dt)
    }
    fn meta(&self) -> &ObjectMeta {
        self.0.meta()
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.meta_mut()
    }
}

/// Keeps the exceptions up to date, for ever.
pub(super) async fn keep(shared: &Shared) {
    let api: Api<Raw> = Api::all(shared.client.clone());
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut known = Known::default();
    let mut listing = Known::default();
    let first = tokio::time::sleep(FIRST_ANSWER);
    let mut first = std::pin::pin!(first);
    let mut waits = true;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = &mut first, if waits => {
                waits = false;
                tell(shared, &known);
                continue;
            }
        };
        match event {
            None => return,
            Some(Ok(Event::Init)) => {
                listing = Known::default();
                continue;
            }
            Some(Ok(Event::InitApply(object))) => {
                listing.put(object);
                continue;
            }
            Some(Ok(Event::InitDone)) => known = std::mem::take(&mut listing),
            Some(Ok(Event::Apply(object))) => known.put(object),
            Some(Ok(Event::Delete(object))) => {
                known.0.remove(&object.0.id());
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the watch of DriftGuardExceptions failed; trying again");
            }
        }
        waits = false;
        tell(shared, &known);
    }
}

fn tell(shared: &Shared, known: &Known) {
    let usable = known.usable();
    // A status alone changes nothing for guards, and looking at all of them anew is dear.
    shared.exceptions.send_if_modified(|before| {
        let changed = before.as_deref() != Some(&usable);
        if changed {
            *before = Some(Arc::new(usable));
        }
        changed
    });
    shared.exception_objects.send_replace(Arc::new(known.0.values().cloned().collect()));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_bring_a_guard_under_an_exception_that_is_in_force_and_goes_by_them() {
        let exception = |name: &str, guards: serde_json::Value, until: &str| Exception {
            uid: name.into(),
            namespace: "n".into(),
            name: name.into(),
            since: "2026-06-01T08:00:00Z".parse().unwrap(),
            terms: Terms::parse(&json!({"guards": guards, "until": until, "reason": "r"}).to_string())
                .unwrap(),
        };
        let risk = json!({"selector": {"matchLabels": {"team": "risk"}}});
        let unlocked =
            json!({"selector": {"matchExpressions": [{"key": "locked", "operator": "DoesNotExist"}]}});
        let all = Exceptions::of(vec![
            exception("all", json!({"all": true}), "2026-06-01T10:00:00Z"),
            exception("over", risk.clone(), "2026-06-01T09:00:00Z"),
            exception("risk", risk, "2026-06-01T10:00:00Z"),
            exception("unlocked", unlocked, "2026-06-01T10:00:00Z"),
        ]);
        let guard = |labels: serde_json::Value| -> Stored {
            let text = json!({"metadata": {"namespace": "n", "name": "g", "labels": labels}}).to_string();
            serde_json::from_str(&text).unwrap()
        };
        let reached = |old, new| -> Vec<String> {
            let now = "2026-06-01T09:30:00Z".parse().unwrap();
            let (old, new) = (guard(old), guard(new));
            let found = all.reached_by_labels(&old, &new, now, crate::core::pause::LONGEST);
            found.map(|exception| exception.name.clone()).collect()
        };
        assert_eq!(reached(json!({"locked": "y"}), json!({"locked": "y", "team": "risk"})), ["risk"]);
        assert_eq!(reached(json!({"locked": "y"}), json!({})), ["unlocked"], "a label can be taken off, too");
        assert!(reached(json!({"team": "risk"}), json!({"team": "risk", "a": "b"})).is_empty());
        assert!(reached(json!({"locked": "y", "team": "risk"}), json!({"locked": "y"})).is_empty());
    }

    #[test]
    fn an_exception_that_is_being_deleted_pauses_nothing_whatever_keeps_it() {
        let exception = |deleted: Option<&str>| {
            let object = json!({
                "metadata": {"namespace": "n", "name": "e", "creationTimestamp": "2026-06-01T08:00:00Z",
                    "deletionTimestamp": deleted, "finalizers": ["example.com/keep"]},
                "spec": {"guards": {"all": true}, "until": "2026-06-01T09:00:00Z", "reason": "r"},
            });
            let mut known = Known::default();
            known.put(serde_json::from_str(&object.to_string()).unwrap());
            known.usable()
        };
        assert_eq!(exception(None).all().count(), 1);
        assert_eq!(exception(Some("2026-06-01T08:10:00Z")).all().count(), 0);
    }
}
