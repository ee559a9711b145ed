//! YAML that every reader understands alike.
//!
//! kubectl reads YAML 1.1, where `on`, `yes`, `0123` and `1:30` are no strings. Whatever is written
//! here reads back as the same value under those rules too.

use serde::Serialize;

/// Why YAML could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what} as YAML: {source}")]
pub struct YamlError {
    what: String,
    source: serde_saphyr::ser::Error,
}

/// One document, ending with a line break, without a `---` of its own.
///
/// # Errors
/// [`YamlError`] naming `what`, when the value cannot be written as YAML.
pub fn document<T: Serialize>(what: &str, value: &T) -> Result<String, YamlError> {
    serde_saphyr::to_string_with_options(value, options())
        .map_err(|source| YamlError { what: what.to_owned(), source })
}

/// The same, written as it is made.
///
/// # Errors
/// As [`document`], and when it cannot be written.
pub fn document_to<T: Serialize>(
    what: &str,
    value: &T,
    out: &mut dyn std::io::Write,
) -> Result<(), YamlError> {
    serde_saphyr::to_io_writer_with_options(&mut &mut *out, value, options())
        .map_err(|source| YamlError { what: what.to_owned(), source })
}

fn options() -> serde_saphyr::SerializerOptions {
    serde_saphyr::ser_options! {
        indent_step: 2,
        // Folded text would be re-wrapped by editors; a long line is what other generators write.
        prefer_block_scalars: false,
        // YAML 1.1 spellings of booleans, numbers and dates are quoted.
        yaml_12: false,
        compact_list_indent: true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use serde_json::Value;

    /// Strings that some YAML reader takes for something else when they stand without quotes.
    const TREACHEROUS: [&str; 34] = [
        "",
        " ",
        "~",
        "null",
        "Null",
        "true",
        "TRUE",
        "yes",
        "No",
        "on",
        "OFF",
        "y",
        "N",
        "0123",
        "0o17",
        "0x1F",
        "0b1",
        "1_000",
        "1:30",
        "190:20:30",
        "1e3",
        ".5",
        "-.inf",
        ".NaN",
        "2001-12-14",
        "2001-12-14t21:59:43Z",
        "=",
        "<<",
        "- a",
        "a: b",
        "a #b",
        "#b",
        "@at",
        "`tick",
    ];

    fn quoted(text: &str) -> bool {
        text.starts_with('"') || text.starts_with('\'')
    }

    #[test]
    fn what_a_yaml_1_1_reader_would_misread_is_quoted_as_value_and_as_key() {
        for text in TREACHEROUS {
            let value = document("test", &serde_json::json!({ "k": text })).unwrap();
            assert!(
                quoted(value.trim_end().strip_prefix("k: ").unwrap()),
                "value {text:?} is written {value}"
            );
            let key = document("test", &serde_json::json!({ text: "v" })).unwrap();
            assert!(quoted(&key), "key {text:?} is written {key}");
        }
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let mut strings: Vec<String> = TREACHEROUS.iter().map(|&text| text.to_owned()).collect();
        strings.extend(
            ["two\nlines", "ends\n", "\n\n", "\ttab", "tail ", "\u{1}\u{7f}\u{85}\u{2028}\u{feff}", "é漢🦀"]
                .map(str::to_owned),
        );
        strings.push("long ".repeat(100));
        let value = serde_json::json!({
            "strings": strings,
            "numbers": [0, -1, i64::MAX, u64::MAX, 0.1, 1e300],
            "empty": {"list": [], "map": {}, "null": null, "false": false},
        });
        let text = document("test", &value).unwrap();
        let read: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(read, value, "{text}");
    }
}
