//! What a plain or tagged scalar means in YAML 1.1, exactly as go-yaml v2 resolves it.
//!
//! Reimplemented because YAML libraries follow 1.2, in which `on`, `yes`, `0644` and `1_000` are
//! something else, and a hash must be of what kubectl sends. `tests/vectors/yaml.json` holds the
//! two against each other.

use base64::Engine as _;

use super::error::Problem;
use super::float;

/// A resolved scalar.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    /// Fits 64 bits with sign.
    Int(i64),
    /// Above the range of `Int`.
    Uint(u64),
    Float(f64),
    Text(String),
}

const PREFIX: &str = "tag:yaml.org,2002:";

/// Resolves a scalar without quotes and tag.
pub(super) fn plain(text: &str) -> Scalar {
    let Some(first) = text.bytes().next() else { return Scalar::Null };
    match first {
        b'y' | b'Y' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'o' | b'O' | b'~' => word(text),
        b'.' => special_float(text).or_else(|| fraction(text)),
        b'+' | b'-' | b'0'..=b'9' => special_float(text).or_else(|| number(text)),
        _ => None,
    }
    .unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

fn word(text: &str) -> Option<Scalar> {
    Some(match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Scalar::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        "~" | "null" | "Null" | "NULL" => Scalar::Null,
        _ => return None,
    })
}

fn special_float(text: &str) -> Option<Scalar> {
    Some(Scalar::Float(match text {
        ".nan" | ".NaN" | ".NAN" => f64::NAN,
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => f64::INFINITY,
        "-.inf" | "-.Inf" | "-.INF" => f64::NEG_INFINITY,
        _ => return None,
    }))
}

/// Underscores may stand anywhere in a number. What is too large for 64 bits becomes a float, and
/// what looks octal but is not (`08`) a decimal float.
fn number(text: &str) -> Option<Scalar> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    integer(&plain).or_else(|| float(&plain)).or_else(|| signed_binary(&plain))
}

/// A number that begins with its point: underscores only between digits, as in Go's own literals.
fn fraction(text: &str) -> Option<Scalar> {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let sound = (1..bytes.len()).all(|at| bytes[at] != b'_' || (digit(at - 1) && digit(at + 1)));
    if sound { float(&text.replace('_', "")) } else { None }
}

/// `0b-101`: nobody means it, but go-yaml reads it.
fn signed_binary(text: &str) -> Option<Scalar> {
    let digits = text.strip_prefix("0b").filter(|digits| digits.starts_with(['-', '+']))?;
    i64::from_str_radix(digits, 2).ok().map(Scalar::Int)
}

/// Go's `ParseInt` and `ParseUint` with base 0.
fn integer(text: &str) -> Option<Scalar> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (Some('-'), &text[1..]),
        b'+' => (Some('+'), &text[1..]),
        _ => (None, text),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` would take a second sign.
    if !digits.bytes().all(|digit| digit.is_ascii_alphanumeric()) {
        return None;
    }
    let size = u64::from_str_radix(digits, base).ok()?;
    let signed = if sign == Some('-') { 0i64.checked_sub_unsigned(size) } else { i64::try_from(size).ok() };
    match (signed, sign) {
        (Some(value), _) => Some(Scalar::Int(value)),
        // Only a number without any sign is tried as unsigned.
        (None, None) => Some(Scalar::Uint(size)),
        (None, Some(_)) => None,
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, within the range of a 64-bit float.
fn float(text: &str) -> Option<Scalar> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit());
    let sound = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    if !sound || !exponent.is_none_or(digits) {
        return None;
    }
    // Too large for a float stays text, as in Go.
    text.parse().ok().filter(|value: &f64| value.is_finite()).map(Scalar::Float)
}

/// Resolves a scalar with an explicit tag, quoted or not.
pub(super) fn tagged(tag: &str, text: &str) -> Result<Scalar, Problem> {
    let misfit = || Problem::BadTag { tag: format!("!!{}", tag.strip_prefix(PREFIX).unwrap_or(tag)) };
    let resolved = || plain(text);
    Ok(match tag.strip_prefix(PREFIX) {
        Some("bool") => match resolved() {
            value @ Scalar::Bool(_) => value,
            _ => return Err(misfit()),
        },
        Some("int") => match resolved() {
            value @ (Scalar::Int(_) | Scalar::Uint(_)) => value,
            _ => return Err(misfit()),
        },
        Some("float") => match resolved() {
            #[allow(clippy::cast_precision_loss, reason = "the tag asks for a float")]
            Scalar::Int(value) => Scalar::Float(value as f64),
            value @ Scalar::Float(_) => value,
            _ => return Err(misfit()),
        },
        Some("null") => match resolved() {
            Scalar::Null => Scalar::Null,
            _ => return Err(misfit()),
        },
        Some("timestamp") => match resolved() {
            Scalar::Text(text) if is_timestamp(&text) => Scalar::Text(text),
            _ => return Err(misfit()),
        },
        Some("binary") => {
            let packed: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(packed).map_err(|_| misfit())?;
            // JSON has no bytes. kubectl would put replacement characters where they are not text.
            Scalar::Text(String::from_utf8(bytes).map_err(|_| misfit())?)
        }
        // `!!str`, and tags that nobody resolves.
        _ => Scalar::Text(text.to_owned()),
    })
}

/// Whether go-yaml takes the text for a timestamp: a date, or date and time of day. Such values
/// stay text in any case; only an explicit tag makes the difference.
fn is_timestamp(text: &str) -> bool {
    let field = |text: &str, most: usize| {
        (1..=most).contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_digit())
    };
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let mut parts = date.splitn(3, '-');
    let (Some(year), Some(month), Some(day)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    if year.len() != 4 || !field(year, 4) || !field(month, 2) || !field(day, 2) {
        return false;
    }
    let number = |text: &str| text.parse::<i8>().unwrap_or(0);
    let year = year.parse::<i16>().unwrap_or(0);
    if jiff::civil::Date::new(year, number(month), number(day)).is_err() {
        return false;
    }
    time.is_none_or(|time| is_time_of_day(time, !text.contains(' ')))
}

fn is_time_of_day(text: &str, zoned: bool) -> bool {
    let clock = if zoned {
        let Some(clock) = text.strip_suffix('Z').or_else(|| without_offset(text)) else { return false };
        clock
    } else {
        text
    };
    let (clock, fraction) = clock.split_once(['.', ',']).unwrap_or((clock, "0"));
    let limits = [24, 60, 60];
    let parts: Vec<&str> = clock.split(':').collect();
    parts.len() == limits.len()
        && !fraction.is_empty()
        && fraction.bytes().all(|digit| digit.is_ascii_digit())
        && parts.iter().zip(limits).all(|(part, limit)| {
            (1..=2).contains(&part.len()) && part.parse::<u8>().is_ok_and(|value| value < limit)
        })
}

fn without_offset(text: &str) -> Option<&str> {
    let at = text.len().checked_sub(6)?;
    let (clock, offset) = (text.get(..at)?, text.get(at..)?.as_bytes());
    let digits = [1, 2, 4, 5].iter().all(|index| offset[*index].is_ascii_digit());
    (matches!(offset[0], b'+' | b'-') && offset[3] == b':' && digits).then_some(clock)
}

impl Scalar {
    /// As a JSON value.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) -> Result<(), Problem> {
        match self {
            Self::Null => out.extend_from_slice(b"null"),
            Self::Bool(true) => out.extend_from_slice(b"true"),
            Self::Bool(false) => out.extend_from_slice(b"false"),
            Self::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Uint(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Float(value) if !value.is_finite() => return Err(Problem::NotFinite),
            Self::Float(value) => out.extend_from_slice(float::json(*value).as_bytes()),
            Self::Text(text) => write_text(text, out),
        }
        Ok(())
    }

    /// As the key of a mapping, which is always text in JSON.
    pub(super) fn as_key(&self) -> Result<String, Problem> {
        Ok(match self {
            Self::Null => return Err(Problem::BadKey("nothing")),
            Self::Bool(value) => value.to_string(),
            Self::Int(value) => value.to_string(),
            Self::Uint(_) => return Err(Problem::BadKey("a number beyond 64 bits")),
            Self::Float(value) => float::key(*value),
            Self::Text(text) => text.clone(),
        })
    }
}

/// As a JSON string.
pub(super) fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut plain = 0;
    for (at, character) in text.char_indices() {
        let escape = match character {
            '"' => "\\\"".to_owned(),
            '\\' => "\\\\".to_owned(),
            '\n' => "\\n".to_owned(),
            '\r' => "\\r".to_owned(),
            '\t' => "\\t".to_owned(),
            '\u{8}' => "\\b".to_owned(),
            '\u{c}' => "\\f".to_owned(),
            control if control < ' ' => format!("\\u{:04x}", u32::from(control)),
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        out.extend_from_slice(escape.as_bytes());
        plain = at + character.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}
