//! Phase B where rows have mass 1: the split form, and entropic plans (spec 7.1, 7.3).
//!
//! There every affinity is a softmax along the row, over all targets or over each block, of the logits plus a potential
//! of the column: `A_ij = softmax_j(log k_ij + c_j)`. The coupling chooses c: log w_j for the row alone, what the
//! column's softmax leaves for both, the column's dual potential for a plan. The row's potential need not be kept.
//!
//! One sweep over the distances is a row projection and gives the column sums of what comes of it, from which the
//! columns' projection follows: one exponential a pair and iteration. Where a column's sum is so small that terms of it
//! underflowed, a second sweep takes it relative to its own largest term.

use super::Plan;
use super::group::{Group, Scratch, sized};
use super::isa::LANES;
use super::tile::{self, ROWS, RowSum, Shape};
use crate::{Convergence, Coupling, DriftInputs, Element, Form, Sinkhorn};
use std::ops::Range;
use std::sync::Mutex;

/// Below this a column's sum of affinities may miss what underflow has taken from it, 1e-25 of each row at most.
const LEAST_MASS: f64 = 1e-15;

/// What a sweep over the distances of one stripe gives.
#[derive(Default)]
pub(super) struct Pass {
    /// Of each row, temperature and block the logarithm of what its exponentials add up to.
    logs: Vec<f64>,
    /// Column sums [R or 1, row], and where they are relative to it the least exponent of each column.
    sums: Vec<f32>,
    least: Vec<f32>,
}

/// What is done with the masked distances of some rows, in low dimension with none.
type Work<'a> = dyn Fn(&Group, &mut Pass, Range<usize>, (&[f32], usize), &mut Scratch) + Sync + 'a;

impl Plan {
    /// The columns' potentials of a small group, whose distances are masked.
    pub(super) fn couple_small(
        &self,
        group: &mut Group,
        shapes: &[Shape],
        tile: (&[f32], usize),
        scratch: &mut Scratch,
    ) {
        self.couple(group, shapes, |group, work| {
            let mut pass = Pass::default();
            work(group, &mut pass, 0..self.shape.generated, tile, scratch);
            vec![pass]
        });
    }

    /// The columns' potentials of a big group; masks its kept distances.
    pub(super) fn couple_big<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &mut Group,
        shapes: &[Shape],
        mut kept: Option<&mut [f32]>,
        scratch: &Mutex<Vec<Scratch>>,
    ) {
        self.couple(group, shapes, |state, work| {
            let group = &*state;
            let sweep = |pass: &mut Pass, rows: Range<usize>, tile: (&mut [f32], usize), scratch: &mut Scratch| {
                work(group, pass, rows, (&*tile.0, tile.1), scratch);
            };
            let passes = self.over_stripes(inputs, b, group, kept.as_deref_mut(), scratch, sweep);
            state.kept_masked = true;
            passes
        });
    }

    /// The columns' potentials; `sweep` shows the work all distances and returns each stripe's pass.
    fn couple(&self, group: &mut Group, shapes: &[Shape], mut sweep: impl FnMut(&mut Group, &Work<'_>) -> Vec<Pass>) {
        let row = self.cut.row;
        group.guess.clear();
        group.convergence.clear();
        group.convergence.resize(shapes.len(), Convergence::default());
        // What is not there has no weight in any rule.
        let weights: Vec<f32> = group.row_weight.iter().zip(&group.factor).map(|(a, b)| a * b).collect();
        let there = |w: &f32| *w > 0.0;
        let first = weights.iter().position(there).unwrap_or(0) / LANES * LANES;
        let end = weights.iter().rposition(there).map_or(first, |last| (last + 1).next_multiple_of(LANES));
        group.live = first..end;
        let potential = |w: f32, there: f32| if w > 0.0 { there } else { f32::NEG_INFINITY };
        match self.spec.coupling {
            Coupling::Row => {
                let alone: Vec<f32> = weights.iter().map(|w| w.ln()).collect();
                group.potential = alone.repeat(shapes.len());
            }
            // A = w K / sqrt(Z_row Z_col), of which the row's sum goes out; with weights in the logits Z_col has w too.
            Coupling::RowColumn => {
                let logs = std::mem::take(&mut group.col_log);
                let of = |(k, log): (usize, &f32)| {
                    let w = weights[k % row];
                    potential(w, if *log == f32::NEG_INFINITY { 0.0 } else { w.ln() - 0.5 * log })
                };
                group.potential = logs.iter().enumerate().map(of).collect();
                group.col_log = logs;
            }
            Coupling::Sinkhorn(sinkhorn) => {
                let start: Vec<f32> = weights.iter().map(|w| potential(*w, 0.0)).collect();
                group.potential = start.repeat(shapes.len());
                self.plan_potentials(sinkhorn, &weights, group, shapes, &mut sweep);
            }
        }
    }

    /// The dual potentials of the columns.
    fn plan_potentials(
        &self,
        Sinkhorn { iterations, tolerance }: Sinkhorn,
        weights: &[f32],
        group: &mut Group,
        shapes: &[Shape],
        sweep: &mut impl FnMut(&mut Group, &Work<'_>) -> Vec<Pass>,
    ) {
        let (row, queries) = (self.cut.row, self.shape.generated as f64);
        let split = self.second_block();
        let block = |j: usize| usize::from(j >= split);
        let mut mass = [0.0f64; 2];
        for (j, w) in weights.iter().enumerate() {
            mass[block(j)] += f64::from(*w);
        }
        let marginals = weights.iter().enumerate().map(|(j, w)| (queries * f64::from(*w) / mass[block(j)]).ln());
        let marginals: Vec<f64> = marginals.collect();
        // Of each temperature and block.
        let mut going = vec![[true; 2]; shapes.len()];
        let mut before: Vec<f64> = Vec::new();
        for iteration in 0..=iterations {
            let active: Vec<bool> = going.iter().map(|going| going.contains(&true)).collect();
            let passes = sweep(group, &|group, pass, rows, tile, scratch| {
                self.project_rows(group, shapes, &active, rows, tile, scratch, pass);
            });
            let logs: Vec<f64> = passes.iter().flat_map(|pass| pass.logs.iter().copied()).collect();
            group.guess.resize(logs.len(), 0.0);
            for (at, (guess, log)) in group.guess.iter_mut().zip(&logs).enumerate() {
                if active[at / 2 % shapes.len()] {
                    *guess = if log.is_finite() { -log as f32 } else { 0.0 };
                }
            }
            if iteration > 0 {
                let mut errors = vec![[0.0f64; 2]; shapes.len()];
                for (at, (log, before)) in logs.iter().zip(&before).enumerate() {
                    // A row without any pair is not there.
                    if *log != f64::NEG_INFINITY {
                        errors[at / 2 % shapes.len()][at % 2] += (log - before).exp_m1().abs() / queries;
                    }
                }
                for ((going, errors), reached) in going.iter_mut().zip(errors).zip(&mut group.convergence) {
                    for (going, error) in going.iter_mut().zip(errors).filter(|(going, _)| **going) {
                        let near_enough = tolerance > 0.0 && error <= tolerance;
                        *going = iteration < iterations && !near_enough;
                        if !*going {
                            *reached = reached.worst(Convergence { iterations: iteration, error });
                        }
                    }
                }
            }
            if !going.iter().flatten().any(|going| *going) {
                return;
            }
            for (r, going) in going.iter().enumerate().filter(|(_, going)| going.contains(&true)) {
                let sums = column_sums(&passes, r, row);
                let potential = &group.potential[r * row..][..row];
                let small = |(sum, c): (&f64, &f32)| *sum < LEAST_MASS && *c > f32::NEG_INFINITY;
                let log_sums: Vec<f64> = if sums.iter().zip(potential).any(small) {
                    log_column_sums(
                        row,
                        &sweep(group, &|group, pass, rows, tile, scratch| {
                            self.project_columns(group, shapes, r, &logs, rows, tile, &mut scratch.tile, pass);
                        }),
                    )
                } else {
                    sums.iter().map(|sum| sum.ln()).collect()
                };
                for (j, c) in group.potential[r * row..][..row].iter_mut().enumerate() {
                    // Nothing brings a column without any pair to its marginal.
                    if going[block(j)] && *c > f32::NEG_INFINITY && log_sums[j] != f64::NEG_INFINITY {
                        *c = (f64::from(*c) + marginals[j] - log_sums[j]) as f32;
                    }
                }
            }
            before = logs;
        }
    }

    /// A row projection: each row's logarithms, and the column sums of the affinities.
    #[allow(clippy::too_many_arguments)]
    fn project_rows(
        &self,
        group: &Group,
        shapes: &[Shape],
        active: &[bool],
        rows: Range<usize>,
        (tile, stride): (&[f32], usize),
        scratch: &mut Scratch,
        pass: &mut Pass,
    ) {
        let row = self.cut.row;
        sized(&mut pass.sums, shapes.len() * row);
        let live = group.live.clone();
        let split = self.second_block().saturating_sub(live.start);
        let logs = pass.logs.len();
        pass.logs.resize(logs + 2 * rows.len() * shapes.len(), f64::NEG_INFINITY);
        if live.is_empty() {
            return;
        }
        let Scratch { tile: made, exponentials, .. } = scratch;
        let e = sized(exponentials, ROWS * live.len());
        for first in rows.clone().step_by(ROWS) {
            let queries = first..rows.end.min(first + ROWS);
            let tile = (&tile[(first - rows.start) * stride..], stride);
            let (tile, stride) = self.masked_distances(group, (queries.clone(), 0..row), tile, made);
            for (r, shape) in shapes.iter().enumerate().filter(|(r, _)| active[*r]) {
                let potential = &group.potential[r * row..][live.clone()];
                let col_sum = &mut pass.sums[r * row..][live.clone()];
                let mut inverse = [[0.0; 2]; ROWS];
                for (k, (i, e)) in queries.clone().zip(e.chunks_exact_mut(live.len())).enumerate() {
                    let (min, tile) = (group.masked.row[i], &tile[k * stride..][live.clone()]);
                    // At first the nearest target has the least exponent.
                    let guess = self.guess(group, i, r).or(Some([0.0; 2]));
                    let of = tile::coupled(self.isa, *shape, min, tile, potential, split, guess, e);
                    let log = logs + 2 * ((i - rows.start) * shapes.len() + r);
                    pass.logs[log..log + 2].copy_from_slice(&of.map(RowSum::log));
                    inverse[k] = of.map(RowSum::inverse);
                }
                tile::add_affinities(self.isa, e, &inverse[..queries.len()], split, col_sum);
            }
        }
    }

    /// The column sums of the affinities at temperature `r`, relative to the largest of each column.
    #[allow(clippy::too_many_arguments)]
    fn project_columns(
        &self,
        group: &Group,
        shapes: &[Shape],
        r: usize,
        logs: &[f64],
        rows: Range<usize>,
        (tile, stride): (&[f32], usize),
        made: &mut Vec<f32>,
        pass: &mut Pass,
    ) {
        let row = self.cut.row;
        sized(&mut pass.sums, row);
        pass.least.resize(row, tile::FAR);
        for i in rows.clone() {
            let tile = (&tile[(i - rows.start) * stride..], stride);
            let (tile, _) = self.masked_distances(group, (i..i + 1, 0..row), tile, made);
            let at = 2 * (i * shapes.len() + r);
            // Nothing is there in a row without a sum.
            let log = [logs[at], logs[at + 1]].map(|log| if log == f64::NEG_INFINITY { 0.0 } else { log as f32 });
            let potential = &group.potential[r * row..][..row];
            let (min, tile) = (group.masked.row[i], &tile[..row]);
            let columns = (&mut pass.least[..], &mut pass.sums[..]);
            tile::relative_column_sums(self.isa, shapes[r], min, tile, potential, self.second_block(), log, columns);
        }
    }

    /// Where the columns begin whose share of a row has a mass of its own.
    fn second_block(&self) -> usize {
        match self.spec.form {
            Form::Joint => self.cut.row,
            Form::Split => self.shape.generated + self.shape.negatives,
        }
    }

    /// Near the least exponents of a row, of both blocks.
    fn guess(&self, group: &Group, i: usize, r: usize) -> Option<[f32; 2]> {
        group.guess.as_chunks().0.get(i * self.spec.temperatures.len() + r).copied()
    }

    /// The affinities of query `i` at temperature `r`, and S- and S+.
    pub(super) fn coupled_affinity(
        &self,
        group: &Group,
        shape: Shape,
        i: usize,
        r: usize,
        distances: &[f32],
        a: &mut [f32],
    ) -> (f32, f32) {
        let live = group.live.clone();
        a[..live.start].fill(0.0);
        a[live.end..].fill(0.0);
        let (a, distances) = (&mut a[live.clone()], &distances[live.clone()]);
        let potential = &group.potential[r * self.cut.row..][live.clone()];
        let split = self.second_block().saturating_sub(live.start);
        let guess = self.guess(group, i, r);
        let of = tile::coupled(self.isa, shape, group.masked.row[i], distances, potential, split, guess, a);
        let inverse = of.map(RowSum::inverse);
        let sums = tile::normalize(self.isa, a, inverse, split, &group.positive[live]);
        match self.spec.form {
            Form::Joint => sums,
            // Of masses that are 1.
            Form::Split => {
                let both = of[0].sum * of[1].sum;
                let one = if both == 0.0 { 0.0 } else { 1.0 + 0.0 * both };
                (one, one)
            }
        }
    }
}

/// The column sums of temperature `r` over all stripes.
fn column_sums(passes: &[Pass], r: usize, row: usize) -> Vec<f64> {
    let mut sums = vec![0.0f64; row];
    for pass in passes {
        for (sum, part) in sums.iter_mut().zip(&pass.sums[r * row..]) {
            *sum += f64::from(*part);
        }
    }
    sums
}

/// The logarithms of the column sums that [`Plan::project_columns`] left.
fn log_column_sums(row: usize, passes: &[Pass]) -> Vec<f64> {
    let log = |j: usize| {
        let least = passes.iter().fold(f64::INFINITY, |least, pass| least.min(pass.least[j].into()));
        let part = |pass: &Pass| f64::from(pass.sums[j]) * (least - f64::from(pass.least[j])).exp();
        passes.iter().map(part).sum::<f64>().ln() - least
    };
    (0..row).map(log).collect()
}
