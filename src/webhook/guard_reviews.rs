//! Reviews of guards themselves: changing a guard is approving a change.
//!
//! The mutating hook signs whoever makes a guard or changes its spec; the gate takes nothing that is
//! not signed by exactly this user, and asks the API server whether they have the rights that the guard
//! takes. The target is looked at only after that, so that a refusal tells nothing about it. Everything
//! is bounded by the time that the API server gives. The rules are the core's ([`author`],
//! [`guard_spec`], [`crate::core::author_access`]).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::own_review::{OwnAnswer, Request, Review};
use super::reviews::Asked;
use super::{response, rivals};
use crate::api::names;
use crate::cert::signing::SigningKeys;
use crate::control::access::{self, Subject};
use crate::core::author::{self, AnnotationKeys, Approved, Change, Image};
use crate::core::guard::{Author, GuardId, Signer};
use crate::core::guard_spec::{self, Refusal};
use crate::core::signature::SigningKey;
use crate::core::verdict::Operation;
use crate::store::{Key, Proposed, Store, Stored};
use crate::telemetry::notices::{Notice, NoticeSink};
use crate::trail::record::{OwnAttempt, OwnKind};

use requested::with_requested;

mod requested;

/// The part of the API server's time after which asking is given up, so that our answer still arrives.
const SHARE: f64 = 0.8;
/// Reviews that ask the API server at once: each asks for a dozen rights and one LIST by our own client,
/// on which leases and statuses depend as well. Further ones wait within their own time.
const AT_ONCE: usize = 8;
/// The keys of our annotations.
const KEYS: AnnotationKeys<'static> =
    AnnotationKeys { author: names::ANNOTATION_AUTHOR, adopt: names::ANNOTATION_ADOPT };

/// What reviews of guards, and of exceptions to them, are decided by.
pub struct GuardReviews {
    /// The client that asks for rights, and for metadata of targets.
    pub client: Client,
    /// Kinds and guards.
    pub store: Store,
    /// The key that signs authors.
    pub keys: SigningKeys,
    /// How long enforcement may be suspended (`--max-exception`).
    pub longest_pause: SignedDuration,
    /// Where deletions are told.
    pub notices: NoticeSink,
    /// Bounds what is asked for at once.
    pub room: GuardRoom,
}

/// Room for reviews of guards that ask the API server.
#[derive(Debug)]
pub struct GuardRoom(pub(super) Semaphore);

impl Default for GuardRoom {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

impl std::fmt::Debug for GuardReviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuardReviews").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(default)]
    metadata: WireMeta,
    #[serde(borrow)]
    spec: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMeta {
    name: String,
    generate_name: String,
    namespace: String,
    annotations: Option<BTreeMap<String, String>>,
}

impl Wire<'_> {
    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    fn image(&self) -> Image<'_> {
        Image {
            spec: self.spec.map_or(b"null", |spec| spec.get().as_bytes()),
            author: self.annotation(KEYS.author),
            adopt: self.annotation(KEYS.adopt).is_some(),
        }
    }
}

/// A review that was read.
struct Asking<'a> {
    request: Request<'a>,
    operation: Operation,
    new: Option<Wire<'a>>,
    old: Option<Wire<'a>>,
}

impl<'a> Asking<'a> {
    /// `None` when this is no review of a guard.
    fn read(body: &'a [u8]) -> Option<Self> {
        let Review { request } = serde_json::from_slice(body).ok()?;
        let ours = request.resource.group == names::GROUP && request.resource.resource == names::DRIFTGUARDS;
        let operation = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect]
            .into_iter()
            .find(|operation| operation.as_str() == request.operation)?;
        let wire = |object: Option<&'a RawValue>| match object {
            None => Some(None),
            Some(raw) => serde_json::from_str::<Wire<'a>>(raw.get()).ok().map(Some),
        };
        let (new, old) = (wire(request.object)?, wire(request.old_object)?);
        let needs = match operation {
            Operation::Create => new.is_some(),
            Operation::Update => new.is_some() && old.is_some(),
            Operation::Delete => old.is_some(),
            Operation::Connect => true,
        };
        (ours && needs && !request.uid.is_empty()).then_some(Self { request, operation, new, old })
    }

    fn id(&self) -> GuardId {
        let (namespace, name) = self
            .new
            .as_ref()
            .or(self.old.as_ref())
            .map_or(("", ""), |wire| (wire.metadata.namespace.as_str(), wire.metadata.name.as_str()));
        let namespace = if namespace.is_empty() { self.request.namespace.as_str() } else { namespace };
        GuardId { namespace: namespace.into(), name: name.into() }
    }

    fn author(&self, at: Timestamp) -> Author {
        let user = &self.request.user_info;
        let signer = Signer { user: user.username.clone(), groups: user.groups.clone() };
        Author { signer: Arc::new(signer), at }
    }

    fn subject(&self) -> Subject {
        let user = &self.request.user_info;
        Subject {
            user: user.username.clone(),
            groups: user.groups.clone(),
            uid: (!user.uid.is_empty()).then(|| user.uid.clone()),
            extra: user.extra.clone(),
        }
    }

    /// What is recorded of it; nothing of a dry run.
    fn told(
        &self,
        refusal: Option<&Refusal>,
        done: &'static str,
        proposed: Option<&Proposed>,
    ) -> Option<OwnAttempt> {
        let stored = self.request.object.or(self.request.old_object);
        let stored: Option<Stored> = stored.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let kind = OwnKind::Guard {
            generation: stored.as_ref().map(Stored::generation).unwrap_or_default(),
            target: proposed.and_then(|proposed| proposed.state.target().cloned()),
        };
        let uid = stored.as_ref().map(|stored| stored.uid().as_str().to_owned()).unwrap_or_default();
        self.request.told(self.operation, (self.id(), uid), kind, refusal, done)
    }
}

/// What the gate decided.
struct Decision {
    proposed: Option<Proposed>,
    result: Result<Vec<String>, Refusal>,
}

impl GuardReviews {
    /// Answers the mutating hook, which never refuses. `None` when this is no review of a guard.
    pub(super) fn mutate(&self, body: &[u8], now: Timestamp) -> Option<OwnAnswer> {
        let asking = Asking::read(body)?;
        let patch = self.signature(&asking, now);
        let uid = &asking.request.uid;
        let reply = match patch {
            Some(patch) => response::allow_with_patch(uid, &[], &patch, None),
            None => response::allow(uid, &[]),
        };
        Some(OwnAnswer {
            verdict: "allow",
            reason: "Mutate",
            reply,
            told: None,
            transaction_id: String::new(),
        })
    }

    /// The patch that signs what is written, or puts back the signature that stood there.
    fn signature(&self, asking: &Asking<'_>, now: Timestamp) -> Option<Vec<u8>> {
        let new = asking.new.as_ref()?;
        if !matches!(asking.operation, Operation::Create | Operation::Update) {
            return None;
        }
        let (image, before) = (new.image(), asking.old.as_ref().map(Wire::image));
        let signed;
        let wanted = match author::intended(&image, before.as_ref()) {
            Change::Untouched => before.and_then(|old| old.author),
            Change::Created | Change::Changed | Change::Adopted => {
                // Without a key or a name nothing is signed, and the gate refuses.
                let id = asking.id();
                let approved = Approved { namespace: &id.namespace, name: &id.name, spec: image.spec };
                signed = author::sign(&self.keys.current()?, approved, &asking.author(now))?;
                Some(signed.as_str())
            }
        };
        author::patch(&image, new.metadata.annotations.is_some(), wanted, KEYS)
    }

    /// Answers the gate. `None` when this is no review of a guard.
    pub(super) async fn validate(&self, body: &[u8], asked: Asked, now: Timestamp) -> Option<OwnAnswer> {
        let asking = Asking::read(body)?;
        let uid = asking.request.uid.clone();
        let allowed = |reason, warnings: &[String], told| OwnAnswer::allowed(&uid, reason, warnings, told);
        let new = match (asking.operation, &asking.new) {
            (Operation::Delete, _) => {
                let told = asking.told(None, "GuardDeleted", None);
                if let Some(told) = &told {
                    self.announce_deletion(told);
                }
                return Some(allowed("GuardDeleted", &[], told));
            }
            (Operation::Create | Operation::Update, Some(new)) => new,
            _ => return Some(allowed("NotGuarded", &[], None)),
        };
        let image = new.image();
        let change = author::arrived(&image, asking.old.as_ref().map(Wire::image).as_ref());
        let deadline = Instant::from_std(asked.since) + asked.timeout.mul_f64(SHARE);
        let relabelled = match self.relabelled_by(&asking, now, deadline).await {
            Ok(relabelled) => relabelled,
            Err(refusal) => {
                let told = asking.told(Some(&refusal), refusal.reason, None);
                return Some(OwnAnswer::refused(&uid, &refusal, told));
            }
        };
        let requested = asking.requested();
        let done = match change {
            Change::Untouched if !requested.is_empty() => {
                let done = requested.first().map_or("Approved", |first| first.reason);
                if let Err(refusal) = self.may_ask(&asking, deadline).await {
                    return Some(OwnAnswer::refused(&uid, &refusal, asking.told(Some(&refusal), done, None)));
                }
                self.announce_requested(&asking, &requested);
                if let Some(warning) = &relabelled {
                    self.announce_relabelling(&asking, warning);
                }
                let warnings: Vec<String> = relabelled.into_iter().collect();
                return Some(allowed(
                    done,
                    &warnings,
                    with_requested(asking.told(None, done, None), &requested),
                ));
            }
            Change::Untouched => {
                let Some(warning) = relabelled else { return Some(allowed("Approved", &[], None)) };
                self.announce_relabelling(&asking, &warning);
                let told = asking.told(None, "GuardExcepted", None);
                let told = told.map(|told| OwnAttempt { message: warning.clone(), ..told });
                return Some(allowed("GuardExcepted", &[warning], told));
            }
            Change::Created => "GuardCreated",
            Change::Changed => "GuardChanged",
            Change::Adopted => "GuardAdopted",
        };
        let Decision { proposed, result } = self.decide(&asking, change, &image, now, deadline).await;
        let told = asking.told(result.as_ref().err(), done, proposed.as_ref());
        Some(match result {
            Ok(warnings) => {
                self.announce_requested(&asking, &requested);
                if let Some(warning) = &relabelled {
                    self.announce_relabelling(&asking, warning);
                }
                let all: Vec<String> = relabelled.into_iter().chain(warnings).collect();
                allowed(done, &all, with_requested(told, &requested))
            }
            Err(refusal) => OwnAnswer::refused(&uid, &refusal, told),
        })
    }

    /// What to say of labels that bring the guard under exceptions.
    async fn relabelled_by(
        &self,
        asking: &Asking<'_>,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Option<String>, Refusal> {
        let stored = |raw: Option<&RawValue>| serde_json::from_str::<Stored>(raw?.get()).ok();
        let (old, new) = (stored(asking.request.old_object), stored(asking.request.object));
        let (Operation::Update, Some(old), Some(new)) = (asking.operation, old, new) else { return Ok(None) };
        self.relabelled(&asking.id(), (&old, &new), &asking.subject(), now, deadline).await
    }

    fn announce_relabelling(&self, asking: &Asking<'_>, warning: &str) {
        if let Some(told) = asking.told(None, "GuardExcepted", None) {
            self.notices.put(Notice {
                guard: told.object,
                uid: told.uid,
                reason: "GuardExcepted",
                note: format!("{} changed its labels: {warning}", told.user.name),
            });
        }
    }

    fn announce_deletion(&self, told: &OwnAttempt) {
        self.notices.put(Notice {
            guard: told.object.clone(),
            uid: told.uid.clone(),
            reason: "GuardDeleted",
            note: format!("{} deletes this guard: nothing pins its target any more", told.user.name),
        });
    }

    async fn decide(
        &self,
        asking: &Asking<'_>,
        change: Change,
        image: &Image<'_>,
        now: Timestamp,
        deadline: Instant,
    ) -> Decision {
        let id = asking.id();
        let refused = |proposed, refusal| Decision { proposed, result: Err(refusal) };
        let generated = asking.new.as_ref().is_some_and(|new| !new.metadata.generate_name.is_empty());
        if change == Change::Created && generated {
            return refused(None, guard_spec::generated_name(&id.namespace));
        }
        let Ok(Ok(_permit)) = tokio::time::timeout_at(deadline, self.room.0.acquire()).await else {
            return refused(None, guard_spec::rights_unknown(&id));
        };
        let propose = |raw: Option<&RawValue>| {
            let stored: Stored = serde_json::from_str(raw?.get()).ok()?;
            self.store.propose(&stored)
        };
        let Some(proposed) = propose(asking.request.object) else {
            return refused(None, guard_spec::not_ready(&id, "the kinds that the API server serves"));
        };
        let before = propose(asking.request.old_object);
        let result = async {
            self.field_rules(&id, &proposed, change, now)?;
            self.signed(&id, asking, image, deadline).await?;
            self.rights(&id, asking, &proposed, deadline).await?;
            self.rivals(&id, &proposed, before.as_ref(), deadline).await?;
            Ok(self.warnings(&proposed, change, deadline).await)
        };
        let result = result.await;
        Decision { proposed: Some(proposed), result }
    }

    /// What the spec itself may not say. Adopting changes nothing of it, but a suspension is counted from
    /// when the author is signed: adopting again and again must not prolong it for ever.
    fn field_rules(
        &self,
        id: &GuardId,
        proposed: &Proposed,
        change: Change,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        if let Some((reason, why)) = proposed.objection() {
            return Err(guard_spec::invalid(id, reason, &why));
        }
        let suspend = proposed.spec.as_ref().and_then(|spec| spec.suspend.as_ref());
        let Some(suspend) = suspend else { return Ok(()) };
        let why = match change {
            Change::Adopted if suspend.until.0 > now => Some(guard_spec::adopted_suspension(suspend.until.0)),
            _ => guard_spec::suspension(suspend.until.0, now, self.longest_pause).err(),
        };
        why.map_or(Ok(()), |why| Err(guard_spec::invalid(id, crate::api::reasons::INVALID_SPEC, &why)))
    }

    /// Whether the annotation is the signature of exactly this user for exactly this guard.
    async fn signed(
        &self,
        id: &GuardId,
        asking: &Asking<'_>,
        image: &Image<'_>,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let user = &asking.request.user_info;
        let refusal = || guard_spec::unsigned(id, &user.username);
        let Some(annotation) = image.author.filter(|_| !image.adopt) else { return Err(refusal()) };
        let approved = Approved { namespace: &id.namespace, name: &id.name, spec: image.spec };
        let by_this_user = |key: &SigningKey| {
            author::verify(key, approved, annotation).is_some_and(|author| {
                author.signer.user == user.username && author.signer.groups == user.groups
            })
        };
        if self.keys.current().is_some_and(|key| by_this_user(&key)) {
            return Ok(());
        }
        // Another replica may know a newer key, and have signed with it.
        let key = tokio::time::timeout_at(middle(deadline), self.keys.looked_up_again()).await.ok().flatten();
        match key.or_else(|| self.keys.current()) {
            Some(key) if by_this_user(&key) => Ok(()),
            Some(_) => Err(refusal()),
            None => Err(guard_spec::not_ready(id, "the key that signs authors")),
        }
    }

    /// Whether our key, or the one that it lately replaced, is of this kind; `None` when no key is known in
    /// time. A key that another replica has brought is waited for.
    pub(super) async fn holds_key(
        &self,
        is_ours: impl Fn(&SigningKey) -> bool,
        asked: Asked,
    ) -> Option<bool> {
        if self.keys.accepted().iter().any(&is_ours) {
            return Some(true);
        }
        let deadline = Instant::from_std(asked.since) + asked.timeout.mul_f64(SHARE);
        // An error is a look that did not end in time: what is known has to do.
        let _ = tokio::time::timeout_at(middle(deadline), self.keys.looked_up_again()).await;
        let keys = self.keys.accepted();
        (!keys.is_empty()).then(|| keys.iter().any(is_ours))
    }

    async fn rights(
        &self,
        id: &GuardId,
        asking: &Asking<'_>,
        proposed: &Proposed,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let (subject, needed) = (asking.subject(), proposed.rights());
        let asked = access::missing(&self.client, &subject, &needed);
        match tokio::time::timeout_at(deadline, asked).await {
            Ok(Ok(missing)) if missing.is_empty() => Ok(()),
            Ok(Ok(missing)) => Err(guard_spec::missing_rights(id, &subject.user, &missing)),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the rights of an author could not be checked");
                Err(guard_spec::rights_unknown(id))
            }
            Err(_) => Err(guard_spec::rights_unknown(id)),
        }
    }

    /// Refuses a guard that pins what another one pins already, otherwise; by the index, and once more
    /// as the guards stand at this moment. What pins nothing else than before makes no conflict worse.
    async fn rivals(
        &self,
        id: &GuardId,
        proposed: &Proposed,
        before: Option<&Proposed>,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let Some(target) = proposed.state.target() else { return Ok(()) };
        if before.is_some_and(|before| guard_spec::same_rules(&before.state, &proposed.state)) {
            return Ok(());
        }
        guard_spec::joins(&proposed.state, target, self.store.index().guards_of(target))?;
        let key = Key {
            group: &target.group,
            resource: &target.resource,
            namespace: target.namespace.as_deref().unwrap_or_default(),
            name: &target.name,
        };
        match tokio::time::timeout_at(deadline, self.store.read_guards(key)).await {
            Ok(Ok(live)) => guard_spec::joins(&proposed.state, target, live.guards_of(target)),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the guards of a target could not be read");
                Err(guard_spec::not_ready(id, "the guards of its target"))
            }
            Err(_) => Err(guard_spec::not_ready(id, "the guards of its target")),
        }
    }

    /// What the author should know. Only for whom the rights are clear.
    async fn warnings(&self, proposed: &Proposed, change: Change, deadline: Instant) -> Vec<String> {
        if let Some(unresolved) = proposed.unresolved() {
            return vec![format!("this guard pins nothing yet: {}", unresolved.message)];
        }
        match change {
            Change::Created => {
                let looking = rivals::look(&self.client, &proposed.state);
                tokio::time::timeout_at(deadline, looking).await.ok().flatten().into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Half of what is left until `deadline`: what comes next needs time, too.
pub(super) fn middle(deadline: Instant) -> Instant {
    let left: Duration = deadline.saturating_duration_since(Instant::now());
    Instant::now() + left / 2
}

#[cfg(test)]
#[path = "guard_reviews_tests.rs"]
pub(in crate::webhook) mod tests;
