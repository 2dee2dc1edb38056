//! How do clients' connections come in, and who gets none?

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::{
    engine::Waystation,
    listener::{
        self,
        connection::{
            self, Closing, Fault,
            seats::{Seat, Seats},
        },
        tls::Certificate,
    },
};

/// How often it is said that connections are refused.
const SAID: Duration = Duration::from_secs(10);
/// What a client is told for whom there is no room.
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Where clients come in.
pub struct Entrance {
    gateway: Arc<Waystation>,
    limits: Arc<connection::limits::Settings>,
    certificate: Option<Arc<Certificate>>,
    seats: Arc<Seats>,
    closing: Arc<Closing>,
    connections: TaskTracker,
}

impl Entrance {
    pub fn new(
        gateway: Waystation,
        listen: &listener::Settings,
        certificate: Option<Arc<Certificate>>,
    ) -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        Self {
            gateway: Arc::new(gateway),
            limits: Arc::new(listen.limits.clone()),
            certificate,
            seats: Seats::new(&listen.limits, &listen.trusted_proxies, files),
            closing: Arc::default(),
            connections: TaskTracker::new(),
        }
    }

    /// Takes connections, for as long as it is asked to.
    pub async fn take(&self, socket: &TcpListener) -> Infallible {
        let mut said: Option<Instant> = None;
        loop {
            let (stream, peer) = match socket.accept().await {
                Ok(accepted) => accepted,
                Err(why) => {
                    // Most often too many open files; the next moment may be better.
                    tracing::warn!(%why, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            match self.seats.take(peer.ip()) {
                Ok(seat) => self.serve(stream, peer, seat),
                Err(full) => {
                    self.refuse(&stream);
                    if said.is_none_or(|said| said.elapsed() > SAID) {
                        said = Some(Instant::now());
                        tracing::warn!(limit = full.key(), "connections are refused");
                    }
                }
            }
        }
    }

    fn refuse(&self, stream: &TcpStream) {
        if self.certificate.is_none() {
            let _ = stream.try_write(NO_ROOM); // Whether it is read or not.
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, seat: Seat) {
        let gateway = Arc::clone(&self.gateway);
        let answer = move |mut request: http::Request<_>| {
            let gateway = Arc::clone(&gateway);
            if gateway.tells_strangers_apart() {
                request.extensions_mut().insert(peer);
            }
            async move { gateway.handle(request).await }
        };
        let (limits, closing) = (Arc::clone(&self.limits), Arc::clone(&self.closing));
        tune(&stream, &limits);
        let ended = |served: Result<(), Fault>, seat: Seat| {
            drop(seat);
            if let Err(why) = served {
                tracing::debug!(%why, "a client's connection ended early");
            }
        };
        let Some(certificate) = &self.certificate else {
            let connection = connection::serve(stream, limits, closing, answer);
            self.connections.spawn(async move { ended(connection.await, seat) });
            return;
        };
        let acceptor = certificate.acceptor();
        self.connections.spawn(async move {
            let shaken = tokio::time::timeout(limits.head.0, acceptor.accept(stream)).await;
            let served = match shaken {
                Ok(Ok(stream)) => connection::serve(stream, limits, closing, answer).await,
                Ok(Err(why)) => Err(why.into()),
                Err(late) => Err(late.into()),
            };
            ended(served, seat);
        });
    }

    /// Ends what clients have open, and waits until requests under way are answered, or for too long.
    /// Connections at rest are left that long to clients who may be sending a request.
    pub async fn drain(&self, rest: Duration) {
        self.closing.begin();
        self.gateway.end_streams();
        self.connections.close();
        let all = async {
            if !rest.is_zero() && tokio::time::timeout(rest, self.connections.wait()).await.is_ok() {
                return;
            }
            self.closing.rest();
            self.connections.wait().await;
        };
        if tokio::time::timeout(self.limits.drain.0, all).await.is_err() {
            tracing::warn!("some requests were still under way and have been cut off (listen.limits.drain)");
        }
    }
}

/// Small answers leave at once, and clients that have vanished are not waited for longer than others
/// that take nothing.
fn tune(stream: &TcpStream, limits: &connection::limits::Settings) {
    let patience = u32::try_from(limits.write.0.as_millis()).unwrap_or(u32::MAX);
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, patience);
}
