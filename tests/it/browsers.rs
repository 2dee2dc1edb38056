//! What can a page in a browser do to a gateway that its user can reach?

use serde_json::json;

use crate::{
    fake::{Era, Fake},
    support::{Answer, Gateway, Post, battery::Battery},
};

/// By which name a request comes, and whether that is one of ours at the public address and at the
/// admin one. `PORT` stands for the gateway's own.
const HOSTS: [(&str, bool, bool); 12] = [
    ("127.0.0.1:PORT", true, true),
    ("localhost:PORT", true, true),
    ("LOCALHOST", true, true),
    ("[::1]:PORT", true, true),
    ("127.0.0.1:1", true, true),
    ("mcp.example.com", true, false),
    ("evil.example:PORT", false, false),
    ("127.0.0.1.evil.example:PORT", false, false),
    ("localhost.evil.example", false, false),
    ("mcp.example.com.evil.example", false, false),
    ("127.0.0.2:PORT", false, false),
    ("[::1", false, false),
];

/// From which page, and whether that is welcome at either address.
const ORIGINS: [(&str, bool, bool); 12] = [
    ("", true, true),
    ("http://127.0.0.1:PORT", true, true),
    ("http://localhost:3000", true, true),
    ("http://[::1]:8", true, true),
    ("https://mcp.example.com", true, false),
    ("https://app.example.com", true, false),
    ("null", false, false),
    ("http://evil.example", false, false),
    ("http://localhost.evil.example", false, false),
    ("file://", false, false),
    ("https://app.example.com:8443", false, false),
    ("https://app.example.com.evil.example", false, false),
];

const LISTEN: &str = "[listen]\nhosts = [\"mcp.example.com\"]\norigins = [\"https://app.example.com\"]\n";
const ALLOWED: &str = "access-control-allow-origin";

async fn gateway(toml: &str) -> (Gateway, Fake) {
    let fake = Fake::builder().era(Era::Modern).start().await;
    (Gateway::with(&format!("{LISTEN}{toml}")).backend("one", &fake).start().await, fake)
}

/// A request that comes by this name, and from this page if that is named.
fn from(post: Post, host: &str, origin: &str, port: u16) -> Post {
    let spelled = |text: &str| text.replace("PORT", &port.to_string());
    let post = post.header("host", spelled(host));
    if origin.is_empty() { post } else { post.header("origin", spelled(origin)) }
}

#[tokio::test]
async fn pages_reach_what_they_may_and_nothing_else() {
    let battery = Battery::new("T08");
    let (gateway, fake) = gateway("").await;
    let (public, admin) = (gateway.address.port(), gateway.admin.port());
    for (host, ours, of_admin) in HOSTS {
        for (origin, welcome, at_admin) in ORIGINS {
            fake.forget();
            let call = from(gateway.call("one__echo", json!({})), host, origin, public).send().await;
            let ran = fake.seen_of("tools/call").len();
            let held = if ours && welcome { (200, 1) } else { (403, 0) } == (call.status, ran)
                && readable(&call, origin, public) == (ours && welcome && !origin.is_empty());
            battery.row(format!("public {host} {origin}"), held, (call.status, ran, call.text()));
            let status = Post::new(gateway.admin, "/status", "").verb("GET");
            let status = from(status, host, origin, admin).send().await;
            let held = if of_admin && at_admin { 200 } else { 403 } == status.status
                && status.text().contains("one") == (of_admin && at_admin)
                && !status.headers.contains_key(ALLOWED);
            battery.row(format!("admin {host} {origin}"), held, (status.status, status.text()));
        }
    }
    preflights(&battery, &gateway).await;
    simple_requests(&battery, &gateway, &fake).await;
    other_ways(&battery, &gateway).await;
    battery.end(320);
}

/// May a page of this origin read the answer?
fn readable(answer: &Answer, origin: &str, port: u16) -> bool {
    let allowed = answer.headers.get(ALLOWED).and_then(|value| value.to_str().ok());
    allowed.is_some_and(|allowed| allowed == origin.replace("PORT", &port.to_string()) && allowed != "*")
}

/// What a browser asks before it sends anything but a form.
async fn preflights(battery: &Battery, gateway: &Gateway) {
    let wanted = "authorization,content-type,mcp-method,mcp-name,mcp-param-region,mcp-protocol-version";
    for path in ["/mcp", "/mcp/one", "/sse", "/.well-known/oauth-protected-resource/mcp"] {
        for (origin, welcome, _) in ORIGINS.into_iter().filter(|(origin, ..)| !origin.is_empty()) {
            let asked = gateway.get(path).verb("OPTIONS");
            let asked = asked.header("access-control-request-method", "POST");
            let asked = asked.header("access-control-request-headers", wanted);
            let answer = from(asked, "127.0.0.1:PORT", origin, gateway.address.port()).send().await;
            let says = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
            let granted = says("access-control-allow-headers") == Some(wanted)
                && says("access-control-allow-methods") == Some("GET, POST, DELETE");
            let held = match welcome {
                true => answer.status == 204 && granted && readable(&answer, origin, gateway.address.port()),
                false => answer.status == 403 && !granted && !answer.headers.contains_key(ALLOWED),
            };
            battery.row(format!("preflight {path} {origin}"), held, (answer.status, &answer.headers));
        }
    }
    let bare = gateway.get("/mcp").verb("OPTIONS").header("origin", "https://app.example.com").send().await;
    battery.row("preflight that asks for nothing", bare.status == 405, bare.status);
}

/// What a browser sends without asking.
async fn simple_requests(battery: &Battery, gateway: &Gateway, fake: &Fake) {
    let kinds = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""];
    for kind in kinds {
        for (origin, status) in
            [("http://evil.example", 403), ("null", 403), ("https://app.example.com", 415), ("", 415)]
        {
            fake.forget();
            let call = gateway.call("one__echo", json!({}));
            let call = if kind.is_empty() {
                call.without("content-type")
            } else {
                call.header("content-type", kind)
            };
            let answer = from(call, "127.0.0.1:PORT", origin, gateway.address.port()).send().await;
            let held = answer.status == status && fake.seen_of("tools/call").is_empty();
            battery.row(format!("simple {kind} {origin}"), held, (answer.status, answer.text()));
        }
    }
}

/// All else that a page could try.
async fn other_ways(battery: &Battery, gateway: &Gateway) {
    let evil = "http://evil.example";
    for (verb, path) in [
        ("GET", "/mcp"),
        ("DELETE", "/mcp"),
        ("GET", "/sse"),
        ("POST", "/messages?session=0"),
        ("GET", "/health"),
        ("GET", "/.well-known/oauth-protected-resource"),
        ("GET", "/"),
    ] {
        // Not to its end: a stream that should not be there has none.
        let sent = gateway.get(path).verb(verb).header("origin", evil).open().await;
        let held = sent.status == 403 && !sent.headers.contains_key(ALLOWED);
        battery.row(format!("{verb} {path} {evil}"), held, sent.status);
    }
    // What operators can have done is nothing for pages, though a browser would send it unasked.
    for (origin, ..) in ORIGINS.into_iter().filter(|(.., at_admin)| !at_admin) {
        let reload = Post::new(gateway.admin, "/reload", "").without("content-type");
        let reload = from(reload, "127.0.0.1:PORT", origin, gateway.admin.port()).send().await;
        battery.row(format!("admin POST /reload {origin}"), reload.status == 403, reload.status);
    }
    let call = gateway.call("one__echo", json!({}));
    let twice = call.header("origin", "https://app.example.com").and("origin", evil).send().await;
    battery.row("two origins", twice.status == 403, twice.status);
    let twice = gateway.call("one__echo", json!({})).and("host", "evil.example").send().await;
    battery.row("two hosts", matches!(twice.status, 400 | 403), twice.status);
    let denied = "[identify]\naudience = \"https://mcp.example.com/mcp\"\n[[identify.issuer]]\nissuer = \"https://login.example.com\"\n";
    let guarded = gateway_of(denied).await;
    let app = guarded.call("one__echo", json!({})).header("origin", "https://app.example.com").send().await;
    let exposed =
        app.headers.get("access-control-expose-headers").map(|names| names.to_str().unwrap().to_owned());
    let held = app.status == 401 && exposed.as_ref().is_some_and(|names| names.contains("WWW-Authenticate"));
    battery.row("a page is told where to get a token", held, (app.status, exposed));
    let evil = guarded.call("one__echo", json!({})).header("origin", evil).send().await;
    let held = evil.status == 403 && !evil.headers.contains_key("www-authenticate");
    battery.row("another page is not", held, evil.status);
}

async fn gateway_of(toml: &str) -> Gateway {
    gateway(toml).await.0
}
