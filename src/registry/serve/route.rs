//! From the path of a request to what it names. Pure, and the only way to a name.

use http::StatusCode;
use uuid::Uuid;

use super::error::Refusal;
use crate::base::digest::Digest;
use crate::registry::reference::{ManifestName, Repository};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Catalog,
    Tags(Repository),
    Manifest(Repository, Option<ManifestName>),
    Blob(Repository, Digest),
    Uploads(Repository),
    Upload(Repository, Uuid),
    Referrers(Repository, Digest),
}

impl Route {
    /// What `path` names. A manifest's name that is neither tag nor digest stays `None`: whether that is unknown or
    /// invalid depends on what is to be done with it.
    pub(super) fn of(path: &str) -> Result<Self, Refusal> {
        let nothing = || Refusal::unsupported(StatusCode::NOT_FOUND);
        // Only a digest's colon may come escaped; nothing else in any name needs it.
        let path = path.replace("%3A", ":").replace("%3a", ":");
        let rest = path.strip_prefix("/v2").ok_or_else(nothing)?;
        let rest = match rest {
            "" | "/" => return Ok(Self::Base),
            "/_catalog" => return Ok(Self::Catalog),
            rest => rest.strip_prefix('/').ok_or_else(nothing)?,
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let repository = |parts: &[&str]| -> Result<Repository, Refusal> {
            parts.join("/").parse().map_err(|_| {
                Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "NAME_INVALID",
                    "the repository's name is not one that the specification allows",
                )
            })
        };
        let digest = |text: &str| -> Result<Digest, Refusal> {
            text.parse()
                .map_err(|_| Refusal::digest_invalid("a digest here is `sha256:` and 64 lower-case hexadecimal digits"))
        };
        match parts.as_slice() {
            [name @ .., "tags", "list"] => Ok(Self::Tags(repository(name)?)),
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
                Ok(Self::Uploads(repository(name)?))
            }
            [name @ .., "blobs", "uploads", id] => {
                let id = Uuid::try_parse(id).map_err(|_| Refusal::upload_unknown())?;
                Ok(Self::Upload(repository(name)?, id))
            }
            [name @ .., "blobs", text] => Ok(Self::Blob(repository(name)?, digest(text)?)),
            [name @ .., "referrers", text] => Ok(Self::Referrers(repository(name)?, digest(text)?)),
            [name @ .., "manifests", text] => {
                let manifest = match text.contains(':') {
                    true => Some(ManifestName::Digest(digest(text)?)),
                    false => text.parse().ok().map(ManifestName::Tag),
                };
                Ok(Self::Manifest(repository(name)?, manifest))
            }
            _ => Err(nothing()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_before_they_are_anything() {
        let digest = Digest::of(b"x");
        let repository = |text: &str| text.parse::<Repository>().expect(text);
        for (path, expected) in [
            ("/v2/".to_owned(), Route::Base),
            ("/v2/a/blobs/tags/list".to_owned(), Route::Tags(repository("a/blobs"))),
            (format!("/v2/a/manifests/b/blobs/{digest}"), Route::Blob(repository("a/manifests/b"), digest)),
            (format!("/v2/a/blobs/sha256%3A{}", digest.hex()), Route::Blob(repository("a"), digest)),
            ("/v2/a/blobs/uploads/".to_owned(), Route::Uploads(repository("a"))),
            ("/v2/a/manifests/.x".to_owned(), Route::Manifest(repository("a"), None)),
        ] {
            assert_eq!(Route::of(&path).expect(&path), expected);
        }
        for path in [
            "/",
            "/v1/",
            "/v2x",
            "/v2/../etc/tags/list",
            "/v2/%2e%2e/tags/list",
            "/v2/A/tags/list",
            "/v2//tags/list",
            "/v2/_uploads/tags/list",
            "/v2/a/blobs/sha256:../../x",
            "/v2/a/blobs/sha512:00",
            "/v2/a/blobs/uploads/../x",
            "/v2/a/manifests/sha256:zz",
            "/v2/a\0/tags/list",
        ] {
            assert!(Route::of(path).is_err(), "{path:?}");
        }
    }
}
