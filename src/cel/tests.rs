//! Expressions and what they come to, as cel-go and Kubernetes' libraries have it.

use serde_json::{Value as Json, json};

use super::*;

fn object() -> Json {
    json!({
        "kind": "Deployment", "metadata": {"name": "web", "labels": {"app": "web", "a.b/c": "x"}},
        "spec": {"replicas": 3, "ratio": 0.5, "containers": [
            {"name": "a", "image": "registry.example.com/a:1.2", "resources": {"limits": {"memory": "512Mi", "cpu": 2}}},
            {"name": "b", "image": "b"},
        ], "empty": [], "nothing": null},
    })
}

fn evaluated(source: &str) -> Result<String, String> {
    let (object, nothing) = (object(), Json::Null);
    let names = ["object", "oldObject"];
    let composed_source = [("names", "object.spec.containers.map(c, c.name)"), ("count", "size(variables.names)")];
    let (mut types, mut composed) = (Vec::new(), Vec::new());
    for (name, source) in composed_source {
        let program = Program::compile(source, &Declared { names: &names, records: &[], composed: &types }).unwrap();
        types.push((name.to_owned(), program.kind.clone()));
        composed.push((name.to_owned(), program));
    }
    let program = Program::compile(source, &Declared { names: &names, records: &[], composed: &types })
        .map_err(|e| e.to_string())?;
    let budget = Budget::new(10_000);
    let variables = vec![("object", Value::of(&object)), ("oldObject", Value::of(&nothing))];
    let environment = Environment::new(variables, &composed, &budget);
    environment.evaluate(&program).map(|value| functions::plain(&value)).map_err(|e| format!("evaluating: {e}"))
}

#[test]
fn expressions_come_to_what_they_come_to_in_kubernetes() {
    for (source, expected) in [
        ("1 + 2 * 3 == 7 && -2 - -3 == 1", "true"),
        ("7 / 2 == 3 && -7 % 3 == -1 && 7u % 4u == 3u", "true"),
        ("1.5 < 2 && 2u > 1 && 'a' < 'b'", "true"),
        ("!false && !!true && (true ? 1 : 2) == 1", "true"),
        ("0x1F == 31 && 1e3 == 1000.0 && .5 == 0.5", "true"),
        (r#"'a\n' == "a\n" && r'\n' == '\\n' && '''x"y''' == 'x"y' && b'ab' == b"ab" && '\u00e9' == 'é'"#, "true"),
        ("object.spec.replicas == 3 && object.spec.replicas >= 3.0", "true"),
        ("has(object.spec.replicas) && !has(object.spec.paused)", "true"),
        ("object.metadata.labels['a.b/c']", "x"),
        ("'app' in object.metadata.labels && !('x' in ['y'])", "true"),
        ("object.spec.containers.all(c, c.name.size() == 1)", "true"),
        ("object.spec.containers.exists(c, has(c.resources) && c.resources.limits.cpu == 2)", "true"),
        ("object.spec.containers.exists_one(c, c.name == 'a')", "true"),
        ("object.spec.containers.filter(c, c.name != 'a').map(c, c.image)", "[b]"),
        ("object.spec.containers.map(c, has(c.resources), c.name)", "[a]"),
        ("object.metadata.labels.all(k, k.size() > 2)", "true"),
        ("object.metadata.labels.all(k, v, k == 'app' || v == 'x')", "true"),
        ("object.spec.containers.transformList(i, c, i > 0, c.name)", "[b]"),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v * 2)['b']", "4"),
        ("object.spec.?replicas.orValue(1)", "3"),
        ("object.spec.?missing.?deeper.orValue('none')", "none"),
        ("object.?spec.containers[?5].hasValue()", "false"),
        ("object.spec.containers[?0].name.orValue('')", "a"),
        ("object.spec.?replicas.optMap(r, r + 1).value()", "4"),
        ("[?object.spec.?missing, 1]", "[1]"),
        ("optional.none().or(optional.of(2)).value()", "2"),
        ("object.spec.nothing == null && oldObject == null", "true"),
        ("false && object.missing.x == 1", "false"),
        ("object.missing == 1 || true", "true"),
        ("[1, 2].exists(x, object.missing == x || x == 2)", "true"),
        ("variables.count == 2 && variables.names == ['a', 'b']", "true"),
        ("'registry.example.com/a:1.2'.matches('^registry\\\\.example\\\\.com/')", "true"),
        ("'ab1'.matches('^' + 'a') && !matches('ab1', 'c$') && 'a1b22'.find('[0-9]+') == '1'", "true"),
        ("'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1b22'.findAll('[0-' + '9]+', 1) == ['1']", "true"),
        ("'a-b-c'.split('-').size() == 3 && ['a', 'b'].join('/') == 'a/b'", "true"),
        ("'hello'.charAt(1) + 'hello'.substring(3) + 'hello'.substring(0, 2)", "elohe"),
        ("'hello'.indexOf('l') + 'hello'.lastIndexOf('l') * 10 + 'x'.indexOf('y')", "31"),
        ("'aXbX'.replace('X', '-', 1) + ' Abc '.trim().lowerAscii() + 'b'.upperAscii()", "a-bXabcB"),
        ("'%s has %d of %.2f (%x)'.format(['a', 3, 1.5, 255])", "a has 3 of 1.50 (ff)"),
        ("'abc 123'.find('[0-9]+') + string('a1b2'.findAll('[0-9]').size())", "1232"),
        ("[1, 2, 3].sum() + [3, 1].max() - [3, 1].min() + [5, 6].indexOf(6)", "9"),
        ("[1, 2].isSorted() && ![2, 1].isSorted()", "true"),
        ("sets.contains([1, 2, 3], [2]) && sets.intersects(['a'], ['a', 'b']) && sets.equivalent([1, 1], [1])", "true"),
        (
            "quantity('1Gi').isGreaterThan(quantity('512Mi')) && quantity('1').add(2).compareTo(quantity('3')) == 0",
            "true",
        ),
        ("isQuantity('1.5Gi') && !isQuantity('many') && quantity('500m').asApproximateFloat() == 0.5", "true"),
        (
            "url('https://example.com:8443/a?b=c').getHostname() + url('https://u.com/x').getEscapedPath()",
            "example.com/x",
        ),
        ("isURL('https://a.b') && !isURL('a b')", "true"),
        ("type(1) == int && type('a') == string && type([]) == list", "true"),
        ("int('7') + int(2.9) + int(3u)", "12"),
        ("string(1) + string(true) + string(1.5)", "1true1.5"),
        ("'é'.size() == 1 && size(b'é') == 2", "true"),
        ("// a comment\n1 == 1 // another", "true"),
    ] {
        assert_eq!(evaluated(source), Ok(expected.to_owned()), "{source}");
    }
}

#[test]
fn times_addresses_versions_and_formats_are_those_of_an_api_server() {
    let object = json!({"data": {"duration": "2h45m", "time": "2024-07-01T12:00:00Z", "ip": "10.1.2.3"}});
    let declared = Declared { names: &["object"], records: &[], composed: &[] };
    let (mut count, mut wrong) = (0, Vec::new());
    for line in include_str!("agreement.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (expected, source) = line.split_once(": ").unwrap();
        let (said, why) = match Program::compile_as("bool", source, &declared) {
            Err(error) => ("refused", error.to_string()),
            Ok(program) => {
                let (budget, composed) = (Budget::new(10_000), Vec::new());
                let environment = Environment::new(vec![("object", Value::of(&object))], &composed, &budget);
                match environment.evaluate(&program) {
                    Ok(Value::Bool(true)) => ("true", String::new()),
                    Ok(_) => ("false", String::new()),
                    Err(error) => ("error", error.to_string()),
                }
            }
        };
        if said != expected {
            wrong.push(format!("{expected}: {source}\n  is {said} here {why}"));
        }
        count += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 250, "{count}");
}

#[test]
fn a_zone_is_named_as_the_database_names_it() {
    for (source, expected) in [
        ("timestamp('2024-07-01T12:00:00Z').getHours('Europe/Berlin')", Ok("14")),
        ("timestamp('2024-01-01T12:00:00Z').getHours('Europe/Berlin')", Ok("13")),
        ("timestamp('2024-07-01T00:00:00Z').getDayOfWeek('America/New_York')", Ok("0")),
        ("timestamp('2024-07-01T12:00:00Z').getHours('europe/berlin')", Err("evaluating: there is no such time zone")),
        ("timestamp('2024-07-01T12:00:00Z').getHours('99:99:99')", Err("evaluating: there is no such time zone")),
    ] {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(evaluated(source), expected, "{source}");
    }
}

#[test]
fn what_has_no_value_says_why() {
    for (source, expected) in [
        ("object.missing == 1", "evaluating: no such key: missing"),
        ("object.spec.replicas + 'a' == 'b'", "evaluating: `+` is not for (int, string)"),
        ("object.spec.containers[9].name == ''", "evaluating: index out of bounds"),
        ("9223372036854775807 + object.spec.replicas > 0", "evaluating: a number is too large"),
        ("1 / (object.spec.replicas - 3) == 1", "evaluating: division by zero"),
        ("has(object.kind.x)", "evaluating: `has` is not for (string)"),
        ("object.kind.startsWith(object.spec.replicas)", "evaluating: `startsWith` is not for (string, int)"),
        ("object.spec.?missing.value() == 1", "evaluating: the optional has no value"),
        ("quantity(object.kind) == quantity('1')", "evaluating: the text is no quantity"),
        ("'%d'.format([object.kind]) == ''", "evaluating: `%d` is not for a string"),
        ("object.spec.containers.all(c, c.image)", "evaluating: `comprehension` is not for (string)"),
    ] {
        assert_eq!(evaluated(source), Err(expected.to_owned()), "{source}");
    }
}

#[test]
fn what_is_wrong_is_found_when_it_is_compiled() {
    for (source, expected) in [
        ("1 + 'a' == 2", "`+` is not for (int, string) (at 1:1)"),
        ("'a' && true", "`&&` is not for (string) (at 1:1)"),
        ("objekt.spec == 1", "`objekt` is not declared; there is `object`, `oldObject` (at 1:1)"),
        ("object.name.foo()", "`foo` is no function (at 1:1)"),
        ("object.spec.exists(c)", "`exists` is no function (at 1:1)"),
        ("'a'.matches('(')", "the regular expression is wrong: error: unclosed group (at 1:13)"),
        ("base64.encode(b'a') == object.x", "`base64.encode` is not served (at 1:1)"),
        ("math.greatest(1, 2) == object.x", "`math.greatest` is not served (at 1:1)"),
        ("format.email().validate('a').hasValue()", "`format.email` is no function (at 1:1)"),
        ("duration('1d') == object.x", "the text is no duration (at 1:10)"),
        ("1 + duration('1h') == object.x", "`+` is not for (int, google.protobuf.Duration) (at 1:1)"),
        (
            "authorizer.path('/x').check('get').allowed()",
            "`authorizer` asks an API server for rights, which is not done here (at 1:1)",
        ),
        ("variables.later == 1", "`variables.later` is not declared before it is used (at 1:1)"),
        ("1 == 'a'", "`==` is not for (int, string) (at 1:1)"),
        ("size(object, object) == 1", "`size` is not for (dyn, dyn) (at 1:1)"),
        ("[1, 2].all(x, x.startsWith('a'))", "`startsWith` is not for (int, string) (at 1:15)"),
        ("Foo{a: 1} == 1", "messages can't be made here: write a map, as in `{\"key\": value}` (at 1:4)"),
        ("1 +", "the end where a value belongs (at 1:4)"),
        ("'open", "the text lacks its closing quote (at 1:1)"),
        ("true\n  && (false", "the end where `)` belongs (at 2:12)"),
        ("has(object)", "`has()` takes one field, as in `has(object.spec)` (at 1:1)"),
        ("a = b", "`=` begins nothing that is known (at 1:3)"),
        ("99999999999999999999 == 1", "`99999999999999999999` is no number in range (at 1:1)"),
    ] {
        assert_eq!(evaluated(source), Err(expected.to_owned()), "{source}");
    }
    let declared = Declared { names: &["object"], records: &[], composed: &[] };
    for source in ["object.spec", "'a'", "1", "object.?a.orValue(true)", "[true]"] {
        assert!(Program::compile_as("bool", source, &declared).is_err(), "{source}");
    }
    assert!(Program::compile_as("bool", "!object.?a.orValue(true)", &declared).is_ok());
}

#[test]
fn no_expression_takes_longer_than_it_may() {
    let deep = format!("{}1{} == 1", "(".repeat(500), ")".repeat(500));
    assert!(evaluated(&deep).unwrap_err().contains("nested deeper"));
    let chain = vec!["1"; 500].join(" + ") + " == 500";
    assert!(evaluated(&chain).unwrap_err().contains("nested deeper"));
    assert!(evaluated(&vec!["true"; 2_000].join(" && ")).is_ok(), "what is side by side is not deep");
    assert!(evaluated(&format!("'{}' == ''", "x".repeat(20_000))).unwrap_err().contains("longer than"));
    let ten = "[1,2,3,4,5,6,7,8,9,0]";
    let nested =
        format!("{ten}.all(a, {ten}.all(b, {ten}.all(c, {ten}.all(d, {ten}.all(e, a + b + c + d + e >= 0)))))");
    assert_eq!(evaluated(&nested), Err("evaluating: the evaluation takes too long".to_owned()));
    // a pattern that is made is compiled each time
    let patterns = format!("{ten}.all(a, {ten}.all(b, {ten}.all(c, 'x'.matches(string(a) + '?x'))))");
    assert_eq!(evaluated(&patterns), Err("evaluating: the evaluation takes too long".to_owned()));
    // an error of the budget is not one that `||` forgives
    assert_eq!(evaluated(&format!("{nested} || true")), Err("evaluating: the evaluation takes too long".to_owned()));
    let bomb = "'xxxxxxxxxx'.replace('x', 'yyyyyyyyyy').replace('y', 'zzzzzzzzzzzzzzzzzzzz').replace('z', '0123456789012345678901234567890123456789').replace('0', '01234567890123456789012345678901234567890123456789').size() > 0";
    assert!(evaluated(bomb).is_err());
}
