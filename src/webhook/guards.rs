//! Where the server gets guards from: the index, live reads on a miss, and a look at one before it refuses.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::control::member::Vouch;
use crate::core::guard::GuardId;
use crate::core::index::Index;
use crate::core::standing::Look;
use crate::core::verdict::{Question, Unguarded};
use crate::store::{Key, LiveReadError, Store};

/// What the server asks for guards.
pub trait Guards: Send + Sync + 'static {
    /// The newest index. Takes no lock.
    fn index(&self) -> Arc<Index>;

    /// Whether the index is as new as others take it to be. When not, it decides nothing: the guards
    /// of every object under review are read.
    fn is_current(&self) -> bool {
        true
    }

    /// The guards of one object, at least as new as the moment of the call. The caller bounds how
    /// long this may take.
    fn read<'a>(&'a self, object: &'a Unguarded) -> BoxFuture<'a, Result<Index, LiveReadError>>;

    /// One guard, at least as new as the moment of the call and as the index of that moment. The caller
    /// bounds how long this may take.
    fn look<'a>(&'a self, guard: &'a GuardId) -> BoxFuture<'a, Result<Look, LiveReadError>>;

    /// The raw JSON of one object as it stands, `None` when there is none. The caller bounds how long
    /// this may take.
    fn read_object<'a>(
        &'a self,
        question: &'a Question,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, LiveReadError>>;
}

/// The index of a replica that says how new it is.
#[derive(Debug, Clone)]
pub struct Vouched {
    /// What the watches have seen.
    pub store: Store,
    /// Whether that is known to be as new as others take it to be.
    pub vouch: Vouch,
}

impl Guards for Vouched {
    fn index(&self) -> Arc<Index> {
        self.store.index()
    }

    fn is_current(&self) -> bool {
        self.vouch.is_current()
    }

    fn read<'a>(&'a self, object: &'a Unguarded) -> BoxFuture<'a, Result<Index, LiveReadError>> {
        let key = Key {
            group: &object.group,
            resource: &object.resource,
            namespace: object.namespace.as_deref().unwrap_or_default(),
            name: &object.name,
        };
        Box::pin(self.store.read_guards(key))
    }

    fn look<'a>(&'a self, guard: &'a GuardId) -> BoxFuture<'a, Result<Look, LiveReadError>> {
        Box::pin(self.store.look(guard))
    }

    fn read_object<'a>(
        &'a self,
        question: &'a Question,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, LiveReadError>> {
        match question {
            Question::Target(target) => Box::pin(self.store.read_target(target)),
            Question::Namespace(name) => Box::pin(self.store.read_namespace(name)),
        }
    }
}
