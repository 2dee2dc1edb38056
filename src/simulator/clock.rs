//! What time is it here? The system's time, and as much more as a test has asked for.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;

#[derive(Debug, Default)]
pub struct Clock {
    ahead_ms: AtomicU64,
}

impl Clock {
    /// Milliseconds since 1970.
    pub fn now(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(0) + self.ahead_ms.load(Relaxed)
    }

    /// At most a century in all, so that dates stay dates.
    pub fn advance(&self, ms: u64) {
        const CENTURY: u64 = 100 * 366 * 86_400_000;
        let _ =
            self.ahead_ms.fetch_update(Relaxed, Relaxed, |ahead| Some(ahead.saturating_add(ms).min(CENTURY)));
    }

    pub fn reset(&self) {
        self.ahead_ms.store(0, Relaxed);
    }
}

fn timestamp(ms: u64) -> Timestamp {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `2026-11-21`.
pub fn date(ms: u64) -> String {
    timestamp(ms).to_string().chars().take(10).collect()
}

/// `2026-11-21T00:00:02.000+00:00`, as generations are dated.
pub fn moment(ms: u64) -> String {
    let text = format!("{:.3}", timestamp(ms));
    text.replace('Z', "+00:00")
}

/// When the next month begins.
pub fn next_month(ms: u64) -> String {
    let today = date(ms);
    let number = |range| today.get(range).and_then(|text: &str| text.parse::<u32>().ok()).unwrap_or(1);
    let (year, month) = (number(0..4), number(5..7));
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    format!("{year:04}-{month:02}-01T00:00:00Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_openrouter_does() {
        assert_eq!(date(1_795_219_202_000), "2026-11-21");
        assert_eq!(moment(1_795_219_202_000), "2026-11-21T00:00:02.000+00:00");
        assert_eq!(next_month(1_795_219_202_000), "2026-12-01T00:00:00Z");
        assert_eq!(next_month(1_798_675_200_000), "2027-01-01T00:00:00Z");
    }
}
