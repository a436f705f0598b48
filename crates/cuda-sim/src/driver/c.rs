//! The border to C: pointer types with checked accessors, and the shape of an exported function.
//!
//! Every exported function takes its pointers as these types. Only C makes values of them (their fields are private to
//! this file), and the contract of the C API is what makes following them sound; so that is said, and `unsafe` needed,
//! here and nowhere else.

use std::alloc::{self, Layout};
use std::ffi::{CStr, c_char, c_void};
use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::OnceLock;

use super::{CUresult, Code};

/// Defines exported functions: `fn name | alias (arguments) { body }`, where the body is a `Result<(), Code>`.
macro_rules! api {
    (@aliases $name:ident $arguments:tt $($alias:ident)*) => {
        $($crate::driver::c::api!(@alias $name $alias $arguments);)*
    };
    (@alias $name:ident $alias:ident ($($argument:ident: $type:ty),*)) => {
        #[doc = concat!("The plain spelling of `", stringify!($name), "`.")]
        #[unsafe(no_mangle)]
        pub extern "C" fn $alias($($argument: $type),*) -> $crate::driver::CUresult {
            $name($($argument),*)
        }
    };
    ($(
        $(#[$attribute:meta])*
        fn $name:ident $(| $alias:ident)* ($($argument:ident: $type:ty),* $(,)?) $body:block
    )*) => {$(
        $(#[$attribute])*
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $type),*) -> $crate::driver::CUresult {
            $crate::driver::c::call(stringify!($name), || $body)
        }
        $crate::driver::c::api!(@aliases $name ($($argument: $type),*) $($alias)*);
    )*};
}
pub(crate) use api;

/// Writes a call to the file that `CUDRIFT_SIM_CALLS` names, if one is named.
pub(super) fn note(name: &str) {
    static FILE: OnceLock<Option<File>> = OnceLock::new();
    let open = || {
        let path = std::env::var_os("CUDRIFT_SIM_CALLS")?;
        let file = File::options().append(true).create(true).open(&path);
        file.inspect_err(|error| eprintln!("cudrift-sim: CUDRIFT_SIM_CALLS is {path:?}: {error}")).ok()
    };
    if let Some(mut file) = FILE.get_or_init(open).as_ref()
        && let Err(error) = file.write_all(format!("{name}\n").as_bytes())
    {
        eprintln!("cudrift-sim: cannot write to CUDRIFT_SIM_CALLS: {error}");
    }
}

/// Runs the body of an exported function; no panic crosses the border.
pub(crate) fn call(name: &str, body: impl FnOnce() -> Result<(), Code>) -> CUresult {
    note(name);
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code.0,
        Err(_) => {
            eprintln!("cudrift-sim: internal error, see the panic above");
            Code::UNKNOWN.0
        }
    }
}

/// Where C wants an answer.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// Nowhere.
    pub const NULL: Self = Self(std::ptr::null_mut());

    /// Is an answer wanted?
    pub fn wanted(self) -> bool {
        !self.0.is_null()
    }

    /// Answers.
    pub fn put(self, value: T) -> Result<(), Code> {
        self.put_at(0, value)
    }

    /// Answers if an answer is wanted.
    pub fn put_if_wanted(self, value: T) {
        if self.wanted() {
            let _ = self.put(value);
        }
    }

    /// Answers in element `index` of an array.
    pub fn put_at(self, index: usize, value: T) -> Result<(), Code> {
        if !self.wanted() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: not null, and the C API asks for a pointer to as many writable elements as the call answers with. The
        // caller's memory need not be aligned for Rust's liking.
        unsafe { self.0.wrapping_add(index).write_unaligned(value) };
        Ok(())
    }

    /// What is there before the call, for a value that goes both ways.
    pub fn get(self) -> Result<T, Code>
    where
        T: Copy,
    {
        self.get_at(0)
    }

    /// What is in element `index` before the call.
    pub fn get_at(self, index: usize) -> Result<T, Code>
    where
        T: Copy,
    {
        In(self.0.cast_const()).at(index)
    }

    /// The same place for an answer of another type.
    pub fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }
}

impl Out<c_char> {
    /// Answers with a text in a buffer of `len` bytes, cut to fit and NUL-terminated; returns the bytes written.
    pub fn put_text(self, text: &str, len: usize) -> Result<usize, Code> {
        let count = text.len().min(len.checked_sub(1).ok_or(Code::INVALID_VALUE)?);
        for (index, byte) in text.as_bytes()[..count].iter().chain([&0]).enumerate() {
            self.put_at(index, *byte as c_char)?;
        }
        Ok(count + 1)
    }
}

/// Values that C hands over.
#[repr(transparent)]
pub struct In<T>(*const T);

impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for In<T> {}

impl<T: Copy> In<T> {
    /// Nothing.
    pub const NULL: Self = Self(std::ptr::null());

    /// Is there nothing?
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The value at `index`.
    pub fn at(self, index: usize) -> Result<T, Code> {
        if self.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: not null, and the C API asks for a pointer to as many initialised elements as the call reads.
        Ok(unsafe { self.0.wrapping_add(index).read_unaligned() })
    }
}

impl In<c_char> {
    /// A NUL-terminated text.
    pub fn text(self) -> Result<String, Code> {
        let bytes = Host(self.0.cast_mut().cast()).text_bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Code::INVALID_VALUE)
    }
}

/// Bytes of the host: the source or destination of a copy, an image, a parameter.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host(*mut c_void);

// SAFETY: a `Host` is an address. The C API lets it be used from any thread, and has the caller keep the memory there
// alive and alone until the work that names it is done.
unsafe impl Send for Host {}
// SAFETY: as for `Send`.
unsafe impl Sync for Host {}

impl Host {
    /// The null pointer.
    pub const NULL: Self = Self(std::ptr::null_mut());

    /// The address.
    pub fn address(self) -> usize {
        self.0.addr()
    }

    /// Is it the null pointer?
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The place `bytes` further.
    pub fn add(self, bytes: usize) -> Self {
        Self(self.0.wrapping_byte_add(bytes))
    }

    /// The `len` bytes there.
    pub fn bytes<'a>(self, len: usize) -> Result<&'a [u8], Code> {
        if len == 0 {
            return Ok(&[]);
        }
        if self.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: not null; the C API asks for `len` readable bytes that nobody changes until the call (or the work it
        // enqueues) is done, and the borrow is not kept longer.
        Ok(unsafe { slice::from_raw_parts(self.0.cast(), len) })
    }

    /// The `len` bytes there, to be overwritten.
    pub fn bytes_mut<'a>(self, len: usize) -> Result<&'a mut [u8], Code> {
        if len == 0 {
            return Ok(&mut []);
        }
        if self.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: not null; the C API asks for `len` writable bytes that nobody else uses until the call (or the work
        // it enqueues) is done, and the borrow is not kept longer.
        Ok(unsafe { slice::from_raw_parts_mut(self.0.cast(), len) })
    }

    /// Does the memory begin with these bytes? Reads no further than the first difference.
    pub fn starts_with(self, magic: &[u8]) -> bool {
        magic.iter().enumerate().all(|(index, byte)| In(self.0.cast::<u8>().cast_const()).at(index) == Ok(*byte))
    }

    /// A value of C's at this place.
    pub fn read<T: Copy>(self) -> Result<T, Code> {
        In(self.0.cast::<T>().cast_const()).at(0)
    }

    /// The bytes there up to a NUL.
    pub fn text_bytes<'a>(self) -> Result<&'a [u8], Code> {
        if self.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: not null, and the C API asks for a NUL-terminated string here, which is not kept after the call.
        Ok(unsafe { CStr::from_ptr(self.0.cast::<c_char>()) }.to_bytes())
    }

    /// An answer at this place.
    pub fn out<T>(self) -> Out<T> {
        Out(self.0.cast())
    }
}

/// Memory for `cuMemHostAlloc`, filled with a byte; freed when dropped.
pub struct Pages {
    start: *mut u8,
    layout: Layout,
}

// SAFETY: the pages are memory and belong to nobody's thread.
unsafe impl Send for Pages {}
// SAFETY: as for `Send`; through a shared reference only the address can be asked.
unsafe impl Sync for Pages {}

impl Pages {
    /// `len` bytes, aligned to a page.
    pub fn new(len: usize, fill: u8) -> Option<Self> {
        let layout = Layout::from_size_align(len.max(1), 4096).ok()?;
        // SAFETY: the layout's size is at least 1.
        let start = unsafe { alloc::alloc(layout) };
        if start.is_null() {
            return None;
        }
        // SAFETY: freshly allocated, `layout.size()` bytes long.
        unsafe { start.write_bytes(fill, layout.size()) };
        Some(Self { start, layout })
    }

    /// Where they are.
    pub fn host(&self) -> Host {
        Host(self.start.cast())
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and only dropped once.
        unsafe { alloc::dealloc(self.start, self.layout) };
    }
}

/// A function of the program that a stream calls.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct HostFn(Option<unsafe extern "C" fn(*mut c_void)>);

impl HostFn {
    /// Is there a function?
    pub fn is_null(self) -> bool {
        self.0.is_none()
    }

    /// Calls it.
    pub fn call(self, data: Host) {
        if let Some(function) = self.0 {
            // SAFETY: the program passed function and data together to be called so, and keeps both valid until then.
            unsafe { function(data.0) };
        }
    }
}

/// A function of the program that a stream calls with itself and the state of its work.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct StreamCallback(Option<unsafe extern "C" fn(usize, CUresult, *mut c_void)>);

impl StreamCallback {
    /// Is there a function?
    pub fn is_null(self) -> bool {
        self.0.is_none()
    }

    /// Calls it with success.
    pub fn call(self, stream: usize, data: Host) {
        if let Some(function) = self.0 {
            // SAFETY: as in `HostFn::call`.
            unsafe { function(stream, 0, data.0) };
        }
    }
}

/// A function of the program that says how much dynamic shared memory a block of a given size wants.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub struct SharedOfBlock(Option<unsafe extern "C" fn(i32) -> usize>);

impl SharedOfBlock {
    /// Its answer, or `fixed` where there is no function.
    pub fn of(self, threads: u32, fixed: usize) -> usize {
        match self.0 {
            // SAFETY: the program passed the function to be called so during this call.
            Some(function) => unsafe { function(threads as i32) },
            None => fixed,
        }
    }
}
