//! How do requests arrive, and answers leave?

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use super::{
    control,
    journal::Entry,
    play::{Play, Watch},
    refusal::Refusal,
    reply::Reply,
    route::{self, Asked},
    world::World,
};

const MOST_CONNECTIONS: usize = 1024;
const LONGEST_BODY: usize = 64 << 20;

/// Takes connections until it is dropped, and with it all of them.
pub async fn serve(listener: TcpListener, world: Arc<World>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut lines = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let world = Arc::clone(&world);
                lines.spawn(async move {
                    speak(stream, world).await;
                    drop(place);
                });
            }
            // Most likely there are no more descriptors: some will be given back soon.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
        while lines.try_join_next().is_some() {}
    }
}

async fn speak(stream: TcpStream, world: Arc<World>) {
    // Small writes are to be seen as such; without this they only come late.
    let _ = stream.set_nodelay(true);
    let reset = Arc::new(AtomicBool::new(false));
    let line = TokioIo::new(Line { stream, reset: Arc::clone(&reset) });
    let service = service_fn(move |request| {
        let (world, reset) = (Arc::clone(&world), Arc::clone(&reset));
        async move { Ok::<_, io::Error>(answer(request, world, reset).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    // An error here is a client that went away, or a break that was asked for.
    let _ = server.serve_connection(line, service).await;
}

async fn answer(request: Request<Incoming>, world: Arc<World>, reset: Arc<AtomicBool>) -> Response<Play> {
    let (parts, body) = request.into_parts();
    // Streams of HTTP/2 break alone; of HTTP/1.1 the connection is the stream.
    let reset = (parts.version < Version::HTTP_2).then_some(reset);
    let path = parts.uri.path().to_owned();
    let at_ms = world.clock.now();
    let entry = Entry {
        at_ms,
        method: parts.method.to_string(),
        path: parts.uri.path_and_query().map_or_else(|| path.clone(), ToString::to_string),
        headers: masked(&parts.headers),
        ..Entry::default()
    };
    if let Some(path) = path.strip_prefix("/__sim/") {
        return Box::pin(controlled(path, &parts, body, world)).await;
    }
    let request = world.journal.begin(entry);
    let mut watch = Watch::new(Arc::clone(&world), request);
    let reply = match whole(body).await {
        Some(body) => {
            world.journal.body(request, &body);
            let asked =
                Asked { method: &parts.method, path: &path, uri: &parts.uri, headers: &parts.headers, body };
            Box::pin(route::answer(&mut watch, &asked)).await
        }
        None => too_large().into(),
    };
    let reply = reply.wanted_by(&parts.headers);
    world.journal.note(request, |entry| entry.status = reply.status);
    let mut response = respond(reply, watch, reset);
    response.headers_mut().insert("access-control-allow-origin", HeaderValue::from_static("*"));
    response
}

/// Requests of the control plane are not in the journal: it is they who read it.
async fn controlled(
    path: &str,
    parts: &http::request::Parts,
    body: Incoming,
    world: Arc<World>,
) -> Response<Play> {
    let reply = match whole(body).await {
        Some(body) => control::answer(&world, path, parts, &body).unwrap_or_else(Reply::from),
        None => too_large().into(),
    };
    respond(reply, Watch::unseen(world), None)
}

/// All of a body, unless it is too long or its sender goes away.
async fn whole(body: Incoming) -> Option<Bytes> {
    // Who says at once that it is too long need not send it.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > LONGEST_BODY {
        return None;
    }
    Limited::new(body, LONGEST_BODY).collect().await.ok().map(|body| body.to_bytes())
}

fn too_large() -> Refusal {
    Refusal::new(413, format!("a request may have {LONGEST_BODY} bytes, or the client went away"))
}

fn respond(reply: Reply, watch: Watch, reset: Option<Arc<AtomicBool>>) -> Response<Play> {
    let mut response = Response::new(Play::new(reply.steps, watch, reset));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// All headers, of secrets only the kind and the end.
fn masked(headers: &HeaderMap) -> std::collections::BTreeMap<String, String> {
    let secret = [header::AUTHORIZATION.as_str(), "x-sim-token", "x-provider-api-keys", "cookie"];
    let shown = |name: &str, value: &HeaderValue| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if !secret.contains(&name) {
            return value;
        }
        let end: String = value.chars().rev().take(3).collect::<Vec<_>>().into_iter().rev().collect();
        if value.len() < 20 { "…".to_owned() } else { format!("…{end}") }
    };
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), shown(name.as_str(), value))).collect()
}

/// A connection that can be told to end in a reset instead of a goodbye.
struct Line {
    stream: TcpStream,
    reset: Arc<AtomicBool>,
}

impl Drop for Line {
    fn drop(&mut self) {
        if self.reset.load(Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A goodbye would come before the reset, and the client would take it for the end.
        if self.reset.load(Relaxed) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
