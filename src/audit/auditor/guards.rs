//! Guards that came, changed or went: what the book, and looks, attempts and questions under way, are told of
//! it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::core::audit::book::Step;
use crate::core::audit::{ACKNOWLEDGE, RESTORE, restore_asked};
use crate::core::guard::{Guard, Target};
use crate::core::text::Text;
use crate::store::Seen;

use super::steps::Beside;
use super::{Leading, valid};

/// Whether the status of a guard says that its target is as approved and writes of it are refused, and not that it
/// was seen so since.
pub(super) fn is_unchecked(seen: &Seen, guard: &Guard) -> bool {
    let audited = seen.stored.status().audited();
    audited.is_some_and(|said| said.is_calm && said.is_unchecked && said.generation == guard.generation)
}

/// What a person asks to be done about a guard's target.
pub(super) fn request(seen: &Seen) -> Option<String> {
    seen.stored.annotation(RESTORE).and_then(restore_asked)
}

impl Leading<'_> {
    /// Follows the guards: tells the book of those that changed.
    pub(super) fn follow(&mut self) {
        let after = Arc::clone(&self.observations.borrow_and_update());
        let before = std::mem::replace(&mut self.observation, Arc::clone(&after));
        let now = Timestamp::now();
        let mut came_or_went = false;
        let mut steps: Vec<(Arc<Guard>, Vec<Step>)> = Vec::new();
        let mut acknowledged: Vec<(String, Text)> = Vec::new();
        let mut asked: Vec<(Arc<Guard>, String)> = Vec::new();
        let mut incidents: Vec<(Arc<Guard>, String)> = Vec::new();
        let mut unchecked: Vec<Arc<Guard>> = Vec::new();
        let mut left: Vec<Target> = Vec::new();
        let (mut old, mut new) = (before.guards.iter().peekable(), after.guards.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some(old), Some(new)) => old.stored.id().cmp(new.stored.id()),
            };
            let was = if order.is_le() { old.next() } else { None };
            let is = if order.is_ge() { new.next() } else { None };
            if let (Some(was), Some(is)) = (was, is)
                && Arc::ptr_eq(was, is)
            {
                continue;
            }
            let same = |was: &Seen| is.is_some_and(|is| is.stored.uid() == was.stored.uid());
            let (gone, stays) = (was.filter(|was| !same(was)), was.filter(|was| same(was)));
            came_or_went |= gone.is_some() || stays.is_none();
            if let Some(gone) = gone {
                self.forget(gone.stored.uid());
            }
            if let Some(guard) = gone.and_then(|gone| valid(&gone.state)) {
                steps.push((Arc::clone(guard), self.book.guard_changed(guard, None, now)));
                left.push(guard.target.clone());
            }
            let guards = stays.and_then(|was| valid(&was.state)).zip(is.map(|is| valid(&is.state)));
            if let Some((was, is)) = guards
                && !is.is_some_and(|is| Arc::ptr_eq(was, is))
            {
                if is.is_none_or(|is| is.target != was.target || is.scope != was.scope) {
                    // Its hash is of something else; the watch looks anew.
                    self.waiting.remove(&was.uid);
                }
                left.push(was.target.clone());
                let changed = self.book.guard_changed(was, is.map(AsRef::as_ref), now);
                steps.push((Arc::clone(is.unwrap_or(was)), changed));
            }
            if stays.is_some_and(|was| valid(&was.state).is_none())
                && let Some(guard) = is.and_then(|is| valid(&is.state))
            {
                // Watches may have slept through its being invalid, and then tell nothing anew.
                self.book.awaits(guard, now);
            }
            if let Some(guard) = is.and_then(|is| valid(&is.state).filter(|guard| is_unchecked(is, guard))) {
                unchecked.push(Arc::clone(guard));
            }
            if let Some(is) = is.filter(|_| stays.is_none())
                && let (Some(guard), Some(incident)) = (valid(&is.state), is.stored.status().incident())
            {
                incidents.push((Arc::clone(guard), incident.to_owned()));
            }
            let word = |seen: &Seen| seen.stored.annotation(ACKNOWLEDGE).map(str::to_owned);
            if let Some(is) = is
                && let Some(incident) = word(is)
                && stays.and_then(|was| word(was)).as_ref() != Some(&incident)
            {
                acknowledged.push((incident, is.stored.id().namespace.clone()));
            }
            if let Some(is) = is
                && let Some(guard) = valid(&is.state)
                && let Some(request) = request(is)
                && stays.is_none_or(|was| {
                    valid(&was.state).is_none() || self::request(was).as_ref() != Some(&request)
                })
                && is.stored.status().heeded_restore() != Some(request.as_str())
            {
                asked.push((Arc::clone(guard), request));
            }
        }
        if came_or_went {
            let mut census: BTreeMap<&str, usize> = BTreeMap::new();
            for seen in &after.guards {
                *census.entry(seen.stored.namespace()).or_default() += 1;
            }
            self.book.census(census.into_iter().map(|(namespace, guards)| (namespace.into(), guards)));
        }
        for (guard, steps) in steps {
            self.take(&guard, steps, Beside::default());
        }
        for target in left {
            self.look_for_others(&target);
        }
        unchecked.iter().for_each(|guard| self.checking.join(guard));
        for (incident, namespace) in acknowledged {
            let steps = self.book.acknowledge(&incident, &namespace, now);
            self.take_all(steps);
        }
        // What was acknowledged before is over.
        for (guard, incident) in incidents {
            self.book.incident_said(&guard, &incident, now);
        }
        for (guard, request) in asked {
            let steps = self.book.restore_asked(&guard, request, now);
            self.take(&guard, steps, Beside::default());
        }
    }

    /// A guard of this target has changed or gone: what stood in the way of others may do so no longer.
    fn look_for_others(&mut self, target: &Target) {
        let observation = Arc::clone(&self.observation);
        for guard in observation.index.guards_of(target).filter_map(valid) {
            if self.saying.is_in_trouble(&guard.uid) {
                self.looks.join(guard);
            }
        }
    }

    /// Nothing of a guard that is gone is kept.
    fn forget(&mut self, uid: &Text) {
        self.is_news = true;
        self.waiting.remove(uid);
        self.saying.forget(uid);
    }
}
