//! The guards to audit, by pages, each turned at once into what is needed of it, while the next page comes.

use anyhow::{Context as _, bail, ensure};
use http::Request;
use jiff::SignedDuration;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::AuditArgs;
use super::progress::Progress;
use crate::api::{DriftGuardStatus, names};
use crate::audit::watch::event::meta;
use crate::cli::cluster::Cluster;
use crate::cli::subject::served::Served;
use crate::core::guard::{Enforcement, GuardState, url_segment};
use crate::core::guard_spec::rival;
use crate::core::index::Index;
use crate::core::kinds::Catalog;
use crate::core::report::Facts;
use crate::store::convert::convert;
use crate::store::facts::{Asked, Words, facts};
use crate::store::{Reported, Settings, Stored};

/// Guards in one page.
const PAGE: u32 = 500;
/// The longest pause of an installation that was not told otherwise. The status knows better.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_hours(8);

/// A guard, and what is known beside its target.
pub(super) struct Guarded {
    pub(super) state: GuardState,
    pub(super) facts: Facts,
    /// Kind and name of the target as the guard spells them, where it is not known what they mean.
    pub(super) spelled: Option<(String, String)>,
}

/// The guards that were asked for.
pub(super) struct Found {
    pub(super) guards: Vec<Guarded>,
    /// Whether DriftGuard has said anything of any guard that was listed.
    pub(super) is_installed: bool,
}

impl Found {
    /// Notes which guards contradict one another.
    pub(super) fn of(mut guards: Vec<Guarded>, is_installed: bool) -> Self {
        let index = Index::build(guards.iter().map(|guarded| guarded.state.clone()).collect());
        for guarded in &mut guards {
            if let Some(target) = guarded.state.target() {
                guarded.facts.rival = rival(&guarded.state, index.guards_of(target)).cloned();
            }
        }
        Self { guards, is_installed }
    }
}

/// Turns a guard into what is needed of it.
pub(super) fn guarded(
    stored: &Stored,
    status: &DriftGuardStatus,
    catalog: &Catalog,
    words: &mut Words,
) -> Guarded {
    let settings = Settings {
        // What counts is what the status says; without a status nothing is enforced anyhow.
        default_enforcement: Enforcement::Deny,
        own_namespace: names::NAMESPACE.to_owned(),
        longest_pause: LONGEST_PAUSE,
    };
    let state = convert(stored, catalog, &settings, None);
    let asked = Asked::read(&stored.spec());
    let facts = facts(status, &asked, stored.generation(), words);
    let spelled = state.target().is_none().then_some((asked.target_kind, asked.target_name));
    Guarded { state, facts, spelled }
}

/// Finds the guards that were asked for.
///
/// # Errors
/// When they cannot be listed, a kind is not served, or a guard that was named does not exist.
pub(super) async fn find(args: &AuditArgs, cluster: &Cluster, served: &Served) -> anyhow::Result<Found> {
    let kinds = args.kind.iter().map(|word| served.resolve(word)).collect::<Result<Vec<_>, _>>()?;
    let api: Api<Reported> = match args.namespace(cluster) {
        Some(namespace) => Api::namespaced(cluster.client.clone(), &namespace),
        None => Api::all(cluster.client.clone()),
    };
    let mut guards = Vec::new();
    let mut is_installed = false;
    let mut words = Words::default();
    let mut before: Option<Stored> = None;
    let progress = Progress::of(0, !args.watch);
    let mut seen = 0;
    let mut take = |received: Reported| {
        seen += 1;
        progress.found(seen);
        let (stored, status) = received.apart();
        // Guards come in order, so that one and the next mostly share a namespace.
        let stored = match before.take() {
            Some(before) => stored.sharing(&before),
            None => stored,
        };
        is_installed |= status.observed_generation.is_some();
        let guarded = guarded(&stored, &status, served.catalog(), &mut words);
        before = Some(stored);
        let is_meant = match (guarded.state.target(), &guarded.spelled) {
            (Some(target), _) => {
                kinds.iter().any(|kind| kind.group == target.group && kind.plural == target.resource)
            }
            (None, Some((kind, _))) => kinds.iter().any(|one| one.kind.eq_ignore_ascii_case(kind)),
            (None, None) => false,
        };
        if kinds.is_empty() || is_meant {
            guards.push(guarded);
        }
    };
    if args.names.is_empty() {
        let mut pages = Pages::of(cluster, args);
        while let Some(page) = pages.next().await.map_err(|error| not_listed(cluster, &error))? {
            let list: List =
                serde_json::from_str(&page).context("the API server sent no list of DriftGuards")?;
            drop(page);
            list.items.into_iter().for_each(&mut take);
        }
    } else {
        for received in named(args, cluster, &api).await? {
            take(received);
        }
    }
    Ok(Found::of(guards, is_installed))
}

/// A page of guards.
#[derive(Deserialize)]
struct List {
    items: Vec<Reported>,
}

/// The text of a page, and where the next one begins.
type Page = Result<(String, Option<String>), kube::Error>;

/// Pages of guards: each is asked for while the one before it is looked at.
struct Pages {
    client: Client,
    uri: String,
    asked: Option<JoinHandle<Page>>,
}

impl Pages {
    fn of(cluster: &Cluster, args: &AuditArgs) -> Self {
        let place = args.namespace(cluster).map(|name| format!("/namespaces/{}", url_segment(&name)));
        let selector = args.selector.as_ref().map(|labels| format!("&labelSelector={}", url_segment(labels)));
        let uri = format!(
            "/apis/{}/{}{}/{}?limit={PAGE}{}",
            names::GROUP,
            names::VERSION,
            place.unwrap_or_default(),
            names::DRIFTGUARDS,
            selector.unwrap_or_default()
        );
        let asked = Some(tokio::spawn(page(cluster.client.clone(), uri.clone())));
        Self { client: cluster.client.clone(), uri, asked }
    }

    /// The next page; `None` when that was the last.
    async fn next(&mut self) -> Result<Option<String>, kube::Error> {
        let Some(asked) = self.asked.take() else { return Ok(None) };
        let (text, next) =
            asked.await.map_err(|error| kube::Error::Service(Box::new(error))).and_then(|page| page)?;
        if let Some(token) = next {
            let uri = format!("{}&continue={}", self.uri, url_segment(&token));
            self.asked = Some(tokio::spawn(page(self.client.clone(), uri)));
        }
        Ok(Some(text))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some(asked) = &self.asked {
            asked.abort();
        }
    }
}

async fn page(client: Client, uri: String) -> Page {
    let request = Request::get(uri).body(Vec::new()).map_err(kube::Error::HttpError)?;
    let text = client.request_text(request).await?;
    // What is no list is told by whoever reads all of it.
    let next = meta(text.as_bytes()).ok().map(|meta| meta.next_page.into_owned());
    Ok((text, next.filter(|token| !token.is_empty())))
}

/// The guards that were named, each once.
async fn named(args: &AuditArgs, cluster: &Cluster, api: &Api<Reported>) -> anyhow::Result<Vec<Reported>> {
    let mut names: Vec<&str> = args.names.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let (mut found, mut absent) = (Vec::new(), Vec::new());
    for name in names {
        ensure!(
            !name.is_empty() && !name.contains('/'),
            "{name:?} is no name of a guard; a namespace goes to -n"
        );
        match api.get_opt(name).await {
            Ok(Some(guard)) => found.push(guard),
            Ok(None) => absent.push(name),
            Err(error) => return Err(not_listed(cluster, &error)),
        }
    }
    if !absent.is_empty() {
        // Without the definition no guard exists, which is the likelier cause.
        if let Err(error) = api.list(&ListParams::default().limit(1)).await {
            return Err(not_listed(cluster, &error));
        }
        bail!(
            "there is no DriftGuard {} in namespace {}; `kubectl get driftguards -A` lists those there are",
            absent.join(", "),
            cluster.namespace
        );
    }
    Ok(found)
}

fn not_listed(cluster: &Cluster, error: &kube::Error) -> anyhow::Error {
    let failure = cluster.explain("listing DriftGuards", error);
    if failure.is_not_found() {
        anyhow::anyhow!(
            "this cluster knows no DriftGuards: their definition is not installed; `driftguard install` does that, or `driftguard manifests crds | kubectl apply --server-side -f -` that alone"
        )
    } else {
        failure.into()
    }
}
