//! `driftguard completion`: what a shell needs to complete the words of a command line.
//!
//! For kubectl, whose plugins are asked for candidates one by one, it answers as cobra does: a candidate a line,
//! and a last line that says what else the shell may try.

use clap::Command;

use super::exit::Exit;
use super::output;

/// Cobra's directive: complete nothing by file names.
const NO_FILES: &str = ":4";
/// Cobra's directive: complete as the shell does without us.
const DEFAULT: &str = ":0";

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
pub fn run(args: &CompletionArgs) -> anyhow::Result<Exit> {
    let mut command = super::command();
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
        Shell::Powershell => clap_complete::Shell::PowerShell,
        Shell::Kubectl => {
            output::data(candidates(&command, &args.words).as_bytes())?;
            return Ok(Exit::Clean);
        }
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "driftguard", &mut script);
    output::data(&script)?;
    Ok(Exit::Clean)
}

/// What may stand in the place of the last word.
fn candidates(root: &Command, words: &[String]) -> String {
    let (typed, before) = words.split_last().map_or(("", &[][..]), |(last, rest)| (last.as_str(), rest));
    let mut command = root;
    for word in before {
        if let Some(sub) = command.find_subcommand(word) {
            command = sub;
        }
    }
    let value_of = before.last().and_then(|word| word.strip_prefix("--")).and_then(|long| {
        command.get_arguments().find(|arg| arg.get_long() == Some(long) && arg.get_action().takes_values())
    });
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
        let found: Vec<String> = subs.chain(values).collect();
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
        candidates(&super::super::command(), &words)
    }

    #[test]
    fn commands_flags_and_values_are_completed() {
        assert_eq!(of(&["resu"]), "resume\tEnd the suspension of guards\n:4\n");
        assert!(of(&["exception", "c"]).starts_with("close\t"));
        assert!(of(&["guard", "--enf"]).starts_with("--enforcement\t"));
        assert_eq!(of(&["guard", "--enforcement", "De"]), "Deny\n:4\n");
        assert!(of(&["manifests", "crd"]).starts_with("crds\n"));
        assert_eq!(of(&["hash", "-f", ""]), ":0\n", "files are for the shell");
    }
}
