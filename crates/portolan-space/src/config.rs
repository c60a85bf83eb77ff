//! What a port space is to be like.

use std::ffi::{CString, OsStr, OsString};
use std::net::Ipv4Addr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::capabilities::Capabilities;
use crate::error::SpaceError;
use crate::membership::Membership;
use crate::subnets::{Subnet, Subnets};
use crate::sys::Words;

/// What a port space is to be like.
#[derive(Clone, Debug)]
pub struct SpaceConfig {
    /// The program that it is for.
    pub program: Program,
    /// Who the program is inside.
    pub identity: Identity,
    /// Also map the ranges that /etc/subuid and /etc/subgid give this user, by newuidmap and newgidmap.
    pub sub_ids: bool,
    /// What the program may do in the space beyond its user's rights.
    pub capabilities: Capabilities,
    /// Which network namespace.
    pub network: Network,
    /// Its addresses; see [`Subnets::choose`].
    pub subnets: Subnets,
    /// The longest packet, in bytes: 1280 (68 without IPv6) to 65,535.
    pub mtu: u32,
    /// Queues of a TUN device, 1 to 64.
    pub queues: usize,
    /// Do not try a TUN device, make a veth pair at once.
    pub avoid_tun: bool,
    /// Directories that are empty inside. They must exist outside.
    pub hidden: Vec<PathBuf>,
    /// How many descriptors the program may have open, where this process has raised its own limit.
    pub descriptors: Option<u64>,
    /// Files that show other contents inside.
    pub files: Vec<ShownFile>,
}

impl SpaceConfig {
    /// A new space for `program`, which keeps its user and has no capability; MTU 1500, one queue.
    #[must_use]
    pub const fn new(program: Program, subnets: Subnets) -> Self {
        Self {
            program,
            identity: Identity::Caller,
            sub_ids: false,
            capabilities: Capabilities::NONE,
            network: Network::New,
            subnets,
            mtu: 1500,
            queues: 1,
            avoid_tun: false,
            hidden: Vec::new(),
            descriptors: None,
            files: Vec::new(),
        }
    }

    /// `program` in a space that runs, with the user, the addresses and the rights that its first program has there.
    #[must_use]
    pub fn join(program: Program, space: Membership) -> Self {
        // No device is made, so nothing gets an address.
        let v4 = Subnet {
            inside: Ipv4Addr::UNSPECIFIED,
            gateway: Ipv4Addr::UNSPECIFIED,
            prefix_len: 0,
        };
        Self {
            network: Network::Space(space),
            ..Self::new(program, Subnets { v4, v6: None })
        }
    }
}

/// A program with its arguments and environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its path, or a name to be looked for in PATH.
    pub path: OsString,
    /// Its arguments, without its own name.
    pub arguments: Vec<OsString>,
    /// Its environment.
    pub environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// A program with the environment of this process.
    #[must_use]
    pub fn new(path: impl Into<OsString>, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            path: path.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: std::env::vars_os().collect(),
        }
    }
}

/// Who the program is inside. Outside it is always the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// The caller's own user and group.
    Caller,
    /// Root.
    Root,
}

/// The network namespace of a space.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Network {
    /// One of its own.
    New,
    /// The one that is mounted there, as by `ip netns`. It gets the device.
    Path(PathBuf),
    /// That of a process. It gets the device.
    Process(i32),
    /// Everything of a running space: see [`Space::membership`](crate::Space::membership). No device is made.
    Space(Membership),
}

/// A file that shows other contents inside. It must exist outside, since it is covered, not made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownFile {
    /// Its path; symbolic links are followed.
    pub path: PathBuf,
    /// What the space sees there.
    pub contents: Vec<u8>,
}

/// A program in the form that the kernel takes, made before there is a second process.
#[derive(Debug)]
pub(crate) struct Execution {
    /// Where it may be, in the order in which to try.
    pub(crate) candidates: Vec<CString>,
    pub(crate) arguments: Words,
    pub(crate) environment: Words,
}

impl Execution {
    pub(crate) fn new(program: &Program) -> Result<Self, SpaceError> {
        let word = |word: &OsStr, what| CString::new(word.as_bytes()).map_err(|_| SpaceError::Nul { what });
        let path = word(&program.path, "the name of the program")?;
        let mut arguments = vec![path.clone()];
        for argument in &program.arguments {
            arguments.push(word(argument, "an argument")?);
        }
        let mut environment = Vec::with_capacity(program.environment.len());
        for (name, value) in &program.environment {
            let mut pair = name.clone().into_vec();
            pair.push(b'=');
            pair.extend(value.as_bytes());
            environment.push(word(OsStr::from_bytes(&pair), "the environment")?);
        }
        let mut candidates = Vec::new();
        if program.path.as_bytes().contains(&b'/') {
            candidates.push(path);
        } else {
            let variable = program.environment.iter().rfind(|(name, _)| name == "PATH");
            let directories = variable.map_or_else(|| OsStr::new(DEFAULT_PATH), |(_, value)| value);
            for directory in std::env::split_paths(directories) {
                // An empty entry is the current directory.
                let directory = if directory.as_os_str().is_empty() {
                    PathBuf::from(".")
                } else {
                    directory
                };
                candidates.push(word(directory.join(&program.path).as_os_str(), "PATH")?);
            }
        }
        Ok(Self {
            candidates,
            arguments: Words::new(arguments),
            environment: Words::new(environment),
        })
    }
}

/// Where programs are without a PATH, as execvp(3) has it.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_the_path_that_the_program_has() {
        let mut program = Program {
            path: "ls".into(),
            arguments: Vec::new(),
            environment: Vec::new(),
        };
        let candidates = |program: &Program| -> Vec<String> {
            let execution = Execution::new(program).unwrap();
            execution
                .candidates
                .iter()
                .map(|path| path.to_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(candidates(&program), ["/bin/ls", "/usr/bin/ls"]);
        program.environment.push(("PATH".into(), "/a::/b".into()));
        assert_eq!(candidates(&program), ["/a/ls", "./ls", "/b/ls"]);
        program.path = "./x/ls".into();
        assert_eq!(candidates(&program), ["./x/ls"]);
    }

    #[test]
    fn a_nul_byte_is_refused_and_placed() {
        let mut program = Program::new("true", ["a\0b"]);
        assert!(matches!(
            Execution::new(&program),
            Err(SpaceError::Nul { what: "an argument" })
        ));
        program.arguments.clear();
        program.environment.push(("A".into(), "\0".into()));
        assert!(matches!(
            Execution::new(&program),
            Err(SpaceError::Nul {
                what: "the environment"
            })
        ));
    }
}
