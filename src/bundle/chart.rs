//! Helm charts: what an archive says that it is, and whether it has what it depends on.
//!
//! What a hostile archive may try, and where it stops: inflating without end, entries without end, a huge `Chart.yaml`,
//! archives in archives (all bounded by one allowance that nested ones share, and by a depth); names that are paths (nothing
//! is written to disk).

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use crate::base::text::brief;

/// The configuration of a chart in a registry (Helm, "Use OCI-based registries").
pub const CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
/// The layer of a chart in a registry: the archive.
pub const CONTENT: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";

/// Bytes of an archive. Helm's own bound is 20 MiB.
pub const ARCHIVE_BYTES: u64 = 64 << 20;
/// Bytes that an archive may inflate to, with those in it. Helm's own bound is 100 MiB.
const INFLATED_BYTES: u64 = 256 << 20;
/// Entries of an archive, with those in it.
const ENTRIES: u64 = 50_000;
/// Bytes of one `Chart.yaml`.
const YAML_BYTES: u64 = 1 << 20;
/// How deep charts may hold charts.
const DEPTH: usize = 8;

/// `Chart.yaml`, as far as Helm knows it, in the order in which Helm writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ChartYaml {
    /// The chart's name.
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    home: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sources: Vec<String>,
    /// The chart's version (SemVer 2).
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    keywords: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    maintainers: Vec<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icon: Option<String>,
    api_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<String>,
    /// The version of what it installs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deprecated: Option<bool>,
    /// What else it says about itself.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kube_version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dependencies: Vec<Dependency>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Dependency {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    repository: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
    #[serde(rename = "import-values", skip_serializing_if = "Vec::is_empty")]
    import_values: Vec<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alias: Option<String>,
}

/// `requirements.yaml` of charts with `apiVersion: v1`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Requirements {
    dependencies: Vec<Dependency>,
}

/// A chart's archive, looked through.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Its `Chart.yaml`.
    pub yaml: ChartYaml,
}

/// What is left of the bounds.
struct Allowance {
    bytes: u64,
    entries: u64,
}

/// Fails where the allowance ends, instead of pretending that the archive ended there.
struct Inflating<'a, R> {
    inner: R,
    left: &'a mut u64,
}

impl<R: Read> Read for Inflating<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        *self.left = self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other("it inflates too much"))?;
        Ok(count)
    }
}

impl Chart {
    /// Looks through an archive as `helm package` writes it.
    ///
    /// # Errors
    /// With the reason, when it is no chart, is over a bound, or a dependency is not vendored in it.
    pub fn read(archive: &[u8]) -> Result<Self, String> {
        let mut allowance = Allowance { bytes: INFLATED_BYTES, entries: ENTRIES };
        let yaml = look_through(archive, &mut allowance, 0)?;
        if semver::Version::parse(&yaml.version).is_err() {
            return Err(format!("its version `{}` is no SemVer", brief(&yaml.version)));
        }
        Ok(Self { yaml })
    }
}

fn look_through(archive: &[u8], allowance: &mut Allowance, depth: usize) -> Result<ChartYaml, String> {
    if depth > DEPTH {
        return Err(format!("charts are nested deeper than {DEPTH}"));
    }
    let mut folders: BTreeMap<String, (ChartYaml, Requirements)> = BTreeMap::new();
    let mut packed: Vec<(String, Vec<u8>)> = Vec::new();
    let broken = |e: io::Error| format!("its archive can't be read: {e}");
    let inflating = Inflating { inner: flate2::read::MultiGzDecoder::new(archive), left: &mut allowance.bytes };
    for entry in tar::Archive::new(inflating).entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        allowance.entries = allowance.entries.checked_sub(1).ok_or("it has too many entries")?;
        let Ok(path) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
        let path = path.trim_start_matches("./").to_owned();
        let Some((folder, name)) = path.rsplit_once('/') else { continue };
        let file = entry.header().entry_type().is_file();
        if file && is_chart_folder(folder) && matches!(name, "Chart.yaml" | "requirements.yaml") {
            let text = small(&mut entry, YAML_BYTES, &path)?;
            let text = String::from_utf8(text).map_err(|_| format!("`{}` is no UTF-8", brief(&path)))?;
            let unreadable = |e: serde_saphyr::Error| format!("`{}`: {}", brief(&path), e.without_snippet());
            let chart = folders.entry(folder.to_owned()).or_default();
            if name == "Chart.yaml" {
                chart.0 = serde_saphyr::from_str(&text).map_err(unreadable)?;
            } else {
                chart.1 = serde_saphyr::from_str(&text).map_err(unreadable)?;
            }
        } else if file && name.ends_with(".tgz") && folder.strip_suffix("/charts").is_some_and(is_chart_folder) {
            packed.push((folder.to_owned(), small(&mut entry, ARCHIVE_BYTES, &path)?));
        }
    }
    // Vendored charts by the folder that they are in.
    let mut vendored: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (folder, bytes) in packed {
        let inner = look_through(&bytes, allowance, depth + 1).map_err(|e| format!("in `{}`: {e}", brief(&folder)))?;
        vendored.entry(folder).or_default().insert(inner.name);
    }
    for (folder, (yaml, _)) in &folders {
        if let Some((parent, _)) = folder.rsplit_once('/') {
            vendored.entry(parent.to_owned()).or_default().insert(yaml.name.clone());
        }
    }
    let mut top = None;
    for (folder, (yaml, requirements)) in folders {
        let there = vendored.get(&format!("{folder}/charts"));
        let missing: Vec<String> = (yaml.dependencies.iter().chain(&requirements.dependencies))
            .filter(|wanted| !there.is_some_and(|there| there.contains(&wanted.name)))
            .map(|wanted| brief(&wanted.name))
            .collect();
        if !missing.is_empty() {
            return Err(format!(
                "chart `{}` depends on {}, which is not in its charts/; run `helm dependency update` before packing it",
                brief(&yaml.name),
                missing.join(", ")
            ));
        }
        if !folder.contains('/') {
            top = Some(yaml);
        }
    }
    let top = top.ok_or("it has no Chart.yaml")?;
    if top.name.is_empty() || top.version.is_empty() {
        return Err("its Chart.yaml has no name or no version".to_owned());
    }
    Ok(top)
}

/// Whether `Chart.yaml` in this folder is that of the chart or of one that is vendored in it: `a`, `a/charts/b`, ...
fn is_chart_folder(folder: &str) -> bool {
    let parts: Vec<&str> = folder.split('/').collect();
    parts.len() <= 1 + 2 * DEPTH
        && parts.len() % 2 == 1
        && parts.iter().skip(1).step_by(2).all(|part| *part == "charts")
}

fn small(entry: &mut impl Read, limit: u64, path: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    entry.take(limit + 1).read_to_end(&mut bytes).map_err(|e| format!("`{}`: {e}", brief(path)))?;
    if bytes.len() as u64 > limit {
        return Err(format!("`{}` has more than {limit} bytes", brief(path)));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
