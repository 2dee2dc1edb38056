//! Is a request of the modern era complete, and do its headers say what its body says?
//!
//! Each such request speaks for itself: revision, capabilities and all. The checks come in the
//! order in which official SDKs make them, since each has a code of its own: the envelope, then
//! headers that contradict it, then the revision, then the method. (Revision 2026-07-28,
//! "Per-request metadata" and "Header validation".)

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderMap;

use super::heads::{Heads, Once};
use crate::{
    call::{Call, Caller, Client, Given, Progress, Scope},
    error::{Error, Result},
    weaken,
    wire::{
        capability::Capabilities,
        header,
        json::{self, Span},
        mcp::{Era, Level, Method, Revision, meta},
        message::Message,
        trace::Trace,
    },
};

/// What the `_meta` of a request says that we act on.
#[derive(Debug, Default)]
pub struct Envelope {
    revision: Option<Span>,
    capabilities: Option<Span>,
    info: Option<Span>,
    log_level: Option<Span>,
    pub progress: Option<Bytes>,
}

impl Envelope {
    pub fn read(message: &Message) -> Self {
        let mut envelope = Self::default();
        for member in message.meta() {
            let is = |name: &str| member.is(name, message.text());
            let place = if is(meta::PROTOCOL_VERSION) {
                &mut envelope.revision
            } else if is(meta::CLIENT_CAPABILITIES) {
                &mut envelope.capabilities
            } else if is(meta::CLIENT_INFO) {
                &mut envelope.info
            } else if is(meta::LOG_LEVEL) {
                &mut envelope.log_level
            } else {
                if is(meta::PROGRESS_TOKEN) {
                    envelope.progress = Some(message.slice(member.value));
                }
                continue;
            };
            *place = Some(member.value);
        }
        envelope
    }

    /// Does the request name its revision, as only those of the modern era do?
    pub fn is_modern(&self) -> bool {
        self.revision.is_some()
    }
}

/// A request of the modern era as a call. `headers` are those of HTTP, and all of them; a pipe has
/// none.
pub fn call(
    message: Message,
    envelope: Envelope,
    scope: Scope,
    caller: Caller,
    headers: Option<(&Heads<'_>, &HeaderMap)>,
) -> Result<Call> {
    let wants =
        |what: &str, key: &str| Error::Envelope(format!("`_meta` of a request must have {key:?}, {what}"));
    let text = message.text();
    let version = envelope.revision.and_then(|place| json::text(place.of(text)));
    let version = version.ok_or_else(|| wants("the revision it is written in", meta::PROTOCOL_VERSION))?;
    let object = |place: &Span| place.of(text).starts_with(b"{");
    let capabilities = envelope.capabilities.filter(object);
    let capabilities = capabilities.ok_or_else(|| {
        wants("an object with what the client can do, even if empty", meta::CLIENT_CAPABILITIES)
    })?;
    let info = match envelope.info {
        Some(info) if !object(&info) => return Err(wants("an object, if at all", meta::CLIENT_INFO)),
        info => info.map_or_else(|| Bytes::from_static(b"{}"), |info| message.slice(info)),
    };
    let log_level = match envelope.log_level {
        Some(level) => {
            let level = json::string(level.of(text)).and_then(|name| Level::parse(&name));
            Some(level.ok_or_else(|| {
                wants("one of the levels from debug to emergency, if at all", meta::LOG_LEVEL)
            })?)
        }
        None => None,
    };
    let method_name = message.top("method").and_then(|place| json::text(place.of(text)));
    let method_name = method_name.unwrap_or_default();
    let method = Method::parse(&*method_name);
    if let Some((heads, _)) = headers {
        agree(heads, &version, &method_name, method, &message)?;
    }
    let revision = Revision::parse(&*version).filter(|revision| revision.era() == Era::Modern);
    let revision = revision.ok_or_else(|| Error::Version { requested: words(&version).into_owned() })?;
    let method = method.filter(|method| method.exists_in(Era::Modern));
    let method = method.ok_or_else(|| Error::UnknownMethod(words(&method_name).into_owned()))?;
    let client = Client { revision, capabilities: Capabilities::of(capabilities.of(text), revision), info };
    let mirrored = match headers {
        Some(_) if weaken::is("mirror-agree") => None,
        Some((heads, all)) if heads.params => Some(mirrored(all)?),
        Some(_) => Some(Vec::new()),
        None => None,
    };
    let given = given(&message)?;
    let progress = envelope.progress.map(Progress::new);
    let session = None;
    let trace = headers.and_then(|(heads, headers)| trace(heads, headers));
    let (aim, proof) = (None, None);
    Ok(Call {
        caller,
        session,
        scope,
        method,
        message,
        client,
        log_level,
        progress,
        trace,
        mirrored,
        given,
        aim,
        marks: None,
        asked_by: None,
        proof,
    })
}

/// The trace that the headers of a request speak of.
pub fn trace(heads: &Heads<'_>, headers: &HeaderMap) -> Option<Box<Trace>> {
    if !heads.traced {
        return None;
    }
    let all = |name: &str| {
        let values = headers.get_all(name).iter().map(|value| value.to_str().ok().map(str::trim));
        let values: Vec<_> = values.collect::<Option<_>>()?;
        (!values.is_empty()).then(|| values.join(","))
    };
    Trace::of(all).map(Box::new)
}

/// What a request brings of an earlier round of the same call.
fn given(message: &Message) -> Result<Option<Given>> {
    let wrong = |what: &str| Error::Params(what.to_owned());
    let state = match message.in_params("requestState") {
        None => None,
        Some(text) => {
            let text = json::string(text).ok_or_else(|| wrong("`requestState` must be a text"))?;
            Some(text.into_owned())
        }
    };
    let place = message.param("inputResponses");
    if state.is_none() && place.is_none() {
        return Ok(None);
    }
    let mut answers = Vec::new();
    if let Some(place) = place {
        let object = message.slice(place);
        if !object.starts_with(b"{") {
            return Err(wrong("`inputResponses` must be an object of results"));
        }
        for member in json::members(&object) {
            let result = object.slice(member.value.start..member.value.end);
            if !result.starts_with(b"{") {
                return Err(wrong("every member of `inputResponses` must be a result, an object"));
            }
            answers.push((member.key_in(&object).into_owned(), Ok(result)));
        }
    }
    Ok(Some(Given { state, answers, ..Given::default() }))
}

/// Headers repeat the body so that others can route by them; those who read both must refuse
/// any difference, or the two would route differently.
fn agree(
    headers: &Heads<'_>,
    version: &[u8],
    name: &[u8],
    method: Option<Method>,
    message: &Message,
) -> Result<()> {
    if weaken::is("envelope-agree") {
        return Ok(());
    }
    if single(headers.version, "mcp-protocol-version")? != Some(version) {
        return Err(Error::Header(format!(
            "the header MCP-Protocol-Version must be there and say {:?}, as the body does",
            words(version)
        )));
    }
    if single(headers.method, "mcp-method")? != Some(name) {
        return Err(Error::Header(format!(
            "the header Mcp-Method must be there and say {:?}, as the body does",
            words(name)
        )));
    }
    let Some(target) = method.and_then(Method::header_target) else { return Ok(()) };
    let body = message.in_params(target).and_then(json::text);
    let header = single(headers.name, "mcp-name")?;
    if header.is_some_and(header::is_plain) && header == body.as_deref() {
        return Ok(()); // As most names are written.
    }
    let header = header.map(|field| {
        header::decode(field).ok_or_else(|| Error::Header("the header Mcp-Name is not well encoded".into()))
    });
    if header.transpose()?.as_deref().map(str::as_bytes) != body.as_deref() {
        return Err(Error::Header(format!(
            "the header Mcp-Name must be there and say what `{target}` in the body does"
        )));
    }
    Ok(())
}

/// A text of the client's, in an error.
fn words(text: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(text)
}

/// The value of a header that may be there once.
fn single<'a>(header: Once<'a>, name: &str) -> Result<Option<&'a [u8]>> {
    if header.again {
        return Err(Error::Header(format!("the header {name} may be there only once")));
    }
    Ok(header.first.map(|value| value.as_bytes().trim_ascii()))
}

/// The `Mcp-Param-…` headers, decoded.
fn mirrored(headers: &HeaderMap) -> Result<Vec<(String, String)>> {
    let mut found: Vec<(String, String)> = Vec::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("mcp-param-") else { continue };
        let wrong = |what: &str| Error::Header(format!("the header Mcp-Param-{name} {what}"));
        if found.iter().any(|(other, _)| other == name) {
            return Err(wrong("may be there only once"));
        }
        let value = header::decode(value.as_bytes()).ok_or_else(|| wrong("is not well encoded"))?;
        found.push((name.to_owned(), value.into_owned()));
    }
    Ok(found)
}
