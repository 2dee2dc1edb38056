//! A client on our standard input: a line in, a line out, and nothing else on the output.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{Front, pipe, replay::Stream};
use crate::{
    call::{Caller, Scope, Stage},
    error::Error,
    wire::{mcp::Era, message::one_line},
};

/// How long answers may take after the client has closed its end.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Serves one client until its input ends, and the answers to what it asked are written.
pub async fn serve<S, R, W>(front: &Front<S>, mut input: R, output: W, limit: usize) -> io::Result<()>
where
    S: Stage,
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let session = front.sessions.open(Caller::Local, Scope::All, Stream::pipe()).map_err(io::Error::other)?;
    let writer = tokio::spawn(write(Arc::clone(&session.own), output));
    let mut line = Vec::new();
    while read_line(&mut input, &mut line, limit).await? {
        session.touch();
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let refusal = if line.len() > limit {
            let what = "the line is longer than listen.body_limit allows";
            Some(Error::NotRpc { what, id: None })
        } else {
            pipe::receive(front, &session, Bytes::copy_from_slice(text)).err()
        };
        if let Some(error) = refusal {
            session.own.push(error.response(None, Era::Legacy).into());
        }
    }
    pipe::finish(&session, LAST_ANSWERS).await;
    front.sessions.close(&session.id);
    writer.await.map_err(io::Error::other)?
}

/// Reads a line; false at the end. Of a line that is too long, what is over the limit is
/// dropped, except for one byte that tells.
async fn read_line<R: AsyncBufRead + Unpin>(
    input: &mut R,
    line: &mut Vec<u8>,
    limit: usize,
) -> io::Result<bool> {
    line.clear();
    loop {
        let part = input.fill_buf().await?;
        if part.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = memchr::memchr(b'\n', part);
        let taken = end.unwrap_or(part.len());
        let room = (limit + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..taken.min(room)]);
        let used = end.map_or(part.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(stream: Arc<Stream>, mut output: W) -> io::Result<()> {
    let mut messages = stream.follow(None);
    while let Some((_, text)) = messages.next().await {
        output.write_all(&one_line(text)).await?;
        output.write_all(b"\n").await?;
        output.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_read_whole_and_long_ones_are_cut() {
        let mut input = &b"ab\n\nabcdefgh\nc"[..];
        let mut line = Vec::new();
        let mut seen = Vec::new();
        while read_line(&mut input, &mut line, 4).await.unwrap() {
            seen.push(String::from_utf8_lossy(&line).into_owned());
        }
        assert_eq!(seen, ["ab", "", "abcde", "c"]);
    }
}
