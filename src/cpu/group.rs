//! What the passes over one group share, and the buffers of the tasks that make them.

use super::Plan;
use super::gemm::{Lines, center_row, pack_columns, pack_rows};
use super::isa::LANES;
use super::tile::{self, FAR, Partition, REMOVED, Shape};
use crate::inputs::Targets;
use crate::{Convergence, Coupling, DriftInputs, DriftShape, Element, Scale, SelfMask, WeightRule};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;

/// Columns of the targets that are packed at a time.
const COLUMNS: usize = 8 * LANES;

/// Targets whose mean is the origin: squares of distances from it are an eighth more than from the mean of all, where
/// these are alike; one that is far from all others moves it by an eighth of the way.
const SAMPLE: usize = 8;

/// What the passes over one group share.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Whether weights and blocks are those of a group without weights.
    plain: bool,
    /// The origin, near the mean of all targets, `[D]`; zeros where centring is off. High dimension only.
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
    /// What is added to squared distances: infinity for padding and removed columns, else 0, `[row]`.
    pub(super) absent: Vec<f32>,
    /// w_j of the distance mean, `[row]`; 0 for padding.
    pub(super) mean_weight: Vec<f32>,
    /// What the targets that count 0 in that mean add to its sum: 0, or NaN where one is not finite. Low dimension only.
    pub(super) weightless: f64,
    /// What multiplies K in the row sum, `[row]`; 0 for padding and removed columns.
    pub(super) row_weight: Vec<f32>,
    /// Padding and removed columns, in runs.
    removed: Vec<Range<usize>>,
    /// What multiplies the affinity, `[row]`; 0 for padding and removed columns.
    pub(super) factor: Vec<f32>,
    /// 1 in the negative block, `[row]`.
    pub(super) negative: Vec<f32>,
    /// 1 in the positive block, `[row]`.
    pub(super) positive: Vec<f32>,
    /// What is added to the logits of each column where rows have mass 1, [R, row]; minus infinity where nothing is.
    pub(super) potential: Vec<f32>,
    /// The lane blocks in which there is something, where rows have mass 1.
    pub(super) live: Range<usize>,
    /// Whether the kept distances hold the mask already.
    pub(super) kept_masked: bool,
    /// Near the least of each row's exponents with these potentials, [G, R, 2]; empty where nothing is known.
    pub(super) guess: Vec<f32>,
    /// How near each temperature's plans came to their marginals, `[R]`.
    pub(super) convergence: Vec<Convergence>,
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

impl Group {
    /// Elements of [`Group::save_partitions`].
    pub(super) fn partitions_len(shape: &DriftShape, row: usize, temperatures: usize) -> usize {
        shape.generated + row + 2 * temperatures * (shape.generated + row)
    }

    /// Writes minima and partitions, from which coefficients follow.
    pub(super) fn save_partitions(&self, to: &mut [f32]) {
        let mut rest = to;
        for from in [&self.masked.row, &self.masked.col, &self.col_inv_root, &self.col_log] {
            let (head, tail) = rest.split_at_mut(from.len());
            head.copy_from_slice(from);
            rest = tail;
        }
        for (to, partition) in rest.as_chunks_mut().0.iter_mut().zip(&self.row_partition) {
            *to = [partition.inv_root, partition.log];
        }
    }

    /// Reads what [`Group::save_partitions`] wrote.
    pub(super) fn load_partitions(&mut self, from: &[f32], shape: &DriftShape, row: usize, temperatures: usize) {
        let mut rest = from;
        let mut next = |buffer: &mut Vec<f32>, len: usize| {
            let (head, tail) = rest.split_at(len);
            sized(buffer, len).copy_from_slice(head);
            rest = tail;
        };
        next(&mut self.masked.row, shape.generated);
        next(&mut self.masked.col, row);
        next(&mut self.col_inv_root, temperatures * row);
        next(&mut self.col_log, temperatures * row);
        self.row_partition.clear();
        self.row_partition
            .extend(rest.as_chunks().0.iter().map(|[inv_root, log]| Partition { inv_root: *inv_root, log: *log }));
    }
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

/// Buffers of one task.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) group: Group,
    /// Distances, [rows, row]; in low dimension of a few rows in some columns.
    pub(super) tile: Vec<f32>,
    /// Products of a small group's centred targets, [`Plan::gram_panel`] by panel.
    pub(super) gram: Vec<f32>,
    /// Of some rows in some columns, [R, rows, columns].
    pub(super) exponentials: Vec<f32>,
    /// Exponentials, affinities, coefficients: [R or 1, rows, row].
    pub(super) coefficients: Vec<f32>,
    /// Centred points by rows.
    pub(super) rows: Vec<f32>,
    /// Packed panels.
    pub(super) panel: Vec<f32>,
    /// Some columns of the result, [R or 1, rows, WIDTH].
    pub(super) force: Vec<f32>,
}

/// Goes through coordinates that are needed later, a few rows of two cache lines at a time.
pub(super) struct Ahead<'a, T> {
    targets: Targets<'a, T>,
    /// Bytes of every row.
    columns: Range<usize>,
    block: usize,
    row: usize,
}

impl<'a, T: Element> Ahead<'a, T> {
    /// In bytes.
    const LINE: usize = 64;
    /// Rows at a time: all are asked for before a product that reads as much is done.
    const ROWS: usize = 24;

    /// The coordinates of group `b` from `at` on, up to `width` of them, or those of the next group from its first on.
    pub(super) fn new(inputs: &DriftInputs<'a, T>, b: usize, at: usize, width: usize) -> Self {
        let dim = inputs.shape().dim;
        let (b, at) = if at < dim { (b, at) } else { (b + 1, 0) };
        let columns = at * size_of::<T>()..dim.min(at + width) * size_of::<T>();
        Self { targets: inputs.targets(b), columns, block: 0, row: 0 }
    }

    pub(super) fn some(&mut self) -> Lines {
        let Targets { blocks, dim } = self.targets;
        while !self.columns.is_empty() {
            let Some(block) = blocks.get(self.block) else {
                self.block = 0;
                self.columns.start += 2 * Self::LINE;
                continue;
            };
            let (at, stride) = (self.row * dim, dim * size_of::<T>());
            let count = ((block.len() - at) / dim).min(Self::ROWS);
            if count == 0 {
                (self.block, self.row) = (self.block + 1, 0);
                continue;
            }
            self.row += count;
            // Where pieces as long as a line begin within one, they end in the next.
            let at = block[at..].as_ptr().cast::<u8>().wrapping_add(self.columns.start + Self::LINE - 1);
            return Lines { at, stride, count };
        }
        Lines::NONE
    }
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

/// The largest difference of psi/2 between two minima of a group at which one exponential serves both sums. The exponents
/// of its scales are three quarters of that at most, half for kernels of the distance itself: rounding them costs 1e-6,
/// mostly a third of that, and the distance that makes the difference is rounded to as much.
const JOINT_RANGE: f64 = 20.0;

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
        group.absent.clear();
        group.absent.extend(group.row_weight.iter().map(|w| if *w == 0.0 { f32::INFINITY } else { 0.0 }));
        group.removed.clear();
        for j in (0..row).filter(|&j| group.row_weight[j] == 0.0) {
            match group.removed.last_mut() {
                Some(run) if run.end == j => run.end += 1,
                _ => group.removed.push(j..j + 1),
            }
        }
        fill(&mut group.factor, &|j| match rule {
            WeightRule::Affinity => w(j),
            WeightRule::Logit => f32::from(w(j) > 0.0),
            WeightRule::Ignored => 1.0,
        });
        fill(&mut group.negative, &|j| f32::from(j < generated + negatives));
        fill(&mut group.positive, &|j| f32::from(j >= generated + negatives));
    }

    /// What distances are computed from: the origin, or in low dimension the coordinates themselves.
    ///
    /// The origin is the mean of every n-th target, [`SAMPLE`] at most: as near to all as the mean of all for what it is
    /// there for, and the samples need not be read twice.
    pub(super) fn locate<T: Element>(&self, inputs: &DriftInputs<'_, T>, b: usize, group: &mut Group) {
        let (t, row, dim) = (self.shape.targets(), self.cut.row, self.shape.dim);
        if self.cut.low_dim {
            let soa = sized(&mut group.soa, dim * row);
            for (j, y) in inputs.targets(b).blocks.into_iter().flat_map(|block| block.chunks_exact(dim)).enumerate() {
                for (k, y) in y.iter().enumerate() {
                    soa[k * row + j] = y.to_f32();
                }
            }
            let mut weightless = 0.0;
            for (j, weight) in group.mean_weight[..t].iter().enumerate().filter(|(_, weight)| **weight == 0.0) {
                weightless += soa[j..].iter().step_by(row).map(|y| f64::from(y * weight)).sum::<f64>();
            }
            group.weightless = weightless;
            return;
        }
        if !self.spec.numerics.center {
            sized(&mut group.center, dim).fill(0.0);
            return;
        }
        let center = sized(&mut group.center, dim);
        // Few coordinates at a time give threads work in a big group; in small ones the groups do.
        let width = if self.cut.small { 1024 } else { 64 };
        let sample: Vec<&[T]> = (0..t).step_by(t.div_ceil(SAMPLE)).map(|j| inputs.target(b, j)).collect();
        let mean_of = |(at, center): (usize, &mut [f32])| tile::mean_of(self.isa, &sample, at * width, center);
        if self.cut.small {
            center.chunks_mut(width).enumerate().for_each(mean_of);
        } else {
            center.par_chunks_mut(width).enumerate().for_each(mean_of);
        }
    }

    /// How many coordinates of the group are not finite, once its norms are known.
    pub(super) fn nonfinite<T: Element>(&self, inputs: &DriftInputs<'_, T>, b: usize, group: &Group) -> u64 {
        // In high dimension they show in the norms.
        let none = !self.cut.low_dim && group.norms.iter().all(|norm| norm.is_finite());
        if none { 0 } else { inputs.nonfinite_in_group(b) }
    }

    /// Coordinates `k` of the targets `j`, widened and centred, by rows; adds their squared norms to `norms`, if any.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn centered<'a, T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        j: Range<usize>,
        k: Range<usize>,
        buffer: &'a mut Vec<f32>,
        norms: &mut [f32],
    ) -> &'a mut [f32] {
        let out = sized(buffer, j.len() * k.len());
        let center = &group.center[k.clone()];
        let targets = inputs.targets(b);
        for (at, (j, out)) in j.zip(out.chunks_exact_mut(k.len())).enumerate() {
            let norm = center_row(self.isa, &targets.row(j)[k.clone()], center, out);
            if let Some(sum) = norms.get_mut(at) {
                *sum += norm;
            }
        }
        out
    }

    /// Columns of the centred targets from `k` on, as panels [T, LANES], as many as there is room for.
    pub(super) fn fill_columns<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        center: &[f32],
        k: usize,
        panels: &mut [f32],
    ) {
        let (dim, t) = (self.shape.dim, self.shape.targets());
        let n = panels.len() / (t * LANES);
        let mut offset = [0.0; COLUMNS];
        let width = (dim - k).min(n * LANES);
        offset[..width].copy_from_slice(&center[k..][..width]);
        let offset = &offset[..n * LANES];
        // The blocks lie one below the other in each panel.
        let mut start = 0;
        for block in inputs.targets(b).blocks {
            let rows = block.len() / dim;
            if rows > 0 {
                let out = &mut panels[start * LANES..];
                pack_columns(self.isa, block, dim, k, t * LANES, offset, out);
            }
            start += rows;
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
                        let rows = self.centered(inputs, b, state, j.clone(), k.clone(), buffer, norms);
                        if let Some(panel) = &mut panel {
                            pack_rows(self.isa, j.len(), rows, k.len(), k.len(), &mut panel[k.start * LANES..]);
                        }
                    }
                },
            );
            group.norms = norms;
        } else if self.cut.whole {
            let points = sized(&mut points, t * dim.next_multiple_of(LANES));
            points.par_chunks_mut(t * COLUMNS).enumerate().for_each(|(at, panels)| {
                self.fill_columns(inputs, b, &group.center, at * COLUMNS, panels);
            });
        }
        group.points = points;
        group.transposed = phase_a && self.cut.whole;
    }

    /// Brings the self mask into the diagonal and the minima, now that the scale is known, and decides where one
    /// exponential will do.
    pub(super) fn mask_minima(&self, scale: &Scale, shapes: &[Shape], group: &mut Group) {
        let masked = |d: f32| match self.spec.self_mask {
            SelfMask::Add(v) => (f64::from(d) + v * scale.distance) as f32,
            SelfMask::Set(v) => (v * scale.distance) as f32,
            SelfMask::Remove => REMOVED,
            SelfMask::Keep => d,
        };
        group.kept_masked = false;
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
            // Exponentials that columns have no part in are of no use to their sums.
            (range <= JOINT_RANGE && self.spec.coupling == Coupling::RowColumn).then(|| {
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
        for run in &group.removed {
            tile[run.clone()].fill(REMOVED);
        }
    }
}

/// `count` chunks of `size`, `None` beyond the end of the buffer.
pub(super) fn optional_chunks(buffer: &mut [f32], size: usize, count: usize) -> Vec<Option<&mut [f32]>> {
    let mut chunks: Vec<_> = buffer.chunks_mut(size).map(Some).collect();
    chunks.resize_with(count, || None);
    chunks
}
