//! What must change in the new object so that its pinned part is the old object's again.
//!
//! One walk over both objects, steered by the same [`PathFilter`] that hash and diff use. Members of
//! objects are put back one by one; a list is rebuilt whole, since places in it shift. Whether that was
//! faithful is not reasoned about here: the caller hashes what comes out.

use std::borrow::Cow;

use crate::core::canonical::object::Object;
use crate::core::canonical::tree::{Kind, NodeId, ROOT, Tree};
use crate::core::canonical::{CanonicalError, top_level};
use crate::core::json::{JsonError, Span};
use crate::core::paths::{PathFilter, Position, Step};
use crate::core::scope::{Scope, ScopeKind};

use super::edit::{Edits, push_raw_key};

/// Deepest member that is put back by itself; what lies deeper goes with the member around it. It
/// also bounds recursion: objects nest to 10,000 levels.
const MAX_LEVEL: usize = 64;
/// Most members of one container that are put back one by one.
const MAX_MEMBERS: usize = 32;

/// Why the pinned part cannot be put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unrestorable {
    /// An object could not be read.
    Unreadable,
    /// What is pinned and what is not lie so that one cannot be put back without the other.
    Entangled,
}

impl From<JsonError> for Unrestorable {
    fn from(_: JsonError) -> Self {
        Self::Unreadable
    }
}

impl From<CanonicalError> for Unrestorable {
    fn from(_: CanonicalError) -> Self {
        Self::Unreadable
    }
}

/// Whose what is not pinned of `old` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Old {
    /// It stood in the cluster: a list item that is gone comes back whole, with what of it is not pinned.
    Stored,
    /// Nobody vouches for it: the hash covers what is pinned, and nothing else may come back.
    Foreign,
}

/// What is pinned, and whether anything beside it may come back.
struct Way<'f> {
    filter: &'f PathFilter,
    old: Old,
}

impl std::ops::Deref for Way<'_> {
    type Target = PathFilter;

    fn deref(&self) -> &PathFilter {
        self.filter
    }
}

/// The edits of `new` that put back what `scope` pins of `old`.
pub(crate) fn edits(
    old: &Object<'_>,
    new: &Object<'_>,
    scope: &Scope,
    whose: Old,
) -> Result<Edits, Unrestorable> {
    let filter = &Way { filter: scope.filter(), old: whose };
    let mut edits = Edits::default();
    for name in fields(old, new, scope.kind())? {
        let position = filter.descend(filter.root(), Step::Member(&name));
        let (left, right) = (side(old, &name)?, side(new, &name)?);
        if scope.kind() == ScopeKind::GamaConfig {
            parameters(left.as_ref(), right.as_ref(), filter, position, &name, &mut edits)?;
        } else {
            member(left.as_ref(), right.as_ref(), filter, position, &name, 0, &mut edits)?;
        }
    }
    Ok(edits)
}

/// The top-level fields that the kind pins, of either object.
fn fields(old: &Object<'_>, new: &Object<'_>, kind: ScopeKind) -> Result<Vec<String>, JsonError> {
    Ok(match kind {
        ScopeKind::ConfigMap => vec!["binaryData".to_owned(), "data".to_owned()],
        // Put back by remediation alone: no write to one is ever rewritten.
        ScopeKind::Secret => vec!["data".to_owned()],
        ScopeKind::GamaConfig => vec!["spec".to_owned()],
        ScopeKind::Other if old.field("spec").is_some() => vec!["spec".to_owned()],
        ScopeKind::Other => {
            let mut names: Vec<String> =
                top_level(old)?.into_iter().chain(top_level(new)?).map(|(name, _)| name).collect();
            names.sort_unstable();
            names.dedup();
            names
        }
    })
}

/// A value and where it stands.
#[derive(Clone, Copy)]
struct At<'t, 'a> {
    tree: &'t Tree<'a>,
    id: NodeId,
}

impl<'t, 'a> At<'t, 'a> {
    fn kind(self) -> Kind {
        self.tree.kind(self.id)
    }

    fn raw(self) -> &'a [u8] {
        self.tree.value(self.id)
    }

    fn members(self) -> Result<Vec<(Cow<'a, str>, At<'t, 'a>)>, JsonError> {
        let at = |id| Ok((self.tree.key(id)?, At { tree: self.tree, id }));
        self.tree.children(self.id).map(at).collect()
    }

    /// Items with what the filter says of each.
    fn items(self, filter: &Way<'_>, above: Position) -> Vec<(At<'t, 'a>, Position)> {
        let place = |(index, id)| {
            let text = |field: &str| self.tree.field_text(id, field);
            (At { tree: self.tree, id }, filter.descend(above, Step::Item(index, &text)))
        };
        self.tree.children(self.id).enumerate().map(place).collect()
    }
}

fn side<'a>(object: &Object<'a>, name: &str) -> Result<Option<Tree<'a>>, JsonError> {
    let tree = |span: Span| Tree::read(object.text(), span);
    object.field(name).map(tree).transpose()
}

fn root<'t, 'a>(tree: Option<&'t Tree<'a>>) -> Option<At<'t, 'a>> {
    tree.map(|tree| At { tree, id: ROOT })
}

/// A GAMAConfig pins `spec.parameters`, and nothing beside it in `spec`.
fn parameters(
    old: Option<&Tree<'_>>,
    new: Option<&Tree<'_>>,
    filter: &Way<'_>,
    position: Position,
    name: &str,
    edits: &mut Edits,
) -> Result<(), Unrestorable> {
    const KEY: &str = "parameters";
    let of = |tree| -> Result<_, JsonError> {
        let Some(at) = root(tree).filter(|at| at.kind() == Kind::Object) else { return Ok(None) };
        Ok(at.members()?.into_iter().find(|(key, _)| key == KEY).map(|(_, at)| at))
    };
    let (left, right) = (of(old)?, of(new)?);
    let mut inner = Edits::default();
    place(left, right, filter, filter.descend(position, Step::Member(KEY)), KEY, 1, &mut inner)?;
    if root(new).is_some_and(|at| at.kind() == Kind::Object) {
        edits.within(name, inner);
    } else if !inner.is_empty() {
        edits.set(name, inner.apply(b"{}")?);
    }
    Ok(())
}

fn member(
    old: Option<&Tree<'_>>,
    new: Option<&Tree<'_>>,
    filter: &Way<'_>,
    position: Position,
    key: &str,
    level: usize,
    edits: &mut Edits,
) -> Result<(), Unrestorable> {
    place(root(old), root(new), filter, position, key, level, edits)
}

/// Puts one member back.
fn place(
    old: Option<At<'_, '_>>,
    new: Option<At<'_, '_>>,
    filter: &Way<'_>,
    position: Position,
    key: &str,
    level: usize,
    edits: &mut Edits,
) -> Result<(), Unrestorable> {
    if position == Position::Outside {
        return Ok(());
    }
    let (old, new) = match (old, new) {
        (None, None) => return Ok(()),
        (Some(old), Some(new)) if old.raw() == new.raw() => return Ok(()),
        both => both,
    };
    if let (Some(old), Some(new)) = (old, new)
        && old.kind() == Kind::Object
        && new.kind() == Kind::Object
        && level < MAX_LEVEL
    {
        let mut inner = Edits::default();
        members(old, new, filter, position, level + 1, &mut inner)?;
        if inner.len() <= MAX_MEMBERS || position != Position::Inside {
            edits.within(key, inner);
            return Ok(());
        }
    }
    match merged(old, new, filter, position, level)? {
        Some(value) => edits.set(key, value),
        None if new.is_some() => edits.remove(key),
        None => {}
    }
    Ok(())
}

fn members(
    old: At<'_, '_>,
    new: At<'_, '_>,
    filter: &Way<'_>,
    position: Position,
    level: usize,
    edits: &mut Edits,
) -> Result<(), Unrestorable> {
    for (key, left, right) in pairs(Some(old), Some(new))? {
        place(left, right, filter, filter.descend(position, Step::Member(&key)), &key, level, edits)?;
    }
    Ok(())
}

type Pair<'t, 'a, 'u, 'b> = (String, Option<At<'t, 'a>>, Option<At<'u, 'b>>);

/// Members of both objects by key.
fn pairs<'t, 'a, 'u, 'b>(
    old: Option<At<'t, 'a>>,
    new: Option<At<'u, 'b>>,
) -> Result<Vec<Pair<'t, 'a, 'u, 'b>>, JsonError> {
    let mut named = std::collections::BTreeMap::<String, (Option<At<'t, 'a>>, Option<At<'u, 'b>>)>::new();
    for (key, at) in old.map(At::members).transpose()?.into_iter().flatten() {
        named.entry(key.into_owned()).or_default().0 = Some(at);
    }
    for (key, at) in new.map(At::members).transpose()?.into_iter().flatten() {
        named.entry(key.into_owned()).or_default().1 = Some(at);
    }
    Ok(named.into_iter().map(|(key, (old, new))| (key, old, new)).collect())
}

/// A value whose pinned part is `old`'s and whose other part is `new`'s; `None` when nothing is left.
fn merged(
    old: Option<At<'_, '_>>,
    new: Option<At<'_, '_>>,
    filter: &Way<'_>,
    position: Position,
    level: usize,
) -> Result<Option<Vec<u8>>, Unrestorable> {
    let of_kind = |at: Option<At<'_, '_>>, kind| at.is_none_or(|at| at.kind() == kind);
    match position {
        Position::Inside => Ok(old.map(|at| at.raw().to_vec())),
        Position::Outside => Ok(new.map(|at| at.raw().to_vec())),
        Position::Between(_) if level >= MAX_LEVEL => Err(Unrestorable::Entangled),
        Position::Between(_) if of_kind(old, Kind::Object) && of_kind(new, Kind::Object) => {
            merged_object(old, new, filter, position, level)
        }
        Position::Between(_) if of_kind(old, Kind::Array) && of_kind(new, Kind::Array) => {
            merged_list(old, new, filter, position, level)
        }
        // A scalar on either side: nothing of it can be kept beside what is pinned.
        Position::Between(_)
            if filter.keeps_undecided() && (filter.old == Old::Stored || of_kind(old, Kind::Scalar)) =>
        {
            Ok(old.map(|at| at.raw().to_vec()))
        }
        Position::Between(_) => Err(Unrestorable::Entangled),
    }
}

fn merged_object(
    old: Option<At<'_, '_>>,
    new: Option<At<'_, '_>>,
    filter: &Way<'_>,
    position: Position,
    level: usize,
) -> Result<Option<Vec<u8>>, Unrestorable> {
    let mut out = vec![b'{'];
    let mut first = true;
    for (key, left, right) in pairs(old, new)? {
        let below = filter.descend(position, Step::Member(&key));
        if let Some(value) = merged(left, right, filter, below, level + 1)? {
            let quoted = serde_json::Value::from(key).to_string();
            push_raw_key(&quoted.as_bytes()[1..quoted.len() - 1], &mut first, &mut out);
            out.extend_from_slice(&value);
        }
    }
    out.push(b'}');
    // What ignoring leaves of an object is pinned, even when empty; `only` drops what it empties.
    let kept =
        if filter.keeps_undecided() { old.is_some() } else { !first || old.is_some() && new.is_some() };
    Ok((kept || !first).then_some(out))
}

fn merged_list(
    old: Option<At<'_, '_>>,
    new: Option<At<'_, '_>>,
    filter: &Way<'_>,
    position: Position,
    level: usize,
) -> Result<Option<Vec<u8>>, Unrestorable> {
    let lefts = old.map(|at| at.items(filter, position)).unwrap_or_default();
    let rights = new.map(|at| at.items(filter, position)).unwrap_or_default();
    let same_shape = lefts.len() == rights.len() && lefts.iter().zip(&rights).all(|(l, r)| l.1 == r.1);
    let mut values: Vec<Vec<u8>> = Vec::new();
    if same_shape {
        for ((left, below), (right, _)) in lefts.iter().zip(&rights) {
            values.extend(merged(Some(*left), Some(*right), filter, *below, level + 1)?);
        }
    } else {
        // The pinned items in their approved order; the others keep their side of them.
        let pinned = |position: Position| position != Position::Outside;
        let lead = rights.iter().take_while(|(_, below)| !pinned(*below)).count();
        let (before, after) = rights.split_at(lead);
        values.extend(before.iter().map(|(at, _)| at.raw().to_vec()));
        for (left, below) in lefts.iter().filter(|(_, below)| pinned(*below)) {
            values.extend(merged_item(*left, *below, &lefts, &rights, filter, level)?);
        }
        let others = after.iter().filter(|(_, below)| !pinned(*below));
        values.extend(others.map(|(at, _)| at.raw().to_vec()));
    }
    if values.is_empty() && old.is_none() {
        return Ok(None);
    }
    let mut out = vec![b'['];
    out.extend(values.join(&b','));
    out.push(b']');
    Ok(Some(out))
}

/// One pinned item of a list that has changed its shape. Its partner in the new list is the one item
/// that the same paths lead into; without one it comes back as it was.
fn merged_item(
    old: At<'_, '_>,
    position: Position,
    lefts: &[(At<'_, '_>, Position)],
    rights: &[(At<'_, '_>, Position)],
    filter: &Way<'_>,
    level: usize,
) -> Result<Option<Vec<u8>>, Unrestorable> {
    if position == Position::Inside {
        return Ok(Some(old.raw().to_vec()));
    }
    let alike = |list: &[(At<'_, '_>, Position)]| list.iter().filter(|item| item.1 == position).count();
    match (alike(lefts), alike(rights)) {
        (1, 0) if filter.old == Old::Stored => Ok(Some(old.raw().to_vec())),
        // Without what is ignored of it: nobody vouches for that.
        (_, 0) if filter.old == Old::Foreign && filter.keeps_undecided() => {
            merged(Some(old), None, filter, position, level + 1)
        }
        (1, 1) => {
            let partner = rights.iter().find(|item| item.1 == position).map(|item| item.0);
            merged(Some(old), partner, filter, position, level + 1)
        }
        _ => Err(Unrestorable::Entangled),
    }
}
