//! The evaluation of one rule on one object.

use std::sync::{Arc, OnceLock};

use cel::common::traits::Indexer;
use cel::common::types::{CelBool, CelString, LIST_TYPE, MAP_TYPE, Type};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::{Context, ExecutionError, Value};

use super::budget::{self, Budget};
use super::expression::{Dialect, Expression, environment};
use super::object::{ABSENT, Absent, UNSEEN};
use super::value::{self, Owned};
use crate::model::reason::Reason;

/// Why an expression gave nothing that counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Trouble {
    /// It asked for a fact that is absent.
    Absent {
        /// The fact's name.
        fact: String,
    },
    /// It asked for a path that could not be seen.
    Unseen {
        /// The path.
        path: String,
    },
    /// It used up its budget.
    Budget,
    /// It asked for a field that the object does not have.
    NoSuchField {
        /// The field.
        field: String,
    },
    /// Anything else: a wrong type, a result of a wrong type.
    Rule {
        /// What the interpreter says.
        message: String,
    },
}

impl Trouble {
    fn of(error: &ExecutionError) -> Self {
        match error {
            ExecutionError::FunctionError { function, message } => match function.as_str() {
                ABSENT => Self::Absent { fact: message.clone() },
                UNSEEN => Self::Unseen { path: message.clone() },
                budget::VARIABLE => Self::Budget,
                _ => Self::Rule { message: short(&error.to_string()) },
            },
            ExecutionError::NoSuchKey(field) => Self::NoSuchField { field: field.as_str().to_owned() },
            // The text of some errors holds the values, which may be all facts there are.
            other => Self::Rule { message: short(&other.to_string()) },
        }
    }

    /// The reason code for a trouble that has one by itself.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Absent { .. } | Self::NoSuchField { .. } => Reason::FactMissing,
            Self::Unseen { .. } => Reason::UnreadablePaths,
            Self::Budget => Reason::RuleBudget,
            Self::Rule { .. } => Reason::RuleError,
        }
    }

    /// A sentence.
    pub(super) fn detail(&self) -> String {
        match self {
            Self::Absent { fact } => format!("`{fact}` is absent from the facts"),
            Self::Unseen { path } => format!("it could not be seen whether there is {path}, or what is in it"),
            Self::Budget => "it took more steps than its budget".to_owned(),
            Self::NoSuchField { field } => format!("`{field}` is not there"),
            Self::Rule { message } => message.clone(),
        }
    }
}

fn short(text: &str) -> String {
    let mut short: String = text.chars().take(300).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// What the expressions of one rule see: the object, its namespace, the rule's variables, and the budget that they share.
pub(super) struct Scope<'r> {
    dialect: Dialect,
    object: &'r dyn Val,
    namespace: Option<&'r dyn Val>,
    variables: &'r [(String, Expression)],
    values: Vec<OnceLock<Result<Owned, ExecutionError>>>,
    item: Option<Owned>,
    budget: Budget,
}

impl<'r> Scope<'r> {
    /// A scope for this object.
    pub(super) fn new(
        dialect: Dialect,
        object: &'r dyn Val,
        namespace: Option<&'r dyn Val>,
        variables: &'r [(String, Expression)],
        steps: u64,
    ) -> Self {
        let values = variables.iter().map(|_| OnceLock::new()).collect();
        Self { dialect, object, namespace, variables, values, item: None, budget: Budget::new(steps) }
    }

    /// The same with `item` set.
    pub(super) fn set_item(&mut self, item: Owned) {
        self.item = Some(item);
    }

    /// Evaluates to a boolean.
    pub(super) fn boolean(&self, expression: &Expression) -> Result<bool, Trouble> {
        self.evaluate(expression, |value| value.downcast_ref::<CelBool>().map(|b| *b.inner()), "boolean")
    }

    /// Evaluates to a string.
    pub(super) fn string(&self, expression: &Expression) -> Result<String, Trouble> {
        self.evaluate(expression, |value| value.downcast_ref::<CelString>().map(|s| s.inner().to_owned()), "string")
    }

    /// Evaluates to a list.
    pub(super) fn list(&self, expression: &Expression) -> Result<Vec<Owned>, Trouble> {
        let items = |value: &dyn Val| {
            let mut items = value.as_iterable().filter(|_| value.get_type() == &LIST_TYPE)?.iter();
            Some(std::iter::from_fn(|| items.next().map(value::detached)).collect())
        };
        self.evaluate(expression, items, "list")
    }

    fn evaluate<T>(
        &self,
        expression: &Expression,
        read: impl FnOnce(&dyn Val) -> Option<T>,
        wanted: &str,
    ) -> Result<T, Trouble> {
        let mut context = Context::with_env(Arc::clone(environment(self.dialect)));
        context.set_variable_resolver(self);
        let result = Value::resolve_val(&expression.tree, &context);
        // Asked first: the error may have been absorbed by an `||` beside it.
        if self.budget.exhausted() {
            return Err(Trouble::Budget);
        }
        let value = result.map_err(|error| Trouble::of(&error))?;
        read(value.as_ref())
            .ok_or_else(|| Trouble::Rule { message: format!("it gave {}, not a {wanted}", value.get_type().name()) })
    }

    /// The value of a variable, made when it is first asked for, as the API server does it.
    fn variable(&self, name: &str) -> Option<&Result<Owned, ExecutionError>> {
        let index = self.variables.iter().position(|(declared, _)| declared == name)?;
        Some(self.values[index].get_or_init(|| {
            let mut context = Context::with_env(Arc::clone(environment(self.dialect)));
            context.set_variable_resolver(self);
            Value::resolve_val(&self.variables[index].1.tree, &context).map(|value| value::detached(value.as_ref()))
        }))
    }
}

impl VariableResolver for Scope<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        fn borrowed<'b>(value: &'b dyn Val) -> Option<CowVal<'b, 'b>> {
            Some(CowVal::Borrowed(value))
        }
        match name {
            "object" => borrowed(self.object),
            "item" => self.item.as_deref().and_then(borrowed),
            budget::VARIABLE => Some(CowVal::Borrowed(&self.budget)),
            "namespaceObject" => match &self.namespace {
                Some(namespace) => borrowed(*namespace),
                None => Some(CowVal::owned(Absent(ExecutionError::function_error(ABSENT, "namespaceObject")))),
            },
            // A variable with a value is found by its whole name, so that it can be lent instead of copied; one with an
            // error is reached through `variables`.
            "variables" => Some(CowVal::owned(Variables { scope: self })),
            _ => match self.variable(name.strip_prefix("variables.")?)? {
                Ok(value) => borrowed(value.as_ref()),
                Err(_) => None,
            },
        }
    }
}

/// `variables` itself.
#[derive(Clone, Copy)]
struct Variables<'b> {
    scope: &'b Scope<'b>,
}

impl std::fmt::Debug for Variables<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("variables")
    }
}

impl Val for Variables<'_> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }
    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }
    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }
    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(*self)
    }
}

impl Indexer for Variables<'_> {
    fn get<'b, 'v>(&'b self, index: &dyn Val) -> Result<CowVal<'b, 'v>, ExecutionError>
    where
        Self: 'v,
    {
        let name = index.downcast_ref::<CelString>().map_or("", CelString::inner);
        match self.scope.variable(name) {
            Some(Ok(value)) => Ok(CowVal::Borrowed(value.as_ref())),
            Some(Err(error)) => Err(error.clone()),
            None => Err(ExecutionError::no_such_key(name)),
        }
    }

    fn steal<'v>(self: Box<Self>, index: &dyn Val) -> Result<Box<dyn Val + 'v>, ExecutionError>
    where
        Self: 'v,
    {
        self.get(index).map(|value| value::detached(value.as_ref()))
    }
}
