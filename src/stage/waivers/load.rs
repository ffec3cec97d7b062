//! Reading documents of waivers and their signatures, and deciding which count.

use std::path::{Path, PathBuf};

use crate::base::digest::Digest;
use crate::base::document;
use crate::base::file;
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::evidence::Evidence;
use crate::model::waiver::{self, Waiver, WaiverDocument, WaiverRef};
use crate::stage::plan::{Unsigned, WaiverPolicy};
use crate::stage::scan::error_chain;
use crate::trust::TrustError;
use crate::trust::approval::{self, Approvals, Approver, Detached};

/// What a document of waivers is called among evidence, and its media type.
const DOCUMENT: (&str, &str) = ("waivers", "application/yaml");
/// The same of a signature over one.
const SIGNATURE: (&str, &str) = ("waivers-signature", "application/octet-stream");

/// The files of a policy.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Those that count.
    pub documents: Vec<WaiverDocument>,
    /// Those that don't.
    pub refused: Vec<Refusal>,
}

/// Why a file of waivers does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file.
    pub path: PathBuf,
    /// A sentence.
    pub why: String,
}

/// All that a file of waivers is.
#[derive(Debug)]
pub struct Looked {
    /// The file.
    pub path: PathBuf,
    /// The digest of its bytes; absent where it can't be read.
    pub digest: Option<Digest>,
    /// Its waivers, or why there are none.
    pub waivers: Result<Vec<Waiver>, String>,
    /// Whose signatures are beside it.
    pub approvals: Approvals,
    /// The document as it counts, or why it does not.
    pub verdict: Result<WaiverDocument, String>,
}

/// The files of this policy, each of which counts or is refused; one that is named twice is there once.
pub fn load(policy: &WaiverPolicy, limits: &Limits) -> Loaded {
    let approvers = approval::approvers(&policy.approvers);
    let mut loaded = Loaded::default();
    for path in &policy.files {
        match look(path, policy, &approvers, limits).verdict {
            Ok(document) => {
                let known = |other: &WaiverDocument| other.reference.digest == document.reference.digest;
                if !loaded.documents.iter().any(known) {
                    loaded.documents.push(document);
                }
            }
            Err(why) => loaded.refused.push(Refusal { path: path.clone(), why }),
        }
    }
    loaded
}

/// Reads the document at `path` with its signatures, and judges it by this policy.
pub fn look(
    path: &Path,
    policy: &WaiverPolicy,
    approvers: &Result<Vec<Approver>, TrustError>,
    limits: &Limits,
) -> Looked {
    let nothing = |why: String| Looked {
        path: path.to_owned(),
        digest: None,
        waivers: Err(why.clone()),
        approvals: Approvals::default(),
        verdict: Err(why),
    };
    // Read once: what is verified is what is parsed, applied and kept.
    let bytes = match file::read_capped(path, limits.document_bytes) {
        Ok(bytes) => bytes,
        Err(error) => return nothing(error_chain(&error)),
    };
    let signatures = match approval::beside(path) {
        Ok(signatures) => signatures,
        Err(error) => return nothing(error_chain(&error)),
    };
    let named = approvers.as_deref().unwrap_or_default();
    let approvals = approval::examine(&bytes, &signatures, named);
    let approved = match approvers {
        Ok(named) => approved(&approvals, named, policy),
        Err(error) => Err(error_chain(error)),
    };
    let waivers =
        document::decoded(path, &bytes).and_then(|text| waiver::read(path, text)).map_err(|error| error_chain(&error));
    let digest = Digest::of(&bytes);
    let verdict = match (&approved, &waivers) {
        (Err(why), _) | (Ok(()), Err(why)) => Err(why.clone()),
        (Ok(()), Ok(waivers)) => {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(WaiverDocument {
                reference: WaiverRef { digest, file, approvals: approvals.by.clone() },
                waivers: waivers.clone(),
                longest: policy.max_duration.map(WaiverDocument::longest),
                evidence: evidence(bytes, &signatures, &approvals),
            })
        }
    };
    Looked { path: path.to_owned(), digest: Some(digest), waivers, approvals, verdict }
}

/// Whether enough of those who may have approved. Pure.
///
/// # Errors
/// When they have not, in words for people.
fn approved(approvals: &Approvals, named: &[Approver], policy: &WaiverPolicy) -> Result<(), String> {
    if named.is_empty() {
        return match policy.unsigned {
            Unsigned::Accept => Ok(()),
            Unsigned::Refuse => Err("nobody is named in policy.waivers.approvers who may approve it, and policy.waivers.unsigned does not accept it without".to_owned()),
        };
    }
    if let Some(misfit) = approvals.misfits.first() {
        return Err(format!(
            "the signature by key {} does not fit: it was changed after it was approved",
            brief(misfit)
        ));
    }
    let (found, needed) = (approvals.by.len(), policy.threshold());
    if found < needed {
        let strangers = match approvals.strangers.as_slice() {
            [] => String::new(),
            others => format!("; these keys signed it and are not named: {}", others.join(", ")),
        };
        return Err(format!("{found} of those who may approve it have signed it, and {needed} have to{strangers}"));
    }
    Ok(())
}

/// The document and the signatures that count, so that whoever has the public keys can check them again.
fn evidence(bytes: Vec<u8>, signatures: &[Detached], approvals: &Approvals) -> Vec<Evidence> {
    let counts = |signature: &&Detached| !approvals.strangers.contains(&signature.digits);
    let signatures = signatures.iter().filter(counts);
    let document = Evidence::new(DOCUMENT.0, DOCUMENT.1, bytes);
    let signature = |s: &Detached| Evidence::new(format!("{} {}", SIGNATURE.0, s.digits), SIGNATURE.1, s.bytes.clone());
    std::iter::once(document).chain(signatures.map(signature)).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::num::NonZeroUsize;

    use super::*;
    use crate::trust::key::RoleKey;
    use crate::trust::public::to_pem;

    const TEXT: &str = "apiVersion: gapscan/v1\nkind: Waivers\nwaivers: []\n";

    /// A folder with a document and these people's public keys.
    fn desk(people: usize) -> (tempfile::TempDir, Vec<RoleKey>, WaiverPolicy) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("w.yaml");
        fs::write(&path, TEXT).expect("write");
        let keys: Vec<RoleKey> = (0..people).map(|_| RoleKey::generate()).collect();
        let mut policy = WaiverPolicy { files: vec![path], ..WaiverPolicy::default() };
        for (at, key) in keys.iter().enumerate() {
            let file = folder.path().join(format!("{at}.pub"));
            fs::write(&file, to_pem(key.public()).expect("a P-256 key")).expect("write");
            policy.approvers.push(file);
        }
        (folder, keys, policy)
    }

    fn sign(policy: &WaiverPolicy, key: &RoleKey) {
        let path = &policy.files[0];
        let bytes = fs::read(path).expect("read");
        fs::write(approval::signature_path(path, key), key.sign(&bytes)).expect("write");
    }

    /// Why the document does not count.
    fn why(policy: &WaiverPolicy) -> Option<String> {
        let Loaded { documents, mut refused } = load(policy, &Limits::default());
        assert_eq!(documents.len() + refused.len(), 1);
        refused.pop().map(|refusal| refusal.why)
    }

    #[test]
    fn a_document_counts_when_enough_of_those_who_may_have_signed_these_bytes() {
        let (folder, keys, policy) = desk(3);
        assert!(why(&policy).expect("unsigned").contains("0 of those"));
        sign(&policy, &keys[0]);
        assert!(why(&policy).expect("one").contains("1 of those"));
        let once = WaiverPolicy { threshold: NonZeroUsize::new(1), ..policy.clone() };
        assert_eq!(why(&once), None);
        let twice = fs::read(approval::signature_path(&policy.files[0], &keys[0])).expect("read");
        fs::write(folder.path().join("w.yaml.00000000.sig"), twice).expect("write");
        assert!(why(&policy).expect("the same key twice").contains("1 of those"));
        fs::remove_file(folder.path().join("w.yaml.00000000.sig")).expect("remove");
        sign(&policy, &RoleKey::generate());
        assert!(why(&policy).expect("a stranger").contains("are not named"));
        sign(&policy, &keys[1]);
        assert_eq!(why(&policy), None);
        let loaded = load(&policy, &Limits::default());
        assert_eq!(loaded.documents[0].reference.approvals.len(), 2);
        assert_eq!(loaded.documents[0].evidence.len(), 3, "the document and the signatures that count");
        let named_twice = WaiverPolicy { files: vec![policy.files[0].clone(); 2], ..policy.clone() };
        assert_eq!(load(&named_twice, &Limits::default()).documents.len(), 1);
    }

    #[test]
    fn a_document_that_was_changed_after_somebody_signed_it_does_not_count() {
        let (_folder, keys, policy) = desk(3);
        sign(&policy, &keys[0]);
        fs::write(&policy.files[0], TEXT.replace('\n', "\r\n")).expect("write");
        sign(&policy, &keys[1]);
        sign(&policy, &keys[2]);
        assert!(why(&policy).expect("one signed something else").contains("changed after it was approved"));
        sign(&policy, &keys[0]);
        assert_eq!(why(&policy), None);
    }

    #[test]
    fn what_can_not_be_read_or_understood_is_refused_and_so_is_what_nobody_may_approve() {
        let (folder, _, mut policy) = desk(0);
        assert!(why(&policy).expect("nobody may").contains("nobody is named"));
        policy.unsigned = Unsigned::Accept;
        assert_eq!(why(&policy), None);
        fs::write(&policy.files[0], "apiVersion: gapscan/v1\nkind: Waivers\nwaivres: []\n").expect("write");
        assert!(why(&policy).expect("malformed").contains("waivres"));
        fs::write(&policy.files[0], b"\xff\xfe").expect("write");
        assert!(why(&policy).expect("no text").contains("no UTF-8"));
        fs::remove_file(&policy.files[0]).expect("remove");
        assert!(why(&policy).is_some(), "gone");
        fs::create_dir(&policy.files[0]).expect("a folder");
        assert!(why(&policy).is_some(), "a folder");
        policy.approvers = vec![folder.path().join("nobody.pub")];
        assert!(why(&policy).is_some(), "a key that is not there");
    }
}
