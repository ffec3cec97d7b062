//! What holds for every format and for any bytes.

use proptest::prelude::*;

use super::merge::tests::profile;
use super::*;
use crate::model::coverage::Coverage;
use crate::model::outcome::Status;

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
