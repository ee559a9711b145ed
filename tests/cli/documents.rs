//! What documents say about the program is so.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Command;

/// Documents for users.
const DOCUMENTS: [&str; 13] = [
    "README.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "deploy/README.md",
    "certs/README.md",
    "webhook-config/README.md",
    "docs/architecture.md",
    "docs/gitops.md",
    "docs/troubleshooting.md",
    "docs/reference/cli.md",
    "docs/reference/driftguard.md",
    "docs/reference/driftguardexception.md",
];

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The command line with what clap adds when it is built.
fn program() -> Command {
    let mut program = driftguard::cli::command();
    program.build();
    program
}

/// The flags of one command and of those below it, with their dashes. Some are for tests alone.
fn flags(command: &Command) -> BTreeSet<String> {
    let shown = || command.get_arguments().filter(|argument| !argument.is_hide_set());
    let long = shown().flat_map(|argument| argument.get_long_and_visible_aliases());
    let short = shown().flat_map(|argument| argument.get_short_and_visible_aliases());
    let long = long.flatten().map(|flag| format!("--{flag}"));
    let below = command.get_subcommands().flat_map(flags);
    long.chain(short.flatten().map(|flag| format!("-{flag}"))).chain(below).collect()
}

fn flags_of_any() -> BTreeSet<String> {
    program().get_subcommands().flat_map(flags).collect()
}

/// The flag at the beginning of a word, without its value and what follows.
fn flag(word: &str) -> Option<&str> {
    let end = word.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(word.len());
    let flag = &word[..end];
    (flag.starts_with('-') && flag.trim_start_matches('-').starts_with(|c: char| c.is_ascii_alphabetic()))
        .then_some(flag)
}

/// What stands between backquotes, over the ends of lines. Blocks of code are left out.
fn quoted(text: &str) -> Vec<String> {
    let mut is_code = false;
    let prose = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        is_code ^= fence;
        !fence && !is_code && !line.starts_with("    ")
    });
    let joined = prose.map(str::trim).collect::<Vec<_>>().join(" ");
    joined.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The flag of a quoted text that is no flag of the program; texts about other programs have none.
fn unknown(quoted: &str) -> Option<String> {
    let program = program();
    let mut words = quoted.split_whitespace().skip_while(|word| *word == "driftguard").peekable();
    let named = words.peek().and_then(|word| program.find_subcommand(word));
    let known = match named {
        Some(command) => flags(command),
        None if quoted.starts_with('-') => flags_of_any(),
        None => return None,
    };
    words.filter_map(flag).find(|flag| !known.contains(*flag)).map(str::to_owned)
}

#[test]
fn every_flag_that_documents_name_exists() {
    let mut seen = 0;
    for document in DOCUMENTS {
        for text in quoted(&read(document)) {
            seen += usize::from(text.contains("--"));
            assert_eq!(unknown(&text), None, "{document}: `{text}`");
        }
    }
    assert!(seen > 50, "the search found only {seen} texts with flags");
}

#[test]
fn the_search_for_flags_finds_mistakes_and_leaves_other_programs_alone() {
    assert_eq!(unknown("--max-exceptions"), Some("--max-exceptions".into()));
    assert_eq!(unknown("driftguard install --foo=bar -n x"), Some("--foo".into()));
    assert_eq!(unknown("install --max-exception 8h"), Some("--max-exception".into()), "it is serve's");
    for right in ["--adopt", "serve --client-name", "guard -o json", "kubectl apply --server-side -f -", "-"]
    {
        assert_eq!(unknown(right), None, "{right}");
    }
    assert_eq!(quoted("a `b\nc` d\n```\n`x`\n```\n    `y`\n"), ["b c"]);
}

/// Sections of the reference that are about one command, with the flags of their tables.
fn sections() -> Vec<(String, BTreeSet<String>)> {
    let mut sections = Vec::new();
    for line in read("docs/reference/cli.md").lines() {
        if let Some(title) = line.trim_start_matches('#').trim().strip_prefix("driftguard ")
            && line.starts_with('#')
        {
            sections.push((title.to_owned(), BTreeSet::new()));
        } else if let (Some(first), Some((_, flags))) = (line.strip_prefix("| `-"), sections.last_mut()) {
            let cell = format!("`-{}", first.split(" | ").next().unwrap_or_default());
            flags.extend(quoted(&cell).iter().filter_map(|text| flag(text)).map(str::to_owned));
        }
    }
    sections
}

#[test]
fn the_reference_has_every_command_and_no_flag_that_it_lacks() {
    let program = program();
    let sections = sections();
    for (name, named) in &sections {
        let command = program.find_subcommand(name).unwrap_or_else(|| panic!("no command {name}"));
        let known = flags(command);
        let unknown: Vec<&String> = named.iter().filter(|flag| !known.contains(*flag)).collect();
        assert!(unknown.is_empty(), "driftguard {name} has no {unknown:?}");
    }
    let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
    for command in commands.map(Command::get_name).filter(|name| *name != "help") {
        assert!(sections.iter().any(|(name, _)| name == command), "the reference lacks driftguard {command}");
    }
    // What is about running it stands there completely: nobody reads the help of a Deployment.
    let (_, of_serve) = sections.iter().find(|(name, _)| name == "serve").unwrap();
    let of_cluster = flags(program.find_subcommand("adopt").unwrap());
    let serve = flags(program.find_subcommand("serve").unwrap());
    let missing: Vec<&String> =
        serve.difference(of_serve).filter(|flag| !of_cluster.contains(*flag)).collect();
    assert!(missing.is_empty(), "the reference lacks {missing:?} of serve");
}

#[test]
fn the_reference_explains_every_reason_of_a_condition() {
    let page = read("docs/reference/driftguard.md") + &read("docs/reference/driftguardexception.md");
    let source = read("src/api/reasons.rs");
    let reasons: Vec<&str> = source
        .lines()
        .filter(|line| line.starts_with("pub const "))
        .filter_map(|line| line.split_once(": &str = \"")?.1.strip_suffix("\";"))
        .collect();
    assert!(reasons.len() > 15, "{reasons:?}");
    let missing: Vec<&&str> =
        reasons.iter().filter(|reason| !page.contains(&format!("`{reason}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_image_is_built_by_the_compiler_of_the_project_and_runs_without_root() {
    let (image, toolchain) = (read("Dockerfile"), read("rust-toolchain.toml"));
    let version = toolchain.split("channel = \"").nth(1).unwrap().split('"').next().unwrap();
    assert!(image.contains(&format!("docker.io/library/rust:{version}-")), "{version}");
    assert!(image.contains(&format!("RUSTUP_TOOLCHAIN={version}\n")), "{version}");
    assert!(image.contains("\nUSER 65532:65532\n"), "kubelet takes only a number for not root");
    assert!(image.ends_with("ENTRYPOINT [\"/driftguard\"]\n"));
}
