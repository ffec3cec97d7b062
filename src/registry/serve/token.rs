//! Tokens: short-lived rights on some repositories, which the server remembers nothing of.
//!
//! A token is `gapscan1.PAYLOAD.MAC`: the rights and the end as JSON, and their HMAC-SHA-256 by a key that is in the data
//! folder, both in base64url. So it is valid after a restart, and nobody makes one without reading that folder. What a
//! holder may try, and where it ends: another payload, key or algorithm (the MAC is over the exact text and compared in
//! constant time; there is one algorithm); a token past its end (`now` is compared); wider rights from `/token` (what is
//! given is what was asked for *and* held, and ends no later). A key that is replaced ends every token.

use std::path::Path;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;
use zeroize::Zeroizing;

use super::error::ServeError;
use super::store::make_folders;
use crate::base::file::{self, FileError};
use crate::registry::reference::Repository;

/// What every token begins with.
pub(in crate::registry) const PREFIX: &str = "gapscan1.";
const KEY_FILE: &str = "token.key";
const KEY_BYTES: usize = 32;
/// Bytes of a token that is looked at; one for a hundred repositories has a quarter of it.
const LONGEST: usize = 32 << 10;

/// What may be done in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Right {
    Pull,
    Push,
    Delete,
}

/// Rights on one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Grant {
    pub(super) repository: Repository,
    pub(super) rights: Vec<Right>,
}

/// Whom a token was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Holder {
    /// The user, who may ask for more at any time.
    User,
    /// Somebody who has a limited token and nothing else.
    Limited,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rights {
    pub(super) holder: Holder,
    pub(super) grants: Vec<Grant>,
    /// Whether it may list the repositories.
    pub(super) catalog: bool,
    /// Its end.
    pub(super) until: Timestamp,
}

impl Rights {
    pub(super) fn allow(&self, repository: &Repository, right: Right) -> bool {
        self.grants.iter().any(|grant| grant.repository == *repository && grant.rights.contains(&right))
    }
}

/// The key that makes tokens, and knows them again.
pub(super) struct TokenKey(hmac::Key);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// The key in this data folder; made on first use.
    pub(super) fn open(root: &Path) -> Result<Self, ServeError> {
        let failed = |source| ServeError::Folder { path: root.to_owned(), source };
        let path = root.join(KEY_FILE);
        if !path.exists() {
            make_folders(root).map_err(failed)?;
            let mut key = Zeroizing::new([0; KEY_BYTES]);
            aws_lc_rs::rand::SecureRandom::fill(&SystemRandom::new(), key.as_mut_slice())
                .map_err(|_| failed(std::io::Error::other("no random bytes")))?;
            // Made whole under another name: a server and a command that start at once both end up with the same key.
            let mut file = NamedTempFile::new_in(root).map_err(failed)?;
            std::io::Write::write_all(&mut file, key.as_slice()).map_err(failed)?;
            file.as_file().sync_all().map_err(failed)?;
            match file.persist_noclobber(&path) {
                Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(failed(error.error));
                }
                _ => file::sync_folder(root).map_err(failed)?,
            }
        }
        let key = Zeroizing::new(file::read_capped(&path, 1024)?);
        if key.len() != KEY_BYTES {
            let source = std::io::Error::other("it is not 32 bytes long");
            return Err(ServeError::File(FileError::Read { path, source }));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    pub(super) fn issue(&self, rights: &Rights) -> String {
        let payload = serde_json::to_vec(rights).expect("names and numbers are JSON");
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(payload));
        let mac = hmac::sign(&self.0, text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.as_ref()))
    }

    /// What the token says, if it was made with this key and has not ended.
    pub(super) fn read(&self, token: &str, now: Timestamp) -> Option<Rights> {
        if token.len() > LONGEST {
            return None;
        }
        let (text, mac) = token.rsplit_once('.')?;
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac::verify(&self.0, text.as_bytes(), &mac).ok()?;
        let payload = URL_SAFE_NO_PAD.decode(text.strip_prefix(PREFIX)?).ok()?;
        let rights: Rights = serde_json::from_slice(&payload).ok()?;
        (rights.until > now).then_some(rights)
    }
}

/// Whether the token says that its holder may read this repository. Only a registry knows whether it is one of its own.
pub(in crate::registry) fn claims_to_read(token: &str, repository: &Repository) -> bool {
    let rights = || -> Option<Rights> {
        let (payload, _) = token.strip_prefix(PREFIX)?.rsplit_once('.')?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    };
    rights().is_some_and(|rights| rights.allow(repository, Right::Pull))
}

/// A token that may only read these repositories, and ends after `lasts`: for a scan's pods and other people's tools. It is
/// valid at a registry that serves from `data`, from now on and after every restart, as a bearer token and as the password
/// of the user `token`.
///
/// # Errors
/// When the folder's key can't be read or made.
pub fn pull_token(
    data: &Path,
    repositories: &[Repository],
    lasts: SignedDuration,
    now: Timestamp,
) -> Result<Zeroizing<String>, ServeError> {
    let grant = |repository: &Repository| Grant { repository: repository.clone(), rights: vec![Right::Pull] };
    let rights = Rights {
        holder: Holder::Limited,
        grants: repositories.iter().map(grant).collect(),
        catalog: false,
        until: now.checked_add(lasts).unwrap_or(Timestamp::MAX),
    };
    Ok(Zeroizing::new(TokenKey::open(data)?.issue(&rights)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(now: Timestamp) -> Rights {
        let grant = Grant { repository: "images/web".parse().expect("a name"), rights: vec![Right::Pull] };
        let until = now + SignedDuration::from_secs(60);
        Rights { holder: Holder::Limited, grants: vec![grant], catalog: false, until }
    }

    #[test]
    fn a_token_is_read_as_it_was_made_until_its_end_and_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let token = TokenKey::open(folder.path()).expect("a key").issue(&rights(now));
        let key = TokenKey::open(folder.path()).expect("the same key");
        assert_eq!(key.read(&token, now), Some(rights(now)));
        assert_eq!(key.read(&token, now + SignedDuration::from_secs(60)), None);
    }

    #[test]
    fn a_token_that_was_changed_in_any_place_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let key = TokenKey::open(folder.path()).expect("a key");
        let token = key.issue(&rights(now));
        for place in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[place] ^= 1;
            let changed = String::from_utf8(bytes).expect("ASCII");
            assert_eq!(key.read(&changed, now), None, "{place}");
        }
        let mut wider = rights(now);
        wider.grants[0].rights.push(Right::Push);
        let payload = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wider).expect("JSON"));
        let mac = token.rsplit_once('.').expect("a MAC").1;
        assert_eq!(key.read(&format!("{PREFIX}{payload}.{mac}"), now), None);
        assert_eq!(key.read(&format!("{PREFIX}{payload}."), now), None);
        assert_eq!(key.read(&TokenKey::open(other.path()).expect("a key").issue(&rights(now)), now), None);
        assert_eq!(key.read("", now), None);
    }
}
