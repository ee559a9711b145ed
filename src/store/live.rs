//! One live read of the guards of one object, for when the index may lag behind.

use kube::api::ListParams;
use kube::{Api, core::ObjectList};

use crate::core::guard::GuardState;
use crate::core::index::Index;
use crate::core::kinds::Catalog;

use super::Store;
use super::convert::convert;
use super::stored::Stored;

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
}

impl LiveReadError {
    /// A stable word for metrics and conditions.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::List { .. } => "GuardsUnreadable",
            Self::NoCatalog { .. } => "KindsUnknown",
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
        let api: Api<Stored> = Api::all(self.shared.client.clone());
        // No resource version: the newest state, not what some cache holds.
        let params = ListParams::default().fields(&format!("spec.targetName={}", escaped(object.name)));
        let listed = api
            .list(&params)
            .await
            .map_err(|error| LiveReadError::List { name: name(), error: Box::new(error) })?;
        Ok(self.index_of(&listed, &catalog, object))
    }

    fn index_of(&self, listed: &ObjectList<Stored>, catalog: &Catalog, object: Key<'_>) -> Index {
        let of_object = |state: &GuardState| {
            state.target().is_some_and(|target| {
                target.group == object.group
                    && target.resource == object.resource
                    && target.namespace.as_deref().unwrap_or_default() == object.namespace
                    && target.name == object.name
            })
        };
        let settings = &self.shared.settings;
        let exceptions = self.shared.exceptions.borrow().clone().unwrap_or_default();
        let states = listed.items.iter().map(|stored| {
            exceptions.apply(convert(stored, catalog, settings), stored, settings.longest_pause)
        });
        Index::build(states.filter(of_object).collect())
    }
}

/// A value in a field selector: `\`, `,` and `=` are syntax.
fn escaped(value: &str) -> String {
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
    fn syntax_in_a_name_is_escaped() {
        assert_eq!(escaped("plain.name:x"), "plain.name:x");
        assert_eq!(escaped(r"a,b=c\d"), r"a\,b\=c\\d");
    }
}
