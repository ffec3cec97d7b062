//! Whether a scanner can do what a profile asks of it: found out where the bundle is built, and not in the enclave.

use std::collections::BTreeSet;

use crate::base::text::brief;
use crate::model::profile_document::ProfileDocument;
use crate::model::scanner::{EGRESS, Offered, ScannerDocument, TARGET};
use crate::model::target::TargetKind;

/// What does not fit: a kind of target that the scanner has no approach for, a parameter that it asks for and does not get, one
/// that it gets and does not ask for.
pub(super) fn problems(profile: &ProfileDocument, scanner: &ScannerDocument) -> Vec<String> {
    let mut problems = Vec::new();
    let (offered, name) = (scanner.approaches.offered(), &scanner.name);
    let mut asked: BTreeSet<&str> = BTreeSet::new();
    let mut missing: BTreeSet<(&str, &str)> = BTreeSet::new();
    for kind in &profile.targets {
        let used: Vec<&Offered<'_>> = offered.iter().filter(|approach| reaches(approach.field, *kind)).collect();
        if used.is_empty() {
            problems.push(format!("targets: scanner `{name}` has no approach for a target of kind {}", kind.word()));
        }
        for approach in used {
            let names = approach.names().into_iter();
            for parameter in names.filter(|name| !name.starts_with(TARGET) && !name.starts_with(EGRESS)) {
                asked.insert(parameter);
                if !profile.parameters.contains_key(parameter) {
                    missing.insert((parameter, approach.field));
                }
            }
        }
    }
    for (parameter, field) in missing {
        let parameter = brief(parameter);
        problems.push(format!(
            "parameters: there is no `{parameter}`, which scanner `{name}` asks for (approaches.{field})"
        ));
    }
    for parameter in profile.parameters.keys().filter(|parameter| !asked.contains(parameter.as_str())) {
        let parameter = brief(parameter);
        problems
            .push(format!("parameters: scanner `{name}` does not ask for `{parameter}` where it scans these targets"));
    }
    problems
}

/// Whether an approach of a definition is one to targets of a kind.
fn reaches(field: &str, kind: TargetKind) -> bool {
    match kind {
        TargetKind::Host => false,
        TargetKind::Container => matches!(field, "exec" | "debug" | "sidecar" | "image"),
        TargetKind::Image => field == "image",
        TargetKind::Node => field == "node",
        TargetKind::Cluster => field == "cluster",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::base::document;

    fn fitted(targets: &str, parameters: &str) -> Vec<String> {
        let scanner = "apiVersion: gapscan/v1\nkind: Scanner\nname: s\ntitle: S\nimage: s\negress: [{name: x, why: y}]\n\
            approaches:\n  image: {mount: /target, command: [s, '${level}', '${target.results}', '${egress.x}']}\n  \
            exec: {command: [s, '${level}', '${target.pod}'], env: {SHELL: '${shell}'}}\n\
            result: {path: r, format: sarif}\nexitCodes: {0: complete}\ndeadline: 1m\nmemory: 64Mi\ncpu: '1'\n";
        let scanner: ScannerDocument = document::parse(Path::new("scanner.yaml"), scanner).expect("a scanner");
        let profile = format!(
            "apiVersion: gapscan/v1\nkind: Profile\nname: p\nversion: '1'\ntitle: P\nengine: s\ntargets: {targets}\n\
             parameters: {parameters}\ncontrols: []\n"
        );
        let profile: ProfileDocument = document::parse(Path::new("profile.yaml"), &profile).expect("a profile");
        problems(&profile, &scanner)
    }

    #[test]
    fn a_profile_gives_its_scanner_what_it_asks_for_and_nothing_else() {
        assert_eq!(fitted("[image]", "{level: high}"), [""; 0]);
        assert_eq!(fitted("[image, container]", "{level: high, shell: sh}"), [""; 0]);
        for (targets, parameters, wanted) in [
            ("[image]", "{}", "there is no `level`, which scanner `s` asks for (approaches.image)"),
            ("[container]", "{level: high}", "there is no `shell`, which scanner `s` asks for (approaches.exec)"),
            ("[image]", "{level: high, shell: sh}", "scanner `s` does not ask for `shell`"),
            ("[image, node]", "{level: high}", "scanner `s` has no approach for a target of kind node"),
            ("[image, host]", "{level: high}", "scanner `s` has no approach for a target of kind host"),
        ] {
            let found = fitted(targets, parameters);
            assert!(matches!(&found[..], [one] if one.contains(wanted)), "{wanted}: {found:?}");
        }
        assert_eq!(fitted("[image]", "{levle: high}").len(), 2, "a typing error is both");
    }

    #[test]
    fn what_ships_fits() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let limits = crate::base::limits::Limits::default();
        let files = |folder: &str| -> Vec<std::path::PathBuf> {
            let entries = std::fs::read_dir(root.join(folder)).expect("it ships");
            entries.map(|entry| entry.expect("an entry").path()).collect()
        };
        let scanners: Vec<ScannerDocument> =
            files("bundle/scanners").iter().map(|path| document::load(path, &limits).expect("a scanner")).collect();
        let mut fitted = 0;
        for folder in files("profiles-mirror").iter().filter(|path| path.is_dir()) {
            let profile: ProfileDocument = document::load(&folder.join("profile.yaml"), &limits).expect("a profile");
            let Some(scanner) = scanners.iter().find(|scanner| scanner.name == profile.engine) else {
                assert_eq!(profile.engine, crate::model::scanner::BUILTIN, "{}", profile.name);
                continue;
            };
            assert_eq!(problems(&profile, scanner), [""; 0], "{}", profile.name);
            fitted += 1;
        }
        assert!(fitted >= 8, "{fitted}");
    }
}
