//! One live read of the guards of one object, for when the index may lag behind.

use http::Request;
use kube::api::ListParams;
use kube::{Api, core::ObjectList};

use crate::core::guard::{GuardState, Target, url_segment};
use crate::core::index::Index;
use crate::core::kinds::Catalog;
use crate::core::signature::SigningKey;

use super::Store;
use super::convert::Settings;
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
            Self::List { .. } => "GuardsUnreadable",
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
        let key = self.shared.keys.borrow().clone();
        let settings = &self.shared.settings;
        let exceptions = self.known_exceptions();
        let before = self.shared.observations.borrow().clone();
        let states = converted(listed.items, &before, catalog, settings, key.as_ref());
        let states = states.map(|(stored, state)| exceptions.apply(state, &stored, settings.longest_pause));
        Index::build(states.filter(of_object).collect())
    }
}

/// The guards of a live read. What their kinds were found to mean goes on, as in the index.
pub(super) fn converted<'a>(
    listed: impl IntoIterator<Item = Received> + 'a,
    before: &'a Observation,
    catalog: &'a Catalog,
    settings: &'a Settings,
    key: Option<&'a SigningKey>,
) -> impl Iterator<Item = (Stored, GuardState)> {
    listed.into_iter().map(Stored::from).map(move |stored| {
        let old = before.guard(stored.id());
        let state = resolve(&stored, old, catalog, settings, key).state;
        (stored, state)
    })
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
    fn syntax_in_a_name_is_escaped() {
        assert_eq!(field_value("plain.name:x"), "plain.name:x");
        assert_eq!(field_value(r"a,b=c\d"), r"a\,b\=c\\d");
    }
}
