#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::core::guard::{Authorship, DeletionPolicy, OtherVersion, Versions};
use crate::core::guard::{GuardId, InvalidGuard};
use crate::core::hash::ContentHash;
use crate::core::paths::PathFilter;
use crate::core::scope::Scope;
use crate::core::verdict::Operation;

const OWN: &str = "terrafusion-system";

fn settings() -> Settings<'static> {
    Settings { own_namespace: OWN, client_weight: 0, limits: Limits::default() }
}

fn target(resource: &str, namespace: Option<&str>, name: &str) -> Target {
    let (group, kind) = match resource {
        "deployments" => ("apps", "Deployment"),
        "configmaps" => ("", "ConfigMap"),
        "pods" => ("", "Pod"),
        "namespaces" => ("", "Namespace"),
        _ => ("terrafusion.ai", "Other"),
    };
    Target {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        resource: resource.into(),
        namespace: namespace.map(Into::into),
        name: name.into(),
    }
}

fn guard(target: Target) -> Guard {
    Guard {
        id: GuardId { namespace: "guards".into(), name: format!("{target}-guard").into() },
        uid: "uid".into(),
        generation: 1,
        scope: Scope::new(&target.group, &target.kind, PathFilter::everything()),
        target,
        expected: ContentHash::of(b""),
        also_approved: Default::default(),
        equivalents: Default::default(),
        enforcement: Enforcement::Deny,
        failure_policy: FailurePolicy::Fail,
        deletion_policy: DeletionPolicy::Allow,
        pauses: Default::default(),
        authorship: Authorship::Unknown,
        replicas_path: None,
        versions: Versions::default(),
        managed_by: None,
        contact: None,
        runbook: None,
    }
}

fn config_map(namespace: &str, name: &str) -> Guard {
    guard(target("configmaps", Some(namespace), name))
}

fn index(guards: impl IntoIterator<Item = Guard>) -> Index {
    Index::build(guards.into_iter().map(|guard| GuardState::Valid(Arc::new(guard))).collect())
}

/// The entries for guarded objects, without the one for definitions of kinds.
fn made(guards: impl IntoIterator<Item = Guard>) -> Vec<Entry> {
    without_definitions(validating(&index(guards), &settings()).entries)
}

fn without_definitions(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.retain(|entry| entry.resources != [definitions::RESOURCE]);
    entries
}

/// Name without prefix and suffix, operations, and the pairs of `probe` that it selects.
fn summary(entries: &[Entry], probe: &[(&str, &str)]) -> Vec<(String, usize, Vec<String>)> {
    entries
        .iter()
        .map(|entry| {
            let name = entry.name.trim_start_matches("see-driftguard-breakglass.");
            let hit = probe.iter().filter(|(namespace, name)| entry.selection.selects(namespace, name));
            (
                name.trim_end_matches(".terrafusion.ai").to_owned(),
                entry.operations.len(),
                hit.map(|(namespace, name)| format!("{namespace}:{name}")).collect(),
            )
        })
        .collect()
}

#[test]
fn without_a_guard_nothing_is_called_at_all() {
    assert_eq!(validating(&Index::default(), &settings()), Registration::default());
    assert_eq!(mutating(&Index::default(), &settings()), Registration::default());
}

#[test]
fn writes_of_a_deny_guard_fail_closed_and_its_deletion_fails_open() {
    let entries = made([config_map("a", "x")]);
    assert_eq!(
        summary(&entries, &[("a", "x")]),
        [
            ("write-fail.configmaps.v1.core".to_owned(), 2, vec!["a:x".to_owned()]),
            ("delete-ignore.configmaps.v1.core".to_owned(), 1, vec!["a:x".to_owned()]),
        ]
    );
    assert_eq!(entries[0].operations, [Operation::Create, Operation::Update]);
    assert_eq!(entries[0].failure_policy, FailurePolicy::Fail);
    assert_eq!(entries[1].operations, [Operation::Delete]);
    assert_eq!(entries[1].failure_policy, FailurePolicy::Ignore);
}

#[test]
fn rewrite_guards_fail_closed_like_deny_guards() {
    let rewrite = Guard { enforcement: Enforcement::Rewrite, ..config_map("a", "x") };
    assert_eq!(made([rewrite])[0].failure_policy, FailurePolicy::Fail);
}

#[test]
fn guards_that_do_not_block_and_guards_of_policy_ignore_fail_open() {
    let warn = Guard { enforcement: Enforcement::Warn, ..config_map("a", "warn") };
    let audit = Guard { enforcement: Enforcement::Audit, ..config_map("a", "audit") };
    let ignore = Guard { failure_policy: FailurePolicy::Ignore, ..config_map("a", "ignore") };
    let probe = [("a", "warn"), ("a", "audit"), ("a", "ignore")];
    assert_eq!(
        summary(&made([warn, audit, ignore]), &probe),
        [(
            "change-ignore.configmaps.v1.core".to_owned(),
            3,
            vec!["a:warn".to_owned(), "a:audit".to_owned(), "a:ignore".to_owned()]
        )]
    );
}

#[test]
fn a_guard_that_cannot_be_evaluated_fails_open() {
    let state = GuardState::Invalid(Arc::new(InvalidGuard {
        id: GuardId { namespace: "guards".into(), name: "g".into() },
        generation: 1,
        uid: "".into(),
        pauses: Default::default(),
        authorship: Authorship::Unknown,
        target: Some(target("configmaps", Some("a"), "x")),
        reason: "InvalidSpec",
        message: String::new(),
    }));
    let entries = without_definitions(validating(&Index::build(vec![state]), &settings()).entries);
    assert_eq!(
        summary(&entries, &[("a", "x")]),
        [("change-ignore.configmaps.v1.core".to_owned(), 3, vec!["a:x".to_owned()])]
    );
}

#[test]
fn a_deletion_fails_closed_only_where_it_is_to_be_refused_by_a_guard_that_blocks() {
    let deny =
        |namespace: &str| Guard { deletion_policy: DeletionPolicy::Deny, ..config_map(namespace, "x") };
    let policy = |guard: Guard| {
        let entries = made([guard]);
        let mut deletes = entries.iter().filter(|entry| entry.operations.contains(&Operation::Delete));
        let found = deletes.next().unwrap().failure_policy;
        assert!(deletes.next().is_none());
        found
    };
    assert_eq!(policy(deny("a")), FailurePolicy::Fail);
    assert_eq!(policy(Guard { enforcement: Enforcement::Rewrite, ..deny("a") }), FailurePolicy::Fail);
    assert_eq!(policy(Guard { enforcement: Enforcement::Warn, ..deny("a") }), FailurePolicy::Ignore);
    assert_eq!(policy(Guard { failure_policy: FailurePolicy::Ignore, ..deny("a") }), FailurePolicy::Ignore);
    assert_eq!(policy(deny(OWN)), FailurePolicy::Ignore, "our own namespace must always be mendable");
    assert_eq!(policy(config_map("a", "x")), FailurePolicy::Ignore);
}

/// Word, resources, operations and failure policy of each entry.
fn rules(entries: &[Entry]) -> Vec<String> {
    let rule = |entry: &Entry| {
        let operations: Vec<_> = entry.operations.iter().map(|operation| operation.as_str()).collect();
        format!("{} {} {:?}", entry.resources.join(","), operations.join(","), entry.failure_policy)
    };
    entries.iter().map(rule).collect()
}

#[test]
fn subresources_are_asked_for_by_name_each_with_its_own_operations() {
    let scaled = Guard {
        replicas_path: Some(Arc::new(["spec".into(), "replicas".into()])),
        ..guard(target("deployments", Some("a"), "x"))
    };
    assert_eq!(
        rules(&made([scaled])),
        ["deployments CREATE,UPDATE Fail", "deployments/scale UPDATE Fail", "deployments DELETE Ignore"]
    );
    assert!(rules(&made([guard(target("deployments", Some("a"), "x"))])).iter().all(|r| !r.contains('/')));
    let pod = |deletion_policy| Guard { deletion_policy, ..guard(target("pods", Some("a"), "x")) };
    assert_eq!(
        rules(&made([pod(DeletionPolicy::Allow)])),
        [
            "pods,pods/ephemeralcontainers,pods/resize CREATE,UPDATE Fail",
            "bindings,pods/binding CREATE Fail",
            "pods DELETE Ignore",
        ]
    );
    assert_eq!(
        rules(&made([pod(DeletionPolicy::Deny)])),
        [
            "pods,pods/ephemeralcontainers,pods/resize CREATE,UPDATE,DELETE Fail",
            "bindings,pods/binding CREATE Fail",
            "pods/eviction CREATE Fail",
        ]
    );
    let namespace = made([guard(target("namespaces", None, "prod"))]);
    assert!(rules(&namespace).contains(&"namespaces/finalize UPDATE Fail".to_owned()));
    let all: Vec<String> = namespace.iter().flat_map(|entry| entry.resources.clone()).collect();
    assert!(all.iter().all(|resource| !resource.ends_with("/*") && !resource.ends_with("/status")));
}

#[test]
fn what_the_version_of_a_guard_does_not_bring_is_asked_for_in_others() {
    let other = |version: &str, path: Option<&str>| OtherVersion {
        version: version.into(),
        replicas_path: path.map(|field| Arc::from(["spec".to_owned(), field.to_owned()])),
    };
    let of = |is_gone, others: Vec<OtherVersion>| Guard {
        versions: Versions { is_gone, others: others.into() },
        ..guard(target("widgets", Some("a"), "x"))
    };
    let asked = |guard: Guard| -> Vec<String> {
        let entries = made([guard]);
        entries.iter().map(|entry| format!("{} {}", entry.version, entry.resources.join(","))).collect()
    };
    let scaled = of(false, vec![other("v2", Some("replicas")), other("v3", Some("replicas"))]);
    assert_eq!(asked(scaled), ["v1 widgets", "v1 widgets", "v2 widgets/scale"]);
    let gone = of(true, vec![other("v2", None)]);
    assert_eq!(asked(gone), ["v1 widgets", "v1 widgets", "v2 widgets", "v2 widgets"]);
}

#[test]
fn an_update_that_cannot_touch_pinned_content_is_left_out_where_cel_can_tell() {
    let touch = |resource: &str| {
        let entries = made([guard(target(resource, Some("a"), "x"))]);
        entries.iter().find(|entry| entry.operations.contains(&Operation::Update)).unwrap().touch
    };
    assert_eq!(touch("configmaps"), Some(Touch::Data));
    assert_eq!(touch("deployments"), Some(Touch::Spec));
    assert_eq!(touch("gamaconfigs"), None, "numbers of any form");
    let scaled =
        Guard { replicas_path: Some(Arc::default()), ..guard(target("deployments", Some("a"), "x")) };
    let entries = made([scaled]);
    assert_eq!(entries.iter().find(|entry| entry.resources == ["deployments/scale"]).unwrap().touch, None);
    let deletes = entries.iter().find(|entry| entry.operations == [Operation::Delete]).unwrap();
    assert_eq!(deletes.touch, None);
}

#[test]
fn definitions_of_guarded_kinds_and_of_ours_are_watched_and_never_block() {
    let index = index([guard(target("gamaconfigs", Some("a"), "x")), config_map("a", "y")]);
    let entries = validating(&index, &settings()).entries;
    let entry = entries.iter().find(|entry| entry.resources == [definitions::RESOURCE]).unwrap();
    assert_eq!(entry.operations, [Operation::Update, Operation::Delete]);
    assert_eq!((entry.failure_policy, entry.namespaced), (FailurePolicy::Ignore, false));
    for (name, wanted) in [
        ("gamaconfigs.terrafusion.ai", true),
        ("driftguards.terrafusion.ai", true),
        ("driftguardexceptions.terrafusion.ai", true),
        ("widgets.example.com", false),
        ("configmaps.", false),
    ] {
        assert_eq!(entry.selection.selects("", name), wanted, "{name}");
        assert_eq!(definitions::matters(&index, name), wanted, "{name}");
    }
    assert!(!definitions::matters(&Index::default(), "driftguards.terrafusion.ai"));
    let wide = validating(&index, &tight(0)).entries;
    let entry = wide.iter().find(|entry| entry.resources == [definitions::RESOURCE]).unwrap();
    assert!(!entry.selection.selects("", "widgets.example.com"), "it never becomes wider");
}

#[test]
fn a_thousand_guards_of_many_kinds_fit_into_few_entries() {
    let resources = ["configmaps", "deployments", "pods", "gamaconfigs"];
    let guards = (0..1000).map(|n| Guard {
        replicas_path: Some(Arc::default()),
        deletion_policy: if n % 3 == 0 { DeletionPolicy::Deny } else { DeletionPolicy::Allow },
        ..guard(target(resources[n % 4], Some(&format!("ns-{}", n % 40)), &format!("object-{n}")))
    });
    let index = index(guards);
    let made = validating(&index, &settings());
    assert!(made.widened.is_empty() && made.entries.len() < 30, "{}", made.entries.len());
    let names: BTreeSet<&str> = made.entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names.len(), made.entries.len());
}

#[test]
fn an_object_asked_for_under_fail_is_not_asked_for_again() {
    let deny = config_map("a", "x");
    let mut warn = Guard { enforcement: Enforcement::Warn, ..config_map("a", "x") };
    for name in ["0-first", "z-last"] {
        warn.id.name = name.into();
        let entries = made([deny.clone(), warn.clone()]);
        let writes = entries.iter().filter(|entry| entry.operations.contains(&Operation::Update));
        assert_eq!(writes.count(), 1, "{entries:#?}");
    }
}

#[test]
fn each_resource_and_version_has_its_own_entry() {
    let mut v2 = config_map("a", "x");
    v2.target.version = "v2".into();
    v2.id.name = "v2".into();
    let deployment = guard(target("deployments", Some("a"), "x"));
    let entries = made([config_map("a", "x"), v2, deployment]);
    let fail: Vec<_> = entries.iter().filter(|entry| entry.failure_policy == FailurePolicy::Fail).collect();
    assert_eq!(
        fail.iter().map(|e| (e.group.as_str(), e.version.as_str(), &*e.resources)).collect::<Vec<_>>(),
        [
            ("", "v1", &["configmaps".to_owned()][..]),
            ("", "v2", &["configmaps".to_owned()]),
            ("apps", "v1", &["deployments".to_owned()]),
        ]
    );
}

#[test]
fn cluster_scoped_targets_and_namespaces_are_selected_by_name_alone() {
    let entries = made([guard(target("namespaces", None, "prod"))]);
    assert!(!entries[0].namespaced);
    assert_eq!(entries[0].selection.namespaces, Namespaces::All);
    assert!(entries[0].selection.selects("", "prod"));
    assert!(!entries[0].selection.selects("", "prod2"));
}

#[test]
fn only_rewrite_guards_are_in_the_mutating_configuration_and_none_fails_closed() {
    let rewrite = Guard { enforcement: Enforcement::Rewrite, ..config_map("a", "x") };
    let entries = mutating(&index([rewrite, config_map("a", "deny")]), &settings()).entries;
    assert_eq!(
        summary(&entries, &[("a", "x"), ("a", "deny")]),
        [("write-ignore.configmaps.v1.core".to_owned(), 2, vec!["a:x".to_owned()])]
    );
    assert_eq!(entries[0].path(3), "/mutate/g3/ignore");
}

#[test]
fn the_path_names_generation_and_failure_policy() {
    let entries = made([config_map("a", "x")]);
    assert_eq!(entries[0].path(17), "/validate/g17/fail");
    assert_eq!(entries[1].path(17), "/validate/g17/ignore");
    assert_eq!(generation_of("/validate/g17/fail"), Some(17));
    assert_eq!(generation_of("/mutate/g3/ignore"), Some(3));
    for other in ["", "/", "/validate", "/validate/17/fail", "/validate/gx/fail", "/readyz/g1"] {
        assert_eq!(generation_of(other), None, "{other}");
    }
}

#[test]
fn names_of_entries_are_unique_and_fully_qualified() {
    let mut guards = Vec::new();
    for resource in ["configmaps", "deployments", "gamaconfigs"] {
        for number in 0..3000 {
            guards.push(guard(target(resource, Some(&"n".repeat(60)), &format!("object-{number}"))));
        }
    }
    let mut long = guard(target("gamaconfigs", Some("a"), "x"));
    long.target.group = format!("{}.io", "g".repeat(200)).into();
    long.target.resource = "r".repeat(40).into();
    guards.push(long);
    let entries = made(guards);
    assert!(entries.len() > 12, "{}", entries.len());
    let names: BTreeSet<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names.len(), entries.len());
    for name in names {
        assert!(name.len() <= 253 && name.split('.').count() >= 3, "{name}");
        for label in name.split('.') {
            let edges = [label.chars().next().unwrap(), label.chars().last().unwrap()];
            assert!(
                label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
                "{name}"
            );
            assert!(edges.iter().all(|edge| *edge != '-'), "{name}");
        }
    }
}

#[test]
fn expressions_are_split_and_each_entry_names_only_the_namespaces_it_needs() {
    let guards =
        (0..4000).map(|n| config_map(&format!("namespace-{:02}", n / 100), &format!("object-{n:060}")));
    let entries = made(guards);
    let fail: Vec<_> = entries.iter().filter(|entry| entry.failure_policy == FailurePolicy::Fail).collect();
    assert!(fail.len() >= 4, "{}", fail.len());
    for entry in &fail {
        let cel = entry.selection.names.as_ref().unwrap().cel();
        assert!(cel.len() <= 90_000, "{}", cel.len());
        let Namespaces::In(namespaces) = &entry.selection.namespaces else { panic!("{entry:?}") };
        assert!(namespaces.iter().all(|namespace| cel.contains(&format!("/{namespace}:"))));
        assert!(namespaces.is_sorted());
    }
}

#[test]
fn the_same_guards_give_the_same_entries_in_any_order() {
    let guards: Vec<Guard> = (0..50).map(|n| config_map(&format!("n{}", n % 7), &format!("o{n}"))).collect();
    let backwards = guards.iter().rev().cloned();
    assert_eq!(made(guards.clone()), made(backwards));
}

#[test]
fn a_name_with_a_slash_never_reaches_an_expression() {
    assert!(made([config_map("a", "x/a:y"), config_map("a", "")]).is_empty());
}

fn tight(total: usize) -> Settings<'static> {
    Settings { limits: Limits { expression: 90_000, total }, ..settings() }
}

/// 300 ConfigMaps in three namespaces, one each in ours and kube-system, and one Deployment.
fn many() -> Index {
    let plain = (0..300).map(|n| config_map(&format!("n{}", n % 3), &format!("object-{n:040}")));
    let special = [config_map(OWN, "own"), config_map("kube-system", "dns")];
    index(plain.chain(special).chain([guard(target("deployments", Some("n0"), "web"))]))
}

#[test]
fn what_grows_too_large_drops_names_of_the_largest_resource_and_says_so() {
    let made = validating(&many(), &tight(20_000));
    assert_eq!(
        made.widened,
        [Widened { group: String::new(), resource: "configmaps".into(), width: Width::Namespaces }]
    );
    let fail = |resource: &str, namespace: &str, name: &str| {
        made.entries.iter().any(|entry| {
            entry.failure_policy == FailurePolicy::Fail
                && entry.resources[0] == resource
                && entry.selection.selects(namespace, name)
        })
    };
    assert!(fail("configmaps", "n1", "a stranger"));
    assert!(!fail("configmaps", "n7", "a stranger"));
    assert!(fail("deployments", "n0", "web"));
    assert!(!fail("deployments", "n0", "a stranger"), "the smaller resource keeps its names");
}

#[test]
fn our_own_namespace_and_kube_system_always_keep_their_names() {
    for total in [20_000, 14_000, 0] {
        let made = validating(&many(), &tight(total));
        assert!(!made.widened.is_empty());
        for namespace in [OWN, "kube-system"] {
            let hit = made.entries.iter().any(|entry| entry.selection.selects(namespace, "a stranger"));
            assert!(!hit, "{namespace} at {total}");
        }
        for (namespace, name) in [(OWN, "own"), ("kube-system", "dns")] {
            assert!(made.entries.iter().any(|entry| entry.selection.selects(namespace, name)));
        }
    }
}

#[test]
fn when_that_does_not_suffice_namespaces_are_dropped_too() {
    let guards = (0..300).map(|n| config_map(&format!("namespace-{n:030}"), &format!("object-{n:040}")));
    let made = validating(&index(guards), &tight(0));
    assert!(made.widened.iter().all(|widened| widened.width == Width::Everything), "{made:#?}");
    assert_eq!(made.widened.len(), 1);
    assert!(made.entries.iter().any(|entry| entry.selection.selects("n99", "a stranger")));
}

#[test]
fn a_namespace_with_many_guards_widens_nobody_elses_rules() {
    let crowd = (0..1_600).map(|n| config_map("crowd", &format!("object-{n:0240}")));
    let others = (0..500).map(|n| config_map(&format!("team-{n}"), "settings"));
    let made = validating(&index(crowd.chain(others)), &tight(100_000));
    assert_eq!(made.widened.len(), 1);
    let hits = |namespace: &str, name: &str| {
        made.entries.iter().filter(|entry| entry.selection.selects(namespace, name)).count()
    };
    assert!(hits("crowd", "a stranger") > 0);
    assert!(hits("team-7", "settings") > 0);
    assert_eq!(hits("team-7", "a stranger"), 0);
}

#[test]
fn nothing_is_widened_where_that_saves_nothing() {
    let kinds = (0..300).map(|n| guard(target(&format!("kind{n}s"), Some("n"), "x")));
    let made = validating(&index(kinds), &tight(100_000));
    assert!(made.widened.is_empty(), "{:?}", made.widened);
}

#[test]
fn a_wide_fail_entry_is_not_doubled_by_an_ignore_entry() {
    let deny = (0..100).map(|n| config_map("n0", &format!("object-{n:040}")));
    let warn = (0..100)
        .map(|n| Guard { enforcement: Enforcement::Warn, ..config_map("n0", &format!("warned-{n:040}")) });
    let made = validating(&index(deny.chain(warn)), &tight(1));
    let entries = without_definitions(made.entries.clone());
    let writes = entries.iter().filter(|entry| entry.operations.contains(&Operation::Update));
    assert_eq!(writes.count(), 1, "{made:#?}");
}

#[test]
fn the_ca_bundle_counts() {
    let heavy = Settings { client_weight: 250_000, ..settings() };
    assert!(!validating(&many(), &heavy).widened.is_empty());
    assert!(validating(&many(), &settings()).widened.is_empty());
}

fn namespaces() -> impl Strategy<Value = String> {
    prop_oneof!["[ab-]{1,2}", Just("kube-system".to_owned())]
}

fn names() -> impl Strategy<Value = String> {
    prop_oneof!["[ab:.'\\\\-]{1,3}", Just("b\u{e9}".to_owned()), Just("a:b".to_owned())]
}

fn pairs() -> impl Strategy<Value = BTreeSet<(String, String)>> {
    prop::collection::btree_set((namespaces(), names()), 0..12)
}

/// The text of the literal at the start of an expression, read as CEL reads it.
fn literal(cel: &str) -> String {
    let mut text = String::new();
    let mut chars = cel.strip_prefix('\'').unwrap().chars();
    loop {
        match chars.next().unwrap() {
            '\'' => return text,
            '\\' => text.push(chars.next().unwrap()),
            char => text.push(char),
        }
    }
}

proptest! {
    #[test]
    fn entries_select_exactly_the_guarded_objects(
        guarded in pairs(),
        others in pairs(),
        expression in prop_oneof![Just(90_000_usize), 130_usize..160],
    ) {
        let guards = guarded.iter().map(|(namespace, name)| config_map(namespace, name));
        let settings = Settings {
            limits: Limits { expression, total: usize::MAX },
            ..settings()
        };
        let entries = validating(&index(guards), &settings).entries;
        for (namespace, name) in guarded.union(&others) {
            for operation in [Operation::Create, Operation::Update, Operation::Delete] {
                let hits = entries.iter().filter(|entry| {
                    entry.operations.contains(&operation) && entry.selection.selects(namespace, name)
                });
                let expected = usize::from(guarded.contains(&(namespace.clone(), name.clone())));
                prop_assert_eq!(hits.count(), expected, "{} {} {:?}", namespace, name, operation);
            }
        }
    }

    #[test]
    fn wide_entries_select_each_guarded_object_once_and_strangers_in_no_kept_namespace(
        guarded in pairs(),
        total in 0_usize..20_000,
    ) {
        let long = |name: &str| format!("{name}{}", "-".repeat(60));
        let guards = guarded.iter().map(|(namespace, name)| config_map(namespace, &long(name)));
        let entries = validating(&index(guards), &tight(total)).entries;
        let hits = |namespace: &str, name: &str, operation| {
            let selects = |entry: &&Entry| {
                entry.operations.contains(&operation) && entry.selection.selects(namespace, name)
            };
            entries.iter().filter(selects).count()
        };
        for operation in [Operation::Create, Operation::Update, Operation::Delete] {
            for (namespace, name) in &guarded {
                prop_assert_eq!(hits(namespace, &long(name), operation), 1, "{} {}", namespace, name);
            }
            prop_assert_eq!(hits("kube-system", "a stranger", operation), 0);
        }
    }

    #[test]
    fn the_expression_as_cel_reads_it_means_the_same(guarded in pairs(), others in pairs()) {
        let guards = guarded.iter().map(|(namespace, name)| config_map(namespace, name));
        let entries = made(guards);
        let texts: Vec<String> = entries
            .iter()
            .filter(|entry| entry.failure_policy == FailurePolicy::Fail)
            .map(|entry| literal(&entry.selection.names.as_ref().unwrap().cel()))
            .collect();
        for (namespace, name) in guarded.union(&others) {
            let wanted = format!("/{namespace}:{name}/");
            let hit = texts.iter().any(|text| text.contains(&wanted));
            prop_assert_eq!(hit, guarded.contains(&(namespace.clone(), name.clone())));
        }
    }
}
