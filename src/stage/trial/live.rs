//! A definition on a live target: a scan like any other, into a ledger that lasts as long as the trial.

use jiff::Timestamp;
use serde::Serialize;

use crate::base::progress::Progress;
use crate::ledger::Ledger;
use crate::model::coverage::Coverage;
use crate::model::record::{Event, TaskRecord, Trigger};
use crate::model::scanner::ScannerDocument;
use crate::stage::plan::{Access, Policy, Selection};
use crate::stage::scan::{ScanError, ScanRequest, Stop, scan_by};
use crate::trust::remembered::OnLoss;

/// What is tried on which targets.
#[derive(Clone, Debug)]
pub struct LiveRequest {
    /// The definition, which is used in the place of the bundle's of its name.
    pub scanner: ScannerDocument,
    /// The targets. Engines are not looked at: it is this scanner.
    pub selection: Selection,
    /// How everything is reached. The ledger is not looked at: there is none.
    pub access: Access,
    /// What is allowed.
    pub policy: Policy,
}

/// What would be recorded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveTrial {
    /// All outcomes together.
    pub coverage: Coverage,
    /// Each record, as it would be.
    pub tasks: Vec<TaskRecord>,
    /// What happened that is of no target alone; whether all that was made is gone is among it.
    pub events: Vec<Event>,
}

impl LiveTrial {
    /// Whether all that was made for it in the cluster was seen to be gone.
    pub fn left_nothing(&self) -> bool {
        let of_cleanup = |event: &&Event| event.what.starts_with("cleanup-");
        self.events.iter().filter(of_cleanup).all(|event| event.what == "cleanup-verified")
            && self
                .tasks
                .iter()
                .all(|task| task.provenance.cleanup.as_ref().is_none_or(|made| made.remaining.is_empty()))
    }
}

/// Scans the targets by this definition, as [`scan`](crate::stage::scan::scan) does.
///
/// # Errors
/// As that.
///
/// # Cancel safety
/// As that; what is left in the cluster is removed by the next scan's sweep.
pub async fn live(request: LiveRequest, stop: Stop, progress: &Progress) -> Result<LiveTrial, ScanError> {
    let LiveRequest { scanner, mut selection, mut access, policy } = request;
    let folder = tempfile::tempdir().map_err(|error| {
        ScanError::Request(format!("make a folder in `{}`: {error}", std::env::temp_dir().display()))
    })?;
    // Versions of bundles are remembered where a scan would.
    let state = access.default_state();
    if let Some(bundle) = &mut access.bundle {
        bundle.state.get_or_insert(state);
    }
    access.ledger = folder.path().join("ledger.sqlite");
    selection.engines = vec![scanner.name.clone()];
    let mut ledger = tokio::task::block_in_place(|| Ledger::open(&access.ledger, Timestamp::now()))?;
    let request = ScanRequest { trigger: Trigger::Manual, selection, access, policy, on_loss: OnLoss::Refuse };
    let summary = scan_by(Some(&scanner), request, &mut ledger, stop, progress).await?;
    let events = tokio::task::block_in_place(|| ledger.reader().events())?;
    Ok(LiveTrial { coverage: summary.coverage, tasks: summary.tasks, events })
}
