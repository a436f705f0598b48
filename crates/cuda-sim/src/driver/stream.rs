//! Streams.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};
use std::thread;

use super::c::{Host, HostFn, Out, StreamCallback, api};
use super::context::{Context, attached, current};
use super::graph::Participant;
use super::injection::Call;
use super::queue::{self, Queue, Ticket};
use super::work::{Work, enqueue};
use super::{CUstream, Code, Driver, Owned, driver, lock, new_handle};

/// The priority of a stream that asks for none.
pub(super) const LEAST_PRIORITY: i32 = 0;
/// The highest priority.
pub(super) const GREATEST_PRIORITY: i32 = -5;

/// `CU_STREAM_NON_BLOCKING`: does not wait for the legacy default stream.
const NON_BLOCKING: u32 = 1;

/// A stream.
pub(crate) struct Stream {
    /// The context that it was made in.
    pub(super) context: Arc<Context>,
    /// As the tables know it.
    pub(super) handle: usize,
    flags: u32,
    priority: i32,
    /// Held while work of the stream is done at once, so that threads that share the stream do theirs in turn.
    pub(super) turn: Mutex<()>,
    /// What is put off.
    pub(super) queue: Queue,
    /// Its part in a capture.
    pub(super) participant: Mutex<Option<Participant>>,
}

impl Stream {
    pub(super) fn new(context: Arc<Context>, handle: usize, flags: u32, priority: i32) -> Self {
        Self {
            context,
            handle,
            flags,
            priority,
            turn: Mutex::default(),
            queue: Queue::default(),
            participant: Mutex::default(),
        }
    }

    /// Is it the legacy default stream?
    pub(super) fn is_legacy(&self) -> bool {
        self.handle == self.context.legacy
    }

    /// Does the legacy default stream wait for it?
    pub(super) fn is_blocking(&self) -> bool {
        self.flags & NON_BLOCKING == 0 && !self.is_legacy()
    }
}

impl Owned for Stream {
    fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

/// The stream that a program names; the default ones are those of the current context.
pub(super) fn find(driver: &Driver, handle: CUstream) -> Result<Arc<Stream>, Code> {
    find_in(driver, &current(driver)?, handle)
}

fn find_in(driver: &Driver, context: &Arc<Context>, handle: CUstream) -> Result<Arc<Stream>, Code> {
    match handle {
        0 | 1 => driver.streams.get(context.legacy),
        2 => {
            let mut streams = lock(&context.per_thread);
            let own = *streams.entry(thread::current().id()).or_insert_with(|| create_in(driver, context, 0, 0));
            driver.streams.get(own)
        }
        _ => driver.streams.get(handle),
    }
}

fn create_in(driver: &Driver, context: &Arc<Context>, flags: u32, priority: i32) -> usize {
    let handle = new_handle();
    driver.streams.insert_as(handle, Arc::new(Stream::new(context.clone(), handle, flags, priority)));
    handle
}

fn create(out: Out<CUstream>, flags: u32, priority: i32) -> Result<(), Code> {
    let driver = driver()?;
    let context = current(driver)?;
    if flags & !NON_BLOCKING != 0 || !out.wanted() {
        return Err(Code::INVALID_VALUE);
    }
    driver.injection.count(Call::Object)?;
    out.put(create_in(driver, &context, flags, priority.clamp(GREATEST_PRIORITY, LEAST_PRIORITY)))
}

/// A mark behind all work of a stream, which is not captured.
fn mark(driver: &Driver, handle: CUstream) -> Result<Arc<Ticket>, Code> {
    let stream = find(driver, handle)?;
    if let Some(participant) = &*lock(&stream.participant) {
        participant.capture.invalidate();
        return Err(Code::STREAM_CAPTURE_UNSUPPORTED);
    }
    enqueue(driver, &stream, Work::Mark)?.ok_or(Code::STREAM_CAPTURE_UNSUPPORTED)
}

/// Waits for the work of a stream.
pub(super) fn synchronize(driver: &Driver, handle: CUstream) -> Result<(), Code> {
    queue::finish(driver, &*mark(driver, handle)?)?;
    find(driver, handle)?.context.check()
}

api! {
    /// Makes a stream.
    fn cuStreamCreate(out: Out<CUstream>, flags: u32) {
        create(out, flags, LEAST_PRIORITY)
    }

    /// Makes a stream of a priority.
    fn cuStreamCreateWithPriority(out: Out<CUstream>, flags: u32, priority: i32) {
        create(out, flags, priority)
    }

    /// Destroys a stream; a capture that it takes part in is invalid then.
    fn cuStreamDestroy_v2 | cuStreamDestroy (handle: CUstream) {
        let driver = driver()?;
        let context = attached(driver)?;
        let stream = driver.streams.remove(handle)?;
        if let Some(participant) = lock(&stream.participant).take() {
            participant.capture.invalidate();
        }
        context.check()
    }

    /// Waits for the stream's work.
    fn cuStreamSynchronize(stream: CUstream) {
        synchronize(driver()?, stream)
    }

    /// Says whether the stream's work is done.
    fn cuStreamQuery(stream: CUstream) {
        let driver = driver()?;
        queue::poll(driver, &*mark(driver, stream)?)
    }

    /// The stream's flags.
    fn cuStreamGetFlags(stream: CUstream, flags: Out<u32>) {
        flags.put(find(driver()?, stream)?.flags)
    }

    /// The stream's priority.
    fn cuStreamGetPriority(stream: CUstream, priority: Out<i32>) {
        priority.put(find(driver()?, stream)?.priority)
    }

    /// A number that no other stream has.
    fn cuStreamGetId(stream: CUstream, id: Out<u64>) {
        id.put(find(driver()?, stream)?.handle as u64)
    }

    /// The context that the stream was made in.
    fn cuStreamGetCtx(stream: CUstream, context: Out<usize>) {
        context.put(find(driver()?, stream)?.context.handle)
    }

    /// The device of the stream.
    fn cuStreamGetDevice(stream: CUstream, device: Out<i32>) {
        find(driver()?, stream)?;
        device.put(0)
    }

    /// Has the stream call a function of the host, which may not use CUDA.
    fn cuLaunchHostFunc(stream: CUstream, function: HostFn, data: Host) {
        let driver = driver()?;
        let stream = find(driver, stream)?;
        if function.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        enqueue(driver, &stream, Work::Host { function, data }).map(drop)
    }

    /// Has the stream call a function of the host with itself and the state of its work.
    fn cuStreamAddCallback(handle: CUstream, function: StreamCallback, data: Host, flags: u32) {
        let driver = driver()?;
        let stream = find(driver, handle)?;
        if function.is_null() || flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        if let Some(participant) = &*lock(&stream.participant) {
            participant.capture.invalidate();
            return Err(Code::STREAM_CAPTURE_UNSUPPORTED);
        }
        enqueue(driver, &stream, Work::Callback { function, stream: handle, data }).map(drop)
    }

    /// Memory that is attached to streams does not exist here.
    fn cuStreamAttachMemAsync(stream: CUstream, _addr: u64, _len: usize, _flags: u32) {
        find(driver()?, stream)?;
        Err(Code::NOT_SUPPORTED)
    }

    /// Values of a stream's attributes are accepted and have no effect.
    fn cuStreamSetAttribute(stream: CUstream, _attribute: i32, _value: Out<c_void>) {
        find(driver()?, stream).map(drop)
    }
}
