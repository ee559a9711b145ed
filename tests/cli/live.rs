//! The shared API server of these tests, and `hash` on it.

use std::sync::OnceLock;
use std::time::Duration;

use driftguard_control_plane::{ControlPlane, User, Version, until};
use serde_json::json;

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
    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
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

pub(crate) fn driftguard_as(user: &User, args: &[&str], input: &str) -> Ran {
    let mut command = command(args);
    command.env("KUBECONFIG", user.kubeconfig());
    run_with(command, input)
}

pub(crate) const DEPLOYMENT: &str = "
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
