//! What the embedded registry can't do, and what it tells its clients.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_RANGE, HeaderValue};
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
    /// What nobody needs can't be removed.
    #[error("remove unused content from `{}`", .path.display())]
    Collect {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Classify for ServeError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Folder { .. } | Self::Busy { .. } | Self::Listen { .. } | Self::Collect { .. } => {
                ExitClass::Unreachable
            }
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
            Self::Collect { .. } => None,
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
    session: Option<(String, u64)>,
    /// Bytes of what a range was asked of.
    whole: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), session: None, whole: None }
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

    /// Nobody is known to have sent this, or somebody who could ask for the right to.
    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
    }

    pub(super) fn denied(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "DENIED", message)
    }

    /// There is no room for this many bytes.
    pub(super) fn full(available: u64) -> Self {
        let message = format!("the registry's disk has room for {available} bytes");
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "INSUFFICIENT_STORAGE", message)
    }

    /// A blob of more than this many bytes.
    pub(super) fn too_large(most: u64) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", format!("a blob has at most {most} bytes"))
    }

    /// More of one kind at a time than there are places.
    pub(super) fn too_many(message: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", message)
    }

    /// A range that this many bytes do not have (RFC 9110, 15.5.17).
    pub(super) fn outside(length: u64) -> Self {
        let refusal =
            Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID", format!("the blob has {length} bytes"));
        Self { whole: Some(length), ..refusal }
    }

    /// What was sent so far can be gone on from: where, and how much it is.
    pub(super) fn with_session(mut self, location: String, length: u64) -> Self {
        self.session = Some((location, length));
        self
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn unsupported(status: StatusCode) -> Self {
        Self::new(status, "UNSUPPORTED", "this registry does not do that")
    }
}

impl From<io::Error> for Refusal {
    /// What failed here is for the server's own log; a client learns only what it can do something about.
    fn from(error: io::Error) -> Self {
        tracing::error!(%error, "the registry's folder can't be read or written");
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::full(0),
            _ => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "UNKNOWN",
                "the registry could not read or write its storage",
            ),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, code, message, session, whole } = self;
        let body = Json(json!({ "errors": [{ "code": code, "message": message, "detail": null }] }));
        let mut response = (status, body).into_response();
        if let Some(length) = whole {
            let range = HeaderValue::from_str(&format!("bytes */{length}")).expect("numbers are header values");
            response.headers_mut().insert(CONTENT_RANGE, range);
        }
        if let Some((location, length)) = session {
            super::receive::say_where(response.headers_mut(), &location, length);
        }
        response
    }
}
