//! The profile that an imported result is measured against.

use std::path::Path;

use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::bundle::profile::ProfileFolder;
use crate::bundle::writer::BuildError;
use crate::ledger::{LedgerError, LedgerReader};
use crate::model::profile::Profile;
use crate::model::scanner::BUILTIN;
use crate::stage::lock::Profiles;

/// Why there is no profile to measure against.
#[derive(Debug, thiserror::Error)]
pub enum ExpectedError {
    /// The folder can't be used.
    #[error(transparent)]
    Folder(#[from] BuildError),
    /// It is none for a scanner.
    #[error("use profile `{}`: {why}", brief(.profile))]
    Unfit {
        /// What was named.
        profile: String,
        /// What is wrong with it.
        why: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The ledger can't be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Classify for ExpectedError {
    fn class(&self) -> ExitClass {
        match self {
            Self::Folder(error) => error.class(),
            Self::Unfit { .. } => ExitClass::Usage,
            Self::Ledger(error) => error.class(),
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Folder(error) => error.remedy(),
            Self::Unfit { remedy, .. } => Some((*remedy).to_owned()),
            Self::Ledger(error) => error.remedy(),
        }
    }
}

/// The profile in this folder, or, where there is no such folder, the one of this name that the ledger recorded last.
///
/// # Errors
/// When there is neither, or its controls can't be listed, or it is one of the builtin engine, which makes no files.
pub fn expected(name: &str, ledger: &LedgerReader, limits: &Limits) -> Result<Profile, ExpectedError> {
    let unfit = |why, remedy| Err(ExpectedError::Unfit { profile: name.to_owned(), why, remedy });
    let path = Path::new(name);
    if !path.is_dir() {
        return match ledger.newest_profile(name)? {
            Some(profile) => Ok(profile),
            None => unfit(
                "there is no such folder, and the ledger has no result by a profile of this name",
                "name the folder that has its profile.yaml, or a profile that `gapscan results` shows",
            ),
        };
    }
    let folder = ProfileFolder::read(path, limits)?;
    if folder.document.engine == BUILTIN {
        return unfit(
            "gapscan's own engine evaluates it, and no scanner's result is about it",
            "name a scanner's profile",
        );
    }
    if folder.document.xccdf.is_some() {
        return unfit(
            "its controls are in a benchmark that the bundle has",
            "scan with it once, and name it: the ledger has its controls then",
        );
    }
    Ok(folder.resolve(None, &Profiles)?)
}
