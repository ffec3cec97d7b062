//! The stages of the flow, each taking the proof that the one before it made.

pub mod blackout;
pub mod build;
pub mod doctor;
pub mod export;
pub mod import;
pub mod inject;
pub mod install;
pub mod judge;
pub mod load;
pub mod lock;
pub mod plan;
pub mod read;
pub mod registries;
pub mod scan;
pub mod schedule;
pub mod seen;
pub mod serve;
pub mod signing;
pub mod trial;
mod upstream;
pub mod waivers;
