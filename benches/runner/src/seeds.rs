//! Guards and what they guard, as an API server stores them: many of them would take long through it, and so they
//! are put straight into etcd. Nobody is known to have approved such guards; every target is as approved.

use std::collections::BTreeMap;

use driftguard::core::canonical::hash_object;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::content::{self, Shape};
use crate::size::Size;

/// About how many names fit into the rules of one configuration.
const NAMED: usize = 20_000;
/// How many are put at once.
const BATCH: usize = 1_000;

/// A kind that can be guarded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    group: &'static str,
    api_version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Plural name.
    pub resource: &'static str,
    /// Below what its objects are stored.
    stored: &'static str,
}

/// A kind of the API server.
pub(crate) const CONFIG_MAP: Kind = Kind {
    group: "",
    api_version: "v1",
    kind: "ConfigMap",
    resource: "configmaps",
    stored: "/registry/configmaps",
};
/// A kind with a definition.
pub(crate) const GAMA_CONFIG: Kind = Kind {
    group: "terrafusion.ai",
    api_version: "terrafusion.ai/v1",
    kind: "GAMAConfig",
    resource: "gamaconfigs",
    stored: "/registry/terrafusion.ai/gamaconfigs",
};

impl Kind {
    /// What objects hold: some 2 KiB, the same in all.
    fn content(self) -> Value {
        let files: BTreeMap<String, String> =
            content::files(&Shape::MIX, Size::ALL[0].bytes()).into_iter().collect();
        if self.group.is_empty() { json!({"data": files}) } else { json!({"spec": {"parameters": files}}) }
    }
}

/// What guards say of themselves when they are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// Nothing yet: `serve` is to say it.
    Nothing,
    /// What `serve` says of a guard that is enforced and in sync.
    AllIsWell,
}

/// Puts `count` objects of a kind and their guards, so many in each namespace.
pub(crate) fn plant(
    cluster: &Cluster,
    kind: Kind,
    count: usize,
    in_one: usize,
    said: Said,
) -> anyhow::Result<()> {
    let content = kind.content();
    let scope = Scope::new(kind.group, kind.kind, PathFilter::everything());
    let hash = hash_object(&serde_json::to_vec(&content)?, &scope)?.to_string();
    let widened = count > NAMED;
    let numbers: Vec<usize> = (0..count).collect();
    let namespaces: Vec<_> = (0..count.div_ceil(in_one)).map(namespace).collect();
    cluster.seed(&namespaces)?;
    for batch in numbers.chunks(BATCH) {
        let pairs =
            batch.iter().flat_map(|&number| pair(kind, &content, &hash, number, in_one, said, widened));
        cluster.seed(&pairs.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// A namespace, without which no dry run of an object in it reaches a webhook.
fn namespace(number: usize) -> (String, Vec<u8>) {
    let name = format!("team-{number:03}");
    let stored = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {
            "name": name, "uid": uuid_of("namespace", "namespaces", number),
            "creationTimestamp": "2026-01-05T09:30:00Z", "labels": {"kubernetes.io/metadata.name": name},
        },
        "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"},
    });
    (format!("/registry/namespaces/{name}"), stored.to_string().into_bytes())
}

/// One object and its guard, with their keys.
fn pair(
    kind: Kind,
    content: &Value,
    hash: &str,
    number: usize,
    in_one: usize,
    said: Said,
    widened: bool,
) -> [(String, Vec<u8>); 2] {
    let namespace = format!("team-{:03}", number / in_one);
    let name = format!("{}-{number:06}", kind.resource);
    let metadata = |of: &str| {
        json!({
            "name": name, "namespace": namespace, "generation": 1,
            "uid": uuid_of(of, kind.resource, number), "creationTimestamp": "2026-01-05T09:30:00Z",
        })
    };
    let mut target = content.clone();
    target["apiVersion"] = json!(kind.api_version);
    target["kind"] = json!(kind.kind);
    target["metadata"] = metadata("target");
    let mut guard = json!({
        "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuard", "metadata": metadata("guard"),
        "spec": {
            "targetKind": kind.kind, "targetName": name, "autoRemediate": false, "deletionPolicy": "Allow",
            "maxFailuresBeforeAlert": 3, "expectedHash": hash,
        },
    });
    if said == Said::AllIsWell {
        guard["status"] = all_is_well(kind.kind, &namespace, &name, hash, widened);
    }
    [
        (format!("{}/{namespace}/{name}", kind.stored), target.to_string().into_bytes()),
        (format!("/registry/terrafusion.ai/driftguards/{namespace}/{name}"), guard.to_string().into_bytes()),
    ]
}

/// A status as `serve` writes it, to the letter, so that it finds nothing to write: of a guard of this target.
fn all_is_well(kind: &str, namespace: &str, name: &str, hash: &str, widened: bool) -> Value {
    let target = format!("{kind}/{namespace}/{name}");
    let condition = |of_type: &str, status: &str, reason: &str, message: String| {
        json!({
            "type": of_type, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-05T09:31:00Z", "observedGeneration": 1,
        })
    };
    let unsigned = format!(
        "enforced as it stands, but nothing is fetched or written for it: no valid signature says who approved it (made \
         while the admission server did not answer, restored from elsewhere, or the key was lost); look at it, then \
         `driftguard adopt -n {namespace} {name}`"
    );
    // So many names do not fit into one configuration: which namespaces keep theirs, `serve` decides, and says.
    let (reason, enforcing) = if widened {
        (
            "RegistrationWidened",
            "enforced, by rules that match every object of this kind in namespaces with guarded ones: there are too \
             many guarded names for one configuration, so an outage of the admission server refuses writes to those, too",
        )
    } else {
        ("Proved", "a dry run through every API server was answered by the admission server")
    };
    json!({
        "observedGeneration": 1, "enforcement": "Deny", "canonicalForm": "v1",
        "currentHash": hash, "hashMatch": true, "consecutiveFailures": 0,
        "lastChecked": "2026-01-05T09:31:02Z",
        "conditions": [
            condition("Drifted", "False", "InSync", format!("{target} is as approved")),
            condition("Ready", "True", "Guarding", format!("{target} is guarded")),
            condition("Enforcing", "True", reason, enforcing.to_owned()),
            condition("AuthorUnknown", "True", "NoValidSignature", unsigned),
        ],
    })
}

/// A uid of its own for each.
fn uuid_of(of: &str, resource: &str, number: usize) -> String {
    let family = match of {
        "namespace" => 0x0200,
        _ => u16::from(of == "guard") << 8 | u16::from(resource == CONFIG_MAP.resource),
    };
    format!("00000000-{family:04x}-4000-8000-{number:012}")
}
