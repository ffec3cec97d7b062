//! Why the parts of a bundle can't be used.

use std::path::PathBuf;

use super::blame::PartsTrouble;
use crate::base::exit::{Classify, ExitClass};
use crate::base::file::FileError;
use crate::bundle::error::BundleError;

/// Why parts can't be used.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// A file or folder can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// A folder has no part of a bundle.
    #[error("find parts of a bundle in `{}`: no file there is named like `NAME.001`", .folder.display())]
    NoParts {
        /// The folder.
        folder: PathBuf,
    },
    /// Folders have the parts of several bundles.
    #[error("find the parts of one bundle: there are some of {}", .names.join(" and of "))]
    TwoBundles {
        /// Their names.
        names: Vec<String>,
    },
    /// One number, two files, two contents.
    #[error("use part {number} of `{name}`: `{}` and `{}` both claim to be it, and differ; {hint}", .first.display(), .second.display())]
    Twice {
        /// The name of the bundle's file.
        name: String,
        /// The part.
        number: u32,
        /// One of the files.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// What the sums say, if there are any.
        hint: String,
    },
    /// There is a part that the bundle has not.
    #[error("use `{}`: it would be part {number}, and `{name}` has {count}; it belongs to another bundle, or part 1 does", .path.display())]
    TooMany {
        /// The name of the bundle's file.
        name: String,
        /// The part.
        number: u32,
        /// How many the bundle has.
        count: u32,
        /// The file.
        path: PathBuf,
    },
    /// Some of the parts can't be used.
    #[error("read all parts of {trouble}")]
    Broken {
        /// Which, and why.
        trouble: PartsTrouble,
        /// What was seen first, where something was read.
        #[source]
        cause: Option<Box<BundleError>>,
    },
    /// The bundle would have more parts than can be counted: the first is hardly there.
    #[error(
        "use the parts of `{name}`: part 1 has {bytes} bytes, so that there would be more parts than can be numbered"
    )]
    Countless {
        /// The name of the bundle's file.
        name: String,
        /// The length of a part.
        bytes: u64,
    },
}

impl Classify for PartsError {
    fn class(&self) -> ExitClass {
        match self {
            Self::File(error) => error.class(),
            Self::NoParts { .. } | Self::TwoBundles { .. } => ExitClass::Usage,
            Self::Broken { trouble, cause } => {
                let refused = cause.as_ref().is_some_and(|cause| cause.class() == ExitClass::Refused);
                if refused || trouble.is_bad() { ExitClass::Refused } else { ExitClass::Unreachable }
            }
            Self::Twice { .. } | Self::TooMany { .. } | Self::Countless { .. } => ExitClass::Refused,
        }
    }

    fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::File(error) => return error.remedy(),
            Self::NoParts { .. } => "name the folder or the medium that has them, or the files".to_owned(),
            Self::TwoBundles { .. } => "name the files of one of them, as `MEDIUM/NAME.*`".to_owned(),
            Self::Broken { trouble, .. } => {
                return Some(format!(
                    "bring part {} again and repeat this with all parts, in any order",
                    super::list(trouble.numbers())
                ));
            }
            Self::Twice { .. } => "take the one that is not meant away".to_owned(),
            Self::TooMany { .. } => "take it away".to_owned(),
            Self::Countless { .. } => "copy part 1 again".to_owned(),
        })
    }
}
