//! Broken glass, as the annotations of the validating configuration tell of it.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::api::names;
use crate::core::breakglass::BrokenGlass;

/// Longest text taken from an annotation about broken glass, in characters.
const MAX_WORDS: usize = 512;

/// Broken glass, as long as it counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// When it ends.
    pub until: Timestamp,
    /// Who broke it, as far as is known.
    pub by: String,
    /// Why, in their words.
    pub reason: String,
}

/// What became of the glass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GlassTurn {
    /// A replica has seen for the first time that it was broken.
    Broken(BrokenGlass),
    /// It is whole again, and the rules are strict.
    Mended(BrokenGlass),
}

/// The glass as it was found.
#[derive(Debug)]
pub(super) struct Glass {
    /// What is said of it, whether or not it counts.
    pub(super) found: Option<BrokenGlass>,
    /// How it is broken, if it is.
    pub(super) broken: Option<Broken>,
    /// When it was first seen to be broken, while it is.
    pub(super) seen: Option<String>,
}

impl Glass {
    /// What a configuration says at `now`; it may be broken for `longest` at most.
    pub(super) fn read(meta: Option<&ObjectMeta>, now: Timestamp, longest: SignedDuration) -> Self {
        let found = meta.and_then(said);
        let until = found.as_ref().and_then(|glass| glass.end(now, longest));
        let broken = found.as_ref().zip(until).map(|(glass, until)| Broken {
            until,
            by: glass.by.clone(),
            reason: glass.reason.clone(),
        });
        let seen = found
            .as_ref()
            .filter(|_| until.is_some())
            .map(|glass| glass.seen.map_or(now, |seen| seen.min(now)).to_string());
        Self { found, broken, seen }
    }

    /// The broken glass, while it counts.
    pub(super) fn counting(&self) -> Option<BrokenGlass> {
        self.found.clone().filter(|_| self.broken.is_some())
    }

    /// What became of it since this replica last saw it counting.
    pub(super) fn turns(self, before: Option<BrokenGlass>) -> Vec<GlassTurn> {
        let is_broken = self.broken.is_some();
        match (self.found, before) {
            (Some(glass), _) if is_broken && glass.seen.is_none() => vec![GlassTurn::Broken(glass)],
            (Some(_), _) if is_broken => Vec::new(),
            // Nobody saw it while it was broken: it is told all the same.
            (Some(glass), _) if glass.seen.is_none() => {
                vec![GlassTurn::Broken(glass.clone()), GlassTurn::Mended(glass)]
            }
            (Some(glass), _) => vec![GlassTurn::Mended(glass)],
            // Somebody took the annotations away, or the whole configuration.
            (None, Some(glass)) => vec![GlassTurn::Mended(glass)],
            (None, None) => Vec::new(),
        }
    }
}

/// What the annotations of a configuration say about broken glass; `None` when they say nothing.
fn said(meta: &ObjectMeta) -> Option<BrokenGlass> {
    let annotations = meta.annotations.as_ref()?;
    let any = names::BREAKGLASS_ANNOTATIONS.iter().any(|key| annotations.contains_key(*key));
    let time = |key: &str| annotations.get(key)?.parse().ok();
    let text = |key: &str| {
        let text = annotations.get(key)?;
        let plain = text.chars().map(|one| if one.is_control() { ' ' } else { one });
        Some(plain.take(MAX_WORDS).collect::<String>())
    };
    any.then(|| BrokenGlass {
        until: time(names::ANNOTATION_BREAKGLASS_UNTIL),
        seen: time(names::ANNOTATION_BREAKGLASS_SEEN),
        by: text(names::ANNOTATION_BREAKGLASS_BY).unwrap_or_default(),
        reason: text(names::ANNOTATION_BREAKGLASS_REASON).unwrap_or_default(),
        ended_by: text(names::ANNOTATION_BREAKGLASS_ENDED_BY),
    })
}
