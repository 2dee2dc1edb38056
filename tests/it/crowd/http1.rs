//! HTTP/1.1 as the batteries need it: both sides of a connection, lengths and chunks, no more.

use std::{io, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One side of a connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    input: BytesMut,
}

/// The head of a message, and how much of its body is still to come.
#[derive(Debug)]
pub struct Head {
    text: Bytes,
    left: Left,
}

#[derive(Debug, PartialEq, Eq)]
enum Left {
    Bytes(usize),
    Chunks,
    Nothing,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        TcpStream::connect(address).await.map(Self::of)
    }

    pub fn of(stream: TcpStream) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, input: BytesMut::with_capacity(4096) }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Waits until the other side has gone.
    pub async fn closed(&mut self) {
        while self.more().await.is_ok() {}
    }

    async fn line_end(&mut self, end: &[u8]) -> io::Result<usize> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.input, end) {
                return Ok(at);
            }
            self.more().await?;
        }
    }

    pub async fn head(&mut self) -> io::Result<Head> {
        let end = self.line_end(b"\r\n\r\n").await?;
        let text = self.input.split_to(end + 4).freeze();
        let mut head = Head { text, left: Left::Nothing };
        if head.header("transfer-encoding").is_some() {
            head.left = Left::Chunks;
        } else if let Some(length) = head.header("content-length").and_then(|text| text.parse().ok())
            && length > 0
        {
            head.left = Left::Bytes(length);
        }
        Ok(head)
    }

    /// The next piece of a body; none at its end.
    pub async fn piece(&mut self, head: &mut Head) -> io::Result<Option<Bytes>> {
        let length = match head.left {
            Left::Nothing => return Ok(None),
            Left::Bytes(length) => {
                head.left = Left::Nothing;
                length
            }
            Left::Chunks => {
                let end = self.line_end(b"\r\n").await?;
                let line = self.input.split_to(end + 2);
                let size = std::str::from_utf8(&line[..end]).ok();
                size.and_then(|size| usize::from_str_radix(size, 16).ok())
                    .ok_or(io::ErrorKind::InvalidData)?
            }
        };
        let framing = if head.left == Left::Chunks { 2 } else { 0 };
        while self.input.len() < length + framing {
            self.more().await?;
        }
        let data = self.input.split_to(length).freeze();
        drop(self.input.split_to(framing));
        if length == 0 {
            head.left = Left::Nothing;
            return Ok(None);
        }
        Ok(Some(data))
    }

    pub async fn body(&mut self, head: &mut Head) -> io::Result<Bytes> {
        let Some(first) = self.piece(head).await? else { return Ok(Bytes::new()) };
        let mut all = BytesMut::new();
        while let Some(piece) = self.piece(head).await? {
            if all.is_empty() {
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&piece);
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }
}

impl Head {
    /// The line of a request or a status.
    pub fn line(&self) -> &str {
        std::str::from_utf8(&self.text).ok().and_then(|text| text.lines().next()).unwrap_or_default()
    }

    pub fn status(&self) -> u16 {
        self.line().split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }

    /// A header by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.text).ok()?;
        let mut lines = text.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

pub fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}
