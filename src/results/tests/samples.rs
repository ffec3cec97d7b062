//! One small result of each format. Each has every way in which something can end in that format, names elsewhere and ratings
//! where the format knows them, and escapes, markup and formulas in what comes from a target.

use super::*;

/// Each format with its sample.
pub(super) const SAMPLES: [(ResultFormat, &str); 12] = [
    (ResultFormat::Arf, include_str!("../../../tests/data/results/arf.xml")),
    (ResultFormat::Grype, include_str!("../../../tests/data/results/grype.json")),
    (ResultFormat::Inspec, include_str!("../../../tests/data/results/inspec.json")),
    (ResultFormat::KubeBench, include_str!("../../../tests/data/results/kube-bench.json")),
    (ResultFormat::Sarif, include_str!("../../../tests/data/results/sarif.json")),
    (ResultFormat::Trivy, include_str!("../../../tests/data/results/trivy.json")),
    (ResultFormat::CycloneDx, include_str!("../../../tests/data/results/cyclonedx.json")),
    (ResultFormat::Junit, include_str!("../../../tests/data/results/junit.xml")),
    (ResultFormat::Syft, include_str!("../../../tests/data/results/syft.json")),
    (ResultFormat::Spdx, include_str!("../../../tests/data/results/spdx.json")),
    (ResultFormat::Falco, include_str!("../../../tests/data/results/falco.jsonl")),
    (ResultFormat::Clair, include_str!("../../../tests/data/results/clair.json")),
];

/// The sample of this format.
pub(super) fn sample(format: ResultFormat) -> &'static str {
    SAMPLES.iter().find(|(known, _)| *known == format).expect("each format has one").1
}

#[test]
fn every_format_has_a_sample_that_shows_its_format() {
    for format in ResultFormat::ALL {
        let text = sample(*format);
        assert_eq!(detect::detect(text.as_bytes()).expect(text), *format);
        summary(*format, text).unwrap_or_else(|error| panic!("{}: {error}", format.name()));
    }
}

/// What is known elsewhere about a finding or control is carried, in every format that has it.
#[test]
fn names_elsewhere_and_ratings_are_carried() {
    for (format, names, ratings) in [
        (ResultFormat::Arf, &["stig DEB-12-000010", "cci CCI-000366", "cce CCE-80000-1"][..], &[][..]),
        (
            ResultFormat::Grype,
            &["cve CVE-2026-1", "ghsa GHSA-aaaa-bbbb-cccc", "cwe CWE-787", "purl pkg:deb/debian/a@1.2"],
            &["cvss 9.8 CVSS:3.1/AV:N nvd@nist.gov", "epss 0.01262 2026-01-02 ", "kev - 2026-01-03 "],
        ),
        (
            ResultFormat::Inspec,
            &[
                "nist CM-6 b",
                "cci CCI-000366",
                "stig DEB-12-000010",
                "cis 5.1",
                "srg SRG-OS-000001",
                "url https://a.example",
            ],
            &[],
        ),
        (ResultFormat::KubeBench, &["cis 4.1.1"], &[]),
        (ResultFormat::Sarif, &["cve CVE-2026-1", "cwe cwe-79", "nist AC-6"], &["cvss 9.8  "]),
        (
            ResultFormat::Trivy,
            &[
                "cve CVE-2026-1",
                "advisory DSA-1-1",
                "cwe CWE-787",
                "purl pkg:deb/debian/openssl@3.0",
                "avd AVD-DS-0002",
                "spdx-licence AGPL",
            ],
            &["cvss 9.8 CVSS:3.1/AV:N nvd", "cvss 5  redhat"],
        ),
        (
            ResultFormat::CycloneDx,
            &["cve CVE-2026-1", "ghsa GHSA-aaaa-bbbb-cccc", "cwe CWE-79", "purl pkg:npm/b@2"],
            &["cvss 9.8 CVSS:3.1/AV:N nvd"],
        ),
        (ResultFormat::Junit, &["cve CVE-2026-1"], &[]),
        (ResultFormat::Falco, &["mitre-attack T1059", "nist AC-6"], &[]),
        (ResultFormat::Clair, &["cve CVE-2026-1", "cve CVE-2026-2"], &[]),
    ] {
        let read = summary(format, sample(format)).expect("a result");
        let of_controls = read.control_list.iter().flat_map(|control| &control.references);
        let of_findings = read.finding_list.iter().flat_map(|finding| &finding.references);
        let known: Vec<String> = of_controls.chain(of_findings).map(|r| format!("{} {}", r.scheme, r.id)).collect();
        for name in names {
            assert!(known.iter().any(|known| known == name), "{}: {name} is not in {known:?}", format.name());
        }
        let said = read.finding_list.iter().flat_map(|finding| &finding.ratings).map(|rating| {
            let score = rating.score.map_or("-".to_owned(), |score| score.to_string());
            format!("{} {score} {} {}", rating.scheme, rating.vector, rating.source)
        });
        let said: Vec<String> = said.collect();
        for rating in ratings {
            assert!(said.iter().any(|said| said == rating), "{}: {rating} is not in {said:?}", format.name());
        }
    }
}
