//! Reviews of our own kinds as they are sent. Unlike those of targets they are small and rare, so that they
//! are read as a whole.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::core::verdict::User;

#[derive(Deserialize)]
pub(super) struct Review<'a> {
    #[serde(borrow)]
    pub(super) request: Request<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    pub(super) uid: String,
    pub(super) resource: Resource,
    pub(super) operation: String,
    #[serde(default)]
    pub(super) namespace: String,
    #[serde(default)]
    pub(super) user_info: UserInfo,
    #[serde(borrow)]
    pub(super) object: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) old_object: Option<&'a RawValue>,
    pub(super) dry_run: Option<bool>,
    pub(super) options: Option<Options>,
}

#[derive(Deserialize)]
pub(super) struct Resource {
    pub(super) group: String,
    pub(super) resource: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct UserInfo {
    pub(super) username: String,
    pub(super) uid: String,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Options {
    #[serde(default)]
    pub(super) field_manager: String,
}

impl Request<'_> {
    /// Who asks, as records name them.
    pub(super) fn user(&self) -> User {
        let UserInfo { username, uid, groups, .. } = &self.user_info;
        let groups = groups.iter().take(User::MAX_GROUPS).cloned().collect();
        User { name: username.clone(), uid: uid.clone(), groups }
    }

    /// `options.fieldManager`, empty when there is none.
    pub(super) fn field_manager(&self) -> String {
        self.options.as_ref().map(|options| options.field_manager.clone()).unwrap_or_default()
    }
}
