//! `make demo`: the main job on a real API server, told in plain lines.
//!
//! Every line that claims something is checked: a step that does not do what it says ends the demo with
//! a non-zero exit. What was started is stopped in any case.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use driftguard_control_plane::guardian::{Process, Program, Signal};
use driftguard_control_plane::{ControlPlane, Output, User, Version, free_port, until};

/// How long a wait may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);
/// Most lines shown of what a command says.
const SHOWN: usize = 6;
const NAMESPACE: &str = "shop";

fn main() -> ExitCode {
    let Some(driftguard) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("error: name the driftguard program to show, as `make demo` does");
        return ExitCode::from(2);
    };
    // Programs run in the folder of the control plane, where a relative path would mean another file.
    let driftguard = match driftguard.canonicalize() {
        Ok(path) => path,
        Err(error) => {
            eprintln!("error: {}: {error}", driftguard.display());
            return ExitCode::from(2);
        }
    };
    match Demo::start(&driftguard).and_then(|demo| demo.tell()) {
        Ok(()) => {
            println!("\nEverything above was checked as it ran. All is stopped and removed again.");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\nerror: the demo did not do what it says: {error:#}");
            ExitCode::FAILURE
        }
    }
}

struct Demo {
    plane: ControlPlane,
    admin: User,
    driftguard: PathBuf,
    objects: tempfile::TempDir,
}

/// Prints a heading.
fn heading(text: &str) {
    let (on, off) = if std::io::stdout().is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    println!("\n{on}== {text}{off}");
}

impl Demo {
    fn start(driftguard: &Path) -> Result<Self> {
        heading("A control plane: a real etcd and a real kube-apiserver on this machine");
        let version = Version::Newest;
        print!("starting etcd and kube-apiserver {} ... ", version.pinned());
        std::io::stdout().flush()?;
        let plane = ControlPlane::builder().kubernetes(version).start()?;
        println!("ready at {}", plane.api_server().address());
        let admin = plane.admin()?;
        let objects = tempfile::tempdir()?;
        Ok(Self { plane, admin, driftguard: driftguard.to_owned(), objects })
    }

    fn tell(&self) -> Result<()> {
        let serve = self.install()?;
        self.guard()?;
        self.refuse_edits()?;
        self.refuse_other_kinds()?;
        self.let_pass()?;
        self.approve()?;
        self.rewrite()?;
        self.drift()?;
        self.refuse_a_lie()?;
        self.look()?;
        self.audit()?;
        self.uninstall(&serve)
    }

    fn install(&self) -> Result<Process> {
        heading("Install DriftGuard, and start its admission server with the rights that install gave it");
        let (port, health_port) = (free_port()?, free_port()?);
        let url = format!("https://127.0.0.1:{port}");
        self.driftguard(&["install", "--dev", "--url", &url])?.success()?;
        let operator = self.plane.service_account("terrafusion-system", "driftguard-operator")?;
        println!("$ driftguard serve --webhook-url {url} &");
        let program = Program::new("driftguard", &self.driftguard)
            .args(["serve", "--webhook-url", &url])
            .arg(format!("--bind=127.0.0.1:{port}"))
            .arg(format!("--health-bind=127.0.0.1:{health_port}"))
            .arg(format!("--kubeconfig={}", operator.kubeconfig().display()));
        let serve = self.plane.guardian().start(&program)?;
        until("the admission server is ready", LIMIT, || {
            ensure!(serve.exit_code().is_none(), "it has ended");
            ensure!(is_ready(health_port)?, "it is not ready yet");
            Ok(())
        })
        .map_err(|error| anyhow!("{error:#}\n{}", serve.log_tail()))?;
        println!("ready");
        Ok(serve)
    }

    fn guard(&self) -> Result<()> {
        heading("Three objects whose silent change would break things, each pinned to what it holds now");
        self.quietly(&["create", "namespace", NAMESPACE])?;
        for (file, text) in
            [("prices.yaml", CONFIG_MAP), ("credentials.yaml", SECRET), ("model.yaml", GAMA_CONFIG)]
        {
            self.kubectl(&["apply", "-f", &self.file(file, text)?])?.success()?;
        }
        for (kind, name) in [("configmap", "prices"), ("secret", "credentials"), ("gamaconfig", "model")] {
            println!("$ driftguard guard {kind} {name} -n {NAMESPACE} | kubectl apply -f -");
            let manifest = self.run(&["guard", kind, name, "-n", NAMESPACE])?.success()?;
            let applied = self.admin.kubectl_with(&["apply", "-f", "-"], manifest)?.success()?;
            print!("{applied}");
        }
        self.kubectl(&[
            "wait",
            "--for=condition=Enforcing",
            "--timeout=60s",
            "-n",
            NAMESPACE,
            "dg/prices-guard",
            "dg/credentials-guard",
            "dg/model-guard",
        ])?
        .success()?;
        self.kubectl(&["get", "dg", "-n", NAMESPACE])?.success()?;
        Ok(())
    }

    fn refuse_edits(&self) -> Result<()> {
        heading("Somebody changes the price, in every way that kubectl has");
        let editor = self
            .file("editor", "#!/bin/sh\nexec sed -i 's/espresso: .4[.]20./espresso: \"9.99\"/' \"$1\"\n")?;
        executable(Path::new(&editor))?;
        let changed = self.file("changed.yaml", &CONFIG_MAP.replace("4.20", "9.99"))?;
        let patch = r#"{"data":{"espresso":"9.99"}}"#;
        println!("(with an editor that changes 4.20 to 9.99)");
        self.refused("configmap/prices", &["edit", "configmap", "prices", "-n", NAMESPACE], Some(&editor))?;
        self.refused("configmap/prices", &["apply", "-f", &changed], None)?;
        self.refused(
            "configmap/prices",
            &["patch", "configmap", "prices", "-n", NAMESPACE, "-p", patch],
            None,
        )?;
        self.refused("configmap/prices", &["replace", "-f", &changed], None)?;
        self.refused(
            "configmap/prices",
            &["apply", "--server-side", "--force-conflicts", "-f", &changed],
            None,
        )
    }

    fn refuse_other_kinds(&self) -> Result<()> {
        heading("The Secret and the GAMAConfig are guarded alike; of a Secret no value and no hash is told");
        let secret = self.file("changed-secret.yaml", &SECRET.replace("espresso-machine", "drip-filter"))?;
        self.refused("secret/credentials", &["apply", "-f", &secret], None)?;
        let patch = r#"{"spec":{"parameters":{"coefficients":{"location":0.99}}}}"#;
        self.refused(
            "gamaconfig/model",
            &["patch", "gamaconfig", "model", "-n", NAMESPACE, "--type=merge", "-p", patch],
            None,
        )
    }

    fn let_pass(&self) -> Result<()> {
        heading("What is approved passes, and so does everything that is not pinned");
        self.kubectl(&["replace", "--save-config", "-f", &self.file("prices.yaml", CONFIG_MAP)?])?
            .success()?;
        self.kubectl(&["label", "configmap", "prices", "-n", NAMESPACE, "team=pricing"])?.success()?;
        self.kubectl(&["create", "configmap", "free", "-n", NAMESPACE, "--from-literal=a=1"])?.success()?;
        Ok(())
    }

    fn approve(&self) -> Result<()> {
        heading("A change that was agreed on: the new hash is approved, then the same apply passes");
        let changed = self.file("changed.yaml", &CONFIG_MAP.replace("4.20", "4.50"))?;
        let line = self.driftguard(&["hash", "-f", &changed])?.success()?;
        let hash = line.split_whitespace().next().context("no hash was printed")?;
        let patch = format!(r#"{{"spec":{{"expectedHash":"{hash}"}}}}"#);
        self.kubectl(&["patch", "dg", "prices-guard", "-n", NAMESPACE, "--type=merge", "-p", &patch])?
            .success()?;
        self.kubectl(&[
            "wait",
            "--for=condition=Enforcing",
            "--timeout=60s",
            "-n",
            NAMESPACE,
            "dg/prices-guard",
        ])?
        .success()?;
        self.kubectl(&["apply", "-f", &changed])?.success()?;
        let price =
            ["get", "configmap", "prices", "-n", NAMESPACE, "-o", "jsonpath={.data.espresso}{\"\\n\"}"];
        ensure!(self.kubectl(&price)?.success()?.trim() == "4.50", "the approved price was not stored");
        Ok(())
    }

    fn rewrite(&self) -> Result<()> {
        heading("A guard may also put the approved content back instead of refusing");
        let mode = r#"{"spec":{"enforcement":"Rewrite"}}"#;
        self.kubectl(&["patch", "dg", "prices-guard", "-n", NAMESPACE, "--type=merge", "-p", mode])?
            .success()?;
        let look = ["get", "configmap", "prices", "-n", NAMESPACE, "-o", "json"];
        let before = self.admin.kubectl(&look)?.success()?;
        let patch = r#"{"data":{"espresso":"9.99"}}"#;
        let change = ["patch", "configmap", "prices", "-n", NAMESPACE, "--type=merge", "-p", patch];
        // Until the mutating webhook is registered the change is refused, as before.
        let output = until("the change is put back", LIMIT, || {
            let output = self.admin.kubectl(&change)?;
            ensure!(output.succeeded(), "{output}");
            Ok(output)
        })?;
        println!("$ kubectl {}", self.said(&change));
        ensure!(show(output).stderr.contains("put back"), "the user was not told");
        ensure!(self.admin.kubectl(&look)?.success()? == before, "the price was not put back");
        println!("  -> put back; the object is unchanged to the resourceVersion");
        Ok(())
    }

    fn drift(&self) -> Result<()> {
        heading("Drift that no webhook sees: somebody writes straight into etcd");
        let rights = self.file("remediation.yaml", REMEDIATION)?;
        self.kubectl(&["apply", "-f", &rights])?.success()?;
        let price = self.price()?;
        self.store_approved(&price)?;
        let source = r#"{"spec":{"enforcement":"Deny","autoRemediate":true,"sourceOfTruthRef":{"kind":"configmap","name":"approved-prices"}}}"#;
        self.kubectl(&["patch", "dg", "prices-guard", "-n", NAMESPACE, "--type=merge", "-p", source])?
            .success()?;
        self.kubectl(&[
            "wait",
            "--for=condition=Drifted=false",
            "--timeout=60s",
            "-n",
            NAMESPACE,
            "dg/prices-guard",
        ])?
        .success()?;
        self.write_into_etcd(&price, "9.99")?;
        until("the approved price stands again", LIMIT, || {
            ensure!(self.price()? == price, "it does not");
            Ok(())
        })?;
        println!("  -> found and put back from ConfigMap approved-prices: the price is {price} again");
        until("the repair is said", LIMIT, || {
            let result = self.status("{.status.lastRemediation.result}")?;
            ensure!(result == "Restored", "it says {result:?}");
            Ok(())
        })?;
        let said = "custom-columns=NAME:.metadata.name,DRIFT:.status.lastDrift.paths,RESULT:.status.lastRemediation.result,FROM:.status.lastRemediation.source";
        self.kubectl(&["get", "dg", "prices-guard", "-n", NAMESPACE, "-o", said])?.success()?;
        Ok(())
    }

    fn refuse_a_lie(&self) -> Result<()> {
        heading("A source that lies: its content does not have the approved hash, so it is never written");
        let lie = r#"{"data":{"espresso":"0.01"}}"#;
        self.kubectl(&["patch", "configmap", "approved-prices", "-n", NAMESPACE, "--type=merge", "-p", lie])?
            .success()?;
        let name = r#"{"spec":{"sourceOfTruthRef":{"kind":"configmap","name":"approved-prices"},"maxFailuresBeforeAlert":1}}"#;
        self.kubectl(&["patch", "dg", "prices-guard", "-n", NAMESPACE, "--type=merge", "-p", name])?
            .success()?;
        let price = self.price()?;
        self.write_into_etcd(&price, "8.88")?;
        until("the source is refused", LIMIT, || {
            let sources = self.status("{.status.sources[*].result}")?;
            ensure!(sources.split(' ').next() == Some("Mismatch"), "it says {sources:?}");
            Ok(())
        })?;
        self.kubectl(&[
            "get",
            "dg",
            "prices-guard",
            "-n",
            NAMESPACE,
            "-o",
            "jsonpath={range .status.sources[*]}{.source}: {.result}: {.message}{\"\\n\"}{end}",
        ])?
        .success()?;
        until("what was last seen approved is put back", LIMIT, || {
            ensure!(self.price()? == price, "it is not");
            Ok(())
        })?;
        println!("  -> not written; the price {price}, last seen approved, was put back instead");
        Ok(())
    }

    fn audit(&self) -> Result<()> {
        heading("The report that a person, or a job, asks for: it ends with 0 when all is as approved");
        until("all is as approved", LIMIT, || {
            let ran = self.run(&["audit", "-A"])?;
            ensure!(ran.succeeded(), "{ran}");
            Ok(())
        })?;
        self.driftguard(&["audit", "-A"])?.success()?;
        Ok(())
    }

    /// The price of an espresso as it stands.
    fn price(&self) -> Result<String> {
        let price = ["get", "configmap", "prices", "-n", NAMESPACE, "-o", "jsonpath={.data.espresso}"];
        self.admin.kubectl(&price)?.success()
    }

    fn status(&self, path: &str) -> Result<String> {
        let path = format!("jsonpath={path}");
        self.admin.kubectl(&["get", "dg", "prices-guard", "-n", NAMESPACE, "-o", &path])?.success()
    }

    /// Keeps the approved prices in a ConfigMap of their own.
    fn store_approved(&self, price: &str) -> Result<()> {
        let approved = CONFIG_MAP.replace("4.20", price).replace("name: prices", "name: approved-prices");
        self.kubectl(&["apply", "-f", &self.file("approved.yaml", &approved)?])?.success().map(drop)
    }

    /// Changes the price past every API server. Of the same length, since what is stored holds lengths.
    fn write_into_etcd(&self, from: &str, to: &str) -> Result<()> {
        let key = format!("/registry/configmaps/{NAMESPACE}/prices");
        println!("$ etcdctl put {key}   # the espresso at {to} instead of {from}");
        let mut stored =
            self.plane.etcd().get(&key)?.context("the prices are not stored where they should be")?;
        // The last one: what was last applied stands in an annotation before it.
        let at = stored.windows(from.len()).rposition(|window| window == from.as_bytes());
        let at = at.context("the price is not stored as text")?;
        ensure!(from.len() == to.len(), "{from} and {to} differ in length");
        stored[at..at + to.len()].copy_from_slice(to.as_bytes());
        self.plane.etcd().put(&key, &stored)
    }

    fn look(&self) -> Result<()> {
        heading("What an operator sees");
        let path = ["get", "events", "-n", NAMESPACE, "--field-selector=reason=WriteDenied"];
        until("the refusals are told as Events", LIMIT, || {
            let events = self.admin.kubectl(&path)?.success()?;
            ensure!(events.contains("was refused"), "no Event yet");
            Ok(())
        })?;
        self.kubectl(&path)?.success()?;
        let repairs = ["get", "events", "-n", NAMESPACE, "--field-selector=reason=Restored"];
        until("the repair is told as an Event", LIMIT, || {
            let events = self.admin.kubectl(&repairs)?.success()?;
            ensure!(events.contains("put back"), "no Event yet");
            Ok(())
        })?;
        self.kubectl(&repairs)?.success()?;
        Ok(())
    }

    fn uninstall(&self, serve: &Process) -> Result<()> {
        heading("Uninstall: the admission server is stopped and the webhook goes, so nothing is locked out");
        println!("$ kill %1");
        serve.signal(Signal::Terminate)?;
        ensure!(serve.wait(LIMIT)? == 0, "the admission server did not end well\n{}", serve.log_tail());
        self.driftguard(&["uninstall"])?.success()?;
        let patch = r#"{"data":{"espresso":"9.99"}}"#;
        self.kubectl(&["patch", "configmap", "prices", "-n", NAMESPACE, "-p", patch])?.success()?;
        Ok(())
    }

    /// Runs a kubectl command that must be refused by DriftGuard and change nothing.
    fn refused(&self, object: &str, arguments: &[&str], editor: Option<&str>) -> Result<()> {
        let look = ["get", object, "-n", NAMESPACE, "-o", "json"];
        let before = self.admin.kubectl(&look)?.success()?;
        println!("$ kubectl {}", self.said(arguments));
        let mut command = self.admin.command(arguments);
        if let Some(editor) = editor {
            command = command.env("KUBE_EDITOR", editor).env("TMPDIR", self.objects.path());
        }
        let output = command.run()?;
        let told =
            output.stderr.lines().filter(|line| line.contains("DriftGuard ") || line.starts_with("image "));
        let told: Vec<&str> = told.collect();
        if output.succeeded() || told.is_empty() {
            bail!("this was not refused: {output}");
        }
        for line in told.iter().take(SHOWN) {
            println!("  {}", self.short(line));
        }
        ensure!(self.admin.kubectl(&look)?.success()? == before, "it was refused, yet {object} changed");
        println!("  -> refused; the object is unchanged to the resourceVersion");
        Ok(())
    }

    /// Runs kubectl and shows it.
    fn kubectl(&self, arguments: &[&str]) -> Result<Output> {
        println!("$ kubectl {}", self.said(arguments));
        Ok(show(self.admin.kubectl(arguments)?))
    }

    fn quietly(&self, arguments: &[&str]) -> Result<()> {
        self.admin.kubectl(arguments)?.success().map(drop)
    }

    /// Runs driftguard and shows it.
    fn driftguard(&self, arguments: &[&str]) -> Result<Output> {
        println!("$ driftguard {}", self.said(arguments));
        Ok(show(self.run(arguments)?))
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let output = Command::new(&self.driftguard)
            .args(arguments)
            .env("KUBECONFIG", self.admin.kubeconfig())
            .output()
            .with_context(|| format!("cannot run {}", self.driftguard.display()))?;
        Ok(Output {
            command: format!("driftguard {}", arguments.join(" ")),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// A file of the demo.
    fn file(&self, name: &str, text: &str) -> Result<String> {
        let path = self.objects.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// A text without the folder that the demo's files happen to lie in.
    fn short(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.objects.path().display()), "")
    }

    /// A command as a person would type it.
    fn said(&self, arguments: &[&str]) -> String {
        let word = |argument: &&str| {
            let short = self.short(argument);
            if short.contains([' ', '{', '"']) { format!("'{short}'") } else { short }
        };
        arguments.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

fn show(output: Output) -> Output {
    for line in output.stdout.lines().chain(output.stderr.lines()).take(3 * SHOWN) {
        println!("  {line}");
    }
    output
}

fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?)
}

/// Whether the health port says ready.
fn is_ready(port: u16) -> Result<bool> {
    use std::io::Read as _;
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}

/// The rights to write targets, which `install` does not give.
const REMEDIATION: &str = include_str!("../../deploy/remediation/remediation.yaml");

const CONFIG_MAP: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: prices
  namespace: shop
data:
  espresso: \"4.20\"
  currency: EUR
";

const SECRET: &str = "\
apiVersion: v1
kind: Secret
metadata:
  name: credentials
  namespace: shop
stringData:
  password: espresso-machine
";

const GAMA_CONFIG: &str = "\
apiVersion: terrafusion.ai/v1
kind: GAMAConfig
metadata:
  name: model
  namespace: shop
spec:
  parameters:
    modelType: hybrid
    coefficients:
      location: 0.35
      size: 0.25
";
