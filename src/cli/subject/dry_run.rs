//! What the API server would store of a file's object: a dry-run write, answered with the object.
//!
//! PUT on the existing object, or CREATE when there is none; a dry-run apply would keep fields of
//! others (DESIGN section 3). When a guard refuses the write, the refusal holds the hash of what was
//! refused, because our webhook knows these writes by their field manager.

use anyhow::{Context as _, bail};
use http::Request;
use uuid::Uuid;

use super::served::Served;
use super::{Subject, request};
use crate::api::names;
use crate::cli::cluster::{Cluster, ClusterArgs};
use crate::cli::output;
use crate::core::hash::ContentHash;
use crate::core::json::{Cursor, JsonError};
use crate::core::kinds::KindEntry;
use crate::core::paths::PathFilter;
use crate::document::Document;

/// How often a write is tried while somebody else changes the object under it.
const TRIES: usize = 5;

/// Kinds that get values only when they are really written, and what these are.
const VALUES_ON_WRITE: [(&str, &str, &str); 4] = [
    ("", "Service", "its cluster IP"),
    ("", "Pod", "its node"),
    ("", "PersistentVolumeClaim", "its volume"),
    ("batch", "Job", "its selector"),
];

/// What a dry-run write came to.
pub(crate) enum Stored {
    /// The object as it would be stored.
    Object(Vec<u8>),
    /// A guard refused it.
    Refused {
        /// The hash of what was refused.
        hash: ContentHash,
        /// `namespace/name` of the guard.
        by: String,
    },
}

/// Says that a hash is of the part that a guard pins.
pub(crate) fn note_refused(subject: &Subject, by: &str) {
    output::message(&format!(
        "note: DriftGuard {by} refuses this {}; the hash is of the part that it pins",
        subject.kind
    ));
}

/// A file's object with its kind and namespace as the API server knows them.
pub(crate) fn subject<'a>(
    document: Document,
    served: &'a Served,
    cluster: &ClusterArgs,
    filter: PathFilter,
) -> anyhow::Result<(Subject, &'a KindEntry)> {
    let entry = served
        .catalog()
        .resolve(&document.kind, Some(&document.api_version))
        .with_context(|| document.origin.to_string())?;
    Ok((Subject::of_file(document, entry.namespaced, cluster, filter)?, entry))
}

/// Writes the object without storing it.
///
/// # Errors
/// When the API server refuses the object, or does not answer.
pub(crate) async fn write(subject: &Subject, entry: &KindEntry, cluster: &Cluster) -> anyhow::Result<Stored> {
    let namespace = subject.namespace.as_deref();
    let object = request::path(entry, namespace, Some(&subject.name));
    let query = query(&manager());
    for _ in 0..TRIES {
        let live = request::get_opt(cluster, &object, &format!("reading {subject}")).await?;
        let version = live.as_deref().map(resource_version).transpose()?.flatten();
        let body = prepared(&subject.json, namespace, version.as_deref(), None)?;
        let (method, path) = match live {
            Some(_) => (http::Method::PUT, object.clone()),
            None => (http::Method::POST, request::path(entry, namespace, None)),
        };
        if live.is_none() {
            note_values_on_write(subject);
        }
        let request = Request::builder()
            .method(method)
            .uri(format!("{path}?{query}"))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .context("cannot build the request")?;
        match cluster.client.request_text(request).await {
            Ok(text) => return Ok(Stored::Object(text.into_bytes())),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return refused(subject, cluster, &error),
        }
    }
    bail!("{}: {subject} changes all the time; try again when its writer pauses", subject.place())
}

/// What the API server would store of the object under another name, which no guard pins: the content of an object
/// that the gate does not let be written, with its defaults.
///
/// # Errors
/// When the API server refuses it, such as where the name is part of the content.
pub(crate) async fn write_beside(
    subject: &Subject,
    entry: &KindEntry,
    cluster: &Cluster,
) -> anyhow::Result<Vec<u8>> {
    let namespace = subject.namespace.as_deref();
    let nonce = Uuid::now_v7().simple().to_string();
    let stem: String = subject.name.chars().filter(|c| c.is_ascii_alphanumeric()).take(40).collect();
    let body =
        prepared(&subject.json, namespace, None, Some(&format!("{stem}-{nonce}").to_ascii_lowercase()))?;
    let path = request::path(entry, namespace, None);
    let request = Request::post(format!("{path}?{}", query(&manager())))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .context("cannot build the request")?;
    let doing = format!("{}: asking for the defaults of {subject}", subject.place());
    let text = cluster.client.request_text(request).await.map_err(|error| cluster.explain(doing, &error))?;
    Ok(text.into_bytes())
}

/// A field manager of our own, by which our webhook knows a dry run.
fn manager() -> String {
    format!("{}{}", names::HASH_FIELD_MANAGER_PREFIX, Uuid::now_v7().simple())
}

/// Strict, as kubectl: a misspelt field must not vanish from what is approved.
fn query(manager: &str) -> String {
    format!("dryRun=All&fieldManager={manager}&fieldValidation=Strict")
}

fn refused(subject: &Subject, cluster: &Cluster, error: &kube::Error) -> anyhow::Result<Stored> {
    if let kube::Error::Api(status) = error {
        if let Some(refusal) = Refusal::read(&status.message) {
            return own_refusal(subject, &refusal);
        }
        if status.code == 422 && subject.scope.has_server_defaults() {
            return Err(cluster.explain(format!("{}: writing {subject} without storing it", subject.place()), error))
                .context("the API server does not take the file as it is; mend it, or hash the live object with `driftguard hash KIND NAME`");
        }
    }
    Err(cluster.explain(format!("{}: writing {subject} without storing it", subject.place()), error))?
}

fn own_refusal(subject: &Subject, refusal: &Refusal) -> anyhow::Result<Stored> {
    match refusal.image {
        Some(hash) => Ok(Stored::Refused { hash, by: refusal.guard.clone() }),
        // A Secret has no defaults, so that its file has its hash, which no refusal may hold.
        None if !subject.scope.has_server_defaults() => Ok(Stored::Object(subject.json.clone())),
        None => bail!("{}: {}", subject.place(), refusal.line),
    }
}

/// A refusal of our own webhook.
#[derive(Debug, PartialEq, Eq)]
struct Refusal {
    /// `namespace/name` of the guard.
    guard: String,
    /// The line that says why.
    line: String,
    /// Hash of what was refused.
    image: Option<ContentHash>,
}

impl Refusal {
    /// Reads the message of a 403. Others' webhooks do not count, whatever they say.
    fn read(message: &str) -> Option<Self> {
        let (head, rest) = message.split_once(" denied the request: ")?;
        let webhook = head.split('"').nth(1)?;
        if !webhook.ends_with(&format!(".{}", names::GROUP)) {
            return None;
        }
        let line = rest.lines().next()?.to_owned();
        let guard =
            line.strip_prefix("DriftGuard ")?.split(' ').next()?.trim_end_matches([':', ';']).to_owned();
        let image = rest
            .lines()
            .find_map(|line| line.strip_prefix("image "))
            .and_then(|hash| hash.trim().parse().ok());
        Some(Self { guard, line, image })
    }
}

fn note_values_on_write(subject: &Subject) {
    let known = |(group, kind, _): &&(&str, &str, &str)| subject.group() == *group && subject.kind == *kind;
    if let Some((_, _, values)) = VALUES_ON_WRITE.iter().find(known) {
        output::message(&format!(
            "note: {subject} gets {values} only when it is really written, so that this is not its later hash; apply it, then use `driftguard hash KIND NAME`"
        ));
    }
}

/// The object with the metadata that a write needs: its namespace, and the version it replaces.
/// With `name`, under that one.
fn prepared(
    json: &[u8],
    namespace: Option<&str>,
    version: Option<&str>,
    name: Option<&str>,
) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::with_capacity(json.len() + 64);
    let mut cursor = Cursor::new(json);
    let mut members = cursor.enter_object()?;
    while let Some(key) = cursor.next_member(&mut members)? {
        let at = cursor;
        let value = cursor.skip_value()?;
        push_key(&mut out, key.span.of(json));
        if key.is(json, "metadata") && value.of(json).starts_with(b"{") {
            write_metadata(
                at,
                [("name", name), ("namespace", namespace), ("resourceVersion", version)],
                &mut out,
            )?;
        } else {
            out.extend_from_slice(value.of(json));
        }
    }
    out.push(b'}');
    Ok(out)
}

fn write_metadata(
    mut cursor: Cursor<'_>,
    given: [(&str, Option<&str>); 3],
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    // What a dumped object says about its past would make the write a conflict.
    const REPLACED: [&str; 4] = ["namespace", "resourceVersion", "uid", "managedFields"];
    let json = cursor.text;
    let mut inner = Vec::new();
    let mut members = cursor.enter_object()?;
    while let Some(key) = cursor.next_member(&mut members)? {
        let value = cursor.skip_value()?;
        let is_given = |(name, value): &(&str, Option<&str>)| value.is_some() && key.is(json, name);
        if !REPLACED.iter().any(|name| key.is(json, name)) && !given.iter().any(is_given) {
            push_key(&mut inner, key.span.of(json));
            inner.extend_from_slice(value.of(json));
        }
    }
    for (name, value) in given {
        if let Some(value) = value {
            push_key(&mut inner, name.as_bytes());
            inner.extend_from_slice(serde_json::Value::from(value).to_string().as_bytes());
        }
    }
    if inner.is_empty() {
        inner.push(b'{');
    }
    inner.push(b'}');
    out.extend_from_slice(&inner);
    Ok(())
}

/// Appends a raw key, with the brace or comma before it.
fn push_key(out: &mut Vec<u8>, key: &[u8]) {
    out.push(if out.is_empty() { b'{' } else { b',' });
    out.push(b'"');
    out.extend_from_slice(key);
    out.extend_from_slice(b"\":");
}

fn resource_version(json: &[u8]) -> Result<Option<String>, JsonError> {
    let mut cursor = Cursor::new(json);
    for wanted in ["metadata", "resourceVersion"] {
        let mut members = cursor.enter_object()?;
        loop {
            match cursor.next_member(&mut members)? {
                None => return Ok(None),
                Some(key) if key.is(json, wanted) => break,
                Some(_) => {
                    cursor.skip_value()?;
                }
            }
        }
    }
    let text = cursor.string()?;
    text.decode(json).map(|text| Some(text.into_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_write_carries_namespace_and_version_and_nothing_of_the_past() {
        let file = r#"{"apiVersion":"v1","metadata":{"name":"a","uid":"u","resourceVersion":"1","namespace":""},"spec":{"n":1.50}}"#;
        let text = |namespace, version| {
            String::from_utf8(prepared(file.as_bytes(), namespace, version, None).unwrap()).unwrap()
        };
        assert_eq!(
            text(Some("ns"), Some("7")),
            r#"{"apiVersion":"v1","metadata":{"name":"a","namespace":"ns","resourceVersion":"7"},"spec":{"n":1.50}}"#
        );
        assert_eq!(text(None, None), r#"{"apiVersion":"v1","metadata":{"name":"a"},"spec":{"n":1.50}}"#);
    }

    #[test]
    fn the_version_of_the_live_object_is_found() {
        let live = br#"{"spec":{"resourceVersion":"x"},"metadata":{"name":"a","resourceVersion":"42"}}"#;
        assert_eq!(resource_version(live).unwrap().as_deref(), Some("42"));
        assert_eq!(resource_version(br#"{"metadata":{}}"#).unwrap(), None);
    }

    #[test]
    fn only_our_own_refusal_tells_a_hash() {
        let hash = "f3693b243b57a82414ce6f3835ec8201d0d664fff4b05f735e73fe01c0c56d43";
        let message = |webhook: &str| {
            format!(
                "admission webhook \"{webhook}\" denied the request: DriftGuard ns/a-guard pins Deployment/ns/a: /spec would change; to approve, do\nimage sha256:{hash}\ncontact: x"
            )
        };
        let refusal =
            Refusal::read(&message("see-driftguard-breakglass.deployments.terrafusion.ai")).unwrap();
        assert_eq!(refusal.guard, "ns/a-guard");
        assert_eq!(refusal.image.unwrap().to_string(), hash);
        assert_eq!(Refusal::read(&message("evil.example.com")), None);
        assert_eq!(Refusal::read(&message("evil-terrafusion.ai")), None);
        assert_eq!(Refusal::read("deployments.apps is forbidden"), None);
    }
}
