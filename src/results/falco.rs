//! Falco's alerts as JSON lines (`json_output: true`): evidence of what happened.
//!
//! An alert is a finding that failed, and fails the control that is its rule, with `_` for white space in its name. A rule
//! that does not appear did not pass: nothing in the lines says which rules were loaded, or whether Falco ran all the time.
//! Alerts of Falco on itself, that it lost events, are gaps.
//!
//! Identity of a finding: the rule, the source, the host, namespace, pod and container, the program, the file or connection,
//! and the user; the same alert once more is the same finding.

use std::io::Read;

use jiff::Timestamp;

use super::ResultsError;
use super::event::{Declared, FindingKind, Out, Reported, identity, keep, reference};
use super::json::{Json, Kind};
use super::severity;
use crate::base::limits::Limits;
use crate::model::control::{Reference, Severity};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;

const FORMAT: &str = "Falco JSON lines";

/// The fields that tell an alert from others of one rule.
const FIELDS: [&str; 6] = ["k8s.ns.name", "k8s.pod.name", "container.name", "proc.name", "fd.name", "user.name"];

/// The rules of Falco's alerts on itself, that it did not see all.
const LOST_EVENTS: [&str; 3] = [
    "Falco internal: syscall event drop",
    "Falco internal: timeouts notification",
    "Falco internal: hot restart failure",
];

/// One alert, as Falco has it. Its texts come from what it watches: whoever shows them neutralises them.
#[derive(Clone, Debug, Default)]
pub struct Alert {
    /// The rule's name.
    pub rule: String,
    priority: String,
    source: String,
    /// The name of the machine that Falco runs on.
    pub host: String,
    /// The sentence about it.
    pub output: String,
    /// When it was, where that is a moment.
    pub at: Option<Timestamp>,
    fields: [String; 6],
    /// Where else the rule is known.
    pub references: Vec<Reference>,
}

impl Alert {
    /// The alert that is all there is in these bytes.
    ///
    /// # Errors
    /// When they are no alert, or more than one.
    pub fn of(bytes: &[u8], limits: &Limits) -> Result<Self, ResultsError> {
        let mut json = Json::new(bytes, FORMAT, limits.result_bytes);
        if json.kind()? != Kind::Object {
            return Err(json.foreign("an alert is an object"));
        }
        let alert = alert(&mut json)?;
        json.end().map(|()| alert)
    }

    /// The id of the control that is its rule; two rules that differ only in white space are one.
    pub fn control(&self) -> String {
        self.rule.split_whitespace().collect::<Vec<_>>().join("_")
    }

    /// How bad it is; a priority that is not known is still an alert.
    pub fn severity(&self) -> Severity {
        severity::of_word(&self.priority)
    }

    /// Namespace, pod and container that it is about; empty where it does not say.
    pub fn container(&self) -> [&str; 3] {
        let [namespace, pod, container, ..] = &self.fields;
        [namespace, pod, container].map(|name| if name == "<NA>" { "" } else { name.as_str() })
    }

    /// Whether it is Falco's own, that it lost events: then nothing says what else was there.
    pub fn is_loss(&self) -> bool {
        LOST_EVENTS.contains(&self.rule.as_str())
    }
}

/// Reads lines to the end.
pub(crate) fn read(source: impl Read, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let mut json = Json::new(source, FORMAT, limits.result_bytes);
    out.scanner(Some("falco".to_owned()), None, None);
    while !json.is_at_end()? {
        if json.kind()? != Kind::Object {
            return Err(json.foreign("a line is no object"));
        }
        alert(&mut json)?.report(out)?;
    }
    Ok(())
}

fn alert(json: &mut Json<impl Read>) -> Result<Alert, ResultsError> {
    let mut alert = Alert::default();
    let mut has_time = false;
    json.object(|json, key| match key {
        "rule" => json.text_or_empty().map(|text| alert.rule = text),
        "priority" => json.text_or_empty().map(|text| alert.priority = text),
        "source" => json.text_or_empty().map(|text| alert.source = text),
        "hostname" => json.text_or_empty().map(|text| alert.host = text),
        "output" => json.text_or_empty().map(|text| alert.output = text),
        "time" => {
            has_time = true;
            json.scalar().map(|text| alert.at = text.and_then(|text| text.parse().ok()))
        }
        "output_fields" => json.object(|json, key| match FIELDS.iter().position(|field| *field == key) {
            Some(at) => json.scalar().map(|text| alert.fields[at] = text.unwrap_or_default()),
            None => json.skip(),
        }),
        "tags" => {
            for tag in json.texts()? {
                // As `T1059` and `NIST_800-53_AC-6`.
                let technique = tag.strip_prefix('T').filter(|id| id.starts_with(|c: char| c.is_ascii_digit()));
                keep(&mut alert.references, technique.and_then(|_| reference("mitre-attack", &tag)));
                keep(&mut alert.references, tag.strip_prefix("NIST_800-53_").and_then(|id| reference("nist", id)));
            }
            Ok(())
        }
        _ => json.skip(),
    })?;
    if alert.rule.is_empty() || alert.priority.is_empty() || !has_time {
        return Err(json.foreign("a line lacks rule, priority or time"));
    }
    Ok(alert)
}

impl Alert {
    fn report(self, out: &mut Out<'_>) -> Result<(), ResultsError> {
        out.target(self.host.as_str())?;
        if self.is_loss() {
            return out.gap("falco", Reason::FactTruncated, format!("it lost events: {}", self.output));
        }
        let (control, severity) = (self.control(), self.severity());
        out.control(Declared {
            id: control.clone(),
            title: self.rule.clone(),
            severity,
            references: self.references.clone(),
            not_applicable: None,
        })?;
        let known = self.container().into_iter().filter(|name| !name.is_empty());
        let subject = known.collect::<Vec<_>>().join("/");
        let parts = [&self.rule, &self.source, &self.host].into_iter().chain(&self.fields);
        out.finding(Reported {
            identity: identity("falco", parts),
            kind: FindingKind::Alert,
            control,
            outcome: Outcome::Failed,
            severity,
            subject: if subject.is_empty() { self.host } else { subject },
            word: self.priority,
            messages: if self.output.is_empty() { Vec::new() } else { vec![self.output] },
            references: self.references,
            ratings: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::model::control::Severity;
    use crate::model::scanner::ResultFormat;
    use crate::results::tests::{refuses_what_is_no_result, summary, verdicts};

    fn line(rule: &str, priority: &str, time: &str) -> Value {
        json!({
            "hostname": "node-1", "output": format!("{time}: {priority} shell \u{1b}[2J"), "priority": priority, "rule": rule,
            "source": "syscall", "tags": ["T1059", "NIST_800-53_AC-6", "shell"], "time": time,
            "output_fields": {"k8s.ns.name": "shop", "k8s.pod.name": "web", "container.name": null, "proc.pid": 7, "evt.time": 1},
        })
    }

    #[test]
    fn alerts_are_findings_that_failed() {
        let lines = [
            line("Shell in container", "Critical", "1"),
            line("Shell in container", "Critical", "2"),
            line("x", "odd", "3"),
        ];
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let read = summary(ResultFormat::Falco, &text).expect("a result");
        assert_eq!(verdicts(&read), [("Shell_in_container", "failed"), ("x", "failed")]);
        assert_eq!((read.findings.failed, read.targets.len()), (3, 1));
        let [first, second, third] = &read.finding_list[..] else { panic!("there are three") };
        assert_eq!(
            (first.identity, first.subject.as_str(), first.severity),
            (second.identity, "shop/web", Severity::Critical)
        );
        assert_eq!((third.severity, third.references.len()), (Severity::Medium, 2));
    }

    #[test]
    fn lost_events_are_a_gap() {
        let text = super::LOST_EVENTS.map(|rule| line(rule, "Debug", "1").to_string()).join("\n");
        let read = summary(ResultFormat::Falco, &text).expect("a result");
        assert_eq!((read.controls.total(), read.not_evaluated.len()), (0, 4));
    }

    #[test]
    fn anything_else_is_refused() {
        refuses_what_is_no_result(ResultFormat::Falco, &line("a", "Error", "1").to_string());
        for text in ["{\"rule\":\"a\",\"priority\":\"b\"}", "{\"rule\":\"a\",\"priority\":\"b\",\"time\":1} x", "[]"] {
            assert!(summary(ResultFormat::Falco, text).is_err(), "{text}");
        }
    }
}
