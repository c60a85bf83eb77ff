//! Systems that forbid something, made for the test: what is fatal says what, why and what to do, with a code, and leaves
//! nothing behind; the rest is said and done without.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use crate::served::Served;
use crate::users::{as_each_user, has_python, skipped};
use crate::{stderr, stdout};

/// A system, by what is done before `portolan run` is.
#[derive(Clone, Copy, Default)]
struct System {
    /// Shell commands as the master of a user namespace and a mount namespace.
    before: &'static str,
    /// Options of unshare(1) for that, if not the usual ones.
    namespaces: Option<&'static [&'static str]>,
    /// System calls that fail: the call, a value of its first argument or a bit of that, and the error.
    refused: Option<(i64, Argument, i32)>,
}

#[derive(Clone, Copy, Default)]
enum Argument {
    #[default]
    Any,
    Is(u64),
    Has(u64),
}

const USUAL: &[&str] = &["--user", "--map-current-user", "--keep-caps", "--mount"];
/// Alone, as unshare(1) does not ask for it.
const NEW_USER: Argument = Argument::Is(libc::CLONE_NEWUSER as u64);
const NEW_NETWORK: Argument = Argument::Has(libc::CLONE_NEWNET as u64);

impl System {
    /// Runs `portolan run` there; `None` if there is no such system on this machine.
    fn run(&self, directory: &Path, arguments: &[&str]) -> Option<Output> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
        if !self.before.is_empty() {
            let namespaces = self.namespaces.unwrap_or(USUAL);
            let ready = |script: &str| {
                let mut command = Command::new("unshare");
                command.args(namespaces).args(["sh", "-ec", script]);
                command
            };
            let tried = ready(self.before).stdin(Stdio::null()).output();
            if !tried.as_ref().is_ok_and(|output| output.status.success()) {
                skipped(&format!("{}: {tried:?}", self.before));
                return None;
            }
            command = ready(&format!("{}; exec \"$0\" \"$@\"", self.before));
            command.arg(env!("CARGO_BIN_EXE_portolan"));
        }
        command
            .arg("run")
            .args(arguments)
            .env("XDG_RUNTIME_DIR", directory)
            .stdin(Stdio::null());
        let run = || {
            if let Some((call, argument, error)) = self.refused {
                apply_filter(&filter(call, argument, error)).unwrap();
            }
            command.output().unwrap()
        };
        // The filter is of the thread alone, and of what it starts.
        Some(thread::scope(|scope| scope.spawn(run).join().unwrap()))
    }

    /// No program is run, for this reason, and nothing is left.
    fn forbids(&self, arguments: &[&str], code: &str, expected: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        let all = [&["-p", "0:80"], arguments, &["--", "echo", "ran"]].concat();
        let Some(output) = self.run(directory.path(), &all) else {
            return;
        };
        let text = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output)), (Some(125), ""), "{text}");
        let last = text.lines().last().unwrap();
        assert!(
            last.starts_with("portolan: cannot ") && last.contains("; "),
            "{text}"
        );
        assert!(last.ends_with(&format!(" [{code}]")), "{text}");
        for expected in expected {
            assert!(last.contains(expected), "no {expected}: {text}");
        }
        let published = text
            .lines()
            .find_map(|line| line.split_once("published ")?.1.split_once('/'));
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let left = left(directory.path(), published.map(|(port, _)| port.parse().unwrap()));
            if left.is_empty() {
                break;
            }
            assert!(Instant::now() < until, "{code}: left behind: {left:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The program runs, and what it lacks is told.
    fn lacks(&self, arguments: &[&str], expected: &[&str]) {
        let directory = tempfile::tempdir().unwrap();
        let all = [&["-v", "-p", "0:80"], arguments, &["--", "echo", "ran"]].concat();
        let Some(output) = self.run(directory.path(), &all) else {
            return;
        };
        let text = stderr(&output);
        assert_eq!(
            (output.status.code(), stdout(&output)),
            (Some(0), "ran\n"),
            "{text}"
        );
        for expected in expected {
            assert!(text.contains(expected), "no {expected}: {text}");
        }
    }
}

/// What is there of a `portolan run` that has this directory in its environment.
fn left(directory: &Path, port: Option<u16>) -> Vec<String> {
    let mut left = Vec::new();
    if let Some(port) = port {
        left.extend(
            TcpListener::bind(("0.0.0.0", port))
                .err()
                .map(|error| format!("port {port}: {error}")),
        );
    }
    let sockets = fs::read_dir(directory.join("portolan"))
        .into_iter()
        .flatten()
        .flatten();
    left.extend(sockets.map(|socket| format!("{:?}", socket.path())));
    let word = format!("XDG_RUNTIME_DIR={}", directory.display());
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == word.as_bytes())
        {
            left.push(format!("{:?}", process.path()));
        }
    }
    left
}

fn filter(call: i64, argument: Argument, error: i32) -> BpfProgram {
    let condition = |operator, value| {
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, operator, value).unwrap();
        vec![SeccompRule::new(vec![condition]).unwrap()]
    };
    let rules = match argument {
        Argument::Any => Vec::new(),
        Argument::Is(value) => condition(SeccompCmpOp::Eq, value),
        Argument::Has(bit) => condition(SeccompCmpOp::MaskedEq(bit), bit),
    };
    let filter = SeccompFilter::new(
        [(call, rules)].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(error.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    filter.unwrap().try_into().unwrap()
}

/// Refuses a device any of the offloads of which one bit is this, as older kernels do.
fn without_offload(bit: u64) -> BpfProgram {
    const TUNSETOFFLOAD: u64 = 0x4004_54d0;
    let length = SeccompCmpArgLen::Dword;
    let request = SeccompCondition::new(1, length.clone(), SeccompCmpOp::Eq, TUNSETOFFLOAD).unwrap();
    let has_bit = SeccompCondition::new(2, length, SeccompCmpOp::MaskedEq(bit), bit).unwrap();
    let rule = SeccompRule::new(vec![request, has_bit]).unwrap();
    let filter = SeccompFilter::new(
        [(libc::SYS_ioctl, vec![rule])].into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EINVAL.cast_unsigned()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    filter.unwrap().try_into().unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A host that a line of shell makes.
const fn host(before: &'static str) -> System {
    System {
        before,
        namespaces: None,
        refused: None,
    }
}

/// A host where a system call fails.
const fn without(call: i64, argument: Argument, error: i32) -> System {
    System {
        before: "",
        namespaces: None,
        refused: Some((call, argument, error)),
    }
}

#[test]
fn user_namespaces_are_switched_off() {
    as_each_user("forbidden::user_namespaces_are_switched_off", || {
        host("echo 0 >/proc/sys/user/max_user_namespaces").forbids(
            &[],
            "user-namespace",
            &[
                "max_user_namespaces is 0",
                "sudo sysctl user.max_user_namespaces=10000",
            ],
        );
    });
}

#[test]
fn network_namespaces_are_switched_off() {
    as_each_user("forbidden::network_namespaces_are_switched_off", || {
        host("echo 0 >/proc/sys/user/max_net_namespaces").forbids(
            &[],
            "network-namespace",
            &[
                "max_net_namespaces is 0",
                "sudo sysctl user.max_net_namespaces=10000",
            ],
        );
    });
}

#[test]
fn other_namespaces_are_switched_off() {
    as_each_user("forbidden::other_namespaces_are_switched_off", || {
        let limit = "a limit on namespaces is reached";
        host("echo 0 >/proc/sys/user/max_pid_namespaces").lacks(&[], &["[pid-namespace]", limit]);
        host("echo 0 >/proc/sys/user/max_mnt_namespaces")
            .lacks(&[], &["[mount-namespace]", limit, "[files]"]);
        host("echo 0 >/proc/sys/user/max_uts_namespaces").lacks(&[], &["[uts-namespace]", limit]);
        host("echo 0 >/proc/sys/user/max_ipc_namespaces").lacks(&[], &["[ipc-namespace]", limit]);
    });
}

/// The switch that Ubuntu has is shown, and the kernel refuses what AppArmor has it refuse: either the namespace, or the
/// rights in it.
#[test]
fn app_armor_restricts_user_namespaces() {
    as_each_user("forbidden::app_armor_restricts_user_namespaces", || {
        let switch = host(
            "mount -t tmpfs tmpfs /proc/sys/kernel; echo 1 >/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        );
        for (argument, code) in [(NEW_USER, "user-namespace"), (NEW_NETWORK, "network-namespace")] {
            // Root is not restricted, so that another reason must be found.
            let expected = if is_root() {
                "system calls are filtered"
            } else {
                "kernel.apparmor_restrict_unprivileged_userns=0"
            };
            let system = System {
                refused: Some((libc::SYS_unshare, argument, libc::EPERM)),
                ..switch
            };
            system.forbids(&[], code, &[expected]);
        }
    });
}

#[test]
fn a_container_filters_unshare() {
    as_each_user("forbidden::a_container_filters_unshare", || {
        for error in [libc::EPERM, libc::ENOSYS] {
            without(libc::SYS_unshare, Argument::Any, error).forbids(
                &[],
                "user-namespace",
                &["system calls are filtered", "--security-opt seccomp=unconfined"],
            );
        }
    });
}

#[test]
fn a_container_filters_clone() {
    as_each_user("forbidden::a_container_filters_clone", || {
        // As Docker's profile does it; none of these is wanted.
        let namespaces = Argument::Has(libc::CLONE_NEWUSER as u64);
        without(libc::SYS_clone, namespaces, libc::EPERM).lacks(&[], &[]);
        without(libc::SYS_clone3, Argument::Any, libc::ENOSYS).lacks(&[], &[]);
    });
}

#[test]
fn a_container_filters_mount() {
    as_each_user("forbidden::a_container_filters_mount", || {
        without(libc::SYS_mount, Argument::Any, libc::EPERM).lacks(
            &[],
            &[
                "[mount-namespace]",
                "[files]",
                "sandbox: cannot leave the file systems",
            ],
        );
    });
}

#[test]
fn parts_of_proc_are_covered() {
    as_each_user("forbidden::parts_of_proc_are_covered", || {
        host("mount -t tmpfs tmpfs /proc/sys/kernel")
            .lacks(&[], &["[proc]", "--security-opt systempaths=unconfined"]);
    });
}

#[test]
fn proc_sys_is_read_only() {
    as_each_user("forbidden::proc_sys_is_read_only", || {
        host("mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys")
            .lacks(&[], &["[low-ports]", "[ping-range]", "/proc/sys is read-only"]);
    });
}

#[test]
fn there_is_no_tun() {
    as_each_user("forbidden::there_is_no_tun", || {
        host("mount -t tmpfs tmpfs /dev/net").lacks(&[], &["[tun]", "sudo modprobe tun"]);
        if is_root() {
            host("mount --bind /dev/null /dev/net/tun").lacks(&[], &["[tun]", "is no TUN device"]);
        } else {
            // The device is root's in many systems, and every user's in others: either will do.
            System::default().lacks(&[], &[]);
        }
        let neither = System {
            refused: Some((
                libc::SYS_socket,
                Argument::Is(libc::AF_PACKET as u64),
                libc::EPERM,
            )),
            ..host("mount -t tmpfs tmpfs /dev/net")
        };
        neither.forbids(
            &[],
            "veth",
            &["pair of Ethernet devices", "system calls are filtered"],
        );
    });
}

#[test]
fn low_ports_of_the_host_are_not_to_be_had() {
    as_each_user("forbidden::low_ports_of_the_host_are_not_to_be_had", || {
        let system = System {
            before: "true",
            // A network that is nobody's yet, and a user without rights over it.
            namespaces: Some(&["--user", "--map-user=1000", "--map-group=1000", "--net"]),
            refused: None,
        };
        system.forbids(
            &["-p", "80:80"],
            "low-port",
            &[
                "80/tcp",
                "CAP_NET_BIND_SERVICE",
                "use port 8080",
                "ip_unprivileged_port_start=80",
            ],
        );
    });
}

#[test]
fn the_host_has_no_ipv6() {
    as_each_user("forbidden::the_host_has_no_ipv6", || {
        let network: &[&str] = &["--user", "--map-current-user", "--keep-caps", "--mount", "--net"];
        let system = System {
            before: "ip link set lo up; echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6",
            namespaces: Some(network),
            refused: None,
        };
        system.lacks(&[], &["published "]);
        // A kernel that is built without.
        let inet6 = Argument::Is(libc::AF_INET6 as u64);
        without(libc::SYS_socket, inet6, libc::EAFNOSUPPORT).lacks(&[], &["published "]);
    });
}

#[test]
fn the_kernel_has_no_landlock_and_no_seccomp() {
    as_each_user("forbidden::the_kernel_has_no_landlock_and_no_seccomp", || {
        let no_landlock = "sandbox: cannot forbid all files: this kernel has no Landlock";
        without(libc::SYS_landlock_create_ruleset, Argument::Any, libc::ENOSYS).lacks(&[], &[no_landlock]);
        without(libc::SYS_seccomp, Argument::Any, libc::ENOSYS)
            .lacks(&[], &["sandbox: cannot limit system calls"]);
    });
}

#[test]
fn the_kernel_is_old_or_its_calls_are_filtered() {
    as_each_user("forbidden::the_kernel_is_old_or_its_calls_are_filtered", || {
        without(libc::SYS_pidfd_open, Argument::Any, libc::ENOSYS).forbids(&[], "process", &["pidfd_open"]);
        let netlink = Argument::Is(libc::AF_NETLINK as u64);
        without(libc::SYS_socket, netlink, libc::EPERM).forbids(&[], "host-network", &["AF_NETLINK"]);
        without(libc::SYS_close_range, Argument::Any, libc::ENOSYS).lacks(&[], &[]);
    });
}

#[test]
fn a_limit_on_processes_is_reached() {
    as_each_user("forbidden::a_limit_on_processes_is_reached", || {
        if is_root() {
            // No such limit holds for root.
            return;
        }
        let system = System {
            before: "prlimit --pid $$ --nproc=1",
            namespaces: Some(&["--user", "--map-current-user"]),
            refused: None,
        };
        system.forbids(&[], "process", &["a limit on processes is reached", "ulimit -u"]);
    });
}

/// Without UDP segmentation (Linux before 6.2), without that of TCP, and without checksums left to the device.
#[test]
fn a_device_that_can_less_carries_as_much() {
    as_each_user("forbidden::a_device_that_can_less_carries_as_much", || {
        let mut device = fs::File::options();
        if let Err(error) = device.read(true).write(true).open("/dev/net/tun") {
            return skipped(&format!("no TUN device for this user: {error}"));
        }
        if !has_python() {
            return skipped("no python3 for this user");
        }
        for bit in [0x20, 0x02, 0x01] {
            let fetch = || {
                apply_filter(&without_offload(bit)).unwrap();
                // With a capture nothing goes past the device.
                let served = Served::new(&["-v", "--pcap", "/dev/null"], 1 << 20);
                let data = served.fetch();
                (data.len(), served.end(Signal::TERM).1)
            };
            let (len, said) = thread::scope(|scope| scope.spawn(fetch).join().unwrap());
            assert_eq!(len, 1 << 20, "{bit:#x}");
            assert!(!said.contains("[tun]"), "{bit:#x}: {said}");
        }
    });
}
