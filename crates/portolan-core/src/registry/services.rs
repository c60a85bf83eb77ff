use super::entry::{Entry, Source, Status};
use super::etc_services::{self, Line, Problems};
use super::glob::Glob;
use super::{similar, tables};
use crate::{Port, PortRange, PortSet, Protocol, notation};

/// The names of ports that a machine knows: the embedded registry and, in front of it, the machine's own
/// services file.
///
/// The embedded part costs nothing to have. Looking up a port or a name allocates nothing; of the
/// embedded part each is one binary search.
#[derive(Clone, Debug)]
pub struct Services {
    /// The lines of the local file, sorted by port and protocol, in the file's order for one key.
    local: Vec<Local>,
    /// Their names in lower case, sorted, with the place in `local` and the line's place in the file.
    local_names: Vec<LocalName>,
    problems: Problems,
}

#[derive(Clone, Debug)]
struct Local {
    line: Line,
    /// Whether it says what the registry does not: repeated registrations are not listed twice.
    adds: bool,
}

#[derive(Clone, Debug)]
struct LocalName {
    name: Box<str>,
    order: usize,
    place: usize,
}

impl Services {
    /// The embedded registry alone.
    #[must_use]
    pub const fn built_in() -> Self {
        Self {
            local: Vec::new(),
            local_names: Vec::new(),
            problems: Problems::NONE,
        }
    }

    /// The embedded registry behind a services file, given as `text` in the format of services(5).
    ///
    /// A line that repeats what IANA says changes nothing. Any other adds an entry, which comes before
    /// the registry's both for display and for resolution. Lines that cannot be used are left out and
    /// told by [`Self::problems`]; those of protocols without ports of our kind are passed over. At most
    /// 4 MiB are read, so memory is bounded too.
    #[must_use]
    pub fn with_overrides(text: &[u8]) -> Self {
        let (lines, problems) = etc_services::parse(text);
        let mut order: Vec<usize> = (0..lines.len()).collect();
        // Stable: lines of one key keep the order of the file.
        order.sort_by_key(|&index| (lines[index].port, registered_as(lines[index].protocol)));
        let mut slots: Vec<Option<Line>> = lines.into_iter().map(Some).collect();
        let mut local = Vec::with_capacity(order.len());
        let mut local_names = Vec::new();
        for index in order {
            let Some(line) = slots[index].take() else { continue };
            let entry = view(&line);
            let place = local.len();
            local_names.extend(entry.current_names().map(|name| LocalName {
                name: name.to_ascii_lowercase().into(),
                order: index,
                place,
            }));
            let repeats = tables::entries(line.port, line.protocol).any(|registered| {
                registered.source == Source::Iana
                    && registered.name.eq_ignore_ascii_case(entry.name)
                    && entry.aliases().all(|alias| registered.is_named(alias))
            });
            local.push(Local { line, adds: !repeats });
        }
        local_names.sort_by(|a, b| (&a.name, a.order).cmp(&(&b.name, b.order)));
        Self {
            local,
            local_names,
            problems,
        }
    }

    /// What could not be used of the services file.
    #[must_use]
    pub const fn problems(&self) -> &Problems {
        &self.problems
    }

    /// The name to show for a port: that of the services file, else IANA's, else the one by custom.
    #[must_use]
    pub fn name(&self, port: Port, protocol: Protocol) -> Option<&str> {
        // Not `entries`: the file's first line counts even where it repeats the registry.
        let local = self
            .local_at(port, protocol)
            .first()
            .map(|local| &*local.line.name);
        local.or_else(|| tables::entries(port, protocol).find_map(Entry::name))
    }

    /// Everything known of a port: the services file's entries, IANA's, those by custom.
    ///
    /// Empty if nobody names it; reserved and unassigned ports have an entry if IANA lists them.
    pub fn entries(&self, port: Port, protocol: Protocol) -> impl Iterator<Item = Entry<'_>> {
        let local = self.local_at(port, protocol).iter().filter(|local| local.adds);
        local
            .map(move |local| view(&local.line).with_protocol(protocol))
            .chain(tables::entries(port, protocol))
    }

    /// Every entry with this primary name, alias or former name, in any case; the services file's first,
    /// former names last.
    pub fn named(&self, name: &str) -> impl Iterator<Item = Entry<'_>> {
        self.local_named(name)
            .filter(|local| local.adds)
            .map(|local| view(&local.line))
            .chain(tables::named(name))
    }

    /// The ports that `name` means for `protocol`: one, or the range that the service holds.
    ///
    /// Takes primary names and aliases, not former names. The services file is asked first and its first
    /// line with the name wins, as getservbyname(3) does; then IANA, then custom. Where IANA gives a name
    /// to several ports, the lowest counts.
    #[must_use]
    pub fn ports(&self, name: &str, protocol: Protocol) -> Option<PortRange> {
        let wanted = registered_as(protocol);
        let local = self
            .local_named(name)
            .find(|local| registered_as(local.line.protocol) == wanted)
            .map(|local| PortRange::single(local.line.port));
        local.or_else(|| {
            tables::named(name)
                .find(|entry| entry.protocol == wanted && entry.is_named(name))
                .map(Entry::ports)
        })
    }

    /// The entries with a primary name, alias or former name that fits `glob`, by port, then protocol;
    /// of a range of ports only the first. The services file's come first. One pass over everything
    /// known: about a millisecond.
    pub fn search<'a>(&'a self, glob: Glob<'a>) -> impl Iterator<Item = Entry<'a>> {
        let local = self.local.iter().filter(|local| local.adds);
        local
            .map(|local| view(&local.line))
            .chain(tables::all().filter(|entry| entry.port == entry.ports.first()))
            .filter(move |entry| {
                entry
                    .current_names()
                    .chain(entry.former_names())
                    .any(|name| glob.matches(name))
            })
    }

    /// Everything that is registered or in use, by port, then protocol; the services file's own entries
    /// come first.
    pub fn all(&self) -> impl Iterator<Item = Entry<'_>> {
        let local = self.local.iter().filter(|local| local.adds);
        local.map(|local| view(&local.line)).chain(tables::all())
    }

    /// At most `count` names that a mistyped one may have meant, the likeliest first, in lower case.
    #[must_use]
    pub fn similar(&self, name: &str, count: usize) -> Vec<&str> {
        let local = self.local_names.iter().map(|local| &*local.name);
        similar::nearest(name, local.chain(tables::names()), count)
    }

    fn local_at(&self, port: Port, protocol: Protocol) -> &[Local] {
        let key = (port, registered_as(protocol));
        let key_of = |local: &Local| (local.line.port, registered_as(local.line.protocol));
        let first = self.local.partition_point(|local| key_of(local) < key);
        let count = self.local[first..]
            .iter()
            .take_while(|local| key_of(local) == key)
            .count();
        &self.local[first..first + count]
    }

    fn local_named(&self, name: &str) -> impl Iterator<Item = &Local> {
        let lower = || name.bytes().map(|byte| byte.to_ascii_lowercase());
        let first = self
            .local_names
            .partition_point(|local| local.name.bytes().lt(lower()));
        self.local_names[first..]
            .iter()
            .take_while(move |local| local.name.eq_ignore_ascii_case(name))
            .map(|local| &self.local[local.place])
    }
}

/// In notation a name stands for the ports of [`Services::ports`]; without a protocol, for those of every
/// protocol, which mostly are the same.
impl notation::ServiceNames for Services {
    fn ports(&self, name: &str, protocol: Option<Protocol>) -> PortSet {
        let protocols = protocol.as_ref().map_or(&Protocol::ALL[..], std::slice::from_ref);
        protocols
            .iter()
            .filter_map(|&protocol| self.ports(name, protocol))
            .collect()
    }
}

impl Default for Services {
    fn default() -> Self {
        Self::built_in()
    }
}

/// The protocol in whose registry the ports of `protocol` are named.
const fn registered_as(protocol: Protocol) -> Protocol {
    match protocol {
        // RFC 3828, section 5.
        Protocol::UdpLite => Protocol::Udp,
        Protocol::Tcp | Protocol::Udp | Protocol::Sctp | Protocol::Dccp => protocol,
    }
}

fn view(line: &Line) -> Entry<'_> {
    Entry {
        port: line.port,
        ports: PortRange::single(line.port),
        protocol: line.protocol,
        name: &line.name,
        aliases: &line.aliases,
        former_names: "",
        description: "",
        reference: "",
        source: Source::LocalFile,
        status: Status::Assigned,
    }
}

#[cfg(test)]
mod tests;
