//! Is an event of the log one line, whatever is in it?

use std::sync::{Arc, Mutex};

use serde_json::Value;
use waystation::telemetry::{Format, Settings, subscriber};

use crate::support::battery::{Battery, is_weakened};

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What is written of one event.
fn written(format: Format, event: impl FnOnce()) -> String {
    let out = Written::default();
    let settings = Settings { level: "trace".into(), format };
    let to = out.clone();
    tracing::subscriber::with_default(subscriber(&settings, move || to.clone(), false), event);
    let bytes = out.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

/// Letters that end a line somewhere, or change how one is read.
const IN_TEXT: [(&str, &str); 14] = [
    ("lf", "\n"),
    ("crlf", "\r\n"),
    ("cr", "\r"),
    ("lf-and-a-forged-line", "\n2026-01-01T00:00:00Z ERROR forged"),
    ("vertical-tab", "\u{b}"),
    ("null", "\0"),
    ("unit-separator", "\u{1f}"),
    ("line-separator", "\u{2028}"),
    ("paragraph-separator", "\u{2029}"),
    ("right-to-left-override", "\u{202e}"),
    ("left-to-right-embedding", "\u{202a}"),
    ("pop-direction", "\u{202c}"),
    ("isolate", "\u{2066}"),
    ("pop-isolate", "\u{2069}"),
];

/// Of those, the ones that JSON lets stand as they are, and more of them.
const IN_JSON: [(&str, &str); 11] = [
    ("delete", "\u{7f}"),
    ("next-line", "\u{85}"),
    ("csi", "\u{9b}2J"),
    ("osc", "\u{9d}0;x"),
    ("line-separator", "\u{2028}"),
    ("paragraph-separator", "\u{2029}"),
    ("right-to-left-override", "\u{202e}"),
    ("left-to-right-embedding", "\u{202a}"),
    ("pop-direction", "\u{202c}"),
    ("isolate", "\u{2066}"),
    ("pop-isolate", "\u{2069}"),
];

/// Does it end its line itself, hold no letter that acts, and still say all?
fn is_one_line(text: &str) -> bool {
    let acts = |c: char| c.is_control() && c != '\t';
    let turns = |c: char| matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let Some(line) = text.strip_suffix('\n') else { return false };
    !line.contains(|c| acts(c) || turns(c)) && line.contains("before") && line.contains("after")
}

#[test]
fn an_event_is_one_line_whatever_is_in_it() {
    let battery = Battery::new("T16-lines");
    for (name, letter) in IN_TEXT {
        let text = format!("before{letter}after");
        let seen = written(Format::Text, || tracing::warn!("{text}"));
        battery.row(format!("text-message-{name}"), is_one_line(&seen), &seen);
        let seen = written(Format::Text, || tracing::warn!(why = %text, "a field"));
        battery.row(format!("text-field-{name}"), is_one_line(&seen), &seen);
    }
    for (name, letter) in IN_JSON {
        let text = format!("before{letter}after");
        let seen = written(Format::Json, || tracing::warn!("{text}"));
        let message = |line: &str| serde_json::from_str::<Value>(line).unwrap()["fields"]["message"] == *text;
        battery.row(format!("json-message-{name}"), is_one_line(&seen) && message(&seen), &seen);
        let seen = written(Format::Json, || tracing::warn!(why = %text, "a field"));
        let field = |line: &str| serde_json::from_str::<Value>(line).unwrap()["fields"]["why"] == *text;
        battery.row(format!("json-field-{name}"), is_one_line(&seen) && field(&seen), &seen);
    }
    battery.end(50);
    // A terminal is given nothing but colours, and colours of a stranger's hide nothing. In
    // messages the library takes care of that itself.
    if is_weakened() {
        return;
    }
    for letter in ["\u{1b}[31m", "\u{7}", "\u{8}", "\u{7f}", "\u{9b}2J"] {
        let text = format!("before{letter}after");
        let seen = written(Format::Text, || tracing::warn!(why = %text, text, "{text}"));
        assert!(is_one_line(&seen), "{seen:?}");
    }
}
