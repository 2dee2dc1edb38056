//! Who says something in a conversation next, and where is heard what was said before?
//!
//! One message of a conversation is answered at a time, and the others stand in line. Whoever comes with a
//! key that is known already stands in no line: the turn of that key is found, and heard from its
//! beginning, or told again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    Task,
    feed::Listener,
    refused::Refused,
    turn::{Ended, Making, Outcome, Wanted},
    upstream::Code,
};
use crate::store::conversations::{self as kept_as, ConversationId, Place, Start, Turn, TurnId};

/// How many messages may wait for their turn in a conversation, and how long.
const LINE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked how a turn is that another process answers.
const LOOKED: Duration = Duration::from_millis(500);
/// How often, and how many times, a turn is looked for that has just begun here.
const SOUGHT: Duration = Duration::from_millis(10);
const SOUGHT_TIMES: u32 = 5;

/// A turn that is being answered, or was.
#[derive(Debug)]
pub struct Turning {
    pub turn: TurnId,
    pub conversation: ConversationId,
    pub listener: Listener<Outcome>,
    /// It was begun by this call, and not by an earlier one with the same key.
    pub new: bool,
}

/// Who waits to say something in one conversation.
#[derive(Debug)]
pub struct Line {
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// The right to say something now.
type Floor = Arc<OwnedSemaphorePermit>;

impl Default for Line {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), waiting: AtomicUsize::new(0) }
    }
}

impl Line {
    fn floor(&self) -> Option<Floor> {
        Arc::clone(&self.turn).try_acquire_owned().ok().map(Arc::new)
    }
}

impl Task {
    /// Begins the turn, or finds it where it was begun before.
    pub async fn begin(self: &Arc<Self>, wanted: Wanted) -> Result<Turning, Refused> {
        let wanted = Arc::new(wanted);
        let id = match wanted.new.place {
            Place::In(id) => id,
            Place::New(_) => return Ok(self.start(&wanted, None).await?),
        };
        let line = Arc::clone(&self.work.lines.entry(id).or_default());
        // What is said aside waits for nobody, unless it turns out to be said at the end.
        let aside = wanted.new.parent.is_some();
        let mut floor = if aside { None } else { line.floor() };
        if floor.is_none() && (aside || wanted.new.key.is_some()) {
            match self.start(&wanted, None).await {
                Err(kept_as::Error::Busy { .. }) => {}
                started => return Ok(started?),
            }
        }
        if floor.is_none() {
            floor = Some(self.stand_in_line(id, &line).await?);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            match self.start(&wanted, floor.clone()).await {
                // Another process answers there.
                Err(kept_as::Error::Busy { .. }) if Instant::now() < until => {
                    self.tell.remark("queued behind another turn of this conversation".into());
                    tokio::time::sleep(LOOKED).await;
                }
                started => return Ok(started?),
            }
        }
    }

    /// Waits until no other message of this conversation is being answered here.
    async fn stand_in_line(&self, id: ConversationId, line: &Line) -> Result<Floor, Refused> {
        if line.waiting.fetch_add(1, Ordering::AcqRel) >= LINE {
            line.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(self.busy(id).await);
        }
        let _waits = Waits(line);
        self.tell.remark("queued behind another turn of this conversation".into());
        let floor = tokio::time::timeout(PATIENCE, Arc::clone(&line.turn).acquire_owned()).await;
        match floor {
            Ok(Ok(floor)) => Ok(Arc::new(floor)),
            Ok(Err(_)) | Err(_) => Err(self.busy(id).await),
        }
    }

    /// There is too much to be said in a conversation already.
    async fn busy(&self, id: ConversationId) -> Refused {
        let mut busy = Refused::new(
            Code::ConversationBusy,
            "other messages of this conversation are still being answered; try again when they are",
        );
        busy.conversation = Some(id);
        let turns = self.own.turns(id, 1).await.unwrap_or_default();
        busy.turn = turns.into_iter().find(Turn::is_at_work).map(|turn| turn.id);
        busy
    }

    /// Begins the turn if it can be begun now. This goes on without its caller: what is begun on disk is
    /// answered, or ended because nobody listens.
    async fn start(
        self: &Arc<Self>,
        wanted: &Arc<Wanted>,
        floor: Option<Floor>,
    ) -> Result<Turning, kept_as::Error> {
        let (task, wanted) = (Arc::clone(self), Arc::clone(wanted));
        let started = tokio::spawn(async move {
            let started = task.own.begin(wanted.new.clone(), Timestamp::now()).await?;
            Ok(match started {
                Start::Begun(begun) => {
                    let (turn, conversation) = (begun.lease.turn, begun.conversation.id);
                    task.changed(conversation);
                    let listener = task.make(*begun, wanted, floor).listen();
                    Turning { turn, conversation, listener, new: true }
                }
                Start::Replay(turn) => {
                    let making = Making::new();
                    making.end(Ended::again(&turn));
                    let (turn, conversation) = (turn.id, turn.conversation);
                    Turning { turn, conversation, listener: making.listen(), new: false }
                }
                Start::Running(turn) => {
                    let (turn, conversation) = (turn.id, turn.conversation);
                    let listener = task.attend(turn).await;
                    Turning { turn, conversation, listener, new: false }
                }
            })
        });
        started.await.unwrap_or_else(|why| Err(kept_as::Error::Unavailable(why.to_string())))
    }

    /// Listens to a turn that was begun before, wherever it is answered.
    async fn attend(self: &Arc<Self>, turn: TurnId) -> Listener<Outcome> {
        for _ in 0..SOUGHT_TIMES {
            if let Some(making) = self.work.making.get(&turn) {
                return making.listen();
            }
            tokio::time::sleep(SOUGHT).await;
        }
        self.watch(turn).listen()
    }

    /// Waits for a turn that another process answers.
    fn watch(self: &Arc<Self>, id: TurnId) -> Arc<Making> {
        let (feed, task) = (Making::new(), Arc::clone(self));
        let making = Arc::clone(&feed);
        tokio::spawn(async move {
            making.remark("this turn is being answered already".into());
            loop {
                match task.own.turn(id).await {
                    Ok(turn) if turn.is_at_work() => {}
                    Ok(turn) => return making.end(Ended::again(&turn)),
                    Err(why) => return making.end(Err(why.into())),
                }
                tokio::select! {
                    () = making.unwanted.cancelled() => return,
                    () = tokio::time::sleep(LOOKED) => {}
                }
            }
        });
        feed
    }
}

/// One who waits in a line, until this is dropped.
struct Waits<'a>(&'a Line);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
