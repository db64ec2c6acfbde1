//! What the Kustomization object adds: its mistakes are at its own fields. That the results are Flux's own is shown by
//! tests/overlay.

use super::tests::Case;
use super::*;
use crate::api::{Image, Patch, PatchTarget};
use crate::manifest::MemoryTree;

const CONFIG_MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {a: b}\n";

fn patch(patch: &str, target: Option<PatchTarget>) -> Patch {
    Patch { patch: patch.into(), target }
}

fn harmless() -> Patch {
    patch("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {c: d}\n", None)
}

#[test]
fn a_mistake_is_at_its_field_of_the_kustomization() {
    let kinds = || PatchTarget { kind: "ConfigMap".into(), ..PatchTarget::default() };
    let trees = [
        ("plain", MemoryTree::new().with("app/settings.yaml", CONFIG_MAP)),
        (
            "kustomize",
            MemoryTree::new()
                .with("app/kustomization.yaml", "resources: [settings.yaml]\npatches:\n- target: {kind: None}\n  patch: '[]'\ncomponents: [../part]\n")
                .with("app/settings.yaml", CONFIG_MAP)
                .with("part/kustomization.yaml", "kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\nnameSuffix: ''\n"),
        ),
        (
            "template",
            MemoryTree::new()
                .with("app/afresh.yaml", "render: template\n")
                .with("app/settings.yaml", CONFIG_MAP),
        ),
    ];
    let patches = |wrong: Patch| vec![harmless(), wrong];
    let cases: Vec<(Vec<Patch>, Vec<String>, &str)> = vec![
        (
            patches(patch("[]", Some(PatchTarget { name: "(".into(), ..kinds() }))),
            vec![],
            "spec.patches[1].target.name: `(` is not a regular expression",
        ),
        (
            patches(patch("[]", Some(PatchTarget { label_selector: "a in b".into(), ..kinds() }))),
            vec![],
            "spec.patches[1].target.labelSelector: `a in b` is not a label selector",
        ),
        (
            patches(patch("kind: ConfigMap\nmetadata: {name: other}\napiVersion: v1\n", None)),
            vec![],
            "spec.patches[1]: there is no `ConfigMap/other`, but `ConfigMap/settings`",
        ),
        (
            patches(patch(r#"[{"op": "remove", "path": "/data/x"}]"#, Some(kinds()))),
            vec![],
            "spec.patches[1]: `ConfigMap/settings`: operation 1 at `/data/x`",
        ),
        (patches(patch("a: [b\n", Some(kinds()))), vec![], "spec.patches[1]: patch:2:1: "),
        (patches(patch("", None)), vec![], "spec.patches[1]: a patch needs"),
        (vec![], vec!["../nowhere".into()], "spec.components[0]: there is no directory `nowhere`"),
        (vec![], vec!["../../x".into()], "spec.components[0]: `../../x` leads out of the repository"),
        (vec![], vec!["https://example.com/x".into()], "spec.components[0]: `https://example.com/x` is not a path"),
    ];
    for (kind, tree) in &trees {
        for (patches, components, wanted) in &cases {
            let overlay = Overlay { patches, components, ..Overlay::default() };
            let said = Case { overlay, ..Case::new(tree, "app") }.error();
            assert!(said.starts_with(wanted), "{kind}\n  said:   {said}\n  wanted: {wanted}");
        }
    }
}

#[test]
fn an_image_whose_name_is_no_expression_is_named() {
    let images = [Image { name: "web(".into(), ..Image::default() }];
    let tree = MemoryTree::new().with("settings.yaml", CONFIG_MAP);
    let overlay = Overlay { images: &images, ..Overlay::default() };
    assert_eq!(Case { overlay, ..Case::new(&tree, "") }.error(), "spec.images[0]: `web(` is not an image's name");
}

#[test]
fn a_missing_component_that_is_ignored_is_looked_for_again_when_it_comes() {
    let components = ["../part".to_owned()];
    let overlay = Overlay { components: &components, ignore_missing_components: true, ..Overlay::default() };
    let tree = MemoryTree::new().with("app/settings.yaml", CONFIG_MAP);
    let rendered = Case { overlay, ..Case::new(&tree, "app") }.render().expect("it is ignored");
    let with_part = tree.clone().with(
        "part/kustomization.yaml",
        "kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\nnameSuffix: -x\n",
    );
    assert!(rendered.read_set.unchanged(&tree).expect("a tree"));
    assert!(!rendered.read_set.unchanged(&with_part).expect("a tree"));
    assert_eq!(Case { overlay, ..Case::new(&with_part, "app") }.ids(), ["ConfigMap/settings-x"]);
}

#[test]
fn templates_are_a_resource_of_a_kustomization_and_keep_their_places() {
    let tree = MemoryTree::new()
        .with("app/kustomization.yaml", "resources: [../chart, extra.yaml]\nnamePrefix: shop-\n")
        .with("app/extra.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: extra}\n")
        .with("chart/afresh.yaml", "render: template\nvalues: values.yaml\n")
        .with("chart/values.yaml", "names: [one, two]\n")
        .with("chart/all.yaml", "{% for name in values.names %}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ name }}}\n{% endfor %}\n");
    let patches = [patch(
        "[{\"op\": \"add\", \"path\": \"/data\", \"value\": {\"by\": \"patch\"}}]",
        Some(PatchTarget { name: "two".into(), ..PatchTarget::default() }),
    )];
    let overlay = Overlay { patches: &patches, ..Overlay::default() };
    let rendered = Case { overlay, ..Case::new(&tree, "app") }.render().expect("rendered");
    let found: Vec<_> = rendered
        .objects
        .iter()
        .map(|o| (o.id.name.as_str(), &*o.origin.path, o.value["data"]["by"].as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("shop-one", "chart/all.yaml", None),
            ("shop-two", "chart/all.yaml", Some("patch")),
            ("shop-extra", "app/extra.yaml", None),
        ]
    );
    let broken = tree.with("chart/all.yaml", "apiVersion: v1\nkind: {{ values.kind }}\n");
    assert_eq!(
        Case::new(&broken, "app").error().lines().next(),
        Some("chart/all.yaml:2:10: `values.kind` is undefined"),
        "the mistake is in the template"
    );
}

#[test]
fn names_in_plain_files_follow_what_a_kustomization_below_generates() {
    let tree = MemoryTree::new()
        .with(
            "app/pod.yaml",
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {volumes: [{name: v, configMap: {name: gen}}]}\n",
        )
        .with("app/gen/kustomization.yaml", "configMapGenerator: [{name: gen, literals: [a=b]}]\n");
    let rendered = Case::new(&tree, "app").render().expect("rendered");
    let named =
        |pointer: &str| rendered.objects.iter().find_map(|o| o.value.pointer(pointer)?.as_str().map(str::to_owned));
    let generated =
        rendered.objects.iter().find(|o| o.id.kind == "ConfigMap").expect("it is generated").id.name.clone();
    assert_eq!(named("/spec/volumes/0/configMap/name"), Some(generated));
}

#[test]
fn a_custom_kind_of_the_cluster_is_not_moved_into_the_target_namespace() {
    let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.x.io}\nspec: {group: x.io, scope: Cluster, names: {kind: Widget}}\n";
    let tree = MemoryTree::new()
        .with("a.yaml", format!("{definition}---\napiVersion: x.io/v1\nkind: Widget\nmetadata: {{name: w}}\n"));
    let overlay = Overlay { target_namespace: Some("shop"), ..Overlay::default() };
    let plain = Case { overlay, ..Case::new(&tree, "") }.ids();
    let with_file = tree.with("kustomization.yaml", "resources: [a.yaml]\n");
    assert_eq!(Case { overlay, ..Case::new(&with_file, "") }.ids(), plain);
    assert!(plain.iter().all(|id| !id.contains("shop")), "{plain:?}");
}
