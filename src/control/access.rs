//! Asks the API server for rights: those that the author of a guard must have, and our own.
//!
//! The list of the former is [`crate::core::author_access`]'s; here it is asked for, all at once. The
//! caller bounds how long that may take.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview,
    SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use crate::core::author_access::Access;
use crate::core::guard::{Author, Signer};

/// Questions under way at once for one guard.
const CONCURRENCY: usize = 16;

/// Who is asked about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// User name.
    pub user: String,
    /// Groups.
    pub groups: Vec<String>,
    /// Uid, where it is known.
    pub uid: Option<String>,
    /// What else the authenticator told, such as the scopes of a token, where it is known.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl From<&Author> for Subject {
    fn from(author: &Author) -> Self {
        let Signer { user, groups } = &*author.signer;
        Self { user: user.clone(), groups: groups.clone(), ..Self::default() }
    }
}

/// The API server did not say.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask whether {user:?} may {access}: {error}")]
pub struct AccessError {
    /// About whom.
    pub user: String,
    /// Which right.
    pub access: String,
    /// What the client says.
    pub error: Box<kube::Error>,
}

/// Those of `needed` that the subject lacks, in their order.
///
/// # Errors
/// [`AccessError`] when any of them cannot be told.
pub async fn missing(
    client: &kube::Client,
    subject: &Subject,
    needed: &[Access],
) -> Result<Vec<Access>, AccessError> {
    let api: Api<SubjectAccessReview> = Api::all(client.clone());
    let asked = needed.iter().cloned().map(|access| {
        let api = api.clone();
        let review = review(subject, &access);
        let user = subject.user.clone();
        async move {
            match api.create(&PostParams::default(), &review).await {
                Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => Ok(None),
                Ok(_) => Ok(Some(access)),
                Err(error) => Err(AccessError { user, access: access.to_string(), error: Box::new(error) }),
            }
        }
    });
    let answers: Vec<Option<Access>> =
        stream::iter(asked.collect::<Vec<_>>()).buffered(CONCURRENCY).try_collect().await?;
    Ok(answers.into_iter().flatten().collect())
}

/// Whether whoever the client authenticates as has a right. What the API server leaves open is none.
///
/// # Errors
/// What the client says when there is no answer.
pub async fn allows_us(client: &kube::Client, right: ResourceAttributes) -> kube::Result<bool> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(right),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn review(subject: &Subject, access: &Access) -> SubjectAccessReview {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: Some(subject.user.clone()),
            groups: Some(subject.groups.clone()),
            uid: subject.uid.clone(),
            extra: (!subject.extra.is_empty()).then(|| subject.extra.clone()),
            resource_attributes: Some(ResourceAttributes {
                group: Some(access.group.clone()),
                resource: Some(access.resource.clone()),
                subresource: given(&access.subresource),
                namespace: given(&access.namespace),
                name: given(&access.name),
                verb: Some(access.verb.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}
