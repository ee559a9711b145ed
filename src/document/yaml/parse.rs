//! Events of the YAML parser to nodes.

use std::collections::HashMap;

use granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, StructureStyle, Tag,
};

use crate::core::json::MAX_DEPTH;
use crate::document::error::{Located, Problem};
use crate::document::scalar;

use super::{Content, Node, NodeId, Nodes};

const MERGE_TAG: &str = "tag:yaml.org,2002:merge";

/// A container whose end has not been seen.
struct Open {
    id: NodeId,
    /// A key of a mapping that waits for its value.
    key: Option<NodeId>,
    /// Whether it is written with brackets.
    flow: bool,
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, NodeId>,
    root: Option<NodeId>,
    documents: usize,
}

/// The nodes of a text, at most so many, and the root among them; `None` when there is no document.
pub(super) fn parse(text: &str, most: usize) -> Result<Option<(Nodes, NodeId)>, Located> {
    refuse_invisible(text)?;
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.emit_anchor_events = true;
    options.bom_inside_document_as_content = true;
    // Our own limit, with its own message, is the lower one.
    options.flow_nesting_limit = MAX_DEPTH + 1;
    options.block_nesting_limit = MAX_DEPTH + 1;
    let mut parser: Parser<'_, StrInput<'_>> = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| syntax(&error))?;
        builder.take(text, event, span)?;
        if builder.nodes.len() > most {
            return Err(Located::new(span.start.line().max(1), Problem::TooManyNodes(most)));
        }
    }
    let Builder { nodes, root, .. } = builder;
    Ok(root.map(|root| (Nodes { nodes }, root)))
}

fn syntax(error: &ScanError) -> Located {
    let problem = match error.kind() {
        ErrorKind::RecursionLimitExceeded => Problem::TooDeep,
        _ => Problem::Yaml(error.info()),
    };
    Located::new(error.marker().line().max(1), problem)
}

/// NEL, LS and PS end a line in YAML 1.1, kubectl's, and are plain text in 1.2, our parser's. A
/// byte-order mark at the start of a line is text for kubectl and nothing for our parser.
fn refuse_invisible(text: &str) -> Result<(), Located> {
    let odd = |character| matches!(character, '\u{85}' | '\u{2028}' | '\u{2029}');
    for (index, line) in text.split('\n').enumerate() {
        let found =
            if line.starts_with('\u{feff}') { Some('\u{feff}') } else { line.chars().find(|c| odd(*c)) };
        if let Some(character) = found {
            return Err(Located::new(index + 1, Problem::Invisible(character.into())));
        }
    }
    Ok(())
}

/// What the name of an anchor may hold in YAML 1.1; 1.2 takes nearly everything, so that what
/// follows would be read otherwise.
fn is_anchor_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

/// Unquoted text in brackets that YAML 1.1 and 1.2 read differently.
fn check_flow_text(text: &str, tagged: bool, source: &str, span: Span) -> Result<(), Problem> {
    if tagged && text.is_empty() {
        return Err(Problem::TagWithoutValue);
    }
    if text.starts_with('?') {
        return Err(Problem::QuestionMark);
    }
    let after = span.end.byte_offset().and_then(|end| source.get(end..)).unwrap_or_default();
    let after = after.trim_start_matches([' ', '\t']);
    match after.strip_prefix(':') {
        Some(next) if !span.is_empty() && next.starts_with([',', '[', ']', '{', '}']) => {
            Err(Problem::ColonWithoutSpace)
        }
        _ => Ok(()),
    }
}

impl Builder {
    fn take(&mut self, source: &str, event: Event<'_>, span: Span) -> Result<(), Located> {
        let line = span.start.line().max(1);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(Located::new(line, Problem::AfterDocumentEnd));
                }
            }
            Event::Anchor(_, name) if !name.bytes().all(is_anchor_byte) => {
                return Err(Located::new(line, Problem::AnchorName));
            }
            Event::Scalar(text, style, anchor, tag) => {
                if style == ScalarStyle::Plain && self.in_flow() {
                    check_flow_text(&text, tag.is_some(), source, span)
                        .map_err(|problem| Located::new(line, problem))?;
                }
                let content = self.scalar(&text, style, tag.as_deref(), line)?;
                self.add(line, content, anchor);
            }
            Event::SequenceStart(style, anchor, _) => {
                self.enter(line, Content::Sequence(Vec::new()), anchor, style)?;
            }
            Event::MappingStart(style, anchor, _) => {
                self.enter(line, Content::Mapping(Vec::new()), anchor, style)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.open.pop();
            }
            Event::Alias(anchor) => {
                let Some(target) = self.anchors.get(&anchor).copied() else {
                    return Err(Located::new(line, Problem::Yaml("unknown anchor".to_owned())));
                };
                if self.open.iter().any(|open| open.id == target) {
                    return Err(Located::new(line, Problem::Cycle));
                }
                self.add(line, Content::Alias(target), 0);
            }
            _ => {}
        }
        Ok(())
    }

    fn scalar(
        &self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        line: usize,
    ) -> Result<Content, Located> {
        let tag = tag.map(|tag| format!("{}{}", tag.handle(), tag.suffix()));
        let is_plain = style == ScalarStyle::Plain && tag.is_none();
        let merges = is_plain || matches!(tag.as_deref(), Some(MERGE_TAG | "!"));
        if text == "<<" && merges && self.at_key() {
            return Ok(Content::MergeKey);
        }
        let scalar = match tag {
            Some(tag) => scalar::tagged(&tag, text).map_err(|problem| Located::new(line, problem))?,
            None if is_plain => scalar::plain(text),
            None => scalar::Scalar::Text(text.to_owned()),
        };
        Ok(Content::Scalar(scalar))
    }

    fn in_flow(&self) -> bool {
        self.open.last().is_some_and(|open| open.flow)
    }

    /// Whether the next node is a key.
    fn at_key(&self) -> bool {
        self.open.last().is_some_and(|open| {
            open.key.is_none() && matches!(self.nodes[open.id].content, Content::Mapping(_))
        })
    }

    fn enter(
        &mut self,
        line: usize,
        content: Content,
        anchor: usize,
        style: StructureStyle,
    ) -> Result<(), Located> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Located::new(line, Problem::TooDeep));
        }
        let id = self.add(line, content, anchor);
        self.open.push(Open { id, key: None, flow: style == StructureStyle::Flow });
        Ok(())
    }

    fn add(&mut self, line: usize, content: Content, anchor: usize) -> NodeId {
        let id = self.nodes.len();
        self.nodes.push(Node { line, content });
        if anchor != 0 {
            self.anchors.insert(anchor, id);
        }
        match self.open.last_mut() {
            None => {
                self.root.get_or_insert(id);
            }
            Some(open) => match &mut self.nodes[open.id].content {
                Content::Sequence(items) => items.push(id),
                Content::Mapping(entries) => match open.key.take() {
                    None => open.key = Some(id),
                    Some(key) => entries.push((key, id)),
                },
                _ => {}
            },
        }
        id
    }
}
