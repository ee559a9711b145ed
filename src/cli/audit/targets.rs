//! Reads what the guards pin: in lists where many pin there, by name where few do.
//!
//! A list that fails, whatever for, is no answer for those that it did not show: they are read by name. A
//! target is only missing when a complete list did not show it or a read found none.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};

use futures::StreamExt as _;

use super::guards::Guarded;
use super::progress::Progress;
use crate::audit::watch::event::meta;
use crate::audit::watch::request::{Failure, Listing, OBJECTS, Purpose, Requests};
use crate::cli::cluster::Cluster;
use crate::core::guard::{GuardState, Target, url_segment};
use crate::core::report::{Entry, Known, Sight, invalid, judge};
use crate::telemetry::metrics::watches::WatchMetrics;

/// From so many targets of one resource in one namespace on, a list costs less than reads by name.
const MANY: usize = 20;
/// From so many targets of one resource in so many namespaces on, one list of all namespaces does.
const VERY_MANY: (usize, usize) = (200, 8);
/// Objects in one page of a list.
const PAGE: u32 = 500;
/// As many reads in a row without an answer mean that the API server has stopped answering.
const STOPPED: usize = 3;
/// Requests under way at once.
const AT_ONCE: usize = 8;

/// The entries of all guards. Progress is shown to a terminal, where that is wanted.
pub(super) async fn read(
    cluster: &Cluster,
    guards: &[Guarded],
    known: &Known,
    shows_progress: bool,
) -> Vec<Entry> {
    let requests = Requests::new(cluster.client.clone(), WatchMetrics::default());
    let progress = Progress::of(guards.len(), shows_progress);
    let reader = Reader { requests, guards, known, progress, unanswered: Cell::new(0) };
    let (mut entries, mut places) = (Vec::with_capacity(guards.len()), BTreeMap::<_, Targets<'_>>::new());
    for (at, guarded) in guards.iter().enumerate() {
        match &guarded.state {
            GuardState::Valid(guard) => {
                let target = &guard.target;
                let place: Resource<'_> = (&target.group, &target.version, &target.resource);
                let namespace = target.namespace.as_deref().unwrap_or_default();
                let key = (namespace, target.name.as_str());
                places.entry(place).or_default().entry(key).or_default().push(at);
            }
            GuardState::Invalid(_) => {
                entries.push(not_understood(guarded, known));
                reader.progress.step();
            }
        }
    }
    let work: Vec<Work<'_>> =
        places.into_iter().flat_map(|(resource, targets)| plan(resource, targets)).collect();
    let mut under_way =
        futures::stream::iter(work).map(|work| reader.carry_out(work)).buffer_unordered(AT_ONCE);
    while let Some(of_some) = under_way.next().await {
        entries.extend(of_some);
    }
    entries
}

/// The entry of a guard that cannot be understood.
fn not_understood(guarded: &Guarded, known: &Known) -> Entry {
    let (kind, name) = guarded.spelled.as_ref().map_or(("", ""), |(kind, name)| (kind, name));
    match &guarded.state {
        GuardState::Invalid(state) => invalid(state, kind, name, &guarded.facts, known),
        GuardState::Valid(guard) => {
            let sight = Sight::Unreadable { reason: "NotRead", why: "nobody looked" };
            judge(guard, &guarded.facts, sight, known)
        }
    }
}

/// Group, version and plural.
type Resource<'a> = (&'a str, &'a str, &'a str);
/// Positions of guards, by namespace (empty for cluster-scoped kinds) and name of their target.
type Targets<'a> = BTreeMap<(&'a str, &'a str), Vec<usize>>;

/// Some requests that belong together.
enum Work<'a> {
    /// A list of all namespaces, or what it takes instead.
    Everywhere(Resource<'a>, Targets<'a>),
    /// A list of one namespace, or of a kind without.
    List(Resource<'a>, Targets<'a>),
    /// Reads by name.
    ByName(Targets<'a>),
}

/// The fewest requests that show all of these.
fn plan<'a>(resource: Resource<'a>, targets: Targets<'a>) -> Vec<Work<'a>> {
    let namespaces: HashSet<&str> = targets.keys().map(|(namespace, _)| *namespace).collect();
    if targets.len() >= VERY_MANY.0 && namespaces.len() >= VERY_MANY.1 {
        return vec![Work::Everywhere(resource, targets)];
    }
    by_namespace(targets)
        .into_iter()
        .flat_map(|targets| {
            if targets.len() >= MANY {
                vec![Work::List(resource, targets)]
            } else {
                // Each by itself, so that they are read beside one another.
                targets.into_iter().map(|one| Work::ByName([one].into())).collect()
            }
        })
        .collect()
}

fn by_namespace<'a>(targets: Targets<'a>) -> Vec<Targets<'a>> {
    let mut parts: BTreeMap<&str, Targets<'a>> = BTreeMap::new();
    for (key, guards) in targets {
        parts.entry(key.0).or_default().insert(key, guards);
    }
    parts.into_values().collect()
}

fn list_path((group, version, plural): Resource<'_>, namespace: &str) -> String {
    let root = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
    let place =
        if namespace.is_empty() { String::new() } else { format!("/namespaces/{}", url_segment(namespace)) };
    format!("{root}/{version}{place}/{plural}?limit={PAGE}")
}

struct Reader<'a> {
    requests: Requests,
    guards: &'a [Guarded],
    known: &'a Known,
    progress: Progress,
    /// How many reads in a row had no answer. After some the API server has stopped answering, and nothing more is
    /// asked; one may be the trouble of one kind, or of one connection.
    unanswered: Cell<usize>,
}

impl Reader<'_> {
    async fn carry_out(&self, work: Work<'_>) -> Vec<Entry> {
        match work {
            Work::ByName(targets) => self.by_name(&targets).await,
            Work::List(resource, targets) => self.listed(resource, targets).await,
            Work::Everywhere(resource, targets) => {
                let mut entries = Vec::with_capacity(targets.len());
                match self.list(list_path(resource, ""), &targets, &mut entries).await {
                    Ok(()) => {}
                    // A right on some namespaces, or one object that cannot be decoded, still shows the others.
                    Err(seen) => {
                        for part in by_namespace(without(targets, &seen)) {
                            entries.extend(self.listed(resource, part).await);
                        }
                    }
                }
                entries
            }
        }
    }

    /// By a list of one namespace, and by name where that fails.
    async fn listed(&self, resource: Resource<'_>, targets: Targets<'_>) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(targets.len());
        let namespace = targets.keys().next().map_or("", |(namespace, _)| *namespace);
        let is_worth_it = targets.len() >= MANY;
        let listed = if is_worth_it {
            self.list(list_path(resource, namespace), &targets, &mut entries).await
        } else {
            Err(HashSet::new())
        };
        if let Err(seen) = listed {
            entries.extend(self.by_name(&without(targets, &seen)).await);
        }
        entries
    }

    /// Takes a list, page by page and item by item.
    ///
    /// # Errors
    /// When it is not complete: the positions of the guards of which it showed the target.
    async fn list(
        &self,
        uri: String,
        targets: &Targets<'_>,
        entries: &mut Vec<Entry>,
    ) -> Result<(), HashSet<usize>> {
        let mut seen = HashSet::new();
        let mut listing = Listing::new(&self.requests, uri, OBJECTS, Purpose::List).ahead();
        loop {
            match listing.next().await {
                Ok(Some(item)) => {
                    // An item of which not even the name can be read may be any of them.
                    let Ok(meta) = meta(&item) else { return Err(seen) };
                    let Some(of_it) = targets.get(&(&*meta.namespace, &*meta.name)) else { continue };
                    for at in of_it.iter().filter(|at| seen.insert(**at)) {
                        entries.push(self.judge(*at, Sight::Present(&item)));
                    }
                }
                Ok(None) => break,
                Err(_) => return Err(seen),
            }
        }
        for at in targets.values().flatten().filter(|at| !seen.contains(at)) {
            entries.push(self.judge(*at, Sight::Absent("there is no such object")));
        }
        Ok(())
    }

    /// One after the other, each by its name.
    async fn by_name(&self, targets: &Targets<'_>) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(targets.len());
        for of_one in targets.values() {
            // All of them pin the same object.
            let Some(target) = of_one.first().and_then(|at| self.guards[*at].state.target()) else {
                continue;
            };
            let found = self.get(target).await;
            for at in of_one {
                let sight = match &found {
                    Ok(json) => Sight::Present(json),
                    Err(failure) if failure.code == 404 && failure.about.is_some() => {
                        Sight::Absent("there is no such object")
                    }
                    Err(failure) => Sight::Unreadable { reason: reason(failure), why: &failure.message },
                };
                entries.push(self.judge(*at, sight));
            }
        }
        entries
    }

    async fn get(&self, target: &Target) -> Result<bytes::Bytes, Failure> {
        if self.unanswered.get() >= STOPPED {
            let message = "the API server stopped answering".to_owned();
            return Err(Failure { code: 0, message, about: None });
        }
        let found = self.requests.read(&target.url_path(), OBJECTS, Purpose::Get).await;
        let is_answered = found.as_ref().map_or_else(|failure| failure.code != 0, |_| true);
        self.unanswered.set(if is_answered { 0 } else { self.unanswered.get() + 1 });
        found
    }

    fn judge(&self, at: usize, sight: Sight<'_>) -> Entry {
        self.progress.step();
        let guarded = &self.guards[at];
        match &guarded.state {
            GuardState::Valid(guard) => judge(guard, &guarded.facts, sight, self.known),
            GuardState::Invalid(_) => not_understood(guarded, self.known),
        }
    }
}

fn without<'a>(targets: Targets<'a>, seen: &HashSet<usize>) -> Targets<'a> {
    let is_left = |guards: &Vec<usize>| guards.iter().any(|at| !seen.contains(at));
    targets.into_iter().filter(|(_, guards)| is_left(guards)).collect()
}

/// Why an object was not read, in one word.
fn reason(failure: &Failure) -> &'static str {
    match failure.code {
        0 => "NoAnswer",
        401 | 403 => "Forbidden",
        404 => "NotServed",
        _ => "ServerError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(namespaces: usize, each: usize) -> Vec<(String, String)> {
        (0..namespaces)
            .flat_map(|place| (0..each).map(move |name| (format!("n{place}"), format!("o{name:04}"))))
            .collect()
    }

    fn planned(namespaces: usize, each: usize) -> Vec<&'static str> {
        let names = targets(namespaces, each);
        let keyed = names.iter().enumerate();
        let of: Targets<'_> =
            keyed.map(|(at, (namespace, name))| ((namespace.as_str(), name.as_str()), vec![at])).collect();
        plan(("apps", "v1", "deployments"), of)
            .iter()
            .map(|work| match work {
                Work::Everywhere(..) => "everywhere",
                Work::List(..) => "list",
                Work::ByName(..) => "by name",
            })
            .collect()
    }

    #[test]
    fn few_targets_are_read_by_name_and_many_are_listed() {
        assert_eq!(planned(1, 2), ["by name", "by name"]);
        assert_eq!(planned(2, 20), ["list", "list"]);
        assert_eq!(planned(10, 20), ["everywhere"]);
        assert_eq!(planned(7, 100).len(), 7, "fewer namespaces than that are listed each by itself");
    }

    #[test]
    fn lists_are_asked_for_by_pages() {
        let paths = [list_path(("", "v1", "configmaps"), "a"), list_path(("apps", "v1", "deployments"), "")];
        assert_eq!(
            paths,
            ["/api/v1/namespaces/a/configmaps?limit=500", "/apis/apps/v1/deployments?limit=500"]
        );
    }
}
