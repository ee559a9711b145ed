//! Finding the bytes that matter, 64 at a time.
//!
//! A comparison of a whole block gives one bit for each byte that matters, so that the cost hardly
//! depends on how many lines a text has. Which quotes and letters are escaped is worked out for all
//! 64 bytes at once from the backslashes, the way the simdjson paper describes it: the borrow of one
//! subtraction runs through each row of backslashes.

use wide::u8x32;

const BLOCK: usize = 64;
/// Bits at odd places.
const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;

/// 64 bytes of text.
struct Block {
    low: u8x32,
    high: u8x32,
}

impl Block {
    /// The block at `at`; behind the end of the text stand spaces, which never matter. `None` when
    /// nothing is left.
    #[inline]
    fn at(text: &[u8], at: usize) -> Option<Self> {
        let rest = text.get(at..)?;
        if let Some(bytes) = rest.first_chunk::<BLOCK>() {
            return Some(Self::of(bytes));
        }
        if rest.is_empty() {
            return None;
        }
        let mut bytes = [b' '; BLOCK];
        bytes[..rest.len()].copy_from_slice(rest);
        Some(Self::of(&bytes))
    }

    #[inline]
    fn of(bytes: &[u8; BLOCK]) -> Self {
        let mut halves = [[0; 32]; 2];
        halves[0].copy_from_slice(&bytes[..32]);
        halves[1].copy_from_slice(&bytes[32..]);
        Self { low: u8x32::new(halves[0]), high: u8x32::new(halves[1]) }
    }

    #[inline]
    fn bits(&self, flags: impl Fn(u8x32) -> u8x32) -> u64 {
        u64::from(flags(self.low).to_bitmask()) | u64::from(flags(self.high).to_bitmask()) << 32
    }

    #[inline]
    fn equal(&self, byte: u8) -> u64 {
        self.bits(|half| half.simd_eq(u8x32::splat(byte)))
    }

    /// Bytes equal to `byte` once the bit that tells `[` from `{` and `]` from `}` is set.
    #[inline]
    fn bracket(&self, byte: u8) -> u64 {
        self.bits(|half| (half | u8x32::splat(0x20)).simd_eq(u8x32::splat(byte)))
    }

    /// Controls, DEL and everything that is not ASCII.
    #[inline]
    fn not_printable(&self) -> u64 {
        self.bits(|half| half.simd_lt(u8x32::splat(b' ')) | half.simd_gt(u8x32::splat(b'~')))
    }
}

/// Which bytes are escaped by a backslash before them, carried from block to block.
#[derive(Default)]
struct Escapes {
    /// 1 when the first byte of the next block is escaped.
    carry: u64,
}

impl Escapes {
    #[inline]
    fn next(&mut self, backslashes: u64) -> u64 {
        let starts = backslashes & !self.carry;
        let ends = ((starts << 1 | ODD).wrapping_sub(starts)) ^ ODD;
        let escaped = ends ^ (backslashes | self.carry);
        self.carry = (ends & backslashes) >> 63;
        escaped
    }
}

/// Where a string ends, and whether anything in it is escaped.
pub(crate) struct StringEnd {
    /// Offset of the closing quote.
    pub at: usize,
    /// Whether a backslash occurs.
    pub escaped: bool,
}

/// Finds the end of the string whose first character stands at `from`. `None` when there is none.
#[inline]
pub(crate) fn string_end(text: &[u8], from: usize) -> Option<StringEnd> {
    let mut escapes = Escapes::default();
    let mut any_backslash = 0;
    let mut start = from;
    loop {
        let block = Block::at(text, start)?;
        let backslashes = block.equal(b'\\');
        let quotes = block.equal(b'"') & !escapes.next(backslashes);
        if quotes != 0 {
            let within = quotes.trailing_zeros();
            let before = backslashes & ((1 << within) - 1);
            return Some(StringEnd { at: start + within as usize, escaped: any_backslash | before != 0 });
        }
        any_backslash |= backslashes;
        start += BLOCK;
    }
}

/// Finds the offset behind the container that opens at `from`. `None` when it does not end.
pub(crate) fn container_end(text: &[u8], from: usize) -> Option<usize> {
    let mut escapes = Escapes::default();
    // All ones while a string is open at the end of the block before.
    let mut in_string = 0u64;
    let mut depth = 0u32;
    let mut start = from;
    loop {
        let block = Block::at(text, start)?;
        let escaped = escapes.next(block.equal(b'\\'));
        let quotes = block.equal(b'"') & !escaped;
        if quotes == 0 && in_string != 0 {
            // Inside a long string, where nearly all of a large object lies.
            start += BLOCK;
            continue;
        }
        let inside = prefix_xor(quotes) ^ in_string;
        in_string = 0u64.wrapping_sub(inside >> 63);
        let opening = block.bracket(b'{') & !inside;
        let mut closing = block.bracket(b'}') & !inside;
        if closing.count_ones() < depth {
            depth = depth - closing.count_ones() + opening.count_ones();
        } else {
            // The end may lie in this block: look at each closing bracket.
            let mut closed = 0;
            while closing != 0 {
                let within = closing.trailing_zeros();
                let opened = (opening & ((1 << within) - 1)).count_ones();
                closed += 1;
                if depth + opened == closed {
                    return Some(start + within as usize + 1);
                }
                closing &= closing - 1;
            }
            depth = depth + opening.count_ones() - closed;
        }
        start += BLOCK;
    }
}

/// Each bit becomes the parity of itself and all bits below it: set from an opening quote up to the
/// closing one.
#[inline]
fn prefix_xor(mut bits: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        bits ^= bits << shift;
    }
    bits
}

/// What to do after a mark.
pub(crate) enum Mark {
    /// Go on behind it.
    Next,
    /// Go on at this offset, which lies behind it.
    Skip(usize),
    /// Stop, with this offset as the result.
    Stop(usize),
}

/// Calls `at_mark` for each byte from `from` on that does not stand for itself in the canonical form
/// of a string: quotes, controls, DEL and what is not ASCII, and escaped letters other than `n`
/// (flagged by `true`; the backslash stands before them). `None` when the text ends first.
#[inline]
pub(crate) fn marks(text: &[u8], from: usize, mut at_mark: impl FnMut(usize, bool) -> Mark) -> Option<usize> {
    let mut escapes = Escapes::default();
    // Bytes before this offset have been dealt with.
    let mut resume = from;
    let mut start = from;
    loop {
        let block = Block::at(text, start)?;
        let escaped = escapes.next(block.equal(b'\\'));
        let others = block.equal(b'"') & !escaped | escaped & !block.equal(b'n');
        let mut bits = others | block.not_printable();
        while bits != 0 {
            let within = bits.trailing_zeros();
            let mark = start + within as usize;
            bits &= bits - 1;
            // Spaces behind the end of the text can be escaped by its last byte.
            if mark < resume || mark >= text.len() {
                continue;
            }
            match at_mark(mark, escaped >> within & 1 == 1) {
                Mark::Next => {}
                Mark::Skip(to) => resume = to,
                Mark::Stop(at) => return Some(at),
            }
        }
        start += BLOCK;
        // A long stretch dealt with at once leaves whole blocks behind.
        if resume > start + BLOCK {
            start = resume;
            escapes = Escapes::default();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
    use super::*;
    use proptest::prelude::*;

    /// The same, byte by byte.
    fn slow_string_end(text: &[u8]) -> Option<(usize, bool)> {
        let (mut at, mut escaped) = (0, false);
        loop {
            match text.get(at)? {
                b'"' => return Some((at, escaped)),
                b'\\' => {
                    escaped = true;
                    at += 2;
                }
                _ => at += 1,
            }
        }
    }

    fn slow_container_end(text: &[u8]) -> Option<usize> {
        let (mut depth, mut open, mut escaped) = (0usize, false, false);
        for (at, byte) in text.iter().enumerate() {
            match byte {
                b'"' if !escaped => open = !open,
                b'{' | b'[' if !open => depth += 1,
                b'}' | b']' if !open => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
            escaped = !escaped && *byte == b'\\';
        }
        None
    }

    fn slow_marks(text: &[u8]) -> Vec<(usize, bool)> {
        let (mut at, mut found, mut escaped) = (0, Vec::new(), false);
        while at < text.len() {
            let byte = text[at];
            let special = if escaped { byte != b'n' } else { byte == b'"' || !(b' '..=b'~').contains(&byte) };
            if special {
                found.push((at, escaped));
            }
            escaped = !escaped && byte == b'\\';
            at += 1;
        }
        found
    }

    fn dense() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop::sample::select(b"\\\\\\\"n{}[]u a\x01\x7f\xc3".to_vec());
        prop_oneof![
            prop::collection::vec(byte.clone(), 0..300),
            prop::collection::vec(prop_oneof![1 => byte, 30 => Just(b'x')], 0..600),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn blocks_find_what_a_look_at_each_byte_finds(text in dense()) {
            let end = string_end(&text, 0).map(|end| (end.at, end.escaped));
            prop_assert_eq!(end, slow_string_end(&text));
            let mut found = Vec::new();
            marks(&text, 0, |at, escaped| { found.push((at, escaped)); Mark::Next });
            prop_assert_eq!(found, slow_marks(&text));
        }

        #[test]
        fn containers_end_where_a_look_at_each_byte_says(text in dense()) {
            let text = [b"{".as_slice(), &text].concat();
            prop_assert_eq!(container_end(&text, 0), slow_container_end(&text));
        }
    }

    #[test]
    fn every_byte_is_judged_alike_in_every_position() {
        for byte in 0..=255u8 {
            for position in 0..140 {
                let mut text = [b'a'; 140];
                text[position] = byte;
                let mut found = None;
                marks(&text, 0, |at, _| {
                    found = Some(at);
                    Mark::Stop(at)
                });
                let special = byte == b'"' || !(b' '..=b'~').contains(&byte);
                if byte != b'\\' {
                    assert_eq!(found, special.then_some(position), "{byte:#x} at {position}");
                }
            }
        }
    }

    #[test]
    fn a_skip_passes_marks_over_and_a_long_one_whole_blocks() {
        for skip in [1, 10, 63, 64, 65, 200, 400] {
            let mut text = vec![b'"'; 500];
            text[0] = 0x80;
            let end = marks(&text, 0, |at, _| if at == 0 { Mark::Skip(skip) } else { Mark::Stop(at) });
            assert_eq!(end, Some(skip));
        }
    }
}
