//! Which open connection does a request to an HTTP backend take?
//!
//! A list of idle ones: a request costs no lock but that of the list, and no task of its own. Whoever
//! waits for an answer reads it; an idle connection is read by nobody. One that is given up in the
//! middle of an answer is closed at once, which is how a server of the modern era learns of a
//! cancellation.
//!
//! This is not hyper's client, though the grammar is hyper's (httparse): that one reads and writes in
//! a task of its own and makes a map of all headers, which costs a fifth of a whole call
//! (docs/performance.md).

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut, buf::Chain};
use http::{HeaderValue, StatusCode, Uri};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};

use super::{
    http1::{self, Head, Left, Malformed, Request},
    transport::{Kind, Trouble},
};
use crate::weaken;

/// Node closes idle connections after five seconds; a request must not meet that moment.
const IDLE: Duration = Duration::from_secs(4);
/// Idle connections kept; more are closed after use.
const MOST_IDLE: usize = 256;
const CONNECT: Duration = Duration::from_secs(5);
/// How much room there is to read into at least, and how much is made where there is less.
const ROOM: usize = 2 << 10;
const BUFFER: usize = 8 << 10;
/// The most room that is made because a length was announced, before anything of it has come.
const ANNOUNCED: usize = 1 << 20;

/// The connections to one server.
#[derive(Clone)]
pub struct Pool {
    host: Arc<str>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Arc<Idle>,
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
    pub async fn send(&self, request: Request) -> Result<Answer, Trouble> {
        let (first, rest) = request.into_bytes();
        weaken::show(|| String::from_utf8_lossy(&first).into_owned());
        let idle = self.idle.take();
        let fresh = idle.is_none();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Box::pin(self.connect()).await?, // Rare and large.
        };
        let mut sent = connection.stream.write(&first, &rest).await;
        if sent.is_err_and(|sent| sent == 0) {
            if fresh {
                return Err(Trouble::new(Kind::NotSent, "the connection was closed at once"));
            }
            connection = Box::pin(self.connect()).await?;
            sent = connection.stream.write(&first, &rest).await;
        }
        // A server may answer before it has taken all, and close.
        match connection.head().await {
            Ok((head, left, reusable)) => {
                let reusable = reusable && sent.is_ok();
                let (connection, idle) = (Some(connection), Arc::clone(&self.idle));
                Ok(Answer { head, body: Body { left, reusable, connection, idle } })
            }
            Err(_) if sent == Err(0) => Err(Trouble::new(Kind::NotSent, "the connection was closed at once")),
            Err(fault) => Err(Trouble::new(Kind::Lost, format!("{fault} before the answer came"))),
        }
    }

    async fn connect(&self) -> Result<Box<Connection>, Trouble> {
        let not_sent = |why: &str| Trouble::new(Kind::NotSent, why);
        let tcp = TcpStream::connect((&*self.host, self.port));
        let tcp = tokio::time::timeout(CONNECT, tcp).await;
        let tcp = tcp.map_err(|_| not_sent("no connection within 5 s"))?;
        let tcp = tcp.map_err(|why| not_sent(&format!("no connection: {}", plain(&why))))?;
        tcp.set_nodelay(true).ok();
        let stream = match &self.tls {
            None => Stream::Plain(tcp),
            Some((connector, name)) => {
                let stream = tokio::time::timeout(CONNECT, connector.connect(name.clone(), tcp)).await;
                let stream = stream.map_err(|_| not_sent("no TLS handshake within 5 s"))?;
                let stream = stream.map_err(|why| not_sent(&format!("no TLS connection: {why}")))?;
                Stream::Tls(Box::new(stream))
            }
        };
        Ok(Box::new(Connection { stream, buffer: BytesMut::new() }))
    }
}

/// An I/O error without the address that some of them print.
pub fn plain(why: &io::Error) -> String {
    match why.kind() {
        io::ErrorKind::ConnectionRefused => "refused; is the server running?".into(),
        kind => kind.to_string(),
    }
}

fn tls(host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    use rustls_platform_verifier::ConfigVerifierExt as _;
    let config = tokio_rustls::rustls::ClientConfig::with_platform_verifier();
    let config = config.map_err(|why| format!("the machine's certificates cannot be read: {why}"))?;
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| format!("{host:?} is no name for a TLS connection"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Sends two texts, one after the other. An error says how much was sent before it.
    async fn write(&mut self, first: &[u8], rest: &[u8]) -> Result<(), usize> {
        let all = first.len() + rest.len();
        let mut text = Buf::chain(first, rest);
        while text.has_remaining() {
            let written = match self {
                // Most requests are one text, for which the system has a shorter way.
                Self::Plain(stream) if rest.is_empty() => stream.write(text.chunk()).await,
                Self::Plain(stream) => stream.write_vectored(&pair(&text)).await,
                Self::Tls(stream) => stream.write(text.chunk()).await,
            };
            match written {
                Ok(written) if written > 0 => text.advance(written),
                Ok(_) | Err(_) => return Err(all - text.remaining()),
            }
        }
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush().await.map_err(|_| all),
        }
    }

    /// Reads what there is. Nothing is read at the end.
    async fn read(&mut self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            Self::Tls(stream) => stream.read_buf(buffer).await,
        }
    }

    /// Does nothing come from it, not even its end?
    fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let (mut buffer, mut context) = (ReadBuf::new(&mut byte), Context::from_waker(Waker::noop()));
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(&mut context, &mut buffer).is_pending(),
            Self::Tls(stream) => Pin::new(stream).poll_read(&mut context, &mut buffer).is_pending(),
        }
    }
}

/// What is left of two texts.
fn pair<'a>(text: &'a Chain<&[u8], &[u8]>) -> [IoSlice<'a>; 2] {
    [text.first_ref(), text.last_ref()].map(|part| IoSlice::new(part))
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the connection broke")]
    Broken,
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

struct Connection {
    stream: Stream,
    /// What was read and is not used yet.
    buffer: BytesMut,
}

impl Connection {
    async fn head(&mut self) -> Result<(Head, Left, bool), Fault> {
        loop {
            self.more(0).await?;
            if let Some(read) = http1::head(&mut self.buffer)? {
                return Ok(read);
            }
        }
    }

    /// The beginning of what was read. What is short is copied, so that whoever keeps it does not keep
    /// the rest of the buffer along.
    fn cut(&mut self, length: usize) -> Bytes {
        if length > BUFFER {
            let rest = self.buffer.split_off(length);
            return std::mem::replace(&mut self.buffer, rest[..].into()).freeze();
        }
        let text = Bytes::copy_from_slice(&self.buffer[..length]);
        self.buffer.advance(length);
        text
    }

    /// Reads more, where so much is expected. An end is a fault.
    async fn more(&mut self, expected: usize) -> Result<(), Fault> {
        if self.buffer.capacity() - self.buffer.len() < ROOM.max(expected) {
            self.buffer.reserve(BUFFER.max(expected));
        }
        match self.stream.read(&mut self.buffer).await {
            Ok(0) | Err(_) => Err(Fault::Broken),
            Ok(_) => Ok(()),
        }
    }
}

/// An answer, of which the head has come.
pub struct Answer {
    pub head: Head,
    pub body: Body,
}

impl Answer {
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<HeaderValue> {
        self.head.values(name).into_iter().next()
    }
}

/// The body of an answer. Read to its end, it gives its connection back; dropped before, it
/// closes it, since what is left of the answer would only be in the next one's way.
pub struct Body {
    left: Left,
    reusable: bool,
    connection: Option<Box<Connection>>,
    idle: Arc<Idle>,
}

impl Body {
    /// The next piece; none at the end.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, Fault> {
        let Some(connection) = &mut self.connection else { return Ok(None) };
        loop {
            if self.left == Left::NOTHING {
                return Ok(None);
            }
            if let Some(piece) = self.left.piece(&mut connection.buffer)? {
                return Ok(Some(piece));
            }
            if self.left == Left::NOTHING {
                return Ok(None);
            }
            match connection.more(0).await {
                Err(Fault::Broken) if self.left == Left::All => self.left = Left::NOTHING,
                more => more?,
            }
        }
    }

    /// Reads the whole body; nothing if it is longer than this.
    pub async fn whole(mut self, limit: usize) -> Result<Option<Bytes>, Fault> {
        if let (Left::Bytes(left), Some(connection)) = (self.left, &mut self.connection) {
            let Some(length) = usize::try_from(left).ok().filter(|left| *left <= limit) else {
                return Ok(None);
            };
            while connection.buffer.len() < length {
                connection.more((length - connection.buffer.len()).min(ANNOUNCED)).await?;
            }
            self.left = Left::NOTHING;
            return Ok(Some(connection.cut(length)));
        }
        let mut all = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            if all.len() + piece.len() > limit {
                return Ok(None);
            }
            all.extend_from_slice(&piece);
        }
        Ok(Some(all.freeze()))
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if self.left == Left::NOTHING
            && self.reusable
            && let Some(connection) = self.connection.take()
        {
            self.idle.put(connection);
        }
    }
}

/// Connections that wait for their next request.
#[derive(Default)]
struct Idle {
    list: Mutex<Vec<(Box<Connection>, Instant)>>,
    swept: AtomicBool,
}

impl Idle {
    fn list(&self) -> MutexGuard<'_, Vec<(Box<Connection>, Instant)>> {
        self.list.lock().expect("no code panics while it holds this lock")
    }

    /// One that is open, as far as is known, and on which nothing has come that nobody asked for.
    fn take(&self) -> Option<Box<Connection>> {
        let mut list = self.list();
        while let Some((mut connection, since)) = list.pop() {
            if since.elapsed() >= IDLE {
                list.clear(); // The rest were put back earlier still.
            } else if connection.stream.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    fn put(self: &Arc<Self>, connection: Box<Connection>) {
        // What follows an answer belongs to none.
        if !connection.buffer.is_empty() {
            return;
        }
        let mut list = self.list();
        if list.len() < MOST_IDLE {
            list.push((connection, Instant::now()));
        }
        drop(list);
        // Outside of a runtime the process is ending, and its connections with it.
        if !self.swept.swap(true, Ordering::Relaxed)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(sweep(Arc::downgrade(self)));
        }
    }
}

/// Closes connections that have been idle too long, until there are none.
async fn sweep(idle: Weak<Idle>) {
    loop {
        tokio::time::sleep(IDLE).await;
        let Some(idle) = idle.upgrade() else { return };
        let mut list = idle.list();
        list.retain(|(_, since)| since.elapsed() < IDLE);
        if list.is_empty() {
            idle.swept.store(false, Ordering::Relaxed);
            return;
        }
    }
}
