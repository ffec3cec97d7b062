//! `gapscan bundle build`

use std::path::PathBuf;

use super::SourceArgs;
use crate::base::exit::{ExitClass, Outcome};
use crate::base::limits::Limits;
use crate::base::quantity::bytes_for_people;
use crate::cli::table;
use crate::stage::build::{BuildRequest, build};
use crate::trust::passphrase::PassphraseSource;
use crate::trust::signer::Wanted;

/// Collect, sign and write what bundle.lock pins
#[derive(Debug, clap::Args)]
pub(super) struct BuildArgs {
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
    /// Build also where no key of targets is here: all signatures on targets come later, by `gapscan bundle sign`
    #[arg(long)]
    sign_later: bool,
    /// The file whose first line is the passphrase of the keys [default: $GAPSCAN_PASSPHRASE, then the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl BuildArgs {
    pub(super) async fn run(self) -> Outcome {
        let request = BuildRequest {
            definition: self.source.definition.clone(),
            output: self.output.clone(),
            keys: self.keys,
            root: self.root,
            passphrase: PassphraseSource { file: self.passphrase_file },
            signatures: if self.sign_later { Wanted::BeginWithoutTargets } else { Wanted::Begin },
            agent: self.source.agent()?,
            limits: Limits::default(),
        };
        let built = build(&request, &self.source.progress()).await?;
        println!("bundle   {} version {} with {}", built.name, built.version, table::count(built.items, "item"));
        println!("file     {} ({})", self.output.display(), bytes_for_people(built.written.bytes));
        println!("digest   {}", built.written.digest);
        println!("content  {}", built.content);
        println!("root     {}", built.root);
        println!("spoken   {}", crate::trust::spoken(&built.root));
        println!("expires  {}", built.written.expires);
        if built.signed.found < built.signed.threshold {
            eprintln!("{}: enclaves refuse it until `gapscan bundle sign`", built.signed);
        }
        Ok(ExitClass::Success)
    }
}
