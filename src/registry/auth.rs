//! How a registry gets to see credentials.
//!
//! What a hostile or confused registry may try, and where it ends: a `realm` on another host, or one without TLS, gets
//! nothing unless the operator named that host ([`Authenticator::token`]); a challenge of an unknown scheme is an error; a
//! token is kept for its repository only and forgotten when it expires or is refused; a token answer is bounded. Passwords
//! and tokens are in no `Debug` and no error.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use reqwest::header::{HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use super::error::{Action, RegistryError};
use super::http::{is_private_transport, read_capped};
use super::reference::Authority;
use crate::base::limits::Limits;

/// A header that no log shows.
pub(super) fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a request needs the right to do: `repository:NAME:pull` and the like (Docker token authentication
/// specification, "Requesting a Token"); empty for the registry as such.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Scope(pub(super) Vec<String>);

/// Remembers how one registry wants to be asked, and the tokens that it gave.
pub(super) struct Authenticator {
    registry: Authority,
    origin: Url,
    credentials: Option<Credentials>,
    token_hosts: Vec<Authority>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    basic: bool,
    tokens: HashMap<Scope, Token>,
}

struct Token {
    header: HeaderValue,
    expires: Instant,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// A token as its service gave it.
pub(super) struct Given {
    pub(super) text: Zeroizing<String>,
    /// How long it is valid, as the service says; the specification's default is 60 s.
    pub(super) lasts: Duration,
}

impl Authenticator {
    pub(super) fn new(
        registry: Authority,
        origin: Url,
        credentials: Option<Credentials>,
        token_hosts: Vec<Authority>,
    ) -> Self {
        Self { registry, origin, credentials, token_hosts, state: Mutex::default() }
    }

    pub(super) fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }

    /// The `Authorization` header that the registry is known to want for this scope, if any.
    pub(super) async fn header(&self, scope: &Scope) -> Option<HeaderValue> {
        let state = self.state.lock().await;
        if state.basic {
            return self.credentials.as_ref().map(Credentials::header);
        }
        state.tokens.get(scope).filter(|token| token.expires > Instant::now()).map(|token| token.header.clone())
    }

    /// The header that was accepted a moment ago, for the request that belongs to the one before and can't be repeated.
    pub(super) async fn latest(&self, scope: &Scope) -> Option<HeaderValue> {
        let state = self.state.lock().await;
        if state.basic {
            return self.credentials.as_ref().map(Credentials::header);
        }
        state.tokens.get(scope).map(|token| token.header.clone())
    }

    /// Answers a 401: the header to repeat the request with, which differs from the one that was `refused`.
    pub(super) async fn answer(
        &self,
        http: &reqwest::Client,
        action: &Action,
        scope: &Scope,
        refused: Option<&HeaderValue>,
        response: &Response,
        limits: &Limits,
    ) -> Result<HeaderValue, RegistryError> {
        let unauthorized =
            || RegistryError::Unauthorized { action: action.clone(), had_credentials: self.credentials.is_some() };
        let header = match challenge(response).ok_or_else(unauthorized)? {
            Challenge::Basic => {
                let header = self.credentials.as_ref().map(Credentials::header).ok_or_else(unauthorized)?;
                self.state.lock().await.basic = true;
                header
            }
            Challenge::Bearer { realm, service } => {
                let token = self.token(http, action, scope, &realm, service.as_deref(), limits).await?;
                let header = token.header.clone();
                self.state.lock().await.tokens.insert(scope.clone(), token);
                header
            }
        };
        if refused == Some(&header) { Err(unauthorized()) } else { Ok(header) }
    }

    async fn token(
        &self,
        http: &reqwest::Client,
        action: &Action,
        scope: &Scope,
        realm: &str,
        service: Option<&str>,
        limits: &Limits,
    ) -> Result<Token, RegistryError> {
        let Given { text, lasts } = self.given(http, action, scope, (realm, service), None, limits).await?;
        let header = secret_header(&format!("Bearer {}", text.as_str())).ok_or_else(|| RegistryError::Protocol {
            action: action.clone(),
            reason: "the answer has no token".to_owned(),
        })?;
        // A little less is used, so that none expires on its way.
        let lives = lasts.clamp(Duration::from_secs(10), Duration::from_secs(86_400));
        Ok(Token { header, expires: Instant::now() + lives.mul_f32(0.9) })
    }

    /// Asks for a token with these rights. `lasts` is for gapscan's own registry, which gives one for so many seconds.
    pub(super) async fn given(
        &self,
        http: &reqwest::Client,
        action: &Action,
        scope: &Scope,
        (realm, service): (&str, Option<&str>),
        lasts: Option<u64>,
        limits: &Limits,
    ) -> Result<Given, RegistryError> {
        let protocol = |reason: String| RegistryError::Protocol { action: action.clone(), reason };
        let mut url = self
            .origin
            .join(realm)
            .map_err(|_| protocol("the registry names a token service that is no address".to_owned()))?;
        let target = url.origin().ascii_serialization();
        if !is_private_transport(&url) {
            return Err(RegistryError::ForeignHost { action: action.clone(), what: "token service", target });
        }
        let known = url.origin() == self.origin.origin()
            || self.token_hosts.iter().any(|host| {
                Some(host.host()) == url.host_str()
                    && host.port().unwrap_or(443) == url.port_or_known_default().unwrap_or(443)
            });
        if self.credentials.is_some() && !known {
            return Err(RegistryError::ForeignHost { action: action.clone(), what: "token service", target });
        }
        {
            let mut query = url.query_pairs_mut();
            for scope in &scope.0 {
                query.append_pair("scope", scope);
            }
            if let Some(service) = service {
                query.append_pair("service", service);
            }
            if let Some(lasts) = lasts {
                query.append_pair("lasts", &lasts.to_string());
            }
        }
        let mut request = http.get(url);
        if let Some(credentials) = &self.credentials {
            request = request.header(reqwest::header::AUTHORIZATION, credentials.header());
        }
        let action = Action::new(format!("get a token for registry `{}` from `{target}`", self.registry));
        let response = tokio::time::timeout(limits.stall, request.send())
            .await
            .map_err(|_| RegistryError::Stalled { action: action.clone(), waited: limits.stall })?
            .map_err(|source| RegistryError::Connection { action: action.clone(), source: source.without_url() })?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Err(RegistryError::Unauthorized { action, had_credentials: self.credentials.is_some() });
            }
            status => {
                let retry_after = super::http::retry_after(&response);
                return Err(RegistryError::Status { action, status, message: String::new(), retry_after });
            }
        }
        let bytes = Zeroizing::new(read_capped(response, 1 << 20, &action, limits).await?);
        let answer: TokenAnswer = serde_json::from_slice(&bytes).map_err(|_| RegistryError::Protocol {
            action: action.clone(),
            reason: "the answer is no token".to_owned(),
        })?;
        let text = Zeroizing::new(answer.token.or(answer.access_token).unwrap_or_default());
        if text.is_empty() {
            return Err(RegistryError::Protocol { action, reason: "the answer has no token".to_owned() });
        }
        Ok(Given { text, lasts: Duration::from_secs(answer.expires_in.unwrap_or(60)) })
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("registry", &self.registry).finish_non_exhaustive()
    }
}

/// Bearer is preferred where both are offered.
pub(super) fn challenge(response: &Response) -> Option<Challenge> {
    let mut basic = None;
    for value in response.headers().get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        for challenge in http_auth::parser::ChallengeParser::new(text).flatten() {
            let param = |name: &str| {
                challenge
                    .params
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.to_unescaped())
            };
            if challenge.scheme.eq_ignore_ascii_case("Bearer")
                && let Some(realm) = param("realm")
            {
                return Some(Challenge::Bearer { realm, service: param("service") });
            }
            if challenge.scheme.eq_ignore_ascii_case("Basic") {
                basic = Some(Challenge::Basic);
            }
        }
    }
    basic
}
