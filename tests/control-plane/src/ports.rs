//! Free TCP ports on 127.0.0.1.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result};

/// Below the ports that systems give to outgoing connections (from 32768 on Linux, 49152 elsewhere): a
/// server that is stopped and started again must find its port free.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port that nothing listens on now. The next call gives another one, and another process most likely too.
///
/// # Errors
/// When none of the range is free.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Where a process begins is spread by its id, so that two test runs rarely try the same port.
    let offset = u16::try_from(u64::from(std::process::id()) * 97 % u64::from(COUNT))?;
    (0..COUNT)
        .map(|_| FIRST + (offset + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .with_context(|| format!("no port from {FIRST} to {} is free", FIRST + COUNT - 1))
}
