//! What is wished of an answer, and whether it came so.

use serde_json::{Value, json};

use super::{Rig, answered, chat, code, refused};

fn person() -> Value {
    json!({
        "type": "object",
        "properties": { "name": { "type": "string" }, "age": { "type": "integer", "minimum": 0 } },
        "required": ["name", "age"],
        "additionalProperties": false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_held_against_its_schema() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    let format = json!({ "type": "json_schema", "name": "person", "schema": person() });
    let ask = async |answer: &str, format: &Value| {
        let asked = json!({ "message": format!("[[sim:json {answer}]]"), "response_format": format });
        answered(&chat(&gateway, asked).send().await)
    };
    let good = ask("{\"name\":\"Ada\",\"age\":36}", &format).await;
    assert_eq!(good["parsed"], json!({ "name": "Ada", "age": 36 }), "{good}");
    assert!(good.get("format_error").is_none(), "{good}");
    for (answer, says) in [
        ("{\"name\":\"Ada\",\"age\":\"36\"}", "at /age: "),
        ("{\"name\":\"Ada\"}", "\"age\" is a required property"),
        ("{\"name\":\"Ada\",\"age\":-1}", "at /age: "),
    ] {
        let bad = ask(answer, &format).await;
        assert!(bad.get("parsed").is_none(), "{bad}");
        assert!(bad["format_error"].as_str().unwrap().contains(says), "{bad}");
        assert_eq!(bad["status"], "completed", "the answer is given all the same");
    }
    let said = chat(&gateway, json!({ "message": "[[sim:say text=\"no JSON\"]]", "response_format": { "type": "json_object" } }));
    let text = answered(&said.send().await);
    assert!(text["format_error"].as_str().unwrap().contains("not JSON"), "{text}");

    let messages = json!([{ "role": "user", "content": "[[sim:json {\"name\":1,\"age\":2}]]" }]);
    let complete = json!({ "messages": messages, "response_format": format });
    let once = answered(&gateway.call("chat__complete", complete).send().await);
    assert!(once["format_error"].as_str().unwrap().contains("at /name"), "{once}");
    assert!(once.get("parsed").is_none(), "{once}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_none_is_refused_before_anything_is_sent() {
    let rig = Rig::new().await;
    let gateway = rig.gateway("").await;
    for (schema, says) in [
        (json!({ "type": "object", "properties": { "age": { "type": "integr" } } }), "/properties/age/type"),
        (json!({ "$ref": "http://192.0.2.1/schema.json" }), "leads to no part"),
        (json!({ "$ref": "#" }), "back to themselves"),
        (Value::Null, "schema is missing"),
    ] {
        let format = json!({ "type": "json_schema", "schema": schema });
        let answer = chat(&gateway, json!({ "message": "hello", "response_format": format })).send().await;
        assert_eq!(code(&answer), "invalid_input", "{schema}");
        let why = answer.result()["content"][0]["text"].to_string();
        assert!(why.contains("response_format.schema") && why.contains(says), "{why}");
        assert_eq!(refused(&answer)["retryable"], false);
    }
    assert!(rig.asked().is_empty(), "nothing was sent");
}
