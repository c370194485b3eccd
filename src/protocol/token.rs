//! Tokens: the words of a line, bare or quoted, and their escapes.
//!
//! Not here: what a line of tokens means ([`protocol`](super)), where the
//! grammar stands.
//!
//! Invariants:
//! * What [`push_token`] writes, [`Tokens`] reads back as it was, for every
//!   string (`every_string_comes_back`).
//! * Nothing that [`push_token`] or [`push_text`] writes holds a control
//!   character (`no_control_character_is_ever_sent`): no value can end a line,
//!   or tell a terminal what to do.

use std::borrow::Cow;

/// How many bytes an escape has for each that it stands for, at the most: `\x1b` has
/// four for one, and `\u{9b}` six for two.
pub(super) const ESCAPE_FACTOR_MAX: usize = 4;

/// Bytes that are looked at together: as few comparisons of a vector each.
const CHUNK_BYTES: usize = 32;

/// Whether a byte of UTF-8 may not stand in any token as it is: blanks, quotes,
/// backslashes, control characters, and 0xC2, which may begin one. Without
/// branches (`|`, not `||`), so that many bytes are compared at once.
const fn is_special(byte: u8) -> bool {
    (byte <= b' ') | (byte == b'"') | (byte == b'\\') | (byte == 0x7F) | (byte == 0xC2)
}

/// How many bytes come before the first that is special.
fn plain_len(bytes: &[u8]) -> usize {
    let (chunks, _) = bytes.as_chunks::<CHUNK_BYTES>();
    // Not `any`, which would look at one after the other.
    let is_any_special =
        |chunk: &[u8; CHUNK_BYTES]| chunk.iter().fold(false, |any, byte| any | is_special(*byte));
    let start = CHUNK_BYTES * chunks.iter().take_while(|chunk| !is_any_special(chunk)).count();
    start + bytes[start..].iter().take_while(|byte| !is_special(**byte)).count()
}

/// The tokens of a line, in order. After an error there are none.
pub(super) struct Tokens<'a> {
    /// The line, its ending left out.
    line: &'a str,
    /// Where the next blank or token begins.
    at: usize,
}

impl<'a> Tokens<'a> {
    /// The tokens of `line` from `at` on.
    pub(super) fn new(line: &'a str, at: usize) -> Tokens<'a> {
        Tokens { line, at }
    }

    /// The next token; `None` at the end of the line.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and at which byte of the line, counted from 1.
    pub(super) fn next(&mut self) -> Result<Option<Cow<'a, str>>, String> {
        let bytes = self.line.as_bytes();
        while bytes.get(self.at).is_some_and(|byte| is_blank(*byte)) {
            self.at += 1;
        }
        let start = self.at;
        let len = plain_len(&bytes[start..]);
        let end = start + len;
        if bytes.get(end).is_none_or(|byte| is_blank(*byte)) {
            self.at = end;
            return Ok((len > 0).then(|| Cow::Borrowed(&self.line[start..end])));
        }
        self.next_special().map(|token| Some(Cow::Owned(token)))
    }

    /// The token that begins here, character by character.
    fn next_special(&mut self) -> Result<String, String> {
        let is_quoted = self.line[self.at..].starts_with('"');
        let mut rest = self.line[self.at + usize::from(is_quoted)..].chars();
        let mut token = String::new();
        let column = |rest: &str| self.line.len() - rest.len() + 1;
        loop {
            let here = rest.as_str();
            match rest.next() {
                None if is_quoted => return Err("a quoted word has no closing quote".to_owned()),
                Some('"') if is_quoted => break,
                Some(' ' | '\t') | None if !is_quoted => {
                    rest = here.chars();
                    break;
                }
                Some('"') => {
                    return Err(format!("a quote inside a bare word at byte {}", column(here)));
                }
                Some('\\') => token.push(
                    unescape(&mut rest)
                        .ok_or_else(|| format!("no such escape at byte {}", column(here)))?,
                ),
                Some(char) if char.is_control() => {
                    return Err(format!("a control character at byte {}; escape it", column(here)));
                }
                Some(char) => token.push(char),
                None => break,
            }
        }
        let rest = rest.as_str();
        if rest.starts_with(|char| char != ' ' && char != '\t') {
            return Err(format!("no blank after a closing quote, at byte {}", column(rest)));
        }
        self.at = self.line.len() - rest.len();
        Ok(token)
    }
}

/// Whether a byte is a blank.
pub(super) fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// The character of the escape whose backslash has been taken from `rest`.
fn unescape(rest: &mut std::str::Chars<'_>) -> Option<char> {
    match rest.next()? {
        'n' => Some('\n'),
        'r' => Some('\r'),
        't' => Some('\t'),
        '0' => Some('\0'),
        same @ ('\\' | '"' | '\'') => Some(same),
        'x' => {
            let number = rest.next()?.to_digit(16)? * 16 + rest.next()?.to_digit(16)?;
            char::from_u32(number).filter(char::is_ascii)
        }
        'u' => {
            let (digits, after) = rest.as_str().strip_prefix('{')?.split_once('}')?;
            let is_number = digits.len() <= 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            *rest = after.chars();
            char::from_u32(u32::from_str_radix(digits, 16).ok().filter(|_| is_number)?)
        }
        _ => None,
    }
}

/// Appends a string as a token: bare where it can be, else quoted.
pub(super) fn push_token(out: &mut Vec<u8>, text: &str) {
    if !text.is_empty() && plain_len(text.as_bytes()) == text.len() {
        return out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
    push_escaped(out, text, |char| matches!(char, '"' | '\\'));
    out.push(b'"');
}

/// Appends text with its control characters escaped.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    push_escaped(out, text, |_| false);
}

/// Appends text with control characters, and those that `must` be, escaped.
fn push_escaped(out: &mut Vec<u8>, text: &str, must: impl Fn(char) -> bool) {
    let mut rest = text;
    while let Some(at) = rest.find(|char: char| char.is_control() || must(char)) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain.as_bytes());
        let mut chars = special.chars();
        out.extend(chars.next().into_iter().flat_map(escape).map(|char| char as u8));
        rest = chars.as_str();
    }
    out.extend_from_slice(rest.as_bytes());
}

/// The escape of a character.
fn escape(char: char) -> impl Iterator<Item = char> {
    let escape = match char {
        '\0' => "\\0".to_owned(),
        '\n' | '\r' | '\t' | '"' | '\\' => char.escape_default().to_string(),
        '\0'..='\x7F' => format!("\\x{:02x}", u32::from(char)),
        _ => char.escape_unicode().to_string(),
    };
    escape.chars().collect::<Vec<_>>().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All tokens of a line.
    fn tokens(line: &str) -> Result<Vec<String>, String> {
        let mut tokens = Tokens::new(line, 0);
        let mut all = Vec::new();
        while let Some(token) = tokens.next()? {
            all.push(token.into_owned());
        }
        Ok(all)
    }

    /// A string as a token.
    fn token(text: &str) -> String {
        let mut out = Vec::new();
        push_token(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn words_are_bare_or_quoted_and_blanks_between_them() {
        assert_eq!(tokens("a b"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(tokens("  a \t\"b c\"\t "), Ok(vec!["a".to_owned(), "b c".to_owned()]));
        assert_eq!(tokens("\"\" ''"), Ok(vec![String::new(), "''".to_owned()]));
        assert_eq!(tokens(" \t"), Ok(vec![]));
        assert_eq!(tokens("h\u{e9}\u{a0}\u{1F600}"), Ok(vec!["h\u{e9}\u{a0}\u{1F600}".to_owned()]));
    }

    #[test]
    fn a_byte_that_is_not_plain_is_found_wherever_it_is() {
        let plain = [b'x'; 3 * CHUNK_BYTES + 5];
        for len in 0..plain.len() {
            assert_eq!(plain_len(&plain[..len]), len);
            for special in [b' ', b'\t', b'"', b'\\', b'\0', 0x1F, 0x7F, 0xC2] {
                let mut bytes = plain;
                bytes[len] = special;
                assert_eq!(plain_len(&bytes), len);
            }
        }
    }

    #[test]
    fn every_escape_is_read_in_bare_and_quoted_words() {
        let escapes = r#"\n\r\t\0\\\"\'\x41\x7f\u{e9}\u{1F600}\u{00000a}"#;
        let expected = "\n\r\t\0\\\"'A\x7f\u{e9}\u{1F600}\n";
        assert_eq!(tokens(escapes), Ok(vec![expected.to_owned()]));
        assert_eq!(tokens(&format!("\"{escapes}\"")), Ok(vec![expected.to_owned()]));
    }

    #[test]
    fn what_is_wrong_is_said_and_where() {
        for (line, message) in [
            ("a \"b", "a quoted word has no closing quote"),
            ("a b\"c", "a quote inside a bare word at byte 4"),
            ("\"a\"b", "no blank after a closing quote, at byte 4"),
            ("a\rb", "a control character at byte 2; escape it"),
            ("\"a\tb\"", "a control character at byte 3; escape it"),
            ("a\0", "a control character at byte 2; escape it"),
            ("\u{9b}2J", "a control character at byte 1; escape it"),
        ] {
            assert_eq!(tokens(line), Err(message.to_owned()), "{line:?}");
        }
        for escape in [
            "\\",
            "\\q",
            "\\x4",
            "\\x80",
            "\\xg0",
            "\\u",
            "\\u{}",
            "\\u{d800}",
            "\\u{110000}",
            "\\u{0000041}",
            "\\u{+41}",
            "\\u{41",
            "\\N",
        ] {
            assert_eq!(tokens(escape), Err("no such escape at byte 1".to_owned()), "{escape}");
        }
    }

    #[test]
    fn a_token_is_bare_where_it_can_be() {
        for (text, expected) in [
            ("plain", "plain"),
            ("it's=1/2", "it's=1/2"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            ("\\", "\"\\\\\""),
            ("a\"\n\r\t\0\u{1b}\u{7f}\u{9b}\u{a0}", "\"a\\\"\\n\\r\\t\\0\\x1b\\x7f\\u{9b}\u{a0}\""),
        ] {
            assert_eq!(token(text), expected);
        }
    }

    #[test]
    fn every_string_comes_back() {
        let mut random = 1u64;
        let mut next = move || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            random >> 33
        };
        for _ in 0..5_000 {
            let limits = [0x80, 0x100, 0x3000, 0x11_0000];
            let mut random_char = || char::from_u32((next() % limits[next() as usize % 4]) as u32);
            let text: String = (0..12).filter_map(|_| random_char()).collect();
            assert_eq!(tokens(&format!("{} x", token(&text))), Ok(vec![text, "x".to_owned()]));
        }
    }

    #[test]
    fn no_control_character_is_ever_sent() {
        let all: String = ('\0'..=char::MAX).collect();
        let mut text = Vec::new();
        push_text(&mut text, &all);
        for sent in [String::from_utf8(text).unwrap(), token(&all)] {
            assert!(!sent.contains(char::is_control));
        }
    }
}
