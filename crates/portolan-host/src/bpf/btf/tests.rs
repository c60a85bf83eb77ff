use proptest::prelude::*;

use super::*;

const INO: Member = Member {
    structure: "inode",
    name: "i_ino",
};
const SB: Member = Member {
    structure: "inode",
    name: "i_sb",
};

/// Puts a type description together.
struct Builder {
    types: Vec<u32>,
    strings: Vec<u8>,
}

impl Builder {
    fn new() -> Self {
        Self {
            types: Vec::new(),
            strings: vec![0],
        }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend_from_slice(name.as_bytes());
        self.strings.push(0);
        at
    }

    fn plain(&mut self, kind: u32, name: &str, count: u32, rest: &[u32]) -> &mut Self {
        let name = self.name(name);
        self.types.extend([name, kind << 24 | count, 8]);
        self.types.extend(rest);
        self
    }

    /// Members are a name, a type and an offset in bits.
    fn structure(&mut self, name: &str, flag: bool, members: &[(&str, u32, u32)]) -> &mut Self {
        let name = self.name(name);
        let count = u32::try_from(members.len()).unwrap();
        self.types
            .extend([name, u32::from(flag) << 31 | KIND_STRUCT << 24 | count, 8]);
        for (member, id, bits) in members {
            let member = self.name(member);
            self.types.extend([member, *id, *bits]);
        }
        self
    }

    fn build(&self) -> Vec<u8> {
        let types_len = u32::try_from(self.types.len() * 4).unwrap();
        let strings_len = u32::try_from(self.strings.len()).unwrap();
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        for word in [24, 0, types_len, types_len, strings_len]
            .iter()
            .chain(&self.types)
        {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(&self.strings);
        bytes
    }
}

fn sample() -> Vec<u8> {
    Builder::new()
        .plain(1, "int", 0, &[0x20]) // 1
        .plain(3, "", 0, &[1, 1, 4]) // 2
        .plain(6, "e", 2, &[0, 0, 0, 1]) // 3
        .plain(13, "", 1, &[0, 1]) // 4
        .plain(19, "big", 1, &[0, 0, 0]) // 5
        .structure("other", false, &[("i_ino", 1, 8)]) // 6
        .structure("", false, &[("x", 1, 0), ("i_sb", 1, 64)]) // 7
        .structure("inode", true, &[("bits", 1, 3 << 24), ("", 7, 64), ("i_ino", 1, 512)]) // 8
        .plain(12, "almost", 0, &[]) // 9
        .plain(12, "wanted", 0, &[]) // 10
        .build()
}

#[test]
fn members_and_functions_are_found() {
    let bytes = sample();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.resolve("wanted", [INO, SB]), Ok((10, [64, 16])));
    assert_eq!(btf.resolve("almost", []), Ok((9, [])));
}

#[test]
fn what_is_missing_is_named() {
    let bytes = sample();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(
        btf.resolve("want", [INO]),
        Err(BtfError::NoFunction { name: "want" })
    );
    let bits = Member {
        structure: "inode",
        name: "bits",
    };
    assert_eq!(btf.resolve("wanted", [INO, bits]), Err(BtfError::NoMember(bits)));
    assert_eq!(
        BtfError::NoMember(bits).to_string(),
        "the kernel has no member inode.bits"
    );
}

#[test]
fn an_unknown_kind_is_refused() {
    let bytes = Builder::new().plain(25, "new", 0, &[]).build();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.resolve("f", []), Err(BtfError::UnknownKind { kind: 25 }));
}

#[test]
fn every_cut_is_noticed() {
    let bytes = sample();
    for length in 0..bytes.len() {
        // The strings stand last, so a cut anywhere cuts a section off.
        assert!(Btf::parse(&bytes[..length]).is_err(), "{length}");
    }
    let swapped: Vec<u8> = bytes.iter().rev().copied().collect();
    assert_eq!(Btf::parse(&swapped).unwrap_err(), BtfError::Magic);
}

#[test]
fn a_structure_inside_itself_ends() {
    let bytes = Builder::new()
        .structure("inode", false, &[("", 1, 0), ("", 1, 0), ("i_sb", 1, 64)])
        .build();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.resolve("f", [INO]), Err(BtfError::NoMember(INO)));
}

#[test]
fn this_kernel_describes_what_is_needed() {
    let path = "/sys/kernel/btf/vmlinux";
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("skipped: cannot read {path}: {error}");
            return;
        }
    };
    let btf = Btf::parse(&bytes).unwrap();
    let (function, [ino, sb]) = btf.resolve("bpf_iter_task_file", [INO, SB]).unwrap();
    assert!(function > 0);
    assert!(ino != sb && ino % 4 == 0 && sb % 4 == 0, "{ino} {sb}");
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(btf) = Btf::parse(&bytes) {
            let _ = btf.resolve("f", [INO]);
        }
    }

    #[test]
    fn any_damage_is_survived(at in 0usize..400, value: u8, second in 0usize..400, other: u8) {
        let mut bytes = sample();
        for (at, value) in [(at, value), (second, other)] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            let _ = btf.resolve("wanted", [INO, SB]);
        }
    }
}
