//! T15: where does the gateway go when a server tells it to?

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use url::Url;
use waystation::backend::credential::egress::{Egress, Refused};

use crate::support::battery::Battery;

/// Literal addresses that lead to this machine or its network. `PORT` is the canary's.
const LITERALS: [&str; 53] = [
    "https://127.0.0.1:PORT/",
    "https://127.1:PORT/",
    "https://127.0.1:PORT/",
    "https://127.1.2.3:PORT/",
    "https://127.255.255.254:PORT/",
    "https://2130706433:PORT/",
    "https://0x7f000001:PORT/",
    "https://0x7f.1:PORT/",
    "https://0177.0.0.1:PORT/",
    "https://017700000001:PORT/",
    "https://0x7F.0x0.0x0.0x1:PORT/",
    "https://127.0.0.1.:PORT/",
    "https://0:PORT/",
    "https://0.0.0.0:PORT/",
    "https://127\u{3002}0\u{3002}0\u{3002}1:PORT/",
    "https://127\u{ff0e}0\u{ff0e}0\u{ff0e}1:PORT/",
    "https://\u{2460}\u{2461}\u{2466}.0.0.1:PORT/",
    "https://example.com@127.0.0.1:PORT/",
    "https://example.com:443@127.0.0.1:PORT/",
    "https://127.0.0.1:PORT\\@example.com/",
    "https://127.0.0.1:PORT#@example.com/",
    "https:127.0.0.1:PORT/",
    "https:///127.0.0.1:PORT/",
    "https://%31%32%37.0.0.1:PORT/",
    "https://[::1]:PORT/",
    "https://[0:0:0:0:0:0:0:1]:PORT/",
    "https://[::]:PORT/",
    "https://[::ffff:127.0.0.1]:PORT/",
    "https://[::ffff:7f00:1]:PORT/",
    "https://[::127.0.0.1]:PORT/",
    "https://user:word@[::1]:PORT/",
    "https://[64:ff9b::127.0.0.1]:PORT/",
    "https://[64:ff9b::a00:1]:PORT/",
    "https://[64:ff9b:1::7f00:1]:PORT/",
    "https://[2002:7f00:1::]:PORT/",
    "https://[2002:a00:1::1]:PORT/",
    "https://[2001:0:4136:e378:8000:63bf:80ff:fffe]:PORT/",
    "https://[2606:4700::5efe:7f00:1]:PORT/",
    "https://[2606:4700::200:5efe:a00:1]:PORT/",
    "https://[fe80::1]:PORT/",
    "https://[fec0::1]:PORT/",
    "https://[fc00::1]:PORT/",
    "https://[fd00:ec2::254]:PORT/",
    "https://[ff02::1]:PORT/",
    "https://[2001:db8::1]:PORT/",
    "https://169.254.169.254:PORT/",
    "https://0xa9fea9fe:PORT/",
    "https://10.0.0.1:PORT/",
    "https://172.16.0.1:PORT/",
    "https://192.168.0.1:PORT/",
    "https://100.64.0.1:PORT/",
    "https://198.18.0.1:PORT/",
    "https://255.255.255.255:PORT/",
];

/// Other ways than https.
const SCHEMES: [&str; 9] = [
    "http://127.0.0.1:PORT/",
    "http://localhost:PORT/",
    "http://names.example:PORT/",
    "http://93.184.216.34:PORT/",
    "smb://127.0.0.1:PORT/",
    "gopher://127.0.0.1:PORT/",
    "ftp://127.0.0.1:PORT/",
    "ws://127.0.0.1:PORT/",
    "dict://127.0.0.1:PORT/",
];

/// Names, and where they lead each time they are looked up.
const NAMES: [(&str, &[&str]); 9] = [
    ("loopback.example", &["127.0.0.1"]),
    ("localhost", &["127.0.0.1"]),
    ("localhost.", &["127.0.0.1"]),
    ("six.example", &["::1"]),
    ("mapped.example", &["::ffff:127.0.0.1"]),
    ("translated.example", &["64:ff9b::7f00:1"]),
    ("metadata.google.internal", &["169.254.169.254"]),
    ("private.example", &["10.0.0.1"]),
    // Public when it is looked at, private when it is used.
    ("rebound.example", &["93.184.216.34", "127.0.0.1"]),
];

/// Leads names where the table says, and to the last place from then on.
struct Names(Mutex<HashMap<String, usize>>);

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let mut asked = self.0.lock().unwrap();
        let count = asked.entry(name.as_str().to_owned()).or_default();
        let known =
            NAMES.iter().find(|(known, _)| *known == name.as_str()).map_or(&["127.0.0.1"][..], |(_, to)| to);
        let address = known[(*count).min(known.len() - 1)];
        *count += 1;
        let address = SocketAddr::new(address.parse().unwrap(), 0);
        Box::pin(async move { Ok(Box::new(std::iter::once(address)) as Addrs) })
    }
}

/// Listens where nobody must come.
async fn canary() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, visits) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&visits);
    tokio::spawn(async move {
        loop {
            let Ok((mut socket, _)) = listener.accept().await else { continue };
            counted.fetch_add(1, Ordering::Relaxed);
            let _ =
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
    });
    (port, visits)
}

/// Answers `/STATUS` with that status and the canary's address, `/chain` with the way to another
/// redirect, and all else with 200.
async fn redirecting(canary: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let Ok((mut socket, _)) = listener.accept().await else { continue };
            let mut text = [0; 4096];
            let read = socket.read(&mut text).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&text[..read]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
            let (status, to) = match path.as_str() {
                "chain" => ("302".to_owned(), "/307".to_owned()),
                status if status.starts_with('3') => (path.clone(), format!("http://127.0.0.1:{canary}/")),
                _ => ("200".to_owned(), "/".to_owned()),
            };
            let answer = format!(
                "HTTP/1.1 {status} X\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    port
}

async fn ask(egress: &Egress, verb: &str, url: &Url) -> Result<u16, Refused> {
    let request =
        http::Request::builder().method(verb).uri(url.as_str()).header("authorization", "Bearer secret");
    let request = request.body(if verb == "POST" { b"code=secret".to_vec() } else { Vec::new() });
    Ok(egress.ask(request.map_err(|why| Refused::Scheme(why.to_string()))?).await?.status().as_u16())
}

fn is_refused(seen: &Result<u16, Refused>) -> bool {
    matches!(seen, Err(Refused::Scheme(_) | Refused::Private(_)))
}

/// Asks for all at once, and says what came of each.
async fn each(egress: &Egress, urls: impl Iterator<Item = String>) -> Vec<(String, Result<u16, Refused>)> {
    let asked = urls.map(|text| async move {
        let url = Url::parse(&text).unwrap_or_else(|why| panic!("{text}: {why}"));
        let seen = ask(egress, "GET", &url).await;
        (text, seen)
    });
    futures_util::future::join_all(asked).await
}

#[tokio::test]
async fn what_servers_name_is_asked_only_where_anybody_may_be_led() {
    let battery = Battery::new("T15");
    let (port, visits) = canary().await;
    let server = redirecting(port).await;
    let names = Arc::new(Names(Mutex::default()));
    let allowed = [format!("http://127.0.0.1:{server}")];
    let egress = Egress::new(&allowed, Arc::clone(&names) as Arc<dyn Resolve>).unwrap();
    let filled = |text: &str| text.replace("PORT", &port.to_string());

    for (url, seen) in each(&egress, LITERALS.iter().map(|text| filled(text))).await {
        battery.row(url.replace(&port.to_string(), "PORT"), is_refused(&seen), &seen);
    }
    for (url, seen) in each(&egress, SCHEMES.iter().map(|text| filled(text))).await {
        battery.row(url.replace(&port.to_string(), "PORT"), is_refused(&seen), &seen);
    }
    let file = egress.check(&Url::parse("file:///etc/passwd").unwrap());
    battery.row("file:///etc/passwd", file.is_err(), &file);
    names.resolve("rebound.example".parse().unwrap()).await.map(drop).unwrap(); // The look beforehand.
    for (url, seen) in each(&egress, NAMES.iter().map(|(name, _)| format!("https://{name}:{port}/"))).await {
        battery.row(url.replace(&port.to_string(), "PORT"), is_refused(&seen), &seen);
    }

    // What is allowed is so to the letter.
    let others = [
        format!("https://127.0.0.1:{server}/"),
        format!("http://localhost:{server}/"),
        format!("http://127.0.0.2:{server}/"),
        format!("http://[::ffff:127.0.0.1]:{server}/"),
    ];
    for (url, seen) in each(&egress, others.into_iter()).await {
        battery.row(
            format!("not allowed {}", url.replace(&server.to_string(), "SERVER")),
            is_refused(&seen),
            &seen,
        );
    }
    let url = |path: &str| Url::parse(&format!("http://127.0.0.1:{server}/{path}")).unwrap();
    let seen = ask(&egress, "GET", &url("")).await;
    battery.row("allowed", seen == Ok(200), &seen);

    for verb in ["GET", "POST"] {
        for path in ["301", "302", "303", "307", "308", "chain"] {
            let seen = ask(&egress, verb, &url(path)).await;
            let held = matches!(seen, Ok(300..400)) && visits.load(Ordering::Relaxed) == 0;
            battery.row(format!("{verb} redirected by {path}"), held, &seen);
        }
    }
    let visits = visits.load(Ordering::Relaxed);
    battery.row("nobody came to the canary", visits == 0, visits);
    battery.end(80);
}
