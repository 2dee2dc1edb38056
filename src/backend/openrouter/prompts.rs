//! Which texts to begin with are there for people?

use serde_json::{Map, Value, json};

use super::{
    Task,
    refused::Refused,
    settings::Pack,
    tools::{
        chat::conversation_id,
        export::{self, Format},
    },
};
use crate::{
    call::Call,
    error::{Error, Result},
};

/// An argument: its name, and what it is.
type Argument = (&'static str, &'static str);

/// A text to begin with.
struct Prompt {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    /// All of them are needed.
    arguments: &'static [Argument],
    /// What is said, with the arguments in braces.
    text: &'static str,
}

const CONVERSATION: Argument = ("conversation_id", "Which conversation of yours");

const PROMPTS: [Prompt; 6] = [
    Prompt {
        name: "summarize_conversation",
        title: "Summarize a conversation",
        description: "Gives a conversation to be summarized, with what was decided and what is open.",
        arguments: &[CONVERSATION],
        text: "Summarize the conversation {conversation_id}, which follows: what it is about, what was decided, and what is still open.",
    },
    Prompt {
        name: "continue_as",
        title: "Go on with another model",
        description: "Goes on with a conversation, answered by another model.",
        arguments: &[CONVERSATION, ("model", "The model that answers from now on")],
        text: "Let us go on with the conversation {conversation_id}, which follows. For each thing that I say, call the tool `chat` with this conversation_id and the model {model}, and show me its answer as it is.",
    },
    Prompt {
        name: "second_opinion",
        title: "Get a second opinion",
        description: "Has another model check a text.",
        arguments: &[("text", "What is to be checked")],
        text: "Get a second opinion on the text below: ask a model of another author with the tool `complete` what is wrong with it and what is missing, then tell me where you agree and where you do not.\n\n{text}",
    },
    Prompt {
        name: "compare_options",
        title: "Compare options",
        description: "Compares options by criteria, in a table.",
        arguments: &[
            ("options", "The options, one on each line"),
            ("criteria", "The criteria, separated by commas"),
        ],
        text: "Compare these options by these criteria in a table, then recommend one and say what would change your mind.\n\nOptions:\n{options}\n\nCriteria: {criteria}",
    },
    Prompt {
        name: "jury",
        title: "Ask a jury of models",
        description: "Has several models decide a question with yes or no.",
        arguments: &[("question", "What can be answered with yes or no")],
        text: "Have several models decide this question: use the tool `consensus` with the strategy jury, or `compare_models` where there is no such tool. Tell me the verdict, how the votes were split, and the best reason of each side.\n\n{question}",
    },
    Prompt {
        name: "code_review",
        title: "Review code",
        description: "Reviews code for bugs, security and clarity.",
        arguments: &[("code", "The code")],
        text: "Review this code. List bugs, security problems and unclear parts, the worst first, each with the line and how to correct it. Leave matters of taste out.\n\n{code}",
    },
];

fn there(packs: &[Pack]) -> &'static [Prompt] {
    if packs.contains(&Pack::Core) { &PROMPTS } else { &[] }
}

/// The result of `prompts/list`.
pub fn list(packs: &[Pack]) -> String {
    let argument = |(name, description): &Argument| json!({ "name": name, "description": description, "required": true });
    let prompts = there(packs).iter().map(|prompt| {
        json!({
            "name": prompt.name,
            "title": prompt.title,
            "description": prompt.description,
            "arguments": prompt.arguments.iter().map(argument).collect::<Vec<_>>(),
        })
    });
    let prompts: Vec<_> = prompts.collect();
    json!({ "resultType": "complete", "ttlMs": 300_000, "cacheScope": "public", "prompts": prompts })
        .to_string()
}

/// The result of `prompts/get`.
pub async fn get(task: &Task, name: &str, call: &Call) -> Result<String> {
    let prompt = there(&task.work.settings.packs).iter().find(|prompt| prompt.name == name);
    let prompt = prompt.ok_or_else(|| Error::UnknownPrompt(name.to_owned()))?;
    let given: Map<String, Value> =
        serde_json::from_slice(call.message.in_params("arguments").unwrap_or(b"{}")).unwrap_or_default();
    let mut values = Vec::new();
    for (name, description) in prompt.arguments {
        let value = given.get(*name).and_then(Value::as_str).filter(|value| !value.is_empty());
        let missing = || Error::Params(format!("the argument {name} is missing: {description}"));
        values.push((*name, value.ok_or_else(missing)?));
    }
    let mut messages =
        vec![json!({ "role": "user", "content": { "type": "text", "text": filled(prompt.text, &values) } })];
    if let Some((_, id)) = values.iter().find(|(name, _)| *name == CONVERSATION.0) {
        let text = transcript(task, id).await.map_err(|refused| Error::Params(refused.message.clone()))?;
        let resource = json!({ "uri": format!("conversation://{id}/transcript.md"), "mimeType": "text/markdown", "text": text });
        messages.push(json!({ "role": "user", "content": { "type": "resource", "resource": resource } }));
    }
    let result = json!({ "resultType": "complete", "description": prompt.description, "messages": messages });
    Ok(result.to_string())
}

async fn transcript(task: &Task, id: &str) -> std::result::Result<String, Refused> {
    export::written(task, conversation_id(id)?, Format::Markdown, false).await
}

/// The text with its arguments. What stands in braces in an argument stays as it is.
fn filled(text: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, more)) = rest.split_once('{') {
        filled.push_str(before);
        let (name, after) = more.split_once('}').unwrap_or((more, ""));
        filled.push_str(values.iter().find(|(one, _)| *one == name).map_or("", |(_, value)| value));
        rest = after;
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_has_its_place_and_is_put_there_once() {
        for prompt in &PROMPTS {
            let values: Vec<_> = prompt.arguments.iter().map(|(name, _)| (*name, "«it»")).collect();
            let text = filled(prompt.text, &values);
            assert_eq!(text.matches("«it»").count(), values.len(), "{text}");
            assert!(!text.contains('{') && !text.contains('}'), "{text}");
        }
        assert_eq!(filled("a {x} c", &[("x", "{x} {y}")]), "a {x} {y} c");
    }
}
