//! What do operators have done: how the gateway is, and obeying its configuration anew?

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{Signal, SignalKind, signal},
    task::AbortHandle,
};

use super::{faulty, watch::Watched};
use crate::{
    config::{Complaint, Complaints, Config},
    console,
    engine::{Reloaded, Waystation},
    listener::{
        doors::Doors,
        tls::{Certificate, Wrong},
    },
};

/// How long an operator's client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);

/// Where operators are answered, until it is closed.
pub struct Desk(Vec<AbortHandle>);

impl Desk {
    pub fn open(
        gateway: Waystation,
        socket: Arc<TcpListener>,
        certificate: Option<Arc<Certificate>>,
        reread: Option<Reread>,
    ) -> Self {
        let doors = socket.local_addr().ok().map(|address| Doors::new(address, &[], &[]));
        let Reread { read, hang_ups, files, take_over: _ } = reread.unwrap_or_default();
        let operator = Arc::new(Operator { gateway, doors, read, certificate });
        let mut open = vec![tokio::spawn(serve(Arc::clone(&operator), socket)).abort_handle()];
        if let Some(hang_ups) = hang_ups {
            open.push(tokio::spawn(reload_on_hang_up(hang_ups, Arc::clone(&operator))).abort_handle());
        }
        if let Some(files) = files {
            open.push(tokio::spawn(reload_on_change(files, operator)).abort_handle());
        }
        Self(open)
    }

    pub fn close(&self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Reads the configuration.
type Read = Arc<dyn Fn() -> Result<Config, Complaints> + Send + Sync>;

/// How and when the configuration is read again.
#[derive(Default)]
pub struct Reread {
    read: Option<Read>,
    /// The signal by which services are told to. Without listening to it, it ends a program.
    hang_ups: Option<Signal>,
    /// Files whose change tells so as well.
    files: Option<Vec<PathBuf>>,
    /// The signal by which the whole program is replaced.
    take_over: Option<Signal>,
}

impl Reread {
    /// Listens to the signal from now on.
    pub fn new(read: impl Fn() -> Result<Config, Complaints> + Send + Sync + 'static) -> Self {
        let listen = |kind, name| {
            let listened = signal(kind);
            listened.inspect_err(|why| tracing::warn!(%why, "{name} cannot be listened to")).ok()
        };
        Self {
            read: Some(Arc::new(read)),
            hang_ups: listen(SignalKind::hangup(), "SIGHUP"),
            files: None,
            take_over: listen(SignalKind::user_defined2(), "SIGUSR2"),
        }
    }

    /// The signal to hand over, and the rest.
    pub(super) fn without_take_over(mut self) -> (Option<Signal>, Option<Self>) {
        (self.take_over.take(), Some(self))
    }

    /// Whenever one of these has changed, too, or one with the certificate.
    pub fn watching(self, files: Vec<PathBuf>) -> Self {
        Self { files: Some(files), ..self }
    }
}

/// What operators deal with.
struct Operator {
    gateway: Waystation,
    doors: Option<Doors>,
    read: Option<Read>,
    certificate: Option<Arc<Certificate>>,
}

impl Operator {
    /// Reads the configuration, if there is any to read.
    async fn read(&self) -> Result<Result<Config, Complaints>, String> {
        let none = "this gateway was not started from a configuration that could be read again";
        let read = self.read.clone().ok_or(none)?;
        // Files and the environment are read without waiting, so elsewhere.
        tokio::task::spawn_blocking(move || read()).await.map_err(|why| why.to_string())
    }

    async fn obey(&self, config: Config) -> Result<Reloaded, Complaints> {
        let tls = config.listen.tls.clone();
        // Before anything is changed: a certificate may be wrong, too.
        let renewed = match (&self.certificate, tls) {
            (Some(used), Some(tls)) => Some((used, Certificate::read(&tls).map_err(unread)?)),
            // Whether there is TLS at all is settled at a start.
            _ => None,
        };
        let reloaded = self.gateway.reload(config).await.map_err(faulty)?;
        if let Some((used, renewed)) = renewed {
            used.replace(renewed);
        }
        Ok(reloaded)
    }
}

fn unread(wrong: Wrong) -> Complaints {
    let mut complaints = Complaints::default();
    complaints.push(Complaint::new(format!("listen.tls.{}", wrong.key), wrong.what, ""));
    complaints
}

impl console::Operated for Operator {
    fn status(&self) -> serde_json::Value {
        self.gateway.status()
    }

    fn explain<'a>(
        &'a self,
        who: console::Who,
        name: &'a str,
    ) -> BoxFuture<'a, Result<serde_json::Value, String>> {
        Box::pin(async move {
            let caller = match who {
                console::Who::Somebody(caller) => caller,
                console::Who::Bearer(token) => self.gateway.whose(&token).await?,
            };
            Ok(self.gateway.explain(&caller, name))
        })
    }

    fn clear_cache(&self, pattern: Option<&str>) -> usize {
        let cleared = self.gateway.clear_cache(pattern);
        tracing::info!(cleared, pattern, "kept replies were forgotten");
        cleared
    }

    fn reload(&self) -> BoxFuture<'_, Result<serde_json::Value, String>> {
        Box::pin(async move {
            let reloaded = match self.read().await? {
                Ok(config) => self.obey(config).await,
                Err(complaints) => Err(complaints),
            };
            match reloaded {
                Ok(reloaded) => {
                    let Reloaded { changed, needs_restart, backends } = &reloaded;
                    tracing::info!(?changed, ?needs_restart, ?backends, "the configuration was read again");
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

    fn difference(&self) -> BoxFuture<'_, Result<serde_json::Value, String>> {
        Box::pin(async move {
            let config = self.read().await?.map_err(|complaints| complaints.to_string())?;
            let difference = self.gateway.difference(config).map_err(|why| faulty(why).to_string())?;
            Ok(serde_json::json!(difference))
        })
    }
}

async fn reload_on_hang_up(mut hang_ups: Signal, operator: Arc<Operator>) {
    while hang_ups.recv().await.is_some() {
        let _ = console::Operated::reload(&*operator).await; // It is in the log.
    }
}

async fn reload_on_change(files: Vec<PathBuf>, operator: Arc<Operator>) {
    let all = || {
        let tls = operator.gateway.config().listen.tls;
        let certificate = tls.into_iter().flat_map(|tls| [tls.certificate, tls.key]);
        files.iter().cloned().chain(certificate).collect()
    };
    let mut watched = Watched::new(all()).await;
    loop {
        watched.changed(all).await;
        let _ = console::Operated::reload(&*operator).await; // It is in the log.
    }
}

async fn serve(operator: Arc<Operator>, socket: Arc<TcpListener>) {
    while let Ok((stream, _)) = socket.accept().await {
        tokio::spawn(answer(Arc::clone(&operator), stream));
    }
}

async fn answer(operator: Arc<Operator>, stream: TcpStream) {
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
