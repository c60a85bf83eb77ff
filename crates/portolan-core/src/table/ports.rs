//! All ports of one protocol, and who holds each: an array, of which only the pages in use are there.
//!
//! ```text
//!   port ─▶ Holders ─┬▶ tenants: connections whose port connect() chose ─▶ class: their claim but for the port
//!                    └▶ entry: whoever else holds the port ─▶ shapes ─▶ records
//! ```
//!
//! A host has thousands of automatic ports in use, most of them with one connection, and all those connections
//! claim the same but for the port. So that is said once, and a port holds no more than the links to its sockets.

use super::slab::NONE;
use crate::Port;

/// Ports of a page.
const PAGE: usize = 16;
/// Pages that are allocated together. One by one they would lie between what comes with connections and is larger, and
/// hold it in memory: a port is in use for a minute longer than its connection.
const TOGETHER: usize = 16;
/// In the place of a page that is not there.
const NO_PAGE: u16 = u16::MAX;
/// How many classes of connections may be tenants of one port: of one local address some that are
/// established and some in TIME-WAIT. What is beyond is kept as if the port had been asked for.
const TENANTS: usize = 2;

/// Connections of one class on one port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tenant {
    /// The record of their class, or `NONE` if there is no such tenant.
    pub(super) class: u32,
    /// The first of them, which are linked to each other.
    pub(super) first: u32,
    /// For how many the first stands, if it stands for others (see [`super::stand_in`]); then it is the only one.
    pub(super) stands_for: u32,
}

impl Tenant {
    const NOBODY: Self = Self {
        class: NONE,
        first: NONE,
        stands_for: 0,
    };
}

/// Who holds a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holders {
    tenants: [Tenant; TENANTS],
    /// The [`PortEntry`](super::records::PortEntry), or `NONE`.
    pub(super) entry: u32,
}

impl Holders {
    const NOBODY: Self = Self {
        tenants: [Tenant::NOBODY; TENANTS],
        entry: NONE,
    };

    /// The tenants there are.
    pub(super) fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.iter().filter(|tenant| tenant.class != NONE)
    }

    /// The tenant of this class.
    pub(super) fn tenant(&self, class: u32) -> Option<&Tenant> {
        self.tenants().find(|tenant| tenant.class == class)
    }

    /// The same, to be changed.
    pub(super) fn tenant_mut(&mut self, class: u32) -> Option<&mut Tenant> {
        let mut tenants = self.tenants.iter_mut();
        tenants.find(|tenant| tenant.class == class && class != NONE)
    }

    /// Sees to it that there is a tenant of this class; says whether there is room.
    pub(super) fn let_in(&mut self, class: u32) -> bool {
        if self.tenant(class).is_some() {
            return true;
        }
        let free = self.tenants.iter_mut().find(|tenant| tenant.class == NONE);
        free.is_some_and(|free| {
            free.class = class;
            true
        })
    }

    /// Puts the tenant of this class out.
    pub(super) fn put_out(&mut self, class: u32) {
        if let Some(tenant) = self.tenant_mut(class) {
            *tenant = Tenant::NOBODY;
        }
    }

    /// Whether nobody holds the port.
    pub(super) fn is_empty(&self) -> bool {
        self.entry == NONE && self.tenants().next().is_none()
    }
}

type Page = [Holders; PAGE];

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// Where each page lies, or [`NO_PAGE`]. Made with the first port.
    places: Vec<u16>,
    pages: Vec<Box<[Page; TOGETHER]>>,
    /// The places in `pages` that no port needs.
    free: Vec<u16>,
}

impl Ports {
    /// Who holds a port, if somebody does.
    #[inline]
    pub(super) fn get(&self, port: Port) -> Option<&Holders> {
        let (page, place) = place(port);
        let at = usize::from(*self.places.get(page)?);
        let holders = &self.pages.get(at / TOGETHER)?[at % TOGETHER][place];
        (!holders.is_empty()).then_some(holders)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, port: Port) -> Option<&mut Holders> {
        let (page, place) = place(port);
        let at = usize::from(*self.places.get(page)?);
        let page = self.pages.get_mut(at / TOGETHER)?;
        Some(&mut page[at % TOGETHER][place])
    }

    /// Who holds a port, to be added to.
    pub(super) fn entry(&mut self, port: Port) -> &mut Holders {
        if self.places.is_empty() {
            self.places.resize((1 << 16) / PAGE, NO_PAGE);
        }
        let (page, place) = place(port);
        let mut at = self.places[page];
        if at == NO_PAGE {
            at = self.new_page();
            self.places[page] = at;
        }
        let at = usize::from(at);
        &mut self.pages[at / TOGETHER][at % TOGETHER][place]
    }

    /// A page without holders.
    fn new_page(&mut self) -> u16 {
        if let Some(at) = self.free.pop() {
            return at;
        }
        // There are fewer than 2^16: each has sixteen ports.
        let first = (self.pages.len() * TOGETHER) as u16;
        self.pages.push(Box::new([[Holders::NOBODY; PAGE]; TOGETHER]));
        self.free.extend((first + 1..first + TOGETHER as u16).rev());
        first
    }

    /// Gives back what a port took that nobody holds any more.
    pub(super) fn tidy(&mut self, port: Port) {
        let (page, _) = place(port);
        let Some(at) = self.places.get_mut(page).filter(|at| **at != NO_PAGE) else {
            return;
        };
        let index = usize::from(*at);
        if self.pages[index / TOGETHER][index % TOGETHER]
            .iter()
            .all(Holders::is_empty)
        {
            self.free.push(std::mem::replace(at, NO_PAGE));
        }
    }

    /// Moves pages together, and gives up what is free. O(pages).
    pub(super) fn trim(&mut self) {
        let mut pages = Vec::new();
        let mut count = 0;
        for at in self.places.iter_mut().filter(|at| **at != NO_PAGE) {
            let page = self.pages[usize::from(*at) / TOGETHER][usize::from(*at) % TOGETHER];
            if count % TOGETHER == 0 {
                pages.push(Box::new([[Holders::NOBODY; PAGE]; TOGETHER]));
            }
            pages[count / TOGETHER][count % TOGETHER] = page;
            *at = count as u16;
            count += 1;
        }
        pages.shrink_to_fit();
        self.free = (count as u16..(pages.len() * TOGETHER) as u16).rev().collect();
        self.pages = pages;
    }

    /// The bytes that they are allocated in.
    pub(super) fn bytes(&self) -> usize {
        let places = (self.places.capacity() + self.free.capacity()) * size_of::<u16>();
        let pages = self.pages.capacity() * size_of::<Box<[Page; TOGETHER]>>();
        places + pages + self.pages.len() * TOGETHER * size_of::<Page>()
    }
}

const fn place(port: Port) -> (usize, usize) {
    let port = port.get() as usize;
    (port / PAGE, port % PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holders_of_a_port_are_28_bytes() {
        assert_eq!(size_of::<Holders>(), 28);
    }

    fn used(ports: &Ports) -> usize {
        let used = ports.places.iter().filter(|at| **at != NO_PAGE).count();
        assert_eq!(used + ports.free.len(), ports.pages.len() * TOGETHER);
        used
    }

    #[test]
    fn all_ports_can_be_held_and_their_room_goes_with_them() {
        let mut ports = Ports::default();
        for port in 0..=u16::MAX {
            assert!(ports.entry(Port::new(port)).let_in(u32::from(port)));
        }
        let most = ports.bytes();
        assert_eq!(used(&ports), 4096);
        let left = [7, 40_000, 65_535];
        for port in (0..=u16::MAX).filter(|port| !left.contains(port)) {
            ports.get_mut(Port::new(port)).unwrap().put_out(port.into());
            ports.tidy(Port::new(port));
        }
        ports.trim();
        assert_eq!((used(&ports), ports.pages.len()), (3, 1));
        assert!(ports.bytes() < most / 50);
        for port in 0..=u16::MAX {
            let is_held = ports
                .get(Port::new(port))
                .is_some_and(|holders| holders.tenant(port.into()).is_some());
            assert_eq!(is_held, left.contains(&port), "{port}");
        }
        assert!(ports.entry(Port::new(100)).let_in(1));
        assert!(ports.get(Port::new(100)).is_some());
        for port in [7, 100, 40_000, 65_535] {
            let port = Port::new(port);
            ports.get_mut(port).unwrap().tenants = [Tenant::NOBODY; TENANTS];
            ports.tidy(port);
        }
        ports.trim();
        assert_eq!((used(&ports), ports.pages.len()), (0, 0));
    }

    #[test]
    fn tenants_come_and_go_and_their_pages_with_them() {
        let mut ports = Ports::default();
        let (port, neighbour) = (Port::new(40_000), Port::new(40_001));
        assert!(ports.get(port).is_none());
        assert!(ports.entry(port).let_in(7));
        assert!(ports.entry(neighbour).let_in(9));
        assert!(ports.entry(port).let_in(8));
        assert!(ports.entry(port).let_in(7), "it is there");
        assert!(!ports.entry(port).let_in(9), "there is no room");
        let classes: Vec<_> = ports.get(port).unwrap().tenants().map(|t| t.class).collect();
        assert_eq!(classes, [7, 8]);
        ports.get_mut(port).unwrap().put_out(7);
        assert!(ports.get(port).unwrap().tenant(7).is_none());
        ports.get_mut(port).unwrap().put_out(8);
        ports.tidy(port);
        assert!(ports.get(port).is_none());
        assert_eq!(used(&ports), 1, "the neighbour is of the same page");
        ports.get_mut(neighbour).unwrap().put_out(9);
        ports.tidy(neighbour);
        assert_eq!(used(&ports), 0);
        let far = Port::new(9);
        assert!(ports.entry(far).let_in(1));
        assert!(ports.entry(port).let_in(1));
        assert_eq!((used(&ports), ports.pages.len()), (2, 1), "pages are used again");
        assert_eq!(ports.get(far).unwrap().tenants().count(), 1);
        assert!(ports.get(Port::MAX).is_none());
    }
}
