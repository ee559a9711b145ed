//! kube-controller-manager, for the tests of what only its controllers do: garbage collection, the end of a
//! namespace, the sum of aggregated roles.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};

use crate::guardian::{Guardian, Process, Program};
use crate::user::User;
use crate::{Version, assets::Assets, wait};

/// How long it may take until its controllers work.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Few, because all of them would be load, and some would make objects that a test does not expect.
const CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,serviceaccount-controller,clusterrole-aggregation-controller";

/// Those that make the Pods of Deployments.
const WORKLOADS: &str = "deployment-controller,replicaset-controller";

/// Starts it as `admin`; the files `accounts.key` and `authority.crt` lie in the folder. It does not work yet.
pub(crate) fn start(
    guardian: &Guardian,
    version: Version,
    folder: &Path,
    admin: &User,
    workloads: bool,
) -> Result<Process> {
    let controllers = if workloads { format!("{CONTROLLERS},{WORKLOADS}") } else { CONTROLLERS.to_owned() };
    let file = |name: &str| folder.join(name).display().to_string();
    let program =
        Program::new("kube-controller-manager", Assets::find(version)?.controller_manager()?).args([
            format!("--kubeconfig={}", admin.kubeconfig().display()),
            format!("--service-account-private-key-file={}", file("accounts.key")),
            format!("--root-ca-file={}", file("authority.crt")),
            // Each controller with the rights that it has in a cluster.
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            format!("--controllers={controllers}"),
            // Nobody asks it anything.
            "--secure-port=0".to_owned(),
        ]);
    guardian.start(&program)
}

/// Waits until a controller of it has done something: the account that each namespace gets.
pub(crate) fn wait_ready(process: &Process, admin: &User) -> Result<()> {
    wait::until("kube-controller-manager works", START_LIMIT, || {
        if let Some(code) = process.exit_code() {
            return Ok(Err(anyhow!("kube-controller-manager ended with code {code}")));
        }
        let account = admin.kubectl(&["get", "serviceaccount", "default", "-n", "default", "-o", "name"])?;
        ensure!(account.succeeded(), "{account}");
        Ok(Ok(()))
    })
    .and_then(|result| result)
    .map_err(|error| anyhow!("{error:#}; {}", process.log_tail()))
}
