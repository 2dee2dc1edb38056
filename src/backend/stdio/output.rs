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

    /// Delivers all lines until there are no more. Safe to abort between lines only in that
    /// what was read and not delivered is lost.
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
        let text = self.stderr.clean(line, 200);
        self.noise += 1;
        if self.noise == 1 {
            tracing::warn!(
                backend = &*self.backend,
                "wrote what is no message to its standard output; more of it is not logged: {text}"
            );
        }
        if self.has_spoken
            && let Some(id) = self.mux.alone()
        {
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
