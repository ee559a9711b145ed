//! What every floor stands on: the same TLS, HTTP and runtime settings as `driftguard serve`.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use axum::Router;
use axum_server::accept::NoDelayAcceptor;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use driftguard::cert::{Authority, Leaf, LeafResolver, ServerIdentity, tls};

/// HTTP/2 windows of `driftguard serve`.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Serves `router` until killed. The certificate that signs what is served goes into `folder`, if
/// there is one.
pub(crate) async fn serve(bind: SocketAddr, router: Router, folder: Option<&Path>) -> anyhow::Result<()> {
    let authority = Authority::generate(SystemTime::now().try_into()?)?;
    if let Some(folder) = folder {
        let file = folder.join("authority.pem");
        std::fs::write(&file, authority.certificate_pem())
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let resolver = Arc::new(LeafResolver::new());
    let identity = ServerIdentity::host(&bind.ip().to_string())?;
    resolver.replace(Leaf::issue(&authority, &identity, SystemTime::now().try_into()?)?);
    let tls = RustlsConfig::from_config(Arc::new(tls::server_config(resolver, None)?));
    let listener = TcpListener::bind(bind).with_context(|| format!("cannot listen on {bind}"))?;
    let mut server =
        axum_server::from_tcp(listener)?.acceptor(RustlsAcceptor::new(tls).acceptor(NoDelayAcceptor::new()));
    server
        .http_builder()
        .http2()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    server.serve(router.into_make_service()).await?;
    Ok(())
}
