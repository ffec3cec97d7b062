//! A user's name and password, and where they are kept.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::auth::secret_header;
use super::error::RegistryError;
use super::reference::Authority;
use crate::base::file;
use crate::base::limits::Limits;

/// A user's name and password.
#[derive(Clone)]
pub struct Credentials {
    user: String,
    password: Zeroizing<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

impl Credentials {
    /// These credentials.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Zeroizing::new(password.into()) }
    }

    /// The user, with the password that is the first line of a file.
    ///
    /// # Errors
    /// When the file can't be read, is no UTF-8, or its first line is empty.
    pub fn from_password_file(user: impl Into<String>, path: &Path) -> Result<Self, RegistryError> {
        let user = user.into();
        let refuse = |reason: &str| RegistryError::Credentials {
            registry: format!("user {user}"),
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let bytes = Zeroizing::new(file::read_capped(path, 64 << 10)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| refuse("the file is no UTF-8"))?;
        let password = text.lines().next().unwrap_or_default();
        if password.is_empty() {
            return Err(refuse("its first line is empty"));
        }
        Ok(Self::new(user.clone(), password))
    }

    /// What `docker login`, `skopeo login` or the like left for this registry in a `config.json` (`auths`), if anything.
    /// Nothing is run: credentials that only a helper program could give are an error, not silently absent.
    ///
    /// # Errors
    /// When the file is there and can't be read, or has credentials for the registry in a form that can't be used.
    pub fn from_docker_config(
        path: &Path,
        registry: &Authority,
        limits: &Limits,
    ) -> Result<Option<Self>, RegistryError> {
        if !path.exists() {
            return Ok(None);
        }
        let refuse = |reason: String| RegistryError::Credentials {
            registry: registry.to_string(),
            path: path.to_owned(),
            reason,
        };
        let bytes = Zeroizing::new(file::read_capped(path, limits.document_bytes)?);
        // The parser's message names line and column; it never repeats a value of these types.
        let config: DockerConfig = serde_json::from_slice(&bytes).map_err(|error| {
            refuse(format!("it is no Docker configuration: line {}, column {}", error.line(), error.column()))
        })?;
        let names = docker_names(registry);
        let named = |key: &str| names.iter().any(|name| name == strip_url(key));
        if let Some((_, helper)) = config.cred_helpers.iter().find(|(key, _)| named(key)) {
            return Err(refuse(format!(
                "they are kept by the helper program `docker-credential-{helper}`, which gapscan does not run"
            )));
        }
        let Some((_, entry)) = config.auths.iter().find(|(key, _)| named(key)) else { return Ok(None) };
        if entry.identity_token.as_deref().is_some_and(|token| !token.is_empty()) {
            return Err(refuse("they are an identity token, which gapscan does not use".to_owned()));
        }
        match (&entry.auth, &entry.username, &entry.password) {
            (Some(auth), _, _) if !auth.is_empty() => {
                let bytes =
                    Zeroizing::new(STANDARD.decode(auth.trim()).map_err(|_| refuse("`auth` is no base64".to_owned()))?);
                let text = std::str::from_utf8(&bytes).map_err(|_| refuse("`auth` is no UTF-8".to_owned()))?;
                let (user, password) = text.split_once(':').ok_or_else(|| refuse("`auth` has no colon".to_owned()))?;
                Ok(Some(Self::new(user, password.trim_end_matches('\0'))))
            }
            (_, Some(user), Some(password)) => Ok(Some(Self::new(user, password))),
            _ => match config.creds_store {
                Some(store) => Err(refuse(format!(
                    "they are kept by the helper program `docker-credential-{store}`, which gapscan does not run"
                ))),
                None => Ok(None),
            },
        }
    }

    /// A `config.json` with these credentials in it, by registry, as Docker's tools and Kubernetes' image pull secrets have
    /// it.
    pub fn docker_config<'a>(entries: impl IntoIterator<Item = (&'a Authority, &'a Self)>) -> Zeroizing<String> {
        let auths = entries.into_iter().map(|(registry, credentials)| {
            let auth = Zeroizing::new(STANDARD.encode(credentials.pair().as_bytes()));
            let entry = Entry { username: &credentials.user, password: &credentials.password, auth };
            (registry.to_string(), entry)
        });
        let config = BTreeMap::from([("auths", auths.collect::<BTreeMap<String, Entry<'_>>>())]);
        Zeroizing::new(serde_json::to_string(&config).expect("strings have a JSON form"))
    }

    /// The password.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// `USER:PASSWORD`, as basic authentication sends it (RFC 7617).
    pub(super) fn pair(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}:{}", self.user, self.password.as_str()))
    }

    pub(super) fn header(&self) -> HeaderValue {
        secret_header(&format!("Basic {}", STANDARD.encode(self.pair().as_bytes())))
            .expect("base64 is always a header value")
    }
}

/// Where Docker's tools keep credentials: `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`.
pub fn docker_config_path() -> Option<PathBuf> {
    std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")))
        .map(|folder| folder.join("config.json"))
}

#[derive(Serialize)]
struct Entry<'a> {
    username: &'a str,
    password: &'a str,
    #[serde(serialize_with = "as_text")]
    auth: Zeroizing<String>,
}

fn as_text<S: serde::Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct DockerAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
}

/// Docker keys the credentials of its own registry by an address that it no longer has.
fn docker_names(registry: &Authority) -> Vec<String> {
    let mut names = vec![registry.to_string()];
    if matches!(registry.host(), "docker.io" | "registry-1.docker.io" | "index.docker.io") {
        names.extend(["docker.io", "index.docker.io", "registry-1.docker.io"].map(str::to_owned));
    }
    names
}

fn strip_url(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(config: &str, registry: &str) -> Result<Option<Credentials>, RegistryError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).expect("write");
        Credentials::from_docker_config(&path, &registry.parse().expect("a registry"), &Limits::default())
    }

    #[test]
    fn docker_logins_are_found_under_the_names_that_docker_gives_them() {
        let auth = STANDARD.encode("kim:pa:ss");
        for (key, registry) in [
            ("registry.internal:5000", "registry.internal:5000"),
            ("https://registry.internal:5000/v2/", "registry.internal:5000"),
            ("https://index.docker.io/v1/", "docker.io"),
        ] {
            let config = format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}},"other":1}}"#);
            let found = from(&config, registry).expect("readable").expect("there");
            assert_eq!((found.user.as_str(), found.password.as_str()), ("kim", "pa:ss"));
            assert!(!format!("{found:?}").contains("pa:ss"));
            assert!(from(&config, "registry.internal:5001").expect("readable").is_none());
        }
    }

    #[test]
    fn a_configuration_is_read_as_it_was_written_and_has_nothing_else() {
        let registry: Authority = "registry.internal:5000".parse().expect("a registry");
        let config = Credentials::docker_config([(&registry, &Credentials::new("kim", "pa:\"ss"))]);
        let found = from(&config, "registry.internal:5000").expect("readable").expect("there");
        assert_eq!((found.user.as_str(), found.password()), ("kim", "pa:\"ss"));
        assert!(from(&config, "registry.internal").expect("readable").is_none());
    }

    #[test]
    fn what_only_a_helper_knows_is_an_error_that_names_the_helper() {
        let helper = from(r#"{"credHelpers":{"r.x":"pass"}}"#, "r.x").expect_err("no helper is run");
        assert!(helper.to_string().contains("docker-credential-pass"), "{helper}");
        let store = from(r#"{"auths":{"r.x":{}},"credsStore":"desktop"}"#, "r.x").expect_err("no store is asked");
        assert!(store.to_string().contains("docker-credential-desktop"), "{store}");
        for broken in [
            r#"{"auths":{"r.x":{"auth":"%%%"}}}"#,
            r#"{"auths":{"r.x":{"auth":"bm9jb2xvbg=="}}}"#,
            r#"{"auths":{"r.x":{"identitytoken":"s3cr3t"}}}"#,
            "{",
        ] {
            let error = from(broken, "r.x").expect_err(broken);
            assert!(!error.to_string().contains("s3cr3t"), "{error}");
        }
    }
}
