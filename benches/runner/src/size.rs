//! The three sizes that are measured.

use std::fmt;

/// How much text a ConfigMap holds. The review of an update carries it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    name: &'static str,
    bytes: usize,
}

impl Size {
    /// All of them, small to large.
    pub(crate) const ALL: [Self; 3] = [
        Self { name: "2KiB", bytes: 2 << 10 },
        Self { name: "200KiB", bytes: 200 << 10 },
        Self { name: "1MiB", bytes: 1 << 20 },
    ];

    /// In bytes.
    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}
