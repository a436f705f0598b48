//! The drift on the stream and the arrays of another crate, without copies:
//! `cargo run --release --features cuda --example 08_interop`.
//!
//! A crate that uses the cudarc re-exported here (0.19, `cudrift::cuda::cudarc`), as candle does in the releases that take
//! the same one, hands over its `CudaStream` and `CudaSlice`s as they are. One with another version, or with none, has the
//! same things as numbers: the addresses of a CUstream and of arrays.

use std::sync::Arc;

use cudrift::cuda::cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DriverError, sys};
use cudrift::cuda::{self, Inputs, Kernels, Outputs, Phase, Plan, Pointers};
use cudrift::rng::{Purpose, Stream};
use cudrift::{DriftShape, DriftSpec, Dtype};

/// The other crate: tensors on a stream of its own.
struct Framework {
    stream: Arc<CudaStream>,
}

/// A tensor of it.
struct Tensor {
    slice: CudaSlice<f32>,
}

impl Framework {
    fn new() -> Result<Self, DriverError> {
        Ok(Self { stream: CudaContext::new(0)?.new_stream()? })
    }

    fn normals(&self, seed: u64, count: usize) -> Result<Tensor, DriverError> {
        let slice = self.stream.clone_htod(&Stream::new(seed, Purpose::Data, 0).normals(count))?;
        Ok(Tensor { slice })
    }

    fn zeros(&self, count: usize) -> Result<Tensor, DriverError> {
        Ok(Tensor { slice: self.stream.alloc_zeros(count)? })
    }
}

/// Runs the example.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", cuda::probe()?.name);
    let framework = Framework::new()?;
    let shape = DriftShape { groups: 4, generated: 32, negatives: 0, positives: 48, dim: 24 };
    let generated = framework.normals(1, shape.groups * shape.generated * shape.dim)?;
    let positives = framework.normals(2, shape.groups * shape.positives * shape.dim)?;
    let mut gradient = framework.zeros(shape.groups * shape.generated * shape.dim)?;
    let kernels = Kernels::load(framework.stream.context())?;
    let plan = Plan::new(&DriftSpec::official(), shape, Dtype::F32)?;
    let mut workspace = framework.stream.alloc_zeros::<u8>(plan.workspace_bytes())?;

    // The same types: checked, and safe.
    let inputs = Inputs::new(&generated.slice, &positives.slice);
    let outputs = Outputs { gradient: Some(gradient.slice.as_view_mut()), ..Outputs::default() };
    plan.run(&kernels, &framework.stream, inputs, &mut workspace, outputs)?;
    let by_types = framework.stream.clone_dtoh(&gradient.slice)?;

    // The same numbers: what is checked above is promised here.
    let address = |slice: &CudaSlice<f32>| slice.device_ptr(&framework.stream).0;
    let pointers = Pointers {
        samples: [address(&generated.slice), 0, address(&positives.slice)],
        gradient: gradient.slice.device_ptr_mut(&framework.stream).0,
        ..Pointers::default()
    };
    let call = plan.call(&[pointers], workspace.device_ptr_mut(&framework.stream).0);
    let raw: sys::CUstream = framework.stream.cu_stream();
    framework.stream.memset_zeros(&mut gradient.slice)?;
    // SAFETY: a stream of this context, which outlives what is done with it here.
    let stream = unsafe { framework.stream.context().wrap_borrowed_stream(raw) };
    for phase in Phase::RUN {
        // SAFETY: the call is this plan's, of arrays with its extents that outlive the stream's work; one head has no table.
        unsafe { plan.launch(&kernels, &stream, &call, phase) }?;
    }
    let by_addresses = framework.stream.clone_dtoh(&gradient.slice)?;
    println!("gradient begins {:?}, by types and by addresses: {}", &by_types[..3], by_types == by_addresses);
    if by_types == by_addresses { Ok(()) } else { Err("both ways differ".into()) }
}
