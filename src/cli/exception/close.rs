//! `exception close`.

use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use crate::api::{DriftGuardException, DriftGuardExceptionStatus};
use crate::cli::cluster::{Cluster, ClusterArgs};
use crate::cli::exit::Exit;
use crate::cli::output;

/// Arguments of `exception close`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The guards are enforced again at once. What was changed under the exception stays as it is until \
                  somebody approves it, or has the approved content put back.\n\n\
                  Examples:
  driftguard exception close incident-7
  driftguard exception close release-12 -n trading"
)]
pub(super) struct CloseArgs {
    /// Exceptions to end
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Closes them.
///
/// # Errors
/// When one is not there or may not be deleted; the others are closed all the same.
pub(super) async fn run(args: CloseArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let mut failed = Vec::new();
    for name in &args.names {
        match close(&cluster, name).await {
            Ok(status) => {
                output::data_while_read(format!("driftguardexception/{name} closed\n").as_bytes())?;
                output::message(&summary(&status, &cluster.namespace));
            }
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    match failed.as_slice() {
        [] => Ok(Exit::Clean),
        [one] => anyhow::bail!("{one}"),
        many => anyhow::bail!("{} of {} failed:\n{}", many.len(), args.names.len(), many.join("\n")),
    }
}

/// Deletes one, and gives what it said of itself.
async fn close(cluster: &Cluster, name: &str) -> anyhow::Result<DriftGuardExceptionStatus> {
    let found = super::read(cluster, name).await?;
    let api: Api<DriftGuardException> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    // Only the very object that was looked at.
    let exactly = Preconditions { uid: found.metadata.uid, resource_version: None };
    let how = DeleteParams { preconditions: Some(exactly), ..DeleteParams::default() };
    let doing = format!("closing DriftGuardException {}/{name}", cluster.namespace);
    api.delete(name, &how).await.map_err(|error| cluster.explain(doing, &error))?;
    Ok(found.status.unwrap_or_default())
}

/// What it paused, and what was changed under it.
fn summary(status: &DriftGuardExceptionStatus, namespace: &str) -> String {
    let count = status.guard_count.unwrap_or_default();
    let guards = if count == 1 { "1 guard".to_owned() } else { format!("{count} guards") };
    match status.changed.as_slice() {
        [] => format!("it paused {guards}; nothing is known to have been changed under it"),
        some => format!(
            "it paused {guards}; changed under it: the targets of {}\nthey stay so until somebody approves them, or: \
             driftguard restore {} -n {namespace}",
            some.join(", "),
            some.join(" ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_names_what_was_changed_and_the_next_step() {
        let status = DriftGuardExceptionStatus {
            guard_count: Some(2),
            changed: vec!["a".into(), "b".into()],
            ..DriftGuardExceptionStatus::default()
        };
        let text = summary(&status, "n");
        assert!(
            text.contains("the targets of a, b") && text.ends_with("driftguard restore a b -n n"),
            "{text}"
        );
        let text = summary(&DriftGuardExceptionStatus { guard_count: Some(1), ..Default::default() }, "n");
        assert!(text.starts_with("it paused 1 guard;"), "{text}");
    }
}
