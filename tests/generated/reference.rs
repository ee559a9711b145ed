//! Pages about every command, made from the definition of the command line: Markdown for readers of the
//! repository, and man pages for packages.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

/// Where the Markdown pages lie.
pub(crate) const PAGES: &str = "docs/reference/commands";

/// Where the man pages lie.
pub(crate) const MAN: &str = "docs/man";

/// Heading of the flags that every command about a cluster has. They are told once, on the first page.
const CLUSTER: &str = "Cluster";

/// All pages: path from the root of the repository, and content.
pub(crate) fn pages() -> Vec<(String, String)> {
    let mut program = driftguard::cli::command();
    program.build();
    let mut pages = vec![(format!("{PAGES}/README.md"), index(&program))];
    let mut man = Vec::new();
    each(&program, &mut |command| {
        if command.get_name() != program.get_name() {
            pages.push((format!("{PAGES}/{}.md", file_name(command)), page(command)));
        }
        man.push((format!("{MAN}/{}.1", file_name(command)), man_page(command)));
    });
    pages.append(&mut man);
    pages
}

/// The command and those below it that are shown.
fn each(command: &Command, tell: &mut impl FnMut(&Command)) {
    tell(command);
    for sub in shown(command) {
        each(sub, tell);
    }
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

/// `driftguard exception open`.
fn name(command: &Command) -> &str {
    command.get_bin_name().unwrap_or(command.get_name())
}

/// As git and kubectl name theirs: `driftguard-exception-open`.
fn file_name(command: &Command) -> String {
    name(command).replace(' ', "-")
}

fn index(program: &Command) -> String {
    let mut text = format!(
        "<!-- Made from the definition of the command line by `make generate`. -->\n# Commands\n\n{}\n\n\
         What holds for all of them, and more about each, stands in [cli.md](../cli.md). The same pages for `man` lie in \
         [docs/man](../../man).\n\n| command | what it does |\n| --- | --- |\n",
        paragraphs(&program.get_long_about().unwrap_or_default().to_string())
    );
    each(program, &mut |command| {
        if shown(command).next().is_none() {
            let about = command.get_about().unwrap_or_default().to_string();
            let _ = writeln!(text, "| [`{}`]({}.md) | {} |", name(command), file_name(command), cell(&about));
        }
    });
    text.push_str("\n## Flags about the cluster\n\nEvery command that asks an API server has them, as kubectl does.\n\n");
    let cluster = program.find_subcommand("adopt").into_iter().flat_map(Command::get_arguments);
    table(&mut text, &cluster.filter(|arg| is_of_cluster(arg)).collect::<Vec<_>>());
    text
}

fn page(command: &Command) -> String {
    let mut text = format!(
        "<!-- Made from the definition of the command line by `make generate`. -->\n# {}\n\n",
        name(command)
    );
    let about = command.get_long_about().or(command.get_about()).unwrap_or_default().to_string();
    let _ = writeln!(text, "{}\n", paragraphs(&about));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:").lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let _ = writeln!(text, "```\n{usage}\n```");
    let mut below = shown(command).peekable();
    if below.peek().is_some() {
        text.push_str("\n| command | what it does |\n| --- | --- |\n");
        for sub in below {
            let about = sub.get_about().unwrap_or_default().to_string();
            let _ = writeln!(text, "| [`{}`]({}.md) | {} |", name(sub), file_name(sub), cell(&about));
        }
    }
    let arguments: Vec<&Arg> = command.get_positionals().filter(|arg| !arg.is_hide_set()).collect();
    if !arguments.is_empty() {
        text.push_str("\n## Arguments\n\n| argument | meaning |\n| --- | --- |\n");
        for argument in arguments {
            let _ = writeln!(text, "| `{argument}` | {} |", cell(&meaning(argument)));
        }
    }
    let own = |arg: &&Arg| {
        !arg.is_positional() && !arg.is_hide_set() && !is_of_cluster(arg) && arg.get_id() != "help"
    };
    let flags: Vec<&Arg> = command.get_arguments().filter(own).collect();
    if !flags.is_empty() {
        text.push_str("\n## Flags\n\n");
        table(&mut text, &flags);
    }
    if command.get_arguments().any(is_of_cluster) {
        text.push_str("\nAnd the [flags about the cluster](README.md#flags-about-the-cluster).\n");
    }
    if let Some(after) = command.get_after_long_help().or(command.get_after_help()) {
        let _ = write!(text, "\n{}", after_help(&after.to_string()));
    }
    text
}

fn is_of_cluster(arg: &Arg) -> bool {
    arg.get_help_heading() == Some(CLUSTER)
}

fn table(text: &mut String, flags: &[&Arg]) {
    text.push_str("| flag | meaning |\n| --- | --- |\n");
    for flag in flags {
        let _ = writeln!(text, "| {} | {} |", spelling(flag), cell(&meaning(flag)));
    }
}

/// `-n`, `--namespace <NAMESPACE>`.
fn spelling(flag: &Arg) -> String {
    let short = flag.get_short().map(|short| format!("`-{short}`"));
    let names = flag.get_value_names().unwrap_or_default();
    let values: String = match flag.get_action() {
        ArgAction::Set | ArgAction::Append => names.iter().map(|name| format!("<{name}>")).collect(),
        _ => String::new(),
    };
    let is_optional = flag.get_num_args().is_some_and(|range| range.min_values() == 0);
    let value = match values.as_str() {
        "" => String::new(),
        values if is_optional => format!("[={values}]"),
        values => format!(" {values}"),
    };
    let long = flag.get_long_and_visible_aliases().into_iter().flatten();
    let long = long.map(|long| format!("`--{long}{value}`"));
    cell(&short.into_iter().chain(long).collect::<Vec<_>>().join(", "))
}

/// Its help, with what clap adds: the default and the values that are possible.
fn meaning(arg: &Arg) -> String {
    let help = arg.get_long_help().or(arg.get_help()).unwrap_or_default().to_string();
    let defaults: Vec<String> =
        arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let mut text = help;
    if takes_value && !arg.is_hide_default_value_set() && !defaults.is_empty() {
        let _ = write!(text, " [default: {}]", defaults.join(", "));
    }
    let possible = arg.get_possible_values();
    let possible: Vec<&str> = possible
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(clap::builder::PossibleValue::get_name)
        .collect();
    if takes_value && !arg.is_hide_possible_values_set() && !possible.is_empty() {
        let _ = write!(text, " [possible values: {}]", possible.join(", "));
    }
    text
}

/// Text that may stand in one cell of a table: `<` begins no tag there.
fn cell(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let mut is_code = false;
    let escaped = |character: char| {
        is_code ^= character == '`';
        if character == '<' && !is_code { "&lt;".to_owned() } else { character.to_string() }
    };
    text.chars().map(escaped).collect()
}

fn paragraphs(text: &str) -> String {
    let paragraphs = text.split("\n\n").map(|paragraph| cell(paragraph).replace("\\|", "|"));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// Prose, and lines that are indented as code: `Examples:` and the commands below it.
fn after_help(text: &str) -> String {
    let mut out = String::new();
    let mut is_code = false;
    for line in text.trim_end().lines() {
        let begins_code = line.starts_with("  ");
        if begins_code != is_code && !line.is_empty() {
            out.push_str("```\n");
            is_code = begins_code;
        }
        match line.strip_suffix(':') {
            Some(title) if !is_code && !title.contains(' ') => {
                let _ = writeln!(out, "## {title}\n");
            }
            _ if is_code => {
                let _ = writeln!(out, "{}", line.get(2..).unwrap_or_default());
            }
            _ => {
                let _ = writeln!(out, "{}", paragraphs(line));
            }
        }
    }
    if is_code {
        out.push_str("```\n");
    }
    out
}

/// No date, so that it changes with the command and the version only.
fn man_page(command: &Command) -> String {
    let title = file_name(command);
    // The name of a page is one word, so that `man driftguard-audit` finds it; clap keeps names for ever.
    let name: &'static str = title.clone().leak();
    let named = command.clone().name(name).display_name(name);
    let page = clap_mangen::Man::new(named)
        .title(title.to_uppercase())
        .source(format!("driftguard {}", env!("CARGO_PKG_VERSION")))
        .manual("DriftGuard");
    let mut bytes = Vec::new();
    page.render(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}
