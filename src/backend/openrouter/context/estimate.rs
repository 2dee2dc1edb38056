//! About how many tokens is a text?
//!
//! No tokenizer knows four hundred models. Four letters of ASCII are about a token, and each sign of
//! Chinese, Japanese or Korean a little more than one; how far a model is off from that is learned
//! from what it reports.

use serde::{Deserialize, Serialize};

use super::super::upstream::{Content, Message, Part};

/// Beside what it says, each message has its role and its ends.
const PER_MESSAGE: u64 = 4;
/// What an answer is begun with.
const PER_REQUEST: u64 = 3;
/// Of a picture that is looked at coarsely, and of each tile besides when it is looked at closely.
const IMAGE: u64 = 85;
const TILE: u64 = 170;
/// Tiles of a picture whose size is not known.
const USUAL_TILES: u64 = 4;
/// A page of a document has about so many tokens, and a page about so many bytes.
const PER_PAGE: u64 = 600;
const PAGE: u64 = 50_000;

/// How closely a picture is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Detail {
    Low,
    #[default]
    High,
}

/// Tokens of a text.
pub fn of_text(text: &str) -> u64 {
    // In twentieths: ASCII a quarter, ideographs 1.1, all others a half.
    let weight = |c: char| match c {
        '\0'..='\u{7f}' => 5_u64,
        '\u{1100}'..='\u{11ff}'
        | '\u{2e80}'..='\u{9fff}'
        | '\u{a960}'..='\u{a97f}'
        | '\u{ac00}'..='\u{d7ff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{ff00}'..='\u{ffef}'
        | '\u{20000}'..='\u{3ffff}' => 22,
        _ => 10,
    };
    text.chars().map(weight).sum::<u64>().div_ceil(20)
}

/// Tokens of a picture of so many pixels, if that is known.
pub fn of_image(detail: Detail, pixels: Option<(u32, u32)>) -> u64 {
    let tiles = match (detail, pixels) {
        (Detail::Low, _) => 0,
        (Detail::High, None) => USUAL_TILES,
        (Detail::High, Some((width, height))) => {
            // It is brought down to 2048 pixels, then its shorter side to 768, and cut into squares of 512.
            let (long, short) =
                (f64::from(width.max(height)).max(1.0), f64::from(width.min(height)).max(1.0));
            let scale = (2048.0 / long).min(1.0);
            let scale = scale * (768.0 / (short * scale)).min(1.0);
            let squares = |side: f64| (side * scale / 512.0).ceil().max(1.0) as u64;
            squares(long) * squares(short)
        }
    };
    IMAGE + TILE * tiles
}

/// Tokens of a message with all its parts. Pictures count as if their size were not known.
pub fn of_message(message: &Message) -> u64 {
    let said = match &message.content {
        Content::None => 0,
        Content::Text(text) => of_text(text),
        Content::Parts(parts) => parts.iter().map(of_part).sum(),
    };
    let calls = message.tool_calls.iter();
    let calls: u64 = calls
        .map(|call| of_text(&call.function.name) + of_text(&call.function.arguments) + PER_MESSAGE)
        .sum();
    // What is replayed is read again, too.
    let replayed = message.extra.values().map(|value| of_text(&value.to_string())).sum::<u64>();
    said + calls + replayed + PER_MESSAGE
}

pub fn of_part(part: &Part) -> u64 {
    match part {
        Part::Text { text, .. } => of_text(text),
        Part::ImageUrl { image_url } => {
            let low = image_url.detail.as_deref() == Some("low");
            of_image(if low { Detail::Low } else { Detail::High }, None)
        }
        Part::File { file } => {
            let bytes = file.file_data.as_ref().map_or(0, |data| data.len() as u64 / 4 * 3);
            PER_PAGE * bytes.div_ceil(PAGE).max(1)
        }
        // About 32 tokens a second; a second of compressed sound is about 16 KiB of base64.
        Part::InputAudio { input_audio } => 32 * (input_audio.data.len() as u64 / 16_384).max(1),
        Part::VideoUrl { video_url } => 258 * (video_url.url.len() as u64 / 100_000).max(10),
        Part::Other(value) => of_text(&value.to_string()),
    }
}

/// How many tokens of a model's come to one of ours, as learned from what it reported.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Ratio(f64);

impl From<f64> for Ratio {
    fn from(kept: f64) -> Self {
        Self::new(kept)
    }
}

impl From<Ratio> for f64 {
    fn from(ratio: Ratio) -> Self {
        ratio.0
    }
}

impl Default for Ratio {
    fn default() -> Self {
        Self(1.0)
    }
}

impl Ratio {
    const LEAST: f64 = 0.6;
    const MOST: f64 = 2.0;
    /// How much one report counts beside those before it.
    const NEWS: f64 = 0.2;

    /// As it was kept. What cannot be one is 1.
    pub fn new(kept: f64) -> Self {
        if kept.is_finite() { Self(kept.clamp(Self::LEAST, Self::MOST)) } else { Self::default() }
    }

    /// With what was reported for something of which this was the estimate, made by this ratio.
    #[must_use]
    pub fn learned(self, reported: u64, estimated: u64) -> Self {
        if reported == 0 || estimated == 0 {
            return self;
        }
        let seen = (self.0 * reported as f64 / estimated as f64).clamp(Self::LEAST, Self::MOST);
        Self::new(self.0 + (seen - self.0) * Self::NEWS)
    }

    /// So many tokens of ours, in the model's.
    pub fn apply(self, tokens: u64) -> u64 {
        (tokens as f64 * self.0).ceil() as u64
    }
}

/// Tokens of a whole request, in ours.
pub fn of_request(messages: &[Message]) -> u64 {
    messages.iter().map(of_message).sum::<u64>() + PER_REQUEST
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::super::upstream::Role, *};

    #[test]
    fn scripts_weigh_differently() {
        assert_eq!(of_text(""), 0);
        assert_eq!(of_text("four"), 1);
        assert_eq!(of_text("fours"), 2);
        assert_eq!(of_text("漢字仮名漢字仮名漢字"), 11);
        assert_eq!(of_text("größe"), 2);
        assert_eq!(of_request(&[Message::new(Role::User, "four")]), 8);
    }

    #[test]
    fn pictures_count_by_their_tiles() {
        assert_eq!(of_image(Detail::Low, Some((4000, 4000))), 85);
        assert_eq!(of_image(Detail::High, None), 765);
        assert_eq!(of_image(Detail::High, Some((1024, 1024))), 765);
        assert_eq!(of_image(Detail::High, Some((100, 100))), 255);
        assert_eq!(of_image(Detail::High, Some((2048, 4096))), 85 + 170 * 6);
    }

    #[test]
    fn a_model_is_learned_slowly_and_within_bounds() {
        let ratio = Ratio::default().learned(150, 100);
        assert!((ratio.0 - 1.1).abs() < 1e-9);
        assert_eq!(ratio.apply(100), 111);
        let wild = (0..100).fold(ratio, |ratio, _| ratio.learned(1_000_000, 1));
        assert!((wild.0 - 2.0).abs() < 1e-6);
        let true_one =
            (0..100).fold(Ratio::default(), |ratio, _| ratio.learned(150_000, ratio.apply(100_000)));
        assert!((true_one.0 - 1.5).abs() < 1e-3, "{true_one:?}");
        assert_eq!(Ratio::default().learned(0, 5), Ratio::default());
        assert_eq!(Ratio::new(f64::NAN), Ratio::default());
    }

    proptest! {
        #[test]
        fn any_report_leaves_a_ratio_in_its_bounds(reports in proptest::collection::vec(any::<(u64, u64)>(), 0..20)) {
            let ratio = reports.iter().fold(Ratio::default(), |ratio, (reported, estimated)| ratio.learned(*reported, *estimated));
            prop_assert!((0.6..=2.0).contains(&ratio.0));
        }

        #[test]
        fn two_texts_are_no_more_than_their_sum(one in ".{0,50}", other in ".{0,50}") {
            let both = of_text(&format!("{one}{other}"));
            prop_assert!(both <= of_text(&one) + of_text(&other));
        }
    }
}
