//! The drift as custom calls of XLA, which JAX makes: the foreign function interface of xla/ffi/api/c_api.h.
//!
//! A call has the operands generated [B, G, D], negatives [B, N, D], positives [B, P, D], their three weights, each without
//! elements where all are 1, the attributes `spec` (the bytes of a cudrift_spec) and `phase`, and results by the phase.
//! Numbers of eight bytes are u32 [..., 2], the low half first, because JAX has f64 only where it is asked to. The state, u8
//! `[S]`, goes from phase to phase, best in one place (input_output_aliases): on a device it is the workspace, on the CPU the
//! number of the call, by which a later phase finds the plan of the earlier ones; where that is gone it does them again.
//!
//! | phase | further operands | results |
//! |---|---|---|
//! | 0, the whole | | loss `[B]`, gradient [B, G, D], numbers [3 + R, 2]: scale, sigma, nonfinite, loss_r |
//! | 1, distances | | sums [5, 2], state |
//! | 2, coefficients | sums, state | squares [8, 2], state |
//! | 3, contraction | sums, squares, state | as 0, state |

use crate::cuda::{cudrift_cuda_outputs, cudrift_cuda_plan, cudrift_cuda_scalars};
use crate::kept::{Kept, Open};
use crate::plan::{Work, cudrift_force_sums, cudrift_outputs, cudrift_scale_sums};
use crate::points::{CUDRIFT_BF16, CUDRIFT_F16, CUDRIFT_F32, CUDRIFT_F64, cudrift_inputs, cudrift_points};
use crate::spec::{CUDRIFT_MAX_TEMPERATURES, cudrift_spec};
use crate::status::{
    CUDRIFT_DEVICE, CUDRIFT_INVALID, CUDRIFT_NO_DEVICE, CUDRIFT_TOO_LARGE, Refusal, cudrift_message, guarded, null,
};
use drift::cuda::cudarc::driver::{result, sys};
use drift::cuda::{Phase, failed};
use drift::{DriftShape, DriftSpec};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::offset_of;
use std::ptr;

/// What every struct of the interface begins with.
#[repr(C)]
struct Head {
    size: usize,
    extensions: *const Extension,
}

impl Head {
    const fn of<T>() -> Self {
        Self { size: size_of::<T>(), extensions: ptr::null() }
    }
}

#[repr(C)]
struct Extension {
    size: usize,
    kind: c_int,
    next: *const Extension,
    /// Of an extension of kind [`METADATA`] alone.
    metadata: *mut Metadata,
}

const METADATA: c_int = 1;

#[repr(C)]
struct Version {
    head: Head,
    major: c_int,
    minor: c_int,
}

#[repr(C)]
struct Metadata {
    size: usize,
    version: Version,
    traits: u32,
}

/// The interface's functions, as far as they are called here.
#[repr(C)]
struct Api {
    head: Head,
    version: Version,
    internal: *const c_void,
    error_create: unsafe extern "C" fn(*mut ErrorCreate) -> *mut c_void,
    error_get_message: unsafe extern "C" fn(*mut ErrorMessage),
    error_destroy: unsafe extern "C" fn(*mut ErrorDestroy),
    handler_register: *const c_void,
    stream_get: unsafe extern "C" fn(*mut StreamGet) -> *mut c_void,
    type_register: *const c_void,
    context_get: *const c_void,
    state_set: *const c_void,
    state_get: *const c_void,
    memory_allocate: unsafe extern "C" fn(*mut MemoryAllocate) -> *mut c_void,
    memory_free: unsafe extern "C" fn(*mut MemoryFree) -> *mut c_void,
}

#[repr(C)]
struct ErrorCreate {
    head: Head,
    message: *const c_char,
    code: c_int,
}

#[repr(C)]
struct ErrorMessage {
    head: Head,
    error: *mut c_void,
    message: *const c_char,
}

#[repr(C)]
struct ErrorDestroy {
    head: Head,
    error: *mut c_void,
}

#[repr(C)]
struct StreamGet {
    head: Head,
    context: *mut c_void,
    stream: *mut c_void,
}

#[repr(C)]
struct MemoryAllocate {
    head: Head,
    context: *mut c_void,
    size: usize,
    alignment: usize,
    data: *mut c_void,
}

#[repr(C)]
struct MemoryFree {
    head: Head,
    context: *mut c_void,
    size: usize,
    data: *mut c_void,
}

/// Operands, or results.
#[repr(C)]
struct Buffers {
    head: Head,
    count: i64,
    kinds: *const c_int,
    buffers: *const *const Buffer,
}

#[repr(C)]
struct Buffer {
    head: Head,
    kind: c_int,
    data: *mut c_void,
    rank: i64,
    extents: *const i64,
}

#[repr(C)]
struct Attributes {
    head: Head,
    count: i64,
    kinds: *const c_int,
    names: *const *const Name,
    values: *const *const c_void,
}

#[repr(C)]
struct Name {
    text: *const u8,
    len: usize,
}

/// An attribute that is an array.
#[repr(C)]
struct Array {
    kind: c_int,
    count: usize,
    data: *const u8,
}

/// An attribute that is a number.
#[repr(C)]
struct Scalar {
    kind: c_int,
    value: *const i64,
}

/// A call.
#[repr(C)]
pub struct CallFrame {
    head: Head,
    api: *const Api,
    context: *mut c_void,
    stage: c_int,
    operands: Buffers,
    results: Buffers,
    attributes: Attributes,
}

// Numbers of the interface.
const ARRAY: c_int = 1;
const SCALAR: c_int = 3;
const S64: c_int = 5;
const U8: c_int = 6;
const U32: c_int = 8;
const F16: c_int = 10;
const F32: c_int = 11;
const F64: c_int = 12;
const BF16: c_int = 16;
const INVALID_ARGUMENT: c_int = 3;
const RESOURCE_EXHAUSTED: c_int = 8;
const INTERNAL: c_int = 13;
const UNAVAILABLE: c_int = 14;

/// Numbers of a cudrift_scale_sums.
const SUMS: usize = size_of::<cudrift_scale_sums>() / size_of::<f64>();

/// The drift on the CPU as a handler of XLA's foreign function interface (an XLA_FFI_Handler).
///
/// # Safety
/// XLA's promise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_xla(frame: *mut c_void) -> *mut c_void {
    // SAFETY: by # Safety.
    unsafe { handled(frame.cast(), |call| call.on_cpu()) }
}

/// The drift on CUDA devices as a handler of XLA's foreign function interface (an XLA_FFI_Handler).
///
/// # Safety
/// XLA's promise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cudrift_xla_cuda(frame: *mut c_void) -> *mut c_void {
    // SAFETY: by # Safety.
    unsafe { handled(frame.cast(), |call| call.on_device()) }
}

/// # Safety
/// `frame` comes from XLA.
unsafe fn handled(frame: *const CallFrame, work: impl FnOnce(&Call) -> Result<(), Refusal>) -> *mut c_void {
    // SAFETY: by # Safety; null is nothing.
    let Some(frame) = (unsafe { frame.as_ref() }) else { return ptr::null_mut() };
    // SAFETY: an extension of XLA's, or null.
    if let Some(extension) = unsafe { frame.head.extensions.as_ref() }
        && extension.kind == METADATA
    {
        // SAFETY: of this kind it points to metadata, which the handler is asked to fill; `api` is XLA's, or null.
        unsafe {
            let metadata = &mut *extension.metadata;
            // The structs above are the beginnings of theirs in every version 0; a later minor one appends.
            (metadata.version.major, metadata.version.minor) =
                (0, frame.api.as_ref().map_or(1, |api| api.version.minor));
            metadata.traits = 0;
        }
        return ptr::null_mut();
    }
    let status = guarded(|| {
        // SAFETY: by # Safety.
        work(&unsafe { Call::read(frame) }?)
    });
    let code = match status {
        0 => return ptr::null_mut(),
        CUDRIFT_INVALID => INVALID_ARGUMENT,
        CUDRIFT_TOO_LARGE => RESOURCE_EXHAUSTED,
        CUDRIFT_NO_DEVICE | CUDRIFT_DEVICE => UNAVAILABLE,
        _ => INTERNAL,
    };
    let mut error = ErrorCreate { head: Head::of::<ErrorCreate>(), message: cudrift_message(), code };
    // SAFETY: XLA's function, with the struct that it asks for; it copies the message.
    unsafe { ((*frame.api).error_create)(&mut error) }
}

/// A call, read and compared.
struct Call<'a> {
    frame: &'a CallFrame,
    spec: DriftSpec,
    phase: i64,
    shape: DriftShape,
    dtype: u32,
    inputs: cudrift_inputs,
    operands: &'a [&'a Buffer],
    results: &'a [&'a Buffer],
    /// Among the results of phases.
    state: Option<&'a Buffer>,
}

const NO_STATE: &str = "libcudrift: the custom call's state is to be bytes, eight or more";

impl Buffer {
    fn extents(&self) -> &[i64] {
        if self.rank <= 0 {
            return &[];
        }
        // SAFETY: XLA's promise: as many as the rank.
        unsafe { std::slice::from_raw_parts(self.extents, self.rank as usize) }
    }

    fn weights(&self) -> *const f32 {
        if self.extents().iter().product::<i64>() == 0 { ptr::null() } else { self.data.cast() }
    }
}

impl Buffers {
    /// # Safety
    /// They come from XLA.
    unsafe fn all(&self) -> &[&Buffer] {
        if self.count <= 0 {
            return &[];
        }
        // SAFETY: by # Safety, so many pointers to buffers, none of them null.
        unsafe { std::slice::from_raw_parts(self.buffers.cast(), self.count as usize) }
    }
}

impl Attributes {
    /// # Safety
    /// They come from XLA.
    unsafe fn get(&self, name: &str, kind: c_int) -> Result<*const c_void, Refusal> {
        for at in 0..self.count.max(0) as usize {
            // SAFETY: by # Safety, so many kinds, names and values.
            let (own, text, value) = unsafe { (*self.kinds.add(at), &**self.names.add(at), *self.values.add(at)) };
            // SAFETY: by # Safety, so many bytes.
            let text = unsafe { std::slice::from_raw_parts(text.text, text.len) };
            if own == kind && text == name.as_bytes() {
                return Ok(value);
            }
        }
        Err(Refusal::invalid(format!("libcudrift: the custom call has no attribute {name} of kind {kind}")))
    }
}

fn expect(what: &str, buffer: &Buffer, kind: c_int, extents: &[i64]) -> Result<(), Refusal> {
    if buffer.kind == kind && buffer.extents() == extents {
        return Ok(());
    }
    let (got, of) = (buffer.extents(), buffer.kind);
    Err(Refusal::invalid(format!(
        "libcudrift: the custom call's {what} is {got:?} of type {of}, expected {extents:?} of {kind}"
    )))
}

impl<'a> Call<'a> {
    /// # Safety
    /// The frame comes from XLA.
    unsafe fn read(frame: &'a CallFrame) -> Result<Self, Refusal> {
        // SAFETY: by # Safety.
        let (spec, phase) =
            unsafe { (frame.attributes.get("spec", ARRAY)?.cast::<Array>(), frame.attributes.get("phase", SCALAR)?) };
        // SAFETY: by # Safety; an array of bytes as long as a spec is one, whatever its alignment.
        let spec = unsafe {
            let Array { kind, count, data } = *spec;
            if kind != U8 || count != size_of::<cudrift_spec>() {
                return Err(Refusal::invalid("libcudrift: the custom call's spec is of another version of libcudrift"));
            }
            data.cast::<cudrift_spec>().read_unaligned().spec()?
        };
        // SAFETY: by # Safety.
        let phase = unsafe {
            let Scalar { kind, value } = *phase.cast::<Scalar>();
            if kind == S64 { *value } else { -1 }
        };
        // SAFETY: by # Safety.
        let (operands, results) = unsafe { (frame.operands.all(), frame.results.all()) };
        let counts = match phase {
            0 => (6, 3),
            1 => (6, 2),
            2 => (8, 2),
            3 => (9, 4),
            _ => {
                return Err(Refusal::invalid(format!(
                    "libcudrift: the custom call's phase is {phase}, expected 0 to 3"
                )));
            }
        };
        let [generated, negatives, positives, ..] = operands else { return Err(null("an operand")) };
        if (operands.len(), results.len()) != counts {
            let got = (operands.len(), results.len());
            return Err(Refusal::invalid(format!(
                "libcudrift: the custom call has {got:?} operands and results, expected {counts:?}"
            )));
        }
        let (dtype, number) = match generated.kind {
            F32 => (CUDRIFT_F32, F32),
            F16 => (CUDRIFT_F16, F32),
            BF16 => (CUDRIFT_BF16, F32),
            F64 => (CUDRIFT_F64, F64),
            other => return Err(Refusal::invalid(format!("libcudrift: XLA's type {other} is none of samples"))),
        };
        let (&[b, g, d], &[_, n, _], &[_, p, _]) = (generated.extents(), negatives.extents(), positives.extents())
        else {
            return Err(Refusal::invalid("libcudrift: samples have three extents, [B, n, D]"));
        };
        expect("negatives", negatives, generated.kind, &[b, n, d])?;
        expect("positives", positives, generated.kind, &[b, p, d])?;
        for (at, count) in [g, n, p].into_iter().enumerate() {
            let weights = operands[3 + at];
            let whole = [b, count];
            let none = weights.extents().iter().product::<i64>() == 0;
            expect("weights", weights, F32, if none { weights.extents() } else { &whole })?;
        }
        let temperatures = spec.temperatures.len() as i64;
        let squares = CUDRIFT_MAX_TEMPERATURES as i64;
        let sums = if phase == 3 { &[SUMS as i64, squares][..] } else { &[SUMS as i64] };
        for (operand, count) in operands[6..].iter().zip(sums) {
            expect("sums", operand, U32, &[*count, 2])?;
        }
        let state = if phase == 0 { None } else { results.last().copied() };
        if let Some(state) = state {
            let &[bytes] = state.extents() else { return Err(Refusal::invalid(NO_STATE)) };
            if bytes < size_of::<u64>() as i64 {
                return Err(Refusal::invalid(NO_STATE));
            }
            for state in results.last().iter().chain(operands[6..].last().iter()) {
                expect("state", state, U8, &[bytes])?;
            }
        }
        match phase {
            1 => expect("result", results[0], U32, &[SUMS as i64, 2])?,
            2 => expect("result", results[0], U32, &[squares, 2])?,
            _ => {
                expect("loss", results[0], number, &[b])?;
                expect("gradient", results[1], number, &[b, g, d])?;
                expect("numbers", results[2], U32, &[3 + temperatures, 2])?;
            }
        }
        let [b, g, n, p, d] = [b, g, n, p, d].map(|extent| extent as usize);
        let points = |buffer: &Buffer| cudrift_points { data: buffer.data, strides: ptr::null() };
        Ok(Self {
            frame,
            spec,
            phase,
            shape: DriftShape { groups: b, generated: g, negatives: n, positives: p, dim: d },
            dtype,
            inputs: cudrift_inputs {
                generated: points(generated),
                negatives: points(negatives),
                positives: points(positives),
                weight_generated: operands[3].weights(),
                weight_negatives: operands[4].weights(),
                weight_positives: operands[5].weights(),
            },
            operands,
            results,
            state,
        })
    }

    /// The state that the phase before has left.
    fn left(&self) -> Option<&'a Buffer> {
        self.operands[6..].last().copied()
    }

    fn on_cpu(&self) -> Result<(), Refusal> {
        let mut scale = cudrift_scale_sums::default();
        let mut force = cudrift_force_sums::default();
        let mut loss_r = [0.0; CUDRIFT_MAX_TEMPERATURES];
        let mut outputs = cudrift_outputs {
            force: ptr::null_mut(),
            gradient: ptr::null_mut(),
            goal: ptr::null_mut(),
            loss: ptr::null_mut(),
            loss_r: loss_r.as_mut_ptr(),
            marginal_error: ptr::null_mut(),
            iterations: ptr::null_mut(),
            scale: 0.0,
            sigma: 0.0,
            nonfinite: 0,
        };
        if let [loss, gradient, _, ..] = self.results {
            (outputs.loss, outputs.gradient) = (loss.data, gradient.data);
        }
        // SAFETY: `read` has compared the extents of the state: eight bytes or more.
        let number = |state: &Buffer| unsafe { state.data.cast::<u64>().read_unaligned() };
        let open = self.left().map(|state| Open { call: number(state), done: self.phase - 1 });
        let mut kept = Kept::take(self.spec.clone(), self.shape, self.dtype, open)?;
        // SAFETY: there are no strides.
        let open = kept.open.take().filter(|_| unsafe { kept.plan.began_with(&self.inputs) });
        let done = open.map_or(0, |open| open.done);
        // SAFETY: `read` compared every buffer with the shape; results are nobody else's (XLA's promise).
        let on = |work: Work| unsafe { work.on(&kept.plan, &self.inputs) };
        if self.phase == 0 {
            on(Work::Whole { outputs: &mut outputs })?;
        } else if done == 0 {
            on(Work::Distances { sums: &mut scale })?;
        }
        if self.phase >= 2 {
            // SAFETY: `read` has compared its extents: so many numbers of eight bytes.
            scale = unsafe { self.operands[6].data.cast::<cudrift_scale_sums>().read_unaligned() };
            if done < 2 {
                on(Work::Coefficients { scale: &scale, sums: &mut force })?;
            }
        }
        if self.phase == 3 {
            // SAFETY: likewise, a number for each temperature that there can be.
            force.squares = unsafe { self.operands[7].data.cast::<[f64; CUDRIFT_MAX_TEMPERATURES]>().read_unaligned() };
            force.groups = scale.groups;
            on(Work::Contraction { scale: &scale, force: &force, outputs: &mut outputs })?;
        }
        if let Some(state) = self.state {
            let call = open.map_or_else(Open::number, |open| open.call);
            // SAFETY: `read` has compared its extents: eight bytes or more.
            unsafe { state.data.cast::<u64>().write_unaligned(call) };
            kept.open = (self.phase < 3).then_some(Open { call, done: self.phase });
        }
        kept.keep();
        let write = |at: usize, numbers: &[f64]| {
            let to = self.results[at].data;
            // SAFETY: `read` has compared the extents of the result: so many numbers of eight bytes.
            unsafe { ptr::copy_nonoverlapping(numbers.as_ptr().cast::<u8>(), to.cast(), size_of_val(numbers)) };
        };
        match self.phase {
            // SAFETY: `read` has compared its extents: so many numbers of eight bytes.
            1 => unsafe { self.results[0].data.cast::<cudrift_scale_sums>().write_unaligned(scale) },
            2 => write(0, &force.squares),
            _ => {
                let mut numbers = vec![outputs.scale, outputs.sigma, outputs.nonfinite as f64];
                numbers.extend(&loss_r[..self.spec.temperatures.len()]);
                write(2, &numbers);
            }
        }
        Ok(())
    }

    fn on_device(&self) -> Result<(), Refusal> {
        let stream = self.stream()?;
        let plan = cudrift_cuda_plan::new(&self.spec, self.shape, self.dtype, device_of(stream)?, 0)?;
        let bytes = plan.workspace_bytes();
        // Of the whole, until it is appended.
        let scratch;
        let workspace = match self.state {
            None => {
                scratch = Scratch::new(self.frame, bytes)?;
                scratch.data
            }
            Some(state) if state.extents().iter().product::<i64>() >= bytes as i64 => state.data,
            Some(state) => {
                let got = state.extents();
                return Err(Refusal::invalid(format!(
                    "libcudrift: the custom call's state is {got:?}, expected {bytes}: it was lowered where there was no such device"
                )));
            }
        };
        let mut outputs = cudrift_cuda_outputs::default();
        if let [loss, gradient, _, ..] = self.results {
            (outputs.loss, outputs.gradient) = (loss.data.cast(), gradient.data.cast());
        }
        // SAFETY: `read` compared every buffer with the shape; XLA keeps them until its stream has come so far.
        let append =
            |phases: &[Phase]| unsafe { plan.append(&self.inputs, &outputs, workspace.cast(), stream, phases) };
        let copy_bytes = |to: u64, from: u64, bytes: usize| -> Result<(), Refusal> {
            // SAFETY: `read` compared the extents of XLA's side; the other lies in the workspace, which begins with scalars.
            let copied = unsafe { result::memcpy_dtod_async(to, from, bytes, stream.cast()) };
            copied.map_err(|error| failed("copying sums", error).into())
        };
        let copy = |to: u64, from: u64, count: usize| copy_bytes(to, from, count * size_of::<f64>());
        let scalar = |offset: usize| workspace as u64 + offset as u64;
        let squares = scalar(offset_of!(cudrift_cuda_scalars, squares));
        if let Some(left) = self.left().filter(|left| left.data != workspace) {
            copy_bytes(workspace as u64, left.data as u64, bytes)?;
        }
        match self.phase {
            0 => append(&Phase::RUN)?,
            1 => {
                append(&[Phase::Distances])?;
                return copy(self.results[0].data as u64, scalar(0), SUMS);
            }
            2 => {
                copy(scalar(0), self.operands[6].data as u64, SUMS)?;
                append(&[Phase::Scale, Phase::Norms])?;
                return copy(self.results[0].data as u64, squares, CUDRIFT_MAX_TEMPERATURES);
            }
            _ => {
                copy(squares, self.operands[7].data as u64, CUDRIFT_MAX_TEMPERATURES)?;
                append(&[Phase::Theta, Phase::Force])?;
            }
        }
        let numbers = self.results[2].data as u64;
        copy(numbers, scalar(offset_of!(cudrift_cuda_scalars, scale)), 2)?;
        copy(numbers + 16, scalar(offset_of!(cudrift_cuda_scalars, nonfinite)), 1)?;
        copy(numbers + 24, scalar(offset_of!(cudrift_cuda_scalars, loss_r)), self.spec.temperatures.len())
    }

    fn stream(&self) -> Result<*mut c_void, Refusal> {
        let mut get = StreamGet { head: Head::of::<StreamGet>(), context: self.frame.context, stream: ptr::null_mut() };
        // SAFETY: XLA's function, with the struct that it asks for.
        let error = unsafe { ((*self.frame.api).stream_get)(&mut get) };
        // SAFETY: what the function has just given.
        unsafe { self.frame.problem(error) }.map_or(Ok(get.stream), |problem| {
            Err(Refusal::device(format!("libcudrift: XLA gives no stream: {problem}")))
        })
    }
}

impl CallFrame {
    /// What an error of XLA's says, which is then given back; nothing where it is null.
    ///
    /// # Safety
    /// A function of the frame's has just given it.
    unsafe fn problem(&self, error: *mut c_void) -> Option<String> {
        if error.is_null() {
            return None;
        }
        let mut message = ErrorMessage { head: Head::of::<ErrorMessage>(), error, message: ptr::null() };
        let mut destroy = ErrorDestroy { head: Head::of::<ErrorDestroy>(), error };
        // SAFETY: XLA's functions, with the structs that they ask for; the message lives as long as the error.
        unsafe {
            ((*self.api).error_get_message)(&mut message);
            let text = if message.message.is_null() { c"no message" } else { CStr::from_ptr(message.message) };
            let text = text.to_string_lossy().into_owned();
            ((*self.api).error_destroy)(&mut destroy);
            Some(text)
        }
    }
}

/// Device memory of XLA's for the work that is appended until this is dropped: XLA hands it out again in the stream's order.
struct Scratch<'a> {
    frame: &'a CallFrame,
    data: *mut c_void,
    size: usize,
}

impl<'a> Scratch<'a> {
    fn new(frame: &'a CallFrame, bytes: usize) -> Result<Self, Refusal> {
        // XLA aligns to 16 at most, which is enough.
        let (size, alignment, context) = (bytes, 16, frame.context);
        let head = Head::of::<MemoryAllocate>();
        let mut allocate = MemoryAllocate { head, context, size, alignment, data: ptr::null_mut() };
        // SAFETY: XLA's function, with the struct that it asks for, and what it has just given.
        let problem = unsafe { frame.problem(((*frame.api).memory_allocate)(&mut allocate)) };
        let data = allocate.data;
        if problem.is_some() || data.is_null() {
            let problem = problem.unwrap_or_else(|| "no address".to_owned());
            return Err(Refusal::memory(format!(
                "libcudrift: XLA has no room for a workspace of {bytes} bytes: {problem}"
            )));
        }
        Ok(Self { frame, data, size })
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let Self { frame, data, size } = *self;
        let mut free = MemoryFree { head: Head::of::<MemoryFree>(), context: frame.context, size, data };
        // SAFETY: XLA's function, with the struct that it asks for; what it gave is given back once, in the stream's order.
        unsafe { frame.problem(((*frame.api).memory_free)(&mut free)) };
    }
}

/// The number of a stream's device.
fn device_of(stream: *mut c_void) -> Result<i32, Refusal> {
    drift::cuda::probe()?;
    let asked = |error| failed("asking for the stream's device", error);
    let mut context = ptr::null_mut();
    let mut device = 0;
    // SAFETY: XLA's stream, and live variables for the answers; the context is left as it was found.
    unsafe {
        sys::cuStreamGetCtx(stream.cast(), &mut context).result().map_err(asked)?;
        sys::cuCtxPushCurrent_v2(context).result().map_err(asked)?;
        let answer = sys::cuCtxGetDevice(&mut device).result();
        sys::cuCtxPopCurrent_v2(&mut context).result().map_err(asked)?;
        answer.map_err(asked)?;
    }
    Ok(device)
}
