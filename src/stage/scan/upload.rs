//! Where results are taken by upload, for one run: opened before anything runs, closed when all is over.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;

use super::error::ScanError;
use crate::cluster::agent::upload::Uploads;
use crate::ledger::Ledger;
use crate::model::record::{Event, RunId};
use crate::stage::plan::{ResultsPolicy, Transport};

/// How long looking up the runner's name may take.
const LOOK_UP: Duration = Duration::from_secs(10);

/// Opens it, where policy says so.
///
/// # Errors
/// When the address means nothing here, or nobody can listen there.
pub(super) async fn open(policy: &ResultsPolicy) -> Result<Option<Uploads>, ScanError> {
    let address = match (policy.transport, &policy.address) {
        (Transport::Exec, _) => return Ok(None),
        (Transport::Upload, Some(address)) => address,
        (Transport::Upload, None) => {
            let why = "take results by upload: no address is named at which pods reach this machine; --upload-address or \
                       policy.results.address names it";
            return Err(ScanError::Request(why.to_owned()));
        }
    };
    let unusable = |why: String| ScanError::Request(format!("take results at `{address}`: {why}"));
    // Pods have no names of others: what they call is an address.
    let found = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(address.as_str())).await;
    let found: Option<SocketAddr> = match found {
        Ok(Ok(mut found)) => found.next(),
        Ok(Err(error)) => return Err(unusable(error.to_string())),
        Err(_) => return Err(unusable(format!("looking it up took longer than {} s", LOOK_UP.as_secs()))),
    };
    let at = found.ok_or_else(|| unusable("it means no address".to_owned()))?;
    let opened = Uploads::open(at).await;
    opened.map(Some).map_err(|error| unusable(super::error::chain(&error)))
}

/// Closes it, and records what came that was for no scan.
///
/// # Errors
/// When the ledger can't be written.
pub(super) async fn close(uploads: Option<Uploads>, run: RunId, ledger: &mut Ledger) -> Result<(), ScanError> {
    let Some(uploads) = uploads else { return Ok(()) };
    uploads.close().await;
    let strangers = uploads.strangers();
    if strangers == 0 {
        return Ok(());
    }
    let event = Event {
        at: Timestamp::now(),
        what: "upload-refused".to_owned(),
        subject: run.to_string(),
        due: None,
        detail: format!("{strangers} requests came to the place for results that were for no scan which went on"),
    };
    tokio::task::block_in_place(|| ledger.event(&event))?;
    Ok(())
}
