//! `${parameter}` in a scanner's command and environment. There is no shell, no default and no nesting.

use std::collections::BTreeMap;

use crate::cluster::error::ClusterError;

/// The text with each `${name}` replaced by the parameter's value. A value is not looked at again, so that it can't bring in
/// another parameter. `$` without a brace is itself.
///
/// # Errors
/// When a parameter is not given, or a brace is not closed.
pub fn substitute(template: &str, parameters: &BTreeMap<String, String>) -> Result<String, ClusterError> {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("${") {
        let (before, inside) = (&rest[..start], &rest[start + 2..]);
        text.push_str(before);
        let end = inside.find('}').unwrap_or(inside.len());
        let name = &inside[..end];
        let Some(value) = parameters.get(name).filter(|_| end < inside.len()) else {
            return Err(ClusterError::Parameter { name: name.to_owned(), template: template.to_owned() });
        };
        text.push_str(value);
        rest = &inside[end + 1..];
    }
    text.push_str(rest);
    Ok(text)
}
