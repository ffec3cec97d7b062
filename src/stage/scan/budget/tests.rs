use std::time::Duration;

use proptest::prelude::*;

use super::*;

const START: Elapsed = Duration::ZERO;

fn some(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("it is not zero")
}

fn budget(in_all: usize, per_node: usize, per_workload: usize) -> Budget {
    Budget { in_all: some(in_all), per_node: some(per_node), per_workload: some(per_workload), cpu: CpuBudget::Unknown }
}

fn place(rank: Rank, lane: &str, node: &str, workload: &str) -> Place {
    let part = Part { node: Some(node.to_owned()), workload: Some(workload.to_owned()) };
    Place { rank, lane: lane.to_owned(), target: String::new(), registry: None, cluster: Some(part), cpu_millis: 0 }
}

/// All that can start at once, in order.
fn start_all<T>(queue: &mut Queue<T>) -> (Vec<Slot>, Vec<T>) {
    std::iter::from_fn(|| queue.next(START, |_| true)).unzip()
}

#[test]
fn namespaces_take_turns_and_what_was_named_goes_first() {
    let mut queue = Queue::new(budget(100, 100, 100));
    for n in 0..4 {
        queue.push(place(Rank::Selected, "large", "n", "w"), format!("large-{n}"), START);
    }
    queue.push(place(Rank::Selected, "small", "n", "w"), "small-0".to_owned(), START);
    queue.push(place(Rank::Named, "large", "n", "w"), "named".to_owned(), START);
    let (_slots, order) = start_all(&mut queue);
    assert_eq!(order, ["named", "large-0", "small-0", "large-1", "large-2", "large-3"]);
}

#[test]
fn a_full_node_keeps_only_its_own_waiting() {
    let mut queue = Queue::new(budget(10, 1, 10));
    for (node, name) in [("full", "first"), ("full", "second"), ("free", "third")] {
        queue.push(place(Rank::Selected, "shop", node, name), name, START);
    }
    let (mut slots, order) = start_all(&mut queue);
    assert_eq!(order, ["first", "third"]);
    let _ = queue.ended(slots.remove(0));
    assert_eq!(start_all(&mut queue).1, ["second"]);
}

#[test]
fn what_may_not_start_yet_waits_and_says_until_when() {
    let mut queue = Queue::new(budget(10, 10, 10));
    let later = Duration::from_secs(5);
    queue.push(place(Rank::Named, "shop", "n", "w"), "later", later);
    queue.push(place(Rank::Selected, "shop", "n", "w"), "now", START);
    assert_eq!(start_all(&mut queue).1, ["now"]);
    assert_eq!(queue.next_due(START), Some(later));
    assert_eq!(queue.next(later, |_| true).map(|(_, item)| item), Some("later"));
    assert!(queue.is_empty());
}

#[test]
fn what_is_given_up_is_taken_out_and_the_rest_keeps_its_order() {
    let mut queue = Queue::new(budget(10, 10, 10));
    for n in 0..6 {
        queue.push(place(Rank::Selected, "shop", if n % 2 == 0 { "bad" } else { "good" }, "w"), n, START);
    }
    let on_bad = |place: &Place| (place.node().is_some_and(|node| node == "bad")).then_some("bad");
    assert_eq!(queue.give_up(on_bad), [(0, "bad"), (2, "bad"), (4, "bad")]);
    assert_eq!(start_all(&mut queue).1, [1, 3, 5]);
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8, u8, u8, bool),
    Next,
    End(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0u8..4, 0u8..3, 0u8..4, any::<bool>()).prop_map(|(l, n, w, named)| Step::Push(l, n, w, named)),
        Just(Step::Next),
        any::<prop::sample::Index>().prop_map(Step::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against lists that are counted anew each time: the budget is never exceeded, nothing idles that may start, and
    /// everything is handed out once.
    #[test]
    fn no_budget_is_exceeded_and_nothing_idles(
        steps in prop::collection::vec(step(), 1..200),
        (in_all, per_node, per_workload) in (1usize..5, 1usize..4, 1usize..3),
    ) {
        let limits = budget(in_all, per_node, per_workload);
        let mut queue = Queue::new(limits);
        let mut waiting: Vec<(usize, Place)> = Vec::new();
        let mut going: Vec<(Slot, Place)> = Vec::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Push(lane, node, workload, named) => {
                    let rank = if named { Rank::Named } else { Rank::Selected };
                    let place = place(rank, &format!("l{lane}"), &format!("n{node}"), &format!("w{workload}"));
                    queue.push(place.clone(), number, START);
                    waiting.push((number, place));
                }
                Step::End(which) => {
                    if !going.is_empty() {
                        let (slot, place) = going.swap_remove(which.index(going.len()));
                        prop_assert_eq!(queue.ended(slot), place);
                    }
                }
                Step::Next => {
                    let used = |of: &dyn Fn(&Place) -> bool| going.iter().filter(|(_, place)| of(place)).count();
                    let room = |place: &Place| {
                        going.len() < in_all
                            && used(&|other| other.node() == place.node()) < per_node
                            && used(&|other| other.workload() == place.workload()) < per_workload
                    };
                    let may: Vec<&(usize, Place)> = waiting.iter().filter(|(_, place)| room(place)).collect();
                    match queue.next(START, |_| true) {
                        None => prop_assert!(may.is_empty(), "{may:?} may start"),
                        Some((slot, item)) => {
                            let rank = may.iter().map(|(_, place)| place.rank).min();
                            let at = waiting.iter().position(|(number, _)| *number == item);
                            let at = at.expect("it waits, and was not handed out before");
                            prop_assert!(may.iter().any(|(number, _)| *number == item), "it has no room");
                            prop_assert_eq!(Some(waiting[at].1.rank), rank);
                            let (_, place) = waiting.remove(at);
                            going.push((slot, place));
                        }
                    }
                }
            }
        }
    }

    /// While a namespace has something that may start, no other gets two turns.
    #[test]
    fn no_namespace_is_starved(counts in prop::collection::vec(1usize..30, 1..6)) {
        let mut queue = Queue::new(budget(1, 1, 1));
        for (lane, count) in counts.iter().enumerate() {
            for _ in 0..*count {
                queue.push(place(Rank::Selected, &lane.to_string(), "n", "w"), lane, START);
            }
        }
        let mut left = counts.clone();
        let mut turns = vec![0usize; counts.len()];
        while let Some((slot, lane)) = queue.next(START, |_| true) {
            turns[lane] += 1;
            left[lane] -= 1;
            let _ = queue.ended(slot);
            for other in (0..counts.len()).filter(|other| left[*other] > 0) {
                prop_assert!(turns[lane] <= turns[other] + 1, "{turns:?} of {counts:?}");
            }
        }
        prop_assert!(queue.is_empty());
    }
}

fn capacity(node: &str, cpu_millis: u64, schedulable: bool) -> Capacity {
    Capacity { node: node.to_owned(), cpu_millis, schedulable }
}

#[test]
fn the_pods_of_scans_ask_for_no_more_than_their_share_of_all_nodes_and_of_each() {
    let nodes = [capacity("a", 4000, true), capacity("b", 2000, true), capacity("cordoned", 8000, false)];
    let cpu = CpuBudget::of(&nodes, 50);
    let mut queue = Queue::new(Budget { cpu, ..budget(10, 10, 10) });
    let asks = |node: &str, cpu_millis| Place { cpu_millis, ..place(Rank::Named, "shop", node, "w") };
    for (node, millis, name) in [
        ("a", 1500, "first"),
        ("a", 1000, "too much for a"),
        ("b", 1000, "second"),
        ("b", 0, "none"),
        ("a", 500, "third"),
    ] {
        queue.push(asks(node, millis), name, START);
    }
    // Of node `a` 2000 may be asked for, of `b` 1000, of both together 3000.
    let (mut slots, order) = start_all(&mut queue);
    assert_eq!(order, ["first", "second", "none", "third"]);
    let _ = queue.ended(slots.remove(0));
    assert_eq!(start_all(&mut queue).1, ["too much for a"]);
}

#[test]
fn a_pod_that_would_ask_for_too_much_gets_what_it_may_have_alone() {
    let cpu = CpuBudget::of(&[capacity("a", 2000, true), capacity("b", 1000, true)], 50);
    assert_eq!(cpu.granted(4000, None), 1000, "it may come to any node, and fits on one");
    assert_eq!((cpu.granted(4000, Some("b")), cpu.granted(100, Some("b"))), (500, 100));
    assert_eq!(cpu.granted(0, None), 0);
    let unknown = CpuBudget::of(&[], 50);
    assert_eq!((unknown.granted(4000, None), &unknown), (4000, &CpuBudget::Unknown));
    let mut queue = Queue::new(budget(10, 10, 10));
    for name in ["one", "another"] {
        queue.push(Place { cpu_millis: 10, ..place(Rank::Named, "shop", "n", "w") }, name, START);
    }
    assert_eq!(start_all(&mut queue).1, ["one"], "where nothing is known of the nodes, one at a time");
}

proptest! {
    #[test]
    fn the_share_of_cpu_is_never_exceeded_and_everything_starts_in_the_end(
        asked in prop::collection::vec((0u64..5000, 0usize..3), 1..20),
        percent in 1u8..=100,
    ) {
        let nodes = [capacity("0", 4000, true), capacity("1", 1500, true), capacity("2", 700, true)];
        let cpu = CpuBudget::of(&nodes, percent);
        let mut queue = Queue::new(Budget { cpu: cpu.clone(), ..budget(100, 100, 100) });
        for (millis, node) in &asked {
            let node = node.to_string();
            let cpu_millis = cpu.granted(*millis, Some(&node));
            queue.push(Place { cpu_millis, ..place(Rank::Named, "shop", &node, "w") }, (), START);
        }
        let mut started = 0;
        let mut going: Vec<Slot> = Vec::new();
        while started < asked.len() {
            let (slots, items) = start_all(&mut queue);
            started += items.len();
            going.extend(slots);
            prop_assert!(!going.is_empty(), "something can always start");
            let taken = |node: Option<&str>| -> u64 {
                let there = going.iter().map(Slot::place).filter(|p| node.is_none() || p.node().map(String::as_str) == node);
                there.map(|place| place.cpu_millis).sum()
            };
            prop_assert!(taken(None) * 100 <= 6200 * u64::from(percent));
            for node in &nodes {
                prop_assert!(taken(Some(&node.node)) <= (node.cpu_millis * u64::from(percent) / 100).max(1));
            }
            let _ = queue.ended(going.remove(0));
        }
    }
}
