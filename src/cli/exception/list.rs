//! `exception list`.

use anyhow::Context as _;
use serde_json::Value;

use crate::api::{DriftGuardException, reasons};
use crate::cli::cluster::ClusterArgs;
use crate::cli::exit::Exit;
use crate::cli::subject::request;
use crate::cli::{output, table, terms};
use crate::manifests::yaml;

/// Most names in a cell of the narrow table.
const NARROW: usize = 3;

/// Arguments of `exception list`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "CHANGED names the guards whose targets were changed under an exception; what became of each stands \
                        in its own status.\n\n\
                        Examples:
  driftguard exception list
  driftguard exception list -A -o wide"
)]
pub(super) struct ListArgs {
    /// Those of every namespace
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A table that names every guard
    Wide,
    /// The objects
    Json,
    /// The objects
    Yaml,
}

/// Lists them.
///
/// # Errors
/// When the cluster does not tell.
pub(super) async fn run(args: ListArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let place = (!args.all_namespaces).then_some(cluster.namespace.as_str());
    let json = request::get(&cluster, &super::path(place, None), "listing DriftGuardExceptions").await?;
    let list: Value = serde_json::from_slice(&json).context("the API server sent no list")?;
    match args.output {
        Some(Format::Json) => {
            output::data((serde_json::to_string_pretty(&list)? + "\n").as_bytes())?;
            return Ok(Exit::Clean);
        }
        Some(Format::Yaml) => {
            output::data(yaml::document("the exceptions", &list)?.as_bytes())?;
            return Ok(Exit::Clean);
        }
        Some(Format::Wide) | None => {}
    }
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    if items.is_empty() {
        let place = place.map_or_else(|| "this cluster".to_owned(), |place| format!("namespace {place}"));
        output::message(&format!("there are no exceptions in {place}"));
        return Ok(Exit::Clean);
    }
    let limit = if args.output.is_some() { usize::MAX } else { NARROW };
    let rows: Vec<Vec<String>> = items.iter().map(|item| row(item, args.all_namespaces, limit)).collect();
    let mut heading = vec!["NAME", "ACTIVE", "UNTIL", "GUARDS", "CHANGED", "REASON"];
    if args.all_namespaces {
        heading.insert(0, "NAMESPACE");
    }
    output::data(table::render(&heading, &rows).as_bytes())?;
    Ok(Exit::Clean)
}

fn row(item: &Value, with_namespace: bool, limit: usize) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &item["metadata"];
    let mut row = vec![text(&metadata["name"])];
    if with_namespace {
        row.insert(0, text(&metadata["namespace"]));
    }
    // One that this version cannot read has a row all the same.
    let Ok(exception) = serde_json::from_value::<DriftGuardException>(item.clone()) else {
        row.extend(["unreadable", "", "", "", ""].map(str::to_owned));
        return row;
    };
    let status = exception.status.unwrap_or_default();
    let active = status.conditions.iter().find(|said| said.type_ == reasons::EXCEPTION_ACTIVE);
    let until = status.until.map_or(exception.spec.until.0, |until| until.0);
    let count = status.guard_count.and_then(|count| usize::try_from(count).ok()).unwrap_or_default();
    row.extend([
        active.map_or_else(|| "Unknown".to_owned(), |said| said.status.clone()),
        terms::moment(until),
        some(&status.guards, limit, count),
        some(&status.changed, limit, status.changed.len()),
        exception.spec.reason,
    ]);
    row
}

/// The first few of so many names.
fn some(names: &[String], limit: usize, count: usize) -> String {
    let shown = names.iter().take(limit).cloned().collect::<Vec<_>>();
    match count.max(names.len()) - shown.len() {
        0 => shown.join(","),
        more => format!("{},+{more}", shown.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_row_names_some_guards_and_counts_the_rest() {
        let item = json!({
            "apiVersion": "terrafusion.ai/v1", "kind": "DriftGuardException",
            "metadata": {"name": "incident", "namespace": "n"},
            "spec": {"guards": {"all": true}, "until": "2026-11-27T03:00:00Z", "reason": "page 7"},
            "status": {
                "conditions": [{"type": "Active", "status": "True", "reason": "InForce", "message": "",
                                "lastTransitionTime": "2026-11-27T00:00:00Z"}],
                "until": "2026-11-27T02:00:00Z", "guards": ["a", "b", "c", "d"], "guardCount": 70, "changed": ["b"],
            },
        });
        assert_eq!(
            row(&item, true, 3),
            ["n", "incident", "True", "2026-11-27T02:00:00Z", "a,b,c,+67", "b", "page 7"]
        );
    }

    #[test]
    fn one_that_cannot_be_read_has_a_row() {
        let item = json!({"metadata": {"name": "odd"}, "spec": 7});
        assert_eq!(row(&item, false, 3)[..2], ["odd".to_owned(), "unreadable".to_owned()]);
    }
}
