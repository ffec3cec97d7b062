//! YAML documents that people write: `apiVersion: gapscan/v1`, a `kind`, and nothing unknown.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::exit::{Classify, ExitClass};
use super::file::{self, FileError};
use super::limits::Limits;
use super::schema;
use super::tree::{Node, Place};

/// So many problems of one document are told.
const TOLD: usize = 50;

/// A document type. Its struct carries `#[serde(deny_unknown_fields, rename_all = "camelCase")]` and the fields
/// `api_version:` [`ApiVersion`] and `kind: String`.
pub trait Document: DeserializeOwned {
    /// The `kind` that the document must name.
    const KIND: &'static str;
}

/// The one `apiVersion` there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// `gapscan/v1`
    #[serde(rename = "gapscan/v1")]
    V1,
}

/// Why a document can't be used. The message carries line and column where there are any.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The file can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The text is no UTF-8.
    #[error("read `{}`: byte {offset} is no UTF-8", .path.display())]
    Encoding {
        /// The file.
        path: PathBuf,
        /// The first byte that is no UTF-8.
        offset: usize,
    },
    /// The text is not what the kind asks for.
    #[error("read `{}` as {kind}: {message}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The kind it was read as.
        kind: &'static str,
        /// Line, column and reason.
        message: String,
    },
    /// The document is not what the kind asks for, in more than its begin.
    #[error("use `{}`: {}", .path.display(), .problems.join("; "))]
    Problems {
        /// The file.
        path: PathBuf,
        /// All that is wrong, each with line, column and field.
        problems: Vec<String>,
    },
    /// The document names another kind.
    #[error("read `{}` as {kind}: its kind is `{found}`", .path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// The kind it was read as.
        kind: &'static str,
        /// What it says.
        found: String,
    },
}

impl Classify for DocumentError {
    fn class(&self) -> ExitClass {
        match self {
            Self::File(error) => error.class(),
            Self::Encoding { .. } | Self::Content { .. } | Self::Problems { .. } | Self::Kind { .. } => {
                ExitClass::Usage
            }
        }
    }
}

/// Reads the document of type `T` at `path`.
///
/// # Errors
/// When the file can't be read, is too large, is no YAML, is of another kind, or has a field that the kind does not know.
pub fn load<T: Document>(path: &Path, limits: &Limits) -> Result<T, DocumentError> {
    parse(path, &text(path, limits)?)
}

/// The text of a YAML file within the limits.
///
/// # Errors
/// When the file can't be read, is too large, or is no UTF-8.
pub fn text(path: &Path, limits: &Limits) -> Result<String, DocumentError> {
    let bytes = file::read_capped(path, limits.document_bytes)?;
    decoded(path, &bytes).map(str::to_owned)
}

/// The text that these bytes of a document are; `path` is only for messages.
///
/// # Errors
/// When they are no UTF-8.
pub fn decoded<'b>(path: &Path, bytes: &'b [u8]) -> Result<&'b str, DocumentError> {
    std::str::from_utf8(bytes)
        .map_err(|error| DocumentError::Encoding { path: path.to_owned(), offset: error.valid_up_to() })
}

/// Reads a document from text; `path` is only for messages.
///
/// # Errors
/// As [`load`], without those of the file.
pub fn parse<T: Document>(path: &Path, text: &str) -> Result<T, DocumentError> {
    #[derive(Deserialize)]
    struct Kind {
        kind: String,
    }
    let Kind { kind } = from_yaml(path, T::KIND, text)?;
    if kind != T::KIND {
        return Err(DocumentError::Kind { path: path.to_owned(), kind: T::KIND, found: super::text::brief(&kind) });
    }
    from_yaml(path, T::KIND, text)
}

/// Reads a document from text, and says all that is wrong with it at once, each with its place; `path` is only for messages.
/// `problems` finds what is wrong with a document that has all its fields; each text begins with the field, as
/// `approaches.image.command[1]: …`.
///
/// # Errors
/// As [`parse`], with [`DocumentError::Problems`] for everything but YAML that is none and another kind.
pub fn parse_checked<T: Document + JsonSchema>(
    path: &Path,
    text: &str,
    problems: impl Fn(&T) -> Vec<String>,
) -> Result<T, DocumentError> {
    let tree: Node = from_yaml(path, T::KIND, text)?;
    if let Some(kind) = tree.text_of("kind").filter(|kind| *kind != T::KIND) {
        return Err(DocumentError::Kind { path: path.to_owned(), kind: T::KIND, found: super::text::brief(kind) });
    }
    let differs = schema::problems(&schema::of::<T>(), &tree);
    let document = from_yaml::<T>(path, T::KIND, text);
    // Without the fields that nobody knows the rest can be looked at.
    let rest = match &document {
        Err(_) if differs.iter().all(|problem| problem.unknown) => {
            let unknown: Vec<_> = differs.iter().map(|problem| problem.place).collect();
            serde_json::from_value(tree.without(&unknown)).ok()
        }
        _ => None,
    };
    let mut found: Vec<(Place, String)> =
        differs.into_iter().map(|problem| (problem.place, format!("{}: {}", problem.field, problem.message))).collect();
    let meant = document.as_ref().ok().or(rest.as_ref());
    for problem in meant.map(problems).unwrap_or_default() {
        let field = problem.split_once(": ").map_or("", |(field, _)| field);
        found.push((tree.place_of(field), problem));
    }
    match document {
        Ok(document) if found.is_empty() => Ok(document),
        Err(error) if found.is_empty() => Err(error),
        _ => {
            found.sort();
            // What a type's reader and its schema both say is one problem.
            found.dedup();
            let more = found.len().saturating_sub(TOLD);
            let shown = |(place, problem): (Place, String)| format!("{place}: {}", problem.trim_start_matches(": "));
            let mut problems: Vec<String> = found.into_iter().take(TOLD).map(shown).collect();
            if more > 0 {
                problems.push(format!("and {more} more"));
            }
            Err(DocumentError::Problems { path: path.to_owned(), problems })
        }
    }
}

/// Reads any YAML with line and column in its errors, for documents of others (a Kubernetes policy, say).
///
/// # Errors
/// [`DocumentError::Content`] when the text is no such YAML.
pub fn from_yaml<T: DeserializeOwned>(path: &Path, kind: &'static str, text: &str) -> Result<T, DocumentError> {
    serde_saphyr::from_str(text).map_err(|error| content(path, kind, error))
}

fn content(path: &Path, kind: &'static str, error: serde_saphyr::Error) -> DocumentError {
    // The snippet that the library draws is dropped: the message goes on one line, with the place in front.
    let place = error.location().map(|at| format!("line {}, column {}: ", at.line(), at.column())).unwrap_or_default();
    let message = error.without_snippet().to_string();
    // Most of its messages name the place at their end, too.
    let message = message.rsplit_once(" at line ").map_or(message.as_str(), |(before, _)| before);
    let message = format!("{place}{}", super::text::printable(message));
    DocumentError::Content { path: path.to_owned(), kind, message }
}

/// Reads all documents of a stream of YAML as kubectl does, with the numbers of YAML 1.1 (`0644` is octal there). Documents
/// without content are left out.
///
/// # Errors
/// As [`from_yaml`].
pub fn from_kubernetes(path: &Path, text: &str) -> Result<Vec<serde_json::Value>, DocumentError> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| content(path, "a Kubernetes manifest", error))
}

/// Writes a manifest as YAML as people write it, with no line folded.
///
/// # Errors
/// As [`to_yaml`].
pub fn to_kubernetes(value: &serde_json::Value) -> Result<String, serde_saphyr::ser_error::Error> {
    serde_saphyr::to_string_with_options(value, serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX })
}

/// Writes any value as YAML.
///
/// # Errors
/// When the value has no YAML form, as a map with compound keys.
pub fn to_yaml<T: Serialize>(value: &T) -> Result<String, serde_saphyr::ser_error::Error> {
    serde_saphyr::to_string(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    #[allow(dead_code)]
    struct Sample {
        api_version: ApiVersion,
        kind: String,
        name: String,
    }
    impl Document for Sample {
        const KIND: &'static str = "Sample";
    }

    fn error(text: &str) -> String {
        parse::<Sample>(Path::new("s.yaml"), text).expect_err("must be refused").to_string()
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place() {
        let message = error("apiVersion: gapscan/v1\nkind: Sample\nname: x\nnmae: y\n");
        assert!(message.contains("s.yaml") && message.contains("nmae") && message.contains("line 4"), "{message}");
    }

    #[test]
    fn another_kind_another_version_and_a_twice_given_key_are_refused() {
        assert!(error("apiVersion: gapscan/v1\nkind: Plan\nname: x\n").contains("its kind is `Plan`"));
        assert!(error("apiVersion: gapscan/v2\nkind: Sample\nname: x\n").contains("line 1"));
        assert!(error("apiVersion: gapscan/v1\nkind: Sample\nname: x\nname: y\n").contains("line 4"));
    }
}
