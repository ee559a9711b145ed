//! Tables as kubectl prints them: a heading in capitals, columns three spaces apart.

use crate::core::message::clean;

/// Lines with aligned columns; the last column is not padded. Empty cells show as `<none>`.
pub(crate) fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |text: &str| if text.is_empty() { "<none>".to_owned() } else { one_line(text) };
    let mut lines: Vec<Vec<String>> = vec![heading.iter().map(|&text| text.to_owned()).collect()];
    lines.extend(rows.iter().map(|row| row.iter().map(|text| cell(text)).collect()));
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|text| text.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut out = String::new();
    for line in &lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(&format!("{cell:<width$}   "));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// Without characters that would move what stands beside or below.
pub(super) fn one_line(text: &str) -> String {
    clean(text, usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_breaks_a_row() {
        let rows = [
            vec!["a".to_owned(), String::new(), "x\ny".to_owned()],
            vec!["long".into(), "b".into(), "z".into()],
        ];
        assert_eq!(
            render(&["NAME", "BY", "WHY"], &rows),
            "NAME   BY       WHY\na      <none>   x y\nlong   b        z\n"
        );
    }
}
