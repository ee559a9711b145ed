//! What is guarded in the model: nine objects of four kinds in two namespaces, few enough of each that drift of all
//! of them is no incident. Each has four contents that a guard may approve, known by number.

use anyhow::{Context as _, Result, ensure};
use driftguard_control_plane::until;
use serde_json::{Value, json};

use super::oracle::Watched;
use super::rule::Rule;
use crate::fleet::{Fleet, condition};
use crate::installation::{LIMIT, config_map, deployment, gama_config};

/// How many contents of an object are known by number.
pub(crate) const VARIANTS: usize = 4;
/// Where the objects are.
pub(crate) const NAMESPACES: [&str; 2] = ["model-a", "model-b"];

/// What kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
    GamaConfig,
    Deployment,
}

/// A guarded object, and what its guard asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    enforcement: &'static str,
    /// Whether drift is put back, and whether there is a source beside what was seen live.
    pub(crate) restored: bool,
    pub(crate) sourced: bool,
    /// Further fields of the guard, as JSON.
    more: &'static str,
}

const fn spot(namespace: &'static str, name: &'static str, kind: Kind, enforcement: &'static str) -> Spot {
    Spot { namespace, name, kind, enforcement, restored: false, sourced: false, more: "{}" }
}

const fn restored(spot: Spot) -> Spot {
    Spot { restored: true, sourced: matches!(spot.kind, Kind::ConfigMap | Kind::Secret), ..spot }
}

pub(crate) const SPOTS: [Spot; 9] = [
    restored(spot("model-a", "plain", Kind::ConfigMap, "Deny")),
    spot("model-a", "rewritten", Kind::ConfigMap, "Rewrite"),
    restored(spot("model-a", "keys", Kind::Secret, "Deny")),
    restored(spot("model-a", "model", Kind::GamaConfig, "Deny")),
    Spot {
        more: r#"{"ignorePaths":["/spec/replicas"]}"#,
        ..spot("model-b", "web", Kind::Deployment, "Rewrite")
    },
    Spot {
        more: r#"{"onlyPaths":["/spec/template/spec/containers/[name=app]/image"]}"#,
        ..restored(spot("model-b", "image", Kind::Deployment, "Deny"))
    },
    spot("model-b", "seen", Kind::ConfigMap, "Warn"),
    Spot { more: r#"{"deletionPolicy":"Deny"}"#, ..spot("model-b", "kept", Kind::ConfigMap, "Deny") },
    restored(spot("model-b", "both", Kind::ConfigMap, "Rewrite")),
];

impl Spot {
    /// The whole object with one of its contents; of others than the known ones with one key more.
    pub(crate) fn manifest(&self, variant: usize) -> Value {
        let text = variant.to_string();
        let mut object = match self.kind {
            Kind::ConfigMap => {
                config_map(self.namespace, self.name, &json!({"level": text, "note": "as approved"}))
            }
            Kind::Secret => json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": self.name, "namespace": self.namespace},
                "data": {"level": encoded(variant)},
            }),
            Kind::GamaConfig => gama_config(self.namespace, self.name, &json!({"level": text, "ratio": 1.5})),
            Kind::Deployment => deployment(self.namespace, self.name),
        };
        if self.kind == Kind::Deployment {
            object["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image(variant));
        }
        if variant >= VARIANTS {
            match self.kind {
                Kind::ConfigMap => object["binaryData"] = json!({"more": "AAE="}),
                Kind::Secret => object["data"]["more"] = json!("AAE="),
                Kind::GamaConfig => object["spec"]["parameters"]["more"] = json!({"deep": [1, 2]}),
                Kind::Deployment => object["spec"]["template"]["spec"]["hostNetwork"] = json!(true),
            }
        }
        object
    }

    /// A merge patch (a strategic one as well) to one of its contents.
    pub(crate) fn patch(&self, variant: usize) -> Value {
        match self.kind {
            Kind::ConfigMap => json!({"data": {"level": variant.to_string()}}),
            Kind::Secret => json!({"data": {"level": encoded(variant)}}),
            Kind::GamaConfig => json!({"spec": {"parameters": {"level": variant.to_string()}}}),
            Kind::Deployment => {
                json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": image(variant)}]}}}})
            }
        }
    }

    /// A JSON patch to one of its contents.
    pub(crate) fn json_patch(&self, variant: usize) -> Value {
        let (path, value) = match self.kind {
            Kind::ConfigMap => ("/data/level", variant.to_string()),
            Kind::Secret => ("/data/level", encoded(variant)),
            Kind::GamaConfig => ("/spec/parameters/level", variant.to_string()),
            Kind::Deployment => ("/spec/template/spec/containers/0/image", image(variant)),
        };
        json!([{"op": "replace", "path": path, "value": value}])
    }

    /// `/api/v1/namespaces/NAMESPACE/PLURAL`, where its kind is served.
    pub(crate) fn collection(&self) -> String {
        let (group, plural) = match self.kind {
            Kind::ConfigMap => ("/api/v1", "configmaps"),
            Kind::Secret => ("/api/v1", "secrets"),
            Kind::GamaConfig => ("/apis/terrafusion.ai/v1", "gamaconfigs"),
            Kind::Deployment => ("/apis/apps/v1", "deployments"),
        };
        format!("{group}/namespaces/{}/{plural}", self.namespace)
    }

    /// Where it is served.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.collection(), self.name)
    }

    /// As kubectl names it.
    pub(crate) fn object(&self) -> String {
        format!("{:?}/{}", self.kind, self.name).to_lowercase()
    }

    /// Where its guard is served; it has the object's name.
    pub(crate) fn guard_path(&self) -> String {
        format!("/apis/terrafusion.ai/v1/namespaces/{}/driftguards/{}", self.namespace, self.name)
    }

    /// Its keys in etcd.
    pub(crate) fn watched(&self) -> Watched {
        let plural = match self.kind {
            Kind::ConfigMap => "configmaps",
            Kind::Secret => "secrets",
            Kind::GamaConfig => "terrafusion.ai/gamaconfigs",
            Kind::Deployment => "deployments",
        };
        Watched {
            object: format!("/registry/{plural}/{}/{}", self.namespace, self.name),
            namespace: self.namespace.to_owned(),
            guard: self.name.to_owned(),
            is_secret: self.kind == Kind::Secret,
        }
    }

    /// What a guard says to approve this content.
    pub(crate) fn approval(&self, hash: &str, variant: usize) -> Value {
        let mut spec = json!({"expectedHash": hash});
        if self.sourced {
            let kind = if self.kind == Kind::Secret { "secret" } else { "configmap" };
            spec["sourceOfTruthRef"] = json!({"kind": kind, "name": source(self.name, variant)});
        }
        spec
    }

    /// Its guard, which approves this content.
    pub(crate) fn guard(&self, hash: &str, variant: usize) -> Result<Value> {
        let mut spec = self.approval(hash, variant);
        let more: Value = serde_json::from_str(self.more)?;
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        spec["targetKind"] = json!(format!("{:?}", self.kind));
        spec["targetName"] = json!(self.name);
        spec["enforcement"] = json!(self.enforcement);
        spec["autoRemediate"] = json!(self.restored);
        Ok(json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard",
            "metadata": {"name": self.name, "namespace": self.namespace}, "spec": spec,
        }))
    }
}

fn encoded(variant: usize) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(format!("planted-{variant}"))
}

fn image(variant: usize) -> String {
    format!("registry.example/app:{variant}")
}

fn source(name: &str, variant: usize) -> String {
    format!("{name}-approved-{variant}")
}

/// The hash of each content of each object, as it is stored.
pub(crate) type Hashes = Vec<[String; VARIANTS]>;

/// Makes every object in every content, ends with content 0, and guards it.
pub(crate) fn make(fleet: &Fleet) -> Result<Hashes> {
    for namespace in NAMESPACES {
        fleet.namespace(namespace)?;
    }
    fleet.apply(&rights())?;
    fleet.apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "model"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "model"},
        "subjects": [{"kind": "ServiceAccount", "name": "driftguard-operator", "namespace": "terrafusion-system"}],
    }))?;
    let mut hashes: Hashes = vec![Default::default(); SPOTS.len()];
    for variant in (0..VARIANTS).rev() {
        let mut objects: Vec<Value> = SPOTS.iter().map(|spot| spot.manifest(variant)).collect();
        for spot in SPOTS.iter().filter(|spot| spot.sourced) {
            let mut content = spot.manifest(variant);
            content["metadata"]["name"] = json!(source(spot.name, variant));
            objects.push(content);
        }
        fleet.apply(&list(&objects))?;
        for (spot, hashes) in SPOTS.iter().zip(&mut hashes) {
            let key = spot.watched().object;
            let stored = fleet.plane.etcd().get(&key)?.with_context(|| format!("nothing at {key}"))?;
            hashes[variant] = Rule::of(&spot.guard("", variant)?)?.hash(&stored)?;
        }
    }
    let guards = SPOTS.iter().zip(&hashes).map(|(spot, hashes)| spot.guard(&hashes[0], 0));
    fleet.apply(&list(&guards.collect::<Result<Vec<_>>>()?))?;
    settled(fleet)?;
    Ok(hashes)
}

fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Rights to put back every kind, and to read the sources.
fn rights() -> Value {
    let all = json!(["get", "list", "watch", "create", "update", "patch", "delete"]);
    let rule =
        |group: &str, resources: Value| json!({"apiGroups": [group], "resources": resources, "verbs": all});
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "model"},
        "rules": [
            rule("", json!(["configmaps", "secrets"])),
            rule("apps", json!(["deployments"])),
            rule("terrafusion.ai", json!(["gamaconfigs"])),
        ],
    })
}

/// Waits until every guard is enforced in its newest version, or does not block.
pub(crate) fn settled(fleet: &Fleet) -> Result<()> {
    until("every guard is enforced", LIMIT * 2, || {
        let found = fleet.admin.kubectl(&["get", "dg", "-A", "-o", "json"])?.json()?;
        let guards = found["items"].as_array().context("no list")?;
        ensure!(guards.len() == SPOTS.len(), "{} guards", guards.len());
        for guard in guards {
            let name = &guard["metadata"]["name"];
            let said = condition(guard, "Enforcing").with_context(|| format!("{name} says nothing"))?;
            let current = said["observedGeneration"] == guard["metadata"]["generation"];
            ensure!(
                current && (said["status"] == "True" || said["reason"] == "DetectOnly"),
                "{name}: {said}"
            );
        }
        Ok(())
    })
    .map_err(|error| fleet.with_logs(&error))
}
