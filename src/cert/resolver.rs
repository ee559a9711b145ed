//! The leaf that new connections get, replaced in place.
//!
//! Readers take whatever stands behind an atomic pointer; a renewal swaps it. No restart, no lock,
//! and connections that are open go on with what they verified.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::leaf::Leaf;

/// Presents the current leaf, whatever name the client asks for: the client verifies the name.
#[derive(Debug, Default)]
pub struct LeafResolver {
    current: ArcSwapOption<Leaf>,
}

impl LeafResolver {
    /// A resolver without a leaf: every handshake fails until [`Self::replace`] was called.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Presents `leaf` from the next handshake on.
    pub fn replace(&self, leaf: Leaf) {
        self.current.store(Some(Arc::new(leaf)));
    }

    /// What is presented now.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Leaf>> {
        self.current.load_full()
    }
}

impl ResolvesServerCert for LeafResolver {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current.load().as_ref().map(|leaf| Arc::clone(leaf.certified()))
    }
}
