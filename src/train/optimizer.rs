//! The regression update: global-norm clip, Adam or AdamW with linear warm-up, exponential moving average.

use crate::backend::Weights;
use crate::{Error, Result};

/// Hyper-parameters of the update.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// Learning rate after the warm-up.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay; 0 makes AdamW Adam.
    pub weight_decay: f64,
    /// Steps over which the learning rate rises linearly from 1e-6; 0 for none (spec 5).
    pub warmup: u64,
    /// Largest global norm of the gradient, which is scaled down to it; infinity for none.
    pub clip_norm: f64,
    /// Decay per step of the parameters' moving average.
    pub ema_decay: f64,
}

impl Optimizer {
    /// The notebook's: Adam, learning rate 1e-3, betas 0.9 and 0.999, epsilon 1e-8, no clip, no warm-up (spec 10.1).
    pub fn notebook() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            warmup: 0,
            clip_norm: f64::INFINITY,
            ema_decay: 0.999,
        }
    }

    /// The official code's: AdamW, betas 0.9 and 0.95, clip 2, EMA 0.999 (spec 5), with the ablation configuration's
    /// learning rate 2e-4, warm-up 5,000 and weight decay 0.01 (spec 10.6).
    pub fn official() -> Self {
        Self { learning_rate: 2e-4, beta2: 0.95, weight_decay: 0.01, warmup: 5000, clip_norm: 2.0, ..Self::notebook() }
    }

    /// Checks every number.
    ///
    /// # Errors
    /// [`Error::Value`] for the first that is outside its range.
    pub fn validate(&self) -> Result<()> {
        let check = |argument, value: f64, ok: bool, expected: &str| {
            if ok { Ok(()) } else { Err(Error::value("optimizer", argument, expected, value)) }
        };
        let decay = |v: f64| (0.0..1.0).contains(&v);
        let positive = |v: f64| v > 0.0 && v.is_finite();
        check("learning rate", self.learning_rate, positive(self.learning_rate), "a finite number > 0")?;
        check("beta1", self.beta1, decay(self.beta1), "a number in [0, 1)")?;
        check("beta2", self.beta2, decay(self.beta2), "a number in [0, 1)")?;
        check("epsilon", self.epsilon, positive(self.epsilon), "a finite number > 0")?;
        let ok = self.weight_decay >= 0.0 && self.weight_decay.is_finite();
        check("weight decay", self.weight_decay, ok, "a finite number >= 0")?;
        check("clip norm", self.clip_norm, self.clip_norm > 0.0, "a number > 0")?;
        check("EMA decay", self.ema_decay, decay(self.ema_decay), "a number in [0, 1)")
    }

    /// The learning rate of step `step`, counted from 1.
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        const START: f64 = 1e-6;
        if step > self.warmup {
            return self.learning_rate;
        }
        START + (self.learning_rate - START) * step.saturating_sub(1) as f64 / self.warmup as f64
    }

    /// One update, in which the gradient is clipped in place; `step` counts from 1.
    ///
    /// Bias corrections and the order of operations are those of PyTorch's Adam and AdamW. Returns the gradient's
    /// global norm before the clip.
    pub(crate) fn update(&self, step: u64, weights: &mut Weights<Vec<f32>>) -> f64 {
        let Weights { parameters, grad, first, second, ema } = weights;
        let norm = grad.iter().map(|g| f64::from(*g) * f64::from(*g)).sum::<f64>().sqrt();
        if norm > self.clip_norm {
            let factor = (self.clip_norm / norm) as f32;
            for g in &mut *grad {
                *g *= factor;
            }
        }
        let rate = self.learning_rate_at(step);
        let correction1 = 1.0 - power(self.beta1, step);
        let correction2 = (1.0 - power(self.beta2, step)).sqrt();
        let step_size = (rate / correction1) as f32;
        let (beta1, beta2) = (self.beta1 as f32, self.beta2 as f32);
        let (rest1, rest2) = ((1.0 - self.beta1) as f32, (1.0 - self.beta2) as f32);
        let (inv_correction2, epsilon) = ((1.0 / correction2) as f32, self.epsilon as f32);
        let decay = (1.0 - rate * self.weight_decay) as f32;
        let ema_rest = (1.0 - self.ema_decay) as f32;
        for ((((p, g), m), v), e) in parameters.iter_mut().zip(&*grad).zip(first).zip(second).zip(ema) {
            *m = beta1 * *m + rest1 * g;
            *v = beta2 * *v + rest2 * (g * g);
            *p = *p * decay - step_size * *m / (v.sqrt() * inv_correction2 + epsilon);
            *e += ema_rest * (*p - *e);
        }
        norm
    }
}

/// `base^exponent` by squaring, in the order in which a device does it (kernels/update.cu).
fn power(mut base: f64, mut exponent: u64) -> f64 {
    let mut result = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Host;

    /// Parameters after three steps of torch.optim.AdamW(lr=0.1, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01) on
    /// gradients (1, -2), (0.5, 0), (-1, 3) from (1, 1), worked out in f64 from the formulas in PyTorch's documentation.
    #[test]
    fn agrees_with_the_definition() {
        let mut optimizer = Optimizer::notebook();
        (optimizer.learning_rate, optimizer.beta2, optimizer.weight_decay) = (0.1, 0.95, 0.01);
        let grads = [[1.0, -2.0], [0.5, 0.0], [-1.0, 3.0]];
        let mut weights = Weights::new(&Host::new(), &[1.0, 1.0]).unwrap();
        let mut want = [1.0f64, 1.0];
        let (mut m, mut v) = ([0.0f64; 2], [0.0f64; 2]);
        for (t, grad) in (1..).zip(grads) {
            weights.grad = grad.map(|g| g as f32).to_vec();
            optimizer.update(t, &mut weights);
            for k in 0..2 {
                want[k] -= 0.1 * 0.01 * want[k];
                m[k] = 0.9 * m[k] + 0.1 * grad[k];
                v[k] = 0.95 * v[k] + 0.05 * grad[k] * grad[k];
                let m_hat = m[k] / (1.0 - 0.9f64.powi(t as i32));
                let v_hat = v[k] / (1.0 - 0.95f64.powi(t as i32));
                want[k] -= 0.1 * m_hat / (v_hat.sqrt() + 1e-8);
                assert!((f64::from(weights.parameters[k]) - want[k]).abs() <= 1e-6);
            }
        }
        let ema = 1.0 + 0.001 * (f64::from(weights.parameters[0]) - 1.0);
        assert!((f64::from(weights.ema[0]) - ema).abs() <= 1e-3);
    }

    #[test]
    fn clip_and_warmup() {
        let mut optimizer = Optimizer::official();
        assert_eq!(optimizer.learning_rate_at(1), 1e-6);
        assert_eq!(optimizer.learning_rate_at(2501), 1e-6 + (2e-4 - 1e-6) * 0.5);
        assert_eq!(optimizer.learning_rate_at(5001), 2e-4);
        optimizer.clip_norm = 2.5;
        let mut weights = Weights::new(&Host::new(), &[0.0; 2]).unwrap();
        weights.grad = vec![3.0, 4.0];
        assert_eq!(optimizer.update(1, &mut weights), 5.0);
        assert_eq!(weights.grad, [1.5, 2.0]);
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for change in [
            |o: &mut Optimizer| o.learning_rate = f64::NAN,
            |o: &mut Optimizer| o.learning_rate = 0.0,
            |o: &mut Optimizer| o.beta1 = 1.0,
            |o: &mut Optimizer| o.beta2 = -0.1,
            |o: &mut Optimizer| o.epsilon = 0.0,
            |o: &mut Optimizer| o.weight_decay = f64::INFINITY,
            |o: &mut Optimizer| o.clip_norm = f64::NAN,
            |o: &mut Optimizer| o.ema_decay = 2.0,
        ] {
            let mut optimizer = Optimizer::notebook();
            change(&mut optimizer);
            assert!(matches!(optimizer.validate(), Err(Error::Value { .. })), "{optimizer:?}");
        }
    }
}
