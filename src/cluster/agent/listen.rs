//! The canary's listener: takes connections and closes them.

use std::net::{Ipv4Addr, Ipv6Addr};

use tokio::net::TcpListener;

use super::error::AgentError;

/// Takes connections on this port of every address, of both families where the pod has both, for ever.
///
/// # Errors
/// When no address of either family can be listened on.
pub async fn listen(port: u16) -> Result<(), AgentError> {
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
