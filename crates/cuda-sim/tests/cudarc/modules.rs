//! Modules from every kind of image.

use std::fs;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUjit_option, CUresult};
use cudarc::driver::{CudaContext, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

use crate::harness::{Format, assert_code, compiled, device, kernels, simulate, simulate_with};

/// A module of one kernel that does nothing.
const EMPTY: &str = ".version 7.8\n.target sm_80\n.address_size 64\n.visible .entry empty()\n{\n\tret;\n}\n";

/// Loads an image and has its kernel `scale` do something.
fn use_image(image: Ptx) {
    let (context, stream) = device();
    let scale = context.load_module(image).unwrap().load_function("scale").unwrap();
    let mut x = stream.clone_htod(&[2.0f32; 70]).unwrap();
    // SAFETY: the arguments are those of the kernel, which stays inside `n` values.
    unsafe {
        let mut launch = stream.launch_builder(&scale);
        launch.arg(&mut x).arg(&0.5f32).arg(&69i32).launch(LaunchConfig::for_num_elems(70)).unwrap();
    }
    let x = stream.clone_dtoh(&x).unwrap();
    assert_eq!((&x[..69], x[69]), (&[1.0f32; 69][..], 2.0));
}

#[test]
fn from_text_and_from_a_file() {
    simulate(|| {
        let path = compiled(Format::Ptx);
        use_image(Ptx::from_src(fs::read_to_string(&path).unwrap()));
        use_image(Ptx::from_file(path));
    });
}

#[test]
fn from_a_fatbin() {
    simulate(|| {
        use_image(Ptx::from_binary(fs::read(compiled(Format::Fatbin)).unwrap()));
        use_image(Ptx::from_binary(fs::read(compiled(Format::UncompressedFatbin)).unwrap()));
        use_image(Ptx::from_file(compiled(Format::Fatbin)));
    });
}

#[test]
fn from_the_structure_of_a_host_object() {
    /// `__fatBinC_Wrapper_t`.
    #[repr(C)]
    struct Wrapper {
        magic: u32,
        version: u32,
        data: *const u8,
        unused: usize,
    }
    simulate(|| {
        let (_context, _) = device();
        let image = fs::read(compiled(Format::Fatbin)).unwrap();
        let wrapper = Wrapper { magic: 0x4662_43b1, version: 1, data: image.as_ptr(), unused: 0 };
        let mut module = std::ptr::null_mut();
        let mut function = std::ptr::null_mut();
        // SAFETY: the structure points to a whole fatbin, and both live during the calls.
        unsafe {
            sys::cuModuleLoadFatBinary(&mut module, (&raw const wrapper).cast()).result().unwrap();
            sys::cuModuleGetFunction(&mut function, module, c"stop".as_ptr()).result().unwrap();
            sys::cuModuleUnload(module).result().unwrap();
            // The function went with its module.
            let mut registers = 0;
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS;
            let stale = sys::cuFuncGetAttribute(&mut registers, attribute, function).result();
            assert_code(stale, CUresult::CUDA_ERROR_INVALID_HANDLE);
        }
    });
}

#[test]
fn a_fatbin_for_a_newer_device_serves_by_its_ptx() {
    simulate_with(&[("CUDRIFT_SIM_DEVICE", "sm_120")], || {
        use_image(Ptx::from_binary(fs::read(compiled(Format::Fatbin)).unwrap()));
    });
}

/// Registers that the assembler reports for a kernel.
fn assembled_registers(context: &Arc<CudaContext>, name: &str) -> i32 {
    let module = context.load_module(Ptx::from_binary(fs::read(compiled(Format::Fatbin)).unwrap())).unwrap();
    let function = module.load_function(name).unwrap();
    assert_eq!(function.binary_version().unwrap() * 10, context.attribute(MAJOR).unwrap() * 100);
    function.num_regs().unwrap()
}

const MAJOR: sys::CUdevice_attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;

#[test]
fn the_registers_are_those_of_the_cubin() {
    simulate(|| {
        let (context, _) = device();
        // As ptxas -v reports; an estimate from the PTX would be a multiple of 8.
        assert_eq!(assembled_registers(&context, "static_shared"), 10);
        let module = kernels(&context);
        assert_eq!(module.load_function("static_shared").unwrap().shared_size_bytes(), Ok(4096));
        assert_eq!(module.load_function("bounded").unwrap().max_threads_per_block(), Ok(64));
        assert_eq!(module.load_function("bounded").unwrap().ptx_version(), Ok(80));
    });
}

#[test]
fn the_registers_of_a_newer_cubin_are_read_too() {
    simulate_with(&[("CUDRIFT_SIM_DEVICE", "sm_90")], || {
        let (context, _) = device();
        assert_eq!(assembled_registers(&context, "static_shared"), 10);
    });
}

#[test]
fn constants_and_globals_have_addresses() {
    simulate(|| {
        let (context, stream) = device();
        let module = kernels(&context);
        let lookup = module.load_function("lookup").unwrap();
        let mut table = module.get_global("table", &stream).unwrap();
        let counter = module.get_global("counter", &stream).unwrap();
        assert_eq!((table.len(), counter.len()), (16, 4));
        stream.memcpy_htod(&5.5f32.to_le_bytes(), &mut table.slice_mut(8..12)).unwrap();
        let mut out = stream.alloc_zeros::<f32>(4).unwrap();
        let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (4, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the kernel writes four values.
        unsafe { stream.launch_builder(&lookup).arg(&mut out).launch(config) }.unwrap();
        assert_eq!(stream.clone_dtoh(&out).unwrap(), [1.0, 2.0, 5.5, 4.0]);
        assert_eq!(stream.clone_dtoh(&counter).unwrap(), 8u32.to_le_bytes());
        assert!(matches!(module.get_global("nothing", &stream), Err(DriverError(CUresult::CUDA_ERROR_NOT_FOUND))));
        assert_code(module.load_function("nothing"), CUresult::CUDA_ERROR_NOT_FOUND);
    });
}

fn load(context: &Arc<CudaContext>, text: &str) -> Result<(), DriverError> {
    context.load_module(Ptx::from_src(text)).map(drop)
}

#[test]
fn images_that_cannot_be_used_are_refused() {
    simulate(|| {
        let (context, stream) = device();
        load(&context, EMPTY).unwrap();
        assert_code(load(&context, &EMPTY.replace("ret", "wombat.b32")), CUresult::CUDA_ERROR_INVALID_PTX);
        assert_code(load(&context, "no PTX"), CUresult::CUDA_ERROR_INVALID_PTX);
        assert_code(load(&context, &EMPTY.replace("sm_80", "sm_90")), CUresult::CUDA_ERROR_INVALID_PTX);
        assert_code(load(&context, &EMPTY.replace("7.8", "9.6")), CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
        load(&context, &EMPTY.replace("7.8", "9.5")).unwrap();
        let cubins = Ptx::from_binary(fs::read(compiled(Format::Cubins)).unwrap());
        assert_code(context.load_module(cubins), CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
        let mut cut = fs::read(compiled(Format::Fatbin)).unwrap();
        // An entry that is longer than the image.
        cut[16 + 8 + 7] = 1;
        assert_code(context.load_module(Ptx::from_binary(cut)), CUresult::CUDA_ERROR_INVALID_IMAGE);
        assert_code(context.load_module(Ptx::from_file("/nowhere/to.ptx")), CUresult::CUDA_ERROR_FILE_NOT_FOUND);
        // None of these is sticky.
        stream.synchronize().unwrap();
    });
}

#[test]
fn an_older_driver_reads_older_ptx() {
    simulate_with(&[("CUDRIFT_SIM_DRIVER", "12.4")], || {
        let (context, _) = device();
        load(&context, &EMPTY.replace("7.8", "8.4")).unwrap();
        assert_code(load(&context, &EMPTY.replace("7.8", "8.5")), CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    });
}

#[test]
fn the_reason_for_a_refusal_is_told() {
    let output = simulate_with(&[], || {
        let (_context, _) = device();
        let text = std::ffi::CString::new(EMPTY.replace("ret", "wombat.b32")).unwrap();
        let mut log = [0x55u8; 200];
        let mut options = [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(log.len())];
        let mut module = std::ptr::null_mut();
        // SAFETY: two options with their values, the buffer as long as it is told, the text NUL-terminated.
        let result = unsafe {
            let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
            sys::cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 2, options, values).result()
        };
        assert_code(result, CUresult::CUDA_ERROR_INVALID_PTX);
        let log = std::ffi::CStr::from_bytes_until_nul(&log).unwrap().to_str().unwrap();
        assert_eq!(values[1].addr(), log.len());
        assert!(log.contains("wombat") && log.contains('6'), "{log}");
    });
    if let Some(output) = output {
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.lines().any(|line| line.starts_with("cudrift-sim:") && line.contains("wombat")), "{text}");
    }
}

#[test]
fn code_for_one_architecture_runs_there_alone() {
    simulate_with(&[("CUDRIFT_SIM_DEVICE", "sm_90")], || {
        let (context, _) = device();
        load(&context, &EMPTY.replace("sm_80", "sm_90a")).unwrap();
        assert_code(load(&context, &EMPTY.replace("sm_80", "sm_100a")), CUresult::CUDA_ERROR_INVALID_PTX);
        assert_code(load(&context, &EMPTY.replace("sm_80", "sm_80a")), CUresult::CUDA_ERROR_INVALID_PTX);
    });
}
