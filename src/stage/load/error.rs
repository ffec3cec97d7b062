//! Why a load ends.

use std::path::PathBuf;

use super::incomplete::Incomplete;
use super::mapping::MappingError;
use crate::base::digest::Digest;
use crate::base::exit::{Classify, ExitClass};
use crate::base::file::FileError;
use crate::base::quantity::bytes_for_people;
use crate::bundle::BundleError;
use crate::bundle::contents::BaseRef;
use crate::bundle::parts::PartsError;
use crate::registry::reference::NameError;
use crate::registry::{Prefix, RegistryError, Repository};
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
    /// Not all of the bundle could be had, or some of it is damaged. Everything else is in the registry, no tag was moved, and
    /// the load can be repeated.
    #[error(transparent)]
    Incomplete(Box<Incomplete>),
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
    /// The prefix, or an item, has no place of its own in the registry.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// The parts of a bundle do not fit together.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// A file, as that of a receipt.
    #[error(transparent)]
    File(#[from] FileError),
    /// The registry has not the bundle that a delta was made against.
    #[error("find the base of this delta: `{}` version {} ({}) was not loaded into `{prefix}`", .base.bundle, .base.version, .base.content)]
    BaseAbsent {
        /// The base.
        base: Box<BaseRef>,
        /// Where it was looked for.
        prefix: Prefix,
    },
    /// The registry has another bundle of the base's name and version.
    #[error(
        "find the base of this delta: `{}` version {} at `{prefix}` has the content {found}, and {} is needed",
        .base.bundle, .base.version, .base.content
    )]
    OtherBase {
        /// The base.
        base: Box<BaseRef>,
        /// Where it was looked for.
        prefix: Prefix,
        /// What is there.
        found: Digest,
    },
    /// Content of the base is not in the registry any more.
    #[error(
        "find the base of this delta: {} of {total} blobs that it leaves out are not in `{prefix}` any more: {}",
        .gone.len(), shown(.gone)
    )]
    BaseBlobs {
        /// The base.
        base: Box<BaseRef>,
        /// Where they were looked for.
        prefix: Prefix,
        /// The blobs with the repositories that should have them.
        gone: Vec<(Digest, Repository)>,
        /// How many the delta leaves out.
        total: usize,
    },
    /// The registry has too little room.
    #[error(
        "load into `{prefix}`: {} ({needed} bytes) are needed there and {} ({available} bytes) are free",
        bytes_for_people(*.needed), bytes_for_people(*.available)
    )]
    Space {
        /// Where.
        prefix: Prefix,
        /// How many bytes are missing there.
        needed: u64,
        /// How many it can take.
        available: u64,
    },
    /// A receipt is not what it must be.
    #[error("read receipt `{}`: {reason}", .path.display())]
    Receipt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// How many blobs a message names.
const SHOWN: usize = 5;

fn shown(gone: &[(Digest, Repository)]) -> String {
    let named: Vec<String> =
        gone.iter().take(SHOWN).map(|(digest, repository)| format!("{digest} of {repository}")).collect();
    let more = gone.len().saturating_sub(SHOWN);
    if more == 0 { named.join(", ") } else { format!("{} and {more} more", named.join(", ")) }
}

impl Classify for LoadError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Bundle(error) => error.class(),
            Self::Trust(error) => error.class(),
            Self::Registry(error) => error.class(),
            Self::Name(error) => error.class(),
            Self::Incomplete(incomplete) => incomplete.class(),
            Self::Absent { .. } => ExitClass::Usage,
            Self::Foreign { .. } => ExitClass::Refused,
            Self::Mapping(error) => error.class(),
            Self::Parts(error) => error.class(),
            Self::File(error) => error.class(),
            Self::BaseAbsent { .. } | Self::OtherBase { .. } | Self::BaseBlobs { .. } | Self::Receipt { .. } => {
                ExitClass::Refused
            }
            Self::Space { .. } => ExitClass::Unreachable,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Bundle(error) => error.remedy(),
            Self::Trust(error) => error.remedy(),
            Self::Registry(error) => error.remedy(),
            Self::Name(error) => error.remedy(),
            Self::Incomplete(incomplete) => Some(incomplete.remedy()),
            Self::Absent { .. } => Some("load the bundle there first, or name the one that is there".to_owned()),
            Self::Foreign { .. } => Some("load the bundle again".to_owned()),
            Self::Mapping(error) => error.remedy(),
            Self::Parts(error) => error.remedy(),
            Self::File(error) => error.remedy(),
            Self::BaseAbsent { .. } | Self::OtherBase { .. } => {
                Some("load that base below the same prefix first, or have the bundle built without --base".to_owned())
            }
            Self::BaseBlobs { .. } => Some("load the base again, or have the bundle built without --base".to_owned()),
            Self::Space { .. } => Some("make room there, or serve the registry from a larger disk".to_owned()),
            Self::Receipt { .. } => None,
        }
    }
}

impl From<Incomplete> for LoadError {
    fn from(incomplete: Incomplete) -> Self {
        Self::Incomplete(Box::new(incomplete))
    }
}
