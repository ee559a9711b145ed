//! How two contents of a target are shown: as a unified diff of what is pinned, or as a list of paths.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde_json::Value;
use similar::TextDiff;

use crate::cli::output;
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

/// A difference as terminals show one: red what goes, green what comes.
pub(crate) fn coloured(difference: &str) -> String {
    let mut text = String::new();
    for line in difference.lines() {
        let code = match line.as_bytes() {
            [b'-', b'-', b'-', b' ', ..] | [b'+', b'+', b'+', b' ', ..] => "1",
            [b'@', b'@', ..] => "36",
            [b'-', ..] => "31",
            [b'+', ..] => "32",
            [b'~', ..] => "33",
            _ => {
                text.push_str(line);
                text.push('\n');
                continue;
            }
        };
        let _ = writeln!(text, "\x1b[{code}m{line}\x1b[0m");
    }
    text
}

/// Tells a difference on stderr, before a question.
pub(crate) fn tell(difference: &str) {
    let is_coloured = output::takes_colour(&std::io::stderr());
    let text = if is_coloured { coloured(difference) } else { difference.to_owned() };
    output::message(text.trim_end_matches('\n'));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_red_and_what_comes_is_green() {
        let plain = "--- old\n+++ new\n@@ -1 +1 @@\n-limit: '1'\n+limit: '2'\n same: x\n~ /data/a\n";
        let shown = coloured(plain);
        assert!(
            shown.contains("\x1b[31m-limit: '1'\x1b[0m\n\x1b[32m+limit: '2'\x1b[0m\n same: x\n"),
            "{shown:?}"
        );
        assert!(shown.starts_with("\x1b[1m--- old\x1b[0m\n"), "{shown:?}");
        let mut bare = shown;
        for code in ["1", "36", "31", "32", "33", "0"] {
            bare = bare.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(bare, plain, "nothing but colour is added");
    }
}
