//! The load: batches that are written out beforehand, rounds that send them,
//! and the median of what the rounds have shown.

use std::fmt;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::Result;
use crate::peer::{Batch, Data, Peer, Server, Verb};

/// Rounds of each server for a row: odd, so that one of them is the median, and
/// many short ones, so that whatever else the machine does meets all servers.
pub(crate) const ROUNDS: usize = 11;
/// Batches that are written out before a round at the most, so that the round
/// itself only sends them: making requests must not be what is measured.
const PREPARED_BATCHES: usize = 1024;
/// Bytes of them at the most, about.
const PREPARED_BYTES: usize = 32 << 20;
/// Bytes that are read at a time.
const READ_BYTES: usize = 256 << 10;

/// How much is under way at a time.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Connections.
    connections: usize,
    /// Requests of each.
    depth: usize,
}

impl Shape {
    /// So many connections, and requests of each.
    pub(crate) const fn new(connections: usize, depth: usize) -> Shape {
        Shape { connections, depth }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.connections, self.depth)
    }
}

/// What a row asks of a server.
pub(crate) struct Load {
    /// How many of a hundred requests are GETs.
    pub(crate) reads: u64,
    /// The keys, which are chosen all alike.
    pub(crate) data: &'static Data,
    /// How much is under way.
    pub(crate) shape: Shape,
}

impl Load {
    /// Batches of requests, the same for each server.
    fn prepare(&self, peer: Peer) -> Vec<Batch> {
        let mut random = 88_172_645_463_325_252_u64;
        let mut batches = Vec::new();
        let mut bytes = 0;
        while batches.len() < PREPARED_BATCHES && bytes < PREPARED_BYTES {
            let mut batch = Batch::default();
            for _ in 0..self.shape.depth {
                let is_read = next(&mut random) % 100 < self.reads;
                let verb = if is_read { Verb::Get } else { Verb::Set };
                batch.push(peer, verb, next(&mut random) % self.data.keys, self.data);
            }
            bytes += batch.request.len() + batch.reply.len();
            batches.push(batch);
        }
        batches
    }
}

/// The next of a pseudo-random sequence (xorshift64*, Vigna 2016).
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
}

/// What a round has shown.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    /// Requests a second.
    pub(crate) rate: f64,
    /// The latency of a batch, median and 99th percentile, in microseconds.
    pub(crate) micros: (f64, f64),
}

/// A connection with a batch under way.
struct Busy<'a> {
    /// The connection.
    stream: TcpStream,
    /// The batch.
    batch: &'a Batch,
    /// When it was sent.
    sent: Instant,
}

impl<'a> Busy<'a> {
    /// Sends a batch.
    fn send(mut stream: TcpStream, batch: &'a Batch) -> Result<Busy<'a>> {
        let sent = Instant::now();
        stream.write_all(&batch.request)?;
        Ok(Busy { stream, batch, sent })
    }
}

/// Runs one load on one server for a while.
fn round(server: &Server, batches: &[Batch], shape: Shape, time: Duration) -> Result<Round> {
    let streams = (0..shape.connections).map(|_| server.connect());
    let streams = streams.collect::<Result<Vec<_>>>()?;
    let mut buffer = vec![0; READ_BYTES];
    let mut latencies = Vec::new();
    let mut batches = batches.iter().cycle();
    let mut next_batch = || batches.next().ok_or("no batches");
    let begun = Instant::now();
    let mut all = Vec::new();
    for stream in streams {
        all.push(Busy::send(stream, next_batch()?)?);
    }
    while latencies.is_empty() || begun.elapsed() < time {
        for busy in &mut all {
            busy.batch.receive(&mut busy.stream, &mut buffer)?;
            latencies.push(busy.sent.elapsed().as_nanos() as f64 / 1e3);
            busy.batch = next_batch()?;
            busy.sent = Instant::now();
            busy.stream.write_all(&busy.batch.request)?;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    for busy in &mut all {
        busy.batch.receive(&mut busy.stream, &mut buffer)?;
    }
    Ok(Round::new(latencies, shape.depth, seconds))
}

impl Round {
    /// What so many batches in so many seconds are.
    fn new(mut latencies: Vec<f64>, depth: usize, seconds: f64) -> Round {
        latencies.sort_by(f64::total_cmp);
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        let rate = (latencies.len() * depth) as f64 / seconds;
        Round { rate, micros: (at(0.5), at(0.99)) }
    }
}

/// Runs a load on each server in turn, several times; the rounds of each.
///
/// Every other time the order is turned round, as a server may still be syncing
/// what it was given when the next one's round begins.
pub(crate) fn compare(servers: &[Server], load: &Load, time: Duration) -> Result<Vec<Vec<Round>>> {
    let batches: Vec<_> = servers.iter().map(|server| load.prepare(server.peer)).collect();
    let mut rounds = vec![Vec::new(); servers.len()];
    for nth in 0..ROUNDS {
        for step in 0..servers.len() {
            let turn = if nth % 2 == 0 { step } else { servers.len() - 1 - step };
            rounds[turn].push(round(&servers[turn], &batches[turn], load.shape, time)?);
        }
    }
    Ok(rounds)
}

/// The round with the median rate.
pub(crate) fn median(rounds: &[Round]) -> Round {
    let mut rounds = rounds.to_vec();
    rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    rounds[rounds.len() / 2]
}

/// The percentage of its rate that a server has lost `with` something: the
/// median over the pairs of rounds, as the two of a pair ran one after the other.
pub(crate) fn loss(without: &[Round], with: &[Round]) -> f64 {
    let pairs = without.iter().zip(with);
    let mut losses: Vec<f64> = pairs.map(|(a, b)| 100.0 * (1.0 - b.rate / a.rate)).collect();
    losses.sort_by(f64::total_cmp);
    losses[losses.len() / 2]
}
