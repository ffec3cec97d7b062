//! Locking a bundle: everything that a definition asks for, pinned; and what `lock` and `build` share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::upstream::AskRegistries;
use crate::base::exit::{Classify, ExitClass};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::text::brief;
use crate::bundle::collect::{Collected, Helpers, collect};
use crate::bundle::definition::Definition;
use crate::bundle::lock::{BundleLock, Change};
use crate::bundle::profile::ProfileResolver;
use crate::bundle::source::SourceError;
use crate::bundle::writer::BuildError;
use crate::model::control::Control;
use crate::model::profile::Profile;
use crate::model::profile_document::{ProfileDocument, Source};
use crate::results::expected;
use crate::results::xccdf::benchmark::{selected_controls, tailored_controls};
use crate::results::xccdf::remote::remote_checks;

/// The file beside `bundle.yaml` that pins it.
pub const LOCK_FILE: &str = "bundle.lock";

/// What is to be locked.
#[derive(Clone, Debug)]
pub struct LockRequest {
    /// `bundle.yaml`
    pub definition: PathBuf,
    /// What may move.
    pub update: Update,
    /// The time that the bundle counts as created.
    pub created: Timestamp,
    /// The binary that becomes gapscan's own image.
    pub agent: PathBuf,
    /// Bounds.
    pub limits: Limits,
}

/// What may move when there is a lock already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Update {
    /// Everything.
    All,
    /// The items of these names, and what is new or asked for otherwise. Everything else keeps its pins.
    Only(Vec<String>),
}

/// A lock that was written.
#[derive(Clone, Debug)]
pub struct Locked {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub lock: BundleLock,
    /// What is other than in the lock before; nothing where there was none.
    pub changes: Vec<Change>,
}

/// Pins what a definition asks for and writes `bundle.lock` beside it.
///
/// # Errors
/// When something can't be had, can't be in a bundle or used offline later, or would have to move and may not.
pub async fn lock(request: &LockRequest, progress: &Progress) -> Result<Locked, BuildError> {
    let definition = Definition::read(&request.definition, &request.limits)?;
    let path = lock_path(&request.definition);
    let before = match (path.exists(), &request.update) {
        (true, _) => Some(BundleLock::read(&path, &request.limits)?),
        (false, Update::All) => None,
        (false, Update::Only(_)) => {
            let reason = format!("update `{}`: there is none; run `gapscan bundle lock` first", path.display());
            return Err(BuildError::Definition(reason));
        }
    };
    let pins = match (&before, &request.update) {
        (Some(before), Update::Only(names)) => Some(keep(before, &definition, names)?),
        _ => None,
    };
    let collected =
        gather(&definition, request.created, pins.as_ref(), &request.agent, &request.limits, progress).await?;
    // A definition that can be locked can be built: the parts are put together here already.
    collected.assemble(&request.limits).await?;
    let lock = collected.lock().clone();
    let changes = before.map_or(Vec::new(), |before| before.changes(&lock));
    if let Update::Only(names) = &request.update {
        let moved: Vec<String> = changes
            .iter()
            .filter(|change| change.asked_the_same && !names.iter().any(|name| is_named(&change.what, name)))
            .map(Change::to_string)
            .collect();
        if !moved.is_empty() {
            return Err(BuildError::Definition(format!(
                "keep what is not to be updated:\n  {}\n  name it too, or run `gapscan bundle lock` for everything",
                moved.join("\n  ")
            )));
        }
    }
    lock.write(&path)?;
    Ok(Locked { path, lock, changes })
}

/// The lock without what is to move.
fn keep(before: &BundleLock, definition: &Definition, names: &[String]) -> Result<BundleLock, BuildError> {
    let document = &definition.document;
    let mut known: Vec<String> = before.items.iter().map(|item| item.repository.clone()).collect();
    known.extend(document.images.iter().map(|item| format!("images/{}", item.name)));
    known.extend(document.dependencies.iter().map(|item| format!("dependencies/{}", item.name)));
    known.extend(document.charts.iter().map(|item| format!("charts/{}", item.name)));
    known.extend(document.scanners.iter().map(|path| path.display().to_string()));
    known.sort();
    known.dedup();
    let unknown: Vec<String> = names
        .iter()
        .filter(|name| !known.iter().any(|item| is_named(item, name)))
        .map(|name| format!("`{}`", brief(name)))
        .collect();
    if !unknown.is_empty() {
        let (unknown, known) = (unknown.join(", "), known.join(", "));
        return Err(BuildError::Definition(format!("update {unknown}: there is no such item; there are {known}")));
    }
    let mut pins = before.clone();
    pins.items.retain(|item| !names.iter().any(|name| is_named(&item.repository, name)));
    Ok(pins)
}

/// Whether a person who writes `name` means this repository or file: by all of it, by its last part, or by that without
/// `.yaml`.
fn is_named(what: &str, name: &str) -> bool {
    let last = what.rsplit('/').next().unwrap_or(what);
    let stem = last.rsplit_once('.').map_or(last, |(stem, _)| stem);
    [what, last, stem].contains(&name)
}

pub(super) fn outdated(lock: &Path, differences: &[String]) -> BuildError {
    let lines = differences.join("\n  ");
    BuildError::Definition(format!(
        "build what `{}` pins:\n  {lines}\n  if this is wanted, run `gapscan bundle lock` again, or `gapscan bundle lock --update NAME` for a part of it",
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
    gather_from(&AskRegistries::new(definition, limits), definition, created, lock, agent, limits, progress).await
}

/// The same from these registries.
pub(super) async fn gather_from(
    references: &AskRegistries,
    definition: &Definition,
    created: Timestamp,
    lock: Option<&BundleLock>,
    agent: &Path,
    limits: &Limits,
    progress: &Progress,
) -> Result<Collected, BuildError> {
    let helpers = Helpers { agent, references, profiles: &Profiles, limits, progress };
    collect(definition, created, lock, &helpers).await
}

fn profile_of(document: &ProfileDocument, controls: Vec<Control>) -> Profile {
    Profile {
        name: document.name.clone(),
        version: document.version.clone(),
        title: document.title.clone(),
        summary: document.summary.clone(),
        controls,
    }
}

/// Lists the controls of profiles by the engines that evaluate them.
pub(super) struct Profiles;

impl ProfileResolver for Profiles {
    fn rules(&self, _document: &ProfileDocument, files: &BTreeMap<String, Vec<u8>>) -> Result<Profile, SourceError> {
        let profile = crate::native::profile::load(files).map_err(SourceError::of)?;
        Ok(profile.profile().clone())
    }

    fn xccdf(
        &self,
        document: &ProfileDocument,
        files: &BTreeMap<String, Vec<u8>>,
        benchmark: &[u8],
    ) -> Result<Profile, SourceError> {
        let (wanted, tailoring) = match document.source() {
            Some(Source::Xccdf(source)) => (source.profile.as_str(), source.tailoring.as_deref()),
            _ => ("", None),
        };
        let limits = Limits::default();
        let controls = match tailoring {
            None => selected_controls(benchmark, wanted, &limits),
            Some(path) => {
                let tailoring = files.get(path).ok_or_else(|| {
                    let (name, path) = (&document.name, brief(path));
                    SourceError::new(ExitClass::Usage, format!("use profile `{name}`: its folder has no `{path}`"))
                })?;
                tailored_controls(benchmark, tailoring.as_slice(), wanted, &limits)
            }
        };
        let controls = controls.map_err(|error| {
            SourceError::new(ExitClass::Usage, format!("list the controls of profile `{}`", document.name))
                .because(error)
        })?;
        Ok(profile_of(document, controls))
    }

    fn content(&self, document: &ProfileDocument, files: &BTreeMap<String, Vec<u8>>) -> Result<Profile, SourceError> {
        let controls = match document.source() {
            Some(Source::Inspec(source)) => expected::inspec::controls(files, source),
            Some(Source::KubeBench(source)) => expected::kube_bench::controls(files, source),
            Some(Source::Falco(source)) => expected::falco::controls(files, source),
            Some(Source::TrivyChecks(source)) => expected::rego::controls(files, source).map(|mut controls| {
                controls.extend(document.controls.iter().cloned());
                controls
            }),
            Some(Source::Rules | Source::Xccdf(_) | Source::Listed) | None => {
                let name = &document.name;
                return Err(SourceError::new(ExitClass::Bug, format!("use profile `{name}`: it has no such content")));
            }
        };
        let failed = |error: expected::ContentError| {
            let remedy = error.remedy();
            let error = SourceError::new(error.class(), format!("use profile `{}`", document.name)).because(error);
            match remedy {
                Some(remedy) => error.with_remedy(remedy),
                None => error,
            }
        };
        Ok(profile_of(document, controls.map_err(failed)?))
    }

    fn remote(&self, profile: &Profile, benchmark: &[u8]) -> Result<Vec<String>, SourceError> {
        let remote = remote_checks(benchmark, &Limits::default()).map_err(SourceError::of)?;
        let wanted = |rule: &str| profile.controls.iter().any(|control| control.id == rule);
        let found = remote.iter().filter(|check| wanted(&check.rule));
        Ok(found.map(|check| format!("`{}` from {}", check.rule, check.address)).collect())
    }
}

#[cfg(test)]
mod tests;
