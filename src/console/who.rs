//! Whom is a question about?

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use http::{Request, header};
use serde_json::{Map, Value};

use crate::call::{Caller, Identity};

/// A caller that an operator asks about.
#[derive(Debug)]
pub enum Who {
    /// Made up of what was said of them.
    Somebody(Caller),
    /// Whose this `Authorization` is.
    Bearer(Vec<u8>),
}

impl Who {
    /// Whom and what `GET /explain?tool=…&subject=…&group=…` is about. Without anybody, it is whoever
    /// is on this machine.
    pub fn asked<B>(request: &Request<B>) -> Result<(Self, String), String> {
        let query = request.uri().query().unwrap_or_default();
        let url = reqwest::Url::parse(&format!("http://localhost/?{query}"));
        let url = url.map_err(|why| format!("the query cannot be read: {why}"))?;
        let (mut name, mut somebody, mut anonymous) = (None, false, false);
        let (issuer, subject) = (String::new(), String::new());
        let (groups, scopes, claims) = (Vec::new(), Vec::new(), Map::new());
        let mut identity = Identity { issuer, subject, groups, scopes, claims };
        for (key, value) in url.query_pairs() {
            let value = value.into_owned();
            somebody |= key != "tool" && key != "anonymous";
            match &*key {
                "tool" => name = Some(value),
                "anonymous" => anonymous = value == "true",
                "issuer" => identity.issuer = value,
                "subject" => identity.subject = value,
                "group" => identity.groups.push(value),
                "scope" => identity.scopes.push(value),
                "claim" => drop(claim(&value).map(|(name, value)| identity.claims.insert(name, value))?),
                other => {
                    let known = "tool, issuer, subject, group, scope, claim and anonymous";
                    return Err(format!("there is no parameter {other:?}; there are {known}"));
                }
            }
        }
        let name = name.ok_or("say what it is about: ?tool=files__read_file")?;
        let token = request.headers().get(header::AUTHORIZATION);
        let who = match (token, somebody, anonymous) {
            (Some(token), false, false) => Self::Bearer(token.as_bytes().to_vec()),
            (None, true, false) => Self::Somebody(Caller::Known(Arc::new(identity))),
            (None, false, true) => Self::Somebody(Caller::Stranger(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
            (None, false, false) => Self::Somebody(Caller::Local),
            _ => return Err("say one of: a token, `anonymous`, or what somebody's token would say".into()),
        };
        Ok((who, name))
    }
}

/// `level=3`: what reads as JSON is JSON, and the rest a text.
fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("the claim {text:?} has no \"=\"; write name=value"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(query: &str) -> Result<(Who, String), String> {
        Who::asked(&Request::builder().uri(format!("/explain?{query}")).body(()).unwrap())
    }

    #[test]
    fn somebody_is_made_up_of_what_is_said() {
        let (who, name) =
            asked("tool=a__b&subject=ada&group=x&group=y&claim=level%3D3&claim=team%3Dred").unwrap();
        let Who::Somebody(Caller::Known(identity)) = who else { panic!("{who:?}") };
        assert_eq!((name.as_str(), &*identity.subject, identity.groups.len()), ("a__b", "ada", 2));
        assert_eq!((&identity.claims["level"], &identity.claims["team"]), (&3.into(), &"red".into()));
        assert!(matches!(asked("tool=a").unwrap().0, Who::Somebody(Caller::Local)));
        assert!(matches!(asked("tool=a&anonymous=true").unwrap().0, Who::Somebody(Caller::Stranger(_))));
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for (query, words) in [
            ("subject=ada", "?tool="),
            ("tool=a&name=x", "no parameter \"name\""),
            ("tool=a&claim=x", "name=value"),
            ("tool=a&anonymous=true&subject=x", "say one of"),
        ] {
            assert!(asked(query).unwrap_err().contains(words), "{query}");
        }
    }
}
