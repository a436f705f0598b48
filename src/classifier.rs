//! A classifier of its own, which judges class-conditional generators: it has seen the data, never the generator.
//!
//! Published class-conditional results come with an accuracy (spec 7.5): the share of samples that a classifier assigns
//! to the class that they were asked for. Theirs is not known; this one is a plain [`Mlp`] over standardised
//! coordinates, trained on the CPU with the softmax cross-entropy (project choice).

use crate::features::Encoder;
use crate::generator::{Mlp, f32_view, floats, open, read, serialize};
use crate::supervised::{Standard, fit};
use crate::{Error, Result};
use std::path::Path;

pub use crate::supervised::Options;

const OP: &str = "classifier";

/// How the names of a classifier's tensors begin.
const PREFIX: &str = "classifier.";

/// A classifier of points [n, D] into classes 0, 1, …: a multi-layer perceptron with one output per class, over
/// coordinates of which the training set's mean is taken and that are divided by its standard deviation.
///
/// ```
/// use cudrift::classifier::{Classifier, Options};
/// let (x, labels) = ([-1.0f32, -1.1, 1.0, 0.9], [0, 0, 1, 1]);
/// let classifier = Classifier::train(&x, &labels, 2, &Options::default(), 0)?;
/// assert_eq!(classifier.predict(&[-0.8, 1.2])?, [0, 1]);
/// # Ok::<(), cudrift::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Classifier {
    model: Mlp,
    /// Of the training set.
    standard: Standard,
}

impl Classifier {
    /// A classifier trained on points [n, D], n at least 1, with one label each, below `classes`.
    ///
    /// The same arguments give the same bits on the same machine, for any number of threads.
    ///
    /// # Errors
    /// [`Error::Shape`] where `x` is not one point per label; [`Error::Value`] where there are fewer than two classes
    /// or no points, a label is not below `classes`, a coordinate is not finite, or for an impossible number in
    /// `options`; [`Error::TooLarge`] where memory does not suffice; [`Error::Diverged`] where the loss is not finite
    /// at some step.
    pub fn train(x: &[f32], labels: &[usize], classes: usize, options: &Options, seed: u64) -> Result<Self> {
        Self::train_with(x, labels, classes, options, seed, |_, _| ())
    }

    /// As [`Classifier::train`], with a call after every epoch: how many are done, and the loss of the last batch.
    ///
    /// # Errors
    /// As [`Classifier::train`].
    pub fn train_with(
        x: &[f32],
        labels: &[usize],
        classes: usize,
        options: &Options,
        seed: u64,
        each_epoch: impl FnMut(usize, f64),
    ) -> Result<Self> {
        options.validate()?;
        if classes < 2 {
            return Err(Error::value(OP, "the number of classes", "at least 2", classes));
        }
        let n = labels.len();
        if n == 0 {
            return Err(Error::value(OP, "the number of points", "at least 1", n));
        }
        if x.is_empty() || !x.len().is_multiple_of(n) {
            return Err(Error::shape(OP, "x", format_args!("[{n}, D]"), [x.len()]));
        }
        check_labels(labels, classes)?;
        Error::check_finite(OP, "x", x)?;
        let dim = x.len() / n;

        let mut sizes = vec![dim];
        sizes.extend(&options.hidden);
        sizes.push(classes);
        let standard = Standard::of(x, dim, options.min_deviation);
        let model = Mlp::new(sizes.as_slice(), seed)?;
        let loss =
            |outputs: &mut [f32], rows: &[usize]| cross_entropy(outputs, classes, rows.iter().map(|row| labels[*row]));
        let model = fit(model, &standard.applied(x)?, options, seed, loss, each_epoch)?;
        Ok(Self { model, standard })
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.model.output_dim()
    }

    /// The number of coordinates of a point.
    pub fn dim(&self) -> usize {
        self.model.input_dim()
    }

    /// The most probable class of each point of [n, D], the lower one of two.
    ///
    /// # Errors
    /// [`Error::Shape`] where `x` is not a whole number of points; [`Error::Value`] where a coordinate is not finite,
    /// or so far out that an output is not; [`Error::TooLarge`] where memory does not suffice.
    pub fn predict(&self, x: &[f32]) -> Result<Vec<usize>> {
        let best =
            |logits: &[f32]| (1..logits.len()).fold(0, |best, c| if logits[c] > logits[best] { c } else { best });
        Ok(self.logits(x)?.chunks_exact(self.classes()).map(best).collect())
    }

    /// The probabilities of all classes [n, classes] for points [n, D].
    ///
    /// # Errors
    /// As [`Classifier::predict`].
    pub fn probabilities(&self, x: &[f32]) -> Result<Vec<f32>> {
        let mut logits = self.logits(x)?;
        logits.chunks_exact_mut(self.classes()).for_each(|logits| {
            softmax(logits);
        });
        Ok(logits)
    }

    /// The share of points [n, D], n at least 1, that [`Classifier::predict`] gives their label.
    ///
    /// # Errors
    /// As [`Classifier::predict`]; [`Error::Shape`] where `x` is not one point per label; [`Error::Value`] where there
    /// are no points, or a label is not below [`Classifier::classes`].
    pub fn accuracy(&self, x: &[f32], labels: &[usize]) -> Result<f64> {
        check_labels(labels, self.classes())?;
        if labels.len().checked_mul(self.dim()) != Some(x.len()) {
            return Err(Error::shape(OP, "x", [labels.len(), self.dim()], [x.len()]));
        }
        if labels.is_empty() {
            return Err(Error::value(OP, "the number of points", "at least 1", 0));
        }
        let right = self.predict(x)?.iter().zip(labels).filter(|(a, b)| a == b).count();
        Ok(right as f64 / labels.len() as f64)
    }

    /// Its hidden layers, as features of points.
    ///
    /// # Errors
    /// [`Error::Value`] where it has none.
    pub fn encoder(&self) -> Result<Encoder> {
        Encoder::of_first(&self.model, self.model.architecture().hidden.len(), &self.standard)
    }

    /// Writes this classifier to a safetensors file, atomically: the network's tensors as [`Mlp::save`] names them,
    /// `mean` `[D]` and `deviation` `[D]`, all with `classifier.` before the name.
    ///
    /// # Errors
    /// [`Error::Io`] with the system's answer.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = self.model.tensors(PREFIX, self.model.parameters())?;
        for (name, values) in [("mean", &self.standard.mean), ("deviation", &self.standard.deviation)] {
            tensors.push((format!("{PREFIX}{name}"), f32_view(vec![values.len()], values)?));
        }
        crate::files::write_atomically(path, &serialize(tensors, None)?)
    }

    /// Reads a classifier from a safetensors file.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read; [`Error::Format`] where it is not a classifier.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::io("read", path, source))?;
        let file = open(&bytes, path)?;
        let bad = |problem: String| Error::format(path, problem);
        if !file.names().iter().any(|name| name.starts_with(PREFIX)) {
            return Err(bad(format!("no tensor {PREFIX}*, so this is not a classifier")));
        }
        let model = read(&file, PREFIX, path)?;
        let moment = |name: &str, ok: fn(&f32) -> bool, expected: &str| {
            let values = floats(&file, &format!("{PREFIX}{name}"), path)?;
            if values.len() != model.input_dim() {
                let (have, want) = (values.len(), model.input_dim());
                return Err(bad(format!("tensor {PREFIX}{name} has {have} elements, expected {want}")));
            }
            match values.iter().find(|v| !ok(v)) {
                Some(v) => Err(bad(format!("tensor {PREFIX}{name} has an element {v}, expected {expected}"))),
                None => Ok(values),
            }
        };
        let mean = moment("mean", |v| v.is_finite(), "finite numbers")?;
        let deviation = moment("deviation", |v| v.is_finite() && *v > 0.0, "finite numbers > 0")?;
        if model.output_dim() < 2 {
            return Err(bad("the classifier has one class, expected at least 2".to_owned()));
        }
        Ok(Self { model, standard: Standard { mean, deviation } })
    }

    /// The outputs [n, classes] for points [n, D].
    fn logits(&self, x: &[f32]) -> Result<Vec<f32>> {
        /// Points whose activations are held at a time.
        const BLOCK: usize = 1 << 12;
        let dim = self.dim();
        if !x.len().is_multiple_of(dim) {
            return Err(Error::shape(OP, "x", format_args!("[n, {dim}]"), [x.len()]));
        }
        Error::check_finite(OP, "x", x)?;
        let mut logits = Vec::new();
        for block in x.chunks(BLOCK * dim) {
            logits.extend(self.model.forward(&self.standard.applied(block)?)?);
        }
        Error::check_finite(OP, "an output", &logits)?;
        Ok(logits)
    }
}

fn check_labels(labels: &[usize], classes: usize) -> Result<()> {
    match labels.iter().find(|label| **label >= classes) {
        Some(label) => Err(Error::value(OP, "a label", format!("0 to {}", classes - 1), label)),
        None => Ok(()),
    }
}

/// Logits to probabilities; returns the logarithm of the sum that they were divided by, their maximum included.
fn softmax(logits: &mut [f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp = |z: f32| f64::from(z - max).exp();
    let sum: f64 = logits.iter().map(|z| exp(*z)).sum();
    logits.iter_mut().for_each(|z| *z = (exp(*z) / sum) as f32);
    f64::from(max) + sum.ln()
}

/// The mean over points of `ln sum_c exp(z_c) - z_label` for logits z [n, classes], which its gradient takes the place
/// of.
fn cross_entropy(logits: &mut [f32], classes: usize, labels: impl ExactSizeIterator<Item = usize>) -> f64 {
    let n = labels.len();
    let mut sum = 0.0;
    for (z, label) in logits.chunks_exact_mut(classes).zip(labels) {
        let own = f64::from(z[label]);
        sum += softmax(z) - own;
        z[label] -= 1.0;
        z.iter_mut().for_each(|z| *z /= n as f32);
    }
    sum / n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    /// `each` points about every centre in the plane, with normal noise, and the centres' classes.
    fn blobs(centres: &[([f32; 2], usize)], each: usize, spread: f32, seed: u64) -> (Vec<f32>, Vec<usize>) {
        let mut stream = Stream::new(seed, Purpose::Data, 0);
        let (mut x, mut labels) = (Vec::new(), Vec::new());
        for (centre, label) in centres.iter().cycle().take(each * centres.len()) {
            x.extend(centre.map(|c| c + spread * stream.normal()));
            labels.push(*label);
        }
        (x, labels)
    }

    const CORNERS: [([f32; 2], usize); 3] = [([0.0, 0.0], 0), ([4.0, 0.0], 1), ([0.0, 4.0], 2)];

    fn quick() -> Options {
        Options { hidden: vec![32], epochs: 30, ..Options::default() }
    }

    #[test]
    fn three_blobs_whatever_the_units() {
        let scaled = |seed| {
            let (x, labels) = blobs(&CORNERS, 200, 0.7, seed);
            let x: Vec<f32> = x.chunks(2).flat_map(|x| [1e3 * x[0] + 7e4, 1e-3 * x[1]]).collect();
            (x, labels)
        };
        let (x, labels) = scaled(1);
        let options = Options { min_deviation: 0.0, ..quick() };
        let classifier = Classifier::train(&x, &labels, 3, &options, 0).unwrap();
        assert_eq!((classifier.dim(), classifier.classes()), (2, 3));
        let (x, labels) = scaled(2);
        let accuracy = classifier.accuracy(&x, &labels).unwrap();
        assert!(accuracy >= 0.99, "{accuracy}");
        let probabilities = classifier.probabilities(&x).unwrap();
        for (p, class) in probabilities.chunks(3).zip(classifier.predict(&x).unwrap()) {
            assert!((p.iter().sum::<f32>() - 1.0).abs() <= 1e-6 && p.iter().all(|q| *q <= p[class]), "{p:?}");
        }
    }

    #[test]
    fn exclusive_or() {
        let centres = [([-1.0, -1.0], 0), ([1.0, 1.0], 0), ([-1.0, 1.0], 1), ([1.0, -1.0], 1)];
        let (x, labels) = blobs(&centres, 100, 0.3, 1);
        let options = Options { epochs: 100, ..quick() };
        let classifier = Classifier::train(&x, &labels, 2, &options, 0).unwrap();
        let (x, labels) = blobs(&centres, 100, 0.3, 2);
        let accuracy = classifier.accuracy(&x, &labels).unwrap();
        assert!(accuracy >= 0.99, "{accuracy}");
    }

    #[test]
    fn the_threads_leave_no_trace_and_the_seed_does() {
        let (x, labels) = blobs(&CORNERS, 100, 1.0, 1);
        let options = Options { batch: 200, epochs: 3, ..Options::default() };
        let train = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| Classifier::train(&x, &labels, 3, &options, seed)).unwrap()
        };
        let one = train(1, 5);
        assert_eq!(one, train(4, 5));
        assert_ne!(one, train(4, 6));
    }

    /// The last layer of the encoder's features gives what the classifier does, of the points as they come.
    #[test]
    fn its_encoder_takes_points_as_they_come() {
        let (x, labels) = blobs(&CORNERS, 50, 0.7, 1);
        let x: Vec<f32> = x.chunks(2).flat_map(|x| [10.0 * x[0] + 70.0, x[1] - 3.0]).collect();
        let options = Options { hidden: vec![9, 4], epochs: 3, min_deviation: 0.0, ..quick() };
        let classifier = Classifier::train(&x, &labels, 3, &options, 0).unwrap();
        let features = classifier.encoder().unwrap().features(&x).unwrap();
        let last = &classifier.model.parameters()[(2 + 1) * 9 + (9 + 1) * 4..];
        let (weight, bias) = last.split_at(4 * 3);
        let logits = features.chunks(4).flat_map(|y| {
            let row = move |(w, b): (&[f32], &f32)| b + w.iter().zip(y).map(|(w, y)| w * y).sum::<f32>();
            weight.chunks(4).zip(bias).map(row)
        });
        for (got, want) in logits.zip(classifier.logits(&x).unwrap()) {
            assert!((got - want).abs() <= 1e-5 * (1.0 + want.abs()), "{got} {want}");
        }
    }

    #[test]
    fn the_gradient_is_that_of_the_cross_entropy() {
        let (z, labels) = ([0.3f32, -1.0, 2.0, 40.0, 0.0, -60.0], [2, 1]);
        let loss = |z: &[f32]| cross_entropy(&mut z.to_vec(), 3, labels.into_iter());
        let by_hand = (0.3f64.exp() + (-1f64).exp() + 2f64.exp()).ln() - 2.0;
        assert!((loss(&z) - (by_hand + 40.0) / 2.0).abs() <= 1e-7);
        let mut gradient = z;
        cross_entropy(&mut gradient, 3, labels.into_iter());
        for k in 0..z.len() {
            let moved = |by| loss(&std::array::from_fn::<f32, 6, _>(|i| if i == k { z[i] + by } else { z[i] }));
            let slope = (moved(1.0 / 64.0) - moved(-1.0 / 64.0)) * 32.0;
            assert!((slope - f64::from(gradient[k])).abs() <= 1e-4, "{k}: {slope} {}", gradient[k]);
        }
    }

    #[test]
    fn files_come_back_and_foreign_ones_are_refused() {
        let (x, labels) = blobs(&CORNERS, 20, 1.0, 1);
        let classifier = Classifier::train(&x, &labels, 3, &quick(), 0).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("classifier.safetensors");
        classifier.save(&path).unwrap();
        let loaded = Classifier::load(&path).unwrap();
        assert_eq!(loaded, classifier);
        assert_eq!(loaded.probabilities(&x).unwrap(), classifier.probabilities(&x).unwrap());
        // It is no generator, and a generator is no classifier.
        assert!(matches!(Mlp::load(&path), Err(Error::Format { .. })));
        let whole = std::fs::read(&path).unwrap();
        let refused = |problem: &str| {
            let error = Classifier::load(&path).unwrap_err();
            assert!(matches!(error, Error::Format { .. }) && error.to_string().contains(problem), "{error}");
        };
        for length in [0, 7, 100, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            refused("not a whole safetensors file");
        }
        Mlp::new(&[2, 3], 0).unwrap().save(&path).unwrap();
        refused("not a classifier");
        let spoilt = |change: fn(&mut Classifier)| {
            let mut classifier = classifier.clone();
            change(&mut classifier);
            classifier.save(&path).unwrap();
        };
        spoilt(|c| c.standard.mean.push(0.0));
        refused("classifier.mean has 3 elements, expected 2");
        spoilt(|c| c.standard.deviation[1] = 0.0);
        refused("classifier.deviation has an element 0");
        spoilt(|c| c.standard.mean[0] = f32::NAN);
        refused("classifier.mean has an element NaN");
        spoilt(|c| c.model = Mlp::new(&[2, 1], 0).unwrap());
        refused("one class");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Classifier::load(&path), Err(Error::Io { .. })));
    }

    #[test]
    fn impossible_arguments_are_refused() {
        let (x, labels) = ([0.0f32, 1.0, 2.0, 3.0], [0, 1]);
        let train = |x: &[f32], labels: &[usize], classes| Classifier::train(x, labels, classes, &quick(), 0);
        assert!(matches!(train(&x, &labels, 1), Err(Error::Value { .. })));
        assert!(matches!(train(&x, &[0, 2], 2), Err(Error::Value { .. })));
        assert!(matches!(train(&x, &[], 2), Err(Error::Value { .. })));
        assert!(matches!(train(&x, &[0, 1, 0], 2), Err(Error::Shape { .. })));
        assert!(matches!(train(&[], &labels, 2), Err(Error::Shape { .. })));
        assert!(matches!(train(&[0.0, f32::NAN], &labels, 2), Err(Error::Value { .. })));
        for change in [
            |o: &mut Options| o.epochs = 0,
            |o: &mut Options| o.batch = 0,
            |o: &mut Options| o.noise = f32::NAN,
            |o: &mut Options| o.min_deviation = -1.0,
            |o: &mut Options| o.optimizer.learning_rate = 0.0,
            |o: &mut Options| o.hidden = vec![3, 0],
        ] {
            let mut options = quick();
            change(&mut options);
            let error = Classifier::train(&x, &labels, 2, &options, 0);
            assert!(matches!(error, Err(Error::Value { .. })), "{options:?}");
        }
        let classifier = train(&x, &labels, 2).unwrap();
        assert!(matches!(classifier.predict(&x[..3]), Err(Error::Shape { .. })));
        assert!(matches!(classifier.predict(&[f32::INFINITY, 0.0]), Err(Error::Value { .. })));
        assert!(matches!(classifier.predict(&[f32::MAX, f32::MAX]), Err(Error::Value { .. })));
        assert!(matches!(classifier.accuracy(&x, &[0]), Err(Error::Shape { .. })));
        assert!(matches!(classifier.accuracy(&x, &[0, 2]), Err(Error::Value { .. })));
        assert!(matches!(classifier.accuracy(&[], &[]), Err(Error::Value { .. })));
        assert!(classifier.predict(&[]).unwrap().is_empty());
    }

    #[test]
    fn a_loss_that_is_not_finite_ends_the_training() {
        let (x, labels) = blobs(&CORNERS, 20, 1.0, 1);
        let mut options = quick();
        options.optimizer.learning_rate = 1e30;
        let error = Classifier::train(&x, &labels, 3, &options, 0).unwrap_err();
        assert!(matches!(error, Error::Diverged { .. }), "{error}");
    }
}
