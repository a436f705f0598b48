//! The practical force by blocks (spec 6.5): what of it comes from the generated samples and what from the negatives, how
//! far the columns' softmax moves barycentres, and how far finitely many samples do.

use crate::{
    AffinityFloor, Coupling, DriftInputs, DriftSpec, Error, FieldInputs, FieldSpec, Form, Result, Scale, reference,
};

/// A block of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// The generated samples.
    Generated,
    /// The further negatives.
    Negatives,
    /// The positives.
    Positives,
}

impl Block {
    /// All, in the order of the targets.
    pub const ALL: [Self; 3] = [Self::Generated, Self::Negatives, Self::Positives];
}

/// The force of one temperature by blocks, in f64: arrays of three have one entry for each of [`Block::ALL`]. Coordinates
/// are those that [`Scale::sigma`] has divided.
///
/// `F = s_pos s_gen (mu_pos - mu_gen) + s_pos s_neg (mu_pos - mu_neg)` with the masses s and the barycentres mu of the
/// affinities (spec 6.5).
#[derive(Clone, Debug, PartialEq)]
pub struct ForceParts {
    /// The mass s of each block, `[B G]`.
    pub mass: [Vec<f64>; 3],
    /// mu - x, the step to each block's barycentre, [B, G, D]; 0 where the block has no mass.
    pub step: [Vec<f64>; 3],
    /// The step to the barycentre of the row's softmax alone, [B, G, D].
    pub row_step: [Vec<f64>; 3],
    /// The part of the force that repels from the generated samples, [B, G, D].
    pub from_generated: Vec<f64>,
    /// The part that repels from the negatives, [B, G, D].
    pub from_negatives: Vec<f64>,
    /// Effective sample sizes of the affinities in each block, `[B G]` (spec 6.6); 0 without mass.
    pub effective: [Vec<f64>; 3],
    /// The kernel's length scale, in units of the samples.
    pub bandwidth: f64,
    scale: Scale,
}

impl ForceParts {
    /// The parts of each temperature's force.
    ///
    /// # Errors
    /// Those of [`reference::drift`]; [`Error::Value`] for the split form, whose force is a difference of barycentres as
    /// it is.
    pub fn new(spec: &DriftSpec, inputs: &DriftInputs<'_, f64>) -> Result<Vec<Self>> {
        if spec.form != Form::Joint {
            return Err(Error::value("force parts", "form", "joint", format!("{:?}", spec.form)));
        }
        let both = reference::drift(spec, inputs)?;
        let mut alone = spec.clone();
        (alone.coupling, alone.affinity_floor) = (Coupling::Row, AffinityFloor::None);
        let alone = reference::drift(&alone, inputs)?;
        let affinities = both.affinities.iter().zip(&alone.affinities).zip(&spec.temperatures);
        Ok(affinities.map(|((both_a, alone_a), r)| parts(inputs, both.scale, both_a, alone_a, *r)).collect())
    }

    /// Symmetrisation distortion of a block, |mu - mu of the row's softmax alone| at each query, `[B G]`: 0 where the
    /// columns' sums agree within the block.
    pub fn distortion(&self, block: Block) -> Vec<f64> {
        let [a, b] = [&self.step, &self.row_step].map(|steps| &steps[block as usize]);
        distances(a, b, self.mass[0].len())
    }

    /// Finite-pool error of a block of a call with one group: |mu of the row's softmax - the same of `pool` [m, D]| at
    /// each query, `[G]`, for a pool of many more samples of the block's law.
    ///
    /// # Errors
    /// [`Error::Shape`] where the pool has not the inputs' coordinates, or there are several groups.
    pub fn pool_error(
        &self,
        spec: &DriftSpec,
        inputs: &DriftInputs<'_, f64>,
        block: Block,
        pool: (&[f64], [usize; 2]),
    ) -> Result<Vec<f64>> {
        let shape = inputs.shape();
        if shape.groups != 1 {
            return Err(Error::shape("finite-pool error", "groups", [1], [shape.groups]));
        }
        let queries = (inputs.generated().as_slice(), [shape.generated, shape.dim]);
        let field = FieldSpec::new(spec.kernel, self.bandwidth);
        let of_pool = reference::field(&field, &FieldInputs::new(queries, pool, pool)?)?;
        let steps: Vec<f64> = of_pool.ms_p.iter().map(|step| step / self.scale.sigma).collect();
        Ok(distances(&self.row_step[block as usize], &steps, shape.generated))
    }
}

/// |a - b| of each of `count` rows.
fn distances(a: &[f64], b: &[f64], count: usize) -> Vec<f64> {
    let dim = a.len() / count.max(1);
    let norm = |(a, b): (&[f64], &[f64])| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
    a.chunks(dim.max(1)).zip(b.chunks(dim.max(1))).map(norm).collect()
}

fn parts(inputs: &DriftInputs<'_, f64>, scale: Scale, both: &[f64], alone: &[f64], temperature: f64) -> ForceParts {
    let shape = inputs.shape();
    let (queries, targets, dim) = (shape.generated, shape.targets(), shape.dim);
    let negative = queries + shape.negatives;
    let blocks = [0..queries, queries..negative, negative..targets];
    let rows = shape.groups * queries;
    let numbers = || [(); 3].map(|()| vec![0.0; rows]);
    let vectors = || [(); 3].map(|()| vec![0.0; rows * dim]);
    let mut parts = ForceParts {
        mass: numbers(),
        step: vectors(),
        row_step: vectors(),
        from_generated: vec![0.0; rows * dim],
        from_negatives: vec![0.0; rows * dim],
        effective: numbers(),
        bandwidth: temperature * scale.distance,
        scale,
    };
    for row in 0..rows {
        let (b, i) = (row / queries, row % queries);
        let x = inputs.target(b, i);
        let own = row * dim..(row + 1) * dim;
        for (k, block) in blocks.iter().enumerate() {
            for (a, step) in [(both, &mut parts.step), (alone, &mut parts.row_step)] {
                let a = &a[row * targets..][block.clone()];
                let mass: f64 = a.iter().sum();
                if mass == 0.0 {
                    continue;
                }
                for (a, j) in a.iter().zip(block.clone()) {
                    let pairs = inputs.target(b, j).iter().zip(x);
                    for (step, (y, x)) in step[k][own.clone()].iter_mut().zip(pairs) {
                        *step += a / mass * (y - x) / scale.sigma;
                    }
                }
            }
            let a = &both[row * targets..][block.clone()];
            let (mass, squares) = (a.iter().sum::<f64>(), a.iter().map(|a| a * a).sum::<f64>());
            parts.mass[k][row] = mass;
            parts.effective[k][row] = if squares == 0.0 { 0.0 } else { mass * mass / squares };
        }
        let [generated, negatives, positives] = parts.mass.each_ref().map(|mass| mass[row]);
        for at in own {
            let [from, further, to] = parts.step.each_ref().map(|step| step[at]);
            parts.from_generated[at] = positives * generated * (to - from);
            parts.from_negatives[at] = positives * negatives * (to - further);
        }
    }
    parts
}
