//! One simulated file: what is on the disk, what the page cache shows, and what
//! a loss of power may make of the difference.
//!
//! Pages have 4 KiB. Until a file is synced, each page written since may be on
//! the disk as it is now, as it was at any time since the last sync, or not at
//! all: what lies beyond the end it had is zeros then, or random bytes, or what
//! a file had there that was removed, as the disk gives its blocks to another, or
//! what was cut off this one since the last sync. Its
//! length may be the old one, the new one, any between, and also the longest it
//! had meanwhile, as a cut need not have reached the disk either.
//!
//! Not simulated: a write that harms bytes in the same page which were on the
//! disk before and stay as they are (a disk that writes less than a sector).

use std::collections::BTreeMap;

use super::random::Random;

/// Bytes that the system writes at a time.
const PAGE: usize = 4096;
/// Older contents of a page that are kept.
const VERSIONS_MAX: usize = 4;

/// The bytes of a file, named or not.
#[derive(Clone, Default)]
pub struct Inode {
    /// What the disk has.
    pub durable: Vec<u8>,
    /// What reads show: the page cache.
    pub current: Vec<u8>,
    /// Older contents of each page that was written since the last sync.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
    /// The greatest length since the last sync.
    longest: usize,
    /// What the disk holds, until the next sync, of bytes that were cut off, at
    /// their offsets.
    cut: Vec<u8>,
}

impl Inode {
    /// A file with these bytes on the disk.
    pub fn new(bytes: Vec<u8>) -> Inode {
        let longest = bytes.len();
        Inode { current: bytes.clone(), durable: bytes, longest, ..Inode::default() }
    }

    /// Writes into the page cache.
    pub fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        self.touch(offset, end);
        if self.current.len() < end {
            self.current.resize(end, 0);
        }
        self.current[offset..end].copy_from_slice(bytes);
        self.longest = self.longest.max(end);
    }

    /// Cuts or extends what the page cache shows.
    pub fn truncate(&mut self, len: usize) {
        self.touch(len.min(self.current.len()), len.max(self.current.len()));
        if len < self.current.len() {
            self.cut = self.current.clone();
        }
        self.current.resize(len, 0);
        self.longest = self.longest.max(len);
    }

    /// Keeps the contents of the pages of a range as older ones.
    fn touch(&mut self, start: usize, end: usize) {
        for page in start / PAGE..end.div_ceil(PAGE) {
            let version = page_of(&self.current, page).to_vec();
            let versions = self.dirty.entry(page).or_default();
            if versions.len() == VERSIONS_MAX {
                versions.remove(0);
            }
            versions.push(version);
        }
    }

    /// Puts all dirty pages and the length on the disk.
    pub fn sync(&mut self) {
        self.write_back(|_| true);
        self.durable.truncate(self.current.len());
        self.cut.clear();
    }

    /// Puts on the disk what the file was some time ago. What came since stays dirty.
    pub fn sync_as_of(&mut self, bytes: &[u8]) {
        self.durable.resize(self.durable.len().max(bytes.len()), 0);
        self.durable[..bytes.len()].copy_from_slice(bytes);
        let current = &self.current;
        self.dirty.retain(|page, versions| {
            *versions = vec![page_of(bytes, *page).to_vec()];
            page_of(current, *page) != versions[0]
        });
    }

    /// Fails to: some pages are on the disk, and the others are held to be, so
    /// that no later sync writes them (as Linux does after an error).
    pub fn fail_to_sync(&mut self, random: &mut Random) {
        self.write_back(|_| random.one_in(2));
    }

    /// Writes the dirty pages that `is_written` chooses, and forgets all.
    fn write_back(&mut self, mut is_written: impl FnMut(usize) -> bool) {
        for page in std::mem::take(&mut self.dirty).into_keys() {
            let (start, bytes) = (page * PAGE, page_of(&self.current, page));
            if is_written(page) {
                let len = self.durable.len().max(start + bytes.len());
                self.durable.resize(len, 0);
                self.durable[start..start + bytes.len()].copy_from_slice(bytes);
            }
        }
        self.durable.resize(self.durable.len().max(self.current.len()), 0);
        self.longest = self.current.len();
    }

    /// The file as it may be found after a loss of power; `other` are those
    /// of another file.
    pub fn after_power_loss(&self, other: &[u8], random: &mut Random) -> Inode {
        let bytes = self.bytes_after_power_loss(other, random);
        Inode { cut: self.cut.clone(), ..Inode::new(bytes) }
    }

    /// Its bytes.
    fn bytes_after_power_loss(&self, other: &[u8], random: &mut Random) -> Vec<u8> {
        let (durable, current) = (self.durable.len(), self.current.len());
        if self.dirty.is_empty() && durable == current {
            return self.durable.clone();
        }
        match random.below(6) {
            0 => self.durable.clone(),
            1 => self.assemble(current, |_| Found::Now, other, random),
            2 => {
                let len = random.between(durable.min(current), durable.max(current));
                self.assemble(len, |_| Found::Now, other, random)
            }
            _ => {
                let any = random.between(durable.min(current), self.longest.max(durable));
                let len = random.pick(&[current, current, durable, self.longest, any]);
                let mixed = |random: &mut Random| random.pick(&Found::ALL);
                self.assemble(len, mixed, other, random)
            }
        }
    }

    /// `len` bytes, each dirty page of them in the state that `found` chooses.
    fn assemble(
        &self,
        len: usize,
        found: impl Fn(&mut Random) -> Found,
        other: &[u8],
        random: &mut Random,
    ) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        bytes.resize(len, 0);
        for (&page, versions) in &self.dirty {
            let start = page * PAGE;
            if start >= len {
                break;
            }
            let room = &mut bytes[start..len.min(start + PAGE)];
            match found(random) {
                Found::Now => overwrite(room, page_of(&self.current, page)),
                Found::Earlier => {
                    let nth = random.below(versions.len() as u64) as usize;
                    overwrite(room, &versions[nth]);
                }
                Found::AsDurable => {}
                Found::Random => {
                    let durable = page_of(&self.durable, page).len().min(room.len());
                    room[durable..].fill_with(|| random.next() as u8);
                }
                Found::Other => {
                    let durable = page_of(&self.durable, page).len().min(room.len());
                    let other = if random.one_in(2) { &self.cut[..] } else { other };
                    let other = page_of(other, page);
                    overwrite(&mut room[durable..], &other[durable.min(other.len())..]);
                }
            }
        }
        bytes
    }
}

/// How a dirty page may be found.
#[derive(Clone, Copy)]
enum Found {
    /// As it is now.
    Now,
    /// As it was some writes ago.
    Earlier,
    /// As it was at the last sync, and zeros beyond.
    AsDurable,
    /// As it was at the last sync, and random bytes beyond.
    Random,
    /// As it was at the last sync, and beyond it bytes of another file, or bytes
    /// that were cut off this one.
    Other,
}

impl Found {
    /// All of them.
    const ALL: [Found; 5] =
        [Found::Now, Found::Earlier, Found::AsDurable, Found::Random, Found::Other];
}

/// The bytes of a page, as many as there are.
fn page_of(bytes: &[u8], page: usize) -> &[u8] {
    let start = (page * PAGE).min(bytes.len());
    &bytes[start..bytes.len().min(start + PAGE)]
}

/// Puts a page's bytes into `room`, and zeros after them.
fn overwrite(room: &mut [u8], page: &[u8]) {
    let len = page.len().min(room.len());
    room[..len].copy_from_slice(&page[..len]);
    room[len..].fill(0);
}
