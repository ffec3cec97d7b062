//! The canary's prober: tries to connect, until what is seen is what is expected and stays so, or time is up.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::error::AgentError;

/// How long one attempt may take. In a cluster an answer takes milliseconds; a SYN that was dropped is sent again after one
/// second, so that one lost packet does not pass for a policy.
const ATTEMPT: Duration = Duration::from_millis(1500);

/// How many rounds in a row must see what is expected. Policies are programmed in steps, and one round may fall in between.
const STABLE: u32 = 3;

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(300);

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
}

impl Probe {
    /// Whether what was expected was seen, and stayed so.
    pub fn holds(&self) -> bool {
        self.streak >= STABLE
    }
}

/// What a prober saw. It is its pod's termination message (4 KiB at most).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// One for each address.
    pub probes: Vec<Probe>,
}

/// Tries every address in rounds until all hold or the deadline has passed.
pub async fn probe(wanted: &[(SocketAddr, Expected)], deadline: Duration) -> ProbeReport {
    let began = Instant::now();
    let mut probes: Vec<Probe> =
        wanted.iter().map(|&(address, expected)| Probe { address, expected, seen: Seen::Failed, streak: 0 }).collect();
    loop {
        let seen = join_all(probes.iter().map(|probe| attempt(probe.address))).await;
        for (probe, seen) in probes.iter_mut().zip(seen) {
            probe.streak = if seen.is(probe.expected) { probe.streak + 1 } else { 0 };
            probe.seen = seen;
        }
        if probes.iter().all(Probe::holds) || began.elapsed() >= deadline {
            return ProbeReport { probes };
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Writes the report where the kubelet takes the termination message from.
///
/// # Errors
/// When it can't be written.
pub fn write_report(report: &ProbeReport, to: &Path) -> Result<(), AgentError> {
    let text = serde_json::to_vec(report).map_err(|source| AgentError::Spool { path: to.to_owned(), source })?;
    std::fs::write(to, text).map_err(AgentError::file("write", to))
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
        let text = serde_json::to_string(&report).expect("writes");
        assert_eq!(serde_json::from_str::<ProbeReport>(&text).expect("reads"), report);
    }
}
