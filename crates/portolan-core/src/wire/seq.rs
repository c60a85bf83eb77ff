use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A TCP sequence number: a place in a stream whose numbers wrap at 2³² (RFC 9293, section 3.4).
///
/// There is no `<`: on a circle "less than" has no meaning. Two numbers are compared by the shorter way
/// round, which is right while they lie less than 2³¹ apart, as windows of up to 2³⁰ bytes ensure.
///
/// ```
/// use portolan_core::wire::SeqNum;
///
/// let last = SeqNum::new(u32::MAX);
/// let next = last + 1;
/// assert_eq!(next, SeqNum::new(0));
/// assert!(last.before(next) && next.after(last));
/// assert_eq!(next.since(last), 1);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct SeqNum(u32);

impl SeqNum {
    /// The sequence number with these 32 bits.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The 32 bits.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// How far this number lies behind `earlier`; negative if it lies before it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> i32 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }

    /// Whether this number comes before `other`.
    #[must_use]
    pub const fn before(self, other: Self) -> bool {
        self.since(other) < 0
    }

    /// Whether this number comes after `other`.
    #[must_use]
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// Whether this number is `other` or comes before it.
    #[must_use]
    pub const fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }

    /// Whether this number is `other` or comes after it.
    #[must_use]
    pub const fn at_or_after(self, other: Self) -> bool {
        !self.before(other)
    }

    /// Whether this number is one of the `length` numbers from `first` on: `first` =< self < `first` +
    /// `length`, as in RFC 9293, section 3.10.7.4.
    #[must_use]
    pub const fn in_window(self, first: Self, length: u32) -> bool {
        self.0.wrapping_sub(first.0) < length
    }

    /// The later of the two.
    #[must_use]
    pub const fn later(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    #[must_use]
    pub const fn earlier(self, other: Self) -> Self {
        if other.before(self) { other } else { self }
    }
}

impl Add<u32> for SeqNum {
    type Output = Self;

    fn add(self, bytes: u32) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl AddAssign<u32> for SeqNum {
    fn add_assign(&mut self, bytes: u32) {
        *self = *self + bytes;
    }
}

impl Sub<u32> for SeqNum {
    type Output = Self;

    fn sub(self, bytes: u32) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }
}

impl fmt::Display for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn moving_forward_by_less_than_half_the_circle_is_after(start: u32, step in 1u32..1 << 31) {
            let start = SeqNum::new(start);
            let end = start + step;
            prop_assert!(end.after(start) && start.before(end));
            prop_assert!(!end.before(start) && !start.after(end));
            prop_assert!(end.at_or_after(start) && start.at_or_before(end));
            prop_assert_eq!(end.since(start), step.cast_signed());
            prop_assert_eq!(start.since(end), -step.cast_signed());
            prop_assert_eq!(end - step, start);
            prop_assert_eq!(start.later(end), end);
            prop_assert_eq!(end.earlier(start), start);
        }

        #[test]
        fn the_window_holds_exactly_its_numbers(start: u32, length: u32, offset: u32) {
            let first = SeqNum::new(start);
            prop_assert_eq!((first + offset).in_window(first, length), offset < length);
        }
    }

    #[test]
    fn a_number_is_neither_before_nor_after_itself() {
        let number = SeqNum::new(7);
        assert!(!number.before(number) && !number.after(number));
        assert!(number.at_or_before(number) && number.at_or_after(number));
    }
}
