//! Handles: numbers that only the tables here know, so that a stale or foreign one is refused and never followed.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::status::{Result, Status};

/// A handle as C sees it.
pub(super) type Handle = *mut c_void;

/// Handles of one kind, and what they stand for.
pub(super) struct Table<T>(Mutex<BTreeMap<usize, T>>);

impl<T: Clone> Table<T> {
    /// A table without handles.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<usize, T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new handle.
    pub(super) fn insert(&self, value: T) -> Handle {
        /// Shared by all tables, so that a handle of one kind is none of another.
        static NEXT: AtomicUsize = AtomicUsize::new(0xb1a5_0000);
        let number = NEXT.fetch_add(16, Relaxed);
        self.entries().insert(number, value);
        ptr::without_provenance_mut(number)
    }

    /// What a handle stands for.
    ///
    /// # Errors
    /// Where there is no such handle.
    pub(super) fn get(&self, handle: Handle) -> Result<T> {
        self.entries().get(&handle.addr()).cloned().ok_or(Status::NOT_INITIALIZED)
    }

    /// Changes what a handle stands for.
    ///
    /// # Errors
    /// Where there is no such handle.
    pub(super) fn update(&self, handle: Handle, change: impl FnOnce(&mut T)) -> Result {
        self.entries().get_mut(&handle.addr()).map(change).ok_or(Status::NOT_INITIALIZED)
    }

    /// Ends a handle.
    ///
    /// # Errors
    /// Where there is no such handle.
    pub(super) fn remove(&self, handle: Handle) -> Result {
        self.entries().remove(&handle.addr()).map(drop).ok_or(Status::NOT_INITIALIZED)
    }
}
