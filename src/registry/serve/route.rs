//! From the path of a request to what it names. Pure, and the only way to a name.

use http::StatusCode;
use uuid::Uuid;

use super::content::{ContentDigest, NotADigest};
use super::error::Refusal;
use crate::registry::reference::{Repository, Tag};

/// What a manifest is asked for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Tag(Tag),
    Digest(ContentDigest),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Base,
    Live,
    Ready,
    Metrics,
    Token,
    Space,
    Collect,
    Catalog,
    Tags(Repository),
    Manifest(Repository, Option<Name>),
    Blob(Repository, ContentDigest),
    Uploads(Repository),
    Upload(Repository, Uuid),
    Referrers(Repository, ContentDigest),
}

impl Route {
    /// What `path` names. A manifest's name that is neither tag nor digest stays `None`: whether that is unknown or
    /// invalid depends on what is to be done with it.
    pub(super) fn of(path: &str) -> Result<Self, Refusal> {
        let nothing = || Refusal::unsupported(StatusCode::NOT_FOUND);
        // Only a digest's colon may come escaped; nothing else in any name needs it.
        let path = path.replace("%3A", ":").replace("%3a", ":");
        let rest = match path.as_str() {
            "/livez" => return Ok(Self::Live),
            "/readyz" => return Ok(Self::Ready),
            "/metrics" => return Ok(Self::Metrics),
            "/token" => return Ok(Self::Token),
            path => path.strip_prefix("/v2").ok_or_else(nothing)?,
        };
        let rest = match rest {
            "" | "/" => return Ok(Self::Base),
            "/_catalog" => return Ok(Self::Catalog),
            "/_gapscan/space" => return Ok(Self::Space),
            "/_gapscan/collect" => return Ok(Self::Collect),
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
        let digest = |text: &str| -> Result<ContentDigest, Refusal> {
            text.parse().map_err(|error: NotADigest| Refusal::digest_invalid(error.to_string()))
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
                    true => Some(Name::Digest(digest(text)?)),
                    false => text.parse().ok().map(Name::Tag),
                };
                Ok(Self::Manifest(repository(name)?, manifest))
            }
            _ => Err(nothing()),
        }
    }
}

impl Route {
    /// The repository that is asked for something.
    pub(super) fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Tags(repository)
            | Self::Manifest(repository, _)
            | Self::Blob(repository, _)
            | Self::Uploads(repository)
            | Self::Upload(repository, _)
            | Self::Referrers(repository, _) => Some(repository),
            Self::Base
            | Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::Token
            | Self::Space
            | Self::Collect
            | Self::Catalog => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::Algorithm;
    use super::*;

    #[test]
    fn names_are_parsed_before_they_are_anything() {
        let digest = Algorithm::Sha256.digest(b"x");
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
