//! A checked front of `matrixmultiply::sgemm`.

/// A matrix inside a slice: the element (r, c) lies at `r * row_stride + c * col_stride`.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    pub(crate) row_stride: usize,
    pub(crate) col_stride: usize,
}

impl Layout {
    /// Rows one after another.
    pub(crate) fn rows(row_stride: usize) -> Self {
        Self { row_stride, col_stride: 1 }
    }

    /// The transpose of a matrix stored by rows.
    pub(crate) fn transposed(row_stride: usize) -> Self {
        Self { row_stride: 1, col_stride: row_stride }
    }

    fn extent(self, rows: usize, cols: usize) -> usize {
        if rows == 0 || cols == 0 { 0 } else { (rows - 1) * self.row_stride + (cols - 1) * self.col_stride + 1 }
    }
}

/// `c = a b + beta c` for a [m, k], b [k, n] and c [m, n] by rows.
///
/// A row's bits do not depend on the other rows of a.
pub(crate) fn gemm(
    [m, k, n]: [usize; 3],
    (a, la): (&[f32], Layout),
    (b, lb): (&[f32], Layout),
    beta: f32,
    (c, c_stride): (&mut [f32], usize),
) {
    let lc = Layout::rows(c_stride);
    assert!(a.len() >= la.extent(m, k) && b.len() >= lb.extent(k, n) && c.len() >= lc.extent(m, n));
    assert!(c_stride >= n || m <= 1);
    // SAFETY: the assertions above keep every element (r, c) of the three matrices inside its slice; `c` is borrowed
    // mutably, so it overlaps neither `a` nor `b`, and its rows do not overlap one another since its row stride is at
    // least n. A Rust slice has at most isize::MAX bytes, so no stride or offset overflows isize.
    unsafe {
        matrixmultiply::sgemm(
            m,
            k,
            n,
            1.0,
            a.as_ptr(),
            la.row_stride as isize,
            la.col_stride as isize,
            b.as_ptr(),
            lb.row_stride as isize,
            lb.col_stride as isize,
            beta,
            c.as_mut_ptr(),
            lc.row_stride as isize,
            lc.col_stride as isize,
        );
    }
}
