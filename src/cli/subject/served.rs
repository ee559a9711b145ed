//! Kinds as users name them: `ConfigMap`, `configmaps`, `cm`, `deployments.apps`.

use kube::core::discovery::v2::APIGroupDiscoveryList;

use crate::cli::cluster::Cluster;
use crate::core::kinds::{Catalog, KindEntry};
use crate::store::catalog_of;

/// What the API server serves, with the further names of each kind.
pub(crate) struct Served {
    catalog: Catalog,
    aliases: Vec<Aliases>,
}

/// Why a word means no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KindError {
    /// Nothing has that name.
    #[error("the API server serves no kind {0}; `kubectl api-resources` lists those it serves")]
    NotServed(String),
    /// Several things have it.
    #[error("{word} may be {}; say which", .candidates.join(" or "))]
    Ambiguous {
        /// The word.
        word: String,
        /// Words that mean one thing.
        candidates: Vec<String>,
    },
}

/// Further names of one resource.
struct Aliases {
    group: String,
    plural: String,
    singular: String,
    short: Vec<String>,
}

/// How well a word fits a resource, best first.
#[derive(PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Fit {
    Kind,
    Resource,
    Short,
}

impl Served {
    /// Asks the API server.
    ///
    /// # Errors
    /// When it does not answer.
    pub(crate) async fn load(cluster: &Cluster) -> anyhow::Result<Self> {
        let explain = |error| cluster.explain("asking which kinds are served", &error);
        let core = cluster.client.list_core_api_versions_aggregated().await.map_err(explain)?;
        let groups = cluster.client.list_api_groups_aggregated().await.map_err(explain)?;
        Ok(Self::new(&core, &groups))
    }

    fn new(core: &APIGroupDiscoveryList, groups: &APIGroupDiscoveryList) -> Self {
        let mut aliases = Vec::new();
        for group in core.items.iter().chain(&groups.items) {
            let name = group.metadata.as_ref().and_then(|meta| meta.name.clone()).unwrap_or_default();
            for resource in group.versions.iter().flat_map(|version| &version.resources) {
                let Some(plural) = resource.resource.clone() else { continue };
                let singular = resource.singular_resource.clone().unwrap_or_default();
                aliases.push(Aliases {
                    group: name.clone(),
                    plural,
                    singular,
                    short: resource.short_names.clone(),
                });
            }
        }
        Self { catalog: catalog_of(core, groups, None), aliases }
    }

    /// What `targetKind` alone means, and whether it means anything.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The resource that a word means: a kind, a plural, singular or short name, in any case, alone
    /// or with `.group` or `.version.group` behind it.
    ///
    /// # Errors
    /// [`KindError`] when nothing, or more than one thing, fits.
    pub(crate) fn resolve(&self, word: &str) -> Result<&KindEntry, KindError> {
        let (name, rest) = word.split_once('.').map_or((word, None), |(name, rest)| (name, Some(rest)));
        let found: Vec<(Fit, &KindEntry)> = self
            .catalog
            .entries()
            .iter()
            .filter(|entry| rest.is_none_or(|rest| is_qualified_by(entry, rest)))
            .filter_map(|entry| self.fit(entry, name).map(|fit| (fit, entry)))
            .collect();
        let best = found.iter().map(|(fit, _)| *fit).min();
        let best: Vec<&KindEntry> =
            found.into_iter().filter(|(fit, _)| Some(*fit) == best).map(|(_, entry)| entry).collect();
        let [first, ..] = best.as_slice() else { return Err(KindError::NotServed(word.to_owned())) };
        // A version that was named outright is meant, preferred or not.
        if rest.is_some_and(|rest| names_version(first, rest)) {
            return Ok(first);
        }
        let chosen = (best.iter().all(|entry| entry.kind == first.kind))
            .then(|| Catalog::new(best.iter().copied().cloned().collect()))
            .and_then(|candidates| candidates.resolve(&first.kind, None).ok().cloned());
        let entry = chosen.and_then(|chosen| best.iter().find(|entry| ***entry == chosen).copied());
        entry.ok_or_else(|| {
            let preferred = best.iter().filter(|entry| entry.preferred);
            let candidates = preferred.map(|entry| format!("{}.{}", entry.plural, entry.group)).collect();
            KindError::Ambiguous { word: word.to_owned(), candidates }
        })
    }

    fn fit(&self, entry: &KindEntry, name: &str) -> Option<Fit> {
        if entry.kind.eq_ignore_ascii_case(name) {
            return Some(Fit::Kind);
        }
        let own = |aliases: &&Aliases| aliases.group == entry.group && aliases.plural == entry.plural;
        let aliases = self.aliases.iter().filter(own);
        if entry.plural.eq_ignore_ascii_case(name)
            || aliases.clone().any(|aliases| aliases.singular.eq_ignore_ascii_case(name))
        {
            return Some(Fit::Resource);
        }
        let is_short = |aliases: &Aliases| aliases.short.iter().any(|short| short.eq_ignore_ascii_case(name));
        aliases.clone().any(is_short).then_some(Fit::Short)
    }
}

/// Whether what follows the first dot of a word, a group or `version.group`, fits.
fn is_qualified_by(entry: &KindEntry, rest: &str) -> bool {
    rest == entry.group || names_version(entry, rest)
}

fn names_version(entry: &KindEntry, rest: &str) -> bool {
    match rest.strip_prefix(entry.version.as_str()) {
        // `pods.v1.` is how kubectl names the core group.
        Some("" | ".") => entry.group.is_empty(),
        Some(group) => group.strip_prefix('.') == Some(entry.group.as_str()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use serde_json::{Value, json};

    use super::*;

    fn resource(plural: &str, kind: &str, singular: &str, short: &[&str]) -> Value {
        json!({"resource": plural, "responseKind": {"kind": kind}, "singularResource": singular,
               "shortNames": short, "scope": "Namespaced", "verbs": ["get"]})
    }

    fn served() -> Served {
        let list = |items: Value| serde_json::from_value(json!({ "items": items })).unwrap();
        let core = list(json!([{"versions": [{"version": "v1", "resources": [
            resource("configmaps", "ConfigMap", "configmap", &["cm"]),
            resource("events", "Event", "event", &["ev"]),
        ]}]}]));
        let groups = list(json!([
            {"metadata": {"name": "events.k8s.io"}, "versions": [{"version": "v1", "resources": [
                resource("events", "Event", "event", &["ev"])]}]},
            {"metadata": {"name": "a.io"}, "versions": [
                {"version": "v2", "resources": [resource("widgets", "Widget", "widget", &["w"])]},
                {"version": "v1", "resources": [resource("widgets", "Widget", "widget", &["w"])]}]},
            {"metadata": {"name": "b.io"}, "versions": [{"version": "v1", "resources": [
                resource("widgets", "Widget", "widget", &[]), resource("wheels", "Wheel", "wheel", &["w"]),
                resource("cms", "Cm", "cm", &[])]}]},
        ]));
        Served::new(&core, &groups)
    }

    fn found(word: &str) -> String {
        served()
            .resolve(word)
            .map_or_else(|error| error.to_string(), |entry| format!("{}/{}", entry.api_version(), entry.kind))
    }

    #[test]
    fn every_name_of_a_kind_is_understood_in_any_case() {
        for word in ["ConfigMap", "configmap", "CONFIGMAPS", "configmaps.v1."] {
            assert_eq!(found(word), "v1/ConfigMap", "{word}");
        }
        assert_eq!(found("ev"), "v1/Event", "core goes first");
        assert_eq!(found("events.events.k8s.io"), "events.k8s.io/v1/Event");
    }

    #[test]
    fn group_and_version_can_be_named() {
        assert_eq!(found("widget.a.io"), "a.io/v2/Widget");
        assert_eq!(found("widgets.v1.a.io"), "a.io/v1/Widget");
        assert!(found("widgets.v3.a.io").contains("serves no kind widgets.v3.a.io"));
    }

    #[test]
    fn what_several_groups_serve_must_be_qualified() {
        assert_eq!(found("widget"), "widget may be widgets.a.io or widgets.b.io; say which");
        assert_eq!(found("w"), "w may be widgets.a.io or wheels.b.io; say which");
        assert!(found("gizmo").contains("serves no kind gizmo"));
    }

    #[test]
    fn a_kind_goes_before_a_short_name() {
        assert_eq!(found("cm"), "b.io/v1/Cm");
    }
}
