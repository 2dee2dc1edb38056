//! However a stream of events is cut into pieces, it is the same events, and too long an event is always refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use waystation::wire::sse::{Decoder, Event};

const MAX_EVENT_BYTES: usize = 64;
/// What the smallest bytes of the input stand for, that streams worth reading are soon found.
const WORDS: [&str; 8] = ["data", "event", "id", "retry", ": ", "\r\n", "\r", "\u{feff}"];

fuzz_target!(|input: &[u8]| {
    let (lengths, letters) = input.split_at(input.len().min(4));
    let word = |letter: &u8| match WORDS.get(usize::from(*letter)) {
        Some(word) => word.as_bytes().to_vec(),
        None => vec![*letter],
    };
    let stream: Vec<u8> = letters.iter().flat_map(word).collect();
    let (all, whole) = decode(stream.chunks(1));
    let (events, taken) = decode(pieces(&stream, lengths).into_iter());
    assert_eq!(taken, whole);
    // A piece that is refused takes with it the events that were in it before the one too long.
    assert!(if taken { events == all } else { all.starts_with(&events) }, "{events:?} are not {all:?}");
});

/// The events, and whether all pieces were taken.
fn decode<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, bool) {
    let mut decoder = Decoder::new(MAX_EVENT_BYTES);
    let mut events = Vec::new();
    for piece in pieces {
        match decoder.push(piece) {
            Ok(more) => events.extend(more),
            Err(_) => return (events, false),
        }
    }
    (events, true)
}

/// The stream cut into pieces of these lengths, and what is left.
fn pieces<'a>(mut stream: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, rest) = stream.split_at(usize::from(*length).min(stream.len()));
        pieces.push(piece);
        stream = rest;
    }
    pieces.push(stream);
    pieces
}
