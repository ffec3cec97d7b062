//! Whatever becomes of a piece of work, each of its tasks ends with exactly one record.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::base::quantity::Span;
use crate::ledger::LedgerReader;
use crate::model::record::Trigger;
use crate::model::target::Target;
use crate::stage::plan::BreakerPolicy;
use crate::stage::scan::account::{close_interrupted, runs_over};
use crate::stage::scan::budget::{CpuBudget, Part, Rank};
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
        bundle: None,
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

/// Work that is tried only once.
fn once(work: Work) -> Box<dyn Fn() -> Attempt + Send> {
    let work = Mutex::new(Some(work));
    Box::new(move || {
        let work = work.lock().expect("nobody panicked with it").take().expect("it is tried only once");
        Box::pin(async move {
            Done {
                results: work.await,
                approach: Approach::None,
                outcome: Ok(()),
                repeat: Repeat::Never,
                events: Vec::new(),
            }
        })
    })
}

/// Work in a cluster that fails so often for this reason, and then succeeds.
fn failing(
    task: &Unaccounted,
    run: RunId,
    times: usize,
    (reason, repeat): (Reason, Repeat),
) -> Box<dyn Fn() -> Attempt + Send> {
    let (task, attempts) = (task.clone(), AtomicUsize::new(0));
    Box::new(move || {
        let fails = attempts.fetch_add(1, Ordering::SeqCst) < times;
        // A record needs some reason; that of a success is told apart by it.
        let said = if fails { reason } else { Reason::NoShell };
        let results = vec![task.clone().not_done(run, said, "as it came")];
        let outcome = if fails { Err(NotDone::new(reason, "as it came")) } else { Ok(()) };
        Box::pin(async move { Done { results, approach: Approach::Exec, outcome, repeat, events: Vec::new() } })
    })
}

fn place(task: &Unaccounted) -> Place {
    let target = task.target.key();
    Place {
        rank: Rank::Selected,
        lane: "shop".to_owned(),
        target,
        registry: None,
        cluster: Some(Part::default()),
        cpu_millis: 0,
    }
}

async fn run_all(
    ledger: &mut Ledger,
    run: RunId,
    policy: &Policy,
    prober: Option<Prober>,
    work: Vec<(Unaccounted, Box<dyn Fn() -> Attempt + Send>)>,
    stop: Stop,
) -> Result<RunSummary, LedgerError> {
    let progress = Progress::quiet();
    let mut dispatcher = Dispatcher::new(run, (policy, CpuBudget::Unknown), prober, ledger, &progress);
    dispatcher.again = Duration::ZERO;
    for (task, work) in work {
        dispatcher.add(place(&task), vec![task], work);
    }
    dispatcher.finish(stop).await
}

fn one_at_a_time() -> Policy {
    Policy { parallel: 1, ..Policy::default() }
}

/// A policy whose breakers are tried again at once, and for so long.
fn patient(seconds: u64) -> Policy {
    let breakers =
        BreakerPolicy { pause: Span::seconds(0), patience: Span::seconds(seconds), ..BreakerPolicy::default() };
    Policy { breakers, ..one_at_a_time() }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_panics_or_gives_nothing_is_recorded_and_the_rest_is_finished() {
    let Bench { _folder, mut ledger, start, tasks } = bench(3);
    let work: Vec<(Unaccounted, Work)> = vec![
        (tasks[0].clone(), Box::pin(async { panic!("a bug") })),
        (tasks[1].clone(), Box::pin(async { Vec::new() })),
        (tasks[2].clone(), done(&tasks[2], start.run)),
    ];
    let (_tell, stop) = watch::channel(Stopping::No);
    let work = work.into_iter().map(|(task, work)| (task, once(work))).collect();
    let summary = run_all(&mut ledger, start.run, &one_at_a_time(), None, work, stop).await.expect("it is recorded");
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
    let work: Vec<(Unaccounted, Work)> = vec![
        (
            tasks[0].clone(),
            Box::pin(async move {
                teller.send(Stopping::Abort).expect("somebody listens");
                std::future::pending().await
            }),
        ),
        (tasks[1].clone(), Box::pin(std::future::pending())),
        (tasks[2].clone(), done(&tasks[2], start.run)),
    ];
    let work = work.into_iter().map(|(task, work)| (task, once(work))).collect();
    let two = Policy { parallel: 2, ..Policy::default() };
    let summary = run_all(&mut ledger, start.run, &two, None, work, stop).await.expect("it is recorded");
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
    let work: Vec<(Unaccounted, Work)> = vec![
        (
            tasks[0].clone(),
            Box::pin(async move {
                let _guard = guard;
                std::future::pending().await
            }),
        ),
        // A result of a run that the ledger does not know.
        (tasks[1].clone(), done(&tasks[1], RunId::new())),
    ];
    let (_tell, stop) = watch::channel(Stopping::No);
    let work = work.into_iter().map(|(task, work)| (task, once(work))).collect();
    let two = Policy { parallel: 2, ..Policy::default() };
    run_all(&mut ledger, start.run, &two, None, work, stop).await.expect_err("it can't be recorded");
    assert!(!alive.load(Ordering::SeqCst), "the other is over before the run is cleaned up");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_surely_did_nothing_is_tried_once_more_and_the_record_says_so() {
    let Bench { _folder, mut ledger, start, tasks } = bench(3);
    let (_tell, stop) = watch::channel(Stopping::No);
    let silent = |repeat| (Reason::ApiUnreachable, repeat);
    let work = vec![
        (tasks[0].clone(), failing(&tasks[0], start.run, 1, silent(Repeat::Safe))),
        (tasks[1].clone(), failing(&tasks[1], start.run, 1, silent(Repeat::Never))),
        // Never a third time.
        (tasks[2].clone(), failing(&tasks[2], start.run, 2, silent(Repeat::Safe))),
    ];
    let policy = Policy { breakers: BreakerPolicy { cluster: many(), ..BreakerPolicy::default() }, ..one_at_a_time() };
    let summary = run_all(&mut ledger, start.run, &policy, None, work, stop).await.expect("it is recorded");
    let key = |at: usize| tasks[at].target.key();
    assert_eq!(
        reasons(&summary),
        [(key(0), Reason::NoShell), (key(1), Reason::ApiUnreachable), (key(2), Reason::ApiUnreachable)]
    );
    for task in &summary.tasks {
        let twice = task.target.key() != key(1);
        assert_eq!(task.notes.iter().any(|n| n.contains("second attempt")), twice, "{:?}", task.notes);
    }
}

fn many() -> NonZeroUsize {
    NonZeroUsize::new(100).expect("it is not zero")
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_api_server_is_silent_what_waits_is_kept_for_when_it_is_back() {
    let Bench { _folder, mut ledger, start, tasks } = bench(8);
    let (_tell, stop) = watch::channel(Stopping::No);
    let silent = (Reason::ApiUnreachable, Repeat::Never);
    let work = tasks.iter().enumerate().map(|(at, task)| {
        let times = if at < 3 { 1 } else { 0 };
        (task.clone(), failing(task, start.run, times, silent))
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let probe: Prober = Box::new(move |_| {
        let back = count.fetch_add(1, Ordering::SeqCst) == 2;
        let sign = if back { Sign::Works } else { Sign::Fails(Reason::ApiUnreachable) };
        Box::pin(async move { sign })
    });
    let summary = run_all(&mut ledger, start.run, &patient(3600), Some(probe), work.collect(), stop)
        .await
        .expect("it is recorded");
    let lost = reasons(&summary).into_iter().filter(|(_, reason)| *reason == Reason::ApiUnreachable).count();
    assert_eq!((lost, summary.tasks.len(), asked.load(Ordering::SeqCst)), (3, 8, 3));
    let events = ledger.reader().events().expect("events");
    let words: Vec<&str> = events.iter().map(|e| e.what.as_str()).collect();
    assert_eq!(words, ["breaker-opened", "breaker-closed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_patience_ends_what_waits_is_recorded() {
    let Bench { _folder, mut ledger, start, tasks } = bench(6);
    let (_tell, stop) = watch::channel(Stopping::No);
    let silent = (Reason::ApiUnreachable, Repeat::Safe);
    let work = tasks.iter().map(|task| (task.clone(), failing(task, start.run, 9, silent))).collect();
    let probe: Prober = Box::new(|_| Box::pin(async { Sign::Fails(Reason::ApiUnreachable) }));
    let summary = run_all(&mut ledger, start.run, &patient(0), Some(probe), work, stop).await.expect("it is recorded");
    let mut found: Vec<Reason> = reasons(&summary).into_iter().map(|(_, reason)| reason).collect();
    found.sort();
    // The three that had been tried keep what they came to.
    let [api, open] = [Reason::ApiUnreachable, Reason::BreakerOpen];
    assert_eq!(found, [api, api, api, open, open, open]);
    assert_eq!(summary.end, RunEnd::Completed);
    assert!(ledger.unfinished_runs().expect("a list").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_blackout_nothing_is_started() {
    let Bench { _folder, mut ledger, start, tasks } = bench(2);
    let (_tell, stop) = watch::channel(Stopping::No);
    let always = r#"{"cron": "* * * * * *", "timeZone": "UTC", "duration": "1h"}"#;
    let always = serde_json::from_str(always).expect("a good blackout");
    let policy = Policy { blackout: vec![always], ..Policy::default() };
    let panic = || -> Work { Box::pin(async { panic!("it was started") }) };
    let work = tasks.iter().map(|task| (task.clone(), once(panic()))).collect();
    let summary = run_all(&mut ledger, start.run, &policy, None, work, stop).await.expect("it is recorded");
    assert_eq!(reasons(&summary).into_iter().map(|(_, reason)| reason).collect::<Vec<_>>(), [Reason::Blackout; 2]);
}

#[test]
fn what_failed_together_does_not_come_back_together() {
    let least = Duration::from_secs(2);
    assert_eq!((jittered(least, 0), jittered(least, u16::MAX)), (least, least * 2));
    assert!(jittered(least, 1000) > least && jittered(least, 1000) < jittered(least, 30_000));
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
