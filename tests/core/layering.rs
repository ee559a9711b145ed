//! The direction of imports: what decides knows nothing of clusters, files, clocks or chance.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Code of a file without comments and without its `tests` module.
pub(crate) fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn assert_free_of(folder: &str, forbidden: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let files = sources(&root);
    assert!(!files.is_empty(), "no source under src/{folder}");
    assert_files_free_of(folder, &files, forbidden);
}

fn assert_files_free_of(folder: &str, files: &[PathBuf], forbidden: &[&str]) {
    for file in files {
        let code = code(file);
        for word in forbidden {
            assert!(!code.contains(word), "{} uses `{word}`, which src/{folder} must not", file.display());
        }
    }
}

const OTHER_LAYERS: [&str; 13] = [
    "crate::alert",
    "crate::audit",
    "crate::sources",
    "crate::store",
    "crate::webhook",
    "crate::cert",
    "crate::control",
    "crate::telemetry",
    "crate::trail",
    "crate::cli",
    "crate::manifests",
    "crate::document",
    "crate::report",
];

#[test]
fn the_core_does_no_io_and_reads_no_clock() {
    let forbidden = [
        "kube::",
        "k8s_openapi",
        "tokio",
        "axum",
        "hyper",
        "rustls",
        "rcgen",
        "tracing",
        "std::fs",
        "std::env",
        "std::net",
        "std::process",
        "std::thread",
        "Timestamp::now",
        "Instant",
        "SystemTime",
        "rand::",
        "uuid",
        "println!",
        "eprintln!",
        "crate::api",
    ];
    assert_free_of("core", &forbidden);
    assert_free_of("core", &OTHER_LAYERS);
}

#[test]
fn the_api_types_know_no_other_layer() {
    assert_free_of("api", &OTHER_LAYERS);
    assert_free_of(
        "api",
        &["crate::core", "tokio", "axum", "std::fs", "std::env", "std::net", "Timestamp::now"],
    );
}

#[test]
fn no_review_ever_fetches_from_a_source() {
    assert_free_of("webhook", &["crate::sources"]);
    assert_free_of("sources", &["crate::cli", "crate::webhook", "crate::manifests"]);
}

#[test]
fn a_report_is_written_without_asking_anybody() {
    let others =
        ["crate::api", "crate::audit", "crate::store", "crate::sources", "crate::control", "crate::cli"];
    assert_free_of("report", &others);
    let outside =
        ["kube::", "k8s_openapi", "tokio", "std::fs", "std::env", "std::net", "Timestamp::now", "println!"];
    // Its tests read what they expect from files.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report");
    let files: Vec<PathBuf> = sources(&root).into_iter().filter(|file| !file.ends_with("tests.rs")).collect();
    assert!(files.len() > 5, "the files of src/report are not found any more");
    assert_files_free_of("report", &files, &outside);
}
