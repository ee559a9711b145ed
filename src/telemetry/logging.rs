//! Logs by `tracing`: JSON in a cluster, text on a terminal, always on standard error.
//!
//! A panic is told by its place alone, since its message may quote the object under review.

use std::io::{IsTerminal, Write as _};
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The level cannot be read.
    #[error(
        "cannot read log level {level:?}: {cause}; want error, warn, info, debug or trace, or module=level"
    )]
    BadLevel {
        /// What was given.
        level: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Something else logs already.
    #[error("logging has been started already")]
    AlreadyStarted,
}

/// Starts logging for the whole process. `level` is a level, or a list of `module=level`.
///
/// # Errors
/// [`LoggingError`] when `level` cannot be read, or logging has been started before.
pub fn start(format: Format, level: &str) -> Result<(), LoggingError> {
    let filter = EnvFilter::builder()
        .parse(level)
        .map_err(|error| LoggingError::BadLevel { level: level.to_owned(), cause: error.to_string() })?;
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let json = format == Format::Json || (format == Format::Auto && !terminal);
    let started = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).finish().try_init()
    } else {
        builder.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).finish().try_init()
    };
    started.map_err(|_| LoggingError::AlreadyStarted)?;
    std::panic::set_hook(Box::new(|panic| tracing::error!(place = place(panic), "{PANICKED}")));
    Ok(())
}

const PANICKED: &str = "a bug: this code panicked; its message is left out, as it may quote an object";

fn place(panic: &PanicHookInfo<'_>) -> String {
    panic.location().map(ToString::to_string).unwrap_or_default()
}

/// From now on a panic is told by its place alone, on standard error. [`start`] makes that a log line.
pub fn tell_panics_by_place() {
    std::panic::set_hook(Box::new(|panic| {
        // There is nobody to tell that standard error is closed.
        drop(writeln!(std::io::stderr(), "driftguard: {PANICKED} (at {})", place(panic)));
    }));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]
    use std::process::Command;

    use super::*;

    /// Tells the test below, in a process of its own, how panics are told there.
    const HOW: &str = "DRIFTGUARD_TEST_PANICS";
    const PLANTED: &str = "planted-hunter2";

    /// Hooks are set for the whole process, so that this one must not run with other tests.
    #[test]
    #[ignore = "run by the test below in a process of its own"]
    fn panics_with_a_value_in_its_message() {
        let Ok(how) = std::env::var(HOW) else { return };
        tell_panics_by_place();
        match how.as_str() {
            "json" => start(Format::Json, "trace").unwrap(),
            "text" => start(Format::Text, "trace").unwrap(),
            _ => {}
        }
        let value = PLANTED.to_owned();
        assert!(std::thread::spawn(move || panic!("cannot read {value}")).join().is_err());
        let quoted = || PLANTED.parse::<u64>().map_err(|_| PLANTED);
        let indexed = std::thread::spawn(move || quoted().unwrap());
        assert!(indexed.join().is_err());
    }

    #[test]
    fn a_panic_is_told_by_its_place_and_holds_no_value() {
        for how in ["json", "text", "plain"] {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "telemetry::logging::tests::panics_with_a_value_in_its_message"])
                .args(["--ignored", "--nocapture"])
                .env(HOW, how)
                .output()
                .unwrap();
            let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
            let said = said.concat();
            assert!(output.status.success(), "{how}: {said}");
            assert_eq!(said.matches("a bug: this code panicked").count(), 2, "{how}: {said}");
            assert_eq!(said.matches("src/telemetry/logging.rs:").count(), 2, "{how}: {said}");
            assert!(!said.contains(PLANTED), "{how}: {said}");
        }
    }
}
