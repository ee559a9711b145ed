//! `driftguard version`: the version of this program, and of the API server.

use super::cluster::ClusterArgs;
use super::exit::Exit;
use super::output;

/// Arguments of `driftguard version`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  driftguard version\n  driftguard version --client\n  driftguard version -o json"
)]
pub struct VersionArgs {
    /// Print only the version of this program; asks no server
    #[arg(long)]
    client: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_version: Option<String>,
}

impl Versions {
    fn render(&self, format: Format) -> String {
        match format {
            // A struct of strings always serialises; an empty object would only show up in a bug.
            Format::Json => serde_json::to_string_pretty(self).unwrap_or_default() + "\n",
            Format::Text => {
                let mut text = format!("Client Version: {}\n", self.client_version);
                if let Some(server) = &self.server_version {
                    text.push_str(&format!("Server Version: {server}\n"));
                }
                text
            }
        }
    }
}

/// Prints the versions. As kubectl does, it prints its own even when the server cannot be asked,
/// and then fails.
///
/// # Errors
/// When no server can be asked and `--client` is not given.
pub async fn run(args: VersionArgs) -> anyhow::Result<Exit> {
    let server = if args.client { Ok(None) } else { server_version(&args.cluster).await.map(Some) };
    let (server_version, problem) = match server {
        Ok(version) => (version, None),
        Err(problem) => (None, Some(problem)),
    };
    let versions = Versions { client_version: format!("v{}", env!("CARGO_PKG_VERSION")), server_version };
    output::data(versions.render(args.output).as_bytes())?;
    match problem {
        None => Ok(Exit::Clean),
        Some(problem) => {
            Err(problem.context("cannot tell the server's version (`driftguard version --client` asks none)"))
        }
    }
}

async fn server_version(args: &ClusterArgs) -> anyhow::Result<String> {
    let cluster = args.connect().await?;
    let info = cluster
        .client
        .apiserver_version()
        .await
        .map_err(|error| cluster.explain("asking for the version", &error))?;
    Ok(info.git_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_leave_out_a_server_that_was_not_asked() {
        let mut versions = Versions { client_version: "v1.2.3".into(), server_version: None };
        assert_eq!(versions.render(Format::Text), "Client Version: v1.2.3\n");
        assert_eq!(versions.render(Format::Json), "{\n  \"clientVersion\": \"v1.2.3\"\n}\n");
        versions.server_version = Some("v1.37.2".into());
        assert_eq!(versions.render(Format::Text), "Client Version: v1.2.3\nServer Version: v1.37.2\n");
    }
}
