//! Sums and updates of vectors.

use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, PoisonError};

use super::access::{Access, Done, Layout, Scalar};
use super::api::HANDLES;
use super::element::Element;
use super::handle::Handle;
use super::status::{Result, Status, answer};
use crate::device::Device;
use crate::driver::{enqueue_library, run_library};

/// A vector argument.
#[derive(Clone, Copy)]
struct Vector {
    at: u64,
    layout: Layout,
}

impl Vector {
    /// A vector of `len` elements; none where `len` is negative.
    fn new<T>(pointer: *const T, element: Element, len: c_int, increment: c_int) -> Self {
        let len = usize::try_from(len).unwrap_or(0);
        Self { at: pointer.addr() as u64, layout: Layout::vector(element, len, increment.into()) }
    }

    /// As BLAS reads it in sums and in scal: empty unless the increment is positive.
    fn forward<T>(pointer: *const T, element: Element, len: c_int, increment: c_int) -> Self {
        Self::new(pointer, element, if increment > 0 { len } else { 0 }, increment)
    }

    fn load(&self, access: Access<'_>, name: &str) -> Done<Vec<f64>> {
        access.load(name, self.at, &self.layout)
    }

    fn store(&self, access: Access<'_>, name: &str, values: &[f64]) -> Done {
        access.store(name, self.at, &self.layout, values)
    }
}

/// Computes a number and leaves it where the handle's pointer mode says.
///
/// # Errors
/// As [`enqueue_library`], and where a result on the host would have to wait for a graph.
///
/// # Safety
/// Unless it lies on the device, `result` is null or valid for a write of `element`.
unsafe fn reduce(
    handle: Handle,
    call: &'static str,
    element: Element,
    result: *mut c_void,
    sum: impl Fn(Access<'_>) -> Done<f64> + Send + Sync + 'static,
) -> Result {
    let settings = HANDLES.get(handle)?;
    if result.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    if settings.on_device {
        let place = Vector::new(result, element, 1, 1);
        let run = move |device: &Device| {
            let access = Access { device, call };
            place.store(access, "the result", &[sum(access)?])
        };
        return Ok(enqueue_library(settings.stream, Arc::new(run))?);
    }
    let value = Arc::new(Mutex::new(None));
    let slot = value.clone();
    let run = move |device: &Device| {
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(sum(Access { device, call })?);
        Ok(())
    };
    run_library(settings.stream, Arc::new(run))?;
    // The work is done, unless the stream captures.
    let value = value.lock().unwrap_or_else(PoisonError::into_inner).ok_or(Status::EXECUTION_FAILED)?;
    let mut bytes = Vec::with_capacity(element.size());
    element.encode(&[value], &mut bytes);
    // SAFETY: valid for a write of the element, as the caller promises.
    unsafe { result.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Ok(())
}

/// The Euclidean norm, without overflow or underflow of the squares.
fn norm(values: &[f64]) -> f64 {
    let greatest = values.iter().fold(0.0_f64, |greatest, x| greatest.max(x.abs()));
    if greatest == 0.0 || greatest.is_infinite() {
        // The sum tells a NaN from infinity.
        return values.iter().map(|x| x.abs()).sum();
    }
    values.iter().map(|x| (x / greatest).powi(2)).sum::<f64>().sqrt() * greatest
}

macro_rules! vectors {
    ($scalar:ty, $element:ident, $asum:ident, $nrm2:ident, $dot:ident, $axpy:ident, $scal:ident) => {
        /// The sum of the absolute values of x.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $asum(
            handle: Handle,
            n: c_int,
            x: *const $scalar,
            incx: c_int,
            result: *mut $scalar,
        ) -> c_int {
            let x = Vector::forward(x, Element::$element, n, incx);
            let sum = move |access: Access<'_>| Ok(x.load(access, "x")?.iter().map(|x| x.abs()).sum());
            // SAFETY: the result points to what the type says.
            answer(|| unsafe { reduce(handle, stringify!($asum), Element::$element, result.cast(), sum) })
        }

        /// The Euclidean norm of x.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $nrm2(
            handle: Handle,
            n: c_int,
            x: *const $scalar,
            incx: c_int,
            result: *mut $scalar,
        ) -> c_int {
            let x = Vector::forward(x, Element::$element, n, incx);
            let sum = move |access: Access<'_>| Ok(norm(&x.load(access, "x")?));
            // SAFETY: the result points to what the type says.
            answer(|| unsafe { reduce(handle, stringify!($nrm2), Element::$element, result.cast(), sum) })
        }

        /// The scalar product of x and y.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $dot(
            handle: Handle,
            n: c_int,
            x: *const $scalar,
            incx: c_int,
            y: *const $scalar,
            incy: c_int,
            result: *mut $scalar,
        ) -> c_int {
            let x = Vector::new(x, Element::$element, n, incx);
            let y = Vector::new(y, Element::$element, n, incy);
            let sum = move |access: Access<'_>| {
                let (x, y) = (x.load(access, "x")?, y.load(access, "y")?);
                Ok(x.iter().zip(y).map(|(x, y)| x * y).sum())
            };
            // SAFETY: the result points to what the type says.
            answer(|| unsafe { reduce(handle, stringify!($dot), Element::$element, result.cast(), sum) })
        }

        /// y = alpha x + y.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $axpy(
            handle: Handle,
            n: c_int,
            alpha: *const $scalar,
            x: *const $scalar,
            incx: c_int,
            y: *mut $scalar,
            incy: c_int,
        ) -> c_int {
            answer(|| {
                let settings = HANDLES.get(handle)?;
                // SAFETY: alpha points to what the type says.
                let alpha = unsafe { Scalar::new(alpha.cast(), Element::$element, settings.on_device)? };
                if incy == 0 {
                    return Err(Status::INVALID_VALUE);
                }
                let x = Vector::new(x, Element::$element, n, incx);
                let y = Vector::new(y, Element::$element, n, incy);
                let run = move |device: &Device| {
                    let access = Access { device, call: stringify!($axpy) };
                    let alpha = alpha.value(access, "alpha")?;
                    if alpha == 0.0 {
                        return Ok(());
                    }
                    let (x, mut sums) = (x.load(access, "x")?, y.load(access, "y")?);
                    sums.iter_mut().zip(x).for_each(|(y, x)| *y += alpha * x);
                    y.store(access, "y", &sums)
                };
                Ok(enqueue_library(settings.stream, Arc::new(run))?)
            })
        }

        /// x = alpha x.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $scal(
            handle: Handle,
            n: c_int,
            alpha: *const $scalar,
            x: *mut $scalar,
            incx: c_int,
        ) -> c_int {
            answer(|| {
                let settings = HANDLES.get(handle)?;
                // SAFETY: alpha points to what the type says.
                let alpha = unsafe { Scalar::new(alpha.cast(), Element::$element, settings.on_device)? };
                let x = Vector::forward(x, Element::$element, n, incx);
                let run = move |device: &Device| {
                    let access = Access { device, call: stringify!($scal) };
                    let alpha = alpha.value(access, "alpha")?;
                    let mut values = x.load(access, "x")?;
                    values.iter_mut().for_each(|x| *x *= alpha);
                    x.store(access, "x", &values)
                };
                Ok(enqueue_library(settings.stream, Arc::new(run))?)
            })
        }
    };
}

vectors!(f32, F32, cublasSasum_v2, cublasSnrm2_v2, cublasSdot_v2, cublasSaxpy_v2, cublasSscal_v2);
vectors!(f64, F64, cublasDasum_v2, cublasDnrm2_v2, cublasDdot_v2, cublasDaxpy_v2, cublasDscal_v2);

#[cfg(test)]
mod tests {
    use super::norm;

    #[test]
    fn norms_neither_overflow_nor_underflow() {
        assert_eq!(norm(&[]), 0.0);
        assert_eq!(norm(&[3.0, -4.0]), 5.0);
        assert_eq!(norm(&[3e300, 4e300]), 5e300);
        assert!((norm(&[3e-300, 4e-300]) / 5e-300 - 1.0).abs() < 1e-15);
        assert_eq!(norm(&[1.0, f64::NEG_INFINITY]), f64::INFINITY);
        assert!(norm(&[1.0, f64::NAN]).is_nan());
        assert!(norm(&[0.0, f64::NAN]).is_nan());
    }
}
