//! Shapes to tiles, bytes and blocks; pure, so that it is tested without anything of CUDA.

use super::params;
use crate::{Coupling, DriftShape, DriftSpec, Dtype, Error, Result};

const OP: &str = "cuda plan";
const TILE: usize = params::kTile as usize;
const THREADS: usize = params::kThreads as usize;
const WARP: usize = 32;
const STAGE_ROW: usize = params::kStageRow as usize;
const STAGES: usize = params::kStages as usize;
const RANGE: usize = params::kRange as usize;
const DISTANCE_SUMS: usize = params::kDistanceSums as usize;
const MAX_COLUMNS: usize = params::kMaxColumns as usize;
/// Targets of a contraction's tile where not all of them are one tile: its coefficients and stages take 84 KiB
/// in f32.
const WIDTH: usize = 160;
/// Where arrays begin in the workspace, bytes from its start, which is what `cuMemAlloc` gives or another multiple of 16.
const ALIGN: usize = 256;
/// Shared memory that kernels take beside what the plan gives them, and the driver's own KiB.
pub(super) const STATIC_SHARED: usize = 6 << 10;
/// Blocks that fill a GPU, two for each multiprocessor of an H100. Where there are half as many or fewer, calls are cut
/// along the coordinates.
const ENOUGH_BLOCKS: usize = 264;
/// Coordinates that a slice has at least, so that it is not shorter than its start and its end.
const MIN_SLICE: usize = 512;
/// Kernels count in 32 bits, and up to a tile beyond the end.
const MAX_EXTENT: usize = (1 << 31) - 1024;
/// Distances of points in so few coordinates are formed anew faster than read.
const FEW_COORDINATES: usize = 8;

/// How a plan may go about its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether products run on tensor cores: by default those of samples in half precision do, those in f32 do not. Asked
    /// for, samples in f32 are rounded to TF32, ten digits of significand, where they are multiplied.
    pub tensor_cores: Option<bool>,
    /// Bytes of shared memory that a block may have, as [`Kernels::shared_bytes`](super::Kernels::shared_bytes) knows of
    /// a device. The default is 99 KiB, which every device from compute capability 8.0 on has.
    pub shared_bytes: usize,
    /// Whether the distances [B, G, T] are kept in the workspace, or formed anew at each use; by default the plan
    /// decides.
    pub keep_distances: Option<bool>,
    /// Whether force norms come by the zero-sum identity (spec 2.3) where a group is one block; by default the plan
    /// decides.
    pub identity: Option<bool>,
}

impl Default for Options {
    fn default() -> Self {
        Self { tensor_cores: None, shared_bytes: 99 << 10, keep_distances: None, identity: None }
    }
}

/// Drift calls on a device: what they compute, how much workspace they need, in which launches they run.
///
/// A plan has one head or several, each with extents, a scale and force norms of its own; the number of launches does
/// not grow with them. It owns nothing on the device and can be used from several threads and on several streams, each
/// with a workspace of its own.
///
/// What it decides:
/// - Where G <= 64 and T <= 224 in every head, a group is one block from its statistics to its norms, if the tile of its
///   targets fits into shared memory (in f32 and 99 KiB up to T = 160): five launches. Otherwise rows and columns of
///   distances have launches of their own, and tiles of targets stream by: eight or nine. So they do where rows have mass
///   1 (the split form, Sinkhorn); a plan takes two launches an iteration more, three where it may stop. Those that come
///   after it has stopped do nothing.
/// - Samples in half precision go to tensor cores, and coefficients are then rounded to the samples' type; those in f32
///   only where [`Options::tensor_cores`] asks for it.
/// - Where there are at most 132 blocks, distances are cut into slices of at least 512 coordinates, which a launch adds up
///   in order; groups then stream: ten.
/// - Distances are kept, except where groups stream and D <= 8: then they are formed anew at each use, and the workspace
///   is of the order of the samples.
/// - Sums over groups are added in an order that hangs on their number: a call that is split over B gives the same result
///   up to the last digits of these f64 sums, not bit for bit.
/// - Force norms come by the zero-sum identity (spec 2.3) where a group is one block and coordinates are many (at G = 64,
///   T = 160 and three temperatures above D = 320 in half precision, 160 in TF32, 480 in the plain rung): it saves a
///   product over the coordinates for each temperature, for distances of the targets among themselves and G T^2
///   multiply-adds a temperature. Elsewhere they are accumulated from the forces.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) spec: DriftSpec,
    pub(super) dtype: Dtype,
    pub(super) options: Options,
    pub(super) heads: Vec<Head>,
    /// Is a group one block from its statistics to its norms?
    pub(super) fused: bool,
    /// Temperatures in shared memory at a time, then, where norms come from the forces and where by the identity.
    pub(super) slots: usize,
    pub(super) identity_slots: usize,
    /// Blocks of each launch.
    pub(super) blocks: [u32; LAUNCHES],
    /// Bytes of shared memory of a block in the launches of distances, norms, force.
    pub(super) shared: [usize; 3],
    /// Where the table of several heads lies in the workspace; the scalars lie at its start.
    pub(super) table: usize,
    bytes: usize,
}

pub(super) const LAUNCHES: usize = params::Launch_kLaunches as usize;

/// One head of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub shape: DriftShape,
    pub columns: usize,
    pub slices: usize,
    pub slice: usize,
    pub width: usize,
    pub ranges: usize,
    pub range: usize,
    pub records: usize,
    pub identity: bool,
    pub first: [u32; LAUNCHES],
    pub layout: Layout,
}

/// Offsets of a head's arrays in the workspace, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// `usize::MAX` where distances are not kept.
    pub distances: usize,
    /// `usize::MAX` where norms do not come by the identity.
    pub among: usize,
    pub partial: usize,
    pub row_least: usize,
    pub column_least: usize,
    pub row_log: usize,
    pub column_log: usize,
    pub mass: usize,
    /// These three of no use, and empty, but where rows have mass 1.
    pub row_change: usize,
    pub plans: usize,
    pub plan_weights: usize,
    pub distance_sums: usize,
    pub norm_sums: usize,
    pub row_sums: usize,
    pub loss_sums: usize,
}

fn product(factors: &[usize]) -> Option<usize> {
    factors.iter().try_fold(1usize, |n, &factor| n.checked_mul(factor))
}

/// The least common size of equal tiles, in steps of 32, that `tiles` of them cover.
fn even(extent: usize, at_most: usize) -> usize {
    extent.div_ceil(extent.div_ceil(at_most).max(1)).next_multiple_of(WARP)
}

impl Plan {
    /// Plans a call of `spec` on samples of `shape` in `dtype`.
    ///
    /// # Errors
    /// As [`Plan::grouped`].
    pub fn new(spec: &DriftSpec, shape: DriftShape, dtype: Dtype) -> Result<Self> {
        Self::grouped(spec, &[shape], dtype, Options::default())
    }

    /// Plans one call for several heads.
    ///
    /// # Errors
    /// What [`DriftSpec::validate`] and [`DriftShape::validate`] refuse; [`Error::Value`] without heads, or where
    /// `shared_bytes` is too small; [`Error::TooLarge`] where an extent does not fit into 31 bits, or a launch would have
    /// more than 2^31 - 1 blocks.
    pub fn grouped(spec: &DriftSpec, shapes: &[DriftShape], dtype: Dtype, options: Options) -> Result<Self> {
        spec.validate()?;
        if shapes.is_empty() {
            return Err(Error::value(OP, "shapes", "at least one head", 0));
        }
        for shape in shapes {
            shape.validate()?;
            let extents = [shape.groups, shape.targets(), shape.dim];
            if extents.iter().any(|&extent| extent > MAX_EXTENT) {
                return Err(too_large("an extent", shape));
            }
        }
        let Some(available) = options.shared_bytes.checked_sub(STATIC_SHARED) else {
            return Err(Error::value(OP, "shared_bytes", "some 90 KiB", options.shared_bytes));
        };
        let tensor = on_tensor_cores(dtype, options);
        let coefficient = if tensor && dtype != Dtype::F32 { 2 } else { size_of::<f32>() };
        let temperatures = spec.temperatures.len();
        let tiles = |width: usize, coefficient: usize, slots: usize| {
            let row = width * coefficient + params::kCoefficientPad as usize;
            let columns = width * (2 + temperatures) * size_of::<f32>();
            STAGES * width * STAGE_ROW + slots * TILE * row + columns
        };
        let contraction = |width: usize, slots: usize| tiles(width, coefficient, slots);

        let one_block = |shape: &DriftShape| shape.generated <= TILE && shape.targets() <= MAX_COLUMNS;
        let whole = |shape: &DriftShape| shape.targets().next_multiple_of(WARP);
        let widest = shapes.iter().map(whole).max().unwrap_or(0);
        let blocks = shapes.iter().map(|shape| shape.groups).fold(0, usize::saturating_add);
        let cut = |shape: &DriftShape| {
            let most = (shape.dim / MIN_SLICE).max(1);
            let blocks = blocks.saturating_mul(shape.generated.div_ceil(TILE)).max(1);
            // A little more room is not worth the launches that it costs.
            if 2 * blocks > ENOUGH_BLOCKS { 1 } else { ENOUGH_BLOCKS.div_ceil(blocks).min(most) }
        };
        let fused = !spec.rows_of_mass_one()
            && shapes.iter().all(|shape| one_block(shape) && cut(shape) == 1)
            && contraction(widest, 1) <= available;
        let at_most = if dtype != Dtype::F32 && !tensor { params::kFewSlots } else { params::kMaxSlots };
        let slots =
            (1..=temperatures.min(at_most as usize)).rev().find(|&slots| contraction(widest, slots) <= available);
        let slots = slots.filter(|_| fused).unwrap_or(1);
        // Its coefficients are halves on tensor cores, else f32. It may take the room of the others, or one temperature's at
        // least.
        let (own, at_most) = if tensor { (2, params::kMaxSlots) } else { (size_of::<f32>(), params::kFewSlots) };
        let room = contraction(widest, slots).max(tiles(widest, own, 1));
        let identity = |shape: &DriftShape| {
            let possible = fused && room <= available && options.keep_distances != Some(false) && shape.targets() > 1;
            possible && options.identity.unwrap_or_else(|| identity_pays(shape, dtype, tensor, temperatures))
        };
        let identity_slots =
            (1..=temperatures.min(at_most as usize)).rev().find(|&slots| tiles(widest, own, slots) <= room);

        let mut plan = Self {
            spec: spec.clone(),
            dtype,
            options,
            heads: Vec::with_capacity(shapes.len()),
            fused,
            slots,
            identity_slots: identity_slots.unwrap_or(1),
            blocks: [0; LAUNCHES],
            shared: [0; 3],
            table: 0,
            bytes: 0,
        };
        plan.place(&[shapes.len()], size_of::<params::DriftScalars>(), &shapes[0])?;
        plan.table = plan.place(&[shapes.len()], size_of::<params::DriftHead>(), &shapes[0])?;
        for shape in shapes {
            let fits = whole(shape) <= MAX_COLUMNS && contraction(whole(shape), 1) <= available;
            let head = plan.head(shape, cut(shape), fits, identity(shape))?;
            let rows = if head.columns >= shape.targets() && shape.generated.next_multiple_of(TILE) <= head.columns {
                head.columns
            } else {
                head.columns + TILE
            };
            let tile = TILE * (head.columns + params::kTilePad as usize) * size_of::<f32>();
            plan.shared[0] = plan.shared[0].max(tile).max(STAGES * rows * STAGE_ROW);
            let norms = match head.identity {
                true => tiles(head.width, own, plan.identity_slots),
                false => contraction(head.width, slots),
            };
            plan.shared[1] = plan.shared[1].max(norms);
            plan.shared[2] = plan.shared[2].max(contraction(head.width, 1));
            plan.heads.push(head);
        }
        let most = plan.shared.iter().copied().max().unwrap_or(0);
        if most > available {
            let expected = format!("at least {}", most + STATIC_SHARED);
            return Err(Error::value(OP, "shared_bytes", expected, options.shared_bytes));
        }
        Ok(plan)
    }

    /// Appends an array to the workspace.
    fn place(&mut self, elements: &[usize], size: usize, shape: &DriftShape) -> Result<usize> {
        let offset = self.bytes;
        let bytes = product(elements).and_then(|count| count.checked_mul(size));
        let end = bytes.and_then(|bytes| offset.checked_add(bytes)?.checked_next_multiple_of(ALIGN));
        self.bytes =
            end.filter(|&end| isize::try_from(end).is_ok()).ok_or_else(|| too_large("the workspace", shape))?;
        Ok(offset)
    }

    /// Plans a head, and gives it its blocks and its part of the workspace. Its coordinates are cut into about so many
    /// slices; its targets may be one tile of the contraction; its norms may come by the identity.
    fn head(&mut self, shape: &DriftShape, cut: usize, one_tile: bool, identity: bool) -> Result<Head> {
        let DriftShape { groups, generated, dim, .. } = *shape;
        let (targets, temperatures) = (shape.targets(), self.spec.temperatures.len());
        let tiles_i = generated.div_ceil(TILE);
        let slice = dim.div_ceil(cut).next_multiple_of(RANGE);
        let slices = dim.div_ceil(slice);
        let columns = even(targets.max(TILE), MAX_COLUMNS);
        let tiles_j = targets.div_ceil(columns);
        let width = if one_tile { targets.next_multiple_of(WARP) } else { even(targets, WIDTH) };
        // With one tile of targets the sums of a stage are final; with several a block keeps those of a range.
        let range = if targets <= width { slice } else { RANGE };
        let ranges = dim.div_ceil(range);

        let one = |flag: bool| usize::from(flag);
        let coupled = self.spec.rows_of_mass_one();
        let blocks = 2 * one(coupled);
        let rows = groups.saturating_mul(generated).div_ceil(THREADS / WARP);
        let queries = match identity {
            true if self.tensor_cores() => 1 + usize::from(targets > params::kMaxAllPairs as usize),
            true => targets.div_ceil(TILE),
            false => tiles_i,
        };
        let distances = [groups, slices, queries, tiles_j];
        let counts: [(params::Launch, &[usize]); LAUNCHES] = [
            (params::Launch_kDistances, &distances),
            (params::Launch_kJoin, &[one(slices > 1), rows]),
            (params::Launch_kRows, &[one(!self.fused), rows]),
            (params::Launch_kColumns, &[one(!self.fused), groups, targets.div_ceil(WARP)]),
            (params::Launch_kNorms, &[if self.fused { 1 } else { temperatures }, groups, tiles_i, ranges]),
            (params::Launch_kForce, &[groups, tiles_i, ranges]),
            (params::Launch_kLosses, &[one(tiles_i * ranges > 1), groups.div_ceil(THREADS)]),
            (params::Launch_kPlans, &[one(coupled), groups]),
        ];
        let first = self.blocks;
        for (launch, factors) in counts {
            let blocks = &mut self.blocks[launch as usize];
            let end = product(factors).and_then(|count| count.checked_add(*blocks as usize));
            let end = end.and_then(|end| i32::try_from(end).ok());
            *blocks = end.ok_or_else(|| too_large("the grid of a launch", shape))?.unsigned_abs();
        }
        let count = |launch: params::Launch| (self.blocks[launch as usize] - first[launch as usize]) as usize;
        let distance_blocks = count(params::Launch_kDistances);
        let (records, counts) = match slices {
            1 => (distance_blocks, 0),
            _ => (count(params::Launch_kJoin), distance_blocks),
        };
        // A record of a block that has a row in each temperature.
        let (norms, losses) = (product(&[temperatures, groups, tiles_i, ranges]), count(params::Launch_kForce));
        let norms = norms.ok_or_else(|| too_large("the workspace", shape))?;

        let row_records = if self.fused { groups } else { rows };
        let keep = match self.options.keep_distances {
            Some(keep) => keep || slices > 1,
            None => self.fused || slices > 1 || dim > FEW_COORDINATES,
        };
        let (float, double) = (size_of::<f32>(), size_of::<f64>());
        let pairs = [groups, generated, targets];
        let layout = Layout {
            distances: if keep { self.place(&pairs, float, shape)? } else { usize::MAX },
            among: match identity {
                true => self.place(&[groups, targets - generated, targets], float, shape)?,
                false => usize::MAX,
            },
            partial: self.place(&[if slices > 1 { slices } else { 0 }, groups, generated, targets], float, shape)?,
            row_least: self.place(&[groups, generated], float, shape)?,
            column_least: self.place(&[groups, targets], float, shape)?,
            row_log: self.place(&[groups, generated, temperatures, blocks.max(1)], float, shape)?,
            column_log: self.place(&[groups, targets, temperatures], float, shape)?,
            mass: self.place(&[groups, generated, temperatures, 3], float, shape)?,
            row_change: self.place(&[groups, generated, temperatures, blocks], float, shape)?,
            plans: self.place(&[groups, temperatures, blocks], size_of::<params::PlanState>(), shape)?,
            plan_weights: self.place(&[groups, blocks], double, shape)?,
            distance_sums: self.place(&[DISTANCE_SUMS * records + counts], double, shape)?,
            norm_sums: self.place(&[norms], double, shape)?,
            row_sums: self.place(&[temperatures, row_records, params::kRowSums as usize], double, shape)?,
            loss_sums: self.place(&[losses], double, shape)?,
        };
        Ok(Head { shape: *shape, columns, slices, slice, width, ranges, range, records, identity, first, layout })
    }

    /// What is computed.
    pub fn spec(&self) -> &DriftSpec {
        &self.spec
    }

    /// The extents of each head's samples.
    pub fn shapes(&self) -> impl ExactSizeIterator<Item = DriftShape> + '_ {
        self.heads.iter().map(|head| head.shape)
    }

    /// The type of the samples.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Whether products run on tensor cores.
    pub fn tensor_cores(&self) -> bool {
        on_tensor_cores(self.dtype, self.options)
    }

    /// Whether each head's force norms come by the zero-sum identity.
    pub fn identity(&self) -> impl ExactSizeIterator<Item = bool> + '_ {
        self.heads.iter().map(|head| head.identity)
    }

    /// Kernels that a run launches.
    pub fn launches(&self) -> usize {
        // Masses go by the rows; the scalars are reduced twice.
        let rows = self.blocks[params::Launch_kRows as usize];
        let once = self.blocks.iter().chain([&rows]).filter(|&&blocks| blocks > 0).count() + 2;
        // Of a plan the rows' projection, the start and the columns' projection of the first iteration are in that.
        let of_plan = |plan: crate::Sinkhorn| {
            let iterations = plan.iterations as usize;
            2 * iterations - 1 + (1..=plan.iterations).filter(|&k| self.settles(plan, k)).count()
        };
        match (self.spec.sinkhorn(), rows) {
            (Some(plan), 1..) => once + of_plan(plan),
            // Potentials of rows alone need nothing of the columns.
            (None, 1..) if self.spec.rows_of_mass_one() && self.spec.coupling == Coupling::Row => once - 1,
            _ => once,
        }
    }

    /// Whether an iteration ends with a look at the rows' sums.
    pub(super) fn settles(&self, plan: crate::Sinkhorn, iteration: u32) -> bool {
        plan.tolerance > 0.0 || iteration == plan.iterations
    }

    /// Bytes of device memory that a run needs beside its inputs and outputs; their content does not matter.
    pub fn workspace_bytes(&self) -> usize {
        self.bytes
    }
}

fn on_tensor_cores(dtype: Dtype, options: Options) -> bool {
    options.tensor_cores.unwrap_or(dtype != Dtype::F32)
}

/// Whether norms cost less by the zero-sum identity than from the forces.
///
/// On tensor cores by the warps' instructions that the simulator counts for distances and norms, with as many temperatures
/// in a pass as a call has. Either way grows in a line with the coordinates; at G = 64 and T = 64, 128, 160, 224 they meet
/// at D = 100, 207, 299, 770 in halves with three temperatures, with one at 208, 333, 1340 for the last three. Where all
/// pairs of targets are in one block that is about twice the targets or less; else some samples are read once more for
/// them, and temperatures count. Samples in f32 are twice as long, so TF32 takes half as many coordinates. A reading of
/// the targets is saved in any case, for distances among some of them.
///
/// In the plain rung by f32 multiply-adds: at D = 640 the whole call takes 10 % less by the identity, at D = 1280 17 %.
fn identity_pays(shape: &DriftShape, dtype: Dtype, tensor: bool, temperatures: usize) -> bool {
    let (targets, dim) = (shape.targets(), shape.dim);
    let width = targets.next_multiple_of(WARP);
    if tensor {
        let halves = if dtype == Dtype::F32 { 2 * dim } else { dim };
        let one_block = targets <= params::kMaxAllPairs as usize;
        return halves > if one_block { 2 * width } else { 3 * width + 3 * width / temperatures };
    }
    let forces = temperatures * TILE * width;
    // Tiles of 64 queries by the targets that are not before them; a difference and a product each.
    let more: usize =
        (TILE..targets).step_by(TILE).map(|i| TILE * (targets - i).next_multiple_of(WARP).max(TILE)).sum();
    forces * dim > forces * width + 2 * more * dim
}

fn too_large(what: &'static str, shape: &DriftShape) -> Error {
    Error::TooLarge { op: OP, what, got: format!("{shape:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(groups: usize, generated: usize, negatives: usize, positives: usize, dim: usize) -> DriftShape {
        DriftShape { groups, generated, negatives, positives, dim }
    }

    fn plan(shapes: &[DriftShape], dtype: Dtype, options: Options) -> Plan {
        Plan::grouped(&DriftSpec::official(), shapes, dtype, options).unwrap()
    }

    #[test]
    fn arrays_lie_apart_and_are_large_enough() {
        let shapes = [shape(3, 65, 7, 60, 130), shape(1, 4, 0, 4, 2100)];
        let plan = plan(&shapes, Dtype::F32, Options::default());
        let mut ends =
            vec![(0, 2 * size_of::<params::DriftScalars>()), (plan.table, 2 * size_of::<params::DriftHead>())];
        for head in &plan.heads {
            let DriftShape { groups: b, generated: g, dim, .. } = head.shape;
            let (t, layout) = (head.shape.targets(), &head.layout);
            let (tiles_i, tiles_j) = (g.div_ceil(64), t.div_ceil(head.columns));
            let blocks = b * tiles_i * tiles_j * head.slices;
            let (records, counts) = if head.slices > 1 { ((b * g).div_ceil(8), blocks) } else { (blocks, 0) };
            assert!(head.slices * head.slice >= dim && head.ranges * head.range >= dim);
            ends.extend([
                (layout.distances, b * g * t * 4),
                // No identity where tiles stream.
                (layout.partial, if head.slices > 1 { head.slices * b * g * t * 4 } else { 0 }),
                (layout.row_least, b * g * 4),
                (layout.column_least, b * t * 4),
                (layout.row_log, b * g * 3 * 4),
                (layout.column_log, b * t * 3 * 4),
                (layout.mass, b * g * 3 * 3 * 4),
                (layout.row_change, 0),
                (layout.plans, 0),
                (layout.plan_weights, 0),
                (layout.distance_sums, (DISTANCE_SUMS * records + counts) * 8),
                (layout.norm_sums, 3 * b * tiles_i * head.ranges * 8),
                (layout.row_sums, 3 * (b * g).div_ceil(8) * 4 * 8),
                (layout.loss_sums, b * tiles_i * head.ranges * 8),
            ]);
        }
        assert_eq!(plan.heads[1].slices, 4);
        for (k, &(offset, bytes)) in ends.iter().enumerate() {
            let next = ends.get(k + 1).map_or(plan.workspace_bytes(), |next| next.0);
            assert!(offset % ALIGN == 0 && offset + bytes <= next && next < offset + bytes + ALIGN, "array {k}");
        }
    }

    #[test]
    fn sizes_beyond_an_index_are_refused() {
        let plan = |shape| Plan::new(&DriftSpec::official(), shape, Dtype::F16);
        // More than 2^31 pairs, and more than 2^31 coordinates, in fewer than 2^31 blocks.
        assert!(plan(shape(1, 60_000, 0, 60_000, 16)).unwrap().workspace_bytes() > 1 << 34);
        assert!(plan(shape(131_072, 64, 32, 64, 640)).unwrap().workspace_bytes() > 1 << 32);
        assert!(matches!(plan(shape(1 << 31, 1, 0, 1, 1)), Err(Error::TooLarge { .. })));
        assert!(matches!(plan(shape(1, 1, 0, 1 << 31, 1)), Err(Error::TooLarge { .. })));
        assert!(matches!(plan(shape(1 << 30, 640, 0, 640, 128)), Err(Error::TooLarge { .. })));
        assert!(plan(shape(0, 4, 0, 4, 2)).unwrap().blocks[params::Launch_kForce as usize] == 0);
        assert!(matches!(
            Plan::grouped(&DriftSpec::official(), &[], Dtype::F32, Options::default()),
            Err(Error::Value { argument: "shapes", .. })
        ));
    }

    #[test]
    fn small_groups_take_five_launches_however_many_heads() {
        // Spec 11.2, a label: heads of (locations, coordinates).
        let kinds =
            [(1024, 640, 3), (256, 1280, 3), (256, 640, 6), (64, 2560, 4), (64, 1280, 6), (64, 640, 6), (16, 5120, 2)];
        let more = [(16, 2560, 8), (16, 1280, 6), (4, 5120, 4), (4, 2560, 8), (1, 5120, 8), (1, 4096, 1), (1, 2560, 8)];
        let rest = [(1, 1280, 6), (1, 640, 6), (1, 4, 1)];
        let kinds = kinds.into_iter().chain(more).chain(rest);
        let heads: Vec<_> = kinds.flat_map(|(f, d, n)| vec![shape(f, 64, 32, 64, d); n]).collect();
        assert_eq!(heads.len(), 86);
        for dtype in Dtype::ALL {
            let one = plan(&[shape(8192, 64, 32, 64, 640)], dtype, Options::default());
            let all = plan(&heads, dtype, Options::default());
            assert_eq!((one.launches(), all.launches()), (5, 5), "{dtype}");
        }
        let pixel = plan(&[shape(8192, 64, 32, 128, 640)], Dtype::Bf16, Options::default());
        assert_eq!(pixel.launches(), 5);
    }

    #[test]
    fn what_the_plan_decides() {
        let options = Options::default();
        let h100 = Options { shared_bytes: 227 << 10, ..options };
        // As many temperatures in a pass as shared memory holds.
        assert_eq!(plan(&[shape(8192, 64, 32, 64, 640)], Dtype::F16, options).slots, 2);
        assert_eq!(plan(&[shape(8192, 64, 32, 64, 640)], Dtype::F16, h100).slots, 3);
        // Few groups are cut, and add up their distances in one more launch.
        let few = plan(&[shape(2, 64, 32, 64, 196_608)], Dtype::Bf16, options);
        assert!(!few.fused && few.heads[0].slices == 128 && few.launches() == 10);
        assert_eq!(plan(&[shape(128, 64, 32, 64, 5120)], Dtype::Bf16, options).heads[0].slices, 3);
        assert_eq!(plan(&[shape(133, 64, 32, 64, 5120)], Dtype::Bf16, options).launches(), 5);
        // Points of the plane are not worth a matrix of distances.
        let toy = plan(&[shape(1, 2048, 0, 2048, 2)], Dtype::F32, options);
        assert!(toy.workspace_bytes() < 1 << 20, "{} bytes", toy.workspace_bytes());
        let kept = plan(&[shape(1, 2048, 0, 2048, 2)], Dtype::F32, Options { keep_distances: Some(true), ..options });
        assert!(kept.workspace_bytes() > 2048 * 4096 * 4);
        // The zero-sum identity where coordinates are many, in a call or in some of its heads.
        let latent = |dim| shape(512, 64, 32, 64, dim);
        let by_identity = |shapes: &[DriftShape], dtype| -> Vec<bool> {
            plan(shapes, dtype, options).heads.iter().map(|head| head.identity).collect()
        };
        assert_eq!(by_identity(&[latent(64), latent(1280)], Dtype::F32), [false, true]);
        assert_eq!(by_identity(&[latent(256), latent(640), latent(5120)], Dtype::Bf16), [false, true, true]);
        let tf32 = Options { tensor_cores: Some(true), ..options };
        assert!(plan(&[latent(256)], Dtype::F32, tf32).heads[0].identity);
        // More targets than one block has all pairs of.
        let pixels = |dim| shape(512, 64, 32, 128, dim);
        assert_eq!(by_identity(&[pixels(640), pixels(1280)], Dtype::F16), [false, true]);
        assert_eq!(by_identity(&[shape(1, 2048, 0, 2048, 5120)], Dtype::F32), [false]);
        let either = [true, false].map(|identity| Options { identity: Some(identity), ..options });
        let [with, without] = either.map(|options| plan(&[latent(5120)], Dtype::F16, options));
        assert_eq!((with.launches(), without.launches()), (5, 5));
        assert!(with.heads[0].identity && !without.heads[0].identity);
        assert_eq!(
            (with.identity_slots, with.shared[1]),
            (without.slots, without.shared[1]),
            "coefficients of 16 bits"
        );
        assert!(with.workspace_bytes() >= without.workspace_bytes() + 512 * 96 * 160 * 4);
        // One tile of targets where it fits: coefficients are then made once, not for every 128 coordinates.
        let pixels = shape(2, 64, 32, 128, 5120);
        assert_eq!(plan(&[pixels], Dtype::F16, options).heads[0].ranges, 10);
        assert_eq!(plan(&[pixels], Dtype::F32, options).heads[0].ranges, 40);
        // Every plan keeps to the shared memory that it may have.
        for (g, t) in [(1, 1), (64, 160), (64, 96), (64, 64), (65, 300), (200, 500), (17, 224)] {
            for dtype in Dtype::ALL {
                let plan = plan(&[shape(300, g, 0, t, 64)], dtype, options);
                assert!(plan.shared.iter().all(|bytes| bytes + STATIC_SHARED <= 99 << 10), "{g} {t} {dtype}");
            }
        }
        let error = Plan::grouped(
            &DriftSpec::official(),
            &[shape(1, 4, 0, 4, 2)],
            Dtype::F32,
            Options { shared_bytes: 4 << 10, ..options },
        );
        assert!(matches!(error, Err(Error::Value { argument: "shared_bytes", .. })));
    }
}
