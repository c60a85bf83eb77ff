//! System calls: those that serving a port space takes, and no others (seccomp(2)).

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter_all_threads,
};

/// Leaves every thread of this process the system calls that moving packets and bytes takes: sockets, pipes, waiting,
/// memory that holds no code, threads, and files to be read. All others fail with ENOSYS from now on, as if the kernel
/// did not have them, so that the C library can do without: no program is started, no file written, nobody traced.
///
/// # Errors
/// If this machine is none of x86-64, AArch64 and RISC-V, or the kernel refuses.
pub fn limit_system_calls() -> Result<(), Error> {
    let arch = std::env::consts::ARCH.try_into()?;
    let mut rules: BTreeMap<_, _> = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    for (call, rule) in conditional()? {
        rules.insert(call, vec![rule]);
    }
    let unknown = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let filter = SeccompFilter::new(rules, unknown, SeccompAction::Allow, arch)?;
    let program: BpfProgram = filter.try_into()?;
    apply_filter_all_threads(&program)
}

/// Calls that are allowed by their arguments.
fn conditional() -> Result<Vec<(i64, SeccompRule)>, BackendError> {
    let writing = libc::O_WRONLY | libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC;
    let rule = |argument, mask: libc::c_int, value: libc::c_int| {
        let operator = SeccompCmpOp::MaskedEq(u64::from(mask.cast_unsigned()));
        let value = u64::from(value.cast_unsigned());
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    };
    Ok(vec![
        (libc::SYS_openat, rule(2, writing, 0)?),
        (libc::SYS_mmap, rule(2, libc::PROT_EXEC, 0)?),
        (libc::SYS_mprotect, rule(2, libc::PROT_EXEC, 0)?),
        // Limits of this process alone.
        (libc::SYS_prlimit64, rule(0, -1, 0)?),
        // A thread, and no process. clone3, whose flags cannot be looked at, is not there.
        (libc::SYS_clone, rule(0, libc::CLONE_THREAD, libc::CLONE_THREAD)?),
    ])
}

const ALWAYS: &[i64] = &[
    // Sockets, pipes, devices.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_splice,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_pipe2,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_eventfd2,
    libc::SYS_futex,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_restart_syscall,
    // Memory.
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_getrandom,
    // Threads, signals, the end.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_prctl,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_tgkill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];
