//! The state, compared with the ledger: who removes the state, or puts back an older copy of it, could have older bundles
//! accepted; the ledger names the bundle of every result, and its chain can't be shortened unnoticed.

use std::path::PathBuf;

use crate::ledger::{LedgerError, LedgerReader};
use crate::trust::remembered::{OnLoss, Remembered, Witnessed};

/// The versions that are remembered in the folder `state`, compared with those that `ledger` has results of. With
/// [`OnLoss::Adopt`], what the ledger has counts where the state has less.
///
/// # Errors
/// When the ledger can't be read.
pub fn remembered(
    state: impl Into<PathBuf>,
    ledger: &LedgerReader,
    on_loss: OnLoss,
) -> Result<Remembered, LedgerError> {
    let recorded = ledger.bundles()?;
    let recorded = recorded.into_iter().map(|(bundle, at)| Witnessed { bundle, at }).collect();
    Ok(Remembered::in_folder(state).witnessed(recorded, on_loss))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use jiff::Timestamp;

    use super::*;
    use crate::base::digest::Digest;
    use crate::ledger::Ledger;
    use crate::model::control::{Control, Severity};
    use crate::model::finding::Finding;
    use crate::model::notice::Notices;
    use crate::model::outcome::Outcome;
    use crate::model::profile::Profile;
    use crate::model::provenance::{Approach, BundleRef, Engine, Provenance};
    use crate::model::record::{CheckedTask, ExpectedTask, RunEnd, RunId, RunStart, Trigger};
    use crate::model::target::Target;
    use crate::trust::TrustError;
    use crate::trust::remembered::{Candidate, Use};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("a time")
    }

    /// Records one run whose result comes from this version of a bundle.
    fn scan(ledger: &mut Ledger, version: u64) {
        let second = i64::try_from(version).expect("a small number");
        let control = Control {
            id: "a".to_owned(),
            title: String::new(),
            description: String::new(),
            check: String::new(),
            fix: String::new(),
            severity: Severity::Low,
            references: Vec::new(),
        };
        let profile = Profile {
            name: "sample".to_owned(),
            version: version.to_string(),
            title: String::new(),
            summary: String::new(),
            controls: vec![control],
        };
        let target = Target::Node { name: "n".to_owned(), uid: None };
        let engine = "builtin".to_owned();
        let expected = ExpectedTask {
            target: target.clone(),
            engine: engine.clone(),
            profile: profile.reference(),
            incarnation: None,
            workload: None,
        };
        let start = RunStart {
            run: RunId::new(),
            trigger: Trigger::Manual,
            started: at(second),
            requested: vec!["cluster".to_owned()],
            classification: None,
            bundle: None,
            expected: vec![expected],
        };
        ledger.begin_run(&start, std::slice::from_ref(&profile)).expect("begun");
        let (digest, root) = (content(version), Digest::of("root"));
        let provenance = Provenance {
            gapscan: "0".to_owned(),
            engine: Engine { name: engine, version: String::new(), image: None },
            bundle: Some(BundleRef { name: "content".to_owned(), version, digest, root }),
            content: Vec::new(),
            approach: Approach::Objects,
            imported: None,
            identity: None,
            network: None,
            cleanup: None,
            started: at(second),
            finished: at(second),
        };
        let findings = vec![Finding::new("a", Outcome::Passed)];
        let task = CheckedTask::new(start.run, target, profile, provenance, findings, Vec::new(), Vec::new());
        ledger.record(&task.expect("a result")).expect("recorded");
        ledger.end_run(start.run, RunEnd::Completed, at(second)).expect("ended");
    }

    fn content(version: u64) -> Digest {
        Digest::of(version.to_be_bytes())
    }

    fn use_bundle(state: &Path, ledger: &Ledger, on_loss: OnLoss, version: u64) -> Result<(), TrustError> {
        let remembered = remembered(state, ledger.reader(), on_loss).expect("a ledger");
        let candidate = Candidate {
            roots: vec![Digest::of("root")],
            name: "content".to_owned(),
            version,
            content: content(version),
            created: at(0),
            items: BTreeSet::new(),
        };
        remembered.check(candidate, at(100))?.remember(&Notices::default(), Use::Again)
    }

    #[test]
    fn a_removed_or_older_state_is_noticed_and_can_be_made_from_the_ledger() {
        let folder = tempfile::tempdir().expect("a folder");
        let (state, copy) = (folder.path().join("state"), folder.path().join("copy"));
        let mut ledger = Ledger::open(&folder.path().join("ledger"), at(0)).expect("a ledger");
        use_bundle(&state, &ledger, OnLoss::Refuse, 3).expect("the first bundle");
        scan(&mut ledger, 3);
        use_bundle(&copy, &ledger, OnLoss::Adopt, 3).expect("a copy of the state");
        use_bundle(&state, &ledger, OnLoss::Refuse, 4).expect("a newer bundle");
        scan(&mut ledger, 4);
        use_bundle(&state, &ledger, OnLoss::Refuse, 4).expect("state and ledger know the same");

        for (case, state) in [("an older copy", &copy), ("none", &folder.path().join("none"))] {
            for version in [3, 4, 5] {
                let refused = use_bundle(state, &ledger, OnLoss::Refuse, version);
                assert!(refused.is_err(), "{case}, version {version}");
            }
            let refused = use_bundle(state, &ledger, OnLoss::Refuse, 4);
            assert!(matches!(refused, Err(TrustError::StateLost { .. })), "{case}");
            assert!(matches!(use_bundle(state, &ledger, OnLoss::Adopt, 3), Err(TrustError::Rollback { .. })), "{case}");
            use_bundle(state, &ledger, OnLoss::Adopt, 4).expect("what the ledger has results of");
            use_bundle(state, &ledger, OnLoss::Refuse, 4).expect("from then on it is remembered");
            assert!(
                matches!(use_bundle(state, &ledger, OnLoss::Refuse, 3), Err(TrustError::Rollback { .. })),
                "{case}"
            );
        }
    }
}
