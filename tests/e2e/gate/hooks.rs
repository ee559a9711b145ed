//! Other people's mutating webhooks: one that changes data after ours, and one that renames on CREATE.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::installation::{Installation, config_map, hash_of};

/// A webhook that answers every review with the same JSON patch.
struct Hook {
    runtime: Option<tokio::runtime::Runtime>,
    port: u16,
    authority: String,
}

impl Hook {
    fn start(patch: &Value) -> Result<Self> {
        let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
        let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
        let patch = Arc::new(STANDARD.encode(patch.to_string()));
        let answer = move |body: String| {
            let patch = Arc::clone(&patch);
            async move {
                let review: Value = serde_json::from_str(&body).unwrap_or_default();
                let answer = json!({
                    "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                    "response": {"uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch", "patch": *patch},
                });
                ([("content-type", "application/json")], answer.to_string())
            }
        };
        // Somebody in this process may have chosen one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let config = runtime.block_on(axum_server::tls_rustls::RustlsConfig::from_pem(
            certificate.clone().into_bytes(),
            key.into_bytes(),
        ))?;
        let app = Router::new().route("/", post(answer));
        let server = {
            let _entered = runtime.enter();
            axum_server::from_tcp_rustls(listener, config)?
        };
        runtime.spawn(server.serve(app.into_make_service()));
        Ok(Self { runtime: Some(runtime), port, authority: STANDARD.encode(certificate) })
    }

    /// Registers it for ConfigMaps of one namespace.
    fn register(&self, on: &Installation, name: &str, namespace: &str, operation: &str) -> Result<()> {
        on.apply(&json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": "hook.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": format!("https://127.0.0.1:{}/", self.port), "caBundle": self.authority},
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": [operation]}],
            }],
        }))?
        .success()
        .map(drop)
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(super) fn case_32_a_later_webhook_that_alters_data_is_refused(on: &Installation, ns: &str) -> Result<()> {
    let hook = Hook::start(&json!([{"op": "add", "path": "/data/injected", "value": "1"}]))?;
    for (name, mode) in [("deny", "Deny"), ("rewrite", "Rewrite")] {
        on.apply(&config_map(ns, name, &json!({"a": "1"})))?.success()?;
        let hash = hash_of(&on.get(ns, &format!("configmap/{name}"))?)?;
        on.pin(ns, &format!("configmap/{name}"), &hash, &json!({"enforcement": mode}))?;
    }
    // Its name sorts behind ours, so that it is called after our hook.
    hook.register(on, "zz-later", ns, "UPDATE")?;
    let label = |name: &str, value: &str| {
        on.admin.kubectl(&["label", "--overwrite", "configmap", name, "-n", ns, &format!("team={value}")])
    };
    let refused = (|| {
        // Once it is called, no label passes either: what comes out is what counts.
        driftguard_control_plane::until("the other webhook is called", crate::installation::LIMIT, || {
            let said = label("deny", &uuid::Uuid::now_v7().simple().to_string())?.failure()?;
            ensure!(said.contains("/data/injected would change"), "{said}");
            Ok(())
        })?;
        on.refused(ns, "configmap/deny", || label("deny", "a"))?;
        // Ours is called again after it where it was called before it, and takes out what it put in.
        let before = on.get(ns, "configmap/rewrite")?["data"].clone();
        let patch = r#"{"metadata":{"labels":{"team":"a"}},"data":{"a":"2"}}"#;
        let said =
            on.admin.kubectl(&["patch", "configmap/rewrite", "-n", ns, "--type=merge", "-p", patch])?;
        let after = on.get(ns, "configmap/rewrite")?;
        ensure!(before == after["data"], "{said}\n{after}");
        ensure!(after["metadata"]["labels"]["team"] == "a", "the rest of the write is lost: {said}\n{after}");
        ensure!(said.stderr.contains("/data/injected"), "{said}");
        said.success()?;
        // A label alone does not call ours, so that it is not called again either: the gate refuses.
        on.refused(ns, "configmap/rewrite", || label("rewrite", "b")).map(drop)
    })();
    on.admin.kubectl(&["delete", "mutatingwebhookconfiguration", "zz-later"])?.success()?;
    refused
}

pub(super) fn case_66_a_webhook_that_renames_gives_no_other_content_a_name(
    on: &Installation,
    ns: &str,
) -> Result<()> {
    on.pin(ns, "configmap/wanted", &hash_of(&config_map(ns, "wanted", &json!({"a": "1"})))?, &json!({}))?;
    let hook = Hook::start(&json!([{"op": "replace", "path": "/metadata/name", "value": "wanted"}]))?;
    for name in ["aa-earlier", "zz-renamer"] {
        hook.register(on, name, ns, "CREATE")?;
        let create = |a: &str, field: &str| {
            let mut object = config_map(ns, "harmless", &json!({"a": a}));
            let metadata = object["metadata"].as_object_mut().context("no metadata")?;
            metadata.remove("name");
            metadata.insert(field.to_owned(), json!("harmless"));
            on.admin.kubectl_with(&["create", "-f", "-"], object.to_string())
        };
        let tried = (|| {
            for field in ["name", "generateName"] {
                driftguard_control_plane::until("the webhook renames", crate::installation::LIMIT, || {
                    let said = create("2", field)?.failure()?;
                    ensure!(said.contains("DriftGuard ") && said.contains("ConfigMap/"), "{said}");
                    Ok(())
                })?;
                on.admin.kubectl(&["get", "configmap/wanted", "-n", ns])?.failure()?;
            }
            create("1", "name")?.success()?;
            on.admin.kubectl(&["delete", "configmap/wanted", "-n", ns])?.success()
        })();
        on.admin.kubectl(&["delete", "mutatingwebhookconfiguration", name])?.success()?;
        tried?;
    }
    Ok(())
}
