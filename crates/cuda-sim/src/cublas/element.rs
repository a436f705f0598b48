//! The types of elements, and how values are rounded to them.

use std::ffi::c_int;

use super::status::{Result, Status};
use crate::float::Modifiers;
use crate::float::convert::{half_from_f64, tf32_away_from_f32};
use crate::float::half::{self, Half};

/// The type of an operand's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    Bf16,
}

impl Element {
    /// The type that a `cudaDataType` names.
    ///
    /// # Errors
    /// Complex, integer and narrow types are not supported.
    pub(super) fn of(data_type: c_int) -> Result<Self> {
        match data_type {
            0 => Ok(Self::F32),
            1 => Ok(Self::F64),
            2 => Ok(Self::F16),
            14 => Ok(Self::Bf16),
            _ => Err(Status::NOT_SUPPORTED),
        }
    }

    /// Bytes.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Appends the values of the elements in `bytes`; none changes by it.
    pub(super) fn decode(self, bytes: &[u8], values: &mut Vec<f64>) {
        match self {
            Self::F64 => values.extend(bytes.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x))),
            Self::F32 => values.extend(bytes.as_chunks().0.iter().map(|x| f64::from(f32::from_le_bytes(*x)))),
            Self::F16 => values.extend(bytes.as_chunks().0.iter().map(|x| widen::<half::F16>(*x))),
            Self::Bf16 => values.extend(bytes.as_chunks().0.iter().map(|x| widen::<half::Bf16>(*x))),
        }
    }

    /// Appends the elements nearest to `values`, ties to even.
    pub(super) fn encode(self, values: &[f64], bytes: &mut Vec<u8>) {
        match self {
            Self::F64 => bytes.extend(values.iter().flat_map(|x| x.to_le_bytes())),
            Self::F32 => bytes.extend(values.iter().flat_map(|x| (*x as f32).to_le_bytes())),
            Self::F16 => bytes.extend(values.iter().flat_map(|x| narrow::<half::F16>(*x))),
            Self::Bf16 => bytes.extend(values.iter().flat_map(|x| narrow::<half::Bf16>(*x))),
        }
    }
}

fn widen<H: Half>(bytes: [u8; 2]) -> f64 {
    H::widen(u16::from_le_bytes(bytes)).into()
}

fn narrow<H: Half>(x: f64) -> [u8; 2] {
    half_from_f64::<H>(x.to_bits(), Modifiers::RN).to_le_bytes()
}

/// What becomes of f32 operands before they are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// They stay as they are.
    Exact,
    /// The nearest tf32, ties away from zero (`cvt.rna.tf32.f32`, the conversion that every GPU with tf32 has).
    Tf32,
    /// The nearest f16, ties to even.
    F16,
    /// The nearest bf16, ties to even.
    Bf16,
}

impl Rounding {
    /// Rounds the values of an f32 operand.
    pub(super) fn apply(self, values: &mut [f64]) {
        let nearest: fn(f64) -> f64 = match self {
            Self::Exact => return,
            Self::Tf32 => |x| f32::from_bits(tf32_away_from_f32((x as f32).to_bits(), Modifiers::RN)).into(),
            Self::F16 => |x| widen::<half::F16>(narrow::<half::F16>(x)),
            Self::Bf16 => |x| widen::<half::Bf16>(narrow::<half::Bf16>(x)),
        };
        values.iter_mut().for_each(|x| *x = nearest(*x));
    }
}
