//! Groups of few coordinates. Their distances are not kept: every pass makes them again, a few rows and columns at a
//! time, so that they never leave the first cache. That is a few multiply-adds and a root each, less than it takes to
//! write them to memory and to read them.

use super::Plan;
use super::group::{Group, Minima, Scratch, sized};
use super::isa::{LANES, Simd, per_isa};
use super::sums::add;
use super::tile::{FAR, ROWS, Shape, blocks, blocks_of, blocks_of_mut};
use crate::{Coupling, FeatureScale, SelfMask};
use std::ops::Range;

/// Coordinates of a force that are summed at a time, in registers.
const TOGETHER: usize = 3;

impl Plan {
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
        let mut queries = [[0.0; ROWS]; super::cut::LOW_DIM];
        for (of_all, points) in queries.iter_mut().zip(group.soa.chunks_exact(row)) {
            of_all[..rows.len()].copy_from_slice(&points[rows.clone()]);
        }
        let (points, floor) = ((&group.soa[k.start..], row), self.spec.min_squared_distance as f32);
        between(self.isa, rows.len(), &queries[..dim], points, &group.absent[k], floor, out);
        out
    }

    /// The masked distances of up to [`ROWS`] queries to the targets `k`, and their stride: those of `tile`, whose first
    /// row is theirs, or in low dimension made now.
    pub(super) fn masked_distances<'a>(
        &self,
        group: &Group,
        rows: Range<usize>,
        k: Range<usize>,
        (tile, stride): (&'a [f32], usize),
        made: &'a mut Vec<f32>,
    ) -> (&'a [f32], usize) {
        if !self.cut.low_dim {
            return (&tile[k.start..], stride);
        }
        let made = self.distances_of_some(group, rows.clone(), k.clone(), made);
        for (row, i) in made.chunks_exact_mut(k.len()).zip(rows) {
            if k.contains(&i) && group.absent[i] == 0.0 {
                row[i - k.start] = group.masked.diagonal[i];
            }
        }
        (made, k.len())
    }

    /// Phase A of the queries `rows`: their minima; returns their share of `sum_ij d_ij w_j`.
    pub(super) fn low_dim_sum(
        &self,
        group: &Group,
        rows: Range<usize>,
        made: &mut Vec<f32>,
        minima: &mut Minima,
    ) -> f64 {
        let (row, width) = (self.cut.row, self.some_width());
        let mut total = 0.0;
        for first in rows.clone().step_by(ROWS) {
            let some = first..rows.end.min(first + ROWS);
            let (mut sums, mut least) = ([0.0; ROWS], [FAR; ROWS]);
            for start in (0..row).step_by(width) {
                let k = start..row.min(start + width);
                let made = self.distances_of_some(group, some.clone(), k.clone(), made);
                let (weights, present) = (&group.mean_weight[k.clone()], &group.row_weight[k.clone()]);
                let own = |made: &mut [f32], d: f32| {
                    for (row, i) in made.chunks_exact_mut(k.len()).zip(some.clone()).filter(|(_, i)| k.contains(i)) {
                        row[i - k.start] = d;
                    }
                };
                // The distance to itself is neither in the sum nor among the minima.
                own(made, 0.0);
                weighted_sums(self.isa, made, weights, &mut sums[..some.len()]);
                own(made, FAR);
                least_of(self.isa, made, present, &mut minima.col[k.clone()], &mut least[..some.len()]);
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
                q += (x - x) * (x - x);
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
        let queries: Vec<f32> = some.clone().flat_map(|i| (0..dim).map(move |k| group.soa[k * row + i])).collect();
        let mut masses = vec![[[0.0f64; 2]; ROWS]; temperatures];
        // Of each temperature and block, the mass and the steps of each query.
        let len = some.len() * (1 + dim);
        let mut sums = vec![[0.0f64; LANES]; 2 * temperatures * len];
        for start in (0..row).step_by(width) {
            let k = start..row.min(start + width);
            let (rows, distances) = (
                (some.clone(), k.clone()),
                self.masked_distances(group, some.clone(), k.clone(), (&[], 0), made),
            );
            if !whole_rows {
                self.exponentials(group, shapes, rows.clone(), distances, false, e, apart);
            }
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
                    let there = &[&group.negative, &group.positive][block][piece.clone()];
                    let straddling: [f32; LANES];
                    let (inv_root, factor) = if !at_once {
                        (there, there)
                    } else {
                        let factor = &group.factor[piece.clone()];
                        let inv_root = &group.col_inv_root[r * row..][piece.clone()];
                        if self.straddles(&piece) {
                            straddling = std::array::from_fn(|l| factor[l] * there[l]);
                            (inv_root, &straddling[..])
                        } else {
                            (inv_root, factor)
                        }
                    };
                    let floor = if at_once { floors.affinity } else { 0.0 };
                    let (a, points) = ((&a[piece.start - start..], k.len()), (&group.soa[piece.start..], row));
                    let sums = &mut sums[block * len..][..len];
                    add_steps(self.isa, a, &inverse[..some.len()], floor, (inv_root, factor), &queries, points, dim, sums);
                }
            }
        }
        let mut forces = vec![0.0; some.len() * temperatures * dim];
        for (n, (i, forces)) in some.zip(forces.chunks_exact_mut(temperatures * dim)).enumerate() {
            for (r, force) in forces.chunks_exact_mut(dim).enumerate() {
                let of = |block: usize, at: usize| {
                    sums[(2 * r + block) * len + n * (1 + dim) + at].iter().sum::<f64>()
                };
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

    /// Whether columns of both blocks are in it.
    fn straddles(&self, piece: &Range<usize>) -> bool {
        let split = self.shape.generated + self.shape.negatives;
        piece.start < split && split < piece.end
    }
}

#[inline(always)]
fn between_of<V: Simd, const N: usize, const DIM: usize>(
    queries: &[[f32; ROWS]],
    (points, next): (&[f32], usize),
    absent: &[f32],
    floor: f32,
    out: &mut [f32],
) {
    let count = absent.len() / LANES;
    let (absent, out) = (blocks(absent, count), blocks_of_mut::<N>(out, count));
    let points = blocks_of::<DIM>((points, next), count);
    for at in 0..count {
        let mut q = [V::load(&absent[at]); N];
        for k in 0..DIM {
            let y = V::load(&points[k][at]);
            for n in 0..N {
                let step = y.sub(V::splat(queries[k][n]));
                q[n] = step.mul_add(step, q[n]);
            }
        }
        for n in 0..N {
            q[n].at_least(V::splat(floor)).sqrt().store(&mut out[n][at]);
        }
    }
}

#[inline(always)]
fn between_some_of<V: Simd, const N: usize>(
    queries: &[[f32; ROWS]],
    points: (&[f32], usize),
    absent: &[f32],
    floor: f32,
    out: &mut [f32],
) {
    match queries.len() {
        1 => between_of::<V, N, 1>(queries, points, absent, floor, out),
        2 => between_of::<V, N, 2>(queries, points, absent, floor, out),
        3 => between_of::<V, N, 3>(queries, points, absent, floor, out),
        4 => between_of::<V, N, 4>(queries, points, absent, floor, out),
        5 => between_of::<V, N, 5>(queries, points, absent, floor, out),
        6 => between_of::<V, N, 6>(queries, points, absent, floor, out),
        7 => between_of::<V, N, 7>(queries, points, absent, floor, out),
        _ => between_of::<V, N, 8>(queries, points, absent, floor, out),
    }
}

per_isa! {
    /// `d_nj = sqrt(max(sum_k (y_kj - x_kn)² + absent_j, floor))` of `count` queries [D, ROWS], up to [`ROWS`], and targets
    /// coordinate by coordinate, each `next` elements from the last.
    fn between(count: usize, queries: &[[f32; ROWS]], points: (&[f32], usize), absent: &[f32], floor: f32, out: &mut [f32]) {
        if count == ROWS {
            return between_some_of::<V, ROWS>(queries, points, absent, floor, out);
        }
        for (n, out) in out.chunks_exact_mut(absent.len()).enumerate() {
            let mut alone = [[0.0; ROWS]; super::cut::LOW_DIM];
            for (alone, queries) in alone.iter_mut().zip(queries) {
                alone[0] = queries[n];
            }
            between_some_of::<V, 1>(&alone[..queries.len()], points, absent, floor, out);
        }
    }
}

per_isa! {
    /// Adds `sum_j d_ij w_j` over the targets with a weight above 0 to each row's sum. Within a lane these are few enough
    /// for f32.
    fn weighted_sums(distances: &[f32], weights: &[f32], sums: &mut [f64]) {
        let count = weights.len() / LANES;
        let weights = blocks(weights, count);
        for (d, sum) in distances.as_chunks::<LANES>().0.chunks_exact(count).zip(sums) {
            let mut part = V::zero();
            for (d, w) in d.iter().zip(weights) {
                let w = V::load(w);
                part = V::zero().if_less(w, V::load(d).mul_add(w, part), part);
            }
            *sum += f64::from(part.sum());
        }
    }
}

per_isa! {
    /// Brings the minima of columns, and of rows over the targets that are present, up to date. A NaN is passed over: it
    /// reaches the result through the sums.
    fn least_of(distances: &[f32], present: &[f32], col_min: &mut [f32], row_min: &mut [f32]) {
        let count = present.len() / LANES;
        let present = blocks(present, count);
        for (d, least) in distances.as_chunks::<LANES>().0.chunks_exact(count).zip(row_min) {
            let mut min = V::splat(*least);
            for ((d, present), col_min) in d.iter().zip(present).zip(col_min.as_chunks_mut::<LANES>().0) {
                let d = V::load(d);
                d.smaller(V::load(col_min)).store(col_min);
                min = V::zero().if_less(V::load(present), d.smaller(min), min);
            }
            *least = min.least();
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
    (queries, dim, first): (&[f32], usize, usize),
    (points, next): (&[f32], usize),
    sums: &mut [[f64; LANES]],
) {
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
                steps[n][k] = a.mul_add(y[k].sub(V::splat(queries[n * dim + first + k])), steps[n][k]);
            }
        }
    }
    for (n, sums) in sums.chunks_exact_mut(1 + dim).enumerate().take(N) {
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
    (queries, dim): (&[f32], usize),
    points: (&[f32], usize),
    sums: &mut [[f64; LANES]],
) {
    for first in (0..dim).step_by(TOGETHER) {
        let queries = (queries, dim, first);
        match dim - first {
            1 => add_steps_of::<V, N, 1>(e, inverse, floor, columns, queries, points, sums),
            2 => add_steps_of::<V, N, 2>(e, inverse, floor, columns, queries, points, sums),
            _ => add_steps_of::<V, N, TOGETHER>(e, inverse, floor, columns, queries, points, sums),
        }
    }
}

per_isa! {
    /// Of up to [`ROWS`] queries x [n, D], as many as there are factors `u`, with numbers e [n, targets] and targets y
    /// coordinate by coordinate: adds `a_nj = max(u_n v_j e_nj, floor) w_j`, for (v, w), and `a_nj (y_j - x_n)` to the sums
    /// [n, 1 + D], lane by lane.
    fn add_steps(e: (&[f32], usize), u: &[f32], floor: f32, columns: (&[f32], &[f32]), queries: &[f32], points: (&[f32], usize), dim: usize, sums: &mut [[f64; LANES]]) {
        if u.len() == ROWS {
            return add_some_steps_of::<V, ROWS>(e, u, floor, columns, (queries, dim), points, sums);
        }
        for n in 0..u.len() {
            let (e, x, sums) = ((&e.0[n * e.1..], e.1), (&queries[n * dim..], dim), &mut sums[n * (1 + dim)..]);
            add_some_steps_of::<V, 1>(e, &u[n..], floor, columns, x, points, sums);
        }
    }
}
