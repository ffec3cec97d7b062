//! `gapscan bundle new`

use std::path::PathBuf;

use crate::base::exit::{ExitClass, Outcome};
use crate::base::file::{self, FileError};
use crate::bundle::definition::TEMPLATE;

/// Write a commented bundle.yaml to start from
#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// The folder; made if need be
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl NewArgs {
    pub(super) fn run(self) -> Outcome {
        let path = self.folder.join("bundle.yaml");
        std::fs::create_dir_all(&self.folder)
            .map_err(|source| FileError::Write { path: self.folder.clone(), source })?;
        file::write_new(&path, TEMPLATE.as_bytes(), 0o644)?;
        println!("{}", path.display());
        Ok(ExitClass::Success)
    }
}
