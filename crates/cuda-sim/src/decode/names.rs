//! What names stand for: registers, variables, labels, in nested scopes.

use std::collections::{HashMap, HashSet};

use super::{Globals, Image, Space, Special};
use crate::ptx::{Arg, Error, Function, Item, Module, Type, Variable};

/// Unmapped bytes between two local variables.
const LOCAL_GAP: u32 = 16;
/// Local memory of a thread, bytes at most.
const MOST_LOCAL: u64 = 512 << 10;

/// A register: its type and its first row, or its index if it is a predicate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Register {
    pub ty: Type,
    pub at: u32,
}

/// A variable: its space, and its address there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Symbol {
    pub space: Space,
    pub value: u64,
    /// Bytes, where it is in local memory.
    pub bytes: u32,
}

/// What an operand's name was found to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Named {
    Register(Register),
    Symbol(Symbol),
}

#[derive(Default)]
struct Scope<'a> {
    parent: Option<usize>,
    registers: HashMap<&'a str, Register>,
    /// Declared names and prefixes that no instruction has used yet.
    declared: HashMap<&'a str, (Type, Option<u32>)>,
    symbols: HashMap<&'a str, Symbol>,
}

pub(super) struct Names<'m, 'a> {
    globals: &'m Globals<'a>,
    /// Shared variables of the module and of functions, by the place of their declaration.
    shared: HashMap<*const u8, u64>,
    module_shared: HashMap<&'a str, u64>,
    shared_bytes: u32,
    module: &'m Module<'a>,
    scopes: Vec<Scope<'a>>,
    current: usize,
}

impl<'m, 'a> Names<'m, 'a> {
    /// Lays out the shared memory that the entry and its callees use: static variables, then the dynamic array.
    pub fn new(module: &'m Module<'a>, globals: &'m Globals<'a>, entry: &'m Function<'a>) -> Result<Self, Error> {
        let mut names = Self {
            globals,
            shared: HashMap::new(),
            module_shared: HashMap::new(),
            shared_bytes: 0,
            module,
            scopes: vec![Scope::default()],
            current: 0,
        };
        let (mut reachable, mut used, mut at) = (vec![entry], HashSet::new(), 0);
        let functions: HashMap<&str, &Function<'a>> = module.functions.iter().map(|f| (f.name, f)).collect();
        let mut seen = HashSet::from([entry.name]);
        while let Some(function) = reachable.get(at).copied() {
            at += 1;
            for item in &function.items {
                let Item::Instruction(instruction) = item else { continue };
                instruction.args.iter().for_each(|arg| mentioned(arg, &mut used));
                if instruction.opcode.starts_with("call") {
                    let mut called = HashSet::new();
                    instruction.args.iter().for_each(|arg| mentioned(arg, &mut called));
                    let new = called.into_iter().filter(|name| seen.insert(name));
                    reachable.extend(new.filter_map(|name| functions.get(name)));
                }
            }
        }
        let own = reachable.iter().flat_map(|function| &function.items).filter_map(|item| match item {
            Item::Variable(variable) if variable.space == "shared" => Some(variable),
            _ => None,
        });
        let of_module = module.variables.iter().filter(|v| v.space == "shared" && used.contains(v.name));
        let all: Vec<_> = of_module.chain(own).collect();
        for dynamic in [false, true] {
            for variable in all.iter().filter(|variable| variable.count.is_none() == dynamic) {
                let at = names.shared_bytes.next_multiple_of(variable.align);
                let end = u64::from(at).saturating_add(variable.bytes());
                if end > 1 << 20 {
                    return Err(Error::new(
                        variable.line,
                        format!("`{}` makes {end} bytes of shared memory", variable.name),
                    ));
                }
                // The dynamic array begins where its alignment lets it, behind all that is static.
                names.shared_bytes = end as u32;
                names.shared.insert(variable.name.as_ptr(), at.into());
                if module.variables.iter().any(|known| std::ptr::eq(known, *variable)) {
                    names.module_shared.insert(variable.name, at.into());
                }
            }
        }
        Ok(names)
    }

    /// Bytes of static shared memory.
    pub fn shared_bytes(&self) -> u32 {
        self.shared_bytes
    }

    pub fn scope(&self) -> usize {
        self.current
    }

    /// A scope and those around it.
    pub fn scopes_from(&self, scope: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(scope), |scope| self.scopes[*scope].parent)
    }

    pub fn enter_function(&mut self) -> usize {
        let outer = self.current;
        self.scopes.push(Scope::default());
        self.current = self.scopes.len() - 1;
        outer
    }

    pub fn leave_function(&mut self, outer: usize) {
        self.current = outer;
    }

    pub fn open(&mut self) {
        self.scopes.push(Scope { parent: Some(self.current), ..Scope::default() });
        self.current = self.scopes.len() - 1;
    }

    pub fn close(&mut self) {
        self.current = self.scopes[self.current].parent.unwrap_or(self.current);
    }

    pub fn kernel_params(&mut self, params: &[Variable<'a>]) {
        for (variable, (offset, _)) in params.iter().zip(param_layout(params)) {
            let symbol = Symbol { space: Space::Param, value: offset.into(), bytes: 0 };
            self.scopes[self.current].symbols.insert(variable.name, symbol);
        }
    }

    pub fn registers(&mut self, ty: Type, name: &'a str, count: Option<u32>) {
        self.scopes[self.current].declared.insert(name, (ty, count));
    }

    /// Gives a place in local memory its name.
    pub fn bind_local(&mut self, name: &'a str, (at, bytes): (u32, u32)) {
        let symbol = Symbol { space: Space::Local, value: at.into(), bytes };
        self.scopes[self.current].symbols.insert(name, symbol);
    }

    pub fn variable(&mut self, variable: &Variable<'a>, image: &mut Image) -> Result<(), Error> {
        match variable.space {
            "local" | "param" => {
                let place = place_local(variable, image)?;
                self.bind_local(variable.name, place);
            }
            "shared" => {
                let value = self.shared.get(&variable.name.as_ptr()).copied().unwrap_or(0);
                let symbol = Symbol { space: Space::Shared, value, bytes: 0 };
                self.scopes[self.current].symbols.insert(variable.name, symbol);
            }
            other => {
                return Err(Error::new(variable.line, format!("a .{other} variable inside a function: not simulated")));
            }
        }
        Ok(())
    }

    /// What a name stands for.
    pub fn find(&mut self, name: &'a str, image: &mut Image) -> Option<Named> {
        let mut scope = Some(self.current);
        while let Some(at) = scope {
            let here = &mut self.scopes[at];
            if let Some(register) = here.registers.get(name) {
                return Some(Named::Register(*register));
            }
            if let Some(symbol) = here.symbols.get(name) {
                return Some(Named::Symbol(*symbol));
            }
            let prefix = name.trim_end_matches(|last: char| last.is_ascii_digit());
            let number = name[prefix.len()..].parse::<u32>();
            let declared = match (here.declared.get(name), here.declared.get(prefix), number) {
                (Some((ty, None)), _, _) => Some(*ty),
                (_, Some((ty, Some(count))), Ok(number)) if number < *count => Some(*ty),
                _ => None,
            };
            if let Some(ty) = declared {
                let register = Register { ty, at: allocate(ty, image) };
                self.scopes[at].registers.insert(name, register);
                return Some(Named::Register(register));
            }
            scope = here.parent;
        }
        if let Some(register) = special(name, image) {
            return Some(Named::Register(register));
        }
        if let Some(&value) = self.module_shared.get(name) {
            return Some(Named::Symbol(Symbol { space: Space::Shared, value, bytes: 0 }));
        }
        let variable = self.module.variables.iter().find(|variable| variable.name == name)?;
        let space = if variable.space == "const" { Space::Const } else { Space::Global };
        Some(Named::Symbol(Symbol { space, value: *self.globals.get(name)?, bytes: 0 }))
    }

    pub fn pred(&mut self, name: &'a str, image: &mut Image, line: u32) -> Result<u32, Error> {
        match self.find(name, image) {
            Some(Named::Register(Register { ty: Type::Pred, at })) => Ok(at),
            _ => Err(Error::new(line, format!("`{name}` is not a predicate"))),
        }
    }

    /// The place and the bytes of a call's parameter.
    pub fn local_place(&self, arg: &Arg<'a>, line: u32) -> Result<(u32, u32), Error> {
        let Arg::Name(name) = arg else { return Err(Error::new(line, "a parameter that is not a .param variable")) };
        let symbol = self.scopes_from(self.current).find_map(|scope| self.scopes[scope].symbols.get(name));
        match symbol {
            Some(Symbol { space: Space::Local, value, bytes }) => Ok((*value as u32, *bytes)),
            _ => Err(Error::new(line, format!("`{name}` is not a .param variable"))),
        }
    }
}

/// Gives a variable its place in local memory: offset and bytes.
pub(super) fn place_local(variable: &Variable<'_>, image: &mut Image) -> Result<(u32, u32), Error> {
    let at = (image.local + LOCAL_GAP).next_multiple_of(variable.align);
    let end = u64::from(at).saturating_add(variable.bytes());
    if end > MOST_LOCAL {
        return Err(Error::new(variable.line, format!("`{}` makes {end} bytes of local memory", variable.name)));
    }
    image.local = end as u32;
    Ok((at, variable.bytes() as u32))
}

/// Offset and bytes of each parameter of a kernel.
pub(crate) fn param_layout(params: &[Variable<'_>]) -> Vec<(u32, u32)> {
    let mut end = 0u32;
    let place = params.iter().map(|variable| {
        let offset = end.checked_next_multiple_of(variable.align).unwrap_or(u32::MAX);
        end = offset.saturating_add(variable.bytes().min(1 << 16) as u32);
        (offset, variable.bytes().min(1 << 16) as u32)
    });
    place.collect()
}

/// Room for a register of the type.
pub(super) fn allocate(ty: Type, image: &mut Image) -> u32 {
    if ty == Type::Pred {
        image.preds += 1;
        return image.preds - 1;
    }
    image.rows += ty.bits().div_ceil(32);
    image.rows - ty.bits().div_ceil(32)
}

fn mentioned<'a>(arg: &Arg<'a>, into: &mut HashSet<&'a str>) {
    match arg {
        Arg::Name(name) | Arg::Offset(name, _) | Arg::Not(name) => {
            into.insert(name);
        }
        Arg::Vector(args) | Arg::List(args) | Arg::Address(args) => args.iter().for_each(|arg| mentioned(arg, into)),
        Arg::Pair(a, b) => [a, b].into_iter().for_each(|arg| mentioned(arg, into)),
        Arg::Int(_) | Arg::F32(_) | Arg::F64(_) | Arg::Text(_) => {}
    }
}

/// The register that shows a special register.
fn special(name: &str, image: &mut Image) -> Option<Register> {
    let axis = |rest: &str| ["x", "y", "z"].iter().position(|axis| *axis == rest);
    let special = match name.split_once('.') {
        Some(("%tid", rest)) => Special::Tid(axis(rest)?),
        Some(("%ntid", rest)) => Special::Ntid(axis(rest)?),
        Some(("%ctaid", rest)) => Special::Ctaid(axis(rest)?),
        Some(("%nctaid", rest)) => Special::Nctaid(axis(rest)?),
        Some(_) => return None,
        None => match name {
            "%laneid" => Special::Laneid,
            "%warpid" => Special::Warpid,
            "%nwarpid" => Special::Nwarpid,
            "%smid" => Special::Smid,
            "%nsmid" => Special::Nsmid,
            "%lanemask_eq" => Special::LanemaskEq,
            "%lanemask_le" => Special::LanemaskLe,
            "%lanemask_lt" => Special::LanemaskLt,
            "%lanemask_ge" => Special::LanemaskGe,
            "%lanemask_gt" => Special::LanemaskGt,
            "%envreg2" => Special::GridBarrier(0),
            "%envreg1" => Special::GridBarrier(1),
            "%dynamic_smem_size" => Special::DynamicShared,
            "%total_smem_size" => Special::TotalShared,
            "%gridid" => Special::Zero,
            _ => return None,
        },
    };
    let ty = if name == "%gridid" { Type::U(64) } else { Type::U(32) };
    if let Some((_, row)) = image.specials.iter().find(|(known, _)| *known == special) {
        return Some(Register { ty, at: *row });
    }
    let row = allocate(ty, image);
    image.specials.push((special, row));
    if ty == Type::U(64) {
        image.specials.push((Special::Zero, row + 1));
    }
    Some(Register { ty, at: row })
}
