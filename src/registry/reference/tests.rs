use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn reads_what_it_writes() {
    for text in [
        "localhost/a".to_owned(),
        "registry.internal:5000/a/b-c__d.e/f---g:v1.2_x".to_owned(),
        format!("10.244.0.1:5000/lab/web:1@{DIGEST}"),
        format!("[::1]:5000/web@{DIGEST}"),
        "docker.io/library/debian:12".to_owned(),
    ] {
        let reference: Reference = text.parse().expect(&text);
        assert_eq!(reference.to_string(), text);
    }
    for text in ["localhost", "registry:5000", "registry:5000/gapscan/a", "[fe80::1]/x"] {
        assert_eq!(text.parse::<Prefix>().expect(text).to_string(), text);
    }
}

#[test]
fn refuses_what_names_nothing_and_says_what_to_write() {
    for text in [
        "",
        "/",
        "debian",
        "debian:12",
        "library/debian",
        "lab/web:1",
        "localhost",
        "localhost/",
        "localhost/A",
        "localhost/a//b",
        "localhost/../etc",
        "localhost/a/../b",
        "localhost/-a",
        "localhost/a-",
        "localhost/a___b",
        "localhost/a.-b",
        "localhost/a:",
        "localhost/a:.x",
        "localhost/a:b:c",
        "localhost:0/a",
        "localhost:65536/a",
        "localhost:+5/a",
        "user@host.x/a",
        "https://host.x/a",
        "host.x/a@sha256:00",
        "host.x/a@md5:00",
        "-a.x/b",
        "a..x/b",
        "[::1/a",
        "[::1]5000/a",
        "host.x/a b",
        "host.x/a\n",
    ] {
        let error = text.parse::<Reference>().expect_err(text);
        assert!(error.remedy().is_some_and(|remedy| remedy.contains("HOST")), "{text:?}");
    }
    assert!(format!("localhost/{}", "a".repeat(256)).parse::<Reference>().is_err());
    assert!("https://registry:5000".parse::<Prefix>().is_err());
    assert!(format!("r/{}", "a".repeat(200)).parse::<Prefix>().expect("a prefix").repository(&"b".repeat(60)).is_err());
}

#[test]
fn loopback_is_told_from_the_text_alone() {
    for (text, expected) in [
        ("localhost:1", true),
        ("127.8.8.8", true),
        ("[::1]:5", true),
        ("localhost.evil.example", false),
        ("10.0.0.1", false),
        ("127.0.0.1.example", false),
    ] {
        assert_eq!(text.parse::<Authority>().expect(text).is_loopback(), expected, "{text}");
    }
}

proptest! {
    /// The oracle is the parser of the OCI projects' own crate, which takes the same grammar but completes names.
    #[test]
    fn repositories_and_tags_agree_with_the_oci_crate(name in "[a-z0-9._/-]{1,12}", tag in "[a-zA-Z0-9._-]{1,6}") {
        let text = format!("host.example/{name}:{tag}");
        prop_assert_eq!(text.parse::<Reference>().is_ok(), text.parse::<oci_client::Reference>().is_ok(), "{}", text);
    }
}
