//! `hash`, `guard` and `version` against a real API server.

use std::sync::OnceLock;
use std::time::Duration;

use driftguard_control_plane::{ControlPlane, User, Version, until};
use serde_json::{Value, json};

use crate::run::{Ran, command, run_with};

/// The shared control plane with the product's CRDs on it.
pub(crate) struct Cluster {
    pub(crate) plane: &'static ControlPlane,
    pub(crate) admin: User,
}

pub(crate) fn cluster() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| {
        let plane = ControlPlane::shared(Version::Newest);
        let admin = plane.admin().unwrap();
        let crds = crate::run::run(&["manifests", "crds"]).success();
        admin.kubectl_with(&["apply", "--server-side", "-f", "-"], crds).unwrap().success().unwrap();
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"];
        admin.kubectl(&wait).unwrap().success().unwrap();
        // That a kind is established is told before it is served.
        let kinds =
            "driftguards.terrafusion.ai,driftguardexceptions.terrafusion.ai,gamaconfigs.terrafusion.ai";
        until("the product's kinds are served", Duration::from_secs(60), || {
            admin.kubectl(&["get", kinds, "-A"])?.success()
        })
        .unwrap();
        Cluster { plane, admin }
    })
}

impl Cluster {
    /// A new namespace.
    pub(crate) fn namespace(&self, name: &str) -> &Self {
        self.kubectl(&["create", "namespace", name]);
        self
    }

    #[track_caller]
    fn kubectl(&self, args: &[&str]) -> String {
        self.admin.kubectl(args).unwrap().success().unwrap()
    }

    #[track_caller]
    pub(crate) fn apply(&self, manifest: &str) {
        self.admin.kubectl_with(&["apply", "-f", "-"], manifest).unwrap().success().unwrap();
    }

    /// Runs driftguard as the administrator.
    pub(crate) fn driftguard(&self, args: &[&str], input: &str) -> Ran {
        driftguard_as(&self.admin, args, input)
    }

    /// The hash at the start of the only line.
    #[track_caller]
    pub(crate) fn hash(&self, args: &[&str], input: &str) -> String {
        let text = self.driftguard(&[&["hash"], args].concat(), input).success();
        let (hash, rest) = text.split_once("  ").unwrap();
        assert_eq!(rest.lines().count(), 1, "{text}");
        hash.to_owned()
    }
}

fn driftguard_as(user: &User, args: &[&str], input: &str) -> Ran {
    let mut command = command(args);
    command.env("KUBECONFIG", user.kubeconfig());
    run_with(command, input)
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: app
        image: nginx
        resources: {requests: {cpu: 1000m}}
        volumeMounts: [{name: v, mountPath: /v}]
      volumes: [{name: v, configMap: {name: c, defaultMode: 0644}}]
";

#[test]
fn a_file_and_the_object_made_from_it_hash_alike() {
    let cluster = cluster().namespace("hash-alike");
    let files = "
apiVersion: v1
kind: ConfigMap
metadata: {name: one}
data: {b: \"on\", a: |\n  text\n}
binaryData: {z: /w==}
---
apiVersion: v1
kind: Secret
metadata: {name: two}
stringData: {p: geheim, empty: ''}
data: {q: eA==, raw: /w==}
---
apiVersion: terrafusion.ai/v1
kind: GAMAConfig
metadata: {name: three}
spec:
  parameters: {big: 9223372036854775807, float: 15.0, tiny: 1e-7, mode: 0644, yes: on, list: [{}, [], ~, 1.5e300, 0x1F]}
";
    let files = files.replace("a: |\n  text\n}", "a: \"text\\n\"}");
    let from_files = cluster.driftguard(&["hash", "-f", "-", "-n", "hash-alike"], &files);
    assert_eq!(from_files.stderr, "", "no note: these kinds get no defaults");
    let from_files = from_files.success();
    cluster
        .admin
        .kubectl_with(&["apply", "-n", "hash-alike", "-f", "-"], files.clone())
        .unwrap()
        .success()
        .unwrap();
    let live =
        |words: &[&str]| cluster.driftguard(&[&["hash", "-n", "hash-alike"], words].concat(), "").success();
    let all = live(&["configmap/one", "secret/two", "gamaconfig/three"]);
    assert_eq!(all, from_files);
    let by_server = cluster.driftguard(&["hash", "--server", "-f", "-", "-n", "hash-alike"], &files);
    assert_eq!(by_server, Ran { code: Some(0), stdout: from_files, stderr: String::new() });
}

#[test]
fn a_null_that_client_side_apply_leaves_out_is_announced() {
    let cluster = cluster().namespace("nulls");
    let file = "{apiVersion: terrafusion.ai/v1, kind: GAMAConfig, metadata: {name: nil}, spec: {parameters: {none: ~, x: 1}}}";
    let hash = ["hash", "-f", "-", "-n", "nulls"];
    let ran = cluster.driftguard(&hash, file);
    assert!(ran.stderr.contains("`kubectl apply` leaves out"), "{}", ran.stderr);
    cluster
        .admin
        .kubectl_with(&["apply", "--server-side", "-n", "nulls", "-f", "-"], file)
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(cluster.driftguard(&["hash", "gamaconfig/nil", "-n", "nulls"], "").success(), ran.success());
    cluster.kubectl(&["delete", "gamaconfig/nil", "-n", "nulls"]);
    cluster.admin.kubectl_with(&["apply", "-n", "nulls", "-f", "-"], file).unwrap().success().unwrap();
    let left_out = file.replace("none: ~, ", "");
    let ran = cluster.driftguard(&hash, &left_out);
    assert_eq!(ran.stderr, "");
    assert_eq!(cluster.driftguard(&["hash", "gamaconfig/nil", "-n", "nulls"], "").success(), ran.success());
}

#[test]
fn kinds_are_found_by_every_name_that_kubectl_knows() {
    let cluster = cluster().namespace("kind-names");
    cluster
        .apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: kind-names}, data: {x: z}}");
    let hash = cluster.hash(&["configmap", "a", "-n", "kind-names"], "");
    for words in
        [&["CONFIGMAP", "a"][..], &["configmaps", "a"], &["cm", "a"], &["cm/a"], &["ConfigMaps.v1.", "a"]]
    {
        assert_eq!(cluster.hash(&[words, &["-n", "kind-names"]].concat(), ""), hash, "{words:?}");
    }
    let told = cluster.driftguard(&["hash", "gizmo", "a"], "").failure();
    assert!(told.contains("serves no kind gizmo"), "{told}");
    let told = cluster.driftguard(&["hash", "cm", "missing", "-n", "kind-names"], "").failure();
    assert!(
        told.contains("reading ConfigMap/kind-names/missing: configmaps \"missing\" not found"),
        "{told}"
    );
}

#[test]
fn an_object_without_namespace_is_named_without_one() {
    let cluster = cluster();
    let text = cluster.driftguard(&["hash", "clusterrole", "system:node"], "").success();
    assert!(text.ends_with("  ClusterRole/system:node\n"), "{text}");
}

#[test]
fn a_dry_run_tells_the_hash_of_what_will_be_stored() {
    let cluster = cluster().namespace("dry-run");
    let server = ["--server", "-f", "-", "-n", "dry-run"];
    let own = cluster.hash(&["-f", "-", "-n", "dry-run"], DEPLOYMENT);
    let announced = cluster.hash(&server, DEPLOYMENT);
    assert_ne!(announced, own, "defaults are filled in");
    assert!(
        !cluster.admin.kubectl(&["get", "deploy/web", "-n", "dry-run"]).unwrap().succeeded(),
        "nothing is stored"
    );
    cluster
        .admin
        .kubectl_with(&["apply", "-n", "dry-run", "-f", "-"], DEPLOYMENT)
        .unwrap()
        .success()
        .unwrap();
    assert_eq!(cluster.hash(&["deploy", "web", "-n", "dry-run"], ""), announced);

    let changed = DEPLOYMENT.replace("replicas: 3", "replicas: 5").replace("1000m", "2");
    let announced = cluster.hash(&server, &changed);
    let before = cluster.kubectl(&[
        "get",
        "deploy/web",
        "-n",
        "dry-run",
        "-o",
        "jsonpath={.metadata.resourceVersion}",
    ]);
    cluster.hash(&server, &changed);
    let after = cluster.kubectl(&[
        "get",
        "deploy/web",
        "-n",
        "dry-run",
        "-o",
        "jsonpath={.metadata.resourceVersion}",
    ]);
    assert_eq!(before, after, "a dry run changes nothing");
    cluster.admin.kubectl_with(&["replace", "-n", "dry-run", "-f", "-"], changed).unwrap().success().unwrap();
    assert_eq!(cluster.hash(&["deploy", "web", "-n", "dry-run"], ""), announced);
}

#[test]
fn a_dry_run_of_a_dumped_object_works() {
    let cluster = cluster().namespace("dumped");
    cluster.admin.kubectl_with(&["apply", "-n", "dumped", "-f", "-"], DEPLOYMENT).unwrap().success().unwrap();
    let dump = cluster.kubectl(&["get", "deploy/web", "-n", "dumped", "-o", "yaml", "--show-managed-fields"]);
    cluster.kubectl(&["scale", "deploy/web", "-n", "dumped", "--replicas=4"]);
    let announced = cluster.hash(&["--server", "-f", "-"], &dump);
    cluster.kubectl(&["scale", "deploy/web", "-n", "dumped", "--replicas=3"]);
    assert_eq!(cluster.hash(&["deploy", "web", "-n", "dumped"], ""), announced);
}

#[test]
fn what_the_api_server_does_not_take_has_no_hash() {
    let cluster = cluster().namespace("not-taken");
    let server = ["hash", "--server", "-f", "-", "-n", "not-taken"];
    let told = cluster.driftguard(&server, &DEPLOYMENT.replace("replicas", "replcias")).failure();
    assert!(told.contains("unknown field \"spec.replcias\""), "{told}");
    let told = cluster.driftguard(&server, &DEPLOYMENT.replace("apps/v1", "apps/v7")).failure();
    assert!(
        told.contains("document 1, line 2") && told.contains("serves no kind Deployment in apps/v7"),
        "{told}"
    );
    let told = cluster
        .driftguard(&server, &DEPLOYMENT.replace("{app: web}}\n  template", "{app: x}}\n  template"))
        .failure();
    assert!(told.contains("does not take the file as it is") && told.contains("selector"), "{told}");
}

#[test]
fn values_that_come_only_with_a_real_write_are_announced() {
    let cluster = cluster().namespace("on-write");
    let service = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}";
    let ran = cluster.driftguard(&["hash", "--server", "-f", "-", "-n", "on-write"], service);
    assert!(ran.stderr.contains("gets its cluster IP only when it is really written"), "{}", ran.stderr);
    cluster.admin.kubectl_with(&["apply", "-n", "on-write", "-f", "-"], service).unwrap().success().unwrap();
    let ran = cluster.driftguard(&["hash", "--server", "-f", "-", "-n", "on-write"], service);
    assert_eq!(ran.stderr, "");
    let hash = ran.success().split(' ').next().unwrap().to_owned();
    assert_eq!(hash, cluster.hash(&["svc", "s", "-n", "on-write"], ""));
}

#[test]
fn the_table_of_kinds_without_namespace_is_what_the_server_says() {
    let cluster = cluster();
    let mut files = Vec::new();
    let mut wanted = Vec::new();
    for (flag, namespaced) in [("true", true), ("false", false)] {
        let list = cluster.kubectl(&[
            "api-resources",
            &format!("--namespaced={flag}"),
            "--no-headers",
            "-o",
            "wide",
        ]);
        for line in list.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let at = words.iter().position(|word| *word == flag).unwrap();
            let (api_version, kind) = (words[at - 1], words[at + 1]);
            files.push(
                json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}}).to_string(),
            );
            wanted.push(if namespaced { format!("{kind}/default/x") } else { format!("{kind}/x") });
        }
    }
    assert!(wanted.len() > 50, "{wanted:?}");
    let text = cluster
        .driftguard(&["hash", "-f", "-", "--kubeconfig", "/dev/null"], &files.join("\n---\n"))
        .success();
    let found: Vec<&str> = text.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(found, wanted);
}

#[test]
fn an_audit_does_not_believe_statuses_of_an_installation_that_nobody_leads() {
    let cluster = cluster().namespace("dead").namespace("terrafusion-system");
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: dead}, data: {x: z}}");
    cluster.apply(&cluster.driftguard(&["guard", "cm", "a", "-n", "dead"], "").success());
    let enforcing = json!({"status": {"observedGeneration": 1, "enforcement": "Deny", "conditions": [{
        "type": "Enforcing", "status": "True", "reason": "Proved", "message": "it is",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1,
    }]}});
    let patch = enforcing.to_string();
    cluster.kubectl(&[
        "patch",
        "dg/a-guard",
        "-n",
        "dead",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ]);
    let lease = |renewed: &str| {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "driftguard", "namespace": "terrafusion-system"},
            "spec": {"holderIdentity": "a-replica", "leaseDurationSeconds": 12, "renewTime": renewed},
        });
        cluster.apply(&lease.to_string());
        cluster.driftguard(&["audit", "-n", "dead"], "")
    };
    let told = lease("2026-01-01T00:00:00.000000Z");
    assert_eq!(told.code, Some(1), "{}", told.stdout);
    assert!(told.stdout.contains("NotEnforcing") && told.stdout.contains("no replica of DriftGuard leads"));
    let told = lease(&jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string());
    assert_eq!(told.code, Some(0), "{}", told.stdout);
    assert_eq!(told.stderr, "1 guard: 1 in sync\n");

    // Uninstalled, the Lease is gone and statuses stay. Who may not read Leases is told so.
    cluster.kubectl(&["delete", "lease", "driftguard", "-n", "terrafusion-system"]);
    let told = cluster.driftguard(&["audit", "-n", "dead"], "");
    assert_eq!(told.code, Some(1), "{}", told.stdout);
    assert!(told.stdout.contains("NotEnforcing"), "{}", told.stdout);
    let auditor = cluster.plane.user("auditor-of-dead", &[]).unwrap();
    let role = ["create", "role", "auditor", "-n", "dead", "--verb=get,list"];
    let of = "--resource=driftguards.terrafusion.ai,configmaps";
    cluster.kubectl(&[&role[..], &[of]].concat());
    cluster.kubectl(&[
        "create",
        "rolebinding",
        "auditor",
        "-n",
        "dead",
        "--role=auditor",
        "--user=auditor-of-dead",
    ]);
    until("the right is known", Duration::from_secs(60), || {
        let told = driftguard_as(&auditor, &["audit", "-n", "dead"], "");
        anyhow::ensure!(told.code == Some(0), "{}{}", told.stdout, told.stderr);
        anyhow::ensure!(
            told.stderr.starts_with("note: whether a replica of DriftGuard leads is not known"),
            "{}",
            told.stderr
        );
        Ok(())
    })
    .unwrap();
}

/// The commands of the reference by which hashes of the older operator are computed by hand.
fn recipes() -> Vec<String> {
    let page = include_str!("../../docs/reference/cli.md");
    let lines = page.lines().map(str::trim).filter(|line| line.contains("json.dumps"));
    lines.map(str::to_owned).collect()
}

#[test]
fn hashes_made_by_hand_as_the_older_operator_made_them_are_ours() {
    let cluster = cluster().namespace("by-hand");
    cluster.apply(
        "apiVersion: v1
kind: ConfigMap
metadata: {name: prices, namespace: by-hand}
data: {b: 'two\\n', a: \"\\u00e9 \\U0001f600 \\t\\x7f\", empty: ''}
---
apiVersion: v1
kind: Secret
metadata: {name: prices, namespace: by-hand}
stringData: {token: 'ünï', a: ''}
---
apiVersion: terrafusion.ai/v1
kind: GAMAConfig
metadata: {name: prices, namespace: by-hand}
spec: {parameters: {rate: 1.50, limit: 1e3, on: true, nested: {b: [1, null, x], a: -0.0}}}
",
    );
    let recipes = recipes();
    assert_eq!(recipes.len(), 3, "{recipes:?}");
    for recipe in recipes {
        let kind = recipe.split(' ').nth(2).unwrap();
        let typed = recipe.replace("NAME", "prices -n by-hand");
        let path =
            format!("{}:{}", cluster.plane.programs().display(), std::env::var("PATH").unwrap_or_default());
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &typed]).env("PATH", path).env("KUBECONFIG", cluster.admin.kubeconfig());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let by_hand = String::from_utf8(output.stdout).unwrap();
        assert_eq!(by_hand.trim(), cluster.hash(&[kind, "prices", "-n", "by-hand"], ""), "{recipe}");
    }
}

#[test]
fn the_kinds_that_are_certain_without_a_server_have_the_version_that_it_prefers() {
    let list = cluster().kubectl(&["api-resources", "--no-headers", "-o", "wide"]);
    let mut files = String::new();
    for line in list.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| matches!(*word, "true" | "false")).unwrap();
        let (api_version, kind) = (words[at - 1], words[at + 1]);
        if kind != "DriftGuard" {
            let spec =
                json!({"targetKind": kind, "targetName": "x", "onlyPaths": ["/spec/x"], "expectedHash": ""});
            let guard = json!({"apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard", "metadata": {"name": kind.to_lowercase()}, "spec": spec});
            let object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}, "spec": {"x": "y"}});
            files.push_str(&format!("---\n{guard}\n---\n{object}\n"));
        }
    }
    let ran = run_with(command(&["stamp", "-n", "default"]), &files);
    assert!(!ran.stderr.contains("and it stands there as"), "{}", ran.stderr);
    for certain in ["/deployment ", "/service ", "/ingress ", "/horizontalpodautoscaler "] {
        assert!(!ran.stderr.contains(certain), "{certain}: {}", ran.stderr);
    }
    let unsure = ran.success().matches("\"expectedHash\":\"\"").count();
    assert!(files.matches("\"expectedHash\":\"\"").count() - unsure > 40, "most kinds are certain");
}

#[test]
fn a_guard_can_be_applied_as_it_is_printed() {
    let cluster = cluster().namespace("guards");
    cluster.apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: guards}, data: {x: z}}");
    let manifest = cluster
        .driftguard(&["guard", "cm", "a", "-n", "guards", "--runbook", "https://x/y: z"], "")
        .success();
    cluster.apply(&manifest);
    let guard: Value =
        cluster.admin.kubectl(&["get", "dg/a-guard", "-n", "guards", "-o", "json"]).unwrap().json().unwrap();
    assert_eq!(guard["spec"]["targetKind"], "ConfigMap");
    assert_eq!(guard["spec"]["expectedHash"], cluster.hash(&["cm", "a", "-n", "guards"], ""));
    assert_eq!(guard["metadata"]["annotations"]["driftguard.terrafusion.ai/runbook"], "https://x/y: z");

    // A cluster-scoped object, with a name that no guard may have.
    let manifest = cluster.driftguard(&["guard", "clusterrole", "system:node", "-n", "guards"], "").success();
    cluster.apply(&manifest);
    let guard: Value = cluster
        .admin
        .kubectl(&["get", "dg/system-node-guard", "-n", "guards", "-o", "json"])
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(guard["spec"]["targetName"], "system:node");
    assert!(guard["spec"].get("targetNamespace").is_none());
}

#[test]
fn guards_of_several_objects_leave_out_what_controllers_make_and_name_who_else_writes() {
    let cluster = cluster().namespace("several");
    let maps = "apiVersion: v1
kind: ConfigMap
metadata: {name: one, namespace: several, labels: {app: shop}}
data: {a: '1'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: other, namespace: several}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: made
  namespace: several
  labels: {app: shop}
  ownerReferences: [{apiVersion: x.io/v1, kind: Maker, name: m, uid: 0, controller: true}]
";
    cluster.apply(&maps.replace("uid: 0", "uid: 00000000-0000-0000-0000-000000000001"));
    // As the cluster puts its certificates into every namespace.
    let own = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: own, namespace: several, labels: {app: shop}}\ndata: {ca.crt: x}\n";
    let publisher = ["apply", "--server-side", "--field-manager=kube-controller-manager", "-f", "-"];
    cluster.admin.kubectl_with(&publisher, own).unwrap().success().unwrap();
    let ran = cluster.driftguard(&["guard", "configmap", "-l", "app=shop", "-n", "several"], "");
    assert_eq!(
        ran.stderr,
        "note: ConfigMap/several/made is passed over: Maker/m makes it\nnote: ConfigMap/several/own is passed over: kube-controller-manager alone writes it; name the object to guard it all the same\n"
    );
    let guards = ran.success();
    assert_eq!(guards.matches("targetName: ").count(), 1, "{guards}");
    assert!(guards.contains("targetName: one\n"), "{guards}");
    let none = cluster.driftguard(&["guard", "configmap", "-l", "app=none", "-n", "several"], "").failure();
    assert!(none.contains("kubectl get configmap --show-labels"), "{none}");

    cluster
        .admin
        .kubectl_with(&["apply", "-n", "several", "-f", "-"], DEPLOYMENT)
        .unwrap()
        .success()
        .unwrap();
    let scaled = [
        "patch",
        "deploy/web",
        "-n",
        "several",
        "--subresource=scale",
        "--field-manager=autoscaler",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":5}}"#,
    ];
    cluster.kubectl(&scaled);
    let ran = cluster.driftguard(&["guard", "deploy", "--all", "-n", "several"], "");
    assert!(ran.stderr.contains("autoscaler writes fields of Deployment/several/web too"), "{}", ran.stderr);
    assert!(ran.stderr.contains("--ignore-path '/spec/replicas'"), "{}", ran.stderr);

    // The same hash comes of the file, when the API server is asked for the defaults.
    let guard = "apiVersion: terrafusion.ai/v1\nkind: DriftGuard\nmetadata: {name: g}\nspec: {targetKind: Deployment, targetName: web, expectedHash: ''}\n---\n";
    let input = format!("{guard}{}", DEPLOYMENT.trim_start());
    let stamped = cluster.driftguard(&["stamp", "--server", "-n", "several"], &input).success();
    let want = cluster.hash(&["--server", "-f", "-", "-n", "several"], DEPLOYMENT);
    assert_eq!(stamped, input.replace("''", &format!("\"{want}\"")));
    let only = input.replace("targetKind", "onlyPaths: [/spec/template/spec/containers], targetKind");
    let stamped = cluster.driftguard(&["stamp", "--server", "-n", "several"], &only).success();
    let pinned = ["--server", "--only-path=/spec/template/spec/containers", "-f", "-", "-n", "several"];
    let want = cluster.hash(&pinned, DEPLOYMENT);
    assert_eq!(stamped, only.replace("''", &format!("\"{want}\"")), "with what the API server adds");
}

#[test]
fn a_guard_of_a_workload_file_pins_what_will_be_stored() {
    let cluster = cluster().namespace("guard-file");
    let manifest = cluster.driftguard(&["guard", "-f", "-", "-n", "guard-file"], DEPLOYMENT).success();
    cluster
        .admin
        .kubectl_with(&["apply", "-n", "guard-file", "-f", "-"], DEPLOYMENT)
        .unwrap()
        .success()
        .unwrap();
    let live = cluster.hash(&["deploy", "web", "-n", "guard-file"], "");
    assert!(manifest.contains(&format!("expectedHash: {live}")), "{manifest}");
    assert!(!manifest.contains("targetApiVersion"), "Deployment alone says enough: {manifest}");
}

#[test]
fn a_version_that_is_not_the_preferred_one_is_written_down() {
    let cluster = cluster().namespace("versions");
    let scaler = "
apiVersion: autoscaling/v1
kind: HorizontalPodAutoscaler
metadata: {name: h}
spec: {maxReplicas: 3, targetCPUUtilizationPercentage: 50, scaleTargetRef: {kind: Deployment, name: web, apiVersion: apps/v1}}
";
    let manifest = cluster.driftguard(&["guard", "-f", "-", "-n", "versions"], scaler).success();
    assert!(manifest.contains("targetApiVersion: autoscaling/v1"), "{manifest}");
    cluster.admin.kubectl_with(&["apply", "-n", "versions", "-f", "-"], scaler).unwrap().success().unwrap();
    let by_version =
        cluster.driftguard(&["guard", "hpa.v1.autoscaling", "h", "-n", "versions"], "").success();
    assert_eq!(by_version, manifest);
    let preferred = cluster.driftguard(&["guard", "hpa", "h", "-n", "versions"], "").success();
    assert!(!preferred.contains("targetApiVersion"), "{preferred}");
    assert_ne!(preferred, manifest, "each version has a spec of its own");
}

#[test]
fn a_missing_right_is_told_with_the_next_step() {
    let cluster = cluster();
    let eve = cluster.plane.user("eve", &[]).unwrap();
    let told = driftguard_as(&eve, &["hash", "secret", "a", "-n", "default"], "").failure();
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(
        told.contains("User \"eve\" cannot get resource \"secrets\"") && told.contains("--as or --context"),
        "{told}"
    );
    let wrong = driftguard_as(&cluster.admin, &["hash", "secret", "a", "--token", "nobodys"], "").failure();
    assert!(wrong.contains("does not accept these credentials"), "{wrong}");
    let as_eve = driftguard_as(&cluster.admin, &["hash", "secret", "a", "--as", "eve"], "").failure();
    assert!(as_eve.contains("User \"eve\" cannot get"), "{as_eve}");
}

#[test]
fn the_address_and_the_authority_can_be_given_by_flags() {
    let cluster = cluster();
    let address = cluster.plane.api_server().address();
    let config = "--kubeconfig=/dev/null";
    let told = cluster.driftguard(&["version", config, "-s", address], "");
    assert!(told.stderr.contains("signed by an unknown authority"), "{}", told.stderr);
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), cluster.plane.authority()).unwrap();
    let by_flags = cluster.driftguard(
        &["version", config, "--server", address, "--certificate-authority", ca.path().to_str().unwrap()],
        "",
    );
    assert!(by_flags.success().contains("Server Version: v1."));
    let unchecked = cluster.driftguard(&["version", config, "-s", address, "--insecure-skip-tls-verify"], "");
    assert!(unchecked.success().contains("Server Version: v1."));
}
