//! Splits a command line into flags, their values, and words.
//!
//! A program takes one flag at a time. After a flag with a value it calls
//! [`value`](Lexer::value), which accepts `--flag value` and `--flag=value`. All
//! arguments after `--` are words.
//!
//! This file knows no particular flag, and prints nothing. Errors are messages for
//! the user, in which control characters are not escaped.

use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;

/// The arguments of a program.
pub struct Lexer {
    args: std::vec::IntoIter<String>,
    /// The words before the last flag; all words after [`next_flag`](Self::next_flag)
    /// has returned `None`.
    pub words: Vec<String>,
    /// The last flag, for messages.
    flag: String,
    /// The text after its `=`, until [`value`](Self::value) takes it.
    value: Option<String>,
}

impl Lexer {
    /// Takes the arguments without the program's name. Fails if one is not UTF-8.
    pub fn new(args: impl Iterator<Item = OsString>) -> Result<Lexer, String> {
        let args: Result<Vec<String>, OsString> = args.map(OsString::into_string).collect();
        let args = args.map_err(|arg| format!("the argument '{}' is not UTF-8", arg.display()))?;
        let (args, words, flag) = (args.into_iter(), Vec::new(), String::new());
        Ok(Lexer { args, words, flag, value: None })
    }

    /// Returns the next flag with its dashes, or `None` after the last. `-` is a flag,
    /// too. Fails if the last flag has a value that was not taken.
    pub fn next_flag(&mut self) -> Result<Option<String>, String> {
        if self.value.is_some() {
            return Err(format!("{} takes no value", self.flag));
        }
        while let Some(arg) = self.args.next() {
            if arg == "--" {
                self.words.extend(self.args.by_ref());
            } else if !arg.starts_with('-') {
                self.words.push(arg);
            } else {
                let mut parts = arg.splitn(2, '=').map(str::to_owned);
                (self.flag, self.value) = (parts.next().unwrap_or_default(), parts.next());
                return Ok(Some(self.flag.clone()));
            }
        }
        Ok(None)
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

    /// A lexer for these arguments.
    fn lexer(args: &str) -> Lexer {
        Lexer::new(args.split_whitespace().map(OsString::from)).unwrap()
    }

    /// The flags, none of which has a value, and the words.
    fn split(args: &str) -> Result<(String, String), String> {
        let mut lexer = lexer(args);
        let flags: Result<Vec<String>, String> =
            std::iter::from_fn(|| lexer.next_flag().transpose()).collect();
        Ok((flags?.join(" "), lexer.words.join(" ")))
    }

    #[test]
    fn flags_and_words_come_in_any_order() {
        for (args, flags, words) in [
            ("a -v - --long b", "-v - --long", "a b"),
            ("", "", ""),
            ("a -- -v -- - --x=1", "", "a -v -- - --x=1"),
        ] {
            assert_eq!(split(args), Ok((flags.to_owned(), words.to_owned())));
        }
    }

    #[test]
    fn words_before_a_flag_are_known() {
        let mut lexer = lexer("a -v b");
        assert_eq!(lexer.next_flag(), Ok(Some("-v".to_owned())));
        assert_eq!(lexer.words, ["a"]);
    }

    #[test]
    fn values_follow_a_blank_or_an_equals_sign() {
        for args in ["--addr a=b c", "--addr=a=b c"] {
            let mut lexer = lexer(args);
            assert_eq!(lexer.next_flag(), Ok(Some("--addr".to_owned())));
            assert_eq!(lexer.value(), Ok("a=b".to_owned()));
            assert_eq!(lexer.next_flag(), Ok(None));
            assert_eq!(lexer.words, ["c"]);
        }
        let mut lexer = lexer("--addr=");
        lexer.next_flag().unwrap();
        assert_eq!(lexer.value(), Ok(String::new()));
    }

    #[test]
    fn faults_are_described() {
        let mut missing = lexer("--addr");
        missing.next_flag().unwrap();
        assert_eq!(missing.value().unwrap_err(), "--addr needs a value");
        assert_eq!(missing.number(0..=1).unwrap_err(), "--addr needs a value");
        let mut bad = lexer("--cache=1x");
        bad.next_flag().unwrap();
        let error = "--cache cannot be '1x': it has to be a number such as 4096, 64K, 1M or 2G";
        assert_eq!(bad.number(0..=1).unwrap_err(), error);
        assert_eq!(split("--help=x a").unwrap_err(), "--help takes no value");
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
