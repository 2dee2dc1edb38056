//! Reads the two lists of hostile JSON beside this file; each says in its head how a case is written.
//!
//! It knows what bytes a case stands for, not what is to be done with them.

/// The `_meta` that `<meta>` stands for.
const META: &[u8] = br#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

/// One text of JSONTestSuite.
#[derive(Debug, Clone)]
pub struct Text {
    pub name: &'static str,
    pub bytes: Vec<u8>,
}

/// One body that is no MCP message.
#[derive(Debug, Clone)]
pub struct Shape {
    pub name: &'static str,
    /// The JSON-RPC code of the refusal.
    pub code: i64,
    pub body: Vec<u8>,
}

/// One request whose headers and body agree, or do not.
#[derive(Debug, Clone)]
pub struct Agreement {
    pub name: &'static str,
    /// The tool that is carried out, or status and code of the refusal.
    pub verdict: Result<&'static str, (u16, i64)>,
    pub headers: Vec<Change>,
    pub body: Vec<u8>,
}

/// What is unlike the usual headers.
#[derive(Debug, Clone)]
pub enum Change {
    Set(&'static str, Vec<u8>),
    Add(&'static str, Vec<u8>),
    Remove(&'static str),
}

/// All requests of `agreement.tsv`, in its order.
pub fn agreements() -> Vec<Agreement> {
    rows(include_str!("agreement.tsv")).map(|(name, rest)| agreement(name, rest)).collect()
}

fn agreement(name: &'static str, rest: &'static str) -> Agreement {
    let cells: Vec<&str> = rest.split('\t').collect();
    let [verdict, headers, body] = cells[..] else { panic!("{name} has {} cells", cells.len()) };
    let code = |(status, code): (&str, &str)| Some((status.parse().ok()?, code.parse().ok()?));
    let verdict = verdict.split_once(' ').and_then(code).map_or(Ok(verdict), Err);
    let change = |change: &'static str| {
        let parts =
            || change.split_once(": ").or_else(|| change.split_once(':')).expect("a name and a value");
        match change.as_bytes()[0] {
            b'-' => Change::Remove(&change[1..]),
            b'+' => Change::Add(&parts().0[1..], spelt_as_text(parts().1)),
            _ => Change::Set(parts().0, spelt_as_text(parts().1)),
        }
    };
    let headers = headers.split(" | ").filter(|change| *change != "-").map(change).collect();
    let body = match body {
        "-" => call_of("\"name\":\"safe\",\"arguments\":{}"),
        whole if whole.starts_with(['{', '<']) => spelt_as_text(whole),
        params => call_of(params),
    };
    Agreement { name, verdict, headers, body }
}

/// A `tools/call` with this in its `params` after the `_meta`.
fn call_of(params: &str) -> Vec<u8> {
    let head = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":<meta>,"#;
    spelt_as_text(&format!("{head}{params}}}}}"))
}

/// All 318 texts of JSONTestSuite, by name.
pub fn corpus() -> Vec<Text> {
    let text = |(name, bytes): (&'static str, &str)| Text { name, bytes: spelt_in_hex(bytes) };
    rows(include_str!("corpus.tsv")).map(text).collect()
}

/// Those of them that the first letter of the name chooses: `n` must be refused, `y` taken, `i` is open.
pub fn corpus_of(verdict: char) -> Vec<Text> {
    corpus().into_iter().filter(|text| text.name.starts_with(verdict)).collect()
}

/// All bodies of `mcp-shapes.tsv`, in its order.
pub fn shapes() -> Vec<Shape> {
    let shape = |(name, rest): (&'static str, &str)| {
        let (code, body) = rest.split_once('\t').expect("a code and a body");
        Shape { name, code: code.parse().expect("a code is a number"), body: spelt_as_text(body) }
    };
    rows(include_str!("mcp-shapes.tsv")).map(shape).collect()
}

/// Name and remainder of each line that is a case.
fn rows(table: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let cases = table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    cases.map(|line| line.split_once('\t').expect("a name, then a tab"))
}

/// `-`, or parts joined by `+`: `5b5d`, `repeat:1000:5b`.
fn spelt_in_hex(cell: &str) -> Vec<u8> {
    if cell == "-" {
        return Vec::new();
    }
    let part = |part: &str| match part.strip_prefix("repeat:").and_then(|rest| rest.split_once(':')) {
        Some((times, hex)) => unhex(hex).repeat(times.parse().expect("a count")),
        None => unhex(part),
    };
    cell.split('+').flat_map(part).collect()
}

/// The text as it is, but for `<meta>`, `<bytes efbbbf>` and `<62 of [>`.
fn spelt_as_text(cell: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = cell;
    while let Some((before, after)) = rest.split_once('<') {
        let (mark, after) = after.split_once('>').expect("a mark ends");
        bytes.extend_from_slice(before.as_bytes());
        bytes.extend(meaning_of(mark));
        rest = after;
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

fn meaning_of(mark: &str) -> Vec<u8> {
    if mark == "meta" {
        return META.to_vec();
    }
    if let Some(hex) = mark.strip_prefix("bytes ") {
        return unhex(hex);
    }
    let (times, copy) = mark.split_once(" of ").expect("a known mark");
    let times: usize = times.parse().expect("a count");
    if !copy.contains('#') {
        return copy.repeat(times).into_bytes();
    }
    let numbered = (0..times).map(|number| copy.replace('#', &number.to_string()));
    numbered.collect::<String>().into_bytes()
}

fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "half a byte in {digits:?}");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}
