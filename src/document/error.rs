//! What can be wrong with a file of documents, in one sentence: where, what, how to mend.
//!
//! Keys may be named, values never: a document may be a Secret.

use std::fmt;

use crate::core::json::JsonError;

use super::Origin;

/// A file or document that cannot be used.
#[derive(Debug, thiserror::Error)]
pub struct DocumentError {
    /// The file as the user named it.
    pub file: String,
    /// Which document of the file, from 1, where that is known.
    pub document: Option<usize>,
    /// Which line of the file, from 1, where that is known.
    pub line: Option<usize>,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        match (self.document, self.line) {
            (Some(document), Some(line)) => write!(f, ": document {document}, line {line}")?,
            (Some(document), None) => write!(f, ": document {document}")?,
            (None, Some(line)) => write!(f, ": line {line}")?,
            (None, None) => {}
        }
        write!(f, ": {}", self.problem)
    }
}

impl DocumentError {
    /// A problem with a file as a whole.
    pub(super) fn of_file(file: &str, problem: Problem) -> Self {
        Self { file: file.to_owned(), document: None, line: None, problem }
    }

    /// A problem with a document as a whole.
    pub(super) fn at(origin: &Origin, problem: Problem) -> Self {
        Self { file: origin.file.clone(), document: Some(origin.number), line: Some(origin.line), problem }
    }

    /// A stable word for the problem.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self.problem {
            Problem::Io(_) | Problem::EmptyDirectory | Problem::Url | Problem::StdinTwice => "Unreadable",
            Problem::Encoding => "NotText",
            Problem::Missing(_) | Problem::NoText(_) | Problem::NotAnObject(_) | Problem::BadItem(_) => {
                "NotAnObject"
            }
            Problem::DuplicateKey { .. } => "DuplicateKey",
            Problem::YamlTooLong(_) | Problem::TooManyNodes(_) => "TooLarge",
            _ => "BadSyntax",
        }
    }
}

/// What is wrong with a file or document.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The operating system refused.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A directory without any file to read.
    #[error("this directory holds no .yaml, .yml or .json file")]
    EmptyDirectory,
    /// An address in place of a file.
    #[error("addresses are not fetched; download it and pipe it in with `-f -`")]
    Url,
    /// Standard input named more than once.
    #[error("standard input can be read only once; name `-` once")]
    StdinTwice,
    /// Neither UTF-8 nor UTF-16 with a byte-order mark.
    #[error("not UTF-8 text; save the file as UTF-8")]
    Encoding,
    /// A separator line with content on it.
    #[error("text after `---` on the same line, which kubectl refuses; put it on the next line")]
    SeparatorWithText,
    /// More than one document between separators.
    #[error("text after `...`, which kubectl ignores; divide documents with `---`")]
    AfterDocumentEnd,
    /// Not YAML.
    #[error("not valid YAML: {0}; mend the syntax here or just above")]
    Yaml(String),
    /// A character on which YAML 1.1 and 1.2 differ.
    #[error(
        "the invisible character U+{0:04X} means something else to kubectl than to others here; write it as \\u{0:04x} in double quotes, or remove it"
    )]
    Invisible(u32),
    /// The name of an anchor on which YAML 1.1 and 1.2 differ.
    #[error("the name of an anchor may hold letters, digits, `-` and `_` only; choose another")]
    AnchorName,
    /// A key without space or value behind its colon, on which YAML 1.1 and 1.2 differ.
    #[error("kubectl takes a `:` directly before a bracket or comma for text; put a space behind it")]
    ColonWithoutSpace,
    /// A tag in brackets with nothing behind it, on which YAML 1.1 and 1.2 differ.
    #[error("a tag without a value inside brackets; write the value, quoted if it is empty")]
    TagWithoutValue,
    /// An unquoted text in brackets on which YAML 1.1 and 1.2 differ.
    #[error("text that begins with `?` inside brackets; quote it, or kubectl reads a key")]
    QuestionMark,
    /// Not JSON.
    #[error("not valid JSON: {0}; mend the syntax here")]
    Json(String),
    /// A key that stands twice.
    #[error("key {key:?} stands twice in one mapping, first on line {first}; remove one of them")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Line of its first occurrence.
        first: usize,
    },
    /// A key that cannot be a key in JSON.
    #[error("a key is {0}, but keys are strings; quote it")]
    BadKey(&'static str),
    /// A number that JSON cannot express.
    #[error("not a number that JSON can express; quote it if text is meant")]
    NotFinite,
    /// A value that does not fit its explicit tag.
    #[error("the value does not fit its tag {tag}; mend the value or remove the tag")]
    BadTag {
        /// The tag, as `!!int`.
        tag: String,
    },
    /// Something other than mappings under a merge key.
    #[error("`<<` merges mappings only; give it an alias of a mapping, or a list of them")]
    BadMerge,
    /// An alias of a node that contains it.
    #[error("this alias stands inside what it refers to; remove it")]
    Cycle,
    /// Aliases that blow a small file up.
    #[error("aliases expand to too much; write the content out")]
    ExcessiveAliasing,
    /// More YAML than a source may have.
    #[error("more than {0} bytes of YAML; JSON may be longer")]
    YamlTooLong(usize),
    /// More values than a source may have.
    #[error("more than {0} keys and values in one YAML document; JSON may have more")]
    TooManyNodes(usize),
    /// Nested deeper than the API server accepts.
    #[error("nested deeper than the 10,000 levels that the API server accepts")]
    TooDeep,
    /// A document that is no mapping.
    #[error("this is {0}, but a document must be an object with apiVersion, kind and metadata.name")]
    NotAnObject(&'static str),
    /// A field without which an object cannot be named.
    #[error("{0} is missing; every object needs apiVersion, kind and metadata.name")]
    Missing(&'static str),
    /// A field that must be text and is, say, a number.
    #[error("{0} is no text; quote its value, since YAML takes words like n, on and 012 for something else")]
    NoText(&'static str),
    /// An item of a list that is no object.
    #[error("item {0} of this list is no object")]
    BadItem(usize),
}

impl From<JsonError> for Problem {
    fn from(error: JsonError) -> Self {
        Self::Json(error.to_string())
    }
}

/// A problem on a line of a file, before the document is known.
#[derive(Debug)]
pub(super) struct Located {
    /// Line of the file, from 1; `None` when only the document is known.
    pub(super) line: Option<usize>,
    pub(super) problem: Problem,
}

impl Located {
    pub(super) fn new(line: usize, problem: Problem) -> Self {
        Self { line: Some(line), problem }
    }

    /// The same, in a text that begins `lines` lines further down.
    pub(super) fn moved_by(mut self, lines: usize) -> Self {
        self.line = self.line.map(|line| line + lines);
        if let Problem::DuplicateKey { first, .. } = &mut self.problem {
            *first += lines;
        }
        self
    }

    pub(super) fn into_error(self, origin: &Origin) -> DocumentError {
        DocumentError {
            file: origin.file.clone(),
            document: Some(origin.number),
            line: self.line.or(Some(origin.line)),
            problem: self.problem,
        }
    }
}
