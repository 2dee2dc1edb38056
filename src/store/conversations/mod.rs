//! What is kept of conversations with models, and for whom?
//!
//! Nothing is had but through [`Conversations::of`], which takes the [`Principal`] that the request was
//! verified for: there is no method that reads or writes without an owner, and what is missing and what is
//! another's are one answer, [`Error::NotFound`].
//!
//! A turn is written in four steps, so that nothing acknowledged is lost and nothing is paid for twice:
//! [`Turns::begin`] is on disk before anything is sent, [`Turns::sent`] before the answer is read,
//! [`Turns::checkpoint`] outlives the process, and [`Turns::finish`] is on disk before the caller is told.
//! Each step carries the epoch of its [`Lease`]; whoever has lost the lease changes nothing and is told so.
//!
//! The traits are what the rest of the gateway knows; [`open`] gives the implementation in the store's own
//! SQLite file.

use std::{fmt::Debug, sync::Arc};

use futures_util::future::BoxFuture;
use jiff::Timestamp;

mod chat; //   conversations and their messages, as data
mod error; //  why the store says no
mod id; //     what things are called
mod money; //  what calls have cost, as data
mod options; //how long, how much, under which keys
mod owner; //  whose they are
mod page; //   lists that are read piece by piece
mod seal; //   bodies that only the key's holder can read
mod sqlite; // the implementation in SQLite
mod turn; //   turns, as data

pub use chat::{
    Budget, Changes, Conversation, Deletion, Fork, Found, Hit, Listing, Message, NewConversation, NewSummary,
    Outline, Path, Reading, Role, Search, Sort, State, Step, Summary, Visibility,
};
pub use error::{Error, Quota};
pub use id::{BenchmarkId, ConversationId, Id, MessageId, RunId, TurnId};
pub use money::{
    Benchmark, BenchmarkWanted, Budgets, CostSource, Entry, GroupBy, NewBenchmark, Report, ReportRow,
    Reservation, Reserved, Usage, UsageWanted,
};
pub use options::{Keys, Options, Quotas};
pub use owner::Principal;
pub use page::{Cursor, Order, Page};
pub use sqlite::open;
pub use turn::{
    Answer, Begun, Failed, Finish, Finished, Lease, NewTurn, Place, Recovered, Said, Start, Swept, Turn,
    TurnState, Unsettled,
};

/// What a method gives, in the end.
pub type Reply<'a, T> = BoxFuture<'a, Result<T, Error>>;

/// All conversations: the handles of their owners, and what has to be done for all from time to time.
pub trait Conversations: Debug + Send + Sync {
    /// Everything that belongs to one principal.
    fn of(&self, principal: &Principal) -> Arc<dyn Owned>;

    /// Ends the turns whose leases have expired: those of which nothing was sent failed as `crashed`, the
    /// others are incomplete as `crash_recovered`, with what was checkpointed as the answer and with the
    /// estimated cost. To be done at the start and every 15 seconds.
    fn recover(&self, now: Timestamp) -> Reply<'_, Recovered>;

    /// Turns whose real cost is to be asked for, those due by now, the longest due first.
    fn unsettled(&self, now: Timestamp, limit: u32) -> Reply<'_, Vec<Unsettled>>;

    /// Puts the real cost of a turn in place of the estimate, by a further row in the ledger. A turn that is
    /// settled already stays as it is.
    fn reconcile(&self, turn: TurnId, usage: Usage, now: Timestamp) -> Reply<'_, ()>;

    /// When to ask again for the cost of a turn; never, where no time is given: the estimate stays.
    fn postpone(&self, turn: TurnId, until: Option<Timestamp>) -> Reply<'_, ()>;

    /// Removes a small batch of what is past its time: conversations, keys of turns, reservations. To be done
    /// again at once where it says that there is more.
    fn sweep(&self, now: Timestamp) -> Reply<'_, Swept>;

    /// Wraps the keys of at most so many things anew, where they are wrapped by an earlier key; how many
    /// there were.
    fn rewrap(&self, limit: u32) -> Reply<'_, u32>;
}

/// Everything that belongs to one principal.
pub trait Owned: Threads + Turns + Ledger + Attachments + Benchmarks + Debug + Send + Sync {
    /// The owner as the upstream may know it: the same each time, and telling it nothing.
    fn alias(&self) -> String;

    /// A conversation as the upstream may know it.
    fn alias_of(&self, conversation: ConversationId) -> String;
}

/// Conversations and what is in them.
pub trait Threads {
    fn create(&self, new: NewConversation, now: Timestamp) -> Reply<'_, Conversation>;

    /// One conversation; also another's of the tenant that is shared, for a principal that may read those.
    fn conversation(&self, id: ConversationId) -> Reply<'_, Conversation>;

    /// The principal's own conversations.
    fn list(&self, listing: Listing, now: Timestamp) -> Reply<'_, Page<Conversation>>;

    /// Messages of a conversation by their number, a page at a time; readable as the conversation is.
    fn messages(&self, id: ConversationId, reading: Reading) -> Reply<'_, Page<Message>>;

    /// One message; readable as the conversation is.
    fn message(&self, id: ConversationId, message: MessageId) -> Reply<'_, Message>;

    /// What a model is to be told: the messages that lead to one, newest first, without those that no
    /// answer came to and without answers that others have superseded. From the conversation's head where
    /// no message is given.
    fn path(&self, id: ConversationId, from: Option<MessageId>, budget: Budget) -> Reply<'_, Path>;

    /// The same path, of which only is told how much each message is: that is a hundredth of the work.
    fn outline(&self, id: ConversationId, from: Option<MessageId>, budget: Budget) -> Reply<'_, Outline>;

    fn search(&self, search: Search) -> Reply<'_, Found>;

    fn change(&self, id: ConversationId, changes: Changes, now: Timestamp) -> Reply<'_, Conversation>;

    /// A new conversation that begins with the messages that lead to one.
    fn fork(&self, id: ConversationId, fork: Fork, now: Timestamp) -> Reply<'_, Conversation>;

    /// Removes a conversation with all that is in it. While turns run it is only marked, and gone for every
    /// other method; it is removed when the last of them ends.
    fn delete(&self, id: ConversationId) -> Reply<'_, Deletion>;

    /// Removes the messages and keeps the conversation; how many there were. Refused while a turn runs.
    fn clear(&self, id: ConversationId, now: Timestamp) -> Reply<'_, u64>;

    /// Keeps what a part of a conversation says in short. Old ones are forgotten beyond a few.
    fn keep_summary(&self, id: ConversationId, summary: NewSummary, now: Timestamp) -> Reply<'_, ()>;

    /// The summaries of a conversation, newest first.
    fn summaries(&self, id: ConversationId) -> Reply<'_, Vec<Summary>>;
}

/// One message and its answer, step by step.
pub trait Turns {
    /// Begins a turn. On disk when this is done: nothing may be sent before.
    fn begin(&self, turn: NewTurn, now: Timestamp) -> Reply<'_, Start>;

    /// The upstream has taken the request. On disk when this is done.
    fn sent(&self, lease: Lease, generation: Option<String>, now: Timestamp) -> Reply<'_, ()>;

    /// Keeps what has been answered so far, all of it, and renews the lease. Outlives the process, not the
    /// machine: it costs no write to disk of its own.
    fn checkpoint(&self, lease: Lease, text: String, now: Timestamp) -> Reply<'_, ()>;

    /// The turn is still being worked at: to be said often enough while nothing else is.
    fn renew(&self, lease: Lease, now: Timestamp) -> Reply<'_, ()>;

    /// The turn has an answer, whole or cut short. On disk when this is done: the caller may be told.
    fn finish(&self, lease: Lease, finish: Finish, now: Timestamp) -> Reply<'_, Finished>;

    /// The turn has none.
    fn fail(&self, lease: Lease, failed: Failed, now: Timestamp) -> Reply<'_, ()>;

    fn turn(&self, id: TurnId) -> Reply<'_, Turn>;

    /// The turns of a conversation, newest first.
    fn turns(&self, id: ConversationId, limit: u32) -> Reply<'_, Vec<Turn>>;
}

/// What calls have cost. Rows are added and never changed; amounts are billionths of a US dollar.
pub trait Ledger {
    /// Sets an amount aside, if what was used and set aside that day leaves room for it: parallel calls
    /// cannot overshoot together.
    fn reserve(&self, amount: i64, budgets: Budgets, now: Timestamp) -> Reply<'_, Reserved>;

    /// Gives back what was set aside, where nothing was used of it. (What is finished or recorded with a
    /// reservation ends it.)
    fn release(&self, reservation: Reservation) -> Reply<'_, ()>;

    /// Adds a call that belongs to no turn.
    fn record(&self, entry: Entry, reservation: Option<Reservation>, now: Timestamp) -> Reply<'_, ()>;

    fn usage(&self, wanted: UsageWanted) -> Reply<'_, Report>;

    /// Is this generation one of the principal's? `NotFound` if not.
    fn generation(&self, generation: String) -> Reply<'_, Entry>;
}

/// Files that messages refer to. The same bytes are kept once for each owner.
pub trait Attachments {
    /// Keeps a file for a conversation; the name it has from then on.
    fn attach(&self, id: ConversationId, mime: String, bytes: Vec<u8>) -> Reply<'_, String>;

    /// What was attached under a name: its type and its bytes. Readable as the conversation is.
    fn attached(&self, id: ConversationId, name: String) -> Reply<'_, (String, Vec<u8>)>;
}

/// Runs of benchmarks.
pub trait Benchmarks {
    fn keep_benchmark(&self, run: NewBenchmark, now: Timestamp) -> Reply<'_, BenchmarkId>;

    /// Newest first, without their bodies.
    fn benchmarks(&self, wanted: BenchmarkWanted) -> Reply<'_, Page<Benchmark>>;

    fn benchmark(&self, id: BenchmarkId) -> Reply<'_, Benchmark>;
}
