use std::time::Duration;

use super::*;

fn receipt(receipt: &Receipt) -> Vec<u8> {
    let mut said = Vec::new();
    crate::cluster::agent::archive::tell(receipt, &mut said).expect("it is written");
    said
}

fn refused(fault: Fault) -> Vec<u8> {
    receipt(&Receipt::Refused { fault, detail: "because".to_owned() })
}

fn ended(code: Option<i32>) -> Result<ExecEnd, ClusterError> {
    Ok(ExecEnd { stderr: b"said\x1b[2J".to_vec(), code, stdout_truncated: false })
}

/// `again`, or how it ended for good.
fn came_to(ended: Result<ExecEnd, ClusterError>, said: &[u8]) -> Result<u64, (bool, Reason)> {
    outcome(ended, said).map_err(|failure| match failure {
        Failure::Source(error) => (false, error.reason),
        Failure::Final(error) => (false, error.reason()),
        Failure::Passing(error) => (true, error.reason()),
    })
}

#[test]
fn what_the_agent_says_counts_however_its_command_was_seen_to_end() {
    let whole = receipt(&Receipt::Whole { bytes: 7 });
    let broken = || ClusterError::ExecBroken { target: "x".to_owned(), message: "closed".to_owned() };
    for end in [ended(Some(0)), ended(Some(137)), ended(None), Err(broken())] {
        assert_eq!(came_to(end, &whole), Ok(7));
    }
    for cut in 0..whole.len() {
        assert_eq!(came_to(ended(Some(0)), &whole[..cut]), Err((true, Reason::ScannerNotStarted)), "{cut}");
    }
    assert_eq!(came_to(Err(broken()), b""), Err((true, Reason::CollectorFailed)));
}

#[test]
fn another_attempt_is_made_only_where_it_may_do_better() {
    for (fault, again) in [
        (Fault::Cut, true),
        (Fault::Stalled, true),
        (Fault::Mismatch, true),
        (Fault::Malformed, false),
        (Fault::TooLarge, false),
        (Fault::NotWritten, false),
    ] {
        assert_eq!(came_to(ended(Some(0)), &refused(fault)), Err((again, Reason::ScannerNotStarted)), "{fault:?}");
    }
    let target = || "x".to_owned();
    let denied = |code| ClusterError::Denied { what: target(), code, message: String::new() };
    let unreachable = ClusterError::NoAnswer { what: target(), after: Duration::from_secs(1) };
    for (error, wanted) in [
        (denied(401), (true, Reason::AccessDenied)),
        (denied(403), (false, Reason::AccessDenied)),
        (unreachable, (true, Reason::ApiUnreachable)),
        (ClusterError::ExecTimeout { target: target(), after: Duration::from_secs(9) }, (false, Reason::Timeout)),
        (ClusterError::TargetGone { target: target() }, (false, Reason::ScannerEvicted)),
        (
            ClusterError::NoShell { target: target(), program: target(), message: String::new() },
            (false, Reason::ScannerNotStarted),
        ),
    ] {
        assert_eq!(came_to(Err(error), b""), Err(wanted));
    }
}

#[test]
fn what_the_agent_says_is_shown_clean() {
    let Err(Failure::Passing(error)) = outcome(ended(Some(70)), b"") else { panic!("it said nothing") };
    assert!(error.to_string().contains("said") && !error.to_string().contains('\x1b'), "{error}");
}
