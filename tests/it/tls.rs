//! Do clients reach the gateway over https, and with the certificate that is in the file now?

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use waystation::config::{Config, Environment};

use crate::support::{Gateway, PATIENCE, certified::Certified, modern_message};

async fn lists(client: &reqwest::Client, gateway: &Gateway) -> reqwest::Result<reqwest::Response> {
    let url = format!("https://localhost:{}/mcp", gateway.address.port());
    let post = client.post(url).header("content-type", "application/json");
    let post = post.header("mcp-protocol-version", "2026-07-28").header("mcp-method", "tools/list");
    let response = post.body(modern_message(json!(1), "tools/list", json!({})).to_string()).send().await?;
    assert_eq!(response.status(), 200);
    Ok(response)
}

#[tokio::test]
async fn clients_choose_between_http_2_and_1() {
    let certified = Certified::new("localhost");
    let gateway = Gateway::with(&certified.table()).start().await;
    let response = lists(&certified.client().build().unwrap(), &gateway).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert!(response.text().await.unwrap().contains("waystation__status"));
    let response = lists(&certified.client().http1_only().build().unwrap(), &gateway).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_11);
    let stranger = Certified::new("localhost").client().build().unwrap();
    assert!(lists(&stranger, &gateway).await.is_err(), "the certificate is its own");
    // Whoever does not speak TLS gets nothing of the gateway.
    let mut plain = TcpStream::connect(gateway.address).await.unwrap();
    plain.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    timeout(PATIENCE, plain.read_to_end(&mut read)).await.expect("it is closed in time").ok();
    assert!(!read.starts_with(b"HTTP"), "{read:?}");
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_is_cut() {
    let certified = Certified::new("localhost");
    let toml = format!("[listen.limits]\nhead = \"200ms\"\n{}", certified.table());
    let gateway = Gateway::with(&toml).start().await;
    let mut silent = TcpStream::connect(gateway.address).await.unwrap();
    timeout(PATIENCE, silent.read_to_end(&mut Vec::new())).await.expect("it is closed in time").ok();
}

#[tokio::test]
async fn servers_are_reached_over_https_where_their_certificate_is_trusted() {
    let certified = Certified::new("localhost");
    let server = Gateway::with(&certified.table()).start().await;
    let folder = tempfile::tempdir().unwrap();
    let routes = folder.path().join("routes.toml");
    let port = server.address.port();
    let table = format!("[backends.far]\nurl = \"https://localhost:{port}/mcp\"\nprefix = \"far\"\n");
    std::fs::write(&routes, format!("[store]\npath = {:?}\n\n{table}", folder.path().join("w.db"))).unwrap();
    let call = async |trusted: &std::path::Path| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_waystation"));
        command.args(["call", "far__waystation__status", "--config"]).arg(&routes);
        command.current_dir(folder.path()).env_clear().env("SSL_CERT_FILE", trusted);
        let output = timeout(PATIENCE, command.output()).await.expect("it ends in time").unwrap();
        let told = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&told).into_owned())
    };
    let (done, told) = call(&certified.certificate()).await;
    assert!(done && told.contains("backends"), "{told}");
    let (done, told) = call(&Certified::new("localhost").certificate()).await;
    assert!(!done, "{told}");
}

#[test]
fn a_certificate_that_is_none_is_told_by_its_key() {
    let certified = Certified::new("localhost");
    let faults = |text: &str| {
        let environment = Environment::default();
        Config::parse("routes.toml", text, &environment).map(drop).unwrap_err().to_string()
    };
    let table = certified.table();
    let missing = faults(&table.replace("certificate.pem", "none.pem"));
    assert!(missing.contains("listen.tls.certificate: ") && missing.contains("cannot be read"), "{missing}");
    let swapped = faults(&table.replace("key.pem", "certificate.pem"));
    assert!(swapped.contains("listen.tls.key: ") && swapped.contains("no private key"), "{swapped}");
    std::fs::copy(Certified::new("localhost").key(), certified.key()).unwrap();
    let foreign = faults(&table);
    assert!(foreign.contains("listen.tls.key: ") && foreign.contains("does not go with"), "{foreign}");
}
