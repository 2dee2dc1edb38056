//! What is kept of a call from one round to the next?

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::Given;

/// Begins a state that holds more than the backend's own.
const STATE: &str = "waystation sampling ";

/// What goes through the client, sealed, and comes back with its answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Held {
    /// The backend's own state.
    pub state: Option<String>,
    /// What models wrote for questions of the round.
    pub written: Vec<Wrote>,
    /// Texts that were asked for in the call, and the tokens they took.
    pub requests: u32,
    pub tokens: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Wrote {
    /// Of the question.
    pub key: String,
    /// A result, or an error in place of one.
    pub answer: Result<Value, Value>,
}

impl Held {
    /// Takes what is held out of what a client has given, and leaves there what is for the backend.
    pub fn opened(given: &mut Given) -> Self {
        let text = given.state.as_deref().and_then(|state| state.strip_prefix(STATE));
        let Some(mut held) = text.and_then(|text| serde_json::from_str::<Self>(text).ok()) else {
            return Self::default();
        };
        given.state = held.state.take();
        // What a client was not asked it does not answer.
        given.answers.retain(|(key, _)| !held.has(key));
        given.answers.extend(held.taken());
        held
    }

    /// The state that a client gets.
    pub fn sealable(&self) -> String {
        let text = serde_json::to_string(self).expect("texts and numbers can be written");
        format!("{STATE}{text}")
    }

    /// Is there an answer to this question?
    pub fn has(&self, key: &str) -> bool {
        self.written.iter().any(|wrote| wrote.key == key)
    }

    /// What models wrote, as a backend is given it.
    pub fn taken(&mut self) -> impl Iterator<Item = (String, Result<Bytes, Bytes>)> + use<> {
        let bytes = |value: Value| Bytes::from(value.to_string());
        let written = std::mem::take(&mut self.written).into_iter();
        written.map(move |Wrote { key, answer }| (key, answer.map(bytes).map_err(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_models_wrote_comes_back_beside_what_the_client_says() {
        let wrote = |key: &str, answer| Wrote { key: key.into(), answer };
        let held = Held {
            state: Some("the backend's".into()),
            written: vec![wrote("a", Ok(json!({ "model": "m" }))), wrote("b", Err(json!({ "code": -1 })))],
            requests: 2,
            tokens: 77,
        };
        let client = |key: &str| (key.to_owned(), Ok(Bytes::from_static(b"{\"forged\":true}")));
        let mut given = Given {
            state: Some(held.sealable()),
            answers: vec![client("a"), client("c")],
            ..Given::default()
        };
        let held = Held::opened(&mut given);
        assert_eq!((held.requests, held.tokens, held.written.len()), (2, 77, 0));
        assert_eq!(given.state.as_deref(), Some("the backend's"));
        let expected = [
            client("c"),
            ("a".into(), Ok("{\"model\":\"m\"}".into())),
            ("b".into(), Err("{\"code\":-1}".into())),
        ];
        assert_eq!(given.answers, expected);
    }

    #[test]
    fn a_state_of_the_backends_alone_stays() {
        let mut given = Given { state: Some("as it is".into()), ..Given::default() };
        assert_eq!(Held::opened(&mut given).requests, 0);
        assert_eq!(given.state.as_deref(), Some("as it is"));
    }
}
