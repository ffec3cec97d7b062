//! The receipt of a load: written after the last tag moved, signed by the runner's key, and read by whoever has its public
//! half. A load that did not come to its end leaves none.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::LoadError;
use crate::base::digest::Digest;
use crate::base::document::ApiVersion;
use crate::base::file::{self, FileError};
use crate::base::limits::Limits;
use crate::base::text::brief;
use crate::model::receipt::{LoadReceipt, RECEIPT_KIND, RECEIPT_MEDIA_TYPE, Runner};
use crate::trust::envelope;
use crate::trust::public::read_public_key;
use crate::trust::runner::runner_key;

/// The folder of receipts in the folder of the state.
pub const RECEIPTS: &str = "receipts";

/// Bytes of a user database that are read for a name.
const PASSWD_BYTES: u64 = 1 << 20;

/// Bytes of a registry's part of a file name; what is longer is told apart by its digest. Names have 255 in all.
const REGISTRY_PART: usize = 100;

/// Where the receipt of this bundle's load into this registry, `HOST[:PORT][/PREFIX]`, lies in the folder of the state:
/// `BUNDLE.VERSION.REGISTRY.receipt`, with `/` of the registry written as `+` and `:` as `=`. The receipts of one version for
/// two registries never have one name.
pub fn receipt_path(state: &Path, bundle: &str, version: u64, registry: &str) -> PathBuf {
    state.join(RECEIPTS).join(format!("{bundle}.{version}.{}.receipt", registry_part(registry)))
}

/// The registry as a part of a file name. No two have one: `+`, `=` and `~` are in no registry's name, and capital letters,
/// which some file systems don't tell from small ones, are written as bytes.
fn registry_part(registry: &str) -> String {
    let mut part = String::new();
    for byte in registry.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => part.push(char::from(byte)),
            b'/' => part.push('+'),
            b':' => part.push('='),
            other => part.push_str(&format!("~{other:02x}")),
        }
    }
    if part.len() > REGISTRY_PART {
        part.truncate(REGISTRY_PART);
        part.push_str(&format!("~~{}", Digest::of(registry).hex()));
    }
    part
}

/// Signs the receipt with the runner's key in `state`, which is made when there is none, and writes it there, and to `copy`
/// as well. Gives where it is.
///
/// # Errors
/// When the key can't be used or a file not be written.
pub fn write_receipt(receipt: &LoadReceipt, state: &Path, copy: Option<&Path>) -> Result<PathBuf, LoadError> {
    let key = runner_key(state)?;
    let payload = serde_json::to_vec(receipt).expect("strings, numbers and maps have a JSON form");
    let sealed = envelope::seal(RECEIPT_MEDIA_TYPE, &payload, &key);
    let path = receipt_path(state, &receipt.bundle.name, receipt.bundle.version, &receipt.registry);
    let folder = state.join(RECEIPTS);
    fs::create_dir_all(&folder).map_err(|source| FileError::Write { path: folder, source })?;
    for path in [Some(path.as_path()), copy].into_iter().flatten() {
        file::write_atomic(path, &sealed, 0o644)?;
    }
    Ok(path)
}

/// Reads a receipt that was signed with the key whose public half is in `key` (PEM).
///
/// # Errors
/// When it is not signed by that key, or is no receipt.
pub fn read_receipt(path: &Path, key: &Path, limits: &Limits) -> Result<LoadReceipt, LoadError> {
    let refuse = |reason: String| LoadError::Receipt { path: path.to_owned(), reason };
    // Base64 makes four characters of three bytes; what it lists is what metadata lists.
    let sealed = file::read_capped(path, 4 * limits.metadata_bytes)?;
    let key = read_public_key(key)?;
    let payload = envelope::open(&format!("receipt `{}`", path.display()), &sealed, RECEIPT_MEDIA_TYPE, &key)?;
    let receipt: LoadReceipt = serde_json::from_slice(&payload).map_err(|e| refuse(e.to_string()))?;
    if receipt.kind != RECEIPT_KIND || receipt.api_version != ApiVersion::V1 {
        return Err(refuse(format!("its kind is `{}`", brief(&receipt.kind))));
    }
    Ok(receipt)
}

/// Who runs this process: the machine's name as it says itself, and the user of the process.
pub fn runner() -> Runner {
    let uid = rustix::process::getuid().as_raw();
    let users = file::read_capped(Path::new("/etc/passwd"), PASSWD_BYTES).unwrap_or_default();
    Runner {
        gapscan: env!("CARGO_PKG_VERSION").to_owned(),
        host: brief(&rustix::system::uname().nodename().to_string_lossy()),
        user: user_name(&String::from_utf8_lossy(&users), uid).map_or_else(|| uid.to_string(), brief),
    }
}

/// The name of a user in a user database (passwd(5)).
fn user_name(users: &str, uid: u32) -> Option<&str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::base::exit::{Classify, ExitClass};
    use crate::model::provenance::BundleRef;
    use crate::model::receipt::{Outcome, ReadBack, ReceiptBlob};
    use crate::trust::runner::RUNNER_PUBLIC_KEY;

    fn receipt() -> LoadReceipt {
        let repositories = BTreeMap::from([("images/web".to_owned(), Outcome::Pushed)]);
        LoadReceipt {
            api_version: ApiVersion::V1,
            kind: RECEIPT_KIND.to_owned(),
            bundle: BundleRef { name: "b".to_owned(), version: 2, digest: Digest::of("b"), root: Digest::of("r") },
            base: None,
            registry: "r.example/a".to_owned(),
            started: "2026-01-01T00:00:00Z".parse().expect("a time"),
            finished: "2026-01-01T00:00:01Z".parse().expect("a time"),
            by: runner(),
            sources: vec!["b.tar".to_owned()],
            read_back: ReadBack::Sample,
            items: Vec::new(),
            blobs: vec![ReceiptBlob { digest: Digest::of("x"), size: 1, repositories, read_back: true }],
            tags: Vec::new(),
        }
    }

    #[test]
    fn a_receipt_is_read_with_the_runners_key_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (state, other) = (folder.path().join("state"), folder.path().join("other"));
        let copy = folder.path().join("copy");
        let path = write_receipt(&receipt(), &state, Some(&copy)).expect("written");
        assert_eq!(path, state.join("receipts/b.2.r.example+a.receipt"));
        assert_eq!(fs::read(&path).expect("it"), fs::read(&copy).expect("its copy"));
        let limits = Limits::default();
        let read = read_receipt(&path, &state.join(RUNNER_PUBLIC_KEY), &limits).expect("read");
        assert_eq!(read, receipt());

        write_receipt(&receipt(), &other, None).expect("written");
        let error = read_receipt(&path, &other.join(RUNNER_PUBLIC_KEY), &limits).expect_err("another key");
        assert_eq!(error.class(), ExitClass::Refused, "{error}");
        let mut bytes = fs::read(&path).expect("it");
        let at = bytes.len() / 3;
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        fs::write(&path, bytes).expect("changed");
        assert!(read_receipt(&path, &state.join(RUNNER_PUBLIC_KEY), &limits).is_err());
    }

    #[test]
    fn the_receipts_of_one_bundle_for_two_registries_have_two_names() {
        let deep = format!("r.example/{}", ["a"; 100].join("/"));
        let deeper = format!("{deep}/a");
        let names = [
            "r.example",
            "r.example:5000",
            "r.example/5000",
            "r.example/a",
            "r.example/a/b",
            "r.example/a_b",
            "r.example/a.b",
            "r.example/a-b",
            "[::1]:5000/a",
            deep.as_str(),
            deeper.as_str(),
        ];
        let paths: BTreeSet<PathBuf> = names.iter().map(|name| receipt_path(Path::new("s"), "b", 1, name)).collect();
        assert_eq!(paths.len(), names.len(), "{paths:?}");
        for path in &paths {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            let safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-+=~".contains(c);
            assert!(name.len() < 255 && name.starts_with("b.1.") && name.chars().all(safe), "{name}");
            assert_eq!(path.parent(), Some(Path::new("s/receipts")));
        }
    }

    #[test]
    fn users_have_names_or_numbers() {
        let users = "root:x:0:0::/root:/bin/sh\n# a comment\n:x:7:7::/:\nbroken\nscan:x:1000:1000::/:/bin/false\n";
        assert_eq!(user_name(users, 0), Some("root"));
        assert_eq!(user_name(users, 1000), Some("scan"));
        assert_eq!(user_name(users, 7), None);
        assert_eq!(user_name("", 5), None);
    }
}
