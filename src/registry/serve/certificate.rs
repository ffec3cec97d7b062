//! Certificates of our own, and when any certificate ends.
//!
//! What is made is a CA, whose key (0600) and certificate stay in `DIR/tls`. The server's certificate is signed by it anew at
//! every start and while the server runs, for the names and addresses of that start, and is only ever in memory.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::error::ServeError;
use super::store::make_folders;
use crate::base::certificate::validity;
use crate::base::file;

/// Bytes of a PEM file.
const PEM: u64 = 1 << 20;
/// Years that the CA is valid: changing it means telling every client.
const CA_YEARS: i16 = 10;
/// Years that the server's certificate is valid. It is renewed when a third is left.
const SERVER_YEARS: i16 = 1;
/// Time left of the CA below which every start says so.
const CA_ENDS_SOON: SignedDuration = SignedDuration::from_hours(24 * 365);

/// The CA in a data folder.
pub(super) struct OwnCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    certificate: CertificateDer<'static>,
}

impl OwnCa {
    /// The CA in this folder; made on first use.
    pub(super) fn open(root: &Path, now: Timestamp) -> Result<Self, ServeError> {
        let folder = root.join("tls");
        make_folders(&folder).map_err(|source| ServeError::Folder { path: folder.clone(), source })?;
        let (key_path, ca_path) = (folder.join("ca.key"), folder.join("ca.crt"));
        // The certificate is written after its key, so where it is, the key is too.
        if !ca_path.exists() {
            let key = KeyPair::generate().map_err(bad)?;
            let ca = ca_params(now).map_err(bad)?.self_signed(&key).map_err(bad)?;
            file::write_atomic(&key_path, Zeroizing::new(key.serialize_pem()).as_bytes(), 0o600)?;
            file::write_atomic(&ca_path, ca.pem().as_bytes(), 0o644)?;
        }
        let unreadable = |path: &Path| ServeError::Certificate {
            reason: format!("`{}` is not what was written there", path.display()),
        };
        let pem = String::from_utf8(file::read_capped(&ca_path, PEM)?).map_err(|_| unreadable(&ca_path))?;
        let key_pem = Zeroizing::new(file::read_capped(&key_path, PEM)?);
        let key = std::str::from_utf8(&key_pem)
            .ok()
            .and_then(|pem| KeyPair::from_pem(pem).ok())
            .ok_or_else(|| unreadable(&key_path))?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| unreadable(&ca_path))?;
        let (_, end) = validity(&certificate).ok_or_else(|| unreadable(&ca_path))?;
        if end < now + CA_ENDS_SOON {
            tracing::warn!(
                %end,
                "the registry's CA ends soon: remove `tls` from its folder, start it again, and give clients the new ca.crt"
            );
        }
        Ok(Self { issuer: Issuer::new(ca_params(now).map_err(bad)?, key), pem, certificate })
    }

    /// The CA's certificate (PEM).
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for loopback, the address listened on and these names, with the CA's behind it, and its key.
    pub(super) fn issue(
        &self,
        listen: SocketAddr,
        names: &[String],
        now: Timestamp,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ServeError> {
        let key = KeyPair::generate().map_err(bad)?;
        let certificate = server_params(listen, names, now).map_err(bad)?.signed_by(&key, &self.issuer).map_err(bad)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        Ok((chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())))
    }
}

fn bad(error: rcgen::Error) -> ServeError {
    ServeError::Certificate { reason: error.to_string() }
}

fn ca_params(now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = name("gapscan registry CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, now, CA_YEARS);
    Ok(params)
}

fn server_params(listen: SocketAddr, names: &[String], now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut all = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !listen.ip().is_unspecified() {
        all.push(listen.ip().to_string());
    }
    all.extend(names.iter().cloned());
    all.sort();
    all.dedup();
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    for name in all {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(name.try_into()?),
        });
    }
    params.distinguished_name = name("gapscan registry");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    valid_for(&mut params, now, SERVER_YEARS);
    Ok(params)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// From well before now: clocks behind an air gap differ.
fn valid_for(params: &mut CertificateParams, now: Timestamp, years: i16) {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |year: i16| {
        rcgen::date_time_ymd(i32::from(year), today.month().unsigned_abs(), today.day().unsigned_abs().min(28))
    };
    params.not_before = day(today.year() - 1);
    params.not_after = day(today.year() + years);
}
