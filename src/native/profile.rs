//! Profiles of the builtin engine: a folder with `profile.yaml` and files of rules, or the same files from elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::facts::cluster::Resource;
use super::rules::{self, Rule, Subject};
use crate::base::document;
use crate::base::exit::{Classify, ExitClass};
use crate::base::file::{self, FileError};
use crate::base::limits::Limits;
use crate::model::profile::{Profile, ProfileError as ModelError};
use crate::model::profile_document::ProfileDocument;
use crate::model::scanner::BUILTIN;
use crate::model::target::TargetKind;

#[cfg(test)]
mod samples;
mod shipped;
#[cfg(test)]
mod tests;

pub use shipped::{SHIPPED_FILES, shipped};

/// The document in a profile's folder.
pub const PROFILE_FILE: &str = "profile.yaml";
/// How many files a profile's folder may hold: a folder that was named by mistake is not walked for ever.
const FILES: usize = 1000;

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A file or folder can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no `profile.yaml`.
    #[error("read profile: there is no `{PROFILE_FILE}` in it")]
    NoDocument,
    /// The folder holds more files than a profile has.
    #[error("read profile `{}`: it holds more than {FILES} files", .0.display())]
    TooManyFiles(PathBuf),
    /// Something in it is wrong: all of it, one a line.
    #[error("use profile `{profile}`: {}", .problems.join("\n  "))]
    Problems {
        /// The profile's name, as far as it is known.
        profile: String,
        /// What is wrong, each with file and place.
        problems: Vec<String>,
    },
    /// Its controls are none, or there twice.
    #[error(transparent)]
    Controls(#[from] ModelError),
}

impl Classify for ProfileError {
    fn class(&self) -> ExitClass {
        match self {
            Self::File(error) => error.class(),
            Self::NoDocument | Self::TooManyFiles(_) | Self::Problems { .. } | Self::Controls(_) => ExitClass::Usage,
        }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::NoDocument | Self::TooManyFiles(_) => {
                Some("name the folder that holds profile.yaml and the rules it lists".to_owned())
            }
            Self::File(_) | Self::Problems { .. } | Self::Controls(_) => None,
        }
    }
}

/// A profile of the builtin engine, with every rule compiled.
#[derive(Clone, Debug)]
pub struct RuleProfile {
    document: ProfileDocument,
    profile: Profile,
    rules: Vec<Rule>,
}

impl RuleProfile {
    /// The document.
    pub fn document(&self) -> &ProfileDocument {
        &self.document
    }

    /// The controls, as the ledger and the reports keep them.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Whether it applies to targets of this kind.
    pub fn applies_to(&self, kind: TargetKind) -> bool {
        self.document.targets.contains(&kind)
    }

    /// The resources that must be listed for its rules, and no others: an identity needs to read only these.
    pub fn resources(&self) -> BTreeSet<Resource> {
        let mut wanted = BTreeSet::new();
        for rule in &self.rules {
            for subject in &rule.subjects {
                match subject {
                    Subject::Host | Subject::Container | Subject::Image => {}
                    Subject::NamespaceFacts => wanted.extend([Resource::namespaces(), Resource::network_policies()]),
                    Subject::Objects(resource) => {
                        wanted.insert(resource.clone());
                    }
                }
            }
            if rule.asks_namespace() {
                wanted.insert(Resource::namespaces());
            }
        }
        wanted
    }

    /// The rules, one for each control, in the profile's order.
    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// Reads and compiles a profile from its files, by path below the profile's folder.
///
/// # Errors
/// When `profile.yaml` is not there or is none; when it is not for the builtin engine; when a file of rules is not there,
/// is not listed, or has a rule that is refused or does not compile; when there is no rule, or two of one name.
pub fn load(files: &BTreeMap<String, Vec<u8>>) -> Result<RuleProfile, ProfileError> {
    let fail = |profile: &str, problems| Err(ProfileError::Problems { profile: profile.to_owned(), problems });
    let text = |name: &str| -> Result<&str, String> {
        let bytes = files.get(name).ok_or_else(|| format!("`{name}` is listed and is not there"))?;
        std::str::from_utf8(bytes).map_err(|e| format!("`{name}`: byte {} is no UTF-8", e.valid_up_to()))
    };
    if !files.contains_key(PROFILE_FILE) {
        return Err(ProfileError::NoDocument);
    }
    let parsed = text(PROFILE_FILE).and_then(|text| {
        document::parse::<ProfileDocument>(Path::new(PROFILE_FILE), text).map_err(|error| error.to_string())
    });
    let document = match parsed {
        Ok(document) => document,
        Err(problem) => return fail("?", vec![problem]),
    };
    let mut problems = document_problems(&document);
    let listed: BTreeSet<&str> = document.rules.iter().map(String::as_str).collect();
    // A file of rules that nobody listed would be expected by its author and judged by nobody.
    let is_rules = |name: &str| name.ends_with(".yaml") || name.ends_with(".yml");
    let forgotten =
        files.keys().filter(|name| *name != PROFILE_FILE && is_rules(name) && !listed.contains(name.as_str()));
    problems.extend(forgotten.map(|name| format!("`{name}` is there and is not listed in `{PROFILE_FILE}`")));

    let mut rules = Vec::new();
    for name in &document.rules {
        match text(name).map_err(|problem| vec![problem]).and_then(|text| rules::read(name, text)) {
            Ok(found) => rules.extend(found),
            Err(found) => problems.extend(found),
        }
    }
    for rule in &rules {
        if !document.targets.iter().any(|kind| rule.subjects.iter().any(|subject| subject.fits(*kind))) {
            problems.push(format!("rule `{}` judges nothing that the profile applies to", rule.control.id));
        }
    }
    if !problems.is_empty() {
        return fail(&document.name, problems);
    }
    let profile = Profile {
        name: document.name.clone(),
        version: document.version.clone(),
        title: document.title.clone(),
        summary: document.summary.clone(),
        controls: rules.iter().map(|rule| rule.control.clone()).collect(),
    }
    .checked()?;
    Ok(RuleProfile { document, profile, rules })
}

fn document_problems(document: &ProfileDocument) -> Vec<String> {
    let mut problems = Vec::new();
    let mut problem = |text: String| problems.push(format!("`{PROFILE_FILE}`: {text}"));
    if document.engine != BUILTIN {
        problem(format!("its engine is `{}`, not `{BUILTIN}`", document.engine));
    }
    if document.xccdf.is_some() || !document.controls.is_empty() || !document.parameters.is_empty() {
        problem("a profile of the builtin engine has `rules`, and no `xccdf`, `controls` or `parameters`".to_owned());
    }
    if document.targets.is_empty() {
        problem("`targets` is empty, so that it would judge nothing".to_owned());
    }
    if document.rules.is_empty() {
        problem("`rules` is empty, so that it would judge nothing".to_owned());
    }
    for (i, name) in document.rules.iter().enumerate() {
        if document.rules[..i].contains(name) {
            problem(format!("`{name}` is listed twice"));
        }
    }
    problems
}

/// Reads and compiles the profile in a folder. Files outside of it are not reached: symbolic links are not followed.
///
/// # Errors
/// As [`load`], and when the folder or a file can't be read or is too large.
pub fn load_folder(folder: &Path, limits: &Limits) -> Result<RuleProfile, ProfileError> {
    let mut files = BTreeMap::new();
    collect(folder, folder, limits, &mut files)?;
    load(&files)
}

fn collect(
    root: &Path,
    folder: &Path,
    limits: &Limits,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), ProfileError> {
    let failed = |source| FileError::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            collect(root, &path, limits, files)?;
        } else if kind.is_file() && files.len() < FILES {
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            files.insert(relative, file::read_capped(&path, limits.document_bytes)?);
        } else if kind.is_file() {
            return Err(ProfileError::TooManyFiles(root.to_owned()));
        }
    }
    Ok(())
}
