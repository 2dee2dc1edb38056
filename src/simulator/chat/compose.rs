//! What does a model answer? What shows that it got everything that was said, and nothing else.
//!
//! The usual answer is one line: `[model] turn 2: hello (#1f3a5b7c)`. The number counts the user's
//! messages that arrived, and the digest is of all messages, so the line proves that a conversation
//! was really sent, in order and unchanged.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    ask::{Ask, Format, Function, Message},
    media,
    schema::Maker,
    vote::{self, Vote},
};
use crate::simulator::{
    catalogue::Model,
    images,
    random::{self, Random},
    scenario::{Directive, Scenario},
    world::World,
};

/// The last text of the user, as much of it as an answer repeats.
const REPEATED: usize = 200;
const MOST_WORDS: u64 = 20_000;

/// An answer, in the pieces in which it is streamed. Each piece is a token.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    pub reasoning: Vec<String>,
    /// What was thought is not to be read.
    pub encrypted: bool,
    pub content: Vec<String>,
    /// There is no content, rather than none in it.
    pub null_content: bool,
    pub calls: Vec<Call>,
    pub annotations: Vec<Value>,
    /// As `data:` addresses.
    pub pictures: Vec<String>,
    pub refusal: Option<String>,
    pub finish: &'static str,
    pub native_finish: &'static str,
}

#[derive(Debug, Clone)]
pub struct Call {
    pub id: String,
    pub name: String,
    pub arguments: Vec<String>,
}

impl Answer {
    pub fn tokens(&self) -> u64 {
        let calls = self.calls.iter().map(|call| 1 + call.arguments.len()).sum::<usize>();
        u64::try_from(self.reasoning.len() + self.content.len() + calls).unwrap_or(u64::MAX)
    }

    fn finish(&mut self, finish: &'static str, native: &'static str) {
        (self.finish, self.native_finish) = (finish, native);
    }

    /// Cuts it to so many tokens, if it has more.
    fn cut(&mut self, cap: u64) {
        if self.tokens() <= cap {
            return;
        }
        let mut left = usize::try_from(cap).unwrap_or(usize::MAX);
        self.reasoning.truncate(left);
        left -= self.reasoning.len();
        self.content.truncate(left);
        left -= self.content.len();
        for call in &mut self.calls {
            call.arguments.truncate(left.saturating_sub(1));
            left = left.saturating_sub(1 + call.arguments.len());
        }
        self.finish("length", "max_tokens");
    }
}

/// The answer of a model to all that was asked, with what a scenario makes of it.
pub fn compose(world: &World, ask: &Ask, model: &Model, scenario: Option<&Scenario>) -> Answer {
    let mut answer = Answer { finish: "stop", native_finish: "stop", ..Answer::default() };
    let directives = Directive::all(ask.last_said());
    let last = ask.conversation().last();
    let after_tool = last.is_some_and(|message| message.role == "tool");
    answer.calls = if after_tool { Vec::new() } else { calls(world, ask) };
    if answer.calls.is_empty() {
        let mut text = said(world, ask, model, &directives);
        if ask.temperature > 0.0 {
            text += &variation(world, ask);
        }
        if let Some(begun) = ask.begun()
            && let Some(rest) = text.strip_prefix(begun)
        {
            text = rest.to_owned();
        }
        let stop = ask.stops.iter().filter_map(|stop| text.find(stop.as_str())).min();
        text.truncate(stop.unwrap_or(text.len()));
        answer.content = pieces(&text);
    } else {
        answer.null_content = true;
        answer.finish("tool_calls", "tool_use");
    }
    let reasons = model.reasoning.is_some_and(|reasoning| reasoning.mandatory || reasoning.by_default);
    answer.encrypted = model.id == "sim/reasoning-encrypted";
    let always = answer.encrypted || model.id.ends_with(":thinking");
    if always || ask.thinks.unwrap_or(reasons) || model.reasoning.is_some_and(|reasoning| reasoning.mandatory)
    {
        answer.reasoning = pieces(&format!("Let me think about turn {}. Done.", ask.said_by("user").count()));
    }
    answer.annotations = annotations(ask);
    if ask.picture || (model.outputs.contains(&"image") && ask.stops.is_empty()) {
        let picture = STANDARD.encode(images::png(ask.last_said()));
        answer.pictures.push(format!("data:image/png;base64,{picture}"));
    }
    if let Some(scenario) = scenario {
        bend(&mut answer, scenario, ask);
    }
    if let Some(cap) = ask.cap {
        answer.cut(cap);
    }
    answer
}

/// What the answer says when no tool is called.
fn said(world: &World, ask: &Ask, model: &Model, directives: &[Directive]) -> String {
    let shaped = directives.iter().find_map(|directive| shaped(world, ask, directive));
    if let Some(text) = shaped {
        return text;
    }
    let last = ask.last_said();
    let vote = Vote::of(&model.id, last);
    let asked: String = ask.said_by("system").map(|message| message.text.as_str()).chain([last]).collect();
    match &ask.format {
        Format::Schema(_) if vote == Vote::Garbage => return "as you like it".to_owned(),
        Format::Schema(schema) => {
            let random = world.random(&format!("{} {last}", model.id));
            return Maker { root: schema, random, opinion: vote.opinion() }.make(schema, 0).to_string();
        }
        Format::Object => {
            let turn = ask.said_by("user").count();
            return json!({ "ok": true, "model": model.id, "turn": turn, "digest": ask.digest() })
                .to_string();
        }
        Format::Text => {}
    }
    if let Some(text) = vote::answer(&model.id, &asked, last) {
        return text;
    }
    let turn = ask.said_by("user").count();
    let heard = match ask.conversation().last() {
        Some(tool) if tool.role == "tool" => format!("the tool said: {}", beginning(&tool.text)),
        _ => seen(last, ask.said_by("user").next_back()),
    };
    format!("[{}] turn {turn}: {heard} (#{})", model.id, ask.digest())
}

fn beginning(text: &str) -> String {
    text.chars().take(REPEATED).collect()
}

/// A text, and what came with it.
fn seen(text: &str, message: Option<&Message>) -> String {
    let media = message.into_iter().flat_map(|message| &message.media);
    let parts: Vec<_> =
        std::iter::once(beginning(text)).chain(media.map(|medium| medium.seen.clone())).collect();
    parts.join(" | ")
}

/// What `[[sim:…]]` wants to have said, if it is about that.
fn shaped(world: &World, ask: &Ask, directive: &Directive) -> Option<String> {
    Some(match directive.name.as_str() {
        "recall" => ask.said_by("user").map(|message| message.text.as_str()).collect::<Vec<_>>().join("\n"),
        "system" => {
            let system = ask
                .conversation()
                .iter()
                .filter(|message| ["system", "developer"].contains(&message.role.as_str()));
            system.map(|message| message.text.as_str()).collect::<Vec<_>>().join("\n")
        }
        "say" => directive.parameters.get("text").cloned().unwrap_or_default(),
        "json" => directive.rest.clone(),
        "len" => {
            let bytes: usize = ask.messages.iter().map(|message| message.text.len()).sum();
            format!("messages={} bytes={bytes} tokens={}", ask.messages.len(), ask.prompt())
        }
        "words" => {
            let count = directive.parameters.get("n").and_then(|count| count.parse().ok()).unwrap_or(100);
            words(&mut world.random("words"), count.min(MOST_WORDS))
        }
        _ => return None,
    })
}

fn words(random: &mut Random, count: u64) -> String {
    const SYLLABLES: [&str; 16] =
        ["ba", "re", "mi", "so", "lu", "ke", "ta", "no", "vi", "du", "pa", "fe", "gö", "zu", "ny", "ha"];
    let mut word = || (0..=random.below(3)).map(|_| random.pick(&SYLLABLES)).collect::<String>();
    (0..count).map(|_| word()).collect::<Vec<_>>().join(" ")
}

/// What is different each time, unless a seed is given.
fn variation(world: &World, ask: &Ask) -> String {
    let draw = ask.seed.map_or_else(|| format!("count {}", world.count()), |seed| format!("seed {seed}"));
    format!(" ~{:04x}", world.random(&draw).next() & 0xFFFF)
}

/// The text in tokens: words with the blank before them, long ones in several pieces.
pub fn pieces(text: &str) -> Vec<String> {
    const LONGEST: usize = 12;
    let mut pieces: Vec<String> = Vec::new();
    let mut length = 0;
    for letter in text.chars() {
        let begins = letter == ' ' || length >= LONGEST;
        match pieces.last_mut() {
            Some(piece) if !begins => piece.push(letter),
            _ => {
                pieces.push(letter.to_string());
                length = 0;
            }
        }
        length += 1;
    }
    pieces
}

/// The calls that `call:name` in the last text wants, or `tool_choice`.
fn calls(world: &World, ask: &Ask) -> Vec<Call> {
    let wanted = |function: &&Function| {
        let named = ask.must_call.as_deref() == Some(function.name.as_str());
        named
            || ask
                .last_said()
                .split_whitespace()
                .any(|word| word.strip_prefix("call:") == Some(&function.name))
    };
    let mut functions: Vec<_> = ask.functions.iter().filter(wanted).collect();
    if functions.is_empty() && ask.must_call.is_some() {
        functions.extend(ask.functions.first());
    }
    let call = |(index, function): (usize, &&Function)| {
        let parameters = &function.parameters;
        let random = world.random(&function.name);
        let arguments = match parameters {
            Value::Null => json!({}),
            _ => Maker { root: parameters, random, opinion: None }.make(parameters, 0),
        };
        made_call(index, &function.name, &arguments.to_string(), &ask.digest())
    };
    functions.iter().enumerate().map(call).collect()
}

fn made_call(index: usize, name: &str, arguments: &str, digest: &str) -> Call {
    Call { id: format!("call_{digest}_{index}"), name: name.to_owned(), arguments: pieces(arguments) }
}

fn annotations(ask: &Ask) -> Vec<Value> {
    let mut annotations = Vec::new();
    if ask.search {
        let words = random::short(ask.last_said().as_bytes());
        annotations.extend(["a", "b", "c"].map(|page| {
            json!({ "type": "url_citation", "url_citation": {
                "url": format!("https://sim.invalid/{words}/{page}"),
                "title": format!("Page {page}"),
                "content": "A page that nobody wrote.",
                "start_index": 0,
                "end_index": 10,
            } })
        }));
    }
    let read: Vec<_> = ask.messages.iter().flat_map(|message| &message.files_read).collect();
    let media = ask.messages.iter().flat_map(|message| &message.media);
    let new = media.filter(|medium| medium.document.as_ref().is_some_and(|(_, hash)| !read.contains(&hash)));
    annotations.extend(new.filter_map(media::parsed));
    annotations
}

/// What a scenario makes of an answer.
fn bend(answer: &mut Answer, scenario: &Scenario, ask: &Ask) {
    let halve = |answer: &mut Answer| answer.content.truncate(answer.content.len().div_ceil(2));
    match scenario.name {
        "empty" | "null-content" => {
            let null_content = scenario.name == "null-content";
            *answer = Answer { null_content, finish: "stop", native_finish: "stop", ..Answer::default() };
        }
        "empty-reasoning" => {
            let budget = usize::try_from(ask.cap.unwrap_or(16)).unwrap_or(16).min(1000);
            let reasoning = vec![" hm".to_owned(); budget];
            *answer = Answer { reasoning, ..Answer::default() };
            answer.finish("length", "max_tokens");
        }
        "length" => {
            halve(answer);
            answer.finish("length", "max_tokens");
        }
        "content-filter" => {
            halve(answer);
            answer.finish("content_filter", "content_filter");
        }
        "refusal" => {
            let refusal = Some("I can't help with that.".to_owned());
            *answer = Answer { refusal, null_content: true, ..Answer::default() };
            answer.finish("content_filter", "refusal");
        }
        "tool-garbage" | "truncate-tool" | "reorder-index" => {
            let arguments = match scenario.name {
                "tool-garbage" => "{\"city\": \"Oslo\",, \"unit",
                _ => "{\"city\":\"Oslo, Norway\",\"unit\":\"degrees\"}",
            };
            let count = if scenario.name == "reorder-index" { 2 } else { 1 };
            let call = |index| made_call(index, "get_weather", arguments, &ask.digest());
            *answer =
                Answer { calls: (0..count).map(call).collect(), null_content: true, ..Answer::default() };
            answer.finish("tool_calls", "tool_use");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::Settings;

    fn answer(body: &Value) -> Answer {
        let world = World::new(Settings::default());
        let model = world.catalogue.find(body["model"].as_str().unwrap()).unwrap();
        compose(&world, &Ask::read(body).unwrap(), &model, None)
    }

    fn text(body: &Value) -> String {
        answer(body).content.concat()
    }

    fn said(text: &str) -> Value {
        json!({ "model": "acme/atlas-70b", "messages": [{ "role": "user", "content": text }] })
    }

    #[test]
    fn the_usual_answer_shows_what_arrived() {
        let mut body = said("hello");
        let first = text(&body);
        assert!(first.starts_with("[acme/atlas-70b] turn 1: hello (#"), "{first}");
        body["messages"] = json!([
            { "role": "user", "content": "hello" },
            { "role": "assistant", "content": first },
            { "content": [{ "text": "again", "type": "text" }], "role": "user" },
        ]);
        let second = text(&body);
        assert!(second.starts_with("[acme/atlas-70b] turn 2: again (#"), "{second}");
        body["messages"][1]["content"] = "something else".into();
        assert_ne!(text(&body), second);
    }

    #[test]
    fn the_digest_is_of_the_messages_as_canonical_json() {
        let canonical = br#"[{"content":"hello","role":"user"}]"#;
        assert!(text(&said("hello")).ends_with(&format!("(#{})", random::short(canonical))));
    }

    #[test]
    fn an_answer_that_was_cut_is_continued_where_it_ended() {
        let mut body = said("[[sim:words n=50]]");
        let whole = text(&body);
        body["max_completion_tokens"] = 20.into();
        let part = answer(&body);
        assert_eq!((part.tokens(), part.finish), (20, "length"));
        let part = part.content.concat();
        body["messages"].as_array_mut().unwrap().push(json!({ "role": "assistant", "content": part }));
        body["max_completion_tokens"] = 1000.into();
        assert_eq!(format!("{part}{}", text(&body)), whole);
    }

    #[test]
    fn directives_shape_the_answer() {
        assert_eq!(text(&said(r#"[[sim:say text="exactly\nthis"]]"#)), "exactly\nthis");
        assert_eq!(text(&said(r#"[[sim:json {"a": [1]}]]"#)), r#"{"a": [1]}"#);
        assert_eq!(text(&said("[[sim:words n=500]]")).split(' ').count(), 500);
        assert_eq!(text(&said("[[sim:len]]")), "messages=1 bytes=11 tokens=10");
        let mut body = said("one");
        body["messages"] = json!([
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "one" },
            { "role": "user", "content": "two [[sim:recall]]" },
        ]);
        assert_eq!(text(&body), "one\ntwo [[sim:recall]]");
        body["messages"][2]["content"] = "[[sim:system]]".into();
        assert_eq!(text(&body), "Be brief.");
    }

    #[test]
    fn stop_and_temperature_are_obeyed() {
        let mut body = said(r#"[[sim:say text="one two three"]]"#);
        body["stop"] = json!([" three", "two"]);
        assert_eq!(text(&body), "one ");
        body["stop"] = Value::Null;
        body["temperature"] = 0.7.into();
        body["seed"] = 5.into();
        let once = text(&body);
        assert_eq!(text(&body), once);
        body["seed"] = 6.into();
        assert_ne!(text(&body), once);
        let world = World::new(Settings::default());
        body["seed"] = Value::Null;
        let model = world.catalogue.find("acme/atlas-70b").unwrap();
        let once = || compose(&world, &Ask::read(&body).unwrap(), &model, None).content.concat();
        assert_ne!(once(), once());
    }

    #[test]
    fn tools_are_called_when_the_text_says_so_and_answers_quote_them() {
        let mut body = said("please call:get_weather now");
        let parameters =
            json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
        body["tools"] = json!([
            { "type": "function", "function": { "name": "other" } },
            { "type": "function", "function": { "name": "get_weather", "parameters": parameters } },
        ]);
        let called = answer(&body);
        assert_eq!((called.finish, called.calls.len()), ("tool_calls", 1));
        assert_eq!(called.calls[0].arguments.concat(), r#"{"city":"text"}"#);
        body["messages"].as_array_mut().unwrap().extend([
            json!({ "role": "assistant", "content": null, "tool_calls": [] }),
            json!({ "role": "tool", "tool_call_id": "c", "content": "sunny" }),
        ]);
        assert!(text(&body).contains("turn 1: the tool said: sunny (#"));
    }

    #[test]
    fn pieces_are_the_text() {
        for whole in ["", " ", "one two  three", "Donaudampfschifffahrtsgesellschaft 微风 ü"] {
            assert_eq!(pieces(whole).concat(), whole);
        }
    }
}
