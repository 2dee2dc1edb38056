//! How is a message of one revision said in another?
//!
//! Inside, a reply keeps the words of whoever wrote it, with a note of their era; the words
//! change once, here, when it is known who reads them. So between two sides of the same era
//! nothing changes but the id. All of it is plain text in, plain text out, and each rule has a
//! golden file under `tests/it/golden/`.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    json::{self, Member, Span},
    mcp::{Era, Method, Revision, code, meta},
    message::{Message, Splice, object_of, object_with},
    older,
    question::pages_first,
    trace::Trace,
};

/// A request on its way to a backend: what of it is about this hop alone.
#[derive(Debug)]
pub struct Hop<'a> {
    /// Unique on the connection, and never used again.
    pub id: u64,
    /// What the backend calls the target, where there is one.
    pub target: Option<&'a str>,
    /// Did the caller ask for progress? The id then serves as the token.
    pub progress: bool,
    /// The envelope that each request of the modern era carries; none for the legacy one.
    pub envelope: Option<Envelope<'a>>,
    /// What the backend speaks.
    pub revision: Revision,
    /// What came beside the message.
    pub trace: Option<&'a Trace>,
}

/// What a request of revision 2026-07-28 says about its sender.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    pub revision: Revision,
    /// JSON texts, all three.
    pub capabilities: &'a str,
    pub client_info: &'a str,
    pub log_level: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    /// The members of `_meta`, with room for two more.
    pub fn members(&self) -> SmallVec<[(&'a str, &'a [u8]); 6]> {
        let mut members = SmallVec::new();
        members.push((meta::PROTOCOL_VERSION, self.revision.quoted().as_bytes()));
        members.push((meta::CLIENT_INFO, self.client_info.as_bytes()));
        members.push((meta::CLIENT_CAPABILITIES, self.capabilities.as_bytes()));
        members.extend(self.log_level.map(|level| (meta::LOG_LEVEL, level.as_bytes())));
        members
    }
}

/// The text of a request for the next hop.
pub fn request(message: &Message, method: Method, hop: &Hop<'_>) -> Vec<u8> {
    if method == Method::Complete
        && hop.revision < Revision::V2025_06_18
        && let Some(older) = older_completion(message)
    {
        return request(&older, method, hop);
    }
    let text = message.text();
    let number = hop.id.to_string();
    let mut splice = Splice::new(text);
    if let Some(id) = message.top("id") {
        splice.replace(id, number.as_bytes());
    }
    if let Some(target) = hop.target {
        if let Some(place) = method.target().and_then(|member| message.param(member)) {
            let value = place.of(text);
            if value.starts_with(b"\"") && json::is_plain(target) {
                splice.replace(Span { start: place.start + 1, end: place.end - 1 }, target.as_bytes());
            } else {
                splice.replace(place, json::quoted(target).into_bytes());
            }
        } else if let Some(place) = message.param("ref") {
            splice.replace(place, reference(place.of(text), target));
        }
    }
    if let Some(new) = request_meta(message, hop, &number) {
        if let Some(place) = message.param("_meta") {
            splice.replace(place, new);
        } else if let Some(params) = message.top("params") {
            let comma = if message.inside("params").is_empty() { "" } else { "," };
            let text = [b"\"_meta\":", new.as_slice(), comma.as_bytes()].concat();
            splice.insert(params.start + 1, text);
        } else {
            let end = text.iter().rposition(|b| *b == b'}').expect("a message is an object");
            splice.insert(end, [b",\"params\":{\"_meta\":", new.as_slice(), b"}"].concat());
        }
    }
    splice.finish()
}

/// A completion without what came with 2025-06-18, if it has any of that.
fn older_completion(message: &Message) -> Option<Message> {
    let titled = |reference: &[u8]| json::member(reference, "title").is_some();
    let reference = message.in_params("ref").filter(|reference| titled(reference));
    if reference.is_none() && message.param("context").is_none() {
        return None;
    }
    let reference = reference.map(|reference| object_with(reference, |key| key == "title", &[]));
    let put: Vec<(&str, &[u8])> = reference.iter().map(|reference| ("ref", &reference[..])).collect();
    let params = message.top("params")?;
    let mut splice = Splice::new(message.text());
    splice.replace(params, object_with(params.of(message.text()), |key| key == "context", &put));
    Message::parse(splice.finish().into(), &json::Limits::REPLY).ok()
}

/// A request of a later round: with the client's answers by their keys, and with the state that
/// the server wants to hear again.
pub fn next_round(message: &Message, answers: &[(&str, &[u8])], state: Option<&str>) -> Vec<u8> {
    // The keys are a stranger's words, unlike the names that `object_with` is given elsewhere.
    let members: Vec<_> =
        answers.iter().map(|(key, value)| [json::quoted(key).as_bytes(), b":", value].concat()).collect();
    let all = [b"{", &members.join(&b',')[..], b"}"].concat();
    let state = state.map(json::quoted);
    let mut put: Vec<(&str, &[u8])> = Vec::new();
    if !answers.is_empty() {
        put.push(("inputResponses", &all));
    }
    if let Some(state) = &state {
        put.push(("requestState", state.as_bytes()));
    }
    let ours = |key: &str| matches!(key, "inputResponses" | "requestState");
    let mut splice = Splice::new(message.text());
    if let Some(params) = message.top("params") {
        splice.replace(params, object_with(params.of(message.text()), ours, &put));
    }
    splice.finish()
}

/// The `_meta` of the next hop, if it differs from the one that came.
fn request_meta(message: &Message, hop: &Hop<'_>, token: &str) -> Option<Vec<u8>> {
    let text = message.text();
    let of_a_hop = |member: &&Member| meta::OF_A_HOP.iter().any(|name| member.is(name, text));
    let trace = || hop.trace.into_iter().flat_map(|trace| trace.missing_in(message));
    let same = !hop.progress && hop.envelope.is_none() && !message.meta().any(|member| of_a_hop(&member));
    if same && trace().next().is_none() {
        return None;
    }
    let mut put = hop.envelope.as_ref().map(Envelope::members).unwrap_or_default();
    if hop.progress {
        put.push((meta::PROGRESS_TOKEN, token.as_bytes()));
    }
    put.extend(trace().map(|(name, value)| (name, value.as_bytes())));
    Some(object_of(text, message.meta().filter(|member| !of_a_hop(member)), &put))
}

/// A completion's `ref` with the name or URI the backend knows.
fn reference(old: &[u8], target: &str) -> Vec<u8> {
    let is_prompt = json::member(old, "name").is_some();
    let quoted = json::quoted(target);
    object_with(old, |_| false, &[(if is_prompt { "name" } else { "uri" }, quoted.as_bytes())])
}

/// Who reads a reply, and how they want it.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    pub revision: Revision,
    /// The id of the request, as the client wrote it.
    pub id: &'a [u8],
    /// This gateway, as a JSON object.
    pub server_info: &'a str,
    pub method: Method,
    /// The called tool's list entry was wrapped for older clients (see [`tool`]).
    pub wrapped: bool,
}

/// A backend's response as the client's revision has it, with the client's id.
pub fn response(message: &Message, written_in: Era, reader: &Reader<'_>) -> Vec<u8> {
    let text = changes(message, written_in, reader).finish();
    if reader.revision >= Revision::V2025_06_18 {
        return text;
    }
    let result = json::members(&text).into_iter().find(|member| member.is("result", &text));
    let older = result.and_then(|result| {
        let older = older::result(result.value.of(&text), reader.method, reader.revision)?;
        Some((result.value, older))
    });
    let Some((place, older)) = older else { return text };
    let mut splice = Splice::new(&text);
    splice.replace(place, older);
    splice.finish()
}

/// The same in pieces that follow one another. Long ones are shared with the message.
pub fn response_in_pieces(message: &Message, written_in: Era, reader: &Reader<'_>) -> Vec<Bytes> {
    if reader.revision < Revision::V2025_06_18 {
        return vec![response(message, written_in, reader).into()];
    }
    changes(message, written_in, reader).pieces(message.text())
}

/// What changes in a response on its way to its reader.
fn changes<'a>(message: &'a Message, written_in: Era, reader: &Reader<'a>) -> Splice<'a> {
    let mut splice = Splice::new(message.text());
    if let Some(id) = message.top("id") {
        splice.replace(id, reader.id);
    }
    if let Some(error) = message.top("error") {
        if let Some(other) = pages_first(message, reader) {
            splice.replace(error, other);
        } else if let Some(other) = error_code(message, written_in, reader) {
            splice.replace(message.of_error("code").unwrap_or(error), other.to_string().into_bytes());
        }
        return splice;
    }
    let Some(result) = message.top("result") else { return splice };
    match (written_in, reader.revision.era()) {
        (Era::Legacy, Era::Legacy) => in_words(message, result, reader, &mut splice),
        (_, Era::Modern) => complete(message, result, written_in, reader, &mut splice),
        (Era::Modern, Era::Legacy) => {
            splice.replace(result, downgrade(result.of(message.text()), reader));
        }
    }
    splice
}

/// Adds what every result of the modern era has, where it is missing.
fn complete<'a>(
    message: &Message,
    result: Span,
    written_in: Era,
    reader: &Reader<'_>,
    splice: &mut Splice<'a>,
) {
    let mut more = Vec::with_capacity(160);
    if message.field("resultType").is_none() {
        more.extend_from_slice(b"\"resultType\":\"complete\",");
    }
    if matches!(reader.method, Method::ResourcesRead | Method::SkillsGet | Method::DirectoryRead) {
        // A reader of the modern era must be told how long it holds; not at all, if nobody said.
        if message.field("ttlMs").is_none() {
            more.extend_from_slice(b"\"ttlMs\":0,");
        }
        if message.field("cacheScope").is_none() {
            more.extend_from_slice(b"\"cacheScope\":\"private\",");
        }
    }
    if let Some(place) = message.field("_meta") {
        let info = [(meta::SERVER_INFO, reader.server_info.as_bytes())];
        let gone = |key: &str| written_in == Era::Legacy && meta::OF_LEGACY_TASKS.contains(&key);
        splice.replace(place, object_with(place.of(message.text()), gone, &info));
    } else {
        for part in ["\"_meta\":{\"", meta::SERVER_INFO, "\":", reader.server_info, "},"] {
            more.extend_from_slice(part.as_bytes());
        }
    }
    if message.inside("result").is_empty() {
        more.pop(); // The comma: nothing follows.
    }
    splice.insert(result.start + 1, more);
}

/// Structured content that nothing else says is said in words too, for whoever reads only these.
fn in_words(message: &Message, result: Span, reader: &Reader<'_>, splice: &mut Splice<'_>) {
    let Some(structured) = message.in_result("structuredContent") else { return };
    if reader.method != Method::ToolsCall {
        return;
    }
    match message.field("content") {
        None => {
            let words = [b"\"content\":", &words(structured)[..], b","].concat();
            splice.insert(result.start + 1, words);
        }
        Some(content) if json::within(message.text(), content).is_empty() => {
            splice.replace(content, words(structured));
        }
        Some(_) => {}
    }
}

/// A list of content with a value in it as text.
fn words(value: &[u8]) -> Vec<u8> {
    let text = json::quoted(&String::from_utf8_lossy(value));
    format!("[{{\"type\":\"text\",\"text\":{text}}}]").into_bytes()
}

/// A modern result without what the legacy era does not know.
fn downgrade(result: &[u8], reader: &Reader<'_>) -> Vec<u8> {
    let mut put: Vec<(&str, Vec<u8>)> = Vec::new();
    let mut said = reader.method != Method::ToolsCall;
    let mut structured = None;
    for member in json::members(result) {
        let value = member.value.of(result);
        match &*member.key_in(result) {
            "content" => said |= !json::elements(value).is_empty(),
            "structuredContent" => structured = Some(value),
            _ => {}
        }
        match &*member.key_in(result) {
            "_meta" => put.push(("_meta", object_with(value, |key| key == meta::SERVER_INFO, &[]))),
            "structuredContent" if reader.wrapped || !value.starts_with(b"{") => {
                put.push(("structuredContent", [b"{\"result\":", value, b"}"].concat()));
            }
            _ => {}
        }
    }
    if let Some(structured) = structured.filter(|_| !said) {
        put.push(("content", words(structured)));
    }
    let put: Vec<(&str, &[u8])> = put.iter().map(|(key, value)| (*key, value.as_slice())).collect();
    object_with(result, |key| matches!(key, "resultType" | "ttlMs" | "cacheScope"), &put)
}

/// The code of an error where the reader's revision has another one for it.
fn error_code(message: &Message, written_in: Era, reader: &Reader<'_>) -> Option<i64> {
    let old: i64 = std::str::from_utf8(message.in_error("code")?).ok()?.parse().ok()?;
    let new = match (written_in, reader.revision.era()) {
        (Era::Legacy, Era::Modern) => match old {
            code::RESOURCE_NOT_FOUND => code::INVALID_PARAMS,
            code::URL_ELICITATION_REQUIRED | -32019..=-32000 => code::INTERNAL_ERROR,
            // Reserved to the specification, which knows no such code for a result.
            -32099..=-32020 => code::INTERNAL_ERROR,
            _ => return None,
        },
        (Era::Modern, Era::Modern) => match old {
            // What a client can be asked is passed on as it said, so what is missing is missing
            // there. The other two speak of the request that we wrote.
            code::MISSING_CAPABILITY => return None,
            code::UNSUPPORTED_VERSION..=code::HEADER_MISMATCH => code::INTERNAL_ERROR,
            _ => return None,
        },
        (Era::Modern, Era::Legacy) => match old {
            code::INVALID_PARAMS if reader.method == Method::ResourcesRead && names_uri(message) => {
                code::RESOURCE_NOT_FOUND
            }
            code::UNSUPPORTED_VERSION..=code::HEADER_MISMATCH => code::INTERNAL_ERROR,
            _ => return None,
        },
        (Era::Legacy, Era::Legacy) => match old {
            code::URL_ELICITATION_REQUIRED if reader.revision < Revision::V2025_11_25 => code::INTERNAL_ERROR,
            _ => return None,
        },
    };
    Some(new)
}

fn names_uri(message: &Message) -> bool {
    let data = message.in_error("data").unwrap_or_default();
    json::member(data, "uri").is_some()
}

/// A tool's list entry under another name, as an era has it, and whether a result of the tool
/// has to be wrapped for readers of that era.
///
/// The legacy era wants `outputSchema` to describe an object; another schema is put inside one
/// with the single member `result`, and its local references are led there. Whatever the backend
/// says, any tool may be called as a task here and none must be; the modern era has no
/// `execution` to say so.
pub fn tool(entry: &[u8], name: &str, era: Era) -> (Vec<u8>, bool) {
    let quoted = json::quoted(name);
    let mut put: Vec<(&str, &[u8])> = vec![("name", quoted.as_bytes())];
    if era == Era::Modern {
        return (object_with(entry, |key| key == "execution", &put), false);
    }
    let schema = json::member(entry, "outputSchema").filter(|schema| !describes_object(schema));
    let wrapped = schema.map(|schema| {
        let inner = lead_references(schema);
        format!("{{\"type\":\"object\",\"properties\":{{\"result\":{inner}}},\"required\":[\"result\"]}}")
    });
    put.push(("execution", br#"{"taskSupport":"optional"}"#));
    if let Some(schema) = &wrapped {
        put.push(("outputSchema", schema.as_bytes()));
    }
    (object_with(entry, |_| false, &put), wrapped.is_some())
}

fn describes_object(schema: &[u8]) -> bool {
    json::member(schema, "type") == Some(b"\"object\"")
}

/// A schema one level further down: `#/…` points into `#/properties/result/…` now.
fn lead_references(schema: &[u8]) -> String {
    fn lead(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, inner) in map.iter_mut() {
                    match inner {
                        serde_json::Value::String(text) if key == "$ref" && text.starts_with('#') => {
                            *text = format!("#/properties/result{}", &text[1..]);
                        }
                        _ => lead(inner),
                    }
                }
            }
            serde_json::Value::Array(list) => list.iter_mut().for_each(lead),
            _ => {}
        }
    }
    let text = String::from_utf8_lossy(schema);
    if !text.contains("$ref") {
        return text.into_owned();
    }
    match serde_json::from_slice(schema) {
        Ok(mut value) => {
            lead(&mut value);
            value.to_string()
        }
        Err(_) => text.into_owned(),
    }
}

/// A list entry that only changes what it is called.
pub fn entry(entry: &[u8], key: &str, name: &str) -> Vec<u8> {
    object_with(entry, |_| false, &[(key, json::quoted(name).as_bytes())])
}

/// A progress notification with the token the caller gave.
pub fn progress(message: &Message, token: &[u8]) -> Vec<u8> {
    let mut splice = Splice::new(message.text());
    if let Some(place) = message.param("progressToken") {
        splice.replace(place, token);
    }
    splice.finish()
}
