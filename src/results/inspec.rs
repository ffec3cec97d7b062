//! InSpec's and CINC Auditor's JSON: the reporters `json` and `json-min`.
//!
//! The meaning of a result's status here:
//!
//! | status | counts as |
//! |---|---|
//! | passed | passed |
//! | failed | failed |
//! | failed, with an exception other than several failures in one | not evaluated, `rule-error`: the check broke |
//! | skipped | not evaluated, `scanner-skipped` |
//! | any other word | not evaluated, `status-unknown` |
//!
//! The worst result of a control counts, as it does for InSpec's own summary: a control of which a part was skipped was not
//! evaluated. A control of impact 0.0 whose results all passed or were skipped is not applicable, which is how profiles say
//! it (and how the Heimdall Data Format has it); one that failed stays failed.
//!
//! A profile that includes others has their controls once more, without results; the same control of all of them is one here.
//! Its impact is that of the outermost profile that has it. A control of which none has results was not evaluated.
//!
//! A waiver of InSpec does not turn a failure into anything else: waivers are gapscan's, signed, and expire. It is noted.
//!
//! Identity of a finding: the control's id, the resource, the result's description, and which one it is of those of the
//! control that have both in common.

mod check;
mod control;
mod minimal;
mod profile;
mod report;

use std::io::Read;

pub(super) use self::control::scheme;
use self::minimal::{Listed, minimal};
use self::profile::profile;
use self::report::Report;
use super::ResultsError;
use super::event::Out;
use super::json::{Json, Kind};
use crate::base::limits::Limits;

const FORMAT: &str = "InSpec JSON";

/// Reads either of the two.
pub(crate) fn read(source: impl Read, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let mut json = Json::new(source, FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let mut report = Report::new(limits);
    let (mut profiles, mut controls, mut statistics) = (false, None, false);
    let mut version = None;
    json.object(|json, key| match key {
        "platform" => platform(json, out),
        "version" => json.scalar().map(|text| version = text),
        "statistics" => {
            statistics = true;
            json.skip()
        }
        "profiles" => {
            if json.kind()? != Kind::Array {
                return Err(json.foreign("its profiles are no list"));
            }
            profiles = true;
            json.array(|json| profile(json, &mut report, out))
        }
        "controls" => {
            if json.kind()? != Kind::Array {
                return Err(json.foreign("its controls are no list"));
            }
            controls = Some(minimal(json, &mut report, out)?);
            Ok(())
        }
        _ => json.skip(),
    })?;
    json.end()?;
    // Old versions list all results a second time, without saying of which control.
    let told = match controls {
        None | Some(Listed { named: false, nameless: true }) => profiles,
        Some(Listed { named: true, nameless: false }) => !profiles,
        Some(Listed { named: false, nameless: false }) => true,
        Some(Listed { named: true, nameless: true }) => false,
    };
    if !statistics || !told {
        return Err(json.foreign("it has no statistics, or not either profiles or controls"));
    }
    out.scanner(Some("inspec".to_owned()), version, None);
    report.finish(out)
}

fn platform(json: &mut Json<impl Read>, out: &mut Out<'_>) -> Result<(), ResultsError> {
    let (mut name, mut release, mut target) = (String::new(), String::new(), String::new());
    json.object(|json, key| match key {
        "name" => json.scalar().map(|text| name = text.unwrap_or_default()),
        "release" => json.scalar().map(|text| release = text.unwrap_or_default()),
        "target_id" => json.scalar().map(|text| target = text.unwrap_or_default()),
        _ => json.skip(),
    })?;
    let words = [name, release, target];
    out.target(words.iter().filter(|word| !word.is_empty()).map(String::as_str).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests;
