//! Drift written straight into etcd, until what is approved stands there again.
//!
//! Floor and DriftGuard take turns, one object after the other, and every object drifts once: what drifts again
//! waits longer. DriftGuard stops when many drift in a while, so there are enough guards that it does not; at the
//! end many do drift at once, and the bench acknowledges that as a person would.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use driftguard::core::audit::ACKNOWLEDGE;
use driftguard_control_plane::guardian::{Process, Program};
use driftguard_control_plane::until;
use http::Request;
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE};
use crate::contender::{START, sibling};
use crate::drift::{Drift, Follower};
use crate::figures::{Better, Figures};
use crate::median::percentile;
use crate::pinned::{self, From};
use crate::process;
use crate::table::Table;

/// Where nobody is asked about writes.
const PLAIN: &str = "bench-plain";
/// Where the no-op is.
const NOOP: &str = "bench-noop";
/// Drifts of each that are not counted.
const WARM_UP: usize = 5;
/// A guard in so many may drift within five minutes without stopping remediation.
const ONE_IN: usize = 5;
/// Rest between two drifts, so that nobody pays for what is still to be said of the other's.
const REST: Duration = Duration::from_millis(100);
/// How long many objects may take.
const LONGEST: Duration = Duration::from_secs(600);
const RATIO: &str = "ratio to a bare watch-and-patch loop";
const TARGET: f64 = 1.5;

/// Who puts back.
#[derive(Debug, Clone, Copy)]
struct Contender {
    name: &'static str,
    namespace: &'static str,
    /// What the names of its objects begin with.
    prefix: &'static str,
}

const OWN: Contender =
    Contender { name: "driftguard, last known good", namespace: NAMESPACE, prefix: "kept" };
const SOURCED: Contender =
    Contender { name: "driftguard, ConfigMap source", namespace: NAMESPACE, prefix: "sourced" };
const BARE: Contender = Contender { name: "bare loop", namespace: PLAIN, prefix: "plain" };
const ASKED: Contender = Contender { name: "bare loop, no-op asked", namespace: NOOP, prefix: "asked" };
const ALL: [Contender; 4] = [BARE, ASKED, OWN, SOURCED];

impl Contender {
    fn objects(self, count: usize) -> impl Iterator<Item = String> {
        (0..count).map(move |number| format!("{}-{number:05}", self.prefix))
    }

    fn drift(self, cluster: &Cluster, number: usize) -> anyhow::Result<Drift> {
        Drift::of(cluster, (self.namespace.to_owned(), format!("{}-{number:05}", self.prefix)))
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Drifts of each, one after the other.
    pub drifts: usize,
    /// Objects that drift at once.
    pub at_once: usize,
}

impl Plan {
    /// Drifts of each, those included that do not count.
    fn turns(self) -> usize {
        self.drifts + WARM_UP
    }

    /// Objects of a contender.
    fn objects(self, contender: Contender) -> usize {
        let more = match contender.prefix {
            "plain" => self.at_once,
            // So many that those which drift one after the other stop nothing.
            "kept" => self.at_once.max(2 * self.turns() * ONE_IN - 2 * self.turns()),
            _ => 0,
        };
        self.turns() + more
    }
}

/// Measures all of it on a control plane of its own.
pub(crate) async fn run(plan: Plan, figures: &mut Figures) -> anyhow::Result<Vec<Table>> {
    eprintln!("starting a control plane for drift");
    let cluster = Cluster::start()?;
    let client = cluster.admin().client()?;
    for namespace in [PLAIN, NOOP] {
        cluster.admin().kubectl(&["create", "namespace", namespace])?.success()?;
    }
    let port = cluster.install()?;
    cluster.allow_remediation()?;
    let (serve, health) = cluster.start_serve(port, &[])?;
    cluster.wait_ready(&serve, health)?;
    for contender in ALL {
        let objects = contender.objects(plan.objects(contender));
        pinned::make(&client, contender.namespace, objects).await?;
    }
    pinned::make_source(&client, NAMESPACE).await?;
    let _noop = cluster.ask_noop(NOOP)?;
    let floors = [start_floor(&cluster, PLAIN)?, start_floor(&cluster, NOOP)?];
    for (contender, from) in [(OWN, From::LastKnownGood), (SOURCED, From::ConfigMap)] {
        let guarded = contender.objects(plan.objects(contender)).map(|name| (name, from));
        pinned::guard(&client, NAMESPACE, guarded).await?;
    }
    let guards = plan.objects(OWN) + plan.objects(SOURCED);
    eprintln!("waiting until {guards} guards are enforced and looked at");
    pinned::wait_in_sync(&client, NAMESPACE, guards, &serve).await?;
    let mut follower = Follower::start(client.clone(), pinned::approved()).await?;
    let with_log = || serve.log_tail();
    let one_by_one = in_turn(&cluster, plan, &mut follower, &serve, figures).await.with_context(with_log)?;
    let at_once = at_once(&cluster, &client, plan, &mut follower, figures).await.with_context(with_log)?;
    ensure!(
        floors.iter().all(|floor| floor.exit_code().is_none()),
        "a floor has ended; {}",
        floors[0].log_tail()
    );
    Ok(vec![one_by_one, at_once])
}

fn start_floor(cluster: &Cluster, namespace: &str) -> anyhow::Result<Process> {
    let program = Program::new(format!("restore-{namespace}"), sibling("driftguard-bench-floors")?)
        .arg("restore")
        .args(["--namespace", namespace])
        .arg(format!("--kubeconfig={}", cluster.admin().kubeconfig().display()));
    let floor = cluster.guardian().start(&program)?;
    until("the floor watches", START, || {
        ensure!(floor.exit_code().is_none(), "it has ended; {}", floor.log_tail());
        ensure!(floor.log().contains("watching"), "it lists still");
        Ok(())
    })?;
    Ok(floor)
}

/// One drift after the other, each contender in turn.
async fn in_turn(
    cluster: &Cluster,
    plan: Plan,
    follower: &mut Follower,
    serve: &Process,
    figures: &mut Figures,
) -> anyhow::Result<Table> {
    let mut times = [const { Vec::new() }; ALL.len()];
    for turn in 0..plan.turns() {
        for offset in 0..ALL.len() {
            let place = (turn + offset) % ALL.len();
            let drift = ALL[place].drift(cluster, turn)?;
            tokio::time::sleep(REST).await;
            let took = follower.restored_one(cluster, &drift).await?;
            if turn >= WARM_UP {
                times[place].push(took);
            }
        }
    }
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    let of = |place: usize, share: f64| percentile(&times[place], share);
    let to_bare = |place: usize, share: f64| of(place, share) / of(0, share);
    let title = format!("drift in etcd until restored, 2 KiB, {} of each in turn", plan.drifts);
    let mut table = Table::new(&title, &["restored by", "p50 ms", "p99 ms", "p50 to bare", "p99 to bare"]);
    for (place, contender) in ALL.iter().enumerate() {
        table.row(vec![
            contender.name.to_owned(),
            format!("{:.2}", of(place, 0.5)),
            format!("{:.2}", of(place, 0.99)),
            format!("{:.2}", to_bare(place, 0.5)),
            format!("{:.2}", to_bare(place, 0.99)),
        ]);
    }
    figures.with_target("restore-p50", to_bare(2, 0.5), TARGET, Better::Lower, RATIO);
    figures.with_target("restore-p99", to_bare(2, 0.99), TARGET, Better::Lower, RATIO);
    figures.without_target("restore-p50-ms", of(2, 0.5), Better::Lower, "ms");
    figures.without_target("restore-p50-configmap", to_bare(3, 0.5), Better::Lower, RATIO);
    figures.without_target("restore-p99-configmap", to_bare(3, 0.99), Better::Lower, RATIO);
    figures.without_target(
        "restore-p50-to-asked",
        of(2, 0.5) / of(1, 0.5),
        Better::Lower,
        "ratio to a loop whose writes the no-op is asked about",
    );
    figures.without_target("restore-memory", process::memory(serve)?.resident, Better::Lower, "MiB");
    Ok(table)
}

/// Many at once: the floor's, then ours.
async fn at_once(
    cluster: &Cluster,
    client: &kube::Client,
    plan: Plan,
    follower: &mut Follower,
    figures: &mut Figures,
) -> anyhow::Result<Table> {
    let drifts = |contender: Contender| -> anyhow::Result<Vec<Drift>> {
        let numbers = plan.turns()..plan.turns() + plan.at_once;
        numbers.map(|number| contender.drift(cluster, number)).collect()
    };
    let bare = drifts(BARE)?;
    let bare = last(&follower.restored(cluster, &bare, LONGEST, async || Ok(())).await?);
    let own = drifts(OWN)?;
    let began = Instant::now();
    let mut acknowledged: Vec<(Value, f64)> = Vec::new();
    let acknowledging = async || {
        for id in incidents(client).await? {
            if acknowledged.iter().all(|(known, _)| *known != id) {
                acknowledge(client, &own[0].place.1, &id).await?;
                acknowledged.push((id, began.elapsed().as_secs_f64() * 1e3));
            }
        }
        Ok(())
    };
    let own = last(&follower.restored(cluster, &own, LONGEST, acknowledging).await?);
    let waited = acknowledged.last().map(|(_, at)| *at).unwrap_or_default();
    let title = format!("{} objects that drift at once, until the last is restored", plan.at_once);
    let mut table = Table::new(&title, &["restored by", "s", "s until acknowledged", "incidents", "to bare"]);
    table.row(vec![
        BARE.name.to_owned(),
        format!("{:.2}", bare / 1e3),
        String::new(),
        String::new(),
        "1.00".to_owned(),
    ]);
    table.row(vec![
        OWN.name.to_owned(),
        format!("{:.2}", own / 1e3),
        format!("{:.2}", waited / 1e3),
        acknowledged.len().to_string(),
        format!("{:.2}", own / bare),
    ]);
    figures.without_target("restore-1000", own / bare, Better::Lower, RATIO);
    figures.without_target("restore-1000-seconds", own / 1e3, Better::Lower, "s");
    figures.without_target("restore-1000-acknowledged", (own - waited) / 1e3, Better::Lower, "s");
    Ok(table)
}

/// When the last one was restored.
fn last(restored: &HashMap<(String, String), f64>) -> f64 {
    restored.values().copied().fold(0.0, f64::max)
}

/// The incidents that statuses tell of, as a person would read them.
async fn incidents(client: &kube::Client) -> anyhow::Result<Vec<Value>> {
    let mut ids = Vec::new();
    for guard in pinned::guards(client, NAMESPACE).await? {
        let id = &guard["status"]["incident"];
        if id.is_string() && !ids.contains(id) {
            ids.push(id.clone());
        }
    }
    Ok(ids)
}

async fn acknowledge(client: &kube::Client, guard: &str, id: &Value) -> anyhow::Result<()> {
    let path = format!("/apis/terrafusion.ai/v1/namespaces/{NAMESPACE}/driftguards/{guard}");
    let patch = json!({"metadata": {"annotations": {ACKNOWLEDGE: id}}});
    let request = Request::patch(path)
        .header(http::header::CONTENT_TYPE, "application/merge-patch+json")
        .body(patch.to_string().into_bytes())?;
    client.request_text(request).await.context("acknowledging an incident")?;
    Ok(())
}
