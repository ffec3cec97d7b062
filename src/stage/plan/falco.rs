//! Where Falco's alerts are taken.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::quantity::Span;

/// The place where a runner takes Falco's `http_output`, always by HTTPS, from those who show a certificate or know a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct FalcoIntake {
    /// Where it listens: `ADDRESS:PORT`. Falco's URL is `https://HOST:PORT/alerts`.
    pub address: SocketAddr,
    /// Its certificate chain (PEM), read again when it changes.
    pub certificate_file: PathBuf,
    /// The certificate's unencrypted key (PEM).
    pub key_file: PathBuf,
    /// The CAs (PEM) of Falco's own certificates (`http_output.mtls`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca_file: Option<PathBuf>,
    /// A file whose first line Falco must know, of at least 16 characters: as `https://falco:TOKEN@HOST:PORT/alerts`, or in a
    /// header as `Authorization: Bearer TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The profile of Falco's rules: a folder, or the name of one of the bundle, or else of one that the ledger has results by.
    /// Without one, the rules that gave an alert are all that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// How long an alert counts as a failure of its rule; then the rule is not evaluated, since no alert is no pass.
    #[serde(default = "keep")]
    pub keep: Span,
    /// How many alerts are taken in a second; ten times as many at once. What is more is refused, counted and recorded.
    #[serde(default = "rate")]
    pub rate: NonZeroU32,
}

fn keep() -> Span {
    Span::days(30)
}

fn rate() -> NonZeroU32 {
    const HUNDRED: NonZeroU32 = NonZeroU32::new(100).expect("a hundred is not zero");
    HUNDRED
}

impl FalcoIntake {
    /// All that makes no sense in it.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.client_ca_file.is_none() && self.token_file.is_none() {
            problems.push("falco needs clientCaFile or tokenFile: alerts are not taken from anybody".to_owned());
        }
        if self.keep < Span::seconds(60) {
            problems.push("falco.keep must be at least 1m".to_owned());
        }
        problems
    }

    /// The same with its paths below this folder. A profile is a folder only if there is one.
    pub(crate) fn below(self, folder: &Path) -> Self {
        let profile = self.profile.map(|name| match folder.join(&name) {
            path if path.is_dir() => path.display().to_string(),
            _ => name,
        });
        Self {
            certificate_file: folder.join(self.certificate_file),
            key_file: folder.join(self.key_file),
            client_ca_file: self.client_ca_file.map(|file| folder.join(file)),
            token_file: self.token_file.map(|file| folder.join(file)),
            profile,
            ..self
        }
    }
}
