//! The registries that a stage talks to, each with one client, made from its access when it is first asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroizing;

use crate::base::exit::{Classify, ExitClass};
use crate::base::file::{self, FileError};
use crate::base::limits::Limits;
use crate::registry::credentials::docker_config_path;
use crate::registry::reference::NameError;
use crate::registry::{Authority, Client, ClientConfig, Credentials, Identity, RegistryError, Transport, Upload};
use crate::stage::plan::RegistryAccess;

/// Why a registry can't be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file with certificates or a password.
    #[error(transparent)]
    File(#[from] FileError),
    /// The registry, or what is known of it.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The name of a host that credentials may be sent to.
    #[error(transparent)]
    TokenHost(#[from] NameError),
}

impl Classify for AccessError {
    fn class(&self) -> ExitClass {
        match self {
            Self::File(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::TokenHost(_) => ExitClass::Usage,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::File(error) => error.remedy(),
            Self::Registry(error) => error.remedy(),
            Self::TokenHost(error) => error.remedy(),
        }
    }
}

/// A client for this registry with this access. Without credentials of its own, those of `~/.docker/config.json` are used.
///
/// # Errors
/// When a file can't be read, a certificate is none, or plain HTTP is asked for beyond this machine.
pub fn client(registry: &Authority, access: &RegistryAccess, limits: &Limits) -> Result<Client, AccessError> {
    let transport = match (&access.ca_file, access.plain_http) {
        (_, true) => Transport::PlainHttp,
        (Some(path), false) => Transport::TlsWithCa(file::read_capped(path, limits.document_bytes)?),
        (None, false) => Transport::Tls,
    };
    let credentials = match (&access.username, &access.password_file) {
        (Some(user), Some(path)) => Some(Credentials::from_password_file(user, path)?),
        _ => match docker_config_path() {
            Some(path) if path.is_file() => Credentials::from_docker_config(&path, registry, limits)?,
            _ => None,
        },
    };
    let token_hosts = access.token_hosts.iter().map(|h| h.parse()).collect::<Result<Vec<Authority>, NameError>>()?;
    let identity = match (&access.client_cert_file, &access.client_key_file) {
        (Some(certificate), Some(key)) => {
            let certificate = file::read_capped(certificate, limits.document_bytes)?;
            let key = Zeroizing::new(file::read_capped(key, limits.document_bytes)?);
            Some(Identity::new(&certificate, &key))
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(RegistryError::ClientCertificate { registry: registry.clone() }.into());
        }
    };
    Ok(Client::new(ClientConfig {
        identity,
        transport,
        credentials,
        token_hosts,
        upload: access.chunk_bytes.map_or(Upload::Whole, Upload::Chunks),
        limits: limits.clone(),
        ..ClientConfig::new(registry.clone())
    })?)
}

/// Clients by registry; each is made once.
pub(crate) struct Registries {
    access: BTreeMap<String, RegistryAccess>,
    limits: Limits,
    clients: Mutex<HashMap<String, Client>>,
}

impl Registries {
    pub(crate) fn new(access: BTreeMap<String, RegistryAccess>, limits: Limits) -> Self {
        Self { access, limits, clients: Mutex::default() }
    }

    /// The client for this registry.
    pub(crate) fn client(&self, registry: &Authority) -> Result<Client, AccessError> {
        let host = registry.to_string();
        // A panic elsewhere leaves the map as it was.
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&host) {
            return Ok(client.clone());
        }
        let access = self.access.get(&host).cloned().unwrap_or_default();
        let made = client(registry, &access, &self.limits)?;
        clients.insert(host, made.clone());
        Ok(made)
    }
}
