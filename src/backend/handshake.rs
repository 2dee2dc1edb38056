//! Which era does a server speak, and what does it offer?
//!
//! `server/discover` is asked first. Only an answer that makes sense in the modern era counts
//! as one; whatever a legacy server does with a method it does not know, including to hang,
//! to leave or to answer HTML, leads to `initialize`. But a server that is out of order gives
//! no verdict at all, or a moment's trouble would be taken for old age.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Offer,
    transport::{Agreed, Incoming, Kind, Outgoing, Transport, Trouble},
};
use crate::wire::{
    capability::Capabilities,
    json,
    mcp::{Era, INTRODUCTION, Method, Revision, code},
    message::{self, Message},
    project::Envelope,
};

/// How long a server may think about `server/discover` before it is taken for one that does
/// not know it. Official SDKs wait as long.
const PROBE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Discovered<'a> {
    supported_versions: Vec<String>,
    #[serde(borrow)]
    capabilities: &'a RawValue,
    instructions: Option<String>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialized<'a> {
    protocol_version: String,
    #[serde(borrow)]
    capabilities: &'a RawValue,
    #[serde(borrow)]
    server_info: Option<&'a RawValue>,
    instructions: Option<String>,
}

/// The offer of a server that speaks the modern era; nothing if it does not.
///
/// `patient` says that silence, too, is an answer, as it is of a child process that is thrown
/// away afterwards.
pub async fn probe(
    transport: &dyn Transport,
    id: u64,
    silence_counts: bool,
) -> Result<Option<Offer>, Trouble> {
    let asked = ask(transport, id, Method::Discover, "{}", Some(Revision::NEWEST));
    let response = match tokio::time::timeout(PROBE, asked).await {
        Ok(Ok(response)) => response,
        Ok(Err(trouble)) => {
            let legacy = match trouble.kind {
                Kind::Status(401 | 403 | 429) | Kind::Consent => false,
                Kind::Status(status) => (400..500).contains(&status),
                // A process that left, or wrote what it should not, did not like the question.
                Kind::Lost | Kind::Rubbish | Kind::NotSent | Kind::SessionLost | Kind::Busy => silence_counts,
            };
            return if legacy { Ok(None) } else { Err(trouble) };
        }
        Err(_) if silence_counts => return Ok(None),
        Err(_) => return Err(Trouble::new(Kind::NotSent, "no answer to the first question within 10 s")),
    };
    verdict(&response, transport)
}

fn verdict(response: &Message, transport: &dyn Transport) -> Result<Option<Offer>, Trouble> {
    if let Some(offer) = discovered(response) {
        transport.settled(&Agreed { revision: offer.revision, may_ask: false });
        return Ok(Some(offer));
    }
    let error =
        response.in_error("code").and_then(|text| std::str::from_utf8(text).ok()?.parse::<i64>().ok());
    if error != Some(code::UNSUPPORTED_VERSION) {
        return Ok(None);
    }
    // A modern server that does not speak our revision, or one that names only older ones.
    let versions = versions_in(response.in_error("data").unwrap_or_default());
    let modern: Vec<_> = versions.iter().filter(|name| name.as_str() >= Revision::NEWEST.name()).collect();
    if modern.is_empty() {
        return Ok(None);
    }
    Err(Trouble::new(Kind::Rubbish, format!("speaks only revisions that are not known here: {modern:?}")))
}

fn versions_in(data: &[u8]) -> Vec<String> {
    json::member(data, "supported").and_then(|list| serde_json::from_slice(list).ok()).unwrap_or_default()
}

fn discovered(response: &Message) -> Option<Offer> {
    let found: Discovered<'_> = serde_json::from_slice(response.result()?).ok()?;
    let revision = found.supported_versions.iter().filter_map(Revision::parse).max()?;
    let meta = found.meta.map_or("{}", RawValue::get).as_bytes();
    let info = json::member(meta, crate::wire::mcp::meta::SERVER_INFO)
        .map(|info| String::from_utf8_lossy(info).into_owned());
    (revision.era() == Era::Modern).then(|| Offer {
        era: Era::Modern,
        revision,
        capabilities: found.capabilities.get().to_owned(),
        server_info: info.unwrap_or_else(|| "{}".into()),
        instructions: found.instructions,
    })
}

/// The offer of a server that is known to speak the modern era.
pub async fn discover(transport: &dyn Transport, id: u64) -> Result<Offer, Trouble> {
    let response = ask(transport, id, Method::Discover, "{}", Some(Revision::NEWEST)).await?;
    let offer = discovered(&response).ok_or_else(|| refused("server/discover", &response))?;
    transport.settled(&Agreed { revision: offer.revision, may_ask: false });
    Ok(offer)
}

/// Greets a server of the legacy era, on behalf of clients that can be asked these things.
pub async fn initialize(
    transport: &dyn Transport,
    id: u64,
    capabilities: Capabilities,
) -> Result<Offer, Trouble> {
    let params = format!(
        "{{\"protocolVersion\":\"{}\",\"capabilities\":{},\"clientInfo\":{}}}",
        Revision::NEWEST_LEGACY,
        capabilities.json(),
        INTRODUCTION
    );
    let response = ask(transport, id, Method::Initialize, &params, None).await?;
    let found = response.result().and_then(|result| serde_json::from_slice::<Initialized<'_>>(result).ok());
    let found = found.ok_or_else(|| refused("initialize", &response))?;
    let revision = Revision::parse(&found.protocol_version).filter(|revision| revision.era() == Era::Legacy);
    let unknown = || format!("speaks revision {:?}, which is not known here", found.protocol_version);
    let revision = revision.ok_or_else(|| Trouble::new(Kind::Rubbish, unknown()))?;
    transport.settled(&Agreed { revision, may_ask: capabilities != Capabilities::NONE });
    let started = Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}");
    transport.notify(started).await?;
    Ok(Offer {
        era: Era::Legacy,
        revision,
        capabilities: found.capabilities.get().to_owned(),
        server_info: found.server_info.map_or("{}", RawValue::get).to_owned(),
        instructions: found.instructions,
    })
}

/// Why a handshake came to nothing. An error answered to `initialize` at an address of the old
/// transport comes as a status, so an error here is the server's considered one.
fn refused(method: &str, response: &Message) -> Trouble {
    let why = response.in_error("message").and_then(json::string).map(|text| text.into_owned());
    let why = why.unwrap_or_else(|| "the result is not what the protocol asks for".into());
    Trouble::new(Kind::Rubbish, format!("refused {method}: {why}"))
}

/// Asks a question of our own and waits for the response, whatever else comes before it.
pub async fn ask(
    transport: &dyn Transport,
    id: u64,
    method: Method,
    params: &str,
    revision: Option<Revision>,
) -> Result<Message, Trouble> {
    send(transport, request(id, method, params, revision)).await
}

/// Sends a request of our own and waits for the response.
pub async fn send(transport: &dyn Transport, outgoing: Outgoing) -> Result<Message, Trouble> {
    use futures_util::StreamExt as _;
    match transport.request(outgoing).await? {
        Incoming::Whole(message) => Ok(message),
        Incoming::Stream(mut messages) => {
            while let Some(message) = messages.next().await {
                let message = message?;
                if message.kind() == message::Kind::Response {
                    return Ok(message);
                }
            }
            Err(Trouble::new(Kind::Lost, "the stream ended without an answer"))
        }
    }
}

/// A request of our own.
pub fn request(id: u64, method: Method, params: &str, revision: Option<Revision>) -> Outgoing {
    request_as(id, method, params, revision, "{}")
}

/// The same for a client that can do this, which the modern era says each time.
pub fn request_as(
    id: u64,
    method: Method,
    params: &str,
    revision: Option<Revision>,
    capabilities: &str,
) -> Outgoing {
    let params = match revision {
        Some(revision) => {
            let envelope = Envelope { revision, capabilities, client_info: INTRODUCTION, log_level: None };
            let meta = message::object_with(b"{}", |_| false, &envelope.members());
            message::object_with(params.as_bytes(), |_| false, &[("_meta", &meta)])
        }
        None => params.as_bytes().to_vec(),
    };
    let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{}\",\"params\":", method.name());
    let text = [head.as_bytes(), &params, b"}"].concat().into();
    Outgoing { id, method, revision, target: None, mirrored: Vec::new(), text }
}
