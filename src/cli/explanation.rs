//! `gapscan scan --explain`: how each target would be reached, and why so.

use super::table::{Format, Table, emit, emit_json, paragraph};
use crate::base::exit::{ExitClass, Outcome};
use crate::stage::scan::Explanation;

/// Prints them in the order of the targets.
pub(crate) fn print(explanations: &[Explanation], format: Format) -> Outcome {
    match format {
        Format::Json => emit_json(&explanations)?,
        Format::Table => emit(&text(explanations))?,
    }
    Ok(ExitClass::Success)
}

/// A heading for each target, and below it a line for each way.
fn text(explanations: &[Explanation]) -> String {
    let mut text = String::new();
    for one in explanations {
        let profiles = one.profiles.join(", ");
        text += &paragraph(0, &format!("{} ({profiles} by {})", one.target, one.engine));
        let mut table = Table::new(&["APPROACH", "WHY"]);
        for (at, (way, why)) in one.ways.iter().enumerate() {
            let way = if at == 0 { way.clone() } else { format!("else {way}") };
            table.row([way, why.clone()]);
        }
        for (way, why) in &one.refused {
            table.row([format!("not {way}"), why.clone()]);
        }
        text += &table.render(2);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_has_a_line_with_its_reason() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let one = Explanation {
            target: "pod/shop/api-0/api".to_owned(),
            engine: "builtin".to_owned(),
            profiles: vec!["container-baseline".to_owned()],
            ways: vec![pair("exec", "one command"), pair("image", "the image")],
            refused: vec![pair("debug", "its pod is static")],
        };
        insta::assert_snapshot!(text(&[one]), @r"
        pod/shop/api-0/api (container-baseline by builtin)
          APPROACH    WHY
          exec        one command
          else image  the image
          not debug   its pod is static
        ");
    }
}
