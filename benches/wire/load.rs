//! The load: batches that are made in advance, rounds that send them, and the
//! median of the rounds.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::Result;
use crate::peer::{Batch, Data, Server, Verb};
use crate::random::Random;

/// Rounds of each server for a row. The number is odd, so that one round is the
/// median. Many short rounds spread other activity of the machine over all servers.
pub(crate) const ROUNDS: usize = 11;
/// Batches that are made before a row at most. Making them must not be timed.
const PREPARED_BATCHES: usize = 1024;
/// Bytes of these batches at most, about.
const PREPARED_BYTES: usize = 32 << 20;
/// Bytes of one read.
const READ_BYTES: usize = 256 << 10;

/// Connections, and pipelined requests of each.
pub(crate) type Shape = (usize, usize);

/// What a round has measured.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Median latency of a batch, in microseconds.
    pub(crate) median: f64,
    /// 99th percentile of this latency.
    pub(crate) p99: f64,
}

/// Makes batches of requests for keys that are chosen uniformly. All servers get
/// the same sequence.
fn prepare(server: &Server<'_>, verb: Verb, data: &Data, depth: usize) -> Vec<Batch> {
    let mut random = Random::new(1);
    let mut batches = Vec::new();
    let mut bytes = 0;
    while batches.len() < PREPARED_BATCHES && bytes < PREPARED_BYTES {
        let keys = (0..depth).map(|_| random.below(data.keys));
        let batch = server.peer.batch(verb, data, keys);
        bytes += batch.request.len() + batch.reply.len();
        batches.push(batch);
    }
    batches
}

/// Sends batches to one server for a while.
fn round(
    server: &Server<'_>,
    batches: &[Batch],
    (connections, depth): Shape,
    time: Duration,
) -> Result<Round> {
    let streams = (0..connections).map(|_| server.connect()).collect::<Result<Vec<_>>>()?;
    let mut batches = batches.iter().cycle();
    let mut next_batch = || batches.next().ok_or("no batches");
    let mut buffer = vec![0; READ_BYTES];
    let mut latencies = Vec::new();
    let begun = Instant::now();
    let mut all = Vec::new();
    for mut stream in streams {
        let (batch, sent) = (next_batch()?, Instant::now());
        stream.write_all(&batch.request)?;
        all.push((stream, batch, sent));
    }
    while latencies.is_empty() || begun.elapsed() < time {
        for (stream, batch, sent) in &mut all {
            batch.receive(stream, &mut buffer)?;
            latencies.push(sent.elapsed().as_nanos() as f64 / 1e3);
            (*batch, *sent) = (next_batch()?, Instant::now());
            stream.write_all(&batch.request)?;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    for (stream, batch, _) in &mut all {
        batch.receive(stream, &mut buffer)?;
    }
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    let rate = (latencies.len() * depth) as f64 / seconds;
    Ok(Round { rate, median: at(0.5), p99: at(0.99) })
}

/// Runs a load on each server by turns, and returns the median round of each.
///
/// Each pass begins with another server, so that every server has every place. A
/// server may still sync its writes when the next one begins.
pub(crate) fn compare(
    servers: &[Server<'_>],
    verb: Verb,
    data: &Data,
    shape: Shape,
    time: Duration,
) -> Result<Vec<Round>> {
    let batches: Vec<_> =
        servers.iter().map(|server| prepare(server, verb, data, shape.1)).collect();
    let mut rounds = vec![Vec::new(); servers.len()];
    for pass in 0..ROUNDS {
        for step in 0..servers.len() {
            let turn = (pass + step) % servers.len();
            rounds[turn].push(round(&servers[turn], &batches[turn], shape, time)?);
        }
    }
    Ok(rounds.into_iter().map(median).collect())
}

/// The round with the median rate.
fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    rounds[rounds.len() / 2]
}
