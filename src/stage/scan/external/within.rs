//! By a program that the target has itself: looked for before anything is delivered, asked how old it is, and never vouched for.

use std::error::Error;

use super::Reached;
use crate::cluster::access::exec::Place;
use crate::cluster::access::in_target::{self, Tidied};
use crate::cluster::agent::in_target::GuestFailure;
use crate::cluster::agent::protocol::{Asked, ExitStatus};
use crate::cluster::error::ClusterError;
use crate::cluster::identity::ScannerIdentity;
use crate::cluster::job::JobOutput;
use crate::model::provenance::Cleanup;
use crate::model::reason::Reason;
use crate::model::scanner::{InTarget, NOT_DONE, is_at_least};
use crate::stage::scan::content::External;
use crate::stage::scan::unit::NotDone;

/// Why nobody knows whether the scanner kept to itself.
const ITS_NETWORK: &str = "the program ran in the target, whose network is not looked at";

/// Sees that the target has the program, and that it is not too old; gives what it answered. The record says from then on that the
/// program is the target's own.
pub(super) async fn look(
    reached: &mut Reached,
    identity: &ScannerIdentity,
    place: &Place<'_>,
    external: &External,
    guest: InTarget<'_>,
) -> Result<Asked, NotDone> {
    let failed = |error: ClusterError| NotDone::because(error.reason(), &error);
    if let Some(engine) = &mut reached.engine {
        // The image of the bundle has the content; it is not what judges.
        engine.image = None;
    }
    let command = external.scanner.approaches.exec.iter().flat_map(|exec| exec.command.first());
    let program = command.map(String::as_str).next().unwrap_or_default();
    let found = in_target::find(identity.cluster(), place, program).await.map_err(failed)?;
    let Some(path) = found else {
        let detail = format!("the container has no `{program}`, which the scanner's definition runs in it");
        return Err(NotDone::new(Reason::ToolMissing, detail));
    };
    let Some(question) = &external.scanner.version else {
        reached.notes.push(vouched_by_nobody(&path));
        return Ok(Asked::Unanswered { detail: "nothing says how it is asked".to_owned() });
    };
    let printed = in_target::ask(identity.cluster(), place, &question.command).await.map_err(failed)?;
    if let Some(oldest) = guest.oldest {
        recent(question.find(&printed).as_deref(), oldest, program)?;
    }
    reached.notes.push(vouched_by_nobody(&path));
    Ok(Asked::Answered { printed })
}

/// What is to be said where such a program was run, whatever came of it: another way may be taken after this one.
fn vouched_by_nobody(path: &str) -> String {
    format!(
        "by exec it is the target's own program that judges, `{path}`: no bundle has its digest, and nobody vouches for what it says"
    )
}

/// Whether a program of this version counts.
fn recent(version: Option<&str>, oldest: &str, program: &str) -> Result<(), NotDone> {
    let why = match version.map(|version| (version, is_at_least(version, oldest))) {
        Some((_, Some(true))) => return Ok(()),
        Some((version, Some(false))) => format!("the container's `{program}` is {version}"),
        Some((version, None)) => format!("the container's `{program}` says `{version}`, which is no version"),
        None => format!("the container's `{program}` does not say which version it is"),
    };
    let detail = format!("{why}, and the scanner's definition asks for {oldest} or newer");
    Err(NotDone::new(Reason::ToolMissing, detail))
}

/// What became of the program, where it was not run or left nothing whole; and that its network was not seen.
pub(super) fn take(output: &mut JobOutput) -> Result<(), NotDone> {
    output.sockets.unseen.get_or_insert_with(|| ITS_NETWORK.to_owned());
    match output.exit {
        ExitStatus::Exited { code: NOT_DONE } => Err(match GuestFailure::read(&output.stderr_tail) {
            Some(failure) => NotDone::new(failure.reason, failure.detail),
            None => {
                NotDone::new(Reason::ScannerFailed, "the program in the container was not run, and nothing says why")
            }
        }),
        _ => Ok(()),
    }
}

/// Records what became of the folder that was made in the target.
pub(super) fn account(reached: &mut Reached, place: &Place<'_>, word: &str, found: Result<Tidied, ClusterError>) {
    let Place { namespace, pod, container, .. } = place;
    let folder = format!("folder/{namespace}/{pod}/{container}/gapscan-{word}");
    let cleanup = reached.cleanup.get_or_insert_with(|| Cleanup { created: Vec::new(), remaining: Vec::new() });
    cleanup.created.push(folder.clone());
    match found {
        Ok(Tidied { removed, left }) => {
            if !removed.is_empty() {
                let folders = removed.join(", ");
                reached
                    .notes
                    .push(format!("what was delivered was still in the container and had to be removed: {folders}"));
            }
            if !left.is_empty() {
                cleanup.remaining.push(folder);
                reached
                    .notes
                    .push(format!("what was delivered could not be removed from the container: {}", left.join(", ")));
            }
        }
        // With the pod went what was in it.
        Err(ClusterError::TargetGone { .. }) => {}
        Err(error) => {
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            cleanup.remaining.push(folder);
            reached
                .notes
                .push(format!("whether what was delivered is gone from the container is not known: {error}{source}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::provenance::Approach;
    use crate::model::target::Target;

    fn reached() -> Reached {
        let target = Target::Host { name: "a".to_owned() };
        Reached::nothing(target, Approach::Exec, NotDone::new(Reason::InternalError, "not scanned"))
    }

    #[test]
    fn only_a_program_that_says_that_it_is_new_enough_counts() {
        assert!(recent(Some("1.3.7"), "1.3.0", "oscap").is_ok());
        for (version, said) in
            [(Some("1.2.16"), "is 1.2.16, and"), (Some("x"), "says `x`"), (None, "does not say which version")]
        {
            let why = recent(version, "1.3.0", "oscap").expect_err("it does not count");
            assert_eq!(why.reason, Reason::ToolMissing);
            assert!(why.detail.contains(said), "{}", why.detail);
        }
    }

    #[test]
    fn a_folder_that_was_not_seen_to_be_gone_remains() {
        let place = Place { namespace: "shop", pod: "web", container: "web", uid: None };
        let after = |found: Result<Tidied, ClusterError>| {
            let mut reached = reached();
            account(&mut reached, &place, "w", found);
            let cleanup = reached.cleanup.expect("it is accounted for");
            assert_eq!(cleanup.created, ["folder/shop/web/web/gapscan-w"]);
            (cleanup.remaining.len(), reached.notes.len())
        };
        let gone = || ClusterError::TargetGone { target: "pod/shop/web/web".to_owned() };
        let broken = ClusterError::ExecBroken { target: "pod/shop/web/web".to_owned(), message: "cut".to_owned() };
        assert_eq!(after(Ok(Tidied::default())), (0, 0));
        assert_eq!(after(Ok(Tidied { removed: vec!["/tmp/x".to_owned()], left: Vec::new() })), (0, 1));
        assert_eq!(after(Ok(Tidied { removed: Vec::new(), left: vec!["/tmp/x".to_owned()] })), (1, 1));
        assert_eq!(after(Err(gone())), (0, 0));
        assert_eq!(after(Err(broken)), (1, 1));
    }
}
