//! Holds the layers of ARCHITECTURE.md: an import may point down only, and siblings do not know each other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the bottom up; modules on one line are siblings.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["model"],
    &["trust"],
    &["bundle", "registry", "cluster", "results", "native", "ledger", "report"],
    &["stage"],
    &["cli"],
];

fn ranks() -> BTreeMap<&'static str, usize> {
    LAYERS.iter().enumerate().flat_map(|(rank, names)| names.iter().map(move |name| (*name, rank))).collect()
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src can be listed") {
        let path = entry.expect("src can be listed").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// Every module that this source names by `crate::NAME`, also in a group: `crate::{a, b::c}`.
fn named_modules(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let code: Vec<&str> = source.lines().map(|l| l.split("//").next().unwrap_or("")).collect();
    for (number, line) in code.iter().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            let rest = &line[at + "crate::".len()..];
            if let Some(group) = rest.strip_prefix('{') {
                // A group may go on over the next lines; its depth-one names are what matters.
                let text =
                    std::iter::once(group).chain(code[number + 1..].iter().copied()).collect::<Vec<_>>().join("\n");
                let mut depth = 0;
                let mut name = String::new();
                let mut fresh = true;
                for c in text.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            if !name.is_empty() {
                                found.push((number + 1, std::mem::take(&mut name)));
                            }
                            fresh = true;
                        }
                        c if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') => name.push(c),
                        _ if !name.is_empty() => {
                            found.push((number + 1, std::mem::take(&mut name)));
                            fresh = false;
                        }
                        _ => {}
                    }
                }
                if !name.is_empty() {
                    found.push((number + 1, name));
                }
            } else {
                found.push((number + 1, rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()));
            }
        }
    }
    found
}

#[test]
fn imports_point_down_only() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let ranks = ranks();
    let mut files = Vec::new();
    rust_files(&src, &mut files);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in files {
        let relative = path.strip_prefix(&src).expect("it is below src");
        let Some(own) = relative.components().next().and_then(|c| c.as_os_str().to_str()) else { continue };
        if own == "main.rs" || own == "lib.rs" {
            continue;
        }
        let Some(rank) = ranks.get(own) else {
            wrong.push(format!("{}: `{own}` is in no layer", relative.display()));
            continue;
        };
        let source = fs::read_to_string(&path).expect("a source file can be read");
        for (line, module) in named_modules(&source) {
            let Some(other) = ranks.get(module.as_str()) else { continue };
            seen += 1;
            if other > rank || (other == rank && module != own) {
                wrong.push(format!("{}:{line}: {own} may not know {module}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(seen > 20, "the scan of imports found only {seen}: it does not look at what it should");
}

#[test]
fn an_import_is_found_however_it_is_written() {
    let source = "use crate::base::x;\nuse crate::{model::a::{B, C}, trust,\n  stage::load};\nlet y = crate::cli::z(); // crate::report\n";
    let names: Vec<String> = named_modules(source).into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["base", "model", "trust", "stage", "cli"]);
}
