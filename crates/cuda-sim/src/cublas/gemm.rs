//! The product of matrices in device memory: what every gemm, gemv and matmul comes down to.

use std::f64::consts::PI;
use std::ffi::c_int;

use super::access::{Access, Done, Layout, Scalar};
use super::element::{Element, Rounding};
use super::product::{View, product};
use super::status::{Result, Status};
use crate::device::Device;

/// Does a `cublasOperation_t` transpose? The conjugate transpose of a real matrix is its transpose.
///
/// # Errors
/// Where it is no operation.
pub(super) fn transposes(operation: c_int) -> Result<bool> {
    match operation {
        0 => Ok(false),
        1 | 2 => Ok(true),
        _ => Err(Status::INVALID_VALUE),
    }
}

/// What a `cublasComputeType_t` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Compute {
    /// The type of alpha and beta.
    pub(super) scale: Element,
    /// What becomes of the operands.
    pub(super) rounding: Rounding,
}

impl Compute {
    /// f64 throughout.
    pub(super) const F64: c_int = 70;
    /// f32 sums.
    pub(super) const F32: c_int = 68;
    /// f16 throughout.
    pub(super) const F16: c_int = 64;
    /// f32 sums of products of tf32.
    pub(super) const TF32: c_int = 77;
    /// f32 sums of products of f16.
    pub(super) const FAST_F16: c_int = 74;

    /// The compute type of that number, for operands and a result of these types.
    ///
    /// # Errors
    /// Where cuBLAS does not list the combination, or it is one of integers.
    pub(super) fn of(number: c_int, a: Element, b: Element, c: Element) -> Result<Self> {
        use Element::{Bf16, F16, F32, F64};
        let (scale, rounding, listed) = match number {
            64 | 65 => (F16, Rounding::Exact, (a, c) == (F16, F16)),
            68 | 69 => (F32, Rounding::Exact, matches!((a, c), (F32 | F16 | Bf16, F32) | (F16, F16) | (Bf16, Bf16))),
            70 | 71 => (F64, Rounding::Exact, (a, c) == (F64, F64)),
            74 => (F32, Rounding::F16, (a, c) == (F32, F32)),
            75 => (F32, Rounding::Bf16, (a, c) == (F32, F32)),
            77 => (F32, Rounding::Tf32, (a, c) == (F32, F32)),
            78 => (F32, Rounding::Exact, (a, c) == (F32, F32)),
            _ => return Err(Status::NOT_SUPPORTED),
        };
        if listed && a == b { Ok(Self { scale, rounding }) } else { Err(Status::NOT_SUPPORTED) }
    }
}

/// A matrix as it is stored, and whether the operation means its transpose.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix {
    pub(super) stored: Layout,
    pub(super) transposed: bool,
}

impl Matrix {
    /// Rows and columns that the operation sees.
    pub(super) fn shape(&self) -> (usize, usize) {
        let Layout { rows, cols, .. } = self.stored;
        if self.transposed { (cols, rows) } else { (rows, cols) }
    }

    /// Its values as the operation sees them.
    fn view<'a>(&self, values: &'a [f64]) -> View<'a> {
        let view = View::new(values, self.stored.rows, self.stored.cols);
        if self.transposed { view.transposed() } else { view }
    }
}

/// What follows the product, element by element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    /// Nothing.
    Identity,
    /// max(x, 0).
    Relu,
    /// The Gaussian error linear unit, in its approximation by tanh.
    Gelu,
}

impl Activation {
    fn apply(self, x: f64) -> f64 {
        match self {
            Self::Identity => x,
            // Written so that a NaN stays one.
            Self::Relu if x < 0.0 => 0.0,
            Self::Relu => x,
            Self::Gelu => 0.5 * x * (1.0 + ((2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)).tanh()),
        }
    }
}

/// D = activation(alpha A B + beta C + bias).
#[derive(Clone, Copy, Debug)]
pub(super) struct Gemm {
    pub(super) call: &'static str,
    /// The operands' names in the call's documentation: A, B, C, D.
    pub(super) names: [&'static str; 4],
    pub(super) a: Matrix,
    pub(super) b: Matrix,
    pub(super) c: Matrix,
    pub(super) d: Matrix,
    pub(super) alpha: Scalar,
    pub(super) beta: Scalar,
    pub(super) rounding: Rounding,
    /// The type of the bias, one for each row of D.
    pub(super) bias: Option<Element>,
    pub(super) activation: Activation,
}

/// Addresses of one product's operands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) a: u64,
    pub(super) b: u64,
    pub(super) c: u64,
    pub(super) d: u64,
    pub(super) bias: u64,
}

impl Gemm {
    /// Computes one product. As in BLAS, A and B are not read where alpha is 0, nor C where beta is 0.
    ///
    /// # Errors
    /// Where an operand is not in memory as it should be.
    pub(super) fn run(&self, device: &Device, at: Addresses) -> Done {
        let access = Access { device, call: self.call };
        let (rows, cols) = self.d.shape();
        if rows == 0 || cols == 0 {
            return Ok(());
        }
        // Before anything of its size is allocated here: a shape that is wrong may be huge.
        access.writable(self.names[3], at.d, &self.d.stored)?;
        let alpha = self.alpha.value(access, "alpha")?;
        let beta = self.beta.value(access, "beta")?;
        let mut d = if alpha == 0.0 || self.a.shape().1 == 0 {
            vec![0.0; rows * cols]
        } else {
            self.product(access, at, alpha)?
        };
        if beta != 0.0 {
            let c = access.load(self.names[2], at.c, &self.c.stored)?;
            let c = self.c.view(&c);
            each(&mut d, rows, |x, i, j| x + beta * c.at(i, j));
        }
        if let Some(element) = self.bias {
            let bias = access.load("bias", at.bias, &Layout::vector(element, rows, 1))?;
            each(&mut d, rows, |x, i, _| x + bias[i]);
        }
        if self.activation != Activation::Identity {
            d.iter_mut().for_each(|x| *x = self.activation.apply(*x));
        }
        if self.d.transposed {
            d = transpose(&d, rows, cols);
        }
        access.store(self.names[3], at.d, &self.d.stored, &d)
    }

    /// alpha A B.
    fn product(&self, access: Access<'_>, at: Addresses, alpha: f64) -> Done<Vec<f64>> {
        let mut a = access.load(self.names[0], at.a, &self.a.stored)?;
        let mut b = access.load(self.names[1], at.b, &self.b.stored)?;
        self.rounding.apply(&mut a);
        self.rounding.apply(&mut b);
        let mut ab = product(self.a.view(&a), self.b.view(&b));
        let flop = 2 * (ab.len() * self.a.shape().1) as u64;
        access.device.computed(match (self.a.stored.element, self.rounding) {
            (Element::F64, _) => [0, 0, flop],
            (Element::F32, Rounding::Exact) => [0, flop, 0],
            _ => [flop, 0, 0],
        });
        ab.iter_mut().for_each(|x| *x *= alpha);
        Ok(ab)
    }
}

/// Replaces each element of a dense column-major matrix, given its row and column.
fn each(values: &mut [f64], rows: usize, f: impl Fn(f64, usize, usize) -> f64) {
    for (j, column) in values.chunks_exact_mut(rows).enumerate() {
        for (i, x) in column.iter_mut().enumerate() {
            *x = f(*x, i, j);
        }
    }
}

fn transpose(values: &[f64], rows: usize, cols: usize) -> Vec<f64> {
    let mut transposed = vec![0.0; values.len()];
    each(&mut transposed, cols, |_, j, i| values[i + j * rows]);
    transposed
}
