//! Waivers as they are used: a document is written, approved by two people, checked, and goes into the record of a scan.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use gapscan::base::digest::Digest;
use gapscan::ledger::LedgerReader;
use gapscan::model::outcome::{Outcome, Status};
use gapscan::model::record::TaskRecord;
use gapscan::trust::key::RoleKey;
use gapscan::trust::public::to_pem;
use serde_json::Value;

/// A folder with a plan, and two people who may approve waivers.
struct Desk {
    folder: tempfile::TempDir,
}

const HOSTILE: &str = "<script>alert(1)</script> =cmd|' /C calc'!A0 \u{1b}[2J\u{202e}";

impl Desk {
    fn new(policy: &str) -> Self {
        let desk = Self { folder: tempfile::tempdir().expect("a folder") };
        for name in ["alice", "bob", "mallory"] {
            let key = RoleKey::generate();
            key.write(&desk.path(&format!("{name}.pem")), None).expect("a key");
            fs::write(desk.path(&format!("{name}.pub")), to_pem(key.public()).expect("a P-256 key")).expect("write");
        }
        desk.plan(policy);
        desk
    }

    fn plan(&self, policy: &str) {
        let plan = format!(
            "apiVersion: gapscan/v1\nkind: Plan\nname: desk\nledger: ledger.sqlite\npolicy:\n  waivers: {policy}\nscans:\n\
             - {{name: host, targets: [host]}}\n"
        );
        fs::write(self.path("plan.yaml"), plan).expect("write");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn waivers(&self, more: &str) {
        let reason = serde_json::to_string(HOSTILE).expect("a text");
        let text = format!(
            "apiVersion: gapscan/v1\nkind: Waivers\nwaivers:\n- id: RISK-1\n  controls: ['*']\n  profile: host-baseline\n  \
             targets: [host]\n  reason: {reason}\n  requestedBy: operator\n  expires: 2200-01-01\n{more}"
        );
        fs::write(self.path("waivers.yaml"), text).expect("write");
    }

    fn run(&self, words: &[&str], code: i32) -> (String, String) {
        let mut command = Command::cargo_bin("gapscan").expect("the binary");
        command.env_remove("GAPSCAN_LEDGER").env_remove("GAPSCAN_CLASSIFICATION").current_dir(self.folder.path());
        let output = command.args(words).assert().code(code).get_output().clone();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (text(output.stdout), text(output.stderr))
    }

    fn scan(&self) -> (i32, String) {
        let mut command = Command::cargo_bin("gapscan").expect("the binary");
        command.env_remove("GAPSCAN_LEDGER").current_dir(self.folder.path());
        let output = command.args(["scan", "-f", "plan.yaml"]).output().expect("it runs");
        (output.status.code().expect("an exit code"), String::from_utf8(output.stderr).expect("UTF-8"))
    }

    fn latest(&self) -> TaskRecord {
        let reader = LedgerReader::open(&self.path("ledger.sqlite")).expect("a ledger");
        reader.latest().expect("results").pop().expect("a result")
    }

    fn events(&self, what: &str) -> Vec<String> {
        let reader = LedgerReader::open(&self.path("ledger.sqlite")).expect("a ledger");
        let run = self.latest().run.to_string();
        let events = reader.events().expect("events").into_iter();
        events.filter(|event| event.what == what && event.subject == run).map(|event| event.detail).collect()
    }
}

fn outcomes(record: &TaskRecord) -> BTreeMap<String, Status> {
    record.findings.iter().map(|f| (f.control.clone(), f.outcome.status())).collect()
}

fn is_clean(text: &str) -> bool {
    !text.contains('\u{1b}') && !text.contains('\u{202e}')
}

#[test]
fn two_people_accept_what_failed_and_everybody_is_told() {
    let desk = Desk::new("{files: [waivers.yaml], approvers: [alice.pub, bob.pub]}");
    desk.waivers("- {id: RISK-2, controls: [no-such], profile: host-baseline, targets: all, reason: r, requestedBy: o, expires: 2200-01-01}\n- {id: RISK-3, controls: ['*'], profile: host-baseline, targets: all, reason: r, requestedBy: o, expires: 2020-01-01}\n");
    let (signed, _) = desk.run(&["waive", "sign", "waivers.yaml", "--key", "alice.pem"], 0);
    let digest = Digest::of(fs::read(desk.path("waivers.yaml")).expect("read"));
    assert!(signed.contains(&digest.to_string()), "{signed}");
    desk.run(&["waive", "sign", "waivers.yaml", "--key", "mallory.pem"], 0);

    // One of two, and somebody who is not named: the scan takes place, nothing is waived, and it is said everywhere.
    let (checked, _) = desk.run(&["waive", "check", "-f", "plan.yaml"], 4);
    assert!(checked.contains("DOES NOT COUNT") && checked.contains("not named, by"), "{checked}");
    let (code, said) = desk.scan();
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("do not count: 1 of those who may approve it have signed it, and 2 have to"), "{said}");
    let unwaived = desk.latest();
    assert_eq!(desk.events("waivers-refused").len(), 1);
    assert_eq!(unwaived.coverage.count(Status::Waived), 0);
    let failed = unwaived.coverage.count(Status::Failed);
    assert_eq!(unwaived.notes.iter().any(|note| note.contains("do not count")), failed > 0);

    // The second: exactly what failed is waived.
    desk.run(&["waive", "sign", "waivers.yaml", "--key", "bob.pem"], 0);
    let (checked, _) = desk.run(&["waive", "check", "-f", "plan.yaml", "-o", "json"], 0);
    assert!(is_clean(&checked) || checked.contains("\\u001b"));
    let checked: Value = serde_json::from_str(&checked).expect("JSON");
    let standing = |at: usize| checked[0]["waivers"][at]["standing"].as_str().map(str::to_owned);
    assert_eq!(standing(0).as_deref(), Some("counts"));
    assert_eq!(checked[0]["waivers"][0]["fits"].as_array().map(Vec::len), Some(unwaived.findings.len()));
    assert_eq!(checked[0]["waivers"][1]["fits"].as_array().map(Vec::len), Some(0));
    assert_eq!(standing(2).as_deref(), Some("expired"));
    let (code, said) = desk.scan();
    let waived = desk.latest();
    assert_eq!(code, if waived.coverage.is_complete() { 0 } else { 3 }, "{said}");
    assert!(said.contains("`RISK-2` of `waivers.yaml` fits no control"), "{said}");
    let (before, after) = (outcomes(&unwaived), outcomes(&waived));
    for (control, status) in &before {
        let expected = if *status == Status::Failed { Status::Waived } else { *status };
        assert_eq!(after[control], expected, "{control}");
    }
    for finding in waived.with_status(Status::Waived) {
        assert!(matches!(&finding.outcome, Outcome::Waived { waiver, id, .. } if *waiver == digest && id == "RISK-1"));
    }
    assert_eq!(desk.events("waiver-unmatched").len(), 1);
    assert_eq!(desk.events("waiver-expired").len(), 1);
    if waived.coverage.count(Status::NotEvaluated) > 0 {
        assert!(waived.notes.iter().any(|note| note.contains("never waived")), "{:?}", waived.notes);
    }
    let reader = LedgerReader::open(&desk.path("ledger.sqlite")).expect("a ledger");
    let kept = reader.evidence(&digest).expect("it can be read").expect("the document is kept");
    assert_eq!(Digest::of(kept), digest);
    assert_eq!(waived.waivers[0].approvals.len(), 2);
    assert_eq!(waived.evidence.iter().filter(|e| e.name.starts_with("waivers-signature ")).count(), 2);
    desk.run(&["ledger", "verify", "-L", "ledger.sqlite"], 0);

    // Hostile texts are neutralised wherever they are shown.
    let (results, _) = desk.run(&["results", "-L", "ledger.sqlite", "--status", "waived"], 0);
    assert!(is_clean(&results), "{results}");
    assert!(results.contains("unmatched") && results.contains("expired") && results.contains("RISK-2"), "{results}");
    for format in ["html", "jsonl", "hdf"] {
        let (report, _) = desk.run(&["export", "-L", "ledger.sqlite", "--format", format], 0);
        assert!(is_clean(&report), "{format}");
        assert!(report.contains("RISK-2") && report.contains("RISK-3"), "{format}");
        if format == "html" {
            assert!(!report.contains("<script>alert"), "{format}");
        }
    }

    // One line end is another document.
    let text = fs::read_to_string(desk.path("waivers.yaml")).expect("read");
    fs::write(desk.path("waivers.yaml"), text.replacen('\n', "\r\n", 1)).expect("write");
    let (code, said) = desk.scan();
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("changed after it was approved"), "{said}");
    assert_eq!(outcomes(&desk.latest()), before);
}

#[test]
fn unsigned_waivers_count_only_where_policy_says_so_and_reports_say_it() {
    let desk = Desk::new("{files: [waivers.yaml]}");
    desk.waivers("");
    assert_eq!(desk.scan().0, 4);
    assert_eq!(desk.latest().coverage.count(Status::Waived), 0);
    desk.plan("{files: [waivers.yaml], unsigned: accept}");
    let (code, said) = desk.scan();
    assert!([0, 3].contains(&code) && said.contains("unsigned"), "{said}");
    assert_eq!(desk.latest().coverage.count(Status::Failed), 0);
    let (results, _) = desk.run(&["results", "-L", "ledger.sqlite"], 0);
    assert!(results.contains("unsigned"), "{results}");
    for format in ["html", "jsonl", "hdf"] {
        assert!(desk.run(&["export", "-L", "ledger.sqlite", "--format", format], 0).0.contains("unsigned"), "{format}");
    }
    // A typo drops the waivers and says so; the scan takes place.
    fs::write(desk.path("waivers.yaml"), "apiVersion: gapscan/v1\nkind: Waivers\nwaivres: []\n").expect("write");
    let (code, said) = desk.scan();
    assert!(code == 4 && said.contains("waivres"), "{said}");
    let (doctor, _) = desk.run(&["doctor", "-f", "plan.yaml"], 4);
    assert!(doctor.contains("waivers") && doctor.contains("waivres"), "{doctor}");
    for impossible in [
        "{files: [w.yaml], approvers: [alice.pub]}",
        "{files: [w.yaml], approvers: [alice.pub, bob.pub], threshold: 3}",
        "{files: [w.yaml], threshold: 1}",
        "{files: [w.yaml], approvers: [alice.pub, bob.pub], unsigned: accept}",
        "{files: [w.yaml], treshold: 1}",
    ] {
        desk.plan(impossible);
        assert_eq!(desk.scan().0, 2, "{impossible}");
    }
}

/// A result that somebody else's scan made is recorded as it came, whatever anybody accepts.
#[test]
fn a_waiver_for_what_was_imported_changes_nothing_and_says_why() {
    let desk = Desk::new("{files: [waivers.yaml], unsigned: accept}");
    let result = serde_json::json!({
        "platform": { "name": "debian", "release": "12" }, "statistics": { "duration": 1.0 }, "version": "6.8.1",
        "profiles": [{ "name": "ssh-baseline", "sha256": "x", "status": "loaded", "controls": [{
            "id": "sshd-01", "title": "t", "impact": 0.5, "tags": {},
            "results": [{ "status": "failed", "code_desc": "it is" }],
        }] }],
    });
    fs::write(desk.path("r.json"), result.to_string()).expect("write");
    let imported = desk.run(&["import", "r.json", "--target", "host", "-L", "ledger.sqlite", "-o", "json"], 0).0;
    let imported: Value = serde_json::from_str(&imported).expect("JSON");
    let profile = imported["profile"]["name"].as_str().expect("a name");
    let waiver = format!(
        "- {{id: RISK-9, controls: [sshd-01], profile: {profile}, targets: all, reason: r, requestedBy: o, expires: 2200-01-01}}\n"
    );
    desk.waivers(&waiver);
    let (code, said) = desk.scan();
    assert!([0, 3].contains(&code), "{said}");
    let why = "of results that were imported or came as alerts, which no waiver changes";
    assert!(said.contains("`RISK-9` of `waivers.yaml` fits no control of the latest results but 1 of"), "{said}");
    let (checked, _) = desk.run(&["waive", "check", "-f", "plan.yaml"], 0);
    assert!(checked.contains("unmatched") && checked.contains("not for 1 control of results"), "{checked}");
    let (checked, _) = desk.run(&["waive", "check", "-f", "plan.yaml", "-o", "json"], 0);
    let checked: Value = serde_json::from_str(&checked).expect("JSON");
    assert_eq!(
        (&checked[0]["waivers"][1]["unchanged"], &checked[0]["waivers"][1]["fits"]),
        (&1.into(), &Value::Array(Vec::new()))
    );
    for format in ["html", "jsonl"] {
        assert!(desk.run(&["export", "-L", "ledger.sqlite", "--format", format], 0).0.contains(why), "{format}");
    }
    let reader = LedgerReader::open(&desk.path("ledger.sqlite")).expect("a ledger");
    let latest = reader.latest().expect("results");
    let imported = latest.iter().find(|record| record.provenance.imported.is_some()).expect("it is there");
    assert_eq!(imported.findings.iter().find(|f| f.control == "sshd-01").expect("it").outcome, Outcome::Failed);
}

fn imported(folder: &Path, text: &str, words: &[&str], code: i32) -> (String, String) {
    let file = folder.join("inspec.yml");
    fs::write(&file, text).expect("write");
    let mut command = Command::cargo_bin("gapscan").expect("the binary");
    command.args(["waive", "import", "--profile", "ssh-baseline", "--requested-by", "operator"]).args(words).arg(&file);
    let output = command.assert().code(code).get_output().clone();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr))
}

#[test]
fn a_waiver_file_of_inspec_becomes_a_document_and_what_it_can_not_say_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "waiver_control_1_2_3:\n  expiration_date: 2200-07-15\n  justification: 'Not needed: \"until\" then'\n\
                xccdf_org.cisecurity_1.10:\n  expiration_date: 2020-02-01\n  run: false\n  justification: old\n\
                no-end: {justification: because}\nno-reason: {expiration_date: 2200-01-01}\n";
    let (document, said) = imported(folder.path(), text, &["--target", "node/*"], 2);
    for part in ["run: false", "expired at 2020-02-01", "no-end", "no-reason"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let path = folder.path().join("waivers.yaml");
    fs::write(&path, &document).expect("write");
    let waivers = gapscan::model::waiver::read(&path, &document).expect("a good document");
    let controls: Vec<&str> = waivers.iter().map(|w| w.controls[0].as_str()).collect();
    assert_eq!(controls, ["waiver_control_1_2_3", "xccdf_org.cisecurity_1.10"]);
    assert_eq!(waivers[0].reason, "Not needed: \"until\" then");
    let (_, said) = imported(folder.path(), text, &["--all-targets", "--expires", "2200-01-01"], 2);
    assert!(!said.contains("no-end") && said.contains("no-reason"), "{said}");
    let (document, _) =
        imported(folder.path(), "a: {justification: '- x: [', expiration_date: 2200-01-01}\n", &["--all-targets"], 0);
    assert!(document.contains("targets: all"), "{document}");
    imported(folder.path(), "a: {justification: x, expiration_date: 2200-01-01}\n", &["--target", "everything"], 2);
    imported(folder.path(), "- a\n", &["--all-targets"], 2);
}
