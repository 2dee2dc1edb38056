//! An issuer's web server, which can be told to misbehave.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// What is answered to whoever asks for the key set.
#[derive(Clone)]
pub enum Manner {
    Set(Value),
    /// Under status 200.
    Text(Vec<u8>),
    Redirect(String),
    /// Takes the request and says nothing.
    Silence,
    /// A byte every 50 ms.
    Drip,
    /// Closes without an answer.
    Away,
}

pub struct Login {
    pub address: SocketAddr,
    inner: Arc<Inner>,
    serving: AbortHandle,
}

struct Inner {
    manner: Mutex<Manner>,
    /// Requests for the key set.
    asked: AtomicU64,
    /// Bytes of it that were taken.
    sent: AtomicU64,
}

impl Drop for Login {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Login {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Inner { manner: Mutex::new(manner), asked: AtomicU64::new(0), sent: AtomicU64::new(0) };
        let inner = Arc::new(inner);
        let shared = Arc::clone(&inner);
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket, address, Arc::clone(&shared)));
            }
        });
        Self { address, inner, serving: serving.abort_handle() }
    }

    /// As it stands in the `iss` of its tokens.
    pub fn name(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The tables of routes.toml that believe it.
    pub fn tables(&self) -> String {
        let (audience, name) = (super::tokens::AUDIENCE, self.name());
        format!("[identify]\naudience = \"{audience}\"\n[[identify.issuer]]\nissuer = \"{name}\"\n")
    }

    pub fn becomes(&self, manner: Manner) {
        *self.inner.manner.lock().unwrap() = manner;
    }

    pub fn asked(&self) -> u64 {
        self.inner.asked.load(Ordering::Relaxed)
    }

    pub fn sent(&self) -> u64 {
        self.inner.sent.load(Ordering::Relaxed)
    }
}

async fn answer(mut socket: TcpStream, address: SocketAddr, inner: Arc<Inner>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head);
    if head.starts_with("GET /.well-known/oauth-authorization-server ") {
        let own = format!("http://{address}");
        let document = json!({ "issuer": own, "jwks_uri": format!("{own}/keys") });
        return send(&mut socket, "200 OK", document.to_string().as_bytes(), &inner).await;
    }
    inner.asked.fetch_add(1, Ordering::Relaxed);
    let manner = inner.manner.lock().unwrap().clone();
    match manner {
        Manner::Set(set) => send(&mut socket, "200 OK", set.to_string().as_bytes(), &inner).await,
        Manner::Text(text) => send(&mut socket, "200 OK", &text, &inner).await,
        Manner::Redirect(to) => send(&mut socket, &format!("302 Found\r\nlocation: {to}"), b"", &inner).await,
        Manner::Silence => std::future::pending().await,
        Manner::Drip => {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{";
            let _ = socket.write_all(head.as_bytes()).await;
            while socket.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Manner::Away => {}
    }
}

async fn send(socket: &mut TcpStream, status: &str, body: &[u8], inner: &Inner) {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    if socket.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    for part in body.chunks(64 << 10) {
        if socket.write_all(part).await.is_err() {
            return; // Whoever asked has had enough.
        }
        inner.sent.fetch_add(part.len() as u64, Ordering::Relaxed);
    }
    let _ = socket.shutdown().await;
}
