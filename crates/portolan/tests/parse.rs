//! `portolan parse`, run as a person or a program runs it.

use std::process::{Command, Output};

fn parse(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portolan"))
        .arg("parse")
        .args(arguments)
        .output()
        .unwrap()
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = parse(&[&["--json"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_port_is_shown_in_every_base_and_as_bytes() {
    let output = parse(&["443/tcp"]);
    let expected = "\
443/tcp: a port
  protocol       tcp
  port           443
    service      https (tcp)
    range        system (well-known), 0-1023
    decimal      443
    hex          0x01BB
    binary       00000001 10111011
    on the wire  01 bb
";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn json_holds_one_description_for_each_argument() {
    let document = json(&[
        "https://[::1]:8443/a?b#c",
        "127.0.0.1:8080:80/both",
        "22,80-443,https",
    ]);
    assert_eq!(document["version"], 1);
    let [url, mapping, set] = document["parsed"].as_array().unwrap().as_slice() else {
        panic!("{document}");
    };
    assert_eq!(
        (&url["kind"], &url["url"]["default_port"]),
        (&"url".into(), &443.into())
    );
    assert_eq!(url["url"]["query"], "b");
    assert_eq!(url["ports"][0]["wire"], serde_json::json!([0x20, 0xfb]));
    assert_eq!(url["hosts"][0]["wire"].as_array().unwrap().len(), 16);
    assert_eq!(
        (&mapping["kind"], &mapping["protocol"]),
        (&"mapping".into(), &"both".into())
    );
    assert_eq!(mapping["ports"][1]["role"], "inner");
    assert_eq!(mapping["ports"][1]["services"][0]["name"], "http");
    assert_eq!(
        (&set["canonical"], &set["count"]),
        (&"22,80-443".into(), &365.into())
    );
    assert_eq!(
        set["ranges"],
        serde_json::json!([{"first":22,"last":22},{"first":80,"last":443}])
    );
}

#[test]
fn an_address_that_could_hide_a_port_has_a_note() {
    let document = json(&["2001:db8::1:443", "[2001:db8::1:443]"]);
    let note = document["parsed"][0]["note"].as_str().unwrap();
    assert!(note.contains("[2001:db8::1]:443"), "{note}");
    assert!(document["parsed"][1]["note"].is_null());
}

#[test]
fn a_fault_is_one_line_on_standard_error_and_nothing_else() {
    let long = "7".repeat(100_000);
    let cases = [
        ("70000", "0"),
        ("-1", "0"),
        ("80-", "3"),
        ("[::1", "0"),
        ("2001:db8::1:65535", "12"),
        ("2001:db8::1%eth0", "11"),
        ("", "0"),
        ("+80", "0"),
        ("22,,80", "3"),
        ("90-80", "0"),
        ("\u{1b}[31m", "0"),
        (&long, "0"),
    ];
    for (text, at) in cases {
        for arguments in [&["--", text][..], &["--", "443", text], &["--json", "--", text]] {
            let output = parse(arguments);
            let error = String::from_utf8(output.stderr).unwrap();
            assert_eq!(
                (output.status.code(), output.stdout.as_slice()),
                (Some(2), &b""[..]),
                "{error}"
            );
            assert!(error.contains(&format!(" at {at}")), "{error}");
            assert!(
                error.lines().count() == 1 && error.chars().count() < 400,
                "{error}"
            );
            assert!(!error.contains('\u{1b}'), "{error}");
        }
    }
}
