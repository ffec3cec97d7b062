//! The other end: what gapscan's own binary does inside a pod. It talks to nobody, but for looking whether the API server can be
//! reached by a scanner that is to talk to it, and for an [`upload`] where that is how results travel; else the runner comes to it by exec, or reads its termination message.

pub mod archive;
pub mod beside;
pub mod collect;
pub mod error;
pub mod hold;
pub mod in_target;
pub mod install;
pub mod kubeconfig;
pub mod listen;
pub mod own_sockets;
pub(crate) mod owners;
pub mod parcel;
pub mod probe;
pub mod protocol;
pub mod relay;
pub mod run;
pub mod sockets;
pub mod unreadable;
pub mod upload;
