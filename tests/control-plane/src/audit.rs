//! The audit log of the API servers: who asked for what, and what was answered.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

const POLICY: &str = "audit-policy.yaml";
const LOG: &str = "audit.log";
const NONE: &str = "no audit log; build with `audited()`";

/// How much is noted of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// Who asked for what, and what was answered.
    Metadata,
    /// What was sent, too, and what webhooks changed of it.
    Request,
}

/// Writes the policy and gives the flags that follow it. Several API servers append to one file.
pub(crate) fn flags(folder: &Path, level: Level) -> Result<[String; 4]> {
    // A watch counts as soon as it is answered: it may not end before the test does.
    let policy = format!(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: {level:?}\n"
    );
    std::fs::write(folder.join(POLICY), policy).context("cannot write the audit policy")?;
    Ok([
        format!("--audit-policy-file={}", folder.join(POLICY).display()),
        format!("--audit-log-path={}", folder.join(LOG).display()),
        "--audit-log-mode=blocking".to_owned(),
        // In MiB; after 100 of them the log would begin anew.
        "--audit-log-maxsize=65536".to_owned(),
    ])
}

/// How many bytes the log has.
pub(crate) fn size(folder: &Path) -> Result<u64> {
    Ok(std::fs::metadata(folder.join(LOG)).context(NONE)?.len())
}

/// Every entry behind the first `from` bytes; a line that is being written just now is left for the next time.
pub(crate) fn read(folder: &Path, from: u64) -> Result<Vec<Value>> {
    let mut file = std::fs::File::open(folder.join(LOG)).context(NONE)?;
    file.seek(SeekFrom::Start(from))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).context("an audit entry is not JSON")).collect()
}
