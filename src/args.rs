//! Splits a command line into flags, their values, and words.
//!
//! A program takes one [`Arg`] at a time. After a flag with a value it calls
//! [`value`](Lexer::value), which accepts `--flag value` and `--flag=value`. All
//! arguments after `--` are words.
//!
//! This file knows no particular flag, and prints nothing. Errors are messages for
//! the user, in which control characters are not escaped.

use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// `-f`, `--flag` or `-`: with its dashes, without its value.
    Flag(String),
    /// Any other argument.
    Word(String),
}

/// The arguments of a program.
pub struct Lexer {
    args: std::vec::IntoIter<String>,
    /// The last flag, for messages.
    flag: String,
    /// The text after its `=`, until [`value`](Self::value) takes it.
    value: Option<String>,
    /// Whether there was a `--`.
    words_only: bool,
}

impl Lexer {
    /// Takes the arguments without the program's name. Fails if one is not UTF-8.
    pub fn new(args: impl Iterator<Item = OsString>) -> Result<Lexer, String> {
        let args: Result<Vec<String>, OsString> = args.map(OsString::into_string).collect();
        let not_utf8 = |arg: OsString| format!("the argument '{}' is not UTF-8", arg.display());
        let args = args.map_err(not_utf8)?.into_iter();
        Ok(Lexer { args, flag: String::new(), value: None, words_only: false })
    }

    /// Returns the next argument, or `None` after the last. Fails if the last flag has
    /// a value that was not taken.
    #[expect(clippy::should_implement_trait, reason = "an iterator's `next` cannot fail")]
    pub fn next(&mut self) -> Result<Option<Arg>, String> {
        if self.value.is_some() {
            return Err(format!("{} takes no value", self.flag));
        }
        let Some(arg) = self.args.next() else { return Ok(None) };
        if self.words_only || !arg.starts_with('-') {
            return Ok(Some(Arg::Word(arg)));
        }
        if arg == "--" {
            self.words_only = true;
            return self.next();
        }
        let (flag, value) = match arg.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        (self.flag, self.value) = (flag.clone(), value);
        Ok(Some(Arg::Flag(flag)))
    }

    /// Returns the value of the last flag.
    pub fn value(&mut self) -> Result<String, String> {
        let value = self.value.take().or_else(|| self.args.next());
        value.ok_or_else(|| format!("{} needs a value", self.flag))
    }

    /// Returns the value of the last flag, parsed.
    pub fn parsed_value<T, E: Display>(
        &mut self,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, String> {
        let value = self.value()?;
        parse(&value).map_err(|reason| format!("{} cannot be '{value}': {reason}", self.flag))
    }

    /// Returns the value of the last flag, a number within limits.
    pub fn number(&mut self, limits: RangeInclusive<u64>) -> Result<u64, String> {
        self.parsed_value(|text| match parse_number(text) {
            None => Err("it has to be a number such as 4096, 64K, 1M or 2G".to_owned()),
            Some(number) if limits.contains(&number) => Ok(number),
            Some(_) => Err(format!("it has to be from {} to {}", limits.start(), limits.end())),
        })
    }

    /// The error for a flag that the program does not know.
    pub fn unknown(&self) -> String {
        format!("there is no flag '{}'", self.flag)
    }
}

/// Parses digits, then maybe `K`, `M` or `G` for powers of 1,024.
fn parse_number(text: &str) -> Option<u64> {
    let unit_at = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let factor = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lexer for these words.
    fn lexer(words: &str) -> Lexer {
        Lexer::new(words.split_whitespace().map(OsString::from)).unwrap()
    }

    /// All arguments, if no flag has a value.
    fn args(words: &str) -> Result<Vec<Arg>, String> {
        let mut lexer = lexer(words);
        std::iter::from_fn(|| lexer.next().transpose()).collect()
    }

    fn word(text: &str) -> Arg {
        Arg::Word(text.to_owned())
    }

    fn flag(text: &str) -> Arg {
        Arg::Flag(text.to_owned())
    }

    #[test]
    fn flags_and_words_come_in_any_order() {
        assert_eq!(
            args("a -v - --long b"),
            Ok(vec![word("a"), flag("-v"), flag("-"), flag("--long"), word("b")])
        );
        assert_eq!(args(""), Ok(vec![]));
        assert_eq!(
            args("a -- -v -- - --x=1"),
            Ok(vec![word("a"), word("-v"), word("--"), word("-"), word("--x=1")])
        );
    }

    #[test]
    fn values_follow_a_blank_or_an_equals_sign() {
        for words in ["--addr a=b c", "--addr=a=b c"] {
            let mut lexer = lexer(words);
            assert_eq!(lexer.next(), Ok(Some(flag("--addr"))));
            assert_eq!(lexer.value(), Ok("a=b".to_owned()));
            assert_eq!(lexer.next(), Ok(Some(word("c"))));
            assert_eq!(lexer.next(), Ok(None));
        }
        let mut lexer = lexer("--addr=");
        lexer.next().unwrap();
        assert_eq!(lexer.value(), Ok(String::new()));
    }

    #[test]
    fn faults_are_described() {
        let mut missing = lexer("--addr");
        missing.next().unwrap();
        assert_eq!(missing.value().unwrap_err(), "--addr needs a value");
        assert_eq!(missing.number(0..=1).unwrap_err(), "--addr needs a value");
        assert_eq!(missing.unknown(), "there is no flag '--addr'");
        let mut bad = lexer("--cache=1x");
        bad.next().unwrap();
        let error = "--cache cannot be '1x': it has to be a number such as 4096, 64K, 1M or 2G";
        assert_eq!(bad.number(0..=1).unwrap_err(), error);
        assert_eq!(args("--help=x a").unwrap_err(), "--help takes no value");
    }

    #[test]
    fn arguments_must_be_utf8() {
        use std::os::unix::ffi::OsStringExt;
        let args = ["a".into(), OsString::from_vec(b"a\xff".to_vec())];
        let error = Lexer::new(args.into_iter()).err();
        assert_eq!(error.as_deref(), Some("the argument 'a\u{fffd}' is not UTF-8"));
    }

    #[test]
    fn numbers_have_binary_units() {
        for (text, number) in
            [("0", 0), ("4096", 4096), ("64K", 65_536), ("1m", 1 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(parse_number(text), Some(number));
        }
        for text in ["", "K", "1KB", "-1", "+1", "1.5M", "18446744073709551615K", "\u{e9}"] {
            assert!(parse_number(text).is_none(), "{text}");
        }
    }
}
