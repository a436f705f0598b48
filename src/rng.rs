//! Counter-based random numbers: Philox4x32-10, and floats made from its integers with basic operations only.
//!
//! A value depends on (seed, purpose, step, index) and on nothing else, so any thread or device can produce any part
//! of a stream, and a resumed run needs no generator state beyond its step. Uniforms are exact; normals use only IEEE
//! additions, multiplications, divisions and square roots, never fused, so that every backend can repeat their bits.

use crate::cpu::isa::{Isa, LANES, per_isa};
use rayon::prelude::*;

/// What a stream is for; streams of different purposes never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// Initial parameters; the step is the layer.
    Init = 0,
    /// The generator's noise in a training step.
    Noise = 1,
    /// The data batch of a training step.
    Data = 2,
    /// The noise of an evaluation.
    EvaluationNoise = 3,
    /// The data of an evaluation.
    EvaluationData = 4,
    /// Directions of a sliced metric.
    Projections = 5,
    /// The noise of samples that are kept.
    Samples = 6,
    /// The order in which labelled data are loaded; the step is the epoch.
    Loader = 7,
    /// Which labels a training step has.
    Labels = 8,
    /// Their guidance scales.
    Guidance = 9,
    /// Which samples of their classes they are drawn to.
    Positives = 10,
    /// Which samples of all classes they are pushed from.
    Negatives = 11,
    /// Random Fourier features; the step is the feature's number.
    Features = 12,
    /// Mixtures of diagnostics (step 0), and their samples.
    Synthetic = 13,
    /// Directions of a sliced field.
    Directions = 14,
    /// The noise on the samples at which a field is taken.
    Queries = 15,
    /// Which data are landmarks.
    Landmarks = 16,
    /// The order of a classifier's training set; the step is the epoch.
    ClassifierOrder = 32,
    /// The noise on a classifier's inputs in a training step.
    ClassifierNoise = 33,
}

/// A stream of 32-bit integers: Philox4x32-10 with the seed as key and (block, step, purpose) as counter, of 64, 56 and
/// 8 bits. A stream is 2^66 integers long.
///
/// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    /// Step and purpose, the upper half of the counter.
    upper: u64,
    block: u64,
    buffer: [u32; 4],
    used: usize,
    spare_normal: Option<f32>,
}

impl Stream {
    /// The stream of `purpose` at `step` (modulo 2^56), from its beginning.
    pub fn new(seed: u64, purpose: Purpose, step: u64) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            upper: (step & (u64::MAX >> 8)) | (purpose as u64) << 56,
            block: 0,
            buffer: [0; 4],
            used: 4,
            spare_normal: None,
        }
    }

    /// As [`Stream::new`], from the integer `index` on.
    pub(crate) fn at(seed: u64, purpose: Purpose, step: u64, index: u64) -> Self {
        let mut stream = Self { block: index / 4, ..Self::new(seed, purpose, step) };
        for _ in 0..index % 4 {
            stream.bits();
        }
        stream
    }

    /// The next integer, uniform over all u32.
    pub fn bits(&mut self) -> u32 {
        if self.used == 4 {
            self.buffer = philox(counter(self.block, self.upper), self.key);
            self.block = self.block.wrapping_add(1);
            self.used = 0;
        }
        self.used += 1;
        self.buffer[self.used - 1]
    }

    /// Uniform in [0, 1): the upper 24 bits of one integer times 2^-24.
    pub fn uniform(&mut self) -> f32 {
        uniform(self.bits())
    }

    /// Uniform over 0..n, for n from 1 to 2^32: the high half of a product, biased by less than n / 2^32.
    pub fn index(&mut self, n: usize) -> usize {
        ((u64::from(self.bits()) * n as u64) >> 32) as usize
    }

    /// Standard normal: Box–Muller on two integers, both values used.
    pub fn normal(&mut self) -> f32 {
        if let Some(z) = self.spare_normal.take() {
            return z;
        }
        let [z, spare] = normals(self.bits(), self.bits());
        self.spare_normal = Some(spare);
        z
    }

    /// `n` standard normals.
    pub fn normals(&mut self, n: usize) -> Vec<f32> {
        let mut z = vec![0.0; n];
        // Whole blocks have no order among them; those that fill no vectors come with the rest.
        let whole = if self.used == 4 && self.spare_normal.is_none() { n / (4 * LANES) * LANES } else { 0 };
        let (blocks, rest) = z.split_at_mut(4 * whole);
        let (isa, key, upper, first) = (Isa::detect(), self.key, self.upper, self.block);
        blocks.par_chunks_mut(4 * TASK).enumerate().for_each(|(at, z)| {
            normals_of_blocks(isa, key, upper, first.wrapping_add((at * TASK) as u64), z);
        });
        self.block = first.wrapping_add(whole as u64);
        rest.iter_mut().for_each(|z| *z = self.normal());
        z
    }
}

/// Blocks of integers that a task makes normals of; a multiple of LANES.
const TASK: usize = 2048;

per_isa! {
    /// Four normals of each of a multiple of LANES blocks of integers, from block `first` on. No V is used: a lane block of blocks at a time the
    /// compiler makes vectors of the same operations itself, whose bits are those of [`Stream::normal`].
    fn normals_of_blocks(key: [u32; 2], upper: u64, first: u64, z: &mut [f32]) {
        for (at, z) in z.as_chunks_mut::<{ 4 * LANES }>().0.iter_mut().enumerate() {
            let mut integers = [[0; LANES]; 4];
            for l in 0..LANES {
                let of = philox(counter(first.wrapping_add((at * LANES + l) as u64), upper), key);
                for k in 0..4 {
                    integers[k][l] = of[k];
                }
            }
            let mut made = [[0.0; LANES]; 4];
            for k in [0, 2] {
                for l in 0..LANES {
                    let [one, two] = normals(integers[k][l], integers[k + 1][l]);
                    made[k][l] = one;
                    made[k + 1][l] = two;
                }
            }
            for l in 0..LANES {
                for k in 0..4 {
                    z[4 * l + k] = made[k][l];
                }
            }
        }
    }
}

/// Two standard normals of two integers.
#[inline(always)]
fn normals(first: u32, second: u32) -> [f32; 2] {
    // All 32 bits, in (0, 1]: 24 would end the tails at 5.8 standard deviations, these at 6.8.
    let u = (first as f32 + 0.5) * (1.0 / 4_294_967_296.0);
    let radius = (-2.0 * ln(u)).sqrt();
    let (sin, cos) = sin_cos_turns(uniform(second));
    [radius * cos, radius * sin]
}

#[inline(always)]
fn uniform(bits: u32) -> f32 {
    (bits >> 8) as f32 * (1.0 / 16_777_216.0)
}

#[inline(always)]
fn counter(block: u64, upper: u64) -> [u32; 4] {
    [block as u32, (block >> 32) as u32, upper as u32, (upper >> 32) as u32]
}

#[inline(always)]
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
        }
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
    }
    counter
}

/// e^x for |x| up to 80, relative error about 1e-7: a power of two and a polynomial.
pub(crate) fn exp(x: f32) -> f32 {
    let power = (x * std::f32::consts::LOG2_E).round();
    // ln 2 in two parts, of which the first has few digits.
    let r = (x - power * 0.693_359_4) - power * -2.121_944_4e-4;
    let series = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let value = series.into_iter().reduce(|sum, term| sum * r + term).unwrap_or(1.0);
    value * f32::from_bits(((power as i32 + 127) as u32) << 23)
}

/// ln(u) for positive u, relative error about 1e-7: the mantissa's series in (m - 1) / (m + 1).
#[inline(always)]
pub(crate) fn ln(u: f32) -> f32 {
    let bits = u.to_bits();
    let m = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000);
    // Without a branch, here and below, so that many at a time become vectors.
    let upper = m > std::f32::consts::SQRT_2;
    let m = if upper { m * 0.5 } else { m };
    let exponent = (bits >> 23) as i32 - 127 + i32::from(upper);
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let series = ((s2 / 9.0 + 1.0 / 7.0) * s2 + 0.2) * s2 + 1.0 / 3.0;
    exponent as f32 * std::f32::consts::LN_2 + 2.0 * (s + s * s2 * series)
}

/// (sin, cos) of `u` full turns, absolute error about 1e-7.
#[inline(always)]
pub(crate) fn sin_cos_turns(u: f32) -> (f32, f32) {
    let quarter = (u * 4.0).round();
    let r = (u * 4.0 - quarter) * std::f32::consts::FRAC_PI_2;
    let r2 = r * r;
    let sin = r + r * r2 * (-1.666_666_5e-1 + r2 * (8.332_161e-3 - r2 * 1.951_529_6e-4));
    let cos = 1.0 - 0.5 * r2 + r2 * r2 * (4.166_664_6e-2 + r2 * (-1.388_731_6e-3 + r2 * 2.443_315_7e-5));
    let quarter = quarter as i32;
    let (a, b) = if quarter & 1 == 0 { (sin, cos) } else { (cos, sin) };
    let negate = |v: f32, odd: i32| f32::from_bits(v.to_bits() ^ ((odd as u32 & 2) << 30));
    (negate(a, quarter), negate(b, quarter.wrapping_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors of Philox publish with their library (Random123, kat_vectors).
    #[test]
    fn philox_known_answers() {
        for (counter, key, want) in [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), want);
        }
    }

    #[test]
    fn elementary_functions() {
        let tails = (0..40).map(|k| 0.5f32.powi(k));
        for u in (1..=100_000).map(|k| k as f32 / 100_000.0).chain(tails) {
            let exact = f64::from(u).ln();
            assert!((f64::from(ln(u)) - exact).abs() <= 3e-7 * exact.abs().max(0.3), "ln {u}");
            let x = 20.0 * u - 10.0;
            assert!((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs() <= 3e-7, "exp {x}");
            let (sin, cos) = sin_cos_turns(u);
            let angle = f64::from(u) * std::f64::consts::TAU;
            assert!((f64::from(sin) - angle.sin()).abs() <= 3e-7, "sin {u}");
            assert!((f64::from(cos) - angle.cos()).abs() <= 3e-7, "cos {u}");
        }
    }

    #[test]
    fn normals_have_the_moments_of_a_normal() {
        let z = Stream::new(7, Purpose::Noise, 3).normals(1 << 20);
        let moment = |k: i32| z.iter().map(|z| f64::from(*z).powi(k)).sum::<f64>() / z.len() as f64;
        for (k, want) in [(1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0), (6, 15.0)] {
            let error = (moment(k) - want).abs();
            assert!(error <= 5.0 * [0.0, 1.0, 1.4, 3.9, 9.8, 0.0, 100.0][k as usize] / 1024.0, "{k}: {error}");
        }
    }

    #[test]
    fn many_normals_are_those_one_by_one() {
        for (skipped, n) in [(0, 5), (0, 16_384 * 2 + 71), (1, 100), (2, 100), (3, 9), (4, 130), (0, 0)] {
            let (mut many, mut single) = (Stream::new(5, Purpose::Noise, 9), Stream::new(5, Purpose::Noise, 9));
            (0..skipped).for_each(|_| assert_eq!(many.normal(), single.normal()));
            let one_by_one: Vec<f32> = (0..n).map(|_| single.normal()).collect();
            assert_eq!(many.normals(n), one_by_one, "{skipped} {n}");
            assert_eq!(many.normal(), single.normal());
            for isa in Isa::available() {
                let mut z = vec![0.0; n / (4 * LANES) * 4 * LANES];
                let stream = Stream::new(5, Purpose::Noise, 9);
                normals_of_blocks(isa, stream.key, stream.upper, 0, &mut z);
                assert!(skipped > 0 || z == one_by_one[..z.len()], "{}", isa.name());
            }
        }
    }

    #[test]
    fn streams_differ_by_seed_purpose_and_step() {
        let first = |seed, purpose, step| Stream::new(seed, purpose, step).bits();
        let base = first(1, Purpose::Noise, 1);
        assert_eq!(base, first(1, Purpose::Noise, 1));
        for other in [first(2, Purpose::Noise, 1), first(1, Purpose::Data, 1), first(1, Purpose::Noise, 1 << 40)] {
            assert_ne!(base, other);
        }
    }
}
