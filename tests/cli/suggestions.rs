//! Commands that messages, help texts and documents name exist and parse.

use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use driftguard::manifests::targets::TargetKind;
use serde_json::{Value, json};

use crate::run::run;

/// Where users read; design documents may speak of what is to come.
const PLACES: [&str; 11] = [
    "src",
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "docs/reference",
    "examples",
    "deploy",
    "crds",
    "webhook-config",
    "certs",
];

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            files(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|ext| ["rs", "md", "yaml"].iter().any(|known| ext == *known)) {
        found.push(path.to_owned());
    }
}

/// Every command a text names: between backquotes, or on a line of its own.
fn commands(text: &str) -> Vec<String> {
    // A command may be broken over two lines of a paragraph or a comment.
    let prefixes = ["///", "//!", "//", "# "];
    let bare = |line: &str| {
        let line = line.trim();
        prefixes.iter().find_map(|prefix| line.strip_prefix(prefix)).unwrap_or(line).trim().to_owned()
    };
    let joined = text.lines().map(bare).collect::<Vec<_>>().join(" ");
    let quoted = joined.split('`').skip(1).step_by(2).map(str::to_owned);
    // Lines of a string of the source end with its quote.
    let line =
        |line: &str| line.trim().trim_start_matches("$ ").split('"').next().unwrap_or_default().to_owned();
    let lines = text.lines().flat_map(|text| text.split("\\n")).map(line);
    quoted.chain(lines).filter(|command| command.starts_with("driftguard ")).collect()
}

/// The words of a command up to the first pipe or redirection, placeholders filled in.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for character in command.chars() {
        match (quote, character) {
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (None, '|' | '>' | '#' | '(' | ')' | ';') => break,
            (None, ' ') => words.push(String::new()),
            _ => words.last_mut().unwrap().push(character),
        }
    }
    words.retain(|word| !word.is_empty() && word != "..." && word != "\\");
    for word in &mut words {
        if word.contains('{') {
            "x".clone_into(word);
        }
    }
    words
}

/// Why a command cannot be typed; `None` when it can.
fn problem(command: &str) -> Option<String> {
    match driftguard::cli::command().try_get_matches_from(words(command)) {
        Ok(_) => None,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => None,
        // The name of a command alone, as in prose: it exists.
        Err(error)
            if words(command).len() == 2
                && matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                ) =>
        {
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn every_command_that_is_named_anywhere_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    for place in PLACES {
        files(&root.join(place), &mut sources);
    }
    // Made from the definition of the commands, with their usage, which nobody types.
    sources.retain(|source| !source.starts_with(root.join("docs/reference/commands")));
    let mut seen = 0;
    for source in sources {
        for command in commands(&std::fs::read_to_string(&source).unwrap()) {
            seen += 1;
            if let Some(problem) = problem(&command) {
                panic!("{} names `{command}`:\n{problem}", source.display());
            }
        }
    }
    assert!(seen > 40, "the search found only {seen} commands");
}

#[test]
fn every_command_that_a_refusal_suggests_exists() {
    for command in driftguard::core::message::commands() {
        assert_eq!(problem(command), None, "{command}");
    }
}

#[test]
fn the_search_finds_commands_and_their_mistakes() {
    let text = "Use `driftguard hash -f\n/// FILE`.\n    driftguard install --dev | cat\nexample\\n  driftguard version\"";
    let mut found = commands(text);
    found.sort();
    assert_eq!(found, ["driftguard hash -f FILE", "driftguard install --dev | cat", "driftguard version"]);
    assert_eq!(problem("driftguard hash -f FILE | head"), None);
    assert!(problem("driftguard hsah -f FILE").is_some());
    assert!(problem("driftguard hash --filenames FILE").is_some());
    assert!(problem("driftguard uninstall -n {namespace}").is_none());
}

#[test]
fn the_command_for_a_missing_right_gives_it_where_it_is_missing() {
    let kind = |word: &str| TargetKind::offline(word).unwrap();
    for (word, place, installed) in [
        ("secrets", Some("trading"), "terrafusion-system"),
        ("secrets", Some("guards"), "guards"),
        ("deployments.apps", Some("trading"), "guards"),
        ("widgets.example.com", Some("trading"), "terrafusion-system"),
        ("replicationcontrollers", Some("trading"), "terrafusion-system"),
        ("clusterroles.rbac.authorization.k8s.io", None, "guards"),
    ] {
        let command = kind(word).rights_command(place, installed);
        let (ours, theirs) = command.split_once(" | ").unwrap();
        assert_eq!(theirs, "kubectl apply -f -");
        let args: Vec<&str> = ours.split(' ').skip(1).collect();
        let printed = run(&args).success();
        let documents: Vec<Value> =
            printed.split("---\n").map(|text| serde_saphyr::from_str(text).unwrap()).collect();
        let role = &documents[0];
        assert_eq!(role["metadata"]["namespace"].as_str(), place, "{command}");
        assert_eq!(role["rules"][0]["resources"], json!([kind(word).plural]), "{command}");
        assert_eq!(role["rules"][0]["verbs"], json!(kind(word).verbs()), "{command}");
        if place.is_some() {
            let account = &documents[1]["subjects"][0];
            assert_eq!(
                (account["kind"].as_str(), account["namespace"].as_str()),
                (Some("ServiceAccount"), Some(installed)),
                "{command}"
            );
        } else {
            assert_eq!(role["metadata"]["labels"]["driftguard.terrafusion.ai/aggregate-to-targets"], "true");
        }
    }
}
