//! kvs-server beside redis-server over the wire, at equal durability.
//!
//! `cargo bench --bench wire [-- SECONDS [SECTION]]` starts both servers (Redis
//! only where `redis-server` is on the PATH) on free ports of 127.0.0.1 with
//! empty directories, loads the same keys, and then runs each row of the table
//! on one server and the other in turn, several rounds of SECONDS each. It
//! prints the medians and their ratio, and keeps them for `figures`. With a
//! SECTION only those run whose name has that text in it, and nothing is kept.
//!
//! The load is a closed loop: a connection sends a batch of pipelined requests,
//! waits for all replies, and sends the next. One thread serves all connections
//! in turn, so that it and the server have a processor each. Latencies are of
//! batches. Redis gets the same requests in its own protocol, and every byte of
//! every reply is checked.
//!
//! Equal durability: `--fsync always` and `appendfsync always` both sync before
//! they reply; `everysec` of both reply before. `fdatasync` is called by both.

mod descriptors;
mod load;
mod peer;
mod report;

use std::error::Error;
use std::time::Duration;

use load::{Load, Shape, compare};
use peer::{Data, Peer, Server};
use report::Report;

/// Whatever a server or the system did wrong ends the bench.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Connections that do nothing, in the section about them.
const IDLE: usize = 1_000;
/// Descriptors that take part in that section: both servers' idle connections
/// end in this process.
const DESCRIPTORS: u64 = 2 * IDLE as u64 + 300;

/// A hundred thousand small values, which all caches hold.
const SMALL: Data = Data { keys: 100_000, value_bytes: 64, kvs_flags: &[] };
/// Values of 1 MiB. A request has the key and the verb too, so the line may be longer.
const LARGE: Data = Data { keys: 64, value_bytes: 1 << 20, kvs_flags: &["--max-line", "2M"] };
/// Four times what the cache of kvs holds, which is set to its default. Redis
/// has no such limit: it keeps all values in memory.
const PAST_CACHE: Data =
    Data { keys: 4 * (64 << 20) / 1_000, value_bytes: 1_000, kvs_flags: &["--cache", "64M"] };

/// From many pipelined requests to one at a time.
const ALL_SHAPES: &[Shape] =
    &[Shape::new(50, 64), Shape::new(50, 16), Shape::new(50, 1), Shape::new(1, 1)];
/// With a pipeline and without.
const TWO_SHAPES: &[Shape] = &[Shape::new(50, 16), Shape::new(50, 1)];
/// Few connections: each keeps a server busy for long.
const FEW: &[Shape] = &[Shape::new(4, 1)];

/// Rows that run on the same servers, which are started for it.
struct Section {
    /// What stands in front of each row.
    name: &'static str,
    /// When an answered write is on the disk.
    fsync: &'static str,
    /// How many of a hundred requests are GETs; the others are SETs.
    reads: u64,
    /// What is loaded, and then chosen from.
    data: &'static Data,
    /// A row each.
    shapes: &'static [Shape],
    /// Idle connections of a second pair of servers, if there is to be one.
    idle: usize,
}

/// One section without a second pair.
const fn section(
    name: &'static str,
    fsync: &'static str,
    reads: u64,
    data: &'static Data,
    shapes: &'static [Shape],
) -> Section {
    Section { name, fsync, reads, data, shapes, idle: 0 }
}

/// One section on small values, with a second pair of servers that have idle connections.
const fn beside_idle(name: &'static str, reads: u64) -> Section {
    Section { name, fsync: "everysec", reads, data: &SMALL, shapes: TWO_SHAPES, idle: IDLE }
}

/// All sections, in the order of the report.
const SECTIONS: &[Section] = &[
    section("SET always", "always", 0, &SMALL, ALL_SHAPES),
    section("SET everysec", "everysec", 0, &SMALL, ALL_SHAPES),
    section("GET", "everysec", 100, &SMALL, ALL_SHAPES),
    section("90% GET, 10% SET everysec", "everysec", 90, &SMALL, TWO_SHAPES),
    section("GET, 4 times the cache", "everysec", 100, &PAST_CACHE, TWO_SHAPES),
    section("SET everysec, 1 MiB", "everysec", 0, &LARGE, FEW),
    section("GET, 1 MiB", "everysec", 100, &LARGE, FEW),
    beside_idle("GET beside 1,000 idle", 100),
    beside_idle("SET everysec beside 1,000 idle", 0),
];

impl Section {
    /// Starts its servers and loads them: kvs, then Redis, and where they are to
    /// have idle connections, each first without.
    fn servers(&self) -> Result<Vec<Server>> {
        let mut servers = Vec::new();
        for peer in [Peer::Kvs, Peer::Redis] {
            for idle in std::iter::once(0).chain((self.idle > 0).then_some(self.idle)) {
                let Some(mut server) = Server::start(peer, self.fsync, self.data)? else { break };
                server.load(self.data)?;
                server.add_idle(idle, self.data)?;
                servers.push(server);
            }
        }
        Ok(servers)
    }

    /// Runs its rows.
    fn run(&self, time: Duration, report: &mut Report) -> Result<()> {
        if self.idle > 0 && descriptors::limit()? < DESCRIPTORS {
            println!("{:30} left out: it takes {DESCRIPTORS} open files", self.name);
            return Ok(());
        }
        let servers = self.servers()?;
        for &shape in self.shapes {
            let load = Load { reads: self.reads, data: self.data, shape };
            report.row(self.name, &load, &compare(&servers, &load, time)?, self.idle > 0);
        }
        Ok(())
    }
}

fn main() -> Result<()> {
    descriptors::raise(DESCRIPTORS)?;
    let (flags, args): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|arg| arg.starts_with("--"));
    // Else it is `cargo test --all-targets`, which is to see it run, and soon.
    let is_bench = flags.iter().any(|flag| flag == "--bench");
    let seconds = args.first().map_or(Ok(if is_bench { 0.5 } else { 0.01 }), |arg| arg.parse())?;
    let filter = args.get(1).map_or("", String::as_str);
    let mut report = Report::new(seconds);
    for section in SECTIONS.iter().filter(|section| section.name.contains(filter)) {
        section.run(Duration::from_secs_f64(seconds), &mut report)?;
    }
    if is_bench && filter.is_empty() { report.keep() } else { Ok(()) }
}
