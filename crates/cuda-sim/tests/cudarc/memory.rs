//! Device memory, page-locked memory, copies and memsets.

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{DriverError, result};

use crate::harness::{assert_code, device, simulate};

#[test]
fn copies_go_every_way() {
    simulate(|| {
        let (_, stream) = device();
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        let mut a = stream.clone_htod(&values).unwrap();
        let b = stream.clone_dtod(&a).unwrap();
        stream.memset_zeros(&mut a.slice_mut(10..20)).unwrap();
        stream.memcpy_htod(&[-1.0, -2.0], &mut a.slice_mut(998..)).unwrap();
        let mut expected = values.clone();
        expected[10..20].fill(0.0);
        expected[998..].copy_from_slice(&[-1.0, -2.0]);
        assert_eq!(stream.clone_dtoh(&a).unwrap(), expected);
        assert_eq!(stream.clone_dtoh(&b).unwrap(), values);
        let empty = stream.null::<f32>().unwrap();
        assert!(empty.is_empty());
    });
}

#[test]
fn page_locked_memory_is_memory() {
    simulate(|| {
        let (context, stream) = device();
        // SAFETY: it is written below before it is read.
        let mut pinned = unsafe { context.alloc_pinned::<u32>(100) }.unwrap();
        for (index, value) in pinned.as_mut_slice().unwrap().iter_mut().enumerate() {
            *value = index as u32;
        }
        let slice = stream.clone_htod(&pinned).unwrap();
        pinned.as_mut_slice().unwrap().fill(0);
        stream.memcpy_dtoh(&slice, &mut pinned).unwrap();
        assert!(pinned.as_slice().unwrap().iter().enumerate().all(|(index, value)| *value == index as u32));
        drop(pinned);
        context.check_err().unwrap();
    });
}

#[test]
fn words_and_rows_are_set_and_copied() {
    simulate(|| {
        let (context, stream) = device();
        let slice = stream.alloc_zeros::<u32>(6 * 8).unwrap();
        let addr = slice.leak();
        let pitch = 8 * 4;
        let mut rows = [0u32; 12];
        let copy = sys::CUDA_MEMCPY2D {
            srcXInBytes: 4,
            srcY: 1,
            srcMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcHost: std::ptr::null(),
            srcDevice: addr,
            srcArray: std::ptr::null_mut(),
            srcPitch: pitch,
            dstXInBytes: 0,
            dstY: 0,
            dstMemoryType: sys::CUmemorytype::CU_MEMORYTYPE_HOST,
            dstHost: rows.as_mut_ptr().cast(),
            dstDevice: 0,
            dstArray: std::ptr::null_mut(),
            dstPitch: 12,
            WidthInBytes: 12,
            Height: 4,
        };
        // SAFETY: the ranges lie inside the allocation of 6 rows of 8 words, and inside `rows`.
        unsafe {
            sys::cuMemsetD2D32_v2(addr + 4, pitch, 0x0102_0304, 3, 6).result().unwrap();
            sys::cuMemsetD16_v2(addr + pitch as u64 * 2 + 4, 0xabcd, 2).result().unwrap();
            sys::cuMemsetD32Async(addr + pitch as u64 * 3 + 4, 9, 1, stream.cu_stream()).result().unwrap();
            assert_code(sys::cuMemsetD32_v2(addr + 2, 0, 1).result(), CUresult::CUDA_ERROR_INVALID_VALUE);
            sys::cuMemcpy2D_v2(&copy).result().unwrap();
        }
        let fill = 0x0102_0304;
        assert_eq!(rows, [fill, fill, fill, 0xabcd_abcd, fill, fill, 9, fill, fill, fill, fill, fill]);
        let mut unified = [0u32; 2];
        // SAFETY: both ranges hold 8 bytes.
        unsafe { sys::cuMemcpy(unified.as_mut_ptr() as u64, addr + pitch as u64 + 4, 8) }.result().unwrap();
        assert_eq!(unified, [fill, fill]);
        let (mut base, mut len) = (0, 0);
        // SAFETY: the address was allocated above and is freed once.
        unsafe {
            sys::cuMemGetAddressRange_v2(&mut base, &mut len, addr + 100).result().unwrap();
            result::free_sync(addr).unwrap();
        }
        assert_eq!((base, len), (addr, 6 * 8 * 4));
        context.check_err().unwrap();
    });
}

#[test]
fn bad_addresses_are_refused() {
    simulate(|| {
        let (_, stream) = device();
        let slice = stream.clone_htod(&[0u8; 1000]).unwrap();
        let addr = slice.leak();
        let mut bytes = [0u8; 1001];
        // SAFETY: the host's side of each copy is in bounds; the device's side is what is tested.
        unsafe {
            assert_code(result::memcpy_dtoh_sync(&mut bytes, addr), CUresult::CUDA_ERROR_INVALID_VALUE);
            assert_code(result::memcpy_htod_sync(addr + 1000, &bytes[..1]), CUresult::CUDA_ERROR_INVALID_VALUE);
            assert_code(result::free_sync(addr + 512), CUresult::CUDA_ERROR_INVALID_VALUE);
            result::free_sync(addr).unwrap();
            assert_code(result::free_sync(addr), CUresult::CUDA_ERROR_INVALID_VALUE);
            assert_code(result::memcpy_htod_sync(addr, &bytes[..1]), CUresult::CUDA_ERROR_INVALID_VALUE);
            assert_code(result::malloc_sync(0), CUresult::CUDA_ERROR_INVALID_VALUE);
        }
        // None of these is sticky.
        stream.synchronize().unwrap();
    });
}

#[test]
fn memory_runs_out() {
    simulate(|| {
        let (context, stream) = device();
        // SAFETY: nothing is read.
        let big = unsafe { stream.alloc::<u8>(41 << 30) };
        assert!(matches!(big, Err(DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY))));
        assert_eq!(context.mem_get_info(), Ok((40 << 30, 40 << 30)));
        stream.synchronize().unwrap();
    });
}

#[test]
fn addresses_have_attributes() {
    use sys::CUpointer_attribute as Attribute;
    simulate(|| {
        let (context, stream) = device();
        let addr = stream.clone_htod(&[0u32; 25]).unwrap().leak();
        let mut words = vec![1u32; 10];
        let host = words.as_mut_ptr().addr() as u64;
        let number = |attribute, addr| {
            let mut value = 0u64;
            // SAFETY: no attribute that is asked for is longer than 8 bytes.
            let result = unsafe { sys::cuPointerGetAttribute((&raw mut value).cast(), attribute, addr) };
            result.result().map(|()| value)
        };
        assert_code(number(Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, host), CUresult::CUDA_ERROR_INVALID_VALUE);
        // SAFETY: the words live until they are unregistered.
        unsafe { sys::cuMemHostRegister_v2(words.as_mut_ptr().cast(), 40, 0) }.result().unwrap();
        // SAFETY: as above.
        let again = unsafe { sys::cuMemHostRegister_v2(words.as_mut_ptr().wrapping_add(9).cast(), 40, 0) };
        assert_code(again.result(), CUresult::CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
        for (attribute, on_device, on_host) in [
            (Attribute::CU_POINTER_ATTRIBUTE_MEMORY_TYPE, 2, 1),
            (Attribute::CU_POINTER_ATTRIBUTE_CONTEXT, context.cu_ctx().addr() as u64, context.cu_ctx().addr() as u64),
            (Attribute::CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, addr, host),
            (Attribute::CU_POINTER_ATTRIBUTE_RANGE_SIZE, 100, 40),
            (Attribute::CU_POINTER_ATTRIBUTE_IS_MANAGED, 0, 0),
        ] {
            assert_eq!((number(attribute, addr + 99), number(attribute, host + 39)), (Ok(on_device), Ok(on_host)));
        }
        // SAFETY: registered above.
        unsafe { sys::cuMemHostUnregister(words.as_mut_ptr().cast()) }.result().unwrap();
        // SAFETY: not registered, which is what is tested.
        let again = unsafe { sys::cuMemHostUnregister(words.as_mut_ptr().cast()) };
        assert_code(again.result(), CUresult::CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    });
}

#[test]
fn pools_have_attributes_and_give_memory() {
    use sys::CUmemPool_attribute as Attribute;
    simulate(|| {
        let (context, stream) = device();
        // SAFETY: all bytes zero are properties like any other here.
        let properties: sys::CUmemPoolProps = unsafe { std::mem::zeroed() };
        let (mut default, mut pool, mut addr) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        let (mut threshold, mut used) = (1u64 << 20, 0u64);
        // SAFETY: the pointers are to values of the types that the functions write.
        unsafe {
            sys::cuDeviceGetDefaultMemPool(&mut default, context.cu_device()).result().unwrap();
            sys::cuMemPoolCreate(&mut pool, &properties).result().unwrap();
            let attribute = Attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result().unwrap();
            threshold = 0;
            sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut threshold).cast()).result().unwrap();
            sys::cuMemAllocFromPoolAsync(&mut addr, 1000, pool, stream.cu_stream()).result().unwrap();
            let attribute = Attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT;
            sys::cuMemPoolGetAttribute(pool, attribute, (&raw mut used).cast()).result().unwrap();
            sys::cuMemFreeAsync(addr, stream.cu_stream()).result().unwrap();
            sys::cuMemPoolDestroy(pool).result().unwrap();
            let stale = sys::cuMemAllocFromPoolAsync(&mut addr, 1000, pool, stream.cu_stream());
            assert_code(stale.result(), CUresult::CUDA_ERROR_INVALID_HANDLE);
        }
        assert_eq!((threshold, used), (1 << 20, 1024));
        assert_ne!(default, pool);
    });
}
