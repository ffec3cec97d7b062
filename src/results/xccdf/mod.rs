//! XCCDF 1.2 (NIST IR 7275 revision 4): benchmarks, and results alone or in the Asset Reporting Format (NIST IR 7694).

pub mod arf;
pub mod benchmark;
pub mod remote;
mod xml;
