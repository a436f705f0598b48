//! Mean-shift and kernel-score fields on the CPU.
//!
//! A task takes a few queries, and the references chunk by chunk: distances, from products of centred points or in low
//! dimension from differences; weights relative to the nearest reference so far, in their place; and from these sums of
//! differences in f64, which are scaled down where a later chunk has a nearer reference. Pairs much nearer to one another
//! than to the centre go apart, by differences.

use super::cut::LOW_DIM;
use super::gemm::{ByRows, TOGETHER, center_row, pack_columns, pack_rows, panels_product};
use super::isa::{Isa, LANES};
use super::tile::{
    FAR, FieldSums, Shape, add_steps, difference_row, field_row, gram_row, roots, squared_distance, total,
};
use crate::reference::log_kernel;
use crate::{Element, Error, Field, FieldInputs, FieldSpec, Kernel, Result};
use rayon::prelude::*;
use std::ops::Range;

/// Queries of a task at most, and references of a chunk; weights and slopes of both together take half a MiB.
pub(super) const ROWS: usize = 32;
pub(super) const CHUNK: usize = 2048;

/// Where a squared distance is less than this share of the squared distances from the centre, it comes from differences:
/// products would leave it an error of 1e-5 and more.
const NEAR: f32 = 1e-2;

/// The fields at every query (spec 1.4), from f32, f16 or bf16 points.
///
/// References whose kernel is less than e^-87 of the nearest one's count nothing, whatever their weight. Where a query has
/// no mass at all (with the self mask and zero weights, or 1.8e19 and more from every reference) its fields are NaN.
///
/// # Errors
/// A bandwidth outside its range; a self mask with sets of different sizes; a result that does not fit into memory.
pub fn field<T: Element>(spec: &FieldSpec, inputs: &FieldInputs<'_, T>) -> Result<Field<f32>> {
    inputs.validate(spec)?;
    Error::check_memory("field", "the result", bytes(inputs.shape()))?;
    let dim = inputs.dim;
    let p = References::new(inputs.p, inputs.weight_p, dim).at(spec, inputs, false);
    let q = References::new(inputs.q, inputs.weight_q, dim).at(spec, inputs, spec.self_mask);
    let minus = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a - b).collect();
    let nonfinite = [inputs.x, inputs.p, inputs.q]
        .iter()
        .map(|set| set.iter().filter(|v| !v.to_f32().is_finite()).count() as u64)
        .sum();
    let [log_total_p, log_total_q] = inputs.log_totals(spec.self_mask);
    let scalars = |set: &Set, at: usize| set.scalars.iter().map(|row| row[at]).collect();
    Ok(Field {
        drift: minus(&p.shift, &q.shift),
        score_diff: minus(&p.score, &q.score),
        logz_p: scalars(&p, 0),
        logz_q: scalars(&q, 0),
        alpha_p: scalars(&p, 1),
        alpha_q: scalars(&q, 1),
        sharp_ratio_p: scalars(&p, 2),
        sharp_ratio_q: scalars(&q, 2),
        log_total_p,
        log_total_q,
        ess_p: scalars(&p, 3),
        ess_q: scalars(&q, 3),
        ms_p: p.shift,
        ms_q: q.shift,
        score_p: p.score,
        score_q: q.score,
        nonfinite,
    })
}

/// The mean shift towards q alone, [n, D].
pub(super) fn mean_shift<T: Element>(spec: &FieldSpec, inputs: &FieldInputs<'_, T>) -> Result<Vec<f32>> {
    inputs.validate(spec)?;
    Error::check_memory("field", "the result", bytes(inputs.shape()))?;
    Ok(References::new(inputs.q, inputs.weight_q, inputs.dim).at(spec, inputs, spec.self_mask).shift)
}

/// Bytes of the results, of the larger set of references, and of what the tasks work on.
fn bytes([n, m, l, dim]: [usize; 4]) -> Option<usize> {
    let padded = dim.next_multiple_of(LANES);
    let each = if dim <= LOW_DIM { dim } else { dim + padded };
    let references = m.max(l).checked_next_multiple_of(LANES)?.checked_mul(each + 2)?;
    let task = 2 * ROWS * (CHUNK + LANES) + (ROWS + 4 * ROWS).checked_mul(dim)?;
    let results = n.checked_mul(dim.checked_mul(6)? + 18)?;
    let tasks = task.checked_mul(rayon::current_num_threads())?;
    references.checked_add(results)?.checked_add(tasks)?.checked_mul(size_of::<f32>())
}

/// What one set of references gives: mean shift and score [n, D]; log mass, preconditioner, sharp mass over mass and
/// effective sample size of each query.
struct Set {
    shift: Vec<f32>,
    score: Vec<f32>,
    scalars: Vec<[f32; 4]>,
}

/// A set of references, laid out for products.
pub(super) struct References<'a, T> {
    pub(super) isa: Isa,
    points: &'a [T],
    dim: usize,
    /// Of each reference, relative to a power of two near the greatest; 0 for the padding of the last lane block.
    pub(super) weight: Vec<f32>,
    /// The logarithm of that power.
    log_weight: f64,
    /// In low dimension: each chunk coordinate by coordinate, [D, chunk].
    by_coordinate: Vec<f32>,
    /// Otherwise a point amid the references, padded to whole lane blocks; squared norms of the centred ones; and these,
    /// in panels of references [D][LANES] and of coordinates [m][LANES].
    center: Vec<f32>,
    norms: Vec<f32>,
    transposed: Vec<f32>,
    columns: Vec<f32>,
}

/// What a task needs, kept from one to the next.
#[derive(Default)]
pub(super) struct Scratch {
    /// Of each query.
    bandwidths: Vec<f64>,
    /// Coordinates [rows, D], centred in high dimension, and their squared norms.
    queries: Vec<f32>,
    norms: Vec<f32>,
    /// Weights of each query, then slopes, [2 rows, stride].
    pub(super) tile: Vec<f32>,
    /// Sums of weights, then of slopes, times differences: [2 rows, D].
    steps: Vec<f64>,
    /// A few panels of products, [2 rows, TOGETHER LANES], and the sums of the tile's rows.
    product: Vec<f32>,
    totals: Vec<f64>,
    /// Near pairs of the chunk, as (row, reference).
    near: Vec<(usize, usize)>,
    /// Weights of the references as a query with a self mask sees them.
    own: Vec<f32>,
}

impl<'a, T: Element> References<'a, T> {
    pub(super) fn new(points: &'a [T], weights: Option<&[f32]>, dim: usize) -> Self {
        let isa = Isa::detect();
        let count = points.len() / dim;
        let padded = count.next_multiple_of(LANES);
        let mut weight = weights.map_or_else(|| vec![1.0; count], <[f32]>::to_vec);
        let exponent = weight.iter().fold(f32::MIN_POSITIVE, |most, w| most.max(*w)).log2().floor();
        // In two steps, for the power itself may be none of f32.
        let half = (-0.5 * exponent).exp2();
        weight.iter_mut().for_each(|w| *w = *w * half * half);
        weight.resize(padded, 0.0);
        let mut set = Self {
            isa,
            points,
            dim,
            weight,
            log_weight: f64::from(exponent) * std::f64::consts::LN_2,
            by_coordinate: Vec::new(),
            center: Vec::new(),
            norms: Vec::new(),
            transposed: Vec::new(),
            columns: Vec::new(),
        };
        if dim <= LOW_DIM {
            set.by_coordinate = vec![0.0; padded * dim];
            for (chunk, points) in set.by_coordinate.chunks_mut(CHUNK * dim).zip(points.chunks(CHUNK * dim)) {
                let width = chunk.len() / dim;
                for (j, point) in points.chunks_exact(dim).enumerate() {
                    point.iter().enumerate().for_each(|(k, v)| chunk[k * width + j] = v.to_f32());
                }
            }
            return set;
        }
        set.center = (0..dim).map(|k| median(points.iter().skip(k).step_by(dim * (count / 32).max(1)))).collect();
        set.norms = vec![0.0; padded];
        set.transposed = vec![0.0; padded * dim];
        let center = &set.center[..];
        (set.transposed.par_chunks_exact_mut(dim * LANES), set.norms.par_chunks_exact_mut(LANES))
            .into_par_iter()
            .zip(points.par_chunks(dim * LANES))
            .for_each_init(Vec::new, |rows, ((panel, norms), points)| {
                rows.resize(dim * LANES, 0.0);
                let each = points.chunks_exact(dim).zip(rows.chunks_exact_mut(dim)).zip(norms);
                each.for_each(|((point, row), norm)| *norm = center_row(isa, point, center, row));
                pack_rows(isa, points.len() / dim, rows, dim, dim, panel);
            });
        // Panels of neighbouring coordinates together, because their cache lines are.
        const NEIGHBOURS: usize = 4;
        set.center.resize(dim.next_multiple_of(LANES), 0.0);
        set.columns = vec![0.0; count * set.center.len()];
        let stride = count * LANES;
        let each = set.columns.par_chunks_mut(NEIGHBOURS * stride).zip(set.center.par_chunks(NEIGHBOURS * LANES));
        each.enumerate().for_each(|(at, (panels, offset))| {
            pack_columns(isa, points, dim, at * NEIGHBOURS * LANES, stride, offset, panels);
        });
        set
    }

    /// The fields of this set at the queries.
    fn at(&self, spec: &FieldSpec, inputs: &FieldInputs<'_, T>, self_mask: bool) -> Set {
        let (x, dim) = (inputs.x, self.dim);
        let n = x.len() / dim;
        // The bits of a query do not depend on which others are in its task.
        let rows = n.div_ceil(rayon::current_num_threads()).clamp(1, ROWS);
        let mut set = Set { shift: vec![0.0; x.len()], score: vec![0.0; x.len()], scalars: vec![[0.0; 4]; n] };
        (
            x.par_chunks(rows * dim),
            set.shift.par_chunks_mut(rows * dim),
            set.score.par_chunks_mut(rows * dim),
            set.scalars.par_chunks_mut(rows),
        )
            .into_par_iter()
            .enumerate()
            .for_each_init(Scratch::default, |scratch, (at, (x, shift, score, scalars))| {
                let task = Task { kernel: spec.kernel, self_mask, first: at * rows, x };
                scratch.bandwidths.clear();
                scratch.bandwidths.extend((0..scalars.len()).map(|i| inputs.bandwidth(spec, task.first + i)));
                let sums = self.sums(&task, scratch);
                self.finish(&task, &sums, scratch, (shift, score, scalars));
            });
        set
    }

    /// The nearest reference of each of a few queries and sums relative to its kernel, with `steps` in the scratch.
    fn sums(&self, task: &Task<'_, T>, scratch: &mut Scratch) -> Vec<(f32, FieldSums)> {
        let (x, dim) = (task.x, self.dim);
        let n = x.len() / dim;
        let parts = task.parts();
        self.prepare(x, scratch);
        scratch.steps.clear();
        scratch.steps.resize(parts * n * dim, 0.0);
        let mut sums = vec![(FAR, FieldSums::default()); n];
        for start in (0..self.weight.len()).step_by(CHUNK) {
            let chunk = start..self.weight.len().min(start + CHUNK);
            // Rows a power of two apart would meet in the same sets of a cache.
            let stride = chunk.len() + LANES;
            scratch.tile.resize(2 * n * stride, 0.0);
            self.distances(x, chunk.clone(), scratch);
            self.weights(task, chunk.clone(), &mut sums, scratch);
            self.add_steps(parts, x, chunk, scratch);
        }
        sums
    }

    /// The queries of a task, as distances take them.
    pub(super) fn prepare(&self, x: &[T], scratch: &mut Scratch) {
        let dim = self.dim;
        scratch.queries.resize(x.len(), 0.0);
        scratch.norms.resize(x.len() / dim, 0.0);
        let queries = scratch.queries.chunks_exact_mut(dim).zip(&mut scratch.norms);
        for (x, (query, norm)) in x.chunks_exact(dim).zip(queries) {
            if self.center.is_empty() {
                query.iter_mut().zip(x).for_each(|(query, v)| *query = v.to_f32());
            } else {
                *norm = center_row(self.isa, x, &self.center[..dim], query);
            }
        }
    }

    /// Squared distances into the tile, and which of its pairs are near.
    pub(super) fn distances(&self, x: &[T], chunk: Range<usize>, scratch: &mut Scratch) {
        let (dim, width, stride) = (self.dim, chunk.len(), chunk.len() + LANES);
        let Scratch { queries, norms: query_norms, tile, near, .. } = scratch;
        near.clear();
        if self.center.is_empty() {
            let soa = &self.by_coordinate[chunk.start * dim..][..width * dim];
            for (row, x) in tile.chunks_exact_mut(stride).zip(queries.chunks_exact(dim)) {
                difference_row(self.isa, &mut row[..width], x, soa);
            }
            return;
        }
        let panels = self.transposed[chunk.start * dim..][..width * dim].chunks(TOGETHER * dim * LANES);
        for (at, panels) in panels.enumerate() {
            let panels = (panels, dim * LANES, dim, panels.len() / (dim * LANES));
            let out = (&mut tile[at * TOGETHER * LANES..], stride, LANES);
            panels_product(self.isa, query_norms.len(), ByRows { a: queries, stride: dim }, panels, out, false);
        }
        let norms = &self.norms[chunk.clone()];
        let count = self.points.len() / dim - chunk.start;
        for (i, (row, norm)) in tile.chunks_exact_mut(stride).zip(&*query_norms).enumerate() {
            if !gram_row(self.isa, &mut row[..width], *norm, norms, NEAR) {
                continue;
            }
            for (j, other) in norms.iter().enumerate().take(count) {
                if row[j] < NEAR * (norm + other) {
                    let point = &self.points[(chunk.start + j) * dim..][..dim];
                    row[j] = squared_distance(self.isa, &x[i * dim..][..dim], point);
                    near.push((i, j));
                }
            }
        }
    }

    /// Weights and slopes in the place of squared distances, with their sums.
    fn weights(&self, task: &Task<'_, T>, chunk: Range<usize>, sums: &mut [(f32, FieldSums)], scratch: &mut Scratch) {
        let (width, stride, n) = (chunk.len(), chunk.len() + LANES, sums.len());
        let Scratch { bandwidths, tile, steps, own, .. } = scratch;
        let (tile, slopes) = tile.split_at_mut(n * stride);
        for (i, ((least, sums), bandwidth)) in sums.iter_mut().zip(&*bandwidths).enumerate() {
            let (row, slopes) = (&mut tile[i * stride..][..width], &mut slopes[i * stride..][..width]);
            let mut weight = &self.weight[chunk.clone()];
            if task.self_mask && chunk.contains(&(task.first + i)) {
                own.clear();
                own.extend(weight);
                own[task.first + i - chunk.start] = 0.0;
                weight = own;
            }
            let min = roots(self.isa, row, weight);
            if min < *least {
                let log = |d: f32| log_kernel(task.kernel, f64::from(d), *bandwidth);
                let fade = (log(*least) - log(min)).exp();
                sums.fade(fade);
                let own = steps.chunks_exact_mut(self.dim).skip(i).step_by(n);
                own.flatten().for_each(|step| *step *= fade);
                *least = min;
            }
            sums.add(&field_row(self.isa, Shape::new(task.kernel, *bandwidth), *least, weight, row, slopes));
        }
    }

    /// Adds weights and slopes times differences.
    fn add_steps(&self, parts: usize, x: &[T], chunk: Range<usize>, scratch: &mut Scratch) {
        let (dim, width, stride) = (self.dim, chunk.len(), chunk.len() + LANES);
        let Scratch { queries, tile, steps, product, totals, near, .. } = scratch;
        let n = queries.len() / dim;
        if self.center.is_empty() {
            let soa = &self.by_coordinate[chunk.start * dim..][..width * dim];
            let each = tile.chunks_exact(stride).zip(queries.chunks_exact(dim).cycle());
            each.zip(steps.chunks_exact_mut(dim))
                .for_each(|((a, x), steps)| add_steps(self.isa, &a[..width], x, soa, steps));
            return;
        }
        for &(i, j) in &*near {
            let (x, y) = (&x[i * dim..][..dim], &self.points[(chunk.start + j) * dim..][..dim]);
            for part in 0..parts {
                let a = f64::from(std::mem::take(&mut tile[(part * n + i) * stride + j]));
                let steps = steps[(part * n + i) * dim..][..dim].iter_mut();
                steps.zip(x.iter().zip(y)).for_each(|(step, (x, y))| *step += a * f64::from(y.to_f32() - x.to_f32()));
            }
        }
        totals.clear();
        totals.extend(tile.chunks_exact(stride).take(parts * n).map(|row| total(self.isa, &row[..width])));
        let width = TOGETHER * LANES;
        product.resize(parts * n * width, 0.0);
        // References beyond the last are in no panel.
        let count = self.points.len() / dim;
        let present = chunk.start..chunk.end.min(count);
        for (at, panels) in self.columns.chunks(TOGETHER * count * LANES).enumerate() {
            let together = panels.len() / (count * LANES);
            let panels = (&panels[present.start * LANES..], count * LANES, present.len(), together);
            let rows = ByRows { a: tile, stride };
            panels_product(self.isa, parts * n, rows, panels, (product, width, LANES), false);
            let k = at * width..dim.min((at + 1) * width);
            let rows = steps.chunks_exact_mut(dim).zip(queries.chunks_exact(dim).cycle());
            for ((steps, x), (product, total)) in rows.zip(product.chunks_exact(width).zip(&*totals)) {
                let each = steps[k.clone()].iter_mut().zip(product).zip(&x[k.clone()]);
                each.for_each(|((step, product), x)| *step += f64::from(*product) - total * f64::from(*x));
            }
        }
    }

    /// The fields of a few queries.
    fn finish(
        &self,
        task: &Task<'_, T>,
        sums: &[(f32, FieldSums)],
        scratch: &Scratch,
        (shift, score, scalars): (&mut [f32], &mut [f32], &mut [[f32; 4]]),
    ) {
        let (n, dim) = (sums.len(), self.dim);
        for (i, ((least, sums), bandwidth)) in sums.iter().zip(&scratch.bandwidths).enumerate() {
            let FieldSums { mass, alpha, sharp, square } = *sums;
            let own = i * dim..(i + 1) * dim;
            let steps = |row: usize| &scratch.steps[row * dim..][..dim];
            // Where there are no slopes, the score is this much of the mean shift.
            let (slopes, factor) = match task.kernel {
                Kernel::Gaussian => (steps(i), 1.0 / (bandwidth * bandwidth)),
                _ => (steps(n + i), 1.0),
            };
            let narrow = |to: &mut [f32], from: &[f64], factor: f64| {
                to.iter_mut().zip(from).for_each(|(to, v)| *to = (v * factor) as f32);
            };
            narrow(&mut shift[own.clone()], steps(i), 1.0 / mass);
            narrow(&mut score[own], slopes, factor / mass);
            let log = mass.ln() + log_kernel(task.kernel, f64::from(*least), *bandwidth) + self.log_weight;
            scalars[i] = [log, alpha / mass, sharp / mass, mass * mass / square].map(|v| v as f32);
        }
    }
}

/// A few queries [rows, D], and the number of the first.
struct Task<'a, T> {
    kernel: Kernel,
    self_mask: bool,
    first: usize,
    x: &'a [T],
}

impl<T> Task<'_, T> {
    /// Weights, and slopes: a Gaussian's score is its mean shift, but for a factor.
    fn parts(&self) -> usize {
        if self.kernel == Kernel::Gaussian { 1 } else { 2 }
    }
}

/// The median of a few numbers; 0 where it is not finite. A stray point, unlike in a mean, does not move it.
fn median<'a, T: Element>(values: impl Iterator<Item = &'a T>) -> f32 {
    let mut values: Vec<f32> = values.map(|v| v.to_f32()).collect();
    let at = values.len() / 2;
    let (_, middle, _) = values.select_nth_unstable_by(at, f32::total_cmp);
    if middle.is_finite() { *middle } else { 0.0 }
}

impl FieldSums {
    fn fade(&mut self, by: f64) {
        let Self { mass, alpha, sharp, square } = self;
        [mass, alpha, sharp].into_iter().for_each(|sum| *sum *= by);
        *square *= by * by;
    }

    fn add(&mut self, other: &Self) {
        self.mass += other.mass;
        self.alpha += other.alpha;
        self.sharp += other.sharp;
        self.square += other.square;
    }
}
