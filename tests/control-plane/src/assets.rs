//! Where the programs are, and which versions of Kubernetes there are.
//!
//! A version is written in one place only, the `go.mod` that pins it. Nothing is built here: that is
//! what the script `build` (`make control-plane`) is for.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const NEWEST: &str = include_str!("../k8s-1.37/go.mod");
const OLDER: &str = include_str!("../k8s-1.33/go.mod");

/// Which of the pinned versions of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// The newest minor.
    #[default]
    Newest,
    /// An older minor that is still supported.
    Older,
}

impl Version {
    /// As pinned, such as `1.37.2`.
    pub fn pinned(self) -> &'static str {
        let module = match self {
            Self::Newest => NEWEST,
            Self::Older => OLDER,
        };
        module
            .split("k8s.io/kubernetes v")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next())
            .unwrap_or("?")
    }

    /// The minor, such as `1.37`.
    pub fn minor(self) -> &'static str {
        let pinned = self.pinned();
        pinned.rsplit_once('.').map_or(pinned, |(minor, _)| minor)
    }
}

impl std::str::FromStr for Version {
    type Err = anyhow::Error;

    /// Takes a minor, such as `1.33`.
    fn from_str(text: &str) -> Result<Self> {
        [Self::Newest, Self::Older].into_iter().find(|version| version.minor() == text).with_context(|| {
            format!("there are {} and {}, not {text}", Self::Newest.minor(), Self::Older.minor())
        })
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder that `build` fills.
fn cache() -> Result<PathBuf> {
    let cache = variable("DRIFTGUARD_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("driftguard")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/driftguard")))
        .context("no cache folder: neither DRIFTGUARD_CACHE nor HOME is set")?;
    Ok(cache.join("control-plane"))
}

/// `promtool`, which checks and tests rules of Prometheus.
pub fn promtool() -> Result<PathBuf> {
    let program = cache()?.join("promtool");
    ensure!(program.exists(), "{} is missing; run `make control-plane`, which builds it", program.display());
    Ok(program)
}

/// A folder with `etcd`, `kube-apiserver` and `kubectl` in it.
#[derive(Debug, Clone)]
pub(crate) struct Assets(PathBuf);

impl Assets {
    /// `KUBEBUILDER_ASSETS` for every version when it is set, otherwise the cache.
    pub(crate) fn find(version: Version) -> Result<Self> {
        let (folder, mend) = match variable("KUBEBUILDER_ASSETS") {
            Some(folder) => (folder, "unset KUBEBUILDER_ASSETS to use one that we build".to_owned()),
            None => {
                let mend = format!("run `make control-plane K8S={}`, which builds it", version.minor());
                (cache()?.join(version.pinned()), mend)
            }
        };
        for program in ["etcd", "kube-apiserver", "kubectl"] {
            ensure!(folder.join(program).exists(), "{} is missing; {mend}", folder.join(program).display());
        }
        Ok(Self(folder))
    }

    /// `kube-controller-manager`, which few tests need and `KUBEBUILDER_ASSETS` does not hold.
    pub(crate) fn controller_manager(&self) -> Result<PathBuf> {
        let program = self.program("kube-controller-manager");
        ensure!(
            program.exists(),
            "{} is missing; it is built for Kubernetes {} only (`make control-plane` without KUBEBUILDER_ASSETS, which does not hold it)",
            program.display(),
            Version::Newest.minor(),
        );
        Ok(program)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
