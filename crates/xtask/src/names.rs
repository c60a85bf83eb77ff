//! What a service name, a key and a reference may look like in the table.

use std::fmt;

/// A transport protocol that IANA registers ports for, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Sctp,
    Dccp,
}

impl Transport {
    /// The protocol of this lower-case name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            "dccp" => Some(Self::Dccp),
            _ => None,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Dccp => "dccp",
        })
    }
}

/// A port and its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) port: u16,
    pub(crate) transport: Transport,
}

/// `text` with every run of white space as one space, none at the ends, and no other control character.
pub(crate) fn tidy(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").replace(char::is_control, "")
}

/// The documents that a reference field names: RFCs, drafts and ISO standards; `RFC4251,RFC4252`.
///
/// The field also holds people's names and addresses, which are never taken over.
pub(crate) fn documents(reference: &str) -> String {
    let mut documents: Vec<String> = Vec::new();
    for item in reference.split(['[', ']']).map(tidy) {
        let number = item.strip_prefix("RFC").unwrap_or_default();
        let is_rfc = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let is_draft = ["draft-", "RFC-ietf-"].iter().any(|head| item.starts_with(head))
            && item
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let is_iso = item.starts_with("ISO/") && !item.contains(['@', '&', '<', ',']);
        if is_rfc || is_draft || is_iso {
            documents.push(item);
        }
    }
    documents.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documents_are_taken_from_a_reference() {
        for (reference, expected) in [
            ("[RFC4251]", "RFC4251"),
            ("[1][RFC4727][RFC6335]", "RFC4727,RFC6335"),
            ("[draft-gross-geneve-00]", "draft-gross-geneve-00"),
            ("[ISO/IEC 13818-6 MPEG-2 DSM-CC]", "ISO/IEC 13818-6 MPEG-2 DSM-CC"),
            ("[Jane Doe <jane&example.org> 15 June 2009]", ""),
            ("[Jane_Doe]", ""),
            ("[n/a]", ""),
            ("", ""),
        ] {
            assert_eq!(documents(reference), expected, "{reference}");
        }
    }

    #[test]
    fn tidy_text_fits_on_one_line_of_a_table() {
        assert_eq!(tidy(" a\tb\r\n  c\u{7}d "), "a b cd");
    }
}
