//! The gateway as a program: sockets, signals, and what is printed at the start.

use std::{
    future::Future,
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::BufReader,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    backend::guardian,
    config::{Complaint, Complaints, Config},
    console,
    engine::{Fault, Plan, Waystation},
    listener::{
        connection::{self, Closing, HEAD},
        doors::Doors,
    },
    telemetry,
};

/// How long backends may take until the first words are printed.
const FIRST_WORDS: Duration = Duration::from_millis(700);
/// How long backends may take on the first run before a client on a pipe is served.
const FIRST_LIST: Duration = Duration::from_secs(15);
/// How long they may take before a gateway that is started for one command is asked.
const ALL_BACKENDS: Duration = Duration::from_secs(30);
/// How long requests under way may take after the signal to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// The sockets, bound before anything is started, so that their addresses are known.
#[derive(Debug)]
pub struct Sockets {
    public: TcpListener,
    admin: TcpListener,
}

impl Sockets {
    pub async fn bind(listen: &crate::listener::Settings) -> io::Result<Self> {
        let bind = |address: SocketAddr| async move {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|why| io::Error::new(why.kind(), format!("cannot listen on {address}: {why}")))
        };
        Ok(Self { public: bind(listen.address).await?, admin: bind(listen.admin).await? })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.public.local_addr()
    }
}

/// Serves until `stop` is done and the requests then under way have been answered.
pub async fn serve_on(
    gateway: Waystation,
    sockets: Sockets,
    reread: Option<Reread>,
    stop: impl Future<Output = ()>,
) {
    let Sockets { public, admin } = sockets;
    let doors = admin.local_addr().ok().map(|address| Doors::new(address, &[], &[]));
    let operator = Arc::new(Operator { gateway: gateway.clone(), doors, reread });
    let hang_ups = tokio::spawn(reload_on_hang_up(Arc::clone(&operator)));
    let admin = tokio::spawn(serve_admin(operator, admin));
    let (closing, connections) = (Arc::new(Closing::default()), TaskTracker::new());
    let shared = Arc::new(gateway.clone());
    tokio::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = public.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(why) => {
                    // Most often too many open files; the next moment may be better.
                    tracing::warn!(%why, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = &mut stop => break,
        };
        let gateway = Arc::clone(&shared);
        let answer = move |mut request: http::Request<_>| {
            let gateway = Arc::clone(&gateway);
            if gateway.tells_strangers_apart() {
                request.extensions_mut().insert(peer);
            }
            async move { gateway.handle(request).await }
        };
        let connection = connection::serve(stream, Arc::clone(&closing), answer);
        connections.spawn(async move {
            if let Err(why) = connection.await {
                tracing::debug!(%why, "a client's connection ended early");
            }
        });
    }
    drop(public);
    gateway.end_streams();
    closing.begin();
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::warn!("some requests were still under way and have been cut off");
    }
    admin.abort();
    hang_ups.abort();
    gateway.close().await;
}

/// Reads the configuration again.
pub type Reread = Arc<dyn Fn() -> Result<Config, Complaints> + Send + Sync>;

/// What operators deal with.
struct Operator {
    gateway: Waystation,
    doors: Option<Doors>,
    reread: Option<Reread>,
}

impl console::Operated for Operator {
    fn status(&self) -> serde_json::Value {
        self.gateway.status()
    }

    fn reload(&self) -> BoxFuture<'_, Result<serde_json::Value, String>> {
        Box::pin(async move {
            let Some(reread) = self.reread.clone() else {
                return Err(
                    "this gateway was not started from a configuration that could be read again".into()
                );
            };
            // Files and the environment are read without waiting, so elsewhere.
            let read = tokio::task::spawn_blocking(move || reread()).await.map_err(|why| why.to_string())?;
            let reloaded = read.and_then(|config| self.gateway.reload(config).map_err(faulty));
            match reloaded {
                Ok(reloaded) => {
                    let (changed, later) = (&reloaded.changed, &reloaded.needs_restart);
                    tracing::info!(?changed, needs_restart = ?later, "the configuration was read again");
                    Ok(serde_json::json!(reloaded))
                }
                Err(complaints) => {
                    let why = complaints.to_string();
                    tracing::warn!(why, "the new configuration is not obeyed; the old one is");
                    Err(why)
                }
            }
        })
    }
}

/// The signal by which services are told to read their configuration again.
async fn reload_on_hang_up(operator: Arc<Operator>) {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::hangup()) {
        Ok(mut hang_ups) => {
            while hang_ups.recv().await.is_some() {
                let _ = console::Operated::reload(&*operator).await; // It is in the log.
            }
        }
        Err(why) => tracing::warn!(%why, "SIGHUP cannot be listened to"),
    }
}

async fn serve_admin(operator: Arc<Operator>, socket: TcpListener) {
    while let Ok((stream, _)) = socket.accept().await {
        tokio::spawn(answer_admin(Arc::clone(&operator), stream));
    }
}

async fn answer_admin(operator: Arc<Operator>, stream: TcpStream) {
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let operator = Arc::clone(&operator);
        async move {
            let doors = operator.doors.as_ref();
            let known = doors.is_some_and(|doors| doors.check(request.uri(), request.headers()).is_ok());
            Ok::<_, std::convert::Infallible>(match known {
                true => console::handle(&request, &*operator).await,
                false => {
                    let mut response = http::Response::new("This address does not go by that name.\n".into());
                    *response.status_mut() = http::StatusCode::FORBIDDEN;
                    response
                }
            })
        }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD);
    if let Err(why) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%why, "an operator's connection ended early");
    }
}

/// Builds everything and serves nothing, to hear of all that is wrong.
pub fn check(config: &Config) -> Result<(), Complaints> {
    plan(config.clone()).map(drop)
}

fn plan(config: Config) -> Result<Plan, Complaints> {
    Plan::build(config).map_err(faulty)
}

fn faulty(faults: Vec<Fault>) -> Complaints {
    let mut complaints = Complaints::default();
    for Fault { at, why } in faults {
        complaints.push(Complaint::new(at, why, ""));
    }
    complaints
}

/// Serves over HTTP until `stop`, and then until the requests under way are answered.
pub async fn serve(config: Config, reread: Reread, stop: CancellationToken) -> Result<(), Complaints> {
    telemetry::start(&config.log);
    let plan = plan(config.clone())?;
    let sockets = Sockets::bind(&config.listen).await.map_err(|why| {
        let instead = "stop what listens there, or choose another address";
        complaint(Complaint::new("listen", why, instead))
    })?;
    guard();
    let gateway = plan.start().await;
    let greeting = tokio::spawn(greet(gateway.clone(), sockets.address(), sockets.admin.local_addr()));
    serve_on(gateway, sockets, Some(reread), stop.cancelled_owned()).await;
    greeting.abort();
    Ok(())
}

/// Serves one client over standard input and output until either ends or `stop`.
pub async fn stdio(config: Config, stop: CancellationToken) -> Result<(), Complaints> {
    telemetry::start(&config.log);
    let plan = plan(config)?.transient();
    guard();
    let gateway = plan.start().await;
    if !gateway.is_known() {
        // Clients on a pipe mostly list once, at the start. After the first run what was known
        // then is shown at once.
        gateway.settle(FIRST_LIST).await;
    }
    let served = gateway.pipe(BufReader::new(tokio::io::stdin()), tokio::io::stdout());
    tokio::select! {
        served = served => if let Err(why) = served {
            tracing::warn!(%why, "the client has gone");
        },
        () = stop.cancelled() => {}
    }
    gateway.close().await;
    Ok(())
}

/// A gateway in this process.
#[derive(Debug)]
pub struct Running {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Running {
    /// Ends it in good order.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.serving.await;
    }
}

/// Starts a gateway on free ports of this machine, and says under which address it answers, as
/// in `http://127.0.0.1:49152`. Returns when each backend is ready or has failed.
pub async fn ephemeral(mut config: Config) -> Result<(Running, String), Complaints> {
    config.listen.address.set_port(0);
    config.listen.admin.set_port(0);
    telemetry::start(&telemetry::Settings { level: "error".into(), ..config.log.clone() });
    let bound = Sockets::bind(&config.listen).await;
    let sockets = bound.map_err(|why| complaint(Complaint::new("listen", why, "choose another address")))?;
    let address = sockets.address().map_err(|why| complaint(Complaint::new("listen", why, "")))?;
    config.listen.address = address;
    let plan = plan(config)?.transient();
    guard();
    let gateway = plan.start().await;
    gateway.settle(ALL_BACKENDS).await;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve_on(gateway, sockets, None, stop.clone().cancelled_owned()));
    Ok((Running { stop, serving }, format!("http://{address}")))
}

fn complaint(complaint: Complaint) -> Complaints {
    let mut complaints = Complaints::default();
    complaints.push(complaint);
    complaints
}

/// Makes sure that children end with us, however we end.
fn guard() {
    match guardian::this_program() {
        Ok(program) => guardian::install(program),
        Err(why) => tracing::warn!(%why, "no guardian for child processes"),
    }
}

async fn greet(gateway: Waystation, address: io::Result<SocketAddr>, admin: io::Result<SocketAddr>) {
    gateway.settle(FIRST_WORDS).await;
    if let (Ok(address), Ok(admin)) = (address, admin) {
        let text = greeting(address, admin, &gateway.status());
        // Nobody may be reading, and that is no reason for `println!` to panic.
        let _ = writeln!(io::stdout(), "{text}");
    }
}

fn greeting(address: SocketAddr, admin: SocketAddr, status: &serde_json::Value) -> String {
    use std::fmt::Write as _;
    let mut text = format!("\nWaystation {} is listening.\n\n", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "  MCP endpoint   http://{address}/mcp");
    let _ = writeln!(text, "  status         http://{admin}/status\n");
    let backends = status["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let widest = backends.iter().filter_map(|one| one["name"].as_str()).map(str::len).max().unwrap_or(0);
    for one in backends {
        let name = one["name"].as_str().unwrap_or_default();
        let state = one["state"].as_str().unwrap_or_default();
        let tools = one["tools"].as_u64().unwrap_or_default();
        let problem = one["problem"].as_str().map(|problem| format!("  {problem}")).unwrap_or_default();
        let _ = writeln!(text, "  {name:widest$}   {state:8}   {tools:>4} tools{problem}");
    }
    let _ = write!(
        text,
        "\nFor a client's configuration:\n\n  {{ \"mcpServers\": {{ \"waystation\": {{ \"type\": \"http\", \"url\": \"http://{address}/mcp\" }} }} }}\n"
    );
    text
}
