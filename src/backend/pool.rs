//! Which open connection does a request to an HTTP backend take?
//!
//! hyper's own client connection and a list of idle ones: a request costs no lock but that of
//! the list, and no task of its own. A connection that is given up in the middle of an answer
//! is closed at once, which is how a server of the modern era learns of a cancellation.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::transport::{Kind, Trouble};

/// Node closes idle connections after five seconds; a request must not meet that moment.
const IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept; more are closed after use.
const MOST_IDLE: usize = 256;
const CONNECT: Duration = Duration::from_secs(5);

/// The connections to one server.
#[derive(Clone)]
pub struct Pool {
    host: Arc<str>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Arc<Mutex<Vec<Idle>>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// The task that moves this connection's bytes.
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

impl Pool {
    /// For the server of an `http` or `https` address.
    pub fn new(url: &Uri) -> Result<Self, String> {
        let host = url.host().ok_or("the address has no host")?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let secure = url.scheme_str() == Some("https");
        let tls = if secure { Some(tls(bare)?) } else { None };
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { host: bare.into(), port, tls, idle: Arc::default() })
    }

    /// Sends a request and waits for the head of its answer. A connection that turns out to
    /// be closed before it took the request is replaced once.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<(Response<Incoming>, Lease), Trouble> {
        let mut request = request;
        loop {
            let (mut connection, fresh) = match self.take() {
                Some(connection) => (connection, false),
                None => (self.connect().await?, true),
            };
            if connection.sender.ready().await.is_err() {
                if fresh {
                    return Err(Trouble::new(Kind::NotSent, "the connection was closed at once"));
                }
                continue;
            }
            match connection.sender.try_send_request(request).await {
                Ok(response) => {
                    let lease = Lease { connection: Some(connection), idle: Arc::clone(&self.idle) };
                    return Ok((response, lease));
                }
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if !fresh => request = unsent,
                    Some(_) => return Err(Trouble::new(Kind::NotSent, "the connection was closed at once")),
                    None => {
                        return Err(Trouble::new(Kind::Lost, "the connection broke before the answer came"));
                    }
                },
            }
        }
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().expect("no code panics while it holds this lock");
        while let Some(Idle { connection, since }) = idle.pop() {
            if !connection.sender.is_closed() && since.elapsed() < IDLE {
                return Some(connection);
            }
            if since.elapsed() >= IDLE {
                idle.clear(); // The rest were put back earlier still.
            }
        }
        None
    }

    async fn connect(&self) -> Result<Connection, Trouble> {
        let not_sent = |why: &str| Trouble::new(Kind::NotSent, why);
        let tcp = TcpStream::connect((&*self.host, self.port));
        let tcp = tokio::time::timeout(CONNECT, tcp).await;
        let tcp = tcp.map_err(|_| not_sent("no connection within 5 s"))?;
        let tcp = tcp.map_err(|why| not_sent(&format!("no connection: {}", plain(&why))))?;
        tcp.set_nodelay(true).ok();
        let Some((connector, name)) = &self.tls else { return handshake(tcp).await };
        let stream = tokio::time::timeout(CONNECT, connector.connect(name.clone(), tcp)).await;
        let stream = stream.map_err(|_| not_sent("no TLS handshake within 5 s"))?;
        handshake(stream.map_err(|why| not_sent(&format!("no TLS connection: {why}")))?).await
    }
}

/// An I/O error without the address that some of them print.
pub fn plain(why: &std::io::Error) -> String {
    match why.kind() {
        std::io::ErrorKind::ConnectionRefused => "refused; is the server running?".into(),
        kind => kind.to_string(),
    }
}

async fn handshake<S>(stream: S) -> Result<Connection, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|why| Trouble::new(Kind::NotSent, format!("no HTTP connection: {why}")))?;
    let task = tokio::spawn(async move {
        let _ = connection.await; // Whoever waits for an answer learns of it there.
    });
    Ok(Connection { sender, task: task.abort_handle() })
}

fn tls(host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    use rustls_platform_verifier::ConfigVerifierExt as _;
    let config = tokio_rustls::rustls::ClientConfig::with_platform_verifier();
    let config = config.map_err(|why| format!("the machine's certificates cannot be read: {why}"))?;
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| format!("{host:?} is no name for a TLS connection"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// The use of a connection for one exchange. Dropped before [`Lease::release`], it closes the
/// connection: what is left of the answer would only be in the next one's way.
pub struct Lease {
    connection: Option<Connection>,
    idle: Arc<Mutex<Vec<Idle>>>,
}

impl Lease {
    /// The answer was read to its end; the connection may serve others.
    pub fn release(mut self) {
        let Some(connection) = self.connection.take() else { return };
        let mut idle = self.idle.lock().expect("no code panics while it holds this lock");
        if idle.len() < MOST_IDLE && !connection.sender.is_closed() {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }
}
