//! ConfigMaps and Secrets as sources, read as the bytes that the API server sends.

use http::Request;

use super::report::Failed;
use crate::api::names;
use crate::core::author_access::Reads;
use crate::core::guard::url_segment;

/// An object in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// A ConfigMap or Secret as raw JSON.
pub(super) async fn read(client: &kube::Client, reads: Reads, place: Place<'_>) -> Result<Vec<u8>, Failed> {
    let (kind, plural) = match reads {
        Reads::ConfigMap => ("ConfigMap", "configmaps"),
        Reads::Secret => ("Secret", "secrets"),
        Reads::Service => ("Service", "services"),
    };
    let path =
        format!("/api/v1/namespaces/{}/{plural}/{}", url_segment(place.namespace), url_segment(place.name));
    let request = Request::get(path)
        .header(http::header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|error| failed(kind, place, &kube::Error::HttpError(error)))?;
    let text = client.request_text(request).await.map_err(|error| failed(kind, place, &error))?;
    Ok(text.into_bytes())
}

/// Why an object could not be read.
pub(super) fn failed(kind: &str, place: Place<'_>, error: &kube::Error) -> Failed {
    let Place { namespace, name } = place;
    let object = format!("{kind} {namespace}/{name}");
    let plural = format!("{}s", kind.to_lowercase());
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            Failed::unavailable("NotFound", format!("{object} does not exist"))
        }
        kube::Error::Api(status) if status.code == 403 => Failed::forbidden(
            "RightsMissing",
            format!(
                "DriftGuard may not get {object}; let its ServiceAccount {} do so, by a Role in namespace \
                 {namespace} that names this one of {plural}",
                names::OPERATOR
            ),
        ),
        kube::Error::Api(status) => Failed::unavailable(
            "ApiServer",
            format!("{object} cannot be read: the API server answered {}", status.code),
        ),
        _ => Failed::unavailable(
            "ApiServer",
            format!("{object} cannot be read: the API server did not answer"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::report::SourceResult;

    #[test]
    fn what_is_missing_is_told_from_what_is_not_allowed() {
        let place = Place { namespace: "team", name: "x" };
        let told = |code| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            failed("Secret", place, &kube::Error::Api(Box::new(status)))
        };
        assert_eq!(told(404).result, SourceResult::Unavailable);
        assert_eq!(told(404).sentence, "Secret team/x does not exist");
        assert_eq!(told(403).result, SourceResult::Forbidden);
        assert!(told(403).sentence.starts_with("DriftGuard may not get Secret team/x; let"));
        assert_eq!(told(500).result, SourceResult::Unavailable);
    }
}
