//! Who is compared, and how is each of them started?
//!
//! Everything a subject writes goes to one scratch folder, and nothing of this machine reaches in:
//! each has a configuration of its own, and the gateway sees no setting from the environment.

use std::{
    env,
    fmt::Write,
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::time::sleep;

use crate::{
    call::{Era, TOOLS, Target},
    load::Client,
    process::{Cores, Running, Watched, pinned},
};

const GATEWAY: &str = env!("CARGO_BIN_EXE_waystation");

/// A place to run subjects in: two cores and a folder that is removed again.
pub struct Lab {
    pub cores: Option<Cores>,
    pub folder: PathBuf,
    /// Words before the command of every subject, such as a profiler.
    pub under: Vec<String>,
    /// How long a subject may take to be ready.
    pub patience: Duration,
}

/// A running subject and where it listens.
pub struct Subject {
    pub running: Running,
    pub watched: Watched,
    pub address: SocketAddr,
    log: PathBuf,
    /// What its clients prove themselves with.
    proof: &'static str,
}

impl Lab {
    pub fn new() -> Result<Lab, String> {
        let folder = env::temp_dir().join(format!("waystation-hop-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Lab { cores: Cores::find(), folder, under: Vec::new(), patience: Duration::from_secs(10) })
    }

    /// This program again, as the MCP server behind all subjects.
    pub fn backend(&self) -> Result<Subject, String> {
        let own = env::current_exe().map_err(|error| error.to_string())?;
        let mut command = pinned(self.cores.map(|cores| cores.load), &own);
        command.arg("backend").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("the backend does not start: {error}"))?;
        let said = child.stdout.take().expect("standard output is piped");
        let mut port = String::new();
        BufReader::new(said).read_line(&mut port).map_err(|error| error.to_string())?;
        let port = port.trim().parse().map_err(|_| "the backend did not say its port")?;
        let address = local(port);
        let running = Running::of(child);
        // It shares its core with the load, so who else is there cannot be told.
        let watched = Watched { pids: running.pids(), core: None };
        Ok(Subject { watched, running, address, log: PathBuf::new(), proof: "" })
    }

    /// Debian's nginx as a plain reverse proxy; `None` where it is not installed.
    pub async fn nginx(&self, backend: SocketAddr) -> Result<Option<Subject>, String> {
        let places = env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let Some(program) =
            env::split_paths(&places).map(|place| place.join("nginx")).find(|it| it.is_file())
        else {
            return Ok(None);
        };
        let folder = self.subfolder("nginx")?;
        let address = local(free_port()?);
        // A profiler watches one process only, so there the worker is the master.
        let master = if self.under.is_empty() { "on" } else { "off" };
        let file = folder.join("nginx.conf");
        let text = NGINX.replace("LISTEN", &address.to_string()).replace("BACKEND", &backend.to_string());
        let text = text.replace("FOLDER", &folder.to_string_lossy()).replace("MASTER", master);
        fs::write(&file, text).map_err(|error| error.to_string())?;
        let mut command = self.command(&program);
        command.arg("-p").arg(&folder).arg("-c").arg(&file).arg("-e").arg(folder.join("error.log"));
        let mut nginx = Subject::start(command, &folder, address)?;
        self.until("nginx", &mut nginx, async || {
            Client::open(plain(address, Era::Modern), Era::Modern).await.is_ok()
        })
        .await?;
        Ok(Some(nginx))
    }

    /// This program once more, as a bare proxy of the gateway's libraries.
    pub async fn floor(&self, backend: SocketAddr) -> Result<Subject, String> {
        let own = env::current_exe().map_err(|error| error.to_string())?;
        let (folder, address) = (self.subfolder("floor")?, local(free_port()?));
        let mut command = self.command(&own);
        command.arg("floor").arg(address.to_string()).arg(backend.to_string());
        let mut floor = Subject::start(command, &folder, address)?;
        self.until("the bare proxy", &mut floor, async || {
            Client::open(plain(address, Era::Modern), Era::Modern).await.is_ok()
        })
        .await?;
        Ok(floor)
    }

    /// Starts the gateway before these backends; does not wait for it.
    pub fn spawn_gateway(&self, name: &str, backends: &[(String, String)]) -> Result<Subject, String> {
        self.spawn(name, backends, "", local(free_port()?))
    }

    fn spawn(
        &self,
        name: &str,
        backends: &[(String, String)],
        tables: &str,
        address: SocketAddr,
    ) -> Result<Subject, String> {
        let folder = self.subfolder(name)?;
        let mut routes = format!(
            "[listen]\naddress = \"{address}\"\nadmin = \"{}\"\n\n[store]\npath = {:?}\n\n{tables}",
            local(free_port()?),
            folder.join("waystation.db"),
        );
        for (name, url) in backends {
            write!(routes, "\n[backends.{name}]\nurl = \"{url}\"\n").expect("a string takes all text");
        }
        let file = folder.join("routes.toml");
        fs::write(&file, routes).map_err(|error| error.to_string())?;
        let mut command = self.command(Path::new(GATEWAY));
        command.args(["serve", "--config"]).arg(&file).current_dir(&folder);
        without_settings(&mut command);
        Subject::start(command, &folder, address)
    }

    /// Starts the gateway before one legacy backend, with all that decides about calls: callers with
    /// tokens, a rule, limits that nobody reaches, and the audit trail in the store.
    pub async fn guarded_gateway(&self, backend: &Subject) -> Result<Subject, String> {
        let (name, address) = ("gateway-guarded", local(free_port()?));
        let (keys, audience) = (self.subfolder("keys")?, format!("http://{address}/mcp"));
        let mut token = Command::new(GATEWAY);
        token.args(["token", "--subject", "ada", "--group", "bench", "--expires", "24h"]);
        token.args(["--audience", &audience, "--keys"]).arg(&keys).current_dir(&keys);
        without_settings(&mut token);
        let token = token.output().map_err(|error| format!("no token: {error}"))?;
        if !token.status.success() {
            return Err(format!("no token: {}", String::from_utf8_lossy(&token.stderr)));
        }
        let token = String::from_utf8_lossy(&token.stdout);
        let tables = GUARDS.replace("AUDIENCE", &audience).replace("KEYS", &keys.to_string_lossy());
        let url = format!("http://{}{}", backend.address, plain(backend.address, Era::Legacy).path);
        let mut gateway = self.spawn(name, &[("bench".to_owned(), url)], &tables, address)?;
        // There is one for the whole run.
        gateway.proof = format!("Authorization: Bearer {}\r\n", token.trim()).leak();
        self.listing(name, gateway, TOOLS).await
    }

    /// Starts the gateway and waits until it is healthy and lists this many tools.
    pub async fn gateway(
        &self,
        name: &str,
        backends: &[(String, String)],
        tools: usize,
    ) -> Result<Subject, String> {
        let gateway = self.spawn_gateway(name, backends)?;
        self.listing(name, gateway, tools).await
    }

    async fn listing(&self, name: &str, mut gateway: Subject, tools: usize) -> Result<Subject, String> {
        let target = gateway.target();
        let healthy = async || healthy(target).await && Client::list(target).await == Ok(tools);
        self.until(&format!("the gateway ({name})"), &mut gateway, healthy).await?;
        Ok(gateway)
    }

    /// Starts the gateway before one backend that speaks this era only.
    pub async fn gateway_before(&self, backend: &Subject, era: Era) -> Result<Subject, String> {
        let url = format!("http://{}{}", backend.address, plain(backend.address, era).path);
        self.gateway(&format!("gateway-{era}"), &[("bench".to_owned(), url)], TOOLS).await
    }

    fn command(&self, program: &Path) -> Command {
        let core = self.cores.map(|cores| cores.subject);
        let Some((first, rest)) = self.under.split_first() else {
            return pinned(core, program);
        };
        let mut command = pinned(core, Path::new(first));
        command.args(rest).arg(program);
        command
    }

    async fn until(
        &self,
        name: &str,
        subject: &mut Subject,
        ready: impl AsyncFn() -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + self.patience;
        while !ready().await {
            if subject.running.has_ended() || Instant::now() > deadline {
                let said = fs::read_to_string(&subject.log).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(10).collect();
                let last = last.into_iter().rev().collect::<Vec<_>>().join("\n  ");
                return Err(format!("{name} is not ready after {:?}; it said:\n  {last}", self.patience));
            }
            sleep(Duration::from_millis(10)).await;
        }
        // Only now are all its processes there.
        subject.watched =
            Watched { pids: subject.running.pids(), core: self.cores.map(|cores| cores.subject) };
        Ok(())
    }

    fn subfolder(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(folder)
    }
}

impl Subject {
    fn start(command: Command, folder: &Path, address: SocketAddr) -> Result<Subject, String> {
        let log = folder.join("log");
        let running =
            Running::start(command, &log).map_err(|error| format!("a subject does not start: {error}"))?;
        Ok(Subject { watched: Watched::default(), running, address, log, proof: "" })
    }

    /// The endpoint of a gateway: all tools, under their prefixed names.
    pub fn target(&self) -> Target {
        Target { address: self.address, path: "/mcp", prefix: "bench__", proof: self.proof }
    }
}

/// The backend's endpoint for one era, at the backend itself or through a plain proxy.
pub fn plain(address: SocketAddr, era: Era) -> Target {
    let path = match era {
        Era::Legacy => "/legacy",
        Era::Modern => "/modern",
    };
    Target { address, path, prefix: "", proof: "" }
}

async fn healthy(target: Target) -> bool {
    let Ok(mut client) = Client::open(target, Era::Modern).await else {
        return false;
    };
    let request = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", target.address);
    client.exchange(request.as_bytes()).await.is_ok_and(|answer| answer.status() == 200)
}

/// A port that was free a moment ago: to listen on, or as the address of a server that is gone.
pub fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Nothing of this machine's settings reaches the gateway.
fn without_settings(command: &mut Command) {
    for (key, _) in env::vars_os() {
        if key.to_string_lossy().starts_with("WAYSTATION_") || key == "RUST_LOG" {
            command.env_remove(key);
        }
    }
}

/// What decides about calls. The audit trail is kept in the store, since callers are known.
const GUARDS: &str = r#"
[identify]
audience = "AUDIENCE"
[[identify.issuer]]
issuer = "https://development.waystation.invalid"
jwks_file = "KEYS/development.jwks.json"
[[permit]]
who = { group = "bench" }
allow = ["bench__*"]
[limit]
per_caller = "1000000/s"
discovery = "1000000/s"
at_once_per_caller = 1000
at_once_per_backend = 1000
"#;

/// One worker, connections kept on both sides for as long as the bench runs, and buffers wide
/// enough that no answer goes through a file.
const NGINX: &str = "
daemon off;
master_process MASTER;
worker_processes 1;
pid FOLDER/pid;
error_log FOLDER/error.log warn;
events { worker_connections 2048; }
http {
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    upstream backend {
        server BACKEND;
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }
    server {
        listen LISTEN;
        location / {
            proxy_pass http://backend;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffer_size 16k;
            proxy_buffers 16 16k;
            proxy_max_temp_file_size 0;
        }
    }
}
";
