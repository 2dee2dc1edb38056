//! What do limits cost a call that keeps them?
//!
//! `cargo bench --bench limit` sends calls through the stage alone, with nothing behind it, and prints
//! nanoseconds a call: without limits, with those that hold over a network where nothing is said, with a
//! dozen that speak of the call, and with quotas.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use serde_json::json;
use tower::{Layer as _, Service};
use waystation::{
    call::{Aim, Answer, Call, Caller, Client, Hints, Identity, Reply, Replying, Scope},
    error::Error,
    middleware::limit::{LimitLayer, Limits},
    wire::{
        capability::Capabilities,
        json::Limits as Bounds,
        mcp::{Method, Revision},
        message::Message,
    },
};

const CALLS: u32 = 200_000;

#[derive(Debug, Clone)]
struct Nothing;

impl Service<Call> for Nothing {
    type Response = Reply;
    type Error = Error;
    type Future = Replying;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Call) -> Replying {
        std::future::ready(Ok(Reply::Whole(Answer::Result(Bytes::from_static(b"{}"))))).boxed()
    }
}

fn call(caller: &Caller) -> Call {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x__y"}}"#;
    Call {
        aim: Some(Arc::new(Aim { backend: "x".into(), own: "y".into(), hints: Hints::default() })),
        marks: Default::default(),
        ..Call::new(
            caller.clone(),
            Scope::All,
            Method::ToolsCall,
            Message::parse(Bytes::from_static(text.as_bytes()), &Bounds::REQUEST).expect("a message"),
            Client {
                revision: Revision::NEWEST,
                capabilities: Capabilities::NONE,
                info: Bytes::from_static(b"{}"),
            },
        )
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let ada = Identity {
        issuer: "https://login.example.com".into(),
        subject: "ada".into(),
        groups: vec!["staff".into()],
        scopes: Vec::new(),
        claims: serde_json::Map::new(),
    };
    let ada = Caller::Known(Arc::new(ada));
    let huge = "1000000/s burst 100000";
    let many: Vec<_> = (1..10).map(|n| format!("{}/s burst 100000", 900_000 + n)).collect();
    let (tools, one) = (json!({ "x__*": format!("{huge} per caller") }), json!({ "per_caller": huge }));
    let dozen = json!({ "per_caller": huge, "all": many, "backends": { "x": huge }, "tools": tools });
    let days = json!({ "per_caller": huge, "calls_per_day": 1_000_000_000u64 });
    for (what, limits, caller) in [
        ("nobody limited", json!({}), Caller::Local),
        ("as over a network", one, ada.clone()),
        ("a dozen limits", dozen, ada.clone()),
        ("and quotas", days, ada),
    ] {
        let settings = serde_json::from_value(limits).expect("settings");
        let mut stage = LimitLayer(Limits::new(&settings).expect("they make sense")).layer(Nothing);
        let (call, mut least) = (call(&caller), u128::MAX);
        for _ in 0..5 {
            let begun = Instant::now();
            let passed = runtime.block_on(async {
                let mut passed = 0;
                for _ in 0..CALLS {
                    passed += u32::from(stage.call(call.clone()).await.is_ok());
                }
                passed
            });
            assert_eq!(passed, CALLS, "{what}: all of them keep the limits");
            least = least.min(begun.elapsed().as_nanos() / u128::from(CALLS));
        }
        println!("{what:20} {least:6} ns a call");
    }
}
