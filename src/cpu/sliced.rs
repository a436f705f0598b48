//! The sliced Wasserstein field on the CPU: a product gives all projections, each direction is sorted by itself, and a
//! second product adds the gaps up.

use super::gemm::{pack, pack_transposed, packed_len, product, transpose};
use super::isa::Isa;
use crate::sliced::quantile;
use crate::{Element, Error, Result, SlicedInputs};
use rayon::prelude::*;

/// The velocity of every query, [n, D] (spec 8.9), from f32, f16 or bf16 points.
///
/// Where projections of two queries are as near as the rounding of f32 either may have the lower rank. A NaN among the
/// queries makes every result NaN; one among the references, those of the greatest ranks.
///
/// # Errors
/// [`Error::TooLarge`] where the projections, [L, n] and [L, m], do not fit into memory.
pub fn sliced<T: Element>(inputs: &SlicedInputs<'_, T>) -> Result<Vec<f32>> {
    let SlicedInputs { x, p, directions, dim } = *inputs;
    let [n, m, count, _] = inputs.shape();
    let bytes = || {
        let points = n.checked_add(m)?;
        let numbers = points.checked_mul(count)?.checked_mul(2)?.checked_add(points.checked_mul(2 * dim)?)?;
        numbers.checked_mul(size_of::<f32>())
    };
    Error::check_memory("sliced field", "the projections", bytes())?;
    if n == 0 {
        return Ok(Vec::new());
    }
    let isa = Isa::detect();
    // The field does not change with the origin, and far from it projections would have few digits.
    let center: Vec<f32> = (0..dim)
        .map(|k| (x.iter().skip(k).step_by(dim).map(|v| f64::from(v.to_f32())).sum::<f64>() / n as f64) as f32)
        .collect();
    let along = |set: &[T]| {
        let centered: Vec<f32> =
            set.chunks_exact(dim).flat_map(|point| point.iter().zip(&center).map(|(v, c)| v.to_f32() - c)).collect();
        let points = centered.len() / dim;
        let mut packed = vec![0.0; packed_len(dim, points)];
        pack_transposed(isa, &centered, points, dim, &mut packed);
        let mut projections = vec![0.0; count * points];
        product(isa, [count, dim, points], directions, &packed, &mut projections);
        projections
    };
    let (mut gaps, mut to) = (along(x), along(p));
    to.par_chunks_exact_mut(m).for_each(|to| to.sort_unstable_by(f32::total_cmp));
    let pairs = gaps.par_chunks_exact_mut(n).zip(to.par_chunks_exact(m));
    pairs.for_each_init(Vec::new, |order, (gaps, to)| {
        order.clear();
        order.extend(gaps.iter().enumerate().map(|(i, v)| (*v, i)));
        order.sort_unstable_by(|(a, i), (b, j)| a.total_cmp(b).then(i.cmp(j)));
        for (rank, (from, i)) in order.iter().enumerate() {
            let (below, above, share) = quantile(rank, n, m);
            let share = share as f32;
            gaps[*i] = (1.0 - share) * to[below] + share * to[above] - from;
        }
    });
    let mut of_each = vec![0.0; n * count];
    transpose(isa, &gaps, count, n, &mut of_each);
    let mut packed = vec![0.0; packed_len(count, dim)];
    pack(isa, directions, count, dim, &mut packed);
    let mut velocity = vec![0.0; n * dim];
    product(isa, [n, count, dim], &of_each, &packed, &mut velocity);
    let factor = dim as f32 / count as f32;
    velocity.iter_mut().for_each(|v| *v *= factor);
    Ok(velocity)
}
