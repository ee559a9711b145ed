//! Numbers: first as the API server stores them, then as Python prints them.
//!
//! A token without `.`, `e` or `E` that fits a signed 64-bit integer is that integer; anything else
//! is a 64-bit float. Go prints an integral float below 1e21 without point or exponent, Python then
//! reads an integer; any other float prints as Python's `repr`.

use std::fmt::LowerExp;
use std::str::FromStr;

use crate::core::json::Problem;

/// Digits of `i64::MAX`; a token with fewer digits fits for certain.
const I64_DIGITS: usize = 19;

/// The canonical text of a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Canonical {
    /// The token itself.
    Verbatim,
    /// Another text.
    Text(String),
}

/// Length of the number that starts `text`, checked against JSON's grammar.
pub(super) fn token_length(text: &[u8]) -> Result<usize, Problem> {
    let digits = |from: usize| text[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && text[at] == b'0') {
        return Err(Problem::BadNumber);
    }
    at += whole;
    if text.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return Err(Problem::BadNumber);
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        at += usize::from(matches!(text.get(at), Some(b'+' | b'-')));
        let exponent = digits(at);
        if exponent == 0 {
            return Err(Problem::BadNumber);
        }
        at += exponent;
    }
    Ok(at)
}

/// The canonical form of a token that [`token_length`] accepted.
pub(super) fn canonical(token: &[u8]) -> Result<Canonical, Problem> {
    let text = std::str::from_utf8(token).map_err(|_| Problem::BadNumber)?;
    let integral = !token.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
    if integral && text == "-0" {
        return Ok(Canonical::Text("0".into()));
    }
    if integral && (token.len() < I64_DIGITS || text.parse::<i64>().is_ok()) {
        return Ok(Canonical::Verbatim);
    }
    let float: f64 = text.parse().map_err(|_| Problem::BadNumber)?;
    if !float.is_finite() {
        // Go refuses it, so the API server never stored it.
        return Err(Problem::BadNumber);
    }
    Ok(Canonical::Text(float_text(float)))
}

/// Text of a finite float.
fn float_text(float: f64) -> String {
    if float == 0.0 {
        return "0".into();
    }
    let (digits, exponent) = shortest(float.abs());
    let sign = if float < 0.0 { "-" } else { "" };
    let integral = float.fract() == 0.0;
    if integral && float.abs() < 1e21 {
        return format!("{sign}{}", plain_integer(&digits, exponent));
    }
    // Python's repr: a plain decimal for exponents from -4 to 15, scientific otherwise.
    if (-4..16).contains(&exponent) {
        format!("{sign}{}", plain_decimal(&digits, exponent))
    } else {
        format!("{sign}{}", scientific(&digits, exponent))
    }
}

/// The shortest digits that read back as the same float, as Go and Python print them, and the
/// decimal exponent of the first one. Only for finite numbers above zero.
pub(crate) fn shortest<F: LowerExp + FromStr + PartialEq + Copy>(float: F) -> (String, i32) {
    let split = |text: &str| {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
        (digits, exponent.parse().unwrap_or(0))
    };
    let (digits, exponent) = split(&format!("{float:e}"));
    // Where two shortest texts are equally near (2^46 + 0.125), Rust takes the upper one; Go and
    // Python the even one, as rounding to a given number of digits does.
    let rounded = format!("{:.*e}", digits.len() - 1, float);
    if rounded.parse().is_ok_and(|same: F| same == float) { split(&rounded) } else { (digits, exponent) }
}

/// Shortest digits padded with zeros, as Go's `'f'` format does it.
fn plain_integer(digits: &str, exponent: i32) -> String {
    let width = usize::try_from(exponent).unwrap_or(0) + 1;
    format!("{digits:0<width$}")
}

fn plain_decimal(digits: &str, exponent: i32) -> String {
    if let Ok(whole) = usize::try_from(exponent) {
        let (before, after) = digits.split_at((whole + 1).min(digits.len()));
        format!("{before}.{after}")
    } else {
        let zeros = "0".repeat(usize::try_from(-exponent - 1).unwrap_or(0));
        format!("0.{zeros}{digits}")
    }
}

fn scientific(digits: &str, exponent: i32) -> String {
    let (first, rest) = digits.split_at(1);
    let point = if rest.is_empty() { "" } else { "." };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{first}{point}{rest}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn print(token: &str) -> String {
        assert_eq!(token_length(token.as_bytes()), Ok(token.len()), "{token}");
        match canonical(token.as_bytes()).unwrap() {
            Canonical::Verbatim => token.to_owned(),
            Canonical::Text(text) => text,
        }
    }

    #[test]
    fn integers_of_64_bits_keep_every_digit_and_larger_ones_become_floats() {
        assert_eq!(print("9223372036854775807"), "9223372036854775807");
        assert_eq!(print("-9223372036854775808"), "-9223372036854775808");
        assert_eq!(print("9223372036854775808"), "9223372036854776000");
        assert_eq!(print("18446744073709551615"), "18446744073709552000");
        assert_eq!(print("123456789012345678901234567890"), "1.2345678901234568e+29");
    }

    #[test]
    fn integral_floats_below_1e21_print_as_integers() {
        for (token, text) in
            [("1.0", "1"), ("1e3", "1000"), ("-2.50e2", "-250"), ("1e20", "100000000000000000000")]
        {
            assert_eq!(print(token), text);
        }
        assert_eq!(print("1e21"), "1e+21");
        assert_eq!(print("-1.5E300"), "-1.5e+300");
    }

    #[test]
    fn every_zero_is_the_same() {
        for token in ["0", "-0", "0.0", "-0.0", "0e10", "-0E-7"] {
            assert_eq!(print(token), "0", "{token}");
        }
    }

    #[test]
    fn fractions_print_as_python_prints_them() {
        for (token, text) in [
            ("0.1", "0.1"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("-1.5e-7", "-1.5e-07"),
            ("123456.789", "123456.789"),
            ("5e-324", "5e-324"),
            ("1e-400", "0"),
            ("2251799813685248.5", "2251799813685248.5"),
            // Halfway between two shortest texts.
            ("123456783456789.125", "123456783456789.12"),
            ("123456783456789.375", "123456783456789.38"),
        ] {
            assert_eq!(print(token), text);
        }
    }

    #[test]
    fn what_json_does_not_allow_is_no_number() {
        for token in ["", "-", "01", "-01", "1.", ".5", "1e", "1e+", "+1"] {
            let whole = token_length(token.as_bytes()) == Ok(token.len()) && !token.is_empty();
            assert!(!whole, "{token}");
        }
        assert_eq!(canonical(b"1e400"), Err(Problem::BadNumber));
    }
}
