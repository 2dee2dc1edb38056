//! An MCP server over stdio that says which tool it carried out, read as serde reads JSON into structs.

use std::io::BufRead;

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Message {
    id: Option<Value>,
    method: String,
    #[serde(default)]
    params: Params,
}

#[derive(Default, Deserialize)]
struct Params {
    name: Option<String>,
    #[serde(rename = "protocolVersion")]
    protocol_version: Option<String>,
}

fn answer(message: &Message, tools: &Value) -> Value {
    match message.method.as_str() {
        "initialize" => json!({
            "protocolVersion": message.params.protocol_version,
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "reader", "version": "1" },
        }),
        "tools/list" => json!({ "tools": tools }),
        "tools/call" => json!({ "content": [{ "type": "text", "text": message.params.name }] }),
        _ => json!({}),
    }
}

fn main() {
    let file = std::env::args().nth(1).expect("a file with the tools");
    let tools: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for line in std::io::stdin().lock().lines() {
        let message: Message = serde_json::from_str(&line.unwrap()).unwrap();
        if let Some(id) = &message.id {
            println!("{}", json!({ "jsonrpc": "2.0", "id": id, "result": answer(&message, &tools) }));
        }
    }
}
