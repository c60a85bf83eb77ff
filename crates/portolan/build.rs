//! Tells whether `portolan` is built for a host whose sockets it can read.
//!
//! Elsewhere than on Linux the crate sees `cfg(portolan_elsewhere)`, which can also be set on Linux, to check
//! that it builds without the host: `RUSTFLAGS='--cfg portolan_elsewhere' cargo check -p portolan`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let system = std::env::var_os("CARGO_CFG_TARGET_OS");
    if system.is_none_or(|system| system != "linux") {
        println!("cargo::rustc-cfg=portolan_elsewhere");
    }
}
