//! kvs-server over the wire, beside an older version of it and redis-server.
//!
//! `cargo bench --bench wire [-- SECONDS [SECTION]]` starts the servers on free
//! ports of 127.0.0.1 with empty directories, and loads the same keys into each.
//! Then it runs each row on one server after the other, several rounds of SECONDS
//! each, and prints the median round of each server. `KVS_BASELINE=PATH` names
//! the kvs-server of another version. Redis takes part if `redis-server` is on
//! the PATH. With a SECTION, only sections run whose name contains this text, and
//! `figures` does not get the results.
//!
//! The load is a closed loop: a connection sends a batch of pipelined requests,
//! waits for all replies, and sends the next batch. One thread serves all
//! connections in turn, so that it and the server have a processor each.
//! Latencies are of batches. Redis gets the same requests in its own protocol.
//! Every byte of every reply is checked.
//!
//! The servers have equal durability: under `always` they fsync before they
//! reply, and under `everysec` they fsync within a second after the reply.

mod load;
mod peer;
#[path = "../../tests/simulation/random.rs"]
mod random;

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use load::{ROUNDS, Round, Shape, compare};
use peer::{Data, Peer, Server, Verb, peers};

/// Any failure of a server or of the system ends the bench.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Idle connections in the sections that have them.
const IDLE: usize = 1_000;
/// Open files of this process besides the idle connections, at most.
const OTHER_FILES: usize = 200;

/// Small values that fit into the cache of kvs.
const SMALL: Data = Data { keys: 100_000, value_bytes: 64, kvs_flags: &[] };
/// Four times what the cache of kvs holds. Redis keeps all values in memory.
const PAST_CACHE: Data =
    Data { keys: 4 * (64 << 20) / 1_000, value_bytes: 1_000, kvs_flags: &["--cache", "64M"] };
/// Values of 1 MiB. A line has the verb and the key too, so its limit is higher.
const LARGE: Data = Data { keys: 64, value_bytes: 1 << 20, kvs_flags: &["--max-line", "2M"] };

/// From many pipelined requests to a single one.
const ALL_SHAPES: &[Shape] = &[(50, 64), (50, 16), (50, 1), (1, 1)];
/// With a pipeline and without.
const TWO_SHAPES: &[Shape] = &[(50, 16), (50, 1)];
/// Few connections, because each keeps a server busy for long.
const FEW: &[Shape] = &[(4, 1)];

/// Rows that run on the same servers.
struct Section {
    /// The name of its rows.
    name: &'static str,
    /// The fsync policy.
    fsync: &'static str,
    /// The requests.
    verb: Verb,
    /// The pairs.
    data: &'static Data,
    /// The rows.
    shapes: &'static [Shape],
    /// If not 0, each program runs a second time with so many idle connections.
    idle: usize,
}

/// A section.
const fn section(
    name: &'static str,
    fsync: &'static str,
    verb: Verb,
    data: &'static Data,
    shapes: &'static [Shape],
    idle: usize,
) -> Section {
    Section { name, fsync, verb, data, shapes, idle }
}

/// All sections, in the order of the report.
const SECTIONS: &[Section] = &[
    section("SET always", "always", Verb::Set, &SMALL, ALL_SHAPES, 0),
    section("SET everysec", "everysec", Verb::Set, &SMALL, ALL_SHAPES, 0),
    section("GET", "everysec", Verb::Get, &SMALL, ALL_SHAPES, 0),
    section("GET, data 4 times the cache", "everysec", Verb::Get, &PAST_CACHE, TWO_SHAPES, 0),
    section("SET everysec, 1 MiB", "everysec", Verb::Set, &LARGE, FEW, 0),
    section("GET, 1 MiB", "everysec", Verb::Get, &LARGE, FEW, 0),
    section("GET beside idle", "everysec", Verb::Get, &SMALL, TWO_SHAPES, IDLE),
    section("SET everysec beside idle", "everysec", Verb::Set, &SMALL, TWO_SHAPES, IDLE),
];

impl Section {
    /// Runs its rows. Prints a line for each row and server, and adds it to the
    /// report: name, shape, server, its idle connections, rate, median latency and
    /// 99th percentile, with tabs between.
    fn run(&self, peers: &[Peer], time: Duration, report: &mut Vec<String>) -> Result<()> {
        let files = self.idle * peers.len() + OTHER_FILES;
        if self.idle > 0 && open_files_limit()? < files {
            println!("{}: left out, it needs `ulimit -n {files}`", self.name);
            return Ok(());
        }
        let mut servers = Vec::new();
        for peer in peers {
            servers.push(Server::start(peer, self.fsync, self.data, 0)?);
            if self.idle > 0 {
                servers.push(Server::start(peer, self.fsync, self.data, self.idle)?);
            }
        }
        for &(connections, depth) in self.shapes {
            let shape = (connections, depth);
            let rounds = compare(&servers, self.verb, self.data, shape, time)?;
            for (server, round) in servers.iter().zip(rounds) {
                let Round { rate, median, p99 } = round;
                let (name, idle) = (server.peer.name, server.idle.len());
                let line = format!(
                    "{:28}\t{connections:2} x {depth:2}\t{name:8}\t{idle:4} idle\t\
                     {rate:8.0}/s\t{median:8.1} us\t{p99:8.1} us",
                    self.name
                );
                println!("{line}");
                report.push(line);
            }
        }
        Ok(())
    }
}

/// The limit of open files, which this process and the servers have. std has no
/// call for it.
fn open_files_limit() -> Result<usize> {
    let output = Command::new("sh").args(["-c", "ulimit -n"]).output()?;
    // A shell may also print "unlimited".
    Ok(String::from_utf8(output.stdout)?.trim().parse().unwrap_or(usize::MAX))
}

fn main() -> Result<()> {
    let (flags, args): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    // Without this flag it is a test run, which must be short.
    let is_bench = flags.iter().any(|flag| flag == "--bench");
    let seconds = args.first().map_or(Ok(if is_bench { 0.5 } else { 0.01 }), |arg| arg.parse())?;
    let filter = args.get(1).map_or("", String::as_str);
    let mut report = vec![format!("{ROUNDS} rounds of {seconds} s")];
    let peers = peers();
    for section in SECTIONS.iter().filter(|section| section.name.contains(filter)) {
        section.run(&peers, Duration::from_secs_f64(seconds), &mut report)?;
    }
    if is_bench && filter.is_empty() {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wire.tsv");
        std::fs::write(path, report.join("\n") + "\n")?;
    }
    Ok(())
}
