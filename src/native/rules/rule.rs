//! A rule: a policy document after every check.

use std::collections::{BTreeMap, BTreeSet};

use super::expression::{self, Dialect, Expression, Names};
use super::policy::{Operation, Policy};
use crate::model::control::{Control, Reference, Severity};
use crate::model::target::TargetKind;
use crate::native::facts::cluster::Resource;

/// The API group of what gapscan collects itself.
pub(super) const FACTS_GROUP: &str = "facts.gapscan.dev";
/// The prefix of annotations that are read here.
const PREFIX: &str = "gapscan.dev/";

/// What a rule judges.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::native) enum Subject {
    /// The facts of a host or a node.
    Host,
    /// The facts of a container.
    Container,
    /// The facts of an image.
    Image,
    /// Namespaces with what is in them ([`FACTS_GROUP`]).
    NamespaceFacts,
    /// Objects.
    Objects(Resource),
}

impl Subject {
    /// Whether a target of this kind is such a subject, or has them.
    pub(in crate::native) fn fits(&self, kind: TargetKind) -> bool {
        match self {
            Self::Host => matches!(kind, TargetKind::Host | TargetKind::Node),
            Self::Container => kind == TargetKind::Container,
            Self::Image => kind == TargetKind::Image,
            Self::NamespaceFacts | Self::Objects(_) => kind == TargetKind::Cluster,
        }
    }
}

/// One expectation, with what is said when it is not met.
#[derive(Clone, Debug)]
pub(super) struct Validation {
    pub(super) expression: Expression,
    pub(super) message: Option<String>,
    pub(super) message_expression: Option<Expression>,
}

/// One rule, compiled.
#[derive(Clone, Debug)]
pub(in crate::native) struct Rule {
    pub(in crate::native) control: Control,
    pub(super) dialect: Dialect,
    pub(in crate::native) subjects: BTreeSet<Subject>,
    pub(super) conditions: Vec<(String, Expression)>,
    pub(super) variables: Vec<(String, Expression)>,
    pub(super) validations: Vec<Validation>,
    /// The offending items, as a list.
    pub(super) items: Option<Expression>,
    /// What one item is called; it sees `item`.
    pub(super) item: Option<Expression>,
    /// What was seen of one item; it sees `item`.
    pub(super) seen: Option<Expression>,
}

impl Rule {
    /// Whether any expression asks for the namespace of the object.
    pub(in crate::native) fn asks_namespace(&self) -> bool {
        let conditions = self.conditions.iter().chain(&self.variables).map(|(_, e)| e);
        let validations =
            self.validations.iter().flat_map(|v| std::iter::once(&v.expression).chain(&v.message_expression));
        conditions.chain(validations).chain(&self.items).chain(&self.item).chain(&self.seen).any(|e| e.asks_namespace)
    }
}

/// Checks and compiles a policy. All that is wrong with it is told at once.
pub(super) fn compile(policy: Policy) -> Result<Rule, Vec<String>> {
    let mut problems = Vec::new();
    let Policy { metadata, spec, .. } = policy;
    if !is_subdomain(&metadata.name) {
        problems.push(
            "metadata.name is no name that Kubernetes allows for a policy (lower-case letters, digits, `-`, `.`)"
                .into(),
        );
    }
    let subjects = subjects(&spec, &mut problems);
    let systems = subjects.iter().filter(|s| matches!(s, Subject::Host | Subject::Container | Subject::Image)).count();
    if systems > 0 && systems < subjects.len() {
        problems.push("it judges systems and objects of a cluster at once; write two".to_owned());
    }
    let dialect = if systems > 0 { Dialect::System } else { Dialect::Cluster };

    let mut declared: Vec<String> = Vec::new();
    let mut compile = |place: String, source: &str, variables: &[String], item: bool| {
        expression::compile(source, Names { dialect, variables, item })
            .map_err(|problem| problems.push(format!("{place}: {problem}")))
            .ok()
    };
    let mut conditions = Vec::new();
    for (i, condition) in spec.match_conditions.iter().enumerate() {
        // The API server evaluates these before there are variables.
        let compiled = compile(format!("spec.matchConditions[{i}].expression"), &condition.expression, &[], false);
        conditions.extend(compiled.map(|e| (condition.name.clone(), e)));
    }
    let mut variables = Vec::new();
    for (i, variable) in spec.variables.iter().enumerate() {
        let compiled = compile(format!("spec.variables[{i}].expression"), &variable.expression, &declared, false);
        variables.extend(compiled.map(|e| (variable.name.clone(), e)));
        declared.push(variable.name.clone());
    }
    let mut validations = Vec::new();
    for (i, validation) in spec.validations.iter().enumerate() {
        let expression = compile(format!("spec.validations[{i}].expression"), &validation.expression, &declared, false);
        let message_expression = validation
            .message_expression
            .as_deref()
            .and_then(|e| compile(format!("spec.validations[{i}].messageExpression"), e, &declared, false));
        let message = validation.message.clone();
        validations.extend(expression.map(|expression| Validation { expression, message, message_expression }));
    }
    let mut annotation = |key: &str, item: bool| {
        let source = metadata.annotations.get(&format!("{PREFIX}{key}"))?;
        compile(format!("annotation {PREFIX}{key}"), source, &declared, item)
    };
    let (items, item, seen) = (annotation("items", false), annotation("item", true), annotation("seen", true));

    if spec.validations.is_empty() {
        problems.push("spec.validations is empty, so that it could only pass".to_owned());
    }
    if (item.is_some() || seen.is_some()) && items.is_none() {
        problems.push(format!("annotations {PREFIX}item and {PREFIX}seen need {PREFIX}items"));
    }
    for (i, name) in declared.iter().enumerate() {
        if declared[..i].contains(name) {
            problems.push(format!("spec.variables: `{name}` is declared twice"));
        }
    }
    let control = control(&metadata.name, &metadata.annotations, check_text(&spec), &mut problems);
    match control {
        Some(control) if problems.is_empty() => {
            Ok(Rule { control, dialect, subjects, conditions, variables, validations, items, item, seen })
        }
        _ => Err(problems),
    }
}

/// RFC 1123 subdomain, which the API server asks for in metadata.name.
fn is_subdomain(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn subjects(spec: &super::policy::Spec, problems: &mut Vec<String>) -> BTreeSet<Subject> {
    let mut found = BTreeSet::new();
    for (i, rule) in spec.match_constraints.resource_rules.iter().enumerate() {
        let place = format!("spec.matchConstraints.resourceRules[{i}]");
        if !rule.operations.iter().any(|op| matches!(op, Operation::Create | Operation::Any)) {
            problems.push(format!("{place}.operations: without CREATE it does not speak of what is there"));
        }
        for (group, version, resource) in rule.api_groups.iter().flat_map(|group| {
            let versions = rule.api_versions.iter();
            versions.flat_map(move |version| rule.resources.iter().map(move |resource| (group, version, resource)))
        }) {
            match subject(group, version, resource) {
                Ok(subject) => found.extend(subject),
                Err(problem) => problems.push(format!("{place}: {problem}")),
            }
        }
    }
    if found.is_empty() && problems.is_empty() {
        problems.push("spec.matchConstraints names nothing that could be judged".to_owned());
    }
    found
}

/// The subject; none for a part of one that is judged anyway.
fn subject(group: &str, version: &str, resource: &str) -> Result<Option<Subject>, String> {
    if [group, version, resource].iter().any(|part| part.contains('*')) {
        return Err("`*` would list everything there is, secrets too; name groups, versions and resources".to_owned());
    }
    match (group, resource) {
        (FACTS_GROUP, "hosts") => Ok(Some(Subject::Host)),
        (FACTS_GROUP, "containers") => Ok(Some(Subject::Container)),
        (FACTS_GROUP, "images") => Ok(Some(Subject::Image)),
        (FACTS_GROUP, "namespaces") => Ok(Some(Subject::NamespaceFacts)),
        (FACTS_GROUP, other) => {
            Err(format!("{FACTS_GROUP} has hosts, containers, images and namespaces, and no `{other}`"))
        }
        ("", "secrets") => Err("secrets are never listed, so that no identity of gapscan can read them".to_owned()),
        // An ephemeral container is added through this subresource, and the object is the pod, which is judged as such.
        ("", "pods/ephemeralcontainers") => Ok(None),
        (_, sub) if sub.contains('/') => Err(format!("the subresource `{sub}` is no object that could be listed")),
        _ => Ok(Some(Subject::Objects(Resource::new(group, version, resource)))),
    }
}

/// The expressions, for people.
fn check_text(spec: &super::policy::Spec) -> String {
    let conditions = spec.match_conditions.iter().map(|c| format!("if {} ({})", c.expression.trim(), c.name));
    let variables = spec.variables.iter().map(|v| format!("{} = {}", v.name, v.expression.trim()));
    let validations = spec.validations.iter().map(|v| v.expression.trim().to_owned());
    conditions.chain(variables).chain(validations).collect::<Vec<_>>().join("\n")
}

fn control(
    id: &str,
    annotations: &BTreeMap<String, String>,
    check: String,
    problems: &mut Vec<String>,
) -> Option<Control> {
    const KEYS: &[&str] = &["title", "description", "severity", "fix", "references", "items", "item", "seen"];
    for key in annotations.keys().filter_map(|key| key.strip_prefix(PREFIX)).filter(|key| !KEYS.contains(key)) {
        problems.push(format!("annotation {PREFIX}{key} is none of {}", KEYS.join(", ")));
    }
    let mut text = |key: &str, required: bool| {
        let value = annotations.get(&format!("{PREFIX}{key}")).map(|v| v.trim().to_owned()).unwrap_or_default();
        if required && value.is_empty() {
            problems.push(format!("annotation {PREFIX}{key} is missing"));
        }
        value
    };
    let (title, description, fix) = (text("title", true), text("description", true), text("fix", true));
    let (severity, references) = (text("severity", true), text("references", false));
    let level = Severity::WORST_FIRST.into_iter().find(|s| s.word() == severity);
    if level.is_none() && !severity.is_empty() {
        problems
            .push(format!("annotation {PREFIX}severity: `{severity}` is none of critical, high, medium, low, none"));
    }
    let mut known = Vec::new();
    for reference in references.split_whitespace() {
        match reference.split_once(':') {
            Some((scheme, id)) if !scheme.is_empty() && !id.is_empty() => {
                known.push(Reference { scheme: scheme.to_owned(), id: id.to_owned() });
            }
            _ => problems.push(format!("annotation {PREFIX}references: `{reference}` is no SCHEME:ID")),
        }
    }
    Some(Control { id: id.to_owned(), title, description, check, fix, severity: level?, references: known })
}
