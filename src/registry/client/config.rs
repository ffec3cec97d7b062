//! What a client needs to know of a registry and of the way there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::base::limits::Limits;
use crate::registry::credentials::Credentials;
use crate::registry::reference::Authority;
use crate::registry::upload::Upload;

/// How a registry is reached. TLS is 1.2 or newer, and can't be told to accept a bad certificate.
#[derive(Clone, Debug, Default)]
pub enum Transport {
    /// TLS, trusting the CAs of this machine.
    #[default]
    Tls,
    /// TLS, trusting these CAs (PEM) and no other.
    TlsWithCa(Vec<u8>),
    /// No TLS. Only for this machine's loopback addresses; a client refuses any other host.
    PlainHttp,
}

/// How often what passes is tried again.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often it is repeated after the first failure.
    pub repeats: usize,
    /// The pause before the first repeat; each next one is twice as long, plus up to that much again at random.
    pub first_pause: Duration,
}

impl Default for Retry {
    /// Five repeats over about 10 to 20 seconds: a registry that restarts is back by then.
    fn default() -> Self {
        Self { repeats: 5, first_pause: Duration::from_millis(300) }
    }
}

/// A client certificate with its key, for a registry that asks for one (mutual TLS). `Debug` shows neither.
#[derive(Clone)]
pub struct Identity {
    pem: Arc<Zeroizing<Vec<u8>>>,
}

impl Identity {
    /// The certificate, with the chain that belongs to it, and its unencrypted key (PKCS#8, SEC1 or PKCS#1); both PEM.
    pub fn new(certificate: &[u8], key: &[u8]) -> Self {
        let pem = [key, b"\n", certificate].concat();
        Self { pem: Arc::new(Zeroizing::new(pem)) }
    }

    pub(super) fn for_tls(&self) -> reqwest::Result<reqwest::Identity> {
        reqwest::Identity::from_pem(&self.pem)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// All that a client needs to know. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The registry.
    pub registry: Authority,
    /// How it is reached.
    pub transport: Transport,
    /// Who asks.
    pub credentials: Option<Credentials>,
    /// The certificate that this client shows, where TLS is used.
    pub identity: Option<Identity>,
    /// Hosts besides the registry that credentials may be sent to for a token.
    pub token_hosts: Vec<Authority>,
    /// How blobs are sent.
    pub upload: Upload,
    /// Bounds on answers and waiting.
    pub limits: Limits,
    /// How often what passes is tried again.
    pub retry: Retry,
}

impl ClientConfig {
    /// TLS with this machine's CAs, no credentials, default limits.
    pub fn new(registry: Authority) -> Self {
        Self {
            registry,
            transport: Transport::default(),
            credentials: None,
            identity: None,
            token_hosts: Vec::new(),
            upload: Upload::default(),
            limits: Limits::default(),
            retry: Retry::default(),
        }
    }
}
