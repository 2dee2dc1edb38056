//! How is what a server asks said to a client of another revision?
//!
//! In the modern era a question stands among the `inputRequests` of a result; in the legacy era
//! it is a request of its own, and each revision has a few words less than the next. What an
//! older client could not understand it is not asked: the server hears why.

use serde_json::json;

use super::{
    capability::{ELICIT, SAMPLE, method_and_params},
    json::{self, Span, member_of, within},
    mcp::{Era, Revision, code},
    message::{Message, Splice, object_with},
    project::Reader,
};

/// A legacy server's request as it stands among the `inputRequests` of the modern era: without
/// what belongs to the connection, and without what only the legacy era has. `page` is the id
/// that a client of 2025-11-25 is to know a page by.
pub fn embedded(request: &Message, page: Option<&str>) -> Vec<u8> {
    let gone = |key: &str| matches!(key, "_meta" | "task" | "elicitationId");
    let page = page.map(json::quoted);
    let put: &[(&str, &[u8])] = match &page {
        Some(page) => &[("elicitationId", page.as_bytes())],
        None => &[],
    };
    let params = request.top("params").map(|place| object_with(place.of(request.text()), gone, put));
    let method = request.top("method").map_or(&b"\"\""[..], |place| place.of(request.text()));
    match params {
        Some(params) => [b"{\"method\":", method, b",\"params\":", &params, b"}"].concat(),
        None => [b"{\"method\":", method, b"}"].concat(),
    }
}

/// The same the other way, for a client of a legacy revision, under an id of ours; or why it
/// cannot be said in that revision.
pub fn question(request: &[u8], id: u64, revision: Revision) -> Result<Vec<u8>, &'static str> {
    let (method, _) = method_and_params(request);
    let mut older = Splice::new(request);
    if revision < Revision::V2025_11_25 {
        match &*method {
            ELICIT => older_form(request, &mut older)?,
            SAMPLE => older_messages(request, revision, &mut older)?,
            _ => {}
        }
    }
    let request = &older.finish()[..];
    let mut put: Vec<(&str, &[u8])> = vec![("jsonrpc", b"\"2.0\"")];
    let id_text = id.to_string();
    put.push(("id", id_text.as_bytes()));
    let page = unnamed_page(request).then(|| json::quoted(&page_name(id)));
    let more: Vec<(&str, &[u8])> = page.iter().map(|page| ("elicitationId", page.as_bytes())).collect();
    // Before 2025-11-25 there were only forms, and no word for them.
    let gone = |key: &str| key == "mode" && revision < Revision::V2025_11_25;
    let params = place(request, &["params"]).map(|params| object_with(params.of(request), gone, &more));
    if let Some(params) = &params {
        put.push(("params", params));
    }
    Ok(object_with(request, |_| false, &put))
}

/// Is a client to visit a page that has no id yet, as servers of the modern era give none?
pub fn unnamed_page(request: &[u8]) -> bool {
    let mode = place(request, &["params", "mode"]).map(|mode| mode.of(request));
    mode == Some(b"\"url\"") && place(request, &["params", "elicitationId"]).is_none()
}

/// The id of a page that has no other, by the id of the question.
pub fn page_name(question: u64) -> String {
    format!("waystation-{question}")
}

/// Tells a client of 2025-11-25 that its visit to a page is over.
pub fn visited(page: &str) -> Vec<u8> {
    let page = json::quoted(page);
    let method = "\"method\":\"notifications/elicitation/complete\"";
    format!("{{\"jsonrpc\":\"2.0\",{method},\"params\":{{\"elicitationId\":{page}}}}}").into_bytes()
}

/// What a reader is told who does not know the error that pages are to be visited first: in the
/// modern era, what it would have to be able to do; before 2025-11-25, which pages these are.
pub fn pages_first(message: &Message, reader: &Reader<'_>) -> Option<Vec<u8>> {
    let is_it = message.in_error("code")? == code::URL_ELICITATION_REQUIRED.to_string().as_bytes();
    if !is_it || reader.revision == Revision::V2025_11_25 {
        return None;
    }
    let text = message.text();
    let data = message.of_error("data")?;
    let pages = within(text, member_of(text, data, "elicitations")?);
    let pages = pages.into_iter().filter_map(|page| json::string(member_of(text, page, "url")?.of(text)));
    let pages: Vec<_> = pages.collect();
    let why = message.in_error("message").and_then(json::string).filter(|_| !pages.is_empty())?;
    if reader.revision.era() == Era::Modern {
        let code = code::MISSING_CAPABILITY;
        let data = json!({ "requiredCapabilities": { "elicitation": { "url": {} } } });
        return Some(json!({ "code": code, "message": why, "data": data }).to_string().into_bytes());
    }
    let (code, why) = (code::INTERNAL_ERROR.to_string(), format!("{why} (visit first: {})", pages.join(" ")));
    let why = json::quoted(&why);
    let error = message.top("error")?.of(text);
    Some(object_with(error, |_| false, &[("code", code.as_bytes()), ("message", why.as_bytes())]))
}

/// The place of a value in a text, by the names of the members that lead to it.
fn place(text: &[u8], path: &[&str]) -> Option<Span> {
    let whole = Span { start: 0, end: text.len() };
    path.iter().try_fold(whole, |object, name| member_of(text, object, name))
}

/// A form of 2025-06-18: choices have their titles apart, and only one can be chosen.
fn older_form<'a>(request: &'a [u8], splice: &mut Splice<'a>) -> Result<(), &'static str> {
    let Some(fields) = place(request, &["params", "requestedSchema", "properties"]) else { return Ok(()) };
    for field in json::members(fields.of(request)) {
        let value = Span { start: field.value.start + fields.start, end: field.value.end + fields.start };
        let schema = value.of(request);
        if member_of(request, value, "type").is_some_and(|kind| kind.of(request) == b"\"array\"") {
            return Err(
                "a client of a revision before 2025-11-25 has no forms in which several can be chosen",
            );
        }
        let Some(choices) = member_of(request, value, "oneOf") else { continue };
        let choices = within(request, choices);
        let part = |choice: &Span, name| member_of(request, *choice, name).map(|part| part.of(request));
        let values: Vec<_> = choices.iter().filter_map(|choice| part(choice, "const")).collect();
        let titles = choices.iter().filter_map(|choice| part(choice, "title").or(part(choice, "const")));
        let list = |parts: &[&[u8]]| [b"[", &parts.join(&b',')[..], b"]"].concat();
        let (values, titles) = (list(&values), list(&titles.collect::<Vec<_>>()));
        let put: &[(&str, &[u8])] = &[("enum", &values), ("enumNames", &titles)];
        splice.replace(value, object_with(schema, |key| key == "oneOf", put));
    }
    Ok(())
}

/// Messages for a model, each of one part; the parts of 2024-11-05 are texts and images.
fn older_messages<'a>(
    request: &'a [u8],
    revision: Revision,
    splice: &mut Splice<'a>,
) -> Result<(), &'static str> {
    let messages = place(request, &["params", "messages"]);
    for message in messages.map(|messages| within(request, messages)).unwrap_or_default() {
        let Some(content) = member_of(request, message, "content") else { continue };
        let mut part = content;
        if content.of(request).starts_with(b"[") {
            let [only] = within(request, content)[..] else {
                return Err("a client of a revision before 2025-11-25 takes messages of one part only");
            };
            splice.replace(content, only.of(request));
            part = only;
        }
        let kind = member_of(request, part, "type").map(|kind| kind.of(request));
        if kind == Some(b"\"audio\"") && revision < Revision::V2025_03_26 {
            return Err("a client of revision 2024-11-05 takes no audio");
        }
        if matches!(kind, Some(b"\"tool_use\"" | b"\"tool_result\"")) {
            return Err("a client of a revision before 2025-11-25 knows no tools of a model's");
        }
    }
    Ok(())
}
