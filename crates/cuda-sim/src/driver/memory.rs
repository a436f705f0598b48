//! Device memory, page-locked host memory, pools, copies and memsets.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use super::c::{Host, In, Out, Pages, api};
use super::context::{Context, attached, check_device, current};
use super::injection::Call;
use super::queue::{self, Schedule};
use super::stream;
use super::work::{Work, enqueue, enqueue_and_wait};
use super::{CUstream, Code, Driver, driver, graph, lock};
use crate::memory::{AccessError, Memory, POISON, Region};

/// Page-locked memory of the host.
pub(crate) struct Pinned {
    /// The context that it was made in.
    pub(super) context: Arc<Context>,
    len: usize,
    flags: u32,
    /// The memory, where it is not the program's own.
    pages: Option<Pages>,
}

/// A pool that stream-ordered allocations come from. All share the device's memory.
pub(crate) struct Pool {
    /// Attributes that can be set, in the order of their numbers from 1.
    settings: Mutex<[u64; 4]>,
}

impl Default for Pool {
    fn default() -> Self {
        Self { settings: Mutex::new([1, 1, 1, 0]) }
    }
}

/// One end of a copy.
#[derive(Clone)]
pub(crate) enum Place {
    Device(u64),
    Host(Host),
    /// What the host's memory held at the call, from a byte on.
    Staged(Arc<[u8]>, usize),
}

impl Place {
    fn add(&self, bytes: usize) -> Self {
        match self {
            Self::Device(addr) => Self::Device(addr.wrapping_add(bytes as u64)),
            Self::Host(host) => Self::Host(host.add(bytes)),
            Self::Staged(staged, at) => Self::Staged(staged.clone(), at + bytes),
        }
    }

    /// The place of a unified address: device memory where there is any, freed or not.
    fn of(driver: &Driver, host: Host) -> Self {
        let addr = host.address() as u64;
        match driver.device.memory.region(addr, 1) {
            Err(AccessError::Unmapped { .. }) => Self::Host(host),
            _ => Self::Device(addr),
        }
    }
}

/// A copy of rows of bytes.
#[derive(Clone)]
pub(crate) struct Transfer {
    dst: Place,
    src: Place,
    /// Bytes from a row to the next.
    dst_pitch: usize,
    src_pitch: usize,
    /// Bytes of a row.
    width: usize,
    rows: usize,
}

impl Transfer {
    fn new(dst: Place, src: Place, len: usize) -> Self {
        Self { dst, src, dst_pitch: len, src_pitch: len, width: len, rows: 1 }
    }

    /// Copies, while no kernel runs.
    pub(super) fn execute(&self, memory: &Memory) -> Result<(), Code> {
        let rows = if self.width == 0 { 0 } else { self.rows };
        (0..rows).try_for_each(|row| {
            let (dst, src) = (self.dst.add(row * self.dst_pitch), self.src.add(row * self.src_pitch));
            match (dst, src) {
                (Place::Device(dst), Place::Device(src)) => memory.copy(dst, src, self.width as u64)?,
                (Place::Device(dst), Place::Host(src)) => memory.write(dst, src.bytes(self.width)?)?,
                (Place::Host(dst), Place::Device(src)) => memory.read(src, dst.bytes_mut(self.width)?)?,
                (Place::Host(dst), Place::Host(src)) => {
                    let bytes = src.bytes(self.width)?.to_vec();
                    dst.bytes_mut(self.width)?.copy_from_slice(&bytes);
                }
                (Place::Device(dst), Place::Staged(bytes, at)) => memory.write(dst, &bytes[at..][..self.width])?,
                // Only what goes to the device is staged.
                (_, Place::Staged(..)) | (Place::Staged(..), _) => return Err(Code::INVALID_VALUE),
            }
            Ok(())
        })
    }
}

/// A memset of rows of elements.
#[derive(Clone, Copy)]
pub(crate) struct Fill {
    addr: u64,
    pattern: [u8; 4],
    /// Bytes of an element: so much of the pattern counts.
    size: usize,
    /// Elements of a row.
    width: usize,
    rows: usize,
    /// Bytes from a row to the next.
    pitch: usize,
}

impl Fill {
    /// Fills, while no kernel runs.
    pub(super) fn execute(&self, memory: &Memory) -> Result<(), Code> {
        let rows = if self.width == 0 { 0 } else { self.rows };
        (0..rows).try_for_each(|row| {
            let addr = self.addr.wrapping_add((row * self.pitch) as u64);
            memory.fill(addr, &self.pattern[..self.size], self.width as u64).map_err(Code::from)
        })
    }
}

impl Driver {
    fn allocate(&self, context: &Arc<Context>, len: usize) -> Result<u64, Code> {
        self.injection.count(Call::Alloc)?;
        let addr = self.device.memory.alloc(len as u64).ok_or(Code::OUT_OF_MEMORY)?;
        lock(&self.allocations).insert(addr, context.clone());
        Ok(addr)
    }

    /// Ends an allocation.
    pub(super) fn release(&self, addr: u64) -> Result<(), Code> {
        if lock(&self.allocations).remove(&addr).is_none() {
            // Freed before, or none, or a variable of a module.
            self.region(addr)?;
            return Err(Code::INVALID_VALUE);
        }
        Ok(self.device.memory.free(addr)?)
    }

    /// The allocation that an address lies in.
    fn region(&self, addr: u64) -> Result<Arc<Region>, Code> {
        Ok(self.device.memory.region(addr, 1)?)
    }
}

/// Does the caller wait for a copy?
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Always: the call's name has no Async.
    Yes,
    /// Only where the driver does not let go of the host's memory before: where that is not page-locked.
    Pageable,
}

/// Appends a copy. Inside the device no call waits. What comes from pageable memory is staged once the stream's work is
/// done, and is on its way when the call returns ("API synchronization behavior" in the driver's manual).
fn transfer(mut copy: Transfer, handle: CUstream, wait: Wait) -> Result<(), Code> {
    let driver = driver()?;
    let stream = stream::find(driver, handle)?;
    let waits = |place: &Place| match place {
        Place::Host(host) => wait == Wait::Yes || pinned(driver, host.address(), |_| ()).is_none(),
        _ => false,
    };
    let (from, to) = (waits(&copy.src), waits(&copy.dst));
    let at_once = matches!(driver.schedule, Schedule::Eager) || lock(&stream.participant).is_some();
    if at_once || to || from && wait == Wait::Yes {
        return enqueue_and_wait(driver, &stream, Work::Copy(copy));
    }
    if from && let Place::Host(host) = copy.src {
        stream::synchronize(driver, handle)?;
        let rows = if copy.width == 0 { 0 } else { copy.rows };
        let mut bytes = Vec::with_capacity(rows * copy.width);
        for row in 0..rows {
            bytes.extend_from_slice(host.add(row * copy.src_pitch).bytes(copy.width)?);
        }
        copy = Transfer { src: Place::Staged(bytes.into(), 0), src_pitch: copy.width, ..copy };
    }
    enqueue(driver, &stream, Work::Copy(copy)).map(drop)
}

fn copy(dst: Place, src: Place, len: usize) -> Result<(), Code> {
    transfer(Transfer::new(dst, src, len), 0, Wait::Yes)
}

fn copy_async(dst: Place, src: Place, len: usize, stream: CUstream) -> Result<(), Code> {
    transfer(Transfer::new(dst, src, len), stream, Wait::Pageable)
}

/// `CUDA_MEMCPY2D`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Copy2D {
    src: End2D,
    dst: End2D,
    width: usize,
    height: usize,
}

/// One end of [`Copy2D`].
#[repr(C)]
#[derive(Clone, Copy)]
struct End2D {
    x: usize,
    y: usize,
    memory_type: u32,
    host: Host,
    device: u64,
    array: usize,
    pitch: usize,
}

impl End2D {
    /// Where the copy begins.
    fn place(&self, driver: &Driver) -> Result<Place, Code> {
        let start = match self.memory_type {
            1 => Place::Host(self.host),
            2 => Place::Device(self.device),
            4 => Place::of(driver, Host::NULL.add(self.device as usize)),
            _ => return Err(Code::NOT_SUPPORTED),
        };
        Ok(start.add(self.y * self.pitch + self.x))
    }

    /// Bytes from a row to the next; 0 means that rows follow one another.
    fn pitch(&self, width: usize) -> Result<usize, Code> {
        match self.pitch {
            0 => Ok(width),
            pitch if pitch >= width => Ok(pitch),
            _ => Err(Code::INVALID_VALUE),
        }
    }
}

fn copy_2d(copy: In<Copy2D>, stream: CUstream, wait: Wait) -> Result<(), Code> {
    let driver = driver()?;
    let Copy2D { src, dst, width, height: rows } = copy.at(0)?;
    let (dst_pitch, src_pitch) = (dst.pitch(width)?, src.pitch(width)?);
    let (dst, src) = (dst.place(driver)?, src.place(driver)?);
    transfer(Transfer { dst, src, dst_pitch, src_pitch, width, rows }, stream, wait)
}

/// A memset of `rows` rows of elements of `size` bytes.
fn fill<const SIZE: usize>(
    addr: u64,
    value: [u8; SIZE],
    (pitch, width, rows): (usize, usize, usize),
    stream: CUstream,
) -> Result<(), Code> {
    let driver = driver()?;
    let stream = stream::find(driver, stream)?;
    if !addr.is_multiple_of(SIZE as u64) || rows > 1 && (pitch < width * SIZE || !pitch.is_multiple_of(SIZE)) {
        return Err(Code::INVALID_VALUE);
    }
    let mut pattern = [0; 4];
    pattern[..SIZE].copy_from_slice(&value);
    enqueue(driver, &stream, Work::Fill(Fill { addr, pattern, size: SIZE, width, rows, pitch })).map(drop)
}

fn allocate_async(out: Out<u64>, len: usize, pool: Option<usize>, stream: CUstream) -> Result<(), Code> {
    let driver = driver()?;
    let stream = stream::find(driver, stream)?;
    driver.pools.get(pool.unwrap_or(driver.current_pool.load(Relaxed)))?;
    if len == 0 {
        return out.put(0);
    }
    let addr = driver.allocate(&stream.context, len)?;
    out.put(addr)?;
    enqueue(driver, &stream, Work::Alloc(addr)).map(drop)
}

fn free_async(addr: u64, stream: CUstream) -> Result<(), Code> {
    let driver = driver()?;
    let stream = stream::find(driver, stream)?;
    if addr == 0 { Ok(()) } else { enqueue(driver, &stream, Work::Free(addr)).map(drop) }
}

fn allocate_host(out: Out<Host>, len: usize, flags: u32) -> Result<(), Code> {
    let driver = driver()?;
    let context = current(driver)?;
    graph::refuse_unsafe_call(driver)?;
    if len == 0 || flags > 7 || !out.wanted() {
        return Err(Code::INVALID_VALUE);
    }
    driver.injection.count(Call::Alloc)?;
    let pages = Pages::new(len, POISON).ok_or(Code::OUT_OF_MEMORY)?;
    let host = pages.host();
    lock(&driver.pinned).insert(host.address(), Pinned { context, len, flags, pages: Some(pages) });
    out.put(host)
}

/// The page-locked memory that an address lies in: its start and what `f` says of it.
fn pinned<R>(driver: &Driver, addr: usize, f: impl FnOnce(&Pinned) -> R) -> Option<(usize, R)> {
    let pinned = lock(&driver.pinned);
    let (start, pinned) = pinned.range(..=addr).next_back()?;
    (addr - start < pinned.len).then(|| (*start, f(pinned)))
}

/// An attribute of an address, of the type that the attribute has.
fn pointer_attribute(out: Host, attribute: i32, addr: u64) -> Result<(), Code> {
    let driver = driver()?;
    let host = pinned(driver, addr as usize, |pinned| (pinned.context.handle, pinned.len));
    let device = if host.is_none() { Some(driver.region(addr)?) } else { None };
    let (start, (context, len)) = match (host, &device) {
        (Some(host), _) => host,
        (None, Some(region)) => {
            let owner = lock(&driver.allocations).get(&region.base()).map_or(0, |context| context.handle);
            (region.base() as usize, (owner, region.len() as usize))
        }
        (None, None) => return Err(Code::INVALID_VALUE),
    };
    match attribute {
        1 => out.out().put(context),
        2 => out.out().put(if device.is_some() { 2u32 } else { 1 }),
        3 if device.is_some() => out.out().put(addr),
        4 if device.is_none() => out.out().put(addr),
        // Synchronous memory operations, managed memory, the device.
        6 | 8 | 9 => out.out().put(0u32),
        7 | 11 => out.out().put(start),
        12 => out.out().put(len),
        13 => out.out().put(1u32),
        _ => Err(Code::INVALID_VALUE),
    }
}

api! {
    /// Bytes of device memory that are free, and that there are.
    fn cuMemGetInfo_v2 | cuMemGetInfo (free: Out<usize>, total: Out<usize>) {
        let driver = driver()?;
        current(driver)?;
        let memory = &driver.device.memory;
        free.put((memory.capacity() - memory.used()) as usize)?;
        total.put(memory.capacity() as usize)
    }

    /// Allocates device memory.
    fn cuMemAlloc_v2 | cuMemAlloc (out: Out<u64>, len: usize) {
        let driver = driver()?;
        let context = current(driver)?;
        graph::refuse_unsafe_call(driver)?;
        if len == 0 || !out.wanted() {
            return Err(Code::INVALID_VALUE);
        }
        out.put(driver.allocate(&context, len)?)
    }

    /// Allocates rows of device memory, each begun at a multiple of 512 bytes.
    fn cuMemAllocPitch_v2 | cuMemAllocPitch (out: Out<u64>, pitch: Out<usize>, width: usize, rows: usize, size: u32) {
        let driver = driver()?;
        let context = current(driver)?;
        graph::refuse_unsafe_call(driver)?;
        let row = width.checked_next_multiple_of(512).ok_or(Code::INVALID_VALUE)?;
        if width == 0 || rows == 0 || ![4, 8, 16].contains(&size) || !out.wanted() || !pitch.wanted() {
            return Err(Code::INVALID_VALUE);
        }
        out.put(driver.allocate(&context, row.checked_mul(rows).ok_or(Code::OUT_OF_MEMORY)?)?)?;
        pitch.put(row)
    }

    /// Memory that moves between host and device does not exist here.
    fn cuMemAllocManaged(_out: Out<u64>, _len: usize, _flags: u32) {
        current(driver()?)?;
        Err(Code::NOT_SUPPORTED)
    }

    /// Memory that moves between host and device does not exist here; the location is a structure of two integers.
    fn cuMemPrefetchAsync_v2(_addr: u64, _len: usize, _location: u64, _flags: u32, _stream: CUstream) {
        current(driver()?)?;
        Err(Code::NOT_SUPPORTED)
    }

    /// Memory that moves between host and device does not exist here; the location is a structure of two integers.
    fn cuMemAdvise_v2(_addr: u64, _len: usize, _advice: i32, _location: u64) {
        current(driver()?)?;
        Err(Code::NOT_SUPPORTED)
    }

    /// Memory of other interfaces does not exist here.
    fn cuImportExternalMemory(_out: Out<usize>, _description: Host) {
        current(driver()?)?;
        Err(Code::NOT_SUPPORTED)
    }

    /// Memory of other interfaces does not exist here.
    fn cuExternalMemoryGetMappedBuffer(_addr: Out<u64>, _memory: usize, _description: Host) {
        current(driver()?)?;
        Err(Code::INVALID_HANDLE)
    }

    /// Memory of other interfaces does not exist here.
    fn cuDestroyExternalMemory(_memory: usize) {
        driver()?;
        Err(Code::INVALID_HANDLE)
    }

    /// Frees device memory, once all work is done.
    fn cuMemFree_v2 | cuMemFree (addr: u64) {
        let driver = driver()?;
        let context = attached(driver)?;
        graph::refuse_unsafe_call(driver)?;
        if addr != 0 {
            let done = queue::finish_all(driver, &context);
            let _device = lock(&driver.execution);
            driver.release(addr)?;
            done?;
        }
        context.check()
    }

    /// Allocates device memory in stream order.
    fn cuMemAllocAsync(out: Out<u64>, len: usize, stream: CUstream) {
        allocate_async(out, len, None, stream)
    }

    /// Allocates device memory in stream order, from a pool.
    fn cuMemAllocFromPoolAsync(out: Out<u64>, len: usize, pool: usize, stream: CUstream) {
        allocate_async(out, len, Some(pool), stream)
    }

    /// Frees device memory in stream order.
    fn cuMemFreeAsync(addr: u64, stream: CUstream) {
        free_async(addr, stream)
    }

    /// The allocation that an address lies in.
    fn cuMemGetAddressRange_v2 | cuMemGetAddressRange (base: Out<u64>, len: Out<usize>, addr: u64) {
        let driver = driver()?;
        current(driver)?;
        let region = driver.region(addr).map_err(|_| Code::NOT_FOUND)?;
        base.put_if_wanted(region.base());
        len.put_if_wanted(region.len() as usize);
        Ok(())
    }

    /// An attribute of an address.
    fn cuPointerGetAttribute(out: Host, attribute: i32, addr: u64) {
        pointer_attribute(out, attribute, addr)
    }

    /// Allocates page-locked memory.
    fn cuMemHostAlloc(out: Out<Host>, len: usize, flags: u32) {
        allocate_host(out, len, flags)
    }

    /// Allocates page-locked memory.
    fn cuMemAllocHost_v2 | cuMemAllocHost (out: Out<Host>, len: usize) {
        allocate_host(out, len, 0)
    }

    /// Frees page-locked memory.
    fn cuMemFreeHost(host: Host) {
        let driver = driver()?;
        let context = attached(driver)?;
        graph::refuse_unsafe_call(driver)?;
        queue::finish_all(driver, &context)?;
        let mut pinned = lock(&driver.pinned);
        match pinned.get(&host.address()) {
            Some(Pinned { pages: Some(_), .. }) => drop(pinned.remove(&host.address())),
            _ => return Err(Code::INVALID_VALUE),
        }
        context.check()
    }

    /// Page-locks memory of the program.
    fn cuMemHostRegister_v2 | cuMemHostRegister (host: Host, len: usize, flags: u32) {
        let driver = driver()?;
        let context = current(driver)?;
        if host.is_null() || len == 0 || flags > 15 {
            return Err(Code::INVALID_VALUE);
        }
        let last = host.address().checked_add(len - 1).ok_or(Code::INVALID_VALUE)?;
        let mut pinned = lock(&driver.pinned);
        if pinned.range(..=last).next_back().is_some_and(|(start, other)| start + other.len > host.address()) {
            return Err(Code::HOST_MEMORY_ALREADY_REGISTERED);
        }
        pinned.insert(host.address(), Pinned { context, len, flags, pages: None });
        Ok(())
    }

    /// Undoes `cuMemHostRegister`.
    fn cuMemHostUnregister(host: Host) {
        let driver = driver()?;
        let context = attached(driver)?;
        queue::finish_all(driver, &context)?;
        let mut pinned = lock(&driver.pinned);
        match pinned.get(&host.address()) {
            Some(Pinned { pages: None, .. }) => drop(pinned.remove(&host.address())),
            _ => return Err(Code::HOST_MEMORY_NOT_REGISTERED),
        }
        context.check()
    }

    /// Kernels cannot use host memory here.
    fn cuMemHostGetDevicePointer_v2 | cuMemHostGetDevicePointer (_out: Out<u64>, _host: Host, _flags: u32) {
        current(driver()?)?;
        Err(Code::NOT_SUPPORTED)
    }

    /// The flags that page-locked memory was allocated with.
    fn cuMemHostGetFlags(flags: Out<u32>, host: Host) {
        let driver = driver()?;
        flags.put(pinned(driver, host.address(), |pinned| pinned.flags).ok_or(Code::INVALID_VALUE)?.1)
    }

    /// The pool that the device begins with.
    fn cuDeviceGetDefaultMemPool(pool: Out<usize>, device: i32) {
        let driver = check_device(device)?;
        pool.put(driver.default_pool)
    }

    /// The pool of the device.
    fn cuDeviceGetMemPool(pool: Out<usize>, device: i32) {
        pool.put(check_device(device)?.current_pool.load(Relaxed))
    }

    /// Sets the pool of the device.
    fn cuDeviceSetMemPool(device: i32, pool: usize) {
        let driver = check_device(device)?;
        driver.pools.get(pool)?;
        driver.current_pool.store(pool, Relaxed);
        Ok(())
    }

    /// Makes a pool.
    fn cuMemPoolCreate(pool: Out<usize>, properties: Host) {
        let driver = driver()?;
        if properties.is_null() || !pool.wanted() {
            return Err(Code::INVALID_VALUE);
        }
        pool.put(driver.pools.insert(Pool::default()))
    }

    /// Destroys a pool; what came from it lives on.
    fn cuMemPoolDestroy(pool: usize) {
        let driver = driver()?;
        if pool == driver.default_pool {
            return Err(Code::INVALID_VALUE);
        }
        driver.pools.remove(pool)?;
        let _ = driver.current_pool.compare_exchange(pool, driver.default_pool, Relaxed, Relaxed);
        Ok(())
    }

    /// An attribute of a pool: three flags, then numbers of bytes.
    fn cuMemPoolGetAttribute(pool: usize, attribute: i32, out: Out<u64>) {
        let driver = driver()?;
        let pool = driver.pools.get(pool)?;
        let settings = lock(&pool.settings);
        match attribute {
            1..=3 => out.cast().put(settings[attribute as usize - 1] as i32),
            4 => out.put(settings[3]),
            5..=8 => out.put(driver.device.memory.used()),
            _ => Err(Code::INVALID_VALUE),
        }
    }

    /// Sets an attribute of a pool.
    fn cuMemPoolSetAttribute(pool: usize, attribute: i32, value: Out<u64>) {
        let pool = driver()?.pools.get(pool)?;
        let mut settings = lock(&pool.settings);
        match attribute {
            1..=3 => settings[attribute as usize - 1] = value.cast::<i32>().get()? as u64,
            4 => settings[3] = value.get()?,
            // High-water marks can be reset.
            6 | 8 if value.get()? == 0 => {}
            _ => return Err(Code::INVALID_VALUE),
        }
        Ok(())
    }

    /// Gives unused memory of a pool back; none is kept.
    fn cuMemPoolTrimTo(pool: usize, _keep: usize) {
        driver()?.pools.get(pool).map(drop)
    }

    /// Copies between any two places.
    fn cuMemcpy(dst: Host, src: Host, len: usize) {
        let driver = driver()?;
        copy(Place::of(driver, dst), Place::of(driver, src), len)
    }

    /// Copies between any two places.
    fn cuMemcpyAsync(dst: Host, src: Host, len: usize, stream: CUstream) {
        let driver = driver()?;
        copy_async(Place::of(driver, dst), Place::of(driver, src), len, stream)
    }

    /// Copies to the device.
    fn cuMemcpyHtoD_v2 | cuMemcpyHtoD (dst: u64, src: Host, len: usize) {
        copy(Place::Device(dst), Place::Host(src), len)
    }

    /// Copies to the device.
    fn cuMemcpyHtoDAsync_v2 | cuMemcpyHtoDAsync (dst: u64, src: Host, len: usize, stream: CUstream) {
        copy_async(Place::Device(dst), Place::Host(src), len, stream)
    }

    /// Copies to the host.
    fn cuMemcpyDtoH_v2 | cuMemcpyDtoH (dst: Host, src: u64, len: usize) {
        copy(Place::Host(dst), Place::Device(src), len)
    }

    /// Copies to the host.
    fn cuMemcpyDtoHAsync_v2 | cuMemcpyDtoHAsync (dst: Host, src: u64, len: usize, stream: CUstream) {
        copy_async(Place::Host(dst), Place::Device(src), len, stream)
    }

    /// Copies inside the device.
    fn cuMemcpyDtoD_v2 | cuMemcpyDtoD (dst: u64, src: u64, len: usize) {
        copy(Place::Device(dst), Place::Device(src), len)
    }

    /// Copies inside the device.
    fn cuMemcpyDtoDAsync_v2 | cuMemcpyDtoDAsync (dst: u64, src: u64, len: usize, stream: CUstream) {
        copy_async(Place::Device(dst), Place::Device(src), len, stream)
    }

    /// Copies between contexts, which are of one device here.
    fn cuMemcpyPeer(dst: u64, _dst_context: usize, src: u64, _src_context: usize, len: usize) {
        copy(Place::Device(dst), Place::Device(src), len)
    }

    /// Copies between contexts, which are of one device here.
    fn cuMemcpyPeerAsync(
        dst: u64,
        _dst_context: usize,
        src: u64,
        _src_context: usize,
        len: usize,
        stream: CUstream,
    ) {
        copy_async(Place::Device(dst), Place::Device(src), len, stream)
    }

    /// Copies rows.
    fn cuMemcpy2D_v2 | cuMemcpy2D (copy: In<Copy2D>) {
        copy_2d(copy, 0, Wait::Yes)
    }

    /// Copies rows.
    fn cuMemcpy2DUnaligned_v2 | cuMemcpy2DUnaligned (copy: In<Copy2D>) {
        copy_2d(copy, 0, Wait::Yes)
    }

    /// Copies rows.
    fn cuMemcpy2DAsync_v2 | cuMemcpy2DAsync (copy: In<Copy2D>, stream: CUstream) {
        copy_2d(copy, stream, Wait::Pageable)
    }

    /// Sets bytes.
    fn cuMemsetD8_v2 | cuMemsetD8 (addr: u64, value: u8, count: usize) {
        fill(addr, [value], (0, count, 1), 0)
    }

    /// Sets bytes.
    fn cuMemsetD8Async(addr: u64, value: u8, count: usize, stream: CUstream) {
        fill(addr, [value], (0, count, 1), stream)
    }

    /// Sets 16-bit words.
    fn cuMemsetD16_v2 | cuMemsetD16 (addr: u64, value: u16, count: usize) {
        fill(addr, value.to_le_bytes(), (0, count, 1), 0)
    }

    /// Sets 16-bit words.
    fn cuMemsetD16Async(addr: u64, value: u16, count: usize, stream: CUstream) {
        fill(addr, value.to_le_bytes(), (0, count, 1), stream)
    }

    /// Sets 32-bit words.
    fn cuMemsetD32_v2 | cuMemsetD32 (addr: u64, value: u32, count: usize) {
        fill(addr, value.to_le_bytes(), (0, count, 1), 0)
    }

    /// Sets 32-bit words.
    fn cuMemsetD32Async(addr: u64, value: u32, count: usize, stream: CUstream) {
        fill(addr, value.to_le_bytes(), (0, count, 1), stream)
    }

    /// Sets rows of bytes.
    fn cuMemsetD2D8_v2 | cuMemsetD2D8 (addr: u64, pitch: usize, value: u8, width: usize, rows: usize) {
        fill(addr, [value], (pitch, width, rows), 0)
    }

    /// Sets rows of bytes.
    fn cuMemsetD2D8Async(addr: u64, pitch: usize, value: u8, width: usize, rows: usize, stream: CUstream) {
        fill(addr, [value], (pitch, width, rows), stream)
    }

    /// Sets rows of 16-bit words.
    fn cuMemsetD2D16_v2 | cuMemsetD2D16 (addr: u64, pitch: usize, value: u16, width: usize, rows: usize) {
        fill(addr, value.to_le_bytes(), (pitch, width, rows), 0)
    }

    /// Sets rows of 16-bit words.
    fn cuMemsetD2D16Async(addr: u64, pitch: usize, value: u16, width: usize, rows: usize, stream: CUstream) {
        fill(addr, value.to_le_bytes(), (pitch, width, rows), stream)
    }

    /// Sets rows of 32-bit words.
    fn cuMemsetD2D32_v2 | cuMemsetD2D32 (addr: u64, pitch: usize, value: u32, width: usize, rows: usize) {
        fill(addr, value.to_le_bytes(), (pitch, width, rows), 0)
    }

    /// Sets rows of 32-bit words.
    fn cuMemsetD2D32Async(addr: u64, pitch: usize, value: u32, width: usize, rows: usize, stream: CUstream) {
        fill(addr, value.to_le_bytes(), (pitch, width, rows), stream)
    }
}
