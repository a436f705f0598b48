//! The device's memory: allocations in an address space of its own, with a shadow that knows which bytes were written.
//!
//! Device addresses are never host addresses. Fresh bytes are poisoned, addresses are not reused, and unmapped gaps lie
//! between allocations, so that a stray access meets nothing.
//!
//! Bytes are shared between the worker threads that execute blocks. Kernels may race (that is what they are checked
//! for), so every access during a launch is a relaxed atomic of its own size; a race of the kernel is then a wrong value
//! here, as on a GPU, and not undefined behaviour of the simulator.

use std::collections::BTreeMap;
use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::touched::Touched;

/// Lowest device address.
pub const BASE: u64 = 0x10_0000_0000;
/// Alignment of every allocation, in bytes.
pub const ALIGN: u64 = 512;
/// Least unmapped distance between two allocations, in bytes.
pub const GAP: u64 = 1 << 20;
/// Byte that fresh memory is filled with. As an f32 it is a NaN, as an index it is far out of bounds.
pub const POISON: u8 = 0xff;

/// One allocation.
pub struct Region {
    base: u64,
    len: u64,
    /// `len` bytes, rounded up to words.
    words: Box<[AtomicU64]>,
    /// One bit a byte: written?
    written: Box<[AtomicU64]>,
    all_written: AtomicBool,
    read_only: bool,
    freed: AtomicBool,
    touched: OnceLock<Touched>,
    /// Held while words move together.
    together: Mutex<()>,
}

impl Region {
    fn new(base: u64, len: u64, read_only: bool) -> Option<Self> {
        let count = usize::try_from(len.div_ceil(8)).ok()?;
        let mut words = Vec::new();
        words.try_reserve_exact(count).ok()?;
        words.resize_with(count, || AtomicU64::new(u64::from_ne_bytes([POISON; 8])));
        let mut written = Vec::new();
        written.try_reserve_exact(count.div_ceil(8)).ok()?;
        written.resize_with(count.div_ceil(8), || AtomicU64::new(0));
        Some(Self {
            base,
            len,
            words: words.into(),
            written: written.into(),
            all_written: AtomicBool::new(false),
            read_only,
            freed: AtomicBool::new(false),
            touched: OnceLock::new(),
            together: Mutex::new(()),
        })
    }

    /// First device address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// No bytes?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// May kernels only read it?
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Was it freed?
    pub fn freed(&self) -> bool {
        self.freed.load(Relaxed)
    }

    /// Which blocks touched it.
    pub(crate) fn touched(&self) -> &Touched {
        self.touched.get_or_init(|| Touched::new(self.len))
    }

    /// The offset of `addr`, where `size` bytes from there lie inside.
    #[inline]
    pub fn offset(&self, addr: u64, size: u64) -> Option<u64> {
        let offset = addr.wrapping_sub(self.base);
        (offset < self.len && self.len - offset >= size).then_some(offset)
    }

    /// A pointer to the byte at `offset`.
    #[inline]
    fn at(&self, offset: u64) -> *mut u8 {
        debug_assert!(offset <= self.len);
        self.words.as_ptr().cast::<u8>().cast_mut().wrapping_add(offset as usize)
    }

    /// Panics unless `size` bytes at `offset` lie inside and are aligned to `size`, a power of two.
    #[inline]
    fn check(&self, offset: u64, size: u64) {
        assert!(offset.is_multiple_of(size) && offset < self.len && self.len - offset >= size);
    }

    /// The byte at `offset`.
    #[inline]
    pub fn load8(&self, offset: u64) -> u8 {
        self.check(offset, 1);
        // SAFETY: in bounds by the check; the bytes are only accessed atomically during a launch.
        unsafe { AtomicU8::from_ptr(self.at(offset)).load(Relaxed) }
    }

    /// The two bytes at `offset`, a multiple of 2.
    #[inline]
    pub fn load16(&self, offset: u64) -> u16 {
        self.check(offset, 2);
        // SAFETY: as in `load8`; aligned, because `words` is and the offset is.
        unsafe { AtomicU16::from_ptr(self.at(offset).cast()).load(Relaxed) }
    }

    /// The four bytes at `offset`, a multiple of 4.
    #[inline]
    pub fn load32(&self, offset: u64) -> u32 {
        self.check(offset, 4);
        // SAFETY: as in `load16`.
        unsafe { AtomicU32::from_ptr(self.at(offset).cast()).load(Relaxed) }
    }

    /// The eight bytes at `offset`, a multiple of 8.
    #[inline]
    pub fn load64(&self, offset: u64) -> u64 {
        self.check(offset, 8);
        self.words[(offset / 8) as usize].load(Relaxed)
    }

    /// Stores a byte.
    #[inline]
    pub fn store8(&self, offset: u64, value: u8) {
        self.check(offset, 1);
        // SAFETY: as in `load8`.
        unsafe { AtomicU8::from_ptr(self.at(offset)).store(value, Relaxed) }
    }

    /// Stores two bytes at a multiple of 2.
    #[inline]
    pub fn store16(&self, offset: u64, value: u16) {
        self.check(offset, 2);
        // SAFETY: as in `load16`.
        unsafe { AtomicU16::from_ptr(self.at(offset).cast()).store(value, Relaxed) }
    }

    /// Stores four bytes at a multiple of 4.
    #[inline]
    pub fn store32(&self, offset: u64, value: u32) {
        self.check(offset, 4);
        // SAFETY: as in `load16`.
        unsafe { AtomicU32::from_ptr(self.at(offset).cast()).store(value, Relaxed) }
    }

    /// Stores eight bytes at a multiple of 8.
    #[inline]
    pub fn store64(&self, offset: u64, value: u64) {
        self.check(offset, 8);
        self.words[(offset / 8) as usize].store(value, Relaxed);
    }

    /// The words at `offset`, a multiple of 8, an even number of them: all from before a [`Region::store_words`], or from
    /// after it.
    pub fn load_words(&self, offset: u64, words: &mut [u32]) {
        let _together = self.together.lock().unwrap_or_else(PoisonError::into_inner);
        for (offset, pair) in (offset..).step_by(8).zip(words.chunks_exact_mut(2)) {
            let both = self.load64(offset);
            pair.copy_from_slice(&[both as u32, (both >> 32) as u32]);
        }
    }

    /// Stores words, as [`Region::load_words`] loads them.
    pub fn store_words(&self, offset: u64, words: &[u32]) {
        let _together = self.together.lock().unwrap_or_else(PoisonError::into_inner);
        for (offset, pair) in (offset..).step_by(8).zip(words.chunks_exact(2)) {
            self.store64(offset, u64::from(pair[1]) << 32 | u64::from(pair[0]));
        }
    }

    /// Replaces the 4 bytes at `offset` by `f` of them, as one atomic operation; returns what was there.
    #[inline]
    pub fn update32(&self, offset: u64, mut f: impl FnMut(u32) -> u32) -> u32 {
        self.check(offset, 4);
        // SAFETY: as in `load16`.
        let cell = unsafe { AtomicU32::from_ptr(self.at(offset).cast()) };
        cell.fetch_update(Relaxed, Relaxed, |old| Some(f(old))).unwrap_or_else(|old| old)
    }

    /// As [`Region::update32`], 8 bytes.
    #[inline]
    pub fn update64(&self, offset: u64, mut f: impl FnMut(u64) -> u64) -> u64 {
        self.check(offset, 8);
        let cell = &self.words[(offset / 8) as usize];
        cell.fetch_update(Relaxed, Relaxed, |old| Some(f(old))).unwrap_or_else(|old| old)
    }

    /// As [`Region::update32`], 2 bytes.
    #[inline]
    pub fn update16(&self, offset: u64, mut f: impl FnMut(u16) -> u16) -> u16 {
        self.check(offset, 2);
        // SAFETY: as in `load16`.
        let cell = unsafe { AtomicU16::from_ptr(self.at(offset).cast()) };
        cell.fetch_update(Relaxed, Relaxed, |old| Some(f(old))).unwrap_or_else(|old| old)
    }

    /// Has every byte been written? Then `written` holds everywhere, and `mark` has nothing to do.
    #[inline]
    pub fn all_written(&self) -> bool {
        self.all_written.load(Relaxed)
    }

    /// Were the `size` bytes (at most 16, at a multiple of `size`) all written?
    #[inline]
    pub fn written(&self, offset: u64, size: u64) -> bool {
        let mask = ((1u64 << size) - 1) << (offset % 64);
        self.all_written() || self.written[(offset / 64) as usize].load(Relaxed) & mask == mask
    }

    /// Notes that the `size` bytes (at most 16, at a multiple of `size`) were written.
    #[inline]
    pub fn mark(&self, offset: u64, size: u64) {
        let mask = ((1u64 << size) - 1) << (offset % 64);
        let cell = &self.written[(offset / 64) as usize];
        if cell.load(Relaxed) & mask != mask {
            cell.fetch_or(mask, Relaxed);
        }
    }

    fn mark_range(&self, offset: u64, size: u64) {
        if size == 0 {
            return;
        }
        if offset == 0 && size == self.len {
            self.all_written.store(true, Relaxed);
        }
        let (first, last) = (offset, offset + size - 1);
        for word in first / 64..=last / 64 {
            let low = if word == first / 64 { first % 64 } else { 0 };
            let high = if word == last / 64 { last % 64 } else { 63 };
            self.written[word as usize].fetch_or((!0u64 >> (63 - (high - low))) << low, Relaxed);
        }
    }

    /// Offsets of bytes in the range that nothing has written; the first of them.
    fn first_unwritten(&self, offset: u64, size: u64) -> Option<u64> {
        if self.all_written() {
            return None;
        }
        (offset..offset + size).find(|&at| !self.written(at, 1))
    }

    /// Copies bytes in; for the host side of a copy, while no kernel runs.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        assert!(offset <= self.len && bytes.len() as u64 <= self.len - offset);
        // SAFETY: in bounds by the assertion; source and destination are different allocations.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(offset), bytes.len()) };
        self.mark_range(offset, bytes.len() as u64);
    }

    /// Copies bytes out; for the host side of a copy, while no kernel runs.
    pub fn read(&self, offset: u64, bytes: &mut [u8]) {
        assert!(offset <= self.len && bytes.len() as u64 <= self.len - offset);
        // SAFETY: as in `write`.
        unsafe { ptr::copy_nonoverlapping(self.at(offset), bytes.as_mut_ptr(), bytes.len()) };
    }
}

/// Why an access by the host was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessError {
    /// The bytes are not inside one allocation.
    Unmapped {
        /// First address.
        addr: u64,
        /// Bytes.
        size: u64,
    },
    /// The allocation was freed.
    Freed {
        /// First address.
        addr: u64,
    },
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmapped { addr, size } => write!(f, "{size} bytes at 0x{addr:x} are not inside one allocation"),
            Self::Freed { addr } => write!(f, "0x{addr:x} lies in an allocation that was freed"),
        }
    }
}

impl std::error::Error for AccessError {}

/// Every allocation of a device.
pub struct Memory {
    capacity: u64,
    state: Mutex<State>,
}

struct State {
    next: u64,
    used: u64,
    regions: BTreeMap<u64, Arc<Region>>,
    /// Freed ranges, base to length.
    freed: BTreeMap<u64, u64>,
}

impl Memory {
    /// An empty memory of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        let state = State { next: BASE, used: 0, regions: BTreeMap::new(), freed: BTreeMap::new() };
        Self { capacity, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in all.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Bytes allocated now.
    pub fn used(&self) -> u64 {
        self.state().used
    }

    /// Allocates `len` bytes, poisoned; the device address, or nothing where the device or the host has no room.
    pub fn alloc(&self, len: u64) -> Option<u64> {
        self.allocate(len, false)
    }

    /// Allocates and fills memory that kernels may only read.
    pub fn alloc_constant(&self, bytes: &[u8]) -> Option<u64> {
        let addr = self.allocate(bytes.len() as u64, true)?;
        self.region(addr, 0).ok()?.write(0, bytes);
        Some(addr)
    }

    fn allocate(&self, len: u64, read_only: bool) -> Option<u64> {
        let mut state = self.state();
        let size = len.checked_next_multiple_of(ALIGN)?;
        if size > self.capacity.checked_sub(state.used)? {
            return None;
        }
        let base = state.next;
        let region = Region::new(base, len, read_only)?;
        state.next = base.checked_add(size)?.checked_add(GAP)?;
        state.used += size;
        state.regions.insert(base, Arc::new(region));
        Some(base)
    }

    /// Frees the allocation that begins at `addr`.
    ///
    /// # Errors
    /// Where no allocation begins there, or it was freed before.
    pub fn free(&self, addr: u64) -> Result<(), AccessError> {
        let mut state = self.state();
        let Some(region) = state.regions.remove(&addr) else {
            let freed = state.freed.contains_key(&addr);
            return Err(if freed { AccessError::Freed { addr } } else { AccessError::Unmapped { addr, size: 0 } });
        };
        region.freed.store(true, Relaxed);
        state.used -= region.len.next_multiple_of(ALIGN);
        state.freed.insert(addr, region.len);
        Ok(())
    }

    /// The allocation that holds all of `size` bytes at `addr`.
    ///
    /// # Errors
    /// Where there is none.
    pub fn region(&self, addr: u64, size: u64) -> Result<Arc<Region>, AccessError> {
        let state = self.state();
        if let Some((_, region)) = state.regions.range(..=addr).next_back()
            && addr - region.base <= region.len
            && size <= region.len - (addr - region.base)
        {
            return Ok(region.clone());
        }
        match state.freed.range(..=addr).next_back() {
            Some((base, len)) if addr - base < *len => Err(AccessError::Freed { addr }),
            _ => Err(AccessError::Unmapped { addr, size }),
        }
    }

    /// Copies from the host.
    ///
    /// # Errors
    /// Where the bytes are not inside one allocation; nothing was written then.
    pub fn write(&self, addr: u64, bytes: &[u8]) -> Result<(), AccessError> {
        let region = self.region(addr, bytes.len() as u64)?;
        region.write(addr - region.base, bytes);
        Ok(())
    }

    /// Copies to the host.
    ///
    /// # Errors
    /// Where the bytes are not inside one allocation.
    pub fn read(&self, addr: u64, bytes: &mut [u8]) -> Result<(), AccessError> {
        let region = self.region(addr, bytes.len() as u64)?;
        region.read(addr - region.base, bytes);
        Ok(())
    }

    /// Copies `len` bytes inside the device; what was unwritten in the source is unwritten in the destination.
    ///
    /// # Errors
    /// Where either range is not inside one allocation.
    pub fn copy(&self, dst: u64, src: u64, len: u64) -> Result<(), AccessError> {
        let (from, to) = (self.region(src, len)?, self.region(dst, len)?);
        let (src, dst) = (src - from.base, dst - to.base);
        // SAFETY: both ranges are in bounds by `region`; `ptr::copy` allows overlap; no kernel runs meanwhile.
        unsafe { ptr::copy(from.at(src), to.at(dst), len as usize) };
        if from.first_unwritten(src, len).is_none() {
            to.mark_range(dst, len);
        } else {
            (0..len).filter(|at| from.written(src + at, 1)).for_each(|at| to.mark(dst + at, 1));
        }
        Ok(())
    }

    /// Fills `count` elements with `pattern`, whose length is the element's size.
    ///
    /// # Errors
    /// Where the range is not inside one allocation.
    pub fn fill(&self, addr: u64, pattern: &[u8], count: u64) -> Result<(), AccessError> {
        let len = count.saturating_mul(pattern.len() as u64);
        let region = self.region(addr, len)?;
        region.write(addr - region.base, &pattern.repeat(count as usize));
        Ok(())
    }

    /// Every allocation in order of address, for the time of a launch.
    pub fn map(&self) -> Map {
        let state = self.state();
        Map {
            regions: state.regions.values().cloned().collect(),
            freed: state.freed.iter().map(|(base, len)| (*base, *len)).collect(),
        }
    }
}

/// A snapshot of the allocations.
pub struct Map {
    regions: Vec<Arc<Region>>,
    freed: Vec<(u64, u64)>,
}

impl Map {
    /// Allocations.
    pub fn len(&self) -> usize {
        self.regions.len()
    }

    /// No allocations?
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// Index of the last allocation that begins at or below `addr`.
    pub fn find(&self, addr: u64) -> Option<usize> {
        self.regions.partition_point(|region| region.base <= addr).checked_sub(1)
    }

    /// The allocation of that index.
    #[inline]
    pub fn region(&self, index: usize) -> &Region {
        &self.regions[index]
    }

    /// Base and length of the freed allocation that `addr` lies in.
    pub fn freed(&self, addr: u64) -> Option<(u64, u64)> {
        let index = self.freed.partition_point(|(base, _)| *base <= addr).checked_sub(1)?;
        let (base, len) = self.freed[index];
        (addr - base < len).then_some((base, len))
    }
}
