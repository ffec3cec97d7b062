//! From a batch of alerts to results: one for each target, in one run.
//!
//! An alert is something that happened, which nothing takes back: a rule that gave one has failed on its target for as long as
//! the plan says (`keep`), whatever else comes. A rule without an alert was not evaluated: nothing says that it was loaded, or
//! that Falco saw all. So nothing that is recorded here ever passes.

use std::collections::{BTreeMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use crate::base::limits::Limits;
use crate::ledger::{Ledger, LedgerError};
use crate::model::control::Control;
use crate::model::evidence::Evidence;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::Outcome;
use crate::model::profile::Profile;
use crate::model::provenance::{Approach, Engine, Provenance};
use crate::model::reason::Reason;
use crate::model::record::{CheckedTask, ExpectedTask, RunEnd, RunId, RunStart, TaskRecord, Trigger};
use crate::model::scanner::is_own_control;
use crate::model::target::{Target, TargetSpec};
use crate::results::{Alert, WHOLE_CONTROL, control_id, whole_control};

/// What judged: no scanner definition has such a name.
pub(super) const ENGINE: &str = "alerts:falco";
/// The profile where none is named.
const UNNAMED: &str = "falco-rules";
/// How far a time may lie ahead of this machine's clock.
const AHEAD: SignedDuration = SignedDuration::from_mins(5);

/// What alerts are measured against.
pub(super) struct Measure {
    pub(super) profile: Option<Profile>,
    pub(super) keep: SignedDuration,
    pub(super) limits: Limits,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a batch that was closed by halves is not in the ledger"]
pub(super) enum Came {
    /// All of it is in the ledger.
    Whole,
    /// Its run was ended by somebody else before all of it was there: it needs a new one.
    ByHalves,
}

/// Records a batch as this run. One that was begun before, by whoever died in it, is gone on with: nothing is there twice.
///
/// # Errors
/// When the ledger can't be read or written.
pub(super) fn record(
    run: RunId,
    batch: &[u8],
    measure: &Measure,
    ledger: &mut Ledger,
    now: Timestamp,
) -> Result<Came, LedgerError> {
    let begun = ledger.reader().run(run)?;
    match begun.as_ref().and_then(|begun| begun.end.as_ref()).map(|ended| ended.end) {
        None => {}
        Some(RunEnd::Completed | RunEnd::Drained) => return Ok(Came::Whole),
        // By a scan that was started meanwhile: what was missing of it was recorded as not evaluated.
        Some(RunEnd::Interrupted) => return Ok(Came::ByHalves),
    }
    let mut all = by_target(batch, measure, now);
    let missing = match begun {
        None => {
            let mut begun = Vec::new();
            for (key, told) in &mut all {
                let before = before(key, measure.name(), ledger)?;
                told.profile = Some(profile(told, before.as_ref(), measure, now));
                told.before = before;
            }
            for told in all.values() {
                begun.extend(told.profile.as_ref().map(|profile| (told.target.clone(), profile.clone())));
            }
            let expected: Vec<ExpectedTask> = begun.iter().map(|(target, profile)| expected(target, profile)).collect();
            let start = RunStart {
                run,
                trigger: Trigger::Alerts { source: "falco".to_owned() },
                started: now,
                requested: all.keys().cloned().collect(),
                classification: None,
                bundle: None,
                expected: expected.clone(),
            };
            let profiles: Vec<Profile> = begun.into_iter().map(|(_, profile)| profile).collect();
            ledger.begin_run(&start, &profiles)?;
            expected
        }
        Some(_) => ledger
            .unfinished_runs()?
            .into_iter()
            .find(|(start, _)| start.run == run)
            .map(|(_, missing)| missing)
            .unwrap_or_default(),
    };
    for task in missing {
        let key = task.target.key();
        let (Some(told), Some(profile)) = (all.remove(&key), ledger.profile(&task.profile.digest)?) else {
            let why = "the batch of alerts that it was made from says nothing of it any more";
            crate::stage::scan::account::not_done(run, task, Reason::InternalError, why, ledger)?;
            continue;
        };
        let previous = match told.before {
            Some(_) => told.before.clone(),
            None => before(&key, measure.name(), ledger)?,
        };
        ledger.record(&judged(run, told, previous.as_ref().map(|(record, _)| record), profile, measure, now))?;
    }
    ledger.end_run(run, RunEnd::Completed, now)?;
    Ok(Came::Whole)
}

impl Measure {
    fn name(&self) -> &str {
        self.profile.as_ref().map_or(UNNAMED, |profile| &profile.name)
    }
}

fn expected(target: &Target, profile: &Profile) -> ExpectedTask {
    ExpectedTask {
        target: target.clone(),
        engine: ENGINE.to_owned(),
        profile: profile.reference(),
        incarnation: None,
        workload: None,
    }
}

/// All that a batch tells of one target.
struct Told {
    target: Target,
    alerts: Vec<(Timestamp, Alert)>,
    lines: Vec<u8>,
    before: Option<(TaskRecord, Profile)>,
    profile: Option<Profile>,
}

fn by_target(batch: &[u8], measure: &Measure, now: Timestamp) -> BTreeMap<String, Told> {
    let latest = now.checked_add(AHEAD).unwrap_or(now);
    let mut all: BTreeMap<String, Told> = BTreeMap::new();
    for line in batch.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        // Each was an alert when it was taken.
        let Ok(alert) = Alert::of(line, &measure.limits) else { continue };
        let target = target(&alert);
        let told = all.entry(target.key()).or_insert_with(|| Told {
            target,
            alerts: Vec::new(),
            lines: Vec::new(),
            before: None,
            profile: None,
        });
        told.lines.extend_from_slice(line);
        told.lines.push(b'\n');
        // One of a time to come, or of none, is of the time at which it was recorded.
        let at = alert.at.filter(|at| *at <= latest).unwrap_or(now);
        told.alerts.push((at, alert));
    }
    all
}

/// What an alert is about: the container that it names, or else the machine that Falco runs on. Names that Kubernetes would not
/// allow are nobody's.
fn target(alert: &Alert) -> Target {
    let [namespace, pod, container] = alert.container();
    // A container of which only the pod is known is `*`, as one that a scan could not find out.
    let named = if container.is_empty() { "x" } else { container };
    if let Ok(TargetSpec::Pod { namespace, pod, .. }) = format!("pod/{namespace}/{pod}/{named}").parse() {
        let container = if container.is_empty() { "*" } else { container }.to_owned();
        return Target::Container { namespace, pod, container, uid: None, image: None, digest: None, node: None };
    }
    let name = match format!("node/{}", alert.host).parse() {
        Ok(TargetSpec::Node(name)) => name,
        _ => "unknown".to_owned(),
    };
    Target::Node { name, uid: None }
}

/// The newest result of alerts about this target, with its profile.
fn before(target: &str, profile: &str, ledger: &Ledger) -> Result<Option<(TaskRecord, Profile)>, LedgerError> {
    let history = ledger.reader().history(target)?;
    let Some(last) = history.iter().rfind(|one| one.engine == ENGINE && one.profile.name == profile) else {
        return Ok(None);
    };
    let (record, profile) = (ledger.reader().task(last.seq)?, ledger.profile(&last.profile.digest)?);
    Ok(record.zip(profile))
}

/// What of an earlier result still counts: the details that are young enough.
fn still(record: &TaskRecord, since: Timestamp) -> impl Iterator<Item = (&str, Vec<Detail>)> {
    record.findings.iter().filter_map(move |finding| {
        let young = |detail: &&Detail| detail.subject.parse::<Timestamp>().is_ok_and(|at| at >= since);
        let details: Vec<Detail> = finding.details.iter().filter(young).cloned().collect();
        (!details.is_empty()).then_some((finding.control.as_str(), details))
    })
}

/// The controls: those of the profile of rules, and whatever else gave an alert that counts.
fn profile(told: &Told, before: Option<&(TaskRecord, Profile)>, measure: &Measure, now: Timestamp) -> Profile {
    let mut profile = measure.profile.clone().unwrap_or_else(|| Profile {
        name: UNNAMED.to_owned(),
        version: String::new(),
        title: "Rules of Falco that gave alerts (self-declared)".to_owned(),
        summary: "Nobody knows which rules were loaded.".to_owned(),
        controls: Vec::new(),
    });
    let mut known: HashSet<String> = profile.controls.iter().map(|control| control.id.clone()).collect();
    if let Some((record, earlier)) = before {
        for (id, _) in still(record, measure.since(now)) {
            if !known.contains(id)
                && let Some(control) = earlier.control(id)
            {
                known.insert(id.to_owned());
                profile.controls.push(control.clone());
            }
        }
    }
    for (_, alert) in &told.alerts {
        if !known.insert(id_of(alert)) {
            continue;
        }
        profile.controls.push(match alert.is_loss() {
            true => whole_control(),
            false => Control {
                id: id_of(alert),
                title: alert.rule.split_whitespace().collect::<Vec<_>>().join(" "),
                description: String::new(),
                check: String::new(),
                fix: String::new(),
                severity: alert.severity(),
                references: alert.references.clone(),
            },
        });
    }
    profile
}

fn id_of(alert: &Alert) -> String {
    if alert.is_loss() { WHOLE_CONTROL.to_owned() } else { control_id(&alert.control()) }
}

impl Measure {
    fn since(&self, now: Timestamp) -> Timestamp {
        now.checked_sub(self.keep).unwrap_or(Timestamp::MIN)
    }
}

fn judged(
    run: RunId,
    told: Told,
    before: Option<&TaskRecord>,
    profile: Profile,
    measure: &Measure,
    now: Timestamp,
) -> CheckedTask {
    let mut seen: BTreeMap<String, Vec<Detail>> = BTreeMap::new();
    for (at, alert) in &told.alerts {
        seen.entry(id_of(alert)).or_default().push(Detail::new(at.to_string(), &alert.output));
    }
    let came: u64 = told.alerts.len() as u64;
    let carried = before.into_iter().flat_map(|record| still(record, measure.since(now)));
    for (id, details) in carried {
        let known = seen.entry(id.to_owned()).or_default();
        // One of this very moment with these very words is the same one, of a batch that is recorded anew.
        let new: Vec<Detail> = details.into_iter().filter(|detail| !known.contains(detail)).collect();
        known.extend(new);
    }
    let findings = profile
        .controls
        .iter()
        .map(|control| match seen.remove(&control.id) {
            Some(mut details) => {
                // The newest first: they are kept.
                details.sort_by_cached_key(|detail| std::cmp::Reverse(detail.subject.parse::<Timestamp>().ok()));
                let outcome = match control.id.as_str() {
                    WHOLE_CONTROL => Outcome::not_evaluated(Reason::FactTruncated, "Falco lost events"),
                    _ => Outcome::Failed,
                };
                Finding::new(&*control.id, outcome).with_details(details, measure.limits.finding_details)
            }
            None if is_own_control(&control.id) => {
                let why = "gapscan did not run Falco: nobody saw it";
                Finding::new(&*control.id, Outcome::not_evaluated(Reason::FactMissing, why))
            }
            None => {
                let why = "no alert came of it, and nothing says that it was loaded and saw all";
                Finding::new(&*control.id, Outcome::not_evaluated(Reason::ControlMissing, why))
            }
        })
        .collect();
    let times = || told.alerts.iter().map(|(at, _)| *at);
    let (first, last) = (times().min().unwrap_or(now), times().max().unwrap_or(now));
    let mut notes = vec![format!(
        "{came} alerts of Falco, from {first} to {last}; an alert counts as a failure for {:#}",
        measure.keep
    )];
    if measure.profile.is_none() {
        notes.push(
            "self-declared: its controls are the rules that gave an alert, and nobody knows which rules were loaded"
                .to_owned(),
        );
    }
    let provenance = Provenance {
        gapscan: env!("CARGO_PKG_VERSION").to_owned(),
        engine: Engine { name: ENGINE.to_owned(), version: String::new(), image: None },
        bundle: None,
        content: Vec::new(),
        approach: Approach::Alerts,
        imported: None,
        identity: None,
        network: None,
        cleanup: None,
        started: first.min(now),
        finished: now,
    };
    let evidence = vec![Evidence::new("alerts", "application/x-ndjson", told.lines)];
    CheckedTask::new(run, told.target, profile, provenance, findings, evidence, notes)
        .expect("one finding was made for each control of a profile whose ids are unique")
}
