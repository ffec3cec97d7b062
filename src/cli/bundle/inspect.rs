//! `gapscan bundle inspect`

use jiff::Timestamp;
use serde_json::json;

use super::read::ReadArgs;
use crate::base::exit::{ExitClass, Outcome};
use crate::base::quantity::bytes_for_people;
use crate::base::text::printable;
use crate::bundle::catalog;
use crate::bundle::survey::Survey;
use crate::cli::table::{self, Format, Table};
use crate::model::catalog::Catalog;
use crate::model::notice::Notices;

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
        let survey = self.read.survey(now).await?;
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
    let left_out = verified.left_out();
    json!({
        // What a delta leaves out is known by its digest alone.
        "verified": left_out.is_empty(),
        "bundle": verified.bundle(),
        "created": verified.created(),
        "expires": verified.expires(),
        "bytes": verified.bytes(),
        "base": verified.base(),
        "leftOut": { "blobs": left_out.len(), "bytes": left_out.iter().map(|entry| entry.size).sum::<u64>() },
        "signers": survey.signers,
        "sizes": survey.sizes,
        "companions": companions,
        "catalog": verified.catalog(),
    })
}

fn head(survey: &Survey) -> String {
    let (verified, catalog) = (&survey.verified, survey.verified.catalog());
    let bundle = verified.bundle();
    let left_out = verified.left_out();
    let but = if left_out.is_empty() { "" } else { ", but for what it leaves out" };
    let mut text =
        format!("verified {} version {}, expires {}{but}\n", bundle.name, bundle.version, verified.expires());
    let base =
        verified.base().map(|base| format!("{} version {}, content {}", base.bundle, base.version, base.content));
    let bytes = bytes_for_people(left_out.iter().map(|entry| entry.size).sum());
    let left_out = base.as_ref().map(|_| format!("{} ({bytes}), not verified", table::count(left_out.len(), "blob")));
    let signers: Vec<&str> = survey.signers.iter().map(|id| id.get(..8).unwrap_or(id)).collect();
    let lines = [
        ("marked", catalog.classification.clone()),
        ("requires", catalog.requires.gapscan.as_ref().map(|versions| format!("gapscan {versions}"))),
        ("created", Some(verified.created().to_string())),
        ("content", Some(bundle.digest.to_string())),
        ("root", Some(bundle.root.to_string())),
        ("signed by", Some(signers.join(", "))),
        ("size", Some(bytes_for_people(verified.bytes()))),
        ("base", base),
        ("left out", left_out),
    ];
    for (name, value) in lines.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        text += &format!("{name:<9} {}\n", printable(&value));
    }
    text
}

fn tables(survey: &Survey, now: Timestamp) -> String {
    let found = survey.verified.catalog();
    let sections = [
        (catalog::items(found).next().is_some(), items(survey)),
        (!found.scanners.is_empty(), scanners(found)),
        (!found.profiles.is_empty(), profiles(found)),
        (!found.dependencies.is_empty(), content(found, now)),
        (!found.charts.is_empty(), charts(found)),
        (!found.notices.is_empty(), notices(&found.notices)),
    ];
    let shown = sections.into_iter().filter(|(any, _)| *any);
    shown.map(|(_, table)| format!("\n{}", table.render(0))).collect()
}

fn items(survey: &Survey) -> Table {
    let found = survey.verified.catalog();
    let mut table = Table::new(&["ITEM", "DIGEST", ">SIZE", ">WITH", "SIGNED BY", "LICENCE", "SOURCE"]);
    for item in catalog::items(found) {
        table.row([
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
    table
}

fn scanners(found: &Catalog) -> Table {
    let mut table = Table::new(&["SCANNER", "IMAGE", "USES", "TITLE"]);
    for scanner in &found.scanners {
        let uses: Vec<&str> = scanner.dependencies.iter().map(|d| d.name.as_str()).collect();
        let uses = if uses.is_empty() { "-".to_owned() } else { uses.join(", ") };
        table.row([scanner.name.clone(), scanner.image.clone(), uses, scanner.title.clone()]);
    }
    table
}

fn profiles(found: &Catalog) -> Table {
    let mut table = Table::new(&["PROFILE", "VERSION", ">CONTROLS", "ENGINE", "TARGETS"]);
    for profile in &found.profiles {
        let targets: Vec<&str> = profile.targets.iter().map(|t| t.word()).collect();
        table.row([
            profile.item.name.clone(),
            profile.version.clone(),
            profile.controls.to_string(),
            profile.engine.clone(),
            targets.join(", "),
        ]);
    }
    table
}

fn content(found: &Catalog, now: Timestamp) -> Table {
    let mut table = Table::new(&["CONTENT", "BUILT", ">AGE", ">MAX AGE", "WHEN OLDER"]);
    for dependency in &found.dependencies {
        let age = |built: Timestamp| format!("{}d", now.duration_since(built).as_hours().div_euclid(24));
        table.row([
            dependency.item.name.clone(),
            dependency.built.map_or("unknown".to_owned(), table::when),
            dependency.built.map_or("-".to_owned(), age),
            dependency.max_age.map_or("-".to_owned(), |span| span.to_string()),
            dependency.on_old.word().to_owned(),
        ]);
    }
    table
}

fn charts(found: &Catalog) -> Table {
    let mut table = Table::new(&["CHART", "NAME", "VERSION", "INSTALLS"]);
    for chart in &found.charts {
        table.row([
            chart.item.name.clone(),
            chart.chart.clone(),
            chart.version.clone(),
            chart.app_version.clone().unwrap_or("-".to_owned()),
        ]);
    }
    table
}

fn notices(found: &Notices) -> Table {
    let mut table = Table::new(&["NOTICE", "OF", "UNTIL", "WHY"]);
    for revocation in &found.revocations {
        let (of, what) = match (&revocation.bundle, revocation.version, revocation.content, revocation.item) {
            (Some(bundle), Some(version), ..) => (format!("{bundle} version {version}"), None),
            (Some(bundle), None, content, _) => {
                (bundle.clone(), content.map(|content| format!("content {}", content.short())))
            }
            (None, .., item) => ("every bundle".to_owned(), item.map(|item| format!("with {}", item.short()))),
        };
        let why = what.into_iter().chain([revocation.reason.clone()]).collect::<Vec<_>>().join("\n");
        table.row(["revoked".to_owned(), of, "for ever".to_owned(), why]);
    }
    for permit in &found.permits {
        let of = format!("{} version {}", permit.bundle, permit.version);
        let why = format!("content {}\n{}", permit.content.short(), permit.reason);
        table.row(["permitted".to_owned(), of, table::when(permit.until), why]);
    }
    table
}
