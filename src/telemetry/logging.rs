//! Logs by `tracing`: JSON in a cluster, text on a terminal, always on standard error.
//!
//! A panic is logged by its place alone, since its message may quote the object under review.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::traces::Traces;

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

/// Starts logging for the whole process, and traces where there are any. `level` is a level, or a list of
/// `module=level`.
///
/// # Errors
/// [`LoggingError`] when `level` cannot be read, or logging has been started before.
pub fn start(format: Format, level: &str, traces: Option<&Traces>) -> Result<(), LoggingError> {
    let filter = EnvFilter::builder()
        .parse(level)
        .map_err(|error| LoggingError::BadLevel { level: level.to_owned(), cause: error.to_string() })?;
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let json = format == Format::Json || (format == Format::Auto && !terminal);
    let lines = if json {
        lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    } else {
        lines.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).boxed()
    };
    let started = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces.map(Traces::layer))
        .try_init();
    started.map_err(|_| LoggingError::AlreadyStarted)?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            place,
            "a bug: this code panicked; its message is left out, as it may quote an object"
        );
    }));
    Ok(())
}
