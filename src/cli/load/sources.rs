//! What is to be loaded: files, standard input, and bundles in parts.

use std::path::{Path, PathBuf};

use crate::base::exit::Failure;
use crate::bundle::media::Media;
use crate::bundle::parts::{PartName, PartSet};
use crate::cli::bundle;

/// One bundle.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// From standard input.
    Stdin,
    /// One file.
    File(PathBuf),
    /// Parts, in files and folders.
    Parts(Media),
}

/// The bundles that these arguments name. All parts and folders among them are those of one bundle.
pub(super) fn of(arguments: &[PathBuf]) -> Result<Vec<Source>, Failure> {
    let is_stdin = |path: &&PathBuf| path.as_path() == Path::new("-");
    if arguments.iter().filter(is_stdin).count() > 1 {
        return Err(Failure::usage("read two bundles from standard input: it has only one"));
    }
    let is_part = |path: &PathBuf| path.is_dir() || PartName::of(path).is_some();
    let parts: Vec<PathBuf> = arguments.iter().filter(|path| is_part(path)).cloned().collect();
    let mut media = match parts.is_empty() {
        true => None,
        false => Some(Media::new(&PartSet::find(&parts)?, &parts)),
    };
    let mut sources = Vec::new();
    for path in arguments {
        if is_stdin(&path) {
            sources.push(Source::Stdin);
        } else if is_part(path) {
            sources.extend(media.take().map(Source::Parts));
        } else {
            sources.push(Source::File(path.clone()));
        }
    }
    Ok(sources)
}

impl Source {
    /// In messages.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Stdin => bundle::shown(Path::new("-")),
            Self::File(path) => bundle::shown(path),
            Self::Parts(media) => format!("`{}`", media.name()),
        }
    }

    /// As it was named.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Stdin => vec!["-".to_owned()],
            Self::File(path) => vec![path.display().to_string()],
            Self::Parts(media) => media.places().iter().map(|place| place.display().to_string()).collect(),
        }
    }
}
