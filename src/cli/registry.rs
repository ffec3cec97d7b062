//! `gapscan registry`: the embedded registry.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::limits::Limits;
use crate::registry::Credentials;
use crate::registry::serve::{ServeConfig, Server, Tls};

/// Run the embedded OCI registry
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(ServeArgs),
}

/// Serve an OCI registry from a folder until SIGTERM or SIGINT
///
/// Without --tls-cert, a CA is made in DIR/tls on the first start; clients need DIR/tls/ca.crt.
#[derive(Debug, clap::Args)]
struct ServeArgs {
    /// The folder of the content
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:5000")]
    listen: SocketAddr,
    /// A name or address that clients use, for the certificate that is made; can be given several times. Loopback, this
    /// host's name and the address listened on are always in it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["tls_cert", "plain_http"])]
    name: Vec<String>,
    /// The server's certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Serve without TLS; only on a loopback address
    #[arg(long, conflicts_with = "tls_cert")]
    plain_http: bool,
    /// Ask every client for this user's password
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// The file whose first line is the user's password
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
}

impl Args {
    pub(super) async fn run(self) -> Outcome {
        match self.command {
            Command::Serve(args) => args.run().await,
        }
    }
}

impl ServeArgs {
    async fn run(self) -> Outcome {
        let Self { data, listen, name, tls_cert, tls_key, plain_http, username, password_file } = self;
        let credentials = match (username, password_file) {
            (Some(user), Some(path)) => Some(Credentials::from_password_file(user, &path)?),
            _ => None,
        };
        let open = credentials.is_none();
        let (scheme, tls) = match (tls_cert, tls_key) {
            (Some(chain), Some(key)) => ("https", Tls::Given { chain, key }),
            _ if plain_http => ("http", Tls::PlainHttp),
            _ => ("https", Tls::Own(name)),
        };
        let signal_failed =
            |error: std::io::Error| Failure::new(ExitClass::Bug, format!("listen for signals: {error}"));
        let mut term = signal(SignalKind::terminate()).map_err(signal_failed)?;
        let mut int = signal(SignalKind::interrupt()).map_err(signal_failed)?;
        let ca = data.join("tls/ca.crt");
        let server = Server::start(ServeConfig { data, listen, tls, credentials, limits: Limits::default() }).await?;
        // For scripts: with port 0 only this says where.
        println!("{scheme}://{}", server.address());
        if open {
            eprintln!("whoever reaches it may read and write; --username asks for a password");
        }
        if server.ca_pem().is_some() {
            eprintln!("clients need the CA certificate {}", ca.display());
        }
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        eprintln!("stopping; a second signal stops at once");
        // Nothing is lost by a stop at once: what was acknowledged is on the disk.
        tokio::select! { () = server.shutdown() => {}, _ = term.recv() => {}, _ = int.recv() => {} }
        Ok(ExitClass::Success)
    }
}
