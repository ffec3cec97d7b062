use std::io::Write;

use super::*;

fn pack(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, *content).expect("an entry");
    }
    archive.into_inner().expect("a tar").finish().expect("gzip")
}

fn yaml(name: &str, dependencies: &[&str]) -> Vec<u8> {
    let mut text = format!("apiVersion: v2\nname: {name}\nversion: 1.2.3+b4\nappVersion: 1.10\n");
    if !dependencies.is_empty() {
        text += "dependencies:\n";
    }
    for name in dependencies {
        text += &format!("- name: {name}\n  version: '>=1'\n  repository: https://charts.example\n");
    }
    text.into_bytes()
}

#[test]
fn a_chart_with_all_that_it_needs_is_read() {
    let inner = pack(&[("b/Chart.yaml", &yaml("b", &[]))]);
    let chart = pack(&[
        ("a/Chart.yaml", &yaml("a", &["b", "c"])),
        ("a/templates/Chart.yaml", b"{{ not a chart }}: ["),
        ("a/charts/b-1.2.3.tgz", &inner),
        ("a/charts/c/Chart.yaml", &yaml("c", &[])),
    ]);
    let chart = Chart::read(&chart).expect("a chart");
    assert_eq!((chart.yaml.name.as_str(), chart.yaml.version.as_str()), ("a", "1.2.3+b4"));
    // A number in YAML, and a text for Helm.
    assert_eq!(chart.yaml.app_version.as_deref(), Some("1.10"));
    let json = serde_json::to_value(&chart.yaml).expect("JSON");
    assert_eq!(json["dependencies"][1]["name"], "c");
}

#[test]
fn what_is_not_vendored_is_named() {
    let lacking = pack(&[("b/Chart.yaml", &yaml("b", &["deep"]))]);
    for (files, name) in [
        (
            vec![("a/Chart.yaml", yaml("a", &["b", "c"])), ("a/charts/b/Chart.yaml", yaml("b", &[]))],
            "`a` depends on c,",
        ),
        (vec![("a/Chart.yaml", yaml("a", &["b"])), ("a/charts/b-1.tgz", lacking)], "`b` depends on deep,"),
        (
            vec![("a/Chart.yaml", yaml("a", &["b"])), ("a/charts/b/Chart.yaml", yaml("b", &["deep"]))],
            "`b` depends on deep,",
        ),
        (
            vec![
                ("a/Chart.yaml", b"apiVersion: v1\nname: a\nversion: 1.0.0\n".to_vec()),
                ("a/requirements.yaml", b"dependencies:\n- {name: old, repository: x}\n".to_vec()),
            ],
            "`a` depends on old,",
        ),
    ] {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
        let error = Chart::read(&pack(&files)).expect_err(name);
        assert!(error.contains(name), "{error}");
    }
}

#[test]
fn a_hostile_archive_ends_at_its_bounds() {
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut header = tar::Header::new_gnu();
    header.set_path("a/zeros").expect("a path");
    header.set_size(1 << 40);
    header.set_cksum();
    bomb.write_all(header.as_bytes()).expect("a header");
    for _ in 0..300 {
        bomb.write_all(&[0; 1 << 20]).expect("zeros");
    }
    let bomb = bomb.finish().expect("gzip");
    let nested = |times: usize| {
        (0..times).fold(pack(&[("a/Chart.yaml", &yaml("a", &[]))]), |inner, _| {
            pack(&[("a/Chart.yaml", &yaml("a", &["a"])), ("a/charts/a.tgz", &inner)])
        })
    };
    assert!(Chart::read(&nested(3)).is_ok());
    let large = vec![b' '; 2 << 20];
    for (case, bytes, reason) in [
        ("a bomb", bomb, "inflates too much"),
        ("charts in charts", nested(20), "nested deeper"),
        ("a large file", pack(&[("a/Chart.yaml", &large)]), "more than"),
        ("no chart", pack(&[("a/x", b"")]), "no Chart.yaml"),
        ("no gzip", b"PK".to_vec(), "can't be read"),
        ("no version", pack(&[("a/Chart.yaml", b"name: a\n")]), "no version"),
        ("no SemVer", pack(&[("a/Chart.yaml", b"name: a\nversion: latest\n")]), "no SemVer"),
        ("a path", pack(&[("Chart.yaml", &yaml("a", &[]))]), "no Chart.yaml"),
    ] {
        let error = Chart::read(&bytes).expect_err(case);
        assert!(error.contains(reason), "{case}: {error}");
    }
}
