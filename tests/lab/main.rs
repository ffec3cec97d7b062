//! End to end, across a real air gap: bundles are built on the connected side from its registry, carried over a pipe, loaded
//! into the enclave's registry, and scans run in the enclave's cluster.
//!
//! These tests need the lab, which `scripts/test` starts; it names it in `GAPSCAN_TEST_LAB`. Without it each test says that it
//! is skipped. They share one cluster, and some freeze or break parts of it: run them with `--test-threads=1`.

mod collector;
mod doctor;
mod egress;
mod enclave;
mod external;
mod faults;
mod flow;
mod hostile;
mod install;
mod installation;
mod isolation;
mod lab;
mod layers;
mod node;
mod outage;
mod pull;
mod records;
mod runner;
mod scanners;
mod sidecar;
mod silence;
mod stops;
mod upload;
