//! The text of a spec in few bytes: what the specs of many guards have in common takes one byte each.
//!
//! What is packed is given back to the letter, whatever it is: a signature may be about it.

/// Stands before a text that could not be packed.
const PLAIN: u8 = 0x00;
/// Stands for the guard's own name, which its target mostly bears as well.
const NAME: u8 = 0x01;
/// Stands before the bytes of a SHA-256 in lower-case digits.
const HASH: u8 = 0x02;
/// Stands for the first phrase, and those above for the others. No text of JSON holds any of these bytes.
const FIRST: u8 = 0x0e;

/// What many specs hold, as API servers write them: keys in order of the alphabet, and defaults filled in. What begins
/// with another phrase stands before it.
const PHRASES: [&str; 18] = [
    r#"{"autoRemediate":false,"deletionPolicy":"Allow","expectedHash":""#,
    r#"{"autoRemediate":true,"deletionPolicy":"Allow","expectedHash":""#,
    r#"{"autoRemediate":"#,
    r#""deletionPolicy":""#,
    r#""enforcement":""#,
    r#""expectedHash":""#,
    r#""failurePolicy":""#,
    r#""fallbackSourceRefs":[{"kind":""#,
    r#""ignorePaths":["/"#,
    r#"","maxFailuresBeforeAlert":3,"targetKind":""#,
    r#","maxFailuresBeforeAlert":"#,
    r#","sourceOfTruthRef":{"kind":""#,
    r#""targetApiVersion":""#,
    r#""targetKind":""#,
    r#"","targetName":""#,
    r#"","targetNamespace":""#,
    "ConfigMap",
    r#""}"#,
];

/// A packed text. Two that were packed with one name are equal when their texts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packed(Box<[u8]>);

impl Packed {
    /// Packs the spec of a guard of this name.
    pub(super) fn of(text: &str, name: &str) -> Self {
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some(&byte) = rest.first() {
            let taken = if let Some((code, phrase)) = codes().find(|(_, phrase)| rest.starts_with(phrase)) {
                out.push(code);
                phrase.len()
            } else if !name.is_empty() && rest.starts_with(name.as_bytes()) {
                out.push(NAME);
                name.len()
            } else if let Some((digits, digest)) = digest(rest) {
                out.push(HASH);
                out.extend(digest);
                digits
            } else if byte.is_ascii_control() && !byte.is_ascii_whitespace() {
                return Self([&[PLAIN], text.as_bytes()].concat().into());
            } else {
                out.push(byte);
                1
            };
            rest = &rest[taken..];
        }
        Self(out.into())
    }

    /// The text, with the name that it was packed with.
    pub(super) fn text(&self, name: &str) -> String {
        let mut out = Vec::new();
        let mut bytes = self.0.iter().copied();
        while let Some(byte) = bytes.next() {
            match byte {
                PLAIN => out.extend(bytes.by_ref()),
                NAME => out.extend(name.bytes()),
                HASH => {
                    out.extend(
                        bytes.by_ref().take(32).flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]),
                    );
                }
                _ => match codes().find(|(code, _)| *code == byte) {
                    Some((_, phrase)) => out.extend(phrase),
                    None => out.push(byte),
                },
            }
        }
        // Nothing is lost: it was a text.
        String::from_utf8_lossy(&out).into_owned()
    }
}

fn codes() -> impl Iterator<Item = (u8, &'static [u8])> {
    (FIRST..).zip(PHRASES.iter().map(|phrase| phrase.as_bytes()))
}

/// The digest that a text begins with, and by how many digits.
fn digest(text: &[u8]) -> Option<(usize, [u8; 32])> {
    let digits = text.first_chunk::<64>()?;
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some((digits.len(), digest))
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    #[test]
    fn a_spec_of_defaults_takes_few_bytes_beside_its_hash() {
        let text = format!(
            r#"{{"autoRemediate":false,"deletionPolicy":"Allow","expectedHash":"{DIGEST}","maxFailuresBeforeAlert":3,"targetKind":"ConfigMap","targetName":"settings"}}"#
        );
        let packed = Packed::of(&text, "settings");
        assert!(packed.0.len() < 40, "{} bytes", packed.0.len());
        assert_eq!(packed.text("settings"), text);
    }

    #[test]
    fn any_text_is_given_back_to_the_letter() {
        let every_phrase = PHRASES.concat();
        let controls: String = (0..0x80).map(char::from).collect();
        let upper = DIGEST.to_uppercase();
        let texts = [
            "",
            "null",
            "g",
            "gg",
            "{\n\t\"a\":\r1}",
            "\u{1}",
            "a\u{2}b",
            "\u{e9}\u{7f}\u{1f600}",
            DIGEST,
            &upper,
            &DIGEST[1..],
            &every_phrase,
            &controls,
        ];
        let doubled = format!("{DIGEST}{DIGEST}0");
        for text in texts.into_iter().chain([doubled.as_str()]) {
            for name in ["", "g", "autoRemediate", DIGEST] {
                assert_eq!(Packed::of(text, name).text(name), text, "{name:?}");
            }
        }
    }

    #[test]
    fn no_phrase_hides_a_longer_one_and_each_has_a_byte_of_its_own() {
        for (at, phrase) in PHRASES.iter().enumerate() {
            let later = &PHRASES[at + 1..];
            assert!(!later.iter().any(|later| later.starts_with(phrase)), "{phrase}");
        }
        assert!(codes().all(|(code, _)| (FIRST..0x20).contains(&code)) && codes().count() == PHRASES.len());
    }
}
