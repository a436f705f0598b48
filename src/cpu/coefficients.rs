//! Phase B: partitions, coefficients, and the squared force of each temperature. Phase C uses the same coefficients.

use super::Plan;
use super::gemm::{ByRows, Left, TOGETHER, TargetsProduct, WIDTH, panels_product};
use super::group::{Ahead, Group, Scratch, mask, sized, with_scratch};
use super::isa::LANES;
use super::sums::add;
use super::tile::{self, Columns, Floors, Partition, ROWS, Shape};
use crate::{AffinityFloor, Coupling, DriftInputs, Element, SelfMask, WeightRule};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;

/// Where forces go: those of each temperature, `height` rows of D, `next` elements from one temperature to the next.
struct Place<'a> {
    out: &'a mut [f32],
    height: usize,
    /// Elements from a row to the next.
    stride: usize,
    next: usize,
}

impl Place<'_> {
    /// A stacked row, and what comes after it.
    fn row(&mut self, at: usize) -> &mut [f32] {
        &mut self.out[at % self.height * self.stride + at / self.height * self.next..]
    }
}

impl Plan {
    /// The exponentials of up to [`ROWS`] rows of masked distances, which have a stride, to the targets `k`, at all
    /// temperatures or only those that sums are taken of: [rows, k], `apart` elements from one temperature to the next.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn exponentials(
        &self,
        group: &Group,
        shapes: &[Shape],
        (rows, k): (Range<usize>, Range<usize>),
        (tile, stride): (&[f32], usize),
        (only_joint, done): (bool, Option<usize>),
        out: &mut [f32],
        apart: usize,
    ) {
        let (minima, width, len) = (&group.masked.row[rows.clone()], k.len(), rows.len() * k.len());
        let asked = self.evaluated(group, shapes, only_joint).filter(|r| Some(*r) != done);
        for r in asked {
            let (shape, out) = (&shapes[r], &mut out[r * apart..]);
            match self.spec.coupling {
                Coupling::Row => {
                    for (n, min) in minima.iter().enumerate() {
                        let (row, min) = ((&tile[n * stride..], stride), std::slice::from_ref(min));
                        let alone = vec![min[0]; width];
                        tile::exponentials(self.isa, *shape, row, min, &alone, &mut out[n * width..]);
                    }
                }
                Coupling::RowColumn | Coupling::Sinkhorn(_) => {
                    let col_min = &group.masked.col[k.clone()];
                    tile::exponentials(self.isa, *shape, (tile, stride), minima, col_min, out);
                }
            }
        }
        let Some(base) = shapes.iter().position(|shape| shape.power == Some(1)) else { return };
        for (r, shape) in shapes.iter().enumerate() {
            if let Some(n @ 2..) = shape.power {
                let (low, high) = out.split_at_mut(r.max(base) * apart);
                let (low, high) = (&mut low[r.min(base) * apart..][..len], &mut high[..len]);
                let (from, to) = if base < r { (low, high) } else { (high, low) };
                tile::power(self.isa, n, from, to);
            }
        }
    }

    /// Temperatures whose exponentials are evaluated, not powers of others: all, or of those that sums are taken of.
    pub(super) fn evaluated(&self, group: &Group, shapes: &[Shape], only_joint: bool) -> impl Iterator<Item = usize> {
        let asked = move |(r, shape): &(usize, &Shape)| {
            let wanted = !only_joint || group.joint[*r].is_some();
            shape.power == Some(1) || shape.power.is_none() && wanted
        };
        shapes.iter().enumerate().filter(asked).map(|(r, _)| r)
    }

    /// The tile's row partitions [rows, R], appended, and its contribution to the column sums [R, row].
    ///
    /// Leaves the exponentials in `out`, [R, rows, row], where they are to be kept; else it is room for those of
    /// some rows and columns.
    #[allow(clippy::too_many_arguments)]
    fn tile_sums(
        &self,
        group: &Group,
        shapes: &[Shape],
        rows: Range<usize>,
        (tile, stride): (&[f32], usize),
        row_partition: &mut Vec<Partition>,
        col_sum: &mut [f32],
        (out, keep): (&mut [f32], bool),
        made: &mut Vec<f32>,
    ) {
        let row = self.cut.row;
        let width = if keep { row } else { self.some_width() };
        let apart = if keep { rows.len() * row } else { ROWS * width };
        let asked = self.logs_asked();
        let wanted = keep || group.joint.iter().any(Option::is_some);
        let mut sums = vec![[0.0f64; ROWS]; shapes.len()];
        for first in rows.clone().step_by(ROWS) {
            let some = first..rows.end.min(first + ROWS);
            let at = first - rows.start;
            let (tile, out) = (&tile[at * stride..], &mut out[if keep { at * row } else { 0 }..]);
            let minima = &group.masked.row[some.clone()];
            sums.fill([0.0; ROWS]);
            for start in (0..row).step_by(width) {
                let k = start..row.min(start + width);
                let all = (some.clone(), k.clone());
                let distances = if wanted {
                    self.with_exponentials(group, shapes, all, (tile, stride), !keep, out, apart, made)
                } else {
                    self.masked_distances(group, all, (tile, stride), made)
                };
                for (r, (shape, joint)) in shapes.iter().zip(&group.joint).enumerate() {
                    let col_sum = &mut col_sum[r * row..][k.clone()];
                    let part = match joint {
                        Some(joint) => {
                            let (e, scales) = ((&out[r * apart..], k.len()), &joint.rows[some.clone()]);
                            tile::joint_sums(self.isa, e, scales, &joint.weighted[k.clone()], col_sum)
                        }
                        None => {
                            let (weight, col_min) = (&group.row_weight[k.clone()], &group.masked.col[k.clone()]);
                            tile::kernel_sums(self.isa, *shape, distances, minima, weight, col_min, col_sum)
                        }
                    };
                    for (sum, part) in sums[r].iter_mut().zip(part) {
                        *sum += f64::from(part);
                    }
                }
            }
            for (n, i) in some.enumerate() {
                for (r, (shape, joint)) in shapes.iter().zip(&group.joint).enumerate() {
                    let scale = joint.as_ref().map_or(1.0, |joint| f64::from(joint.rows[i]));
                    let sum = if scale == 0.0 { 0.0 } else { sums[r][n] / scale };
                    row_partition.push(Partition::new(*shape, sum, group.masked.row[i], asked));
                }
            }
        }
    }

    /// Columns that [`ROWS`] rows go through together, so that what is made of them stays near.
    pub(super) fn some_width(&self) -> usize {
        self.cut.row.min(512)
    }

    /// Room for the exponentials of some rows in some columns at all temperatures.
    fn room<'a>(&self, exponentials: &'a mut Vec<f32>) -> &'a mut [f32] {
        sized(exponentials, self.spec.temperatures.len() * ROWS * self.some_width())
    }

    /// Whether partitions need their logarithms.
    fn logs_asked(&self) -> bool {
        self.floors().of_normalizer() || self.spec.rows_of_mass_one()
    }

    /// Whether softmaxes along rows and columns go into the affinity.
    fn softmaxes(&self) -> bool {
        !self.spec.rows_of_mass_one() || self.spec.coupling == Coupling::RowColumn
    }

    /// The columns' partitions from the sums of all stripes, in order.
    fn column_partitions(&self, shapes: &[Shape], stripes: &[Vec<f32>], group: &mut Group) {
        let row = self.cut.row;
        let asked = self.logs_asked();
        let inv_root = sized(&mut group.col_inv_root, shapes.len() * row);
        let log = sized(&mut group.col_log, shapes.len() * row);
        for (r, (shape, joint)) in shapes.iter().zip(&group.joint).enumerate() {
            for j in 0..row {
                let mut sum: f64 = stripes.iter().map(|s| f64::from(s[r * row + j])).sum();
                if let Some(joint) = joint {
                    sum = if joint.columns[j] == 0.0 { 0.0 } else { sum / f64::from(joint.columns[j]) };
                }
                let partition = Partition::new(*shape, sum, group.masked.col[j], asked);
                let weight = if self.spec.weights == WeightRule::Logit { group.row_weight[j] } else { 1.0 };
                inv_root[r * row + j] = partition.inv_root * weight.sqrt();
                log[r * row + j] = partition.log + weight.ln();
            }
        }
    }

    /// All partitions and potentials of a small group, whose distances are masked, or in low dimension made as they are
    /// needed; leaves the exponentials in place of coefficients where rows have not mass 1, in high dimension.
    pub(super) fn small_sums(&self, group: &mut Group, shapes: &[Shape], tile: (&[f32], usize), scratch: &mut Scratch) {
        if self.softmaxes() {
            self.small_partitions(group, shapes, tile, scratch);
        }
        if self.spec.rows_of_mass_one() {
            self.couple_small(group, shapes, tile, scratch);
        }
    }

    fn small_partitions(&self, group: &mut Group, shapes: &[Shape], tile: (&[f32], usize), scratch: &mut Scratch) {
        let mut row_partition = std::mem::take(&mut group.row_partition);
        row_partition.clear();
        let (g, row) = (self.shape.generated, self.cut.row);
        let mut col_sum = vec![0.0; shapes.len() * row];
        // In low dimension exponentials are made again, a few at a time.
        let Scratch { tile: made, exponentials, coefficients, .. } = scratch;
        let out = if self.cut.low_dim {
            (self.room(exponentials), false)
        } else {
            (sized(coefficients, shapes.len() * g * row), true)
        };
        self.tile_sums(group, shapes, 0..g, tile, &mut row_partition, &mut col_sum, out, made);
        group.row_partition = row_partition;
        self.column_partitions(shapes, &[col_sum], group);
    }

    /// All partitions and potentials of a big group; masks its kept distances.
    pub(super) fn big_sums<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &mut Group,
        shapes: &[Shape],
        mut kept: Option<&mut [f32]>,
        scratch: &Mutex<Vec<Scratch>>,
    ) {
        if self.softmaxes() {
            self.big_partitions(inputs, b, group, shapes, kept.as_deref_mut(), scratch);
            group.kept_masked = true;
        }
        if self.spec.rows_of_mass_one() {
            self.couple_big(inputs, b, group, shapes, kept, scratch);
        }
    }

    fn big_partitions<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &mut Group,
        shapes: &[Shape],
        kept: Option<&mut [f32]>,
        scratch: &Mutex<Vec<Scratch>>,
    ) {
        let state = &*group;
        let len = shapes.len() * self.cut.row;
        let sums = |(row_partition, col_sum): &mut (Vec<Partition>, Vec<f32>),
                    rows: Range<usize>,
                    (tile, stride): (&mut [f32], usize),
                    scratch: &mut Scratch| {
            let Scratch { tile: made, exponentials, .. } = scratch;
            let (col_sum, out) = (sized(col_sum, len), self.room(exponentials));
            self.tile_sums(state, shapes, rows, (&*tile, stride), row_partition, col_sum, (out, false), made);
        };
        let (rows, cols): (Vec<_>, Vec<_>) =
            self.over_stripes(inputs, b, state, kept, scratch, sums).into_iter().unzip();
        group.row_partition = rows.concat();
        self.column_partitions(shapes, &cols, group);
    }

    /// Shows `work` the masked distances of a big group, kept or computed afresh, tile by tile, in low dimension none;
    /// returns what it made of each stripe, in order.
    pub(super) fn over_stripes<T: Element, P: Default + Send>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        kept: Option<&mut [f32]>,
        scratch: &Mutex<Vec<Scratch>>,
        work: impl Fn(&mut P, Range<usize>, (&mut [f32], usize), &mut Scratch) + Sync,
    ) -> Vec<P> {
        let sweep = |(stripe, mut kept): (Range<usize>, Option<&mut [f32]>)| {
            with_scratch(scratch, |scratch| {
                let mut part = P::default();
                for rows in self.tiles(stripe) {
                    self.masked_tile(inputs, b, group, rows.clone(), &mut kept, scratch, |tile, scratch| {
                        work(&mut part, rows, tile, scratch);
                    });
                }
                part
            })
        };
        self.stripes().into_par_iter().zip(self.striped(kept)).map(sweep).collect()
    }

    /// Hands `work` the masked distances of the queries `rows` of a big group, kept or computed afresh; in low dimension
    /// what [`Plan::with_tile`] does.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn masked_tile<T: Element, R>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        rows: Range<usize>,
        kept: &mut Option<&mut [f32]>,
        scratch: &mut Scratch,
        work: impl FnOnce((&mut [f32], usize), &mut Scratch) -> R,
    ) -> R {
        if self.cut.low_dim {
            return self.with_tile(rows, kept, scratch, work);
        }
        let fresh = kept.is_none();
        self.with_tile(rows.clone(), kept, scratch, |(tile, stride), scratch| {
            if fresh {
                let mut minima = std::mem::take(&mut scratch.group.before);
                minima.clear(self.cut.row);
                self.tile_distances(inputs, b, group, rows.clone(), (tile, stride), scratch, &mut minima);
                scratch.group.before = minima;
            }
            if fresh || !group.kept_masked {
                mask(group, rows, self.cut.row, tile, stride);
            }
            work((tile, stride), scratch)
        })
    }

    pub(super) fn floors(&self) -> Floors {
        match self.spec.affinity_floor {
            AffinityFloor::Product(floor) => {
                Floors { affinity: floor.sqrt() as f32, log_normalizer: f32::NEG_INFINITY }
            }
            AffinityFloor::Normalizer(floor) => Floors { affinity: 0.0, log_normalizer: (floor.ln() / 2.0) as f32 },
            AffinityFloor::None => Floors { affinity: 0.0, log_normalizer: f32::NEG_INFINITY },
        }
    }

    /// The affinities of up to [`ROWS`] queries with the targets `k` at temperature `r`, in place of their exponentials
    /// [rows, k]; returns S- and S+ of each. The distances, from the first of those targets on, have a stride. Where rows
    /// have mass 1, `k` must be all targets.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn affinities(
        &self,
        group: &Group,
        shapes: &[Shape],
        (rows, k): (Range<usize>, Range<usize>),
        r: usize,
        (tile, stride): (&[f32], usize),
        e: &mut [f32],
    ) -> [[f32; 2]; ROWS] {
        let width = k.len();
        let mut sums = [[0.0; 2]; ROWS];
        if self.spec.rows_of_mass_one() {
            for (at, i) in rows.enumerate() {
                let (distances, a) = (&tile[at * stride..][..width], &mut e[at * width..][..width]);
                sums[at] = self.coupled_affinity(group, shapes[r], i, r, distances, a).into();
            }
            return sums;
        }
        let mut partitions = [Partition::default(); ROWS];
        for (partition, i) in partitions.iter_mut().zip(rows.clone()) {
            *partition = group.row_partition[i * shapes.len() + r];
        }
        let row = self.cut.row;
        let columns = Columns {
            inv_root: &group.col_inv_root[r * row..][k.clone()],
            log: &group.col_log[r * row..][k.clone()],
            weight: &group.row_weight[k.clone()],
            factor: &group.factor[k.clone()],
            negative: &group.negative[k.clone()],
            positive: &group.positive[k.clone()],
        };
        let (shape, floors) = (shapes[r], self.floors());
        match self.spec.coupling {
            Coupling::Row => {
                // The row's own partition in the place of each column's; a weight in the logits then counts in both.
                for (at, partition) in partitions[..rows.len()].iter().enumerate() {
                    let inv_root: Vec<f32> = columns.weight.iter().map(|w| partition.inv_root * w).collect();
                    let columns = Columns { inv_root: &inv_root, log: &vec![partition.log; width], ..columns };
                    let (distances, e) = ((&tile[at * stride..], stride), &mut e[at * width..]);
                    let partition = std::slice::from_ref(partition);
                    [sums[at], ..] = tile::affinities(self.isa, shape, floors, distances, partition, columns, e);
                }
            }
            _ => {
                let partitions = &partitions[..rows.len()];
                sums = tile::affinities(self.isa, shape, floors, (tile, stride), partitions, columns, e);
            }
        }
        if self.spec.self_mask == SelfMask::Remove {
            for (at, i) in rows.enumerate().filter(|(_, i)| k.contains(i)) {
                sums[at][0] -= std::mem::take(&mut e[at * width + i - k.start]);
            }
        }
        sums
    }

    /// The coefficients C of masked distances at each temperature, [R, rows, row]; `ready` says that their exponentials
    /// are in place. High dimension only.
    fn tile_coefficients(
        &self,
        group: &Group,
        shapes: &[Shape],
        rows: Range<usize>,
        (tile, stride): (&[f32], usize),
        ready: bool,
        scratch: &mut Scratch,
    ) {
        let (row, apart) = (self.cut.row, rows.len() * self.cut.row);
        let out = sized(&mut scratch.coefficients, shapes.len() * apart);
        for first in rows.clone().step_by(ROWS) {
            let at = first - rows.start;
            let some = first..rows.end.min(first + ROWS);
            let tile = &tile[at * stride..];
            if !ready && !self.spec.rows_of_mass_one() {
                let out = &mut out[at * row..];
                self.exponentials(group, shapes, (some.clone(), 0..row), (tile, stride), (false, None), out, apart);
            }
            for r in 0..shapes.len() {
                let c = &mut out[r * apart + at * row..][..some.len() * row];
                let sums = self.affinities(group, shapes, (some.clone(), 0..row), r, (tile, stride), c);
                let mut totals = [0.0; ROWS];
                let (sums, negative, positive) = (&sums[..some.len()], &group.negative, &group.positive);
                tile::coefficients(self.isa, c, sums, negative, positive, &mut totals);
                close(c, row, some.clone(), totals);
            }
        }
    }

    /// The coefficients of all temperatures, added up with `factors`, [rows, row].
    fn tile_combined(
        &self,
        group: &Group,
        shapes: &[Shape],
        factors: &[f32],
        rows: Range<usize>,
        (tile, stride): (&[f32], usize),
        scratch: &mut Scratch,
    ) {
        let row = self.cut.row;
        let Scratch { exponentials, coefficients, .. } = scratch;
        let exponentials = sized(exponentials, shapes.len() * ROWS * row);
        let all = sized(coefficients, rows.len() * row);
        for (first, out) in rows.clone().step_by(ROWS).zip(all.chunks_mut(ROWS * row)) {
            let some = first..rows.end.min(first + ROWS);
            let tile = &tile[(first - rows.start) * stride..];
            let (all, apart) = ((some.clone(), 0..row), ROWS * row);
            self.exponentials(group, shapes, all, (tile, stride), (false, None), exponentials, apart);
            let mut totals = [0.0; ROWS];
            for (r, a) in exponentials.chunks_exact_mut(ROWS * row).enumerate() {
                let sums = self.affinities(group, shapes, (some.clone(), 0..row), r, (tile, stride), a);
                let (sums, negative, positive) = (&sums[..some.len()], &group.negative, &group.positive);
                let (factor, first) = (factors[r], r == 0);
                tile::add_coefficients(self.isa, a, sums, factor, negative, positive, first, out, &mut totals);
            }
            close(out, row, some, totals);
        }
    }

    /// `sum_j C_j (y_j - x)` for the coefficients [R or 1, rows, row] in the scratch, written to `place`, or where there
    /// is none handed on by `sink(stacked row, k, values)`; returns each stacked row's squares.
    #[allow(clippy::too_many_arguments)]
    fn contract<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        scratch: &mut Scratch,
        mut place: Option<Place<'_>>,
        mut sink: impl FnMut(usize, usize, &[f32]),
    ) -> Vec<f64> {
        let (t, dim, row) = (self.shape.targets(), self.shape.dim, self.cut.row);
        let Scratch { coefficients, panel, force, .. } = scratch;
        let stacked = coefficients.len() / row;
        let mut squares = vec![0.0; stacked];
        let force = sized(force, stacked * WIDTH);
        let own = sized(panel, if self.cut.whole { 0 } else { WIDTH * t });
        for k in (0..dim).step_by(WIDTH) {
            let width = WIDTH.min(dim - k);
            let count = width.div_ceil(LANES);
            if !self.cut.whole && width < WIDTH {
                self.fill_columns(inputs, b, &group.center, k, &mut own[..count * LANES * t]);
            }
            // What is narrower than the panels does not fit into its place.
            let (out, height, out_stride, next) = match &mut place {
                Some(place) if width == WIDTH => (&mut place.out[k..], place.height, place.stride, place.next),
                _ => (&mut *force, stacked, WIDTH, 0),
            };
            for (r, a) in coefficients.chunks_exact(height * row).enumerate() {
                let (a, out) = (ByRows { a, stride: row }, &mut out[r * next..]);
                if r == 0 && !self.cut.whole && width == WIDTH {
                    let offset = group.center[k..].first_chunk().expect("as many coordinates are left");
                    let (m, targets, at, panels) = (height, inputs.targets(b), k, &mut *own);
                    let product = TargetsProduct { m, a, targets, at, offset, panels, out, out_stride };
                    let mut ahead = Ahead::new(inputs, b, k + WIDTH, WIDTH);
                    product.run(self.isa, &mut || ahead.some());
                } else {
                    let panels = if self.cut.whole { &group.points[k * t..] } else { &*own };
                    let panels = (panels, t * LANES, t, count);
                    panels_product(self.isa, height, a, panels, (out, out_stride, LANES), false);
                }
            }
            for (squares, r) in squares.chunks_exact_mut(height).zip(0..) {
                tile::add_squares(self.isa, &out[r * next..], out_stride, width, squares);
            }
            let all = force.chunks_exact(WIDTH).enumerate();
            match &mut place {
                Some(_) if width == WIDTH => {}
                Some(place) => all.for_each(|(at, force)| place.row(at)[k..][..width].copy_from_slice(&force[..width])),
                None => all.for_each(|(at, force)| sink(at, k, &force[..width])),
            }
        }
        squares
    }

    /// The force of each temperature in raw coordinates, of masked distances, handed on by `sink(r, i, k, values)`
    /// with i counted from the tile's first row; returns `sum_id F_id²`, `[R]`.
    #[allow(clippy::too_many_arguments)]
    fn tile_forces<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        shapes: &[Shape],
        rows: Range<usize>,
        tile: (&[f32], usize),
        ready: bool,
        scratch: &mut Scratch,
        mut sink: impl FnMut(usize, usize, usize, &[f32]),
    ) -> Vec<f64> {
        let mut squares = vec![0.0; shapes.len()];
        let (height, dim) = (rows.len(), self.shape.dim);
        if self.cut.low_dim {
            for first in rows.clone().step_by(ROWS) {
                let some = first..rows.end.min(first + ROWS);
                let at = first - rows.start;
                let forces = self.low_dim_forces(group, shapes, some, scratch);
                for (n, forces) in forces.chunks_exact(shapes.len() * dim).enumerate() {
                    for (r, force) in forces.chunks_exact(dim).enumerate() {
                        let sum = force.iter().map(|f| f64::from(*f) * f64::from(*f)).sum();
                        squares[r] = add(&self.spec, squares[r], sum);
                        sink(r, at + n, 0, force);
                    }
                }
            }
            return squares;
        }
        self.tile_coefficients(group, shapes, rows.clone(), tile, ready, scratch);
        let of_rows = self.contract(inputs, b, group, scratch, None, |at, k, force| {
            sink(at / height, at % height, k, force);
        });
        for (r, of_rows) in of_rows.chunks_exact(height).enumerate() {
            squares[r] = of_rows.iter().fold(squares[r], |sum, square| add(&self.spec, sum, *square));
        }
        squares
    }

    /// The squares of [`Plan::tile_forces`]; `ready` as in [`Plan::tile_coefficients`]. With `keep` the forces take the place of the distances: row i of the tile
    /// becomes [R, D].
    #[allow(clippy::too_many_arguments)]
    pub(super) fn tile_squares<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        shapes: &[Shape],
        rows: Range<usize>,
        (tile, stride): (&mut [f32], usize),
        (keep, ready): (bool, bool),
        scratch: &mut Scratch,
    ) -> Vec<f64> {
        if !keep {
            return self.tile_forces(inputs, b, group, shapes, rows, (&*tile, stride), ready, scratch, |_, _, _, _| {});
        }
        let dim = self.shape.dim;
        if self.cut.low_dim {
            return self.tile_forces(inputs, b, group, shapes, rows, (&[], 0), ready, scratch, |r, at, _, force| {
                tile[at * stride + r * dim..][..dim].copy_from_slice(force);
            });
        }
        // Here the coefficients of all rows exist before the first force does.
        self.tile_coefficients(group, shapes, rows.clone(), (&*tile, stride), ready, scratch);
        let height = rows.len();
        let place = Place { out: tile, height, stride, next: dim };
        let of_rows = self.contract(inputs, b, group, scratch, Some(place), |_, _, _| {});
        let fold = |of_rows: &[f64]| of_rows.iter().fold(0.0, |sum, square| add(&self.spec, sum, *square));
        of_rows.chunks_exact(height).map(fold).collect()
    }

    /// `sum_id F_id²` of each temperature of a small group by the zero-sum identity: `tr C (Y Y^T) C^T` with the Gram
    /// matrix of its centred targets (spec 2.3). `None` where so much cancels that the force itself must be formed.
    pub(super) fn identity_squares(
        &self,
        group: &Group,
        shapes: &[Shape],
        tile: (&[f32], usize),
        gram: &[f32],
        scratch: &mut Scratch,
    ) -> Option<Vec<f64>> {
        /// Below this share of sum_j C_ij² |y_j|², which it would be for independent y_j, the rounding errors of the
        /// identity outgrow those of the force.
        const LEAST_SHARE: f64 = 0.25;
        let (g, t, row) = (self.shape.generated, self.shape.targets(), self.cut.row);
        self.tile_coefficients(group, shapes, 0..g, tile, true, scratch);
        let Scratch { coefficients, force, .. } = scratch;
        let stacked = shapes.len() * g;
        let force = sized(force, stacked * WIDTH);
        let (a, mut sums) = (ByRows { a: &coefficients[..], stride: row }, vec![[0.0f64; 2]; shapes.len()]);
        for first in (0..row / LANES).step_by(TOGETHER) {
            // Products above the diagonal block stand for those below it too, so that half of the block is right. What
            // the panels have in common first, then what the second has below the first.
            let panels = first..(first + TOGETHER).min(row / LANES);
            let common = self.gram_panel(t, first);
            let (depth, next) = (common.len() / LANES, common.len());
            let to = (&mut force[..], WIDTH, LANES);
            panels_product(self.isa, stacked, a, (&gram[common.start..], next, depth, panels.len()), to, false);
            for p in panels.clone().skip(1) {
                let own = self.gram_panel(t, p);
                let (a, below) = (a.from(depth), &gram[own.start + next..own.end]);
                let to = (&mut force[(p - first) * LANES..], WIDTH, 0);
                panels_product(self.isa, stacked, a, (below, 0, below.len() / LANES, 1), to, true);
            }
            for p in panels {
                let (k, norms) = (p * LANES, &group.norms[p * LANES..]);
                for (r, sums) in sums.iter_mut().enumerate() {
                    let c = (&coefficients[r * g * row + k..], row);
                    let force = (&force[r * g * WIDTH + (p - first) * LANES..], WIDTH);
                    let part = tile::quadratic_form(self.isa, g, c, force, norms);
                    for (sum, part) in sums.iter_mut().zip(part) {
                        *sum = add(&self.spec, *sum, part);
                    }
                }
            }
        }
        // A NaN goes on.
        let cancels = sums.iter().any(|[sum, independent]| 2.0 * sum < LEAST_SHARE * independent);
        (!cancels).then(|| sums.iter().map(|[sum, _]| 2.0 * sum).collect())
    }

    /// Phase C without kept forces: writes the tile's force [rows, D] in units of scaled coordinates, and returns the
    /// sum of its squares, of masked distances.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn tile_force<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        shapes: &[Shape],
        factors: &[f32],
        rows: Range<usize>,
        tile: (&[f32], usize),
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> f64 {
        let dim = self.shape.dim;
        if self.cut.identity {
            // One contraction of all temperatures together.
            let height = rows.len();
            self.tile_combined(group, shapes, factors, rows, tile, scratch);
            let place = Place { out, height, stride: dim, next: 0 };
            let of_rows = self.contract(inputs, b, group, scratch, Some(place), |_, _, _| {});
            return of_rows.iter().sum();
        }
        out.fill(0.0);
        self.tile_forces(inputs, b, group, shapes, rows, tile, false, scratch, |r, at, k, force| {
            for (out, f) in out[at * dim + k..].iter_mut().zip(force) {
                *out += factors[r] * f;
            }
        });
        out.chunks_exact(dim).map(|f| tile::sum_of_squares(self.isa, f)).sum()
    }

    /// Phase C with kept forces, rows of [R, D]: as [`Plan::tile_force`], with the same bits.
    pub(super) fn kept_force(&self, factors: &[f32], kept: &[f32], out: &mut [f32]) -> f64 {
        let dim = self.shape.dim;
        let mut squares = 0.0;
        for (out, forces) in out.chunks_exact_mut(dim).zip(kept.chunks_exact(self.stride)) {
            out.fill(0.0);
            for (factor, force) in factors.iter().zip(forces.chunks_exact(dim)) {
                for (out, f) in out.iter_mut().zip(force) {
                    *out += factor * f;
                }
            }
            squares += tile::sum_of_squares(self.isa, out);
        }
        squares
    }
}

/// sum_j C_ij, the `totals` of some rows of `c`, vanishes but for rounding. Taking the rest out of each query's own
/// coefficient, which stands by y_i - x_i = 0, makes the result independent of where the origin is.
fn close(c: &mut [f32], row: usize, queries: Range<usize>, totals: [f64; ROWS]) {
    for ((c, i), total) in c.chunks_exact_mut(row).zip(queries).zip(totals) {
        c[i] = (f64::from(c[i]) - total) as f32;
    }
}
