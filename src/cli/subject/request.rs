//! Requests whose answers are kept as the bytes that the server sent.

use anyhow::Context as _;
use http::Request;

use crate::cli::cluster::{CallError, Cluster};
use crate::core::kinds::KindEntry;

/// The path of a resource, or of one object of it.
pub(crate) fn path(entry: &KindEntry, namespace: Option<&str>, name: Option<&str>) -> String {
    let mut path = if entry.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", entry.group) };
    path.push('/');
    path.push_str(&entry.version);
    if let Some(namespace) = namespace {
        path.push_str("/namespaces/");
        push_segment(namespace, &mut path);
    }
    path.push('/');
    path.push_str(&entry.plural);
    if let Some(name) = name {
        path.push('/');
        push_segment(name, &mut path);
    }
    path
}

/// A text as one segment of a path, or one value of a query.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    push_segment(text, &mut out);
    out
}

/// Appends one segment. Names of RBAC objects may hold nearly any character.
fn push_segment(segment: &str, path: &mut String) {
    for byte in segment.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                path.push(char::from(byte));
            }
            other => path.push_str(&format!("%{other:02X}")),
        }
    }
}

/// Reads an object.
///
/// # Errors
/// One line that names `doing`, such as `reading ConfigMap/a/b`.
pub(crate) async fn get(cluster: &Cluster, path: &str, doing: &str) -> anyhow::Result<Vec<u8>> {
    let request = Request::get(path).body(Vec::new()).context("cannot build the request")?;
    match cluster.client.request_text(request).await {
        Ok(text) => Ok(text.into_bytes()),
        Err(error) => Err(cluster.explain(doing, &error))?,
    }
}

/// Reads an object; `None` when there is none.
///
/// # Errors
/// As [`get`].
pub(crate) async fn get_opt(cluster: &Cluster, path: &str, doing: &str) -> anyhow::Result<Option<Vec<u8>>> {
    match get(cluster, path, doing).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.downcast_ref::<CallError>().is_some_and(CallError::is_not_found) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(group: &str) -> KindEntry {
        let (group, version, kind, plural) = (group.into(), "v1".into(), "Thing".into(), "things".into());
        KindEntry { group, version, kind, plural, namespaced: true, preferred: true }
    }

    #[test]
    fn paths_follow_group_and_namespace() {
        assert_eq!(path(&entry(""), Some("ns"), Some("a")), "/api/v1/namespaces/ns/things/a");
        assert_eq!(path(&entry("a.io"), None, Some("a")), "/apis/a.io/v1/things/a");
        assert_eq!(path(&entry("a.io"), Some("ns"), None), "/apis/a.io/v1/namespaces/ns/things");
    }

    #[test]
    fn a_name_cannot_leave_its_segment() {
        assert_eq!(
            path(&entry(""), None, Some("system:a b?c#d/../e%")),
            "/api/v1/things/system:a%20b%3Fc%23d%2F..%2Fe%25"
        );
    }
}
