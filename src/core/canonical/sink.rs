//! Where canonical bytes go: into SHA-256, or into memory for people to look at.

use sha2::{Digest, Sha256};

use crate::core::hash::ContentHash;

/// Takes canonical bytes in order.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Runs this long go to the hash as they are; shorter ones are gathered first, because each call of
/// the hash costs more than copying a few bytes.
const LONG: usize = 256;
const STAGE: usize = 1024;

/// SHA-256 behind a small stage.
pub(super) struct Hasher {
    sha: Sha256,
    stage: [u8; STAGE],
    filled: usize,
}

impl Hasher {
    pub(super) fn new() -> Self {
        Self { sha: Sha256::new(), stage: [0; STAGE], filled: 0 }
    }

    pub(super) fn finish(mut self) -> ContentHash {
        self.flush();
        ContentHash::from_digest(self.sha.finalize().into())
    }

    fn flush(&mut self) {
        self.sha.update(&self.stage[..self.filled]);
        self.filled = 0;
    }
}

impl Sink for Hasher {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        if bytes.len() > STAGE - self.filled {
            self.flush();
        }
        if bytes.len() >= LONG {
            self.flush();
            self.sha.update(bytes);
        } else {
            self.stage[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
            self.filled += bytes.len();
        }
    }
}
