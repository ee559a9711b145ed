//! Warnings that come with an answer of the API server, as RFC 7234 writes them.

use http::HeaderMap;

/// The warnings of one answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    /// Their texts, without control characters.
    pub texts: Vec<String>,
    /// How many headers there are that cannot be read, or not to their end.
    pub unread: usize,
}

/// The warnings among the headers of an answer.
#[must_use]
pub fn of(headers: &HeaderMap) -> Warnings {
    let mut warnings = Warnings::default();
    for value in headers.get_all(http::header::WARNING) {
        let is_read = std::str::from_utf8(value.as_bytes())
            .is_ok_and(|header| read(header, &mut warnings.texts).is_some());
        warnings.unread += usize::from(!is_read);
    }
    warnings
}

/// Reads one header: `299 - "text"`, in which quotes and backslashes are escaped, perhaps with a date behind it, and
/// perhaps several with commas between them.
fn read(header: &str, texts: &mut Vec<String>) -> Option<()> {
    let mut rest = header.trim();
    loop {
        let (_code, after) = rest.split_once(' ')?;
        let (_agent, after) = after.split_once(' ')?;
        let (text, after) = quoted(after)?;
        texts.push(text);
        rest = after.trim_start();
        if rest.starts_with('"') {
            rest = quoted(rest)?.1.trim_start();
        }
        if rest.is_empty() {
            return Some(());
        }
        rest = rest.strip_prefix(',')?.trim_start();
    }
}

/// A quoted text at the beginning, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut characters = text.strip_prefix('"')?.chars();
    let mut out = String::new();
    loop {
        match characters.next()? {
            '"' => return Some((out, characters.as_str())),
            '\\' => out.push(characters.next()?),
            other if other.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use http::HeaderValue;

    use super::*;

    fn read_of(headers: &[&str]) -> Warnings {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(http::header::WARNING, HeaderValue::from_bytes(header.as_bytes()).unwrap());
        }
        of(&map)
    }

    fn texts(headers: &[&str]) -> Vec<String> {
        let read = read_of(headers);
        assert_eq!(read.unread, 0, "{headers:?}");
        read.texts
    }

    #[test]
    fn warnings_are_read_without_their_quotes() {
        assert_eq!(texts(&[r#"299 - "a \"b\" c\\d""#]), [r#"a "b" c\d"#]);
        assert_eq!(texts(&[r#"299 - "größer""#, r#"299 kube "b""#]), ["größer", "b"]);
        assert_eq!(texts(&[r#"299 - "a, b", 299 - "c" "Fri, 27 Nov 2026 00:00:00 GMT""#]), ["a, b", "c"]);
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        for header in ["299 - unquoted", r#"299 - "never closed"#, "nonsense", "", r#"299 - "a" b"#] {
            assert_eq!(read_of(&[header]).unread, 1, "{header}");
        }
        let mut map = HeaderMap::new();
        map.append(http::header::WARNING, HeaderValue::from_bytes(b"299 - \"\xff\"").unwrap());
        assert_eq!(of(&map), Warnings { texts: Vec::new(), unread: 1 });
    }
}
