//! A shared secret, and the state of a client that may have to say it.
//!
//! Not here: where the secret comes from, and what is answered.

use std::fmt;
use std::hint::black_box;

use crate::protocol::Request;

/// What clients say with `AUTH` before anything else is done for them.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A secret; `None` for the empty one, which would be none.
    pub fn new(token: String) -> Option<Secret> {
        (!token.is_empty()).then(|| Secret(token.into_bytes()))
    }

    /// Whether `token` is the secret. How long that takes tells nothing of the
    /// secret: every byte of `token` is compared, whichever differ.
    pub(super) fn is(&self, token: &str) -> bool {
        let secret = self.0.iter().cycle();
        let differing = token.bytes().zip(secret).fold(0, |all, (a, b)| all | black_box(a ^ b));
        black_box(differing) == 0 && token.len() == self.0.len()
    }
}

/// Without the secret, so that no message can show it.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Whether a client has said the secret, or need not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// It has to, and has not.
    Stranger,
    /// Everything is done for it.
    Trusted,
}

impl Trust {
    /// That of a new client.
    pub(super) fn of_new(secret: Option<&Secret>) -> Trust {
        if secret.is_some() { Trust::Stranger } else { Trust::Trusted }
    }

    /// Whether a request is carried out for such a client.
    pub(super) fn covers(self, request: &Request<'_>) -> bool {
        let is_harmless =
            matches!(request, Request::Auth { .. } | Request::Help | Request::Ping | Request::Quit);
        self == Trust::Trusted || is_harmless
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_is_the_secret() {
        let secret = Secret::new("abab".to_owned()).unwrap();
        assert!(secret.is("abab"));
        for token in ["", "a", "ab", "aba", "ababa", "abababab", "abaB", "Abab", "baab"] {
            assert!(!secret.is(token), "{token}");
        }
        assert!(Secret::new(String::new()).is_none());
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
