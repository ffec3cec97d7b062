//! What the ledger says, in the text format that Prometheus reads (exposition format 0.0.4). No series names a target, a
//! person or a secret: labels are names of the plan's scans and words of this program.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::super::plan::Plan;
use crate::ledger::{LedgerError, LedgerReader, RunRecord};
use crate::model::outcome::{Outcome, Status};
use crate::model::record::{Event, RunEnd, Trigger};
use crate::model::waiver::{SOON, WAIVER_EXPIRED, WAIVER_UNMATCHED, WAIVERS_REFUSED, WAIVERS_UNSIGNED};

/// What its answer has as `Content-Type`.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The events that are counted, each a word of this program: others may name anything.
const EVENTS: [&str; 20] = [
    "blackout",
    "breaker-closed",
    "breaker-opened",
    "bundle-refused",
    "cleanup-incomplete",
    "cleanup-verified",
    "falco-refused",
    "import-refused",
    "leftovers-remain",
    "leftovers-removed",
    "policy-not-enforced",
    "scan-failed",
    "schedule-clock-moved-back",
    "schedule-missed",
    "schedule-overlap",
    "upload-refused",
    WAIVER_EXPIRED,
    WAIVER_UNMATCHED,
    WAIVERS_REFUSED,
    WAIVERS_UNSIGNED,
];

/// What a plan's schedules came to, and all else that the ledger counts.
pub(super) fn collect(ledger: &LedgerReader, plan: &Plan, ready: bool, now: Timestamp) -> Result<String, LedgerError> {
    let (runs, events, head) = (ledger.runs(usize::MAX)?, ledger.events()?, ledger.head()?);
    let schedules: Vec<String> = plan
        .scans
        .iter()
        .filter(|scan| scan.schedule.is_some())
        .map(|scan| format!("{}/{}", plan.name, scan.name))
        .collect();
    let mut ends = Vec::new();
    for record in ledger.latest_waived()? {
        ends.extend(record.findings.iter().filter_map(|finding| match &finding.outcome {
            Outcome::Waived { until, .. } => Some(*until),
            Outcome::Passed | Outcome::Failed | Outcome::NotApplicable { .. } | Outcome::NotEvaluated { .. } => None,
        }));
    }
    Ok(text(&runs, &events, &schedules, head.seq, ready, now) + &waived_text(&ends, now))
}

/// The controls that are waived in the latest results, by when that ends.
fn waived_text(ends: &[Timestamp], now: Timestamp) -> String {
    let count = |within: &dyn Fn(Timestamp) -> bool| ends.iter().filter(|until| within(**until)).count();
    let soon = |until: Timestamp| until > now && until.duration_since(now) <= SOON;
    let samples = [
        ("expired-since", count(&|until| until <= now)),
        ("expires-soon", count(&soon)),
        ("counts", count(&|until| until > now && !soon(until))),
    ];
    let mut out =
        "# HELP gapscan_waived_controls Controls that are waived in the latest results, by the waiver's end.\n\
                   # TYPE gapscan_waived_controls gauge\n"
            .to_owned();
    for (state, count) in samples {
        let _ = writeln!(out, "gapscan_waived_controls{{state=\"{state}\"}} {count}");
    }
    out
}

fn end_word(run: &RunRecord) -> &'static str {
    match run.end.as_ref().map(|ended| ended.end) {
        Some(RunEnd::Completed) => "completed",
        Some(RunEnd::Drained) => "drained",
        Some(RunEnd::Interrupted) => "interrupted",
        None => "running",
    }
}

fn schedule_of(run: &RunRecord) -> Option<&str> {
    match &run.start.trigger {
        Trigger::Schedule { plan, .. } => Some(plan),
        Trigger::Manual | Trigger::Import { .. } | Trigger::Alerts { .. } => None,
    }
}

/// Pure: `runs` with the newest first.
fn text(
    runs: &[RunRecord],
    events: &[Event],
    schedules: &[String],
    entries: u64,
    ready: bool,
    now: Timestamp,
) -> String {
    let mut out = String::with_capacity(4096);
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(String, i128)>| {
        if samples.is_empty() {
            return;
        }
        let _ = writeln!(out, "# HELP gapscan_{name} {help}\n# TYPE gapscan_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(out, "gapscan_{name}{labels} {value}");
        }
    };
    let one = |value: i128| vec![(String::new(), value)];
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    family("info", "gauge", "The program.", vec![(version, 1)]);
    family("ready", "gauge", "Whether it is ready, as /readyz says.", one(i128::from(ready)));
    family("ledger_entries", "gauge", "The number of the ledger's last entry.", one(i128::from(entries)));

    let ends = ["completed", "drained", "interrupted", "running"];
    let count = |word: &str| runs.iter().filter(|run| end_word(run) == word).count() as i128;
    let samples = ends.iter().map(|word| (format!("{{end=\"{word}\"}}"), count(word))).collect();
    family("runs", "gauge", "Runs in the ledger, by how they ended.", samples);

    let tasks: i128 = runs.iter().map(|run| i128::from(run.tasks)).sum();
    family("tasks", "gauge", "Results in the ledger: a target by a profile.", one(tasks));
    let sum = |status: Status| runs.iter().map(|run| run.coverage.count(status) as i128).sum();
    let samples = Status::ALL.iter().map(|status| (outcome(*status), sum(*status))).collect();
    family("controls", "gauge", "Controls in all results, by how they ended.", samples);

    let is_import = |run: &&RunRecord| matches!(run.start.trigger, Trigger::Import { .. });
    let imports: i128 = runs.iter().filter(is_import).map(|run| i128::from(run.tasks)).sum();
    family(
        "tasks_imported",
        "gauge",
        "Results of these that came as files, from scans that gapscan did not run.",
        one(imports),
    );

    // Of each schedule, or of no schedule, the newest run that has ended; what came otherwise was no scan.
    let mut last: BTreeMap<&str, &RunRecord> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.end.is_some() && run.start.is_scan()) {
        let subject = schedule_of(run).filter(|subject| schedules.iter().any(|one| one == subject));
        last.entry(subject.unwrap_or_default()).or_insert(run);
    }
    let by = |subject: &str| format!("schedule=\"{}\"", escaped(subject));
    let mut samples = Vec::new();
    for (subject, run) in &last {
        for status in Status::ALL {
            let labels = format!("{{{},outcome=\"{}\"}}", by(subject), status_word(status));
            samples.push((labels, run.coverage.count(status) as i128));
        }
    }
    family("last_run_controls", "gauge", "Controls of the last run that ended, by how they ended.", samples);
    let scores = last
        .iter()
        .filter_map(|(subject, run)| Some((format!("{{{}}}", by(subject)), i128::from(run.coverage.score()?))));
    family("last_run_score", "gauge", "Passed of all that has a bearing, in percent.", scores.collect());

    let (mut ages, mut missed, mut overlapped) = (Vec::new(), Vec::new(), Vec::new());
    for subject in schedules {
        let labels = format!("{{{}}}", by(subject));
        let of = |run: &&RunRecord| schedule_of(run) == Some(subject);
        // One that evaluated all that it expected, whatever it found.
        let good = |run: &&RunRecord| {
            end_word(run) == "completed" && run.tasks > 0 && run.coverage.count(Status::NotEvaluated) == 0
        };
        if let Some(ended) = runs.iter().filter(of).find(good).and_then(|run| run.end.as_ref()) {
            ages.push((labels.clone(), i128::from(now.duration_since(ended.at).as_secs().max(0))));
        }
        let noted = |what: &str| events.iter().filter(|e| e.subject == *subject && e.what == what).count() as i128;
        missed.push((labels.clone(), noted("schedule-missed")));
        overlapped.push((labels, noted("schedule-overlap")));
    }
    let help = "Since the last run that evaluated all that it expected; absent where there was none.";
    family("schedule_last_success_age_seconds", "gauge", help, ages);
    family("schedule_missed", "gauge", "How often due times went by without a run.", missed);
    family("schedule_overlapped", "gauge", "How often due times came while a run went on.", overlapped);

    let noted = |what: &str| events.iter().filter(|event| event.what == what).count() as i128;
    let samples = EVENTS.iter().map(|what| (format!("{{what=\"{what}\"}}"), noted(what))).collect();
    family("events", "gauge", "Events in the ledger.", samples);
    family("breakers_open", "gauge", "Breakers that are open in the run that goes on.", one(open(runs, events)));
    out
}

/// How many breakers the newest run has opened and not closed again; those of a run that has ended are gone with it.
fn open(runs: &[RunRecord], events: &[Event]) -> i128 {
    let Some(run) = runs.first().filter(|run| run.end.is_none()) else { return 0 };
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for event in events.iter().filter(|event| event.at >= run.start.started) {
        if event.what == "breaker-opened" || event.what == "breaker-closed" {
            last.insert(&event.subject, &event.what);
        }
    }
    last.values().filter(|what| **what == "breaker-opened").count() as i128
}

fn status_word(status: Status) -> &'static str {
    match status {
        Status::Passed => "passed",
        Status::Failed => "failed",
        Status::NotEvaluated => "not-evaluated",
        Status::Waived => "waived",
        Status::NotApplicable => "not-applicable",
    }
}

fn outcome(status: Status) -> String {
    format!("{{outcome=\"{}\"}}", status_word(status))
}

/// A label's value: names of plans have no such character, and this is what keeps it so.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waived_controls_are_told_apart_by_when_that_ends() {
        let now: Timestamp = "2027-01-15T00:00:00Z".parse().expect("a time");
        let ends: Vec<Timestamp> =
            [now, now + SOON, now + SOON + SOON, now - SOON].into_iter().chain([now + SOON]).collect();
        let text = waived_text(&ends, now);
        for (state, count) in [("expired-since", 2), ("expires-soon", 2), ("counts", 1)] {
            assert!(text.contains(&format!("gapscan_waived_controls{{state=\"{state}\"}} {count}\n")), "{text}");
        }
    }
}
