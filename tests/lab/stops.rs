//! A runner that is killed at any step, or told to stop, loses nothing, counts nothing twice and leaves nothing behind.

use std::path::Path;

use gapscan::ledger::LedgerReader;
use gapscan::model::outcome::Status;
use gapscan::model::record::RunEnd;

use crate::enclave::{assert_not_evaluated, enclave};
use crate::lab::{Lab, lab, wait_until};
use crate::runner::{Runner, assert_accounted, bare_arguments, next_run, no_pod, pod, was_asked};

/// An image that is soon scanned, and not in the cluster.
fn image(lab: &Lab) -> String {
    format!("image/{}/lab/busybox:1", lab.var("REGISTRY"))
}

/// The entry of each result of a target, and whether anything of it was evaluated.
fn results(ledger: &Path, target: &str) -> Vec<(u64, bool)> {
    let history = LedgerReader::open(ledger).and_then(|reader| reader.history(target)).unwrap_or_default();
    let evaluated =
        |coverage: gapscan::model::coverage::Coverage| coverage.count(Status::NotEvaluated) < coverage.expected();
    history.into_iter().map(|task| (task.seq, evaluated(task.coverage))).collect()
}

#[test]
fn a_run_that_is_killed_again_and_again_is_resumed_until_it_is_done_and_nothing_is_twice() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    ["resumed-a", "resumed-b"].iter().for_each(|name| pod(lab, enclave, name));
    let (ledger, image) = (enclave.path.join("resumed.sqlite"), image(lab));
    let bare = |more: &[&str]| {
        let always = ["--approach", "exec", "--parallel", "1"];
        bare_arguments(lab, enclave, "resumed.sqlite", &[more, &always].concat())
    };
    let first = "pod/shop/resumed-a/c";
    let steps = [Some(("create", "namespaces")), Some(("create", "roles")), Some(("get", "pods/exec")), None];

    let runner = Runner::start(lab, &bare(&["pod/shop/resumed-a", "pod/shop/resumed-b", &image]));
    let run = next_run(&ledger, 0);
    runner.signal("-KILL");
    runner.ends();
    let resumed =
        || LedgerReader::open(&ledger).and_then(|reader| reader.run(run)).ok().flatten().map(|run| run.resumed);
    for (earlier, step) in steps.into_iter().enumerate() {
        let mark = lab.audit_length();
        let runner = Runner::start(lab, &bare(&["--resume"]));
        // What it waits for next may be in the record already, from the one before.
        wait_until("the record of this one", || resumed().is_some_and(|times| times.len() > earlier));
        match step {
            Some((verb, resource)) => {
                wait_until(&format!("{verb} {resource}"), || was_asked(lab, mark, run, verb, resource));
            }
            // One pod is done, and the other is not.
            None => wait_until("the first result of a pod", || !results(&ledger, first).is_empty()),
        }
        runner.signal("-KILL");
        println!("{step:?}: {:?}", runner.ends());
    }
    let before = [results(&ledger, first), results(&ledger, &image)];
    assert!(before.iter().flatten().any(|(_, evaluated)| *evaluated), "something was finished: {before:?}");
    // What is there under the name of the other now was never meant.
    lab.kubectl(&["delete", "pod", "-n", "shop", "resumed-b", "--grace-period=0", "--force"]);
    pod(lab, enclave, "resumed-b");
    assert_eq!(Runner::start(lab, &bare(&["--resume"])).ends(), Some(3));

    let runs = assert_accounted(lab, &ledger);
    assert_eq!(runs.len(), 1, "it is one run");
    assert_eq!(runs[0].end.as_ref().map(|end| end.end), Some(RunEnd::Completed));
    assert_eq!(runs[0].resumed.len(), steps.len() + 1);
    assert_eq!(before[0], results(&ledger, first), "what was finished stands, and was not repeated");
    for target in [first, &image] {
        let all = results(&ledger, target);
        assert!(matches!(all[..], [(_, true)]), "{target} was judged once: {all:?}");
    }
    let lines = enclave.lines(lab, "resumed.sqlite");
    assert_not_evaluated(&lines, "pod/shop/resumed-b", &["target-changed"]);
    assert_eq!(lines.iter().filter(|l| l["what"] == "run-resumed").count(), steps.len() + 1);
    let history = lab.inside(&["history", "--ledger", &ledger.display().to_string()]).exits(0).stdout;
    assert!(history.contains("completed, resumed 5 times"), "{history}");
    assert_eq!(Runner::start(lab, &bare(&["--resume"])).ends(), Some(2), "nothing is left to resume");
    ["resumed-a", "resumed-b"].iter().for_each(|name| no_pod(lab, name));
}

#[test]
fn a_runner_killed_with_a_bundle_is_resumed_or_closed_and_cleaned_up_by_the_next() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    pod(lab, enclave, "killed");
    let ledger = enclave.path.join("killed.sqlite");
    let target = ["pod/shop/killed", "--approach", "exec"];
    let bundled = |more: &[&str]| enclave.scan_arguments(lab, "killed.sqlite", more);
    let bare = |more: &[&str]| bare_arguments(lab, enclave, "killed.sqlite", more);
    let killed_at = |arguments: &[String], known: usize, (verb, resource): (&str, &str)| {
        let mark = lab.audit_length();
        let runner = Runner::start(lab, arguments);
        let run = next_run(&ledger, known);
        wait_until(&format!("{verb} {resource}"), || was_asked(lab, mark, run, verb, resource));
        runner.signal("-KILL");
        println!("{verb} {resource}: {:?}", runner.ends());
        run
    };
    // While the canary asks, then while the scan has an identity.
    let run = killed_at(&bundled(&target), 0, ("create", "pods"));
    let again = killed_at(&bundled(&["--resume"]), 0, ("create", "serviceaccounts/token"));
    assert_eq!(run, again, "it is the same run");
    // Without the bundle that it began with it can't go on: the rest is accounted for.
    assert_eq!(Runner::start(lab, &bare(&["--resume"])).ends(), Some(3));
    let closed = LedgerReader::open(&ledger).and_then(|reader| reader.run(run)).expect("read").expect("it is there");
    assert_eq!(closed.end.map(|end| end.end), Some(RunEnd::Interrupted));
    assert!(!closed.coverage.is_complete());
    // The next is killed while it cleans up, and the one after it removes what is left of both.
    killed_at(&bare(&target), 1, ("delete", "namespaces"));
    let last = Runner::start(lab, &bare(&["cluster"])).ends();
    assert!(last == Some(0) || last == Some(1), "{last:?}");
    let runs = assert_accounted(lab, &ledger);
    assert_eq!(runs.len(), 3);
    no_pod(lab, "killed");
}

#[test]
fn a_second_signal_ends_what_runs_and_cleans_up_all_the_same() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    pod(lab, enclave, "stopped");
    let targets = ["pod/shop/stopped", "--approach", "exec"];
    let ledger = enclave.path.join("stopped.sqlite");
    for step in [("create", "pods"), ("create", "roles"), ("get", "pods/exec")] {
        // Only the canary's pod needs a bundle.
        let arguments = match step {
            ("create", "pods") => enclave.scan_arguments(lab, "stopped.sqlite", &targets),
            _ => bare_arguments(lab, enclave, "stopped.sqlite", &targets),
        };
        let known = LedgerReader::open(&ledger).and_then(|reader| reader.runs(usize::MAX)).unwrap_or_default().len();
        let mark = lab.audit_length();
        let runner = Runner::start(lab, &arguments);
        let run = next_run(&ledger, known);
        wait_until(&format!("{step:?}"), || was_asked(lab, mark, run, step.0, step.1));
        runner.signal("-TERM");
        runner.signal("-INT");
        let code = runner.ends();
        let runs = assert_accounted(lab, &ledger);
        let end = runs[0].end.as_ref().expect("it has ended").end;
        assert!(
            matches!((code, end), (Some(3), RunEnd::Drained) | (_, RunEnd::Completed)),
            "{step:?}: {code:?}, {end:?}"
        );
        let events = LedgerReader::open(&ledger).and_then(|reader| reader.events()).expect("events");
        let cleaned = |what: &str| events.iter().any(|e| e.what == what && e.subject == run.to_string());
        assert!(cleaned("cleanup-verified") && !cleaned("cleanup-incomplete"), "{step:?}: {events:?}");
    }
    no_pod(lab, "stopped");
}

#[test]
fn a_pod_replaced_under_its_name_is_not_judged_as_the_one_that_was_asked_for() {
    let Some(lab) = lab() else { return };
    let enclave = enclave(lab);
    pod(lab, enclave, "replaced");
    let mark = lab.audit_length();
    let image = image(lab);
    let arguments =
        bare_arguments(lab, enclave, "replaced.sqlite", &["pod/shop/replaced", &image, "--approach", "exec"]);
    let ledger = enclave.path.join("replaced.sqlite");
    let runner = Runner::start(lab, &arguments);
    let run = next_run(&ledger, 0);
    // It was chosen with the UID that it had; the identity comes after.
    wait_until("its namespace", || was_asked(lab, mark, run, "create", "namespaces"));
    runner.holds_still(|| {
        lab.kubectl(&["delete", "pod", "-n", "shop", "replaced", "--grace-period=0", "--force"]);
        pod(lab, enclave, "replaced");
    });
    assert_eq!(runner.ends(), Some(3));
    let lines = enclave.lines(lab, "replaced.sqlite");
    let reasons = ["target-gone", "target-changed", "target-not-found", "target-not-running"];
    crate::enclave::assert_not_evaluated(&lines, "pod/shop/replaced", &reasons);
    assert!(lines.iter().any(|l| l["target"] == image && l["outcome"] == "passed"), "the rest was finished");
    let notes = lines.iter().filter(|l| l["type"] == "task").map(|l| l["notes"].to_string()).collect::<String>();
    assert!(!notes.contains("second attempt"), "it is another pod, and not tried under its name: {notes}");
    no_pod(lab, "replaced");
}
