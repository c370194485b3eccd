//! The pair of sockets. Signals are tested with the real binary (`tests/`).

use super::*;

/// Whether a server would notice now that it should stop.
fn is_asked(stop: &Stop) -> bool {
    let mut fds = [stop.poll_fd()];
    crate::poll::wait(&mut fds, Duration::ZERO).unwrap() == 1
}

#[test]
fn a_request_to_stop_is_kept() {
    let (handle, stop) = Stop::pair().unwrap();
    assert!(!is_asked(&stop));
    handle.stop();
    assert!(is_asked(&stop));
}

#[test]
fn dropping_the_handle_stops() {
    let (handle, stop) = Stop::pair().unwrap();
    drop(handle);
    assert!(is_asked(&stop));
}

#[test]
fn an_impossible_handler_is_an_error() {
    const SIGKILL: c_int = 9;
    assert!(set_handler(SIGKILL, SIG_IGN).is_err());
}
