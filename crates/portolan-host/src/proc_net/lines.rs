use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Hands each line of a file but the first, a heading, to `take`, without its end.
///
/// A line longer than [`LONGEST`] is cut there. `Ok(false)` means that there is no such file.
pub(super) fn each_line(path: &Path, take: impl FnMut(&[u8])) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    split(BufReader::with_capacity(64 << 10, file), take)?;
    Ok(true)
}

fn split(mut text: impl BufRead, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut line = Vec::new();
    let mut heading = true;
    loop {
        line.clear();
        if (&mut text).take(LONGEST).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        match line.pop_if(|last| *last == b'\n') {
            Some(_) => {}
            None => {
                text.skip_until(b'\n')?;
            }
        }
        if !std::mem::take(&mut heading) {
            take(&line);
        }
    }
}

/// The words of a line.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

/// A decimal number.
pub(super) fn decimal<N: std::str::FromStr>(word: &[u8]) -> Option<N> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// A hexadecimal number of at most 32 bits, without a sign.
pub(super) fn hexadecimal(word: &[u8]) -> Option<u32> {
    if word.is_empty() || word.len() > 8 {
        return None;
    }
    word.iter().try_fold(0_u32, |number, digit| {
        Some(number << 4 | char::from(*digit).to_digit(16)?)
    })
}

/// Longer than any line that Linux writes: an SCTP association with hundreds of addresses.
const LONGEST: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        split(text, |line| lines.push(line.to_vec())).unwrap();
        lines
    }

    #[test]
    fn the_heading_is_left_out_and_the_last_line_may_lack_its_end() {
        assert_eq!(lines(b"head\none\n\ntwo"), [&b"one"[..], b"", b"two"]);
        assert!(lines(b"").is_empty());
        assert!(lines(b"head").is_empty());
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut text = b"head\n".to_vec();
        text.resize(text.len() + 3 * LONGEST as usize, b'x');
        text.extend(b"\nnext\n");
        let lines = lines(&text);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].len(), LONGEST as usize);
        assert_eq!(lines[1], b"next");
    }

    #[test]
    fn numbers_have_no_signs() {
        assert_eq!(hexadecimal(b"0A"), Some(10));
        assert_eq!(hexadecimal(b"FFFFFFFF"), Some(u32::MAX));
        for bad in [&b""[..], b"+1", b"-1", b"g", b"123456789"] {
            assert_eq!(hexadecimal(bad), None);
        }
        assert_eq!(decimal::<u32>(b"4294967296"), None);
        assert_eq!(decimal::<u32>(b"\xff"), None);
    }
}
