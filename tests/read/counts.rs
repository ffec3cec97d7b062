//! Results of real scanners, counted by `jq` and `xmllint`: other programs, in their own languages, on the same files.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{corpus, number, read, xccdf};

/// What a program prints of a file; none where there is no such program.
fn said_by(program: &str, arguments: &[&str], path: &Path) -> Option<Vec<u64>> {
    let output = match Command::new(program).args(arguments).arg(path).output() {
        Ok(output) => output,
        Err(_) => {
            println!("skipped: needs {program}");
            return None;
        }
    };
    assert!(output.status.success(), "{program} {path:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("numbers");
    Some(text.split_whitespace().map(|word| word.parse().expect("a number")).collect())
}

fn numbers(said: &Value, what: &str) -> Vec<u64> {
    ["passed", "failed", "notApplicable", "notEvaluated"].iter().map(|key| number(&said[what][key])).collect()
}

/// Controls of all profiles merged by id: the worst of all results, and the impact of the profile that no other one includes.
const INSPEC: &str = r#"
  def broke: (.exception // "") as $e | $e != "" and ($e | startswith("RSpec::Core::MultipleException") | not);
  .profiles as $profiles
  | [$profiles[] | .name as $p | (.parent_profile // "") as $parent | .controls[] | {id, impact, depth: (if $parent == "" then 0 else
      (first($profiles[] | select(.name == $parent)) | if (.parent_profile // "") == "" then 1 else 2 end) end), results: (.results // [])}]
  | group_by(.id)
  | map({impact: (min_by(.depth) | .impact), results: (map(.results) | add)})
  | map(if any(.results[]; .status == "failed" and (broke | not)) then 1
        elif (.results | length) == 0 or any(.results[]; broke) then 3
        elif .impact == 0 then 2
        elif any(.results[]; .status != "passed") then 3
        else 0 end) as $ends
  | (range(4) as $n | [$ends[] | select(. == $n)] | length),
    ([.[].results[] | select(.status == "passed")] | length), ([.[].results[]] | length)
"#;

#[test]
fn inspec_is_counted_as_by_jq() {
    let Some(corpus) = corpus() else { return };
    for name in [
        "k8s-node-stig-live",
        "nginx-results",
        "one-of-each-status",
        "passed-only",
        "rhel7-results",
        "skipped-only",
        "small",
        "three-layer-overlay",
        "waived",
        "wrapper-profile",
    ] {
        let path = corpus.join("inspec").join(name).with_extension("json");
        let Some(expected) = said_by("jq", &[INSPEC], &path) else { return };
        let said = read(&path);
        assert_eq!(numbers(&said, "controls"), expected[..4], "{name}");
        let findings = [&said["findings"]["passed"], &said["findings"]["total"]].map(number);
        assert_eq!(findings, expected[4..], "{name}");
    }
}

/// Every result that broke says so, with what it said, and every waiver is named.
#[test]
fn exceptions_and_waivers_of_inspec_are_kept() {
    let Some(corpus) = corpus() else { return };
    let broke = r#"def broke: (.exception // "") as $e | $e != "" and ($e | startswith("RSpec::Core::MultipleException") | not);
        [.profiles[].controls[].results[]? | select(broke)] | length, ([.[].exception] | unique | length)"#;
    let waived = r#"[.profiles[].controls[] | select((.waiver_data // {}) != {})] | length"#;
    for name in
        ["rhel7-results", "three-layer-overlay", "nginx-results", "one-of-each-status", "waived", "wrapper-profile"]
    {
        let path = corpus.join("inspec").join(name).with_extension("json");
        let Some(expected) = said_by("jq", &[broke], &path) else { return };
        let output = super::gapscan(&[path.to_str().expect("UTF-8"), "-o", "json", "--list", "100000"]);
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let findings = super::items(&said, "/findingList");
        let errors: Vec<&str> = findings
            .iter()
            .filter(|finding| finding["reason"] == "rule-error")
            .map(|finding| finding["messages"][0].as_str().expect("what it said"))
            .collect();
        assert_eq!(errors.len() as u64, expected[0], "{name}");
        let named = said_by("jq", &[waived], &path).expect("jq was there")[0];
        let notes = super::items(&said, "/notes").iter().filter_map(Value::as_str);
        let waivers: Vec<&str> = notes.filter(|note| note.starts_with("the scanner has waivers")).collect();
        assert_eq!(waivers.len(), usize::from(named > 0), "{name}");
    }
}

#[test]
fn lists_of_findings_are_counted_as_by_jq() {
    let Some(corpus) = corpus() else { return };
    for (path, program, what) in [
        ("grype/amazon.json", "[0, (.matches | length), 0, 0][]", "findings"),
        ("grype/fixture-image.json", "[0, (.matches | length), 0, 0][]", "findings"),
        ("kube-bench/result.json", KUBE_BENCH, "controls"),
        ("kube-bench/result-no-totals.json", KUBE_BENCH, "controls"),
        ("kube-bench/passed.json", KUBE_BENCH, "controls"),
        ("trivy/alpine-310.json", TRIVY, "findings"),
        ("trivy/debian-buster.json", TRIVY, "findings"),
        ("trivy/distroless-base.json", TRIVY, "findings"),
        ("trivy/dockerfile.json", TRIVY, "findings"),
        ("trivy/helm.json", TRIVY, "findings"),
        ("trivy/npm.json", TRIVY, "findings"),
        ("sarif/sarif-input.sarif", SARIF, "findings"),
        ("trivy/alpine-310.sarif", SARIF, "findings"),
    ] {
        let file = corpus.join(path);
        // One of them is no JSON that another program can read.
        if serde_json::from_slice::<Value>(&std::fs::read(&file).expect("a file")).is_err() {
            continue;
        }
        let Some(expected) = said_by("jq", &[program], &file) else { return };
        assert_eq!(numbers(&read(&file), what), expected, "{path}");
    }
}

const KUBE_BENCH: &str = r#"
  [(if type == "array" then .[] else .Controls[] end).tests[].results[].status] as $all
  | def many($word): [$all[] | select(. == $word)] | length;
  many("PASS"), many("FAIL"), 0, many("WARN") + many("INFO")
"#;

const TRIVY: &str = r#"
  [.Results[]? | .Vulnerabilities[]? | .Status // ""] as $found | [.Results[]? | .Misconfigurations[]? | .Status] as $checks
  | def many($list; $words): [$list[] | select(. as $word | $words | index([$word]))] | length;
  many($checks; ["PASS"]),
  many($checks; ["FAIL"]) + many($found; ["", "unknown", "affected", "fixed", "will_not_fix", "fix_deferred", "end_of_life"]),
  many($found; ["not_affected"]),
  many($checks; ["EXCEPTION"]) + many($found; ["under_investigation"])
"#;

const SARIF: &str = r#"
  [.runs[].results[]? | .kind // "fail"] as $all
  | def many($words): [$all[] | select(. as $word | $words | index([$word]))] | length;
  many(["pass"]), many(["fail"]), many(["notApplicable"]), many(["open", "review", "informational"])
"#;

#[test]
fn xml_is_counted_as_by_xmllint() {
    let Some(corpus) = corpus() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for path in xccdf(&corpus, folder.path()) {
        let rules = |words: &[&str]| {
            let results = "//*[local-name()='TestResult']/*[local-name()='rule-result']/*[local-name()='result']";
            let any = words.iter().map(|word| format!("normalize-space()='{word}'")).collect::<Vec<_>>().join(" or ");
            said_by("xmllint", &["--huge", "--xpath", &format!("count({results}[{any}])")], &path).map(|n| n[0])
        };
        let all = [
            &["pass"][..],
            &["fail", "fixed"],
            &["notapplicable"],
            &["error", "unknown", "notchecked", "informational"],
        ];
        let expected: Option<Vec<u64>> = all.into_iter().map(rules).collect();
        let Some(expected) = expected else { return };
        assert_eq!(numbers(&read(&path), "findings"), expected, "{}", path.display());
    }
    let junit = corpus.join("trivy/alpine-310.junit");
    let count =
        |what: &str| said_by("xmllint", &["--xpath", &format!("count(//testcase{what})")], &junit).map(|n| n[0]);
    let (Some(cases), Some(failures)) = (count(""), count("[failure]")) else { return };
    assert_eq!(numbers(&read(&junit), "controls"), [cases - failures, failures, 0, 0]);
}
