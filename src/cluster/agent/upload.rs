//! Results by HTTPS: a pod's agent sends its parcel to the runner, once, with a token that is good for one scan, to exactly the
//! certificate that the runner made for this run.
//!
//! What may happen on the way, and where it ends:
//!
//! | accident or attack | where it ends |
//! |---|---|
//! | somebody else answers at the runner's address | `send`: the certificate is not the one whose digest the agent was given; nothing was sent |
//! | a wrong token, of another scan, or for no scan | `receive`: 401, in constant time; recorded |
//! | a token that is used a second time, while the first upload goes on or after it | 409, and after the scan 401; recorded |
//! | a connection that says nothing, half a request, a body byte by byte | limits of time for each; the scan's upload counts as cut |
//! | a body that goes on and on | the limit of each part of the parcel, before its bytes are kept: 413 |
//! | a cut, bits that changed, blocks twice | the parcel's own framing |
//! | connections without number | `receive`: no more than are served at a time are taken |
//! | whatever comes when the scan is over | its token is dead when its [`Ticket`] is dropped |

mod receive;
mod send;

pub use receive::{Ticket, Uploads};
pub use send::Destination;

/// The path below which results are put.
const PATH: &str = "/results/";

/// The name that the certificate is for. It proves nothing: the digest does.
const NAME: &str = "runner.gapscan.internal";

#[cfg(test)]
mod tests;
