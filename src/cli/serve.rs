//! `gapscan serve`: by schedule, until told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use jiff::Timestamp;

use super::access::LedgerPath;
use crate::base::exit::{ExitClass, Outcome};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::ledger::Ledger;
use crate::stage::plan::{Access, Plan, ResultsPolicy, Transport};
use crate::stage::serve::endpoint::{self, Endpoint};
use crate::stage::serve::falco::{Intake, rules};
use crate::stage::serve::{Pulse, serve_with};

/// Run the scans of a plan by their schedules, until told to stop
///
/// SIGTERM or SIGINT drains: nothing new is started, what runs is ended and recorded; a second one ends what runs at once.
/// The ledger of --ledger counts where the plan names none.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The plan
    #[arg(short = 'f', long, value_name = "FILE", default_value = "plan.yaml")]
    file: PathBuf,
    #[command(flatten)]
    ledger: LedgerPath,
    /// Answer /healthz, /readyz and /metrics here; without a certificate by HTTP
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// The certificate chain (PEM) to answer with, read again when it changes
    #[arg(long, value_name = "FILE", requires_all = ["tls_key", "listen"])]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let scanners in pods of their own send their results to this address, at which they reach this machine, whatever the plan
    /// says of it
    #[arg(long, value_name = "HOST:PORT")]
    upload_address: Option<String>,
    /// Ask who answers at --listen for this path instead of serving, and exit with 5 if all is not well: for a probe by exec,
    /// where nothing may connect
    #[arg(long, value_name = "PATH", requires = "listen", conflicts_with_all = ["tls_cert", "upload_address"])]
    ask: Option<String>,
}

impl Args {
    pub(crate) async fn run(self) -> Outcome {
        if let (Some(path), Some(address)) = (&self.ask, self.listen) {
            endpoint::ask(address, path)?;
            return Ok(ExitClass::Success);
        }
        let progress = Progress::stderr();
        let stop = super::signal::stop_on_signals(progress.clone())?;
        let mut plan = Plan::load(&self.file, &Limits::default())?;
        if let Some(address) = self.upload_address {
            plan.policy.results = ResultsPolicy { transport: Transport::Upload, address: Some(address) };
        }
        let access = Access {
            ledger: plan.ledger.clone().unwrap_or(self.ledger.path),
            cluster: plan.cluster.clone(),
            bundle: plan.bundle.clone(),
            registries: plan.registries.clone(),
            inputs: plan.inputs.clone(),
        };
        let mut ledger = Ledger::open(&access.ledger, Timestamp::now())?;
        let intake = match &plan.falco {
            Some(falco) => {
                let profile = rules(falco, &access, &mut ledger, &progress).await?;
                let intake = Intake::open(falco, profile, &ledger).await?;
                progress.say(format!("takes Falco's alerts at https://{}/alerts", intake.address()));
                Some(intake)
            }
            None => None,
        };
        let pulse = Pulse::new(Timestamp::now());
        let endpoint = match self.listen {
            Some(address) => {
                let tls = self.tls_cert.zip(self.tls_key);
                let scheme = if tls.is_some() { "https" } else { "http" };
                let open = Endpoint::open(address, tls, plan.clone(), access.ledger.clone(), pulse.clone()).await?;
                // For scripts: with port 0 only this says where.
                println!("{scheme}://{}", open.address());
                Some(open)
            }
            None => None,
        };
        let served = serve_with(&plan, &access, &mut ledger, stop, &progress, &pulse, intake.as_ref()).await;
        let recorded = match intake {
            Some(intake) => intake.close(&mut ledger, &progress).await,
            None => Ok(()),
        };
        if let Some(endpoint) = endpoint {
            endpoint.close().await;
        }
        served?;
        recorded?;
        Ok(ExitClass::Success)
    }
}
