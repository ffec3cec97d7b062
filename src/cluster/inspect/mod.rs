//! What can be seen of a cluster and of the way to it, without changing anything: facts, judged elsewhere.

pub mod entrance;
pub mod grants;
pub mod rights;
pub mod server;
