//! A connection to an MCP server over the HTTP+SSE pair of 2024-11-05.
//!
//! One GET opens the stream on which everything comes that the server ever says; its first
//! event names the address to which each message is posted. The stream is the session: when it
//! ends, so do the session and all requests in it, and nothing can be resumed.
//!
//! The server names the address, and our headers, with their secrets, go there. So it must be
//! of the origin that was configured, and no redirect is followed.

use std::{collections::VecDeque, error::Error as _, fmt, io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{
    HeaderMap, HeaderValue, StatusCode, Uri,
    header::{ACCEPT, CONTENT_TYPE},
};
use reqwest::{Client, Response, Url, redirect};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

use super::{
    http::REPLY_LIMIT,
    mux::{self, Habit, Mux},
    pool::plain,
    transport::{Connect, Inbox, Incoming, Kind, Outgoing, Transport, Trouble},
};
use crate::wire::{mcp::Era, sse};

/// After so much silence the system asks whether the other end is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How much of what a POST is answered is read, in bytes and in time, for the sake of using the
/// connection again. What it says means nothing.
const USELESS_BYTES: usize = 64 << 10;
const USELESS_TIME: Duration = Duration::from_secs(1);

/// Connects to one address.
pub struct Sse {
    client: Client,
    url: Url,
    headers: HeaderMap,
    habit: Habit,
}

impl fmt::Debug for Sse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sse") // Headers may hold secrets.
    }
}

impl Sse {
    /// For an `http` or `https` address, with headers for every request. The timeout is for a
    /// connection to the address, not for what the server says then.
    pub fn new(url: &Uri, configured: HeaderMap, connect_timeout: Duration) -> Result<Self, String> {
        let url = Url::parse(&url.to_string()).map_err(|why| format!("`url` is no address: {why}"))?;
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .referer(false)
            .connect_timeout(connect_timeout)
            .tcp_keepalive(KEEP_ALIVE)
            .build()
            .map_err(|why| format!("no HTTP here: {why}"))?;
        Ok(Self { client, url, headers: configured, habit: Habit::default() })
    }

    async fn open(&self, inbox: Inbox) -> Result<Pair, Trouble> {
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let response = self.client.get(self.url.clone()).headers(headers).send().await;
        let mut events = Events::of(response.map_err(|why| unanswered(&why))?)?;
        let endpoint = loop {
            let event = events.next().await?;
            if event.name == "endpoint" {
                break self.endpoint(&event.data)?;
            }
        };
        let mux = Mux::new(inbox, self.habit.clone());
        let leave = CancellationToken::new();
        // Nothing is waited for any more, so nothing is left behind if the caller goes.
        tokio::spawn(read(events, Arc::clone(&mux), leave.clone()));
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let post = Arc::new(Post { client: self.client.clone(), endpoint, headers, leave: leave.clone() });
        Ok(Pair { mux, post, leave: leave.drop_guard() })
    }

    /// Where messages go, if it is where they may go.
    fn endpoint(&self, data: &[u8]) -> Result<Url, Trouble> {
        let refused = |why| Trouble::new(Kind::Rubbish, why);
        let text = std::str::from_utf8(data)
            .map_err(|_| refused("the address it gave for messages is not UTF-8"))?;
        let url =
            self.url.join(text.trim()).map_err(|_| refused("what it gave for messages is no address"))?;
        if url.origin() != self.url.origin() || !url.username().is_empty() || url.password().is_some() {
            return Err(refused("the address it gave for messages is of another origin than its own"));
        }
        Ok(url)
    }
}

impl Connect for Sse {
    fn connect(&self, inbox: Inbox) -> BoxFuture<'_, Result<Arc<dyn Transport>, Trouble>> {
        Box::pin(async { Ok(Arc::new(self.open(inbox).await?) as Arc<dyn Transport>) })
    }

    fn probe_apart(&self) -> bool {
        false
    }

    fn only(&self) -> Option<Era> {
        Some(Era::Legacy)
    }
}

/// A session: the stream, which a task reads, and the address for messages.
struct Pair {
    mux: Arc<Mux>,
    post: Arc<Post>,
    /// Ends the task, and with it the stream; also when this is dropped.
    leave: DropGuard,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("mux", &self.mux).finish_non_exhaustive() // The address is a secret.
    }
}

impl Transport for Pair {
    fn request(&self, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, Trouble>> {
        let (mux, post) = (Arc::clone(&self.mux), Arc::clone(&self.post));
        Box::pin(async move {
            let mut incoming =
                pin!(mux.register(outgoing.id, outgoing.method, outgoing.target.as_ref())?.incoming());
            let sent = tokio::spawn(post.send(outgoing.text));
            let mut sent = AbortOnDropHandle::new(sent);
            // Some servers answer the POST only when they have answered the request.
            tokio::select! {
                biased;
                incoming = &mut incoming => {
                    if incoming.is_ok() {
                        sent.detach();
                    }
                    return incoming;
                }
                sent = &mut sent => {
                    let sent = sent.unwrap_or_else(|_| Err(closed()));
                    // The others' requests were taken when there was a session still.
                    if let Err(Trouble { kind: Kind::SessionLost, why, .. }) = &sent {
                        mux.end(Trouble::new(Kind::Lost, why.clone()));
                    }
                    sent?;
                }
            }
            incoming.await
        })
    }

    fn notify(&self, text: Bytes) -> BoxFuture<'static, Result<(), Trouble>> {
        let lost = self.mux.lost();
        let post = Arc::clone(&self.post);
        Box::pin(async move {
            match lost {
                Some(lost) => Err(Trouble { kind: Kind::NotSent, ..lost }),
                None => post.send(text).await,
            }
        })
    }

    fn lost(&self) -> Option<Trouble> {
        self.mux.lost()
    }

    fn takes_questions(&self) -> bool {
        self.mux.takes_questions()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.leave.token().cancel();
        // At once, and not when the task gets to it: nothing may be sent from here on.
        self.mux.end(closed());
        std::future::ready(()).boxed()
    }
}

fn closed() -> Trouble {
    Trouble::new(Kind::Lost, "the connection was closed")
}

/// Reads the stream to its end.
async fn read(mut events: Events, mux: Arc<Mux>, leave: CancellationToken) {
    let lost = loop {
        let Some(event) = leave.run_until_cancelled(events.next()).await else { break closed() };
        match event {
            Ok(event) if event.name.is_empty() || event.name == "message" => {
                if let Err(malformed) = mux.deliver(event.data.clone()) {
                    mux.reject(mux::meant_for(&event.data), &mux::rubbish(malformed));
                }
            }
            Ok(_) => {} // An event of a kind that the protocol does not have.
            Err(lost) => break lost,
        }
    };
    mux.end(lost);
}

/// The events of a stream.
struct Events {
    response: Response,
    decoder: sse::Decoder,
    ready: VecDeque<sse::Event>,
}

impl Events {
    fn of(response: Response) -> Result<Self, Trouble> {
        if response.status() != StatusCode::OK {
            return Err(refused(response.status()));
        }
        let kind = response.headers().get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if !kind.eq_ignore_ascii_case(b"text/event-stream") {
            return Err(Trouble::new(Kind::Rubbish, "answered a GET with something that is no event stream"));
        }
        Ok(Self { response, decoder: sse::Decoder::new(REPLY_LIMIT), ready: VecDeque::new() })
    }

    /// The next event. May be dropped and called again.
    async fn next(&mut self) -> Result<sse::Event, Trouble> {
        let lost = |why: String| Trouble::new(Kind::Lost, why);
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => {
                    let events = self.decoder.push(&bytes);
                    self.ready.extend(events.map_err(|why| lost(format!("left its event stream: {why}")))?);
                }
                Ok(None) => return Err(lost("the server ended the event stream".into())),
                Err(_) => return Err(lost("the event stream broke off".into())),
            }
        }
    }
}

/// Sends messages.
struct Post {
    client: Client,
    endpoint: Url,
    headers: HeaderMap,
    leave: CancellationToken,
}

impl Post {
    /// Sends one message. Good news says only that it was received.
    async fn send(self: Arc<Self>, text: Bytes) -> Result<(), Trouble> {
        self.leave.run_until_cancelled(self.deliver(text)).await.unwrap_or_else(|| Err(closed()))
    }

    async fn deliver(&self, text: Bytes) -> Result<(), Trouble> {
        let request = self.client.post(self.endpoint.clone()).headers(self.headers.clone()).body(text);
        let mut response = request.send().await.map_err(|why| unanswered(&why))?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(Trouble::new(Kind::SessionLost, "the server has ended the session"));
        }
        if !response.status().is_success() {
            return Err(refused(response.status()));
        }
        let drain = async {
            let mut read = 0;
            while let Ok(Some(bytes)) = response.chunk().await {
                read += bytes.len();
                if read > USELESS_BYTES {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(USELESS_TIME, drain).await;
        Ok(())
    }
}

/// Why there was no answer at all. The library's own words hold the address.
fn unanswered(why: &reqwest::Error) -> Trouble {
    if !why.is_connect() {
        return Trouble::new(Kind::Lost, "the connection broke before the answer came");
    }
    let (mut cause, mut innermost) = (why.source(), None);
    while let Some(next) = cause {
        innermost = next.downcast_ref::<io::Error>().or(innermost);
        cause = next.source();
    }
    let cause = match innermost {
        None => "the server cannot be reached".into(),
        Some(cause) if cause.kind() == io::ErrorKind::InvalidData => "TLS was not agreed on".into(),
        Some(cause) => plain(cause),
    };
    Trouble::new(Kind::NotSent, format!("no connection: {cause}"))
}

fn refused(status: StatusCode) -> Trouble {
    let meaning = match status.is_redirection() {
        true => "a redirect, which is not followed",
        false => status.canonical_reason().unwrap_or_default(),
    };
    Trouble::new(Kind::Status(status.as_u16()), format!("answered HTTP {} {meaning}", status.as_u16()))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
        net::{TcpListener, TcpStream},
        sync::mpsc,
    };

    use super::*;
    use crate::wire::mcp::Method;

    const PATIENCE: Duration = Duration::from_secs(10);
    const OPEN: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
    const ACCEPTED: &str = "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

    async fn within<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(PATIENCE, future).await.expect("nothing takes that long")
    }

    /// A server whose part the test speaks, request by request.
    struct Server {
        listener: TcpListener,
    }

    struct Request {
        head: String,
        body: String,
        stream: BufReader<TcpStream>,
    }

    impl Server {
        async fn new() -> Self {
            Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
        }

        fn sse(&self) -> Sse {
            let url = format!("http://{}/here/sse", self.listener.local_addr().unwrap());
            let headers =
                super::super::headers::configured([("authorization", "Bearer hush")].into_iter()).unwrap();
            Sse::new(&url.parse().unwrap(), headers, PATIENCE).unwrap()
        }

        /// The next request on a connection of its own.
        async fn request(&self) -> Request {
            let (stream, _) = within(self.listener.accept()).await.unwrap();
            let mut request =
                Request { head: String::new(), body: String::new(), stream: BufReader::new(stream) };
            request.read().await;
            request
        }

        /// A client that is connected, its stream, and what goes to its inbox.
        async fn connected(&self) -> (Arc<dyn Transport>, Request, mpsc::UnboundedReceiver<String>) {
            let (tell, heard) = mpsc::unbounded_channel();
            let inbox: Inbox = Arc::new(move |message| {
                let _ = tell.send(message.method().unwrap().into_owned());
            });
            let sse = self.sse();
            let (transport, stream) = tokio::join!(within(sse.connect(inbox)), async {
                let mut get = self.request().await;
                get.write(OPEN).await;
                get.write(": hello\n\nevent: endpoint\ndata: ../post?session=7\n\n").await;
                get
            });
            (transport.unwrap(), stream, heard)
        }
    }

    impl Request {
        async fn read(&mut self) {
            self.head.clear();
            self.body.clear();
            while !self.head.ends_with("\r\n\r\n") {
                within(self.stream.read_line(&mut self.head)).await.unwrap();
            }
            self.head.make_ascii_lowercase();
            let length = self.head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            within(self.stream.read_exact(&mut body)).await.unwrap();
            self.body = String::from_utf8(body).unwrap();
        }

        async fn write(&mut self, text: &str) {
            self.stream.write_all(text.as_bytes()).await.unwrap();
        }
    }

    fn ask(transport: &Arc<dyn Transport>, id: u64) -> tokio::task::JoinHandle<Result<Incoming, Trouble>> {
        let text = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}").into();
        let mirrored = Vec::new();
        let outgoing = Outgoing { id, method: Method::Ping, revision: None, target: None, mirrored, text };
        tokio::spawn(transport.request(outgoing))
    }

    async fn trouble(asked: tokio::task::JoinHandle<Result<Incoming, Trouble>>) -> Trouble {
        within(asked).await.unwrap().err().unwrap()
    }

    #[tokio::test]
    async fn a_message_is_posted_where_the_server_says_and_answered_on_the_stream() {
        let server = Server::new().await;
        let (transport, mut stream, mut heard) = server.connected().await;
        assert!(stream.head.starts_with("get /here/sse http/1.1"), "{}", stream.head);
        assert!(stream.head.contains("accept: text/event-stream"), "{}", stream.head);
        let asked = ask(&transport, 1);
        let mut post = server.request().await;
        assert!(post.head.starts_with("post /post?session=7 http/1.1"), "{}", post.head);
        for header in ["authorization: bearer hush\r\n", "content-type: application/json\r\n"] {
            assert!(post.head.contains(header), "{}", post.head);
        }
        assert_eq!(post.body, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        post.write(ACCEPTED).await;
        stream.write("data: {\"jsonrpc\":\"2.0\",\"method\":\"changed\"}\n\nevent: ping\ndata: x\n\n").await;
        stream.write("event: message\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n").await;
        assert!(matches!(within(asked).await.unwrap(), Ok(Incoming::Whole(_))));
        assert_eq!(within(heard.recv()).await.unwrap(), "changed");
        let told = tokio::spawn(transport.notify(Bytes::from_static(b"{}")));
        post.read().await; // On the same connection.
        assert_eq!(post.body, "{}");
        post.write(ACCEPTED).await;
        within(told).await.unwrap().unwrap();
        // The end of the session is the end of the stream.
        transport.close().await;
        assert_eq!(within(stream.stream.read(&mut [0])).await.unwrap(), 0);
        assert_eq!(trouble(ask(&transport, 2)).await.kind, Kind::NotSent);
    }

    #[tokio::test]
    async fn an_answer_that_comes_before_its_post_is_accepted_counts() {
        let server = Server::new().await;
        let (transport, mut stream, _heard) = server.connected().await;
        let asked = ask(&transport, 1);
        let mut post = server.request().await;
        stream.write("data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n\n").await;
        assert!(matches!(within(asked).await.unwrap(), Ok(Incoming::Whole(_))));
        post.write(ACCEPTED).await;
    }

    #[tokio::test]
    async fn what_is_no_message_fails_the_request_it_names() {
        let server = Server::new().await;
        let (transport, mut stream, _heard) = server.connected().await;
        let asked = ask(&transport, 1);
        server.request().await.write(ACCEPTED).await;
        stream.write("data: {\"id\":1,\"result\":{}}\n\n").await;
        let trouble = trouble(asked).await;
        assert_eq!(trouble.kind, Kind::Rubbish);
        assert!(trouble.why.contains("`jsonrpc`"), "{}", trouble.why);
    }

    #[tokio::test]
    async fn a_post_that_is_refused_is_the_answer() {
        for (status, kind) in
            [("405 Method Not Allowed", 405), ("307 Temporary Redirect", 307), ("500 Oh", 500)]
        {
            let server = Server::new().await;
            let (transport, _stream, _heard) = server.connected().await;
            let asked = ask(&transport, 1);
            let answer = format!("HTTP/1.1 {status}\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n");
            server.request().await.write(&answer).await;
            assert_eq!(trouble(asked).await.kind, Kind::Status(kind));
            assert!(transport.lost().is_none());
        }
    }

    #[tokio::test]
    async fn a_session_that_the_server_does_not_know_any_more_is_over() {
        let server = Server::new().await;
        let (transport, _stream, _heard) = server.connected().await;
        let taken = ask(&transport, 1);
        server.request().await.write(ACCEPTED).await;
        let asked = ask(&transport, 2);
        server.request().await.write("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(trouble(asked).await.kind, Kind::SessionLost);
        // The one that was taken may have run.
        assert_eq!(trouble(taken).await.kind, Kind::Lost);
        assert!(transport.lost().is_some());
    }

    #[tokio::test]
    async fn the_end_of_the_stream_is_the_end_of_all_requests() {
        let server = Server::new().await;
        let (transport, stream, _heard) = server.connected().await;
        let asked = ask(&transport, 1);
        server.request().await.write(ACCEPTED).await;
        drop(stream);
        let trouble = trouble(asked).await;
        assert_eq!(trouble.kind, Kind::Lost);
        assert_eq!(transport.lost().unwrap().why, trouble.why);
        assert_eq!(transport.notify(Bytes::new()).await.unwrap_err().kind, Kind::NotSent);
    }

    #[tokio::test]
    async fn dropping_a_connection_ends_its_stream() {
        let server = Server::new().await;
        let (transport, mut stream, _heard) = server.connected().await;
        drop(transport);
        assert_eq!(within(stream.stream.read(&mut [0])).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn an_event_without_end_ends_the_session() {
        let server = Server::new().await;
        let (transport, mut stream, _heard) = server.connected().await;
        let asked = ask(&transport, 1);
        server.request().await.write(ACCEPTED).await;
        let _ = stream.stream.write_all(&[b"data: ".to_vec(), vec![b'x'; REPLY_LIMIT]].concat()).await;
        let trouble = trouble(asked).await;
        assert!(trouble.kind == Kind::Lost && trouble.why.contains("over 16777216 bytes"), "{}", trouble.why);
    }

    /// What the opening of a connection gets when the server answers so.
    async fn opening(answer: &str) -> Trouble {
        let server = Server::new().await;
        let sse = server.sse();
        let (opened, _request) = tokio::join!(within(sse.connect(Arc::new(|_| {}))), async {
            let mut get = server.request().await;
            get.write(answer).await;
            get.stream.shutdown().await.unwrap();
            get
        });
        opened.unwrap_err()
    }

    #[tokio::test]
    async fn an_opening_that_is_none_is_explained_without_the_address() {
        let plain = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n";
        let elsewhere = |address: &str| format!("{OPEN}event: endpoint\ndata: {address}\n\n");
        for (answer, kind, why) in [
            ("HTTP/1.1 302 Found\r\nlocation: /there\r\n\r\n".to_owned(), Kind::Status(302), "not followed"),
            ("HTTP/1.1 404 Not Found\r\n\r\n".to_owned(), Kind::Status(404), "Not Found"),
            (plain.to_owned(), Kind::Rubbish, "no event stream"),
            (String::new(), Kind::Lost, "broke before"),
            (format!("{OPEN}data: hello\n\n"), Kind::Lost, "ended the event stream"),
            (elsewhere("http://127.0.0.1:1/post"), Kind::Rubbish, "another origin"),
            (elsewhere("//example.com/post"), Kind::Rubbish, "another origin"),
            (elsewhere("file:///etc/passwd"), Kind::Rubbish, "another origin"),
            (elsewhere("http://[/"), Kind::Rubbish, "no address"),
        ] {
            let trouble = opening(&answer).await;
            assert!(trouble.kind == kind && trouble.why.contains(why), "{answer}: {trouble:?}");
            assert!(!trouble.why.contains("127.0.0.1") && !trouble.why.contains("hush"), "{trouble}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_was_sent_nothing() {
        let server = Server::new().await;
        let sse = server.sse();
        drop(server);
        let trouble = sse.connect(Arc::new(|_| {})).await.unwrap_err();
        assert_eq!(trouble.kind, Kind::NotSent);
        assert_eq!(trouble.why, "no connection: refused; is the server running?");
        assert!(!format!("{sse:?}").contains("hush"));
    }
}
