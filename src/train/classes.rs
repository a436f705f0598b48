//! Batches of a class-conditional run: labels, guidance scales, and the ring buffers that positives and negatives come
//! from (spec 3.2, 4.3).
//!
//! Every choice is a function of the seed and the step, by random keys: of `count` things those with the `n` least keys
//! are chosen without replacement. Any thread can compute any key, and what the buffers hold follows from the seed and the
//! step too, so that a checkpoint need not hold them.

use crate::data::{Data, Labels, Source};
use crate::rng::{Purpose, Stream, exp, ln};
use crate::{Error, Result};

/// How batches of a class-conditional run are made.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Classes {
    /// L: labels per step, drawn from those just loaded.
    pub labels: usize,
    /// G: generated samples per label.
    pub generated: usize,
    /// P: positives per label, of its class.
    pub positives: usize,
    /// N: negatives per label, of all classes; 0 for none, and no guidance.
    pub negatives: usize,
    /// Least and greatest guidance scale.
    pub guidance: [f64; 2],
    /// The guidance scale's density is proportional to its power with this negative exponent.
    pub power: f64,
    /// The share of labels whose guidance scale is 1.
    pub unguided: f64,
    /// Data loaded into the buffers per step.
    pub loaded: usize,
    /// The size of each class's buffer.
    pub class_buffer: usize,
    /// The size of the buffer of all classes.
    pub buffer: usize,
}

impl Default for Classes {
    /// 10 labels of 64 samples, 64 positives and 32 negatives; the ablation configuration's guidance (1 to 4 with power 3),
    /// buffers of 128 and 1,000, and 64 loaded per step (spec 3.2, 4.3, 10.6).
    fn default() -> Self {
        Self {
            labels: 10,
            generated: 64,
            positives: 64,
            negatives: 32,
            guidance: [1.0, 4.0],
            power: 3.0,
            unguided: 0.0,
            loaded: 64,
            class_buffer: 128,
            buffer: 1000,
        }
    }
}

impl Classes {
    pub(crate) fn validate(&self) -> Result<()> {
        let check = |argument, ok: bool, expected: &str, got: String| {
            if ok { Ok(()) } else { Err(Error::value("class-conditional training", argument, expected, got)) }
        };
        let Self { labels, generated, positives, loaded, class_buffer, buffer, .. } = *self;
        for (argument, count) in [
            ("labels per step", labels),
            ("positives per label", positives),
            ("loaded per step", loaded),
            ("a class's buffer", class_buffer),
            ("the buffer of all classes", buffer),
        ] {
            check(argument, (1..=1 << 20).contains(&count), "1 to 2^20", count.to_string())?;
        }
        check("generated per label", generated >= 2, "at least 2", generated.to_string())?;
        check("negatives per label", self.negatives <= 1 << 20, "at most 2^20", self.negatives.to_string())?;
        let expected = "at most as many as are loaded per step";
        check("labels per step", labels <= loaded, expected, labels.to_string())?;
        let [least, most] = self.guidance;
        let ok = least >= 1.0 && most >= least && most <= 1e6;
        check("guidance", ok, "two numbers of 1 to 1e6 in order", format!("{:?}", self.guidance))?;
        check("guidance power", self.power.abs() <= 20.0, "between -20 and 20", self.power.to_string())?;
        let share = (0.0..=1.0).contains(&self.unguided);
        check("the share without guidance", share, "between 0 and 1", self.unguided.to_string())
    }

    /// (ln alpha, alpha) from a uniform number: the inverse of the distribution function (spec 3.2).
    pub(crate) fn guidance_of(&self, uniform: f32, second: f32) -> (f32, f32) {
        if second < self.unguided as f32 {
            return (0.0, 1.0);
        }
        let GuidanceLaw { from, by, over } = self.law();
        let at = from + uniform * by;
        let log = if over == 0.0 { at } else { ln(at) / over };
        (log, exp(log))
    }

    /// Constants of the inverse.
    pub(crate) fn law(&self) -> GuidanceLaw {
        let over = 1.0 - self.power;
        let [least, most] = self.guidance;
        if over.abs() < 1e-6 {
            let (from, to) = (least.ln(), most.ln());
            return GuidanceLaw { from: from as f32, by: (to - from) as f32, over: 0.0 };
        }
        let (from, to) = (least.powf(over), most.powf(over));
        GuidanceLaw { from: from as f32, by: (to - from) as f32, over: over as f32 }
    }

    /// The weight of each negative (spec 3.1).
    pub(crate) fn weight_of(&self, alpha: f32) -> f32 {
        (alpha - 1.0) * (self.generated as f32 - 1.0) / self.negatives.max(1) as f32
    }
}

/// `ln alpha = ln(from + u by) / over`, or `from + u by` where `over` is 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct GuidanceLaw {
    pub(crate) from: f32,
    pub(crate) by: f32,
    pub(crate) over: f32,
}

/// The order of an epoch: a permutation of `count` things whose every value can be had alone, by a Feistel network over
/// the next power of four that is walked until it is below `count`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch {
    count: u32,
    bits: u32,
    keys: [u32; 4],
}

impl Epoch {
    pub(crate) fn new(seed: u64, epoch: u64, count: u32) -> Self {
        let mut stream = Stream::new(seed, Purpose::Loader, epoch);
        let bits = (32 - count.saturating_sub(1).leading_zeros()).div_ceil(2).max(1);
        Self { count, bits, keys: std::array::from_fn(|_| stream.bits()) }
    }

    pub(crate) fn at(&self, position: u32) -> u32 {
        let mask = (1u32 << self.bits) - 1;
        let mut value = position;
        loop {
            let (mut left, mut right) = (value >> self.bits, value & mask);
            for key in self.keys {
                let mut mixed = (right ^ key).wrapping_mul(0x9e37_79b1);
                mixed = (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca77);
                (left, right) = (right, left ^ (mixed >> 13 & mask));
            }
            value = left << self.bits | right;
            if value < self.count {
                return value;
            }
        }
    }
}

/// What has been loaded, on the host.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    seed: u64,
    count: u32,
    /// How many data have been loaded.
    loaded: u64,
    epoch: (u64, Epoch),
    /// The last data of each class [classes, class_buffer], and how many there were.
    pub(crate) of_class: Vec<u32>,
    pub(crate) counts: Vec<u64>,
}

impl Buffers {
    /// The buffers of data after one epoch and `steps` steps, with their labels and their values.
    pub(crate) fn of<'a>(
        classes: &Classes,
        data: &'a Data,
        seed: u64,
        steps: u64,
    ) -> Result<(Self, &'a Labels, &'a [f32])> {
        classes.validate()?;
        let Source::Points { values, labels: Some(labels), .. } = data.source() else {
            return Err(Error::value("class-conditional training", "labels", "one for each of the data", "none"));
        };
        Ok((Self::after(classes, labels, seed, steps), labels, values))
    }

    /// The buffers after one epoch and `steps` steps.
    fn after(classes: &Classes, labels: &Labels, seed: u64, steps: u64) -> Self {
        let count = labels.of.len() as u32;
        let mut buffers = Self {
            seed,
            count,
            loaded: 0,
            epoch: (0, Epoch::new(seed, 0, count)),
            of_class: vec![0; labels.classes * classes.class_buffer],
            counts: vec![0; labels.classes],
        };
        buffers.load(classes, labels, u64::from(count) + steps * classes.loaded as u64);
        buffers
    }

    /// The number of the datum that is loaded `at`, counted from the first.
    fn datum(&self, at: u64) -> u32 {
        let epoch = at / u64::from(self.count);
        let order = if self.epoch.0 == epoch { self.epoch.1 } else { Epoch::new(self.seed, epoch, self.count) };
        order.at((at % u64::from(self.count)) as u32)
    }

    fn load(&mut self, classes: &Classes, labels: &Labels, more: u64) {
        for at in self.loaded..self.loaded + more {
            let epoch = at / u64::from(self.count);
            if self.epoch.0 != epoch {
                self.epoch = (epoch, Epoch::new(self.seed, epoch, self.count));
            }
            let datum = self.datum(at);
            let label = labels.of[datum as usize] as usize;
            let slot = self.counts[label] % classes.class_buffer as u64;
            self.of_class[label * classes.class_buffer + slot as usize] = datum;
            self.counts[label] += 1;
        }
        self.loaded += more;
    }
}

/// The choices of a step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Choices {
    /// `[L]`.
    pub(crate) labels: Vec<u32>,
    /// ln alpha and the weight of a negative, `[L]`.
    pub(crate) guidance: Vec<(f32, f32)>,
    /// Numbers of data, [L, P] and [L, N].
    pub(crate) positives: Vec<u32>,
    pub(crate) negatives: Vec<u32>,
}

impl Choices {
    /// Loads what step `step` (counted from 1) loads, and chooses.
    pub(crate) fn of_step(classes: &Classes, labels: &Labels, buffers: &mut Buffers, step: u64) -> Self {
        buffers.load(classes, labels, classes.loaded as u64);
        let (seed, loaded) = (buffers.seed, buffers.loaded);
        let last = chosen(seed, Purpose::Labels, step, 0, classes.loaded, classes.loaded, classes.labels);
        let label = |k: u32| labels.of[buffers.datum(loaded - 1 - u64::from(k)) as usize];
        let step_labels: Vec<u32> = last.into_iter().map(label).collect();
        let mut uniform = Stream::new(seed, Purpose::Guidance, step);
        let guidance = step_labels.iter().map(|_| {
            let (log, alpha) = classes.guidance_of(uniform.uniform(), uniform.uniform());
            (log, classes.weight_of(alpha))
        });
        let guidance = guidance.collect();
        let mut positives = Vec::with_capacity(classes.labels * classes.positives);
        let mut negatives = Vec::with_capacity(classes.labels * classes.negatives);
        for (slot, label) in step_labels.iter().enumerate() {
            let buffer = &buffers.of_class[*label as usize * classes.class_buffer..][..classes.class_buffer];
            let count = buffers.counts[*label as usize].min(buffer.len() as u64) as usize;
            let room = classes.class_buffer.max(classes.positives);
            let chosen_positives = chosen(seed, Purpose::Positives, step, slot, room, count, classes.positives);
            positives.extend(chosen_positives.into_iter().map(|k| buffer[k as usize]));
            let count = loaded.min(classes.buffer as u64) as usize;
            let room = classes.buffer.max(classes.negatives);
            for k in chosen(seed, Purpose::Negatives, step, slot, room, count, classes.negatives) {
                negatives.push(buffers.datum(loaded - 1 - u64::from(k)));
            }
        }
        Self { labels: step_labels, guidance, positives, negatives }
    }
}

/// `n` numbers below `count`, without replacement where there are so many, else with it; for one of several slots, which
/// have `room` random integers each.
fn chosen(seed: u64, purpose: Purpose, step: u64, slot: usize, room: usize, count: usize, n: usize) -> Vec<u32> {
    let mut stream = Stream::at(seed, purpose, step, (slot * room) as u64);
    if count < n {
        return (0..n).map(|_| stream.index(count) as u32).collect();
    }
    let mut keys: Vec<(u32, u32)> = (0..count as u32).map(|k| (stream.bits(), k)).collect();
    if n < count {
        keys.select_nth_unstable(n);
        keys.truncate(n);
    }
    keys.sort_unstable();
    keys.into_iter().map(|(_, k)| k).collect()
}

/// The labels of a run's data.
pub(crate) fn labels_of(data: &Data) -> Option<&Labels> {
    match data.source() {
        Source::Points { labels, .. } => labels.as_ref(),
        Source::Toy(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_every_datum_once() {
        for count in [1, 2, 3, 4, 5, 16, 17, 1797, 4096] {
            for epoch in 0..3 {
                let order = Epoch::new(7, epoch, count);
                let mut seen: Vec<u32> = (0..count).map(|k| order.at(k)).collect();
                assert!(count <= 16 || !seen.iter().zip(0..).all(|(a, b)| *a == b));
                seen.sort_unstable();
                assert!(seen.into_iter().eq(0..count), "{count}");
            }
        }
    }

    fn small() -> (Classes, Labels) {
        let of: Vec<u32> = (0..100).map(|k| if k < 3 { 2 } else { k % 2 }).collect();
        let classes = Classes {
            labels: 6,
            generated: 4,
            positives: 5,
            negatives: 7,
            loaded: 9,
            class_buffer: 8,
            buffer: 20,
            ..Classes::default()
        };
        (classes, Labels { of, classes: 3 })
    }

    #[test]
    fn buffers_hold_the_last_of_their_class_and_follow_from_the_step() {
        let (classes, labels) = small();
        let mut buffers = Buffers::after(&classes, &labels, 1, 0);
        let mut history: Vec<u32> = (0..100).map(|at| buffers.datum(at)).collect();
        for step in 1..40 {
            let choices = Choices::of_step(&classes, &labels, &mut buffers, step);
            let begin = history.len();
            history.extend((0..9).map(|k| buffers.datum((begin + k) as u64)));
            let recent = &history[history.len() - 20..];
            let last: Vec<u32> = history[begin..].iter().map(|at| labels.of[*at as usize]).collect();
            assert!(choices.negatives.iter().all(|at| recent.contains(at)));
            for (slot, label) in choices.labels.iter().enumerate() {
                assert!(last.contains(label));
                let of_class: Vec<u32> =
                    history.iter().rev().filter(|at| labels.of[**at as usize] == *label).take(8).copied().collect();
                let positives = &choices.positives[slot * 5..][..5];
                assert!(positives.iter().all(|at| of_class.contains(at)), "{positives:?} {of_class:?}");
            }
            let again = Buffers::after(&classes, &labels, 1, step);
            assert_eq!(
                (again.of_class, again.counts, again.loaded),
                (buffers.of_class.clone(), buffers.counts.clone(), buffers.loaded)
            );
        }
    }

    #[test]
    fn choices_are_without_replacement_where_they_can_be() {
        for slot in 0..3 {
            let mut all = chosen(1, Purpose::Positives, 2, slot, 10, 10, 10);
            all.sort_unstable();
            assert!(all.into_iter().eq(0..10));
            let some = chosen(1, Purpose::Positives, 2, slot, 10, 10, 4);
            assert!((0..4).all(|k| !some[..k].contains(&some[k])));
            assert!(chosen(1, Purpose::Positives, 2, slot, 10, 3, 4).into_iter().all(|k| k < 3));
        }
    }

    #[test]
    fn guidance_follows_its_law() {
        // P(alpha > t) of the density alpha^-k on [1, 4], at quarters of the uniform number.
        for (power, want) in [(3.0, [1.143, 1.372, 1.835]), (1.0, [1.414, 2.0, 2.828]), (0.0, [1.75, 2.5, 3.25])] {
            let classes = Classes { power, ..Classes::default() };
            for (u, want) in [0.25, 0.5, 0.75].into_iter().zip(want) {
                let (log, alpha) = classes.guidance_of(u, 0.5);
                assert!((f64::from(alpha) - want).abs() <= 1e-3, "{power} {u}: {alpha}");
                assert!((f64::from(log) - f64::from(alpha).ln()).abs() <= 1e-6);
            }
        }
        let half = Classes { unguided: 0.5, ..Classes::default() };
        assert_eq!(half.guidance_of(0.9, 0.4), (0.0, 1.0));
        // Spec 3.1: G = 64, N = 32, alpha = 4.
        assert_eq!(half.weight_of(4.0), 5.90625);
    }

    #[test]
    fn impossible_numbers_are_refused() {
        Classes::default().validate().unwrap();
        for change in [
            |c: &mut Classes| c.labels = 0,
            |c: &mut Classes| c.labels = 65,
            |c: &mut Classes| c.generated = 1,
            |c: &mut Classes| c.positives = 0,
            |c: &mut Classes| c.guidance = [0.5, 2.0],
            |c: &mut Classes| c.guidance = [2.0, f64::NAN],
            |c: &mut Classes| c.power = f64::NAN,
            |c: &mut Classes| c.unguided = 1.5,
            |c: &mut Classes| c.class_buffer = 0,
            |c: &mut Classes| c.buffer = 1 << 21,
        ] {
            let mut classes = Classes::default();
            change(&mut classes);
            assert!(matches!(classes.validate(), Err(Error::Value { .. })), "{classes:?}");
        }
    }
}
