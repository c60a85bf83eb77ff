//! Low ports that are published while a space runs: by whoever has the right to, since the space has given it up.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::users::{as_each_user, has_python, skipped};
use crate::{ask, portolan};

/// Answers at port 80, by TCP and by UDP.
const SERVER: &str = r#"
import socket, threading
tcp = socket.create_server(("", 80))
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("", 80))
def datagrams():
    while True:
        data, peer = udp.recvfrom(99)
        udp.sendto(b"ahoy by udp", peer)
threading.Thread(target=datagrams, daemon=True).start()
print("ready", flush=True)
while True:
    stream, peer = tcp.accept()
    stream.sendall(b"ahoy by tcp")
    stream.close()
"#;

const LIMIT: Duration = Duration::from_secs(20);

/// A space named `web`. Dropped, it ends.
struct Served(Child);

impl Served {
    fn start(mut command: Command) -> Self {
        let child = command
            .args(["run", "--name", "web", "--", "python3", "-c", SERVER])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut served = Self(child);
        let mut line = String::new();
        BufReader::new(served.0.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "ready\n");
        served
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lower of two low ports that are free at the address, if this process may take them.
fn free(address: IpAddr) -> Option<u16> {
    let is_free = |port| is_free(SocketAddr::new(address, port));
    (600..1000).find(|port| is_free(*port) && is_free(*port + 1))
}

fn is_free(place: SocketAddr) -> bool {
    TcpListener::bind(place).is_ok() && UdpSocket::bind(place).is_ok()
}

fn tcp_says(place: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(place)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    Ok(said)
}

fn udp_says(place: SocketAddr) -> String {
    let socket = UdpSocket::bind((place.ip(), 0)).unwrap();
    socket.connect(place).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.send(b"who is there").unwrap();
    let mut bytes = [0; 99];
    let count = socket.recv(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

/// No port is published.
fn nothing_is_published(here: &Path) {
    let (_, text, _) = ask(here, &["spaces", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        document["spaces"][0]["published"].as_array().unwrap().len(),
        0,
        "{text}"
    );
}

#[test]
fn a_low_port_is_published_live_by_those_who_may_and_told_to_others() {
    as_each_user(
        "low_ports::a_low_port_is_published_live_by_those_who_may_and_told_to_others",
        || {
            if !has_python() {
                return skipped("no python3 for this user");
            }
            // An address of loopback that no other test uses.
            let address = IpAddr::from(Ipv4Addr::new(127, 80, 80, 80));
            let place = |port| SocketAddr::new(address, port);
            let directory = tempfile::tempdir().unwrap();
            let here = directory.path();
            let _served = Served::start(portolan(here));
            let Some(port) = free(address) else {
                let mapping = format!("{address}:600-601:80-81/both");
                let (code, text, errors) = ask(here, &["spaces", "publish", "web", &mapping]);
                assert_eq!((code, &*text), (Some(3), ""), "{errors}");
                for part in [
                    "cannot publish 127.80.80.80:600/tcp: permission denied",
                    "CAP_NET_BIND_SERVICE",
                    "use port 8600, or: sudo sysctl net.ipv4.ip_unprivileged_port_start=600",
                    "[low-port]\n",
                ] {
                    assert!(errors.contains(part), "{part}: {errors}");
                }
                return nothing_is_published(here);
            };
            let mapping = format!("{address}:{port}:80/both");
            let publish = ["spaces", "publish", "web", &mapping];
            let (code, text, errors) = ask(here, &publish);
            assert_eq!((code, &*errors), (Some(0), ""));
            let shown = format!("{address}:{port}->80/tcp\n{address}:{port}->80/udp\n");
            assert_eq!(text, shown);
            assert_eq!(tcp_says(place(port)).unwrap(), "ahoy by tcp");
            assert_eq!(udp_says(place(port)), "ahoy by udp");

            let (code, _, errors) = ask(here, &publish);
            assert_eq!(code, Some(4));
            assert!(
                errors.contains("it is published already") && errors.contains("[port-twice]"),
                "{errors}"
            );
            assert_eq!(ask(here, &["spaces", "unpublish", "web", &mapping]).0, Some(0));
            assert!(tcp_says(place(port)).is_err());
            nothing_is_published(here);
            // All of a mapping or none, and who is in the way is named.
            let other = TcpListener::bind(place(port + 1)).unwrap();
            let range = format!("{address}:{port}-{}:80-81/both", port + 1);
            let (code, _, errors) = ask(here, &["spaces", "publish", "web", &range]);
            assert_eq!(code, Some(4));
            let holder = format!("(pid {}); choose another port", std::process::id());
            assert!(
                errors.contains(&format!(
                    "cannot publish {address}:{}/tcp: it is held by ",
                    port + 1
                )) && errors.contains(&holder)
                    && errors.contains("[port-in-use]"),
                "{errors}"
            );
            nothing_is_published(here);
            drop(other);
            assert_eq!(ask(here, &["spaces", "publish", "web", &range]).0, Some(0));
            assert_eq!(tcp_says(place(port)).unwrap(), "ahoy by tcp");
        },
    );
}

/// Many descriptors go over one by one hundreds at a time.
#[test]
fn every_low_port_is_published_live_at_once() {
    as_each_user("low_ports::every_low_port_is_published_live_at_once", || {
        let address = IpAddr::from(Ipv4Addr::new(127, 80, 80, 81));
        if free(address).is_none() {
            return skipped("this user may take no low port");
        }
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let _served = Served::start(portolan(here));
        // One that another program of this host has at every address is in the way.
        let taken = (1..1024).rfind(|port| !is_free(SocketAddr::new(address, *port)));
        let first = taken.map_or(1, |port| port + 1);
        let mapping = format!("{address}:{first}-1023:{first}-1023/both");
        let (code, text, errors) = ask(here, &["spaces", "publish", "web", &mapping]);
        assert_eq!((code, &*errors), (Some(0), ""));
        let told = ["tcp", "udp"].map(|protocol| format!("{address}:{first}-1023->{first}-1023/{protocol}"));
        assert_eq!(text.lines().collect::<Vec<_>>(), told);
        assert_eq!(ask(here, &["spaces", "unpublish", "web", &mapping]).0, Some(0));
        nothing_is_published(here);
    });
}

/// Who is no root but has the one right, by its environment or by the file of the program; and root without the right to
/// look at others, as in a container.
#[test]
fn the_right_to_low_ports_is_enough() {
    if !rustix::process::geteuid().is_root() {
        return skipped("giving a user one right needs root");
    }
    if !crate::run(&["--", "true"]).status.success() || !has_python() {
        return skipped("no port space here, or no python3");
    }
    let address = IpAddr::from(Ipv4Addr::new(127, 80, 80, 82));
    let Some(port) = free(address) else {
        return skipped("no low port is free, or this root may take none");
    };
    let mapping = format!("{address}:{port}:80");
    let program = Path::new(env!("CARGO_BIN_EXE_portolan"));
    let directory = tempfile::tempdir().unwrap();
    let granted = granted(directory.path());
    let user = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all",
    ];
    let holder = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--inh-caps=-all,+net_bind_service",
        "--ambient-caps=+net_bind_service",
    ];
    let contained = ["--bounding-set=-sys_ptrace,-sys_admin"];
    // The space, and who publishes its port: as whom, and by which file.
    let ways: [(&str, Caller<'_>, Caller<'_>); 5] = [
        ("ambient", (&user, program), (&holder, program)),
        ("both ambient", (&holder, program), (&holder, program)),
        ("file", (&user, program), (&user, &granted)),
        ("both file", (&user, &granted), (&user, &granted)),
        ("contained root", (&contained, program), (&contained, program)),
    ];
    for (name, of_space, of_publisher) in ways {
        let directory = tempfile::tempdir().unwrap();
        if name != "contained root" {
            std::os::unix::fs::chown(directory.path(), Some(65_534), Some(65_534)).unwrap();
        }
        let _served = Served::start(with_rights(of_space, directory.path()));
        let output: Output = with_rights(of_publisher, directory.path())
            .args(["spaces", "publish", "web", &mapping])
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", crate::stderr(&output));
        assert_eq!(
            tcp_says(SocketAddr::new(address, port)).unwrap(),
            "ahoy by tcp",
            "{name}"
        );
    }
}

/// The port would be one that nobody on this host reaches.
#[test]
fn a_low_port_of_another_network_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return skipped("another network with the same user namespace needs root");
    }
    let address = IpAddr::from(Ipv4Addr::new(127, 80, 80, 83));
    let network = Command::new("unshare").args(["--net", "true"]).output();
    if !crate::run(&["--", "true"]).status.success()
        || !has_python()
        || free(address).is_none()
        || !network.is_ok_and(|output| output.status.success())
    {
        return skipped("no port space, no python3, no low ports or no second network here");
    }
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let _served = Served::start(portolan(here));
    let output = Command::new("unshare")
        .args(["--net", env!("CARGO_BIN_EXE_portolan")])
        .args(["spaces", "publish", "web", "600-1000:600-1000"])
        .env("XDG_RUNTIME_DIR", here)
        .output()
        .unwrap();
    let text = crate::stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(
        text.contains("is of another network namespace") && text.contains("[wrong-socket]"),
        "{text}"
    );
    nothing_is_published(here);
}

/// Options of setpriv, and the program.
type Caller<'a> = (&'a [&'a str], &'a Path);

/// A copy of the program that has the right to low ports, whoever starts it.
fn granted(directory: &Path) -> PathBuf {
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory, everybody).unwrap();
    let copy = directory.join("granted");
    std::fs::copy(env!("CARGO_BIN_EXE_portolan"), &copy).unwrap();
    // The attribute as capabilities(7) has it: version 2 and effective, then what is permitted and inheritable.
    const CAP_NET_BIND_SERVICE: u32 = 10;
    let words: [u32; 5] = [0x0200_0001, 1 << CAP_NET_BIND_SERVICE, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    rustix::fs::setxattr(
        &copy,
        "security.capability",
        &value,
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    copy
}

/// The program with these rights, and a directory of sockets of the test's own.
fn with_rights((rights, program): Caller<'_>, directory: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command
        .args(rights)
        .arg(program)
        .env("XDG_RUNTIME_DIR", directory)
        .stdin(Stdio::null());
    command
}
