//! The proof that what we serve is what API servers will accept.
//!
//! A fresh TLS handshake with our own listener, under the registered name, verified against exactly
//! the registered authorities. Reviews that flow prove nothing: API servers keep old connections
//! and never verify them again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Registered, crypto_provider};

/// Longest handshake with ourselves. Far beyond what it takes; a listener that needs longer could
/// not answer a review in time either.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why what we serve is not what is registered.
#[derive(Debug, thiserror::Error)]
pub enum SelfCheckError {
    /// The registered authorities cannot be used at all.
    #[error("the registered caBundle cannot be used: {0}")]
    Bundle(String),
    /// Our own listener cannot be reached.
    #[error("cannot reach our own listener at {address}: {error}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The handshake failed: the certificate does not verify, or nothing is served.
    #[error("the served certificate does not verify as {name} against the registered caBundle: {error}")]
    Refused {
        /// The registered server name.
        name: String,
        /// What TLS says.
        error: std::io::Error,
    },
    /// No answer in time.
    #[error("our own listener at {0} did not finish a handshake in time")]
    TimedOut(SocketAddr),
}

impl SelfCheckError {
    /// A stable word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Bundle(_) => "BundleUnusable",
            Self::Unreachable { .. } => "Unreachable",
            Self::Refused { .. } => "HandshakeRefused",
            Self::TimedOut(_) => "TimedOut",
        }
    }
}

/// Makes one handshake with the listener at `listener`, as an API server would.
///
/// # Errors
/// [`SelfCheckError`] says what an API server would stumble over.
pub async fn handshake(listener: SocketAddr, registered: &Registered) -> Result<(), SelfCheckError> {
    let connector = TlsConnector::from(Arc::new(client(registered)?));
    let address = reachable(listener);
    let attempt = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| SelfCheckError::Unreachable { address, error })?;
        connector.connect(registered.server_name.clone(), stream).await.map_err(|error| {
            SelfCheckError::Refused { name: registered.server_name.to_str().into_owned(), error }
        })
    };
    match tokio::time::timeout(TIMEOUT, attempt).await {
        Ok(result) => result.map(drop),
        Err(_) => Err(SelfCheckError::TimedOut(address)),
    }
}

fn client(registered: &Registered) -> Result<ClientConfig, SelfCheckError> {
    let mut roots = RootCertStore::empty();
    for authority in &registered.bundle {
        roots.add(authority.clone()).map_err(|error| SelfCheckError::Bundle(error.to_string()))?;
    }
    Ok(ClientConfig::builder_with_provider(crypto_provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| SelfCheckError::Bundle(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Where a listener bound to all addresses is reached from this machine.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test without its server should stop.
    use jiff::Timestamp;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::cert::{Authority, Leaf, LeafResolver, ServerIdentity, tls};

    struct Served {
        address: SocketAddr,
        resolver: Arc<LeafResolver>,
        identity: ServerIdentity,
    }

    /// Accepts TLS connections for as long as the test runs.
    async fn served() -> Served {
        let resolver = Arc::new(LeafResolver::new());
        let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(Arc::clone(&resolver), None).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move { acceptor.accept(stream).await.map(drop) });
            }
        });
        let identity = ServerIdentity::service("terrafusion-system", "driftguard-webhook").unwrap();
        Served { address, resolver, identity }
    }

    impl Served {
        fn leaf_of(&self, authority: &Authority) {
            self.resolver.replace(Leaf::issue(authority, &self.identity, Timestamp::now()).unwrap());
        }

        async fn check(&self, trusted: &[&Authority]) -> Result<(), SelfCheckError> {
            let registered = Registered {
                server_name: self.identity.registered().clone(),
                bundle: trusted.iter().map(|authority| authority.certificate().clone()).collect(),
            };
            handshake(self.address, &registered).await
        }
    }

    #[tokio::test]
    async fn a_leaf_of_the_registered_authority_verifies() {
        let served = served().await;
        let authority = Authority::generate(Timestamp::now()).unwrap();
        served.leaf_of(&authority);
        served.check(&[&authority]).await.unwrap();
    }

    #[tokio::test]
    async fn a_leaf_of_another_authority_does_not() {
        let served = served().await;
        let (ours, theirs) =
            (Authority::generate(Timestamp::now()).unwrap(), Authority::generate(Timestamp::now()).unwrap());
        served.leaf_of(&ours);
        assert!(matches!(served.check(&[&theirs]).await, Err(SelfCheckError::Refused { .. })));
        served.check(&[&theirs, &ours]).await.unwrap();
        assert!(served.check(&[]).await.is_err());
    }

    #[tokio::test]
    async fn a_leaf_is_replaced_in_place() {
        let served = served().await;
        let (old, new) =
            (Authority::generate(Timestamp::now()).unwrap(), Authority::generate(Timestamp::now()).unwrap());
        served.leaf_of(&old);
        served.check(&[&old]).await.unwrap();
        served.leaf_of(&new);
        assert!(served.check(&[&old]).await.is_err());
        served.check(&[&new]).await.unwrap();
    }

    #[tokio::test]
    async fn without_a_leaf_nothing_verifies() {
        let authority = Authority::generate(Timestamp::now()).unwrap();
        assert!(matches!(served().await.check(&[&authority]).await, Err(SelfCheckError::Refused { .. })));
    }

    #[tokio::test]
    async fn another_server_name_does_not_verify() {
        let served = served().await;
        let authority = Authority::generate(Timestamp::now()).unwrap();
        served.leaf_of(&authority);
        let registered = Registered {
            server_name: "elsewhere.terrafusion-system.svc".try_into().unwrap(),
            bundle: authority.bundle().to_vec(),
        };
        let result = handshake(served.address, &registered).await;
        assert!(matches!(result, Err(SelfCheckError::Refused { .. })));
    }
}
