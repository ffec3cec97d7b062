//! `gapscan registry token`.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ValueEnum;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use zeroize::Zeroizing;

use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::limits::Limits;
use crate::base::quantity::Span;
use crate::cli::access::{ConnectArgs, REGISTRY};
use crate::cli::table;
use crate::registry::serve::{TOKEN_USER, pull_token};
use crate::registry::{Authority, Credentials, Repository};
use crate::stage::registries;

/// The longest that a token may last: none can be taken back alone.
const LONGEST: Span = Span::days(31);

/// Print a token that may read some repositories of the embedded registry, and nothing else
///
/// It is the password of the user `token`, and a bearer token. Who has the registry's folder makes it there (--data); who has
/// a user or a wider token of it asks the registry itself (--registry) and gets no more rights than they have. To end all
/// tokens at once, stop the registry, remove DIR/token.key and start it again.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder of the registry's content, whose key signs the token
    #[arg(long, value_name = "DIR", required_unless_present = "registry", conflicts_with = "registry")]
    data: Option<PathBuf>,
    /// The registry, asked for the token as the user of --username
    #[arg(long, value_name = "HOST[:PORT]", help_heading = REGISTRY)]
    registry: Option<Authority>,
    #[command(flatten)]
    connect: ConnectArgs,
    /// A repository that it may read; can be given several times
    #[arg(long, value_name = "NAME", required = true)]
    repository: Vec<Repository>,
    /// How long it lasts, 31d at most
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    lasts: Span,
    /// How to print it: as text, or as the manifest of an image pull secret
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// The registry as its clients name it, for the secret [default: --registry]
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
    pub(super) async fn run(self) -> Outcome {
        if self.lasts > LONGEST || self.lasts.duration().is_zero() {
            return Err(Failure::usage(format!("make a token for {}: it can last from 1s to {LONGEST}", self.lasts)));
        }
        let server = self.server.as_ref().or(self.registry.as_ref());
        if self.output == Output::Secret && server.is_none() {
            return Err(Failure::usage("make a secret: it needs the name of the registry")
                .with_remedy("name it as its clients do, with --server HOST[:PORT]"));
        }
        let token = match (&self.data, &self.registry) {
            (Some(data), _) => {
                let seconds = i64::try_from(self.lasts.duration().as_secs()).expect("a month is few seconds");
                pull_token(data, &self.repository, SignedDuration::from_secs(seconds), Timestamp::now())?
            }
            (None, Some(registry)) => self.ask(registry).await?,
            (None, None) => return Err(Failure::usage("make a token: neither --data nor --registry is given")),
        };
        match (self.output, server) {
            (Output::Secret, Some(server)) => {
                table::emit_json(&secret(server, &token, &self.secret_name, self.namespace.as_deref()))?;
            }
            _ => table::emit(&format!("{}\n", token.as_str()))?,
        }
        Ok(ExitClass::Success)
    }

    /// Has the registry make the token.
    async fn ask(&self, registry: &Authority) -> Outcome<Zeroizing<String>> {
        let client = registries::client(registry, &self.connect.access(), &Limits::default())?;
        let asked = self.lasts.duration();
        let Some(given) = client.pull_credentials(&self.repository, asked).await? else {
            let what = format!("get a token from registry `{registry}`: it gives none that may only read");
            return Err(Failure::new(ExitClass::Refused, what).with_remedy(
                "only gapscan's own registry does, one that asks for a password; name your user with --username",
            ));
        };
        if given.lasts < asked {
            eprintln!("it lasts {} s: the registry gives none for longer", given.lasts.as_secs());
        }
        Ok(Zeroizing::new(given.credentials.password().to_owned()))
    }
}

/// What kubelet reads as an image pull secret.
fn secret(server: &Authority, token: &str, name: &str, namespace: Option<&str>) -> serde_json::Value {
    let config = Credentials::docker_config([(server, &Credentials::new(TOKEN_USER, token))]);
    let mut secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": { "name": name },
        "type": "kubernetes.io/dockerconfigjson",
        "data": { ".dockerconfigjson": STANDARD.encode(config.as_bytes()) },
    });
    if let Some(namespace) = namespace {
        secret["metadata"]["namespace"] = json!(namespace);
    }
    secret
}
