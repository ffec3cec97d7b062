//! The bundles that are read and verified: as one file, from standard input, in parts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::io::{AsyncRead, BufReader};

use crate::base::exit::Failure;
use crate::base::file::FileError;
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::bytes_for_people;
use crate::base::text::printable;
use crate::bundle::BundleError;
use crate::bundle::parts::Parts;
use crate::bundle::read_at::FromStart;
use crate::bundle::reader::{BundleReader, VerifiedBundle};
use crate::bundle::survey::Survey;
use crate::cli::source::{self, Source};
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

/// What is read from a bundle's file at once.
const READ_BYTES: usize = 1 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct ReadArgs {
    /// The bundle; `-` for standard input. Of one in parts (NAME.001, NAME.002, ...), the parts in any order, or the folders
    /// that they are in
    #[arg(value_name = "FILE|FOLDER|-", required = true)]
    files: Vec<PathBuf>,
    /// The pinned root that vouches for the bundle; never taken from the bundle
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
}

/// A bundle from its start.
struct Opened {
    input: Box<dyn AsyncRead + Send + Unpin>,
    /// What it comes in, where that is not one file.
    parts: Option<Arc<Parts>>,
}

impl ReadArgs {
    /// Verifies the whole bundle.
    pub(super) async fn verify(
        &self,
        remembered: &Remembered,
        progress: &Progress,
        now: Timestamp,
    ) -> Result<VerifiedBundle, Failure> {
        let root = TrustRoot::read(&self.root)?;
        let source = source::one(&self.files)?;
        let failed = |error: BundleError| Failure::from(error).during(format!("verify {}", source.shown()));
        let Opened { input, parts } = Opened::at(&source, &root, remembered, now).await?;
        let told = |errors: Vec<BundleError>| failed(told(parts.as_deref(), errors));
        let reader = BundleReader::open(input, &root, remembered, &Limits::default(), now).await;
        let reader = reader.map_err(|error| told(vec![error]))?;
        let (_, total) = reader.blob_totals();
        let step = progress.bytes(format!("verify {}", source.shown().trim_matches('`')), total);
        let verified = reader.verify(|bytes| step.advance(bytes)).await.map_err(|errors| {
            // The first is what the command ends with.
            for error in errors.iter().skip(1) {
                eprintln!("{}", printable(&error.to_string()));
            }
            told(errors)
        })?;
        step.done(bytes_for_people(verified.bytes()));
        Ok(verified)
    }

    /// Verifies the whole bundle and gathers what is in it.
    pub(super) async fn survey(&self, now: Timestamp) -> Result<Survey, Failure> {
        survey(&source::one(&self.files)?, &self.root, now).await
    }
}

/// Verifies a whole bundle and gathers what is in it.
pub(in crate::cli) async fn survey(source: &Source, root: &Path, now: Timestamp) -> Result<Survey, Failure> {
    let root = TrustRoot::read(root)?;
    let remembered = Remembered::nothing();
    let Opened { input, parts } = Opened::at(source, &root, &remembered, now).await?;
    let surveyed = async {
        let reader = BundleReader::open(input, &root, &remembered, &Limits::default(), now).await?;
        Survey::of(reader, |_| {}).await
    };
    let failed =
        |error| Failure::from(told(parts.as_deref(), vec![error])).during(format!("verify {}", source.shown()));
    surveyed.await.map_err(failed)
}

impl Opened {
    async fn at(source: &Source, root: &TrustRoot, remembered: &Remembered, now: Timestamp) -> Result<Self, Failure> {
        let path = match source {
            Source::Stdin => return Ok(Self { input: Box::new(tokio::io::stdin()), parts: None }),
            Source::File(path) => path,
            Source::Parts(media) => {
                let opened = async { media.found()?.complete(root, remembered, &Limits::default(), now).await };
                let during = |error| Failure::from(error).during(format!("verify {}", source.shown()));
                let parts = opened.await.map_err(during)?;
                let input = BufReader::with_capacity(READ_BYTES, FromStart::new(parts.clone()));
                return Ok(Self { input: Box::new(input), parts: Some(parts) });
            }
        };
        let failed = |source| FileError::Read { path: path.clone(), source };
        let mut file = source::open_file(path).await.map_err(failed)?;
        file.set_max_buf_size(READ_BYTES);
        Ok(Self { input: Box::new(file), parts: None })
    }
}

/// What is told of errors of one reading.
fn told(parts: Option<&Parts>, errors: Vec<BundleError>) -> BundleError {
    match parts {
        Some(parts) => parts.in_parts(errors),
        None => errors.into_iter().next().unwrap_or(BundleError::Dead),
    }
}
