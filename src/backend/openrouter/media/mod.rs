//! May this picture, document or recording be sent, and how?
//!
//! Looked at before anything is paid: what it is by its first bytes, whatever it is said to be; how
//! large it is; and whether the model can read such a thing. Addresses are passed on and not fetched,
//! so nobody reaches our network by them. SVG is refused: it is a program.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{
    catalog::Model,
    context::{Detail, Media, of_image, of_part, of_text},
    upstream::{Audio, Code, File, ImageUrl, Part, VideoUrl},
};
use crate::settings;

mod pixels; // how large a picture is
mod sniff; //  what bytes are

pub use sniff::Format;

/// What attachments may be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The largest attachment.
    pub max_size: settings::Size,
    /// The most pixels on a side of a picture.
    pub max_pixels: u32,
}

impl Default for Settings {
    /// As much as most providers take.
    fn default() -> Self {
        Self { max_size: settings::Size(20 << 20), max_pixels: 4096 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Image,
    Pdf,
    Audio,
    Video,
    Text,
}

impl Kind {
    /// The word for it in a model's `input_modalities`.
    const fn modality(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Pdf => "file",
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Text => "text",
        }
    }

    /// What a model has to be able to read for it. Documents are read for those that cannot.
    pub const fn needs(self) -> Option<&'static str> {
        match self {
            Self::Image | Self::Audio | Self::Video => Some(self.modality()),
            Self::Pdf | Self::Text => None,
        }
    }

    /// Is this the type of such a thing?
    pub fn is_of(self, mime: &str) -> bool {
        match self {
            Self::Pdf => mime == "application/pdf",
            Self::Image | Self::Audio | Self::Video | Self::Text => {
                mime.split('/').next() == Some(self.modality())
            }
        }
    }

    /// As it is called to people and models.
    pub const fn called(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Pdf => "document",
            Self::Audio => "recording",
            Self::Video => "video",
            Self::Text => "text",
        }
    }
}

/// Something to be sent with a message.
#[derive(Debug, Clone)]
pub struct Attachment {
    pub kind: Kind,
    pub source: Source,
    pub mime_type: Option<String>,
    pub name: Option<String>,
    /// `auto`, `low` or `high`.
    pub detail: Option<String>,
}

#[derive(Debug, Clone)]
pub enum Source {
    /// An `https:` or a `data:` URL.
    Url(String),
    Base64(String),
    Bytes(Vec<u8>),
}

/// An attachment that may be sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub part: Part,
    /// What the context fitter is to know of it; the place of the part is set where it is put.
    pub media: Media,
    pub format: Option<Format>,
    /// Of its own, not of its base64. None of one that is only an address.
    pub bytes: Option<usize>,
}

/// Why an attachment is not sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("{name}: {model} cannot read {what}; choose a model whose input_modalities have it")]
    Modality { name: String, model: String, what: &'static str },
    #[error("{name}: the data is not base64")]
    Base64 { name: String },
    #[error("{name}: {bytes} bytes are more than the {limit} that may be attached")]
    TooLarge { name: String, bytes: usize, limit: usize },
    #[error("{name}: this is {found}, which is not taken as {what}; give {wanted}")]
    Format { name: String, found: String, what: &'static str, wanted: &'static str },
    #[error("{name}: it is said to be {said}, but is {found}")]
    Mislabelled { name: String, said: String, found: &'static str },
    #[error("{name}: SVG is not sent; turn it into PNG")]
    Svg { name: String },
    #[error("{name}: {width} x {height} pixels; at most {limit} on a side are sent, so make it smaller")]
    Pixels { name: String, width: u32, height: u32, limit: u32 },
    #[error("{name}: only https: and data: addresses are sent, without a user in them")]
    Address { name: String },
    #[error("{name}: a recording or a text must be given as data, for it cannot be sent as an address")]
    NeedsData { name: String },
}

impl Rejected {
    pub const fn code(&self) -> Code {
        match self {
            Self::Modality { .. } => Code::UnsupportedModality,
            Self::Base64 { .. }
            | Self::TooLarge { .. }
            | Self::Format { .. }
            | Self::Mislabelled { .. }
            | Self::Svg { .. }
            | Self::Pixels { .. }
            | Self::Address { .. }
            | Self::NeedsData { .. } => Code::MediaRejected,
        }
    }
}

impl Settings {
    /// Checks an attachment for a model. One that is not in the list is asked whatever it is.
    pub fn check(&self, attachment: Attachment, model: Option<&Model>) -> Result<Checked, Rejected> {
        let Attachment { kind, source, mime_type, name, detail } = attachment;
        let name = name.map_or_else(|| kind.called().to_owned(), |name| one_line(&name));
        if let Some(model) = model
            && !can_read(model, kind)
        {
            let (what, model) = (kind.called(), model.id.clone());
            return Err(Rejected::Modality { name, model, what });
        }
        let (bytes, said) = match source {
            Source::Bytes(bytes) => (bytes, mime_type),
            Source::Base64(text) => (self.decode(&text, &name)?, mime_type),
            Source::Url(url) => match data_url(&url, &name)? {
                Some((said, text)) => (self.decode(text, &name)?, mime_type.or(said)),
                None => return address(kind, url, mime_type.as_deref(), name, detail),
            },
        };
        if bytes.len() > self.max_size.0 {
            return Err(Rejected::TooLarge { name, bytes: bytes.len(), limit: self.max_size.0 });
        }
        if kind == Kind::Text {
            return text(bytes, name);
        }
        let format = self.format(kind, &bytes, said.as_deref(), &name)?;
        let pixels = self.pixels(format, &bytes, &name)?;
        let part = part(kind, format, &bytes, &name, detail.clone());
        let tokens = match kind {
            Kind::Image => of_image(closeness(detail.as_deref()), pixels),
            Kind::Pdf | Kind::Audio | Kind::Video | Kind::Text => of_part(&part),
        };
        Ok(Checked { part, media: media(kind, name, tokens), format: Some(format), bytes: Some(bytes.len()) })
    }

    /// The bytes, unless they are too many, which is seen before they are there.
    fn decode(&self, text: &str, name: &str) -> Result<Vec<u8>, Rejected> {
        let text = text.trim();
        let bytes = text.len() / 4 * 3;
        if bytes > self.max_size.0.saturating_add(3) {
            return Err(Rejected::TooLarge { name: name.to_owned(), bytes, limit: self.max_size.0 });
        }
        let decoded = if text.contains(char::is_whitespace) {
            STANDARD.decode(text.split_whitespace().collect::<String>())
        } else {
            STANDARD.decode(text)
        };
        decoded.map_err(|_| Rejected::Base64 { name: name.to_owned() })
    }

    /// What it is, if that is what it is said to be and may be sent.
    fn format(&self, kind: Kind, bytes: &[u8], said: Option<&str>, name: &str) -> Result<Format, Rejected> {
        let name = name.to_owned();
        if sniff::is_svg(bytes) || said.is_some_and(|said| said.to_ascii_lowercase().contains("svg")) {
            return Err(Rejected::Svg { name });
        }
        let found = sniff::format(bytes);
        let Some(format) = found.filter(|format| format.kind() == kind) else {
            let found =
                found.map_or_else(|| "nothing that is known here".into(), |format| format.mime().to_owned());
            return Err(Rejected::Format { name, found, what: kind.called(), wanted: sniff::wanted(kind) });
        };
        match said {
            Some(said) if !format.may_be_called(said) => {
                Err(Rejected::Mislabelled { name, said: one_line(said), found: format.mime() })
            }
            Some(_) | None => Ok(format),
        }
    }

    fn pixels(&self, format: Format, bytes: &[u8], name: &str) -> Result<Option<(u32, u32)>, Rejected> {
        match pixels::size(format, bytes) {
            Some((width, height)) if width.max(height) > self.max_pixels => {
                Err(Rejected::Pixels { name: name.to_owned(), width, height, limit: self.max_pixels })
            }
            known => Ok(known),
        }
    }
}

fn can_read(model: &Model, kind: Kind) -> bool {
    match kind {
        // The upstream reads documents to models that cannot.
        Kind::Pdf | Kind::Text => true,
        Kind::Image | Kind::Audio | Kind::Video => model.reads(kind.modality()).unwrap_or(true),
    }
}

/// What a `data:` URL says it is, and its base64; none for an `https:` address.
fn data_url<'a>(url: &'a str, name: &str) -> Result<Option<(Option<String>, &'a str)>, Rejected> {
    let wrong = || Rejected::Address { name: name.to_owned() };
    let url = url.trim();
    let scheme = url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("https") => {
            let parsed = Url::parse(url).map_err(|_| wrong())?;
            let bare = parsed.username().is_empty() && parsed.password().is_none() && parsed.has_host();
            if bare { Ok(None) } else { Err(wrong()) }
        }
        Some("data") => {
            let (head, text) = url["data:".len()..].split_once(',').ok_or_else(wrong)?;
            let mime =
                head.strip_suffix(";base64").ok_or_else(|| Rejected::Base64 { name: name.to_owned() })?;
            let mime = mime.split(';').next().filter(|mime| !mime.is_empty()).map(str::to_owned);
            Ok(Some((mime, text)))
        }
        Some(_) | None => Err(wrong()),
    }
}

/// An address that is passed on.
fn address(
    kind: Kind,
    url: String,
    said: Option<&str>,
    name: String,
    detail: Option<String>,
) -> Result<Checked, Rejected> {
    let path = url.split(['?', '#']).next().unwrap_or_default().to_ascii_lowercase();
    if path.ends_with(".svg") || said.is_some_and(|said| said.to_ascii_lowercase().contains("svg")) {
        return Err(Rejected::Svg { name });
    }
    let url = url.trim().to_owned();
    let part = match kind {
        Kind::Image => Part::ImageUrl { image_url: ImageUrl { url, detail: detail.clone() } },
        Kind::Pdf => {
            Part::File { file: File { filename: Some(name.clone()), file_data: Some(url), file_id: None } }
        }
        Kind::Video => Part::VideoUrl { video_url: VideoUrl { url } },
        Kind::Audio | Kind::Text => return Err(Rejected::NeedsData { name }),
    };
    let tokens = match kind {
        Kind::Image => of_image(closeness(detail.as_deref()), None),
        Kind::Pdf | Kind::Audio | Kind::Video | Kind::Text => of_part(&part),
    };
    Ok(Checked { part, media: media(kind, name, tokens), format: None, bytes: None })
}

/// A text goes along as one.
fn text(bytes: Vec<u8>, name: String) -> Result<Checked, Rejected> {
    let size = bytes.len();
    let Ok(text) = String::from_utf8(bytes) else {
        let found = "not UTF-8".to_owned();
        return Err(Rejected::Format {
            name,
            found,
            what: Kind::Text.called(),
            wanted: sniff::wanted(Kind::Text),
        });
    };
    let text = format!("[attached text: {name}]\n{text}");
    let media = media(Kind::Text, name, of_text(&text));
    Ok(Checked { part: Part::text(text), media, format: None, bytes: Some(size) })
}

fn part(kind: Kind, format: Format, bytes: &[u8], name: &str, detail: Option<String>) -> Part {
    let data = STANDARD.encode(bytes);
    let url = |data: String| format!("data:{};base64,{data}", format.mime());
    match kind {
        Kind::Image => Part::ImageUrl { image_url: ImageUrl { url: url(data), detail } },
        Kind::Pdf => {
            let (filename, file_data) = (Some(name.to_owned()), Some(url(data)));
            Part::File { file: File { filename, file_data, file_id: None } }
        }
        Kind::Audio => Part::InputAudio { input_audio: Audio { data, format: format.word().to_owned() } },
        Kind::Video => Part::VideoUrl { video_url: VideoUrl { url: url(data) } },
        Kind::Text => Part::text(String::from_utf8_lossy(bytes)),
    }
}

fn media(kind: Kind, name: String, tokens: u64) -> Media {
    Media { part: 0, kind: kind.called().to_owned(), name, tokens, wanted: false }
}

fn closeness(detail: Option<&str>) -> Detail {
    if detail == Some("low") { Detail::Low } else { Detail::High }
}

/// A name as it may stand in a sentence.
fn one_line(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { ' ' } else { c }).take(100).collect()
}

#[cfg(test)]
mod tests;
