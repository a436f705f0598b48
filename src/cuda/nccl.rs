//! Sums over several devices by NCCL, which adds no floating-point numbers in another order from one run to the next on the
//! same devices. Its library is opened at run time.

use std::sync::Arc;

use cudarc::driver::{CudaStream, CudaViewMut};
use cudarc::nccl::result::NcclError;
use cudarc::nccl::{Comm, Id, ReduceOp, sys};

use super::context::failed;
use crate::{Error, Result};

/// A communicator of `world` processes or threads, of which this is number `rank`, on the stream that its drifts run on.
///
/// # Errors
/// [`Error::LibraryMissing`] without libnccl, [`Error::Value`] for a rank that is none, [`Error::Nccl`] where NCCL refuses,
/// [`Error::Device`] where the driver does.
pub fn communicator(stream: &Arc<CudaStream>, rank: usize, world: usize, id: Id) -> Result<Comm> {
    present()?;
    if rank >= world || i32::try_from(world).is_err() {
        return Err(Error::value("NCCL", "rank", format!("less than the world's {world}"), rank));
    }
    // NCCL takes the thread's current device.
    stream.context().bind_to_thread().map_err(|error| failed("entering the stream's context", error))?;
    Comm::from_rank(stream.clone(), rank, world, id).map_err(|error| refused("joining the communicator", error))
}

/// What the first of a world's members makes and gives to the others, that they may meet.
///
/// # Errors
/// [`Error::LibraryMissing`] without libnccl, [`Error::Nccl`] where NCCL refuses.
pub fn id() -> Result<Id> {
    present()?;
    Id::new().map_err(|error| refused("making an id", error))
}

/// Adds numbers over all members of a communicator, for [`Plan::run_spread`](super::Plan::run_spread).
pub fn add_up(communicator: &Comm) -> impl FnMut(&mut CudaViewMut<'_, f64>) -> Result<()> {
    move |numbers| {
        let added = communicator.all_reduce_in_place(numbers, &ReduceOp::Sum);
        added.map(drop).map_err(|error| refused("adding up", error))
    }
}

fn present() -> Result<()> {
    // cudarc panics where the library is missing, so ask first.
    // SAFETY: loads a library, whose initialisation NCCL defines to be harmless.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(Error::LibraryMissing { library: "libnccl.so", advice: "install NCCL, as `pip install nvidia-nccl-cu13` does" })
}

fn refused(op: &'static str, error: NcclError) -> Error {
    Error::Nccl { op, problem: format!("{:?}", error.0) }
}
