//! Words, quotes and escapes, decoded and encoded.

use super::*;

/// All tokens of a line.
fn tokens(line: &str) -> Result<Vec<String>, String> {
    Tokens { len: line.len(), rest: line }.map(|token| token.map(Cow::into_owned)).collect()
}

/// A string as a token.
fn token(text: &str) -> String {
    let mut out = Vec::new();
    push_token(&mut out, text, char::is_control);
    String::from_utf8(out).unwrap()
}

#[test]
fn blanks_separate_bare_and_quoted_words() {
    assert_eq!(tokens("a b"), Ok(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(tokens("  a \t\"b c\"\t "), Ok(vec!["a".to_owned(), "b c".to_owned()]));
    assert_eq!(tokens("\"\" ''"), Ok(vec![String::new(), "''".to_owned()]));
    assert_eq!(tokens(" \t"), Ok(vec![]));
    assert_eq!(tokens("h\u{e9}\u{a0}\u{1F600}"), Ok(vec!["h\u{e9}\u{a0}\u{1F600}".to_owned()]));
}

#[test]
fn a_special_byte_is_found_anywhere() {
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
fn json_escapes_are_decoded_bare_and_quoted() {
    let escapes = r#"\"\\\/\b\f\n\r\t\u0041\u00e9\uD83D\ude00\u0000"#;
    let expected = "\"\\/\u{8}\u{c}\n\r\tA\u{e9}\u{1F600}\0";
    assert_eq!(tokens(escapes), Ok(vec![expected.to_owned()]));
    assert_eq!(tokens(&format!("\"{escapes}\"")), Ok(vec![expected.to_owned()]));
}

#[test]
fn output_of_json_encoders_is_decoded() {
    // Python's json.dumps leaves DEL as it is; without ensure_ascii, C1 too.
    for (text, expected) in [
        (r#""k\u00e9""#, "k\u{e9}"),
        (r#""a\/b\ud83d\ude00""#, "a/b\u{1F600}"),
        ("\"a\u{7f}\u{9b}b\"", "a\u{7f}\u{9b}b"),
        ("\"a \u{2028}'\"", "a \u{2028}'"),
    ] {
        assert_eq!(tokens(text), Ok(vec![expected.to_owned()]));
    }
}

#[test]
fn an_error_says_what_and_where() {
    for (line, message) in [
        ("a \"b", "a quoted word has no closing quote"),
        ("a b\"c", "a quote inside a bare word at byte 4"),
        ("\"a\"b", "no blank after a closing quote, at byte 4"),
        ("a\rb", "a control character at byte 2; escape it"),
        ("\"a\tb\"", "a control character at byte 3; escape it"),
        ("a\0", "a control character at byte 2; escape it"),
        ("\u{9b}2J", "a control character at byte 1; escape it"),
        ("\"a\\q\"", "no such escape at byte 3"),
    ] {
        assert_eq!(tokens(line), Err(message.to_owned()), "{line:?}");
    }
    for escape in [
        r"\",
        r"\q",
        r"\0",
        r"\'",
        r"\x41",
        r"\u",
        r"\u{41}",
        r"\u004",
        r"\u+041",
        r"\u00g0",
        r"\ud800",
        r"\ud800x",
        r"\ud800\u0041",
        r"\ude00",
        r"\ude00\ud83d",
        r"\N",
        r"\u00",
        "\\u00\u{e9}\u{e9}",
    ] {
        assert_eq!(tokens(escape), Err("no such escape at byte 1".to_owned()), "{escape}");
        let quoted = format!("\"{escape} \"");
        let is_of_quote = escape == r"\";
        assert!(tokens(&quoted).is_err() || is_of_quote, "{quoted}");
    }
}

#[test]
fn a_token_is_quoted_only_if_needed() {
    for (text, expected) in [
        ("plain", "plain"),
        ("it's=1/2", "it's=1/2"),
        ("-", "-"),
        ("", "\"\""),
        ("a b", "\"a b\""),
        ("\\", r#""\\""#),
        (
            "a\"\n\r\t\u{8}\u{c}\0\u{1b}\u{7f}\u{9b}\u{a0}/",
            "\"a\\\"\\n\\r\\t\\b\\f\\u0000\\u001b\\u007f\\u009b\u{a0}/\"",
        ),
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

/// DEL and C1 characters may be raw in a request, so they stay so.
#[test]
fn a_request_is_hardly_longer_than_it_was() {
    for token in ["a", r#""a b""#, r"\n\\", "\"\u{7f}\u{85}\"", r#""\u0001\/""#] {
        let text = tokens(token).unwrap().concat();
        let mut again = Vec::new();
        push_token(&mut again, &text, |char| char < ' ');
        assert!(again.len() <= token.len() + 2, "{token}");
        assert_eq!(tokens(str::from_utf8(&again).unwrap()), Ok(vec![text]));
    }
}

#[test]
fn no_control_character_is_sent() {
    let all: String = ('\0'..=char::MAX).collect();
    let mut text = Vec::new();
    push_escaped(&mut text, &all, char::is_control);
    for sent in [String::from_utf8(text).unwrap(), token(&all)] {
        assert!(!sent.contains(char::is_control));
    }
}
