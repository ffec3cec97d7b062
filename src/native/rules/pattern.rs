//! Regular expressions, compiled once.
//!
//! The interpreter compiles the pattern of `matches` at each call, which for a rule over many files is nearly all the
//! time it takes. So calls go to a function of the same meaning that keeps what it compiled. Matching takes time linear
//! in the text (crate regex), and the size of a pattern is bounded.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use cel::common::ast::{CallExpr, Expr};
use cel::common::types::{CelBool, CelString, STRING_TYPE};
use cel::common::value::CowVal;
use cel::{DeclarationError, Env, ExecutionError};
use regex::{Regex, RegexBuilder};

use super::budget;

const MATCHES: &str = "matches";
const KEPT: &str = "@matches";
/// Bytes of a compiled pattern. The patterns that people write take some kilobytes.
const PATTERN_BYTES: usize = 1 << 20;
/// How many patterns are kept; all that ship are a few dozen.
const PATTERNS: usize = 256;
/// The price of compiling a pattern that is only known when a rule runs.
const COMPILE_STEPS: i64 = 200;

/// Compiles a pattern; the error is one line.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).dfa_size_limit(PATTERN_BYTES).build().map_err(|error| {
        // The library draws the pattern over several lines, with the reason in the last.
        error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

/// Declares the function that keeps what it compiled.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
        let text = |i: usize| args.get(i).and_then(|arg| arg.downcast_ref::<CelString>()).map(CelString::inner);
        let (Some(text), Some(pattern)) = (text(0), text(1)) else {
            return Err(ExecutionError::MissingArgumentOrTarget);
        };
        let pattern = kept(pattern).map_err(|reason| ExecutionError::function_error(MATCHES, reason))?;
        Ok(CowVal::owned(CelBool::from(pattern.is_match(text))))
    }
    env.add_overload(KEPT, KEPT, vec![STRING_TYPE, STRING_TYPE], matches)
}

fn kept(pattern: &str) -> Result<Regex, String> {
    static KEPT_PATTERNS: Mutex<Option<HashMap<String, Regex>>> = Mutex::new(None);
    // Each entry is whole before it is inserted, so that a panic elsewhere leaves nothing half done.
    let mut patterns = KEPT_PATTERNS.lock().unwrap_or_else(PoisonError::into_inner);
    let patterns = patterns.get_or_insert_default();
    if let Some(found) = patterns.get(pattern) {
        return Ok(found.clone());
    }
    let compiled = compile(pattern)?;
    if patterns.len() >= PATTERNS {
        patterns.clear();
    }
    patterns.insert(pattern.to_owned(), compiled.clone());
    Ok(compiled)
}

/// Sends a call of `matches`, in either form, to the function above.
pub(super) fn redirect(call: &mut CallExpr) {
    let args = call.args.len() + usize::from(call.target.is_some());
    if call.func_name != MATCHES || args != 2 {
        return;
    }
    if let Some(target) = call.target.take() {
        call.args.insert(0, *target);
    }
    call.func_name = KEPT.to_owned();
    if let Some(pattern) = call.args.get_mut(1).filter(|pattern| !matches!(pattern.expr, Expr::Literal(_))) {
        budget::pay_here(pattern, COMPILE_STEPS);
    }
}
