//! Which calls may be answered by a kept reply, and which make kept replies untrue?

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Settings;
use crate::{call::Aim, middleware::fits, settings::Duration, weaken, wire::mcp::Method};

/// For how long and for whom replies are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// How long a reply is good. A tool needs it; of a backend it is for replies that do not say it
    /// themselves (`ttlMs`), which without it are not kept.
    pub ttl: Option<Duration>,
    /// Who is given a reply. What its server calls private is its caller's alone all the same.
    pub share: Share,
    /// Is the tool one that only reads, though its server does not say so (`readOnlyHint`)? For
    /// tools only.
    pub read_only: bool,
    /// How long after its time a reply is still used, while a new one is fetched.
    pub stale_while_revalidate: Option<Duration>,
    /// How long after its time a reply is still used if a new one cannot be had.
    pub stale_if_error: Option<Duration>,
}

/// Who is given a kept reply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// Whoever has the same authorization as the caller whose call it answered.
    #[default]
    Caller,
    /// Everybody who may make the call.
    All,
}

/// What a thing is called in rules, whatever it is called at an endpoint.
pub fn name(aim: &Aim) -> String {
    format!("{}__{}", aim.backend, aim.own)
}

#[derive(Debug)]
pub struct Rules {
    tools: BTreeMap<String, Rule>,
    backends: BTreeMap<String, Rule>,
    /// Tools that change something, each with the places of what it makes untrue.
    writers: Vec<(String, Vec<usize>)>,
    /// What is made untrue by any of them: patterns, each once.
    pub targets: Vec<String>,
}

impl Rules {
    pub fn new(settings: &Settings) -> Self {
        let mut targets: Vec<_> = settings.clears.values().flatten().cloned().collect();
        targets.sort_unstable();
        targets.dedup();
        let place = |pattern: &String| targets.binary_search(pattern).ok();
        let writers = settings
            .clears
            .iter()
            .map(|(writer, made)| (writer.clone(), made.iter().filter_map(place).collect()));
        let (tools, backends) = (settings.tools.clone(), settings.backends.clone());
        Self { tools, backends, writers: writers.collect(), targets }
    }

    /// Is there anything to do at all?
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty() && self.backends.is_empty()
    }

    /// The rule by which the reply to a call is kept, if it is.
    pub fn rule(&self, method: Method, aim: &Aim) -> Option<&Rule> {
        match method {
            Method::ToolsCall => {
                let (_, rule) = self.of_tool(aim)?;
                (aim.hints.read_only || rule.read_only || weaken::is("cache-reads")).then_some(rule)
            }
            Method::ResourcesRead | Method::PromptsGet | Method::Complete => self.backends.get(&*aim.backend),
            _ => None,
        }
    }

    /// The most particular rule that names a tool, whether it may be kept or not.
    pub fn of_tool(&self, aim: &Aim) -> Option<(&str, &Rule)> {
        if self.tools.is_empty() {
            return None;
        }
        let name = name(aim);
        let fitting = self.tools.iter().filter(|(pattern, _)| fits(pattern, &name));
        fitting.max_by_key(|(pattern, _)| pattern.len()).map(|(pattern, rule)| (pattern.as_str(), rule))
    }

    /// The places among the targets of what a call makes untrue.
    pub fn made_untrue(&self, method: Method, aim: &Aim) -> Vec<usize> {
        if self.writers.is_empty() || method != Method::ToolsCall {
            return Vec::new();
        }
        let name = name(aim);
        let writers = self.writers.iter().filter(|(pattern, _)| fits(pattern, &name));
        writers.flat_map(|(_, targets)| targets.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Hints;

    fn aim(backend: &str, own: &str, read_only: bool) -> Aim {
        Aim { backend: backend.into(), own: own.into(), hints: Hints { read_only, ..Hints::default() } }
    }

    fn rule(seconds: u64) -> Rule {
        Rule { ttl: Some(Duration::seconds(seconds)), ..Rule::default() }
    }

    #[test]
    fn a_tool_is_kept_if_it_is_named_and_only_reads() {
        let unsaid = Rule { read_only: true, ..rule(3) };
        let tools = [("docs__*", rule(1)), ("docs__search*", rule(2)), ("docs__unsaid", unsaid)];
        let tools = tools.map(|(pattern, rule)| (pattern.to_owned(), rule));
        let rules = Rules::new(&Settings { tools: tools.into(), ..Settings::default() });
        let seconds =
            |aim: &Aim| rules.rule(Method::ToolsCall, aim).map(|rule| rule.ttl.unwrap().0.as_secs());
        assert_eq!(seconds(&aim("docs", "read", true)), Some(1));
        assert_eq!(seconds(&aim("docs", "search", true)), Some(2));
        assert_eq!(seconds(&aim("docs", "search", false)), None);
        assert_eq!(seconds(&aim("docs", "unsaid", false)), Some(3));
        // Another backend's tool of that very name is another thing.
        assert_eq!(seconds(&aim("other", "docs__search", true)), None);
        assert!(rules.rule(Method::ResourcesRead, &aim("docs", "docs://a", true)).is_none());
    }

    #[test]
    fn resources_prompts_and_completions_go_by_their_backend() {
        let rules =
            Rules::new(&Settings { backends: [("docs".to_owned(), rule(1))].into(), ..Settings::default() });
        for method in [Method::ResourcesRead, Method::PromptsGet, Method::Complete] {
            assert!(rules.rule(method, &aim("docs", "x", true)).is_some());
            assert!(rules.rule(method, &aim("docs2", "x", true)).is_none());
        }
        assert!(rules.rule(Method::ToolsCall, &aim("docs", "x", true)).is_none());
        assert!(rules.rule(Method::SkillsGet, &aim("docs", "x", true)).is_none());
    }

    #[test]
    fn a_writing_tool_makes_untrue_what_it_names() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let clears =
            [("notes__write_*", texts(&["notes__*"])), ("notes__*_all", texts(&["a__*", "notes__*"]))];
        let clears = clears.map(|(pattern, made)| (pattern.to_owned(), made));
        let rules = Rules::new(&Settings { clears: clears.into(), ..Settings::default() });
        let made = |own: &str| -> Vec<_> {
            let made = rules.made_untrue(Method::ToolsCall, &aim("notes", own, false));
            made.into_iter().map(|place| rules.targets[place].as_str()).collect()
        };
        assert_eq!(made("write_one"), ["notes__*"]);
        assert_eq!(made("drop_all"), ["a__*", "notes__*"]);
        assert!(made("read").is_empty());
    }
}
