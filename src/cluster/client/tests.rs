//! What a real API server can't be made to show on demand.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;

type Script = Arc<Mutex<VecDeque<(u16, Option<&'static str>, Value)>>>;

/// A cluster whose server gives these answers in turn: status, `Retry-After`, body. Without one it never answers.
fn scripted(answers: Vec<(u16, Option<&'static str>, Value)>) -> (Cluster, Script) {
    let script: Script = Arc::new(Mutex::new(answers.into()));
    let answers = script.clone();
    let service = tower::service_fn(move |_: http::Request<Body>| {
        let answer = answers.lock().expect("no test panics with it").pop_front();
        async move {
            let Some((status, after, body)) = answer else { return std::future::pending().await };
            let mut response = http::Response::builder().status(status);
            if let Some(after) = after {
                response = response.header("Retry-After", after);
            }
            Ok::<_, std::convert::Infallible>(response.body(Body::from(body.to_string().into_bytes())).expect("valid"))
        }
    });
    let cluster = Cluster {
        client: kube::Client::new(service, "default"),
        config: kube::Config::new("https://cluster.example".parse().expect("an address")),
        context: "test".to_owned(),
        api_call: Duration::from_millis(300),
        patience: Duration::from_secs(20),
    };
    (cluster, script)
}

#[tokio::test]
async fn a_busy_server_is_given_the_time_it_asks_for() {
    let busy = (429, Some("1"), json!("Too many requests"));
    let (cluster, script) = scripted(vec![busy, (503, None, json!({})), (200, None, json!({ "ok": true }))]);
    let began = Instant::now();
    let answer: Value = cluster.get("ask", "/x".to_owned()).await.expect("the third answer");
    assert_eq!(answer, json!({ "ok": true }));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(script.lock().expect("not poisoned").is_empty());
}

#[tokio::test]
async fn a_refusal_is_not_repeated() {
    let status = json!({ "kind": "Status", "message": "no", "reason": "Forbidden", "code": 403 });
    let (cluster, script) = scripted(vec![(403, None, status), (200, None, json!({}))]);
    let error = cluster.get::<Value>("ask", "/x".to_owned()).await.expect_err("denied");
    assert!(matches!(error, ClusterError::Denied { code: 403, .. }), "{error}");
    assert_eq!(script.lock().expect("not poisoned").len(), 1);
}

#[tokio::test]
async fn silence_ends() {
    let (cluster, _) = scripted(vec![]);
    let cluster = cluster.impatient(Duration::from_millis(500));
    let error = cluster.get::<Value>("ask", "/x".to_owned()).await.expect_err("no answer");
    assert!(matches!(error, ClusterError::NoAnswer { .. }), "{error}");
    assert_eq!(error.reason(), crate::model::reason::Reason::ApiUnreachable);
}

#[tokio::test]
async fn an_answer_that_is_no_list_is_not_an_empty_one() {
    let head = json!({ "kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": null });
    let (cluster, _) =
        scripted(vec![(200, None, head), (200, None, json!({})), (200, None, json!({ "kind": "PodList" }))]);
    let list = || crate::cluster::objects::list::<Value>(&cluster, "list", "/api/v1/pods", &[], 10);
    assert!(list().await.expect("as Go writes an empty list").is_empty());
    for _ in 0..2 {
        assert!(matches!(list().await.err(), Some(ClusterError::Malformed { .. })));
    }
}

#[tokio::test]
async fn a_list_that_expires_while_it_is_read_is_begun_again() {
    let page = |names: &[&str], more: &str| {
        (200, None, json!({ "kind": "PodList", "apiVersion": "v1", "items": names, "metadata": { "continue": more } }))
    };
    let gone = (410, None, json!({ "kind": "Status", "message": "expired", "code": 410 }));
    let (cluster, _) = scripted(vec![page(&["old"], "t"), gone, page(&["a"], "t"), page(&["b"], "")]);
    let keep = |head: &crate::cluster::objects::ListHead, item: String| Ok(Some((head.kind.clone(), item)));
    let items = crate::cluster::objects::list_as(&cluster, "list", "/api/v1/pods", &[], 10, keep).await;
    let item = |name: &str| ("PodList".to_owned(), name.to_owned());
    assert_eq!(items.expect("a whole list"), [item("a"), item("b")]);
}

#[tokio::test]
async fn a_connection_that_is_not_verified_is_refused() {
    let refused = |config: kube::Config| Cluster::new(config, String::new(), &Limits::default());
    let plain = kube::Config::new("http://cluster.example".parse().expect("an address"));
    assert!(matches!(refused(plain), Err(ClusterError::Insecure { .. })));
    let mut blind = kube::Config::new("https://cluster.example".parse().expect("an address"));
    blind.accept_invalid_certs = true;
    assert!(matches!(refused(blind), Err(ClusterError::Insecure { .. })));
}

#[test]
fn versions_of_providers_are_read() {
    let minor = |minor: &str| {
        Version { major: "1".to_owned(), minor: minor.to_owned(), git_version: String::new() }.minor_number()
    };
    assert_eq!((minor("36"), minor("27+"), minor("")), (Some(36), Some(27), None));
}

#[tokio::test]
async fn a_creation_whose_answer_was_lost_is_recognised_and_one_of_another_run_is_not() {
    use crate::cluster::object::{Inventory, Kind, Mark, ObjectRef, RUN};
    use crate::model::record::RunId;

    let run = RunId::new();
    for (owner, ours) in [(run, true), (RunId::new(), false)] {
        let lost = (504, None, json!({ "kind": "Status", "message": "timeout", "code": 504 }));
        let there = (409, None, json!({ "kind": "Status", "message": "already exists", "code": 409 }));
        let object = json!({ "metadata": { "uid": "u", "labels": { RUN: owner.to_string() } } });
        let list = json!({ "kind": "RoleList", "apiVersion": "v1", "metadata": {}, "items": [object] });
        let (cluster, script) = scripted(vec![lost, there, (200, None, list)]);
        let mut inventory = Inventory::new(Mark { run, scan: None });
        let role = ObjectRef::namespaced(Kind::Role, "shop", "x");
        let made = inventory.create(&cluster, role, json!({ "rules": [] })).await;
        assert_eq!(made.is_ok(), ours, "{made:?}");
        assert!(script.lock().expect("not poisoned").is_empty());
        // Only what is ours is removed: once, and then it is looked for.
        let gone = (404, None, json!({ "kind": "Status", "message": "gone", "code": 404 }));
        script.lock().expect("not poisoned").extend([(200, None, json!({})), gone]);
        let cleanup = inventory.remove(&cluster).await;
        assert_eq!((cleanup.created.len(), cleanup.remaining.len()), (usize::from(ours), 0));
        assert_eq!(script.lock().expect("not poisoned").is_empty(), ours);
    }
}

#[tokio::test]
async fn what_can_not_be_seen_to_be_gone_remains() {
    use crate::cluster::object::{Inventory, Kind, Mark, ObjectRef};
    use crate::model::record::RunId;

    let refused = |code| (code, None, json!({ "kind": "Status", "message": "no", "code": code }));
    let (cluster, _) = scripted(vec![(201, None, json!({ "metadata": { "uid": "u" } })), refused(403), refused(403)]);
    let mut inventory = Inventory::new(Mark { run: RunId::new(), scan: Some(1) });
    let role = ObjectRef::namespaced(Kind::Role, "shop", "x");
    inventory.create(&cluster, role, json!({ "rules": [] })).await.expect("it is made");
    assert_eq!(inventory.remove(&cluster).await.remaining, ["role/shop/x"]);
}

#[test]
fn of_secrets_only_metadata_is_asked_for() {
    for path in ["/api/v1/secrets?limit=1", "/api/v1/namespaces/a/secrets", "/api/v1/namespaces/a/secrets/b?x=1"] {
        assert!(super::is_of_secrets(path), "{path}");
    }
    for path in ["/api/v1/namespaces/a/pods", "/apis/x.example/v1/secrets", "/api/v1/pods?labelSelector=/secrets/"] {
        assert!(!super::is_of_secrets(path), "{path}");
    }
    assert!(
        super::is_list("/api/v1/namespaces/a/secrets?limit=1") && !super::is_list("/api/v1/namespaces/a/secrets/b")
    );
}
