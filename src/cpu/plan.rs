//! The three phases of one drift call on the CPU.

use super::cut::{Cut, MAX_STRIPES, fits};
use super::group::{Group, Scratch, mask, optional_chunks, sized, with_scratch};
use super::isa::Isa;
use super::sums::{ForceNorms, ForceSums, ScaleSums, add};
use super::tile::{self, Shape};
use crate::{DriftInputs, DriftShape, DriftSpec, Element, Error, FeatureScale, Result, Scale};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;

/// Distances that a workspace keeps between phases unless told otherwise, in bytes: this much, or one group of up to
/// [`ONE_GROUP_BYTES`].
const CACHE_BYTES: usize = 32 << 20;
const ONE_GROUP_BYTES: usize = 256 << 20;

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
    /// Groups whose distances the workspace keeps.
    kept: usize,
}

/// Buffers of one worker: scratch tiles, and what phases hand to the next. Made by [`Plan::workspace`].
#[derive(Debug)]
pub struct Workspace {
    shape: DriftShape,
    spec: DriftSpec,
    /// How many groups the plan keeps distances of.
    kept_groups: usize,
    stage: Stage,
    /// The bits of the scale that phase B was given.
    scale: [u64; 3],
    /// Distances of the first groups, [kept, G, row].
    kept: Vec<f32>,
    /// The state of each group of several tiles; empty where a group is one tile, whose task computes it afresh.
    groups: Vec<Group>,
    scratch: Mutex<Vec<Scratch>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
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
        let plan = Self { spec: spec.clone(), shape, cut: Cut::new(&shape), isa: Isa::detect(), kept: 0 };
        let group = plan.distance_bytes();
        Ok(plan.keep_distances(if group <= ONE_GROUP_BYTES { CACHE_BYTES.max(group) } else { CACHE_BYTES }))
    }

    /// Keeps distances between the phases for as many groups as fit into `bytes`, and recomputes them for the others.
    /// It changes the time and the memory, never the result. Unless set, 32 MiB, or one group of up to 256 MiB.
    #[must_use]
    pub fn keep_distances(mut self, bytes: usize) -> Self {
        self.kept = (bytes / self.distance_bytes()).min(self.shape.groups);
        self
    }

    /// The distances of one group.
    fn distance_bytes(&self) -> usize {
        self.shape.generated.saturating_mul(self.cut.row * size_of::<f32>())
    }

    /// What a workspace of this plan comes to hold, in bytes: kept distances, states of groups, and a scratch for each
    /// thread of rayon's current pool.
    pub fn workspace_bytes(&self) -> usize {
        // A plan can be made for any shape, so this must not overflow.
        let wide = |n: usize| n as u128;
        let [groups, generated, targets, dim] =
            [self.shape.groups, self.shape.generated, self.shape.targets(), self.shape.dim].map(wide);
        let [row, rows, panel] = [self.cut.row, self.cut.rows, self.cut.panel].map(wide);
        let r = wide(self.spec.temperatures.len());
        let points = if self.cut.low_dim { dim * row } else { dim + row };
        // points, minima, diagonals, weights and partitions of a group
        let group = points + 9 * row + 4 * generated + 2 * r * (generated + row);
        let kept_points = if self.cut.whole { targets * dim } else { 0 };
        let kept_force = if self.keeps_force() { generated * dim } else { 0 };
        let group = group + kept_points + kept_force;
        let panels = match (self.cut.low_dim, self.cut.whole) {
            (true, _) => 0,
            (false, true) => r * rows * panel,
            (false, false) => (targets + r * rows) * panel,
        };
        let scratch = group + (rows * (1 + r) + 1) * row + panels;
        let states = if self.one_tile() { 0 } else { groups * (group + 2 * wide(MAX_STRIPES) * r * row) };
        let kept = wide(self.kept) * generated * row;
        let elements = kept + states + wide(rayon::current_num_threads()).min(groups * generated) * scratch;
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

    /// Phase A: distances, and their partial sums.
    ///
    /// # Errors
    /// [`Error::Shape`] where `inputs` do not have the plan's shape, [`Error::Order`] where the workspace is another
    /// plan's.
    pub fn distances<T: Element>(&self, inputs: &DriftInputs<'_, T>, workspace: &mut Workspace) -> Result<ScaleSums> {
        self.check(inputs, workspace, Stage::Fresh)?;
        workspace.stage = Stage::Distances;
        let kept_len = self.kept * self.shape.generated * self.cut.row;
        if workspace.kept.len() != kept_len {
            Error::check_memory("drift", "the kept distances", kept_len.checked_mul(size_of::<f32>()))?;
            workspace.kept.resize(kept_len, 0.0);
        }
        if !self.one_tile() {
            workspace.groups.resize_with(self.shape.groups, Group::default);
        }
        let Workspace { kept, groups, scratch, .. } = workspace;
        let scratch = &*scratch;
        let kept = optional_chunks(kept, self.shape.generated * self.cut.row, self.shape.groups);
        let sums = |b: usize, group: &Group, distances: f64| {
            let generated = &group.mean_weight[..self.shape.generated];
            let mut weight: f64 = group.mean_weight.iter().map(|w| f64::from(*w)).sum();
            weight *= self.shape.generated as f64;
            if self.spec.feature_scale == FeatureScale::Paper {
                weight -= generated.iter().map(|w| f64::from(*w)).sum::<f64>();
            }
            let any = (0..self.shape.targets()).map(|j| f64::from(inputs.weight(b, j))).sum();
            [distances, weight, any]
        };
        let groups = if self.one_tile() {
            kept.into_par_iter()
                .enumerate()
                .map(|(b, kept)| {
                    with_scratch(scratch, |scratch| {
                        let mut group = std::mem::take(&mut scratch.group);
                        self.prepare(inputs, b, &mut group);
                        self.tile_distances(inputs, b, &group, 0..self.shape.generated, scratch);
                        if let Some(kept) = kept {
                            kept.copy_from_slice(&scratch.tile);
                        }
                        let sum = self.tile_sum(&group, 0..self.shape.generated, &scratch.tile);
                        let sums = sums(b, &group, sum);
                        scratch.group = group;
                        sums
                    })
                })
                .collect()
        } else {
            kept.into_par_iter()
                .zip(groups)
                .enumerate()
                .map(|(b, (kept, group))| {
                    self.prepare(inputs, b, group);
                    let sum = self.group_distances(inputs, b, group, kept, scratch);
                    self.release(group);
                    sums(b, group, sum)
                })
                .collect()
        };
        let nonfinite = (0..self.shape.groups).into_par_iter().map(|b| inputs.nonfinite_in_group(b)).sum();
        Ok(ScaleSums { groups, dim: self.shape.dim, nonfinite })
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
        self.check(inputs, workspace, Stage::Distances)?;
        workspace.stage = Stage::Coefficients;
        workspace.scale = scale_bits(scale);
        let shapes = self.kernel_shapes(scale);
        let Workspace { kept, groups, scratch, .. } = workspace;
        let scratch = &*scratch;
        let rows = 0..self.shape.generated;
        let groups = if self.one_tile() {
            (0..self.shape.groups)
                .into_par_iter()
                .map(|b| {
                    with_scratch(scratch, |scratch| {
                        let mut group = std::mem::take(&mut scratch.group);
                        self.ready(inputs, b, scale, &shapes, &mut group, self.kept(kept, b), scratch);
                        let squares = self.tile_squares(inputs, b, &group, &shapes, rows.clone(), scratch, &mut []);
                        scratch.group = group;
                        squares
                    })
                })
                .collect()
        } else {
            groups
                .par_iter_mut()
                .enumerate()
                .map(|(b, group)| {
                    let kept = self.kept(kept, b);
                    self.fill_points(inputs, b, group);
                    self.group_sums(inputs, b, group, scale, &shapes, kept, scratch);
                    let mut force = std::mem::take(&mut group.force);
                    let kept_len = if self.keeps_force() { self.shape.generated * self.shape.dim } else { 0 };
                    let stripe_len = self.cut.stripe_rows * self.shape.dim;
                    let stripes = self.stripes();
                    let forces = optional_chunks(sized(&mut force, kept_len), stripe_len, stripes.len());
                    let state = &*group;
                    let parts: Vec<Vec<f64>> = stripes
                        .into_par_iter()
                        .zip(forces)
                        .map(|(stripe, force)| {
                            with_scratch(scratch, |scratch| {
                                let mut squares = vec![0.0; shapes.len()];
                                let mut force = force.unwrap_or_default();
                                for rows in self.tiles(stripe) {
                                    self.load(inputs, b, state, rows.clone(), kept, scratch);
                                    mask(state, rows.clone(), self.cut.row, &mut scratch.tile);
                                    let len = (rows.len() * self.shape.dim).min(force.len());
                                    let (keep, rest) = force.split_at_mut(len);
                                    force = rest;
                                    let tile = self.tile_squares(inputs, b, state, &shapes, rows, scratch, keep);
                                    self.add_all(&mut squares, &tile);
                                }
                                squares
                            })
                        })
                        .collect();
                    group.force = force;
                    self.release(group);
                    let mut squares = vec![0.0; shapes.len()];
                    for part in parts {
                        self.add_all(&mut squares, &part);
                    }
                    squares
                })
                .collect()
        };
        Ok(ForceSums { groups, elements_per_group: self.shape.generated * self.shape.dim })
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
        const OP: &str = "drift contraction";
        self.check(inputs, workspace, Stage::Coefficients)?;
        let DriftShape { groups: count, generated, dim, .. } = self.shape;
        if force.len() != count * generated * dim {
            return Err(Error::shape(OP, "force", [count, generated, dim], [force.len()]));
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
        let inv_theta: Vec<f32> = norms.theta.iter().map(|t| (1.0 / t) as f32).collect();
        let Workspace { kept, groups, scratch, .. } = workspace;
        let (kept, scratch) = (&*kept, &*scratch);
        let stripe_len = self.cut.stripe_rows * dim;
        let mut states: Vec<Option<&mut Group>> = groups.iter_mut().map(Some).collect();
        states.resize_with(count, || None);
        force.par_chunks_mut(generated * dim).zip(loss).zip(states).enumerate().for_each(
            |(b, ((force, loss), state))| {
                let kept = self.kept(kept, b);
                let squares = if let Some(group) = state {
                    if self.keeps_force() {
                        // F_tot is the one force over its theta.
                        let factor = inv_theta[0] * (1.0 / scale.sigma) as f32;
                        let parts: Vec<f64> = force
                            .par_chunks_mut(stripe_len)
                            .zip(group.force.par_chunks(stripe_len))
                            .map(|(out, force)| {
                                for (out, f) in out.iter_mut().zip(force) {
                                    *out = f * factor;
                                }
                                tile::sum_of_squares(self.isa, out)
                            })
                            .collect();
                        parts.into_iter().sum()
                    } else {
                        self.fill_points(inputs, b, group);
                        let state = &*group;
                        let parts: Vec<f64> = self
                            .stripes()
                            .into_par_iter()
                            .zip(force.par_chunks_mut(stripe_len))
                            .map(|(stripe, force)| {
                                with_scratch(scratch, |scratch| {
                                    let mut squares = 0.0;
                                    for (rows, out) in self.tiles(stripe).zip(force.chunks_mut(self.cut.rows * dim)) {
                                        self.load(inputs, b, state, rows.clone(), kept, scratch);
                                        mask(state, rows.clone(), self.cut.row, &mut scratch.tile);
                                        squares += self.tile_force(
                                            inputs, b, state, &shapes, &inv_theta, scale, rows, scratch, out,
                                        );
                                    }
                                    squares
                                })
                            })
                            .collect();
                        self.release(group);
                        parts.into_iter().sum()
                    }
                } else {
                    with_scratch(scratch, |scratch| {
                        let mut group = std::mem::take(&mut scratch.group);
                        self.ready(inputs, b, scale, &shapes, &mut group, kept, scratch);
                        let rows = 0..generated;
                        let squares =
                            self.tile_force(inputs, b, &group, &shapes, &inv_theta, scale, rows, scratch, force);
                        scratch.group = group;
                        squares
                    })
                };
                *loss = (squares / (generated * dim) as f64) as f32;
            },
        );
        Ok(())
    }

    fn check<T: Element>(&self, inputs: &DriftInputs<'_, T>, workspace: &Workspace, after: Stage) -> Result<()> {
        const OP: &str = "drift phase";
        if inputs.shape() != self.shape {
            return Err(Error::shape(OP, "inputs", self.shape, inputs.shape()));
        }
        let same = workspace.shape == self.shape && workspace.spec == self.spec && workspace.kept_groups == self.kept;
        if !same {
            return Err(Error::Order { op: OP, problem: "the workspace was made by another plan".to_owned() });
        }
        if workspace.stage < after {
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

    /// Whether a group is one tile, so that a task can compute all of its state afresh.
    pub(super) fn one_tile(&self) -> bool {
        self.cut.rows == self.shape.generated
    }

    /// Whether phase B leaves the force for phase C, which then only scales it: at a single temperature, in groups of
    /// several tiles.
    pub(super) fn keeps_force(&self) -> bool {
        let one_temperature = self.spec.temperatures.len() == 1;
        one_temperature && !self.one_tile() && fits(self.shape.generated, self.shape.dim)
    }

    pub(super) fn stripes(&self) -> Vec<Range<usize>> {
        let g = self.shape.generated;
        (0..g).step_by(self.cut.stripe_rows).map(|start| start..g.min(start + self.cut.stripe_rows)).collect()
    }

    pub(super) fn tiles(&self, stripe: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (rows, end) = (self.cut.rows, stripe.end);
        stripe.step_by(rows).map(move |start| start..end.min(start + rows))
    }

    /// The kept distances of group `b`.
    pub(super) fn kept<'a>(&self, kept: &'a [f32], b: usize) -> Option<&'a [f32]> {
        let size = self.shape.generated * self.cut.row;
        (b < self.kept).then(|| &kept[b * size..][..size])
    }

    /// The kernels of all temperatures, in raw distances.
    pub(super) fn kernel_shapes(&self, scale: &Scale) -> Vec<Shape> {
        let tau = |r: &f64| r * scale.distance;
        self.spec.temperatures.iter().map(|r| Shape::new(self.spec.kernel, tau(r))).collect()
    }

    pub(super) fn add_all(&self, total: &mut [f64], part: &[f64]) {
        for (total, part) in total.iter_mut().zip(part) {
            *total = add(&self.spec, *total, *part);
        }
    }
}

/// A scale's bits, so that NaN equals itself.
fn scale_bits(scale: &Scale) -> [u64; 3] {
    [scale.scale, scale.sigma, scale.distance].map(f64::to_bits)
}
