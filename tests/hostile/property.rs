//! What nobody thought of: random changes, held to oracles that were written in another way. A few of each in every run;
//! `scripts/fuzz SECONDS` tries for longer.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use tough::schema::{Root, Snapshot, Targets, Timestamp};

use crate::attack::{good, verify};
use crate::base::digest::Digest;
use crate::bundle::archive::{self, BLOCK};
use crate::bundle::oci::{self, Descriptor, Manifest};
use crate::metadata::Layout;
use crate::trust::metadata;
use crate::trust::remembered::Remembered;

/// So many cases, unless the environment asks for another number.
fn cases(few: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(few), failure_persistence: None, ..ProptestConfig::default() }
}

/// The header as one text, field after field.
fn written_out(name: &str, size: u64) -> Vec<u8> {
    let with = |sum: &str| {
        let fields = format!("{name:\0<100}0000644\00000000\00000000\0{size:011o}\000000000000\0{sum}0");
        format!("{:\0<512}", format!("{:\0<329}0000000\00000000\0", format!("{fields:\0<257}ustar\000")))
    };
    let sum: u64 = with("        ").bytes().map(u64::from).sum();
    with(&format!("{sum:06o}\0 ")).into_bytes()
}

/// A change to bytes.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, usize),
    Exchange(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    let length = select(vec![1_usize, 2, 100, 512, 1024, 4096]);
    prop_oneof![
        (any::<Index>(), 1..=255_u8).prop_map(|(at, bits)| Change::Flip(at, bits)),
        (any::<Index>(), length.clone()).prop_map(|(at, count)| Change::Remove(at, count)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..600)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), length).prop_map(|(at, count)| Change::Repeat(at, count)),
        (any::<Index>(), any::<Index>()).prop_map(|(one, two)| Change::Exchange(one, two)),
    ]
}

/// Whole blocks are exchanged and repeated where there are any, for that is what an archive is made of.
fn apply(bytes: &mut Vec<u8>, change: &Change) {
    if bytes.is_empty() {
        return;
    }
    let round = |at: usize| if at >= BLOCK { at / BLOCK * BLOCK } else { at };
    match change {
        Change::Flip(at, bits) => {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
        }
        Change::Remove(at, count) => {
            let at = round(at.index(bytes.len()));
            bytes.drain(at..(at + count).min(bytes.len()));
        }
        Change::Insert(at, new) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, new.iter().copied());
        }
        Change::Repeat(at, count) => {
            let at = round(at.index(bytes.len()));
            let again = bytes[at..(at + count).min(bytes.len())].to_vec();
            bytes.splice(at..at, again);
        }
        Change::Exchange(one, two) => {
            let (one, two) = (round(one.index(bytes.len())), round(two.index(bytes.len())));
            let length = BLOCK.min(bytes.len() - one.max(two));
            for at in 0..length {
                bytes.swap(one + at, two + at);
            }
        }
    }
}

/// A JSON value that somebody could put in place of another.
fn surprise() -> impl Strategy<Value = Value> {
    let digest = Digest::of(b"{}").to_string();
    select(vec![
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(2),
        json!(4.0),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}"),
        json!("../../x"),
        json!(digest.to_uppercase()),
        json!(digest),
        json!(oci::MANIFEST),
        json!(oci::INDEX),
        json!(oci::DOCKER_MANIFEST),
        json!(oci::LAYER_TAR),
        json!([]),
        json!({}),
        json!([[]]),
        json!("images/a"),
        json!("catalog"),
    ])
}

/// Puts a surprise somewhere into a document, or removes what is there.
fn surprised(document: &mut Value, place: &Index, surprise: Option<Value>) {
    let pointers = places(document, "");
    let pointer = place.get(&pointers);
    match surprise {
        Some(value) => *document.pointer_mut(pointer).expect("a place in it") = value,
        None => {
            let (parent, name) = pointer.rsplit_once('/').expect("a place below the document");
            match document.pointer_mut(parent).expect("a place in it") {
                Value::Object(members) => drop(members.remove(&name.replace("~1", "/").replace("~0", "~"))),
                Value::Array(items) => drop(items.remove(name.parse().expect("a number"))),
                _ => unreachable!("only these have places below them"),
            }
        }
    }
}

fn places(value: &Value, at: &str) -> Vec<String> {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(members) => members.iter().map(|(n, v)| (n.replace('~', "~0").replace('/', "~1"), v)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(n, v)| (n.to_string(), v)).collect(),
        _ => Vec::new(),
    };
    below
        .into_iter()
        .flat_map(|(name, value)| {
            let here = format!("{at}/{name}");
            let mut all = places(value, &here);
            all.push(here);
            all
        })
        .collect()
}

/// What a manifest or index names, read as plain JSON; `None` if it is neither or both. The rules of the page, once more.
fn named(media_type: &str, body: &Value) -> Option<Vec<(String, String, u64)>> {
    let there = |name: &str| body.get(name).is_some_and(|v| !v.is_null());
    let index = matches!(media_type, oci::INDEX | oci::DOCKER_INDEX);
    if !index && !matches!(media_type, oci::MANIFEST | oci::DOCKER_MANIFEST)
        || body.get("schemaVersion")?.as_u64()? != 2
    {
        return None;
    }
    let own = if there("mediaType") { Some(body["mediaType"].as_str()?) } else { None };
    if own.unwrap_or(if media_type.contains(".oci.") { media_type } else { "" }) != media_type {
        return None;
    }
    if there("fsLayers")
        || there("history")
        || there("manifests") != index
        || there("config") == index
        || there("layers") == index
    {
        return None;
    }
    let list = if index {
        body["manifests"].as_array()?.clone()
    } else {
        let mut list = vec![body["config"].clone()];
        list.extend(body["layers"].as_array()?.clone());
        list
    };
    let mut found = Vec::new();
    for descriptor in &list {
        let digest = descriptor.get("digest")?.as_str()?;
        let hex = digest.strip_prefix("sha256:")?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return None;
        }
        found.push((
            digest.to_owned(),
            descriptor.get("mediaType")?.as_str()?.to_owned(),
            descriptor.get("size")?.as_u64()?,
        ));
    }
    Some(found)
}

fn as_named(manifest: &Manifest) -> Vec<(String, String, u64)> {
    let of = |d: &Descriptor| (d.digest.to_string(), d.media_type.clone(), d.size);
    match manifest {
        Manifest::Index { manifests, .. } => manifests.iter().map(of).collect(),
        Manifest::Image { config, layers, .. } => std::iter::once(config).chain(layers).map(of).collect(),
    }
}

fn image() -> Value {
    json!({
        "schemaVersion": 2, "mediaType": oci::MANIFEST, "config": Descriptor::of(oci::CONFIG, b"{}"),
        "layers": [Descriptor::of(oci::LAYER_TAR, b"a"), Descriptor::of(oci::LAYER_TAR, b"b")],
    })
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn headers_are_what_they_are_written_out(name in "[!-~]{1,100}", size in 0..=archive::MAX_SIZE) {
        let header = archive::header(&name, size).expect("a header");
        prop_assert_eq!(&header[..], &written_out(&name, size)[..]);
        prop_assert_eq!(archive::claimed_size(&header), Some(size));
        let other = tar::Header::from_byte_slice(&header);
        prop_assert_eq!(other.entry_size().expect("a size"), size);
        prop_assert_eq!(&other.path_bytes()[..], name.as_bytes());
        let sum: u32 = header.iter().enumerate().map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) }).sum();
        prop_assert_eq!(other.cksum().expect("a sum"), sum);
    }

    /// A header whose size is not known passes only as the one that is computed, whatever another reader makes of it.
    #[test]
    fn no_other_header_passes(size in 0..=archive::MAX_SIZE, changes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4)) {
        let name = "metadata/timestamp.json";
        let mut block = archive::header(name, size).expect("a header");
        for (at, byte) in &changes {
            block[at.index(BLOCK)] = *byte;
        }
        let passes = archive::claimed_size(&block).is_some_and(|size| archive::header(name, size) == Some(block));
        let read = tar::Header::from_byte_slice(&block).entry_size().ok().filter(|size| *size <= archive::MAX_SIZE);
        prop_assert_eq!(passes, read.is_some_and(|size| written_out(name, size) == block));
    }

    /// One parser of manifests against another.
    #[test]
    fn manifests_are_read_as_the_page_says(
        media_type in select(vec![oci::MANIFEST, oci::INDEX, oci::DOCKER_MANIFEST, oci::DOCKER_INDEX, oci::LAYER_TAR]),
        index in any::<bool>(),
        own in select(vec![Some(oci::MANIFEST), Some(oci::INDEX), Some(oci::DOCKER_MANIFEST), Some(oci::DOCKER_INDEX), None]),
        changes in prop::collection::vec((any::<Index>(), prop::option::of(surprise())), 0..3),
        more in prop::option::of((select(vec!["config", "layers", "manifests", "fsLayers", "history", "x"]), surprise())),
    ) {
        let mut body = if index {
            json!({"schemaVersion": 2, "manifests": [Descriptor::of(oci::MANIFEST, b"a"), Descriptor::of(oci::INDEX, b"b")]})
        } else {
            image()
        };
        body["mediaType"] = own.map_or(Value::Null, |own| json!(own));
        if let Some((name, value)) = more {
            body[name] = value;
        }
        for (place, surprise) in changes {
            if !places(&body, "").is_empty() {
                surprised(&mut body, &place, surprise);
            }
        }
        let ours = Manifest::parse(media_type, body.to_string().as_bytes()).ok();
        prop_assert_eq!(ours.as_ref().map(as_named), named(media_type, &body), "{}", body);
    }

    /// Whatever is done to a metadata file: what is still read is in the one form, so it is that file or another content.
    #[test]
    fn changed_metadata_is_refused_or_in_the_one_form(
        file in select(vec!["1.root.json", "timestamp.json", "snapshot.json", "targets.json"]),
        changes in prop::collection::vec(change(), 1..3),
    ) {
        let original = good().parts().at(file).clone();
        let mut bytes = original.clone();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        let read = match file {
            "1.root.json" => metadata::parse::<Root>(file, &bytes).is_ok(),
            "timestamp.json" => metadata::parse::<Timestamp>(file, &bytes).is_ok(),
            "snapshot.json" => metadata::parse::<Snapshot>(file, &bytes).is_ok(),
            _ => metadata::parse::<Targets>(file, &bytes).is_ok(),
        };
        prop_assert!(read || bytes != original);
        if read {
            // Another parser and another writer: a map whose members are sorted.
            let value: Value = serde_json::from_slice(&bytes).expect("it was read");
            prop_assert_eq!(value.to_string().into_bytes(), bytes);
        }
    }
}

proptest! {
    #![proptest_config(cases(48))]

    /// Whatever is done to a bundle, it is that bundle or none.
    #[test]
    fn changed_bundles_are_refused(changes in prop::collection::vec(change(), 1..4)) {
        let good = good();
        let mut bytes = good.bytes.clone();
        changes.iter().for_each(|change| apply(&mut bytes, change));
        let verdict = verify(&bytes, &good.sample.root, &Remembered::nothing(), good.sample.now);
        prop_assert_eq!(verdict.is_ok(), bytes == good.bytes, "{:?}", verdict.err());
    }

    /// Whatever is done to `index.json` and then signed: what is accepted is what a plain reading of it finds.
    #[test]
    fn changed_layouts_are_refused_or_read_as_they_are(
        changes in prop::collection::vec((any::<Index>(), prop::option::of(surprise())), 1..3),
        repeated in any::<bool>(),
    ) {
        let good = good();
        let mut layout = Layout::new();
        layout.image("images/a", |_| {});
        layout.image("images/b", |_| {});
        let mut index = layout.index_json(good);
        if repeated {
            let list = index["manifests"].as_array_mut().expect("a list");
            list.push(list[0].clone());
        }
        for (place, surprise) in changes {
            surprised(&mut index, &place, surprise);
        }
        layout.whole_index = Some(index.clone());
        let bytes = layout.bytes(good);
        if let Ok(verified) = verify(&bytes, &good.sample.root, &Remembered::nothing(), good.sample.now) {
            prop_assert_eq!(&index["schemaVersion"], 2);
            prop_assert_eq!(&index["mediaType"], oci::INDEX);
            let plain: Vec<(String, String)> = index["manifests"].as_array().expect("a list").iter().map(|d| {
                let text = |value: &Value| value.as_str().expect("a text").to_owned();
                (text(&d["annotations"][oci::REF_NAME]), text(&d["digest"]))
            }).collect();
            let catalog = verified.catalog();
            let mut listed: Vec<(String, String)> =
                catalog.images.iter().map(|item| (item.repository.clone(), item.digest.to_string())).collect();
            listed.push(("catalog".to_owned(), verified.catalog_manifest().to_string()));
            listed.sort();
            prop_assert_eq!(plain, listed);
        }
    }
}
