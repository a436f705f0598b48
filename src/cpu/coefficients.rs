//! Phase B: partitions, coefficients, and the squared force of each temperature. Phase C uses the same coefficients.

use super::Plan;
use super::cut::LOW_DIM;
use super::distances::query;
use super::gemm::{TargetsProduct, WIDTH, panel_product, panels_product};
use super::group::{Ahead, Group, Scratch, mask, sized, with_scratch};
use super::isa::LANES;
use super::sums::add;
use super::tile::{self, Columns, Floors, Partition, Shape};
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
    /// The exponentials of one row of masked distances at all temperatures, or only those that sums are taken of,
    /// `stride` elements apart.
    #[allow(clippy::too_many_arguments)]
    fn exponentials(
        &self,
        group: &Group,
        shapes: &[Shape],
        i: usize,
        row: &[f32],
        only_joint: bool,
        out: &mut [f32],
        stride: usize,
    ) {
        let min = group.masked.row[i];
        let alone;
        let col_min = match self.spec.coupling {
            Coupling::Row => {
                alone = vec![min; group.masked.col.len()];
                &alone
            }
            Coupling::RowColumn | Coupling::Sinkhorn(_) => &group.masked.col,
        };
        for (r, (shape, out)) in shapes.iter().zip(out.chunks_mut(stride)).enumerate() {
            let wanted = !only_joint || group.joint[r].is_some();
            if shape.power == Some(1) || (shape.power.is_none() && wanted) {
                tile::exponentials(self.isa, *shape, row, min, col_min, &mut out[..row.len()]);
            }
        }
        let Some(base) = shapes.iter().position(|shape| shape.power == Some(1)) else { return };
        for (r, shape) in shapes.iter().enumerate() {
            if let Some(n @ 2..) = shape.power {
                let (low, high) = out.split_at_mut(r.max(base) * stride);
                let (low, high) = (&mut low[r.min(base) * stride..][..row.len()], &mut high[..row.len()]);
                let (from, to) = if base < r { (low, high) } else { (high, low) };
                tile::power(self.isa, n, from, to);
            }
        }
    }

    /// The tile's row partitions [rows, R], appended, and its contribution to the column sums [R, row].
    ///
    /// Leaves the exponentials in `out`: of all rows, [R, rows, row], where it is as long, else of one, [R, row].
    #[allow(clippy::too_many_arguments)]
    fn tile_sums(
        &self,
        group: &Group,
        shapes: &[Shape],
        rows: Range<usize>,
        (tile, stride): (&[f32], usize),
        row_partition: &mut Vec<Partition>,
        col_sum: &mut [f32],
        out: &mut [f32],
    ) {
        let row = self.cut.row;
        let (apart, step) = if out.len() > shapes.len() * row { (rows.len() * row, row) } else { (row, 0) };
        let asked = self.logs_asked();
        let wanted = step > 0 || group.joint.iter().any(Option::is_some);
        for (at, (i, tile)) in rows.zip(tile.chunks_exact(stride)).enumerate() {
            let (tile, min) = (&tile[..row], group.masked.row[i]);
            let out = &mut out[at * step..];
            if wanted {
                self.exponentials(group, shapes, i, tile, step == 0, out, apart);
            }
            for (r, (shape, joint)) in shapes.iter().zip(&group.joint).enumerate() {
                let col_sum = &mut col_sum[r * row..][..row];
                let sum = match joint {
                    Some(joint) => {
                        let (e, scale) = (&out[r * apart..][..row], joint.rows[i]);
                        let sum = tile::joint_sums(self.isa, e, scale, &joint.weighted, col_sum);
                        if scale == 0.0 { 0.0 } else { sum / scale }
                    }
                    None => {
                        let (weight, col_min) = (&group.row_weight, &group.masked.col);
                        tile::kernel_sums(self.isa, *shape, tile, min, weight, col_min, col_sum)
                    }
                };
                row_partition.push(Partition::new(*shape, f64::from(sum), min, asked));
            }
        }
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

    /// All partitions and potentials of a small group, whose distances are masked; leaves the exponentials in place of
    /// coefficients where rows have not mass 1.
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
        let out = sized(&mut scratch.coefficients, shapes.len() * g * row);
        self.tile_sums(group, shapes, 0..g, tile, &mut row_partition, &mut col_sum, out);
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
            let (col_sum, out) = (sized(col_sum, len), sized(&mut scratch.exponentials, len));
            self.tile_sums(state, shapes, rows, (&*tile, stride), row_partition, col_sum, out);
        };
        let (rows, cols): (Vec<_>, Vec<_>) =
            self.over_stripes(inputs, b, state, kept, scratch, sums).into_iter().unzip();
        group.row_partition = rows.concat();
        self.column_partitions(shapes, &cols, group);
    }

    /// Shows `work` the masked distances of a big group, kept or computed afresh, tile by tile; returns what it made of
    /// each stripe, in order.
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

    /// Hands `work` the masked distances of the queries `rows` of a big group, kept or computed afresh.
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

    fn floors(&self) -> Floors {
        match self.spec.affinity_floor {
            AffinityFloor::Product(floor) => {
                Floors { affinity: floor.sqrt() as f32, log_normalizer: f32::NEG_INFINITY }
            }
            AffinityFloor::Normalizer(floor) => Floors { affinity: 0.0, log_normalizer: (floor.ln() / 2.0) as f32 },
            AffinityFloor::None => Floors { affinity: 0.0, log_normalizer: f32::NEG_INFINITY },
        }
    }

    /// The affinities of query `i` at temperature `r`, in place of its exponentials; returns S- and S+.
    fn affinity(
        &self,
        group: &Group,
        shapes: &[Shape],
        i: usize,
        r: usize,
        distances: &[f32],
        e: &mut [f32],
    ) -> (f32, f32) {
        if self.spec.rows_of_mass_one() {
            return self.coupled_affinity(group, shapes[r], i, r, distances, e);
        }
        let row = self.cut.row;
        let partition = group.row_partition[i * shapes.len() + r];
        // The row's own partition in the place of each column's; a weight in the logits then counts in both.
        let alone = (self.spec.coupling == Coupling::Row).then(|| {
            let inv_root = group.row_weight.iter().map(|w| partition.inv_root * w);
            (inv_root.collect::<Vec<_>>(), vec![partition.log; row])
        });
        let (inv_root, log) = match &alone {
            Some((inv_root, log)) => (&inv_root[..row], &log[..]),
            None => (&group.col_inv_root[r * row..][..row], &group.col_log[r * row..][..row]),
        };
        let columns = Columns {
            inv_root,
            log,
            weight: &group.row_weight,
            factor: &group.factor,
            negative: &group.negative,
            positive: &group.positive,
        };
        let (mut s_minus, s_plus) =
            tile::affinity(self.isa, shapes[r], self.floors(), distances, partition, columns, e);
        if self.spec.self_mask == SelfMask::Remove {
            s_minus -= std::mem::take(&mut e[i]);
        }
        (s_minus, s_plus)
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
        for (at, (i, tile)) in rows.zip(tile.chunks_exact(stride)).enumerate() {
            let tile = &tile[..row];
            let out = &mut out[at * row..];
            if !ready && !self.spec.rows_of_mass_one() {
                self.exponentials(group, shapes, i, tile, false, out, apart);
            }
            for r in 0..shapes.len() {
                let c = &mut out[r * apart..][..row];
                let (s_minus, s_plus) = self.affinity(group, shapes, i, r, tile, c);
                let total = tile::coefficients(self.isa, c, s_minus, s_plus, &group.negative, &group.positive);
                close(&mut c[i], total);
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
        let exponentials = sized(exponentials, shapes.len() * row);
        let out = sized(coefficients, rows.len() * row);
        let (negative, positive) = (&group.negative, &group.positive);
        for ((i, tile), out) in rows.zip(tile.chunks_exact(stride)).zip(out.chunks_exact_mut(row)) {
            let tile = &tile[..row];
            self.exponentials(group, shapes, i, tile, false, exponentials, row);
            let mut total = 0.0;
            for (r, a) in exponentials.chunks_exact_mut(row).enumerate() {
                let (minus, plus) = self.affinity(group, shapes, i, r, tile, a);
                let first = r == 0;
                total = tile::add_coefficients(self.isa, a, minus, plus, factors[r], negative, positive, first, out);
            }
            close(&mut out[i], total);
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
                let out = &mut out[r * next..];
                if r == 0 && !self.cut.whole && width == WIDTH {
                    let offset = group.center[k..].first_chunk().expect("as many coordinates are left");
                    let (m, stride, targets, at, panels) = (height, row, inputs.targets(b), k, &mut *own);
                    let product = TargetsProduct { m, a, stride, targets, at, offset, panels, out, out_stride };
                    let mut ahead = Ahead::new(inputs, b, k + WIDTH, WIDTH);
                    product.run(self.isa, &mut || ahead.some());
                } else {
                    let panels = if self.cut.whole { &group.points[k * t..] } else { &*own };
                    panels_product(self.isa, height, (a, row), (panels, t * LANES, t, count), (out, out_stride, LANES));
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
            let row = self.cut.row;
            let split = self.shape.generated + self.shape.negatives;
            let exponentials = sized(&mut scratch.exponentials, shapes.len() * row);
            for (at, (i, tile)) in rows.zip(tile.0.chunks_exact(tile.1)).enumerate() {
                let tile = &tile[..row];
                let (x, dim) = query(group, i, dim, row);
                if !self.spec.rows_of_mass_one() {
                    self.exponentials(group, shapes, i, tile, false, exponentials, row);
                }
                for (r, a) in exponentials.chunks_exact_mut(row).enumerate() {
                    let (s_minus, s_plus) = self.affinity(group, shapes, i, r, tile, a);
                    let mut force = [0.0; LOW_DIM];
                    let (force, x) = (&mut force[..dim], &x[..dim]);
                    tile::low_dim_force(self.isa, a, split, s_minus, s_plus, x, &group.soa, force);
                    let sum = force.iter().map(|f| f64::from(*f) * f64::from(*f)).sum();
                    squares[r] = add(&self.spec, squares[r], sum);
                    sink(r, at, 0, force);
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
            // A row's distances are still needed at the other temperatures.
            let mut forces = vec![0.0; rows.len() * shapes.len() * dim];
            let squares =
                self.tile_forces(inputs, b, group, shapes, rows, (&*tile, stride), ready, scratch, |r, at, _, f| {
                    forces[(at * shapes.len() + r) * dim..][..dim].copy_from_slice(f);
                });
            for (tile, forces) in tile.chunks_exact_mut(stride).zip(forces.chunks_exact(shapes.len() * dim)) {
                tile[..forces.len()].copy_from_slice(forces);
            }
            return squares;
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
        let (mut sums, mut squares) = (vec![0.0f64; stacked], vec![0.0f64; stacked]);
        let force = sized(force, stacked * LANES);
        for k in (0..row).step_by(LANES) {
            // Products above the diagonal block stand for those below it too, so that half of the block is right.
            let panel = self.gram_panel(t, k / LANES);
            panel_product(self.isa, stacked, (coefficients, row), &gram[panel], (force, LANES));
            let norms = &group.norms[k..];
            tile::quadratic_form(self.isa, &coefficients[k..], row, force, norms, &mut sums, &mut squares);
        }
        let total = |v: &[f64]| v.iter().fold(0.0, |sum, v| add(&self.spec, sum, *v));
        let mut result = Vec::with_capacity(shapes.len());
        for (sums, squares) in sums.chunks_exact(g).zip(squares.chunks_exact(g)) {
            let (sum, independent) = (total(sums), total(squares));
            if 2.0 * sum < LEAST_SHARE * independent {
                return None;
            }
            result.push(2.0 * sum);
        }
        Some(result)
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
            self.tile_combined(group, shapes, factors, rows, tile, scratch);
            let place = Place { out, height: tile.0.len() / tile.1, stride: dim, next: 0 };
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

/// sum_j C_ij vanishes but for rounding. Taking the rest out of the query's own coefficient, which stands by
/// y_i - x_i = 0, makes the result independent of where the origin is.
fn close(own: &mut f32, total: f64) {
    *own = (f64::from(*own) - total) as f32;
}
