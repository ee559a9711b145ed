//! Modules beside each other import one way: of two that import each other, neither can be read or changed
//! without the other.

use std::collections::BTreeSet;
use std::path::Path;

use crate::layering::{code, sources};

/// A module by its path from `src`, such as `core`, `registration`, `entry`.
type Module = Vec<String>;

fn module_of(file: &Path) -> Module {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let path = file.strip_prefix(src).unwrap().with_extension("");
    path.iter().map(|name| name.to_str().unwrap().to_owned()).filter(|name| name != "mod").collect()
}

/// Every path that starts with `super` or `crate`, with groups in braces written out.
fn paths(code: &str) -> Vec<Vec<String>> {
    let dense: String = code.split_whitespace().collect();
    let starts = ["super::", "crate::"].map(|start| dense.match_indices(start)).into_iter().flatten();
    let mut found = Vec::new();
    for (at, _) in starts.filter(|(at, _)| !dense[..*at].ends_with("super::")) {
        read(&dense[at..], &[], &mut found);
    }
    found
}

/// Reads the path that `text` starts with, and gives what follows it.
fn read<'t>(text: &'t str, before: &[String], found: &mut Vec<Vec<String>>) -> &'t str {
    let mut path = before.to_vec();
    let mut rest = text;
    loop {
        let end = rest.find(|char: char| !char.is_alphanumeric() && char != '_').unwrap_or(rest.len());
        path.push(rest[..end].to_owned());
        let Some(next) = rest[end..].strip_prefix("::") else {
            found.push(path);
            return &rest[end..];
        };
        rest = next;
        if let Some(group) = next.strip_prefix('{') {
            rest = group;
            while !rest.starts_with('}') {
                rest = read(rest, &path, found);
                rest = &rest[rest.find([',', '}']).expect("a group that ends")..];
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
            return &rest[1..];
        }
    }
}

/// The module that a path in `module` leads to, as far as it leads through modules.
fn resolve(module: &Module, path: &[String], known: &BTreeSet<Module>) -> Module {
    let up = path.iter().take_while(|name| *name == "super").count();
    let (mut target, names) = if up == 0 {
        (Module::new(), &path[1..])
    } else {
        (module[..module.len().saturating_sub(up)].to_vec(), &path[up..])
    };
    for name in names {
        target.push(name.clone());
        if !known.contains(&target) {
            target.pop();
            break;
        }
    }
    target
}

/// Which of two modules beside each other one path leads from and to, if it does.
fn between(from: &Module, to: &Module) -> Option<(Module, Module)> {
    let shared = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    (shared < from.len() && shared < to.len()).then(|| (from[..=shared].to_vec(), to[..=shared].to_vec()))
}

/// The imports of each module from one beside it.
fn imports(files: &[(Module, String)]) -> BTreeSet<(Module, Module)> {
    let known: BTreeSet<Module> = files.iter().map(|(module, _)| module.clone()).collect();
    let of = |(module, code): &(Module, String)| {
        let targets = paths(code).into_iter().map(|path| resolve(module, &path, &known));
        targets.filter_map(|target| between(module, &target)).collect::<Vec<_>>()
    };
    files.iter().flat_map(of).collect()
}

/// Pairs that import each other, as text.
fn circles(imports: &BTreeSet<(Module, Module)>) -> Vec<String> {
    let mutual = |(from, to): &&(Module, Module)| from < to && imports.contains(&(to.clone(), from.clone()));
    let named = |(from, to): &(Module, Module)| format!("{} and {}", from.join("::"), to.join("::"));
    imports.iter().filter(mutual).map(named).collect()
}

#[test]
fn no_two_modules_of_the_core_or_of_the_controller_import_each_other() {
    for folder in ["core", "control"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
        let is_test = |module: &Module| module.iter().any(|name| name.ends_with("tests"));
        let files: Vec<(Module, String)> = sources(&root)
            .iter()
            .map(|file| (module_of(file), code(file)))
            .filter(|(module, _)| !is_test(module))
            .collect();
        let imports = imports(&files);
        assert!(imports.len() > 20, "the imports of src/{folder} are not found any more");
        let circles = circles(&imports);
        assert!(
            circles.is_empty(),
            "{circles:?} import each other: move what both need to where both may look"
        );
    }
}

#[test]
fn a_circle_is_found_however_its_imports_are_written() {
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
    let found = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(path, code)| (module(path), (*code).to_owned())).collect();
        circles(&imports(&files))
    };
    let both = [("core", ""), ("core::a", "use super::b::{self, B};"), ("core::b", "")];
    assert_eq!(found(&both), [""; 0]);
    for back in [
        "use super::{c::*, a::{A, Other}};",
        "fn f() { crate::core::a::go(); }",
        "use crate::{api, core::a};",
    ] {
        assert_eq!(found(&[both[0], both[1], ("core::b", back)]), ["core::a and core::b"], "{back}");
    }
    let below = [both[0], both[1], both[2], ("core::b::part", "use super::super::a::A;")];
    assert_eq!(found(&below), ["core::a and core::b"], "what is within a module is of it");
    let parent = [("core::a", "use super::a::part::P;"), ("core::a::part", "use super::A;")];
    assert_eq!(found(&parent), [""; 0], "a module and its parts are one");
}
