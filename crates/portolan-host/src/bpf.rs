//! Just enough of BPF to run one small read-only program: an assembler, a reader of the kernel's type
//! descriptions, and the system call. Nothing is compiled beforehand and nothing is left behind: program,
//! link and iterator end with their descriptors.

pub(crate) mod asm;
pub(crate) mod btf;
pub(crate) mod sys;
pub(crate) mod types;
