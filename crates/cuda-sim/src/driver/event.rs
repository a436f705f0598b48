//! Events.

use std::sync::{Arc, Mutex, Weak};

use super::c::{Out, api};
use super::context::{Context, attached, current};
use super::graph::{self, Capture};
use super::injection::Call;
use super::queue::{self, Ticket};
use super::stream::{self, Stream};
use super::work::{Work, enqueue};
use super::{CUstream, Code, Driver, Owned, driver, lock};

/// `CU_EVENT_DISABLE_TIMING`.
const DISABLE_TIMING: u32 = 2;
/// `CU_EVENT_INTERPROCESS`, which wants the timing disabled.
const INTERPROCESS: u32 = 4;
/// `CU_EVENT_RECORD_EXTERNAL`, `CU_EVENT_WAIT_EXTERNAL`: a node of the captured graph, and no edge of it.
const EXTERNAL: u32 = 1;

/// An event.
pub(crate) struct Event {
    context: Arc<Context>,
    flags: u32,
    state: Mutex<State>,
}

#[derive(Clone)]
enum State {
    Unrecorded,
    Recorded(Arc<Ticket>),
    /// Recorded in a capturing stream, after these nodes.
    Captured(Weak<Capture>, Vec<usize>),
}

impl Event {
    /// Records what stands before a piece of work.
    pub(super) fn record(&self, ticket: Arc<Ticket>) {
        *lock(&self.state) = State::Recorded(ticket);
    }

    /// Waits for what it recorded.
    pub(super) fn wait(&self, driver: &Driver) -> Result<(), Code> {
        self.recorded()?.map_or(Ok(()), |ticket| queue::advance(driver, &ticket))
    }

    fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// What it recorded; `None` for nothing.
    fn recorded(&self) -> Result<Option<Arc<Ticket>>, Code> {
        match self.state() {
            State::Unrecorded => Ok(None),
            State::Recorded(ticket) => Ok(Some(ticket)),
            State::Captured(capture, _) => {
                if let Some(capture) = capture.upgrade() {
                    capture.invalidate();
                }
                Err(Code::CAPTURED_EVENT)
            }
        }
    }
}

impl Owned for Event {
    fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

fn find(driver: &Driver, handle: usize) -> Result<Arc<Event>, Code> {
    let event = driver.events.get(handle)?;
    event.context.check()?;
    Ok(event)
}

fn record(event: usize, stream: CUstream, flags: u32) -> Result<(), Code> {
    let driver = driver()?;
    let stream = stream::find(driver, stream)?;
    let event = find(driver, event)?;
    if flags & !EXTERNAL != 0 {
        return Err(Code::INVALID_VALUE);
    }
    if !Arc::ptr_eq(&event.context, &stream.context) {
        return Err(Code::INVALID_HANDLE);
    }
    if flags & EXTERNAL == 0
        && let Some(participant) = &*lock(&stream.participant)
    {
        participant.capture.check()?;
        *lock(&event.state) = State::Captured(Arc::downgrade(&participant.capture), participant.frontier.clone());
        return Ok(());
    }
    let captured = lock(&stream.participant).is_some();
    let work = if captured { Work::Record(event.clone()) } else { Work::Mark };
    if let Some(ticket) = enqueue(driver, &stream, work)? {
        event.record(ticket);
    }
    Ok(())
}

fn wait(stream: &Arc<Stream>, event: &Arc<Event>, flags: u32) -> Result<(), Code> {
    match event.state() {
        State::Captured(capture, after) => graph::join(stream, &capture.upgrade().ok_or(Code::CAPTURED_EVENT)?, &after),
        State::Unrecorded => Ok(()),
        State::Recorded(ticket) => {
            let captured = lock(&stream.participant).as_ref().map(|participant| participant.capture.clone());
            let work = match captured {
                None => Work::Wait(ticket),
                Some(_) if flags & EXTERNAL != 0 => Work::WaitFor(event.clone()),
                Some(capture) => {
                    capture.invalidate();
                    return Err(Code::STREAM_CAPTURE_ISOLATION);
                }
            };
            enqueue(driver()?, stream, work).map(drop)
        }
    }
}

fn elapsed(ms: Out<f32>, start: usize, end: usize) -> Result<(), Code> {
    let driver = driver()?;
    current(driver)?;
    let (start, end) = (find(driver, start)?, find(driver, end)?);
    if (start.flags | end.flags) & DISABLE_TIMING != 0 {
        return Err(Code::INVALID_HANDLE);
    }
    let (Some(start), Some(end)) = (start.recorded()?, end.recorded()?) else { return Err(Code::INVALID_HANDLE) };
    let (Some(start), Some(end)) = (start.done(), end.done()) else { return Err(Code::NOT_READY) };
    let backwards = start.saturating_duration_since(end).as_secs_f64();
    ms.put(((end.saturating_duration_since(start).as_secs_f64() - backwards) * 1e3) as f32)
}

api! {
    /// Makes an event.
    fn cuEventCreate(out: Out<usize>, flags: u32) {
        let driver = driver()?;
        let context = current(driver)?;
        if flags > 7 || flags & INTERPROCESS != 0 && flags & DISABLE_TIMING == 0 || !out.wanted() {
            return Err(Code::INVALID_VALUE);
        }
        driver.injection.count(Call::Object)?;
        out.put(driver.events.insert(Event { context, flags, state: Mutex::new(State::Unrecorded) }))
    }

    /// Destroys an event.
    fn cuEventDestroy_v2 | cuEventDestroy (event: usize) {
        let driver = driver()?;
        let context = attached(driver)?;
        driver.events.remove(event)?;
        context.check()
    }

    /// Records the work of a stream up to now.
    fn cuEventRecord(event: usize, stream: CUstream) {
        record(event, stream, 0)
    }

    /// Records the work of a stream up to now.
    fn cuEventRecordWithFlags(event: usize, stream: CUstream, flags: u32) {
        record(event, stream, flags)
    }

    /// Has a stream wait for what an event recorded.
    fn cuStreamWaitEvent(stream: CUstream, event: usize, flags: u32) {
        let driver = driver()?;
        let stream = stream::find(driver, stream)?;
        if flags & !EXTERNAL != 0 {
            return Err(Code::INVALID_VALUE);
        }
        wait(&stream, &find(driver, event)?, flags)
    }

    /// Waits for what the event recorded.
    fn cuEventSynchronize(event: usize) {
        let driver = driver()?;
        current(driver)?;
        find(driver, event)?.recorded()?.map_or(Ok(()), |ticket| queue::finish(driver, &ticket))
    }

    /// Says whether what the event recorded is done.
    fn cuEventQuery(event: usize) {
        let driver = driver()?;
        current(driver)?;
        let recorded = find(driver, event)?.recorded()?;
        graph::refuse_unsafe_call(driver)?;
        recorded.map_or(Ok(()), |ticket| queue::poll(driver, &ticket))
    }

    /// Milliseconds between two events, by the host's clock.
    fn cuEventElapsedTime_v2(ms: Out<f32>, start: usize, end: usize) {
        elapsed(ms, start, end)
    }

    /// Milliseconds between two events, by the host's clock.
    fn cuEventElapsedTime(ms: Out<f32>, start: usize, end: usize) {
        elapsed(ms, start, end)
    }
}
