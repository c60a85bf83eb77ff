use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// The names of users, asked of the system's name service once each.
#[derive(Debug, Default)]
pub struct Users {
    names: HashMap<u32, Option<String>>,
}

impl Users {
    /// With no name known yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The name of the user with this id; `None` if the system knows none, so that only the number is left.
    pub fn name(&mut self, uid: u32) -> Option<&str> {
        let name = match self.names.entry(uid) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown
                .insert(uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned())),
        };
        name.as_deref()
    }
}

/// The id of the user with this name, or with this number, known or not; `None` if it is neither.
#[must_use]
pub fn user_id(name: &str) -> Option<u32> {
    match uzers::get_user_by_name(name) {
        Some(user) => Some(user.uid()),
        None => name.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_given_by_name_or_number() {
        assert_eq!(user_id("root"), Some(0));
        assert_eq!(user_id("4000000123"), Some(4_000_000_123));
        assert_eq!(user_id("no-such-user"), None);
        assert_eq!(user_id("-1"), None);
    }

    #[test]
    fn root_has_a_name_and_a_made_up_user_has_none() {
        let mut users = Users::new();
        for _ in 0..2 {
            assert_eq!(users.name(0), Some("root"));
            assert_eq!(users.name(4_000_000_123), None);
        }
        assert_eq!(users.names.len(), 2);
    }
}
