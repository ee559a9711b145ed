//! Files of git repositories, fetched from real servers, some of which mean ill.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod forge;
mod repositories;
mod sshd;

use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use driftguard::sources::SourceError;
use driftguard::sources::address::AddressPolicy;
use driftguard::sources::git::{Credentials, GitRequest, GitSettings, fetch};
use driftguard_control_plane::until;

use self::forge::{Forge, PASSWORD, USER};
use self::repositories::{DEEP, EARLIER, NEXT, NOW, Repositories, git};
use self::sshd::Sshd;

/// Settings with which servers of this machine may be asked.
fn local(folder: &Path) -> GitSettings {
    let mut settings = GitSettings::default();
    settings.addresses = AddressPolicy::new(vec!["127.0.0.0/8".parse().unwrap(), "::1".parse().unwrap()]);
    settings.folder = folder.to_owned();
    settings
}

fn request(url: impl Into<String>, reference: Option<&str>, path: &str) -> GitRequest {
    GitRequest {
        url: url.into(),
        reference: reference.map(str::to_owned),
        credentials: Credentials::default(),
        path: path.to_owned(),
    }
}

fn with_password(url: String, password: &str) -> GitRequest {
    let credentials = Credentials {
        username: Some(USER.to_owned()),
        password: Some(password.to_owned()),
        ..Credentials::default()
    };
    GitRequest { credentials, ..request(url, None, "config.yaml") }
}

/// Fetches, and expects nothing to be left behind.
async fn fetched(settings: &GitSettings, request: GitRequest) -> Result<Vec<u8>, SourceError> {
    let result = fetch(settings, &"team".into(), request).await;
    let left = || -> Result<()> {
        let left: Vec<_> =
            std::fs::read_dir(&settings.folder)?.map(|entry| entry.map(|entry| entry.path())).collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        Ok(())
    };
    // A fetch that was given up cleans up when its thread has noticed.
    tokio::task::block_in_place(|| until("the folder is empty", Duration::from_secs(60), left)).unwrap();
    result
}

async fn text(settings: &GitSettings, request: GitRequest) -> String {
    String::from_utf8(fetched(settings, request).await.unwrap()).unwrap()
}

async fn invalid(settings: &GitSettings, request: GitRequest) -> String {
    match fetched(settings, request).await {
        Err(SourceError::Invalid(sentence)) => sentence,
        other => panic!("not invalid: {other:?}"),
    }
}

async fn forbidden(settings: &GitSettings, request: GitRequest) -> String {
    match fetched(settings, request).await {
        Err(SourceError::Forbidden(sentence)) => sentence,
        other => panic!("not forbidden: {other:?}"),
    }
}

async fn unavailable(settings: &GitSettings, request: GitRequest) -> String {
    match fetched(settings, request).await {
        Err(SourceError::Unavailable(sentence)) => sentence,
        other => panic!("not unavailable: {other:?}"),
    }
}

/// Repositories, a server for them, and a folder for what is fetched.
struct Bench {
    repositories: Repositories,
    forge: Forge,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let repositories = Repositories::make().unwrap();
        let forge = Forge::start(repositories.folder()).await.unwrap();
        Self { repositories, forge, folder: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> GitSettings {
        self.forge.settings(self.folder.path())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_fetched_by_branch_tag_full_ref_and_commit() {
    let bench = Bench::new().await;
    let settings = bench.settings();
    for repository in ["repos/whole.git", "repos/part.git", "repos/part.git/"] {
        let url = bench.forge.url(repository);
        let earlier = bench.repositories.earlier.as_str();
        for (reference, path, expected) in [
            (None, "config.yaml", NOW),
            (Some("main"), "/config.yaml", NOW),
            (Some("next"), "config.yaml", NEXT),
            (Some("light"), "config.yaml", NOW),
            (Some("v1"), "config.yaml", NOW),
            (Some("signed-off"), "config.yaml", NOW),
            (Some("refs/heads/both"), "./config.yaml", NOW),
            (Some("refs/tags/both"), "apps//shop/web.yaml", DEEP),
            (Some(earlier), "config.yaml", EARLIER),
        ] {
            let content = text(&settings, request(&*url, reference, path)).await;
            assert_eq!(content, expected, "{repository} {reference:?} {path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_fetched_from_a_server_of_the_first_protocol() {
    let bench = Bench::new().await;
    let settings = bench.settings();
    let url = bench.forge.url("old/part.git");
    for (reference, path, expected) in [
        (None, "config.yaml", NOW),
        (Some("next"), "config.yaml", NEXT),
        (Some("v1"), "apps/shop/web.yaml", DEEP),
        (Some(bench.repositories.earlier.as_str()), "config.yaml", EARLIER),
    ] {
        assert_eq!(text(&settings, request(&*url, reference, path)).await, expected, "{reference:?} {path}");
    }
    let sentence = invalid(&settings, request(&*url, Some("none"), "config.yaml")).await;
    assert!(sentence.contains("no branch or tag called as the ref of the Secret"), "{sentence}");
    let unknown = Some("0123456789012345678901234567890123456789");
    let sentence = invalid(&settings, request(&*url, unknown, "config.yaml")).await;
    assert!(sentence.contains("does not give out that commit"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_of_the_repository_is_invalid_and_says_why() {
    let bench = Bench::new().await;
    let settings = bench.settings();
    for repository in ["repos/whole.git", "repos/part.git"] {
        let url = bench.forge.url(repository);
        for (reference, path, says) in [
            (None, "link.yaml", "symbolic link"),
            (None, "linked/shop/web.yaml", "symbolic link"),
            (None, "etc/hostname", "symbolic link"),
            (None, "submodule", "submodule"),
            (None, "submodule/config.yaml", "submodule"),
            (None, "apps", "folder"),
            (None, "none.yaml", "no file none.yaml"),
            (None, "config.yaml/x", "no file config.yaml/x"),
            (None, "../config.yaml", "`..`"),
            (None, "apps/../config.yaml", "`..`"),
            (None, ".git/config", "no file .git/config"),
            (Some("none"), "config.yaml", "no branch or tag called as the ref of the Secret"),
            (Some("both"), "config.yaml", "refs/heads/ or refs/tags/"),
            (Some("--upload-pack=x"), "config.yaml", "ref of the Secret"),
            (
                Some("0123456789012345678901234567890123456789"),
                "config.yaml",
                "does not give out that commit",
            ),
        ] {
            let sentence = invalid(&settings, request(&*url, reference, path)).await;
            assert!(sentence.contains(says), "{repository} {reference:?} {path}: {sentence}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_can_leave_contents_out_sends_little_of_a_huge_repository() {
    let bench = Bench::new().await;
    let mut settings = bench.settings();
    settings.received = 1 << 20;
    let of = |repository: &str, path: &str| request(bench.forge.url(repository), Some("large"), path);
    assert_eq!(text(&settings, of("repos/part.git", "config.yaml")).await, NOW);
    for (repository, path) in [("repos/whole.git", "config.yaml"), ("repos/part.git", "random.bin")] {
        let sentence = invalid(&settings, of(repository, path)).await;
        assert!(sentence.contains("more than 1 MiB"), "{sentence}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_unpack_to_too_much_and_a_file_that_is_too_large_are_invalid() {
    let bench = Bench::new().await;
    let mut settings = bench.settings();
    // 1.5 MiB of noise and 8 MiB of zeros come as some 1.6 MiB.
    settings.received = 2 << 20;
    settings.blob = 100_000;
    let of = |repository: &str, path: &str| request(bench.forge.url(repository), Some("large"), path);
    let sentence = invalid(&settings, of("repos/whole.git", "config.yaml")).await;
    assert!(sentence.contains("unpacks to more than 2 MiB"), "{sentence}");
    let sentence = invalid(&settings, of("repos/part.git", "zeros.bin")).await;
    assert!(sentence.contains("unpacks to more than 2 MiB"), "{sentence}");
    let sentence = invalid(&settings, of("repos/part.git", "large.yaml")).await;
    assert!(sentence.contains("has 200000 bytes, where 100000 are allowed"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn username_and_password_are_sent_and_never_told() {
    let bench = Bench::new().await;
    let settings = bench.settings();
    let url = bench.forge.url("private/part.git");
    assert_eq!(text(&settings, with_password(url.clone(), PASSWORD)).await, NOW);
    let in_url = url.replace("https://", &format!("https://{USER}:hunter2%2B%2F%3D@"));
    assert_eq!(text(&settings, request(in_url, None, "config.yaml")).await, NOW);

    let sentence = forbidden(&settings, with_password(url.clone(), "wrong-guess")).await;
    assert!(
        sentence.contains("refused username and password") && !sentence.contains("wrong-guess"),
        "{sentence}"
    );
    let in_url = url.replace("https://", &format!("https://{USER}:wrong-guess@"));
    let sentence = forbidden(&settings, request(in_url, None, "config.yaml")).await;
    assert!(!sentence.contains("wrong-guess"), "{sentence}");
    let sentence = forbidden(&settings, request(url, None, "config.yaml")).await;
    assert!(sentence.contains("give the Secret username and password"), "{sentence}");

    // A server that repeats what it was sent.
    let sentence = invalid(&settings, with_password(bench.forge.url("echo/r.git"), PASSWORD)).await;
    assert!(!sentence.contains("hunter2") && sentence.contains("repeats a credential"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_are_followed_on_the_same_server_only() {
    let bench = Bench::new().await;
    let settings = bench.settings();
    let of = |path: &str| with_password(bench.forge.url(path), PASSWORD);
    assert_eq!(text(&settings, of("moved/part.git")).await, NOW);
    let asked = bench.forge.asked();
    for path in ["elsewhere/part.git", "downgraded/part.git"] {
        let sentence = forbidden(&settings, of(path)).await;
        assert!(sentence.contains("redirects to another server"), "{sentence}");
    }
    let since = &bench.forge.asked()[asked.len()..];
    assert_eq!(since.len(), 2, "somebody else was asked: {since:?}");
    assert!(since.iter().all(|asked| asked.authorization.is_some()));
    assert!(invalid(&settings, of("circle/part.git")).await.contains("redirects without an end"));
    assert!(invalid(&settings, of("page/part.git")).await.contains("no git repository"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_or_never_ends_is_given_up() {
    let bench = Bench::new().await;
    let mut settings = bench.settings();
    settings.time = Duration::from_secs(1);
    for path in ["slow/r.git", "dripping/r.git"] {
        let begun = Instant::now();
        let sentence = unavailable(&settings, request(bench.forge.url(path), None, "config.yaml")).await;
        assert!(sentence.contains("within 1 s"), "{sentence}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    settings.time = Duration::from_secs(60);
    settings.received = 1 << 20;
    let sentence = invalid(&settings, request(bench.forge.url("endless/r.git"), None, "config.yaml")).await;
    assert!(sentence.contains("more than 1 MiB"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_hangs_holds_the_place_of_its_namespace_until_nobody_waits_for_it() {
    let bench = Bench::new().await;
    let mut settings = bench.settings();
    settings.time = Duration::from_secs(600);
    let hanging: Vec<_> = (0..1)
        .map(|_| {
            let (settings, request) =
                (settings.clone(), request(bench.forge.url("slow/r.git"), None, "config.yaml"));
            tokio::spawn(async move { fetch(&settings, &"team".into(), request).await })
        })
        .collect();
    let hangs = || {
        ensure!(bench.forge.most_open() == 1, "{} are open", bench.forge.most_open());
        Ok(())
    };
    tokio::task::block_in_place(|| until("it hangs", Duration::from_secs(60), hangs)).unwrap();
    let usual = || request(bench.forge.url("repos/part.git"), None, "config.yaml");
    let mut hasty = settings.clone();
    hasty.time = Duration::from_secs(1);
    match fetch(&hasty, &"team".into(), usual()).await {
        Err(SourceError::Unavailable(sentence)) => {
            assert!(sentence.contains("other fetches from git took all of 1 s"), "{sentence}");
        }
        other => panic!("its namespace had a second place: {other:?}"),
    }
    // For another namespace there is one.
    let other = fetch(&settings, &"other".into(), usual()).await;
    assert!(other.is_ok(), "{other:?}");
    for one in hanging {
        one.abort();
    }
    assert_eq!(text(&settings, usual()).await, NOW);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_asked_of_a_server_that_may_not_be_one_or_does_not_prove_itself() {
    let bench = Bench::new().await;
    let url = bench.forge.url("repos/part.git");
    let mut elsewhere = bench.settings();
    elsewhere.addresses = AddressPolicy::default();
    for url in [&*url, &url.replace("localhost", "127.0.0.1"), &url.replace("localhost", "[::1]")] {
        let sentence = forbidden(&elsewhere, with_password(url.to_owned(), PASSWORD)).await;
        assert!(sentence.contains("loopback"), "{sentence}");
    }
    let sentence = forbidden(&local(bench.folder.path()), with_password(url.clone(), PASSWORD)).await;
    assert!(sentence.contains("certificate of the server of the Secret's url is not accepted"), "{sentence}");
    let plain = url.replace("https://", "http://");
    assert!(forbidden(&bench.settings(), with_password(plain.clone(), PASSWORD)).await.contains("http://"));
    let mut plain_allowed = bench.settings();
    plain_allowed.allow_http = true;
    let sentence = forbidden(&plain_allowed, with_password(plain, PASSWORD)).await;
    assert!(sentence.contains("password is not sent"), "{sentence}");
    assert!(bench.forge.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_speak_git_is_told_from_what_fails() {
    let bench = Bench::new().await;
    let settings = bench.settings();
    let of = |path: &str| request(bench.forge.url(path), None, "config.yaml");
    assert!(invalid(&settings, of("repos/none.git")).await.contains("no such repository"));
    assert!(invalid(&settings, of("login/r.git")).await.contains("does not answer as a git server does"));
    assert!(unavailable(&settings, of("broken/r.git")).await.contains("500"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = request(format!("https://localhost:{port}/r.git"), None, "config.yaml");
    assert!(unavailable(&settings, nobody).await.contains("refused"));
    let unknown = request("https://git.invalid/r.git", None, "config.yaml");
    assert!(unavailable(&settings, unknown).await.contains("has no address"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_url_cannot_run_a_program_or_read_this_machine() {
    let bench = Bench::new().await;
    let settings = bench.settings();
    let canary = bench.repositories.path("canary");
    let here = bench.repositories.path("whole.git");
    let here = here.display();
    for url in [
        format!("ext::sh -c touch% {}", canary.display()),
        format!("ext::touch% {}", canary.display()),
        format!("-oProxyCommand=touch {}:r", canary.display()),
        format!("ssh://-oProxyCommand=touch%20{}/r", canary.display()),
        format!("--upload-pack=touch {}", canary.display()),
        format!("file://{here}"),
        format!("{here}"),
        "git://localhost/whole.git".to_owned(),
    ] {
        let error = fetched(&settings, request(url.clone(), None, "config.yaml")).await.unwrap_err();
        assert!(!matches!(error, SourceError::Unavailable(_)), "{url}: {error}");
    }
    assert!(!canary.exists());

    let mut with_files = settings.clone();
    with_files.allow_file = true;
    assert_eq!(text(&with_files, request(format!("file://{here}"), Some("next"), "config.yaml")).await, NEXT);
    let sentence = invalid(&with_files, request("file:///nowhere/r.git", None, "config.yaml")).await;
    assert!(sentence.contains("/nowhere/r.git"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_fetched_over_ssh_from_a_server_whose_key_is_known() {
    let repositories = Repositories::make().unwrap();
    let sshd = Sshd::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = local(folder.path());
    for (repository, reference, path, expected) in [
        ("whole.git", None, "config.yaml", NOW),
        ("part.git", Some("v1"), "apps/shop/web.yaml", DEEP),
        ("part.git", Some(repositories.earlier.as_str()), "config.yaml", EARLIER),
    ] {
        let url = sshd.url(&repositories.path(repository));
        let credentials = sshd.credentials("client", "host");
        let content = text(&settings, GitRequest { credentials, ..request(url, reference, path) }).await;
        assert_eq!(content, expected, "{repository} {path}");
    }
    // Keys as people paste them: with the line ends of Windows, and none at the end.
    let mut credentials = sshd.credentials("client", "host");
    credentials.ssh_private_key = credentials.ssh_private_key.map(|key| key.trim_end().replace('\n', "\r\n"));
    let url = sshd.url(&repositories.path("part.git"));
    assert_eq!(text(&settings, GitRequest { credentials, ..request(url, None, "config.yaml") }).await, NOW);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ssh_keys_that_do_not_fit_are_told_apart() {
    let repositories = Repositories::make().unwrap();
    let sshd = Sshd::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = local(folder.path());
    let url = sshd.url(&repositories.path("part.git"));
    let with = |credentials: Credentials| GitRequest { credentials, ..request(&*url, None, "config.yaml") };

    let sentence = forbidden(&settings, with(sshd.credentials("client", "other-host"))).await;
    assert!(sentence.contains("is not the one in knownHosts"), "{sentence}");
    let mut unknown = sshd.credentials("client", "host");
    unknown.known_hosts = Some("git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA\n".to_owned());
    let sentence = forbidden(&settings, with(unknown)).await;
    assert!(sentence.contains("no key for the server of the Secret's url"), "{sentence}");
    let sentence = forbidden(&settings, with(sshd.credentials("other-client", "host"))).await;
    assert!(sentence.contains("refused sshPrivateKey"), "{sentence}");
    let mut garbage = sshd.credentials("client", "host");
    garbage.ssh_private_key = Some("not a key".to_owned());
    let sentence = invalid(&settings, with(garbage)).await;
    assert!(sentence.contains("no private key that OpenSSH reads"), "{sentence}");
    let mut missing = sshd.credentials("client", "host");
    missing.known_hosts = None;
    let sentence = invalid(&settings, with(missing)).await;
    assert!(sentence.contains("no knownHosts") && sentence.contains("ssh-keyscan"), "{sentence}");
    let sentence = invalid(&settings, request(&*url, None, "config.yaml")).await;
    assert!(sentence.contains("no sshPrivateKey"), "{sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_ssh_no_path_becomes_a_command_and_no_server_holds_us() {
    let repositories = Repositories::make().unwrap();
    let sshd = Sshd::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = local(folder.path());
    let canary = repositories.path("canary");
    for path in [
        format!("/x';touch${{IFS}}{};'", canary.display()),
        format!("/x$(touch${{IFS}}{})", canary.display()),
    ] {
        let url = format!("{}{path}", sshd.url(Path::new("")));
        let credentials = sshd.credentials("client", "host");
        let sentence =
            invalid(&settings, GitRequest { credentials, ..request(url, None, "config.yaml") }).await;
        assert!(sentence.contains("does not give out the repository"), "{sentence}");
    }
    assert!(!canary.exists());

    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    settings.time = Duration::from_secs(1);
    let url = format!("ssh://git@127.0.0.1:{}/r.git", silent.local_addr().unwrap().port());
    let credentials = sshd.credentials("client", "host");
    let begun = Instant::now();
    let sentence =
        unavailable(&settings, GitRequest { credentials, ..request(url, None, "config.yaml") }).await;
    assert!(sentence.contains("within 1 s"), "{sentence}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    // The client of that fetch, which its folder names, is gone.
    let name = folder.path().display().to_string();
    let ended = || {
        for process in std::fs::read_dir("/proc")?.flatten() {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            ensure!(!String::from_utf8_lossy(&command).contains(&name), "{:?} still runs", process.path());
        }
        Ok(())
    };
    tokio::task::block_in_place(|| until("ssh has ended", Duration::from_secs(60), ended)).unwrap();
}
