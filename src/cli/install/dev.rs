//! `install --dev`: how API servers reach a `serve` that runs outside the cluster.

use crate::api::{Enforcement, names};
use crate::cli::cluster::ClusterArgs;
use crate::manifests::{Manifest, ManifestError, Settings, deploy};

/// How API servers reach `serve`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// By this URL. API servers speak HTTP/2 to a loopback address.
    Url(String),
    /// Through a Service of type ExternalName. API servers speak HTTP/1.1, as in a cluster.
    Service {
        /// Namespace of the Service.
        namespace: String,
        /// Port on localhost.
        port: u16,
    },
}

impl Reach {
    /// What the flags say; without any, the loopback address and the usual port.
    pub(super) fn chosen(url: Option<String>, external_name: Option<u16>, namespace: &str) -> Self {
        match external_name {
            Some(port) => Self::Service { namespace: namespace.to_owned(), port },
            None => Self::Url(url.unwrap_or_else(|| format!("https://127.0.0.1:{}", names::WEBHOOK_PORT))),
        }
    }

    /// The Service to make, if any.
    pub(super) fn service(&self, settings: &Settings) -> Result<Option<Manifest>, ManifestError> {
        match self {
            Self::Url(_) => Ok(None),
            Self::Service { port, .. } => Manifest::new(&deploy::external_service(settings, *port)).map(Some),
        }
    }

    /// The port that `serve` must listen on.
    fn port(&self) -> Option<u16> {
        match self {
            Self::Url(url) => url.parse::<http::Uri>().ok()?.port_u16().or(Some(443)),
            Self::Service { port, .. } => Some(*port),
        }
    }

    /// The command that starts the matching `serve` against the same cluster.
    pub(super) fn serve_command(&self, cluster: &ClusterArgs, settings: &Settings) -> String {
        let mut words = vec!["driftguard".to_owned(), "serve".to_owned()];
        match self {
            Self::Url(url) => words.extend(["--webhook-url".to_owned(), url.clone()]),
            Self::Service { namespace, port } => words.extend([
                "--webhook-service".to_owned(),
                format!("{namespace}/{}:{port}", names::WEBHOOK_SERVICE),
            ]),
        }
        if let Some(port) = self.port().filter(|port| *port != names::WEBHOOK_PORT) {
            words.extend(["--bind".to_owned(), format!("127.0.0.1:{port}")]);
        }
        if settings.default_enforcement != Enforcement::Deny {
            let mode = settings.default_enforcement.as_str().to_owned();
            words.extend(["--default-enforcement".to_owned(), mode]);
        }
        if settings.namespace != names::NAMESPACE {
            words.extend(["--namespace".to_owned(), settings.namespace.clone()]);
        }
        if let Some(context) = &cluster.context {
            words.extend(["--context".to_owned(), context.clone()]);
        }
        if let Some(file) = &cluster.kubeconfig {
            words.extend(["--kubeconfig".to_owned(), file.display().to_string()]);
        }
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// An address that an API server takes for a webhook: `https`, no user, query or fragment.
pub(in crate::cli) fn parse_url(text: &str) -> Result<String, String> {
    let wrong = || "want an address such as https://127.0.0.1:8443, without query or fragment".to_owned();
    let url: http::Uri = text.parse().map_err(|_| wrong())?;
    let host = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if url.scheme_str() != Some("https") || !host || url.query().is_some() || text.contains('#') {
        return Err(wrong());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn only_addresses_that_an_api_server_takes_are_accepted() {
        assert_eq!(parse_url("https://127.0.0.1:8443/").unwrap(), "https://127.0.0.1:8443");
        for text in
            ["http://127.0.0.1:8443", "127.0.0.1:8443", "https://u@h:1", "https://h?a", "https://h#a", ""]
        {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_next_command_carries_what_this_one_was_given() {
        let settings = Settings {
            namespace: "elsewhere".into(),
            default_enforcement: Enforcement::Audit,
            ..Settings::default()
        };
        let cluster = ClusterArgs {
            context: Some("my cluster".into()),
            kubeconfig: Some("/tmp/k.yaml".into()),
            ..ClusterArgs::default()
        };
        let reach = Reach::chosen(None, Some(9443), "elsewhere");
        assert_eq!(
            reach.serve_command(&cluster, &settings),
            "driftguard serve --webhook-service elsewhere/driftguard-webhook:9443 --bind 127.0.0.1:9443 --default-enforcement Audit \
             --namespace elsewhere --context 'my cluster' --kubeconfig /tmp/k.yaml"
        );
        assert_eq!(
            Reach::chosen(None, None, "x").serve_command(&ClusterArgs::default(), &Settings::default()),
            "driftguard serve --webhook-url https://127.0.0.1:8443"
        );
    }
}
