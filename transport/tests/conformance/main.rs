//! One suite over every provider: each promise of the crate's documentation is a named test, so that names read
//! `shm::order`. What a provider cannot do is skipped with the reason printed. No test asserts a maximum time; a watchdog
//! ends one that hangs.

#![expect(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "a test that meets the unexpected ends")]

mod cut_short;
mod fixture;
mod process;
mod shm_only;
mod shm_restart;
mod sim_only;
mod suite;
mod tcp_hostile;
mod tcp_only;
mod tcp_tls_only;
#[cfg(feature = "verbs")]
mod verbs_only;
mod wrappers;
mod writer;

use fixture::{ShmFixture, SimFixture, TcpFixture, TlsFixture};
#[cfg(feature = "verbs")]
use fixture::{VerbsFixture, WindowlessFixture};

macro_rules! conformance {
    ($provider:ident over $fixture:ident: $($test:ident)*) => {
        mod $provider {
            $(#[test] fn $test() {
                crate::fixture::watched(concat!(stringify!($provider), "::", stringify!($test)), || {
                    crate::suite::$test::<super::$fixture>();
                });
            })*
        }
    };
    ($($provider:ident over $fixture:ident,)*) => {
        $(conformance! { $provider over $fixture:
            order completion flush reads reads_before_writes both_ways_full back_pressure notifications notification_back_pressure compare_swap_contention
            bounds rights grants_are_checked foreign_regions empty_batches sizes one_gibibyte many_endpoints leases
            errors_latch abort drop_gives_up revoke_is_final revoke_before_connecting revoke_under_a_stream
            revoke_from_several_threads completed_writes_survive_revoke hostile_hello hostile_reply reply_used_twice
            wait_modes deadline server_threads two_regions too_many_notifications
        })*
    };
}

#[cfg(feature = "verbs")]
conformance! {
    verbs over VerbsFixture,
    verbs_without_windows over WindowlessFixture,
}

conformance! {
    shm over ShmFixture,
    sim over SimFixture,
    tcp over TcpFixture,
    tcp_tls over TlsFixture,
}
