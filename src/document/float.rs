//! Floats as Go writes them, since Go's conversion decides what reaches the API server.

use crate::core::canonical::number::shortest;

/// As Go's `encoding/json`: plain digits from 1e-6 up to below 1e21, otherwise an exponent without
/// leading zero. Only for finite numbers.
pub(super) fn json(value: f64) -> String {
    let sign = if value.is_sign_negative() { "-" } else { "" };
    let size = value.abs();
    if size == 0.0 {
        return format!("{sign}0");
    }
    let (digits, exponent) = shortest(size);
    if (1e-6..1e21).contains(&size) {
        return format!("{sign}{}", plain(&digits, exponent));
    }
    format!("{sign}{}e{exponent:+}", with_point(&digits))
}

/// As Go's `FormatFloat(value, 'g', -1, 32)`, by which a float becomes a mapping's key.
pub(super) fn key(value: f64) -> String {
    #[allow(clippy::cast_possible_truncation, reason = "Go rounds to 32 bits here too")]
    let value = value as f32;
    if value.is_nan() {
        return ".nan".to_owned();
    }
    let sign = if value.is_sign_negative() { "-" } else { "" };
    if value.is_infinite() {
        return format!("{sign}.inf");
    }
    if value == 0.0 {
        return format!("{sign}0");
    }
    let (digits, exponent) = shortest(value.abs());
    if (-4..6).contains(&exponent) {
        return format!("{sign}{}", plain(&digits, exponent));
    }
    format!("{sign}{}e{exponent:+03}", with_point(&digits))
}

/// Digits with a point behind the first one, when there are more.
fn with_point(digits: &str) -> String {
    match digits.split_at(1) {
        (first, "") => first.to_owned(),
        (first, rest) => format!("{first}.{rest}"),
    }
}

/// Digits without exponent, filled up with zeros.
fn plain(digits: &str, exponent: i32) -> String {
    match usize::try_from(exponent) {
        Ok(whole) if digits.len() <= whole + 1 => format!("{digits:0<width$}", width = whole + 1),
        Ok(whole) => format!("{}.{}", &digits[..=whole], &digits[whole + 1..]),
        Err(_) => format!("0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1)),
    }
}
