//! Statements to operations on numbered registers.
//!
//! Each kernel becomes an [`Image`]: its code and that of every function it calls, one after another. Calls are not
//! recursive, so that every function's registers and local variables have fixed places.

mod alu;
mod floating;
mod flow;
mod live;
mod memory;
mod names;
mod warp;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

pub use alu::{WINDOW, window};
pub use live::{Touch, Usage};

use crate::counters::{Class, operations};
use crate::exec::regs::{PredSrc, Regs, Src};
use crate::ptx::{Arg, Error, Function, Instruction, Item, Module, Variable};
use names::Names;
pub(crate) use names::param_layout;

/// Marks the end of a path, where a branch target or a point of reconvergence would stand.
pub const NOWHERE: u32 = u32::MAX;

/// Something that is done to the lanes of a mask, in registers only.
pub type Lanes = Box<dyn Fn(&mut Regs, u32) + Send + Sync>;

/// An executable kernel.
#[derive(Default)]
pub struct Image {
    /// The code; execution begins at 0.
    pub code: Vec<Step>,
    /// 32-bit registers of a thread, before reuse.
    pub rows: u32,
    /// Predicates of a thread.
    pub preds: u32,
    /// Rows that hold special registers.
    pub specials: Vec<(Special, u32)>,
    /// Local memory of a thread, bytes.
    pub local: u32,
    /// Static shared memory, bytes.
    pub shared: u32,
    /// Most 32-bit registers alive at once.
    pub live: u32,
    /// Which registers the instructions read and write, in their order.
    pub touches: Vec<Touch>,
    /// Those of the function under way.
    touched: Vec<Touch>,
}

impl Image {
    /// The registers that an instruction reads and writes.
    pub fn touches(&self, step: u32) -> &[Touch] {
        let first = self.touches.partition_point(|touch| touch.step < step);
        let count = self.touches[first..].iter().take_while(|touch| touch.step == step).count();
        &self.touches[first..first + count]
    }

    /// Notes that the next instruction reads or writes a register.
    fn touch(&mut self, row: u32, bits: u32, write: bool) {
        let step = self.code.len() as u32;
        self.touched.push(Touch { step, row, rows: bits.div_ceil(32), write, usage: Usage::Computes });
    }
}

/// One instruction.
pub struct Step {
    /// What it does.
    pub op: Op,
    /// Which lanes do it.
    pub guard: Option<PredSrc>,
    /// For a branch: where its paths meet again.
    pub rejoin: u32,
    /// Does it order accesses for the whole device: a fence, an acquire or a release of that scope?
    pub orders: bool,
    /// What sort of instruction it is.
    pub class: Class,
    /// Floating-point operations of a thread, or of a warp on a tensor core.
    pub flop: u32,
    /// Line of the PTX.
    pub line: u32,
    /// File number and line of the source; 0 where unknown.
    pub source: (u32, u32),
}

/// A special register that does not change while a warp runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    Laneid,
    Warpid,
    Nwarpid,
    Smid,
    Nsmid,
    LanemaskEq,
    LanemaskLe,
    LanemaskLt,
    LanemaskGe,
    LanemaskGt,
    /// The address of the grid's barrier, low and high half; 0 where the launch is not cooperative.
    GridBarrier(usize),
    DynamicShared,
    TotalShared,
    Zero,
}

/// A state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Space {
    Generic,
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// An address: a register or nothing, and a distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Address {
    /// Where it points.
    pub space: Space,
    /// The register.
    pub base: Base,
    /// The distance, bytes.
    pub offset: i64,
}

/// The register of an address.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Base {
    None,
    Row32(u32),
    Row64(u32),
}

/// The number of bytes of an element of a load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Unit {
    Byte,
    Half,
    Word,
}

impl Unit {
    /// Bytes.
    pub fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
        }
    }
}

/// An atomic operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Atomic {
    Add,
    Min,
    Max,
    Inc,
    Dec,
    And,
    Or,
    Xor,
    Exch,
    Cas,
}

/// A copy between two places of local memory.
#[derive(Clone, Copy, Debug)]
pub struct LocalCopy {
    /// From this offset.
    pub from: u32,
    /// To this one.
    pub to: u32,
    /// Bytes.
    pub bytes: u32,
}

/// How `shfl` finds the source lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shuffle {
    Up,
    Down,
    Bfly,
    Idx,
}

/// What `vote` and `bar.red` compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Vote {
    All,
    Any,
    Uni,
    Ballot,
}

/// What the threads of a barrier reduce.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reduction {
    /// `and`, `or` or `popc`.
    pub op: Atomic,
    /// What each thread brings.
    pub pred: PredSrc,
    /// The predicate, or for `popc` (`Add`) the row, that takes the result.
    pub dst: u32,
}

/// What an instruction does.
#[allow(missing_docs)]
pub enum Op {
    /// In registers only.
    Lanes(Lanes),
    /// In registers, across all lanes of the warp.
    Whole(Lanes),
    Nop,
    Branch {
        target: u32,
    },
    Switch {
        index: Src<u32>,
        targets: Box<[u32]>,
    },
    Call {
        target: u32,
        copies: Box<[LocalCopy]>,
    },
    /// The results of a call.
    Results(Box<[LocalCopy]>),
    Return,
    Exit,
    Trap,
    /// `__assertfail`: places of its parameters in local memory.
    Assert([u32; 4]),
    Load {
        address: Address,
        unit: Unit,
        /// Where each element goes; `NOWHERE` where nothing reads it.
        rows: Box<[u32]>,
        /// Widen with sign: the row for the high half, or `NOWHERE`.
        signed: bool,
        high: u32,
        strong: bool,
    },
    Store {
        address: Address,
        unit: Unit,
        values: Box<[Src<u32>]>,
        strong: bool,
    },
    /// `atom` and `red`. `ty` says how values are combined, and whether each is one row or two.
    Atomic {
        address: Address,
        op: Atomic,
        ty: crate::ptx::Type,
        dst: Option<u32>,
        values: [Src<u64>; 2],
    },
    CopyAsync {
        to: Address,
        from: Address,
        bytes: u32,
        valid: Option<Src<u32>>,
    },
    CopyCommit,
    /// Wait until at most so many of the latest groups are pending.
    CopyWait(u32),
    Matrix {
        address: Address,
        rows: Box<[u32]>,
        transposed: bool,
        store: bool,
    },
    Shuffle {
        mode: Shuffle,
        dst: u32,
        pred: Option<u32>,
        value: Src<u32>,
        lane: Src<u32>,
        clamp: Src<u32>,
        members: Src<u32>,
    },
    Vote {
        vote: Vote,
        dst: u32,
        pred: PredSrc,
        members: Src<u32>,
    },
    Match {
        all: bool,
        dst: u32,
        pred: Option<u32>,
        /// Two rows where `wide`, else one.
        value: Src<u64>,
        wide: bool,
        members: Src<u32>,
    },
    Redux {
        op: Atomic,
        signed: bool,
        dst: u32,
        value: Src<u32>,
        members: Src<u32>,
    },
    /// One lane of the members has `pred`; all have its number.
    Elect {
        dst: u32,
        pred: u32,
        members: Src<u32>,
    },
    ActiveMask(u32),
    WarpBarrier {
        members: Src<u32>,
    },
    Barrier {
        id: Src<u32>,
        threads: Option<Src<u32>>,
        arrive: bool,
        aligned: bool,
        reduction: Option<Reduction>,
    },
    Fence,
    /// Instructions executed, low and high half.
    Clock(u32, u32),
}

/// Where the module's variables lie.
pub type Globals<'a> = HashMap<&'a str, u64>;

/// Decodes an entry with everything that it calls.
///
/// # Errors
/// At the first instruction or operand that cannot be executed here.
pub fn decode<'m, 'a>(
    module: &'m Module<'a>,
    globals: &'m Globals<'a>,
    entry: &'m Function<'a>,
    errors: u64,
) -> Result<Image, Error> {
    let mut decoder = Decoder {
        errors,
        module,
        names: Names::new(module, globals, entry)?,
        image: Image { preds: 1, ..Image::default() },
        places: HashMap::new(),
        calls: Vec::new(),
        stack: Vec::new(),
        most_called: 0,
        headers: module.files.iter().filter(|(_, name)| name.contains("/include/")).map(|file| file.0).collect(),
    };
    decoder.function(entry)?;
    for (step, name, line) in std::mem::take(&mut decoder.calls) {
        let place = decoder.places.get(name).ok_or_else(|| Error::new(line, format!("no function `{name}`")))?;
        if let Op::Call { target, .. } = &mut decoder.image.code[step].op {
            *target = place.start;
        }
    }
    decoder.image.touches.sort_by_key(|touch| touch.step);
    decoder.image.shared = decoder.names.shared_bytes();
    decoder.image.live += decoder.most_called;
    Ok(decoder.image)
}

/// The predicate that holds the carry flag of `add.cc` and its like.
pub(crate) const CARRY: u32 = 0;

/// Calls within calls, at most.
const DEEPEST: usize = 128;
/// Bytes of the parameters of a kernel, at most (5.1.6).
const MOST_PARAMS: u32 = 32_764;

struct Decoder<'m, 'a> {
    /// From where chance begins to move approximate results, or 0.
    errors: u64,
    module: &'m Module<'a>,
    names: Names<'m, 'a>,
    image: Image,
    /// Functions decoded so far.
    places: HashMap<&'a str, Place>,
    /// Calls whose target is not known yet.
    calls: Vec<(usize, &'a str, u32)>,
    /// Functions that are being decoded, to refuse recursion.
    stack: Vec<&'a str>,
    /// Most registers alive at once in a function that is called.
    most_called: u32,
    /// Files that lie in an `include` folder.
    headers: HashSet<u32>,
}

/// Does an instruction order accesses for the whole device?
fn orders(opcode: &str) -> bool {
    let mut words = opcode.split('.');
    let fence = matches!(words.next(), Some("membar" | "fence"));
    let has = |wanted: &[&str]| words.clone().any(|word| wanted.contains(&word));
    if fence { !has(&["cta"]) } else { has(&["acquire", "release", "acq_rel"]) && has(&["gpu", "sys"]) }
}

/// Where a function lies, and its parameters in local memory.
#[derive(Clone, Default)]
struct Place {
    start: u32,
    params: Vec<(u32, u32)>,
    results: Vec<(u32, u32)>,
}

/// A target to be filled in when all labels are known.
struct Fixup<'a> {
    step: usize,
    scope: usize,
    names: Vec<&'a str>,
    line: u32,
}

impl<'m, 'a> Decoder<'m, 'a> {
    /// Decodes a function, then those that it calls and that have no code yet.
    fn function(&mut self, function: &'m Function<'a>) -> Result<(), Error> {
        self.stack.push(function.name);
        if self.stack.len() > DEEPEST {
            return Err(Error::new(function.line, format!("calls more than {DEEPEST} deep: not simulated")));
        }
        let start = self.image.code.len() as u32;
        let outer = self.names.enter_function();
        if function.entry {
            let layout = param_layout(&function.params);
            let bytes = layout.last().map_or(0, |(offset, bytes)| offset.saturating_add(*bytes));
            if bytes > MOST_PARAMS {
                return Err(Error::new(function.line, format!("{bytes} bytes of parameters")));
            }
            self.names.kernel_params(&function.params);
        } else {
            let place = self.reserve(function.name, function.line)?;
            for (variable, &place) in function.params.iter().zip(&place.params) {
                self.names.bind_local(variable.name, place);
            }
            for (variable, &place) in function.results.iter().zip(&place.results) {
                self.names.bind_local(variable.name, place);
            }
            self.places.insert(function.name, Place { start, ..place });
        }
        let mut labels: HashMap<(usize, &'a str), u32> = HashMap::new();
        let mut tables: HashMap<&'a str, &Vec<&'a str>> = HashMap::new();
        for item in &function.items {
            if let Item::Targets(name, targets) = item {
                tables.insert(name, targets);
            }
        }
        let (mut fixups, mut source, mut callees) = (Vec::new(), (0, 0), Vec::new());
        for item in &function.items {
            match item {
                Item::Open => self.names.open(),
                Item::Close => self.names.close(),
                Item::Label(name, line) => {
                    let at = self.image.code.len() as u32;
                    if labels.insert((self.names.scope(), name), at).is_some() {
                        return Err(Error::new(*line, format!("the label `{name}` stands twice")));
                    }
                }
                Item::Registers { ty, name, count } => self.names.registers(*ty, name, *count),
                Item::Variable(variable) => self.names.variable(variable, &mut self.image)?,
                Item::Loc(place, inlined) => {
                    // Of an intrinsic that a header wraps, the line that calls it says more.
                    let header = self.headers.contains(&place.0);
                    source = inlined.filter(|_| header).unwrap_or(*place);
                }
                Item::Targets(..) => {}
                Item::Instruction(instruction) => {
                    let guard = match instruction.guard {
                        Some((name, negated)) => {
                            let index = self.names.pred(name, &mut self.image, instruction.line)?;
                            Some(PredSrc { index: Some(index), negated })
                        }
                        None => None,
                    };
                    let step = self.image.code.len();
                    let op = self.instruction(instruction, &tables, &mut fixups, &mut callees)?;
                    let (line, orders) = (instruction.line, orders(instruction.opcode));
                    let (class, flop) = (Class::of(instruction.opcode), operations(instruction.opcode));
                    self.image.code.push(Step { op, guard, rejoin: NOWHERE, orders, class, flop, line, source });
                    if let Op::Call { .. } = self.image.code[step].op {
                        let results = self.results(instruction)?;
                        let op = Op::Results(results);
                        let step = Step { op, guard, rejoin: NOWHERE, orders: false, class, flop: 0, line, source };
                        self.image.code.push(step);
                    }
                }
            }
        }
        // A body may end without ret.
        self.image.code.push(Step {
            op: if function.entry { Op::Exit } else { Op::Return },
            guard: None,
            rejoin: NOWHERE,
            orders: false,
            class: Class::Control,
            flop: 0,
            line: function.line,
            source,
        });
        for fixup in fixups {
            let mut targets = Vec::new();
            for name in &fixup.names {
                let target = self.names.scopes_from(fixup.scope).find_map(|scope| labels.get(&(scope, *name)));
                let target = target.ok_or_else(|| Error::new(fixup.line, format!("no label `{name}`")))?;
                targets.push(*target);
            }
            match &mut self.image.code[fixup.step].op {
                Op::Branch { target } => *target = targets[0],
                Op::Switch { targets: table, .. } => *table = targets.into(),
                _ => {}
            }
        }
        flow::rejoin(&mut self.image.code[start as usize..], start);
        let touched = std::mem::take(&mut self.image.touched);
        live::drop_unread(&mut self.image.code[start as usize..], &touched);
        let live = live::most(&self.image.code[start as usize..], start, &touched, self.image.rows);
        self.image.touches.extend(touched);
        if function.entry {
            self.image.live = live;
        } else {
            self.most_called = self.most_called.max(live);
        }
        self.names.leave_function(outer);
        for (name, line) in callees {
            if self.stack.contains(&name) {
                return Err(Error::new(line, format!("`{name}` is recursive: not simulated")));
            }
            if self.places.get(name).is_none_or(|place| place.start == NOWHERE) {
                let callee = self.callee(name, line)?;
                self.function(callee)?;
            }
        }
        self.stack.pop();
        Ok(())
    }

    fn callee(&self, name: &str, line: u32) -> Result<&'m Function<'a>, Error> {
        let found = self.module.functions.iter().find(|function| function.name == name && !function.entry);
        found.ok_or_else(|| Error::new(line, format!("no function `{name}`")))
    }

    /// Decodes one instruction.
    fn instruction(
        &mut self,
        instruction: &Instruction<'a>,
        tables: &HashMap<&'a str, &Vec<&'a str>>,
        fixups: &mut Vec<Fixup<'a>>,
        callees: &mut Vec<(&'a str, u32)>,
    ) -> Result<Op, Error> {
        let step = self.image.code.len();
        let (scope, line) = (self.names.scope(), instruction.line);
        let mut words = instruction.opcode.split('.');
        let name = words.next().unwrap_or_default();
        let mut operation = Operation {
            name,
            words: words.collect(),
            used: 0,
            read: Cell::new(0),
            instruction,
            names: &mut self.names,
            image: &mut self.image,
            errors: self.errors,
        };
        if operation.words.len() > u64::BITS as usize {
            return operation.error(format!("`{name}` with {} modifiers", operation.words.len()));
        }
        let op = match name {
            "bra" => {
                operation.modifiers(&["uni"]);
                fixups.push(Fixup { step, scope, names: vec![operation.label(0)?], line });
                Op::Branch { target: NOWHERE }
            }
            "brx" => {
                operation.modifiers(&["idx", "uni"]);
                let table = operation.label(1)?;
                let names = tables.get(table).ok_or_else(|| Error::new(line, format!("no targets `{table}`")))?;
                fixups.push(Fixup { step, scope, names: names.to_vec(), line });
                Op::Switch { index: operation.src(0)?, targets: Box::default() }
            }
            "call" => {
                operation.modifiers(&["uni"]);
                operation.finish()?;
                return self.call(instruction, step, callees);
            }
            _ => operation.decode()?,
        };
        let usage = match name {
            "mov" => Usage::Moves,
            "selp" => Usage::Selects,
            _ => Usage::Computes,
        };
        // Cut to 32 bits, an integer of 64 gives its low half alone.
        let bits = |word: &&str| word.strip_prefix(['u', 's'])?.parse::<u32>().ok();
        let widths: Vec<u32> = operation.words.iter().filter_map(bits).collect();
        let low = name == "cvt" && matches!(widths[..], [..=32, 64]) && !operation.words.contains(&"sat");
        for touch in operation.image.touched.iter_mut().rev().take_while(|touch| touch.step == step as u32) {
            touch.usage = usage;
            touch.rows = if low && !touch.write { 1 } else { touch.rows };
        }
        operation.finish()?;
        operation.operands()?;
        Ok(op)
    }

    fn call(
        &mut self,
        instruction: &Instruction<'a>,
        step: usize,
        callees: &mut Vec<(&'a str, u32)>,
    ) -> Result<Op, Error> {
        let line = instruction.line;
        let (name, args, _) = call_parts(instruction)?;
        let mut from = Vec::new();
        for arg in args {
            from.push(self.names.local_place(arg, line)?);
        }
        if name == "__assertfail" {
            let mut places = [NOWHERE; 4];
            places.iter_mut().zip(from).for_each(|(place, from)| *place = from.0);
            return Ok(Op::Assert(places));
        }
        let place = self.reserve(name, line)?;
        if place.params.len() != from.len() {
            return Err(Error::new(line, format!("`{name}` takes {} parameters", place.params.len())));
        }
        let copies = from.iter().zip(&place.params).map(|(&from, &to)| copy(from, to, to.1, line));
        let copies = copies.collect::<Result<_, _>>()?;
        self.calls.push((step, name, line));
        callees.push((name, line));
        Ok(Op::Call { target: NOWHERE, copies })
    }

    /// Gives a callee's parameters their places before its code is decoded.
    fn reserve(&mut self, name: &'a str, line: u32) -> Result<Place, Error> {
        if let Some(place) = self.places.get(name) {
            return Ok(place.clone());
        }
        let callee = self.callee(name, line)?;
        let mut places = |variables: &[Variable<'_>]| {
            variables.iter().map(|variable| names::place_local(variable, &mut self.image)).collect::<Result<_, _>>()
        };
        let place = Place { start: NOWHERE, params: places(&callee.params)?, results: places(&callee.results)? };
        self.places.insert(name, place.clone());
        Ok(place)
    }

    fn results(&mut self, instruction: &Instruction<'a>) -> Result<Box<[LocalCopy]>, Error> {
        let (name, _, results) = call_parts(instruction)?;
        let place = self.reserve(name, instruction.line)?;
        let line = instruction.line;
        if results.len() > place.results.len() {
            return Err(Error::new(line, format!("`{name}` has {} results", place.results.len())));
        }
        let copies = results.iter().zip(&place.results).map(|(arg, &from)| {
            let to = self.names.local_place(arg, line)?;
            copy(from, to, from.1, line)
        });
        copies.collect()
    }
}

/// A copy of so many bytes between two places that have room for them.
fn copy((from, held): (u32, u32), (to, room): (u32, u32), bytes: u32, line: u32) -> Result<LocalCopy, Error> {
    let least = held.min(room);
    if bytes > least {
        return Err(Error::new(line, format!("a parameter of {least} bytes, where the function has {bytes}")));
    }
    Ok(LocalCopy { from, to, bytes })
}

/// Function, arguments and results of `call (results), function, (arguments)`.
fn call_parts<'i, 'a>(instruction: &'i Instruction<'a>) -> Result<(&'a str, &'i [Arg<'a>], &'i [Arg<'a>]), Error> {
    let (results, rest) = match &instruction.args[..] {
        [Arg::List(results), rest @ ..] => (&results[..], rest),
        rest => (&[][..], rest),
    };
    match rest {
        [Arg::Name(name)] => Ok((name, &[], results)),
        [Arg::Name(name), Arg::List(args)] => Ok((name, args, results)),
        _ => Err(Error::new(instruction.line, "an indirect call: not simulated")),
    }
}

/// An instruction while it is decoded: its modifiers, of which each must be understood, and its operands.
struct Operation<'d, 'm, 'a> {
    name: &'a str,
    words: Vec<&'a str>,
    /// Bit set of the words understood.
    used: u64,
    /// How many of the operands have been looked at.
    read: Cell<usize>,
    instruction: &'d Instruction<'a>,
    names: &'d mut Names<'m, 'a>,
    image: &'d mut Image,
    errors: u64,
}
