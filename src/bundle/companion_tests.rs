//! Companions: what hangs on an item travels with it, and what does not is refused.

use serde_json::{Value, json};

use super::graph::tag_subject;
use super::oci::{self, COMPANION_OF, COMPANION_TAG, Descriptor, REF_NAME};
use super::reader::BundleReader;
use super::sample::{Images, NAME, Sample};
use super::tests::refused;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::trust::remembered::Remembered;

const SIGNATURE: &str = "application/vnd.example.signature";

fn artifact(content: &[u8], subject: Option<&Descriptor>) -> (Vec<u8>, Vec<u8>) {
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": oci::MANIFEST, "artifactType": SIGNATURE,
        "config": Descriptor::of(oci::EMPTY, b"{}"),
        "layers": [Descriptor::of(SIGNATURE, content)],
        "annotations": { "made": "by a test" },
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!(subject);
    }
    (serde_json::to_vec(&manifest).expect("JSON"), content.to_vec())
}

fn listed(bytes: &[u8], annotations: &[(&str, &str)]) -> Value {
    let mut descriptor = Descriptor::of(oci::MANIFEST, bytes);
    descriptor.annotations = annotations.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    json!(descriptor)
}

/// A sample with companions of the index `images/many`: of it, of one of its images, of a companion, and one by tag.
#[tokio::test]
async fn companions_travel_with_their_subjects() {
    let sample = Sample::new();
    let mut images = Images::usual();
    let web = images.image(&[&[7; 1024], b"web"]);
    let many = images.descriptor("images/many");
    let signature = images.artifact(b"signature of many", Some(&many));
    let sbom = images.artifact(b"SBOM of web", Some(&web));
    let signed_sbom = images.artifact(b"signature of the SBOM", Some(&sbom));
    let cosign = images.artifact(b"cosign", None);
    let tag = format!("sha256-{}.sig", many.digest.hex());
    for (companion, tag) in [(&signature, None), (&sbom, None), (&signed_sbom, None), (&cosign, Some(tag.as_str()))] {
        images.companion("images/many", companion.clone(), tag);
    }
    let path = sample.file_of(images, 1).await;
    let bytes = std::fs::read(path).expect("the bundle");
    let remembered = Remembered::nothing();
    let mut reader =
        BundleReader::open(&bytes[..], &sample.root, &remembered, &Limits::default(), sample.now).await.expect("open");
    assert_eq!(reader.companions().len(), 4);
    assert!(reader.companions().iter().all(|c| c.repository == "images/many"));
    assert!(reader.items().iter().all(|item| item.digest != signature.digest), "companions are no items");
    let order: Vec<Digest> = reader.manifests().iter().map(|m| m.digest).collect();
    let at = |d: &Descriptor| order.iter().position(|o| *o == d.digest).expect("a manifest");
    assert!(at(&many) < at(&signature) && at(&sbom) < at(&signed_sbom), "what is signed comes first");
    let pushed = &reader.manifests()[at(&signed_sbom)];
    assert_eq!((pushed.subject, pushed.artifact_type.as_deref()), (Some(sbom.digest), Some(SIGNATURE)));
    assert_eq!(pushed.repositories, ["images/many"]);
    assert_eq!(pushed.annotations["made"], "by a test");
    while let Some(blob) = reader.next_blob().await.expect("a blob") {
        blob.skip().await.expect("whole");
    }
    let verified = reader.finish().await.expect("verified");
    let tags: Vec<_> = verified.tags().iter().filter(|t| t.digest == cosign.digest).collect();
    assert_eq!(tags.len(), 1);
    assert_eq!((tags[0].repository.as_str(), &tags[0].tag), ("images/many", &tag));
    assert_eq!(verified.tags().last().expect("tags").repository, "catalog", "a run begins with what moves last");
}

#[tokio::test]
async fn a_companion_of_nothing_a_foreign_tag_and_a_wrong_place_are_refused() {
    let sample = Sample::new();
    let (item, layer) = artifact(b"item", None);
    let item_descriptor = Descriptor::of(oci::MANIFEST, &item);
    let digest = item_descriptor.digest;
    let elsewhere = Descriptor::of(oci::MANIFEST, b"elsewhere");
    let named = listed(&item, &[(REF_NAME, "images/a")]);
    let other_item = listed(&item, &[(REF_NAME, "images/b")]);
    let sig = format!("sha256-{}.sig", digest.hex());
    let (about, about_layer) = artifact(b"about", Some(&item_descriptor));
    let (lost, lost_layer) = artifact(b"lost", Some(&elsewhere));
    let (plain, plain_layer) = artifact(b"plain", None);
    let of = |bytes: &[u8], repository: &str, tag: Option<&str>| {
        let mut annotations = vec![(COMPANION_OF, repository)];
        annotations.extend(tag.map(|tag| (COMPANION_TAG, tag)));
        listed(bytes, &annotations)
    };
    let own = format!("sha256-{}.sig", Digest::of(&plain).hex());
    let upper = sig.to_uppercase().replace("SHA256", "sha256").replace(".SIG", ".sig");
    let both = listed(&about, &[(REF_NAME, "images/c"), (COMPANION_OF, "images/a")]);
    let tagged_item = listed(&item, &[(REF_NAME, "images/a"), (COMPANION_TAG, &sig)]);
    for (case, list, what, content) in [
        ("about nothing here", vec![named.clone(), of(&lost, "images/a", None)], &lost, &lost_layer),
        ("without a subject", vec![named.clone(), of(&plain, "images/a", None)], &plain, &plain_layer),
        ("in a repository without items", vec![named.clone(), of(&about, "images/z", None)], &about, &about_layer),
        ("about itself", vec![named.clone(), of(&plain, "images/a", Some(&own))], &plain, &plain_layer),
        ("any tag", vec![named.clone(), of(&plain, "images/a", Some("latest"))], &plain, &plain_layer),
        ("upper-case tag", vec![named.clone(), of(&plain, "images/a", Some(&upper))], &plain, &plain_layer),
        ("item and companion", vec![named.clone(), both], &about, &about_layer),
        ("an item with a tag", vec![tagged_item, of(&about, "images/a", None)], &about, &about_layer),
        ("companion first", vec![of(&about, "images/a", None), named.clone()], &about, &about_layer),
        ("out of order", vec![other_item.clone(), named.clone(), of(&about, "images/b", None)], &about, &about_layer),
        (
            "twice",
            vec![named.clone(), of(&about, "images/a", None), of(&about, "images/a", Some(&sig))],
            &about,
            &about_layer,
        ),
    ] {
        let index = json!({ "schemaVersion": 2, "mediaType": oci::INDEX, "manifests": list });
        let blobs = [
            (oci::MANIFEST, item.clone()),
            (oci::MANIFEST, what.clone()),
            (oci::EMPTY, b"{}".to_vec()),
            (SIGNATURE, layer.clone()),
            (SIGNATURE, content.clone()),
        ];
        let bytes = sample.relisted(index, &blobs).await;
        let message = refused(sample.verify(&bytes).await, case);
        assert!(!message.contains("catalog"), "{case}: {message}");
    }
    // What is refused above is refused for its own reason: the same with a proper companion fails only for want of a catalog.
    let index = json!({ "schemaVersion": 2, "mediaType": oci::INDEX,
        "manifests": [named, of(&about, "images/a", Some(&sig))] });
    let blobs = [
        (oci::MANIFEST, item.clone()),
        (oci::MANIFEST, about.clone()),
        (oci::EMPTY, b"{}".to_vec()),
        (SIGNATURE, layer),
        (SIGNATURE, about_layer),
    ];
    let message = refused(sample.verify(&sample.relisted(index, &blobs).await).await, "no catalog");
    assert!(message.contains("catalog"), "{message}");
}

#[test]
fn only_cosigns_tags_name_a_subject() {
    let digest = Digest::of(NAME);
    for kind in ["sig", "att", "sbom"] {
        assert_eq!(tag_subject(&format!("sha256-{}.{kind}", digest.hex())), Some(digest));
    }
    let hex = digest.hex();
    for tag in [
        "latest".to_owned(),
        format!("sha256-{hex}"),
        format!("sha256-{hex}.sig.1"),
        format!("sha256-{hex}.gapscan"),
        format!("sha512-{hex}.sig"),
        format!("sha256-{}.sig", &hex[1..]),
        format!("sha256-{}.sig", hex.to_uppercase()),
    ] {
        assert_eq!(tag_subject(&tag), None, "{tag}");
    }
}
