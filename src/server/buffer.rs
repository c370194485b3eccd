//! How the buffers of a client grow and shrink: in linear time, that of requests
//! never past what it may have to hold, and back to little once a client is idle.

/// Capacity that a buffer keeps when it is empty: enough for a pipeline of
/// small requests, and little enough for a thousand clients that are idle.
const KEPT_BYTES_MAX: usize = 16 << 10;

/// Makes room for `more` bytes in a buffer that will never hold more than
/// `most`: doubling keeps growth linear, and `most` keeps it from overshooting.
pub(super) fn reserve(buffer: &mut Vec<u8>, more: usize, most: usize) {
    let needed = buffer.len() + more;
    if needed > buffer.capacity() {
        let capacity = buffer.capacity().saturating_mul(2).min(most).max(needed);
        buffer.reserve_exact(capacity - buffer.len());
    }
}

/// Gives a buffer's memory back when it is empty and large.
pub(super) fn release(buffer: &mut Vec<u8>) {
    if buffer.is_empty() && buffer.capacity() > KEPT_BYTES_MAX {
        *buffer = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_doubles_but_stops_at_the_most() {
        let mut buffer = Vec::new();
        reserve(&mut buffer, 100, 250);
        assert_eq!(buffer.capacity(), 100);
        reserve(&mut buffer, 100, 250);
        assert_eq!(buffer.capacity(), 100, "what is needed fits in");
        buffer.resize(100, 0);
        reserve(&mut buffer, 1, 250);
        assert_eq!(buffer.capacity(), 200);
        buffer.resize(200, 0);
        reserve(&mut buffer, 1, 250);
        assert_eq!(buffer.capacity(), 250);
    }

    #[test]
    fn only_an_empty_and_large_buffer_is_released() {
        let mut small = Vec::with_capacity(KEPT_BYTES_MAX);
        release(&mut small);
        assert_eq!(small.capacity(), KEPT_BYTES_MAX);
        let mut buffer = vec![0; KEPT_BYTES_MAX + 1];
        release(&mut buffer);
        assert_eq!(buffer.len(), KEPT_BYTES_MAX + 1);
        buffer.clear();
        release(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
    }
}
