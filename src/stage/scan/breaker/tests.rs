use proptest::prelude::*;

use super::*;
use crate::base::quantity::Span;
use crate::model::provenance::Approach;
use crate::stage::scan::budget::{Budget, CpuBudget, Part as Needs, Queue, Rank};

const FAILED: Sign = Sign::Fails(Reason::CollectorFailed);

fn seconds(count: u64) -> Elapsed {
    Duration::from_secs(count)
}

fn some(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("it is not zero")
}

fn rule() -> Rule {
    Rule { failures: some(3), pause: seconds(10), patience: seconds(300) }
}

fn opened() -> Breaker {
    let mut breaker = Breaker::new(rule());
    ["a", "b", "c"].iter().for_each(|who| breaker.seen(FAILED, who, seconds(1)));
    breaker
}

fn place(target: &str, node: &str, workload: &str) -> Place {
    let cluster = Some(Needs { node: Some(node.to_owned()), workload: Some(workload.to_owned()) });
    Place {
        rank: Rank::Selected,
        lane: "shop".to_owned(),
        target: target.to_owned(),
        registry: None,
        cluster,
        cpu_millis: 0,
    }
}

fn cluster_probe(breakers: &mut Breakers, now: Elapsed) -> bool {
    breakers.begin_probes(now) == [Scope::Cluster]
}

#[test]
fn it_opens_after_failures_of_several_with_no_success_between_them() {
    let mut breaker = Breaker::new(rule());
    for who in ["a", "b", "a", "b"] {
        breaker.seen(FAILED, who, seconds(1));
    }
    assert_eq!(breaker.ask(seconds(1)), Answer::Pass, "these were two");
    breaker.seen(Sign::Works, "d", seconds(1));
    breaker.seen(FAILED, "c", seconds(1));
    assert_eq!(breaker.ask(seconds(1)), Answer::Pass, "somebody succeeded between them");
    assert_eq!(opened().ask(seconds(1)), Answer::Wait(Some(seconds(11))));
}

#[test]
fn one_probe_at_a_time_with_longer_pauses_between_them_until_patience_ends() {
    let mut breaker = opened();
    let mut tries = Vec::new();
    let mut now = seconds(1);
    let given_up = loop {
        match breaker.ask(now) {
            Answer::Wait(Some(at)) => now = at,
            Answer::Probe => {
                breaker.begin_probe();
                assert_eq!(breaker.ask(now), Answer::Wait(None), "there is one already");
                tries.push(now.as_secs());
                breaker.probed(Sign::Fails(Reason::Timeout), "d", now);
            }
            Answer::Refuse(last) => break last,
            Answer::Wait(None) | Answer::Pass => panic!("nobody succeeded, and no probe is under way"),
        }
    };
    assert_eq!((tries, now, given_up), (vec![11, 31, 71, 131, 191, 251], seconds(301), Reason::Timeout));
}

#[test]
fn a_probe_that_says_nothing_leaves_the_question_open() {
    let mut breaker = opened();
    breaker.begin_probe();
    breaker.probed(Sign::Nothing, "d", seconds(11));
    assert_eq!(breaker.ask(seconds(11)), Answer::Wait(Some(seconds(21))));
    assert_eq!(breaker.ask(seconds(21)), Answer::Probe);
}

#[test]
fn what_fails_tells_of_nobody_else() {
    use Sign::{Fails, Nothing, Works};
    let of = |approach, reason| {
        let signs = signs(approach, Err(reason));
        (signs.cluster, signs.node, signs.target)
    };
    for reason in Reason::ALL {
        assert_eq!(of(Approach::Image, *reason), (Nothing, Nothing, Nothing), "{reason}: no cluster is needed for it");
    }
    let api = Reason::ApiUnreachable;
    assert_eq!(of(Approach::Exec, api), (Fails(api), Nothing, Nothing));
    let gone = Reason::TargetGone;
    assert_eq!(of(Approach::Exec, gone), (Works, Nothing, Fails(gone)));
    assert_eq!(of(Approach::Debug, Reason::AccessDenied), (Nothing, Nothing, Nothing));
}

/// A run of three targets on one node.
fn breakers() -> Breakers {
    let policy = BreakerPolicy { pause: Span::seconds(10), patience: Span::seconds(60), ..BreakerPolicy::default() };
    Breakers::new(policy)
}

fn ends(breakers: &mut Breakers, place: &Place, reason: Reason, now: Elapsed) -> Vec<Change> {
    let permit = breakers.begin(place, now);
    breakers.ended(permit, signs(Approach::Exec, Err(reason)), now)
}

#[test]
fn a_node_where_several_targets_fail_is_left_alone_and_others_are_not() {
    let mut breakers = breakers();
    let bad = |at: usize| place(&format!("pod/shop/web-{at}/c"), "bad", &format!("w{at}"));
    // One target alone stops only itself.
    for _ in 0..3 {
        ends(&mut breakers, &bad(0), Reason::CollectorFailed, seconds(1));
    }
    assert!(matches!(breakers.ask(&bad(0), seconds(1)), Answer::Wait(Some(_))));
    assert_eq!(breakers.ask(&bad(1), seconds(1)), Answer::Pass);
    ends(&mut breakers, &bad(1), Reason::Timeout, seconds(1));
    let changes = ends(&mut breakers, &bad(2), Reason::CollectorFailed, seconds(1));
    let expected = Change { scope: Scope::Node("bad".to_owned()), now: Now::Open(Reason::CollectorFailed) };
    assert_eq!(changes, [expected]);
    assert!(matches!(breakers.ask(&bad(3), seconds(1)), Answer::Wait(Some(_))));
    assert_eq!(breakers.ask(&place("pod/shop/web-9/c", "good", "w9"), seconds(1)), Answer::Pass);
    let elsewhere = Place { cluster: None, ..bad(3) };
    assert_eq!(breakers.ask(&elsewhere, seconds(1)), Answer::Pass, "what is not on it needs it not");

    // One probe; when it succeeds the others may go.
    let now = seconds(11);
    assert_eq!(breakers.ask(&bad(3), now), Answer::Probe);
    let probe = breakers.begin(&bad(3), now);
    assert_eq!(breakers.ask(&bad(4), now), Answer::Wait(None));
    let changes = breakers.ended(probe, signs(Approach::Exec, Ok(())), now);
    assert_eq!(changes, [Change { scope: Scope::Node("bad".to_owned()), now: Now::Closed }]);
    assert_eq!(breakers.ask(&bad(4), now), Answer::Pass);
}

#[test]
fn a_silent_cluster_is_asked_by_itself_and_costs_no_target() {
    let mut breakers = breakers();
    let at = |n: usize| place(&format!("pod/shop/web-{n}/c"), "lab", "web");
    for n in 0..3 {
        ends(&mut breakers, &at(n), Reason::ApiUnreachable, seconds(1));
    }
    assert!(!cluster_probe(&mut breakers, seconds(5)));
    assert_eq!(breakers.next_change(seconds(5)), Some(seconds(11)));
    assert_eq!(breakers.ask(&at(3), seconds(11)), Answer::Wait(None), "it is not for a target to find out");
    assert!(cluster_probe(&mut breakers, seconds(11)));
    assert!(!cluster_probe(&mut breakers, seconds(11)));
    assert_eq!(breakers.probed(Scope::Cluster, Sign::Fails(Reason::ApiUnreachable), seconds(12)), None);
    assert_eq!(breakers.refusal(&at(3), seconds(30)), None);
    let why = breakers.refusal(&at(3), seconds(100));
    assert_eq!(why, None, "a pause ended before patience did, and its probe is still owed");
    assert!(cluster_probe(&mut breakers, seconds(100)));
    assert_eq!(breakers.probed(Scope::Cluster, Sign::Fails(Reason::ApiUnreachable), seconds(101)), None);
    let why = breakers.refusal(&at(3), seconds(101)).expect("patience has ended");
    assert!(why.contains("the cluster") && why.contains("api-unreachable") && why.contains("1m"), "{why}");
}

#[derive(Clone, Debug)]
enum Step {
    Later(u64),
    Start,
    End(prop::sample::Index, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u64..40).prop_map(Step::Later),
        Just(Step::Start),
        (any::<prop::sample::Index>(), 0u8..3).prop_map(|(which, sign)| Step::End(which, sign)),
    ]
}

fn sign(number: u8) -> Sign {
    [Sign::Works, Sign::Nothing, FAILED][usize::from(number % 3)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn there_are_never_two_probes_and_a_success_always_closes(steps in prop::collection::vec(step(), 1..120)) {
        let mut breaker = Breaker::new(rule());
        let mut now = Duration::ZERO;
        // What is under way: its name, and whether it is a probe.
        let mut going: Vec<(String, bool)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Later(by) => now += seconds(by),
                Step::Start => {
                    let answer = breaker.ask(now);
                    match answer {
                        Answer::Pass => going.push((number.to_string(), false)),
                        Answer::Probe => {
                            breaker.begin_probe();
                            going.push((number.to_string(), true));
                        }
                        Answer::Wait(Some(at)) => prop_assert!(at > now, "it would be asked without an end"),
                        Answer::Wait(None) => prop_assert!(going.iter().any(|(_, probe)| *probe), "nothing ends it"),
                        Answer::Refuse(_) => {}
                    }
                }
                Step::End(which, number) => {
                    if going.is_empty() {
                        continue;
                    }
                    let (who, probe) = going.swap_remove(which.index(going.len()));
                    let sign = sign(number);
                    if probe { breaker.probed(sign, &who, now) } else { breaker.seen(sign, &who, now) }
                    if sign == Sign::Works {
                        prop_assert_eq!(breaker.ask(now), Answer::Pass);
                    }
                }
            }
            prop_assert!(going.iter().filter(|(_, probe)| *probe).count() <= 1);
        }
    }

    /// Whatever fails and however long it takes, each piece of work is done or given up, once, and the run comes to its end.
    #[test]
    fn nothing_that_waits_is_lost(
        pieces in prop::collection::vec((0usize..6, 0usize..3, 0usize..3), 1..40),
        outcomes in prop::collection::vec((0usize..5, 0u64..20), 1..60),
        in_all in 1usize..6,
    ) {
        let mut breakers = breakers();
        let budget = Budget { in_all: some(in_all), per_node: some(2), per_workload: some(1), cpu: CpuBudget::Unknown };
        let mut queue = Queue::new(budget);
        for (number, (target, node, workload)) in pieces.iter().enumerate() {
            let place = place(&format!("t{target}"), &format!("n{node}"), &format!("w{workload}"));
            queue.push(place, number, Duration::ZERO);
        }
        let mut outcomes = outcomes.into_iter().cycle();
        let mut outcome = || outcomes.next().expect("they never end");
        let mut now = Duration::ZERO;
        let mut going = Vec::new();
        let mut probe: Option<(Elapsed, Sign)> = None;
        let mut over = Vec::new();
        loop {
            for (number, _) in queue.give_up(|place| breakers.refusal(place, now)) {
                over.push(number);
            }
            if cluster_probe(&mut breakers, now) {
                prop_assert!(probe.is_none());
                let (which, takes) = outcome();
                let sign = if which == 0 { Sign::Fails(Reason::ApiUnreachable) } else { Sign::Works };
                probe = Some((now + seconds(takes), sign));
            }
            while let Some((slot, number)) =
                queue.next(now, |place| matches!(breakers.ask(place, now), Answer::Pass | Answer::Probe))
            {
                let place = queue_place(&pieces, number);
                let permit = breakers.begin(&place, now);
                let (which, takes) = outcome();
                let outcome = [
                    Ok(()),
                    Err(Reason::ApiUnreachable),
                    Err(Reason::CollectorFailed),
                    Err(Reason::Timeout),
                    Err(Reason::AccessDenied),
                ][which];
                going.push((now + seconds(takes), slot, permit, number, outcome));
            }
            if going.is_empty() && probe.is_none() && queue.is_empty() {
                break;
            }
            let ends = going.iter().map(|(at, ..)| *at).chain(probe.map(|(at, _)| at));
            let wake = ends.chain(breakers.next_change(now)).min();
            prop_assert!(wake.is_some(), "it waits for nothing: {:?}", breakers);
            now = now.max(wake.expect("there is one"));
            if let Some((at, sign)) = probe && at <= now {
                probe = None;
                breakers.probed(Scope::Cluster, sign, now);
            }
            if let Some(at) = going.iter().position(|(at, ..)| *at <= now) {
                let (_, slot, permit, number, outcome) = going.swap_remove(at);
                let _ = queue.ended(slot);
                breakers.ended(permit, signs(Approach::Exec, outcome), now);
                over.push(number);
            }
        }
        over.sort_unstable();
        prop_assert_eq!(over, (0..pieces.len()).collect::<Vec<_>>());
    }
}

fn queue_place(pieces: &[(usize, usize, usize)], number: usize) -> Place {
    let (target, node, workload) = pieces[number];
    place(&format!("t{target}"), &format!("n{node}"), &format!("w{workload}"))
}

#[test]
fn a_registry_that_is_gone_is_asked_by_itself_and_keeps_only_what_needs_it() {
    let mut breakers = Breakers::new(BreakerPolicy::default());
    let of = |registry: &str| Place { registry: Some(registry.to_owned()), cluster: None, ..place("image", "n", "w") };
    let gone = signs(Approach::Image, Err(Reason::RegistryUnreachable));
    let fail = |breakers: &mut Breakers| {
        let permit = breakers.begin(&of("a"), seconds(0));
        breakers.ended(permit, gone, seconds(0))
    };
    assert!(fail(&mut breakers).is_empty() && fail(&mut breakers).is_empty());
    let changes = fail(&mut breakers);
    assert_eq!(
        changes[0].to_string(),
        "registry `a`: left alone for a while after repeated failures (registry-unreachable)"
    );
    assert_eq!(breakers.ask(&of("b"), seconds(1)), Answer::Pass);
    assert_eq!(breakers.ask(&of("a"), seconds(1)), Answer::Wait(Some(seconds(10))));
    assert_eq!(breakers.ask(&of("a"), seconds(10)), Answer::Wait(None), "no target is risked");
    let scope = Scope::Registry("a".to_owned());
    assert_eq!(breakers.begin_probes(seconds(10)), std::slice::from_ref(&scope));
    assert_eq!(breakers.begin_probes(seconds(10)), [], "one at a time");
    assert_eq!(breakers.probed(scope.clone(), Sign::Fails(Reason::RegistryUnreachable), seconds(11)), None);
    assert_eq!(breakers.begin_probes(seconds(31)), std::slice::from_ref(&scope));
    assert_eq!(breakers.probed(scope, Sign::Works, seconds(31)).map(|change| change.now), Some(Now::Closed));
    assert_eq!(breakers.ask(&of("a"), seconds(31)), Answer::Pass);
}

#[test]
fn what_the_registry_answers_shows_that_it_is_there() {
    for reason in [Reason::ImageUnreadable, Reason::TargetNotFound] {
        assert_eq!(signs(Approach::Image, Err(reason)).registry, Sign::Works);
    }
    assert_eq!(signs(Approach::Image, Err(Reason::AccessDenied)).registry, Sign::Nothing);
    assert_eq!(signs(Approach::ImageArchive, Ok(())).registry, Sign::Works, "its layers were read from it");
    assert_eq!(signs(Approach::ImageVolume, Ok(())).registry, Sign::Nothing, "the node may have had it");
    let failed = signs(Approach::ImageVolume, Err(Reason::ImagePullFailed));
    assert_eq!(failed.registry, Sign::Fails(Reason::ImagePullFailed));
}
