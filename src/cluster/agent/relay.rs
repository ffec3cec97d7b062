//! The way of a scanner's connections to the API server, where the scanner takes it: a proxy on the loopback of its own pod
//! (RFC 9110, CONNECT) that leads to the API server and nowhere else. TLS goes through it untouched, from the scanner to the
//! server.
//!
//! It adds no right and no protection: the network policy lets the scanner through without it. It is there to be counted. A
//! client like kubectl closes its connections so soon that looking at the pod's sockets misses some, and then nobody could say
//! that the scanner talked to nobody else. What goes through here is known without looking.
//!
//! What could come in, and where it is stopped: a request for another address, without end, or of another kind is refused with
//! an answer, and the connection closed; more than `MOST` connections at once wait.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// How many connections are relayed at once.
const MOST: usize = 100;
/// Bytes of a request, at most.
const REQUEST: usize = 4096;
/// How long a request, and the connection that it asks for, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that came about here: its own end and the other.
pub type Known = (SocketAddr, SocketAddr);

/// A proxy that listens.
pub struct Relay {
    listener: TcpListener,
    servers: Arc<BTreeSet<SocketAddr>>,
}

impl Relay {
    /// Listens on the loopback, to lead to these addresses.
    ///
    /// # Errors
    /// When it can't listen.
    pub async fn listen(servers: impl IntoIterator<Item = SocketAddr>) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        Ok(Self { listener, servers: Arc::new(servers.into_iter().collect()) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Relays until it is dropped, and tells of every connection that comes in and goes out.
    pub async fn run(self, known: mpsc::UnboundedSender<Known>) {
        let own = self.listener.local_addr();
        let room = Arc::new(Semaphore::new(MOST));
        let mut all = JoinSet::new();
        loop {
            let permit = Arc::clone(&room).acquire_owned().await;
            let (Ok(permit), Ok((client, from))) = (permit, self.listener.accept().await) else { continue };
            if let Ok(own) = own {
                // Nobody listens any more only when all is over.
                let _ = known.send((own, from));
            }
            let (servers, known) = (Arc::clone(&self.servers), known.clone());
            all.spawn(async move {
                // Either end may break off at any time; both see it themselves.
                let _ = relay(client, &servers, &known).await;
                drop(permit);
            });
            while all.try_join_next().is_some() {}
        }
    }
}

async fn relay(
    mut client: TcpStream,
    servers: &BTreeSet<SocketAddr>,
    known: &mpsc::UnboundedSender<Known>,
) -> std::io::Result<()> {
    let asked = tokio::time::timeout(PATIENCE, request(&mut client)).await.ok().and_then(Result::ok).flatten();
    let Some(server) = asked.filter(|server| servers.contains(server)) else {
        return client.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    };
    let Ok(Ok(mut upstream)) = tokio::time::timeout(PATIENCE, TcpStream::connect(server)).await else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
    };
    let _ = known.send((upstream.local_addr()?, server));
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await.map(drop)
}

/// The address that a request asks to be connected with; `None` where it is no such request.
async fn request(client: &mut TcpStream) -> std::io::Result<Option<SocketAddr>> {
    let mut text = Vec::new();
    // Byte by byte: what comes after the request is not the relay's.
    while !text.ends_with(b"\r\n\r\n") {
        if text.len() >= REQUEST {
            return Ok(None);
        }
        text.push(client.read_u8().await?);
    }
    let text = String::from_utf8_lossy(&text);
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    Ok(target.parse().ok().filter(|_| method == Some("CONNECT")))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(relay: SocketAddr, request: &str) -> (TcpStream, String) {
        let mut client = TcpStream::connect(relay).await.expect("it listens");
        client.write_all(request.as_bytes()).await.expect("it is sent");
        let mut answer = vec![0; 12];
        client.read_exact(&mut answer).await.expect("it answers");
        (client, String::from_utf8(answer).expect("text"))
    }

    #[tokio::test]
    async fn it_leads_to_the_server_and_nowhere_else_and_tells_of_it() {
        let server = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let other = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (to, elsewhere) = (server.local_addr().expect("an address"), other.local_addr().expect("an address"));
        let relay = Relay::listen([to]).await.expect("it listens");
        let at = relay.address().expect("an address");
        let (sender, mut known) = mpsc::unbounded_channel();
        let running = tokio::spawn(relay.run(sender));
        for wrong in [format!("CONNECT {elsewhere} HTTP/1.1"), format!("GET {to} HTTP/1.1"), "x".repeat(5000)] {
            assert_eq!(asked(at, &format!("{wrong}\r\n\r\n")).await.1, "HTTP/1.1 403", "{wrong}");
            assert_eq!(known.recv().await.expect("it came in").0, at);
        }
        let (mut client, answer) = asked(at, &format!("CONNECT {to} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!(answer, "HTTP/1.1 200");
        let (mut upstream, from) = server.accept().await.expect("it is called");
        assert_eq!(known.recv().await.expect("it came in").1, client.local_addr().expect("an address"));
        assert_eq!(known.recv().await.expect("it went out"), (from, to));
        upstream.write_all(b"hello").await.expect("it is sent");
        let mut all = vec![0; " OK\r\n\r\nhello".len()];
        client.read_exact(&mut all).await.expect("it comes through");
        assert!(all.ends_with(b"hello"));
        running.abort();
    }
}
