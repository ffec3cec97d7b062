//! What a scanner left: evidence, its verdicts on what was expected, and gapscan's own on how it did its work.

use jiff::Timestamp;

use crate::cluster::agent::protocol::Unreadable;
use crate::cluster::job::JobOutput;
use crate::model::evidence::Evidence;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::Outcome;
use crate::model::reason::Reason;
use crate::model::scanner::{COMPLETE_CONTROL, LeftOut};
use crate::stage::judge;
use crate::stage::scan::content::External;
use crate::stage::scan::network::{self, Allowance};
use crate::stage::scan::unit::{Context, NotDone, Reached, Task};

/// What is known of what the scanner could not read.
pub(super) enum Seen {
    /// It was looked for.
    Looked(Unreadable),
    /// It could not be looked for; a sentence says why.
    Unknown(&'static str),
}

/// What a scanner left.
pub(super) struct Left<'a> {
    pub(super) output: JobOutput,
    /// Whom it may have talked to.
    pub(super) allowance: Allowance<'a>,
    pub(super) seen: Seen,
}

/// Takes it as evidence, and judges the target by it.
pub(super) fn judge(
    reached: &mut Reached,
    tasks: &[Task],
    external: &External,
    context: &Context,
    Left { output, allowance, seen }: Left<'_>,
) -> Result<(), NotDone> {
    if let Ok(result) = &output.result {
        let media_type = external.scanner.result.format.media_type();
        reached.evidence.push(Evidence::new("result", media_type, result.clone()).redacted(output.taken_out.result));
    }
    for (name, bytes, taken_out) in [
        ("stdout", &output.stdout_tail, output.taken_out.stdout),
        ("stderr", &output.stderr_tail, output.taken_out.stderr),
    ] {
        if !bytes.is_empty() {
            reached.evidence.push(Evidence::new(name, "text/plain", bytes.clone()).redacted(taken_out));
        }
    }
    let sockets = output.sockets.clone();
    reached.notes.extend(network::note(&sockets, allowance));
    let (ended, asked) = (output.meaning(&external.scanner.exit_codes), output.version.clone());
    let result = output.into_result(&external.scanner.exit_codes).map_err(|e| NotDone::because(e.reason(), &e))?;
    let task = tasks.first().ok_or_else(|| NotDone::new(Reason::InternalError, "there is no task"))?;
    // A large result takes seconds, during which other scans wait for their connections.
    let read = || judge::judge(&external.scanner, ended, &result, &task.profile, &context.limits);
    let mut parsed = tokio::task::block_in_place(read).map_err(|e| NotDone::because(e.reason(), &e))?;
    let (version, note) = judge::version(&external.scanner, parsed.scanner_version.take(), asked.as_ref());
    reached.notes.extend(note);
    if let Some(engine) = &mut reached.engine {
        engine.version = version;
    }
    // With several, the scanner does not say which of them it means.
    if let (Some(built), [content]) = (parsed.database_built, &mut reached.content[..]) {
        content.built = Some(built);
    }
    reached.notes.extend(external.check_age(parsed.database_built, &context.policy, Timestamp::now())?);
    let left_out = &external.scanner.leaves_out;
    account_for_unread(&mut parsed.findings, &seen, left_out, context.limits.finding_details)?;
    network::judge(&mut parsed.findings, &sockets, allowance, context.limits.finding_details);
    reached.notes.extend(parsed.notes);
    reached.verdict = Ok(vec![parsed.findings]);
    Ok(())
}

/// Judges the control that asks whether the scanner could read all of the target: a scanner passes over what it may not read
/// in silence, and what its definition says that it leaves out, so that its other verdicts are about the rest.
fn account_for_unread(findings: &mut [Finding], seen: &Seen, left_out: &[LeftOut], most: usize) -> Result<(), NotDone> {
    let (detail, unreadable) = match seen {
        Seen::Looked(unreadable) => {
            let more = if unreadable.incomplete { "at least " } else { "" };
            let unread = (unreadable.count > 0 || unreadable.incomplete)
                .then(|| format!("the scanner's user may not read {more}{} paths of the target", unreadable.count));
            let passed_over = (unreadable.left_out > 0)
                .then(|| format!("the scanner leaves out {more}{} paths of the target", unreadable.left_out));
            (unread.into_iter().chain(passed_over).collect::<Vec<_>>().join("; "), Some(unreadable))
        }
        Seen::Unknown(why) => ((*why).to_owned(), None),
    };
    let whole = unreadable.is_some_and(Unreadable::is_none);
    let Some(finding) = findings.iter_mut().find(|f| f.control == COMPLETE_CONTROL) else {
        // Without a control that could say so, the verdicts would be taken for ones on the whole target.
        return if whole { Ok(()) } else { Err(NotDone::new(Reason::UnreadablePaths, detail)) };
    };
    if whole {
        *finding = Finding::new(COMPLETE_CONTROL, Outcome::Passed);
        return Ok(());
    }
    let Some(unreadable) = unreadable else {
        *finding = Finding::new(COMPLETE_CONTROL, Outcome::not_evaluated(Reason::FactMissing, detail));
        return Ok(());
    };
    let unread = unreadable.sample.iter().map(|path| Detail::new(path, "not readable for the scanner's user"));
    let passed_over = unreadable.left_out_sample.iter().map(|path| {
        let why = left_out.iter().find(|left_out| left_out.covers(path));
        Detail::new(path, format!("left out: {}", why.map_or("as its definition says", |left_out| &left_out.why)))
    });
    let reason = match unreadable.count == 0 && !unreadable.incomplete {
        true => Reason::ScannerSkipped,
        false => Reason::UnreadablePaths,
    };
    *finding = Finding::new(COMPLETE_CONTROL, Outcome::not_evaluated(reason, detail))
        .with_details(unread.chain(passed_over), most);
    let all = unreadable.count.saturating_add(unreadable.left_out);
    finding.details_omitted = all.saturating_sub(finding.details.len() as u64);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_scanner_could_not_read_is_never_passed_over() {
        let looked = |count, incomplete| {
            Seen::Looked(Unreadable { count, sample: vec!["/a".to_owned()], incomplete, ..Unreadable::default() })
        };
        let control = || vec![Finding::new("x", Outcome::Passed), Finding::new(COMPLETE_CONTROL, Outcome::Passed)];
        for (seen, wanted) in [
            (looked(2, false), Reason::UnreadablePaths),
            (looked(0, true), Reason::UnreadablePaths),
            (Seen::Unknown("it is not known"), Reason::FactMissing),
        ] {
            let mut findings = control();
            account_for_unread(&mut findings, &seen, &[], 10).expect("a control says so");
            assert!(matches!(findings[1].outcome, Outcome::NotEvaluated { reason, .. } if reason == wanted));
            let why = account_for_unread(&mut control()[..1], &seen, &[], 10).expect_err("nothing says so");
            assert_eq!(why.reason, Reason::UnreadablePaths);
        }
        let mut findings = control();
        findings[1] = Finding::new(COMPLETE_CONTROL, Outcome::Failed);
        account_for_unread(&mut findings, &looked(0, false), &[], 10).expect("all was read");
        assert_eq!(findings[1].outcome, Outcome::Passed);
    }

    #[test]
    fn what_the_scanner_leaves_out_by_itself_is_never_passed_over_either() {
        let why = |paths: &str, why: &str| LeftOut { paths: vec![paths.to_owned()], why: why.to_owned() };
        let left_out = [why("/opt/*", "it is optional"), why("*/node_modules/*", "installed packages")];
        let path = "/app/node_modules/a".to_owned();
        let seen = |count| {
            let sample = if count > 0 { vec!["/root".to_owned()] } else { Vec::new() };
            let left_out_sample = vec![path.clone()];
            Seen::Looked(Unreadable { count, sample, left_out: 3, left_out_sample, incomplete: false })
        };
        for (count, reason) in [(0, Reason::ScannerSkipped), (1, Reason::UnreadablePaths)] {
            let mut findings =
                vec![Finding::new("x", Outcome::Passed), Finding::new(COMPLETE_CONTROL, Outcome::Passed)];
            account_for_unread(&mut findings, &seen(count), &left_out, 10).expect("a control says so");
            let Outcome::NotEvaluated { reason: found, detail } = &findings[1].outcome else { panic!("it is no pass") };
            assert_eq!((*found, detail.ends_with("the scanner leaves out 3 paths of the target")), (reason, true));
            let last = findings[1].details.last().expect("it is named");
            assert_eq!((last.subject.as_str(), last.message.as_str()), (path.as_str(), "left out: installed packages"));
            assert_eq!(findings[1].details_omitted, 2);
        }
    }
}
