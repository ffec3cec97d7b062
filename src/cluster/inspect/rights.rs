//! What the identity of a connection is, and what the API server says that it may do.

use futures::StreamExt as _;
use hyper::http::Method;
use serde::Deserialize;
use serde_json::json;

use crate::cluster::client::{Call, Cluster};
use crate::cluster::error::ClusterError;

/// How many questions are asked at once.
const AT_ONCE: usize = 8;

/// Something that may be allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// The API group; empty for the core group, `*` for all.
    pub group: String,
    /// The resource, with its subresource behind a slash.
    pub resource: String,
    /// The verb.
    pub verb: String,
    /// In this namespace; `None` in all of them and above them.
    pub namespace: Option<String>,
}

impl std::fmt::Display for Right {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { group, resource, verb, namespace } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, ".{group}")?;
        }
        match namespace {
            Some(namespace) => write!(f, " in {namespace}"),
            None => Ok(()),
        }
    }
}

/// Who the server takes this connection for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Identity {
    /// The user's name, as the audit log has it.
    #[serde(default)]
    pub username: String,
    /// The user's groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

/// Who the server takes this connection for (SelfSubjectReview, authentication.k8s.io/v1).
///
/// # Errors
/// When the server refuses or can't be reached.
pub async fn identity(cluster: &Cluster) -> Result<Identity, ClusterError> {
    #[derive(Deserialize)]
    struct Answer {
        status: Status,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        user_info: Identity,
    }
    let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let call = Call {
        what: "ask who this identity is".to_owned(),
        method: Method::POST,
        path: "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned(),
        body: Some(body.to_string().into_bytes()),
    };
    Ok(cluster.call::<Answer>(call).await?.status.user_info)
}

/// Whether this identity has each of these rights, in their order (SelfSubjectAccessReview, authorization.k8s.io/v1).
pub async fn may(cluster: &Cluster, rights: &[Right]) -> Vec<Result<bool, ClusterError>> {
    futures::stream::iter(rights.iter().map(|right| ask(cluster, right))).buffered(AT_ONCE).collect().await
}

async fn ask(cluster: &Cluster, right: &Right) -> Result<bool, ClusterError> {
    #[derive(Deserialize)]
    struct Answer {
        status: Status,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        allowed: bool,
        #[serde(default)]
        evaluation_error: String,
    }
    let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
    let body = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": { "resourceAttributes": {
            "group": right.group, "resource": resource, "subresource": subresource, "verb": right.verb,
            "namespace": right.namespace.as_deref().unwrap_or_default(),
        } },
    });
    let what = format!("ask whether it may {right}");
    let call = Call {
        what: what.clone(),
        method: Method::POST,
        path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(),
        body: Some(body.to_string().into_bytes()),
    };
    let status = cluster.call::<Answer>(call).await?.status;
    match (status.allowed, status.evaluation_error.is_empty()) {
        // A rule that can't be evaluated may be the one that allows it.
        (false, false) => Err(ClusterError::malformed(what, status.evaluation_error)),
        (allowed, _) => Ok(allowed),
    }
}
