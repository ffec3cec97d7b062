//! What an evaluation may end as, and what is refused when a rule is loaded.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::*;
use crate::base::limits::Limits;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::{Outcome, Status};
use crate::model::reason::Reason;
use crate::model::target::TargetKind;
use crate::native::facts::Missing;
use crate::native::facts::cluster::{ClusterFacts, Resource};
use crate::native::profile::{self, RuleProfile};

const HEAD: &str = "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\n";

/// A policy about hosts. `annotations` and `spec` are YAML lines with the indentation that they need.
fn policy(name: &str, annotations: &str, spec: &str) -> String {
    on("facts.gapscan.dev", "hosts", name, annotations, spec)
}

fn on(group: &str, resource: &str, name: &str, annotations: &str, spec: &str) -> String {
    format!(
        "{HEAD}metadata:\n  name: {name}\n  annotations:\n    gapscan.dev/title: T\n    gapscan.dev/description: D\n    \
         gapscan.dev/fix: F\n    gapscan.dev/severity: low\n{annotations}spec:\n  matchConstraints:\n    resourceRules:\n    \
         - {{apiGroups: ['{group}'], apiVersions: [v1], operations: [CREATE], resources: ['{resource}']}}\n{spec}"
    )
}

fn validates(expression: &str) -> String {
    policy("r", "", &format!("  validations:\n  - expression: >-\n      {expression}\n    message: no\n"))
}

fn load_for(targets: &str, rules: &str) -> Result<RuleProfile, profile::ProfileError> {
    let document = format!(
        "apiVersion: gapscan/v1\nkind: Profile\nname: p\nversion: '1'\ntitle: P\nengine: builtin\ntargets: {targets}\nrules: [r.yaml]\n"
    );
    profile::load(&BTreeMap::from([
        ("profile.yaml".to_owned(), document.into_bytes()),
        ("r.yaml".to_owned(), rules.as_bytes().to_vec()),
    ]))
}

fn load(rules: &str) -> RuleProfile {
    load_for("[host]", rules).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(rules: &str) -> String {
    load_for("[host]", rules).expect_err("must be refused").to_string()
}

fn judge(rules: &str, facts: &Json) -> Finding {
    judge_system(&load(rules), facts, TargetKind::Host, &Limits::default()).remove(0)
}

fn outcome(expression: &str, facts: &Json) -> Outcome {
    judge(&validates(expression), facts).outcome
}

#[track_caller]
fn assert_reason(outcome: &Outcome, wanted: Reason, part: &str) {
    match outcome {
        Outcome::NotEvaluated { reason, detail } if *reason == wanted && detail.contains(part) => {}
        other => panic!("{other:?} is not {wanted} with {part:?}"),
    }
}

#[test]
fn an_absent_fact_is_never_a_verdict() {
    let facts = json!({"users": [{"name": "a", "uid": 0}]});
    for expression in [
        "object.sockets.size() == 0",
        "!has(object.sockets)",
        "has(object.sockets)",
        "!has(object.sockets) || object.sockets.all(s, s.loopback)",
        "object['sockets'] == []",
        "[object].all(o, !has(o.sockets))",
        "object.sockets.all(s, false)",
    ] {
        assert_reason(&outcome(expression, &facts), Reason::FactMissing, "sockets");
    }
    // What the collector says about it counts more than that it is absent.
    let facts = json!({"missing": {"sockets": {"reason": "tool-missing", "detail": "no ss"}}});
    assert_reason(&outcome("object.sockets.size() == 0", &facts), Reason::ToolMissing, "no ss");
    // A true beside it is true whatever the fact is, and so is a false.
    assert_eq!(outcome("object.sockets.size() == 0 || true", &facts), Outcome::Passed);
    assert_eq!(outcome("object.sockets.size() == 0 && false", &facts), Outcome::Failed);
    assert_reason(&outcome("object.sockets.size() == 0 || false", &facts), Reason::ToolMissing, "no ss");
}

#[test]
fn a_field_that_an_item_lacks_is_an_error_unless_has_asks() {
    let facts = json!({"users": [{"name": "a", "uid": 0}, {"name": "b"}]});
    assert_reason(&outcome("object.users.all(u, u.uid < 10)", &facts), Reason::FactMissing, "`uid`");
    assert_eq!(outcome("object.users.all(u, !has(u.uid) || u.uid < 10)", &facts), Outcome::Passed);
    // One that is false decides, before and after the one that errs.
    assert_eq!(outcome("object.users.all(u, u.uid > 0)", &facts), Outcome::Failed);
    assert_eq!(outcome("object.users.exists(u, u.uid == 0)", &facts), Outcome::Passed);
}

#[test]
fn a_wrong_type_and_what_is_no_boolean_are_errors_of_the_rule() {
    let facts = json!({"users": [{"uid": 7}], "os": {"ID": "debian"}, "sysctls": {"a": "1"}});
    for expression in [
        "object.os.ID",
        "1",
        "object.users",
        "object.os.ID < 1",
        "object.users[0].uid.size() == 1",
        "!object.os.ID",
        "object.users.all(u, u.uid)",
        "object.sysctls['a'] + 1 == 2",
        "object.users[0].uid / 0 == 1",
        "{'a': 1}['a'] ? true : false",
    ] {
        assert_reason(&outcome(expression, &facts), Reason::RuleError, "");
    }
    assert_reason(&outcome("object.users[3].uid == 1", &facts), Reason::RuleError, "");
}

#[test]
fn json_numbers_are_what_the_api_server_makes_of_them() {
    let facts = json!({"users": [{"uid": 65534, "big": u64::MAX, "half": 0.5}]});
    for expression in [
        "object.users[0].uid == 65534",
        "object.users[0].uid % 2 == 0 && object.users[0].uid / 2 == 32767",
        "type(object.users[0].uid) == int",
        "object.users[0].uid < 65534.5 && object.users[0].uid < 65535u",
        "type(object.users[0].big) == uint",
        "object.users[0].half * 2.0 == 1.0",
    ] {
        assert_eq!(outcome(expression, &facts), Outcome::Passed, "{expression}");
    }
    // Arithmetic does not mix types.
    assert_reason(&outcome("object.users[0].uid + 1u == 65535u", &facts), Reason::RuleError, "");
}

#[test]
fn the_functions_that_rules_need_are_there() {
    let facts = json!({"os": {"ID": "Debian", "V": "12.5"}});
    for expression in [
        "object.os.ID.lowerAscii() == 'debian' && object.os.ID.upperAscii() == 'DEBIAN'",
        "object.os.V.split('.') == ['12', '5'] && object.os.V.split('.').join('-') == '12-5'",
        "object.os.V.startsWith('12') && object.os.V.endsWith('5') && object.os.V.contains('.')",
        r"object.os.V.matches(r'^\d+[.]\d+$') && int(object.os.V.split('.')[0]) > 11",
        "object.os.V.substring(0, 2) == '12' && object.os.V.replace('.', '_') == '12_5' && ' a '.trim() == 'a'",
        "object.os.exists_one(k, k == 'ID') && size(object.os) == 2 && 'ID' in object.os",
        "[1, 2, 3].filter(x, x > 1).map(x, x * 2) == [4, 6]",
        "object.os.map(k, k).size() == 2 && {'a': [1]} == {'a': [1]}",
        "'a'.charAt(0) == 'a' && 'abc'.indexOf('c') == 2 && '%s'.format(['x']) == 'x'",
    ] {
        assert_eq!(outcome(expression, &facts), Outcome::Passed, "{expression}");
    }
}

#[test]
fn nothing_rests_on_a_list_that_is_not_whole() {
    let rule = policy(
        "r",
        "    gapscan.dev/items: variables.bad\n    gapscan.dev/item: item.path\n    gapscan.dev/seen: \"'mode ' + item.perm\"\n",
        "  variables:\n  - {name: bad, expression: 'object.specialFiles.filter(f, f.perm == \"4755\")'}\n  validations:\n  - {expression: variables.bad.size() == 0, message: m}\n",
    );
    let suid = json!({"path": "/x", "perm": "4755"});
    let facts = |files: Json, unreadable: Json| json!({"specialFiles": files, "unreadable": unreadable});
    assert_eq!(judge(&rule, &facts(json!([]), json!([]))).outcome, Outcome::Passed);
    let hidden = judge(&rule, &facts(json!([]), json!(["/root", "/a", "/b", "/c"])));
    assert_reason(&hidden.outcome, Reason::UnreadablePaths, "/root, /a, /b and 1 more");
    // What was found was found.
    let found = judge(&rule, &facts(json!([suid]), json!(["/root"])));
    assert_eq!((found.outcome, found.details), (Outcome::Failed, vec![Detail::new("/x", "mode 4755")]));
    // Old facts that do not say what they could not see.
    assert_reason(&judge(&rule, &json!({"specialFiles": []})).outcome, Reason::FactMissing, "unreadable");
    // A list that was cut.
    let mut cut = facts(json!([]), json!([]));
    cut["missing"] = json!({"specialFiles": {"reason": "fact-truncated", "detail": "more than 200000"}});
    assert_reason(&judge(&rule, &cut).outcome, Reason::FactTruncated, "more than 200000");
    // A failure that names nothing may come from what is missing, and so may "not applicable".
    let exists = validates("object.specialFiles.exists(f, f.path == '/wanted')");
    assert_reason(&judge(&exists, &facts(json!([]), json!(["/root"]))).outcome, Reason::UnreadablePaths, "/root");
    let condition = policy(
        "r",
        "",
        "  matchConditions:\n  - {name: c, expression: object.specialFiles.size() > 0}\n  validations:\n  - {expression: 'true'}\n",
    );
    assert_reason(&judge(&condition, &facts(json!([]), json!(["/root"]))).outcome, Reason::UnreadablePaths, "/root");
}

#[test]
fn a_path_that_could_not_be_seen_is_not_a_path_that_is_not_there() {
    let facts = |unseen: Json| json!({"files": {"/etc/passwd": {"perm": "0644"}}, "unreadableFiles": unseen});
    let shadow = "!('/etc/shadow' in object.files)";
    assert_eq!(outcome(shadow, &facts(json!(["/root/.ssh"]))), Outcome::Passed);
    for unseen in [json!(["/etc/shadow"]), json!(["/etc"]), json!(["/"])] {
        assert_reason(&outcome(shadow, &facts(unseen)), Reason::UnreadablePaths, "/etc/shadow");
    }
    assert_eq!(outcome(shadow, &facts(json!(["/etc/shad"]))), Outcome::Passed);
    assert_reason(
        &outcome("!has(object.files['/etc/shadow'].perm)", &facts(json!(["/etc"]))),
        Reason::UnreadablePaths,
        "/etc/shadow",
    );
    assert_eq!(outcome("object.files['/etc/passwd'].perm == '0644'", &facts(json!(["/etc"]))), Outcome::Passed);
    // Walking over all of them sees only those that could be seen.
    assert_reason(
        &outcome("object.files.all(p, p.startsWith('/etc'))", &facts(json!(["/root"]))),
        Reason::UnreadablePaths,
        "/root",
    );
    assert_reason(&outcome("object.files.size() == 1", &facts(json!(["/root"]))), Reason::UnreadablePaths, "/root");
    assert_eq!(
        outcome("object.files.all(p, p.startsWith('/etc')) && size(object.files) == 1", &facts(json!([]))),
        Outcome::Passed
    );
    // Facts that do not say what they could not see.
    assert_reason(&outcome(shadow, &json!({"files": {}})), Reason::UnreadablePaths, "unreadableFiles");
    // A comparison as a whole could not say that it does not know.
    for expression in [
        "object.files != {}",
        "{} != object.files",
        "object.files != null",
        "object != null",
        "object.files == object.files",
    ] {
        assert_reason(&outcome(expression, &facts(json!(["/etc"]))), Reason::RuleError, "one by one");
    }
    // Lent to a variable it stays what it is.
    let lent = policy(
        "r",
        "",
        "  variables:\n  - {name: f, expression: object.files}\n  validations:\n  - {expression: \"!('/etc/shadow' in variables.f)\"}\n",
    );
    assert_reason(&judge(&lent, &facts(json!(["/etc"]))).outcome, Reason::UnreadablePaths, "/etc/shadow");
}

#[test]
fn conditions_say_what_does_not_apply() {
    let rule = |conditions: &str| {
        policy("r", "", &format!("  matchConditions:\n{conditions}  validations:\n  - {{expression: 'false'}}\n"))
    };
    let yes = "  - {name: yes, expression: 'true'}\n";
    let no = "  - {name: has-ssh, expression: \"'/s' in object.files\"}\n";
    let err = "  - {name: err, expression: object.sockets.size() > 0}\n";
    let facts = json!({"files": {}, "unreadableFiles": []});
    match judge(&rule(&format!("{yes}{no}")), &facts).outcome {
        Outcome::NotApplicable { reason } => assert!(reason.contains("`has-ssh`"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(judge(&rule(yes), &facts).outcome, Outcome::Failed);
    assert_reason(&judge(&rule(&format!("{yes}{err}")), &facts).outcome, Reason::FactMissing, "sockets");
    // As in the API server: one that is false decides.
    assert_eq!(judge(&rule(&format!("{err}{no}")), &facts).outcome.status(), Status::NotApplicable);
}

#[test]
fn variables_are_made_when_they_are_asked_for() {
    let rule = |check: &str| {
        policy(
            "r",
            "",
            &format!(
                "  variables:\n  - {{name: gone, expression: object.sockets}}\n  - {{name: n, expression: object.users.size()}}\n  - {{name: twice, expression: variables.n * 2}}\n  validations:\n  - {{expression: '{check}'}}\n"
            ),
        )
    };
    let facts = json!({"users": [{}, {}]});
    assert_eq!(judge(&rule("variables.twice == 4"), &facts).outcome, Outcome::Passed);
    assert_eq!(judge(&rule("[1, 2].all(x, x <= variables.twice)"), &facts).outcome, Outcome::Passed);
    assert_reason(&judge(&rule("variables.gone.size() == 0"), &facts).outcome, Reason::FactMissing, "sockets");
    assert_reason(&judge(&rule("!has(variables.gone)"), &facts).outcome, Reason::FactMissing, "sockets");
}

#[test]
fn a_rule_that_contradicts_itself_does_not_count() {
    let rule = |check: &str, items: &str| {
        policy(
            "r",
            &format!("    gapscan.dev/items: \"{items}\"\n"),
            &format!("  validations:\n  - {{expression: '{check}', message: m}}\n"),
        )
    };
    let facts = json!({});
    assert_reason(&judge(&rule("true", "['a']"), &facts).outcome, Reason::RuleError, "offending items: 1");
    assert_eq!(judge(&rule("true", "[]"), &facts).outcome, Outcome::Passed);
    assert_reason(&judge(&rule("true", "object.sockets"), &facts).outcome, Reason::FactMissing, "sockets");
    assert_reason(&judge(&rule("true", "1"), &facts).outcome, Reason::RuleError, "int, not a list");
    let failed = judge(&rule("false", "[]"), &facts);
    assert_eq!((failed.outcome, failed.details), (Outcome::Failed, vec![Detail::new("host", "m")]));
    assert_eq!(judge(&rule("false", "object.sockets"), &facts).outcome, Outcome::Failed);
}

#[test]
fn details_are_bounded_counted_and_in_order() {
    let rule = policy(
        "r",
        "    gapscan.dev/items: object.files.map(p, p)\n",
        "  validations:\n  - {expression: object.files.size() == 0, message: m}\n",
    );
    let files: serde_json::Map<_, _> = (0..50).map(|i| (format!("/f{i:02}"), json!({}))).collect();
    let limits = Limits { finding_details: 3, ..Limits::default() };
    let facts = json!({"files": files, "unreadableFiles": []});
    let finding = judge_system(&load(&rule), &facts, TargetKind::Host, &limits).remove(0);
    let names: Vec<_> = finding.details.iter().map(|d| d.subject.as_str()).collect();
    assert_eq!((names, finding.details_omitted), (vec!["/f00", "/f01", "/f02"], 47));
}

#[test]
fn work_is_bounded_whatever_the_rule_makes_of_the_error() {
    let list: Vec<_> = (0..3000).map(|i| json!({"uid": i, "name": format!("u{i}")})).collect();
    let facts = json!({"users": list});
    let limits = Limits { rule_steps: 200_000, ..Limits::default() };
    let judge = |expression: &str| {
        judge_system(&load(&validates(expression)), &facts, TargetKind::Host, &limits).remove(0).outcome
    };
    for expression in [
        "object.users.all(u, object.users.exists(v, v.uid == u.uid + 1) || true)",
        "object.users.all(u, object.users.all(v, true))",
        "object.users.exists(u, object.users.exists(v, false))",
        "object.users.filter(u, object.users.filter(v, true).size() > 0).size() >= 0",
        "object.users.map(u, object.users).size() >= 0",
        "object.users.map(u, [object.users, object.users]).size() >= 0",
        "object.users.exists_one(u, object.users.exists_one(v, v == u))",
        "object.users.all(u, u in object.users)",
        "object.users.all(u, object.users == object.users)",
        "object.users.all(u, object.users.map(v, v.name).join(',').contains('nobody') || true)",
        "object.users.all(u, u.name.matches(u.name + 'a{1,100}') || true)",
        "object.users.all(u, object.users.all(v, true)) || true",
        "true || false ? object.users.all(u, object.users.all(v, true)) : true",
        "object.users.all(a, object.users.all(b, object.users.all(c, object.users.all(d, object.users.all(e, true)))))",
    ] {
        assert_reason(&judge(expression), Reason::RuleBudget, "budget");
    }
    // What is short is not bothered, and the same budget is there for the next rule.
    assert_eq!(judge("object.users.all(u, u.uid >= 0 && u.name.startsWith('u'))"), Outcome::Passed);
    assert_eq!(judge("object.users.filter(u, u.uid > 10).map(u, u.name).size() == 2989"), Outcome::Passed);
}

#[test]
fn metering_changes_no_result() {
    let facts = json!({"users": [{"uid": 1, "tags": ["a", "b"]}, {"uid": 2, "tags": []}], "os": {"ID": "x"}});
    for expression in [
        "object.users.map(u, u.uid > 1, u.uid) == [2]",
        "object.users.map(u, u.tags) == [['a', 'b'], []]",
        "object.users.filter(u, 'a' in u.tags).size() == 1",
        "object.users.exists_one(u, u.uid == 2) && !object.users.exists_one(u, u.uid > 0)",
        "object.users.map(u, u.tags.map(t, t + string(u.uid)).join('+')) == ['a1+b1', '']",
        "(object.users + object.users).size() == 4 && [[1]] + [[2]] == [[1], [2]]",
        "[object.users[0].uid, 5] == [1, 5] && {'k': object.users[0].uid}.k == 1",
        "object.users.all(u, u.tags.all(t, t.matches('^[ab]$')))",
        "[['a', 'b'], []] == object.users.map(u, u.tags) && ['a', 'b'] == object.users[0].tags && object.users[0].tags == ['a', 'b']",
        "{'uid': 2, 'tags': []} == object.users[1] && object.users[1] == {'tags': [], 'uid': 2} && object.users[0] != object.users[1]",
        "object.users[1] in object.users && object.users[1] in [{'uid': 2, 'tags': []}] && {'uid': 2, 'tags': []} in object.users",
        "object.users[1] in object.users.filter(u, u.uid > 1) && !(object.users[0] in object.users.filter(u, u.uid > 1))",
        "[object.users[1]] == [{'uid': 2, 'tags': []}] && [{'uid': 2, 'tags': []}] == [object.users[1]] && !(['c'] in [object.users[0].tags])",
        "object.users[0].tags + ['c'] == ['a', 'b', 'c'] && ['c'] + object.users[0].tags == ['c', 'a', 'b'] && 'uid' in object.users[0]",
        "{'k': object.users[1].tags} == {'k': []} && object.users[0].tags[1u] == 'b' && object.users[0].all(k, k in ['uid', 'tags'])",
        "1.0 == 1 && 'x' == object.os.ID && object.os != {} && null == null",
    ] {
        assert_eq!(outcome(expression, &facts), Outcome::Passed, "{expression}");
    }
}

#[test]
fn names_that_nothing_defines_are_refused_when_a_rule_is_loaded() {
    for (expression, part) in [
        ("object.user.size() == 0", "there is no fact `user`"),
        ("object.missing.size() == 0", "there is no fact `missing`"),
        ("request.userInfo.username == 'a'", "`request` exists only while"),
        ("oldObject == null", "`oldObject` exists only while"),
        ("params.x", "`params` exists only while"),
        ("authorizer.group('')", "`authorizer` exists only while"),
        ("namespaceObject.metadata.name == 'a'", "nothing is named `namespaceObject`"),
        ("objekt.users == []", "nothing is named `objekt`"),
        ("item == 1", "nothing is named `item`"),
        ("variables.x == 1", "no variable `x`"),
        ("variables == {}", "`variables.NAME`"),
        ("object.users.all(u, v.uid == 1)", "nothing is named `v`"),
        ("object.users.sort() == []", "there is no function `sort`"),
        ("object.os.ID.reverse() == ''", "there is no function `reverse`"),
        ("object.os.ID.matches('(')", "`(` is no regular expression"),
        ("object.?sockets.orValue([]).size() == 0", "optional values"),
        ("T{a: 1} == 1", "no message type `T`"),
        ("object.users.all(u, ", "line 1, column"),
        ("1 +", "line 1, column"),
        ("'abc", "line 1, column"),
    ] {
        let message = refused(&validates(expression));
        assert!(
            message.contains("rule `r`: spec.validations[0].expression: ") && message.contains(part),
            "{expression}: {message}"
        );
    }
}

#[test]
fn hostile_expressions_are_refused_and_not_obeyed() {
    let deep = format!("{}1{} == 1", "(".repeat(5000), ")".repeat(5000));
    let lists = format!("{}1{} == 1", "[".repeat(5000), "]".repeat(5000));
    let nots = format!("{}true", "!".repeat(10_001));
    let sum = format!("1{} == 1", " + 1".repeat(2000));
    let chain = format!("object.os{} == 1", ".a".repeat(4000));
    let long = format!("'{}' == ''", "a".repeat(20_000));
    for expression in [deep, lists, nots, long] {
        assert!(load_for("[host]", &validates(&expression)).is_err());
    }
    for expression in [sum, chain] {
        assert!(refused(&validates(&expression)).contains("more than 80 deep"));
    }
    // The deepest that is allowed is evaluated.
    let loops = "object.users.all(a, ".repeat(8) + "true" + &")".repeat(8);
    assert_eq!(outcome(&loops, &json!({"users": [1]})), Outcome::Passed);
    let longest = format!("1{} == 78", " + 1".repeat(77));
    assert_eq!(outcome(&longest, &json!({})), Outcome::Passed);
}

#[test]
fn documents_are_read_strictly_and_every_problem_is_told() {
    let one = policy("good-one", "", "  validations:\n  - {expression: 'true'}\n");
    let bad = |name: &str, annotations: &str, spec: &str| format!("{one}---\n{}", policy(name, annotations, spec));
    let ok = "  validations:\n  - {expression: 'true'}\n";
    for (rules, part) in [
        (bad("x", "", "  validation: []\n"), "`validation`"),
        (bad("x", "", "  paramKind: {}\n  validations: []\n"), "`paramKind`"),
        (bad("x", "", "  validations: []\n"), "it could only pass"),
        (bad("Bad_Name", "", ok), "no name that Kubernetes allows"),
        (bad("x", "    gapscan.dev/itmes: '[]'\n", ok), "gapscan.dev/itmes is none of"),
        (bad("x", "    gapscan.dev/item: '1'\n", ok), "need gapscan.dev/items"),
        (bad("x", "    gapscan.dev/references: AC-6\n", ok), "`AC-6` is no SCHEME:ID"),
        (bad("good-one", "", ok), "`good-one` is in it twice"),
        (one.replace("severity: low", "severity: bad"), "`bad` is none of critical"),
        (one.replace("title: T", "titel: T"), "gapscan.dev/title is missing"),
        (one.replace("/v1\n", "/v1beta1\n"), "v1beta1"),
        (one.replace("ValidatingAdmissionPolicy", "MutatingAdmissionPolicy"), "MutatingAdmissionPolicy"),
        (one.replace("'hosts'", "hostess"), "no `hostess`"),
        (one.replace("[CREATE]", "[DELETE]"), "without CREATE"),
        (one.replace("'hosts'", "'*'"), "secrets too"),
        (one.replace("facts.gapscan.dev", "").replace("'hosts'", "secrets"), "secrets are never listed"),
        (one.replace("facts.gapscan.dev", "").replace("'hosts'", "pods/exec"), "subresource `pods/exec`"),
        (one.replace("facts.gapscan.dev", "").replace("'hosts'", "pods"), "judges nothing that the profile applies to"),
        (one.replace("'hosts'", "images"), "judges nothing that the profile applies to"),
    ] {
        let message = refused(&rules);
        assert!(message.contains(part), "{part}: {message}");
    }
    let message = refused(&bad("x", "", "  validations:\n  - {expression: 'nope'}\n  - {expression: 'nada'}\n"));
    assert!(
        message.contains("`nope`") && message.contains("`nada`") && message.contains("line 17, rule `x`"),
        "{message}"
    );
    let message = refused(&bad("x", "", "  surprise: 1\n  validations: []\n"));
    assert!(message.contains("line 30, column 3"), "the place in the file: {message}");
}

#[test]
fn a_rule_about_something_else_does_not_apply() {
    let rules = format!(
        "{}---\n{}",
        policy("h", "", "  validations:\n  - {expression: 'true'}\n"),
        on("facts.gapscan.dev", "images", "i", "", "  validations:\n  - {expression: 'true'}\n")
    );
    let profile = load_for("[host, node, image]", &rules).expect("loads");
    let statuses = |kind| {
        let findings = judge_system(&profile, &json!({}), kind, &Limits::default());
        findings.iter().map(|f| f.outcome.status()).collect::<Vec<_>>()
    };
    assert_eq!(statuses(TargetKind::Host), [Status::Passed, Status::NotApplicable]);
    assert_eq!(statuses(TargetKind::Node), [Status::Passed, Status::NotApplicable]);
    assert_eq!(statuses(TargetKind::Image), [Status::NotApplicable, Status::Passed]);
}

#[test]
fn facts_in_a_strange_form_are_not_evaluated() {
    for facts in [
        json!(null),
        json!([]),
        json!({"missing": []}),
        json!({"missing": {"users": {"reason": "made-up", "detail": ""}}}),
    ] {
        assert_reason(&outcome("true", &facts), Reason::CollectorFailed, "");
    }
    assert_reason(&outcome("object.users.size() == 0", &json!({"users": null})), Reason::RuleError, "");
    assert_reason(
        &outcome("!('/a' in object.files)", &json!({"files": null, "unreadableFiles": [1]})),
        Reason::UnreadablePaths,
        "",
    );
}

fn pods() -> Resource {
    Resource::new("", "v1", "pods")
}

fn pod_rule(spec: &str) -> String {
    on("", "pods", "p", "", spec)
}

fn judge_pods(spec: &str, facts: &ClusterFacts) -> Finding {
    let profile = load_for("[cluster]", &pod_rule(spec)).unwrap_or_else(|e| panic!("{e}"));
    judge_cluster(&profile, facts, &Limits::default()).remove(0)
}

fn pod(namespace: &str, name: &str, spec: Json) -> Json {
    json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

const NO_HOST_PID: &str = "  validations:\n  - expression: '!object.spec.hostPID'\n    message: m\n    messageExpression: \"'hostPID in ' + object.metadata.name\"\n";

#[test]
fn a_cluster_rule_is_judged_on_every_object() {
    let mut facts = ClusterFacts::default();
    facts.add(&pods(), [pod("a", "one", json!({"hostPID": false}))]);
    assert_eq!(judge_pods(NO_HOST_PID, &facts).outcome, Outcome::Passed);
    facts.add(&pods(), [pod("a", "none", json!({}))]);
    let finding = judge_pods(NO_HOST_PID, &facts);
    assert_reason(
        &finding.outcome,
        Reason::FactMissing,
        "1 of the objects could not be judged; Pod/a/none: `hostPID` is not there",
    );
    facts.add(&pods(), [pod("b", "two", json!({"hostPID": true}))]);
    let finding = judge_pods(NO_HOST_PID, &facts);
    assert_eq!(finding.outcome, Outcome::Failed);
    let details: Vec<_> = finding.details.iter().map(|d| format!("{}: {}", d.subject, d.message)).collect();
    assert_eq!(
        details,
        ["Pod/b/two: hostPID in two", "Pod/a/none: not evaluated (fact-missing): `hostPID` is not there"]
    );
    // Optional values are for objects, whose fields may be absent.
    let optional = "  validations:\n  - expression: '!object.spec.?hostPID.orValue(false)'\n";
    assert_eq!(judge_pods(optional, &facts).details.len(), 1);
}

#[test]
fn what_was_not_listed_is_not_evaluated_and_what_is_not_there_does_not_apply() {
    let mut facts = ClusterFacts::default();
    assert_reason(&judge_pods(NO_HOST_PID, &facts).outcome, Reason::FactMissing, "v1/pods was not listed");
    facts.miss(&pods(), Missing { reason: Reason::AccessDenied, detail: "pods is forbidden".to_owned() });
    assert_reason(&judge_pods(NO_HOST_PID, &facts).outcome, Reason::AccessDenied, "pods is forbidden");
    // Half a list can fail, and can't pass.
    facts.add(&pods(), [pod("a", "one", json!({"hostPID": false}))]);
    assert_reason(&judge_pods(NO_HOST_PID, &facts).outcome, Reason::AccessDenied, "pods is forbidden");
    facts.add(&pods(), [pod("a", "two", json!({"hostPID": true}))]);
    assert_eq!(judge_pods(NO_HOST_PID, &facts).outcome, Outcome::Failed);
    let mut empty = ClusterFacts::default();
    empty.add(&pods(), []);
    assert_eq!(
        judge_pods(NO_HOST_PID, &empty).outcome,
        Outcome::NotApplicable { reason: "the cluster has none of v1/pods".to_owned() }
    );
}

#[test]
fn a_rule_sees_the_namespace_of_an_object() {
    let spec = "  matchConditions:\n  - {name: not-ours, expression: \"namespaceObject == null || !has(namespaceObject.metadata.labels)\"}\n  validations:\n  - {expression: 'false'}\n";
    let profile = load_for("[cluster]", &pod_rule(spec)).expect("loads");
    assert_eq!(profile.resources().iter().map(ToString::to_string).collect::<Vec<_>>(), ["v1/namespaces", "v1/pods"]);
    let mut facts = ClusterFacts::default();
    facts.add(&pods(), [pod("ours", "one", json!({}))]);
    facts.add(&Resource::namespaces(), [json!({"metadata": {"name": "ours", "labels": {}}})]);
    match judge_pods(spec, &facts).outcome {
        Outcome::NotApplicable { reason } => assert!(reason.contains("`not-ours`"), "{reason}"),
        other => panic!("{other:?}"),
    }
    facts.add(&pods(), [pod("elsewhere", "two", json!({}))]);
    assert_reason(&judge_pods(spec, &facts).outcome, Reason::FactMissing, "namespaceObject");
    let different = "  validations:\n  - {expression: 'namespaceObject != null'}\n";
    assert_reason(&judge_pods(different, &facts).outcome, Reason::FactMissing, "namespaceObject");
    facts.add(&Resource::namespaces(), [json!({"metadata": {"name": "elsewhere"}})]);
    assert_eq!(judge_pods(spec, &facts).details, [Detail::new("Pod/elsewhere/two", "does not hold: false")]);
}

#[test]
fn an_object_outside_of_namespaces_has_null_for_one() {
    let rule = on(
        "",
        "nodes",
        "n",
        "",
        "  validations:\n  - {expression: 'namespaceObject == null && object.kind == \"Node\" && object.apiVersion == \"v1\"'}\n",
    );
    let profile = load_for("[cluster]", &rule).expect("loads");
    let mut facts = ClusterFacts::default();
    facts.add(&Resource::new("", "v1", "nodes"), [json!({"metadata": {"name": "n"}})]);
    facts.add(&Resource::namespaces(), []);
    assert_eq!(judge_cluster(&profile, &facts, &Limits::default()).remove(0).outcome, Outcome::Passed);
}

/// The names of a struct's fields, as serde knows them.
struct Fields(Vec<&'static str>);

impl<'de> serde::Deserializer<'de> for &mut Fields {
    type Error = serde::de::value::Error;

    fn deserialize_struct<V: serde::de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        self.0 = fields.to_vec();
        Err(serde::de::Error::custom("only the names are wanted"))
    }

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("not a struct"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[test]
fn every_fact_can_be_asked_for() {
    let mut fields = Fields(Vec::new());
    let _ = <crate::native::facts::SystemFacts as serde::Deserialize>::deserialize(&mut fields);
    assert!(!fields.0.is_empty());
    for field in fields.0.into_iter().filter(|field| *field != "missing") {
        assert!(object::FACTS.contains(&field), "{field}");
    }
}

#[test]
fn namespaces_are_judged_with_their_policies() {
    let rule = on(
        "facts.gapscan.dev",
        "namespaces",
        "n",
        "",
        "  validations:\n  - {expression: object.networkPolicies.size() > 0, message: none}\n",
    );
    let profile = load_for("[cluster]", &rule).expect("loads");
    assert_eq!(
        profile.resources().into_iter().collect::<Vec<_>>(),
        [Resource::namespaces(), Resource::network_policies()]
    );
    let mut facts = ClusterFacts::default();
    facts.add(&Resource::namespaces(), [json!({"metadata": {"name": "a"}}), json!({"metadata": {"name": "b"}})]);
    let judge = |facts: &ClusterFacts| judge_cluster(&profile, facts, &Limits::default()).remove(0);
    assert_reason(&judge(&facts).outcome, Reason::FactMissing, "networkpolicies was not listed");
    facts.add(&Resource::network_policies(), [json!({"metadata": {"name": "deny", "namespace": "a"}})]);
    assert_eq!(judge(&facts).details, [Detail::new("Namespace/b", "none")]);
    facts.miss(&Resource::network_policies(), Missing { reason: Reason::Timeout, detail: "page 2".to_owned() });
    assert_reason(&judge(&facts).outcome, Reason::Timeout, "page 2");
}
