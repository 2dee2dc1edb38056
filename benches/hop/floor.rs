//! How fast is a reverse proxy that is made of the gateway's libraries and does nothing else?
//!
//! hyper on both sides, in the gateway's runtime: what is above its cost is the gateway's own work,
//! what is below it only other libraries could reach. A request goes on as it came, under the
//! backend's name; whoever waits for an answer moves the bytes of its connection.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    client,
    header::{HOST, HeaderValue},
    server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// Set as the gateway sets them.
const BUFFER: usize = 64 << 10;
const ANSWER_BUFFER: usize = 1 << 20;

/// A connection to the backend, and what moves its bytes.
struct Connection {
    sender: client::conn::http1::SendRequest<Full<Bytes>>,
    driver: Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>,
}

struct Floor {
    backend: SocketAddr,
    host: HeaderValue,
    idle: Mutex<Vec<Connection>>,
}

/// Listens at the first address and sends everything on to the second, until it is ended.
pub fn serve(mut arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let mut address = || -> Result<SocketAddr, String> {
        let address = arguments.next().ok_or("floor wants two addresses")?;
        address.parse().map_err(|_| format!("{address:?} is no address"))
    };
    let (own, backend) = (address()?, address()?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let served: Result<Infallible, String> =
        runtime.block_on(runtime.spawn(listen(own, backend))).unwrap_or_else(|error| Err(error.to_string()));
    served.map(|never| match never {})
}

async fn listen(own: SocketAddr, backend: SocketAddr) -> Result<Infallible, String> {
    let told = |error: std::io::Error| error.to_string();
    let listener = TcpListener::bind(own).await.map_err(told)?;
    let host = HeaderValue::from_str(&backend.to_string()).map_err(|error| error.to_string())?;
    let floor = Arc::new(Floor { backend, host, idle: Mutex::default() });
    loop {
        let (stream, _) = listener.accept().await.map_err(told)?;
        stream.set_nodelay(true).map_err(told)?;
        let floor = Arc::clone(&floor);
        let service = service_fn(move |request| {
            let floor = Arc::clone(&floor);
            async move { floor.pass(request).await }
        });
        let mut server = server::conn::http1::Builder::new();
        let connection = server.max_buf_size(BUFFER).serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

impl Floor {
    async fn pass(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Fault> {
        let (mut head, body) = request.into_parts();
        head.headers.insert(HOST, self.host.clone());
        let body = body.collect().await?.to_bytes();
        let request = Request::from_parts(head, Full::new(body));
        let idle = self.idle.lock().expect("nobody panics with the lock").pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Box::pin(self.connect()).await?,
        };
        let Connection { sender, driver } = &mut connection;
        let exchange = async {
            let (head, body) = sender.send_request(request).await?.into_parts();
            Ok::<_, Fault>(Response::from_parts(head, Full::new(body.collect().await?.to_bytes())))
        };
        let response = tokio::select! {
            biased;
            response = exchange => response?,
            _ = driver => return Err("the backend has closed the connection".into()),
        };
        self.idle.lock().expect("nobody panics with the lock").push(connection);
        Ok(response)
    }

    async fn connect(&self) -> Result<Connection, Fault> {
        let stream = TcpStream::connect(self.backend).await?;
        stream.set_nodelay(true)?;
        let mut client = client::conn::http1::Builder::new();
        let (sender, driver) = client.max_buf_size(ANSWER_BUFFER).handshake(TokioIo::new(stream)).await?;
        Ok(Connection { sender, driver: Box::pin(driver) })
    }
}
