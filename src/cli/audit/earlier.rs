//! An earlier report, from a file.

use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::core::report::{API_VERSION, Report};

/// Reads a report.
///
/// # Errors
/// When there is no such file, or it holds something else.
pub(super) fn read(path: &Path) -> anyhow::Result<Report> {
    let name = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("{name} cannot be read"))?;
    let wanted = "want a file written by `driftguard audit -o json`";
    let report: Report =
        serde_json::from_slice(&bytes).with_context(|| format!("{name} holds no report; {wanted}"))?;
    ensure!(
        report.api_version == API_VERSION,
        "{name} holds a report of version {:?}, but only {API_VERSION} can be compared; {wanted}",
        report.api_version
    );
    Ok(report)
}
