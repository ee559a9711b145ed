//! What of a repository is wanted: a ref and a file.

use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use gix::protocol::handshake::Ref;

use super::super::SourceError;

/// Longest path of a file, in bytes.
const LONGEST_PATH: usize = 1024;
/// Longest name of a ref, in bytes.
const LONGEST_REF: usize = 255;

/// Which commit is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    /// What the server has checked out: its default branch.
    Head,
    /// A whole name, such as `refs/heads/main`.
    Full(String),
    /// A branch or a tag.
    Short(String),
    /// A commit, by its whole name.
    Commit(ObjectId),
}

impl Reference {
    /// Reads the `ref` of a Secret; absent or empty is the default branch.
    ///
    /// # Errors
    /// [`SourceError::Invalid`] when git has no such name.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, SourceError> {
        let text = text.unwrap_or_default().trim_end_matches(['\r', '\n']);
        if text.is_empty() || text == "HEAD" {
            return Ok(Self::Head);
        }
        if text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let id = ObjectId::from_hex(text.to_ascii_lowercase().as_bytes());
            return id.map(Self::Commit).map_err(|_| no_ref());
        }
        if text.len() > LONGEST_REF
            || text.starts_with('-')
            || gix::validate::reference::name_partial(text.as_bytes().as_bstr()).is_err()
        {
            return Err(no_ref());
        }
        Ok(if text.starts_with("refs/") { Self::Full(text.to_owned()) } else { Self::Short(text.to_owned()) })
    }

    /// What the Secret says, where it does.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Head => None,
            Self::Full(name) | Self::Short(name) => Some(name.clone()),
            Self::Commit(id) => Some(id.to_string()),
        }
    }

    /// The names that a server is asked for.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Head => vec!["HEAD".to_owned()],
            Self::Full(name) => vec![name.clone()],
            Self::Short(name) => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
            Self::Commit(_) => Vec::new(),
        }
    }

    /// The object that a server has under it: a commit, or a tag that leads to one.
    ///
    /// # Errors
    /// [`SourceError::Invalid`] when there is none, or a branch and a tag of the same name.
    pub(super) fn choose(&self, refs: &[Ref]) -> Result<ObjectId, SourceError> {
        if let Self::Commit(id) = self {
            return Ok(*id);
        }
        let names = self.names();
        let mut found =
            refs.iter().filter_map(object).filter(|(name, _)| names.iter().any(|wanted| wanted == name));
        match (found.next(), found.next()) {
            (Some((_, id)), None) => Ok(id),
            (Some(_), Some(_)) => Err(SourceError::Invalid(format!(
                "the repository has a branch and a tag called as {self}; write refs/heads/ or refs/tags/ before it"
            ))),
            (None, _) => Err(SourceError::Invalid(match self {
                Self::Head => "the repository has no default branch; name one in ref".to_owned(),
                _ => format!("the repository has no branch or tag called as {self}"),
            })),
        }
    }
}

/// For sentences that people read who may not read the Secret.
impl std::fmt::Display for Reference {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Head => "the default branch",
            Self::Full(_) | Self::Short(_) | Self::Commit(_) => "the ref of the Secret",
        })
    }
}

fn no_ref() -> SourceError {
    SourceError::Invalid(
        "the ref of the Secret is no branch, tag, full ref or commit (40 digits) that git could have"
            .to_owned(),
    )
}

/// The name of a ref and the object that it names itself, which is the tag when it is an annotated one.
fn object(reference: &Ref) -> Option<(String, ObjectId)> {
    let (name, id) = match reference {
        Ref::Peeled { full_ref_name, tag, .. } => (full_ref_name, *tag),
        Ref::Direct { full_ref_name, object } => (full_ref_name, *object),
        Ref::Symbolic { full_ref_name, tag, object, .. } => (full_ref_name, tag.unwrap_or(*object)),
        Ref::Unborn { .. } => return None,
    };
    Some((name.to_str().ok()?.to_owned(), id))
}

/// A file of a repository: the folders that lead to it, and its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FilePath(Vec<String>);

impl FilePath {
    /// Reads the `path` of a source. Leading, trailing and doubled slashes and `.` mean nothing.
    ///
    /// # Errors
    /// [`SourceError::Invalid`] for `..`, for control characters, and for what names no file.
    pub(super) fn parse(path: &str) -> Result<Self, SourceError> {
        let wrong = |what: &str| SourceError::Invalid(format!("the path of the source {what}"));
        if path.len() > LONGEST_PATH {
            return Err(wrong("is longer than 1024 bytes"));
        }
        if path.chars().any(char::is_control) {
            return Err(wrong("holds control characters"));
        }
        if path.ends_with('/') {
            return Err(wrong("names a folder; name a file"));
        }
        let parts: Vec<String> =
            path.split('/').filter(|part| !part.is_empty() && *part != ".").map(str::to_owned).collect();
        if parts.iter().any(|part| part == "..") {
            return Err(wrong("holds `..`; write it from the top of the repository"));
        }
        if parts.is_empty() {
            return Err(wrong("is empty; name a file of the repository"));
        }
        Ok(Self(parts))
    }

    /// The folders and the file, from the top.
    pub(super) fn parts(&self) -> &[String] {
        &self.0
    }
}

impl std::fmt::Display for FilePath {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.0.join("/"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn id(digit: char) -> ObjectId {
        ObjectId::from_hex(digit.to_string().repeat(40).as_bytes()).unwrap()
    }

    fn direct(name: &str, digit: char) -> Ref {
        Ref::Direct { full_ref_name: name.into(), object: id(digit) }
    }

    #[test]
    fn a_ref_is_a_branch_a_tag_a_full_name_or_a_commit() {
        let parsed = |text: &str| Reference::parse(Some(text)).unwrap();
        assert_eq!(Reference::parse(None).unwrap(), Reference::Head);
        assert_eq!(parsed(""), Reference::Head);
        assert_eq!(parsed("release/1.2\n"), Reference::Short("release/1.2".into()));
        assert_eq!(parsed("refs/tags/v1"), Reference::Full("refs/tags/v1".into()));
        assert_eq!(parsed(&"A".repeat(40)), Reference::Commit(id('a')));
    }

    #[test]
    fn what_git_could_not_have_is_no_ref() {
        for text in [
            "--all", "a..b", "a b", "a~1", "a^", "a:b", "a?", "a*", "a[", "a\\b", "/a", "a/", "a.lock",
            "a@{1}",
        ] {
            assert!(matches!(Reference::parse(Some(text)), Err(SourceError::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn the_object_of_a_name_is_chosen_exactly() {
        let refs =
            [direct("refs/heads/main", 'a'), direct("refs/heads/main2", 'b'), direct("refs/tags/v1", 'c')];
        let choose = |text: &str| Reference::parse(Some(text)).unwrap().choose(&refs);
        assert_eq!(choose("main").unwrap(), id('a'));
        assert_eq!(choose("v1").unwrap(), id('c'));
        assert_eq!(choose("refs/heads/main2").unwrap(), id('b'));
        assert_eq!(choose(&"d".repeat(40)).unwrap(), id('d'));
        assert!(
            choose("mai")
                .unwrap_err()
                .to_string()
                .ends_with("no branch or tag called as the ref of the Secret")
        );
        assert!(choose("refs/tags/main").is_err());
    }

    #[test]
    fn a_branch_and_a_tag_of_the_same_name_are_not_guessed_between() {
        let refs = [direct("refs/heads/v1", 'a'), direct("refs/tags/v1", 'b')];
        let why = Reference::parse(Some("v1")).unwrap().choose(&refs).unwrap_err().to_string();
        assert!(why.contains("refs/heads/ or refs/tags/") && !why.contains("v1"), "{why}");
    }

    #[test]
    fn of_an_annotated_tag_the_tag_itself_is_asked_for() {
        let tag = Ref::Peeled { full_ref_name: "refs/tags/v1".into(), tag: id('a'), object: id('b') };
        assert_eq!(Reference::parse(Some("v1")).unwrap().choose(&[tag]).unwrap(), id('a'));
    }

    #[test]
    fn a_path_is_made_plain() {
        for path in ["apps/web.yaml", "/apps/web.yaml", "./apps//web.yaml", "apps/./web.yaml"] {
            assert_eq!(FilePath::parse(path).unwrap().to_string(), "apps/web.yaml", "{path}");
        }
    }

    #[test]
    fn a_path_that_leaves_the_repository_or_names_no_file_is_refused() {
        for path in ["..", "../x", "a/../b", "a/..", "", "/", ".", "a/", "a\0b", "a\nb"] {
            assert!(matches!(FilePath::parse(path), Err(SourceError::Invalid(_))), "{path:?}");
        }
        assert!(FilePath::parse("a/..b/...").is_ok());
    }
}
