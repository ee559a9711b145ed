//! The doctor on a server that knows nothing of ours.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;

use crate::run::{command, run};

/// An API server that tells its version and has nothing else. Gives its address.
fn bare_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            // A client that goes away asks for nothing more.
            std::thread::spawn(move || drop(answer(&stream)));
        }
    });
    address
}

/// Answers one request, and closes.
fn answer(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').unwrap_or_default();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or_default();
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    let (status, body) = if request.starts_with("GET /version ") {
        let version = serde_json::json!({
            "major": "1", "minor": "37", "gitVersion": "v1.37.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
        });
        ("200 OK", version)
    } else {
        let status = serde_json::json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "not found",
            "reason": "NotFound", "code": 404,
        });
        ("404 Not Found", status)
    };
    let body = body.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_cluster_without_us_fails_and_says_what_to_apply() {
    let told = run(&["doctor", "-s", &bare_server()]);
    assert_eq!(told.code, Some(1), "{told:?}");
    assert!(
        told.stdout.contains("mend: driftguard manifests crds | kubectl apply --server-side -f -\n"),
        "{told:?}"
    );
}

#[test]
fn a_reader_that_closes_the_pipe_does_not_turn_failures_into_success() {
    let server = bare_server();
    for format in ["text", "json", "yaml"] {
        let args = ["doctor", "-s", &server, "-o", format];
        let mut child = command(&args).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{format}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
