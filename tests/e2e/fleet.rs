//! Two replicas behind a balancer, all of which can be killed and brought back as a person would.

use anyhow::{Context as _, Result, anyhow, ensure};
use driftguard_control_plane::guardian::{Process, Program, Signal};
use driftguard_control_plane::{Backend, Balancer, ControlPlane, Output, User, free_port, until};
use serde_json::{Value, json};

use crate::installation::{DRIFTGUARD, LIMIT, Via, driftguard, hash_of};

pub(crate) const SYSTEM: &str = "terrafusion-system";
const NAMES: [&str; 2] = ["replica-a", "replica-b"];

/// Replicas of one installation.
pub(crate) struct Fleet {
    pub(crate) plane: ControlPlane,
    pub(crate) admin: User,
    pub(crate) running: Vec<Process>,
    programs: Vec<Program>,
    balancer: Balancer,
    via: Via,
    /// Further flags of `serve`.
    flags: Vec<String>,
    /// For admission and for health.
    ports: [(u16, u16); 2],
}

impl Fleet {
    /// Installed on this control plane, with both replicas ready.
    pub(crate) fn on(plane: ControlPlane, via: Via) -> Result<Self> {
        Self::with_flags(plane, via, &[])
    }

    /// The same with further flags of `serve`.
    pub(crate) fn with_flags(plane: ControlPlane, via: Via, flags: &[String]) -> Result<Self> {
        let admin = plane.admin()?;
        let ports = [(free_port()?, free_port()?), (free_port()?, free_port()?)];
        let backends = ports.map(|(port, health)| {
            let readyz = format!("http://127.0.0.1:{health}/readyz");
            Backend { address: ([127, 0, 0, 1], port).into(), readyz }
        });
        let balancer = Balancer::start(backends.into())?;
        let (running, programs, flags) = (Vec::new(), Vec::new(), flags.to_vec());
        let mut fleet = Self { plane, admin, running, programs, balancer, via, flags, ports };
        fleet.install()?;
        fleet.start()?;
        Ok(fleet)
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.balancer.port())
    }

    /// What a person runs first, also to mend what is broken.
    pub(crate) fn install(&self) -> Result<()> {
        let address = match self.via {
            Via::Url => format!("--url={}", self.url()),
            Via::Service => format!("--external-name={}", self.balancer.port()),
        };
        driftguard(&self.admin, &["install", "--dev", &address])?.success().map(drop)
    }

    /// Starts both replicas with a token of the installed account, and waits until they are ready.
    pub(crate) fn start(&mut self) -> Result<()> {
        let operator = self.plane.service_account(SYSTEM, "driftguard-operator")?;
        let reach = match self.via {
            Via::Url => ["--webhook-url".to_owned(), self.url()],
            Via::Service => {
                let port = self.balancer.port();
                ["--webhook-service".to_owned(), format!("{SYSTEM}/driftguard-webhook:{port}")]
            }
        };
        let program = |(name, (port, health))| {
            Program::new(name, DRIFTGUARD)
                .args(["serve".to_owned(), format!("--replica-name={name}")])
                .args(self.flags.iter().cloned())
                .args(reach.clone())
                .args([format!("--bind=127.0.0.1:{port}"), format!("--health-bind=127.0.0.1:{health}")])
                .arg(format!("--kubeconfig={}", operator.kubeconfig().display()))
        };
        self.programs = NAMES.into_iter().zip(self.ports).map(program).collect();
        let start = |program: &Program| self.plane.guardian().start(program);
        self.running = self.programs.iter().map(start).collect::<Result<_>>()?;
        self.wait_ready(NAMES.len())
    }

    /// Starts a replica again that has ended, and waits until both are ready.
    pub(crate) fn start_again(&self, replica: usize) -> Result<()> {
        self.start_only(replica)?;
        self.wait_ready(NAMES.len())
    }

    /// Starts a replica again that has ended.
    pub(crate) fn start_only(&self, replica: usize) -> Result<()> {
        self.plane.guardian().start(&self.programs[replica]).map(drop)
    }

    /// Waits until so many replicas get new connections.
    pub(crate) fn wait_ready(&self, count: usize) -> Result<()> {
        self.balancer.wait_ready(count, LIMIT).map_err(|error| self.with_logs(&error))
    }

    /// Ends every replica without asking it.
    pub(crate) fn kill(&self) -> Result<()> {
        for process in &self.running {
            process.signal(Signal::Kill)?;
        }
        for process in &self.running {
            process.wait(LIMIT)?;
        }
        self.wait_ready(0)
    }

    /// An error, and what the replicas said last.
    pub(crate) fn with_logs(&self, error: &anyhow::Error) -> anyhow::Error {
        let logs: Vec<_> = self.running.iter().map(Process::log_tail).collect();
        anyhow!("{error:#}\n{}", logs.join("\n"))
    }

    pub(crate) fn namespace(&self, name: &str) -> Result<()> {
        self.admin.kubectl(&["create", "namespace", name])?.success().map(drop)
    }

    pub(crate) fn apply(&self, manifest: &Value) -> Result<()> {
        self.admin.kubectl_with(&["apply", "-f", "-"], manifest.to_string())?.success().map(drop)
    }

    pub(crate) fn get(&self, target: &Target) -> Result<Value> {
        self.admin.kubectl(&target.with(&["get", "-o", "json"]))?.json()
    }

    /// Pins an object to what it holds now, by a guard in `place`, and waits until that is enforced.
    pub(crate) fn pin(&self, place: &str, target: &Target, more: &Value) -> Result<()> {
        let mut spec = json!({
            "targetKind": target.kind, "targetName": target.name, "expectedHash": hash_of(&self.get(target)?)?,
        });
        if !target.namespace.is_empty() && target.namespace != place {
            spec["targetNamespace"] = json!(target.namespace);
        }
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let guard = json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": target.guard(), "namespace": place}, "spec": spec,
        });
        // With another signing key no guard is taken until the next holder of the lease has registered.
        until("the guard is taken", LIMIT, || self.apply(&guard))?;
        self.wait_enforcing(place, &target.guard())
    }

    pub(crate) fn wait_enforcing(&self, place: &str, guard: &str) -> Result<()> {
        until(&format!("{place}/{guard} is enforced"), LIMIT, || {
            let found = self.admin.kubectl(&["get", "dg", guard, "-n", place, "-o", "json"])?.json()?;
            let enforcing = condition(&found, "Enforcing").context("no condition Enforcing yet")?;
            let current = enforcing["observedGeneration"] == found["metadata"]["generation"];
            // Guards of these modes are never called enforced.
            let settled = enforcing["status"] == "True" || enforcing["reason"] == "DetectOnly";
            ensure!(current && settled, "{enforcing}");
            Ok(())
        })
        .map_err(|error| self.with_logs(&error))
    }

    /// Tries what must be refused, with these words, and checks that the object stays to the
    /// resourceVersion.
    pub(crate) fn refused(&self, target: &Target, words: &str) -> Result<()> {
        let before = self.get(target)?;
        let said = self.edit(target)?.failure()?;
        ensure!(said.contains(words), "{target:?} is refused, but not with {words:?}: {said}");
        let after = self.get(target)?;
        ensure!(before == after, "refused, yet changed:\n{before}\n{after}");
        Ok(())
    }

    /// Changes what is pinned.
    pub(crate) fn edit(&self, target: &Target) -> Result<Output> {
        self.admin.kubectl(&target.with(&["patch", "--type=merge", "-p", target.edit]))
    }
}

/// A condition of a guard.
pub(crate) fn condition<'a>(guard: &'a Value, kind: &str) -> Option<&'a Value> {
    guard["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// An object that is guarded, and a change of what is pinned of it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Empty for kinds without one.
    pub(crate) namespace: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) name: &'static str,
    pub(crate) edit: &'static str,
}

impl Target {
    /// Name of its guard.
    pub(crate) fn guard(&self) -> String {
        format!("{}-{}", self.kind, self.name)
    }

    /// Arguments of kubectl about it; the first is the verb.
    pub(crate) fn with<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let (verb, rest) = arguments.split_first().unwrap_or((&"get", &[]));
        let mut all = vec![*verb, self.kind, self.name];
        if !self.namespace.is_empty() {
            all.extend(["-n", self.namespace]);
        }
        all.extend(rest);
        all
    }
}
