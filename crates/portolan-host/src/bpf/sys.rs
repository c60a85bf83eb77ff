//! The three calls of `bpf(2)` that run an iterator.
#![expect(unsafe_code, reason = "bpf(2) is in neither std nor rustix")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::asm::Instruction;

/// Loads a program for an iterator of the kernel, given by the number of its function.
///
/// `log` takes what the kernel's verifier says; an empty one is faster.
///
/// # Errors
/// What bpf(2) says: EPERM without the rights, EACCES or EINVAL if the verifier refuses the program.
pub(crate) fn load_iterator(
    code: &[Instruction],
    function: u32,
    licence: &CStr,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let attributes = ProgLoad {
        prog_type: BPF_PROG_TYPE_TRACING,
        insn_cnt: length(code.len())?,
        insns: code.as_ptr() as u64,
        license: licence.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: length(log.len())?,
        log_buf: if log.is_empty() {
            0
        } else {
            log.as_mut_ptr() as u64
        },
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"portolan_owners\0",
        prog_ifindex: 0,
        expected_attach_type: BPF_TRACE_ITER,
        prog_btf_fd: 0,
        func_info_rec_size: 0,
        func_info: 0,
        func_info_cnt: 0,
        line_info_rec_size: 0,
        line_info: 0,
        line_info_cnt: 0,
        attach_btf_id: function,
        attach_prog_fd: 0,
        core_relo_cnt: 0,
    };
    // SAFETY: `insns` points at `insn_cnt` instructions of 8 bytes, `license` at text that ends with a zero
    // byte, and `log_buf` at `log_size` bytes that may be written; all three outlive the call.
    unsafe { bpf(BPF_PROG_LOAD, &attributes) }
}

/// Links an iterator's program to the iterator.
///
/// # Errors
/// What bpf(2) says.
pub(crate) fn link_iterator(program: &OwnedFd) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_fd: 0,
        attach_type: BPF_TRACE_ITER,
        flags: 0,
    };
    // SAFETY: the structure holds no pointers.
    unsafe { bpf(BPF_LINK_CREATE, &attributes) }
}

/// Opens a linked iterator; reading the descriptor runs it.
///
/// # Errors
/// What bpf(2) says.
pub(crate) fn open_iterator(link: &OwnedFd) -> io::Result<OwnedFd> {
    let attributes = IterCreate {
        link_fd: link.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    // SAFETY: the structure holds no pointers.
    unsafe { bpf(BPF_ITER_CREATE, &attributes) }
}

/// One call that answers with a new descriptor.
///
/// # Safety
/// `attributes` is the structure that `command` takes, all addresses in it valid for what the command does
/// with them, and the command answers with a descriptor.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as it is told, the size of the structure; the rest is the
    // caller's promise.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(answer) {
        // SAFETY: by the caller's promise the answer is a descriptor, and it is new, so that nobody else
        // owns it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn length(length: usize) -> io::Result<u32> {
    u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The part of `union bpf_attr` for loading a program, as far as Linux 5.8 knows it
/// (include/uapi/linux/bpf.h).
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
    attach_prog_fd: u32,
    /// Always 0; here it fills the structure up to a multiple of 8 bytes.
    core_relo_cnt: u32,
}

/// The part of `union bpf_attr` for linking a program.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// The part of `union bpf_attr` for opening an iterator.
#[repr(C)]
struct IterCreate {
    link_fd: u32,
    flags: u32,
}

// enum bpf_cmd
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_ITER_CREATE: libc::c_int = 33;

// enum bpf_prog_type
const BPF_PROG_TYPE_TRACING: u32 = 26;

// enum bpf_attach_type
const BPF_TRACE_ITER: u32 = 28;

const _: () = assert!(size_of::<ProgLoad>() == 120 && size_of::<Instruction>() == 8);
