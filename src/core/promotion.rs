//! When a guard of enforcement `Audit` becomes one of `Deny` (`enforceAfterClean`).
//!
//! It does once nothing would have been refused for as long as the guard asks, and never goes back by
//! itself. What is known so far stands in the guard's status, signed over the guard's uid and
//! generation: it outlives every replica, a change of the spec begins anew, and whoever may merely
//! write statuses can neither promote a guard nor shorten its time.

use std::time::Duration;

use jiff::Timestamp;

use super::signature::{Purpose, SigningKey};

/// Most by which the beginning of clean time is rounded up.
const COARSE: Duration = Duration::from_secs(60);
/// Times in a status are whole seconds: a finer one would not read back as it was signed.
const FINE: Duration = Duration::from_secs(1);
/// The part of the time asked for by which it is rounded up, at most [`COARSE`].
const PART: u32 = 20;
/// For so long nobody may have watched without that the clean time begins anew: replicas are
/// restarted faster.
pub const UNWATCHED: Duration = Duration::from_secs(60);

/// What is known about one guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    /// Since when nothing would have been refused.
    pub clean_since: Timestamp,
    /// When the guard became one of enforcement `Deny`; `None` while it has not.
    pub promoted_at: Option<Timestamp>,
}

/// What was seen since it was last written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The last write that would have been refused.
    pub would_deny: Option<Timestamp>,
    /// The end of the last time in which nobody watched for longer than [`UNWATCHED`].
    pub watched_since: Option<Timestamp>,
    /// Up to when every replica has told what it would have refused; `None` when one has not.
    pub told_until: Option<Timestamp>,
}

/// What is known at `now` about a guard that asks for `after`, when `before` was known.
#[must_use]
pub fn advance(before: Option<Promotion>, after: Duration, seen: Seen, now: Timestamp) -> Promotion {
    let mut clean_since = match before {
        Some(promotion) if promotion.promoted_at.is_some() => return promotion,
        Some(promotion) => promotion.clean_since,
        None => rounded_up(now, FINE),
    };
    for dirty in [seen.would_deny, seen.watched_since].into_iter().flatten() {
        if dirty > clean_since {
            clean_since = rounded_up(dirty, (after / PART).clamp(FINE, COARSE));
        }
    }
    let is_due = seen.told_until.is_some_and(|told| elapsed(clean_since, told) >= Some(after));
    Promotion { clean_since, promoted_at: is_due.then(|| rounded_up(now, FINE)) }
}

/// When a guard that is not promoted becomes due.
#[must_use]
pub fn due(promotion: &Promotion, after: Duration) -> Option<Timestamp> {
    let after = jiff::SignedDuration::try_from(after).ok()?;
    promotion.promoted_at.is_none().then(|| promotion.clean_since.saturating_add(after).ok()).flatten()
}

fn elapsed(since: Timestamp, until: Timestamp) -> Option<Duration> {
    Duration::try_from(until.duration_since(since)).ok()
}

/// The next whole multiple of `step`: many refused writes in a row are few changes of what is written
/// down, and the time only ever becomes longer by that.
fn rounded_up(time: Timestamp, step: Duration) -> Timestamp {
    let Some(step) = i128::try_from(step.as_nanos()).ok().filter(|step| *step > 0) else { return time };
    let nanoseconds = time.as_nanosecond();
    let up = nanoseconds + (step - nanoseconds.rem_euclid(step)).rem_euclid(step);
    Timestamp::from_nanosecond(up).unwrap_or(time)
}

/// Reads a duration as the API takes it: `72h`, `1h30m`, `500ms`.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, length) = if rest.starts_with("ms") {
            (Duration::from_millis(1), 2)
        } else {
            let seconds = match rest.chars().next()? {
                'h' => 3600,
                'm' => 60,
                's' => 1,
                _ => return None,
            };
            (Duration::from_secs(seconds), 1)
        };
        total = total.checked_add(unit.checked_mul(u32::try_from(count).ok()?)?)?;
        rest = &rest[length..];
    }
    (!total.is_zero()).then_some(total)
}

/// The signature of what is known about a guard.
#[must_use]
pub fn sign(key: &SigningKey, uid: &str, generation: i64, promotion: &Promotion) -> String {
    with_parts(uid, generation, promotion, |parts| key.sign(Purpose::Promotion, parts))
}

/// Whether `signature` is that of exactly this, for exactly this guard and generation.
#[must_use]
pub fn verifies(
    key: &SigningKey,
    uid: &str,
    generation: i64,
    promotion: &Promotion,
    signature: &str,
) -> bool {
    // A guard without a uid stands in no cluster.
    !uid.is_empty()
        && with_parts(uid, generation, promotion, |parts| key.verifies(Purpose::Promotion, parts, signature))
}

fn with_parts<T>(
    uid: &str,
    generation: i64,
    promotion: &Promotion,
    use_parts: impl FnOnce(&[&[u8]]) -> T,
) -> T {
    let clean_since = promotion.clean_since.as_nanosecond().to_be_bytes();
    let promoted_at = promotion.promoted_at.map(|at| at.as_nanosecond().to_be_bytes());
    use_parts(&[
        uid.as_bytes(),
        &generation.to_be_bytes(),
        &clean_since,
        promoted_at.as_ref().map_or(b"", |bytes| bytes.as_slice()),
    ])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::signature::KEY_LENGTH;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn seen(told_until: i64) -> Seen {
        Seen { would_deny: None, watched_since: None, told_until: Some(at(told_until)) }
    }

    fn waiting(clean_since: i64) -> Promotion {
        Promotion { clean_since: at(clean_since), promoted_at: None }
    }

    #[test]
    fn a_guard_begins_clean_and_is_promoted_after_the_time_that_it_asks_for() {
        let first = advance(None, HOUR, seen(1000), at(1000));
        assert_eq!(first, waiting(1000));
        assert_eq!(due(&first, HOUR), Some(at(4600)));
        assert_eq!(advance(Some(first), HOUR, seen(4599), at(4599)), first);
        let promoted = advance(Some(first), HOUR, seen(4600), at(4600));
        assert_eq!(promoted.promoted_at, Some(at(4600)));
        assert_eq!(due(&promoted, HOUR), None);
    }

    #[test]
    fn a_write_that_would_have_been_refused_begins_the_time_anew() {
        let dirty = Seen { would_deny: Some(at(4000)), ..seen(4600) };
        let later = advance(Some(waiting(1000)), HOUR, dirty, at(4600));
        assert!(later.promoted_at.is_none());
        assert!((at(4000)..=at(4060)).contains(&later.clean_since), "rounded up by a minute at most");
        let many = Seen { would_deny: Some(at(4005)), ..seen(4600) };
        assert_eq!(advance(Some(later), HOUR, many, at(4600)), later, "many in a row are one change");
        let old = Seen { would_deny: Some(at(500)), ..seen(4600) };
        assert!(advance(Some(waiting(1000)), HOUR, old, at(4600)).promoted_at.is_some());
    }

    #[test]
    fn time_in_which_nobody_watched_is_not_clean() {
        let gap = Seen { watched_since: Some(at(4500)), ..seen(4600) };
        let later = advance(Some(waiting(1000)), HOUR, gap, at(4600));
        assert!(later.promoted_at.is_none() && later.clean_since >= at(4500));
    }

    #[test]
    fn a_replica_that_has_not_told_yet_is_waited_for() {
        let silent = Seen { told_until: None, ..seen(0) };
        assert_eq!(advance(Some(waiting(1000)), HOUR, silent, at(9000)), waiting(1000));
        assert_eq!(advance(Some(waiting(1000)), HOUR, seen(4599), at(9000)), waiting(1000));
    }

    #[test]
    fn a_promotion_stays_whatever_is_seen_afterwards() {
        let promoted = Promotion { clean_since: at(1), promoted_at: Some(at(2)) };
        let dirty = Seen { would_deny: Some(at(50)), watched_since: Some(at(60)), told_until: None };
        assert_eq!(advance(Some(promoted), HOUR, dirty, at(100)), promoted);
    }

    #[test]
    fn a_signature_holds_for_its_guard_generation_and_times_alone() {
        let key = SigningKey::new(&[7; KEY_LENGTH]).unwrap();
        let promoted = Promotion { clean_since: at(1), promoted_at: Some(at(2)) };
        let signature = sign(&key, "u", 3, &promoted);
        assert!(verifies(&key, "u", 3, &promoted, &signature));
        assert!(!verifies(&key, "v", 3, &promoted, &signature));
        assert!(!verifies(&key, "u", 4, &promoted, &signature));
        assert!(!verifies(&key, "u", 3, &waiting(1), &signature));
        assert!(!verifies(&key, "u", 3, &Promotion { clean_since: at(0), ..promoted }, &signature));
        let of_nobody = sign(&key, "", 3, &promoted);
        assert!(!verifies(&key, "", 3, &promoted, &of_nobody));
    }

    #[test]
    fn durations_are_read_as_the_schema_takes_them() {
        assert_eq!(duration("72h"), Some(HOUR * 72));
        assert_eq!(duration("1h30m"), Some(HOUR + HOUR / 2));
        assert_eq!(duration("2s500ms"), Some(Duration::from_millis(2500)));
        for text in ["", "h", "5", "0s", "5d", "1.5h", "-1h", "99999999999h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_rounded_up_to_what_a_status_can_hold() {
        let odd = Timestamp::from_nanosecond(1_234_567_891).unwrap();
        assert_eq!(rounded_up(odd, FINE), at(2));
        assert_eq!(rounded_up(at(60), Duration::from_secs(60)), at(60));
        assert_eq!(rounded_up(at(61), Duration::from_secs(60)), at(120));
    }
}
