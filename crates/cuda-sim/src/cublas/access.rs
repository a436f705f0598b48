//! Operands in device memory: where their elements lie, and checked loads and stores of them.

use std::ffi::c_void;
use std::sync::Arc;

use super::element::Element;
use super::status::{Result, Status};
use crate::device::Device;
use crate::driver::Code;
use crate::memory::{AccessError, Region};

/// The outcome of work on the device.
pub(super) type Done<T = ()> = std::result::Result<T, Code>;

/// Where the elements of a column-major matrix lie, counted in elements from the operand's address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) element: Element,
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Of element (0, 0).
    origin: i64,
    row_stride: i64,
    col_stride: i64,
}

impl Layout {
    /// A matrix with leading dimension `ld`.
    pub(super) fn matrix(element: Element, rows: usize, cols: usize, ld: i64) -> Self {
        Self { element, rows, cols, origin: 0, row_stride: 1, col_stride: ld }
    }

    /// A vector of one column. As in BLAS, the elements of one with a negative increment lie in reverse.
    pub(super) fn vector(element: Element, len: usize, increment: i64) -> Self {
        let origin = if increment < 0 { -increment * (len as i64 - 1).max(0) } else { 0 };
        Self { element, rows: len, cols: 1, origin, row_stride: increment, col_stride: 0 }
    }

    /// Elements.
    fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// The least and the greatest place of an element.
    fn extent(&self) -> (i64, i64) {
        // Saturated, a place is outside of any memory.
        let rows = (self.rows as i64 - 1).saturating_mul(self.row_stride);
        let cols = (self.cols as i64 - 1).saturating_mul(self.col_stride);
        let sum = |rows: i64, cols: i64| self.origin.saturating_add(rows).saturating_add(cols);
        (sum(rows.min(0), cols.min(0)), sum(rows.max(0), cols.max(0)))
    }

    /// Places and lengths of the pieces without gaps, column after column.
    fn pieces(&self) -> impl Iterator<Item = (i64, usize)> {
        let layout = *self;
        let (cols, count, len) = if layout.row_stride != 1 {
            (layout.cols, layout.rows, 1)
        } else if layout.col_stride != layout.rows as i64 {
            (layout.cols, 1, layout.rows)
        } else {
            (1, 1, layout.len())
        };
        (0..cols as i64).flat_map(move |j| {
            (0..count as i64).map(move |i| (layout.origin + i * layout.row_stride + j * layout.col_stride, len))
        })
    }
}

/// Loads and stores on behalf of one call, which it names when it reports a defect.
#[derive(Clone, Copy)]
pub(super) struct Access<'a> {
    pub(super) device: &'a Device,
    pub(super) call: &'static str,
}

impl Access<'_> {
    /// The values of an operand, dense and column-major.
    ///
    /// # Errors
    /// Where one lies outside the operand's allocation, or nothing has written it.
    pub(super) fn load(&self, operand: &str, at: u64, layout: &Layout) -> Done<Vec<f64>> {
        let bytes = self.read(operand, at, layout)?;
        let mut values = Vec::with_capacity(layout.len());
        layout.element.decode(&bytes, &mut values);
        Ok(values)
    }

    /// The addresses in an array on the device.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub(super) fn addresses(&self, operand: &str, at: u64, count: usize) -> Done<Vec<u64>> {
        // Any type of 8 bytes will do for its bounds.
        let bytes = self.read(operand, at, &Layout::vector(Element::F64, count, 1))?;
        Ok(bytes.as_chunks().0.iter().map(|address| u64::from_le_bytes(*address)).collect())
    }

    /// The bytes of an operand's elements.
    fn read(&self, operand: &str, at: u64, layout: &Layout) -> Done<Vec<u8>> {
        let size = layout.element.size();
        if layout.len() == 0 {
            return Ok(Vec::new());
        }
        let (region, base) = self.find(operand, "reads", at, layout)?;
        let mut bytes = vec![0; layout.len() * size];
        let mut rest = &mut bytes[..];
        for (place, len) in layout.pieces() {
            let offset = base.wrapping_add_signed(place * size as i64);
            if !region.all_written() {
                let mut offsets = (offset..).step_by(size).take(len);
                if let Some(offset) = offsets.find(|offset| !region.written(*offset, size as u64)) {
                    let address = region.base() + offset;
                    self.report(operand, format_args!("reads {size} bytes at {address:#x}, which nothing has written"));
                    return Err(Code::LAUNCH_FAILED);
                }
            }
            let (piece, later) = rest.split_at_mut(len * size);
            region.read(offset, piece);
            self.device.moved(region.base() + offset, (len * size) as u64, false);
            rest = later;
        }
        Ok(bytes)
    }

    /// Checks that the elements of an operand can be stored to.
    ///
    /// # Errors
    /// Where one lies outside the operand's allocation, or in constant memory.
    pub(super) fn writable(&self, operand: &str, at: u64, layout: &Layout) -> Done<(Arc<Region>, u64)> {
        let (region, base) = self.find(operand, "writes", at, layout)?;
        if region.read_only() {
            self.report(operand, format_args!("writes read-only memory at {at:#x}"));
            return Err(Code::ILLEGAL_ADDRESS);
        }
        Ok((region, base))
    }

    /// Stores dense column-major values to the elements of an operand.
    ///
    /// # Errors
    /// As [`writable`](Self::writable).
    pub(super) fn store(&self, operand: &str, at: u64, layout: &Layout, values: &[f64]) -> Done {
        if layout.len() == 0 {
            return Ok(());
        }
        let (region, base) = self.writable(operand, at, layout)?;
        let size = layout.element.size();
        let (mut bytes, mut rest) = (Vec::new(), values);
        for (place, len) in layout.pieces() {
            let (piece, later) = rest.split_at(len);
            rest = later;
            bytes.clear();
            layout.element.encode(piece, &mut bytes);
            let offset = base.wrapping_add_signed(place * size as i64);
            region.write(offset, &bytes);
            self.device.moved(region.base() + offset, bytes.len() as u64, true);
        }
        Ok(())
    }

    /// The allocation that covers an operand, and the offset of `at` in it.
    fn find(&self, operand: &str, verb: &str, at: u64, layout: &Layout) -> Done<(Arc<Region>, u64)> {
        let size = layout.element.size() as u64;
        if !at.is_multiple_of(size) {
            self.report(operand, format_args!("{verb} {size}-byte elements at {at:#x}, which is misaligned"));
            return Err(Code::MISALIGNED_ADDRESS);
        }
        let (least, greatest) = layout.extent();
        let first = at.saturating_add_signed(least.saturating_mul(size as i64));
        let bytes = greatest.abs_diff(least).saturating_add(1).saturating_mul(size);
        match self.device.memory.region(first, bytes) {
            Ok(region) => {
                let base = at.wrapping_sub(region.base());
                return Ok((region, base));
            }
            Err(AccessError::Freed { .. }) => {
                self.report(operand, format_args!("{verb} {bytes} bytes at {first:#x}, which was freed"));
            }
            Err(AccessError::Unmapped { .. }) => match self.device.memory.region(first, 0) {
                Ok(region) => {
                    let (base, len) = (region.base(), region.len());
                    let beyond = first - base + bytes - len;
                    self.report(operand, format_args!("{verb} {beyond} bytes beyond the {len} bytes at {base:#x}"));
                }
                Err(_) => {
                    self.report(operand, format_args!("{verb} {bytes} bytes at {first:#x}, outside every allocation"))
                }
            },
        }
        Err(Code::ILLEGAL_ADDRESS)
    }

    fn report(&self, operand: &str, what: std::fmt::Arguments<'_>) {
        eprintln!("cudrift-sim: {}: {operand} {what}", self.call);
    }
}

/// alpha or beta.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar {
    /// Read from host memory by the call.
    Value(f64),
    /// Read from device memory when the work runs.
    Device {
        /// Where.
        at: u64,
        /// Of which type.
        element: Element,
    },
}

impl Scalar {
    /// What `pointer` leads to.
    ///
    /// # Errors
    /// Where it is null.
    ///
    /// # Safety
    /// Unless `on_device`, a pointer other than null is valid for a read of `element`.
    pub(super) unsafe fn new(pointer: *const c_void, element: Element, on_device: bool) -> Result<Self> {
        if pointer.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        if on_device {
            return Ok(Self::Device { at: pointer.addr() as u64, element });
        }
        // SAFETY: valid for a read of as many bytes, as the caller promises.
        let bytes = unsafe { std::slice::from_raw_parts(pointer.cast::<u8>(), element.size()) };
        let mut value = Vec::with_capacity(1);
        element.decode(bytes, &mut value);
        Ok(Self::Value(value[0]))
    }

    /// Its value, now.
    ///
    /// # Errors
    /// As [`Access::load`].
    pub(super) fn value(self, access: Access<'_>, name: &str) -> Done<f64> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Device { at, element } => Ok(access.load(name, at, &Layout::vector(element, 1, 1))?[0]),
        }
    }
}
