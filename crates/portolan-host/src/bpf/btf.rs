//! The kernel's description of its own types (BTF; Documentation/bpf/btf.rst in the kernel's tree): at
//! which offset a member lies in a structure of the kernel that runs, and the number of a function.
//!
//! The file is the kernel's, some five megabytes of it. It is read as untrusted all the same: every access
//! is checked, one pass is made over the types, and only what is asked for is kept.

/// A type description, its two sections told apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
}

/// A member of a structure, to be looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The name of the structure, without `struct`.
    pub(crate) structure: &'static str,
    /// The name of the member.
    pub(crate) name: &'static str,
}

/// Why a type description is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BtfError {
    /// It does not begin as one.
    #[error("no type description of this machine's byte order")]
    Magic,
    /// A section or a type reaches beyond the end.
    #[error("the type description is cut off at byte {at}")]
    Truncated { at: usize },
    /// A type of a kind that came after this program, whose length is unknown.
    #[error("the type description holds a type of the unknown kind {kind}")]
    UnknownKind { kind: u32 },
    /// The kernel has no such function.
    #[error("the kernel has no function {name}")]
    NoFunction { name: &'static str },
    /// The kernel has no such structure, or it has no such member at a whole byte.
    #[error("the kernel has no member {}.{}", .0.structure, .0.name)]
    NoMember(Member),
}

impl<'a> Btf<'a> {
    /// Tells the sections apart.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        if bytes.first_chunk() != Some(&MAGIC.to_ne_bytes()) {
            return Err(BtfError::Magic);
        }
        let section = |offset_at, length_at| {
            let header = word(bytes, HEADER_LEN_AT)?;
            let start = header.checked_add(word(bytes, offset_at)?)?;
            let end = start.checked_add(word(bytes, length_at)?)?;
            bytes.get(start as usize..end as usize)
        };
        let truncated = BtfError::Truncated { at: bytes.len() };
        Ok(Self {
            types: section(TYPES_AT, TYPES_AT + 4).ok_or(truncated)?,
            strings: section(STRINGS_AT, STRINGS_AT + 4).ok_or(truncated)?,
        })
    }

    /// Finds the number of a function and the offsets, in bytes, of members.
    ///
    /// Where several structures have one name, the first that has the member counts.
    pub(crate) fn resolve<const N: usize>(
        &self,
        function: &'static str,
        members: [Member; N],
    ) -> Result<(u32, [u32; N]), BtfError> {
        let mut function_id = None;
        let mut offsets = [None; N];
        let mut lookups = ANONYMOUS_MAX;
        let mut at = 0;
        // Number 0 is void and stands nowhere.
        let mut id = 1u32;
        while at < self.types.len() {
            let header = Type::read(self.types, at)?;
            match header.kind {
                KIND_STRUCT => {
                    for (member, offset) in members.iter().zip(&mut offsets) {
                        if offset.is_none() && self.is_name(header.name, member.structure) {
                            *offset = self.member_offset(header, member.name, &mut lookups)?;
                        }
                    }
                }
                KIND_FUNC if function_id.is_none() && self.is_name(header.name, function) => {
                    function_id = Some(id);
                }
                _ => {}
            }
            if function_id.is_some() && offsets.iter().all(Option::is_some) {
                break;
            }
            at = header.end;
            id = id.saturating_add(1);
        }
        let mut found = [0; N];
        for ((member, offset), found) in members.into_iter().zip(offsets).zip(&mut found) {
            *found = offset.ok_or(BtfError::NoMember(member))?;
        }
        Ok((function_id.ok_or(BtfError::NoFunction { name: function })?, found))
    }

    /// The offset in bytes of a member of a structure or union, or of an anonymous one inside it.
    ///
    /// `lookups` is how many anonymous members may still be looked into, over all.
    fn member_offset(&self, structure: Type, name: &str, lookups: &mut u32) -> Result<Option<u32>, BtfError> {
        for index in 0..structure.count {
            let at = structure.body + index as usize * MEMBER_LEN;
            let field = |field| word(self.types, at + field).ok_or(BtfError::Truncated { at });
            let (member_name, member_type, mut bits) = (field(0)?, field(4)?, field(8)?);
            if structure.has_bit_fields {
                if bits >> 24 != 0 {
                    continue;
                }
                bits &= 0x00ff_ffff;
            }
            if !bits.is_multiple_of(8) {
                continue;
            }
            if self.is_name(member_name, name) {
                return Ok(Some(bits / 8));
            }
            if member_name == 0 && *lookups > 0 {
                *lookups -= 1;
                if let Some(inner) = self.type_of(member_type)?
                    && matches!(inner.kind, KIND_STRUCT | KIND_UNION)
                    && let Some(offset) = self.member_offset(inner, name, lookups)?
                {
                    return Ok((bits / 8).checked_add(offset));
                }
            }
        }
        Ok(None)
    }

    /// The type with this number. Slow, as types have no index; only anonymous members need it.
    fn type_of(&self, id: u32) -> Result<Option<Type>, BtfError> {
        let (mut at, mut number) = (0, 1);
        while at < self.types.len() {
            let header = Type::read(self.types, at)?;
            if number == id {
                return Ok(Some(header));
            }
            at = header.end;
            number += 1;
        }
        Ok(None)
    }

    fn is_name(&self, offset: u32, name: &str) -> bool {
        self.strings
            .get(offset as usize..)
            .and_then(|rest| rest.strip_prefix(name.as_bytes()))
            .is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// The head of one type.
#[derive(Clone, Copy, Debug)]
struct Type {
    name: u32,
    kind: u32,
    /// How many entries follow.
    count: u32,
    /// Whether the offsets of members share their word with the width of a bit field.
    has_bit_fields: bool,
    /// Where the entries begin.
    body: usize,
    /// Where the next type begins.
    end: usize,
}

impl Type {
    fn read(types: &[u8], at: usize) -> Result<Self, BtfError> {
        let truncated = BtfError::Truncated { at };
        let head = at
            .checked_add(TYPE_LEN)
            .and_then(|end| types.get(at..end))
            .ok_or(truncated)?;
        let name = word(head, 0).ok_or(truncated)?;
        let info = word(head, 4).ok_or(truncated)?;
        let (kind, count) = (info >> 24 & 0x1f, info & 0xffff);
        let entries = count as usize;
        let length = match kind {
            KIND_STRUCT | KIND_UNION => entries * MEMBER_LEN,
            // Integer, variable, declaration tag: one word each.
            1 | 14 | 17 => 4,
            // Array; section of variables and 64-bit enumeration have as much for each entry.
            3 => 12,
            15 | 19 => entries * 12,
            // Enumeration, prototype of a function.
            6 | 13 => entries * 8,
            // Pointer, forward declaration, type definition, volatile, const, restrict, function, floating
            // point, type tag: no more than the head.
            2 | 7..=11 | KIND_FUNC | 16 | 18 => 0,
            kind => return Err(BtfError::UnknownKind { kind }),
        };
        let body = at + TYPE_LEN;
        let end = body + length;
        if end > types.len() {
            return Err(truncated);
        }
        Ok(Self {
            name,
            kind,
            count,
            has_bit_fields: info >> 31 != 0,
            body,
            end,
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

const MAGIC: u16 = 0xeb9f;

// Offsets in the header.
const HEADER_LEN_AT: usize = 4;
const TYPES_AT: usize = 8;
const STRINGS_AT: usize = 16;

// Kinds of types.
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_FUNC: u32 = 12;

/// The length of the head of a type.
const TYPE_LEN: usize = 12;
/// The length of a member of a structure.
const MEMBER_LEN: usize = 12;
/// How many anonymous members are looked into, which also bounds how deep they lie in each other.
const ANONYMOUS_MAX: u32 = 256;

#[cfg(test)]
mod tests;
