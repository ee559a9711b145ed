//! Which guards cover the object of a review, and whether they all approve what it shows.
//!
//! Both hooks ask here, so that the one that puts content back and the gate never disagree about that.

use jiff::Timestamp;

use super::guard::GuardState;
use super::images::Images;
use super::index::Index;
use super::review::{Review, metadata_text};
use super::verdict::{Operation, ReviewError, Unguarded};

/// What a review shows of the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// All of it, on the object itself or on a subresource that is of its kind.
    Object,
    /// Only a count.
    Scale,
    /// Only the node that a Pod goes to.
    Binding,
    /// Nothing: the Pod is to be deleted.
    Eviction,
}

impl Form {
    pub(super) fn of(review: &Review<'_>) -> Self {
        let of_pods = review.group.is_empty() && review.resource == "pods";
        match review.sub_resource.as_str() {
            // The older way to bind a Pod, which needs no subresource.
            "" if review.group.is_empty() && review.resource == "bindings" => Self::Binding,
            "scale" => Self::Scale,
            "binding" if of_pods => Self::Binding,
            "eviction" if of_pods => Self::Eviction,
            _ => Self::Object,
        }
    }
}

/// In which version an object arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// In the one that its guards hash.
    AsHashed,
    /// In another one for some guard, as while rules and index follow a change of the version one after
    /// the other, or when its version is served no longer. No hash of it says anything to that guard, so
    /// that only writes which change nothing may pass.
    Otherwise,
}

/// The guards that judge a review, and how its object arrives.
pub(super) fn guards_of<'i>(
    review: &Review<'_>,
    form: Form,
    key: &Unguarded,
    index: &'i Index,
) -> (Vec<&'i GuardState>, Arrival) {
    let namespace = key.namespace.as_deref().unwrap_or_default();
    let found = index.lookup(&key.group, &key.resource, namespace, &key.name);
    // Each version that guards hash has an entry of its own, through which the object arrives in
    // that version: a guard is judged only there, and where it asked for others.
    let comes_in = |state: &&GuardState| match state {
        GuardState::Valid(guard) if form == Form::Scale => guard.scaled_in() == Some(&review.version),
        GuardState::Valid(guard) => guard.written_in().any(|version| version == review.version),
        GuardState::Invalid(_) => hashes(state, &review.version),
    };
    let any = found.clone().any(|state| comes_in(&state));
    let guards: Vec<&GuardState> = found
        .filter(|state| !any || comes_in(state))
        .filter(|state| {
            // Of other subresources we know nothing: what they show is no image of the object.
            form != Form::Object
                || review.sub_resource.is_empty()
                || state.target().is_some_and(|target| target.kind == review.kind)
        })
        .collect();
    let as_hashed = guards.iter().all(|state| hashes(state, &review.version));
    (guards, if as_hashed { Arrival::AsHashed } else { Arrival::Otherwise })
}

fn hashes(state: &GuardState, version: &str) -> bool {
    state.target().is_some_and(|target| target.version == version)
}

/// The object's own name and namespace: `request.name` is absent for some operations, and a
/// mutating webhook may rename on CREATE.
pub(super) fn object_key(
    review: &Review<'_>,
    operation: Operation,
    form: Form,
) -> Result<Unguarded, ReviewError> {
    let (object, field) = match operation {
        Operation::Delete => (&review.old_object, "oldObject"),
        _ => (&review.object, "object"),
    };
    let Some(object) = object else {
        let message = format!("a {} without request.{field}", operation.as_str());
        return Err(ReviewError { uid: Some(review.uid.clone()), message });
    };
    let text = |name| {
        metadata_text(object, name)
            .map_err(|error| ReviewError { uid: Some(review.uid.clone()), message: error.to_string() })
    };
    let mut namespace = text("namespace")?;
    // The request of a Namespace carries its own name as namespace.
    let is_namespace = review.group.is_empty() && review.resource == "namespaces";
    if namespace.is_empty() && !is_namespace {
        namespace.clone_from(&review.namespace);
    }
    Ok(Unguarded {
        group: review.group.clone(),
        // A Binding bears the name of its Pod.
        resource: if form == Form::Binding { "pods".to_owned() } else { review.resource.clone() },
        namespace: (!namespace.is_empty()).then_some(namespace),
        name: text("name")?,
    })
}

/// Whether every guard approves the new content.
pub(super) fn approved_by_all(review: &Review<'_>, guards: &[&GuardState], now: Timestamp) -> bool {
    let images = Images::of(review);
    guards.iter().all(|state| match state {
        GuardState::Valid(guard) => {
            images.new_hash(&guard.scope).is_some_and(|hash| hash.is_ok_and(|hash| guard.approves(hash, now)))
        }
        GuardState::Invalid(_) => false,
    })
}
