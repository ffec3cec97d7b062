//! What waivers are and would do, before anything runs: problems, approvals, ends, and the latest results that each fits.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::load::{Looked, look};
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::ledger::{LedgerError, LedgerReader};
use crate::model::outcome::Status;
use crate::model::waiver::{SOON, Standing, Waiver, WaiverDocument, changes};
use crate::stage::plan::WaiverPolicy;
use crate::trust::TrustError;
use crate::trust::approval::{Approver, approvers};

/// So many results are kept with one waiver; the others are counted.
const KEPT: usize = 1000;

/// One file of waivers.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedFile {
    /// The file.
    pub file: PathBuf,
    /// The digest of its bytes; absent where it can't be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Whether its waivers count.
    pub counts: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// The ids of the keys that approved it.
    pub approved_by: Vec<String>,
    /// How many have to.
    pub threshold: usize,
    /// The ids of keys under whose name there is a signature that does not fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signatures_that_do_not_fit: Vec<String>,
    /// The first digits of keys that signed it and are not named.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub signatures_by_others: Vec<String>,
    /// Its waivers.
    pub waivers: Vec<CheckedWaiver>,
}

/// One waiver.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckedWaiver {
    /// The waiver.
    #[serde(flatten)]
    pub waiver: Waiver,
    /// Whether it counts now, were its file approved.
    pub standing: Standing,
    /// Whether it expires soon.
    pub expires_soon: bool,
    /// The latest results that it fits; absent where there is no ledger to look into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fits: Option<Vec<Fit>>,
    /// How many more there are.
    pub more: usize,
    /// How many controls it names in the latest results that were imported or came as alerts, which no waiver changes.
    pub unchanged: usize,
}

/// A control of a result that a waiver fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fit {
    /// The target's key.
    pub target: String,
    /// The control.
    pub control: String,
    /// How it ended.
    pub outcome: Status,
}

impl CheckedFile {
    /// Whether anything of it needs attention.
    pub fn is_well(&self) -> bool {
        let is_well = |waiver: &CheckedWaiver| {
            waiver.standing == Standing::Counts && waiver.fits.as_ref().is_none_or(|fits| !fits.is_empty())
        };
        self.counts && self.waivers.iter().all(is_well)
    }
}

/// Looks at the files of this policy. Waivers are judged by the clock, or by the latest time of the ledger where that is later.
///
/// # Errors
/// When the ledger can't be read.
pub fn check(
    policy: &WaiverPolicy,
    ledger: Option<&LedgerReader>,
    limits: &Limits,
    now: Timestamp,
) -> Result<Vec<CheckedFile>, LedgerError> {
    let now = match ledger {
        Some(ledger) => now.max(ledger.last_at()?),
        None => now,
    };
    let latest = ledger.map(LedgerReader::latest).transpose()?;
    let named: Result<Vec<Approver>, TrustError> = approvers(&policy.approvers);
    let files = policy.files.iter().map(|path| {
        let Looked { path, digest, waivers, approvals, verdict } = look(path, policy, &named, limits);
        let longest = policy.max_duration.map(WaiverDocument::longest);
        let mut problems: Vec<String> = Vec::new();
        problems.extend(verdict.as_ref().err().cloned());
        // Both at once: what is corrected has to be signed again.
        problems.extend(waivers.as_ref().err().filter(|why| !problems.contains(why)).cloned());
        let waivers = waivers.unwrap_or_default().into_iter().map(|waiver| {
            let standing = waiver.standing(longest, now);
            let mut fits: Option<Vec<Fit>> = latest.as_ref().map(|records| {
                let of = |record| {
                    let record: &crate::model::record::TaskRecord = record;
                    waiver.matches(record).map(move |finding| Fit {
                        target: record.target.key(),
                        control: finding.control.clone(),
                        outcome: finding.outcome.status(),
                    })
                };
                records.iter().flat_map(of).collect()
            });
            let more = fits.as_ref().map_or(0, |fits| fits.len().saturating_sub(KEPT));
            if let Some(fits) = &mut fits {
                // What it is for first.
                fits.sort_by_key(|fit| fit.outcome);
                fits.truncate(KEPT);
            }
            let all = latest.iter().flatten();
            let unchanged = all.filter(|record| !changes(record)).map(|record| waiver.names(record).count()).sum();
            let expires_soon = standing == Standing::Counts && waiver.expires.duration_since(now) <= SOON;
            CheckedWaiver { waiver, standing, expires_soon, fits, more, unchanged }
        });
        CheckedFile {
            file: path,
            digest,
            counts: verdict.is_ok(),
            problems,
            approved_by: approvals.by,
            threshold: if policy.approvers.is_empty() { 0 } else { policy.threshold() },
            signatures_that_do_not_fit: approvals.misfits,
            signatures_by_others: approvals.strangers,
            waivers: waivers.collect(),
        }
    });
    Ok(files.collect())
}
