//! kvs-server beside redis-server over the wire, at equal durability.
//!
//! `cargo bench --bench wire [-- SECONDS]` starts both servers (Redis only where
//! `redis-server` is on the PATH) on free ports of 127.0.0.1 with empty
//! directories, loads the same keys, and then runs each row of the table on one
//! server and the other in turn, several rounds of SECONDS each. It prints the
//! medians and their ratio.
//!
//! The load is a closed loop: a connection sends a batch of pipelined requests,
//! waits for all replies, and sends the next. One thread serves all connections
//! in turn, so that it and the server have a processor each. Latencies are of
//! batches. Redis gets the same requests in its own protocol.
//!
//! Equal durability: `--fsync always` and `appendfsync always` both sync before
//! they reply; `everysec` of both reply before. `fdatasync` is called by both.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Keys that are loaded and then chosen from, all alike.
const KEYS: u64 = 100_000;
/// Bytes of a value.
const VALUE_BYTES: usize = 64;
/// Rounds of each server for a row; odd, so that one of them is the median.
const ROUNDS: usize = 5;
/// How long a server may take to start or to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Batches that are written out before a round, so that the round itself only
/// sends them: making requests must not be what is measured.
const PREPARED_BATCHES: usize = 1024;
/// Connections, and requests of each that are under way.
const SHAPES: [(usize, usize); 4] = [(50, 64), (50, 16), (50, 1), (1, 1)];

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    /// Set a key.
    Set,
    /// Get one.
    Get,
}

/// Which server speaks, and so which protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Peer {
    /// kvs-server.
    Kvs,
    /// redis-server, in RESP (redis.io, "Redis serialization protocol").
    Redis,
}

impl Peer {
    /// Appends a request.
    fn encode(self, out: &mut Vec<u8>, verb: Verb, key: u64, value: &str) {
        let text = match (self, verb) {
            (Peer::Kvs, Verb::Set) => format!("SET key:{key:012} {value}\n"),
            (Peer::Kvs, Verb::Get) => format!("GET key:{key:012}\n"),
            (Peer::Redis, Verb::Set) => format!(
                "*3\r\n$3\r\nSET\r\n$16\r\nkey:{key:012}\r\n${}\r\n{value}\r\n",
                value.len()
            ),
            (Peer::Redis, Verb::Get) => {
                format!("*2\r\n$3\r\nGET\r\n$16\r\nkey:{key:012}\r\n")
            }
        };
        out.extend_from_slice(text.as_bytes());
    }

    /// Newlines in the reply to a request that succeeds.
    fn newlines(self, verb: Verb) -> usize {
        if (self, verb) == (Peer::Redis, Verb::Get) { 2 } else { 1 }
    }
}

/// A server that runs until it is dropped.
struct Server {
    /// Its process.
    child: Child,
    /// Its data.
    _directory: tempfile::TempDir,
    /// Where it listens.
    addr: SocketAddr,
    /// Which it is.
    peer: Peer,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts kvs-server with this policy.
    fn kvs(fsync: &str) -> Result<Server, Box<dyn Error>> {
        let directory = tempfile::tempdir_in(".")?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_kvs-server"))
            .args(["--addr", "127.0.0.1:0", "--fsync", fsync, "--dir"])
            .arg(directory.path())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no stderr")?).lines();
        let line = lines.find_map(|line| line.ok().filter(|line| line.contains(" listening on ")));
        let line = line.ok_or("kvs-server did not start")?;
        let addr = line.split(" listening on ").nth(1).and_then(|rest| rest.split(',').next());
        let addr = addr.ok_or("no address")?.parse()?;
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Server { child, _directory: directory, addr, peer: Peer::Kvs })
    }

    /// Starts redis-server with this policy; `None` where there is none.
    fn redis(fsync: &str) -> Result<Option<Server>, Box<dyn Error>> {
        let directory = tempfile::tempdir_in(".")?;
        let addr = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let port = addr.port().to_string();
        let child = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", fsync, "--dir"])
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn();
        let Ok(child) = child else { return Ok(None) };
        let server = Server { child, _directory: directory, addr, peer: Peer::Redis };
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            if begun.elapsed() > PATIENCE {
                return Err("redis-server did not start".into());
            }
            std::thread::yield_now();
        }
        Ok(Some(server))
    }

    /// Connects.
    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(self.addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Sets every key once.
    fn load(&self, value: &str) -> Result<(), Box<dyn Error>> {
        let mut stream = self.connect()?;
        for first in (0..KEYS).step_by(100) {
            let mut batch = Vec::new();
            (first..first + 100)
                .for_each(|key| self.peer.encode(&mut batch, Verb::Set, key, value));
            stream.write_all(&batch)?;
            await_newlines(&mut stream, 100 * self.peer.newlines(Verb::Set))?;
        }
        Ok(())
    }
}

/// Reads until so many lines have come; fails on an error reply.
fn await_newlines(stream: &mut TcpStream, mut count: usize) -> Result<(), Box<dyn Error>> {
    let mut buffer = [0; 64 << 10];
    while count > 0 {
        let len = stream.read(&mut buffer)?;
        let bytes = &buffer[..len];
        if len == 0 || bytes.starts_with(b"ERR") || bytes.starts_with(b"-") {
            return Err(format!("a reply failed: {}", String::from_utf8_lossy(bytes)).into());
        }
        let newlines = bytes.iter().filter(|byte| **byte == b'\n').count();
        count = count.checked_sub(newlines).ok_or("more replies than requests")?;
    }
    Ok(())
}

/// What a round has shown.
#[derive(Clone, Copy)]
struct Round {
    /// Requests a second.
    rate: f64,
    /// The latency of a batch, median and 99th percentile, in microseconds.
    micros: (f64, f64),
}

/// Batches of `depth` requests for keys that are chosen all alike.
fn prepare(peer: Peer, verb: Verb, depth: usize) -> Vec<Vec<u8>> {
    let value = "v".repeat(VALUE_BYTES);
    let mut random = 88_172_645_463_325_252_u64;
    let batch = |_| {
        let mut batch = Vec::new();
        for _ in 0..depth {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            peer.encode(&mut batch, verb, random % KEYS, &value);
        }
        batch
    };
    (0..PREPARED_BATCHES).map(batch).collect()
}

/// Runs one load for a while.
fn round(
    server: &Server,
    verb: Verb,
    (connections, depth): (usize, usize),
    time: Duration,
) -> Result<Round, Box<dyn Error>> {
    let newlines = depth * server.peer.newlines(verb);
    let batches = prepare(server.peer, verb, depth);
    let mut next_batch = batches.iter().cycle();
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push((server.connect()?, Instant::now()));
    }
    let mut latencies = Vec::new();
    let begun = Instant::now();
    let mut is_first = true;
    while begun.elapsed() < time {
        for (stream, sent) in &mut streams {
            if !is_first {
                await_newlines(stream, newlines)?;
                latencies.push(sent.elapsed().as_nanos() as f64 / 1e3);
            }
            *sent = Instant::now();
            stream.write_all(next_batch.next().map_or(&[], Vec::as_slice))?;
        }
        is_first = false;
    }
    let rate = (latencies.len() * depth) as f64 / begun.elapsed().as_secs_f64();
    for (stream, _) in &mut streams {
        await_newlines(stream, newlines)?;
    }
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Ok(Round { rate, micros: (at(0.5), at(0.99)) })
}

/// The round with the median rate.
fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    rounds[rounds.len() / 2]
}

/// Runs the rows of one policy and verb, and prints them.
fn table(name: &str, fsync: &str, verb: Verb, time: Duration) -> Result<(), Box<dyn Error>> {
    let value = "v".repeat(VALUE_BYTES);
    let mut servers = vec![Server::kvs(fsync)?];
    servers.extend(Server::redis(fsync)?);
    for server in &servers {
        server.load(&value)?;
    }
    for shape in SHAPES {
        let mut rounds = vec![Vec::new(); servers.len()];
        for _ in 0..ROUNDS {
            for (nth, server) in servers.iter().enumerate() {
                rounds[nth].push(round(server, verb, shape, time)?);
            }
        }
        let medians: Vec<Round> = rounds.into_iter().map(median).collect();
        print_row(name, shape, &medians);
    }
    Ok(())
}

/// Prints one row: kvs, and Redis and the ratio where it ran.
fn print_row(name: &str, (connections, depth): (usize, usize), medians: &[Round]) {
    let shape = format!("{connections} x {depth}");
    let show = |round: &Round| {
        format!("{:9.0}/s {:7.0} {:7.0} us", round.rate, round.micros.0, round.micros.1)
    };
    let kvs = show(&medians[0]);
    match medians.get(1) {
        Some(redis) => {
            let ratio = medians[0].rate / redis.rate;
            println!("{name:14} {shape:8} | kvs {kvs} | redis {} | {ratio:5.2}", show(redis));
        }
        None => println!("{name:14} {shape:8} | kvs {kvs}"),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let seconds = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(1.0);
    let time = Duration::from_secs_f64(seconds);
    println!("requests a second, median and p99 latency of a batch, ratio kvs / redis");
    for (name, fsync, verb) in [
        ("SET always", "always", Verb::Set),
        ("SET everysec", "everysec", Verb::Set),
        ("GET", "everysec", Verb::Get),
    ] {
        table(name, fsync, verb, time)?;
    }
    Ok(())
}
