//! Why a scan could not start. Once it runs, nothing is an error any more: it is a record.

use std::error::Error;

use crate::base::document::DocumentError;
use crate::base::exit::{Classify, ExitClass};
use crate::ledger::LedgerError;
use crate::model::reason::Reason;

/// Why a scan could not start.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The ledger can't be written, or is not intact.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What is asked for makes no sense.
    #[error("scan: {0}")]
    Request(String),
    /// A file that the scan needs.
    #[error(transparent)]
    File(#[from] crate::base::file::FileError),
    /// A document that the scan needs.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The bundle, or something in it, can't be trusted.
    #[error("use bundle `{name}`")]
    Bundle {
        /// The bundle's name.
        name: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
        /// How the process ends because of it.
        class: ExitClass,
        /// What the reader can do about it.
        remedy: Option<String>,
    },
    /// A registry can't be used as configured.
    #[error("reach registry `{host}`")]
    Registry {
        /// `HOST[:PORT]`
        host: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
        /// How the process ends because of it.
        class: ExitClass,
        /// What the reader can do about it.
        remedy: Option<String>,
    },
}

impl Classify for ScanError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Ledger(error) => error.class(),
            Self::Request(_) => ExitClass::Usage,
            Self::File(error) => error.class(),
            Self::Document(error) => error.class(),
            Self::Bundle { class, .. } | Self::Registry { class, .. } => *class,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Ledger(error) => error.remedy(),
            Self::File(error) => error.remedy(),
            Self::Document(error) => error.remedy(),
            Self::Request(_) => None,
            Self::Bundle { remedy, .. } | Self::Registry { remedy, .. } => remedy.clone(),
        }
    }
}

impl ScanError {
    /// The reason under which everything that was expected counts as not evaluated.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Bundle { class: ExitClass::Refused, .. } => Reason::BundleUnverified,
            Self::Bundle { .. } | Self::Registry { .. } => Reason::RegistryUnreachable,
            Self::Ledger(_) | Self::Request(_) | Self::File(_) | Self::Document(_) => Reason::InternalError,
        }
    }

    /// The message with all its causes.
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error's message with those of all its causes, on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let message = cause.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        source = cause.source();
    }
    crate::base::text::printable(&text).into_owned()
}
