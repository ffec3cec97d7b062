//! `gapscan doctor`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::access::AccessArgs;
use super::table::{self, Format, Table};
use crate::base::exit::Outcome;
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::Span;
use crate::stage::doctor::check::{Report, State, Warnings};
use crate::stage::doctor::run::{Canary, DoctorRequest, Push, doctor};
use crate::stage::plan::{Access, Plan, Policy};

/// See what this cluster, registry and identity can and can't do, before anything runs
///
/// Nothing is changed, but for what --canary and --push make and take back. What can't be found out is unknown, which is
/// never ok; what was not asked for is listed. Exits with 0 where all is ok or a warning, and with that of the worst else: 6
/// the ledger, 4 what must not be trusted, 2 configuration, 5 what can't be reached, 3 what is missing, left over or unknown.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Look at what this plan names, instead of what the options below do
    #[arg(short = 'f', long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    access: AccessArgs,
    /// Tell what expires sooner than this
    #[arg(long, value_name = "TIME", default_value = "30d")]
    near: Span,
    /// Let the canary run in the cluster, in a namespace that is removed again; needs a bundle
    #[arg(long)]
    canary: bool,
    /// See whether content may be pushed, by an upload that is opened and taken back
    #[arg(long)]
    push: bool,
    /// Exit with 1 where there are warnings and nothing worse
    #[arg(long)]
    strict: bool,
    /// How to print
    #[arg(short = 'o', long = "output", value_enum, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

impl Args {
    pub(super) async fn run(self) -> Outcome {
        let (access, policy) = match &self.file {
            Some(path) => {
                let plan = Plan::load(path, &Limits::default())?;
                let access = Access {
                    ledger: plan.ledger.clone().unwrap_or_else(|| self.access.ledger.path.clone()),
                    cluster: plan.cluster.clone(),
                    bundle: plan.bundle.clone(),
                    registries: plan.registries.clone(),
                    inputs: plan.inputs.clone(),
                };
                (access, plan.policy)
            }
            None => (self.access.access(std::iter::empty()), Policy::default()),
        };
        let request = DoctorRequest {
            access,
            policy,
            near: self.near,
            canary: if self.canary { Canary::Run } else { Canary::Not },
            push: if self.push { Push::Try } else { Push::Not },
        };
        let report = doctor(request, &Progress::stderr()).await;
        match self.format {
            Format::Json => table::emit_json(&report)?,
            Format::Table => table::emit(&text(&report))?,
        }
        Ok(report.class(if self.strict { Warnings::Count } else { Warnings::Shown }))
    }
}

fn text(report: &Report) -> String {
    let mut table = Table::new(&["STATE", "CHECK", "WHAT"]);
    for check in &report.checks {
        let mut what = format!("{}: {}", check.subject, check.detail);
        if let Some(remedy) = &check.remedy {
            what.push_str(&format!("\n-> {remedy}"));
        }
        table.row([check.state.word().to_owned(), check.name.to_owned(), what]);
    }
    let mut text = table.render(0);
    if !report.not_looked_at.is_empty() {
        text.push_str("\nNot looked at:\n");
        for omitted in &report.not_looked_at {
            text.push_str(&table::paragraph(2, &format!("{}: {}", omitted.what, omitted.why)));
        }
    }
    let count = |state: State| format!("{} {}", report.count(state), state.word());
    let counts = [State::Ok, State::Warn, State::Bad, State::Unknown].map(count).join(", ");
    text.push_str(&format!("\n{counts}\n"));
    text
}
