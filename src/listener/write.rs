//! What does an answer look like to the client that asked?

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::{
    call::Answer,
    error::{Error, Result},
    wire::{
        json::Limits,
        mcp::{Era, INTRODUCTION, Method, Revision, code},
        message::{LONG, Message},
        older,
        project::{self, Reader},
    },
};

/// Who asked, and what for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The id as the client wrote it.
    pub id: Bytes,
    pub method: Method,
    pub revision: Revision,
}

impl Asked {
    fn era(&self) -> Era {
        self.revision.era()
    }

    fn reader(&self, wrapped: bool) -> Reader<'_> {
        Reader {
            revision: self.revision,
            id: &self.id,
            server_info: INTRODUCTION,
            method: self.method,
            wrapped,
        }
    }

    /// A long result in pieces that follow one another, so that it need not be copied.
    pub fn pieces(&self, answer: &Answer) -> Option<Vec<Bytes>> {
        match answer {
            Answer::Response { message, written_in, wrapped }
                if message.text().len() > LONG && message.result().is_some() =>
            {
                Some(project::response_in_pieces(message, *written_in, &self.reader(*wrapped)))
            }
            _ => None,
        }
    }

    /// The response, and the HTTP status it goes with.
    pub fn response(&self, answer: Result<Answer>) -> (u16, Bytes) {
        match answer {
            Ok(Answer::Result(text)) => {
                let older = older::result(&text, self.method, self.revision);
                let text = older.map_or(text, Bytes::from);
                let mut out = BytesMut::with_capacity(text.len() + self.id.len() + 40);
                out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
                out.put_slice(&self.id);
                out.put_slice(b",\"result\":");
                out.put_slice(&text);
                out.put_u8(b'}');
                (200, out.freeze())
            }
            Ok(Answer::Response { message, written_in, wrapped }) => {
                let text = project::response(&message, written_in, &self.reader(wrapped)).into();
                let is_error = self.era() == Era::Modern && message.in_error("code").is_some();
                (if is_error { status_of(&text) } else { 200 }, text)
            }
            Ok(Answer::Asks(message)) if self.era() == Era::Modern => {
                (200, project::response(&message, Era::Modern, &self.reader(false)).into())
            }
            Ok(Answer::Asks(_)) => self.response(Err(Error::NoInput)),
            Err(error) => {
                let (status, _) = error.codes(self.era());
                (status, error.response(Some(&self.id), self.era()).into())
            }
        }
    }
}

/// The HTTP status that a revision of the modern era wants beside an error.
fn status_of(response: &Bytes) -> u16 {
    let message = Message::parse(response.clone(), &Limits::REPLY).ok();
    let code = message.as_ref().and_then(|message| std::str::from_utf8(message.in_error("code")?).ok());
    match code.and_then(|code| code.parse().ok()) {
        Some(code::METHOD_NOT_FOUND) => 404,
        Some(code::MISSING_CAPABILITY) => 400,
        _ => 200,
    }
}
