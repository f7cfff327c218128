//! One slice written by several threads at once.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice whose parts may be borrowed by different threads.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it only hands out `&mut [T]`, and the caller of `part` promises that no two overlap, so
// sharing it moves `T`s between threads as `&mut [T]` does.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Disjoint<'a, T> {
        Disjoint { start: slice.as_mut_ptr(), len: slice.len(), borrow: PhantomData }
    }

    /// Borrows `range` of the slice.
    ///
    /// # Panics
    ///
    /// If the range is not within the slice.
    ///
    /// # Safety
    ///
    /// No other part borrowed at the same time, by any thread, may overlap `range`.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "part out of bounds");
        // SAFETY: within the slice this was made of, which stays mutably borrowed for 'a; the caller
        // promises that nobody else holds an overlapping part.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
