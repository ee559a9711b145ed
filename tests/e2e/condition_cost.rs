//! What the match conditions cost a write: the table of `docs/design/registration-and-proof.md`. No test of
//! behaviour but for what it checks on its way: that the conditions were evaluated, and told right.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use driftguard::core::registration::Touch;
use driftguard_control_plane::{ControlPlane, User, Version, until};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Map, Value, json};

use crate::installation::{LIMIT, config_map, deployment};

/// Where the conditions apply, and where nothing does.
const NAMESPACES: [&str; 2] = ["with", "without"];
const NAME: &str = "object";
const GROUP: &str = "cost.example.com";
/// Writes to each object before those that are measured.
const WARM: usize = 2;
/// Writes to each object; another number by this variable.
const WRITES: usize = 60;
const WRITES_VARIABLE: &str = "DRIFTGUARD_COST_WRITES";

/// What is written, in a namespace.
struct Case {
    what: &'static str,
    kind: (&'static str, &'static str, &'static str),
    content: fn(&str) -> Value,
    /// Changes what the conditions look at.
    change: &'static str,
}

const CONFIG_MAP: (&str, &str, &str) = ("", "v1", "ConfigMap");
const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");
const CUSTOM: (&str, &str, &str) = (GROUP, "v1", "Cost");
const DATA: &str = r#"{"data":{"key-00000":"other"}}"#;
const SPEC: &str = r#"{"spec":{"key-00000":"other"}}"#;
const REPLICAS: &str = r#"{"spec":{"replicas":2}}"#;

const CASES: [Case; 9] = [
    Case {
        what: "ConfigMap, 2 KiB in 20 keys",
        kind: CONFIG_MAP,
        content: |ns| config_map(ns, NAME, &keys(20, 100)),
        change: DATA,
    },
    Case {
        what: "ConfigMap, 200 KiB in 2,000 keys",
        kind: CONFIG_MAP,
        content: |ns| config_map(ns, NAME, &keys(2_000, 100)),
        change: DATA,
    },
    Case {
        what: "ConfigMap, 1 MiB in 20,000 keys",
        kind: CONFIG_MAP,
        content: |ns| config_map(ns, NAME, &keys(20_000, 50)),
        change: DATA,
    },
    Case {
        what: "ConfigMap, 1 MiB in one value",
        kind: CONFIG_MAP,
        content: |ns| config_map(ns, NAME, &keys(1, 1_000_000)),
        change: DATA,
    },
    Case {
        what: "Deployment, 200 KiB in 500 variables",
        kind: DEPLOYMENT,
        content: |ns| with_variables(ns, 500, 400),
        change: REPLICAS,
    },
    Case {
        what: "Deployment, 1 MiB in 2,000 variables",
        kind: DEPLOYMENT,
        content: |ns| with_variables(ns, 2_000, 500),
        change: REPLICAS,
    },
    Case {
        what: "custom resource, 2 KiB in 20 keys",
        kind: CUSTOM,
        content: |ns| custom(ns, &keys(20, 100)),
        change: SPEC,
    },
    Case {
        what: "custom resource, 1 MiB in 20,000 keys",
        kind: CUSTOM,
        content: |ns| custom(ns, &keys(20_000, 50)),
        change: SPEC,
    },
    Case {
        what: "custom resource, a list of 450,000 items",
        kind: CUSTOM,
        content: |ns| custom(ns, &json!({"list": vec![1; 450_000]})),
        change: SPEC,
    },
];

/// So many keys, each with its value in so many bytes.
fn keys(count: usize, bytes: usize) -> Value {
    let key = |number: usize| format!("key-{number:05}");
    let value = "x".repeat(bytes.saturating_sub(key(0).len()));
    let keys = (0..count).map(|number| (key(number), json!(value)));
    Value::Object(keys.collect::<Map<_, _>>())
}

fn with_variables(namespace: &str, count: usize, bytes: usize) -> Value {
    let variable = |number| json!({"name": format!("KEY_{number:05}"), "value": "x".repeat(bytes)});
    let mut object = deployment(namespace, NAME);
    object["spec"]["template"]["spec"]["containers"][0]["env"] = (0..count).map(variable).collect();
    object
}

fn custom(namespace: &str, spec: &Value) -> Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Cost",
        "metadata": {"name": NAME, "namespace": namespace}, "spec": spec})
}

fn definition() -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("costs.{GROUP}")},
        "spec": {"group": GROUP, "scope": "Namespaced",
            "names": {"kind": "Cost", "plural": "costs", "singular": "cost", "listKind": "CostList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": any}}}}]},
    })
}

/// Both conditions, in front of a webhook that nobody answers: whatever passes was let pass by them.
fn conditions() -> Value {
    let names = "'/with:object/with:other/'.contains('/' + request.namespace + ':' + \
                 (object == null ? oldObject : object).metadata.?name.orValue('') + '/')";
    let hook = |group: &str, resource: &str, touch: Touch| {
        json!({
            "name": format!("{resource}.{GROUP}"), "failurePolicy": "Fail", "sideEffects": "None",
            "admissionReviewVersions": ["v1"], "timeoutSeconds": 1,
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACES[0]}},
            "rules": [{"apiGroups": [group], "apiVersions": ["v1"], "resources": [resource],
                "operations": ["UPDATE"]}],
            "matchConditions": [
                {"name": "guarded", "expression": names},
                {"name": touch.name(), "expression": touch.cel()},
            ],
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "cost"},
        "webhooks": [
            hook("", "configmaps", Touch::Data),
            hook("apps", "deployments", Touch::Spec),
            hook(GROUP, "costs", Touch::Spec),
        ],
    })
}

fn apply(admin: &User, object: &Value) -> Result<()> {
    admin.kubectl_with(&["apply", "-f", "-"], object.to_string())?.success().map(drop)
}

/// The objects of a case, with the conditions and without.
struct Objects([Api<DynamicObject>; 2]);

impl Objects {
    async fn make(client: &kube::Client, case: &Case) -> Result<Self> {
        let (group, version, kind) = case.kind;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let apis = NAMESPACES.map(|ns| Api::namespaced_with(client.clone(), ns, &resource));
        for (api, ns) in apis.iter().zip(NAMESPACES) {
            let object: DynamicObject = serde_json::from_value((case.content)(ns))?;
            api.create(&PostParams::default(), &object).await.with_context(|| case.what.to_owned())?;
        }
        Ok(Self(apis))
    }

    /// Times of labels in turns, which touch nothing that the conditions look at.
    async fn label(&self, writes: usize) -> Result<[Vec<Duration>; 2]> {
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..writes + WARM {
            let label = Patch::Merge(json!({"metadata": {"labels": {"round": round.to_string()}}}));
            for (api, times) in self.0.iter().zip(&mut times) {
                let began = Instant::now();
                api.patch_metadata(NAME, &PatchParams::default(), &label).await?;
                if round >= WARM {
                    times.push(began.elapsed());
                }
            }
        }
        Ok(times)
    }

    /// Checks that a change of what is pinned is sent to the webhook, which is not there.
    async fn change(&self, case: &Case) -> Result<()> {
        let change: Value = serde_json::from_str(case.change)?;
        let write = |api: &Api<DynamicObject>| {
            let (api, change) = (api.clone(), Patch::Merge(change.clone()));
            async move { api.patch_metadata(NAME, &PatchParams::default(), &change).await }
        };
        let called = write(&self.0[0]).await.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(called.contains("failed calling webhook"), "{}: not called: {called:?}", case.what);
        write(&self.0[1]).await?;
        Ok(())
    }

    async fn delete(&self) -> Result<()> {
        for api in &self.0 {
            api.delete(NAME, &kube::api::DeleteParams::default()).await?;
        }
        Ok(())
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The columns of a version: the medians without and with, and how many times as long.
async fn measure(client: &kube::Client, case: &Case, writes: usize) -> Result<String> {
    let objects = Objects::make(client, case).await?;
    let [mut with, mut without] = objects.label(writes).await?;
    objects.change(case).await?;
    objects.delete().await?;
    let [with, without] = [median(&mut with), median(&mut without)].map(|time| time.as_secs_f64() * 1e3);
    Ok(format!("{without:.1} ms | {with:.1} ms | x{:.2}", with / without))
}

#[test]
#[ignore = "measures, for some minutes; run it alone"]
fn what_the_conditions_cost_a_write() -> Result<()> {
    let writes = std::env::var(WRITES_VARIABLE).ok().map_or(Ok(WRITES), |text| text.parse())?;
    for version in [Version::Newest, Version::Older] {
        // Every write of a large object stays in etcd.
        let plane = ControlPlane::builder()
            .kubernetes(version)
            .etcd_flag(format!("--quota-backend-bytes={}", 8_u64 << 30))
            .start()?;
        let admin = plane.admin()?;
        for ns in NAMESPACES {
            admin.kubectl(&["create", "namespace", ns])?.success()?;
        }
        apply(&admin, &definition())?;
        admin.kubectl(&["wait", "--for=condition=Established", &format!("crd/costs.{GROUP}")])?.success()?;
        until("the kind is served", LIMIT, || apply(&admin, &custom("default", &json!({}))))?;
        apply(&admin, &conditions())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = admin.client()?;
        println!("\nMedians of {writes} labels each on {}\n", version.minor());
        println!("| object | without | with | |\n| --- | --- | --- | --- |");
        for case in &CASES {
            let columns = runtime.block_on(measure(&client, case, writes))?;
            println!("| {} | {columns} |", case.what);
        }
    }
    Ok(())
}
