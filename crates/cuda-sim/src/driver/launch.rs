//! Functions and their launches.

use std::ffi::c_char;
use std::sync::Arc;

use super::c::{Host, In, Out, api};
use super::context::current;
use super::injection::Call;
use super::module::Function;
use super::occupancy::{self, Usage};
use super::work::{Work, enqueue};
use super::{CUstream, Code, Driver, driver, lock, stream};
use crate::device::Profile;

/// A kernel with the extents and the parameters of a launch.
#[derive(Clone)]
pub(crate) struct Grid {
    pub(super) function: Arc<Function>,
    pub(super) grid: [u32; 3],
    pub(super) block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub(super) shared: u32,
    pub(super) params: Vec<u8>,
    pub(super) cooperative: bool,
}

/// The extents of a launch: `CUlaunchConfig` without what the simulator does not know.
#[derive(Clone, Copy)]
struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    cooperative: bool,
}

/// `CUlaunchConfig`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Config {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: CUstream,
    attributes: In<Attribute>,
    count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Attribute {
    id: i32,
    padding: u32,
    value: [u32; 16],
}

impl Config {
    /// The extents, and what the attributes make of them.
    fn shape(&self) -> Result<Shape, Code> {
        let mut shape = Shape { grid: self.grid, block: self.block, shared: self.shared, cooperative: false };
        for index in 0..self.count as usize {
            let Attribute { id, value, .. } = self.attributes.at(index)?;
            match id {
                2 => shape.cooperative = value[0] != 0,
                // A cluster of one block is none.
                4 if value[..3] == [1; 3] => {}
                4 => return Err(Code::NOT_SUPPORTED),
                // Events inside the launch.
                7 | 12 => return Err(Code::NOT_SUPPORTED),
                // The rest are hints.
                0..=16 => {}
                _ => return Err(Code::INVALID_VALUE),
            }
        }
        Ok(shape)
    }
}

impl Function {
    /// Greatest number of threads of a block.
    pub(super) fn max_threads(&self) -> u32 {
        let bound = self.kernel.max_threads.unwrap_or(Profile::THREADS_PER_BLOCK);
        bound.min(occupancy::threads_by_registers(self.registers))
    }

    /// What a block takes of a multiprocessor, beside its threads.
    pub(super) fn usage(&self) -> Usage {
        Usage { registers: self.registers, shared: self.kernel.shared }
    }

    /// Refuses what the device cannot launch.
    fn check(&self, profile: &Profile, shape: &Shape) -> Result<(), Code> {
        let within =
            |extents: [u32; 3], limits: [u32; 3]| (0..3).all(|axis| (1..=limits[axis]).contains(&extents[axis]));
        let threads: u64 = shape.block.iter().map(|extent| u64::from(*extent)).product();
        if !within(shape.grid, Profile::GRID)
            || !within(shape.block, Profile::BLOCK)
            || threads > Profile::THREADS_PER_BLOCK.into()
            || shape.shared > lock(&self.settings).dynamic_shared
            || self.kernel.required_block.is_some_and(|block| block != shape.block)
        {
            return Err(Code::INVALID_VALUE);
        }
        if threads > self.max_threads().into() {
            return Err(Code::LAUNCH_OUT_OF_RESOURCES);
        }
        if shape.cooperative {
            let resident = occupancy::blocks(profile, self.usage(), threads as u32, shape.shared as usize);
            let blocks: u64 = shape.grid.iter().map(|extent| u64::from(*extent)).product();
            if blocks > u64::from(resident * profile.multiprocessors) {
                return Err(Code::COOPERATIVE_LAUNCH_TOO_LARGE);
            }
        }
        Ok(())
    }

    /// The parameter block, from a pointer to each parameter or from a buffer.
    fn params(&self, each: In<Host>, extra: In<Host>) -> Result<Vec<u8>, Code> {
        let len = self.kernel.param_bytes as usize;
        if !extra.is_null() {
            if !each.is_null() {
                return Err(Code::INVALID_VALUE);
            }
            return Ok(buffer(extra)?.get(..len).ok_or(Code::INVALID_VALUE)?.to_vec());
        }
        let mut block = vec![0; len];
        for (index, param) in self.kernel.params.iter().enumerate() {
            let bytes = each.at(index)?.bytes(param.size as usize)?;
            block[param.offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
        Ok(block)
    }

    /// A property of the function (`CUfunction_attribute`).
    fn attribute(&self, profile: &Profile, attribute: i32) -> Option<i32> {
        Some(match attribute {
            0 => self.max_threads() as i32,
            1 => self.kernel.shared as i32,
            2 => self.kernel.constant as i32,
            3 => self.kernel.local as i32,
            4 => self.registers as i32,
            5 => self.target as i32,
            6 => profile.arch as i32,
            8 => lock(&self.settings).dynamic_shared as i32,
            9 => lock(&self.settings).carveout,
            // Caching, and clusters: none.
            7 | 10..=15 => 0,
            _ => return None,
        })
    }

    fn set_attribute(&self, profile: &Profile, attribute: i32, value: i32) -> Result<(), Code> {
        match attribute {
            8 if value >= 0 && value as u32 <= profile.shared_per_block_optin.saturating_sub(self.kernel.shared) => {
                lock(&self.settings).dynamic_shared = value as u32;
            }
            9 if (-1..=100).contains(&value) => lock(&self.settings).carveout = value,
            10..=15 => return Err(Code::NOT_SUPPORTED),
            _ => return Err(Code::INVALID_VALUE),
        }
        Ok(())
    }
}

/// The parameter buffer that `extra` names: a list of keys and values (`CU_LAUNCH_PARAM_*`).
fn buffer<'a>(extra: In<Host>) -> Result<&'a [u8], Code> {
    let (mut start, mut len) = (Host::NULL, 0);
    for index in (0..).step_by(2) {
        let value = || extra.at(index + 1);
        match extra.at(index)?.address() {
            0 => break,
            1 => start = value()?,
            2 => len = value()?.read()?,
            _ => return Err(Code::INVALID_VALUE),
        }
    }
    start.bytes(len)
}

fn launch(function: usize, shape: Shape, stream: CUstream, each: In<Host>, extra: In<Host>) -> Result<(), Code> {
    let driver = driver()?;
    let stream = stream::find(driver, stream)?;
    let function = driver.functions.get(function)?;
    if !Arc::ptr_eq(&function.context, &stream.context) {
        return Err(Code::INVALID_HANDLE);
    }
    function.check(driver.profile(), &shape)?;
    driver.injection.count(Call::Launch)?;
    let params = function.params(each, extra)?;
    let Shape { grid, block, shared, cooperative } = shape;
    enqueue(driver, &stream, Work::Launch(Grid { function, grid, block, shared, params, cooperative })).map(drop)
}

fn find(driver: &Driver, function: usize) -> Result<Arc<Function>, Code> {
    current(driver)?;
    driver.functions.get(function)
}

api! {
    /// Launches a function.
    fn cuLaunchKernel(
        function: usize,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: CUstream,
        params: In<Host>,
        extra: In<Host>,
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        launch(function, Shape { grid, block, shared, cooperative: false }, stream, params, extra)
    }

    /// Launches a function whose blocks are all resident at once.
    fn cuLaunchCooperativeKernel(
        function: usize,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: CUstream,
        params: In<Host>,
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        launch(function, Shape { grid, block, shared, cooperative: true }, stream, params, In::NULL)
    }

    /// Launches a function with attributes.
    fn cuLaunchKernelEx(config: In<Config>, function: usize, params: In<Host>, extra: In<Host>) {
        let config = config.at(0)?;
        launch(function, config.shape()?, config.stream, params, extra)
    }

    /// A property of a function.
    fn cuFuncGetAttribute(value: Out<i32>, attribute: i32, function: usize) {
        let driver = driver()?;
        let function = find(driver, function)?;
        value.put(function.attribute(driver.profile(), attribute).ok_or(Code::INVALID_VALUE)?)
    }

    /// Sets a property of a function.
    fn cuFuncSetAttribute(function: usize, attribute: i32, value: i32) {
        let driver = driver()?;
        find(driver, function)?.set_attribute(driver.profile(), attribute, value)
    }

    /// Sets the preference between cache and shared memory, which nothing here depends on.
    fn cuFuncSetCacheConfig(function: usize, config: i32) {
        find(driver()?, function)?;
        if (0..=3).contains(&config) { Ok(()) } else { Err(Code::INVALID_VALUE) }
    }

    /// Sets the width of shared memory's banks, which is fixed on these devices.
    fn cuFuncSetSharedMemConfig(function: usize, _config: i32) {
        find(driver()?, function).map(drop)
    }

    /// The name of a function.
    fn cuFuncGetName(name: Out<*const c_char>, function: usize) {
        name.put(find(driver()?, function)?.name.as_ptr())
    }

    /// The module of a function.
    fn cuFuncGetModule(module: Out<usize>, function: usize) {
        module.put(find(driver()?, function)?.module)
    }

    /// Offset and size of a parameter.
    fn cuFuncGetParamInfo(function: usize, index: usize, offset: Out<usize>, size: Out<usize>) {
        let function = find(driver()?, function)?;
        let param = function.kernel.params.get(index).ok_or(Code::INVALID_VALUE)?;
        offset.put(param.offset as usize)?;
        size.put_if_wanted(param.size as usize);
        Ok(())
    }

    /// Functions are loaded with their module.
    fn cuFuncIsLoaded(state: Out<i32>, function: usize) {
        find(driver()?, function)?;
        state.put(1)
    }

    /// Functions are loaded with their module.
    fn cuFuncLoad(function: usize) {
        find(driver()?, function).map(drop)
    }
}
