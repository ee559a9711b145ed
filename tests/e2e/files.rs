//! Certificates that somebody else makes: read from files again and again, and caBundle left to an injector.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use driftguard_control_plane::{ControlPlane, User, Version, free_port, until};
use futures::{StreamExt as _, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::watcher;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::certificates::{registered, write};
use crate::installation::{Installation, LIMIT, Via, config_map, hash_of};

const NAME: &str = "driftguard-webhook.terrafusion-system.svc";
const WRITERS: usize = 4;
/// Of a refusal to use what is in the files.
const BROKEN: &str = "the certificate files cannot be used";

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }
}

/// A mounted Secret: its files are links into a folder that is swapped as a whole.
struct Mount {
    folder: tempfile::TempDir,
    versions: AtomicUsize,
}

impl Mount {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), folder.path().join(name))?;
        }
        Ok(Self { folder, versions: AtomicUsize::new(0) })
    }

    /// Swaps in these contents, as a kubelet does.
    fn swap(&self, certificate: &str, key: &str, authorities: &str) -> Result<()> {
        let version = format!("..{}", self.versions.fetch_add(1, Ordering::Relaxed));
        let inside = self.folder.path().join(&version);
        std::fs::create_dir(&inside)?;
        for (name, text) in [("tls.crt", certificate), ("tls.key", key), ("ca.crt", authorities)] {
            std::fs::write(inside.join(name), text)?;
        }
        let next = self.folder.path().join("..next");
        std::os::unix::fs::symlink(version, &next)?;
        Ok(std::fs::rename(next, self.folder.path().join("..data"))?)
    }

    /// Swaps in a certificate for `name` by `signer`, and these authorities.
    fn put(&self, signer: &Authority, name: &str, authorities: &[&Authority]) -> Result<()> {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &*signer.0)?;
        let all: String = authorities.iter().map(|one| one.0.pem()).collect();
        self.swap(&certificate.pem(), &key.serialize_pem(), &all)
    }

    fn flags(&self) -> Vec<String> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        vec![
            format!("--tls-cert-file={}", path("tls.crt")),
            format!("--tls-key-file={}", path("tls.key")),
            format!("--tls-ca-file={}", path("ca.crt")),
            "--ca-settle=1s".to_owned(),
        ]
    }
}

fn start(mount: &Mount, plane: ControlPlane, more: &[String]) -> Result<Installation> {
    let flags: Vec<String> = mount.flags().into_iter().chain(more.iter().cloned()).collect();
    Installation::start_on(plane, free_port()?, Via::Service, &flags)
}

/// How many certificates have been served.
fn served(on: &Installation) -> usize {
    on.serve.log().matches("serving the certificate in the files").count()
}

fn registers(admin: &User, authority: &Authority) -> Result<bool> {
    let bundle = BASE64.decode(registered(admin)?)?;
    Ok(driftguard::cert::authority::certificates(&bundle)?.contains(authority.0.der()))
}

fn pin_market(on: &Installation) -> Result<()> {
    let target = config_map("default", "market-settings", &json!({"price": "100"}));
    on.apply(&target)?.success()?;
    on.pin("default", "configmap/market-settings", &hash_of(&target)?, &json!({})).map(drop)
}

/// Changes the files again and again; `goes_on` tells that writes do.
fn change_files(
    on: &Installation,
    mount: &Mount,
    old: &Authority,
    goes_on: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let (new, last) = (Authority::new("new")?, Authority::new("last")?);
    let change = |what: &str, signer: &Authority, authorities: &[&Authority]| {
        let before = served(on);
        mount.put(signer, NAME, authorities)?;
        until(&format!("{what} is served"), LIMIT, || {
            ensure!(served(on) > before, "not yet");
            Ok(())
        })?;
        ensure!(registers(&on.admin, signer)?, "{what} is served and its authority not registered");
        goes_on()
    };
    change("another certificate of the same authority", old, &[old])?;
    change("a certificate of a new authority beside the old one", &new, &[old, &new])?;
    change("a certificate of an authority without an overlap", &last, &[&last])?;

    let before = served(on);
    let whole = std::fs::read_to_string(mount.folder.path().join("tls.crt"))?;
    let authorities = std::fs::read_to_string(mount.folder.path().join("ca.crt"))?;
    let told = || on.serve.log().matches(BROKEN).count();
    let breakages: [(&str, &dyn Fn() -> Result<()>); 3] = [
        ("a key cut short", &|| mount.swap(&whole, "-----BEGIN PRIVATE KEY-----\nMIG", &authorities)),
        ("the key of another certificate", &|| {
            mount.swap(&whole, &KeyPair::generate()?.serialize_pem(), &authorities)
        }),
        ("another name", &|| mount.put(&last, "elsewhere.svc", &[&last])),
    ];
    for (what, damage) in breakages {
        let said = told();
        damage()?;
        until(&format!("{what} is told"), LIMIT, || {
            ensure!(told() > said, "nothing is said");
            Ok(())
        })?;
        goes_on()?;
        on.health("/readyz").context(what)?;
        let broken = on.health("/metrics")?.contains("\ndriftguard_certificate_files_broken 1\n");
        ensure!(broken && served(on) == before, "{what}");
    }
    change("a good certificate", &last, &[&last])?;
    until("what left the files is registered no more", LIMIT, || {
        ensure!(!registers(&on.admin, old)? && !registers(&on.admin, &new)?, "it still is");
        Ok(())
    })?;
    goes_on()
}

#[test]
fn no_write_fails_while_certificate_files_change_and_break() -> Result<()> {
    let mount = Mount::new()?;
    let old = Authority::new("old")?;
    mount.put(&old, NAME, &[&old])?;
    let on = start(&mount, ControlPlane::builder().kubernetes(Version::Newest).start()?, &[])?;
    pin_market(&on)?;
    let secrets = on.admin.kubectl(&["get", "secrets", "-n", "terrafusion-system", "-o", "name"])?;
    ensure!(!secrets.success()?.contains("driftguard-ca"), "an authority was made");

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let api = Api::namespaced(on.admin.client()?, "default");
            Ok(runtime.spawn(write(api, Arc::clone(&stop), Arc::clone(&written))))
        })
        .collect::<Result<_>>()?;
    let goes_on = || {
        let before = written.load(Ordering::Relaxed);
        until("writes go on", LIMIT, || {
            ensure!(written.load(Ordering::Relaxed) > before + 2 * WRITERS, "no writer comes through");
            Ok(())
        })
    };
    let changed = change_files(&on, &mount, &old, &goes_on);
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        runtime.block_on(writer)?.map_err(|error| anyhow!("{error:#}\n{}", on.serve.log_tail()))?;
    }
    changed.map_err(|error| anyhow!("{error:#}\n{}", on.serve.log_tail()))
}

/// Plays cainjector: gives the bundle to each entry of a configuration that asks for it, until nobody
/// gives bundles any more.
async fn inject(client: kube::Client, mut bundle: watch::Receiver<String>) {
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(client);
    let params = PostParams { field_manager: Some("cainjector".into()), ..PostParams::default() };
    let asks = |meta: &kube::api::ObjectMeta| {
        let annotations = meta.annotations.as_ref();
        annotations.and_then(|all| all.get("cert-manager.io/inject-ca-from")).map(String::as_str)
            == Some("terrafusion-system/driftguard-serving")
    };
    let ours = watcher::Config::default().fields("metadata.name=driftguard");
    let mut changes = stream::select(
        watcher(validating.clone(), ours.clone()).map(drop).boxed(),
        watcher(mutating.clone(), ours).map(drop).boxed(),
    );
    loop {
        let wanted = ByteString(bundle.borrow_and_update().clone().into_bytes());
        let differs = |client: &mut WebhookClientConfig| {
            client.ca_bundle.replace(wanted.clone()).as_ref() != Some(&wanted)
        };
        // After a conflict the watch tells of what came in between.
        if let Ok(mut object) = validating.get("driftguard").await
            && asks(&object.metadata)
        {
            let entries = object.webhooks.iter_mut().flatten();
            if entries.fold(false, |any, entry| differs(&mut entry.client_config) | any) {
                drop(validating.replace("driftguard", &params, &object).await);
            }
        }
        if let Ok(mut object) = mutating.get("driftguard").await
            && asks(&object.metadata)
        {
            let entries = object.webhooks.iter_mut().flatten();
            if entries.fold(false, |any, entry| differs(&mut entry.client_config) | any) {
                drop(mutating.replace("driftguard", &params, &object).await);
            }
        }
        tokio::select! {
            _ = changes.next() => {}
            changed = bundle.changed() => if changed.is_err() { return },
        }
    }
}

fn configuration(admin: &User, kind: &str) -> Result<Value> {
    admin.kubectl(&["get", kind, "driftguard", "-o", "json", "--show-managed-fields"])?.json()
}

/// Both configurations ask for the injection, and the bundle is nobody's but the injector's.
fn is_left_to_the_injector(admin: &User) -> Result<()> {
    for kind in ["validatingwebhookconfiguration", "mutatingwebhookconfiguration"] {
        let object = configuration(admin, kind)?;
        ensure!(
            object["metadata"]["annotations"]["cert-manager.io/inject-ca-from"]
                == "terrafusion-system/driftguard-serving",
            "{object}"
        );
        let managers = object["metadata"]["managedFields"].as_array().context("no managedFields")?;
        for entry in managers {
            let owns = entry["fieldsV1"].to_string().contains("f:caBundle");
            ensure!(!owns || entry["manager"] == "cainjector", "{entry}");
        }
    }
    Ok(())
}

#[test]
fn an_injector_keeps_the_bundle_and_nobody_fights() -> Result<()> {
    let mount = Mount::new()?;
    let (old, new) = (Authority::new("old")?, Authority::new("new")?);
    mount.put(&old, NAME, &[&old])?;
    let plane = ControlPlane::builder().kubernetes(Version::Newest).start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (bundle, bundles) = watch::channel(old.0.pem());
    let injecting = runtime.spawn(inject(plane.admin()?.client()?, bundles));
    let on = start(&mount, plane, &["--ca-injected-from=terrafusion-system/driftguard-serving".to_owned()])?;
    pin_market(&on)?;
    is_left_to_the_injector(&on.admin)?;
    let refused = |price: &str| {
        let patch = json!({"data": {"price": price}}).to_string();
        on.refused("default", "cm/market-settings", || {
            on.admin.kubectl(&["patch", "cm/market-settings", "--type=merge", "-p", &patch])
        })
    };
    refused("1")?;
    let generation = |admin: &User| {
        let object = configuration(admin, "validatingwebhookconfiguration")?;
        Ok::<_, anyhow::Error>(
            object["metadata"]["annotations"]["driftguard.terrafusion.ai/generation"].clone(),
        )
    };

    // The injector adds the new authority, then the certificate changes to it.
    let before = generation(&on.admin)?;
    bundle.send_replace(format!("{}{}", old.0.pem(), new.0.pem()));
    until("the new authority is injected", LIMIT, || {
        ensure!(registers(&on.admin, &new)?, "not yet");
        Ok(())
    })?;
    let certificates = served(&on);
    mount.put(&new, NAME, &[&new])?;
    until("the new certificate is served", LIMIT, || {
        ensure!(served(&on) > certificates, "not yet");
        Ok(())
    })?;
    refused("2")?;
    ensure!(generation(&on.admin)? == before, "we wrote although only the injector changed something");

    // A guard of another kind brings entries that have no bundle yet.
    let target = json!({
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot", "namespace": "default"},
        "automountServiceAccountToken": false,
    });
    on.apply(&target)?.success()?;
    on.pin_live("default", "serviceaccount/robot")?;
    is_left_to_the_injector(&on.admin)?;
    on.refused("default", "sa/robot", || {
        let patch = r#"{"automountServiceAccountToken":true}"#;
        on.admin.kubectl(&["patch", "sa/robot", "--type=merge", "-p", patch])
    })?;
    let log = on.serve.log();
    ensure!(!log.contains("was altered"), "they fight\n{}", on.serve.log_tail());
    drop(bundle);
    runtime.block_on(injecting)?;
    Ok(())
}
