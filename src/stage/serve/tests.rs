use super::dues::owed;
use super::entry::Standing;
use super::*;
use crate::model::record::Event;

fn time(text: &str) -> Timestamp {
    format!("2026-03-01T{text}Z").parse().expect("a timestamp")
}

const HEAD: &str = "apiVersion: gapscan/v1\nkind: Plan\nname: p\n";

fn served(folder: &std::path::Path, text: &str) -> (Plan, Access, Ledger) {
    let path = folder.join("plan.yaml");
    std::fs::write(&path, format!("{HEAD}{text}")).expect("the plan is written");
    let plan = Plan::load(&path, &crate::base::limits::Limits::default()).expect("a plan");
    let access = Access {
        ledger: folder.join("ledger.sqlite"),
        cluster: plan.cluster.clone(),
        bundle: None,
        registries: plan.registries.clone(),
        inputs: plan.inputs.clone(),
    };
    let ledger = Ledger::open(&access.ledger, Timestamp::now()).expect("a ledger");
    (plan, access, ledger)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_in_a_blackout_is_recorded_and_made_up_for_once() {
    let folder = tempfile::tempdir().expect("a folder");
    // One that begins each second, so that it is always there.
    let text = "policy: {blackout: [{cron: '* * * * * *', timeZone: UTC, duration: 1h}]}\nscans:\n- {name: s, \
                targets: [host], schedule: {cron: '0 0 1 1 *', timeZone: UTC, missed: run}}\n";
    let (mut plan, access, mut ledger) = served(folder.path(), text);
    let (_tell, stop) = tokio::sync::watch::channel(Stopping::No);
    let entry = |ledger: &Ledger| Entry {
        scan: plan.scans[0].clone(),
        schedule: plan.scans[0].schedule.clone().expect("it has one"),
        subject: "p/s".to_owned(),
        handled: time("00:00:00"),
        owed: owed(&ledger.reader().events().expect("events"), "p/s"),
    };
    let (mut first, progress) = (entry(&ledger), Progress::quiet());
    let due = (time("01:00:00"), Standing::Due);
    first.run(due, &plan, &access, &mut ledger, stop.clone(), &progress).await.expect("it is recorded");
    assert!(ledger.reader().runs(10).expect("runs").is_empty(), "nothing was started, and nothing was known of it");
    // Whoever comes next knows of it from the ledger.
    let mut next = entry(&ledger);
    assert_eq!((first.owed, next.owed), (Some(due.0), Some(due.0)));
    plan.policy.blackout.clear();
    let made_up = (due.0, Standing::Recorded);
    next.run(made_up, &plan, &access, &mut ledger, stop, &progress).await.expect("it runs");
    assert_eq!(next.owed, None);
    let events = ledger.reader().events().expect("events");
    assert_eq!(owed(&events, "p/s"), None);
    assert!(events.iter().any(|e| e.what == "blackout" && e.due == Some(due.0)), "{events:?}");
    let runs = ledger.reader().runs(10).expect("runs");
    assert_eq!(runs.len(), 1);
    assert!(matches!(&runs[0].start.trigger, Trigger::Schedule { due: of, .. } if *of == due.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_with_a_due_time_from_a_wrong_clock_goes_on_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "scans:\n- {name: s, targets: [host], schedule: {cron: '* * * * * *', timeZone: UTC}}\n";
    let (plan, access, mut ledger) = served(folder.path(), text);
    let far: Timestamp = "2199-01-01T00:00:00Z".parse().expect("a timestamp");
    let event = Event {
        at: Timestamp::now(),
        what: "schedule-overlap".to_owned(),
        subject: "p/s".to_owned(),
        due: Some(far),
        detail: String::new(),
    };
    ledger.event(&event).expect("recorded");
    let (tell, stop) = tokio::sync::watch::channel(Stopping::No);
    tell.send(Stopping::Drain).expect("somebody listens");
    serve(&plan, &access, &mut ledger, stop, &Progress::quiet()).await.expect("it ends in order");
    let events = ledger.reader().events().expect("events");
    assert!(events.iter().any(|e| e.what == "schedule-clock-moved-back" && e.subject == "p/s"), "{events:?}");
}
