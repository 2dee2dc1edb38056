//! What can a client be asked, and what can it take, by its own account?
//!
//! A backend is told what the very client can do whose call it gets, in our words: no less, and
//! nothing that would not be passed on. (Every revision, "Capability negotiation".) One thing is
//! added where the configuration says so: texts from a model, which the gateway itself can have.

use super::{
    json,
    mcp::{Method, Revision, extension},
};

/// The kinds of requests that a client takes while one of its calls is under way, and the
/// extensions that change what it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Capabilities(u8);

const FORM: u8 = 1;
const URL: u8 = 2;
const SAMPLING: u8 = 4;
const SAMPLING_TOOLS: u8 = 8;
const SAMPLING_CONTEXT: u8 = 16;
const ROOTS: u8 = 32;
const TASKS: u8 = 64;
const APPS: u8 = 128;

impl Capabilities {
    /// Nothing can be asked.
    pub const NONE: Self = Self(0);

    /// From the `capabilities` of a client, which is an object.
    pub fn of(declared: &[u8], revision: Revision) -> Self {
        let mut found = 0;
        for member in json::members(declared) {
            let value = member.value.of(declared);
            let has = |name: &str| json::members(value).iter().any(|inner| inner.is(name, value));
            match &*member.key_in(declared) {
                "elicitation" if revision >= Revision::V2025_11_25 => {
                    // An empty object stands for forms, as it did before there was a choice.
                    let url = has("url");
                    found |= if has("form") || !url { FORM } else { 0 } | if url { URL } else { 0 };
                }
                "elicitation" if revision >= Revision::V2025_06_18 => found |= FORM,
                "sampling" => {
                    found |= SAMPLING;
                    if revision >= Revision::V2025_11_25 {
                        found |= if has("tools") { SAMPLING_TOOLS } else { 0 };
                        found |= if has("context") { SAMPLING_CONTEXT } else { 0 };
                    }
                }
                "roots" => found |= ROOTS,
                "extensions" => {
                    found |= if has(extension::APPS) { APPS } else { 0 };
                    // Tasks of 2025-11-25 are another thing, asked for call by call.
                    let tasks = revision >= Revision::V2026_07_28 && has(extension::TASKS);
                    found |= if tasks { TASKS } else { 0 };
                }
                _ => {}
            }
        }
        Self(found)
    }

    /// Can a call be answered with a task (2026-07-28, extension "Tasks")?
    pub fn takes_tasks(self) -> bool {
        self.0 & TASKS != 0
    }

    /// The same, for a call that may be answered with a task.
    pub fn with_tasks(self) -> Self {
        Self(self.0 | TASKS)
    }

    /// The same, for a call whose backend may have texts from a model in any case.
    pub fn with_sampling(self) -> Self {
        Self(self.0 | SAMPLING | SAMPLING_TOOLS)
    }

    /// What is told once, in a handshake: all but what is said call by call.
    pub fn of_a_handshake(self) -> Self {
        Self(self.0 & !TASKS)
    }

    /// As a JSON object, for a backend.
    pub fn json(self) -> String {
        if self == Self::NONE {
            return "{}".to_owned();
        }
        let has = |bit| self.0 & bit != 0;
        let object = |members: &[(u8, &str)]| {
            let members = members.iter().filter(|(bit, _)| has(*bit)).map(|(_, text)| *text);
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        };
        let mut members = Vec::new();
        if has(FORM | URL) {
            let modes = object(&[(FORM, "\"form\":{}"), (URL, "\"url\":{}")]);
            members.push(format!("\"elicitation\":{modes}"));
        }
        if has(SAMPLING) {
            let more = object(&[(SAMPLING_TOOLS, "\"tools\":{}"), (SAMPLING_CONTEXT, "\"context\":{}")]);
            members.push(format!("\"sampling\":{more}"));
        }
        if has(ROOTS) {
            members.push("\"roots\":{}".to_owned());
        }
        let mut extensions = Vec::new();
        if has(TASKS) {
            extensions.push(format!("\"{}\":{{}}", extension::TASKS));
        }
        if has(APPS) {
            // The only kind of page that there is.
            let mime = "{\"mimeTypes\":[\"text/html;profile=mcp-app\"]}";
            extensions.push(format!("\"{}\":{mime}", extension::APPS));
        }
        if !extensions.is_empty() {
            members.push(format!("\"extensions\":{{{}}}", extensions.join(",")));
        }
        format!("{{{}}}", members.join(","))
    }

    /// May a client with these be asked this? `params` are those of the request.
    pub fn allow(self, request: &str, params: &[u8]) -> bool {
        let needed = match request {
            ELICIT => {
                if json::member(params, "mode") == Some(b"\"url\"") {
                    URL
                } else {
                    FORM
                }
            }
            SAMPLE if json::member(params, "tools").is_some() => SAMPLING | SAMPLING_TOOLS,
            SAMPLE => SAMPLING,
            LIST_ROOTS => ROOTS,
            _ => return false,
        };
        self.0 & needed == needed
    }
}

pub const ELICIT: &str = "elicitation/create";
pub const SAMPLE: &str = "sampling/createMessage";
pub const LIST_ROOTS: &str = "roots/list";

/// May a backend ask for input while it works on a request of this method (revision 2026-07-28,
/// "Multi Round-Trip Requests")?
pub fn may_ask(method: Method) -> bool {
    matches!(method, Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead)
}

/// The two members of a request among the `inputRequests`.
pub fn method_and_params(request: &[u8]) -> (String, &[u8]) {
    let (mut method, mut params) = (String::new(), &b"{}"[..]);
    for member in json::members(request) {
        let value = member.value.of(request);
        match &*member.key_in(request) {
            "method" => method = json::string(value).unwrap_or_default().into_owned(),
            "params" => params = value,
            _ => {}
        }
    }
    (method, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(declared: &str, revision: Revision, expected: &str) {
        assert_eq!(Capabilities::of(declared.as_bytes(), revision).json(), expected, "{declared}");
    }

    #[test]
    fn a_backend_hears_what_the_client_can_do_and_no_more() {
        let all = r#"{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"roots":{"listChanged":true},"tasks":{}}"#;
        let modern = r#"{"elicitation":{"form":{},"url":{}},"sampling":{"tools":{}},"roots":{}}"#;
        check(all, Revision::V2026_07_28, modern);
        check(all, Revision::V2025_06_18, r#"{"elicitation":{"form":{}},"sampling":{},"roots":{}}"#);
        check(all, Revision::V2025_03_26, r#"{"sampling":{},"roots":{}}"#);
        check(r#"{"elicitation":{}}"#, Revision::V2025_11_25, r#"{"elicitation":{"form":{}}}"#);
        check(r#"{"elicitation":{"url":{}}}"#, Revision::V2025_11_25, r#"{"elicitation":{"url":{}}}"#);
        check("{}", Revision::V2026_07_28, "{}");
        let apps =
            r#"{"extensions":{"io.modelcontextprotocol/ui":{"mimeTypes":["text/html;profile=mcp-app"]}}}"#;
        check(apps, Revision::V2025_06_18, apps);
        let tasks = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
        check(tasks, Revision::V2026_07_28, tasks);
        check(tasks, Revision::V2025_11_25, "{}");
    }

    #[test]
    fn only_what_was_declared_may_be_asked() {
        let has = Capabilities::of(br#"{"elicitation":{},"sampling":{}}"#, Revision::V2026_07_28);
        assert!(has.allow(ELICIT, br#"{"message":"?"}"#) && has.allow(SAMPLE, br#"{"messages":[]}"#));
        assert!(!has.allow(ELICIT, br#"{"mode":"url"}"#) && !has.allow(SAMPLE, br#"{"tools":[]}"#));
        assert!(!has.allow(LIST_ROOTS, b"{}") && !has.allow("ping", b"{}"));
    }
}
