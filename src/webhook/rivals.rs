//! One look at the metadata of a target, to warn of others who write it. Best effort.

use kube::api::{Api, ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;

use crate::core::guard::{GuardState, Target};
use crate::core::guard_spec_rivals::{FieldOwner, rivals, warning};

/// The warning, when others write what the guard pins; `None` also when that cannot be told.
pub(super) async fn look(client: &kube::Client, state: &GuardState) -> Option<String> {
    let GuardState::Valid(guard) = state else { return None };
    let meta = read(client, &guard.target).await?.metadata;
    let owners = meta.owner_references.unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true));
    let entries = meta.managed_fields.unwrap_or_default();
    let fields: Vec<FieldOwner<'_>> = entries
        .iter()
        .filter_map(|entry| {
            Some(FieldOwner {
                manager: entry.manager.as_deref()?,
                subresource: entry.subresource.as_deref().unwrap_or_default(),
                fields: &entry.fields_v1.as_ref()?.0,
            })
        })
        .collect();
    let controller = controller.map(|owner| (owner.kind.as_str(), owner.name.as_str()));
    let found = rivals(controller, &fields, &guard.scope);
    (!found.is_empty()).then(|| warning(&guard.target, &found, guard.enforcement.blocks()))
}

async fn read(client: &kube::Client, target: &Target) -> Option<PartialObjectMeta<DynamicObject>> {
    let resource = ApiResource {
        group: target.group.as_str().into(),
        version: target.version.as_str().into(),
        api_version: target.api_version(),
        kind: target.kind.as_str().into(),
        plural: target.resource.as_str().into(),
    };
    let api: Api<DynamicObject> = match &target.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    match api.get_metadata_opt(&target.name).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(%error, "the metadata of a target could not be read");
            None
        }
    }
}
