#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
use std::collections::BTreeMap;

use clap::Parser as _;

use std::time::Duration;

use super::*;
use crate::sources::address::AddressPolicy;

#[derive(clap::Parser)]
struct Flags {
    #[command(flatten)]
    git: GitArgs,
}

fn secret(entries: &[(&'static str, &'static [u8])]) -> Result<GitRequest, SourceError> {
    let entries: BTreeMap<&str, &[u8]> = entries.iter().copied().collect();
    GitRequest::from_secret("config.yaml", |key| entries.get(key).copied())
}

#[test]
fn the_keys_of_a_secret_are_read_without_the_line_ends_of_editors() {
    let request = secret(&[
        ("url", b"https://git.example.com/r\n"),
        ("ref", b""),
        ("username", b"bot\n"),
        ("password", b"hunter2\r\n"),
        ("sshPrivateKey", b"KEY\n"),
    ])
    .unwrap();
    assert_eq!(request.url, "https://git.example.com/r");
    assert_eq!(request.reference, None);
    let credentials = &request.credentials;
    assert_eq!(credentials.username.as_deref(), Some("bot"));
    assert_eq!(credentials.password.as_deref(), Some("hunter2"));
    assert_eq!(credentials.ssh_private_key.as_deref(), Some("KEY\n"));
    let shown = format!("{request:?} {credentials:?}");
    assert!(
        !shown.contains("hunter2") && !shown.contains("KEY") && !shown.contains("example.com"),
        "{shown}"
    );
}

#[test]
fn a_secret_without_url_or_with_bytes_is_invalid() {
    assert!(secret(&[("ref", b"main")]).unwrap_err().to_string().contains("no url"));
    assert!(secret(&[("url", b"\n")]).unwrap_err().to_string().contains("no url"));
    let why =
        secret(&[("url", b"https://git.example.com/r"), ("password", b"\xff")]).unwrap_err().to_string();
    assert!(why.contains("password of the Secret is no text"), "{why}");
}

#[test]
fn the_flags_have_the_limits_that_are_documented() {
    let settings = Flags::parse_from(["x"]).git.settings(AddressPolicy::default()).unwrap();
    assert_eq!(settings.time, Duration::from_secs(30));
    assert_eq!((settings.received, settings.blob), (64 << 20, 4 << 20));
    assert!(!settings.allow_file && !settings.allow_http);
    for wrong in
        ["--git-timeout=0s", "--git-timeout=60s", "--git-timeout=x", "--git-max-fetch=0", "--git-max-file=65"]
    {
        assert!(Flags::try_parse_from(["x", wrong]).is_err(), "{wrong}");
    }
}

#[test]
fn flags_that_cannot_be_used_say_which_file_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let with = |argument: &str, path: &std::path::Path| {
        let flags = Flags::parse_from(["x".to_owned(), format!("{argument}={}", path.display())]);
        flags.git.settings(AddressPolicy::default()).unwrap_err().to_string()
    };
    assert!(with("--git-ca", &file).starts_with("cannot read --git-ca"));
    std::fs::write(&file, "nothing").unwrap();
    assert!(with("--git-ca", &file).contains("holds no certificates"));
    assert!(with("--git-folder", &file).starts_with("cannot use --git-folder"));
}

#[tokio::test]
async fn the_wait_for_other_fetches_counts() {
    let settings = GitSettings { time: Duration::from_millis(50), ..GitSettings::default() };
    let _turn = settings.turns.turn(&"team".into()).await;
    let request = secret(&[("url", b"https://git.example.com/r")]).unwrap();
    let why = fetch(&settings, &"team".into(), request).await.unwrap_err();
    assert!(matches!(&why, SourceError::Unavailable(text) if text.contains("other fetches")), "{why}");
}
