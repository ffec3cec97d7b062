use std::time::Duration;

use super::*;

#[test]
fn what_arrived_whole_counts_however_the_command_was_seen_to_end() {
    let place = Place { namespace: "n", pod: "p", container: "gapscan-x-3", uid: None };
    let mut whole = Vec::new();
    parcel::send_with(b"facts", OWN_SOCKETS, b"{}", &mut whole).expect("it is written to memory");
    let stopped = || Err(ClusterError::TargetChanged { target: place.key(), detail: "it stopped".to_owned() });
    for ended in [Ok(()), stopped()] {
        let collected = received(&whole, ended, &place).expect("it is whole");
        assert_eq!((&collected.facts[..], &collected.sockets[..]), (&b"facts"[..], &b"{}"[..]));
    }
    let cut = &whole[..whole.len() - 9];
    let of = |ended| received(cut, ended, &place).expect_err("it is cut");
    assert!(matches!(of(stopped()), ClusterError::ExecBroken { .. }), "the target itself has not changed");
    assert!(matches!(of(Ok(())), ClusterError::OutputTruncated { .. }));
    let late = Err(ClusterError::ExecTimeout { target: place.key(), after: Duration::from_secs(1) });
    assert!(matches!(of(late), ClusterError::ExecTimeout { .. }));
}
