//! Whatever becomes of a piece of work, each of its tasks ends with exactly one record.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::ledger::LedgerReader;
use crate::stage::scan::content::Content;

type Work = Pin<Box<dyn Future<Output = Vec<CheckedTask>> + Send>>;

struct Bench {
    _folder: tempfile::TempDir,
    ledger: Ledger,
    start: RunStart,
    tasks: Vec<Unaccounted>,
}

/// A run that was begun and expects one task of each of `count` images.
fn bench(count: usize) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let mut ledger = Ledger::open(&folder.path().join("ledger.sqlite"), Timestamp::now()).expect("a ledger");
    let profile = Content::shipped().builtin[0].profile().clone();
    let task = |at: usize| Unaccounted {
        target: Target::Image { reference: format!("registry.example/a:{at}"), digest: None },
        engine: "builtin".to_owned(),
        profile: profile.clone(),
    };
    let tasks: Vec<Unaccounted> = (0..count).map(task).collect();
    let start = RunStart {
        run: RunId::new(),
        trigger: Trigger::Manual,
        started: Timestamp::now(),
        requested: vec!["--all".to_owned()],
        classification: None,
        expected: tasks.iter().map(Unaccounted::expected).collect(),
    };
    ledger.begin_run(&start, std::slice::from_ref(&profile)).expect("it begins");
    Bench { _folder: folder, ledger, start, tasks }
}

/// The reasons for which tasks were not evaluated, by target.
fn reasons(summary: &RunSummary) -> Vec<(String, Reason)> {
    let mut reasons: Vec<_> = summary
        .tasks
        .iter()
        .map(|task| match &task.findings[0].outcome {
            crate::model::outcome::Outcome::NotEvaluated { reason, .. } => (task.target.key(), *reason),
            other => panic!("{other:?}"),
        })
        .collect();
    reasons.sort();
    reasons
}

fn done(task: &Unaccounted, run: RunId) -> Work {
    let done = task.clone().not_done(run, Reason::NoShell, "as it ends by itself");
    Box::pin(async move { vec![done] })
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_panics_or_gives_nothing_is_recorded_and_the_rest_is_finished() {
    let Bench { _folder, mut ledger, start, tasks } = bench(3);
    let work: Vec<(Vec<Unaccounted>, Work)> = vec![
        (vec![tasks[0].clone()], Box::pin(async { panic!("a bug") })),
        (vec![tasks[1].clone()], Box::pin(async { Vec::new() })),
        (vec![tasks[2].clone()], done(&tasks[2], start.run)),
    ];
    let (_tell, stop) = watch::channel(Stopping::No);
    let progress = Progress::quiet();
    let summary = Dispatcher::new(start.run, work.len(), &mut ledger, &progress)
        .finish(work.into_iter(), 1, stop)
        .await
        .expect("it is recorded");
    let key = |at: usize| tasks[at].target.key();
    assert_eq!(
        reasons(&summary),
        [(key(0), Reason::InternalError), (key(1), Reason::InternalError), (key(2), Reason::NoShell)]
    );
    assert_eq!(summary.end, RunEnd::Completed);
    assert!(ledger.unfinished_runs().expect("a list").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn told_to_stop_at_once_what_runs_and_what_waits_is_recorded() {
    let Bench { _folder, mut ledger, start, tasks } = bench(3);
    let (tell, stop) = watch::channel(Stopping::No);
    let tell = Arc::new(tell);
    let teller = Arc::clone(&tell);
    let work: Vec<(Vec<Unaccounted>, Work)> = vec![
        (
            vec![tasks[0].clone()],
            Box::pin(async move {
                teller.send(Stopping::Abort).expect("somebody listens");
                std::future::pending().await
            }),
        ),
        (vec![tasks[1].clone()], Box::pin(std::future::pending())),
        (vec![tasks[2].clone()], done(&tasks[2], start.run)),
    ];
    let progress = Progress::quiet();
    let summary = Dispatcher::new(start.run, work.len(), &mut ledger, &progress)
        .finish(work.into_iter(), 2, stop)
        .await
        .expect("it is recorded");
    assert_eq!(
        reasons(&summary).into_iter().map(|(_, reason)| reason).collect::<Vec<_>>(),
        [Reason::RunnerInterrupted; 3]
    );
    assert_eq!(summary.end, RunEnd::Drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_ledger_refuses_nothing_goes_on_behind_it() {
    struct Alive(Arc<AtomicBool>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.store(false, Ordering::SeqCst);
        }
    }
    let Bench { _folder, mut ledger, start, tasks } = bench(2);
    let alive = Arc::new(AtomicBool::new(true));
    let guard = Alive(Arc::clone(&alive));
    let work: Vec<(Vec<Unaccounted>, Work)> = vec![
        (
            vec![tasks[0].clone()],
            Box::pin(async move {
                let _guard = guard;
                std::future::pending().await
            }),
        ),
        // A result of a run that the ledger does not know.
        (vec![tasks[1].clone()], done(&tasks[1], RunId::new())),
    ];
    let (_tell, stop) = watch::channel(Stopping::No);
    let progress = Progress::quiet();
    Dispatcher::new(start.run, work.len(), &mut ledger, &progress)
        .finish(work.into_iter(), 2, stop)
        .await
        .expect_err("it can't be recorded");
    assert!(!alive.load(Ordering::SeqCst), "the other is over before the run is cleaned up");
}

#[tokio::test]
async fn a_set_up_is_given_up_when_the_run_is_told_to_stop() {
    let (tell, mut stop) = watch::channel(Stopping::No);
    assert!(unless_stopped(&mut stop, async { Ok(()) }).await.is_ok());
    tell.send(Stopping::Drain).expect("somebody listens");
    let why = unless_stopped(&mut stop, std::future::pending::<Result<(), NotDone>>()).await.expect_err("given up");
    assert_eq!(why.reason, Reason::RunnerInterrupted);
}

#[test]
fn a_run_that_died_is_accounted_for_by_the_next() {
    let Bench { _folder, mut ledger, start, tasks } = bench(2);
    ledger.record(&tasks[0].clone().not_done(start.run, Reason::NoShell, "done before it died")).expect("recorded");
    assert!(runs_over(&ledger).expect("a list").is_empty(), "as far as anybody knows it goes on");
    assert_eq!(close_interrupted(&mut ledger, Timestamp::now()).expect("closed"), [start.run]);
    // Whoever accounted for it, every later scan knows that what it left in a cluster is nobody's.
    assert!(close_interrupted(&mut ledger, Timestamp::now()).expect("nothing is left").is_empty());
    assert_eq!(runs_over(&ledger).expect("a list"), BTreeSet::from([start.run]));
    let reader = LedgerReader::open(ledger.reader().path()).expect("a reader");
    let run = reader.run(start.run).expect("read").expect("it is there");
    assert_eq!((run.tasks, run.end.map(|e| e.end)), (2, Some(RunEnd::Interrupted)));
}
