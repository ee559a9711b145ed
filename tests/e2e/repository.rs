//! Files of the repository that tests read.

use std::path::Path;

/// A path in the repository.
pub(crate) fn path(relative: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative).display().to_string()
}

/// A fenced block of the older operator's README.
pub(crate) struct Block {
    /// `yaml` or `bash`.
    pub(crate) language: String,
    /// What stands between the fences.
    pub(crate) text: String,
}

/// The fenced blocks of the older operator's README, in their order.
pub(crate) fn older_readme() -> Vec<Block> {
    let readme = include_str!("older-operator-readme.md");
    let fences: Vec<&str> = readme.split("```").collect();
    // Text and blocks take turns.
    fences
        .iter()
        .skip(1)
        .step_by(2)
        .filter_map(|block| block.split_once('\n'))
        .map(|(language, text)| Block { language: language.trim().to_owned(), text: text.to_owned() })
        .collect()
}
