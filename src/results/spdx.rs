//! SPDX 2.2 and 2.3 as JSON: an inventory. It has components and no controls, since it judges nothing.
//!
//! The package that a document describes is its target, and a component as well.

use std::collections::HashSet;
use std::io::Read;

use super::ResultsError;
use super::event::{Component, Out};
use super::json::{Json, Kind};
use crate::base::limits::Limits;
use crate::base::text::brief;

const FORMAT: &str = "SPDX JSON";

/// Reads a document.
pub(crate) fn read(source: impl Read, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let mut json = Json::new(source, FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let (mut version, mut tool, mut packages) = (None, None, true);
    json.object(|json, key| match key {
        "spdxVersion" => json.scalar().map(|text| version = text),
        "name" => {
            let name = json.text_or_empty()?;
            out.target(name)
        }
        "creationInfo" => json.object(|json, key| match key {
            "creators" => {
                let creators = json.texts()?;
                tool = creators.iter().find_map(|creator| creator.strip_prefix("Tool: ").map(str::to_owned));
                Ok(())
            }
            _ => json.skip(),
        }),
        "packages" => {
            packages = matches!(json.kind()?, Kind::Array | Kind::Null);
            json.array(|json| {
                let component = package(json)?;
                out.component(component)
            })
        }
        _ => json.skip(),
    })?;
    json.end()?;
    match version.as_deref() {
        Some("SPDX-2.2" | "SPDX-2.3") if packages => {}
        Some("SPDX-2.2" | "SPDX-2.3") => return Err(json.foreign("its packages are no list")),
        Some(other) => {
            return Err(json.foreign(format!("its version is `{}`, and SPDX-2.2 and SPDX-2.3 are read", brief(other))));
        }
        None => return Err(json.foreign("it has no version of SPDX")),
    }
    // As in `syft-1.2.3`: a name may have hyphens, a version begins with a digit.
    let tool = tool.unwrap_or_default();
    let split = tool
        .match_indices('-')
        .find(|(at, _)| tool[at + 1..].trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()));
    match split {
        Some((at, _)) => out.scanner(Some(tool[..at].to_owned()), Some(tool[at + 1..].to_owned()), None),
        None => out.scanner(Some(tool), None, None),
    }
    Ok(())
}

fn package(json: &mut Json<impl Read>) -> Result<Component, ResultsError> {
    let mut component = Component::default();
    let mut licences = HashSet::new();
    json.object(|json, key| match key {
        "name" => json.text_or_empty().map(|text| component.name = text),
        "versionInfo" => json.text_or_empty().map(|text| component.version = text),
        "primaryPackagePurpose" => json.text_or_empty().map(|text| component.kind = text),
        "licenseConcluded" | "licenseDeclared" => {
            let licence = json.text_or_empty()?;
            if !matches!(licence.as_str(), "" | "NOASSERTION" | "NONE") && licences.insert(licence.clone()) {
                component.licences.push(licence);
            }
            Ok(())
        }
        "externalRefs" => json.array(|json| {
            let (mut kind, mut locator) = (String::new(), String::new());
            json.object(|json, key| match key {
                "referenceType" => json.text_or_empty().map(|text| kind = text),
                "referenceLocator" => json.text_or_empty().map(|text| locator = text),
                _ => json.skip(),
            })?;
            if kind == "purl" && component.purl.is_empty() {
                component.purl = locator;
            }
            Ok(())
        }),
        _ => json.skip(),
    })?;
    if component.name.is_empty() { Err(json.foreign("a package has no name")) } else { Ok(component) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::model::scanner::ResultFormat;
    use crate::results::tests::{refuses_what_is_no_result, summary};

    #[test]
    fn an_inventory_has_components_and_no_control() {
        let text = json!({
            "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "img",
            "creationInfo": {"creators": ["Organization: o", "Tool: my-tool-1.2.3"], "created": "t"},
            "packages": [
                {"name": "a", "SPDXID": "x", "versionInfo": "1", "licenseConcluded": "NOASSERTION", "licenseDeclared": "MIT", "primaryPackagePurpose": "LIBRARY",
                 "externalRefs": [{"referenceCategory": "SECURITY", "referenceType": "cpe23Type", "referenceLocator": "cpe"},
                                  {"referenceType": "purl", "referenceLocator": "pkg:deb/a@1"}]},
                {"name": "b", "SPDXID": "y"},
            ],
        })
        .to_string();
        let read = summary(ResultFormat::Spdx, &text).expect("a result");
        assert_eq!((read.components, read.controls.total(), read.not_evaluated.len()), (2, 0, 0));
        assert_eq!((read.scanner.name.as_deref(), read.scanner.version.as_deref()), (Some("my-tool"), Some("1.2.3")));
        let first = &read.component_list[0];
        assert_eq!((first.purl.as_str(), &first.licences[..]), ("pkg:deb/a@1", &["MIT".to_owned()][..]));
        refuses_what_is_no_result(ResultFormat::Spdx, &text);
        for other in [
            text.replace("SPDX-2.3", "SPDX-3.0"),
            text.replace("\"name\":\"b\"", "\"x\":1"),
            text.replace("\"spdxVersion\"", "\"x\""),
        ] {
            assert!(summary(ResultFormat::Spdx, &other).is_err(), "{other}");
        }
    }
}
