//! The gateway inside a program of one's own: `cargo run --example embedded`.
//!
//! The engine answers HTTP requests and knows no sockets, so it can stand behind whatever a
//! program listens with; here that is hyper, with a page of the program's own beside it.

use std::convert::Infallible;

use http_body_util::{Either, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use waystation::{config::Config, engine::Waystation};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.listen.address = "127.0.0.1:8090".parse()?;
    let listener = TcpListener::bind(config.listen.address).await?;
    let gateway = Waystation::from_config(config).await.map_err(|faults| format!("{faults:?}"))?;
    println!("http://{}/mcp is the gateway, everything else is ours", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let gateway = gateway.clone();
        let service = service_fn(move |request| answer(gateway.clone(), request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

type Body = Either<waystation::listener::body::Body, Full<bytes::Bytes>>;

async fn answer(gateway: Waystation, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    if request.uri().path().starts_with("/mcp") {
        return Ok(gateway.handle(request).await.map(Either::Left));
    }
    Ok(Response::new(Either::Right(Full::from("This page is the program's own.\n"))))
}
