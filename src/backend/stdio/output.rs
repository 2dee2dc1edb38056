//! How does what a child writes become messages?
//!
//! One message a line. Servers that print something else there are common, a banner or a
//! forgotten debugging line, and clients have always let that pass, so it is counted and told
//! once. But a text that was meant for a message and is none must not leave a call waiting:
//! that call fails with what was wrong. Where the two cannot be told apart, silence afterwards
//! decides.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    time::{Instant, timeout_at},
};

use super::stderr::Stderr;
use crate::backend::{
    http::REPLY_LIMIT,
    mux::{self, Mux},
    transport::{Kind, Trouble},
};

/// The longest line taken, in bytes.
pub const LONGEST_LINE: usize = REPLY_LIMIT;

/// How much is read at once, where lines are short.
const CHUNK: usize = 64 << 10;

/// For how long a child that wrote something strange may be silent before the strange text
/// counts as its answer.
const SILENCE: Duration = Duration::from_secs(5);

/// How much is shown of what is no message, in bytes.
const SHOWN: usize = 200;

/// Why nothing more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The child closed its output, most often by its own end.
    Closed,
    LineTooLong,
}

/// Reads the output of one child.
#[derive(Debug)]
pub struct Output {
    backend: Arc<str>,
    mux: Arc<Mux>,
    stderr: Arc<Stderr>,
    /// Has a message come yet? What comes before is a banner.
    has_spoken: bool,
    noise: u64,
    suspicion: Option<Suspicion>,
}

/// Something strange came while one request waited.
#[derive(Debug)]
struct Suspicion {
    id: u64,
    text: String,
    due: Instant,
}

impl Output {
    pub fn new(backend: Arc<str>, mux: Arc<Mux>, stderr: Arc<Stderr>) -> Self {
        Self { backend, mux, stderr, has_spoken: false, noise: 0, suspicion: None }
    }

    /// Delivers every line as it ends, until no more come.
    pub async fn read(mut self, mut pipe: impl AsyncRead + Unpin) -> End {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        let mut looked_at = 0;
        loop {
            while let Some(end) = memchr::memchr(b'\n', &buffer[looked_at..]) {
                let line = buffer.split_to(looked_at + end + 1).freeze();
                looked_at = 0;
                if line.len() > LONGEST_LINE {
                    return End::LineTooLong;
                }
                self.take(&line);
            }
            looked_at = buffer.len();
            if looked_at > LONGEST_LINE {
                return End::LineTooLong;
            }
            buffer.reserve(CHUNK);
            let read = pipe.read_buf(&mut buffer);
            let read = match &self.suspicion {
                None => read.await,
                Some(suspicion) => match timeout_at(suspicion.due, read).await {
                    Ok(read) => read,
                    Err(_) => {
                        self.conclude();
                        continue;
                    }
                },
            };
            // A line without its end may be half a message, so it is none.
            if !matches!(read, Ok(1..)) {
                tracing::debug!(backend = &*self.backend, noise = self.noise, "stdout: ended");
                return End::Closed;
            }
        }
    }

    fn take(&mut self, line: &Bytes) {
        let line = line.slice_ref(line.trim_ascii());
        if line.is_empty() {
            return;
        }
        match self.mux.deliver(line.clone()) {
            Ok(()) => {
                self.has_spoken = true;
                self.suspicion = None;
            }
            Err(malformed) => {
                let id = mux::meant_for(&line);
                if id.is_some() || resembles_message(&line) {
                    self.mux.reject(id, &mux::rubbish(malformed));
                } else {
                    self.hear_noise(&line);
                }
            }
        }
    }

    fn hear_noise(&mut self, line: &[u8]) {
        self.noise += 1;
        if self.noise == 1 {
            let text = self.stderr.clean(line, SHOWN);
            tracing::warn!(
                backend = &*self.backend,
                "wrote what is no message to its standard output; more of it is not logged: {text}"
            );
        }
        if self.has_spoken
            && let Some(id) = self.mux.alone()
        {
            let text = self.stderr.clean(line, SHOWN);
            self.suspicion = Some(Suspicion { id, text, due: Instant::now() + SILENCE });
        }
    }

    fn conclude(&mut self) {
        let Some(Suspicion { id, text, .. }) = self.suspicion.take() else { return };
        let why = format!(
            "what it sent is no message, and nothing came in the {} s since: {text}",
            SILENCE.as_secs()
        );
        self.mux.reject(Some(id), &Trouble::new(Kind::Rubbish, why));
    }
}

/// Was this meant for a message? Log lines in JSON, too, begin with a brace.
fn resembles_message(line: &[u8]) -> bool {
    let object = line.strip_prefix(b"[").map_or(line, <[u8]>::trim_ascii_start);
    object.starts_with(b"{") && memchr::memmem::find(object, b"\"jsonrpc\"").is_some()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncWriteExt as _, DuplexStream, duplex},
        task::JoinHandle,
    };

    use super::*;
    use crate::backend::{mux::Habit, stdio::stderr::in_pieces, transport::Incoming};
    use crate::wire::mcp::Method;

    /// A child's end of the pipe, and ours.
    fn open() -> (DuplexStream, Arc<Mux>, JoinHandle<End>) {
        let (child, ours) = duplex(1 << 20);
        let mux = Mux::new(Arc::new(|_| {}), Habit::default());
        let stderr = Stderr::new("b".into(), in_pieces(["hush"].into_iter()));
        let output = Output::new("b".into(), Arc::clone(&mux), stderr);
        (child, mux, tokio::spawn(output.read(ours)))
    }

    /// What the request 1 gets when the child writes these lines, a second apart.
    async fn answer(lines: &[&str]) -> Result<String, String> {
        let (mut child, mux, _reader) = open();
        let ticket = mux.register(1, Method::Ping, None).unwrap();
        let lines: Vec<_> = lines.iter().map(|line| format!("{line}\n")).collect();
        tokio::spawn(async move {
            for line in lines {
                child.write_all(line.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
        });
        let answer = tokio::time::timeout(Duration::from_secs(60), ticket.incoming()).await;
        match answer.map_err(|_| "nothing".to_owned())?.map_err(|trouble| trouble.why)? {
            Incoming::Whole(message) => Ok(String::from_utf8(message.result().unwrap().to_vec()).unwrap()),
            Incoming::Stream(_) => panic!("there is no progress here"),
        }
    }

    const CHANGED: &str = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;

    #[tokio::test(start_paused = true)]
    async fn what_is_printed_among_the_messages_does_no_harm() {
        for noise in ["Server started", "[INFO] ready", r#"{"level":30,"msg":"hi"}"#, "\u{1b}[1mhi", "\r"] {
            assert_eq!(answer(&[noise, ANSWER]).await.unwrap(), "{}", "{noise}");
            assert_eq!(answer(&[CHANGED, noise, noise, ANSWER]).await.unwrap(), "{}", "{noise}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_banner_is_no_answer_however_long_the_server_takes() {
        assert_eq!(answer(&["Server started"]).await.unwrap_err(), "nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn what_resembles_a_message_and_is_none_is_an_error_at_once() {
        for (line, why) in [
            (r#"{"jsonrpc":"2.0","id":1,"result":{}"#, "too early"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}"#, "twice"),
            (r#"{"jsonrpc":"2.0","id":1}"#, "`method` is missing"),
            (r#"{"id":1,"result":{}}"#, "`jsonrpc` must be"),
            (r#"[{"jsonrpc":"2.0","id":1]"#, "at byte 24"),
        ] {
            let wrong = answer(&[line]).await.unwrap_err();
            assert!(
                wrong.starts_with("what it sent is not a JSON") && wrong.contains(why),
                "{line}: {wrong}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_after_something_strange_makes_it_the_answer() {
        let wrong = answer(&[CHANGED, "Error: hush"]).await.unwrap_err();
        assert_eq!(wrong, "what it sent is no message, and nothing came in the 5 s since: Error: …");
    }

    #[tokio::test]
    async fn only_the_request_that_a_malformed_answer_names_fails() {
        let (mut child, mux, _reader) = open();
        let (first, second) =
            (mux.register(1, Method::Ping, None).unwrap(), mux.register(2, Method::Ping, None).unwrap());
        child.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{\"a\":{},\"a\":1}}\n").await.unwrap();
        assert!(second.incoming().await.is_err());
        child.write_all(ANSWER.as_bytes()).await.unwrap();
        child.write_all(b"\n").await.unwrap();
        assert!(first.incoming().await.is_ok());
    }

    #[tokio::test]
    async fn lines_may_come_in_any_pieces_up_to_their_bound() {
        let (mut child, mux, reader) = open();
        let ticket = mux.register(1, Method::Ping, None).unwrap();
        for byte in ANSWER.bytes().chain(*b"\r\n") {
            child.write_all(&[byte]).await.unwrap();
        }
        assert!(matches!(ticket.incoming().await, Ok(Incoming::Whole(_))));
        let longest = format!("{}{ANSWER}\n", " ".repeat(LONGEST_LINE - ANSWER.len() - 1));
        let ticket = mux.register(1, Method::Ping, None).unwrap();
        child.write_all(longest.as_bytes()).await.unwrap();
        assert!(matches!(ticket.incoming().await, Ok(Incoming::Whole(_))));
        let _ = child.write_all(&vec![b'x'; LONGEST_LINE + 1]).await;
        assert_eq!(reader.await.unwrap(), End::LineTooLong);
    }

    #[tokio::test]
    async fn a_line_that_is_cut_off_is_none() {
        let (mut child, mux, reader) = open();
        let ticket = mux.register(1, Method::Ping, None).unwrap();
        child.write_all(ANSWER.as_bytes()).await.unwrap();
        drop(child);
        assert_eq!(reader.await.unwrap(), End::Closed);
        mux.end(Trouble::new(Kind::Lost, "gone"));
        assert_eq!(ticket.incoming().await.err().unwrap().why, "gone");
    }
}
