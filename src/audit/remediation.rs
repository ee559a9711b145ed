//! Puts approved content back: looks, fetches, verifies, writes, and reads back.
//!
//! Nothing is written that does not hash to what the guard approves. Before each write it is asked again
//! whether this replica still leads, and whether the guard still stands as it was and is not paused: as its watch
//! has told, which may lag behind, and as it is read once more, after the target was seen. The write
//! passes our own webhook like anybody's. [`rights`] tells whether it may be made at all, [`requests`] what is sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::api::{DriftGuardSpec, names};
use crate::control::access::Subject;
use crate::control::lease::Fence;
use crate::core::audit::candidate::Candidate;
use crate::core::audit::restore::{self, Planned, Unplannable, Write};
use crate::core::canonical::hash_object;
use crate::core::guard::{Authorship, Guard, GuardState, url_segment};
use crate::core::guard_spec::rival;
use crate::core::standing::Look;
use crate::sources::{SourceReport, Sources, Verified, Verify};
use crate::store::Store;

use requests::{Refused, create_request, hash_query, make_again, patch_request, request, send};
use rights::Right;

mod requests;
mod rights;

/// Longest one request to the API server may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long what was asked beside a status counts.
const PREPARED_FOR: SignedDuration = SignedDuration::from_secs(1);
/// Why an attempt is given up whose guard is no more.
const GONE: &str = "the guard is gone";
/// How often one attempt looks again when somebody else writes the object between look and write.
const LOOKS: usize = 3;

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

/// What was asked of the API server together with the guard's status, so that drift need not last for another
/// question and answer.
pub(super) struct Prepared {
    /// The guard that it was asked for.
    pub(super) of: Arc<Guard>,
    /// Whether the target may be put back.
    pub(super) rights: Result<(), Outcome>,
    /// The target as a watch told of it, in a namespace that stays.
    pub(super) live: Bytes,
    /// When it was asked.
    pub(super) at: Timestamp,
}

impl Prepared {
    /// Whether it still counts for an attempt that begins now.
    fn is_for(&self, guard: &Guard) -> bool {
        let age = Timestamp::now().duration_since(self.at);
        let is_recent = !age.is_negative() && age <= PREPARED_FOR;
        is_recent && self.of.uid == guard.uid && self.of.generation == guard.generation
    }
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
    /// Restores the target of a guard, if that may be done and a source has what is approved. What was
    /// `prepared` is not asked again.
    pub(super) async fn restore(
        &self,
        job: &Job,
        given_up: &Attempting,
        prepared: Option<Prepared>,
    ) -> Attempted {
        let guard = &job.guard;
        if given_up.is_given_up() {
            return Outcome::GivenUp("the guard was changed".into()).into();
        }
        let author = match self.author(guard) {
            Ok(author) => Subject::from(author),
            Err(why) => return why.into(),
        };
        let (rights, mut live) = match prepared.filter(|prepared| prepared.is_for(guard)) {
            // Whoever wrote the object since makes the write fail; then it is looked at.
            Some(Prepared { rights, live, .. }) => (rights, writable(guard, Some(live.into()))),
            // Drift lasts for as long as all this takes: what does not need the other's answer is asked at once.
            None => tokio::join!(self.rights_to(guard), self.look(guard)),
        };
        if let Err(why) = rights {
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

    /// The live object, when something may be written to it or in its place.
    async fn look(&self, guard: &Guard) -> Result<Option<Vec<u8>>, Outcome> {
        let path = guard.target.url_path();
        let (live, namespace) = tokio::join!(self.read(&path), self.namespace_stays(guard));
        let live = writable(guard, live?)?;
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
        let seen = observation.guard(&guard.id).ok_or_else(|| given_up(GONE))?;
        stands(guard, &seen.state, Timestamp::now())?;
        if rival(&seen.state, observation.index.guards_of(&guard.target)).is_some() {
            return Err(given_up("another guard pins the same object otherwise"));
        }
        Ok(())
    }

    /// Whether the guard still wants what it wanted, as it is stored at this moment. What was seen of the target
    /// before cannot have been written since by leave of a newer guard, or the write fails.
    async fn still_stored(&self, guard: &Guard) -> Result<(), Outcome> {
        let failed = |why: String| Outcome::Failed(format!("the guard was not read before writing: {why}"));
        let looked = tokio::time::timeout(REQUEST_TIMEOUT, self.store.look(&guard.id)).await;
        let looked = looked.map_err(|_| failed("no answer in time".into()))?;
        match looked.map_err(|error| failed(error.to_string()))? {
            Look::Stands(state) => stands(guard, &state, Timestamp::now()),
            Look::Gone => Err(Outcome::GivenUp(GONE.to_owned())),
            Look::Unread => Err(failed("no answer".into())),
        }
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
        self.still_stored(guard).await?;
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

/// Whether a guard wants what it wanted before, and is not paused.
fn stands(before: &Guard, now: &GuardState, at: Timestamp) -> Result<(), Outcome> {
    let given_up = |why: &str| Err(Outcome::GivenUp(why.to_owned()));
    let GuardState::Valid(now) = now else { return given_up("the guard cannot be used now") };
    if now.uid != before.uid || now.generation != before.generation {
        return given_up("the guard was changed");
    }
    if now.paused(at).is_some() {
        return given_up("the guard was paused");
    }
    Ok(())
}

/// The live object, when something may be written to it.
fn writable(guard: &Guard, live: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Outcome> {
    if let Some(live) = &live {
        let unreadable = |problem| Outcome::Failed(format!("the object cannot be read: {problem}"));
        if restore::is_terminating(live).map_err(unreadable)? {
            return Err(Outcome::Terminating);
        }
        if is_right(live, guard) {
            return Err(Outcome::AlreadyRight);
        }
    }
    Ok(live)
}

/// Whether an attempt that has looked so often looks once more: somebody else has written the object meanwhile.
fn looks_again(outcome: &Outcome, looks: usize) -> bool {
    *outcome == Outcome::Overtaken && looks < LOOKS
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_beside_a_status_counts_at_once_and_for_that_guard_alone() {
        let guard = Arc::new(crate::audit::watch::test_support::guard("prices", Some("trading"), "settings"));
        let asked = |of: &Arc<Guard>, seconds: i64| Prepared {
            of: Arc::clone(of),
            rights: Ok(()),
            live: Bytes::new(),
            at: Timestamp::now() - SignedDuration::from_secs(seconds),
        };
        assert!(asked(&guard, 0).is_for(&guard));
        assert!(!asked(&guard, 2).is_for(&guard), "too long ago");
        let edited = Guard { generation: guard.generation + 1, ..(*guard).clone() };
        assert!(!asked(&guard, 0).is_for(&edited), "it was edited since");
    }

    #[test]
    fn a_guard_that_changed_before_the_write_has_nothing_put_back() {
        use crate::core::pause::{Pause, PausedBy};

        let guard = crate::audit::watch::test_support::guard("prices", Some("trading"), "settings");
        let now = Timestamp::UNIX_EPOCH;
        let as_stored = |change: fn(&mut Guard)| {
            let mut stored = guard.clone();
            change(&mut stored);
            stands(&guard, &GuardState::Valid(Arc::new(stored)), now)
        };
        assert_eq!(as_stored(|_| {}), Ok(()));
        let given_up = |why: &str| Err(Outcome::GivenUp(why.to_owned()));
        assert_eq!(as_stored(|guard| guard.generation += 1), given_up("the guard was changed"));
        assert_eq!(as_stored(|guard| guard.uid = "another".into()), given_up("the guard was changed"));
        let pause = |guard: &mut Guard| {
            let until = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
            guard.pauses.push(Pause { by: PausedBy::Suspend, reason: "why".into(), until });
        };
        assert_eq!(as_stored(pause), given_up("the guard was paused"));
    }

    #[test]
    fn an_attempt_that_somebody_overtakes_looks_again_and_does_not_go_on_for_ever() {
        let looks = |outcome: &Outcome| (1..).find(|looks| !looks_again(outcome, *looks));
        assert_eq!(looks(&Outcome::Overtaken), Some(LOOKS));
        assert_eq!(looks(&Outcome::Failed("forbidden".into())), Some(1));
        assert_eq!(looks(&Outcome::Restored { source: "git".into() }), Some(1));
    }
}
