//! Servers that misbehave as told, and names that mean what a test says.
#![allow(clippy::unwrap_used, reason = "a test whose server fails should stop")]

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::address::Lookup;
use crate::cert::tls::server_config;
use crate::cert::{Authority, Leaf, LeafResolver, ServerIdentity};

/// What a server sends.
pub(super) enum Reply {
    /// These bytes, and then it closes.
    Whole(String),
    /// These bytes, and then nothing for ever.
    Stalls(String),
    /// These bytes, and then one more every few milliseconds for ever.
    Drips(String),
    /// These bytes, and then more of them as fast as they are taken.
    Floods(String),
}

impl Reply {
    /// A whole answer of status 200.
    pub(super) fn ok(body: &str) -> Self {
        Self::Whole(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    }

    pub(super) fn redirect(to: &str) -> Self {
        Self::Whole(format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"))
    }

    pub(super) fn status(status: &str) -> Self {
        Self::Whole(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"))
    }
}

/// What a server answers to the head of a request.
type Answers = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

/// A server that speaks HTTP/1.1, one request a connection.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// Who signs its certificate.
    pub(super) authority: Vec<CertificateDer<'static>>,
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// By https, with a certificate for `name` and the loopback names.
    pub(super) async fn https(name: &str, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let authority = Authority::generate(Timestamp::now()).unwrap();
        let identity = ServerIdentity::host(name).unwrap();
        let resolver = Arc::new(LeafResolver::new());
        resolver.replace(Leaf::issue(&authority, &identity, Timestamp::now()).unwrap());
        let config = server_config(resolver, None).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut server = Self::start("127.0.0.1:0", Some(acceptor), Arc::new(answer)).await;
        server.authority = vec![authority.certificate().clone()];
        server
    }

    /// By plain http.
    pub(super) async fn http(answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::http_at("127.0.0.1:0", answer).await
    }

    pub(super) async fn http_at(at: &str, answer: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start(at, None, Arc::new(answer)).await
    }

    async fn start(at: &str, tls: Option<tokio_rustls::TlsAcceptor>, answers: Answers) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heads = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            // Connections end with the server.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answers, heads) = (tls.clone(), Arc::clone(&answers), Arc::clone(&heads));
                connections.spawn(async move {
                    let served = match tls {
                        None => serve(stream, &answers, &heads).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &answers, &heads).await,
                            Err(error) => Err(error),
                        },
                    };
                    // A client that goes is what most tests are about.
                    drop(served);
                });
            }
        });
        Self { address, authority: Vec::new(), seen, task }
    }

    /// Heads of the requests so far.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    answers: &Answers,
    seen: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    seen.lock().unwrap().push(head.clone());
    match answers(&head) {
        Reply::Whole(text) => {
            stream.write_all(text.as_bytes()).await?;
            stream.shutdown().await
        }
        Reply::Stalls(text) => {
            stream.write_all(text.as_bytes()).await?;
            stream.flush().await?;
            std::future::pending().await
        }
        Reply::Drips(text) => {
            stream.write_all(text.as_bytes()).await?;
            // The slowness that the test is about.
            let mut drops = tokio::time::interval(Duration::from_millis(5));
            loop {
                drops.tick().await;
                stream.write_all(b" ").await?;
                stream.flush().await?;
            }
        }
        Reply::Floods(text) => {
            stream.write_all(text.as_bytes()).await?;
            let more = vec![b' '; 64 << 10];
            loop {
                stream.write_all(&more).await?;
            }
        }
    }
}

/// Names and what they mean, one lookup after the other; the last meaning stays.
#[derive(Default)]
pub(super) struct Names(Mutex<HashMap<String, Vec<Vec<IpAddr>>>>);

impl Names {
    pub(super) fn of(names: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let meaning = |addresses: &&[&str]| addresses.iter().map(|text| text.parse().unwrap()).collect();
        let names = names.iter().map(|(name, all)| ((*name).to_owned(), all.iter().map(meaning).collect()));
        Arc::new(Self(Mutex::new(names.collect())))
    }
}

impl Lookup for Names {
    fn addresses(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let mut names = self.0.lock().unwrap();
        let found = match names.get_mut(&name) {
            Some(meanings) if meanings.len() > 1 => Ok(meanings.remove(0)),
            Some(meanings) => Ok(meanings[0].clone()),
            None => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        async move { found }.boxed()
    }
}
