//! Real programs on both sides: a client of the kernel connects to the stack, which passes everything on to a server
//! of the kernel.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::driver::{KERNEL, Running, STACK, Setup, address};
use crate::support::flow::Service;
use crate::support::namespace::{has, in_namespace, skipped};
use crate::support::pattern;

/// A server that ends with the test.
struct Server(Child);

impl Server {
    /// Starts it, and waits until it takes connections. Says what it said if it does not.
    fn start(command: &mut Command, at: SocketAddr) -> Result<Self, String> {
        let name = format!("{command:?}");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut server = Self(child.map_err(|error| format!("{name}: {error}"))?);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if TcpStream::connect(at).is_ok() {
                return Ok(server);
            }
            if matches!(server.0.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(server.0.kill());
        let mut said = String::new();
        if let Some(stderr) = &mut server.0.stderr {
            drop(std::io::Read::read_to_string(stderr, &mut said));
        }
        Err(format!("{name} does not listen at {at}: {said}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A stack that passes what comes to a port on to the kernel's port of the same number.
fn relay(port: u16) -> Running {
    let running = Running::start(Setup::default());
    for family in [0, 1] {
        let (local, remote) = (address(family, STACK, port), address(family, KERNEL, port));
        running.listen(local, 128, Service::Relay(remote));
    }
    running
}

/// A file of the pattern.
fn file(at: &Path, len: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len {
        bytes.extend_from_slice(pattern::from(bytes.len() as u64, len - bytes.len() as u64));
    }
    fs::write(at, &bytes).expect("a temporary file");
    bytes
}

#[test]
fn curl_gets_files_from_nginx() {
    const TEST: &str = "peers::curl_gets_files_from_nginx";
    in_namespace(TEST, || {
        if !has(TEST, "curl") || !has(TEST, "nginx") {
            return;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = dir.path();
        let bytes = file(&at.join("large"), 8 << 20);
        let config = format!(
            "user root; pid {at}/pid; error_log {at}/error; daemon off; worker_processes 1; events {{}}
             http {{ access_log off; client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f;
                     uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
                     server {{ listen 10.99.0.1:8080; listen [fd99::1]:8080; root {at}; }} }}",
            at = at.display(),
        );
        fs::write(at.join("conf"), config).expect("a temporary file");
        let running = relay(8080);
        let mut nginx = Command::new("nginx");
        nginx
            .env("PATH", PATH)
            .arg("-e")
            .arg(at.join("early"))
            .arg("-c")
            .arg(at.join("conf"));
        let _server = match Server::start(&mut nginx, address(0, KERNEL, 8080)) {
            Ok(server) => server,
            Err(why) => return skipped(&format!("{TEST}: {why}")),
        };
        for host in ["10.99.0.2", "[fd99::2]"] {
            let output = Command::new("curl")
                .args(["-sS", "--noproxy", "*", "--max-time", "30"])
                .arg(format!("http://{host}:8080/large"))
                .output()
                .expect("curl is installed");
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(
                output.stdout == bytes,
                "{host}: {} of {} bytes",
                output.stdout.len(),
                bytes.len()
            );
        }
        // Many requests on one connection, and eight connections at once.
        let urls: Vec<_> = (0..40).map(|_| "http://10.99.0.2:8080/conf").collect();
        let output = Command::new("curl")
            .args([
                "-sS",
                "--noproxy",
                "*",
                "--max-time",
                "30",
                "--parallel",
                "--parallel-max",
                "8",
            ])
            .args(urls)
            .output()
            .expect("curl is installed");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let conf = fs::read(at.join("conf")).expect("the file");
        assert_eq!(output.stdout.len(), 40 * conf.len());
        assert!(running.with(|world, _| world.accepted) >= 3);
    });
}

#[test]
fn redis_is_asked_by_fifty_clients() {
    const TEST: &str = "peers::redis_is_asked_by_fifty_clients";
    in_namespace(TEST, || {
        if !has(TEST, "redis-server") || !has(TEST, "redis-benchmark") {
            return;
        }
        let running = relay(6379);
        let mut redis = Command::new("redis-server");
        redis.args([
            "--bind",
            "10.99.0.1",
            "--port",
            "6379",
            "--save",
            "",
            "--protected-mode",
            "no",
        ]);
        let _server = match Server::start(&mut redis, address(0, KERNEL, 6379)) {
            Ok(server) => server,
            Err(why) => return skipped(&format!("{TEST}: {why}")),
        };
        for more in [["-P", "1"], ["-P", "16"]] {
            let output = Command::new("redis-benchmark")
                .args([
                    "-h",
                    "10.99.0.2",
                    "-c",
                    "50",
                    "-n",
                    "5000",
                    "-d",
                    "1000",
                    "-t",
                    "set,get,lrange_100",
                    "-q",
                ])
                .args(more)
                .output()
                .expect("redis-benchmark is installed");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success(),
                "{text}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            for test in ["SET:", "GET:", "LRANGE_100"] {
                assert!(text.contains(test), "{text}");
            }
        }
        assert!(running.with(|world, _| world.accepted) >= 100);
    });
}

#[test]
fn ssh_runs_a_command() {
    const TEST: &str = "peers::ssh_runs_a_command";
    in_namespace(TEST, || {
        for program in ["ssh", "sshd", "ssh-keygen"] {
            if !has(TEST, program) {
                return;
            }
        }
        let users = fs::read_to_string("/proc/self/uid_map").expect("a list");
        let count = users
            .split_whitespace()
            .nth(2)
            .and_then(|count| count.parse().ok());
        if count == Some(1) {
            return skipped(&format!(
                "{TEST}: sshd wants a second user, and this namespace has one"
            ));
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = dir.path();
        // In the mounts of this namespace alone: sshd wants a directory there for its other half.
        let script = "mount -t tmpfs none /run && mkdir -m 0755 /run/sshd";
        let mounted = Command::new("sh").args(["-c", script]).output().expect("sh");
        if !mounted.status.success() {
            return skipped(&format!(
                "{TEST}: {}",
                String::from_utf8_lossy(&mounted.stderr).trim()
            ));
        }
        for key in ["host", "user"] {
            let status = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at.join(key))
                .status();
            assert!(status.is_ok_and(|status| status.success()));
        }
        fs::copy(at.join("user.pub"), at.join("authorized")).expect("a temporary file");
        let config = format!(
            "HostKey {at}/host\nAuthorizedKeysFile {at}/authorized\nPidFile none\nUsePAM no\nStrictModes no\n\
             ListenAddress 10.99.0.1:2222\nPermitRootLogin yes\nPasswordAuthentication no\n",
            at = at.display(),
        );
        fs::write(at.join("conf"), config).expect("a temporary file");
        let running = relay(2222);
        let mut sshd = Command::new("/usr/sbin/sshd");
        sshd.args(["-D", "-e", "-f"]).arg(at.join("conf"));
        let _server = match Server::start(&mut sshd, address(0, KERNEL, 2222)) {
            Ok(server) => server,
            Err(why) => return skipped(&format!("{TEST}: {why}")),
        };
        let bytes = file(&at.join("input"), 2 << 20);
        let mut ssh = Command::new("ssh")
            .args([
                "-F",
                "none",
                "-p",
                "2222",
                "-o",
                "StrictHostKeyChecking=no",
                "-o",
                "UserKnownHostsFile=/dev/null",
            ])
            .args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-i"])
            .arg(at.join("user"))
            .args(["root@10.99.0.2", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("ssh is installed");
        let mut stdin = ssh.stdin.take().expect("a pipe");
        let input = bytes.clone();
        let writing = std::thread::spawn(move || stdin.write_all(&input));
        let output = ssh.wait_with_output().expect("it ended");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        writing.join().expect("the writer").expect("ssh reads");
        assert!(
            output.stdout == bytes,
            "{} of {} bytes",
            output.stdout.len(),
            bytes.len()
        );
        assert_eq!(running.with(|world, _| world.accepted), 1);
    });
}

#[test]
fn iperf3_measures_both_ways() {
    const TEST: &str = "peers::iperf3_measures_both_ways";
    in_namespace(TEST, || {
        if !has(TEST, "iperf3") {
            return;
        }
        let _running = relay(5201);
        let mut iperf3 = Command::new("iperf3");
        iperf3.args(["-s", "-B", "10.99.0.1"]);
        let _server = match Server::start(&mut iperf3, address(0, KERNEL, 5201)) {
            Ok(server) => server,
            Err(why) => return skipped(&format!("{TEST}: {why}")),
        };
        for more in [&[][..], &["-R"], &["-P", "4"]] {
            // The server takes one client at a time, and needs a moment after each, the one that asked whether it is
            // there included.
            let mut told = String::new();
            let is_done = (0..20).any(|_| {
                let output = Command::new("iperf3")
                    .args(["-c", "10.99.0.2", "-t", "1"])
                    .args(more)
                    .output()
                    .expect("iperf3 is installed");
                told = String::from_utf8_lossy(&output.stderr).into_owned();
                let is_busy = !output.status.success() && told.contains("busy");
                if is_busy {
                    std::thread::sleep(Duration::from_millis(200));
                }
                assert!(is_busy || output.status.success(), "{more:?}: {told}");
                output.status.success()
            });
            assert!(is_done, "{more:?}: {told}");
        }
    });
}

/// Where daemons are, for an ordinary user as well.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
