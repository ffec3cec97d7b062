//! What the canary's pods try, and what it means. Pure.
//!
//! Nothing that is blocked counts by itself: a pod without any network looks the same. So each of the three pods must get
//! through to something as well, and what one must not reach, another reaches:
//!
//! | from | must reach | must not reach |
//! |---|---|---|
//! | `prober`, with egress to both others and, by address and port, to the API server | `open`, the API server, itself | `closed`, though egress is allowed; another port of `open` that listens; another port of the API server's host |
//! | `open`, with ingress from `prober` and no egress | itself, on both ports | `prober`, which `closed` reaches; the API server, which `prober` reaches |
//! | `closed`, with egress to `prober` and no ingress | `prober`, itself | the API server |

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::cluster::agent::probe::{Expected, ProbeReport, Seen};
use crate::model::provenance::AllowanceProof;

/// What all pods listen on, and may be reached on where ingress is allowed.
pub(super) const PORT: u16 = 8080;
/// What they listen on besides. Ingress to it is allowed like that to the other; egress is not.
pub(super) const OTHER_PORT: u16 = 8081;

/// The kubelet's port: where the API server runs on a node, something listens on another port of its address.
const KUBELET: u16 = 10250;

/// One of the canary's pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    Prober,
    Open,
    Closed,
}

impl Role {
    pub(super) const ALL: [Self; 3] = [Self::Prober, Self::Open, Self::Closed];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Prober => "prober",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }

    fn described(self) -> &'static str {
        match self {
            Self::Prober => "a pod with allowances",
            Self::Open => "a pod without egress",
            Self::Closed => "a pod without ingress",
        }
    }
}

/// What is behind an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Itself,
    Allowed,
    WithoutIngress,
    WithoutEgress,
    OtherPort,
    ApiServer,
    ApiServersHost,
}

impl Whom {
    fn described(self) -> &'static str {
        match self {
            Self::Itself => "itself",
            Self::Allowed => "a listener that it may reach",
            Self::WithoutIngress => "a listener without ingress",
            Self::WithoutEgress => "a listener that it has no egress to",
            Self::OtherPort => "another port of a listener that it may reach",
            Self::ApiServer => "the API server",
            Self::ApiServersHost => "another port of the API server's host",
        }
    }
}

/// What one pod tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trial {
    pub(super) role: Role,
    probes: Vec<(SocketAddr, Expected, Whom)>,
}

impl Trial {
    pub(super) fn wanted(&self) -> impl Iterator<Item = (SocketAddr, Expected)> {
        self.probes.iter().map(|(address, expected, _)| (*address, *expected))
    }

    /// Whether the report is about what was asked.
    pub(super) fn is_answered_by(&self, report: &ProbeReport) -> bool {
        self.wanted().eq(report.probes.iter().map(|probe| (probe.address, probe.expected)))
    }
}

/// What each pod is to try, by the addresses that they have, in the order of [`Role::ALL`].
pub(super) fn trials(addresses: &[Vec<IpAddr>; 3], servers: &BTreeSet<SocketAddr>) -> [Trial; 3] {
    let [prober, open, closed] = addresses;
    let at = |ips: &[IpAddr], port: u16, expected, whom| -> Vec<(SocketAddr, Expected, Whom)> {
        ips.iter().map(|ip| (SocketAddr::new(*ip, port), expected, whom)).collect()
    };
    let api = |expected| servers.iter().map(move |server| (*server, expected, Whom::ApiServer));
    let own = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
    let itself = |port| at(&own, port, Expected::Open, Whom::Itself);
    let hosts: BTreeSet<IpAddr> =
        servers.iter().filter(|server| server.port() != KUBELET).map(SocketAddr::ip).collect();
    let hosts: Vec<IpAddr> = hosts.into_iter().collect();
    let trial = |role, parts: Vec<Vec<_>>| Trial { role, probes: parts.concat() };
    [
        trial(
            Role::Prober,
            vec![
                itself(PORT),
                at(open, PORT, Expected::Open, Whom::Allowed),
                api(Expected::Open).collect(),
                at(closed, PORT, Expected::Blocked, Whom::WithoutIngress),
                at(open, OTHER_PORT, Expected::Blocked, Whom::OtherPort),
                at(&hosts, KUBELET, Expected::Blocked, Whom::ApiServersHost),
            ],
        ),
        trial(
            Role::Open,
            vec![
                itself(PORT),
                itself(OTHER_PORT),
                at(prober, PORT, Expected::Blocked, Whom::WithoutEgress),
                api(Expected::Blocked).collect(),
            ],
        ),
        trial(
            Role::Closed,
            vec![itself(PORT), at(prober, PORT, Expected::Open, Whom::Allowed), api(Expected::Blocked).collect()],
        ),
    ]
}

/// What the canary means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) enforced: bool,
    pub(super) allowance: Option<AllowanceProof>,
    pub(super) detail: String,
}

/// What all reports together mean. Whatever can't be decided counts as not enforced.
pub(super) fn judge(trials: &[Trial; 3], reports: &[ProbeReport; 3]) -> Verdict {
    let (mut done, mut wrong, mut undecided, mut closed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (trial, report) in trials.iter().zip(reports) {
        if !trial.is_answered_by(report) {
            undecided.push(format!("{}: it reports on something else", trial.role.described()));
            continue;
        }
        for ((_, expected, whom), probe) in trial.probes.iter().zip(&report.probes) {
            let line = format!("{} to {} at {}", trial.role.described(), whom.described(), probe.address);
            match (probe.holds(), expected, probe.seen) {
                (true, Expected::Open, _) => done.push(format!("{line}: connected")),
                (true, Expected::Blocked, _) if probe.leaks > 0 => {
                    done.push(format!("{line}: blocked, after {} connections before that", probe.leaks));
                }
                (true, Expected::Blocked, _) => done.push(format!("{line}: blocked")),
                (false, Expected::Blocked, Seen::Open) => wrong.push(format!("{line}: connected")),
                (false, Expected::Open, seen @ (Seen::Silent | Seen::Refused)) if *whom == Whom::ApiServer => {
                    closed.push(format!("{line}, by an allowance for that address: {seen:?}").to_lowercase());
                }
                (false, _, seen) => undecided.push(format!("{line}: {seen:?}, not stable").to_lowercase()),
            }
        }
        // With nothing that must connect or nothing that must not, there is no proof, whatever holds.
        let has = |expected, whom: &[Whom]| trial.probes.iter().any(|p| p.1 == expected && whom.contains(&p.2));
        let enough = match trial.role {
            Role::Prober => has(Expected::Open, &[Whom::Allowed]) && has(Expected::Blocked, &[Whom::WithoutIngress]),
            Role::Open => has(Expected::Blocked, &[Whom::WithoutEgress]) && has(Expected::Blocked, &[Whom::ApiServer]),
            Role::Closed => has(Expected::Open, &[Whom::Allowed]),
        };
        if !enough {
            undecided.push(format!("{}: there was not enough to try", trial.role.described()));
        }
    }
    let refuted = |why: &str, list: Vec<String>| Verdict {
        enforced: false,
        allowance: None,
        detail: format!("{why}: {}", list.join("; ")),
    };
    if !wrong.is_empty() {
        return refuted("not enforced", wrong);
    }
    if !undecided.is_empty() {
        return refuted("could not be decided", undecided);
    }
    let allowance = if closed.is_empty() { AllowanceProof::Exact } else { AllowanceProof::Closed };
    done.extend(closed);
    Verdict { enforced: true, allowance: Some(allowance), detail: done.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::agent::probe::Probe;

    fn sample() -> [Trial; 3] {
        let addresses = ["10.1.0.2", "10.1.0.3", "10.1.0.4"].map(|ip| vec![ip.parse().expect("an address")]);
        trials(&addresses, &BTreeSet::from(["10.0.0.1:6443".parse().expect("an address")]))
    }

    /// What the pods report where all is as it should be, but for what is changed.
    fn judged(change: impl Fn(Role, Whom, &mut Probe)) -> Verdict {
        let trials = sample();
        let report = |trial: &Trial| {
            let probes = trial.probes.iter().map(|&(address, expected, whom)| {
                let seen = if expected == Expected::Open { Seen::Open } else { Seen::Silent };
                let mut probe = Probe { address, expected, seen, streak: 3, leaks: 0 };
                change(trial.role, whom, &mut probe);
                probe
            });
            ProbeReport { probes: probes.collect() }
        };
        judge(&trials, &[report(&trials[0]), report(&trials[1]), report(&trials[2])])
    }

    fn becomes(probe: &mut Probe, seen: Seen) {
        (probe.seen, probe.streak) = (seen, 0);
    }

    #[test]
    fn all_as_expected_is_enforced_and_said_in_full() {
        let verdict = judged(|_, _, _| {});
        assert!(verdict.enforced && verdict.allowance == Some(AllowanceProof::Exact), "{verdict:?}");
        assert_eq!(verdict.detail.matches(": connected").count(), 7, "{verdict:?}");
        assert_eq!(verdict.detail.matches(": blocked").count(), 6, "{verdict:?}");
        let late = judged(|_, whom, probe| probe.leaks = u32::from(whom == Whom::WithoutEgress) * 4);
        assert!(late.enforced && late.detail.contains("blocked, after 4 connections"), "{late:?}");
    }

    #[test]
    fn each_thing_that_gets_through_is_not_enforced() {
        for target in [
            (Role::Prober, Whom::WithoutIngress),
            (Role::Prober, Whom::OtherPort),
            (Role::Prober, Whom::ApiServersHost),
            (Role::Open, Whom::WithoutEgress),
            (Role::Open, Whom::ApiServer),
            (Role::Closed, Whom::ApiServer),
        ] {
            let verdict = judged(|role, whom, probe| {
                if (role, whom) == target {
                    becomes(probe, Seen::Open);
                }
            });
            assert!(!verdict.enforced && verdict.detail.starts_with("not enforced"), "{target:?}: {verdict:?}");
        }
    }

    #[test]
    fn what_is_blocked_proves_nothing_while_nothing_gets_through() {
        // Each in turn is what a pod without a network looks like.
        for target in [(Role::Prober, Whom::Allowed), (Role::Closed, Whom::Allowed), (Role::Open, Whom::Itself)] {
            let verdict = judged(|role, whom, probe| {
                if (role, whom) == target {
                    becomes(probe, Seen::Silent);
                }
            });
            assert!(!verdict.enforced && verdict.detail.starts_with("could not be decided"), "{target:?}: {verdict:?}");
        }
        let unstable = judged(|_, whom, probe| probe.streak -= u32::from(whom == Whom::WithoutIngress));
        assert!(!unstable.enforced, "{unstable:?}");
        let failed = judged(|_, whom, probe| {
            if whom == Whom::ApiServer {
                becomes(probe, Seen::Failed);
            }
        });
        assert!(!failed.enforced, "{failed:?}");
    }

    #[test]
    fn an_allowance_by_address_that_opens_nothing_is_told_apart() {
        let verdict = judged(|role, whom, probe| {
            if (role, whom) == (Role::Prober, Whom::ApiServer) {
                becomes(probe, Seen::Silent);
            }
        });
        assert!(verdict.enforced && verdict.allowance == Some(AllowanceProof::Closed), "{verdict:?}");
        assert!(verdict.detail.contains("by an allowance for that address: silent"), "{verdict:?}");
    }

    #[test]
    fn a_report_on_something_else_and_too_little_to_try_decide_nothing() {
        let trials = sample();
        let nothing = [ProbeReport::default(), ProbeReport::default(), ProbeReport::default()];
        assert!(judge(&trials, &nothing).detail.starts_with("could not be decided"));
        let none = super::trials(&[Vec::new(), Vec::new(), Vec::new()], &BTreeSet::new());
        let held = none.clone().map(|trial| ProbeReport {
            probes: trial
                .wanted()
                .map(|(address, expected)| Probe { address, expected, seen: Seen::Open, streak: 3, leaks: 0 })
                .collect(),
        });
        let verdict = judge(&none, &held);
        assert!(!verdict.enforced && verdict.detail.contains("not enough to try"), "{verdict:?}");
    }
}
