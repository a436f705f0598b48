//! When the work of streams is done.
//!
//! A GPU gets to a stream's work some time after the call that appended it. Doing it at once hides every wait that is
//! missing, so it can also be put off: to the last moment, when something waits for it, or to a moment by chance. What
//! waits does no more than it has to: the work of its own stream up to there, and what that waits for in others.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Instant;

use super::context::Context;
use super::stream::Stream;
use super::work::{Work, execute};
use super::{Code, Driver, lock};

/// When the work of streams is done.
pub(super) enum Schedule {
    /// Before the call that appends it returns.
    Eager,
    /// When something waits for it.
    Late,
    /// At some moment until then, from a seed.
    Random(Mutex<u64>),
}

impl Schedule {
    /// The schedule that a word stands for.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "eager" => Some(Self::Eager),
            "late" => Some(Self::Late),
            seed => seed.parse().ok().map(|seed| Self::Random(Mutex::new(seed))),
        }
    }

    /// One of so many that could come next: the first, the last, or any.
    pub(super) fn pick(&self, count: usize) -> usize {
        match self {
            Self::Eager => 0,
            Self::Late => count.saturating_sub(1),
            Self::Random(state) => {
                let mut state = lock(state);
                (crate::chance::next(&mut state) % count.max(1) as u64) as usize
            }
        }
    }
}

/// What has been appended to a stream, and is done at some time.
pub(crate) struct Ticket {
    stream: Weak<Stream>,
    done: OnceLock<Instant>,
}

impl Ticket {
    /// Of work that is done.
    pub(super) fn done_now() -> Arc<Self> {
        Arc::new(Self { stream: Weak::new(), done: Instant::now().into() })
    }

    /// When it was done.
    pub(super) fn done(&self) -> Option<Instant> {
        self.done.get().copied()
    }
}

/// Work that a stream has put off, in order.
#[derive(Default)]
pub(super) struct Queue(Mutex<VecDeque<(Work, Arc<Ticket>)>>);

impl Queue {
    fn last(&self) -> Option<Arc<Ticket>> {
        lock(&self.0).back().map(|(_, ticket)| ticket.clone())
    }

    fn push(&self, work: Work, ticket: Arc<Ticket>) {
        lock(&self.0).push_back((work, ticket));
    }

    fn pop(&self) -> Option<(Work, Arc<Ticket>)> {
        lock(&self.0).pop_front()
    }
}

/// Puts work off. The legacy default stream waits for the blocking streams of its context, and these for it.
pub(super) fn put_off(driver: &Driver, stream: &Arc<Stream>, work: Work) -> Arc<Ticket> {
    let ticket = Arc::new(Ticket { stream: Arc::downgrade(stream), done: OnceLock::new() });
    let mut pending = lock(&driver.pending);
    let waits = |other: &&Arc<Stream>| {
        Arc::ptr_eq(&other.context, &stream.context)
            && (stream.is_legacy() && other.is_blocking() || stream.is_blocking() && other.is_legacy())
    };
    for before in pending.iter().filter(waits).filter_map(|other| other.queue.last()) {
        let turn = Arc::new(Ticket { stream: Arc::downgrade(stream), done: OnceLock::new() });
        stream.queue.push(Work::Wait(before), turn);
    }
    if !pending.iter().any(|other| Arc::ptr_eq(other, stream)) {
        pending.push(stream.clone());
    }
    stream.queue.push(work, ticket.clone());
    ticket
}

/// Gives chance its turn, where it has one: a few pieces of work of any stream.
pub(super) fn some(driver: &Driver) {
    if !matches!(driver.schedule, Schedule::Random(_)) {
        return;
    }
    let _turn = lock(&driver.turn);
    for _ in 0..driver.schedule.pick(4) {
        let pending = lock(&driver.pending).clone();
        let Some(stream) = pending.get(driver.schedule.pick(pending.len())) else { break };
        // Whoever waits for it hears of an error: the context keeps it.
        let _ = next(driver, stream);
    }
    forget_idle(driver);
}

/// Does all that stands before a ticket, and its own work.
///
/// # Errors
/// The first thing that goes wrong on the way.
pub(super) fn finish(driver: &Driver, ticket: &Ticket) -> Result<(), Code> {
    if ticket.done().is_some() {
        return Ok(());
    }
    let _turn = lock(&driver.turn);
    let result = advance(driver, ticket);
    forget_idle(driver);
    result
}

/// Does a little of what stands before a ticket, for those who ask again and again. Is it done?
pub(super) fn poll(driver: &Driver, ticket: &Ticket) -> Result<(), Code> {
    let _turn = lock(&driver.turn);
    if ticket.done().is_some() {
        return Ok(());
    }
    if let Some(stream) = ticket.stream.upgrade() {
        next(driver, &stream).unwrap_or(Ok(()))?;
    }
    forget_idle(driver);
    Err(Code::NOT_READY)
}

/// Does all that the streams of a context have put off.
///
/// # Errors
/// The first thing that goes wrong.
pub(super) fn finish_all(driver: &Driver, context: &Arc<Context>) -> Result<(), Code> {
    let _turn = lock(&driver.turn);
    let streams = lock(&driver.pending).clone();
    let mut result = Ok(());
    for stream in streams.iter().filter(|stream| Arc::ptr_eq(&stream.context, context)) {
        while let Some(ticket) = stream.queue.last() {
            result = result.and(advance(driver, &ticket));
        }
    }
    forget_idle(driver);
    result
}

/// As [`finish`], for who has the turn.
pub(super) fn advance(driver: &Driver, ticket: &Ticket) -> Result<(), Code> {
    let mut result = Ok(());
    while ticket.done().is_none() {
        let Some(done) = ticket.stream.upgrade().and_then(|stream| next(driver, &stream)) else { break };
        result = result.and(done);
    }
    result
}

/// Does the first piece of work of a stream, if there is one. Nobody is there to be told that an argument is bad, so it
/// is a fault.
fn next(driver: &Driver, stream: &Stream) -> Option<Result<(), Code>> {
    let (work, ticket) = stream.queue.pop()?;
    let context = &stream.context;
    let result = context.check().and_then(|()| match &work {
        Work::Wait(before) => advance(driver, before),
        work => execute(driver, context, work).map_err(|code| context.fault(code)),
    });
    let _ = ticket.done.set(Instant::now());
    Some(result)
}

fn forget_idle(driver: &Driver) {
    lock(&driver.pending).retain(|stream| stream.queue.last().is_some());
}
