//! Who may send alerts, how large, and how often: the HTTPS end of it.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::{Body as _, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH};
use hyper::{Method, Request, Response, StatusCode};
use zeroize::Zeroizing;

use super::journal::{Journal, Refusal};
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::results::Alert;

/// Where alerts are sent to.
pub(super) const PATH: &str = "/alerts";
/// Bytes of one alert. Falco's own are a few hundred; an output may name a long command line.
const ALERT: u64 = 256 << 10;
/// For all of a body, from its head on.
const BODY: Duration = Duration::from_secs(10);
/// So many seconds' alerts may come at once.
const BURST: f64 = 10.0;

/// Takes alerts.
pub(super) struct Desk {
    pub(super) journal: Arc<Journal>,
    token: Option<Zeroizing<String>>,
    bucket: Mutex<Bucket>,
    limits: Limits,
}

/// How many more may come now.
struct Bucket {
    rate: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// Whether one more may come at this time.
    fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.rate;
        self.tokens = (self.tokens + earned).min(self.rate * BURST);
        self.at = now;
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }
}

impl Desk {
    /// Without a token whoever showed a certificate may send: the handshake saw to that.
    pub(super) fn new(journal: Arc<Journal>, token: Option<Zeroizing<String>>, rate: u32, limits: Limits) -> Self {
        let rate = f64::from(rate);
        let bucket = Mutex::new(Bucket { rate, tokens: rate * BURST, at: Instant::now() });
        Self { journal, token, bucket, limits }
    }

    /// Takes one request. Falco takes any answer for success, so that whatever is not 200 here is counted.
    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<String> {
        let status = match self.take(request).await {
            Ok(status) => status,
            Err(refusal) => {
                let journal = Arc::clone(&self.journal);
                // Whether it could be counted changes nothing for the sender.
                let _ = tokio::task::spawn_blocking(move || journal.refuse(refusal)).await;
                match refusal {
                    Refusal::Stranger => StatusCode::UNAUTHORIZED,
                    Refusal::NoAlert => StatusCode::BAD_REQUEST,
                    Refusal::Unfit => StatusCode::PAYLOAD_TOO_LARGE,
                    Refusal::Flood => StatusCode::TOO_MANY_REQUESTS,
                    Refusal::Full => StatusCode::SERVICE_UNAVAILABLE,
                    Refusal::Disk => StatusCode::INSUFFICIENT_STORAGE,
                }
            }
        };
        let mut response = Response::new(String::new());
        *response.status_mut() = status;
        response
    }

    async fn take(&self, request: Request<Incoming>) -> Result<StatusCode, Refusal> {
        let authorization = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes().to_vec());
        if !self.token.as_ref().is_none_or(|token| is_known(authorization.as_deref(), token)) {
            return Err(Refusal::Stranger);
        }
        if request.uri().path() != PATH || request.method() != Method::POST {
            return Err(Refusal::NoAlert);
        }
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|bytes| bytes > ALERT) {
            return Err(Refusal::Unfit);
        }
        if !self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()) {
            return Err(Refusal::Flood);
        }
        let body = tokio::time::timeout(BODY, whole(request.into_body())).await;
        let body = body.ok().flatten().ok_or(Refusal::Unfit)?;
        Alert::of(&body, &self.limits).map_err(|_| Refusal::NoAlert)?;
        let journal = Arc::clone(&self.journal);
        match tokio::task::spawn_blocking(move || journal.append(&body)).await {
            Ok(kept) => kept.map(|()| StatusCode::OK),
            Err(_) => Err(Refusal::Disk),
        }
    }
}

/// All of a body; `None` where it is too large or not whole.
async fn whole(mut body: Incoming) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let data = frame.ok()?.into_data().unwrap_or_default();
        if (bytes.len() + data.len()) as u64 > ALERT {
            return None;
        }
        bytes.extend_from_slice(&data);
    }
    Some(bytes)
}

/// Whether this header has the token: as a bearer's, or as anybody's password, which is what curl makes of a URL.
fn is_known(authorization: Option<&[u8]>, token: &str) -> bool {
    let Some((scheme, rest)) =
        authorization.and_then(|value| std::str::from_utf8(value).ok()).and_then(|text| text.split_once(' '))
    else {
        return false;
    };
    let given = match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Zeroizing::new(rest.trim().to_owned()),
        "basic" => {
            let Ok(decoded) = STANDARD.decode(rest.trim()).map(Zeroizing::new) else { return false };
            let Ok(text) = std::str::from_utf8(&decoded) else { return false };
            Zeroizing::new(text.split_once(':').map_or("", |(_, password)| password).to_owned())
        }
        _ => return false,
    };
    // Digests have one length, so that the time says nothing of the token's.
    verify_slices_are_equal(Digest::of(given.as_bytes()).bytes(), Digest::of(token.as_bytes()).bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_in_both_ways_and_no_other() {
        let token = "0123456789abcdef";
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let known = |header: &str| is_known(Some(header.as_bytes()), token);
        assert!(known("Bearer 0123456789abcdef") && known("bearer 0123456789abcdef"));
        assert!(known(&basic("falco:0123456789abcdef")) && known(&basic(":0123456789abcdef")));
        for header in ["Bearer ", "Bearer 0123456789abcde", "Basic !", "Digest x", "0123456789abcdef", ""] {
            assert!(!known(header), "{header}");
        }
        assert!(!known(&basic("0123456789abcdef")) && !is_known(None, token) && !is_known(Some(b"\xff \xff"), token));
    }

    #[test]
    fn a_flood_is_let_in_as_fast_as_it_may() {
        let begin = Instant::now();
        let mut bucket = Bucket { rate: 2.0, tokens: 20.0, at: begin };
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!((0..100).filter(|_| bucket.take(at(0))).count(), 20);
        assert_eq!((0..100).filter(|_| bucket.take(at(3))).count(), 6);
        assert_eq!((0..100).filter(|_| bucket.take(at(10_000))).count(), 20);
    }
}
