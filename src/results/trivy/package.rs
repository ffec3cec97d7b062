//! A package that Trivy saw.

use std::io::Read;

use super::Part;
use crate::results::ResultsError;
use crate::results::event::Component;
use crate::results::json::Json;

pub(super) fn package(json: &mut Json<impl Read>, part: &Part) -> Result<Component, ResultsError> {
    let mut component = Component { kind: part.kind.clone(), ..Component::default() };
    let (mut release, mut epoch) = (String::new(), 0);
    json.object(|json, key| match key {
        "Name" => json.text_or_empty().map(|name| component.name = name),
        "Version" => json.text_or_empty().map(|version| component.version = version),
        "Release" => json.text_or_empty().map(|text| release = text),
        "Epoch" => json.count().map(|count| epoch = count.unwrap_or(0)),
        "Licenses" => json.texts().map(|licences| component.licences = licences),
        "Identifier" => json.object(|json, key| match key {
            "PURL" => json.text_or_empty().map(|purl| component.purl = purl),
            _ => json.skip(),
        }),
        _ => json.skip(),
    })?;
    if component.name.is_empty() {
        return Err(json.foreign("a package has no name"));
    }
    if !release.is_empty() {
        component.version = format!("{}-{release}", component.version);
    }
    if epoch > 0 {
        component.version = format!("{epoch}:{}", component.version);
    }
    Ok(component)
}
