//! A real sshd, for the user who runs the test.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use driftguard::sources::git::Credentials;
use driftguard_control_plane::guardian::{Guardian, Process, Program};
use driftguard_control_plane::{free_port, until};

pub(super) struct Sshd {
    // Ends sshd and removes the folder.
    _guardian: Guardian,
    _process: Process,
    folder: PathBuf,
    user: String,
    pub(super) port: u16,
}

impl Sshd {
    pub(super) fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?.keep();
        let guardian = Guardian::new(&folder)?;
        for key in ["host", "other-host", "client", "other-client"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-C", key, "-f"])
                .arg(folder.join(key))
                .status()
                .context("ssh-keygen is missing: install it (Debian: apt install openssh-client)")?;
            ensure!(made.success(), "ssh-keygen: {made}");
        }
        let user = String::from_utf8(Command::new("id").arg("-un").output()?.stdout)?.trim().to_owned();
        if user == "root" {
            // Where sshd puts the half of itself that has no rights. Debian's service would have made it.
            std::fs::create_dir_all("/run/sshd")?;
        }
        let port = free_port()?;
        let place = folder.display();
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nPidFile none\n\
             AuthorizedKeysFile {place}/client.pub\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nAcceptEnv GIT_PROTOCOL\n"
        );
        std::fs::write(folder.join("sshd_config"), settings)?;
        let sshd = Path::new("/usr/sbin/sshd");
        ensure!(
            sshd.exists(),
            "{} is missing: install it (Debian: apt install openssh-server)",
            sshd.display()
        );
        let program = Program::new("sshd", sshd).args(["-D", "-e", "-f"]).arg(format!("{place}/sshd_config"));
        let process = guardian.start(&program)?;
        until("sshd listens", Duration::from_secs(30), || {
            TcpStream::connect(("127.0.0.1", port)).with_context(|| process.log_tail())
        })?;
        Ok(Self { _guardian: guardian, _process: process, folder, user, port })
    }

    pub(super) fn url(&self, repository: &Path) -> String {
        format!("ssh://{}@localhost:{}{}", self.user, self.port, repository.display())
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap()
    }

    /// A line of a known_hosts file that gives this server a key of ours.
    pub(super) fn known_as(&self, key: &str) -> String {
        format!("[localhost]:{} {}", self.port, self.file(&format!("{key}.pub")))
    }

    /// Credentials with these keys of ours.
    pub(super) fn credentials(&self, client: &str, host: &str) -> Credentials {
        Credentials {
            ssh_private_key: Some(self.file(client)),
            known_hosts: Some(self.known_as(host)),
            ..Credentials::default()
        }
    }
}
