//! Lines, levels, limits, and a stderr that nobody reads.

use super::*;

#[test]
fn a_message_is_one_line() {
    let now = UNIX_EPOCH + Duration::from_millis(1_795_445_045_123);
    assert_eq!(
        line(now, Level::Warn, false, "a\nERROR\u{1b}[2J\u{9b}\u{e9}"),
        "2026-11-23T14:44:05.123Z WARN  a\\nERROR\\u{1b}[2J\\u{9b}\u{e9}\n"
    );
    assert_eq!(
        line(now, Level::Error, true, "a"),
        "2026-11-23T14:44:05.123Z \x1b[31mERROR\x1b[0m a\n"
    );
}

#[test]
fn a_long_message_is_cut_off() {
    let line = line(UNIX_EPOCH, Level::Warn, false, &"\u{20ac}".repeat(MESSAGE_BYTES_MAX));
    assert!(line.ends_with("\u{20ac}\n"));
    assert!((MESSAGE_BYTES_MAX - 3..=MESSAGE_BYTES_MAX).contains(&line.len()));
}

#[test]
fn a_full_pipe_drops_messages_and_counts_them() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut dropped = 0;
    let mut log = || {
        write_to(&writer, writer.as_raw_fd(), Level::Warn, &"x".repeat(4_000), &mut dropped);
        dropped
    };
    let written = (0..).find(|_| log() > 0).unwrap();
    assert_eq!(log(), 2);
    let mut buffer = vec![0; 8 * MESSAGE_BYTES_MAX];
    let _ = std::io::Read::read(&mut reader, &mut buffer).unwrap();
    assert_eq!(log(), 0);
    drop(writer);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reader, &mut rest).unwrap();
    assert!(written > 1 && rest.contains(" 2 messages were dropped, because stderr was full\n"));
}

#[test]
fn messages_are_limited_per_second() {
    let (mut limit, mut count) = (RateLimit::new(2), 0);
    (0..9).for_each(|_| limit.run(|| count += 1));
    limit.second -= Duration::from_secs(1);
    (0..9).for_each(|_| limit.run(|| count += 1));
    assert_eq!(count, 4);
}

#[test]
fn colours_need_a_terminal() {
    let [empty, set] = ["", "1"].map(|text| Some(OsStr::new(text)));
    assert!(is_coloured(true, None) && is_coloured(true, empty));
    assert!(!is_coloured(true, set) && !is_coloured(false, None));
}

#[test]
fn days_are_dates() {
    for (days, date) in [
        (0, (1970, 1, 1)),
        (58, (1970, 2, 28)),
        (59, (1970, 3, 1)),
        (11_016, (2000, 2, 29)),
        (11_017, (2000, 3, 1)),
        (47_541, (2100, 3, 1)),
    ] {
        assert_eq!(civil_from_days(days), date);
    }
}

#[test]
fn levels_have_names_in_any_case() {
    for (level, name) in LEVELS.into_iter().zip(NAMES) {
        assert_eq!(name.to_uppercase().parse(), Ok(level));
    }
    let error = "no level is called 'x': use one of off, error, warn, info, debug, trace";
    assert_eq!("x".parse::<Level>(), Err(error.to_owned()));
    assert!(!is_shown(Level::Error), "a library is silent");
}
