//! Reports for the tests of all formats: one as it may come out of a small cluster, and one full of hostile texts.

use jiff::{SignedDuration, Timestamp};

use super::contents::{LedgerRef, LedgerState, Report, ReportRun, ReportTask, Scope, Selection};
use crate::base::digest::Digest;
use crate::model::control::{Control, Reference, Severity};
use crate::model::evidence::Evidence;
use crate::model::finding::{Detail, Finding};
use crate::model::outcome::Outcome;
use crate::model::profile::Profile;
use crate::model::provenance::{Approach, BundleRef, Cleanup, ContentRef, Engine, NetworkProof, Provenance};
use crate::model::reason::Reason;
use crate::model::record::{CheckedTask, Event, ExpectedTask, RunEnd, RunId, RunStart, Trigger};
use crate::model::target::Target;

const RUN: &str = "01937b6e-5f00-7c31-8a4d-2f6f0c9be8d1";

pub(super) fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

pub(super) fn run() -> RunId {
    RUN.parse().expect("a run")
}

pub(super) fn control(id: &str, severity: Severity, title: &str, why: &str, check: &str, fix: &str) -> Control {
    Control {
        id: id.to_owned(),
        title: title.to_owned(),
        description: why.to_owned(),
        check: check.to_owned(),
        fix: fix.to_owned(),
        severity,
        references: Vec::new(),
    }
}

fn refer(mut control: Control, references: &[(&str, &str)]) -> Control {
    control.references =
        references.iter().map(|(s, i)| Reference { scheme: (*s).to_owned(), id: (*i).to_owned() }).collect();
    control
}

fn container(pod: &str, container: &str) -> Target {
    Target::Container {
        namespace: "shop".to_owned(),
        pod: pod.to_owned(),
        container: container.to_owned(),
        uid: Some("5d0b7a2e-0f5e-4f54-9f2f-5d7f36a4f5c0".to_owned()),
        image: Some("registry.enclave.example:5000/shop/web:1.4".to_owned()),
        digest: Some(Digest::of(pod)),
        node: Some("worker-2".to_owned()),
    }
}

fn provenance(engine: &str, approach: Approach, started: &str) -> Provenance {
    let started = time(started);
    let builtin = engine == "builtin";
    Provenance {
        gapscan: "0.1.0".to_owned(),
        engine: Engine {
            name: engine.to_owned(),
            version: if builtin { String::new() } else { "1.3.7".to_owned() },
            image: (!builtin).then(|| Digest::of(engine)),
        },
        bundle: Some(BundleRef {
            name: "quarterly".to_owned(),
            version: 7,
            digest: Digest::of("bundle"),
            root: Digest::of("root"),
        }),
        content: if engine == "grype" {
            vec![ContentRef {
                name: "grype-db".to_owned(),
                digest: Digest::of("db"),
                built: Some(time("2026-11-18T04:00:00Z")),
            }]
        } else {
            Vec::new()
        },
        approach,
        imported: None,
        identity: Some("system:serviceaccount:gapscan-scans:scan-2f6f0c9be8d1".to_owned()),
        network: Some(NetworkProof {
            enforced: true,
            at: started,
            detail: "egress to the API server and ingress from a peer were both cut".to_owned(),
            allowance: None,
        }),
        cleanup: Some(Cleanup {
            created: vec!["Pod/gapscan-scans/scan-a".to_owned(), "ServiceAccount/gapscan-scans/scan-a".to_owned()],
            remaining: Vec::new(),
        }),
        started,
        finished: started + SignedDuration::from_millis(2_417),
    }
}

fn profile(name: &str, title: &str, controls: Vec<Control>) -> Profile {
    Profile {
        name: name.to_owned(),
        version: "1.2.0".to_owned(),
        title: title.to_owned(),
        summary: "What every workload of the shop has to keep to.".to_owned(),
        controls,
    }
}

fn waived() -> Outcome {
    Outcome::Waived {
        waiver: Digest::of("waiver"),
        id: "RISK-2026-014".to_owned(),
        justification: "The old ledger printer needs it until it is replaced; seen by the security officer (SO-118)."
            .to_owned(),
        until: time("2027-02-28T23:59:59Z"),
    }
}

fn not_applicable(reason: &str) -> Outcome {
    Outcome::NotApplicable { reason: reason.to_owned() }
}

pub(super) fn task(
    target: Target,
    profile: Profile,
    provenance: Provenance,
    findings: Vec<Finding>,
    notes: Vec<String>,
) -> ReportTask {
    let evidence = vec![Evidence::new("facts", "application/json", b"{}".to_vec())];
    let checked = CheckedTask::new(run(), target, profile, provenance, findings, evidence, notes).expect("accounted");
    ReportTask::new(checked.record().clone(), checked.profile().clone()).expect("counted")
}

fn details(list: &[(&str, &str)]) -> Vec<Detail> {
    list.iter().map(|(s, m)| Detail::new(*s, *m)).collect()
}

fn container_controls() -> Vec<Control> {
    vec![
        refer(
            control(
                "container-no-world-writable-files",
                Severity::High,
                "No file is writable for everybody",
                "Whoever gets into the container under any user can replace such a file, and the next one who runs or reads it runs what was put there.",
                "object.specialFiles.all(f, f.type != 'file' || !f.mode.worldWritable)",
                "Take the right away in the image's build:\n\n    chmod o-w /srv/app/hooks/post-start\n\nand build the image again.",
            ),
            &[
                ("nist", "AC-6"),
                ("nist", "CM-6"),
                ("cci", "CCI-000213"),
                ("stig", "SV-257846r991589"),
                ("cis", "6.1.9"),
            ],
        ),
        refer(
            control(
                "container-no-foreign-setuid",
                Severity::Critical,
                "No setuid program besides those that the distribution ships",
                "A setuid copy of a shell gives root to whoever finds it.",
                "object.specialFiles.filter(f, f.mode.setuid).all(f, f.path in variables.known)",
                "Remove the file, or take its setuid bit away: chmod u-s FILE",
            ),
            &[("nist", "AC-6(8)"), ("url", "https://csrc.nist.gov/pubs/sp/800/190/final")],
        ),
        refer(
            control(
                "container-runs-as-non-root",
                Severity::High,
                "No process runs as root",
                "A process that runs as root is one kernel bug away from the node.",
                "object.processes.all(p, p.uid != 0)",
                "Set securityContext.runAsNonRoot: true and a runAsUser above 0.",
            ),
            &[("pss", "restricted"), ("nist", "AC-6(10)")],
        ),
        control(
            "container-no-new-privileges",
            Severity::Medium,
            "No process can gain privileges",
            "",
            "object.processes.all(p, p.noNewPrivs)",
            "Set securityContext.allowPrivilegeEscalation: false.",
        ),
        control(
            "container-seccomp",
            Severity::Medium,
            "Every process is under a seccomp filter",
            "",
            "object.processes.all(p, p.seccomp == 2)",
            "",
        ),
        control(
            "container-listens-only-expected",
            Severity::Low,
            "Nothing listens on a port that the image does not declare",
            "",
            "object.sockets.all(s, s.port in object.image.ports)",
            "",
        ),
        control(
            "container-passwords-locked",
            Severity::Medium,
            "No account has a password",
            "",
            "object.passwords.all(p, p.state != 'set')",
            "",
        ),
        control("container-known-os", Severity::None, "The distribution is known", "", "has(object.os.ID)", ""),
        control("container-inventory", Severity::None, "Packages are listed", "", "has(object.packages)", ""),
        control(
            "container-rpm-signatures",
            Severity::Low,
            "Packages are signed",
            "",
            "object.packages.all(p, p.signed)",
            "",
        ),
    ]
}

fn web() -> ReportTask {
    let many = (0..9).map(|n| Detail::new(format!("/srv/app/cache/part-{n:03}"), "mode 0666, owner 33, group 33"));
    let mut files = details(&[("/srv/app/hooks/post-start", "mode 0777, owner 0, group 0")]);
    files.extend(many);
    let findings = vec![
        Finding::new("container-no-world-writable-files", Outcome::Failed).with_details(files, 8),
        Finding::new("container-no-foreign-setuid", Outcome::Failed)
            .with_details(details(&[("/usr/local/bin/sh-copy", "mode 4755, owner 0, group 0")]), 8),
        Finding::new("container-runs-as-non-root", waived())
            .with_details(details(&[("lpd", "process 1 runs as user 0")]), 8),
        Finding::new("container-no-new-privileges", Outcome::Passed)
            .with_details(details(&[("nginx", "noNewPrivs is set for 3 of 3 processes")]), 8),
        Finding::new("container-seccomp", Outcome::Passed),
        Finding::new(
            "container-listens-only-expected",
            Outcome::not_evaluated(Reason::FactMissing, "sockets: /proc/net/tcp6 is not readable"),
        ),
        Finding::new("container-passwords-locked", Outcome::Passed),
        Finding::new("container-known-os", Outcome::Passed),
        Finding::new("container-inventory", Outcome::Failed),
        Finding::new("container-rpm-signatures", not_applicable("the target has no RPM database")),
    ];
    task(
        container("web-7d9c5b6f4-x2x8q", "web"),
        profile("container-baseline", "Container baseline", container_controls()),
        provenance("builtin", Approach::Exec, "2026-11-21T02:00:03Z"),
        findings,
        vec!["2 processes of other users could not be looked at".to_owned()],
    )
}

fn distroless() -> ReportTask {
    let profile = profile("container-baseline", "Container baseline", container_controls());
    let findings = profile
        .controls
        .iter()
        .map(|c| Finding::new(&*c.id, Outcome::not_evaluated(Reason::NoShell, "exec of /bin/sh: no such file")))
        .collect();
    let mut provenance = provenance("builtin", Approach::None, "2026-11-21T02:00:09Z");
    provenance.cleanup =
        Some(Cleanup { created: vec!["Role/shop/scan-b".to_owned()], remaining: vec!["Role/shop/scan-b".to_owned()] });
    task(container("checkout-0", "app"), profile, provenance, findings, Vec::new())
}

fn vulnerabilities() -> ReportTask {
    let controls = vec![
        refer(
            control(
                "no-critical-vulnerability",
                Severity::Critical,
                "No package has a known critical vulnerability",
                "These can be used from the network without an account.",
                "grype: severity Critical",
                "Rebuild the image on a newer base, or upgrade the packages that are named.",
            ),
            &[("nist", "RA-5"), ("nist", "SI-2")],
        ),
        control(
            "no-high-vulnerability",
            Severity::High,
            "No package has a known high vulnerability",
            "",
            "grype: severity High",
            "",
        ),
        control(
            "no-low-vulnerability",
            Severity::Low,
            "No package has a known low vulnerability",
            "",
            "grype: severity Low",
            "",
        ),
    ];
    let found = (0..340)
        .map(|n| Detail::new(format!("openssl 3.0.{n}"), format!("CVE-2026-{:04}; fixed in 3.0.{}", 1000 + n, n + 1)));
    task(
        Target::Image {
            reference: "registry.enclave.example:5000/shop/web@sha256:0f5e".to_owned(),
            digest: Some(Digest::of("image")),
        },
        profile("vulnerabilities", "Known vulnerabilities", controls),
        provenance("grype", Approach::ImageVolume, "2026-11-21T02:00:15Z"),
        vec![
            Finding::new("no-critical-vulnerability", Outcome::Failed).with_details(found, 300),
            Finding::new("no-high-vulnerability", Outcome::Passed),
            Finding::new("no-low-vulnerability", Outcome::Passed),
        ],
        Vec::new(),
    )
}

fn cluster() -> ReportTask {
    let names = [
        ("cluster-no-anonymous-binding", Severity::Critical, "No role is bound to anonymous users"),
        ("cluster-default-deny", Severity::High, "Every namespace starts from default deny"),
        ("cluster-restricted-pods", Severity::High, "Namespaces enforce the restricted Pod Security Standard"),
        ("cluster-no-host-path", Severity::High, "No workload mounts the node's files"),
        ("cluster-limits", Severity::Low, "Every container has a memory limit"),
        ("cluster-audit", Severity::Medium, "The API server writes an audit log"),
    ];
    let controls = names.iter().map(|(id, severity, title)| control(id, *severity, title, "", "", "")).collect();
    let findings = vec![
        Finding::new("cluster-no-anonymous-binding", Outcome::Passed),
        Finding::new("cluster-default-deny", Outcome::Failed)
            .with_details(details(&[("Namespace/legacy", "has no NetworkPolicy")]), 8),
        Finding::new("cluster-restricted-pods", Outcome::Passed),
        Finding::new("cluster-no-host-path", Outcome::Failed)
            .with_details(details(&[("Pod/legacy/printer", "volume `var` mounts /var of the node")]), 8),
        Finding::new("cluster-limits", Outcome::Passed),
        Finding::new(
            "cluster-audit",
            Outcome::not_evaluated(Reason::AccessDenied, "pods is forbidden in namespace kube-system"),
        ),
    ];
    task(
        Target::Cluster { name: "enclave".to_owned(), uid: Some("0d8de9a5-7a3b-4f55-8d55-1f6a3a0d9d0e".to_owned()) },
        profile("cluster-baseline", "Cluster baseline", controls),
        provenance("builtin", Approach::Objects, "2026-11-21T02:00:00Z"),
        findings,
        Vec::new(),
    )
}

/// All five outcomes, each with a control of severity `none` among the others where that matters.
pub(super) fn report() -> Report {
    let tasks = vec![cluster(), vulnerabilities(), distroless(), web()];
    Report {
        generated: time("2026-11-21T06:30:00Z"),
        gapscan: "0.1.0".to_owned(),
        title: "Shop enclave, November".to_owned(),
        classification: Some("UNCLASSIFIED".to_owned()),
        scope: Scope { selection: Selection::Latest, targets: Vec::new() },
        ledger: LedgerRef {
            name: "ledger.sqlite".to_owned(),
            id: "01937a00-0000-7000-8000-000000000001".to_owned(),
            sequence: 4711,
            head: Digest::of("head"),
            state: LedgerState::Intact,
        },
        runs: vec![ReportRun {
            start: RunStart {
                run: run(),
                trigger: Trigger::Schedule { plan: "nightly".to_owned(), due: time("2026-11-21T02:00:00Z") },
                started: time("2026-11-21T02:00:00Z"),
                requested: vec!["cluster".to_owned(), "ns/shop".to_owned()],
                classification: None,
                bundle: None,
                expected: tasks
                    .iter()
                    .map(|t| ExpectedTask {
                        target: t.record().target.clone(),
                        engine: t.record().provenance.engine.name.clone(),
                        profile: t.record().profile.clone(),
                        incarnation: None,
                        workload: None,
                    })
                    .collect(),
            },
            end: Some((RunEnd::Completed, time("2026-11-21T02:00:21Z"))),
            resumed: Vec::new(),
            unrecorded: Vec::new(),
        }],
        events: vec![Event {
            at: time("2026-11-20T05:12:44Z"),
            what: "schedule-missed".to_owned(),
            subject: "nightly".to_owned(),
            due: None,
            detail: "No runner ran at 2026-11-20 02:00 UTC.".to_owned(),
        }],
        tasks,
        earlier: Vec::new(),
    }
}

/// Texts that a target may choose to trouble whoever reads them.
pub(super) const HOSTILE: &[&str] = &[
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'-alert(1)-'",
    "</style></title></details><h1>All passed",
    "\u{1b}]0;owned\u{7}\u{1b}[2J",
    "\u{1}\u{0}\u{7f}\u{9b}31m",
    "safe\u{202e}txt.exe\u{2066}",
    "{{ 7*7 }}{% include \"/etc/passwd\" %}",
    "=cmd|'/C calc'!A0",
    "javascript:alert(1)",
    "line\u{2028}separator\r\n{\"type\":\"end\"}",
];

/// A report in which everything that others can name is hostile.
pub(super) fn hostile() -> Report {
    let long = "A".repeat(10_000);
    let evil = |n: usize| HOSTILE[n % HOSTILE.len()].to_owned();
    let all = HOSTILE.join(" ") + &long;
    let ids = ["a", "b", "c", "d", "e"];
    let controls = ids
        .iter()
        .map(|id| {
            let mut control = control(id, Severity::High, &all, &all, &all, &all);
            control.references =
                HOSTILE.iter().map(|h| Reference { scheme: (*h).to_owned(), id: (*h).to_owned() }).collect();
            control
                .references
                .extend(HOSTILE.iter().map(|h| Reference { scheme: "url".to_owned(), id: all.clone() + h }));
            control
        })
        .collect();
    let profile = Profile { name: evil(0), version: evil(1), title: all.clone(), summary: all.clone(), controls };
    let hostile_details = || HOSTILE.iter().map(|h| Detail::new(*h, all.clone()));
    let findings = vec![
        Finding::new("a", Outcome::Failed).with_details(hostile_details(), 100),
        Finding::new("b", Outcome::not_evaluated(Reason::ScannerFailed, &*all)).with_details(hostile_details(), 100),
        Finding::new(
            "c",
            Outcome::Waived {
                waiver: Digest::of("w"),
                id: all.clone(),
                justification: all.clone(),
                until: time("2026-01-01T00:00:00Z"),
            },
        ),
        Finding::new("d", Outcome::Passed).with_details(hostile_details(), 100),
        Finding::new("e", Outcome::NotApplicable { reason: all.clone() }),
    ];
    let mut provenance = provenance("builtin", Approach::Exec, "2026-11-21T02:00:03Z");
    provenance.engine.name = all.clone();
    provenance.engine.version = evil(2);
    provenance.identity = Some(all.clone());
    provenance.network =
        Some(NetworkProof { enforced: false, at: provenance.started, detail: all.clone(), allowance: None });
    provenance.cleanup = Some(Cleanup { created: vec![all.clone()], remaining: vec![all.clone()] });
    let target = Target::Image { reference: format!("../../{all}"), digest: None };
    let expected = ExpectedTask {
        target: target.clone(),
        engine: all.clone(),
        profile: profile.reference(),
        incarnation: None,
        workload: None,
    };
    let mut report = report();
    report.title = all.clone();
    report.classification = Some(all.clone());
    report.ledger.name = all.clone();
    report.ledger.state = LedgerState::NotIntact(all.clone());
    report.scope.targets = vec![all.clone()];
    report.tasks = vec![task(target, profile, provenance, findings, vec![all.clone()])];
    report.runs[0].start.trigger = Trigger::Schedule { plan: all.clone(), due: time("2026-11-21T02:00:00Z") };
    report.runs[0].start.requested = vec![all.clone()];
    report.runs[0].unrecorded = vec![expected];
    report.runs[0].end = None;
    report.events =
        vec![Event { at: report.generated, what: all.clone(), subject: all.clone(), due: None, detail: all }];
    report
}
