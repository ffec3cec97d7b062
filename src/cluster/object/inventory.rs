//! Making objects, removing them, and seeing that they are gone.

use std::time::Duration;

use hyper::http::Method;
use serde_json::{Value, json};

use super::{Kind, Mark, ObjectRef, RUN};
use crate::cluster::client::{Call, Cluster, poll_until};
use crate::cluster::error::ClusterError;
use crate::cluster::network::standing;
use crate::model::provenance::Cleanup;

/// How long a removed object may take to be gone. A pod has its grace period, and the kubelet may be busy.
pub(crate) const GONE: Duration = Duration::from_secs(60);

/// How long each further object's removal is tried once the API server was silent.
const SILENT: Duration = Duration::from_secs(3);

/// The objects that one task makes. Each is written down before it is asked for, so that a lost answer loses no object.
///
/// # Cancel safety
/// Dropping it removes nothing; what a cancelled task leaves is found by its labels (see [`crate::cluster::sweep`]).
#[derive(Debug)]
pub(crate) struct Inventory {
    mark: Mark,
    made: Vec<(ObjectRef, Option<String>)>,
}

impl Inventory {
    pub(crate) fn new(mark: Mark) -> Self {
        Self { mark, made: Vec::new() }
    }

    /// Whether nothing was made.
    pub(crate) fn is_empty(&self) -> bool {
        self.made.is_empty()
    }

    /// Makes the object from a manifest without `apiVersion`, `kind` and name, which are filled in together with the
    /// labels. Unknown fields are refused by the API server.
    pub(crate) async fn create(
        &mut self,
        cluster: &Cluster,
        object: ObjectRef,
        manifest: Value,
    ) -> Result<Value, ClusterError> {
        let body = complete(&object, &self.mark, manifest);
        self.made.push((object.clone(), None));
        let outcome = create(cluster, &object, &self.mark, &body).await;
        match &outcome {
            Ok(made) => {
                if let Some(last) = self.made.last_mut() {
                    last.1 = made["metadata"]["uid"].as_str().map(str::to_owned);
                }
            }
            Err(error) if error.is_refusal() => {
                self.made.pop();
            }
            Err(_) => {}
        }
        outcome
    }

    /// Removes all, last made first, and looks whether each is gone, where the API server did not say so already. Nothing
    /// stops it half-way.
    pub(crate) async fn remove(self, cluster: &Cluster) -> Cleanup {
        let mut remaining = Vec::new();
        let mut cluster = cluster.clone();
        // Each is still tried when the server is silent, but it is not waited for again and again.
        let hurry = |error: &ClusterError, cluster: &mut Cluster| {
            if error.is_silence() {
                *cluster = cluster.impatient(SILENT);
            }
        };
        let mut unsure = Vec::new();
        for (object, uid) in self.made.iter().rev() {
            match ask_to_remove(&cluster, object, uid.as_deref()).await {
                // That nobody gets a secret again is seen by asking twice, wherever it is done.
                Ok(Removal::NotThere | Removal::Removed) if object.kind != Kind::Secret => {}
                Ok(_) => unsure.push((object, uid)),
                Err(error) => {
                    tracing::warn!(%object, error = %error, "can't remove");
                    hurry(&error, &mut cluster);
                    unsure.push((object, uid));
                }
            }
        }
        for (object, uid) in unsure {
            match gone(&cluster, object, uid.as_deref(), GONE).await {
                Ok(true) => {}
                Ok(false) => remaining.push(object.to_string()),
                Err(error) => {
                    tracing::warn!(%object, error = %error, "can't see whether it is gone");
                    hurry(&error, &mut cluster);
                    remaining.push(object.to_string());
                }
            }
        }
        Cleanup { created: self.made.iter().map(|(object, _)| object.to_string()).collect(), remaining }
    }
}

/// The manifest with `apiVersion`, `kind` and the object's name filled in.
pub(in crate::cluster) fn named(object: &ObjectRef, mut manifest: Value) -> Value {
    manifest["apiVersion"] = json!(object.kind.api_version());
    manifest["kind"] = json!(object.kind.word());
    manifest["metadata"]["name"] = json!(object.name);
    if let Some(namespace) = &object.namespace {
        manifest["metadata"]["namespace"] = json!(namespace);
    }
    manifest
}

fn complete(object: &ObjectRef, mark: &Mark, manifest: Value) -> Value {
    let mut manifest = named(object, manifest);
    for (label, value) in mark.labels() {
        manifest["metadata"]["labels"][&label] = json!(value);
        // What a Job makes is marked like the Job.
        if manifest["spec"]["template"].is_object() {
            manifest["spec"]["template"]["metadata"]["labels"][label] = json!(value);
        }
    }
    if let (Kind::NetworkPolicy, Some(namespace)) = (object.kind, &object.namespace)
        && let Some(seal) = standing::seal(namespace, &object.name, &manifest["spec"])
    {
        manifest["metadata"]["annotations"][standing::SEAL] = json!(seal);
    }
    manifest
}

async fn create(cluster: &Cluster, object: &ObjectRef, mark: &Mark, body: &Value) -> Result<Value, ClusterError> {
    let call = || Call {
        what: format!("create {object}"),
        method: Method::POST,
        path: format!("{}?fieldValidation=Strict", object.kind.collection(object.namespace.as_deref())),
        body: Some(body.to_string().into_bytes()),
    };
    match cluster.call(call()).await {
        // What is there can't be read, and need not be: it is in the run's own namespace.
        Err(ClusterError::Conflict { .. }) if object.kind.is_alone_in_its_run() => {
            delete(cluster, object, None).await?;
            cluster.call(call()).await
        }
        // A first attempt may have succeeded with its answer lost. Names carry the run's random id, so what is there
        // under this name with this run's label is ours.
        Err(conflict @ ClusterError::Conflict { .. }) => {
            let there = find(cluster, object).await?.unwrap_or_default();
            if there["metadata"]["labels"][RUN] == json!(mark.run.to_string()) { Ok(there) } else { Err(conflict) }
        }
        outcome => outcome,
    }
}

/// What is there under this name, in a way that the runner has the right to: what it may not read it may list.
async fn find(cluster: &Cluster, object: &ObjectRef) -> Result<Option<Value>, ClusterError> {
    let what = format!("read {object}");
    if object.kind.is_read() {
        return cluster.get(&what, object.path()).await.map(Some);
    }
    let query = [("fieldSelector", format!("metadata.name={}", object.name))];
    let query = query.each_ref().map(|(key, value)| (*key, value.as_str()));
    let path = object.kind.collection(object.namespace.as_deref());
    Ok(crate::cluster::objects::list::<Value>(cluster, &what, &path, &query, 1).await?.pop())
}

/// Has the API server check the object without making it: admission and validation say no here in plain words, where a
/// controller that makes the object later would only be seen not to.
pub(crate) async fn rehearse(
    cluster: &Cluster,
    object: &ObjectRef,
    mark: &Mark,
    manifest: Value,
) -> Result<(), ClusterError> {
    let body = complete(object, mark, manifest);
    let call = Call {
        what: format!("check {object}"),
        method: Method::POST,
        path: format!("{}?dryRun=All&fieldValidation=Strict", object.kind.collection(object.namespace.as_deref())),
        body: Some(body.to_string().into_bytes()),
    };
    cluster.call::<Value>(call).await.map(|_| ())
}

/// Removes the object if it is still the one with this UID. One that is gone is no error.
pub(crate) async fn delete(cluster: &Cluster, object: &ObjectRef, uid: Option<&str>) -> Result<(), ClusterError> {
    ask_to_remove(cluster, object, uid).await.map(|_| ())
}

/// What the API server says to a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Removal {
    /// Nothing was there under this name and UID.
    NotThere,
    /// It is gone from the API server's store.
    Removed,
    /// It is to go, and something has to happen first: a finalizer, or the end of a pod.
    Going,
}

impl Removal {
    /// Reads the answer to a DELETE. What is gone at once is answered with a `Status` of success, or, for some kinds, with the
    /// object as it was last; what waits for something is answered with the object, which has a `deletionTimestamp` from then
    /// on (API conventions, "Verbs on Resources"; "Garbage collection" for finalizers).
    fn of(answer: &Value) -> Self {
        let is_status = answer["kind"] == "Status";
        let succeeded = is_status && answer["status"] == "Success";
        let metadata = &answer["metadata"];
        let waits = |field: &str| metadata.get(field).is_some_and(|value| !value.is_null());
        let whole = !is_status && metadata["uid"].is_string();
        match succeeded || (whole && !waits("deletionTimestamp") && !waits("finalizers")) {
            true => Self::Removed,
            false => Self::Going,
        }
    }
}

async fn ask_to_remove(cluster: &Cluster, object: &ObjectRef, uid: Option<&str>) -> Result<Removal, ClusterError> {
    let mut options = json!({ "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background" });
    if let Some(uid) = uid {
        options["preconditions"] = json!({ "uid": uid });
    }
    let call = Call {
        what: format!("remove {object}"),
        method: Method::DELETE,
        path: object.path(),
        body: Some(options.to_string().into_bytes()),
    };
    match cluster.call::<Value>(call).await {
        Ok(answer) => Ok(Removal::of(&answer)),
        Err(ClusterError::Missing { .. }) => Ok(Removal::NotThere),
        // The precondition failed: another object has the name now, and ours is gone.
        Err(ClusterError::Conflict { .. }) if uid.is_some() => Ok(Removal::NotThere),
        Err(error) => Err(error),
    }
}

/// Whether the object is gone within `deadline`.
pub(crate) async fn gone(
    cluster: &Cluster,
    object: &ObjectRef,
    uid: Option<&str>,
    deadline: Duration,
) -> Result<bool, ClusterError> {
    let seen = poll_until(deadline, || async {
        if !object.kind.is_read() {
            return Ok((ask_to_remove(cluster, object, uid).await? == Removal::NotThere).then_some(()));
        }
        match cluster.get::<Value>(&format!("read {object}"), object.path()).await {
            Err(ClusterError::Missing { .. }) => Ok(Some(())),
            Ok(there) => Ok(uid.is_some_and(|uid| there["metadata"]["uid"] != json!(uid)).then_some(())),
            Err(error) => Err(error),
        }
    })
    .await?;
    Ok(seen.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::object::{MANAGED_BY, MANAGED_BY_VALUE, SCAN};
    use crate::model::record::RunId;

    #[test]
    fn only_an_answer_that_says_so_means_that_an_object_is_gone() {
        let object = |more: Value| {
            let mut object = json!({ "kind": "ServiceAccount", "metadata": { "name": "a", "uid": "u" } });
            for (key, value) in more.as_object().expect("fields") {
                object["metadata"][key] = value.clone();
            }
            object
        };
        for gone in [json!({ "kind": "Status", "status": "Success", "details": { "uid": "u" } }), object(json!({}))] {
            assert_eq!(Removal::of(&gone), Removal::Removed, "{gone}");
        }
        for unsure in [
            json!({ "kind": "Status", "status": "Failure" }),
            json!({ "kind": "Status" }),
            json!({}),
            json!({ "kind": "ServiceAccount" }),
            object(json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" })),
            object(json!({ "finalizers": ["a/b"] })),
        ] {
            assert_eq!(Removal::of(&unsure), Removal::Going, "{unsure}");
        }
    }

    #[test]
    fn every_object_is_named_and_marked_and_so_is_what_it_makes() {
        let mark = Mark { run: RunId::new(), scan: Some(3) };
        let object = ObjectRef::namespaced(Kind::Job, "ns", "scan-3");
        let manifest = complete(&object, &mark, json!({ "spec": { "template": { "spec": {} } } }));
        assert_eq!((manifest["apiVersion"].as_str(), manifest["kind"].as_str()), (Some("batch/v1"), Some("Job")));
        for labels in [&manifest["metadata"]["labels"], &manifest["spec"]["template"]["metadata"]["labels"]] {
            assert_eq!(labels[MANAGED_BY], MANAGED_BY_VALUE);
            assert_eq!((labels[RUN].as_str(), labels[SCAN].as_str()), (Some(mark.run.to_string().as_str()), Some("3")));
        }
        assert_eq!(object.path(), "/apis/batch/v1/namespaces/ns/jobs/scan-3");
        assert_eq!(object.to_string(), "job/ns/scan-3");
    }
}
