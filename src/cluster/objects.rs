//! The API objects of the cluster, read through an identity that may read exactly these and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use hyper::http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::client::{Call, Cluster};
use super::error::ClusterError;
use super::identity::RunReader;
use super::namespace::ScanNamespace;
use crate::base::limits::Limits;
use crate::model::provenance::Cleanup;
use crate::model::reason::Reason;

/// Objects of one page: enough to need few requests, few enough to keep an answer small.
const PAGE: u32 = 250;

/// How often a list whose snapshot expired while it was read is begun again.
const RESTARTS: u32 = 3;

/// Names a resource of the API: `v1/pods`, `apps/v1/deployments`, `rbac.authorization.k8s.io/v1/clusterroles`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version in the group.
    pub version: String,
    /// The plural, in lower case.
    pub resource: String,
}

/// A text that names no resource.
#[derive(Debug, thiserror::Error)]
#[error("read resource `{}`: it must be VERSION/RESOURCE or GROUP/VERSION/RESOURCE, without secrets", crate::base::text::brief(.0))]
pub struct ResourceKeyError(String);

impl FromStr for ResourceKey {
    type Err = ResourceKeyError;

    fn from_str(text: &str) -> Result<Self, ResourceKeyError> {
        let refuse = || ResourceKeyError(text.to_owned());
        let fits = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (group, version, resource) = match parts[..] {
            [version, resource] => ("", version, resource),
            [group, version, resource] if fits(group) => (group, version, resource),
            _ => return Err(refuse()),
        };
        if !fits(version) || !fits(resource) {
            return Err(refuse());
        }
        let key = Self { group: group.to_owned(), version: version.to_owned(), resource: resource.to_owned() };
        if key.is_secret() { Err(refuse()) } else { Ok(key) }
    }
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.group.is_empty() {
            write!(f, "{}/", self.group)?;
        }
        write!(f, "{}/{}", self.version, self.resource)
    }
}

impl ResourceKey {
    fn is_secret(&self) -> bool {
        self.resource == "secrets"
    }

    pub(crate) fn path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}/{}", self.version, self.resource)
        } else {
            format!("/apis/{}/{}/{}", self.group, self.version, self.resource)
        }
    }
}

/// What was read, and how.
#[derive(Debug)]
pub struct Objects<T> {
    /// For each resource what its objects came to; or why there are none.
    pub by_resource: BTreeMap<ResourceKey, Result<Vec<T>, (Reason, String)>>,
    /// As whom they were read.
    pub identity: String,
    /// What became of that identity.
    pub cleanup: Cleanup,
}

/// Reads all objects of these resources, in all namespaces, as an identity that is made for it in the run's namespace and
/// may list exactly these; it is removed afterwards, and seen to be gone. One resource that can't be read does not
/// keep the others from being read. Each object, with its `apiVersion` and `kind`, is given to `keep` while its page is there:
/// what that makes of it is all that is held of a large cluster.
///
/// # Errors
/// When secrets are asked for, or the identity can't be made.
pub async fn collect<T>(
    cluster: &Cluster,
    home: &ScanNamespace,
    resources: &[ResourceKey],
    limits: &Limits,
    keep: impl Fn(Value) -> T,
) -> Result<Objects<T>, ClusterError> {
    if let Some(secret) = resources.iter().find(|key| key.is_secret()) {
        return Err(ClusterError::SecretsRefused(secret.to_string()));
    }
    let reader = RunReader::create(cluster, home, resources).await?;
    let mut by_resource = BTreeMap::new();
    for key in resources {
        let outcome = list_raw(reader.cluster(), key, limits.fact_items, &keep).await;
        by_resource.insert(key.clone(), outcome.map_err(|error| (error.reason(), error.to_string())));
    }
    let identity = reader.username().to_owned();
    let cleanup = reader.remove(cluster).await;
    Ok(Objects { by_resource, identity, cleanup })
}

async fn list_raw<T>(
    cluster: &Cluster,
    key: &ResourceKey,
    most: usize,
    keep: impl Fn(Value) -> T,
) -> Result<Vec<T>, ClusterError> {
    let what = format!("list {key}");
    list_as(cluster, &what, &key.path(), &[], most, |head, mut item: Value| {
        if !item.is_object() {
            return Err(ClusterError::malformed(&what, "an item of the list is no object"));
        }
        // Items of a list don't carry their kind; the list does.
        item["apiVersion"] = json!(head.api_version);
        item["kind"] = json!(head.kind.strip_suffix("List").unwrap_or(&head.kind));
        Ok(Some(keep(item)))
    })
    .await
}

/// What a list says of its items, which don't say it themselves.
#[derive(Debug, Default)]
pub(crate) struct ListHead {
    pub(crate) api_version: String,
    pub(crate) kind: String,
}

// Not with the head flattened into it: serde would hold all items in a form of its own first.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page<T> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: PageMetadata,
    // Go writes an empty list as null. An answer without it is no list, and not one that is empty.
    #[serde(deserialize_with = "Deserialize::deserialize", bound(deserialize = "T: Deserialize<'de>"))]
    items: Option<Vec<T>>,
}

#[derive(Deserialize, Default)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    more: String,
}

/// All objects at `path`, page by page; at most `most`, beyond which it fails rather than to give a part as the whole.
pub(crate) async fn list<T: DeserializeOwned>(
    cluster: &Cluster,
    what: &str,
    path: &str,
    query: &[(&str, &str)],
    most: usize,
) -> Result<Vec<T>, ClusterError> {
    list_as(cluster, what, path, query, most, |_, item| Ok(Some(item))).await
}

/// The same with what `keep` makes of each object; of most objects only a part is wanted, and a page at a time is held.
pub(crate) async fn list_as<T: DeserializeOwned, U>(
    cluster: &Cluster,
    what: &str,
    path: &str,
    query: &[(&str, &str)],
    most: usize,
    mut keep: impl FnMut(&ListHead, T) -> Result<Option<U>, ClusterError>,
) -> Result<Vec<U>, ClusterError> {
    let mut restarts = 0;
    'again: loop {
        let (mut kept, mut seen) = (Vec::new(), 0);
        let mut more = String::new();
        loop {
            let path = format!("{path}?{}", page_query(query, &more));
            let call = Call { what: what.to_owned(), method: Method::GET, path, body: None };
            let page: Page<T> = match cluster.call(call).await {
                // The snapshot that the pages come from was compacted away: only a fresh list is whole.
                Err(ClusterError::Expired { .. }) if restarts < RESTARTS => {
                    restarts += 1;
                    continue 'again;
                }
                outcome => outcome?,
            };
            let Page { api_version, kind, metadata, items } = page;
            let (head, items) = (ListHead { api_version, kind }, items.unwrap_or_default());
            seen += items.len();
            if seen > most {
                return Err(ClusterError::Rejected {
                    what: what.to_owned(),
                    code: 200,
                    message: format!("there are more than {most} objects, which is the limit"),
                });
            }
            for item in items {
                kept.extend(keep(&head, item)?);
            }
            more = metadata.more;
            if more.is_empty() {
                return Ok(kept);
            }
        }
    }
}

fn page_query(query: &[(&str, &str)], more: &str) -> String {
    let mut parameters = url::form_urlencoded::Serializer::new(String::new());
    parameters.extend_pairs(query).append_pair("limit", &PAGE.to_string());
    if !more.is_empty() {
        parameters.append_pair("continue", more);
    }
    parameters.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_read_what_they_write_and_never_are_secrets() {
        for text in ["v1/pods", "apps/v1/deployments", "rbac.authorization.k8s.io/v1/clusterroles"] {
            assert_eq!(text.parse::<ResourceKey>().expect(text).to_string(), text);
        }
        for text in ["", "pods", "v1/secrets", "v1/", "/v1/pods", "v1/pods?watch=1", "v1/../pods", "a/b/c/d", "v1/Pods"]
        {
            assert!(text.parse::<ResourceKey>().is_err(), "{text:?}");
        }
        let key: ResourceKey = "apps/v1/deployments".parse().expect("a key");
        assert_eq!(key.path(), "/apis/apps/v1/deployments");
    }
}
