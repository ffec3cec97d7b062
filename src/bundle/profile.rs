//! Profiles: a folder with `profile.yaml` becomes an image with its controls listed.

mod content;
mod fit;

use std::collections::BTreeMap;
use std::path::Path;

use self::content::{Gathered, Git};
use super::definition::wrong;
use super::layer::LayerPlan;
use super::source::SourceError;
use super::writer::BuildError;
use crate::base::document;
use crate::base::limits::Limits;
use crate::model::control::{Control, Reference, Severity};
use crate::model::profile::Profile;
use crate::model::profile_document::{ProfileDocument, SOURCES, Source};
use crate::model::scanner::{BUILTIN, COMPLETE_CONTROL, SILENT_CONTROL, ScannerDocument};

pub use self::content::Elsewhere;

/// The file of a profile's folder that says what it is.
pub const PROFILE_FILE: &str = "profile.yaml";
/// The file of a profile's image with the JSON of [`Profile`].
pub const CONTROLS_FILE: &str = "controls.json";
/// A profile's folder in memory.
#[derive(Clone, Debug)]
pub struct ProfileFolder {
    /// `profile.yaml`
    pub document: ProfileDocument,
    /// All its files, by their paths in it.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Lists the controls of profiles whose kind the bundle does not know itself: CEL rules, XCCDF benchmarks, content of scanners.
pub trait ProfileResolver: Send + Sync {
    /// The profile of CEL rules (`rules:`), whose files are among `files`.
    ///
    /// # Errors
    /// When the rules can't be used.
    fn rules(&self, document: &ProfileDocument, files: &BTreeMap<String, Vec<u8>>) -> Result<Profile, SourceError>;

    /// The profile of an XCCDF benchmark or data stream (`xccdf:`), with the tailoring among `files` where it names one.
    ///
    /// # Errors
    /// When the benchmark or the tailoring can't be used, or has no such profile.
    fn xccdf(
        &self,
        document: &ProfileDocument,
        files: &BTreeMap<String, Vec<u8>>,
        benchmark: &[u8],
    ) -> Result<Profile, SourceError>;

    /// The profile of a scanner's content (`inspec:`, `kubeBench:`, `falco:`, `trivyChecks:`), which is among `files`.
    ///
    /// # Errors
    /// When the content can't be used, or not without a network.
    fn content(&self, document: &ProfileDocument, files: &BTreeMap<String, Vec<u8>>) -> Result<Profile, SourceError>;

    /// The controls of this profile of a benchmark that need content from the internet, each with what it needs.
    ///
    /// # Errors
    /// When the benchmark can't be used.
    fn remote(&self, profile: &Profile, benchmark: &[u8]) -> Result<Vec<String>, SourceError>;
}

impl ProfileFolder {
    /// Reads a profile's folder.
    ///
    /// # Errors
    /// When it has no proper `profile.yaml`, holds links, or is too large.
    pub fn read(folder: &Path, limits: &Limits) -> Result<Self, BuildError> {
        Self::read_with(folder, &[], limits)
    }

    /// Reads a profile's folder with what belongs into it and lies elsewhere: what it is, where it is, and the folder below the
    /// profile's that it is put into.
    ///
    /// # Errors
    /// Also when a file is in both, or the content is neither a folder nor a file or archive.
    pub fn read_with(folder: &Path, elsewhere: &[Elsewhere<'_>], limits: &Limits) -> Result<Self, BuildError> {
        let path = folder.join(PROFILE_FILE);
        let text = document::text(&path, limits).map_err(wrong)?;
        let folder_name = folder.file_name().and_then(|name| name.to_str());
        let document =
            document::parse_checked(&path, &text, |document| problems(document, folder_name)).map_err(wrong)?;
        let refuse = |reason: &str| Err(BuildError::Definition(format!("use `{}`: {reason}", path.display())));
        let mut gathered = Gathered::default();
        gathered.folder(folder, "", Git::Kept)?;
        for content in elsewhere {
            gathered.elsewhere(content)?;
        }
        let files = gathered.into_files();
        if files.contains_key(CONTROLS_FILE) {
            return refuse("its folder has a controls.json, which is made when the bundle is built");
        }
        Ok(Self { document, files })
    }

    /// Its controls, and for a scanner's profile those that ask whether it could read everything and talked to nobody; `benchmark` is the content of the XCCDF file that it names, if it names one.
    ///
    /// # Errors
    /// When they can't be listed, are none, or one is there twice.
    pub fn resolve(&self, benchmark: Option<&[u8]>, resolver: &dyn ProfileResolver) -> Result<Profile, BuildError> {
        let document = &self.document;
        let listed = |controls: &[Control]| Profile {
            name: document.name.clone(),
            version: document.version.clone(),
            title: document.title.clone(),
            summary: document.summary.clone(),
            controls: controls.to_vec(),
        };
        let profile = match (benchmark, document.source()) {
            (Some(benchmark), _) => resolver.xccdf(document, &self.files, benchmark)?,
            (None, Some(Source::Rules)) => resolver.rules(document, &self.files)?,
            (None, Some(Source::Listed) | None) => listed(&document.controls),
            (None, Some(_)) => resolver.content(document, &self.files)?,
        };
        let mut profile = profile;
        if document.engine != BUILTIN {
            profile.controls.extend([read_whole(), silent()]);
        }
        let profile = profile.checked().map_err(|e| BuildError::Definition(e.to_string()))?;
        if profile.name != document.name || profile.version != document.version {
            let reason = format!("use profile `{}`: its controls are those of `{}`", document.name, profile.name);
            return Err(BuildError::Definition(reason));
        }
        Ok(profile)
    }

    /// Sees that its scanner, one of these, can do what it asks of it. Without its scanner a bundle is refused elsewhere.
    ///
    /// # Errors
    /// With everything that does not fit.
    pub fn fits(&self, scanners: &[ScannerDocument]) -> Result<(), BuildError> {
        let document = &self.document;
        let scanner = scanners.iter().find(|scanner| scanner.name == document.engine);
        let problems = scanner.map_or_else(Vec::new, |scanner| fit::problems(document, scanner));
        match problems.is_empty() {
            true => Ok(()),
            false => Err(BuildError::Definition(format!("use profile `{}`: {}", document.name, problems.join("; ")))),
        }
    }

    /// The layer of its image: the folder's files and `controls.json`.
    pub fn layer(&self, profile: &Profile) -> LayerPlan {
        let mut layer = LayerPlan::default();
        for (name, bytes) in &self.files {
            layer.add_bytes(name, 0o644, bytes.clone());
        }
        layer.add_bytes(CONTROLS_FILE, 0o644, profile.to_json());
        layer
    }
}

/// Everything that is wrong with a profile's document besides its fields, each with the field that it is about.
fn problems(document: &ProfileDocument, folder: Option<&str>) -> Vec<String> {
    let mut problems = Vec::new();
    if !super::name::is_name(&document.name) {
        problems.push("name: it must be lower-case letters, digits and single hyphens".to_owned());
    } else if folder.is_some_and(|folder| folder != document.name) {
        problems.push("name: it is not that of its folder".to_owned());
    }
    match document.source() {
        None => problems.push(format!("rules: exactly one of {SOURCES} must say where its controls come from")),
        Some(Source::Rules) => {}
        Some(_) if document.engine == BUILTIN => {
            problems.push("engine: it must be a scanner, for the profile has no rules".to_owned());
        }
        Some(_) => {}
    }
    if document.targets.is_empty() {
        problems.push("targets: no kind of target is there".to_owned());
    }
    problems
}

/// The control that every scanner's profile gets: its other verdicts are only about what the scanner could read.
fn read_whole() -> Control {
    Control {
        id: COMPLETE_CONTROL.to_owned(),
        title: "The scanner could read every file of the target".to_owned(),
        description:
            "A scanner passes over files that its user may not read, without a word, and over some by itself, \
                      which its definition names (leavesOut). What is in them was not looked at, whatever its other \
                      verdicts say."
                .to_owned(),
        check: "Before the scan, every path of the target is opened as the scanner's own user.".to_owned(),
        fix: "Look into the named paths with the builtin engine, which reads the layers of the image and needs no \
              permission in it."
            .to_owned(),
        severity: Severity::Low,
        references: vec![Reference { scheme: "nist".to_owned(), id: "RA-5".to_owned() }],
    }
}

/// The other one: whether the scanner kept to itself.
fn silent() -> Control {
    Control {
        id: SILENT_CONTROL.to_owned(),
        title: "The scanner talked to nobody but whom it may".to_owned(),
        description: "A scanner has everything that it needs in its pod, and its result is fetched from there. If it calls \
                      somewhere all the same, it may report what it saw, or rest its verdicts on something that came from \
                      nowhere that was verified. A network policy keeps it from getting through where it is enforced. It \
                      may talk to the API server where that is its way to the target, and to a service that policy names, \
                      of which a note in the record tells."
            .to_owned(),
        check: "While the scanner runs, the sockets and counters of its pod's network are read, without any rights."
            .to_owned(),
        fix: "Find out from the named addresses what the scanner wants there, and switch it off in the scanner's \
              definition: most have a setting for updates or telemetry."
            .to_owned(),
        severity: Severity::Medium,
        references: vec![Reference { scheme: "nist".to_owned(), id: "SC-7".to_owned() }],
    }
}
