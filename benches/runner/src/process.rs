//! What Linux counts about a running server.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use driftguard_control_plane::guardian;

/// Clock ticks a second in `/proc/PID/stat`: `USER_HZ`, 100 on every architecture we build for.
const TICKS: f64 = 100.0;

/// Resident memory in MiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Now.
    pub resident: f64,
    /// The most since the start.
    pub peak: f64,
}

/// Seconds of CPU that a process has used, in user and kernel mode.
pub(crate) fn cpu_seconds(process: &guardian::Process) -> anyhow::Result<f64> {
    parse_cpu_seconds(&read(process, "stat")?)
        .with_context(|| format!("cannot read the CPU time of {}", process.name()))
}

/// The memory of a process.
pub(crate) fn memory(process: &guardian::Process) -> anyhow::Result<Memory> {
    parse_memory(&read(process, "status")?)
        .with_context(|| format!("cannot read the memory of {}", process.name()))
}

/// The most memory that a process has taken so far, in MiB; `None` when it has ended.
pub(crate) fn peak_of(id: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    parse_memory(&status).map(|memory| memory.peak)
}

fn read(process: &guardian::Process, file: &str) -> anyhow::Result<String> {
    let ended = || anyhow!("{} has ended; {}", process.name(), process.log_tail());
    let id = process.pid().ok_or_else(ended)?;
    let path = Path::new("/proc").join(id.to_string()).join(file);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// `utime` and `stime`, fields 14 and 15; the name in field 2 may hold anything but ends with the
/// last parenthesis.
fn parse_cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

fn parse_memory(status: &str) -> Option<Memory> {
    let mebibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? / 1024.0)
    };
    Some(Memory { resident: mebibytes("VmRSS")?, peak: mebibytes("VmHWM")? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_a_name_with_blanks_and_parentheses() {
        let stat = "42 (a) b) R 1 2 3 4 5 6 7 8 9 10 250 125 0 0 20";
        assert_eq!(parse_cpu_seconds(stat), Some(3.75));
        assert_eq!(parse_cpu_seconds("42"), None);
    }

    #[test]
    fn memory_is_read_in_mebibytes() {
        let memory = parse_memory("Name:\tx\nVmHWM:\t    4096 kB\nVmRSS:\t    1024 kB\n").unwrap();
        assert_eq!((memory.resident, memory.peak), (1.0, 4.0));
    }
}
