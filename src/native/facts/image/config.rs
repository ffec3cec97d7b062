//! The configuration of an image (OCI image-spec, config.md).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::super::{ImageFacts, config as lines};
use super::ImageError;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::base::text::{brief, key_read_otherwise};

#[derive(Deserialize)]
struct Document {
    created: Option<String>,
    config: Option<Settings>,
    rootfs: RootFs,
    history: Option<Vec<Step>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Settings {
    user: Option<String>,
    env: Option<Vec<String>>,
    exposed_ports: Option<BTreeMap<String, serde::de::IgnoredAny>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    healthcheck: Option<Healthcheck>,
    labels: Option<BTreeMap<String, String>>,
    volumes: Option<BTreeMap<String, serde::de::IgnoredAny>>,
}

#[derive(Deserialize)]
struct Healthcheck {
    #[serde(rename = "Test")]
    test: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
struct Step {
    created_by: Option<String>,
}

/// The keys that are read here, and so must not be there in another spelling.
const KNOWN: [&str; 16] = [
    "created",
    "config",
    "rootfs",
    "history",
    "User",
    "Env",
    "ExposedPorts",
    "Entrypoint",
    "Cmd",
    "Healthcheck",
    "Labels",
    "Volumes",
    "Test",
    "diff_ids",
    "created_by",
    "type",
];
/// Those of them whose own keys are these, too, and not the image's own words.
const NESTED: [&str; 4] = ["config", "rootfs", "history", "Healthcheck"];

fn read(bytes: &[u8], limits: &Limits) -> Result<Document, ImageError> {
    if bytes.len() as u64 > limits.manifest_bytes {
        return Err(ImageError::ConfigSize(limits.manifest_bytes));
    }
    let document = serde_json::from_slice(bytes).map_err(ImageError::Config)?;
    let value = serde_json::from_slice(bytes).map_err(ImageError::Config)?;
    match key_read_otherwise(&value, &KNOWN, &NESTED) {
        Some(key) => Err(ImageError::Config(serde::de::Error::custom(format_args!(
            "whoever runs the image may take its key `{}` for another",
            brief(key)
        )))),
        None => Ok(document),
    }
}

/// The digests of the image's layers, uncompressed, from the bottom: what [`super::read_layer`] asks for.
///
/// # Errors
/// When the configuration is too large, no JSON of the right shape, or names something that is no SHA-256 digest.
pub fn diff_ids(config: &[u8], limits: &Limits) -> Result<Vec<Digest>, ImageError> {
    read(config, limits)?.rootfs.diff_ids.iter().map(|id| id.parse().map_err(ImageError::ConfigDigest)).collect()
}

/// The facts in the configuration itself.
pub(super) fn facts(bytes: &[u8], limits: &Limits) -> Result<ImageFacts, ImageError> {
    let document = read(bytes, limits)?;
    let settings = document.config.unwrap_or_default();
    let env = settings.env.unwrap_or_default();
    let variables = || env.iter().map(|variable| variable.split_once('=').unwrap_or((variable, "")));
    let steps = document.history.unwrap_or_default();
    let tested = |check: Healthcheck| check.test.is_some_and(|test| test.first().is_some_and(|first| first != "NONE"));
    Ok(ImageFacts {
        user: settings.user.unwrap_or_default(),
        env_names: variables().map(|(name, _)| name.to_owned()).collect(),
        env_secrets: variables().filter(|(name, value)| secret(name, value)).map(|(name, _)| name.to_owned()).collect(),
        exposed_ports: settings.exposed_ports.unwrap_or_default().into_keys().collect(),
        command: [settings.entrypoint, settings.cmd].into_iter().flatten().flatten().collect(),
        healthcheck: settings.healthcheck.is_some_and(tested),
        labels: settings.labels.unwrap_or_default(),
        created: document.created.unwrap_or_default(),
        layers: u32::try_from(document.rootfs.diff_ids.len()).unwrap_or(u32::MAX),
        volumes: settings.volumes.unwrap_or_default().into_keys().collect(),
        remote_adds: steps.into_iter().filter_map(|step| remote_add(&step.created_by?)).collect(),
    })
}

/// Whether a variable looks like a secret. The name of a file that holds one (`..._FILE`) is none.
fn secret(name: &str, value: &str) -> bool {
    const WORDS: [&str; 9] =
        ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "ACCESS_KEY", "CREDENTIAL"];
    let name = name.to_ascii_uppercase();
    let named = WORDS.iter().any(|word| name.contains(word)) && !name.ends_with("_FILE");
    !value.is_empty() && (named || value.trim_start().starts_with("-----BEGIN"))
}

/// A build step that added something from the network: `ADD http...`, as Docker and BuildKit write it.
fn remote_add(step: &str) -> Option<String> {
    let step = step.trim_start_matches("/bin/sh -c #(nop)").trim_start();
    let sources = step.strip_prefix("ADD ")?;
    let remote = ["http://", "https://", "ftp://", "git@", "git://"];
    let found = sources.split_ascii_whitespace().any(|word| remote.iter().any(|scheme| word.starts_with(scheme)));
    found.then(|| lines::mask(&step.chars().take(1000).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_configuration_and_keeps_no_value() {
        let config = br#"{"created":"2026-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{"User":"101",
            "Env":["PATH=/bin","DB_PASSWORD=hunter2","EMPTY_TOKEN=","PW_FILE=/x","DB_PASSWORD_FILE=/run/x","CERT=-----BEGIN X","BARE"],
            "ExposedPorts":{"8080/tcp":{}},"Entrypoint":["/e"],"Cmd":["c"],"Healthcheck":{"Test":["NONE"]},"Volumes":null,
            "Labels":{"a":"b"}},"rootfs":{"type":"layers","diff_ids":[]},"history":[
            {"created_by":"/bin/sh -c #(nop) ADD file:abc in / "},{"created_by":"ADD https://u:hunter2@h/x.tar / # buildkit"},{}]}"#;
        let facts = facts(config, &Limits::default()).expect("configuration");
        assert_eq!(facts.env_secrets, ["DB_PASSWORD", "CERT"]);
        assert_eq!(facts.env_names.len(), 7);
        assert_eq!((facts.command.len(), facts.healthcheck, facts.user.as_str()), (2, false, "101"));
        assert_eq!(facts.remote_adds, ["ADD https://***@h/x.tar / # buildkit"]);
        assert!(!serde_json::to_string(&facts).expect("json").contains("hunter2"));
    }

    #[test]
    fn refuses_what_is_no_configuration() {
        let limits = Limits::default();
        for bad in [
            "",
            "[]",
            "{}",
            r#"{"rootfs":{"diff_ids":["md5:x"]}}"#,
            r#"{"rootfs":{"diff_ids":[]},"rootfs":{"diff_ids":[]}}"#,
        ] {
            assert!(diff_ids(bad.as_bytes(), &limits).is_err(), "{bad}");
        }
    }
}
