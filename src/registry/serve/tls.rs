//! The server's certificate, and how it is replaced while the server runs.
//!
//! Given files are looked at every few seconds, and again on request: what a certificate manager renewed is used for the
//! next connection, without one that is under way being cut. A pair that can't be used changes nothing but a metric and the
//! log: the registry goes on with the one before.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::{SignedDuration, Timestamp};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use super::certificate::OwnCa;
use super::error::ServeError;
use super::server::Tls;
use crate::base::{certificate, file};

/// Bytes of a PEM file.
const PEM: u64 = 1 << 20;

/// The certificate in use, with what it is renewed from.
pub(super) struct Certificate {
    source: Source,
    current: RwLock<Current>,
}

struct Current {
    key: Arc<CertifiedKey>,
    begin: Timestamp,
    end: Timestamp,
    /// The files that it was read from, as they were; also of a pair that could not be used, which is not read again.
    seen: Option<Seen>,
}

enum Source {
    Files { chain: PathBuf, key: PathBuf },
    Own { ca: Box<OwnCa>, listen: SocketAddr, names: Vec<String> },
}

/// What changes when a file is written or replaced, or the link to it is.
type Seen = [(u64, u64, i64, i64); 2];

/// What came of looking for a newer certificate.
#[derive(Debug)]
pub(super) enum Renewal {
    /// There is none.
    Unchanged,
    /// There was one, which is used from now on.
    Used,
    /// There was one that can't be used.
    Refused(ServeError),
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("end", &self.end()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read().key.clone())
    }
}

impl Certificate {
    /// The certificate that was given, or one of our own for these names; `None` where no TLS is wanted.
    pub(super) fn open(
        tls: Tls,
        root: &Path,
        listen: SocketAddr,
        now: Timestamp,
    ) -> Result<Option<Arc<Self>>, ServeError> {
        let (source, current) = match tls {
            Tls::PlainHttp => return Ok(None),
            Tls::Given { chain, key } => {
                let seen = seen(&chain, &key);
                let current = Current { seen, ..from_files(&chain, &key)? };
                (Source::Files { chain, key }, current)
            }
            Tls::Own(names) => {
                let ca = OwnCa::open(root, now)?;
                let current = from_ca(&ca, listen, &names, now)?;
                (Source::Own { ca: Box::new(ca), listen, names }, current)
            }
        };
        Ok(Some(Arc::new(Self { source, current: RwLock::new(current) })))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Current> {
        self.current.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the certificate in use.
    pub(super) fn end(&self) -> Timestamp {
        self.read().end
    }

    /// The CA's certificate (PEM), where it is our own.
    pub(super) fn ca_pem(&self) -> Option<String> {
        match &self.source {
            Source::Files { .. } => None,
            Source::Own { ca, .. } => Some(ca.pem().to_owned()),
        }
    }

    /// Takes a newer certificate into use, if there is one.
    pub(super) fn renew(&self, now: Timestamp) -> Renewal {
        let (newer, seen) = match &self.source {
            Source::Files { chain, key } => {
                // Before the content: what is replaced while it is read is read again next time.
                let seen = seen(chain, key);
                if seen == self.read().seen {
                    return Renewal::Unchanged;
                }
                (from_files(chain, key), seen)
            }
            Source::Own { ca, listen, names } => {
                let (begin, end) = (self.read().begin, self.end());
                if !is_due(begin, end, now) {
                    return Renewal::Unchanged;
                }
                (from_ca(ca, *listen, names, now), None)
            }
        };
        let mut current = self.write();
        current.seen = seen;
        match newer {
            Ok(newer) => {
                *current = Current { seen, ..newer };
                Renewal::Used
            }
            Err(error) => Renewal::Refused(error),
        }
    }

    /// A configuration that asks this certificate at every connection.
    pub(super) fn config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, ServeError> {
        let bad = |error: rustls::Error| ServeError::Certificate { reason: error.to_string() };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(bad)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Whether only a third of the time is left.
fn is_due(begin: Timestamp, end: Timestamp, now: Timestamp) -> bool {
    let whole = end.duration_since(begin);
    now + SignedDuration::from_secs(whole.as_secs() / 3) >= end
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn seen(chain: &Path, key: &Path) -> Option<Seen> {
    let of = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    };
    Some([of(chain)?, of(key)?])
}

fn from_files(chain: &Path, key: &Path) -> Result<Current, ServeError> {
    let bad = |reason: String| ServeError::Certificate { reason };
    let pem = file::read_capped(chain, PEM)?;
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|_| bad(format!("`{}` is no PEM", chain.display())))?;
    if certificates.is_empty() {
        return Err(bad(format!("there is no certificate in `{}`", chain.display())));
    }
    let pem = Zeroizing::new(file::read_capped(key, PEM)?);
    let key =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|_| bad(format!("there is no key in `{}`", key.display())))?;
    pair(certificates, key)
}

fn from_ca(ca: &OwnCa, listen: SocketAddr, names: &[String], now: Timestamp) -> Result<Current, ServeError> {
    let (chain, key) = ca.issue(listen, names, now)?;
    // Its validity begins in the past, for clocks that differ; what is left of it counts from now.
    Ok(Current { begin: now, ..pair(chain, key)? })
}

/// A chain and a key that belong together.
fn pair(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Current, ServeError> {
    let bad = |reason: String| ServeError::Certificate { reason };
    let (begin, end) = chain
        .first()
        .and_then(|leaf| certificate::validity(leaf))
        .ok_or_else(|| bad("the first certificate can't be read".to_owned()))?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| bad(error.to_string()))?;
    Ok(Current { key: Arc::new(key), begin, end, seen: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_certificate_is_renewed_long_before_it_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let listen = "127.0.0.1:5000".parse().expect("an address");
        let certificate = Certificate::open(Tls::Own(Vec::new()), folder.path(), listen, now).expect("made");
        let certificate = certificate.expect("with TLS");
        let (first, ca) = (certificate.end(), certificate.ca_pem());
        let day = |n: i64| now + SignedDuration::from_hours(24 * n);
        assert!(first > day(300));
        assert!(matches!(certificate.renew(day(200)), Renewal::Unchanged));
        assert!(matches!(certificate.renew(day(300)), Renewal::Used));
        assert!(certificate.end() >= first + SignedDuration::from_hours(24 * 250));
        assert_eq!(certificate.ca_pem(), ca, "clients keep their trust");
    }

    #[test]
    fn a_pair_that_does_not_belong_together_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).expect("written");
        let make = || rcgen::generate_simple_self_signed(vec!["r".to_owned()]).expect("a certificate");
        let (one, two) = (make(), make());
        write("c", &one.cert.pem());
        write("k", &one.signing_key.serialize_pem());
        let tls = Tls::Given { chain: path("c"), key: path("k") };
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let listen = "127.0.0.1:5000".parse().expect("an address");
        let certificate = Certificate::open(tls, folder.path(), listen, now).expect("read").expect("with TLS");
        let used = |certificate: &Certificate| certificate.read().key.cert[0].clone();
        assert!(matches!(certificate.renew(now), Renewal::Unchanged));
        write("c", &two.cert.pem());
        assert!(matches!(certificate.renew(now), Renewal::Refused(_)));
        assert!(matches!(certificate.renew(now), Renewal::Unchanged), "it is said once");
        assert_eq!(used(&certificate), *one.cert.der());
        for bad in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            write("c", bad);
            assert!(matches!(certificate.renew(now), Renewal::Refused(_)), "{bad}");
            assert_eq!(used(&certificate), *one.cert.der());
        }
        std::fs::remove_file(path("c")).expect("removed");
        assert!(matches!(certificate.renew(now), Renewal::Refused(_)));
        write("c", &two.cert.pem());
        write("k", &two.signing_key.serialize_pem());
        assert!(matches!(certificate.renew(now), Renewal::Used));
        assert_eq!(used(&certificate), *two.cert.der());
    }
}
