//! The canary's prober: tries to connect, until what is seen is what is expected and stays so, or time is up.
//!
//! Rounds begin one `PAUSE` after the other and overlap: each waits for answers for as long as it would alone, and what holds is
//! known after one such wait and not after one for each round.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesOrdered;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

/// How long one attempt may take. In a cluster an answer takes milliseconds; a SYN that was dropped is sent again after one
/// second, so that one lost packet does not pass for a policy.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// How many rounds in a row must see what is expected. Policies are programmed in steps, and one round may fall in between.
const STABLE: u32 = 3;

/// Between the beginnings of two rounds.
const PAUSE: Duration = Duration::from_millis(300);

/// How many rounds go on at once: more than begin while one waits.
const AT_ONCE: usize = 8;

/// What a connection is expected to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// To be made.
    Open,
    /// Not to be made.
    Blocked,
}

/// What an attempt to connect came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// Connected.
    Open,
    /// No answer: what a dropped packet looks like.
    Silent,
    /// Reset, or refused by an ICMP message: what a rejected packet looks like.
    Refused,
    /// The attempt could not be made at all; it says nothing about policies.
    Failed,
}

impl Seen {
    fn is(self, expected: Expected) -> bool {
        match expected {
            Expected::Open => self == Self::Open,
            Expected::Blocked => matches!(self, Self::Silent | Self::Refused),
        }
    }
}

/// What one address did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Where to.
    pub address: SocketAddr,
    /// What should happen.
    pub expected: Expected,
    /// What happened last.
    pub seen: Seen,
    /// How many rounds in a row before the end saw what was expected.
    pub streak: u32,
    /// How many rounds before them got through to what should be blocked: a network that is open until policies are programmed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub leaks: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Probe {
    /// Whether what was expected was seen, and stayed so.
    pub fn holds(&self) -> bool {
        self.streak >= STABLE
    }
}

/// What a prober saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// One for each address.
    pub probes: Vec<Probe>,
}

/// Tries every address in rounds until all hold or the deadline has passed.
pub async fn probe(wanted: &[(SocketAddr, Expected)], deadline: Duration) -> ProbeReport {
    let began = Instant::now();
    let fresh = |&(address, expected)| Probe { address, expected, seen: Seen::Failed, streak: 0, leaks: 0 };
    let mut probes: Vec<Probe> = wanted.iter().map(fresh).collect();
    let mut begin = tokio::time::interval(PAUSE);
    begin.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut rounds = FuturesOrdered::new();
    loop {
        let seen = tokio::select! {
            _ = begin.tick(), if rounds.len() < AT_ONCE => {
                rounds.push_back(join_all(wanted.iter().map(|&(address, _)| attempt(address))));
                continue;
            }
            Some(seen) = rounds.next() => seen,
        };
        for (probe, seen) in probes.iter_mut().zip(seen) {
            probe.streak = if seen.is(probe.expected) { probe.streak + 1 } else { 0 };
            probe.leaks += u32::from(probe.expected == Expected::Blocked && seen == Seen::Open);
            probe.seen = seen;
        }
        if probes.iter().all(Probe::holds) || began.elapsed() >= deadline {
            return ProbeReport { probes };
        }
    }
}

async fn attempt(address: SocketAddr) -> Seen {
    match tokio::time::timeout(ATTEMPT, TcpStream::connect(address)).await {
        Err(_) => Seen::Silent,
        Ok(Ok(_)) => Seen::Open,
        Ok(Err(error)) => match error.kind() {
            ErrorKind::TimedOut => Seen::Silent,
            ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::PermissionDenied => Seen::Refused,
            _ => Seen::Failed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn open_and_refused_are_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let open = listener.local_addr().expect("its address");
        let closed = {
            let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            other.local_addr().expect("its address")
        };
        let wanted = [(open, Expected::Open), (closed, Expected::Blocked), (open, Expected::Blocked)];
        let report = probe(&wanted, Duration::from_millis(1500)).await;
        let holds: Vec<bool> = report.probes.iter().map(Probe::holds).collect();
        assert_eq!(holds, [true, true, false], "{report:?}");
        assert_eq!(report.probes[2].seen, Seen::Open);
        assert!(report.probes[2].leaks >= 3 && report.probes[0].leaks == 0, "{report:?}");
        let text = serde_json::to_string(&report).expect("writes");
        assert_eq!(serde_json::from_str::<ProbeReport>(&text).expect("reads"), report);
    }
}
