//! A connection to a child process, over its pipes.
//!
//! Three tasks serve the pipes, one each, and a fourth looks after the child: it learns first
//! of whatever ends the connection, tells the requests that wait, and sees the child and its
//! group out. The connection is nothing but handles to these tasks, so dropping it ends the
//! child as closing it does.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::{io::AsyncWriteExt as _, process::ChildStdin, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    output::{self, Output},
    process::{Pipes, Process, Step},
    stderr::Stderr,
};
use crate::backend::{
    mux::Mux,
    transport::{Incoming, Kind, Outgoing, Transport, Trouble},
};

/// Messages that may wait for a child that does not read. More wait at their callers.
const QUEUE: usize = 32;

/// How many bytes of waiting messages are written at once.
const BATCH: usize = 64 << 10;

/// How long the last words of a child that has ended may take to reach us.
const MOMENT: Duration = Duration::from_millis(250);

/// A connection to a running child.
#[derive(Debug)]
pub struct Pipe {
    mux: Arc<Mux>,
    queue: mpsc::Sender<Bytes>,
    /// Told to the tasks when the child is to leave. Also when this is dropped.
    leave: DropGuard,
    /// Told by them when it has left.
    gone: CancellationToken,
}

impl Pipe {
    /// Takes a child that has just been started into care. Within a runtime only.
    pub fn new(
        backend: &Arc<str>,
        (process, pipes): (Process, Pipes),
        stderr: Arc<Stderr>,
        mux: Arc<Mux>,
    ) -> Self {
        let (leave, gone) = (CancellationToken::new(), CancellationToken::new());
        let (queue, waiting) = mpsc::channel(QUEUE);
        let output = Output::new(Arc::clone(backend), Arc::clone(&mux), Arc::clone(&stderr));
        let care = Care {
            writer: tokio::spawn(write(pipes.stdin, waiting, leave.clone())),
            reader: tokio::spawn(output.read(pipes.stdout)),
            listener: tokio::spawn(Arc::clone(&stderr).listen(pipes.stderr)),
            backend: Arc::clone(backend),
            mux: Arc::clone(&mux),
            stderr,
            leave: leave.clone(),
            _gone: gone.clone().drop_guard(),
        };
        tokio::spawn(care.keep(process));
        Self { mux, queue, leave: leave.drop_guard(), gone }
    }
}

impl Transport for Pipe {
    fn request(&self, outgoing: Outgoing) -> BoxFuture<'static, Result<Incoming, Trouble>> {
        let (mux, queue) = (Arc::clone(&self.mux), self.queue.clone());
        Box::pin(async move {
            let ticket = mux.register(outgoing.id, outgoing.method, outgoing.target.as_ref())?;
            send(&mux, &queue, outgoing.text).await?;
            ticket.incoming().await
        })
    }

    fn notify(&self, text: Bytes) -> BoxFuture<'static, Result<(), Trouble>> {
        let (mux, queue) = (Arc::clone(&self.mux), self.queue.clone());
        Box::pin(async move { send(&mux, &queue, text).await })
    }

    fn lost(&self) -> Option<Trouble> {
        self.mux.lost()
    }

    fn takes_questions(&self) -> bool {
        self.mux.takes_questions()
    }

    fn close(&self) -> BoxFuture<'static, ()> {
        self.leave.token().cancel();
        Box::pin(self.gone.clone().cancelled_owned())
    }
}

async fn send(mux: &Mux, queue: &mpsc::Sender<Bytes>, text: Bytes) -> Result<(), Trouble> {
    let lost = || mux.lost().map_or_else(|| "the process takes no more messages".into(), |lost| lost.why);
    queue.send(text).await.map_err(|_| Trouble::new(Kind::NotSent, lost()))
}

/// Writes what waits, a message a line, until the child is to leave or reads no more. The end
/// of this is the end of the child's input.
async fn write(mut stdin: ChildStdin, mut waiting: mpsc::Receiver<Bytes>, leave: CancellationToken) {
    let mut batch = BytesMut::with_capacity(BATCH);
    loop {
        let first = tokio::select! {
            biased;
            text = waiting.recv() => text,
            () = leave.cancelled() => {
                waiting.close(); // What came in time is still written.
                waiting.recv().await
            }
        };
        let Some(first) = first else { return };
        put_line(&mut batch, &first);
        while batch.len() < BATCH
            && let Ok(next) = waiting.try_recv()
        {
            put_line(&mut batch, &next);
        }
        if stdin.write_all(&batch).await.is_err() {
            return;
        }
        if batch.capacity() > 4 * BATCH {
            batch = BytesMut::with_capacity(BATCH);
        }
        batch.clear();
    }
}

/// A JSON text may hold line ends between its parts, where they mean what blanks mean.
fn put_line(batch: &mut BytesMut, text: &[u8]) {
    let start = batch.len();
    batch.extend_from_slice(text);
    if memchr::memchr2(b'\n', b'\r', text).is_some() {
        let ends = batch[start..].iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r'));
        ends.for_each(|byte| *byte = b' ');
    }
    batch.extend_from_slice(b"\n");
}

/// What looks after a child.
struct Care {
    backend: Arc<str>,
    mux: Arc<Mux>,
    stderr: Arc<Stderr>,
    leave: CancellationToken,
    writer: JoinHandle<()>,
    reader: JoinHandle<output::End>,
    listener: JoinHandle<()>,
    /// Tells that the child has gone; also if this is dropped with its runtime.
    _gone: DropGuard,
}

/// What ends a connection.
enum End {
    /// The child's own end, and its manner.
    Left(String),
    Output(output::End),
    /// The child does not read any more.
    Input,
    /// We want no more of it.
    Asked,
}

impl Care {
    async fn keep(mut self, mut process: Process) {
        let mut end = tokio::select! {
            biased;
            manner = process.ended() => End::Left(manner),
            () = self.leave.cancelled() => End::Asked,
            end = &mut self.reader => End::Output(end.unwrap_or(output::End::Closed)),
            _ = &mut self.writer => End::Input,
        };
        // A pipe that closes is most often the first that is seen of the child's own end.
        if matches!(end, End::Input | End::Output(output::End::Closed))
            && let Ok(manner) = timeout(MOMENT, process.ended()).await
        {
            end = End::Left(manner);
        }
        if matches!(end, End::Left(_)) {
            // Whom it left behind has the pipes open. The last answer may be in one, and in the
            // other the reason.
            process.ask_to_leave();
            tokio::join!(settle(&mut self.reader), settle(&mut self.listener));
        }
        let why = self.why(&end);
        tracing::debug!(backend = &*self.backend, "{why}");
        self.mux.end(Trouble::new(Kind::Lost, why));
        self.leave.cancel();
        let step = match end {
            End::Asked | End::Input | End::Output(output::End::Closed) => Step::Wait,
            End::Left(_) => Step::Ask,
            End::Output(output::End::LineTooLong) => Step::Kill,
        };
        process.end(step).await;
    }

    fn why(&self, end: &End) -> String {
        let what = match end {
            End::Left(manner) => format!("the process ended with {manner}"),
            End::Output(output::End::Closed) => "the process closed its output".into(),
            End::Output(output::End::LineTooLong) => {
                format!(
                    "the process was ended, since it wrote a line of over {} MiB",
                    output::LONGEST_LINE >> 20
                )
            }
            End::Input => "the process closed its input".into(),
            End::Asked => return "the connection was closed".into(),
        };
        self.stderr.last().map_or_else(|| what.clone(), |last| format!("{what}; it last said: {last}"))
    }
}

/// Nobody else may keep the pipes open, not even a process that got away from its group.
impl Drop for Care {
    fn drop(&mut self) {
        self.writer.abort();
        self.reader.abort();
        self.listener.abort();
    }
}

/// Waits a moment for a task that is about to end.
async fn settle<T>(task: &mut JoinHandle<T>) {
    if !task.is_finished() {
        let _ = timeout(MOMENT, task).await;
    }
}
