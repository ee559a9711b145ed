//! The command line: one file per subcommand, parsed here and run there.
//!
//! Data goes to stdout, messages to stderr ([`output`]); a command ends with 0, 1 or 2 ([`exit`]).
//! Connection flags are kubectl's and the same for every command ([`cluster`]).

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub mod adopt;
pub mod approve;
pub mod audit;
pub mod breakglass;
pub mod cluster;
pub mod completion;
pub mod diff;
pub mod doctor;
pub mod exception;
pub mod exit;
pub mod explain;
pub mod guard;
mod guards;
pub mod hash;
pub mod install;
pub mod learn;
pub mod manifests;
pub mod output;
mod pinned;
pub mod restore;
pub mod resume;
pub mod serve;
mod signals;
pub mod stamp;
mod subject;
pub mod suspend;
mod table;
mod terms;
pub mod uninstall;
pub mod verify;
pub mod version;
mod wait;
mod words;
mod write;

use exit::Exit;

/// Hash-pinned configuration for Kubernetes.
///
/// A DriftGuard names one object and the SHA-256 of its approved content. Writes that would change
/// that content are refused.
#[derive(Debug, Parser)]
#[command(
    name = "driftguard",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Start here:\n  driftguard install\n  driftguard guard configmap market-settings | kubectl apply -f -"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the admission server and its controller
    Serve(Box<serve::ServeArgs>),
    /// Report which guarded objects are as approved
    Audit(Box<audit::AuditArgs>),
    /// Print the hash of files or of a live object
    Hash(hash::HashArgs),
    /// Make a DriftGuard for a live object or a file
    Guard(guard::GuardArgs),
    /// Watch objects for a while, and propose guards that let pass what changes
    Learn(learn::LearnArgs),
    /// Vouch for guards that nobody is known to have approved
    Adopt(adopt::AdoptArgs),
    /// Tell what is known of a guard, in sentences
    Explain(explain::ExplainArgs),
    /// Compare approved content with what is live
    Diff(diff::DiffArgs),
    /// Compare files with what their guards approve
    Verify(verify::VerifyArgs),
    /// Refresh hashes in manifests: as a KRM function, Helm post-renderer or pre-commit hook
    Stamp(stamp::StampArgs),
    /// Make new content the approved one
    Approve(Box<approve::ApproveArgs>),
    /// Put approved content back, once
    Restore(restore::RestoreArgs),
    /// Let writes to the targets of guards pass for a while
    Suspend(suspend::SuspendArgs),
    /// End the suspension of guards
    Resume(resume::ResumeArgs),
    /// Open, list and close exceptions: ways through for several guards
    Exception(exception::ExceptionArgs),
    /// Install DriftGuard into a cluster
    Install(install::InstallArgs),
    /// Remove DriftGuard from a cluster
    Uninstall(uninstall::UninstallArgs),
    /// Check an installation, each finding with its mend
    Doctor(doctor::DoctorArgs),
    /// Let writes pass for a while, also when DriftGuard is down
    Breakglass(breakglass::BreakglassArgs),
    /// Print the manifests that `install` applies
    Manifests(manifests::ManifestsArgs),
    /// Print a script by which a shell completes commands
    Completion(completion::CompletionArgs),
    /// Print the versions of this program and of the API server
    Version(version::VersionArgs),
}

/// The parser with everything that derive cannot say.
#[must_use]
pub fn command() -> clap::Command {
    let mut command = Cli::command();
    command = with_address(command);
    // These do not go by the context's namespace: they mean that of the installation.
    for name in ["install", "uninstall", "doctor"] {
        command = command.mut_subcommand(name, |sub| {
            let help = format!("Namespace of the installation [default: {}]", crate::api::names::NAMESPACE);
            sub.mut_arg("namespace", |namespace| namespace.help(help))
        });
    }
    command
}

/// kubectl's `--server` is an address. `hash` and `guard` have a switch of that name, so there the address is
/// `-s` and `--api-server` only.
fn with_address(mut command: clap::Command) -> clap::Command {
    let has = |sub: &clap::Command, id: &str| sub.get_arguments().any(|arg| arg.get_id() == id);
    let is_free = |sub: &clap::Command| sub.get_arguments().all(|arg| arg.get_long() != Some("server"));
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    for name in names {
        command = command.mut_subcommand(name, |sub| {
            let takes = has(&sub, cluster::ADDRESS_ID) && is_free(&sub);
            let named = |address: clap::Arg| address.visible_alias("server");
            with_address(if takes { sub.mut_arg(cluster::ADDRESS_ID, named) } else { sub })
        });
    }
    command
}

/// Parses `args` (the first is the program's own name), runs the command, returns its exit code.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut command = command();
    if args.first().is_some_and(|program| is_kubectl_plugin(program)) {
        command = command.bin_name("kubectl driftguard");
    }
    let parsed = command
        .try_get_matches_from_mut(args)
        .and_then(|matches| Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command)));
    match parsed {
        Ok(cli) => exit::code(run(cli)),
        Err(usage) => {
            // Help goes to stdout with 0, a mistake to stderr with 2; a closed pipe is no matter.
            let _ = usage.print();
            ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(exit::COULD_NOT_TELL))
        }
    }
}

fn is_kubectl_plugin(program: &std::ffi::OsStr) -> bool {
    Path::new(program).file_stem().is_some_and(|name| name == "kubectl-driftguard")
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    match cli.command {
        Command::Serve(args) => {
            let runtime = tokio::runtime::Runtime::new().context("cannot start worker threads")?;
            runtime.block_on(serve::run(*args))
        }
        Command::Audit(args) => one_thread()?.block_on(audit::run(*args)),
        Command::Hash(args) => one_thread()?.block_on(hash::run(args)),
        Command::Guard(args) => one_thread()?.block_on(guard::run(args)),
        Command::Learn(args) => one_thread()?.block_on(learn::run(args)),
        Command::Adopt(args) => one_thread()?.block_on(adopt::run(args)),
        Command::Explain(args) => one_thread()?.block_on(explain::run(args)),
        Command::Diff(args) => one_thread()?.block_on(diff::run(args)),
        Command::Verify(args) => one_thread()?.block_on(verify::run(args)),
        Command::Stamp(args) => one_thread()?.block_on(stamp::run(args)),
        Command::Approve(args) => one_thread()?.block_on(approve::run(*args)),
        Command::Restore(args) => one_thread()?.block_on(restore::run(args)),
        Command::Suspend(args) => one_thread()?.block_on(suspend::run(args)),
        Command::Resume(args) => one_thread()?.block_on(resume::run(args)),
        Command::Exception(args) => one_thread()?.block_on(exception::run(args)),
        Command::Install(args) => one_thread()?.block_on(install::run(args)),
        Command::Uninstall(args) => one_thread()?.block_on(uninstall::run(args)),
        Command::Doctor(args) => one_thread()?.block_on(doctor::run(args)),
        Command::Breakglass(args) => one_thread()?.block_on(breakglass::run(args)),
        Command::Manifests(args) => one_thread()?.block_on(manifests::run(args)),
        Command::Completion(args) => one_thread()?.block_on(completion::run(&args)),
        Command::Version(args) => one_thread()?.block_on(version::run(args)),
    }
}

/// Short commands need no worker threads.
fn one_thread() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the event loop")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_command_has_help_and_an_example() {
        for sub in command().get_subcommands_mut() {
            let help = sub.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{} has no examples:\n{help}", sub.get_name());
        }
    }

    #[test]
    fn a_mistyped_command_gets_a_suggestion() {
        let error = command().try_get_matches_from(["driftguard", "hsah"]).unwrap_err().to_string();
        assert!(error.contains("'hash'"), "{error}");
    }

    #[test]
    fn the_address_is_spelled_as_in_kubectl_where_no_switch_has_that_name() {
        let parse = |args: &[&str]| command().try_get_matches_from(args);
        assert!(parse(&["driftguard", "install", "--server", "https://host:6443"]).is_ok());
        assert!(parse(&["driftguard", "exception", "list", "--server", "https://host:6443"]).is_ok());
        assert!(parse(&["driftguard", "hash", "-s", "https://host:6443", "configmap", "a"]).is_ok());
    }

    #[test]
    fn it_knows_when_kubectl_calls_it_as_a_plugin() {
        assert!(is_kubectl_plugin("/usr/local/bin/kubectl-driftguard".as_ref()));
        assert!(!is_kubectl_plugin("driftguard".as_ref()));
    }
}
