//! How long single calls take while a store loads, overwrites and compacts, how
//! much disk and memory that needs, and how long opening it takes.
//!
//! `cargo run --release --example pauses [-- KEYS [OVERWRITES]]` runs `KvStore`
//! with writes handed to the operating system, then sled on the same operations
//! (in a directory of its own, below the current one, so on the same disk), and
//! prints a table for each choice of keys. Not a criterion bench: what counts
//! here is the slowest of millions of calls, not their mean.

#[path = "../tests/simulation/random.rs"]
mod random;

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kvs::{KvStore, KvsEngine};
use random::Random;

/// Bytes of a value; a key has 16.
const VALUE_BYTES: usize = 100;
/// Calls between two looks at the disk.
const LOOK_EVERY: u64 = 20_000;
/// The skew of the zipfian choice of keys.
const SKEW: f64 = 0.99;

/// How overwrites choose their keys.
#[derive(Clone, Copy, Debug)]
enum Choice {
    /// All alike.
    Uniform,
    /// Few often, most seldom.
    Zipfian,
}

impl Choice {
    /// The number of a key.
    fn key(self, random: &mut Random, keys: u64) -> u64 {
        match self {
            Choice::Uniform => random.below(keys),
            Choice::Zipfian => random.zipfian(keys, SKEW),
        }
    }
}

/// What a run of calls took.
struct Latencies {
    /// Nanoseconds of each call, sorted.
    nanos: Vec<u32>,
    /// The whole run.
    total: Duration,
}

impl Latencies {
    /// Times `count` sets, and nothing else: `next_key` chooses each key before
    /// the clock starts, and `look` is called between some of them.
    fn of(
        engine: &dyn KvsEngine,
        count: u64,
        mut next_key: impl FnMut(u64) -> String,
        mut look: impl FnMut(),
    ) -> kvs::Result<Latencies> {
        let mut nanos = Vec::with_capacity(count as usize);
        let begun = Instant::now();
        for nth in 0..count {
            let (key, value) = (next_key(nth), "v".repeat(VALUE_BYTES));
            let start = Instant::now();
            engine.set(key, value)?;
            nanos.push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
            if nth % LOOK_EVERY == 0 {
                look();
            }
        }
        let total = begun.elapsed();
        nanos.sort_unstable();
        Ok(Latencies { nanos, total })
    }

    /// The latency that this share of calls does not exceed, in microseconds.
    fn micros(&self, share: f64) -> f64 {
        let last = self.nanos.len() - 1;
        f64::from(self.nanos[(last as f64 * share) as usize]) / 1e3
    }

    /// Prints one line of the table.
    fn print(&self, name: &str) {
        println!(
            "{name:24} {:9.0} calls/s  median {:7.1} us  p99.9 {:8.1} us ({:5.1} x)  slowest {:9.1} us",
            self.nanos.len() as f64 / self.total.as_secs_f64(),
            self.micros(0.5),
            self.micros(0.999),
            self.micros(0.999) / self.micros(0.5),
            self.micros(1.0)
        );
    }
}

/// The bytes of all files below a directory.
fn disk_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// A figure of this process in /proc, where there is one.
fn process_figure(file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The key with this number.
fn key(number: u64) -> String {
    format!("key{number:013}")
}

/// Loads and overwrites; prints both, and what they needed.
fn write_all(
    engine: &dyn KvsEngine,
    directory: &Path,
    choice: Choice,
    keys: u64,
    overwrites: u64,
) -> kvs::Result<()> {
    let written_before = process_figure("io", "write_bytes:");
    Latencies::of(engine, keys, key, || {})?.print("  load");
    let mut random = Random::new(42);
    let mut peak = 0;
    let next_key = |_| key(choice.key(&mut random, keys));
    let look = || peak = peak.max(disk_bytes(directory));
    let latencies = Latencies::of(engine, overwrites, next_key, look)?;
    latencies.print("  overwrite");
    let live = keys * (16 + VALUE_BYTES as u64);
    let user = (keys + overwrites) * (16 + VALUE_BYTES as u64);
    engine.flush()?;
    let written = process_figure("io", "write_bytes:") - written_before;
    println!(
        "  disk: {:.2} x the live keys and values at most; written {:.2} x what was set",
        peak as f64 / live as f64,
        written as f64 / user as f64
    );
    Ok(())
}

/// Opens the store in `directory` in this process, which has done nothing else,
/// and prints how long it takes and what memory it needs.
fn open_again(engine: &str, directory: &Path, keys: u64) -> kvs::Result<()> {
    let before = process_figure("status", "VmRSS:");
    let begun = Instant::now();
    let engine = open(engine, directory)?;
    let took = begun.elapsed();
    let after = process_figure("status", "VmRSS:");
    assert!(engine.get(key(keys - 1))?.is_some());
    println!(
        "  open: {:.3} s, {:.2} GB/s of files; memory grew {:.0} bytes a key",
        took.as_secs_f64(),
        disk_bytes(directory) as f64 / took.as_secs_f64() / 1e9,
        (after.saturating_sub(before) * 1024) as f64 / keys as f64
    );
    Ok(())
}

/// Opens an engine by its name.
fn open(engine: &str, directory: &Path) -> kvs::Result<Box<dyn KvsEngine>> {
    Ok(match engine {
        #[cfg(feature = "sled")]
        "sled" => Box::new(kvs::SledKvStore::open(directory)?),
        _ => Box::new(KvStore::open(directory)?),
    })
}

/// One engine through all of it.
fn run(engine: &str, choice: Choice, keys: u64, overwrites: u64) -> Result<(), Box<dyn Error>> {
    println!("{engine}, {choice:?}, {keys} keys, {overwrites} overwrites");
    let directory = tempfile::tempdir_in(".")?;
    let store = open(engine, directory.path())?;
    write_all(&*store, directory.path(), choice, keys, overwrites)?;
    drop(store);
    let mut child = Command::new(std::env::current_exe()?);
    child.args(["open", engine]).arg(directory.path()).arg(keys.to_string()).status()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [command, engine, directory, keys] = &args[..]
        && command == "open"
    {
        return Ok(open_again(engine, Path::new(directory), keys.parse()?)?);
    }
    let number = |nth: usize| args.get(nth).map(|arg| arg.parse()).transpose();
    let keys: u64 = number(0)?.unwrap_or(1_000_000);
    let overwrites: u64 = number(1)?.unwrap_or(5 * keys);
    let engines = if cfg!(feature = "sled") { &["kvs", "sled"][..] } else { &["kvs"] };
    for choice in [Choice::Uniform, Choice::Zipfian] {
        for engine in engines {
            run(engine, choice, keys, overwrites)?;
        }
    }
    Ok(())
}
