use super::*;
use crate::report::sample;

/// The status that inspecjs computes (compat_inspec_1_0, `compute_status`), written again from its rules.
fn read_status(control: &Value) -> &'static str {
    let waived = control["waiver_data"]["skipped_due_to_waiver"] == json!(true);
    let results: Vec<&str> =
        control["results"].as_array().expect("a list").iter().map(|r| r["status"].as_str().expect("a word")).collect();
    if waived || control["impact"].as_f64() == Some(0.0) {
        "Not Applicable"
    } else if results.contains(&"failed") {
        "Failed"
    } else if results.contains(&"passed") {
        "Passed"
    } else if results.contains(&"skipped") {
        "Not Reviewed"
    } else {
        "Profile Error"
    }
}

fn documents(report: &Report) -> Vec<Value> {
    render(report).iter().map(|file| serde_json::from_slice(&file.json).expect("JSON")).collect()
}

fn controls(document: &Value) -> &Vec<Value> {
    let profiles = document["profiles"].as_array().expect("a list");
    assert_eq!(profiles.len(), 1, "only the first profile of a file is counted by its readers");
    profiles[0]["controls"].as_array().expect("a list")
}

#[test]
fn readers_count_what_the_ledger_counted() {
    for report in [sample::report(), sample::hostile()] {
        for (document, task) in documents(&report).iter().zip(&report.tasks) {
            let coverage = task.record().coverage;
            let read = |status| controls(document).iter().filter(|c| read_status(c) == status).count() as u64;
            assert_eq!(read("Passed"), coverage.count(Status::Passed));
            assert_eq!(read("Failed"), coverage.count(Status::Failed));
            assert_eq!(read("Not Applicable"), coverage.count(Status::NotApplicable));
            let not_reviewed = coverage.count(Status::NotEvaluated) + coverage.count(Status::Waived);
            assert_eq!(read("Not Reviewed"), not_reviewed);
            assert_eq!(read("Profile Error"), 0);
        }
    }
}

#[test]
fn no_control_that_counts_has_a_severity_that_readers_drop() {
    for document in documents(&sample::report()) {
        for control in controls(&document) {
            if read_status(control) != "Not Applicable" {
                assert_ne!(control["tags"]["severity"], "none", "{control}");
                assert!(control["impact"].as_f64().expect("a number") >= 0.1, "{control}");
            }
        }
    }
}

#[test]
fn what_the_schema_requires_is_there() {
    for document in documents(&sample::report()) {
        for field in ["platform", "profiles", "statistics", "version"] {
            assert!(!document[field].is_null(), "{field}");
        }
        let profile = &document["profiles"][0];
        for field in ["name", "sha256", "supports", "attributes", "groups", "controls"] {
            assert!(!profile[field].is_null(), "{field}");
        }
        for control in controls(&document) {
            for field in ["id", "title", "desc", "impact", "refs", "tags", "code", "source_location", "results"] {
                assert!(!control[field].is_null(), "{field}");
            }
            for result in control["results"].as_array().expect("a list") {
                assert!(["passed", "failed", "skipped"].contains(&result["status"].as_str().expect("a word")));
                assert!(result["code_desc"].is_string() && result["run_time"].is_number());
                assert!(result["start_time"].is_string());
            }
        }
    }
}

#[test]
fn a_reference_can_not_change_the_severity() {
    let mut report = sample::report();
    let task = &report.tasks[0];
    let mut profile = task.profile().clone();
    for scheme in ["severity", "severityoverride", "gapscan"] {
        profile.controls[1]
            .references
            .push(crate::model::control::Reference { scheme: scheme.to_owned(), id: "none".to_owned() });
    }
    let record = task.record().clone();
    let changed = sample::task(record.target, profile, record.provenance, record.findings, Vec::new());
    report.tasks = vec![changed];
    let document = documents(&report).remove(0);
    let tags = &controls(&document)[1]["tags"];
    assert_eq!(tags["severity"], "high");
    assert!(tags.get("severityoverride").is_none());
    assert_eq!(tags["gapscan"]["outcome"], "failed");
}

#[test]
fn hostile_texts_are_neutral_and_names_are_safe() {
    let files = render(&sample::hostile());
    for file in &files {
        let text = String::from_utf8(file.json.clone()).expect("UTF-8");
        assert!(!text.contains("\\u00"), "a control character is in it");
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{2028}', '\u{7f}', '\u{9b}']));
        let safe = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        assert!(file.name.bytes().all(safe) && file.name.len() <= 200 && !file.name.starts_with('.'), "{}", file.name);
    }
}

#[test]
fn every_file_has_a_name_of_its_own() {
    let mut report = sample::report();
    let twice = report.tasks.clone();
    report.tasks.extend(twice);
    let names: HashSet<String> = render(&report).into_iter().map(|f| f.name).collect();
    assert_eq!(names.len(), report.tasks.len());
}

#[test]
fn a_document_stays_what_it_is() {
    let mut report = sample::report();
    report.tasks.retain(|t| t.record().target.key().contains("web-"));
    let file = render(&report).remove(0);
    insta::assert_snapshot!(String::from_utf8(file.json).expect("UTF-8"));
}

#[test]
fn the_saf_cli_counts_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    for report in [sample::report(), sample::hostile()] {
        for (file, task) in render(&report).iter().zip(&report.tasks) {
            let path = folder.path().join("hdf.json");
            std::fs::write(&path, &file.json).expect("write");
            let run = std::process::Command::new("saf")
                .args(["view", "summary", "--stdout", "--format", "json", "--logLevel", "error", "-i"])
                .arg(&path)
                .output();
            let Ok(run) = run else {
                println!("skipped: needs saf");
                return;
            };
            let text = String::from_utf8_lossy(&run.stdout);
            let json = text.find('[').map_or("", |start| &text[start..]);
            let summary: Value = serde_json::from_str(json).expect(&text);
            let coverage = task.record().coverage;
            let total = |name: &str| summary[0][name]["total"].as_u64().expect(name);
            assert_eq!(total("passed"), coverage.count(Status::Passed));
            assert_eq!(total("failed"), coverage.count(Status::Failed));
            assert_eq!(total("no_impact"), coverage.count(Status::NotApplicable));
            assert_eq!(total("skipped"), coverage.count(Status::NotEvaluated) + coverage.count(Status::Waived));
            assert_eq!(total("error"), 0);
            let compliance = summary[0]["compliance"].as_u64().expect("a number");
            let score = coverage.score().unwrap_or(0);
            assert!(compliance == score || compliance == score + 1, "{compliance} is {score}, rounded another way");
        }
    }
}
