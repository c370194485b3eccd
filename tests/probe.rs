//! Probes: which of the uncovered lines can be reached.
mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};

use kvs::{KvStore, KvsClient, KvsEngine, KvsError, KvsServer, Options, ServerOptions, Stop};
use support::{Ran, Server, client, printed, server_command};

#[test]
fn help_to_a_full_disk() {
    for program in [env!("CARGO_BIN_EXE_kvs-client"), env!("CARGO_BIN_EXE_kvs-server")] {
        let full = Stdio::from(File::create("/dev/full").unwrap());
        let ran: Ran = Command::new(program).arg("--help").stdout(full).output().unwrap().into();
        assert!(
            ran.status == 1 && ran.stderr.starts_with("error: cannot write to stdout"),
            "{ran:?}"
        );
    }
}

fn answer(replies: &'static [&'static str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        for reply in replies {
            lines.read_line(&mut String::new()).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    addr
}

#[test]
fn dump_of_a_removed_key_and_of_nonsense() {
    let addr = answer(&["KEYS - a b\n", "NOT_FOUND\n", "VALUE 1\n"]).to_string();
    assert_eq!(client(&["dump", "--addr", &addr]), printed("SET b 1\n"));
    let addr = answer(&["KEYS - a\n", "PONG\n"]).to_string();
    let ran = client(&["dump", "--addr", &addr]);
    assert!(ran.status == 1 && ran.stderr.contains("does not answer GET"), "{ran:?}");
}

#[test]
fn a_terminal_ends_with_control_d() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path(), &[]);
    let command = env!("CARGO_BIN_EXE_kvs-client");
    let command = format!("stty -echo; {command} - --addr {}", server.addr);
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(b"PING\n\x04").unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.ends_with("kvs> PONG\r\nkvs> \r\n"), "{text:?}");
}

#[test]
fn nohup_is_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let server_path = server_command().get_program().to_owned();
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" --addr 127.0.0.1:0"]).arg(server_path);
    shell.env_remove("KVS_LOG").current_dir(dir.path());
    let server = Server::from_command(shell);
    server.signal("HUP");
    assert_eq!(server.client("set a 1"), printed(""));
    assert_eq!(server.client("ping"), printed("PONG\n"));
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn a_server_without_a_thread() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = server_command();
    command.env("RUST_MIN_STACK", (1u64 << 60).to_string()).current_dir(dir.path());
    command.args([
        "--addr",
        "127.0.0.1:0",
        "--fsync",
        "everysec",
        "--segment-size",
        "512",
        "--compact-threshold",
        "4096",
    ]);
    let server = Server::from_command(command);
    let lines: String = (0..2_000).map(|nth| format!("SET key{} value{nth}\n", nth % 10)).collect();
    assert_eq!(server.talk(lines.as_bytes()), "OK\n".repeat(2_000));
    server.signal("TERM");
    assert_eq!(server.wait().0.code(), Some(0));
}

#[test]
fn bind_listens_or_names_the_address() {
    let parent = tempfile::tempdir().unwrap();
    let open = || Box::new(KvStore::open(parent.path()).unwrap());
    let server =
        KvsServer::bind(open(), ([127, 0, 0, 1], 0).into(), ServerOptions::default()).unwrap();
    let addr = server.local_addr();
    println!("{server:?}");
    let thread = std::thread::spawn(move || server.run(Stop::never()));
    let mut client = KvsClient::connect(addr).unwrap();
    client.ping().unwrap();
    client.shutdown().unwrap();
    thread.join().unwrap().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let error = KvsServer::bind(open(), addr, ServerOptions::default()).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot listen on {addr}"));
}

#[test]
fn a_scan_finds_damage() {
    for harm in [
        |bytes: &mut Vec<u8>| bytes[37] ^= 1,
        |bytes: &mut Vec<u8>| {
            let (a, b) = (bytes[36..58].to_vec(), bytes[58..80].to_vec());
            bytes[36..80].copy_from_slice(&[b, a].concat());
        },
    ] as [fn(&mut Vec<u8>); 2]
    {
        let parent = tempfile::tempdir().unwrap();
        let mut options = Options::default();
        options.cache_bytes = 0;
        let store = KvStore::open_with(parent.path(), options).unwrap();
        store.set("a".to_owned(), "first".to_owned()).unwrap();
        store.set("b".to_owned(), "other".to_owned()).unwrap();
        let path = parent.path().join("00000001.kvs");
        let mut bytes = fs::read(&path).unwrap();
        harm(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let error = store.scan(None).unwrap_err();
        assert!(matches!(error, KvsError::Corrupt { .. }), "{error:?}");
    }
}
