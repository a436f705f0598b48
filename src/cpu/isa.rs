//! Run-time choice of the instruction set.
//!
//! Inner loops are written once, in plain Rust over fixed-width lanes, and compiled once per instruction set; a
//! [`Isa`] picks the copy. The bits of a result depend on the instruction set (fused multiply-add or not), never on
//! the number of threads.

use std::sync::OnceLock;

/// Width of the lane arrays in inner loops; rows of tiles are padded to a multiple of it.
pub(crate) const LANES: usize = 16;

/// An instruction set that the inner loops were compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    /// What the target guarantees.
    Baseline,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Isa {
    /// The best instruction set of this machine, or the one that the environment variable `CUDRIFT_ISA` forces:
    /// `baseline`, `avx2` or `avx512`. One that the machine lacks, or an unknown name, is ignored.
    pub(crate) fn detect() -> Self {
        static ISA: OnceLock<Isa> = OnceLock::new();
        *ISA.get_or_init(|| {
            let available = Self::available();
            let forced = std::env::var("CUDRIFT_ISA").ok();
            let pick = available.iter().find(|isa| Some(isa.name()) == forced.as_deref());
            *pick.or(available.last()).unwrap_or(&Self::Baseline)
        })
    }

    /// Every instruction set that this machine can run, the best one last.
    pub(crate) fn available() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut list = vec![Self::Baseline];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c");
            if avx2 && is_x86_feature_detected!("fma") {
                list.push(Self::Avx2);
                if is_x86_feature_detected!("avx512f") {
                    list.push(Self::Avx512);
                }
            }
        }
        list
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
        }
    }
}

/// Defines `fn name(isa: Isa, args…)` from a body that is generic over `FMA`, compiled once per instruction set.
macro_rules! per_isa {
    ($(#[$meta:meta])* fn $name:ident $(<$gen:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name $(<$gen: $bound>)? (isa: $crate::cpu::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<const FMA: bool $(, $gen: $bound)?>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx2 $(<$gen: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                body::<true $(, $gen)?>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx512 $(<$gen: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                body::<true $(, $gen)?>($($arg),*)
            }

            match isa {
                // On AArch64 a fused multiply-add is part of the baseline.
                $crate::cpu::isa::Isa::Baseline => body::<{ cfg!(target_arch = "aarch64") } $(, $gen)?>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa::Avx2` is only made by `Isa::available`, after AVX2, FMA and F16C were detected.
                $crate::cpu::isa::Isa::Avx2 => unsafe { avx2 $(::<$gen>)? ($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: an `Isa::Avx512` is only made by `Isa::available`, after AVX-512F, AVX2, FMA and F16C were
                // detected.
                $crate::cpu::isa::Isa::Avx512 => unsafe { avx512 $(::<$gen>)? ($($arg),*) },
            }
        }
    };
}
pub(crate) use per_isa;

/// `a * b + c`, fused where the instruction set has it.
#[inline(always)]
pub(crate) fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// e^x for x <= 0, as a branch-free expression that vectorises.
///
/// Relative error at most 2 units in the last place for x >= -87; 0 below; NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer held in the low mantissa bits
    const LN2_HI: f32 = 0.693_359_4; // 9 significant bits, so that n * LN2_HI is exact
    const LN2_LO: f32 = -2.121_944_4e-4;
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = mul_add::<FMA>(n, -LN2_HI, x);
    let r = mul_add::<FMA>(n, -LN2_LO, r);
    // Minimax polynomial of (e^r - 1 - r) / r² on |r| <= ln(2)/2 (Cephes, expf).
    let p = 1.987_569_1e-4;
    let p = mul_add::<FMA>(p, r, 1.398_199_9e-3);
    let p = mul_add::<FMA>(p, r, 8.333_452e-3);
    let p = mul_add::<FMA>(p, r, 4.166_579_6e-2);
    let p = mul_add::<FMA>(p, r, 1.666_666_5e-1);
    let p = mul_add::<FMA>(p, r, 0.5);
    let p = mul_add::<FMA>(p, r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * power }
}

/// The sum of the lanes, pairwise.
#[inline(always)]
pub(crate) fn sum_lanes(mut v: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            v[l] += v[l + width];
        }
        width /= 2;
    }
    v[0]
}

/// The sum of f64 lanes, pairwise.
#[inline(always)]
pub(crate) fn sum_lanes_f64(mut v: [f64; LANES]) -> f64 {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            v[l] += v[l + width];
        }
        width /= 2;
    }
    v[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    per_isa! {
        fn exp_slice(values: &mut [f32]) {
            for v in values {
                *v = exp::<FMA>(*v);
            }
        }
    }

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for isa in Isa::available() {
            let mut worst = 0.0f64;
            let x: Vec<f32> = (0..4_000_000).map(|k| -(k as f32) * 2.175e-5).collect();
            let mut e = x.clone();
            exp_slice(isa, &mut e);
            for (x, e) in x.iter().zip(&e) {
                let exact = f64::from(*x).exp();
                worst = worst.max((f64::from(*e) - exact).abs() / exact);
            }
            println!("{}: worst relative error {worst:e}", isa.name());
            assert!(worst <= 2.4e-7, "{}: {worst:e}", isa.name());
        }
    }

    #[test]
    fn exp_at_the_ends() {
        for isa in Isa::available() {
            let mut v = [0.0, -0.0, -87.5, -1e30, f32::NEG_INFINITY, -f32::MAX, f32::NAN];
            exp_slice(isa, &mut v);
            assert_eq!(v[..6], [1.0, 1.0, 0.0, 0.0, 0.0, 0.0], "{}", isa.name());
            assert!(v[6].is_nan());
        }
    }
}
