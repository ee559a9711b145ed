//! Which resource a guard's `targetKind` means.
//!
//! A kind alone can be served by several groups. DESIGN order: core, then `terrafusion.ai`, then
//! `apps`, then the only match; otherwise the guard must name `targetApiVersion`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::text::Text;

/// Groups that win over others when `targetApiVersion` is absent, first one first.
const PREFERRED_GROUPS: [&str; 3] = ["", "terrafusion.ai", "apps"];

/// One kind in one version, as discovery lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct KindEntry {
    /// API group, empty for core.
    pub group: Text,
    /// API version.
    pub version: Text,
    /// Kind, in the server's spelling.
    pub kind: Text,
    /// Plural resource name.
    pub plural: Text,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether this is the version discovery prefers for this kind in its group.
    pub preferred: bool,
}

impl KindEntry {
    /// `group/version`, or `version` alone for core.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.as_str().to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }
}

/// Everything that discovery serves, main resources only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    entries: Vec<KindEntry>,
    replicas_paths: ReplicasPaths,
}

/// Where the count stands that the subresource `scale` changes, by group, version and plural; keys
/// from the object's root. Kinds without that subresource are not in it.
pub type ReplicasPaths = BTreeMap<(String, String, String), Arc<[String]>>;

/// Why a kind could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No group serves such a kind (in that version).
    #[error("the API server serves no kind {kind}{}; install its CRD or mend the spelling", .api_version.as_ref().map(|v| format!(" in {v}")).unwrap_or_default())]
    NotServed {
        /// The kind as the guard spells it.
        kind: String,
        /// `targetApiVersion`, when given.
        api_version: Option<String>,
    },
    /// Several groups serve it and none of them goes first.
    #[error("kind {kind} is served by {}; set targetApiVersion to one of them", .candidates.join(", "))]
    Ambiguous {
        /// The kind as the guard spells it.
        kind: String,
        /// `group/version` of each candidate.
        candidates: Vec<String>,
    },
}

impl ResolveError {
    /// A stable word for conditions and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotServed { .. } => "TargetUnknown",
            Self::Ambiguous { .. } => "TargetAmbiguous",
        }
    }
}

impl Catalog {
    /// A catalog of these entries, in any order.
    #[must_use]
    pub fn new(mut entries: Vec<KindEntry>) -> Self {
        entries.sort();
        entries.dedup();
        Self { entries, replicas_paths: ReplicasPaths::new() }
    }

    /// The same with the kinds that can be scaled.
    #[must_use]
    pub fn with_replicas_paths(self, replicas_paths: ReplicasPaths) -> Self {
        Self { replicas_paths, ..self }
    }

    /// Which kinds can be scaled, and where their count stands.
    #[must_use]
    pub fn replicas_paths(&self) -> &ReplicasPaths {
        &self.replicas_paths
    }

    /// Where the count of a kind stands; `None` when it has no subresource `scale`.
    #[must_use]
    pub fn replicas_path(&self, entry: &KindEntry) -> Option<&Arc<[String]>> {
        let key = [&entry.group, &entry.version, &entry.plural].map(|text| text.as_str().to_owned());
        self.replicas_paths.get(&key.into())
    }

    /// All entries, sorted.
    #[must_use]
    pub fn entries(&self) -> &[KindEntry] {
        &self.entries
    }

    /// All versions in which a resource is served.
    pub fn versions_of<'a>(&'a self, group: &'a str, plural: &'a str) -> impl Iterator<Item = &'a KindEntry> {
        self.entries.iter().filter(move |entry| entry.group == group && entry.plural == plural)
    }

    /// The resource of an entry in the version that is preferred now, if it is served.
    #[must_use]
    pub fn preferred_of<'a>(&'a self, entry: &'a KindEntry) -> Option<&'a KindEntry> {
        self.versions_of(&entry.group, &entry.plural)
            .find(|served| served.preferred && served.kind.eq_ignore_ascii_case(&entry.kind))
    }

    /// Finds the resource that `kind` means. Case does not matter, as in the older operator.
    ///
    /// # Errors
    /// [`ResolveError`] when nothing or more than one thing matches.
    pub fn resolve(&self, kind: &str, api_version: Option<&str>) -> Result<&KindEntry, ResolveError> {
        let of_kind = self.entries.iter().filter(|entry| entry.kind.eq_ignore_ascii_case(kind));
        let not_served =
            || ResolveError::NotServed { kind: kind.to_owned(), api_version: api_version.map(str::to_owned) };
        if let Some(wanted) = api_version {
            return of_kind.clone().find(|entry| entry.api_version() == wanted).ok_or_else(not_served);
        }
        let preferred: Vec<&KindEntry> = of_kind.filter(|entry| entry.preferred).collect();
        for group in PREFERRED_GROUPS {
            if let Some(entry) = preferred.iter().find(|entry| entry.group == group) {
                return Ok(entry);
            }
        }
        match preferred.as_slice() {
            [] => Err(not_served()),
            [only] => Ok(only),
            many => Err(ResolveError::Ambiguous {
                kind: kind.to_owned(),
                candidates: many.iter().map(|entry| entry.api_version()).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn entry(group: &str, version: &str, kind: &str, preferred: bool) -> KindEntry {
        KindEntry {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            plural: format!("{}s", kind.to_lowercase()).into(),
            namespaced: true,
            preferred,
        }
    }

    fn catalog() -> Catalog {
        Catalog::new(vec![
            entry("", "v1", "ConfigMap", true),
            entry("other.io", "v1", "ConfigMap", true),
            entry("apps", "v1", "Deployment", true),
            entry("old.io", "v1", "Deployment", true),
            entry("a.io", "v1", "Widget", true),
            entry("b.io", "v2", "Widget", true),
            entry("b.io", "v1", "Widget", false),
            entry("c.io", "v1", "Gadget", true),
        ])
    }

    #[test]
    fn core_terrafusion_and_apps_win_without_an_api_version() {
        assert_eq!(catalog().resolve("configmap", None).unwrap().group, "");
        assert_eq!(catalog().resolve("DEPLOYMENT", None).unwrap().group, "apps");
    }

    #[test]
    fn the_only_match_is_taken() {
        assert_eq!(catalog().resolve("gadget", None).unwrap().api_version(), "c.io/v1");
    }

    #[test]
    fn several_other_groups_are_ambiguous_until_the_version_is_named() {
        let error = catalog().resolve("Widget", None).unwrap_err();
        assert_eq!(error.reason(), "TargetAmbiguous");
        assert!(error.to_string().contains("a.io/v1, b.io/v2"), "{error}");
        assert_eq!(catalog().resolve("Widget", Some("b.io/v1")).unwrap().version, "v1");
    }

    #[test]
    fn an_unknown_kind_says_so() {
        let error = catalog().resolve("Gizmo", None).unwrap_err();
        assert_eq!(error.reason(), "TargetUnknown");
        assert_eq!(catalog().resolve("Widget", Some("b.io/v9")).unwrap_err().reason(), "TargetUnknown");
    }
}
