//! Approvals: detached signatures by people's keys over the exact bytes of a document, in files beside it.
//!
//! A signature is ECDSA P-256 over SHA-256 in DER, as those over a bundle's sums are, so that
//! `openssl dgst -sha256 -verify KEY -signature FILE.sig FILE` checks it too. Its file is named after the document and the
//! first eight digits of the key's id: `FILE.0123abcd.sig`.
//!
//! What hostile files beside a document may try, and where it ends ([`examine`]):
//! * one person who signs twice: two keys are two points, however many files or names they have;
//! * a signature under another's name: a name proves nothing, only what verifies counts;
//! * a document that was changed after somebody approved it, by a byte or a line end: that person's signature does not fit,
//!   and is told as such;
//! * so many or so large files that reading them takes for ever: the constants below.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};

use super::error::TrustError;
use super::key::{RoleKey, hex};
use super::public::{of_point, read_public_key, short_id};
use crate::base::file::{self, FileError};

/// Bytes of a signature file: one of ECDSA P-256 in DER has at most 72.
const SIGNATURE_BYTES: u64 = 1024;
/// Signature files beside one document.
const SIGNATURES: usize = 64;
/// Digits of the key id in the name of a signature.
const KEY_DIGITS: usize = 8;

/// Somebody whose approval counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approver {
    /// The key's id: 64 hexadecimal digits.
    pub id: String,
    /// The key as the uncompressed point.
    point: Vec<u8>,
}

/// A detached signature as it lies beside a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    /// The digits of a key's id in its file's name.
    pub digits: String,
    /// The signature, in DER if it is one.
    pub bytes: Vec<u8>,
}

/// What the signatures beside a document are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approvals {
    /// The ids of the approvers whose signature fits, each once, in their order.
    pub by: Vec<String>,
    /// The ids of approvers under whose name there is a signature that does not fit.
    pub misfits: Vec<String>,
    /// The digits of signatures that are by nobody who is named.
    pub strangers: Vec<String>,
}

/// The public keys in these files; a key that is in several of them is one approver.
///
/// # Errors
/// When a file can't be read, or holds no public key of ECDSA P-256.
pub fn approvers(files: &[PathBuf]) -> Result<Vec<Approver>, TrustError> {
    let mut approvers: Vec<Approver> = Vec::with_capacity(files.len());
    for file in files {
        let point = read_public_key(file)?;
        if approvers.iter().all(|known| known.point != point) {
            approvers.push(Approver { id: hex(&of_point(&point).1), point });
        }
    }
    Ok(approvers)
}

/// Where the signature of this key over the document at `path` is.
pub fn signature_path(path: &Path, key: &RoleKey) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.sig", short_id(key.id())));
    PathBuf::from(name)
}

/// The signatures beside the document at `path`, in the order of their names.
///
/// # Errors
/// When the folder or one of them can't be read, or there are too many.
pub fn beside(path: &Path) -> Result<Vec<Detached>, FileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let failed = |source| FileError::Read { path: folder.to_owned(), source };
    let document = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let digits = name
            .to_str()
            .and_then(|name| name.strip_prefix(&document)?.strip_prefix('.')?.strip_suffix(".sig"))
            .filter(|digits| digits.len() == KEY_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if let Some(digits) = digits {
            found.push((digits.to_owned(), entry.path()));
        }
        if found.len() > SIGNATURES {
            let reason = format!("more than {SIGNATURES} signatures of `{document}` are in it");
            return Err(failed(std::io::Error::other(reason)));
        }
    }
    found.sort();
    let read =
        |(digits, path): (String, PathBuf)| Ok(Detached { digits, bytes: file::read_capped(&path, SIGNATURE_BYTES)? });
    found.into_iter().map(read).collect()
}

/// Whose these signatures over `message` are. Pure.
pub fn examine(message: &[u8], signatures: &[Detached], approvers: &[Approver]) -> Approvals {
    let mut by = BTreeSet::new();
    let mut approvals = Approvals::default();
    for Detached { digits, bytes } in signatures {
        let fits = |approver: &&Approver| {
            ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &approver.point)
                .is_ok_and(|key| key.verify_sig(message, bytes).is_ok())
        };
        match approvers.iter().find(fits) {
            Some(approver) => {
                by.insert(approver.id.clone());
            }
            None => match approvers.iter().find(|approver| approver.id.starts_with(digits.as_str())) {
                Some(named) => approvals.misfits.push(named.id.clone()),
                None => approvals.strangers.push(digits.clone()),
            },
        }
    }
    approvals.by = by.into_iter().collect();
    approvals
}

#[cfg(test)]
mod tests {
    use super::super::public::to_pem;
    use super::*;

    fn approver(key: &RoleKey) -> Approver {
        Approver { id: key.id_hex(), point: key.point() }
    }

    fn signed(key: &RoleKey, message: &[u8]) -> Detached {
        Detached { digits: key.id_hex()[..KEY_DIGITS].to_owned(), bytes: key.sign(message) }
    }

    #[test]
    fn only_what_a_named_key_signed_counts_and_each_key_once() {
        let (alice, bob, mallory) = (RoleKey::generate(), RoleKey::generate(), RoleKey::generate());
        let named = [approver(&alice), approver(&bob)];
        let text = b"waivers: []\n";
        let both = examine(text, &[signed(&alice, text), signed(&bob, text)], &named);
        assert_eq!((both.by.len(), both.misfits.len(), both.strangers.len()), (2, 0, 0));

        let other_name = Detached { digits: "00000000".to_owned(), ..signed(&alice, text) };
        let twice = examine(text, &[signed(&alice, text), other_name], &[approver(&alice), approver(&alice)]);
        assert_eq!(twice.by, [alice.id_hex()], "one key is one approval, whatever it is called");

        let posing = Detached { digits: signed(&bob, text).digits, ..signed(&mallory, text) };
        let posed = examine(text, &[signed(&mallory, text), posing], &named);
        assert_eq!(posed.by, Vec::<String>::new());
        assert_eq!((posed.misfits, posed.strangers), (vec![bob.id_hex()], vec![signed(&mallory, text).digits]));

        for changed in [&b"waivers: []\r\n"[..], b"waivers: [] \n", b"waivers: []", b""] {
            let found = examine(changed, &[signed(&alice, text)], &named);
            assert_eq!((found.by, found.misfits), (Vec::new(), vec![alice.id_hex()]), "{changed:?}");
        }
        for garbage in [&b""[..], b"\x30", &[0xff; 72]] {
            let torn = Detached { bytes: garbage.to_vec(), ..signed(&alice, text) };
            assert_eq!(examine(text, &[torn], &named).misfits, [alice.id_hex()]);
        }
        assert_eq!(examine(text, &[signed(&alice, text)], &[]).by, Vec::<String>::new());
    }

    #[test]
    fn signatures_are_found_beside_their_document_and_keys_in_their_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("waivers.yaml");
        let key = RoleKey::generate();
        fs::write(signature_path(&path, &key), key.sign(b"x")).expect("write");
        for other in ["waivers.yaml.sig", "waivers.yaml.0123456.sig", "waivers.yaml.0123456g.sig", "x.01234567.sig"] {
            fs::write(folder.path().join(other), "x").expect("write");
        }
        assert_eq!(beside(&path).expect("a folder"), [signed(&key, b"x")]);
        let (one, two) = (folder.path().join("one.pub"), folder.path().join("two.pub"));
        for file in [&one, &two] {
            fs::write(file, to_pem(key.public()).expect("a P-256 key")).expect("write");
        }
        assert_eq!(approvers(&[one, two]).expect("keys"), [approver(&key)], "one key in two files is one approver");
        for at in 0..=SIGNATURES {
            fs::write(folder.path().join(format!("waivers.yaml.{at:08x}.sig")), "x").expect("write");
        }
        assert!(beside(&path).is_err(), "too many");
    }
}
