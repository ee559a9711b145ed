//! The general way: an index of the values in a text, so that keys can be sorted and parts left out.
//!
//! Nodes stand in the order of the text and hold offsets, never copies. Building, choosing and
//! writing are loops with their own stacks: objects nest to 10,000 levels.

use std::borrow::Cow;

use crate::core::json::{Cursor, JsonError, MAX_DEPTH, Problem, RawString, Span};
use crate::core::paths::{PathFilter, Position, Step};

use super::sink::Sink;
use super::stream::{Quirks, copy_scalar};
use super::text::write_text;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    Scalar,
}

/// One value.
#[derive(Debug, Clone, Copy)]
struct Node {
    kind: Kind,
    key_escaped: bool,
    /// Between the quotes of the key; empty and at 0 for items and the root.
    key: (u32, u32),
    value: (u32, u32),
    /// The node after this one's last descendant.
    next: u32,
}

/// The values of one text.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    text: &'a [u8],
    nodes: Vec<Node>,
}

/// Number of a node in its tree.
pub(crate) type NodeId = u32;
/// The outermost value.
pub(crate) const ROOT: NodeId = 0;

impl<'a> Tree<'a> {
    /// Reads the value at `span` of `text`.
    pub(crate) fn read(text: &'a [u8], span: Span) -> Result<Self, JsonError> {
        u32::try_from(text.len()).map_err(|_| JsonError { problem: Problem::TooLarge, at: 0 })?;
        let mut tree = Self { text, nodes: Vec::new() };
        let mut cursor = Cursor::starting_at(&text[..span.end], span.start);
        tree.fill(&mut cursor)?;
        cursor.finish()?;
        Ok(tree)
    }

    fn fill(&mut self, cursor: &mut Cursor<'a>) -> Result<(), JsonError> {
        // Open containers, and whether nothing has been read of each yet.
        let mut open: Vec<(NodeId, bool)> = Vec::new();
        let mut key = None;
        loop {
            let id = self.push(cursor, key.take())?;
            if self.nodes[id as usize].kind == Kind::Scalar {
                self.close(id, cursor);
            } else {
                open.push((id, true));
                if open.len() > MAX_DEPTH {
                    return Err(cursor.error(Problem::TooDeep));
                }
            }
            loop {
                let Some((container, first)) = open.last_mut() else { return Ok(()) };
                let is_object = self.nodes[*container as usize].kind == Kind::Object;
                let end = if is_object { b'}' } else { b']' };
                let next = cursor.peek()?;
                if next == end {
                    cursor.at += 1;
                    let id = *container;
                    open.pop();
                    self.close(id, cursor);
                    continue;
                }
                if !std::mem::replace(first, false) {
                    cursor.expect(b',')?;
                }
                if is_object {
                    key = Some(cursor.string()?);
                    cursor.expect(b':')?;
                }
                break;
            }
        }
    }

    /// Adds the value at the cursor: a scalar whole, a container up to its first byte.
    fn push(&mut self, cursor: &mut Cursor<'a>, key: Option<RawString>) -> Result<NodeId, JsonError> {
        let kind = match cursor.peek()? {
            b'{' => Kind::Object,
            b'[' => Kind::Array,
            _ => Kind::Scalar,
        };
        let start = cursor.at;
        if kind == Kind::Scalar {
            cursor.skip_value()?;
        } else {
            cursor.at += 1;
        }
        let id = small(self.nodes.len());
        self.nodes.push(Node {
            kind,
            key_escaped: key.is_some_and(|key| key.escaped),
            key: key.map_or((0, 0), |key| (small(key.span.start), small(key.span.end))),
            value: (small(start), small(cursor.at)),
            next: id + 1,
        });
        Ok(id)
    }

    fn close(&mut self, id: NodeId, cursor: &Cursor<'a>) {
        let next = small(self.nodes.len());
        let node = &mut self.nodes[id as usize];
        node.value.1 = small(cursor.at);
        node.next = next;
    }

    /// What a node is.
    pub(crate) fn kind(&self, id: NodeId) -> Kind {
        self.nodes[id as usize].kind
    }

    /// The text of a node's value.
    pub(crate) fn value(&self, id: NodeId) -> &'a [u8] {
        let (start, end) = self.nodes[id as usize].value;
        &self.text[start as usize..end as usize]
    }

    /// Whether the node is `null`.
    pub(crate) fn is_null(&self, id: NodeId) -> bool {
        self.value(id) == b"null"
    }

    /// The decoded key of a member.
    pub(crate) fn key(&self, id: NodeId) -> Result<Cow<'a, str>, JsonError> {
        let node = &self.nodes[id as usize];
        let span = Span { start: node.key.0 as usize, end: node.key.1 as usize };
        RawString { span, escaped: node.key_escaped }.decode(self.text)
    }

    /// The children of a container, in the order of the text.
    pub(crate) fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> + '_ {
        let end = self.nodes[id as usize].next;
        let mut at = id + 1;
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let child = at;
                at = self.nodes[child as usize].next;
                child
            })
        })
    }

    /// How many scalars and empty containers `chosen` keeps.
    pub(crate) fn leaves(&self, chosen: &Chosen) -> usize {
        let is_leaf = |(node, kept): &(&Node, &bool)| {
            **kept && (node.kind == Kind::Scalar || node.value.1 - node.value.0 == 2)
        };
        self.nodes.iter().zip(&chosen.kept).filter(is_leaf).count()
    }

    /// The members of an object that `chosen` keeps, sorted by key.
    pub(crate) fn sorted_members(
        &self,
        id: NodeId,
        chosen: &Chosen,
    ) -> Result<Vec<(Cow<'a, str>, NodeId)>, JsonError> {
        let mut members = Vec::new();
        for child in self.children(id) {
            members.push((self.key(child)?, child));
        }
        members.sort_by(|left, right| left.0.cmp(&right.0));
        if let Some(twice) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let at = self.nodes[twice[1].1 as usize].key.0 as usize;
            return Err(JsonError { problem: Problem::DuplicateKey, at });
        }
        members.retain(|(_, child)| chosen.keeps(*child));
        Ok(members)
    }

    /// An item of a list by its index, or as `[field=value]` the first one with that field.
    pub(crate) fn item(&self, list: NodeId, segment: &str) -> Option<NodeId> {
        if let Ok(index) = segment.parse::<usize>() {
            return self.children(list).nth(index);
        }
        let (field, value) = segment.strip_prefix('[')?.strip_suffix(']')?.split_once('=')?;
        self.children(list).find(|item| self.field_text(*item, field).as_deref() == Some(value))
    }

    /// A member of an object by its key; none of what is no object.
    ///
    /// # Errors
    /// When a key cannot be decoded.
    pub(crate) fn member(&self, object: NodeId, key: &str) -> Result<Option<NodeId>, JsonError> {
        if self.kind(object) != Kind::Object {
            return Ok(None);
        }
        for member in self.children(object) {
            if self.key(member)? == key {
                return Ok(Some(member));
            }
        }
        Ok(None)
    }

    /// The text of a scalar member of an object, as `[field=value]` compares it: a string decoded,
    /// a number or literal in canonical form.
    pub(crate) fn field_text(&self, item: NodeId, field: &str) -> Option<String> {
        if self.kind(item) != Kind::Object {
            return None;
        }
        let member = self.children(item).find(|&child| self.key(child).is_ok_and(|key| key == field))?;
        self.scalar_text(member)
    }

    /// A string decoded, or a number or literal in canonical form; `None` for containers.
    pub(crate) fn scalar_text(&self, id: NodeId) -> Option<String> {
        if self.kind(id) != Kind::Scalar {
            return None;
        }
        let value = self.value(id);
        let mut cursor = Cursor::new(value);
        if value.starts_with(b"\"") {
            return cursor.string().ok()?.decode(value).ok().map(Cow::into_owned);
        }
        let mut out = Vec::new();
        copy_scalar(&mut cursor, &mut out).ok()?;
        String::from_utf8(out).ok()
    }

    /// Chooses what belongs to the scope, with `position` the filter's position at the root.
    pub(crate) fn choose(
        &self,
        filter: &PathFilter,
        position: Position,
        quirks: Quirks,
    ) -> Result<Chosen, JsonError> {
        let mut chosen = Chosen { kept: vec![false; self.nodes.len()] };
        // Open containers: node, its position, and how many of its children came before.
        let mut open: Vec<(NodeId, Position, usize)> = Vec::new();
        let mut id = ROOT;
        while let Some(node) = self.nodes.get(id as usize) {
            while open.last().is_some_and(|&(container, ..)| self.nodes[container as usize].next <= id) {
                open.pop();
            }
            let here = match open.last_mut() {
                None => position,
                Some((container, above, count)) => {
                    let place = *count;
                    *count += 1;
                    if quirks.drop_null_creation_timestamp && self.is_dropped_timestamp(*container, id)? {
                        Position::Outside
                    } else {
                        self.place(filter, *container, *above, id, place)?
                    }
                }
            };
            if here == Position::Outside {
                id = node.next;
                continue;
            }
            if here == Position::Inside || filter.keeps_undecided() {
                chosen.keep(id, &open);
            }
            if node.kind != Kind::Scalar {
                open.push((id, here, 0));
            }
            id += 1;
        }
        Ok(chosen)
    }

    fn place(
        &self,
        filter: &PathFilter,
        container: NodeId,
        above: Position,
        id: NodeId,
        index: usize,
    ) -> Result<Position, JsonError> {
        if !matches!(above, Position::Between(_)) {
            return Ok(above);
        }
        Ok(if self.kind(container) == Kind::Object {
            filter.descend(above, Step::Member(&self.key(id)?))
        } else {
            filter.descend(above, Step::Item(index, &|field| self.field_text(id, field)))
        })
    }

    /// The null `creationTimestamp` that API servers before 1.34 put under embedded metadata.
    fn is_dropped_timestamp(&self, container: NodeId, id: NodeId) -> Result<bool, JsonError> {
        Ok(self.is_null(id)
            && self.kind(container) == Kind::Object
            && container != ROOT
            && self.key(container)? == "metadata"
            && self.key(id)? == "creationTimestamp")
    }

    /// Writes the canonical form of the root, as far as it is chosen; an unchosen root is `{}`.
    pub(crate) fn write(
        &self,
        chosen: &Chosen,
        quirks: Quirks,
        sink: &mut impl Sink,
    ) -> Result<(), JsonError> {
        if !chosen.keeps(ROOT) {
            sink.put(b"{}");
            return Ok(());
        }
        let mut open: Vec<Frame<'a>> = Vec::new();
        let mut next = Some(ROOT);
        loop {
            if let Some(id) = next {
                match self.kind(id) {
                    Kind::Scalar if quirks.null_values_are_empty && open.len() == 1 && self.is_null(id) => {
                        sink.put(b"\"\"");
                    }
                    Kind::Scalar => {
                        let (start, end) = self.nodes[id as usize].value;
                        let mut cursor = Cursor::starting_at(&self.text[..end as usize], start as usize);
                        copy_scalar(&mut cursor, sink)?;
                        cursor.finish()?;
                    }
                    Kind::Object => open.push(Frame::object(self.sorted_members(id, chosen)?, sink)),
                    Kind::Array => open
                        .push(Frame::array(self.children(id).filter(|&c| chosen.keeps(c)).collect(), sink)),
                }
            }
            let Some(frame) = open.last_mut() else { return Ok(()) };
            next = frame.advance(sink);
            if next.is_none() {
                open.pop();
            }
        }
    }
}

/// Offsets and counts are below the length of the text, which [`Tree::read`] has checked.
#[allow(clippy::cast_possible_truncation, reason = "checked once for the whole text")]
fn small(value: usize) -> u32 {
    value as u32
}

/// Which nodes belong to the scope.
#[derive(Debug)]
pub(crate) struct Chosen {
    kept: Vec<bool>,
}

impl Chosen {
    /// Whether the node, or something under it, belongs to the scope.
    pub(crate) fn keeps(&self, id: NodeId) -> bool {
        self.kept[id as usize]
    }

    /// Keeps a node and the containers around it. Once one of them is kept, so are all further out.
    fn keep(&mut self, id: NodeId, open: &[(NodeId, Position, usize)]) {
        self.kept[id as usize] = true;
        for &(container, ..) in open.iter().rev() {
            if std::mem::replace(&mut self.kept[container as usize], true) {
                break;
            }
        }
    }
}

/// A container being written.
enum Frame<'a> {
    Object { members: std::vec::IntoIter<(Cow<'a, str>, NodeId)>, first: bool },
    Array { items: std::vec::IntoIter<NodeId>, first: bool },
}

impl<'a> Frame<'a> {
    fn object(members: Vec<(Cow<'a, str>, NodeId)>, sink: &mut impl Sink) -> Self {
        sink.put(b"{");
        Self::Object { members: members.into_iter(), first: true }
    }

    fn array(items: Vec<NodeId>, sink: &mut impl Sink) -> Self {
        sink.put(b"[");
        Self::Array { items: items.into_iter(), first: true }
    }

    /// Writes what stands before the next value and gives that value, or writes the end.
    fn advance(&mut self, sink: &mut impl Sink) -> Option<NodeId> {
        match self {
            Self::Object { members, first } => {
                let Some((key, id)) = members.next() else {
                    sink.put(b"}");
                    return None;
                };
                if !std::mem::replace(first, false) {
                    sink.put(b", ");
                }
                write_text(&key, sink);
                sink.put(b": ");
                Some(id)
            }
            Self::Array { items, first } => {
                let Some(id) = items.next() else {
                    sink.put(b"]");
                    return None;
                };
                if !std::mem::replace(first, false) {
                    sink.put(b", ");
                }
                Some(id)
            }
        }
    }
}
