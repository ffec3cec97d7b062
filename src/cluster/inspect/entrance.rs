//! The way to the API server as files on this machine describe it: a kubeconfig, or a pod's own service account. Nothing is
//! connected to, and no secret leaves this module: of tokens only their life is told, of keys only where they are.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use kube::config::Kubeconfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::base::certificate::validity;
use crate::base::file;
use crate::cluster::error::ClusterError;

/// Where a pod has what its service account is (Kubernetes, "Accessing the API from within a Pod").
const POD_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Bytes of one file of certificates or of one token. A CA bundle of an operating system has 200 KiB.
const FILE_BYTES: u64 = 4 << 20;

/// Where the way to the cluster is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In these kubeconfig files.
    Kubeconfig,
    /// It is what Kubernetes gave to the pod that this runs in.
    Pod,
}

/// A file, and who may do what with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileMode {
    /// The file.
    pub path: PathBuf,
    /// What it is for.
    pub what: &'static str,
    /// Its permission bits; absent where it can't be looked at.
    pub mode: Option<u32>,
}

/// Certificates, by when they are valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// None are named.
    Absent,
    /// Each with its begin and its end.
    Valid(Vec<(Timestamp, Timestamp)>),
    /// They can't be read.
    Unreadable(String),
}

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// There is none.
    Absent,
    /// In the kubeconfig itself.
    Embedded,
    /// In a file of its own.
    File(PathBuf),
}

/// How long a token is good for, as it says itself (RFC 7519, `exp` and `iat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenLife {
    /// There is none, or it can't be read.
    Unknown,
    /// It is no JSON web token, or says nothing of an end: it is good until somebody takes it back.
    Endless,
    /// Until then; from when on, where it says so.
    Until {
        /// When it was issued.
        issued: Option<Timestamp>,
        /// When it expires.
        expires: Timestamp,
    },
}

/// The way to one cluster.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Where it is written down.
    pub place: Place,
    /// The context's name; the server's address in a pod.
    pub context: String,
    /// The files that are used, with who may read them.
    pub files: Vec<FileMode>,
    /// The server's address, where one is named.
    pub server: Option<String>,
    /// Whether the server is not to be verified.
    pub skips_verification: bool,
    /// The proxy that is named.
    pub proxy: Option<String>,
    /// The CA that the server's certificate must chain to.
    pub authority: Certificates,
    /// The certificate that is shown to the server.
    pub certificate: Certificates,
    /// The key of that certificate.
    pub key: Kept,
    /// The bearer token.
    pub token: Kept,
    /// How long that is good for.
    pub token_life: TokenLife,
    /// Whether there is a password.
    pub password: bool,
    /// The program that is run to get credentials.
    pub plugin: Option<String>,
    /// Whom it acts as.
    pub acts_as: Option<String>,
}

/// The way that [`Cluster::connect`](crate::cluster::Cluster::connect) would take; `None` where there is none at all.
///
/// # Errors
/// When a kubeconfig is there, or is named, and can't be used.
pub fn entrance(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Option<Entrance>, ClusterError> {
    let named: Vec<PathBuf> = match (kubeconfig, std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty())) {
        (Some(path), _) => vec![path.to_owned()],
        (None, Some(list)) => std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect(),
        (None, None) => Vec::new(),
    };
    let usual = std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
    let paths = match named.is_empty() {
        false => named,
        true => match usual.filter(|path| path.is_file()) {
            Some(path) => vec![path],
            None if context.is_none() && Path::new(POD_FOLDER).is_dir() => return Ok(Some(of_pod())),
            None => return Ok(None),
        },
    };
    let failed = |error: kube::config::KubeconfigError| ClusterError::Config {
        path: kubeconfig.map(Path::to_owned),
        source: Box::new(error),
    };
    let file = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    }
    .map_err(failed)?;
    let name = context.map(str::to_owned).or_else(|| file.current_context.clone()).unwrap_or_default();
    let wrong = |why: String| ClusterError::Config { path: kubeconfig.map(Path::to_owned), source: why.into() };
    let found = file.contexts.iter().find(|one| one.name == name).and_then(|one| one.context.clone());
    let found = found.ok_or_else(|| wrong(format!("it has no context `{}`", crate::base::text::brief(&name))))?;
    let cluster = file.clusters.iter().find(|one| one.name == found.cluster).and_then(|one| one.cluster.clone());
    let cluster = cluster.ok_or_else(|| wrong(format!("its context `{name}` names no cluster that it has")))?;
    let user = file.auth_infos.iter().find(|one| Some(&one.name) == found.user.as_ref());
    let user = user.and_then(|one| one.auth_info.clone()).unwrap_or_default();

    // Secrets come out of this type only by its written form.
    let written = serde_json::to_value(&user).unwrap_or_default();
    let (token, token_life) = match (written["token"].as_str(), &user.token_file) {
        (Some(token), _) => (Kept::Embedded, life(token)),
        (None, Some(path)) => (Kept::File(path.into()), life_of_file(Path::new(path))),
        (None, None) => (Kept::Absent, TokenLife::Unknown),
    };
    let key = match (&user.client_key_data, &user.client_key) {
        (Some(_), _) => Kept::Embedded,
        (None, Some(path)) => Kept::File(path.into()),
        (None, None) => Kept::Absent,
    };
    let mut files: Vec<FileMode> = paths.iter().map(|path| mode(path, "kubeconfig")).collect();
    if let Kept::File(path) = &key {
        files.push(mode(path, "client key"));
    }
    if let Kept::File(path) = &token {
        files.push(mode(path, "token"));
    }
    Ok(Some(Entrance {
        place: Place::Kubeconfig,
        context: name,
        files,
        server: cluster.server,
        skips_verification: cluster.insecure_skip_tls_verify.unwrap_or(false),
        proxy: cluster.proxy_url.or_else(proxy_of_environment),
        authority: certificates(
            cluster.certificate_authority_data.as_deref(),
            cluster.certificate_authority.as_deref(),
        ),
        certificate: certificates(user.client_certificate_data.as_deref(), user.client_certificate.as_deref()),
        key,
        token,
        token_life,
        password: user.password.is_some(),
        plugin: match (&user.exec, &user.auth_provider) {
            (Some(plugin), _) => Some(plugin.command.clone().unwrap_or_else(|| "without a name".to_owned())),
            (None, Some(provider)) => Some(provider.name.clone()),
            (None, None) => None,
        },
        acts_as: user.impersonate,
    }))
}

fn of_pod() -> Entrance {
    let folder = Path::new(POD_FOLDER);
    let token = folder.join("token");
    let variable = |name: &str| std::env::var(name).ok();
    let server = variable("KUBERNETES_SERVICE_HOST").map(|host| {
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        format!("https://{host}:{}", variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned()))
    });
    Entrance {
        place: Place::Pod,
        context: server.clone().unwrap_or_default(),
        files: vec![mode(&token, "token")],
        server,
        skips_verification: false,
        proxy: proxy_of_environment(),
        authority: certificates(None, folder.join("ca.crt").to_str()),
        certificate: Certificates::Absent,
        key: Kept::Absent,
        token_life: life_of_file(&token),
        token: Kept::File(token),
        password: false,
        plugin: None,
        acts_as: None,
    }
}

/// Some proxies have a password in their address: it is not told.
fn proxy_of_environment() -> Option<String> {
    let found = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    found
        .into_iter()
        .find(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
        .map(|name| format!("${name}"))
}

fn mode(path: &Path, what: &'static str) -> FileMode {
    let mode = std::fs::metadata(path).ok().map(|meta| meta.permissions().mode() & 0o7777);
    FileMode { path: path.to_owned(), what, mode }
}

/// `data` is PEM in Base64 and comes before a file, as with kubectl.
fn certificates(data: Option<&str>, path: Option<&str>) -> Certificates {
    let pem = match (data, path) {
        (Some(data), _) => STANDARD.decode(data.trim()).map_err(|error| error.to_string()),
        (None, Some(path)) => file::read_capped(Path::new(path), FILE_BYTES).map_err(|error| {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        }),
        (None, None) => return Certificates::Absent,
    };
    let times = pem.and_then(|pem| validities(&pem));
    times.map_or_else(Certificates::Unreadable, Certificates::Valid)
}

/// When each certificate of a PEM file is valid.
fn validities(pem: &[u8]) -> Result<Vec<(Timestamp, Timestamp)>, String> {
    let mut times = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        times.push(validity(&certificate).ok_or("one of them is no certificate")?);
    }
    if times.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(times) }
}

fn life_of_file(path: &Path) -> TokenLife {
    match file::read_capped(path, FILE_BYTES).map(String::from_utf8) {
        Ok(Ok(token)) => life(token.trim()),
        Ok(Err(_)) | Err(_) => TokenLife::Unknown,
    }
}

/// How long this token is good for, as it says. Its signature is the server's to check.
fn life(token: &str) -> TokenLife {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return TokenLife::Endless;
    };
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).unwrap_or_default();
    let Ok(claims) = serde_json::from_slice::<Value>(&claims) else { return TokenLife::Endless };
    let time = |name: &str| Timestamp::from_second(claims[name].as_i64()?).ok();
    match time("exp") {
        Some(expires) => TokenLife::Until { issued: time("iat"), expires },
        None => TokenLife::Endless,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn of_a_token_only_its_life_is_told() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let at = |second| Timestamp::from_second(second).expect("a time");
        let until = TokenLife::Until { issued: Some(at(100)), expires: at(700) };
        assert_eq!(life(&token(r#"{"iat":100,"exp":700}"#)), until);
        for endless in [token(r#"{"iat":100}"#), token("no JSON"), "opaque".to_owned(), "a.b".to_owned(), String::new()]
        {
            assert_eq!(life(&endless), TokenLife::Endless, "{endless}");
        }
        // A time that is none is no end.
        assert_eq!(life(&token(r#"{"exp":9e99}"#)), TokenLife::Endless);
    }

    #[test]
    fn a_kubeconfig_is_told_without_its_secrets() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config");
        let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- {name: a, context: {cluster: c, user: u}}\n\
                    clusters:\n- {name: c, cluster: {server: 'http://k:1', insecure-skip-tls-verify: true, proxy-url: 'http://p'}}\n\
                    users:\n- {name: u, user: {token: hunter2, password: hunter3, exec: {command: aws}}}\n";
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
        let found = entrance(Some(&path), None).expect("readable").expect("there");
        assert_eq!(found.files, [FileMode { path: path.clone(), what: "kubeconfig", mode: Some(0o644) }]);
        assert_eq!((found.token.clone(), found.token_life), (Kept::Embedded, TokenLife::Endless));
        assert!(found.skips_verification && found.password && found.proxy.is_some());
        assert_eq!((found.plugin.as_deref(), &found.authority), (Some("aws"), &Certificates::Absent));
        assert!(!format!("{found:?}").contains("hunter"));
        let error = entrance(Some(&path), Some("b")).expect_err("no such context");
        assert!(format!("{:?}", std::error::Error::source(&error)).contains("no context `b`"), "{error:?}");
        assert!(matches!(certificates(Some("bm8gUEVN"), None), Certificates::Unreadable(_)));
    }
}
