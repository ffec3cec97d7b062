//! `gapscan registry token`.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::quantity::Span;
use crate::cli::table;
use crate::registry::serve::pull_token;
use crate::registry::{Authority, Repository};

/// The longest that a token may last: none can be taken back alone.
const LONGEST: Span = Span::days(31);

/// Print a token that may read some repositories of the embedded registry, and nothing else
///
/// It is the password of the user `token`, and a bearer token. To end all tokens at once, stop the registry, remove
/// DIR/token.key and start it again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the registry's content, whose key signs the token
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A repository that it may read; can be given several times
    #[arg(long, value_name = "NAME", required = true)]
    repository: Vec<Repository>,
    /// How long it lasts, 31d at most
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    lasts: Span,
    /// How to print it: as text, or as the manifest of an image pull secret
    #[arg(short, long, value_name = "FORMAT", default_value = "text", requires_if("secret", "server"))]
    output: Output,
    /// The registry as its clients name it, for the secret
    #[arg(long, value_name = "HOST[:PORT]")]
    server: Option<Authority>,
    /// The name of the secret
    #[arg(long, value_name = "NAME", default_value = "gapscan-registry")]
    secret_name: String,
    /// The namespace of the secret
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The token alone
    Text,
    /// A Secret of type kubernetes.io/dockerconfigjson
    Secret,
}

impl Args {
    pub(super) fn run(self) -> Outcome {
        if self.lasts > LONGEST || self.lasts.duration().is_zero() {
            return Err(Failure::usage(format!("make a token for {}: it can last from 1s to {LONGEST}", self.lasts)));
        }
        let seconds = i64::try_from(self.lasts.duration().as_secs()).expect("a month is few seconds");
        let token = pull_token(&self.data, &self.repository, SignedDuration::from_secs(seconds), Timestamp::now())?;
        match (self.output, &self.server) {
            (Output::Secret, Some(server)) => {
                table::emit_json(&secret(server, &token, &self.secret_name, self.namespace.as_deref()))?;
            }
            _ => table::emit(&format!("{}\n", token.as_str()))?,
        }
        Ok(ExitClass::Success)
    }
}

/// What kubelet reads as an image pull secret.
fn secret(server: &Authority, token: &str, name: &str, namespace: Option<&str>) -> serde_json::Value {
    let auth = STANDARD.encode(format!("token:{token}"));
    let config = json!({ "auths": { server.to_string(): { "username": "token", "password": token, "auth": auth } } });
    let mut secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name },
        "type": "kubernetes.io/dockerconfigjson",
        "data": { ".dockerconfigjson": STANDARD.encode(config.to_string()) },
    });
    if let Some(namespace) = namespace {
        secret["metadata"]["namespace"] = json!(namespace);
    }
    secret
}
