//! One request to a registry: address, authorisation, timeouts, retries, and what a bad answer means.
//!
//! The whole client speaks through `reqwest` alone. `oci-client` would have brought its own connection with it, and what
//! this crate needs most it does otherwise: an unusable CA falls back to the system's, one PATCH is sent for each piece of a
//! stream, a mount that is answered by an upload session is an error, and foreign layer addresses are followed. Its
//! types for manifests and error answers are used.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::StreamExt;
use oci_client::errors::OciEnvelope;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use url::Url;

use super::auth::Scope;
use super::client::Client;
use super::error::{Action, RegistryError};
use super::reference::is_loopback_host;
use crate::base::limits::Limits;

/// How long a registry may ask to be left alone before it is asked again anyway. Docker Hub's limit window is hours:
/// whoever runs into it should hear so instead of waiting in silence.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Bytes of an error answer that are read for its message.
const ERROR_BODY: u64 = 64 << 10;

/// Whether nobody between can read what goes there: TLS, or this machine.
pub(super) fn is_private_transport(url: &Url) -> bool {
    match url.scheme() {
        "https" => true,
        "http" => url.host_str().is_some_and(is_loopback_host),
        _ => false,
    }
}

/// The whole body of at most `limit` bytes.
pub(super) async fn read_capped(
    response: Response,
    limit: u64,
    action: &Action,
    limits: &Limits,
) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    let mut stream = response.bytes_stream();
    loop {
        let next = tokio::time::timeout(limits.stall, stream.next())
            .await
            .map_err(|_| RegistryError::Stalled { action: action.clone(), waited: limits.stall })?;
        match next {
            None => return Ok(bytes),
            Some(piece) => {
                let piece = piece.map_err(|source| RegistryError::Connection {
                    action: action.clone(),
                    source: source.without_url(),
                })?;
                if (bytes.len() + piece.len()) as u64 > limit {
                    return Err(RegistryError::TooLarge { action: action.clone(), limit });
                }
                bytes.extend_from_slice(&piece);
            }
        }
    }
}

/// How long the answer asks to wait (RFC 9110, 10.2.3): seconds or a date.
pub(super) fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Duration::try_from(until.duration_since(jiff::Timestamp::now())).ok()
}

/// A header's text, where it is there and readable.
pub(super) fn text_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The error that an unexpected answer is; its body is read for the message.
pub(super) async fn refusal(
    response: Response,
    action: &Action,
    had_credentials: bool,
    limits: &Limits,
) -> RegistryError {
    let status = response.status();
    let retry_after = retry_after(&response);
    if status == StatusCode::UNAUTHORIZED {
        return RegistryError::Unauthorized { action: action.clone(), had_credentials };
    }
    let bytes = read_capped(response, ERROR_BODY, action, limits).await.unwrap_or_default();
    let message = match serde_json::from_slice::<OciEnvelope>(&bytes) {
        Ok(envelope) => envelope.errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join("; "),
        Err(_) => String::new(),
    };
    RegistryError::Status { action: action.clone(), status, message, retry_after }
}

/// How often a read may be sent elsewhere. registry.k8s.io needs two.
const REDIRECTS: usize = 5;

impl Client {
    /// Sends once, with one more try when the registry asks for authorisation. Any status is an answer. A read is followed
    /// to where the registry sends it; beyond its own origin without authorisation, and never to plain HTTP elsewhere.
    pub(super) async fn send(
        &self,
        action: &Action,
        scope: &Scope,
        method: Method,
        url: Url,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let inner = &self.inner;
        let request = |url: &Url| dress(inner.http.request(method.clone(), url.clone()));
        let header = inner.auth.header(scope).await;
        let mut response = self.send_with(action, request(&url), header.clone()).await?;
        let mut accepted = header;
        if response.status() == StatusCode::UNAUTHORIZED {
            let answer =
                inner.auth.answer(&inner.http, action, scope, accepted.as_ref(), &response, &inner.limits).await?;
            response = self.send_with(action, request(&url), Some(answer.clone())).await?;
            accepted = Some(answer);
        }
        let mut at = url;
        for _ in 0..REDIRECTS {
            let moved = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !moved || !(method == Method::GET || method == Method::HEAD) {
                return Ok(response);
            }
            let protocol = |reason: &str| RegistryError::Protocol { action: action.clone(), reason: reason.to_owned() };
            let location = text_header(response.headers(), "location")
                .ok_or_else(|| protocol("it is sent elsewhere without an address"))?;
            at = at.join(location).map_err(|_| protocol("it is sent to what is no address"))?;
            let same = at.origin() == inner.origin.origin();
            if !same && !is_private_transport(&at) {
                return Err(protocol("it is sent to another host over plain HTTP"));
            }
            response = self.send_with(action, request(&at), accepted.clone().filter(|_| same)).await?;
        }
        Err(RegistryError::Protocol {
            action: action.clone(),
            reason: "it is sent from one address to the next without end".to_owned(),
        })
    }

    pub(super) async fn send_with(
        &self,
        action: &Action,
        request: RequestBuilder,
        authorisation: Option<HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let request = match authorisation {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        };
        let waited = self.inner.limits.stall;
        tokio::time::timeout(waited, request.send())
            .await
            .map_err(|_| RegistryError::Stalled { action: action.clone(), waited })?
            .map_err(|source| RegistryError::Connection { action: action.clone(), source: source.without_url() })
    }

    /// Repeats what may be repeated while the failure is one that passes, with growing, jittered pauses that are never
    /// shorter than what the registry asked for.
    pub(super) async fn retry<T, F>(&self, mut operation: impl FnMut() -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let retry = self.inner.retry;
        let pauses = ExponentialBuilder::default()
            .with_min_delay(retry.first_pause)
            .with_max_delay(retry.first_pause * 32)
            .with_max_times(retry.repeats)
            .with_jitter();
        (|| operation())
            .retry(pauses)
            .when(RegistryError::is_transient)
            .adjust(|error, pause| {
                pause.map(|pause| pause.max(error.retry_after().unwrap_or_default().min(LONGEST_PAUSE)))
            })
            .notify(|error, pause| tracing::debug!(%error, ?pause, "asking the registry again"))
            .await
    }

    /// Like [`Client::send`], repeated where that helps, and only an answer with one of these statuses is one.
    pub(super) async fn ask(
        &self,
        action: &Action,
        scope: &Scope,
        expected: &[StatusCode],
        method: Method,
        url: Url,
        dress: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        self.retry(|| async {
            let response = self.send(action, scope, method.clone(), url.clone(), &dress).await?;
            if expected.contains(&response.status()) {
                return Ok(response);
            }
            Err(self.refusal(response, action).await)
        })
        .await
    }

    pub(super) async fn refusal(&self, response: Response, action: &Action) -> RegistryError {
        refusal(response, action, self.inner.auth.has_credentials(), &self.inner.limits).await
    }

    /// The address of `/v2/REST` in this registry. `rest` is made of validated names only.
    pub(super) fn url(&self, rest: &str) -> Url {
        let mut url = self.inner.origin.clone();
        url.set_path(&format!("/v2/{rest}"));
        url
    }
}
