//! `gapscan registry`: the embedded registry.

mod gc;
mod serve;
mod token;

use crate::base::exit::Outcome;

/// Run the embedded OCI registry
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Serve(serve::Args),
    Gc(gc::Args),
    Token(token::Args),
}

impl Args {
    pub(super) async fn run(self) -> Outcome {
        match self.command {
            Command::Serve(args) => args.run().await,
            Command::Gc(args) => args.run(),
            Command::Token(args) => args.run().await,
        }
    }
}
