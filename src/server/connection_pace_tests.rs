//! When a connection is read, executed and ended, and when not.

use super::*;

#[test]
fn a_peer_that_has_ended_its_input_is_not_waited_for_when_all_is_sent() {
    for input in [&b"PING\n"[..], b"PING"] {
        let mut connection = connection(&[input], true);
        while !connection.is_dead() {
            turn(&mut connection);
            assert!(!connection.is_lingering());
        }
    }
}

#[test]
fn no_more_is_read_before_what_has_come_is_executed_nor_after_the_end() {
    let mut connection = connection(&[b"PING\nPING\n"], true);
    assert!(connection.wants_read());
    connection.fill(&mut [0; 1000]);
    assert_eq!(connection.execute(1, &mut answer), 5);
    assert!(connection.can_execute() && !connection.wants_read());
    connection.commit();
    turn(&mut connection);
    assert!(connection.wants_read());
    connection.fill(&mut [0; 1000]);
    assert!(connection.can_execute() && !connection.wants_read());
}

#[test]
fn a_further_share_of_a_turn_begins_where_the_one_before_it_ended() {
    let mut connection = connection(&[b"PING\nPING\nPING\n"], false);
    connection.fill(&mut [0; 1000]);
    assert_eq!(connection.execute(1, &mut answer), 5);
    assert_eq!(connection.execute(5, &mut answer), 5);
    assert_eq!(connection.rollback(), 10);
}
