//! What holds for every format and for any bytes.

mod generated;
mod hostile;
mod samples;

use proptest::prelude::*;

use super::merge::tests::profile;
use super::*;
use crate::base::digest::Digest;
use crate::base::limits::Limits;
use crate::model::coverage::Coverage;
use crate::model::outcome::{Outcome, Status};
use crate::model::profile::Profile;
use crate::model::reason::Reason;
use crate::model::scanner::ResultFormat;

/// All that a text of this format says.
pub(super) fn summary(format: ResultFormat, text: &str) -> Result<Summary, ResultsError> {
    summarise(format, text.as_bytes(), Digest::of(text), 1000, &Limits::default())
}

/// How each control ended, with its reason where it was not evaluated.
pub(super) fn verdicts(summary: &Summary) -> Vec<(&str, &'static str)> {
    let word = |outcome: &Outcome| match outcome {
        Outcome::NotEvaluated { reason, .. } => reason.code(),
        other => other.status().code(),
    };
    summary.control_list.iter().map(|control| (control.id.as_str(), word(&control.outcome))).collect()
}

/// What every format does with what is no whole result of it: refuses it, wherever it is cut, and never panics.
pub(super) fn refuses_what_is_no_result(format: ResultFormat, whole: &str) {
    summary(format, whole).expect("the whole is a result");
    assert_eq!(detect::detect(whole.as_bytes()).expect("it shows which format it is in"), format);
    let bytes = whole.trim_end().as_bytes();
    for cut in 0..bytes.len() {
        let digest = Digest::of(&bytes[..cut]);
        let error = summarise(format, &bytes[..cut], digest, 9, &Limits::default()).err();
        let error = error.unwrap_or_else(|| panic!("the first {cut} bytes count as a result"));
        assert!(
            matches!(error.reason(), Reason::NoOutput | Reason::OutputTruncated | Reason::OutputUnparsable),
            "{error}"
        );
    }
    let few = Limits { result_items: 0, ..Limits::default() };
    let error = summarise(format, whole.as_bytes(), Digest::of(whole), 9, &few).expect_err("too many");
    assert_eq!(error.reason(), Reason::OutputTooLarge);
    let short = Limits { result_bytes: 10, ..Limits::default() };
    let error = summarise(format, whole.as_bytes(), Digest::of(whole), 9, &short).expect_err("too large");
    assert_eq!(error.reason(), Reason::OutputTooLarge);
    let deep = "[".repeat(100_000);
    let others = [
        "",
        " ",
        "null",
        "1",
        "{}",
        "[]",
        "[{}]",
        "x",
        "\u{0}",
        "<a/>",
        "<a>",
        "{\"a\":{\"b\":[]}}",
        &deep,
        r#"{"SchemaVersion":3,"Results":1}"#,
        r#"{"controls":{}}"#,
        r#"{"profiles":[{}],"statistics":{}}"#,
        r#"{"runs":[{}]}"#,
    ];
    for other in others {
        assert!(summary(format, other).is_err(), "{}", crate::base::text::brief(other));
    }
    for at in (0..bytes.len()).step_by(7) {
        let mut invalid = bytes.to_vec();
        invalid[at] = 0xff;
        let read = summarise(format, &invalid, Digest::of(&invalid), 9, &Limits::default());
        // Where a quote or bracket was, what follows belongs to it to the end.
        let reason = read.expect_err("no UTF-8").reason();
        assert!(matches!(reason, Reason::OutputUnparsable | Reason::OutputTruncated), "{at}: {reason}");
    }
}

const ARF: &str = concat!(
    "<TestResult xmlns=\"http://checklists.nist.gov/xccdf/1.2\" end-time=\"t\"><rule-result idref=\"a\"><result>fail</result>",
    "</rule-result><rule-result idref=\"b\"><result>notchecked</result><message>m</message></rule-result></TestResult>"
);
const GRYPE: &str = concat!(
    r#"{"descriptor":{"name":"grype"},"distro":{"name":"debian"},"matches":[{"vulnerability":{"id":"CVE-1","#,
    r#""severity":"High"},"artifact":{"name":"openssl"}}]}"#
);

fn formats() -> impl Strategy<Value = (ResultFormat, &'static str, Profile)> {
    prop_oneof![
        Just((ResultFormat::Arf, ARF, profile(&["a", "b"]))),
        Just((ResultFormat::Grype, GRYPE, profile(&grype::CONTROLS))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes are: an error, or exactly one finding for each control.
    #[test]
    fn any_bytes_are_refused_or_accounted_for(
        (format, _, profile) in formats(),
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Ok(parsed) = parse(format, &bytes, &profile, &Limits::default()) {
            prop_assert!(Coverage::of(&profile, &parsed.findings).is_ok());
        }
    }

    /// A result with some bytes changed is refused, or still accounts for every control; and what was not mentioned at all
    /// never passes.
    #[test]
    fn a_damaged_result_never_gains_controls(
        (format, sample, profile) in formats(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample.as_bytes().to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let whole = parse(format, &bytes, &profile, &Limits::default());
        if let Ok(parsed) = &whole {
            prop_assert!(Coverage::of(&profile, &parsed.findings).is_ok());
        }
        bytes.truncate(cut.index(bytes.len()));
        if let Ok(parsed) = parse(format, &bytes, &profile, &Limits::default()) {
            let passed = parsed.findings.iter().filter(|f| f.outcome.status() == Status::Passed).count();
            prop_assert!(whole.is_ok() || passed == 0, "a part says more than the whole");
        }
    }
}
