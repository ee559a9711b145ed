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

/// The JSON of a text of one document; `None` when it holds nothing. Lines count from 1.
pub(super) fn to_json(text: &str) -> Result<Option<Vec<u8>>, Located> {
    let Some((nodes, root)) = parse::parse(text)? else { return Ok(None) };
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
