//! The help of every command that people see, kept as golden files: `cargo insta review` shows what changed.

use assert_cmd::Command;

/// What `gapscan ARGUMENTS --help` prints, without the version of this build.
fn help(arguments: &[&str]) -> String {
    let mut command = Command::cargo_bin("gapscan").expect("the binary");
    // The width is that of a terminal where there is one, and these name one.
    command.args(arguments).arg("--help").env_remove("COLUMNS").env_remove("LINES");
    // What is set is shown beside the name of a variable.
    command.env_remove("GAPSCAN_LEDGER").env_remove("GAPSCAN_CLASSIFICATION");
    let output = command.assert().code(0).get_output().clone();
    assert!(output.stderr.is_empty(), "help is data: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8").replace(env!("CARGO_PKG_VERSION"), "VERSION")
}

/// The commands that this help lists.
fn listed(help: &str) -> Vec<String> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let names = list.lines().take_while(|line| !line.is_empty());
    // A line that is further in goes on with the one before.
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

/// All commands below these arguments, these first.
fn all(arguments: &[&str]) -> Vec<Vec<String>> {
    let mut found = vec![arguments.iter().map(|a| (*a).to_owned()).collect()];
    for name in listed(&help(arguments)) {
        found.extend(all(&[arguments, &[name.as_str()]].concat()));
    }
    found
}

#[test]
fn every_help_stays_what_it_is() {
    for arguments in all(&[]) {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let name = if words.is_empty() { "gapscan".to_owned() } else { words.join("-") };
        insta::assert_snapshot!(name, help(&words));
    }
}

#[test]
fn every_help_is_in_one_style() {
    for arguments in all(&[]) {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let text = help(&words);
        let about = text.lines().next().expect("a first line");
        assert!(about.starts_with(|c: char| c.is_uppercase()) && !about.ends_with('.'), "{words:?}: {about}");
        // Every option says what it is for.
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let option = line.trim_start();
            // What is further in goes on with a help that happens to break before an option's name.
            let begins = option.starts_with('-') && line.len() - option.len() < 8;
            if begins && !option.contains("  ") {
                let next = lines.peek().copied().unwrap_or_default();
                assert!(next.starts_with("          "), "{words:?}: {line} has no help");
            }
        }
    }
}

#[test]
fn what_nobody_types_is_not_listed() {
    assert!(!help(&[]).contains("agent"));
    assert!(help(&["agent"]).starts_with("Do what gapscan does inside a pod"));
}

#[test]
fn usage_without_a_command_is_wrong_usage() {
    for arguments in [&[][..], &["bundle"], &["ledger"], &["frobnicate"]] {
        Command::cargo_bin("gapscan").expect("the binary").args(arguments).assert().code(2);
    }
}
