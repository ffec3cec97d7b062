//! Of which releases of operating systems advisories are published: where a scanner finds no vulnerability in one that it does
//! not know, it says so in the words in which it says that there is none.

/// Operating systems by the names that Trivy gives their families, with the releases that Trivy knew in August 2026
/// (`pkg/detector/ospkg`) and whose support had not ended long before; none where there are no releases, but one that
/// changes. One that is missing here only makes a result without a vulnerability count as not evaluated.
const RELEASES: [(&str, &[&str]); 24] = [
    ("alma", &["8", "9", "10"]),
    ("alpine", &["3.18", "3.19", "3.20", "3.21", "3.22", "3.23"]),
    ("amazon", &["2", "2023"]),
    ("azurelinux", &["3.0"]),
    ("bottlerocket", &["1"]),
    ("cbl-mariner", &["2.0"]),
    ("centos", &["7", "8"]),
    ("chainguard", &[]),
    ("debian", &["10", "11", "12", "13"]),
    ("echo", &[]),
    ("minimos", &[]),
    ("opensuse", &["15.5", "15.6", "16.0"]),
    ("opensuse-leap", &["15.5", "15.6", "16.0"]),
    ("opensuse-tumbleweed", &[]),
    ("opensuse.leap", &["15.5", "15.6", "16.0"]),
    ("opensuse.tumbleweed", &[]),
    ("oracle", &["7", "8", "9"]),
    ("photon", &["4.0", "5.0"]),
    ("redhat", &["7", "8", "9", "10"]),
    ("rocky", &["8", "9"]),
    ("slem", &["5.3", "5.4", "5.5", "6.0", "6.1"]),
    ("sles", &["12.5", "15.5", "15.6", "15.7", "16.0"]),
    ("ubuntu", &["16.04", "18.04", "20.04", "22.04", "24.04", "25.10", "26.04"]),
    ("wolfi", &[]),
];

/// Families by the `ID` of their os-release, where that is another name.
const IDS: [(&str, &str); 5] =
    [("almalinux", "alma"), ("amzn", "amazon"), ("mariner", "cbl-mariner"), ("ol", "oracle"), ("rhel", "redhat")];

/// Whether advisories are published of this release, whatever more it says of itself: `12.5`, `2 (Karoo)`, `22.04-ESM`.
pub(super) fn has_advisories(system: &str, release: &str) -> bool {
    let family = IDS.iter().find(|(id, _)| *id == system).map_or(system, |(_, family)| family);
    let is_of = |known: &&str| {
        release.strip_prefix(*known).is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
    };
    RELEASES.iter().any(|(name, known)| *name == family && (known.is_empty() || known.iter().any(is_of)))
}
