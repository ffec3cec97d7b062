//! `gapscan bundle sign`

use std::path::PathBuf;

use jiff::Timestamp;
use tough::schema::RoleType;

use crate::base::digest::Digest;
use crate::base::exit::{ExitClass, Failure, Outcome};
use crate::base::limits::Limits;
use crate::base::progress::Progress;
use crate::base::quantity::bytes_for_people;
use crate::cli::source::{self, Source};
use crate::cli::table::count;
use crate::cli::trust::{key_file, print_payload};
use crate::stage::signing::{self, SignRequest, Unsigned};
use crate::trust::passphrase::PassphraseSource;
use crate::trust::root::role_name;

/// Verify a bundle and add signatures to it
///
/// The whole bundle is verified as an enclave does, but for signatures that are still missing. Build it from the same lock
/// on a second machine and give the content digest that came out there as --content: then it is signed only if it is the
/// same. The file's own digest changes with each signature: the sums beside it are written anew, signed by the keys that are
/// here. Where a key is elsewhere, as in an HSM, write what it signs with --payload, and bring the result with --signature.
#[derive(Debug, clap::Args)]
pub(super) struct SignArgs {
    /// The bundle. Of one in parts (NAME.001, NAME.002, ...), the parts in any order, or the folders that they are in
    #[arg(value_name = "FILE|FOLDER", required = true)]
    files: Vec<PathBuf>,
    /// Where it is written with the signatures, for parts OUT.001, OUT.002, ... [default: in place of FILE; parts are not
    /// replaced]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// The folder that `gapscan trust init` made, or its folder of keys; needs no root key
    #[arg(long, value_name = "DIR", required_unless_present_any = ["payload", "signature"])]
    keys: Option<PathBuf>,
    /// The root that the bundle must be under [default: root.json in the folder of --keys]
    #[arg(long, value_name = "FILE", required_unless_present = "keys")]
    root: Option<PathBuf>,
    /// The content digest that the bundle must have
    #[arg(long, value_name = "DIGEST")]
    content: Option<Digest>,
    /// Write the exact bytes that keys of this role sign to stdout: targets, snapshot or timestamp
    #[arg(long, value_name = "ROLE", value_parser = bundle_role, conflicts_with_all = ["output", "signature"])]
    payload: Option<RoleType>,
    /// Add a signature over the payload that was made elsewhere (ECDSA over SHA-256 in DER); KEY is at least eight digits of
    /// its id
    #[arg(long, value_name = "KEY=FILE", value_parser = key_file)]
    signature: Vec<(String, PathBuf)>,
    /// The file whose first line is the passphrase of the keys [default: $GAPSCAN_PASSPHRASE, then the terminal]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Show no progress on stderr
    #[arg(short, long)]
    quiet: bool,
}

fn bundle_role(text: &str) -> Result<RoleType, String> {
    let roles = crate::trust::cosign::BUNDLE_ROLES;
    let found = roles.into_iter().find(|role| role_name(*role) == text);
    found.ok_or_else(|| "the roles of a bundle are targets, snapshot and timestamp".to_owned())
}

impl SignArgs {
    pub(super) async fn run(self, now: Timestamp) -> Outcome {
        let progress = if self.quiet { Progress::quiet() } else { Progress::stderr() };
        let source = source::one(&self.files)?;
        let shown = format!("sign {}", source.shown());
        let bundle = match source {
            Source::File(path) => Unsigned::File(path),
            Source::Parts(media) => Unsigned::Parts(media),
            Source::Stdin => {
                return Err(Failure::usage("sign a bundle on standard input: what is signed is written in its place")
                    .with_remedy("name the file, or the folder with its parts"));
            }
        };
        let request = SignRequest {
            bundle,
            output: self.output,
            keys: self.keys,
            root: self.root,
            passphrase: PassphraseSource { file: self.passphrase_file },
            content: self.content,
            signatures: self.signature,
            limits: Limits::default(),
        };
        let failed = |error| Failure::from(error).during(&shown);
        if let Some(role) = self.payload {
            let bytes = signing::payload(&request, role, &progress, now).await.map_err(failed)?;
            return print_payload(&bytes);
        }
        let signed = signing::sign(&request, &progress, now).await.map_err(failed)?;
        println!("bundle   {} version {}", signed.bundle.name, signed.bundle.version);
        println!("content  {}", signed.bundle.digest);
        for added in &signed.added {
            println!("signed   {} by {}", role_name(added.role), added.key);
        }
        if signed.added.is_empty() {
            println!("signed   already by all that are here");
        }
        for role in &signed.progress {
            println!("has      {role}");
        }
        if let Some((written, sums)) = &signed.written {
            let label = if written.files.len() == 1 { "file" } else { "part" };
            for file in &written.files {
                println!("{label:<8} {}", file.path.display());
            }
            println!("size     {}", bytes_for_people(written.bytes));
            println!("digest   {}", written.digest);
            println!("sums     {}, signed by {}", sums.sums.display(), count(sums.signatures.len(), "key"));
        }
        if signed.sums_lack_signatures() {
            eprintln!(
                "the new signature makes the bundle another file with other sums: only the keys that are here signed those, and what others signed over the sums before holds for the file before"
            );
        }
        if !signed.is_complete() {
            eprintln!("enclaves refuse it until the missing signatures are added by `gapscan bundle sign`");
        }
        Ok(ExitClass::Success)
    }
}
