//! Bundles in parts: all of them at once where all are there, what is there where some are missing, and one after the other
//! where somebody changes the media.

use std::sync::Arc;

use tokio::io::AsyncRead;

use super::error::LoadError;
use super::incomplete::Incomplete;
use super::piped::{InPlace, piped};
use super::{Load, LoadedBundle};
use crate::bundle::BundleError;
use crate::bundle::media::{Ask, Media, MediaReader};
use crate::bundle::parts::{Parts, PartsError};
use crate::bundle::reader::BundleReader;

impl Load<'_> {
    /// Loads the bundle whose parts are on these media. Where some are missing, `ask` is asked for them, one after the other
    /// and each once; or, where there is nobody to ask, everything that can be had from the others is put into the registry.
    ///
    /// # Errors
    /// As [`Load::run_file`]. [`LoadError::Incomplete`] names the parts that are missing or damaged.
    ///
    /// # Cancel safety
    /// As [`Load::run_stream`].
    pub async fn run_parts<A: Ask + Clone + Unpin + 'static>(
        &self,
        media: &Media,
        ask: Option<A>,
    ) -> Result<LoadedBundle, LoadError> {
        let parts = self.arrange(media, ask.clone()).await?;
        let loaded = match ask {
            Some(ask) if !parts.lacking().is_empty() => {
                let reader = MediaReader::new(media.clone(), ask, Some(parts.length()));
                self.run_stream(piped(reader)).await
            }
            _ => self.run_file(parts.clone()).await,
        };
        loaded.map_err(|error| in_parts(error, &parts))
    }

    /// The parts that are there now, in their places: how many there are follows from the metadata, which is read first.
    pub(super) async fn arrange<A: Ask + Unpin + 'static>(
        &self,
        media: &Media,
        ask: Option<A>,
    ) -> Result<Arc<Parts>, LoadError> {
        let opened = match ask {
            Some(ask) => self.length(InPlace(MediaReader::new(media.clone(), ask, None))).await,
            None => self.length(media.found()?.beginning()).await,
        };
        let bytes = match opened {
            Ok(bytes) => bytes,
            Err(error) => return Err(begun(media.found()?.in_beginning(error))),
        };
        Ok(Arc::new(media.found()?.arrange(bytes)?))
    }

    async fn length<R: AsyncRead + Unpin + Send>(&self, source: R) -> Result<u64, BundleError> {
        let reader = BundleReader::open(source, self.root, self.remembered, self.limits, self.now).await?;
        Ok(reader.archive_bytes())
    }
}

/// Why not even the beginning could be read.
fn begun(error: BundleError) -> LoadError {
    match error {
        BundleError::Parts(PartsError::Broken { trouble, cause }) => {
            Incomplete { parts: Some(trouble), cause: cause.map(|cause| *cause), ..Incomplete::default() }.into()
        }
        error => error.into(),
    }
}

/// The error with the parts that it lies in.
pub(super) fn in_parts(error: LoadError, parts: &Parts) -> LoadError {
    match error {
        LoadError::Incomplete(incomplete) => incomplete.in_parts(parts).into(),
        LoadError::Bundle(cause) if cause.offset().is_some() => {
            Incomplete { cause: Some(cause), ..Incomplete::default() }.in_parts(parts).into()
        }
        error => error,
    }
}
