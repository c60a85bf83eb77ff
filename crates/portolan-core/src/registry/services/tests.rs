use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

static IANA: Services = Services::built_in();

fn names_of(services: &Services, port: u16, protocol: Protocol) -> Vec<String> {
    services
        .entries(Port::new(port), protocol)
        .map(|entry| {
            let names: Vec<&str> = entry.current_names().collect();
            format!("{} ({})", names.join(" "), entry.source())
        })
        .collect()
}

#[test]
fn well_known_services_have_their_names() {
    use Protocol::{Dccp, Sctp, Tcp, Udp};
    for (port, protocol, expected) in [
        (22, Tcp, "ssh (IANA)"),
        (53, Tcp, "domain (IANA)"),
        (53, Udp, "domain (IANA)"),
        (80, Tcp, "http www www-http (IANA)"),
        (443, Tcp, "https (IANA)"),
        (443, Udp, "https (IANA)"),
        (443, Sctp, "https (IANA)"),
        (853, Udp, "domain-s (IANA)"),
        (6010, Tcp, "x11 (IANA)"),
        (631, Tcp, "ipp ipps (IANA)"),
        (3478, Udp, "stun turn stun-behavior (IANA)"),
        (2049, Tcp, "nfs shilp (IANA)"),
        (9, Dccp, "discard (IANA)"),
        (51820, Udp, "wireguard (by custom)"),
        (4222, Tcp, "nats (by custom)"),
        (10250, Tcp, "kubelet (by custom)"),
        (25565, Tcp, "minecraft (by custom)"),
        (8125, Udp, "statsd (by custom)"),
    ] {
        assert_eq!(names_of(&IANA, port, protocol), [expected], "{port}/{protocol}");
    }
    assert_eq!(names_of(&IANA, 51820, Tcp), [""; 0]);
}

#[test]
fn a_second_meaning_comes_after_the_registered_one() {
    for (port, registered, custom) in [
        (9200, "wap-wsp", "elasticsearch opensearch"),
        (6443, "sun-sr-https", "kube-apiserver"),
        (9090, "websm", "prometheus"),
    ] {
        let expected = [format!("{registered} (IANA)"), format!("{custom} (by custom)")];
        assert_eq!(names_of(&IANA, port, Protocol::Tcp), expected);
        assert_eq!(IANA.name(Port::new(port), Protocol::Tcp), Some(registered));
    }
}

#[test]
fn nothing_by_custom_repeats_the_registry() {
    for custom in IANA.all().filter(|entry| entry.source() == Source::Custom) {
        let registered = tables::entries(custom.port(), custom.protocol())
            .filter(|entry| entry.source() == Source::Iana)
            .any(|entry| entry.is_named(custom.name));
        assert!(!registered, "{custom:?}");
    }
}

#[test]
fn the_registry_is_whole() {
    let keys: HashSet<_> = IANA
        .all()
        .filter(|entry| entry.source() == Source::Iana && entry.name().is_some())
        .map(|entry| (entry.port(), entry.protocol()))
        .collect();
    assert_eq!(keys.len(), 11_621);
}

#[test]
fn every_entry_is_found_by_its_port_and_by_each_of_its_names() {
    for entry in IANA.all() {
        assert!(
            IANA.entries(entry.port(), entry.protocol())
                .any(|found| found == entry)
        );
        assert!(entry.ports().contains(entry.port()));
        for name in entry.current_names().chain(entry.former_names()) {
            assert!(
                IANA.named(&name.to_uppercase()).any(|found| found == entry),
                "{name}"
            );
        }
        for name in entry.current_names() {
            assert!(IANA.ports(name, entry.protocol()).is_some(), "{name}");
        }
    }
}

#[test]
fn texts_are_clean_and_name_no_person() {
    for entry in IANA.all() {
        assert_eq!(entry.name().is_some(), entry.status() == Status::Assigned);
        for text in [entry.name, entry.aliases, entry.description, entry.reference] {
            assert!(
                !text.contains(char::is_control) && text.trim() == text,
                "{text:?}"
            );
            assert!(!text.contains('@') && !text.contains('<'), "{text:?}");
        }
        for reference in entry.references() {
            let is_document = ["RFC", "draft-", "ISO/"]
                .iter()
                .any(|kind| reference.starts_with(kind));
            assert!(is_document, "{reference:?}");
        }
    }
}

#[test]
fn a_name_leads_to_its_port_in_any_case() {
    for (name, protocol, expected) in [
        ("https", Protocol::Tcp, Some((443, 443))),
        ("HTTPS", Protocol::Sctp, Some((443, 443))),
        ("www", Protocol::Tcp, Some((80, 80))),
        ("turn", Protocol::Udp, Some((3478, 3478))),
        ("x11", Protocol::Tcp, Some((6000, 6063))),
        ("wireguard", Protocol::Udp, Some((51820, 51820))),
        ("wireguard", Protocol::Tcp, None),
        ("domain", Protocol::UdpLite, Some((53, 53))),
        // A former name says what a port was, not where the service is.
        ("pando-pub", Protocol::Tcp, None),
        ("quic", Protocol::Udp, None),
        ("", Protocol::Tcp, None),
    ] {
        let found = IANA
            .ports(name, protocol)
            .map(|range| (range.first().get(), range.last().get()));
        assert_eq!(found, expected, "{name}/{protocol}");
    }
}

#[test]
fn notation_takes_names_from_the_registry() {
    let set = |text: &str| PortSet::parse(text, Some(Protocol::Tcp), &IANA).map(|set| set.to_string());
    assert_eq!(set("ssh,https,1-3").as_deref(), Ok("1-3,22,443"));
    assert_eq!(set("x11").as_deref(), Ok("6000-6063"));
    assert!(set("wireguard").is_err());
    let any = notation::ServiceNames::ports(&IANA, "wireguard", None);
    assert_eq!(any.to_string(), "51820");
    assert!(notation::ServiceNames::ports(&IANA, "nonesuch", None).is_empty());
}

#[test]
fn former_names_are_kept_and_come_last() {
    let entry = IANA.entries(Port::new(7680), Protocol::Tcp).next().unwrap();
    assert_eq!(entry.name(), Some("ms-do"));
    assert_eq!(entry.former_names().collect::<Vec<_>>(), ["pando-pub"]);
    assert!(IANA.named("pando-pub").any(|found| found == entry));
    assert!(!entry.is_named("pando-pub"));
}

#[test]
fn a_port_without_service_says_whether_it_is_reserved() {
    let status = |port| {
        let entry = IANA.entries(Port::new(port), Protocol::Tcp).next();
        entry.map(|entry| (entry.name(), entry.status()))
    };
    assert_eq!(status(0), Some((None, Status::Reserved)));
    assert_eq!(status(4), Some((None, Status::Unassigned)));
    assert_eq!(status(49152), None);
}

#[test]
fn udp_lite_has_the_names_of_udp() {
    let entry = IANA.entries(Port::new(53), Protocol::UdpLite).next().unwrap();
    assert_eq!(
        (entry.name(), entry.protocol()),
        (Some("domain"), Protocol::UdpLite)
    );
    let local = Services::with_overrides(b"mine 54/udp\n");
    assert_eq!(local.name(Port::new(54), Protocol::UdpLite), Some("mine"));
}

#[test]
fn globs_find_names_once_for_a_range() {
    let search = |pattern| {
        IANA.search(Glob::new(pattern).unwrap())
            .map(|entry| format!("{}/{}", entry.ports(), entry.protocol()))
            .collect::<Vec<_>>()
    };
    assert_eq!(search("x11"), ["6000-6063/tcp", "6000-6063/udp"]);
    assert_eq!(search("domain-?"), ["853/tcp", "853/udp"]);
    assert_eq!(search("pando-p*"), ["7680/tcp", "7680/udp"]);
    assert_eq!(search("POSTGRES*"), ["5432/tcp", "5432/udp"]);
    assert_eq!(search("no-such-*"), [""; 0]);
}

#[test]
fn the_local_file_overrides_and_hides_nothing() {
    let services = Services::with_overrides(
        b"intranet 443/tcp\nhttps 443/tcp\nssh 2222/tcp\nsmtp 25/tcp mail\nquic 443/udp\n",
    );
    assert_eq!(services.name(Port::new(443), Protocol::Tcp), Some("intranet"));
    // The second line repeats IANA and is listed once, as IANA's.
    assert_eq!(
        names_of(&services, 443, Protocol::Tcp),
        ["intranet (/etc/services)", "https (IANA)"]
    );
    assert_eq!(
        names_of(&services, 25, Protocol::Tcp),
        ["smtp mail (/etc/services)", "smtp (IANA)"]
    );
    assert_eq!(services.name(Port::new(443), Protocol::Udp), Some("quic"));

    let ssh = PortRange::single(Port::new(2222));
    assert_eq!(services.ports("SSH", Protocol::Tcp), Some(ssh));
    let ports: Vec<u16> = services
        .named("ssh")
        .filter(|entry| entry.protocol() == Protocol::Tcp)
        .map(|entry| entry.port().get())
        .collect();
    assert_eq!(ports, [2222, 22]);
    assert_eq!(services.problems().count(), 0);
}

#[test]
fn the_first_line_with_a_name_wins_even_if_it_repeats_the_registry() {
    let services = Services::with_overrides(b"http 80/tcp www\nwww 8000/tcp\n");
    let port = services.ports("www", Protocol::Tcp).unwrap();
    assert_eq!(port.first(), Port::new(80));
}

#[test]
fn mistyped_names_have_neighbours() {
    assert_eq!(IANA.similar("htpt", 3).first(), Some(&"http"));
    assert_eq!(IANA.similar("postgrseql", 1), ["postgresql"]);
    let services = Services::with_overrides(b"quux-service 1/tcp\n");
    assert_eq!(services.similar("quux-servcie", 3), ["quux-service"]);
}

proptest! {
    #[test]
    fn any_services_file_is_survived_and_obeyed(
        lines in prop::collection::vec(("[a-d]{1,3}", 0u16..4, 0usize..5, "( [a-d]{1,3}){0,2}"), 0..20),
        noise in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut text = String::new();
        for (name, port, protocol, aliases) in &lines {
            text += &format!("{name} {port}/{}{aliases}\n", Protocol::ALL[*protocol]);
        }
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&noise);
        let services = Services::with_overrides(&bytes);
        for (name, port, protocol, _) in &lines {
            let (port, protocol) = (Port::new(*port), Protocol::ALL[*protocol]);
            prop_assert!(services.ports(name, protocol).is_some());
            prop_assert!(services.entries(port, protocol).any(|entry| entry.is_named(name)));
            let first = lines.iter().find(|line| {
                line.1 == port.get() && registered_as(Protocol::ALL[line.2]) == registered_as(protocol)
            });
            prop_assert_eq!(services.name(port, protocol), first.map(|line| line.0.as_str()));
        }
    }
}
