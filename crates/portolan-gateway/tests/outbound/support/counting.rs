//! An allocator that counts what each thread holds.
#![expect(
    unsafe_code,
    reason = "an allocator is made of unsafe functions; each hands its call on"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes that this thread has allocated and not given back.
pub(crate) fn held() -> usize {
    HELD.get()
}

/// What malloc makes of it: eight bytes of header, sixteen of alignment, at least 32.
fn rounded(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call goes to `System` with the arguments it came with, and the counter, which needs no allocation,
// touches no memory of the caller's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.set(HELD.get().wrapping_add(rounded(layout.size())));
        // SAFETY: the caller's promises about `layout` are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.set(HELD.get().wrapping_sub(rounded(layout.size())));
        // SAFETY: `pointer` came from `alloc` above, which is `System`'s, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}
