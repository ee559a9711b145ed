//! What a guard approves, read from its bytes in etcd, and from when on that is all that is approved.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use driftguard::core::canonical::hash_object;
use driftguard::core::paths::PathFilter;
use driftguard::core::scope::Scope;
use jiff::Timestamp;
use serde_json::Value;

use crate::fleet::condition;

/// What one version of a guard lets pass.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    /// Everything passes: there is no guard, or it does not block.
    pub(crate) open: bool,
    /// Everything passes until then: the guard is suspended.
    pub(crate) open_until: Option<Timestamp>,
    /// Approved hashes, each until a moment where it has an end.
    pub(crate) hashes: Vec<(String, Option<Timestamp>)>,
    /// The paths that narrow the scope.
    pub(crate) filter: PathFilter,
    /// Whether the object may be deleted.
    pub(crate) may_delete: bool,
}

impl Rule {
    /// What is so without a guard.
    pub(crate) fn none() -> Self {
        Self {
            open: true,
            open_until: None,
            hashes: Vec::new(),
            filter: PathFilter::everything(),
            may_delete: true,
        }
    }

    /// Of a guard, as it is stored.
    pub(crate) fn of(guard: &Value) -> Result<Self> {
        let spec = &guard["spec"];
        let paths = |field: &str| -> Vec<&str> {
            spec[field].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
        };
        let filter = if paths("onlyPaths").is_empty() {
            PathFilter::ignoring(&paths("ignorePaths"))?
        } else {
            PathFilter::only(&paths("onlyPaths"))?
        };
        let moment = |value: &Value| value.as_str().map(str::parse::<Timestamp>).transpose();
        let expected = spec["expectedHash"].as_str().context("no expectedHash")?;
        let mut hashes = vec![(expected.to_owned(), None)];
        for also in spec["alsoApproved"].as_array().into_iter().flatten() {
            hashes.push((also["hash"].as_str().context("no hash")?.to_owned(), moment(&also["until"])?));
        }
        let blocks = matches!(spec["enforcement"].as_str(), None | Some("Deny" | "Rewrite"));
        Ok(Self {
            open: !blocks || spec["failurePolicy"] == "Ignore",
            open_until: moment(&spec["suspend"]["until"])?,
            hashes,
            filter,
            may_delete: spec["deletionPolicy"] != "Deny",
        })
    }

    /// Whether everything passes at this moment.
    pub(crate) fn is_open(&self, at: Timestamp) -> bool {
        self.open || self.open_until.is_some_and(|until| at <= until)
    }

    /// Whether what is stored may become `new` at this moment. An object is the bytes that are stored; no object is
    /// a deletion, or a creation.
    pub(crate) fn lets_pass(&self, old: Option<&[u8]>, new: Option<&[u8]>, at: Timestamp) -> Result<bool> {
        let Some(new) = new else { return Ok(self.is_open(at) || self.may_delete) };
        let hash = self.hash(new)?;
        let approved = |(hash_of, until): &(String, Option<Timestamp>)| {
            *hash_of == hash && until.is_none_or(|until| at <= until)
        };
        let unchanged = || old.is_some_and(|old| self.hash(old).is_ok_and(|of_old| of_old == hash));
        Ok(self.is_open(at) || self.hashes.iter().any(approved) || unchanged())
    }

    /// The hash of what this rule pins of an object.
    pub(crate) fn hash(&self, object: &[u8]) -> Result<String> {
        let read: Value = serde_json::from_slice(object)?;
        let group = read["apiVersion"].as_str().and_then(|version| version.split_once('/'));
        let kind = read["kind"].as_str().context("no kind")?;
        let scope = Scope::new(group.map_or("", |(group, _)| group), kind, self.filter.clone());
        Ok(hash_object(object, &scope)?.to_string())
    }
}

/// The versions of one guard that a replica may judge by: all that came after the last one that was called
/// enforced, and that one.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    uid: Value,
    generation: Value,
    pub(crate) suspended: bool,
    pub(crate) rules: Vec<Rule>,
    /// Every hash that was `expectedHash` of this guard.
    pub(crate) expected: Vec<String>,
}

impl Life {
    /// Before there is a guard.
    pub(crate) fn new() -> Self {
        let (uid, generation) = (Value::Null, Value::Null);
        Self { uid, generation, suspended: false, rules: vec![Rule::none()], expected: Vec::new() }
    }

    /// Follows one change of the guard in etcd.
    pub(crate) fn follow(&mut self, guard: Option<&Value>) -> Result<()> {
        let Some(guard) = guard else {
            *self = Self::new();
            return Ok(());
        };
        let (uid, generation) = (&guard["metadata"]["uid"], &guard["metadata"]["generation"]);
        let rule = Rule::of(guard)?;
        if (uid, generation) != (&self.uid, &self.generation) {
            if *uid != self.uid {
                *self = Self::new();
            }
            (self.uid, self.generation) = (uid.clone(), generation.clone());
            self.expected.extend(rule.hashes.first().map(|(hash, _)| hash.clone()));
            self.rules.push(rule.clone());
        }
        let says = |of_type: &str| condition(guard, of_type).is_some_and(|said| said["status"] == "True");
        let of_this = |said: &Value| said["observedGeneration"] == *generation;
        if says("Enforcing") && condition(guard, "Enforcing").is_some_and(of_this) {
            self.rules = vec![rule];
        }
        self.suspended = says("Suspended");
        Ok(())
    }
}

/// One exception, as far as the history has been read.
#[derive(Debug, Clone)]
pub(crate) struct Pause {
    /// Guards of its namespace; none are named when it is for all.
    pub(crate) names: Vec<String>,
    pub(crate) from: i64,
    /// When it ends by itself.
    pub(crate) until: Timestamp,
    /// After it was deleted: the moment at which every replica has heard.
    pub(crate) over: BTreeMap<String, i64>,
}

impl Pause {
    /// Of an exception, as it is stored.
    pub(crate) fn of(exception: &Value, from: i64) -> Result<Self> {
        let spec = &exception["spec"];
        let names = spec["guards"]["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
        Ok(Self {
            names: names.map(str::to_owned).collect(),
            from,
            until: spec["until"].as_str().context("no until")?.parse()?,
            over: BTreeMap::new(),
        })
    }

    pub(crate) fn names(&self, guard: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| name == guard)
    }

    /// Whether writes pass a guard that was under review from revision `begun` to `stored`, from the moment `at` on.
    pub(crate) fn lets_pass(&self, guard: &str, (begun, stored): (i64, i64), at: Timestamp) -> bool {
        let is_over = self.over.get(guard).is_some_and(|&over| over <= begun);
        self.names(guard) && self.from < stored && at <= self.until && !is_over
    }
}
