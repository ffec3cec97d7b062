//! Syft's JSON: an inventory. It has components and no controls, since it judges nothing.

use std::io::Read;

use super::ResultsError;
use super::event::{Component, Out};
use super::json::{Json, Kind};
use crate::base::limits::Limits;
use crate::base::text::brief;

const FORMAT: &str = "Syft JSON";

/// Reads an inventory.
pub(crate) fn read(source: impl Read, out: &mut Out<'_>, limits: &Limits) -> Result<(), ResultsError> {
    let mut json = Json::new(source, FORMAT, limits.result_bytes);
    if json.kind()? != Kind::Object {
        return Err(json.foreign("it is no object"));
    }
    let (mut program, mut version, mut artifacts) = (None, None, false);
    let (mut system, mut release) = (String::new(), String::new());
    json.object(|json, key| match key {
        "artifacts" => {
            artifacts = json.kind()? == Kind::Array;
            json.array(|json| {
                let component = artifact(json)?;
                out.component(component)
            })
        }
        "descriptor" => json.object(|json, key| match key {
            "name" => json.text().map(|name| program = name),
            "version" => json.scalar().map(|text| version = text),
            _ => json.skip(),
        }),
        "distro" => json.object(|json, key| match key {
            "id" => json.text_or_empty().map(|id| system = id),
            "versionID" => json.text_or_empty().map(|id| release = id),
            _ => json.skip(),
        }),
        "source" => subject(json, out),
        _ => json.skip(),
    })?;
    json.end()?;
    match program.as_deref() {
        Some("syft") if artifacts => {}
        Some("syft") => return Err(json.foreign("it has no list of artifacts")),
        Some(other) => return Err(json.foreign(format!("it is the output of `{}`", brief(other)))),
        None => return Err(json.foreign("it does not say which program wrote it")),
    }
    if !system.is_empty() {
        out.note(format!("the system is {}", brief(format!("{system} {release}").trim())));
    }
    out.scanner(program, version, None);
    Ok(())
}

fn subject(json: &mut Json<impl Read>, out: &mut Out<'_>) -> Result<(), ResultsError> {
    let (mut name, mut version, mut target) = (String::new(), String::new(), String::new());
    json.object(|json, key| match key {
        "name" => json.text_or_empty().map(|text| name = text),
        "version" => json.text_or_empty().map(|text| version = text),
        // Old versions: a text for a folder, an object for an image.
        "target" if json.kind()? == Kind::Text => json.text_or_empty().map(|text| target = text),
        "target" | "metadata" if json.kind()? == Kind::Object => json.object(|json, key| match key {
            "userInput" | "path" => json.scalar().map(|text| target = text.unwrap_or_default()),
            _ => json.skip(),
        }),
        _ => json.skip(),
    })?;
    out.target(if target.is_empty() { format!("{name} {version}").trim().to_owned() } else { target })
}

fn artifact(json: &mut Json<impl Read>) -> Result<Component, ResultsError> {
    let mut component = Component::default();
    json.object(|json, key| match key {
        "name" => json.text_or_empty().map(|text| component.name = text),
        "version" => json.text_or_empty().map(|text| component.version = text),
        "type" => json.text_or_empty().map(|text| component.kind = text),
        "purl" => json.text_or_empty().map(|text| component.purl = text),
        "licenses" => json.array(|json| {
            let mut licence = None;
            // Texts in old versions.
            if json.kind()? == Kind::Object {
                json.object(|json, key| match key {
                    "value" => json.scalar().map(|text| licence = text),
                    _ => json.skip(),
                })?;
            } else {
                licence = json.scalar()?;
            }
            if component.licences.len() < 256 {
                component.licences.extend(licence);
            }
            Ok(())
        }),
        _ => json.skip(),
    })?;
    if component.name.is_empty() { Err(json.foreign("an artifact has no name")) } else { Ok(component) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::model::scanner::ResultFormat;
    use crate::results::tests::{refuses_what_is_no_result, summary};

    #[test]
    fn an_inventory_has_components_and_no_control() {
        let text = json!({
            "artifacts": [
                {"id": "1", "name": "a", "version": "1", "type": "deb", "purl": "pkg:deb/a@1", "licenses": [{"value": "MIT"}, "GPL"]},
                {"id": "2", "name": "b"},
            ],
            "artifactRelationships": [{"parent": "1", "child": "2"}],
            "source": {"id": "x", "name": "img", "version": "sha256:1", "type": "image", "metadata": {"userInput": "img:1", "layers": []}},
            "distro": {"id": "debian", "versionID": "12"}, "descriptor": {"name": "syft", "version": "1.2.3"}, "schema": {"version": "16"},
        })
        .to_string();
        let read = summary(ResultFormat::Syft, &text).expect("a result");
        assert_eq!((read.components, read.controls.total(), read.not_evaluated.len()), (2, 0, 0));
        assert_eq!((read.targets[0].as_str(), read.scanner.version.as_deref()), ("img:1", Some("1.2.3")));
        assert_eq!(read.component_list[0].licences, ["MIT", "GPL"]);
        refuses_what_is_no_result(ResultFormat::Syft, &text);
        let nothing = text.replace("\"artifacts\":[", "\"artifacts\":[],\"old\":[");
        assert_eq!(summary(ResultFormat::Syft, &nothing).expect("a result").not_evaluated.len(), 1);
        for other in [
            text.replace("syft", "grype"),
            text.replace("\"name\":\"b\"", "\"x\":1"),
            text.replace("\"artifacts\"", "\"x\""),
        ] {
            assert!(summary(ResultFormat::Syft, &other).is_err(), "{other}");
        }
    }
}
