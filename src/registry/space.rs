//! How much room a registry has. The distribution-spec has no question for it; gapscan's own registry answers one.

use reqwest::{Method, StatusCode};
use serde::Deserialize;

use super::auth::Scope;
use super::client::Client;
use super::error::{Action, RegistryError};
use super::http::read_capped;

/// Bytes of the answer.
const ANSWER: u64 = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Space {
    available_bytes: u64,
}

impl Client {
    /// How many bytes the registry can still take; `None` when it does not tell, as all but gapscan's own.
    ///
    /// # Errors
    /// When the registry can't be reached.
    pub async fn available_bytes(&self) -> Result<Option<u64>, RegistryError> {
        let action = Action::new(format!("ask registry `{}` for its free space", self.inner.registry));
        let url = self.url("_gapscan/space");
        let scope = Scope::default();
        let asked = self.retry(|| self.send(&action, &scope, Method::GET, url.clone(), |request| request)).await;
        let response = match asked {
            Ok(response) if response.status() == StatusCode::OK => response,
            // Whatever else it answers, it does not know the question.
            Ok(_) | Err(RegistryError::Unauthorized { .. } | RegistryError::Protocol { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        match read_capped(response, ANSWER, &action, &self.inner.limits).await {
            Ok(bytes) => Ok(serde_json::from_slice::<Space>(&bytes).ok().map(|space| space.available_bytes)),
            Err(RegistryError::TooLarge { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::response::Response;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use crate::registry::testing::{Between, client, plain, status};

    #[tokio::test]
    async fn only_an_answer_that_is_one_tells_the_space() {
        let answer = |text: &'static str| Response::builder().body(Body::from(text)).expect("an answer");
        for (rule, expected) in [
            (
                Box::new(move || answer(r#"{"availableBytes": 12}"#)) as Box<dyn Fn() -> Response + Send + Sync>,
                Some(12),
            ),
            (Box::new(move || answer("<html>hello</html>")), None),
            (Box::new(move || answer(r#"{"availableBytes": -1}"#)), None),
            (Box::new(|| status(404)), None),
            (Box::new(|| status(405)), None),
            (Box::new(|| status(401)), None),
        ] {
            let between = Between::start(None, move |_, _| Some(rule())).await;
            assert_eq!(client(plain(between.address)).available_bytes().await.expect("an answer"), expected);
            assert_eq!(between.seen()[0].path, "/v2/_gapscan/space");
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_once_is_no_answer() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let task = tokio::spawn(async move {
            drop(listener.accept().await.expect("a connection"));
            let (mut stream, _) = listener.accept().await.expect("another");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await.expect("a request");
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{\"availableBytes\": 9}";
            stream.write_all(answer).await.expect("an answer");
            let _ = stream.read(&mut request).await;
        });
        assert_eq!(client(plain(address)).available_bytes().await.expect("asked again"), Some(9));
        task.abort();
    }
}
