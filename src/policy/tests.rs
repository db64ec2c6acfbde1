//! Which objects policies are for, and what they say of them.

use serde_json::json;

use super::*;

fn document(value: Value) -> Document {
    Document { path: "p.yaml".into(), line: 1, value }
}

fn policy(change: impl FnOnce(&mut Value)) -> Document {
    let mut value = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]},
            ]},
            "validations": [{"expression": "object.spec.replicas <= 5", "message": "too many"}],
        },
    });
    change(&mut value["spec"]);
    document(value)
}

fn binding(change: impl FnOnce(&mut Value)) -> Document {
    let mut value = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"},
        "spec": {"policyName": "p", "validationActions": ["Deny"]},
    });
    change(&mut value["spec"]);
    document(value)
}

fn deployment(replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}}, "spec": {"replicas": replicas}})
}

fn subject(object: &Value) -> Subject<'_> {
    Subject {
        group: "apps",
        version: "v1",
        kind: "Deployment",
        resource: "deployments",
        namespaced: true,
        object,
        old_object: None,
        namespace_object: None,
        user: None,
    }
}

fn messages(documents: Vec<Document>, subject: &Subject<'_>) -> Vec<String> {
    PolicySet::compile(documents).expect("they compile").evaluate(subject).into_iter().map(|f| f.message).collect()
}

#[test]
fn a_denial_is_said_in_the_words_of_an_api_server() {
    let object = deployment(9);
    let set = PolicySet::compile(vec![policy(|_| {}), binding(|_| {})]).unwrap();
    let findings = set.evaluate(&subject(&object));
    assert_eq!(findings[0].to_string(), "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: too many");
    assert_eq!((findings[0].action, findings[0].reason.as_str()), (Action::Deny, "Invalid"));
    assert!(set.evaluate(&subject(&deployment(3))).is_empty());
}

#[test]
fn a_policy_is_for_what_its_rules_and_selectors_say() {
    type Change<'a> = &'a dyn Fn(&mut Value);
    let rule = |change: Change<'_>| {
        let mut spec = json!({"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["deployments"]}]});
        change(&mut spec);
        spec
    };
    let cases: [(Change<'_>, bool); 14] = [
        (&|_| {}, true),
        (&|s| s["resourceRules"][0]["apiGroups"] = json!(["*"]), true),
        (&|s| s["resourceRules"][0]["apiGroups"] = json!([""]), false),
        (&|s| s["resourceRules"][0]["apiVersions"] = json!(["v1beta1"]), true),
        (&|s| (s["resourceRules"][0]["apiVersions"], s["matchPolicy"]) = (json!(["v1beta1"]), json!("Exact")), false),
        (&|s| s["resourceRules"][0]["operations"] = json!(["UPDATE"]), false),
        (&|s| s["resourceRules"][0]["resources"] = json!(["*/*"]), true),
        (&|s| s["resourceRules"][0]["resources"] = json!(["deployments/scale"]), false),
        (&|s| s["resourceRules"][0]["scope"] = json!("Cluster"), false),
        (&|s| s["resourceRules"][0]["resourceNames"] = json!(["other"]), false),
        (&|s| s["excludeResourceRules"] = s["resourceRules"].clone(), false),
        (
            &|s| s["namespaceSelector"] = json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["shop"]}]}),
            false,
        ),
        (&|s| s["namespaceSelector"] = json!({"matchLabels": {"tier": "prod"}}), true),
        (&|s| s["objectSelector"] = json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), false),
    ];
    let (object, namespace) = (deployment(9), json!({"metadata": {"name": "shop", "labels": {"tier": "prod"}}}));
    for (at, (change, expected)) in cases.into_iter().enumerate() {
        let subject = Subject { namespace_object: Some(&namespace), ..subject(&object) };
        let spec = rule(change);
        let found = messages(vec![policy(|p| p["matchConstraints"] = spec.clone()), binding(|_| {})], &subject);
        assert_eq!(!found.is_empty(), expected, "policy {at}");
        let found = messages(vec![policy(|_| {}), binding(|b| b["matchResources"] = spec)], &subject);
        assert_eq!(!found.is_empty(), expected, "binding {at}");
    }
}

#[test]
fn conditions_variables_messages_and_old_objects_are_evaluated() {
    let (object, old) = (deployment(9), deployment(2));
    let full = policy(|spec| {
        spec["matchConditions"] = json!([{"name": "not-exempt", "expression": "!has(object.metadata.annotations)"}]);
        spec["variables"] = json!([
            {"name": "old", "expression": "oldObject == null ? 0 : oldObject.spec.replicas"},
            {"name": "more", "expression": "object.spec.replicas - variables.old"},
        ]);
        spec["validations"] = json!([
            {"expression": "variables.more <= 5", "messageExpression": "string(variables.more) + ' more at once in ' + request.namespace", "reason": "Forbidden"},
            {"expression": "object.spec.replicas != 9"},
        ]);
    });
    let set = PolicySet::compile(vec![full, binding(|b| b["validationActions"] = json!(["Warn", "Audit"]))]).unwrap();
    let update = Subject { old_object: Some(&old), ..subject(&object) };
    let findings = set.evaluate(&update);
    assert_eq!(findings.len(), 4, "{findings:?}");
    assert_eq!((findings[0].message.as_str(), findings[0].reason.as_str()), ("7 more at once in shop", "Forbidden"));
    assert_eq!(findings[2].message, "failed expression: object.spec.replicas != 9");
    assert_eq!((findings[0].action, findings[1].action), (Action::Warn, Action::Audit));
    assert_eq!(set.evaluate(&subject(&object))[0].message, "9 more at once in shop");
    let mut exempt = object.clone();
    exempt["metadata"]["annotations"] = json!({"a": "b"});
    assert!(set.evaluate(&subject(&exempt)).is_empty());
}

#[test]
fn no_message_is_made_of_a_secret() {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shop"}, "data": {"a": "aHVudGVyMg=="}});
    let telling = policy(|spec| {
        spec["matchConstraints"]["resourceRules"] =
            json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["secrets"]}]);
        spec["validations"] = json!([{"expression": "!has(object.data)", "message": "no data", "messageExpression": "'it has ' + object.data.a"}]);
    });
    let subject = Subject { group: "", kind: "Secret", resource: "secrets", ..subject(&secret) };
    assert_eq!(messages(vec![telling, binding(|_| {})], &subject), ["no data"]);
}

#[test]
fn it_is_known_which_policies_need_what_was_there_before() {
    let set = |change: &dyn Fn(&mut Value)| PolicySet::compile(vec![policy(change), binding(|_| {})]).unwrap();
    assert!(!set(&|_| {}).asks_before(&subject(&deployment(1))));
    assert!(
        set(&|s| s["matchConstraints"]["resourceRules"][0]["operations"] = json!(["UPDATE"]))
            .asks_before(&subject(&deployment(1)))
    );
    assert!(
        set(&|s| s["validations"][0]["expression"] = json!("oldObject == null")).asks_before(&subject(&deployment(1)))
    );
}

#[test]
fn parameters_come_from_the_same_folder() {
    let with = |spec: &mut Value| {
        spec["paramKind"] = json!({"apiVersion": "v1", "kind": "ConfigMap"});
        spec["validations"] = json!([{"expression": "object.spec.replicas <= int(params.data.most)", "messageExpression": "'at most ' + params.data.most"}]);
    };
    let limit = |name: &str, most: &str| {
        document(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "policies", "labels": {"limit": "yes"}}, "data": {"most": most}}),
        )
    };
    let by = |reference: Value| binding(move |b| b["paramRef"] = reference);
    let object = deployment(9);
    let named = |name: &str, action: &str| {
        by(json!({"name": name, "namespace": "policies", "parameterNotFoundAction": action}))
    };
    let found = |binding: Document| {
        messages(vec![policy(with), binding, limit("few", "3"), limit("many", "8")], &subject(&object))
    };
    assert_eq!(found(named("few", "Deny")), ["at most 3"]);
    let selected = by(
        json!({"selector": {"matchLabels": {"limit": "yes"}}, "namespace": "policies", "parameterNotFoundAction": "Deny"}),
    );
    assert_eq!(found(selected), ["at most 3", "at most 8"]);
    assert_eq!(found(named("none", "Allow")), Vec::<String>::new());
    assert!(found(named("none", "Deny"))[0].contains("no params found"));
}

#[test]
fn what_can_not_be_evaluated_is_refused_unless_its_policy_says_otherwise() {
    let broken = |failure: &'static str| {
        policy(move |spec| {
            spec["failurePolicy"] = json!(failure);
            spec["validations"] = json!([{"expression": "object.spec.missing == 1"}]);
        })
    };
    let object = deployment(1);
    let found = messages(vec![broken("Fail"), binding(|_| {})], &subject(&object));
    assert_eq!(found, ["expression `object.spec.missing == 1` resulted in error: no such key: missing"]);
    assert!(messages(vec![broken("Ignore"), binding(|_| {})], &subject(&object)).is_empty());
    let files: Vec<_> = (0..400).map(|i| json!({"path": format!("f{i}")})).collect();
    let many = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "files": files});
    let costly = policy(|spec| {
        spec["validations"] = json!([{"expression": "object.files.all(a, object.files.all(b, object.files.all(c, a.path != 'x' || b.path != c.path)))"}]);
    });
    let found = messages(vec![costly, binding(|_| {})], &subject(&many));
    assert!(found[0].contains("takes too long"), "{found:?}");
}

#[test]
fn a_folder_with_anything_wrong_in_it_is_refused_with_its_place() {
    let errors = |documents: Vec<Document>| -> Vec<String> {
        PolicySet::compile(documents).map(|_| ()).unwrap_err().iter().map(ToString::to_string).collect()
    };
    let expression = |text: &'static str| policy(move |spec| spec["validations"][0]["expression"] = json!(text));
    for (documents, expected) in [
        (
            vec![expression("object.spec.replicas"), binding(|_| {})],
            "`spec.validations[0].expression`: it must be of type bool, but is of type dyn (at 1:1)",
        ),
        (vec![expression("object.x ="), binding(|_| {})], "`=` begins nothing that is known (at 1:10)"),
        (vec![expression("params.x == 1"), binding(|_| {})], "`params` is not declared"),
        (vec![policy(|_| {})], "the policy `p` has no binding, so it would never say no"),
        (vec![binding(|_| {})], "the binding `b` is of a policy `p` that is not here"),
        (
            vec![policy(|_| {}), binding(|b| b["validationActions"] = json!(["Deny", "Warn"]))],
            "can't be `Deny` and `Warn` at once",
        ),
        (vec![policy(|p| p["matchContraints"] = json!({})), binding(|_| {})], "unknown field `matchContraints`"),
        (vec![policy(|_| {}), policy(|_| {}), binding(|_| {})], "the policy `p` is there twice"),
        (
            vec![policy(|_| {}), binding(|_| {}), document(json!({"apiVersion": "v1", "kind": "Secret"}))],
            "`v1 Secret` is no policy",
        ),
        (
            vec![policy(|_| {}), binding(|b| b["paramRef"] = json!({"name": "x", "parameterNotFoundAction": "Deny"}))],
            "without `paramKind`",
        ),
    ] {
        let found = errors(documents);
        assert!(
            found.iter().any(|error| error.contains(expected) && error.starts_with("p.yaml:1: ")),
            "{expected}: {found:?}"
        );
    }
}

/// A repository of so many files.
fn repository(files: usize) -> Value {
    let files = (0..files).map(|n| crate::source::File {
        path: format!("apps/{}/file-{n}.yaml", n % 100),
        size: 100,
        mode: "100644".into(),
    });
    let listing = crate::source::Listing { files: files.collect(), author: "J".into(), message: "m".into() };
    snapshot("flux-system", "platform", &json!({}), &listing)
}

fn of_repositories(expression: &str, failure_policy: &str) -> PolicySet {
    let rule =
        json!([{"apiGroups": ["afresh.dev"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["snapshots"]}]);
    let rules = policy(|spec| {
        spec["matchConstraints"]["resourceRules"] = rule;
        spec["validations"] = json!([{"expression": expression, "message": "no"}]);
        spec["failurePolicy"] = json!(failure_policy);
    });
    PolicySet::compile(vec![rules, binding(|_| {})]).unwrap()
}

#[test]
fn loops_over_a_large_repository_end_and_what_takes_too_long_is_denied() {
    let object = repository(100_000);
    let subject = Subject::repository(&object);
    let said = |expression: &str, failure_policy: &str| {
        let began = std::time::Instant::now();
        let findings = of_repositories(expression, failure_policy).evaluate(&subject);
        let took = began.elapsed();
        assert!(took.as_secs() < 60, "{expression}: {took:?}");
        findings.into_iter().map(|finding| finding.message).collect::<Vec<_>>()
    };
    assert_eq!(said("object.spec.files.all(f, !f.path.endsWith('.tfstate'))", "Fail"), [""; 0]);
    assert_eq!(said("!object.spec.files.exists(f, f.path.matches('file-99999[.]'))", "Fail"), ["no"]);
    let squared = "object.spec.files.all(f, object.spec.files.exists_one(g, g.path == f.path))";
    let [message] = <[String; 1]>::try_from(said(squared, "Fail")).unwrap();
    assert!(message.contains("the evaluation takes too long"), "{message}");
    assert_eq!(said(squared, "Ignore"), [""; 0], "who wants it so");
    let growing = "object.spec.files.map(f, object.spec.files.map(g, g.path + f.path).join('')).join('').size() == 0";
    assert!(said(growing, "Fail")[0].contains("the evaluation takes too long"));
}

#[test]
fn what_all_policies_may_take_for_one_revision_has_an_end() {
    let object = repository(20_000);
    let subject = Subject::repository(&object);
    let set =
        of_repositories("object.spec.files.all(f, object.spec.files.all(g, g.path != '' && f.path != ''))", "Ignore");
    let allowance = Allowance::of(10_000_000);
    let rounds = (1..10).find(|_| {
        assert_eq!(set.evaluate_within(&subject, &allowance), []);
        allowance.is_used_up()
    });
    assert_eq!(rounds, Some(3), "four million steps at a time");
}

#[test]
fn rules_for_everything_in_a_cluster_are_not_for_repositories() {
    let object = repository(1);
    let everything = policy(|spec| {
        spec["matchConstraints"]["resourceRules"] =
            json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]);
        spec["validations"] = json!([{"expression": "has(object.metadata.labels.team)"}]);
    });
    let set = PolicySet::compile(vec![everything, binding(|_| {})]).unwrap();
    assert!(!set.has_repository_rules());
    assert_eq!(set.evaluate(&Subject::repository(&object)), []);
    assert!(of_repositories("size(object.spec.files) > 0", "Fail").has_repository_rules());
}

#[test]
fn sizes_are_asked_for_by_those_who_name_them() {
    assert!(of_repositories("object.spec.files.all(f, f.size < 1000)", "Fail").asks_for_sizes());
    assert!(!of_repositories("size(object.spec.files) > 0 && object.spec.files.size() > 0", "Fail").asks_for_sizes());
}

#[test]
fn what_policies_may_name_is_what_it_is_for_an_api_server() {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "subject", "namespace": "shop"}});
    let namespace = json!({"metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop"}}});
    let user = User::service_account("shop", "team");
    let subject = Subject {
        group: "",
        kind: "ConfigMap",
        resource: "configmaps",
        namespace_object: Some(&namespace),
        user: Some(&user),
        ..subject(&object)
    };
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]});
    let lines = include_str!("agreement.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for (expected, expression) in lines.map(|line| line.split_once(": ").unwrap()) {
        let policy = policy(|spec| {
            spec["matchConstraints"]["resourceRules"][0] = rule.clone();
            spec["validations"] = json!([{"expression": expression, "message": "it is false"}]);
        });
        let said = match PolicySet::compile(vec![policy, binding(|_| {})]) {
            Err(_) => "refused",
            Ok(set) => match set.evaluate(&subject).first() {
                None => "true",
                Some(finding) if finding.message == "it is false" => "false",
                Some(_) => "error",
            },
        };
        assert_eq!(said, expected, "{expression}");
    }
}
