//! Results by HTTPS: a pod's agent sends its parcel to the runner with a token that is good for one scan, to exactly the
//! certificate that the runner made for this run. An upload that breaks off is repeated from its beginning while the agent holds.
//!
//! What may happen on the way, and where it ends:
//!
//! | accident or attack | where it ends |
//! |---|---|
//! | somebody else answers at the runner's address | `send`: the certificate is not the one whose digest the agent was given; nothing was sent |
//! | a wrong token, of another scan, or for no scan | `slot`: 401, in constant time; recorded |
//! | a token that is used a second time while an upload goes on, or after a whole one | `slot`: 409 and 410, and after the scan 401; recorded |
//! | the connection breaks, whenever | the agent sends all of it again, with the same token, which only a whole upload uses up |
//! | the answer to a whole upload is lost | 410 at the next attempt, which the agent takes for what it is |
//! | uploads that break off without number | `slot`: their number has a limit, and one goes on at a time |
//! | a connection that says nothing, half a request, a body byte by byte | limits of time for each; the upload counts as cut |
//! | a body that goes on and on | the limit of each part of the parcel, before its bytes are kept: 413, and that is the end |
//! | bits that changed, blocks twice, something missing | the parcel's own framing: 400, and 422 for the third time |
//! | connections without number | `base::listener`: no more than are served at a time are taken |
//! | whatever comes when the scan is over | its token is dead when its [`Ticket`] is dropped |

mod receive;
mod send;
mod slot;

pub use receive::Uploads;
pub use send::Destination;
pub use slot::Ticket;

/// The path below which results are put.
const PATH: &str = "/results/";

/// The name that the certificate is for. It proves nothing: the digest does.
const NAME: &str = "runner.gapscan.internal";

/// How often a damaged upload is taken. A connection that breaks is another matter.
const DAMAGED: u32 = 3;

/// What the runner answers, and what the agent makes of it.
mod status {
    use hyper::StatusCode;

    /// No such scan, or another token: there is nothing to repeat.
    pub(super) const UNKNOWN: StatusCode = StatusCode::UNAUTHORIZED;
    /// Another upload of the scan goes on: a later one may be taken.
    pub(super) const BUSY: StatusCode = StatusCode::CONFLICT;
    /// The scan's result is here already, or will never be.
    pub(super) const SETTLED: StatusCode = StatusCode::GONE;
    /// It was not whole: it may be sent again.
    pub(super) const DAMAGED: StatusCode = StatusCode::BAD_REQUEST;
    /// It took too long: it may be sent again.
    pub(super) const SLOW: StatusCode = StatusCode::REQUEST_TIMEOUT;
    /// It was not whole, once too often.
    pub(super) const HOPELESS: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

    /// Whether it may be sent again after this answer.
    pub(super) fn may_repeat(answer: u16) -> bool {
        [BUSY, DAMAGED, SLOW].iter().any(|status| status.as_u16() == answer)
    }
}

#[cfg(test)]
mod tests;
