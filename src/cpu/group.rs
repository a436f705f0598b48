//! What the passes over one group share, and the buffers of the tasks that make them.

use super::Plan;
use super::gemm::{pack_columns, pack_rows};
use super::isa::LANES;
use super::tile::{self, FAR, Partition, REMOVED, Shape};
use crate::{DriftInputs, DriftShape, Element, Scale, SelfMask, WeightRule};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;

/// What the passes over one group share.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Whether weights and blocks are those of a group without weights.
    plain: bool,
    /// The mean over all targets, `[D]`; zeros where centring is off. High dimension only.
    pub(super) center: Vec<f32>,
    /// |y_j - center|², `[row]`. High dimension only.
    pub(super) norms: Vec<f32>,
    /// All targets, widened, centred and packed, of a big group during a phase: their transpose [D, T] in phase A, the
    /// columns of [T, D] after it. Where [`Cut::whole`](super::cut::Cut::whole).
    pub(super) points: Vec<f32>,
    /// Whether they are the transpose.
    pub(super) transposed: bool,
    /// Targets coordinate by coordinate, [D, row]. Low dimension only.
    pub(super) soa: Vec<f32>,
    /// w_j of the distance mean, `[row]`; 0 for padding.
    pub(super) mean_weight: Vec<f32>,
    /// What multiplies K in the row sum, `[row]`; 0 for padding and removed columns.
    pub(super) row_weight: Vec<f32>,
    /// Padding and removed columns.
    removed: Vec<usize>,
    /// What multiplies the affinity, `[row]`; 0 for padding and removed columns.
    pub(super) factor: Vec<f32>,
    /// 1 in the negative block, `[row]`.
    pub(super) negative: Vec<f32>,
    /// 1 in the positive block, `[row]`.
    pub(super) positive: Vec<f32>,
    /// Before the self mask, self pairs left out of the minima.
    pub(super) before: Minima,
    /// With the self mask: d_ii `[G]`, min_j d_ij `[G]`, min_i d_ij `[row]`.
    pub(super) masked: Minima,
    /// The scales of [`tile::joint_sums`] at each temperature that takes it.
    pub(super) joint: Vec<Option<Joint>>,
    /// [G, R].
    pub(super) row_partition: Vec<Partition>,
    /// [`tile::Columns::inv_root`] and [`tile::Columns::log`], each [R, row].
    pub(super) col_inv_root: Vec<f32>,
    pub(super) col_log: Vec<f32>,
}

/// Scales around one reference distance, with which a pair's one exponential serves its row's and its column's sum.
#[derive(Debug)]
pub(super) struct Joint {
    /// Of the rows, `[G]`.
    pub(super) rows: Vec<f32>,
    /// Of the columns, `[row]`.
    pub(super) columns: Vec<f32>,
    /// Those of the columns times [`Group::row_weight`].
    pub(super) weighted: Vec<f32>,
}

/// Minima over rows and columns.
#[derive(Debug, Default)]
pub(super) struct Minima {
    pub(super) diagonal: Vec<f32>,
    pub(super) row: Vec<f32>,
    pub(super) col: Vec<f32>,
}

impl Minima {
    /// Of nothing yet, for rows of this length.
    pub(super) fn clear(&mut self, row: usize) {
        self.diagonal.clear();
        self.row.clear();
        self.col.clear();
        self.col.resize(row, FAR);
    }

    /// Joins those of the next stripe.
    pub(super) fn join(&mut self, next: &Self) {
        self.diagonal.extend_from_slice(&next.diagonal);
        self.row.extend_from_slice(&next.row);
        for (min, next) in self.col.iter_mut().zip(&next.col) {
            *min = min.min(*next);
        }
    }
}

/// What belongs to one row of distances, each `[row]`.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// [`tile::exponents`].
    pub(super) exponents: Vec<f32>,
    /// [`tile::exponentials`] at the temperature of which others are powers.
    pub(super) base: Vec<f32>,
    /// Exponentials, then affinities, at one temperature.
    pub(super) affinity: Vec<f32>,
}

/// Buffers of one task.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) group: Group,
    /// Distances, [rows, row].
    pub(super) tile: Vec<f32>,
    /// Products of a small group's centred points, [G or T, row].
    pub(super) gram: Vec<f32>,
    pub(super) rows_of: Rows,
    /// [R or 1, rows, row].
    pub(super) coefficients: Vec<f32>,
    /// Centred points by rows.
    pub(super) rows: Vec<f32>,
    /// One packed panel.
    pub(super) panel: Vec<f32>,
    /// A panel of the result, [R or 1, rows, LANES].
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

/// The largest difference of psi/2 between two minima of a group at which one exponential serves both sums: products
/// of three numbers between e^-6 and e^6 lose at most 1e-6 to the rounding of their exponents, mostly a third of that.
const JOINT_RANGE: f64 = 6.0;

impl Plan {
    /// Weights and blocks.
    pub(super) fn prepare<T: Element>(&self, inputs: &DriftInputs<'_, T>, b: usize, group: &mut Group) {
        let DriftShape { generated, negatives, .. } = self.shape;
        let (t, row) = (self.shape.targets(), self.cut.row);
        let rule = self.spec.weights;
        let plain = rule == WeightRule::Ignored || inputs.unweighted();
        if plain && group.plain {
            return; // as the last group that this scratch served
        }
        group.plain = plain;
        let fill = |buffer: &mut Vec<f32>, value: &dyn Fn(usize) -> f32| {
            buffer.clear();
            buffer.extend((0..t).map(value));
            buffer.resize(row, 0.0);
        };
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
    }

    /// What distances are computed from: the targets' mean, or in low dimension their coordinates; returns how many
    /// coordinates are not finite.
    pub(super) fn locate<T: Element>(&self, inputs: &DriftInputs<'_, T>, b: usize, group: &mut Group) -> u64 {
        let (t, row, dim) = (self.shape.targets(), self.cut.row, self.shape.dim);
        if self.cut.low_dim {
            let soa = sized(&mut group.soa, dim * row);
            for (j, y) in inputs.target_blocks(b).into_iter().flat_map(|block| block.chunks_exact(dim)).enumerate() {
                for (k, y) in y.iter().enumerate() {
                    soa[k * row + j] = y.to_f32();
                }
            }
            return inputs.nonfinite_in_group(b);
        }
        let center = sized(&mut group.center, dim);
        // Few coordinates at a time give threads work in a big group; in small ones the groups do.
        let width = if self.cut.small { 1024 } else { 64 };
        let mean_of = |(at, center): (usize, &mut [f32])| {
            let mut mean = [0.0f64; 1024];
            let mean = &mut mean[..center.len()];
            for block in inputs.target_blocks(b) {
                for y in block.chunks_exact(dim) {
                    tile::add_row(self.isa, &y[at * width..][..center.len()], mean);
                }
            }
            for (center, mean) in center.iter_mut().zip(mean) {
                *center = (*mean / t as f64) as f32;
            }
        };
        if self.cut.small {
            center.chunks_mut(width).enumerate().for_each(mean_of);
        } else {
            center.par_chunks_mut(width).enumerate().for_each(mean_of);
        }
        // A coordinate that is not finite makes its mean so too.
        let finite = center.iter().all(|c| c.is_finite());
        if !self.spec.numerics.center {
            center.fill(0.0);
        }
        if finite { 0 } else { inputs.nonfinite_in_group(b) }
    }

    /// Coordinates `k` of the targets `j`, widened and centred, by rows.
    pub(super) fn centered<'a, T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        j: Range<usize>,
        k: Range<usize>,
        buffer: &'a mut Vec<f32>,
    ) -> &'a mut [f32] {
        let out = sized(buffer, j.len() * k.len());
        for (j, out) in j.zip(out.chunks_exact_mut(k.len())) {
            T::widen(&inputs.target(b, j)[k.clone()], out);
            for (v, c) in out.iter_mut().zip(&group.center[k.clone()]) {
                *v -= c;
            }
        }
        out
    }

    /// Columns `k..k + LANES` of the centred targets of a group, [T, LANES].
    pub(super) fn columns<'a, T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &'a Group,
        k: usize,
        panel: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let t = self.shape.targets();
        if self.cut.whole {
            return &group.points[k * t..][..t * LANES];
        }
        let panel = sized(panel, t * LANES);
        self.fill_columns(inputs, b, &group.center, k, panel);
        panel
    }

    fn fill_columns<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        center: &[f32],
        k: usize,
        panel: &mut [f32],
    ) {
        let dim = self.shape.dim;
        let mut offset = [0.0; LANES];
        let width = LANES.min(dim - k);
        offset[..width].copy_from_slice(&center[k..][..width]);
        let mut rest = panel;
        for block in inputs.target_blocks(b) {
            let (out, tail) = rest.split_at_mut(block.len() / dim * LANES);
            pack_columns(self.isa, block, dim, k, &offset, out);
            rest = tail;
        }
    }

    /// Widens, centres and packs all targets of a big group: their transpose for phase A, which also gives the norms,
    /// or their columns.
    pub(super) fn fill_points<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &mut Group,
        phase_a: bool,
    ) {
        let (dim, t, row) = (self.shape.dim, self.shape.targets(), self.cut.row);
        if self.cut.low_dim || self.cut.small {
            return;
        }
        let mut points = std::mem::take(&mut group.points);
        if phase_a {
            /// Coordinates that are widened at a time.
            const WIDTH: usize = 1 << 12;
            let mut norms = std::mem::take(&mut group.norms);
            sized(&mut norms, row).fill(0.0);
            let points = sized(&mut points, if self.cut.whole { row * dim } else { 0 });
            let panels = optional_chunks(points, dim * LANES, row / LANES);
            let state = &*group;
            norms.par_chunks_mut(LANES).zip(panels).enumerate().for_each_init(
                Vec::new,
                |buffer, (at, (norms, mut panel))| {
                    let j = at * LANES..t.min((at + 1) * LANES);
                    for k in (0..dim).step_by(WIDTH) {
                        let k = k..dim.min(k + WIDTH);
                        let rows = self.centered(inputs, b, state, j.clone(), k.clone(), buffer);
                        for (norm, point) in norms.iter_mut().zip(rows.chunks_exact(k.len())) {
                            *norm += tile::squared_norm(self.isa, point);
                        }
                        if let Some(panel) = &mut panel {
                            pack_rows(self.isa, j.len(), rows, k.len(), k.len(), &mut panel[k.start * LANES..]);
                        }
                    }
                },
            );
            group.norms = norms;
        } else if self.cut.whole {
            let points = sized(&mut points, t * dim.next_multiple_of(LANES));
            points.par_chunks_exact_mut(t * LANES).enumerate().for_each(|(at, panel)| {
                self.fill_columns(inputs, b, &group.center, at * LANES, panel);
            });
        }
        group.points = points;
        group.transposed = phase_a && self.cut.whole;
    }

    /// Brings the self mask into the diagonal and the minima, now that the scale is known, and decides where one
    /// exponential will do. `already` says that the diagonal was read from masked distances.
    pub(super) fn mask_minima(&self, scale: &Scale, shapes: &[Shape], group: &mut Group, already: bool) {
        let masked = |d: f32| match self.spec.self_mask {
            _ if already => d,
            SelfMask::Add(v) => (f64::from(d) + v * scale.distance) as f32,
            SelfMask::Set(v) => (v * scale.distance) as f32,
            SelfMask::Remove => REMOVED,
            SelfMask::Keep => d,
        };
        let Group { before, masked: after, .. } = group;
        after.diagonal.clear();
        after.diagonal.extend(before.diagonal.iter().map(|d| masked(*d)));
        after.row.clone_from(&before.row);
        after.col.clone_from(&before.col);
        for (i, &own) in after.diagonal.iter().enumerate() {
            if group.row_weight[i] > 0.0 && own < after.row[i] {
                after.row[i] = own;
            }
            if own < after.col[i] {
                after.col[i] = own;
            }
        }
        let (mut least, mut most) = (FAR, 0.0f32);
        for &m in after.row.iter().chain(&after.col).filter(|m| **m < FAR) {
            (least, most) = (least.min(m), most.max(m));
        }
        let middle = 0.5 * (least + most);
        group.joint.clear();
        group.joint.extend(shapes.iter().map(|shape| {
            let range = 0.5 * (shape.exponent(most) - shape.exponent(least));
            (range <= JOINT_RANGE).then(|| {
                let (mut rows, mut columns) = (vec![0.0; after.row.len()], vec![0.0; after.col.len()]);
                tile::balance(self.isa, *shape, middle, &after.row, &mut rows);
                tile::balance(self.isa, *shape, middle, &after.col, &mut columns);
                let weighted = columns.iter().zip(&group.row_weight).map(|(v, w)| v * w).collect();
                Joint { rows, columns, weighted }
            })
        }));
    }
}

/// Writes the masked self distances into the tile, and takes out padding and columns that weight 0 removes.
pub(super) fn mask(group: &Group, rows: Range<usize>, row: usize, tile: &mut [f32], stride: usize) {
    for (i, tile) in rows.zip(tile.chunks_exact_mut(stride)) {
        let tile = &mut tile[..row];
        tile[i] = group.masked.diagonal[i];
        for &j in &group.removed {
            tile[j] = REMOVED;
        }
    }
}

/// `count` chunks of `size`, `None` beyond the end of the buffer.
pub(super) fn optional_chunks(buffer: &mut [f32], size: usize, count: usize) -> Vec<Option<&mut [f32]>> {
    let mut chunks: Vec<_> = buffer.chunks_mut(size).map(Some).collect();
    chunks.resize_with(count, || None);
    chunks
}
