//! Taking ports: all of them or none, and why not.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Instant;

use portolan_core::{Mapping, Port, Protocol};
use portolan_gateway::inbound::{Bound, PublishError, Refusal, raise_descriptor_limit};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::private::{in_namespace, skipped};

fn mappings(texts: &[&str]) -> Vec<Mapping> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn bind(texts: &[&str]) -> Result<Bound, PublishError> {
    Bound::bind(&mappings(texts), &|_, _| None)
}

#[test]
fn a_port_without_an_address_is_for_both_families() {
    in_namespace("bind::a_port_without_an_address_is_for_both_families", || {
        let bound = bind(&["8080:80", "127.0.0.1:8081:80", "[::1]:8082:80"]).unwrap();
        assert_eq!(bound.published().count(), 3);
        let reaches = |address: &str| TcpStream::connect(address).is_ok();
        assert!(reaches("127.0.0.1:8080") && reaches("[::1]:8080"));
        assert!(reaches("127.0.0.1:8081") && !reaches("127.0.0.2:8081") && !reaches("[::1]:8081"));
        assert!(reaches("[::1]:8082") && !reaches("127.0.0.1:8082"));
        drop(bound);
        assert!(!reaches("127.0.0.1:8080"));
    });
}

#[test]
fn port_0_is_any_free_one_and_the_same_for_both_protocols() {
    let bound = bind(&["127.0.0.1:0:80", "127.0.0.1:0:53/both"]).unwrap();
    let places: Vec<_> = bound.published().map(|published| published.place).collect();
    let [alone, tcp, udp] = places[..] else {
        panic!("{places:?}")
    };
    assert!(alone.port != Port::ZERO && tcp.port != Port::ZERO);
    assert_eq!((tcp.port, tcp.protocol), (udp.port, Protocol::Tcp));
    assert_eq!(udp.protocol, Protocol::Udp);
    assert!(bound.published().all(|published| published.is_chosen));
    TcpStream::connect(("127.0.0.1", alone.port.get())).unwrap();
    UdpSocket::bind(("127.0.0.1", udp.port.get())).unwrap_err();
}

#[test]
fn a_port_that_is_taken_names_its_holder_and_the_rest_is_let_go() {
    in_namespace(
        "bind::a_port_that_is_taken_names_its_holder_and_the_rest_is_let_go",
        || {
            let _taken = TcpListener::bind("127.0.0.1:8081").unwrap();
            let asked = std::cell::Cell::new(None);
            let finder = |protocol, address: SocketAddr| {
                asked.set(Some((protocol, address)));
                Some("nginx (pid 812)".to_owned())
            };
            let texts = ["8000:80", "127.0.0.1:8080-8081:80-81"];
            let error = Bound::bind(&mappings(&texts), &finder).unwrap_err();
            assert_eq!(
                error.to_string(),
                "cannot publish 127.0.0.1:8081/tcp: it is held by nginx (pid 812); choose another port or stop that program"
            );
            assert_eq!(asked.get(), Some((Protocol::Tcp, ([127, 0, 0, 1], 8081).into())));
            TcpListener::bind("127.0.0.1:8000").unwrap();
            TcpListener::bind("127.0.0.1:8080").unwrap();
        },
    );
}

#[test]
fn every_address_is_taken_if_one_is() {
    in_namespace("bind::every_address_is_taken_if_one_is", || {
        for holder in ["127.0.0.1:8080", "[::1]:8080"] {
            let _tcp = TcpListener::bind(holder).unwrap();
            let _udp = UdpSocket::bind(holder).unwrap();
            for text in ["8080:80", "8080:80/udp"] {
                let error = bind(&[text]).unwrap_err();
                assert!(
                    matches!(
                        &error,
                        PublishError::Refused {
                            refusal: Refusal::InUse { holder: None },
                            ..
                        }
                    ),
                    "{error}"
                );
            }
        }
        bind(&["8080:80/both"]).unwrap();
    });
}

#[test]
fn a_port_named_twice_is_said_to_be() {
    in_namespace("bind::a_port_named_twice_is_said_to_be", || {
        let error = bind(&["8080:80", "127.0.0.1:8080:81"]).unwrap_err();
        let text = "cannot publish 127.0.0.1:8080/tcp: it is published already, and leads to port 80; name each port \
                    once";
        assert_eq!(error.to_string(), text);
        bind(&["8080:80/tcp", "8080:80/udp"]).unwrap();
        bind(&["127.0.0.1:8080:80", "127.0.0.2:8080:81", "[::1]:8080:82"]).unwrap();
    });
}

#[test]
fn each_refusal_says_why_and_what_to_do() {
    in_namespace("bind::each_refusal_says_why_and_what_to_do", || {
        let text = |mapping: &str| bind(&[mapping]).unwrap_err().to_string();
        assert_eq!(
            text("192.0.2.1:8080:80"),
            "cannot publish 192.0.2.1:8080/tcp: this host does not have this address; `ip address` shows those that \
             it has"
        );
        assert!(
            text("*%nosuch0:8080:80").starts_with("cannot publish *%nosuch0:8080/tcp: this host has no such")
        );
        assert!(
            text("[fe80::1]:8080:80").contains("a link-local address needs its interface: [fe80::1%eth0]")
        );
        for target in ["127.0.0.1", "[::1]", "0.0.0.0", "224.0.0.1", "db.example"] {
            assert!(text(&format!("8080:{target}:80")).contains("only an address of the space itself"));
        }
        bind(&[
            "*%lo:8080:80",
            "127.0.0.1%lo:8081:80",
            "[::1%lo]:8082:10.0.0.2:80",
        ])
        .unwrap();
    });
}

#[test]
fn a_low_port_without_the_right_to_it_says_who_may() {
    // In a user namespace of one's own the host's network is still the host's: without its rights there.
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let program = std::env::current_exe().unwrap();
    let inside = "PORTOLAN_TEST_LOW_PORT";
    let test = "bind::a_low_port_without_the_right_to_it_says_who_may";
    if first.trim() == "0" {
        return skipped(&format!("{test}: every port is for everybody here"));
    }
    if std::env::var_os(inside).is_none() {
        let output = Command::new("unshare")
            .args(["--user", "--map-current-user"])
            .arg(program)
            .args(["--exact", test, "--nocapture"])
            .env(inside, "1")
            .output();
        return match output {
            Ok(output) if String::from_utf8_lossy(&output.stderr).starts_with("unshare:") => {
                skipped(&format!(
                    "{test}: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                ));
            }
            Ok(output) => assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stdout)
            ),
            Err(error) => skipped(&format!("{test}: unshare: {error}")),
        };
    }
    let error = bind(&["127.0.0.1:79:80"]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("cannot publish 127.0.0.1:79/tcp: permission denied (ports below "),
        "{text}"
    );
    assert!(
        text.contains("use port 8079, or: sudo sysctl net.ipv4.ip_unprivileged_port_start=79, or: "),
        "{text}"
    );
}

/// The limits are of a whole process, so this one has one of its own.
#[test]
fn too_few_descriptors_are_counted_before_anything_is_bound() {
    in_namespace(
        "bind::too_few_descriptors_are_counted_before_anything_is_bound",
        || {
            let limit = |current, maximum| {
                let (current, maximum) = (Some(current), Some(maximum));
                setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
            };
            limit(100, 1000);
            let error = bind(&["1000-1999:1000-1999", "3000:3000/both"]).unwrap_err();
            let text = error.to_string();
            let PublishError::Descriptors { ports, needed, limit } = error else {
                panic!("{error}")
            };
            let fitting = 1000 - (needed - 1002);
            assert!(
                text.contains(&format!(
                    "may have 1000 (RLIMIT_NOFILE, ulimit -Hn), enough for {fitting};"
                )),
                "{text}"
            );
            assert_eq!((ports, limit), (1002, 1000));
            assert!((1003 + 64..1200).contains(&needed), "{needed}");
            TcpListener::bind("127.0.0.1:1000").unwrap();
            // What the soft limit alone would forbid.
            assert_eq!(getrlimit(Resource::Nofile).current, Some(1000));
            bind(&["1000-1499:1000-1499"]).unwrap();
            assert_eq!(raise_descriptor_limit(), Some(1000));
        },
    );
}

/// Each port of each protocol: as many as this machine lets a process have.
#[test]
fn all_ports_of_both_protocols_are_had_at_once() {
    // Root may raise it, perhaps; what is made in the namespace inherits it.
    let enough = Some(140_000);
    let maximum = getrlimit(Resource::Nofile).maximum;
    if maximum.is_some_and(|maximum| Some(maximum) < enough) {
        let (current, maximum) = (enough, enough);
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
    let test = "bind::all_ports_of_both_protocols_are_had_at_once";
    in_namespace(test, || {
        raise_descriptor_limit();
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let last = ((limit.saturating_sub(200)) / 2).min(65_535);
        if last < 65_535 {
            skipped(&format!(
                "{test}: of 65535 ports all above {last}: only {limit} descriptors"
            ));
        }
        let begun = Instant::now();
        let bound = bind(&[&format!("1-{last}:1-{last}/both")]).unwrap();
        println!("{} ports in {:?}", bound.published().count(), begun.elapsed());
        assert_eq!(bound.published().count() as u64, 2 * last);
        for port in [1, 80, last / 2, last] {
            let address = SocketAddr::from(([127, 0, 0, 1], port as u16));
            TcpStream::connect(address).unwrap();
            UdpSocket::bind(address).unwrap_err();
        }
    });
}
