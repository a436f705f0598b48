//! The matrix product behind distances, contractions and the generator: `C = A B` in f32.
//!
//! `B` is packed into panels of [`LANES`] columns, so that a row of a panel is one lane block; a block of rows of `A`
//! stays in registers while it runs down a panel. What a product meets only once is packed in its first pass; what a later
//! one will read from memory comes near during the multiply-adds ([`Lines`]). The callers' tiles do the caching. Measured on one core of an AVX2
//! machine it reaches 93 % of the machine's multiply-adds at [64, 640] x [640, 160], where a general library reached
//! 75 %.
//!
//! Every element is a sum over k in increasing order, in blocks of [`DEPTH`]: the bits of a row depend on no other row,
//! and not on how the work is shared out.

use super::isa::{Isa, LANES, Simd, per_isa, prefetch_second};
use super::simd::Plain;
#[cfg(target_arch = "x86_64")]
use super::simd::{Avx2, Avx512};
use super::tile::elements;
use crate::Element;
use crate::inputs::Targets;
use rayon::prelude::*;

/// Terms that are summed in registers before they are added to `C`: a panel's block is 16 KiB, so that those of panels that
/// are taken together stay near.
pub(crate) const DEPTH: usize = 256;

/// Panels that a product takes before it goes on along k: what some instruction set multiplies together.
pub(crate) const TOGETHER: usize = 2;

/// Columns of so many panels.
pub(crate) const WIDTH: usize = TOGETHER * LANES;

/// Elements of `B` [k, n] when packed.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    k * n.next_multiple_of(LANES)
}

/// Pairs of cache lines, `stride` bytes apart, one of which is asked for in each step along k: all at once would fill the
/// queue that the product's own loads wait in.
#[derive(Clone, Copy)]
pub(crate) struct Lines {
    pub(crate) at: *const u8,
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

impl Lines {
    pub(crate) const NONE: Self = Self { at: std::ptr::null(), stride: 0, count: 0 };
}

/// What to ask for while the next few rows of a result are summed.
pub(crate) type Hints<'a> = &'a mut dyn FnMut() -> Lines;

/// Where `A` lies.
///
/// # Safety
/// What `holds` affirms, `at` must find inside its slice.
pub(crate) unsafe trait Left: Copy {
    /// From row `i` on.
    fn skip(self, i: usize) -> Self;

    /// How many rows can be taken together, whatever the registers hold.
    fn together(&self) -> usize;

    /// From k = `start` on.
    fn from(self, start: usize) -> Self;

    /// Whether there are so many rows of so many elements.
    fn holds(&self, rows: usize, depth: usize) -> bool;

    /// Element `k` of row `i`.
    ///
    /// # Safety
    /// It must be among those that it holds.
    unsafe fn at(&self, i: usize, k: usize) -> f32;
}

/// Row by row, `stride` elements from one to the next.
#[derive(Clone, Copy)]
pub(crate) struct ByRows<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) stride: usize,
}

// SAFETY: the last element of the last row is inside.
unsafe impl Left for ByRows<'_> {
    #[inline(always)]
    fn skip(self, i: usize) -> Self {
        Self { a: &self.a[i * self.stride..], ..self }
    }

    #[inline(always)]
    fn together(&self) -> usize {
        usize::MAX
    }

    #[inline(always)]
    fn from(self, start: usize) -> Self {
        Self { a: &self.a[start..], ..self }
    }

    #[inline(always)]
    fn holds(&self, rows: usize, depth: usize) -> bool {
        (rows - 1).checked_mul(self.stride).is_some_and(|last| last + depth <= self.a.len())
    }

    #[inline(always)]
    unsafe fn at(&self, i: usize, k: usize) -> f32 {
        // SAFETY: i < rows and k < depth that it holds, so this is at most (rows - 1) stride + depth - 1, which is inside.
        unsafe { *self.a.get_unchecked(i * self.stride + k) }
    }
}

/// The transpose of rows, `stride` elements from one to the next, from column `row` on.
#[derive(Clone, Copy)]
pub(crate) struct ByColumns<'a> {
    pub(crate) a: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) row: usize,
}

// SAFETY: all columns are within a row, and the last row inside.
unsafe impl Left for ByColumns<'_> {
    #[inline(always)]
    fn skip(self, i: usize) -> Self {
        Self { row: self.row + i, ..self }
    }

    #[inline(always)]
    fn together(&self) -> usize {
        usize::MAX
    }

    #[inline(always)]
    fn from(self, start: usize) -> Self {
        Self { a: &self.a[start * self.stride..], ..self }
    }

    #[inline(always)]
    fn holds(&self, rows: usize, depth: usize) -> bool {
        self.row + rows <= self.stride && depth.checked_mul(self.stride).is_some_and(|len| len <= self.a.len())
    }

    #[inline(always)]
    unsafe fn at(&self, i: usize, k: usize) -> f32 {
        // SAFETY: row + i < stride and k < depth, of which it holds depth * stride elements.
        unsafe { *self.a.get_unchecked(k * self.stride + self.row + i) }
    }
}

/// The transpose of panels [k][LANES], `next` elements apart: [LANES] rows each.
#[derive(Clone, Copy)]
pub(crate) struct ByPanels<'a> {
    pub(crate) panels: &'a [f32],
    pub(crate) next: usize,
    /// The first row, in the first panel.
    pub(crate) row: usize,
}

// SAFETY: all rows are within the panel, and its last block inside.
unsafe impl Left for ByPanels<'_> {
    #[inline(always)]
    fn skip(self, i: usize) -> Self {
        let row = self.row + i;
        Self { panels: &self.panels[row / LANES * self.next..], row: row % LANES, ..self }
    }

    #[inline(always)]
    fn together(&self) -> usize {
        LANES - self.row
    }

    #[inline(always)]
    fn from(self, start: usize) -> Self {
        Self { panels: &self.panels[start * LANES..], ..self }
    }

    #[inline(always)]
    fn holds(&self, rows: usize, depth: usize) -> bool {
        self.row + rows <= LANES && depth * LANES <= self.panels.len()
    }

    #[inline(always)]
    unsafe fn at(&self, i: usize, k: usize) -> f32 {
        // SAFETY: row + i < LANES and k < depth, of which it holds depth * LANES elements.
        unsafe { *self.panels.get_unchecked(k * LANES + self.row + i) }
    }
}

/// Where `B` lies, in lane blocks of `PANELS` panels.
///
/// # Safety
/// Every row before the depth must be inside the slices.
unsafe trait Right<const PANELS: usize> {
    /// How many there are.
    fn depth(&self) -> usize;

    /// Row `k`.
    ///
    /// # Safety
    /// `k` must be less than the depth.
    unsafe fn row<V: Simd>(&mut self, k: usize) -> [V; PANELS];
}

// SAFETY: the panels are of equal depth.
unsafe impl<const PANELS: usize> Right<PANELS> for [&[[f32; LANES]]; PANELS] {
    #[inline(always)]
    fn depth(&self) -> usize {
        assert!(self.iter().all(|panel| panel.len() == self[0].len()));
        self[0].len()
    }

    #[inline(always)]
    unsafe fn row<V: Simd>(&mut self, k: usize) -> [V; PANELS] {
        let mut row = [V::zero(); PANELS];
        for p in 0..PANELS {
            // SAFETY: k < depth, the length of every panel.
            row[p] = V::load(unsafe { self[p].get_unchecked(k) });
        }
        row
    }
}

/// Rows that are packed while they are first multiplied.
struct Unpacked<'a, T, const PANELS: usize> {
    targets: Targets<'a, T>,
    /// The row that is number 0 here, and the column in which the first panel begins.
    start: usize,
    at: usize,
    /// What is taken from every row.
    offset: [&'a [f32; LANES]; PANELS],
    panels: [&'a mut [[f32; LANES]]; PANELS],
}

// SAFETY: the panels are of equal depth; the rows themselves are checked.
unsafe impl<T: Element, const PANELS: usize> Right<PANELS> for Unpacked<'_, T, PANELS> {
    #[inline(always)]
    fn depth(&self) -> usize {
        assert!(self.panels.iter().all(|panel| panel.len() == self.panels[0].len()));
        self.panels[0].len()
    }

    #[inline(always)]
    unsafe fn row<V: Simd>(&mut self, k: usize) -> [V; PANELS] {
        let from = &self.targets.row(self.start + k)[self.at..][..PANELS * LANES];
        let (from, _) = from.as_chunks();
        let mut row = [V::zero(); PANELS];
        for p in 0..PANELS {
            row[p] = T::load::<V>(&from[p]).sub(V::load(self.offset[p]));
            // SAFETY: k < depth, the length of every panel.
            row[p].store(unsafe { self.panels[p].get_unchecked_mut(k) });
        }
        row
    }
}

/// `ROWS` rows of the result, in the columns of `PANELS` panels.
#[inline(always)]
fn rows_of<V: Simd, const ROWS: usize, const PANELS: usize>(
    left: impl Left,
    mut right: impl Right<PANELS>,
    mut lines: Lines,
    add: bool,
    (out, out_stride, out_next): (&mut [f32], usize, usize),
) {
    let depth = right.depth();
    assert!(left.holds(ROWS, depth));
    let mut sum = [[V::zero(); PANELS]; ROWS];
    for k in 0..depth {
        // SAFETY: k < depth, which is the right factor's own.
        let b: [V; PANELS] = unsafe { right.row(k) };
        if lines.count > 0 {
            prefetch_second(lines.at);
            prefetch_second(lines.at.wrapping_add(64));
            lines.at = lines.at.wrapping_add(lines.stride);
            lines.count -= 1;
        }
        for i in 0..ROWS {
            // SAFETY: i < ROWS and k < depth, which the left factor was asked for above.
            let a = V::splat(unsafe { left.at(i, k) });
            for p in 0..PANELS {
                sum[i][p] = a.mul_add(b[p], sum[i][p]);
            }
        }
    }
    for i in 0..ROWS {
        for p in 0..PANELS {
            let out = out[i * out_stride + p * out_next..].first_chunk_mut::<LANES>();
            let out = out.expect("rows of the result hold a lane block for each panel");
            let sum = if add { V::load(out).add(sum[i][p]) } else { sum[i][p] };
            sum.store(out);
        }
    }
}

/// As many rows of the result as there is code for, at most `most`; returns how many.
#[inline(always)]
fn some_rows<V: Simd, const PANELS: usize>(
    most: usize,
    left: impl Left,
    right: impl Right<PANELS>,
    lines: Lines,
    add: bool,
    out: (&mut [f32], usize, usize),
) -> usize {
    macro_rules! rows {
        ($n:literal) => {{
            rows_of::<V, $n, PANELS>(left, right, lines, add, out);
            $n
        }};
    }
    match most.min(left.together()) {
        12.. => rows!(12),
        8.. => rows!(8),
        6.. => rows!(6),
        4.. => rows!(4),
        2.. => rows!(2),
        _ => rows!(1),
    }
}

/// A product's arguments: `m` rows of `a` with blocks [depth][LANES] of panels, the first of each `next` elements from the
/// last one's, give, or are added to, rows of `out` (stride `out_stride`), a lane block for each panel,
/// `out_next` elements from the last one's.
pub(crate) struct Block<'a, A> {
    pub(crate) m: usize,
    pub(crate) a: A,
    pub(crate) panels: &'a [f32],
    pub(crate) next: usize,
    pub(crate) depth: usize,
    pub(crate) add: bool,
    pub(crate) out: &'a mut [f32],
    pub(crate) out_stride: usize,
    pub(crate) out_next: usize,
}

impl<A: Left> Block<'_, A> {
    /// All rows in the columns of `PANELS` panels, the first of which is number `p`. `MOST` is how many rows of the result
    /// the registers hold beside rows of the panels.
    #[inline(always)]
    fn columns<V: Simd, const MOST: usize, const PANELS: usize>(&mut self, p: usize, hints: Hints<'_>) {
        let panel = |at: usize| self.panels[(p + at) * self.next..][..self.depth * LANES].as_chunks().0;
        let panels = std::array::from_fn(panel);
        let mut i = 0;
        while i < self.m {
            let a = self.a.skip(i);
            let out = (&mut self.out[i * self.out_stride + p * self.out_next..], self.out_stride, self.out_next);
            i += some_rows::<V, PANELS>(MOST.min(self.m - i), a, panels, hints(), self.add, out);
        }
    }

    /// In the columns of `count` panels, one or as many as registers like together at a time.
    #[inline(always)]
    fn multiply<V: Simd, const MOST: usize, const TOGETHER: usize, const MOST_TOGETHER: usize>(
        &mut self,
        count: usize,
        hints: Hints<'_>,
    ) {
        let mut p = 0;
        while p < count {
            if TOGETHER > 1 && count - p >= TOGETHER {
                self.columns::<V, MOST_TOGETHER, TOGETHER>(p, hints);
                p += TOGETHER;
            } else {
                self.columns::<V, MOST, 1>(p, hints);
                p += 1;
            }
        }
    }

    /// `count` panels; `hints` is called before every few rows.
    pub(crate) fn run(mut self, isa: Isa, count: usize, hints: Hints<'_>) {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn block_avx2<A: Left>(mut block: Block<'_, A>, count: usize, hints: Hints<'_>) {
            block.multiply::<Avx2, 6, 1, 0>(count, hints);
        }
        // A lane block is one register here: with a single panel there is a load for every multiply-add, with two of them
        // five for eight.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx2,fma")]
        fn block_avx512<A: Left>(mut block: Block<'_, A>, count: usize, hints: Hints<'_>) {
            block.multiply::<Avx512, 12, 2, 8>(count, hints);
        }
        match isa {
            // AArch64 has a fused multiply-add and 32 registers of 4 lanes; others are taken to have 16 of them.
            Isa::Baseline if cfg!(target_arch = "aarch64") => self.multiply::<Plain<true>, 6, 1, 0>(count, hints),
            Isa::Baseline => self.multiply::<Plain<false>, 2, 1, 0>(count, hints),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa::Avx2` is only made by `Isa::available`, after AVX2 and FMA were detected.
            Isa::Avx2 => unsafe { block_avx2(self, count, hints) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa::Avx512` is only made by `Isa::available`, after AVX-512F, AVX2 and FMA were detected.
            Isa::Avx512 => unsafe { block_avx512(self, count, hints) },
        }
    }
}

/// `out`, for each panel [m, LANES] (stride `out_stride`), `out_next` elements apart, becomes, or is added to, `a` [m, k]
/// times `count` panels [k][LANES], which begin `next` elements apart.
pub(crate) fn panels_product(
    isa: Isa,
    m: usize,
    a: impl Left,
    (panels, next, k, count): (&[f32], usize, usize, usize),
    (out, out_stride, out_next): (&mut [f32], usize, usize),
    add: bool,
) {
    if k == 0 && !add {
        for at in (0..m).flat_map(|i| (0..count).map(move |p| i * out_stride + p * out_next)) {
            out[at..][..LANES].fill(0.0);
        }
    }
    for start in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - start);
        let (a, panels) = (a.from(start), &panels[start * LANES..]);
        Block { m, a, panels, next, depth, add: add || start > 0, out: &mut *out, out_stride, out_next }.run(
            isa,
            count,
            &mut || Lines::NONE,
        );
    }
}

/// `out` (stride `out_stride`), [`WIDTH`] columns, becomes `a` [m, T] times the columns of `targets` from `at` on, widened
/// and less `offset`, which are left as panels [T][LANES].
pub(crate) struct TargetsProduct<'a, A, T> {
    pub(crate) m: usize,
    pub(crate) a: A,
    pub(crate) targets: Targets<'a, T>,
    pub(crate) at: usize,
    pub(crate) offset: &'a [f32; WIDTH],
    pub(crate) panels: &'a mut [f32],
    pub(crate) out: &'a mut [f32],
    pub(crate) out_stride: usize,
}

impl<A: Left, T: Element> TargetsProduct<'_, A, T> {
    #[inline(always)]
    fn multiply<V: Simd, const MOST: usize, const PANELS: usize>(&mut self, hints: Hints<'_>) {
        let len = self.panels.len() / TOGETHER;
        for start in (0..len).step_by(LANES * DEPTH) {
            let (first, add) = (start / LANES, start > 0);
            let a = self.a.from(first);
            let (mut offsets, mut panels) = (self.offset.as_chunks().0, self.panels.chunks_exact_mut(len));
            for at in (0..WIDTH).step_by(PANELS * LANES) {
                let mut block: [&mut [[f32; LANES]]; PANELS] = [(); PANELS].map(|()| {
                    let panel = panels.next().map_or(&mut [][..], |panel| &mut panel[start..]);
                    &mut panel.as_chunks_mut().0[..DEPTH.min((len - start) / LANES)]
                });
                let offset = std::array::from_fn(|p| &offsets[p]);
                offsets = &offsets[PANELS..];
                let mut done = 0;
                while done < self.m {
                    let (most, a) = (MOST.min(self.m - done), a.skip(done));
                    let out = (&mut self.out[done * self.out_stride + at..], self.out_stride, LANES);
                    done += if done == 0 {
                        let panels = block.each_mut().map(|panel| &mut **panel);
                        let right = Unpacked { targets: self.targets, start: first, at: self.at + at, offset, panels };
                        some_rows::<V, PANELS>(most, a, right, Lines::NONE, add, out)
                    } else {
                        let panels = block.each_ref().map(|panel| &**panel);
                        some_rows::<V, PANELS>(most, a, panels, hints(), add, out)
                    };
                }
            }
        }
    }

    /// `hints` is called before every few rows but the first, which wait for what they read themselves.
    pub(crate) fn run(mut self, isa: Isa, hints: Hints<'_>) {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,f16c")]
        fn targets_avx2<A: Left, T: Element>(mut product: TargetsProduct<'_, A, T>, hints: Hints<'_>) {
            product.multiply::<Avx2, 6, 1>(hints);
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx2,fma,f16c")]
        fn targets_avx512<A: Left, T: Element>(mut product: TargetsProduct<'_, A, T>, hints: Hints<'_>) {
            product.multiply::<Avx512, 8, 2>(hints);
        }
        match isa {
            Isa::Baseline if cfg!(target_arch = "aarch64") => self.multiply::<Plain<true>, 6, 1>(hints),
            Isa::Baseline => self.multiply::<Plain<false>, 2, 1>(hints),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa::Avx2` is only made by `Isa::available`, after AVX2, FMA and F16C were detected.
            Isa::Avx2 => unsafe { targets_avx2(self, hints) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Isa::Avx512` is only made by `Isa::available`, after AVX-512F, AVX2, FMA and F16C were detected.
            Isa::Avx512 => unsafe { targets_avx512(self, hints) },
        }
    }
}

/// [`panels_product`] of a whole panel.
pub(crate) fn panel_product(isa: Isa, m: usize, a: impl Left, panel: &[f32], out: (&mut [f32], usize)) {
    panels_product(isa, m, a, (panel, 0, panel.len() / LANES, 1), (out.0, out.1, 0), false);
}

/// `C = A B` for `a` [m, k] by rows, packed `b` [k, n] and `c` [m, n] by rows.
pub(crate) fn product(isa: Isa, [m, k, n]: [usize; 3], a: &[f32], b: &[f32], c: &mut [f32]) {
    let whole = n / LANES * LANES;
    // All panels before it goes on along k: what is long comes by once, and rows of A stay near.
    panels_product(isa, m, ByRows { a, stride: k }, (b, k * LANES, k, whole / LANES), (&mut *c, n, LANES), false);
    if whole < n {
        // The last panel is wider than what is left of C.
        let mut edge = vec![0.0; m * LANES];
        panel_product(isa, m, ByRows { a, stride: k }, &b[whole * k..], (&mut edge, LANES));
        for (c, edge) in c.chunks_exact_mut(n).zip(edge.chunks_exact(LANES)) {
            c[whole..].copy_from_slice(&edge[..n - whole]);
        }
    }
}

/// `C = A B` for `a` [m, k] and the rows of `b` [k, n], k > 0, which are packed while they are multiplied; `panels` are
/// room for them.
pub(crate) fn rows_product(
    isa: Isa,
    m: usize,
    a: impl Left,
    (b, n): (&[f32], usize),
    panels: &mut Vec<f32>,
    c: &mut [f32],
) {
    let (k, offset) = (b.len() / n, &[0.0; WIDTH]);
    panels.resize(k * WIDTH, 0.0);
    let targets = Targets { blocks: [b, &[], &[]], dim: n };
    let whole = n / WIDTH * WIDTH;
    for at in (0..whole).step_by(WIDTH) {
        let (panels, out) = (&mut panels[..], &mut c[at..]);
        let product = TargetsProduct { m, a, targets, at, offset, panels, out, out_stride: n };
        product.run(isa, &mut || Lines::NONE);
    }
    if whole < n {
        let (count, mut edge) = ((n - whole).div_ceil(LANES), vec![0.0; m * WIDTH]);
        pack_columns(isa, b, n, whole, k * LANES, &offset[..count * LANES], panels);
        panels_product(isa, m, a, (panels, k * LANES, k, count), (&mut edge, WIDTH, LANES), false);
        for (c, edge) in c.chunks_exact_mut(n).zip(edge.chunks_exact(WIDTH)) {
            c[whole..].copy_from_slice(&edge[..n - whole]);
        }
    }
}

per_isa! {
    /// Columns of a matrix `b` [k, n] by rows from `at` on, widened and less `offset`, as panels [k][LANES] that begin
    /// `stride` elements apart; zeros beyond n. There are as many columns as the offset is long.
    ///
    /// Several panels at a time, because a row's neighbouring columns are in neighbouring cache lines.
    fn pack_columns<T: Element>(b: &[T], n: usize, at: usize, stride: usize, offset: &[f32], panels: &mut [f32]) {
        let stride = stride / LANES;
        let (panels, _) = panels.as_chunks_mut::<LANES>();
        let (offset, _) = offset.as_chunks::<LANES>();
        for (row, b) in b.chunks_exact(n).enumerate() {
            let b = &b[at..];
            for (p, offset) in offset.iter().enumerate() {
                let out = &mut panels[p * stride + row];
                match b.get(p * LANES..).and_then(|b| b.first_chunk::<LANES>()) {
                    Some(lanes) => T::load::<V>(lanes).sub(V::load(offset)).store(out),
                    None => {
                        *out = [0.0; LANES];
                        for ((out, v), offset) in out.iter_mut().zip(b.iter().skip(p * LANES)).zip(offset) {
                            *out = v.to_f32() - offset;
                        }
                    }
                }
            }
        }
    }
}

per_isa! {
    /// `out = row - center`, widened; returns its squared norm.
    fn center_row<T: Element>(row: &[T], center: &[f32], out: &mut [f32]) -> f32 {
        let mut norm = V::zero();
        let ((row, row_tail), (center, center_tail), (out, out_tail)) =
            (row.as_chunks::<LANES>(), center.as_chunks::<LANES>(), out.as_chunks_mut::<LANES>());
        for ((v, center), out) in row.iter().zip(center).zip(out) {
            let v = T::load::<V>(v).sub(V::load(center));
            norm = v.mul_add(v, norm);
            v.store(out);
        }
        let mut last = [0.0; LANES];
        for (l, ((v, center), out)) in row_tail.iter().zip(center_tail).zip(out_tail).enumerate() {
            *out = v.to_f32() - center;
            last[l] = *out;
        }
        let last = V::load(&last);
        last.mul_add(last, norm).sum()
    }
}

/// The transpose of the first LANES columns of `count` rows (at most LANES; stride `stride`); zeros beyond `count`.
#[inline(always)]
fn turned<V: Simd>(count: usize, rows: &[f32], stride: usize) -> [V; LANES] {
    let mut square = [V::zero(); LANES];
    for (l, row) in square.iter_mut().enumerate().take(count) {
        let lanes = rows[l * stride..].first_chunk::<LANES>();
        *row = V::load(lanes.expect("a square has LANES columns"));
    }
    V::transpose(square)
}

per_isa! {
    /// The transpose of `count` rows (at most LANES; stride `stride`, `depth` elements each), as a panel
    /// [depth][LANES]; zeros beyond `count` rows.
    fn pack_rows(count: usize, rows: &[f32], stride: usize, depth: usize, panel: &mut [f32]) {
        let (panel, _) = panel[..depth * LANES].as_chunks_mut::<LANES>();
        let (squares, last) = panel.as_chunks_mut::<LANES>();
        for (at, out) in squares.iter_mut().enumerate() {
            for (out, row) in out.iter_mut().zip(turned::<V>(count, &rows[at * LANES..], stride)) {
                row.store(out);
            }
        }
        let done = squares.len() * LANES;
        for (k, out) in (done..).zip(last) {
            *out = [0.0; LANES];
            for l in 0..count {
                out[l] = rows[l * stride + k];
            }
        }
    }
}

per_isa! {
    /// Coordinates from `at` on of `count` targets (at most LANES) from number `first` on, widened and less `center`, as a
    /// panel [coordinates][LANES], zeros beyond `count`; adds their squares to `norms`.
    fn pack_targets<T: Element>(
        targets: Targets<'_, T>,
        first: usize,
        count: usize,
        at: usize,
        center: &[f32],
        panel: &mut [f32],
        norms: &mut [f32; LANES],
    ) {
        let mut rows: [&[T]; LANES] = [&[]; LANES];
        for (l, row) in rows.iter_mut().enumerate().take(count) {
            *row = &targets.row(first + l)[at..][..center.len()];
        }
        let (panel, _) = panel.as_chunks_mut::<LANES>();
        let (centers, last_centers) = center.as_chunks::<LANES>();
        // Each of four sums is in no other's way.
        let mut sums = [V::zero(); 4];
        for (block, center) in centers.iter().enumerate() {
            let mut square = [V::zero(); LANES];
            for l in 0..LANES {
                if l < count {
                    square[l] = elements::<V, T>(rows[l], block * LANES).sub(V::load(center));
                }
            }
            let columns = V::transpose(square);
            let out = panel[block * LANES..].first_chunk_mut::<LANES>().expect("the panel is as long as the center");
            for l in 0..LANES {
                sums[l % 4] = columns[l].mul_add(columns[l], sums[l % 4]);
                columns[l].store(&mut out[l]);
            }
        }
        let done = centers.len() * LANES;
        for (k, center) in (done..).zip(last_centers) {
            let out = &mut panel[k];
            *out = [0.0; LANES];
            for l in 0..count {
                out[l] = rows[l][k].to_f32() - center;
            }
            let column = V::load(out);
            sums[k % 4] = column.mul_add(column, sums[k % 4]);
        }
        V::load(norms).add(sums[0].add(sums[1]).add(sums[2].add(sums[3]))).store(norms);
    }
}

/// Packs the transpose of `rows` [n, k]: the `B` of a product with the rows themselves.
pub(crate) fn pack_transposed(isa: Isa, rows: &[f32], n: usize, k: usize, packed: &mut [f32]) {
    packed.par_chunks_exact_mut(k * LANES).enumerate().for_each(|(at, panel)| {
        let first = at * LANES;
        pack_rows(isa, LANES.min(n - first), &rows[first * k..], k, k, panel);
    });
}

/// Packs `b` [k, n] by rows.
pub(crate) fn pack(isa: Isa, b: &[f32], k: usize, n: usize, packed: &mut [f32]) {
    packed.par_chunks_exact_mut(k * LANES).enumerate().for_each(|(at, panel)| {
        pack_columns(isa, b, n, at * LANES, k * LANES, &[0.0; LANES], panel);
    });
}

per_isa! {
    /// Columns of a matrix `b` [k, n] by rows from `at` on, as rows of `out` [at most LANES, k].
    fn transpose_columns(b: &[f32], n: usize, at: usize, k: usize, out: &mut [f32]) {
        let count = out.len() / k;
        let whole = if count == LANES { k / LANES * LANES } else { 0 };
        for first in (0..whole).step_by(LANES) {
            for (l, row) in turned::<V>(LANES, &b[first * n + at..], n).into_iter().enumerate() {
                let to = out[l * k + first..].first_chunk_mut::<LANES>();
                row.store(to.expect("a square has LANES rows"));
            }
        }
        for (l, out) in out.chunks_exact_mut(k).enumerate() {
            for (i, out) in out.iter_mut().enumerate().skip(whole) {
                *out = b[i * n + at + l];
            }
        }
    }
}

/// Writes the transpose [n, k] of `b` [k, n].
pub(crate) fn transpose(isa: Isa, b: &[f32], k: usize, n: usize, out: &mut [f32]) {
    out.par_chunks_mut(k * LANES).enumerate().for_each(|(at, rows)| transpose_columns(isa, b, n, at * LANES, k, rows));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_all_sizes_agree_with_their_definition() {
        for isa in Isa::available() {
            for [m, k, n] in [[1, 1, 1], [7, 3, 15], [13, 300, 33], [6, 256, 16], [31, 257, 48], [2, 0, 5], [0, 4, 4]] {
                let a: Vec<f32> = (0..m * k).map(|v| (v % 11) as f32 - 5.0).collect();
                let rows: Vec<f32> = (0..n * k).map(|v| (v % 7) as f32 - 3.0).collect();
                let mut packed = vec![f32::NAN; packed_len(k, n)];
                if k > 0 {
                    pack_transposed(isa, &rows, n, k, &mut packed);
                }
                let want = |i: usize, j: usize| (0..k).map(|l| a[i * k + l] * rows[j * k + l]).sum::<f32>();
                let mut c = vec![f32::NAN; m * n];
                product(isa, [m, k, n], &a, &packed, &mut c);
                assert!((0..m * n).all(|at| c[at] == want(at / n, at % n)), "{} {m} x {k} x {n}", isa.name());

                // The same matrix by rows [k, n], packed column by column.
                let by_rows: Vec<f32> = (0..k * n).map(|at| rows[at % n * k + at / n]).collect();
                let mut again = vec![f32::NAN; packed_len(k, n)];
                if k > 0 {
                    pack(isa, &by_rows, k, n, &mut again);
                    let mut back = vec![f32::NAN; n * k];
                    transpose(isa, &by_rows, k, n, &mut back);
                    assert_eq!(back, rows);
                }
                assert_eq!(again, packed);
                if k == 0 {
                    continue;
                }

                // Packed while it is multiplied, with A by columns; and A by panels.
                let columns: Vec<f32> = (0..k * m).map(|at| a[at % m * k + at / m]).collect();
                let mut of_columns = vec![f32::NAN; m * n];
                let left = ByColumns { a: &columns, stride: m, row: 0 };
                rows_product(isa, m, left, (&by_rows, n), &mut Vec::new(), &mut of_columns);
                assert_eq!(of_columns, c);
                let mut panels = vec![f32::NAN; packed_len(k, m)];
                pack_transposed(isa, &a, m, k, &mut panels);
                let left = ByPanels { panels: &panels, next: k * LANES, row: 0 };
                let mut of_panels = vec![f32::NAN; m * LANES];
                panel_product(isa, m, left, &packed[..k * LANES], (&mut of_panels, LANES));
                for (of_panels, c) in of_panels.chunks_exact(LANES).zip(c.chunks_exact(n)) {
                    assert_eq!(of_panels[..n.min(LANES)], c[..n.min(LANES)]);
                }
            }
        }
    }
}
