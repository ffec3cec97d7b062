//! The builtin engine: facts, and the CEL rules that judge them.

pub mod facts;
pub mod profile;
pub mod rules;
