//! `bench.json`: every figure by name, for whoever compares runs.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

/// Which way is good.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Better {
    /// Less is better.
    Lower,
    /// More is better.
    Higher,
}

impl Better {
    fn name(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
        }
    }
}

/// Figures by name.
#[derive(Debug, Default)]
pub(crate) struct Figures(Map<String, Value>);

impl Figures {
    /// A figure with a target.
    pub(crate) fn with_target(&mut self, name: &str, value: f64, target: f64, better: Better, unit: &str) {
        let figure =
            json!({"value": rounded(value), "target": target, "better": better.name(), "unit": unit});
        self.0.insert(name.to_owned(), figure);
    }

    /// A figure without one.
    pub(crate) fn without_target(&mut self, name: &str, value: f64, better: Better, unit: &str) {
        let figure = json!({"value": rounded(value), "better": better.name(), "unit": unit});
        self.0.insert(name.to_owned(), figure);
    }

    /// The figures that miss their target, as lines.
    pub(crate) fn missed(&self) -> Vec<String> {
        let missed = self.0.iter().filter_map(|(name, figure)| {
            let (value, target) = (figure["value"].as_f64()?, figure["target"].as_f64()?);
            let met = if figure["better"] == "lower" { value <= target } else { value >= target };
            (!met).then(|| {
                format!("{name}: {value} {}, target {target}", figure["unit"].as_str().unwrap_or_default())
            })
        });
        missed.collect()
    }

    /// Writes them into `file`, beside those of other benches that stand there.
    pub(crate) fn write(&self, file: &Path) -> anyhow::Result<()> {
        let mut all = match std::fs::read(file) {
            Ok(text) => serde_json::from_slice::<Map<String, Value>>(&text).unwrap_or_default(),
            Err(_) => Map::new(),
        };
        all.extend(self.0.clone());
        let text = serde_json::to_string_pretty(&all)?;
        std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))
    }
}

/// Three digits behind the point: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn figures_have_the_agreed_shape_and_join_those_of_other_benches() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bench.json");
        std::fs::write(&file, r#"{"other": {"value": 1}, "review-cpu-2KiB": {"value": 9}}"#).unwrap();
        let mut figures = Figures::default();
        figures.with_target("review-cpu-2KiB", 1.25004, 1.3, Better::Lower, "ratio to no-op");
        figures.write(&file).unwrap();
        let read: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let wanted = json!({
            "other": {"value": 1},
            "review-cpu-2KiB": {"value": 1.25, "target": 1.3, "better": "lower", "unit": "ratio to no-op"},
        });
        assert_eq!(read, wanted);
    }

    #[test]
    fn a_missed_target_is_told_either_way() {
        let mut figures = Figures::default();
        figures.with_target("a", 1.0, 2.0, Better::Lower, "u");
        figures.with_target("b", 3.0, 2.0, Better::Lower, "u");
        figures.with_target("c", 1.0, 2.0, Better::Higher, "u");
        figures.without_target("d", 1.0, Better::Higher, "u");
        assert_eq!(figures.missed(), ["b: 3 u, target 2", "c: 1 u, target 2"]);
    }
}
