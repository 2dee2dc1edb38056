//! A server that wants OAuth, and the authorization server that gives tokens for it, in one.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::AbortHandle};
use url::{Url, form_urlencoded};

use super::lock;

/// What it does otherwise than it should, or more than it must.
#[derive(Debug, Clone, Default)]
pub struct Ways {
    /// Seconds that tokens last, but for those that are refreshed.
    pub lifetime: Option<u64>,
    /// Says nothing of code challenges.
    pub without_s256: bool,
    /// Calls itself by another name than its address.
    pub misnamed: bool,
}

/// A request that it got.
#[derive(Debug, Clone)]
pub struct Got {
    pub path: String,
    pub authorization: Option<String>,
    pub body: String,
}

impl Got {
    /// A member of the form that it brought.
    pub fn said(&self, name: &str) -> Option<String> {
        let mut pairs = form_urlencoded::parse(self.body.as_bytes());
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

#[derive(Debug, Clone)]
struct Grant {
    user: String,
    scope: String,
}

#[derive(Debug, Default)]
struct State {
    ways: Ways,
    got: Vec<Got>,
    codes: HashMap<String, Grant>,
    tokens: HashMap<String, Grant>,
    refresh: HashMap<String, Grant>,
    made: u64,
}

#[derive(Debug)]
pub struct Provider {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: AbortHandle,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Provider {
    pub async fn start(ways: Ways) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(Mutex::new(State { ways, ..State::default() }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            loop {
                let Ok((socket, _)) = listener.accept().await else { continue };
                let shared = Arc::clone(&shared);
                let service = service_fn(move |request| handle(address, Arc::clone(&shared), request));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                tokio::spawn(async {
                    let _ = connection.await; // A client that goes is not our failure.
                });
            }
        });
        Self { address, state, task: task.abort_handle() }
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    pub fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn got(&self, path: &str) -> Vec<Got> {
        lock(&self.state).got.iter().filter(|got| got.path == path).cloned().collect()
    }

    pub fn all(&self) -> Vec<Got> {
        lock(&self.state).got.clone()
    }

    /// A user agrees, to what the browser was sent here for: what it takes back.
    pub fn agrees(&self, user: &str, location: &str) -> String {
        let url = Url::parse(location).expect("an address");
        let said: HashMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(said["code_challenge_method"], "S256", "{location}");
        assert_eq!(said["resource"], self.url(), "{location}");
        let mut state = lock(&self.state);
        state.made += 1;
        let code = format!("code-{}", state.made);
        let scope = said.get("scope").cloned().unwrap_or_default();
        state.codes.insert(code.clone(), Grant { user: user.to_owned(), scope });
        form_urlencoded::Serializer::new(String::new())
            .append_pair("code", &code)
            .append_pair("state", &said["state"])
            .append_pair("iss", &self.issuer())
            .finish()
    }

    /// Tokens are good no longer.
    pub fn revoke(&self) {
        lock(&self.state).tokens.clear();
    }
}

async fn handle(
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> std::io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let authorization = head.headers.get(header::AUTHORIZATION);
    let authorization = authorization.map(|value| value.to_str().unwrap_or_default().to_owned());
    let body = String::from_utf8_lossy(&body).into_owned();
    let got = Got { path: head.uri.path().to_owned(), authorization, body };
    let mut state = lock(&state);
    state.got.push(got.clone());
    let here = format!("http://{address}");
    Ok(match got.path.as_str() {
        "/.well-known/oauth-protected-resource/mcp" => {
            json_of(200, &json!({ "resource": format!("{here}/mcp"), "authorization_servers": [here] }))
        }
        "/.well-known/oauth-authorization-server" => json_of(200, &state.metadata(&here)),
        "/register" => json_of(201, &json!({ "client_id": "registered", "redirect_uris": [] })),
        "/token" => state.token(&got),
        "/mcp" => state.mcp(&here, &got),
        _ => json_of(404, &json!({})),
    })
}

impl State {
    fn metadata(&self, here: &str) -> Value {
        let mut metadata = json!({
            "issuer": if self.ways.misnamed { "http://127.0.0.1:1" } else { here },
            "authorization_endpoint": format!("{here}/authorize"),
            "token_endpoint": format!("{here}/token"),
            "registration_endpoint": format!("{here}/register"),
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
        });
        if self.ways.without_s256 {
            metadata.as_object_mut().unwrap().remove("code_challenge_methods_supported");
        }
        metadata
    }

    fn token(&mut self, got: &Got) -> Response<Full<Bytes>> {
        let said = |name| got.said(name).unwrap_or_default();
        let kind = said("grant_type");
        let grant = match kind.as_str() {
            "authorization_code" => self.codes.remove(&said("code")),
            "refresh_token" => self.refresh.remove(&said("refresh_token")),
            "client_credentials" => Some(Grant { user: "gateway".into(), scope: said("scope") }),
            _ => Some(Grant {
                user: format!("exchanged {}", said("subject_token").len()),
                scope: said("scope"),
            }),
        };
        let Some(grant) = grant else { return json_of(400, &json!({ "error": "invalid_grant" })) };
        self.made += 1;
        let (token, refresh) = (format!("token-{}", self.made), format!("refresh-{}", self.made));
        self.tokens.insert(token.clone(), grant.clone());
        let lifetime = self.ways.lifetime.filter(|_| kind == "authorization_code").unwrap_or(3600);
        let mut answer = json!({ "access_token": token, "token_type": "Bearer", "expires_in": lifetime });
        if matches!(kind.as_str(), "authorization_code" | "refresh_token") {
            self.refresh.insert(refresh.clone(), grant);
            answer["refresh_token"] = refresh.into();
        }
        json_of(200, &answer)
    }

    /// A modern server with two tools: who am I, and one that wants the scope `write`.
    fn mcp(&self, here: &str, got: &Got) -> Response<Full<Bytes>> {
        let token = got.authorization.as_deref().and_then(|value| value.strip_prefix("Bearer "));
        let metadata = format!("resource_metadata=\"{here}/.well-known/oauth-protected-resource/mcp\"");
        let challenged = |status, more: &str| {
            let mut response = json_of(status, &json!({}));
            let challenge = format!("Bearer {more}{metadata}").parse().unwrap();
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            response
        };
        let Some(grant) = token.and_then(|token| self.tokens.get(token)) else {
            return challenged(401, "scope=\"read\", ");
        };
        let message: Value = serde_json::from_str(&got.body).unwrap_or_default();
        let server = json!({ "io.modelcontextprotocol/serverInfo": { "name": "provider", "version": "1" } });
        let mut result = match message["method"].as_str().unwrap_or_default() {
            "server/discover" => {
                json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } })
            }
            "tools/list" => {
                let tool = |name| json!({ "name": name, "inputSchema": { "type": "object" } });
                json!({ "tools": [tool("whoami"), tool("write")], "ttlMs": 0, "cacheScope": "private" })
            }
            "tools/call" if message["params"]["name"] == "write" && !grant.scope.contains("write") => {
                return challenged(403, "error=\"insufficient_scope\", scope=\"write\", ");
            }
            "tools/call" => json!({ "content": [{ "type": "text", "text": grant.user }] }),
            _ => {
                let error = json!({ "code": -32601, "message": "no such method" });
                return json_of(404, &json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }));
            }
        };
        (result["resultType"], result["_meta"]) = ("complete".into(), server);
        json_of(200, &json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }))
    }
}

fn json_of(status: u16, body: &Value) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body.to_string())))
        .expect("a response")
}
