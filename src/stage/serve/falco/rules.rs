//! The profile of rules that alerts are measured against.

use std::path::Path;

use jiff::Timestamp;

use super::IntakeError;
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::ledger::Ledger;
use crate::model::profile::Profile;
use crate::stage::import::expected;
use crate::stage::plan::{Access, FalcoIntake};
use crate::stage::registries::Registries;
use crate::stage::scan::content_for;
use crate::trust::remembered::OnLoss;

/// The profile that the plan names: the folder, or the one of this name in the plan's bundle, which is verified as for a scan,
/// or else the newest one that the ledger has results by. It is looked for once, when alerts begin to be taken.
///
/// # Errors
/// When there is none; alerts are not taken then, rather than measured against nothing.
pub async fn rules(
    plan: &FalcoIntake,
    access: &Access,
    ledger: &mut Ledger,
    progress: &Progress,
) -> Result<Option<Profile>, IntakeError> {
    let Some(name) = &plan.profile else { return Ok(None) };
    let limits = Limits::default();
    if access.bundle.is_some() && !Path::new(name).is_dir() {
        let registries = Registries::new(access.registries.clone(), limits.clone());
        match content_for(None, access, OnLoss::Refuse, &registries, &limits, ledger, Timestamp::now()).await {
            Ok(content) => {
                let found = content.external.iter().find(|external| external.profile.name == *name);
                if let Some(external) = found {
                    return Ok(Some(external.profile.clone()));
                }
            }
            Err(error) => progress.say(format!("whether the bundle has Falco's rules is not known: {}", error.chain())),
        }
    }
    tokio::task::block_in_place(|| expected(name, ledger.reader(), &limits)).map(Some).map_err(IntakeError::Profile)
}
