//! `ignorePaths` and `onlyPaths`: one grammar, one matcher, compiled once per guard.
//!
//! A path is a JSON Pointer from the object's root in which a segment may also be `*` (every
//! member) or `[field=value]` (the list items with that field). Paths are read against the object
//! as it is: indexes are those of the whole list, before anything is left out.
//!
//! The same matcher serves hash, decision, diff and restore, so that they cannot disagree about
//! what a guard pins. At most [`MAX_PATHS`] paths are allowed, which lets "the paths still in
//! play" be one machine word and a step cost no allocation.

use super::few::Few;

/// Most paths of one guard. The schema's bound, and the number of bits in [`Live`].
pub const MAX_PATHS: usize = 64;
/// Most characters of one path. The schema's bound.
pub const MAX_PATH_LENGTH: usize = 1024;

/// Why a path cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// More paths than a guard may have.
    #[error("{0} paths given, at most {MAX_PATHS} are allowed")]
    TooMany(usize),
    /// A path longer than the schema allows.
    #[error("a path has {0} characters, at most {MAX_PATH_LENGTH} are allowed")]
    TooLong(usize),
    /// Not a JSON Pointer.
    #[error("path {0:?} must start with `/`, for example `/data/key` or `/spec/replicas`")]
    NoLeadingSlash(String),
    /// `~` not followed by `0` or `1`.
    #[error("path {0:?}: `~` must be written `~0`, and `/` inside a key `~1`")]
    BadEscape(String),
}

/// One segment of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    /// The segment as a plain key, escapes undone.
    key: String,
    form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// A member of an object by name only.
    Key,
    /// A member of an object by name, or a list item by index.
    Index(usize),
    /// Every member and item.
    Star,
    /// List items whose `field` reads `value`; on an object a plain key.
    Select { field: String, value: String },
}

impl Segment {
    fn new(key: String) -> Self {
        let form = if key == "*" {
            Form::Star
        } else if let Some(index) = list_index(&key) {
            Form::Index(index)
        } else if let Some((field, value)) = selector(&key) {
            Form::Select { field: field.to_owned(), value: value.to_owned() }
        } else {
            Form::Key
        };
        Self { key, form }
    }
}

/// An index as RFC 6901 writes it: no sign, no leading zero.
fn list_index(text: &str) -> Option<usize> {
    let plain = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    if plain { text.parse().ok() } else { None }
}

fn selector(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('[')?.strip_suffix(']')?.split_once('=')
}

/// Compiled paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathSet {
    paths: Few<Vec<Segment>>,
}

/// Which paths have matched every step so far, one bit each, and how many steps that were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    bits: u64,
    depth: usize,
}

impl Live {
    /// Whether no path can match here or below any more.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.bits == 0
    }
}

/// One step down from a container.
#[derive(Clone, Copy)]
pub enum Step<'a> {
    /// To the member of an object; the key decoded.
    Member(&'a str),
    /// To a list item: its index, and a look-up of the text of one of its scalar fields.
    Item(usize, &'a dyn Fn(&str) -> Option<String>),
}

impl PathSet {
    /// Compiles paths.
    ///
    /// # Errors
    /// [`PathError`] naming the path that cannot be used.
    pub fn compile<S: AsRef<str>>(paths: &[S]) -> Result<Self, PathError> {
        if paths.len() > MAX_PATHS {
            return Err(PathError::TooMany(paths.len()));
        }
        let paths = paths.iter().map(|path| compile_one(path.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { paths })
    }

    /// Whether there is no path at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The state at the object's root.
    #[must_use]
    pub fn start(&self) -> Live {
        let bits = if self.paths.len() == MAX_PATHS { u64::MAX } else { (1 << self.paths.len()) - 1 };
        Live { bits, depth: 0 }
    }

    /// Goes one step down. The flag tells whether a whole path has matched, so that the place
    /// stepped to and everything under it is meant.
    #[must_use]
    pub fn step(&self, live: Live, step: Step<'_>) -> (Live, bool) {
        let mut next = Live { bits: 0, depth: live.depth + 1 };
        let mut hit = false;
        let mut rest = live.bits;
        while rest != 0 {
            let index = rest.trailing_zeros() as usize;
            rest &= rest - 1;
            let path = &self.paths[index];
            let Some(segment) = path.get(live.depth) else { continue };
            if !segment_matches(segment, step) {
                continue;
            }
            if path.len() == live.depth + 1 {
                hit = true;
            } else {
                next.bits |= 1 << index;
            }
        }
        (next, hit)
    }
}

fn compile_one(path: &str) -> Result<Vec<Segment>, PathError> {
    let length = path.chars().count();
    if length > MAX_PATH_LENGTH {
        return Err(PathError::TooLong(length));
    }
    let rest = path.strip_prefix('/').ok_or_else(|| PathError::NoLeadingSlash(path.to_owned()))?;
    rest.split('/')
        .map(|raw| unescape(raw).map(Segment::new).ok_or_else(|| PathError::BadEscape(path.to_owned())))
        .collect()
}

fn unescape(raw: &str) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut characters = raw.chars();
    while let Some(character) = characters.next() {
        out.push(match character {
            '~' => match characters.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

fn segment_matches(segment: &Segment, step: Step<'_>) -> bool {
    match (step, &segment.form) {
        (_, Form::Star) => true,
        (Step::Member(key), _) => segment.key == key,
        (Step::Item(at, _), Form::Index(index)) => at == *index,
        (Step::Item(_, field_text), Form::Select { field, value }) => {
            field_text(field).is_some_and(|text| text == *value)
        }
        (Step::Item(..), Form::Key) => false,
    }
}

/// Which part of what a kind pins is really pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PathFilter {
    /// All of it.
    #[default]
    Everything,
    /// All but what lies on or under these paths.
    Ignore(PathSet),
    /// Only what lies on or under these paths; containers left empty are dropped.
    Only(PathSet),
}

impl PathFilter {
    /// Nothing is left out.
    #[must_use]
    pub fn everything() -> Self {
        Self::Everything
    }

    /// Leaves out what lies on or under `paths`.
    ///
    /// # Errors
    /// [`PathError`] naming the path that cannot be used.
    pub fn ignoring<S: AsRef<str>>(paths: &[S]) -> Result<Self, PathError> {
        let set = PathSet::compile(paths)?;
        Ok(if set.is_empty() { Self::Everything } else { Self::Ignore(set) })
    }

    /// Keeps only what lies on or under `paths`. No path at all keeps everything, as an absent
    /// `onlyPaths` does.
    ///
    /// # Errors
    /// [`PathError`] naming the path that cannot be used.
    pub fn only<S: AsRef<str>>(paths: &[S]) -> Result<Self, PathError> {
        let set = PathSet::compile(paths)?;
        Ok(if set.is_empty() { Self::Everything } else { Self::Only(set) })
    }

    /// The position of this filter at the object's root.
    #[must_use]
    pub fn root(&self) -> Position {
        match self {
            Self::Everything => Position::Inside,
            Self::Ignore(set) | Self::Only(set) => Position::Between(set.start()),
        }
    }

    /// Whether nothing can be left but what lies in these top-level fields.
    #[must_use]
    pub fn lies_within(&self, fields: &[&str]) -> bool {
        let within = |path: &Vec<Segment>| {
            path.first().is_some_and(|first| first.form != Form::Star && fields.contains(&first.key.as_str()))
        };
        matches!(self, Self::Only(set) if set.paths.iter().all(within))
    }

    /// A filter for each path of [`Self::Only`], in their order.
    pub fn each_only(&self) -> impl Iterator<Item = Self> {
        let paths: &[Vec<Segment>] = if let Self::Only(set) = self { &set.paths } else { &[] };
        paths.iter().map(|path| Self::Only(PathSet { paths: [path.clone()].into_iter().collect() }))
    }

    /// The position after one step down.
    #[must_use]
    pub fn descend(&self, position: Position, step: Step<'_>) -> Position {
        let Position::Between(live) = position else { return position };
        match self {
            Self::Everything => Position::Inside,
            Self::Ignore(set) => match set.step(live, step) {
                (_, true) => Position::Outside,
                (next, false) if next.is_empty() => Position::Inside,
                (next, false) => Position::Between(next),
            },
            Self::Only(set) => match set.step(live, step) {
                (_, true) => Position::Inside,
                (next, false) if next.is_empty() => Position::Outside,
                (next, false) => Position::Between(next),
            },
        }
    }

    /// Whether a place whose position is still undecided belongs to the scope by itself: yes when
    /// ignoring (only parts of it may be left out), no with `only` (something under it must match).
    #[must_use]
    pub fn keeps_undecided(&self) -> bool {
        !matches!(self, Self::Only(_))
    }
}

/// Where a place stands to the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// It and all under it is scope.
    Inside,
    /// It and all under it is not scope.
    Outside,
    /// What lies under it decides.
    Between(Live),
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn walk(filter: &PathFilter, keys: &[&str]) -> Position {
        keys.iter().fold(filter.root(), |position, key| filter.descend(position, Step::Member(key)))
    }

    #[test]
    fn an_ignored_path_takes_what_lies_under_it_along() {
        let filter = PathFilter::ignoring(&["/spec/a"]).unwrap();
        assert_eq!(walk(&filter, &["spec", "a"]), Position::Outside);
        assert_eq!(walk(&filter, &["spec", "a", "deep"]), Position::Outside);
        assert_eq!(walk(&filter, &["spec", "b"]), Position::Inside);
        assert_eq!(walk(&filter, &["status"]), Position::Inside);
    }

    #[test]
    fn an_only_path_brings_what_lies_under_it_along() {
        let filter = PathFilter::only(&["/spec/a"]).unwrap();
        assert_eq!(walk(&filter, &["spec", "a", "deep"]), Position::Inside);
        assert_eq!(walk(&filter, &["spec", "b"]), Position::Outside);
        assert!(matches!(walk(&filter, &["spec"]), Position::Between(_)));
    }

    #[test]
    fn escapes_stars_indexes_and_selectors_are_read() {
        let set = PathSet::compile(&["/a~1b/~0", "/*/x", "/l/1", "/l/[name=app]/image"]).unwrap();
        let (live, hit) = set.step(set.start(), Step::Member("a/b"));
        assert!(!hit);
        assert!(set.step(live, Step::Member("~")).1);
        assert!(set.step(live, Step::Member("x")).1, "a star matches any key");
        let (list, _) = set.step(set.start(), Step::Member("l"));
        let name = |field: &str| (field == "name").then(|| "app".to_owned());
        assert!(set.step(list, Step::Item(1, &|_| None)).1);
        let (item, hit) = set.step(list, Step::Item(0, &name));
        assert!(!hit);
        assert!(set.step(item, Step::Member("image")).1);
    }

    #[test]
    fn sixty_four_paths_fit_and_one_more_does_not() {
        let many: Vec<String> = (0..64).map(|n| format!("/data/k{n}")).collect();
        let filter = PathFilter::ignoring(&many).unwrap();
        assert_eq!(walk(&filter, &["data", "k63"]), Position::Outside);
        let more: Vec<String> = (0..65).map(|n| format!("/data/k{n}")).collect();
        assert_eq!(PathFilter::ignoring(&more), Err(PathError::TooMany(65)));
    }

    #[test]
    fn a_path_that_is_no_pointer_is_refused_with_its_text() {
        assert!(matches!(PathFilter::only(&["data"]), Err(PathError::NoLeadingSlash(_))));
        assert!(matches!(PathFilter::only(&["/a~2"]), Err(PathError::BadEscape(_))));
        assert!(matches!(PathFilter::only(&["/a~"]), Err(PathError::BadEscape(_))));
        assert!(matches!(PathFilter::only(&["/".repeat(1025)]), Err(PathError::TooLong(1025))));
    }
}
