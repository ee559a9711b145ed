//! Guards of a cluster, by their own names or by what they pin.
//!
//! Each is read as the bytes that the API server sent, so that what the API type leaves out is seen too. One
//! that this version cannot read is an error by itself, and never hides another.

use std::future::Future;

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::cluster::{CallError, Cluster};
use super::output;
use super::subject::Served;
use super::subject::request::{self, segment};
use crate::api::reasons::ConditionType;
use crate::api::{DriftGuard, DriftGuardStatus, names};
use crate::core::guard::ManagedBy;
use crate::core::kinds::{KindEntry, ResolveError};
use crate::store::{self, Stored};

/// How many guards one page of a list holds.
const PAGE: usize = 500;
/// How many guards are worked on at a time.
const AT_A_TIME: usize = 8;
/// How alike a name must be to be suggested, of 1.
const ALIKE: f64 = 0.8;
/// How a guard may be called before a slash, as kubectl names kinds.
const OWN_KINDS: [&str; 4] = ["dg", "driftguard", "driftguards", "driftguards.terrafusion.ai"];

/// A guard as it stands.
pub(crate) struct Found {
    /// The whole object.
    pub(crate) object: DriftGuard,
    stored: Stored,
}

impl Found {
    /// Reads one as the API server sent it, or as a file has it.
    pub(crate) fn parse(json: &str) -> anyhow::Result<Self> {
        let stored: Stored = serde_json::from_str(json).context("the API server sent no DriftGuard")?;
        let object = serde_json::from_str(json).with_context(|| {
            format!(
                "DriftGuard {} cannot be read; compare it with `kubectl explain driftguard.spec`",
                stored.id()
            )
        })?;
        Ok(Self { object, stored })
    }

    /// What the store would keep of it.
    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Its namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.stored.namespace()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.stored.name()
    }

    /// `driftguard/NAME`, as kubectl calls what it did something with.
    pub(crate) fn title(&self) -> String {
        format!("driftguard/{}", self.name())
    }

    /// The path of its URL.
    pub(crate) fn path(&self) -> String {
        path(self.namespace(), Some(self.name()))
    }

    /// Its status, an empty one when there is none yet.
    pub(crate) fn status(&self) -> DriftGuardStatus {
        self.object.status.clone().unwrap_or_default()
    }

    /// The tool that applies it, by the marks that tools leave.
    pub(crate) fn managed_by(&self) -> Option<ManagedBy> {
        store::convert::managed_by(&self.stored)
    }

    /// The kind of what it pins.
    ///
    /// # Errors
    /// When the API server serves no such kind, or several.
    pub(crate) fn kind<'a>(&self, served: &'a Served) -> Result<&'a KindEntry, ResolveError> {
        let version = self.object.spec.target_api_version.as_deref().filter(|text| !text.is_empty());
        served.catalog().resolve(&self.object.spec.target_kind, version)
    }

    /// The namespace of what it pins, if its kind has namespaces.
    pub(crate) fn target_namespace(&self, entry: &KindEntry) -> Option<&str> {
        let given = self.object.spec.target_namespace.as_deref().filter(|text| !text.is_empty());
        entry.namespaced.then(|| given.unwrap_or_else(|| self.namespace()))
    }

    /// What it pins, as far as that can be told: the kind, the namespace and the name.
    pub(crate) fn target<'a>(
        &'a self,
        served: &'a Served,
    ) -> Option<(&'a KindEntry, Option<&'a str>, &'a str)> {
        let entry = self.kind(served).ok()?;
        Some((entry, self.target_namespace(entry), &self.object.spec.target_name))
    }

    /// Whether it pins this object of this kind.
    fn pins(&self, served: &Served, entry: &KindEntry, namespace: Option<&str>, name: &str) -> bool {
        let is_of_kind = |found: &KindEntry| found.group == entry.group && found.plural == entry.plural;
        self.kind(served).is_ok_and(is_of_kind)
            && self.object.spec.target_name == name
            && self.target_namespace(entry) == namespace
    }
}

/// A condition of a status.
pub(crate) fn condition(status: &DriftGuardStatus, of_type: ConditionType) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == of_type.as_str())
}

/// The path of guards, in one namespace, or of one of them.
fn path(namespace: &str, name: Option<&str>) -> String {
    let mut path = format!(
        "/apis/{}/{}/namespaces/{}/{}",
        names::GROUP,
        names::VERSION,
        segment(namespace),
        names::DRIFTGUARDS
    );
    if let Some(name) = name {
        path.push('/');
        path.push_str(&segment(name));
    }
    path
}

/// Reads a guard by its name.
///
/// # Errors
/// When there is none, with names that are alike, when it cannot be read, or when the cluster does not tell.
pub(crate) async fn read(cluster: &Cluster, namespace: &str, name: &str) -> anyhow::Result<Found> {
    let doing = format!("reading DriftGuard {namespace}/{name}");
    match request::get(cluster, &path(namespace, Some(name)), &doing).await {
        Ok(json) => Found::parse(&String::from_utf8_lossy(&json)),
        Err(error) if error.downcast_ref::<CallError>().is_some_and(CallError::is_not_found) => {
            let known = known_names(cluster, namespace).await;
            bail!("there is no DriftGuard {namespace}/{name}; {}", instead(name, namespace, &known))
        }
        Err(error) => Err(error),
    }
}

/// What to look at when there is no guard of a name.
fn instead(name: &str, namespace: &str, known: &[String]) -> String {
    let mut alike: Vec<(f64, &String)> =
        known.iter().map(|other| (strsim::jaro_winkler(name, other), other)).collect();
    alike.retain(|(likeness, _)| *likeness >= ALIKE);
    alike.sort_by(|left, right| right.0.total_cmp(&left.0));
    match alike.as_slice() {
        [] => format!("`kubectl get driftguards -n {namespace}` lists those there are"),
        some => {
            let names: Vec<&str> = some.iter().take(3).map(|(_, name)| name.as_str()).collect();
            format!("did you mean {}?", names.join(" or "))
        }
    }
}

/// Names of the guards of a namespace, as far as they can be had: they only help with a mistake.
async fn known_names(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let (all, _) = list(cluster, Some(namespace), "", |_| true).await.unwrap_or_default();
    all.into_iter().map(|found| found.name().to_owned()).collect()
}

/// Guards of one namespace, or of all, that `keep` keeps; with a selector of labels, as the API server reads it,
/// only those. What cannot be read as a guard is told on stderr, left out and counted.
///
/// # Errors
/// When the cluster does not tell.
pub(crate) async fn all(
    cluster: &Cluster,
    namespace: Option<&str>,
    labels: Option<&str>,
    keep: impl Fn(&Found) -> bool,
) -> anyhow::Result<(Vec<Found>, usize)> {
    let chosen = labels.map_or_else(String::new, |labels| format!("&labelSelector={}", segment(labels)));
    list(cluster, namespace, &chosen, keep).await
}

/// The guards whose target has a name.
async fn of_target_name(
    cluster: &Cluster,
    namespace: Option<&str>,
    name: &str,
) -> anyhow::Result<(Vec<Found>, usize)> {
    let selector = format!("spec.targetName={}", store::field_value(name));
    list(cluster, namespace, &format!("&fieldSelector={}", segment(&selector)), |_| true).await
}

/// As [`all`], narrowed by `chosen`, a part of the query.
async fn list(
    cluster: &Cluster,
    namespace: Option<&str>,
    chosen: &str,
    keep: impl Fn(&Found) -> bool,
) -> anyhow::Result<(Vec<Found>, usize)> {
    #[derive(Deserialize)]
    struct Page<'a> {
        metadata: Metadata,
        #[serde(borrow)]
        items: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default, rename = "continue")]
        next: Option<String>,
    }
    let root = match namespace {
        Some(namespace) => path(namespace, None),
        None => format!("/apis/{}/{}/{}", names::GROUP, names::VERSION, names::DRIFTGUARDS),
    };
    let (mut found, mut unread, mut next) = (Vec::new(), 0, None::<String>);
    loop {
        let from = next.as_deref().map_or_else(String::new, |token| format!("&continue={}", segment(token)));
        let url = format!("{root}?limit={PAGE}{chosen}{from}");
        let json = request::get(cluster, &url, "listing DriftGuards").await?;
        let page: Page<'_> =
            serde_json::from_slice(&json).context("listing DriftGuards: the API server sent no list")?;
        for item in page.items {
            match Found::parse(item.get()) {
                Ok(guard) if keep(&guard) => found.push(guard),
                Ok(_) => {}
                Err(error) => {
                    unread += 1;
                    output::message(&format!("note: {error:#}"));
                }
            }
        }
        next = page.metadata.next.filter(|token| !token.is_empty());
        if next.is_none() {
            return Ok((found, unread));
        }
    }
}

/// The guards of one object.
pub(crate) struct OfObject {
    /// Those that were found.
    pub(crate) guards: Vec<Found>,
    /// Whether there may be others: only those of the object's own namespace could be looked at, or one cannot be
    /// understood.
    pub(crate) is_partial: bool,
}

/// Finds the guards of one object, in any namespace where the caller may look at all of them.
///
/// # Errors
/// When the cluster does not tell.
pub(crate) async fn of_object(
    cluster: &Cluster,
    served: &Served,
    entry: &KindEntry,
    namespace: Option<&str>,
    name: &str,
) -> anyhow::Result<OfObject> {
    let mut is_partial = false;
    let listed = match (of_target_name(cluster, None, name).await, namespace) {
        (Err(error), Some(namespace))
            if error.downcast_ref::<CallError>().is_some_and(|error| error.code == Some(403)) =>
        {
            is_partial = true;
            of_target_name(cluster, Some(namespace), name).await?
        }
        (listed, _) => listed?,
    };
    let (listed, unread) = listed;
    // One that nobody understands may mean this very object.
    is_partial |= unread > 0
        || listed.iter().any(|guard| guard.object.spec.target_name == name && guard.kind(served).is_err());
    let guards = listed.into_iter().filter(|guard| guard.pins(served, entry, namespace, name)).collect();
    Ok(OfObject { guards, is_partial })
}

/// Guards by the words of a command line: `NAME`, or `KIND/NAME` for the guard of that object.
///
/// # Errors
/// When a word means no guard, or the cluster does not tell.
pub(crate) async fn chosen(cluster: &Cluster, words: &[String]) -> anyhow::Result<Vec<Found>> {
    let mut served = None;
    let mut found: Vec<Found> = Vec::new();
    for word in words {
        let more = match word.split_once('/') {
            None => vec![read(cluster, &cluster.namespace, word).await?],
            Some((kind, name)) if OWN_KINDS.iter().any(|own| own.eq_ignore_ascii_case(kind)) => {
                vec![read(cluster, &cluster.namespace, name).await?]
            }
            Some((kind, name)) => {
                ensure!(
                    !kind.is_empty() && !name.is_empty() && !name.contains('/'),
                    "{word:?} is neither the name of a guard nor KIND/NAME; a namespace goes to -n"
                );
                if served.is_none() {
                    served = Some(Served::load(cluster).await?);
                }
                let Some(served) = &served else { continue };
                of_word(cluster, served, kind, name).await?
            }
        };
        // Named twice, it is still one guard.
        for guard in more {
            if found.iter().all(|known| known.stored.uid() != guard.stored.uid()) {
                found.push(guard);
            }
        }
    }
    Ok(found)
}

/// The one guard that a word means, as in [`chosen`].
///
/// # Errors
/// When it means none, or several.
pub(crate) async fn only(cluster: &Cluster, word: &str) -> anyhow::Result<Found> {
    let mut found = chosen(cluster, &[word.to_owned()]).await?;
    match (found.pop(), found.as_slice()) {
        (Some(guard), []) => Ok(guard),
        (last, others) => {
            let names = others.iter().chain(&last).map(|guard| guard.stored.id().to_string());
            bail!("{word} is pinned by several guards; name one of {}", names.collect::<Vec<_>>().join(", "))
        }
    }
}

async fn of_word(cluster: &Cluster, served: &Served, kind: &str, name: &str) -> anyhow::Result<Vec<Found>> {
    let entry = served.resolve(kind)?;
    let namespace = entry.namespaced.then_some(cluster.namespace.as_str());
    let OfObject { guards, is_partial } = of_object(cluster, served, entry, namespace, name).await?;
    let place = namespace.map_or_else(String::new, |namespace| format!("{namespace}/"));
    let hidden = if is_partial {
        " in its namespace, and guards of other namespaces are not for you to list"
    } else {
        ""
    };
    ensure!(
        !guards.is_empty(),
        "no DriftGuard pins {}/{place}{name}{hidden}; `driftguard guard {kind} {name}` makes one",
        entry.kind
    );
    Ok(guards)
}

/// Does the same with several guards, some at a time, and prints what was done with each, in their order.
///
/// # Errors
/// When it failed for one or more; the others are done all the same.
pub(crate) async fn each<'a, F>(guards: &'a [Found], act: impl Fn(&'a Found) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<String>>,
{
    let act = &act;
    let mut done = futures::stream::iter(guards.iter().map(|guard| async move { (guard, act(guard).await) }))
        .buffered(AT_A_TIME);
    let mut failed = Vec::new();
    while let Some((guard, result)) = done.next().await {
        match result {
            // Whoever reads no more has asked for the others all the same.
            Ok(what) => output::data_while_read(format!("{} {what}\n", guard.title()).as_bytes())?,
            Err(error) => failed.push(format!("{}: {error:#}", guard.title())),
        }
    }
    match failed.as_slice() {
        [] => Ok(()),
        [one] => bail!("{one}"),
        many => bail!("{} of {} guards failed:\n{}", many.len(), guards.len(), many.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_mistyped_name_gets_suggestions_and_a_strange_one_the_list() {
        let known: Vec<String> = ["market-settings-guard", "limits-guard"].map(str::to_owned).into();
        assert_eq!(instead("market-setings-guard", "trading", &known), "did you mean market-settings-guard?");
        assert_eq!(
            instead("web", "trading", &known),
            "`kubectl get driftguards -n trading` lists those there are"
        );
    }

    #[test]
    fn a_guard_that_cannot_be_read_says_which_it_is() {
        let json = r#"{"metadata": {"name": "a", "namespace": "n"}, "spec": {"targetKind": 7}}"#;
        let error = Found::parse(json).err().unwrap().to_string();
        assert!(error.starts_with("DriftGuard n/a cannot be read"), "{error}");
    }

    #[test]
    fn names_go_into_paths_as_one_segment() {
        assert_eq!(path("n", Some("a b")), "/apis/terrafusion.ai/v1/namespaces/n/driftguards/a%20b");
    }
}
