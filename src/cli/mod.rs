//! The command line: one file a command, each an `Args` with a `run`.

mod access;
mod agent;
mod agreement;
mod bundle;
mod doctor;
mod egress;
mod explanation;
mod export;
mod history;
mod import;
mod inject;
mod install;
mod ledger;
mod load;
mod read;
mod registry;
mod results;
mod scan;
mod scanner;
mod schema;
mod serve;
mod signal;
mod source;
mod summary;
mod table;
mod trust;
mod uninstall;
mod waive;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::base::exit::{ExitClass, Outcome};

/// Carry security scanning across an air gap: signed bundles in, honest compliance evidence out
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 110, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What the process may end as; the same is in the README.
const EXIT_CODES: &str = "\
Exit codes:
   0  everything expected was evaluated and the threshold is met
   1  evaluated, threshold not met
   2  usage or configuration
   3  not everything expected was evaluated
   4  refused: signature, digest, rollback, expiry, malformed archive
   5  a registry, cluster or file can't be reached
   6  the ledger can't be written or is not intact
  70  a bug";

#[derive(Debug, Subcommand)]
enum Command {
    Trust(trust::Args),
    Bundle(bundle::Args),
    Load(load::Args),
    Registry(registry::Args),
    Doctor(Box<doctor::Args>),
    Scan(Box<scan::Args>),
    Serve(serve::Args),
    Results(results::Args),
    History(history::Args),
    Waive(waive::Args),
    Read(read::Args),
    Import(import::Args),
    Scanner(scanner::Args),
    Schema(schema::Args),
    Export(export::Export),
    Ledger(ledger::Args),
    Inject(inject::Args),
    Install(install::Args),
    Uninstall(uninstall::Args),
    #[command(hide = true)]
    Agent(agent::Args),
}

/// The environment variable that says what is logged.
const LOG_VARIABLE: &str = "GAPSCAN_LOG";
/// What is logged when nothing is asked for: what this program itself warns of.
const LOG_DEFAULT: &str = "gapscan=warn";

/// How long work that nobody waits for any more may go on when the command is over.
const LAST_WAIT: std::time::Duration = std::time::Duration::from_secs(2);

/// Parses the arguments, runs the command and gives the exit code. Messages go to stderr.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for and go to stdout; anything else is wrong usage.
            let class = if error.use_stderr() { ExitClass::Usage } else { ExitClass::Success };
            // Nothing is left to tell a reader who closed the pipe.
            let _ = error.print();
            return ExitCode::from(class.code());
        }
    };
    start_log();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("gapscan: failed to start the runtime: {error}");
            return ExitCode::from(ExitClass::Bug.code());
        }
    };
    let outcome = runtime.block_on(run(cli.command));
    // A thread that waits for a file system which does not answer must not keep the process: what counts was recorded.
    runtime.shutdown_timeout(LAST_WAIT);
    match outcome {
        Ok(class) => ExitCode::from(class.code()),
        Err(failure) => {
            eprintln!("gapscan: failed to {failure}");
            ExitCode::from(failure.class().code())
        }
    }
}

/// Writes what happens to stderr, as far as `GAPSCAN_LOG` asks for it (as `gapscan=debug`); without it, warnings.
fn start_log() {
    let asked = std::env::var(LOG_VARIABLE).unwrap_or_default();
    let asked = if asked.trim().is_empty() { LOG_DEFAULT } else { &asked };
    let filter = match EnvFilter::try_new(asked) {
        Ok(filter) => filter,
        Err(error) => {
            eprintln!("gapscan: {LOG_VARIABLE} is not used: {error}");
            EnvFilter::new(LOG_DEFAULT)
        }
    };
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Somebody who calls this from their own program may have a log already.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours).try_init();
}

async fn run(command: Command) -> Outcome {
    match command {
        Command::Load(args) => args.run().await,
        Command::Trust(args) => args.run(jiff::Timestamp::now()),
        Command::Bundle(args) => args.run(jiff::Timestamp::now()).await,
        Command::Registry(args) => args.run().await,
        Command::Doctor(args) => args.run().await,
        Command::Scan(args) => args.run().await,
        Command::Serve(args) => args.run().await,
        Command::Export(export) => export.run(jiff::Timestamp::now()),
        Command::Agent(args) => args.run().await,
        Command::Results(args) => args.run(),
        Command::History(args) => args.run(),
        Command::Waive(args) => args.run(jiff::Timestamp::now()),
        Command::Read(args) => args.run(),
        Command::Import(args) => args.run(jiff::Timestamp::now()),
        Command::Scanner(args) => args.run().await,
        Command::Schema(args) => args.run(),
        Command::Ledger(args) => args.run(),
        Command::Inject(args) => args.run().await,
        Command::Install(args) => args.run().await,
        Command::Uninstall(args) => args.run().await,
    }
}
