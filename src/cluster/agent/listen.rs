//! The canary's listener: takes connections and closes them.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::error::AgentError;

/// Takes connections on these ports of every address, of both families where the pod has both, until SIGTERM or the deadline.
///
/// # Errors
/// When on one of them no address of either family can be listened on, or signals can't be listened for.
pub async fn listen(ports: &[u16], deadline: Duration) -> Result<(), AgentError> {
    // As the first process of its container it gets no signal that it does not ask for.
    let mut terminated = signal(SignalKind::terminate()).map_err(AgentError::Signals)?;
    tokio::select! {
        outcome = try_join_all(ports.iter().map(|port| take(*port))) => outcome.map(|_| ()),
        _ = terminated.recv() => Ok(()),
        () = tokio::time::sleep(deadline) => Ok(()),
    }
}

async fn take(port: u16) -> Result<Infallible, AgentError> {
    // With the kernel's default this one takes IPv4 connections too; where there is no IPv6, the other does.
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .map_err(|source| AgentError::Listen { port, source })?,
    };
    loop {
        // A connection that fails while it is taken is the other side's matter.
        drop(listener.accept().await);
    }
}
