//! An assembler for the part of the BPF instruction set (RFC 9669) that is in use here.

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reg {
    /// The value returned by a call, and by the program.
    R0 = 0,
    /// The first argument; at the beginning, the program's context.
    R1 = 1,
    /// The second argument.
    R2 = 2,
    /// The third argument.
    R3 = 3,
    /// Kept across calls.
    R6 = 6,
    /// Kept across calls.
    R7 = 7,
    /// Kept across calls.
    R8 = 8,
    /// Kept across calls.
    R9 = 9,
    /// The end of the stack frame, 512 bytes that grow downwards; it cannot be written.
    Frame = 10,
}

/// How much of memory an instruction moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// 4 bytes; a load clears the upper half of the register.
    Word = 0x00,
    /// 8 bytes.
    Double = 0x18,
}

/// A place in the program that can be jumped to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// A program in the making.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    code: Vec<Instruction>,
    /// For each label, the index of the instruction it stands before.
    labels: Vec<Option<usize>>,
    /// The jumps, each with where it leads.
    jumps: Vec<(usize, Label)>,
}

/// Why a program cannot be assembled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AsmError {
    /// A jump leads to a label that stands nowhere.
    #[error("the jump at instruction {at} leads nowhere")]
    Unbound { at: usize },
    /// A jump leads further than its 16 bits allow.
    #[error("the jump at instruction {at} leads too far")]
    TooFar { at: usize },
}

impl Assembler {
    /// A label that stands nowhere yet.
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Puts a label before the next instruction.
    pub(crate) fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    /// `to = from`
    pub(crate) fn mov(&mut self, to: Reg, from: Reg) {
        self.push(ALU64 | MOV | FROM_REGISTER, to, from, 0, 0);
    }

    /// `to = value`
    pub(crate) fn mov_value(&mut self, to: Reg, value: i32) {
        self.push(ALU64 | MOV, to, Reg::R0, 0, value);
    }

    /// `to += value`
    pub(crate) fn add_value(&mut self, to: Reg, value: i32) {
        self.push(ALU64 | ADD, to, Reg::R0, 0, value);
    }

    /// `to = *(base + offset)`
    pub(crate) fn load(&mut self, size: Size, to: Reg, base: Reg, offset: i16) {
        self.push(LDX | MEM | size as u8, to, base, offset, 0);
    }

    /// `*(base + offset) = from`
    pub(crate) fn store(&mut self, size: Size, base: Reg, offset: i16, from: Reg) {
        self.push(STX | MEM | size as u8, base, from, offset, 0);
    }

    /// `goto to`
    pub(crate) fn jump(&mut self, to: Label) {
        self.jump_if(JMP | JA, Reg::R0, 0, to);
    }

    /// `if left == value goto to`, 64 bits, the value sign-extended
    pub(crate) fn jump_if_equal(&mut self, left: Reg, value: i32, to: Label) {
        self.jump_if(JMP | JEQ, left, value, to);
    }

    /// `if left != value goto to`, 64 bits, the value sign-extended
    pub(crate) fn jump_if_different(&mut self, left: Reg, value: i32, to: Label) {
        self.jump_if(JMP | JNE, left, value, to);
    }

    /// `if (u32)left == value goto to`
    pub(crate) fn jump_if_word_equal(&mut self, left: Reg, value: u32, to: Label) {
        self.jump_if(JMP32 | JEQ, left, value.cast_signed(), to);
    }

    /// `if (u32)left >= value goto to`
    pub(crate) fn jump_if_word_at_least(&mut self, left: Reg, value: u32, to: Label) {
        self.jump_if(JMP32 | JGE, left, value.cast_signed(), to);
    }

    /// Calls one of the kernel's helpers; it uses up `R1` to `R5`.
    pub(crate) fn call(&mut self, helper: i32) {
        self.push(JMP | CALL, Reg::R0, Reg::R0, 0, helper);
    }

    /// Ends the program.
    pub(crate) fn exit(&mut self) {
        self.push(JMP | EXIT, Reg::R0, Reg::R0, 0, 0);
    }

    /// The finished program.
    pub(crate) fn finish(mut self) -> Result<Vec<Instruction>, AsmError> {
        for (at, label) in self.jumps {
            let target = self.labels[label.0].ok_or(AsmError::Unbound { at })?;
            // Counted from the instruction after the jump.
            let distance = i64::try_from(target)
                .ok()
                .zip(i64::try_from(at).ok())
                .and_then(|(target, at)| i16::try_from(target - at - 1).ok());
            self.code[at].offset = distance.ok_or(AsmError::TooFar { at })?;
        }
        Ok(self.code)
    }

    fn jump_if(&mut self, opcode: u8, left: Reg, value: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(opcode, left, Reg::R0, 0, value);
    }

    fn push(&mut self, opcode: u8, destination: Reg, source: Reg, offset: i16, value: i32) {
        // Two fields of four bits, in the order of the machine (RFC 9669, section 3.1).
        let registers = if cfg!(target_endian = "big") {
            (destination as u8) << 4 | source as u8
        } else {
            (source as u8) << 4 | destination as u8
        };
        self.code.push(Instruction {
            opcode,
            registers,
            offset,
            value,
        });
    }
}

/// An instruction, as the kernel takes it (RFC 9669, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    opcode: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

// Classes (RFC 9669, section 3.3).
const LDX: u8 = 0x01;
const STX: u8 = 0x03;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const ALU64: u8 = 0x07;

// The second operand is a register (section 3.3.1).
const FROM_REGISTER: u8 = 0x08;

// Arithmetic (section 4.1).
const ADD: u8 = 0x00;
const MOV: u8 = 0xb0;

// Jumps (section 4.3).
const JA: u8 = 0x00;
const JEQ: u8 = 0x10;
const JGE: u8 = 0x30;
const JNE: u8 = 0x50;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;

// An ordinary load or store (section 5.1).
const MEM: u8 = 0x60;

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a program, for a little-endian machine.
    fn bytes(code: &[Instruction]) -> Vec<[u8; 8]> {
        code.iter()
            .map(|instruction| {
                let [o0, o1] = instruction.offset.to_le_bytes();
                let [v0, v1, v2, v3] = instruction.value.to_le_bytes();
                [instruction.opcode, instruction.registers, o0, o1, v0, v1, v2, v3]
            })
            .collect()
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn instructions_are_encoded_as_the_standard_says() {
        let mut asm = Assembler::default();
        let end = asm.label();
        asm.mov(Reg::R6, Reg::R1);
        asm.mov_value(Reg::R3, -2);
        asm.add_value(Reg::R2, -16);
        asm.load(Size::Double, Reg::R7, Reg::R6, 24);
        asm.load(Size::Word, Reg::R3, Reg::R8, 0x1234);
        asm.store(Size::Word, Reg::Frame, -8, Reg::R3);
        asm.store(Size::Double, Reg::Frame, -16, Reg::R9);
        asm.jump_if_equal(Reg::R7, 0, end);
        asm.jump_if_different(Reg::R3, 0x534f_434b, end);
        asm.jump_if_word_equal(Reg::R9, 0xffff_fffe, end);
        asm.jump_if_word_at_least(Reg::R9, 7, end);
        asm.jump(end);
        asm.call(127);
        asm.bind(end);
        asm.exit();
        let expected = [
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0xb7, 0x03, 0, 0, 0xfe, 0xff, 0xff, 0xff],
            [0x07, 0x02, 0, 0, 0xf0, 0xff, 0xff, 0xff],
            [0x79, 0x67, 24, 0, 0, 0, 0, 0],
            [0x61, 0x83, 0x34, 0x12, 0, 0, 0, 0],
            [0x63, 0x3a, 0xf8, 0xff, 0, 0, 0, 0],
            [0x7b, 0x9a, 0xf0, 0xff, 0, 0, 0, 0],
            [0x15, 0x07, 5, 0, 0, 0, 0, 0],
            [0x55, 0x03, 4, 0, 0x4b, 0x43, 0x4f, 0x53],
            [0x16, 0x09, 3, 0, 0xfe, 0xff, 0xff, 0xff],
            [0x36, 0x09, 2, 0, 7, 0, 0, 0],
            [0x05, 0x00, 1, 0, 0, 0, 0, 0],
            [0x85, 0x00, 0, 0, 127, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes(&asm.finish().unwrap()), expected);
    }

    #[test]
    fn jumps_lead_backwards_too() {
        let mut asm = Assembler::default();
        let start = asm.label();
        asm.bind(start);
        asm.exit();
        asm.jump(start);
        assert_eq!(asm.finish().unwrap()[1].offset, -2);
    }

    #[test]
    fn a_jump_needs_a_target_within_reach() {
        let mut asm = Assembler::default();
        let nowhere = asm.label();
        asm.exit();
        asm.jump(nowhere);
        assert_eq!(asm.finish(), Err(AsmError::Unbound { at: 1 }));

        for (between, expected) in [(32_767, Ok(())), (32_768, Err(AsmError::TooFar { at: 0 }))] {
            let mut asm = Assembler::default();
            let far = asm.label();
            asm.jump(far);
            for _ in 0..between {
                asm.exit();
            }
            asm.bind(far);
            assert_eq!(asm.finish().map(drop), expected);
        }
    }
}
