//! What others decide the bytes of: reviews, paths, guards, Secrets. Nothing of it may panic, and what
//! is cheap to know otherwise must agree. `make fuzz` runs the same functions with inputs that a fuzzer
//! finds. Each takes one input and panics when something is wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use driftguard::api::DriftGuardSpec;
use driftguard::core::audit::candidate::{Form, candidates, choose, values_of};
use driftguard::core::author::{self, Approved};
use driftguard::core::canonical::hash_object;
use driftguard::core::guard::{
    Author, Authorship, DeletionPolicy, Enforcement, FailurePolicy, Guard, GuardId, GuardState, InvalidGuard,
    Signer, Target, Versions,
};
use driftguard::core::guard_spec::{self, SourceFields};
use driftguard::core::index::Index;
use driftguard::core::judge::judge;
use driftguard::core::kinds::{Catalog, KindEntry};
use driftguard::core::paths::{PathFilter, Position, Step};
use driftguard::core::rewrite::rewrite;
use driftguard::core::scope::Scope;
use driftguard::core::signature::SigningKey;
use driftguard::core::verdict::Verdict;
use driftguard::store::{Settings, Stored, convert};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Any moment will do.
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn target(group: &str, kind: &str, name: &str) -> Target {
    Target {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        resource: format!("{}s", kind.to_lowercase()).into(),
        namespace: Some("n".into()),
        name: name.into(),
    }
}

fn guard(target: Target, enforcement: Enforcement, filter: PathFilter, approved: &str) -> GuardState {
    let scope = Scope::new(&target.group, &target.kind, filter);
    GuardState::Valid(Arc::new(Guard {
        id: GuardId { namespace: "g".into(), name: format!("{}-{}", target.resource, target.name).into() },
        uid: "g-1".into(),
        generation: 1,
        expected: hash_object(approved.as_bytes(), &scope).unwrap(),
        replicas_path: (target.kind == "Deployment")
            .then(|| Arc::new(["spec".to_owned(), "replicas".to_owned()]) as Arc<[String]>),
        target,
        scope,
        also_approved: Default::default(),
        equivalents: Default::default(),
        enforcement,
        failure_policy: FailurePolicy::Fail,
        deletion_policy: DeletionPolicy::Deny,
        pauses: Default::default(),
        authorship: Authorship::Unknown,
        versions: Versions::default(),
        managed_by: None,
        contact: None,
        runbook: None,
    }))
}

/// `x` is guarded by `Deny`, `r` by `Rewrite`, `w` and `s` otherwise, `bad` by what cannot be enforced.
static GUARDS: LazyLock<Index> = LazyLock::new(|| {
    let map = r#"{"data":{"a":"1","b":"2"}}"#;
    let deployment =
        r#"{"spec":{"replicas":2,"template":{"spec":{"containers":[{"name":"app","image":"i:1"}]}}}}"#;
    let ignoring = PathFilter::ignoring(&["/spec/template/spec/containers/[name=app]/args", "/spec/paused"]);
    let only = PathFilter::only(&["/data/a", "/data/c~1d"]);
    Index::build(vec![
        guard(target("", "ConfigMap", "x"), Enforcement::Deny, PathFilter::everything(), map),
        guard(target("", "ConfigMap", "r"), Enforcement::Rewrite, PathFilter::everything(), map),
        guard(target("", "ConfigMap", "w"), Enforcement::Warn, only.unwrap(), map),
        guard(
            target("", "Secret", "s"),
            Enforcement::Rewrite,
            PathFilter::everything(),
            r#"{"data":{"a":"MQ=="}}"#,
        ),
        guard(target("apps", "Deployment", "r"), Enforcement::Rewrite, ignoring.unwrap(), deployment),
        GuardState::Invalid(Arc::new(InvalidGuard {
            id: GuardId { namespace: "g".into(), name: "bad".into() },
            generation: 1,
            uid: "".into(),
            pauses: Default::default(),
            authorship: Authorship::Unknown,
            target: Some(target("", "ConfigMap", "bad")),
            reason: "InvalidSpec",
            message: "broken".to_owned(),
        })),
    ])
});

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    request: Request<'a>,
}

/// A review as another parser reads it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    uid: String,
    operation: String,
    resource: Resource,
    sub_resource: Option<String>,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow)]
    old_object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Resource {
    group: String,
    version: String,
    resource: String,
}

#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
}

impl Request<'_> {
    /// The one guard of the object, when the write is one of the object itself that decides by its hash.
    fn guard(&self) -> Option<&'static Guard> {
        let Resource { group, version, resource } = &self.resource;
        let whole = self.sub_resource.as_deref().unwrap_or_default().is_empty() && version == "v1";
        let Named { metadata } = serde_json::from_str(self.object?.get()).ok()?;
        let mut found = GUARDS.lookup(group, resource, &metadata.namespace, &metadata.name);
        match found.next() {
            Some(GuardState::Valid(guard)) if whole => Some(guard),
            _ => None,
        }
    }
}

/// The gate: the uid comes back, approved content passes, what a `Deny` guard does not approve does not.
pub(crate) fn review(body: &[u8]) {
    let judged = judge(body, &GUARDS, NOW);
    let Ok(Body { request }) = serde_json::from_slice(body) else { return };
    match &judged {
        Ok(judgement) => assert_eq!(judgement.uid, request.uid, "another uid"),
        Err(error) => {
            assert!(error.uid.as_ref().is_none_or(|uid| *uid == request.uid), "another uid: {error:?}");
        }
    }
    let (Ok(judgement), Some(guard), Some(object)) = (judged, request.guard(), request.object) else {
        return;
    };
    if !matches!(request.operation.as_str(), "CREATE" | "UPDATE") {
        return;
    }
    let hash = |raw: &RawValue| hash_object(raw.get().as_bytes(), &guard.scope).ok();
    let new = hash(object);
    let approved = new.is_some_and(|hash| guard.approves(hash, NOW));
    let unchanged = new.is_some() && request.old_object.and_then(hash) == new;
    match judgement.verdict {
        Verdict::Allow => assert!(approved, "unapproved content passed in silence"),
        Verdict::Deny { message, .. } => {
            assert!(!approved, "approved content was refused: {message}");
            assert!(!unchanged, "content that stays was refused: {message}");
            assert!(guard.enforcement.blocks(), "refused for a guard that only warns: {message}");
        }
        Verdict::AllowWith { warnings, .. } => {
            assert!(unchanged || !guard.enforcement.blocks(), "unapproved content passed");
            assert!(warnings.iter().all(|warning| !warning.contains(char::is_control)), "{warnings:?}");
        }
        Verdict::NotGuarded(_) | Verdict::Ask(_) => panic!("a guard was passed over"),
    }
}

/// The mutating hook: whatever it puts back, what then comes out is approved.
pub(crate) fn rewriting(body: &[u8]) {
    let Ok(mutation) = rewrite(body, &GUARDS, NOW) else { return };
    let Some(patch) = mutation.patch else { return };
    let Ok(Body { request }) = serde_json::from_slice(body) else { return };
    assert_eq!(mutation.uid, request.uid, "another uid");
    let (Some(guard), Some(object)) = (request.guard(), request.object) else { return };
    assert_eq!(guard.enforcement, Enforcement::Rewrite, "a patch that no guard asks for");
    assert!(!guard.scope.is_secret(), "a patch would show the values of a Secret");
    let Ok(mut object) = serde_json::from_str(object.get()) else { return };
    // Numbers of the old object that another parser cannot hold.
    let Ok(operations) = serde_json::from_slice::<json_patch::Patch>(&patch.operations) else { return };
    json_patch::patch(&mut object, &operations).unwrap();
    let hash = hash_object(object.to_string().as_bytes(), &guard.scope).unwrap();
    assert!(guard.approves(hash, NOW), "what comes out is not approved: {object}");
}

/// Paths, one a line: whatever compiles means the place that it names, for every filter.
pub(crate) fn paths(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let lines: Vec<&str> = text.lines().collect();
    let (ignoring, only) = (PathFilter::ignoring(&lines), PathFilter::only(&lines));
    assert_eq!(ignoring.as_ref().err(), only.as_ref().err(), "one grammar");
    let (Ok(ignoring), Ok(only)) = (ignoring, only) else { return };
    for line in &lines {
        let keys = line.split('/').skip(1).map(|key| key.replace("~1", "/").replace("~0", "~"));
        let end = |filter: &PathFilter| {
            keys.clone().fold(filter.root(), |place, key| filter.descend(place, Step::Member(&key)))
        };
        assert_eq!((end(&ignoring), end(&only)), (Position::Outside, Position::Inside), "{line:?}");
    }
    let object = br#"{"spec":{"a":[{"name":"x","b":1},[2],"3"],"*":{"c/d":null,"~":{}}},"other":[[],{}]}"#;
    for filter in [ignoring, only] {
        let scope = Scope::new("apps", "Deployment", filter);
        hash_object(object, &scope).unwrap();
    }
}

fn catalog() -> Catalog {
    let entry = |group: &str, kind: &str| KindEntry {
        group: group.into(),
        version: "v1".into(),
        kind: kind.into(),
        plural: format!("{}s", kind.to_lowercase()).into(),
        namespaced: true,
        preferred: true,
    };
    Catalog::new(vec![entry("", "ConfigMap"), entry("", "Secret"), entry("apps", "Deployment")])
}

/// A guard with this spec: read, signed, verified, and converted as if it were stored.
pub(crate) fn guard_spec(spec: &[u8]) {
    let key = SigningKey::new(&[7; 32]).unwrap();
    let approved = Approved { namespace: "n", name: "g", spec };
    let author = Author {
        signer: Arc::new(Signer { user: "alice".to_owned(), groups: vec!["team".to_owned()] }),
        at: NOW,
    };
    if let Some(annotation) = author::sign(&key, approved, &author) {
        assert_eq!(author::verify(&key, approved, &annotation), Some(author), "it does not verify");
    }
    assert!(author::same_spec(spec, spec));
    if let Ok(spec) = serde_json::from_slice::<DriftGuardSpec>(spec) {
        let sources = spec.source_of_truth_ref.iter().chain(&spec.fallback_source_refs);
        for path in sources.map(|source| source.path.as_deref()) {
            for (git, service) in [(true, false), (false, true)] {
                drop(guard_spec::source(&SourceFields { field: "spec.s", git, service, path }));
            }
        }
        if let Some(suspend) = &spec.suspend {
            drop(guard_spec::suspension(suspend.until.0, NOW, SignedDuration::from_hours(8)));
        }
    }
    let Ok(spec) = serde_json::from_slice::<&RawValue>(spec) else { return };
    let metadata = r#"{"namespace":"n","name":"g","uid":"u","generation":1,"resourceVersion":"1"}"#;
    let Ok(stored) = serde_json::from_str::<Stored>(&format!(r#"{{"metadata":{metadata},"spec":{spec}}}"#))
    else {
        return;
    };
    let settings = Settings {
        default_enforcement: Enforcement::Deny,
        own_namespace: "terrafusion-system".into(),
        longest_pause: driftguard::core::pause::LONGEST,
    };
    let state = convert::convert(&stored, &catalog(), &settings, Some(&key));
    match &state {
        GuardState::Valid(guard) => {
            assert!(guard_spec::same_rules(&state, &state), "a guard differs from itself");
            assert_eq!(guard.id.to_string(), "n/g");
            assert_eq!(guard.authorship, Authorship::Unknown, "nobody signed it");
        }
        GuardState::Invalid(invalid) => assert!(!invalid.message.is_empty()),
    }
}

/// The data of a Secret, its values parted by NUL, in the order of these keys. Whatever is taken can sign.
pub(crate) fn authorities(input: &[u8]) {
    let keys = ["tls.crt", "tls.key", "ca.crt", "next.crt", "next.key"];
    let values = input.split(|byte| *byte == 0).map(|value| ByteString(value.to_vec()));
    let data: BTreeMap<_, _> = keys.into_iter().map(str::to_owned).zip(values).collect();
    match driftguard::cert::secret::read_data(&data, "n") {
        Ok((current, _)) => assert!(current.bundle().contains(current.certificate())),
        Err(error) => {
            let said = error.to_string();
            let key = data.get("tls.key").map(|key| String::from_utf8_lossy(&key.0).into_owned());
            // A line of a key of any length: shorter ones may stand in any text.
            let lines = key.iter().flat_map(|key| key.lines()).filter(|line| line.len() >= 32);
            assert!(!lines.into_iter().any(|line| said.contains(line)), "an error tells the key");
            assert!(!error.reason().is_empty());
        }
    }
}

/// What a source answered: a byte for the form, one for the kind of the target, and then the text. Whatever
/// is taken is the target's, hashes to what it says, and reads the same the next time.
pub(crate) fn sources(input: &[u8]) {
    let [form, kind, text @ ..] = input else { return };
    let forms = [Form::Document, Form::Document, Form::ConfigMap, Form::Secret];
    let kinds = [("", "ConfigMap"), ("", "Secret"), ("terrafusion.ai", "GAMAConfig"), ("apps", "Deployment")];
    let form = forms[usize::from(*form) % forms.len()];
    let (group, kind) = kinds[usize::from(*kind) % kinds.len()];
    let target = target(group, kind, "x");
    let scope = Scope::new(group, kind, PathFilter::everything());
    // A document comes as YAML or JSON, a live object as JSON that the API server sent.
    let documents = match form {
        Form::Document => driftguard::document::contents("it", text).unwrap_or_default(),
        _ if serde_json::from_slice::<&RawValue>(text).is_ok() => vec![text.to_vec()],
        _ => Vec::new(),
    };
    if let Ok(chosen) = choose(&documents, &target) {
        assert!(documents.iter().any(|document| document == chosen), "another document");
    }
    for document in &documents {
        drop(values_of(document, form));
        let Ok(readings) = candidates(document, form, &target, &scope) else { continue };
        assert!(!readings.is_empty(), "neither content nor an error");
        for reading in readings {
            assert_eq!(hash_object(&reading.object, &scope), Ok(reading.hash), "another hash");
            if reading.whole {
                assert_eq!(hash_object(document, &scope), Ok(reading.hash), "a manifest hashes as it is");
            }
            let again = candidates(&reading.object, Form::Live, &target, &scope).unwrap();
            assert_eq!((again.len(), again[0].hash), (1, reading.hash), "it reads otherwise the next time");
            // Objects may be deeper than this parser goes.
            let Ok(Named { metadata }) = serde_json::from_slice(&reading.object) else { continue };
            assert_eq!((metadata.name.as_str(), metadata.namespace.as_str()), ("x", "n"));
        }
    }
}
