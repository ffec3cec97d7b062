//! Where results are taken by upload, for one run: opened before anything runs, closed when all is over.

use std::net::{IpAddr, SocketAddr};
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
    let at = match literal(address) {
        Some(at) => at,
        None => look_up(address).await.map_err(unusable)?,
    };
    let opened = Uploads::open(at).await;
    opened.map(Some).map_err(|error| unusable(super::error::chain(&error)))
}

/// What is an address and a port already. One of IPv6 may come without its brackets, as a pod's own does in its environment: the
/// port is what follows the last colon.
fn literal(address: &str) -> Option<SocketAddr> {
    let (ip, port) = address.rsplit_once(':')?;
    let ip = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    Some(SocketAddr::new(ip.parse::<IpAddr>().ok()?, port.parse().ok()?))
}

/// The first address of a name. Pods have no names of others: what they call is an address.
async fn look_up(name: &str) -> Result<SocketAddr, String> {
    match tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(name)).await {
        Ok(Ok(mut found)) => found.next().ok_or_else(|| "it means no address".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("looking it up took longer than {} s", LOOK_UP.as_secs())),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_either_family_is_taken_as_a_pod_knows_it() {
        let written = |text| literal(text).map(|at| at.to_string());
        assert_eq!(written("10.0.0.7:9465").as_deref(), Some("10.0.0.7:9465"));
        assert_eq!(written("[fd00::7]:9465").as_deref(), Some("[fd00::7]:9465"));
        assert_eq!(written("fd00::7:9465").as_deref(), Some("[fd00::7]:9465"));
        for text in ["runner:9465", "10.0.0.7", ":9465", "10.0.0.7:", "10.0.0.7:70000", "$(POD_IP):9465"] {
            assert_eq!(written(text), None, "{text}");
        }
    }
}
