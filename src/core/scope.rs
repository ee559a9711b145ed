//! Scope: which part of an object a guard pins.

use super::paths::{PathFilter, Position, Step};

/// Top-level fields that are never scope.
pub(crate) const NEVER_SCOPE: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// How the pinned value is taken from an object; DESIGN section 3 has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ScopeKind {
    /// Core ConfigMap: `data`, with `binaryData` beside it when there is any.
    ConfigMap,
    /// Core Secret: `data` decoded to text, other bytes as base64 under `binaryData`.
    Secret,
    /// GAMAConfig: `spec.parameters`.
    GamaConfig,
    /// `spec`, or every top-level field but `apiVersion`, `kind`, `metadata` and `status`.
    Other,
}

impl ScopeKind {
    /// The rule for a kind of an API group (empty for core). Case does not matter, because guards
    /// may spell kinds in any case.
    #[must_use]
    pub fn of(group: &str, kind: &str) -> Self {
        if group.is_empty() && kind.eq_ignore_ascii_case("ConfigMap") {
            Self::ConfigMap
        } else if group.is_empty() && kind.eq_ignore_ascii_case("Secret") {
            Self::Secret
        } else if group == "terrafusion.ai" && kind.eq_ignore_ascii_case("GAMAConfig") {
            Self::GamaConfig
        } else {
            Self::Other
        }
    }
}

/// The pinned part of an object: a rule by kind, narrowed by paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    kind: ScopeKind,
    filter: PathFilter,
}

impl Scope {
    /// The scope of a kind of an API group (empty for core), narrowed by `filter`.
    #[must_use]
    pub fn new(group: &str, kind: &str, filter: PathFilter) -> Self {
        Self { kind: ScopeKind::of(group, kind), filter }
    }

    /// The same kind with other paths.
    #[must_use]
    pub fn with_filter(&self, filter: PathFilter) -> Self {
        Self { kind: self.kind, filter }
    }

    /// The rule by kind.
    #[must_use]
    pub fn kind(&self) -> ScopeKind {
        self.kind
    }

    /// The paths that narrow it.
    #[must_use]
    pub fn filter(&self) -> &PathFilter {
        &self.filter
    }

    /// Whether the value under these keys, from the object's root, is pinned. For fields within `spec`.
    #[must_use]
    pub fn covers(&self, keys: &[&str]) -> bool {
        let of_kind = match self.kind {
            ScopeKind::ConfigMap | ScopeKind::Secret => false,
            ScopeKind::GamaConfig => keys.starts_with(&["spec", "parameters"]),
            ScopeKind::Other => true,
        };
        let descend = |position, key: &&str| self.filter.descend(position, Step::Member(key));
        of_kind
            && match keys.iter().fold(self.filter.root(), descend) {
                Position::Inside => true,
                Position::Outside => false,
                Position::Between(_) => self.filter.keeps_undecided(),
            }
    }

    /// Whether any object of the kind has something that is pinned. Where none has, every content has
    /// the same hash.
    #[must_use]
    pub fn may_pin(&self) -> bool {
        let descend = |position, key: &&str| self.filter.descend(position, Step::Member(key));
        let open = |keys: &[&str]| keys.iter().fold(self.filter.root(), descend) != Position::Outside;
        match self.kind {
            ScopeKind::ConfigMap => open(&["data"]) || open(&["binaryData"]),
            ScopeKind::Secret => open(&["data"]),
            ScopeKind::GamaConfig => open(&["spec", "parameters"]),
            ScopeKind::Other => !self.filter.lies_within(&NEVER_SCOPE),
        }
    }

    /// Whether neither values nor hashes of this scope may be shown (DESIGN section 8).
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.kind == ScopeKind::Secret
    }

    /// Whether the API server fills in defaults, so that a file's own hash is rarely the object's.
    #[must_use]
    pub fn has_server_defaults(&self) -> bool {
        self.kind == ScopeKind::Other
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn paths_that_leave_nothing_of_any_object_are_told_from_others() {
        let may_pin = |group: &str, kind: &str, filter| Scope::new(group, kind, filter).may_pin();
        let only = |path: &str| PathFilter::only(&[path]).unwrap();
        let ignoring = |path: &str| PathFilter::ignoring(&[path]).unwrap();
        for (group, kind, path) in [
            ("", "ConfigMap", "/metadata/labels/tier"),
            ("", "Secret", "/stringData/x"),
            ("apps", "Deployment", "/status/replicas"),
            ("apps", "Deployment", "/metadata/labels"),
            ("terrafusion.ai", "GAMAConfig", "/spec/other"),
        ] {
            assert!(!may_pin(group, kind, only(path)), "{kind} {path}");
        }
        for (group, kind, path) in [
            ("", "ConfigMap", "/binaryData/x"),
            ("", "Secret", "/data/*"),
            ("apps", "Deployment", "/spec/replicas"),
            ("a.io", "Widget", "/config"),
            ("a.io", "Widget", "/*/labels"),
            ("terrafusion.ai", "GAMAConfig", "/spec/parameters/x"),
        ] {
            assert!(may_pin(group, kind, only(path)), "{kind} {path}");
        }
        assert!(!may_pin("", "Secret", ignoring("/data")) && may_pin("", "ConfigMap", ignoring("/data")));
        assert!(may_pin("apps", "Deployment", ignoring("/metadata")));
    }

    #[test]
    fn only_the_core_group_has_config_maps_and_secrets() {
        assert_eq!(ScopeKind::of("", "configmap"), ScopeKind::ConfigMap);
        assert_eq!(ScopeKind::of("", "Secret"), ScopeKind::Secret);
        assert_eq!(ScopeKind::of("other.io", "Secret"), ScopeKind::Other);
        assert_eq!(ScopeKind::of("terrafusion.ai", "GamaConfig"), ScopeKind::GamaConfig);
    }
}
