//! How two contents of a target are shown: as a unified diff of what is pinned, or as a list of paths.

use anyhow::Context as _;
use serde_json::Value;
use similar::TextDiff;

use crate::cli::pinned::{Content, Pinned};
use crate::core::canonical::canonical_object;
use crate::core::diff::changed_paths;

/// Most paths that are listed.
const MOST_PATHS: usize = 1000;
/// Lines around a change, as diff has them.
const CONTEXT: usize = 3;

/// How a difference is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A unified diff of YAML
    Yaml,
    /// A unified diff of JSON
    Json,
    /// The paths that differ: - only approved, + only live, ~ other content
    Paths,
}

/// The difference of two contents; of Secrets only paths, which hold names of keys.
///
/// # Errors
/// When a content cannot be read, or is nested too deep to be shown.
pub(crate) fn difference(
    pinned: &Pinned<'_>,
    old: (&str, &Content),
    new: (&str, Option<&Content>),
    format: Format,
) -> anyhow::Result<String> {
    let ((old_name, old), (new_name, new)) = (old, new);
    let Some(new) = new else {
        return Ok(format!("--- {old_name}\n+++ {new_name}\n- {} is missing\n", pinned.target));
    };
    if format == Format::Paths || pinned.scope.is_secret() {
        let list = paths(pinned, &old.json, &new.json)?;
        return Ok(format!("--- {old_name}\n+++ {new_name}\n{list}"));
    }
    let (left, right) = (text(pinned, &old.json, format)?, text(pinned, &new.json, format)?);
    let diff = TextDiff::from_lines(&left, &right);
    Ok(diff.unified_diff().context_radius(CONTEXT).header(old_name, new_name).to_string())
}

/// What is pinned of an object, pretty-printed with sorted keys. Never of a Secret.
fn text(pinned: &Pinned<'_>, json: &[u8], format: Format) -> anyhow::Result<String> {
    let canonical = canonical_object(json, &pinned.scope).with_context(|| pinned.target.to_string())?;
    let value: Value = serde_json::from_slice(&canonical)
        .with_context(|| format!("{} is nested too deep to be shown; use -o paths", pinned.target))?;
    if format == Format::Json {
        return Ok(serde_json::to_string_pretty(&value)? + "\n");
    }
    let options = serde_saphyr::ser_options! {
        indent_step: 2,
        // Texts of several lines are compared line by line.
        prefer_block_scalars: true,
        folded_wrap_chars: usize::MAX,
        compact_list_indent: true,
    };
    Ok(serde_saphyr::to_string_with_options(&value, options)?)
}

/// The paths that differ, a line each.
fn paths(pinned: &Pinned<'_>, old: &[u8], new: &[u8]) -> anyhow::Result<String> {
    let changes = changed_paths(old, new, &pinned.scope, MOST_PATHS)?;
    // Only to tell what was added from what changed; an object that is nested too deep for that is told as changed.
    let parsed = |json: &[u8]| serde_json::from_slice::<Value>(json).ok();
    let (old, new) = (parsed(old), parsed(new));
    let has = |object: &Option<Value>, path: &str| {
        object.as_ref().is_some_and(|object| object.pointer(path).is_some())
    };
    let mut text = String::new();
    let mut sorted: Vec<&String> = changes.paths.iter().collect();
    sorted.sort();
    for path in sorted {
        let sign = match (has(&old, path), has(&new, path)) {
            (true, false) => '-',
            (false, true) => '+',
            _ => '~',
        };
        text.push_str(&format!("{sign} {path}\n"));
    }
    if changes.more {
        text.push_str("and more\n");
    }
    Ok(text)
}
