//! One YAML document to JSON: [`parse`] builds nodes, [`expand`] writes them with aliases and merge
//! keys resolved. Neither recurses, so depth is bounded by a rule and not by the stack.

mod expand;
mod parse;

use super::error::{Located, Problem};
use super::scalar::Scalar;

/// Index of a node in a [`Nodes`].
type NodeId = usize;

/// A parsed document.
struct Nodes {
    nodes: Vec<Node>,
}

/// One node and the line it starts on, from 1.
struct Node {
    line: usize,
    content: Content,
}

enum Content {
    Scalar(Scalar),
    /// `<<` that merges, where it stands as a key.
    MergeKey,
    Sequence(Vec<NodeId>),
    Mapping(Vec<(NodeId, NodeId)>),
    Alias(NodeId),
}

impl Nodes {
    /// The node itself, or what it is an alias of.
    fn target(&self, id: NodeId) -> &Node {
        match self.nodes[id].content {
            Content::Alias(target) => &self.nodes[target],
            _ => &self.nodes[id],
        }
    }
}

/// What YAML may cost. A node takes many times the memory of its text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Longest YAML of one text, in bytes.
    pub(super) text: usize,
    /// Most nodes of one document.
    pub(super) nodes: usize,
    /// Most bytes of JSON that all documents of a text may become.
    pub(super) json: usize,
}

impl Limits {
    /// For files that whoever runs the program chose.
    pub(super) const NONE: Self = Self { text: usize::MAX, nodes: usize::MAX, json: usize::MAX };
    /// For what somebody else may have chosen. An object that etcd takes has at most some 1.5 MiB.
    pub(super) const SOURCE: Self = Self { text: 2 << 20, nodes: 200_000, json: 16 << 20 };
}

/// The JSON of a text of one document; `None` when it holds nothing. Lines count from 1.
pub(super) fn to_json(text: &str, limits: Limits) -> Result<Option<Vec<u8>>, Located> {
    if text.len() > limits.text {
        return Err(Located::new(1, Problem::YamlTooLong(limits.text)));
    }
    let Some((nodes, root)) = parse::parse(text, limits.nodes)? else { return Ok(None) };
    let node = nodes.target(root);
    let what = match &node.content {
        Content::Mapping(_) => return expand::expand(&nodes, root).map(Some),
        Content::Scalar(Scalar::Null) => return Ok(None),
        Content::Sequence(_) => "a list",
        Content::Scalar(Scalar::Bool(_)) => "a yes or no",
        Content::Scalar(Scalar::Text(_)) | Content::MergeKey | Content::Alias(_) => "a text",
        Content::Scalar(_) => "a number",
    };
    Err(Located::new(node.line, Problem::NotAnObject(what)))
}
