//! Locking a bundle: everything that a definition asks for, pinned; and what `lock` and `build` share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::upstream::AskRegistries;
use crate::base::exit::ExitClass;
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::bundle::collect::{Collected, Helpers, collect};
use crate::bundle::definition::Definition;
use crate::bundle::lock::BundleLock;
use crate::bundle::profile::ProfileResolver;
use crate::bundle::source::SourceError;
use crate::bundle::writer::BuildError;
use crate::model::profile::Profile;
use crate::model::scanner::ProfileDocument;
use crate::results::xccdf::benchmark::selected_controls;

/// The file beside `bundle.yaml` that pins it.
pub const LOCK_FILE: &str = "bundle.lock";

/// What is to be locked.
#[derive(Clone, Debug)]
pub struct LockRequest {
    /// `bundle.yaml`
    pub definition: PathBuf,
    /// The time that the bundle counts as created.
    pub created: Timestamp,
    /// The binary that becomes gapscan's own image.
    pub agent: PathBuf,
    /// Bounds.
    pub limits: Limits,
}

/// Pins everything that a definition asks for and writes `bundle.lock` beside it. Gives its path and content.
///
/// # Errors
/// When something can't be had, or can't be in a bundle.
pub async fn lock(request: &LockRequest, progress: &Progress) -> Result<(PathBuf, BundleLock), BuildError> {
    let definition = Definition::read(&request.definition, &request.limits)?;
    let collected = gather(&definition, request.created, None, &request.agent, &request.limits, progress).await?;
    // A definition that can be locked can be built: the parts are put together here already.
    collected.assemble(&request.limits).await?;
    let path = lock_path(&request.definition);
    collected.lock().write(&path)?;
    Ok((path, collected.lock().clone()))
}

pub(super) fn outdated(lock: &Path, differences: &[String]) -> BuildError {
    let lines = differences.join("\n  ");
    BuildError::Definition(format!(
        "build what `{}` pins:\n  {lines}\n  if this is wanted, run `gapscan bundle lock` again",
        lock.display()
    ))
}

pub(super) fn lock_path(definition: &Path) -> PathBuf {
    definition.with_file_name(LOCK_FILE)
}

pub(super) async fn gather(
    definition: &Definition,
    created: Timestamp,
    lock: Option<&BundleLock>,
    agent: &Path,
    limits: &Limits,
    progress: &Progress,
) -> Result<Collected, BuildError> {
    let references = AskRegistries::new(definition, limits);
    let helpers = Helpers { agent, references: &references, profiles: &Profiles, limits, progress };
    collect(definition, created, lock, &helpers).await
}

/// Lists the controls of profiles by the engines that evaluate them.
struct Profiles;

impl ProfileResolver for Profiles {
    fn rules(&self, _document: &ProfileDocument, files: &BTreeMap<String, Vec<u8>>) -> Result<Profile, SourceError> {
        let profile = crate::native::profile::load(files).map_err(SourceError::of)?;
        Ok(profile.profile().clone())
    }

    fn xccdf(&self, document: &ProfileDocument, benchmark: &[u8]) -> Result<Profile, SourceError> {
        let wanted = document.xccdf.as_ref().map(|source| source.profile.as_str()).unwrap_or_default();
        let controls = selected_controls(benchmark, wanted, &Limits::default()).map_err(|error| {
            SourceError::new(ExitClass::Usage, format!("list the controls of profile `{}`", document.name))
                .because(error)
        })?;
        Ok(Profile {
            name: document.name.clone(),
            version: document.version.clone(),
            title: document.title.clone(),
            summary: document.summary.clone(),
            controls,
        })
    }
}
