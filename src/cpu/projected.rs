//! The barycentre of all data by way of landmarks on the CPU: kernels of a few queries and all landmarks, and a product.

use super::field::{CHUNK, ROWS, References, Scratch};
use super::gemm::{pack, packed_len, product};
use super::isa::LANES;
use super::tile::{Shape, field_row, roots};
use crate::{Error, Projection, Result};
use rayon::prelude::*;

/// The barycentre that every query [n, D] sees (spec 8.11). What it sees nothing of is at 0, as in the source: far from
/// all landmarks it is less than a barycentre.
///
/// # Errors
/// [`Error::Shape`] where `x` is not whole points; [`Error::TooLarge`] where the result does not fit into memory.
pub fn projected(projection: &Projection, x: &[f32]) -> Result<Vec<f32>> {
    let (spec, dim) = (projection.spec(), projection.dim());
    if !x.len().is_multiple_of(dim) {
        return Err(Error::shape("projection", "x", format!("[n, {dim}]"), [x.len()]));
    }
    let landmarks = References::new(projection.landmarks(), None, dim);
    let (isa, count, columns) = (landmarks.isa, projection.landmarks().len() / dim, dim + 1);
    let bytes = || x.len().checked_add(packed_len(count, columns))?.checked_mul(2 * size_of::<f32>());
    Error::check_memory("projection", "the result", bytes())?;
    let chunks = projection.folded().chunks(CHUNK * columns).map(|folded| {
        let narrowed: Vec<f32> = folded.iter().map(|c| *c as f32).collect();
        let mut packed = vec![0.0; packed_len(folded.len() / columns, columns)];
        pack(isa, &narrowed, folded.len() / columns, columns, &mut packed);
        packed
    });
    let chunks: Vec<Vec<f32>> = chunks.collect();
    let shape = Shape::new(spec.kernel, spec.bandwidth);
    let mut result = vec![0.0; x.len()];
    let tasks = x.par_chunks(ROWS * dim).zip(result.par_chunks_mut(ROWS * dim));
    tasks.for_each_init(Scratch::default, |scratch, (x, result)| {
        let n = x.len() / dim;
        landmarks.prepare(x, scratch);
        let mut sums = vec![0.0f64; n * columns];
        let mut part = vec![0.0f32; n * columns];
        for (at, packed) in chunks.iter().enumerate() {
            let chunk = at * CHUNK..landmarks.weight.len().min((at + 1) * CHUNK);
            let (width, stride) = (chunk.len(), chunk.len() + LANES);
            let present = width.min(count - chunk.start);
            scratch.tile.resize(2 * n * stride, 0.0);
            landmarks.distances(x, chunk.clone(), scratch);
            let (tile, slopes) = scratch.tile.split_at_mut(n * stride);
            let weight = &landmarks.weight[chunk];
            for row in tile.chunks_exact_mut(stride) {
                let row = &mut row[..width];
                roots(isa, row, weight);
                // Relative to a landmark at the query itself, that is, as it is.
                field_row(isa, shape, 0.0, weight, row, &mut slopes[..width]);
            }
            // Rows without gaps.
            for i in 1..n {
                tile.copy_within(i * stride..i * stride + present, i * present);
            }
            product(isa, [n, present, columns], &tile[..n * present], packed, &mut part);
            sums.iter_mut().zip(&part).for_each(|(sum, part)| *sum += f64::from(*part));
        }
        for (sums, result) in sums.chunks_exact(columns).zip(result.chunks_exact_mut(dim)) {
            result.iter_mut().zip(projection.barycentre(sums)).for_each(|(to, from)| *to = from as f32);
        }
    });
    Ok(result)
}
