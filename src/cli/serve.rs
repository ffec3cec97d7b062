//! `gapscan serve`: by schedule, until told to stop.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use jiff::Timestamp;

use super::access::LedgerPath;
use crate::base::exit::{ExitClass, Outcome};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::ledger::Ledger;
use crate::stage::plan::{Access, Plan};
use crate::stage::serve::serve;

/// Run the scans of a plan by their schedules, until told to stop
///
/// SIGTERM or SIGINT drains: nothing new is started, what runs is ended and recorded; a second one ends what runs at once.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The plan
    #[arg(short = 'f', long, value_name = "FILE", default_value = "plan.yaml")]
    file: PathBuf,
    #[command(flatten)]
    ledger: LedgerPath,
}

impl Args {
    pub(crate) async fn run(self) -> Outcome {
        let progress = Progress::stderr();
        let stop = super::signal::stop_on_signals(progress.clone())?;
        let plan = Plan::load(&self.file, &Limits::default())?;
        let access = Access {
            ledger: plan.ledger.clone().unwrap_or(self.ledger.path),
            cluster: plan.cluster.clone(),
            bundle: plan.bundle.clone(),
            registries: plan.registries.clone(),
        };
        let mut ledger = Ledger::open(&access.ledger, Timestamp::now())?;
        serve(&plan, &access, &mut ledger, stop, &progress).await?;
        Ok(ExitClass::Success)
    }
}
