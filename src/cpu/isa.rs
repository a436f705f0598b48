//! Run-time choice of the instruction set.
//!
//! Inner loops are written once, over [`Simd`], and compiled once per instruction set; an [`Isa`] picks the copy. The bits of a result depend on the instruction set (fused multiply-add or not), never on
//! the number of threads.

use std::sync::OnceLock;

pub(crate) use super::simd::{LANES, Simd, exp, exp2, prefetch, prefetch_second};

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

/// Defines `fn name(isa: Isa, args…)` from a body that is generic over `V: Simd`, compiled once per instruction set.
macro_rules! per_isa {
    ($(#[$meta:meta])* fn $name:ident $(<$gen:ident: $bound:path>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name $(<$gen: $bound>)? (isa: $crate::cpu::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body<V: $crate::cpu::isa::Simd $(, $gen: $bound)?>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx2 $(<$gen: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::cpu::simd::Avx2 $(, $gen)?>($($arg),*)
            }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma,f16c")]
            #[allow(clippy::too_many_arguments)]
            fn avx512 $(<$gen: $bound>)? ($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::cpu::simd::Avx512 $(, $gen)?>($($arg),*)
            }

            match isa {
                // On AArch64 a fused multiply-add is part of the baseline.
                $crate::cpu::isa::Isa::Baseline => {
                    body::<$crate::cpu::simd::Plain<{ cfg!(target_arch = "aarch64") }> $(, $gen)?>($($arg),*)
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    per_isa! {
        fn exp_slice(values: &mut [f32]) {
            let (blocks, tail) = values.as_chunks_mut::<LANES>();
            for block in blocks {
                exp(V::load(block)).store(block);
            }
            let mut last = [0.0; LANES];
            last[..tail.len()].copy_from_slice(tail);
            exp(V::load(&last)).store(&mut last);
            tail.copy_from_slice(&last[..tail.len()]);
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

    per_isa! {
        fn exp2_slice(values: &mut [f32]) {
            for block in values.as_chunks_mut::<LANES>().0 {
                exp2(V::load(block)).store(block);
            }
        }
    }

    #[test]
    fn exp2_is_within_two_units_in_the_last_place() {
        for isa in Isa::available() {
            let mut worst = 0.0f64;
            let x: Vec<f32> = (0..4_000_000).map(|k| -(k as f32) * 3.15e-5).collect();
            let mut e = x.clone();
            exp2_slice(isa, &mut e);
            for (x, e) in x.iter().zip(&e) {
                let exact = f64::from(*x).exp2();
                worst = worst.max((f64::from(*e) - exact).abs() / exact);
            }
            println!("{}: worst relative error {worst:e}", isa.name());
            assert!(worst <= 2.4e-7, "{}: {worst:e}", isa.name());
            let mut v = [-126.5; LANES];
            (v[0], v[1], v[2], v[3], v[4]) = (0.0, -0.0, f32::NEG_INFINITY, f32::NAN, -f32::MAX);
            exp2_slice(isa, &mut v);
            assert_eq!([v[0], v[1], v[2], v[4], v[5]], [1.0, 1.0, 0.0, 0.0, 0.0], "{}", isa.name());
            assert!(v[3].is_nan());
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
