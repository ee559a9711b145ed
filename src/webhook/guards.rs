//! Where the server gets guards from: the index, and on a miss one live read.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::core::index::Index;
use crate::core::verdict::{Question, Unguarded};
use crate::store::{Key, LiveReadError, Store};

/// What the server asks for guards.
pub trait Guards: Send + Sync + 'static {
    /// The newest index. Takes no lock.
    fn index(&self) -> Arc<Index>;

    /// The guards of one object, at least as new as the moment of the call. The caller bounds how
    /// long this may take.
    fn read<'a>(&'a self, object: &'a Unguarded) -> BoxFuture<'a, Result<Index, LiveReadError>>;

    /// The raw JSON of one object as it stands, `None` when there is none. The caller bounds how long
    /// this may take.
    fn read_object<'a>(
        &'a self,
        question: &'a Question,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, LiveReadError>>;
}

impl Guards for Store {
    fn index(&self) -> Arc<Index> {
        Self::index(self)
    }

    fn read<'a>(&'a self, object: &'a Unguarded) -> BoxFuture<'a, Result<Index, LiveReadError>> {
        let key = Key {
            group: &object.group,
            resource: &object.resource,
            namespace: object.namespace.as_deref().unwrap_or_default(),
            name: &object.name,
        };
        Box::pin(self.read_guards(key))
    }

    fn read_object<'a>(
        &'a self,
        question: &'a Question,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, LiveReadError>> {
        match question {
            Question::Target(target) => Box::pin(self.read_target(target)),
            Question::Namespace(name) => Box::pin(self.read_namespace(name)),
        }
    }
}
