//! Which open connection does a request to an HTTP backend take?
//!
//! hyper's own client connection and a list of idle ones: a request costs no lock but that of
//! the list, and no task of its own. Whoever waits for an answer moves the bytes of its
//! connection; an idle connection is moved by nobody. One that is given up in the middle of an
//! answer is closed at once, which is how a server of the modern era learns of a cancellation.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::transport::{Kind, Trouble};
use crate::weaken;

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
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Answer>, Trouble> {
        let mut request = request;
        weaken::show(|| {
            let headers: Vec<_> = request.headers().values().map(|value| value.as_bytes()).collect();
            format!("{} {}", request.uri(), String::from_utf8_lossy(&headers.concat()))
        });
        loop {
            let (mut connection, fresh) = match self.idle.take() {
                Some(connection) => (connection, false),
                None => (Box::pin(self.connect()).await?, true), // Rare and large.
            };
            let Connection { sender, driver, bell, waker } = &mut *connection;
            let mut response = pin!(sender.try_send_request(request));
            bell.rung.store(true, Ordering::Release);
            let sent = poll_fn(|context| {
                drive(driver, bell, waker, context, |context| response.as_mut().poll(context))
            });
            match sent.await {
                Ok(response) => {
                    let (connection, idle) = (Some(connection), Arc::clone(&self.idle));
                    return Ok(response.map(|body| Answer { body, ended: false, connection, idle }));
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

    async fn connect(&self) -> Result<Box<Connection>, Trouble> {
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

async fn handshake<S>(stream: S) -> Result<Box<Connection>, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, driver) = http1::Builder::new()
        .max_buf_size(1 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|why| Trouble::new(Kind::NotSent, format!("no HTTP connection: {why}")))?;
    let bell = Arc::<Bell>::default();
    let waker = Waker::from(Arc::clone(&bell));
    Ok(Box::new(Connection { sender, driver: Some(Box::pin(driver)), bell, waker }))
}

fn tls(host: &str) -> Result<(TlsConnector, ServerName<'static>), String> {
    use rustls_platform_verifier::ConfigVerifierExt as _;
    let config = tokio_rustls::rustls::ClientConfig::with_platform_verifier();
    let config = config.map_err(|why| format!("the machine's certificates cannot be read: {why}"))?;
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| format!("{host:?} is no name for a TLS connection"))?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// Moves the bytes of a connection until its end.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection, and what moves its bytes.
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    /// None when the connection has ended.
    driver: Option<Driver>,
    bell: Arc<Bell>,
    /// The bell, as the driver knows it.
    waker: Waker,
}

/// Rings when there is something to do on a connection.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    /// Whom the ringing wakes: nobody, while the connection is idle or being moved already.
    waiting: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.waiting.wake();
    }
}

/// How often a connection that keeps ringing is moved before other tasks have their turn.
const TURNS: usize = 8;

impl Connection {
    /// Can it take a request, as far as is known? If the server has closed it meanwhile, that
    /// is noticed before anything is sent.
    fn is_open(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }
}

/// Moves the bytes of a connection until something comes of it.
///
/// What is waited for comes from the driver alone, so it is looked at right after each move and
/// needs no waking of its own; and what the two tell one another inside of this function wakes
/// nobody. That saves two switches of tasks a request.
fn drive<T>(
    driver: &mut Option<Driver>,
    bell: &Bell,
    waker: &Waker,
    context: &mut Context<'_>,
    mut outcome: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    bell.waiting.take();
    for _ in 0..TURNS {
        if bell.rung.swap(false, Ordering::AcqRel) {
            move_on(driver, waker);
        }
        let outcome = outcome(&mut Context::from_waker(Waker::noop()));
        if outcome.is_ready() {
            return outcome;
        }
        bell.waiting.register(context.waker());
        if !bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        bell.waiting.take();
    }
    context.waker().wake_by_ref();
    Poll::Pending
}

fn move_on(driver: &mut Option<Driver>, waker: &Waker) {
    let moved = driver.as_mut().map(|driver| driver.as_mut().poll(&mut Context::from_waker(waker)));
    if moved.is_some_and(|moved| moved.is_ready()) {
        *driver = None; // Whoever waits for an answer learns of it there.
    }
}

/// The body of an answer. Read to its end, it gives its connection back; dropped before, it
/// closes it, since what is left of the answer would only be in the next one's way.
pub struct Answer {
    body: Incoming,
    ended: bool,
    connection: Option<Box<Connection>>,
    idle: Arc<Idle>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let Some(connection) = &mut this.connection else { return Poll::Ready(None) };
        let Connection { driver, bell, waker, .. } = &mut **connection;
        let body = &mut this.body;
        let frame = drive(driver, bell, waker, context, |context| Pin::new(&mut *body).poll_frame(context));
        this.ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if (self.ended || self.body.is_end_stream())
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

    fn take(&self) -> Option<Box<Connection>> {
        let mut list = self.list();
        while let Some((connection, since)) = list.pop() {
            if since.elapsed() >= IDLE {
                list.clear(); // The rest were put back earlier still.
            } else if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    fn put(self: &Arc<Self>, mut connection: Box<Connection>) {
        if !connection.is_open() {
            move_on(&mut connection.driver, &connection.waker);
        }
        if !connection.is_open() {
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
