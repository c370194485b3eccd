//! When it is told how far recovery has come.

use super::*;

#[test]
fn progress_is_told_once_in_a_period_and_not_before_the_first_has_passed() {
    let now = Instant::now();
    let mut progress = Progress { told: now + Progress::PERIOD };
    progress.tell(1, 2);
    assert_eq!(progress.told, now + Progress::PERIOD, "told too soon");
    if let Some(before) = now.checked_sub(Progress::PERIOD) {
        progress.told = before;
        progress.tell(1, 2);
        assert!(progress.told >= now, "not told");
    }
}
