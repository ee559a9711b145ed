//! The guards that are proposed, as manifests with comments.

use std::collections::{BTreeMap, BTreeSet};

use super::LearnArgs;
use super::follow::Place;
use super::watched::Known;
use crate::cli::guard::manifest::{Manifest, Wishes, guard_names};
use crate::cli::guard::{Approved, api_version_needed, others, refuse_hopeless};
use crate::cli::subject::{Served, Subject};
use crate::core::learning::{Changed, Obstacle, Proposal};
use crate::core::paths::PathFilter;
use crate::core::scope::Scope;
use crate::manifests::yaml;

/// Most names of writers in a comment.
const MAX_NAMED: usize = 5;
/// Longest text of somebody else in a comment.
const MAX_QUOTED: usize = 200;

/// Objects that have a guard: group, plural name, namespace (empty without) and name, with the guard's name.
pub(super) type Guarded = BTreeMap<(String, String, String, String), String>;

type Changes = Vec<(String, Changed)>;

/// A guard that is proposed, with what changed.
struct Made {
    approved: Approved,
    /// What it leaves out.
    left_out: Changes,
    /// What it pins all the same.
    kept: Kept,
}

/// What a guard pins although it changed.
#[derive(Default)]
struct Kept {
    changes: Changes,
    /// Whether there is more than these.
    has_more: bool,
    /// What would be pinned, but lies under what is left out.
    covered: Changes,
}

/// What is proposed.
#[derive(Default)]
pub(super) struct Proposals {
    made: Vec<Made>,
    /// A line each for what gets no guard.
    left: Vec<String>,
    /// Objects that controllers make: the kind, and the kinds of their controllers.
    owned: BTreeMap<String, (usize, BTreeSet<String>)>,
}

impl Proposals {
    /// How many guards there are, and how many of them leave something out.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.made.len(), self.made.iter().filter(|made| !made.left_out.is_empty()).count())
    }

    /// Takes one object.
    pub(super) fn add(
        &mut self,
        place: &Place,
        (namespace, name): (String, String),
        known: Known,
        (served, guarded): (&Served, &Guarded),
        of_people: bool,
    ) {
        let entry = &place.entry;
        let scope = Scope::new(&entry.group, &entry.kind, PathFilter::everything());
        let guard = guarded
            .get(&(entry.group.to_string(), entry.plural.to_string(), namespace.clone(), name.clone()))
            .cloned();
        let mut subject = Subject {
            api_version: entry.api_version(),
            kind: entry.kind.to_string(),
            namespace: Some(namespace).filter(|namespace| !namespace.is_empty()),
            name,
            json: known.json,
            origin: None,
            scope,
        };
        if let Some(controller) = others::controller(&subject) {
            let (count, owners) = self.owned.entry(subject.kind).or_default();
            *count += 1;
            owners.insert(controller.split('/').next().unwrap_or_default().to_owned());
            return;
        }
        let title = subject.to_string();
        let writes = known.history.writes();
        let proposed = known.history.proposal(&subject.json, &subject.scope, of_people);
        let left = if known.is_gone {
            Some("it is no longer there".to_owned())
        } else if let Some(guard) = guard {
            Some(format!(
                "DriftGuard {guard} pins it already; its pinned content was written {}",
                times(writes)
            ))
        } else if let Some(problem) = known.problem {
            Some(problem)
        } else if let Some(writer) = others::sole_writer(&subject) {
            Some(format!("{writer} alone writes it; `driftguard guard` guards it all the same"))
        } else {
            refuse_hopeless(&subject, Some(entry)).err().map(|error| format!("{error:#}"))
        };
        let changed = match (left, proposed) {
            (Some(left), _) => Err(left),
            (None, Err(error)) => Err(error.to_string()),
            (None, Ok(Proposal::Whole)) => Ok((Vec::new(), Kept::default())),
            (None, Ok(Proposal::Without { paths, kept, more_kept, covered })) => {
                Ok((paths, Kept { changes: kept, has_more: more_kept, covered }))
            }
            (None, Ok(Proposal::CannotLeaveOut { path, obstacle })) => Err(cannot_leave_out(&path, obstacle)),
            (None, Ok(Proposal::MostlyChanging { changing, of })) => Err(format!(
                "{changing} of {of} values changed in {}, so that a guard would pin little; pin the \
                 rest by --only-path of `driftguard guard` if it is worth it",
                in_writes(writes)
            )),
            (None, Ok(Proposal::TooManyPaths)) => {
                Err(format!("more changed in {} than a guard can leave out", in_writes(writes)))
            }
        };
        let made = changed.and_then(|(left_out, kept)| {
            let paths: Vec<&str> = left_out.iter().map(|(path, _)| path.as_str()).collect();
            let filter = PathFilter::ignoring(&paths).map_err(|error| error.to_string())?;
            subject.scope = subject.scope.with_filter(filter);
            let hash = subject.hash().map_err(|error| format!("{error:#}"))?;
            // Only the hash is needed from here on.
            subject.json = Vec::new();
            let api_version = api_version_needed(&subject, Some(served));
            Ok(Made { approved: Approved { subject, hash, api_version }, left_out, kept })
        });
        match made {
            Ok(made) => self.made.push(made),
            Err(why) => self.left.push(format!("{title}: {why}")),
        }
    }

    /// The manifests, with `heading` above.
    ///
    /// # Errors
    /// When one cannot be written as YAML.
    pub(super) fn render(self, heading: &str, args: &LearnArgs) -> anyhow::Result<String> {
        let mut text = comment(heading);
        let owned = self.owned.iter().map(|(kind, (count, owners))| {
            let objects = if *count == 1 { "object" } else { "objects" };
            format!("{kind}: {count} {objects} that controllers make ({})", listed(owners))
        });
        let left: Vec<String> = self.left.iter().cloned().chain(owned).collect();
        if !left.is_empty() {
            text.push_str(&comment("No guard is proposed for"));
        }
        for line in left {
            text.push_str(&comment(&format!("- {line}")));
        }
        let (approved, changes): (Vec<_>, Vec<_>) =
            self.made.into_iter().map(|made| (made.approved, (made.left_out, made.kept))).unzip();
        let names = guard_names(&approved);
        for (at, ((one, name), (left_out, kept))) in approved.iter().zip(names).zip(&changes).enumerate() {
            if at > 0 {
                text.push_str("---\n");
            }
            let line = |(path, changed): &(String, Changed)| {
                format!("{}: {path} was written {}{}", one.subject, times(changed.times), by(&changed.by))
            };
            for changed in left_out {
                text.push_str(&comment(&line(changed)));
            }
            for (path, changed) in &kept.changes {
                let why = if changed.by.is_empty() { "" } else { ", by which people write" };
                text.push_str(&comment(&format!(
                    "{}{why}: it stays pinned",
                    line(&(path.clone(), changed.clone()))
                )));
            }
            if kept.has_more {
                text.push_str(&comment(&format!(
                    "{}: more was written by what people write by, or nobody knows by whom: it stays pinned",
                    one.subject
                )));
            }
            for changed in &kept.covered {
                text.push_str(&comment(&format!(
                    "{}: it lies under what is left out, so that it is not pinned; decide whether it should be",
                    line(changed)
                )));
            }
            let paths: Vec<String> = left_out.iter().map(|(path, _)| path.clone()).collect();
            let wishes = Wishes {
                fallback: args.cluster.namespace.as_deref(),
                enforcement: args.enforcement,
                ignore_paths: &paths,
                ..Wishes::default()
            };
            text.push_str(&yaml::document("the guard", &Manifest::new(one, name, &wishes))?);
        }
        Ok(text)
    }
}

fn cannot_leave_out(path: &str, obstacle: Obstacle) -> String {
    let path = cut(path);
    let why = match obstacle {
        Obstacle::Star => "no path names a key `*` alone",
        Obstacle::List => {
            "leaving it out would leave out a whole list, since nothing names what changed in it"
        }
        Obstacle::TooLong => "it is longer than a path may be",
    };
    format!(
        "{path} changes, and {why}; pin other parts by --only-path of `driftguard guard` if it is worth it"
    )
}

fn in_writes(count: u64) -> String {
    if count == 1 { "1 write".to_owned() } else { format!("{count} writes") }
}

fn times(count: u64) -> String {
    match count {
        0 => "never".to_owned(),
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        many => format!("{many} times"),
    }
}

fn by(names: &BTreeSet<String>) -> String {
    if names.is_empty() { ", nobody knows by whom".to_owned() } else { format!(" by {}", listed(names)) }
}

fn listed(names: &BTreeSet<String>) -> String {
    let some: Vec<String> = names.iter().take(MAX_NAMED).map(|name| cut(name)).collect();
    let more = if names.len() > MAX_NAMED { " and others" } else { "" };
    format!("{}{more}", some.join(", "))
}

fn cut(text: &str) -> String {
    crate::core::message::clean(text, MAX_QUOTED)
}

/// One line of comment: nothing in it may end the line, for no reader of YAML.
fn comment(text: &str) -> String {
    let safe = |character: char| match character {
        '\u{2028}' | '\u{2029}' | '\u{feff}' => ' ',
        character if character.is_control() => ' ',
        character => character,
    };
    format!("# {}\n", text.chars().map(safe).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_somebody_else_has_named_ends_a_comment() {
        let text = "a\nb\rc\u{85}d\u{2028}e\u{2029}f\u{feff}g\u{b}h";
        assert_eq!(comment(text), "# a b c d e f g h\n");
    }

    #[test]
    fn writers_are_named_and_counted() {
        let names = |count: usize| (0..count).map(|n| format!("m{n}")).collect::<BTreeSet<_>>();
        assert_eq!(by(&names(2)), " by m0, m1");
        assert_eq!(by(&names(6)), " by m0, m1, m2, m3, m4 and others");
        assert_eq!(by(&names(0)), ", nobody knows by whom");
        assert_eq!([0, 1, 2, 3].map(times), ["never", "once", "twice", "3 times"]);
    }
}
