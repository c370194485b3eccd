//! The rows as they are printed, and as `figures` reads them back.
//!
//! The file has a line of what was run, and then a line for each row with tabs
//! between: name, shape, unit, and for each server its rate and the median and
//! 99th percentile of its latency in microseconds. The servers are kvs and, where
//! it ran, Redis. In rows about idle connections each comes first without and
//! then with them, and the line ends with the percentage that each has lost.

use std::path::Path;

use crate::Result;
use crate::load::{Load, ROUNDS, Round, loss, median};

/// Values from which on bytes are counted and not requests.
const LARGE_BYTES: usize = 1 << 20;

/// All rows so far.
pub(crate) struct Report {
    /// As they are kept.
    lines: Vec<String>,
}

/// What the rates of a row count.
#[derive(Clone, Copy)]
struct Unit {
    /// Its name.
    name: &'static str,
    /// How many of it a request is.
    per_request: f64,
}

impl Unit {
    /// Requests, or megabytes of values where they are large.
    fn of(load: &Load) -> Unit {
        let bytes = load.data.value_bytes;
        if bytes < LARGE_BYTES {
            return Unit { name: "requests", per_request: 1.0 };
        }
        Unit { name: "MB", per_request: bytes as f64 / 1e6 }
    }

    /// The rate of a round.
    fn rate(self, round: &Round) -> f64 {
        round.rate * self.per_request
    }

    /// A round for people.
    fn show(self, round: &Round) -> String {
        let (median, p99) = round.micros;
        format!("{:8.0} {} {median:6.0} {p99:6.0} us", self.rate(round), self.name)
    }

    /// A round for `figures`.
    fn keep(self, round: &Round) -> String {
        format!("{}\t{}\t{}", self.rate(round), round.micros.0, round.micros.1)
    }
}

/// Both servers' rates and latencies, and the ratio of the rates; kvs alone
/// where Redis is missing.
fn show(unit: Unit, rounds: &[Vec<Round>]) -> String {
    let medians: Vec<Round> = rounds.iter().map(|rounds| median(rounds)).collect();
    match &medians[..] {
        [kvs, redis] => {
            let ratio = kvs.rate / redis.rate;
            format!("kvs {} | redis {} | {ratio:5.2}", unit.show(kvs), unit.show(redis))
        }
        medians => medians.iter().map(|kvs| format!("kvs {}", unit.show(kvs))).collect(),
    }
}

/// The servers' rates without idle connections and with, and what those take.
fn show_idle(rounds: &[Vec<Round>]) -> String {
    let show = |(name, pair): (&str, &[Vec<Round>])| {
        let (alone, beside) = (median(&pair[0]).rate, median(&pair[1]).rate);
        let loss = loss(&pair[0], &pair[1]);
        format!("{name} {alone:7.0}, beside idle {beside:7.0}, loss {loss:5.1}%")
    };
    let pairs = ["kvs", "redis"].into_iter().zip(rounds.chunks(2));
    pairs.map(show).collect::<Vec<_>>().join(" | ")
}

impl Report {
    /// A report without rows, of rounds that take so many seconds.
    pub(crate) fn new(seconds: f64) -> Report {
        println!("a second; median and p99 latency of a batch; ratio kvs / redis");
        Report { lines: vec![format!("{ROUNDS} rounds of {seconds} s")] }
    }

    /// Prints a row and keeps it: the rounds of each server, in pairs where every
    /// other one has idle connections, as `is_idle` says.
    pub(crate) fn row(&mut self, name: &str, load: &Load, rounds: &[Vec<Round>], is_idle: bool) {
        let (unit, shape) = (Unit::of(load), load.shape.to_string());
        let text = if is_idle { show_idle(rounds) } else { show(unit, rounds) };
        println!("{name:30} {shape:8} | {text}");
        let mut cells = vec![name.to_owned(), shape, unit.name.to_owned()];
        cells.extend(rounds.iter().map(|rounds| unit.keep(&median(rounds))));
        if is_idle {
            cells.extend(rounds.chunks(2).map(|pair| loss(&pair[0], &pair[1]).to_string()));
        }
        self.lines.push(cells.join("\t"));
    }

    /// Writes the rows where `figures` finds them.
    pub(crate) fn keep(&self) -> Result<()> {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wire.tsv");
        Ok(std::fs::write(path, self.lines.join("\n") + "\n")?)
    }
}
