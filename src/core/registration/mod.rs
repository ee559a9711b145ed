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
pub mod own;
mod selection;
mod touch;

pub use condition::Names;
pub use entry::{Entry, Hook, NAME_PREFIX, generation_of};
pub use selection::{Namespaces, Selection, Width};
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
type Widths<'a> = BTreeMap<(&'a str, &'a str), Width>;

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

/// Makes entries, wider ones where they would not fit: the names of the largest resource are
/// dropped first, then its namespaces.
fn fit(demands: &Demands<'_>, settings: &Settings<'_>) -> Registration {
    let mut widths = Widths::new();
    loop {
        let entries = entries(demands, &widths, settings);
        let mut weights: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut total = 0;
        for (class, entry) in &entries {
            total += entry.weight(settings);
            // There are as many definitions as kinds: they are few, and nothing is won by more of them.
            if class.phase == Phase::Define {
                continue;
            }
            *weights.entry((class.group, class.resource)).or_default() += entry.weight(settings);
        }
        let narrowest = |resource: &(&str, &str)| widths.get(resource).copied().unwrap_or(Width::Names);
        let heaviest = weights
            .iter()
            .filter(|(resource, _)| narrowest(resource) != Width::Everything)
            .max_by_key(|&(_, weight)| *weight)
            .map(|(resource, _)| *resource);
        match heaviest {
            Some(resource) if total > settings.limits.total => {
                widths.insert(resource, narrowest(&resource).next());
            }
            _ => {
                let entries = entries.into_iter().map(|(_, entry)| entry).collect();
                return Registration { entries, widened: widened(&widths) };
            }
        }
    }
}

fn widened(widths: &Widths<'_>) -> Vec<Widened> {
    widths
        .iter()
        .map(|(&(group, resource), &width)| Widened {
            group: group.to_owned(),
            resource: resource.to_owned(),
            width,
        })
        .collect()
}

fn entries<'a>(
    demands: &Demands<'a>,
    widths: &Widths<'_>,
    settings: &Settings<'_>,
) -> Vec<(Class<'a>, Entry)> {
    let select = |class: &Class<'a>| {
        let wanted = widths.get(&(class.group, class.resource)).filter(|_| class.phase != Phase::Define);
        let width = wanted.copied().unwrap_or(Width::Names);
        let pairs = demands.get(class)?;
        let fail = Class { policy: FailurePolicy::Fail, ..*class };
        let covered = (class.policy == FailurePolicy::Ignore).then(|| demands.get(&fail)).flatten();
        Some(selection::select(pairs, covered, class.namespaced, width, settings))
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
            made.push((*class, entry::make(class, both, number, selection)));
        }
    }
    made
}

#[cfg(test)]
mod tests;
