//! How long: durations as flags take them, in one notation and with the same words when they are none.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::SpanRelativeTo;
use jiff::fmt::friendly::SpanParser;

/// Reads what [`jiff`] reads: the units that kubectl takes, fractions included, and their longer names.
const PARSER: SpanParser = SpanParser::new();

/// Why a text is not the duration that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// It is no duration.
    #[error("want a duration such as 30s, 5m, 1h30m or 7d")]
    NotOne,
    /// It is none at all.
    #[error("must be longer than nothing")]
    Nothing,
    /// It is too short or too long.
    #[error("{}", outside(.0))]
    Outside(RangeInclusive<Duration>),
}

/// Reads whole seconds, as kubectl takes them, or numbers with units, as in `1m30s`, `1.5h` or `7d`.
///
/// # Errors
/// When it is no such text, or longer than can be counted.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    read(text).ok_or(DurationError::NotOne)
}

/// Reads one that is longer than nothing.
///
/// # Errors
/// As [`parse`], and when it is zero.
pub fn parse_some(text: &str) -> Result<Duration, DurationError> {
    let duration = parse(text)?;
    if duration.is_zero() { Err(DurationError::Nothing) } else { Ok(duration) }
}

/// Reads one within bounds.
///
/// # Errors
/// As [`parse`], and when it is out of them.
pub fn parse_within(text: &str, bounds: RangeInclusive<Duration>) -> Result<Duration, DurationError> {
    let duration = parse(text)?;
    if bounds.contains(&duration) { Ok(duration) } else { Err(DurationError::Outside(bounds)) }
}

fn read(text: &str) -> Option<Duration> {
    // The parser takes clocks, commas and signs as well, which are rather slips of the pen.
    if !text.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | ' ')) {
        return None;
    }
    // A day has no fixed length where clocks are changed; here it has 24 hours.
    let span = PARSER.parse_span(text).ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()?.try_into().ok()
}

fn outside(bounds: &RangeInclusive<Duration>) -> String {
    format!("must be from {} to {}", Short(*bounds.start()), Short(*bounds.end()))
}

/// Whole hours or seconds, as bounds are.
struct Short(Duration);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            seconds if seconds > 0 && seconds % 3_600 == 0 => write!(f, "{}h", seconds / 3_600),
            seconds => write!(f, "{seconds}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kubectl_reads_them_and_days_too() {
        for (text, want) in [
            ("0", 0),
            ("5", 5_000),
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("250ms", 250),
            ("2h", 7_200_000),
            ("1.5h", 5_400_000),
            ("1h 30m", 5_400_000),
            ("7d", 604_800_000),
            ("1d12h", 129_600_000),
            ("1d 12h", 129_600_000),
            ("7 days", 604_800_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(want)), "{text}");
        }
        for text in [
            "",
            "s",
            "d",
            "5x",
            "-1s",
            "1s ago",
            "5s5",
            "1.5d",
            "1,5h",
            "1:30:00",
            "1mo",
            "P1D",
            "soon",
            "99999999999999999999d",
            "9999999999999999h",
        ] {
            assert_eq!(parse(text), Err(DurationError::NotOne), "{text}");
        }
    }

    #[test]
    fn what_is_too_short_or_too_long_is_told_with_the_bounds() {
        assert_eq!(parse_some("0s"), Err(DurationError::Nothing));
        assert_eq!(parse_some("soon"), Err(DurationError::NotOne));
        let bounds = Duration::from_secs(30)..=Duration::from_secs(86_400);
        let parse = |text| parse_within(text, bounds.clone()).map_err(|error| error.to_string());
        assert_eq!(parse("1d"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse("29s"), Err("must be from 30s to 24h".to_owned()));
        assert_eq!(parse("1d1ms"), Err("must be from 30s to 24h".to_owned()));
    }
}
