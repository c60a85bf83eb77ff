//! The `replay` example: the conversation of its description, and lines that are none.

#[path = "../examples/replay/session.rs"]
mod session;

use serde_json::{Value, json};
use session::Session;

fn say(session: &mut Session, line: &str) -> Value {
    session.answer(line.as_bytes())
}

#[test]
fn a_listener_a_connection_and_a_bind_that_is_refused() {
    let mut session = Session::new();
    let conversation = [
        (
            r#"{"op":"config","addresses":{"eth0":["10.8.0.1/24","fd08::1/64"]},"ephemeral":[40000,40003],"unprivileged_start":1024,"reserved":[40001]}"#,
            json!({"ok": true}),
        ),
        (
            r#"{"op":"socket","id":1,"protocol":"tcp","family":"ipv6","uid":0}"#,
            json!({"ok": true}),
        ),
        (
            r#"{"op":"bind","id":1,"address":"::","port":80}"#,
            json!({"ok": true, "port": 80}),
        ),
        (r#"{"op":"listen","id":1}"#, json!({"ok": true, "port": 80})),
        (
            r#"{"op":"deliver","protocol":"tcp","source":"10.8.0.9:5555","destination":"10.8.0.1:80","device":"eth0","segment":"syn"}"#,
            json!({"to": [1], "because": "listener, wildcard"}),
        ),
        (
            r#"{"op":"accept","id":1,"new":2,"source":"10.8.0.9:5555","destination":"10.8.0.1:80","device":"eth0"}"#,
            json!({"ok": true}),
        ),
        (
            r#"{"op":"deliver","protocol":"tcp","source":"10.8.0.9:5555","destination":"10.8.0.1:80","device":"eth0","segment":"ack"}"#,
            json!({"to": [2], "because": "four-tuple"}),
        ),
        (r#"{"op":"close","id":2,"how":"time_wait"}"#, json!({"ok": true})),
        (
            r#"{"op":"socket","id":3,"protocol":"tcp","family":"ipv4","uid":0}"#,
            json!({"ok": true}),
        ),
    ];
    for (line, expected) in conversation {
        assert_eq!(say(&mut session, line), expected, "{line}");
    }
    let refusal = say(
        &mut session,
        r#"{"op":"bind","id":3,"address":"10.8.0.1","port":80}"#,
    );
    assert_eq!(refusal["error"], "EADDRINUSE");
    assert_eq!(refusal["in_the_way"][0], 1);
    let rule = refusal["rule"].as_str().unwrap();
    assert!(
        rule.starts_with("a listener on [::]:80 holds every address"),
        "{rule}"
    );
}

#[test]
fn a_connection_in_time_wait_is_in_the_way_for_60_seconds() {
    let mut session = Session::new();
    for line in [
        r#"{"op":"config","addresses":{"eth0":["10.8.0.1/24"]},"ephemeral":[40000,40003],"unprivileged_start":1024,"reserved":[]}"#,
        r#"{"op":"socket","id":1,"protocol":"tcp","family":"ipv4"}"#,
        r#"{"op":"bind","id":1,"address":"0.0.0.0","port":80}"#,
        r#"{"op":"connect","id":1,"address":"10.8.0.9","port":7,"source":"10.8.0.1"}"#,
        r#"{"op":"close","id":1,"how":"time_wait"}"#,
        r#"{"op":"socket","id":2,"protocol":"tcp","family":"ipv4"}"#,
        r#"{"op":"advance","seconds":59.9}"#,
    ] {
        assert_eq!(say(&mut session, line)["error"], Value::Null, "{line}");
    }
    let bind = r#"{"op":"bind","id":2,"address":"0.0.0.0","port":80}"#;
    let refusal = say(&mut session, bind);
    assert_eq!(refusal["error"], "EADDRINUSE");
    assert_eq!(refusal["in_the_way"], json!([1]));
    say(&mut session, r#"{"op":"advance","seconds":0.1}"#);
    assert_eq!(say(&mut session, bind), json!({"ok": true, "port": 80}));
}

#[test]
fn automatic_ports_are_taken_as_chosen_or_refused() {
    let mut session = Session::new();
    say(
        &mut session,
        r#"{"op":"config","addresses":{"eth0":["10.8.0.1/24"]},"ephemeral":[40000,40003],"unprivileged_start":1024,"reserved":[40001]}"#,
    );
    for (id, choice, expected) in [
        (1, 40_002, json!({"ok": true, "port": 40_002})),
        (2, 40_002, json!("EADDRINUSE")),
        (3, 40_001, json!("EADDRINUSE")),
        (4, 39_999, json!("EADDRINUSE")),
        (5, 40_000, json!({"ok": true, "port": 40_000})),
    ] {
        say(
            &mut session,
            &format!(r#"{{"op":"socket","id":{id},"protocol":"tcp","family":"ipv4","uid":5}}"#),
        );
        let line = format!(r#"{{"op":"bind","id":{id},"address":"10.8.0.1","port":0,"choose":{choice}}}"#);
        let answer = say(&mut session, &line);
        let got = if expected.is_string() {
            &answer["error"]
        } else {
            &answer
        };
        assert_eq!(*got, expected, "{line}");
    }
}

#[test]
fn lines_that_are_none_are_answered_and_change_nothing() {
    let mut session = Session::new();
    for (line, error) in [
        ("", "EINVAL"),
        ("nonsense", "EINVAL"),
        ("[1,2]", "EINVAL"),
        ("{}", "EINVAL"),
        (r#"{"op":7}"#, "EINVAL"),
        (r#"{"op":"fly"}"#, "ENOSYS"),
        (r#"{"op":"socket"}"#, "EINVAL"),
        (
            r#"{"op":"socket","id":1,"protocol":"sctp","family":"ipv4"}"#,
            "EINVAL",
        ),
        (r#"{"op":"bind","id":99,"address":"0.0.0.0","port":1}"#, "EBADF"),
        (r#"{"op":"config","ephemeral":[9,1]}"#, "EINVAL"),
        (r#"{"op":"config","addresses":{"e":["10.8.0.1/x"]}}"#, "EINVAL"),
        (r#"{"op":"advance","seconds":-1}"#, "EINVAL"),
        (
            r#"{"op":"deliver","protocol":"tcp","source":"x","destination":"y"}"#,
            "EINVAL",
        ),
        (
            r#"{"op":"deliver","protocol":"tcp","source":"10.8.0.9:1","destination":"10.8.0.1:1","device":"none"}"#,
            "ENODEV",
        ),
    ] {
        let answer = say(&mut session, line);
        assert_eq!(answer["error"], error, "{line}");
    }
    let not_utf8 = session.answer(&[0xff, 0xfe, b'{']);
    assert_eq!(not_utf8["error"], "EINVAL");
    let first = r#"{"op":"socket","id":1,"protocol":"udp","family":"ipv6","extra":[1]}"#;
    assert_eq!(say(&mut session, first), json!({"ok": true}));
    assert_eq!(say(&mut session, first)["error"], "EINVAL");
}

/// The answers to `lines` after a host with 10.8.0.1/24 and fd08::1 on eth0 is made.
fn answers(lines: &[&str]) -> Vec<Value> {
    let mut session = Session::new();
    let host =
        r#"{"op":"config","addresses":{"eth0":["10.8.0.1/24","fd08::1/64"]},"ephemeral":[40000,40003]}"#;
    say(&mut session, host);
    lines.iter().map(|line| say(&mut session, line)).collect()
}

#[test]
fn a_udp_socket_connected_to_port_0_hears_every_port_of_its_peer() {
    let answers = answers(&[
        r#"{"op":"socket","id":1,"protocol":"udp","family":"ipv4"}"#,
        r#"{"op":"bind","id":1,"address":"10.8.0.1","port":5000}"#,
        r#"{"op":"connect","id":1,"address":"10.8.0.9","port":0,"source":"10.8.0.1"}"#,
        r#"{"op":"deliver","protocol":"udp","source":"10.8.0.9:7","destination":"10.8.0.1:5000","device":"eth0"}"#,
        r#"{"op":"deliver","protocol":"udp","source":"10.8.0.9:0","destination":"10.8.0.1:5000","device":"eth0"}"#,
        r#"{"op":"deliver","protocol":"udp","source":"10.8.0.10:7","destination":"10.8.0.1:5000","device":"eth0"}"#,
    ]);
    let to: Vec<_> = answers[3..].iter().map(|answer| &answer["to"]).collect();
    assert_eq!(to, [&json!([1]), &json!([1]), &json!([])]);
}

#[test]
fn an_address_that_is_no_source_there_has_no_route() {
    let cases = [
        ("tcp", "ipv4", "127.0.0.1", "10.8.0.9", "EINVAL"),
        ("udp", "ipv6", "::ffff:127.0.0.1", "::ffff:10.8.0.255", "EINVAL"),
        (
            "tcp",
            "ipv6",
            "::ffff:10.8.0.255",
            "::ffff:10.8.0.9",
            "ENETUNREACH",
        ),
        ("udp", "ipv6", "::ffff:224.1.1.1", "::ffff:10.8.0.9", "EINVAL"),
        (
            "udp",
            "ipv6",
            "::ffff:255.255.255.255",
            "::ffff:10.8.0.9",
            "EINVAL",
        ),
    ];
    for (protocol, family, local, remote, error) in cases {
        let answers = answers(&[
            &json!({"op": "socket", "id": 1, "protocol": protocol, "family": family}).to_string(),
            &json!({"op": "bind", "id": 1, "address": local, "port": 5000}).to_string(),
            &json!({"op": "connect", "id": 1, "address": remote, "port": 7, "source": "10.8.0.1"})
                .to_string(),
        ]);
        assert_eq!(answers[2]["error"], error, "{protocol} {local} {remote}");
    }
    let stays = answers(&[
        r#"{"op":"socket","id":1,"protocol":"tcp","family":"ipv4"}"#,
        r#"{"op":"bind","id":1,"address":"127.0.0.1","port":5000}"#,
        r#"{"op":"connect","id":1,"address":"10.8.0.1","port":7,"source":"10.8.0.1"}"#,
    ]);
    assert_eq!(stays[2]["ok"], true);
}

#[test]
fn a_connection_from_a_link_local_address_is_bound_to_its_device() {
    let answers = answers(&[
        r#"{"op":"socket","id":1,"protocol":"tcp","family":"ipv6","uid":6}"#,
        r#"{"op":"bind","id":1,"address":"::","port":5000}"#,
        r#"{"op":"listen","id":1}"#,
        r#"{"op":"accept","id":1,"new":2,"source":"[fe80::9]:1","destination":"[fd08::1]:5000","device":"eth0"}"#,
        r#"{"op":"set","id":2,"option":"device","value":""}"#,
        r#"{"op":"accept","id":1,"new":3,"source":"[fd08::9]:1","destination":"[fd08::1]:5000","device":"eth0"}"#,
        r#"{"op":"set","id":3,"option":"device","value":""}"#,
    ]);
    assert_eq!(answers[4]["error"], "EPERM");
    assert_eq!(answers[6], json!({"ok": true}));
}

#[test]
fn groups_ranges_and_prefixes_as_linux_takes_them() {
    let answers = answers(&[
        r#"{"op":"socket","id":1,"protocol":"udp","family":"ipv4"}"#,
        r#"{"op":"join","id":1,"group":"10.8.0.1","device":"eth0"}"#,
        r#"{"op":"join","id":1,"group":"224.1.1.1","device":"eth0"}"#,
        r#"{"op":"join","id":1,"group":"224.1.1.1","device":"eth0"}"#,
        r#"{"op":"set","id":1,"option":"port_range","value":[40003,0]}"#,
        r#"{"op":"bind","id":1,"address":"10.8.0.1","port":0}"#,
        r#"{"op":"config","addresses":{"eth0":["10.8.0.1/33"]}}"#,
        "",
    ]);
    assert_eq!(answers[1]["error"], "EINVAL");
    assert_eq!(answers[2], json!({"ok": true}));
    assert_eq!(answers[3]["error"], "EADDRINUSE");
    assert_eq!(answers[5], json!({"ok": true, "port": 40003}));
    assert_eq!(answers[6]["error"], "EINVAL");
    assert_eq!(answers[7]["error"], "EINVAL");
}
