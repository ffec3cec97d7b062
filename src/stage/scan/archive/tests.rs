use super::*;

/// A registry that nobody asks.
#[derive(Debug)]
struct Unasked;

#[async_trait]
impl BlobSource for Unasked {
    async fn open(&self, _: &Digest, _: u64) -> Result<Box<dyn AsyncRead + Send + Unpin>, SourceError> {
        Ok(Box::new(tokio::io::empty()))
    }

    fn reason(&self, _: &io::Error) -> Reason {
        Reason::RegistryUnreachable
    }
}

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

fn descriptor(media_type: &str, size: u64) -> Descriptor {
    Descriptor { media_type: media_type.to_owned(), digest: Digest::of(media_type), size, urls: Vec::new() }
}

fn needs(layers: &[LayerForm]) -> ArchiveNeeds {
    ArchiveNeeds { layers: layers.to_vec() }
}

/// What comes of an image with these layers.
fn of(layers: &[Descriptor], needs: &ArchiveNeeds) -> Result<ImageArchive, NotDone> {
    let config = descriptor("application/vnd.oci.image.config.v1+json", 2);
    let parts = Parts { bytes: b"{}", media_type: MANIFEST, config: &config, layers };
    parts.archive(needs, &Limits::default(), Arc::new(Unasked)).map(|(archive, _)| archive)
}

#[test]
fn a_layer_is_given_only_in_a_form_that_the_scanner_reads() {
    let usual = needs(&[LayerForm::Tar, LayerForm::Gzip]);
    let all = needs(&[LayerForm::Tar, LayerForm::Gzip, LayerForm::Zstd]);
    for fitting in [GZIP, "application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar.gzip"]
    {
        assert!(of(&[descriptor(fitting, 10)], &usual).is_ok(), "{fitting}");
    }
    assert!(of(&[descriptor(ZSTD, 10)], &all).is_ok());
    let elsewhere = Descriptor { urls: vec!["https://example.org".to_owned()], ..descriptor(GZIP, 10) };
    for (layer, why) in [
        (descriptor(ZSTD, 10), "stored as zstd"),
        (descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 10), "elsewhere"),
        (descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", 10), "elsewhere"),
        (descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", 10), "not known"),
        (descriptor("", 10), "not known"),
        (elsewhere, "elsewhere"),
    ] {
        let refused = of(&[descriptor(GZIP, 10), layer], &usual).expect_err(why);
        assert_eq!(refused.reason, Reason::ImageUnreadable);
        assert!(refused.detail.starts_with("its layer 2 ") && refused.detail.contains(why), "{}", refused.detail);
    }
}

#[test]
fn what_is_too_large_is_refused_by_its_manifest_alone() {
    let all = needs(&[LayerForm::Gzip, LayerForm::Tar]);
    let limits = Limits::default();
    let refused = |layers: &[Descriptor]| of(layers, &all).map(|_| ()).expect_err("it is too large");
    assert_eq!(refused(&[descriptor(GZIP, limits.blob_bytes + 1)]).reason, Reason::TargetTooLarge);
    let blob = |at: u64| Descriptor { digest: Digest::of(at.to_string()), ..descriptor(GZIP, limits.blob_bytes) };
    let why = refused(&[blob(1), blob(2), blob(3)]);
    assert_eq!(why.reason, Reason::TargetTooLarge);
    assert!(why.detail.contains("at most 17179869184"), "{}", why.detail);
    // The same blob is sent once.
    assert!(of(&[blob(1), blob(1), blob(1)], &all).is_ok());
    let other = Descriptor { size: 3, ..blob(1) };
    assert_eq!(refused(&[blob(1), other]).reason, Reason::ImageUnreadable);
}

#[test]
fn a_manifest_of_docker_is_told_in_words_of_oci() {
    let docker = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"d"},"layers":[{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","size":3,"digest":"e"}]}"#;
    let config = descriptor("", 2);
    let parts = |media_type| Parts { bytes: docker.as_bytes(), media_type, config: &config, layers: &[] };
    let (manifest, note) = parts(DOCKER_MANIFEST).manifest();
    let told: Value = serde_json::from_slice(&manifest.bytes).expect("JSON");
    assert_eq!((manifest.media_type.as_str(), &told["mediaType"]), (MANIFEST, &json!(MANIFEST)));
    assert_eq!(told["layers"][0], json!({"mediaType": GZIP, "size": 3, "digest": "e"}));
    assert_eq!(told["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    assert!(note.is_some_and(|note| note.contains(&Digest::of(&manifest.bytes).to_string())));
    let (manifest, note) = parts(MANIFEST).manifest();
    assert_eq!((&manifest.bytes[..], note), (docker.as_bytes(), None));
}

#[test]
fn what_a_registry_does_has_its_reason() {
    let source = Registry {
        client: Client::new(crate::registry::ClientConfig::new("registry.example:1".parse().expect("a registry")))
            .expect("a client"),
        repository: "a".parse().expect("a repository"),
    };
    let action = || crate::registry::Action::new("pull a blob".to_owned());
    for (error, wanted) in [
        (
            RegistryError::Digest { action: action(), expected: Digest::of("1"), found: Digest::of("2") },
            Reason::ImageUnreadable,
        ),
        (
            RegistryError::Stalled { action: action(), waited: std::time::Duration::from_secs(60) },
            Reason::RegistryUnreachable,
        ),
        (RegistryError::Size { action: action(), expected: 2, found: 1 }, Reason::RegistryUnreachable),
        (RegistryError::Unauthorized { action: action(), had_credentials: true }, Reason::AccessDenied),
    ] {
        assert_eq!(source.reason(&io::Error::other(error)), wanted);
    }
    assert_eq!(source.reason(&io::Error::from(io::ErrorKind::BrokenPipe)), Reason::RegistryUnreachable);
}
