//! A large result goes from a pod into the ledger without ever being whole in memory. One test, alone in its process: what it
//! measures is the memory of that process.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use gapscan::base::limits::Limits;
use gapscan::base::spool::{Content, Spooled};
use gapscan::cluster::agent::parcel::Receiver;
use gapscan::cluster::agent::protocol::{RESULT, STATUS, STDERR, STDOUT};
use gapscan::ledger::Ledger;
use gapscan::model::control::{Control, Severity};
use gapscan::model::evidence::Evidence;
use gapscan::model::outcome::Outcome;
use gapscan::model::profile::Profile;
use gapscan::model::provenance::{Approach, Engine, Provenance};
use gapscan::model::record::{CheckedTask, ExpectedTask, RunEnd, RunId, RunStart, Trigger};
use gapscan::model::scanner::ResultFormat;
use gapscan::model::target::Target;
use gapscan::results;
use jiff::Timestamp;

/// Bytes of the result. `GAPSCAN_TEST_RESULT_MIB` makes it larger, to measure with.
const RESULT_MIB: usize = 48;

/// Bytes that all of this may take, whatever the result's length is.
const MEMORY_MIB: usize = 40;

#[test]
fn a_large_result_is_never_whole_in_memory() {
    let mib = std::env::var("GAPSCAN_TEST_RESULT_MIB").map_or(RESULT_MIB, |mib| mib.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("arf.xml");
    write_result(&file, mib << 20);
    let length = fs::metadata(&file).expect("it is there").len();
    let limit = (length + 1).to_string();
    let spool = folder.path().join("spool");
    let kept = ["--result", &file.display().to_string(), "--spool", &spool.display().to_string(), "--limit", &limit]
        .map(str::to_owned);
    let ran = Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .args(["agent", "run"])
        .args(&kept)
        .args(["--deadline", "60", "--hold", "0", "--", "true"])
        .status();
    assert!(ran.expect("gapscan runs").success());

    let before = peak_mib();
    let spooled = receive(&kept, length, folder.path());
    assert_eq!(spooled.length(), length);
    println!("{length} bytes arrived: {} MiB at the most", peak_mib());
    let profile = profile();
    let parsed = results::parse(ResultFormat::Arf, &spooled, &profile, &Limits::default()).expect("a result");
    assert_eq!(parsed.findings[0].outcome, Outcome::Failed);
    println!("parsed: {} MiB at the most", peak_mib());
    record(&folder.path().join("ledger"), profile, parsed.findings, spooled);
    println!("recorded and verified: {} MiB at the most", peak_mib());
    let taken = peak_mib() - before;
    assert!(taken < MEMORY_MIB, "{taken} MiB were needed for a result of {mib} MiB");
}

/// What the runner does with what the agent sends.
fn receive(kept: &[String], limit: u64, folder: &Path) -> Spooled {
    let mut agent = Command::new(env!("CARGO_BIN_EXE_gapscan"))
        .args(["agent", "collect"])
        .args(kept)
        .stdout(Stdio::piped())
        .spawn()
        .expect("gapscan runs");
    let mut receiver =
        Receiver::new(&[(STATUS, 1 << 20), (RESULT, limit), (STDOUT, 1 << 20), (STDERR, 1 << 20)], folder);
    let mut out = agent.stdout.take().expect("it is piped");
    let mut buffer = vec![0; 64 << 10];
    loop {
        match out.read(&mut buffer).expect("it is read") {
            0 => break,
            n => receiver.take(&buffer[..n]),
        }
    }
    assert!(agent.wait().expect("it ends").success());
    receiver.finish().and_then(|mut parts| parts.take(RESULT)).expect("it is whole")
}

/// One rule that failed, and much that nobody asked for and nothing makes smaller.
fn write_result(path: &Path, length: usize) {
    let mut out = BufWriter::new(File::create(path).expect("it is made"));
    out.write_all(b"<TestResult xmlns=\"http://checklists.nist.gov/xccdf/1.2\" end-time=\"t\">")
        .expect("it is written");
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut line = vec![0; 32 << 10];
    let mut written = 0;
    while written < length {
        for byte in &mut line {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *byte = b'0' + (random % 64) as u8;
            // The two that XML gives a meaning to.
            if matches!(*byte, b'<' | b'>') {
                *byte = b'x';
            }
        }
        out.write_all(b"<remark>").and_then(|()| out.write_all(&line)).expect("it is written");
        out.write_all(b"</remark>\n").expect("it is written");
        written += line.len();
    }
    out.write_all(b"<rule-result idref=\"a\"><result>fail</result></rule-result></TestResult>").expect("it is written");
    out.flush().expect("it is written");
}

fn record(path: &Path, profile: Profile, findings: Vec<gapscan::model::finding::Finding>, result: Spooled) {
    let (now, run) = (Timestamp::now(), RunId::new());
    let target = Target::Node { name: "n".to_owned(), uid: None };
    let expected = ExpectedTask {
        target: target.clone(),
        engine: "openscap".to_owned(),
        profile: profile.reference(),
        incarnation: None,
        workload: None,
    };
    let start = RunStart {
        run,
        trigger: Trigger::Manual,
        started: now,
        requested: vec!["node/n".to_owned()],
        classification: None,
        bundle: None,
        expected: vec![expected],
    };
    let provenance = Provenance {
        gapscan: "0".to_owned(),
        engine: Engine { name: "openscap".to_owned(), version: String::new(), image: None },
        bundle: None,
        content: Vec::new(),
        approach: Approach::ImageVolume,
        imported: None,
        identity: None,
        network: None,
        cleanup: None,
        started: now,
        finished: now,
    };
    let evidence = vec![Evidence::new("result", "application/xml", result)];
    let task = CheckedTask::new(run, target, profile.clone(), provenance, findings, evidence, Vec::new());
    let mut ledger = Ledger::open(path, now).expect("a ledger");
    ledger.begin_run(&start, &[profile]).expect("it begins");
    ledger.record(&task.expect("all is accounted for")).expect("it is recorded");
    ledger.end_run(run, RunEnd::Completed, now).expect("it ends");
    let report = ledger.reader().verify().expect("it is read");
    assert!(report.is_intact() && report.evidence == 1, "{report:?}");
}

fn profile() -> Profile {
    let control = Control {
        id: "a".to_owned(),
        title: "A".to_owned(),
        description: String::new(),
        check: String::new(),
        fix: String::new(),
        severity: Severity::High,
        references: Vec::new(),
    };
    Profile {
        name: "sample".to_owned(),
        version: "1".to_owned(),
        title: "Sample".to_owned(),
        summary: String::new(),
        controls: vec![control],
    }
}

/// The most memory that this process held so far (proc_pid_status(5), `VmHWM`).
fn peak_mib() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux has it");
    line.trim().trim_end_matches(" kB").trim().parse::<usize>().expect("a number") / 1024
}
