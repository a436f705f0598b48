//! The passes over one group: what its tiles share, and what is done with each tile.

use super::Plan;
use super::cut::LOW_DIM;
use super::gemm::{Layout, gemm};
use super::sums::add;
use super::tile::{self, Columns, FAR, Floors, Partition, REMOVED, Shape};
use crate::{AffinityFloor, DriftInputs, DriftShape, Element, FeatureScale, Scale, SelfMask, WeightRule};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;

/// What the passes over one group share.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// The mean over all targets, `[D]`; zeros where centring is off. High dimension only.
    center: Vec<f32>,
    /// |y_j - center|², `[row]`. High dimension only.
    norms: Vec<f32>,
    /// All targets, widened and centred, [T, D], during a phase. Where [`Cut::whole`].
    pub(super) points: Vec<f32>,
    /// The force before it is divided by theta, in raw coordinates, [G, D]. Where [`Plan::keeps_force`].
    pub(super) force: Vec<f32>,
    /// Targets coordinate by coordinate, [D, row]. Low dimension only.
    soa: Vec<f32>,
    /// w_j of the distance mean, `[row]`; 0 for padding.
    pub(super) mean_weight: Vec<f32>,
    /// What multiplies K in the row sum, `[row]`; 0 for padding and removed columns.
    row_weight: Vec<f32>,
    /// Padding and removed columns.
    removed: Vec<usize>,
    /// What multiplies the affinity, `[row]`; 0 for padding and removed columns.
    factor: Vec<f32>,
    /// 1 in the negative block, `[row]`.
    negative: Vec<f32>,
    /// 1 in the positive block, `[row]`.
    positive: Vec<f32>,
    /// Before the self mask: d_ii `[G]`, min_j d_ij over other present targets `[G]`, min_i d_ij over other queries `[row]`.
    diagonal: Vec<f32>,
    row_other: Vec<f32>,
    col_other: Vec<f32>,
    /// With the self mask: d_ii `[G]`, min_j d_ij `[G]`, min_i d_ij `[row]`.
    masked: Vec<f32>,
    row_min: Vec<f32>,
    col_min: Vec<f32>,
    /// [G, R].
    row_partition: Vec<Partition>,
    /// [`Columns::inv_root`] and [`Columns::log`], each [R, row].
    col_inv_root: Vec<f32>,
    col_log: Vec<f32>,
}

/// Buffers of one task.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) group: Group,
    /// Distances, [rows, row].
    pub(super) tile: Vec<f32>,
    /// `[row]`.
    pub(super) affinity: Vec<f32>,
    /// [R or 1, rows, row].
    pub(super) coefficients: Vec<f32>,
    /// Centred targets, [T, panel].
    pub(super) panel: Vec<f32>,
    /// [R or 1, rows, panel].
    pub(super) force: Vec<f32>,
}

/// Lends a scratch to `work`.
pub(super) fn with_scratch<R>(pool: &Mutex<Vec<Scratch>>, work: impl FnOnce(&mut Scratch) -> R) -> R {
    let lock = || pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut scratch = lock().pop().unwrap_or_default();
    let result = work(&mut scratch);
    lock().push(scratch);
    result
}

/// `buffer` with `len` elements, whose old values do not matter.
pub(super) fn sized<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    buffer.resize(len, T::default());
    &mut buffer[..]
}

impl Plan {
    /// Weights, blocks, and what distances are computed from.
    pub(super) fn prepare<T: Element>(&self, inputs: &DriftInputs<'_, T>, b: usize, group: &mut Group) {
        let DriftShape { generated, negatives, dim, .. } = self.shape;
        let (t, row) = (self.shape.targets(), self.cut.row);
        let fill = |buffer: &mut Vec<f32>, value: &dyn Fn(usize) -> f32| {
            buffer.clear();
            buffer.extend((0..t).map(value));
            buffer.resize(row, 0.0);
        };
        let rule = self.spec.weights;
        let w = |j: usize| inputs.weight(b, j);
        fill(&mut group.mean_weight, &|j| if rule == WeightRule::Ignored { 1.0 } else { w(j) });
        fill(&mut group.row_weight, &|j| if rule == WeightRule::Logit { w(j) } else { 1.0 });
        group.removed.clear();
        group.removed.extend((0..row).filter(|&j| group.row_weight[j] == 0.0));
        fill(&mut group.factor, &|j| match rule {
            WeightRule::Affinity => w(j),
            WeightRule::Logit => f32::from(w(j) > 0.0),
            WeightRule::Ignored => 1.0,
        });
        fill(&mut group.negative, &|j| f32::from(j < generated + negatives));
        fill(&mut group.positive, &|j| f32::from(j >= generated + negatives));

        if self.cut.low_dim {
            let soa = sized(&mut group.soa, dim * row);
            for (j, y) in inputs.target_blocks(b).into_iter().flat_map(|block| block.chunks_exact(dim)).enumerate() {
                for (k, y) in y.iter().enumerate() {
                    soa[k * row + j] = y.to_f32();
                }
            }
            return;
        }
        sized(&mut group.center, dim).fill(0.0);
        if self.spec.numerics.center {
            // Few coordinates at a time give threads work in a big group; in small ones the groups do.
            let width = if self.cut.whole { 64 } else { self.cut.panel };
            let mean_of = |(at, center): (usize, &mut [f32])| {
                let mut mean = vec![0.0f64; center.len()];
                for block in inputs.target_blocks(b) {
                    for y in block.chunks_exact(dim) {
                        for (mean, y) in mean.iter_mut().zip(&y[at * width..]) {
                            *mean += f64::from(y.to_f32());
                        }
                    }
                }
                for (center, mean) in center.iter_mut().zip(mean) {
                    *center = (mean / t as f64) as f32;
                }
            };
            if self.cut.whole {
                group.center.par_chunks_mut(width).enumerate().for_each(mean_of);
            } else {
                group.center.chunks_mut(width).enumerate().for_each(mean_of);
            }
        }
        let norms = sized(&mut group.norms, row);
        norms.fill(0.0);
        if self.cut.whole {
            group.points.clear(); // those of an earlier call
            self.fill_points(inputs, b, group);
            let (points, norms) = (&group.points, &mut group.norms);
            points.par_chunks(dim).zip(norms).for_each(|(point, norm)| *norm = tile::squared_norm(self.isa, point));
            return;
        }
        let mut part = vec![0.0; self.cut.panel];
        for (j, y) in inputs.target_blocks(b).into_iter().flat_map(|block| block.chunks_exact(dim)).enumerate() {
            for k in panels(dim, self.cut.panel) {
                let part = &mut part[..k.len()];
                T::widen(&y[k.clone()], part);
                subtract(part, &group.center[k]);
                norms[j] += tile::squared_norm(self.isa, part);
            }
        }
    }

    /// Widens and centres all targets of a group that keeps them, unless they are there.
    pub(super) fn fill_points<T: Element>(&self, inputs: &DriftInputs<'_, T>, b: usize, group: &mut Group) {
        let (dim, t) = (self.shape.dim, self.shape.targets());
        if !self.cut.whole || group.points.len() == t * dim {
            return;
        }
        let center = &group.center;
        sized(&mut group.points, t * dim).par_chunks_mut(dim).enumerate().for_each(|(j, point)| {
            T::widen(inputs.target(b, j), point);
            subtract(point, center);
        });
    }

    /// Coordinates `k` of all targets, widened and centred, [T, k].
    fn panel<'a, T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &'a Group,
        k: Range<usize>,
        buffer: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        if self.cut.whole {
            return &group.points;
        }
        let (dim, width) = (self.shape.dim, k.len());
        let panel = sized(buffer, self.shape.targets() * width);
        let targets = inputs.target_blocks(b).into_iter().flat_map(|block| block.chunks_exact(dim));
        for (y, out) in targets.zip(panel.chunks_exact_mut(width)) {
            T::widen(&y[k.clone()], out);
            subtract(out, &group.center[k.clone()]);
        }
        panel
    }

    /// Distances of the queries `rows` to all targets, before the self mask, into `scratch.tile`.
    pub(super) fn tile_distances<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        rows: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let (t, row, dim) = (self.shape.targets(), self.cut.row, self.shape.dim);
        let tile = sized(&mut scratch.tile, rows.len() * row);
        if self.cut.low_dim {
            for (i, tile) in rows.clone().zip(tile.chunks_exact_mut(row)) {
                let (x, dim) = query(group, i, dim, row);
                tile::difference_row(self.isa, tile, &x[..dim], &group.soa);
            }
        } else {
            for k in panels(dim, self.cut.panel) {
                let panel = self.panel(inputs, b, group, k.clone(), &mut scratch.panel);
                let width = k.len();
                let x = &panel[rows.start * width..];
                let beta = if k.start == 0 { 0.0 } else { 1.0 };
                gemm(
                    [rows.len(), width, t],
                    (x, Layout::rows(width)),
                    (panel, Layout::transposed(width)),
                    beta,
                    (tile, row),
                );
            }
            let near = self.spec.numerics.near_pairs as f32;
            for (i, tile) in rows.clone().zip(tile.chunks_exact_mut(row)) {
                let norm = group.norms[i];
                if tile::gram_row(self.isa, tile, norm, &group.norms, near) && near > 0.0 {
                    for j in 0..t {
                        if tile[j] < near * (norm + group.norms[j]) {
                            tile[j] = tile::squared_distance(self.isa, inputs.target(b, i), inputs.target(b, j));
                        }
                    }
                }
            }
        }
        for (i, tile) in rows.zip(tile.chunks_exact_mut(row)) {
            if self.spec.numerics.constant_self_distance {
                tile[i] = 0.0;
            }
            tile::sqrt_row(self.isa, &mut tile[..], self.spec.min_squared_distance as f32);
            tile[t..].fill(FAR);
        }
    }

    /// Distances as [`Plan::tile_distances`] gives them, from the kept ones where there are any.
    pub(super) fn load<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        rows: Range<usize>,
        kept: Option<&[f32]>,
        scratch: &mut Scratch,
    ) {
        let row = self.cut.row;
        match kept {
            Some(kept) => {
                sized(&mut scratch.tile, rows.len() * row).copy_from_slice(&kept[rows.start * row..rows.end * row]);
            }
            None => self.tile_distances(inputs, b, group, rows, scratch),
        }
    }

    /// The tile's share of `sum_ij d_ij w_j`.
    pub(super) fn tile_sum(&self, group: &Group, rows: Range<usize>, tile: &[f32]) -> f64 {
        let mut sum = 0.0;
        for (i, tile) in rows.zip(tile.chunks_exact(self.cut.row)) {
            let mut part = tile::weighted_sum(self.isa, tile, &group.mean_weight);
            if self.spec.feature_scale == FeatureScale::Paper {
                part -= f64::from(tile[i]) * f64::from(group.mean_weight[i]);
            }
            sum = add(&self.spec, sum, part);
        }
        sum
    }

    /// The tile's diagonal, the minima of its rows, and its contribution to the columns' minima, self pairs left out.
    fn tile_minima(&self, group: &Group, rows: Range<usize>, tile: &mut [f32], minima: &mut Minima) {
        for (i, tile) in rows.zip(tile.chunks_exact_mut(self.cut.row)) {
            let own = std::mem::replace(&mut tile[i], FAR);
            minima.diagonal.push(own);
            minima.row.push(tile::minima(self.isa, tile, &group.row_weight, &mut minima.col));
            tile[i] = own;
        }
    }

    /// Brings the self mask into the diagonal and the minima, now that the scale is known.
    fn mask_minima(&self, scale: &Scale, group: &mut Group) {
        let masked = |d: f32| match self.spec.self_mask {
            SelfMask::Add(v) => (f64::from(d) + v * scale.distance) as f32,
            SelfMask::Set(v) => (v * scale.distance) as f32,
            SelfMask::Remove => REMOVED,
            SelfMask::Keep => d,
        };
        group.masked.clear();
        group.masked.extend(group.diagonal.iter().map(|d| masked(*d)));
        group.row_min.clone_from(&group.row_other);
        group.col_min.clone_from(&group.col_other);
        for (i, &own) in group.masked.iter().enumerate() {
            if group.row_weight[i] > 0.0 && own < group.row_min[i] {
                group.row_min[i] = own;
            }
            if own < group.col_min[i] {
                group.col_min[i] = own;
            }
        }
    }

    /// The tile's row partitions [rows, R], and its contribution to the column sums [R, row].
    fn tile_sums(
        &self,
        group: &Group,
        shapes: &[Shape],
        rows: Range<usize>,
        tile: &[f32],
        row_partition: &mut Vec<Partition>,
        col_sum: &mut [f32],
    ) {
        let row = self.cut.row;
        for (i, tile) in rows.zip(tile.chunks_exact(row)) {
            let min = group.row_min[i];
            for (shape, col_sum) in shapes.iter().zip(col_sum.chunks_exact_mut(row)) {
                let sum = tile::kernel_sums(self.isa, *shape, tile, min, &group.row_weight, &group.col_min, col_sum);
                row_partition.push(Partition::new(*shape, f64::from(sum), min));
            }
        }
    }

    /// The columns' partitions from the sums of all stripes, in order.
    fn column_partitions(&self, shapes: &[Shape], stripes: &[Vec<f32>], group: &mut Group) {
        let row = self.cut.row;
        let inv_root = sized(&mut group.col_inv_root, shapes.len() * row);
        let log = sized(&mut group.col_log, shapes.len() * row);
        for (r, shape) in shapes.iter().enumerate() {
            for j in 0..row {
                let sum: f64 = stripes.iter().map(|s| f64::from(s[r * row + j])).sum();
                let partition = Partition::new(*shape, sum, group.col_min[j]);
                let weight = if self.spec.weights == WeightRule::Logit { group.row_weight[j] } else { 1.0 };
                inv_root[r * row + j] = partition.inv_root * weight.sqrt();
                log[r * row + j] = partition.log + weight.ln();
            }
        }
    }

    /// Everything about a group of one tile: its state and its masked distances.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn ready<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        scale: &Scale,
        shapes: &[Shape],
        group: &mut Group,
        kept: Option<&[f32]>,
        scratch: &mut Scratch,
    ) {
        let rows = 0..self.shape.generated;
        self.prepare(inputs, b, group);
        self.load(inputs, b, group, rows.clone(), kept, scratch);
        let mut minima = Minima::new(self.cut.row);
        self.tile_minima(group, rows.clone(), &mut scratch.tile, &mut minima);
        group.take_minima([minima]);
        self.mask_minima(scale, group);
        mask(group, rows.clone(), self.cut.row, &mut scratch.tile);
        let mut row_partition = std::mem::take(&mut group.row_partition);
        row_partition.clear();
        let mut col_sum = vec![0.0; shapes.len() * self.cut.row];
        self.tile_sums(group, shapes, rows, &scratch.tile, &mut row_partition, &mut col_sum);
        group.row_partition = row_partition;
        self.column_partitions(shapes, &[col_sum], group);
    }

    /// Phase A for a group of several tiles: its distances' sum, and its minima.
    pub(super) fn group_distances<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &mut Group,
        kept: Option<&mut [f32]>,
        scratch: &Mutex<Vec<Scratch>>,
    ) -> f64 {
        let stripes = self.stripes();
        let row = self.cut.row;
        let kept = optional_chunks(kept.unwrap_or_default(), self.cut.stripe_rows * row, stripes.len());
        let state = &*group;
        let parts: Vec<(f64, Minima)> = stripes
            .into_par_iter()
            .zip(kept)
            .map(|(stripe, mut kept)| {
                with_scratch(scratch, |scratch| {
                    let mut sum = 0.0;
                    let mut minima = Minima::new(row);
                    for rows in self.tiles(stripe.clone()) {
                        self.tile_distances(inputs, b, state, rows.clone(), scratch);
                        if let Some(kept) = &mut kept {
                            let at = (rows.start - stripe.start) * row;
                            kept[at..][..scratch.tile.len()].copy_from_slice(&scratch.tile);
                        }
                        sum = add(&self.spec, sum, self.tile_sum(state, rows.clone(), &scratch.tile));
                        self.tile_minima(state, rows, &mut scratch.tile, &mut minima);
                    }
                    (sum, minima)
                })
            })
            .collect();
        let sum = parts.iter().fold(0.0, |sum, (part, _)| add(&self.spec, sum, *part));
        group.take_minima(parts.into_iter().map(|(_, minima)| minima));
        sum
    }

    /// Phase B's first pass over a group of several tiles: all partitions.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn group_sums<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &mut Group,
        scale: &Scale,
        shapes: &[Shape],
        kept: Option<&[f32]>,
        scratch: &Mutex<Vec<Scratch>>,
    ) {
        self.mask_minima(scale, group);
        let state = &*group;
        let (rows, cols): (Vec<Vec<Partition>>, Vec<Vec<f32>>) = self
            .stripes()
            .into_par_iter()
            .map(|stripe| {
                with_scratch(scratch, |scratch| {
                    let mut row_partition = Vec::new();
                    let mut col_sum = vec![0.0; shapes.len() * self.cut.row];
                    for rows in self.tiles(stripe) {
                        self.load(inputs, b, state, rows.clone(), kept, scratch);
                        mask(state, rows.clone(), self.cut.row, &mut scratch.tile);
                        self.tile_sums(state, shapes, rows, &scratch.tile, &mut row_partition, &mut col_sum);
                    }
                    (row_partition, col_sum)
                })
            })
            .unzip();
        group.row_partition = rows.concat();
        self.column_partitions(shapes, &cols, group);
    }

    /// The coefficients C of the tile's masked distances: of each temperature apart, [R, rows, row], or summed with
    /// the weights `inv_theta`, [rows, row].
    fn tile_coefficients(
        &self,
        group: &Group,
        shapes: &[Shape],
        inv_theta: Option<&[f32]>,
        rows: Range<usize>,
        scratch: &mut Scratch,
    ) {
        let row = self.cut.row;
        let floors = match self.spec.affinity_floor {
            AffinityFloor::Product(floor) => {
                Floors { affinity: floor.sqrt() as f32, log_normalizer: f32::NEG_INFINITY }
            }
            AffinityFloor::Normalizer(floor) => Floors { affinity: 0.0, log_normalizer: (floor.ln() / 2.0) as f32 },
            AffinityFloor::None => Floors { affinity: 0.0, log_normalizer: f32::NEG_INFINITY },
        };
        let stacked = if inv_theta.is_some() { 1 } else { shapes.len() };
        let affinity = sized(&mut scratch.affinity, row);
        let out = sized(&mut scratch.coefficients, stacked * rows.len() * row);
        for (at, (i, tile)) in rows.clone().zip(scratch.tile.chunks_exact(row)).enumerate() {
            for (r, shape) in shapes.iter().enumerate() {
                let columns = Columns {
                    min: &group.col_min,
                    inv_root: &group.col_inv_root[r * row..][..row],
                    log: &group.col_log[r * row..][..row],
                    weight: &group.row_weight,
                    factor: &group.factor,
                    negative: &group.negative,
                    positive: &group.positive,
                };
                let partition = group.row_partition[i * shapes.len() + r];
                let min = group.row_min[i];
                let (mut s_minus, s_plus) =
                    tile::affinity(self.isa, *shape, floors, tile, min, partition, columns, affinity);
                if self.spec.self_mask == SelfMask::Remove {
                    s_minus -= std::mem::take(&mut affinity[i]);
                }
                let (slot, inv_theta, add) = match inv_theta {
                    Some(inv_theta) => (0, inv_theta[r], r > 0),
                    None => (r, 1.0, false),
                };
                let out = &mut out[(slot * rows.len() + at) * row..][..row];
                let (negative, positive) = (&group.negative, &group.positive);
                tile::coefficients(self.isa, affinity, s_minus, s_plus, inv_theta, negative, positive, add, out);
            }
        }
    }

    /// `sum_j C_j (y_j - x)` in raw coordinates for the stacked coefficients, handed to `sink(stacked row, k, values)`.
    fn tile_contraction<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        rows: Range<usize>,
        scratch: &mut Scratch,
        mut sink: impl FnMut(usize, Range<usize>, &mut [f32]),
    ) {
        let (row, dim, t) = (self.cut.row, self.shape.dim, self.shape.targets());
        let coefficients = &scratch.coefficients;
        let stacked = coefficients.len() / row;
        let query_of = |at: usize| rows.start + at % rows.len();
        if self.cut.low_dim {
            for (at, c) in coefficients.chunks_exact(row).enumerate() {
                let (x, dim) = query(group, query_of(at), dim, row);
                let mut force = [0.0; LOW_DIM];
                tile::low_dim_force(self.isa, c, &x[..dim], &group.soa, &mut force[..dim]);
                sink(at, 0..dim, &mut force[..dim]);
            }
            return;
        }
        // sum_j C_ij vanishes but for rounding; taking it out makes the result independent of where the origin is.
        let totals: Vec<f32> = coefficients.chunks_exact(row).map(|c| tile::sum(self.isa, c)).collect();
        for k in panels(dim, self.cut.panel) {
            let panel = self.panel(inputs, b, group, k.clone(), &mut scratch.panel);
            let width = k.len();
            let force = sized(&mut scratch.force, stacked * width);
            gemm(
                [stacked, t, width],
                (coefficients, Layout::rows(row)),
                (panel, Layout::rows(width)),
                0.0,
                (force, width),
            );
            for (at, force) in force.chunks_exact_mut(width).enumerate() {
                let x = &panel[query_of(at) * width..][..width];
                for (f, x) in force.iter_mut().zip(x) {
                    *f -= totals[at] * x;
                }
                sink(at, k.clone(), force);
            }
        }
    }

    /// The tile's share of sum_id F_id² of each temperature, `[R]`, in raw coordinates.
    ///
    /// `keep`, where it is not empty, receives the force itself, [rows, D], at the single temperature.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn tile_squares<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        shapes: &[Shape],
        rows: Range<usize>,
        scratch: &mut Scratch,
        keep: &mut [f32],
    ) -> Vec<f64> {
        self.tile_coefficients(group, shapes, None, rows.clone(), scratch);
        let mut squares = vec![0.0; shapes.len()];
        let (height, dim) = (rows.len(), self.shape.dim);
        self.tile_contraction(inputs, b, group, rows, scratch, |at, k, force| {
            let total = &mut squares[at / height];
            *total = add(&self.spec, *total, tile::sum_of_squares(self.isa, force));
            if !keep.is_empty() {
                keep[at * dim..][k].copy_from_slice(force);
            }
        });
        squares
    }

    /// Writes the tile's force [rows, D] and returns the sum of its squares.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn tile_force<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        shapes: &[Shape],
        inv_theta: &[f32],
        scale: &Scale,
        rows: Range<usize>,
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> f64 {
        self.tile_coefficients(group, shapes, Some(inv_theta), rows.clone(), scratch);
        let dim = self.shape.dim;
        let inv_sigma = (1.0 / scale.sigma) as f32;
        let mut squares = 0.0;
        self.tile_contraction(inputs, b, group, rows, scratch, |at, k, force| {
            for f in &mut *force {
                *f *= inv_sigma;
            }
            squares += tile::sum_of_squares(self.isa, force);
            out[at * dim..][k].copy_from_slice(force);
        });
        squares
    }
}

/// Minima of a stripe, self pairs left out.
#[derive(Debug)]
struct Minima {
    diagonal: Vec<f32>,
    row: Vec<f32>,
    col: Vec<f32>,
}

impl Minima {
    pub(super) fn new(row: usize) -> Self {
        Self { diagonal: Vec::new(), row: Vec::new(), col: vec![FAR; row] }
    }
}

impl Group {
    /// Joins the minima of all stripes, in order.
    fn take_minima(&mut self, stripes: impl IntoIterator<Item = Minima>) {
        self.diagonal.clear();
        self.row_other.clear();
        self.col_other.clear();
        for part in stripes {
            self.diagonal.extend(part.diagonal);
            self.row_other.extend(part.row);
            if self.col_other.is_empty() {
                self.col_other = part.col;
            } else {
                for (min, part) in self.col_other.iter_mut().zip(part.col) {
                    *min = min.min(part);
                }
            }
        }
    }
}

/// Writes the masked self distances into the tile, and takes out padding and columns that weight 0 removes.
pub(super) fn mask(group: &Group, rows: Range<usize>, row: usize, tile: &mut [f32]) {
    for (i, tile) in rows.zip(tile.chunks_exact_mut(row)) {
        tile[i] = group.masked[i];
        for &j in &group.removed {
            tile[j] = REMOVED;
        }
    }
}

/// The coordinates of query `i` in low dimension.
fn query(group: &Group, i: usize, dim: usize, row: usize) -> ([f32; LOW_DIM], usize) {
    let mut x = [0.0; LOW_DIM];
    for (k, x) in x[..dim].iter_mut().enumerate() {
        *x = group.soa[k * row + i];
    }
    (x, dim)
}

fn subtract(values: &mut [f32], center: &[f32]) {
    for (v, c) in values.iter_mut().zip(center) {
        *v -= c;
    }
}

/// 0..dim in panels.
fn panels(dim: usize, panel: usize) -> impl Iterator<Item = Range<usize>> {
    (0..dim).step_by(panel).map(move |start| start..dim.min(start + panel))
}

/// `count` chunks of `size`, `None` beyond the end of the buffer.
pub(super) fn optional_chunks(buffer: &mut [f32], size: usize, count: usize) -> Vec<Option<&mut [f32]>> {
    let mut chunks: Vec<_> = buffer.chunks_mut(size).map(Some).collect();
    chunks.resize_with(count, || None);
    chunks
}
