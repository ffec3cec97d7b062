//! The bundles that a command is given: files, standard input, and bundles in parts.

use std::path::{Path, PathBuf};

use crate::base::exit::Failure;
use crate::bundle::media::Media;
use crate::bundle::parts::{PartName, PartSet};

/// One bundle.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// From standard input.
    Stdin,
    /// One file.
    File(PathBuf),
    /// Parts, in files and folders.
    Parts(Media),
}

/// The bundles that these arguments name. All parts and folders among them are those of one bundle.
pub(crate) fn of(arguments: &[PathBuf]) -> Result<Vec<Source>, Failure> {
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

/// The one bundle that these arguments name.
pub(crate) fn one(arguments: &[PathBuf]) -> Result<Source, Failure> {
    let mut sources = of(arguments)?;
    match (sources.pop(), sources.is_empty()) {
        (Some(source), true) => Ok(source),
        _ => Err(Failure::usage("read several bundles: this command takes one")
            .with_remedy("name one file, or parts and folders with parts of one bundle (NAME.001, NAME.002, ...)")),
    }
}

impl Source {
    /// In messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Stdin => "the bundle on standard input".to_owned(),
            Self::File(path) => format!("`{}`", path.display()),
            Self::Parts(media) => format!("`{}`", media.name()),
        }
    }

    /// As it was named.
    pub(crate) fn names(&self) -> Vec<String> {
        match self {
            Self::Stdin => vec!["-".to_owned()],
            Self::File(path) => vec![path.display().to_string()],
            Self::Parts(media) => media.places().iter().map(|place| place.display().to_string()).collect(),
        }
    }
}

/// Opens what may be a bundle. A folder can be opened too, and only reading it would fail.
pub(crate) async fn open_file(path: &Path) -> std::io::Result<tokio::fs::File> {
    let file = tokio::fs::File::open(path).await?;
    match file.metadata().await?.is_dir() {
        true => Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is a folder, and a bundle is one file")),
        false => Ok(file),
    }
}
