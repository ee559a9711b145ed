//! What a request asks for, read from its path and query.
//!
//! Requests are routed by the path alone; the API server appends `?timeout=5s`.

use std::time::Duration;

use crate::api::names;
use crate::core::guard::FailurePolicy;
use crate::core::registration::glass;

/// Time for a request that names none. The API server's own default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most that a request may ask for. API servers ask for the 5 s that are registered, or less; whoever
/// asks for more only wants to hold what is bounded.
const MAX_TIMEOUT: Duration = Duration::from_secs(10);

/// The entry of the webhook configuration through which we are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Route {
    /// Generation of the configuration that the API server acts on.
    pub generation: u64,
    /// What becomes of the write when we cannot answer.
    pub failure_policy: FailurePolicy,
    /// What is reviewed.
    pub subject: Subject,
}

/// What an entry sends us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subject {
    /// Objects that guards pin.
    Targets,
    /// The same while the glass is broken: nothing is refused.
    BrokenGlass,
    /// Guards themselves.
    Guards,
    /// Exceptions, by which guards are paused.
    Exceptions,
}

impl Subject {
    /// The resource of those of our own kinds, whose paths end with a token.
    pub(super) fn own(self) -> Option<&'static str> {
        match self {
            Self::Targets | Self::BrokenGlass => None,
            Self::Guards => Some(names::DRIFTGUARDS),
            Self::Exceptions => Some(names::EXCEPTIONS),
        }
    }
}

impl Route {
    /// Reads what follows the hook in a path: `g17/fail` or `g17/ignore`, `/broken` behind it while the
    /// glass is broken, and for our own kinds `/driftguards/TOKEN` or `/driftguardexceptions/TOKEN`. Gives
    /// the token, too, which is still to be compared.
    pub(super) fn parse(rest: &str) -> Option<(Self, &str)> {
        let (generation, rest) = rest.split_once('/')?;
        let (policy, own) = rest.split_once('/').map_or((rest, None), |(policy, own)| (policy, Some(own)));
        let (subject, token) = match own.map(|own| own.split_once('/').unwrap_or((own, ""))) {
            None => (Subject::Targets, ""),
            Some((glass::BROKEN, "")) => (Subject::BrokenGlass, ""),
            Some((names::DRIFTGUARDS, token)) => (Subject::Guards, token),
            Some((names::EXCEPTIONS, token)) => (Subject::Exceptions, token),
            Some(_) => return None,
        };
        let failure_policy = match policy {
            // A live read that fails must not refuse then, either.
            _ if subject == Subject::BrokenGlass => FailurePolicy::Ignore,
            "fail" => FailurePolicy::Fail,
            "ignore" => FailurePolicy::Ignore,
            _ => return None,
        };
        let generation = generation.strip_prefix('g')?.parse().ok()?;
        Some((Self { generation, failure_policy, subject }, token))
    }
}

/// The time that `?timeout=` of a query leaves us.
pub(super) fn timeout(query: Option<&str>) -> Duration {
    query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("timeout="))
        .and_then(duration)
        .map_or(DEFAULT_TIMEOUT, |timeout| timeout.min(MAX_TIMEOUT))
}

/// Go's way to write a duration, as far as a timeout of seconds needs it: `5s`, `3.99s`, `250ms`.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s')?, 1.0),
    };
    let seconds: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(seconds * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_generation_and_failure_policy() {
        let route = |generation, failure_policy, subject| Route { generation, failure_policy, subject };
        let targets = |generation, policy| Some((route(generation, policy, Subject::Targets), ""));
        assert_eq!(Route::parse("g17/ignore"), targets(17, FailurePolicy::Ignore));
        assert_eq!(Route::parse("g0/fail"), targets(0, FailurePolicy::Fail));
        let broken = route(17, FailurePolicy::Ignore, Subject::BrokenGlass);
        assert_eq!(Route::parse("g17/ignore/broken"), Some((broken, "")));
        let exceptions = route(17, FailurePolicy::Ignore, Subject::Exceptions);
        assert_eq!(Route::parse("g17/ignore/driftguardexceptions/0a"), Some((exceptions, "0a")));
        let guards = |token| Some((route(17, FailurePolicy::Fail, Subject::Guards), token));
        assert_eq!(Route::parse("g17/fail/driftguards/0a"), guards("0a"));
        assert_eq!(Route::parse("g17/fail/driftguards/0a/b"), guards("0a/b"));
        assert_eq!(Route::parse("g17/fail/driftguards"), guards(""));
        for other in [
            "",
            "g17",
            "17/fail",
            "g17/other",
            "g17/fail/x",
            "g17/fail/x/0a",
            "gx/fail",
            "g-1/fail",
            "g17/ignore/broken/x",
        ] {
            assert_eq!(Route::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_timeout_is_what_the_api_server_sends_within_bounds() {
        for (query, milliseconds) in [
            (Some("timeout=5s"), 5_000),
            (Some("timeout=3.25s"), 3_250),
            (Some("a=b&timeout=250ms"), 250),
            (Some("timeout=34s"), 10_000),
            (Some("timeout=never"), 10_000),
            (Some("timeout=-5s"), 10_000),
            (Some("timeout=NaNs"), 10_000),
            (None, 10_000),
        ] {
            assert_eq!(timeout(query), Duration::from_millis(milliseconds), "{query:?}");
        }
    }
}
