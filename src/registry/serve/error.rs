//! What the embedded registry can't do, and what it tells its clients.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use crate::base::exit::{Classify, ExitClass};
use crate::base::file::FileError;

/// Why the registry can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The folder can't be used.
    #[error("use `{}` as a registry's folder", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process serves from the folder.
    #[error("use `{}` as a registry's folder: another process does", .path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The address can't be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Plain HTTP was asked for on an address that others can reach.
    #[error("serve plain HTTP on {address}: that is only for loopback addresses")]
    PlainHttp {
        /// The address.
        address: SocketAddr,
    },
    /// A certificate or key can't be made or used.
    #[error("prepare the registry's certificate: {reason}")]
    Certificate {
        /// What is wrong.
        reason: String,
    },
    /// A file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Classify for ServeError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Folder { .. } | Self::Busy { .. } | Self::Listen { .. } => ExitClass::Unreachable,
            Self::PlainHttp { .. } | Self::Certificate { .. } => ExitClass::Usage,
            Self::File(error) => error.class(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Folder { .. } => Some("give a folder that this user can write to".to_owned()),
            Self::Busy { .. } => Some("stop that process, or give another folder".to_owned()),
            Self::Listen { .. } => Some("free the port, or choose another with --listen".to_owned()),
            Self::PlainHttp { .. } => {
                Some("leave --plain-http out: a certificate is made on the first start".to_owned())
            }
            Self::Certificate { .. } => {
                Some("give the certificate chain and its key as PEM files that belong together".to_owned())
            }
            Self::File(error) => error.remedy(),
        }
    }
}

/// What a client is told (distribution-spec 1.1, "Error Codes").
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(super) fn blob_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "the repository has no such blob")
    }

    pub(super) fn upload_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "there is no such upload, or it ended")
    }

    pub(super) fn digest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", message)
    }

    pub(super) fn manifest_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "the repository has no such manifest")
    }

    pub(super) fn manifest_invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", message)
    }

    pub(super) fn name_unknown() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is no such repository")
    }

    pub(super) fn unsupported(status: StatusCode) -> Self {
        Self::new(status, "UNSUPPORTED", "this registry does not do that")
    }
}

impl From<io::Error> for Refusal {
    /// What failed here is for the server's own log; a client learns only that it did.
    fn from(error: io::Error) -> Self {
        tracing::error!(%error, "the registry's folder can't be read or written");
        let status = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, "UNKNOWN", "the registry could not read or write its storage")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, code, message } = self;
        (status, Json(json!({ "errors": [{ "code": code, "message": message, "detail": null }] }))).into_response()
    }
}
