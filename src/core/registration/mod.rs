//! The webhook entries that the guards of an index need, and nothing wider (DESIGN 4.9).
//!
//! A write that no guard covers must never reach us: entries name the resource, the version in
//! which guards hash it, the namespaces, and by a match condition the very objects. Only when all
//! that grows too large for one object of the API server do they become wider, and then the result
//! says so. Order and names depend on the guards alone, so that equal guards give equal entries.

use std::collections::{BTreeMap, BTreeSet};

use super::guard::{DeletionPolicy, Enforcement, FailurePolicy, Guard, GuardState, Target};
use super::index::Index;

mod condition;
pub mod definitions;
mod entry;
pub mod glass;
pub mod own;
mod selection;
mod touch;

pub use condition::Names;
pub use entry::{Entry, Hook, NAME_PREFIX, generation_of};
pub use selection::{KUBE_SYSTEM, Namespaces, Selection, Width};
pub use touch::Touch;

/// Bounds of one configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one CEL expression; the API server refuses more than 100,000 characters.
    pub expression: usize,
    /// Most bytes of all entries together; the API server stores about 1.6 MB.
    pub total: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { expression: 90_000, total: 1_000_000 }
    }
}

/// What entries depend on besides the guards.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// Namespace of this installation.
    pub own_namespace: &'a str,
    /// What each entry weighs for its client configuration, in bytes: the CA bundle in base64.
    pub client_weight: usize,
    /// Bounds; other than the default only in tests.
    pub limits: Limits,
}

/// The entries of one configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registration {
    /// In a fixed order.
    pub entries: Vec<Entry>,
    /// Resources whose entries match more than guarded objects, because there are too many names.
    pub widened: Vec<Widened>,
}

/// A resource whose entries had to become wider than its guards.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Widened {
    /// API group, empty for core.
    pub group: String,
    /// Plural resource name.
    pub resource: String,
    /// How wide.
    pub width: Width,
}

/// The entries of the validating configuration.
#[must_use]
pub fn validating(index: &Index, settings: &Settings<'_>) -> Registration {
    let mut demands = Demands::new();
    let defined = definitions::names(index);
    definitions::demand(&mut demands, &defined);
    for state in index.guards() {
        let Some(target) = state.target() else { continue };
        match state {
            GuardState::Valid(guard) => demand_of(&mut demands, guard, settings),
            // It refuses what it cannot judge, but must not do so while nobody can mend it.
            GuardState::Invalid(_) => {
                let version = &target.version;
                demand(&mut demands, target, version, Hook::Validate, Phase::Write, FailurePolicy::Ignore);
                demand(&mut demands, target, version, Hook::Validate, Phase::Delete, FailurePolicy::Ignore);
            }
        }
    }
    fit(&demands, settings)
}

/// What the gate needs for a guard: its target, and the subresources through which the target is
/// changed or removed, each by name. Never `x/*`, and never `status`.
fn demand_of<'a>(demands: &mut Demands<'a>, guard: &'a Guard, settings: &Settings<'_>) {
    let target = &guard.target;
    let write = write_policy(guard);
    let mut ask_in = |version, phase, policy| demand(demands, target, version, Hook::Validate, phase, policy);
    for version in guard.written_in() {
        ask_in(version, Phase::Write, write);
        ask_in(version, Phase::Delete, delete_policy(guard, settings));
    }
    if let Some(version) = guard.scaled_in() {
        ask_in(version, Phase::Scale, write);
    }
    let mut ask = |phase, policy| ask_in(&target.version, phase, policy);
    match (target.group.as_str(), target.resource.as_str()) {
        ("", "pods") => {
            ask(Phase::Bind, write);
            // Where deletion may pass, so may an eviction.
            if guard.deletion_policy == DeletionPolicy::Deny {
                ask(Phase::Evict, delete_policy(guard, settings));
            }
        }
        ("", "namespaces") => ask(Phase::Finalize, write),
        _ => {}
    }
}

/// The entries of the mutating configuration: guards of enforcement `Rewrite` alone. Never `Fail`:
/// the gate refuses what could not be rewritten.
#[must_use]
pub fn mutating(index: &Index, settings: &Settings<'_>) -> Registration {
    let mut demands = Demands::new();
    for state in index.guards() {
        if let GuardState::Valid(guard) = state
            && guard.enforcement == Enforcement::Rewrite
        {
            let (target, version) = (&guard.target, &guard.target.version);
            demand(&mut demands, target, version, Hook::Mutate, Phase::Write, FailurePolicy::Ignore);
        }
    }
    fit(&demands, settings)
}

fn write_policy(guard: &Guard) -> FailurePolicy {
    if guard.enforcement.blocks() { guard.failure_policy } else { FailurePolicy::Ignore }
}

/// Nobody needs us for a deletion but where it is to be refused; and in our own namespace it must pass
/// while we are dead, or nothing there could be mended.
fn delete_policy(guard: &Guard, settings: &Settings<'_>) -> FailurePolicy {
    let is_ours = guard.target.namespace.as_deref() == Some(settings.own_namespace);
    if guard.deletion_policy == DeletionPolicy::Deny && !is_ours {
        write_policy(guard)
    } else {
        FailurePolicy::Ignore
    }
}

/// In which way an object is changed or removed. Ways of one object may need different failure
/// policies, and each subresource has rules of its own: operations of one must not widen another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Creation and update of the object, and of subresources that show it whole.
    Write,
    /// Deletion.
    Delete,
    /// Its count of replicas, by a Scale.
    Scale,
    /// A Pod's node, by a Binding.
    Bind,
    /// A Pod's deletion, by an Eviction.
    Evict,
    /// A Namespace's finalizers.
    Finalize,
    /// Definitions of guarded kinds.
    Define,
}

/// What one entry, or several of them when there are many names, is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Class<'a> {
    group: &'a str,
    resource: &'a str,
    version: &'a str,
    namespaced: bool,
    hook: Hook,
    policy: FailurePolicy,
    phase: Phase,
}

/// Namespace (empty for cluster-scoped objects) and name.
type Pairs<'a> = BTreeSet<(&'a str, &'a str)>;
type Demands<'a> = BTreeMap<Class<'a>, Pairs<'a>>;

fn demand<'a>(
    demands: &mut Demands<'a>,
    target: &'a Target,
    version: &'a str,
    hook: Hook,
    phase: Phase,
    policy: FailurePolicy,
) {
    // No object bears such a name, and in a match condition it would mean others.
    if target.name.is_empty() || target.name.contains('/') {
        return;
    }
    let class = Class {
        group: &target.group,
        resource: &target.resource,
        version,
        namespaced: target.namespace.is_some(),
        hook,
        policy,
        phase,
    };
    let pair = (target.namespace.as_deref().unwrap_or_default(), target.name.as_str());
    let fail = Class { policy: FailurePolicy::Fail, ..class };
    let ignore = Class { policy: FailurePolicy::Ignore, ..class };
    // Asked for under `Fail`, an object need not be asked for again under `Ignore`.
    if policy == FailurePolicy::Ignore && demands.get(&fail).is_some_and(|pairs| pairs.contains(&pair)) {
        return;
    }
    if policy == FailurePolicy::Fail
        && let Some(pairs) = demands.get_mut(&ignore)
    {
        pairs.remove(&pair);
    }
    demands.entry(class).or_default().insert(pair);
}

/// Makes entries, wider ones where they would not fit, and only where that saves something: first the
/// names of the largest namespaces are dropped, so that one with many guards widens nobody else's
/// rules, then the namespaces of the largest resources.
fn fit(demands: &Demands<'_>, settings: &Settings<'_>) -> Registration {
    let mut widths = Widths::default();
    loop {
        let entries = entries(demands, &widths, settings);
        let total: usize = entries.iter().map(|entry| entry.weight(settings)).sum();
        let excess = total.saturating_sub(settings.limits.total);
        if excess == 0 || !widths.widen(demands, settings, excess) {
            return Registration { entries, widened: widths.told() };
        }
    }
}

/// Which part of what is too much has to be saved for it to be worth wider rules: a tenth. Where many
/// kinds make the entries themselves too many, names hardly matter.
const WORTH: usize = 10;

/// What is dropped from the entries.
#[derive(Debug, Default)]
pub(super) struct Widths<'a> {
    /// Group, resource and namespace (empty for cluster-scoped objects) whose names are.
    nameless: BTreeSet<(&'a str, &'a str, &'a str)>,
    /// Group and resource whose namespaces are, too.
    everywhere: BTreeSet<(&'a str, &'a str)>,
}

impl<'a> Widths<'a> {
    /// Drops what saves most until `excess` bytes are saved; false when nothing is left that saves any.
    fn widen(&mut self, demands: &Demands<'a>, settings: &Settings<'_>, excess: usize) -> bool {
        let mut names: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
        let mut namespaces: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
        // There are as many definitions as kinds: they are few, and nothing is won by more of them.
        for (class, pairs) in demands.iter().filter(|(class, _)| class.phase != Phase::Define) {
            for (namespace, name) in pairs {
                let place = (class.group, class.resource, *namespace);
                if class.namespaced && selection::is_kept(namespace, settings) {
                    continue;
                }
                if self.nameless.contains(&place) {
                    namespaces.entry((class.group, class.resource)).or_default().insert(namespace);
                } else {
                    *names.entry(place).or_default() += namespace.len() + name.len() + 2;
                }
            }
        }
        let as_namespace = |namespace: &str| namespace.len() + selection::LISTED;
        names.retain(|(_, _, namespace), saved| *saved > as_namespace(namespace));
        if names.values().sum::<usize>() * WORTH > excess {
            let mut heaviest: Vec<_> = names.into_iter().collect();
            heaviest.sort_by_key(|&(place, saved)| (std::cmp::Reverse(saved), place));
            let mut saved = 0;
            let dropped = heaviest.into_iter().take_while(|(_, bytes)| {
                let more = saved < excess;
                saved += bytes;
                more
            });
            self.nameless.extend(dropped.map(|(place, _)| place));
            return true;
        }
        let kept: usize = selection::kept(settings).iter().map(|name| as_namespace(name)).sum();
        let heaviest = namespaces
            .into_iter()
            .filter(|(resource, _)| !self.everywhere.contains(resource))
            .map(|(resource, of)| {
                (of.iter().map(|namespace| as_namespace(namespace)).sum::<usize>(), resource)
            })
            .filter(|(saved, _)| *saved > kept && *saved * WORTH > excess)
            .max();
        heaviest.is_some_and(|(_, resource)| self.everywhere.insert(resource))
    }

    fn told(&self) -> Vec<Widened> {
        let resources: BTreeSet<_> =
            self.nameless.iter().map(|&(group, resource, _)| (group, resource)).collect();
        resources
            .into_iter()
            .map(|(group, resource)| Widened {
                group: group.to_owned(),
                resource: resource.to_owned(),
                width: self.of(group, resource),
            })
            .collect()
    }

    fn of(&self, group: &str, resource: &str) -> Width {
        if self.everywhere.contains(&(group, resource)) { Width::Everything } else { Width::Namespaces }
    }

    /// Whether the names of a namespace are dropped.
    fn is_nameless(&self, class: &Class<'_>, namespace: &str) -> bool {
        class.phase != Phase::Define && self.nameless.contains(&(class.group, class.resource, namespace))
    }
}

fn entries<'a>(demands: &Demands<'a>, widths: &Widths<'_>, settings: &Settings<'_>) -> Vec<Entry> {
    let select = |class: &Class<'a>| {
        let pairs = demands.get(class)?;
        let fail = Class { policy: FailurePolicy::Fail, ..*class };
        let covered = (class.policy == FailurePolicy::Ignore).then(|| demands.get(&fail)).flatten();
        let dropped = selection::Dropped {
            names: &|namespace| widths.is_nameless(class, namespace),
            namespaces: widths.everywhere.contains(&(class.group, class.resource)),
        };
        Some(selection::select(pairs, covered, class.namespaced, &dropped, settings))
    };
    let mut made = Vec::new();
    for class in demands.keys() {
        let Some(selections) = select(class) else { continue };
        let other = match class.phase {
            Phase::Write => Some(Phase::Delete),
            Phase::Delete => Some(Phase::Write),
            _ => None,
        };
        // The same objects for writing and deleting: one entry.
        let other = other.and_then(|phase| select(&Class { phase, ..*class }));
        let both = other.is_some_and(|found| found == selections);
        if both && class.phase == Phase::Delete {
            continue;
        }
        for (number, selection) in selections.into_iter().enumerate() {
            made.push(entry::make(class, both, number, selection));
        }
    }
    made
}

#[cfg(test)]
mod tests;
