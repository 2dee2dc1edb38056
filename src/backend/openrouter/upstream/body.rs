//! How is a body read so that it can take neither all time nor all memory?

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use reqwest::Response;
use serde_json::Value;
use tokio::time::Instant;

use super::{
    Timers,
    assembly::Assembly,
    completion::Completion,
    event::{Event, Sink, Status},
    failure::{Code, Failure, Phase},
    refusal,
};
use crate::wire::sse::Decoder;

/// How long is waited for what follows the model's last word. It tells what was used, and the answer is
/// whole without.
const TAIL: Duration = Duration::from_secs(10);
/// How often it is told that the upstream is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// A body that is being read.
pub struct Body {
    response: Response,
    /// How many more bytes are taken.
    left: usize,
    timers: Timers,
    opened: Instant,
    deadline: Instant,
}

impl Body {
    pub fn new(response: Response, limit: usize, timers: Timers, deadline: Instant) -> Self {
        Self { response, left: limit, timers, opened: Instant::now(), deadline }
    }

    /// The next piece; none at the end.
    async fn next(&mut self, first_token: Option<Instant>) -> Result<Option<Bytes>, Failure> {
        let (idle, silence) = (Instant::now() + self.timers.idle, "the answer stopped coming");
        let first = first_token.map(|due| (due, "the model said nothing in time"));
        let all = [Some((self.deadline, "the answer was not there in time")), first, Some((idle, silence))];
        let (due, late) = all.into_iter().flatten().min_by_key(|(due, _)| *due).unwrap_or((idle, silence));
        let piece = match tokio::time::timeout_at(due, self.response.chunk()).await {
            Ok(Ok(piece)) => piece,
            Ok(Err(why)) => {
                tracing::debug!(%why, "a body broke off");
                let why = "the connection broke in the middle of the answer";
                return Err(Failure::new(Code::UpstreamUnavailable, Phase::Answering, why));
            }
            Err(_) => return Err(Failure::new(Code::UpstreamTimeout, Phase::Answering, late)),
        };
        if let Some(piece) = &piece {
            let left = self.left.checked_sub(piece.len());
            self.left = left.ok_or_else(|| {
                Failure::new(Code::UpstreamProtocol, Phase::Answering, "the answer is larger than is taken")
            })?;
        }
        Ok(piece)
    }

    /// All of it.
    pub async fn bytes(mut self) -> Result<Bytes, Failure> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.next(None).await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// All of it, which is JSON.
    pub async fn json(self) -> Result<Value, Failure> {
        let text = self.bytes().await?;
        serde_json::from_slice(&text)
            .map_err(|_| Failure::new(Code::UpstreamProtocol, Phase::Answering, "the answer is not JSON"))
    }

    /// An answer that was not streamed though it should have been, or an error in place of one.
    pub async fn whole(self, mut assembly: Assembly, sink: Sink<'_>) -> Result<Completion, Box<Failure>> {
        let answer = self.json().await?;
        // Also one without choices is an error then.
        if let Some(failure) = refusal::read(&answer, None, &http::HeaderMap::new(), Phase::Answering) {
            return Err(Box::new(failure));
        }
        assembly.chunk(&answer, sink)?;
        if !assembly.is_finished() && !assembly.has_content() {
            let why = "the answer has no choices";
            return Err(Box::new(Failure::new(Code::UpstreamProtocol, Phase::Answering, why)));
        }
        assembly.end()
    }

    /// An answer as a stream of events.
    pub async fn events(
        mut self,
        mut assembly: Assembly,
        max_event: usize,
        sink: Sink<'_>,
    ) -> Result<Completion, Box<Failure>> {
        let mut decoder = Decoder::new(max_event);
        let first_token = self.opened + self.timers.first_token;
        let mut last_sign: Option<Instant> = None;
        let mut finished = false;
        while !assembly.is_done() {
            if assembly.is_finished() && !std::mem::replace(&mut finished, true) {
                self.deadline = self.deadline.min(Instant::now() + TAIL);
            }
            let silent = !assembly.has_content() && !finished;
            let piece = match self.next(silent.then_some(first_token)).await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                // Its end is known, whatever the connection did then.
                Err(_) if finished => break,
                Err(failure) => return Err(assembly.broken(failure)),
            };
            if !feed(&mut decoder, &piece, &mut assembly, sink)?
                && last_sign.is_none_or(|last| last.elapsed() >= SIGN_OF_LIFE)
            {
                last_sign = Some(Instant::now());
                sink(Event::Status(Status::Working));
            }
        }
        // A connection whose body was read to its end can be used again.
        while let Some(Ok(Some(_))) = self.response.chunk().now_or_never() {}
        assembly.end()
    }
}

/// Takes bytes, and says whether they ended an event. Line by line, so that what stands before a
/// broken line is not lost with it, however the bytes are cut.
pub fn feed(
    decoder: &mut Decoder,
    bytes: &[u8],
    assembly: &mut Assembly,
    sink: Sink<'_>,
) -> Result<bool, Box<Failure>> {
    let mut ended = false;
    for line in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
        let events = decoder.push(line).map_err(|why| {
            let why = format!("a piece of the answer is too large: {why}");
            assembly.broken(Failure::new(Code::UpstreamProtocol, Phase::Answering, why))
        })?;
        for event in events {
            ended = true;
            assembly.take(&event.data, sink)?;
        }
    }
    Ok(ended)
}
