//! Broken glass: every guard of the cluster lets writes pass for a while, asked for by annotations of
//! our webhook configuration. Pure: annotations and time come in.
//!
//! While a replica lives, it still sees what is written, and records what it would have refused ([`pass`]).
//!
//! It must work while no replica lives, so that the command writes the annotations and nothing else
//! needs to answer. What it asks for counts for no longer than the installation allows, from the
//! moment in which a replica first saw it: until then nobody enforced anything anyway.

use jiff::{SignedDuration, Timestamp};

use super::message;
use super::pause;
use super::verdict::{Reason, Verdict};

/// What the annotations ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BrokenGlass {
    /// Until when; `None` when that cannot be read, which asks for nothing.
    pub until: Option<Timestamp>,
    /// When a replica first saw it, as was noted; `None` when it is new.
    pub seen: Option<Timestamp>,
    /// Who broke it, as far as the command could tell.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
    /// Who ended it; `None` when nobody did.
    pub ended_by: Option<String>,
}

impl BrokenGlass {
    /// When it ends for whoever looks at `now`: never later than `longest` after it was first seen. A
    /// note of a sight that is still to come counts as now, so that it cannot be drawn out. `None`
    /// when it is over.
    #[must_use]
    pub fn end(&self, now: Timestamp, longest: SignedDuration) -> Option<Timestamp> {
        let seen = self.seen.map_or(now, |seen| seen.min(now));
        let end = pause::end(self.until?, seen, longest);
        (now < end).then_some(end)
    }
}

/// What becomes of a verdict while the glass is broken: a refusal passes with a warning, and is recorded
/// as what it was let through by. Everything else stays as it is.
#[must_use]
pub fn pass(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Deny { attempt, .. } => {
            let warning = message::broken_glass(&attempt);
            let attempt = super::verdict::Attempt { reason: Reason::BrokenGlass, ..*attempt };
            Verdict::AllowWith { warnings: vec![warning], attempts: vec![attempt] }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap_or_default()
    }

    fn asked(until: i64, seen: Option<i64>) -> BrokenGlass {
        BrokenGlass { until: Some(at(until)), seen: seen.map(at), ..BrokenGlass::default() }
    }

    const LONGEST: SignedDuration = SignedDuration::from_secs(100);

    #[test]
    fn it_ends_when_it_says_and_at_that_moment_it_is_over() {
        assert_eq!(asked(50, None).end(at(10), LONGEST), Some(at(50)));
        assert_eq!(asked(50, Some(5)).end(at(49), LONGEST), Some(at(50)));
        assert_eq!(asked(50, Some(5)).end(at(50), LONGEST), None);
    }

    #[test]
    fn it_lasts_no_longer_than_is_allowed_after_it_was_first_seen() {
        assert_eq!(asked(900, None).end(at(10), LONGEST), Some(at(110)));
        assert_eq!(asked(900, Some(10)).end(at(60), LONGEST), Some(at(110)));
        assert_eq!(asked(900, Some(10)).end(at(110), LONGEST), None);
    }

    #[test]
    fn a_sight_noted_for_later_does_not_draw_it_out() {
        assert_eq!(asked(900, Some(800)).end(at(10), LONGEST), Some(at(110)));
    }

    #[test]
    fn an_end_that_cannot_be_read_asks_for_nothing() {
        assert_eq!(BrokenGlass::default().end(at(10), LONGEST), None);
    }
}
