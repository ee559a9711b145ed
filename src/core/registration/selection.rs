//! Which objects of a resource an entry selects: by name, by namespace, or all of them.

use std::collections::BTreeSet;

use super::condition::Names;
use super::{Pairs, Settings};

/// Namespaces in which an entry never becomes wider than the guards: nobody could mend the cluster
/// if writes of its own components depended on us there.
pub const KUBE_SYSTEM: &str = "kube-system";
/// What a name takes in a list besides itself.
pub(super) const LISTED: usize = 3;

/// [`KUBE_SYSTEM`] and our own namespace.
pub(super) fn kept<'a>(settings: &Settings<'a>) -> [&'a str; 2] {
    [KUBE_SYSTEM, settings.own_namespace]
}

/// Whether the entries of a namespace never become wider than its guards.
pub(super) fn is_kept(namespace: &str, settings: &Settings<'_>) -> bool {
    kept(settings).contains(&namespace)
}

/// How much wider than its guards the entries of a resource are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// Every object in some namespaces with guarded objects.
    Namespaces,
    /// Every object.
    Everything,
}

/// The namespaces of an entry, by the label that the API server gives every namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespaces {
    /// All; also what cluster-scoped objects have.
    All,
    /// These alone, sorted.
    In(Vec<String>),
    /// All but these, sorted.
    NotIn(Vec<String>),
}

/// Which objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// In which namespaces.
    pub namespaces: Namespaces,
    /// Of which names; `None` for all.
    pub names: Option<Names>,
}

impl Selection {
    /// About how many bytes it takes.
    pub(super) fn weight(&self) -> usize {
        let namespaces = match &self.namespaces {
            Namespaces::All => 0,
            Namespaces::In(values) | Namespaces::NotIn(values) => {
                values.iter().map(|value| value.len() + LISTED).sum()
            }
        };
        namespaces + self.names.as_ref().map_or(0, |names| names.cel().len())
    }

    /// Whether an object is selected, as the API server decides it.
    #[must_use]
    pub fn selects(&self, namespace: &str, name: &str) -> bool {
        let is = |values: &[String]| values.iter().any(|value| value == namespace);
        let here = match &self.namespaces {
            Namespaces::All => true,
            Namespaces::In(values) => is(values),
            Namespaces::NotIn(values) => !is(values),
        };
        here && self.names.as_ref().is_none_or(|names| names.contains(namespace, name))
    }
}

/// What there was no room for.
pub(super) struct Dropped<'a> {
    /// Whether the names of a namespace are dropped.
    pub names: &'a dyn Fn(&str) -> bool,
    /// Whether the namespaces without names are dropped as well.
    pub namespaces: bool,
}

/// Selects `pairs`. `covered` are the pairs of the `Fail` class beside an `Ignore` class: what a
/// wide `Fail` entry asks for already is not asked for again.
pub(super) fn select(
    pairs: &Pairs<'_>,
    covered: Option<&Pairs<'_>>,
    namespaced: bool,
    dropped: &Dropped<'_>,
    settings: &Settings<'_>,
) -> Vec<Selection> {
    let is_wide = |namespace: &str| {
        (dropped.namespaces || (dropped.names)(namespace)) && !(namespaced && is_kept(namespace, settings))
    };
    let (wide, named): (Pairs<'_>, Pairs<'_>) =
        pairs.iter().copied().partition(|(namespace, _)| is_wide(namespace));
    let of = |pairs: &Pairs<'_>| -> BTreeSet<String> {
        let wide = pairs.iter().filter(|(namespace, _)| is_wide(namespace));
        wide.map(|(namespace, _)| (*namespace).to_owned()).collect()
    };
    let covered = covered.map(of).unwrap_or_default();
    let everywhere = !namespaced || dropped.namespaces;
    let namespaces = if wide.is_empty() || (everywhere && !covered.is_empty()) {
        None
    } else if !namespaced {
        Some(Namespaces::All)
    } else if everywhere {
        let kept = BTreeSet::from(kept(settings).map(str::to_owned));
        Some(Namespaces::NotIn(kept.into_iter().collect()))
    } else {
        let wanted: Vec<String> = of(&wide).difference(&covered).cloned().collect();
        (!wanted.is_empty()).then_some(Namespaces::In(wanted))
    };
    let mut selections = by_name(&named, namespaced, settings);
    selections.extend(namespaces.map(|namespaces| Selection { namespaces, names: None }));
    selections
}

/// One selection per expression of at most the allowed length.
fn by_name(pairs: &Pairs<'_>, namespaced: bool, settings: &Settings<'_>) -> Vec<Selection> {
    let fixed = Names::none(namespaced).cel().len();
    let mut selections = Vec::new();
    let mut names = Names::none(namespaced);
    let mut namespaces = BTreeSet::new();
    let mut length = fixed;
    let mut finish = |names: Names, namespaces: BTreeSet<&str>| {
        if names.is_empty() {
            return;
        }
        let namespaces = if namespaced {
            Namespaces::In(namespaces.into_iter().map(str::to_owned).collect())
        } else {
            Namespaces::All
        };
        selections.push(Selection { namespaces, names: Some(names) });
    };
    for (namespace, name) in pairs {
        let cost = names.cost(namespace, name);
        if length + cost > settings.limits.expression {
            finish(std::mem::replace(&mut names, Names::none(namespaced)), std::mem::take(&mut namespaces));
            length = fixed;
        }
        names.add(namespace, name);
        namespaces.insert(*namespace);
        length += cost;
    }
    finish(names, namespaces);
    selections
}
