//! The CEL expression that tells guarded objects from all others.
//!
//! One string of all names, in which the object's own is looked for: a list with `in` costs
//! milliseconds on older servers. `/` cannot stand in a name nor `:` in a namespace, so that a pair
//! found between slashes is that pair. `request.name` is not used, because it is absent when a
//! namespace is emptied; and the expression can never fail, because a failing condition under
//! `Fail` refuses the writes of strangers.

use std::fmt::Write as _;

/// The object's own name: of the old object on DELETE, empty where there is none.
const NAME: &str = "(object == null ? oldObject : object).metadata.?name.orValue('')";

/// The names that one match condition lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// `/ns1:a/ns2:b/`, or `/a/b/` for cluster-scoped objects.
    text: String,
    namespaced: bool,
}

impl Names {
    /// No names yet.
    pub(super) fn none(namespaced: bool) -> Self {
        Self { text: "/".to_owned(), namespaced }
    }

    /// Adds an object. `namespace` is not looked at for cluster-scoped ones.
    pub(super) fn add(&mut self, namespace: &str, name: &str) {
        if self.namespaced {
            self.text.push_str(namespace);
            self.text.push(':');
        }
        self.text.push_str(name);
        self.text.push('/');
    }

    /// How many bytes [`Self::add`] would add to the expression.
    pub(super) fn cost(&self, namespace: &str, name: &str) -> usize {
        let pair = if self.namespaced { namespace.len() + 1 } else { 0 };
        pair + quoted_length(name) + 1
    }

    /// Whether there is no name.
    pub(super) fn is_empty(&self) -> bool {
        self.text == "/"
    }

    /// Whether the expression is true for an object, computed as CEL would.
    #[must_use]
    pub fn contains(&self, namespace: &str, name: &str) -> bool {
        let wanted = if self.namespaced { format!("/{namespace}:{name}/") } else { format!("/{name}/") };
        self.text.contains(&wanted)
    }

    /// The expression.
    #[must_use]
    pub fn cel(&self) -> String {
        let namespace = if self.namespaced { "request.namespace + ':' + " } else { "" };
        format!("'{}'.contains('/' + {namespace}{NAME} + '/')", quoted(&self.text))
    }
}

/// A text as it stands within a CEL string literal in single quotes.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\\' | '\'' => {
                out.push('\\');
                out.push(char);
            }
            // Writing to a String cannot fail.
            _ if char.is_control() => drop(write!(out, "\\u{:04x}", char as u32)),
            _ => out.push(char),
        }
    }
    out
}

fn quoted_length(text: &str) -> usize {
    let plain = |byte: u8| !byte.is_ascii_control() && byte.is_ascii() && byte != b'\\' && byte != b'\'';
    if text.bytes().all(plain) { text.len() } else { quoted(text).len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expression_for_namespaced_objects_is_the_documented_one() {
        let mut names = Names::none(true);
        names.add("ns1", "a");
        names.add("ns2", "b");
        assert_eq!(
            names.cel(),
            "'/ns1:a/ns2:b/'.contains('/' + request.namespace + ':' + \
             (object == null ? oldObject : object).metadata.?name.orValue('') + '/')"
        );
    }

    #[test]
    fn the_expression_for_cluster_scoped_objects_has_no_namespace() {
        let mut names = Names::none(false);
        names.add("", "a");
        assert_eq!(
            names.cel(),
            "'/a/'.contains('/' + (object == null ? oldObject : object).metadata.?name.orValue('') + '/')"
        );
    }

    #[test]
    fn what_would_end_the_literal_is_escaped() {
        let mut names = Names::none(false);
        names.add("", "it's\\\u{7}");
        assert!(names.cel().starts_with("'/it\\'s\\\\\\u0007/'."), "{}", names.cel());
    }

    #[test]
    fn the_cost_of_a_name_is_what_it_adds_to_the_expression() {
        for name in ["plain", "it's", "back\\slash", "b\u{e9}ta", "\u{1}"] {
            let mut names = Names::none(true);
            let (before, cost) = (names.cel().len(), names.cost("ns", name));
            names.add("ns", name);
            assert_eq!(names.cel().len(), before + cost, "{name:?}");
        }
    }

    #[test]
    fn an_object_without_a_name_is_never_meant() {
        let mut names = Names::none(true);
        assert!(!names.contains("ns", ""));
        names.add("ns", "a");
        assert!(!names.contains("ns", ""));
        let mut names = Names::none(false);
        names.add("", "a");
        assert!(!names.contains("", ""));
    }
}
