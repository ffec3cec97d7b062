//! The second section: what signed metadata, manifests and the catalog may try, and what may be tried with signatures.

use std::collections::HashMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, ReadBuf};
use tough::schema::{Hashes, Target};

use crate::attack::{Attack, Expect, Good, block, cases, good};
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::bundle::BundleError;
use crate::bundle::archive::{self, BLOCK};
use crate::bundle::oci::{self, Descriptor};
use crate::bundle::reader::BundleReader;
use crate::bundle::sample::{NAME, Parts, Sample};
use crate::model::catalog::CATALOG_MEDIA_TYPE;
use crate::trust::TrustError;
use crate::trust::key::RoleKey;
use crate::trust::metadata::MAX_VERSION;
use crate::trust::remembered::Remembered;
use crate::trust::root::RootPlan;

/// The metadata files of the good bundle, by the ends of their names, and the roles that sign them.
const FILES: [(&str, &str); 4] = [
    ("1.root.json", "root"),
    ("timestamp.json", "timestamp"),
    ("snapshot.json", "snapshot"),
    ("targets.json", "targets"),
];

cases! {
    no_signature => |good| {
        FILES.map(|(file, _)| {
            let bytes = changed(good, file, |whole| whole["signatures"] = json!([]));
            good.attack(file, bytes, Expect::Says("Threshold", "0 valid signature(s)"))
        }).into()
    };
    empty_signature => |good| {
        FILES.map(|(file, _)| {
            let bytes = changed(good, file, |whole| whole["signatures"][0]["sig"] = json!(""));
            good.attack(file, bytes, Expect::Says("Signature", "does not fit its content"))
        }).into()
    };
    empty_metadata => |good| {
        FILES.map(|(file, _)| good.attack(file, text(good, file, |_| String::new()), Expect::Says("Metadata", "EOF"))).into()
    };
    /// Instead of the signature by the role's own key, and beside it.
    signature_by_an_unknown_key => |good| {
        let stranger = Sample::new();
        FILES.iter().flat_map(|(file, role)| {
            let more = signature(&key(&stranger, role), &json!({}));
            let beside = changed(good, file, |whole| {
                let list = whole["signatures"].as_array_mut().expect("a list");
                list.push(more.clone());
                list.sort_by_key(|s| s["keyid"].to_string());
            });
            let instead = resigned(good, file, &[&key(&stranger, role)], |_| {});
            [("beside", beside), ("instead", instead)].map(|(how, bytes)| {
                good.attack(format!("{how}: {file}"), bytes, Expect::Says("UnknownKey", "does not name for this role"))
            })
        }).collect()
    };
    signature_by_a_key_of_another_role => |good| {
        let (timestamp, targets) = (key(&good.sample, "timestamp"), key(&good.sample, "targets"));
        [("timestamp.json", targets), ("targets.json", timestamp)].map(|(file, key)| {
            good.attack(file, resigned(good, file, &[&key], |_| {}), Expect::Says("UnknownKey", "for this role"))
        }).into()
    };
    /// What a role's own key signed as something else is not that role's metadata.
    signature_over_another_payload_type => |good| {
        FILES.map(|(file, role)| {
            let bytes = resigned(good, file, &[&key(&good.sample, role)], |signed| signed["_type"] = json!("mirrors"));
            good.attack(file, bytes, Expect::Says("Metadata", ""))
        }).into()
    };
    signature_of_another_file => |good| {
        let other = Parts::of(&block(good.sample.bytes(2)));
        FILES[1..].iter().map(|(file, _)| {
            let other: Value = serde_json::from_slice(other.clone().at(file)).expect("JSON");
            let bytes = changed(good, file, |whole| whole["signatures"] = other["signatures"].clone());
            good.attack(*file, bytes, Expect::Says("Signature", "does not fit its content"))
        }).collect()
    };
    /// RUSTSEC-2020-0024
    same_key_twice_towards_a_threshold => twice;
    signed_metadata_with_one_blob_swapped => |good| {
        let names = good.parts().names();
        names.iter().filter(|name| name.starts_with("blobs/")).filter_map(|name| {
            let mut parts = good.parts();
            *parts.at(name).first_mut()? ^= 1;
            Some(good.attack(name, parts.join(), Expect::Says("Digest", "it was changed or damaged")))
        }).collect()
    };
    right_size_and_wrong_digest => |good| {
        good.parts().names()[4..].iter().filter_map(|name| {
            let mut parts = good.parts();
            *parts.at(name).last_mut()? ^= 0x20;
            Some(good.attack(name, parts.join(), Expect::Says("Digest", "is signed")))
        }).collect()
    };
    /// The digest is that of the content, and a signed length, or all of them, say something else.
    wrong_size_and_right_digest => |good| {
        let mut attacks: Vec<Attack> = [1, -1].into_iter().map(|more| {
            let mut parts = good.parts();
            good.sample.resigned(&mut parts, |targets| {
                let layer = targets.targets.values_mut().find(|t| t.custom["mediaType"] == oci::LAYER_TAR && t.length > 1);
                let layer = layer.expect("a layer");
                layer.length = layer.length.checked_add_signed(more).expect("a length");
            });
            good.attack(format!("in targets: {more}"), parts.join(), Expect::Says("Manifest", "bytes and it has"))
        }).collect();
        let mut layout = Layout::new();
        layout.image("images/liar", |image| {
            image["layers"][0]["size"] = json!(6);
        });
        attacks.push(layout.attack(good, "in a manifest", Expect::Says("Manifest", "has 6 bytes and it has")));
        // Targets and manifest agree on a lie: then the entry's own header is another than theirs.
        let mut both = Parts::of(&layout.bytes(good));
        good.sample.resigned(&mut both, |targets| {
            targets.targets.values_mut().filter(|t| t.custom["mediaType"] == oci::LAYER_TAR).for_each(|t| t.length = 6);
        });
        attacks.push(good.attack("in both", both.join(), Expect::Says("Manifest", "bytes and it has")));
        attacks
    };
    blob_present_and_not_listed => |good| {
        let name = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
        let mut added = good.parts();
        added.0.push((name(b"extra"), b"extra".to_vec()));
        let end = (good.bytes.len() - archive::END.len()) as u64;
        let mut unlisted = good.parts();
        good.sample.resigned(&mut unlisted, |targets| {
            let layer = tough::TargetName::new(name(b"web")).expect("a name");
            assert!(targets.remove_target(&layer).is_some());
        });
        vec![
            good.attack("after the last", added.join(), Expect::At("EndMarker", end)),
            good.attack("needed by an image", unlisted.join(), Expect::Says("Manifest", "which is not in the bundle")),
        ]
    };
    blob_listed_and_missing => |good| {
        let last = good.parts().names().pop().expect("an entry");
        let mut without = good.parts();
        without.0.pop();
        let mut listed = good.parts();
        good.sample.resigned(&mut listed, |targets| {
            let name = tough::TargetName::new(format!("blobs/sha256/{}", Digest::of(b"x").hex())).expect("a name");
            targets.add_target(name, target(b"x", "x/y"));
        });
        vec![
            good.attack("not in the archive", without.join(), Expect::At("Header", good.header_of(&last) as u64)),
            good.attack("needed by nothing", listed.join(), Expect::Says("Contents", "no item needs it")),
        ]
    };
    duplicate_json_keys => |good| {
        let mut attacks = spelled(good, |text| text.replacen("{\"signatures\"", "{\"signatures\":[],\"signatures\"", 1));
        attacks.extend(spelled(good, |text| text.replacen("\"version\":1", "\"version\":1,\"version\":1", 1)));
        attacks.push(body(good, "layers twice in a manifest", |text| text.replacen("\"layers\":", "\"layers\":[],\"layers\":", 1)));
        attacks.push(body(good, "mediaType twice in a manifest", |text| {
            text.replacen("\"mediaType\":", &format!("\"mediaType\":\"{}\",\"mediaType\":", oci::INDEX), 1)
        }));
        attacks
    };
    byte_order_mark => |good| {
        let mut attacks = spelled(good, |text| format!("\u{feff}{text}"));
        attacks.push(body(good, "a manifest", |text| format!("\u{feff}{text}")));
        attacks
    };
    crlf => |good| {
        let mut attacks = spelled(good, |text| format!("{text}\r\n"));
        attacks.extend(spelled(good, |text| text.replacen(',', ",\r\n", 1)));
        attacks
    };
    blanks => |good| spelled(good, |text| text.replacen(',', ", ", 1));
    members_out_of_order => |good| {
        FILES.map(|(file, _)| {
            let bytes = text(good, file, |text| {
                let whole: Value = serde_json::from_str(text).expect("JSON");
                format!("{{\"signed\":{},\"signatures\":{}}}", whole["signed"], whole["signatures"])
            });
            good.attack(file, bytes, Expect::Says("Metadata", "canonical form"))
        }).into()
    };
    escapes_that_are_not_needed => |good| spelled(good, |text| text.replacen("\"version\"", "\"versio\\u006e\"", 1));
    upper_case_digits => |good| {
        FILES.map(|(file, _)| {
            let bytes = changed(good, file, |whole| {
                let upper = whole["signatures"][0]["sig"].as_str().expect("digits").to_uppercase();
                whole["signatures"][0]["sig"] = json!(upper);
            });
            good.attack(file, bytes, Expect::Says("Metadata", "lower-case"))
        }).into()
    };
    trailing_data => |good| {
        let mut attacks = spelled(good, |text| format!("{text}{{}}"));
        attacks.extend(spelled(good, |text| format!("{text}\0")));
        attacks.push(body(good, "a manifest", |text| format!("{text}{{}}")));
        attacks
    };
    json_of_depth_100_000 => |good| {
        let mut attacks: Vec<Attack> =
            spelled(good, |text| format!("{}{text}", "[".repeat(60_000)));
        attacks.extend(spelled(good, |text| text.replacen("\"signed\":{", &format!("\"signed\":{{\"A\":{}", "[".repeat(60_000)), 1)));
        attacks.push(body(good, "a manifest", |_| "[".repeat(100_000)));
        attacks.push(body(good, "a member of a manifest", |text| text.replacen('{', &format!("{{\"a\":{}", "[".repeat(100_000)), 1)));
        attacks
    };
    /// The size of a metadata file is not signed, so its header alone must end it.
    metadata_of_one_gib => |good| {
        FILES.map(|(file, _)| {
            let at = good.header_of(file);
            let name = good.parts().names().into_iter().find(|name| name.ends_with(file)).expect("a file");
            let header = archive::header(&name, 1 << 30).expect("a header");
            let bytes = [&good.bytes[..at], &header, &good.bytes[at + BLOCK..]].concat();
            good.attack(file, bytes, Expect::Says("TooLarge", "1073741824 is more than"))
        }).into()
    };
    digest_that_is_a_path => |good| digests(good, "sha256:../../x", "../../etc/passwd");
    digest_in_upper_case => |good| {
        let upper = Digest::of(b"web").hex().to_uppercase();
        digests(good, &format!("sha256:{upper}"), &format!("blobs/sha256/{upper}"))
    };
    digest_that_is_short => |good| digests(good, "sha256:abcd", "blobs/sha256/abcd");
    digest_by_md5 => |good| digests(good, "md5:d41d8cd98f00b204e9800998ecf8427e", "blobs/md5/d41d8cd98f00b204e9800998ecf8427e");
    /// CVE-2021-41190
    manifest_that_is_image_and_index => |good| {
        let mut both = Layout::new();
        let other = both.image("images/a", |_| {});
        both.image("images/both", |image| image["manifests"] = json!([other]));
        let mut schema_1 = Layout::new();
        schema_1.image("images/both", |image| image["fsLayers"] = json!([]));
        vec![
            both.attack(good, "layers and manifests", Expect::Says("Manifest", "`manifests`")),
            schema_1.attack(good, "schema 1, too", Expect::Says("Manifest", "schema 1")),
        ]
    };
    descriptor_of_another_media_type_than_the_body => |good| {
        let mut body = Layout::new();
        body.image("images/a", |image| image["mediaType"] = json!(oci::INDEX));
        let mut called = Layout::new();
        called.image("images/a", |_| {});
        called.items[1].1 = oci::INDEX;
        let mut docker = Layout::new();
        docker.image("images/a", |image| drop(image.as_object_mut().expect("an object").remove("mediaType")));
        docker.items[1].1 = oci::DOCKER_MANIFEST;
        vec![
            body.attack(good, "the body says index", Expect::Says("Manifest", "calls itself")),
            called.attack(good, "the descriptor says index", Expect::Says("Manifest", "calls itself")),
            docker.attack(good, "Docker's without its own", Expect::Says("Manifest", "no mediaType")),
        ]
    };
    signed_media_type_that_is_another => |good| {
        let mut parts = good.parts();
        good.sample.resigned(&mut parts, |targets| {
            let layer = targets.targets.values_mut().find(|t| t.custom["mediaType"] == oci::LAYER_TAR).expect("a layer");
            layer.custom.insert("mediaType".to_owned(), "x/y".into());
        });
        vec![good.attack("of a layer", parts.join(), Expect::Says("Contents", "the items call it"))]
    };
    /// A cycle needs two digests that contain each other, so it can only be claimed: the ring is never closed.
    index_cycle => |good| {
        let mut layout = Layout::new();
        let image = layout.image("images/a", |_| {});
        let inner = layout.index(&[image]);
        let outer = layout.index(&[inner]);
        // The inner one as it would have to be to name the outer one.
        let closed = index_of(std::slice::from_ref(&outer));
        let ring = index_of(&[Descriptor::of(oci::INDEX, &closed)]);
        layout.items.push(("images/ring".to_owned(), oci::INDEX, ring));
        vec![layout.attack(good, "a ring", Expect::Says("Manifest", "it is not in the bundle"))]
    };
    index_depth => |good| {
        [(4, true), (5, false), (60, false)].into_iter().map(|(depth, fine)| {
            let mut layout = Layout::new();
            let mut top = layout.image("images/a", |_| {});
            for _ in 0..depth {
                top = layout.index(&[top]);
            }
            let body = layout.documents.pop().expect("the top").1;
            layout.items.push(("images/deep".to_owned(), oci::INDEX, body));
            let expect = if fine { Expect::Accepted } else { Expect::Says("Manifest", "nested deeper than 4") };
            layout.attack(good, format!("{depth} indexes"), expect)
        }).chain([{
            // The second way to the same index is longer, and it was seen on the first.
            let mut layout = Layout::new();
            let mut short = layout.image("images/a", |_| {});
            for _ in 0..3 {
                short = layout.index(&[short]);
            }
            let long = layout.index(std::slice::from_ref(&short));
            let top = layout.index(&[short, long]);
            let body = layout.documents.pop().expect("the top").1;
            assert_eq!(Digest::of(&body), top.digest);
            layout.items.push(("images/deep".to_owned(), oci::INDEX, body));
            layout.attack(good, "by a second way", Expect::Says("Manifest", "nested deeper than 4"))
        }]).collect()
    };
    index_with_a_million_children => |good| {
        let mut layout = Layout::new();
        let child = layout.image("images/a", |_| {});
        let small = index_of(&vec![child.clone(); 20_000]);
        assert!(small.len() < 4 << 20);
        let mut same = Layout::new();
        same.image("images/a", |_| {});
        same.items.push(("images/many".to_owned(), oci::INDEX, small));
        layout.items.push(("images/many".to_owned(), oci::INDEX, index_of(&vec![child; 30_000])));
        let mut others = Layout::new();
        let children: Vec<Descriptor> = (0..20_000_u32).map(|n| Descriptor::of(oci::MANIFEST, &n.to_be_bytes())).collect();
        others.items.push(("images/many".to_owned(), oci::INDEX, index_of(&children)));
        vec![
            same.attack(good, "20,000 times the same", Expect::Accepted),
            layout.attack(good, "more than 4 MiB of them", Expect::Says("TooLarge", "is more than 4194304")),
            others.attack(good, "20,000 that are nowhere", Expect::Says("Manifest", "it is not in the bundle")),
        ]
    };
    /// Nobody may put a key into a root that others could forge signatures of.
    weak_or_unexpected_key_types => |good| {
        let public = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAK8=\n-----END PUBLIC KEY-----";
        [
            ("RSA", json!({"keytype": "rsa", "keyval": {"public": public}, "scheme": "rsassa-pss-sha256"})),
            ("ECDSA P-384", json!({"keytype": "ecdsa", "keyval": {"public": "04"}, "scheme": "ecdsa-sha2-nistp384"})),
            ("unknown", json!({"keytype": "secp256k1", "keyval": {"public": "04"}, "scheme": "x"})),
        ].into_iter().map(|(kind, more)| {
            let bytes = resigned(good, "1.root.json", &[&key(&good.sample, "root")], |signed| {
                let id = Digest::of(canonical(&more)).hex();
                signed["keys"][&id] = more.clone();
            });
            good.attack(kind, bytes, Expect::Says("Metadata", ""))
        }).collect()
    };
    key_under_another_id => |good| {
        let bytes = resigned(good, "1.root.json", &[&key(&good.sample, "root")], |signed| {
            let keys = signed["keys"].as_object_mut().expect("keys");
            let first = keys.values().next().expect("a key").clone();
            keys.insert("00".repeat(32), first);
        });
        vec![good.attack("zeros", bytes, Expect::Says("Metadata", ""))]
    };
    threshold_out_of_reach => |good| {
        [0, 2].into_iter().map(|threshold| {
            let bytes = resigned(good, "1.root.json", &[&key(&good.sample, "root")], |signed| {
                signed["roles"]["targets"]["threshold"] = json!(threshold);
            });
            good.attack(format!("{threshold} of 1"), bytes, Expect::Says("Metadata", ""))
        }).collect()
    };
    delegations => |good| {
        let bytes = resigned(good, "targets.json", &[&key(&good.sample, "targets")], |signed| {
            signed["delegations"] = json!({"keys": {}, "roles": []});
        });
        vec![good.attack("to nobody", bytes, Expect::Says("Metadata", "delegates"))]
    };
    members_that_a_bundle_has_not => |good| {
        let of = |what: &str, change: &dyn Fn(&mut Value)| {
            let bytes = resigned(good, "targets.json", &[&key(&good.sample, "targets")], |signed| change(signed));
            good.attack(what, bytes, Expect::Says("Contents", ""))
        };
        let layout = |signed: &mut Value, change: &dyn Fn(&mut Value)| change(&mut signed["targets"]["oci-layout"]);
        vec![
            of("in signed", &|signed| signed["more"] = json!(1)),
            of("in the label", &|signed| signed["gapscan"]["more"] = json!(1)),
            of("in a target", &|signed| layout(signed, &|t| t["more"] = json!(1))),
            of("in custom", &|signed| layout(signed, &|t| t["custom"]["more"] = json!(1))),
            of("in hashes", &|signed| layout(signed, &|t| t["hashes"]["sha512"] = json!("00"))),
            of("a name that is a path", &|signed| signed["gapscan"]["bundle"] = json!("../x")),
            of("no layout", &|signed| drop(signed["targets"].as_object_mut().expect("targets").remove("oci-layout"))),
            of("no index", &|signed| drop(signed["targets"].as_object_mut().expect("targets").remove("index.json"))),
            of("in a base that there is not", &|signed| {
                let targets = signed["targets"].as_object_mut().expect("targets");
                let layer = targets.values_mut().find(|t| t["custom"]["mediaType"] == oci::LAYER_TAR).expect("a layer");
                layer["custom"]["base"] = json!("images/web");
            }),
        ]
    };
    versions_that_differ => |good| {
        let mut parts = good.parts();
        let other = Parts::of(&block(good.sample.bytes(2)));
        *parts.at("timestamp.json") = other.clone().at("timestamp.json").clone();
        let at = good.header_of("snapshot.json") as u64;
        let mut attacks = vec![good.attack("the timestamp of version 2", parts.join(), Expect::At("Header", at))];
        attacks.extend(FILES[1..].iter().map(|(file, role)| {
            let bytes = resigned(good, file, &[&key(&good.sample, role)], |signed| signed["version"] = json!(2));
            good.attack(*file, bytes, Expect::Says("Metadata", "one version"))
        }));
        attacks
    };
    meta_that_names_more => |good| {
        let more = |file, role| resigned(good, file, &[&key(&good.sample, role)], |signed| {
            signed["meta"]["role1.json"] = json!({"version": 1});
        });
        let longer = |file, role, of: &str| resigned(good, file, &[&key(&good.sample, role)], |signed| {
            signed["meta"][of]["length"] = json!(1 << 20);
        });
        let refused = Expect::Says("Metadata", "more than the version");
        vec![
            good.attack("timestamp", more("timestamp.json", "timestamp"), refused),
            good.attack("snapshot", more("snapshot.json", "snapshot"), refused),
            good.attack("timestamp with a length", longer("timestamp.json", "timestamp", "snapshot.json"), refused),
            good.attack("snapshot with a length", longer("snapshot.json", "snapshot", "targets.json"), refused),
        ]
    };
    layout_that_is_another => |good| {
        let mut parts = good.parts();
        let other = br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec();
        good.sample.resigned(&mut parts, |targets| {
            let name = tough::TargetName::new("oci-layout").expect("a name");
            let of = targets.targets.get_mut(&name).expect("the layout");
            *of = target(&other, oci::LAYOUT_HEADER);
        });
        *parts.at("oci-layout") = other;
        vec![good.attack("version 2", parts.join(), Expect::Says("Layout", "1.0.0"))]
    };
    manifest_used_as_a_layer => |good| {
        let mut layout = Layout::new();
        let one = layout.image("images/a", |_| {});
        layout.image("images/b", |image| image["layers"].as_array_mut().expect("layers").push(json!(one)));
        let mut hidden = Layout::new();
        let mut one = hidden.image("images/a", |_| {});
        one.media_type = oci::LAYER_TAR.to_owned();
        hidden.image("images/b", |image| image["layers"].as_array_mut().expect("layers").push(json!(one)));
        vec![
            layout.attack(good, "by its own media type", Expect::Says("Manifest", "as a layer")),
            hidden.attack(good, "by a layer's", Expect::Says("Manifest", "as a manifest and as a blob")),
        ]
    };
    index_json_that_lies => |good| {
        let with = |what: &str, expect: Expect, change: fn(&mut Value)| {
            let mut layout = Layout::new();
            layout.image("images/a", |_| {});
            layout.change_index = Some(change);
            layout.attack(good, what, expect)
        };
        vec![
            with("a repository that is a path", Expect::Says("Layout", "can't be a repository"), |index| {
                index["manifests"][1]["annotations"][oci::REF_NAME] = json!("../a");
            }),
            with("no repository", Expect::Says("Layout", "is in no repository"), |index| {
                index["manifests"][1]["annotations"] = json!({});
            }),
            with("two items in one repository", Expect::Says("Layout", "two items"), |index| {
                let again = index["manifests"][1].clone();
                index["manifests"].as_array_mut().expect("manifests").push(again);
            }),
            with("a member that it has not", Expect::Says("Layout", "unknown field"), |index| {
                index["subject"] = index["manifests"][1].clone();
            }),
            with("schema 1", Expect::Says("Layout", "no OCI image index"), |index| index["schemaVersion"] = json!(1)),
            with("an item left out", Expect::Says("Contents", "no item needs it"), |index| {
                index["manifests"].as_array_mut().expect("manifests").retain(|d| d["annotations"][oci::REF_NAME] != "images/a");
            }),
        ]
    };
    /// Where a load puts things must not be for the signer of one bundle to choose.
    repository_outside_the_sections => |good| {
        ["web", "images", "other/web", "catalog/web", "images/a/b", "scanners/a", "Images/a", "images/", ""].into_iter().map(|name| {
            let mut layout = Layout::new();
            layout.image(name, |_| {});
            layout.attack(good, name, Expect::Says("Layout", "can't be a repository"))
        }).collect()
    };
    /// Each by a tag about the other; neither is about anything that is loaded.
    companions_about_each_other_alone => |good| {
        let mut layout = Layout::new();
        let index = layout.index_json(good);
        let one = layout.image("images/one", |_| {});
        let two = layout.image("images/two", |_| {});
        layout.documents.extend(layout.items.drain(1..).map(|(_, media_type, body)| (media_type, body)));
        let about = |what: &Descriptor, of: &Descriptor| {
            let mut descriptor = json!(what);
            let tag = format!("sha256-{}.sig", of.digest.hex());
            descriptor["annotations"] = json!({oci::COMPANION_OF: "images/gapscan", oci::COMPANION_TAG: tag});
            descriptor
        };
        let with = |first: &Descriptor, second: &Descriptor| {
            let mut list = vec![about(&one, first), about(&two, second)];
            list.sort_by_key(|descriptor| descriptor["digest"].to_string());
            let mut index = index.clone();
            index["manifests"].as_array_mut().expect("manifests").extend(list);
            index
        };
        let item: Descriptor = serde_json::from_value(index["manifests"][1].clone()).expect("a descriptor");
        let (alone, one_of_them, good_ones) = (with(&two, &one), with(&two, &two), with(&item, &one));
        [
            ("each other", alone, Expect::Says("Manifest", "is about nothing in")),
            ("itself, and one about that", one_of_them, Expect::Says("Manifest", "is about nothing in")),
            ("the item, and one about that", good_ones, Expect::Accepted),
        ].into_iter().map(|(what, index, expect)| {
            layout.whole_index = Some(index);
            layout.attack(good, what, expect)
        }).collect()
    };
    /// One time, one text: whoever compares texts must come to what others come to that compare times.
    created_in_another_spelling => |good| {
        ["2026-01-01T00:00:00.000Z", "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00+00:00", "2026-01-01t00:00:00z",
         "2026-01-01 00:00:00Z", "2026-01-01T00:00:00.5Z", "2026-01-01", ""].into_iter().map(|text| {
            let mut parts = good.parts();
            good.sample.resigned(&mut parts, |targets| {
                targets._extra.get_mut("gapscan").expect("the label")["created"] = json!(text);
            });
            good.attack(format!("`{text}`"), parts.join(), Expect::Says("Contents", ""))
        }).collect()
    };
    catalog_that_lies => |good| {
        let with = |what: &str, change: fn(&mut Value)| {
            let mut layout = Layout::new();
            layout.image("images/a", |_| {});
            layout.change_catalog = Some(change);
            layout.attack(good, what, Expect::Says("Catalog", ""))
        };
        vec![
            with("another name", |catalog| catalog["name"] = json!("other")),
            with("another version", |catalog| catalog["version"] = json!(2)),
            with("another time", |catalog| catalog["created"] = json!("2026-01-01T00:00:01Z")),
            with("its time in another spelling", |catalog| catalog["created"] = json!("2026-01-01T00:00:00.0Z")),
            with("an item less", |catalog| drop(catalog["images"].as_array_mut().expect("images").pop())),
            with("an item that is not there", |catalog| {
                let mut more = catalog["images"][1].clone();
                (more["name"], more["repository"]) = (json!("b"), json!("images/b"));
                catalog["images"].as_array_mut().expect("images").push(more);
            }),
            with("another digest", |catalog| catalog["images"][1]["digest"] = json!(Digest::of(b"other"))),
            with("another size", |catalog| catalog["images"][1]["size"] = json!(1)),
            with("another media type", |catalog| catalog["images"][1]["mediaType"] = json!(oci::INDEX)),
        ]
    };
    no_catalog => |good| {
        let mut layout = Layout::new();
        layout.catalog = false;
        vec![layout.attack(good, "no catalog", Expect::Says("Catalog", "there is none"))]
    };
    /// What all the lies above are told with is good without them.
    the_truth => |good| {
        let mut layout = Layout::new();
        let one = layout.image("images/a", |_| {});
        let inner = layout.index(&[one]);
        layout.items.push(("images/many".to_owned(), oci::INDEX, index_of(&[inner])));
        let mut parts = good.parts();
        good.sample.resigned(&mut parts, |_| {});
        let mut attacks: Vec<Attack> = FILES.iter().map(|(file, role)| {
            good.attack(*file, resigned(good, file, &[&key(&good.sample, role)], |_| {}), Expect::Accepted)
        }).collect();
        attacks.push(layout.attack(good, "a layout", Expect::Accepted));
        attacks.push(good.attack("signed anew", parts.join(), Expect::Accepted));
        attacks.push(good.attack("the bundle itself", good.bytes.clone(), Expect::Accepted));
        assert_eq!(parts.join(), good.bytes, "signatures are deterministic");
        attacks
    };
    version_beyond_53_bits => |good| {
        let mut parts = good.parts();
        good.sample.resigned(&mut parts, |targets| {
            targets.version = std::num::NonZeroU64::new(MAX_VERSION + 1).expect("more than none");
        });
        vec![good.attack("2^53", parts.join(), Expect::Says("Metadata", "is higher than"))]
    };
}

/// A target of this content.
pub(crate) fn target(bytes: &[u8], media_type: &str) -> Target {
    Target {
        length: bytes.len() as u64,
        hashes: Hashes { sha256: Digest::of(bytes).bytes().to_vec().into(), _extra: HashMap::new() },
        custom: HashMap::from([("mediaType".to_owned(), media_type.into())]),
        _extra: HashMap::new(),
    }
}

/// The key of a role, as it lies on the signer's disk.
pub(crate) fn key(sample: &Sample, role: &str) -> RoleKey {
    let path = sample.folder.path().join(format!("keys/{role}-1.pem"));
    RoleKey::read(&path, &mut || unreachable!("it is not encrypted")).expect("a key")
}

/// The canonical JSON (OLPC) that is signed: as short as can be, sorted, and nothing but `"` and `\` escaped.
pub(crate) fn canonical(value: &Value) -> Vec<u8> {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| *name);
            let members: Vec<Vec<u8>> = sorted
                .into_iter()
                .map(|(name, value)| [canonical(&json!(name)), canonical(value)].join(&b':'))
                .collect();
            [&b"{"[..], &members.join(&b','), b"}"].concat()
        }
        Value::Array(items) => [&b"["[..], &items.iter().map(canonical).collect::<Vec<_>>().join(&b','), b"]"].concat(),
        Value::String(text) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")).into_bytes(),
        other => other.to_string().into_bytes(),
    }
}

/// What stands under `signatures` for this key.
pub(crate) fn signature(key: &RoleKey, signed: &Value) -> Value {
    let digits: String = key.sign(&canonical(signed)).iter().map(|b| format!("{b:02x}")).collect();
    json!({"keyid": key.id_hex(), "sig": digits})
}

/// A metadata file signed by these.
pub(crate) fn sign(keys: &[&RoleKey], signed: &Value) -> Vec<u8> {
    let mut signatures: Vec<Value> = keys.iter().map(|key| signature(key, signed)).collect();
    signatures.sort_by_key(|s| s["keyid"].to_string());
    serde_json::to_vec(&json!({"signatures": signatures, "signed": signed})).expect("JSON")
}

/// The good bundle after `change` to a metadata file, which is signed anew by these keys.
fn resigned(good: &Good, file: &str, keys: &[&RoleKey], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut parts = good.parts();
    let mut whole: Value = serde_json::from_slice(parts.at(file)).expect("JSON");
    change(&mut whole["signed"]);
    *parts.at(file) = sign(keys, &whole["signed"]);
    parts.join()
}

/// The good bundle after `change` to a metadata file, in the one form, and signed by nobody.
fn changed(good: &Good, file: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut parts = good.parts();
    let mut whole: Value = serde_json::from_slice(parts.at(file)).expect("JSON");
    change(&mut whole);
    *parts.at(file) = serde_json::to_vec(&whole).expect("JSON");
    parts.join()
}

/// The good bundle with another text as a metadata file.
fn text(good: &Good, file: &str, change: impl FnOnce(&str) -> String) -> Vec<u8> {
    let mut parts = good.parts();
    let text = String::from_utf8(parts.at(file).clone()).expect("JSON is text");
    *parts.at(file) = change(&text).into_bytes();
    parts.join()
}

/// Every metadata file in another spelling, whose signatures are as good as before.
fn spelled(good: &Good, change: impl Fn(&str) -> String) -> Vec<Attack> {
    FILES.map(|(file, _)| good.attack(file, text(good, file, &change), Expect::Says("Metadata", ""))).into()
}

/// A manifest in another spelling, signed as it is.
fn body(good: &Good, what: &str, change: impl FnOnce(&str) -> String) -> Attack {
    let mut layout = Layout::new();
    layout.image("images/a", |_| {});
    let text = String::from_utf8(layout.items[1].2.clone()).expect("JSON is text");
    layout.items[1].2 = change(&text).into_bytes();
    layout.attack(good, what, Expect::Says("Manifest", ""))
}

/// This digest in a manifest and in index.json, and this name in the list of what is signed.
fn digests(good: &Good, digest: &str, name: &str) -> Vec<Attack> {
    let mut manifest = Layout::new();
    manifest.image("images/a", |image| image["layers"][0]["digest"] = json!(digest));
    let mut index = Layout::new();
    index.image("images/a", |_| {});
    index.digest = Some(digest.to_owned());
    let mut parts = good.parts();
    good.sample.resigned(&mut parts, |targets| {
        targets.add_target(tough::TargetName::new(name).expect("a name"), target(b"web", "x/y"));
    });
    vec![
        manifest.attack(good, "in a manifest", Expect::Says("Manifest", "")),
        index.attack(good, "in index.json", Expect::Says("Layout", "")),
        good.attack("as a name in targets", parts.join(), Expect::Says("Contents", "not named by its digest")),
    ]
}

fn twice(_: &Good) -> Vec<Attack> {
    let mut plan = RootPlan::default();
    for role in ["root", "timestamp", "snapshot", "targets"] {
        plan.keys.insert(role.to_owned(), 2);
        plan.threshold.insert(role.to_owned(), 2);
    }
    let sample = Sample::with_plan(plan);
    let good = Good { bytes: block(sample.bytes(1)), sample };
    let mut attacks = vec![good.attack("two keys", good.bytes.clone(), Expect::Accepted)];
    for (file, _) in FILES {
        let of = |what: &str, expect: Expect, change: &dyn Fn(&mut Vec<Value>)| {
            let bytes = changed(&good, file, |whole| change(whole["signatures"].as_array_mut().expect("signatures")));
            good.attack(format!("{file}: {what}"), bytes, expect)
        };
        let (order, fits) = (Expect::Says("Metadata", "each once"), Expect::Says("Signature", "does not fit"));
        attacks.push(of("the same signature twice", order, &|list| list[1] = list[0].clone()));
        attacks.push(of("in another order", order, &|list| list.swap(0, 1)));
        attacks.push(of("one of two", Expect::Says("Threshold", "1 valid signature"), &|list| list.truncate(1)));
        attacks.push(of("one key's signature under the other's id", fits, &|list| {
            list[1]["sig"] = list[0]["sig"].clone()
        }));
    }
    attacks
}

fn index_of(children: &[Descriptor]) -> Vec<u8> {
    serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": children})).expect("JSON")
}

/// The content of a bundle that is signed as it is, whatever it is: what a signer may be made to sign.
pub(crate) struct Layout {
    /// Repository, media type and body.
    items: Vec<(String, &'static str, Vec<u8>)>,
    /// Documents that only others name.
    documents: Vec<(&'static str, Vec<u8>)>,
    catalog: bool,
    digest: Option<String>,
    change_index: Option<fn(&mut Value)>,
    /// Instead of the one that follows from the items.
    pub(crate) whole_index: Option<Value>,
    change_catalog: Option<fn(&mut Value)>,
}

impl Layout {
    /// With the image that every bundle has.
    pub(crate) fn new() -> Self {
        let mut layout = Self {
            items: Vec::new(),
            documents: Vec::new(),
            catalog: true,
            digest: None,
            change_index: None,
            whole_index: None,
            change_catalog: None,
        };
        layout.image("images/gapscan", |_| {});
        layout
    }

    fn config() -> Vec<u8> {
        b"{}".to_vec()
    }

    fn content() -> Vec<u8> {
        b"a layer".to_vec()
    }

    /// Adds an image after `change` to its manifest.
    pub(crate) fn image(&mut self, repository: &str, change: impl FnOnce(&mut Value)) -> Descriptor {
        let mut image = json!({
            "schemaVersion": 2, "mediaType": oci::MANIFEST, "annotations": {"for": repository},
            "config": Descriptor::of(oci::CONFIG, &Self::config()),
            "layers": [Descriptor::of(oci::LAYER_TAR, &Self::content())],
        });
        change(&mut image);
        let body = serde_json::to_vec(&image).expect("JSON");
        let descriptor = Descriptor::of(oci::MANIFEST, &body);
        self.items.push((repository.to_owned(), oci::MANIFEST, body));
        descriptor
    }

    /// Adds an index that is no item.
    fn index(&mut self, children: &[Descriptor]) -> Descriptor {
        let body = index_of(children);
        let descriptor = Descriptor::of(oci::INDEX, &body);
        self.documents.push((oci::INDEX, body));
        descriptor
    }

    /// The index that follows from the items.
    pub(crate) fn index_json(&self, good: &Good) -> Value {
        let mut parts = Parts::of(&self.bytes(good));
        serde_json::from_slice(parts.at("index.json")).expect("JSON")
    }

    pub(crate) fn bytes(&self, good: &Good) -> Vec<u8> {
        let listed = |(repository, media_type, body): &(String, &'static str, Vec<u8>)| {
            json!({
                "name": repository.rsplit('/').next(), "repository": repository, "source": "made for a test",
                "mediaType": media_type, "digest": Digest::of(body), "size": body.len(),
            })
        };
        let mut catalog = json!({
            "name": NAME, "version": 1, "created": good.sample.created, "scanners": [], "profiles": [], "dependencies": [],
            "images": self.items.iter().map(listed).collect::<Vec<_>>(),
        });
        if let Some(change) = self.change_catalog {
            change(&mut catalog);
        }
        let catalog = serde_json::to_vec(&catalog).expect("JSON");
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": oci::MANIFEST, "artifactType": CATALOG_MEDIA_TYPE,
            "config": Descriptor::of(oci::CONFIG, &Self::config()),
            "layers": [Descriptor::of(CATALOG_MEDIA_TYPE, &catalog)],
        }))
        .expect("JSON");
        let mut items = self.items.clone();
        let mut blobs = vec![(oci::CONFIG, Self::config()), (oci::LAYER_TAR, Self::content())];
        if self.catalog {
            items.push(("catalog".to_owned(), oci::MANIFEST, manifest));
            blobs.push((CATALOG_MEDIA_TYPE, catalog));
        }
        items.sort();
        let mut manifests: Vec<Value> = items
            .iter()
            .map(|(repository, media_type, body)| {
                let mut descriptor = json!(Descriptor::of(media_type, body));
                descriptor["annotations"] = json!({oci::REF_NAME: repository});
                descriptor
            })
            .collect();
        if let Some(digest) = &self.digest {
            manifests[1]["digest"] = json!(digest);
        }
        let mut index = json!({"schemaVersion": 2, "mediaType": oci::INDEX, "manifests": manifests});
        if let Some(change) = self.change_index {
            change(&mut index);
        }
        if let Some(whole) = &self.whole_index {
            index = whole.clone();
        }
        blobs.extend(items.into_iter().map(|(_, media_type, body)| (media_type, body)));
        blobs.extend(self.documents.clone());
        blobs.sort();
        blobs.dedup();
        block(good.sample.relisted(index, &blobs))
    }

    fn attack(&self, good: &Good, what: impl Into<String>, expect: Expect) -> Attack {
        good.attack(what, self.bytes(good), expect)
    }
}

/// Signatures are looked at when no more than the metadata was read.
#[test]
fn a_bad_signature_is_refused_before_anything_but_metadata_is_read() {
    let good = good();
    let end = good.header_of("oci-layout");
    for (file, _) in FILES {
        let bytes = changed(good, file, |whole| {
            let sig = whole["signatures"][0]["sig"].as_str().expect("digits").to_owned();
            let last = if sig.ends_with('0') { "1" } else { "0" };
            whole["signatures"][0]["sig"] = json!(format!("{}{last}", &sig[..sig.len() - 1]));
        });
        let mut source = Counted { bytes: &bytes, read: 0 };
        let (limits, nothing) = (Limits::default(), Remembered::nothing());
        let opened = BundleReader::open(&mut source, &good.sample.root, &nothing, &limits, good.sample.now);
        let error = block(opened).err().expect("the signature is not good");
        assert!(matches!(error, BundleError::Trust(TrustError::Signature { .. })), "{file}: {error}");
        // One digit was replaced by one digit, so all entries are where they were.
        assert_eq!((bytes.len(), source.read), (good.bytes.len(), end), "{file}");
    }
}

/// Counts what is taken from it.
struct Counted<'a> {
    bytes: &'a [u8],
    read: usize,
}

impl AsyncRead for &mut Counted<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let rest = &self.bytes[self.read..];
        let count = rest.len().min(buffer.remaining());
        buffer.put_slice(&rest[..count]);
        self.read += count;
        Poll::Ready(Ok(()))
    }
}
