//! An API server in memory that holds objects, lists and removes them, for tests of what no real one shows on demand.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::client::Body;
use serde_json::{Value, json};

use super::Cluster;

/// The objects by path, and the paths that nobody may read.
#[derive(Clone, Default)]
pub(crate) struct Api(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    denied: Vec<String>,
}

impl Api {
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.0.lock().expect("not poisoned").objects.insert(path.to_owned(), object);
    }

    /// Every request whose path begins so is refused from now on.
    pub(crate) fn deny(&self, path: &str) {
        self.0.lock().expect("not poisoned").denied.push(path.to_owned());
    }

    /// What is there.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.lock().expect("not poisoned").objects.keys().cloned().collect()
    }

    pub(crate) fn cluster(&self) -> Cluster {
        let api = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (status, body) = api.answer(request.method(), request.uri().path());
            let body = Body::from(body.to_string().into_bytes());
            let response = http::Response::builder().status(status).body(body).expect("valid");
            async move { Ok::<_, std::convert::Infallible>(response) }
        });
        Cluster {
            client: kube::Client::new(service, "default"),
            config: kube::Config::new("https://cluster.example".parse().expect("an address")),
            context: "test".to_owned(),
            api_call: Duration::from_secs(5),
            patience: Duration::from_secs(5),
        }
    }

    fn answer(&self, method: &http::Method, path: &str) -> (u16, Value) {
        let mut state = self.0.lock().expect("not poisoned");
        let status = |code: u16, reason: &str| {
            (code, json!({ "kind": "Status", "message": reason, "reason": reason, "code": code }))
        };
        if state.denied.iter().any(|denied| path.starts_with(denied.as_str())) {
            return status(403, "Forbidden");
        }
        if *method == http::Method::DELETE {
            return match state.objects.remove(path) {
                Some(object) => (200, object),
                None => status(404, "NotFound"),
            };
        }
        if let Some(object) = state.objects.get(path) {
            return (200, object.clone());
        }
        let kinds = [
            "pods",
            "roles",
            "rolebindings",
            "clusterroles",
            "clusterrolebindings",
            "namespaces",
            "nodes",
            "networkpolicies",
        ];
        let Some(plural) = path.rsplit('/').next().filter(|last| kinds.contains(last)) else {
            return status(404, "NotFound");
        };
        // A collection, in one namespace or in all.
        let root = path.split("/namespaces/").next().unwrap_or(path).trim_end_matches(&format!("/{plural}"));
        let inside = |object: &str| {
            object.strip_prefix(path).is_some_and(|name| name.starts_with('/') && !name[1..].contains('/'))
                || (!path.contains("/namespaces/")
                    && object.starts_with(root)
                    && object.rsplit('/').nth(1) == Some(plural))
        };
        let items: Vec<&Value> = state.objects.iter().filter(|(at, _)| inside(at)).map(|(_, object)| object).collect();
        (200, json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items }))
    }
}
