//! The signed tarball: definition, lock, collection, archive, verification, catalog.
