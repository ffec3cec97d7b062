//! The other end: what gapscan's own binary does inside a pod. It talks to nobody; the runner comes to it by exec, or reads
//! its termination message.

pub mod beside;
pub mod collect;
pub mod error;
pub mod hold;
pub mod install;
pub mod listen;
pub mod own_sockets;
pub mod parcel;
pub mod probe;
pub mod protocol;
pub mod run;
pub mod sockets;
pub mod unreadable;
