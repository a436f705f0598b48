//! The three phases of one drift call on the CPU.

use super::cut::{Cut, MAX_STRIPES};
use super::gemm::DEPTH;
use super::group::{Group, Scratch, mask, optional_chunks, sized, with_scratch};
use super::isa::{Isa, LANES};
use super::sums::{ForceNorms, ForceSums, ScaleSums, add};
use super::tile::{ROWS, Shape};
use crate::{Convergence, DriftInputs, DriftShape, DriftSpec, Element, Error, FeatureScale, Result, Scale};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;

/// What a workspace keeps between phases unless told otherwise, in bytes: this much, or as much as the samples are as
/// f32.
const KEPT_BYTES: usize = 256 << 20;

/// A fixed order of work for one spec and one shape. Owns no data.
///
/// A plan is made for the groups of one call, or of one chunk of it; what is global comes in through [`Scale`] and
/// [`ForceNorms`].
///
/// ```
/// # fn main() -> Result<(), cudrift::Error> {
/// use cudrift::{DriftInputs, DriftSpec, Points, cpu::Plan};
/// let generated: Vec<f32> = (0..2 * 3 * 2).map(|k| (k as f32).sin()).collect();
/// let positives: Vec<f32> = (0..2 * 4 * 2).map(|k| (k as f32).cos()).collect();
/// let whole = DriftInputs::new(Points::new(&generated, [2, 3, 2])?, Points::new(&positives, [2, 4, 2])?)?;
///
/// // Two workers with one group each; their partial sums meet before each global scalar.
/// let spec = DriftSpec::official();
/// let mut workers = Vec::new();
/// for b in 0..2 {
///     let inputs = whole.groups(b..b + 1)?;
///     let plan = Plan::new(&spec, inputs.shape())?;
///     let workspace = plan.workspace();
///     workers.push((plan, inputs, workspace));
/// }
/// let mut sums = Vec::new();
/// for (plan, inputs, workspace) in &mut workers {
///     sums.push(plan.distances(inputs, workspace)?);
/// }
/// let scale = sums.into_iter().reduce(|a, b| a.merge(b)).unwrap().finish(&spec)?;
/// let mut sums = Vec::new();
/// for (plan, inputs, workspace) in &mut workers {
///     sums.push(plan.coefficients(inputs, &scale, workspace)?);
/// }
/// let norms = sums.into_iter().reduce(|a, b| a.merge(b)).unwrap().finish(&spec, &scale);
/// for (plan, inputs, workspace) in &mut workers {
///     let (mut force, mut loss) = ([0.0; 3 * 2], [0.0; 1]);
///     plan.contraction(inputs, &scale, &norms, workspace, &mut force, &mut loss)?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) spec: DriftSpec,
    pub(super) shape: DriftShape,
    pub(super) cut: Cut,
    pub(super) isa: Isa,
    /// Elements from one kept row to the next. Forces take the place of distances, of which R · D may be more than T; in
    /// low dimension they are all that is kept.
    pub(super) stride: usize,
    /// Groups that the workspace keeps something of between phases.
    kept: usize,
}

/// Buffers of one worker: scratch tiles, and what phases hand to the next. Made by [`Plan::workspace`].
#[derive(Debug)]
pub struct Workspace {
    shape: DriftShape,
    spec: DriftSpec,
    /// How many groups the plan keeps something of.
    kept_groups: usize,
    stage: Stage,
    /// The bits of the scale that phase B was given.
    scale: [u64; 3],
    /// Of each of the first groups: distances, which become forces, [G, stride], in low dimension forces alone; the origin
    /// `[D]` and the norms `[row]` of a small group in high dimension, and its Gram matrix and partitions where force norms
    /// come from it.
    kept: Vec<f32>,
    /// The state of each big group; empty for small groups, whose task computes it afresh.
    groups: Vec<Group>,
    scratch: Mutex<Vec<Scratch>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Fresh,
    Distances,
    Coefficients,
}

impl Plan {
    /// The work of `spec` on samples of `shape`.
    ///
    /// # Errors
    /// What [`DriftSpec::validate`] and [`DriftShape::validate`] refuse.
    pub fn new(spec: &DriftSpec, shape: DriftShape) -> Result<Self> {
        spec.validate()?;
        shape.validate()?;
        let temperatures = spec.temperatures.len();
        let mut cut = Cut::new(&shape, temperatures);
        // What is kept for the identity does not hold potentials.
        cut.identity &= !spec.rows_of_mass_one();
        let forces = temperatures.saturating_mul(shape.dim);
        let stride = match cut {
            Cut { identity: true, .. } => cut.row,
            Cut { low_dim: true, .. } => forces,
            _ => cut.row.max(forces),
        };
        let plan = Self { spec: spec.clone(), shape, cut, isa: Isa::detect(), stride, kept: 0 };
        let samples = [shape.groups, shape.targets(), shape.dim, size_of::<f32>()];
        let samples = samples.into_iter().fold(1usize, usize::saturating_mul);
        Ok(plan.keep(KEPT_BYTES.max(samples)))
    }

    /// Keeps results of one phase for the next, for as many groups as fit into `bytes`, and computes them again for the
    /// others. It changes the time and the memory, never the result. Unless set, 256 MiB, or what the samples take as
    /// f32 where that is more.
    ///
    /// With 0 the plan is lean: beyond a few rows of T and D elements per thread it needs no memory that grows with the
    /// problem, and takes up to three times as long.
    #[must_use]
    pub fn keep(mut self, bytes: usize) -> Self {
        self.kept = (bytes / self.record().saturating_mul(size_of::<f32>())).min(self.shape.groups);
        let points = self.shape.targets().saturating_mul(self.shape.dim).saturating_mul(size_of::<f32>());
        self.cut.whole = Cut::new(&self.shape, self.spec.temperatures.len()).whole && points <= bytes;
        self
    }

    /// Elements that the workspace keeps of a group.
    fn record(&self) -> usize {
        let gram = if self.cut.identity { self.gram_len(self.shape.targets()) } else { 0 };
        let distances = self.shape.generated.saturating_mul(self.stride);
        distances.saturating_add(self.location()).saturating_add(gram + self.partitions())
    }

    /// Elements of minima and partitions in the record of a small group, where phase C computes coefficients again.
    fn partitions(&self) -> usize {
        if self.cut.identity {
            Group::partitions_len(&self.shape, self.cut.row, self.spec.temperatures.len())
        } else {
            0
        }
    }

    /// Elements of mean and norms in the record of a small group.
    fn location(&self) -> usize {
        if self.cut.small && !self.cut.low_dim { self.shape.dim + self.cut.row } else { 0 }
    }

    /// What a workspace of this plan comes to hold, in bytes: what is kept between phases, states of big groups, and a
    /// scratch for each thread of rayon's current pool.
    pub fn workspace_bytes(&self) -> usize {
        // A plan can be made for any shape, so this must not overflow.
        let wide = |n: usize| n as u128;
        let [groups, generated, targets, dim] =
            [self.shape.groups, self.shape.generated, self.shape.targets(), self.shape.dim].map(wide);
        let [row, rows, lanes, depth] = [self.cut.row, self.cut.rows, LANES, DEPTH.min(self.shape.dim)].map(wide);
        let r = wide(self.spec.temperatures.len());
        let threads = wide(rayon::current_num_threads());
        // points, minima, diagonals, weights, scales and partitions of a group
        let coordinates = if self.cut.low_dim { dim * row } else { dim + row };
        let group = coordinates + 9 * row + 5 * generated + r * (3 * generated + 5 * row);
        let points = if self.cut.whole { (targets.max(row) * dim).next_multiple_of(lanes) } else { 0 };
        let chunks = wide(self.shape.dim.div_ceil(self.cut.chunk));
        let products = match (self.cut.low_dim, self.cut.small) {
            (true, _) => 0,
            // gram (and its parts), panels, coefficients, force
            (false, true) => {
                let gram =
                    wide(self.gram_len(if self.cut.identity { self.shape.targets() } else { self.shape.generated }));
                let parts = if chunks > 1 { chunks * (gram + row) + chunks.min(threads) * row * depth } else { 0 };
                gram + parts + row * depth + 2 * targets * lanes + r * generated * (row + 2 * lanes)
            }
            (false, false) => {
                let queries = if self.cut.whole { rows * dim } else { rows * depth };
                queries + lanes * depth + (2 * targets + depth) * lanes + r * rows * (row + 2 * lanes)
            }
        };
        let columns = if self.cut.identity || self.spec.rows_of_mass_one() { row } else { wide(self.some_width()) };
        let tile = match self.cut.low_dim {
            true => wide(ROWS) * columns,
            false if self.kept == self.shape.groups => 0,
            false => rows * row,
        };
        let exponentials = r * wide(ROWS) * columns;
        let scratch = group + tile + exponentials + products;
        let states = if self.cut.small { 0 } else { groups * (group + points + 2 * wide(MAX_STRIPES) * r * row) };
        let kept = wide(self.kept) * wide(self.record());
        let elements = kept + states + threads.min(groups * generated) * scratch;
        usize::try_from(elements * wide(size_of::<f32>())).unwrap_or(usize::MAX)
    }

    /// Buffers for this plan; they can serve any number of calls, one at a time.
    pub fn workspace(&self) -> Workspace {
        Workspace {
            shape: self.shape,
            spec: self.spec.clone(),
            kept_groups: self.kept,
            stage: Stage::Fresh,
            scale: [0; 3],
            kept: Vec::new(),
            groups: Vec::new(),
            scratch: Mutex::default(),
        }
    }

    /// Lends this plan the workspace of one for the same shape and as many temperatures.
    pub(super) fn adopt(&self, workspace: &mut Workspace) {
        workspace.spec.clone_from(&self.spec);
        workspace.stage = Stage::Fresh;
    }

    /// Phase A: distances, and their partial sums.
    ///
    /// # Errors
    /// [`Error::Shape`] where `inputs` do not have the plan's shape, [`Error::Order`] where the workspace is another
    /// plan's.
    pub fn distances<T: Element>(&self, inputs: &DriftInputs<'_, T>, workspace: &mut Workspace) -> Result<ScaleSums> {
        self.check(inputs, workspace, &[Stage::Fresh, Stage::Distances, Stage::Coefficients])?;
        let kept_len = self.kept.checked_mul(self.record());
        if Some(workspace.kept.len()) != kept_len {
            Error::check_memory("drift", "what is kept between phases", kept_len.and_then(|n| n.checked_mul(4)))?;
            workspace.kept = vec![0.0; kept_len.unwrap_or_default()];
        }
        workspace.stage = Stage::Distances;
        if !self.cut.small {
            workspace.groups.resize_with(self.shape.groups, Group::default);
        }
        let Workspace { kept, groups, scratch, .. } = workspace;
        let scratch = &*scratch;
        let kept = optional_chunks(kept, self.record(), self.shape.groups);
        let generated = self.shape.generated;
        let sums = |b: usize, group: &Group, distances: f64| {
            let sum = |w: &[f32]| w.iter().map(|w| f64::from(*w)).sum::<f64>();
            let mut weight = sum(&group.mean_weight) * generated as f64;
            if self.spec.feature_scale == FeatureScale::Paper {
                weight -= sum(&group.mean_weight[..generated]);
            }
            let any = (0..self.shape.targets()).map(|j| f64::from(inputs.weight(b, j))).sum();
            ([distances, weight, any], self.nonfinite(inputs, b, group))
        };
        let (groups, nonfinite): (Vec<_>, Vec<u64>) = if self.cut.small {
            let (all, some) = (self.shape.targets(), self.gram_len(generated));
            kept.into_par_iter()
                .enumerate()
                .map(|(b, kept)| {
                    with_scratch(scratch, |scratch| {
                        let mut group = std::mem::take(&mut scratch.group);
                        let mut own = std::mem::take(&mut scratch.gram);
                        self.prepare(inputs, b, &mut group);
                        self.locate(inputs, b, &mut group);
                        let sum = match kept {
                            Some(kept) => {
                                let (tile, rest) = kept.split_at_mut(generated * self.stride);
                                let (location, gram) = rest.split_at_mut(self.location());
                                let gram =
                                    if self.cut.identity { (gram, all) } else { (sized(&mut own, some), generated) };
                                let sum =
                                    self.small_distances(inputs, b, &mut group, (tile, self.stride), gram, scratch);
                                if !location.is_empty() {
                                    let (center, norms) = location.split_at_mut(self.shape.dim);
                                    center.copy_from_slice(&group.center);
                                    norms.copy_from_slice(&group.norms);
                                }
                                sum
                            }
                            None => self.with_tile(0..generated, &mut None, scratch, |tile, scratch| {
                                let gram = (sized(&mut own, some), generated);
                                self.small_distances(inputs, b, &mut group, tile, gram, scratch)
                            }),
                        };
                        let sums = sums(b, &group, sum);
                        (scratch.group, scratch.gram) = (group, own);
                        sums
                    })
                })
                .unzip()
        } else {
            kept.into_par_iter()
                .zip(groups)
                .enumerate()
                .map(|(b, (kept, group))| {
                    self.prepare(inputs, b, group);
                    self.locate(inputs, b, group);
                    self.fill_points(inputs, b, group, true);
                    let sum = self.big_distances(inputs, b, group, kept, scratch);
                    self.release(group);
                    sums(b, group, sum)
                })
                .unzip()
        };
        Ok(ScaleSums { groups, dim: self.shape.dim, nonfinite: nonfinite.iter().sum() })
    }

    /// A small group's partitions with its masked distances and `height` rows of its Gram matrix, of which low dimension
    /// has none, handed to `work`. `masked` says that phase B has been here: kept distances are masked, and partitions are
    /// kept beside them.
    #[allow(clippy::too_many_arguments)]
    fn with_small<T: Element, R>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        scale: &Scale,
        shapes: &[Shape],
        kept: Option<&mut [f32]>,
        (height, masked): (usize, bool),
        scratch: &Mutex<Vec<Scratch>>,
        work: impl FnOnce(&Group, (&mut [f32], usize), &[f32], &mut Scratch) -> R,
    ) -> R {
        let rows = 0..self.shape.generated;
        with_scratch(scratch, |scratch| {
            let mut group = std::mem::take(&mut scratch.group);
            let mut own = std::mem::take(&mut scratch.gram);
            self.prepare(inputs, b, &mut group);
            let (mut tile, kept) = match kept {
                Some(kept) => {
                    let (tile, kept) = kept.split_at_mut(rows.end * self.stride);
                    (Some(tile), Some(kept))
                }
                None => (None, None),
            };
            let result = self.with_tile(rows.clone(), &mut tile, scratch, |(tile, stride), scratch| {
                let mut partitions = None;
                let gram = match kept {
                    Some(kept) => {
                        let (location, rest) = kept.split_at_mut(self.location());
                        let (gram, rest) = rest.split_at_mut(rest.len() - self.partitions());
                        if location.is_empty() {
                            self.locate(inputs, b, &mut group);
                        } else {
                            let (center, norms) = location.split_at(self.shape.dim);
                            sized(&mut group.center, center.len()).copy_from_slice(center);
                            sized(&mut group.norms, norms.len()).copy_from_slice(norms);
                        }
                        if masked {
                            // Phase B left everything for phase C.
                            group.load_partitions(rest, &self.shape, self.cut.row, shapes.len());
                            return work(&group, (tile, stride), gram, scratch);
                        }
                        if self.cut.low_dim {
                            self.small_distances(inputs, b, &mut group, (&mut [], 0), (&mut [], 0), scratch);
                        } else {
                            self.small_minima(&mut group, (tile, stride));
                        }
                        partitions = Some(rest);
                        gram
                    }
                    None => {
                        self.locate(inputs, b, &mut group);
                        let gram = sized(&mut own, self.gram_len(height));
                        let products = (&mut *gram, height);
                        self.small_distances(inputs, b, &mut group, (tile, stride), products, scratch);
                        gram
                    }
                };
                self.mask_minima(scale, shapes, &mut group);
                if !self.cut.low_dim {
                    mask(&group, rows, self.cut.row, tile, stride);
                }
                self.small_sums(&mut group, shapes, (&*tile, stride), scratch);
                if let Some(partitions) = partitions.filter(|p| !p.is_empty()) {
                    group.save_partitions(partitions);
                }
                work(&group, (tile, stride), gram, scratch)
            });
            (scratch.group, scratch.gram) = (group, own);
            result
        })
    }

    /// Phase B: affinities, and the partial sums of the squared force of each temperature.
    ///
    /// # Errors
    /// As [`Plan::distances`]; [`Error::Order`] before phase A.
    pub fn coefficients<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        scale: &Scale,
        workspace: &mut Workspace,
    ) -> Result<ForceSums> {
        self.check(inputs, workspace, &[Stage::Distances])?;
        workspace.stage = Stage::Coefficients;
        workspace.scale = scale_bits(scale);
        let shapes = self.kernel_shapes(scale);
        let Workspace { kept, groups, scratch, .. } = workspace;
        let scratch = &*scratch;
        let kept = optional_chunks(kept, self.record(), self.shape.groups);
        let (groups, convergence): (Vec<_>, Vec<_>) = if self.cut.small {
            kept.into_par_iter()
                .enumerate()
                .map(|(b, kept)| self.small_squares(inputs, b, scale, &shapes, kept, scratch))
                .unzip()
        } else {
            kept.into_par_iter()
                .zip(groups)
                .enumerate()
                .map(|(b, (mut kept, group))| {
                    self.fill_points(inputs, b, group, false);
                    self.mask_minima(scale, &shapes, group);
                    self.big_sums(inputs, b, group, &shapes, kept.as_deref_mut(), scratch);
                    let keep = kept.is_some();
                    let state = &*group;
                    let add = |squares: &mut Vec<f64>,
                               rows: Range<usize>,
                               tile: (&mut [f32], usize),
                               scratch: &mut Scratch| {
                        squares.resize(shapes.len(), 0.0);
                        let part = self.tile_squares(inputs, b, state, &shapes, rows, tile, (keep, false), scratch);
                        self.add_all(squares, &part);
                    };
                    let parts: Vec<Vec<f64>> = self.over_stripes(inputs, b, state, kept, scratch, add);
                    self.release(group);
                    let mut squares = vec![0.0; shapes.len()];
                    for part in parts {
                        self.add_all(&mut squares, &part);
                    }
                    (squares, group.convergence.clone())
                })
                .unzip()
        };
        let convergence = worst(convergence, shapes.len());
        Ok(ForceSums { groups, convergence, elements_per_group: self.shape.generated * self.shape.dim })
    }

    /// Phase B of a small group.
    fn small_squares<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        b: usize,
        scale: &Scale,
        shapes: &[Shape],
        kept: Option<&mut [f32]>,
        scratch: &Mutex<Vec<Scratch>>,
    ) -> (Vec<f64>, Vec<Convergence>) {
        let keep = kept.is_some();
        let height = if self.cut.identity { self.shape.targets() } else { self.shape.generated };
        let squares = |group: &Group, (tile, stride): (&mut [f32], usize), gram: &[f32], own: &mut Scratch| {
            if self.cut.identity
                && let Some(squares) = self.identity_squares(group, shapes, (&*tile, stride), gram, own)
            {
                return squares;
            }
            let keep = keep && !self.cut.identity;
            let blocks = self.row_blocks();
            if blocks.len() == 1 {
                let rows = 0..self.shape.generated;
                // The exponentials of the partitions are still there, unless the identity was tried.
                let ready = !self.cut.identity;
                return self.tile_squares(inputs, b, group, shapes, rows, (tile, stride), (keep, ready), own);
            }
            let tiles = tile.par_chunks_mut(blocks[0].len() * stride);
            let parts: Vec<Vec<f64>> = blocks
                .clone()
                .into_par_iter()
                .zip(tiles)
                .map(|(rows, tile)| {
                    with_scratch(scratch, |own| {
                        self.tile_squares(inputs, b, group, shapes, rows, (tile, stride), (keep, false), own)
                    })
                })
                .collect();
            let mut squares = vec![0.0; shapes.len()];
            for part in parts {
                self.add_all(&mut squares, &part);
            }
            squares
        };
        self.with_small(inputs, b, scale, shapes, kept, (height, false), scratch, |group, tile, gram, own| {
            (squares(group, tile, gram, own), group.convergence.clone())
        })
    }

    /// Phase C: the force `F_tot` [B, G, D] in units of the scaled coordinates, and the loss `[B]`.
    ///
    /// # Errors
    /// As [`Plan::distances`]; [`Error::Order`] before phase B; [`Error::Shape`] where an output has another length.
    pub fn contraction<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        scale: &Scale,
        norms: &ForceNorms,
        workspace: &mut Workspace,
        force: &mut [f32],
        loss: &mut [f32],
    ) -> Result<()> {
        self.output(inputs, scale, norms, workspace, 1.0, ("force", force), loss)
    }

    /// Phase C, of which the gradient is wanted and not the force: `-2 F_tot / (G D sigma)` [B, G, D], the gradient of
    /// the sum of the losses with respect to the generated samples (spec 5), and the loss `[B]`.
    ///
    /// # Errors
    /// As [`Plan::contraction`].
    pub fn gradient<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        scale: &Scale,
        norms: &ForceNorms,
        workspace: &mut Workspace,
        gradient: &mut [f32],
        loss: &mut [f32],
    ) -> Result<()> {
        let factor = -2.0 / (self.shape.generated as f64 * self.shape.dim as f64 * scale.sigma);
        self.output(inputs, scale, norms, workspace, factor, ("gradient", gradient), loss)
    }

    /// `times` F_tot, and the loss.
    #[allow(clippy::too_many_arguments)]
    fn output<T: Element>(
        &self,
        inputs: &DriftInputs<'_, T>,
        scale: &Scale,
        norms: &ForceNorms,
        workspace: &mut Workspace,
        times: f64,
        (name, force): (&'static str, &mut [f32]),
        loss: &mut [f32],
    ) -> Result<()> {
        const OP: &str = "drift contraction";
        self.check(inputs, workspace, &[Stage::Coefficients])?;
        let DriftShape { groups: count, generated, dim, .. } = self.shape;
        if force.len() != count * generated * dim {
            return Err(Error::shape(OP, name, [count, generated, dim], [force.len()]));
        }
        if loss.len() != count {
            return Err(Error::shape(OP, "loss", [count], [loss.len()]));
        }
        if norms.theta.len() != self.spec.temperatures.len() {
            return Err(Error::shape(OP, "norms", [self.spec.temperatures.len()], [norms.theta.len()]));
        }
        if workspace.scale != scale_bits(scale) {
            let problem = "the scale is not the one that coefficients was given".to_owned();
            return Err(Error::Order { op: OP, problem });
        }
        let shapes = self.kernel_shapes(scale);
        let factors: Vec<f32> = norms.theta.iter().map(|theta| (times / theta / scale.sigma) as f32).collect();
        let Workspace { kept, groups, scratch, .. } = workspace;
        let scratch = &*scratch;
        let kept = optional_chunks(kept, self.record(), count);
        let mut states: Vec<Option<&mut Group>> = groups.iter_mut().map(Some).collect();
        states.resize_with(count, || None);
        let work = kept.into_par_iter().zip(states).zip(force.par_chunks_mut(generated * dim)).zip(loss);
        work.enumerate().for_each(|(b, (((kept, state), force), loss))| {
            let squares: f64 = match (kept, state) {
                (Some(kept), _) if !self.cut.identity => {
                    let rows = self.cut.stripe_rows.min(generated);
                    let kept = kept.par_chunks(rows * self.stride);
                    // Squares are added up as where forces are formed only now.
                    let piece = if self.cut.small { self.row_blocks()[0].len() } else { self.cut.rows };
                    let of_pieces = |(kept, out): (&[f32], &mut [f32])| -> f64 {
                        let pieces = kept.chunks(piece * self.stride).zip(out.chunks_mut(piece * dim));
                        pieces.map(|(kept, out)| self.kept_force(&factors, kept, out)).sum()
                    };
                    let parts: Vec<f64> = kept.zip(force.par_chunks_mut(rows * dim)).map(of_pieces).collect();
                    parts.into_iter().sum()
                }
                (kept, None) => self.with_small(
                    inputs,
                    b,
                    scale,
                    &shapes,
                    kept,
                    (generated, true),
                    scratch,
                    |group, tile, _, own| {
                        let blocks = self.row_blocks();
                        let tile = (&*tile.0, tile.1);
                        if blocks.len() == 1 {
                            let rows = 0..generated;
                            return self.tile_force(inputs, b, group, &shapes, &factors, rows, tile, own, force);
                        }
                        let height = blocks[0].len();
                        let parts: Vec<f64> = blocks
                            .into_par_iter()
                            .zip(tile.0.par_chunks(height * tile.1))
                            .zip(force.par_chunks_mut(height * dim))
                            .map(|((rows, part), out)| {
                                with_scratch(scratch, |own| {
                                    let tile = (part, tile.1);
                                    self.tile_force(inputs, b, group, &shapes, &factors, rows, tile, own, out)
                                })
                            })
                            .collect();
                        parts.into_iter().sum()
                    },
                ),
                (_, Some(group)) => {
                    self.fill_points(inputs, b, group, false);
                    let state = &*group;
                    let parts: Vec<f64> = self
                        .stripes()
                        .into_par_iter()
                        .zip(force.par_chunks_mut(self.cut.stripe_rows * dim))
                        .map(|(stripe, force)| {
                            with_scratch(scratch, |scratch| {
                                let mut squares = 0.0;
                                for (rows, out) in self.tiles(stripe).zip(force.chunks_mut(self.cut.rows * dim)) {
                                    let tile = rows.clone();
                                    squares +=
                                        self.masked_tile(inputs, b, state, tile, &mut None, scratch, |tile, s| {
                                            let tile = (&*tile.0, tile.1);
                                            self.tile_force(inputs, b, state, &shapes, &factors, rows, tile, s, out)
                                        });
                                }
                                squares
                            })
                        })
                        .collect();
                    self.release(group);
                    parts.into_iter().sum()
                }
            };
            *loss = (squares / (times * times) / (generated * dim) as f64) as f32;
        });
        Ok(())
    }

    fn check<T: Element>(&self, inputs: &DriftInputs<'_, T>, workspace: &Workspace, after: &[Stage]) -> Result<()> {
        const OP: &str = "drift phase";
        if inputs.shape() != self.shape {
            return Err(Error::shape(OP, "inputs", self.shape, inputs.shape()));
        }
        let same = workspace.shape == self.shape && workspace.spec == self.spec && workspace.kept_groups == self.kept;
        if !same {
            return Err(Error::Order { op: OP, problem: "the workspace was made by another plan".to_owned() });
        }
        if !after.contains(&workspace.stage) {
            let problem = "call distances, then coefficients, then contraction on the same workspace".to_owned();
            return Err(Error::Order { op: OP, problem });
        }
        Ok(())
    }

    /// Gives a group's centred targets back between phases, but for a group that is alone: all groups' together would
    /// be a second copy of the samples.
    fn release(&self, group: &mut Group) {
        if self.shape.groups > 1 {
            group.points = Vec::new();
        }
    }

    /// Kept distances, stripe by stripe.
    pub(super) fn striped<'a>(&self, kept: Option<&'a mut [f32]>) -> Vec<Option<&'a mut [f32]>> {
        let stripes = self.shape.generated.div_ceil(self.cut.stripe_rows);
        optional_chunks(kept.unwrap_or_default(), self.cut.stripe_rows * self.stride, stripes)
    }

    /// The rows of a small group that a task contracts: all of them, or where coordinates are many a quarter.
    fn row_blocks(&self) -> Vec<Range<usize>> {
        let g = self.shape.generated;
        let rows = if self.shape.dim > self.cut.chunk { g.div_ceil(4) } else { g };
        (0..g).step_by(rows).map(|start| start..g.min(start + rows)).collect()
    }

    pub(super) fn stripes(&self) -> Vec<Range<usize>> {
        let g = self.shape.generated;
        (0..g).step_by(self.cut.stripe_rows).map(|start| start..g.min(start + self.cut.stripe_rows)).collect()
    }

    pub(super) fn tiles(&self, stripe: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (rows, end) = (self.cut.rows, stripe.end);
        stripe.step_by(rows).map(move |start| start..end.min(start + rows))
    }

    /// The kernels of all temperatures, in raw distances.
    pub(super) fn kernel_shapes(&self, scale: &Scale) -> Vec<Shape> {
        Shape::all(self.spec.kernel, &self.spec.temperatures, scale.distance)
    }

    pub(super) fn add_all(&self, total: &mut [f64], part: &[f64]) {
        for (total, part) in total.iter_mut().zip(part) {
            *total = add(&self.spec, *total, *part);
        }
    }
}

/// The worst of all groups at each temperature.
fn worst(groups: Vec<Vec<Convergence>>, temperatures: usize) -> Vec<Convergence> {
    groups.into_iter().fold(vec![Convergence::default(); temperatures], |worst, group| {
        if group.is_empty() { worst } else { worst.into_iter().zip(group).map(|(a, b)| a.worst(b)).collect() }
    })
}

/// A scale's bits, so that NaN equals itself.
fn scale_bits(scale: &Scale) -> [u64; 3] {
    [scale.scale, scale.sigma, scale.distance].map(f64::to_bits)
}
