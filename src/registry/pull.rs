//! Credentials for somebody who is to read some repositories and nothing else: the nodes of a cluster, other people's tools.
//!
//! Only gapscan's own registry gives such ones, as a token that is a password, too (`serve/token.rs`). It is asked as any
//! client would ask it, so that no access to its folder is needed, and gives no rights that the client does not have.

use std::time::Duration;

use reqwest::{Method, StatusCode};

use super::auth::{Challenge, Given, Scope, challenge};
use super::client::Client;
use super::credentials::Credentials;
use super::error::{Action, RegistryError};
use super::reference::Repository;
use super::serve::{SERVICE, TOKEN_PREFIX, TOKEN_USER, claims_to_read};

/// Credentials that may only read.
#[derive(Debug)]
pub struct PullCredentials {
    /// The user `token` with its password.
    pub credentials: Credentials,
    /// How long they are valid, as the registry says.
    pub lasts: Duration,
}

impl Client {
    /// Whether this client has credentials.
    pub fn has_credentials(&self) -> bool {
        self.inner.auth.has_credentials()
    }

    /// Credentials that may read these repositories and nothing else, valid for about `lasts`. `None` where this client has
    /// none itself, where the registry asks nobody for any, and where it is not gapscan's own and so has none of this kind.
    ///
    /// # Errors
    /// When the registry can't be reached, or refuses this client; also when this client may not read one of them itself.
    pub async fn pull_credentials(
        &self,
        repositories: &[Repository],
        lasts: Duration,
    ) -> Result<Option<PullCredentials>, RegistryError> {
        let inner = &self.inner;
        if !inner.auth.has_credentials() {
            return Ok(None);
        }
        let action = Action::new(format!("get a token for reading from registry `{}`", inner.registry));
        self.retry(|| async {
            let asked = inner.http.request(Method::GET, self.url(""));
            // Without authorisation: what it asks for says what it is.
            let answer = self.send_with(&action, asked, None).await?;
            match answer.status() {
                StatusCode::OK => return Ok(None),
                StatusCode::UNAUTHORIZED => {}
                _ => return Err(self.refusal(answer, &action).await),
            }
            let Some(Challenge::Bearer { realm, service }) = challenge(&answer) else { return Ok(None) };
            if service.as_deref() != Some(SERVICE) {
                return Ok(None);
            }
            let scope = Scope(repositories.iter().map(|repository| format!("repository:{repository}:pull")).collect());
            let place = (realm.as_str(), service.as_deref());
            let lasts = Some(lasts.as_secs().max(1));
            let Given { text, lasts } =
                inner.auth.given(&inner.http, &action, &scope, place, lasts, &inner.limits).await?;
            // Another registry of that name: what it gives need be no password.
            if !text.starts_with(TOKEN_PREFIX) {
                return Ok(None);
            }
            // It gives what this client has of what was asked for, which may be nothing.
            if !repositories.iter().all(|repository| claims_to_read(&text, repository)) {
                return Err(RegistryError::Unauthorized { action: action.clone(), had_credentials: true });
            }
            Ok(Some(PullCredentials { credentials: Credentials::new(TOKEN_USER, text.as_str()), lasts }))
        })
        .await
    }
}
