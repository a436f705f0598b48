//! The driver API: what a program finds in libcuda, on top of a pretended device.
//!
//! Handles are numbers that only the tables here know, so a stale or foreign one is refused and never followed. All
//! work goes through [`enqueue`]: on a capturing stream it becomes a node of a graph, elsewhere it is done before the
//! call returns, or put off ([`queue`]).
//!
//! Variables of the environment choose what is pretended and what is checked:
//!
//! - `CUDRIFT_SIM_DEVICE`: `sm_80` (if it is not set), `sm_90` or `sm_120`.
//! - `CUDRIFT_SIM_DRIVER`: the driver's CUDA version, as `12.4`, and with it the newest PTX that is read.
//! - `CUDRIFT_SIM_THREADS`: host threads that execute blocks; one makes the order of atomic operations repeatable.
//! - `CUDRIFT_SIM_WATCHDOG`: instructions of a warp after which a launch is taken to hang.
//! - `CUDRIFT_SIM_WITHOUT`: checks to leave out, of `race`, `shared-init` and `global-init`, separated by commas.
//! - `CUDRIFT_SIM_WITH`: checks to add, of `global-race` and `registers`, separated by commas.
//! - `CUDRIFT_SIM_STREAMS`: when the work of streams is done: `eager` (if it is not set), before the call returns;
//!   `late`, when something waits for it; a number: at moments by chance, which begins with the number.
//! - `CUDRIFT_SIM_ORDER`: how blocks run and warps take turns: `ascending` (if it is not set), `descending`, or by
//!   chance, which begins with a number, a few instructions at a time.
//! - `CUDRIFT_SIM_ERRORS`: a number with which chance begins to move approximate results inside their documented errors.
//! - `CUDRIFT_SIM_FAIL`: what fails, as `alloc:3,launch:1` for the third allocation and the first launch: `alloc` (no
//!   room), `copy` (broken memory: the context is lost), `launch` (refused), `kernel` (dies: the context is lost),
//!   `module` and `object` (a stream, an event, a graph: no room).
//! - `CUDRIFT_SIM_MEMORY`: bytes of device memory.
//! - `CUDRIFT_SIM_LEAKS`: `1` to report what is left in a context that ends.
//! - `CUDRIFT_SIM_CALLS`: a file to which the name of every call is appended, and `library` for work of cuBLAS.
//! - `CUDRIFT_SIM_COUNTERS`: a file to which every launch appends what it executed, as one JSON object a line.

#![allow(non_snake_case, reason = "the exported names are the C header's")]

mod c;
mod context;
mod error;
mod event;
mod graph;
mod injection;
mod launch;
mod memory;
mod module;
mod occupancy;
mod queue;
mod stream;
mod work;

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::device::{Device, Order, Profile};

use c::{Out, api};
use context::{Context, Primary};
use event::Event;
use graph::{Capture, Exec, Graph, Node};
use injection::Injection;
use memory::{Pinned, Pool};
use module::{Function, Module};
use queue::Schedule;
use stream::Stream;
use work::{Work, enqueue, enqueue_and_wait};

pub(crate) use error::Code;

/// The result of a driver call, as C sees it.
pub(crate) type CUresult = i32;

/// A stream as C sees it: a number that is never followed. 0 and 1 are the legacy default stream, 2 is the thread's.
pub(crate) type CUstream = usize;

/// A call of cuBLAS or another library, as often as it is replayed.
pub(crate) type LibraryCall = Arc<dyn Fn(&Device) -> Result<(), Code> + Send + Sync>;

/// Appends library work to a stream, as a kernel of that library would be.
///
/// # Errors
/// What the work answers, or why the stream does not take it.
pub(crate) fn enqueue_library(stream: CUstream, work: LibraryCall) -> Result<(), Code> {
    c::note("library");
    let driver = driver()?;
    let stream = stream::find(driver, stream)?;
    enqueue(driver, &stream, Work::Library(work)).map(drop)
}

/// As [`enqueue_library`], and waits until the work is done where it was not captured.
///
/// # Errors
/// As [`enqueue_library`], and what goes wrong before it in the stream.
pub(crate) fn run_library(stream: CUstream, work: LibraryCall) -> Result<(), Code> {
    let driver = driver()?;
    let stream = stream::find(driver, stream)?;
    enqueue_and_wait(driver, &stream, Work::Library(work))
}

/// Locks; what a panic left behind is still consistent, because nothing here panics between two writes that belong
/// together.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A handle that was never used before.
fn new_handle() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0x1000);
    NEXT.fetch_add(0x10, Relaxed)
}

/// An object that goes down with its context.
trait Owned {
    /// The context that it was made in.
    fn context(&self) -> &Arc<Context>;
}

/// Objects by handle.
struct Table<T>(Mutex<HashMap<usize, Arc<T>>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Table<T> {
    fn insert(&self, object: T) -> usize {
        let handle = new_handle();
        self.insert_as(handle, Arc::new(object));
        handle
    }

    fn insert_as(&self, handle: usize, object: Arc<T>) {
        lock(&self.0).insert(handle, object);
    }

    fn get(&self, handle: usize) -> Result<Arc<T>, Code> {
        lock(&self.0).get(&handle).cloned().ok_or(Code::INVALID_HANDLE)
    }

    fn remove(&self, handle: usize) -> Result<Arc<T>, Code> {
        lock(&self.0).remove(&handle).ok_or(Code::INVALID_HANDLE)
    }

    /// Takes out what `gone` says of.
    fn extract(&self, gone: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        lock(&self.0).extract_if(|_, object| gone(object)).map(|(_, object)| object).collect()
    }
}

impl<T: Owned> Table<T> {
    fn count_owned(&self, context: &Arc<Context>) -> usize {
        lock(&self.0).values().filter(|object| Arc::ptr_eq(object.context(), context)).count()
    }

    fn extract_owned(&self, context: &Arc<Context>) -> Vec<Arc<T>> {
        self.extract(|object| Arc::ptr_eq(object.context(), context))
    }
}

/// Everything the driver knows.
struct Driver {
    device: Device,
    /// The CUDA version that it pretends to be of.
    version: (u32, u32),
    primary: Mutex<Primary>,
    contexts: Table<Context>,
    streams: Table<Stream>,
    events: Table<Event>,
    modules: Table<Module>,
    functions: Table<Function>,
    graphs: Table<Graph>,
    nodes: Table<Node>,
    execs: Table<Exec>,
    pools: Table<Pool>,
    default_pool: usize,
    /// The pool that stream-ordered allocations come from.
    current_pool: AtomicUsize,
    /// The context of each allocation of device memory.
    allocations: Mutex<BTreeMap<u64, Arc<Context>>>,
    /// Page-locked host memory by address.
    pinned: Mutex<BTreeMap<usize, Pinned>>,
    /// The captures under way.
    captures: Mutex<Vec<Arc<Capture>>>,
    /// When the work of streams is done.
    schedule: Schedule,
    /// Streams that have put work off.
    pending: Mutex<Vec<Arc<Stream>>>,
    /// Held while what was put off is done.
    turn: Mutex<()>,
    /// Held while something uses device memory. Host functions run without it.
    execution: Mutex<()>,
    /// What fails.
    injection: Injection,
    /// Is what a context leaves behind reported?
    leaks: bool,
    /// Where counters go.
    counters: Option<Mutex<std::fs::File>>,
    last_finding: Mutex<String>,
}

static DRIVER: OnceLock<Result<Driver, Code>> = OnceLock::new();

/// The driver, once `cuInit` made it; a host function may not use it.
fn driver() -> Result<&'static Driver, Code> {
    if work::in_host_function() {
        return Err(Code::NOT_PERMITTED);
    }
    DRIVER.get().ok_or(Code::NOT_INITIALIZED)?.as_ref().map_err(|code| *code)
}

/// A number in the environment, if it is there.
fn setting<T: std::str::FromStr>(name: &str, example: &str) -> Result<Option<T>, Code> {
    let Ok(text) = env::var(name) else { return Ok(None) };
    let number = text.parse().map(Some);
    number.map_err(|_| {
        eprintln!("cudrift-sim: {name} is {text:?}; write {example}");
        Code::INVALID_VALUE
    })
}

/// Sets the checks that a variable of the environment names, separated by commas.
fn switch(name: &str, value: bool, checks: &mut [(&str, &mut bool)]) -> Result<(), Code> {
    for word in env::var(name).unwrap_or_default().split(',').filter(|word| !word.is_empty()) {
        let Some((_, check)) = checks.iter_mut().find(|(check, _)| *check == word) else {
            let choices = checks.iter().map(|(check, _)| *check).collect::<Vec<_>>().join(", ");
            eprintln!("cudrift-sim: {name} names {word:?}; the choices are {choices}");
            return Err(Code::INVALID_VALUE);
        };
        **check = value;
    }
    Ok(())
}

impl Driver {
    /// The driver that the environment asks for.
    fn from_env() -> Result<Self, Code> {
        let device = env::var("CUDRIFT_SIM_DEVICE").unwrap_or_else(|_| "sm_80".into());
        let profile = device.strip_prefix("sm_").and_then(|arch| Profile::of(arch.parse().ok()?)).ok_or_else(|| {
            eprintln!("cudrift-sim: CUDRIFT_SIM_DEVICE is {device:?}; the choices are sm_80, sm_90 and sm_120");
            Code::INVALID_VALUE
        })?;
        let version = env::var("CUDRIFT_SIM_DRIVER").unwrap_or_else(|_| "13.5".into());
        let version = parse_version(&version).ok_or_else(|| {
            eprintln!("cudrift-sim: CUDRIFT_SIM_DRIVER is {version:?}; write a CUDA version, as 12.4");
            Code::INVALID_VALUE
        })?;
        let mut profile = profile;
        if let Some(bytes) = setting("CUDRIFT_SIM_MEMORY", "a number of bytes, as 1000000")? {
            profile.memory = bytes;
        }
        let mut device = Device::new(profile);
        if let Some(value) = setting("CUDRIFT_SIM_THREADS", "a number of threads, as 1")? {
            device.workers = value;
        }
        if let Some(value) = setting("CUDRIFT_SIM_WATCHDOG", "a number of instructions, as 1000000")? {
            device.watchdog = value;
        }
        let checks = &mut device.checks;
        switch(
            "CUDRIFT_SIM_WITH",
            true,
            &mut [("global-race", &mut checks.global_race), ("registers", &mut checks.registers)],
        )?;
        switch(
            "CUDRIFT_SIM_WITHOUT",
            false,
            &mut [
                ("race", &mut checks.race),
                ("shared-init", &mut checks.shared_init),
                ("global-init", &mut checks.global_init),
            ],
        )?;
        let order = env::var("CUDRIFT_SIM_ORDER").unwrap_or_else(|_| "ascending".into());
        device.order = parse_order(&order).ok_or_else(|| {
            let choices = "ascending, descending and a number, from which chance begins";
            eprintln!("cudrift-sim: CUDRIFT_SIM_ORDER is {order:?}; the choices are {choices}");
            Code::INVALID_VALUE
        })?;
        if let Some(seed) = setting("CUDRIFT_SIM_ERRORS", "a number from which chance begins, as 1")? {
            device.errors = seed;
        }
        let counters = match env::var_os("CUDRIFT_SIM_COUNTERS") {
            None => None,
            Some(path) => {
                let file = std::fs::File::options().append(true).create(true).open(&path).map_err(|error| {
                    eprintln!("cudrift-sim: CUDRIFT_SIM_COUNTERS is {path:?}: {error}");
                    Code::INVALID_VALUE
                })?;
                Some(Mutex::new(file))
            }
        };
        device.counting = counters.is_some();
        let schedule = env::var("CUDRIFT_SIM_STREAMS").unwrap_or_else(|_| "eager".into());
        let schedule = Schedule::parse(&schedule).ok_or_else(|| {
            let choices = "eager, late and a number, from which chance begins";
            eprintln!("cudrift-sim: CUDRIFT_SIM_STREAMS is {schedule:?}; the choices are {choices}");
            Code::INVALID_VALUE
        })?;
        let failing = env::var("CUDRIFT_SIM_FAIL").unwrap_or_default();
        let injection = Injection::parse(&failing).ok_or_else(|| {
            let example = "write alloc:3 for the third allocation, and so for copy, launch, kernel, module and object";
            eprintln!("cudrift-sim: CUDRIFT_SIM_FAIL is {failing:?}; {example}, separated by commas");
            Code::INVALID_VALUE
        })?;
        let pools = Table::default();
        let default_pool = pools.insert(Pool::default());
        Ok(Self {
            device,
            version,
            primary: Mutex::new(Primary::new()),
            contexts: Table::default(),
            streams: Table::default(),
            events: Table::default(),
            modules: Table::default(),
            functions: Table::default(),
            graphs: Table::default(),
            nodes: Table::default(),
            execs: Table::default(),
            pools,
            default_pool,
            current_pool: AtomicUsize::new(default_pool),
            allocations: Mutex::default(),
            pinned: Mutex::default(),
            captures: Mutex::default(),
            schedule,
            pending: Mutex::default(),
            turn: Mutex::default(),
            execution: Mutex::default(),
            injection,
            leaks: env::var_os("CUDRIFT_SIM_LEAKS").is_some_and(|value| value != "0"),
            counters,
            last_finding: Mutex::default(),
        })
    }

    fn profile(&self) -> &Profile {
        &self.device.profile
    }

    /// The highest `.version` of PTX that a driver of this CUDA version reads (table of the PTX ISA's release history).
    fn ptx_version(&self) -> (u32, u32) {
        match self.version {
            (12, minor @ 6..) => (8, minor - 1),
            (major, minor) => (major - 4, minor),
        }
    }

    /// Prints a finding and keeps it for `cudrift_sim_last_finding`.
    fn report(&self, text: String) {
        eprintln!("cudrift-sim: {text}");
        *lock(&self.last_finding) = text;
    }
}

fn parse_order(text: &str) -> Option<Order> {
    match text {
        "ascending" => Some(Order::Ascending),
        "descending" => Some(Order::Descending),
        seed => seed.parse().ok().map(Order::Random),
    }
}

/// `major.minor`, from 11.0.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?)).filter(|version| *version >= (11, 0))
}

api! {
    /// Makes the driver, with the device that the environment asks for.
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        DRIVER.get_or_init(Driver::from_env).as_ref().map(drop).map_err(|code| *code)
    }

    /// The CUDA version of the driver, as 13050.
    fn cuDriverGetVersion(version: Out<i32>) {
        let (major, minor) = match DRIVER.get() {
            Some(Ok(driver)) => driver.version,
            _ => Driver::from_env()?.version,
        };
        version.put((major * 1000 + minor * 10) as i32)
    }
}

/// Copies the text of the last finding, NUL-terminated and cut to `len` bytes, and returns its full length; 0 where
/// nothing was found yet. For tests; no function of CUDA's.
#[unsafe(no_mangle)]
pub extern "C" fn cudrift_sim_last_finding(buffer: Out<std::ffi::c_char>, len: usize) -> usize {
    let Some(Ok(driver)) = DRIVER.get() else { return 0 };
    let text = lock(&driver.last_finding).clone();
    if buffer.wanted() && len > 0 {
        let _ = buffer.put_text(&text, len);
    }
    text.len()
}
