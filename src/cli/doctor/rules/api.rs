//! The API server, who asks, its clock and our kinds.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray,
    JSONSchemaPropsOrBool,
};

use crate::api::names;
use crate::cli::doctor::facts::{Server, Told};
use crate::cli::doctor::finding::{Check, Finding};
use crate::cli::install::preflight::{OLDEST_MINOR, is_supported};
use crate::cli::words::listed;

/// A difference that nobody notices: the header has whole seconds, and answers take their time.
const NOTICED: SignedDuration = SignedDuration::from_secs(5);
/// Certificates are dated back by an hour, but exceptions, suspensions and authors' signatures go by minutes.
const HARMFUL: SignedDuration = SignedDuration::from_mins(5);

const APPLY_CRDS: &str = "driftguard manifests crds | kubectl apply --server-side -f -";

pub(super) fn server(server: &Server) -> Finding {
    let Server { address, major, minor, version } = server;
    if is_supported(major, minor) {
        return Finding::ok(Check::ApiServer, format!("{address} is Kubernetes {version}"));
    }
    Finding::fail(
        Check::ApiServer,
        format!("{address} is Kubernetes {version}; DriftGuard needs 1.{OLDEST_MINOR} or newer"),
        "upgrade the cluster: older servers cannot find guards by what they pin",
    )
}

pub(super) fn caller(caller: &Told<String>) -> Finding {
    match caller {
        Ok(name) => Finding::ok(Check::Caller, format!("you are {name}")),
        Err(why) => Finding::untold(
            Check::Caller,
            why,
            "log in again, or choose another --context: the API server did not say who you are",
        ),
    }
}

pub(super) fn clock(ahead: &Told<SignedDuration>) -> Finding {
    let ahead = match ahead {
        Ok(ahead) => *ahead,
        Err(why) => {
            return Finding::untold(
                Check::Clock,
                why,
                "compare the clocks by hand: something in between removes the Date header",
            );
        }
    };
    let (off, way) = (ahead.abs(), if ahead.is_negative() { "behind" } else { "ahead of" });
    if off <= NOTICED {
        return Finding::ok(Check::Clock, "this machine and the API server have the same time");
    }
    let detail = format!("the clock of this machine is {} s {way} the API server's", off.as_secs());
    let mend = "synchronise the clocks of this machine and of the control plane (NTP)";
    if off <= HARMFUL {
        Finding::warn(Check::Clock, detail, mend)
    } else {
        Finding::fail(Check::Clock, detail, mend)
    }
}

/// One finding for all that are as they should be, and one for each that is not.
pub(super) fn definitions(
    seen: &[(CustomResourceDefinition, Told<Option<CustomResourceDefinition>>)],
) -> Vec<Finding> {
    let judged: Vec<(String, Option<Finding>)> = seen
        .iter()
        .map(|(ours, found)| {
            let name = ours.metadata.name.clone().unwrap_or_default();
            let finding = definition(&name, ours, found);
            (name, finding)
        })
        .collect();
    let well: Vec<&str> =
        judged.iter().filter(|(_, finding)| finding.is_none()).map(|(name, _)| name.as_str()).collect();
    let mut told = Vec::new();
    if !well.is_empty() {
        told.push(Finding::ok(
            Check::Definitions,
            format!("{} have all that this version needs", well.join(", ")),
        ));
    }
    told.extend(judged.into_iter().filter_map(|(_, finding)| finding));
    told
}

fn definition(
    name: &str,
    ours: &CustomResourceDefinition,
    found: &Told<Option<CustomResourceDefinition>>,
) -> Option<Finding> {
    let found = match found {
        Err(why) => return Some(Finding::unread(Check::Definitions, why)),
        Ok(None) => {
            return Some(Finding::fail(Check::Definitions, format!("{name} does not exist"), APPLY_CRDS));
        }
        Ok(Some(found)) => found,
    };
    let says = |condition: &str| {
        let conditions = found.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.filter(|said| said.type_ == condition).any(|said| said.status == "True")
    };
    if !says("Established") {
        let detail = format!("{name} exists, but the API server does not serve it");
        return Some(Finding::fail(Check::Definitions, detail, format!("kubectl describe crd {name}")));
    }
    let version = |of: &CustomResourceDefinition| {
        of.spec.versions.iter().find(|version| version.name == names::VERSION).cloned()
    };
    let Some(there) = version(found).filter(|version| version.served) else {
        let detail = format!("{name} does not serve version {}", names::VERSION);
        return Some(Finding::fail(Check::Definitions, detail, APPLY_CRDS));
    };
    let wanted = version(ours).as_ref().map(parts).unwrap_or_default();
    let there = parts(&there);
    let lacks = lacking(&wanted, &there);
    if !lacks.is_empty() {
        return Some(Finding::fail(
            Check::Definitions,
            format!("{name} is of an older version: the API server {lacks}"),
            APPLY_CRDS,
        ));
    }
    // The values of a further field go without saying.
    let is_news = |part: &&Part| match part {
        Part::Value(path, _) => wanted.contains(&Part::Field(path.clone())),
        _ => true,
    };
    let further: Vec<String> = there.difference(&wanted).filter(is_news).map(Part::words).collect();
    let further: Vec<&String> = topmost(further.iter());
    (!further.is_empty()).then(|| {
        Finding::warn(
            Check::Definitions,
            format!("{name} is of a newer version than this program: it has {}", listed(&further)),
            "use the `driftguard` of the version that is installed",
        )
    })
}

/// What a version of a CRD has that something relies on. Lengths and patterns are left out: who made the CRD may
/// have tightened them, and the API server says what they refuse.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// A field, by its path.
    Field(String),
    /// One of the values that a field may have.
    Value(String, String),
    /// A field by which objects are found.
    Selectable(String),
    Subresource(&'static str),
}

impl Part {
    fn words(&self) -> String {
        match self {
            Self::Field(path) => path.clone(),
            Self::Value(path, value) => format!("{value} in {path}"),
            Self::Selectable(path) => format!("the selectable field {path}"),
            Self::Subresource(name) => format!("the subresource {name}"),
        }
    }
}

fn parts(version: &CustomResourceDefinitionVersion) -> BTreeSet<Part> {
    let mut all = BTreeSet::new();
    if let Some(schema) = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref()) {
        gather(schema, "", &mut all);
    }
    all.extend(
        version.selectable_fields.iter().flatten().map(|field| Part::Selectable(field.json_path.clone())),
    );
    let subresources = version.subresources.as_ref();
    let has = [
        ("status", subresources.is_some_and(|has| has.status.is_some())),
        ("scale", subresources.is_some_and(|has| has.scale.is_some())),
    ];
    all.extend(has.into_iter().filter(|(_, has)| *has).map(|(name, _)| Part::Subresource(name)));
    all
}

/// Fields and values of a schema.
fn gather(schema: &JSONSchemaProps, path: &str, all: &mut BTreeSet<Part>) {
    let values = schema.enum_.iter().flatten();
    all.extend(values.map(|value| {
        let word = value.0.as_str().map_or_else(|| value.0.to_string(), str::to_owned);
        Part::Value(path.to_owned(), word)
    }));
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, property) in schema.properties.iter().flatten() {
        gather(property, &below(name), all);
        all.insert(Part::Field(below(name)));
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        gather(items, path, all);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(members)) = &schema.additional_properties {
        gather(members, &below("*"), all);
    }
}

/// What an API server does without the parts that are wanted and not there; empty when it lacks none.
fn lacking(wanted: &BTreeSet<Part>, there: &BTreeSet<Part>) -> String {
    // Where none is named, each passes.
    let is_limited = |of: &str| there.iter().any(|part| matches!(part, Part::Value(path, _) if path == of));
    let (mut fields, mut values, mut selectable, mut subresources) = (vec![], vec![], vec![], vec![]);
    for part in wanted.difference(there) {
        match part {
            Part::Field(path) => fields.push(path),
            Part::Value(path, _) if is_limited(path) => values.push(part.words()),
            Part::Value(..) => {}
            Part::Selectable(path) => selectable.push(path),
            Part::Subresource(name) => subresources.push(*name),
        }
    }
    let mut lacks = Vec::new();
    if !fields.is_empty() {
        lacks.push(format!("drops {} without a word", listed(&topmost(fields.into_iter()))));
    }
    if !values.is_empty() {
        lacks.push(format!("refuses {}", listed(&values)));
    }
    if !selectable.is_empty() {
        lacks.push(format!("cannot find objects by {}", listed(&selectable)));
    }
    if !subresources.is_empty() {
        lacks.push(format!("has no subresource {}", listed(&subresources)));
    }
    lacks.join(", ")
}

/// Without those below another one of the list.
fn topmost<'a>(paths: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let mut kept: Vec<&String> = Vec::new();
    for path in paths {
        let is_below =
            |above: &&String| path.strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('.'));
        if !kept.iter().any(is_below) {
            kept.push(path);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::cli::doctor::finding::Outcome;
    use crate::manifests::crds;

    fn of_version(minor: &str) -> Server {
        let (address, version) = ("https://host".to_owned(), format!("v1.{minor}.0"));
        Server { address, major: "1".to_owned(), minor: minor.to_owned(), version }
    }

    #[test]
    fn an_older_api_server_is_a_failure() {
        assert_eq!(server(&of_version("32+")).outcome, Outcome::Ok);
        let told = server(&of_version("31"));
        assert_eq!(told.outcome, Outcome::Fail);
        assert!(told.detail.ends_with("v1.31.0; DriftGuard needs 1.32 or newer"), "{}", told.detail);
    }

    #[test]
    fn clocks_that_differ_are_told_by_how_much_and_which_way() {
        let told = |seconds| clock(&Ok(SignedDuration::from_secs(seconds)));
        assert_eq!(told(-2).outcome, Outcome::Ok);
        assert_eq!(told(90).detail, "the clock of this machine is 90 s ahead of the API server's");
        assert_eq!(told(90).outcome, Outcome::Warn);
        assert_eq!(told(-4000).outcome, Outcome::Fail);
        assert!(told(-4000).detail.contains("4000 s behind"));
    }

    /// The CRD as a server that serves it has it.
    fn served(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
        crd.status = serde_json::from_value(serde_json::json!({
            "acceptedNames": {"kind": "", "plural": ""}, "storedVersions": ["v1"],
            "conditions": [{"type": "Established", "status": "True"}],
        }))
        .unwrap();
        crd
    }

    fn spec_fields(
        crd: &mut CustomResourceDefinition,
    ) -> &mut std::collections::BTreeMap<String, JSONSchemaProps> {
        let schema = crd.spec.versions[0].schema.as_mut().unwrap().open_api_v3_schema.as_mut().unwrap();
        schema.properties.as_mut().unwrap().get_mut("spec").unwrap().properties.as_mut().unwrap()
    }

    fn judged(found: Told<Option<CustomResourceDefinition>>) -> Finding {
        definitions(&[(crds::driftguard(), found)]).remove(0)
    }

    #[test]
    fn a_crd_of_this_version_is_well_and_a_missing_one_is_not() {
        assert_eq!(judged(Ok(Some(served(crds::driftguard())))).outcome, Outcome::Ok);
        let told = judged(Ok(None));
        assert_eq!((told.outcome, told.mend.as_deref()), (Outcome::Fail, Some(APPLY_CRDS)));
        assert_eq!(judged(Ok(Some(crds::driftguard()))).outcome, Outcome::Fail, "it is not established");
        assert!(judged(Err("forbidden".to_owned())).untold);
    }

    #[test]
    fn an_older_crd_names_the_fields_that_would_be_dropped_and_a_newer_one_those_it_has() {
        let mut older = served(crds::driftguard());
        spec_fields(&mut older).remove("suspend");
        let told = judged(Ok(Some(older)));
        assert_eq!(told.outcome, Outcome::Fail);
        assert!(told.detail.contains("drops spec.suspend without a word"), "{}", told.detail);
        let mut newer = served(crds::driftguard());
        let field = spec_fields(&mut newer)["suspend"].clone();
        spec_fields(&mut newer).insert("further".to_owned(), field);
        let told = judged(Ok(Some(newer)));
        assert_eq!(told.outcome, Outcome::Warn);
        assert!(told.detail.ends_with("it has spec.further"), "{}", told.detail);
    }

    #[test]
    fn an_older_crd_of_the_same_fields_is_found_by_its_values_selectors_and_subresources() {
        let mut older = served(crds::driftguard());
        let version = &mut older.spec.versions[0];
        version.selectable_fields = None;
        version.subresources = None;
        let values = spec_fields(&mut older).get_mut("enforcement").unwrap().enum_.as_mut().unwrap();
        values.retain(|value| value.0 != "Audit");
        let told = judged(Ok(Some(older)));
        assert_eq!((told.outcome, told.mend.as_deref()), (Outcome::Fail, Some(APPLY_CRDS)));
        assert!(
            told.detail.ends_with(
                "the API server refuses Audit in spec.enforcement, cannot find objects by .spec.targetName, \
                 has no subresource status"
            ),
            "{}",
            told.detail
        );
    }

    #[test]
    fn values_that_a_crd_does_not_limit_are_not_lacking() {
        let mut open = served(crds::driftguard());
        spec_fields(&mut open).get_mut("enforcement").unwrap().enum_ = None;
        assert_eq!(judged(Ok(Some(open))).outcome, Outcome::Ok);
    }

    #[test]
    fn what_is_well_is_told_in_one_line_beside_what_is_not() {
        let told = definitions(&[
            (crds::driftguard(), Ok(Some(served(crds::driftguard())))),
            (crds::exception(), Ok(None)),
        ]);
        let outcomes: Vec<Outcome> = told.iter().map(|finding| finding.outcome).collect();
        assert_eq!(outcomes, [Outcome::Ok, Outcome::Fail]);
    }
}
