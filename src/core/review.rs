//! An admission review, read in place.
//!
//! Only what the decision needs is decoded. The API server writes the fields of a request in a
//! fixed order with `object` after all that says what it is, so that [`Review::read_head`] can stop
//! there: once the new object hashes to what is approved, the rest of the review is never looked at.

use super::canonical::object::{Object, member};
use super::json::{Cursor, JsonError, Members, Problem, Span};
use super::verdict::{Operation, ReviewError, User};

/// The parts of an admission review, as far as they have been read.
#[derive(Debug)]
pub(crate) struct Review<'a> {
    cursor: Cursor<'a>,
    members: Members,
    /// `request.uid`.
    pub uid: String,
    /// `request.resource.group`.
    pub group: String,
    /// `request.resource.version`: the version in which the object arrives.
    pub version: String,
    /// `request.requestResource.version`: the version through which the write was made, empty when absent.
    request_version: String,
    /// `request.resource.resource`.
    pub resource: String,
    /// `request.kind.kind`.
    pub kind: String,
    /// `request.subResource`, empty for the object itself.
    pub sub_resource: String,
    /// `request.operation`.
    pub operation: Option<Operation>,
    /// `request.object`; `None` while not read, when absent, or null.
    pub object: Option<Object<'a>>,
    /// `request.oldObject`, likewise.
    pub old_object: Option<Object<'a>>,
    /// `request.dryRun`.
    pub dry_run: bool,
    /// `request.namespace`, empty for cluster-scoped objects.
    pub namespace: String,
    user: Option<Span>,
    options: Option<Span>,
}

/// Whether reading has reached its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The new object has been read; there may be more.
    ObjectRead,
    /// The whole request has been read.
    Finished,
}

impl<'a> Review<'a> {
    /// Reads up to and including `request.object`.
    pub(crate) fn read_head(body: &'a [u8]) -> Result<(Self, Progress), ReviewError> {
        let mut cursor = Cursor::new(body);
        let members = enter_request(&mut cursor).map_err(|error| failed(None, &error))?;
        let mut review = Self {
            cursor,
            members,
            uid: String::new(),
            group: String::new(),
            version: String::new(),
            request_version: String::new(),
            resource: String::new(),
            kind: String::new(),
            sub_resource: String::new(),
            operation: None,
            object: None,
            old_object: None,
            dry_run: false,
            namespace: String::new(),
            user: None,
            options: None,
        };
        let progress = review.read_until(true).map_err(|error| review.failed(&error))?;
        review.check_head()?;
        Ok((review, progress))
    }

    /// Reads what [`Review::read_head`] left.
    pub(crate) fn read_rest(&mut self) -> Result<(), ReviewError> {
        self.read_until(false).map(drop).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &JsonError) -> ReviewError {
        failed((!self.uid.is_empty()).then(|| self.uid.clone()), error)
    }

    /// Nothing can be judged without these.
    fn check_head(&self) -> Result<(), ReviewError> {
        let missing = if self.uid.is_empty() {
            "request.uid"
        } else if self.resource.is_empty() {
            "request.resource"
        } else if self.operation.is_none() {
            "request.operation"
        } else {
            return Ok(());
        };
        let uid = (!self.uid.is_empty()).then(|| self.uid.clone());
        Err(ReviewError { uid, message: format!("it has no {missing}") })
    }

    fn read_until(&mut self, stop_at_object: bool) -> Result<Progress, JsonError> {
        while let Some(key) = self.cursor.next_member(&mut self.members)? {
            let name = key.decode(self.cursor.text)?;
            match name.as_ref() {
                "uid" => self.uid = self.text_value()?,
                "kind" => self.kind = self.text_member("kind")?,
                "resource" => self.read_resource()?,
                "requestResource" => self.request_version = self.text_member("version")?,
                "subResource" => self.sub_resource = self.text_value()?,
                "namespace" => self.namespace = self.text_value()?,
                "operation" => self.operation = operation(&self.text_value()?),
                "userInfo" => self.user = Some(self.cursor.skip_value()?),
                "options" => self.options = Some(self.cursor.skip_value()?),
                "dryRun" => self.dry_run = self.cursor.skip_value()?.of(self.cursor.text) == b"true",
                "oldObject" => self.old_object = self.object_value()?,
                "object" => {
                    self.object = self.object_value()?;
                    // A head that is not complete yet means another order than the API server's.
                    let complete =
                        self.operation.is_some() && !self.uid.is_empty() && !self.resource.is_empty();
                    if stop_at_object && complete {
                        return Ok(Progress::ObjectRead);
                    }
                }
                _ => drop(self.cursor.skip_value()?),
            }
        }
        Ok(Progress::Finished)
    }

    fn read_resource(&mut self) -> Result<(), JsonError> {
        let span = self.cursor.skip_value()?;
        self.group = text_at(self.cursor.text, span, &["group"])?;
        self.version = text_at(self.cursor.text, span, &["version"])?;
        self.resource = text_at(self.cursor.text, span, &["resource"])?;
        Ok(())
    }

    fn text_member(&mut self, name: &str) -> Result<String, JsonError> {
        let span = self.cursor.skip_value()?;
        text_at(self.cursor.text, span, &[name])
    }

    fn text_value(&mut self) -> Result<String, JsonError> {
        let span = self.cursor.skip_value()?;
        text_at(self.cursor.text, span, &[])
    }

    fn object_value(&mut self) -> Result<Option<Object<'a>>, JsonError> {
        if self.cursor.peek()? == b'n' {
            self.cursor.skip_value()?;
            return Ok(None);
        }
        Object::read(&mut self.cursor).map(Some)
    }

    /// The version through which the write was made.
    pub(crate) fn written_in(&self) -> &str {
        if self.request_version.is_empty() { &self.version } else { &self.request_version }
    }

    /// Who makes the write. Call after [`Review::read_rest`].
    pub(crate) fn user(&self) -> User {
        let Some(span) = self.user else { return User::default() };
        let text = self.cursor.text;
        User {
            name: text_at(text, span, &["username"]).unwrap_or_default(),
            uid: text_at(text, span, &["uid"]).unwrap_or_default(),
            groups: member(text, span, "groups")
                .ok()
                .flatten()
                .map(|groups| texts(text, groups))
                .unwrap_or_default(),
        }
    }

    /// `options.fieldManager`, empty when absent. Call after [`Review::read_rest`].
    pub(crate) fn field_manager(&self) -> String {
        let manager = self.options.and_then(|span| text_at(self.cursor.text, span, &["fieldManager"]).ok());
        manager.unwrap_or_default()
    }
}

/// Whether the object is a server-side apply of `manager`, as its managed fields tell.
pub(crate) fn is_applied_by(object: &Object<'_>, manager: &str) -> bool {
    let text = object.text();
    let fields =
        object.field("metadata").and_then(|metadata| member(text, metadata, "managedFields").ok().flatten());
    let Some(fields) = fields else { return false };
    items(text, fields).into_iter().any(|entry| {
        let is = |key, wanted| text_at(text, entry, &[key]).is_ok_and(|found| found == wanted);
        is("operation", "Apply") && is("manager", manager)
    })
}

/// The value under `keys` from the object's root, as it stands in the text; `None` when absent.
pub(crate) fn value_at<'a>(object: &Object<'a>, keys: &[&str]) -> Option<&'a [u8]> {
    let (first, rest) = keys.split_first()?;
    let start = object.field(first)?;
    let found = rest.iter().try_fold(start, |span, key| member(object.text(), span, key).ok().flatten());
    found.map(|span| span.of(object.text()))
}

/// A field of `metadata`, empty when absent.
pub(crate) fn metadata_text(object: &Object<'_>, name: &str) -> Result<String, JsonError> {
    object.field("metadata").map_or_else(|| Ok(String::new()), |span| text_at(object.text(), span, &[name]))
}

fn enter_request(cursor: &mut Cursor<'_>) -> Result<Members, JsonError> {
    let mut members = cursor.enter_object()?;
    while let Some(key) = cursor.next_member(&mut members)? {
        if key.is(cursor.text, "request") {
            return cursor.enter_object();
        }
        cursor.skip_value()?;
    }
    Err(cursor.error(Problem::Truncated))
}

fn failed(uid: Option<String>, error: &JsonError) -> ReviewError {
    ReviewError { uid, message: error.to_string() }
}

fn operation(name: &str) -> Option<Operation> {
    [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect]
        .into_iter()
        .find(|operation| operation.as_str() == name)
}

/// The string under `keys` from the value at `span`; empty when absent or null.
fn text_at(text: &[u8], span: Span, keys: &[&str]) -> Result<String, JsonError> {
    let mut span = span;
    for key in keys {
        match member(text, span, key)? {
            Some(inner) => span = inner,
            None => return Ok(String::new()),
        }
    }
    let mut cursor = Cursor::starting_at(&text[..span.end], span.start);
    match cursor.peek()? {
        b'"' => Ok(cursor.string()?.decode(text)?.into_owned()),
        b'n' => Ok(String::new()),
        _ => Err(cursor.error(Problem::Unexpected)),
    }
}

/// The strings of a list; anything else in it is passed over.
fn texts(text: &[u8], span: Span) -> Vec<String> {
    items(text, span).into_iter().filter_map(|item| text_at(text, item, &[]).ok()).collect()
}

/// The items of a list, as far as it can be read.
fn items(text: &[u8], span: Span) -> Vec<Span> {
    let mut cursor = Cursor::starting_at(&text[..span.end], span.start);
    let mut found = Vec::new();
    if cursor.expect(b'[').is_err() {
        return found;
    }
    while let Ok(item) = cursor.skip_value() {
        found.push(item);
        if cursor.expect(b',').is_err() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    const REVIEW: &str = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"u-1",
        "kind":{"group":"apps","version":"v1","kind":"Deployment"},
        "resource":{"group":"apps","version":"v1","resource":"deployments"},
        "name":"x","namespace":"n","operation":"UPDATE",
        "userInfo":{"username":"alice","groups":["a","system:authenticated"]},
        "object":{"metadata":{"name":"x","namespace":"n"},"spec":{}},"oldObject":null,"dryRun":true,
        "options":{"kind":"UpdateOptions","fieldManager":"kubectl-edit"}}}"#;

    #[test]
    fn the_head_stops_behind_the_object_and_the_rest_follows() {
        let (mut review, progress) = Review::read_head(REVIEW.as_bytes()).unwrap();
        assert_eq!(progress, Progress::ObjectRead);
        assert_eq!((review.group.as_str(), review.resource.as_str()), ("apps", "deployments"));
        assert_eq!(review.operation, Some(Operation::Update));
        assert!(!review.dry_run);
        review.read_rest().unwrap();
        assert!(review.dry_run && review.old_object.is_none());
        assert_eq!(review.user().groups, ["a", "system:authenticated"]);
        assert_eq!(review.field_manager(), "kubectl-edit");
        assert_eq!(metadata_text(review.object.as_ref().unwrap(), "name").unwrap(), "x");
    }

    #[test]
    fn another_order_of_fields_is_read_to_the_end() {
        let body =
            br#"{"request":{"object":{"a":1},"operation":"CREATE","resource":{"resource":"r"},"uid":"u"}}"#;
        let (review, progress) = Review::read_head(body).unwrap();
        assert_eq!(progress, Progress::Finished);
        assert!(review.object.is_some());
    }

    #[test]
    fn a_broken_review_still_tells_its_uid() {
        let cut = &REVIEW[..REVIEW.find("oldObject").unwrap()];
        let error =
            Review::read_head(cut.as_bytes()).and_then(|(mut review, _)| review.read_rest()).unwrap_err();
        assert_eq!(error.uid.as_deref(), Some("u-1"));
        let error = Review::read_head(b"{}").unwrap_err();
        assert_eq!(error.uid, None);
        let error = Review::read_head(br#"{"request":{"uid":"u-2","operation":"CREATE"}}"#).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the admission review: it has no request.resource");
    }
}
