//! Real servers that lie, stall, flood and lead elsewhere.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;
use crate::sources::address::{AddressPolicy, SystemLookup};
use crate::sources::report::SourceResult;
use crate::sources::test_support::{Names, Reply, Server};

/// Loopback alone of one address is allowed, since that is where servers of tests are.
fn web(lookup: Arc<dyn Lookup>, limits: Limits) -> Web {
    Web::new(lookup, AddressPolicy::new(vec!["127.0.0.1".parse().unwrap()]), limits)
}

fn plain() -> Web {
    web(Arc::new(SystemLookup), Limits::default())
}

fn quick() -> Web {
    web(Arc::new(SystemLookup), Limits { time: Duration::from_millis(200), ..Limits::default() })
}

fn request(url: &str, authorities: &[CertificateDer<'static>]) -> Request {
    Request {
        url: url.parse().unwrap(),
        authorities: authorities.to_vec(),
        headers: HeaderMap::new(),
        may_be_plain: true,
    }
}

async fn get(web: &Web, server: &Server, path: &str) -> Result<Vec<u8>, Failed> {
    web.get(request(&format!("http://{}{path}", server.address), &[])).await
}

#[tokio::test]
async fn content_comes_by_https_from_whom_our_authority_vouches_for() {
    let server = Server::https("config.team.svc", |_| Reply::ok("{}")).await;
    let names = Names::of(&[("config.team.svc", &[&["127.0.0.1"]]), ("other.svc", &[&["127.0.0.1"]])]);
    let web = web(names, Limits::default());
    let url = |host: &str| format!("https://{host}:{}/a?b=c", server.port());
    let answer = web.get(request(&url("config.team.svc"), &server.authority)).await;
    assert_eq!(answer.unwrap(), b"{}");
    let head = server.seen().remove(0).to_lowercase();
    assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");
    assert!(!head.contains("authorization") && !head.contains("cookie"), "{head}");
    // Of another authority, of none, and under a name that is not in the certificate.
    let stranger = Server::https("config.team.svc", |_| Reply::ok("{}")).await;
    for (host, authorities) in [
        ("config.team.svc", &stranger.authority[..]),
        ("config.team.svc", &[]),
        ("other.svc", &server.authority),
    ] {
        let failed = web.get(request(&url(host), authorities)).await.unwrap_err();
        assert_eq!((failed.result, failed.reason), (SourceResult::Unavailable, "Unreachable"), "{failed:?}");
        assert!(failed.sentence.contains("certificate"), "{failed:?}");
    }
}

#[tokio::test]
async fn redirects_are_followed_on_one_host_and_three_times_at_most() {
    let server = Server::http(|head| {
        let steps: usize = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        if steps == 0 { Reply::ok("there") } else { Reply::redirect(&format!("/{}", steps - 1)) }
    })
    .await;
    assert_eq!(get(&plain(), &server, "/3").await.unwrap(), b"there");
    let failed = get(&plain(), &server, "/4").await.unwrap_err();
    assert_eq!(failed.reason, "TooManyRedirects");
    let endless = Server::http(|_| Reply::redirect("/")).await;
    assert_eq!(get(&plain(), &endless, "/").await.unwrap_err().reason, "TooManyRedirects");
    assert_eq!(endless.seen().len(), MOST_REDIRECTS + 1);
}

#[tokio::test]
async fn redirects_elsewhere_are_not_followed() {
    let other = Server::http(|_| Reply::ok("{}")).await;
    let port = other.port();
    for place in [
        format!("http://127.0.0.1:{port}/"),
        format!("http://localhost:{port}/"),
        format!("//127.0.0.1:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "https://127.0.0.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "gopher://127.0.0.1/".to_owned(),
    ] {
        let server = Server::http(move |_| Reply::redirect(&place)).await;
        let failed = get(&plain(), &server, "/").await.unwrap_err();
        assert_eq!(
            (failed.result, failed.reason),
            (SourceResult::Forbidden, "RedirectRefused"),
            "{failed:?}"
        );
    }
    assert!(other.seen().is_empty(), "it was called all the same");
    let nowhere = Server::http(|_| Reply::status("302 Found")).await;
    assert_eq!(get(&plain(), &nowhere, "/").await.unwrap_err().reason, "BadRedirect");
}

#[tokio::test]
async fn from_https_no_redirect_leads_to_http() {
    let server = Server::https("config.team.svc", |_| Reply::redirect("http://config.team.svc/")).await;
    let web = web(Names::of(&[("config.team.svc", &[&["127.0.0.1"]])]), Limits::default());
    let url = format!("https://config.team.svc:{}/", server.port());
    let failed = web.get(request(&url, &server.authority)).await.unwrap_err();
    assert_eq!(failed.reason, "RedirectRefused");
}

#[tokio::test]
async fn slow_answers_end_in_time_wherever_they_are_slow() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
    let replies: [fn() -> Reply; 4] = [
        || Reply::Stalls(String::new()),
        || Reply::Stalls("HTTP/1.1 200 OK\r\nx: ".to_owned()),
        || Reply::Stalls(HEAD.to_owned()),
        || Reply::Drips(HEAD.to_owned()),
    ];
    for reply in replies {
        let server = Server::http(move |_| reply()).await;
        let failed = get(&quick(), &server, "/").await.unwrap_err();
        assert_eq!((failed.result, failed.reason), (SourceResult::Unavailable, "Timeout"), "{failed:?}");
    }
}

#[tokio::test]
async fn large_answers_are_read_no_further_than_may_be() {
    let limits = Limits { bytes: 100_000, ..Limits::default() };
    let web = web(Arc::new(SystemLookup), limits);
    // Without a length, with one that is a lie, and in chunks that never end.
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n",
    ] {
        let server = Server::http(|_| Reply::Floods(head.to_owned())).await;
        let failed = get(&web, &server, "/").await.unwrap_err();
        assert_eq!((failed.result, failed.reason), (SourceResult::Invalid, "TooLarge"), "{head}");
    }
    let server = Server::http(|_| Reply::ok(&"x".repeat(100_000))).await;
    assert_eq!(get(&web, &server, "/").await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn compressed_answers_are_refused_unseen() {
    for coding in ["gzip", "br", "deflate", "zstd", "gzip, gzip"] {
        let reply = format!("HTTP/1.1 200 OK\r\ncontent-encoding: {coding}\r\ncontent-length: 2\r\n\r\n{{}}");
        let server = Server::http(move |_| Reply::Whole(reply.clone())).await;
        let failed = get(&plain(), &server, "/").await.unwrap_err();
        assert_eq!((failed.result, failed.reason), (SourceResult::Invalid, "ContentEncoded"), "{coding}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_content() {
    for text in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "HTTP/1.1 200",
        "no http at all\r\n\r\n",
        "",
    ] {
        let server = Server::http(|_| Reply::Whole(text.to_owned())).await;
        let failed = get(&plain(), &server, "/").await.unwrap_err();
        assert_eq!(failed.result, SourceResult::Unavailable, "{text}: {failed:?}");
    }
}

#[tokio::test]
async fn only_status_200_is_content() {
    for (status, result, reason) in [
        ("401 Unauthorized", SourceResult::Forbidden, "HttpStatus"),
        ("403 Forbidden", SourceResult::Forbidden, "HttpStatus"),
        ("404 Not Found", SourceResult::Unavailable, "NotFound"),
        ("204 No Content", SourceResult::Unavailable, "HttpStatus"),
        ("206 Partial Content", SourceResult::Unavailable, "HttpStatus"),
        ("500 Internal Server Error", SourceResult::Unavailable, "HttpStatus"),
        ("503 Service Unavailable", SourceResult::Unavailable, "HttpStatus"),
    ] {
        let server = Server::http(move |_| Reply::status(status)).await;
        let failed = get(&plain(), &server, "/").await.unwrap_err();
        assert_eq!((failed.result, failed.reason), (result, reason), "{status}");
        assert!(failed.sentence.contains(&status[..3]), "{failed:?}");
    }
}

#[tokio::test]
async fn case_43_addresses_of_this_machine_and_link_are_not_called() {
    let server = Server::http(|_| Reply::ok("{}")).await;
    let port = server.port();
    let strict = Web::new(Arc::new(SystemLookup), AddressPolicy::default(), Limits::default());
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "169.254.169.254",
        "[fe80::1]",
        "[64:ff9b::7f00:1]",
    ] {
        let failed = strict.get(request(&format!("http://{host}:{port}/"), &[])).await.unwrap_err();
        assert_eq!((failed.result, failed.reason), (SourceResult::Forbidden, "AddressRefused"), "{host}");
    }
    assert!(server.seen().is_empty(), "it was called all the same");
}

#[tokio::test]
async fn case_43_a_name_that_means_another_address_the_next_time_is_not_called_there() {
    let server = Server::http(|_| Reply::ok("{}")).await;
    // The same port of another address, which must never be reached.
    let inner = Server::http_at(&format!("127.0.0.2:{}", server.port()), |_| Reply::ok("{}")).await;
    let names = Names::of(&[
        ("rebinding.example", &[&["127.0.0.1"], &["127.0.0.2"], &["169.254.169.254"], &["::ffff:127.0.0.2"]]),
        ("mixed.example", &[&["127.0.0.2", "127.0.0.1", "169.254.169.254"]]),
        ("empty.example", &[&[]]),
    ]);
    let web = web(names, Limits::default());
    let ask = |name: &str| web.get(request(&format!("http://{name}:{}/", server.port()), &[]));
    assert_eq!(ask("rebinding.example").await.unwrap(), b"{}");
    for _ in 0..3 {
        let failed = ask("rebinding.example").await.unwrap_err();
        assert_eq!((failed.result, failed.reason), (SourceResult::Forbidden, "AddressRefused"), "{failed:?}");
    }
    assert_eq!(ask("mixed.example").await.unwrap(), b"{}", "by the address that may be called");
    for name in ["empty.example", "unknown.example"] {
        assert_eq!(ask(name).await.unwrap_err().reason, "Unreachable");
    }
    assert_eq!((server.seen().len(), inner.seen().len()), (2, 0));
}

#[tokio::test]
async fn a_redirect_to_a_name_that_was_turned_around_leads_nowhere() {
    let server = Server::http(|head| {
        if head.starts_with("GET /there") { Reply::ok("{}") } else { Reply::redirect("/there") }
    })
    .await;
    let inner = Server::http_at(&format!("127.0.0.2:{}", server.port()), |_| Reply::ok("stolen")).await;
    let web = web(Names::of(&[("turning.example", &[&["127.0.0.1"], &["127.0.0.2"]])]), Limits::default());
    let answer = web.get(request(&format!("http://turning.example:{}/", server.port()), &[])).await;
    assert_eq!(answer.unwrap_err().reason, "AddressRefused");
    assert!(inner.seen().is_empty());
}

#[tokio::test]
async fn what_must_not_be_read_on_the_wire_is_not_asked_for_by_plain_http() {
    let server = Server::http(|_| Reply::ok("{}")).await;
    let secret = Request { may_be_plain: false, ..request(&format!("http://{}/", server.address), &[]) };
    let failed = plain().get(secret).await.unwrap_err();
    assert_eq!((failed.result, failed.reason), (SourceResult::Forbidden, "PlainHttp"));
    assert!(server.seen().is_empty());
    let failed = plain().get(request("ftp://127.0.0.1/", &[])).await.unwrap_err();
    assert_eq!(failed.reason, "SchemeRefused");
}
