//! What a load did, or would do, for people.

use crate::base::exit::Outcome;
use crate::base::quantity::bytes_for_people;
use crate::cli::table::{self, Format, Table, count};
use crate::registry::Prefix;
use crate::stage::load::LoadedBundle;
use crate::stage::load::dry_run::Rehearsal;

/// One line for a load that was done.
pub(super) fn summary(loaded: &LoadedBundle, prefix: &Prefix) -> String {
    let verified = loaded.bundle();
    let catalog = verified.catalog();
    let counts = loaded.counts();
    let items = catalog.images.len() + catalog.profiles.len() + catalog.dependencies.len();
    let items = count(items, "item");
    format!(
        "loaded {} {} into {prefix}: {items} in {:.1} s; pushed: {}; blobs there already: {}, mounted: {}, copied: {}; tags moved: {}",
        verified.bundle().name,
        verified.bundle().version,
        loaded.elapsed().as_secs_f64(),
        bytes_for_people(counts.pushed_bytes),
        counts.skipped,
        counts.mounted,
        counts.copied,
        counts.tags,
    )
}

/// What a load would do, on stdout.
pub(super) fn rehearsal(found: &Rehearsal, output: Format) -> Outcome<()> {
    if output == Format::Json {
        return table::emit_json(found);
    }
    let mut text = format!(
        "bundle    {} version {}, verified; nothing was written\nregistry  {}\n",
        found.bundle.name, found.bundle.version, found.registry
    );
    if let Some(base) = found.base {
        text += &format!("base      {base}, which is there\n");
    }
    let blobs = &found.blobs;
    text += &format!("push      {} ({})\n", count(blobs.push, "blob"), bytes_for_people(blobs.push_bytes));
    text += &format!("mount     {}\n", count(blobs.mount, "blob"));
    text += &format!("present   {} ({})\n", count(blobs.present, "blob"), bytes_for_people(blobs.present_bytes));
    if let Some(available) = found.available_bytes {
        text += &format!("free      {} in the registry\n", bytes_for_people(available));
    }
    text += &format!("tags      {} would move\n", found.tags.len());
    text += &format!("remember  version {}: older ones would be refused\n\n", found.remembers);
    let mut items = Table::new(&["ITEM", "MANIFEST", ">PUSH", "TAGS THAT MOVE"]);
    for item in &found.items {
        let tags = found.tags.iter().filter(|tag| tag.repository == item.repository).map(|tag| tag.tag.as_str());
        items.row([
            item.repository.clone(),
            if item.present { "present" } else { "push" }.to_owned(),
            bytes_for_people(item.push_bytes),
            tags.collect::<Vec<_>>().join(", "),
        ]);
    }
    text += &items.render(0);
    table::emit(&text)
}
