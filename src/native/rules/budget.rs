//! A bound on the work of one evaluation.
//!
//! The interpreter has no step limit, and a rule with two nested loops over a hostile target's 200,000 files would run for
//! hours. So the tree of each expression is rewritten once, when it is compiled: loops and operations whose cost grows
//! with their operands first pay from a [`Budget`]. The price is counted in values visited or copied, not in time: the
//! same rule on the same facts always ends the same way, on a slow machine too. When the budget is used up every
//! payment fails, loops end, and the judge sees [`Budget::exhausted`] whatever the expression made of the error.
//!
//! Between two payments the interpreter does work that is bounded by the length of the expression and by what was paid
//! for. Regular expressions are linear in the text (crate regex) and bounded in size.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::{CelInt, DYN_TYPE, INT_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::value::{self, Extent};
use super::{object, pattern};

/// The variable under which an evaluation finds its budget. No expression can name it.
pub(super) const VARIABLE: &str = "@budget";
const PAY: &str = "@pay";
const PAY_TO_COMPARE: &str = "@pay_to_compare";

static BUDGET_TYPE: Type = Type::new_unspecified_type("@budget");

/// What is left of the steps that one evaluation may take.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<AtomicU64>);

impl Budget {
    pub(super) fn new(steps: u64) -> Self {
        Self(Arc::new(AtomicU64::new(steps)))
    }

    /// Whether it is used up.
    pub(super) fn exhausted(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn pay(&self, steps: u64) -> Result<(), ExecutionError> {
        let left = self.left().saturating_sub(steps);
        self.0.store(left, Ordering::Relaxed);
        if left == 0 { Err(ExecutionError::function_error(VARIABLE, "used up")) } else { Ok(()) }
    }
}

impl Val for Budget {
    fn get_type(&self) -> &Type {
        &BUDGET_TYPE
    }
    fn cel_type() -> &'static Type {
        &BUDGET_TYPE
    }
    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Budget {}

/// Declares the functions by which expressions pay.
pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    fn charge<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>, extent: Extent) -> Result<CowVal<'b, 'v>, ExecutionError> {
        let value = args.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
        let fixed = args.get(1).and_then(|steps| steps.downcast_ref::<CelInt>()).map_or(0, |steps| *steps.inner());
        let budget = args
            .first()
            .and_then(|budget| budget.downcast_ref::<Budget>())
            .ok_or(ExecutionError::MissingArgumentOrTarget)?;
        let weight = value::weight(value.as_ref(), extent, budget.left());
        budget.pay(weight.saturating_add(fixed.unsigned_abs()))?;
        Ok(value)
    }
    fn pay<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
        charge(args, Extent::Copied)
    }
    fn pay_to_compare<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
        let value = charge(args, Extent::Whole)?;
        object::comparable(value.as_ref())?;
        Ok(if value::holds_items(value.as_ref()) { CowVal::Owned(value::native(value.as_ref())) } else { value })
    }
    env.add_overload(PAY, PAY, vec![DYN_TYPE, INT_TYPE, DYN_TYPE], pay)?;
    env.add_overload(PAY_TO_COMPARE, PAY_TO_COMPARE, vec![DYN_TYPE, INT_TYPE, DYN_TYPE], pay_to_compare)
}

/// The same expression, paying for what it does.
pub(super) fn metered(mut expr: IdedExpr) -> IdedExpr {
    rewrite(&mut expr);
    expr
}

fn paid(expr: IdedExpr, by: &str, steps: i64) -> IdedExpr {
    let id = expr.id;
    let node = |expr| IdedExpr { id, expr };
    node(Expr::Call(CallExpr {
        func_name: by.to_owned(),
        target: None,
        args: vec![
            node(Expr::Ident(VARIABLE.to_owned())),
            node(Expr::Literal(LiteralValue::Int(CelInt::from(steps)))),
            expr,
        ],
    }))
}

pub(super) fn pay_here(expr: &mut IdedExpr, steps: i64) {
    *expr = paid(std::mem::take(expr), PAY, steps);
}

fn nodes(expr: &IdedExpr) -> i64 {
    1 + match &expr.expr {
        Expr::Call(call) => {
            call.target.iter().map(|t| nodes(t)).sum::<i64>() + call.args.iter().map(nodes).sum::<i64>()
        }
        Expr::Comprehension(c) => {
            [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result].map(nodes).iter().sum()
        }
        Expr::List(list) => list.elements.iter().map(nodes).sum(),
        Expr::Select(select) => nodes(&select.operand),
        Expr::Map(map) => map.entries.len() as i64,
        _ => 0,
    }
}

fn rewrite(expr: &mut IdedExpr) {
    match &mut expr.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
        Expr::Select(select) => rewrite(&mut select.operand),
        // Literals copy their elements.
        Expr::List(list) => {
            for element in &mut list.elements {
                rewrite(element);
                pay_unless_literal(element);
            }
        }
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    rewrite(&mut entry.key);
                    rewrite(&mut entry.value);
                    pay_unless_literal(&mut entry.value);
                }
            }
        }
        Expr::Struct(object) => {
            for entry in &mut object.entries {
                if let EntryExpr::StructField(field) = &mut entry.expr {
                    rewrite(&mut field.value);
                }
            }
        }
        Expr::Call(call) => {
            if let Some(target) = &mut call.target {
                rewrite(target);
                if !is_namespace(target) {
                    pay_unless_literal(target);
                }
            }
            call.args.iter_mut().for_each(rewrite);
            pay_for_operands(call);
            pattern::redirect(call);
        }
        Expr::Comprehension(loop_) => {
            let per_turn = nodes(&loop_.loop_step);
            rewrite(&mut loop_.iter_range);
            rewrite(&mut loop_.loop_step);
            rewrite(&mut loop_.result);
            // Each element is copied into the loop's variable once.
            pay_here(&mut loop_.iter_range, 1);
            if !pay_in_append_step(&mut loop_.loop_step, &loop_.accu_var, per_turn) {
                // An error here ends the loop at once, where one in the step would be put off to its end.
                pay_here(&mut loop_.loop_cond, per_turn);
            }
        }
    }
}

fn pay_unless_literal(expr: &mut IdedExpr) {
    if !matches!(expr.expr, Expr::Literal(_)) {
        pay_here(expr, 1);
    }
}

/// Whether this is the `optional` of `optional.of(x)`: part of a function's name, and no value.
pub(super) fn is_namespace(target: &IdedExpr) -> bool {
    matches!(&target.expr, Expr::Ident(name) if name == "optional" || name == "strings")
}

/// Operations whose cost grows with their operands.
fn pay_for_operands(call: &mut CallExpr) {
    let scalar = |expr: &IdedExpr| matches!(expr.expr, Expr::Literal(_));
    match call.func_name.as_str() {
        operators::EQUALS | operators::NOT_EQUALS => {
            // Comparing with a literal number, string or boolean is one step, and what is compared is none of the values
            // that can't be.
            let plain = |arg: &IdedExpr| matches!(&arg.expr, Expr::Literal(value) if *value != LiteralValue::Null);
            if !call.args.iter().any(plain) {
                for arg in &mut call.args {
                    *arg = paid(std::mem::take(arg), PAY_TO_COMPARE, 1);
                }
            }
        }
        operators::IN => {
            if let [item, list] = call.args.as_mut_slice() {
                if !scalar(item) {
                    *item = paid(std::mem::take(item), PAY_TO_COMPARE, 1);
                }
                pay_here(list, 1);
            }
        }
        operators::ADD => {
            call.args.iter_mut().filter(|arg| !is_loop_list(arg) && !scalar(arg)).for_each(|arg| pay_here(arg, 1))
        }
        operators::CONDITIONAL
        | operators::LOGICAL_AND
        | operators::LOGICAL_OR
        | operators::LOGICAL_NOT
        | operators::NOT_STRICTLY_FALSE
        | operators::INDEX
        | operators::OPT_INDEX
        | operators::OPT_SELECT => {}
        _ => call.args.iter_mut().filter(|arg| !scalar(arg)).for_each(|arg| pay_here(arg, 1)),
    }
}

/// The accumulator of `map` and `filter` must stay as the macro wrote it: the interpreter knows that shape and appends in
/// place. It is named `@result`, which no author can write.
fn is_loop_list(expr: &IdedExpr) -> bool {
    matches!(&expr.expr, Expr::Ident(name) if name.starts_with('@')) || matches!(expr.expr, Expr::List(_))
}

/// Lets `map` and `filter` pay for each turn inside their step; whether this was such a step.
fn pay_in_append_step(step: &mut IdedExpr, accu: &str, per_turn: i64) -> bool {
    let Expr::Call(call) = &mut step.expr else { return false };
    let is_accu = |expr: &IdedExpr| matches!(&expr.expr, Expr::Ident(name) if name == accu);
    match (call.func_name.as_str(), call.args.as_mut_slice()) {
        (operators::CONDITIONAL, [guard, append, otherwise]) if is_accu(otherwise) => {
            if !pay_in_append_step(append, accu, 1) {
                return false;
            }
            pay_here(guard, per_turn);
            true
        }
        (operators::ADD, [list, appended]) if is_accu(list) => {
            let Expr::List(items) = &mut appended.expr else { return false };
            items.elements.iter_mut().for_each(|item| pay_here(item, per_turn));
            true
        }
        _ => false,
    }
}
