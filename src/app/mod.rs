//! The gateway as a program: sockets, signals, and what is printed at the start.

use std::{
    future::Future,
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use tokio::{io::BufReader, net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

mod accept; //     clients
mod handover; //   another program
mod operator; //   operators
mod succession; // when it takes over
mod watch; //      files

pub use operator::Reread;

use accept::Entrance;
use handover::Inheritance;
use operator::Desk;
use succession::Succession;

use crate::{
    backend::guardian,
    config::{Complaint, Complaints, Config},
    engine::{Fault, Plan, Waystation},
    listener::tls::Certificate,
    telemetry, weaken,
};

/// How long backends may take until the first words are printed.
const FIRST_WORDS: Duration = Duration::from_millis(700);
/// How long backends may take on the first run before a client on a pipe is served.
const FIRST_LIST: Duration = Duration::from_secs(15);
/// How long they may take before a gateway that is started for one command is asked.
const ALL_BACKENDS: Duration = Duration::from_secs(30);
/// How long connections at rest are left open once another program takes new ones.
const AT_REST: Duration = Duration::from_secs(5);

/// The sockets, bound before anything is started, so that their addresses are known.
#[derive(Debug)]
pub struct Sockets {
    public: TcpListener,
    admin: TcpListener,
    certificate: Option<Arc<Certificate>>,
    /// Whom they were taken over from.
    inheritance: Option<Inheritance>,
}

impl Sockets {
    pub async fn bind(listen: &crate::listener::Settings) -> io::Result<Self> {
        let bind = |address: SocketAddr| async move {
            let bound = TcpListener::bind(address).await;
            bound.map_err(|why| io::Error::new(why.kind(), format!("cannot listen on {address}: {why}")))
        };
        let (public, admin) = (bind(listen.address).await?, bind(listen.admin).await?);
        Ok(Self { public, admin, certificate: certificate(listen)?, inheritance: None })
    }

    /// Those of a gateway before this one, if it hands them over and they are still the right ones. Gives
    /// back when that gateway takes no more connections.
    async fn take_over_or_bind(listen: &crate::listener::Settings) -> io::Result<Self> {
        let Some(mut inheritance) = Inheritance::of_process()? else { return Self::bind(listen).await };
        let certificate = certificate(listen)?;
        let mut sockets = Vec::new();
        for (inherited, address) in inheritance.sockets()?.into_iter().zip([listen.address, listen.admin]) {
            inherited.set_nonblocking(true)?;
            sockets.push(match inherited.local_addr()? == address {
                true => TcpListener::from_std(inherited)?,
                false => TcpListener::bind(address).await?,
            });
        }
        let inheritance = tokio::task::spawn_blocking(|| inheritance.prepared().map(|()| inheritance)).await;
        let inheritance = inheritance.map_err(io::Error::other)??;
        let [public, admin] =
            <[TcpListener; 2]>::try_from(sockets).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Self { public, admin, certificate, inheritance: Some(inheritance) })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.public.local_addr()
    }

    pub fn admin(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }
}

fn certificate(listen: &crate::listener::Settings) -> io::Result<Option<Arc<Certificate>>> {
    let read = listen.tls.as_ref().map(Certificate::read).transpose();
    Ok(read.map_err(|wrong| io::Error::other(wrong.what))?.map(Arc::new))
}

/// Serves until `stop` is done, or another program has taken over, and the requests then under way have
/// been answered.
pub async fn serve_on(
    gateway: Waystation,
    sockets: Sockets,
    reread: Option<Reread>,
    stop: impl Future<Output = ()>,
) {
    let Sockets { public, admin, certificate, inheritance } = sockets;
    let entrance = Entrance::new(gateway.clone(), &gateway.config().listen, certificate.clone());
    let (takes_over, reread) = reread.map_or((None, None), Reread::without_take_over);
    let admin = Arc::new(admin);
    let desk = Desk::open(gateway.clone(), Arc::clone(&admin), certificate, reread);
    if let Some(inheritance) = inheritance
        && let Err(why) = inheritance.serving()
    {
        tracing::warn!(%why, "whom this gateway took over from is not there any more");
    }
    let mut succession = Succession::new(takes_over);
    tokio::pin!(stop);
    let rest = loop {
        let next = tokio::select! {
            never = entrance.take(&public) => match never {},
            () = &mut stop => break Duration::ZERO,
            next = succession.next([&public, &admin]) => next,
        };
        // From here on connections wait in the socket.
        gateway.write_down_sessions().await;
        if succession.give_way(next).await {
            break AT_REST;
        }
    };
    drop(public);
    if !rest.is_zero() {
        desk.close();
    }
    entrance.drain(rest).await;
    desk.close();
    gateway.close().await;
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
    let sockets = Sockets::take_over_or_bind(&config.listen).await.map_err(|why| {
        let instead = "stop what listens there, or choose another address";
        complaint(Complaint::new("listen", why, instead))
    })?;
    guard();
    let gateway = plan.start().await;
    let greeting = tokio::spawn(greet(gateway.clone(), sockets.address(), sockets.admin()));
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

/// Starts a gateway on free ports of this machine, and says under which addresses it answers clients
/// and operators, as in `http://127.0.0.1:49152`. Returns when each backend is ready or has failed.
pub async fn ephemeral(mut config: Config) -> Result<(Running, [String; 2]), Complaints> {
    config.listen.address.set_port(0);
    config.listen.admin.set_port(0);
    config.listen.tls = None; // It is asked from this very process.
    telemetry::start(&telemetry::Settings { level: "error".into(), ..config.log.clone() });
    let bound = Sockets::bind(&config.listen).await;
    let sockets = bound.map_err(|why| complaint(Complaint::new("listen", why, "choose another address")))?;
    let address = sockets.address().map_err(|why| complaint(Complaint::new("listen", why, "")))?;
    let admin = sockets.admin.local_addr().map_err(|why| complaint(Complaint::new("listen", why, "")))?;
    config.listen.address = address;
    let plan = plan(config)?.transient();
    guard();
    let gateway = plan.start().await;
    gateway.settle(ALL_BACKENDS).await;
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve_on(gateway, sockets, None, stop.clone().cancelled_owned()));
    Ok((Running { stop, serving }, [address, admin].map(|address| format!("http://{address}"))))
}

fn complaint(complaint: Complaint) -> Complaints {
    let mut complaints = Complaints::default();
    complaints.push(complaint);
    complaints
}

/// Makes sure that children end with us, however we end, and that our memory, which holds secrets,
/// does not end up in a file.
fn guard() {
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    if !weaken::is("files-open")
        && let Err(why) = rustix::process::setrlimit(rustix::process::Resource::Core, none)
    {
        tracing::warn!(%why, "if the gateway crashes, its memory may be written to a file");
    }
    match guardian::this_program() {
        Ok(program) => guardian::install(program),
        Err(why) => tracing::warn!(%why, "no guardian for child processes"),
    }
}

async fn greet(gateway: Waystation, address: io::Result<SocketAddr>, admin: io::Result<SocketAddr>) {
    gateway.settle(FIRST_WORDS).await;
    if let (Ok(address), Ok(admin)) = (address, admin) {
        let scheme = gateway.config().listen.scheme();
        let text = greeting(scheme, address, admin, &gateway.status());
        // Nobody may be reading, and that is no reason for `println!` to panic.
        let _ = writeln!(io::stdout(), "{text}");
    }
}

fn greeting(scheme: &str, address: SocketAddr, admin: SocketAddr, status: &serde_json::Value) -> String {
    use std::fmt::Write as _;
    let mut text = format!("\nWaystation {} is listening.\n\n", env!("CARGO_PKG_VERSION"));
    let _ = writeln!(text, "  MCP endpoint   {scheme}://{address}/mcp");
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
        "\nFor a client's configuration:\n\n  {{ \"mcpServers\": {{ \"waystation\": {{ \"type\": \"http\", \"url\": \"{scheme}://{address}/mcp\" }} }} }}\n"
    );
    text
}
