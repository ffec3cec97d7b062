//! `gapscan trust`: role keys and the root.

mod init;
mod rotate;
mod show;

pub(super) use rotate::{key_file, print_payload};

use jiff::Timestamp;
use tough::schema::RoleType;

use crate::base::exit::Outcome;
use crate::base::quantity::Span;
use crate::trust::root::{ROLES, TrustRoot, role_name};

/// Make, show and rotate role keys and the root that enclaves pin
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Init(init::InitArgs),
    Rotate(rotate::RotateArgs),
    Show(show::ShowArgs),
}

impl Args {
    pub(super) fn run(self, now: Timestamp) -> Outcome {
        match self.command {
            Command::Init(args) => args.run(now),
            Command::Rotate(args) => args.run(now),
            Command::Show(args) => args.run(),
        }
    }
}

fn role(text: &str) -> Result<RoleType, String> {
    let found = ROLES.into_iter().find(|role| role_name(*role) == text);
    found.ok_or_else(|| "the roles are root, targets, snapshot and timestamp".to_owned())
}

fn role_of(text: &str) -> Result<(RoleType, &str), String> {
    let (name, value) = text.split_once('=').ok_or("write it as ROLE=VALUE")?;
    Ok((role(name)?, value))
}

fn role_number(text: &str) -> Result<(RoleType, u64), String> {
    let (role, value) = role_of(text)?;
    Ok((role, value.parse().map_err(|_| format!("`{value}` is no number"))?))
}

fn role_span(text: &str) -> Result<(RoleType, Span), String> {
    let (role, value) = role_of(text)?;
    Ok((role, value.parse::<Span>().map_err(|e| e.to_string())?))
}

/// What two people compare: the whole fingerprint, and the digits to read out.
fn print_fingerprint(root: &TrustRoot) {
    println!("fingerprint  {}", root.fingerprint());
    println!("spoken       {}", crate::trust::spoken(&root.fingerprint()));
}
