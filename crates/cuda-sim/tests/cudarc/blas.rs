//! cuBLAS in three precisions, on a stream and in a graph.

use std::fmt::Debug;

use cudarc::cublas::sys::cublasOperation_t::CUBLAS_OP_N;
use cudarc::cublas::{CudaBlas, Gemm, GemmConfig};
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use cudarc::driver::{DeviceRepr, ValidAsZeroBits};
use half::f16;

use crate::harness::{device, simulate, simulate_with};

const M: usize = 5;
const N: usize = 7;
const K: usize = 3;

/// A product of column-major matrices, as the device should have it; every term is exact in f16.
fn product() -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    let a: Vec<f64> = (0..M * K).map(|i| i as f64 / 4.0 - 1.0).collect();
    let b: Vec<f64> = (0..K * N).map(|i| 2.0 - i as f64 / 8.0).collect();
    let mut c = vec![0.0; M * N];
    for (column, out) in c.chunks_mut(M).enumerate() {
        for row in 0..M {
            out[row] = (0..K).map(|k| a[k * M + row] * b[column * K + k]).sum();
        }
    }
    (a, b, c)
}

fn check<T>(from: fn(f64) -> T, to: fn(T) -> f64, one: T, zero: T)
where
    T: DeviceRepr + ValidAsZeroBits + Copy + Debug,
    CudaBlas: Gemm<T>,
{
    let (context, stream) = device();
    // SAFETY: one stream does all.
    unsafe { context.disable_event_tracking() };
    let blas = CudaBlas::new(stream.clone()).unwrap();
    let (a, b, expected) = product();
    let upload = |values: &[f64]| {
        let values: Vec<T> = values.iter().map(|value| from(*value)).collect();
        stream.clone_htod(&values).unwrap()
    };
    let (a, b) = (upload(&a), upload(&b));
    let mut c = stream.alloc_zeros::<T>(M * N).unwrap();
    let config = GemmConfig {
        transa: CUBLAS_OP_N,
        transb: CUBLAS_OP_N,
        m: M as i32,
        n: N as i32,
        k: K as i32,
        alpha: one,
        lda: M as i32,
        ldb: K as i32,
        beta: zero,
        ldc: M as i32,
    };
    let values = |c: &_| stream.clone_dtoh(c).unwrap().into_iter().map(to).collect::<Vec<f64>>();
    // SAFETY: the matrices have the extents that the configuration says.
    unsafe { blas.gemm(config, &a, &b, &mut c) }.unwrap();
    assert_eq!(values(&c), expected);

    stream.memset_zeros(&mut c).unwrap();
    stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    // SAFETY: as above.
    unsafe { blas.gemm(config, &a, &b, &mut c) }.unwrap();
    let flags = CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
    let graph = stream.end_capture(flags).unwrap().unwrap();
    assert_eq!(values(&c), [0.0; M * N], "nothing runs while it is captured");
    graph.launch().unwrap();
    assert_eq!(values(&c), expected);
}

#[test]
fn in_f32() {
    simulate(|| check::<f32>(|x| x as f32, f64::from, 1.0, 0.0));
}

#[test]
fn in_f64() {
    simulate(|| check::<f64>(|x| x, |x| x, 1.0, 0.0));
}

#[test]
fn in_f16() {
    simulate(|| check::<f16>(f16::from_f64, f16::to_f64, f16::ONE, f16::ZERO));
}

#[test]
fn what_a_product_moves_is_counted() {
    let file = std::env::temp_dir().join(format!("cudrift-sim-products-{}", std::process::id()));
    let counted = simulate_with(&[("CUDRIFT_SIM_COUNTERS", file.to_str().unwrap())], || {
        check::<f32>(|x| x as f32, f64::from, 1.0, 0.0);
    });
    if counted.is_none() {
        return;
    }
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    // Sectors of 60 and of 84 bytes read, of 140 written. Where it runs again, from a graph, they are in the cache.
    let [first, again] = text.lines().collect::<Vec<_>>().try_into().unwrap();
    for (line, dram) in [(first, 160), (again, 0)] {
        let want = [
            "\"kernel\": \"cuBLAS\"".to_owned(),
            "\"warp_instructions\": 0,".to_owned(),
            format!("\"f32_flop\": {},", 2 * M * N * K),
            "\"lts__t_sectors_srcunit_tex_op_read.sum\": 5,".to_owned(),
            "\"lts__t_sectors_srcunit_tex_op_write.sum\": 5,".to_owned(),
            format!("\"dram__bytes_read.sum\": {dram},"),
        ];
        want.iter().for_each(|want| assert!(line.contains(want), "{want} in {line}"));
    }
}
