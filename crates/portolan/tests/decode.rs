//! `portolan decode`, run as a person or a program runs it.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A SYN to port 443 over IPv4: 40 bytes, without a TCP checksum.
const SYN: &str = "450000280000400040064343 c0a8010a 5db8d822 d43101bb 00000001 00000000 5002faf0 00000000";

fn decode(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command
        .args(["decode", "--services", "/dev/null"])
        .args(arguments);
    command.env_remove("COLUMNS").env("TZ", "UTC");
    command
}

fn decode_stdin(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A refusal may close the pipe before all is written.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.split_whitespace().collect::<String>();
    (0..digits.len())
        .step_by(2)
        .map(|place| u8::from_str_radix(&digits[place..place + 2], 16).unwrap())
        .collect()
}

/// A pcap file of raw IP packets, each a second after the one before.
fn pcap(link: u32, packets: &[Vec<u8>]) -> Vec<u8> {
    let words = |words: &[u32]| {
        words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<_>>()
    };
    let mut file = words(&[0xA1B2_C3D4, 0x0004_0002, 0, 0, 65_535, link]);
    for (second, packet) in packets.iter().enumerate() {
        let len = packet.len() as u32;
        file.extend(words(&[1_700_000_000 + second as u32, 5, len, len]));
        file.extend(packet);
    }
    file
}

fn write(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    path
}

/// Wrong usage: code 2, one short line on standard error, nothing on standard output.
fn refused(output: &Output, code: i32) -> String {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(stdout(output), "");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.len() < 400, "{text}");
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    text.to_owned()
}

#[test]
fn a_packet_in_hexadecimal_is_a_line() {
    let expected = "    1  192.168.1.10:54321 > 93.184.216.34:443 (https)  tcp SYN seq 0 win 64240 len 0  ! wrong checksum\n";
    let mut dump = String::from("tcpdump says:\n");
    for (line, part) in bytes(SYN).chunks(16).enumerate() {
        let pairs = part
            .chunks(2)
            .map(|pair| format!(" {:02x}{:02x}", pair[0], pair[1]));
        dump.push_str(&format!("\t0x{:04x}: {}\n", line * 16, pairs.collect::<String>()));
    }
    let colons = bytes(SYN)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect::<Vec<_>>()
        .join(":");
    for text in [SYN, &dump, &colons, &format!("0x{}", SYN.replace(' ', ""))] {
        let output = decode(&[text]);
        assert_eq!((stdout(&output), stderr(&output)), (expected, ""), "{text}");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(stdout(&decode_stdin(&["-"], text.as_bytes())), expected);
    }
}

#[test]
fn the_headers_are_drawn_with_place_bits_hex_decimal_and_meaning() {
    let output = decode(&["--bytes", SYN]);
    let words = |start: &str| {
        let line = stdout(&output)
            .lines()
            .find(|line| line.trim_start().starts_with(start))
            .unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        words("22.0"),
        "22.0 16 destination port 0x01BB 443 00000001 10111011 https"
    );
    assert_eq!(words("0.4"), "0.4 4 header length 0x5 5 0101 20 bytes");
    assert_eq!(
        words("10.0"),
        "10.0 16 header checksum 0x4343 17219 01000011 01000011 valid"
    );
    assert_eq!(words("33.6"), "33.6 1 SYN 0x1 1 1 a connection begins");
    assert_eq!(words("36.0"), "36.0 16 checksum 0x0000 0 00000000 00000000 wrong");
    let broken = SYN.replace("4343", "4344");
    assert!(stdout(&decode(&["--bytes", &broken])).contains("wrong, should be 0x4343"));
    let output = decode(&["--bytes", "--json", SYN]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let fields = document["packets"][0]["fields"].as_array().unwrap();
    let port = fields
        .iter()
        .find(|field| field["name"] == "destination port")
        .unwrap();
    assert_eq!(
        (
            &port["bit_offset"],
            &port["bits"],
            &port["value"],
            &port["hex"],
            &port["meaning"]
        ),
        (
            &176.into(),
            &16.into(),
            &443.into(),
            &"01bb".into(),
            &"https".into()
        )
    );
}

#[test]
fn payload_cannot_steer_the_terminal() {
    let mut packet = bytes(
        "45000028000000004011000 07f0000017f000001 0035 0035 0014 0000"
            .replace(' ', "")
            .as_str(),
    );
    packet.extend(b"\x1b[2J\x07\xffhi\n");
    packet.extend([0; 3]);
    let hex = packet
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let output = decode(&["--bytes", "--link", "ip", &hex]);
    assert!(
        stdout(&output).contains(r"\x1b[2J\x07\xffhi\n"),
        "{}",
        stdout(&output)
    );
    assert!(!stdout(&output).contains('\x1b'));
}

#[test]
fn json_is_one_document_and_ndjson_a_line_a_packet() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "x.pcap", &pcap(101, &[bytes(SYN), bytes(SYN)]));
    let path = path.to_str().unwrap();
    let output = decode(&["--json", path]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["version"], 1);
    assert_eq!(
        (&document["damaged_blocks"], &document["broken_off"]),
        (&0.into(), &Value::Null)
    );
    let packet = &document["packets"][1];
    assert_eq!(packet["number"], 2);
    assert_eq!(packet["time"], "2023-11-14T22:13:21.000005000Z");
    assert_eq!((&packet["link"], &packet["length"]), (&"ip".into(), &40.into()));
    assert_eq!(
        (&packet["ip"]["source"], &packet["ip"]["checksum"]),
        (&"192.168.1.10".into(), &"valid".into())
    );
    let tcp = &packet["transport"];
    assert_eq!(
        (&tcp["protocol"], &tcp["destination_port"]),
        (&"tcp".into(), &443.into())
    );
    assert_eq!(
        (&tcp["destination_service"], &tcp["source_service"]),
        (&"https".into(), &Value::Null)
    );
    assert_eq!(
        (&tcp["flags"][0], &tcp["seq"], &tcp["relative_seq"]),
        (&"SYN".into(), &1.into(), &0.into())
    );
    assert_eq!(
        (&tcp["ack"], &tcp["payload_length"], &tcp["icmp"]),
        (&Value::Null, &0.into(), &Value::Null)
    );

    let output = decode(&["--ndjson", path]);
    let lines = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .collect::<Vec<_>>();
    assert_eq!(lines, document["packets"].as_array().unwrap()[..]);

    let empty = write(dir.path(), "empty.pcap", &pcap(101, &[]));
    let output = decode(&["--json", empty.to_str().unwrap()]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["packets"].as_array().unwrap().len(), 0);
}

/// SYN, SYN,ACK, ACK of one connection, and a datagram, as raw IPv4 without checksums.
fn conversation() -> Vec<Vec<u8>> {
    let segment = |from_client: bool, flags: u8, seq: u32, ack: u32| {
        let mut packet = bytes("450000280000400040060000");
        let (client, server) = ([10u8, 0, 0, 1], [10u8, 0, 0, 2]);
        let ends = if from_client {
            [client, server]
        } else {
            [server, client]
        };
        packet.extend(ends.concat());
        let ports = if from_client {
            [50_000u16, 22]
        } else {
            [22, 50_000]
        };
        packet.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        packet.extend(seq.to_be_bytes());
        packet.extend(ack.to_be_bytes());
        packet.extend([0x50, flags, 1, 0, 0, 0, 0, 0]);
        packet
    };
    let datagram = bytes("4500001c 00000000 40110000 0a000001 0a000003 c3500035 00080000");
    vec![
        segment(true, 0x02, 100, 0),
        segment(false, 0x12, 900, 101),
        segment(true, 0x10, 101, 901),
        datagram,
    ]
}

#[test]
fn flows_sum_both_directions_and_say_what_became_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "x.pcap", &pcap(101, &conversation()));
    let path = path.to_str().unwrap();
    let output = decode(&["--flows", path]);
    let rows = stdout(&output)
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>();
    assert_eq!(
        rows,
        [
            "tcp 10.0.0.1:50000 10.0.0.2:22 ssh 2 (80 B) 1 (40 B) 0.000000 2.000000 established SYN,ACK / SYN,ACK",
            "udp 10.0.0.1:50000 10.0.0.3:53 domain 1 (28 B) 0 (0 B) 3.000000 0.000000 one-way",
        ]
    );
    let output = decode(&["--flows", "--json", path]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["version"], 1);
    let flow = &document["flows"][0];
    assert_eq!(
        (&flow["client"]["port"], &flow["server"]["address"]),
        (&50_000.into(), &"10.0.0.2".into())
    );
    assert_eq!(
        (&flow["sent"]["packets"], &flow["received"]["bytes"]),
        (&2.into(), &40.into())
    );
    assert_eq!(
        (&flow["state"], &flow["duration_seconds"]),
        (&"established".into(), &2.0.into())
    );

    let output = decode(&["--flows", "--max-flows", "1", path]);
    assert!(
        stdout(&output).contains("not kept: 1 packet (28 bytes) of further flows"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn sequence_numbers_are_relative_unless_asked_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "x.pcap", &pcap(101, &conversation()));
    let path = path.to_str().unwrap();
    let third = |arguments: &[&str]| {
        let output = decode(arguments);
        stdout(&output).lines().nth(2).unwrap().to_owned()
    };
    assert!(third(&[path]).contains("2.000000  10.0.0.1:50000 > 10.0.0.2:22 (ssh)  tcp ACK seq 1 ack 1 win"));
    assert!(third(&["--absolute", path]).contains("tcp ACK seq 101 ack 901 win"));
    assert!(third(&["--utc", path]).contains("2023-11-14T22:13:22.000005000Z"));
    assert_eq!(stdout(&decode(&["--limit", "2", path])).lines().count(), 2);
}

#[test]
fn a_cut_capture_shows_what_is_whole_and_says_where_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let file = pcap(101, &[bytes(SYN), bytes(SYN)]);
    let path = write(dir.path(), "cut.pcap", &file[..file.len() - 7]);
    let output = decode(&[path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(stdout(&output).lines().count(), 1);
    assert!(
        stderr(&output).contains("ends inside a record at 80: 56 bytes needed, 49 present; 1 packet before")
    );
    let output = decode(&["--json", path.to_str().unwrap()]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["packets"].as_array().unwrap().len(), 1);
    assert!(document["broken_off"].as_str().unwrap().contains("at 80"));
}

#[test]
fn a_packet_that_cannot_be_read_says_so_in_its_line() {
    let cut = bytes(SYN)[..25]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let output = decode(&[&cut]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        stdout(&output),
        "    1  192.168.1.10:54321 > 93.184.216.34:443 (https)  tcp  ! TCP header or data cut short: 20 bytes needed, 5 present\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "x.pcap", &pcap(147, &[vec![1, 2, 3]]));
    let output = decode(&[path.to_str().unwrap()]);
    assert!(
        stdout(&output).ends_with("link type 147 is not known, 3 bytes\n"),
        "{}",
        stdout(&output)
    );
}

#[test]
fn hostile_input_is_refused_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let digits = "0".repeat(1 << 20);
    assert!(
        refused(&decode_stdin(&["-"], digits.as_bytes()), 2).contains("longer than 262144 bytes at 524289")
    );
    let path = write(dir.path(), "empty", b"");
    assert!(refused(&decode(&[path.to_str().unwrap()]), 2).contains("no hexadecimal digit"));
    assert!(refused(&decode(&[dir.path().to_str().unwrap()]), 2).contains("is a directory"));
    let path = write(dir.path(), "nul", &[0; 5000]);
    assert!(refused(&decode(&[path.to_str().unwrap()]), 2).contains("byte 0x00 at 0"));
    assert!(
        refused(&decode(&["no-such.pcap"]), 2)
            .contains("is no file, and no packet in hexadecimal either: 'n' at 0")
    );
    assert!(refused(&decode(&["45 0g"]), 2).contains("'g' at 4"));
    assert!(refused(&decode(&["450"]), 2).contains("the digit at 2 stands alone"));
    assert!(refused(&decode(&["ffffffffffff"]), 2).contains("--link"));
    assert!(refused(&decode(&["\u{1b}[2J"]), 2).contains(r"\x1b[2J"));
    assert!(refused(&decode(&[""]), 2).contains("no hexadecimal digit"));
    assert!(refused(&decode(&["--flow"]), 2).contains("--flows"));
    assert!(refused(&decode(&["--link", "carrier-pigeon", "00"]), 2).contains("ethernet"));
    let long = "x".repeat(100_000);
    assert!(refused(&decode(&[&long]), 2).contains("more)"));
}

#[test]
fn lengths_that_lie_are_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = pcap(1, &[]);
    file.extend([0; 8]);
    file.extend([0xFF; 8]);
    let path = write(dir.path(), "long.pcap", &file);
    assert!(refused(&decode(&[path.to_str().unwrap()]), 4).contains("at 24 claims 4294967311 bytes"));
    file[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    file.truncate(24);
    let path = write(dir.path(), "snaplen.pcap", &file);
    assert_eq!(decode(&[path.to_str().unwrap()]).status.code(), Some(0));

    // Hop-by-hop headers without end.
    let mut packet = vec![0x60, 0, 0, 0, 1, 0, 0, 64];
    packet.resize(40 + 256, 0);
    let hex = packet
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    let output = decode(&[&hex]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        stdout(&output).contains("! more than 16 IPv6 extension headers"),
        "{}",
        stdout(&output)
    );
}

#[cfg(unix)]
#[test]
fn a_file_that_must_not_be_read_is_code_3_and_a_closed_pipe_a_normal_end() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "secret.pcap", &pcap(101, &[]));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&path).is_ok() {
        println!("skipped: this user may read every file, so code 3 was not tried");
    } else {
        assert!(refused(&decode(&[path.to_str().unwrap()]), 3).contains("secret.pcap"));
    }
    let path = write(dir.path(), "many.pcap", &pcap(101, &vec![bytes(SYN); 5_000]));
    let mut child = command(&["--bytes", path.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
}

#[test]
fn packets_are_shown_as_they_come() {
    use std::io::{BufRead as _, BufReader};
    use std::sync::mpsc;
    use std::time::Duration;

    let mut child = command(&["-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in stdout.lines() {
            sender.send(line.unwrap()).unwrap();
        }
    });
    let file = pcap(101, &[bytes(SYN), bytes(SYN)]);
    let first = 24 + 16 + 40;
    for part in [&file[..first], &file[first..]] {
        stdin.write_all(part).unwrap();
        // The input is still open. A minute is for the case that nothing ever comes.
        let line = lines
            .recv_timeout(Duration::from_secs(60))
            .expect("a line for each packet");
        assert!(line.contains("tcp SYN"), "{line}");
    }
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    reader.join().unwrap();
}
