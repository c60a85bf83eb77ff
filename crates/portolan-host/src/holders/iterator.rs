//! The holders of sockets by a BPF iterator: the kernel walks the descriptors of every task and runs a
//! small program of ours for each, which writes a record of 16 bytes for each socket. That is one system
//! call for some two thousand sockets, where /proc takes one for each.
//!
//! The program is assembled here, with offsets from the running kernel's own type description. It only
//! reads.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::thread::CapabilitySet;

use super::{HOLDINGS_MAX, Holding, Holdings, HoldingsRequest};
use crate::bpf::asm::{AsmError, Assembler, Instruction, Label, Reg, Size};
use crate::bpf::btf::{Btf, BtfError, Member};
use crate::bpf::sys;
use crate::bpf::types::KernelTypes;
use crate::{Collector, ProcRoot, StartTime};

/// Why the iterator did not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum IteratorError {
    #[error("the processes are not those of this machine's /proc")]
    OtherProc,
    #[error("not in the first PID namespace, so the kernel's process numbers would be others")]
    PidNamespace,
    #[error("not permitted (needs CAP_BPF and CAP_PERFMON, or root)")]
    Rights,
    #[error("cannot read {TYPES}: {0}")]
    Types(io::Error),
    #[error("{0}")]
    Btf(#[from] BtfError),
    #[error("an offset of {0} bytes is more than an instruction takes")]
    Offset(u32),
    #[error("{0}")]
    Assemble(#[from] AsmError),
    #[error("the kernel does not take the program: {source}{}", last_line(log))]
    Load { source: io::Error, log: String },
    #[error("the kernel does not run the program: {0}")]
    Run(io::Error),
}

/// Runs the iterator once over all descriptors.
pub(super) fn every_descriptor(
    root: &ProcRoot,
    request: &HoldingsRequest,
) -> Result<Holdings, IteratorError> {
    permitted(root)?;
    let began = StartTime::now();
    let give_up_at = request.give_up_at();
    let types = KernelTypes::open(Path::new(TYPES)).map_err(IteratorError::Types)?;
    let (function, layout) = Layout::of(&Btf::parse(&types)?)?;
    drop(types);
    let code = program(&layout, &prefilter(request))?;
    let mut records = File::from(start(&code, function)?);

    let mut holdings = Vec::new();
    let mut warnings = Vec::new();
    let mut buffer = vec![0; BUFFER_LEN];
    let mut filled = 0;
    loop {
        if give_up_at.is_some_and(|moment| Instant::now() >= moment) {
            warnings.push("the time for finding owners was over; owners may be missing".to_owned());
            break;
        }
        if holdings.len() >= HOLDINGS_MAX {
            warnings.push(format!(
                "stopped after {HOLDINGS_MAX} descriptors of sockets; owners may be missing; ask for fewer sockets"
            ));
            break;
        }
        match records.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            // EAGAIN: the kernel pauses after a million descriptors in which it found nothing to say.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) => {}
            Err(error) => return Err(IteratorError::Run(error)),
        }
        let (whole, rest) = buffer[..filled].as_chunks::<RECORD_LEN>();
        holdings.extend(
            whole
                .iter()
                .map(parse_record)
                .filter(|holding| request.wants(holding.inode)),
        );
        let (from, length) = (filled - rest.len(), rest.len());
        buffer.copy_within(from..filled, 0);
        filled = length;
    }
    holdings.sort_unstable();
    // Some kernels name the descriptors of a process once for each of its threads.
    holdings.dedup();
    Ok(Holdings {
        holdings,
        unreadable: Default::default(),
        hidden_processes: false,
        began,
        collector: Collector::BpfTaskFile,
        passed_over: Vec::new(),
        warnings,
    })
}

/// Whether it is worth trying, found out without the cost of trying.
fn permitted(root: &ProcRoot) -> Result<(), IteratorError> {
    if !root.is_own() {
        return Err(IteratorError::OtherProc);
    }
    let namespace = |name| rustix::fs::stat(name).map(|stat| stat.st_ino);
    if namespace("/proc/self/ns/pid") != Ok(FIRST_PID_NAMESPACE) {
        return Err(IteratorError::PidNamespace);
    }
    // Rights within another user namespace are no rights over the kernel.
    let have = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let enough = have.contains(CapabilitySet::SYS_ADMIN)
        || have.contains(CapabilitySet::BPF.union(CapabilitySet::PERFMON));
    if !enough || namespace("/proc/self/ns/user") != Ok(FIRST_USER_NAMESPACE) {
        return Err(IteratorError::Rights);
    }
    Ok(())
}

/// Loads and starts the program. If the kernel refuses it, it is asked again for its reasons.
fn start(code: &[Instruction], function: u32) -> Result<OwnedFd, IteratorError> {
    let program = sys::load_iterator(code, function, LICENCE, &mut []).map_err(|source| {
        if source.kind() == io::ErrorKind::PermissionDenied && source.raw_os_error() == Some(libc::EPERM) {
            return IteratorError::Rights;
        }
        let mut log = vec![0; LOG_LEN];
        let _ = sys::load_iterator(code, function, LICENCE, &mut log);
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
        let log = String::from_utf8_lossy(&log[..end]).into_owned();
        tracing::debug!(%source, log, "the verifier refused the task_file program");
        IteratorError::Load { source, log }
    })?;
    let link = sys::link_iterator(&program).map_err(IteratorError::Run)?;
    sys::open_iterator(&link).map_err(IteratorError::Run)
}

/// Where the kernel that runs keeps what the program reads.
struct Layout {
    task_tgid: i16,
    file_inode: i16,
    inode_super_block: i16,
    inode_number: i16,
    super_block_magic: i16,
}

impl Layout {
    fn of(btf: &Btf<'_>) -> Result<(u32, Self), IteratorError> {
        let members = [
            ("task_struct", "tgid"),
            ("file", "f_inode"),
            ("inode", "i_sb"),
            ("inode", "i_ino"),
            ("super_block", "s_magic"),
        ]
        .map(|(structure, name)| Member { structure, name });
        let (function, offsets) = btf.resolve("bpf_iter_task_file", members)?;
        let fit = |offset: u32| i16::try_from(offset).map_err(|_| IteratorError::Offset(offset));
        let [tgid, f_inode, i_sb, i_ino, s_magic] = offsets;
        let layout = Self {
            task_tgid: fit(tgid)?,
            file_inode: fit(f_inode)?,
            inode_super_block: fit(i_sb)?,
            inode_number: fit(i_ino)?,
            super_block_magic: fit(s_magic)?,
        };
        Ok((function, layout))
    }
}

/// The inode numbers that the program itself lets pass, as intervals, rising; empty for every socket.
///
/// So few sockets are few records, however many connections are open. Sockets made one after the other have
/// neighbouring numbers, and where there are more intervals than the program is to hold, the nearest are
/// taken together: it lets pass too much, and [`HoldingsRequest::wants`] decides in the end.
fn prefilter(request: &HoldingsRequest) -> Vec<(u32, u32)> {
    let Some(inodes) = &request.inodes else {
        return Vec::new();
    };
    if inodes.len() > PREFILTER_MAX {
        return Vec::new();
    }
    // Sockets are numbered with 32 bits; only these are compared.
    let mut words: Vec<u32> = inodes.iter().map(|inode| (inode & 0xffff_ffff) as u32).collect();
    words.sort_unstable();
    let mut gaps: Vec<u32> = words.array_windows().map(|[low, high]| high - low).collect();
    let excess = gaps.len().saturating_sub(INTERVALS_MAX - 1);
    let narrow = match excess {
        0 => 1,
        _ => (*gaps.select_nth_unstable(excess).1).max(1),
    };
    words
        .chunk_by(|low, high| high - low <= narrow)
        .filter_map(|interval| Some((*interval.first()?, *interval.last()?)))
        .collect()
}

/// The program that the kernel runs for each descriptor.
///
/// ```text
/// if (!ctx->task || !ctx->file || ctx->file->f_inode->i_sb->s_magic != SOCKFS_MAGIC) return 0;
/// if (i_ino is not looked for) return 0;
/// record = { i_ino, ctx->task->tgid, ctx->fd };
/// bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
/// return 0;
/// ```
fn program(layout: &Layout, intervals: &[(u32, u32)]) -> Result<Vec<Instruction>, AsmError> {
    let mut asm = Assembler::default();
    let (emit, done) = (asm.label(), asm.label());
    asm.mov(Reg::R6, Reg::R1);
    // At the end of the walk the kernel calls once more, without task and file.
    asm.load(Size::Double, Reg::R7, Reg::R6, CONTEXT_FILE);
    asm.jump_if_equal(Reg::R7, 0, done);
    asm.load(Size::Double, Reg::R8, Reg::R6, CONTEXT_TASK);
    asm.jump_if_equal(Reg::R8, 0, done);
    // Loads through the kernel's pointers cannot fault: a bad address reads as 0.
    asm.load(Size::Double, Reg::R2, Reg::R7, layout.file_inode);
    asm.load(Size::Double, Reg::R3, Reg::R2, layout.inode_super_block);
    asm.load(Size::Double, Reg::R3, Reg::R3, layout.super_block_magic);
    asm.jump_if_different(Reg::R3, SOCKFS_MAGIC, done);
    asm.load(Size::Double, Reg::R9, Reg::R2, layout.inode_number);
    if !intervals.is_empty() {
        search(&mut asm, intervals, emit, done);
    }
    asm.bind(emit);
    asm.store(Size::Double, Reg::Frame, -16, Reg::R9);
    asm.load(Size::Word, Reg::R3, Reg::R8, layout.task_tgid);
    asm.store(Size::Word, Reg::Frame, -8, Reg::R3);
    asm.load(Size::Double, Reg::R3, Reg::R6, CONTEXT_FD);
    asm.store(Size::Word, Reg::Frame, -4, Reg::R3);
    asm.load(Size::Double, Reg::R1, Reg::R6, CONTEXT_META);
    asm.load(Size::Double, Reg::R1, Reg::R1, META_SEQ);
    asm.mov(Reg::R2, Reg::Frame);
    asm.add_value(Reg::R2, -16);
    asm.mov_value(Reg::R3, RECORD_LEN as i32);
    // Where the record does not fit any more, the kernel shows us the descriptor again in the next read.
    asm.call(BPF_SEQ_WRITE);
    asm.bind(done);
    asm.mov_value(Reg::R0, 0);
    asm.exit();
    asm.finish()
}

/// A binary search for R9 among `intervals`, unrolled into comparisons.
fn search(asm: &mut Assembler, intervals: &[(u32, u32)], found: Label, missing: Label) {
    match intervals {
        [] => asm.jump(missing),
        [(first, last)] if first == last => {
            asm.jump_if_word_equal(Reg::R9, *first, found);
            asm.jump(missing);
        }
        [(first, last)] => {
            if let Some(beyond) = last.checked_add(1) {
                asm.jump_if_word_at_least(Reg::R9, beyond, missing);
            }
            asm.jump_if_word_at_least(Reg::R9, *first, found);
            asm.jump(missing);
        }
        _ => {
            let (lower, upper) = intervals.split_at(intervals.len() / 2);
            let high = asm.label();
            asm.jump_if_word_at_least(Reg::R9, upper[0].0, high);
            search(asm, lower, found, missing);
            asm.bind(high);
            search(asm, upper, found, missing);
        }
    }
}

/// What the program has written.
fn parse_record(record: &[u8; RECORD_LEN]) -> Holding {
    let [i0, i1, i2, i3, i4, i5, i6, i7, p0, p1, p2, p3, f0, f1, f2, f3] = *record;
    Holding {
        inode: u64::from_ne_bytes([i0, i1, i2, i3, i4, i5, i6, i7]),
        pid: i32::from_ne_bytes([p0, p1, p2, p3]),
        fd: i32::from_ne_bytes([f0, f1, f2, f3]),
    }
}

/// The last words of a verifier's log, in brackets.
fn last_line(log: &str) -> String {
    // The very last line counts instructions.
    let reason = log
        .lines()
        .rev()
        .find(|line| !line.is_empty() && !line.starts_with("processed "));
    reason.map_or_else(String::new, |line| format!(" ({line})"))
}

/// The kernel's description of its types.
const TYPES: &str = "/sys/kernel/btf/vmlinux";

/// The helper in use is kept for programs whose licence goes with the GPL, as MIT does; this is how the
/// kernel spells that.
const LICENCE: &std::ffi::CStr = c"Dual MIT/GPL";

// The inodes of the namespaces in which the first process runs (include/linux/proc_ns.h).
const FIRST_PID_NAMESPACE: u64 = 0xeffffffc;
const FIRST_USER_NAMESPACE: u64 = 0xeffffffd;

// The context: the arguments of `bpf_iter_task_file`, eight bytes each, and the first member of the
// structure that the first of them leads to (`struct bpf_iter_meta`).
const CONTEXT_META: i16 = 0;
const CONTEXT_TASK: i16 = 8;
const CONTEXT_FD: i16 = 16;
const CONTEXT_FILE: i16 = 24;
const META_SEQ: i16 = 0;

/// The file system of sockets (include/uapi/linux/magic.h).
const SOCKFS_MAGIC: i32 = 0x534f_434b;

/// The number of the helper (include/uapi/linux/bpf.h).
const BPF_SEQ_WRITE: i32 = 127;

const RECORD_LEN: usize = 16;

/// Twice what the kernel gives at once.
const BUFFER_LEN: usize = 64 * 1024;

const LOG_LEN: usize = 64 * 1024;

/// With more sockets than this, those that are not asked for are too few to sort out early.
const PREFILTER_MAX: usize = 8192;

/// How many intervals the program looks through: the kernel checks every way through it.
const INTERVALS_MAX: usize = 256;

#[cfg(test)]
mod tests;
