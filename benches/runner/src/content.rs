//! What the ConfigMaps of the bench hold: the files that ConfigMaps of real clusters hold, made from
//! a fixed seed, so that every run hashes the same bytes.
//!
//! How fast the canonical form is depends on what stands in the text (line breaks, quotes, the
//! characters that Go's encoder writes as six bytes), so each kind of file can also be had alone.

use std::fmt::Write as _;

use anyhow::Context as _;

/// A word that stands in all content, and two of the same length that stand in none.
pub(crate) const WORD: &str = "market";
pub(crate) const ALTERED: &str = "merket";
const EARLIER: &str = "mirket";

/// One kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Settings of an application.
    Yaml,
    /// `key=value` lines with comments.
    Properties,
    /// A start script: quotes, `&&`, redirections.
    Script,
    /// A dashboard: JSON inside a string, so that every quote is escaped.
    Dashboard,
    /// Certificates: long plain lines.
    Bundle,
    /// Tags: Go's encoder writes `<` and `>` as six bytes each.
    Xml,
    /// Texts that are not English: nearly every character changes its form.
    Translations,
}

impl Shape {
    /// The mix that the figures with targets are measured on: one of each in turn.
    pub(crate) const MIX: [Self; 5] =
        [Self::Yaml, Self::Properties, Self::Script, Self::Dashboard, Self::Bundle];
    /// All, for figures of each alone.
    pub(crate) const ALL: [Self; 7] = [
        Self::Yaml,
        Self::Properties,
        Self::Script,
        Self::Dashboard,
        Self::Bundle,
        Self::Xml,
        Self::Translations,
    ];

    /// A word for figures and keys.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Yaml => "yaml",
            Self::Properties => "properties",
            Self::Script => "script",
            Self::Dashboard => "dashboard",
            Self::Bundle => "bundle",
            Self::Xml => "xml",
            Self::Translations => "translations",
        }
    }

    /// Name of a file of this kind.
    fn file(self, number: usize) -> String {
        let extension = match self {
            Self::Yaml => "yaml",
            Self::Properties => "properties",
            Self::Script => "sh",
            Self::Dashboard => "json",
            Self::Bundle => "pem",
            Self::Xml => "xml",
            Self::Translations => "txt",
        };
        format!("{}-{number:02}.{extension}", self.name())
    }

    /// Adds one line of such a file.
    fn line(self, text: &mut String, dice: &mut Dice) {
        let (word, other, number) = (dice.word(), dice.word(), dice.below(10_000));
        let written = match self {
            Self::Yaml => match dice.below(4) {
                0 => writeln!(text, "{word}:"),
                1 => writeln!(text, "  {word}: \"{other}-{number}\""),
                2 => writeln!(text, "    - {word}.{other}.svc.cluster.local:{number}"),
                _ => writeln!(text, "  {word}-{other}: {number}"),
            },
            Self::Properties => match dice.below(5) {
                0 => writeln!(text, "# {word} of the {other}"),
                _ => writeln!(text, "{word}.{other}.{word}={other}-{number}"),
            },
            Self::Script => match dice.below(4) {
                0 => writeln!(text, "if [ -z \"${{{word}}}\" ]; then {other}=\"{number}\"; fi"),
                1 => writeln!(text, "{word} --{other}={number} > /var/log/{word}.log 2>&1"),
                2 => writeln!(text, "\tmkdir -p /srv/{word}/{other} && cd /srv/{word}"),
                _ => writeln!(text, "echo \"{word} {other} {number}\""),
            },
            Self::Dashboard => {
                writeln!(text, "    {{ \"{word}\": \"{other}\", \"id\": {number}, \"show\": true }},")
            }
            Self::Bundle => {
                let line: String = (0..64).map(|_| dice.base64()).collect();
                writeln!(text, "{line}")
            }
            Self::Xml => writeln!(text, "  <{word} name=\"{other}\"><value>{number}</value></{word}>"),
            Self::Translations => writeln!(text, "{word}=Größe für Straße {number} 設定の値 настройка"),
        };
        // Writing into a String cannot fail.
        written.ok();
    }
}

/// Files of the given kinds in turn, `bytes` of text in all, as name and content in the order in
/// which the API server sorts them. No file is longer than 16 KiB.
pub(crate) fn files(shapes: &[Shape], bytes: usize) -> Vec<(String, String)> {
    const LONGEST: usize = 16 << 10;
    let count = shapes.len().max(bytes.div_ceil(LONGEST));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut files = Vec::with_capacity(count);
    for number in 0..count {
        let shape = shapes[number % shapes.len()];
        // The shares of all files add up to `bytes` exactly.
        let length = bytes * (number + 1) / count - bytes * number / count;
        let mut text = String::with_capacity(length + 128);
        while text.len() < length {
            shape.line(&mut text, &mut dice);
        }
        cut(&mut text, length);
        files.push((shape.file(number), text));
    }
    files.sort();
    files
}

/// The content before the update: one letter differs, in the first file that has the word.
pub(crate) fn earlier(files: &[(String, String)]) -> anyhow::Result<Vec<(String, String)>> {
    let mut files = files.to_vec();
    let first = files.iter_mut().find(|(_, text)| text.contains(WORD));
    let (_, text) = first.with_context(|| format!("no file holds the word {WORD}"))?;
    *text = text.replacen(WORD, EARLIER, 1);
    Ok(files)
}

/// Cuts at the last character that ends within `length`, and fills up with spaces.
fn cut(text: &mut String, length: usize) {
    let end = (0..=length).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text.extend(std::iter::repeat_n(' ', length - end));
}

/// Numbers that look random and are the same every time (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 16] = [
            WORD,
            "server",
            "timeout",
            "valuation",
            "cache",
            "region",
            "replicas",
            "endpoint",
            "limits",
            "window",
            "parcel",
            "database",
            "pool",
            "retry",
            "threshold",
            "assessment",
        ];
        WORDS[usize::try_from(self.below(16)).unwrap_or_default()]
    }

    fn base64(&mut self) -> char {
        const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        char::from(DIGITS[usize::try_from(self.below(64)).unwrap_or_default()])
    }
}

/// A text as a JSON string, the way Go's encoder writes it for HTML's sake.
fn go_string(text: &str) -> String {
    let plain = serde_json::Value::from(text).to_string();
    let mut escaped = String::with_capacity(plain.len() + plain.len() / 8);
    for character in plain.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing into a String cannot fail.
                write!(escaped, "\\u{:04x}", u32::from(character)).ok();
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

/// A ConfigMap with these files as it stands in an admission review: the API server's order of
/// fields, compact, escaped for HTML.
pub(crate) fn object(name: &str, files: &[(String, String)]) -> Vec<u8> {
    let list =
        |item: &dyn Fn(&(String, String)) -> String| files.iter().map(item).collect::<Vec<_>>().join(",");
    let fields = list(&|(key, _)| format!("\"f:{key}\":{{}}"));
    let data = list(&|(key, text)| format!("{}:{}", go_string(key), go_string(text)));
    format!(
        "{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{{\"name\":\"{name}\",\
         \"namespace\":\"bench\",\"uid\":\"5f1f7a1e-0c6c-4a52-9a51-1c29f7c20b8e\",\
         \"resourceVersion\":\"1402\",\"creationTimestamp\":\"2026-01-05T09:30:00Z\",\
         \"managedFields\":[{{\"manager\":\"kubectl-create\",\"operation\":\"Update\",\
         \"apiVersion\":\"v1\",\"time\":\"2026-01-05T09:30:00Z\",\"fieldsType\":\"FieldsV1\",\
         \"fieldsV1\":{{\"f:data\":{{\".\":{{}},{fields}}}}}}}]}},\"data\":{{{data}}}}}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn files_hold_exactly_the_bytes_asked_for_and_are_sorted() {
        for bytes in [2 << 10, 200 << 10, 1 << 20] {
            for shapes in [&Shape::MIX[..], &[Shape::Translations]] {
                let files = files(shapes, bytes);
                assert_eq!(files.iter().map(|(_, text)| text.len()).sum::<usize>(), bytes);
                assert!(files.is_sorted() && files.iter().all(|(_, text)| text.len() <= 16 << 10));
            }
        }
    }

    #[test]
    fn an_object_is_json_that_reads_back_as_its_files() {
        let files = files(&Shape::ALL, 20 << 10);
        let object = object("x", &files);
        assert!(!object.iter().any(|byte| matches!(byte, b'<' | b'>' | b'&')));
        let value: serde_json::Value = serde_json::from_slice(&object).unwrap();
        let data = value["data"].as_object().unwrap();
        assert_eq!(data.len(), files.len());
        for (key, text) in files {
            assert_eq!(data[&key], text);
        }
    }
}
