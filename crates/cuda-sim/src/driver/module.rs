//! Modules: images that become programs on the device.

use std::collections::BTreeMap;
use std::ffi::{CString, c_char, c_void};
use std::fs;
use std::sync::{Arc, Mutex};

use super::c::{Host, In, Out, api};
use super::context::{Context, attached, current};
use super::injection::Call;
use super::{Code, Driver, Owned, driver, graph, lock, queue};
use crate::device::Profile;
use crate::fatbin;
use crate::program::{Kernel, LoadError, Program};

/// A module.
pub(crate) struct Module {
    context: Arc<Context>,
    pub(super) program: Program,
    /// Registers of a thread by kernel, where a cubin says them.
    registers: BTreeMap<String, u32>,
    /// Handles of the functions that were asked for, by name.
    functions: Mutex<BTreeMap<String, usize>>,
}

/// A kernel of a module.
pub(crate) struct Function {
    pub(super) context: Arc<Context>,
    /// Handle of the module.
    pub(super) module: usize,
    pub(super) kernel: Arc<Kernel>,
    /// The kernel's name for C.
    pub(super) name: CString,
    /// Compute capability that it was compiled for.
    pub(super) target: u32,
    /// Registers of a thread.
    pub(super) registers: u32,
    pub(super) settings: Mutex<Settings>,
}

/// What a program can set of a function.
pub(super) struct Settings {
    /// Dynamic shared memory that a block may have, bytes.
    pub(super) dynamic_shared: u32,
    /// Share of the multiprocessor's memory that is shared memory, percent; -1 leaves it to the driver.
    pub(super) carveout: i32,
}

impl Owned for Module {
    fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

impl Owned for Function {
    fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

/// Why an image was refused: the code, and the reason in words.
type Refusal = (Code, String);

/// The bytes of an image, whose length is in its header; a text ends at its NUL.
fn bytes<'a>(image: Host) -> Result<&'a [u8], Code> {
    // In the wrapper, magic and version come before the pointer.
    let image = if image.starts_with(&fatbin::WRAPPER_MAGIC) { image.add(8).read()? } else { image };
    if image.starts_with(&fatbin::ELF_MAGIC) {
        image.bytes(fatbin::ELF_MAGIC.len())
    } else if image.starts_with(&fatbin::MAGIC) {
        let header = image.bytes(fatbin::HEADER)?;
        image.bytes(fatbin::length(header).map_err(|_| Code::INVALID_IMAGE)?)
    } else {
        image.text_bytes()
    }
}

/// The PTX of an image that the device can use, and what its cubin says of the kernels' registers.
fn open(image: &[u8], arch: u32) -> Result<(String, BTreeMap<String, u32>), Refusal> {
    if image.starts_with(&fatbin::ELF_MAGIC) {
        return Err((Code::NO_BINARY_FOR_GPU, "a cubin has no PTX, which is what is executed here".into()));
    }
    if !image.starts_with(&fatbin::MAGIC) {
        let text = std::str::from_utf8(image).map_err(|_| (Code::INVALID_IMAGE, "the PTX is not text".to_owned()))?;
        return Ok((text.to_owned(), BTreeMap::new()));
    }
    let invalid = |error: fatbin::Error| (Code::INVALID_IMAGE, error.to_string());
    let entries = fatbin::entries(image).map_err(invalid)?;
    let text = fatbin::newest_ptx(&entries, arch).map_err(invalid)?;
    let text = text.ok_or_else(|| (Code::NO_BINARY_FOR_GPU, format!("the image has no PTX for sm_{arch}")))?;
    Ok((text, fatbin::registers(&entries, arch)))
}

fn load(driver: &Driver, context: Arc<Context>, image: &[u8]) -> Result<usize, Refusal> {
    driver.injection.count(Call::Module).map_err(|code| (code, "no room for the module".into()))?;
    let arch = driver.profile().arch;
    let (text, registers) = open(image, arch)?;
    let (version, newest) = (fatbin::version(&text), driver.ptx_version());
    if let Some((major, minor)) = version.filter(|version| *version > newest) {
        let reason = format!(".version {major}.{minor} is above {}.{} of this driver", newest.0, newest.1);
        return Err((Code::UNSUPPORTED_PTX_VERSION, reason));
    }
    let _device = lock(&driver.execution);
    let program = Program::load(&driver.device, &text).map_err(|error| match error {
        LoadError::Ptx(error) => (Code::INVALID_PTX, error.to_string()),
        LoadError::Version(major, minor) => {
            (Code::UNSUPPORTED_PTX_VERSION, format!(".version {major}.{minor} is too new"))
        }
        LoadError::Target(target) => (Code::INVALID_PTX, format!(".target {target} does not run on sm_{arch}")),
        LoadError::OutOfMemory => (Code::OUT_OF_MEMORY, "no room for the module's variables".into()),
    })?;
    Ok(driver.modules.insert(Module { context, program, registers, functions: Mutex::default() }))
}

/// Loads an image; `log` takes the reason for a refusal.
fn load_into(out: Out<usize>, image: &[u8], log: Option<Log>) -> Result<(), Code> {
    let driver = driver()?;
    let context = current(driver)?;
    graph::refuse_unsafe_call(driver)?;
    if !out.wanted() {
        return Err(Code::INVALID_VALUE);
    }
    let loaded = load(driver, context, image);
    if let Some(log) = log {
        log.write(loaded.as_ref().err().map_or("", |(_, reason)| reason))?;
    }
    out.put(loaded.map_err(|(code, reason)| {
        eprintln!("cudrift-sim: module refused: {reason}");
        code
    })?)
}

/// The log buffers that options of `cuModuleLoadDataEx` name.
struct Log {
    count: usize,
    options: In<i32>,
    values: Out<Host>,
}

impl Log {
    /// `CU_JIT_INFO_LOG_BUFFER` and `CU_JIT_ERROR_LOG_BUFFER`; the option after each is the size.
    const INFO: i32 = 3;
    const ERROR: i32 = 5;

    fn position(&self, option: i32) -> Option<usize> {
        (0..self.count).find(|index| self.options.at(*index) == Ok(option))
    }

    /// Writes the errors, and that there is nothing else to say; the sizes become the bytes written.
    fn write(&self, errors: &str) -> Result<(), Code> {
        for (option, text) in [(Self::INFO, ""), (Self::ERROR, errors)] {
            let (Some(buffer), Some(size)) = (self.position(option), self.position(option + 1)) else { continue };
            let (buffer, room) = (self.values.get_at(buffer)?, self.values.get_at(size)?.address());
            if !buffer.is_null() && room > 0 {
                let written = buffer.out::<c_char>().put_text(text, room)?;
                self.values.put_at(size, Host::NULL.add(written - 1))?;
            }
        }
        Ok(())
    }
}

/// The function of that name, made at the first request.
fn function(driver: &Driver, handle: usize, name: &str) -> Result<usize, Code> {
    let module = driver.modules.get(handle)?;
    let mut functions = lock(&module.functions);
    if let Some(function) = functions.get(name) {
        return Ok(*function);
    }
    let kernel = module.program.kernel(name).ok_or(Code::NOT_FOUND)?.clone();
    let registers = module.registers.get(name).copied().unwrap_or(kernel.registers);
    let dynamic_shared = Profile::SHARED_PER_BLOCK.saturating_sub(kernel.shared);
    let function = driver.functions.insert(Function {
        context: module.context.clone(),
        module: handle,
        kernel,
        name: CString::new(name).map_err(|_| Code::INVALID_VALUE)?,
        target: module.program.target().arch,
        registers,
        settings: Mutex::new(Settings { dynamic_shared, carveout: -1 }),
    });
    functions.insert(name.into(), function);
    Ok(function)
}

api! {
    /// Loads an image: PTX text, or a fatbin.
    fn cuModuleLoadData(out: Out<usize>, image: Host) {
        load_into(out, bytes(image)?, None)
    }

    /// Loads an image, with options of the compiler; those that name the log buffers have an effect.
    fn cuModuleLoadDataEx(out: Out<usize>, image: Host, count: u32, options: In<i32>, values: Out<Host>) {
        load_into(out, bytes(image)?, Some(Log { count: count as usize, options, values }))
    }

    /// Loads a fatbin.
    fn cuModuleLoadFatBinary(out: Out<usize>, image: Host) {
        load_into(out, bytes(image)?, None)
    }

    /// Loads an image from a file.
    fn cuModuleLoad(out: Out<usize>, path: In<c_char>) {
        current(driver()?)?;
        let image = fs::read(path.text()?).map_err(|_| Code::FILE_NOT_FOUND)?;
        load_into(out, &image, None)
    }

    /// Unloads a module.
    fn cuModuleUnload(module: usize) {
        let driver = driver()?;
        let context = attached(driver)?;
        graph::refuse_unsafe_call(driver)?;
        let module = driver.modules.remove(module)?;
        for function in lock(&module.functions).values() {
            driver.functions.remove(*function)?;
        }
        queue::finish_all(driver, &context)?;
        let _device = lock(&driver.execution);
        module.program.unload(&driver.device);
        context.check()
    }

    /// The function of that name.
    fn cuModuleGetFunction(out: Out<usize>, module: usize, name: In<c_char>) {
        let driver = driver()?;
        current(driver)?;
        out.put(function(driver, module, &name.text()?)?)
    }

    /// Functions of a module.
    fn cuModuleGetFunctionCount(count: Out<u32>, module: usize) {
        count.put(driver()?.modules.get(module)?.program.kernels().len() as u32)
    }

    /// The functions of a module, as many as there is room for.
    fn cuModuleEnumerateFunctions(functions: Out<usize>, room: u32, module: usize) {
        let driver = driver()?;
        let kernels = driver.modules.get(module)?;
        for (index, kernel) in kernels.program.kernels().iter().take(room as usize).enumerate() {
            functions.put_at(index, function(driver, module, &kernel.name)?)?;
        }
        Ok(())
    }

    /// Address and bytes of a variable of the module.
    fn cuModuleGetGlobal_v2 | cuModuleGetGlobal (
        addr: Out<u64>,
        len: Out<usize>,
        module: usize,
        name: In<c_char>,
    ) {
        let driver = driver()?;
        current(driver)?;
        let module = driver.modules.get(module)?;
        let (at, size) = module.program.global(&name.text()?).ok_or(Code::NOT_FOUND)?;
        addr.put_if_wanted(at);
        len.put_if_wanted(size as usize);
        Ok(())
    }

    /// Modules are loaded at once.
    fn cuModuleGetLoadingMode(mode: Out<i32>) {
        mode.put(1)
    }

    /// Linking on the device is not simulated.
    fn cuLinkCreate_v2 | cuLinkCreate (_count: u32, _options: In<i32>, _values: Out<Host>, _out: Out<c_void>) {
        current(driver()?)?;
        Err(Code::NOT_SUPPORTED)
    }
}
