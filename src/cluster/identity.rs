//! Identities that live for one scan: an account, a Role that names one pod, a token of ten minutes, and nothing of it
//! left afterwards. No request for secrets is ever made, and none is granted.

mod scanner;

use std::time::Duration;

use hyper::http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Call, Cluster, Token, poll_until};
use super::error::ClusterError;
use super::namespace::ScanNamespace;
use super::object::{Inventory, Kind, ObjectRef};
use super::objects::ResourceKey;
use crate::model::provenance::Cleanup;
use crate::model::scanner::ListedResource;

pub use scanner::{Reach, ScannerIdentity};

/// The shortest life that the API server grants a token.
const SHORTEST: Duration = Duration::from_secs(600);

/// How long new rights may take to be known to every API server, and removed ones to be forgotten. Each watches RBAC
/// objects and is behind by milliseconds, seconds when it is busy.
const PROPAGATION: Duration = Duration::from_secs(10);

/// One account with its token.
#[derive(Debug)]
struct Account {
    namespace: String,
    name: String,
    inventory: Inventory,
    cluster: Cluster,
    tokens: Vec<Token>,
}

/// What an identity may do with its pod, besides reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Run commands in its containers.
    Exec,
    /// Add an ephemeral container, and run commands in the pod's containers, which that one is then among.
    Debug,
}

impl Rights {
    /// The rules of the Role, for this pod alone.
    fn rules(self, pod: &str) -> Value {
        let rule = |resource: &str, verbs: &[&str]| json!({ "apiGroups": [""], "resources": [resource], "resourceNames": [pod], "verbs": verbs });
        // WebSocket exec is a GET, and from Kubernetes 1.35 `create` is checked too.
        let mut rules = vec![rule("pods", &["get"]), rule("pods/exec", &["get", "create"])];
        if self == Self::Debug {
            rules.push(rule("pods/ephemeralcontainers", &["patch"]));
        }
        Value::Array(rules)
    }
}

/// An identity that may read one pod and do what [`Rights`] says in it, for ten minutes.
#[derive(Debug)]
pub struct ScanIdentity {
    account: Account,
    username: String,
    pod: (String, String),
}

/// An identity that may list some resources in the whole cluster.
#[derive(Debug)]
pub(crate) struct RunReader<'a> {
    account: Account,
    username: String,
    home: &'a ScanNamespace,
    /// A path that it may read as long as it has its rights.
    sample: String,
}

impl ScanIdentity {
    /// Makes an identity for scan number `scan` of the run, for this pod alone, and waits until its rights are known.
    ///
    /// # Errors
    /// When the cluster refuses or can't be reached; what was made until then is removed again, and what could not be is
    /// reported by [`ScanNamespace::remove`].
    ///
    /// # Cancel safety
    /// Dropped half-way it leaves objects with the run's label; the namespace's end or the sweeper removes them.
    pub async fn create(
        cluster: &Cluster,
        home: &ScanNamespace,
        scan: u32,
        (namespace, pod): (&str, &str),
        rights: Rights,
    ) -> Result<Self, ClusterError> {
        Self::create_for(cluster, home, scan, (namespace, pod), rights, SHORTEST).await
    }

    /// The same with a longer life. The API server may grant a shorter one.
    pub(crate) async fn create_for(
        cluster: &Cluster,
        home: &ScanNamespace,
        scan: u32,
        (namespace, pod): (&str, &str),
        rights: Rights,
        life: Duration,
    ) -> Result<Self, ClusterError> {
        let name = format!("gapscan-{}-{scan}", home.run().short());
        let mut inventory = Inventory::new(home.mark(Some(scan)));
        let made = async {
            let account = Account::create(cluster, home, &name, life, &mut inventory).await?;
            let role = ObjectRef::namespaced(Kind::Role, namespace, &name);
            inventory.create(cluster, role, json!({ "rules": rights.rules(pod) })).await?;
            let binding = binding("Role", &name, home.name());
            inventory.create(cluster, ObjectRef::namespaced(Kind::RoleBinding, namespace, &name), binding).await?;
            wait_for_rights(&account, &Power::Read(pod_path(namespace, pod))).await?;
            Ok(account)
        }
        .await;
        let pod = (namespace.to_owned(), pod.to_owned());
        let (account, username) = finish(cluster, home, name, inventory, made).await?;
        Ok(Self { account, username, pod })
    }

    /// The cluster as this identity.
    pub fn cluster(&self) -> &Cluster {
        &self.account.cluster
    }

    /// `system:serviceaccount:NAMESPACE:NAME`, as the audit log names it.
    pub fn username(&self) -> &str {
        &self.username
    }

    /// A fresh token, for what outlives the first.
    ///
    /// # Errors
    /// When the cluster refuses or can't be reached.
    pub(crate) async fn renew(&mut self, cluster: &Cluster) -> Result<(), ClusterError> {
        let token = request_token(cluster, &self.account.namespace, &self.account.name, SHORTEST).await?;
        self.account.cluster = cluster.as_token(&token)?;
        self.account.tokens.push(token);
        Ok(())
    }

    /// Removes all of it and sees that it is gone: each object by a read that finds nothing, its rights by a read that is
    /// denied. That the tokens are refused altogether is seen at the end of the run, by [`ScanNamespace::remove`]: the API
    /// server remembers a token for some seconds, and no scan should wait for that.
    pub async fn remove(self, cluster: &Cluster, home: &ScanNamespace) -> Cleanup {
        let path = pod_path(&self.pod.0, &self.pod.1);
        self.account.remove(cluster, home, &Power::Read(path)).await
    }
}

impl<'a> RunReader<'a> {
    pub(crate) async fn create(
        cluster: &Cluster,
        home: &'a ScanNamespace,
        resources: &[ResourceKey],
    ) -> Result<Self, ClusterError> {
        let name = format!("gapscan-{}-reader", home.run().short());
        let rules: Vec<Value> = resources
            .iter()
            .map(|key| json!({ "apiGroups": [key.group], "resources": [key.resource], "verbs": ["list"] }))
            .collect();
        // All rights come with one binding, so the first of them stands for the others.
        let sample = resources.first().map_or_else(|| "/api/v1/pods".to_owned(), ResourceKey::path) + "?limit=1";
        let mut inventory = Inventory::new(home.mark(None));
        let made = async {
            let account = Account::create(cluster, home, &name, SHORTEST, &mut inventory).await?;
            let role = ObjectRef::cluster_wide(Kind::ClusterRole, &name);
            inventory.create(cluster, role, json!({ "rules": rules })).await?;
            let binding = binding("ClusterRole", &name, home.name());
            inventory.create(cluster, ObjectRef::cluster_wide(Kind::ClusterRoleBinding, &name), binding).await?;
            wait_for_rights(&account, &Power::Read(sample.clone())).await?;
            Ok(account)
        }
        .await;
        let (account, username) = finish(cluster, home, name, inventory, made).await?;
        Ok(Self { account, username, home, sample })
    }

    pub(crate) fn cluster(&self) -> &Cluster {
        &self.account.cluster
    }

    pub(crate) fn username(&self) -> &str {
        &self.username
    }

    pub(crate) async fn remove(self, cluster: &Cluster) -> Cleanup {
        self.account.remove(cluster, self.home, &Power::Read(self.sample)).await
    }
}

/// An account as far as it is made, before its inventory is complete.
struct Fresh {
    cluster: Cluster,
    token: Token,
}

impl Account {
    async fn create(
        cluster: &Cluster,
        home: &ScanNamespace,
        name: &str,
        life: Duration,
        inventory: &mut Inventory,
    ) -> Result<Fresh, ClusterError> {
        let account = ObjectRef::namespaced(Kind::ServiceAccount, home.name(), name);
        inventory.create(cluster, account, json!({ "automountServiceAccountToken": false })).await?;
        let token = request_token(cluster, home.name(), name, life).await?;
        Ok(Fresh { cluster: cluster.as_token(&token)?, token })
    }

    /// `lost` is something that the identity could do.
    async fn remove(self, cluster: &Cluster, home: &ScanNamespace, lost: &Power<'_>) -> Cleanup {
        let mut cleanup = self.inventory.remove(cluster).await;
        let stripped =
            poll_until(PROPAGATION, || async { Ok((!lost.holds(&self.cluster).await?).then_some(())) }).await;
        let identity = format!("{}/{}", self.namespace, self.name);
        if !matches!(stripped, Ok(Some(()))) {
            cleanup.remaining.push(format!("rights/{identity}"));
        }
        for token in self.tokens {
            home.retire(identity.clone(), token);
        }
        cleanup
    }
}

async fn finish(
    cluster: &Cluster,
    home: &ScanNamespace,
    name: String,
    inventory: Inventory,
    made: Result<Fresh, ClusterError>,
) -> Result<(Account, String), ClusterError> {
    match made {
        Ok(fresh) => {
            let username = format!("system:serviceaccount:{}:{name}", home.name());
            let namespace = home.name().to_owned();
            let account = Account { namespace, name, inventory, cluster: fresh.cluster, tokens: vec![fresh.token] };
            Ok((account, username))
        }
        Err(error) => {
            home.leave(inventory.remove(cluster).await.remaining);
            Err(error)
        }
    }
}

fn binding(role_kind: &str, name: &str, account_namespace: &str) -> Value {
    json!({
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": name },
        "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": account_namespace }],
    })
}

fn pod_path(namespace: &str, pod: &str) -> String {
    ObjectRef::namespaced(Kind::Pod, namespace, pod).path()
}

/// Something that an identity may be able to do.
#[derive(Debug)]
enum Power<'a> {
    /// Read what is at this path.
    Read(String),
    /// List this resource in all namespaces, whatever its version.
    List(&'a ListedResource),
}

impl Power<'_> {
    /// Whether the identity of this connection can do it now.
    async fn holds(&self, cluster: &Cluster) -> Result<bool, ClusterError> {
        #[derive(Deserialize)]
        struct Review {
            status: Status,
        }
        #[derive(Deserialize)]
        struct Status {
            allowed: bool,
        }
        match self {
            Self::Read(path) => match cluster.get::<Value>("see what a scan's identity may read", path.clone()).await {
                Ok(_) | Err(ClusterError::Missing { .. }) => Ok(true),
                Err(ClusterError::Denied { .. }) => Ok(false),
                Err(error) => Err(error),
            },
            // SelfSubjectAccessReview, authorization.k8s.io/v1: every account may ask it.
            Self::List(resource) => {
                let body = json!({
                    "apiVersion": "authorization.k8s.io/v1",
                    "kind": "SelfSubjectAccessReview",
                    "spec": { "resourceAttributes": {
                        "group": resource.group(), "resource": resource.resource(), "verb": "list",
                    } },
                });
                let call = Call {
                    what: format!("see whether a scan's identity may list {resource}"),
                    method: Method::POST,
                    path: "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(),
                    body: Some(body.to_string().into_bytes()),
                };
                match cluster.call::<Review>(call).await {
                    Ok(review) => Ok(review.status.allowed),
                    // Nobody any more.
                    Err(ClusterError::Denied { code: 401, .. }) => Ok(false),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

/// Waits until the identity has this power. Denied for longer than propagation takes, it is left to whoever uses the
/// identity to meet the denial and to report it.
async fn wait_for_rights(account: &Fresh, power: &Power<'_>) -> Result<(), ClusterError> {
    let known = poll_until(PROPAGATION, || async { Ok(power.holds(&account.cluster).await?.then_some(())) }).await?;
    if known.is_none() {
        tracing::debug!(?power, "rights were not granted in time");
    }
    Ok(())
}

/// A token for the account (TokenRequest, authentication.k8s.io/v1). It lives in memory only.
async fn request_token(
    cluster: &Cluster,
    namespace: &str,
    account: &str,
    life: Duration,
) -> Result<Token, ClusterError> {
    #[derive(Deserialize)]
    struct Answer {
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        token: String,
    }
    let account = ObjectRef::namespaced(Kind::ServiceAccount, namespace, account);
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": { "expirationSeconds": life.max(SHORTEST).as_secs() },
    });
    let call = Call {
        what: format!("request a token for {account}"),
        method: Method::POST,
        path: format!("{}/token", account.path()),
        body: Some(body.to_string().into_bytes()),
    };
    let answer: Answer = cluster.call(call).await?;
    Ok(Token::new(answer.status.token))
}

/// Whether the API server refuses this token altogether (SelfSubjectReview, authentication.k8s.io/v1, HTTP 401).
pub(crate) async fn is_refused(cluster: &Cluster, token: &Token) -> Result<bool, ClusterError> {
    let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
    let call = Call {
        what: "see whether a removed token is refused".to_owned(),
        method: Method::POST,
        path: "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned(),
        body: Some(body.to_string().into_bytes()),
    };
    match cluster.as_token(token)?.call::<Value>(call).await {
        Ok(_) => Ok(false),
        Err(ClusterError::Denied { code: 401, .. }) => Ok(true),
        // Known, and denied to ask who it is: that is no death.
        Err(ClusterError::Denied { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}
