//! Commands as a person types them: questions, colours, what goes on until Ctrl-C, and completion, in a terminal.

use anyhow::{Result, ensure};
use driftguard_control_plane::{Terminal, until};
use serde_json::json;

use crate::auditing::{auditing, pinned};
use crate::installation::{DRIFTGUARD, Installation, LIMIT, config_map, driftguard};

/// A terminal of so many columns, of the administrator.
fn terminal(on: &Installation, columns: usize) -> Result<Terminal> {
    let kubeconfig = on.admin.kubeconfig().display().to_string();
    let folder = DRIFTGUARD.rsplit_once('/').map_or(".", |(folder, _)| folder);
    let path = format!("{folder}:{}", std::env::var("PATH")?);
    Terminal::start(columns, &[("KUBECONFIG", &kubeconfig), ("PATH", &path)])
}

/// A pinned ConfigMap that is left alone unless somebody asks.
fn guarded(on: &Installation, ns: &str) -> Result<String> {
    pinned(on, ns, &json!({"limit": "1000"}), &json!({"autoRemediate": false}))
}

fn edit(on: &Installation, ns: &str, limit: &str) -> Result<()> {
    let patch = json!({"data": {"limit": limit}}).to_string();
    until("the write passes", LIMIT, || {
        on.admin.kubectl(&["patch", "configmap/settings", "-n", ns, "--type=merge", "-p", &patch])?.success()
    })
    .map(drop)
}

#[test]
fn on_a_terminal_it_asks_and_only_a_yes_approves() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("terminal-asks")?;
    let guard = &guarded(on, ns)?;
    let expected =
        || Ok::<_, anyhow::Error>(on.get(ns, &format!("dg/{guard}"))?["spec"]["expectedHash"].clone());
    let before = expected()?;
    let hash = "ab".repeat(32);
    let asked = || {
        let terminal = terminal(on, 100)?;
        terminal.begin(&format!("driftguard approve {guard} -n {ns} --hash {hash}"))?;
        let question = "Approve this for driftguard/settings-guard in namespace terminal-asks? [y/N]";
        terminal.until("it asks", |screen| screen.contains(question))?;
        Ok::<_, anyhow::Error>(terminal)
    };
    for no in ["n", "", "yess"] {
        let terminal = asked()?;
        terminal.line(no)?;
        let (said, code) = terminal.end()?;
        ensure!(code == 2 && said.contains("error: nothing was approved"), "{no:?} ends with {code}: {said}");
    }
    let terminal = asked()?;
    terminal.key("C-c")?;
    let (said, code) = terminal.end()?;
    ensure!(code == 130 && !said.contains("approved\n"), "it ends with {code}: {said}");
    ensure!(expected()? == before, "something was approved");

    let terminal = asked()?;
    terminal.line("y")?;
    let (said, code) = terminal.end()?;
    ensure!(code == 0 && said.contains("driftguard/settings-guard approved"), "it ends with {code}: {said}");
    ensure!(expected()? == hash.as_str());
    Ok(())
}

#[test]
fn a_table_on_a_terminal_has_trouble_first_and_in_colour() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("terminal-colour")?;
    for name in ["calm", "wrong", "gone"] {
        on.apply(&config_map(ns, name, &json!({"a": "1"})))?.success()?;
        let guard = driftguard(&on.admin, &["guard", "configmap", name, "-n", ns])?.success()?;
        on.admin.kubectl_with(&["apply", "-f", "-"], guard)?.success()?;
        on.wait_enforcing(ns, &format!("{name}-guard"))?;
    }
    let open =
        ["exception", "open", "wrong-guard", "gone-guard", "-n", ns, "--for", "1h", "--reason", "test"];
    driftguard(&on.admin, &open)?.success()?;
    let patch = json!({"data": {"a": "2"}}).to_string();
    on.admin.kubectl(&["patch", "configmap/wrong", "-n", ns, "--type=merge", "-p", &patch])?.success()?;
    on.admin.kubectl(&["delete", "configmap/gone", "-n", ns])?.success()?;

    let terminal = terminal(on, 100)?;
    let (rows, code) = terminal.run(&format!("driftguard audit -n {ns}"))?;
    ensure!(code == 1 && rows.len() == 5, "it ends with {code}: {rows:#?}");
    let words: Vec<_> = rows.iter().filter_map(|row| row.split_whitespace().next()).collect();
    ensure!(words == ["STATE", "Missing", "Drifted", "InSync", "3"], "{rows:#?}");
    let coloured = terminal.coloured()?;
    for state in ["\u{1b}[31mMissing", "\u{1b}[31mDrifted", "\u{1b}[32mInSync"] {
        ensure!(coloured.contains(state), "{state:?}: {coloured:?}");
    }
    let (_, code) = terminal.run(&format!("NO_COLOR=1 driftguard audit -n {ns}"))?;
    let plain = terminal.coloured()?;
    ensure!(code == 1 && plain.contains("Drifted") && !plain.contains('\u{1b}'), "{plain:?}");
    Ok(())
}

#[test]
fn what_is_watched_fits_the_terminal_as_it_is_resized_and_ends_by_ctrl_c() -> Result<()> {
    let on = auditing()?;
    let ns = &on.namespace("terminal-watch")?;
    guarded(on, ns)?;
    let suspend = ["suspend", "settings-guard", "-n", ns, "--for", "1h", "--reason", "test"];
    driftguard(&on.admin, &suspend)?.success()?;
    let terminal = terminal(on, 120)?;
    terminal.begin(&format!("driftguard audit -n {ns} --watch"))?;
    let row = |screen: &str, state: &str| {
        let mut rows = screen.lines().filter(|row| row.contains(&format!("Z  {state} ")));
        rows.next_back().map(str::trim_end).map(str::to_owned)
    };
    terminal.until("the state is told", |screen| row(screen, "Suspended").is_some())?;
    terminal.resize(60)?;
    edit(on, ns, "2000")?;
    let whole = |screen: &str| row(screen, "Drifted").filter(|row| row.ends_with("..."));
    let screen =
        terminal.until("drift is told in a row of the new width", |screen| whole(screen).is_some())?;
    let drifted = whole(&screen).unwrap_or_default();
    ensure!(drifted.chars().count() == 60, "{screen}");
    terminal.resize(160)?;
    edit(on, ns, "1000")?;
    let again = |screen: &str| {
        let suspended = screen.lines().filter(|row| row.contains("Z  Suspended ")).count();
        suspended > 1 && row(screen, "Suspended").is_some_and(|row| !row.ends_with("..."))
    };
    terminal.until("that it is approved again is told in a whole row", again)?;
    terminal.key("C-c")?;
    let (said, code) = terminal.end()?;
    ensure!(code == 0, "a suspended guard is no finding, and it ends with {code}: {said}");
    ensure!(!said.contains("error"), "{said}");
    Ok(())
}

#[test]
fn bash_completes_commands_and_flags() -> Result<()> {
    let on = auditing()?;
    let terminal = terminal(on, 100)?;
    let (said, code) = terminal.run("source <(driftguard completion bash)")?;
    ensure!(code == 0 && said.is_empty(), "{said:?}");
    terminal.text("driftguard susp")?;
    terminal.key("Tab")?;
    terminal.until("the command is completed", |screen| screen.contains("driftguard suspend"))?;
    terminal.text("--rea")?;
    terminal.key("Tab")?;
    terminal.until("the flag is completed", |screen| screen.contains("driftguard suspend --reason"))?;
    Ok(())
}
