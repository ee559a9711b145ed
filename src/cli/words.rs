//! Counts and lists in messages, which must stay readable with a hundred thousand guards.

/// Most names that one message lists.
const MOST: usize = 5;

/// `a, b and 3 more`.
pub(super) fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let some: Vec<&str> = names.iter().take(MOST).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(MOST) {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}

/// `1 guard`, `2 guards`.
pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_is_cut_and_says_by_how_much() {
        let names = ["a", "b", "c", "d", "e", "f", "g"];
        assert_eq!(listed(&names), "a, b, c, d, e and 2 more");
        assert_eq!(listed(&names[..2]), "a, b");
        assert_eq!((counted(1, "guard"), counted(0, "guard")), ("1 guard".into(), "0 guards".into()));
    }
}
