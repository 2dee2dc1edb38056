//! How is JSON read that people edit, with comments and commas too many?
//!
//! VS Code writes such files. What JSON does not have is overwritten with blanks, so that the
//! places in the rest stay what they are.

/// The text as JSON, of the same length.
pub fn plain(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    if bytes.starts_with("\u{feff}".as_bytes()) {
        bytes[..3].fill(b' ');
    }
    let mut at = 0;
    let mut comma = None;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = end_of_text(&bytes, at);
                comma = None;
            }
            b'/' if bytes[at..].starts_with(b"//") => at = wipe(&mut bytes, at, b"\n"),
            b'/' if bytes[at..].starts_with(b"/*") => at = wipe(&mut bytes, at, b"*/"),
            b',' => {
                comma = Some(at);
                at += 1;
            }
            b'}' | b']' => {
                if let Some(comma) = comma.take() {
                    bytes[comma] = b' ';
                }
                at += 1;
            }
            byte => {
                if !byte.is_ascii_whitespace() {
                    comma = None;
                }
                at += 1;
            }
        }
    }
    String::from_utf8(bytes).expect("only whole comments and ASCII letters were overwritten")
}

/// The byte after the closing quote, or the text's end.
fn end_of_text(bytes: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Blanks from here to the end of the comment; line ends stay, for the sake of line numbers.
fn wipe(bytes: &mut [u8], from: usize, end: &[u8]) -> usize {
    let body = &bytes[from + 2..];
    let length = body.windows(end.len()).position(|window| window == end);
    let to = length.map_or(bytes.len(), |length| from + 2 + length + end.len());
    for byte in &mut bytes[from..to] {
        if *byte != b'\n' && *byte != b'\r' {
            *byte = b' ';
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn comments_and_last_commas_are_passed_over() {
        let text = "\u{feff}// head\n{ /* a, b */ \"url\": \"http://x//y\", // tail\n \"list\": [1, 2, ],\n}";
        assert_eq!(
            serde_json::from_str::<Value>(&plain(text)).unwrap(),
            json!({"url": "http://x//y", "list": [1, 2]})
        );
    }

    #[test]
    fn what_stands_in_a_text_stays() {
        let text = r#"{"a": "\\\" , } // no", "b": "/* no */"}"#;
        assert_eq!(plain(text), text);
    }

    proptest! {
        #[test]
        fn the_length_stays_and_so_do_the_lines(text in "[ \n\"\\\\/*,}\\]a\u{e9}]{0,40}") {
            let plain = plain(&text);
            prop_assert_eq!(plain.len(), text.len());
            prop_assert_eq!(plain.matches('\n').count(), text.matches('\n').count());
        }
    }
}
