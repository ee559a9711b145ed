//! Files that kustomize reads itself: kustomizations, and what they name beside objects, such as patches. These look
//! like objects and are parts of some.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::DocumentError;
use super::files;

/// What kustomizations are called.
const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
/// Fields of a kustomization that name objects, or folders of them. Whatever file another field names is no object.
const OBJECTS: [&str; 4] = ["resources", "bases", "components", "crds"];

/// A kustomization.
#[derive(Debug)]
pub struct Kustomization {
    /// Its file.
    pub path: PathBuf,
    /// Its content; null when there is none.
    pub value: Value,
}

impl Kustomization {
    /// Reads one.
    ///
    /// # Errors
    /// [`DocumentError`] when it cannot be read.
    pub fn read(path: &Path) -> Result<Self, DocumentError> {
        let name = path.display().to_string();
        let bytes = fs::read(path).map_err(|error| DocumentError::of_file(&name, error.into()))?;
        let contents = files::contents(&name, &bytes)?;
        let value = contents.first().and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
        Ok(Self { path: path.to_owned(), value })
    }

    /// The real paths of the files that it names as something else than objects.
    #[must_use]
    pub fn parts(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let fields = self.value.as_object().into_iter().flatten();
        let mut waiting: Vec<&Value> =
            fields.filter(|(field, _)| !OBJECTS.contains(&field.as_str())).map(|(_, value)| value).collect();
        while let Some(value) = waiting.pop() {
            match value {
                Value::Object(members) => waiting.extend(members.values()),
                Value::Array(items) => waiting.extend(items),
                Value::String(text) => found.extend(self.file(text)),
                _ => {}
            }
        }
        found
    }

    /// The real paths of the files and folders that it names as objects, and those that kustomizations in these folders
    /// name. What lies elsewhere, such as in a repository that kustomize fetches, is left out.
    #[must_use]
    pub fn objects(&self) -> HashSet<PathBuf> {
        let mut found = HashSet::new();
        let mut waiting = self.named_objects();
        while let Some(path) = waiting.pop() {
            let inner = NAMES.iter().map(|name| path.join(name)).find(|path| path.is_file());
            if found.insert(path) {
                // One that cannot be read is kustomize's to tell of.
                let inner = inner.and_then(|path| Self::read(&path).ok());
                waiting.extend(inner.iter().flat_map(Self::named_objects));
            }
        }
        found
    }

    fn named_objects(&self) -> Vec<PathBuf> {
        let names = OBJECTS.iter().filter_map(|field| self.value[*field].as_array()).flatten();
        names.filter_map(|name| fs::canonicalize(self.folder().join(name.as_str()?)).ok()).collect()
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The real path of a file that a field names, as `path` or, in generators, as `key=path`.
    #[must_use]
    pub fn file(&self, text: &str) -> Option<PathBuf> {
        if text.is_empty() || text.contains('\n') {
            return None;
        }
        let folder = self.folder();
        let names = [Some(text), text.split_once('=').map(|(_, path)| path)];
        let mut real =
            names.into_iter().flatten().filter_map(|name| fs::canonicalize(folder.join(name)).ok());
        real.find(|path| path.is_file())
    }
}

/// Whether a file is a kustomization, by its name.
pub(super) fn is_kustomization(path: &Path) -> bool {
    path.file_name().is_some_and(|name| NAMES.iter().any(|known| name == *known))
}

/// The kustomizations of the folders around a path, as far as the repository that it is in.
pub(super) fn above(path: &Path) -> Vec<PathBuf> {
    let Ok(real) = fs::canonicalize(path) else { return Vec::new() };
    let mut found = Vec::new();
    for folder in real.ancestors().skip(1) {
        found.extend(NAMES.map(|name| folder.join(name)).into_iter().filter(|path| path.is_file()));
        if folder.join(".git").exists() {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;

    #[test]
    fn what_a_kustomization_names_beside_objects_is_part_of_something() {
        let folder = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(folder.path()).unwrap();
        for name in ["object.yaml", "patch.yaml", "old.yaml", "file.json", "env.yaml", "how.yaml"] {
            fs::write(real.join(name), "").unwrap();
        }
        let path = real.join("Kustomization");
        fs::write(
            &path,
            "resources: [object.yaml]\npatches:\n- path: patch.yaml\n- patch: |\n    x: 1\npatchesStrategicMerge: [old.yaml]\nconfigMapGenerator:\n- {name: a, files: [key=file.json], envs: [env.yaml]}\ntransformers: [how.yaml, none.yaml]\n",
        )
        .unwrap();
        let mut parts = Kustomization::read(&path).unwrap().parts();
        parts.sort();
        let want = ["env.yaml", "file.json", "how.yaml", "old.yaml", "patch.yaml"];
        assert_eq!(parts, want.map(|name| real.join(name)));
        assert!(is_kustomization(&path) && !is_kustomization(&real.join("object.yaml")));
    }

    #[test]
    fn the_objects_of_a_kustomization_are_those_of_its_bases_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let write = |name: &str, text: &str| {
            fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            fs::write(root.join(name), text).unwrap();
        };
        write("prod/kustomization.yaml", "resources: [../base, own.yaml, https://x.io/y]\n");
        write("prod/own.yaml", "");
        write("prod/other.yaml", "");
        write("base/kustomization.yml", "bases: [../prod]\nresources: [b.yaml]\n");
        write("base/b.yaml", "");
        let found = Kustomization::read(&root.join("prod/kustomization.yaml")).unwrap().objects();
        let want = ["base", "base/b.yaml", "prod", "prod/own.yaml"].map(|name| root.join(name));
        assert_eq!(found, HashSet::from(want));
    }

    #[test]
    fn kustomizations_are_looked_for_up_to_the_repository() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        let deep = root.join("repo/prod/patches");
        fs::create_dir_all(&deep).unwrap();
        fs::create_dir(root.join("repo/.git")).unwrap();
        let at = ["kustomization.yaml", "repo/kustomization.yml", "repo/prod/Kustomization"];
        for name in at {
            fs::write(root.join(name), "").unwrap();
        }
        fs::write(deep.join("p.yaml"), "").unwrap();
        assert_eq!(above(&deep.join("p.yaml")), [root.join(at[2]), root.join(at[1])]);
    }
}
