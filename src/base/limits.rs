//! Every bound on what comes from outside, in one place.

use std::time::Duration;

/// Bounds on input and on waiting. Each says what it is for; none is a tuning knob for speed.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of one TUF metadata file. A signed 1 GiB targets file must not fill the memory. 8 MiB lists about 30,000 blobs.
    pub metadata_bytes: u64,
    /// How many root rotations one bundle may carry.
    pub root_rotations: u64,
    /// Bytes of one image manifest or index; the distribution-spec asks registries to accept 4 MiB.
    pub manifest_bytes: u64,
    /// How many manifests one bundle may carry; they are held in memory while its blobs stream by.
    pub manifests: usize,
    /// Bytes of all manifests of one bundle together, for the same reason.
    pub manifests_bytes: u64,
    /// Bytes of one blob. The ustar size field ends at 8 GiB.
    pub blob_bytes: u64,
    /// How deep an index may nest indexes.
    pub index_depth: usize,
    /// Bytes that one layer may inflate to while facts are read from it: the decompression bomb.
    pub layer_inflated_bytes: u64,
    /// Entries of one layer: ten million tiny files.
    pub layer_entries: u64,
    /// Bytes of one file whose content is kept as a fact.
    pub fact_file_bytes: u64,
    /// Items of one list of facts (files, packages, processes ...); beyond it the fact counts as truncated.
    pub fact_items: usize,
    /// Bytes of one image that is handed to a scanner as an archive, which a node's disk has to hold.
    pub archive_bytes: u64,
    /// Bytes that a container's collector may print.
    pub collector_bytes: u64,
    /// Bytes of one scanner's result file. A row of the ledger ends at 10^9 bytes (SQLite), and a result that can't be
    /// deflated has to fit into one.
    pub result_bytes: u64,
    /// Bytes of one scanner's result file that is only read, and not kept.
    pub read_bytes: u64,
    /// Controls, findings and components in one scanner's result file, of each.
    pub result_items: usize,
    /// Bytes that are held of one scanner's result while it is read: the names of controls, and what is said of them. A file
    /// may have nothing else.
    pub result_held_bytes: usize,
    /// Details kept with one finding; the raw result keeps them all.
    pub finding_details: usize,
    /// Steps of one rule on one object: a value that is visited or copied is one. Nested loops over a hostile target's
    /// files must not run for hours; the largest list of facts may still be walked a dozen times.
    pub rule_steps: u64,
    /// Bytes of a YAML document that a user wrote.
    pub document_bytes: u64,
    /// How long one request to the API server may take, without streaming.
    pub api_call: Duration,
    /// How long connecting to a registry may take.
    pub connect: Duration,
    /// How long a registry may stay silent while a body is moved.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            metadata_bytes: 8 << 20,
            root_rotations: 1024,
            manifest_bytes: 4 << 20,
            manifests: 4096,
            manifests_bytes: 256 << 20,
            blob_bytes: (8 << 30) - 1,
            index_depth: 4,
            layer_inflated_bytes: 64 << 30,
            layer_entries: 4_000_000,
            fact_file_bytes: 4 << 20,
            fact_items: 200_000,
            archive_bytes: 16 << 30,
            collector_bytes: 64 << 20,
            result_bytes: 953 << 20,
            read_bytes: 1 << 30,
            result_items: 4_000_000,
            result_held_bytes: 128 << 20,
            finding_details: 1000,
            rule_steps: 20_000_000,
            document_bytes: 4 << 20,
            api_call: Duration::from_secs(15),
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(60),
        }
    }
}
