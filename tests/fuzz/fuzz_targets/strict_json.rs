//! What our check of JSON takes, serde_json takes as well; but for numbers beyond a double, which we pass on as
//! they are written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use waystation::wire::json::{Limits, check};

fuzz_target!(|text: &[u8]| {
    if check(text, &Limits::default()).is_err() {
        return;
    }
    if let Err(refusal) = serde_json::from_slice::<Value>(text) {
        let why = refusal.to_string();
        assert!(why.starts_with("number out of range"), "we took it, serde_json does not: {why}");
    }
});
