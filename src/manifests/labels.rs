//! Labels of everything that is installed: the recommended ones, and the older operator's.

use std::collections::BTreeMap;

use crate::api::names;

/// Value of the label `app.kubernetes.io/name` and `part-of`.
const APPLICATION: &str = "driftguard";

/// Labels of every object. Versions are left out, so that an upgrade changes only what it must.
#[must_use]
pub fn common(component: &str) -> BTreeMap<String, String> {
    owned([
        (names::LABEL_NAME, APPLICATION),
        (names::LABEL_COMPONENT, component),
        (names::LABEL_PART_OF, APPLICATION),
    ])
}

/// Labels of the operator's own objects: [`common`] and `app=driftguard-operator`.
#[must_use]
pub fn operator() -> BTreeMap<String, String> {
    let mut labels = common("operator");
    labels.insert(names::LABEL_APP.to_owned(), names::OPERATOR.to_owned());
    labels
}

/// What selects the operator's pods. It can never change: a Deployment's selector is immutable.
#[must_use]
pub fn operator_selector() -> BTreeMap<String, String> {
    owned([(names::LABEL_APP, names::OPERATOR), (names::LABEL_NAME, APPLICATION)])
}

fn owned<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}
