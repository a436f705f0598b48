//! Groups of few coordinates. Their distances are not kept: every pass makes them again, a few rows and columns at a
//! time, so that they stay near. That is a few multiply-adds and a root each, less than it takes to write them to memory
//! and to read them.

use super::Plan;
use super::cut::LOW_DIM;
use super::group::{Group, Minima, Scratch, sized};
use super::isa::{LANES, Simd, per_isa};
use super::simd::pairwise;
use super::sums::add;
use super::tile::{self, Distances, FAR, ROWS, Shape, blocks, blocks_of, blocks_of_mut, exponentials_of, for_kernel};
use crate::{Coupling, FeatureScale, Kernel, SelfMask};
use std::ops::Range;

/// A query alone.
const ONE: usize = 1;

/// Coordinates that are summed at a time in registers; with more, distances are made before their exponentials.
const TOGETHER: usize = 3;
const _: () = assert!(TOGETHER == 3, "a function of each number up to it is written down below");

impl Group {
    /// Of the targets `k`, what is added to their squared distances, their weights in the mean distance, and a number
    /// above 0 where they are among the minima of rows.
    fn columns(&self, k: Range<usize>) -> [&[f32]; 3] {
        [&self.absent[k.clone()], &self.mean_weight[k.clone()], &self.row_weight[k]]
    }

    /// 1 where the targets `k` are in the negative block, or in the positive one, else 0.
    fn block(&self, block: usize, k: Range<usize>) -> &[f32] {
        &[&self.negative, &self.positive][block][k]
    }
}

impl Plan {
    /// The coordinates of up to [`ROWS`] queries, [D, ROWS].
    fn queries(&self, group: &Group, rows: Range<usize>) -> [[f32; ROWS]; LOW_DIM] {
        let mut queries = [[0.0; ROWS]; LOW_DIM];
        for (queries, points) in queries.iter_mut().zip(group.soa.chunks_exact(self.cut.row)) {
            queries[..rows.len()].copy_from_slice(&points[rows.clone()]);
        }
        queries
    }

    /// The distances of up to [`ROWS`] queries to the targets `k`, [rows, k], before the self mask; [`REMOVED`] to what
    /// is not there.
    ///
    /// [`REMOVED`]: super::tile::REMOVED
    fn distances_of_some<'a>(
        &self,
        group: &Group,
        rows: Range<usize>,
        k: Range<usize>,
        out: &'a mut Vec<f32>,
    ) -> &'a mut [f32] {
        let (row, dim) = (self.cut.row, self.shape.dim);
        let out = sized(out, rows.len() * k.len());
        let queries = self.queries(group, rows.clone());
        let (points, floor) = ((&group.soa[k.start..], row), self.spec.min_squared_distance as f32);
        between(self.isa, rows.len(), &queries[..dim], points, &group.absent[k], floor, out);
        out
    }

    /// The masked distances of up to [`ROWS`] queries to the targets `k`, and their stride: those of `tile`, whose first
    /// row is theirs, or in low dimension made now.
    pub(super) fn masked_distances<'a>(
        &self,
        group: &Group,
        (rows, k): (Range<usize>, Range<usize>),
        (tile, stride): (&'a [f32], usize),
        made: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        if !self.cut.low_dim {
            return (&tile[k.start..], stride);
        }
        let made = self.distances_of_some(group, rows.clone(), k.clone(), made);
        mask_some(group, rows, k.clone(), made);
        (made, k.len())
    }

    /// [`Plan::masked_distances`], and with them their [`Plan::exponentials`].
    #[allow(clippy::too_many_arguments)]
    pub(super) fn with_exponentials<'a>(
        &self,
        group: &Group,
        shapes: &[Shape],
        (rows, k): (Range<usize>, Range<usize>),
        tile: (&'a [f32], usize),
        only_joint: bool,
        e: &mut [f32],
        apart: usize,
        made: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        let all = || (rows.clone(), k.clone());
        let first = self.evaluated(group, shapes, only_joint).next();
        let beside = self.cut.low_dim && self.shape.dim <= TOGETHER && self.spec.coupling != Coupling::Row;
        let (distances, done) = match first.filter(|_| beside && rows.len() == ROWS) {
            Some(r) => (self.made_beside(group, shapes[r], all(), &mut e[r * apart..], made), first),
            None => (self.masked_distances(group, all(), tile, made), None),
        };
        self.exponentials(group, shapes, all(), distances, (only_joint, done), e, apart);
        distances
    }

    /// The masked distances of [`ROWS`] queries, made together with their exponentials: roots take their time elsewhere in
    /// the processor than multiply-adds.
    fn made_beside<'a>(
        &self,
        group: &Group,
        shape: Shape,
        (rows, k): (Range<usize>, Range<usize>),
        e: &mut [f32],
        made: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        let width = k.len();
        let made = sized(made, ROWS * width);
        let queries = self.queries(group, rows.clone());
        let floor = self.spec.min_squared_distance as f32;
        let (points, absent) = ((&group.soa[k.start..], self.cut.row), &group.absent[k.clone()]);
        let minima = (&group.masked.row[rows.clone()], &group.masked.col[k.clone()]);
        exponentials_between(self.isa, shape, &queries[..self.shape.dim], points, absent, floor, minima, made, e);
        mask_some(group, rows.clone(), k.clone(), made);
        // Those of the diagonal once more.
        let own = rows.start / LANES * LANES..rows.end.next_multiple_of(LANES);
        let own = own.start.max(k.start)..own.end.min(k.end);
        if !own.is_empty() {
            let mut again = [0.0; 2 * ROWS * LANES];
            let near = (&made[own.start - k.start..], width);
            tile::exponentials(self.isa, shape, near, minima.0, &group.masked.col[own.clone()], &mut again);
            for (n, i) in rows.enumerate().filter(|(_, i)| own.contains(i)) {
                e[n * width + i - k.start] = again[n * own.len() + i - own.start];
            }
        }
        (made, width)
    }

    /// Phase A of the queries `rows`: their minima; returns their share of `sum_ij d_ij w_j`.
    pub(super) fn low_dim_sum(
        &self,
        group: &Group,
        rows: Range<usize>,
        made: &mut Vec<f32>,
        minima: &mut Minima,
    ) -> f64 {
        let (row, dim, width) = (self.cut.row, self.shape.dim, self.some_width());
        let floor = self.spec.min_squared_distance as f32;
        let mut total = group.weightless;
        for first in rows.clone().step_by(ROWS) {
            let some = first..rows.end.min(first + ROWS);
            let count = some.len();
            let (mut sums, mut least) = ([0.0; ROWS], [FAR; ROWS]);
            let own = first / LANES * LANES..some.end.next_multiple_of(LANES);
            let queries = self.queries(group, some.clone());
            for others in [0..own.start, own.end..row] {
                for start in others.clone().step_by(width) {
                    let k = start..others.end.min(start + width);
                    let (points, columns) = ((&group.soa[start..], row), group.columns(k.clone()));
                    let to = (&mut minima.col[k], &mut least[..count], &mut sums[..count]);
                    summed(self.isa, &queries[..dim], points, columns, floor, to);
                }
            }
            // The distance to itself is neither in the sum nor among the minima.
            let near = self.distances_of_some(group, some.clone(), own.clone(), made);
            let each = some.clone().zip(near.chunks_exact(own.len())).zip(sums.iter_mut().zip(&mut least));
            for ((i, near), (sum, least)) in each {
                for (j, &d) in own.clone().zip(near).filter(|(j, _)| *j != i) {
                    let weight = group.mean_weight[j];
                    *sum += if weight > 0.0 { f64::from(d) * f64::from(weight) } else { 0.0 };
                    *least = if group.row_weight[j] > 0.0 && d < *least { d } else { *least };
                    minima.col[j] = if d < minima.col[j] { d } else { minima.col[j] };
                }
            }
            for ((i, mut sum), least) in some.zip(sums).zip(least) {
                let own = self.self_distance(group, i);
                minima.diagonal.push(own);
                minima.row.push(least);
                if self.spec.feature_scale != FeatureScale::Paper {
                    sum += f64::from(own) * f64::from(group.mean_weight[i]);
                }
                total = add(&self.spec, total, sum);
            }
        }
        total
    }

    /// The distance of a query to itself: the floor, unless it is not finite.
    fn self_distance(&self, group: &Group, i: usize) -> f32 {
        let mut q = 0.0;
        if !self.spec.numerics.constant_self_distance {
            for x in group.soa.iter().skip(i).step_by(self.cut.row) {
                q += 0.0 * x;
            }
        }
        let floor = self.spec.min_squared_distance as f32;
        (if q < floor { floor } else { q }).sqrt()
    }

    /// The forces of up to [`ROWS`] queries, [rows, R, D].
    pub(super) fn low_dim_forces(
        &self,
        group: &Group,
        shapes: &[Shape],
        some: Range<usize>,
        scratch: &mut Scratch,
    ) -> Vec<f32> {
        let (row, dim, temperatures) = (self.cut.row, self.shape.dim, shapes.len());
        let (whole_rows, floors) = (self.spec.rows_of_mass_one(), self.floors());
        // Else affinities are made first and then summed.
        let at_once = self.spec.coupling == Coupling::RowColumn && !whole_rows && !floors.of_normalizer();
        let width = if whole_rows { row } else { self.some_width() };
        let apart = ROWS * width;
        let Scratch { tile: made, exponentials, .. } = scratch;
        let e = sized(exponentials, temperatures * apart);
        let queries = self.queries(group, some.clone());
        let mut masses = vec![[[0.0f64; 2]; ROWS]; temperatures];
        // Of each temperature and block, the mass and the steps of each query.
        let len = some.len() * (1 + dim);
        let mut sums = vec![[0.0f64; LANES]; 2 * temperatures * len];
        for start in (0..row).step_by(width) {
            let k = start..row.min(start + width);
            let rows = (some.clone(), k.clone());
            let distances = if whole_rows {
                self.masked_distances(group, rows.clone(), (&[], 0), made)
            } else {
                self.with_exponentials(group, shapes, rows.clone(), (&[], 0), false, e, apart, made)
            };
            for (r, (a, sums)) in e.chunks_exact_mut(apart).zip(sums.chunks_exact_mut(2 * len)).enumerate() {
                let mut inverse = [1.0; ROWS];
                if at_once {
                    for (inverse, i) in inverse.iter_mut().zip(some.clone()) {
                        *inverse = group.row_partition[i * temperatures + r].inv_root;
                    }
                } else {
                    let part = self.affinities(group, shapes, rows.clone(), r, distances, a);
                    for (mass, part) in masses[r].iter_mut().flatten().zip(part.into_iter().flatten()) {
                        *mass += f64::from(part);
                    }
                }
                for (block, piece) in self.pieces(k.clone()) {
                    let mut room = [0.0; LANES];
                    let (columns, floor) = if at_once {
                        let inv_root = &group.col_inv_root[r * row..][piece.clone()];
                        ((inv_root, self.factor_in(group, block, &piece, &mut room)), floors.affinity)
                    } else {
                        let there = group.block(block, piece.clone());
                        ((there, there), 0.0)
                    };
                    let (a, points) = ((&a[piece.start - start..], k.len()), (&group.soa[piece.start..], row));
                    let (rows, sums) = (&inverse[..some.len()], &mut sums[block * len..][..len]);
                    add_steps(self.isa, a, rows, floor, columns, &queries[..dim], points, sums);
                }
            }
        }
        let mut forces = vec![0.0; some.len() * temperatures * dim];
        for (n, (i, forces)) in some.zip(forces.chunks_exact_mut(temperatures * dim)).enumerate() {
            for (r, force) in forces.chunks_exact_mut(dim).enumerate() {
                let of = |block: usize, at: usize| pairwise(sums[(2 * r + block) * len + n * (1 + dim) + at]);
                let [mut s_minus, mut s_plus] = masses[r][n];
                if at_once {
                    (s_minus, s_plus) = (of(0, 0), of(1, 0));
                    if self.spec.self_mask == SelfMask::Remove {
                        // No affinity, but the floor.
                        s_minus -= f64::from(floors.affinity * group.factor[i]);
                    }
                }
                for (k, force) in force.iter_mut().enumerate() {
                    *force = (s_minus * of(1, 1 + k) - s_plus * of(0, 1 + k)) as f32;
                }
            }
        }
        forces
    }

    /// Parts of the columns `k`, in whole lane blocks, and which block they are in, 0 for the negative one and 1 for the
    /// positive one: the lane block in which the first ends is in both.
    fn pieces(&self, k: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let split = (self.shape.generated + self.shape.negatives).clamp(k.start, k.end);
        let (low, high) = (split / LANES * LANES, split.next_multiple_of(LANES));
        [(0, k.start..low), (0, low..high), (1, low..high), (1, high..k.end)]
            .into_iter()
            .filter(|(_, piece)| !piece.is_empty())
    }

    /// What multiplies the affinities of a piece, but 0 where its columns are in the other block.
    fn factor_in<'a>(
        &self,
        group: &'a Group,
        block: usize,
        piece: &Range<usize>,
        room: &'a mut [f32; LANES],
    ) -> &'a [f32] {
        let (factor, split) = (&group.factor[piece.clone()], self.shape.generated + self.shape.negatives);
        if piece.start >= split || split >= piece.end {
            return factor;
        }
        let there = group.block(block, piece.clone());
        *room = std::array::from_fn(|l| factor[l] * there[l]);
        room
    }
}

/// Writes the masked distances of queries to themselves among those to the targets `k`.
fn mask_some(group: &Group, rows: Range<usize>, k: Range<usize>, made: &mut [f32]) {
    for (row, i) in made.chunks_exact_mut(k.len()).zip(rows) {
        if k.contains(&i) && group.absent[i] == 0.0 {
            row[i - k.start] = group.masked.diagonal[i];
        }
    }
}

/// The distances of a few queries to all targets.
#[derive(Clone, Copy)]
struct Between<'a, const DIM: usize> {
    queries: &'a [[f32; ROWS]; DIM],
    points: [&'a [[f32; LANES]]; DIM],
    absent: &'a [[f32; LANES]],
    floor: f32,
}

impl<'a, const DIM: usize> Between<'a, DIM> {
    /// As many targets as there are of `absent`; their coordinates are `next` elements apart.
    #[inline(always)]
    fn new(queries: &'a [[f32; ROWS]], (points, next): (&'a [f32], usize), absent: &'a [f32], floor: f32) -> Self {
        let count = absent.len() / LANES;
        Self {
            queries: queries.first_chunk().expect("as many coordinates as were asked for"),
            points: blocks_of((points, next), count),
            absent: blocks(absent, count),
            floor,
        }
    }

    /// Those of query `n` to a lane block of targets.
    #[inline(always)]
    fn of<V: Simd>(self, n: usize, at: usize) -> V {
        let mut q = V::load(&self.absent[at]);
        for k in 0..DIM {
            let step = V::splat(self.queries[k][n]).sub(V::load(&self.points[k][at]));
            q = step.mul_add(step, q);
        }
        q.at_least(V::splat(self.floor)).sqrt()
    }
}

/// The same, written down as they are made.
struct Made<'a, const N: usize, const DIM: usize> {
    between: Between<'a, DIM>,
    out: [&'a mut [[f32; LANES]]; N],
}

impl<V: Simd, const N: usize, const DIM: usize> Distances<V> for Made<'_, N, DIM> {
    #[inline(always)]
    fn of(&mut self, n: usize, at: usize) -> V {
        let d = self.between.of::<V>(n, at);
        d.store(&mut self.out[n][at]);
        d
    }
}

/// Calls a function generic over the number of queries and of coordinates.
macro_rules! for_queries {
    ($n:ident, $dim:expr, $f:ident ( $($arg:expr),* )) => {
        match $dim {
            1 => $f::<V, $n, 1>($($arg),*),
            2 => $f::<V, $n, 2>($($arg),*),
            3 => $f::<V, $n, 3>($($arg),*),
            4 => $f::<V, $n, 4>($($arg),*),
            5 => $f::<V, $n, 5>($($arg),*),
            6 => $f::<V, $n, 6>($($arg),*),
            7 => $f::<V, $n, 7>($($arg),*),
            _ => $f::<V, $n, LOW_DIM>($($arg),*),
        }
    };
}

/// One query of several.
fn alone(queries: &[[f32; ROWS]], n: usize) -> [[f32; ROWS]; LOW_DIM] {
    let mut alone = [[0.0; ROWS]; LOW_DIM];
    for (alone, queries) in alone.iter_mut().zip(queries) {
        alone[0] = queries[n];
    }
    alone
}

#[inline(always)]
fn between_of<V: Simd, const N: usize, const DIM: usize>(
    queries: &[[f32; ROWS]],
    points: (&[f32], usize),
    absent: &[f32],
    floor: f32,
    out: &mut [f32],
) {
    let count = absent.len() / LANES;
    let between = Between::<DIM>::new(queries, points, absent, floor);
    let out = blocks_of_mut::<N>(out, count);
    for at in 0..count {
        for n in 0..N {
            between.of::<V>(n, at).store(&mut out[n][at]);
        }
    }
}

per_isa! {
    /// `d_nj = sqrt(max(sum_k (y_kj - x_kn)² + absent_j, floor))` of `count` queries [D, ROWS], up to [`ROWS`], and targets
    /// coordinate by coordinate, each `next` elements from the last.
    fn between(count: usize, queries: &[[f32; ROWS]], points: (&[f32], usize), absent: &[f32], floor: f32, out: &mut [f32]) {
        if count == ROWS {
            return for_queries!(ROWS, queries.len(), between_of(queries, points, absent, floor, out));
        }
        for (n, out) in out.chunks_exact_mut(absent.len()).enumerate() {
            for_queries!(ONE, queries.len(), between_of(&alone(queries, n), points, absent, floor, out));
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn exponentials_between_of<V: Simd, const KERNEL: u8>(
    rate: f32,
    queries: &[[f32; ROWS]],
    points: (&[f32], usize),
    absent: &[f32],
    floor: f32,
    (row_min, col_min): (&[f32], &[f32]),
    distances: &mut [f32],
    out: &mut [f32],
) {
    let to = blocks_of_mut::<ROWS>(distances, absent.len() / LANES);
    macro_rules! of {
        ($dim:literal) => {{
            let between = Between::<$dim>::new(queries, points, absent, floor);
            exponentials_of::<V, KERNEL, ROWS>(rate, Made { between, out: to }, row_min, col_min, out)
        }};
    }
    match queries.len() {
        1 => of!(1),
        2 => of!(2),
        _ => of!(3),
    }
}

per_isa! {
    /// [`between`] of [`ROWS`] queries in up to [`TOGETHER`] dimensions, and [`tile::exponentials`] of these distances.
    fn exponentials_between(shape: Shape, queries: &[[f32; ROWS]], points: (&[f32], usize), absent: &[f32], floor: f32, minima: (&[f32], &[f32]), distances: &mut [f32], out: &mut [f32]) {
        for_kernel!(shape.kernel, exponentials_between_of(shape.rate, queries, points, absent, floor, minima, distances, out))
    }
}

#[inline(always)]
fn summed_of<V: Simd, const N: usize, const DIM: usize>(
    queries: &[[f32; ROWS]],
    points: (&[f32], usize),
    [absent, weights, present]: [&[f32]; 3],
    floor: f32,
    (col_min, row_min, sums): (&mut [f32], &mut [f32], &mut [f64]),
) {
    let count = col_min.len() / LANES;
    let between = Between::<DIM>::new(queries, points, absent, floor);
    let (weights, present) = (blocks(weights, count), blocks(present, count));
    let (mut least, mut parts) = ([V::splat(FAR); N], [V::wide_zero(); N]);
    for (at, col_min) in col_min.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
        let (w, present, mut column) = (V::load(&weights[at]), V::load(&present[at]), V::load(col_min));
        for n in 0..N {
            let d = between.of::<V>(n, at);
            parts[n] = V::zero().if_less(w, d, V::zero()).wide_mul_add(w, parts[n]);
            least[n] = V::zero().if_less(present, d.smaller(least[n]), least[n]);
            column = d.smaller(column);
        }
        column.store(col_min);
    }
    for n in 0..N {
        let least = least[n].least();
        row_min[n] = if least < row_min[n] { least } else { row_min[n] };
        sums[n] += V::wide_sum(parts[n]);
    }
}

per_isa! {
    /// Of distances as in [`between`]: those of each row times weights, over the targets with a weight above 0, added to its
    /// sum; and the minima of columns, and of rows over the targets that are present, brought up to date. Minima pass a NaN
    /// over: it reaches the result through the sums, with [`Group::weightless`].
    fn summed(queries: &[[f32; ROWS]], points: (&[f32], usize), columns: [&[f32]; 3], floor: f32, to: (&mut [f32], &mut [f32], &mut [f64])) {
        let (col_min, row_min, sums) = to;
        if sums.len() == ROWS {
            return for_queries!(ROWS, queries.len(), summed_of(queries, points, columns, floor, (col_min, row_min, sums)));
        }
        for n in 0..sums.len() {
            let to = (&mut *col_min, &mut row_min[n..], &mut sums[n..]);
            for_queries!(ONE, queries.len(), summed_of(&alone(queries, n), points, columns, floor, to));
        }
    }
}

/// Of `DIM` coordinates from `first` on.
#[inline(always)]
fn add_steps_of<V: Simd, const N: usize, const DIM: usize>(
    (e, stride): (&[f32], usize),
    inverse: &[f32],
    floor: f32,
    (inv_root, factor): (&[f32], &[f32]),
    (queries, first): (&[[f32; ROWS]], usize),
    (points, next): (&[f32], usize),
    sums: &mut [[f64; LANES]],
) {
    let of_these: &[_; DIM] = queries[first..].first_chunk().expect("as many coordinates are left");
    let count = factor.len() / LANES;
    let (inv_root, factor) = (blocks(inv_root, count), blocks(factor, count));
    let (e, points) = (blocks_of::<N>((e, stride), count), blocks_of::<DIM>((&points[first * next..], next), count));
    let (mut mass, mut steps) = ([V::zero(); N], [[V::zero(); DIM]; N]);
    for at in 0..count {
        let factor = V::load(&factor[at]);
        let (root, least) = (V::load(&inv_root[at]).mul(factor), V::splat(floor).mul(factor));
        let mut y = [V::zero(); DIM];
        for k in 0..DIM {
            y[k] = V::load(&points[k][at]);
        }
        for n in 0..N {
            let a = V::load(&e[n][at]).mul(V::splat(inverse[n]).mul(root)).at_least(least);
            mass[n] = mass[n].add(a);
            for k in 0..DIM {
                steps[n][k] = a.mul_add(y[k].sub(V::splat(of_these[k][n])), steps[n][k]);
            }
        }
    }
    for (n, sums) in sums.chunks_exact_mut(1 + queries.len()).enumerate().take(N) {
        if first == 0 {
            mass[n].add_to(&mut sums[0]);
        }
        for k in 0..DIM {
            steps[n][k].add_to(&mut sums[1 + first + k]);
        }
    }
}

#[inline(always)]
fn add_some_steps_of<V: Simd, const N: usize>(
    e: (&[f32], usize),
    inverse: &[f32],
    floor: f32,
    columns: (&[f32], &[f32]),
    queries: &[[f32; ROWS]],
    points: (&[f32], usize),
    sums: &mut [[f64; LANES]],
) {
    let dim = queries.len();
    for first in (0..dim).step_by(TOGETHER) {
        let queries = (queries, first);
        match dim - first {
            1 => add_steps_of::<V, N, 1>(e, inverse, floor, columns, queries, points, sums),
            2 => add_steps_of::<V, N, 2>(e, inverse, floor, columns, queries, points, sums),
            _ => add_steps_of::<V, N, TOGETHER>(e, inverse, floor, columns, queries, points, sums),
        }
    }
}

per_isa! {
    /// Of up to [`ROWS`] queries [D, ROWS], as many as there are factors `u`, with numbers e [n, targets] and targets y
    /// coordinate by coordinate: adds `a_nj = max(u_n v_j e_nj, floor) w_j`, for (v, w), and `a_nj (y_j - x_n)` to the sums
    /// [n, 1 + D], lane by lane.
    fn add_steps(e: (&[f32], usize), u: &[f32], floor: f32, columns: (&[f32], &[f32]), queries: &[[f32; ROWS]], points: (&[f32], usize), sums: &mut [[f64; LANES]]) {
        if u.len() == ROWS {
            return add_some_steps_of::<V, ROWS>(e, u, floor, columns, queries, points, sums);
        }
        let dim = queries.len();
        for n in 0..u.len() {
            let (e, queries, sums) = ((&e.0[n * e.1..], e.1), &alone(queries, n)[..dim], &mut sums[n * (1 + dim)..]);
            add_some_steps_of::<V, 1>(e, &u[n..], floor, columns, queries, points, sums);
        }
    }
}
