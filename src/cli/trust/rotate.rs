//! `gapscan trust rotate`

use std::io::Write as _;
use std::path::PathBuf;

use jiff::Timestamp;
use tough::schema::RoleType;

use super::{print_fingerprint, role, role_number, role_of, role_span};
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::file::{self, FileError};
use crate::base::limits::Limits;
use crate::base::quantity::Span;
use crate::cli::table::count;
use crate::trust::passphrase::PassphraseSource;
use crate::trust::rotate::{LocalKeys, PendingRoot, Protection, RootChange, RootFolder, Rotated};

/// Bytes of a signature file: one of ECDSA P-256 in DER has at most 72.
const SIGNATURE_BYTES: u64 = 1024;

/// Make the next root: other keys, thresholds, expiry
///
/// The next root is signed by the root keys that there are and by those that come. Where not all of them are on this
/// machine, it waits as DIR/N.root.json.pending: carry that file to the other machines, run `gapscan trust rotate DIR --sign`
/// there, and bring it back; with the last signature it becomes DIR/N.root.json and DIR/root.json. Without options this
/// says what waits. Enclaves that have pinned an older root go on with it: every bundle carries the chain.
#[derive(Debug, clap::Args)]
pub(super) struct RotateArgs {
    /// The folder that `gapscan trust init` made
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Make a new key for this role; can be given several times
    #[arg(long, value_name = "ROLE", value_delimiter = ',', value_parser = role)]
    add: Vec<RoleType>,
    /// Take in a public key that was made elsewhere, as in an HSM: ECDSA P-256 in PEM
    #[arg(long, value_name = "ROLE=FILE", value_parser = role_file)]
    add_public: Vec<(RoleType, PathBuf)>,
    /// Remove a key: ROLE-N as its file is named, or at least eight digits of its id
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    remove: Vec<String>,
    /// How many signatures a role asks for, as root=2,targets=1
    #[arg(long, value_name = "ROLE=N", value_delimiter = ',', value_parser = role_number)]
    threshold: Vec<(RoleType, u64)>,
    /// How long metadata of a role stays valid; root=SPAN is how long the root does from now on [default: as before]
    #[arg(long, value_name = "ROLE=SPAN", value_delimiter = ',', value_parser = role_span)]
    expires: Vec<(RoleType, Span)>,
    /// Sign the root that waits with the root keys that are here
    #[arg(long, conflicts_with_all = ["add", "add_public", "remove", "threshold", "expires"])]
    sign: bool,
    /// Write the exact bytes that are to be signed to stdout, for a key that is elsewhere
    #[arg(long, conflicts_with_all = ["add", "add_public", "remove", "threshold", "expires", "sign", "signature"])]
    payload: bool,
    /// Add a signature over the payload that was made elsewhere (ECDSA over SHA-256 in DER); KEY is at least eight digits of
    /// its id
    #[arg(long, value_name = "KEY=FILE", value_parser = key_file,
          conflicts_with_all = ["add", "add_public", "remove", "threshold", "expires"])]
    signature: Vec<(String, PathBuf)>,
    /// The file whose first line is the passphrase of the keys [default: $GAPSCAN_PASSPHRASE, then the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Write new keys without encryption: whoever reads the files can sign
    #[arg(long)]
    unencrypted: bool,
}

fn role_file(text: &str) -> Result<(RoleType, PathBuf), String> {
    let (role, path) = role_of(text)?;
    Ok((role, path.into()))
}

/// `KEY=FILE`
pub(in crate::cli) fn key_file(text: &str) -> Result<(String, PathBuf), String> {
    let (key, path) = text.split_once('=').ok_or("write it as KEY=FILE")?;
    Ok((key.to_owned(), path.into()))
}

/// The bytes that a key elsewhere is to sign, and nothing else, on standard output.
pub(in crate::cli) fn print_payload(bytes: &[u8]) -> Outcome {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|source| FileError::Write { path: PathBuf::from("standard output"), source })?;
    Ok(ExitClass::Success)
}

impl RotateArgs {
    pub(super) fn run(self, now: Timestamp) -> Outcome {
        let change = RootChange {
            add: self.add,
            add_public: self.add_public,
            remove: self.remove,
            threshold: self.threshold,
            validity: self.expires,
        };
        let local = LocalKeys {
            passphrase: PassphraseSource { file: self.passphrase_file },
            protection: if self.unencrypted { Protection::Unencrypted } else { Protection::Passphrase },
        };
        let folder = RootFolder::open(&self.folder, Limits::default().root_rotations)?;
        if !change.is_empty() {
            let pending = folder.begin(&change, &local, now)?;
            if self.unencrypted && !change.add.is_empty() {
                eprintln!("the new keys are not encrypted: whoever can read the files can sign");
            }
            return keep(&folder, &pending);
        }
        let Some(mut pending) = folder.pending()? else {
            let path = folder.pending_path();
            if self.sign || self.payload || !self.signature.is_empty() {
                let message = format!("sign the next root: there is no `{}`", path.display());
                return Err(Failure::usage(message).with_remedy("carry it here from the machine where it was begun"));
            }
            println!("root {} is the newest, and none waits for signatures", folder.newest().version());
            return Ok(ExitClass::Success);
        };
        if self.payload {
            return print_payload(&pending.payload()?);
        }
        if !self.sign && self.signature.is_empty() {
            describe(&pending);
            tell_missing(&pending);
            return Ok(ExitClass::Success);
        }
        // Before anything is signed: a signature is given to what it says, not to a file.
        describe(&pending);
        for (key, path) in &self.signature {
            let added = pending.add(key, file::read_capped(path, SIGNATURE_BYTES)?)?;
            println!("{} {key}", if added { "added  signature by" } else { "signed already by" });
        }
        if self.sign {
            let signed = folder.sign(&mut pending, &local)?;
            for key in &signed {
                println!("signed by {key}");
            }
            if signed.is_empty() {
                println!("no root key of this machine is asked for, or all have signed already");
            }
        }
        keep(&folder, &pending)
    }
}

fn describe(pending: &PendingRoot) {
    println!("next root, version {}, changes this:", pending.root().version);
    for line in pending.changes() {
        println!("  {line}");
    }
}

fn keep(folder: &RootFolder, pending: &PendingRoot) -> Outcome {
    match folder.keep(pending)? {
        Rotated::Done(root) => {
            println!("root         version {}", root.version());
            print_fingerprint(&root);
        }
        Rotated::Waiting(path) => {
            println!("pending      {}", path.display());
            tell_missing(pending);
        }
    }
    Ok(ExitClass::Success)
}

fn tell_missing(pending: &PendingRoot) {
    for missing in pending.missing() {
        let more = missing.threshold.saturating_sub(missing.found);
        println!(
            "missing      {} by root keys of version {} ({} of {} there); any of:",
            count(usize::try_from(more).unwrap_or(usize::MAX), "signature"),
            missing.of,
            missing.found,
            missing.threshold
        );
        for key in &missing.keys {
            println!("             {key}");
        }
    }
}
