//! Kubeconfig files: which are read, and what the flags change in them.
//!
//! [`select`] returns a kubeconfig with exactly one context, cluster and user, in which every flag
//! has been applied, so that nothing after it has to know about flags.

use std::path::{Path, PathBuf};

use kube::config::{AuthInfo, Cluster, Context, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext};

use super::{ClusterArgs, ClusterError};

/// The name under which the selected context, cluster and user are filed.
const SELECTED: &str = "selected";

/// What was found on disk.
pub(super) struct Loaded {
    /// All files, the first to say something wins.
    pub(super) merged: Kubeconfig,
    /// Where files were looked for.
    paths: Vec<PathBuf>,
}

impl Loaded {
    /// Whether no file says anything about a cluster.
    pub(super) fn is_empty(&self) -> bool {
        self.merged.clusters.is_empty() && self.merged.contexts.is_empty()
    }

    /// For a message: what was looked at in vain.
    pub(super) fn looked(&self) -> String {
        let paths: Vec<String> = self.paths.iter().map(|path| path.display().to_string()).collect();
        match paths.as_slice() {
            [] => "there is no kubeconfig".to_owned(),
            paths => format!("{} has no cluster", paths.join(" and ")),
        }
    }
}

/// Reads the kubeconfig of `--kubeconfig`, else of `KUBECONFIG`, else of the home directory.
///
/// As in kubectl a file that `--kubeconfig` names must exist; the others may be missing.
pub(super) fn load(named: Option<&Path>) -> Result<Loaded, ClusterError> {
    if let Some(path) = named {
        return Ok(Loaded { merged: read(path)?, paths: vec![path.to_owned()] });
    }
    let paths = default_paths();
    let mut merged = Kubeconfig::default();
    for path in paths.iter().filter(|path| path.exists()) {
        merged = merged.merge(read(path)?).map_err(|error| unreadable(path, &error))?;
    }
    Ok(Loaded { merged, paths })
}

fn default_paths() -> Vec<PathBuf> {
    let listed: Vec<PathBuf> = std::env::var_os("KUBECONFIG")
        .map(|list| std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect())
        .unwrap_or_default();
    if listed.is_empty() {
        std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect()
    } else {
        listed
    }
}

fn read(path: &Path) -> Result<Kubeconfig, ClusterError> {
    Kubeconfig::read_from(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &kube::config::KubeconfigError) -> ClusterError {
    use kube::config::KubeconfigError as E;
    let cause = match error {
        E::ReadConfig(io, _) => io.to_string(),
        // Only the first line: the others quote the file, which may hold credentials.
        E::Parse(parse) => parse.to_string().lines().next().unwrap_or("not valid YAML").to_owned(),
        other => super::explain::with_causes(other),
    };
    ClusterError::Unreadable { path: path.to_owned(), cause }
}

/// The context in use; `None` when the flags do without one.
pub(super) fn context(all: &Kubeconfig, args: &ClusterArgs) -> Result<Option<Context>, ClusterError> {
    let current = all.current_context.as_ref().filter(|name| !name.is_empty());
    let Some(name) = args.context.as_ref().or(current) else {
        let known = names(&all.contexts, |named| &named.name);
        return if known.is_empty() || args.cluster.is_some() || args.api_server.is_some() {
            Ok(None)
        } else {
            Err(ClusterError::NoCurrentContext(known))
        };
    };
    find("context", name, &all.contexts, |named| (&named.name, named.context.as_ref())).map(Some)
}

/// Applies the flags: one context, one cluster, one user remain.
pub(super) fn select(all: &Kubeconfig, args: &ClusterArgs) -> Result<Kubeconfig, ClusterError> {
    let context = context(all, args)?;
    let mut cluster = match args.cluster.as_ref().or(context.as_ref().map(|context| &context.cluster)) {
        Some(name) if !name.is_empty() => {
            find("cluster", name, &all.clusters, |named| (&named.name, named.cluster.as_ref()))?
        }
        _ => Cluster::default(),
    };
    let mut user = match (&args.user, context.as_ref().and_then(|context| context.user.as_ref())) {
        (Some(name), _) => {
            find("user", name, &all.auth_infos, |named| (&named.name, named.auth_info.as_ref()))?
        }
        // As client-go: a context may name a user that is not there, and then is anonymous.
        (None, Some(name)) => all
            .auth_infos
            .iter()
            .find(|named| named.name == *name)
            .and_then(|named| named.auth_info.clone())
            .unwrap_or_default(),
        (None, None) => AuthInfo::default(),
    };
    override_user(&mut user, args);
    override_cluster(&mut cluster, &user, args);
    let namespace = context.and_then(|context| context.namespace).filter(|namespace| !namespace.is_empty());
    let context =
        Context { cluster: SELECTED.into(), user: Some(SELECTED.into()), namespace, ..Context::default() };
    Ok(Kubeconfig {
        current_context: Some(SELECTED.into()),
        contexts: vec![NamedContext { name: SELECTED.into(), context: Some(context), ..Default::default() }],
        clusters: vec![NamedCluster { name: SELECTED.into(), cluster: Some(cluster), ..Default::default() }],
        auth_infos: vec![NamedAuthInfo {
            name: SELECTED.into(),
            auth_info: Some(user),
            ..Default::default()
        }],
        ..Kubeconfig::default()
    })
}

fn override_cluster(cluster: &mut Cluster, user: &AuthInfo, args: &ClusterArgs) {
    if let Some(path) = &args.certificate_authority {
        cluster.certificate_authority = Some(path.to_string_lossy().into_owned());
        cluster.certificate_authority_data = None;
        cluster.insecure_skip_tls_verify = None;
    }
    if args.insecure_skip_tls_verify {
        // As kubectl: an authority of the kubeconfig would contradict the flag.
        cluster.certificate_authority = None;
        cluster.certificate_authority_data = None;
        cluster.insecure_skip_tls_verify = Some(true);
    }
    if let Some(name) = &args.tls_server_name {
        cluster.tls_server_name = Some(name.clone());
    }
    if let Some(address) = &args.api_server {
        let speaks_tls = cluster.certificate_authority.is_some()
            || cluster.certificate_authority_data.is_some()
            || cluster.insecure_skip_tls_verify == Some(true)
            || user.client_certificate.is_some()
            || user.client_certificate_data.is_some();
        cluster.server = Some(with_scheme(address, speaks_tls));
    }
}

/// An address without scheme is http unless something about TLS is configured, as in kubectl.
fn with_scheme(address: &str, speaks_tls: bool) -> String {
    match (address.contains("://"), speaks_tls) {
        (true, _) => address.to_owned(),
        (false, true) => format!("https://{address}"),
        (false, false) => format!("http://{address}"),
    }
}

/// Applies the flags that say who is asking.
pub(super) fn override_user(user: &mut AuthInfo, args: &ClusterArgs) {
    if let Some(token) = &args.token {
        // Whoever gives a token wants to be that user. kubectl would still send the kubeconfig's
        // client certificate, and the API server would believe that one.
        *user = AuthInfo { token: Some(token.0.clone().into()), ..AuthInfo::default() };
    }
    if let Some(path) = &args.client_certificate {
        user.client_certificate = Some(path.to_string_lossy().into_owned());
        user.client_certificate_data = None;
    }
    if let Some(path) = &args.client_key {
        user.client_key = Some(path.to_string_lossy().into_owned());
        user.client_key_data = None;
    }
    if let Some(name) = &args.as_user {
        user.impersonate = Some(name.clone());
        user.impersonate_uid.clone_from(&args.as_uid);
        user.impersonate_groups = (!args.as_group.is_empty()).then(|| args.as_group.clone());
    }
}

fn find<N, T: Clone + 'static>(
    what: &'static str,
    name: &str,
    all: &[N],
    read: impl Fn(&N) -> (&String, Option<&T>),
) -> Result<T, ClusterError> {
    all.iter()
        .map(&read)
        .find(|(candidate, _)| *candidate == name)
        .and_then(|(_, value)| value.cloned())
        .ok_or_else(|| ClusterError::Unknown {
            what,
            name: name.to_owned(),
            known: names(all, |named| read(named).0),
        })
}

fn names<N>(all: &[N], name: impl Fn(&N) -> &String) -> Vec<String> {
    let mut names: Vec<String> = all.iter().map(|named| name(named).clone()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    const TWO: &str = "
apiVersion: v1
kind: Config
current-context: prod
contexts:
- {name: prod, context: {cluster: p, user: admin, namespace: shop}}
- {name: dev, context: {cluster: d, user: gone}}
clusters:
- {name: p, cluster: {server: 'https://p:6443', certificate-authority-data: QQ==}}
- {name: d, cluster: {server: 'https://d:6443'}}
users:
- {name: admin, user: {client-certificate: a.crt, client-key: a.key}}
";

    fn two() -> Kubeconfig {
        Kubeconfig::from_yaml(TWO).unwrap()
    }

    fn selected(args: &ClusterArgs) -> (Cluster, AuthInfo, Context) {
        let one = select(&two(), args).unwrap();
        (
            one.clusters[0].cluster.clone().unwrap(),
            one.auth_infos[0].auth_info.clone().unwrap(),
            one.contexts[0].context.clone().unwrap(),
        )
    }

    #[test]
    fn the_current_context_is_used_until_a_flag_names_another() {
        let (cluster, user, context) = selected(&ClusterArgs::default());
        assert_eq!(cluster.server.as_deref(), Some("https://p:6443"));
        assert_eq!(user.client_certificate.as_deref(), Some("a.crt"));
        assert_eq!(context.namespace.as_deref(), Some("shop"));
        let dev = ClusterArgs { context: Some("dev".into()), ..Default::default() };
        assert_eq!(selected(&dev).0.server.as_deref(), Some("https://d:6443"));
        assert_eq!(selected(&dev).2.namespace, None);
    }

    #[test]
    fn a_wrong_context_lists_those_that_exist() {
        let args = ClusterArgs { context: Some("stage".into()), ..Default::default() };
        let error = select(&two(), &args).unwrap_err().to_string();
        assert_eq!(error, "no context \"stage\" in the kubeconfig; it has dev, prod");
    }

    #[test]
    fn without_a_current_context_one_must_be_chosen() {
        let mut all = two();
        all.current_context = Some(String::new());
        let error = select(&all, &ClusterArgs::default()).unwrap_err().to_string();
        assert!(error.contains("--context (dev, prod)"), "{error}");
        let args = ClusterArgs { cluster: Some("d".into()), ..Default::default() };
        assert!(select(&all, &args).is_ok(), "a cluster by name does without");
    }

    #[test]
    fn a_token_replaces_the_certificate_of_the_kubeconfig() {
        let args = ClusterArgs { token: Some(super::super::Token("t".to_owned())), ..Default::default() };
        let (_, user, _) = selected(&args);
        assert!(user.token.is_some());
        assert_eq!(user.client_certificate, None);
    }

    #[test]
    fn skipping_verification_drops_the_authority() {
        let args = ClusterArgs { insecure_skip_tls_verify: true, ..Default::default() };
        let (cluster, _, _) = selected(&args);
        assert_eq!(
            (cluster.certificate_authority_data, cluster.insecure_skip_tls_verify),
            (None, Some(true))
        );
    }

    #[test]
    fn an_address_without_scheme_is_https_when_tls_is_configured() {
        let mut args = ClusterArgs { api_server: Some("host:6443".into()), ..Default::default() };
        assert_eq!(selected(&args).0.server.as_deref(), Some("https://host:6443"));
        args.context = Some("dev".into());
        assert_eq!(selected(&args).0.server.as_deref(), Some("http://host:6443"));
    }
}
