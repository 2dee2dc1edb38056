//! What do `${…}` in other programs' files stand for, and how is that written here?
//!
//! Claude Code has `${NAME}` and `${NAME:-default}`, Cursor and VS Code `${env:NAME}` and a few
//! folders, VS Code also `${input:id}`, which it asks the user for.

use std::fmt::Write as _;

use crate::{
    config::Environment,
    settings::{FromEnv, Text},
};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Plain(String),
    Variable { name: String, default: Option<String> },
}

/// A text with references in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// The variable that stands for what VS Code asks the user for.
pub fn variable_of_input(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

impl Template {
    pub fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, behind)) = after.split_once('}') else { break };
            match part(name) {
                Some(part) => parts.extend([Part::Plain(before.to_owned()), part]),
                None => parts.push(Part::Plain(format!("{before}${{{name}}}"))),
            }
            rest = behind;
        }
        parts.push(Part::Plain(rest.to_owned()));
        parts.retain(|part| *part != Part::Plain(String::new()));
        Self(parts)
    }

    /// With a reference to a variable where there is one that can be written, and otherwise with
    /// what the variables hold now. Fails with the name of one that is not set.
    pub fn into_text(self, environment: &Environment) -> Result<Text, String> {
        let prefix = match self.0.as_slice() {
            [Part::Variable { name, default: None }] => Some((String::new(), name)),
            [Part::Plain(before), Part::Variable { name, default: None }] => Some((before.clone(), name)),
            _ => None,
        };
        if let Some((prefix, name)) = prefix {
            return Ok(Text::Env(FromEnv { env: name.clone(), prefix }));
        }
        self.expand(|name| environment.get(name).map(str::to_owned)).map(Text::Plain)
    }

    /// With what `known` says of the variables. Fails with the name of one it does not know.
    pub fn expand(&self, known: impl Fn(&str) -> Option<String>) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Plain(plain) => text.push_str(plain),
                Part::Variable { name, default } => {
                    let value = known(name).or_else(|| default.clone()).ok_or_else(|| name.clone())?;
                    text.push_str(&value);
                }
            }
        }
        Ok(text)
    }

    /// The variables it names.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Plain(_) => None,
            Part::Variable { name, .. } => Some(name.as_str()),
        })
    }
}

fn part(name: &str) -> Option<Part> {
    let variable = |name: &str| Part::Variable { name: name.to_owned(), default: None };
    let valid = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.as_bytes()[0].is_ascii_digit()
    };
    if let Some(folder) = folder(name) {
        return Some(Part::Plain(folder));
    }
    if let Some(id) = name.strip_prefix("input:") {
        return Some(variable(&variable_of_input(id)));
    }
    if let Some((name, default)) = name.split_once(":-").filter(|(name, _)| valid(name)) {
        return Some(Part::Variable { name: name.to_owned(), default: Some(default.to_owned()) });
    }
    let name = name.strip_prefix("env:").unwrap_or(name);
    valid(name).then(|| variable(name))
}

/// The folders that editors know, as they are on this machine.
fn folder(name: &str) -> Option<String> {
    let here = || std::env::current_dir().ok();
    let text = |path: std::path::PathBuf| path.display().to_string();
    match name {
        "workspaceFolder" => here().map(text),
        "workspaceFolderBasename" => here()?.file_name().map(|name| name.to_string_lossy().into_owned()),
        "userHome" => std::env::home_dir().map(text),
        "pathSeparator" | "/" => Some(std::path::MAIN_SEPARATOR.to_string()),
        _ => None,
    }
}

/// A name for the variable that holds one backend's secret.
pub fn variable_for(backend: &str, key: &str) -> String {
    let mut name = String::new();
    let _ = write!(name, "{backend}_{key}");
    variable_of_input(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(template: &str) -> Result<Text, String> {
        Template::parse(template).into_text(&Environment::from_iter([("SET", "value")]))
    }

    fn from(env: &str, prefix: &str) -> Result<Text, String> {
        Ok(Text::Env(FromEnv { env: env.into(), prefix: prefix.into() }))
    }

    #[test]
    fn a_reference_at_the_end_stays_one() {
        assert_eq!(text("${TOKEN}"), from("TOKEN", ""));
        assert_eq!(text("Bearer ${env:TOKEN}"), from("TOKEN", "Bearer "));
        assert_eq!(text("Bearer ${input:github-token}"), from("GITHUB_TOKEN", "Bearer "));
    }

    #[test]
    fn other_references_are_filled_in() {
        let plain = |text: &str| Ok(Text::Plain(text.into()));
        assert_eq!(text("plain"), plain("plain"));
        assert_eq!(text("a ${SET} b"), plain("a value b"));
        assert_eq!(text("${UNSET:-default}"), plain("default"));
        assert_eq!(text("${SET:-default}"), plain("value"));
        assert_eq!(text("a ${UNSET} b"), Err("UNSET".into()));
    }

    #[test]
    fn what_is_no_reference_stays_as_it_is() {
        for same in ["$HOME", "${", "${}", "${a b}", "cost: $5 {x}"] {
            assert_eq!(text(same), Ok(Text::Plain(same.into())));
        }
    }
}
