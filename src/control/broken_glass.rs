//! What is told when the glass is broken, and when it is whole again: a record and an Event, besides log,
//! metric and the guards' conditions.

use jiff::Timestamp;

use super::alarm::Alarm;
use super::registrar::GlassTurn;
use crate::core::breakglass::BrokenGlass;
use crate::store::Observation;
use crate::telemetry::notices::Notice;
use crate::trail::record::{self, Record};

impl Alarm {
    /// Tells what became of the glass. The Event regards the first guard, since one must regard an object in
    /// a namespace, and all guards are concerned alike; without a guard nothing could have been refused.
    pub(super) fn glass(&self, turn: &GlassTurn, observation: &Observation) {
        let (reason, glass, message) = match turn {
            GlassTurn::Broken(glass) => ("GlassBroken", glass, broken(glass)),
            GlassTurn::Mended(glass) => ("GlassMended", glass, mended(glass)),
        };
        tracing::error!(by = glass.by, reason = glass.reason, "{message}");
        let pause = record::Pause { exception: "", until: glass.until, reason: &glass.reason, by: &glass.by };
        self.records.put(&Record::of_glass(reason, pause, self.found(&message, Timestamp::now())));
        let Some(first) = observation.index.guards().first() else { return };
        let uid = first.uid().as_str().to_owned();
        self.notices.put_pause(Notice { guard: first.id().clone(), uid, reason, note: message }, None);
    }
}

fn broken(glass: &BrokenGlass) -> String {
    let until = glass.until.map(|until| format!(" until {until:.0}")).unwrap_or_default();
    format!(
        "{} broke the glass ({}): writes that guards refuse pass{until}, at the latest until --max-exception has passed",
        known(&glass.by),
        glass.reason
    )
}

fn mended(glass: &BrokenGlass) -> String {
    let how = match &glass.ended_by {
        Some(by) => format!("{} ended it", known(by)),
        None => "its time is over".to_owned(),
    };
    format!(
        "the glass that {} broke ({}) is whole again, since {how}: what passed meanwhile is recorded as far as a replica lived, and stays as it is",
        known(&glass.by),
        glass.reason
    )
}

fn known(user: &str) -> &str {
    if user.is_empty() { "somebody" } else { user }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_and_why_is_told_at_the_beginning_and_at_the_end() {
        let mut glass = BrokenGlass {
            until: Timestamp::from_second(0).ok(),
            by: "alice".into(),
            reason: "incident 8".into(),
            ..BrokenGlass::default()
        };
        let said = broken(&glass);
        assert!(
            said.starts_with("alice broke the glass (incident 8)") && said.contains("1970-01-01"),
            "{said}"
        );
        assert!(mended(&glass).contains("since its time is over"));
        glass.ended_by = Some("bob".into());
        glass.by = String::new();
        let said = mended(&glass);
        assert!(said.contains("that somebody broke") && said.contains("since bob ended it"), "{said}");
    }
}
