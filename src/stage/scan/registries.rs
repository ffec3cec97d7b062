//! The registries that a run talks to, each with one client, made from the plan's access when it is first asked for.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use crate::base::exit::{Classify, ExitClass};
use crate::base::file::{self, FileError};
use crate::base::limits::Limits;
use crate::registry::{Authority, Client, ClientConfig, Credentials, RegistryError, Transport};
use crate::registry::auth::docker_config_path;
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
}

impl Classify for AccessError {
    fn class(&self) -> ExitClass {
        match self {
            Self::File(error) => error.class(),
            Self::Registry(error) => error.class(),
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
    Ok(Client::new(ClientConfig { transport, credentials, limits: limits.clone(), ..ClientConfig::new(registry.clone()) })?)
}

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
