//! Puts approved content back: looks, fetches, verifies, writes, and reads back.
//!
//! Nothing is written that does not hash to what the guard approves. Before each write it is asked again
//! whether this replica still leads, and whether the guard still stands as it was and is not paused. The write
//! passes our own webhook like anybody's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request};
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use kube::core::Status;
use tokio::time::Instant;

use crate::api::DriftGuardSpec;
use crate::api::names;
use crate::control::access::{self, Subject};
use crate::control::lease::Fence;
use crate::core::audit::candidate::Candidate;
use crate::core::audit::restore::{self, Planned, Unplannable, Write};
use crate::core::author_access::{Aim, needed};
use crate::core::canonical::hash_object;
use crate::core::guard::{Author, Authorship, Guard, GuardState, Target, url_segment};
use crate::core::guard_spec::rival;
use crate::sources::{SourceReport, Sources, Verified, Verify};
use crate::store::Store;

/// Longest one request to the API server may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it is tried to make an object again that was deleted for that.
const MAKE_AGAIN: Duration = Duration::from_secs(30);
/// How often one attempt looks again when somebody else writes the object between look and write.
const LOOKS: usize = 3;
/// How long what we were told about our own rights counts.
const RIGHTS_FOR: Duration = Duration::from_secs(60);
/// The API group whose objects grant rights: writing them takes `escalate` and `bind`, which nobody should
/// give to a machine.
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// What is to be restored.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// The guard, as it was when drift was found.
    pub(super) guard: Arc<Guard>,
    /// Its spec, for the sources.
    pub(super) spec: Arc<DriftGuardSpec>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The approved content stands there again, read back and verified.
    Restored {
        /// Where it came from.
        source: String,
    },
    /// It stood there already.
    AlreadyRight,
    /// No source had it; nothing was changed.
    NoVerifiedSource,
    /// The guard changed, was paused or is gone, or another replica leads: nothing was changed.
    GivenUp(String),
    /// A right is missing, or the kind is never written: nothing was changed.
    NotAllowed(String),
    /// The object or its namespace is being deleted: nothing is written there.
    Terminating,
    /// Somebody else kept writing the object between look and write: nothing was changed.
    Overtaken,
    /// Something failed; it may be tried again.
    Failed(String),
}

/// One attempt.
#[derive(Debug, Clone)]
pub(super) struct Attempted {
    /// How it ended.
    pub(super) outcome: Outcome,
    /// What each source said, in the order of asking; empty when none was asked.
    pub(super) sources: Vec<SourceReport>,
}

impl Outcome {
    /// A stable word for Events, records and receivers.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Restored { .. } => "Restored",
            Self::AlreadyRight => "AlreadyRight",
            Self::NoVerifiedSource => "NoVerifiedSource",
            Self::GivenUp(_) => "GivenUp",
            Self::NotAllowed(_) => "NotAllowed",
            Self::Terminating => "Terminating",
            Self::Overtaken => "Overtaken",
            Self::Failed(_) => "Failed",
        }
    }
}

impl From<Outcome> for Attempted {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, sources: Vec::new() }
    }
}

/// What putting back takes: a target that is gone is made again, one that cannot be changed is deleted first.
const VERBS: [&str; 3] = ["patch", "create", "delete"];

/// What an attempt that runs and whoever began it tell each other.
#[derive(Debug, Default)]
pub(super) struct Attempting {
    given_up: AtomicBool,
    replacing: AtomicBool,
}

impl Attempting {
    /// It is no longer wanted: it ends before its next write.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Whether the object is absent since the attempt itself has deleted it, to make it again.
    pub(super) fn is_replacing(&self) -> bool {
        self.replacing.load(Ordering::Acquire)
    }

    /// Says so until what is given back is dropped.
    fn replaces(&self) -> Replacing<'_> {
        self.replacing.store(true, Ordering::Release);
        Replacing(self)
    }
}

struct Replacing<'a>(&'a Attempting);

impl Drop for Replacing<'_> {
    fn drop(&mut self) {
        self.0.replacing.store(false, Ordering::Release);
    }
}

/// One verb on one resource of a namespace.
type Right = (String, String, String, &'static str);

/// Restores, one object at a time for each call.
pub(super) struct Remediation {
    pub(super) client: kube::Client,
    pub(super) store: Store,
    pub(super) fence: Fence,
    pub(super) sources: Arc<Sources>,
    /// Rights of ours that were asked for, and when.
    pub(super) rights: Mutex<HashMap<Right, (bool, Instant)>>,
}

/// Whether candidates are what a guard approves, tried on its live object.
struct Trial<'a> {
    remediation: &'a Remediation,
    guard: &'a Guard,
    live: Option<&'a [u8]>,
}

impl Verify for Trial<'_> {
    async fn verify(&self, candidate: &Candidate) -> Verified {
        self.remediation.verify(self.guard, self.live, candidate).await
    }
}

impl Remediation {
    /// Restores the target of a guard, if that may be done and a source has what is approved.
    pub(super) async fn restore(&self, job: &Job, given_up: &Attempting) -> Attempted {
        let guard = &job.guard;
        if given_up.is_given_up() {
            return Outcome::GivenUp("the guard was changed".into()).into();
        }
        let author = match self.author(guard) {
            Ok(author) => Subject::from(author),
            Err(why) => return why.into(),
        };
        // Drift lasts for as long as all this takes: what does not need the other's answer is asked at once.
        let (ours, theirs, mut live) =
            tokio::join!(self.may_write(guard), self.author_may_write(guard, &author), self.look(guard));
        if let Err(why) = ours.and(theirs) {
            return why.into();
        }
        let mut looks = 1;
        loop {
            let attempted = match live {
                Ok(live) => self.restore_as_seen(job, &author, live.as_deref(), given_up).await,
                Err(outcome) => outcome.into(),
            };
            if !looks_again(&attempted.outcome, looks) {
                return attempted;
            }
            looks += 1;
            live = self.look(guard).await;
        }
    }

    /// Restores what was seen.
    async fn restore_as_seen(
        &self,
        job: &Job,
        author: &Subject,
        live: Option<&[u8]>,
        given_up: &Attempting,
    ) -> Attempted {
        let guard = &job.guard;
        let trial = Trial { remediation: self, guard, live };
        let found = self.sources.approved(guard, &job.spec, Some(author), &trial).await;
        let outcome = match found.found {
            // Of other kinds candidates are tried on what was seen, which somebody may have written since.
            None if guard.scope.has_server_defaults() => {
                self.unless_overtaken(guard, live, Outcome::NoVerifiedSource).await
            }
            None => Outcome::NoVerifiedSource,
            Some((candidate, source)) => match self.write(guard, live, &candidate, given_up).await {
                Ok(()) => Outcome::Restored { source },
                Err(outcome) => outcome,
            },
        };
        Attempted { outcome, sources: found.reports }
    }

    /// What each source has for the guard, verified, without writing anything.
    pub(super) async fn ask_sources(&self, job: &Job) -> Vec<SourceReport> {
        let guard = &job.guard;
        let live = match self.read(&guard.target.url_path()).await {
            Ok(live) => live,
            Err(_) => return Vec::new(),
        };
        let author = match &guard.authorship {
            Authorship::Signed(author) => Some(Subject::from(author.as_ref())),
            Authorship::Unknown => None,
        };
        let trial = Trial { remediation: self, guard, live: live.as_deref() };
        self.sources.approved(guard, &job.spec, author.as_ref(), &trial).await.reports
    }

    /// Who approved the guard, if anything is written for it at all as far as that is known by itself.
    fn author<'a>(&self, guard: &'a Guard) -> Result<&'a Author, Outcome> {
        if guard.target.group == RBAC_GROUP {
            return Err(Outcome::NotAllowed(format!(
                "objects of {RBAC_GROUP} are guarded but never written: that takes the rights escalate and bind"
            )));
        }
        let Authorship::Signed(author) = &guard.authorship else {
            return Err(Outcome::NotAllowed(format!(
                "nobody is known to have approved the guard; look at it, then `driftguard adopt -n {} {}`",
                guard.id.namespace, guard.id.name
            )));
        };
        // Where a right is missing nothing else is asked, again and again.
        let now = Instant::now();
        let lacking =
            VERBS.into_iter().find(|verb| self.known(&right(&guard.target, verb), now) == Some(false));
        lacking.map_or(Ok(author.as_ref()), |verb| Err(not_allowed(&guard.target, verb)))
    }

    /// Whether we may write the target.
    async fn may_write(&self, guard: &Guard) -> Result<(), Outcome> {
        let asked = VERBS.map(|verb| self.allows_us(&guard.target, verb));
        for (verb, allowed) in VERBS.into_iter().zip(futures::future::join_all(asked).await) {
            if !allowed? {
                return Err(not_allowed(&guard.target, verb));
            }
        }
        Ok(())
    }

    /// Whether whoever approved the guard may still write its target.
    async fn author_may_write(&self, guard: &Guard, author: &Subject) -> Result<(), Outcome> {
        let rights = needed(&Aim::Known(guard.target.clone()), true, &[]);
        let asked = access::missing(&self.client, author, &rights);
        match tokio::time::timeout(REQUEST_TIMEOUT, asked).await {
            Ok(Ok(missing)) if missing.is_empty() => Ok(()),
            Ok(Ok(missing)) => {
                let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
                Err(Outcome::NotAllowed(format!(
                    "whoever approved the guard, {}, may no longer {}",
                    author.user,
                    missing.join(", ")
                )))
            }
            Ok(Err(error)) => Err(Outcome::Failed(error.to_string())),
            Err(_) => Err(Outcome::Failed("the API server did not tell the author's rights in time".into())),
        }
    }

    /// What we were told about a right of ours lately.
    fn known(&self, right: &Right, now: Instant) -> Option<bool> {
        let known = self.rights.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(right).filter(|(_, at)| now < *at + RIGHTS_FOR).map(|(allowed, _)| *allowed)
    }

    async fn allows_us(&self, target: &Target, verb: &'static str) -> Result<bool, Outcome> {
        let right = right(target, verb);
        let now = Instant::now();
        if let Some(allowed) = self.known(&right, now) {
            return Ok(allowed);
        }
        let attributes = ResourceAttributes {
            group: Some(right.0.clone()),
            resource: Some(right.1.clone()),
            namespace: Some(right.2.clone()).filter(|namespace| !namespace.is_empty()),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let asked = tokio::time::timeout(REQUEST_TIMEOUT, access::allows_us(&self.client, attributes)).await;
        let failed =
            |why: String| Outcome::Failed(format!("the API server did not tell our own rights: {why}"));
        let allowed =
            asked.map_err(|_| failed("no answer in time".into()))?.map_err(|e| failed(e.to_string()))?;
        self.rights.lock().unwrap_or_else(PoisonError::into_inner).insert(right, (allowed, now));
        Ok(allowed)
    }

    /// The live object, when something may be written to it or in its place.
    async fn look(&self, guard: &Guard) -> Result<Option<Vec<u8>>, Outcome> {
        let path = guard.target.url_path();
        let (live, namespace) = tokio::join!(self.read(&path), self.namespace_stays(guard));
        let live = live?;
        if let Some(live) = &live {
            let unreadable = |problem| Outcome::Failed(format!("the object cannot be read: {problem}"));
            if restore::is_terminating(live).map_err(unreadable)? {
                return Err(Outcome::Terminating);
            }
            if is_right(live, guard) {
                return Err(Outcome::AlreadyRight);
            }
        }
        namespace.map(|()| live)
    }

    /// Whether the namespace of the target is there and is not going.
    async fn namespace_stays(&self, guard: &Guard) -> Result<(), Outcome> {
        let Some(namespace) = &guard.target.namespace else { return Ok(()) };
        let failed = |error| Outcome::Failed(format!("namespace {namespace} cannot be read: {error}"));
        let read = tokio::time::timeout(REQUEST_TIMEOUT, self.store.read_namespace(namespace)).await;
        let read =
            read.map_err(|_| Outcome::Failed(format!("namespace {namespace} was not read in time")))?;
        match read.map_err(failed)? {
            Some(found) if !restore::is_terminating(&found).unwrap_or(true) => Ok(()),
            Some(_) => Err(Outcome::Terminating),
            None => Err(Outcome::Failed(format!("there is no namespace {namespace}"))),
        }
    }

    /// An object as it stands; `None` when there is none.
    pub(super) async fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Outcome> {
        let request = request(Method::GET, path, None, Vec::new())?;
        let name = path.rsplit('/').next().unwrap_or_default();
        match self.send(request).await {
            Ok(object) => Ok(Some(object)),
            // Of exactly this object: a kind that is not served is not found either.
            Err(refused) if refused.code == 404 && url_segment(&refused.about) == name => Ok(None),
            Err(refused) => Err(Outcome::Failed(format!("the object could not be read: {}", refused.told()))),
        }
    }

    /// Whether a candidate is what the guard approves: by its own hash, or by that of what a dry run of its
    /// write would store.
    async fn verify(&self, guard: &Guard, live: Option<&[u8]>, candidate: &Candidate) -> Verified {
        let other = || "its content is not what is approved".to_owned();
        let told = |is_it| if is_it { Verified::Matched } else { Verified::Mismatch(other()) };
        if !guard.scope.has_server_defaults() {
            return told(is_approved(&candidate.object, guard));
        }
        // Of other kinds even content of the right hash is tried: the server may fill in more, or drop what its
        // schema does not know.
        let planned =
            match restore::plan(live, &candidate.object, candidate.origin, &guard.target, &guard.scope) {
                Ok(planned) => planned,
                Err(Unplannable::AlreadyRight) => {
                    return told(live.is_some_and(|live| is_approved(live, guard)));
                }
                Err(problem) => return Verified::Mismatch(format!("it cannot be put back: {problem}")),
            };
        let request = match &planned.write {
            Write::Patch(patch) => patch_request(&guard.target, &hash_query(), patch),
            Write::Create(object) => create_request(&guard.target, &hash_query(), object),
            Write::Replace { .. } => {
                return Verified::Unavailable("what cannot be changed cannot be tried either".into());
            }
        };
        let Ok(request) = request else { return Verified::Unavailable("it could not be tried".into()) };
        match self.send(request).await {
            Ok(stored) if is_approved(&stored, guard) => Verified::Matched,
            Ok(_) => Verified::Mismatch(other()),
            Err(refused) if refused.is_ours() => Verified::Mismatch(other()),
            Err(refused) if refused.code == 403 && refused.message.contains(" cannot ") => {
                Verified::CannotDryRun(format!(
                    "it could not be tried, since DriftGuard may not write {}",
                    guard.target.resource
                ))
            }
            Err(refused) => Verified::Unavailable(format!("it could not be tried: {}", refused.told())),
        }
    }

    /// Whether the guard still wants what it wanted, and we may still act.
    fn still(&self, guard: &Guard, stop: &Attempting) -> Result<(), Outcome> {
        let given_up = |why: &str| Outcome::GivenUp(why.to_owned());
        if stop.is_given_up() {
            return Err(given_up("it is no longer wanted"));
        }
        self.fence.check().map_err(|_| given_up("another replica may lead now"))?;
        let observation = self.store.observations().borrow().clone();
        let seen = observation.guard(&guard.id).ok_or_else(|| given_up("the guard is gone"))?;
        let GuardState::Valid(now) = &seen.state else {
            return Err(given_up("the guard cannot be used now"));
        };
        if now.uid != guard.uid || now.generation != guard.generation {
            return Err(given_up("the guard was changed"));
        }
        if now.paused(Timestamp::now()).is_some() {
            return Err(given_up("the guard was paused"));
        }
        if rival(&seen.state, observation.index.guards_of(&guard.target)).is_some() {
            return Err(given_up("another guard pins the same object otherwise"));
        }
        Ok(())
    }

    /// Writes, reads back and verifies.
    async fn write(
        &self,
        guard: &Guard,
        live: Option<&[u8]>,
        candidate: &Candidate,
        given_up: &Attempting,
    ) -> Result<(), Outcome> {
        let planned =
            match restore::plan(live, &candidate.object, candidate.origin, &guard.target, &guard.scope) {
                Ok(planned) => planned,
                Err(Unplannable::AlreadyRight) => return Err(Outcome::AlreadyRight),
                Err(Unplannable::Terminating) => return Err(Outcome::Terminating),
                Err(problem) => return Err(Outcome::Failed(problem.to_string())),
            };
        if !guard.scope.has_server_defaults() && !is_approved(&planned.result, guard) {
            return Err(Outcome::Failed("what would be written is not what is approved".into()));
        }
        self.still(guard, given_up)?;
        self.carry_out(guard, live, &planned, given_up).await?;
        match self.read(&guard.target.url_path()).await? {
            Some(stored) if is_approved(&stored, guard) => Ok(()),
            _ => Err(Outcome::Failed(
                "it was written, but what stands there is not what is approved: something changes it on the way or at once"
                    .into(),
            )),
        }
    }

    /// How an attempt ended that changed nothing, unless it could not but fail: somebody else has written the
    /// object since it was seen.
    async fn unless_overtaken(&self, guard: &Guard, seen: Option<&[u8]>, outcome: Outcome) -> Outcome {
        match self.read(&guard.target.url_path()).await {
            Ok(now) if restore::has_moved_on(seen, now.as_deref()) => Outcome::Overtaken,
            _ => outcome,
        }
    }

    async fn carry_out(
        &self,
        guard: &Guard,
        live: Option<&[u8]>,
        planned: &Planned,
        attempting: &Attempting,
    ) -> Result<(), Outcome> {
        let target = &guard.target;
        let query = format!("fieldManager={}", names::FIELD_MANAGER);
        let request = match &planned.write {
            Write::Patch(patch) => patch_request(target, &query, patch)?,
            Write::Create(object) => create_request(target, &query, object)?,
            Write::Replace { uid, resource_version, object } => {
                let making = create_request(target, &query, object)?;
                return self.replace(guard, live, (uid, resource_version), making, attempting).await;
            }
        };
        match self.send(request).await {
            Ok(_) => Ok(()),
            Err(refused) => Err(self.unless_overtaken(guard, live, refused.into_outcome()).await),
        }
    }

    /// Deletes exactly the object that was seen, of this uid and resource version, and makes another.
    async fn replace(
        &self,
        guard: &Guard,
        live: Option<&[u8]>,
        (uid, resource_version): (&str, &str),
        making: Request<Vec<u8>>,
        attempting: &Attempting,
    ) -> Result<(), Outcome> {
        let options = serde_json::json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid, "resourceVersion": resource_version},
            // As `kubectl replace --force` does it. `Orphan` would leave the drifted content standing, and
            // nothing in its place, until the garbage collector has come by.
            "propagationPolicy": "Background",
        });
        let path = guard.target.url_path();
        let deletion = request(Method::DELETE, &path, Some("application/json"), options.to_string().into())?;
        // A watch may tell of the deletion before this hears of it.
        let _replacing = attempting.replaces();
        if let Err(refused) = self.send(deletion).await {
            // An answer that was lost tells nothing: what is gone now is taken to be gone by us, so that what
            // stood beside the approved content is made again with it.
            let is_gone = refused.code == 0 && matches!(self.read(&path).await, Ok(None));
            if !is_gone {
                return Err(self.unless_overtaken(guard, live, refused.into_outcome()).await);
            }
        }
        // From here on it must be made again, whatever is wanted now: nobody asked for its deletion. So it goes
        // on although whoever waits for it is stopped.
        let made = tokio::spawn(make_again(self.client.clone(), making)).await;
        made.map_err(|_| Outcome::Failed("making it again was interrupted".into()))?
            .map_err(Refused::into_outcome)
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Result<Vec<u8>, Refused> {
        send(&self.client, request).await
    }
}

/// Whether an attempt that has looked so often looks once more: somebody else has written the object meanwhile.
fn looks_again(outcome: &Outcome, looks: usize) -> bool {
    *outcome == Outcome::Overtaken && looks < LOOKS
}

async fn send(client: &kube::Client, request: Request<Vec<u8>>) -> Result<Vec<u8>, Refused> {
    match tokio::time::timeout(REQUEST_TIMEOUT, client.request_text(request)).await {
        Ok(Ok(text)) => Ok(text.into_bytes()),
        Ok(Err(kube::Error::Api(status))) => Err(Refused::of(&status)),
        Ok(Err(error)) => Err(Refused::silent(error.to_string())),
        Err(_) => Err(Refused::silent("no answer in time".to_owned())),
    }
}

/// Makes an object that was just deleted, until it stands there or somebody else has made one.
async fn make_again(client: kube::Client, request: Request<Vec<u8>>) -> Result<(), Refused> {
    let until = Instant::now() + MAKE_AGAIN;
    let mut pause = Duration::from_millis(100);
    loop {
        let mut again = Request::new(request.body().clone());
        *again.method_mut() = request.method().clone();
        *again.uri_mut() = request.uri().clone();
        *again.headers_mut() = request.headers().clone();
        match send(&client, again).await {
            Ok(_) => return Ok(()),
            // It is there: made by an attempt whose answer was lost, or by somebody else.
            Err(refused) if refused.code == 409 && refused.reason == "AlreadyExists" => return Ok(()),
            Err(refused) if Instant::now() + pause > until => return Err(refused),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Why the API server did not do it; code 0 when it did not answer.
#[derive(Debug)]
struct Refused {
    code: u16,
    reason: String,
    /// The name of the object that it is about, where it says so.
    about: String,
    /// Its first line. It may quote what was sent, so that it is never told.
    message: String,
}

impl Refused {
    fn of(status: &Status) -> Self {
        let message = status.message.lines().next().unwrap_or_default();
        Self {
            code: status.code,
            reason: status.reason.clone(),
            about: status.details.as_ref().map(|details| details.name.clone()).unwrap_or_default(),
            message: message.chars().take(300).collect(),
        }
    }

    /// What becomes of an attempt by it.
    fn into_outcome(self) -> Outcome {
        Outcome::Failed(format!("the write was refused: {}", self.told()))
    }

    fn silent(message: String) -> Self {
        Self { code: 0, reason: String::new(), about: String::new(), message }
    }

    /// What may be said of it: a refusal may quote values, and those of a source may be a Secret's.
    fn told(&self) -> String {
        match self.code {
            0 => self.message.clone(),
            code if self.reason.is_empty() => format!("HTTP status {code}"),
            code => format!("{} (HTTP status {code})", self.reason),
        }
    }

    /// Whether it was our own webhook that refused.
    fn is_ours(&self) -> bool {
        let webhook =
            self.message.split_once(" denied the request: ").and_then(|(head, _)| head.split('"').nth(1));
        self.code == 403 && webhook.is_some_and(|webhook| webhook.ends_with(&format!(".{}", names::GROUP)))
    }
}

/// A right to the target's resource, where the target is.
fn right(target: &Target, verb: &'static str) -> Right {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    (target.group.as_str().to_owned(), target.resource.as_str().to_owned(), namespace.to_owned(), verb)
}

fn not_allowed(target: &Target, verb: &str) -> Outcome {
    Outcome::NotAllowed(format!(
        "DriftGuard may not {verb} {}; install the remediation rights (deploy/remediation), or add a ClusterRole with them",
        target.resource
    ))
}

/// Whether an object holds what is to be put back, or what the API server now reads in its place.
fn is_approved(object: &[u8], guard: &Guard) -> bool {
    hash_object(object, &guard.scope)
        .is_ok_and(|hash| hash == guard.expected || guard.equivalents.contains(&hash))
}

/// Whether nothing need be done about an object: it may hold anything that the guard lets pass.
fn is_right(object: &[u8], guard: &Guard) -> bool {
    hash_object(object, &guard.scope).is_ok_and(|hash| guard.approves(hash, Timestamp::now()))
}

/// A dry run that our own webhook answers as it came.
fn hash_query() -> String {
    format!("dryRun=All&fieldManager={}{}", names::HASH_FIELD_MANAGER_PREFIX, uuid::Uuid::now_v7().simple())
}

fn patch_request(target: &Target, query: &str, patch: &[u8]) -> Result<Request<Vec<u8>>, Outcome> {
    let path = format!("{}?{query}", target.url_path());
    request(Method::PATCH, &path, Some("application/json-patch+json"), patch.to_vec())
}

fn create_request(target: &Target, query: &str, object: &[u8]) -> Result<Request<Vec<u8>>, Outcome> {
    let path = target.url_path();
    let list = path.rsplit_once('/').map_or("", |(list, _)| list);
    request(Method::POST, &format!("{list}?{query}"), Some("application/json"), object.to_vec())
}

fn request(
    method: Method,
    path: &str,
    content_type: Option<&str>,
    body: Vec<u8>,
) -> Result<Request<Vec<u8>>, Outcome> {
    let mut request =
        Request::builder().method(method).uri(path).header(http::header::ACCEPT, "application/json");
    if let Some(content_type) = content_type {
        request = request.header(http::header::CONTENT_TYPE, content_type);
    }
    request.body(body).map_err(|error| Outcome::Failed(format!("no request can be made of {path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_first_line_and_ours_by_the_name_of_the_webhook() {
        let of = |message: &str| Refused { code: 403, ..Refused::silent(message.to_owned()) };
        assert!(
            of(r#"admission webhook "see-x.terrafusion.ai" denied the request: DriftGuard a/b"#).is_ours()
        );
        assert!(!of(r#"admission webhook "evil.example.com" denied the request: no"#).is_ours());
        assert!(!of("configmaps is forbidden: User \"x\" cannot patch").is_ours());
    }

    #[test]
    fn a_refusal_is_told_without_what_it_may_quote() {
        let quoting = Refused {
            code: 422,
            reason: "Invalid".into(),
            ..Refused::silent(r#"spec.image: Invalid value: "hunter2""#.into())
        };
        assert_eq!(quoting.told(), "Invalid (HTTP status 422)");
        assert_eq!(Refused::silent("no answer in time".into()).told(), "no answer in time");
    }

    #[test]
    fn an_attempt_that_somebody_overtakes_looks_again_and_does_not_go_on_for_ever() {
        let looks = |outcome: &Outcome| (1..).find(|looks| !looks_again(outcome, *looks));
        assert_eq!(looks(&Outcome::Overtaken), Some(LOOKS));
        assert_eq!(looks(&Outcome::Failed("forbidden".into())), Some(1));
        assert_eq!(looks(&Outcome::Restored { source: "git".into() }), Some(1));
    }

    #[test]
    fn an_object_is_made_in_the_list_of_its_kind() {
        let target = Target {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            resource: "deployments".into(),
            namespace: Some("n".into()),
            name: "x".into(),
        };
        let made =
            create_request(&target, "fieldManager=driftguard", b"{}").map(|made| made.uri().to_string());
        assert_eq!(
            made.ok().as_deref(),
            Some("/apis/apps/v1/namespaces/n/deployments?fieldManager=driftguard")
        );
    }
}
