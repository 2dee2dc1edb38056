//! How do URIs in a result read where two backends have the same ones?
//!
//! A resource that is listed under another spelling must come back under it, or a client would
//! ask the wrong backend for it next time: in what was read, in embedded resources, in links.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;

use super::{
    names,
    view::{Upstream, View},
};
use crate::{
    call::Answer,
    wire::{
        json::{self, Limits, Span},
        mcp::Method,
        message::{Message, Splice},
    },
};

/// The URIs of one backend that read otherwise here.
#[derive(Debug)]
pub struct Apart {
    backend: Arc<str>,
    uris: HashSet<String>,
}

impl Apart {
    pub fn new(view: &View, upstream: &Upstream, read: Option<Arc<str>>) -> Self {
        let mut uris: HashSet<_> = view.apart_of(&upstream.name).map(str::to_owned).collect();
        uris.extend(read.map(|uri| uri.to_string()));
        Self { backend: Arc::clone(&upstream.name), uris }
    }

    pub fn respell(&self, answer: Answer, method: Method) -> Answer {
        let Answer::Response { message, written_in, wrapped } = answer else { return answer };
        let list = match method {
            Method::ToolsCall => "content",
            Method::PromptsGet => "messages",
            Method::ResourcesRead => "contents",
            _ => return Answer::Response { message, written_in, wrapped },
        };
        let text = message.text().clone();
        let mut splice = Splice::new(&text);
        let place = message.field(list);
        for element in place.map(|place| json::within(&text, place)).unwrap_or_default() {
            self.visit(&text, element, &mut splice);
        }
        let spelled = Message::parse(Bytes::from(splice.finish()), &Limits::REPLY);
        let message = spelled.unwrap_or(message);
        Answer::Response { message, written_in, wrapped }
    }

    /// A block, what it embeds, or a prompt's message with a block in it.
    fn visit(&self, text: &[u8], object: Span, splice: &mut Splice<'_>) {
        let inner = object.of(text);
        for member in json::members(inner) {
            let place =
                Span { start: member.value.start + object.start, end: member.value.end + object.start };
            match &*member.key_in(inner) {
                "uri" => {
                    let uri = json::string(place.of(text)).unwrap_or_default();
                    if self.uris.contains(&*uri) {
                        splice.replace(place, json::quoted(&names::apart(&self.backend, &uri)).into_bytes());
                    }
                }
                "resource" | "content" => self.visit(text, place, splice),
                _ => {}
            }
        }
    }
}
