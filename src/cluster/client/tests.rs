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
async fn a_list_that_expires_while_it_is_read_is_begun_again() {
    let page = |names: &[&str], more: &str| {
        (200, None, json!({ "kind": "PodList", "apiVersion": "v1", "items": names, "metadata": { "continue": more } }))
    };
    let gone = (410, None, json!({ "kind": "Status", "message": "expired", "code": 410 }));
    let (cluster, _) = scripted(vec![page(&["old"], "t"), gone, page(&["a"], "t"), page(&["b"], "")]);
    let (head, items): (_, Vec<String>) =
        crate::cluster::objects::list(&cluster, "list", "/api/v1/pods", &[], 10).await.expect("a whole list");
    assert_eq!((head.kind.as_str(), items), ("PodList", vec!["a".to_owned(), "b".to_owned()]));
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
