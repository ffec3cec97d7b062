//! By the scanner beside a copy of its target.

use super::{Left, Seen, judge, needed, parameters, scanning};
use crate::cluster::access::sidecar::{Likeness, scan_copy};
use crate::model::finding::Finding;
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::model::scanner::is_own_control;
use crate::stage::scan::container::{OF_A_COPY, Ways, session};
use crate::stage::scan::content::External;
use crate::stage::scan::network::Allowance;
use crate::stage::scan::unit::{Context, NotDone, Reached, Task};

/// Which verdicts rest on what a copy has not, a scanner does not say.
const WHICH: &str = "the scanner does not say which of its verdicts rest on processes or sockets, which are the copy's and not \
     the container's; where mounts or configuration were left out too, what passed is not evaluated";

/// Why it is not known whether all of the container was read.
const LEFT_OUT: &str =
    "what is mounted in the container, or what its variables bring, was left out of the copy that was judged";

pub(super) async fn of_container(
    reached: &mut Reached,
    ways: &Ways,
    tasks: &[Task],
    external: &External,
    context: &Context,
) -> Result<(), NotDone> {
    let approach = needed(external.scanner.approaches.sidecar.as_ref(), "containers by sidecar")?;
    let target = reached.target.clone();
    let (session, network) = session(context)?;
    reached.network = Some(network);
    let home = session.for_copies().await?;
    let image = ways.facts.image.as_deref();
    let parameters = parameters(external, &target);
    let scanning = scanning(external, approach, parameters, (image, None), (session, context)).await?;
    let report = Box::pin(scan_copy(&session.cluster, home, &target, &scanning)).await;
    reached.identity = report.identity;
    reached.cleanup = Some(report.cleanup);
    reached.notes.extend([OF_A_COPY, WHICH].map(str::to_owned));
    reached.notes.extend(report.notes);
    let scanned = report.outcome.map_err(|error| NotDone::because(error.reason(), &error))?;
    let unreadable = scanned.output.unreadable.clone();
    let all_read = unreadable.is_none();
    let seen = match scanned.copy.files {
        Likeness::Different if all_read => Seen::Unknown(LEFT_OUT),
        Likeness::Same | Likeness::Different => Seen::Looked(unreadable),
    };
    let left = Left { output: scanned.output, allowance: Allowance::NOBODY, seen };
    judge(reached, tasks, external, context, left)?;
    if let (Likeness::Different, Ok(verdict)) = (scanned.copy.files, &mut reached.verdict) {
        verdict.iter_mut().flatten().for_each(withhold);
    }
    Ok(())
}

/// Takes back a pass that may rest on what the copy has not. A failure in the copy stays one: what is wrong there came from
/// the container's image.
fn withhold(finding: &mut Finding) {
    if finding.outcome == Outcome::Passed && !is_own_control(&finding.control) {
        finding.outcome = Outcome::not_evaluated(Reason::FactMissing, format!("it passed in a copy; {LEFT_OUT}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::outcome::Status;
    use crate::model::scanner::SILENT_CONTROL;

    #[test]
    fn what_passes_only_in_a_copy_is_no_pass() {
        let after = |control: &str, outcome: Outcome| {
            let mut finding = Finding::new(control, outcome);
            withhold(&mut finding);
            finding.outcome.status()
        };
        assert_eq!(after("x", Outcome::Passed), Status::NotEvaluated);
        assert_eq!(after("x", Outcome::Failed), Status::Failed);
        assert_eq!(after(SILENT_CONTROL, Outcome::Passed), Status::Passed, "it is about the scanner");
    }
}
