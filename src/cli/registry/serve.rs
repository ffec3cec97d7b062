//! `gapscan registry serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::quantity::Span;
use crate::registry::Credentials;
use crate::registry::serve::{CollectPolicy, Parts, RunningServer, ServeConfig, Server, Tls};

/// Serve an OCI registry from a folder until SIGTERM or SIGINT
///
/// Without --tls-cert, a CA is made in DIR/tls on the first start; clients need DIR/tls/ca.crt. A certificate that is
/// given is read again when its files change, and on SIGHUP.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
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
    /// Ask every client for this user's password, or for a token
    #[arg(long, value_name = "NAME", requires = "password_file")]
    username: Option<String>,
    /// The file whose first line is the user's password
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// Answer /metrics, /livez and /readyz here too, over plain HTTP and without a password. On the registry's own address
    /// the last two need none, and the first the user's
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// How often to look for what nobody needs
    #[arg(long, value_name = "TIME", default_value = "1h")]
    gc_every: Span,
    /// Keep a blob that no manifest names for this long after a client last heard that it is there
    #[arg(long, value_name = "TIME", default_value = "24h")]
    gc_grace: Span,
    /// Remove a manifest without a tag this long after a client last heard of it. One that a kept index names, or that
    /// refers to a kept manifest, stays. Without this option, all stay
    #[arg(long, value_name = "TIME")]
    remove_untagged: Option<Span>,
    /// Take no blob that would leave less than this many MiB of the disk
    #[arg(long, value_name = "MIB", default_value = "64")]
    reserve: u64,
    /// Take manifests whose parts are not there
    #[arg(long)]
    allow_sparse: bool,
}

impl Args {
    pub(super) async fn run(self) -> Outcome {
        let credentials = match (self.username, &self.password_file) {
            (Some(user), Some(path)) => Some(Credentials::from_password_file(user, path)?),
            _ => None,
        };
        let open = credentials.is_none();
        let (scheme, tls) = match (self.tls_cert, self.tls_key) {
            (Some(chain), Some(key)) => ("https", Tls::Given { chain, key }),
            _ if self.plain_http => ("http", Tls::PlainHttp),
            _ => ("https", Tls::Own(self.name)),
        };
        let mut signals =
            Signals::new().map_err(|error| Failure::new(ExitClass::Bug, format!("listen for signals: {error}")))?;
        raise_file_limit();
        let ca = self.data.join("tls/ca.crt");
        let server = Server::start(ServeConfig {
            credentials,
            parts: if self.allow_sparse { Parts::Optional } else { Parts::Required },
            collect: CollectPolicy {
                grace: self.gc_grace.duration(),
                untagged: self.remove_untagged.map(Span::duration),
            },
            collect_every: Some(self.gc_every.duration()),
            reserve_bytes: self.reserve.saturating_mul(1 << 20),
            metrics: self.metrics_listen,
            ..ServeConfig::new(self.data, self.listen, tls)
        })
        .await?;
        // For scripts: with port 0 only this says where.
        println!("{scheme}://{}", server.address());
        if let Some(address) = server.metrics_address() {
            println!("http://{address}/metrics");
        }
        if open {
            eprintln!("whoever reaches it may read and write; --username asks for a password");
        }
        if server.ca_pem().is_some() {
            eprintln!("clients need the CA certificate {}", ca.display());
        }
        signals.stop(&server).await;
        eprintln!("stopping; a second signal stops at once");
        // Nothing is lost by a stop at once: what was acknowledged is on the disk.
        tokio::select! { () = server.shutdown() => {}, _ = signals.term.recv() => {}, _ = signals.int.recv() => {} }
        Ok(ExitClass::Success)
    }
}

struct Signals {
    term: Signal,
    int: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until the server is to stop, and reloads its certificate when that is asked for.
    async fn stop(&mut self, server: &RunningServer) {
        loop {
            tokio::select! {
                _ = self.term.recv() => return,
                _ = self.int.recv() => return,
                _ = self.hangup.recv() => match server.reload_certificate().await {
                    Ok(true) => eprintln!("a newer certificate is in use"),
                    Ok(false) => eprintln!("there is no newer certificate"),
                    Err(error) => eprintln!("the certificate stays: {}", Failure::from(error)),
                },
            }
        }
    }
}

/// As many open files as this process may have: each connection and each upload is one. Where that can't be had, fewer
/// connections are accepted at a time.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
