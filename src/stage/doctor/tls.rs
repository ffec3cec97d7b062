//! What a handshake with a server says.

use super::check::Check;
use super::expiry::{self, Clock};
use super::handshake::Handshake;
use crate::base::certificate::validity;
use crate::base::exit::ExitClass;

/// A server that offers only what is older is refused by construction: rustls has no TLS 1.1 and no suite without forward
/// secrecy and authenticated encryption.
const BY_CONSTRUCTION: &str = "nothing older than TLS 1.2 and no weaker suite can be agreed on: rustls has none";

pub(super) fn judge(subject: &str, seen: &Handshake, clock: Clock) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(failure) = &seen.failure {
        let check = match (seen.silent, seen.chain.is_empty()) {
            (true, _) => Check::bad("tls-handshake", subject, format!("it can't be reached: {failure}"))
                .with_class(ExitClass::Unreachable)
                .with_remedy("see that the address is right, and that nothing between drops it"),
            (false, true) => Check::refused("tls-handshake", subject, format!("there is no TLS with it: {failure}"))
                .with_remedy(format!("let the server offer TLS 1.2 or later; {BY_CONSTRUCTION}")),
            (false, false) => {
                Check::refused("tls-handshake", subject, format!("its certificate is refused: {failure}")).with_remedy(
                    "let it have a certificate for its name from the CA that is named; there is no off switch",
                )
            }
        };
        checks.push(check);
    }
    if let Some((protocol, suite)) = &seen.agreed {
        checks.push(Check::ok("tls-protocol", subject, format!("{protocol} with {suite}; {BY_CONSTRUCTION}")));
    }
    if let Some(leaf) = seen.chain.first() {
        // The first to end breaks the connection, whichever it is.
        let times: Option<Vec<_>> = seen.chain.iter().map(|one| validity(one)).collect();
        let first = times.as_ref().and_then(|times| times.iter().min_by_key(|(_, end)| *end));
        let check = match first {
            Some((begin, end)) => {
                let renew = "renew it; the server need not be known to gapscan anew where its CA stays";
                expiry::judge("tls-certificate", subject, (Some(*begin), *end), clock, renew)
            }
            None => Check::unknown("tls-certificate", subject, format!("its {} bytes are no certificate", leaf.len())),
        };
        checks.push(check);
    }
    checks
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;

    use super::super::check::State;
    use super::super::handshake::{Authorities, handshake};
    use super::*;

    /// A server with a certificate of its own, for this name and until this year.
    async fn server(name: &str, until: i32) -> (SocketAddr, Vec<u8>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("params");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = params.self_signed(&key).expect("signed").der().clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("a pair");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = acceptor.accept(stream).await;
            }
        });
        (address, certificate.to_vec())
    }

    async fn states(at: SocketAddr, name: &str, ca: Vec<u8>) -> Vec<(&'static str, State)> {
        let authorities = Authorities::These(vec![ca]);
        let seen = handshake(("127.0.0.1", at.port()), name, &authorities, Duration::from_secs(10)).await;
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let clock = Clock { now, near: SignedDuration::from_hours(24 * 30) };
        judge("s", &seen, clock).into_iter().map(|check| (check.name, check.state)).collect()
    }

    #[tokio::test]
    async fn what_a_server_shows_is_told_whether_it_is_accepted_or_not() {
        let (good, ca) = server("k8s.internal", 2200).await;
        let fine = [("tls-protocol", State::Ok), ("tls-certificate", State::Ok)];
        assert_eq!(states(good, "k8s.internal", ca.clone()).await, fine);
        let refused = [("tls-handshake", State::Bad), ("tls-certificate", State::Ok)];
        assert_eq!(states(good, "other.internal", ca.clone()).await, refused, "another name");
        let (_, another) = server("k8s.internal", 2200).await;
        assert_eq!(states(good, "k8s.internal", another).await, refused, "another CA");
        let (old, old_ca) = server("k8s.internal", 2021).await;
        let expired = [("tls-handshake", State::Bad), ("tls-certificate", State::Bad)];
        assert_eq!(states(old, "k8s.internal", old_ca).await, expired);
        let nobody = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        assert_eq!(states(nobody, "k8s.internal", ca).await, [("tls-handshake", State::Bad)], "nobody is there");
    }
}
