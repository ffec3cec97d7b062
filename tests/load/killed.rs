//! Killed at any instant.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use crate::enclave::{Enclave, Served, message, success};

/// Instants that a load is killed at, spread over the whole of it.
const INSTANTS: u32 = 8;

#[test]
fn a_load_killed_at_any_instant_goes_on_when_it_is_repeated_and_had_tagged_nothing() {
    let enclave = Enclave::new(16 << 20);
    let begin = |served: &Served, state: &str| {
        let mut load = enclave.load_command_into(served, &["out.tar", "-q", "--state", state]);
        load.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    };
    // How long one takes, so that the kills are spread over all of it, whatever the machine.
    let started = Instant::now();
    assert!(begin(&enclave.served, "measured").wait().expect("it ends").success());
    let whole = started.elapsed();

    let mut killed = 0;
    for instant in 0..INSTANTS {
        let (data, state) = (enclave.path(&format!("registry-{instant}")), format!("state-{instant}"));
        let served = Served::start(&data);
        // Twice: the second is one that goes on.
        for _ in 0..2 {
            let mut load = begin(&served, &state);
            std::thread::sleep(whole * (instant * 2 + 1) / (INSTANTS * 2));
            let _ = load.kill();
            killed += u32::from(!load.wait().expect("gone").success());
            // Whenever it died: what finds the catalog finds all items, and what was tagged was remembered before.
            let tags = served.tags();
            for tag in ["content.1", "content"] {
                let all = tags.values().all(|tags| tags.iter().any(|t| t == tag));
                assert!(all || !tags["catalog"].iter().any(|t| t == tag), "{tags:?}");
            }
            let tagged = tags.values().any(|tags| !tags.is_empty());
            assert!(!tagged || remembered(&enclave, &state), "tagged before the version was remembered");
        }
        let load = |arguments: &[&str]| {
            let more = ["--state", &state];
            let mut load = enclave.load_command_into(&served, &[&["out.tar"], arguments, &more].concat());
            load.stdin(Stdio::null()).output().expect("gapscan runs")
        };
        success(&load(&["--read-back", "all"]));
        let tags = served.tags();
        assert!(tags.values().all(|tags| tags == &["content", "content.1"]), "{tags:?}");
        // Nothing is left to do.
        let again = load(&[]);
        success(&again);
        let said = message(&again);
        assert!(said.contains("pushed: 0 B") && said.contains("tags moved: 0"), "{said}");
        drop(served);
        fs::remove_dir_all(data).expect("removed");
    }
    println!("{killed} of {} were killed, over {whole:?}", INSTANTS * 2);
    // On a machine that became faster meanwhile the later instants come after the end.
    assert!(killed >= 2, "hardly any was killed before its end");
}

/// Whether some version is remembered.
fn remembered(enclave: &Enclave, state: &str) -> bool {
    let Ok(lineages) = fs::read_dir(enclave.path(state)) else { return false };
    lineages.flatten().any(|lineage| lineage.path().join("content.json").exists())
}
