//! Launches: arguments, shared memory, cooperation, occupancy.

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUresult};
use cudarc::driver::{DeviceRepr, LaunchConfig, PushKernelArg};
use half::f16;

use crate::harness::{assert_code, device, kernel, kernels, simulate, simulate_with};

/// One block of so many threads.
fn block(threads: u32, shared: u32) -> LaunchConfig {
    LaunchConfig { grid_dim: (1, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared }
}

/// `Mixed` of kernels.cu.
#[repr(C)]
#[derive(Clone, Copy)]
struct Mixed {
    tag: i8,
    weight: f64,
    offsets: [i16; 3],
}

// SAFETY: the layout is that of the structure in C, and it holds no references.
unsafe impl DeviceRepr for Mixed {}

#[test]
fn every_type_of_argument_arrives() {
    simulate(|| {
        let (context, stream) = device();
        let function = kernel(&context, "every_type");
        let x = stream.clone_htod(&[0.0f32, 1.0, 2.0, 42.0]).unwrap();
        let mut out = stream.alloc_zeros::<f64>(15).unwrap();
        let mixed = Mixed { tag: -7, weight: 0.125, offsets: [1, -2, 3] };
        let (a, b, c, d) = (200u8, -100i8, 60_000u16, -30_000i16);
        let (e, f, g, h) = (4_000_000_000u32, -2_000_000_000i32, 1u64 << 63, -(1i64 << 62));
        let (i, j, k) = (1.5f32, -0.1f64, f16::from_f32(-2.25));
        let mut launch = stream.launch_builder(&function);
        launch.arg(&mut out).arg(&a).arg(&b).arg(&c).arg(&d).arg(&e).arg(&f).arg(&g).arg(&h);
        launch.arg(&i).arg(&j).arg(&k).arg(&mixed).arg(&x);
        // SAFETY: the arguments are those of the kernel, which writes 15 values and reads x[3].
        unsafe { launch.launch(block(1, 0)) }.unwrap();
        let expected = [
            200.0,
            -100.0,
            60_000.0,
            -30_000.0,
            4e9,
            -2e9,
            2f64.powi(63),
            -(2f64.powi(62)),
            1.5,
            -0.1,
            -2.25,
            -7.0,
            0.125,
            281.0,
            42.0,
        ];
        assert_eq!(stream.clone_dtoh(&out).unwrap(), expected);
    });
}

#[test]
fn arguments_can_come_in_a_buffer() {
    simulate(|| {
        let (context, stream) = device();
        let function = kernel(&context, "scale");
        let addr = stream.clone_htod(&[1.0f32; 4]).unwrap().leak();
        let mut buffer = addr.to_le_bytes().to_vec();
        buffer.extend(4.0f32.to_le_bytes());
        buffer.extend(4i32.to_le_bytes());
        let mut launch = |mut len: usize| {
            let mut extra = [
                std::ptr::without_provenance_mut(1),
                buffer.as_mut_ptr().cast(),
                std::ptr::without_provenance_mut(2),
                (&raw mut len).cast(),
                std::ptr::null_mut(),
            ];
            let (function, stream) = (function.cu_function(), stream.cu_stream());
            let (params, extra) = (std::ptr::null_mut(), extra.as_mut_ptr());
            // SAFETY: `extra` is a list as the driver wants it, and the buffer is laid out as the parameters are.
            unsafe { sys::cuLaunchKernel(function, 1, 1, 1, 4, 1, 1, 0, stream, params, extra) }.result()
        };
        launch(16).unwrap();
        assert_code(launch(12), CUresult::CUDA_ERROR_INVALID_VALUE);
        // SAFETY: four values were leaked above.
        let x = unsafe { stream.upgrade_device_ptr::<f32>(addr, 4) };
        assert_eq!(stream.clone_dtoh(&x).unwrap(), [4.0; 4]);
    });
}

#[test]
fn launches_have_attributes() {
    simulate(|| {
        let (context, stream) = device();
        let function = kernel(&context, "scale");
        let mut addr = stream.clone_htod(&[1.0f32; 4]).unwrap().leak();
        let (mut factor, mut n) = (3.0f32, 4i32);
        let mut params = [(&raw mut addr).cast(), (&raw mut factor).cast(), (&raw mut n).cast()];
        // SAFETY: all bytes zero are an attribute that is ignored.
        let mut attributes: [sys::CUlaunchAttribute; 2] = unsafe { std::mem::zeroed() };
        attributes[1].id = sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        attributes[1].value.cooperative = 1;
        let mut launch = |blocks| {
            let config = sys::CUlaunchConfig {
                gridDimX: blocks,
                gridDimY: 1,
                gridDimZ: 1,
                blockDimX: 1024,
                blockDimY: 1,
                blockDimZ: 1,
                sharedMemBytes: 0,
                hStream: stream.cu_stream(),
                attrs: attributes.as_mut_ptr(),
                numAttrs: 2,
            };
            let (params, extra) = (params.as_mut_ptr(), std::ptr::null_mut());
            // SAFETY: the parameters are those of the kernel, which stays inside `n` values.
            unsafe { sys::cuLaunchKernelEx(&config, function.cu_function(), params, extra) }.result()
        };
        launch(1).unwrap();
        assert_code(launch(2 * 108 + 1), CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
        // SAFETY: four values were leaked above.
        let x = unsafe { stream.upgrade_device_ptr::<f32>(addr, 4) };
        assert_eq!(stream.clone_dtoh(&x).unwrap(), [3.0; 4]);
    });
}

#[test]
fn shared_memory_above_48_kib_needs_a_word() {
    simulate(|| {
        let (context, stream) = device();
        let reverse = kernel(&context, "reverse");
        let values: Vec<f32> = (0..256).map(|i| i as f32).collect();
        let mut x = stream.clone_htod(&values).unwrap();
        let stride = 160;
        let bytes = 256 * 160 * 4;
        let mut launch = || {
            let mut launch = stream.launch_builder(&reverse);
            // SAFETY: the kernel uses 256 words, so many words apart.
            unsafe { launch.arg(&mut x).arg(&stride).launch(block(256, bytes)) }.map(drop)
        };
        assert_code(launch(), CUresult::CUDA_ERROR_INVALID_VALUE);
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        assert_code(reverse.set_attribute(attribute, (163 << 10) + 1), CUresult::CUDA_ERROR_INVALID_VALUE);
        reverse.set_attribute(attribute, bytes as i32).unwrap();
        assert_eq!(reverse.get_attribute(attribute), Ok(bytes as i32));
        launch().unwrap();
        let reversed: Vec<f32> = values.iter().rev().copied().collect();
        assert_eq!(stream.clone_dtoh(&x).unwrap(), reversed);
        reverse.set_attribute(Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100).unwrap();
    });
}

#[test]
fn static_and_dynamic_shared_memory_add_up() {
    simulate(|| {
        let (context, stream) = device();
        let function = kernel(&context, "static_shared");
        let mut x = stream.alloc_zeros::<f32>(1024).unwrap();
        let mut launch = |shared| {
            // SAFETY: the kernel exchanges 1024 values in pairs.
            unsafe { stream.launch_builder(&function).arg(&mut x).launch(block(1024, shared)) }.map(drop)
        };
        launch(44 << 10).unwrap();
        assert_code(launch((44 << 10) + 1), CUresult::CUDA_ERROR_INVALID_VALUE);
    });
}

#[test]
fn extents_have_limits() {
    simulate(|| {
        let (context, stream) = device();
        let module = kernels(&context);
        let (scale, bounded) = (module.load_function("scale").unwrap(), module.load_function("bounded").unwrap());
        let mut x = stream.alloc_zeros::<f32>(64).unwrap();
        let mut launch = |grid_dim, block_dim| {
            let config = LaunchConfig { grid_dim, block_dim, shared_mem_bytes: 0 };
            // SAFETY: the kernel touches nothing when n is 0.
            unsafe { stream.launch_builder(&scale).arg(&mut x).arg(&1.0f32).arg(&0i32).launch(config) }.map(drop)
        };
        for (grid, block) in [
            ((0, 1, 1), (1, 1, 1)),
            ((1, 1, 1), (0, 1, 1)),
            ((1, 65_536, 1), (1, 1, 1)),
            ((0x8000_0000, 1, 1), (1, 1, 1)),
            ((1, 1, 1), (1025, 1, 1)),
            ((1, 1, 1), (32, 64, 1)),
            ((1, 1, 1), (1, 1, 65)),
        ] {
            assert_code(launch(grid, block), CUresult::CUDA_ERROR_INVALID_VALUE);
        }
        launch((1, 1, 1), (1, 1, 64)).unwrap();
        launch((1, 1, 1), (1024, 1, 1)).unwrap();
        // SAFETY: the kernel writes as many values as there are threads.
        let mut launch = |threads| unsafe { stream.launch_builder(&bounded).arg(&mut x).launch(block(threads, 0)) };
        launch(64).unwrap();
        assert_code(launch(65), CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
        // None of these is sticky.
        stream.synchronize().unwrap();
    });
}

#[test]
fn cooperative_blocks_are_resident_together() {
    simulate(|| {
        let (context, stream) = device();
        let function = kernel(&context, "grid_sum");
        let mut sum = stream.alloc_zeros::<u32>(1).unwrap();
        let mut out = stream.alloc_zeros::<u32>(20).unwrap();
        let mut launch = |blocks| {
            let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (1024, 1, 1), shared_mem_bytes: 0 };
            let mut launch = stream.launch_builder(&function);
            // SAFETY: the kernel writes one value for each block; too many blocks are not launched.
            unsafe { launch.arg(&mut sum).arg(&mut out).launch_cooperative(config) }.map(drop)
        };
        assert_code(launch(2 * 108 + 1), CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
        launch(20).unwrap();
        assert_eq!(stream.clone_dtoh(&out).unwrap(), [190; 20]);
    });
}

#[test]
fn occupancy_is_that_of_the_device() {
    extern "C" fn four_bytes_a_thread(threads: i32) -> usize {
        threads as usize * 4
    }
    simulate_with(&[("CUDRIFT_SIM_DEVICE", "sm_90")], || {
        let (context, _) = device();
        let function = kernel(&context, "scale");
        let blocks =
            |threads, shared| function.occupancy_max_active_blocks_per_multiprocessor(threads, shared, None).unwrap();
        assert_eq!(blocks(1024, 0), 2);
        assert_eq!(blocks(64, 0), 32);
        assert_eq!(blocks(64, 100 << 10), 2);
        assert_eq!(blocks(64, 228 << 10), 0);
        assert_eq!(function.occupancy_available_dynamic_smem_per_block(2, 1024), Ok((114 << 10) - 1024));
        let (grid, threads) = function.occupancy_max_potential_block_size(four_bytes_a_thread, 0, 0, None).unwrap();
        assert_eq!(grid * threads, 132 * 2048);
    });
}

#[test]
fn what_launches_executed_is_counted() {
    let folder = std::env::temp_dir().join(format!("cudrift-sim-counters-{}", std::process::id()));
    let path = folder.to_str().unwrap();
    let counted = simulate_with(&[("CUDRIFT_SIM_COUNTERS", path)], || {
        let (context, stream) = device();
        let function = kernel(&context, "scale");
        for blocks in [1, 3] {
            let mut x = stream.alloc_zeros::<f32>(64 * blocks).unwrap();
            let (factor, n) = (2.0f32, x.len() as i32);
            let shape = LaunchConfig { grid_dim: (blocks as u32, 1, 1), block_dim: (64, 1, 1), shared_mem_bytes: 0 };
            // SAFETY: the arguments are those of the kernel, which changes n elements.
            unsafe { stream.launch_builder(&function).arg(&mut x).arg(&factor).arg(&n).launch(shape) }.unwrap();
        }
    });
    if counted.is_none() {
        return;
    }
    let text = std::fs::read_to_string(&folder).unwrap();
    std::fs::remove_file(&folder).unwrap();
    let number = |line: &str, key: &str| -> u64 {
        let (_, rest) = line.split_once(&format!("\"{key}\": ")).unwrap();
        rest.split([',', '}']).next().unwrap().parse().unwrap()
    };
    let [one, three] = text.lines().collect::<Vec<_>>().try_into().unwrap();
    assert!(one.contains("\"kernel\": \"scale\", \"grid\": [1, 1, 1], \"block\": [64, 1, 1]"), "{one}");
    for key in ["warp_instructions", "thread_instructions"] {
        assert_eq!(3 * number(one, key), number(three, key), "{text}");
    }
}

#[test]
fn threads_launch_side_by_side() {
    simulate(|| {
        let (context, _) = device();
        let module = kernels(&context);
        std::thread::scope(|scope| {
            for thread in 1..=6i16 {
                let (context, module) = (&context, &module);
                scope.spawn(move || {
                    let stream = context.new_stream().unwrap();
                    let scale = module.load_function("scale").unwrap();
                    let mut x = stream.clone_htod(&vec![1.0f32; 500]).unwrap();
                    for _ in 0..5 {
                        let mut launch = stream.launch_builder(&scale);
                        let factor = f32::from(thread);
                        // SAFETY: the arguments are those of the kernel, which stays inside `n` values.
                        unsafe { launch.arg(&mut x).arg(&factor).arg(&500i32).launch(block(512, 0)) }.unwrap();
                    }
                    assert_eq!(stream.clone_dtoh(&x).unwrap(), vec![f32::from(thread).powi(5); 500]);
                });
            }
        });
        context.check_err().unwrap();
    });
}
