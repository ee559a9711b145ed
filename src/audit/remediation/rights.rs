//! Whether a target may be written at all: by us, and on behalf of whoever approved its guard.

use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::ResourceAttributes;
use tokio::time::Instant;

use crate::control::access::{self, Subject};
use crate::core::author_access::{Aim, needed};
use crate::core::guard::{Author, Authorship, Guard, Target};

use super::{Outcome, REQUEST_TIMEOUT, Remediation};

/// How long what we were told about our own rights counts.
const RIGHTS_FOR: Duration = Duration::from_secs(60);
/// The API group whose objects grant rights: writing them takes `escalate` and `bind`, which nobody should
/// give to a machine.
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";
/// What putting back takes: a target that is gone is made again, one that cannot be changed is deleted first.
const VERBS: [&str; 3] = ["patch", "create", "delete"];

/// One verb on one resource of a namespace.
pub(super) type Right = (String, String, String, &'static str);

impl Remediation {
    /// Who approved the guard, if anything is written for it at all as far as that is known by itself.
    pub(super) fn author<'a>(&self, guard: &'a Guard) -> Result<&'a Author, Outcome> {
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

    /// Whether the target may be put back: by us, and for whoever approved the guard.
    pub(in crate::audit) async fn rights_to(&self, guard: &Guard) -> Result<(), Outcome> {
        let author = Subject::from(self.author(guard)?);
        let (ours, theirs) = tokio::join!(self.may_write(guard), self.author_may_write(guard, &author));
        ours.and(theirs)
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
