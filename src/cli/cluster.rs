//! Which cluster, as whom, in which namespace: kubectl's flags, kubeconfig and in-cluster rules.
//!
//! The order is kubectl's: a flag wins over the kubeconfig, `--kubeconfig` over `KUBECONFIG`, that
//! over `~/.kube/config`, and only when there is nothing at all a pod uses its service account.
//! A request is sent again only when the API server asks for that ([`patience`]): kube's own 15 tries would make a
//! command hang for minutes, and would repeat writes that may have been done.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::KubeConfigOptions;

use super::table;
use crate::core::duration;

mod explain;
mod kubeconfig;
mod patience;

pub use explain::{CallError, describe};

/// Id of the argument that holds the API server's address.
pub const ADDRESS_ID: &str = "api_server";

/// Namespace when neither a flag nor a context nor a pod says otherwise.
pub const FALLBACK_NAMESPACE: &str = "default";

/// How long a connection may take to be made. kubectl waits 30 s, too long for a wrong address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// kubectl's connection flags.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// Namespace [default: the context's]
    #[arg(short, long, value_name = "NAMESPACE", value_parser = non_empty)]
    pub namespace: Option<String>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", value_parser = non_empty)]
    pub context: Option<String>,
    /// Kubeconfig file [default: the files of $KUBECONFIG, or ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Cluster of the kubeconfig
    #[arg(long, value_name = "NAME", hide_short_help = true, value_parser = non_empty)]
    pub cluster: Option<String>,
    /// User of the kubeconfig
    #[arg(long, value_name = "NAME", hide_short_help = true, value_parser = non_empty)]
    pub user: Option<String>,
    /// Address of the API server
    #[arg(short = 's', long = "api-server", value_name = "URL", hide_short_help = true, value_parser = non_empty)]
    pub api_server: Option<String>,
    /// Bearer token
    #[arg(long, value_name = "TOKEN", hide_short_help = true, value_parser = parse_token)]
    pub token: Option<Token>,
    /// User to impersonate
    #[arg(long = "as", value_name = "USER", hide_short_help = true, value_parser = non_empty)]
    pub as_user: Option<String>,
    /// Group to impersonate; may be repeated
    #[arg(long, value_name = "GROUP", hide_short_help = true, requires = "as_user")]
    pub as_group: Vec<String>,
    /// UID to impersonate
    #[arg(long, value_name = "UID", hide_short_help = true, requires = "as_user")]
    pub as_uid: Option<String>,
    /// How long one request may take, such as 5s or 1m; 0 for no limit [default: 0]
    #[arg(long, value_name = "DURATION", hide_short_help = true, value_parser = duration::parse)]
    pub request_timeout: Option<Duration>,
    /// Certificate of the authority that signs the API server's
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub certificate_authority: Option<PathBuf>,
    /// Client certificate
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub client_certificate: Option<PathBuf>,
    /// Key of the client certificate
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub client_key: Option<PathBuf>,
    /// Name to expect in the API server's certificate
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub tls_server_name: Option<String>,
    /// Do not check the API server's certificate: anyone in between can read and change everything
    #[arg(long, hide_short_help = true, conflicts_with = "certificate_authority")]
    pub insecure_skip_tls_verify: bool,
}

/// A bearer token that does not show in debug output.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Why there is no connection to try.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No kubeconfig, no address, not in a pod.
    #[error(
        "no cluster to talk to: {looked} and this is no pod; set KUBECONFIG, or name a file with --kubeconfig"
    )]
    NoCluster {
        /// Where a kubeconfig was looked for.
        looked: String,
    },
    /// A kubeconfig that cannot be read or parsed.
    #[error("cannot use kubeconfig {}: {cause}; mend the file or name another with --kubeconfig", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// A named context, cluster or user that is not there.
    #[error("no {what} {name:?} in the kubeconfig; {}", listing(.what, .known))]
    Unknown {
        /// `context`, `cluster` or `user`.
        what: &'static str,
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A kubeconfig with contexts of which none is current.
    #[error("the kubeconfig has no current context; choose one with --context ({})", .0.join(", "))]
    NoCurrentContext(Vec<String>),
    /// The program that the kubeconfig names for credentials did not give any.
    #[error(
        "the credential plugin {command} of the kubeconfig gives no credentials: {cause}; install it or mend it, or choose another --user{hint}"
    )]
    Plugin {
        /// The program.
        command: String,
        /// What went wrong.
        cause: String,
        /// What the kubeconfig says about how to install it, after a semicolon.
        hint: String,
    },
    /// The kubeconfig, or a flag, describes a connection that cannot be made.
    #[error("cannot use this cluster configuration: {0}")]
    Config(String),
}

fn listing(what: &str, known: &[String]) -> String {
    if known.is_empty() { format!("it has no {what} at all") } else { format!("it has {}", known.join(", ")) }
}

impl ClusterArgs {
    /// A client for the chosen cluster. No request is sent yet.
    ///
    /// # Errors
    /// [`ClusterError`] when no cluster is configured, or not in a usable way.
    pub async fn client(&self) -> Result<kube::Client, ClusterError> {
        Ok(self.connect().await?.client)
    }

    /// Like [`Self::client`], with what error messages need to know.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub async fn connect(&self) -> Result<Cluster, ClusterError> {
        let config = self.config().await?;
        let address = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = config.default_namespace.clone();
        let plugin = config.auth_info.exec.clone();
        let client = self.patient(config).map_err(|error| {
            let cause = explain::with_causes(&error);
            match plugin {
                Some(plugin) => ClusterError::Plugin {
                    command: plugin.command.unwrap_or_default(),
                    cause,
                    hint: plugin
                        .install_hint
                        .map(|hint| format!("; {}", table::one_line(hint.trim())))
                        .unwrap_or_default(),
                },
                None => ClusterError::Config(cause),
            }
        })?;
        Ok(Cluster { client, address, namespace })
    }

    /// A client by a configuration of [`Self::config`], which waits as long as the API server asks it to, within bounds.
    ///
    /// # Errors
    /// When the configuration describes no connection that can be made.
    pub(super) fn patient(&self, config: kube::Config) -> Result<kube::Client, kube::Error> {
        patience::client(config, self.limit())
    }

    /// How long a request may take.
    fn limit(&self) -> Option<Duration> {
        self.request_timeout.filter(|limit| !limit.is_zero())
    }

    /// The client configuration, with kube's retries switched off and `-n` as default namespace.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub async fn config(&self) -> Result<kube::Config, ClusterError> {
        let loaded = kubeconfig::load(self.kubeconfig.as_deref())?;
        let mut config = if loaded.is_empty() && self.api_server.is_none() {
            self.in_cluster(&loaded)?
        } else {
            let selected = kubeconfig::select(&loaded.merged, self)?;
            kube::Config::from_custom_kubeconfig(selected, &KubeConfigOptions::default())
                .await
                .map_err(|error| ClusterError::Config(explain::with_causes(&error)))?
        };
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        if let Some(limit) = self.limit() {
            config.connect_timeout = Some(limit.min(CONNECT_TIMEOUT));
            config.read_timeout = Some(limit);
            config.write_timeout = Some(limit);
            config.reset_reader_on_write = true;
        }
        if let Some(namespace) = &self.namespace {
            config.default_namespace.clone_from(namespace);
        }
        Ok(config)
    }

    /// The namespace for objects that name none: `-n`, else the context's, else the pod's, else
    /// `default`. Needs no cluster, and no kubeconfig.
    ///
    /// # Errors
    /// [`ClusterError`] when a kubeconfig exists but cannot be used, or `--context` names none.
    pub fn default_namespace(&self) -> Result<String, ClusterError> {
        if let Some(namespace) = &self.namespace {
            return Ok(namespace.clone());
        }
        let loaded = kubeconfig::load(self.kubeconfig.as_deref())?;
        if loaded.is_empty() && self.api_server.is_none() {
            let in_pod = kube::Config::incluster().ok();
            return Ok(in_pod.map_or_else(
                || FALLBACK_NAMESPACE.to_owned(),
                |config| config.default_namespace.trim().to_owned(),
            ));
        }
        let context = kubeconfig::context(&loaded.merged, self)?;
        Ok(context
            .and_then(|context| context.namespace)
            .filter(|namespace| !namespace.is_empty())
            .unwrap_or_else(|| FALLBACK_NAMESPACE.to_owned()))
    }

    fn in_cluster(&self, loaded: &kubeconfig::Loaded) -> Result<kube::Config, ClusterError> {
        if std::env::var_os("KUBERNETES_SERVICE_HOST").is_none() {
            if let Some(name) = &self.context {
                let known = Vec::new();
                return Err(ClusterError::Unknown { what: "context", name: name.clone(), known });
            }
            return Err(ClusterError::NoCluster { looked: loaded.looked() });
        }
        let mut config =
            kube::Config::incluster().map_err(|error| ClusterError::Config(explain::with_causes(&error)))?;
        config.default_namespace = config.default_namespace.trim().to_owned();
        kubeconfig::override_user(&mut config.auth_info, self);
        Ok(config)
    }
}

/// A chosen cluster.
#[derive(Clone)]
pub struct Cluster {
    /// Client that waits when the API server asks for that, and else tries once.
    pub client: kube::Client,
    /// Address of the API server, for messages.
    pub address: String,
    /// Namespace for objects that name none.
    pub namespace: String,
}

impl Cluster {
    /// Says in one line what went wrong while `doing` something, such as `reading ConfigMap a/b`,
    /// and what to do next.
    #[must_use]
    pub fn explain(&self, doing: impl Into<String>, error: &kube::Error) -> CallError {
        CallError::new(doing.into(), &self.address, error)
    }
}

fn parse_token(text: &str) -> Result<Token, String> {
    non_empty(text).map(Token)
}

fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_does_not_show_in_debug_output() {
        let args = ClusterArgs { token: Some(Token("geheim".to_owned())), ..Default::default() };
        assert!(!format!("{args:?}").contains("geheim"));
    }
}
