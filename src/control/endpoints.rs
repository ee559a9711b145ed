//! The API servers of the cluster, each by itself: a proof through one says nothing of another.

use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};

use super::proof::Endpoint;

/// Label that ties an EndpointSlice to its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// Longest the slices may take to be read.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the API servers could not be found or reached.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// An address is no URL.
    #[error("API server endpoint {address:?} is no URL such as https://10.0.0.1:6443: {cause}")]
    BadAddress {
        /// What was given.
        address: String,
        /// What is wrong with it.
        cause: String,
    },
    /// A client could not be made.
    #[error("cannot make a client for API server {address}: {cause}")]
    NoClient {
        /// The API server.
        address: String,
        /// Why.
        cause: String,
    },
}

/// The API servers: those named, else those of EndpointSlice default/kubernetes, else the one that
/// `config` talks to (which may be a balancer, and then proves only what it happens to choose).
///
/// # Errors
/// [`EndpointError`] when an address cannot be used. That the EndpointSlice cannot be read is none.
pub async fn find(
    config: &kube::Config,
    client: &kube::Client,
    named: &[String],
) -> Result<Vec<Endpoint>, EndpointError> {
    let mut addresses = named.to_vec();
    if addresses.is_empty() {
        addresses = from_slices(client).await;
    }
    if addresses.is_empty() {
        let address = config.cluster_url.to_string();
        return Ok(vec![Endpoint { address, client: client.clone() }]);
    }
    addresses.iter().map(|address| endpoint(config, address)).collect()
}

async fn from_slices(client: &kube::Client) -> Vec<String> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let params = ListParams::default().labels(&format!("{SERVICE_LABEL}=kubernetes"));
    let read = tokio::time::timeout(REQUEST_TIMEOUT, slices.list(&params)).await;
    let Some(slices) = read.ok().and_then(Result::ok) else { return Vec::new() };
    let mut addresses = Vec::new();
    for slice in slices {
        let port = slice.ports.iter().flatten().find_map(|port| port.port).unwrap_or(443);
        for endpoint in &slice.endpoints {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            for address in endpoint.addresses.iter().filter(|_| ready) {
                let host = if address.contains(':') { format!("[{address}]") } else { address.clone() };
                addresses.push(format!("https://{host}:{port}"));
            }
        }
    }
    addresses.sort();
    addresses.dedup();
    addresses
}

/// A client for one address, with the credentials and the server name of `config`: the certificate
/// of an API server need not name its address.
fn endpoint(config: &kube::Config, address: &str) -> Result<Endpoint, EndpointError> {
    let bad = |cause: String| EndpointError::BadAddress { address: address.to_owned(), cause };
    let url: http::Uri = address.parse().map_err(|error: http::uri::InvalidUri| bad(error.to_string()))?;
    if url.host().is_none() {
        return Err(bad("it has no host".into()));
    }
    let mut config = config.clone();
    if config.tls_server_name.is_none() {
        config.tls_server_name = config.cluster_url.host().map(str::to_owned);
    }
    config.cluster_url = url;
    let client = kube::Client::try_from(config)
        .map_err(|error| EndpointError::NoClient { address: address.to_owned(), cause: error.to_string() })?;
    Ok(Endpoint { address: address.to_owned(), client })
}
