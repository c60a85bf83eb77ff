//! `portolan name`, run as a person or a program runs it.

use std::io::Read as _;
use std::process::{Command, Output, Stdio};

/// Runs `portolan name` without the machine's own services file.
fn name(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["name", "--services", "/dev/null"])
        .args(arguments)
        .env_remove("COLUMNS")
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn lines(output: &Output) -> Vec<&str> {
    stdout(output).lines().collect()
}

#[test]
fn a_port_and_a_name_lead_to_each_other() {
    let table = [
        "PORT  PROTOCOL  NAME   ALIASES  SOURCE  DESCRIPTION",
        "443   tcp,udp   https           IANA    http protocol over TLS/SSL",
        "443   sctp      https           IANA    HTTPS [RFC4960]",
        "",
        "system (well-known) ports: 0-1023",
    ];
    for question in ["443", "https", "HTTPS"] {
        let output = name(&[question]);
        assert_eq!(lines(&output), table, "{question}");
        assert_eq!(
            (output.status.code(), stderr(&output)),
            (Some(0), ""),
            "{question}"
        );
    }
}

#[test]
fn protocols_ranges_and_patterns_narrow_and_widen() {
    let shown = |arguments: &[&str]| {
        let output = name(arguments);
        let rows: Vec<String> = stdout(&output)
            .lines()
            .skip(1)
            .take_while(|line| !line.is_empty())
            .map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" "))
            .collect();
        rows
    };
    assert_eq!(shown(&["443/udp"]), ["443 udp https"]);
    assert_eq!(shown(&["53/udplite"]), ["53 udplite domain"]);
    assert_eq!(shown(&["www/tcp"]), ["80 tcp http"]);
    assert_eq!(
        shown(&["6000-6063/tcp"]),
        ["6000-6063 tcp x11"],
        "one line for a range"
    );
    assert_eq!(
        shown(&["ssh*/tcp", "22/tcp"]),
        ["22 tcp ssh", "614 tcp sshell", "17235 tcp ssh-mgmt", "22 tcp ssh"]
    );
    assert_eq!(shown(&["8200/tcp"]), ["8200 tcp trivnet1", "8200 tcp vault"]);
}

#[test]
fn names_by_custom_are_never_shown_as_registered() {
    let output = name(&["wireguard"]);
    assert!(
        stdout(&output).contains("51820  udp       wireguard           by custom"),
        "{output:?}"
    );
    let output = name(&["9090/tcp"]);
    let sources: Vec<bool> = stdout(&output)
        .lines()
        .filter(|line| line.starts_with("9090"))
        .map(|line| line.contains("by custom"))
        .collect();
    assert_eq!(sources, [false, true], "{output:?}");
}

#[test]
fn nothing_found_is_code_1_with_what_was_perhaps_meant() {
    for (question, message) in [
        ("htpt", "no service is called htpt; did you mean http or dtpt?"),
        (
            "ssh-mgmt/sctp",
            "ssh-mgmt has no port for sctp; without /PROTOCOL its ports are shown",
        ),
        ("4", "no service has port 4"),
        ("50000-50001/tcp", "no service has a port of 50000-50001 for tcp"),
        ("no-such-*", "no service name fits 'no-such-*'"),
    ] {
        let output = name(&[question]);
        assert_eq!(output.status.code(), Some(1), "{question}");
        assert_eq!(stderr(&output), format!("portolan: {message}\n"));
    }
    let output = name(&["htpt", "22/tcp"]);
    assert_eq!(output.status.code(), Some(0), "something was found");
    assert!(stderr(&output).contains("htpt") && stdout(&output).contains("ssh"));
}

#[test]
fn a_faulty_question_is_code_2_and_one_line() {
    for question in [
        "70000",
        "80-",
        "443/xyz",
        "90-80",
        "+80",
        "",
        "a,b",
        "\u{1b}[31m",
        "８０",
    ] {
        let output = name(&[question]);
        assert_eq!(output.status.code(), Some(2), "{question:?}");
        assert_eq!(stdout(&output), "", "{question:?}");
        let message = stderr(&output);
        assert!(message.starts_with("portolan: cannot read \""), "{message}");
        assert!(message.contains(" at "), "{message}");
        assert!(
            message.len() < 400 && message.matches('\n').count() == 1,
            "{message}"
        );
    }
}

#[test]
fn json_has_every_field_and_both_ranges() {
    let output = name(&["--json", "x11", "4/tcp", "htpt"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["version"], 1);
    assert_eq!(
        document["names"][0],
        serde_json::json!({
            "query": "x11", "port": 6000, "last_port": 6063, "protocol": "tcp", "name": "x11",
            "aliases": [], "former_names": [], "description": "X Window System", "references": [],
            "source": "iana", "status": "assigned", "range": "user"
        })
    );
    let unassigned = &document["names"][2];
    assert_eq!(unassigned["query"], "4/tcp");
    assert_eq!(unassigned["name"], serde_json::Value::Null);
    assert_eq!(unassigned["status"], "unassigned");
    assert_eq!(
        document["unmatched"],
        serde_json::json!([
            {"query": "4/tcp", "similar": []},
            {"query": "htpt", "similar": ["http", "dtpt"]}
        ])
    );
    assert_eq!(
        document["ranges"]["dynamic"],
        serde_json::json!({"first": 49152, "last": 65535})
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
    assert_eq!(name(&["--json", "htpt"]).status.code(), Some(1));
}

#[cfg(target_os = "linux")]
#[test]
fn the_ephemeral_range_of_this_machine_stands_beside_ianas() {
    let text = match std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range") {
        Ok(text) => text,
        Err(error) => {
            println!("skipped: this machine tells no range of ephemeral ports: {error}");
            return;
        }
    };
    let ends: Vec<u16> = text
        .split_whitespace()
        .map(|number| number.parse().unwrap())
        .collect();
    let output = name(&["--json", "60001"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        document["ephemeral"],
        serde_json::json!({"first": ends[0], "last": ends[1]})
    );

    let output = name(&["60001"]);
    assert_eq!(
        lines(&output)[0],
        "dynamic (private) ports: 49152-65535",
        "{output:?}"
    );
    let own = format!(
        "ephemeral ports of this machine: {}-{} (IANA's dynamic range: 49152-65535)",
        ends[0], ends[1]
    );
    let differs = ends != [49152, 65535];
    assert_eq!(lines(&output).contains(&own.as_str()), differs, "{output:?}");
    // Far from either range it is of no interest.
    assert!(!stdout(&name(&["22"])).contains("ephemeral"));
}

#[test]
fn the_services_file_comes_first_and_its_faults_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("services");
    std::fs::write(&file, "intranet 443/tcp home # ours\nbroken\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["name", "443/tcp", "--services"])
        .arg(&file)
        .env_remove("COLUMNS")
        .output()
        .unwrap();
    assert_eq!(
        lines(&output)[1..3],
        [
            "443   tcp       intranet  home     /etc/services",
            "443   tcp       https              IANA           http protocol over TLS/SSL",
        ]
    );
    assert!(
        stderr(&output).ends_with("1 line could not be used; line 2: a name without PORT/PROTOCOL\n"),
        "{output:?}"
    );
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn narrow_screens_wrap_descriptions() {
    for columns in [80, 60, 40] {
        let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .args(["name", "--services", "/dev/null", "4646/tcp", "3478"])
            .env("COLUMNS", columns.to_string())
            .output()
            .unwrap();
        let text = stdout(&output);
        assert!(
            text.contains("Distributed") && text.contains("channel."),
            "{text}"
        );
        // The names themselves are never cut, so below 60 columns the first part may stick out.
        if columns >= 60 {
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(widest <= columns, "{columns}: {text}");
        }
    }
}

#[test]
fn a_closed_pipe_is_a_normal_end() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["name", "--services", "/dev/null", "0-65535"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}
