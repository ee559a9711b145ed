//! Live reads, for when the index may lag behind: of the guards of one object, and of one guard that is known.

use http::Request;
use kube::api::ListParams;
use kube::{Api, core::ObjectList};

use crate::api::names;
use crate::core::guard::{GuardId, GuardState, Target, url_segment};
use crate::core::index::Index;
use crate::core::kinds::Catalog;
use crate::core::signature::SigningKey;
use crate::core::standing::Look;

use super::Store;
use super::convert::Settings;
use super::exceptions::Exceptions;
use super::guards::{is_same, remembering};
use super::observation::Observation;
use super::resolution::resolve;
use super::stored::{Received, Stored};

/// An object, as the index is asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// API group, empty for core.
    pub group: &'a str,
    /// Plural resource name.
    pub resource: &'a str,
    /// Namespace; empty for a cluster-scoped object.
    pub namespace: &'a str,
    /// Object name.
    pub name: &'a str,
}

/// Why the live read gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LiveReadError {
    /// The API server did not list the guards.
    #[error("cannot list the DriftGuards of {name}: {error}")]
    List {
        /// Name of the object.
        name: String,
        /// What the client says.
        error: Box<kube::Error>,
    },
    /// Discovery has never been read, so no kind can be resolved.
    #[error("cannot tell which kinds the DriftGuards of {name} mean: discovery has not been read yet")]
    NoCatalog {
        /// Name of the object.
        name: String,
    },
    /// The API server did not give a guard.
    #[error(
        "cannot read DriftGuard {guard}: {error}; let ClusterRole driftguard-operator `get` it where that is \
         forbidden"
    )]
    Guard {
        /// Which guard.
        guard: GuardId,
        /// What the client says.
        error: Box<kube::Error>,
    },
    /// The API server did not give an object.
    #[error(
        "cannot read {path}: {error}; let ClusterRole driftguard-operator `get` it where that is forbidden"
    )]
    Object {
        /// Where it stands.
        path: String,
        /// What the client says.
        error: Box<kube::Error>,
    },
}

impl LiveReadError {
    /// A stable word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::List { .. } | Self::Guard { .. } => "GuardsUnreadable",
            Self::NoCatalog { .. } => "KindsUnknown",
            Self::Object { .. } => "ObjectUnreadable",
        }
    }
}

impl Store {
    /// The guards that pin one object, read from the API server: at least as new as the moment of the
    /// call. The caller bounds how long this may take.
    ///
    /// # Errors
    /// [`LiveReadError`] when the API server does not answer.
    pub async fn read_guards(&self, object: Key<'_>) -> Result<Index, LiveReadError> {
        let name = || object.name.to_owned();
        let Some(catalog) = self.shared.catalog.borrow().clone() else {
            return Err(LiveReadError::NoCatalog { name: name() });
        };
        let api: Api<Received> = Api::all(self.shared.client.clone());
        // No resource version: the newest state, not what some cache holds.
        let params = ListParams::default().fields(&format!("spec.targetName={}", field_value(object.name)));
        let listed = api
            .list(&params)
            .await
            .map_err(|error| LiveReadError::List { name: name(), error: Box::new(error) })?;
        Ok(self.index_of(listed, &catalog, object))
    }

    /// A guard as it stands, at least as new as the moment of the call and as what the watch has told of it.
    /// The caller bounds how long this may take.
    ///
    /// # Errors
    /// [`LiveReadError`] when the API server does not answer, or does not let us.
    pub async fn look(&self, guard: &GuardId) -> Result<Look, LiveReadError> {
        let Some(catalog) = self.shared.catalog.borrow().clone() else {
            return Err(LiveReadError::NoCatalog { name: guard.to_string() });
        };
        let api: Api<Received> = Api::namespaced(self.shared.client.clone(), &guard.namespace);
        let received = match api.get(&guard.name).await {
            Ok(received) => received,
            Err(kube::Error::Api(status)) if is_about(&status, guard) => return Ok(Look::Gone),
            Err(error) => {
                return Err(LiveReadError::Guard { guard: guard.clone(), error: Box::new(error) });
            }
        };
        if received.id() != *guard {
            return Ok(Look::Unread);
        }
        Ok(Look::Stands(self.knowing(&catalog, |knowing| knowing.newest(received.into()))))
    }

    /// An object as it stands: the bytes that the API server sends, since decoding them would change
    /// numbers and fail on deep ones. `None` when there is none.
    ///
    /// # Errors
    /// [`LiveReadError`] when the API server does not answer, or does not let us.
    pub async fn read_target(&self, target: &Target) -> Result<Option<Vec<u8>>, LiveReadError> {
        self.read_raw(target.url_path()).await
    }

    /// A Namespace, likewise.
    ///
    /// # Errors
    /// As [`Self::read_target`].
    pub async fn read_namespace(&self, name: &str) -> Result<Option<Vec<u8>>, LiveReadError> {
        self.read_raw(format!("/api/v1/namespaces/{}", url_segment(name))).await
    }

    async fn read_raw(&self, path: String) -> Result<Option<Vec<u8>>, LiveReadError> {
        let failed = |error| LiveReadError::Object { path: path.clone(), error: Box::new(error) };
        let request = Request::get(&path)
            .header(http::header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|error| failed(kube::Error::HttpError(error)))?;
        match self.shared.client.request_text(request).await {
            Ok(text) => Ok(Some(text.into_bytes())),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn index_of(&self, listed: ObjectList<Received>, catalog: &Catalog, object: Key<'_>) -> Index {
        let of_object = |state: &GuardState| {
            state.target().is_some_and(|target| {
                target.group == object.group
                    && target.resource == object.resource
                    && target.namespace.as_deref().unwrap_or_default() == object.namespace
                    && target.name == object.name
            })
        };
        let states = listed.items.into_iter().map(Stored::from);
        self.knowing(catalog, |knowing| {
            Index::build(states.map(|stored| knowing.converted(stored)).filter(of_object).collect())
        })
    }

    /// Has guards converted by what is known at this moment.
    fn knowing<T>(&self, catalog: &Catalog, convert: impl FnOnce(&Knowing<'_>) -> T) -> T {
        // Copies of pointers: nothing may hold up those who bring news.
        let observation = self.shared.observations.borrow().clone();
        let key = self.shared.keys.borrow().clone();
        convert(&Knowing {
            observation: &observation,
            exceptions: &self.known_exceptions(),
            catalog,
            settings: &self.shared.settings,
            key: key.as_ref(),
        })
    }
}

/// Whether an answer says that there is no such guard. A kind that is not served is not found, either.
fn is_about(status: &kube::core::Status, guard: &GuardId) -> bool {
    let is_it = |details: &kube::core::response::StatusDetails| {
        details.name == guard.name.as_str() && details.kind == names::DRIFTGUARDS
    };
    status.code == 404 && status.details.as_ref().is_some_and(is_it)
}

/// What guards that were read live are converted by: as the watch converts them.
pub(super) struct Knowing<'a> {
    pub(super) observation: &'a Observation,
    pub(super) exceptions: &'a Exceptions,
    pub(super) catalog: &'a Catalog,
    pub(super) settings: &'a Settings,
    pub(super) key: Option<&'a SigningKey>,
}

impl Knowing<'_> {
    /// A guard as what the index would hold it, had its watch told of it by now. What the index holds stays
    /// where that is as new, or decides the same.
    pub(super) fn newest(&self, stored: Stored) -> GuardState {
        if let Some(old) = self.observation.guard(stored.id())
            && (old.stored.revision() >= stored.revision() || is_same(old, &stored, self.key))
        {
            return old.state.clone();
        }
        self.converted(stored)
    }

    /// A guard of a live read. What its kind was found to mean goes on, and so does what is known of its
    /// promotion, as in the index.
    pub(super) fn converted(&self, stored: Stored) -> GuardState {
        let old = self.observation.guard(stored.id());
        let stored = match old {
            Some(old) => remembering(stored, &old.stored, self.key),
            None => stored,
        };
        let state = resolve(&stored, old, self.catalog, self.settings, self.key).state;
        self.exceptions.apply(state, &stored, self.settings.longest_pause)
    }
}

/// A value as it stands in a field selector: `\`, `,` and `=` are syntax.
pub(crate) fn field_value(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for char in value.chars() {
        if matches!(char, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(char);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_read_where_its_guard_hashes_it() {
        let mut target = Target {
            group: "apps".into(),
            version: "v1".into(),
            kind: "Deployment".into(),
            resource: "deployments".into(),
            namespace: Some("n".into()),
            name: "a b".into(),
        };
        assert_eq!(target.url_path(), "/apis/apps/v1/namespaces/n/deployments/a%20b");
        target = Target { group: "".into(), namespace: None, resource: "nodes".into(), ..target };
        assert_eq!(target.url_path(), "/api/v1/nodes/a%20b");
    }

    #[test]
    fn a_guard_is_gone_only_when_the_api_server_says_so_of_exactly_that_guard() {
        let guard = GuardId { namespace: "n".into(), name: "g".into() };
        let status = |text: &str| -> kube::core::Status { serde_json::from_str(text).unwrap_or_default() };
        let gone = r#"{"code":404,"reason":"NotFound","details":{"name":"g","group":"terrafusion.ai","kind":"driftguards"}}"#;
        assert!(is_about(&status(gone), &guard));
        for other in [
            r#"{"code":404,"reason":"NotFound","message":"404 page not found"}"#,
            r#"{"code":404,"reason":"NotFound","details":{"name":"n","kind":"namespaces"}}"#,
            r#"{"code":404,"reason":"NotFound","details":{"name":"h","kind":"driftguards"}}"#,
            r#"{"code":403,"reason":"Forbidden","details":{"name":"g","kind":"driftguards"}}"#,
        ] {
            assert!(!is_about(&status(other), &guard), "{other}");
        }
    }

    #[test]
    fn syntax_in_a_name_is_escaped() {
        assert_eq!(field_value("plain.name:x"), "plain.name:x");
        assert_eq!(field_value(r"a,b=c\d"), r"a\,b\=c\\d");
    }
}
