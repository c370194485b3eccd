//! What a store has promised: the map that a sync has covered, and the writes
//! since, in order.
//!
//! The one rule: what is found is the synced map after some first part of those
//! writes, never a later one without an earlier. How long that part is at the
//! least depends on how the store ended.

use std::collections::BTreeMap;

/// A map of keys to values.
pub type Map = BTreeMap<String, String>;

/// A write: the key, and its value unless it was removed.
type Write = (String, Option<String>);

/// What a store has promised.
#[derive(Clone, Default)]
pub struct Model {
    /// The map that survives a loss of power.
    synced: Map,
    /// The writes since.
    writes: Vec<Write>,
    /// How many of those survive a kill.
    flushed: usize,
}

impl Model {
    /// A write begins; reads will show it.
    pub fn begin(&mut self, key: &str, value: Option<&str>) {
        self.writes.push((key.to_owned(), value.map(str::to_owned)));
    }

    /// All writes so far have been handed to the system.
    pub fn flush(&mut self) {
        self.flushed = self.writes.len();
    }

    /// All writes so far are on the disk.
    pub fn sync(&mut self) {
        *self = Model { synced: self.map(), ..Model::default() };
    }

    /// The last write failed, and changed nothing.
    pub fn take_back_one(&mut self) {
        self.writes.pop();
    }

    /// Power was lost: what was only handed to the system may be gone.
    pub fn lose_power(&mut self) {
        self.flushed = 0;
    }

    /// The map that reads show.
    pub fn map(&self) -> Map {
        self.after(self.writes.len())
    }

    /// What a read of this key shows.
    pub fn get(&self, key: &str) -> Option<&String> {
        let newest = self.writes.iter().rev().find(|(written, _)| written == key);
        newest.map_or_else(|| self.synced.get(key), |(_, value)| value.as_ref())
    }

    /// Panics unless `found` is what may be; it is the synced map from then on,
    /// as a store syncs what it finds before it shows it.
    pub fn settle(&mut self, found: Map) {
        let is_right = (self.flushed..=self.writes.len()).any(|count| self.after(count) == found);
        assert!(is_right, "{}", self.explain(&found));
        *self = Model { synced: found, ..Model::default() };
    }

    /// The synced map after this many writes.
    fn after(&self, count: usize) -> Map {
        let mut map = self.synced.clone();
        for (key, value) in self.writes.iter().take(count) {
            match value {
                Some(value) => drop(map.insert(key.clone(), value.clone())),
                None => drop(map.remove(key)),
            }
        }
        map
    }

    /// What is wrong with what was found.
    fn explain(&self, found: &Map) -> String {
        let mut lines =
            format!("{} writes, of which {} must be there:", self.writes.len(), self.flushed);
        for (key, value) in &self.writes {
            let value = value.as_deref().map_or("none".to_owned(), brief);
            lines += &format!("\n  {key}={value}");
        }
        lines + &format!("\nsynced {:?}\nfound  {:?}", show(&self.synced), show(found))
    }
}

/// A map, with values as short as can be.
pub fn show(map: &Map) -> Vec<String> {
    map.iter().map(|(key, value)| format!("{key}={}", brief(value))).collect()
}

/// The serial number that a value begins with, and its length.
fn brief(value: &str) -> String {
    format!("{}({})", value.split(' ').next().unwrap_or_default(), value.len())
}
