//! Graphs: the capture of streams, and what comes of it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::c_char;
use std::mem;
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, ThreadId};

use super::c::{Out, api};
use super::context::{Context, attached, current};
use super::injection::Call;
use super::queue::Schedule;
use super::stream::{self, Stream};
use super::work::{Work, enqueue};
use super::{CUstream, Code, DRIVER, Driver, Owned, driver, lock, new_handle};

/// Whose calls a capture forbids that could not be captured (`CUstreamCaptureMode`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Global = 0,
    ThreadLocal = 1,
    Relaxed = 2,
}

impl Mode {
    fn of(mode: i32) -> Result<Self, Code> {
        Ok(match mode {
            0 => Self::Global,
            1 => Self::ThreadLocal,
            2 => Self::Relaxed,
            _ => return Err(Code::INVALID_VALUE),
        })
    }
}

/// A capture under way.
pub(crate) struct Capture {
    /// The context of the stream that it began in.
    pub(super) context: Arc<Context>,
    id: u64,
    origin: usize,
    mode: Mode,
    thread: ThreadId,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    nodes: Vec<Node>,
    /// Allocations made in it.
    allocations: BTreeSet<u64>,
    /// The streams that take part.
    streams: Vec<Weak<Stream>>,
    invalid: bool,
}

/// One piece of work of a graph.
pub(crate) struct Node {
    work: Work,
    /// Indices of the nodes that come before.
    after: Vec<usize>,
}

/// A stream's part in a capture.
pub(crate) struct Participant {
    /// The capture.
    pub(super) capture: Arc<Capture>,
    /// Indices of the nodes that the stream's next one comes after.
    pub(super) frontier: Vec<usize>,
}

/// A captured graph, its nodes in an order that their dependencies allow.
pub(crate) struct Graph {
    nodes: Vec<(usize, Arc<Node>)>,
}

/// A graph that can be launched.
pub(crate) struct Exec {
    context: Arc<Context>,
    graph: Arc<Graph>,
}

impl Owned for Exec {
    fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

impl Capture {
    /// Is it free of errors?
    pub(super) fn check(&self) -> Result<(), Code> {
        if lock(&self.state).invalid { Err(Code::STREAM_CAPTURE_INVALIDATED) } else { Ok(()) }
    }

    /// Spoils it: a call that it forbids was made.
    pub(super) fn invalidate(&self) {
        lock(&self.state).invalid = true;
    }

    /// Streams that still take part.
    fn streams(&self) -> Vec<Arc<Stream>> {
        lock(&self.state).streams.iter().filter_map(Weak::upgrade).collect()
    }

    /// Does it forbid unsafe calls to this thread, which is in mode `mine`?
    fn forbids(&self, mine: Mode) -> bool {
        let own = self.thread == thread::current().id();
        match self.mode {
            Mode::Relaxed => false,
            Mode::ThreadLocal => own,
            Mode::Global => own || mine == Mode::Global,
        }
    }
}

impl Participant {
    /// Appends a node.
    pub(super) fn add(&mut self, work: Work) -> Result<(), Code> {
        let mut state = lock(&self.capture.state);
        if state.invalid {
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        match work {
            Work::Alloc(addr) => drop(state.allocations.insert(addr)),
            // A graph frees only what graphs allocate.
            Work::Free(addr) if !state.allocations.contains(&addr) => return Err(Code::INVALID_VALUE),
            _ => {}
        }
        let after = mem::replace(&mut self.frontier, vec![state.nodes.len()]);
        state.nodes.push(Node { work, after });
        Ok(())
    }
}

impl Node {
    /// `CUgraphNodeType`.
    fn kind(&self) -> i32 {
        match self.work {
            Work::Launch(_) | Work::Library(_) => 0,
            Work::Copy(_) => 1,
            Work::Fill(_) => 2,
            Work::Host { .. } | Work::Callback { .. } => 3,
            Work::Graph(_) => 4,
            Work::Wait(_) | Work::WaitFor(_) => 6,
            Work::Mark | Work::Record(_) => 7,
            Work::Alloc(_) => 10,
            Work::Free(_) => 11,
        }
    }
}

impl Graph {
    /// The work of the nodes, in an order that their dependencies allow.
    pub(super) fn order(&self, schedule: &Schedule) -> impl Iterator<Item = &Work> {
        let mut left: BTreeSet<usize> = (0..self.nodes.len()).collect();
        std::iter::from_fn(move || {
            let waits = |node: &usize| self.nodes[*node].1.after.iter().any(|before| left.contains(before));
            let ready: Vec<usize> = left.iter().copied().filter(|node| !waits(node)).collect();
            let node = *ready.get(schedule.pick(ready.len()))?;
            left.remove(&node);
            Some(&self.nodes[node].1.work)
        })
    }

    /// Every dependency, as handles from and to.
    fn edges(&self) -> Vec<(usize, usize)> {
        let edges = self.nodes.iter().flat_map(|(to, node)| node.after.iter().map(|from| (self.nodes[*from].0, *to)));
        edges.collect()
    }
}

/// What the graph allocates and frees is kept between launches and ends with it.
impl Drop for Graph {
    fn drop(&mut self) {
        let Some(Ok(driver)) = DRIVER.get() else { return };
        for (_, node) in &self.nodes {
            if let Work::Free(addr) = &node.work {
                // The context may have taken it down already.
                let _ = driver.release(*addr);
            }
        }
    }
}

/// Has a stream take part in a capture, after some of its nodes.
pub(super) fn join(stream: &Arc<Stream>, capture: &Arc<Capture>, after: &[usize]) -> Result<(), Code> {
    capture.check()?;
    if stream.is_legacy() {
        capture.invalidate();
        return Err(Code::STREAM_CAPTURE_IMPLICIT);
    }
    match &mut *lock(&stream.participant) {
        Some(own) if !Arc::ptr_eq(&own.capture, capture) => {
            own.capture.invalidate();
            capture.invalidate();
            return Err(Code::STREAM_CAPTURE_MERGE);
        }
        Some(own) => {
            own.frontier.extend(after);
            own.frontier.sort_unstable();
            own.frontier.dedup();
        }
        none => {
            *none = Some(Participant { capture: capture.clone(), frontier: after.to_vec() });
            lock(&capture.state).streams.push(Arc::downgrade(stream));
        }
    }
    Ok(())
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Global) };
}

/// Refuses what could not be captured (allocation, say) while a capture forbids that to this thread, and spoils it.
pub(super) fn refuse_unsafe_call(driver: &Driver) -> Result<(), Code> {
    let mine = MODE.get();
    if mine == Mode::Relaxed {
        return Ok(());
    }
    refuse(driver, Code::STREAM_CAPTURE_UNSUPPORTED, |capture| capture.forbids(mine))
}

/// Refuses to wait for a context while streams of it are captured.
pub(super) fn refuse_captures_in(driver: &Driver, context: &Arc<Context>) -> Result<(), Code> {
    refuse(driver, Code::STREAM_CAPTURE_UNSUPPORTED, |capture| Arc::ptr_eq(&capture.context, context))
}

/// Refuses work on the legacy default stream while a stream is captured that it would wait for.
pub(super) fn refuse_implicit_dependency(driver: &Driver, stream: &Stream) -> Result<(), Code> {
    if !stream.is_legacy() {
        return Ok(());
    }
    refuse(driver, Code::STREAM_CAPTURE_IMPLICIT, |capture| {
        Arc::ptr_eq(&capture.context, &stream.context) && capture.streams().iter().any(|stream| stream.is_blocking())
    })
}

fn refuse(driver: &Driver, code: Code, concerned: impl Fn(&Capture) -> bool) -> Result<(), Code> {
    let captures = lock(&driver.captures);
    let mut result = Ok(());
    for capture in captures.iter().filter(|capture| concerned(capture)) {
        capture.invalidate();
        result = Err(code);
    }
    result
}

fn begin(driver: &Driver, stream: &Arc<Stream>, mode: Mode) -> Result<(), Code> {
    if stream.is_legacy() {
        return Err(Code::STREAM_CAPTURE_UNSUPPORTED);
    }
    let mut participant = lock(&stream.participant);
    if participant.is_some() {
        return Err(Code::ILLEGAL_STATE);
    }
    let capture = Arc::new(Capture {
        context: stream.context.clone(),
        id: new_handle() as u64,
        origin: stream.handle,
        mode,
        thread: thread::current().id(),
        state: Mutex::new(State { streams: vec![Arc::downgrade(stream)], ..State::default() }),
    });
    lock(&driver.captures).push(capture.clone());
    *participant = Some(Participant { capture, frontier: Vec::new() });
    Ok(())
}

/// Ends the capture that began in `stream`; the nodes in order.
fn end(driver: &Driver, stream: &Stream) -> Result<Vec<Node>, Code> {
    let capture = lock(&stream.participant).as_ref().ok_or(Code::ILLEGAL_STATE)?.capture.clone();
    if capture.origin != stream.handle {
        capture.invalidate();
        return Err(Code::STREAM_CAPTURE_UNMATCHED);
    }
    if capture.mode != Mode::Relaxed && capture.thread != thread::current().id() {
        return Err(Code::STREAM_CAPTURE_WRONG_THREAD);
    }
    lock(&driver.captures).retain(|other| !Arc::ptr_eq(other, &capture));
    let mut joined = Vec::new();
    let mut ends = Vec::new();
    for other in capture.streams() {
        let frontier = lock(&other.participant).take().map(|participant| participant.frontier).unwrap_or_default();
        if other.handle == stream.handle { joined = frontier } else { ends.extend(frontier) }
    }
    let state = mem::replace(&mut *lock(&capture.state), State { invalid: true, ..State::default() });
    if state.invalid {
        return Err(Code::STREAM_CAPTURE_INVALIDATED);
    }
    let ancestors = ancestors(&state.nodes, joined);
    if ends.iter().all(|node| ancestors.contains(node)) { Ok(state.nodes) } else { Err(Code::STREAM_CAPTURE_UNJOINED) }
}

/// The given nodes and all that come before them.
fn ancestors(nodes: &[Node], mut open: Vec<usize>) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    while let Some(node) = open.pop() {
        if found.insert(node) {
            open.extend(&nodes[node].after);
        }
    }
    found
}

/// `CUstreamCaptureStatus` and the capture's number.
fn status(stream: CUstream) -> Result<(i32, u64), Code> {
    let stream = stream::find(driver()?, stream)?;
    let participant = lock(&stream.participant);
    Ok(match &*participant {
        None => (0, 0),
        Some(Participant { capture, .. }) => (if capture.check().is_ok() { 1 } else { 2 }, capture.id),
    })
}

/// As [`status`], for the calls that also ask for the graph so far.
fn status_with_graph(
    stream: CUstream,
    out: Out<i32>,
    id: Out<u64>,
    graph: Out<usize>,
    dependencies: Out<usize>,
) -> Result<(), Code> {
    let (status, number) = status(stream)?;
    if status == 1 && (graph.wanted() || dependencies.wanted()) {
        return Err(Code::NOT_SUPPORTED);
    }
    out.put(status)?;
    id.put_if_wanted(number);
    Ok(())
}

fn instantiate(out: Out<usize>, graph: usize, flags: u64) -> Result<(), Code> {
    /// Free on launch, device launch.
    const AUTO_FREE: u64 = 1;
    const DEVICE_LAUNCH: u64 = 4;
    let driver = driver()?;
    let context = current(driver)?;
    let graph = driver.graphs.get(graph)?;
    if flags >= 16 || flags & AUTO_FREE != 0 && flags & DEVICE_LAUNCH != 0 || !out.wanted() {
        return Err(Code::INVALID_VALUE);
    }
    if flags & DEVICE_LAUNCH != 0 {
        return Err(Code::NOT_SUPPORTED);
    }
    driver.injection.count(Call::Object)?;
    out.put(driver.execs.insert(Exec { context, graph }))
}

/// Answers with as many values as the caller has room for, or with their number where it gives no room.
fn put_list<T: Copy>(out: Out<T>, count: Out<usize>, values: &[T]) -> Result<(), Code> {
    if out.wanted() {
        for (index, value) in values.iter().take(count.get()?).enumerate() {
            out.put_at(index, *value)?;
        }
    }
    count.put(values.len())
}

fn put_edges(
    graph: usize,
    from: Out<usize>,
    to: Out<usize>,
    data: Out<[u8; 8]>,
    count: Out<usize>,
) -> Result<(), Code> {
    let edges = driver()?.graphs.get(graph)?.edges();
    if from.wanted() != to.wanted() {
        return Err(Code::INVALID_VALUE);
    }
    let room = if from.wanted() { count.get()? } else { 0 };
    for (index, (source, target)) in edges.iter().take(room).enumerate() {
        from.put_at(index, *source)?;
        to.put_at(index, *target)?;
        if data.wanted() {
            data.put_at(index, [0; 8])?;
        }
    }
    count.put(edges.len())
}

api! {
    /// Begins to capture a stream.
    fn cuStreamBeginCapture_v2 | cuStreamBeginCapture (stream: CUstream, mode: i32) {
        let driver = driver()?;
        begin(driver, &stream::find(driver, stream)?, Mode::of(mode)?)
    }

    /// Ends the capture of a stream, with a graph.
    fn cuStreamEndCapture(stream: CUstream, out: Out<usize>) {
        let driver = driver()?;
        out.put(0)?;
        let nodes = end(driver, &*stream::find(driver, stream)?)?;
        let nodes: Vec<_> = nodes.into_iter().map(|node| (new_handle(), Arc::new(node))).collect();
        for (handle, node) in &nodes {
            driver.nodes.insert_as(*handle, node.clone());
        }
        out.put(driver.graphs.insert(Graph { nodes }))
    }

    /// Says whether a stream is captured.
    fn cuStreamIsCapturing(stream: CUstream, out: Out<i32>) {
        out.put(status(stream)?.0)
    }

    /// Says whether a stream is captured, and by which capture.
    fn cuStreamGetCaptureInfo(stream: CUstream, out: Out<i32>, id: Out<u64>) {
        let (status, number) = status(stream)?;
        out.put(status)?;
        id.put_if_wanted(number);
        Ok(())
    }

    /// As `cuStreamGetCaptureInfo`; the graph so far is not to be had.
    fn cuStreamGetCaptureInfo_v2(
        stream: CUstream,
        out: Out<i32>,
        id: Out<u64>,
        graph: Out<usize>,
        dependencies: Out<usize>,
        _count: Out<usize>,
    ) {
        status_with_graph(stream, out, id, graph, dependencies)
    }

    /// As `cuStreamGetCaptureInfo`; the graph so far is not to be had.
    fn cuStreamGetCaptureInfo_v3(
        stream: CUstream,
        out: Out<i32>,
        id: Out<u64>,
        graph: Out<usize>,
        dependencies: Out<usize>,
        _edges: Out<usize>,
        _count: Out<usize>,
    ) {
        status_with_graph(stream, out, id, graph, dependencies)
    }

    /// Exchanges the thread's capture mode.
    fn cuThreadExchangeStreamCaptureMode(mode: Out<i32>) {
        driver()?;
        let old = MODE.replace(Mode::of(mode.get()?)?);
        mode.put(old as i32)
    }

    /// Makes a graph ready for launches.
    fn cuGraphInstantiateWithFlags | cuGraphInstantiate (out: Out<usize>, graph: usize, flags: u64) {
        instantiate(out, graph, flags)
    }

    /// Makes a graph ready for launches, by the call that came before the flags.
    fn cuGraphInstantiate_v2(out: Out<usize>, graph: usize, error: Out<usize>, log: Out<c_char>, len: usize) {
        error.put_if_wanted(0);
        if log.wanted() && len > 0 {
            log.put_text("", len)?;
        }
        instantiate(out, graph, 0)
    }

    /// Launches a graph; on a capturing stream it becomes a node.
    fn cuGraphLaunch(exec: usize, stream: CUstream) {
        let driver = driver()?;
        let stream = stream::find(driver, stream)?;
        enqueue(driver, &stream, Work::Graph(driver.execs.get(exec)?.graph.clone())).map(drop)
    }

    /// Brings a graph to the device before its first launch.
    fn cuGraphUpload(exec: usize, stream: CUstream) {
        let driver = driver()?;
        stream::find(driver, stream)?;
        driver.execs.get(exec).map(drop)
    }

    /// Destroys an executable graph.
    fn cuGraphExecDestroy(exec: usize) {
        let driver = driver()?;
        driver.execs.remove(exec)?;
        attached(driver)?.check()
    }

    /// Destroys a graph; executable ones that came from it live on.
    fn cuGraphDestroy(graph: usize) {
        let driver = driver()?;
        for (node, _) in &driver.graphs.remove(graph)?.nodes {
            driver.nodes.remove(*node)?;
        }
        Ok(())
    }

    /// The nodes of a graph.
    fn cuGraphGetNodes(graph: usize, nodes: Out<usize>, count: Out<usize>) {
        let graph = driver()?.graphs.get(graph)?;
        put_list(nodes, count, &graph.nodes.iter().map(|(node, _)| *node).collect::<Vec<_>>())
    }

    /// The nodes of a graph that come after none.
    fn cuGraphGetRootNodes(graph: usize, nodes: Out<usize>, count: Out<usize>) {
        let graph = driver()?.graphs.get(graph)?;
        let roots = graph.nodes.iter().filter(|(_, node)| node.after.is_empty()).map(|(node, _)| *node);
        put_list(nodes, count, &roots.collect::<Vec<_>>())
    }

    /// The dependencies of a graph.
    fn cuGraphGetEdges_v2(graph: usize, from: Out<usize>, to: Out<usize>, data: Out<[u8; 8]>, count: Out<usize>) {
        put_edges(graph, from, to, data, count)
    }

    /// The dependencies of a graph, by the call that came before their data.
    fn cuGraphGetEdges(graph: usize, from: Out<usize>, to: Out<usize>, count: Out<usize>) {
        put_edges(graph, from, to, Out::NULL, count)
    }

    /// The kind of a node.
    fn cuGraphNodeGetType(node: usize, kind: Out<i32>) {
        kind.put(driver()?.nodes.get(node)?.kind())
    }
}
