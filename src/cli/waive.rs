//! `gapscan waive`: failures that people accept until a date.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use jiff::Timestamp;

use super::access::DEFAULT_LEDGER;
use super::table::{self, Format, Table, count, when};
use crate::base::digest::Digest;
use crate::base::document::{self, DocumentError};
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::file;
use crate::base::limits::Limits;
use crate::base::text::{brief, printable};
use crate::ledger::LedgerReader;
use crate::model::waiver::{self, Standing};
use crate::stage::plan::{Plan, WaiverPolicy};
use crate::stage::waivers::check::{CheckedFile, CheckedWaiver, check};
use crate::stage::waivers::import::{Imported, Rest, import};
use crate::trust::approval;
use crate::trust::key::RoleKey;
use crate::trust::passphrase::{PassphraseSource, Purpose};

/// How many results a table shows with one waiver.
const SHOWN: usize = 5;
/// A document is no secret, and neither is a signature.
const FILE_MODE: u32 = 0o644;

/// Accept failures until a date: sign waivers, check them, bring InSpec's
///
/// Waivers are documents of the kind Waivers (docs/waivers.md). The policy of a plan says which count, and who has to sign them.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Sign(Sign),
    Check(Check),
    Import(Import),
}

/// Approve a document of waivers by a signature over its exact bytes
///
/// The signature is written beside it, as FILE.0123abcd.sig by a key whose id begins so; openssl verifies it, too. A document
/// that has problems is not signed. Whoever changes a byte of it afterwards has it signed anew.
#[derive(Debug, ClapArgs)]
struct Sign {
    /// The document
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Your private key: ECDSA P-256 in PKCS#8 PEM, mode 0600
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The file whose first line is the passphrase of the key [default: $GAPSCAN_PASSPHRASE, then the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Say what waivers are worth: problems, signatures, ends, and which of the latest results each fits
///
/// Exits with 4 if a file would not count, and with 0 else.
#[derive(Debug, ClapArgs)]
struct Check {
    /// The documents [default: those of the plan]
    #[arg(value_name = "FILE", required_unless_present = "plan")]
    files: Vec<PathBuf>,
    /// The plan whose policy counts
    #[arg(short = 'f', long = "plan", value_name = "FILE")]
    plan: Option<PathBuf>,
    /// The public key (PEM) of somebody who may approve, in the place of those of a plan; can be given several times
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    approver: Vec<PathBuf>,
    /// How many of them have to
    #[arg(long, value_name = "N", requires = "approver")]
    threshold: Option<std::num::NonZeroUsize>,
    /// The ledger whose latest results are looked at [default: that of the plan, or gapscan-ledger.sqlite, where it is there]
    #[arg(short = 'L', long = "ledger", env = "GAPSCAN_LEDGER", hide_env = true, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Make a document of waivers from InSpec's own waiver file
///
/// What that can't say is said here, for all of them. What can't be carried is told, and left out: then the exit code is 2.
#[derive(Debug, ClapArgs)]
struct Import {
    /// InSpec's file: control ids with justification, expiration_date, run
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The profile that the controls are of
    #[arg(long, value_name = "NAME")]
    profile: String,
    /// A target as in a plan, with * for any characters of a name; can be given several times
    #[arg(long, value_name = "TARGET", required_unless_present = "all_targets")]
    target: Vec<String>,
    /// They are for all targets
    #[arg(long, conflicts_with = "target")]
    all_targets: bool,
    /// Who asks for them
    #[arg(long, value_name = "NAME")]
    requested_by: String,
    /// When those end that have no date of their own, as 2027-01-31
    #[arg(long, value_name = "DATE")]
    expires: Option<String>,
    /// Where the document is written [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self, now: Timestamp) -> Outcome {
        match self.command {
            Command::Sign(args) => args.run(now),
            Command::Check(args) => args.run(now),
            Command::Import(args) => args.run(now),
        }
    }
}

impl Sign {
    fn run(self, now: Timestamp) -> Outcome {
        let limits = Limits::default();
        let bytes = file::read_capped(&self.file, limits.document_bytes)?;
        let text = document::decoded(&self.file, &bytes)?;
        let waivers = waiver::read(&self.file, text)?;
        let passphrase = PassphraseSource { file: self.passphrase_file };
        let key = RoleKey::read(&self.key, &mut || passphrase.get(Purpose::Open))?;
        let path = approval::signature_path(&self.file, &key);
        file::write_atomic(&path, &key.sign(&bytes), FILE_MODE)?;
        println!("document   {}", printable(&self.file.display().to_string()));
        println!("digest     {}", Digest::of(&bytes));
        println!("waivers    {}", waivers.len());
        println!("signed by  {}", key.id_hex());
        println!("signature  {}", printable(&path.display().to_string()));
        for waiver in waivers.iter().filter(|waiver| waiver.standing(None, now) == Standing::Expired) {
            eprintln!("waiver `{}` expired at {} already", brief(&waiver.id), waiver.expires);
        }
        Ok(ExitClass::Success)
    }
}

impl Check {
    fn run(self, now: Timestamp) -> Outcome {
        let limits = Limits::default();
        let plan = self.plan.as_deref().map(|path| Plan::load(path, &limits)).transpose()?;
        let of_plan = plan.as_ref().and_then(|plan| plan.ledger.clone());
        let mut policy = match plan {
            Some(plan) => plan.policy.waivers,
            None => WaiverPolicy { approvers: self.approver, threshold: self.threshold, ..WaiverPolicy::default() },
        };
        if !self.files.is_empty() {
            policy.files = self.files;
        }
        if policy.files.is_empty() {
            return Err(Failure::usage("check waivers: the plan names none").with_remedy("name the files"));
        }
        let wanted = self.ledger.is_some();
        let path = self.ledger.or(of_plan).unwrap_or_else(|| PathBuf::from(DEFAULT_LEDGER));
        let ledger = if wanted || path.exists() { Some(LedgerReader::open(&path)?) } else { None };
        let files = check(&policy, ledger.as_ref(), &limits, now)?;
        match self.output {
            Format::Json => table::emit_json(&files)?,
            Format::Table => table::emit(&files.iter().map(render).collect::<Vec<_>>().join("\n"))?,
        }
        if ledger.is_none() {
            eprintln!("no ledger: what the waivers fit is not known");
        }
        let counts = files.iter().all(|file| file.counts);
        Ok(if counts { ExitClass::Success } else { ExitClass::Refused })
    }
}

fn render(file: &CheckedFile) -> String {
    let mut text = format!("{}\n", printable(&file.file.display().to_string()));
    if let Some(digest) = file.digest {
        text += &format!("  digest    {digest}\n");
    }
    text += &format!("  approved  by {} of {} that have to\n", file.approved_by.len(), file.threshold);
    for (what, keys) in [
        ("signed by", &file.approved_by),
        ("does not fit, by", &file.signatures_that_do_not_fit),
        ("not named, by", &file.signatures_by_others),
    ] {
        for key in keys {
            text += &table::paragraph(4, &format!("{what} {key}"));
        }
    }
    text += if file.counts { "  it counts\n" } else { "  IT DOES NOT COUNT\n" };
    for problem in &file.problems {
        text += &table::paragraph(4, problem);
    }
    if !file.waivers.is_empty() {
        let mut table = Table::new(&["STATE", "UNTIL", "WAIVER"]);
        for waiver in &file.waivers {
            table.row([state(waiver).to_owned(), when(waiver.waiver.expires), lines(waiver)]);
        }
        text += &table.render(2);
    }
    text
}

fn state(waiver: &CheckedWaiver) -> &'static str {
    match waiver.standing {
        Standing::Expired => "expired",
        Standing::TooFar => "too far",
        Standing::Counts if waiver.fits.as_ref().is_some_and(Vec::is_empty) => "unmatched",
        Standing::Counts if waiver.expires_soon => "ends soon",
        Standing::Counts => "counts",
    }
}

fn lines(checked: &CheckedWaiver) -> String {
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let waiver = &checked.waiver;
    let mut lines = vec![
        waiver.id.clone(),
        format!("{}: {}", line(&waiver.profile.name), waiver.controls.join(", ")),
        format!("for {}: {}", line(&waiver.requested_by), line(&waiver.reason)),
    ];
    let fits = checked.fits.as_deref().unwrap_or_default();
    lines.extend(fits.iter().take(SHOWN).map(|fit| format!("- {} {} {}", fit.target, fit.control, fit.outcome)));
    let more = fits.len().saturating_sub(SHOWN) + checked.more;
    if more > 0 {
        lines.push(format!("- and {more} more"));
    }
    if checked.unchanged > 0 {
        let named = count(checked.unchanged, "control");
        lines.push(format!(
            "- not for {named} of results that were imported or came as alerts, which no waiver changes"
        ));
    }
    lines.join("\n")
}

impl Import {
    fn run(self, now: Timestamp) -> Outcome {
        let text = document::text(&self.file, &Limits::default())?;
        let rest = Rest {
            profile: self.profile,
            targets: self.target,
            requested_by: self.requested_by,
            expires: self.expires,
        };
        let Imported { document, waivers, left_out, notes } = import(&self.file, &text, &rest, now)?;
        // What is wrong with the options, or with an id, is told before anything is written.
        let place = self.output.clone().unwrap_or_else(|| PathBuf::from("the document"));
        waiver::read(&place, &document)
            .map_err(|error: DocumentError| Failure::from(error).during("make a document"))?;
        match &self.output {
            Some(path) => {
                file::write_new(path, document.as_bytes(), FILE_MODE)?;
                eprintln!("{} in {}", count(waivers, "waiver"), printable(&path.display().to_string()));
            }
            None => table::emit(&document)?,
        }
        for note in &notes {
            eprintln!("note: {}", printable(note));
        }
        for left in &left_out {
            eprintln!("left out: {}", printable(left));
        }
        Ok(if left_out.is_empty() { ExitClass::Success } else { ExitClass::Usage })
    }
}
