//! `DRIFTGUARD_WRITE_GENERATED=1 cargo test --lib report::tests` writes the snapshots anew; read the diff.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;

use super::*;
use crate::core::few::Few;
use crate::core::report::{
    Actor, ActorKnownBy, Change, Comparison, Gone, Moment, Name, Origin, Place, Remediation, Since,
    SinceKnownBy, Source, SourceAnswer, TargetName,
};

/// What no format may take for anything but text.
const HOSTILE: &str = "</script><script>alert(1)</script> & \"quoted\" 'single' ]]> -->";

fn at(text: &str) -> Moment {
    text.parse::<Timestamp>().unwrap().into()
}

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn entry(name: &str, state: State) -> Entry {
    Entry {
        guard: Name { namespace: "trading".into(), name: format!("{name}-guard").into() },
        target: TargetName {
            api_version: Some("v1".into()),
            kind: "ConfigMap".into(),
            namespace: Some("trading".into()),
            name: name.into(),
        },
        state,
        also: Few::default(),
        reason: state.as_str().into(),
        message: format!("ConfigMap/trading/{name}: {}", state.meaning()).into(),
        enforcement: Some("Deny".into()),
        enforcing: "True".into(),
        expected_hash: Some("a".repeat(64).into()),
        current_hash: Some("a".repeat(64).into()),
        changed_paths: Few::default(),
        since: None,
        by: None,
        source: Source { state: SourceState::NotNamed, message: "".into(), answers: Few::default() },
        last_remediation: None,
        transaction_id: None,
        guard_file: None,
        target_file: None,
        change: None,
    }
}

/// One of everything.
fn report() -> Report {
    let drifted = Entry {
        also: vec![State::SourceDown].into(),
        reason: "BypassedAdmission".into(),
        message: "ConfigMap/trading/market-settings changed although admission is enforced".into(),
        current_hash: Some("b".repeat(64).into()),
        changed_paths: vec!["/data/region".into(), "/data/limits".into(), "/data/owner".into()].into(),
        since: Some(Since { time: at("2026-06-01T11:15:00Z"), known_by: SinceKnownBy::Status }),
        by: Some(Box::new(Actor {
            name: Some("kubectl-edit".into()),
            known_by: ActorKnownBy::ManagedFields,
            detail: "field manager of what changed, by its managedFields".into(),
        })),
        source: Source {
            state: SourceState::Down,
            message: "no source has the approved content".into(),
            answers: vec![SourceAnswer {
                source: "configmap trading/approved".into(),
                result: "Mismatch".into(),
                message: "its content is not what is approved".into(),
                time: at("2026-06-01T11:16:00Z"),
            }]
            .into(),
        },
        last_remediation: Some(Box::new(Remediation {
            time: at("2026-06-01T11:16:00Z"),
            result: "NoVerifiedSource".into(),
            source: None,
            transaction_id: Some("t-1".into()),
        })),
        transaction_id: Some("t-1".into()),
        change: Some(Change::Unchanged),
        ..entry("market-settings", State::Drifted)
    };
    let missing = Entry {
        current_hash: None,
        since: Some(Since { time: at("2026-05-31T12:00:00Z"), known_by: SinceKnownBy::EarlierReport }),
        ..entry("prices", State::Missing)
    };
    let elsewhere = TargetName {
        api_version: Some("rbac.authorization.k8s.io/v1".into()),
        kind: "ClusterRole".into(),
        namespace: None,
        name: "system:=cmd".into(),
    };
    let unreadable = Entry {
        target: elsewhere,
        reason: "Forbidden".into(),
        message: format!("ClusterRole/system:=cmd could not be read: {HOSTILE}").into(),
        current_hash: None,
        ..entry("roles", State::Unreadable)
    };
    let secret = Entry {
        target: TargetName { kind: "Secret".into(), name: "keys".into(), ..drifted.target.clone() },
        expected_hash: None,
        current_hash: None,
        changed_paths: vec!["/data/password".into()].into(),
        enforcement: Some("Audit".into()),
        enforcing: "False".into(),
        by: Some(Box::new(Actor {
            name: Some("=HYPERLINK(\"http://evil\")".into()),
            known_by: ActorKnownBy::Admission,
            detail: "the admission webhook saw the write".into(),
        })),
        guard_file: Some(Box::new(Place { file: "guards/keys.yaml".into(), line: 3 })),
        target_file: Some(Box::new(Place { file: "manifests/keys.yaml".into(), line: 12 })),
        ..entry("keys", State::Drifted)
    };
    let suspended = Entry {
        guard: Name { namespace: "web".into(), name: "front-guard".into() },
        also: vec![State::AuthorUnknown].into(),
        change: Some(Change::New),
        ..entry("front", State::Suspended)
    };
    let origin = Origin { cluster: Some("https://cluster:6443".into()), ..Origin::default() };
    let entries = vec![
        drifted,
        missing,
        unreadable,
        secret,
        suspended,
        entry("calm", State::InSync),
        entry("waiting", State::AwaitingApply),
        entry("open", State::NotEnforcing),
    ];
    let mut report = Report::new(entries, origin, now().into());
    report.compared = Some(Comparison {
        earlier: at("2026-05-31T12:00:00Z"),
        new: 1,
        changed: 0,
        unchanged: 1,
        resolved: 0,
        gone: vec![Gone {
            guard: Name { namespace: "trading".into(), name: "left".into() },
            state: State::Missing,
        }],
    });
    report
}

fn screen(width: Option<usize>) -> Screen {
    Screen { width, colour: false, with_namespaces: true, now: now() }
}

fn render(report: &Report, format: Format, screen: &Screen) -> Vec<u8> {
    let mut out = Vec::new();
    write(report, format, screen, &mut out).unwrap();
    out
}

fn text(format: Format, width: Option<usize>) -> String {
    String::from_utf8(render(&report(), format, &screen(width))).unwrap()
}

/// Holds a text against the snapshot of that name.
#[track_caller]
fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/report/snapshots").join(name);
    if std::env::var_os("DRIFTGUARD_WRITE_GENERATED").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, known, "{name}: see the head of this file for how to write it anew");
}

#[test]
fn a_table_has_a_line_for_each_guard() {
    check("table.txt", &text(Format::Table, None));
    check("wide.txt", &text(Format::Wide, None));
}

#[test]
fn a_table_has_trouble_first_and_within_a_state_goes_by_namespace_and_name() {
    for format in [Format::Table, Format::Wide] {
        let states: Vec<String> = text(format, None)
            .lines()
            .skip(1)
            .filter_map(|row| row.split_whitespace().next().map(str::to_owned))
            .collect();
        let mut sorted = states.clone();
        sorted.sort_by_key(|state| State::ALL.iter().position(|one| one.as_str() == state));
        assert_eq!(states, sorted);
        assert_eq!((states.len(), states[0].as_str()), (report().guards.len(), "Unreadable"));
    }
    let entries = ["b", "c", "a"].map(|name| entry(name, State::Drifted));
    let report = Report::new(entries.to_vec(), Origin::default(), now().into());
    let names: Vec<&str> = report.worst_first().map(|entry| &*entry.guard.name).collect();
    assert_eq!(names, ["a-guard", "b-guard", "c-guard"]);
}

#[test]
fn a_table_fits_a_narrow_terminal_with_the_states_whole() {
    for width in [60, 80, 100] {
        let table = text(Format::Table, Some(width));
        for line in table.lines() {
            assert!(line.chars().count() <= width, "{} of {width}: {line}", line.chars().count());
        }
        for state in ["Unreadable", "NotEnforcing", "AwaitingApply"] {
            assert!(table.contains(state), "{table}");
        }
    }
    let alone = Report { compared: None, ..report() };
    let alone = render(&alone, Format::Table, &screen(Some(60)));
    check("table-60.txt", &String::from_utf8(alone).unwrap());
}

#[test]
fn colours_are_in_the_first_column_alone_and_change_nothing_else() {
    let coloured = Screen { colour: true, ..screen(None) };
    let coloured = String::from_utf8(render(&report(), Format::Table, &coloured)).unwrap();
    assert!(coloured.contains("\u{1b}[31mMissing\u{1b}[0m"), "{coloured}");
    let mut plain = coloured.replace("\u{1b}[0m", "");
    for code in 31..=36 {
        plain = plain.replace(&format!("\u{1b}[{code}m"), "");
    }
    assert_eq!(plain, text(Format::Table, None));
}

#[test]
fn json_and_yaml_hold_the_report_itself() {
    let json = text(Format::Json, None);
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report());
    let yaml = text(Format::Yaml, None);
    assert_eq!(serde_saphyr::from_str::<Report>(&yaml).unwrap(), report());
    check("report.json", &json);
}

#[test]
fn the_summary_is_one_line_with_the_good_news_first() {
    let line = summary(&report());
    assert_eq!(
        line,
        "8 guards: 1 in sync, 1 awaiting their apply, 1 suspended, 1 not enforcing, 2 drifted, 1 missing, 1 could not be told; since 2026-05-31T12:00:00Z: 1 new, 0 changed, 1 unchanged, 0 resolved, 1 gone"
    );
    let empty = Report::new(Vec::new(), Origin::default(), now().into());
    assert_eq!(summary(&empty), "0 guards");
    assert_eq!(render(&empty, Format::Table, &screen(None)), b"");
}

#[test]
fn ages_are_in_one_unit() {
    let age = |text: &str| super::age(text.parse().unwrap(), now());
    assert_eq!(age("2026-06-01T11:59:30Z"), "30s");
    assert_eq!(age("2026-06-01T11:00:00Z"), "60m");
    assert_eq!(age("2026-06-01T02:00:00Z"), "10h");
    assert_eq!(age("2026-05-01T12:00:00Z"), "31d");
    assert_eq!(age("2026-06-02T12:00:00Z"), "0s", "clocks differ");
}

/// The parts of some XML that are outside texts and attributes, or a panic where it is not well formed.
fn elements(xml: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    let mut rest = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").unwrap();
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "{rest}");
        let mut end = start + 1;
        let mut in_text = false;
        while in_text || rest.as_bytes()[end] != b'>' {
            assert!(rest.as_bytes()[end] != b'<', "{rest}");
            in_text ^= rest.as_bytes()[end] == b'"';
            end += 1;
        }
        let tag = &rest[start + 1..end];
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap().to_owned();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name));
        } else {
            all.push(name.clone());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
    all
}

#[test]
fn junit_is_well_formed_whatever_stands_in_it_and_counts_what_it_says() {
    let xml = text(Format::Junit, None);
    let elements = elements(&xml);
    let count = |name: &str| elements.iter().filter(|element| *element == name).count();
    assert_eq!((count("testsuite"), count("testcase")), (2, 8));
    assert_eq!((count("failure"), count("error"), count("skipped")), (4, 1, 1));
    assert!(
        xml.contains(r#"<testsuites name="driftguard audit" tests="8" failures="4" errors="1" skipped="1">"#)
    );
    check("junit.xml", &xml);
}

#[test]
fn csv_has_a_record_for_each_guard_with_as_many_cells_as_titles() {
    let csv = text(Format::Csv, None);
    assert_eq!(csv.lines().count(), 9);
    assert!(csv.contains("\"'=HYPERLINK(\"\"http://evil\"\")\""), "{csv}");
    let cells = |line: &str| {
        let mut quoted = false;
        1 + line
            .chars()
            .filter(|c| {
                quoted ^= *c == '"';
                !quoted && *c == ','
            })
            .count()
    };
    for line in csv.lines() {
        assert_eq!(cells(line), 24, "{line}");
    }
    check("report.csv", &csv);
}

#[test]
fn sarif_has_a_result_for_what_is_not_in_sync_and_a_rule_for_each() {
    let sarif: serde_json::Value = serde_json::from_str(&text(Format::Sarif, None)).unwrap();
    let run = &sarif["runs"][0];
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 7);
    for result in results {
        let rule =
            &run["tool"]["driver"]["rules"][usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap()];
        assert_eq!(rule["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"];
        assert!(
            place["artifactLocation"]["uri"].is_string() && place["region"]["startLine"].as_u64() > Some(0)
        );
    }
    check("sarif.json", &text(Format::Sarif, None));
}

#[test]
fn openreports_are_one_a_namespace_with_the_words_of_the_format() {
    let yaml = text(Format::OpenReports, None);
    let documents: Vec<serde_json::Value> =
        yaml.split("---\n").map(|document| serde_saphyr::from_str(document).unwrap()).collect();
    assert_eq!(documents.len(), 2);
    let of =
        |namespace: &str| documents.iter().find(|one| one["metadata"]["namespace"] == namespace).unwrap();
    let result = |namespace: &str, guard: &str| {
        let results = of(namespace)["results"].as_array().unwrap();
        results.iter().find(|one| one["policy"] == guard).unwrap()["result"].clone()
    };
    assert_eq!(result("trading", "calm-guard"), "pass");
    assert_eq!(result("trading", "market-settings-guard"), "fail");
    assert_eq!(result("trading", "keys-guard"), "warn", "a guard of Audit only tells");
    assert_eq!(result("trading", "open-guard"), "warn");
    assert_eq!(result("trading", "roles-guard"), "error");
    assert_eq!(result("web", "front-guard"), "skip");
    let down = Entry { source: report().guards[0].source.clone(), ..entry("down", State::SourceDown) };
    assert_eq!(verdict::Verdict::of(&down).as_str(), "error");
    assert_eq!(
        of("trading")["summary"],
        serde_json::json!({"pass": 2, "fail": 2, "warn": 2, "error": 1, "skip": 0})
    );
    check("openreports.yaml", &yaml);
}

#[test]
fn a_page_holds_no_markup_of_others_and_loads_nothing() {
    let page = text(Format::Html, None);
    assert_eq!(page.matches("<script>").count(), 1);
    assert_eq!(page.matches("</script>").count(), 1);
    assert!(!page.contains("alert(1)</") && page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
    for outside in ["src=", "href=", "url(", "@import", "style=", "onclick"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("default-src &#39;none&#39;"));
    check("report.html", &page);
}
