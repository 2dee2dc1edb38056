//! What does a conversation at the command line look like, and what of it stays?

use std::{
    fs,
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Gateway, Reply, ends_with, result, text, waystation};

/// A folder with a configuration whose models a simulator plays, and with what is kept.
fn at_home() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let listen = "[listen]\naddress = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n";
    let backend = "[backends.chat]\nopenrouter = {}\n[store]\npath = \"state.db\"\n";
    fs::write(folder.path().join("routes.toml"), format!("{listen}{backend}")).unwrap();
    folder
}

fn chat(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = waystation();
    command.current_dir(folder).arg("chat").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A command with this on its standard input.
fn said(folder: &Path, arguments: &[&str], lines: &str) -> Output {
    let mut child = chat(folder, arguments).spawn().unwrap();
    // One that ends early reads nothing.
    let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn one_message_for_a_script_gives_the_answer_and_nothing_else() {
    let folder = at_home();
    let output = said(folder.path(), &["--once", "hello"], "");
    ends_with(&output, 0, "");
    let answer = text(&output.stdout);
    assert!(answer.starts_with("[acme/atlas-70b] turn 1: hello (#") && answer.ends_with(")\n"), "{answer}");
    let output = said(folder.path(), &["--last", "--once", "-"], "and\nagain\n");
    ends_with(&output, 0, "turn 2: and");

    let output = said(folder.path(), &["--once", "[[sim:midstream after=5]]"], "");
    ends_with(&output, 1, "note: the answer is incomplete: ");
    assert!(!output.stdout.is_empty(), "what came of it is printed");
    let output = said(folder.path(), &["--once", "-"], " \n");
    ends_with(&output, 1, "there is no message");
}

#[test]
fn lines_are_messages_and_commands() {
    let folder = at_home();
    let lines = "hello\\\nworld\n/model acme/atlas-8b\nagain\n/fork\n/list\n//etc\n/new\n[[sim:system]]\n";
    let output = said(folder.path(), &["--system", "Be brief."], lines);
    ends_with(&output, 0, "");
    let (answers, told) = (text(&output.stdout), text(&output.stderr));
    let answers: Vec<_> = answers.lines().collect();
    for (answer, begins) in answers.iter().zip([
        "[acme/atlas-70b] turn 1: hello",
        "world (#",
        "[acme/atlas-8b] turn 2: again (#",
        "[acme/atlas-8b] turn 3: /etc (#",
        "Be brief.",
    ]) {
        assert!(answer.starts_with(begins), "{begins:?}: {answers:?}");
    }
    assert_eq!(answers.len(), 5, "{answers:?}");
    for words in ["tokens read, ", " written · $0", " · simulated", "This goes on in cnv_", "used (UTC)"] {
        assert!(told.contains(words), "{words:?} is not in: {told}");
    }
    let left = told.lines().last().unwrap();
    let id = left.strip_prefix("To go on: waystation chat --resume ").expect(left);

    let output = said(folder.path(), &["--resume", id], "/quit\nnever said\n");
    ends_with(&output, 0, "> [[sim:system]]\nBe brief.");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn an_interrupted_answer_ends_and_what_was_written_of_it_stays() {
    let folder = at_home();
    let mut child = chat(folder.path(), &[]).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"one [[sim:words n=5000]] [[sim:slow-tokens ms=50]]\n").unwrap();
    let mut answers = child.stdout.take().unwrap();
    let mut begun = [0; 1];
    answers.read_exact(&mut begun).expect("an answer begins");
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    input.write_all(b"two [[sim:recall]]\n").unwrap();
    drop(input);
    let mut rest = String::new();
    answers.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    ends_with(&output, 0, "Cancelled. What was written of the answer is kept.");
    // The model was told of both messages, since the first one has an answer.
    assert!(rest.contains("one ") && rest.contains("\ntwo "), "{rest}");
    let output = said(folder.path(), &["--last"], "");
    let told = text(&output.stderr);
    assert!(told.contains("(4 messages, cnv_"), "{told}");
}

#[test]
fn a_file_goes_with_the_first_message() {
    let folder = at_home();
    fs::write(folder.path().join("notes.txt"), "remember the milk").unwrap();
    let output = said(folder.path(), &["--attach", "notes.txt", "--once", "what is in it?"], "");
    ends_with(&output, 0, "turn 1: ");
    let output = said(folder.path(), &["--attach", "away.txt", "--once", "?"], "");
    ends_with(&output, 1, "error: away.txt cannot be attached: ");
}

#[test]
fn what_goes_wrong_is_told_and_the_conversation_goes_on() {
    let folder = at_home();
    let output = said(folder.path(), &[], "[[sim:402]]\n/retyr\nstill there?\n");
    ends_with(&output, 1, "error: payment_required: ");
    ends_with(&output, 1, "did you mean `retry`?");
    ends_with(&output, 1, ": still there? (#");
    let output = said(folder.path(), &["--model", "acme/atlas-70", "--once", "?"], "");
    ends_with(&output, 1, "error: model_not_found: ");
    let output = said(folder.path(), &["--resume", "cnv_0000000000000000000000", "--once", "?"], "");
    ends_with(&output, 1, "error: conversation_not_found: ");
    let output = said(folder.path(), &["--backend", "other"], "");
    ends_with(&output, 1, "no backend \"other\" keeps conversations; these do: chat");
    ends_with(&said(at_home().path(), &["--last"], ""), 1, "error: there is no conversation yet; ");
}

#[test]
fn nothing_that_is_said_of_an_answer_moves_the_cursor() {
    let tools =
        ["mine__chat", "mine__conversation_get"].map(|name| json!({ "name": name, "inputSchema": {} }));
    let structured = json!({ "status": "completed", "text": "hi", "conversation_id": "cnv_1",
        "model_used": "a\u{1b}[2Jb", "usage": { "prompt_tokens": 1, "completion_tokens": 2,
        "cost_usd": "0.5", "source": "estimated" }, "warnings": ["w\u{1b}]0;title\u{7}"] });
    let gateway = Gateway::start(move |seen| match seen.body["method"].as_str() {
        Some("tools/list") => result(json!({ "tools": tools })),
        _ => {
            let about = json!({ "io.waystation/chat": { "kind": "delta" } });
            let delta = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": {
                "progressToken": 1, "progress": 1, "message": "hi", "_meta": about } });
            let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": {
                "content": [{ "type": "text", "text": "hi" }], "structuredContent": structured } });
            Reply::Events(vec![delta, answer])
        }
    });
    let url = format!("http://{}/mcp", gateway.address);
    let folder = tempfile::tempdir().unwrap();
    let output = said(folder.path(), &["--url", &url], "hello\n");
    assert_eq!(text(&output.stdout), "hi\n", "what came as progress is not said again");
    let told = text(&output.stderr);
    assert!(told.contains("w]0;title\na[2Jb · 1 tokens read, 2 written · about $0.5\n"), "{told:?}");
    assert!(!told.contains('\u{1b}'), "{told:?}");
    let asked: Value = gateway.seen("tools/call").remove(0).body["params"]["arguments"].clone();
    assert_eq!(asked, json!({ "message": "hello" }));
}
