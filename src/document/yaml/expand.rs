//! Nodes to JSON: aliases expanded within bounds, merge keys resolved, keys sorted as Go sorts them.

use std::collections::HashMap;

use crate::core::json::MAX_DEPTH;
use crate::document::error::{Located, Problem};
use crate::document::scalar::write_text;

use super::{Content, NodeId, Nodes};

/// Most bytes of JSON that aliases may add to a document: several objects of the largest size the
/// API server stores. Go counts nodes only, so that aliases of one long text go unnoticed.
const MAX_ALIAS_BYTES: usize = 16 << 20;
/// Deepest nesting of merge keys inside what they merge.
const MAX_MERGES: usize = 100;

/// Writes the JSON of the mapping `root`.
pub(super) fn expand(nodes: &Nodes, root: NodeId) -> Result<Vec<u8>, Located> {
    let mut writer = Writer { nodes, out: Vec::new(), stack: Vec::new(), budget: Budget::default() };
    writer.value(root, false)?;
    while let Some(frame) = writer.stack.last_mut() {
        let aliased = frame.aliased;
        match frame.rest.pop() {
            None => {
                writer.out.push(frame.close);
                writer.stack.pop();
            }
            Some(entry) => {
                if !std::mem::replace(&mut frame.first, false) {
                    writer.out.push(b',');
                }
                if let Some(key) = &entry.key {
                    write_text(key, &mut writer.out);
                    writer.out.push(b':');
                }
                writer.value(entry.value, aliased || entry.merged)?;
            }
        }
    }
    Ok(writer.out)
}

struct Writer<'a> {
    nodes: &'a Nodes,
    out: Vec<u8>,
    stack: Vec<Frame>,
    budget: Budget,
}

/// A container that is being written.
struct Frame {
    /// What is still to be written, last one first.
    rest: Vec<Entry>,
    close: u8,
    first: bool,
    aliased: bool,
}

/// An item of a list, or a member of an object when it has a key.
struct Entry {
    key: Option<String>,
    value: NodeId,
    /// Whether it came in through a merge key.
    merged: bool,
}

impl Writer<'_> {
    /// Writes a scalar, or opens a container.
    fn value(&mut self, id: NodeId, aliased: bool) -> Result<(), Located> {
        let node = &self.nodes.nodes[id];
        self.budget.count(aliased).map_err(|problem| Located::new(node.line, problem))?;
        let fail = |problem| Located::new(node.line, problem);
        let (rest, open, close) = match &node.content {
            Content::Alias(target) => return self.value(*target, true),
            Content::Scalar(scalar) => {
                let before = self.out.len();
                scalar.write_json(&mut self.out).map_err(fail)?;
                return self.budget.bytes(self.out.len() - before, aliased).map_err(fail);
            }
            Content::MergeKey => {
                write_text("<<", &mut self.out);
                return Ok(());
            }
            Content::Sequence(items) => {
                let entry = |value: &NodeId| Entry { key: None, value: *value, merged: false };
                (items.iter().rev().map(entry).collect(), b'[', b']')
            }
            Content::Mapping(_) => (members(self.nodes, id, &mut self.budget)?, b'{', b'}'),
        };
        if self.stack.len() >= MAX_DEPTH {
            return Err(fail(Problem::TooDeep));
        }
        self.out.push(open);
        self.stack.push(Frame { rest, close, first: true, aliased });
        Ok(())
    }
}

/// The members of a mapping with its merges resolved, in reverse order of their keys.
fn members(nodes: &Nodes, id: NodeId, budget: &mut Budget) -> Result<Vec<Entry>, Located> {
    let mut merged = HashMap::new();
    merge(nodes, id, &mut merged, budget, 0)?;
    let mut members: Vec<Entry> =
        merged.into_iter().map(|(key, (value, merged))| Entry { key: Some(key), value, merged }).collect();
    members.sort_by(|a, b| b.key.cmp(&a.key));
    Ok(members)
}

/// Puts the members of a mapping into `into`. What comes later replaces what is there, be it a
/// member or a merge: go-yaml v2 has it so, against the specification of merge keys.
fn merge(
    nodes: &Nodes,
    id: NodeId,
    into: &mut HashMap<String, (NodeId, bool)>,
    budget: &mut Budget,
    depth: usize,
) -> Result<(), Located> {
    let node = nodes.target(id);
    let Content::Mapping(entries) = &node.content else {
        return Err(Located::new(node.line, Problem::BadMerge));
    };
    budget.count(depth > 0).map_err(|problem| Located::new(node.line, problem))?;
    if depth > MAX_MERGES {
        return Err(Located::new(node.line, Problem::ExcessiveAliasing));
    }
    let mut own: HashMap<String, usize> = HashMap::new();
    for (key, value) in entries {
        let line = nodes.nodes[*key].line;
        budget.count(depth > 0).map_err(|problem| Located::new(line, problem))?;
        if matches!(nodes.nodes[*key].content, Content::MergeKey) {
            for source in merge_sources(nodes, *value) {
                merge(nodes, source, into, budget, depth + 1)?;
            }
            continue;
        }
        let key = key_text(nodes, *key)?;
        if let Some(first) = own.insert(key.clone(), line) {
            return Err(Located::new(line, Problem::DuplicateKey { key, first }));
        }
        into.insert(key, (*value, depth > 0));
    }
    Ok(())
}

/// What a merge key merges, least important first. Anything but mappings is found out later.
fn merge_sources(nodes: &Nodes, value: NodeId) -> Vec<NodeId> {
    match &nodes.nodes[value].content {
        Content::Sequence(items) => items.iter().rev().copied().collect(),
        _ => vec![value],
    }
}

fn key_text(nodes: &Nodes, id: NodeId) -> Result<String, Located> {
    let fail = |problem| Located::new(nodes.nodes[id].line, problem);
    match &nodes.target(id).content {
        Content::Scalar(scalar) => scalar.as_key().map_err(fail),
        Content::MergeKey => Ok("<<".to_owned()),
        Content::Sequence(_) => Err(fail(Problem::BadKey("a list"))),
        Content::Mapping(_) | Content::Alias(_) => Err(fail(Problem::BadKey("a mapping"))),
    }
}

/// Keeps small texts from growing huge, by go-yaml's own rule: the share of nodes that come from
/// aliases may be 99 % in small documents and 10 % in large ones.
#[derive(Default)]
struct Budget {
    nodes: u32,
    aliased: u32,
    alias_bytes: usize,
}

/// Below this many nodes, 99 % may come from aliases.
const LOW: f64 = 400_000.0;
/// From this many nodes on, 10 % may.
const HIGH: f64 = 4_000_000.0;

impl Budget {
    fn count(&mut self, aliased: bool) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(1);
        self.aliased = self.aliased.saturating_add(u32::from(aliased));
        let (nodes, from_aliases) = (f64::from(self.nodes), f64::from(self.aliased));
        let allowed = 0.99 - 0.89 * ((nodes - LOW) / (HIGH - LOW)).clamp(0.0, 1.0);
        let excessive = self.aliased > 100 && self.nodes > 1000 && from_aliases / nodes > allowed;
        if excessive { Err(Problem::ExcessiveAliasing) } else { Ok(()) }
    }

    fn bytes(&mut self, count: usize, aliased: bool) -> Result<(), Problem> {
        if aliased {
            self.alias_bytes = self.alias_bytes.saturating_add(count);
        }
        if self.alias_bytes > MAX_ALIAS_BYTES { Err(Problem::ExcessiveAliasing) } else { Ok(()) }
    }
}
