//! Writes that this replica has judged lately: who made them, for when their content is found later.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::core::audit::attribution;
use crate::core::guard::Target;
use crate::core::verdict::Attempt;

/// How many are kept, of all objects together.
const KEPT: usize = 1024;

/// The last attempts that were refused, or let through although not approved.
#[derive(Debug, Default)]
pub struct Observed(Mutex<VecDeque<(Target, attribution::Observed)>>);

impl Observed {
    /// Notes an attempt. One without a hash tells nothing by which it could be recognised.
    pub fn note(&self, attempt: &Attempt, allowed: bool, authenticated: bool, at: Timestamp) {
        let Some(image) = attempt.image_hash.filter(|_| !attempt.dry_run) else { return };
        let seen = attribution::Observed {
            user: attempt.user.name.clone(),
            manager: attempt.field_manager.clone(),
            image,
            at,
            allowed,
            authenticated,
        };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((attempt.target.clone(), seen));
    }

    /// Those of one object.
    #[must_use]
    pub(super) fn of(&self, target: &Target) -> Vec<attribution::Observed> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|(of, _)| of == target).map(|(_, seen)| seen.clone()).collect()
    }
}
