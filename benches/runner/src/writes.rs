//! What a write costs whoever makes it: through a real API server, from the request to the answer.
//!
//! The same update of a ConfigMap of 2 KiB, made in turn to a guarded one, to one that the no-op webhook
//! is asked about, and to one that nobody is asked about. Then an unguarded one beside the guarded one,
//! with our configurations registered and without, block by block.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use driftguard::core::canonical::hash_object;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use driftguard_control_plane::guardian::Signal;
use driftguard_control_plane::until;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE};
use crate::contender::START;
use crate::content::{self, Shape};
use crate::figures::{Better, Figures};
use crate::median::percentile;
use crate::size::Size;
use crate::table::Table;

const NOOP: &str = "bench-noop";
const PLAIN: &str = "bench-plain";
const NAME: &str = "written";
const BESIDE: &str = "unguarded";
const UNIT: &str = "ratio";
/// Turns of being registered and not, for the unguarded write.
const BLOCKS: usize = 12;
/// Writes after a change of the rules that are not counted.
const WARM_UP: usize = 10;
/// How long a configuration may take to be in effect everywhere; some 5 ms were seen.
const IN_EFFECT: Duration = Duration::from_millis(200);

/// Earlier and later content; a write alternates between them, and both are approved.
struct Contents([BTreeMap<String, String>; 2]);

impl Contents {
    fn new() -> anyhow::Result<Self> {
        let later = content::files(&Shape::MIX, Size::ALL[0].bytes());
        let earlier = content::earlier(&later)?;
        Ok(Self([earlier, later].map(|files| files.into_iter().collect())))
    }

    fn hash(&self, turn: usize) -> anyhow::Result<String> {
        let scope = Scope::new("", "ConfigMap", PathFilter::everything());
        Ok(hash_object(&serde_json::to_vec(&json!({"data": self.0[turn]}))?, &scope)?.to_string())
    }

    fn manifest(&self, namespace: &str, name: &str) -> String {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace},
            "data": self.0[0],
        })
        .to_string()
    }

    /// Writes the other content, and gives how many milliseconds the answer took.
    async fn write(&self, api: &Api<ConfigMap>, name: &str, turn: usize) -> anyhow::Result<f64> {
        let patch = Patch::Merge(json!({"data": self.0[turn % 2]}));
        let began = Instant::now();
        api.patch(name, &PatchParams::default(), &patch).await.with_context(|| format!("writing {name}"))?;
        Ok(began.elapsed().as_secs_f64() * 1e3)
    }
}

/// Measures `writes` updates of each.
pub(crate) async fn run(writes: usize, figures: &mut Figures) -> anyhow::Result<Vec<Table>> {
    eprintln!("starting a control plane for writes through it");
    let cluster = Cluster::start()?;
    let contents = Contents::new()?;
    for namespace in [NOOP, PLAIN] {
        cluster.admin().kubectl(&["create", "namespace", namespace])?.success()?;
    }
    let port = cluster.install()?;
    let (serve, health) = cluster.start_serve(port, &[])?;
    for (namespace, name) in [(NAMESPACE, NAME), (NAMESPACE, BESIDE), (NOOP, NAME), (PLAIN, NAME)] {
        let manifest = contents.manifest(namespace, name);
        cluster.admin().kubectl_with(&["create", "-f", "-"], manifest)?.success()?;
    }
    let _noop = cluster.ask_noop(NOOP)?;
    guard(&cluster, &contents).with_context(|| serve.log_tail())?;
    let client = cluster.admin().client()?;
    let apis = [NAMESPACE, NOOP, PLAIN].map(|namespace| Api::namespaced(client.clone(), namespace));
    let guarded = side_by_side(&contents, &apis, writes, health, figures).await?;
    let before = calls(health)?;
    for turn in 1..=writes {
        contents.write(&apis[0], BESIDE, turn).await?;
    }
    let made = calls(health)? - before;
    figures.with_target("unguarded-calls", made, 0.0, Better::Lower, "calls");
    // From here on nobody repairs the configurations; an unguarded write does not need us.
    serve.signal(Signal::Kill)?;
    let unguarded = registered_or_not(&cluster, &contents, &apis[0], writes, figures).await?;
    Ok(vec![guarded, unguarded])
}

/// Makes the guard that approves both contents, and waits until it is enforced.
fn guard(cluster: &Cluster, contents: &Contents) -> anyhow::Result<()> {
    let guard = json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "targetKind": "ConfigMap", "targetName": NAME, "expectedHash": contents.hash(0)?,
            "alsoApproved": [{"hash": contents.hash(1)?}],
        },
    });
    until("the guard is taken", START, || {
        cluster.admin().kubectl_with(&["apply", "-f", "-"], guard.to_string())?.success()
    })?;
    let object = format!("driftguard/{NAME}");
    let wait = ["wait", "--for=condition=Enforcing", "--timeout=60s", "-n", NAMESPACE, &object];
    cluster.admin().kubectl(&wait)?.success()?;
    Ok(())
}

async fn side_by_side(
    contents: &Contents,
    apis: &[Api<ConfigMap>; 3],
    writes: usize,
    health: u16,
    figures: &mut Figures,
) -> anyhow::Result<Table> {
    let before = calls(health)?;
    let mut times = [const { Vec::new() }; 3];
    for turn in 1..=writes + writes / 10 {
        for offset in 0..apis.len() {
            let place = (turn + offset) % apis.len();
            let took = contents.write(&apis[place], NAME, turn).await?;
            // The first tenth warms up.
            if turn > writes / 10 {
                times[place].push(took);
            }
        }
    }
    let asked = calls(health)? - before;
    ensure!(asked >= writes as f64, "only {asked} of {writes} guarded writes reached DriftGuard");
    let title = format!("an update of 2 KiB through the API server, {writes} of each in turn");
    let mut table = Table::new(&title, &["asked", "p50 ms", "p99 ms", "p50 to no-op", "p99 to no-op"]);
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    let of = |place: usize, share: f64| percentile(&times[place], share);
    for (place, name) in ["driftguard", "no-op", "nobody"].into_iter().enumerate() {
        let (p50, p99) = (of(place, 0.5), of(place, 0.99));
        table.row(vec![
            name.to_owned(),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            format!("{:.3}", p50 / of(1, 0.5)),
            format!("{:.3}", p99 / of(1, 0.99)),
        ]);
    }
    let to_noop = |share: f64| of(0, share) / of(1, share);
    figures.with_target("guarded-write-p50", to_noop(0.5), 1.05, Better::Lower, UNIT);
    figures.with_target("guarded-write-p99", to_noop(0.99), 1.10, Better::Lower, UNIT);
    figures.without_target("guarded-write-p50-to-none", of(0, 0.5) / of(2, 0.5), Better::Lower, UNIT);
    Ok(table)
}

async fn registered_or_not(
    cluster: &Cluster,
    contents: &Contents,
    api: &Api<ConfigMap>,
    writes: usize,
    figures: &mut Figures,
) -> anyhow::Result<Table> {
    let kinds = ["validatingwebhookconfiguration", "mutatingwebhookconfiguration"];
    let ours = kinds.map(|kind| [kind, "driftguard"]);
    let mut saved = Vec::new();
    for [kind, name] in ours {
        let mut object = cluster.admin().kubectl(&["get", kind, name, "-o", "json"])?.json()?;
        for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
            object["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
        }
        saved.push(object);
    }
    ensure!(saved.iter().any(has_entries), "nothing is registered");
    let mut times = [const { Vec::new() }; 2];
    for block in 0..BLOCKS {
        let is_registered = block % 2 == 0;
        for ([kind, name], object) in ours.iter().zip(&saved) {
            cluster.admin().kubectl(&["delete", kind, name, "--ignore-not-found"])?.success()?;
            if is_registered {
                cluster.admin().kubectl_with(&["create", "-f", "-"], object.to_string())?.success()?;
            }
        }
        tokio::time::sleep(IN_EFFECT).await;
        for turn in 1..=WARM_UP + 2 * writes / BLOCKS {
            let took = contents.write(api, BESIDE, turn).await?;
            // The API server compiles new rules at the first writes.
            if turn > WARM_UP {
                times[usize::from(!is_registered)].push(took);
            }
        }
    }
    let mut table =
        Table::new("an unguarded update beside a guarded one", &["registered", "p50 ms", "p99 ms"]);
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    for (times, name) in times.iter().zip(["yes", "no"]) {
        let cells = [0.5, 0.99].map(|share| format!("{:.2}", percentile(times, share)));
        table.row([name.to_owned()].into_iter().chain(cells).collect());
    }
    let ratio = percentile(&times[0], 0.5) / percentile(&times[1], 0.5);
    figures.with_target("unguarded-write-p50", ratio, 1.0, Better::Lower, UNIT);
    Ok(table)
}

fn has_entries(configuration: &Value) -> bool {
    configuration["webhooks"].as_array().is_some_and(|entries| !entries.is_empty())
}

/// How many reviews `serve` has answered.
fn calls(health: u16) -> anyhow::Result<f64> {
    let metrics = crate::health::get(health, "/metrics")?;
    let of_reviews = metrics.lines().filter(|line| line.starts_with("driftguard_admission_reviews_total"));
    Ok(of_reviews.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
