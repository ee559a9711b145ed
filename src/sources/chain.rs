//! The sources of a guard in their order, until one has what was approved.
//!
//! First those that the guard names, then the Configuration Service, then what was seen live. Each is
//! asked on behalf of the guard's author, whose right to it is checked at this very moment; a guard that
//! nobody is known to have approved has nothing fetched for it. What was seen live is the guard's own.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::TryFutureExt as _;
use http::HeaderMap;
use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::address::{AddressPolicy, Lookup, SystemLookup};
use super::args::ServiceUrl;
use super::configuration::ConfigurationService;
use super::git::{self, GitRequest, GitSettings};
use super::last_good::LastGood;
use super::objects::{self, Place};
use super::report::{CANNOT_DRY_RUN, Failed, Outcome, SourceReport, Verified, Verify};
use super::service;
use super::web::{Limits, Request, Web, plain_http};
use crate::api::{DriftGuardSpec, SourceKind, SourceRef};
use crate::cert::authority::certificates;
use crate::control::access::{self, Subject};
use crate::core::audit::candidate::{Candidate, Form, candidates, choose, values_of};
use crate::core::author_access::{Reads, SourceObject, of_source};
use crate::core::guard::{Guard, Target};
use crate::core::scope::Scope;
use crate::document::{self, DocumentError};
use crate::store::source_object;
use crate::telemetry::metrics::Metrics;

/// How sources are read.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Which addresses may be called.
    pub addresses: AddressPolicy,
    /// Services that are called elsewhere than within the cluster.
    pub service_urls: Vec<ServiceUrl>,
    /// File (PEM) of authorities of Services, beside our own.
    pub service_authorities: Option<PathBuf>,
    /// Whether the content of Secrets may be fetched over plain http.
    pub plain_http_secrets: bool,
    /// The Configuration Service.
    pub configuration_service: Option<ConfigurationService>,
    /// What sources may cost, but for git.
    pub limits: Limits,
    /// How git repositories are fetched from.
    pub git: GitSettings,
}

/// Tells our own authorities, as they are at the moment.
pub type Authorities = Arc<dyn Fn() -> Vec<CertificateDer<'static>> + Send + Sync>;

/// Fetches approved content.
pub struct Sources {
    client: kube::Client,
    settings: Settings,
    web: Web,
    authorities: Authorities,
    last_good: LastGood,
    metrics: Arc<Metrics>,
    /// Contents that are read at once: one, since a document takes many times its size while it is read.
    reading: Arc<Semaphore>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// One source of a guard.
enum Source<'a> {
    /// One that the guard names.
    Named(&'a SourceRef, SourceObject),
    ConfigurationService(&'a ConfigurationService),
    LastGood,
}

impl Source<'_> {
    /// Whether it needs nothing but our memory and the API server.
    fn is_ours(&self) -> bool {
        match self {
            Self::Named(of, _) => matches!(of.kind, SourceKind::Configmap | SourceKind::Secret),
            Self::ConfigurationService(_) => false,
            Self::LastGood => true,
        }
    }

    /// A word for metrics.
    fn word(&self) -> &'static str {
        match self {
            Self::Named(of, _) => match of.kind {
                SourceKind::Git => "git",
                SourceKind::Configmap => "configmap",
                SourceKind::Secret => "secret",
                SourceKind::Service => "service",
            },
            Self::ConfigurationService(_) => "configuration-service",
            Self::LastGood => "last-good",
        }
    }
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(of, SourceObject { namespace, name, .. }) => {
                write!(f, "{} {namespace}/{name}", self.word())?;
                of.path.as_ref().map_or(Ok(()), |path| write!(f, " {path}"))
            }
            Self::ConfigurationService(_) => f.write_str("Configuration Service"),
            Self::LastGood => f.write_str("last known good"),
        }
    }
}

/// What a source answered, and how it holds its content.
type Content = (Vec<u8>, Form);

impl Sources {
    /// Sources as `settings` say. `authorities` tells who signs the certificates of our own Services.
    #[must_use]
    pub fn new(
        client: kube::Client,
        settings: Settings,
        authorities: Authorities,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self::looking_up(Arc::new(SystemLookup), client, settings, authorities, metrics)
    }

    /// The same with other names than the operating system knows.
    #[must_use]
    pub fn looking_up(
        lookup: Arc<dyn Lookup>,
        client: kube::Client,
        settings: Settings,
        authorities: Authorities,
        metrics: Arc<Metrics>,
    ) -> Self {
        let web = Web::new(lookup, settings.addresses.clone(), settings.limits);
        let (last_good, reading) = (LastGood::default(), Arc::new(Semaphore::new(1)));
        Self { client, settings, web, authorities, last_good, metrics, reading }
    }

    /// Where approved content goes that is seen live.
    #[must_use]
    pub fn last_good(&self) -> &LastGood {
        &self.last_good
    }

    /// The approved content of a guard, from the first source that has it. `author` is whoever is known to
    /// have approved the guard, `verify` tells whether a candidate is what was approved.
    pub async fn approved(
        &self,
        guard: &Guard,
        spec: &DriftGuardSpec,
        author: Option<&Subject>,
        verify: &impl Verify,
    ) -> Outcome {
        let mut outcome = Outcome { found: None, reports: Vec::new() };
        // What is left for those that are called.
        let mut left = self.settings.limits.total;
        for source in self.listed(guard, spec) {
            let begun = Instant::now();
            // What no stranger can hold up has its own time.
            let within = if source.is_ours() { self.settings.limits.own() } else { left };
            let asked = tokio::time::timeout(within, self.ask(&source, guard, author, verify)).await;
            let answer = asked.unwrap_or_else(|_| Err(self.too_late(&source)));
            if !source.is_ours() {
                left = left.saturating_sub(begun.elapsed());
            }
            let name = source.to_string();
            let report = match &answer {
                Ok(_) => SourceReport::matched(&name),
                Err(failed) => failed.clone().report(&name),
            };
            self.metrics.sources.asked(source.word(), report.result.as_str(), begun.elapsed());
            tracing::debug!(
                namespace = guard.id.namespace.as_str(),
                name = guard.id.name.as_str(),
                source = name,
                result = report.result.as_str(),
                reason = report.reason,
                "a source of truth was asked"
            );
            let name = report.source.clone();
            outcome.reports.push(report);
            if let Ok(candidate) = answer {
                outcome.found = Some((candidate, name));
                break;
            }
        }
        outcome
    }

    /// The sources of a guard, in the order in which they are asked.
    fn listed<'a>(&'a self, guard: &Guard, spec: &'a DriftGuardSpec) -> Vec<Source<'a>> {
        let named = spec.source_of_truth_ref.iter().chain(&spec.fallback_source_refs);
        let named = named.map(|of| Source::Named(of, source_object(&guard.id, of)));
        let service = self.settings.configuration_service.as_ref().map(Source::ConfigurationService);
        named.chain(service).chain([Source::LastGood]).collect()
    }

    /// That a source was given up.
    fn too_late(&self, source: &Source<'_>) -> Failed {
        let limits = &self.settings.limits;
        let why = if source.is_ours() {
            format!("it was not read and verified within {} s", limits.own().as_secs_f64())
        } else {
            let seconds = limits.total.as_secs_f64();
            format!(
                "it was given up, because all sources of a guard that are called together may take {seconds} s"
            )
        };
        Failed::unavailable("Timeout", why)
    }

    /// Asks one source for content that is approved.
    async fn ask(
        &self,
        source: &Source<'_>,
        guard: &Guard,
        author: Option<&Subject>,
        verify: &impl Verify,
    ) -> Result<Candidate, Failed> {
        let (content, form) = match source {
            Source::Named(of, object) => {
                self.check_author(author, object).await?;
                self.fetch(of, object, guard).await?
            }
            Source::ConfigurationService(service) => {
                known(author)?;
                (self.configuration(service, guard).await?, Form::Document)
            }
            Source::LastGood => (self.kept(guard)?, Form::Live),
        };
        let readings = readings(&self.reading, content, form, &guard.target, &guard.scope).await?;
        verified(readings, guard, verify).await
    }

    /// Whether the guard's author may read a source now.
    async fn check_author(&self, author: Option<&Subject>, object: &SourceObject) -> Result<(), Failed> {
        let author = known(author)?;
        let access = of_source(object);
        let user = &author.user;
        let unknown = |why: &str| {
            Failed::unavailable(
                "RightsUnknown",
                format!("whether {user:?} may {access} could not be asked: {why}"),
            )
        };
        let asked = access::missing(&self.client, author, std::slice::from_ref(&access));
        let missing = tokio::time::timeout(self.settings.limits.time, asked)
            .await
            .map_err(|_| unknown("the API server did not answer in time"))?
            .map_err(|_| unknown("the API server refused to answer"))?;
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!("the author of the guard, {user:?}, may not {access}");
        Err(Failed::forbidden("AuthorLacksRights", why))
    }

    /// What a source that the guard names holds.
    async fn fetch(&self, of: &SourceRef, object: &SourceObject, guard: &Guard) -> Result<Content, Failed> {
        let place = Place { namespace: &object.namespace, name: &object.name };
        let path = of.path.as_deref().filter(|path| !path.is_empty());
        match of.kind {
            SourceKind::Configmap => self.object_content(object, place, path, Form::ConfigMap).await,
            SourceKind::Secret => self.object_content(object, place, path, Form::Secret).await,
            SourceKind::Service => {
                let url = self.service_url(place, path).await?;
                let authorities = self.service_authorities().await?;
                let may_be_plain = self.may_be_plain(guard);
                let request = Request { url, authorities, headers: HeaderMap::new(), may_be_plain };
                Ok((self.web.get(request).await?, Form::Document))
            }
            SourceKind::Git => Ok((self.git_file(place, path, guard).await?, Form::Document)),
        }
    }

    /// A ConfigMap or Secret, or what it holds under a key.
    async fn object_content(
        &self,
        object: &SourceObject,
        place: Place<'_>,
        key: Option<&str>,
        form: Form,
    ) -> Result<Content, Failed> {
        let json = self.in_time(objects::read(&self.client, object.reads, place)).await?;
        let Some(key) = key else { return Ok((json, form)) };
        match values_of(&json, form)?.remove(key) {
            Some(value) => Ok((value, Form::Document)),
            None => Err(Failed::unavailable("KeyMissing", format!("it has no key {key:?}"))),
        }
    }

    /// Where a Service is called.
    async fn service_url(&self, place: Place<'_>, path: Option<&str>) -> Result<reqwest::Url, Failed> {
        let is_this = |url: &&ServiceUrl| url.namespace == place.namespace && url.name == place.name;
        match self.settings.service_urls.iter().find(is_this) {
            Some(mapped) => service::request_to(mapped.url.as_str(), path),
            None => self.in_time(service::address(&self.client, place, path)).await,
        }
    }

    async fn service_authorities(&self) -> Result<Vec<CertificateDer<'static>>, Failed> {
        let mut all = (self.authorities)();
        if let Some(file) = &self.settings.service_authorities {
            let failed =
                |why: String| Failed::unavailable("FileUnreadable", format!("--service-ca-file: {why}"));
            let pem = tokio::fs::read(file).await.map_err(|error| failed(error.to_string()))?;
            all.extend(certificates(&pem).map_err(|error| failed(error.to_string()))?);
        }
        Ok(all)
    }

    /// A file of a git repository; the Secret at `place` says where that is.
    async fn git_file(&self, place: Place<'_>, path: Option<&str>, guard: &Guard) -> Result<Vec<u8>, Failed> {
        let secret = self.in_time(objects::read(&self.client, Reads::Secret, place)).await?;
        let values = values_of(&secret, Form::Secret)?;
        let path =
            path.ok_or_else(|| Failed::invalid("BadPath", "the guard names no file of the repository"))?;
        let request = GitRequest::from_secret(path, |key| values.get(key).map(Vec::as_slice))?;
        let is_plain = request.url.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"));
        if is_plain && !self.may_be_plain(guard) {
            return Err(plain_http());
        }
        Ok(git::fetch(&self.settings.git, &guard.id.namespace, request).await?)
    }

    /// Whether content for a guard may go over the wire in clear.
    fn may_be_plain(&self, guard: &Guard) -> bool {
        self.settings.plain_http_secrets || !guard.scope.is_secret()
    }

    async fn configuration(&self, service: &ConfigurationService, guard: &Guard) -> Result<Vec<u8>, Failed> {
        if guard.scope.is_secret() {
            let why = "it is not asked for Secrets, since it cannot tell who may read them";
            return Err(Failed::forbidden("NotForSecrets", why));
        }
        service.fetch(&self.web, &guard.target, (self.authorities)()).await
    }

    /// What was seen live and had the approved hash.
    fn kept(&self, guard: &Guard) -> Result<Vec<u8>, Failed> {
        if guard.scope.is_secret() {
            return Err(Failed::unavailable("NotKept", "the content of Secrets is never kept"));
        }
        self.last_good.get(&guard.uid, guard.expected).ok_or_else(|| {
            let why = "what is approved was not seen live since this replica began to watch, or was too large to keep";
            Failed::unavailable("NotSeen", why)
        })
    }

    async fn in_time<T>(&self, read: impl Future<Output = Result<T, Failed>>) -> Result<T, Failed> {
        let within = self.settings.limits.time;
        let late = |_| {
            let seconds = within.as_secs_f64();
            Failed::unavailable("Timeout", format!("the API server did not answer within {seconds} s"))
        };
        tokio::time::timeout(within, read).map_err(late).await?
    }
}

/// The author, where one is known.
fn known(author: Option<&Subject>) -> Result<&Subject, Failed> {
    author.ok_or_else(|| {
        let why = "nobody is known to have approved the guard, so that nothing is fetched for it; `driftguard adopt` \
                   vouches for it";
        Failed::forbidden("AuthorUnknown", why)
    })
}

/// Reads content away from the threads that serve, one after the other: a document of megabytes takes a while.
async fn readings(
    one: &Arc<Semaphore>,
    content: Vec<u8>,
    form: Form,
    target: &Target,
    scope: &Scope,
) -> Result<Vec<Candidate>, Failed> {
    let (target, scope) = (target.clone(), scope.clone());
    let unread = || Failed::invalid("Unreadable", "its content could not be read");
    let slot = Arc::clone(one).acquire_owned().await.map_err(|_| unread())?;
    let read = move || -> Result<Vec<Candidate>, Failed> {
        // Kept until it is read, even when nobody waits any more.
        let _slot = slot;
        if form != Form::Document {
            return Ok(candidates(&content, form, &target, &scope)?);
        }
        let documents = document::contents("it", &content).map_err(|error| unreadable(&error))?;
        Ok(candidates(choose(&documents, &target)?, form, &target, &scope)?)
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| unread())?
}

/// An error of a document, without the name of a file that there is not.
fn unreadable(error: &DocumentError) -> Failed {
    let place = match (error.document, error.line) {
        (Some(document), Some(line)) if document > 1 => format!("in document {document}, line {line}: "),
        (_, Some(line)) => format!("in line {line}: "),
        _ => String::new(),
    };
    Failed::invalid(error.reason(), format!("{place}{}", error.problem))
}

/// The first reading that is what was approved.
async fn verified(
    readings: Vec<Candidate>,
    guard: &Guard,
    verify: &impl Verify,
) -> Result<Candidate, Failed> {
    let mut said = None;
    for candidate in readings {
        // Without defaults nothing but the hash itself counts, whatever is verified beside it.
        if !guard.scope.has_server_defaults() && candidate.hash != guard.expected {
            continue;
        }
        match verify.verify(&candidate).await {
            Verified::Matched => return Ok(candidate),
            Verified::Mismatch(why) => drop(said.get_or_insert(Failed::mismatch(why))),
            // What could not be told outranks what does not match.
            Verified::Unavailable(why) => said = Some(Failed::unavailable("Unverified", why)),
            Verified::CannotDryRun(why) => said = Some(Failed::unavailable(CANNOT_DRY_RUN, why)),
        }
    }
    Err(said.unwrap_or_else(|| Failed::mismatch("its content is not what is approved")))
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
