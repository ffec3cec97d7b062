//! Images whose facts are in the ledger already: a manifest's digest covers every byte of an image, so that what was collected
//! from it once holds for ever, as long as gapscan and its collector are the same.

use std::sync::{Mutex, PoisonError};

use crate::base::digest::Digest;
use crate::base::text::brief;
use crate::ledger::{LedgerError, LedgerReader};
use crate::model::evidence::Evidence;
use crate::model::record::TaskRecord;
use crate::native::facts::{COLLECTOR, SystemFacts};

/// The media type of an image's configuration.
pub(super) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// What the evidence of an image is called in the record.
pub(super) const CONFIG_NAME: &str = "image-config";

/// What earlier runs collected.
pub(crate) struct Known(Option<Mutex<LedgerReader>>);

/// What is known of an image.
#[derive(Debug)]
pub(super) struct KnownImage {
    pub(super) facts: SystemFacts,
    /// The facts and the image's configuration, byte for byte as they were recorded.
    pub(super) evidence: Vec<Evidence>,
    /// Where they come from, for the record.
    pub(super) note: String,
}

impl Known {
    /// What this ledger says; nothing where it can't be opened a second time.
    pub(crate) fn of(ledger: &LedgerReader) -> Self {
        let reader = LedgerReader::open(ledger.path());
        if let Err(error) = &reader {
            tracing::debug!(error = %error, "images are read again, whatever the ledger knows of them");
        }
        Self(reader.ok().map(Mutex::new))
    }

    /// The image of this manifest, if its facts were collected by the same collector and are whole in the ledger. Whatever is
    /// not as it should be only means that the image is read again.
    pub(super) fn image(&self, manifest: &Digest) -> Option<KnownImage> {
        // A panic elsewhere leaves the connection as it was.
        let reader = self.0.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        match tokio::task::block_in_place(|| find(&reader, manifest)) {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(error = %error, %manifest, "the image is read again");
                None
            }
        }
    }
}

fn find(reader: &LedgerReader, manifest: &Digest) -> Result<Option<KnownImage>, LedgerError> {
    let Some(record) = reader.newest_resting_on(manifest)? else { return Ok(None) };
    let kept = |name: &str| -> Result<Option<Vec<u8>>, LedgerError> {
        match record.evidence.iter().find(|evidence| evidence.name == name) {
            Some(evidence) => reader.evidence(&evidence.digest),
            None => Ok(None),
        }
    };
    let (Some(facts), Some(config)) = (kept("facts")?, kept(CONFIG_NAME)?) else { return Ok(None) };
    let Ok(parsed) = serde_json::from_slice::<SystemFacts>(&facts) else { return Ok(None) };
    // Another version may read a layer otherwise, be it only that it has a fault less.
    if parsed.collector != COLLECTOR || record.provenance.gapscan != env!("CARGO_PKG_VERSION") {
        return Ok(None);
    }
    let evidence = vec![Evidence::new("facts", "application/json", facts), Evidence::new(CONFIG_NAME, CONFIG, config)];
    Ok(Some(KnownImage { facts: parsed, evidence, note: note(&record) }))
}

fn note(record: &TaskRecord) -> String {
    format!(
        "its layers were not read again: they were by run {}, for `{}`, at {}, and its manifest has the same digest",
        record.run,
        brief(&record.target.key()),
        record.provenance.finished
    )
}
