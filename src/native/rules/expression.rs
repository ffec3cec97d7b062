//! One CEL expression: parsed, its names checked, and metered.
//!
//! The dialect is the API server's, without what exists only while it admits a request, so that what compiles here
//! compiles there. Of the functions that the API server knows, those of the standard library, of the strings library and
//! (for Kubernetes objects) of optional values are here; no function is here that the API server lacks,
//! or that gives another result there (`format`, which writes lists otherwise).

use std::sync::{Arc, OnceLock};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::{Env, extensions};

use super::object::FACTS;
use super::{budget, pattern};

/// Characters of one expression; the rules that people write are all far below.
const EXPRESSION_CHARS: usize = 8 * 1024;
/// How deep brackets and macros may nest, as the parser counts it.
const NESTING: u16 = 48;
/// How deep the tree may be: `a + b + c` nests nothing and is as deep as it is long. Each level costs the interpreter
/// kilobytes of stack, tens of them in a build without optimisation.
const DEPTH: usize = 80;
/// The stack on which expressions are parsed and evaluated. The parser recurses once for each link of a chain before its
/// depth can be known, and an expression has at most [`EXPRESSION_CHARS`] / 2 links.
const STACK_BYTES: usize = 512 << 20;

/// Functions that expressions may call, besides operators and macros.
const FUNCTIONS: &[&str] = &[
    "bool",
    "bytes",
    "charAt",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "indexOf",
    "int",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "matches",
    "replace",
    "size",
    "split",
    "startsWith",
    "string",
    "substring",
    "trim",
    "type",
    "uint",
    "upperAscii",
];
/// Functions on optional values.
const OPTIONAL_FUNCTIONS: &[&str] =
    &["hasValue", "none", "of", "ofNonZeroValue", "optMap", "optFlatMap", "or", "orValue", "value"];
const TYPE_NAMES: &[&str] = &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];
/// Variables that exist only while the API server admits a request.
const REQUEST_NAMES: &[&str] = &["authorizer", "oldObject", "params", "request"];

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// The facts of a host, a container or an image.
    System,
    /// Objects of a cluster.
    Cluster,
}

/// The names that an expression may use.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    pub(super) dialect: Dialect,
    /// Variables that are declared before it.
    pub(super) variables: &'a [String],
    /// Whether there is `item`.
    pub(super) item: bool,
}

/// An expression that parses and whose names are known.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    /// As it was written.
    pub(super) source: String,
    /// Metered.
    pub(super) tree: IdedExpr,
    /// Whether it asks for `namespaceObject`.
    pub(super) asks_namespace: bool,
}

/// The environment of a dialect. Built once: it is the same for all rules.
pub(super) fn environment(dialect: Dialect) -> &'static Arc<Env> {
    static SYSTEM: OnceLock<Arc<Env>> = OnceLock::new();
    static CLUSTER: OnceLock<Arc<Env>> = OnceLock::new();
    let build = |mut env: Env| {
        env.add_extension(extensions::strings)
            .and_then(|()| env.add_extension(budget::declare))
            .and_then(|()| env.add_extension(pattern::declare))
            .expect("the names in the strings library and here are not in the standard library");
        Arc::new(env)
    };
    match dialect {
        // Optional values turn an absent fact into a default, which is how a pass comes from nothing.
        Dialect::System => SYSTEM.get_or_init(|| build(Env::stdlib().with_optional_support(false))),
        Dialect::Cluster => CLUSTER.get_or_init(|| build(Env::stdlib())),
    }
}

/// Runs `work`, which compiles or evaluates expressions, on a stack that no expression within the limits can overflow.
/// Only what is used of the stack takes memory. An error when there is no thread to be had, or when `work` panics.
pub(super) fn on_a_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("rules".to_owned()).stack_size(STACK_BYTES);
        let thread = builder.spawn_scoped(scope, work)?;
        // The interpreter is not ours. If it panics on something, this profile is not evaluated, and the scan goes on.
        thread.join().map_err(|_| std::io::Error::other("it panicked, which is a bug"))
    })
}

/// Compiles an expression; the error is a sentence without the expression's name. To be called within
/// [`on_a_large_stack`].
pub(super) fn compile(source: &str, names: Names<'_>) -> Result<Expression, String> {
    if source.chars().count() > EXPRESSION_CHARS {
        return Err(format!("it is longer than {EXPRESSION_CHARS} characters"));
    }
    let parser = environment(names.dialect).parser().max_recursion_depth(NESTING);
    let parsed = parser.parse(source).map_err(|errors| {
        let told = errors.errors.iter().take(3).map(|e| {
            let (line, column) = e.pos;
            // The parser's own text spreads over lines and draws the expression.
            let message = e.msg.lines().next().unwrap_or_default();
            if line > 0 { format!("line {line}, column {column}: {message}") } else { message.to_owned() }
        });
        let mut told = told.collect::<Vec<_>>().join("; ");
        if names.dialect == Dialect::System && source.contains('?') && told.contains("unsupported syntax") {
            told.push_str(" (a rule on facts has no optional values: they would turn an absent fact into a default)");
        }
        told
    })?;
    if depth(&parsed) > DEPTH {
        return Err(format!("its parts nest or follow each other more than {DEPTH} deep; use variables"));
    }
    let mut check = Check { names, scope: Vec::new(), problems: Vec::new(), asks_namespace: false };
    check.expression(&parsed);
    if !check.problems.is_empty() {
        return Err(check.problems.join("; "));
    }
    let asks_namespace = check.asks_namespace;
    Ok(Expression { source: source.trim().to_owned(), tree: budget::metered(parsed), asks_namespace })
}

fn depth(expr: &IdedExpr) -> usize {
    let deepest = |parts: &[&IdedExpr]| parts.iter().map(|part| depth(part)).max().unwrap_or(0);
    1 + match &expr.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => 0,
        Expr::Select(select) => depth(&select.operand),
        Expr::List(list) => list.elements.iter().map(depth).max().unwrap_or(0),
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).map(depth).max().unwrap_or(0),
        Expr::Comprehension(c) => deepest(&[&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result]),
        Expr::Map(map) => map.entries.iter().map(|entry| entry_depth(&entry.expr)).max().unwrap_or(0),
        Expr::Struct(object) => object.entries.iter().map(|entry| entry_depth(&entry.expr)).max().unwrap_or(0),
    }
}

fn entry_depth(entry: &EntryExpr) -> usize {
    match entry {
        EntryExpr::MapEntry(entry) => depth(&entry.key).max(depth(&entry.value)),
        EntryExpr::StructField(field) => depth(&field.value),
    }
}

/// Looks for names that nothing defines. The interpreter would only find them where evaluation happens to pass.
struct Check<'a> {
    names: Names<'a>,
    scope: Vec<String>,
    problems: Vec<String>,
    asks_namespace: bool,
}

impl Check<'_> {
    fn problem(&mut self, text: String) {
        if !self.problems.contains(&text) {
            self.problems.push(text);
        }
    }

    fn is_free(&self, expr: &IdedExpr, wanted: &str) -> bool {
        matches!(&expr.expr, Expr::Ident(name) if name == wanted) && !self.scope.iter().any(|local| local == wanted)
    }

    fn name(&mut self, name: &str) {
        let known = name.starts_with('@')
            || self.scope.iter().any(|local| local == name)
            || name == "object"
            || (name == "item" && self.names.item)
            || TYPE_NAMES.contains(&name);
        if known {
            return;
        }
        match name {
            "namespaceObject" if self.names.dialect == Dialect::Cluster => self.asks_namespace = true,
            "variables" => self.problem("`variables` can only be used as `variables.NAME`".to_owned()),
            _ if REQUEST_NAMES.contains(&name) => self.problem(format!(
                "`{name}` exists only while the API server admits a request, and gapscan judges what is there"
            )),
            _ => self.problem(format!("nothing is named `{}`", crate::base::text::brief(name))),
        }
    }

    fn expression(&mut self, expr: &IdedExpr) {
        match &expr.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.name(name),
            Expr::Select(select) => {
                if self.is_free(&select.operand, "variables") {
                    if !self.names.variables.contains(&select.field) {
                        self.problem(format!("no variable `{}` is declared before it", select.field));
                    }
                    return;
                }
                if self.names.dialect == Dialect::System
                    && self.is_free(&select.operand, "object")
                    && !FACTS.contains(&select.field.as_str())
                {
                    self.problem(format!("there is no fact `{}`; facts are {}", select.field, FACTS.join(", ")));
                }
                self.expression(&select.operand);
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.expression(element)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.expression(&entry.key);
                        self.expression(&entry.value);
                    }
                }
            }
            Expr::Struct(object) => self.problem(format!("there is no message type `{}`", object.type_name)),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(macro_) => {
                self.expression(&macro_.iter_range);
                self.expression(&macro_.accu_init);
                let outside = self.scope.len();
                self.scope.push(macro_.iter_var.clone());
                self.scope.extend(macro_.iter_var2.clone());
                self.expression(&macro_.loop_cond);
                self.expression(&macro_.loop_step);
                self.expression(&macro_.result);
                self.scope.truncate(outside);
            }
        }
    }

    fn call(&mut self, call: &CallExpr) {
        let name = call.func_name.as_str();
        let operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
        let optional = self.names.dialect == Dialect::Cluster && OPTIONAL_FUNCTIONS.contains(&name);
        let quote = name == "quote" && call.target.as_deref().is_some_and(budget::is_namespace);
        if !(operator || optional || quote || FUNCTIONS.contains(&name)) {
            self.problem(format!("there is no function `{}`", crate::base::text::brief(name)));
        }
        if let Some(target) = call.target.as_deref().filter(|target| !budget::is_namespace(target)) {
            self.expression(target);
        }
        call.args.iter().for_each(|arg| self.expression(arg));
        if name == "matches"
            && let Some(Expr::Literal(LiteralValue::String(pattern))) = call.args.last().map(|arg| &arg.expr)
        {
            // It would otherwise fail only when a rule runs.
            if let Err(reason) = pattern::compile(pattern.inner()) {
                self.problem(format!(
                    "`{}` is no regular expression: {reason}",
                    crate::base::text::brief(pattern.inner())
                ));
            }
        }
    }
}
