//! What may start now: so much at once in all, on one node, and of one workload; and whose turn it is. Pure, and owned by the
//! dispatcher.
//!
//! Targets that were named go before those that a selector found. Among equals the namespaces take turns, so that a large one
//! does not starve the others: who has waited longest for a turn and has something that may start gets it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroUsize;

use super::breaker::Elapsed;

/// What goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Somebody named it.
    Named,
    /// It is one of many that were meant together.
    Selected,
}

/// Where a piece of work belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) rank: Rank,
    /// With whom it takes turns: its namespace, or its kind where it is in none.
    pub(crate) lane: String,
    /// The target's key.
    pub(crate) target: String,
    /// The registry that it needs, as `HOST[:PORT]`.
    pub(crate) registry: Option<String>,
    /// What it needs of the cluster, where it needs it.
    pub(crate) cluster: Option<Part>,
}

/// The part of the cluster that a piece of work needs beside the API server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) node: Option<String>,
    /// What controls the pod.
    pub(crate) workload: Option<String>,
}

impl Place {
    fn node(&self) -> Option<&String> {
        self.cluster.as_ref()?.node.as_ref()
    }

    fn workload(&self) -> Option<&String> {
        self.cluster.as_ref()?.workload.as_ref()
    }
}

/// How much may go on at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    pub(crate) in_all: NonZeroUsize,
    pub(crate) per_node: NonZeroUsize,
    pub(crate) per_workload: NonZeroUsize,
}

/// A place that is taken. It is given back when the work has ended.
#[derive(Debug)]
#[must_use = "a slot that is never given back is lost to the run"]
pub(crate) struct Slot(Place);

impl Slot {
    pub(crate) fn place(&self) -> &Place {
        &self.0
    }
}

/// What waits, and how much goes on.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    budget: Budget,
    waiting: BTreeMap<Rank, VecDeque<Lane<T>>>,
    going: Going,
}

/// What takes one turn. Never empty.
#[derive(Debug)]
struct Lane<T> {
    name: String,
    items: VecDeque<Waiting<T>>,
}

#[derive(Debug)]
struct Waiting<T> {
    place: Place,
    not_before: Elapsed,
    item: T,
}

#[derive(Debug, Default)]
struct Going {
    all: usize,
    nodes: HashMap<String, usize>,
    workloads: HashMap<String, usize>,
}

impl Going {
    fn has_room(&self, place: &Place, budget: &Budget) -> bool {
        let on = |count: &HashMap<String, usize>, key: Option<&String>| key.and_then(|k| count.get(k)).copied();
        self.all < budget.in_all.get()
            && on(&self.nodes, place.node()).unwrap_or(0) < budget.per_node.get()
            && on(&self.workloads, place.workload()).unwrap_or(0) < budget.per_workload.get()
    }

    fn add(&mut self, place: &Place) {
        self.all += 1;
        for (counts, key) in [(&mut self.nodes, place.node()), (&mut self.workloads, place.workload())] {
            if let Some(key) = key {
                *counts.entry(key.clone()).or_default() += 1;
            }
        }
    }

    fn remove(&mut self, place: &Place) {
        self.all -= 1;
        for (counts, key) in [(&mut self.nodes, place.node()), (&mut self.workloads, place.workload())] {
            if let Some(count) = key.and_then(|key| counts.get_mut(key)) {
                *count -= 1;
            }
        }
    }
}

impl<T> Queue<T> {
    pub(crate) fn new(budget: Budget) -> Self {
        Self { budget, waiting: BTreeMap::new(), going: Going::default() }
    }

    /// Adds a piece of work, which may start at `not_before`.
    pub(crate) fn push(&mut self, place: Place, item: T, not_before: Elapsed) {
        let lanes = self.waiting.entry(place.rank).or_default();
        let name = place.lane.clone();
        let waiting = Waiting { place, not_before, item };
        match lanes.iter_mut().find(|lane| lane.name == name) {
            Some(lane) => lane.items.push_back(waiting),
            None => lanes.push_back(Lane { name, items: VecDeque::from([waiting]) }),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.values().all(VecDeque::is_empty)
    }

    /// The next piece of work that has room and for which `may` says yes.
    pub(crate) fn next(&mut self, now: Elapsed, may: impl Fn(&Place) -> bool) -> Option<(Slot, T)> {
        // Where nothing has room, nothing need be looked at.
        if self.going.all >= self.budget.in_all.get() {
            return None;
        }
        let (going, budget) = (&self.going, &self.budget);
        let fits = |w: &Waiting<T>| w.not_before <= now && going.has_room(&w.place, budget) && may(&w.place);
        for lanes in self.waiting.values_mut() {
            let turn = lanes.iter().enumerate().find_map(|(lane, l)| Some((lane, l.items.iter().position(fits)?)));
            let Some((lane, item)) = turn else { continue };
            let mut lane = lanes.remove(lane)?;
            let Waiting { place, item, .. } = lane.items.remove(item)?;
            if !lane.items.is_empty() {
                lanes.push_back(lane);
            }
            self.going.add(&place);
            return Some((Slot(place), item));
        }
        None
    }

    /// Gives the place back, and tells which it was.
    pub(crate) fn ended(&mut self, slot: Slot) -> Place {
        self.going.remove(&slot.0);
        slot.0
    }

    /// Takes out what waits and is given up by `why`.
    pub(crate) fn give_up<R>(&mut self, why: impl Fn(&Place) -> Option<R>) -> Vec<(T, R)> {
        let mut out = Vec::new();
        for lanes in self.waiting.values_mut() {
            for lane in lanes.iter_mut() {
                for waiting in std::mem::take(&mut lane.items) {
                    match why(&waiting.place) {
                        Some(reason) => out.push((waiting.item, reason)),
                        None => lane.items.push_back(waiting),
                    }
                }
            }
            lanes.retain(|lane| !lane.items.is_empty());
        }
        out
    }

    /// When the next piece of work may start that may not yet.
    pub(crate) fn next_due(&self, now: Elapsed) -> Option<Elapsed> {
        let items = self.waiting.values().flatten().flat_map(|lane| &lane.items);
        items.map(|waiting| waiting.not_before).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests;
