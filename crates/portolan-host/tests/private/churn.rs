//! Very many processes that start and end while something else goes on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Starts and ends `count` processes, some at a time, and calls `meanwhile` again and again until they are
/// done, and at least once.
///
/// Each holds every descriptor of this process for as long as it lives.
pub(crate) fn come_and_go(count: usize, mut meanwhile: impl FnMut()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Whatever happens here, the loop below ends.
            let _done = SetOnDrop(&done);
            let mut stacks = vec![[0_u128; STACK_LEN]; AT_A_TIME];
            for _ in 0..count / AT_A_TIME {
                let children: Vec<libc::pid_t> = stacks.iter_mut().map(start).collect();
                for child in children {
                    wait(child);
                }
            }
        });
        loop {
            meanwhile();
            if done.load(Ordering::Relaxed) {
                break;
            }
        }
    });
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts a process that ends at once. It borrows our memory, as after vfork, which is much faster than a
/// copy; whoever calls must wait for it before using the stack again.
fn start(stack: &mut [u128; STACK_LEN]) -> libc::pid_t {
    extern "C" fn end(_: *mut libc::c_void) -> libc::c_int {
        // SAFETY: it ends the process that was made by clone, and touches no memory that we share.
        unsafe { libc::_exit(0) }
    }
    let top = stack.as_mut_ptr_range().end.cast();
    // SAFETY: the stack grows down from its end, is aligned to 16 bytes, and lives and stays unused until the
    // process was waited for; the function never returns, and takes no argument.
    let child = unsafe { libc::clone(end, top, libc::CLONE_VM | libc::SIGCHLD, std::ptr::null_mut()) };
    assert!(child > 0, "clone: {}", std::io::Error::last_os_error());
    child
}

fn wait(child: libc::pid_t) {
    // SAFETY: the status is not asked for, so that no memory is written.
    let ended = unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    assert_eq!(ended, child, "waitpid: {}", std::io::Error::last_os_error());
}

const AT_A_TIME: usize = 20;

/// 16 KiB.
const STACK_LEN: usize = 1024;
