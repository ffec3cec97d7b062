//! `gapscan schema`: what a document may hold.

use clap::{Args as Arguments, ValueEnum};

use super::table;
use crate::base::exit::{ExitClass, Outcome};
use crate::base::schema;
use crate::bundle::definition::BundleDocument;
use crate::model::profile_document::ProfileDocument;
use crate::model::scanner::ScannerDocument;
use crate::model::waiver::WaiversDocument;
use crate::stage::plan::PlanDocument;

/// Print the JSON Schema (2020-12) of a kind of document, for editors and checks
///
/// It says which fields there are and what each is for. What it accepts may still make no sense: the command that reads the
/// document tells, with line and column.
#[derive(Debug, Arguments)]
pub(super) struct Args {
    /// The document's `kind`, in lower case
    kind: Kind,
}

/// The kinds of document that have a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// What is in a bundle
    Bundle,
    /// What is scanned, when and how
    Plan,
    /// What is expected, and who evaluates it
    Profile,
    /// How a scanner is run
    Scanner,
    /// Failures that people accept until a date
    Waivers,
}

impl Kind {
    fn schema(self) -> serde_json::Value {
        match self {
            Self::Bundle => schema::of::<BundleDocument>(),
            Self::Plan => schema::of::<PlanDocument>(),
            Self::Profile => schema::of::<ProfileDocument>(),
            Self::Scanner => schema::of::<ScannerDocument>(),
            Self::Waivers => schema::of::<WaiversDocument>(),
        }
    }
}

impl Args {
    pub(super) fn run(self) -> Outcome {
        table::emit_json(&self.kind.schema())?;
        Ok(ExitClass::Success)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::base::document;
    use crate::base::tree::{Node, NodeValue};

    fn shipped() -> Vec<(Kind, PathBuf)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bundle");
        let mut files: Vec<(Kind, PathBuf)> = std::fs::read_dir(folder.join("scanners"))
            .expect("definitions ship")
            .map(|entry| (Kind::Scanner, entry.expect("an entry").path()))
            .collect();
        let profiles = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles-mirror");
        let profiles = std::fs::read_dir(profiles).expect("profiles ship").map(|entry| entry.expect("an entry").path());
        let profiles = profiles.filter(|path| path.is_dir()).map(|folder| (Kind::Profile, folder.join("profile.yaml")));
        files.extend(profiles);
        files.push((Kind::Waivers, folder.join("waivers.yaml")));
        files.push((Kind::Plan, folder.join("plan.yaml")));
        files.extend(["bundle.yaml", "template.yaml"].map(|name| (Kind::Bundle, folder.join(name))));
        files.sort_by(|a, b| a.1.cmp(&b.1));
        files
    }

    fn told(kind: Kind, tree: &Node) -> Vec<String> {
        let problem = |problem: schema::Problem| format!("{}: {}: {}", problem.place, problem.field, problem.message);
        schema::problems(&kind.schema(), tree).into_iter().map(problem).collect()
    }

    #[test]
    fn what_ships_is_what_the_schema_says() {
        for (kind, path) in shipped() {
            let text = std::fs::read_to_string(&path).expect("it is read");
            let tree: Node = document::from_yaml(&path, "it", &text).expect("it is YAML");
            assert_eq!(told(kind, &tree), [""; 0], "{}", path.display());
        }
    }

    /// Adds a field that nobody knows to each map of the tree, one at a time, and calls `check` with each.
    fn with_strangers(tree: &Node, check: &mut impl FnMut(&Node, &str)) {
        fn each(node: &Node, path: &str, rebuild: &dyn Fn(Node) -> Node, check: &mut impl FnMut(&Node, &str)) {
            match &node.value {
                NodeValue::Map(fields) => {
                    let mut more = fields.clone();
                    let mut key = fields[0].0.clone();
                    key.name = "xStranger".to_owned();
                    more.push((key, Node { place: node.place, value: NodeValue::List(Vec::new()) }));
                    check(&rebuild(Node { place: node.place, value: NodeValue::Map(more) }), path);
                    for (at, (key, value)) in fields.iter().enumerate() {
                        let inside = |changed: Node| {
                            let mut fields = fields.clone();
                            fields[at].1 = changed;
                            rebuild(Node { place: node.place, value: NodeValue::Map(fields) })
                        };
                        each(value, &format!("{path}.{}", key.name), &inside, check);
                    }
                }
                NodeValue::List(items) => {
                    for (at, item) in items.iter().enumerate() {
                        let inside = |changed: Node| {
                            let mut items = items.clone();
                            items[at] = changed;
                            rebuild(Node { place: node.place, value: NodeValue::List(items) })
                        };
                        each(item, &format!("{path}[{at}]"), &inside, check);
                    }
                }
                _ => {}
            }
        }
        each(tree, "", &|node| node, check);
    }

    #[test]
    fn what_a_reader_refuses_the_schema_refuses_too() {
        let mut refused = 0;
        for (kind, path) in shipped() {
            let text = std::fs::read_to_string(&path).expect("it is read");
            let tree: Node = document::from_yaml(&path, "it", &text).expect("it is YAML");
            with_strangers(&tree, &mut |changed, at| {
                let value = changed.without(&[]);
                let read = match kind {
                    Kind::Bundle => serde_json::from_value::<BundleDocument>(value).map(drop),
                    Kind::Plan => serde_json::from_value::<PlanDocument>(value).map(drop),
                    Kind::Profile => serde_json::from_value::<ProfileDocument>(value).map(drop),
                    Kind::Scanner => serde_json::from_value::<ScannerDocument>(value).map(drop),
                    // Its type leaves it to the schema.
                    Kind::Waivers => return assert!(!told(kind, changed).is_empty(), "{at}"),
                };
                if read.is_err() {
                    assert!(!told(kind, changed).is_empty(), "{} {at}: {read:?}", path.display());
                    refused += 1;
                }
            });
        }
        assert!(refused > 50, "{refused}");
    }
}
