//! Which arguments of a tool stand in HTTP headers as well (revision 2026-07-28, `x-mcp-header`)?

use std::collections::HashSet;

use serde_json::Value;

use crate::wire::json;

/// An argument with an `x-mcp-header` annotation in the tool's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    /// The header's name without `Mcp-Param-`.
    pub header: String,
    /// Where the argument is: the names of the properties from the root.
    pub path: Vec<String>,
}

impl Mirrored {
    /// The annotations of a tool's input schema. An error says which one is not allowed; a
    /// tool with such a one must not be offered.
    pub fn all(schema: &Value) -> Result<Vec<Self>, String> {
        let mut found = Vec::new();
        let mut path = Vec::new();
        collect(schema, &mut path, true, &mut found)?;
        let mut seen = HashSet::new();
        match found.iter().find(|mirrored| !seen.insert(mirrored.header.to_ascii_lowercase())) {
            Some(twice) => Err(format!("x-mcp-header {:?} stands twice", twice.header)),
            None => Ok(found),
        }
    }

    /// The argument's value as the header has it: nothing if it is absent or null.
    pub fn value(&self, arguments: &[u8]) -> Option<String> {
        let value = self.place(arguments)?;
        match value.first()? {
            b'"' => json::string(value).map(|text| text.into_owned()),
            b't' | b'f' | b'-' | b'0'..=b'9' => Some(String::from_utf8_lossy(value).into_owned()),
            _ => None,
        }
    }

    /// Does a header say what the argument does? Where that is absent there is nothing to repeat,
    /// and a header says nothing.
    pub fn agrees(&self, arguments: &[u8], header: Option<&str>) -> bool {
        let Some(value) = self.value(arguments) else { return true };
        let is_number = self.place(arguments).is_some_and(|text| matches!(text[0], b'-' | b'0'..=b'9'));
        header.is_some_and(|header| header == value || (is_number && same_number(header, &value)))
    }

    /// The argument as it is written.
    fn place<'a>(&self, arguments: &'a [u8]) -> Option<&'a [u8]> {
        let mut value = arguments;
        for name in &self.path {
            let members = json::members(value);
            value = members.into_iter().find(|member| member.key_in(value) == *name)?.value.of(value);
        }
        (!value.is_empty()).then_some(value)
    }
}

/// Are these one number, as 42 and 42.0 are? Those that floats cannot tell apart must be spelled
/// alike: who routes by the header may read them exactly.
fn same_number(one: &str, other: &str) -> bool {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let read = |text: &str| {
        let digits = text.bytes().all(|b| b.is_ascii_digit() || b"-.eE+".contains(&b));
        text.parse::<f64>().ok().filter(|number| digits && !text.starts_with('+') && number.abs() < EXACT)
    };
    read(one).is_some_and(|number| read(other) == Some(number))
}

/// Looks through a schema. Annotations count only where `properties` alone leads.
fn collect(
    schema: &Value,
    path: &mut Vec<String>,
    reachable: bool,
    found: &mut Vec<Mirrored>,
) -> Result<(), String> {
    let Value::Object(members) = schema else { return Ok(()) };
    if let Some(annotation) = members.get("x-mcp-header") {
        found.push(Mirrored {
            header: allowed(annotation, members.get("type"), path, reachable)?,
            path: path.clone(),
        });
    }
    for (keyword, value) in members {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                for (name, property) in properties {
                    path.push(name.clone());
                    collect(property, path, reachable, found)?;
                    path.pop();
                }
            }
            // What these hold are values, not schemas.
            ("x-mcp-header" | "default" | "const" | "enum" | "examples", _) => {}
            (_, Value::Object(_)) => collect(value, path, false, found)?,
            (_, Value::Array(parts)) => {
                for part in parts {
                    collect(part, path, false, found)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn allowed(
    annotation: &Value,
    kind: Option<&Value>,
    path: &[String],
    reachable: bool,
) -> Result<String, String> {
    let place = path.join(".");
    let name = annotation.as_str().ok_or_else(|| format!("x-mcp-header of {place:?} is no text"))?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(format!("x-mcp-header {name:?} is no name of a header"));
    }
    if !reachable || path.is_empty() {
        return Err(format!("x-mcp-header {name:?} stands where `properties` alone does not lead"));
    }
    match kind.and_then(Value::as_str) {
        Some("string" | "integer" | "boolean") => Ok(name.to_owned()),
        _ => Err(format!("x-mcp-header {name:?} is on {place:?}, which is no string, integer or boolean")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn annotated_arguments_are_found_with_their_paths() {
        let schema = json!({"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}}}});
        let found = Mirrored::all(&schema).unwrap();
        let value = |header: &str| {
            let mirrored = found.iter().find(|m| m.header == header).unwrap();
            mirrored.value(br#"{"region":"\u00e9u","deep":{"n":42}}"#)
        };
        assert_eq!(value("Region").as_deref(), Some("éu"));
        assert_eq!(value("N").as_deref(), Some("42"));
        assert_eq!(found[0].value(br#"{"deep":null}"#), None);
    }

    #[test]
    fn a_header_agrees_with_its_argument_or_with_nothing() {
        let found = Mirrored { header: "N".into(), path: vec!["n".into()] };
        let agrees = |argument: &str, header: &str| {
            found.agrees(format!("{{\"n\":{argument}}}").as_bytes(), Some(header))
        };
        for (argument, header) in
            [("42", "42"), ("42", "42.0"), ("4.2e1", "42"), ("-0", "0"), ("true", "true"), ("null", "x")]
        {
            assert!(agrees(argument, header), "{argument} {header}");
        }
        for (argument, header) in [
            ("42", "43"),
            ("42", "+42"),
            ("42", "0x2a"),
            ("42", ""),
            ("\"42\"", "42.0"),
            ("\"inf\"", "infinity"),
            ("9007199254740993", "9007199254740992"),
            ("1e400", "2e400"),
            ("true", "1"),
        ] {
            assert!(!agrees(argument, header), "{argument} {header}");
        }
        assert!(found.agrees(b"{}", None) && !found.agrees(b"{\"n\":1}", None));
    }

    #[test]
    fn annotations_in_the_wrong_place_or_of_the_wrong_kind_are_refused() {
        let with = |property: Value| json!({"type":"object","properties":{"a":property}});
        for schema in [
            with(json!({"type":"number","x-mcp-header":"A"})),
            with(json!({"type":"string","x-mcp-header":""})),
            with(json!({"type":"string","x-mcp-header":"A B"})),
            with(json!({"type":"string","x-mcp-header":7})),
            with(json!({"type":"array","items":{"type":"string","x-mcp-header":"A"}})),
            with(json!({"anyOf":[{"type":"string","x-mcp-header":"A"}]})),
            json!({"type":"object","properties":{
                "a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}),
        ] {
            assert!(Mirrored::all(&schema).is_err(), "{schema}");
        }
    }
}
