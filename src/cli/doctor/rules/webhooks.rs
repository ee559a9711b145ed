//! What is registered, against what the guards need, and whether it is called.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use kube::ResourceExt as _;

use crate::api::names;
use crate::cert::authority::{certificates, validity_of};
use crate::cli::doctor::facts::{Facts, Guarded, Reach, Unread};
use crate::cli::doctor::finding::{Check, Finding, Outcome};
use crate::cli::terms::moment;
use crate::cli::words::{counted, listed};
use crate::control::compare::{self, Comparison};
use crate::control::webhooks::server_name;
use crate::core::index::Index;
use crate::core::registration::{self, Entry, Hook, NAME_PREFIX, glass, own};
use crate::core::signature::SigningKey;

/// An authority of ours gives way months before its end: one that ends so soon was not replaced.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What mends entries while a replica leads.
const LEADER_MENDS: &str =
    "whoever leads puts it back within seconds: see to the operator's pods and their logs";

/// Broken glass, as annotations tell of it.
struct Glass {
    until: String,
    by: String,
    reason: String,
}

/// What stands in the cluster, compared with what guards need.
pub(super) struct Registered<'a> {
    facts: &'a Facts,
    glass: Option<Glass>,
    /// `None` where the configuration is missing or could not be read.
    gate: Option<Comparison>,
    convenience: Option<Comparison>,
    /// How many entries refuse writes while nobody answers.
    closed: usize,
    clients: Vec<&'a WebhookClientConfig>,
}

impl<'a> Registered<'a> {
    pub(super) fn of(facts: &'a Facts) -> Self {
        let gate = facts.validating.as_ref().ok().and_then(Option::as_ref);
        let convenience = facts.mutating.as_ref().ok().and_then(Option::as_ref);
        let glass = gate.and_then(|found| {
            let said = |key: &str| found.annotations().get(key).cloned();
            let until = said(names::ANNOTATION_BREAKGLASS_UNTIL)?;
            let by = said(names::ANNOTATION_BREAKGLASS_BY).unwrap_or_else(|| "somebody".to_owned());
            Some(Glass { until, by, reason: said(names::ANNOTATION_BREAKGLASS_REASON).unwrap_or_default() })
        });
        let ours = |name: &str| name.starts_with(NAME_PREFIX);
        let gates: Vec<_> = gate
            .iter()
            .flat_map(|found| found.webhooks.iter().flatten())
            .filter(|hook| ours(&hook.name))
            .collect();
        let others = convenience.iter().flat_map(|found| found.webhooks.iter().flatten());
        let clients: Vec<&WebhookClientConfig> = gates
            .iter()
            .map(|hook| &hook.client_config)
            .chain(others.filter(|hook| ours(&hook.name)).map(|hook| &hook.client_config))
            .collect();
        let bundle =
            clients.iter().filter_map(|client| client.ca_bundle.as_ref()).map(|bundle| bundle.0.len()).max();
        let wanted = |hook| {
            let guards = facts.guards.as_ref().map(Vec::as_slice).unwrap_or_default();
            wanted(guards, &facts.namespace, bundle.unwrap_or_default(), glass.is_some(), hook)
        };
        Self {
            facts,
            gate: gate.map(|found| compare::validating(found, &wanted(Hook::Validate))),
            convenience: convenience.map(|found| compare::mutating(found, &wanted(Hook::Mutate))),
            closed: gates.iter().filter(|hook| hook.failure_policy.as_deref() == Some("Fail")).count(),
            clients,
            glass,
        }
    }

    pub(super) fn configurations(&self) -> Vec<Finding> {
        let validating = self.facts.validating.as_ref().map(Option::is_some);
        let mutating = self.facts.mutating.as_ref().map(Option::is_some);
        let closed = format!(", of which {} refuse writes while nobody answers", self.closed);
        vec![
            configuration("validating", validating, self.gate.as_ref(), &closed, true),
            configuration("mutating", mutating, self.convenience.as_ref(), "", false),
        ]
    }

    pub(super) fn rules(&self) -> Finding {
        let check = Check::Rules;
        let guards = match &self.facts.guards {
            Ok(guards) => guards,
            Err(Unread { why, mend }) => return Finding::untold(check, why, *mend),
        };
        // Rules follow the enforcement of guards.
        if let (Err(why), true) =
            (&self.facts.enforcement, guards.iter().any(|guard| !guard.names_enforcement))
        {
            return Finding::unread(check, format!("what guards without an enforcement do here: {why}"));
        }
        let unread = self.facts.validating.as_ref().err().or(self.facts.mutating.as_ref().err());
        // What is wrong is so whatever else could not be read.
        let wrong = self.differing().filter(|told| told.outcome == Outcome::Fail || unread.is_none());
        if let Some(wrong) = wrong {
            return wrong;
        }
        match (unread, &self.gate, &self.convenience) {
            (Some(why), ..) => Finding::unread(check, why),
            (None, None, _) => {
                Finding::skip(check, "there is no validating webhook configuration to compare")
            }
            (None, _, None) => Finding::skip(check, "there is no mutating webhook configuration to compare"),
            (None, Some(_), Some(_)) => Finding::ok(
                check,
                format!("what is registered is what {} need", counted(guards.len(), "guard")),
            ),
        }
    }

    /// How what is registered differs from what guards need, as far as it could be read.
    fn differing(&self) -> Option<Finding> {
        let check = Check::Rules;
        let both = || self.gate.iter().chain(&self.convenience);
        let missing: Vec<&String> = both().flat_map(|side| &side.missing).collect();
        let altered: Vec<String> = both()
            .flat_map(|side| &side.altered)
            .map(|(name, fields)| format!("{name} ({})", fields.join(", ")))
            .collect();
        let unneeded: Vec<&String> = both().flat_map(|side| &side.unneeded).collect();
        let mut wrong = Vec::new();
        if !missing.is_empty() {
            wrong.push(format!("{} missing: {}", counted(missing.len(), "rule"), listed(&missing)));
        }
        if !altered.is_empty() {
            wrong.push(format!("{} altered: {}", counted(altered.len(), "rule"), listed(&altered)));
        }
        if !wrong.is_empty() {
            return Some(Finding::fail(check, wrong.join("; "), LEADER_MENDS));
        }
        (!unneeded.is_empty())
            .then(|| Finding::warn(check, format!("no guard needs {}", listed(&unneeded)), LEADER_MENDS))
    }

    pub(super) fn broken_glass(&self) -> Finding {
        let check = Check::BrokenGlass;
        if let Err(why) = &self.facts.validating {
            return Finding::unread(check, why);
        }
        let Some(Glass { until, by, reason }) = &self.glass else {
            return Finding::ok(check, "the glass is whole");
        };
        let is_over = until.parse::<Timestamp>().is_ok_and(|until| until <= self.facts.now);
        let detail = if is_over {
            format!(
                "{by} broke it until {until} ({reason}), and nobody has closed it since: no replica lives"
            )
        } else {
            format!("{by} broke it until {until} ({reason}): every write passes")
        };
        Finding::fail(check, detail, "driftguard breakglass --end")
    }

    pub(super) fn certificates(&self) -> Finding {
        let check = Check::Certificates;
        if let Some(why) = [self.facts.validating.as_ref().err(), self.facts.mutating.as_ref().err()]
            .into_iter()
            .flatten()
            .next()
        {
            return Finding::unread(check, why);
        }
        let mut bundles: Vec<&[u8]> = self
            .clients
            .iter()
            .filter_map(|client| client.ca_bundle.as_ref())
            .map(|bundle| bundle.0.as_slice())
            .filter(|bundle| !bundle.is_empty())
            .collect();
        bundles.sort_unstable();
        bundles.dedup();
        let Some((bundle, others)) = bundles.split_first() else {
            return Finding::skip(check, "no entry has a caBundle");
        };
        if !others.is_empty() {
            let detail = format!("entries trust {} different bundles", others.len() + 1);
            return Finding::fail(check, detail, LEADER_MENDS);
        }
        authorities(bundle, self.facts.now, &self.called_at())
    }

    /// Where API servers call.
    fn called_at(&self) -> String {
        let mut hosts: Vec<String> = self.clients.iter().filter_map(|client| server_name(client)).collect();
        hosts.sort();
        hosts.dedup();
        listed(&hosts)
    }

    pub(super) fn reachability(&self, reach: &Reach) -> Finding {
        let check = Check::Reachability;
        let generation = self.gate.as_ref().map_or(0, |gate| gate.generation);
        match reach {
            Reach::LeftOut => Finding::skip(check, "left out by --no-dry-run"),
            Reach::Untold(why) => {
                Finding::untold(check, why, "look again, or look at the guards' condition Enforcing")
            }
            Reach::Unread => match &self.facts.guards {
                Err(Unread { why, mend }) => Finding::untold(check, why, *mend),
                Ok(_) => Finding::unread(check, "no guards were read"),
            },
            Reach::NoTarget { guards: 0 } => {
                Finding::skip(check, "there is no guard whose target a dry run could write")
            }
            Reach::NoTarget { .. } => Finding::untold(
                check,
                "no guarded object was found that exists and that you may patch",
                "run it as somebody who may patch what is guarded; a dry run changes nothing",
            ),
            Reach::Answered { target, answer } if answer.generation < generation => Finding::warn(
                check,
                format!(
                    "{} answered a dry run of {target} for generation {}; {generation} is registered",
                    answer.replica, answer.generation
                ),
                "look again in a few seconds: an API server may still call the rules before",
            ),
            Reach::Answered { target, answer } => Finding::ok(
                check,
                format!("{} answered a dry run of {target} at {}", answer.replica, self.called_at()),
            ),
            Reach::Passed { target } => Finding::fail(
                check,
                format!("a dry run of {target} passed and reached nobody"),
                "see to the operator's pods, and whether the control plane may connect to the webhook's port (network policies, firewalls)",
            ),
            Reach::Failed { target, how } => Finding::fail(
                check,
                format!("a dry run of {target} failed ({how}), as when a webhook does not answer"),
                "see to the operator's pods, and whether the control plane may connect to the webhook's port (network policies, firewalls)",
            ),
        }
    }
}

/// The entries that guards need.
fn wanted(guards: &[Guarded], namespace: &str, bundle: usize, is_open: bool, hook: Hook) -> Vec<Entry> {
    let index = Index::build(guards.iter().map(|guard| guard.state.clone()).collect());
    let settings = registration::Settings {
        own_namespace: namespace,
        client_weight: bundle.div_ceil(3) * 4,
        limits: registration::Limits::default(),
    };
    let mut entries = match hook {
        Hook::Validate => registration::validating(&index, &settings).entries,
        Hook::Mutate => registration::mutating(&index, &settings).entries,
    };
    // Any key will do: what it makes is not compared.
    entries.extend(SigningKey::new(&[0; 32]).map(|key| own::entries(hook, &key)).unwrap_or_default());
    if is_open { entries.into_iter().map(glass::opened).collect() } else { entries }
}

fn configuration(
    kind: &str,
    found: Result<bool, &String>,
    compared: Option<&Comparison>,
    more: &str,
    is_gate: bool,
) -> Finding {
    let check = Check::Registration;
    let title = format!("{kind}webhookconfiguration/{}", names::WEBHOOK_CONFIGURATION);
    let without = if is_gate { "no write is judged" } else { "nobody's approvals are signed" };
    let compared = match (found, compared) {
        (Err(why), _) => return Finding::unread(check, why),
        (Ok(false), _) | (Ok(true), None) => {
            return Finding::fail(
                check,
                format!("{title} does not exist: {without}"),
                "driftguard install; whoever leads makes its entries",
            );
        }
        (Ok(true), Some(compared)) => compared,
    };
    if compared.entries == 0 {
        return Finding::fail(check, format!("{title} has no entry of ours: {without}"), LEADER_MENDS);
    }
    if !compared.without_bundle.is_empty() {
        return Finding::fail(
            check,
            format!(
                "{title}: API servers cannot call {}, which has no caBundle",
                listed(&compared.without_bundle)
            ),
            "see to whoever keeps caBundle: whoever leads, or cert-manager's cainjector with --ca-injected-from",
        );
    }
    let entries =
        if compared.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", compared.entries) };
    Finding::ok(check, format!("{title}: {entries}{more}, generation {}", compared.generation))
}

fn authorities(bundle: &[u8], now: Timestamp, called: &str) -> Finding {
    let check = Check::Certificates;
    let read = match certificates(bundle) {
        Ok(read) => read,
        Err(error) => return Finding::fail(check, format!("caBundle: {error}"), LEADER_MENDS),
    };
    let valid: Vec<_> = read.iter().filter_map(validity_of).collect();
    let Some(end) = valid.iter().map(|validity| validity.not_after).max() else {
        return Finding::fail(check, "caBundle: no certificate in it can be read", LEADER_MENDS);
    };
    let left = end.duration_since(now);
    let of = counted(valid.len(), "authority").replace("authoritys", "authorities");
    let days = left.as_hours() / 24;
    let mend = "restart the operator, which makes a new authority; or see to whoever makes the certificate";
    if left.is_negative() {
        return Finding::fail(
            check,
            format!("{of} for {called}: the last one ended at {}", moment(end)),
            mend,
        );
    }
    if valid.iter().all(|validity| validity.not_before > now) {
        let detail = format!("{of} for {called}: none is valid yet");
        return Finding::fail(check, detail, "synchronise the clocks of the cluster's machines (NTP)");
    }
    let detail =
        format!("{of} for {called}, {} left", counted(usize::try_from(days).unwrap_or_default(), "day"));
    if left < SOON {
        Finding::warn(check, detail, mend)
    } else {
        Finding::ok(
            check,
            format!(
                "{detail} (until {}); what is served can be seen from within the cluster alone",
                moment(end)
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::cert::{Authority, authority};
    use crate::control::proof::Answer;

    fn bundle(now: Timestamp, days: i64) -> Vec<u8> {
        let life = SignedDuration::from_hours(24 * days);
        authority::to_pem(Authority::generate_for(now, life).unwrap().bundle()).into_bytes()
    }

    fn start() -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap()
    }

    #[test]
    fn an_authority_says_how_many_days_are_left() {
        let pem = bundle(start(), 365);
        let told = |days: i64| authorities(&pem, start() + SignedDuration::from_hours(24 * days), "a.b.svc");
        assert!(told(1).detail.contains("1 authority for a.b.svc, 36"), "{}", told(1).detail);
        assert_eq!(told(1).outcome, Outcome::Ok);
        assert_eq!(told(350).outcome, Outcome::Warn);
        assert_eq!(told(366).outcome, Outcome::Fail);
        assert_eq!(told(-2).outcome, Outcome::Fail, "it is not valid yet");
        assert_eq!(authorities(b"nothing", start(), "a").outcome, Outcome::Fail);
    }

    #[test]
    fn a_configuration_that_is_missing_empty_or_cannot_be_called_is_a_failure() {
        let told =
            |found, compared: Option<&Comparison>| configuration("validating", found, compared, "", true);
        assert_eq!(told(Ok(false), None).outcome, Outcome::Fail);
        let forbidden = "forbidden".to_owned();
        assert!(told(Err(&forbidden), None).untold);
        assert_eq!(told(Ok(true), Some(&Comparison::default())).outcome, Outcome::Fail);
        let well = Comparison { generation: 3, entries: 2, ..Comparison::default() };
        let said = told(Ok(true), Some(&well));
        assert_eq!(said.detail, "validatingwebhookconfiguration/driftguard: 2 entries, generation 3");
        assert_eq!(said.outcome, Outcome::Ok);
        let uncalled = Comparison { without_bundle: vec!["x".to_owned()], ..well };
        assert_eq!(told(Ok(true), Some(&uncalled)).outcome, Outcome::Fail);
    }

    /// Facts of which only what is registered counts.
    fn registered(gate: &Comparison) -> Registered<'static> {
        among(crate::cli::doctor::rules::tests::nothing(start()), Some(gate), Some(&Comparison::default()))
    }

    fn among(facts: Facts, gate: Option<&Comparison>, other: Option<&Comparison>) -> Registered<'static> {
        Registered {
            facts: Box::leak(Box::new(facts)),
            glass: None,
            gate: gate.cloned(),
            convenience: other.cloned(),
            closed: 0,
            clients: Vec::new(),
        }
    }

    #[test]
    fn rules_are_well_only_where_both_sides_were_read() {
        let nothing = || crate::cli::doctor::rules::tests::nothing(start());
        let forbidden = || "forbidden".to_owned();
        let well = Comparison::default();
        let facts = Facts { validating: Err(forbidden()), ..nothing() };
        assert!(among(facts, None, Some(&well)).rules().untold);
        let facts = || Facts { mutating: Err(forbidden()), ..nothing() };
        assert!(among(facts(), Some(&well), None).rules().untold);
        let altered = Comparison { missing: vec!["a".to_owned()], ..Comparison::default() };
        assert_eq!(among(facts(), Some(&altered), None).rules().outcome, Outcome::Fail, "that much is known");
        let told = among(nothing(), Some(&well), None).rules();
        assert_eq!((told.outcome, told.untold), (Outcome::Skip, false), "that it is missing is told above");
    }

    #[test]
    fn rules_are_not_judged_by_a_default_enforcement_that_is_not_known() {
        let told = |names_enforcement| {
            let guard =
                Guarded { names_enforcement, ..crate::cli::doctor::rules::guards::tests::guard("a", &[]) };
            let facts = Facts {
                enforcement: Err("forbidden".to_owned()),
                guards: Ok(vec![guard]),
                ..crate::cli::doctor::rules::tests::nothing(start())
            };
            among(facts, Some(&Comparison::default()), Some(&Comparison::default())).rules()
        };
        assert!(told(false).untold);
        assert_eq!(told(true).outcome, Outcome::Ok, "it does not count for that one");
    }

    #[test]
    fn rules_that_are_missing_or_altered_fail_and_those_that_nobody_needs_warn() {
        let rules = |gate: Comparison| registered(&gate).rules();
        assert_eq!(rules(Comparison::default()).outcome, Outcome::Ok);
        let told = rules(Comparison {
            missing: vec!["a".to_owned()],
            altered: vec![("b".to_owned(), vec!["failurePolicy".to_owned()])],
            ..Comparison::default()
        });
        assert_eq!(told.detail, "1 rule missing: a; 1 rule altered: b (failurePolicy)");
        assert_eq!(told.outcome, Outcome::Fail);
        let told = rules(Comparison { unneeded: vec!["c".to_owned()], ..Comparison::default() });
        assert_eq!(told.outcome, Outcome::Warn);
    }

    #[test]
    fn broken_glass_says_until_when_by_whom_and_why() {
        let mut found = registered(&Comparison::default());
        assert_eq!(found.broken_glass().outcome, Outcome::Ok);
        let until = moment(start() + SignedDuration::from_hours(1));
        found.glass =
            Some(Glass { until: until.clone(), by: "eve".to_owned(), reason: "incident 7".to_owned() });
        let told = found.broken_glass();
        assert_eq!(told.detail, format!("eve broke it until {until} (incident 7): every write passes"));
        assert_eq!(told.mend.as_deref(), Some("driftguard breakglass --end"));
    }

    #[test]
    fn a_dry_run_proves_reachability_only_where_we_answered_it() {
        let found = registered(&Comparison { generation: 7, ..Comparison::default() });
        let target = || "ConfigMap/n/a".to_owned();
        let answered = |generation| {
            let answer = Answer { replica: "r".to_owned(), generation };
            found.reachability(&Reach::Answered { target: target(), answer }).outcome
        };
        assert_eq!((answered(7), answered(6)), (Outcome::Ok, Outcome::Warn));
        assert_eq!(found.reachability(&Reach::Passed { target: target() }).outcome, Outcome::Fail);
        let how = "500: Internal Server Error".to_owned();
        assert_eq!(found.reachability(&Reach::Failed { target: target(), how }).outcome, Outcome::Fail);
        assert!(found.reachability(&Reach::NoTarget { guards: 3 }).untold, "there is something to prove");
        assert!(!found.reachability(&Reach::NoTarget { guards: 0 }).untold);
        assert!(!found.reachability(&Reach::LeftOut).untold);
    }
}
