//! Why a load ends.

use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::bundle::BundleError;
use crate::registry::reference::NameError;
use crate::registry::{Prefix, RegistryError};
use crate::trust::TrustError;

/// A blob whose bytes in the archive could not be had.
#[derive(Debug)]
pub struct PutAside {
    /// Which.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The repositories below the prefix that need it.
    pub repositories: Vec<String>,
    /// Where its content begins in the archive.
    pub offset: u64,
    /// Why it could not be read.
    pub reason: BundleError,
}

/// Why a bundle can't be loaded, or a loaded one not be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bundle is refused or can't be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The version is refused or can't be remembered.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The registry fails or refuses.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The prefix leaves no room for a repository's name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Parts of the archive can't be read. Everything else is in the registry, no tag was moved, and the load can be repeated
    /// once they are there.
    #[error("read {} of the bundle's blobs; all others are in the registry", .0.len())]
    Incomplete(Vec<PutAside>),
    /// The registry has no such bundle.
    #[error("find bundle `{name}` at `{prefix}`: nothing was loaded there under this name")]
    Absent {
        /// The bundle's name.
        name: String,
        /// Where it was looked for.
        prefix: Prefix,
    },
    /// What the registry has under the bundle's name was not put there by `load`.
    #[error("read bundle `{name}` at `{prefix}`: {reason}")]
    Foreign {
        /// The bundle's name.
        name: String,
        /// Where it was looked for.
        prefix: Prefix,
        /// What is wrong with it.
        reason: String,
    },
}

impl Classify for LoadError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Bundle(error) => error.class(),
            Self::Trust(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Name(error) => error.class(),
            Self::Incomplete(_) => ExitClass::Unreachable,
            Self::Absent { .. } => ExitClass::Usage,
            Self::Foreign { .. } => ExitClass::Refused,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Bundle(error) => error.remedy(),
            Self::Trust(error) => error.remedy(),
            Self::Registry(error) => error.remedy(),
            Self::Name(error) => error.remedy(),
            Self::Incomplete(missing) => missing.first().map(|first| {
                format!(
                    "bring what is missing and repeat the load: it goes on where it is; the first is blob {} at byte {} ({})",
                    first.digest,
                    first.offset,
                    chain(&first.reason)
                )
            }),
            Self::Absent { .. } => Some("load the bundle there first, or name the one that is there".to_owned()),
            Self::Foreign { .. } => Some("load the bundle again".to_owned()),
        }
    }
}

/// An error with what it came from, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
