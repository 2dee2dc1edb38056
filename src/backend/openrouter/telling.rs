//! What does a caller hear of a tool while it works, and how is the result told?
//!
//! The text of an answer comes as progress, piece by piece: put together, the pieces are the text of
//! the result. A piece goes out at once if none has for a moment, otherwise when the moment is over
//! or enough has come. Whoever reads slowly gets longer pieces, and keeps nobody waiting.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep_until},
};

use super::{Task, answer, consent, refused::Refused, tools::Tool, work::Work};
use crate::{
    call::{Call, Event, Progress, Reply, TaskNews},
    error::Result,
    wire::json::quoted,
};

/// What is said of a piece of progress, in its `_meta`.
const META: &str = "io.waystation/chat";
/// How long a piece waits for more, once one has gone out.
const MOMENT: Duration = Duration::from_millis(50);
/// How much of a text goes out without waiting.
const ENOUGH: usize = 1 << 10;
/// How often the same remark is repeated at the most.
const SELDOM: Duration = Duration::from_secs(5);
/// How often a call without news says that it is at work.
const ALIVE: Duration = Duration::from_secs(10);

/// How often a task may be asked for.
const POLLED: Duration = Duration::from_secs(2);

/// Takes what a caller is to hear.
#[derive(Debug, Clone)]
pub struct Teller(UnboundedSender<News>);

#[derive(Debug)]
enum News {
    Text {
        turn: String,
        text: String,
    },
    Reasoning {
        turn: String,
        text: String,
    },
    Remark(String),
    /// A turn is being answered: whoever stops listening knows where to find it.
    Begun {
        turn: String,
        conversation: String,
        model: String,
    },
    /// So many parts of the work are done, of so many.
    Done(usize, usize),
    /// It takes long: whoever takes tasks need not wait for it.
    Long,
}

impl Teller {
    /// One that nobody listens to.
    pub fn deaf() -> Self {
        Self(unbounded_channel().0)
    }

    /// A piece of the answer itself.
    pub fn text(&self, turn: &str, text: String) {
        self.send(News::Text { turn: turn.to_owned(), text });
    }

    pub fn reasoning(&self, turn: &str, text: String) {
        self.send(News::Reasoning { turn: turn.to_owned(), text });
    }

    /// Which turn it is that is being answered, and by what.
    pub fn begun(&self, turn: &str, conversation: &str, model: &str) {
        let [turn, conversation, model] = [turn, conversation, model].map(str::to_owned);
        self.send(News::Begun { turn, conversation, model });
    }

    /// What is being waited for.
    pub fn remark(&self, remark: String) {
        self.send(News::Remark(remark));
    }

    /// All is well so far, and it will take long.
    pub fn long(&self) {
        self.send(News::Long);
    }

    pub fn done(&self, parts: usize, of: usize) {
        self.send(News::Done(parts, of));
    }

    fn send(&self, news: News) {
        let _ = self.0.send(news); // Whoever asked may have gone.
    }
}

/// The reply to a call of a tool, which works as long as somebody listens.
pub fn reply(tool: &'static Tool, work: Arc<Work>, call: &Call) -> Reply {
    let (sender, news) = unbounded_channel();
    let arguments = call.message.in_params("arguments").unwrap_or(b"{}");
    let arguments = serde_json::from_slice(arguments).unwrap_or_default();
    let task = Arc::new(Task::new(work, call, Teller(sender)));
    let telling = Telling {
        tool: tool.name,
        asks: consent::can_be_asked(call),
        result: (tool.run)(task, arguments),
        news,
        progress: call.progress.clone(),
        count: 0,
        at: 0.0,
        of: None,
        waiting: None,
        last: None,
        remarked: None,
        done: false,
    };
    Reply::Stream(
        stream::unfold(telling, |mut telling| async move {
            let event = telling.next().await?;
            Some((event, telling))
        })
        .boxed(),
    )
}

/// A tool at work, and what its caller has heard of it.
struct Telling {
    tool: &'static str,
    /// Whoever calls can be asked something.
    asks: bool,
    result: BoxFuture<'static, std::result::Result<Value, Refused>>,
    news: UnboundedReceiver<News>,
    progress: Option<Progress>,
    /// Notifications so far.
    count: u64,
    /// The progress that was told last; each has a higher number than the one before.
    at: f64,
    /// How many parts the work has, where that is known.
    of: Option<usize>,
    /// What has not gone out yet.
    waiting: Option<News>,
    /// When a piece went out.
    last: Option<Instant>,
    remarked: Option<(String, Instant)>,
    done: bool,
}

impl Telling {
    async fn next(&mut self) -> Option<Result<Event>> {
        if self.done {
            return None;
        }
        loop {
            let due = self.last.map_or_else(Instant::now, |last| last + MOMENT);
            tokio::select! {
                biased;
                Some(news) = self.news.recv() => {
                    if let Some(event) = self.hear(news) {
                        return Some(Ok(event));
                    }
                }
                () = sleep_until(due), if self.waiting.is_some() => {
                    let news = self.waiting.take()?;
                    if let Some(event) = self.tell(news) {
                        return Some(Ok(event));
                    }
                }
                result = &mut self.result => {
                    self.result = futures_util::future::pending().boxed();
                    return Some(self.end(result));
                }
                () = tokio::time::sleep(ALIVE) => return Some(Ok(Event::Alive)),
            }
        }
    }

    /// Puts pieces of a kind together, and tells those that are long or late enough.
    fn hear(&mut self, news: News) -> Option<Event> {
        let before = self.waiting.take();
        let news = match (before, news) {
            (Some(News::Text { turn, mut text }), News::Text { text: more, .. }) => {
                text.push_str(&more);
                News::Text { turn, text }
            }
            (Some(News::Reasoning { turn, mut text }), News::Reasoning { text: more, .. }) => {
                text.push_str(&more);
                News::Reasoning { turn, text }
            }
            (Some(before), news) => {
                self.waiting = Some(news);
                return self.tell(before);
            }
            (None, news) => news,
        };
        let long =
            matches!(&news, News::Text { text, .. } | News::Reasoning { text, .. } if text.len() >= ENOUGH);
        let late = self.last.is_none_or(|last| last.elapsed() >= MOMENT);
        let is_answer = matches!(news, News::Text { .. } | News::Reasoning { .. });
        if long || late || !is_answer {
            return self.tell(news);
        }
        self.waiting = Some(news);
        None
    }

    fn tell(&mut self, news: News) -> Option<Event> {
        if matches!(news, News::Text { .. } | News::Reasoning { .. }) {
            self.last = Some(Instant::now());
        }
        let mut parts = None;
        let (message, meta) = match news {
            News::Long => return Some(Event::Task(self.task())),
            News::Text { turn, text } => (text, json!({ "kind": "delta", "turn_id": turn })),
            News::Reasoning { turn, text } => (text, json!({ "kind": "reasoning", "turn_id": turn })),
            News::Remark(remark) => {
                let same = |(before, at): &(String, Instant)| *before == remark && at.elapsed() < SELDOM;
                if self.remarked.as_ref().is_some_and(same) {
                    return None;
                }
                self.remarked = Some((remark.clone(), Instant::now()));
                (remark, json!({ "kind": "status" }))
            }
            News::Begun { turn, conversation, model } => (
                format!("asking {model}"),
                json!({ "kind": "status", "turn_id": turn, "conversation_id": conversation }),
            ),
            News::Done(done, of) => {
                (parts, self.of) = (Some(done), Some(of));
                (format!("{done} of {of}"), json!({ "kind": "status" }))
            }
        };
        self.count += 1;
        // What is no part of the work moves it by next to nothing.
        let step = self.at + if self.of.is_some() { 0.001 } else { 1.0 };
        self.at = parts.map_or(step, |done| step.max(done as f64));
        Some(match &self.progress {
            Some(progress) => Event::Notification(self.notification(progress, &message, meta)),
            None => Event::Alive,
        })
    }

    /// The work as a task, which nothing but this process can go on with.
    fn task(&self) -> TaskNews {
        TaskNews { handle: self.tool.to_owned(), message: None, poll: POLLED }
    }

    fn notification(&self, progress: &Progress, message: &str, mut meta: Value) -> Bytes {
        meta["seq"] = self.count.into();
        let token = String::from_utf8_lossy(&progress.token);
        let total = self.of.map(|of| format!(",\"total\":{of}")).unwrap_or_default();
        let (at, message, meta) = (self.at, quoted(message), json!({ META: meta }));
        format!("{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{token},\"progress\":{at}{total},\"message\":{message},\"_meta\":{meta}}}}}").into()
    }

    /// The result, after all that belongs before it.
    fn end(&mut self, result: std::result::Result<Value, Refused>) -> Result<Event> {
        while let Ok(news) = self.news.try_recv() {
            if let Some(event) = self.hear(news) {
                // The rest is told first; the result waits.
                self.result = futures_util::future::ready(result).boxed();
                return Ok(event);
            }
        }
        if let Some(event) = self.waiting.take().and_then(|news| self.tell(news)) {
            self.result = futures_util::future::ready(result).boxed();
            return Ok(event);
        }
        self.done = true;
        if let Err(refused) = &result
            && let Some(estimate) = refused.estimate.filter(|_| self.asks)
        {
            return consent::question(self.tool, estimate).map(Event::Answer);
        }
        let mut result = result.unwrap_or_else(|refused| refused.result());
        result["resultType"] = "complete".into();
        answer(format!("{{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{result}}}")).map(Event::Answer)
    }
}
