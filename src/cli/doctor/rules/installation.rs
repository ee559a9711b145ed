//! What runs, and who leads.

use jiff::{SignedDuration, Timestamp};

use crate::api::names;
use crate::cli::doctor::facts::{Beat, Told, Workload};
use crate::cli::doctor::finding::{Check, Finding};
use crate::cli::words::listed;

/// A Lease that was not renewed for so long is that of nobody who lives: all are renewed within seconds, and
/// clocks differ somewhat. One that is dated as far ahead shows nothing either: it may be of long ago.
const SILENT: SignedDuration = SignedDuration::from_secs(30);

/// What mends Leases that are dated ahead.
const CLOCKS: &str = "synchronise the clocks of the cluster's machines (NTP)";

pub(super) fn operator(
    workload: &Told<Option<Workload>>,
    replicas: &Told<Vec<Beat>>,
    namespace: &str,
    now: Timestamp,
) -> Finding {
    let check = Check::Operator;
    let workload = match workload {
        Ok(workload) => workload,
        Err(why) => return Finding::unread(check, why),
    };
    let Some(Workload { wanted, ready, image, trouble, .. }) = workload else {
        let replicas = match replicas {
            Ok(replicas) => replicas,
            Err(why) => {
                let why = format!(
                    "there is no deployment/{} in namespace {namespace}, and whether `driftguard serve` runs elsewhere is not known: {why}",
                    names::OPERATOR
                );
                return Finding::unread(check, why);
            }
        };
        return if replicas.iter().any(|beat| is_alive(beat, now)) {
            Finding::ok(check, format!("none in namespace {namespace}: `driftguard serve` runs elsewhere"))
        } else {
            Finding::fail(
                check,
                format!("there is no deployment/{} in namespace {namespace}", names::OPERATOR),
                "driftguard install",
            )
        };
    };
    let of = format!("{ready} of {wanted} are ready, image {image}");
    let because = if trouble.is_empty() { String::new() } else { format!("; {}", listed(trouble)) };
    let logs = format!(
        "kubectl logs -n {namespace} -l {}={} --all-containers --tail=50",
        names::LABEL_APP,
        names::OPERATOR
    );
    match (*ready, *wanted) {
        (_, ..=0) => Finding::fail(
            check,
            "the Deployment is scaled to 0: nobody judges writes",
            format!("kubectl scale deployment/{} -n {namespace} --replicas=2", names::OPERATOR),
        ),
        (..=0, _) => Finding::fail(check, format!("{of}{because}"), logs),
        (ready, wanted) if ready < wanted => Finding::warn(check, format!("{of}{because}"), logs),
        _ => Finding::ok(check, of),
    }
}

/// How long ago a Lease was renewed; negative where it is dated ahead.
fn age(beat: &Beat, now: Timestamp) -> Option<SignedDuration> {
    beat.renewed.map(|renewed| now.duration_since(renewed))
}

fn is_alive(beat: &Beat, now: Timestamp) -> bool {
    !beat.holder.is_empty() && age(beat, now).is_some_and(|age| age.abs() < SILENT)
}

fn is_ahead(beat: &Beat, now: Timestamp) -> bool {
    !beat.holder.is_empty() && age(beat, now).is_some_and(|age| age <= -SILENT)
}

/// Whether somebody leads, and so keeps rules and statuses.
pub(super) fn leads(leader: &Told<Option<Beat>>, now: Timestamp) -> Told<bool> {
    let leader = leader.as_ref().map_err(Clone::clone)?;
    Ok(leader.as_ref().is_some_and(|beat| is_alive(beat, now)))
}

pub(super) fn replicas(
    replicas: &Told<Vec<Beat>>,
    workload: &Told<Option<Workload>>,
    now: Timestamp,
) -> Finding {
    let check = Check::Replicas;
    let all = match replicas {
        Ok(all) => all,
        Err(why) => return Finding::unread(check, why),
    };
    let (alive, others): (Vec<&Beat>, Vec<&Beat>) = all.iter().partition(|beat| is_alive(beat, now));
    let (ahead, silent): (Vec<&Beat>, Vec<&Beat>) = others.into_iter().partition(|beat| is_ahead(beat, now));
    let names = |of: &[&Beat]| listed(&of.iter().map(|beat| beat.holder.clone()).collect::<Vec<_>>());
    let beside = |what: &str, of: &[&Beat]| {
        if of.is_empty() { String::new() } else { format!("; {what}: {}", names(of)) }
    };
    let ahead_of = beside("dated ahead of the API server's clock", &ahead);
    let wanted = workload.as_ref().ok().and_then(Option::as_ref).map(|workload| workload.wanted);
    if alive.is_empty() {
        return Finding::fail(
            check,
            format!(
                "no replica says that it lives{ahead_of}: writes to guarded objects are refused or pass by their failure policy"
            ),
            "see to the operator's pods; until then `driftguard breakglass` lets writes pass",
        );
    }
    let told = format!("{} answer: {}{ahead_of}", alive.len(), names(&alive));
    if wanted.is_some_and(|wanted| usize::try_from(wanted).is_ok_and(|wanted| alive.len() < wanted)) {
        let wanted = wanted.unwrap_or_default();
        return Finding::warn(check, format!("{told}; {wanted} are wanted"), "see to the operator's pods");
    }
    if !ahead.is_empty() {
        return Finding::warn(check, told, CLOCKS);
    }
    // What a dead one left goes by itself.
    Finding::ok(check, format!("{told}{}", beside("silent", &silent)))
}

pub(super) fn leader(leader: &Told<Option<Beat>>, now: Timestamp) -> Finding {
    let check = Check::Leader;
    let nobody = |why: String| {
        Finding::fail(
            check,
            format!("{why}: rules, statuses and remediation stand still"),
            "see to the operator's pods: each replica that is ready takes the Lease within 15 s",
        )
    };
    match leader {
        Err(why) => Finding::unread(check, why),
        Ok(None) => nobody(format!("there is no Lease {}", names::LEASE)),
        Ok(Some(beat)) if beat.holder.is_empty() => nobody("nobody leads".to_owned()),
        Ok(Some(beat)) if is_alive(beat, now) => Finding::ok(check, format!("{} leads", beat.holder)),
        Ok(Some(beat)) => match age(beat, now) {
            Some(age) if age.is_negative() => Finding::fail(
                check,
                format!(
                    "{} dates its Lease {} s ahead of the API server's clock: whether it leads cannot be seen by that",
                    beat.holder,
                    age.abs().as_secs()
                ),
                CLOCKS,
            ),
            Some(age) => {
                nobody(format!("{} led, and has not renewed its Lease for {} s", beat.holder, age.as_secs()))
            }
            None => nobody(format!("{} has never renewed its Lease", beat.holder)),
        },
    }
}

pub(super) fn secrets(secrets: &[(&'static str, Told<bool>)], workload: &Told<Option<Workload>>) -> Finding {
    let check = Check::Secrets;
    if let Some(why) = secrets.iter().find_map(|(_, found)| found.as_ref().err()) {
        return Finding::unread(check, why);
    }
    let lacks = |name: &str| secrets.iter().any(|(of, found)| *of == name && *found == Ok(false));
    if lacks(names::SIGNING_SECRET) {
        return Finding::fail(
            check,
            format!("{} is missing: nobody can tell who approved guards", names::SIGNING_SECRET),
            "restart the operator, of which a replica that holds the key puts it back; else restore it from a backup",
        );
    }
    if lacks(names::CA_SECRET) {
        return without_authority(workload);
    }
    let names: Vec<&str> = secrets.iter().map(|(name, _)| *name).collect();
    Finding::ok(check, format!("{} are there; their contents were not looked at", names.join(" and ")))
}

/// The Secret with our authority is missing: well where somebody else makes the certificate.
fn without_authority(workload: &Told<Option<Workload>>) -> Finding {
    let check = Check::Secrets;
    let (signing, authority) = (names::SIGNING_SECRET, names::CA_SECRET);
    match workload {
        Err(why) => Finding::unread(
            check,
            format!(
                "{authority} is missing, and whether somebody else makes the certificate is not known: {why}"
            ),
        ),
        Ok(Some(workload)) if workload.flag("--tls-cert-file").is_some() => Finding::ok(
            check,
            format!(
                "{signing} is there, and no {authority}: somebody else makes the certificate (--tls-cert-file)"
            ),
        ),
        Ok(Some(_)) => Finding::fail(
            check,
            format!("{authority} is missing, and nobody else makes the certificate"),
            "see to the operator's pods: a replica that lives puts it back, and one that starts makes another",
        ),
        Ok(None) => Finding::warn(
            check,
            format!("{signing} is there, and no {authority}"),
            "that is right where `driftguard serve`, which runs elsewhere, has --tls-cert-file; else see why it does not put it back",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Outcome;

    fn now() -> Timestamp {
        Timestamp::from_second(1_000).unwrap_or_default()
    }

    fn beat(holder: &str, second: i64) -> Beat {
        Beat { holder: holder.to_owned(), renewed: Timestamp::from_second(second).ok() }
    }

    fn of(wanted: i32, ready: i32) -> Told<Option<Workload>> {
        Ok(Some(Workload { wanted, ready, ..Workload::default() }))
    }

    #[test]
    fn pods_that_do_not_start_say_why_and_where_their_logs_are() {
        let nobody = Ok(Vec::new());
        let broken = Workload {
            wanted: 2,
            ready: 0,
            image: "image:1".to_owned(),
            trouble: vec!["driftguard waits: ImagePullBackOff".to_owned()],
            ..Workload::default()
        };
        let told = operator(&Ok(Some(broken)), &nobody, "n", now());
        assert_eq!(told.outcome, Outcome::Fail);
        assert_eq!(told.detail, "0 of 2 are ready, image image:1; driftguard waits: ImagePullBackOff");
        assert_eq!(
            told.mend.as_deref(),
            Some("kubectl logs -n n -l app=driftguard-operator --all-containers --tail=50")
        );
        assert_eq!(operator(&of(2, 1), &nobody, "n", now()).outcome, Outcome::Warn);
        assert_eq!(operator(&of(0, 0), &nobody, "n", now()).outcome, Outcome::Fail);
        assert_eq!(operator(&Ok(None), &nobody, "n", now()).mend.as_deref(), Some("driftguard install"));
        let elsewhere = operator(&Ok(None), &Ok(vec![beat("a", 999)]), "n", now());
        assert_eq!(elsewhere.outcome, Outcome::Ok, "a process outside of the cluster");
        let unseen = operator(&Ok(None), &Err("forbidden".to_owned()), "n", now());
        assert!(unseen.untold, "it may run elsewhere: {unseen:?}");
    }

    #[test]
    fn a_replica_counts_while_it_renews_its_lease() {
        let all = Ok(vec![beat("a", 999), beat("b", 900)]);
        let told = replicas(&all, &of(1, 1), now());
        assert_eq!((told.outcome, told.detail.as_str()), (Outcome::Ok, "1 answer: a; silent: b"));
        assert_eq!(replicas(&all, &of(2, 2), now()).outcome, Outcome::Warn);
        assert_eq!(replicas(&Ok(vec![beat("b", 900)]), &of(2, 2), now()).outcome, Outcome::Fail);
        assert!(replicas(&Err("forbidden".to_owned()), &of(2, 2), now()).untold);
    }

    #[test]
    fn a_lease_that_is_dated_ahead_shows_nobody_alive() {
        let ahead = Ok(Some(beat("a", 1_000 + 3_600)));
        assert_eq!(leads(&ahead, now()), Ok(false));
        let told = leader(&ahead, now());
        assert_eq!((told.outcome, told.mend.as_deref()), (Outcome::Fail, Some(CLOCKS)));
        assert!(told.detail.starts_with("a dates its Lease 3600 s ahead"), "{}", told.detail);
        assert_eq!(leads(&Ok(Some(beat("a", 1_010))), now()), Ok(true), "clocks differ somewhat");
        let told = replicas(&Ok(vec![beat("a", 4_600)]), &Ok(None), now());
        assert_eq!(told.outcome, Outcome::Fail, "{told:?}");
        let told = replicas(&Ok(vec![beat("a", 4_600), beat("b", 999)]), &Ok(None), now());
        assert_eq!((told.outcome, told.mend.as_deref()), (Outcome::Warn, Some(CLOCKS)));
        assert_eq!(told.detail, "1 answer: b; dated ahead of the API server's clock: a");
    }

    #[test]
    fn nobody_leads_whose_lease_is_empty_old_or_missing() {
        assert_eq!(leader(&Ok(Some(beat("a", 999))), now()).detail, "a leads");
        for nobody in [None, Some(beat("", 999)), Some(beat("a", 900))] {
            assert_eq!(leader(&Ok(nobody), now()).outcome, Outcome::Fail);
        }
    }

    #[test]
    fn a_lost_signing_key_is_a_failure_and_an_authority_of_somebody_else_none() {
        let told = |ca, signing, workload: &Told<Option<Workload>>| {
            secrets(&[(names::CA_SECRET, Ok(ca)), (names::SIGNING_SECRET, Ok(signing))], workload)
        };
        let arguments = vec!["serve".to_owned(), "--tls-cert-file=/tls/tls.crt".to_owned()];
        let theirs = Ok(Some(Workload { arguments, ..Workload::default() }));
        assert_eq!(told(true, true, &of(1, 1)).outcome, Outcome::Ok);
        assert_eq!(told(true, false, &of(1, 1)).outcome, Outcome::Fail);
        assert_eq!(told(false, true, &theirs).outcome, Outcome::Ok);
        assert_eq!(told(false, true, &of(1, 1)).outcome, Outcome::Fail, "nobody else makes one");
        assert_eq!(told(false, true, &Ok(None)).outcome, Outcome::Warn, "it cannot be seen from here");
        assert!(told(false, true, &Err("forbidden".to_owned())).untold);
    }
}
