//! Services as sources: how one is called.
//!
//! Within a cluster its labels and ports tell; `--service-url` says otherwise, and then the Service itself
//! is not read at all.

use k8s_openapi::api::core::v1::Service;
use kube::Api;
use reqwest::Url;

use super::objects::{Place, failed};
use super::report::Failed;
use crate::api::names;

/// What our own objects bear under [`names::LABEL_PART_OF`].
const PART_OF: &str = "driftguard";
/// Name of the port of a Service that is called by https.
const HTTPS: &str = "https";

/// The address of a request to a Service, as the Service itself tells.
pub(super) async fn address(
    client: &kube::Client,
    place: Place<'_>,
    path: Option<&str>,
) -> Result<Url, Failed> {
    let services: Api<Service> = Api::namespaced(client.clone(), place.namespace);
    let service = services.get(place.name).await.map_err(|error| failed("Service", place, &error))?;
    request_to(&base(place, &service), path)
}

/// `SCHEME://NAME.NAMESPACE.svc[:PORT]` of a Service.
fn base(place: Place<'_>, service: &Service) -> String {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let named = |name: &str| ports.iter().find(|port| port.name.as_deref() == Some(name));
    let is_ours = service
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(names::LABEL_PART_OF))
        .is_some_and(|part_of| part_of == PART_OF);
    let (scheme, usual) = if is_ours || named(HTTPS).is_some() { (HTTPS, 443) } else { ("http", 80) };
    let usual_port = || ports.iter().find(|port| port.port == usual);
    let port = named(scheme).or_else(usual_port).or(ports.first()).map_or(usual, |port| port.port);
    let port = if port == usual { String::new() } else { format!(":{port}") };
    format!("{scheme}://{}.{}.svc{port}", place.name, place.namespace)
}

/// A request path put behind the address of a server, whose own path stays in front.
pub(super) fn request_to(base: &str, path: Option<&str>) -> Result<Url, Failed> {
    let path = path.filter(|path| !path.is_empty()).unwrap_or("/");
    // Admission sees to that for guards that are made with it.
    if !path.starts_with('/') {
        return Err(Failed::invalid(
            "BadPath",
            "its path does not start with `/`; it is the path of a request",
        ));
    }
    let address = format!("{}{path}", base.trim_end_matches('/'));
    Url::parse(&address).map_err(|_| Failed::invalid("BadPath", "its name and path make no valid address"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    const PLACE: Place<'_> = Place { namespace: "team", name: "config" };

    fn called(service: &serde_json::Value) -> String {
        base(PLACE, &serde_json::from_value(service.clone()).unwrap())
    }

    #[test]
    fn https_is_for_our_own_services_and_for_ports_that_say_so() {
        let ports = |ports: serde_json::Value| serde_json::json!({"spec": {"ports": ports}});
        let ours = serde_json::json!({"app.kubernetes.io/part-of": "driftguard"});
        for (mut service, labelled, plain) in [
            (ports(serde_json::json!([])), "https://config.team.svc", "http://config.team.svc"),
            (
                ports(serde_json::json!([{"port": 8080}])),
                "https://config.team.svc:8080",
                "http://config.team.svc:8080",
            ),
            (
                ports(serde_json::json!([{"port": 9090, "name": "metrics"}, {"port": 80, "name": "web"}])),
                "https://config.team.svc:9090",
                "http://config.team.svc",
            ),
            (
                ports(
                    serde_json::json!([{"port": 9090, "name": "metrics"}, {"port": 8443, "name": "https"}]),
                ),
                "https://config.team.svc:8443",
                "https://config.team.svc:8443",
            ),
            (
                ports(serde_json::json!([{"port": 80, "name": "http"}, {"port": 443, "name": "https"}])),
                "https://config.team.svc",
                "https://config.team.svc",
            ),
        ] {
            assert_eq!(called(&service), plain);
            service["metadata"] = serde_json::json!({"labels": ours});
            assert_eq!(called(&service), labelled);
        }
        let other = serde_json::json!({"metadata": {"labels": {"app.kubernetes.io/part-of": "shop"}}});
        assert_eq!(called(&other), "http://config.team.svc");
    }

    #[test]
    fn a_path_never_changes_the_host() {
        for path in
            ["/a", "//evil.example/a", "/@evil.example", "/\\evil.example", "/..//evil", "/a?b#c", "/%2e%2e"]
        {
            let url = request_to("http://config.team.svc:8080", Some(path)).unwrap();
            assert_eq!((url.host_str(), url.port()), (Some("config.team.svc"), Some(8080)), "{path}");
        }
        for path in ["a", "@evil.example", ".evil.example", ":1/a"] {
            assert!(request_to("http://config.team.svc", Some(path)).is_err(), "{path}");
        }
        assert_eq!(request_to("http://h/base/", Some("/a")).unwrap().as_str(), "http://h/base/a");
        assert_eq!(request_to("http://h", None).unwrap().as_str(), "http://h/");
    }
}
