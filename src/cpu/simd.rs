//! [`LANES`] numbers at a time: the one vocabulary of the inner loops, for each instruction set.
//!
//! The operations are spelled out with intrinsics where it matters, because the compiler, given loops over arrays,
//! vectorises across lane blocks instead of within one and spends its time on shuffles (three times slower, measured on
//! the coefficients). Inner loops stay generic over [`Simd`], so each formula is written once.

/// Width of a lane block; rows of tiles are padded to a multiple of it.
pub const LANES: usize = 16;

/// LANES numbers. Every operation acts lane by lane; comparisons with a NaN are false.
pub trait Simd: Copy {
    /// The same number of f64, for sums.
    type Wide: bytemuck::Pod;

    fn splat(value: f32) -> Self;
    fn load(values: &[f32; LANES]) -> Self;
    /// From the bits of f16.
    fn load_f16(bits: &[u16; LANES]) -> Self;
    /// From the bits of bf16.
    #[inline(always)]
    fn load_bf16(bits: &[u16; LANES]) -> Self {
        let mut wide = [0.0; LANES];
        for l in 0..LANES {
            wide[l] = f32::from_bits(u32::from(bits[l]) << 16);
        }
        Self::load(&wide)
    }
    fn store(self, to: &mut [f32; LANES]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self / other`.
    fn div(self, other: Self) -> Self;
    /// `self * b + c`, fused where the instruction set has it.
    fn mul_add(self, b: Self, c: Self) -> Self;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    /// `if self < other { self } else { other }`.
    fn smaller(self, other: Self) -> Self;
    /// `if self < floor { floor } else { self }`: a NaN stays.
    fn at_least(self, floor: Self) -> Self;
    /// `if self < other { yes } else { no }`.
    fn if_less(self, other: Self, yes: Self, no: Self) -> Self;
    /// Whether `self < other` in some lane.
    fn any_less(self, other: Self) -> bool;
    /// `self * 2^n` for integers n, and `shifted` = 1.5 * 2^23 + n; 0 where `x < least`.
    fn scaled(self, n: Self, shifted: Self, x: Self, least: Self) -> Self;
    /// The sum of the lanes, pairwise.
    fn sum(self) -> f32;
    /// Lane `l` of number `k` becomes lane `k` of number `l`.
    fn transpose(square: [Self; LANES]) -> [Self; LANES];

    fn wide_zero() -> Self::Wide;
    /// `sum + self * other` in f64.
    fn wide_mul_add(self, other: Self, sum: Self::Wide) -> Self::Wide;
    /// The sum of the lanes, pairwise.
    fn wide_sum(sum: Self::Wide) -> f64;

    /// Adds each lane to one of `sums`.
    #[inline(always)]
    fn add_to(self, sums: &mut [f64; LANES]) {
        *sums = bytemuck::cast(self.wide_mul_add(Self::splat(1.0), bytemuck::cast(*sums)));
    }

    /// The smallest lane.
    #[inline(always)]
    fn least(self) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        lanes.into_iter().fold(f32::INFINITY, |least, v| if v < least { v } else { least })
    }

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }
}

/// Asks for what lies `ahead` elements beyond the start of `row`, inside it or not, to come near.
#[inline(always)]
pub(crate) fn prefetch<T>(row: &[T], ahead: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has SSE, and a prefetch reads nothing, wherever it points.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_add(ahead).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (row, ahead);
}

/// [`prefetch`] as far as the second cache, for what is needed later.
#[inline(always)]
pub(crate) fn prefetch_second(line: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every processor of this architecture has SSE, and a prefetch reads nothing, wherever it points.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(line.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

/// e^x for -87 <= x <= 87, 0 below; NaN stays NaN. Relative error at most 2 units in the last place.
#[inline(always)]
pub(crate) fn exp<V: Simd>(x: V) -> V {
    let magic = V::splat(12_582_912.0); // 1.5 * 2^23: adding it rounds to an integer held in the low mantissa bits
    let shifted = x.mul_add(V::splat(std::f32::consts::LOG2_E), magic);
    let n = shifted.sub(magic);
    // ln 2 in two parts, the first of 9 significant bits, so that its product with n is exact.
    let r = n.mul_add(V::splat(-0.693_359_4), x);
    let r = n.mul_add(V::splat(2.121_944_4e-4), r);
    // Minimax polynomial of (e^r - 1 - r) / r² on |r| <= ln(2)/2 (Cephes, expf).
    let mut p = V::splat(1.987_569_1e-4);
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p.mul_add(r, V::splat(c));
    }
    let p = p.mul_add(r.mul(r), r).add(V::splat(1.0));
    p.scaled(n, shifted, x, V::splat(-87.0))
}

/// 2^x for -126 <= x <= 126, 0 below; NaN stays NaN. Relative error at most 2 units in the last place. Where an exponent has
/// a factor, log2(e) goes into it: half of [`exp`]'s operations.
#[inline(always)]
pub(crate) fn exp2<V: Simd>(x: V) -> V {
    let magic = V::splat(12_582_912.0);
    let shifted = x.add(magic);
    let n = shifted.sub(magic);
    let f = x.sub(n);
    // Minimax polynomial of 2^f on |f| <= 1/2 with its value and slope at 0, to 1.1e-7: as much as rounding adds.
    let mut p = V::splat(1.330_036_4e-3);
    for c in [9.669_661e-3, 5.550_559e-2, 2.402_228_3e-1, std::f32::consts::LN_2, 1.0] {
        p = p.mul_add(f, V::splat(c));
    }
    p.scaled(n, shifted, x, V::splat(-126.0))
}

/// What the compiler makes of an array.
#[derive(Clone, Copy)]
pub(crate) struct Plain<const FMA: bool>([f32; LANES]);

/// Writes each lane of a [`Plain`] by an expression of its number. A loop, because that vectorises best.
macro_rules! lanes {
    (|$l:ident| $value:expr) => {{
        let mut out = [0.0f32; LANES];
        for $l in 0..LANES {
            out[$l] = $value;
        }
        Self(out)
    }};
}

/// The sum of lanes, halves upon halves.
#[inline(always)]
pub(super) fn pairwise<T: Copy + std::ops::AddAssign>(mut v: [T; LANES]) -> T {
    let mut width = LANES / 2;
    while width > 0 {
        for l in 0..width {
            let other = v[l + width];
            v[l] += other;
        }
        width /= 2;
    }
    v[0]
}

impl<const FMA: bool> Simd for Plain<FMA> {
    type Wide = [f64; LANES];

    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    fn load(values: &[f32; LANES]) -> Self {
        Self(*values)
    }
    #[inline(always)]
    fn load_f16(bits: &[u16; LANES]) -> Self {
        lanes!(|l| half::f16::from_bits(bits[l]).to_f32())
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        lanes!(|l| self.0[l] + other.0[l])
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        lanes!(|l| self.0[l] - other.0[l])
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        lanes!(|l| self.0[l] * other.0[l])
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        lanes!(|l| self.0[l] / other.0[l])
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        lanes!(|l| if FMA { self.0[l].mul_add(b.0[l], c.0[l]) } else { self.0[l] * b.0[l] + c.0[l] })
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        lanes!(|l| self.0[l].sqrt())
    }
    #[inline(always)]
    fn abs(self) -> Self {
        lanes!(|l| self.0[l].abs())
    }
    #[inline(always)]
    fn smaller(self, other: Self) -> Self {
        self.if_less(other, self, other)
    }
    #[inline(always)]
    fn at_least(self, floor: Self) -> Self {
        self.if_less(floor, floor, self)
    }
    #[inline(always)]
    fn if_less(self, other: Self, yes: Self, no: Self) -> Self {
        lanes!(|l| if self.0[l] < other.0[l] { yes.0[l] } else { no.0[l] })
    }
    #[inline(always)]
    fn any_less(self, other: Self) -> bool {
        (0..LANES).fold(false, |any, l| any | (self.0[l] < other.0[l]))
    }
    #[inline(always)]
    fn scaled(self, _: Self, shifted: Self, x: Self, least: Self) -> Self {
        let scaled = lanes!(|l| self.0[l] * f32::from_bits((shifted.0[l].to_bits() << 23).wrapping_add(127 << 23)));
        x.if_less(least, Self::zero(), scaled)
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        pairwise(self.0)
    }
    #[inline(always)]
    fn transpose(square: [Self; LANES]) -> [Self; LANES] {
        let mut out = square;
        for k in 0..LANES {
            for l in 0..LANES {
                out[l].0[k] = square[k].0[l];
            }
        }
        out
    }
    #[inline(always)]
    fn wide_zero() -> [f64; LANES] {
        [0.0; LANES]
    }
    #[inline(always)]
    fn wide_mul_add(self, other: Self, sum: [f64; LANES]) -> [f64; LANES] {
        let mut sum = sum;
        for l in 0..LANES {
            sum[l] += f64::from(self.0[l]) * f64::from(other.0[l]);
        }
        sum
    }
    #[inline(always)]
    fn wide_sum(sum: [f64; LANES]) -> f64 {
        pairwise(sum)
    }
}

/// Implements [`Simd`] for an array of registers from the operations on one, each a function in scope. They are
/// written out register by register: a closure would not be compiled for the instruction set, nor
/// surely be part of what it is written in.
#[cfg(target_arch = "x86_64")]
macro_rules! registers {
    ($(#[$meta:meta])* $name:ident, $float:ident [$($i:literal)*] x $n:literal, $double:ident [$($w:literal)*] x $m:literal) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub(crate) struct $name([$float; $n]);

        /// Four rows turned within each four columns: number c has column 4q + c of all four in its q-th quarter or half.
        ///
        /// # Safety
        /// The instruction set must be there.
        #[inline(always)]
        unsafe fn fours([a, b, c, d]: [$float; 4]) -> [$float; 4] {
            // SAFETY: the caller's promise.
            unsafe {
                let (low, high) = ([pairs_low(a, b), pairs_low(c, d)], [pairs_high(a, b), pairs_high(c, d)]);
                [twos_low(low[0], low[1]), twos_high(low[0], low[1]), twos_low(high[0], high[1]), twos_high(high[0], high[1])]
            }
        }

        // SAFETY (of every block below): the intrinsics need instructions that were detected before a function
        // generic over this type was called; `per_isa`, `Block::run` and `TargetsProduct::run` see
        // to it.
        impl Simd for $name {
            type Wide = [$double; $m];

            #[inline(always)]
            fn splat(value: f32) -> Self {
                // SAFETY: see above.
                Self([unsafe { splat(value) }; $n])
            }
            #[inline(always)]
            fn load(values: &[f32; LANES]) -> Self {
                Self(bytemuck::cast(*values))
            }
            #[inline(always)]
            fn load_f16(bits: &[u16; LANES]) -> Self {
                let halves: [[u16; LANES / $n]; $n] = bytemuck::cast(*bits);
                // SAFETY: see above.
                Self(unsafe { [$(widen_f16(bytemuck::cast(halves[$i]))),*] })
            }
            #[inline(always)]
            fn store(self, to: &mut [f32; LANES]) {
                *to = bytemuck::cast(self.0);
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { [$(add(self.0[$i], other.0[$i])),*] })
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { [$(sub(self.0[$i], other.0[$i])),*] })
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { [$(mul(self.0[$i], other.0[$i])),*] })
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { [$(div(self.0[$i], other.0[$i])),*] })
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { [$(mul_add(self.0[$i], b.0[$i], c.0[$i])),*] })
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                // SAFETY: see above.
                Self(unsafe { [$(sqrt(self.0[$i])),*] })
            }
            #[inline(always)]
            fn abs(self) -> Self {
                // SAFETY: see above.
                Self(unsafe { [$(abs(self.0[$i])),*] })
            }
            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                // SAFETY: see above. The instruction returns its second operand where one is NaN.
                Self(unsafe { [$(min(self.0[$i], other.0[$i])),*] })
            }
            #[inline(always)]
            fn at_least(self, floor: Self) -> Self {
                // SAFETY: see above. The instruction returns its second operand where one is NaN.
                Self(unsafe { [$(max(floor.0[$i], self.0[$i])),*] })
            }
            #[inline(always)]
            fn if_less(self, other: Self, yes: Self, no: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { [$(if_less(self.0[$i], other.0[$i], yes.0[$i], no.0[$i])),*] })
            }
            #[inline(always)]
            fn any_less(self, other: Self) -> bool {
                // SAFETY: see above.
                unsafe { false $(| any_less(self.0[$i], other.0[$i]))* }
            }
            #[inline(always)]
            fn scaled(self, n: Self, shifted: Self, x: Self, least: Self) -> Self {
                // SAFETY: see above.
                Self(unsafe { [$(scaled(self.0[$i], n.0[$i], shifted.0[$i], x.0[$i], least.0[$i])),*] })
            }
            #[inline(always)]
            fn sum(self) -> f32 {
                pairwise(bytemuck::cast::<_, [f32; LANES]>(self.0))
            }
            #[inline(always)]
            fn transpose(square: [Self; LANES]) -> [Self; LANES] {
                let (mut rows, mut out) = ([square[0].0; LANES], square);
                for k in 0..LANES {
                    rows[k] = square[k].0;
                }
                // SAFETY: see above.
                let columns = unsafe { transpose(rows) };
                for k in 0..LANES {
                    out[k].0 = columns[k];
                }
                out
            }
            #[inline(always)]
            fn wide_zero() -> Self::Wide {
                bytemuck::cast([0.0f64; LANES])
            }
            #[inline(always)]
            fn wide_mul_add(self, other: Self, sum: Self::Wide) -> Self::Wide {
                // SAFETY: see above.
                unsafe { [$(wide_mul_add(half::<$w>(self.0[$w / 2]), half::<$w>(other.0[$w / 2]), sum[$w])),*] }
            }
            #[inline(always)]
            fn wide_sum(sum: Self::Wide) -> f64 {
                pairwise(bytemuck::cast::<_, [f64; LANES]>(sum))
            }
        }
    };
}

/// Functions that pass their arguments on to an intrinsic.
#[cfg(target_arch = "x86_64")]
macro_rules! intrinsics {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $ret:ty = $value:expr;)*) => {
        $(
            /// # Safety
            /// The instruction set must be there.
            #[inline(always)]
            unsafe fn $name($($arg: $ty),*) -> $ret {
                // SAFETY: the caller's promise.
                unsafe { $value }
            }
        )*
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{LANES, Simd, pairwise};
    use std::arch::x86_64::*;

    registers! {
        /// Two AVX registers.
        Avx2, __m256 [0 1] x 2, __m256d [0 1 2 3] x 4
    }

    intrinsics! {
        splat(v: f32) -> __m256 = _mm256_set1_ps(v);
        widen_f16(v: __m128i) -> __m256 = _mm256_cvtph_ps(v);
        add(a: __m256, b: __m256) -> __m256 = _mm256_add_ps(a, b);
        sub(a: __m256, b: __m256) -> __m256 = _mm256_sub_ps(a, b);
        mul(a: __m256, b: __m256) -> __m256 = _mm256_mul_ps(a, b);
        div(a: __m256, b: __m256) -> __m256 = _mm256_div_ps(a, b);
        min(a: __m256, b: __m256) -> __m256 = _mm256_min_ps(a, b);
        max(a: __m256, b: __m256) -> __m256 = _mm256_max_ps(a, b);
        pairs_low(a: __m256, b: __m256) -> __m256 = _mm256_unpacklo_ps(a, b);
        twos_low(a: __m256, b: __m256) -> __m256 =
            _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
        pairs_high(a: __m256, b: __m256) -> __m256 = _mm256_unpackhi_ps(a, b);
        twos_high(a: __m256, b: __m256) -> __m256 =
            _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
        sqrt(a: __m256) -> __m256 = _mm256_sqrt_ps(a);
        abs(a: __m256) -> __m256 = _mm256_andnot_ps(_mm256_set1_ps(-0.0), a);
        mul_add(a: __m256, b: __m256, c: __m256) -> __m256 = _mm256_fmadd_ps(a, b, c);
        wide_mul_add(a: __m256d, b: __m256d, c: __m256d) -> __m256d = _mm256_fmadd_pd(a, b, c);
        any_less(a: __m256, b: __m256) -> bool = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) != 0;
        if_less(a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 =
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b));
        power_of_two(a: __m256) -> __m256 = _mm256_castsi256_ps(_mm256_add_epi32(
            _mm256_slli_epi32::<23>(_mm256_castps_si256(a)),
            _mm256_set1_epi32(127 << 23),
        ));
        scaled(a: __m256, _n: __m256, shifted: __m256, x: __m256, least: __m256) -> __m256 =
            _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, least), _mm256_mul_ps(a, power_of_two(shifted)));
    }

    /// # Safety
    /// The instruction set must be there.
    #[inline(always)]
    unsafe fn transpose(square: [[__m256; 2]; LANES]) -> [[__m256; 2]; LANES] {
        let mut out = square;
        for from in 0..2 {
            for to in 0..2 {
                let row = |k: usize| square[8 * from + k][to];
                // SAFETY: the caller's promise.
                let (low, high) =
                    unsafe { (fours([row(0), row(1), row(2), row(3)]), fours([row(4), row(5), row(6), row(7)])) };
                for c in 0..4 {
                    // SAFETY: the caller's promise.
                    unsafe {
                        out[8 * to + c][from] = _mm256_permute2f128_ps::<0x20>(low[c], high[c]);
                        out[8 * to + 4 + c][from] = _mm256_permute2f128_ps::<0x31>(low[c], high[c]);
                    }
                }
            }
        }
        out
    }

    /// The lower or the upper half, as f64.
    ///
    /// # Safety
    /// The instruction set must be there.
    #[inline(always)]
    unsafe fn half<const WHICH: usize>(a: __m256) -> __m256d {
        // SAFETY: the caller's promise.
        unsafe {
            let half = if WHICH.is_multiple_of(2) { _mm256_castps256_ps128(a) } else { _mm256_extractf128_ps::<1>(a) };
            _mm256_cvtps_pd(half)
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{LANES, Simd, pairwise};
    use std::arch::x86_64::*;

    registers! {
        /// One AVX-512 register.
        Avx512, __m512 [0] x 1, __m512d [0 1] x 2
    }

    intrinsics! {
        splat(v: f32) -> __m512 = _mm512_set1_ps(v);
        widen_f16(v: __m256i) -> __m512 = _mm512_cvtph_ps(v);
        add(a: __m512, b: __m512) -> __m512 = _mm512_add_ps(a, b);
        sub(a: __m512, b: __m512) -> __m512 = _mm512_sub_ps(a, b);
        mul(a: __m512, b: __m512) -> __m512 = _mm512_mul_ps(a, b);
        div(a: __m512, b: __m512) -> __m512 = _mm512_div_ps(a, b);
        min(a: __m512, b: __m512) -> __m512 = _mm512_min_ps(a, b);
        max(a: __m512, b: __m512) -> __m512 = _mm512_max_ps(a, b);
        pairs_low(a: __m512, b: __m512) -> __m512 = _mm512_unpacklo_ps(a, b);
        twos_low(a: __m512, b: __m512) -> __m512 =
            _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
        pairs_high(a: __m512, b: __m512) -> __m512 = _mm512_unpackhi_ps(a, b);
        twos_high(a: __m512, b: __m512) -> __m512 =
            _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
        sqrt(a: __m512) -> __m512 = _mm512_sqrt_ps(a);
        abs(a: __m512) -> __m512 = _mm512_abs_ps(a);
        mul_add(a: __m512, b: __m512, c: __m512) -> __m512 = _mm512_fmadd_ps(a, b, c);
        wide_mul_add(a: __m512d, b: __m512d, c: __m512d) -> __m512d = _mm512_fmadd_pd(a, b, c);
        any_less(a: __m512, b: __m512) -> bool = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) != 0;
        if_less(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 =
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes);
        scaled(a: __m512, n: __m512, _shifted: __m512, x: __m512, least: __m512) -> __m512 =
            _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, least), a, n);
    }

    /// # Safety
    /// The instruction set must be there.
    #[inline(always)]
    unsafe fn transpose(square: [[__m512; 1]; LANES]) -> [[__m512; 1]; LANES] {
        let mut out = square;
        // SAFETY: the caller's promise.
        unsafe {
            let mut turned = [[square[0][0]; 4]; 4];
            for i in 0..4 {
                turned[i] = fours([square[4 * i][0], square[4 * i + 1][0], square[4 * i + 2][0], square[4 * i + 3][0]]);
            }
            for c in 0..4 {
                // The quarters of even number and of odd number, of two fours each.
                let even = [
                    _mm512_shuffle_f32x4::<0x88>(turned[0][c], turned[1][c]),
                    _mm512_shuffle_f32x4::<0x88>(turned[2][c], turned[3][c]),
                ];
                let odd = [
                    _mm512_shuffle_f32x4::<0xdd>(turned[0][c], turned[1][c]),
                    _mm512_shuffle_f32x4::<0xdd>(turned[2][c], turned[3][c]),
                ];
                out[c] = [_mm512_shuffle_f32x4::<0x88>(even[0], even[1])];
                out[4 + c] = [_mm512_shuffle_f32x4::<0x88>(odd[0], odd[1])];
                out[8 + c] = [_mm512_shuffle_f32x4::<0xdd>(even[0], even[1])];
                out[12 + c] = [_mm512_shuffle_f32x4::<0xdd>(odd[0], odd[1])];
            }
        }
        out
    }

    /// The lower or the upper half, as f64.
    ///
    /// # Safety
    /// The instruction set must be there.
    #[inline(always)]
    unsafe fn half<const WHICH: usize>(a: __m512) -> __m512d {
        // SAFETY: the caller's promise.
        unsafe {
            let half = if WHICH.is_multiple_of(2) {
                _mm512_castps512_ps256(a)
            } else {
                _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(a)))
            };
            _mm512_cvtps_pd(half)
        }
    }
}
#[cfg(target_arch = "x86_64")]
pub(crate) use {avx2::Avx2, avx512::Avx512};
