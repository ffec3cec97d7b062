//! `gapscan load`: a bundle into a registry.

use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use jiff::Timestamp;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use super::access::{ConnectArgs, REGISTRY};
use super::bundle;
use super::table::count;
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::file::FileError;
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::bytes_for_people;
use crate::bundle::read_at::OneFile;
use crate::model::receipt::ReadBack;
use crate::registry::{Prefix, Sessions};
use crate::stage::load::{Load, LoadedBundle};
use crate::stage::plan::RegistryAccess;
use crate::stage::registries;
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

/// Bytes read from standard input at a time.
const STDIN_PIECE: usize = 256 << 10;

/// Verify bundles and load them into a registry, in one pass
///
/// Nothing is sent before the signed metadata verified, and no tag moves before everything did. A load that was
/// interrupted is repeated: what is there already is skipped.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bundles, in this order; `-` for standard input
    #[arg(value_name = "FILE|-", required = true)]
    files: Vec<PathBuf>,
    /// The pinned root that vouches for the bundles; never taken from the bundle
    #[arg(long, value_name = "FILE", help_heading = REGISTRY)]
    root: PathBuf,
    /// The registry to load into
    #[arg(long, value_name = "HOST[:PORT][/PREFIX]", help_heading = REGISTRY)]
    registry: Prefix,
    #[command(flatten)]
    connect: ConnectArgs,
    /// Push blobs in chunks of this many bytes, for a proxy that limits the size of a request
    #[arg(long, value_name = "BYTES", help_heading = REGISTRY)]
    chunk_size: Option<NonZeroUsize>,
    /// The folder that remembers which versions were seen, so that no older one is accepted
    #[arg(long, value_name = "DIR", default_value = "gapscan-state", help_heading = REGISTRY)]
    state: PathBuf,
    /// Requests to the registry that may run at the same time beside the stream of blobs
    #[arg(long, value_name = "N", default_value = "4")]
    jobs: NonZeroUsize,
    /// Show no progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

impl Args {
    pub(super) async fn run(self) -> Outcome {
        if self.files.iter().filter(|file| is_stdin(file)).count() > 1 {
            return Err(Failure::usage("read two bundles from standard input: it has only one"));
        }
        let limits = Limits::default();
        let root = TrustRoot::read(&self.root)?;
        let access = RegistryAccess { chunk_bytes: self.chunk_size, ..self.connect.access() };
        let client = registries::client(&self.registry.registry, &access, &limits)?;
        let remembered = Remembered::in_folder(&self.state);
        let sessions = Sessions::in_folder(self.state.join("uploads"));
        let progress = if self.quiet { Progress::quiet() } else { Progress::stderr() };
        // Before a long stream begins, whether there is anybody to send it to.
        client.ping().await?;
        for file in &self.files {
            let load = Load {
                client: &client,
                prefix: &self.registry,
                root: &root,
                remembered: &remembered,
                limits: &limits,
                now: Timestamp::now(),
                jobs: self.jobs,
                progress: &progress,
                sessions: Some(&sessions),
                read_back: ReadBack::Sample,
            };
            let loaded = if is_stdin(file) {
                load.run_stream(standard_input()).await
            } else {
                let failed = |source| FileError::Read { path: file.clone(), source };
                let opened = bundle::open_file(file).await.map_err(failed)?.into_std().await;
                match opened.metadata().map_err(failed)?.is_file() {
                    true => load.run_file(Arc::new(OneFile::new(opened).map_err(failed)?)).await,
                    // A named pipe, or a device.
                    false => {
                        let opened = tokio::fs::File::from_std(opened);
                        load.run_stream(tokio::io::BufReader::with_capacity(1 << 20, opened)).await
                    }
                }
            };
            let loaded =
                loaded.map_err(|error| Failure::from(error).during(format!("load {}", bundle::shown(file))))?;
            progress.say(summary(&loaded, &self.registry));
        }
        Ok(ExitClass::Success)
    }
}

/// Standard input from a thread of its own. The runtime's would hold up the end of the process for as long as a writer
/// keeps the pipe open without writing, so this thread is not waited for: it ends with the process, and owns nothing else.
fn standard_input() -> impl AsyncRead + Unpin + Send {
    let (pieces, mut received) = mpsc::channel::<io::Result<Bytes>>(4);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut piece = vec![0; STDIN_PIECE];
            let piece = match input.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => {
                    piece.truncate(count);
                    Ok(Bytes::from(piece))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = piece.is_err();
            if pieces.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    });
    StreamReader::new(stream::poll_fn(move |cx| received.poll_recv(cx)))
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

fn summary(loaded: &LoadedBundle, prefix: &Prefix) -> String {
    let verified = loaded.bundle();
    let catalog = verified.catalog();
    let counts = loaded.counts();
    let items = catalog.images.len() + catalog.profiles.len() + catalog.dependencies.len();
    let items = count(items, "item");
    format!(
        "loaded {} {} into {prefix}: {items} in {:.1} s; pushed: {}; blobs there already: {}, mounted: {}, copied: {}; tags moved: {}",
        verified.bundle().name,
        verified.bundle().version,
        loaded.elapsed().as_secs_f64(),
        bytes_for_people(counts.pushed_bytes),
        counts.skipped,
        counts.mounted,
        counts.copied,
        counts.tags,
    )
}
