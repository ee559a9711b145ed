//! A guard with what it pins: its scope, what it approves, and content that is held against that.

use anyhow::{Context as _, ensure};
use jiff::Timestamp;

use super::cluster::Cluster;
use super::guards::{self, Found};
use super::subject::dry_run::{self, Stored};
use super::subject::{Served, Subject, request};
use crate::api::reasons::ConditionType;
use crate::core::audit::candidate::{self, Candidate, Form};
use crate::core::canonical::hash_object;
use crate::core::guard::Target;
use crate::core::hash::ContentHash;
use crate::core::kinds::KindEntry;
use crate::core::scope::Scope;
use crate::document::Origin;
use crate::store::convert::Approvals;

/// A guard whose target is resolved.
pub(crate) struct Pinned<'a> {
    /// The guard as it stands.
    pub(crate) guard: &'a Found,
    /// The kind of its target.
    pub(crate) entry: &'a KindEntry,
    /// Its target, in the version that is hashed.
    pub(crate) target: Target,
    /// The part of it that is pinned.
    pub(crate) scope: Scope,
    /// What is approved.
    pub(crate) approvals: Approvals,
    /// What the status says the API server now reads approved content as.
    equivalents: Vec<ContentHash>,
}

/// Content of a target.
pub(crate) struct Content {
    /// The whole object as JSON, of a Secret with all values under `data`.
    pub(crate) json: Vec<u8>,
    /// The hash of what is pinned of it. Where the API server fills in defaults it is of what would be stored.
    pub(crate) hash: ContentHash,
    /// Whether `json` is what hashes so; else it lacks values that only the API server knows.
    pub(crate) is_whole: bool,
}

impl<'a> Pinned<'a> {
    /// Resolves the target of a guard.
    ///
    /// # Errors
    /// When the guard cannot be evaluated: the same words as its conditions have.
    pub(crate) fn of(guard: &'a Found, served: &'a Served) -> anyhow::Result<Self> {
        let problem = || format!("DriftGuard {}/{} cannot be evaluated", guard.namespace(), guard.name());
        let entry = guard.kind(served).with_context(problem)?;
        let approvals =
            Approvals::of(&guard.object.spec).map_err(anyhow::Error::msg).with_context(problem)?;
        let status = guard.status();
        // They count for the generation for which they were signed.
        let drifted = guards::condition(&status, ConditionType::Drifted);
        let is_current =
            drifted.is_some_and(|said| said.observed_generation == guard.object.metadata.generation);
        let noted = if is_current { status.equivalents } else { Vec::new() };
        Ok(Self {
            guard,
            entry,
            target: Target {
                group: entry.group.clone(),
                version: entry.version.clone(),
                kind: entry.kind.clone(),
                resource: entry.plural.clone(),
                namespace: guard.target_namespace(entry).map(Into::into),
                name: guard.object.spec.target_name.as_str().into(),
            },
            scope: Scope::new(&entry.group, &entry.kind, approvals.filter.clone()),
            approvals,
            equivalents: noted.iter().filter_map(|noted| noted.hash.parse().ok()).collect(),
        })
    }

    /// Whether content of this hash is approved now, as far as can be told without the key that signs
    /// equivalents.
    pub(crate) fn approves(&self, hash: ContentHash) -> bool {
        self.approvals.approve(hash, Timestamp::now())
            || self.scope.has_server_defaults() && self.equivalents.contains(&hash)
    }

    /// The target as it stands; `None` when there is none.
    ///
    /// # Errors
    /// When the cluster does not tell.
    pub(crate) async fn live(&self, cluster: &Cluster) -> anyhow::Result<Option<Content>> {
        let path = request::path(self.entry, self.target.namespace.as_deref(), Some(&self.target.name));
        let found = request::get_opt(cluster, &path, &format!("reading {}", self.target)).await?;
        found
            .map(|json| {
                let hash = hash_object(&json, &self.scope).with_context(|| self.target.to_string())?;
                Ok(Content { json, hash, is_whole: true })
            })
            .transpose()
    }

    /// Content of the target that a document gives, as the API server would store it. Nothing is asked where the
    /// document alone is approved, or where its kind gets no defaults.
    ///
    /// # Errors
    /// When the document is no content of the target, or the API server does not take it.
    pub(crate) async fn content(
        &self,
        cluster: &Cluster,
        document: &[u8],
        form: Form,
        origin: Option<&Origin>,
    ) -> anyhow::Result<Content> {
        let place = || origin.map_or_else(|| self.target.to_string(), ToString::to_string);
        let mut readings =
            candidate::candidates(document, form, &self.target, &self.scope).with_context(place)?;
        let known = readings.iter().position(|reading| self.approves(reading.hash));
        if let Some(known) = known {
            let Candidate { object, hash, .. } = readings.swap_remove(known);
            return Ok(Content { json: object, hash, is_whole: true });
        }
        let Candidate { object, hash, .. } = readings.swap_remove(0);
        if !self.scope.has_server_defaults() {
            return Ok(Content { json: object, hash, is_whole: true });
        }
        let subject = self.subject(object, origin);
        match dry_run::write(&subject, self.entry, cluster).await? {
            Stored::Object(json) => Ok(Content { hash: subject.hash_of(&json)?, json, is_whole: true }),
            // The gate shows no image, but the same content under another name has the same defaults.
            Stored::Refused { hash, by } => {
                let own = format!("{}/{}", self.guard.namespace(), self.guard.name());
                ensure!(
                    by == own,
                    "DriftGuard {by} pins {} too and refuses this content; approve it there first, or delete one of the two",
                    self.target
                );
                match dry_run::write_beside(&subject, self.entry, cluster).await {
                    Ok(json) if subject.hash_of(&json)? == hash => Ok(Content { json, hash, is_whole: true }),
                    Ok(_) => Ok(Content { json: subject.json, hash, is_whole: false }),
                    Err(_) => Ok(Content { json: subject.json, hash, is_whole: false }),
                }
            }
        }
    }

    /// An object of the target, for a request.
    pub(crate) fn subject(&self, json: Vec<u8>, origin: Option<&Origin>) -> Subject {
        Subject {
            api_version: self.target.api_version(),
            kind: self.target.kind.as_str().to_owned(),
            namespace: self.target.namespace.as_ref().map(|namespace| namespace.as_str().to_owned()),
            name: self.target.name.as_str().to_owned(),
            json,
            origin: origin.cloned(),
            scope: self.scope.clone(),
        }
    }
}
