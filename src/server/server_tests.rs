//! The server over real sockets, with an engine in memory.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::testing::{Controls, MemoryEngine};
use super::*;

/// How long a test waits for what should happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server in a thread of the test.
struct Served {
    address: SocketAddr,
    controls: Controls,
    stop: StopHandle,
    thread: JoinHandle<Result<()>>,
}

fn serve(options: ServerOptions) -> Served {
    let controls = Controls::default();
    let (stop, pipe) = Stop::pair().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Boxed, as `choice::open` returns it.
    let engine: Box<dyn KvsEngine + Send> = Box::new(MemoryEngine::new(controls.clone()));
    let server = KvsServer::new(listener, engine, options).unwrap();
    let thread = std::thread::spawn(move || server.run(pipe));
    Served { address, controls, stop, thread }
}

impl Served {
    fn connect(&self) -> BufReader<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    }

    fn stop(self) -> Result<()> {
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

/// Requests more for `slow` than fits into the buffers, and waits until nothing more is
/// executed for it. Returns the reply, which it gets 100 times.
fn flood(client: &mut BufReader<TcpStream>, slow: &BufReader<TcpStream>) -> String {
    let value = "v".repeat(200_000);
    assert_eq!(ask(client, &format!("SET a {value}")), "OK\n");
    send(slow, &b"GET a\n".repeat(100));
    let mut before = 0;
    loop {
        let requests = figure(client, "requests");
        if std::mem::replace(&mut before, requests) + 1 == requests && requests > 10 {
            assert!(requests < 100);
            return format!("VALUE {value}\n");
        }
    }
}

/// Everything until the connection ends; an error ends it too.
fn rest(client: &mut BufReader<TcpStream>) -> String {
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all);
    String::from_utf8(all).unwrap()
}

#[test]
fn every_request_is_served() {
    let served = serve(ServerOptions::default());
    let mut client = served.connect();
    for (request, expected) in [
        ("PING", "PONG\n"),
        ("GET a", "NOT_FOUND\n"),
        ("SET a 1", "OK\n"),
        ("GET a", "VALUE 1\n"),
        ("SCAN", "KEYS - a\n"),
        ("RM a", "OK\n"),
        ("RM a", "NOT_FOUND\n"),
    ] {
        assert_eq!(ask(&mut client, request), expected);
    }
    assert!(ask(&mut client, "HELP").starts_with("HELP "));
    assert!(ask(&mut client, "STATS").contains(" requests=9 "));
    assert!(ask(&mut client, "WHAT").starts_with("ERR unknown-verb "));
    assert_eq!(ask(&mut client, "QUIT"), "OK\n");
    assert_eq!(rest(&mut client), "");
    served.stop().unwrap();
}

#[test]
fn a_pipeline_shares_commits_and_keeps_order() {
    let served = serve(ServerOptions::default());
    let mut client = served.connect();
    let requests: String = (0..1_000).map(|n| format!("SET k {n}\nGET k\n")).collect();
    let replies: String = (0..1_000).map(|n| format!("OK\nVALUE {n}\n")).collect();
    send(&client, requests.as_bytes());
    client.get_ref().shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), replies);
    assert!(Controls::count(&served.controls.syncs) < 100);
    served.stop().unwrap();
}

#[test]
fn a_failed_write_fails_only_its_request() {
    let served = serve(ServerOptions::default());
    let mut client = served.connect();
    send(&client, b"SET a 1\nSET full 1\nGET a\nSET b 2\nPING\n");
    assert_eq!(reply(&mut client), "OK\n");
    assert_eq!(reply(&mut client), "ERR storage cannot append; caused by: the disk is full\n");
    assert_eq!(reply(&mut client), "VALUE 1\n");
    assert_eq!(reply(&mut client), "OK\n");
    assert_eq!(reply(&mut client), "PONG\n");
    served.stop().unwrap();
}

/// Pipelined writes of many clients meet an engine that fails after `fail`.
fn fail_under_load(fsync: Fsync, fail: fn(&Controls)) {
    let served = serve(ServerOptions { fsync, ..ServerOptions::default() });
    let mut clients: Vec<_> = (0..20).map(|_| served.connect()).collect();
    for client in &mut clients {
        assert_eq!(ask(client, "SET a 1"), "OK\n");
    }
    fail(&served.controls);
    for client in &mut clients {
        // The server may have closed the connection already.
        let _ = client.get_ref().write_all(&b"SET a 2\nGET a\n".repeat(50));
    }
    for client in &mut clients {
        assert_eq!(rest(client), "", "nothing of a failed iteration is sent");
    }
    assert!(served.thread.join().unwrap().is_err());
    assert!(served.controls.is_closed.load(Ordering::SeqCst));
    assert!(TcpStream::connect(served.address).is_err());
}

#[test]
fn a_failed_sync_acknowledges_nothing() {
    fail_under_load(Fsync::Always, Controls::fail_commits);
}

#[test]
fn a_failed_flush_acknowledges_nothing() {
    fail_under_load(Fsync::Never, Controls::fail_commits);
}

#[test]
fn a_failed_engine_acknowledges_nothing() {
    fail_under_load(Fsync::Never, |controls| controls.has_failed.store(true, Ordering::SeqCst));
}

#[test]
fn shutdown_is_answered_last() {
    let served = serve(ServerOptions::default());
    let mut idle = served.connect();
    let mut client = served.connect();
    assert_eq!(ask(&mut idle, "SET a 1"), "OK\n");
    send(&client, b"PING\nSHUTDOWN\r\nPING\n");
    assert_eq!(reply(&mut client), "PONG\n");
    assert_eq!(reply(&mut client), "OK\r\n");
    assert!(served.controls.is_closed.load(Ordering::SeqCst));
    TcpListener::bind(served.address).unwrap();
    assert_eq!(rest(&mut client), "");
    assert_eq!(rest(&mut idle), "");
    served.thread.join().unwrap().unwrap();
}

#[test]
fn shutdown_waits_once_for_a_client_that_does_not_read() {
    let served = serve(ServerOptions::default());
    let (mut client, slow) = (served.connect(), served.connect());
    flood(&mut client, &slow);
    let start = Instant::now();
    assert_eq!(ask(&mut client, "SHUTDOWN"), "OK\n");
    served.thread.join().unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_millis(3_500));
}

#[test]
fn a_slow_reader_gets_whole_replies_before_the_end() {
    let served = serve(ServerOptions::default());
    let (mut client, mut slow) = (served.connect(), served.connect());
    let reply = flood(&mut client, &slow);
    served.stop.stop();
    // The server has begun to shut down.
    std::thread::sleep(Duration::from_millis(200));
    let all = rest(&mut slow);
    assert!(!all.is_empty() && all == reply.repeat(all.len() / reply.len()));
    served.thread.join().unwrap().unwrap();
}

#[test]
fn a_shutdown_without_sync_says_so() {
    let served = serve(ServerOptions::default());
    let mut client = served.connect();
    served.controls.fail_commits();
    assert!(ask(&mut client, "SHUTDOWN").starts_with("ERR storage "));
    assert!(served.thread.join().unwrap().is_err());
}

#[test]
fn a_client_over_the_limit_is_told() {
    let served = serve(ServerOptions { clients_max: 2, ..ServerOptions::default() });
    let (mut first, mut second) = (served.connect(), served.connect());
    assert_eq!(ask(&mut first, "PING"), "PONG\n");
    assert_eq!(ask(&mut second, "PING"), "PONG\n");
    for _ in 0..200 {
        assert!(reply(&mut served.connect()).starts_with("ERR busy "));
    }
    assert_eq!(ask(&mut first, "QUIT"), "OK\n");
    drop(first);
    let mut third = served.connect();
    while !ask(&mut third, "PING").starts_with("PONG") {
        third = served.connect();
    }
    assert_eq!(ask(&mut second, "PING"), "PONG\n");
    served.stop().unwrap();
}

#[test]
fn refused_clients_are_limited_too() {
    let served = serve(ServerOptions { clients_max: 1, ..ServerOptions::default() });
    let mut first = served.connect();
    assert_eq!(ask(&mut first, "PING"), "PONG\n");
    let others: Vec<_> = (0..100).map(|_| served.connect()).collect();
    for mut other in others {
        assert!(reply(&mut other).starts_with("ERR busy "));
        assert!(figure(&mut first, "clients") <= 65);
    }
    served.stop().unwrap();
}

#[test]
fn a_slow_reader_gets_every_reply_and_delays_nobody() {
    let served = serve(ServerOptions::default());
    let (mut client, mut slow) = (served.connect(), served.connect());
    let reply = flood(&mut client, &slow);
    slow.get_ref().shutdown(Shutdown::Write).unwrap();
    assert!(rest(&mut slow) == reply.repeat(100));
    served.stop().unwrap();
}

#[test]
fn many_idle_clients_are_served() {
    let served = serve(ServerOptions::default());
    let mut clients: Vec<_> = (0..200).map(|_| served.connect()).collect();
    let mut busy = served.connect();
    for round in 0..2 {
        for client in &mut clients {
            assert_eq!(ask(client, "PING"), "PONG\n", "in round {round}");
        }
        // Until all of them are idle.
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(2_050) {
            assert_eq!(ask(&mut busy, "PING"), "PONG\n");
        }
    }
    served.stop().unwrap();
}

#[test]
fn everysec_syncs_in_the_background() {
    let served = serve(ServerOptions { fsync: Fsync::EverySec, ..ServerOptions::default() });
    let mut client = served.connect();
    assert_eq!(ask(&mut client, "SET a 1"), "OK\n");
    let start = Instant::now();
    while Controls::count(&served.controls.background_syncs) == 0 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    assert_eq!(Controls::count(&served.controls.syncs), 0);
    served.stop().unwrap();
}

#[test]
fn housekeeping_continues_between_reads() {
    let served = serve(ServerOptions { fsync: Fsync::Never, ..ServerOptions::default() });
    let mut client = served.connect();
    served.controls.steps.store(50, Ordering::SeqCst);
    assert_eq!(ask(&mut client, "SET a 1"), "OK\n");
    let start = Instant::now();
    while Controls::count(&served.controls.steps) > 0 {
        assert!(start.elapsed() < PATIENCE);
        assert_eq!(ask(&mut client, "GET a"), "VALUE 1\n");
    }
    served.stop().unwrap();
}

#[test]
fn departed_clients_leave_nothing() {
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
    served.stop().unwrap();
}

#[test]
fn bind_listens_or_names_the_address() {
    let bind = |address| {
        let engine = Box::new(MemoryEngine::new(Controls::default()));
        KvsServer::bind(engine, address, ServerOptions::default())
    };
    let server = bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = server.local_addr();
    assert!(format!("{server:?}").contains(&address.to_string()));
    let thread = std::thread::spawn(move || server.run(Stop::never()));
    let mut client = crate::KvsClient::connect(address).unwrap();
    client.ping().unwrap();
    client.shutdown().unwrap();
    thread.join().unwrap().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind(address).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot listen on {address}"));
}

#[test]
fn a_client_is_read_whatever_an_option_says() {
    let served = serve(ServerOptions { read_bytes_max: 0, ..ServerOptions::default() });
    let mut client = served.connect();
    assert_eq!(ask(&mut client, "PING"), "PONG\n");
    served.stop().unwrap();
}
