//! The PTX front end: text to statements.
//!
//! The grammar is parsed generically, an opcode is a list of words between dots. What the words mean is decided in
//! `decode`, where an unknown one is an error.

mod lex;
mod parse;

use std::fmt;

pub use parse::{Arg, Function, Instruction, Item, Module, Variable, parse};

/// Why a text is not executable PTX.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Line of the text, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub message: String,
}

impl Error {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for Error {}

/// What `.target` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Compute capability, as 80 or 120.
    pub arch: u32,
    /// `a` for one architecture only, `f` for its family, or nothing.
    pub suffix: Option<char>,
}

impl Target {
    /// The target that a word names, as `sm_80` or `compute_90a`.
    pub fn of(word: &str) -> Option<Self> {
        let number = word.strip_prefix("sm_").or_else(|| word.strip_prefix("compute_"))?;
        let suffix = number.chars().next_back().filter(|last| matches!(last, 'a' | 'f'));
        let arch = number.strip_suffix(['a', 'f']).unwrap_or(number).parse().ok()?;
        Some(Self { arch, suffix })
    }

    /// Can a device of that compute capability run it?
    pub fn runs_on(self, arch: u32) -> bool {
        match self.suffix {
            None => self.arch <= arch,
            Some('f') => self.arch <= arch && self.arch / 10 == arch / 10,
            Some(_) => self.arch == arch,
        }
    }
}

/// A fundamental type (PTX ISA 5.2): how bits are read, and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Type {
    Pred,
    B(u8),
    U(u8),
    S(u8),
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    B128,
}

impl Type {
    /// The type that a word names, without its dot.
    pub fn of(word: &str) -> Option<Self> {
        Some(match word {
            "pred" => Self::Pred,
            "b8" => Self::B(8),
            "b16" => Self::B(16),
            "b32" => Self::B(32),
            "b64" => Self::B(64),
            "b128" => Self::B128,
            "u8" => Self::U(8),
            "u16" => Self::U(16),
            "u32" => Self::U(32),
            "u64" => Self::U(64),
            "s8" => Self::S(8),
            "s16" => Self::S(16),
            "s32" => Self::S(32),
            "s64" => Self::S(64),
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::Bf16,
            "bf16x2" => Self::Bf16x2,
            "tf32" => Self::Tf32,
            "f32" => Self::F32,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    /// Bits; 1 for a predicate.
    pub fn bits(self) -> u32 {
        match self {
            Self::Pred => 1,
            Self::B(bits) | Self::U(bits) | Self::S(bits) => bits.into(),
            Self::F16 | Self::Bf16 => 16,
            Self::F16x2 | Self::Bf16x2 | Self::Tf32 | Self::F32 => 32,
            Self::F64 => 64,
            Self::B128 => 128,
        }
    }

    /// Bytes in memory; 1 for a predicate.
    pub fn bytes(self) -> u32 {
        self.bits().div_ceil(8)
    }

    /// Is it a signed integer?
    pub fn signed(self) -> bool {
        matches!(self, Self::S(_))
    }
}

#[cfg(test)]
mod tests {
    use super::Target;

    #[test]
    fn a_target_runs_on_later_architectures_its_family_or_itself() {
        let runs_on = |word, arch| Target::of(word).map(|target| target.runs_on(arch));
        assert_eq!([75, 80, 120].map(|arch| runs_on("sm_80", arch)), [Some(false), Some(true), Some(true)]);
        assert_eq!([89, 90, 100].map(|arch| runs_on("compute_90a", arch)), [Some(false), Some(true), Some(false)]);
        assert_eq!([90, 103, 120].map(|arch| runs_on("sm_100f", arch)), [Some(false), Some(true), Some(false)]);
        assert_eq!(["sm_", "sm_a", "sm_90af", "sm_90b", "80"].map(Target::of), [None; 5]);
    }
}
