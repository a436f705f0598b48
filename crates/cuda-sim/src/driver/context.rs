//! Devices and contexts.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_char;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::ThreadId;

use super::c::{Host, Out, api};
use super::stream::Stream;
use super::{Code, Driver, driver, lock, new_handle};
use super::{graph, queue};
use crate::device::Profile;

/// A context.
pub(crate) struct Context {
    /// As C sees it.
    pub(super) handle: usize,
    /// The error that every later call answers with.
    failed: OnceLock<Code>,
    flags: AtomicU32,
    cache: AtomicI32,
    limits: Mutex<[usize; LIMITS.len()]>,
    /// Handle of the legacy default stream.
    pub(super) legacy: usize,
    /// Handles of the threads' own default streams.
    pub(super) per_thread: Mutex<HashMap<ThreadId, usize>>,
}

/// What `cuCtxGetLimit` answers at first: stack, printf buffer, heap, depth, pending launches, L2 fetch, persisting L2.
const LIMITS: [usize; 7] = [1 << 10, 1 << 20, 8 << 20, 2, 2048, 128, 0];

impl Context {
    /// Is it free of errors?
    pub(super) fn check(&self) -> Result<(), Code> {
        self.failed.get().map_or(Ok(()), |code| Err(*code))
    }

    /// Notes the error of work whose call has returned: a bad argument is a bad address by then.
    pub(super) fn fault(&self, code: Code) -> Code {
        self.fail(if code == Code::INVALID_VALUE { Code::ILLEGAL_ADDRESS } else { code })
    }

    /// Notes an error that no later call survives; returns the first one there was.
    pub(super) fn fail(&self, code: Code) -> Code {
        *self.failed.get_or_init(|| code)
    }
}

/// The primary context of the device.
pub(super) struct Primary {
    handle: usize,
    retained: usize,
    flags: u32,
}

impl Primary {
    pub(super) fn new() -> Self {
        Self { handle: new_handle(), retained: 0, flags: 0 }
    }
}

thread_local! {
    /// The thread's contexts, the current one last; 0 stands for none.
    static STACK: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn top() -> usize {
    STACK.with_borrow(|stack| stack.last().copied().unwrap_or(0))
}

fn set_top(handle: usize) {
    STACK.with_borrow_mut(|stack| {
        stack.pop();
        if handle != 0 {
            stack.push(handle);
        }
    });
}

/// The thread's context, though it may have failed: for what releases.
pub(super) fn attached(driver: &Driver) -> Result<Arc<Context>, Code> {
    match top() {
        0 => Err(Code::INVALID_CONTEXT),
        handle => driver.contexts.get(handle).map_err(|_| Code::CONTEXT_IS_DESTROYED),
    }
}

/// The thread's context, free of errors.
pub(super) fn current(driver: &Driver) -> Result<Arc<Context>, Code> {
    let context = attached(driver)?;
    context.check()?;
    Ok(context)
}

fn by_handle(driver: &Driver, handle: usize) -> Result<Arc<Context>, Code> {
    driver.contexts.get(handle).map_err(|_| Code::INVALID_CONTEXT)
}

fn create(driver: &Driver, handle: usize, flags: u32) {
    let legacy = new_handle();
    let context = Arc::new(Context {
        handle,
        failed: OnceLock::new(),
        flags: AtomicU32::new(flags),
        cache: AtomicI32::new(0),
        limits: Mutex::new(LIMITS),
        legacy,
        per_thread: Mutex::default(),
    });
    driver.streams.insert_as(legacy, Arc::new(Stream::new(context.clone(), legacy, 0, 0)));
    driver.contexts.insert_as(handle, context);
}

fn create_current(out: Out<usize>, flags: u32, device: i32) -> Result<(), Code> {
    let driver = check_device(device)?;
    let handle = new_handle();
    out.put(handle)?;
    create(driver, handle, flags);
    STACK.with_borrow_mut(|stack| stack.push(handle));
    Ok(())
}

/// Takes a context down with all that was made in it.
fn destroy(driver: &Driver, context: &Arc<Context>) {
    // Whoever did not wait does not hear how it ended.
    let _ = queue::finish_all(driver, context);
    let _ = driver.contexts.remove(context.handle);
    let _turn = lock(&driver.execution);
    if driver.leaks {
        report_leaks(driver, context);
    }
    driver.streams.extract_owned(context);
    driver.events.extract_owned(context);
    driver.execs.extract_owned(context);
    driver.functions.extract_owned(context);
    lock(&driver.captures).retain(|capture| !Arc::ptr_eq(&capture.context, context));
    for module in driver.modules.extract_owned(context) {
        module.program.unload(&driver.device);
    }
    lock(&driver.allocations).retain(|addr, owner| {
        let keep = !Arc::ptr_eq(owner, context);
        if !keep {
            let _ = driver.device.memory.free(*addr);
        }
        keep
    });
    lock(&driver.pinned).retain(|_, pinned| !Arc::ptr_eq(&pinned.context, context));
}

/// Reports what nobody freed or destroyed, but for the streams that the context makes itself.
fn report_leaks(driver: &Driver, context: &Arc<Context>) {
    let own = |owner: &Arc<Context>| Arc::ptr_eq(owner, context);
    let allocations = lock(&driver.allocations).values().filter(|owner| own(owner)).count();
    let pinned = lock(&driver.pinned).values().filter(|pinned| own(&pinned.context)).count();
    let default_streams = lock(&context.per_thread).len() + 1;
    let counts = [
        (allocations, "allocations"),
        (pinned, "ranges of page-locked memory"),
        (driver.streams.count_owned(context).saturating_sub(default_streams), "streams"),
        (driver.events.count_owned(context), "events"),
        (driver.execs.count_owned(context), "executable graphs"),
        (driver.modules.count_owned(context), "modules"),
    ];
    let left = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    let left: Vec<String> = left.collect();
    if !left.is_empty() {
        driver.report(format!("leak: the context ends with {}", left.join(", ")));
    }
}

fn reset_primary(driver: &Driver, primary: &Primary) {
    if let Ok(context) = driver.contexts.get(primary.handle) {
        destroy(driver, &context);
    }
}

pub(super) fn check_device(device: i32) -> Result<&'static Driver, Code> {
    let driver = driver()?;
    if device == 0 { Ok(driver) } else { Err(Code::INVALID_DEVICE) }
}

/// A number that the driver API gives an attribute of a device; nothing for one that it does not know.
fn attribute(profile: &Profile, attribute: i32) -> Option<u32> {
    Some(match attribute {
        1 => Profile::THREADS_PER_BLOCK,
        2..=4 => Profile::BLOCK[attribute as usize - 2],
        5..=7 => Profile::GRID[attribute as usize - 5],
        8 => Profile::SHARED_PER_BLOCK,
        9 => Profile::CONSTANT,
        // Threads of a warp.
        10 => 32,
        // Greatest pitch of a copy.
        11 => i32::MAX as u32,
        // Registers of a block, of a multiprocessor.
        12 | 82 => Profile::REGISTERS,
        // Clocks of the multiprocessors and of the memory, kHz; width of the memory's bus, bits.
        13 | 36 => 1_000_000,
        37 => 512,
        // Alignment of textures, of their rows and of surfaces.
        14 | 30 => 512,
        51 => 32,
        // Overlap of copies and kernels, concurrent kernels, copy engines.
        15 | 31 | 40 => 1,
        16 => profile.multiprocessors,
        38 => profile.l2,
        39 => profile.threads_per_multiprocessor,
        // Unified addressing, stream priorities, first-level caches, cooperative launches, host registration, pools.
        41 | 78 | 79 | 80 | 95 | 99 | 115 => 1,
        75 => profile.arch / 10,
        76 => profile.arch % 10,
        81 => profile.shared_per_multiprocessor,
        // f32 operations for one of f64.
        87 => {
            if profile.arch < 100 {
                2
            } else {
                64
            }
        }
        97 => profile.shared_per_block_optin,
        106 => profile.blocks_per_multiprocessor,
        111 => profile.shared_reserved,
        // The rest that there is: textures, surfaces, mapped and managed memory, clusters, interoperation. None here.
        17..=29
        | 32..=35
        | 42..=50
        | 52..=74
        | 77
        | 83..=86
        | 88..=94
        | 96
        | 98
        | 100..=105
        | 107..=110
        | 112..=114
        | 116..=148 => 0,
        _ => return None,
    })
}

/// An identity that begins with "cudrift-sim" and ends with the architecture.
fn uuid(profile: &Profile) -> [u8; 16] {
    let mut uuid = *b"cudrift-sim sm\0\0";
    uuid[14..].copy_from_slice(&(profile.arch as u16).to_be_bytes());
    uuid
}

api! {
    /// Devices: one.
    fn cuDeviceGetCount(count: Out<i32>) {
        driver()?;
        count.put(1)
    }

    /// The device of that number.
    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        check_device(ordinal)?;
        device.put(ordinal)
    }

    /// The device's name, which says that it is simulated.
    fn cuDeviceGetName(name: Out<c_char>, len: i32, device: i32) {
        let len = usize::try_from(len).map_err(|_| Code::INVALID_VALUE)?;
        name.put_text(check_device(device)?.profile().name, len).map(drop)
    }

    /// An identity of the device.
    fn cuDeviceGetUuid_v2 | cuDeviceGetUuid (out: Out<[u8; 16]>, device: i32) {
        out.put(uuid(check_device(device)?.profile()))
    }

    /// The device's place on the bus, which does not exist.
    fn cuDeviceGetPCIBusId(out: Out<c_char>, len: i32, device: i32) {
        check_device(device)?;
        out.put_text("0000:00:00.0", usize::try_from(len).map_err(|_| Code::INVALID_VALUE)?).map(drop)
    }

    /// Bytes of device memory.
    fn cuDeviceTotalMem_v2 | cuDeviceTotalMem (bytes: Out<usize>, device: i32) {
        bytes.put(check_device(device)?.device.memory.capacity() as usize)
    }

    /// A property of the device.
    fn cuDeviceGetAttribute(value: Out<i32>, which: i32, device: i32) {
        value.put(attribute(check_device(device)?.profile(), which).ok_or(Code::INVALID_VALUE)? as i32)
    }

    /// The compute capability, by the call that came before the attributes.
    fn cuDeviceComputeCapability(major: Out<i32>, minor: Out<i32>, device: i32) {
        let arch = check_device(device)?.profile().arch as i32;
        major.put(arch / 10)?;
        minor.put(arch % 10)
    }

    /// There is no peer.
    fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) {
        check_device(device)?;
        check_device(peer)?;
        can.put(0)
    }

    /// There is no peer.
    fn cuCtxEnablePeerAccess(_peer: usize, _flags: u32) {
        driver()?;
        Err(Code::PEER_ACCESS_UNSUPPORTED)
    }

    /// Retains the primary context, making it where there is none.
    fn cuDevicePrimaryCtxRetain(out: Out<usize>, device: i32) {
        let driver = check_device(device)?;
        let mut primary = lock(&driver.primary);
        out.put(primary.handle)?;
        if driver.contexts.get(primary.handle).is_err() {
            create(driver, primary.handle, primary.flags);
        }
        primary.retained += 1;
        Ok(())
    }

    /// Releases the primary context; the last one takes it down.
    fn cuDevicePrimaryCtxRelease_v2 | cuDevicePrimaryCtxRelease (device: i32) {
        let driver = check_device(device)?;
        let mut primary = lock(&driver.primary);
        primary.retained = primary.retained.checked_sub(1).ok_or(Code::INVALID_CONTEXT)?;
        if primary.retained == 0 {
            reset_primary(driver, &primary);
        }
        Ok(())
    }

    /// Takes the primary context down with all that is in it, and its error; those who retained it find a fresh one.
    fn cuDevicePrimaryCtxReset_v2 | cuDevicePrimaryCtxReset (device: i32) {
        let driver = check_device(device)?;
        let primary = lock(&driver.primary);
        reset_primary(driver, &primary);
        if primary.retained > 0 {
            create(driver, primary.handle, primary.flags);
        }
        Ok(())
    }

    /// The primary context's flags, and whether it exists.
    fn cuDevicePrimaryCtxGetState(device: i32, flags: Out<u32>, active: Out<i32>) {
        let driver = check_device(device)?;
        let primary = lock(&driver.primary);
        flags.put(primary.flags)?;
        active.put(driver.contexts.get(primary.handle).is_ok().into())
    }

    /// Sets the primary context's flags.
    fn cuDevicePrimaryCtxSetFlags_v2 | cuDevicePrimaryCtxSetFlags (device: i32, flags: u32) {
        let driver = check_device(device)?;
        let mut primary = lock(&driver.primary);
        primary.flags = flags;
        if let Ok(context) = driver.contexts.get(primary.handle) {
            context.flags.store(flags, Relaxed);
        }
        Ok(())
    }

    /// Makes a context and pushes it.
    fn cuCtxCreate_v2 | cuCtxCreate (out: Out<usize>, flags: u32, device: i32) {
        create_current(out, flags, device)
    }

    /// As `cuCtxCreate_v2`; limiting the multiprocessors is not simulated.
    fn cuCtxCreate_v3(out: Out<usize>, affinities: Host, count: i32, flags: u32, device: i32) {
        if !affinities.is_null() && count > 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        create_current(out, flags, device)
    }

    /// As `cuCtxCreate_v2`; parameters are not simulated.
    fn cuCtxCreate_v4(out: Out<usize>, parameters: Host, flags: u32, device: i32) {
        if !parameters.is_null() {
            return Err(Code::NOT_SUPPORTED);
        }
        create_current(out, flags, device)
    }

    /// Destroys a context with all that is in it, and pops it where it is the thread's current one.
    fn cuCtxDestroy_v2 | cuCtxDestroy (handle: usize) {
        let driver = driver()?;
        if handle == lock(&driver.primary).handle {
            return Err(Code::INVALID_CONTEXT);
        }
        destroy(driver, &by_handle(driver, handle)?);
        if top() == handle {
            STACK.with_borrow_mut(Vec::pop);
        }
        Ok(())
    }

    /// The thread's context.
    fn cuCtxGetCurrent(out: Out<usize>) {
        driver()?;
        out.put(top())
    }

    /// Replaces the thread's context.
    fn cuCtxSetCurrent(handle: usize) {
        let driver = driver()?;
        if handle != 0 {
            by_handle(driver, handle)?;
        }
        set_top(handle);
        Ok(())
    }

    /// Puts a context on top of the thread's.
    fn cuCtxPushCurrent_v2 | cuCtxPushCurrent (handle: usize) {
        by_handle(driver()?, handle)?;
        STACK.with_borrow_mut(|stack| stack.push(handle));
        Ok(())
    }

    /// Takes the thread's context off.
    fn cuCtxPopCurrent_v2 | cuCtxPopCurrent (out: Out<usize>) {
        driver()?;
        let handle = STACK.with_borrow_mut(Vec::pop).ok_or(Code::INVALID_CONTEXT)?;
        out.put_if_wanted(handle);
        Ok(())
    }

    /// The device of the thread's context.
    fn cuCtxGetDevice(device: Out<i32>) {
        attached(driver()?)?;
        device.put(0)
    }

    /// The flags of the thread's context.
    fn cuCtxGetFlags(flags: Out<u32>) {
        flags.put(attached(driver()?)?.flags.load(Relaxed))
    }

    /// Sets the flags of the thread's context.
    fn cuCtxSetFlags(flags: u32) {
        attached(driver()?)?.flags.store(flags, Relaxed);
        Ok(())
    }

    /// A number that no other context has.
    fn cuCtxGetId(handle: usize, id: Out<u64>) {
        let driver = driver()?;
        let context = if handle == 0 { attached(driver)? } else { by_handle(driver, handle)? };
        id.put(context.handle as u64)
    }

    /// The API version of a context.
    fn cuCtxGetApiVersion(handle: usize, version: Out<u32>) {
        let driver = driver()?;
        if handle == 0 { attached(driver)? } else { by_handle(driver, handle)? };
        version.put(3020)
    }

    /// Waits for all work of the context.
    fn cuCtxSynchronize() {
        let driver = driver()?;
        let context = current(driver)?;
        graph::refuse_captures_in(driver, &context)?;
        queue::finish_all(driver, &context)
    }

    /// A limit of the context.
    fn cuCtxGetLimit(value: Out<usize>, limit: i32) {
        let context = current(driver()?)?;
        let limits = lock(&context.limits);
        value.put(*usize::try_from(limit).ok().and_then(|limit| limits.get(limit)).ok_or(Code::NOT_SUPPORTED)?)
    }

    /// Sets a limit of the context, which nothing here depends on.
    fn cuCtxSetLimit(limit: i32, value: usize) {
        let context = current(driver()?)?;
        let mut limits = lock(&context.limits);
        *usize::try_from(limit).ok().and_then(|limit| limits.get_mut(limit)).ok_or(Code::NOT_SUPPORTED)? = value;
        Ok(())
    }

    /// The preference between cache and shared memory.
    fn cuCtxGetCacheConfig(config: Out<i32>) {
        config.put(current(driver()?)?.cache.load(Relaxed))
    }

    /// Sets the preference between cache and shared memory.
    fn cuCtxSetCacheConfig(config: i32) {
        if !(0..=3).contains(&config) {
            return Err(Code::INVALID_VALUE);
        }
        current(driver()?)?.cache.store(config, Relaxed);
        Ok(())
    }

    /// The priorities that streams may have, least and greatest.
    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        current(driver()?)?;
        least.put_if_wanted(super::stream::LEAST_PRIORITY);
        greatest.put_if_wanted(super::stream::GREATEST_PRIORITY);
        Ok(())
    }

    /// Switches a profiler on; there is none.
    fn cuProfilerStart() {
        current(driver()?).map(drop)
    }

    /// Switches a profiler off; there is none.
    fn cuProfilerStop() {
        current(driver()?).map(drop)
    }
}
