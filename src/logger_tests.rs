//! Lines, levels, limits, and a stderr that nobody reads.

use super::*;

#[test]
fn a_message_is_one_line() {
    let now = Duration::from_millis(1_795_445_045_123);
    assert_eq!(
        text(now, Level::Warn, "a\nERROR\u{1b}[2J\u{9b}\u{e9}", 0),
        "2026-11-23T14:44:05.123Z WARN  a\\nERROR\\u{1b}[2J\\u{9b}\u{e9}\n"
    );
}

#[test]
fn a_long_message_is_cut_off() {
    for dropped in [0, 7] {
        let message = "\u{20ac}".repeat(TEXT_BYTES_MAX);
        let text = text(Duration::ZERO, Level::Warn, &message, dropped);
        assert!(text.ends_with("\u{20ac}\n"));
        assert!((TEXT_BYTES_MAX - 3..=TEXT_BYTES_MAX).contains(&text.len()));
    }
}

#[test]
fn a_full_pipe_drops_messages_and_counts_them() {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    let dropped = AtomicU64::new(0);
    let mut log = || {
        write_to(&mut writer, Level::Warn, &"x".repeat(4_000), &dropped);
        dropped.load(Relaxed)
    };
    let written = (0..).find(|_| log() > 0).unwrap();
    assert_eq!(log(), 2);
    let mut buffer = vec![0; 8 * TEXT_BYTES_MAX];
    let _ = std::io::Read::read(&mut reader, &mut buffer).unwrap();
    assert_eq!(log(), 0);
    drop(writer);
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut reader, &mut rest).unwrap();
    assert!(written > 1 && rest.contains(" 2 messages were dropped, because stderr was full\n"));
}

#[test]
fn messages_are_limited_per_second() {
    let limit = Limit::default();
    let count = |second| (0..99).filter(|_| is_within_limit(&limit, second)).count() as u32;
    assert_eq!(count(7), LIMITED_MAX);
    assert_eq!(count(7), 0);
    assert_eq!(count(8), LIMITED_MAX);
    // Messages that are not shown are not counted.
    write_limited(Level::Trace, format_args!("hidden"));
    assert_eq!(LIMITS[Level::Trace as usize].1.load(Relaxed), 0);
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
    for name in ["off", "Error", "WARN", "info", "debug", "trace"] {
        let level: Level = name.parse().unwrap();
        assert_eq!(format!("{level:?}").to_lowercase(), name.to_lowercase());
    }
    let error = "no level is called 'x': use one of off, error, warn, info, debug, trace";
    assert_eq!("x".parse::<Level>(), Err(error.to_owned()));
    assert!(!is_shown(Level::Error), "a library is silent");
}
