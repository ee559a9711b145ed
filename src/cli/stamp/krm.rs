//! The role of a KRM function: a `ResourceList` in, the same with results out.
//!
//! <https://github.com/kubernetes-sigs/kustomize/blob/master/cmd/config/docs/api-conventions/functions-spec.md>

use anyhow::bail;
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
    ///
    /// # Errors
    /// When its functionConfig asks for what there is not: an option that is misspelt must not go unheard.
    pub(super) fn of(text: &str) -> anyhow::Result<Option<Self>> {
        // Its head alone tells, and a long stream of other things is not worth a second reading.
        if !text.contains(KIND) {
            return Ok(None);
        }
        let first = document::values(text).into_iter().next();
        let list: Value = first.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        let is_ours = list["apiVersion"].as_str().is_some_and(|version| version.starts_with(GROUP));
        if list["kind"] != KIND || !is_ours {
            return Ok(None);
        }
        let mut asked = Self { strict: false, namespace: None };
        for (field, value) in list["functionConfig"].as_object().into_iter().flatten() {
            match (field.as_str(), value) {
                ("apiVersion" | "kind" | "metadata", _) | ("data", Value::Null) => {}
                ("data", Value::Object(options)) => {
                    for (option, value) in options {
                        asked.take(option, value)?;
                    }
                }
                _ => bail!(
                    "the functionConfig has a field {field:?}; options of this function stand in its data"
                ),
            }
        }
        Ok(Some(asked))
    }

    fn take(&mut self, option: &str, value: &Value) -> anyhow::Result<()> {
        match (option, value) {
            ("strict", Value::Bool(is)) => self.strict = *is,
            ("strict", Value::String(text)) => {
                self.strict = text.parse().map_err(|_| wrong_strict())?;
            }
            ("strict", _) => return Err(wrong_strict()),
            ("namespace", Value::String(text)) => {
                self.namespace = Some(text.clone()).filter(|text| !text.is_empty());
            }
            ("namespace", _) => bail!("functionConfig: data.namespace is no text; quote its value"),
            _ => {
                bail!("functionConfig: there is no option {option:?} in data; there are strict and namespace")
            }
        }
        Ok(())
    }
}

fn wrong_strict() -> anyhow::Error {
    anyhow::anyhow!("functionConfig: data.strict is \"true\" or \"false\"")
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
        Some(head) => format!("{head}, \"results\": {}}}\n", json!(results)),
        None => {
            let end = if text.ends_with('\n') { "" } else { "\n" };
            let items: String = results.iter().map(|result| format!("- {result}\n")).collect();
            format!("{text}{end}results:\n{items}")
        }
    };
    if is_same_but_for(&results, text, &with) { with } else { text.to_owned() }
}

/// Whether both texts are one document, and the second is the first with these results.
fn is_same_but_for(results: &[Value], before: &str, after: &str) -> bool {
    let only = |text: &str| match document::values(text).as_slice() {
        [json] => serde_json::from_slice::<Value>(json).ok(),
        _ => None,
    };
    let Some((Value::Object(before), Value::Object(mut after))) = only(before).zip(only(after)) else {
        return false;
    };
    let added = after.remove("results");
    added.as_ref().and_then(Value::as_array).is_some_and(|added| added == results) && before == after
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::cli::stamp::{Guard, Input};

    const LIST: &str = "apiVersion: config.kubernetes.io/v1\nkind: ResourceList\nfunctionConfig:\n  data: {strict: \"true\", namespace: shop}\nitems:\n- apiVersion: terrafusion.ai/v1\n  kind: DriftGuard\n  metadata: {name: g}\n  spec: {targetKind: ConfigMap, targetName: s, expectedHash: ''}";

    fn with(text: &str) -> String {
        let input = Input::read("it", None, LIST.into()).unwrap();
        let guard = Guard::read(0, &input.documents[0], "n").unwrap();
        let change =
            Change { guard: &guard, hash: None, name: Some("s-5h2k9f7g8h".into()), is_secret: false };
        with_results(text, &[change], &[])
    }

    #[test]
    fn a_resource_list_may_carry_options() {
        let list = ResourceList::of(LIST).unwrap().unwrap();
        assert_eq!((list.strict, list.namespace.as_deref()), (true, Some("shop")));
        assert!(ResourceList::of("kind: ResourceList\napiVersion: v1\n").unwrap().is_none());
        assert!(ResourceList::of("kind: ConfigMap\napiVersion: v1\n# ResourceList\n").unwrap().is_none());
    }

    #[test]
    fn an_option_that_there_is_not_is_refused() {
        let of = |config: &str| {
            ResourceList::of(&LIST.replace("  data: {strict: \"true\", namespace: shop}\n", config))
        };
        assert!(of("  metadata: {name: x}\n").unwrap().is_some_and(|list| !list.strict));
        assert!(of("  data: {strict: \"false\"}\n").unwrap().is_some_and(|list| !list.strict));
        for (config, why) in [
            ("  data: {strict: \"True\"}\n", "data.strict is"),
            ("  data: {strict: \"yes\"}\n", "data.strict is"),
            ("  data: {strict: 1}\n", "data.strict is"),
            ("  data: {Strict: \"true\"}\n", "no option \"Strict\""),
            ("  data: {namespace: [shop]}\n", "data.namespace is no text"),
            ("  data: [strict]\n", "has a field \"data\""),
            ("  spec: {strict: true}\n", "has a field \"spec\""),
        ] {
            let error = of(config).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(why), "{config}: {error}");
        }
    }

    #[test]
    fn results_are_appended_in_the_style_of_the_list() {
        let result = r#"{"message":"targetName is now s-5h2k9f7g8h","resourceRef":{"apiVersion":"terrafusion.ai/v1","kind":"DriftGuard","name":"g","namespace":"n"},"severity":"info"}"#;
        assert_eq!(with(LIST), format!("{LIST}\nresults:\n- {result}\n"));
        assert_eq!(with("{\"items\": []}\n"), format!("{{\"items\": [], \"results\": [{result}]}}\n"));
        let has_some = "items: []\nresults: []\n";
        assert_eq!(with(has_some), has_some, "a key must not stand twice");
        for more in ["\n---\n", "\n---\n# nothing\n", "\n---\napiVersion: v1\nkind: ConfigMap\n"] {
            let text = format!("{LIST}{more}");
            assert_eq!(with(&text), text, "results of a list are no key of something else");
        }
        let several = "{\"items\": []}\n{\"items\": []}\n";
        assert_eq!(with(several), several);
    }
}
