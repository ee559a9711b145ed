//! A pack as a server sends it: checked, indexed, and read without a repository or a checkout.
//!
//! A pack is made by a server that nobody has to trust, and can be made to unpack to any size. Before
//! anything is resolved, the sizes that it declares are added up and bounded; the decompressor holds it to them.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gix::hash::{Kind as HashKind, ObjectId, oid};
use gix::objs::Kind;
use gix::odb::pack::cache::Never;
use gix::odb::pack::data::decode::{entry, header};
use gix::odb::pack::data::entry::Header;
use gix::odb::pack::data::input::{BytesToEntriesIter, Entry, EntryDataMode, Mode};
use gix::odb::pack::{data, index};
use gix::utils::progress::Discard;
use gix::zlib::Inflate;

/// What the index costs for each object, in bytes.
const COST: u64 = 128;
/// Bytes of a delta that hold both of its sizes (two numbers of seven bits a byte).
const DELTA_SIZES: usize = 20;

/// Why a pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum PackError {
    /// It unpacks to more than it may.
    #[error("unpacks to more than {} MiB", .0 >> 20)]
    TooLarge(u64),
    /// An object that was asked for is larger than it may be; in bytes.
    #[error("has {size} bytes, where {limit} are allowed")]
    ObjectTooLarge { size: u64, limit: u64 },
    /// One of its objects is larger than any may be.
    #[error("has an object of more than {} MiB", .0 >> 20)]
    EntryTooLarge(u64),
    /// It does not have an object that it should have.
    #[error("lacks {0}")]
    Missing(ObjectId),
    /// It is damaged, or reading it was interrupted.
    #[error("cannot be read")]
    Damaged,
}

impl From<gix::Error> for PackError {
    fn from(_: gix::Error) -> Self {
        Self::Damaged
    }
}

impl From<io::Error> for PackError {
    fn from(_: io::Error) -> Self {
        Self::Damaged
    }
}

/// What a pack may hold, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// All its objects, and what its deltas make of them.
    pub(super) all: u64,
    /// One of them.
    pub(super) each: u64,
}

/// A pack with its index.
pub(super) struct Pack {
    data: data::File,
    index: index::File<Vec<u8>>,
}

impl Pack {
    /// Opens the pack in a file.
    pub(super) fn open(file: &Path, bounds: Bounds, stop: &AtomicBool) -> Result<Self, PackError> {
        let limit = bounds.all;
        let alloc_limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let data = data::File::at(file, HashKind::Sha1)?.with_alloc_limit_bytes(Some(alloc_limit));
        let reader = BufReader::with_capacity(1 << 16, Interruptible { file: File::open(file)?, stop });
        let entries = BytesToEntriesIter::new_from_header(
            reader,
            Mode::Verify,
            EntryDataMode::KeepAndCrc32,
            HashKind::Sha1,
        )?;
        let version = entries.version();
        let mut left = limit;
        spend(&mut left, u64::from(data.num_objects()).saturating_mul(COST), limit)?;
        let mut refusal = None;
        let mut bounded = Bounded { entries, left, bounds, refusal: &mut refusal };
        let mut index = Vec::new();
        // One thread: the objects that are resolved at once are what memory holds.
        let written = index::write_data_iter_to_stream(
            index::Version::default(),
            || Ok((slice, &data)),
            &mut bounded,
            Some(1),
            &mut Discard,
            &mut index,
            stop,
            HashKind::Sha1,
            Some(alloc_limit),
            version,
        );
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        written?;
        let index = index::File::from_data(index, file.with_extension("idx"), HashKind::Sha1)?;
        Ok(Self { data, index })
    }

    /// An object of at most `limit` bytes.
    pub(super) fn object(&self, id: &oid, limit: u64) -> Result<(Kind, Vec<u8>), PackError> {
        let start = self.entry(id)?.ok_or_else(|| PackError::Missing(id.to_owned()))?;
        let mut inflate = Inflate::default();
        let base = |id: &oid| Ok(self.entry(id)?.map(header::ResolvedBase::InPack));
        let size = self.data.decode_header(start.clone(), &mut inflate, &base)?.object_size;
        if size > limit {
            return Err(PackError::ObjectTooLarge { size, limit });
        }
        let base = |id: &oid, _: &mut Vec<u8>| Ok(self.entry(id)?.map(entry::ResolvedBase::InPack));
        let mut content = Vec::new();
        let decoded = self.data.decode_entry(start, &mut content, &mut inflate, &base, &mut Never)?;
        Ok((decoded.kind, content))
    }

    /// Whether it has an object.
    pub(super) fn has(&self, id: &oid) -> bool {
        self.index.lookup(id).is_some()
    }

    fn entry(&self, id: &oid) -> gix::Result<Option<data::Entry>> {
        self.index.lookup(id).map(|at| self.data.entry(self.index.pack_offset_at_index(at))).transpose()
    }
}

fn slice<'r>(range: data::EntryRange, data: &'r &data::File) -> Option<&'r [u8]> {
    data.entry_slice(range)
}

fn spend(left: &mut u64, bytes: u64, limit: u64) -> Result<(), PackError> {
    *left = left.checked_sub(bytes).ok_or(PackError::TooLarge(limit))?;
    Ok(())
}

/// Entries of a pack, ended when they would unpack to too much.
struct Bounded<'a, I> {
    entries: I,
    left: u64,
    bounds: Bounds,
    refusal: &'a mut Option<PackError>,
}

impl<I> Bounded<'_, I> {
    fn spend(&mut self, entry: &mut Entry) -> Result<(), PackError> {
        self.spend_one(entry.decompressed_size)?;
        // Only its first bytes were wanted.
        let compressed = entry.compressed.take().unwrap_or_default();
        if matches!(entry.header, Header::OfsDelta { .. } | Header::RefDelta { .. }) {
            self.spend_one(result_size(&compressed)?)?;
        }
        Ok(())
    }

    fn spend_one(&mut self, bytes: u64) -> Result<(), PackError> {
        if bytes > self.bounds.each {
            return Err(PackError::EntryTooLarge(self.bounds.each));
        }
        spend(&mut self.left, bytes, self.bounds.all)
    }
}

impl<I: Iterator<Item = gix::Result<Entry>>> Iterator for Bounded<'_, I> {
    type Item = gix::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut entry = match self.entries.next()? {
            Ok(entry) => entry,
            Err(error) => return Some(Err(error)),
        };
        match self.spend(&mut entry) {
            Ok(()) => Some(Ok(entry)),
            Err(refusal) => {
                let error = gix::Error::from_error(io::Error::other(refusal.to_string()));
                *self.refusal = Some(refusal);
                Some(Err(error))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

/// The size of what a delta makes: the second of the two numbers that it begins with.
fn result_size(compressed: &[u8]) -> Result<u64, PackError> {
    let mut sizes = [0; DELTA_SIZES];
    let (_, _, count) = Inflate::default().prefix(compressed, &mut sizes)?;
    let mut sizes = sizes.get(..count).unwrap_or_default();
    number(&mut sizes)?;
    number(&mut sizes)
}

/// A number of seven bits a byte, the lowest first, as deltas have them.
fn number(bytes: &mut &[u8]) -> Result<u64, PackError> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(PackError::Damaged)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(PackError::Damaged)
}

/// A file that cannot be read on once the fetch is stopped.
struct Interruptible<'a> {
    file: File,
    stop: &'a AtomicBool,
}

impl Read for Interruptible<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            // Not `Interrupted`, which readers try again after.
            return Err(io::Error::other("stopped"));
        }
        self.file.read(buffer)
    }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
