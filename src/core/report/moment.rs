//! A moment as reports write it: RFC 3339, to the second.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Timestamp);

impl Moment {
    /// The same moment with all its digits.
    #[must_use]
    pub fn timestamp(self) -> Timestamp {
        self.0
    }
}

impl From<Timestamp> for Moment {
    /// What is smaller than a second goes: what is written reads back as the same moment.
    fn from(time: Timestamp) -> Self {
        Self(Timestamp::from_second(time.as_second()).unwrap_or(time))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

impl Serialize for Moment {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: Timestamp =
            text.parse().map_err(|_| de::Error::custom("want a moment such as 2026-01-31T12:00:00Z"))?;
        Ok(time.into())
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time", "description": "A moment by RFC 3339, in UTC, to the second." })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn a_moment_is_written_to_the_second_and_reads_back_the_same() {
        let moment = Moment::from("2026-01-31T12:00:00.75Z".parse::<Timestamp>().unwrap());
        let text = serde_json::to_string(&moment).unwrap();
        assert_eq!(text, r#""2026-01-31T12:00:00Z""#);
        assert_eq!(serde_json::from_str::<Moment>(&text).unwrap(), moment);
        assert!(serde_json::from_str::<Moment>(r#""yesterday""#).is_err());
    }
}
