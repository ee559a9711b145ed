//! What was seen of the objects that are watched.

use std::collections::BTreeMap;

use super::follow::Place;
use crate::audit::watch::event::meta;
use crate::audit::watch::request::Failure;
use crate::core::json::JsonError;
use crate::core::learning::History;
use crate::core::paths::PathFilter;
use crate::core::scope::Scope;

/// One object.
pub(super) struct Known {
    /// As it was seen last.
    pub(super) json: Vec<u8>,
    /// What changed of it.
    pub(super) history: History,
    /// Whether it is no longer there.
    pub(super) is_gone: bool,
    /// Why it cannot be compared.
    pub(super) problem: Option<String>,
    /// The list that showed it last.
    listed: u64,
}

/// How the watch of a place fares.
#[derive(Default)]
struct State {
    /// How many lists were begun.
    lists: u64,
    /// Whether it has followed at all.
    has_followed: bool,
    /// What is wrong with it now.
    trouble: Option<String>,
    /// Whether it was given up.
    is_over: bool,
}

/// All of them, by place, namespace and name.
pub(super) struct Watched {
    objects: BTreeMap<(usize, String, String), Known>,
    scopes: Vec<Scope>,
    titles: Vec<String>,
    /// Which places are one object.
    is_named: Vec<bool>,
    states: Vec<State>,
    changes: u64,
}

impl Watched {
    /// Nothing was seen yet of these places.
    pub(super) fn of(places: &[Place]) -> Self {
        let scope =
            |place: &Place| Scope::new(&place.entry.group, &place.entry.kind, PathFilter::everything());
        Self {
            objects: BTreeMap::new(),
            scopes: places.iter().map(scope).collect(),
            titles: places.iter().map(Place::title).collect(),
            is_named: places.iter().map(|place| place.name.is_some()).collect(),
            states: places.iter().map(|_| State::default()).collect(),
            changes: 0,
        }
    }

    /// A list of a place begins.
    pub(super) fn begin_list(&mut self, at: usize) {
        self.states[at].lists += 1;
    }

    /// An object as it is now.
    ///
    /// # Errors
    /// When its metadata cannot be read.
    pub(super) fn see(&mut self, at: usize, object: &[u8]) -> Result<(), JsonError> {
        let meta = meta(object)?;
        let listed = self.states[at].lists;
        let key = (at, meta.namespace.into_owned(), meta.name.into_owned());
        let Some(known) = self.objects.get_mut(&key) else {
            let known = Known {
                json: object.to_vec(),
                history: History::default(),
                is_gone: false,
                problem: None,
                listed,
            };
            self.objects.insert(key, known);
            return Ok(());
        };
        (known.listed, known.is_gone) = (listed, false);
        match known.history.note(&known.json, object, &self.scopes[at]) {
            Ok(is_change) => self.changes += u64::from(is_change),
            Err(error) => known.problem = Some(error.to_string()),
        }
        known.json = object.to_vec();
        Ok(())
    }

    /// An object that is gone.
    ///
    /// # Errors
    /// When its metadata cannot be read.
    pub(super) fn see_deleted(&mut self, at: usize, object: &[u8]) -> Result<(), JsonError> {
        let meta = meta(object)?;
        let key = (at, meta.namespace.into_owned(), meta.name.into_owned());
        if let Some(known) = self.objects.get_mut(&key) {
            known.is_gone = true;
        }
        Ok(())
    }

    /// The watch of a place is open; with `has_listed` a list was complete before.
    pub(super) fn follows(&mut self, at: usize, has_listed: bool) {
        let state = &mut self.states[at];
        (state.has_followed, state.trouble) = (true, None);
        if has_listed {
            let lists = state.lists;
            for (_, known) in self.objects.iter_mut().filter(|((place, ..), _)| *place == at) {
                known.is_gone |= known.listed != lists;
            }
        }
    }

    /// The watch of a place failed. Tells whether it is worth trying again: not where it is refused from the beginning,
    /// and then nothing is known of its objects.
    pub(super) fn failed(&mut self, at: usize, failure: &Failure) -> bool {
        let state = &mut self.states[at];
        state.trouble = Some(failure.to_string());
        state.is_over = matches!(failure.code, 400..=409) && !state.has_followed;
        if state.is_over {
            self.objects.retain(|(place, ..), _| *place != at);
        }
        !self.states[at].is_over
    }

    /// Whether of every place it is known what is there, or that it cannot be known.
    pub(super) fn is_begun(&self) -> bool {
        self.states.iter().all(|state| state.has_followed || state.is_over)
    }

    /// The places that were given up, each with the reason.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&str, &str)> {
        let states = self.states.iter().zip(&self.titles).filter(|(state, _)| state.is_over);
        states.map(|(state, title)| (title.as_str(), state.trouble.as_deref().unwrap_or_default()))
    }

    /// How many objects there are.
    pub(super) fn count(&self) -> usize {
        self.objects.values().filter(|known| !known.is_gone).count()
    }

    /// Whether there was ever one.
    pub(super) fn has_seen(&self) -> bool {
        !self.objects.is_empty()
    }

    /// How many writes changed what a guard would pin.
    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    /// The places that are not watched now, each with the reason.
    pub(super) fn troubles(&self) -> Vec<String> {
        let told = self.states.iter().zip(&self.titles).enumerate().filter_map(|(at, (state, title))| {
            let is_known = || self.objects.keys().any(|(place, ..)| *place == at);
            let why = match &state.trouble {
                Some(trouble) => trouble.as_str(),
                None if !state.has_followed => "the list was not complete in time",
                None if self.is_named[at] && !is_known() => "there is no such object",
                None => return None,
            };
            Some(format!("{title}: {why}"))
        });
        told.collect()
    }

    /// What is known, by place, namespace and name.
    pub(super) fn into_objects(self) -> impl Iterator<Item = ((usize, String, String), Known)> {
        self.objects.into_iter()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::core::kinds::KindEntry;

    fn watched() -> Watched {
        let entry = KindEntry {
            group: "".into(),
            version: "v1".into(),
            kind: "ConfigMap".into(),
            plural: "configmaps".into(),
            namespaced: true,
            preferred: true,
        };
        Watched::of(&[Place { entry, namespace: None, name: None, selector: None }])
    }

    fn object(name: &str, value: &str) -> Vec<u8> {
        format!(r#"{{"metadata":{{"name":"{name}","namespace":"n"}},"data":{{"a":"{value}"}}}}"#).into_bytes()
    }

    #[test]
    fn what_a_later_list_does_not_show_is_gone_and_what_it_shows_otherwise_has_changed() {
        let mut watched = watched();
        for round in [&["a", "b", "c"][..], &["a", "c"]] {
            watched.begin_list(0);
            for name in round {
                watched.see(0, &object(name, if *name == "c" { round[1] } else { "1" })).unwrap();
            }
            assert!(watched.count() == 3, "before a list is complete nothing is gone");
            watched.follows(0, true);
        }
        assert_eq!((watched.count(), watched.changes()), (2, 1));
        watched.see_deleted(0, &object("a", "1")).unwrap();
        watched.see(0, &object("a", "1")).unwrap();
        assert_eq!((watched.count(), watched.changes()), (2, 1), "it was made again as it was");
    }

    #[test]
    fn a_refusal_from_the_beginning_ends_a_watch_and_a_later_one_does_not() {
        let refusal = || Failure { code: 403, message: "forbidden".to_owned(), about: None };
        let mut first = watched();
        first.see(0, &object("a", "1")).unwrap();
        assert!(!first.failed(0, &refusal()) && first.is_begun() && first.count() == 0);
        assert_eq!(first.refused().collect::<Vec<_>>(), [("configmaps", "forbidden (403)")]);
        assert_eq!(first.troubles(), ["configmaps: forbidden (403)"]);
        let mut later = watched();
        later.follows(0, true);
        assert!(later.failed(0, &refusal()));
        later.follows(0, false);
        assert!(later.troubles().is_empty());
    }
}
