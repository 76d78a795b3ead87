//! What every directory promises, on each that there is; and what becomes of each when things go wrong.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod embedded;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "etcd")]
#[path = "../common/etcd_access.rs"]
mod etcd_access;
#[cfg(feature = "etcd")]
#[path = "../common/etcd_server.rs"]
mod etcd_server;
#[cfg(feature = "etcd")]
#[path = "../common/ports.rs"]
mod ports;
#[cfg(feature = "etcd")]
#[path = "../common/program.rs"]
mod program;
mod promises;

macro_rules! promises {
    ($($kind:ident over $fixture:ty: $($test:ident)*;)*) => {
        $(mod $kind {
            $(#[tokio::test] async fn $test() {
                crate::promises::$test::<$fixture>().await;
            })*
        })*
    };
    ($($kind:ident over $fixture:ty,)*) => {
        promises! { $($kind over $fixture:
            a_swap_is_made_only_if_the_entry_is_unchanged a_lease_is_of_one_directory of_many_claimants_one_wins
            a_listing_and_a_watch_leave_no_gap a_listing_is_of_one_prefix a_watch_tells_everything_in_order
            what_is_tied_to_a_lease_goes_with_it an_entry_goes_with_the_lease_that_it_was_last_written_with
            a_lease_that_was_ended_stays_so;
        )* }
    };
}

promises! { on_a_file over crate::embedded::EmbeddedFixture, }
#[cfg(feature = "etcd")]
promises! { on_etcd over crate::etcd::EtcdFixture, }
