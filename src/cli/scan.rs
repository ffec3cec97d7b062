//! `gapscan scan`: once, now.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use jiff::Timestamp;

use super::access::{AccessArgs, REGISTRY};
use super::egress::granted;
use super::table::Format;
use super::{explanation, signal, summary};
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::Span;
use crate::base::text::printable;
use crate::cluster::access::node::Toleration;
use crate::ledger::{Ledger, LedgerReader};
use crate::model::access::Way;
use crate::model::control::Severity;
use crate::model::outcome::Status;
use crate::model::record::Trigger;
use crate::model::scanner::{BUILTIN, EgressGrant};
use crate::model::target::{Target, TargetSpec};
use crate::registry::Reference;
use crate::stage::plan::{
    Access, ClusterAccess, NodePolicy, Plan, Policy, ResultsPolicy, Selection, TargetPrograms, Transport, Unenforced,
};
use crate::stage::scan::{ResumeRequest, RunSummary, ScanError, ScanRequest, Stopping, explain, resume, scan};
use crate::trust::remembered::OnLoss;

/// Scan targets once, now, and record every result in the ledger
///
/// A TARGET is host, cluster, node/NAME, image/REF, pod/NS/NAME[/CONTAINER] or ns/NAME. The ledger is made if it is not
/// there.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// What is scanned
    #[arg(value_name = "TARGET")]
    targets: Vec<TargetSpec>,
    /// All scans of this plan, once, with what the plan says; --ledger counts where it names none
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with_all = [
        "targets", "all", "nodes", "selector", "engine", "profile", "bundle", "registry", "root", "state", "ca", "username",
        "token_host", "plain_http", "unenforced_network", "approach", "target_programs", "scanner_egress", "tolerate", "database_max_age", "parallel", "upload_address",
    ])]
    file: Option<PathBuf>,
    /// The objects of the cluster, every container, and every image that runs
    #[arg(long)]
    all: bool,
    /// Every node of the cluster, which --all does not include
    #[arg(long)]
    nodes: bool,
    /// Every container of the pods with these labels, in all namespaces
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// builtin, a scanner of the bundle, or all; can be given several times
    #[arg(short, long, value_name = "NAME", default_values_t = [BUILTIN.to_owned()])]
    engine: Vec<String>,
    /// Only this profile; can be given several times
    #[arg(short, long, value_name = "NAME")]
    profile: Vec<String>,
    #[command(flatten)]
    access: AccessArgs,
    /// Go on where the folder of --state was lost: what the ledger has results of counts as seen. Load all bundles with
    /// revocations again, which the ledger does not know
    #[arg(long, help_heading = REGISTRY)]
    state_from_ledger: bool,
    /// What happens where network policies are not proven to be enforced
    #[arg(long, value_enum, value_name = "ACTION", help_heading = "Cluster", default_value_t = Unenforced::Refuse)]
    unenforced_network: Unenforced,
    /// The ways in which a container may be reached, those that are tried first in front: exec, debug, sidecar, image
    #[arg(long, value_enum, value_name = "WAYS", value_delimiter = ',', help_heading = "Cluster",
          default_values_t = Policy::default().approaches)]
    approach: Vec<Way>,
    /// Whether a program that a container has itself may judge it, where a scanner's definition says so. No bundle has its digest
    #[arg(long, value_enum, value_name = "ACTION", help_heading = "Cluster", default_value_t = TargetPrograms::Refuse)]
    target_programs: TargetPrograms,
    /// A service that a scanner may talk to, as SCANNER/NAME=NAMESPACE/SERVICE:PORT, where NAME is what its definition calls it; can
    /// be given several times
    #[arg(long, value_name = "EGRESS", help_heading = "Cluster")]
    scanner_egress: Vec<EgressGrant>,
    /// Taints that do not keep a scan off a node: all, or KEY[=VALUE][:EFFECT]; can be given several times. Without it a
    /// node that is tainted or cordoned is not evaluated
    #[arg(long, value_name = "TAINT", help_heading = "Cluster")]
    tolerate: Vec<Toleration>,
    /// Let scanners in pods of their own send their results to this address, at which they reach this machine, instead of
    /// fetching them by a command in the pod
    #[arg(long, value_name = "HOST:PORT", help_heading = "Cluster")]
    upload_address: Option<String>,
    /// How old a database may be where the bundle does not say
    #[arg(long, value_name = "SPAN", default_value_t = Policy::default().database_max_age)]
    database_max_age: Span,
    /// How many targets are scanned at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    parallel: u8,
    /// Go on with the newest run whose runner died: what has a result keeps it, the rest is scanned if it still is what was
    /// meant. What is scanned, the ledger says; everything else has to be given as it was then
    #[arg(long, conflicts_with_all = ["targets", "all", "nodes", "selector", "engine", "profile", "explain"])]
    resume: bool,
    /// Say how each target would be reached, and why so; nothing is scanned
    #[arg(long)]
    explain: bool,
    /// End with exit code 1 if a control of this severity or above failed
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = FailOn::Any)]
    fail_on: FailOn,
    /// How to print the summary
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
    /// Show no progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

/// From which severity on a failed control gives exit code 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FailOn {
    /// Any failed control
    Any,
    /// Low or above
    Low,
    /// Medium or above
    Medium,
    /// High or above
    High,
    /// Critical
    Critical,
    /// A failed control does not change the exit code
    Never,
}

impl FailOn {
    fn counts(self, severity: Severity) -> bool {
        match self {
            Self::Any => true,
            Self::Low => severity >= Severity::Low,
            Self::Medium => severity >= Severity::Medium,
            Self::High => severity >= Severity::High,
            Self::Critical => severity >= Severity::Critical,
            Self::Never => false,
        }
    }
}

impl Args {
    pub(crate) async fn run(self) -> Outcome {
        let progress = if self.quiet { Progress::quiet() } else { Progress::stderr() };
        let stop = signal::stop_on_signals(progress.clone())?;
        let (access, requests) = self.requests()?;
        let mut ledger = Ledger::open(&access.ledger, Timestamp::now())?;
        if self.explain {
            let mut explanations = Vec::new();
            for request in requests {
                explanations.extend(explain(request, &mut ledger).await?);
            }
            return explanation::print(&explanations, self.output);
        }
        if self.resume {
            let Some(ScanRequest { access, policy, on_loss, .. }) = requests.into_iter().next() else {
                return Err(Failure::usage("resume a run: the plan has no scan"));
            };
            let request = ResumeRequest { access: access.clone(), policy, on_loss };
            let summary = resume(request, &mut ledger, stop, &progress).await?;
            summary::print(std::slice::from_ref(&summary), self.output)?;
            return self.class(&summary, &ledger);
        }
        let mut worst = ExitClass::Success;
        let mut summaries = Vec::new();
        let mut failure: Option<Failure> = None;
        for request in requests {
            if *stop.borrow() != Stopping::No {
                progress.say("told to stop: the scans that are left are not started");
                worst = ExitClass::NotEvaluated;
                break;
            }
            let summary = match scan(request, &mut ledger, stop.clone(), &progress).await {
                Ok(summary) => summary,
                Err(error @ ScanError::Ledger(_)) => return Err(error.into()),
                // The other scans of the plan take place all the same.
                Err(error) => {
                    if let Some(earlier) = failure.replace(error.into()) {
                        eprintln!("gapscan: failed to {earlier}");
                    }
                    continue;
                }
            };
            let class = self.class(&summary, &ledger)?;
            summaries.push(summary);
            worst = worse(worst, class);
        }
        // Where nothing ran, an empty list would look like a scan that found nothing.
        if !summaries.is_empty() {
            summary::print(&summaries, self.output)?;
        }
        if !summaries.is_empty() && !self.quiet {
            eprintln!("{}", printable(&format!("details: gapscan results -L {}", access.ledger.display())));
        }
        match failure {
            Some(failure) => Err(failure),
            None => Ok(worst),
        }
    }

    fn requests(&self) -> Result<(Access, Vec<ScanRequest>), Failure> {
        let of_image = |reference: &String| reference.parse::<Reference>().ok().map(|r| r.registry.to_string());
        let images = self.targets.iter().filter_map(|t| match t {
            TargetSpec::Image(reference) => of_image(reference),
            _ => None,
        });
        // Those of a run that is resumed are named in the ledger.
        let resumed = if self.resume { self.unfinished_targets()? } else { Vec::new() };
        let resumed = resumed.iter().filter_map(|target| match target {
            Target::Image { reference, .. } => of_image(reference),
            _ => None,
        });
        let mut access = self.access.access(images.chain(resumed));
        let on_loss = if self.state_from_ledger { OnLoss::Adopt } else { OnLoss::Refuse };
        let Some(file) = &self.file else {
            let selection = Selection {
                targets: self.targets.clone(),
                all: self.all,
                nodes: self.nodes,
                selector: self.selector.clone(),
                engines: self.engine.clone(),
                profiles: self.profile.clone(),
            };
            if selection.words().is_empty() && !self.resume {
                return Err(Failure::usage("scan: no target is named")
                    .with_remedy("name a target, as `gapscan scan host`, or use --all, --nodes, -l or -f"));
            }
            let unusable: Vec<String> = selection.unusable().collect();
            if !unusable.is_empty() {
                return Err(Failure::usage(format!("scan {}", unusable.join("; "))));
            }
            let parallel = NonZeroUsize::new(usize::from(self.parallel)).unwrap_or(NonZeroUsize::MIN);
            let policy = Policy {
                unenforced_network: self.unenforced_network,
                approaches: self.approach.clone(),
                target_programs: self.target_programs,
                scanner_egress: granted(&self.scanner_egress)?,
                node: NodePolicy { tolerate: self.tolerate.clone() },
                database_max_age: self.database_max_age,
                results: match &self.upload_address {
                    Some(address) => ResultsPolicy { transport: Transport::Upload, address: Some(address.clone()) },
                    None => ResultsPolicy::default(),
                },
                parallel: usize::from(self.parallel),
                // Who says how many means all of them, on however few nodes.
                per_node: parallel,
                per_workload: parallel,
                ..Policy::default()
            };
            let request = ScanRequest { trigger: Trigger::Manual, selection, access: access.clone(), policy, on_loss };
            return Ok((access, vec![request]));
        };
        let plan = Plan::load(file, &Limits::default())?;
        access = plan_access(&plan, access);
        let request = |selection: &Selection| ScanRequest {
            trigger: Trigger::Manual,
            selection: selection.clone(),
            access: access.clone(),
            policy: plan.policy.clone(),
            on_loss,
        };
        let requests = plan.scans.iter().map(|s| request(&s.selection)).collect();
        Ok((access, requests))
    }

    /// The targets of the newest run that has no end, which `--resume` goes on with.
    fn unfinished_targets(&self) -> Result<Vec<Target>, Failure> {
        let path = &self.access.ledger.path;
        if !path.exists() {
            return Ok(Vec::new());
        }
        let newest = LedgerReader::open(path)?.unfinished_runs()?.into_iter().rfind(|(start, _)| start.is_scan());
        Ok(newest.into_iter().flat_map(|(start, _)| start.expected).map(|task| task.target).collect())
    }

    /// How the process ends because of this run. What was not evaluated counts before what failed, and waivers that do not
    /// count before both.
    fn class(&self, summary: &RunSummary, ledger: &Ledger) -> Result<ExitClass, Failure> {
        // Whoever accepted a failure must learn that this did not count.
        if summary.waivers_refused > 0 {
            return Ok(ExitClass::Refused);
        }
        if !summary.coverage.is_complete() {
            return Ok(ExitClass::NotEvaluated);
        }
        for task in &summary.tasks {
            let profile = ledger.profile(&task.profile.digest)?;
            for finding in task.with_status(Status::Failed) {
                let severity = profile.as_ref().and_then(|p| p.control(&finding.control)).map(|c| c.severity);
                // A severity that can't be known counts as the worst.
                if self.fail_on.counts(severity.unwrap_or(Severity::Critical)) {
                    return Ok(ExitClass::ThresholdNotMet);
                }
            }
        }
        Ok(ExitClass::Success)
    }
}

/// The class that counts of two: waivers that were refused before what was not evaluated, that before what failed, and that
/// before success.
fn worse(one: ExitClass, other: ExitClass) -> ExitClass {
    match (one, other) {
        (_, class @ ExitClass::Refused) | (ExitClass::Success, class) => class,
        (ExitClass::ThresholdNotMet, class @ ExitClass::NotEvaluated) => class,
        (worst, _) => worst,
    }
}

/// What a plan reaches; where it does not say, the arguments do.
pub(crate) fn plan_access(plan: &Plan, arguments: Access) -> Access {
    Access {
        ledger: plan.ledger.clone().unwrap_or(arguments.ledger),
        cluster: ClusterAccess {
            kubeconfig: plan.cluster.kubeconfig.clone().or(arguments.cluster.kubeconfig),
            context: plan.cluster.context.clone().or(arguments.cluster.context),
            pull_config_file: plan.cluster.pull_config_file.clone().or(arguments.cluster.pull_config_file),
        },
        bundle: plan.bundle.clone(),
        registries: plan.registries.clone(),
        inputs: plan.inputs.clone(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_a_plan_says_is_not_overruled_by_an_option_that_is_then_ignored() {
        let read = |words: &[&str]| Command::try_parse_from([&["scan", "-f", "plan.yaml"], words].concat());
        for words in [
            &["--database-max-age", "1d"][..],
            &["--parallel", "1"],
            &["--unenforced-network", "refuse"],
            &["--registry", "registry.example"],
            &["--root", "root.json"],
            &["--plain-http"],
            &["--ca", "ca.pem"],
            &["--engine", "all"],
            &["host"],
        ] {
            assert!(read(words).is_err(), "{words:?}");
        }
        let counted = read(&["--fail-on", "high", "--kubeconfig", "k", "--ledger", "l"]);
        assert!(counted.is_ok_and(|command| command.args.fail_on == FailOn::High));
    }

    #[test]
    fn what_was_not_evaluated_counts_before_what_failed() {
        use ExitClass::{NotEvaluated, Refused, Success, ThresholdNotMet};
        for (one, other, worst) in [
            (Success, Success, Success),
            (Success, ThresholdNotMet, ThresholdNotMet),
            (ThresholdNotMet, Success, ThresholdNotMet),
            (ThresholdNotMet, NotEvaluated, NotEvaluated),
            (NotEvaluated, ThresholdNotMet, NotEvaluated),
            (NotEvaluated, Success, NotEvaluated),
            (NotEvaluated, Refused, Refused),
            (Refused, NotEvaluated, Refused),
            (Refused, Success, Refused),
            (Success, Refused, Refused),
        ] {
            assert_eq!(worse(one, other), worst);
        }
    }

    #[test]
    fn a_severity_counts_from_its_own_step_on() {
        assert!(FailOn::High.counts(Severity::Critical) && FailOn::High.counts(Severity::High));
        assert!(!FailOn::High.counts(Severity::Medium) && FailOn::Any.counts(Severity::None));
        assert!(!FailOn::Never.counts(Severity::Critical));
    }
}
