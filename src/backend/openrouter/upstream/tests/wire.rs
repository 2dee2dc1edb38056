//! What does a request look like on the wire, and what is made of each fault there?

#[cfg(test)]
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::{
    super::{
        ChatRequest, Code, Completion, Event, Failure, Key, Keys, Message, Phase, Role, Settings, Status,
        Upstream, failure::Break,
    },
    stage::{ALIVE, DONE, PATIENCE, Stage, Step, USAGE, answer, finish, head, said, say, short, stream},
};

fn request() -> ChatRequest {
    let mut request = ChatRequest {
        model: "acme/atlas-70b".into(),
        messages: vec![Message::new(Role::User, "Hello")],
        max_completion_tokens: Some(512),
        ..ChatRequest::default()
    };
    request.extra.insert("temperature".into(), json!(0.2));
    request
}

/// What comes of a request, and what was heard meanwhile.
async fn chat(stage: &Stage) -> (Vec<Event>, Result<Completion, Box<Failure>>) {
    let mut events = Vec::new();
    let deadline = stage.upstream.deadline();
    let asking = async { stage.upstream.chat(&request(), deadline, &mut |event| events.push(event)).await };
    let outcome = tokio::time::timeout(PATIENCE, asking).await.expect("an end of some kind");
    (events, outcome)
}

/// What comes of one that is answered so.
async fn played(script: Vec<Step>) -> Result<Completion, Box<Failure>> {
    chat(&Stage::new(vec![script]).await).await.1
}

async fn failed(script: Vec<Step>) -> Failure {
    *played(script.clone()).await.expect_err(&format!("{script:?}"))
}

fn whole() -> Vec<Step> {
    vec![
        stream(),
        say(ALIVE),
        say(&said("Hel")),
        say(&said("lo")),
        say(&finish("stop")),
        say(USAGE),
        say(DONE),
    ]
}

#[tokio::test]
async fn an_answer_is_heard_as_it_comes() {
    let stage = Stage::new(vec![whole()]).await;
    let (events, outcome) = chat(&stage).await;
    assert_eq!(events[0], Event::Opened { generation_id: Some("gen-1-abc".into()) });
    let deltas: Vec<_> = events.iter().filter(|event| matches!(event, Event::Delta(_))).cloned().collect();
    assert_eq!(deltas, [Event::Delta("Hel".into()), Event::Delta("lo".into())]);
    assert_eq!(outcome.unwrap().text, "Hello");
    let heard = stage.heard();
    let (head, body) = heard[0].split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /api/v1/chat/completions http/1.1"), "{head}");
    for line in [
        "authorization: bearer sk-or-v1-stage",
        "http-referer: https://stage.invalid/",
        "x-openrouter-title: stage",
        "accept: text/event-stream",
        "content-type: application/json",
    ] {
        assert!(head.lines().any(|said| said == line), "{line} is missing: {head}");
    }
    let body: Value = serde_json::from_str(body).unwrap();
    let expected = json!({"model": "acme/atlas-70b", "messages": [{"role": "user", "content": "Hello"}], "max_completion_tokens": 512, "temperature": 0.2, "stream": true});
    assert_eq!(body, expected);
}

#[tokio::test]
async fn refusals_have_their_codes() {
    for (status, body, code, retryable) in [
        (
            "400 Bad Request",
            r#"{"error":{"message":"x is not a valid model ID","code":400}}"#,
            Code::ModelNotFound,
            false,
        ),
        (
            "404 Not Found",
            r#"{"error":{"message":"No endpoints found for x.","code":404}}"#,
            Code::ModelUnavailable,
            false,
        ),
        (
            "400 Bad Request",
            r#"{"error":{"message":"This endpoint's maximum context length is 100 tokens.","code":400}}"#,
            Code::ContextTooLarge,
            false,
        ),
        (
            "401 Unauthorized",
            r#"{"error":{"message":"User not found","code":401}}"#,
            Code::UpstreamAuth,
            false,
        ),
        (
            "402 Payment Required",
            r#"{"error":{"message":"Insufficient credits","code":402}}"#,
            Code::PaymentRequired,
            false,
        ),
        (
            "403 Forbidden",
            r#"{"error":{"message":"flagged","code":403,"metadata":{"reasons":["x"]}}}"#,
            Code::ContentBlocked,
            false,
        ),
        ("408 Request Timeout", r#"{"error":{"message":"x","code":408}}"#, Code::UpstreamTimeout, true),
        ("413 Payload Too Large", r#"{"error":{"message":"x","code":413}}"#, Code::InvalidInput, false),
        ("422 Unprocessable Entity", r#"{"error":{"message":"x","code":422}}"#, Code::InvalidInput, false),
        ("429 Too Many Requests", r#"{"error":{"message":"x","code":429}}"#, Code::RateLimited, true),
        (
            "500 Internal Server Error",
            r#"{"error":{"message":"x","code":500}}"#,
            Code::UpstreamUnavailable,
            true,
        ),
        ("502 Bad Gateway", r#"{"error":{"message":"x","code":502}}"#, Code::UpstreamUnavailable, true),
        (
            "503 Service Unavailable",
            r#"{"error":{"message":"x","code":503}}"#,
            Code::UpstreamOverloaded,
            true,
        ),
        ("504 Gateway Timeout", r#"{"error":{"message":"x","code":504}}"#, Code::UpstreamTimeout, true),
        ("524 Edge", r#"{"error":{"message":"x","code":524}}"#, Code::UpstreamTimeout, true),
        ("529 Overloaded", r#"{"error":{"message":"x","code":529}}"#, Code::UpstreamOverloaded, true),
        ("502 Bad Gateway", "<html><title>502</title>cloudflare</html>", Code::UpstreamProtocol, true),
        ("302 Found", "", Code::UpstreamProtocol, true),
    ] {
        let failure = failed(answer(status, "location: https://stage.invalid/\r\n", body)).await;
        assert_eq!(
            (failure.code, failure.retryable, failure.phase),
            (code, retryable, Phase::Refused),
            "{status} {body}"
        );
        let number: u16 = status[..3].parse().unwrap();
        assert_eq!(failure.http_status, Some(number));
    }
}

#[tokio::test]
async fn a_refusal_says_when_to_come_back() {
    let body = r#"{"error":{"message":"Provider returned error","code":429,"metadata":{"raw":"busy","limit_source":"upstream_provider_shared_pool"}}}"#;
    let failure = failed(answer(
        "429 Too Many Requests",
        "retry-after: 7\r\nx-ratelimit-reset: 1763769600000\r\n",
        body,
    ))
    .await;
    assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(failure.resets_at, Some(UNIX_EPOCH + Duration::from_secs(1_763_769_600)));
    assert_eq!(failure.limit_source.as_deref(), Some("upstream_provider_shared_pool"));
}

#[tokio::test]
async fn a_success_may_be_an_error() {
    let failure = failed(answer("200 OK", "", r#"{"error":{"message":"busy","code":503}}"#)).await;
    assert_eq!((failure.code, failure.partial.has_content()), (Code::UpstreamOverloaded, false));
    let partial = r#"{"choices":[{"index":0,"message":{"role":"assistant","content":"Hel"},"error":{"code":"server_error","message":"x"}}]}"#;
    let failure = failed(answer("200 OK", "", partial)).await;
    assert_eq!((failure.code, failure.partial.text.as_str()), (Code::UpstreamUnavailable, "Hel"));
}

#[tokio::test]
async fn a_success_may_be_rubbish() {
    for script in [
        answer("200 OK", "", "{\"choices\":[{"),
        answer("200 OK", "", ""),
        answer("200 OK", "", "{}"),
        vec![head("200 OK", "content-type: text/plain\r\n"), say("hello")],
    ] {
        assert_eq!(failed(script).await.code, Code::UpstreamProtocol);
    }
    let failure = failed(vec![stream()]).await;
    assert_eq!((failure.code, failure.broken_by), (Code::UpstreamUnavailable, Break::Truncated));
}

#[tokio::test]
async fn an_answer_that_was_not_streamed_is_one_all_the_same() {
    let body = r#"{"id":"gen-2","provider":"Acme Cloud","model":"m","choices":[{"logprobs":null,"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"Hello","refusal":null,"reasoning":null}}],"usage":{"prompt_tokens":21,"cost":0.5}}"#;
    let stage = Stage::new(vec![answer("200 OK", "", body)]).await;
    let (events, outcome) = chat(&stage).await;
    assert!(events.contains(&Event::Delta("Hello".into())));
    assert_eq!(outcome.unwrap().usage.unwrap().cost.unwrap().to_string(), "0.5");
}

#[tokio::test]
async fn a_body_without_end_is_broken_off() {
    let lots = said(&"x".repeat(10_000));
    let scripts = [
        vec![stream(), Step::Repeat(lots.clone().into_bytes(), Duration::ZERO)],
        vec![stream(), Step::Repeat(vec![b'x'; 10_000], Duration::ZERO)],
        vec![
            head("200 OK", "content-type: application/json\r\n"),
            Step::Repeat(vec![b' '; 10_000], Duration::ZERO),
        ],
    ];
    for script in scripts {
        let stage = Stage::with(vec![script], |settings| {
            settings.max_body = crate::settings::Size(200_000);
            settings.max_event = crate::settings::Size(50_000);
        });
        let stage = stage.await;
        assert_eq!(chat(&stage).await.1.unwrap_err().code, Code::UpstreamProtocol);
        stage.left().await;
    }
}

#[tokio::test]
async fn what_came_before_a_break_is_kept() {
    for (tail, broken_by) in [
        (vec![], Break::Truncated),
        (vec![say("data: {\"error\":{\"code\":502,\"message\":\"x\"}}\n\n")], Break::Upstream),
        (vec![say("data: {rubbish\n\n"), say(&finish("stop"))], Break::Upstream),
        (vec![Step::Pause(Duration::from_millis(200)), Step::Reset], Break::Upstream),
    ] {
        let script = [vec![stream(), say(&said("Hel"))], tail].concat();
        let failure = failed(script.clone()).await;
        assert_eq!((failure.broken_by, failure.partial.text.as_str()), (broken_by, "Hel"), "{script:?}");
        assert_eq!(failure.partial.generation_id.as_deref(), Some("gen-1-abc"));
    }
}

#[tokio::test]
async fn an_answer_that_has_ended_is_whole_whatever_happens_then() {
    for tail in [
        vec![say(DONE), Step::Stall],
        vec![say(USAGE), say(DONE), Step::Repeat(b": x\n\n".to_vec(), Duration::from_millis(50))],
        vec![Step::Pause(Duration::from_millis(200)), Step::Reset],
        vec![Step::Pause(Duration::from_millis(300)), say(USAGE), say(DONE)],
    ] {
        let script = [vec![stream(), say(&said("Hello")), say(&finish("stop"))], tail].concat();
        assert_eq!(played(script).await.unwrap().text, "Hello");
    }
}

/// What comes of a script when one of the clocks is short.
async fn late(script: Vec<Step>, shorten: impl FnOnce(&mut Settings)) -> Failure {
    let stage = Stage::with(vec![script], shorten).await;
    let failure = chat(&stage).await.1.unwrap_err();
    assert_eq!((failure.code, failure.broken_by), (Code::UpstreamTimeout, Break::Timeout));
    stage.left().await;
    *failure
}

#[tokio::test]
async fn each_clock_runs_out_by_itself() {
    const SHORT: Duration = Duration::from_millis(300);
    let alive = || Step::Repeat(ALIVE.as_bytes().to_vec(), Duration::from_millis(20));
    let failure = late(vec![Step::Stall], |settings| settings.headers_timeout = short(SHORT)).await;
    assert_eq!(failure.phase, Phase::Sent);
    // Signs of life are no first token, but they are life.
    let failure = late(vec![stream(), alive()], |settings| settings.first_token_timeout = short(SHORT)).await;
    assert_eq!(failure.phase, Phase::Answering);
    let stalled = vec![stream(), say(&said("Hel")), Step::Stall];
    let failure = late(stalled, |settings| settings.idle_timeout = short(SHORT)).await;
    assert_eq!(failure.partial.text, "Hel");
    let slow = vec![stream(), Step::Repeat(said("x").into_bytes(), Duration::from_millis(20))];
    let failure = late(slow, |settings| settings.total_timeout = short(SHORT * 3)).await;
    assert!(!failure.partial.text.is_empty());
}

#[tokio::test]
async fn signs_of_life_are_told_once_in_a_while() {
    let script = [
        vec![stream()],
        vec![say(ALIVE), Step::Pause(Duration::from_millis(50)), say(ALIVE)],
        whole()[2..].to_vec(),
    ];
    let stage = Stage::new(vec![script.concat()]).await;
    let (events, outcome) = chat(&stage).await;
    assert!(outcome.is_ok());
    let signs = events.iter().filter(|event| **event == Event::Status(Status::Working)).count();
    assert!((1..=2).contains(&signs), "{signs} signs within a second or so");
}

#[tokio::test]
async fn whoever_stops_listening_closes_the_connection() {
    let slow = || Step::Repeat(said("x").into_bytes(), Duration::from_millis(10));
    for script in [vec![Step::Stall], vec![stream(), Step::Stall], vec![stream(), slow()]] {
        let stage = Stage::new(vec![script]).await;
        let wanted = request();
        let mut ignore = |_: Event| ();
        let asking = stage.upstream.chat(&wanted, stage.upstream.deadline(), &mut ignore);
        let some_time = Duration::from_millis(300);
        assert!(tokio::time::timeout(some_time, asking).await.is_err(), "it would go on for ever");
        stage.left().await;
    }
}

#[tokio::test]
async fn nobody_at_the_address_is_told_apart_from_nobody_answering() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for (scheme, name) in [("http", "closed port"), ("https", "closed port with TLS")] {
        let settings = Settings { base_url: format!("{scheme}://{address}/api/v1"), ..Settings::default() };
        let upstream = Upstream::new(&settings, Keys::default()).unwrap();
        let failure = upstream.chat(&request(), upstream.deadline(), &mut |_| ()).await.unwrap_err();
        assert_eq!((failure.code, failure.phase), (Code::UpstreamUnavailable, Phase::Connecting), "{name}");
        assert!(!failure.message.contains("127.0.0.1"), "{}", failure.message);
    }
    // Whoever speaks no TLS where it is expected is nobody, too.
    let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("https://{}/api/v1", plain.local_addr().unwrap());
    let settings = Settings { base_url, ..Settings::default() };
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        while let Ok((mut socket, _)) = plain.accept().await {
            let _ = socket.write_all(b"HTTP/1.1 400 no TLS here\r\n\r\n").await;
        }
    });
    let upstream = Upstream::new(&settings, Keys::default()).unwrap();
    let failure = upstream.chat(&request(), upstream.deadline(), &mut |_| ()).await.unwrap_err();
    assert_eq!(failure.phase, Phase::Connecting);
    // A connection that breaks before an answer may have done something.
    let failure = failed(vec![Step::Reset]).await;
    assert_eq!((failure.code, failure.phase), (Code::UpstreamUnavailable, Phase::Sent));
}

#[test]
fn an_address_must_be_safe_for_a_key() {
    let build = |base_url: &str| {
        Upstream::new(&Settings { base_url: base_url.into(), ..Settings::default() }, Keys::default())
    };
    for fine in [
        "https://openrouter.ai/api/v1",
        "http://127.0.0.1:8787/v1",
        "http://[::1]/v1",
        "http://localhost/v1/",
    ] {
        assert!(build(fine).is_ok(), "{fine}");
    }
    for wrong in
        ["http://openrouter.ai/api/v1", "ftp://localhost/", "openrouter.ai", "https://me:hush@openrouter.ai/"]
    {
        assert!(build(wrong).is_err(), "{wrong}");
    }
    let key = Key::new("sk-or-v1-hush").unwrap();
    let upstream =
        Upstream::new(&Settings::default(), Keys { inference: Some(key), management: None }).unwrap();
    assert!(!format!("{upstream:?}").contains("hush"));
    let other = Upstream::new(&Settings::default(), Keys::default()).unwrap();
    assert_ne!(upstream.account(), other.account());
}

#[tokio::test]
async fn all_pages_of_models_are_read() {
    let page = |ids: &[&str], more: bool| {
        let data: Vec<_> = ids.iter().map(|id| json!({"id": id})).collect();
        let next = if more { json!("/api/v1/models?offset=2&limit=2") } else { json!(null) };
        answer("200 OK", "", &json!({"data": data, "total_count": 3, "links": {"next": next}}).to_string())
    };
    let stage = Stage::new(vec![page(&["a", "b"], true), page(&["c"], false)]).await;
    let models = stage.upstream.models(&[("zdr", "true")]).await.unwrap();
    assert_eq!(models, [json!({"id": "a"}), json!({"id": "b"}), json!({"id": "c"})]);
    let heard = stage.heard();
    let lines: Vec<_> = heard.iter().map(|request| request.lines().next().unwrap()).collect();
    let path = "GET /api/v1/models?output_modalities=all&limit=1000&offset=";
    assert_eq!(lines, [format!("{path}0&zdr=true HTTP/1.1"), format!("{path}2&zdr=true HTTP/1.1")]);
    let old = Stage::new(vec![answer("200 OK", "", r#"{"data":[{"id":"a"}]}"#)]).await;
    assert_eq!(old.upstream.models(&[]).await.unwrap().len(), 1, "without links there is one page");
}

#[tokio::test]
async fn other_questions_are_answered_as_the_samples_are() {
    let not_there = answer("404 Not Found", "", r#"{"error":{"message":"Resource not found","code":404}}"#);
    let stage = Stage::new(vec![
        answer("200 OK", "", r#"{"data":{"label":"sk-or-v1-sim...000","limit":100,"limit_remaining":74.5,"usage":25.5,"is_free_tier":false,"free_model_daily_requests":{"used":3,"limit":1000,"remaining":997},"budgets":[{"scope":"key_limit","limit_usd":100,"resets_at":"2026-12-01T00:00:00Z"}],"rate_limit":{"requests":-1}}}"#),
        answer("200 OK", "", r#"{"data":{"total_credits":100.5,"total_usage":25.75}}"#),
        not_there,
        answer("200 OK", "", r#"{"data":{"id":"gen-1","total_cost":0.0000855,"cancelled":false,"native_tokens_prompt":21,"brand_new":1}}"#),
        answer("200 OK", "", r#"{"object":"list","model":"acme/embed-small","data":[{"object":"embedding","index":0,"embedding":[0.6,0.8,0.0]}],"usage":{"prompt_tokens":8,"total_tokens":8,"cost":1.6e-7}}"#),
        answer("200 OK", "", r#"{"created":1,"data":[{"b64_json":"iVBORw0KGgo=","media_type":"image/png"}],"usage":{"cost":0.02}}"#),
        answer("200 OK", "", r#"{"id":"gen-r","model":"acme/rerank-1","results":[{"index":1,"relevance_score":0.98,"document":{"text":"Paris"}}],"usage":{"search_units":1}}"#),
        answer("200 OK", "", r#"{"data":{"id":"acme/atlas-70b","endpoints":[{"provider_name":"Acme Cloud","context_length":262144,"native_tools":{}},7]}}"#),
        answer("200 OK", "", r#"{"data":[{"slug":"acme-cloud"}]}"#),
        answer("200 OK", "", r#"{"error":{"code":500,"message":"x"}}"#),
    ])
    .await;
    let up = &stage.upstream;
    let key = up.key().await.unwrap();
    assert_eq!((key.limit_remaining.unwrap().to_string(), key.budgets.len()), ("74.5".into(), 1));
    assert_eq!(up.credits().await.unwrap().total_usage.to_string(), "25.75");
    assert_eq!(up.generation("gen-1").await.unwrap(), None, "there is no record yet");
    let generation = up.generation("gen-1").await.unwrap().unwrap();
    assert_eq!(
        (generation.total_cost.unwrap().nanos(), generation.other["brand_new"].clone()),
        (85_500, json!(1))
    );
    let embeddings = up.embeddings(&json!({"model": "m", "input": ["x"]})).await.unwrap();
    assert_eq!(
        (embeddings.data[0].embedding.len(), embeddings.usage.unwrap().cost.unwrap().nanos()),
        (3, 160)
    );
    assert_eq!(up.images(&json!({})).await.unwrap().data[0].b64_json, "iVBORw0KGgo=");
    assert_eq!(up.rerank(&json!({})).await.unwrap().results[0].index, 1);
    let endpoints = up.endpoints("~acme/atlas-70b:free").await.unwrap().unwrap();
    assert_eq!(endpoints.endpoints.len(), 1, "what is no endpoint is left out");
    assert_eq!(up.providers().await.unwrap().len(), 1);
    assert_eq!(up.key().await.unwrap_err().code, Code::UpstreamUnavailable);
    let heard = stage.heard();
    assert!(heard[7].starts_with("GET /api/v1/models/~acme/atlas-70b:free/endpoints "), "{}", heard[7]);
    assert!(heard[3].starts_with("GET /api/v1/generation?id=gen-1 "), "{}", heard[3]);
}
