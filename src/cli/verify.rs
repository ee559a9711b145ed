//! `driftguard verify`: whether files are what their guards approve, before anybody applies them.

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use jiff::Timestamp;
use serde::Serialize;

use super::cluster::{Cluster, ClusterArgs};
use super::exit::Exit;
use super::guards::{self, Found, OfObject};
use super::output;
use super::pinned::Pinned;
use super::subject::{Served, Subject, builtin, dry_run};
use super::table::one_line;
use crate::api::names;
use crate::core::audit::candidate::Form;
use crate::core::paths::PathFilter;
use crate::core::scope::Scope;
use crate::document::{self, Document};
use crate::store::convert::Approvals;

/// How many objects are asked about at a time.
const AT_A_TIME: usize = 8;

/// Arguments of `driftguard verify`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The guards are those of the cluster, or with --guard those of files, and then no cluster is \
                        asked: for pull requests. DriftGuards among the files are passed over. For kinds that get \
                        defaults the API server is asked what it would store, by a dry run; without one, a file of \
                        such a kind that does not match as it stands is `unknown`.\n\n\
                        Exit code 0: nothing differs; 1: something does, or has no guard though --all-guarded is \
                        given; 2: something could not be told.\n\n\
                        Examples:
  driftguard verify -f market-settings.yaml
  driftguard verify -f manifests/ -n trading --all-guarded
  driftguard verify -f manifests/ --guard manifests/guards.yaml"
)]
pub struct VerifyArgs {
    /// File, directory (searched for .yaml, .yml and .json) or - for standard input; may be repeated
    #[arg(short, long, value_name = "FILE", required = true)]
    filename: Vec<String>,
    /// File or directory with the guards, instead of those of the cluster; may be repeated
    #[arg(long, value_name = "FILE")]
    guard: Vec<String>,
    /// An object without a guard counts as a finding
    #[arg(long)]
    all_guarded: bool,
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

/// What was found of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    /// `Kind/namespace/name`.
    object: String,
    /// Where the file has it.
    place: String,
    result: Verdict,
    /// `namespace/name` of the guard that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<String>,
    /// Why it could not be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// In the order in which several guards of one object count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
enum Verdict {
    #[serde(rename = "matches")]
    Matches,
    #[serde(rename = "not guarded")]
    NotGuarded,
    #[serde(rename = "unknown")]
    Unknown,
    #[serde(rename = "differs")]
    Differs,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Matches => "matches",
            Self::NotGuarded => "not guarded",
            Self::Unknown => "unknown",
            Self::Differs => "differs",
        }
    }
}

/// Compares, and prints a line for each object.
///
/// # Errors
/// When a file cannot be read, the cluster cannot be reached, or something could not be told.
pub async fn run(args: VerifyArgs) -> anyhow::Result<Exit> {
    let documents = document::read(&args.filename, &mut std::io::stdin().lock())?;
    let objects: Vec<Document> = documents.into_iter().filter(|document| !is_guard(document)).collect();
    ensure!(!objects.is_empty(), "there is no object besides DriftGuards in {}", args.filename.join(", "));
    let rows =
        if args.guard.is_empty() { of_cluster(&args, objects).await? } else { of_files(&args, objects)? };
    output::data_while_read(render(&rows, args.output)?.as_bytes())?;
    for row in &rows {
        if let Some(problem) = &row.problem {
            output::message(&format!("{}: {problem}", row.place));
        }
    }
    end(&rows, args.all_guarded)
}

fn is_guard(document: &Document) -> bool {
    document.group() == names::GROUP && document.kind == "DriftGuard"
}

fn render(rows: &[Row], format: Format) -> anyhow::Result<String> {
    if format == Format::Json {
        return Ok(serde_json::to_string_pretty(rows)? + "\n");
    }
    let mut text = String::new();
    for row in rows {
        let by = match (&row.guard, row.result) {
            (Some(guard), Verdict::Differs | Verdict::Unknown) => format!(" (DriftGuard {guard})"),
            _ => String::new(),
        };
        // A file of somebody else may hold any name.
        text.push_str(&one_line(&format!("{}: {}{by}", row.object, row.result.as_str())));
        text.push('\n');
    }
    Ok(text)
}

fn end(rows: &[Row], all_guarded: bool) -> anyhow::Result<Exit> {
    let count = |verdict| rows.iter().filter(|row| row.result == verdict).count();
    let unknown = count(Verdict::Unknown);
    ensure!(unknown == 0, "{unknown} of {} objects could not be told", rows.len());
    let found = count(Verdict::Differs) > 0 || (all_guarded && count(Verdict::NotGuarded) > 0);
    Ok(if found { Exit::Finding } else { Exit::Clean })
}

async fn of_cluster(args: &VerifyArgs, objects: Vec<Document>) -> anyhow::Result<Vec<Row>> {
    let cluster = args.cluster.connect().await?;
    let served = Served::load(&cluster).await?;
    let (cluster, served) = (&cluster, &served);
    let rows = objects.into_iter().map(|document| async move {
        let (place, title) = (document.origin.to_string(), format!("{}/{}", document.kind, document.name));
        match live_row(args, document, cluster, served).await {
            Ok(row) => row,
            // One that cannot be told must not hide the others.
            Err(error) => Row {
                object: title,
                place,
                result: Verdict::Unknown,
                guard: None,
                problem: Some(format!("{error:#}")),
            },
        }
    });
    Ok(futures::stream::iter(rows).buffered(AT_A_TIME).collect().await)
}

async fn live_row(
    args: &VerifyArgs,
    document: Document,
    cluster: &Cluster,
    served: &Served,
) -> anyhow::Result<Row> {
    let (subject, entry) = dry_run::subject(document, served, &args.cluster, PathFilter::everything())?;
    let mut row = row_of(&subject);
    let OfObject { guards, is_partial } =
        guards::of_object(cluster, served, entry, subject.namespace.as_deref(), &subject.name).await?;
    if guards.is_empty() && is_partial {
        row.result = Verdict::Unknown;
        row.problem = Some(
            "guards of other namespaces are not for you to list, or one cannot be understood, and it may pin this"
                .to_owned(),
        );
    }
    let mut verdicts = Vec::new();
    for guard in &guards {
        let verdict = match matches(guard, &subject, cluster, served).await {
            Ok(true) => (Verdict::Matches, None),
            Ok(false) => (Verdict::Differs, None),
            Err(error) => (Verdict::Unknown, Some(format!("{error:#}"))),
        };
        verdicts.push((verdict.0, guard_name(guard), verdict.1));
    }
    Ok(decided(row, verdicts))
}

async fn matches(
    guard: &Found,
    subject: &Subject,
    cluster: &Cluster,
    served: &Served,
) -> anyhow::Result<bool> {
    let pinned = Pinned::of(guard, served)?;
    let content = pinned.content(cluster, &subject.json, Form::Document, subject.origin.as_ref()).await?;
    Ok(pinned.approves(content.hash))
}

fn guard_name(guard: &Found) -> String {
    format!("{}/{}", guard.namespace(), guard.name())
}

fn row_of(subject: &Subject) -> Row {
    Row {
        object: subject.to_string(),
        place: subject.place(),
        result: Verdict::NotGuarded,
        guard: None,
        problem: None,
    }
}

/// Of several guards the one counts that is furthest from a match.
fn decided(mut row: Row, verdicts: Vec<(Verdict, String, Option<String>)>) -> Row {
    if let Some((verdict, guard, problem)) = verdicts.into_iter().max_by_key(|(verdict, ..)| *verdict) {
        (row.result, row.guard, row.problem) = (verdict, Some(guard), problem);
    }
    row
}

fn of_files(args: &VerifyArgs, objects: Vec<Document>) -> anyhow::Result<Vec<Row>> {
    let documents = document::read(&args.guard, &mut std::io::stdin().lock())?;
    let mut guards = Vec::new();
    for document in documents.into_iter().filter(is_guard) {
        guards.push(FileGuard::read(&document, &args.cluster)?);
    }
    ensure!(!guards.is_empty(), "there is no DriftGuard in {}", args.guard.join(", "));
    objects
        .into_iter()
        .map(|document| {
            let namespaced = builtin::is_namespaced(document.group(), &document.kind);
            let subject = Subject::of_file(document, namespaced, &args.cluster, PathFilter::everything())?;
            let verdicts = guards
                .iter()
                .filter(|guard| guard.pins(&subject))
                .map(|guard| {
                    let (verdict, problem) = guard.verdict(&subject)?;
                    Ok((verdict, guard.name.clone(), problem))
                })
                .collect::<anyhow::Result<Vec<_>>>()?;
            Ok(decided(row_of(&subject), verdicts))
        })
        .collect()
}

/// A guard of a file.
struct FileGuard {
    /// `namespace/name`.
    name: String,
    namespace: String,
    spec: crate::api::DriftGuardSpec,
    approvals: Approvals,
}

impl FileGuard {
    fn read(document: &Document, cluster: &ClusterArgs) -> anyhow::Result<Self> {
        let place = || document.origin.to_string();
        let namespace = match &document.namespace {
            Some(namespace) => namespace.clone(),
            None => cluster.default_namespace()?,
        };
        let guard: crate::api::DriftGuard = serde_json::from_slice(&document.json).with_context(|| {
            format!(
                "{}: this DriftGuard cannot be read; compare it with `kubectl explain driftguard.spec`",
                place()
            )
        })?;
        let approvals = Approvals::of(&guard.spec).map_err(anyhow::Error::msg).with_context(place)?;
        Ok(Self { name: format!("{namespace}/{}", document.name), namespace, spec: guard.spec, approvals })
    }

    /// Whether it pins an object, as far as a kind can be told without discovery.
    fn pins(&self, subject: &Subject) -> bool {
        let spec = &self.spec;
        let version = spec.target_api_version.as_deref().filter(|text| !text.is_empty());
        let group =
            |version: &str| version.rsplit_once('/').map_or(String::new(), |(group, _)| group.to_owned());
        let is_kind = |word: &str| word.eq_ignore_ascii_case(&subject.kind);
        let given = spec.target_namespace.as_deref().filter(|text| !text.is_empty());
        let place = given.unwrap_or(&self.namespace);
        // Plural names are understood as far as they can be without discovery.
        (is_kind(&spec.target_kind) || spec.target_kind.strip_suffix(['s', 'S']).is_some_and(is_kind))
            && version.is_none_or(|version| group(version) == subject.group())
            && spec.target_name == subject.name
            && subject.namespace.as_deref().is_none_or(|namespace| namespace == place)
    }

    fn verdict(&self, subject: &Subject) -> anyhow::Result<(Verdict, Option<String>)> {
        let scope = Scope::new(subject.group(), &subject.kind, self.approvals.filter.clone());
        let hash = Subject { scope, ..subject.clone() }.hash()?;
        let version = self.spec.target_api_version.as_deref().filter(|text| !text.is_empty());
        if let Some(version) = version.filter(|version| *version != subject.api_version) {
            let why = format!("the guard pins it as {version}, and only the API server can convert it");
            return Ok((Verdict::Unknown, Some(why)));
        }
        Ok(if self.approvals.approve(hash, Timestamp::now()) {
            (Verdict::Matches, None)
        } else if subject.scope.has_server_defaults() {
            let why = format!(
                "as it stands it is not what is approved, but the API server fills in defaults of {}: leave out --guard \
                 to ask it",
                subject.kind
            );
            (Verdict::Unknown, Some(why))
        } else {
            (Verdict::Differs, None)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn row(result: Verdict) -> Row {
        Row { object: "ConfigMap/n/a".into(), place: "a.yaml".into(), result, guard: None, problem: None }
    }

    #[test]
    fn of_several_guards_the_one_that_is_furthest_from_a_match_counts() {
        let guards = [Verdict::Matches, Verdict::Differs, Verdict::Unknown]
            .map(|verdict| (verdict, format!("n/{}", verdict.as_str()), None));
        let decided = decided(row(Verdict::NotGuarded), guards.to_vec());
        assert_eq!((decided.result, decided.guard.as_deref()), (Verdict::Differs, Some("n/differs")));
    }

    #[test]
    fn offline_a_guard_of_another_version_or_by_the_plural_is_not_passed_over() {
        let guard = |kind: &str, version: &str| {
            let spec = serde_json::json!({
                "targetKind": kind, "targetName": "web", "expectedHash": "0".repeat(64), "targetApiVersion": version,
            });
            let spec: crate::api::DriftGuardSpec = serde_json::from_value(spec).unwrap();
            let approvals = Approvals::of(&spec).unwrap();
            FileGuard { name: "n/g".into(), namespace: "n".into(), spec, approvals }
        };
        let json = br#"{"apiVersion":"autoscaling/v1","kind":"HorizontalPodAutoscaler","metadata":{"name":"web"},"spec":{}}"#;
        let subject = Subject {
            api_version: "autoscaling/v1".into(),
            kind: "HorizontalPodAutoscaler".into(),
            namespace: Some("n".into()),
            name: "web".into(),
            json: json.to_vec(),
            origin: None,
            scope: Scope::new("autoscaling", "HorizontalPodAutoscaler", PathFilter::everything()),
        };
        let newer = guard("horizontalpodautoscalers", "autoscaling/v2");
        assert!(newer.pins(&subject));
        assert_eq!(newer.verdict(&subject).unwrap().0, Verdict::Unknown);
        assert!(!guard("HorizontalPodAutoscaler", "other/v1").pins(&subject));
    }

    #[test]
    fn what_could_not_be_told_is_never_clean() {
        let rows = [row(Verdict::Matches), row(Verdict::NotGuarded)];
        assert_eq!(end(&rows, false).unwrap(), Exit::Clean);
        assert_eq!(end(&rows, true).unwrap(), Exit::Finding);
        assert_eq!(end(&[row(Verdict::Matches), row(Verdict::Differs)], false).unwrap(), Exit::Finding);
        assert!(end(&[row(Verdict::Differs), row(Verdict::Unknown)], false).is_err());
    }
}
