//! Guards and objects of manifests, and which object a guard means.
//!
//! A guard may mean only what it surely means in the cluster too: of the kind and version that its `targetKind` stands
//! for there, and of several environments the object of its own.

use std::collections::HashMap;

use super::guard::Guard;
use super::{Manifests, folder, suffix};
use crate::api::names;
use crate::cli::subject::builtin;
use crate::core::kinds::{Catalog, KindEntry, ResolveError};
use crate::document::Document;

/// Most places that a message names.
const MAX_NAMED: usize = 3;

/// An object that a guard may mean.
pub(super) struct Object<'a> {
    pub(super) input: usize,
    pub(super) document: &'a Document,
    /// `None` for kinds without namespaces.
    pub(super) namespace: Option<String>,
}

/// The object that a guard means.
pub(super) struct Aim<'a> {
    pub(super) object: &'a Object<'a>,
    /// Whether its name is the guard's target name with a hash behind it.
    pub(super) is_renamed: bool,
}

/// What kinds stand for.
#[derive(Clone, Copy)]
pub(super) enum Kinds<'a> {
    /// As the API server says.
    Served(&'a Catalog),
    /// As far as it is certain without one.
    Certain(&'a Catalog),
}

impl Kinds<'_> {
    /// What a guard's kind stands for, or why that cannot be told.
    fn resolve(self, guard: &Guard) -> Result<KindEntry, String> {
        let version = guard.target_version.as_deref();
        let resolved = match (self, version) {
            // Who names the version has said all there is to say.
            (Self::Certain(_), Some(version)) => return Ok(builtin::entry(version, &guard.target_kind)),
            (Self::Certain(catalog) | Self::Served(catalog), _) => {
                catalog.resolve(&guard.target_kind, version)
            }
        };
        resolved.cloned().map_err(|error| match (self, error) {
            (Self::Certain(_), ResolveError::NotServed { kind, .. }) => format!(
                "which group and version of {kind} the cluster takes is not certain without it; set targetApiVersion, or \
                 ask it by --server"
            ),
            (_, error) => error.to_string(),
        })
    }

    fn is_namespaced(self, document: &Document) -> bool {
        let known = match self {
            Self::Served(catalog) => catalog.resolve(&document.kind, Some(&document.api_version)).ok(),
            Self::Certain(_) => None,
        };
        known.map_or_else(
            || builtin::is_namespaced(document.group(), &document.kind),
            |entry| entry.namespaced,
        )
    }
}

/// All manifests at once.
pub(super) struct Stream<'a> {
    manifests: &'a Manifests,
    kinds: Kinds<'a>,
    objects: Vec<Object<'a>>,
    guards: Vec<Guard>,
    /// Objects by name.
    named: HashMap<&'a str, Vec<usize>>,
    /// Objects by name without what looks like the hash that kustomize adds.
    suffixed: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Stream<'a> {
    /// Sorts the documents of all inputs; `namespace` is that of objects that name none.
    ///
    /// # Errors
    /// When a guard cannot be read.
    pub(super) fn of(manifests: &'a Manifests, kinds: Kinds<'a>, namespace: &str) -> anyhow::Result<Self> {
        let mut stream = Self {
            manifests,
            kinds,
            objects: Vec::new(),
            guards: Vec::new(),
            named: HashMap::new(),
            suffixed: HashMap::new(),
        };
        for (input, text) in manifests.inputs.iter().enumerate() {
            for document in &text.documents {
                if document.group() == names::GROUP && document.kind == "DriftGuard" {
                    stream.guards.push(Guard::read(input, document, namespace)?);
                    continue;
                }
                let at = stream.objects.len();
                stream.named.entry(&document.name).or_default().push(at);
                if let Some(stem) = suffix::stem(document) {
                    stream.suffixed.entry(stem).or_default().push(at);
                }
                let own = || document.namespace.clone().unwrap_or_else(|| namespace.to_owned());
                let namespace = kinds.is_namespaced(document).then(own);
                stream.objects.push(Object { input, document, namespace });
            }
        }
        Ok(stream)
    }

    pub(super) fn guards(&self) -> &[Guard] {
        &self.guards
    }

    /// Which object a guard means, or why that cannot be told.
    pub(super) fn aim(&self, guard: &Guard) -> Result<Aim<'_>, String> {
        let kind = self.kinds.resolve(guard)?;
        let target = if kind.namespaced {
            format!("{}/{}/{}", kind.kind, guard.target_namespace, guard.target_name)
        } else {
            format!("{}/{}", kind.kind, guard.target_name)
        };
        let fitting = |by: &HashMap<&str, Vec<usize>>| -> Vec<&Object<'_>> {
            let found = by.get(guard.target_name.as_str()).into_iter().flatten();
            found.map(|at| &self.objects[*at]).filter(|object| fits(guard, &kind, object)).collect()
        };
        let named = fitting(&self.named);
        let is_renamed = named.is_empty();
        let found = if is_renamed { fitting(&self.suffixed) } else { named };
        if found.is_empty() {
            return Err(format!("its target {target} is not among the manifests"));
        }
        let object = self.nearest(guard, &target, &found)?;
        let document = object.document;
        if is_renamed && !suffix::is_right(document) {
            return Err(format!(
                "there is no {target}, and {} does not end in the hash that kustomize makes of its content: another \
                 object, or one that was changed afterwards",
                document.name
            ));
        }
        if document.api_version != kind.api_version() {
            return Err(format!(
                "the cluster hashes {target} as {}, and it stands there as {}, which only the API server converts; write \
                 the manifest in that version, or set targetApiVersion",
                kind.api_version(),
                document.api_version
            ));
        }
        let path = self.manifests.inputs[object.input].path.as_deref();
        if let Some(patch) = self.manifests.patches.iter().find(|patch| patch.meets(document, path)) {
            return Err(format!(
                "{} changes {target}, so that the file alone is not what is applied; pipe `kustomize build` through \
                 `driftguard stamp`",
                patch.by.display()
            ));
        }
        Ok(Aim { object, is_renamed })
    }

    /// Of several objects of the same name, as for several environments, the one in the guard's file, else in its
    /// folder. What lies elsewhere may be of another environment: only when both name the same namespace it is meant.
    /// A file that was passed over may hold one that is nearer.
    fn nearest<'o>(
        &self,
        guard: &Guard,
        target: &str,
        found: &[&'o Object<'a>],
    ) -> Result<&'o Object<'a>, String> {
        let own = &self.manifests.inputs[guard.input];
        let inputs = &self.manifests.inputs;
        let is_inside = |object: &Object<'_>| object.input == guard.input;
        let is_beside = |object: &Object<'_>| inputs[object.input].folder == own.folder;
        let is_sure = |object: &Object<'_>| {
            object.namespace.is_none() || guard.names_namespace && object.document.namespace.is_some()
        };
        let passed_over = &self.manifests.passed_over;
        let select = |is_near: &dyn Fn(&Object<'_>) -> bool| -> Vec<&'o Object<'a>> {
            found.iter().copied().filter(|object| is_near(object)).collect()
        };
        let inside = select(&is_inside);
        if !inside.is_empty() {
            return only(target, &inside);
        }
        let (near, hidden) = match select(&is_beside) {
            beside if !beside.is_empty() => {
                let hidden = passed_over.iter().find(|path| folder(path) == own.folder);
                (beside, hidden)
            }
            _ => (select(&is_sure), passed_over.first()),
        };
        if near.is_empty() {
            return Err(format!(
                "{target} of another folder ({}) may be of another environment; name the namespace in both manifests",
                places(found)
            ));
        }
        match hidden {
            Some(path) => Err(format!(
                "{} was passed over, which may hold {target} as well; mend that file, or name those to stamp",
                path.display()
            )),
            None => only(target, &near),
        }
    }
}

/// Whether the kind, group and namespace that a guard means are this object's.
fn fits(guard: &Guard, kind: &KindEntry, object: &Object<'_>) -> bool {
    object.document.group() == kind.group
        && object.document.kind.eq_ignore_ascii_case(&kind.kind)
        && object.namespace.as_ref().is_none_or(|namespace| *namespace == guard.target_namespace)
}

fn only<'o, 'a>(target: &str, near: &[&'o Object<'a>]) -> Result<&'o Object<'a>, String> {
    match near {
        [object] => Ok(*object),
        _ => Err(format!("there are {} objects {target}, equally near: {}", near.len(), places(near))),
    }
}

fn places(objects: &[&Object<'_>]) -> String {
    let places: Vec<String> =
        objects.iter().take(MAX_NAMED).map(|object| object.document.origin.to_string()).collect();
    places.join("; ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use crate::cli::stamp::Input;

    fn input(path: &str, text: &str) -> Input {
        let path = std::path::PathBuf::from(path);
        Input::read(path.to_str().unwrap(), Some(path.clone()), text.into()).unwrap()
    }

    fn of(inputs: impl IntoIterator<Item = Input>) -> Manifests {
        Manifests { inputs: inputs.into_iter().collect(), ..Manifests::default() }
    }

    fn guard(name: &str, kind: &str) -> String {
        format!(
            "---\napiVersion: terrafusion.ai/v1\nkind: DriftGuard\nmetadata: {{name: g}}\nspec: {{targetKind: {kind}, targetName: {name}, expectedHash: ''}}\n"
        )
    }

    fn object(name: &str, kind: &str, namespace: &str) -> String {
        format!("---\napiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n")
    }

    /// File and name of what the first guard means.
    fn meant(manifests: &Manifests) -> Result<(String, String), String> {
        let catalog = builtin::catalog();
        let stream = Stream::of(manifests, Kinds::Certain(&catalog), "ns").unwrap();
        let aim = stream.aim(&stream.guards()[0])?;
        Ok((aim.object.document.origin.file.clone(), aim.object.document.name.clone()))
    }

    #[test]
    fn the_plain_name_wins_over_one_with_a_hash_behind_it() {
        // Without data, as the object is made here.
        let (plain, hashed) = (object("s", "ConfigMap", "ns"), object("s-6ct58987ht", "ConfigMap", "ns"));
        let text = |parts: &[&str]| of([input("f.yaml", &parts.concat())]);
        let guard = guard("s", "configmap");
        assert_eq!(meant(&text(&[&guard, &hashed, &plain])).unwrap().1, "s");
        assert_eq!(meant(&text(&[&guard, &hashed])).unwrap().1, "s-6ct58987ht");
        assert!(meant(&text(&[&guard, &hashed, &hashed])).unwrap_err().contains("2 objects"));
        let error = meant(&text(&[&guard, &object("s-mmtbfcgdhk", "ConfigMap", "ns")])).unwrap_err();
        assert!(error.contains("s-mmtbfcgdhk does not end in the hash"), "{error}");
        let fees = guard.replace("configmap", "GAMAConfig");
        let other = object("s-6ct58987ht", "GAMAConfig", "ns").replace("v1", "terrafusion.ai/v1");
        assert!(meant(&text(&[&fees, &other])).unwrap_err().ends_with("not among the manifests"));
    }

    #[test]
    fn other_kinds_namespaces_and_groups_are_other_objects() {
        let text = object("s", "Secret", "ns") + &object("s", "ConfigMap", "other");
        let custom = "---\napiVersion: x.io/v1\nkind: ConfigMap\nmetadata: {name: s, namespace: ns}\n";
        let inputs = of([input("f.yaml", &(guard("s", "ConfigMap") + &text + custom))]);
        assert_eq!(meant(&inputs).unwrap_err(), "its target ConfigMap/ns/s is not among the manifests");
    }

    #[test]
    fn a_kind_means_what_it_means_in_the_cluster() {
        let text = |guard: String, kind: &str, version: &str| {
            of([input("f.yaml", &(guard + &object("s", kind, "ns").replace("v1", version)))])
        };
        let found = |kind: &str, version: &str| meant(&text(guard("s", kind), kind, version));
        assert_eq!(
            found("Service", "serving.knative.dev/v1").unwrap_err(),
            "its target Service/ns/s is not among the manifests"
        );
        let error = found("HorizontalPodAutoscaler", "autoscaling/v1").unwrap_err();
        assert!(error.contains("as autoscaling/v2, and it stands there as autoscaling/v1"), "{error}");
        let error = found("Widget", "x.io/v1").unwrap_err();
        assert!(error.contains("set targetApiVersion"), "{error}");
        assert!(found("Deployment", "apps/v1").is_ok());
        let named = |version: &str| {
            guard("s", "Widget").replace("targetKind", &format!("targetApiVersion: {version}, targetKind"))
        };
        assert!(meant(&text(named("x.io/v1"), "Widget", "x.io/v1")).is_ok());
        let error = meant(&text(named("x.io/v2"), "Widget", "x.io/v1")).unwrap_err();
        assert!(error.contains("as x.io/v2, and it stands there as x.io/v1"), "{error}");
    }

    #[test]
    fn of_several_environments_the_one_beside_the_guard_is_meant() {
        let settings = object("s", "ConfigMap", "ns");
        let guard = guard("s", "ConfigMap");
        let beside = of([
            input("prod/g.yaml", &guard),
            input("dev/s.yaml", &settings),
            input("prod/s.yaml", &settings),
        ]);
        assert_eq!(meant(&beside).unwrap().0, "prod/s.yaml");
        let guard = guard.replace("{name: g}", "{name: g, namespace: ns}");
        let far =
            of([input("g.yaml", &guard), input("dev/s.yaml", &settings), input("prod/s.yaml", &settings)]);
        assert!(meant(&far).unwrap_err().contains("equally near: dev/s.yaml: document 1"));
    }

    #[test]
    fn an_object_elsewhere_is_meant_only_where_both_name_its_namespace() {
        let (guard, settings) = (guard("s", "ConfigMap"), object("s", "ConfigMap", "ns"));
        let named = guard.replace("{name: g}", "{name: g, namespace: ns}");
        let plain = settings.replace(", namespace: ns", "");
        let found =
            |guard: &str, settings: &str| meant(&of([input("a/g.yaml", guard), input("b/s.yaml", settings)]));
        assert_eq!(found(&named, &settings).unwrap().0, "b/s.yaml");
        for (guard, settings) in [(&guard, &settings), (&named, &plain), (&guard, &plain)] {
            let error = found(guard, settings).unwrap_err();
            assert!(error.contains("of another folder (b/s.yaml: document 1"), "{error}");
        }
        let target = guard.replace("spec: {", "spec: {targetNamespace: ns, ");
        assert!(found(&target, &settings).is_ok());
        assert!(meant(&of([input("a/g.yaml", &guard), input("a/s.yaml", &plain)])).is_ok(), "one folder");
        assert!(meant(&of([input("a/g.yaml", &(guard + &plain))])).is_ok(), "one file");
    }

    #[test]
    fn a_file_that_was_passed_over_may_hold_the_target() {
        let guard = guard("s", "ConfigMap").replace("{name: g}", "{name: g, namespace: ns}");
        let settings = object("s", "ConfigMap", "ns");
        let found = |at: &str, passed_over: &str| {
            let inputs = of([input("prod/g.yaml", &guard), input(at, &settings)]);
            meant(&Manifests { passed_over: vec![passed_over.into()], ..inputs })
        };
        let error = found("dev/s.yaml", "prod/s.yaml").unwrap_err();
        assert!(error.starts_with("prod/s.yaml was passed over"), "{error}");
        assert!(found("dev/s.yaml", "chart/s.yaml").is_err());
        assert!(found("prod/s.yaml", "prod/broken.yaml").is_err());
        assert_eq!(found("prod/s.yaml", "chart/s.yaml").unwrap().0, "prod/s.yaml");
    }

    #[test]
    fn a_target_that_is_patched_is_not_what_its_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("kustomization.yaml", "patches: [{path: p.yaml}]\n");
        write("p.yaml", &object("s", "ConfigMap", "ns"));
        write("f.yaml", &(guard("s", "ConfigMap") + &object("s", "ConfigMap", "ns")));
        let error =
            meant(&super::super::overlay::files(&[folder.path().to_owned()], true).unwrap()).unwrap_err();
        assert!(error.contains("kustomization.yaml changes ConfigMap/ns/s"), "{error}");
    }

    #[test]
    fn what_a_kustomization_makes_by_other_means_than_patches_is_not_what_its_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("f.yaml", &(guard("s", "ConfigMap") + &object("s", "ConfigMap", "ns")));
        write("one", "source: {kind: X}\ntargets: [{select: {name: s}}]\n");
        write("maps", "# all\n- {source: {kind: X}, targets: [{select: {kind: ConfigMap}}]}\n");
        write("jobs", "---\n- {source: {kind: X}, targets: [{select: {kind: Job}}]}\n");
        let found = |text: &str| {
            write("kustomization.yaml", &format!("resources: [f.yaml]\n{text}\n"));
            meant(&super::super::overlay::files(&[folder.path().to_owned()], true).unwrap())
        };
        for text in [
            "replacements: [{source: {kind: X}, targets: [{select: {kind: ConfigMap, name: s}, fieldPaths: [data.a]}]}]",
            "replacements: [{path: maps}]",
            "replacements: [{path: one}]",
            "replacements: [{path: absent}]",
            "configMapGenerator: [{name: s, behavior: merge, literals: [a=2]}]",
            "configMapGenerator: [{name: s, behavior: replace, literals: [a=2]}]",
            "namePrefix: prod-",
            "nameSuffix: -x",
            "components: [elsewhere]",
            "transformers: [none.yaml]",
        ] {
            let error = found(text).err().unwrap_or_default();
            assert!(error.contains("kustomization.yaml changes ConfigMap/ns/s"), "{text}: {error}");
        }
        for text in [
            "replacements: [{source: {kind: ConfigMap, name: s}, targets: [{select: {kind: Job, name: s}}]}]",
            "replacements: [{path: jobs}]",
            "secretGenerator: [{name: s, behavior: merge, literals: [a=2]}]",
            "configMapGenerator: [{name: t, behavior: merge, literals: [a=2]}, {name: u, literals: [a=2]}]",
            "images: [{name: s, newTag: '2'}]\nreplicas: [{name: s, count: 2}]\nnamePrefix: ''\ntransformers: []",
        ] {
            assert!(found(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn images_and_replicas_of_a_kustomization_change_the_workloads_that_they_name() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let web = object("web", "Deployment", "ns").replace("v1", "apps/v1")
            + "spec: {template: {spec: {containers: [{name: app, image: 'x.io/app:1'}]}}}\n";
        write("f.yaml", &(guard("web", "Deployment") + &web));
        let found = |text: &str| {
            write("kustomization.yaml", &format!("resources: [f.yaml]\n{text}\n"));
            meant(&super::super::overlay::files(&[folder.path().to_owned()], true).unwrap())
        };
        for text in [
            "images: [{name: x.io/app, newTag: '2'}]",
            "images: [{name: 'x.io/.*', newTag: '2'}]",
            "images: [{name: other, newTag: '2'}]\nconfigurations: [c.yaml]",
            "replicas: [{name: web, count: 2}]",
        ] {
            let error = found(text).err().unwrap_or_default();
            assert!(error.contains("kustomization.yaml changes Deployment/ns/web"), "{text}: {error}");
        }
        for text in
            ["images: [{name: app}, {name: x.io/ap}, {name: web}]", "replicas: [{name: app, count: 2}]"]
        {
            assert!(found(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn labels_namespaces_and_variables_of_a_kustomization_change_more_than_metadata() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let found = |kind: &str, version: &str, content: &str, text: &str| {
            let of_kind =
                object("x", kind, "ns").replace("apiVersion: v1", &format!("apiVersion: {version}"));
            write("f.yaml", &(guard("x", kind) + &of_kind + content));
            write("kustomization.yaml", &format!("resources: [f.yaml]\n{text}\n"));
            meant(&super::super::overlay::files(&[folder.path().to_owned()], true).unwrap()).map(drop)
        };
        let deployment = |text: &str| found("Deployment", "apps/v1", "", text);
        let service = |text: &str| found("Service", "v1", "", text);
        let map = |text: &str| found("ConfigMap", "v1", "data: {a: 'see $(HOST)'}\n", text);
        let binding = |text: &str| found("RoleBinding", "rbac.authorization.k8s.io/v1", "", text);
        let both = "labels: [{pairs: {a: b}, includeSelectors: true}]";
        let templates = "labels: [{pairs: {a: b}, includeTemplates: true}]";
        for (changed, text) in [
            (deployment(both), both),
            (service(both), both),
            (deployment("commonLabels: {a: b}"), "commonLabels"),
            (service("commonLabels: {a: b}"), "commonLabels"),
            (deployment(templates), templates),
            (deployment("commonAnnotations: {a: b}"), "commonAnnotations"),
            (map("labels: [{pairs: {a: b}, fields: [{path: data/a}]}]"), "fields"),
            (map("commonLabels: {a: b}\nconfigurations: [c.yaml]"), "configurations"),
            (map("commonLabels: {a: b}\ncrds: [c.json]"), "commonLabels"),
            (binding("namespace: other"), "namespace"),
            (map("vars: [{name: HOST, objref: {kind: Service, name: s, apiVersion: v1}}]"), "vars"),
        ] {
            let error = changed.err().unwrap_or_default();
            assert!(error.contains("kustomization.yaml changes "), "{text}: {error}");
        }
        for (kept, text) in [
            (deployment("labels: [{pairs: {a: b}}]"), "labels"),
            (service(templates), templates),
            (service("commonAnnotations: {a: b}"), "commonAnnotations"),
            (map(both), both),
            (map("commonLabels: {a: b}\nnamespace: other"), "commonLabels"),
            (deployment("namespace: other"), "namespace"),
            (binding("commonLabels: {a: b}"), "commonLabels"),
            (map("vars: [{name: PORT, objref: {kind: Service, name: s, apiVersion: v1}}]"), "vars"),
        ] {
            assert_eq!(kept, Ok(()), "{text}");
        }
    }

    #[test]
    fn a_kustomization_that_changes_all_changes_only_what_it_takes_in() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("prod/f.yaml", &(guard("s", "ConfigMap") + &object("s", "ConfigMap", "ns")));
        write("other/o.yaml", &object("o", "ConfigMap", "ns"));
        let found = |resources: &str| {
            write("other/kustomization.yaml", &format!("namePrefix: x-\nresources: [{resources}]\n"));
            meant(&super::super::overlay::files(&[folder.path().to_owned()], true).unwrap())
        };
        assert!(found("o.yaml").is_ok());
        assert!(found("o.yaml, ../prod/f.yaml").is_err());
        write("prod/kustomization.yaml", "resources: [f.yaml]\n");
        assert!(found("o.yaml, ../prod").unwrap_err().contains("other/kustomization.yaml changes"));
    }
}
