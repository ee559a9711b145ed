//! What `install` looks at before it writes: the server's version, and what is there already.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;

use crate::api::{DriftGuard, Enforcement, names};
use crate::cli::cluster::Cluster;
use crate::cli::output;

/// Oldest supported Kubernetes 1.x: CRDs with selectable fields are stable since then.
pub(in crate::cli) const OLDEST_MINOR: u32 = 32;
/// Guards read at once.
const PAGE: u32 = 500;

/// Refuses API servers that are too old.
pub(super) async fn require_version(cluster: &Cluster) -> anyhow::Result<()> {
    let info = cluster
        .client
        .apiserver_version()
        .await
        .map_err(|error| cluster.explain("asking for the server's version", &error))?;
    if is_supported(&info.major, &info.minor) {
        return Ok(());
    }
    anyhow::bail!(
        "the API server at {} is Kubernetes {}; DriftGuard needs 1.{OLDEST_MINOR} or newer",
        cluster.address,
        info.git_version
    )
}

/// Some providers add a sign to the minor version: `32+`.
pub(in crate::cli) fn is_supported(major: &str, minor: &str) -> bool {
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    match (number(major), number(minor)) {
        (Some(1), Some(minor)) => minor >= OLDEST_MINOR,
        (Some(major), _) => major > 1,
        _ => false,
    }
}

/// Refuses a second installation in another namespace: both would write the same webhook
/// configurations, and the first would lose its rights to the second.
pub(super) async fn require_no_other(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    match elsewhere(cluster, namespace).await? {
        None => Ok(()),
        Some(other) => anyhow::bail!(
            "DriftGuard is installed in namespace {other} already; upgrade it with `driftguard install -n {other}`, or remove it with `driftguard uninstall -n {other}` first"
        ),
    }
}

/// The namespace of an installation that is not in `namespace`.
pub(in crate::cli) async fn elsewhere(cluster: &Cluster, namespace: &str) -> anyhow::Result<Option<String>> {
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.client.clone());
    let found = bindings
        .get_opt(names::OPERATOR)
        .await
        .map_err(|error| cluster.explain("looking for another installation", &error))?;
    Ok(found.and_then(|binding| installed_elsewhere(&binding, namespace).map(str::to_owned)))
}

/// The namespace of another installation. A binding without our label is the older operator's.
fn installed_elsewhere<'a>(binding: &'a ClusterRoleBinding, namespace: &str) -> Option<&'a str> {
    binding.metadata.labels.as_ref().filter(|labels| labels.contains_key(names::LABEL_PART_OF))?;
    let accounts = binding.subjects.iter().flatten();
    accounts.filter_map(|subject| subject.namespace.as_deref()).find(|other| *other != namespace)
}

/// Refuses to point the webhook elsewhere while pods of this installation would point it back.
pub(super) async fn require_no_deployment(cluster: &Cluster, namespace: &str) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let found = deployments
        .get_metadata_opt(names::OPERATOR)
        .await
        .map_err(|error| cluster.explain("looking for a running operator", &error))?;
    if found.is_some() {
        anyhow::bail!(
            "deployment/{} in namespace {namespace} runs DriftGuard already and would compete with yours; remove it with `driftguard uninstall -n {namespace}` first",
            names::OPERATOR
        );
    }
    Ok(())
}

/// What an earlier installation left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Before {
    /// The default enforcement that an earlier `install` chose.
    chosen: Option<Enforcement>,
    /// Guards that the older operator acted on.
    older: usize,
    /// Whether guards are served, so that they can be listed.
    served: bool,
}

impl Before {
    /// Looks for the CRD and for guards.
    pub(super) async fn look(cluster: &Cluster) -> anyhow::Result<Self> {
        let crds: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
        let crd = crds
            .get_metadata_opt(names::DRIFTGUARD_CRD)
            .await
            .map_err(|error| cluster.explain("looking for an earlier installation", &error))?;
        let Some(crd) = crd else { return Ok(Self::default()) };
        let annotations = crd.metadata.annotations.unwrap_or_default();
        let chosen = annotations
            .get(names::ANNOTATION_DEFAULT_ENFORCEMENT)
            .and_then(|text| Enforcement::ALL.into_iter().find(|mode| mode.as_str() == text));
        let ours = crd.metadata.labels.is_some_and(|labels| labels.contains_key(names::LABEL_PART_OF));
        let guards = guards(cluster).await?;
        let older = guards.iter().filter(|guard| !ours || is_of_older_operator(&guard.metadata)).count();
        Ok(Self { chosen, older, served: true })
    }

    /// Whether the cluster knows guards already.
    pub(super) fn has_guards(&self) -> bool {
        self.served
    }

    /// What guards without an `enforcement` of their own do, unless a flag says otherwise.
    ///
    /// Guards made for an operator that only reported must not begin to refuse writes by an
    /// upgrade; what was chosen once stays.
    pub(super) fn default_enforcement(&self) -> Enforcement {
        match self.chosen {
            Some(mode) => mode,
            None if self.older > 0 => Enforcement::Audit,
            None => Enforcement::Deny,
        }
    }

    /// Says which default is in effect where that is not the usual one.
    pub(super) fn tell(&self, mode: Enforcement, by_flag: bool) {
        if self.older > 0 && self.chosen.is_none() && !by_flag {
            output::message(&format!(
                "\n{} DriftGuards of an older operator were found, so guards without an `enforcement` of their own \
                 only record what they would refuse (Audit). When nothing surprises you, let them refuse it with\n  \
                 driftguard install --default-enforcement Deny",
                self.older
            ));
        } else if mode != Enforcement::Deny {
            output::message(&format!(
                "\nguards without an `enforcement` of their own: {}, as {}",
                mode.as_str(),
                if by_flag { "asked for" } else { "chosen by an earlier install" }
            ));
        }
    }
}

async fn guards(cluster: &Cluster) -> anyhow::Result<Vec<PartialObjectMeta<DriftGuard>>> {
    let api: Api<DriftGuard> = Api::all(cluster.client.clone());
    let mut page = ListParams::default().limit(PAGE);
    let mut guards = Vec::new();
    loop {
        let list = match api.list_metadata(&page).await {
            Ok(list) => list,
            // The CRD is there but serves another version: there is nothing we could read.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(guards),
            Err(error) => return Err(cluster.explain("looking for DriftGuards", &error))?,
        };
        guards.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(guards),
        }
    }
}

/// The older operator was built on Kopf, which leaves its finalizer and its annotation.
fn is_of_older_operator(metadata: &ObjectMeta) -> bool {
    let finalizers = metadata.finalizers.iter().flatten();
    let annotations = metadata.annotations.iter().flatten().map(|(name, _)| name);
    finalizers.chain(annotations).any(|name| name.starts_with("kopf.zalando.org/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use http::{Request, Response};
    use kube::client::Body;

    /// An API server that knows its version and nothing else.
    fn server_of_version(minor: &'static str) -> Cluster {
        let answer = move |_: Request<Body>| async move {
            let version = serde_json::json!({
                "major": "1", "minor": minor, "gitVersion": format!("v1.{minor}.4"), "gitCommit": "",
                "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "",
            });
            Ok::<_, std::convert::Infallible>(Response::new(Body::from(version.to_string().into_bytes())))
        };
        Cluster {
            client: kube::Client::new(tower::service_fn(answer), "default"),
            address: "https://10.0.0.1:6443".to_owned(),
            namespace: "default".to_owned(),
        }
    }

    #[tokio::test]
    async fn an_older_server_is_refused_by_name() {
        let refused = require_version(&server_of_version("31")).await.unwrap_err().to_string();
        assert_eq!(
            refused,
            "the API server at https://10.0.0.1:6443 is Kubernetes v1.31.4; DriftGuard needs 1.32 or newer"
        );
        require_version(&server_of_version("32")).await.unwrap();
    }

    #[test]
    fn a_second_installation_elsewhere_is_noticed() {
        let ours = crate::manifests::rbac::cluster_role_binding(names::OPERATOR, "first");
        assert_eq!(installed_elsewhere(&ours, "second"), Some("first"));
        assert_eq!(installed_elsewhere(&ours, "first"), None);
        let mut older = ours;
        older.metadata.labels = None;
        assert_eq!(installed_elsewhere(&older, "second"), None, "the older operator is no installation");
    }

    #[test]
    fn servers_from_1_32_on_are_supported() {
        for (major, minor) in [("1", "32"), ("1", "37"), ("1", "33+"), ("2", "0")] {
            assert!(is_supported(major, minor), "{major}.{minor}");
        }
        for (major, minor) in [("1", "31"), ("1", "9"), ("0", "40"), ("", ""), ("1", "x")] {
            assert!(!is_supported(major, minor), "{major}.{minor}");
        }
    }

    #[test]
    fn guards_of_the_older_operator_do_not_begin_to_refuse_by_an_upgrade() {
        let look = |chosen, older| Before { chosen, older, served: true }.default_enforcement();
        assert_eq!(look(None, 0), Enforcement::Deny);
        assert_eq!(look(None, 3), Enforcement::Audit);
        assert_eq!(look(Some(Enforcement::Audit), 0), Enforcement::Audit, "what was chosen stays");
        assert_eq!(look(Some(Enforcement::Deny), 3), Enforcement::Deny, "what was chosen stays");
    }

    #[test]
    fn kopfs_marks_tell_the_older_operators_guards() {
        let mut metadata = ObjectMeta::default();
        assert!(!is_of_older_operator(&metadata));
        metadata.finalizers = Some(vec!["kopf.zalando.org/KopfFinalizerMarker".into()]);
        assert!(is_of_older_operator(&metadata));
        metadata.finalizers = None;
        metadata.annotations =
            Some([("kopf.zalando.org/last-handled-configuration".to_owned(), "{}".to_owned())].into());
        assert!(is_of_older_operator(&metadata));
    }
}
