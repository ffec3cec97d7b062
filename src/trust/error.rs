//! What goes wrong with keys, metadata and remembered versions.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::base::exit::{Classify, ExitClass};
use crate::base::file::FileError;

/// Why something is not trusted, or a key can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The passphrase can't be had.
    #[error("read the passphrase {place}")]
    Passphrase {
        /// Where it was looked for.
        place: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The passphrase is empty, or the two that were typed differ.
    #[error("use the passphrase: {0}")]
    PassphraseUnfit(&'static str),
    /// Others than the owner may read the key file.
    #[error("use key `{}`: its mode is {mode:04o}, so that others than its owner can read or change it", .path.display())]
    KeyExposed {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The file holds no usable key, or the passphrase is wrong.
    #[error("open key `{}`: {reason}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file holds no usable public key.
    #[error("read public key `{}`: {reason}", .path.display())]
    PublicKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key that is named can't be told.
    #[error("find key `{key}`: {reason}")]
    NoSuchKey {
        /// As it was named.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// The runner's key is not the one that it was.
    #[error("use the runner's key `{}`: {reason}", .path.display())]
    RunnerKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// There are not enough keys for a role.
    #[error("sign the {role} metadata: the root asks for {threshold} signature(s) and {found} of its keys are in `{}`", .folder.display())]
    KeysMissing {
        /// The role.
        role: &'static str,
        /// How many signatures are needed.
        threshold: u64,
        /// How many of its keys were found.
        found: u64,
        /// Where they were looked for.
        folder: PathBuf,
    },
    /// What was asked for when a root was made makes no sense.
    #[error("make a root: {0}")]
    RootPlan(String),
    /// The file that is to be pinned is no root.
    #[error("read `{}` as a root: {reason}", .path.display())]
    NoRoot {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A metadata file is not what it must be.
    #[error("read {file}: {reason}")]
    Metadata {
        /// Its name in the bundle.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// A signature is by a key that the root does not name for this role.
    #[error("verify {file}: it is signed by key {keyid}, which the root does not name for this role")]
    UnknownKey {
        /// The metadata's name in the bundle.
        file: String,
        /// The key's id.
        keyid: String,
    },
    /// A signature does not fit the content.
    #[error("verify {file}: the signature by key {keyid} does not fit its content")]
    Signature {
        /// The metadata's name in the bundle.
        file: String,
        /// The key's id.
        keyid: String,
    },
    /// There are fewer valid signatures than the root asks for.
    #[error("verify {file}: {found} valid signature(s), and the root asks for {threshold}")]
    Threshold {
        /// The metadata's name in the bundle.
        file: String,
        /// How many are valid.
        found: u64,
        /// How many are needed.
        threshold: u64,
    },
    /// The bundle's chain of roots does not contain the pinned root.
    #[error("verify the chain of roots: {0}")]
    OtherRoot(String),
    /// The TUF client refused the metadata.
    #[error("verify the metadata")]
    Tuf(#[source] Box<tough::error::Error>),
    /// The TUF client's scratch folder can't be used.
    #[error("use a temporary folder for the metadata")]
    Scratch(#[source] Box<tough::error::Error>),
    /// A role's metadata is out of date.
    #[error("verify the {role} metadata: it expired at {expires}, and the clock says {now}")]
    Expired {
        /// The role.
        role: &'static str,
        /// When it expired.
        expires: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// The bundle comes from the future, so one of the clocks is wrong.
    #[error("accept {what}: it was made at {created}, and the clock says {now}")]
    NotYetValid {
        /// Which bundle.
        what: String,
        /// When it says that it was made.
        created: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// An older version than one that was accepted before.
    #[error(
        "accept {what} in version {offered}: version {known} was accepted before, and older content could hide what is known today"
    )]
    Rollback {
        /// Which bundle.
        what: String,
        /// The version offered.
        offered: u64,
        /// The highest version known.
        known: u64,
    },
    /// Its newest root is older than one that was seen.
    #[error(
        "accept {what}: it ends at root {offered}, and root {known} was seen before, which may have revoked the keys that signed it"
    )]
    RootRollback {
        /// Which bundle.
        what: String,
        /// The version of its newest root.
        offered: u64,
        /// The version of the newest root known.
        known: u64,
    },
    /// The version that was accepted before had other content.
    #[error(
        "accept {what} in version {version}: that version was accepted before with other content ({known}, now {offered})"
    )]
    OtherContent {
        /// Which bundle.
        what: String,
        /// The version.
        version: u64,
        /// The digest of its content that is known.
        known: String,
        /// The digest of its content that is offered.
        offered: String,
    },
    /// It, or something in it, was revoked by a bundle that was loaded.
    #[error("accept {what}: it was revoked: {reason}")]
    Revoked {
        /// Which bundle, and what of it.
        what: String,
        /// As the revocation says.
        reason: String,
    },
    /// The permit for an older version is over.
    #[error(
        "accept {what} in version {version}: the permit for this older version ended at {until}, and the clock says {now}"
    )]
    PermitOver {
        /// Which bundle.
        what: String,
        /// The older version.
        version: u64,
        /// When it ended.
        until: Timestamp,
        /// The clock.
        now: Timestamp,
    },
    /// The permit for an older version was used, and a newer one was loaded since.
    #[error("accept {what} in version {version}: the permit for this older version was used already")]
    PermitUsed {
        /// Which bundle.
        what: String,
        /// The older version.
        version: u64,
    },
    /// The state knows less than was recorded elsewhere.
    #[error(
        "accept {what}: the ledger has results by {recorded}, and the state remembers {remembered}, so it was lost or exchanged"
    )]
    StateLost {
        /// Which bundle.
        what: String,
        /// What was recorded.
        recorded: String,
        /// What is remembered.
        remembered: String,
    },
    /// The clock was set back.
    #[error("accept {what}: the clock says {now}, which is before {known}, a time that was seen already")]
    ClockBack {
        /// Which bundle.
        what: String,
        /// The clock.
        now: Timestamp,
        /// The latest known time.
        known: Timestamp,
    },
    /// There is more to remember than the state takes.
    #[error("keep what this bundle says about others in `{}`: {reason}", .path.display())]
    StateFull {
        /// The file.
        path: PathBuf,
        /// What would be too much.
        reason: String,
    },
    /// The file of remembered versions can't be understood.
    #[error("read the remembered versions in `{}`: {reason}", .path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Classify for TrustError {
    fn class(&self) -> ExitClass {
        match self {
            Self::File(error) => error.class(),
            Self::Scratch(_) => ExitClass::Unreachable,
            Self::Passphrase { .. }
            | Self::PassphraseUnfit(_)
            | Self::NoRoot { .. }
            | Self::KeyExposed { .. }
            | Self::Key { .. }
            | Self::PublicKey { .. }
            | Self::NoSuchKey { .. }
            | Self::RunnerKey { .. }
            | Self::KeysMissing { .. }
            | Self::RootPlan(_) => ExitClass::Usage,
            Self::Metadata { .. }
            | Self::UnknownKey { .. }
            | Self::Signature { .. }
            | Self::Threshold { .. }
            | Self::OtherRoot(_)
            | Self::Tuf(_)
            | Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::Rollback { .. }
            | Self::RootRollback { .. }
            | Self::OtherContent { .. }
            | Self::Revoked { .. }
            | Self::PermitOver { .. }
            | Self::PermitUsed { .. }
            | Self::StateLost { .. }
            | Self::ClockBack { .. }
            | Self::StateFull { .. }
            | Self::State { .. } => ExitClass::Refused,
        }
    }

    fn remedy(&self) -> Option<String> {
        let text = match self {
            Self::File(error) => return error.remedy(),
            Self::Passphrase { .. } => "give --passphrase-file or set GAPSCAN_PASSPHRASE where there is no terminal",
            Self::KeyExposed { path, .. } => return Some(format!("chmod 600 '{}'", path.display())),
            Self::UnknownKey { .. } => {
                "have it signed by keys that the newest root names: `gapscan trust show` lists them, and says whether it is the same root on both sides"
            }
            Self::OtherRoot(_) => {
                "compare the fingerprint that `gapscan trust show` prints on both sides; a bundle must be built under the pinned root or one that follows it"
            }
            Self::Signature { .. } | Self::Threshold { .. } | Self::Metadata { .. } => {
                "the file was damaged or tampered with: fetch it again and compare its SHA-256 on both sides"
            }
            Self::Expired { .. } => {
                "check the clock; if it is right, build the bundle anew on the connected host, so that it is current"
            }
            Self::NotYetValid { .. } | Self::ClockBack { .. } => "check the clocks of both hosts",
            Self::RootRollback { .. } => "build the bundle anew under the newest root",
            Self::Rollback { .. } => "load the newest bundle, or build one with a higher version",
            Self::OtherContent { .. } => "raise `version` in bundle.yaml whenever its content changes",
            Self::Revoked { .. } => "load a newer bundle without it; what was revoked stays revoked",
            Self::PermitOver { .. } | Self::PermitUsed { .. } => {
                "load the newest version, or ask those who sign bundles for a new permit"
            }
            Self::StateLost { .. } => {
                "restore the state from a backup, or repeat with --state-from-ledger, and then load all bundles with notices again"
            }
            Self::StateFull { .. } => {
                "what was revoked can't be forgotten: begin another root with `gapscan trust init` and pin it"
            }
            Self::State { .. } => {
                "restore the file from a backup; without it older bundles could be passed off as new ones"
            }
            Self::Scratch(_) => "set TMPDIR to a folder that can be written",
            Self::NoRoot { .. } => {
                "name the root.json that `gapscan trust init` made; if this is it, it was damaged: compare its SHA-256 with the original's"
            }
            Self::Key { .. } => "give the passphrase that the keys were made with, or bring the key back from a backup",
            Self::PublicKey { .. } => "openssl makes one: openssl pkey -in KEY -pubout",
            Self::NoSuchKey { .. } => "`gapscan trust show` lists the ids of the keys",
            Self::RunnerKey { .. } => {
                "bring both halves back from a backup; for a new key remove both, and tell whoever trusts the old one"
            }
            Self::KeysMissing { .. } => "put the missing key files into the folder that --keys names",
            Self::Tuf(_) => "check the clock; fetch the file again and compare its SHA-256 on both sides",
            Self::PassphraseUnfit(_) | Self::RootPlan(_) => return None,
        };
        Some(text.to_owned())
    }
}
