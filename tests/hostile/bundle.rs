//! The library's bundle module, with the test support that makes bundles.

pub(crate) use gapscan::bundle::*;

#[allow(dead_code, reason = "the library's own tests use more of it")]
#[path = "../../src/bundle/sample.rs"]
pub(crate) mod sample;
