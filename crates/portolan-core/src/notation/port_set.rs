use std::str::FromStr;

use super::error::{Element, NotationError, NotationErrorKind};
use super::number::range;
use super::part::Part;
use super::protocol::suffix;
use super::services::{BUILT_IN, ServiceNames, is_name, service};
use crate::{PortRange, PortSet, Protocol};

impl PortSet {
    /// Reads `22,80-443,https`: ports, ranges and service names with commas between.
    ///
    /// An item after `!` is taken out of the set, wherever it stands: `!22,1-1024` is `1-1024,!22`. Of
    /// exclusions alone, `!22`, all ports are the whole. A name stands for all its ports with
    /// `protocol`, or with any protocol if there is none.
    ///
    /// # Errors
    /// An empty item, a range that runs backwards, a number above 65535, an unknown name, a blank or any
    /// other character that does not belong.
    pub fn parse(
        text: &str,
        protocol: Option<Protocol>,
        services: &dyn ServiceNames,
    ) -> Result<Self, NotationError> {
        port_set(Part::whole(text), protocol, services)
    }

    /// Reads a set as [`parse`](Self::parse) does, with a protocol behind it if need be:
    /// `8000-8100,!8080/udp`.
    ///
    /// # Errors
    /// Those of `parse`, and a protocol that is none; offsets count from the beginning of `text`.
    pub fn parse_with_protocol(
        text: &str,
        services: &dyn ServiceNames,
    ) -> Result<(Self, Option<Protocol>), NotationError> {
        let (part, protocol) = suffix(Part::whole(text))?;
        Ok((port_set(part, protocol, services)?, protocol))
    }
}

/// [`PortSet::parse`] with the names of the embedded registry.
impl FromStr for PortSet {
    type Err = NotationError;

    fn from_str(text: &str) -> Result<Self, NotationError> {
        Self::parse(text, None, &BUILT_IN)
    }
}

pub(super) fn port_set(
    part: Part<'_>,
    protocol: Option<Protocol>,
    services: &dyn ServiceNames,
) -> Result<PortSet, NotationError> {
    if part.is_empty() {
        return Err(part.fault(NotationErrorKind::Missing(Element::Port), 0));
    }
    let (mut included, mut excluded) = (Gathered::default(), Gathered::default());
    for item in part.split(',') {
        if item.text().starts_with('!') {
            excluded.add(&self::item(item.from(1), protocol, services)?);
        } else {
            included.add(&self::item(item, protocol, services)?);
        }
    }
    // An item adds at least one port, so an empty set means that there was none to include.
    let included = match included.finish() {
        set if set.is_empty() => PortSet::all(),
        set => set,
    };
    Ok(included.difference(&excluded.finish()))
}

/// A set in the making. What it holds is bounded, however many items come.
#[derive(Default)]
struct Gathered {
    set: PortSet,
    waiting: Vec<PortRange>,
}

impl Gathered {
    fn add(&mut self, ports: &PortSet) {
        // Putting the set in order costs the more the larger it is, so it is done once in a while.
        const WAITING_MAX: usize = 16_384;
        self.waiting.extend(ports.ranges());
        if self.waiting.len() >= WAITING_MAX {
            self.set.extend(self.waiting.drain(..));
        }
    }

    fn finish(mut self) -> PortSet {
        self.set.extend(self.waiting);
        self.set
    }
}

fn item(
    part: Part<'_>,
    protocol: Option<Protocol>,
    services: &dyn ServiceNames,
) -> Result<PortSet, NotationError> {
    if part.is_empty() {
        return Err(part.fault(NotationErrorKind::Missing(Element::Item), 0));
    }
    // "3com-tsmux" is a name, "80-abc" a range with a fault in it.
    let starts_as_range = || {
        let (first, _) = part.split_once('-')?;
        (!first.is_empty() && first.text().bytes().all(|byte| byte.is_ascii_digit())).then_some(())
    };
    if is_name(part.text()) && starts_as_range().is_none() {
        service(part, protocol, services)
    } else {
        range(part).map(PortSet::from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Port;

    fn names(name: &str, protocol: Option<Protocol>) -> PortSet {
        match (name, protocol) {
            ("https", _) | ("udp-only", Some(Protocol::Udp)) => Port::new(443).into(),
            ("x11", _) => PortRange::new(Port::new(6000), Port::new(6063)).unwrap().into(),
            ("3com-tsmux", _) => Port::new(106).into(),
            _ => PortSet::new(),
        }
    }

    fn parse(text: &str) -> Result<PortSet, NotationError> {
        PortSet::parse(text, Some(Protocol::Tcp), &names)
    }

    #[test]
    fn items_exclusions_and_names_make_one_normal_set() {
        let cases = [
            ("22", "22"),
            ("22,80-443,https", "22,80-443"),
            ("1-1024,!22", "1-21,23-1024"),
            ("!22,1-1024", "1-21,23-1024"),
            ("!22", "0-21,23-65535"),
            ("x11,!6000-6010", "6011-6063"),
            ("80,79,78-80,0079", "78-80"),
            ("3com-tsmux", "106"),
            ("1,!1", "!0-65535"),
            ("!0-65535", "!0-65535"),
            ("65535,0", "0,65535"),
        ];
        for (text, canonical) in cases {
            let set = parse(text).unwrap();
            assert_eq!(set.to_string(), canonical, "{text:?}");
            assert_eq!(canonical.parse(), Ok(set), "{text:?}");
        }
    }

    #[test]
    fn each_bad_set_has_its_fault_and_place() {
        use NotationErrorKind as Kind;
        let item = Kind::Missing(Element::Item);
        let cases = [
            ("", Kind::Missing(Element::Port), 0),
            (",", item, 0),
            ("22,", item, 3),
            (",22", item, 0),
            ("22,,80", item, 3),
            ("22,!", item, 4),
            ("22, 80", Kind::Blank, 3),
            ("22,80-", Kind::Missing(Element::RangeEnd), 6),
            (
                "22,90-80",
                Kind::Reversed {
                    first: Port::new(90),
                    last: Port::new(80),
                },
                3,
            ),
            ("22,!!80", Kind::Unexpected('!'), 4),
            ("80-abc", Kind::Unexpected('a'), 3),
            ("22,nosuch", Kind::UnknownService, 3),
            ("udp-only", Kind::UnknownService, 0),
            ("22,80,70000,!99999", Kind::OutOfRange, 6),
            ("!99999,70000", Kind::OutOfRange, 1),
            ("ssh\u{202e}", Kind::Unexpected('\u{202e}'), 3),
        ];
        for (text, kind, at) in cases {
            let error = parse(text).unwrap_err();
            assert_eq!((*error.kind(), error.at()), (kind, at), "{text:?}");
        }
    }

    #[test]
    fn a_protocol_may_follow_and_faults_are_placed_in_the_whole() {
        let (set, protocol) = PortSet::parse_with_protocol("1012,!7/udp", &names).unwrap();
        assert_eq!(
            (set.to_string().as_str(), protocol),
            ("1012", Some(Protocol::Udp))
        );
        assert_eq!(PortSet::parse_with_protocol("7", &names).unwrap().1, None);
        for (text, at) in [("1012/foo", 5), ("1012/", 5), ("1012,+7/tcp", 5)] {
            let error = PortSet::parse_with_protocol(text, &names).unwrap_err();
            assert_eq!(error.at(), at, "{text}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn a_mebibyte_of_items_is_read() {
        let text = "65535,1-9,".repeat((1 << 20) / 10);
        assert_eq!(parse(&text[..text.len() - 1]).unwrap().to_string(), "1-9,65535");
    }

    proptest! {
        #[test]
        fn printing_and_reading_gives_the_same(ranges in proptest::collection::vec((any::<u16>(), 0u16..2000), 0..30)) {
            let set: PortSet = ranges
                .into_iter()
                .map(|(first, more)| PortRange::new(Port::new(first), Port::new(first.saturating_add(more))).unwrap())
                .collect();
            prop_assert_eq!(set.to_string().parse(), Ok(set));
        }

        #[test]
        fn any_text_is_read_or_refused_with_a_place_in_it(text in "[0-9,!\\-a-z ]{0,30}|\\PC*") {
            match parse(&text) {
                Ok(set) => prop_assert_eq!(set.to_string().parse(), Ok(set)),
                Err(error) => prop_assert!(error.at() <= text.len()),
            }
        }
    }
}
