//! `gapscan agent`: what the binary does inside a pod. Hidden: nobody types this.

use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};

use crate::base::digest::Digest;
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::limits::Limits;
use crate::cluster::agent::archive::{self, Awaited};
use crate::cluster::agent::beside::{self, Kept as KeptParcel, Neighbour, Settled};
use crate::cluster::agent::error::AgentError;
use crate::cluster::agent::in_target::{self, GuestRequest};
use crate::cluster::agent::kubeconfig::ApiServer;
use crate::cluster::agent::own_sockets::OwnWatch;
use crate::cluster::agent::probe::Expected;
use crate::cluster::agent::protocol::OWN_SOCKETS;
use crate::cluster::agent::run::{ResultAt, RunRequest};
use crate::cluster::agent::sockets::Network;
use crate::cluster::agent::upload::Destination;
use crate::cluster::agent::{collect, hold, install, listen, parcel, probe, run};
use crate::native::facts;

/// Do what gapscan does inside a pod; nobody types this
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy this binary to a path
    Install {
        /// Where to
        to: PathBuf,
    },
    /// Run a scanner and hold the pod until its result was fetched
    Run {
        #[command(flatten)]
        kept: Kept,
        /// Where the target's files are
        #[arg(long)]
        target_mount: Option<PathBuf>,
        #[command(flatten)]
        api: Box<Api>,
        #[command(flatten)]
        upload: Box<Upload>,
        /// The network is the target's too
        #[arg(long)]
        shared_network: bool,
        /// By which `collect --release` finds it
        #[arg(long)]
        word: Option<String>,
        /// The target is another container of the pod, whose id will be in this file
        #[arg(long, value_name = "FILE", conflicts_with = "target_mount")]
        beside: Option<PathBuf>,
        #[command(flatten)]
        archive: Box<Archive>,
        /// Seconds after which the scanner is killed
        #[arg(long)]
        deadline: u64,
        /// Seconds for which the pod is held after the scanner's end
        #[arg(long)]
        hold: u64,
        /// A word of the command by which the scanner is asked for its version first
        #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
        version_word: Vec<OsString>,
        /// Paths in the target that the scanner passes over without a word: those that are there are told
        #[arg(long, value_name = "PATTERN", allow_hyphen_values = true)]
        leaves_out: Vec<String>,
        /// The scanner's program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Be the scanner by a program of the target's own, which is run there
    InTarget {
        #[command(flatten)]
        api: Api,
        /// The target's pod
        #[arg(long)]
        pod: String,
        /// Its UID
        #[arg(long)]
        uid: String,
        /// The target
        #[arg(long)]
        container: String,
        /// The scan's word
        #[arg(long)]
        word: String,
        /// Where the result is put; printed without it
        #[arg(long)]
        result: Option<PathBuf>,
        /// Bytes of the result, at most
        #[arg(long)]
        limit: u64,
        /// Seconds after which it is killed
        #[arg(long)]
        deadline: u64,
        /// The file that the program needs
        #[arg(long)]
        delivers: Option<PathBuf>,
        /// A variable of the program, as NAME=VALUE
        #[arg(long, allow_hyphen_values = true)]
        variable: Vec<String>,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Take an image as an archive from stdin, and say to stdout what came of it
    Receive {
        /// The archive's file
        #[arg(long)]
        into: PathBuf,
        /// Bytes of the archive, at most
        #[arg(long)]
        limit: u64,
        /// Seconds after which a sender that says nothing is given up
        #[arg(long)]
        silence: u64,
    },
    /// Wait for the scanner's end and write its result to stdout
    Collect {
        #[command(flatten)]
        kept: Kept,
        /// End what holds with this word afterwards
        #[arg(long, value_name = "WORD")]
        release: Option<String>,
        /// First tell the scanner that waits for it the id of its target
        #[arg(long, value_names = ["FILE", "ID"], num_args = 2)]
        tell: Vec<String>,
    },
    /// Print the process that holds with a word
    Locate {
        /// The word
        #[arg(long)]
        word: String,
        /// End it
        #[arg(long)]
        release: bool,
    },
    /// Do nothing until SIGTERM
    Hold {
        /// Seconds after which it ends by itself
        #[arg(long)]
        deadline: u64,
        /// By which `facts --release` finds it
        #[arg(long)]
        word: String,
    },
    /// Collect facts about a system and write them to stdout with their length and digest
    Facts {
        /// Where its files are
        #[arg(long)]
        root: PathBuf,
        /// End what holds with this word afterwards
        #[arg(long, value_name = "WORD")]
        release: Option<String>,
    },
    /// Do nothing until SIGTERM: what stands beside a container that is looked at by `beside`
    StandBy {
        /// The container, for whoever reads the manifest
        #[arg(long = "for", value_name = "CONTAINER")]
        container: String,
        /// Seconds after which it ends by itself
        #[arg(long)]
        deadline: Option<u64>,
    },
    /// Collect facts about another container of the pod, whose processes are seen, and write them to stdout with their length
    /// and digest
    Beside {
        /// The container's id, as its runtime names it
        #[arg(long, value_name = "ID")]
        container_id: String,
        /// The folder in which what was collected is kept until the next scan
        #[arg(long)]
        results: PathBuf,
        /// The scan: what was collected for it once is sent again
        #[arg(long)]
        word: String,
        /// Wait until its processes and sockets stay as they are
        #[arg(long)]
        settle: bool,
    },
    /// Take connections and close them until SIGTERM
    Listen {
        /// The ports
        #[arg(long, required = true)]
        port: Vec<u16>,
        /// Seconds after which it ends by itself
        #[arg(long)]
        deadline: u64,
    },
    /// Try to connect and report to stdout what happens
    Probe {
        /// An address that should be reached
        #[arg(long)]
        open: Vec<SocketAddr>,
        /// An address that should not be reached
        #[arg(long)]
        blocked: Vec<SocketAddr>,
        /// Seconds after which what was seen last is reported
        #[arg(long)]
        deadline: u64,
    },
}

/// What a scanner waits for.
#[derive(Debug, ClapArgs)]
struct Archive {
    /// The image comes as an archive, which will be in this file
    #[arg(long = "archive", value_name = "FILE", requires = "within")]
    file: Option<PathBuf>,
    /// Seconds after which the archive is not waited for any more
    #[arg(long = "archive-within", id = "within", value_name = "SECONDS")]
    within: Option<u64>,
}

impl Archive {
    fn awaited(self) -> Option<Awaited> {
        Some(Awaited { file: self.file?, within: Duration::from_secs(self.within?) })
    }
}

/// How a scanner reaches the API server.
#[derive(Debug, ClapArgs)]
struct Api {
    /// An address of the API server
    #[arg(long, requires_all = ["identity", "kubeconfig", "namespace"])]
    api_server: Vec<SocketAddr>,
    /// The folder with token and CA
    #[arg(long)]
    identity: Option<PathBuf>,
    /// Where the kubeconfig is written
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// The namespace of its context
    #[arg(long)]
    namespace: Option<String>,
}

impl Api {
    fn server(self) -> Option<ApiServer> {
        let Self { api_server, identity, kubeconfig, namespace } = self;
        Some(ApiServer { servers: api_server, identity: identity?, kubeconfig: kubeconfig?, namespace: namespace? })
    }
}

/// Where a result is sent to.
#[derive(Debug, ClapArgs)]
struct Upload {
    /// The runner's address, where it takes results
    #[arg(long = "upload", value_name = "ADDRESS:PORT", requires_all = ["slot", "pin", "token"])]
    address: Option<SocketAddr>,
    /// The scan's slot there
    #[arg(long)]
    slot: Option<String>,
    /// The digest of the runner's certificate
    #[arg(long)]
    pin: Option<Digest>,
    /// The file with the scan's token
    #[arg(long)]
    token: Option<PathBuf>,
}

impl Upload {
    fn destination(self) -> Option<Destination> {
        Some(Destination { address: self.address?, id: self.slot?, pin: self.pin?, token: self.token? })
    }
}

/// Where a scanner's output is.
#[derive(Debug, ClapArgs)]
struct Kept {
    /// The scanner's result file, or `stdout`
    #[arg(long)]
    result: PathBuf,
    /// The folder for what is kept
    #[arg(long)]
    spool: PathBuf,
    /// Bytes of the result, at most
    #[arg(long)]
    limit: u64,
}

impl Kept {
    fn result(&self) -> ResultAt {
        if self.result.as_os_str() == "stdout" { ResultAt::Stdout } else { ResultAt::File(self.result.clone()) }
    }
}

impl Args {
    /// Does it.
    pub(crate) async fn run(self) -> Outcome {
        match self.command {
            Command::Install { to } => install::install(&to)?,
            Command::Run {
                kept,
                target_mount,
                api,
                upload,
                shared_network,
                word: _,
                beside,
                archive,
                deadline,
                hold,
                version_word,
                leaves_out,
                command,
            } => {
                let request = RunRequest {
                    result: kept.result(),
                    spool: kept.spool,
                    beside,
                    archive: archive.awaited(),
                    target_mount,
                    leaves_out,
                    api: api.server(),
                    upload: upload.destination(),
                    network: if shared_network { Network::Shared } else { Network::Own },
                    deadline: Duration::from_secs(deadline),
                    hold: Duration::from_secs(hold),
                    limit: kept.limit,
                    command,
                    version: version_word,
                };
                run::run(&request).await?;
            }
            Command::InTarget {
                api,
                pod,
                uid,
                container,
                word,
                result,
                limit,
                deadline,
                delivers,
                variable,
                command,
            } => {
                let Some(server) = api.server() else {
                    return Err(Failure::usage("run a program in the target: the API server is not named"));
                };
                let request = GuestRequest {
                    servers: server.servers,
                    identity: server.identity,
                    namespace: server.namespace,
                    pod,
                    uid,
                    container,
                    word,
                    result,
                    limit,
                    deadline: Duration::from_secs(deadline),
                    delivers,
                    variables: variable,
                    command,
                };
                let code = in_target::run(&request).await;
                // It ends as the program did, which no class of gapscan's own can say.
                std::process::exit(i32::from(code));
            }
            Command::Receive { into, limit, silence } => {
                let place = archive::Place { into, limit, silence: Duration::from_secs(silence) };
                // A runner that went away can be told nothing.
                archive::tell(&archive::receive(std::io::stdin(), &place), &mut std::io::stdout().lock())?;
            }
            Command::Collect { kept, release, tell } => {
                if let [file, id] = &tell[..] {
                    collect::tell(Path::new(file), id)?;
                }
                let mut out = std::io::BufWriter::with_capacity(256 * 1024, std::io::stdout().lock());
                collect::collect(&kept.spool, &kept.result(), kept.limit, &mut out)?;
                // Nothing can be told to a runner that went away.
                let _ = out.flush();
                if let Some(word) = release {
                    hold::release(&word);
                }
            }
            Command::Locate { word, release } => {
                for pid in hold::holders(&word) {
                    // Nothing can be told to a runner that went away.
                    let _ = writeln!(std::io::stdout().lock(), "{pid}");
                }
                if release {
                    hold::release(&word);
                }
            }
            Command::Hold { deadline, word: _ } => hold::hold(Duration::from_secs(deadline)).await?,
            Command::Facts { root, release } => {
                let watch = release.as_ref().map(|_| OwnWatch::begin());
                let mut facts = facts::host::collect(&root, &Limits::default());
                // Beside a target its processes are seen, and among them who looks: they are none of the target's.
                if let Some(word) = &release {
                    let mut own = hold::holders(word);
                    own.push(std::process::id());
                    facts.leave_out_processes(&own);
                }
                let bytes =
                    serde_json::to_vec(&facts).expect("facts are strings, numbers, lists and maps with text keys");
                let out = &mut std::io::stdout().lock();
                // Nothing can be told to a runner that went away.
                let _ = match watch.map(OwnWatch::end) {
                    Some(seen) => {
                        let seen = serde_json::to_vec(&seen).expect("it is numbers and text");
                        parcel::send_with(&bytes, OWN_SOCKETS, &seen, out)
                    }
                    None => parcel::send(&bytes, out),
                };
                if let Some(word) = release {
                    hold::release(&word);
                }
            }
            Command::StandBy { container: _, deadline } => {
                beside::stand_by(deadline.map(Duration::from_secs)).await?;
            }
            Command::Beside { container_id, results, word, settle } => {
                let kept = KeptParcel::new(&results, &word)?;
                let parcel = match kept.read() {
                    Some(parcel) => parcel,
                    None => {
                        let parcel = look(&container_id, settle)?;
                        kept.write(&parcel)?;
                        parcel
                    }
                };
                // Nothing can be told to a runner that went away.
                let _ = std::io::stdout().lock().write_all(&parcel);
            }
            Command::Listen { port, deadline } => listen::listen(&port, Duration::from_secs(deadline)).await?,
            Command::Probe { open, blocked, deadline } => {
                let wanted: Vec<(SocketAddr, Expected)> = open
                    .into_iter()
                    .map(|address| (address, Expected::Open))
                    .chain(blocked.into_iter().map(|address| (address, Expected::Blocked)))
                    .collect();
                let seen = probe::probe(&wanted, Duration::from_secs(deadline)).await;
                let text = serde_json::to_string(&seen).expect("a report is numbers, words and addresses");
                // Nothing can be told to a runner that went away.
                let _ = writeln!(std::io::stdout(), "{text}");
            }
        }
        Ok(ExitClass::Success)
    }
}

/// Facts about the container with this id, as a parcel.
fn look(id: &str, settle: bool) -> Result<Vec<u8>, AgentError> {
    let container = Neighbour::find(Path::new(beside::PROC), id)?;
    if settle && container.settle()? == Settled::No {
        eprintln!("its processes and sockets still change");
    }
    let mut facts = facts::host::collect(&container.root(), &Limits::default());
    // What is seen in one process namespace is of all containers of the pod.
    let own = container.processes();
    let seen = facts.processes.iter().flatten().map(|process| process.pid);
    let others: Vec<u32> = seen.filter(|pid| !own.contains(pid)).collect();
    facts.leave_out_processes(&others);
    container.still_runs()?;
    let bytes = serde_json::to_vec(&facts).expect("facts are strings, numbers, lists and maps with text keys");
    let mut sent = Vec::new();
    parcel::send(&bytes, &mut sent).map_err(AgentError::Send)?;
    Ok(sent)
}
