//! gapscan carries security scanning across an air gap.
//!
//! The modules are the stages of the flow, in layers: an import may point down only, and siblings do not know each other
//! (`tests/layers.rs` holds this). ARCHITECTURE.md has the map.
//!
//! The law of the project: *not evaluated is never a pass*. Every expected control of every target ends as exactly one
//! [`model::outcome::Outcome`], and [`model::record::TaskRecord`] can't be made otherwise.

pub mod base;
pub mod bundle;
pub mod cli;
pub mod cluster;
pub mod ledger;
pub mod model;
pub mod native;
pub mod registry;
pub mod report;
pub mod results;
pub mod stage;
pub mod trust;
