//! Until when, and why, a guard lets writes pass: the same words for every way through.

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};

use crate::core::duration::{self, DurationError};

/// As long as `spec.reason` of an exception and of a suspension may be.
const LONGEST_REASON: usize = 512;

/// How long, and why.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Terms {
    /// How long writes may pass, such as 30m or 2h
    #[arg(
        long = "for",
        value_name = "DURATION",
        required_unless_present = "until",
        conflicts_with = "until",
        value_parser = parse_duration
    )]
    duration: Option<SignedDuration>,
    /// Until when, such as 2026-11-27T06:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_moment)]
    until: Option<Timestamp>,
    /// Why; it is kept, recorded, and shown by the guards
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    pub(crate) reason: String,
}

impl Terms {
    /// When it ends, to the second, as RFC 3339.
    ///
    /// # Errors
    /// When that lies beyond what a calendar holds.
    pub(crate) fn end(&self, now: Timestamp) -> anyhow::Result<String> {
        let end = match (self.duration, self.until) {
            (Some(duration), _) => now.checked_add(duration).context("--for is too long")?,
            (None, Some(until)) => until,
            (None, None) => now,
        };
        anyhow::ensure!(end > now, "--until {end:.0} has passed already; name a later moment");
        Ok(moment(end))
    }
}

/// To the second, so that two people read the same.
pub(crate) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A duration that is longer than nothing, and that a moment can be counted on by.
pub(crate) fn parse_duration(text: &str) -> Result<SignedDuration, DurationError> {
    SignedDuration::try_from(duration::parse_some(text)?).map_err(|_| DurationError::NotOne)
}

fn parse_moment(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|_| "want a time such as 2026-11-27T06:00:00Z".to_owned())
}

/// A reason that says something.
pub(crate) fn parse_reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("say why".to_owned()),
        1..=LONGEST_REASON => Ok(text.to_owned()),
        _ => Err(format!("must have at most {LONGEST_REASON} characters")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_duration_is_positive_and_a_reason_says_something() {
        assert_eq!(parse_duration("1h30m"), Ok(SignedDuration::from_mins(90)));
        assert!(
            parse_duration("-1h").is_err()
                && parse_duration("0s").is_err()
                && parse_duration("soon").is_err()
        );
        assert!(parse_reason("  ").is_err() && parse_reason(&"x".repeat(513)).is_err());
    }

    #[test]
    fn the_end_is_told_to_the_second_and_lies_ahead() {
        let now: Timestamp = "2026-11-27T00:00:00.7Z".parse().unwrap();
        let terms = |duration, until: Option<&str>| Terms {
            duration,
            until: until.map(|until| parse_moment(until).unwrap()),
            reason: "why".into(),
        };
        assert_eq!(
            terms(Some(SignedDuration::from_hours(1)), None).end(now).unwrap(),
            "2026-11-27T01:00:00Z"
        );
        assert_eq!(terms(None, Some("2026-11-27T02:00:00+01:00")).end(now).unwrap(), "2026-11-27T01:00:00Z");
        let error = terms(None, Some("2026-11-26T00:00:00Z")).end(now).unwrap_err().to_string();
        assert_eq!(error, "--until 2026-11-26T00:00:00Z has passed already; name a later moment");
    }
}
