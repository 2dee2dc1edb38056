//! How long are conversations kept, how much of them, and under which keys?

use std::{fmt, time::Duration};

/// What holds for all owners.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long a turn may go without a sign of life before another takes it over.
    pub lease: Duration,
    /// How long a conversation is kept that nobody uses.
    pub idle: Duration,
    /// How long one is kept at most, used or not.
    pub longest: Option<Duration>,
    /// How long an idempotency key is remembered.
    pub replay: Duration,
    pub quotas: Quotas,
    /// None: bodies are kept in clear, as the file's permissions guard them.
    pub keys: Option<Keys>,
}

impl Default for Options {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            lease: Duration::from_secs(30),
            idle: 30 * day,
            longest: None,
            replay: day,
            quotas: Quotas::default(),
            keys: None,
        }
    }
}

/// How much one owner may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    pub conversations: u64,
    /// In one conversation.
    pub messages: u64,
    /// In all conversations, with attachments.
    pub bytes: u64,
    /// Of one attachment.
    pub attachment: u64,
    /// That run at once.
    pub turns: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { conversations: 1_000, messages: 5_000, bytes: 256 << 20, attachment: 20 << 20, turns: 8 }
    }
}

/// What bodies are sealed with: the key of now, and earlier ones for what is not rewrapped yet.
#[derive(Clone)]
pub struct Keys {
    pub current: [u8; 32],
    pub earlier: Vec<[u8; 32]>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys") // They are secret.
    }
}
