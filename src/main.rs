//! The `driftguard` binary: everything is in the library; see `driftguard::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // One crypto provider for everything that speaks TLS in this process. It fails only when one
    // is installed already, which then serves as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    driftguard::telemetry::logging::tell_panics_by_place();
    driftguard::cli::main(std::env::args_os())
}
