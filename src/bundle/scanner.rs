//! What a `kind: Scanner` document must hold besides its fields: what it names has a place in a pod, and leads nowhere else.

use std::path::Path;

use super::name::is_name;
use crate::base::document::{self, DocumentError};
use crate::base::text::brief;
use crate::model::scanner::{BUILTIN, ExitMeaning, NOT_DONE, Offered, ScannerDocument, VersionQuestion, egress};

/// Folders of a scanner's pod that are gapscan's own, with what is below them.
const TAKEN: [&str; 7] = ["/access", "/agent", "/archive", "/inputs", "/results", "/tmp", "/upload"];

/// Paths that are looked for in a target, each in each of its files.
const PATTERNS: usize = 100;

/// Reads a scanner's definition; `path` is only for messages.
///
/// # Errors
/// With all that is wrong with it, each with its place.
pub fn read(path: &Path, text: &str) -> Result<ScannerDocument, DocumentError> {
    document::parse_checked(path, text, problems)
}

/// Everything that is wrong with a scanner's definition, each with the field that it is about.
pub fn problems(scanner: &ScannerDocument) -> Vec<String> {
    let mut problems = Vec::new();
    if !is_name(&scanner.name) || scanner.name == BUILTIN {
        problems.push(format!(
            "name: `{}` must be lower-case letters, digits and single hyphens, and not `{BUILTIN}`",
            brief(&scanner.name)
        ));
    }
    if !is_name(&scanner.image) {
        problems.push(format!("image: `{}` can't be the name of an image of the bundle", brief(&scanner.image)));
    }
    let path = &scanner.result.path;
    if !is_below(path) {
        problems.push(format!(
            "result.path: `{}` must be a path below /results, as arf.xml, without `..`, or stdout",
            brief(path)
        ));
    }
    if scanner.exit_codes.is_empty() {
        problems.push("exitCodes: none is there, so that no scan could ever be whole".to_owned());
    } else if scanner.exit_codes.values().all(|meaning| *meaning == ExitMeaning::Failed) {
        problems.push("exitCodes: each means failure, so that no scan could ever be whole".to_owned());
    }
    problems.extend(scanner.version.iter().flat_map(VersionQuestion::problems));
    if scanner.user.is_some_and(|user| user.uid == 0) {
        problems.push(
            "user.uid: 0 is root, which the restricted Pod Security Standard refuses; on a node it is root anyway, and may \
             only read"
                .to_owned(),
        );
    }
    for (at, spot) in scanner.blind_spots.iter().enumerate() {
        if spot.controls.is_empty() {
            problems.push(format!("blindSpots[{at}].controls: none is there, so that nothing is blind"));
        }
    }
    for (at, left_out) in scanner.leaves_out.iter().enumerate() {
        if left_out.paths.is_empty() {
            problems.push(format!("leavesOut[{at}].paths: none is there, so that nothing is left out"));
        }
        for pattern in left_out.paths.iter().filter(|pattern| !is_pattern(pattern)) {
            let pattern = brief(pattern);
            problems.push(format!("leavesOut[{at}].paths: `{pattern}` must begin with / or *, as */node_modules/*"));
        }
    }
    let patterns: usize = scanner.leaves_out.iter().map(|left_out| left_out.paths.len()).sum();
    if patterns > PATTERNS {
        problems.push(format!("leavesOut: there are {patterns} paths, and at most {PATTERNS} are looked for"));
    }
    for (at, folder) in scanner.writable.iter().enumerate() {
        if !is_quantity(&folder.size) {
            let size = brief(&folder.size);
            problems.push(format!("writable[{at}].size: `{size}` is no Kubernetes quantity, as 512Mi or 1"));
        }
    }
    if scanner.deadline.duration().is_zero() {
        problems.push("deadline: it must be longer than nothing".to_owned());
    }
    for (field, quantity) in [("memory", &scanner.memory), ("cpu", &scanner.cpu)] {
        if !is_quantity(quantity) {
            problems.push(format!("{field}: `{}` is no Kubernetes quantity, as 512Mi or 1", brief(quantity)));
        }
    }
    // Each approach is a pod of its own, so that what one of them mounts is nothing to another.
    let approaches = scanner.approaches.offered();
    if approaches.is_empty() {
        problems.push("approaches: none is there, so that it could scan nothing".to_owned());
    }
    problems.extend(approaches.iter().flat_map(Offered::problems));
    problems.extend(scanner.approaches.problems());
    problems.extend(egress::problems(scanner));
    if approaches.iter().any(|offered| offered.in_target.is_some()) {
        if scanner.exit_codes.contains_key(&NOT_DONE) {
            problems.push(format!("exitCodes: {NOT_DONE} is gapscan's own where a command runs in the target"));
        }
        if approaches.iter().any(|offered| offered.in_target.is_some_and(|known| known.oldest.is_some()))
            && scanner.version.is_none()
        {
            problems
                .push("approaches.exec.oldest: nothing says how it is asked for its version (`version`)".to_owned());
        }
    }
    if scanner.approaches.cluster.as_ref().is_some_and(|cluster| cluster.resources.is_empty()) {
        problems.push("approaches.cluster.resources: none is there, so that it could list nothing".to_owned());
    }
    // What every approach with volumes mounts.
    let mut dependencies: Vec<(String, &str)> = Vec::new();
    for dependency in &scanner.dependencies {
        if !is_name(&dependency.name) {
            let name = brief(&dependency.name);
            problems.push(format!("dependencies: `{name}` can't be the name of a dependency of the bundle"));
        }
        dependencies.push((format!("dependencies.{}.mount", brief(&dependency.name)), &dependency.mount));
    }
    dependencies.extend(scanner.profile_mount.iter().map(|mount| ("profileMount".to_owned(), mount.as_str())));
    let writable = scanner.writable.iter().enumerate();
    dependencies.extend(writable.map(|(at, folder)| (format!("writable[{at}].path"), folder.path.as_str())));
    let mut found = mount_problems(&dependencies);
    for Offered { field, mount, .. } in approaches {
        let own = mount.map(|mount| (format!("approaches.{field}.mount"), mount));
        let mut mounts: Vec<_> = own.into_iter().collect();
        mounts.extend(dependencies.iter().cloned());
        found.extend(mount_problems(&mounts));
    }
    // Where dependencies are wrong among themselves, each approach would say so again.
    let mut told = std::collections::HashSet::new();
    found.retain(|problem| told.insert(problem.clone()));
    problems.extend(found);
    problems
}

/// What is wrong with the folders that are mounted in one pod, each with its field.
fn mount_problems(mounts: &[(String, &str)]) -> Vec<String> {
    let mut problems = Vec::new();
    for (at, (field, mount)) in mounts.iter().enumerate() {
        let shown = brief(mount);
        if !mount.strip_prefix('/').is_some_and(is_below) {
            problems.push(format!("{field}: `{shown}` must be an absolute path without `..`, and not /"));
        } else if let Some(taken) = TAKEN.iter().find(|taken| overlap(taken, mount)) {
            problems.push(format!("{field}: `{shown}` has to do with {taken}, which is gapscan's own"));
        } else if let Some((other, _)) = mounts[..at].iter().find(|(_, other)| overlap(other, mount)) {
            problems.push(format!("{field}: `{shown}` is mounted on what {other} mounts"));
        }
    }
    problems
}

/// Whether paths in a target may fit it.
fn is_pattern(pattern: &str) -> bool {
    pattern.starts_with(['/', '*']) && pattern.len() <= 4096 && !pattern.contains(char::is_control)
}

/// Whether a relative path has only plain parts.
fn is_below(path: &str) -> bool {
    !path.contains(char::is_control) && path.split('/').all(|part| !matches!(part, "" | "." | ".." | ".gapscan"))
}

/// Whether one of two folders is the other, or is in it.
fn overlap(one: &str, other: &str) -> bool {
    let below = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below(one, other) || below(other, one)
}

/// Whether this is a plain Kubernetes quantity (apimachinery, `resource.Quantity`), more than nothing, without an exponent.
fn is_quantity(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[number.len()..];
    number.starts_with(|c: char| c.is_ascii_digit())
        && number.parse::<f64>().is_ok_and(|value| value > 0.0)
        && matches!(suffix, "" | "m" | "k" | "M" | "G" | "T" | "Ki" | "Mi" | "Gi" | "Ti")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> String {
        include_str!("../../bundle/scanners/grype.yaml").to_owned()
    }

    fn problems_of(text: &str) -> Vec<String> {
        problems(&document::parse(Path::new("scanner.yaml"), text).expect("it parses"))
    }

    fn told(text: &str) -> Vec<String> {
        match read(Path::new("scanner.yaml"), text) {
            Ok(_) => Vec::new(),
            Err(DocumentError::Problems { problems, .. }) => problems,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_with_its_place() {
        let text = shipped()
            .replace("title: Grype", "titel: Grype")
            .replace("- dir:/target", "- dir:${target.root}")
            .replace("format: grype", "format: gripe")
            .replace("deadline: 15m", "deadline: soon");
        let found = told(&text);
        let line = |wanted: &str| text.lines().position(|line| line.contains(wanted)).expect("it is there") + 1;
        let begin = |wanted: &str, column: usize| format!("line {}, column {column}: ", line(wanted));
        for (at, what) in [
            (begin("titel:", 1), "titel: there is no such field"),
            (begin("apiVersion:", 1), "title: it is missing"),
            (begin("format: gripe", 11), "result.format: `gripe` is none of arf, "),
            (begin("deadline:", 11), "deadline: `soon` does not have the form"),
        ] {
            assert!(found.iter().any(|one| one.starts_with(&format!("{at}{what}"))), "{at}{what}: {found:#?}");
        }
        assert_eq!(found.len(), 4, "{found:#?}");
        // A field that nobody knows does not hide what is wrong beside it.
        let text = shipped().replace("cpu:", "cpus: 2\ncpu:").replace("- dir:/target", "- dir:${target.root}");
        let found = told(&text);
        assert!(found[0].contains("approaches.image.command[1]: `${target.root}` means nothing"), "{found:#?}");
        assert!(found[1].contains("cpus: there is no such field; there are "), "{found:#?}");
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn what_is_left_out_is_named_by_paths_that_can_be_there() {
        let many = vec!["/z"; 100].join(", ");
        let more = format!(
            "leavesOut:\n  - {{paths: [], why: nothing}}\n  - {{paths: [node_modules, '*/x', /y], why: some}}\n  - {{paths: [{many}], why: all}}\n"
        );
        let found = problems_of(&shipped().replace("leavesOut:\n", &more));
        assert_eq!(found.len(), 3, "{found:#?}");
        assert!(found[0].starts_with("leavesOut[0].paths: none") && found[1].contains("`node_modules`"), "{found:#?}");
        assert!(found[2].contains("paths, and at most 100 are looked for"), "{found:#?}");
    }

    #[test]
    fn whom_it_talks_to_is_named_explained_and_talked_to() {
        let with = |egress: &str, argument: &str| {
            let text = shipped().replace("leavesOut:\n", &format!("egress: {egress}\nleavesOut:\n"));
            problems_of(&text.replace("- dir:/target", &format!("- 'dir:/target{argument}'")))
        };
        assert_eq!(with("[{name: feed, why: it has advisories}]", "${egress.feed}"), [""; 0]);
        for (egress, argument, wanted) in [
            (
                "[{name: feed, why: it has advisories}]",
                "",
                "egress[0]: no command and no environment says `${egress.feed}`",
            ),
            ("[]", "${egress.feed}", "approaches.image: `${egress.feed}` is of nobody"),
            ("[{name: feed, why: ' '}]", "${egress.feed}", "egress[0].why: it is empty"),
            (
                "[{name: feed, why: a}, {name: feed, why: b}]",
                "${egress.feed}",
                "egress[1].name: `feed` is there already",
            ),
        ] {
            let found = with(egress, argument);
            assert!(matches!(&found[..], [one] if one.starts_with(wanted)), "{wanted}: {found:#?}");
        }
        assert!(with("[{name: Feed, why: a}]", "${egress.Feed}")[0].starts_with("egress[0].name: `Feed` must be"));
        // What has its target's network has no way out of its own.
        let beside = shipped()
            .replace("leavesOut:\n", "egress: [{name: feed, why: a}]\nleavesOut:\n")
            .replace("approaches:\n", "approaches:\n  debug:\n    command: [grype, '${egress.feed}']\n");
        let found = problems_of(&beside);
        assert!(
            found.iter().any(|one| one.starts_with("approaches.debug: `${egress.feed}` means nothing here")),
            "{found:#?}"
        );
    }

    #[test]
    fn what_ships_has_no_problem() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundle/scanners");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).expect("definitions ship") {
            let path = entry.expect("an entry").path();
            let text = std::fs::read_to_string(&path).expect("it is read");
            let scanner = read(&path, &text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(path.file_stem().and_then(|name| name.to_str()), Some(scanner.name.as_str()));
            // A result's place is named once more in the command, in whichever words the scanner has for it.
            for offered in scanner.approaches.offered().iter().filter(|_| scanner.result.path != "stdout") {
                let place = if offered.in_target.is_some() { "${target.result}" } else { &scanner.result.path };
                assert!(offered.command.iter().any(|word| word.contains(place)), "{}", path.display());
            }
            names.push(scanner.name);
        }
        names.sort();
        let wanted = [
            "cinc-auditor",
            "clair",
            "falco",
            "generic",
            "grype",
            "kingfisher",
            "kube-bench",
            "openscap",
            "openscap-tailored",
            "syft",
            "trivy",
        ];
        assert_eq!(names, wanted);
    }

    #[test]
    fn each_problem_names_its_field() {
        for (was, is, field) in [
            ("name: grype\ntitle", "name: builtin\ntitle", "name: "),
            ("image: grype\n", "image: r.example/grype:1\n", "image: "),
            ("path: grype.json", "path: ../agent/gapscan", "result.path: "),
            ("path: grype.json", "path: /etc/passwd", "result.path: "),
            ("path: grype.json", "path: .gapscan/result", "result.path: "),
            ("exitCodes:\n  0: complete\n  1: failed", "exitCodes: {}", "exitCodes: "),
            ("mount: /target", "mount: target", "approaches.image.mount: "),
            ("mount: /target", "mount: /", "approaches.image.mount: "),
            ("mount: /target", "mount: /agent/x", "approaches.image.mount: "),
            ("mount: /grype-db", "mount: /target/db", "dependencies.grype-db.mount: "),
            ("mount: /grype-db", "mount: /a/../target", "dependencies.grype-db.mount: "),
            ("- dir:/target", "- dir:${open", "approaches.image.command[1]: "),
            ("memory: 1Gi", "memory: 1 GB", "memory: "),
            ("cpu: \"1\"", "cpu: \"0\"", "cpu: "),
            ("deadline: 15m", "deadline: 0s", "deadline: "),
        ] {
            assert!(shipped().contains(was), "{was}");
            let found = problems_of(&shipped().replace(was, is));
            assert_eq!(found.len(), 1, "{is}: {found:?}");
            assert!(found[0].starts_with(field), "{is}: {found:?}");
        }
    }

    #[test]
    fn every_approach_is_checked_and_only_what_shares_a_pod_can_collide() {
        let openscap = include_str!("../../bundle/scanners/openscap.yaml");
        let node = |is: &str| problems_of(&openscap.replace("mount: /host", is));
        assert_eq!(node("mount: /target"), Vec::<String>::new(), "the other approach has a pod of its own");
        for bad in ["mount: host", "mount: /", "mount: /results/x"] {
            let found = node(bad);
            assert!(matches!(&found[..], [one] if one.starts_with("approaches.node.mount: ")), "{bad}: {found:?}");
        }
        let both = shipped().replace("approaches:", "approaches:\n  node: {mount: /grype-db, command: []}");
        let found = problems_of(&both);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("approaches.node.command: "), "{found:?}");
        assert!(found[1].starts_with("dependencies.grype-db.mount: "), "{found:?}");
    }

    #[test]
    fn an_archive_is_for_images_and_for_those_who_say_where_it_is_to_be() {
        let clair = include_str!("../../bundle/scanners/clair.yaml");
        assert_eq!(problems_of(clair), Vec::<String>::new());
        let archive = "    archive: {}\n";
        for (was, is, field) in [
            ("${target.archive}", "/archive/image.tar", "approaches.image.archive: "),
            ("layers: [tar, gzip]", "layers: []", "approaches.image.archive.layers: "),
            ("approaches:\n  image:", "approaches:\n  node:", "approaches.node.mount: "),
        ] {
            assert!(clair.contains(was), "{was}");
            let found = problems_of(&clair.replace(was, is));
            assert!(found[0].starts_with(field), "{is}: {found:?}");
        }
        let both = shipped().replace("    mount: /target\n", &format!("    mount: /target\n{archive}"));
        assert!(matches!(&problems_of(&both)[..], [one] if one.contains("${target.archive}")), "it is not named");
        let both = both.replace("dir:/target", "oci-archive:${target.archive}");
        assert_eq!(problems_of(&both), Vec::<String>::new(), "mounted and as an archive");
        let neither = shipped().replace("    mount: /target\n", "");
        assert!(matches!(&problems_of(&neither)[..], [one] if one.starts_with("approaches.image.mount: ")));
        let unknown = shipped().replace("dir:/target", "${target.archive}");
        assert!(matches!(&problems_of(&unknown)[..], [one] if one.contains("means nothing")), "without the field");
    }

    #[test]
    fn what_an_approach_does_not_know_is_refused_with_its_place() {
        for (approach, field) in [
            ("exec: {command: [a, '${target.root}']}", "approaches.exec.command[1]: "),
            ("debug: {command: [a], env: {K: '${target.kubeconfig}'}}", "approaches.debug.env.K: "),
            ("sidecar: {command: ['${target.rooot}']}", "approaches.sidecar.command[0]: "),
            ("cluster: {command: ['${target.pod}'], resources: [pods]}", "approaches.cluster.command[0]: "),
            ("cluster: {command: [a], resources: []}", "approaches.cluster.resources: "),
            ("exec: {command: []}", "approaches.exec.command: "),
        ] {
            let found = problems_of(&shipped().replace("approaches:", &format!("approaches:\n  {approach}")));
            assert!(matches!(&found[..], [one] if one.starts_with(field)), "{approach}: {found:?}");
        }
        let node = shipped().replace("- dir:/target", "- dir:${target.root}");
        assert!(problems_of(&node)[0].starts_with("approaches.image.command[1]: "), "files are mounted where it says");
        let known = "approaches:\n  exec: {command: ['${target.kubeconfig}${target.namespace}${target.pod}', \
                     '${target.container}']}\n  debug: {command: ['${target.root}']}\n  sidecar: {command: \
                     ['${target.root}']}\n  cluster: {command: ['${target.kubeconfig}'], resources: [pods, apps/deployments]}";
        assert_eq!(problems_of(&shipped().replace("approaches:", known)), Vec::<String>::new());
        let secret = shipped().replace("approaches:", "approaches:\n  cluster: {command: [a], resources: [secrets]}");
        let error = document::parse::<ScannerDocument>(Path::new("scanner.yaml"), &secret).expect_err("it is refused");
        assert!(error.to_string().contains("secrets"), "{error}");
        assert!(error.to_string().contains("`scanner.yaml` as Scanner: line "), "{error}");
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let text = "apiVersion: gapscan/v1\nkind: Scanner\nname: A\ntitle: t\nimage: a\napproaches: {}\n\
                    result: {path: '..', format: arf}\nexitCodes: {}\ndeadline: 1m\nmemory: 1Gi\ncpu: '1'\n";
        assert_eq!(problems_of(text).len(), 4, "{:?}", problems_of(text));
    }

    #[test]
    fn what_a_pod_can_not_be_given_is_a_problem_with_its_place() {
        let with = |lines: &str| problems_of(&shipped().replace("deadline:", &format!("{lines}\ndeadline:")));
        for (lines, field) in [
            ("user: {uid: 0, gid: 0}", "user.uid: "),
            ("profileMount: profile", "profileMount: "),
            ("profileMount: /inputs/x", "profileMount: "),
            ("profileMount: /grype-db/p", "profileMount: "),
            ("profileMount: /target", "profileMount: "),
            ("writable: [{path: /var/lib/x, size: 0}]", "writable[0].size: "),
            ("writable: [{path: /a, size: 1Mi}, {path: /a/b, size: 1Mi}]", "writable[1].path: "),
            ("writable: [{path: /tmp/x, size: 1Mi}]", "writable[0].path: "),
            ("version: {command: []}", "version.command: "),
            ("version: {command: [a], pattern: '('}", "version.pattern: "),
            ("blindSpots: [{controls: [], why: x}]", "blindSpots[0].controls: "),
        ] {
            let found = with(lines);
            assert!(found.iter().all(|one| one.contains(field.trim_end_matches(": "))), "{lines}: {found:?}");
            assert_eq!(found.len(), 1, "{lines}: {found:?}");
        }
        let fine = "user: {uid: 1000, gid: 0}\nprofileMount: /profile\nwritable: [{path: /var/lib/x, size: 64Mi}]\n\
                    version: {command: [grype, version], pattern: 'Version: +(\\S+)'}";
        assert_eq!(with(fine), [""; 0]);
        let failing = shipped().replace("0: complete", "0: failed");
        assert!(problems_of(&failing)[0].starts_with("exitCodes: each means failure"));
        let capable = shipped().replace("mount: /target", "mount: /target\n    capabilities: [SYS_PTRACE]");
        assert!(
            problems_of(&capable)[0].starts_with("approaches.image.capabilities: its pod is in a namespace of the")
        );
        let node = capable.replace("  image:\n", "  node:\n");
        assert_eq!(problems_of(&node), [""; 0], "a pod on a node can have some");
        let other = node.replace("SYS_PTRACE", "SYS_ADMIN");
        assert!(document::parse::<ScannerDocument>(Path::new("s.yaml"), &other).is_err(), "but not any");
    }

    #[test]
    fn the_standard_output_is_a_place_for_a_result() {
        assert!(problems_of(&shipped().replace("path: grype.json", "path: stdout")).is_empty());
    }
}
