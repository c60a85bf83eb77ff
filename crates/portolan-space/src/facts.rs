//! What a host says about what it forbids.

use std::fs;

use rustix::io::Errno;

use crate::error::Step;

/// Switches and limits of this host that can stand in the way of a port space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Facts {
    /// `kernel.apparmor_restrict_unprivileged_userns` is on: user namespaces without capabilities, for most programs.
    pub apparmor_restricts: bool,
    /// `user.max_user_namespaces` is 0.
    pub no_user_namespaces: bool,
    /// `user.max_net_namespaces` is 0.
    pub no_network_namespaces: bool,
    /// `kernel.unprivileged_userns_clone` is 0 (Debian's older kernels).
    pub clone_forbidden: bool,
    /// System calls are filtered, as in containers.
    pub seccomp: bool,
    /// This process is root where it is.
    pub is_root: bool,
    /// There is a /dev/net/tun.
    pub has_tun: bool,
}

impl Facts {
    /// Reads them. What cannot be read is taken not to be in the way.
    #[must_use]
    pub fn read() -> Self {
        let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let filters = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        Self {
            apparmor_restricts: is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
            no_user_namespaces: is("/proc/sys/user/max_user_namespaces", "0"),
            no_network_namespaces: is("/proc/sys/user/max_net_namespaces", "0"),
            clone_forbidden: is("/proc/sys/kernel/unprivileged_userns_clone", "0"),
            seccomp: filters.is_some_and(|mode| mode.trim() == "2"),
            is_root: rustix::process::geteuid().is_root(),
            has_tun: fs::exists("/dev/net/tun").unwrap_or(false),
        }
    }

    /// The reason for a refusal, empty if the kernel's word says it all, and the remedy.
    pub(crate) fn explain(&self, step: Step, errno: Errno) -> (&'static str, &'static str) {
        let forbidden = matches!(errno, Errno::PERM | Errno::ACCESS);
        match step {
            Step::Tun if !self.has_tun => (
                "there is no /dev/net/tun here",
                "load the module: sudo modprobe tun; in a container, pass the device: --device /dev/net/tun",
            ),
            Step::Tun if errno == Errno::NOTTY => (
                "what /dev/net/tun is here is no TUN device",
                "make it: sudo mknod /dev/net/tun c 10 200; in a container, pass the device: --device /dev/net/tun",
            ),
            Step::Tun if forbidden => (
                "/dev/net/tun is not this user's to open",
                "allow it: sudo chmod 666 /dev/net/tun, as distributions do; it gives nobody a device of the host",
            ),
            Step::Veth if errno == Errno::OPNOTSUPP => (
                "the kernel has no veth devices",
                "load the module: sudo modprobe veth",
            ),
            Step::MountNamespace | Step::UtsNamespace | Step::IpcNamespace | Step::PidNamespace
                if errno == Errno::NOSPC =>
            {
                (
                    "a limit on namespaces is reached",
                    "the space does without; see sysctl user.max_mnt_namespaces, user.max_uts_namespaces, \
                     user.max_ipc_namespaces and user.max_pid_namespaces",
                )
            }
            Step::UserNamespace | Step::NetworkNamespace if errno == Errno::NOSPC => {
                if self.no_user_namespaces {
                    (
                        "user.max_user_namespaces is 0",
                        "raise it: sudo sysctl user.max_user_namespaces=10000",
                    )
                } else if self.no_network_namespaces {
                    (
                        "user.max_net_namespaces is 0",
                        "raise it: sudo sysctl user.max_net_namespaces=10000",
                    )
                } else {
                    (
                        "a limit on namespaces, or on their nesting, is reached",
                        "see sysctl user.max_user_namespaces and user.max_net_namespaces, or stop other spaces",
                    )
                }
            }
            Step::UserNamespace if errno == Errno::INVAL || errno == Errno::NOSYS && !self.seccomp => (
                "this kernel is built without user namespaces",
                "run it as root, or with a kernel that has CONFIG_USER_NS",
            ),
            Step::JoinNamespace if forbidden => (
                "it belongs to another user",
                "give a namespace of this user, or run it as root",
            ),
            Step::JoinNamespace if matches!(errno, Errno::NOENT | Errno::SRCH) => {
                ("there is none such", "see: ip netns list, or: portolan spaces")
            }
            Step::JoinNamespace if errno == Errno::INVAL => (
                "it is no network namespace",
                "see: ip netns list, or: portolan spaces",
            ),
            Step::IdMap if forbidden && self.is_root && !self.seccomp => (
                "root has no CAP_SETFCAP here, as in a port space",
                "the program sees itself and root's files as nobody's; to be spared that, start the outer space as an \
                 ordinary user",
            ),
            Step::SubIds if errno == Errno::NOENT => (
                "newuidmap is not installed, or /etc/subuid and /etc/subgid have no range for this user",
                "install uidmap and add ranges: sudo usermod --add-subuids 100000-165535 --add-subgids \
                 100000-165535 USER; or leave --subids out",
            ),
            Step::SubIds => (
                "newuidmap or newgidmap refused the ranges of /etc/subuid and /etc/subgid",
                "check them, or leave --subids out",
            ),
            Step::Directory => ("", "start it in a directory that this user may enter"),
            Step::Process if errno == Errno::AGAIN => (
                "a limit on processes is reached",
                "see ulimit -u, and pids.max of the control group",
            ),
            Step::Proc if forbidden => (
                "parts of /proc are covered here, as in containers",
                "the space sees the processes of this host; for its own, start the container with \
                 --security-opt systempaths=unconfined",
            ),
            Step::LowPorts if forbidden || errno == Errno::ROFS => (
                "/proc/sys is read-only here",
                "let the program bind ports from 1024 up, and map those: -p 80:8080",
            ),
            Step::PingRange if forbidden || errno == Errno::ROFS => (
                "/proc/sys is read-only here",
                "the program cannot ping; all else works",
            ),
            Step::Shortcut if forbidden || errno == Errno::ROFS => (
                "/proc/sys is read-only here",
                "those clients pass the device too, which is slower",
            ),
            Step::Files if errno == Errno::OVERFLOW => (
                "nobody can own a file in this user namespace",
                "the program finds this host's /etc/resolv.conf, and asks the resolver there",
            ),
            Step::Files if forbidden => (
                "this process may not mount anything, as in containers",
                "the program sees this host's /etc/resolv.conf, and may find no names; let mount(2) through, or give \
                 it the gateway's address as its resolver",
            ),
            Step::Ipv6 => (
                "this kernel has IPv6 switched off",
                "the space has IPv4 alone; sysctl net.ipv6.conf.all.disable_ipv6=0 brings it back",
            ),
            // Whatever else is forbidden, somebody forbade namespaces to this program.
            _ if forbidden && self.clone_forbidden && !self.is_root => (
                "kernel.unprivileged_userns_clone is 0",
                "allow it: sudo sysctl kernel.unprivileged_userns_clone=1; or run it as root",
            ),
            _ if forbidden && self.apparmor_restricts && !self.is_root => (
                "AppArmor allows user namespaces only to programs with a profile",
                "allow it to this program by a profile with \"userns,\", or to all: sudo sysctl \
                 kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            _ if (forbidden || errno == Errno::NOSYS) && self.seccomp => (
                "system calls are filtered, as in containers",
                "allow namespaces: docker run --security-opt seccomp=unconfined, or a profile with \
                 unshare, setns, clone, mount and pidfd_open",
            ),
            _ if forbidden => (
                "the security policy of this host forbids it",
                "ask its administrator, or run it as root",
            ),
            _ => ("", "this is a fault of the host; its log (dmesg) may say more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Obstacle;

    #[test]
    fn the_reason_is_what_the_host_says_of_itself() {
        let facts = Facts::default();
        let apparmor = Facts {
            apparmor_restricts: true,
            ..Facts::default()
        };
        let none = Facts {
            no_user_namespaces: true,
            ..Facts::default()
        };
        let container = Facts {
            seccomp: true,
            is_root: true,
            ..Facts::default()
        };
        let closed_tun = Facts {
            has_tun: true,
            ..Facts::default()
        };
        let table = [
            (Step::UserNamespace, Errno::PERM, &apparmor, "AppArmor"),
            // Ubuntu's AppArmor gives the namespace and takes its capabilities: it shows at a later step.
            (Step::IdMap, Errno::PERM, &apparmor, "AppArmor"),
            (Step::NetworkNamespace, Errno::PERM, &apparmor, "AppArmor"),
            (
                Step::UserNamespace,
                Errno::NOSPC,
                &none,
                "user.max_user_namespaces=10000",
            ),
            (Step::UserNamespace, Errno::PERM, &container, "seccomp=unconfined"),
            (Step::UserNamespace, Errno::PERM, &facts, "security policy"),
            (Step::Tun, Errno::NOENT, &facts, "modprobe tun"),
            (Step::Tun, Errno::ACCESS, &closed_tun, "chmod 666"),
            (Step::JoinNamespace, Errno::PERM, &facts, "another user"),
        ];
        for (step, errno, facts, expected) in table {
            let text = Obstacle::new(step, errno, facts).to_string();
            assert!(text.contains(expected), "{text}");
        }
    }
}
