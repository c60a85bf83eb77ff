//! Captures of what passes the device of a space.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::network::{in_network, script};
use crate::served::Served;
use crate::users::{as_each_user, has_python, skipped};
use crate::{portolan, run, stderr, stdout};

/// Every packet of a capture, as `portolan decode` sees it.
fn decoded(file: &Path) -> Vec<Value> {
    let mut decode = Command::new(env!("CARGO_BIN_EXE_portolan"));
    let output = decode.args(["decode", "--ndjson"]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stderr(&output), "", "nothing is damaged");
    let lines = stdout(&output).lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What another program has to say of a capture; `None` if there is no such program.
fn read_by(program: &str, arguments: &[&str], file: &Path) -> Option<String> {
    let arguments = arguments
        .iter()
        .map(|argument| OsStr::new(*argument))
        .chain([file.as_os_str()]);
    // Its settings, and its complaints that it may not read them, are somebody else's.
    let home = file.parent().unwrap();
    match Command::new(program).args(arguments).env("HOME", home).output() {
        Ok(output) => {
            assert!(output.status.success(), "{program}: {}", stderr(&output));
            Some(stdout(&output).to_owned())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            skipped(&format!("no {program} here to read captures"));
            None
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

/// Bytes that went to or from this port over TCP. Those that were sent again, as they may be on a machine that is
/// busy, count once.
fn bytes_to(packets: &[Value], port: u64, is_to: bool) -> u64 {
    let end = if is_to { "destination_port" } else { "source_port" };
    let mut pieces: Vec<[u64; 4]> = packets
        .iter()
        .map(|packet| &packet["transport"])
        .filter(|transport| transport[end] == port && transport["payload_length"] != 0)
        .map(|transport| {
            let fields = [
                "source_port",
                "destination_port",
                "relative_seq",
                "payload_length",
            ];
            fields.map(|field| transport[field].as_u64().unwrap())
        })
        .collect();
    pieces.sort_unstable();
    let (mut flow, mut seen, mut sum) = ([0; 2], 0, 0);
    for [source, destination, start, len] in pieces {
        if flow != [source, destination] {
            (flow, seen) = ([source, destination], 0);
        }
        sum += (start + len).saturating_sub(seen.max(start));
        seen = seen.max(start + len);
    }
    sum
}

#[test]
fn a_capture_has_every_packet_and_whose_it_is() {
    as_each_user("pcap::a_capture_has_every_packet_and_whose_it_is", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let [file, report] = ["capture", "report"].map(|name| directory.path().join(name));
        let [file_name, report_name] = [&file, &report].map(|path| path.to_str().unwrap());
        let len = 1_000_000;
        let served = Served::new(&["--pcap", file_name, "--report", report_name], len);
        for _ in 0..3 {
            assert_eq!(served.fetch().len(), len);
        }
        let (status, said) = served.end(Signal::TERM);
        assert_eq!((status.code(), said.as_str()), (Some(128 + 15), ""));

        let packets = decoded(&file);
        let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        let captured = &report["captured"];
        assert_eq!(captured["packets"], packets.len());
        assert_eq!(captured["missing"], 0);
        assert_eq!(
            (&captured["in"], &captured["out"]),
            (&report["stack"]["in"], &report["stack"]["out"])
        );
        // All of it is there, and nothing is too long for the link.
        assert_eq!(bytes_to(&packets, 80, false), 3 * (len as u64 + 1));
        assert_eq!(bytes_to(&packets, 80, true), 3);
        for packet in &packets {
            assert!(packet["length"].as_u64().unwrap() <= 1500, "{packet}");
            assert_eq!(packet["fault"], Value::Null, "{packet}");
            if packet["transport"]["protocol"] == "tcp" {
                assert_eq!(packet["transport"]["checksum"], "valid", "{packet}");
            }
        }
        assert!(packets.len() as u64 >= captured["in"].as_u64().unwrap() + captured["out"].as_u64().unwrap());

        if let Some(lines) = read_by("tcpdump", &["-nr"], &file) {
            assert_eq!(lines.lines().count(), packets.len());
            assert!(lines.contains("Flags [S.]"), "{lines}");
        }
        let fields = ["-n", "-T", "fields", "-e", "tcp.flags.syn", "-e", "tcp.flags.ack"];
        let more = [
            "-e",
            "frame.packet_flags_direction",
            "-e",
            "frame.comment",
            "-e",
            "_ws.expert.message",
            "-r",
        ];
        let Some(lines) = read_by("tshark", &[&fields[..], &more].concat(), &file) else {
            return;
        };
        assert_eq!(lines.lines().count(), packets.len());
        let syns = lines.lines().filter(|line| {
            let syn = ["1\t0", "True\tFalse"]
                .iter()
                .any(|flags| line.starts_with(flags));
            syn && line.contains("0x00000001") && line.contains("\tpython3 (pid ")
        });
        assert_eq!(syns.count(), 3, "{lines}");
        assert!(!lines.contains("ACKed segment that wasn't captured"), "{lines}");
    });
}

#[test]
fn who_is_killed_leaves_a_capture_that_can_be_read() {
    as_each_user("pcap::who_is_killed_leaves_a_capture_that_can_be_read", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("capture");
        let served = Served::new(&["--pcap", file.to_str().unwrap()], 100_000);
        assert_eq!(served.fetch().len(), 100_000);
        let (status, _) = served.end(Signal::KILL);
        assert_eq!(status.signal(), Some(9));
        // What we had got was in the file before we got it.
        assert_eq!(bytes_to(&decoded(&file), 80, false), 100_001);
    });
}

#[test]
fn what_cannot_be_written_is_counted_and_the_program_runs_on() {
    let test = "pcap::what_cannot_be_written_is_counted_and_the_program_runs_on";
    in_network(test, &["mount", "python3", "cmp"], || {
        // The file has room for some of it; when there is more, the capture goes on.
        let said = script(
            r#"
            mkdir small
            mount -t tmpfs -o size=64k small small
            head -c 400000 /dev/urandom >sent
            python3 -m http.server --bind $V4 8000 >/dev/null 2>&1 &
            await curl -sSo /dev/null http://$V4:8000/sent
            space --pcap small/capture --report report -- sh -c "
                curl -sS -o got http://$V4:8000/sent
                touch full
                until [ -e larger ]; do sleep 0.01; done
                curl -sSo /dev/null http://$V4:8000/last
                exit 7" 2>said
            await test -e full
            # By source and target, or options of now are given again, ids that have no name in this user namespace among them.
            mount -o remount,size=8m small small
            touch larger
            wait $! && exit 1
            [ $? = 7 ]
            cmp sent got
            cat said
            "$PORTOLAN" decode small/capture | wc -l
            grep -ac 'GET /last' small/capture
            "#,
        );
        let report: Value = serde_json::from_slice(&std::fs::read("report").unwrap()).unwrap();
        let number = |name: &str| report["captured"][name].as_u64().unwrap();
        let (packets, missing) = (number("packets"), number("missing"));
        assert!(packets > 10 && missing > 100, "{report}");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 4, "{said}");
        assert!(
            lines[0].contains("cannot write small/capture: No space left on device"),
            "{said}"
        );
        assert_eq!(
            lines[1],
            format!(
                "portolan: small/capture lacks {missing} of {} packets",
                packets + missing
            )
        );
        assert_eq!(lines[2].trim(), packets.to_string(), "blocks are whole");
        assert_eq!(lines[3], "1", "it went on when there was room");
    });
}

#[test]
fn a_device_that_is_full_does_not_end_anything() {
    as_each_user("pcap::a_device_that_is_full_does_not_end_anything", || {
        let output = run(&["--pcap", "/dev/full", "--", "sh", "-c", "exit 3"]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(
            said.contains("cannot write /dev/full: No space left on device"),
            "{said}"
        );
    });
}

#[test]
fn a_pipe_gets_all_of_it() {
    as_each_user("pcap::a_pipe_gets_all_of_it", || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let [pipe, file] = ["pipe", "file"].map(|name| directory.path().join(name));
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let mut reader = Command::new("cp").args([&pipe, &file]).spawn().unwrap();
        let served = Served::new(&["--pcap", pipe.to_str().unwrap()], 1_000_000);
        assert_eq!(served.fetch().len(), 1_000_000);
        let (status, said) = served.end(Signal::TERM);
        assert_eq!((status.code(), said.as_str()), (Some(128 + 15), ""));
        assert!(reader.wait().unwrap().success());
        assert_eq!(bytes_to(&decoded(&file), 80, false), 1_000_001);
    });
}

#[test]
fn of_a_bad_network_there_is_what_the_program_sends_and_what_reaches_it() {
    let test = "pcap::of_a_bad_network_there_is_what_the_program_sends_and_what_reaches_it";
    as_each_user(test, || {
        if !has_python() {
            return skipped("no python3 for this user");
        }
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("capture");
        let dial = "import socket\ntry: socket.create_connection(('203.0.113.9', 25), 1)\nexcept OSError as error: print(error)";
        for (network, rejected) in [("out:loss 100%", 0), ("in:loss 100%", 0), ("delay 1ms", 1)] {
            let mut command = portolan();
            command.args(["--no-out", "--deny-with", "reset", "--impair", network, "--pcap"]);
            let output = command
                .arg(&file)
                .args(["--", "python3", "-c", dial])
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
            let packets = decoded(&file);
            let to_server = packets
                .iter()
                .filter(|packet| packet["transport"]["destination_port"] == 25);
            assert!(to_server.count() >= 1, "{network}: {packets:?}");
            let from_server = packets
                .iter()
                .filter(|packet| packet["transport"]["source_port"] == 25);
            assert_eq!(from_server.count(), rejected, "{network}: {packets:?}");
        }
    });
}

#[test]
fn a_file_that_cannot_be_is_told_before_anything_runs() {
    let output = run(&["--pcap", "-", "--", "echo", "ran"]);
    let said = stderr(&output);
    assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""), "{said}");
    assert!(
        said.contains("--pcap") && said.contains("name a file, or a pipe"),
        "{said}"
    );
    let output = run(&["--pcap", "/no/such/directory/file", "--", "echo", "ran"]);
    let said = stderr(&output);
    assert_eq!((output.status.code(), stdout(&output)), (Some(125), ""), "{said}");
    assert!(said.contains("cannot write /no/such/directory/file"), "{said}");
}
