//! Phase A: distances of one group, their sum and their minima.

use super::Plan;
use super::gemm::{Block, ByPanels, ByRows, DEPTH, Left, Lines, TOGETHER, pack_rows, pack_targets, panels_product};
use super::group::{Ahead, Group, Minima, Scratch, optional_chunks, sized, with_scratch};
use super::isa::LANES;
use super::sums::add;
use super::tile::{self, FAR};
use crate::{DriftInputs, Element, FeatureScale};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;

impl Plan {
    /// A small group's minima; in high dimension its distances into `tile`, before the self mask, and the products of its
    /// centred targets with the first `height` of them into `gram`; returns the share of `sum_ij d_ij w_j`.
    pub(super) fn small_distances<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &mut Group,
        (tile, stride): (&mut [f32], usize),
        (gram, height): (&mut [f32], usize),
        scratch: &mut Scratch,
    ) -> f64 {
        let (row, rows) = (self.cut.row, 0..self.shape.generated);
        let mut minima = std::mem::take(&mut group.before);
        minima.clear(row);
        let sum = if self.cut.low_dim {
            self.low_dim_sum(group, rows, &mut scratch.tile, &mut minima)
        } else {
            self.gram(inputs, b, group, (gram, height), scratch);
            let panels: Vec<_> = (0..row / LANES).map(|p| self.gram_panel(height, p)).collect();
            tile::spread_gram(self.isa, gram, &panels, &mut tile[..rows.len() * stride], stride);
            self.finish_rows(inputs, b, group, rows, (tile, stride), &mut minima)
        };
        group.before = minima;
        sum
    }

    /// Where the p-th panel of a small group's Gram matrix lies: the products of the first `height` targets, as far as
    /// they are on or above the diagonal block, with the targets of a lane block, [rows, LANES].
    pub(super) fn gram_panel(&self, height: usize, p: usize) -> Range<usize> {
        let whole = p.min(height / LANES);
        let start = LANES * LANES * whole * (whole + 1) / 2 + (p - whole) * height * LANES;
        start..start + height.min((p + 1) * LANES) * LANES
    }

    /// The length of all panels.
    pub(super) fn gram_len(&self, height: usize) -> usize {
        if self.cut.low_dim { 0 } else { self.gram_panel(height, self.cut.row / LANES - 1).end }
    }

    /// The Gram matrix of a small group's centred targets, and their squared norms.
    fn gram<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &mut Group,
        (gram, height): (&mut [f32], usize),
        scratch: &mut Scratch,
    ) {
        let (dim, row) = (self.shape.dim, self.cut.row);
        let panel = &mut scratch.panel;
        let mut norms = std::mem::take(&mut group.norms);
        sized(&mut norms, row).fill(0.0);
        if dim <= self.cut.chunk {
            self.gram_part(inputs, b, group, 0..dim, (gram, height), &mut norms, panel);
        } else {
            // Few groups of many coordinates: threads share the coordinates.
            let len = gram.len();
            let parts: Vec<(Vec<f32>, Vec<f32>)> = (0..dim.div_ceil(self.cut.chunk))
                .into_par_iter()
                .map(|at| {
                    let (mut gram, mut norms) = (vec![0.0; len], vec![0.0; row]);
                    let k = at * self.cut.chunk..dim.min((at + 1) * self.cut.chunk);
                    let part = (&mut gram[..], height);
                    self.gram_part(inputs, b, group, k, part, &mut norms, &mut Vec::new());
                    (gram, norms)
                })
                .collect();
            gram.fill(0.0);
            for (part, part_norms) in parts {
                gram.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
                norms.iter_mut().zip(part_norms).for_each(|(sum, part)| *sum += part);
            }
        }
        group.norms = norms;
    }

    /// The share of the coordinates `k` in [`Plan::gram`].
    #[allow(clippy::too_many_arguments)]
    fn gram_part<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        k: Range<usize>,
        (gram, height): (&mut [f32], usize),
        norms: &mut [f32],
        panel: &mut Vec<f32>,
    ) {
        let (t, row) = (self.shape.targets(), self.cut.row);
        for start in k.clone().step_by(DEPTH) {
            let part = start..k.end.min(start + DEPTH);
            let depth = part.len();
            let next = depth * LANES;
            let panels = sized(panel, row / LANES * next);
            let (targets, center) = (inputs.targets(b), &group.center[part]);
            let norms = norms.as_chunks_mut::<LANES>().0;
            for (p, (panel, norms)) in panels.chunks_exact_mut(next).zip(norms).enumerate() {
                let first = p * LANES;
                pack_targets(self.isa, targets, first, LANES.min(t - first), start, center, panel, norms);
            }
            let all = ByPanels { panels, next, row: 0 };
            let mut ahead = Ahead::new(inputs, b, start + depth, DEPTH);
            for first in (0..row / LANES).step_by(TOGETHER) {
                let count = TOGETHER.min(row / LANES - first);
                let panels = &panels[first * next..];
                // The first of them ends highest; what the others have below goes panel by panel.
                let range = self.gram_panel(height, first);
                let (out_stride, out_next, add) = (LANES, range.len(), start > k.start);
                let m = range.len() / LANES;
                let out = &mut gram[range.start..];
                let block = Block { m, a: all, panels, next, depth, add, out, out_stride, out_next };
                block.run(self.isa, count, &mut || ahead.some());
                for p in first + 1..first + count {
                    let own = self.gram_panel(height, p);
                    let (a, panels) = (all.skip(m), &panels[(p - first) * next..]);
                    let (m, out) = (own.len() / LANES - m, &mut gram[own.start + m * LANES..]);
                    let block = Block { m, a, panels, next, depth, add, out, out_stride, out_next };
                    block.run(self.isa, 1, &mut || Lines::NONE);
                }
            }
        }
    }

    /// The minima of a small group's kept distances.
    pub(super) fn small_minima(&self, group: &mut Group, (tile, stride): (&mut [f32], usize)) {
        let row = self.cut.row;
        let mut minima = std::mem::take(&mut group.before);
        minima.clear(row);
        for (i, tile) in tile.chunks_exact_mut(stride).enumerate() {
            let tile = &mut tile[..row];
            let own = std::mem::replace(&mut tile[i], FAR);
            minima.diagonal.push(own);
            minima.row.push(tile::minima(self.isa, tile, &group.row_weight, &mut minima.col));
            tile[i] = own;
        }
        group.before = minima;
    }

    /// A big group's distances, where they are kept, its minima, and its share of `sum_ij d_ij w_j`.
    pub(super) fn big_distances<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &mut Group,
        kept: Option<&mut [f32]>,
        scratch: &Mutex<Vec<Scratch>>,
    ) -> f64 {
        let stripes = self.stripes();
        let kept = optional_chunks(kept.unwrap_or_default(), self.cut.stripe_rows * self.stride, stripes.len());
        let state = &*group;
        let parts: Vec<(f64, Minima)> = stripes
            .into_par_iter()
            .zip(kept)
            .map(|(stripe, mut kept)| {
                with_scratch(scratch, |scratch| {
                    let mut sum = 0.0;
                    let mut minima = Minima::default();
                    minima.clear(self.cut.row);
                    for rows in self.tiles(stripe) {
                        let part = self.with_tile(rows.clone(), &mut kept, scratch, |tile, scratch| {
                            self.tile_distances(inputs, b, state, rows, tile, scratch, &mut minima)
                        });
                        sum = add(&self.spec, sum, part);
                    }
                    (sum, minima)
                })
            })
            .collect();
        let mut all = std::mem::take(&mut group.before);
        all.clear(self.cut.row);
        let mut sum = 0.0;
        for (part, minima) in parts {
            sum = add(&self.spec, sum, part);
            all.join(&minima);
        }
        group.before = all;
        sum
    }

    /// Distances of the queries `rows` of a big group to all targets, before the self mask, into `tile` in high dimension;
    /// their minima; returns their share of `sum_ij d_ij w_j`.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn tile_distances<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        rows: Range<usize>,
        (tile, stride): (&mut [f32], usize),
        scratch: &mut Scratch,
        minima: &mut Minima,
    ) -> f64 {
        let (t, dim) = (self.shape.targets(), self.shape.dim);
        if self.cut.low_dim {
            return self.low_dim_sum(group, rows, &mut scratch.tile, minima);
        }
        let Scratch { rows: queries, panel, gram: targets, .. } = scratch;
        if group.transposed {
            let queries = self.centered(inputs, b, group, rows.clone(), 0..dim, queries, &mut []);
            for (at, panels) in group.points.chunks(TOGETHER * dim * LANES).enumerate() {
                let panels = (panels, dim * LANES, dim, panels.len() / (dim * LANES));
                let out = (&mut tile[at * TOGETHER * LANES..], stride, LANES);
                let queries = ByRows { a: queries, stride: dim };
                panels_product(self.isa, rows.len(), queries, panels, out, false);
            }
        } else {
            for start in (0..dim).step_by(DEPTH) {
                let k = start..dim.min(start + DEPTH);
                let depth = k.len();
                let queries = self.centered(inputs, b, group, rows.clone(), k.clone(), queries, &mut []);
                let panel = sized(panel, depth * LANES);
                for j in (0..t).step_by(LANES) {
                    let j = j..t.min(j + LANES);
                    let points = self.centered(inputs, b, group, j.clone(), k.clone(), targets, &mut []);
                    pack_rows(self.isa, j.len(), points, depth, depth, panel);
                    let (m, add, out) = (rows.len(), start > 0, &mut tile[j.start..]);
                    let block = Block {
                        m,
                        a: ByRows { a: queries, stride: depth },
                        panels: panel,
                        next: 0,
                        depth,
                        add,
                        out,
                        out_stride: stride,
                        out_next: 0,
                    };
                    block.run(self.isa, 1, &mut || Lines::NONE);
                }
            }
        }
        self.finish_rows(inputs, b, group, rows, (&mut tile[..], stride), minima)
    }

    /// Distances from products, of the queries `rows`, row by row while it is in cache; their minima; returns their share
    /// of `sum_ij d_ij w_j`.
    fn finish_rows<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        group: &Group,
        rows: Range<usize>,
        (tile, stride): (&mut [f32], usize),
        minima: &mut Minima,
    ) -> f64 {
        let (t, row) = (self.shape.targets(), self.cut.row);
        let numerics = self.spec.numerics;
        let near = numerics.near_pairs as f32;
        let floor = self.spec.min_squared_distance as f32;
        let mut total = 0.0;
        for (i, tile) in rows.zip(tile.chunks_exact_mut(stride)) {
            let tile = &mut tile[..row];
            let norm = group.norms[i];
            let product = std::mem::replace(&mut tile[i], f32::MIN);
            let any = tile::gram_row(self.isa, tile, norm, &group.norms, near);
            if any && near > 0.0 {
                for j in 0..t {
                    if tile[j] < near * (norm + group.norms[j]) {
                        tile[j] = tile::squared_distance(self.isa, inputs.target(b, i), inputs.target(b, j));
                    }
                }
            }
            // A point differs from itself by nothing, unless it is not finite.
            let own = if near > 0.0 { 0.0 * norm } else { (norm + norm) - 2.0 * product };
            let own = if numerics.constant_self_distance { 0.0 } else { own };
            let own = (if own < floor { floor } else { own }).sqrt();
            tile[i] = f32::MAX;
            tile[t..].fill(f32::MAX);
            let (mut sum, min) =
                tile::distance_row(self.isa, tile, floor, &group.mean_weight, &group.row_weight, &mut minima.col);
            tile[i] = own;
            minima.diagonal.push(own);
            minima.row.push(min);
            if self.spec.feature_scale != FeatureScale::Paper {
                sum += f64::from(own) * f64::from(group.mean_weight[i]);
            }
            total = add(&self.spec, total, sum);
        }
        total
    }

    /// Hands `work` the kept rows of a stripe that come next, or where none are kept a tile of the scratch, with the
    /// stride of its rows. In low dimension there are no distances: rows are kept for the forces.
    pub(super) fn with_tile<R>(
        &self,
        rows: Range<usize>,
        kept: &mut Option<&mut [f32]>,
        scratch: &mut Scratch,
        work: impl FnOnce((&mut [f32], usize), &mut Scratch) -> R,
    ) -> R {
        if let Some(rest) = kept.take() {
            let (tile, rest) = rest.split_at_mut(rows.len() * self.stride);
            *kept = Some(rest);
            return work((tile, self.stride), scratch);
        }
        if self.cut.low_dim {
            return work((&mut [], 0), scratch);
        }
        let mut tile = std::mem::take(&mut scratch.tile);
        let result = work((sized(&mut tile, rows.len() * self.cut.row), self.cut.row), scratch);
        scratch.tile = tile;
        result
    }
}
