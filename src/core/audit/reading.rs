//! What one look at a target means, given what is known of it: the rules of DESIGN sections 3 and 6.

use std::time::Duration;

use jiff::Timestamp;

use crate::core::guard::Guard;
use crate::core::hash::ContentHash;
use crate::core::pause::{Pause, PausedBy};

use super::after;
use super::finding::Reason;
use super::last::{Last, State, UNKNOWN_SERVER};
use super::open::{Content, Open};
use super::seen::{Context, Seen};
use super::sight::{Look, Present, Sight};

/// What a watch tells happened within so long, and so did what a read shows that was asked for.
pub(super) const LAG: Duration = Duration::from_secs(2);

/// What a look means.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reading {
    /// The content is approved.
    Clean(Reason),
    /// What is stored is approved, and reads otherwise than before, since the API server is another.
    Represented(ContentHash),
    /// The content is what was approved before, until this moment.
    Awaiting(Timestamp),
    /// It is not approved.
    Drifted(Found),
    /// Nobody can tell; why.
    Unreadable(String),
    /// The look is older than what is known, or may be: look again.
    Doubtful,
    /// It is gone for a moment, since we make it anew.
    Replaced,
}

/// Content that is not approved.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) content: Content,
    pub(super) reason: Reason,
    pub(super) is_excepted: bool,
    pub(super) progress: Progress,
    /// Whether the object is known to have been there.
    pub(super) was_there: bool,
    /// Whether it counts as drifted anew where many guards drift at once.
    pub(super) counts: bool,
}

/// How drift stands to what was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There was none.
    Begun,
    /// It was other content.
    Changed,
    /// It is the same.
    Lasting,
}

/// One look and what is known.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) guard: &'a Guard,
    pub(super) seen: &'a Seen<'a>,
    /// The last look; `None` for a target that nobody has ever looked at.
    pub(super) last: Option<Last>,
    pub(super) open: &'a Open,
    /// Whether this process has looked at it before.
    pub(super) is_known: bool,
    /// Index of the server's version that shows it.
    pub(super) server: u16,
    pub(super) now: Timestamp,
}

/// Why a pause lets content differ.
pub(super) fn reason_of(pause: &Pause) -> Reason {
    match pause.by {
        PausedBy::Suspend => Reason::SuspendedBySpec,
        PausedBy::Exception(_) => Reason::Excepted,
    }
}

impl Reader<'_> {
    /// What the look means.
    pub(super) fn read(&self) -> Reading {
        let present = match self.seen.sight {
            Sight::Unreadable(why) => return Reading::Unreadable(why.clone()),
            Sight::Absent => None,
            Sight::Present(present) => Some(present),
        };
        if present.is_none() && self.seen.context.being_replaced {
            return Reading::Replaced;
        }
        if self.is_doubtful(present) {
            return Reading::Doubtful;
        }
        let Some(present) = present else { return Reading::Drifted(self.drift(None, None)) };
        if self.guard.approves(present.hash, self.now) {
            return Reading::Clean(self.why_clean(present.hash));
        }
        if self.open.equivalents.contains(&present.hash) {
            return Reading::Clean(Reason::RepresentationChanged);
        }
        let mut because = None;
        if let Some(is_another_server) = self.reads_otherwise(present) {
            match (self.seen.context.built_in, is_another_server) {
                (true, true) if self.guard.scope.has_server_defaults() => {
                    return Reading::Represented(present.hash);
                }
                (true, _) => {}
                (false, _) => because = Some(Reason::DefinitionChanged),
            }
        }
        if let Some(awaited) = self.open.awaited.as_ref().filter(|awaited| awaited.holds(present.hash)) {
            let until = after(awaited.since, self.seen.context.apply_grace);
            if self.now < until {
                return Reading::Awaiting(until);
            }
            because = Some(Reason::NotApplied);
        }
        Reading::Drifted(self.drift(Some(present), because))
    }

    /// Watches and lists are read beside each other: one may show what another has overtaken. A read
    /// that was asked for is believed, since etcd may have been put back to an older state.
    fn is_doubtful(&self, present: Option<&Present>) -> bool {
        if self.seen.look == Look::Live {
            return false;
        }
        let restored = self.open.fight.has_restored() && self.open.drift.is_some();
        match present {
            Some(present) => self
                .last
                .is_some_and(|last| last.overtook(present) || (restored && last.is_unwritten(present))),
            None => {
                let was_there = self.last.is_some_and(|last| last.is_there());
                // After a restore a watch may first tell that the object was deleted in order to make it again.
                restored || was_there && self.open.read_at.is_some_and(|read| self.now < after(read, LAG))
            }
        }
    }

    fn why_clean(&self, hash: ContentHash) -> Reason {
        let by_spec =
            hash == self.guard.expected || self.guard.also_approved.iter().any(|also| also.hash == hash);
        if by_spec { Reason::InSync } else { Reason::RepresentationChanged }
    }

    /// Whether approved content reads otherwise although nobody has written the object; and if so, whether
    /// another version of the API server shows it now.
    fn reads_otherwise(&self, present: &Present) -> Option<bool> {
        if let Some(before) = &self.seen.context.read_before {
            let was_approved =
                self.guard.approves(before.hash, self.now) || self.open.equivalents.contains(&before.hash);
            let now = self.seen.context.server_version;
            let are_known = !before.server.is_empty() && !now.is_empty();
            return (was_approved && before.hash != present.hash).then(|| are_known && before.server != now);
        }
        let last = self.last.filter(|last| {
            last.state == State::Clean
                && !last.is_outdated
                && last.is_unwritten(present)
                && !last.held(present.hash)
        });
        last.map(|last| self.is_another_server(last))
    }

    fn is_another_server(&self, last: Last) -> bool {
        let are_known = [last.server, self.server].iter().all(|server| *server != UNKNOWN_SERVER);
        are_known && last.server != self.server
    }

    fn drift(&self, present: Option<&Present>, because: Option<Reason>) -> Found {
        let content = Content::of(present);
        let paused = self.guard.paused(self.now);
        if let Some(drift) = &self.open.drift
            && (drift.content.is(present) || self.reads_as_before(present))
        {
            let reason = match (drift.is_excepted, paused) {
                (true, Some(pause)) => reason_of(pause),
                (true, None) => Reason::ExceptionEnded,
                (false, _) => drift.reason,
            };
            let progress = Progress::Lasting;
            let is_excepted = drift.is_excepted;
            return Found { content, reason, is_excepted, progress, was_there: true, counts: false };
        }
        let progress = if self.open.drift.is_some() { Progress::Changed } else { Progress::Begun };
        // What nobody has written was not changed under a pause either.
        let is_written = !matches!(because, Some(Reason::DefinitionChanged | Reason::NotApplied));
        let is_excepted = is_written && (paused.is_some() || self.is_of_ended_pause());
        let reason = match (is_excepted, paused, because) {
            (true, Some(pause), _) => reason_of(pause),
            (true, None, _) => Reason::ExceptionEnded,
            (false, _, Some(reason)) => reason,
            (false, _, None) => match present {
                None => Reason::Missing,
                Some(present) if self.approval_ended(present.hash) => Reason::ApprovalEnded,
                Some(present) if self.has_bypassed(present) => Reason::BypassedAdmission,
                Some(_) => Reason::ContentDiffers,
            },
        };
        let changed = present.is_none_or(|present| self.last.is_some_and(|last| !last.held(present.hash)));
        let was_good = self.last.is_some_and(|last| match last.state {
            State::Clean | State::Awaiting => !last.is_outdated || changed,
            _ => false,
        });
        let counts = progress == Progress::Begun && was_good && !is_excepted && reason != Reason::NotApplied;
        let was_there = self.last.is_some_and(|last| last.was_there());
        Found { content, reason, is_excepted, progress, was_there, counts }
    }

    /// Whether drifted content reads otherwise although nobody has written the object.
    fn reads_as_before(&self, present: Option<&Present>) -> bool {
        let (Some(present), Some(last)) = (present, self.last) else { return false };
        last.state == State::Drifted && last.is_unwritten(present)
    }

    /// The content was approved as a further hash, until a moment that has passed. A write of it after
    /// that was refused, or passed admission by.
    fn approval_ended(&self, hash: ContentHash) -> bool {
        let was_approved = self.guard.also_approved.iter().any(|also| also.hash == hash);
        was_approved && self.last.is_none_or(|last| last.held(hash))
    }

    /// Whether the change was made under a pause that has ended, or may have been.
    fn is_of_ended_pause(&self) -> bool {
        let Context { pause_ended, audit_interval, .. } = self.seen.context;
        let of_guard = self.guard.pauses.iter().map(|pause| pause.until).filter(|until| *until <= self.now);
        let Some(ended) = of_guard.chain(*pause_ended).max() else { return false };
        let unseen_for = match self.seen.look {
            Look::Watch | Look::Live => LAG,
            Look::Initial | Look::Sweep => *audit_interval,
        };
        if self.now < after(ended, unseen_for) {
            return true;
        }
        // While nobody looked, a pause may have come and gone.
        !self.is_known && self.last.and_then(|last| last.clean_at()).is_some_and(|clean| clean <= ended)
    }

    /// Whether the content changed while admission was enforced.
    fn has_bypassed(&self, present: &Present) -> bool {
        let Some(since) = self.seen.context.enforcing_since.filter(|_| self.guard.enforcement.blocks())
        else {
            return false;
        };
        let Some(last) = self.last else { return false };
        if last.is_outdated
            || last.state == State::Unseen
            || last.held(present.hash)
            || last.is_unwritten(present)
            || self.seen.context.read_before.is_some()
        {
            return false;
        }
        let seen_under_it = last.clean_at().is_some_and(|clean| clean >= since);
        seen_under_it
            || match self.seen.look {
                Look::Watch | Look::Live => self.now >= after(since, LAG),
                Look::Sweep => self.now >= after(since, self.seen.context.audit_interval),
                Look::Initial => false,
            }
    }
}
