//! The tags of a repository, page by page.

use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::Client;
use crate::registry::error::RegistryError;
use crate::registry::http::{read_capped, text_header};
use crate::registry::reference::{Repository, Tag};

/// Bytes of one page of a list of tags.
const TAG_PAGE: u64 = 4 << 20;
/// Tags of one repository; more is a registry that never ends its list.
const TAGS: usize = 100_000;

#[derive(Deserialize)]
struct TagList {
    /// Some registries write `null` for a repository without tags.
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// All tags of a repository, sorted; none for a repository that is not there.
    ///
    /// # Errors
    /// When the registry can't be asked, or its list has no end.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<Tag>, RegistryError> {
        let action = self.action("list", "tags", "of", repository);
        let protocol = |reason: &str| RegistryError::Protocol { action: action.clone(), reason: reason.to_owned() };
        let mut tags = Vec::new();
        let mut url = self.url(&format!("{repository}/tags/list"));
        loop {
            let expected = [StatusCode::OK, StatusCode::NOT_FOUND];
            let scope = Self::pull_scope(repository);
            let response = self.ask(&action, &scope, &expected, Method::GET, url.clone(), |request| request).await?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(Vec::new());
            }
            let next = text_header(response.headers(), "link").and_then(next_page).map(str::to_owned);
            let bytes = read_capped(response, TAG_PAGE, &action, &self.inner.limits).await?;
            let page: TagList =
                serde_json::from_slice(&bytes).map_err(|_| protocol("the answer is no list of tags"))?;
            let page = page.tags.unwrap_or_default();
            let empty = page.is_empty();
            for tag in page {
                tags.push(tag.parse()?);
            }
            match next {
                Some(next) if !empty && tags.len() <= TAGS => {
                    url = url.join(&next).map_err(|_| protocol("the next page has no address"))?;
                    if url.origin() != self.inner.origin.origin() {
                        return Err(protocol("the next page is on another host"));
                    }
                }
                Some(_) => return Err(protocol("the list of tags has no end")),
                None => break,
            }
        }
        tags.sort();
        tags.dedup();
        Ok(tags)
    }
}

/// The address of the next page (RFC 8288, `rel="next"`).
pub(in crate::registry) fn next_page(link: &str) -> Option<&str> {
    link.split(',').find_map(|link| {
        let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        parameters.split(';').any(|p| matches!(p.trim(), "rel=\"next\"" | "rel=next")).then_some(address)
    })
}
