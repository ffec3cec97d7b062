//! What can go wrong with a registry.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::StatusCode;

use super::reference::{Authority, NameError, Repository};
use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::file::FileError;
use crate::base::quantity::bytes_for_people;
use crate::base::text::brief;

/// What was being done, for an error: a fragment as ``pull blob `sha256:...` from `host/repository` ``.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action(String);

impl Action {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn at(
        verb: &str,
        object: impl fmt::Display,
        preposition: &str,
        registry: &Authority,
        repository: &Repository,
    ) -> Self {
        Self(format!("{verb} `{object}` {preposition} `{registry}/{repository}`"))
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why something in a registry can't be read or written. No variant holds a password, a token or a query string.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A name is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A file of certificates or passwords can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The CA file holds no usable certificate.
    #[error("use the CA certificates of registry `{registry}`: {reason}")]
    Ca {
        /// The registry.
        registry: Authority,
        /// What is wrong with them.
        reason: String,
    },
    /// The client certificate or its key is unusable.
    #[error(
        "use the client certificate for registry `{registry}`: it is no certificate in PEM with its unencrypted key"
    )]
    ClientCertificate {
        /// The registry.
        registry: Authority,
    },
    /// Plain HTTP was asked for beyond this machine.
    #[error("talk to registry `{registry}` over plain HTTP: that is only for this machine's loopback addresses")]
    PlainHttp {
        /// The registry.
        registry: Authority,
    },
    /// The HTTP client can't be built.
    #[error("prepare the connection to registry `{registry}`")]
    Setup {
        /// The registry.
        registry: Authority,
        /// Why.
        source: reqwest::Error,
    },
    /// Stored credentials can't be used.
    #[error("use the credentials for registry `{registry}` in `{}`: {reason}", .path.display())]
    Credentials {
        /// The registry.
        registry: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// No connection, or it broke.
    #[error("{action}: the connection failed")]
    Connection {
        /// What was being done.
        action: Action,
        /// Why, without the address's query.
        source: reqwest::Error,
    },
    /// Silence for too long.
    #[error("{action}: the registry was silent for {} s", .waited.as_secs_f32())]
    Stalled {
        /// What was being done.
        action: Action,
        /// For how long it was waited.
        waited: Duration,
    },
    /// The registry answered with an error.
    #[error("{action}: the registry answered {status}{}", said(.message))]
    Status {
        /// What was being done.
        action: Action,
        /// The HTTP status.
        status: StatusCode,
        /// What the registry said about it.
        message: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The credentials are missing or were not accepted.
    #[error("{action}: the registry {}", if *.had_credentials { "did not accept the credentials" } else { "asks for credentials" })]
    Unauthorized {
        /// What was being done.
        action: Action,
        /// Whether any were there.
        had_credentials: bool,
    },
    /// The registry points to another host with what must not go there.
    #[error("{action}: the registry points to `{}` for its {what}, and credentials and content do not follow to another host", brief(.target))]
    ForeignHost {
        /// What was being done.
        action: Action,
        /// `token service` or `upload`.
        what: &'static str,
        /// The scheme, host and port that it points to.
        target: String,
    },
    /// The answer is not what the distribution-spec says.
    #[error("{action}: {reason}")]
    Protocol {
        /// What was being done.
        action: Action,
        /// What is wrong with the answer.
        reason: String,
    },
    /// Content has another digest than it must have.
    #[error("{action}: the content has digest {found} instead of {expected}")]
    Digest {
        /// What was being done.
        action: Action,
        /// What it must have.
        expected: Digest,
        /// What it has.
        found: Digest,
    },
    /// Content has another length than it must have.
    #[error("{action}: the content has {found} bytes instead of {expected}")]
    Size {
        /// What was being done.
        action: Action,
        /// What it must have.
        expected: u64,
        /// What it has, at least.
        found: u64,
    },
    /// A document is larger than the limits allow.
    #[error("{action}: it is larger than {}", bytes_for_people(*.limit))]
    TooLarge {
        /// What was being done.
        action: Action,
        /// The bound in bytes.
        limit: u64,
    },
    /// The connection broke while content went up that streams by once, and the registry lacks what is not kept any more.
    #[error(
        "{action}: the connection broke, and the registry has {} of it, while of what streams by only that from {} on is kept",
        bytes_for_people(*.reached),
        bytes_for_people(*.kept_from)
    )]
    StreamedBy {
        /// What was being done.
        action: Action,
        /// Bytes that the registry has.
        reached: u64,
        /// The offset of the first byte that is kept.
        kept_from: u64,
        /// How the connection broke.
        source: Box<RegistryError>,
    },
    /// The content that was to be pushed could not be read or did not verify; nothing of it was completed in the registry.
    #[error("{action}: reading the content failed")]
    Content {
        /// What was being done.
        action: Action,
        /// Why; its inner error is the reader's own.
        source: io::Error,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({})", brief(message)) }
}

impl RegistryError {
    /// Whether the registry has no such thing (404).
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    /// Whether the same request may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection { source, .. } => !is_certificate_error(source),
            Self::Stalled { .. } => true,
            Self::Status { status, .. } => {
                matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
            }
            Self::Name(_)
            | Self::File(_)
            | Self::Ca { .. }
            | Self::ClientCertificate { .. }
            | Self::PlainHttp { .. }
            | Self::Setup { .. }
            | Self::Credentials { .. }
            | Self::Unauthorized { .. }
            | Self::ForeignHost { .. }
            | Self::Protocol { .. }
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::TooLarge { .. }
            | Self::StreamedBy { .. }
            | Self::Content { .. } => false,
        }
    }

    /// The error that a [`super::BlobReader`] ended with.
    pub fn from_reader(error: io::Error, repository: &Repository, digest: &Digest) -> Self {
        error.downcast::<Self>().unwrap_or_else(|source| Self::Content {
            action: Action::new(format!("pull blob `{digest}` from `{repository}`")),
            source,
        })
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// A certificate that was refused stays refused, however often one asks.
fn is_certificate_error(error: &(dyn std::error::Error + 'static)) -> bool {
    tls_error(error).is_some()
}

/// The error of TLS that this one comes from.
fn tls_error<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e rustls::Error> {
    if let Some(error) = error.downcast_ref() {
        return Some(error);
    }
    // An I/O error's source is that of the error inside it, which has to be looked at too.
    let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    inside.and_then(|inside| tls_error(inside)).or_else(|| error.source().and_then(tls_error))
}

impl Classify for RegistryError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Name(error) => error.class(),
            Self::File(error) => error.class(),
            Self::Ca { .. } | Self::ClientCertificate { .. } | Self::PlainHttp { .. } | Self::Credentials { .. } => {
                ExitClass::Usage
            }
            Self::Setup { .. }
            | Self::Connection { .. }
            | Self::Stalled { .. }
            | Self::Status { .. }
            | Self::Unauthorized { .. }
            | Self::Protocol { .. }
            | Self::StreamedBy { .. }
            | Self::Content { .. } => ExitClass::Unreachable,
            Self::ForeignHost { .. } | Self::Digest { .. } | Self::Size { .. } | Self::TooLarge { .. } => {
                ExitClass::Refused
            }
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Name(error) => error.remedy(),
            Self::File(error) => error.remedy(),
            Self::ClientCertificate { .. } => {
                Some("give the certificate with its chain in one PEM file, and the key that belongs to it in another".to_owned())
            }
            Self::Ca { .. } => Some("give the PEM file of the CA that signed the registry's certificate".to_owned()),
            Self::PlainHttp { .. } => Some("serve the registry with TLS, and name its CA with --ca".to_owned()),
            Self::Credentials { .. } => Some("name them with --username and --password-file instead".to_owned()),
            Self::Connection { source, .. } if matches!(tls_error(source), Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType))) => {
                Some("it does not speak TLS: have it served with TLS, or use --plain-http (plainHttp in a document) if it is on this machine".to_owned())
            }
            Self::Connection { source, .. } if is_certificate_error(source) => {
                Some("name the CA that signed the registry's certificate with --ca (caFile in a document), and the registry as its certificate does".to_owned())
            }
            Self::Connection { .. } | Self::Stalled { .. } => {
                Some("see whether the registry runs and can be reached from here, then repeat: what is there already is skipped".to_owned())
            }
            Self::Unauthorized { .. } => {
                Some("name a user with --username and --password-file (username and passwordFile in a document), or log in so that ~/.docker/config.json has one, with the right to do this".to_owned())
            }
            Self::ForeignHost { what: "token service", .. } => {
                Some("if that host is the registry's own token service, name it with --token-host".to_owned())
            }
            Self::ForeignHost { .. } => Some("have the registry's administrator set its external address".to_owned()),
            Self::Status { status, .. } if *status == StatusCode::PAYLOAD_TOO_LARGE => {
                Some("raise the body limit of the proxy before the registry, or push in chunks with --chunk-size".to_owned())
            }
            Self::Status { status, .. } if *status == StatusCode::FORBIDDEN => {
                Some("the user needs the right to do this in that repository".to_owned())
            }
            Self::Digest { .. } | Self::Size { .. } => {
                Some("the registry holds or sends damaged content: remove it there, and load it again".to_owned())
            }
            Self::StreamedBy { .. } => {
                Some("send the same through the pipe again: what the registry has is skipped; or load from a file, from which any part can be sent again".to_owned())
            }
            Self::Setup { .. } | Self::Status { .. } | Self::Protocol { .. } | Self::TooLarge { .. } | Self::Content { .. } => None,
        }
    }
}
