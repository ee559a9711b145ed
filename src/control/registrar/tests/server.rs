//! A scripted API server that stores the two configurations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};

use crate::api::names;
use crate::store::Configurations;
use crate::store::configurations::Watched;

pub(super) const VALIDATING: &str = "validatingwebhookconfigurations";
pub(super) const MUTATING: &str = "mutatingwebhookconfigurations";

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    revision: u64,
    requests: Vec<(Method, String)>,
    /// How many of the next writes meet a write of somebody else.
    conflicts: usize,
    /// Whether nobody may write.
    is_forbidden: bool,
}

/// An API server that knows server-side apply as far as lists by name need it: what the applied
/// list no longer names goes away, what others put there stays.
#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<State>>);

impl Server {
    pub(super) fn client(&self) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let resource = parts.uri.path().split('/').nth(4).unwrap().to_owned();
                let kind = parts.headers.get(http::header::CONTENT_TYPE).cloned();
                let is_apply = kind.is_some_and(|kind| kind == "application/apply-patch+yaml");
                let (status, value) = server.answer(&parts.method, &resource, is_apply, &body);
                let body = Body::from(serde_json::to_vec(&value).unwrap());
                Ok::<_, std::convert::Infallible>(Response::builder().status(status).body(body).unwrap())
            }
        });
        kube::Client::new(service, "default")
    }

    fn answer(&self, method: &Method, resource: &str, is_apply: bool, body: &[u8]) -> (StatusCode, Value) {
        let failure = |code: StatusCode, reason: &str| {
            (
                code,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(), "reason": reason, "message": reason}),
            )
        };
        let mut state = self.0.lock().unwrap();
        state.requests.push((method.clone(), resource.to_owned()));
        let before = state.objects.get(resource).cloned();
        if method == Method::GET {
            return before
                .map_or_else(|| failure(StatusCode::NOT_FOUND, "NotFound"), |found| (StatusCode::OK, found));
        }
        if state.is_forbidden {
            return failure(StatusCode::FORBIDDEN, "Forbidden");
        }
        if state.conflicts > 0 {
            state.conflicts -= 1;
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        let sent: Value = serde_json::from_slice(body).unwrap();
        let mut object = before.clone().unwrap_or_else(|| json!({"metadata": {"name": "driftguard"}}));
        let version = &sent["metadata"]["resourceVersion"];
        if !version.is_null() && *version != object["metadata"]["resourceVersion"] {
            return failure(StatusCode::CONFLICT, "Conflict");
        }
        if is_apply {
            object["webhooks"] = applied(&object["webhooks"], &sent["webhooks"]);
            // The one that only an apply writes goes with it.
            if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
                annotations.remove(names::ANNOTATION_BREAKGLASS_SEEN);
            }
        } else if let Some(webhooks) = sent.get("webhooks") {
            object["webhooks"] = webhooks.clone();
        }
        for (key, value) in sent["metadata"]["annotations"].as_object().into_iter().flatten() {
            object["metadata"]["annotations"][key] = value.clone();
        }
        if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
            annotations.retain(|_, value| !value.is_null());
        }
        state.store(resource, object.clone());
        (StatusCode::OK, state.objects[resource].clone())
    }

    /// Changes a stored configuration as somebody else.
    pub(super) fn alter(&self, resource: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.0.lock().unwrap();
        let mut object = state.objects[resource].clone();
        change(&mut object);
        object["metadata"]["managedFields"] = json!([{"manager": "driftguard", "time": "2026-01-03T00:00:00Z"}, {"manager": "kubectl-edit", "time": "2026-01-02T00:00:00Z"}]);
        state.store(resource, object);
    }

    pub(super) fn delete(&self, resource: &str) {
        self.0.lock().unwrap().objects.remove(resource);
    }

    /// The validating entries for targets as name, path and failure policy, without prefix and suffix.
    pub(super) fn entries(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let webhooks =
            state.objects.get(VALIDATING).map(|object| object["webhooks"].clone()).unwrap_or_default();
        let text = |webhook: &Value| {
            let name = webhook["name"].as_str().unwrap().trim_start_matches("see-driftguard-breakglass.");
            let path = &webhook["clientConfig"]["service"]["path"];
            format!("{} {}", name.trim_end_matches(".terrafusion.ai"), path.as_str().unwrap())
        };
        let texts = webhooks.as_array().into_iter().flatten().map(text);
        // Those for definitions of kinds and for our own kinds are always there.
        let own = ["/driftguards", "/driftguardexceptions"];
        texts
            .filter(|text: &String| {
                !text.starts_with("define-") && own.iter().all(|kind| !text.contains(&format!("{kind}/")))
            })
            .collect()
    }

    /// The entries of a configuration as they are stored.
    pub(super) fn webhooks(&self, resource: &str) -> Value {
        self.0.lock().unwrap().objects[resource]["webhooks"].clone()
    }

    /// The annotations of a configuration.
    pub(super) fn annotations(&self, resource: &str) -> Value {
        self.0.lock().unwrap().objects[resource]["metadata"]["annotations"].clone()
    }

    /// Has the next writes meet one of somebody else.
    pub(super) fn disturb(&self, writes: usize) {
        self.0.lock().unwrap().conflicts = writes;
    }

    /// Refuses every write from now on.
    pub(super) fn forbid(&self) {
        self.0.lock().unwrap().is_forbidden = true;
    }

    /// Gives every entry that has none a bundle, as cainjector does; or all of them another one.
    pub(super) fn inject(&self, bundle: &str, all: bool) {
        for resource in [VALIDATING, MUTATING] {
            self.alter(resource, |object| {
                for webhook in object["webhooks"].as_array_mut().unwrap() {
                    if all || webhook["clientConfig"].get("caBundle").is_none() {
                        webhook["clientConfig"]["caBundle"] = json!(bundle);
                    }
                }
            });
        }
    }

    pub(super) fn writes(&self) -> usize {
        self.0.lock().unwrap().requests.iter().filter(|(method, _)| method != Method::GET).count()
    }

    pub(super) fn requests(&self) -> usize {
        self.0.lock().unwrap().requests.len()
    }

    /// What a watch would tell now.
    pub(super) fn watched(&self) -> Configurations {
        let state = self.0.lock().unwrap();
        let of = |resource: &str| state.objects.get(resource).cloned();
        Configurations {
            validating: of(VALIDATING).map_or(Watched::Absent, |object| {
                Watched::Present(Arc::new(serde_json::from_value(object).unwrap()))
            }),
            mutating: of(MUTATING).map_or(Watched::Absent, |object| {
                Watched::Present(Arc::new(serde_json::from_value(object).unwrap()))
            }),
        }
    }
}

impl State {
    fn store(&mut self, resource: &str, mut object: Value) {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.objects.insert(resource.to_owned(), object);
    }
}

/// Server-side apply to a list by name: foreign entries stay, and so do foreign conditions in ours.
fn applied(before: &Value, sent: &Value) -> Value {
    let before = before.as_array().cloned().unwrap_or_default();
    let mut after = sent.as_array().cloned().unwrap_or_default();
    for entry in &mut after {
        let old = before.iter().find(|old| old["name"] == entry["name"]);
        // Nobody here applies it who does not go on: it is somebody else's.
        let bundle = old.map(|old| &old["clientConfig"]["caBundle"]).filter(|bundle| bundle.is_string());
        if let (Some(bundle), None) = (bundle, entry["clientConfig"].get("caBundle")) {
            entry["clientConfig"]["caBundle"] = bundle.clone();
        }
        let foreign = old.and_then(|old| old["matchConditions"].as_array()).into_iter().flatten();
        for condition in foreign.filter(|condition| {
            condition["name"] != "guarded-objects" && condition["name"] != "pinned-content"
        }) {
            entry["matchConditions"].as_array_mut().unwrap().push(condition.clone());
        }
    }
    after.extend(before.into_iter().filter(|old| !old["name"].as_str().unwrap().ends_with("terrafusion.ai")));
    Value::Array(after)
}
