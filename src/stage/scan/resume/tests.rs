use super::*;
use crate::model::record::{RunId, Trigger};
use crate::model::target::TargetKind;
use crate::stage::scan::account::Unaccounted;
use crate::stage::scan::budget::Rank;
use crate::stage::scan::dispatch::Stopping;
use crate::stage::scan::unit::{NotDone, Task};

fn task_for(kind: TargetKind) -> Task {
    let content = Content::shipped();
    let fits = content.builtin.iter().find(|p| p.document().targets.contains(&kind)).expect("there is one");
    Task { engine: BUILTIN.to_owned(), profile: fits.profile().clone(), rules: Some(fits.clone()) }
}

fn unit(target: Target, work: Work) -> Unit {
    let tasks = vec![task_for(target.kind())];
    Unit { target, workload: None, rank: Rank::Named, work, tasks }
}

fn owed(target: Target) -> ExpectedTask {
    let Task { engine, profile, .. } = task_for(target.kind());
    Unaccounted { target, engine, profile }.expected()
}

fn node(name: &str, uid: Option<&str>) -> Target {
    Target::Node { name: name.to_owned(), uid: uid.map(str::to_owned) }
}

fn image(tag: u8) -> Target {
    Target::Image { reference: format!("registry.example/a:{tag}"), digest: None }
}

#[test]
fn only_what_still_is_what_was_meant_is_scanned() {
    let absent = NotDone::new(Reason::TargetNotFound, "there is no such node");
    let silent = NotDone::new(Reason::ApiUnreachable, "no answer");
    let missing = vec![
        owed(node("same", Some("1"))),
        owed(node("replaced", Some("1"))),
        owed(node("gone", Some("1"))),
        owed(node("hidden", Some("1"))),
        owed(node("*", None)),
        owed(node("unseen", Some("1"))),
    ];
    let units = vec![
        unit(node("same", Some("1")), Work::Node(String::new())),
        unit(node("replaced", Some("2")), Work::Node(String::new())),
        unit(node("gone", None), Work::Impossible(absent)),
        unit(node("hidden", None), Work::Impossible(silent)),
        // Nobody asked for it when the run began.
        unit(node("more", Some("7")), Work::Node(String::new())),
    ];
    let (left, lost) = still_meant(missing, units);
    // What could not be asked about may be the same: it has a reason of its own.
    assert_eq!(left.iter().map(|unit| unit.target.key()).collect::<Vec<_>>(), ["node/same", "node/hidden"]);
    let lost: Vec<(String, Reason)> = lost.into_iter().map(|lost| (lost.task.target.key(), lost.reason)).collect();
    let expected = [
        ("node/replaced", Reason::TargetChanged),
        ("node/gone", Reason::TargetGone),
        ("node/*", Reason::RunnerInterrupted),
        ("node/unseen", Reason::TargetGone),
    ];
    assert_eq!(lost, expected.map(|(key, reason)| (key.to_owned(), reason)));
}

#[test]
fn of_a_target_that_was_half_done_only_the_other_half_is_scanned() {
    let target = image(1);
    let mut unit = unit(target.clone(), Work::Image);
    unit.tasks.extend([task_for(TargetKind::Host)]);
    let wanted = unit.tasks[1].profile.digest();
    let half = ExpectedTask { profile: unit.tasks[1].profile.reference(), ..owed(target) };
    let (left, lost) = still_meant(vec![half], vec![unit]);
    assert!(lost.is_empty());
    assert_eq!(left[0].tasks.iter().map(|task| task.profile.digest()).collect::<Vec<_>>(), [wanted]);
}

fn begun(ledger: &mut Ledger, targets: Vec<Target>) -> RunStart {
    let start = RunStart {
        run: RunId::new(),
        trigger: Trigger::Schedule { plan: "p/s".to_owned(), due: Timestamp::now() },
        started: Timestamp::now(),
        requested: vec!["host".to_owned()],
        classification: None,
        bundle: None,
        expected: targets.into_iter().map(owed).collect(),
    };
    let profiles = [TargetKind::Host, TargetKind::Image].map(|kind| task_for(kind).profile);
    ledger.begin_run(&start, &profiles).expect("it begins");
    start
}

fn request(path: &std::path::Path) -> ResumeRequest {
    let access = Access {
        ledger: path.to_owned(),
        cluster: Default::default(),
        bundle: None,
        registries: Default::default(),
        inputs: Default::default(),
    };
    ResumeRequest { access, policy: Policy::default(), on_loss: OnLoss::Refuse }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_finished_stands_and_the_rest_is_scanned_in_the_same_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.sqlite");
    let mut ledger = Ledger::open(&path, Timestamp::now()).expect("a ledger");
    let older = begun(&mut ledger, vec![image(2)]);
    let elsewhere = Target::Host { name: "another-machine".to_owned() };
    let start = begun(&mut ledger, vec![image(1), elsewhere]);
    let Task { engine, profile, .. } = task_for(TargetKind::Image);
    let first = Unaccounted { target: image(1), engine, profile };
    ledger.record(&first.not_done(start.run, Reason::ImageUnreadable, "before it died")).expect("recorded");
    drop(ledger);

    let mut ledger = Ledger::open(&path, Timestamp::now()).expect("the ledger");
    let (_tell, stop) = tokio::sync::watch::channel(Stopping::No);
    let newest = newest_unfinished(&ledger).expect("read").expect("there is one");
    assert_eq!(newest.start.run, start.run);
    let summary = resume(request(&path), &mut ledger, stop.clone(), &Progress::quiet()).await.expect("it is resumed");
    assert_eq!((summary.run, summary.end, summary.tasks.len()), (start.run, RunEnd::Completed, 2));
    let reader = ledger.reader();
    let run = reader.run(start.run).expect("read").expect("it is there");
    assert_eq!((run.tasks, run.resumed.len(), run.coverage), (2, 1, summary.coverage));
    let of = |target: &str| {
        let tasks = reader.tasks_of(start.run).expect("tasks");
        let one = tasks.into_iter().find(|task| task.target.key() == target).expect("it has a result");
        one.findings[0].outcome.clone()
    };
    let reason = |target| match of(target) {
        crate::model::outcome::Outcome::NotEvaluated { reason, .. } => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason("image/registry.example/a:1"), Reason::ImageUnreadable, "it stands");
    assert_eq!(reason("host"), Reason::TargetChanged, "this is another machine");
    let older = reader.run(older.run).expect("read").expect("it is there");
    assert_eq!(older.end.map(|end| end.end), Some(RunEnd::Interrupted), "only the newest is resumed");
    assert!(reader.verify().expect("it can be checked").is_intact());
    let nothing = resume(request(&path), &mut ledger, stop, &Progress::quiet()).await;
    assert!(matches!(nothing, Err(ScanError::Request(_))), "there is none any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_rest_on_another_profile_is_not_resumed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.sqlite");
    let mut ledger = Ledger::open(&path, Timestamp::now()).expect("a ledger");
    let mut task = task_for(TargetKind::Host);
    task.profile.controls.pop();
    let expected = Unaccounted {
        target: Target::Host { name: "h".to_owned() },
        engine: task.engine,
        profile: task.profile.clone(),
    };
    let start = RunStart { expected: vec![expected.expected()], ..begun(&mut ledger, Vec::new()) };
    let start = RunStart { run: RunId::new(), ..start };
    ledger.begin_run(&start, &[task.profile]).expect("it begins");
    let (_tell, stop) = tokio::sync::watch::channel(Stopping::No);
    let summary = resume(request(&path), &mut ledger, stop, &Progress::quiet()).await.expect("it is closed");
    assert_eq!((summary.run, summary.end, summary.tasks.len()), (start.run, RunEnd::Interrupted, 1));
    assert!(!summary.coverage.is_complete());
    assert!(ledger.unfinished_runs().expect("read").is_empty());
}

#[test]
fn a_run_is_taken_up_while_it_is_young_and_not_for_ever() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::open(&folder.path().join("l"), Timestamp::now()).expect("a ledger");
    let start = begun(&mut ledger, vec![image(1)]);
    let run = |resumed| RunRecord {
        start: start.clone(),
        end: None,
        resumed: vec![start.started; resumed],
        tasks: 0,
        coverage: Coverage::default(),
    };
    let policy = ResumePolicy::default();
    let after = |hours| start.started + SignedDuration::from_hours(hours);
    assert!(by_itself(&run(0), &policy, after(5)) && by_itself(&run(2), &policy, after(5)));
    assert!(!by_itself(&run(0), &policy, after(6)) && !by_itself(&run(3), &policy, after(1)));
    let never = ResumePolicy { within: crate::base::quantity::Span::seconds(0), ..policy };
    assert!(!by_itself(&run(0), &never, start.started));
}

#[test]
fn what_stands_for_targets_that_were_never_found_is_nobody_s_name() {
    for target in [node("*", None), Target::Image { reference: "*".to_owned(), digest: None }] {
        assert_eq!(spec_of(&target), None, "{target}");
    }
    let selection = selection_of(&[owed(image(1)), owed(image(1)), owed(node("a", None))]);
    assert_eq!(selection.words(), ["image/registry.example/a:1", "node/a"]);
}
