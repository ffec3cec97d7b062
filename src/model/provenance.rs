//! Where a result comes from: everything an assessor needs to repeat or to doubt it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::digest::Digest;

/// Where one task's result comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// The version of gapscan that ran it.
    pub gapscan: String,
    /// What judged.
    pub engine: Engine,
    /// The verified bundle that scanner, profile and databases came from; absent for the built-in profiles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<BundleRef>,
    /// Databases and other content that the verdicts depend on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<ContentRef>,
    /// How the target was reached.
    pub approach: Approach,
    /// That gapscan did not make this result, but was given it as a file; boxed, since few results are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported: Option<Box<Imported>>,
    /// As whom: a service account, a local user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Whether NetworkPolicies were seen to be enforced before anything ran in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkProof>,
    /// Whether what was created for this task is verified to be gone again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleanup: Option<Cleanup>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
}

/// The begin of the name of what judged an imported result: no scanner definition has such a name, so that an imported result
/// is never taken for one of gapscan's own, nor replaces one.
pub const IMPORT: &str = "import:";

impl Provenance {
    /// When this became known to whoever records it: for a result that was imported that is later than when it was made, and
    /// what a file says of its time moves no clock.
    pub fn known_at(&self) -> Timestamp {
        self.imported.as_ref().map_or(self.finished, |imported| imported.at)
    }
}

/// Where an imported result comes from. gapscan vouches for the bytes, which are kept as evidence, and for who gave them; not for
/// how they came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// The file's name, without the folders above it; `-` for the standard input. It is somebody's text.
    pub file: String,
    /// The digest of its bytes.
    pub digest: Digest,
    /// How many bytes it has.
    pub length: u64,
    /// The user of the operating system who imported it, as `uid 0 (root)`.
    pub by: String,
    /// When it was imported.
    pub at: Timestamp,
    /// In which format it was read: a word of docs/formats.md; absent where none was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// The scanner, as the file says itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scanner: String,
    /// What was scanned, as the file says itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subjects: Vec<String>,
    /// Who says which target it is.
    pub target: Said,
    /// Who says what was expected.
    pub expected: Expectation,
    /// Who says when the scan was; absent where nobody does, and its times are those of the import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Said>,
}

/// Who says something of an imported result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// The file itself.
    ByFile,
    /// Whoever imported it.
    ByImporter,
}

/// What an imported result is measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expectation {
    /// The controls of a profile: what the file lacks of them was not evaluated.
    Profile,
    /// Only what the file itself mentions: nobody knows what was expected, so that what it left out is not missed.
    SelfDeclared,
}

impl Imported {
    /// All that a reader of the result must know of it, in one sentence each.
    pub fn notes(&self) -> Vec<String> {
        let Self { file, digest, by, at, .. } = self;
        let at = at.strftime("%Y-%m-%d %H:%M:%SZ");
        let from = match file.as_str() {
            "-" => "the standard input".to_owned(),
            file => format!("the file `{}`", crate::base::text::brief(file)),
        };
        let mut notes = vec![format!(
            "imported at {at} by {by} from {from}, {digest}: gapscan did not run this scan, and knows of it what the file says"
        )];
        if self.expected == Expectation::SelfDeclared {
            notes.push(
                "self-declared: its controls are those that the file itself mentions, and nobody knows what was expected"
                    .to_owned(),
            );
        }
        match self.time {
            Some(Said::ByFile) => {}
            Some(Said::ByImporter) => notes.push("the time of the scan is what whoever imported it says".to_owned()),
            None => notes.push("the time of the scan is not known: what is shown is the time of the import".to_owned()),
        }
        if self.target == Said::ByImporter {
            let said: Vec<String> = self.subjects.iter().take(5).map(|one| crate::base::text::brief(one)).collect();
            notes.push(match said.is_empty() {
                true => "what was scanned is what whoever imported it says: the file says nothing of it".to_owned(),
                false => format!(
                    "what was scanned is what whoever imported it says; the file says that it is {}{}",
                    said.join(", "),
                    if self.subjects.len() > said.len() { " and more" } else { "" }
                ),
            });
        }
        notes
    }
}

/// What judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// `builtin`, or the scanner definition's name; with [`IMPORT`] in front a result's format, where it was imported.
    pub name: String,
    /// As the scanner says itself; empty where it says nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// The digest of the scanner's image; absent for the builtin engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
}

/// Names a verified bundle.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BundleRef {
    /// The bundle's name.
    pub name: String,
    /// The bundle's version; higher is newer.
    pub version: u64,
    /// The digest of its signed list of targets, which names all its content.
    pub digest: Digest,
    /// The fingerprint of the root that vouches for it.
    pub root: Digest,
}

/// Content that verdicts depend on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContentRef {
    /// Its name in the bundle.
    pub name: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// When it was built, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<Timestamp>,
}

/// How a target was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Approach {
    /// By exec into the container.
    Exec,
    /// By an ephemeral container beside the container.
    Debug,
    /// By a scanner in a copy of the pod.
    Sidecar,
    /// By a Job on the node, with the node's files mounted read-only.
    Node,
    /// From the image in the registry.
    Image,
    /// By a scanner pod with the image mounted as a volume.
    ImageVolume,
    /// By a scanner pod that was given the image as an archive.
    ImageArchive,
    /// Through the API server.
    Objects,
    /// From the files and processes of this machine.
    Local,
    /// By somebody else: the result came as a file.
    Imported,
    /// By somebody who watches it, and sent alerts.
    Alerts,
    /// It was not reached at all.
    None,
}

impl Approach {
    /// The word for it in records.
    pub fn word(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Debug => "debug",
            Self::Sidecar => "sidecar",
            Self::Node => "node",
            Self::Image => "image",
            Self::ImageVolume => "image-volume",
            Self::ImageArchive => "image-archive",
            Self::Objects => "objects",
            Self::Local => "local",
            Self::Imported => "imported",
            Self::Alerts => "alerts",
            Self::None => "none",
        }
    }
}

/// What the canary saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkProof {
    /// Whether default-deny was seen to be enforced in both directions.
    pub enforced: bool,
    /// When it was looked at.
    pub at: Timestamp,
    /// What was tried and what happened, for people.
    pub detail: String,
    /// What an allowance for one address and port opens; absent where it was not tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowance: Option<AllowanceProof>,
}

/// What a NetworkPolicy that names one address and one port by itself was seen to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllowanceProof {
    /// That address and port, and nothing else that was tried.
    Exact,
    /// Not even that: some networks don't match such rules with addresses of the cluster's own. What needs one will not get
    /// through here.
    Closed,
}

/// What became of the objects that a task created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cleanup {
    /// Objects that were created, as `kind/namespace/name`.
    pub created: Vec<String>,
    /// Objects of these that could not be verified to be gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remaining: Vec<String>,
}
