//! `driftguard learn`: watches objects for a while, and proposes guards that let pass what changes by itself.
//!
//! It reads and never writes. Of each object its last form is kept and what changed ([`watched`]); what that means for
//! a guard is decided in the core ([`crate::core::learning`]). Of Secrets no value is shown, and no hash but the
//! `expectedHash` of a guard that is proposed.

use std::cell::RefCell;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::cluster::{CallError, Cluster, ClusterArgs};
use super::exit::Exit;
use super::guard::manifest::Mode;
use super::guards;
use super::output;
use super::signals;
use super::subject::Served;
use super::words::counted;
use crate::audit::watch::request::Requests;
use crate::core::duration;
use crate::telemetry::metrics::watches::WatchMetrics;

mod follow;
mod proposal;
mod watched;

use follow::{Place, follow};
use proposal::{Guarded, Proposals};
use watched::Watched;

/// What is watched where nothing is named. Secrets are not among them, since not everybody may read them.
const USUAL_KINDS: [&str; 4] = ["configmaps", "deployments.apps", "statefulsets.apps", "daemonsets.apps"];
/// Pause between two lines of progress.
const TICK: Duration = Duration::from_millis(500);

/// Arguments of `driftguard learn`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It watches with your rights, writes nothing, and prints guards as YAML once the time is over or Ctrl-C \
                        is pressed: an object whose content stayed is pinned whole, one of which some paths changed \
                        with these as ignorePaths and a comment that says who wrote them and how often. What only tools \
                        wrote by which people write, such as kubectl or Helm, stays pinned, and so does what nobody is known to have \
                        written. Objects most of which changes, that controllers make, or that have a guard are named in \
                        comments. Watch for as long as it takes until everything that writes has written once.\n\n\
                        A Secret's guard holds its hash, as that of `driftguard guard`; nothing else of it is shown but \
                        names of keys.\n\n\
                        Exit code 2: a kind could not be watched; the others are proposed all the same.\n\n\
                        Examples:
  driftguard learn -n shop --for 10m --output-file guards.yaml
  driftguard learn -n shop --for 1h configmaps secrets deploy/web
  driftguard learn -A -l app=shop deployments --enforcement Audit"
)]
pub struct LearnArgs {
    /// What to watch: KIND for all objects of a kind, or KIND/NAME [default: configmaps, deployments, statefulsets and
    /// daemonsets]
    #[arg(value_name = "KIND[/NAME]", value_delimiter = ',')]
    objects: Vec<String>,
    /// How long to watch, such as 10m or 24h [default: until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = duration::parse_some)]
    duration: Option<Duration>,
    /// Watch the objects of all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only objects with these labels, such as app=shop,tier!=cache
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Leave out also what only kubectl, Helm, Argo CD, Flux and the like wrote
    #[arg(long)]
    all_writers: bool,
    /// What the proposed guards do with a write that is not approved [default: that of the installation]
    #[arg(long, value_name = "MODE")]
    enforcement: Option<Mode>,
    /// Write the guards to this file, whole or not at all, instead of standard output
    #[arg(long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Watches, and prints the guards.
///
/// # Errors
/// When the cluster cannot be asked, a kind is not served, or nothing at all could be watched.
pub async fn run(args: LearnArgs) -> anyhow::Result<Exit> {
    let cluster = args.cluster.connect().await?;
    let served = Served::load(&cluster).await?;
    let places = args.places(&cluster, &served)?;
    let watched = RefCell::new(Watched::of(&places));
    // Before anything is watched: Ctrl-C still ends the command itself while a cluster does not answer.
    let (guarded, unknown) = guarded(&cluster, &served, &args).await;
    let began = Instant::now();
    let reach = args.reach(&cluster, &places);
    watch(&args, &cluster, &places, (&reach, &watched)).await?;
    let length = began.elapsed();
    let watched = watched.into_inner();
    let troubles = watched.troubles();
    ensure!(watched.has_seen() || troubles.is_empty(), "nothing could be watched: {}", troubles.join("; "));
    ensure!(watched.has_seen(), "there was no object to watch in {reach}");
    let heading = format!(
        "Proposed by driftguard learn, which watched {} in {reach} for {}.",
        counted(watched.count(), "object"),
        // What it takes to end is not counted.
        span(args.duration.map_or(length, |asked| asked.min(length)))
    );
    let mut proposals = Proposals::default();
    for ((at, namespace, name), known) in watched.into_objects() {
        proposals.add(&places[at], (namespace, name), known, (&served, &guarded), args.all_writers);
    }
    let (made, partial) = proposals.counts();
    let text = proposals.render(&heading, &args)?;
    // Whoever stops reading, or whose disk is full, is told all the same what could not be told of what was watched.
    let written = output::streamed(args.output_file.as_deref(), |out| out.write_all(text.as_bytes()));
    output::message(&format!("proposed: {}, {partial} of them without what changed", counted(made, "guard")));
    let is_whole = troubles.is_empty() && unknown.is_none();
    if let Some(unknown) = unknown {
        output::message(&format!(
            "error: it is not known of every object whether it has a guard, and a second one is refused: {unknown}"
        ));
    }
    for trouble in troubles {
        output::message(&format!("error: not watched to the end: {trouble}"));
    }
    written?;
    Ok(if is_whole { Exit::Clean } else { Exit::CouldNotTell })
}

impl LearnArgs {
    fn places(&self, cluster: &Cluster, served: &Served) -> anyhow::Result<Vec<Place>> {
        let usual = USUAL_KINDS.map(str::to_owned);
        let words = if self.objects.is_empty() { &usual[..] } else { &self.objects };
        let mut places: Vec<Place> = Vec::new();
        for word in words {
            let (kind, name) = match word.split_once('/') {
                None => (word.as_str(), None),
                Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !name.contains('/') => {
                    (kind, Some(name.to_owned()))
                }
                Some(_) => bail!("{word:?} is neither KIND nor KIND/NAME; a namespace goes to -n"),
            };
            ensure!(
                name.is_none() || self.selector.is_none(),
                "-l chooses among the objects of a KIND; leave out the name of {word}"
            );
            let entry = served.resolve(kind)?;
            ensure!(
                name.is_none() || !entry.namespaced || !self.all_namespaces,
                "{word} is an object of one namespace; name that by -n instead of -A"
            );
            let namespace = (entry.namespaced && !self.all_namespaces).then(|| cluster.namespace.clone());
            let is_same = |place: &Place| place.entry == *entry;
            // Each object is watched once, or its changes would be counted twice.
            if places.iter().any(|place| is_same(place) && (place.name.is_none() || place.name == name)) {
                continue;
            }
            if name.is_none() {
                places.retain(|place| !is_same(place));
            }
            places.push(Place { entry: entry.clone(), namespace, name, selector: self.selector.clone() });
        }
        Ok(places)
    }

    /// Where, for messages.
    fn reach(&self, cluster: &Cluster, places: &[Place]) -> String {
        if places.iter().all(|place| !place.entry.namespaced) {
            "the cluster".to_owned()
        } else if self.all_namespaces {
            "all namespaces".to_owned()
        } else {
            format!("namespace {}", cluster.namespace)
        }
    }
}

/// Watches until the time is over, somebody ends it, or nothing may be watched.
async fn watch(
    args: &LearnArgs,
    cluster: &Cluster,
    places: &[Place],
    (reach, watched): (&str, &RefCell<Watched>),
) -> anyhow::Result<()> {
    // Before anything is awaited: from now on what was learnt is written, whoever ends it.
    let mut ending = signals::listen()?;
    let requests = Requests::new(cluster.client.clone(), WatchMetrics::default());
    let follow_all = futures::future::join_all(
        places.iter().enumerate().map(|(at, place)| follow(&requests, place, at, watched)),
    );
    let over = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = follow_all => {}
        () = over => {}
        () = signals::heard(&mut ending) => {}
        () = tell(args, reach, watched) => {}
    }
    if std::io::stderr().is_terminal() {
        // There is nowhere to report that this failed.
        let _ = write!(std::io::stderr(), "\r\u{1b}[K");
    }
    Ok(())
}

/// Says once that it watches, and to a terminal what it has seen. Never ends.
async fn tell(args: &LearnArgs, reach: &str, watched: &RefCell<Watched>) {
    let is_shown = std::io::stderr().is_terminal();
    let began = Instant::now();
    let mut is_told = false;
    loop {
        let (is_begun, count, changes) = {
            let watched = watched.borrow();
            (watched.is_begun(), watched.count(), watched.changes())
        };
        if is_begun && !is_told {
            is_told = true;
            for (place, why) in watched.borrow().refused() {
                output::message(&format!("note: {place} cannot be watched: {why}"));
            }
            let until = if args.duration.is_some() { "Ctrl-C ends it early" } else { "Ctrl-C ends it" };
            output::message(&format!("watching {} in {reach}; {until}", counted(count, "object")));
        }
        if is_shown && is_told {
            let left = args.duration.map_or_else(
                || span(began.elapsed()),
                |duration| format!("{} left", span(duration.saturating_sub(began.elapsed()))),
            );
            let objects = counted(count, "object");
            let _ =
                write!(std::io::stderr(), "\r{objects}, writes that changed them: {changes}, {left}\u{1b}[K");
        }
        tokio::time::sleep(TICK).await;
    }
}

/// A length of time as people say it, to the second.
fn span(length: Duration) -> String {
    let seconds = length.as_secs();
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest:02}s"),
        _ => format!("{hours}h{minutes:02}m"),
    }
}

/// What has a guard already, since a second one would be refused; and why that is not known of all, if so.
async fn guarded(cluster: &Cluster, served: &Served, args: &LearnArgs) -> (Guarded, Option<String>) {
    let code = |error: &anyhow::Error| error.downcast_ref::<CallError>().and_then(|error| error.code);
    let mut listed = guards::all(cluster, None, None, |_| true).await;
    if listed.as_ref().is_err_and(|error| code(error) == Some(403)) && !args.all_namespaces {
        let namespace = Some(cluster.namespace.as_str());
        listed = guards::all(cluster, namespace, None, |_| true).await;
        output::message(&format!(
            "note: guards of other namespaces may not be listed: what one of them pins here gets a second guard, which is refused; {} is looked at alone",
            cluster.namespace
        ));
    }
    let (found, unknown) = match listed {
        Ok((found, 0)) => (found, None),
        Ok((found, unread)) => (found, Some(format!("{unread} guards cannot be read"))),
        // Where DriftGuard is not installed there is none.
        Err(error) if code(&error) == Some(404) => (Vec::new(), None),
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    };
    let of = |guard: &guards::Found| {
        let (entry, namespace, name) = guard.target(served)?;
        let key = (
            entry.group.to_string(),
            entry.plural.to_string(),
            namespace.unwrap_or_default().to_owned(),
            name.to_owned(),
        );
        Some((key, format!("{}/{}", guard.namespace(), guard.name())))
    };
    (found.iter().filter_map(of).collect(), unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_told_as_people_say_it() {
        let told = |seconds| span(Duration::from_secs(seconds));
        assert_eq!([told(5), told(600), told(3_725)], ["5s", "10m00s", "1h02m"]);
    }
}
