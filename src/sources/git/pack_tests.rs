#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
//! Packs made by hand: those of a server that means ill.

use gix::objs::compute_hash;

use super::*;

/// Largest object of a pack that is made here.
const MOST: u64 = 100_000;

/// Makes a pack entry by entry.
struct Maker {
    entries: Vec<u8>,
    count: u32,
}

/// A number of seven bits a byte, the lowest first.
fn seven_bits(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    bytes.push(u8::try_from(value).unwrap());
    bytes
}

/// Bytes as a zlib stream that does not compress (RFC 1950, RFC 1951 3.2.4).
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let blocks: Vec<&[u8]> = if bytes.is_empty() { vec![&[]] } else { bytes.chunks(0xffff).collect() };
    for (at, block) in blocks.iter().enumerate() {
        let length = u16::try_from(block.len()).unwrap();
        stream.push(u8::from(at + 1 == blocks.len()));
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(*block);
    }
    let (mut low, mut high) = (1_u32, 0_u32);
    for byte in bytes {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    stream.extend((high << 16 | low).to_be_bytes());
    stream
}

impl Maker {
    fn new() -> Self {
        Self { entries: Vec::new(), count: 0 }
    }

    /// Adds an entry and gives the offset that it begins at.
    fn entry(&mut self, kind: u8, size: u64, between: &[u8], content: &[u8]) -> u64 {
        let offset = 12 + u64::try_from(self.entries.len()).unwrap();
        let (low, rest) = (u8::try_from(size & 0xf).unwrap(), size >> 4);
        let more = if rest == 0 { 0 } else { 0x80 };
        self.entries.push(kind << 4 | low | more);
        if rest != 0 {
            self.entries.extend(seven_bits(rest));
        }
        self.entries.extend(between);
        self.entries.extend(stored(content));
        self.count += 1;
        offset
    }

    fn blob(&mut self, content: &[u8]) -> u64 {
        self.entry(3, u64::try_from(content.len()).unwrap(), &[], content)
    }

    /// Adds a delta to an entry before it that repeats `base` bytes of it `times` times.
    fn delta(&mut self, base_at: u64, base: u64, times: u64) -> u64 {
        let mut delta = seven_bits(base);
        delta.extend(seven_bits(base * times));
        for _ in 0..times {
            // Copies from offset 0, with a size of two bytes.
            delta.push(0x80 | 0x10 | 0x20);
            delta.extend(u16::try_from(base).unwrap().to_le_bytes());
        }
        let distance = 12 + u64::try_from(self.entries.len()).unwrap() - base_at;
        // The first group of seven bits is the highest, and all but the last count from one (git's pack format).
        let mut bytes = vec![u8::try_from(distance & 0x7f).unwrap()];
        let mut rest = distance >> 7;
        while rest > 0 {
            rest -= 1;
            bytes.insert(0, u8::try_from(rest & 0x7f).unwrap() | 0x80);
            rest >>= 7;
        }
        self.entry(6, u64::try_from(delta.len()).unwrap(), &bytes, &delta)
    }

    fn open(&self, declared: u32, limit: u64) -> Result<Pack, PackError> {
        let mut bytes = b"PACK\0\0\0\x02".to_vec();
        bytes.extend(declared.to_be_bytes());
        bytes.extend(&self.entries);
        let mut hasher = gix::hash::hasher(HashKind::Sha1);
        hasher.update(&bytes);
        bytes.extend(hasher.try_finalize().unwrap().as_slice());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("made.pack");
        std::fs::write(&file, bytes).unwrap();
        Pack::open(&file, Bounds { all: limit, each: MOST }, &AtomicBool::new(false))
    }
}

fn id(content: &[u8]) -> ObjectId {
    compute_hash(HashKind::Sha1, Kind::Blob, content).unwrap()
}

#[test]
fn objects_and_deltas_are_read_within_their_limit() {
    let mut maker = Maker::new();
    let base = maker.blob(&[b'a'; 1000]);
    maker.delta(base, 1000, 3);
    let pack = maker.open(maker.count, 1 << 20).unwrap();
    let made = [b'a'; 3000];
    assert_eq!(pack.object(&id(&made), 3000).unwrap(), (Kind::Blob, made.to_vec()));
    assert!(matches!(
        pack.object(&id(&made), 2999),
        Err(PackError::ObjectTooLarge { size: 3000, limit: 2999 })
    ));
    assert!(!pack.has(&id(b"other")));
    assert!(matches!(pack.object(&id(b"other"), 1), Err(PackError::Missing(_))));
}

#[test]
fn a_delta_that_makes_more_than_may_be_is_refused_before_it_is_made() {
    let mut maker = Maker::new();
    let base = maker.blob(&[0; 50_000]);
    maker.delta(base, 50_000, 2);
    assert!(matches!(maker.open(maker.count, 100_000), Err(PackError::TooLarge(_))));
    assert!(maker.open(maker.count, 1 << 20).is_ok());
}

#[test]
fn one_object_or_one_result_of_a_delta_may_not_be_as_large_as_all_together() {
    let mut maker = Maker::new();
    let base = maker.blob(&[0; 50_000]);
    maker.delta(base, 50_000, 3);
    assert!(matches!(maker.open(maker.count, 1 << 20), Err(PackError::EntryTooLarge(MOST))));
    let mut maker = Maker::new();
    maker.blob(&[0; 100_001]);
    assert!(matches!(maker.open(maker.count, 1 << 20), Err(PackError::EntryTooLarge(MOST))));
}

#[test]
fn many_deltas_count_together() {
    let mut maker = Maker::new();
    let base = maker.blob(&[0; 1000]);
    for times in 2..60 {
        maker.delta(base, 1000, times);
    }
    assert!(matches!(maker.open(maker.count, 1 << 20), Err(PackError::TooLarge(_))));
    assert!(maker.open(maker.count, 4 << 20).is_ok());
}

#[test]
fn a_pack_that_declares_more_objects_than_it_may_or_does_hold_is_refused() {
    let mut maker = Maker::new();
    maker.blob(b"a");
    assert!(matches!(maker.open(u32::MAX, 1 << 20), Err(PackError::TooLarge(_))));
    assert!(matches!(maker.open(2, 1 << 20), Err(PackError::Damaged)));
}

#[test]
fn a_pack_that_is_cut_or_altered_is_refused() {
    let mut maker = Maker::new();
    let base = maker.blob(&[0; 1000]);
    maker.delta(base, 999, 2);
    assert!(matches!(maker.open(maker.count, 1 << 20), Err(PackError::Damaged)), "a delta to another base");
    let folder = tempfile::tempdir().unwrap();
    for bytes in [&b""[..], b"PACK", b"PACK\0\0\0\x02\0\0\0\x01", &[0; 64]] {
        let file = folder.path().join("made.pack");
        std::fs::write(&file, bytes).unwrap();
        let bounds = Bounds { all: 1 << 20, each: MOST };
        assert!(matches!(Pack::open(&file, bounds, &AtomicBool::new(false)), Err(PackError::Damaged)));
    }
}

#[test]
fn reading_stops_when_the_fetch_does() {
    let mut bytes = Interruptible { file: tempfile::tempfile().unwrap(), stop: &AtomicBool::new(true) };
    assert!(bytes.read(&mut [0; 1]).is_err());
}
