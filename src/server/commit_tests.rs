//! When the engine is called, by a clock of the test's.

use super::*;
use crate::server::testing::{Controls, MemoryEngine};
use std::sync::atomic::Ordering;

/// The calls of the engine so far: flushes, syncs, background syncs, maintains.
fn calls(engine: &MemoryEngine) -> [usize; 4] {
    let controls = &engine.controls;
    [&controls.flushes, &controls.syncs, &controls.background_syncs, &controls.maintains]
        .map(|counter| Controls::count(counter))
}

/// Runs what is due until nothing is; returns the times from `start` on.
fn run_all(committer: &mut Committer, engine: &MemoryEngine, start: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    while let Some(due) = committer.due() {
        committer.run_due(engine, due).unwrap();
        times.push(due.saturating_duration_since(start));
    }
    times
}

#[test]
fn each_policy_makes_its_calls() {
    for (fsync, expected) in
        [(Fsync::Always, [0, 1, 0]), (Fsync::EverySec, [1, 0, 1]), (Fsync::Never, [1, 0, 0])]
    {
        let (engine, mut committer) = (MemoryEngine::default(), Committer::new(fsync));
        committer.commit(&engine, Instant::now()).unwrap();
        run_all(&mut committer, &engine, Instant::now());
        assert_eq!(calls(&engine)[..3], expected, "{fsync:?}");
    }
}

#[test]
fn everysec_syncs_a_second_after_the_oldest_write() {
    let (engine, mut committer) = (MemoryEngine::default(), Committer::new(Fsync::EverySec));
    let start = Instant::now();
    for (after_ms, background_syncs) in [(0, 0), (500, 0), (999, 0), (1_000, 1), (1_999, 1)] {
        let now = start + Duration::from_millis(after_ms);
        committer.run_due(&engine, now).unwrap();
        committer.commit(&engine, now).unwrap();
        assert_eq!(calls(&engine)[2], background_syncs, "after {after_ms} ms");
    }
}

#[test]
fn a_failed_background_sync_is_fatal() {
    let (engine, mut committer) = (MemoryEngine::default(), Committer::new(Fsync::EverySec));
    let now = Instant::now();
    committer.commit(&engine, now).unwrap();
    engine.controls.fail_commits();
    assert!(committer.run_due(&engine, now + SECOND).is_err());
}

#[test]
fn an_idle_server_is_not_woken() {
    let (engine, mut committer) = (MemoryEngine::default(), Committer::new(Fsync::Always));
    let start = Instant::now();
    run_all(&mut committer, &engine, start);
    engine.controls.steps.store(2, Ordering::SeqCst);
    committer.commit(&engine, start).unwrap();
    let ms = Duration::from_millis;
    // Two steps, one that finds nothing to do, and one after a second.
    let expected = [ms(0), ms(1), ms(2), ms(1_000)];
    assert_eq!(run_all(&mut committer, &engine, start), expected);
    assert_eq!(committer.due(), None);
}

#[test]
fn every_write_is_followed_by_a_step() {
    let (engine, mut committer) = (MemoryEngine::default(), Committer::new(Fsync::Always));
    let now = Instant::now();
    for step in 1..=3 {
        committer.commit(&engine, now).unwrap();
        committer.run_due(&engine, now).unwrap();
        committer.run_due(&engine, now).unwrap();
        assert_eq!(calls(&engine)[3], step);
    }
}

#[test]
fn failed_housekeeping_is_retried_after_a_second() {
    let (engine, mut committer) = (MemoryEngine::default(), Committer::new(Fsync::Always));
    let now = Instant::now();
    engine.controls.fails_maintenance.store(true, Ordering::SeqCst);
    committer.run_due(&engine, now).unwrap();
    committer.commit(&engine, now).unwrap();
    assert_eq!(committer.due(), Some(now + SECOND), "a write does not retry it earlier");
    engine.controls.fails_maintenance.store(false, Ordering::SeqCst);
    committer.run_due(&engine, now + SECOND).unwrap();
    assert_eq!(committer.due(), None);
    engine.controls.has_failed.store(true, Ordering::SeqCst);
    committer.last_write = now;
    committer.maintain_at = Some(now);
    assert!(committer.run_due(&engine, now).is_err(), "a failed engine is fatal");
}

#[test]
fn a_policy_is_parsed_by_its_name() {
    for policy in [Fsync::Always, Fsync::EverySec, Fsync::Never] {
        assert_eq!(policy.as_str().parse(), Ok(policy));
    }
    assert!("Always".parse::<Fsync>().is_err());
}
