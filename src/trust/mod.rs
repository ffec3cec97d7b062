//! Keys, signatures, the pinned root, and the versions that were seen before.
