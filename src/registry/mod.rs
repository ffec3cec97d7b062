//! OCI registries: references, a client, and the embedded server.
