//! What a run does with the waivers of its policy.

use jiff::{SignedDuration, Timestamp};

use super::load::{Loaded, Refusal, load};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::ledger::{Ledger, LedgerError};
use crate::model::outcome::Status;
use crate::model::record::{CheckedTask, Event, RunId};
use crate::model::waiver::{
    Standing, WAIVER_EXPIRED, WAIVER_UNMATCHED, WAIVERS_REFUSED, WAIVERS_UNSIGNED, WaiverDocument,
};
use crate::stage::plan::WaiverPolicy;

/// So many waivers of one state are told of one by one at the end of a run.
const TOLD: usize = 50;
/// By so much the ledger may be ahead of the clock without a word: a time service that corrects a drift.
const DRIFT: SignedDuration = SignedDuration::from_secs(60);

/// The waivers of one run.
#[derive(Clone, Debug)]
pub struct Waiving {
    documents: Vec<WaiverDocument>,
    refused: Vec<Refusal>,
    /// The latest time that anybody has seen: a clock that is set back revives no waiver.
    latest: Timestamp,
}

impl Waiving {
    /// No waivers.
    pub fn none() -> Self {
        Self { documents: Vec::new(), refused: Vec::new(), latest: Timestamp::MIN }
    }

    /// Those of this policy. What does not count, and what counts without a signature, is an event of the run; gives the
    /// words for it, too.
    ///
    /// # Errors
    /// When the ledger can't be read or written.
    pub fn open(
        policy: &WaiverPolicy,
        limits: &Limits,
        run: RunId,
        ledger: &mut Ledger,
        now: Timestamp,
    ) -> Result<(Self, Vec<String>), LedgerError> {
        if policy.files.is_empty() {
            return Ok((Self::none(), Vec::new()));
        }
        let Loaded { documents, refused } = load(policy, limits);
        let waiving = Self { documents, refused, latest: ledger.reader().last_at()? };
        let mut said = Vec::new();
        let refused = waiving.refusals().map(|why| (WAIVERS_REFUSED, why));
        let unsigned = waiving.documents.iter().filter(|document| document.reference.approvals.is_empty());
        let unsigned = unsigned.map(|document| {
            let (file, digest) = (brief(&document.reference.file), document.reference.digest);
            (
                WAIVERS_UNSIGNED,
                format!("the waivers of `{file}` ({digest}) are unsigned: policy accepts them as they are"),
            )
        });
        for (what, detail) in refused.chain(unsigned) {
            ledger.event(&event(what, run, detail.clone(), now))?;
            said.push(detail);
        }
        if waiving.is_behind(now) {
            said.push(waiving.clock_words(now));
        }
        Ok((waiving, said))
    }

    /// How many files do not count.
    pub fn refused(&self) -> usize {
        self.refused.len()
    }

    fn refusals(&self) -> impl Iterator<Item = String> {
        self.refused
            .iter()
            .map(|Refusal { path, why }| format!("the waivers of `{}` do not count: {why}", path.display()))
    }

    fn is_behind(&self, now: Timestamp) -> bool {
        self.latest.duration_since(now) > DRIFT
    }

    fn clock_words(&self, now: Timestamp) -> String {
        format!("the clock shows {now}, and the ledger names {} already: waivers are judged by that time", self.latest)
    }

    /// This result as it is recorded at `now`.
    pub fn apply(&mut self, task: CheckedTask, now: Timestamp) -> CheckedTask {
        if self.documents.is_empty() && self.refused.is_empty() {
            return task;
        }
        let behind = self.is_behind(now).then(|| self.clock_words(now));
        self.latest = self.latest.max(now);
        let before = task.record().waivers.len();
        let mut task = task.waived(&self.documents, self.latest);
        if let (Some(words), true) = (behind, task.record().waivers.len() > before) {
            task = task.with_note(words);
        }
        // What passed would have passed with them, too.
        if task.record().coverage.count(Status::Failed) > 0 {
            for why in self.refusals() {
                task = task.with_note(why);
            }
        }
        task
    }

    /// Records at the end of a run which waivers have expired, and which fit none of the latest results; gives the words.
    ///
    /// # Errors
    /// When the ledger can't be read or written.
    pub fn conclude(self, run: RunId, ledger: &mut Ledger, now: Timestamp) -> Result<Vec<String>, LedgerError> {
        if self.documents.is_empty() {
            return Ok(Vec::new());
        }
        let judged_at = self.latest.max(now);
        let latest = ledger.reader().latest()?;
        let (mut expired, mut unmatched) = (Vec::new(), Vec::new());
        for document in &self.documents {
            for waiver in &document.waivers {
                let which = format!("waiver `{}` of `{}`", brief(&waiver.id), brief(&document.reference.file));
                if waiver.standing(document.longest, judged_at) == Standing::Expired {
                    expired.push(format!("{which} expired at {}", waiver.expires));
                } else if !latest.iter().any(|record| waiver.matches(record).next().is_some()) {
                    let foreign = latest.iter().map(|record| waiver.names(record).count()).sum::<usize>();
                    unmatched.push(match foreign {
                        0 => format!("{which} fits no control of the latest results"),
                        _ => format!("{which} fits no control of the latest results but {foreign} {UNCHANGED}"),
                    });
                }
            }
        }
        let mut said = Vec::new();
        for (what, mut details) in [(WAIVER_EXPIRED, expired), (WAIVER_UNMATCHED, unmatched)] {
            let more = details.len().saturating_sub(TOLD);
            details.truncate(TOLD);
            if more > 0 {
                details.push(format!("and so are {more} more waivers; `gapscan waive check` lists them"));
            }
            for detail in details {
                ledger.event(&event(what, run, detail.clone(), now))?;
                said.push(detail);
            }
        }
        Ok(said)
    }
}

/// Of controls that a waiver names and does nothing for.
const UNCHANGED: &str = "of results that were imported or came as alerts, which no waiver changes";

fn event(what: &str, run: RunId, detail: String, at: Timestamp) -> Event {
    Event { at, what: what.to_owned(), subject: run.to_string(), due: None, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::digest::Digest;
    use crate::model::finding::Finding;
    use crate::model::outcome::Outcome;
    use crate::model::target::Target;
    use crate::model::waiver::{self, WaiverRef};
    use crate::stage::scan::account::Unaccounted;
    use crate::stage::scan::content::Content;

    /// A document with one waiver of everything until this day.
    fn document(expires: &str) -> WaiverDocument {
        let text = format!(
            "apiVersion: gapscan/v1\nkind: Waivers\nwaivers:\n- {{id: w, controls: ['*'], profile: host-baseline, targets: all, \
             reason: r, requestedBy: b, expires: {expires}}}\n"
        );
        WaiverDocument {
            reference: WaiverRef {
                digest: Digest::of(&text),
                file: "w.yaml".to_owned(),
                approvals: vec!["a".to_owned()],
            },
            waivers: waiver::read(std::path::Path::new("w.yaml"), &text).expect("a document"),
            longest: None,
            evidence: Vec::new(),
        }
    }

    /// A result of this host in which all failed.
    fn failed() -> CheckedTask {
        let shipped = Content::shipped();
        let rules =
            shipped.builtin.iter().find(|rules| rules.profile().name == "host-baseline").expect("it is shipped");
        let profile = rules.profile().clone();
        let target = Target::Host { name: "h".to_owned() };
        let open = Unaccounted { target: target.clone(), engine: "builtin".to_owned(), profile: profile.clone() }
            .not_done(RunId::new(), crate::model::reason::Reason::Timeout, "x");
        let provenance = open.record().provenance.clone();
        let findings = profile.controls.iter().map(|c| Finding::new(&*c.id, Outcome::Failed)).collect();
        CheckedTask::new(RunId::new(), target, profile, provenance, findings, Vec::new(), Vec::new())
            .expect("accounted")
    }

    fn waived(task: &CheckedTask) -> bool {
        task.record().coverage.count(Status::Failed) == 0
    }

    fn time(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn a_clock_that_is_set_back_revives_no_waiver() {
        let (before, after) = (time("2027-01-10T00:00:00Z"), time("2027-02-10T00:00:00Z"));
        let of = |latest| Waiving { documents: vec![document("2027-01-31")], refused: Vec::new(), latest };
        assert!(waived(&of(before).apply(failed(), before)));
        // Before this run, by what the ledger names.
        let late = of(after).apply(failed(), before);
        assert!(!waived(&late));
        assert!(late.record().notes.iter().any(|note| note.contains("the ledger names")), "{:?}", late.record().notes);
        // During it.
        let mut waiving = of(before);
        assert!(!waived(&waiving.apply(failed(), after)));
        assert!(!waived(&waiving.apply(failed(), before)));
    }

    #[test]
    fn a_file_that_does_not_count_is_a_note_where_something_failed() {
        let refused = vec![Refusal { path: "w.yaml".into(), why: "it is bad".to_owned() }];
        let mut waiving = Waiving { documents: Vec::new(), refused, latest: Timestamp::MIN };
        let task = waiving.apply(failed(), time("2027-01-10T00:00:00Z"));
        assert!(task.record().notes.iter().any(|note| note.contains("`w.yaml` do not count: it is bad")));
        assert!(!waived(&task));
    }
}
