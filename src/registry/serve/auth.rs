//! Who may do what: without credentials everybody everything; with them the user everything, and who has a token what the
//! token says (Docker's token authentication specification; the server is its own token service).
//!
//! Both ways are offered in a 401. A token is taken as a bearer token and, because image pull secrets of Kubernetes know only
//! a user and a password, as the password of the user `token`.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap};
use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::error::Refusal;
use super::token::{Grant, Holder, Right, Rights, TokenKey};
use crate::base::digest::Digest;
use crate::registry::Credentials;
use crate::registry::reference::Repository;

/// How long a token from `/token` is valid: a client asks again when it ends, and one that leaks is soon worth nothing.
const LASTS: SignedDuration = SignedDuration::from_mins(15);
/// How long an operator may ask it to be valid.
const LASTS_AT_MOST: SignedDuration = SignedDuration::from_hours(24 * 31);
/// Scopes that one token may name.
const SCOPES: usize = 128;
/// The user whose password is a token.
pub const TOKEN_USER: &str = "token";
/// What the server calls itself in a challenge.
pub(in crate::registry) const SERVICE: &str = "gapscan";

/// Keeps the digest of user and password, not the password.
#[derive(Debug)]
pub(super) enum Gate {
    Open,
    Closed { pair: Digest, key: Box<TokenKey> },
}

/// What one request may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Access {
    All,
    Limited(Rights),
}

impl Gate {
    pub(super) fn closed(credentials: &Credentials, key: TokenKey) -> Self {
        Self::Closed { pair: Digest::of(credentials.pair().as_bytes()), key: Box::new(key) }
    }

    /// What the request may do; `None` where it does not say who it is from. The comparison takes the same time whatever
    /// is wrong.
    pub(super) fn access(&self, headers: &HeaderMap, now: Timestamp) -> Option<Access> {
        let Self::Closed { pair, key } = self else { return Some(Access::All) };
        let (scheme, value) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("Bearer") {
            return key.read(value.trim(), now).map(Access::Limited);
        }
        if !scheme.eq_ignore_ascii_case("Basic") {
            return None;
        }
        let given = Zeroizing::new(STANDARD.decode(value.trim()).ok()?);
        if verify_slices_are_equal(Digest::of(&*given).bytes(), pair.bytes()).is_ok() {
            return Some(Access::All);
        }
        let (user, password) = std::str::from_utf8(&given).ok()?.split_once(':')?;
        let rights = (user == TOKEN_USER).then(|| key.read(password, now)).flatten()?;
        // Whoever keeps a token as a password has nothing to ask for more with.
        Some(Access::Limited(Rights { holder: Holder::Limited, ..rights }))
    }

    /// A token for these scopes, as far as `access` has the rights itself, and how many seconds it is valid.
    pub(super) fn issue<'a>(
        &self,
        access: &Access,
        scopes: impl Iterator<Item = &'a str>,
        lasts: Option<u64>,
        now: Timestamp,
    ) -> Result<(String, i64), Refusal> {
        let Self::Closed { key, .. } = self else {
            return Err(Refusal::unsupported(http::StatusCode::NOT_FOUND));
        };
        let asked =
            lasts.map_or(LASTS, |seconds| SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX)));
        let mut until = now + asked.min(LASTS_AT_MOST);
        let mut rights = Rights { holder: Holder::User, grants: Vec::new(), catalog: false, until };
        if let Access::Limited(own) = access {
            until = until.min(own.until);
            rights.holder = own.holder;
        }
        rights.until = until;
        for scope in scopes.flat_map(str::split_whitespace).take(SCOPES) {
            match Scope::parse(scope) {
                Some(Scope::Catalog) => rights.catalog |= access.allows_catalog(),
                Some(Scope::Repository(Grant { repository, rights: asked })) => {
                    let held = asked.into_iter().filter(|right| access.allows(&repository, *right)).collect();
                    rights.grants.push(Grant { repository, rights: held });
                }
                // Another registry's scopes are no reason to refuse the ones that are understood.
                None => {}
            }
        }
        Ok((key.issue(&rights), (until.as_second() - now.as_second()).max(1)))
    }
}

impl Access {
    pub(super) fn allows(&self, repository: &Repository, right: Right) -> bool {
        match self {
            Self::All => true,
            Self::Limited(rights) => rights.allow(repository, right),
        }
    }

    pub(super) fn allows_catalog(&self) -> bool {
        match self {
            Self::All => true,
            Self::Limited(rights) => rights.catalog,
        }
    }

    /// That this may be done here. Who could get a token that allows it is asked for one (401); who can't is told (403).
    pub(super) fn demand(&self, repository: &Repository, right: Right) -> Result<(), Refusal> {
        if self.allows(repository, right) { Ok(()) } else { Err(self.insufficient()) }
    }

    /// That the repositories may be listed.
    pub(super) fn demand_catalog(&self) -> Result<(), Refusal> {
        if self.allows_catalog() { Ok(()) } else { Err(self.insufficient()) }
    }

    /// That everything may be done.
    pub(super) fn demand_all(&self) -> Result<(), Refusal> {
        match self {
            Self::All => Ok(()),
            Self::Limited(_) => Err(Refusal::denied("only the registry's user may do this, with its password")),
        }
    }

    fn insufficient(&self) -> Refusal {
        match self {
            Self::Limited(Rights { holder: Holder::User, .. }) => {
                Refusal::unauthorized("the token is for something else")
            }
            Self::All | Self::Limited(_) => Refusal::denied("the token does not allow this"),
        }
    }
}

enum Scope {
    Catalog,
    Repository(Grant),
}

impl Scope {
    /// `repository:NAME:ACTION,ACTION` or `registry:catalog:*`.
    fn parse(text: &str) -> Option<Self> {
        let (rest, actions) = text.rsplit_once(':')?;
        let (kind, name) = rest.split_once(':')?;
        let actions = || actions.split(',');
        match kind {
            "repository" => {
                let all = [(Right::Pull, "pull"), (Right::Push, "push"), (Right::Delete, "delete")];
                let rights =
                    all.into_iter().filter(|(_, name)| actions().any(|action| action == *name || action == "*"));
                Some(Self::Repository(Grant {
                    repository: name.parse().ok()?,
                    rights: rights.map(|(right, _)| right).collect(),
                }))
            }
            "registry" if name == "catalog" && actions().any(|action| action == "*") => Some(Self::Catalog),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_has_more_rights_than_who_asked_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let gate = Gate::closed(&Credentials::new("kim", "s3cr3t"), TokenKey::open(folder.path()).expect("a key"));
        let headers = |scheme: &str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, format!("{scheme} {value}").parse().expect("a value"));
            headers
        };
        let basic = |pair: &str| headers("Basic", &STANDARD.encode(pair));
        let repository = |name: &str| name.parse::<Repository>().expect(name);
        let (web, db) = (repository("images/web"), repository("images/db"));

        let user = gate.access(&basic("kim:s3cr3t"), now).expect("the user");
        assert_eq!(user, Access::All);
        for wrong in ["kim:s3cr3", "kim:", ":", "", "token:", "token:s3cr3t", "Kim:s3cr3t"] {
            assert_eq!(gate.access(&basic(wrong), now), None, "{wrong}");
        }
        let pull = ["repository:images/web:pull"];
        let (token, seconds) = gate.issue(&user, pull.into_iter(), None, now).expect("a token");
        assert_eq!(seconds, 900);
        let bearer = gate.access(&headers("Bearer", &token), now).expect("known");
        assert!(bearer.allows(&web, Right::Pull) && !bearer.allows(&web, Right::Push));
        assert!(!bearer.allows(&db, Right::Pull) && !bearer.allows_catalog() && bearer.demand_all().is_err());

        let later = now + SignedDuration::from_mins(10);
        let more = ["repository:images/web:pull,push,delete repository:images/db:*", "registry:catalog:*"];
        let password = gate.access(&basic(&format!("token:{token}")), later).expect("known");
        let (second, seconds) = gate.issue(&password, more.into_iter(), Some(86_400), later).expect("a token");
        assert_eq!(seconds, 300, "it does not outlive the first");
        let derived = gate.access(&headers("Bearer", &second), later).expect("known");
        assert!(derived.allows(&web, Right::Pull) && !derived.allows(&web, Right::Push));
        assert!(!derived.allows(&db, Right::Pull) && !derived.allows_catalog());
        assert_eq!(gate.access(&headers("Bearer", &second), now + SignedDuration::from_mins(15)), None);
    }
}
