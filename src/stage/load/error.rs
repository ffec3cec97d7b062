//! Why a load ends.

use crate::base::exit::{Classify, ExitClass};
use crate::bundle::BundleError;
use crate::registry::reference::NameError;
use crate::registry::{Prefix, RegistryError};
use crate::trust::TrustError;

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
            Self::Absent { .. } => Some("load the bundle there first, or name the one that is there".to_owned()),
            Self::Foreign { .. } => Some("load the bundle again".to_owned()),
        }
    }
}
