//! What streams do: the one way in, and its execution.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use super::c::{Host, HostFn, StreamCallback};
use super::context::Context;
use super::event::Event;
use super::graph::{self, Graph};
use super::injection::Call;
use super::launch::Grid;
use super::memory::{Fill, Transfer};
use super::queue::{self, Schedule, Ticket};
use super::stream::Stream;
use super::{CUstream, Code, Driver, LibraryCall, lock};
use crate::counters::Counters;
use crate::launch::{Launch, run};
use crate::program::Kernel;

/// One piece of work.
#[derive(Clone)]
pub(crate) enum Work {
    /// A copy.
    Copy(Transfer),
    /// A memset.
    Fill(Fill),
    /// An allocation in stream order; the address exists since the call.
    Alloc(u64),
    /// The end of an allocation, in stream order.
    Free(u64),
    /// A kernel.
    Launch(Grid),
    /// A call of the host's.
    Host {
        /// What is called.
        function: HostFn,
        /// With what.
        data: Host,
    },
    /// A call of the host's with the state of the stream.
    Callback {
        /// What is called.
        function: StreamCallback,
        /// The stream by the program's name for it.
        stream: CUstream,
        /// With what.
        data: Host,
    },
    /// Nothing: what stands before it is done when it is.
    Mark,
    /// The wait for other work.
    Wait(Arc<Ticket>),
    /// The record of an event, in a graph.
    Record(Arc<Event>),
    /// The wait for an event, in a graph.
    WaitFor(Arc<Event>),
    /// The nodes of a graph.
    Graph(Arc<Graph>),
    /// A call of cuBLAS or another library.
    Library(LibraryCall),
}

/// Appends work to a stream: to its capture where it takes part in one, which says nothing about when it is done;
/// otherwise it is done as the schedule says.
pub(super) fn enqueue(driver: &Driver, stream: &Arc<Stream>, work: Work) -> Result<Option<Arc<Ticket>>, Code> {
    stream.context.check()?;
    if let Some(participant) = lock(&stream.participant).as_mut() {
        return participant.add(work).map(|()| None);
    }
    graph::refuse_implicit_dependency(driver, stream)?;
    if !matches!(driver.schedule, Schedule::Eager) {
        let ticket = queue::put_off(driver, stream, work);
        queue::some(driver);
        return Ok(Some(ticket));
    }
    let _turn = lock(&stream.turn);
    execute(driver, &stream.context, &work)?;
    Ok(Some(Ticket::done_now()))
}

/// As [`enqueue`], and waits until the work is done where it was not captured.
pub(super) fn enqueue_and_wait(driver: &Driver, stream: &Arc<Stream>, work: Work) -> Result<(), Code> {
    enqueue(driver, stream, work)?.map_or(Ok(()), |ticket| queue::finish(driver, &ticket))
}

/// Does a piece of work now.
pub(super) fn execute(driver: &Driver, context: &Context, work: &Work) -> Result<(), Code> {
    match work {
        Work::Host { function, data } => call_host(|| function.call(*data)),
        Work::Callback { function, stream, data } => call_host(|| function.call(*stream, *data)),
        Work::Graph(graph) => {
            return graph.order(&driver.schedule).try_for_each(|work| execute_node(driver, context, work));
        }
        Work::Record(event) => event.record(Ticket::done_now()),
        // What is waited for is done, and an address is good since the call.
        Work::Mark | Work::Wait(_) | Work::WaitFor(_) | Work::Alloc(_) => {}
        Work::Free(addr) => {
            let _device = lock(&driver.execution);
            driver.release(*addr)?;
        }
        Work::Copy(copy) => {
            let _device = lock(&driver.execution);
            driver.injection.count(Call::Copy).map_err(|code| context.fail(code))?;
            copy.execute(&driver.device.memory)?;
        }
        Work::Fill(fill) => {
            let _device = lock(&driver.execution);
            driver.injection.count(Call::Copy).map_err(|code| context.fail(code))?;
            fill.execute(&driver.device.memory)?;
        }
        Work::Launch(grid) => {
            let _device = lock(&driver.execution);
            driver.injection.count(Call::Kernel).map_err(|code| context.fail(code))?;
            launch(driver, grid).map_err(|code| context.fail(code))?;
        }
        Work::Library(library) => {
            let _device = lock(&driver.execution);
            driver.injection.count(Call::Kernel).map_err(|code| context.fail(code))?;
            library(&driver.device).map_err(|code| if code.is_fault() { context.fail(code) } else { code })?;
            count(driver, "cuBLAS", [[0; 3]; 2], 0, &driver.device.of_library(), "")?;
        }
    }
    Ok(())
}

/// A node of a graph: nobody is there to be told that an argument is bad, so it is a fault.
fn execute_node(driver: &Driver, context: &Context, work: &Work) -> Result<(), Code> {
    match work {
        // The graph keeps what it allocates for its next launch.
        Work::Free(_) => Ok(()),
        Work::WaitFor(event) => event.wait(driver),
        work => execute(driver, context, work).map_err(|code| context.fault(code)),
    }
}

fn launch(driver: &Driver, grid: &Grid) -> Result<(), Code> {
    let launch = Launch {
        kernel: &grid.function.kernel,
        grid: grid.grid,
        block: grid.block,
        shared: grid.shared,
        params: &grid.params,
        cooperative: grid.cooperative,
    };
    let counted = run(&driver.device, &launch).map_err(|finding| {
        driver.report(finding.to_string());
        Code::of(&finding)
    })?;
    let lines = by_line(launch.kernel, &counted);
    count(driver, &launch.kernel.name, [grid.grid, grid.block], grid.shared, &counted, &lines)
}

/// Writes a line of what was counted, where that is asked for.
fn count(
    driver: &Driver,
    name: &str,
    [grid, block]: [[u32; 3]; 2],
    shared: u32,
    counted: &Counters,
    lines: &str,
) -> Result<(), Code> {
    let Some(file) = &driver.counters else { return Ok(()) };
    let line = format!(
        "{{\"kernel\": \"{name}\", \"grid\": {grid:?}, \"block\": {block:?}, \"shared\": {shared}, {}{lines}}}\n",
        counted.json(),
    );
    // In one write, so that lines of several processes stay whole.
    lock(file).write_all(line.as_bytes()).map_err(|error| {
        eprintln!("cudrift-sim: cannot write counters: {error}");
        Code::UNKNOWN
    })
}

/// Instructions of warps by the line of the source, where the code was compiled with `-lineinfo`.
fn by_line(kernel: &Kernel, counted: &Counters) -> String {
    let mut lines = BTreeMap::<(u32, u32), u64>::new();
    let executed = counted.details.iter().flat_map(|details| &details.executed);
    for (step, [warps, _]) in kernel.image.code.iter().zip(executed).filter(|(_, executed)| executed[0] > 0) {
        *lines.entry(step.source).or_default() += warps;
    }
    let named = lines.into_iter().filter_map(|(source, count)| {
        let (file, line) = kernel.text.source(source)?;
        Some(format!("\"{file}:{line}\": {count}"))
    });
    let named: Vec<String> = named.collect();
    if named.is_empty() {
        return String::new();
    }
    format!(", \"warp_instructions_by_line\": {{{}}}", named.join(", "))
}

thread_local! {
    static IN_HOST_FUNCTION: Cell<bool> = const { Cell::new(false) };
}

/// Is the thread inside a function that a stream calls?
pub(super) fn in_host_function() -> bool {
    IN_HOST_FUNCTION.get()
}

fn call_host(function: impl FnOnce()) {
    let outer = IN_HOST_FUNCTION.replace(true);
    function();
    IN_HOST_FUNCTION.set(outer);
}
