//! The three phases of one drift call on the CPU, and how the work is cut.

use super::gemm::{Layout, gemm};
use super::isa::{Isa, LANES};
use super::tile::{self, Columns, FAR, Floors, Partition, REMOVED, Shape};
use crate::spec::theta;
use crate::{
    AffinityFloor, DriftInputs, DriftShape, DriftSpec, Element, Error, FeatureScale, Result, Scale, SelfMask,
    WeightRule,
};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Mutex;

/// Up to this many coordinates squared distances are sums of squared differences; above, they come from products.
const LOW_DIM: usize = 8;
/// Distances per tile: 2 MiB of f32.
const TILE: usize = 1 << 19;
/// Rows per tile at most.
const MAX_ROWS: usize = 128;
/// Stripes of rows per group at most: the partial column sums of a group are [stripes, R, T].
const MAX_STRIPES: usize = 16;
/// Coordinates of all targets of a group that are widened and centred at a time: 1 MiB of f32.
const PANEL: usize = 1 << 18;
/// A group of several tiles keeps its centred targets, or its force at a single temperature, up to this many bytes.
const GROUP_BYTES: usize = 32 << 20;
/// Distances that a workspace keeps between phases unless told otherwise, in bytes: this much, or one group of up to
/// [`ONE_GROUP_BYTES`].
const CACHE_BYTES: usize = 32 << 20;
const ONE_GROUP_BYTES: usize = 256 << 20;

/// How one group is cut. It depends on G, T and D alone, so that the bits of a group do not depend on B.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// T, padded to whole lane blocks: the row length of a tile.
    row: usize,
    /// Rows of a tile.
    rows: usize,
    /// Rows of a stripe, the unit of parallel work inside a group; a multiple of `rows`.
    stripe_rows: usize,
    /// Whether squared distances are sums of squared differences.
    low_dim: bool,
    /// Coordinates per panel.
    panel: usize,
    /// Whether the group keeps its centred targets, so that a panel is all coordinates and nothing is widened twice.
    whole: bool,
}

impl Cut {
    fn new(shape: &DriftShape) -> Self {
        let (g, t) = (shape.generated, shape.targets());
        let row = t.next_multiple_of(LANES);
        let rows = (TILE / row).clamp(1, MAX_ROWS).min(g);
        let tiles_per_stripe = g.div_ceil(rows).div_ceil(MAX_STRIPES);
        let low_dim = shape.dim <= LOW_DIM;
        let whole = !low_dim && rows < g && fits(t, shape.dim);
        let panel = if whole { shape.dim } else { (PANEL / t).clamp(16, 4096).min(shape.dim) };
        Self { row, rows, stripe_rows: rows * tiles_per_stripe, low_dim, panel, whole }
    }
}

/// Whether an array [rows, columns] of f32 is one that a group may keep.
fn fits(rows: usize, columns: usize) -> bool {
    rows.checked_mul(columns).is_some_and(|len| len <= GROUP_BYTES / size_of::<f32>())
}

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
    spec: DriftSpec,
    shape: DriftShape,
    cut: Cut,
    isa: Isa,
    /// Groups whose distances the workspace keeps.
    kept: usize,
}

/// Buffers of one worker: scratch tiles, and what phases hand to the next. Made by [`Plan::workspace`].
#[derive(Debug)]
pub struct Workspace {
    shape: DriftShape,
    stage: Stage,
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

/// What the passes over one group share.
#[derive(Debug, Default)]
struct Group {
    /// The mean over all targets, `[D]`; zeros where centring is off. High dimension only.
    center: Vec<f32>,
    /// |y_j - center|², `[row]`. High dimension only.
    norms: Vec<f32>,
    /// All targets, widened and centred, [T, D]. Where [`Cut::whole`].
    points: Vec<f32>,
    /// The force before it is divided by theta, in raw coordinates, [G, D]. Where [`Plan::keeps_force`].
    force: Vec<f32>,
    /// Targets coordinate by coordinate, [D, row]. Low dimension only.
    soa: Vec<f32>,
    /// w_j of the distance mean, `[row]`; 0 for padding.
    mean_weight: Vec<f32>,
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
struct Scratch {
    group: Group,
    /// Distances, [rows, row].
    tile: Vec<f32>,
    /// `[row]`.
    affinity: Vec<f32>,
    /// [R or 1, rows, row].
    coefficients: Vec<f32>,
    /// Centred targets, [T, panel].
    panel: Vec<f32>,
    /// [R or 1, rows, panel].
    force: Vec<f32>,
}

/// Lends a scratch to `work`.
fn with_scratch<R>(pool: &Mutex<Vec<Scratch>>, work: impl FnOnce(&mut Scratch) -> R) -> R {
    let lock = || pool.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut scratch = lock().pop().unwrap_or_default();
    let result = work(&mut scratch);
    lock().push(scratch);
    result
}

/// `buffer` with `len` elements, whose old values do not matter.
fn sized<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) -> &mut [T] {
    buffer.resize(len, T::default());
    &mut buffer[..]
}

/// Partial sums of phase A, one entry per group, from which the global scale follows.
///
/// Keeping the groups apart is what makes any chunking over B give the same bits.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleSums {
    /// sum_ij d_ij w_j, sum_ij w_j over the same pairs, and sum_j w_j, of each group.
    groups: Vec<[f64; 3]>,
    dim: usize,
    nonfinite: u64,
}

impl ScaleSums {
    /// The sums of this worker's groups followed by those of `next`. Merge in the order of the groups.
    #[must_use]
    pub fn merge(mut self, next: Self) -> Self {
        self.groups.extend(next.groups);
        self.nonfinite += next.nonfinite;
        self
    }

    /// The global scale.
    ///
    /// # Errors
    /// [`Error::Value`] where every weight of the call is 0.
    pub fn finish(&self, spec: &DriftSpec) -> Result<Scale> {
        let mut total = [0.0; 3];
        for group in &self.groups {
            for (total, part) in total.iter_mut().zip(group) {
                *total = add(spec, *total, *part);
            }
        }
        let [weighted_distance, weight, any_weight] = total;
        if !self.groups.is_empty() && any_weight == 0.0 {
            return Err(crate::reference::all_weights_zero());
        }
        let mean = if weight == 0.0 { 0.0 } else { weighted_distance / weight };
        let scale = Scale::from_mean_distance(spec, mean, self.dim);
        Ok(if self.groups.is_empty() { scale.of_nothing() } else { scale })
    }

    /// How many input coordinates of these groups are NaN or infinite.
    pub fn nonfinite(&self) -> u64 {
        self.nonfinite
    }
}

/// Partial sums of phase B, one entry per group: the squared force of each temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct ForceSums {
    /// sum_id F_id² in raw coordinates, [B][R].
    groups: Vec<Vec<f64>>,
    elements_per_group: usize,
}

impl ForceSums {
    /// The sums of this worker's groups followed by those of `next`. Merge in the order of the groups.
    #[must_use]
    pub fn merge(mut self, next: Self) -> Self {
        self.groups.extend(next.groups);
        self
    }

    /// The global mean square and divisor of each temperature.
    pub fn finish(&self, spec: &DriftSpec, scale: &Scale) -> ForceNorms {
        let mut f2 = vec![0.0; spec.temperatures.len()];
        for group in &self.groups {
            for (total, part) in f2.iter_mut().zip(group) {
                *total = add(spec, *total, *part);
            }
        }
        let elements = (self.groups.len() * self.elements_per_group).max(1) as f64;
        for f2 in &mut f2 {
            *f2 /= elements * scale.sigma * scale.sigma;
        }
        ForceNorms { theta: f2.iter().map(|f2| theta(spec, *f2)).collect(), f2 }
    }
}

/// The force's global mean square of each temperature, and what each force is divided by.
#[derive(Clone, Debug, PartialEq)]
pub struct ForceNorms {
    /// f2, `[R]`: `loss_R` of spec 2.2 (8).
    pub f2: Vec<f64>,
    /// theta, `[R]`.
    pub theta: Vec<f64>,
}

/// `a + b` in the precision that the spec asks of global sums.
fn add(spec: &DriftSpec, a: f64, b: f64) -> f64 {
    if spec.numerics.f64_sums { a + b } else { f64::from(a as f32 + b as f32) }
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
            stage: Stage::Fresh,
            kept: vec![0.0; self.kept * self.shape.generated * self.cut.row],
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
        let shapes = self.kernel_shapes(scale);
        let inv_theta: Vec<f32> = norms.theta.iter().map(|t| (1.0 / t) as f32).collect();
        let Workspace { kept, groups, scratch, .. } = workspace;
        let (kept, groups, scratch) = (&*kept, &*groups, &*scratch);
        let stripe_len = self.cut.stripe_rows * dim;
        force.par_chunks_mut(generated * dim).zip(loss).enumerate().for_each(|(b, (force, loss))| {
            let kept = self.kept(kept, b);
            let squares = if self.one_tile() {
                with_scratch(scratch, |scratch| {
                    let mut group = std::mem::take(&mut scratch.group);
                    self.ready(inputs, b, scale, &shapes, &mut group, kept, scratch);
                    let rows = 0..generated;
                    let squares = self.tile_force(inputs, b, &group, &shapes, &inv_theta, scale, rows, scratch, force);
                    scratch.group = group;
                    squares
                })
            } else if self.keeps_force() {
                // F_tot is the one force over its theta.
                let factor = inv_theta[0] * (1.0 / scale.sigma) as f32;
                let parts: Vec<f64> = force
                    .par_chunks_mut(stripe_len)
                    .zip(groups[b].force.par_chunks(stripe_len))
                    .map(|(out, force)| {
                        for (out, f) in out.iter_mut().zip(force) {
                            *out = f * factor;
                        }
                        tile::sum_of_squares(self.isa, out)
                    })
                    .collect();
                parts.into_iter().sum()
            } else {
                let group = &groups[b];
                let parts: Vec<f64> = self
                    .stripes()
                    .into_par_iter()
                    .zip(force.par_chunks_mut(stripe_len))
                    .map(|(stripe, force)| {
                        with_scratch(scratch, |scratch| {
                            let mut squares = 0.0;
                            for (rows, force) in self.tiles(stripe).zip(force.chunks_mut(self.cut.rows * dim)) {
                                self.load(inputs, b, group, rows.clone(), kept, scratch);
                                mask(group, rows.clone(), self.cut.row, &mut scratch.tile);
                                squares +=
                                    self.tile_force(inputs, b, group, &shapes, &inv_theta, scale, rows, scratch, force);
                            }
                            squares
                        })
                    })
                    .collect();
                parts.into_iter().sum()
            };
            *loss = (squares / (generated * dim) as f64) as f32;
        });
        Ok(())
    }

    fn check<T: Element>(&self, inputs: &DriftInputs<'_, T>, workspace: &Workspace, after: Stage) -> Result<()> {
        const OP: &str = "drift phase";
        if inputs.shape() != self.shape {
            return Err(Error::shape(OP, "inputs", self.shape, inputs.shape()));
        }
        let kept = self.kept * self.shape.generated * self.cut.row;
        if workspace.shape != self.shape || workspace.kept.len() != kept {
            return Err(Error::Order { op: OP, problem: "the workspace was made by another plan".to_owned() });
        }
        if workspace.stage < after {
            let problem = "call distances, then coefficients, then contraction on the same workspace".to_owned();
            return Err(Error::Order { op: OP, problem });
        }
        Ok(())
    }

    /// Whether a group is one tile, so that a task can compute all of its state afresh.
    fn one_tile(&self) -> bool {
        self.cut.rows == self.shape.generated
    }

    /// Whether phase B leaves the force for phase C, which then only scales it: at a single temperature, in groups of
    /// several tiles.
    fn keeps_force(&self) -> bool {
        let one_temperature = self.spec.temperatures.len() == 1;
        one_temperature && !self.one_tile() && fits(self.shape.generated, self.shape.dim)
    }

    fn stripes(&self) -> Vec<Range<usize>> {
        let g = self.shape.generated;
        (0..g).step_by(self.cut.stripe_rows).map(|start| start..g.min(start + self.cut.stripe_rows)).collect()
    }

    fn tiles(&self, stripe: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (rows, end) = (self.cut.rows, stripe.end);
        stripe.step_by(rows).map(move |start| start..end.min(start + rows))
    }

    /// The kept distances of group `b`.
    fn kept<'a>(&self, kept: &'a [f32], b: usize) -> Option<&'a [f32]> {
        let size = self.shape.generated * self.cut.row;
        (b < self.kept).then(|| &kept[b * size..][..size])
    }

    /// The kernels of all temperatures, in raw distances.
    fn kernel_shapes(&self, scale: &Scale) -> Vec<Shape> {
        let tau = |r: &f64| r * scale.distance;
        self.spec.temperatures.iter().map(|r| Shape::new(self.spec.kernel, tau(r))).collect()
    }

    fn add_all(&self, total: &mut [f64], part: &[f64]) {
        for (total, part) in total.iter_mut().zip(part) {
            *total = add(&self.spec, *total, *part);
        }
    }

    /// Weights, blocks, and what distances are computed from.
    fn prepare<T: Element>(&self, inputs: &DriftInputs<'_, T>, b: usize, group: &mut Group) {
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
            group.center.par_chunks_mut(width).enumerate().for_each(|(at, center)| {
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
            });
        }
        let norms = sized(&mut group.norms, row);
        norms.fill(0.0);
        if self.cut.whole {
            const TARGETS: usize = 64;
            let points = sized(&mut group.points, t * dim);
            let center = &group.center;
            points.par_chunks_mut(TARGETS * dim).zip(norms.par_chunks_mut(TARGETS)).enumerate().for_each(
                |(at, (points, norms))| {
                    for (j, (point, norm)) in points.chunks_exact_mut(dim).zip(norms).enumerate() {
                        T::widen(inputs.target(b, at * TARGETS + j), point);
                        subtract(point, center);
                        *norm = tile::squared_norm(self.isa, point);
                    }
                },
            );
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
    fn tile_distances<T: Element>(
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
                if tile::gram_row(self.isa, tile, norm, &group.norms, near) {
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
    fn load<T: Element>(
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
    fn tile_sum(&self, group: &Group, rows: Range<usize>, tile: &[f32]) -> f64 {
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
    fn ready<T: Element>(
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
    fn group_distances<T: Element>(
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
    fn group_sums<T: Element>(
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
    fn tile_squares<T: Element>(
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
    fn tile_force<T: Element>(
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
    fn new(row: usize) -> Self {
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
fn mask(group: &Group, rows: Range<usize>, row: usize, tile: &mut [f32]) {
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
fn optional_chunks(buffer: &mut [f32], size: usize, count: usize) -> Vec<Option<&mut [f32]>> {
    let mut chunks: Vec<_> = buffer.chunks_mut(size).map(Some).collect();
    chunks.resize_with(count, || None);
    chunks
}
