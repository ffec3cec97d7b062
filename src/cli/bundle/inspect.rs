//! `gapscan bundle inspect`

use jiff::Timestamp;
use serde_json::json;

use super::{ReadArgs, survey};
use crate::base::exit::{ExitClass, Outcome};
use crate::base::quantity::bytes_for_people;
use crate::base::text::printable;
use crate::bundle::catalog;
use crate::bundle::survey::Survey;
use crate::cli::table::{self, Format, Table};

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
        let survey = survey(&self.read.file, &self.read.root, now).await?;
        match self.output {
            Format::Json => table::emit_json(&value(&survey))?,
            Format::Table => table::emit(&(head(&survey) + &tables(&survey, now)))?,
        }
        Ok(ExitClass::Success)
    }
}

fn value(survey: &Survey) -> serde_json::Value {
    let verified = &survey.verified;
    let companions: Vec<serde_json::Value> = survey
        .companions
        .iter()
        .map(|companion| {
            json!({
                "repository": companion.repository,
                "digest": companion.digest,
                "mediaType": companion.media_type,
                "artifactType": companion.artifact_type,
                "tag": companion.tag,
                "size": companion.size,
            })
        })
        .collect();
    json!({
        "verified": true,
        "bundle": verified.bundle(),
        "created": verified.created(),
        "expires": verified.expires(),
        "bytes": verified.bytes(),
        "signers": survey.signers,
        "sizes": survey.sizes,
        "companions": companions,
        "catalog": verified.catalog(),
    })
}

fn head(survey: &Survey) -> String {
    let (verified, catalog) = (&survey.verified, survey.verified.catalog());
    let bundle = verified.bundle();
    let mut text = format!("verified {} version {}, expires {}\n", bundle.name, bundle.version, verified.expires());
    let signers: Vec<&str> = survey.signers.iter().map(|id| id.get(..8).unwrap_or(id)).collect();
    let lines = [
        ("marked", catalog.classification.clone()),
        ("requires", catalog.requires.gapscan.as_ref().map(|versions| format!("gapscan {versions}"))),
        ("created", Some(verified.created().to_string())),
        ("content", Some(bundle.digest.to_string())),
        ("root", Some(bundle.root.to_string())),
        ("signed by", Some(signers.join(", "))),
        ("size", Some(bytes_for_people(verified.bytes()))),
    ];
    for (name, value) in lines.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        text += &format!("{name:<9} {}\n", printable(&value));
    }
    text
}

fn tables(survey: &Survey, now: Timestamp) -> String {
    let found = survey.verified.catalog();
    let mut items = Table::new(&["ITEM", "DIGEST", ">SIZE", ">WITH", "SIGNED BY", "LICENCE", "SOURCE"]);
    for item in catalog::items(found) {
        items.row([
            item.repository.clone(),
            item.digest.short(),
            bytes_for_people(survey.sizes.get(&item.repository).copied().unwrap_or_default()),
            survey.companions_of(&item.repository).count().to_string(),
            item.verified.as_ref().map_or("-".to_owned(), |verified| verified.key.short()),
            if item.licences.is_empty() { "-".to_owned() } else { item.licences.join(", ") },
            // The digest has a column of its own.
            item.source.split("@sha256:").next().unwrap_or_default().to_owned(),
        ]);
    }
    let mut scanners = Table::new(&["SCANNER", "IMAGE", "USES", "TITLE"]);
    for scanner in &found.scanners {
        let uses: Vec<&str> = scanner.dependencies.iter().map(|d| d.name.as_str()).collect();
        let uses = if uses.is_empty() { "-".to_owned() } else { uses.join(", ") };
        scanners.row([scanner.name.clone(), scanner.image.clone(), uses, scanner.title.clone()]);
    }
    let mut profiles = Table::new(&["PROFILE", "VERSION", ">CONTROLS", "ENGINE", "TARGETS"]);
    for profile in &found.profiles {
        let targets: Vec<&str> = profile.targets.iter().map(|t| t.word()).collect();
        profiles.row([
            profile.item.name.clone(),
            profile.version.clone(),
            profile.controls.to_string(),
            profile.engine.clone(),
            targets.join(", "),
        ]);
    }
    let mut content = Table::new(&["CONTENT", "BUILT", ">AGE", ">MAX AGE", "WHEN OLDER"]);
    for dependency in &found.dependencies {
        let age = |built: Timestamp| format!("{}d", now.duration_since(built).as_hours().div_euclid(24));
        content.row([
            dependency.item.name.clone(),
            dependency.built.map_or("unknown".to_owned(), table::when),
            dependency.built.map_or("-".to_owned(), age),
            dependency.max_age.map_or("-".to_owned(), |span| span.to_string()),
            dependency.on_old.word().to_owned(),
        ]);
    }
    let mut charts = Table::new(&["CHART", "NAME", "VERSION", "INSTALLS"]);
    for chart in &found.charts {
        charts.row([
            chart.item.name.clone(),
            chart.chart.clone(),
            chart.version.clone(),
            chart.app_version.clone().unwrap_or("-".to_owned()),
        ]);
    }
    let sections = [
        (true, items),
        (!found.scanners.is_empty(), scanners),
        (!found.profiles.is_empty(), profiles),
        (!found.dependencies.is_empty(), content),
        (!found.charts.is_empty(), charts),
    ];
    let shown = sections.into_iter().filter(|(any, _)| *any);
    shown.map(|(_, table)| format!("\n{}", table.render(0))).collect()
}
