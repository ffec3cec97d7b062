//! The registry's certificate: given, or made on the first start.
//!
//! What is made is a CA of its own, whose key (0600) and certificate stay in `DIR/tls`. The server's certificate is signed
//! by it anew at every start, for the names and addresses of that start, and is only ever in memory.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::error::ServeError;
use super::store::make_folders;
use crate::base::file;

/// Bytes of a PEM file.
const PEM: u64 = 1 << 20;
/// Years that the CA is valid: changing it means telling every client.
const CA_YEARS: i16 = 10;
/// Years that the server's certificate is valid: longer than a server runs without being started again.
const SERVER_YEARS: i16 = 3;

/// A configuration for this certificate chain and key.
pub(super) fn given(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>, ServeError> {
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
    config(certificates, key)
}

/// A configuration with a certificate of our own, and the CA's certificate (PEM) for clients.
pub(super) fn own(
    root: &Path,
    listen: SocketAddr,
    names: &[String],
    now: Timestamp,
) -> Result<(Arc<ServerConfig>, String), ServeError> {
    let bad = |error: rcgen::Error| ServeError::Certificate { reason: error.to_string() };
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
    let unreadable =
        |path: &Path| ServeError::Certificate { reason: format!("`{}` is not what was written there", path.display()) };
    let ca_pem = String::from_utf8(file::read_capped(&ca_path, PEM)?).map_err(|_| unreadable(&ca_path))?;
    let key_pem = Zeroizing::new(file::read_capped(&key_path, PEM)?);
    let ca_key = std::str::from_utf8(&key_pem)
        .ok()
        .and_then(|pem| KeyPair::from_pem(pem).ok())
        .ok_or_else(|| unreadable(&key_path))?;
    let issuer = Issuer::new(ca_params(now).map_err(bad)?, ca_key);

    let server_key = KeyPair::generate().map_err(bad)?;
    let certificate = server_params(listen, names, now).map_err(bad)?.signed_by(&server_key, &issuer).map_err(bad)?;
    let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).map_err(|_| unreadable(&ca_path))?;
    let key = PrivateKeyDer::Pkcs8(server_key.serialize_der().into());
    Ok((config(vec![certificate.der().clone(), ca], key)?, ca_pem))
}

fn config(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Arc<ServerConfig>, ServeError> {
    let bad = |error: rustls::Error| ServeError::Certificate { reason: error.to_string() };
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(bad)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(bad)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn ca_params(now: Timestamp) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = name("gapscan registry CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, now, CA_YEARS);
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
    validity(&mut params, now, SERVER_YEARS);
    Ok(params)
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

/// From well before now: clocks behind an air gap differ.
fn validity(params: &mut CertificateParams, now: Timestamp, years: i16) {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |year: i16| {
        rcgen::date_time_ymd(i32::from(year), today.month().unsigned_abs(), today.day().unsigned_abs().min(28))
    };
    params.not_before = day(today.year() - 1);
    params.not_after = day(today.year() + years);
}
