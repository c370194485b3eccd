//! A bucket of the [`Table`](super::table): for each of its keys some bits of the
//! hash, and the place of the [entry](super::entries).
//!
//! It takes 64 bytes, a line of the processor's cache (on 64 bits):
//!
//! ```text
//! offset  bytes  field
//!      0      6  tags, one to a slot: bits 24 to 31 of the hash
//!      6      1  not used
//!      7      1  how many slots are in use
//!      8     48  slots, each a place in the upper 36 bits and the low 28 bits of the hash
//!     56      8  the next bucket of the chain, for what did not fit
//! ```
//!
//! A look-up compares the tags of all slots at once, as bytes of one number, and
//! asks for the key only where tag and slot fit.
//!
//! Not here: which bucket a hash belongs to, and the keys.
//!
//! Invariant: no bucket of a chain is empty but the first
//! (`no_further_bucket_of_a_chain_is_empty`).

/// Slots in a bucket.
const SLOTS: usize = 6;
/// Where the number of slots in use stands among the tags.
const USED: usize = 7;
/// Where the tag begins in a hash.
const TAG_BIT: u32 = 24;
/// Bits of the hash in a slot.
const HASH_BITS: u32 = 28;
/// How many hashes a slot tells apart.
pub(super) const HASHES: u64 = 1 << HASH_BITS;
/// How many places a slot tells apart.
pub(super) const PLACES: u64 = 1 << (u64::BITS - HASH_BITS);

/// A bucket, or a further one of a chain.
#[repr(C)]
pub(super) struct Bucket {
    /// The tag of each slot in use, and how many are.
    tags: [u8; 8],
    /// In no order; the first ones are in use.
    slots: [u64; SLOTS],
    /// The next bucket of the chain, for what did not fit.
    more: Option<Box<Bucket>>,
}

impl Bucket {
    /// One without slots in use.
    pub(super) const EMPTY: Bucket = Bucket { tags: [0; 8], slots: [0; SLOTS], more: None };

    /// Its first byte, for who prefetches it.
    pub(super) fn first_byte(&self) -> &u8 {
        &self.tags[0]
    }

    /// The place of the key that is looked for, which has this hash.
    pub(super) fn get(&self, hash: u64, is_it: impl Fn(u64) -> bool) -> Option<u64> {
        let mut bucket = self;
        loop {
            if let Some(nth) = bucket.position(hash, &is_it) {
                return Some(bucket.place(nth));
            }
            bucket = bucket.more.as_deref()?;
        }
    }

    /// The place of a key that may have this hash; the rest of the chain is not looked at.
    pub(super) fn guess(&self, hash: u64) -> Option<u64> {
        self.position(hash, |_| true).map(|nth| self.place(nth))
    }

    /// Hands on the low 32 bits of each key's hash, and its place.
    pub(super) fn each(&self, mut visit: impl FnMut(u64, u64)) {
        let mut next = Some(self);
        while let Some(bucket) = next {
            for nth in 0..bucket.used().into() {
                let hash = (bucket.slots[nth] % HASHES) | (u64::from(bucket.tags[nth]) << TAG_BIT);
                visit(hash, bucket.place(nth));
            }
            next = bucket.more.as_deref();
        }
    }

    /// Adds the place of a key with this hash, which is not here yet.
    pub(super) fn push(&mut self, hash: u64, place: u64) {
        let mut bucket = self;
        while usize::from(bucket.used()) == SLOTS {
            bucket = bucket.more.get_or_insert_with(|| Box::new(Bucket::EMPTY));
        }
        debug_assert!(place < PLACES, "more entries than there are places");
        let nth = usize::from(bucket.used());
        bucket.slots[nth] = (place << HASH_BITS) | (hash % HASHES);
        bucket.tags[nth] = tag(hash);
        bucket.tags[USED] += 1;
    }

    /// Takes out the key that is looked for, which has this hash; its place.
    pub(super) fn remove(&mut self, hash: u64, is_it: &impl Fn(u64) -> bool) -> Option<u64> {
        if let Some(nth) = self.position(hash, is_it) {
            let place = self.place(nth);
            let last = usize::from(self.used()) - 1;
            (self.slots[nth], self.tags[nth]) = (self.slots[last], self.tags[last]);
            self.tags[USED] -= 1;
            return Some(place);
        }
        let more = self.more.as_deref_mut()?;
        let place = more.remove(hash, is_it);
        if more.used() == 0 {
            self.more = more.more.take();
        }
        place
    }

    /// How many slots are in use, those of the chain left out.
    fn used(&self) -> u8 {
        self.tags[USED]
    }

    /// The place in a slot.
    fn place(&self, nth: usize) -> u64 {
        self.slots[nth] / HASHES
    }

    /// Which slot is that of the key that is looked for, which has this hash.
    fn position(&self, hash: u64, is_it: impl Fn(u64) -> bool) -> Option<usize> {
        let mut candidates = self.candidates(hash);
        while candidates != 0 {
            let nth = candidates.trailing_zeros() as usize / 8;
            if self.slots[nth] % HASHES == hash % HASHES && is_it(self.place(nth)) {
                return Some(nth);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// The highest bit of each byte where a slot in use has this hash's tag (Mycroft,
    /// 1987). The subtraction borrows, so the byte after such a one may be taken for one
    /// too, if it differs in its lowest bit alone; that bit is in the slot as well, which
    /// tells them apart.
    fn candidates(&self, hash: u64) -> u64 {
        const LOW: u64 = u64::from_le_bytes([1; 8]);
        let different = u64::from_le_bytes(self.tags) ^ (u64::from(tag(hash)) * LOW);
        let in_use = (1 << (8 * self.used())) - 1;
        different.wrapping_sub(LOW) & !different & (LOW << 7) & in_use
    }
}

/// The bits of a hash that are compared first.
fn tag(hash: u64) -> u8 {
    (hash >> TAG_BIT) as u8
}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
