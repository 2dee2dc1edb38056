//! How does the progress of a call go on over its rounds?
//!
//! Each round is a request of its own to the backend, which may count from the beginning again;
//! for a client of the legacy era it is one request, whose progress only ever rises (every
//! revision, "Progress").

use bytes::Bytes;

use super::{
    json::Limits,
    message::{Message, Splice},
};

/// How far a call has come, as its client was told.
#[derive(Debug, Default)]
pub struct Progress {
    told: Option<f64>,
    /// What is added in this round; none until its first notification.
    base: Option<f64>,
    later: bool,
}

impl Progress {
    pub fn new_round(&mut self) {
        self.base = None;
        self.later = true;
    }

    /// A notification as it goes on; nothing, if it would be no step forward in a later round.
    /// Those of the first round, and what is not about progress, go on as they are.
    pub fn goes_on(&mut self, text: Bytes) -> Option<Bytes> {
        let Some(message) = Message::parse(text.clone(), &Limits::REPLY)
            .ok()
            .filter(|message| message.is_method("notifications/progress"))
        else {
            return Some(text);
        };
        let value = |name: &str| {
            let place = message.param(name)?;
            let number: f64 = std::str::from_utf8(place.of(&text)).ok()?.parse().ok()?;
            Some((place, number))
        };
        let Some((place, progress)) = value("progress") else { return Some(text) };
        let told = self.told.unwrap_or(f64::NEG_INFINITY);
        let again = self.later && progress <= told;
        let base = *self.base.get_or_insert(if again { told } else { 0.0 });
        let now = progress + base;
        if self.later && now <= told {
            return None;
        }
        self.told = Some(now.max(told));
        if base == 0.0 {
            return Some(text);
        }
        let mut splice = Splice::new(&text);
        splice.replace(place, now.to_string().into_bytes());
        if let Some((place, total)) = value("total") {
            splice.replace(place, (total + base).to_string().into_bytes());
        }
        Some(splice.finish().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of each number; `|` begins a round.
    #[track_caller]
    fn check(sent: &str, expected: &str) {
        let mut progress = Progress::default();
        let mut heard = Vec::new();
        for word in sent.split(' ') {
            if word == "|" {
                progress.new_round();
                continue;
            }
            let text = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":1,"progress":{word}}}}}"#
            );
            if let Some(text) = progress.goes_on(text.into()) {
                let message = Message::parse(text, &Limits::REPLY).unwrap();
                heard.push(String::from_utf8(message.in_params("progress").unwrap().to_vec()).unwrap());
            }
        }
        assert_eq!(heard.join(" "), expected, "{sent}");
    }

    #[test]
    fn progress_rises_over_the_rounds_and_is_untouched_in_the_first() {
        check("1 2.50 3e0", "1 2.50 3e0");
        check("2 1 1", "2 1 1");
        check("1 2 | 1 2 | 1", "1 2 3 4 5");
        check("1 2 | 3 4 | 5", "1 2 3 4 5");
        check("0.5 | 0 0.25 0.5", "0.5 0.75 1");
        check("3 | 4 4 5", "3 4 5");
        check("| 1 2", "1 2");
    }

    #[test]
    fn the_total_goes_along() {
        let text = |progress, total| {
            Bytes::from(format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"total":{total},"progress":{progress},"message":"x"}}}}"#
            ))
        };
        let mut progress = Progress::default();
        progress.goes_on(text(2, 2));
        progress.new_round();
        assert_eq!(progress.goes_on(text(1, 3)), Some(text(3, 5)));
        let log = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#);
        assert_eq!(progress.goes_on(log.clone()), Some(log));
    }
}
