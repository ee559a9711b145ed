//! Targets that have stood as they are for a whole audit interval, told although they are no news.
//!
//! Most writes leave the hash as it is: labels, and the status that a controller keeps writing. Whoever wants to
//! know in which version a target was last as approved is told of it by the sweeps, which see every version, once
//! it stands still. So an object that is written all the time costs nothing, and one that rests costs once.

use std::sync::Arc;

use crate::core::guard::Guard;
use crate::core::hash::ContentHash;

use super::known::Revision;

/// A target that nobody has written for a while.
#[derive(Debug, Clone)]
pub struct Settled {
    /// Whose target.
    pub guard: Arc<Guard>,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// Hash of what the guard pins of it.
    pub hash: ContentHash,
    /// `gitVersion` of the API server that showed it so; empty when unknown.
    pub server: String,
}

/// Versions that were written before the last sweep, and not before the one before it: what a sweep still sees of
/// them has settled, and was not told yet.
#[derive(Debug, Default)]
pub(super) struct Window {
    after: Option<Revision>,
    until: Option<Revision>,
}

impl Window {
    /// Whether an object that is in this version has settled since it was last told.
    pub(super) fn holds(&self, revision: Revision) -> bool {
        let is_old = self.until.is_some_and(|until| !until.is_older_than(revision));
        is_old && self.after.is_none_or(|after| after.is_older_than(revision))
    }

    /// A sweep has shown everything as of this version.
    pub(super) fn swept(&mut self, at: Revision) {
        self.after = self.until.replace(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_settled_once_when_a_sweep_sees_what_the_one_before_has_seen() {
        let mut window = Window::default();
        let holds = |window: &Window, text| window.holds(Revision::of(text));
        assert!(!holds(&window, "5"), "nobody knows for how long");
        window.swept(Revision::of("10"));
        assert!(holds(&window, "5") && holds(&window, "10") && !holds(&window, "11"));
        window.swept(Revision::of("20"));
        assert!(!holds(&window, "5"), "told already");
        assert!(holds(&window, "11") && !holds(&window, "21"));
    }
}
