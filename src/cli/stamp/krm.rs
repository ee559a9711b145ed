//! The role of a KRM function: a `ResourceList` in, the same with results out.
//!
//! <https://github.com/kubernetes-sigs/kustomize/blob/master/cmd/config/docs/api-conventions/functions-spec.md>

use serde_json::{Value, json};

use super::{Change, Left};
use crate::api::names;
use crate::document;

/// Group and kind of what functions take.
const GROUP: &str = "config.kubernetes.io/";
const KIND: &str = "ResourceList";

/// What a `ResourceList` asks of this function.
pub(super) struct ResourceList {
    /// `data.strict` of its functionConfig.
    pub(super) strict: bool,
    /// `data.namespace` of its functionConfig.
    pub(super) namespace: Option<String>,
}

impl ResourceList {
    /// `None` when the text is something else.
    pub(super) fn of(text: &str) -> Option<Self> {
        // Its head alone tells, and a long stream of other things is not worth a second reading.
        if !text.contains(KIND) {
            return None;
        }
        let list: Value = serde_json::from_slice(&document::first(text)?).ok()?;
        let is_it = list["kind"] == KIND && list["apiVersion"].as_str()?.starts_with(GROUP);
        let given = |key: &str| match &list["functionConfig"]["data"][key] {
            Value::String(text) => Some(text.clone()),
            Value::Bool(is) => Some(is.to_string()),
            _ => None,
        };
        is_it.then(|| Self {
            strict: given("strict").as_deref() == Some("true"),
            namespace: given("namespace").filter(|text| !text.is_empty()),
        })
    }
}

/// The list with what was done as its results. A list that has results already, or ends in what nothing can be
/// appended to, is left as it is: standard error says the same.
pub(super) fn with_results(text: &str, changes: &[Change<'_>], left: &[Left<'_>]) -> String {
    let result = |severity: &str, message: String, guard: &super::Guard| {
        json!({
            "message": message,
            "severity": severity,
            "resourceRef": {
                "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
                "kind": "DriftGuard",
                "name": guard.name,
                "namespace": guard.namespace,
            },
        })
    };
    let done = changes.iter().flat_map(|change| {
        let name = change.name.as_ref().map(|name| format!("targetName is now {name}"));
        let hash = change.hash.map(|_| "expectedHash was refreshed".to_owned());
        name.into_iter().chain(hash).map(move |message| result("info", message, change.guard))
    });
    let not_done =
        left.iter().map(|left| result("warning", format!("left as it is: {}", left.why), left.guard));
    let results: Vec<Value> = done.chain(not_done).collect();
    if results.is_empty() {
        return text.to_owned();
    }
    let with = match text.trim_end().strip_suffix('}').filter(|_| text.trim_start().starts_with('{')) {
        Some(head) => format!("{head}, \"results\": {}}}\n", Value::Array(results)),
        None => {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            let items: String = results.iter().map(|result| format!("- {result}\n")).collect();
            format!("{text}{end}results:\n{items}")
        }
    };
    let before = document::first(text).and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    let after = document::first(&with).and_then(|json| serde_json::from_slice::<Value>(&json).ok());
    let without = after.map(|mut list| {
        list.as_object_mut().map(|list| list.remove("results"));
        list
    });
    if before == without { with } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::cli::stamp::{Guard, Input, Stream};

    const LIST: &str = "apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nfunctionConfig:\n  data: {strict: \"true\", namespace: shop}\nitems:\n- apiVersion: terrafusion.ai/v1\n  kind: DriftGuard\n  metadata: {name: g}\n  spec: {targetKind: ConfigMap, targetName: s, expectedHash: ''}";

    fn with(text: &str) -> String {
        let inputs = [Input::read("it", None, LIST.into()).unwrap()];
        let stream = Stream::of(&inputs, "n").unwrap();
        let guard: &Guard = &stream.guards()[0];
        let change = Change { guard, hash: None, name: Some("s-5h2k9f7g8h".into()), is_secret: false };
        with_results(text, &[change], &[])
    }

    #[test]
    fn a_resource_list_may_carry_options() {
        let list = ResourceList::of(LIST).unwrap();
        assert_eq!((list.strict, list.namespace.as_deref()), (true, Some("shop")));
        assert!(ResourceList::of("kind: ResourceList\napiVersion: v1\n").is_none());
        assert!(ResourceList::of("kind: ConfigMap\napiVersion: v1\n# ResourceList\n").is_none());
    }

    #[test]
    fn results_are_appended_in_the_style_of_the_list() {
        let result = r#"{"message":"targetName is now s-5h2k9f7g8h","resourceRef":{"apiVersion":"terrafusion.ai/v1","kind":"DriftGuard","name":"g","namespace":"n"},"severity":"info"}"#;
        assert_eq!(with(LIST), format!("{LIST}\nresults:\n- {result}\n"));
        assert_eq!(with("{\"items\": []}\n"), format!("{{\"items\": [], \"results\": [{result}]}}\n"));
        let has_some = "items: []\nresults: []\n";
        assert_eq!(with(has_some), has_some, "a key must not stand twice");
    }
}
