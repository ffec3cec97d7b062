//! `gapscan bundle build`

use std::num::NonZeroU64;
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};

use super::SourceArgs;
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::limits::Limits;
use crate::base::quantity::{ByteCount, bytes_for_people};
use crate::bundle::cache;
use crate::bundle::split::PartSize;
use crate::bundle::writer::{Compared, Cut};
use crate::cli::table;
use crate::stage::build::{BaseRequest, BuildRequest, Built, build};
use crate::trust::passphrase::PassphraseSource;
use crate::trust::signer::Wanted;

/// Collect, sign and write what bundle.lock pins
#[derive(Debug, clap::Args)]
pub(super) struct BuildArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The bundle to write; its sums and their signatures are written beside it
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The folder that `gapscan trust init` made, or its folder of keys
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// The root, with its chain beside it [default: root.json in the folder of --keys]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Build also where no key of targets is here: all signatures on targets come later, by `gapscan bundle sign`
    #[arg(long)]
    sign_later: bool,
    /// The file whose first line is the passphrase of the keys [default: $GAPSCAN_PASSPHRASE, then the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Write parts of at most this size, as FILE.001, FILE.002 and so on: 4.7GB, 650MiB
    #[arg(long, value_name = "SIZE")]
    split: Option<ByteCount>,
    /// Make only the part of this number again, with the same --split as before
    #[arg(long, value_name = "N", requires = "split")]
    part: Option<NonZeroU64>,
    /// Leave out what a registry has by this receipt of a load
    #[arg(long, value_name = "RECEIPT", requires = "base_key")]
    base: Option<PathBuf>,
    /// The public key (PEM) of the runner that signed the receipt
    #[arg(long, value_name = "FILE", requires = "base")]
    base_key: Option<PathBuf>,
    /// The folder that remembers where downloaded content lies [default: gapscan in $XDG_CACHE_HOME or ~/.cache]
    #[arg(long, value_name = "DIR", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,
    /// Download everything, also what lies in bundles that were built here before
    #[arg(long)]
    no_cache: bool,
}

impl BuildArgs {
    pub(super) async fn run(self) -> Outcome {
        let size = self.split.map(PartSize::at_most).transpose().map_err(|e| Failure::usage(e.to_string()))?;
        let cut = match (size, self.part) {
            (Some(size), Some(number)) => Cut::Part(size, number.get()),
            (Some(size), None) => Cut::Parts(size),
            (None, _) => Cut::Whole,
        };
        let base = self.base.zip(self.base_key).map(|(receipt, key)| BaseRequest { receipt, key });
        let request = BuildRequest {
            definition: self.source.definition.clone(),
            output: self.output,
            keys: self.keys,
            root: self.root,
            passphrase: PassphraseSource { file: self.passphrase_file },
            signatures: if self.sign_later { Wanted::BeginWithoutTargets } else { Wanted::Begin },
            agent: self.source.agent()?,
            cut,
            base,
            cache: if self.no_cache { None } else { self.cache.or_else(cache::default_folder) },
            limits: Limits::default(),
        };
        let progress = self.source.progress();
        let built = tokio::select! {
            built = build(&request, &progress) => built?,
            interrupted = interrupted() => {
                let signal = interrupted?;
                let message = format!("build `{}`: told to stop by {signal}; nothing is left of it", request.output.display());
                return Err(Failure::new(ExitClass::Unreachable, message));
            }
        };
        print(&request, &built);
        Ok(ExitClass::Success)
    }
}

fn print(request: &BuildRequest, built: &Built) {
    let written = &built.written;
    println!("bundle   {} version {} with {}", built.name, built.version, table::count(built.items, "item"));
    if let Some(left_out) = &built.left_out {
        let (base, blobs) = (&left_out.base, table::count(left_out.blobs, "blob"));
        println!("base     {} version {}, content {}", base.bundle, base.version, base.content);
        println!("left out {blobs} ({})", bytes_for_people(left_out.bytes));
    }
    match request.cut {
        Cut::Whole => println!("file     {} ({})", request.output.display(), bytes_for_people(written.bytes)),
        Cut::Parts(_) | Cut::Part(..) => {
            for file in &written.files {
                println!("part     {}", file.path.display());
            }
        }
    }
    match written.compared {
        None => {}
        Some(Compared::Same) => println!("same as  the sums say"),
        Some(Compared::Unknown) => {
            eprintln!(
                "no sums beside {} name this part: nothing says that it fits the others",
                request.output.display()
            );
        }
    }
    match written.digest {
        Some(digest) => println!("digest   {digest}"),
        None => written.files.iter().for_each(|file| println!("digest   {}", file.digest)),
    }
    if let Some(sums) = &written.sums {
        println!("sums     {}, signed by {}", sums.sums.display(), table::count(sums.signatures.len(), "key"));
    }
    if written.fetched_bytes + written.reused_bytes > 0 {
        let (fetched, reused) = (bytes_for_people(written.fetched_bytes), bytes_for_people(written.reused_bytes));
        println!("fetched  {fetched}, and {reused} from bundles that are here");
    }
    println!("content  {}", built.content);
    println!("root     {}", built.root);
    println!("spoken   {}", crate::trust::spoken(&built.root));
    println!("expires  {}", written.expires);
    if built.signed.found < built.signed.threshold {
        eprintln!("{}: enclaves refuse it until `gapscan bundle sign`", built.signed);
    }
}

/// Waits for SIGINT or SIGTERM and gives its name.
async fn interrupted() -> Result<&'static str, Failure> {
    let failed = |error| Failure::new(ExitClass::Bug, format!("listen for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    })
}
