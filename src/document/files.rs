//! From the arguments of `-f` to documents: files, directories, standard input.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::{DocumentError, Problem};
use super::kustomize::{self, Kustomization};
use super::split::Stretch;
use super::yaml::Limits;
use super::{Document, Head, lists, split};

/// Extensions looked for in directories, as in kubectl.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// How messages call standard input.
const STDIN: &str = "standard input";

/// Reads every document of these files, directories (searched in depth, in the order of names) and
/// `-` for `stdin`.
///
/// # Errors
/// [`DocumentError`] for the first file or document that cannot be used.
pub fn read<S: AsRef<str>>(names: &[S], stdin: &mut impl Read) -> Result<Vec<Document>, DocumentError> {
    let mut documents = Vec::new();
    let mut stdin_taken = false;
    for name in names.iter().map(AsRef::as_ref) {
        if name == "-" {
            if std::mem::replace(&mut stdin_taken, true) {
                return Err(DocumentError::of_file(STDIN, Problem::StdinTwice));
            }
            let mut bytes = Vec::new();
            stdin.read_to_end(&mut bytes).map_err(|error| DocumentError::of_file(STDIN, error.into()))?;
            read_text(STDIN, &bytes, &mut documents)?;
        } else if name.starts_with("http://") || name.starts_with("https://") {
            return Err(DocumentError::of_file(name, Problem::Url));
        } else {
            read_path(Path::new(name), &mut documents)?;
        }
    }
    Ok(documents)
}

fn read_path(path: &Path, documents: &mut Vec<Document>) -> Result<(), DocumentError> {
    let fail = |problem| DocumentError::of_file(&path.display().to_string(), problem);
    if !fs::metadata(path).map_err(|error| fail(error.into()))?.is_dir() {
        return read_file(path, documents);
    }
    let Found { mut files, kustomizations } = find(path)?;
    // One that cannot be read is kustomize's to tell of: here it only says what is left out.
    let kustomizations = kustomizations.iter().filter_map(|path| Kustomization::read(path).ok());
    let parts: HashSet<PathBuf> = kustomizations.flat_map(|one| one.parts()).collect();
    files.retain(|file| !fs::canonicalize(file).is_ok_and(|real| parts.contains(&real)));
    if files.is_empty() {
        return Err(fail(Problem::EmptyDirectory));
    }
    files.iter().try_for_each(|file| read_file(file, documents))
}

/// Files with our extensions under a directory, and beside them the kustomizations, which are no objects of any
/// cluster. As in kubectl, links to directories are not followed, so there is no way round in circles.
fn find_files(root: &Path) -> Result<Found, DocumentError> {
    let mut found = Found { files: Vec::new(), kustomizations: Vec::new() };
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        let fail =
            |error: std::io::Error| DocumentError::of_file(&directory.display().to_string(), error.into());
        for entry in fs::read_dir(&directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let kind = entry.file_type().map_err(fail)?;
            let path = entry.path();
            let is_ours = path.extension().is_some_and(|ext| EXTENSIONS.iter().any(|known| ext == *known));
            let is_file = !(kind.is_symlink() && path.is_dir());
            if kind.is_dir() {
                waiting.push(path);
            } else if is_file && kustomize::is_kustomization(&path) {
                found.kustomizations.push(path);
            } else if is_file && is_ours {
                found.files.push(path);
            }
        }
    }
    found.files.sort();
    found.kustomizations.sort();
    Ok(found)
}

fn read_file(path: &Path, documents: &mut Vec<Document>) -> Result<(), DocumentError> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| DocumentError::of_file(&name, error.into()))?;
    read_text(&name, &bytes, documents)
}

fn read_text(name: &str, bytes: &[u8], documents: &mut Vec<Document>) -> Result<(), DocumentError> {
    let text = decode(bytes).ok_or_else(|| DocumentError::of_file(name, Problem::Encoding))?;
    for Stretch { origin, json, .. } in split::documents(name, &text, Limits::NONE)? {
        for item in lists::items(json, &origin)? {
            documents.push(Document::from_item(item, origin.clone())?);
        }
    }
    Ok(())
}

/// The objects of a text. What lacks a version, a kind or a name is left out, such as values of a chart and
/// objects whose name the API server makes up, but for objects that must have a name, by version and kind. `name`
/// stands for the file in messages.
///
/// # Errors
/// [`DocumentError`] when the text is no YAML or JSON, a document of it no mapping, a name of one no text, or one
/// that must have a name has none.
pub fn objects(
    name: &str,
    text: &str,
    must_be_named: impl Fn(&str, &str) -> bool,
) -> Result<Vec<Document>, DocumentError> {
    let mut found = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for Stretch { origin, json, .. } in split::documents(name, text, Limits::NONE)? {
        for item in lists::items(json, &origin)? {
            let is_ours = Head::read(&item.json).is_ok_and(|Head { api_version, kind, .. }| {
                api_version.zip(kind).is_some_and(|(version, kind)| must_be_named(&version, &kind))
            });
            match Document::from_item(item, origin.clone()) {
                Err(DocumentError { problem: Problem::Missing(_), .. }) if !is_ours => {}
                document => found.push(document?),
            }
        }
    }
    Ok(found)
}

/// The documents of a text as JSON, whatever they are; none when the text cannot be read.
#[must_use]
pub fn values(text: &str) -> Vec<Vec<u8>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let found = split::documents("", text, Limits::NONE).unwrap_or_default();
    found.into_iter().map(|stretch| stretch.json).collect()
}

/// What there is of a path.
#[derive(Debug)]
pub struct Found {
    /// The path itself, or the files of a folder.
    pub files: Vec<PathBuf>,
    /// The kustomizations of a folder, and those above.
    pub kustomizations: Vec<PathBuf>,
}

/// Looks what there is of a path.
///
/// # Errors
/// [`DocumentError`] when there is no such file or a folder cannot be read.
pub fn find(path: &Path) -> Result<Found, DocumentError> {
    let fail = |error: std::io::Error| DocumentError::of_file(&path.display().to_string(), error.into());
    let mut found = if fs::metadata(path).map_err(fail)?.is_dir() {
        find_files(path)?
    } else {
        Found { files: vec![path.to_owned()], kustomizations: Vec::new() }
    };
    found.kustomizations.extend(kustomize::above(path));
    Ok(found)
}

/// The documents of a text as JSON, whatever they are: manifests, with lists expanded, or other objects.
/// `name` stands for the file in messages. What they may cost is bounded, since anybody may have written them.
///
/// # Errors
/// [`DocumentError`] when one of them cannot be read, or is no object.
pub fn contents(name: &str, bytes: &[u8]) -> Result<Vec<Vec<u8>>, DocumentError> {
    let text = decode(bytes).ok_or_else(|| DocumentError::of_file(name, Problem::Encoding))?;
    let mut found = Vec::new();
    for Stretch { origin, json, .. } in split::documents(name, &text, Limits::SOURCE)? {
        let head = Head::read(&json).map_err(|error| DocumentError::at(&origin, error.into()))?;
        // Without a version it is no list, however its other fields are called.
        if head.api_version.is_some() {
            found.extend(lists::items(json, &origin)?.into_iter().map(|item| item.json));
        } else {
            found.push(json);
        }
    }
    Ok(found)
}

/// UTF-8, or UTF-16 when a byte-order mark says so, as Windows tools write it.
fn decode(bytes: &[u8]) -> Option<String> {
    let wide = |rest: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = rest.chunks_exact(2);
        if !units.remainder().is_empty() {
            return None;
        }
        let units = units.map(|pair| unit([pair[0], pair[1]]));
        char::decode_utf16(units).collect::<Result<String, _>>().ok()
    };
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        _ => String::from_utf8(bytes.to_vec()).ok(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    fn named(name: &str) -> String {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n")
    }

    fn names(documents: &[Document]) -> Vec<&str> {
        documents.iter().map(|document| document.name.as_str()).collect()
    }

    #[test]
    fn a_directory_is_searched_in_depth_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("b")).unwrap();
        for (file, name) in [("c.json", "c"), ("a.yaml", "a"), ("b/x.yml", "bx"), ("b/notes.txt", "no")] {
            fs::write(dir.path().join(file), named(name)).unwrap();
        }
        let root = dir.path().to_str().unwrap();
        assert_eq!(names(&read(&[root], &mut std::io::empty()).unwrap()), ["a", "bx", "c"]);
    }

    #[test]
    fn what_a_source_holds_is_bounded_and_what_a_user_names_is_not() {
        let problem = |text: &str| contents("it", text.as_bytes()).unwrap_err().problem;
        let nodes = format!("a: [{}1]\n", "1,".repeat(200_000));
        assert!(matches!(problem(&nodes), Problem::TooManyNodes(200_000)));
        let long = format!("a: {}\n", "x".repeat(2 << 20));
        assert!(matches!(problem(&long), Problem::YamlTooLong(_)));
        let json = format!("{{\"a\": \"{}\"}}", "x".repeat(3 << 20));
        assert_eq!(contents("it", json.as_bytes()).unwrap(), [json.as_bytes()]);
        // Nine million bytes of aliases in each of three documents.
        let blown = format!("a: &a {}\nb: [{}]\n---\n", "x".repeat(100_000), "*a,".repeat(90));
        assert!(matches!(problem(&blown.repeat(3)), Problem::ExcessiveAliasing));
        let named = format!("{}data: {{b: [{}1]}}\n", named("a"), "1,".repeat(200_000));
        assert_eq!(names(&read(&["-"], &mut named.as_bytes()).unwrap()), ["a"]);
    }

    #[test]
    fn what_kustomize_reads_itself_is_left_out_of_a_directory_and_not_when_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let kustomization = folder.path().join("kustomization.yaml");
        std::fs::write(&kustomization, "resources: [a.yaml]\npatches: [{path: p.yaml}, {path: l.yaml}]\n")
            .unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(file("a.yaml"), named("a")).unwrap();
        std::fs::write(file("p.yaml"), named("p")).unwrap();
        std::fs::write(file("l.yaml"), "- {op: remove, path: /data/x}\n").unwrap();
        let found = read(&[folder.path().to_str().unwrap()], &mut std::io::empty()).unwrap();
        assert_eq!(names(&found), ["a"]);
        assert!(read(&[kustomization.to_str().unwrap()], &mut std::io::empty()).is_err());
        assert_eq!(names(&read(&[file("p.yaml")], &mut std::io::empty()).unwrap()), ["p"]);
    }

    #[test]
    fn a_file_named_outright_needs_no_extension() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), named("a")).unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(names(&read(&[path], &mut std::io::empty()).unwrap()), ["a"]);
    }

    #[test]
    fn a_directory_without_manifests_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = read(&[dir.path().to_str().unwrap()], &mut std::io::empty()).unwrap_err();
        assert!(matches!(error.problem, Problem::EmptyDirectory), "{error}");
    }

    #[test]
    fn standard_input_is_read_once() {
        assert_eq!(names(&read(&["-"], &mut named("a").as_bytes()).unwrap()), ["a"]);
        let error = read(&["-", "-"], &mut named("a").as_bytes()).unwrap_err();
        assert!(matches!(error.problem, Problem::StdinTwice), "{error}");
    }

    #[test]
    fn a_missing_file_and_an_address_are_told_apart() {
        let error = read(&["no/such.yaml"], &mut std::io::empty()).unwrap_err().to_string();
        assert!(error.starts_with("no/such.yaml: cannot be read: No such file"), "{error}");
        let error = read(&["https://host/a.yaml"], &mut std::io::empty()).unwrap_err().to_string();
        assert!(error.contains("`-f -`"), "{error}");
    }

    #[test]
    fn byte_order_marks_tell_the_encoding() {
        let text = named("ä");
        let mut utf8 = vec![0xef, 0xbb, 0xbf];
        utf8.extend(text.bytes());
        let mut little = vec![0xff, 0xfe];
        little.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
        let mut big = vec![0xfe, 0xff];
        big.extend(text.encode_utf16().flat_map(u16::to_be_bytes));
        for bytes in [utf8, little, big] {
            assert_eq!(names(&read(&["-"], &mut bytes.as_slice()).unwrap()), ["ä"]);
        }
        for bytes in [&b"\xff\xfea"[..], b"a: \xe4"] {
            let error = read(&["-"], &mut &*bytes).unwrap_err();
            assert!(matches!(error.problem, Problem::Encoding), "{error}");
        }
    }
}
