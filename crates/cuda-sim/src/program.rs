//! A PTX module loaded onto a device.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::decode::{self, Globals, Image};
use crate::device::Device;
use crate::ptx::{self, Arg, Target};

/// The highest `.version` that is read.
pub const PTX_VERSION: (u32, u32) = (9, 5);

/// A module whose globals have addresses on a device. Dropping it does not free them; [`Program::unload`] does.
pub struct Program {
    target: Target,
    kernels: Vec<Arc<Kernel>>,
    /// Address and bytes.
    globals: HashMap<String, (u64, u64)>,
}

/// Why a module was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The text is not PTX that this simulator can execute (with the line and the reason).
    Ptx(ptx::Error),
    /// `.version` is above what the simulated driver reads.
    Version(u32, u32),
    /// `.target` is above the device's compute capability (or needs another one exactly).
    Target(String),
    /// No room for the module's globals.
    OutOfMemory,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ptx(error) => error.fmt(f),
            Self::Version(major, minor) => {
                let (newest_major, newest_minor) = PTX_VERSION;
                write!(f, ".version {major}.{minor} is above {newest_major}.{newest_minor}, the newest that is read")
            }
            Self::Target(target) => write!(f, ".target {target} does not run on the device"),
            Self::OutOfMemory => f.write_str("no room for the module's variables"),
        }
    }
}

impl std::error::Error for LoadError {}

/// One `.entry`.
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Offset, size and alignment of each parameter in the parameter block, bytes.
    pub params: Vec<Param>,
    /// Bytes of the parameter block.
    pub param_bytes: u32,
    /// Static shared memory, bytes.
    pub shared: u32,
    /// Local memory of a thread, bytes.
    pub local: u32,
    /// Constant memory of the module, bytes.
    pub constant: u32,
    /// Threads that a block may have at most (`.maxntid`, `.reqntid`), in all.
    pub max_threads: Option<u32>,
    /// The block that the kernel requires (`.reqntid`).
    pub required_block: Option<[u32; 3]>,
    /// An estimate of the 32-bit registers of a thread: the most that are live at once, limited by `.maxnreg`,
    /// `.maxntid` and `.minnctapersm`. The driver stand-in prefers the number in a cubin, where there is one.
    pub registers: u32,
    pub(crate) image: Image,
    pub(crate) text: Arc<Text>,
}

/// The text of a module, for messages.
#[derive(Debug, Default)]
pub(crate) struct Text {
    text: String,
    files: HashMap<u32, String>,
}

impl Text {
    /// A line without its indentation.
    pub fn line(&self, line: u32) -> &str {
        line.checked_sub(1).and_then(|at| self.text.lines().nth(at as usize)).map_or("", str::trim)
    }

    /// A source file and the line in it.
    pub fn source(&self, (file, line): (u32, u32)) -> Option<(String, u32)> {
        self.files.get(&file).map(|name| (name.clone(), line))
    }
}

/// One parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Where it begins in the parameter block.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Alignment, bytes.
    pub align: u32,
}

impl Program {
    /// Parses a module and places its globals in the device's memory.
    ///
    /// # Errors
    /// Where the text cannot be executed here, or there is no room. Nothing is left in the memory then.
    pub fn load(device: &Device, text: &str) -> Result<Self, LoadError> {
        let module = ptx::parse(text).map_err(LoadError::Ptx)?;
        if module.version > PTX_VERSION {
            return Err(LoadError::Version(module.version.0, module.version.1));
        }
        let target = Target::of(module.target).filter(|target| target.runs_on(device.profile.arch));
        let target = target.ok_or_else(|| LoadError::Target(module.target.to_owned()))?;
        let mut globals = Globals::new();
        let placed = place(device, &module, &mut globals).and_then(|()| {
            let kernels = kernels(text, &module, &globals, device.errors).map_err(LoadError::Ptx)?;
            let sizes = module.variables.iter().map(|variable| (variable.name, variable.bytes()));
            let sizes: HashMap<&str, u64> = sizes.collect();
            let globals = globals.iter().map(|(name, addr)| ((*name).to_owned(), (*addr, sizes[name]))).collect();
            Ok(Self { target, kernels, globals })
        });
        if placed.is_err() {
            globals.values().for_each(|addr| drop(device.memory.free(*addr)));
        }
        placed
    }

    /// What `.target` names.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The kernels in the order of the text.
    pub fn kernels(&self) -> &[Arc<Kernel>] {
        &self.kernels
    }

    /// The kernel of that name.
    pub fn kernel(&self, name: &str) -> Option<&Arc<Kernel>> {
        self.kernels.iter().find(|kernel| kernel.name == name)
    }

    /// Address and bytes of the global or constant variable of that name.
    pub fn global(&self, name: &str) -> Option<(u64, u64)> {
        self.globals.get(name).copied()
    }

    /// Frees the globals.
    pub fn unload(&self, device: &Device) {
        self.globals.values().for_each(|(addr, _)| drop(device.memory.free(*addr)));
    }
}

/// Gives the variables of a module their places and first values; those without are zero.
fn place<'a>(device: &Device, module: &ptx::Module<'a>, globals: &mut Globals<'a>) -> Result<(), LoadError> {
    let variables = || module.variables.iter().filter(|variable| matches!(variable.space, "global" | "const"));
    for variable in variables() {
        let zeros = usize::try_from(variable.bytes()).ok().and_then(zeros).ok_or(LoadError::OutOfMemory)?;
        let addr = if variable.space == "const" {
            device.memory.alloc_constant(&zeros)
        } else {
            device.memory.alloc(variable.bytes())
        };
        let addr = addr.ok_or(LoadError::OutOfMemory)?;
        globals.insert(variable.name, addr);
        device.memory.write(addr, &zeros).map_err(|_| LoadError::OutOfMemory)?;
    }
    for variable in variables() {
        let mut bytes = Vec::new();
        for element in &variable.init {
            let wrong =
                |what: &str| LoadError::Ptx(ptx::Error::new(variable.line, format!("`{}`: {what}", variable.name)));
            let address = |name: &str| globals.get(name).copied().ok_or_else(|| wrong(&format!("no `{name}`")));
            let value = match element {
                Arg::Int(value) => *value as u64,
                Arg::F32(bits) => (*bits).into(),
                Arg::F64(bits) if variable.ty.bytes() == 4 => (f64::from_bits(*bits) as f32).to_bits().into(),
                Arg::F64(bits) => *bits,
                Arg::Name(name) => address(name)?,
                Arg::Offset(name, offset) => address(name)?.wrapping_add(*offset as u64),
                _ => return Err(wrong("an initial value that is not simulated")),
            };
            bytes.extend_from_slice(&value.to_le_bytes()[..variable.ty.bytes().min(8) as usize]);
        }
        if bytes.len() as u64 > variable.bytes() {
            let message = format!("`{}` has more initial values than elements", variable.name);
            return Err(LoadError::Ptx(ptx::Error::new(variable.line, message)));
        }
        device.memory.write(globals[variable.name], &bytes).map_err(|_| LoadError::OutOfMemory)?;
    }
    Ok(())
}

fn zeros(count: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(count).ok()?;
    bytes.resize(count, 0);
    Some(bytes)
}

fn kernels<'a>(
    text: &str,
    module: &ptx::Module<'a>,
    globals: &Globals<'a>,
    errors: u64,
) -> Result<Vec<Arc<Kernel>>, ptx::Error> {
    let files = module.files.iter().map(|(number, name)| (*number, (*name).to_owned())).collect();
    let text = Arc::new(Text { text: text.to_owned(), files });
    let constant: u64 = module.variables.iter().filter(|v| v.space == "const").map(ptx::Variable::bytes).sum();
    let mut kernels = Vec::new();
    for function in module.functions.iter().filter(|function| function.entry) {
        let image = decode::decode(module, globals, function, errors)?;
        let layout = decode::param_layout(&function.params);
        let align = function.params.iter().map(|param| param.align);
        let params: Vec<Param> =
            layout.iter().zip(align).map(|(&(offset, size), align)| Param { offset, size, align }).collect();
        kernels.push(Arc::new(Kernel {
            name: function.name.to_owned(),
            param_bytes: params.last().map_or(0, |param| param.offset + param.size),
            params,
            shared: image.shared,
            local: image.local,
            constant: u32::try_from(constant).unwrap_or(u32::MAX),
            max_threads: function.required_block.or(function.max_block).map(threads),
            required_block: function.required_block,
            registers: registers(function, image.live),
            image,
            text: text.clone(),
        }));
    }
    Ok(kernels)
}

/// Threads of a block of these extents.
fn threads(block: [u32; 3]) -> u32 {
    block.iter().fold(1, |threads, &extent| threads.saturating_mul(extent))
}

/// Registers of a thread: what is alive at once and some for addresses, within what the directives leave.
fn registers(function: &ptx::Function<'_>, live: u32) -> u32 {
    let threads = function.required_block.or(function.max_block).map_or(1, threads);
    let threads = threads.saturating_mul(function.min_blocks.unwrap_or(1).max(1));
    let room = crate::device::Profile::REGISTERS / threads.max(1) / 8 * 8;
    (live + 8).next_multiple_of(8).min(room).min(function.max_registers.unwrap_or(255)).clamp(16, 255)
}
