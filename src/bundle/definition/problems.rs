//! What can't be in a definition, all of it told at once.

use super::{BundleDocument, From, Platforms};
use crate::base::text::brief;
use crate::bundle::name::is_name;
use crate::bundle::notice;
use crate::model::catalog::GAPSCAN_IMAGE;
use crate::trust::metadata::MAX_VERSION;

impl BundleDocument {
    /// One line for each problem.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = self.problems_of_the_whole();
        problems.extend(self.problems_of_names());
        problems.extend(notice::problems(&self.notices()));
        problems.extend(self.problems_of_sources());
        for dependency in &self.dependencies {
            if !dependency.on_old.is_refuse() && dependency.max_age.is_none() {
                problems.push(format!("dependency `{}` has onOld and no maxAge", brief(&dependency.name)));
            }
        }
        let licences = self.upstream().flat_map(|item| item.licences);
        let licences = licences.chain(self.profiles.iter().flat_map(|profile| &profile.licences));
        problems.extend(
            licences
                .filter(|licence| !is_licence(licence))
                .map(|licence| format!("`{}` is no SPDX licence expression, as Apache-2.0", brief(licence))),
        );
        problems
    }

    fn problems_of_the_whole(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !is_name(&self.name) {
            problems
                .push(format!("name `{}` must be lower-case letters, digits and single hyphens", brief(&self.name)));
        }
        if self.version == 0 || self.version > MAX_VERSION {
            problems.push(format!("version {} must be 1 to {MAX_VERSION}", self.version));
        }
        let own = self.upstream().filter_map(|item| item.platforms);
        if std::iter::once(&self.platforms).chain(own).any(|p| *p == Platforms::Chosen(Vec::new())) {
            problems.push("platforms is empty".to_owned());
        }
        if let Some(wanted) = &self.requires.gapscan
            && let Err(error) = semver::VersionReq::parse(wanted)
        {
            let wanted = brief(wanted);
            problems.push(format!("requires.gapscan `{wanted}` names no versions: {error}; write it as `>=0.1, <0.3`"));
        }
        if self.classification.as_ref().is_some_and(|c| c.is_empty() || c.len() > 128 || c.contains(char::is_control)) {
            problems.push("classification must be one line of at most 128 bytes".to_owned());
        }
        problems
    }

    fn problems_of_names(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let names: Vec<&str> = self.upstream().map(|item| item.name).collect();
        for (at, name) in names.iter().enumerate() {
            if !is_name(name) || *name == GAPSCAN_IMAGE {
                problems.push(format!("`{}` can't be the name of an item", brief(name)));
            }
            if names[..at].contains(name) {
                problems.push(format!("two items have the name `{}`", brief(name)));
            }
        }
        problems
    }

    fn problems_of_sources(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let on_disk = |from: &From| matches!(from, From::File(_) | From::Folder(_));
        for image in self.images.iter().filter(|image| on_disk(&image.from)) {
            problems.push(format!("image `{}` must come from a registry or an image layout", brief(&image.name)));
        }
        for chart in self.charts.iter().filter(|chart| matches!(chart.from, From::Folder(_))) {
            problems.push(format!(
                "chart `{}` must come from a registry, an image layout or an archive; pack a folder with `helm package`",
                brief(&chart.name)
            ));
        }
        for item in self.upstream().filter(|item| item.verify.is_some() && on_disk(item.from)) {
            problems.push(format!("`{}` comes from a file, for which no signature is looked up", brief(item.name)));
        }
        problems
    }
}

/// Whether this has the letters of an SPDX licence expression (SPDX 2.3, annex D). Which licences there are is not known here.
pub(in crate::bundle) fn is_licence(text: &str) -> bool {
    !text.trim().is_empty()
        && text.len() <= 256
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.+:() ".contains(&b))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::document;

    #[test]
    fn all_problems_are_told_at_once() {
        let text = "apiVersion: gapscan/v1\nkind: Bundle\nname: A\nversion: 0\nplatforms: []\nimages:\n\
                    - {name: gapscan, from: 'dir:x'}\n- {name: b, from: 'oci:x'}\n- {name: b, from: 'oci:x'}\n";
        let document: BundleDocument = document::parse(Path::new("b.yaml"), text).expect("it parses");
        assert_eq!(document.problems().len(), 6, "{:?}", document.problems());
    }
}
