//! What the sockets of a scanner's pod say, or its own in a network that is its target's too, held against whom the scan may talk to.

use std::net::SocketAddr;

use crate::cluster::agent::sockets::{Contact, Network, Peer, Sockets, Transport};
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::model::scanner::SILENT_CONTROL;

/// Whom a scan may talk to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowance<'a> {
    /// By TCP, and only by calling.
    pub(crate) tcp: &'a [SocketAddr],
}

impl Allowance<'_> {
    /// A scanner in a pod of its own, whose result is fetched: nobody.
    pub(crate) const NOBODY: Self = Self { tcp: &[] };

    fn covers(&self, peer: &Peer) -> bool {
        match (peer.transport, peer.contact) {
            (Transport::Tcp, Contact::Tried | Contact::Connected) => self.tcp.contains(&peer.address),
            (Transport::Tcp, Contact::Accepted) | (Transport::Udp, _) => false,
        }
    }
}

/// A sentence on what went beyond the allowance, or can't be told not to have; `None` where nothing did. It holds also where
/// no control can say so, as in profiles that were made before there was one.
pub(crate) fn note(sockets: &Sockets, allowance: Allowance<'_>) -> Option<String> {
    match outcome(sockets, allowance) {
        (Outcome::Failed, peers) => {
            let shown: Vec<String> = peers.iter().take(3).map(|peer| describe(peer)).collect();
            let more = peers.len().saturating_sub(3) as u64 + sockets.peers_omitted;
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let who = match sockets.network {
                Network::Own => "the scanner's pod",
                Network::Shared => "the scanner, in its target's network,",
            };
            Some(format!("{who} did not keep to itself: {}{more}", shown.join(", ")))
        }
        (Outcome::NotEvaluated { detail, .. }, _) => Some(detail),
        _ => None,
    }
}

/// Judges the control that asks whether the scanner kept to itself, where the profile has it.
pub(crate) fn judge(findings: &mut [Finding], sockets: &Sockets, allowance: Allowance<'_>, most: usize) {
    let Some(finding) = findings.iter_mut().find(|f| f.control == SILENT_CONTROL) else { return };
    let (outcome, peers) = outcome(sockets, allowance);
    let details = peers.iter().map(|peer| Detail::new(word(peer), meaning(peer.contact)));
    *finding = Finding::new(SILENT_CONTROL, outcome).with_details(details, most);
    finding.details_omitted += sockets.peers_omitted;
}

/// The verdict, and the peers that the allowance does not cover.
fn outcome<'a>(sockets: &'a Sockets, allowance: Allowance<'_>) -> (Outcome, Vec<&'a Peer>) {
    let peers: Vec<&Peer> = sockets.peers.iter().filter(|peer| !allowance.covers(peer)).collect();
    if !peers.is_empty() {
        return (Outcome::Failed, peers);
    }
    let unknown = |detail: String| (Outcome::not_evaluated(Reason::FactMissing, detail), Vec::new());
    let Sockets { network, unseen, looks, peers: _, peers_omitted, brief_connections, datagrams } = sockets;
    if let Some(why) = unseen {
        return unknown(match network {
            Network::Own => format!("not all of the pod's network could be seen: {why}"),
            Network::Shared => format!("what the scanner has in its target's network could not be seen: {why}"),
        });
    }
    if *looks == 0 {
        return unknown("the pod's network was not looked at".to_owned());
    }
    if *peers_omitted > 0 {
        return unknown(format!("{peers_omitted} addresses that were talked to are not named"));
    }
    match (brief_connections, datagrams, network) {
        (0, 0, _) => (Outcome::Passed, Vec::new()),
        (connections, datagrams, Network::Own) => unknown(format!(
            "something in the scanner's pod tried {connections} connections that were too short to see to whom, and sent \
             {datagrams} datagrams to addresses that no socket names"
        )),
        (connections, datagrams, Network::Shared) => unknown(format!(
            "in the network of the target {connections} connections were tried that no process was seen to have, and \
             {datagrams} datagrams were sent, which may have been the scanner's"
        )),
    }
}

fn word(peer: &Peer) -> String {
    let transport = match peer.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
    };
    format!("{transport} {}", peer.address)
}

fn meaning(contact: Contact) -> &'static str {
    match contact {
        Contact::Tried => "was called and did not answer",
        Contact::Accepted => "called and was answered",
        Contact::Connected => "was called and reached",
    }
}

fn describe(peer: &Peer) -> String {
    format!("{} {}", word(peer), meaning(peer.contact))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::Status;

    fn seen(peers: &[(Transport, &str, Contact)]) -> Sockets {
        let peer = |(transport, address, contact): &(Transport, &str, Contact)| Peer {
            transport: *transport,
            address: address.parse().expect("an address"),
            contact: *contact,
        };
        Sockets { looks: 4, peers: peers.iter().map(peer).collect(), ..Sockets::default() }
    }

    fn judged(sockets: &Sockets, allowance: Allowance<'_>) -> Finding {
        let mut findings = [Finding::new("x", Outcome::Passed), Finding::new(SILENT_CONTROL, Outcome::Passed)];
        judge(&mut findings, sockets, allowance, 2);
        let [_, finding] = findings;
        finding
    }

    #[test]
    fn only_a_pod_that_was_seen_to_be_silent_passes() {
        assert_eq!(judged(&seen(&[]), Allowance::NOBODY).outcome, Outcome::Passed);
        assert_eq!(note(&seen(&[]), Allowance::NOBODY), None);
        for change in [
            |s: &mut Sockets| s.unseen = Some("no table".to_owned()),
            |s: &mut Sockets| s.looks = 0,
            |s: &mut Sockets| s.brief_connections = 1,
            |s: &mut Sockets| s.datagrams = 1,
            |s: &mut Sockets| s.peers_omitted = 1,
        ] {
            let mut sockets = seen(&[]);
            change(&mut sockets);
            let finding = judged(&sockets, Allowance::NOBODY);
            assert_eq!(finding.outcome.status(), Status::NotEvaluated, "{sockets:?}");
            assert!(note(&sockets, Allowance::NOBODY).is_some());
        }
    }

    #[test]
    fn in_the_targets_network_the_scanner_answers_for_itself_alone() {
        let shared = |sockets: Sockets| Sockets { network: Network::Shared, ..sockets };
        let called = shared(seen(&[(Transport::Tcp, "10.0.0.1:443", Contact::Connected)]));
        assert_eq!(judged(&called, Allowance::NOBODY).outcome, Outcome::Failed);
        assert!(
            note(&called, Allowance::NOBODY).is_some_and(|said| said.contains("the scanner, in its target's network,"))
        );
        assert_eq!(judged(&shared(seen(&[])), Allowance::NOBODY).outcome, Outcome::Passed);
        let brief = shared(Sockets { brief_connections: 2, ..seen(&[]) });
        assert_eq!(judged(&brief, Allowance::NOBODY).outcome.status(), Status::NotEvaluated);
        assert!(note(&brief, Allowance::NOBODY).is_some_and(|said| said.contains("may have been the scanner's")));
    }

    #[test]
    fn whoever_is_talked_to_is_named_unless_it_is_allowed() {
        let called = seen(&[
            (Transport::Tcp, "10.0.0.1:443", Contact::Connected),
            (Transport::Tcp, "10.0.0.2:443", Contact::Tried),
            (Transport::Udp, "10.0.0.3:53", Contact::Connected),
        ]);
        let finding = judged(&called, Allowance::NOBODY);
        assert_eq!((finding.outcome.status(), finding.details.len(), finding.details_omitted), (Status::Failed, 2, 1));
        assert_eq!(finding.details[0].subject, "tcp 10.0.0.1:443");
        let said = note(&called, Allowance::NOBODY).expect("a note");
        assert!(said.contains("tcp 10.0.0.2:443 was called and did not answer"), "{said}");

        let allowed = ["10.0.0.1:443".parse().expect("an address")];
        let allowance = Allowance { tcp: &allowed };
        assert_eq!(judged(&called, allowance).details[0].subject, "tcp 10.0.0.2:443");
        for (contact, status) in [
            (Contact::Connected, Status::Passed),
            (Contact::Tried, Status::Passed),
            (Contact::Accepted, Status::Failed),
        ] {
            let finding = judged(&seen(&[(Transport::Tcp, "10.0.0.1:443", contact)]), allowance);
            assert_eq!(finding.outcome.status(), status, "{contact:?}");
        }
    }

    #[test]
    fn a_profile_without_the_control_gains_none() {
        let mut findings = [Finding::new("x", Outcome::Passed)];
        judge(&mut findings, &seen(&[(Transport::Tcp, "10.0.0.1:443", Contact::Tried)]), Allowance::NOBODY, 2);
        assert_eq!(findings, [Finding::new("x", Outcome::Passed)]);
    }
}
