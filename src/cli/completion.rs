//! `driftguard completion`: what a shell needs to complete the words of a command line.
//!
//! For kubectl, whose plugins are asked for candidates one by one, it answers as cobra does: a candidate a line,
//! and a last line that says what else the shell may try.

use std::time::Duration;

use clap::{Command, FromArgMatches as _};
use kube::api::ListParams;

use super::cluster::ClusterArgs;
use super::exit::Exit;
use super::output;
use crate::api::DriftGuard;

/// Cobra's directive: complete nothing by file names.
const NO_FILES: &str = ":4";
/// Cobra's directive: complete as the shell does without us.
const DEFAULT: &str = ":0";

/// How positional arguments are called that are names of guards.
const GUARDS: [&str; 2] = ["GUARD", "NAME"];

/// Commands whose `NAME` is not that of a guard.
const OTHERS: [&str; 2] = ["guard", "close"];

/// How long somebody who pressed a key waits for names.
const PATIENCE: Duration = Duration::from_secs(2);

/// As many names as anybody reads.
const MOST_NAMES: usize = 500;

/// Guards in one page.
const PAGE: u32 = 500;

/// Arguments of `driftguard completion`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  source <(driftguard completion bash)
  driftguard completion zsh > \"${fpath[1]}/_driftguard\"
  driftguard completion fish > ~/.config/fish/completions/driftguard.fish")]
pub struct CompletionArgs {
    /// For which shell; kubectl prints candidates for the words that follow
    #[arg(value_name = "SHELL")]
    shell: Shell,
    /// With kubectl: the words typed so far, the last one perhaps empty
    #[arg(value_name = "WORD", last = true)]
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Powershell,
    /// What kubectl_complete-driftguard prints for `kubectl driftguard`
    Kubectl,
}

/// Prints it.
///
/// # Errors
/// When stdout is closed.
pub async fn run(args: &CompletionArgs) -> anyhow::Result<Exit> {
    let mut command = super::command();
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::Powershell => clap_complete::Shell::PowerShell,
        Shell::Kubectl => {
            let guards =
                if wants_guards(&command, &args.words) { names(&args.words).await } else { Vec::new() };
            output::data(candidates(&command, &args.words, &guards).as_bytes())?;
            return Ok(Exit::Clean);
        }
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "driftguard", &mut script);
    output::data(&script)?;
    Ok(Exit::Clean)
}

/// The command that the words before the last one name, and the flag whose value the last one is.
fn place<'a>(root: &'a Command, before: &[String]) -> (&'a Command, Option<&'a clap::Arg>) {
    let mut command = root;
    for word in before {
        if let Some(sub) = command.find_subcommand(word) {
            command = sub;
        }
    }
    let flag = before.last().and_then(|word| {
        command.get_arguments().find(|arg| {
            let takes = arg.get_action().takes_values()
                && arg.get_num_args().is_none_or(|range| range.min_values() > 0);
            let long = word.strip_prefix("--").is_some_and(|long| {
                arg.get_long_and_visible_aliases().is_some_and(|all| all.contains(&long))
            });
            let short = arg.get_short().is_some_and(|short| *word == format!("-{short}"));
            takes && (long || short)
        })
    });
    (command, flag)
}

/// Whether the last word is a name of a guard.
fn wants_guards(root: &Command, words: &[String]) -> bool {
    let Some((typed, before)) = words.split_last() else { return false };
    let (command, flag) = place(root, before);
    let first = command.get_positionals().next();
    let is_name = |name: &clap::builder::Str| GUARDS.contains(&name.as_str());
    flag.is_none()
        && !typed.starts_with('-')
        && !OTHERS.contains(&command.get_name())
        && first.and_then(clap::Arg::get_value_names).is_some_and(|names| names.iter().any(is_name))
}

/// Names of the guards there, none when they cannot be had: whoever completes a word must not see why.
async fn names(words: &[String]) -> Vec<String> {
    let program = std::iter::once("driftguard").chain(words.iter().map(String::as_str));
    let Ok(matches) = super::command().ignore_errors(true).try_get_matches_from(program) else {
        return Vec::new();
    };
    let mut deepest = &matches;
    while let Some((_, below)) = deepest.subcommand() {
        deepest = below;
    }
    let Ok(args) = ClusterArgs::from_arg_matches(deepest) else { return Vec::new() };
    let typed = words.last().map_or("", String::as_str).to_owned();
    let (tell, told) = tokio::sync::oneshot::channel();
    // On a thread that nobody waits for: a credential plugin that the kubeconfig names holds up its thread.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let names = runtime.ok().and_then(|runtime| runtime.block_on(listed(&args, &typed)));
        // Whoever waited may have gone.
        let _ = tell.send(names);
    });
    let names = tokio::time::timeout(PATIENCE, told).await;
    names.ok().and_then(Result::ok).flatten().unwrap_or_default()
}

/// Names of guards that begin as was typed.
async fn listed(args: &ClusterArgs, typed: &str) -> Option<Vec<String>> {
    let cluster = args.connect().await.ok()?;
    let guards = kube::Api::<DriftGuard>::namespaced(cluster.client.clone(), &cluster.namespace);
    let mut page = ListParams::default().limit(PAGE);
    let mut names = Vec::new();
    loop {
        let list = guards.list_metadata(&page).await.ok()?;
        let found = list.items.into_iter().filter_map(|guard| guard.metadata.name);
        names.extend(found.filter(|name| name.starts_with(typed)));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) if names.len() < MOST_NAMES => page = page.continue_token(&token),
            _ => return Some(names),
        }
    }
}

/// What may stand in the place of the last word, names of guards among it.
fn candidates(root: &Command, words: &[String], guards: &[String]) -> String {
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(last, rest)| (last.as_str(), rest));
    let (command, value_of) = place(root, before);
    let (found, otherwise) = if let Some(arg) = value_of {
        let values = arg.get_possible_values();
        let directive = if values.is_empty() { DEFAULT } else { NO_FILES };
        (values.iter().map(|value| value.get_name().to_owned()).collect::<Vec<_>>(), directive)
    } else if typed.starts_with('-') {
        let flags = command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(|arg| {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let help = help.lines().next().unwrap_or_default().to_owned();
            arg.get_long().map(|long| format!("--{long}\t{help}"))
        });
        (flags.collect(), NO_FILES)
    } else {
        let subs = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let subs = subs.map(|sub| {
            format!("{}\t{}", sub.get_name(), sub.get_about().map(ToString::to_string).unwrap_or_default())
        });
        let first = command.get_positionals().next();
        let values = first.map(|arg| arg.get_possible_values()).unwrap_or_default();
        let values = values.iter().map(|value| value.get_name().to_owned());
        let found: Vec<String> = subs.chain(values).chain(guards.iter().cloned()).collect();
        let directive = if found.is_empty() { DEFAULT } else { NO_FILES };
        (found, directive)
    };
    let mut text = String::new();
    for candidate in found.iter().filter(|candidate| candidate.starts_with(typed)) {
        text.push_str(candidate);
        text.push('\n');
    }
    text.push_str(otherwise);
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        candidates(&super::super::command(), &words, &["web-guard".to_owned()])
    }

    fn asks_for_guards(words: &[&str]) -> bool {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        wants_guards(&super::super::command(), &words)
    }

    #[test]
    fn names_of_guards_are_completed_where_one_is_asked_for() {
        for words in [
            &["suspend", ""][..],
            &["explain", "-n", "shop", "w"],
            &["audit", ""],
            &["exception", "open", ""],
        ] {
            assert!(asks_for_guards(words), "{words:?}");
        }
        let others = [
            &["suspend", "--fo"][..],
            &["suspend", "-n", ""],
            &["hash", ""],
            &["exception", "close", ""],
            &["sus"],
            &[],
        ];
        for words in others {
            assert!(!asks_for_guards(words), "{words:?}");
        }
        assert_eq!(of(&["suspend", "w"]), "web-guard\n:4\n");
    }

    #[test]
    fn commands_flags_and_values_are_completed() {
        assert_eq!(of(&["resu"]), "resume\tEnd the suspension of guards\n:4\n");
        assert!(of(&["exception", "c"]).starts_with("close\t"));
        assert!(of(&["guard", "--enf"]).starts_with("--enforcement\t"));
        assert_eq!(of(&["guard", "--enforcement", "De"]), "Deny\n:4\n");
        assert!(of(&["manifests", "crd"]).starts_with("crds\n"));
        assert_eq!(of(&["hash", "-f", ""]), ":0\n", "files are for the shell");
        assert_eq!(of(&["guard", "-o", "js"]), "json\n:4\n", "short flags take values, too");
    }
}
