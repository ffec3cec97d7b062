//! The page around all results.

use std::collections::BTreeMap;

use askama::Template;

use super::agreement::{self, ComparisonView};
use super::shown::{Marking, Shown, When, digest};
use super::task::{Tally, TaskView, rank};
use crate::model::agreement::Common;
use crate::model::outcome::{Outcome, Status};
use crate::model::provenance::Expectation;
use crate::model::reason::Reason;
use crate::model::record::{RunEnd, Trigger};
use crate::model::waiver::NoticeState;
use crate::report::contents::{LedgerRef, Report, ReportRun, ReportTask, Scope, Selection};

/// How many places are named with a reason or a failed control; the results below have them all.
const MAX_PLACES: usize = 12;

/// How many events are shown, the newest first.
const MAX_EVENTS: usize = 200;

/// The whole page.
#[derive(Debug, Template)]
#[template(path = "report/page.html")]
pub(super) struct Page {
    title: Shown,
    marking: Option<Marking>,
    generated: When,
    gapscan: Shown,
    scope: Shown,
    ledger: LedgerView,
    verdict: Verdict,
    totals: Tally,
    alarms: Vec<Alarm>,
    reasons: Vec<ReasonView>,
    worst: Vec<WorstView>,
    tasks: Vec<TaskView>,
    agreement: Vec<ComparisonView>,
    runs: Vec<RunView>,
    events: Vec<EventView>,
    older_events: usize,
}

#[derive(Debug)]
struct LedgerView {
    name: Shown,
    id: Shown,
    sequence: u64,
    head: Shown,
    is_intact: bool,
}

/// What the page says first.
#[derive(Debug)]
struct Verdict {
    /// `bad`, `open` or `good`: the class that colours it.
    tone: &'static str,
    headline: String,
    sentence: String,
}

/// Something that the reader must know before believing the rest.
#[derive(Debug)]
struct Alarm {
    title: &'static str,
    text: Shown,
}

/// Everything that was not evaluated for one reason.
#[derive(Debug)]
struct ReasonView {
    code: &'static str,
    description: &'static str,
    count: u64,
    places: Vec<PlaceView>,
    more_places: usize,
}

#[derive(Debug)]
struct PlaceView {
    anchor: String,
    name: Shown,
    count: u64,
}

/// One control that failed somewhere.
#[derive(Debug)]
struct WorstView {
    control: Shown,
    title: Shown,
    severity: &'static str,
    places: Vec<PlaceView>,
    more_places: usize,
}

#[derive(Debug)]
struct RunView {
    id: Shown,
    trigger: Shown,
    requested: Shown,
    started: When,
    end: Option<When>,
    end_words: &'static str,
    is_whole: bool,
    expected: usize,
    unrecorded: Vec<Shown>,
    more_unrecorded: usize,
}

#[derive(Debug)]
struct EventView {
    at: When,
    what: Shown,
    subject: Shown,
    detail: Shown,
}

impl Page {
    pub(super) fn of(report: &Report) -> Self {
        let tasks: Vec<TaskView> =
            report.tasks.iter().enumerate().map(|(i, t)| TaskView::new(i + 1, t, report.generated)).collect();
        let totals = Tally::new(report.coverage());
        Self {
            title: Shown::line(&report.title),
            marking: report.classification.as_deref().map(Marking::new),
            generated: When::new(report.generated),
            gapscan: Shown::line(&report.gapscan),
            scope: scope_words(&report.scope),
            ledger: LedgerView::new(&report.ledger),
            verdict: Verdict::of(report, &totals),
            totals,
            alarms: alarms(report),
            reasons: reasons(report, &tasks),
            worst: worst(report),
            tasks,
            agreement: agreement::views(&report.compared()),
            runs: report.runs.iter().map(RunView::new).collect(),
            older_events: report.events.len().saturating_sub(MAX_EVENTS),
            events: report
                .events
                .iter()
                .rev()
                .take(MAX_EVENTS)
                .map(|e| EventView {
                    at: When::new(e.at),
                    what: Shown::line(&e.what),
                    subject: Shown::line(&e.subject),
                    detail: Shown::said(&e.detail),
                })
                .collect(),
        }
    }
}

fn scope_words(scope: &Scope) -> Shown {
    let selection = match scope.selection {
        Selection::Latest => "the latest result of each target and profile".to_owned(),
        Selection::Run(run) => format!("the results of run {run}"),
    };
    match scope.targets.as_slice() {
        [] => Shown::line(&selection),
        targets => Shown::line(&format!("{selection}, of {} only", targets.join(", "))),
    }
}

impl LedgerView {
    fn new(ledger: &LedgerRef) -> Self {
        Self {
            name: Shown::line(&ledger.name),
            id: Shown::line(&ledger.id),
            sequence: ledger.sequence,
            head: digest(&ledger.head),
            is_intact: ledger.state.problem().is_none(),
        }
    }
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

impl Verdict {
    fn of(report: &Report, t: &Tally) -> Self {
        let checks = plural(t.expected, "expected check", "expected checks");
        let were = |n| if n == 1 { "was" } else { "were" };
        let open = report.unrecorded().count() as u64;
        let failed = match t.failed {
            0 => "None of those that were evaluated failed.".to_owned(),
            n => format!("Of those that were evaluated, {n} failed."),
        };
        let (tone, headline, sentence) = if report.ledger.state.problem().is_some() {
            (
                "bad",
                "The ledger is not intact".to_owned(),
                "What this report was made from was changed or damaged after it was recorded. Nothing below can be relied on."
                    .to_owned(),
            )
        } else if t.expected == 0 && open == 0 {
            (
                "open",
                "Nothing was expected".to_owned(),
                "No check is in this report, so it shows nothing to be in order.".to_owned(),
            )
        } else if t.not_evaluated > 0 {
            let open = format!("{} of {checks} {} not evaluated", t.not_evaluated, were(t.not_evaluated));
            match t.failed {
                0 => ("open", open, format!("What was not evaluated is never a pass. {failed}")),
                n => {
                    let headline = format!("{} failed, and {open}", plural(n, "check", "checks"));
                    ("bad", headline, "What was not evaluated is never a pass, and may hide more failures.".to_owned())
                }
            }
        } else if open > 0 {
            let headline = format!("{} not recorded yet", plural(open, "result is", "results are"));
            let evaluated = if t.expected > 0 { failed } else { "Nothing else was expected.".to_owned() };
            ("open", headline, format!("A run still owes them. {evaluated}"))
        } else if t.failed > 0 {
            let sentence = format!("All {checks} were evaluated.");
            ("bad", format!("{} failed", plural(t.failed, "check", "checks")), sentence)
        } else if t.waived > 0 {
            let headline = format!("{} only by waiver", plural(t.waived, "check is accepted", "checks are accepted"));
            ("open", headline, format!("All {checks} were evaluated, and no other failed."))
        } else if t.passed == 0 {
            ("open", "Nothing applied".to_owned(), format!("All {checks} were evaluated to have no bearing here."))
        } else if report.tasks.iter().any(is_self_declared) {
            let headline = "Everything passed that results name themselves".to_owned();
            (
                "open",
                headline,
                format!("All {checks} were evaluated; nobody knows what was expected of imported results."),
            )
        } else {
            ("good", "Everything passed".to_owned(), format!("All {checks} were evaluated, and none failed."))
        };
        Self { tone, headline, sentence }
    }
}

fn alarms(report: &Report) -> Vec<Alarm> {
    let mut alarms = Vec::new();
    if let Some(problem) = report.ledger.state.problem() {
        alarms.push(Alarm { title: "The ledger is not intact", text: Shown::said(problem) });
    }
    let owed = report.unrecorded().count() as u64;
    if owed > 0 {
        let tasks = plural(owed, "task was", "tasks were");
        let text =
            format!("{tasks} to be done and have no result. They are listed with the runs, and are not in the counts.");
        alarms.push(Alarm { title: "Results are missing", text: Shown::line(&text) });
    }
    let keys = |pick: &dyn Fn(&ReportTask) -> bool| -> Vec<String> {
        report.tasks.iter().filter(|t| pick(t)).map(|t| t.record().target.key()).collect()
    };
    let imported = keys(&|t| t.record().provenance.imported.is_some());
    if !imported.is_empty() {
        let text = format!("gapscan did not run these scans, and knows of them what a file says: {}", few(&imported));
        alarms.push(Alarm { title: "Results were imported", text: Shown::lines(&text) });
    }
    let inconsistent: Vec<String> = report
        .compared()
        .iter()
        .filter(|one| one.is_inconsistent())
        .map(|one| match &one.common {
            Common::Replicas { workload, .. } => workload.clone(),
            Common::Approaches { target } => target.clone(),
        })
        .collect();
    if !inconsistent.is_empty() {
        let text = format!("They answer one question and do not agree; see “Side by side”: {}", few(&inconsistent));
        alarms.push(Alarm { title: "Results are INCONSISTENT", text: Shown::lines(&text) });
    }
    let declared = keys(&is_self_declared);
    if !declared.is_empty() {
        let text = format!(
            "Nobody knows what was expected, only what the results themselves mention (self-declared), for: {}",
            few(&declared)
        );
        alarms.push(Alarm { title: "What was expected is not known", text: Shown::lines(&text) });
    }
    let open = keys(&|t| t.record().provenance.network.as_ref().is_some_and(|n| !n.enforced));
    if !open.is_empty() {
        let text = format!("Scanners ran without isolation from the network for: {}", few(&open));
        alarms.push(Alarm { title: "Network policies were not enforced", text: Shown::lines(&text) });
    }
    let left = keys(&|t| t.record().provenance.cleanup.as_ref().is_some_and(|c| !c.remaining.is_empty()));
    if !left.is_empty() {
        let text = format!("Objects that a scan created could not be verified to be gone, for: {}", few(&left));
        alarms.push(Alarm { title: "Clean-up was not verified", text: Shown::lines(&text) });
    }
    let expired = keys(&|t| {
        t.record()
            .findings
            .iter()
            .any(|f| matches!(f.outcome, Outcome::Waived { until, .. } if until <= report.generated))
    });
    if !expired.is_empty() {
        let text = format!("Waivers have run out since the results were recorded, for: {}. Scan again.", few(&expired));
        alarms.push(Alarm { title: "Waivers have expired", text: Shown::lines(&text) });
    }
    let mut by_state: BTreeMap<NoticeState, Vec<String>> = BTreeMap::new();
    for notice in report.waiver_notices() {
        by_state.entry(notice.state).or_default().push(notice.detail);
    }
    for (state, details) in by_state {
        let title = match state {
            NoticeState::Refused => "Waivers do not count",
            NoticeState::Unsigned => "Waivers are unsigned",
            NoticeState::Expired => "Expired waivers do not count any more",
            // Told above, with the targets.
            NoticeState::ExpiredSince => continue,
            NoticeState::ExpiresSoon => "Waivers expire soon",
            NoticeState::Unmatched => "Waivers fit nothing",
        };
        alarms.push(Alarm { title, text: Shown::lines(&several(&details)) });
    }
    alarms
}

fn is_self_declared(task: &ReportTask) -> bool {
    let imported = task.record().provenance.imported.as_ref();
    imported.is_some_and(|imported| imported.expected == Expectation::SelfDeclared)
}

/// Sentences, of which only some are shown.
fn several(details: &[String]) -> String {
    let mut text = details.iter().take(MAX_PLACES).map(|detail| format!("{detail}.")).collect::<Vec<_>>().join("\n");
    let more = details.len().saturating_sub(MAX_PLACES);
    if more > 0 {
        text.push_str(&format!("\nAnd {more} more."));
    }
    text
}

fn few(keys: &[String]) -> String {
    let named = keys.iter().take(MAX_PLACES).map(|k| crate::base::text::brief(k)).collect::<Vec<_>>().join(", ");
    match keys.len().saturating_sub(MAX_PLACES) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

fn capped(mut places: Vec<PlaceView>) -> (Vec<PlaceView>, usize) {
    let more = places.len().saturating_sub(MAX_PLACES);
    places.truncate(MAX_PLACES);
    (places, more)
}

fn reasons(report: &Report, tasks: &[TaskView]) -> Vec<ReasonView> {
    let mut views: Vec<ReasonView> = Vec::new();
    for reason in Reason::ALL {
        let mut places = Vec::new();
        for (task, view) in report.tasks.iter().zip(tasks) {
            let is_it = |o: &Outcome| matches!(o, Outcome::NotEvaluated { reason: r, .. } if r == reason);
            let count = task.record().findings.iter().filter(|f| is_it(&f.outcome)).count() as u64;
            if count > 0 {
                let name = format!("{} · {}", view.target, view.profile);
                places.push(PlaceView { anchor: format!("{}-open", view.anchor), name: Shown::line(&name), count });
            }
        }
        let count = places.iter().map(|p| p.count).sum();
        if count > 0 {
            let (places, more_places) = capped(places);
            let (code, description) = (reason.code(), reason.description());
            views.push(ReasonView { code, description, count, places, more_places });
        }
    }
    views.sort_by_key(|v| std::cmp::Reverse(v.count));
    views
}

fn worst(report: &Report) -> Vec<WorstView> {
    struct Entry<'a> {
        profile: &'a str,
        control: &'a crate::model::control::Control,
        places: Vec<PlaceView>,
    }
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut known = std::collections::HashMap::new();
    for (number, task) in report.tasks.iter().enumerate() {
        for (position, (control, finding)) in task.judged().enumerate() {
            if finding.outcome.status() != Status::Failed {
                continue;
            }
            let profile = task.profile().name.as_str();
            let index = *known.entry((profile, control.id.as_str())).or_insert_with(|| {
                entries.push(Entry { profile, control, places: Vec::new() });
                entries.len() - 1
            });
            entries[index].places.push(PlaceView {
                anchor: format!("r{}c{}", number + 1, position + 1),
                name: Shown::line(&task.record().target.key()),
                count: finding.details.len() as u64 + finding.details_omitted,
            });
        }
    }
    // The worst first, then what is wrong in most places; then a fixed order.
    entries.sort_by_key(|e| (rank(e.control.severity), std::cmp::Reverse(e.places.len()), e.profile, &*e.control.id));
    entries
        .into_iter()
        .map(|entry| {
            let (places, more_places) = capped(entry.places);
            let title = if entry.control.title.is_empty() { &entry.control.id } else { &entry.control.title };
            WorstView {
                control: Shown::line(&entry.control.id),
                title: Shown::line(title),
                severity: entry.control.severity.word(),
                places,
                more_places,
            }
        })
        .collect()
}

impl RunView {
    fn new(run: &ReportRun) -> Self {
        let start = &run.start;
        let trigger = match &start.trigger {
            Trigger::Manual => "by hand".to_owned(),
            Trigger::Schedule { plan, due } => format!("plan {plan}, due {}", When::new(*due)),
            Trigger::Import { user } => format!("imported by {user}: nothing was scanned"),
            Trigger::Alerts { source } => format!("alerts of {source}: nothing was scanned"),
        };
        let resumed: Vec<String> = run.resumed.iter().map(|at| When::new(*at).to_string()).collect();
        let trigger = match resumed.is_empty() {
            true => trigger,
            false => format!("{trigger}; its runner died, and it was taken up again at {}", resumed.join(", ")),
        };
        let end_words = match run.end.map(|(end, _)| end) {
            Some(RunEnd::Completed) => "complete",
            Some(RunEnd::Drained) => "stopped early; what was not done counts as not evaluated",
            Some(RunEnd::Interrupted) => "interrupted; what was not done counts as not evaluated",
            None => "not ended",
        };
        Self {
            id: Shown::line(&start.run.to_string()),
            trigger: Shown::line(&trigger),
            requested: Shown::line(&start.requested.join(", ")),
            started: When::new(start.started),
            end: run.end.map(|(_, at)| When::new(at)),
            end_words,
            is_whole: matches!(run.end, Some((RunEnd::Completed, _))) && run.unrecorded.is_empty(),
            expected: start.expected.len(),
            unrecorded: run
                .unrecorded
                .iter()
                .take(MAX_PLACES)
                .map(|t| Shown::line(&format!("{} · {} · {}", t.target.key(), t.engine, t.profile.name)))
                .collect(),
            more_unrecorded: run.unrecorded.len().saturating_sub(MAX_PLACES),
        }
    }
}
