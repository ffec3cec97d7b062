//! Results that answer one question, side by side: those of the replicas of one workload, and those of one target that was
//! reached in several ways. Where they differ, they are inconsistent. This is a view: each target keeps its own verdicts, and
//! no count changes.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;

use super::outcome::Status;
use super::provenance::Approach;
use super::record::{RunId, RunStart, TaskRecord};
use super::target::Target;
use crate::base::digest::Digest;

/// What the results have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "of", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Common {
    /// One container of pods that one controller made, in one run, by one engine and profile.
    Replicas {
        /// What controls the pods, as `shop/ReplicaSet/web-5d9`.
        workload: String,
        /// The container's name.
        container: String,
    },
    /// One target, by profiles of one name: reached in several ways, or judged by several engines.
    Approaches {
        /// [`Target::key`]
        target: String,
    },
}

/// One of the results that are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// [`Target::key`]
    pub target: String,
    /// What judged.
    pub engine: String,
    /// How the target was reached.
    pub approach: Approach,
    /// The run that it belongs to.
    pub run: RunId,
    /// When it ended.
    pub finished: Timestamp,
}

/// A control that the results do not agree about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// The control's id.
    pub control: String,
    /// How it ended on each side, in their order; absent where a side does not have it.
    pub outcomes: Vec<Option<Status>>,
}

/// Two or more results, side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// What they have in common.
    pub common: Common,
    /// The profile's name.
    pub profile: String,
    /// The results.
    pub sides: Vec<Side>,
    /// How many controls two or more of them have.
    pub compared: u64,
    /// The controls that they don't agree about: INCONSISTENT.
    pub differences: Vec<Difference>,
}

impl Comparison {
    fn of(common: Common, records: &[&TaskRecord]) -> Self {
        let sides = records.iter().map(|record| Side {
            target: record.target.key(),
            engine: record.provenance.engine.name.clone(),
            approach: record.provenance.approach,
            run: record.run,
            finished: record.provenance.finished,
        });
        let outcomes: Vec<HashMap<&str, Status>> = records
            .iter()
            .map(|record| record.findings.iter().map(|f| (f.control.as_str(), f.outcome.status())).collect())
            .collect();
        // In the order of the first that has it.
        let mut order: Vec<&str> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for finding in records.iter().flat_map(|record| &record.findings) {
            if seen.insert(finding.control.as_str()) {
                order.push(&finding.control);
            }
        }
        let (mut compared, mut differences) = (0, Vec::new());
        for control in order {
            let ended: Vec<Option<Status>> = outcomes.iter().map(|one| one.get(control).copied()).collect();
            let mut known = ended.iter().flatten();
            let Some(first) = known.next() else { continue };
            let others: Vec<&Status> = known.collect();
            compared += u64::from(!others.is_empty());
            if others.iter().any(|other| *other != first) {
                differences.push(Difference { control: control.to_owned(), outcomes: ended });
            }
        }
        let profile = records.first().map_or_else(String::new, |record| record.profile.name.clone());
        Self { common, profile, sides: sides.collect(), compared, differences }
    }

    /// Whether the results do not agree.
    pub fn is_inconsistent(&self) -> bool {
        !self.differences.is_empty()
    }
}

/// What controls the pods of containers, by run and target's key, as these runs knew when they began.
pub fn workloads<'r>(runs: impl IntoIterator<Item = &'r RunStart>) -> HashMap<(RunId, String), String> {
    let of_run = |run: &'r RunStart| {
        run.expected.iter().filter_map(|task| Some(((run.run, task.target.key()), task.workload.clone()?)))
    };
    runs.into_iter().flat_map(of_run).collect()
}

/// The replicas among these results, where there are two or more: those of one run, engine, profile, workload and container.
pub fn replicas<'r>(
    records: impl IntoIterator<Item = &'r TaskRecord>,
    workloads: &HashMap<(RunId, String), String>,
) -> Vec<Comparison> {
    type Key<'k> = (&'k str, &'k str, &'k str, &'k str, Digest, RunId);
    let mut groups: BTreeMap<Key<'_>, Vec<&TaskRecord>> = BTreeMap::new();
    for record in records {
        let Target::Container { container, .. } = &record.target else { continue };
        let Some(workload) = workloads.get(&(record.run, record.target.key())) else { continue };
        let engine = record.provenance.engine.name.as_str();
        let key =
            (workload.as_str(), container.as_str(), &*record.profile.name, engine, record.profile.digest, record.run);
        groups.entry(key).or_default().push(record);
    }
    let compare = |((workload, container, ..), group): (Key<'_>, Vec<&TaskRecord>)| {
        let common = Common::Replicas { workload: workload.to_owned(), container: container.to_owned() };
        (group.len() > 1).then(|| Comparison::of(common, &group))
    };
    groups.into_iter().filter_map(compare).collect()
}

/// The results of one target by profiles of one name, where there are two or more that were come by in different ways: by another
/// approach or another engine. One that did not reach its target is not one of them.
pub fn approaches<'r>(records: impl IntoIterator<Item = &'r TaskRecord>) -> Vec<Comparison> {
    let mut groups: BTreeMap<(String, &str), Vec<&TaskRecord>> = BTreeMap::new();
    for record in records {
        if record.provenance.approach != Approach::None {
            groups.entry((record.target.key(), &record.profile.name)).or_default().push(record);
        }
    }
    let mut comparisons = Vec::new();
    for ((target, _), mut group) in groups {
        let mut ways = std::collections::HashSet::new();
        // The newest of each way.
        group.sort_by_key(|record| std::cmp::Reverse(record.provenance.finished));
        group.retain(|record| ways.insert((record.provenance.engine.name.as_str(), record.provenance.approach)));
        if group.len() > 1 {
            comparisons.push(Comparison::of(Common::Approaches { target }, &group));
        }
    }
    comparisons
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::control::{Control, Severity};
    use crate::model::finding::Finding;
    use crate::model::outcome::Outcome;
    use crate::model::profile::Profile;
    use crate::model::provenance::{Engine, Provenance};
    use crate::model::reason::Reason;
    use crate::model::record::CheckedTask;

    /// A result: `p`, `f`, `n`, `o` for how each control of the profile `ids` ended.
    fn result(run: RunId, pod: &str, engine: &str, approach: Approach, ids: &str, ended: &str) -> TaskRecord {
        let control = |id: char| Control {
            id: id.to_string(),
            title: String::new(),
            description: String::new(),
            check: String::new(),
            fix: String::new(),
            severity: Severity::Low,
            references: Vec::new(),
        };
        let profile = Profile {
            name: "baseline".to_owned(),
            version: "1".to_owned(),
            title: String::new(),
            summary: String::new(),
            controls: ids.chars().map(control).collect(),
        };
        let outcome = |how: char| match how {
            'p' => Outcome::Passed,
            'f' => Outcome::Failed,
            'n' => Outcome::NotApplicable { reason: String::new() },
            _ => Outcome::not_evaluated(Reason::NoShell, ""),
        };
        let findings = ids.chars().zip(ended.chars()).map(|(id, how)| Finding::new(id, outcome(how))).collect();
        let at = Timestamp::from_second(1_700_000_000).expect("a time");
        let target = Target::Container {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            container: "web".to_owned(),
            uid: None,
            image: None,
            digest: None,
            node: None,
        };
        let provenance = Provenance {
            gapscan: String::new(),
            engine: Engine { name: engine.to_owned(), version: String::new(), image: None },
            bundle: None,
            content: Vec::new(),
            approach,
            imported: None,
            identity: None,
            network: None,
            cleanup: None,
            started: at,
            finished: at,
        };
        CheckedTask::new(run, target, profile, provenance, findings, Vec::new(), Vec::new())
            .expect("a result")
            .record()
            .clone()
    }

    fn differing(comparison: &Comparison) -> Vec<&str> {
        comparison.differences.iter().map(|difference| difference.control.as_str()).collect()
    }

    #[test]
    fn replicas_that_disagree_are_inconsistent() {
        let run = RunId::new();
        let of = |pod: &str, ended: &str| result(run, pod, "builtin", Approach::Exec, "abcd", ended);
        for (case, ended, wanted) in [
            ("the same", ["ppfo", "ppfo"], &[][..]),
            ("one failed", ["ppfo", "pffo"], &["b"]),
            ("one was not evaluated", ["ppfo", "poff"], &["b", "d"]),
            ("one has no bearing", ["ppfo", "npfo"], &["a"]),
        ] {
            let records = [of("web-1", ended[0]), of("web-2", ended[1])];
            let places = records.iter().map(|r| ((run, r.target.key()), "shop/ReplicaSet/web".to_owned())).collect();
            let [comparison] = &replicas(&records, &places)[..] else { panic!("{case}: one comparison") };
            assert_eq!(differing(comparison), wanted, "{case}");
            assert_eq!((comparison.compared, comparison.is_inconsistent()), (4, !wanted.is_empty()), "{case}");
            assert_eq!(comparison.sides.len(), 2);
        }
    }

    #[test]
    fn only_results_that_answer_one_question_are_replicas_of_each_other() {
        let (run, other) = (RunId::new(), RunId::new());
        let first = result(run, "web-1", "builtin", Approach::Exec, "a", "p");
        for (case, second, workload) in [
            ("another run", result(other, "web-2", "builtin", Approach::Exec, "a", "f"), "w"),
            ("another engine", result(run, "web-2", "openscap", Approach::Exec, "a", "f"), "w"),
            ("another version of the profile", result(run, "web-2", "builtin", Approach::Exec, "ab", "fp"), "w"),
            ("another workload", result(run, "web-2", "builtin", Approach::Exec, "a", "f"), "x"),
        ] {
            let records = [first.clone(), second];
            let mut places: HashMap<_, _> =
                records.iter().map(|r| ((r.run, r.target.key()), workload.to_owned())).collect();
            places.insert((run, first.target.key()), "w".to_owned());
            assert!(replicas(&records, &places).is_empty(), "{case}");
            assert!(replicas(&records, &HashMap::new()).is_empty(), "{case}: what controls them is not known");
        }
    }

    #[test]
    fn ways_to_one_target_are_shown_side_by_side() {
        let run = RunId::new;
        let exec = result(run(), "web-1", "openscap", Approach::Exec, "abc", "pfp");
        let sidecar = result(run(), "web-1", "openscap", Approach::Sidecar, "abc", "ppp");
        let imported = result(run(), "web-1", "import:arf", Approach::Imported, "bd", "fp");
        let none = result(run(), "web-1", "openscap", Approach::None, "abc", "ooo");
        let elsewhere = result(run(), "web-2", "openscap", Approach::Sidecar, "abc", "fff");
        assert!(
            approaches([&exec]).is_empty() && approaches([&exec, &exec]).is_empty(),
            "one way is none beside another"
        );
        assert!(approaches([&exec, &none, &elsewhere]).is_empty());
        let [comparison] = &approaches([&exec, &sidecar, &imported, &none])[..] else { panic!("one target") };
        assert_eq!((comparison.sides.len(), comparison.compared), (3, 3));
        assert_eq!(differing(comparison), ["b"]);
        assert_eq!(
            comparison.differences[0].outcomes,
            [Some(Status::Failed), Some(Status::Passed), Some(Status::Failed)]
        );
    }
}
