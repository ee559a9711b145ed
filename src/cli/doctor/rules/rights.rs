//! What the operator may do: for itself, on what is guarded, and to put it back.

use crate::api::names;
use crate::cli::doctor::facts::{Guarded, KindRights, Told, Unread};
use crate::cli::doctor::finding::{Check, Finding, Outcome};
use crate::cli::words::{counted, listed};
use crate::core::audit::RBAC;
use crate::manifests::targets::TargetKind;

pub(super) fn operator_rights(lacking: &Told<Vec<String>>, namespace: &str) -> Finding {
    let check = Check::OperatorRights;
    match lacking {
        Err(why) => Finding::untold(
            check,
            why,
            "run it as somebody who may create subjectaccessreviews.authorization.k8s.io",
        ),
        Ok(lacking) if lacking.is_empty() => {
            Finding::ok(check, format!("{namespace}/{} may do what it must", names::OPERATOR))
        }
        Ok(lacking) => Finding::fail(
            check,
            format!("{namespace}/{} may not {}", names::OPERATOR, listed(lacking)),
            format!("driftguard manifests rbac{} | kubectl apply -f -", home(namespace)),
        ),
    }
}

fn home(namespace: &str) -> String {
    if namespace == names::NAMESPACE { String::new() } else { format!(" -n {namespace}") }
}

/// The rights on what is guarded, or why nothing is known of them.
fn known<'a>(
    check: Check,
    kinds: &'a Told<Vec<KindRights>>,
    guards: &Result<Vec<Guarded>, Unread>,
) -> Result<&'a [KindRights], Finding> {
    if let Err(Unread { why, mend }) = guards {
        return Err(Finding::untold(check, why, *mend));
    }
    kinds.as_deref().map_err(|why| {
        Finding::untold(
            check,
            why,
            "run it as somebody who may create subjectaccessreviews.authorization.k8s.io",
        )
    })
}

/// That there are more namespaces than are asked about.
fn unasked(check: Check, kind: &KindRights, count: usize, verb: &str, namespace: &str) -> Option<Finding> {
    let word = kind.kind.word();
    (count > 0).then(|| {
        Finding::untold(
            check,
            format!("{} with guarded {word} were not asked about", counted(count, "further namespace")),
            format!(
                "give rights on {word} in the whole cluster, or ask in each: kubectl auth can-i {verb} {word} -n NAMESPACE \
                 --as=system:serviceaccount:{namespace}:{}",
                names::OPERATOR
            ),
        )
    })
}

/// One finding for each kind and place that lacks something, as each has a command of its own.
pub(super) fn target_rights(
    kinds: &Told<Vec<KindRights>>,
    guards: &Result<Vec<Guarded>, Unread>,
    namespace: &str,
) -> Vec<Finding> {
    let check = Check::TargetRights;
    let kinds = match known(check, kinds, guards) {
        Ok([]) => return vec![Finding::skip(check, "nothing is guarded")],
        Ok(kinds) => kinds,
        Err(untold) => return vec![untold],
    };
    let mut told = Vec::new();
    for kind in kinds {
        for (place, verbs) in &kind.lacking {
            let word = kind.kind.word();
            let within = place.as_ref().map_or_else(String::new, |place| format!(" in namespace {place}"));
            let detail = format!("the operator may not {} {word}{within}", verbs.join(", "));
            let mend = kind.kind.rights_command(place.as_deref(), namespace);
            let is_blind = verbs.iter().any(|verb| ["list", "watch"].contains(verb));
            told.push(if is_blind {
                Finding::fail(check, format!("{detail}: drift that passes admission by is not found"), mend)
            } else {
                Finding::warn(
                    check,
                    format!("{detail}: enforcement cannot be proved by one of its own"),
                    mend,
                )
            });
        }
    }
    let mut told = cut(told, check);
    told.extend(kinds.iter().filter_map(|kind| unasked(check, kind, kind.unasked, "watch", namespace)));
    if told.is_empty() {
        let words: Vec<String> = kinds.iter().map(|kind| kind.kind.word()).collect();
        told.push(Finding::ok(check, format!("the operator may watch and prove {}", listed(&words))));
    }
    told
}

/// Most findings of one check.
const MOST: usize = 20;

fn cut(mut told: Vec<Finding>, check: Check) -> Vec<Finding> {
    let more = told.len().saturating_sub(MOST);
    if more > 0 {
        let rest = told.split_off(MOST);
        let failed = rest.iter().find(|finding| finding.outcome == Outcome::Fail);
        let (detail, mend) =
            (format!("the same for {}", counted(more, "further place")), "mend those above, then look again");
        told.push(if failed.is_some() {
            Finding::fail(check, detail, mend)
        } else {
            Finding::warn(check, detail, mend)
        });
    }
    told
}

pub(super) fn remediation_rights(
    kinds: &Told<Vec<KindRights>>,
    guards: &Result<Vec<Guarded>, Unread>,
    namespace: &str,
) -> Vec<Finding> {
    let check = Check::RemediationRights;
    let kinds = match known(check, kinds, guards) {
        Ok(kinds) => kinds,
        Err(untold) => return vec![untold],
    };
    let places = kinds.iter().flat_map(|kind| kind.unwritable.iter().map(move |place| (kind, place)));
    let told = places.map(|(kind, place)| unwritable(&kind.kind, place.as_deref(), namespace)).collect();
    let mut told = cut(told, check);
    told.extend(
        kinds.iter().filter_map(|kind| unasked(check, kind, kind.unasked_writes, "update", namespace)),
    );
    if told.is_empty() {
        told.push(Finding::ok(check, "no guard asks for it that the operator may not write for"));
    }
    told
}

fn unwritable(kind: &TargetKind, place: Option<&str>, namespace: &str) -> Finding {
    let check = Check::RemediationRights;
    let word = kind.word();
    let within = place.map_or_else(String::new, |place| format!(" in namespace {place}"));
    if kind.group == RBAC {
        return Finding::warn(
            check,
            format!(
                "guards of {word}{within} ask for it, and objects of {RBAC} are never put back, whatever the rights"
            ),
            "take spec.autoRemediate out of those guards, and put such objects back by hand",
        );
    }
    let narrow = place.map_or_else(String::new, |place| format!(" --in {place}"));
    let home = if place.is_some() { home(namespace) } else { String::new() };
    Finding::warn(
        check,
        format!("guards ask for it, and the operator may not write {word}{within}"),
        format!("driftguard manifests rbac{home} --for {word}{narrow} --remediation | kubectl apply -f -"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read() -> Result<Vec<Guarded>, Unread> {
        Ok(Vec::new())
    }

    fn deployments(lacking: Vec<(Option<String>, Vec<&'static str>)>) -> Told<Vec<KindRights>> {
        let kind = TargetKind { group: "apps".to_owned(), plural: "deployments".to_owned() };
        Ok(vec![KindRights {
            kind,
            lacking,
            unwritable: vec![Some("shop".to_owned())],
            unasked: 0,
            unasked_writes: 0,
        }])
    }

    #[test]
    fn a_right_that_is_missing_names_the_command_that_gives_it() {
        let told = target_rights(
            &deployments(vec![(Some("shop".to_owned()), vec!["list", "watch"])]),
            &read(),
            names::NAMESPACE,
        );
        assert_eq!(told[0].outcome, Outcome::Fail);
        assert_eq!(
            told[0].detail,
            "the operator may not list, watch deployments.apps in namespace shop: drift that passes admission by is not found"
        );
        assert_eq!(
            told[0].mend.as_deref(),
            Some("driftguard manifests rbac --for deployments.apps --in shop | kubectl apply -f -")
        );
        let told = target_rights(&deployments(vec![(None, vec!["patch"])]), &read(), names::NAMESPACE);
        assert_eq!(told[0].outcome, Outcome::Warn, "it is enforced all the same");
        assert_eq!(
            target_rights(&deployments(Vec::new()), &read(), names::NAMESPACE)[0].outcome,
            Outcome::Ok
        );
    }

    #[test]
    fn the_right_to_put_back_is_missed_where_a_guard_asks_for_it() {
        let told = remediation_rights(&deployments(Vec::new()), &read(), "elsewhere");
        assert_eq!(told[0].outcome, Outcome::Warn);
        assert_eq!(
            told[0].mend.as_deref(),
            Some(
                "driftguard manifests rbac -n elsewhere --for deployments.apps --in shop --remediation | kubectl apply -f -"
            )
        );
        assert_eq!(remediation_rights(&Ok(Vec::new()), &read(), "elsewhere")[0].outcome, Outcome::Ok);
    }

    #[test]
    fn many_places_are_cut_and_the_rest_is_counted() {
        let places = (0..30).map(|n| (Some(format!("n{n}")), vec!["watch"])).collect();
        let told = target_rights(&deployments(places), &read(), names::NAMESPACE);
        assert_eq!(told.len(), MOST + 1);
        assert!(told[MOST].detail.ends_with("10 further places"), "{}", told[MOST].detail);
        assert_eq!(told[MOST].outcome, Outcome::Fail);
    }

    #[test]
    fn places_that_were_not_asked_about_are_not_well() {
        let mut kinds = deployments(Vec::new());
        for kind in kinds.iter_mut().flatten() {
            kind.unwritable.clear();
            (kind.unasked, kind.unasked_writes) = (16, 1);
        }
        let told = target_rights(&kinds, &read(), names::NAMESPACE);
        assert!(told.len() == 1 && told[0].untold, "{told:?}");
        assert!(told[0].detail.contains("16 further namespaces with guarded deployments.apps"), "{told:?}");
        let told = remediation_rights(&kinds, &read(), names::NAMESPACE);
        assert!(told.len() == 1 && told[0].untold, "{told:?}");
        assert!(told[0].detail.contains("1 further namespace with"), "{told:?}");
    }

    #[test]
    fn what_hides_guards_hides_the_rights_on_them_and_has_the_same_mend() {
        let unread = Err(Unread { why: "forbidden".to_owned(), mend: "list driftguards" });
        for told in
            [target_rights(&Ok(Vec::new()), &unread, "n"), remediation_rights(&Ok(Vec::new()), &unread, "n")]
        {
            assert!(told[0].untold && told[0].mend.as_deref() == Some("list driftguards"), "{told:?}");
        }
        let told = target_rights(&Err("forbidden".to_owned()), &read(), "n");
        assert!(
            told[0].mend.as_deref().is_some_and(|mend| mend.contains("subjectaccessreviews")),
            "{told:?}"
        );
    }

    #[test]
    fn objects_that_grant_rights_are_never_put_back_whatever_the_rights() {
        let kind = TargetKind { group: RBAC.to_owned(), plural: "roles".to_owned() };
        let told = unwritable(&kind, Some("shop"), names::NAMESPACE);
        assert_eq!(told.outcome, Outcome::Warn);
        assert!(told.detail.contains("are never put back"), "{}", told.detail);
        assert!(told.mend.is_some_and(|mend| !mend.contains("--remediation")));
    }
}
