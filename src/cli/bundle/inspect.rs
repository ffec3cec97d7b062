//! `gapscan bundle inspect`

use jiff::Timestamp;
use serde_json::json;

use super::ReadArgs;
use crate::base::exit::{ExitClass, Outcome};
use crate::base::progress::Progress;
use crate::base::text::printable;
use crate::bundle::catalog;
use crate::cli::table::{self, Format};
use crate::trust::remembered::Remembered;

/// Verify a bundle and list what is in it
#[derive(Debug, clap::Args)]
pub(super) struct InspectArgs {
    #[command(flatten)]
    read: ReadArgs,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

impl InspectArgs {
    pub(super) async fn run(self, now: Timestamp) -> Outcome {
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
