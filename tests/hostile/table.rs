//! `docs/hostile-cases.md` names the test of each case; this holds the names to be those of tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::reader::all;

/// The names of all tests in these sources: functions below `#[test]`, `#[tokio::test]` or a macro of cases.
fn tests(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            tests(&path, names);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let mut test = false;
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    test = true;
                } else if let Some(rest) = line.split("fn ").nth(1).filter(|_| test) {
                    names.insert(rest.split(['(', '<']).next().unwrap_or_default().to_owned());
                    test = false;
                }
            }
        }
    }
}

#[test]
fn every_case_of_the_page_has_a_test_of_that_name_and_every_test_here_is_on_the_page() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(repository.join("docs/hostile-cases.md")).expect("the page");
    let mut known = BTreeSet::new();
    tests(&repository.join("src"), &mut known);
    tests(&repository.join("tests"), &mut known);
    known.extend(all().map(|case| case.name.to_owned()));
    let mut listed = BTreeSet::new();
    for row in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| case")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 3, "{row}");
        let names: Vec<&str> = cells[1].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(known.contains(name), "no test is called {name}");
            listed.insert(name.to_owned());
        }
    }
    for case in all() {
        assert!(listed.contains(case.name), "{} is not on the page", case.name);
    }
}
