//! Reading what a registry has about a manifest: signatures, SBOMs, attestations (distribution-spec 1.1, "Listing
//! Referrers").
//!
//! What a registry may do to us, and where it ends: a list without end, pages on another host, huge answers (all bounded
//! here); a list that names what is not about the subject (whoever uses it reads the manifests, verified by digest, and
//! looks).

use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::client::{Client, next_page};
use super::error::RegistryError;
use super::http::{read_capped, text_header};
use super::reference::{ManifestName, Repository, Tag};
use crate::base::digest::Digest;

/// An OCI image index.
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Referrers of one manifest; more is a registry that never ends its list.
const REFERRERS: usize = 10_000;

/// A manifest that is said to be about another one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Referrer {
    /// The media type of its manifest.
    pub media_type: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The length of its manifest in bytes.
    pub size: u64,
}

#[derive(Deserialize)]
struct List {
    /// Some registries write `null` for none.
    #[serde(default)]
    manifests: Option<Vec<Referrer>>,
}

impl Client {
    /// What the registry lists as being about this manifest, by its referrers API, or under the tag `sha256-HEX` where it has
    /// none. Sorted by digest.
    ///
    /// # Errors
    /// When the registry can't be asked, or its answer is no such list.
    pub async fn referrers(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let action = self.action("list what is about", digest, "in", repository);
        let protocol = |reason: &str| RegistryError::Protocol { action: action.clone(), reason: reason.to_owned() };
        let mut found = Vec::new();
        let mut url = self.url(&format!("{repository}/referrers/{digest}"));
        loop {
            // Registries without the API say so in different words.
            let expected = [
                StatusCode::OK,
                StatusCode::NOT_FOUND,
                StatusCode::BAD_REQUEST,
                StatusCode::METHOD_NOT_ALLOWED,
                StatusCode::NOT_IMPLEMENTED,
            ];
            let scope = Self::pull_scope(repository);
            let dress = |request: reqwest::RequestBuilder| request.header(ACCEPT, INDEX);
            let response = self.ask(&action, &scope, &expected, Method::GET, url.clone(), dress).await?;
            if response.status() != StatusCode::OK {
                return self.referrers_by_tag(repository, digest).await;
            }
            let next = text_header(response.headers(), "link").and_then(next_page).map(str::to_owned);
            let bytes = read_capped(response, self.inner.limits.manifest_bytes, &action, &self.inner.limits).await?;
            let list: List = serde_json::from_slice(&bytes).map_err(|_| protocol("the answer is no OCI index"))?;
            let page = list.manifests.unwrap_or_default();
            let empty = page.is_empty();
            found.extend(page);
            match next {
                Some(next) if !empty && found.len() <= REFERRERS => {
                    url = url.join(&next).map_err(|_| protocol("the next page has no address"))?;
                    if url.origin() != self.inner.origin.origin() {
                        return Err(protocol("the next page is on another host"));
                    }
                }
                Some(_) => return Err(protocol("the list has no end")),
                None => return Ok(sorted(found)),
            }
        }
    }

    /// Whether the registry lists what is about a manifest by itself, so that no tag has to be kept for it.
    ///
    /// # Errors
    /// When the registry can't be asked.
    pub async fn lists_referrers(&self, repository: &Repository, digest: &Digest) -> Result<bool, RegistryError> {
        let action = self.action("list what is about", digest, "in", repository);
        let expected = [
            StatusCode::OK,
            StatusCode::NOT_FOUND,
            StatusCode::BAD_REQUEST,
            StatusCode::METHOD_NOT_ALLOWED,
            StatusCode::NOT_IMPLEMENTED,
        ];
        let url = self.url(&format!("{repository}/referrers/{digest}"));
        let dress = |request: reqwest::RequestBuilder| request.header(ACCEPT, INDEX);
        let response = self.ask(&action, &Self::pull_scope(repository), &expected, Method::GET, url, dress).await?;
        Ok(response.status() == StatusCode::OK)
    }

    async fn referrers_by_tag(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Referrer>, RegistryError> {
        let tag: Tag = format!("sha256-{}", digest.hex()).parse()?;
        match self.manifest(repository, &ManifestName::Tag(tag)).await {
            // Nothing keeps anybody from giving this tag to something else.
            Ok(body) if body.media_type != INDEX => Ok(Vec::new()),
            Ok(body) => {
                let list: List = serde_json::from_slice(&body.bytes).map_err(|_| RegistryError::Protocol {
                    action: self.action("list what is about", digest, "in", repository),
                    reason: "what is under its tag is no OCI index".to_owned(),
                })?;
                Ok(sorted(list.manifests.unwrap_or_default()))
            }
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn sorted(mut found: Vec<Referrer>) -> Vec<Referrer> {
    found.sort_by_key(|referrer| referrer.digest);
    found.dedup_by_key(|referrer| referrer.digest);
    found
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::Response;
    use serde_json::json;

    use super::*;
    use crate::registry::testing::{Between, client, plain, status};

    fn entry(text: &str) -> serde_json::Value {
        json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": Digest::of(text), "size": 1 })
    }

    fn answer(list: &[serde_json::Value], link: Option<&str>) -> Response {
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": list });
        let response = Response::builder().header("content-type", INDEX);
        let response = link.into_iter().fold(response, |response, link| response.header("link", link));
        response.body(Body::from(index.to_string())).expect("an answer")
    }

    async fn ask(server: &Between) -> Result<Vec<Digest>, RegistryError> {
        let repository = "a/b".parse().expect("a repository");
        let found = client(plain(server.address)).referrers(&repository, &Digest::of("subject")).await?;
        Ok(found.into_iter().map(|referrer| referrer.digest).collect())
    }

    fn sorted_digests(texts: &[&str]) -> Vec<Digest> {
        let mut digests: Vec<Digest> = texts.iter().map(Digest::of).collect();
        digests.sort();
        digests
    }

    #[tokio::test]
    async fn all_pages_of_the_list_are_read() {
        let paged = Between::start(None, |seen, _| {
            assert!(seen.path.ends_with(&format!("/v2/a/b/referrers/{}", Digest::of("subject"))), "{}", seen.path);
            Some(match seen.query.as_str() {
                "" => answer(&[entry("1"), entry("2")], Some("</v2/a/b/referrers/{d}?n=2>; rel=\"next\"")),
                _ => status(500),
            })
        })
        .await;
        assert!(ask(&paged).await.is_err(), "a page that is missing is not passed over");
        let paged = Between::start(None, |seen, _| {
            let next = format!("<{}?n=2>; rel=\"next\"", seen.path);
            Some(match seen.query.as_str() {
                "" => answer(&[entry("1"), entry("2")], Some(&next)),
                _ => answer(&[entry("2"), entry("3")], None),
            })
        })
        .await;
        assert_eq!(ask(&paged).await.expect("a list"), sorted_digests(&["1", "2", "3"]));
    }

    #[tokio::test]
    async fn without_the_api_the_tag_of_the_subject_has_the_list() {
        for code in [404, 400, 405, 501] {
            let tag = format!("/v2/a/b/manifests/sha256-{}", Digest::of("subject").hex());
            let tagged = Between::start(None, move |seen, _| {
                Some(if seen.path == tag { answer(&[entry("1")], None) } else { status(code) })
            })
            .await;
            assert_eq!(ask(&tagged).await.expect("a list"), sorted_digests(&["1"]), "{code}");
        }
        let none = Between::start(None, |_, _| Some(status(404))).await;
        assert_eq!(ask(&none).await.expect("an empty list"), []);
    }

    #[tokio::test]
    async fn hostile_lists_end() {
        let far =
            Between::start(None, |_, _| Some(answer(&[entry("1")], Some("<http://other.example/>; rel=\"next\""))))
                .await;
        assert!(ask(&far).await.expect_err("another host").to_string().contains("another host"));
        let endless = Between::start(None, |seen, before| {
            let next = format!("<{}?n={before}>; rel=\"next\"", seen.path);
            let page: Vec<_> = (0..2000).map(|at| entry(&format!("{before} {at}"))).collect();
            Some(answer(&page, Some(&next)))
        })
        .await;
        assert!(ask(&endless).await.expect_err("endless").to_string().contains("no end"));
        let garbage = Between::start(None, |_, _| Some(Response::new(Body::from("<html>")))).await;
        assert!(ask(&garbage).await.is_err());
        let forbidden = Between::start(None, |_, _| Some(status(403))).await;
        assert!(ask(&forbidden).await.is_err(), "what may not be asked is not none");
    }
}
