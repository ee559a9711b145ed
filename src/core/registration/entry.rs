//! One entry of a webhook configuration: its name, its path and what it is called for.

use sha2::{Digest as _, Sha256};

use crate::core::guard::FailurePolicy;
use crate::core::verdict::Operation;

use super::selection::Selection;
use super::touch::Touch;
use super::{Class, Phase, Settings};

/// What every entry's name starts with. The API server shows the name when it cannot call us, so
/// it says where to look then.
pub const NAME_PREFIX: &str = "see-driftguard-breakglass";
/// What every entry's name ends with: entry names must be fully qualified.
const NAME_SUFFIX: &str = "terrafusion.ai";
/// What stands last in the path of an entry for guarded objects, while the glass is broken.
pub const BROKEN: &str = "broken";
/// Longest name of an entry (a DNS subdomain).
const MAX_NAME: usize = 253;
/// What an entry weighs besides names, namespaces and the CA bundle: its fixed fields, and what the
/// API server notes of their owner in `managedFields`.
const ENTRY_WEIGHT: usize = 1_600;

/// Which hook an entry calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hook {
    /// The gate.
    Validate,
    /// The convenience that puts approved content back.
    Mutate,
}

impl Hook {
    /// The first word of its paths.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Mutate => "mutate",
        }
    }
}

/// One entry of a webhook configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Unique in its configuration, a fully qualified name.
    pub name: String,
    /// Which hook it calls.
    pub hook: Hook,
    /// What becomes of a write while nobody answers.
    pub failure_policy: FailurePolicy,
    /// API group, empty for core.
    pub group: String,
    /// The version in which guards hash the objects.
    pub version: String,
    /// Plural resource name, then subresources through which the same object is written.
    pub resources: Vec<String>,
    /// Which operations.
    pub operations: Vec<Operation>,
    /// Whether the objects live in namespaces.
    pub namespaced: bool,
    /// Which objects.
    pub selection: Selection,
    /// What an update of them must touch; `None` for every update.
    pub touch: Option<Touch>,
    /// Whether the glass is broken, so that whoever answers lets everything pass.
    pub broken: bool,
    /// What nobody guesses, at the end of the path; only of entries for our own kinds.
    pub token: Option<String>,
}

impl Entry {
    /// The path at which the API server calls us for this entry. Neither answers nor certificates
    /// of another generation can be mistaken for this one.
    #[must_use]
    pub fn path(&self, generation: u64) -> String {
        let subject = match &self.token {
            Some(token) => format!("/{}/{token}", self.resources.first().map_or("", String::as_str)),
            None if self.broken => format!("/{BROKEN}"),
            None => String::new(),
        };
        format!("/{}/g{generation}/{}{subject}", self.hook.word(), policy_word(self.failure_policy))
    }

    /// About how many bytes it takes in the API server's store.
    pub(super) fn weight(&self, settings: &Settings<'_>) -> usize {
        // The name stands in the entry, and once more in managedFields.
        let touch = self.touch.map_or(0, |touch| touch.cel().len());
        ENTRY_WEIGHT + settings.client_weight + 2 * self.name.len() + self.selection.weight() + touch
    }
}

/// The generation in a path made by [`Entry::path`].
#[must_use]
pub fn generation_of(path: &str) -> Option<u64> {
    let mut segments = path.strip_prefix('/')?.split('/');
    if !matches!(segments.next()?, "validate" | "mutate") {
        return None;
    }
    segments.next()?.strip_prefix('g')?.parse().ok()
}

/// The entry of a class of objects; `both` when it is for writing and deleting alike, `number` from 0
/// among the entries of the class.
pub(super) fn make(class: &Class<'_>, both: bool, number: usize, selection: Selection) -> Entry {
    use Operation::{Create, Delete, Update};
    let of = |subresource: &str| format!("{}/{subresource}", class.resource);
    let whole = || {
        let also = whole_object_subresources(class.group, class.resource);
        std::iter::once(class.resource.to_owned()).chain(also.iter().map(|name| of(name))).collect()
    };
    let itself = || vec![class.resource.to_owned()];
    let (word, operations, resources) = match class.phase {
        _ if both => ("change", vec![Create, Update, Delete], whole()),
        Phase::Write => ("write", vec![Create, Update], whole()),
        Phase::Delete => ("delete", vec![Delete], itself()),
        Phase::Scale => ("scale", vec![Update], vec![of("scale")]),
        // An old way to bind is a resource by itself.
        Phase::Bind => ("bind", vec![Create], vec!["bindings".to_owned(), of("binding")]),
        Phase::Evict => ("evict", vec![Create], vec![of("eviction")]),
        Phase::Finalize => ("finalize", vec![Update], vec![of("finalize")]),
        Phase::Define => ("define", vec![Update, Delete], itself()),
    };
    let touch = match class.phase {
        Phase::Write => Touch::of(class.group, class.resource),
        Phase::Finalize => Some(Touch::Living),
        _ => None,
    };
    Entry {
        name: entry_name(class, word, number),
        hook: class.hook,
        failure_policy: class.policy,
        group: class.group.to_owned(),
        version: class.version.to_owned(),
        resources,
        operations,
        namespaced: class.namespaced,
        selection,
        touch,
        broken: false,
        token: None,
    }
}

/// Subresources whose reviews hold the whole object, and that change what a guard pins: rules on
/// the resource alone pass them by.
fn whole_object_subresources(group: &str, resource: &str) -> &'static [&'static str] {
    match (group, resource) {
        ("", "pods") => &["ephemeralcontainers", "resize"],
        _ => &[],
    }
}

fn entry_name(class: &Class<'_>, word: &str, number: usize) -> String {
    let group = if class.group.is_empty() { "core" } else { class.group };
    let what = format!("{}.{}.{group}", class.resource, class.version);
    let number = if number == 0 { String::new() } else { format!("-{}", number + 1) };
    let head = format!("{NAME_PREFIX}.{word}-{}{number}", policy_word(class.policy));
    let name = format!("{head}.{what}.{NAME_SUFFIX}");
    if name.len() <= MAX_NAME {
        return name;
    }
    let digest: String = Sha256::digest(what).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{head}.{digest}.{NAME_SUFFIX}")
}

pub(super) fn policy_word(policy: FailurePolicy) -> &'static str {
    match policy {
        FailurePolicy::Fail => "fail",
        FailurePolicy::Ignore => "ignore",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::registration::Namespaces;

    /// The second entry of those that writes to ConfigMaps need.
    pub(in crate::core::registration) fn entry_for_configmaps(policy: FailurePolicy) -> Entry {
        let class = Class {
            group: "",
            resource: "configmaps",
            version: "v1",
            namespaced: true,
            hook: Hook::Validate,
            policy,
            phase: Phase::Write,
        };
        make(&class, false, 1, Selection { namespaces: Namespaces::All, names: None })
    }
}
