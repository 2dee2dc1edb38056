//! `waystation explain`: why is a tool there for somebody, or why is it not?

use std::time::Duration;

use clap::Args;
use serde_json::{Value, value::RawValue};

use super::{
    Outcome, Sources,
    client::{Client, Token, ToolCall},
    fail,
    gateway::{Asked, Target, ask},
    print,
    table::harmless,
};
use crate::config::Environment;

pub const EXAMPLES: &str = "\
Examples:
  waystation explain github__delete_repo --subject ada --group engineering
  waystation explain github__delete_repo --claim department=sales --scope repo:write
  waystation explain docs__search --anonymous
  WAYSTATION_TOKEN=… waystation explain docs__search    for whoever the token says

It names the rule that decides, and whatever else is in the way, with what to do about it. Without
anybody it is about whoever is on this machine. Prompts go by their names, resources by their URIs.";

const PATIENCE: Duration = Duration::from_secs(10);
/// Says the same of its own caller, to clients that cannot reach the operators' address.
const TOOL: &str = "waystation__explain";

#[derive(Debug, Args)]
pub struct Arguments {
    /// The tool, as `waystation list` has it, or as it was meant.
    tool: String,
    #[command(flatten)]
    who: Who,
    /// Prints all of it as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct Who {
    /// The subject of somebody's token.
    #[arg(long)]
    subject: Option<String>,
    /// Its issuer.
    #[arg(long)]
    issuer: Option<String>,
    /// A group that it names. May be given several times, as may the next two.
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// A scope that it has.
    #[arg(long, value_name = "SCOPE")]
    scope: Vec<String>,
    /// What else it says. Numbers, truths and lists are written as in JSON.
    #[arg(long, value_name = "NAME=VALUE")]
    claim: Vec<String>,
    /// A stranger without a token.
    #[arg(long)]
    anonymous: bool,
}

impl Who {
    /// As parameters of a query.
    fn parameters(&self) -> Vec<(&str, &str)> {
        let Self { subject, issuer, group, scope, claim, anonymous } = self;
        let mut all: Vec<(&str, &str)> = Vec::new();
        all.extend(subject.as_deref().map(|subject| ("subject", subject)));
        all.extend(issuer.as_deref().map(|issuer| ("issuer", issuer)));
        for (name, values) in [("group", group), ("scope", scope), ("claim", claim)] {
            all.extend(values.iter().map(|value| (name, value.as_str())));
        }
        all.extend(anonymous.then_some(("anonymous", "true")));
        all
    }
}

pub fn explain(arguments: &Arguments, common: Sources, environment: Environment) -> Outcome {
    ask(&arguments.target, common, environment, async |asked| {
        let told = match &asked.admin {
            Some(admin) => from_admin(admin, asked.token.as_ref(), arguments).await,
            None => from_tool(&asked, arguments).await,
        };
        match told {
            Ok(told) if arguments.json => print(&format!("{told:#}\n")),
            Ok(told) => print(&drawn(&told)),
            Err(why) => fail(harmless(&why)),
        }
    })
}

async fn from_admin(admin: &str, token: Option<&Token>, arguments: &Arguments) -> Result<Value, String> {
    let mut parameters = arguments.who.parameters();
    // What is said outright is asked about, and nobody else.
    let token = token.filter(|_| parameters.is_empty());
    parameters.push(("tool", &arguments.tool));
    let url = reqwest::Url::parse_with_params(&format!("{admin}/explain"), parameters);
    let url = url.map_err(|why| why.to_string())?;
    let http =
        reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().map_err(|why| why.to_string())?;
    let mut request = http.get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token.text());
    }
    let response = request.send().await.map_err(|why| format!("no gateway answers at {admin}: {why}"))?;
    let told: Value =
        response.json().await.map_err(|_| format!("what answers at {admin} is no gateway that explains"))?;
    match told["error"].as_str() {
        Some(why) => Err(why.to_owned()),
        None => Ok(told),
    }
}

async fn from_tool(asked: &Asked, arguments: &Arguments) -> Result<Value, String> {
    if !arguments.who.parameters().is_empty() {
        return Err(
            "at a URL the gateway explains things for its own caller only; ask about others where it runs, \
                    with --config"
                .into(),
        );
    }
    let client = Client::new(asked.url.clone(), asked.token.clone()).map_err(|fault| fault.to_string())?;
    let tool = serde_json::json!({ "tool": arguments.tool }).to_string();
    let tool: Box<RawValue> = serde_json::from_str(&tool).expect("what we wrote is JSON");
    let call = ToolCall { name: TOOL, arguments: &tool, mirrored: Vec::new() };
    let result = client.call(&call, &mut |_| {}).await.map_err(|fault| fault.to_string())?;
    let mut result: Value = serde_json::from_str(result.get()).map_err(|why| why.to_string())?;
    Ok(result["structuredContent"].take())
}

fn drawn(told: &Value) -> String {
    let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    let verdict = if told["found"] == false { "there is no such thing".to_owned() } else { text("verdict") };
    let says = told["says"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let lines: String = says.map(|line| format!("  {}\n", harmless(line).replace('\n', "\n    "))).collect();
    format!("{}: {verdict}\n{lines}", harmless(&text("tool")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_explained_is_drawn_as_sentences() {
        let told =
            json!({ "tool": "a__b", "found": true, "verdict": "denied", "says": ["One.", "Two\u{1b}[1m."] });
        assert_eq!(drawn(&told), "a__b: denied\n  One.\n  Two[1m.\n");
        let none = json!({ "tool": "x", "found": false, "says": ["Names here …"] });
        assert_eq!(drawn(&none), "x: there is no such thing\n  Names here …\n");
    }
}
