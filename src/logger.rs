//! Messages on stderr: five macros, a level, one line each.
//!
//! A `log`-style facade and its one logger in a file. The level is global, as
//! messages come from everywhere; it is off until [`init`] sets it, which only
//! the binaries do, so an embedded store says nothing.
//!
//! Not here: argv and environment, which the binaries read.
//!
//! Invariants:
//! * A message is one line, whatever it holds: control characters are escaped,
//!   so that no peer can forge a line or drive a terminal
//!   (`a_message_is_one_line_whatever_it_holds`).
//! * A message is one write, so that lines of several processes do not mix. An
//!   error of that write is ignored: there is nowhere left to tell of it.

use std::ffi::OsStr;
use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How grave a message is; the greater, the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// No message is so grave: as a limit, it turns all off.
    Off,
    /// Something failed that somebody has to look after.
    Error,
    /// Something is odd and was dealt with.
    Warn,
    /// What an operator wants to know of a healthy server.
    Info,
    /// Each connection.
    Debug,
    /// Each step.
    Trace,
}

/// Names of the levels, in their order.
const NAMES: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// Every level, in the same order.
const LEVELS: [Level; 6] =
    [Level::Off, Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
/// Terminal colours (ECMA-48 SGR) of the levels: red, yellow, green, blue, grey.
const COLOURS: [u8; 6] = [0, 31, 33, 32, 34, 90];

/// The least grave level that is shown. `Relaxed` is enough: no other memory
/// depends on it.
static MAX_LEVEL: AtomicU8 = AtomicU8::new(Level::Off as u8);
/// Whether level names are coloured.
static COLOUR: AtomicBool = AtomicBool::new(false);

impl FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> Result<Level, String> {
        let at = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name));
        at.map(|at| LEVELS[at]).ok_or_else(|| {
            format!("no level is called '{}': use one of {}", name.escape_debug(), NAMES.join(", "))
        })
    }
}

/// Shows messages up to this level from now on.
pub fn init(max_level: Level, colour: bool) {
    MAX_LEVEL.store(max_level as u8, Ordering::Relaxed);
    COLOUR.store(colour, Ordering::Relaxed);
}

/// Whether level names are coloured: on a terminal, unless `NO_COLOR` says
/// something.
pub fn is_coloured(is_terminal: bool, no_color: Option<&OsStr>) -> bool {
    is_terminal && no_color.is_none_or(OsStr::is_empty)
}

/// Whether messages of this level are shown.
pub fn is_shown(level: Level) -> bool {
    level as u8 <= MAX_LEVEL.load(Ordering::Relaxed)
}

/// Shows a message; the macros call it once they know that it is wanted.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    let colour = COLOUR.load(Ordering::Relaxed);
    let line = line(SystemTime::now(), level, colour, &message.to_string());
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The line of a message.
fn line(now: SystemTime, level: Level, colour: bool, message: &str) -> String {
    let name = NAMES[level as usize].to_uppercase();
    let name = match colour {
        true => format!("\x1b[{}m{name:5}\x1b[0m", COLOURS[level as usize]),
        false => format!("{name:5}"),
    };
    let mut line = format!("{} {name} ", timestamp(now));
    for char in message.chars() {
        match char.is_control() {
            true => line.extend(char.escape_default()),
            false => line.push(char),
        }
    }
    line.push('\n');
    line
}

/// A time as RFC 3339 has it, in UTC, with milliseconds.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Year, month and day of a day counted from 1970-01-01 (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`). Its years
/// begin in March, so that the leap day comes last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
    let month = if months_from_march < 10 { months_from_march + 3 } else { months_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Shows a message if its level is wanted; its text is made only then.
#[doc(hidden)]
#[macro_export]
macro_rules! log_at {
    ($level:ident, $($message:tt)+) => {
        if $crate::logger::is_shown($crate::logger::Level::$level) {
            $crate::logger::write($crate::logger::Level::$level, format_args!($($message)+));
        }
    };
}

/// Shows a message of [`Level::Error`].
#[doc(hidden)]
#[macro_export]
macro_rules! log_error { ($($message:tt)+) => { $crate::log_at!(Error, $($message)+) } }
/// Shows a message of [`Level::Warn`].
#[doc(hidden)]
#[macro_export]
macro_rules! log_warn { ($($message:tt)+) => { $crate::log_at!(Warn, $($message)+) } }
/// Shows a message of [`Level::Info`].
#[doc(hidden)]
#[macro_export]
macro_rules! log_info { ($($message:tt)+) => { $crate::log_at!(Info, $($message)+) } }
/// Shows a message of [`Level::Debug`].
#[doc(hidden)]
#[macro_export]
macro_rules! log_debug { ($($message:tt)+) => { $crate::log_at!(Debug, $($message)+) } }
/// Shows a message of [`Level::Trace`].
#[doc(hidden)]
#[macro_export]
macro_rules! log_trace { ($($message:tt)+) => { $crate::log_at!(Trace, $($message)+) } }

pub use crate::{
    log_debug as debug, log_error as error, log_info as info, log_trace as trace, log_warn as warn,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_it_holds() {
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
    fn levels_are_coloured_on_a_terminal_unless_no_color_says_something() {
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
}
