//! The server over real sockets, with an engine in memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::testing::{Controls, MemoryEngine};
use super::*;

/// How long a test waits for what should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server in a thread of the test.
struct Served {
    address: SocketAddr,
    controls: Controls,
    stop: StopHandle,
    thread: JoinHandle<Result<()>>,
}

/// Starts a server.
fn serve(options: ServerOptions) -> Served {
    let controls = Controls::default();
    let (stop, hears) = Stop::pair().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let hands = controls.clone();
    let thread = std::thread::spawn(move || {
        let engine = MemoryEngine::new(hands);
        KvsServer::new(listener, engine, options)?.run(hears)
    });
    Served { address, controls, stop, thread }
}

impl Served {
    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    }

    fn end(self) -> Result<()> {
        self.stop.stop();
        self.thread.join().unwrap()
    }
}

fn send(client: &BufReader<TcpStream>, bytes: &[u8]) {
    client.get_ref().write_all(bytes).unwrap();
}

fn reply(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

fn ask(client: &mut BufReader<TcpStream>, line: &str) -> String {
    send(client, format!("{line}\n").as_bytes());
    reply(client)
}

/// A figure of `STATS`.
fn figure(client: &mut BufReader<TcpStream>, name: &str) -> u64 {
    let stats = ask(client, "STATS");
    let figure = stats.split(' ').find_map(|word| word.strip_prefix(&format!("{name}=")));
    figure.unwrap().trim().parse().unwrap()
}

fn rest(client: &mut BufReader<TcpStream>) -> String {
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    all
}

#[test]
fn serves_every_request() {
    let served = serve(ServerOptions::default());
    let mut client = served.connect();
    assert_eq!(ask(&mut client, "PING"), "PONG\n");
    assert_eq!(ask(&mut client, "GET a"), "NOT_FOUND\n");
    assert_eq!(ask(&mut client, "SET a 1"), "OK\n");
    assert_eq!(ask(&mut client, "GET a"), "VALUE 1\n");
    assert_eq!(ask(&mut client, "RM a"), "OK\n");
    assert_eq!(ask(&mut client, "RM a"), "NOT_FOUND\n");
    assert!(ask(&mut client, "HELP").starts_with("HELP "));
    assert!(ask(&mut client, "STATS").contains("requests=7 "));
    assert!(ask(&mut client, "WHAT").starts_with("ERR unknown-verb "));
    assert_eq!(ask(&mut client, "QUIT"), "OK\n");
    assert_eq!(rest(&mut client), "");
    served.end().unwrap();
}

#[test]
fn a_pipeline_shares_commits_and_keeps_its_order() {
    let served = serve(ServerOptions::default());
    let mut client = served.connect();
    let requests: String = (0..1000).map(|n| format!("SET k {n}\nGET k\n")).collect();
    let replies: String = (0..1000).map(|n| format!("OK\nVALUE {n}\n")).collect();
    send(&client, requests.as_bytes());
    client.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), replies);
    assert!(served.controls.syncs.load(Ordering::SeqCst) < 100);
    served.end().unwrap();
}

#[test]
fn writes_that_cannot_be_kept_are_not_acknowledged_and_reads_go_on() {
    let served = serve(ServerOptions::default());
    let mut client = served.connect();
    assert_eq!(ask(&mut client, "SET a 1"), "OK\n");
    served.controls.is_failing.store(true, Ordering::SeqCst);
    send(&client, b"GET a\nSET a 2\nGET a\nPING\n");
    assert_eq!(reply(&mut client), "VALUE 1\n");
    assert_eq!(reply(&mut client), "ERR storage cannot keep it; caused by: the disk is full\n");
    assert_eq!(reply(&mut client), "VALUE 1\n");
    assert_eq!(reply(&mut client), "PONG\n");
    served.controls.is_failing.store(false, Ordering::SeqCst);
    assert_eq!(ask(&mut client, "SET a 3"), "OK\n");
    assert_eq!(ask(&mut client, "GET a"), "VALUE 3\n");
    served.end().unwrap();
}

#[test]
fn a_write_that_fails_may_have_undone_those_before_it() {
    let served = serve(ServerOptions::default());
    let mut client = served.connect();
    send(&client, b"SET a 1\nSET full 1\nPING\n");
    assert!(reply(&mut client).contains("there is no room"));
    assert!(reply(&mut client).contains("there is no room"));
    assert_eq!(reply(&mut client), "PONG\n");
    assert_eq!(ask(&mut client, "SET a 2"), "OK\n");
    served.end().unwrap();
}

#[test]
fn shutdown_is_answered_when_the_engine_is_closed_and_the_port_free() {
    let served = serve(ServerOptions::default());
    let mut idle = served.connect();
    let mut client = served.connect();
    assert_eq!(ask(&mut idle, "SET a 1"), "OK\n");
    send(&client, b"PING\nSHUTDOWN\nPING\n");
    assert_eq!(reply(&mut client), "PONG\n");
    assert_eq!(reply(&mut client), "OK\n");
    assert!(served.controls.is_closed.load(Ordering::SeqCst));
    TcpListener::bind(served.address).unwrap();
    assert_eq!(rest(&mut client), "");
    assert_eq!(rest(&mut idle), "");
    served.thread.join().unwrap().unwrap();
}

#[test]
fn a_shutdown_that_cannot_sync_says_so() {
    let served = serve(ServerOptions::default());
    let mut client = served.connect();
    served.controls.is_failing.store(true, Ordering::SeqCst);
    assert!(ask(&mut client, "SHUTDOWN").starts_with("ERR storage "));
    assert!(served.thread.join().unwrap().is_err());
}

#[test]
fn one_client_too_many_is_told_so() {
    let served = serve(ServerOptions { clients_max: 2, ..ServerOptions::default() });
    let mut first = served.connect();
    let mut second = served.connect();
    assert_eq!(ask(&mut first, "PING"), "PONG\n");
    assert_eq!(ask(&mut second, "PING"), "PONG\n");
    for _ in 0..200 {
        assert!(reply(&mut served.connect()).starts_with("ERR busy "));
    }
    assert_eq!(ask(&mut first, "QUIT"), "OK\n");
    assert_eq!(rest(&mut first), "");
    drop(first);
    let mut third = served.connect();
    while !ask(&mut third, "PING").starts_with("PONG") {
        third = served.connect();
    }
    assert_eq!(ask(&mut second, "PING"), "PONG\n");
    served.end().unwrap();
}

#[test]
fn those_who_are_told_of_too_many_clients_are_bounded_too_and_more_wait_in_the_queue() {
    let served = serve(ServerOptions { clients_max: 1, ..ServerOptions::default() });
    let mut first = served.connect();
    assert_eq!(ask(&mut first, "PING"), "PONG\n");
    let others: Vec<_> = (0..100).map(|_| served.connect()).collect();
    for mut other in others {
        assert!(reply(&mut other).starts_with("ERR busy "));
        assert!(figure(&mut first, "clients") <= 65);
    }
    served.end().unwrap();
}

#[test]
fn a_client_that_reads_late_gets_every_reply() {
    let served = serve(ServerOptions::default());
    let mut client = served.connect();
    let value = "v".repeat(200_000);
    assert_eq!(ask(&mut client, &format!("SET a {value}")), "OK\n");
    let mut late = served.connect();
    send(&late, &b"GET a\n".repeat(100));
    late.get_ref().shutdown(Shutdown::Write).unwrap();
    // Until nothing more is executed for the late one.
    let mut before = 0;
    loop {
        let requests = figure(&mut client, "requests");
        if std::mem::replace(&mut before, requests) + 1 == requests && requests > 10 {
            break;
        }
    }
    assert!(before < 100);
    assert!(rest(&mut late) == format!("VALUE {value}\n").repeat(100));
    served.end().unwrap();
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let served = serve(ServerOptions::default());
    let mut client = served.connect();
    let value = "v".repeat(100_000);
    assert_eq!(ask(&mut client, &format!("SET a {value}")), "OK\n");
    let deaf = served.connect();
    send(&deaf, "GET a\n".repeat(10_000).as_bytes());
    for _ in 0..100 {
        assert_eq!(ask(&mut client, "PING"), "PONG\n");
    }
    served.end().unwrap();
}

#[test]
fn many_idle_clients_are_all_served() {
    let served = serve(ServerOptions::default());
    let mut clients: Vec<_> = (0..200).map(|_| served.connect()).collect();
    for round in 0..3 {
        for client in &mut clients {
            assert_eq!(ask(client, "PING"), "PONG\n", "in round {round}");
        }
        if round == 1 {
            // Long enough for all of them to be left out of the short waits.
            std::thread::sleep(Duration::from_millis(150));
        }
    }
    served.end().unwrap();
}

#[test]
fn everysec_syncs_without_being_asked() {
    let served = serve(ServerOptions { fsync: Fsync::EverySec, ..ServerOptions::default() });
    let mut client = served.connect();
    assert_eq!(ask(&mut client, "SET a 1"), "OK\n");
    let flushes = || served.controls.flushes.load(Ordering::SeqCst);
    let syncs = || served.controls.syncs.load(Ordering::SeqCst);
    assert_eq!((flushes(), syncs()), (1, 0));
    let start = std::time::Instant::now();
    while syncs() == 0 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    served.end().unwrap();
}

#[test]
fn clients_that_come_and_go_leave_nothing() {
    let served = serve(ServerOptions::default());
    for _ in 0..500 {
        drop(served.connect());
    }
    let mut client = served.connect();
    let mut stats = ask(&mut client, "STATS");
    while !stats.contains(" clients=1 ") {
        stats = ask(&mut client, "STATS");
    }
    assert!(stats.contains(" clients_accepted=501 "));
    served.end().unwrap();
}
