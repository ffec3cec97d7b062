//! What may start now: so much at once in all, on one node, and of one workload, with so much CPU; and whose turn it is. Pure,
//! and owned by the dispatcher.
//!
//! Targets that were named go before those that a selector found. Among equals the namespaces take turns, so that a large one
//! does not starve the others: who has waited longest for a turn and has something that may start gets it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroUsize;

use super::breaker::Elapsed;
use crate::cluster::capacity::Capacity;

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
    /// What its pod asks for, in thousandths of a core; 0 where it has none of its own.
    pub(crate) cpu_millis: u64,
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

/// How much CPU the pods of scans may ask for at once, in thousandths of a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CpuBudget {
    /// Nobody knows what the nodes have: one such pod at a time.
    Unknown,
    /// On all nodes together, and on each.
    Known { in_all: u64, nodes: BTreeMap<String, u64> },
}

impl CpuBudget {
    /// This share of what the nodes have.
    pub(crate) fn of(capacities: &[Capacity], percent: u8) -> Self {
        let share = |millis: u64| millis.saturating_mul(u64::from(percent)) / 100;
        let in_all = share(capacities.iter().filter(|c| c.schedulable).map(|c| c.cpu_millis).sum());
        if in_all == 0 {
            return Self::Unknown;
        }
        Self::Known { in_all, nodes: capacities.iter().map(|c| (c.node.clone(), share(c.cpu_millis))).collect() }
    }

    /// What a pod gets that would ask for so much: no more than it may have when it is alone, so that each can start. It
    /// takes longer then. `node` is where it must run; without one it runs where the scheduler puts it.
    pub(crate) fn granted(&self, asked: u64, node: Option<&str>) -> u64 {
        let Self::Known { in_all, nodes } = self else { return asked };
        let there = match node {
            Some(node) => nodes.get(node).copied(),
            None => nodes.values().copied().max(),
        };
        asked.min(*in_all).min(there.unwrap_or(*in_all)).max(u64::from(asked > 0))
    }

    fn has_room(&self, place: &Place, going: &Going) -> bool {
        let asked = place.cpu_millis;
        if asked == 0 || going.cpu == 0 {
            return true;
        }
        let Self::Known { in_all, nodes } = self else { return false };
        let on_node = || {
            let node = place.node()?;
            Some((going.cpu_nodes.get(node).copied().unwrap_or(0), nodes.get(node).copied()?))
        };
        going.cpu + asked <= *in_all && on_node().is_none_or(|(taken, share)| taken + asked <= share)
    }
}

/// How much may go on at once.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    pub(crate) in_all: NonZeroUsize,
    pub(crate) per_node: NonZeroUsize,
    pub(crate) per_workload: NonZeroUsize,
    pub(crate) cpu: CpuBudget,
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
    /// In thousandths of a core.
    cpu: u64,
    cpu_nodes: HashMap<String, u64>,
}

impl Going {
    fn has_room(&self, place: &Place, budget: &Budget) -> bool {
        let on = |count: &HashMap<String, usize>, key: Option<&String>| key.and_then(|k| count.get(k)).copied();
        self.all < budget.in_all.get()
            && on(&self.nodes, place.node()).unwrap_or(0) < budget.per_node.get()
            && on(&self.workloads, place.workload()).unwrap_or(0) < budget.per_workload.get()
            && budget.cpu.has_room(place, self)
    }

    fn add(&mut self, place: &Place) {
        self.all += 1;
        self.cpu += place.cpu_millis;
        if let Some(node) = place.node() {
            *self.cpu_nodes.entry(node.clone()).or_default() += place.cpu_millis;
        }
        for (counts, key) in [(&mut self.nodes, place.node()), (&mut self.workloads, place.workload())] {
            if let Some(key) = key {
                *counts.entry(key.clone()).or_default() += 1;
            }
        }
    }

    fn remove(&mut self, place: &Place) {
        self.all -= 1;
        self.cpu -= place.cpu_millis;
        if let Some(taken) = place.node().and_then(|node| self.cpu_nodes.get_mut(node)) {
            *taken -= place.cpu_millis;
        }
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
