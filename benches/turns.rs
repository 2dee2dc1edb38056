//! What does the gateway add to a turn of a conversation, and what do a thousand of them at once hold?
//!
//! `cargo bench --bench turns` starts the simulator of OpenRouter and the gateway as processes of their own, on this
//! machine. It asks the same directly and through the tool `chat`, in turns, with everything on disk before it is told;
//! then a thousand answers are streamed at the same time, which takes about twenty seconds, and the gateway's memory is
//! looked at meanwhile.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use reqwest::Client;
use serde_json::{Value, json};

/// Turns that are measured one after the other, this many at a time.
const TURNS: usize = 1_000;
const AT_ONCE: usize = 8;
/// Answers that are streamed at the same time.
const STREAMS: usize = 1_000;
/// Tokens of each of them.
const TOKENS: usize = 50;

/// A process that ends with the bench.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // `cargo test --all-targets` only wants to see it start.
    }
    let folder = tempfile::tempdir().expect("a folder");
    let client = Client::builder().no_proxy().build().expect("a client");

    let (_simulator, base) = simulator(0);
    let (_gateway, url) = gateway(&folder.path().join("one"), &base).await;
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for round in 0..5 {
        let ask = |_| async { timed(complete(&client, &base)).await };
        direct
            .extend(stream::iter(0..TURNS / 5).map(ask).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
        let ask = |_| async { timed(chat(&client, &url, "hello")).await };
        through
            .extend(stream::iter(0..TURNS / 5).map(ask).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await);
        eprintln!("round {} of 5", round + 1);
    }
    println!("a turn, {AT_ONCE} at a time, {TURNS} of each (a new conversation each, all of it on disk):");
    for (what, times) in [("direct", &mut direct), ("through chat", &mut through)] {
        times.sort_unstable();
        println!("  {what:<14} p50 {:>7.2} ms   p99 {:>7.2} ms", at(times, 50), at(times, 99));
    }
    println!(
        "  added          p50 {:>7.2} ms   p99 {:>7.2} ms",
        at(&through, 50) - at(&direct, 50),
        at(&through, 99) - at(&direct, 99)
    );

    let (_slow, base) = simulator(3_200);
    let (gateway, url) = gateway(&folder.path().join("many"), &base).await;
    let rest = memory(&gateway.0);
    let words = format!("[[sim:words n={TOKENS}]]");
    let begun = Instant::now();
    let asking = stream::iter(0..STREAMS).map(|_| chat(&client, &url, &words)).buffer_unordered(STREAMS);
    let mut asking = std::pin::pin!(asking.count());
    let mut most = rest;
    let done = loop {
        tokio::select! {
            done = &mut asking => break done,
            () = tokio::time::sleep(Duration::from_millis(200)) => most = most.max(memory(&gateway.0)),
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "the answers did not come");
    };
    println!("{done} answers streamed at once, in {:.1} s:", begun.elapsed().as_secs_f64());
    println!("  resident       {most:.1} MB at the most, {rest:.1} MB at rest");
}

fn at(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100].as_secs_f64() * 1e3
}

async fn timed(work: impl Future<Output = ()>) -> Duration {
    let begun = Instant::now();
    work.await;
    begun.elapsed()
}

/// The simulator with this latency in milliseconds, and its address.
fn simulator(latency: u32) -> (Running, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openrouter-sim"));
    command.args(["--port", "0", "--latency", &latency.to_string()]).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the simulator starts");
    let mut said = BufReader::new(child.stdout.take().expect("its output is piped"));
    let mut base = String::new();
    said.read_line(&mut base).expect("it says where it is");
    std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
    (Running(child), base.trim().to_owned())
}

/// A gateway before it, and its endpoint.
async fn gateway(folder: &Path, base: &str) -> (Running, String) {
    fs::create_dir_all(folder).expect("a folder");
    let [address, admin] = [0, 1].map(|_| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    });
    let key = folder.join("key");
    fs::write(&key, "sk-or-v1-sim").expect("a file");
    let routes = format!(
        "[listen]\naddress = \"{address}\"\nadmin = \"{admin}\"\n\n[store]\npath = {:?}\n\n[backends.chat.openrouter]\n\
         api_key = {{ file = {key:?} }}\nmodel = \"acme/atlas-70b\"\nmax_conversations = 100000\n\
         upstream = {{ base_url = {base:?} }}\n\
         retry = {{ at_once = 2000, at_once_per_caller = 2000, queue_per_caller = 2000 }}\n",
        folder.join("waystation.db"),
    );
    fs::write(folder.join("routes.toml"), routes).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_waystation"));
    command.args(["serve", "--config", "routes.toml"]).current_dir(folder);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running(command.spawn().expect("the gateway starts"));
    let client = Client::builder().no_proxy().build().expect("a client");
    let health = format!("http://{address}/health");
    while !client.get(&health).send().await.is_ok_and(|answer| answer.status().is_success()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (running, format!("http://{address}/mcp"))
}

/// The model's answer, streamed, without the gateway.
async fn complete(client: &Client, base: &str) {
    let body = json!({ "model": "acme/atlas-70b", "stream": true, "messages": [{ "role": "user", "content": "hello" }] });
    let post = client.post(format!("{base}/chat/completions")).bearer_auth("sk-or-v1-sim").json(&body);
    let text = post.send().await.expect("an answer").text().await.expect("all of it");
    assert!(text.contains("[DONE]"), "{text}");
}

/// A new conversation with one turn.
async fn chat(client: &Client, url: &str, message: &str) {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "turns", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": 1,
    });
    let params = json!({ "name": "chat__chat", "arguments": { "message": message }, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let post = client
        .post(url)
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", "chat__chat")
        .json(&body);
    let text = post.send().await.expect("an answer").text().await.expect("all of it");
    let last = text
        .lines()
        .filter_map(|line| line.strip_prefix("data:").or(Some(line)))
        .rfind(|line| line.contains("\"result\""));
    let answer: Value = serde_json::from_str(last.unwrap_or_default().trim()).unwrap_or_default();
    assert_eq!(answer["result"]["structuredContent"]["status"], "completed", "{text}");
}

/// Resident megabytes.
fn memory(child: &Child) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kilobytes.unwrap_or(0.0) / 1024.0
}
