//! How does a client hear that a silent call is still under way?
//!
//! Many clients begin their time-out anew whenever they hear of progress. To those that gave a
//! token the last progress is told again in the silence, a millionth higher, since progress must
//! rise. What the backend says afterwards is lifted likewise where it is not above that.

use std::{sync::MutexGuard, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use crate::{
    call::{Event, Events, Progress, Told},
    wire::{
        json::Limits,
        message::{Message, Splice},
    },
};

const METHOD: &str = "notifications/progress";
/// Above this, numbers are not counted with.
const LARGEST: f64 = 1e300;

/// The same events with progress in between, whenever there was none for this long, at first
/// since `begun`.
pub fn beating(events: Events, progress: Progress, every: Duration, begun: Instant) -> Events {
    let state = Some((events, progress, begun + every));
    let events = stream::unfold(state, move |state| async move {
        let (mut events, progress, mut due) = state?;
        let event = match timeout_at(due, events.next()).await {
            Ok(Some(Ok(Event::Notification(text)))) => {
                let (text, is_progress) = passed(&progress, text);
                if is_progress {
                    due = Instant::now() + every;
                }
                Ok(Event::Notification(text))
            }
            Ok(None) => return None,
            Ok(Some(last)) => return Some((last, None)),
            Err(_) => {
                due = Instant::now() + every;
                Ok(Event::Notification(beat(&progress)))
            }
        };
        Some((event, Some((events, progress, due))))
    });
    events.boxed()
}

fn told(progress: &Progress) -> MutexGuard<'_, Told> {
    progress.told.lock().expect("no code panics while it holds this lock")
}

/// The last progress once more, a little higher.
fn beat(progress: &Progress) -> Bytes {
    let mut told = told(progress);
    told.beats = true;
    let text = match &told.last {
        Some(last) => lifted(last, above(value(last).unwrap_or_default())),
        None => {
            let token = String::from_utf8_lossy(&progress.token);
            let first = above(0.0);
            Bytes::from(format!(
                "{{\"jsonrpc\":\"2.0\",\"method\":\"{METHOD}\",\"params\":{{\"progressToken\":{token},\"progress\":{first}}}}}"
            ))
        }
    };
    if let Ok(message) = Message::parse(text.clone(), &Limits::REPLY) {
        told.last = Some(message);
    }
    text
}

/// A notification on its way to the client, and whether it is one of progress.
fn passed(progress: &Progress, text: Bytes) -> (Bytes, bool) {
    let Ok(message) = Message::parse(text.clone(), &Limits::REPLY) else { return (text, false) };
    let Some(now) = value(&message) else { return (text, false) };
    let mut told = told(progress);
    let before = told.last.as_ref().and_then(value).filter(|before| told.beats && now <= *before);
    let lifted = before.map(|before| lifted(&message, above(before)));
    let lifted = lifted.and_then(|text| Message::parse(text, &Limits::REPLY).ok());
    let message = lifted.unwrap_or(message);
    let text = message.text().clone();
    told.last = Some(message);
    (text, true)
}

/// How far a notification says that its call is, if it does.
fn value(message: &Message) -> Option<f64> {
    let value = message.in_params("progress").filter(|_| message.is_method(METHOD))?;
    let value: f64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (value.abs() < LARGEST).then_some(value)
}

/// About a millionth more; of large numbers more than that, since not every reader of JSON reads
/// the last digits right.
fn above(last: f64) -> f64 {
    if last.abs() < 1e9 { ((last * 1e6).round() + 1.0) / 1e6 } else { last + last.abs() * 1e-15 }
}

fn lifted(message: &Message, value: f64) -> Bytes {
    let mut splice = Splice::new(message.text());
    if let Some(place) = message.param("progress") {
        splice.replace(place, value.to_string().into_bytes());
    }
    splice.finish().into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Value;
    use tokio::time::sleep;

    use super::*;
    use crate::{call::Answer, error::Error};

    const EVERY: Duration = Duration::from_secs(15);

    fn progress() -> Progress {
        Progress::new(Bytes::from_static(b"\"t\""))
    }

    fn says(value: &str) -> Event {
        let params = format!("\"progressToken\":\"t\",\"progress\":{value},\"message\":\"m{value}\"");
        let text = format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{METHOD}\",\"params\":{{{params}}}}}");
        Event::Notification(text.into())
    }

    /// After so many seconds each.
    fn events(steps: Vec<(u64, Event)>) -> Events {
        let steps = stream::iter(steps).then(|(seconds, event)| async move {
            sleep(Duration::from_secs(seconds)).await;
            Ok(event)
        });
        steps.boxed()
    }

    fn done() -> Event {
        Event::Answer(Answer::Result(Bytes::from_static(b"{}")))
    }

    /// What is heard, each with the second: the progress and its message.
    async fn heard(events: Events, progress: &Progress) -> Vec<(u64, f64, Value)> {
        let begun = Instant::now();
        let mut heard = Vec::new();
        let mut events = beating(events, progress.clone(), EVERY, begun);
        while let Some(event) = events.next().await {
            if let Ok(Event::Notification(text)) = event {
                let message: Value = serde_json::from_slice(&text).unwrap();
                assert_eq!(message["params"]["progressToken"], "t");
                let value = message["params"]["progress"].as_f64().unwrap();
                heard.push((begun.elapsed().as_secs(), value, message["params"]["message"].clone()));
            }
        }
        heard
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_call_is_heard_of_and_one_that_speaks_is_left_alone() {
        let silent = heard(events(vec![(50, done())]), &progress()).await;
        let expected = [(15, 0.000001), (30, 0.000002), (45, 0.000003)];
        assert_eq!(silent, expected.map(|(second, value)| (second, value, Value::Null)));
        let steps = vec![(10, says("3")), (10, says("3")), (10, says("1")), (10, done())];
        let speaking = heard(events(steps), &progress()).await;
        let expected = [(10, 3.0, "m3"), (20, 3.0, "m3"), (30, 1.0, "m1")];
        assert_eq!(speaking, expected.map(|(at, value, message)| (at, value, Value::from(message))));
    }

    #[tokio::test(start_paused = true)]
    async fn progress_rises_whatever_the_backend_says_after_a_beat() {
        let progress = progress();
        let steps = ["0", "0", "5", "5.0000001", "1e301", "-1", "1e18", "1e18"];
        let steps: Vec<_> = steps.into_iter().map(|value| (20, says(value))).chain([(5, done())]).collect();
        let rounds =
            [heard(events(steps), &progress).await, heard(events(vec![(40, done())]), &progress).await];
        let values: Vec<_> = rounds.concat().into_iter().filter(|(_, value, _)| *value < LARGEST).collect();
        assert!(values.is_sorted_by(|a, b| a.1 < b.1), "{values:?}");
        let first: Vec<_> = values.iter().take(6).map(|(at, value, _)| (*at, *value)).collect();
        assert_eq!(
            first,
            [(15, 0.000001), (20, 0.000002), (35, 0.000003), (40, 0.000004), (55, 0.000005), (60, 5.0)]
        );
        assert_eq!(values[1].2, "m0", "what the backend says of it is kept");
        assert_eq!(values.len(), 2 * 8 - 1 + 2, "{values:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_message_is_no_progress() {
        let log = || {
            Event::Notification(Bytes::from_static(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":\"notifications/progress\"}}"))
        };
        let steps = stream::iter([(10, Ok(log())), (10, Err(Error::NoInput))]);
        let steps = steps.then(|(seconds, event)| async move {
            sleep(Duration::from_secs(seconds)).await;
            event
        });
        let events = beating(steps.boxed(), progress(), EVERY, Instant::now());
        let events: Vec<_> = events.collect().await;
        assert!(
            matches!(&events[..], [Ok(_), Ok(Event::Notification(_)), Err(Error::NoInput)]),
            "{events:?}"
        );
    }
}
