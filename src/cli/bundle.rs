//! `gapscan bundle`: define, lock, build, verify and look at bundles.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::json;
use tokio::io::AsyncRead;

use super::table::{self, Format};
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::file::{self, FileError};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::bytes_for_people;
use crate::base::text::printable;
use crate::bundle::definition::TEMPLATE;
use crate::bundle::reader::{BundleReader, VerifiedBundle};
use crate::bundle::{BundleError, catalog};
use crate::stage::build::{BuildRequest, LockRequest, build, lock};
use crate::trust::passphrase::PassphraseSource;
use crate::trust::remembered::Remembered;
use crate::trust::root::TrustRoot;

/// What is read from a bundle's file at once.
const READ_BYTES: usize = 1 << 20;

/// Define, lock, build, verify and look at bundles
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    New(NewArgs),
    Lock(LockArgs),
    Build(BuildArgs),
    Verify(VerifyArgs),
    Inspect(InspectArgs),
}

/// Write a commented bundle.yaml to start from
#[derive(Debug, clap::Args)]
struct NewArgs {
    /// The folder; made if need be
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

#[derive(Debug, clap::Args)]
struct SourceArgs {
    /// The definition; its lock is bundle.lock beside it
    #[arg(short = 'f', long = "file", value_name = "FILE", default_value = "bundle.yaml")]
    definition: PathBuf,
    /// The static binary of gapscan that becomes its image [default: this program]
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Show no progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

/// Pin every reference to a digest and write bundle.lock
#[derive(Debug, clap::Args)]
struct LockArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The time that the bundle counts as created [default: $SOURCE_DATE_EPOCH, then now]
    #[arg(long, value_name = "TIME")]
    created: Option<Timestamp>,
}

/// Collect, sign and write what bundle.lock pins
#[derive(Debug, clap::Args)]
struct BuildArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The bundle to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The folder that `gapscan trust init` made, or its folder of keys
    #[arg(long, value_name = "DIR")]
    keys: PathBuf,
    /// The root, with its chain beside it [default: root.json in the folder of --keys]
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// The file whose first line is the passphrase of the keys [default: $GAPSCAN_PASSPHRASE, then the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ReadArgs {
    /// The bundle; `-` for standard input
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// The pinned root that vouches for the bundle; never taken from the bundle
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
}

/// Verify a bundle to its last byte
#[derive(Debug, clap::Args)]
struct VerifyArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// The folder that remembers which versions were seen: refuse what is older, and remember this one
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Show no progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

/// Verify a bundle and list what is in it
#[derive(Debug, clap::Args)]
struct InspectArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl Args {
    pub(super) async fn run(self, now: Timestamp) -> Outcome {
        match self.command {
            Command::New(args) => args.run(),
            Command::Lock(args) => args.run(now).await,
            Command::Build(args) => args.run().await,
            Command::Verify(args) => args.run(now).await,
            Command::Inspect(args) => args.run(now).await,
        }
    }
}

impl NewArgs {
    fn run(self) -> Outcome {
        let path = self.folder.join("bundle.yaml");
        std::fs::create_dir_all(&self.folder)
            .map_err(|source| FileError::Write { path: self.folder.clone(), source })?;
        file::write_new(&path, TEMPLATE.as_bytes(), 0o644)?;
        println!("{}", path.display());
        Ok(ExitClass::Success)
    }
}

impl SourceArgs {
    fn agent(&self) -> Result<PathBuf, Failure> {
        match &self.agent {
            Some(path) => Ok(path.clone()),
            None => std::env::current_exe()
                .map_err(|e| Failure::new(ExitClass::Unreachable, format!("find this program's own file: {e}"))),
        }
    }

    fn progress(&self) -> Progress {
        if self.quiet { Progress::quiet() } else { Progress::stderr() }
    }
}

impl LockArgs {
    async fn run(self, now: Timestamp) -> Outcome {
        let created = match self.created {
            Some(created) => created,
            None => source_date_epoch()?.unwrap_or(now),
        };
        let request = LockRequest {
            definition: self.source.definition.clone(),
            created,
            agent: self.source.agent()?,
            limits: Limits::default(),
        };
        let (path, lock) = lock(&request, &self.source.progress()).await?;
        let items = table::count(lock.items.len(), "item");
        println!("{}: {} version {}, {items}", path.display(), lock.name, lock.version);
        Ok(ExitClass::Success)
    }
}

/// The time of reproducible builds (reproducible-builds.org, "SOURCE_DATE_EPOCH"): seconds since 1970.
fn source_date_epoch() -> Result<Option<Timestamp>, Failure> {
    let Ok(text) = std::env::var("SOURCE_DATE_EPOCH") else { return Ok(None) };
    text.parse()
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map(Some)
        .ok_or_else(|| Failure::usage("use SOURCE_DATE_EPOCH: it is no number of seconds"))
}

impl BuildArgs {
    async fn run(self) -> Outcome {
        let request = BuildRequest {
            definition: self.source.definition.clone(),
            output: self.output.clone(),
            keys: self.keys,
            root: self.root,
            passphrase: PassphraseSource { file: self.passphrase_file },
            agent: self.source.agent()?,
            limits: Limits::default(),
        };
        let built = build(&request, &self.source.progress()).await?;
        println!("bundle   {} version {} with {}", built.name, built.version, table::count(built.items, "item"));
        println!("file     {} ({})", self.output.display(), bytes_for_people(built.written.bytes));
        println!("digest   {}", built.written.digest);
        println!("root     {}", built.root);
        println!("expires  {}", built.written.expires);
        Ok(ExitClass::Success)
    }
}

impl ReadArgs {
    /// Verifies the whole bundle.
    async fn verify(
        &self,
        remembered: &Remembered,
        progress: &Progress,
        now: Timestamp,
    ) -> Result<VerifiedBundle, Failure> {
        let root = TrustRoot::read(&self.root)?;
        let input = open(&self.file).await?;
        let verified = self.verify_by(&root, input, remembered, progress, now).await;
        verified.map_err(|error| Failure::from(error).during(format!("verify {}", shown(&self.file))))
    }

    async fn verify_by(
        &self,
        root: &TrustRoot,
        input: Box<dyn AsyncRead + Send + Unpin>,
        remembered: &Remembered,
        progress: &Progress,
        now: Timestamp,
    ) -> Result<VerifiedBundle, BundleError> {
        let mut reader = BundleReader::open(input, root, remembered, &Limits::default(), now).await?;
        let (_, total) = reader.blob_totals();
        let step = progress.bytes(format!("verify {}", self.file.display()), total);
        while let Some(blob) = reader.next_blob().await? {
            let size = blob.descriptor().size;
            blob.skip().await?;
            step.advance(size);
        }
        let verified = reader.finish().await?;
        step.done(bytes_for_people(verified.bytes()));
        Ok(verified)
    }
}

/// A bundle in messages.
pub(super) fn shown(path: &Path) -> String {
    if path == Path::new("-") { "the bundle on standard input".to_owned() } else { format!("`{}`", path.display()) }
}

/// A bundle's bytes, from a file or standard input.
async fn open(path: &Path) -> Result<Box<dyn AsyncRead + Send + Unpin>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(tokio::io::stdin()));
    }
    let failed = |source| FileError::Read { path: path.to_owned(), source };
    let mut file = open_file(path).await.map_err(failed)?;
    file.set_max_buf_size(READ_BYTES);
    Ok(Box::new(file))
}

/// Opens what may be a bundle. A folder can be opened too, and only reading it would fail.
pub(super) async fn open_file(path: &Path) -> std::io::Result<tokio::fs::File> {
    let file = tokio::fs::File::open(path).await?;
    match file.metadata().await?.is_dir() {
        true => Err(std::io::Error::new(std::io::ErrorKind::IsADirectory, "it is a folder, and a bundle is one file")),
        false => Ok(file),
    }
}

impl VerifyArgs {
    async fn run(self, now: Timestamp) -> Outcome {
        let remembered = match &self.state {
            Some(folder) => Remembered::in_folder(folder),
            None => Remembered::nothing(),
        };
        let progress = if self.quiet { Progress::quiet() } else { Progress::stderr() };
        let verified = self.read.verify(&remembered, &progress, now).await?;
        if self.state.is_some() {
            verified.remember()?;
        }
        let bundle = verified.bundle();
        println!("verified {} version {} ({})", bundle.name, bundle.version, bytes_for_people(verified.bytes()));
        println!("content  {}", bundle.digest);
        println!("root     {}", bundle.root);
        println!("created  {}", verified.created());
        println!("expires  {}", verified.expires());
        Ok(ExitClass::Success)
    }
}

impl InspectArgs {
    async fn run(self, now: Timestamp) -> Outcome {
        // Nothing is printed before the last byte was verified: what is listed is what is in it.
        let verified = self.read.verify(&Remembered::nothing(), &Progress::quiet(), now).await?;
        let (bundle, found) = (verified.bundle(), verified.catalog());
        match self.output {
            Format::Json => {
                let value = json!({
                    "verified": true,
                    "bundle": bundle,
                    "created": verified.created(),
                    "expires": verified.expires(),
                    "bytes": verified.bytes(),
                    "catalog": found,
                });
                table::emit_json(&value)?;
            }
            Format::Table => {
                println!("verified {} version {}, expires {}", bundle.name, bundle.version, verified.expires());
                if let Some(classification) = &found.classification {
                    println!("marked   {}", printable(classification));
                }
                let rows: Vec<[String; 3]> = catalog::items(found)
                    .map(|item| [item.repository.clone(), item.digest.short(), printable(&item.source).into_owned()])
                    .collect();
                let width = rows.iter().map(|row| row[0].len()).max().unwrap_or(0);
                for [repository, digest, source] in rows {
                    println!("{repository:<width$}  {digest}  {source}");
                }
                for scanner in &found.scanners {
                    println!("scanner  {}: {}", printable(&scanner.name), printable(&scanner.title));
                }
                for profile in &found.profiles {
                    let targets: Vec<&str> = profile.targets.iter().map(|t| t.word()).collect();
                    println!(
                        "profile  {} {}: {} controls, by {}, for {}",
                        printable(&profile.item.name),
                        printable(&profile.version),
                        profile.controls,
                        printable(&profile.engine),
                        targets.join(", ")
                    );
                }
                for dependency in &found.dependencies {
                    let built = dependency.built.map_or("at an unknown time".to_owned(), |t| t.to_string());
                    let age = dependency.max_age.map_or(String::new(), |span| format!(", to be used for {span}"));
                    println!("content  {}: built {built}{age}", printable(&dependency.item.name));
                }
            }
        }
        Ok(ExitClass::Success)
    }
}
